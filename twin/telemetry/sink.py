"""Writes a run folder: columnar buffers, flushed to Parquet, made visible in one rename.

    >>> with RunWriter(out, packs=infos) as writer:                            # doctest: +SKIP
    ...     writer.measured.append_block(t_us, None, {"current_A": amps, "group_voltage_V": volts, ...})
    ...     writer.meter.append_block(t_us, None, {"power_requested_W": watts, ...})
    ...     writer.event(t_us=t_us, source="fault", kind="internal_short", severity="alarm", text=...)
    ...     folder = writer.finish_tables()  # readable, still unpublished
    ...     writer.alerts(rows)
    ...     writer.complete(manifest)  # manifest.json, then `<out>.partial` becomes `<out>`

All rows of one instant are appended as arrays, one call per table. List columns come flat, pack by
pack and group by group (the order of the shard's arrays), or as a 2-D array when all packs are alike.

Everything is written into `<out>.partial` beside the target. A killed run leaves only that folder, which
readers refuse and the next run replaces; an error on the way (disk full, unwritable) removes it.
The same rows give the same bytes: parts have fixed sizes, fixed order and no timestamps.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from twin.telemetry.frame import PackInfo
from twin.telemetry.manifest import Manifest, TableFiles
from twin.telemetry.reader import MANIFEST, PARTIAL, RunFolder
from twin.telemetry.schema import (
    DAY_US,
    EVENT_SOURCES,
    SCHEMA_VERSION,
    SEVERITIES,
    TABLES,
    Column,
    arrow_schema,
    column,
)

ROW_GROUP_ROWS = 16_384
BUFFER_BYTES = 48 * 2**20
EVENT_ROWS = 100_000
_LOCK = ".lock"
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Index = slice | NDArray[np.integer] | None


class RunWriteError(Exception):
    """The run folder could not be written; the message says where and why."""

    exit_code = 2


class RunWriter:
    """Writes one run folder; a context manager that removes the unfinished folder on any exception.

    Parameters
    ----------
    out : where the finished folder shall stand
    packs : data sheets of all packs, in the order of the shard's pack arrays
    sites : names in the order of the `meter` rows; by default as they appear in `packs`
    overwrite : replace an existing run folder (and nothing else) at the end
    code_names : for `bms_state`, `fault_mask`, `contactors` …: code or bit number → name
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        packs: Sequence[PackInfo],
        sites: Sequence[str] | None = None,
        overwrite: bool = False,
        code_names: Mapping[str, Mapping[int, str]] | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.out = Path(os.path.abspath(out))
        self.partial = self.out.with_name(self.out.name + PARTIAL)
        self.packs = tuple(packs)
        self.sites = tuple(sites) if sites is not None else tuple(dict.fromkeys(p.site for p in packs))
        self.code_names = {
            name: {str(code): word for code, word in sorted(names.items())}
            for name, names in sorted((code_names or {}).items())
        }
        for site in self.sites:
            if not _SITE.fullmatch(site):
                raise ValueError(f"site name {site!r} cannot be part of a folder name")
        unknown = {p.site for p in packs} - set(self.sites)
        if unknown:
            raise ValueError(f"packs name sites that are not listed: {', '.join(sorted(unknown))}")
        self._overwrite = overwrite
        self._lock: IO[str] | None = None
        self._files: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
        self._parts: dict[str, int] = {}
        self._events: list[dict[str, Any]] = []
        self._done = False
        self._owned = False  # the unfinished folder is ours to remove

        with self._guard("begin the run folder"):
            self._begin()
        site_of_pack = np.array([self.sites.index(p.site) for p in packs], dtype=np.int64)
        lengths = {
            "group": np.array([p.n_series for p in packs], dtype=np.int64),
            "sensor": np.array([p.n_sensors for p in packs], dtype=np.int64),
        }
        who = {"rack": [p.rack for p in packs], "pack": [p.pack for p in packs]}
        self.measured = BlockTable(self, "measured", site_of_pack, who, lengths, buffer_bytes)
        self.truth = BlockTable(self, "truth", site_of_pack, who, lengths, buffer_bytes)
        self.meter = BlockTable(self, "meter", np.arange(len(self.sites)), {}, {}, buffer_bytes)
        with self._guard("write the table of packs"):
            self._write_part("packs", "packs", _rows_to_arrow("packs", [_pack_row(p) for p in packs], {}))

    # ---- the life of the folder ---------------------------------------------------------------------

    def _begin(self) -> None:
        if self.out.exists() or self.out.is_symlink():
            if not self._overwrite:
                raise RunWriteError(f"{self.out} exists already; choose another folder or overwrite it")
            if not _replaceable(self.out):
                raise RunWriteError(
                    f"{self.out} is not a run folder (no {MANIFEST}), so it is not overwritten; "
                    "choose another folder"
                )
        if self.out.parent.exists() and not self.out.parent.is_dir():
            raise RunWriteError(f"cannot write {self.out}: {self.out.parent} is a file, not a folder")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.partial.mkdir()
        except FileExistsError:
            self._clear_stale()
            self.partial.mkdir()
        self._owned = True
        self._lock = (self.partial / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _clear_stale(self) -> None:
        """Remove what a killed run left; refuse while its writer lives (the lock dies with the process)."""
        lock = self.partial / _LOCK
        if lock.exists():
            with open(lock) as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise RunWriteError(
                        f"another run is writing {self.partial}; wait for it or choose another folder"
                    ) from None
        stale = self.partial.with_name(f"{self.partial.name}.stale-{os.getpid()}")
        self.partial.rename(stale)  # of two runs that find it, one wins here
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink()

    def flush(self) -> None:
        """Write all buffered rows."""
        if self._done:
            raise RunWriteError(f"{self.out} is closed: nothing can be added")
        for table in (self.measured, self.truth, self.meter):
            table.flush()
        self._flush_events()

    def finish_tables(self) -> RunFolder:
        """Write all rows and hand out the folder for reading, although it is not yet published."""
        self.flush()
        draft = Manifest(
            scenario="", status="draft", code_names=dict(self.code_names), tables=self._table_files()
        )
        return RunFolder.draft(self.partial, draft)

    def complete(self, manifest: Manifest) -> RunFolder:
        """Write the manifest and publish the folder. `tables` and `code_names` are filled in here."""
        self.flush()
        with self._guard("publish the run folder"):
            manifest.tables = self._table_files()
            manifest.code_names = dict(self.code_names)
            manifest.schema_version = SCHEMA_VERSION
            write_file(self.partial / MANIFEST, manifest.to_json().encode())
            (self.partial / _LOCK).unlink()
            replaced = None
            if self.out.exists():
                replaced = self.out.with_name(f"{self.out.name}.replaced-{os.getpid()}")
                self.out.rename(replaced)
            self.partial.rename(self.out)
            _sync_folder(self.out.parent)
            self._release()
            self._done = True
            if replaced is not None:
                shutil.rmtree(replaced, ignore_errors=True)
        return RunFolder(self.out)

    def abandon(self) -> None:
        """Remove the unfinished folder. Harmless after `complete`."""
        if not self._done:
            self._done = True
            if self._owned:
                shutil.rmtree(self.partial, ignore_errors=True)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Turn an error of the file system into one clear sentence and leave nothing half written."""
        try:
            yield
        except RunWriteError:
            raise
        except OSError as error:
            self.abandon()
            reason = error.strerror or str(error)
            removed = "; the unfinished folder was removed" if self._owned else ""
            raise RunWriteError(f"cannot {doing} at {self.out}: {reason}{removed}") from error

    # ---- rows ---------------------------------------------------------------------------------------

    def event(
        self,
        *,
        t_us: int,
        source: str,
        kind: str,
        severity: str,
        text: str,
        site: str = "",
        rack: str = "",
        pack: str = "",
        cell: int | None = None,
        value: float = float("nan"),
        unit: str = "-",
    ) -> None:
        """One row of `events`; `cell` counts from 1."""
        if source not in EVENT_SOURCES:
            raise ValueError(f"event source {source!r} is none of {', '.join(EVENT_SOURCES)}")
        if severity not in SEVERITIES:
            raise ValueError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
        self._events.append(
            {
                "t_us": int(t_us),
                "site": site,
                "rack": rack,
                "pack": pack,
                "cell": cell,
                "source": source,
                "kind": kind,
                "severity": severity,
                "value": float(value),
                "unit": unit,
                "text": text,
            }
        )
        if len(self._events) >= EVENT_ROWS:
            self._flush_events()

    def alerts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All rows of `alerts`: mappings with the table's columns."""
        with self._guard("write the table of alerts"):
            self._write_part("alerts", "alerts", _rows_to_arrow("alerts", rows, self.code_names))

    def _flush_events(self) -> None:
        if self._events or not self._files["events"]:
            rows, self._events = self._events, []
            with self._guard("write the table of events"):
                self._write_part("events", "events", _rows_to_arrow("events", rows, self.code_names))

    # ---- files --------------------------------------------------------------------------------------

    def _write_part(self, table: str, folder: str, rows: pa.Table) -> None:
        if self._done:
            raise RunWriteError(f"{self.out} is closed: nothing can be added")
        number = self._parts.get(folder, 0)
        self._parts[folder] = number + 1
        relative = f"{folder}/part-{number:04d}.parquet"
        digest = write_parquet(self.partial / relative, rows)
        self._files[table].append({"path": relative, "rows": rows.num_rows, "sha256": digest})

    def _table_files(self) -> dict[str, TableFiles]:
        return {table: table_files(files) for table, files in self._files.items() if files}


class BlockTable:
    """Buffer of one partitioned table; an entity is a pack (`measured`, `truth`) or a site (`meter`)."""

    def __init__(
        self,
        writer: RunWriter,
        table: str,
        site: NDArray[np.int64],
        who: Mapping[str, Sequence[str]],
        lengths: Mapping[str, NDArray[np.int64]],
        buffer_bytes: int,
    ) -> None:
        self._writer = writer
        self.table = table
        self._site = site
        self._all = np.arange(site.size)
        self._lengths = lengths
        self._names = {name: list(dict.fromkeys(words)) for name, words in who.items()}
        self._codes = {
            name: np.array([self._names[name].index(word) for word in words], dtype=np.int32)
            for name, words in who.items()
        }
        own = {"t_us", *who}
        self._columns = {entry.name: entry for entry in TABLES[table] if entry.name not in own}
        widest = {kind: int(length.max(initial=0)) for kind, length in lengths.items()}
        row_bytes = 16 + sum(
            np.dtype(entry.numpy).itemsize * (widest[entry.per] if entry.per else 1)
            for entry in self._columns.values()
        )
        self._capacity = max(int(np.clip(buffer_bytes // row_bytes, 256, 2**20)), site.size)
        self._rows = 0
        self._t_us = np.empty(self._capacity, dtype=np.int64)
        self._entity = np.empty(self._capacity, dtype=np.int64)
        self._scalar = {
            name: np.empty(self._capacity, dtype=entry.numpy)
            for name, entry in self._columns.items()
            if not entry.per
        }
        self._list = {
            name: np.empty(self._capacity * widest[entry.per], dtype=entry.numpy)
            for name, entry in self._columns.items()
            if entry.per
        }
        self._filled = dict.fromkeys(lengths, 0)  # elements so far in the list columns of each kind
        self._last_t_us = -1
        names = {name: json.dumps(words) for name, words in writer.code_names.items()}
        self._schema = arrow_schema(table, names)

    def append_block(self, t_us: int, index: Index, columns: Mapping[str, ArrayLike]) -> None:
        """Append one row for each entity of `index` (None: all), all at time t_us.

        columns : a scalar or an (n,) array for each column; list columns flat (elements of the first
        entity, then of the second …) or (n, length). Optional columns may be left out.
        """
        if t_us < self._last_t_us:
            raise ValueError(f"{self.table}: row at {t_us} us after one at {self._last_t_us} us")
        entity = self._all if index is None else self._all[index]
        count = entity.size
        for name in columns:
            if name not in self._columns:
                column(self.table, name)  # says what is near
                raise KeyError(f"{self.table}.{name} is filled in by the writer")
        if self._rows + count > self._capacity:
            self.flush()
        start, stop = self._rows, self._rows + count
        elements = {kind: int(length[entity].sum()) for kind, length in self._lengths.items()}
        for name, entry in self._columns.items():
            if name in columns:
                value = np.asarray(columns[name])
            elif entry.optional:
                value = np.asarray(entry.nothing)
            else:
                raise KeyError(f"{self.table}.{name} is missing")
            if entry.per:
                at = self._filled[entry.per]
                target = self._list[name][at : at + elements[entry.per]]
                value = value.reshape(-1) if value.ndim == 2 else value
            else:
                target = self._scalar[name][start:stop]
            if value.ndim != 0 and value.shape != target.shape:
                raise ValueError(
                    f"{self.table}.{name}: got {value.shape} for {count} rows, expected {target.shape}"
                )
            target[...] = value
        self._t_us[start:stop] = t_us
        self._entity[start:stop] = entity
        for kind, number in elements.items():
            self._filled[kind] += number
        self._rows = stop
        self._last_t_us = int(t_us)

    def flush(self) -> None:
        """Write the buffered rows, one part for each site and day among them."""
        if self._rows == 0:
            return
        entity = self._entity[: self._rows]
        rows = self._to_arrow(entity)
        # The row at midnight closes the day before: meter rows are means over the period that ends there.
        day = np.maximum(self._t_us[: self._rows] - 1, 0) // DAY_US
        key = day * len(self._writer.sites) + self._site[entity]
        if np.any(key[1:] < key[:-1]):
            order = np.argsort(key, kind="stable")
            rows, key = rows.take(pa.array(order)), key[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        stops = np.append(starts[1:], key.size)
        with self._writer._guard(f"write the table {self.table}"):
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                number, site = divmod(int(key[start]), len(self._writer.sites))
                folder = f"{self.table}/site={self._writer.sites[site]}/day={number:04d}"
                self._writer._write_part(self.table, folder, rows.slice(start, stop - start))
        self._rows = 0
        self._filled = dict.fromkeys(self._lengths, 0)

    def _to_arrow(self, entity: NDArray[np.int64]) -> pa.Table:
        offsets = {
            kind: np.concatenate([[0], np.cumsum(length[entity])]).astype(np.int32)
            for kind, length in self._lengths.items()
        }
        arrays: list[pa.Array] = []
        for field in self._schema:
            name = field.name
            if name == "t_us":
                arrays.append(pa.array(self._t_us[: self._rows]))
            elif name in self._codes:
                arrays.append(pa.DictionaryArray.from_arrays(self._codes[name][entity], self._names[name]))
            elif name in self._scalar:
                arrays.append(pa.array(self._scalar[name][: self._rows]))
            else:
                kind = self._columns[name].per
                values = pa.array(self._list[name][: self._filled[kind]])
                arrays.append(pa.ListArray.from_arrays(offsets[kind], values, type=field.type))
        return pa.Table.from_arrays(arrays, schema=self._schema)


# ---- rows and files ---------------------------------------------------------------------------------


def _pack_row(info: PackInfo) -> dict[str, Any]:
    return {entry.name: getattr(info, entry.name) for entry in TABLES["packs"]}


def _rows_to_arrow(
    table: str, rows: Sequence[Mapping[str, Any]], code_names: Mapping[str, Mapping[str, str]]
) -> pa.Table:
    names = {name: json.dumps(words) for name, words in code_names.items()}
    schema = arrow_schema(table, names)

    def value(row: Mapping[str, Any], entry: Column) -> Any:
        found = row[entry.name]
        return list(found) if entry.per else found

    arrays = []
    for entry in TABLES[table]:
        cells = [value(row, entry) for row in rows]
        if entry.dtype == "name":
            arrays.append(pa.array(cells, type=pa.string()).dictionary_encode().cast(entry.arrow))
        else:
            arrays.append(pa.array(cells, type=entry.arrow))
    return pa.Table.from_arrays(arrays, schema=schema)


def write_file(path: Path, data: bytes) -> None:
    """Write and sync to the disk; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_parquet(path: Path, rows: pa.Table) -> str:
    """Write a part, deterministic to the byte; returns its SHA-256."""
    buffer = pa.BufferOutputStream()
    pq.write_table(
        rows,
        buffer,
        row_group_size=ROW_GROUP_ROWS,
        version="2.6",
        compression="zstd",
        compression_level=3,
    )
    data = buffer.getvalue()
    write_file(path, data)
    return hashlib.sha256(data).hexdigest()


def table_files(files: list[dict[str, Any]]) -> TableFiles:
    """Summary of a table's files for the manifest."""
    text = "".join(f"{file['path']} {file['sha256']}\n" for file in files)
    return TableFiles(
        rows=sum(file["rows"] for file in files),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        files=files,
    )


def _replaceable(out: Path) -> bool:
    """Only a run folder or an empty folder may be overwritten."""
    return out.is_dir() and not out.is_symlink() and ((out / MANIFEST).is_file() or not any(out.iterdir()))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_alerts(
    folder: RunFolder, rows: Sequence[Mapping[str, Any]], changes: Mapping[str, Any]
) -> RunFolder:
    """Give a finished run new alerts (a later analysis) and change fields of its manifest with them.

    The new part is written beside the old one, the manifest is replaced in one rename, then the old part
    goes: at every instant the manifest names files that exist.
    """
    manifest = folder.manifest
    old = (
        [folder.path / file["path"] for file in manifest.tables["alerts"].files]
        if ("alerts" in manifest.tables)
        else []
    )
    table = _rows_to_arrow("alerts", rows, {})
    try:
        taken = {path.name for path in old}
        number = next(k for k in range(len(taken) + 1) if f"part-{k:04d}.parquet" not in taken)
        relative = f"alerts/part-{number:04d}.parquet"
        digest = write_parquet(folder.path / relative, table)
        manifest.tables["alerts"] = table_files(
            [{"path": relative, "rows": table.num_rows, "sha256": digest}]
        )
        for name, value in changes.items():
            setattr(manifest, name, value)
        draft = folder.path / (MANIFEST + ".new")
        write_file(draft, manifest.to_json().encode())
        draft.rename(folder.path / MANIFEST)
        for path in old:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RunWriteError(
            f"cannot write new alerts into {folder.path}: {error.strerror or error}"
        ) from error
    return RunFolder(folder.path)
