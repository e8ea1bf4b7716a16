"""Reads a run folder: tables as pandas, series as arrays, frames for detectors. Needs nothing but the disk.

    >>> run = RunFolder("runs/demo")                                             # doctest: +SKIP
    >>> run.manifest.summary["detection_delay"]
    >>> run.meter(["t_us", "load_W"], site="depot")                              # a DataFrame
    >>> run.series("measured", ["t_us", "group_voltage_V"], "depot", "rack-1", "pack-2")   # 2-D lists
    >>> for frame in run.frames(): detector.update(frame)

Only files named in manifest.json are read, so nothing lying about in the folder is taken for data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twin.telemetry.frame import Frame, PackInfo
from twin.telemetry.manifest import COMPLETE, Manifest
from twin.telemetry.schema import PARTITIONED, SCHEMA_VERSION, TABLES, Column, column

MANIFEST = "manifest.json"
PARTIAL = ".partial"

_FRAME_COLUMNS = (
    "t_us",
    "rack",
    "pack",
    "current_A",
    "pack_voltage_V",
    "group_voltage_V",
    "temperature_K",
    "soc_bms",
    "bms_state",
    "level",
    "fault_mask",
    "contactors",
    "balancing",
    "sample_age_s",
    "power_W",
    "pressure_Pa",
    "gas_fraction",
    "insulation_ohm",
    "cooling",
)


class RunReadError(Exception):
    """Not a run folder, an incomplete one, or one with a file missing or altered."""

    exit_code = 2


class RunFolder:
    """A finished run on disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)

    @classmethod
    def draft(cls, path: Path, manifest: Manifest) -> RunFolder:
        """The tables of a run whose writer is still open (`RunWriter.finish_tables`)."""
        folder = cls.__new__(cls)
        folder.path, folder.manifest = path, manifest
        return folder

    # ---- tables as pandas ---------------------------------------------------------------------------

    def measured(
        self, columns: Sequence[str] | None = None, *, site: str = "", rack: str = "", pack: str = ""
    ) -> pd.DataFrame:
        """Rows of `measured`, ordered by time; lists as arrays, names as categories."""
        return self._frame("measured", columns, site, rack, pack)

    def truth(
        self, columns: Sequence[str] | None = None, *, site: str = "", rack: str = "", pack: str = ""
    ) -> pd.DataFrame:
        """Rows of `truth`, ordered by time. For scoring and for plots that say so."""
        return self._frame("truth", columns, site, rack, pack)

    def meter(self, columns: Sequence[str] | None = None, *, site: str = "") -> pd.DataFrame:
        """Rows of `meter`, ordered by time."""
        return self._frame("meter", columns, site, "", "")

    def events(self) -> pd.DataFrame:
        """Rows of `events`, in the order they happened."""
        return self._frame("events", None, "", "", "")

    def alerts(self) -> pd.DataFrame:
        """Rows of `alerts`; empty when no detector ran."""
        return self._frame("alerts", None, "", "", "")

    @cached_property
    def packs(self) -> tuple[PackInfo, ...]:
        """Data sheets of all packs."""
        rows = self._arrow("packs", None, "", "", "").to_pylist()

        def fields(row: dict[str, Any]) -> dict[str, Any]:
            return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}

        return tuple(PackInfo(**fields(row)) for row in rows)

    def pack(self, site: str, rack: str, pack: str) -> PackInfo:
        """Data sheet of one pack."""
        for info in self.packs:
            if (info.site, info.rack, info.pack) == (site, rack, pack):
                return info
        raise KeyError(f"{self.path} has no pack {site}/{rack}/{pack}")

    def has(self, table: str) -> bool:
        """Whether the table has any rows."""
        return table in self.manifest.tables and self.manifest.tables[table].rows > 0

    # ---- arrays -------------------------------------------------------------------------------------

    def series(
        self, table: str, columns: Sequence[str], site: str, rack: str = "", pack: str = ""
    ) -> dict[str, NDArray[Any]]:
        """Columns of one pack (or site meter) as arrays over time; list columns are (n_rows, length)."""
        rows = self._arrow(table, columns, site, rack, pack)
        return {name: _to_numpy(rows.column(name), column(table, name)) for name in columns}

    def frames(self, *, site: str = "", rack: str = "", pack: str = "") -> Iterator[Frame]:
        """Measured rows one by one, in time order for each pack, a row group in memory at a time.

        The arrays of a frame are views of that row group's buffer.
        """
        for found_site, part in self._parts("measured", site):
            with self._open(part) as file:
                present = [name for name in _FRAME_COLUMNS if name in file.schema_arrow.names]
                for group in range(file.num_row_groups):
                    rows = _select(file.read_row_group(group, columns=present), rack, pack)
                    yield from _frames(found_site, _complete(rows, "measured", _FRAME_COLUMNS))

    # ---- files --------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Compare every file with the hash in the manifest; RunReadError names the first that differs."""
        for table in self.manifest.tables.values():
            for file in table.files:
                path = self.path / file["path"]
                try:
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                except OSError as error:
                    raise RunReadError(f"{path}: {error.strerror}") from None
                if digest != file["sha256"]:
                    raise RunReadError(f"{path} was changed after the run: its SHA-256 is not the manifest's")

    def _parts(self, table: str, site: str = "") -> Iterator[tuple[str, Path]]:
        if table not in self.manifest.tables:
            return
        for file in self.manifest.tables[table].files:
            found = ""
            if table in PARTITIONED:
                found = file["path"].split("/")[1].removeprefix("site=")
                if site and found != site:
                    continue
            yield found, self.path / file["path"]

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise RunReadError(f"cannot read {path}: {error}") from None

    def _arrow(self, table: str, columns: Sequence[str] | None, site: str, rack: str, pack: str) -> pa.Table:
        wanted = list(columns) if columns is not None else [entry.name for entry in TABLES[table]]
        for name in wanted:
            if not (name == "site" and table in PARTITIONED):
                column(table, name)
        stored = [name for name in wanted if not (name == "site" and table in PARTITIONED)]
        keys = [name for name, word in (("rack", rack), ("pack", pack)) if word and name not in stored]
        pieces = []
        for found, part in self._parts(table, site):
            with self._open(part) as file:
                present = [name for name in (*stored, *keys) if name in file.schema_arrow.names]
                rows = _select(file.read(columns=present), rack, pack)
            rows = _complete(rows, table, stored)
            if table in PARTITIONED:
                names = pa.DictionaryArray.from_arrays(np.zeros(len(rows), dtype=np.int32), [found])
                rows = rows.append_column("site", names)
            pieces.append(rows)
        if pieces:
            return pa.concat_tables(pieces).unify_dictionaries()
        empty = pa.schema([column(table, name).arrow_field() for name in stored]).empty_table()
        if table in PARTITIONED:
            empty = empty.append_column("site", pa.array([], type=pa.dictionary(pa.int32(), pa.string())))
        return empty

    def _frame(
        self, table: str, columns: Sequence[str] | None, site: str, rack: str, pack: str
    ) -> pd.DataFrame:
        rows = self._arrow(table, columns, site, rack, pack)
        found: dict[str, Any] = {}
        for name in rows.column_names:
            if name == "site" and columns is not None and "site" not in columns:
                continue
            values = rows.column(name)
            if name != "site" and column(table, name).nullable:
                found[name] = pd.array(values.to_pylist(), dtype="Int32")
            else:
                found[name] = values.to_pandas()
        frame = pd.DataFrame(found, columns=list(found))
        if "t_us" in frame:
            frame = frame.sort_values("t_us", kind="stable", ignore_index=True)
        return frame


def _read_manifest(path: Path) -> Manifest:
    name = path / MANIFEST
    if path.name.endswith(PARTIAL):
        raise RunReadError(f"{path} is incomplete: its run was killed or is still going on; run it again")
    if not path.is_dir():
        raise RunReadError(f"{path} is not a run folder: there is no such folder")
    if not name.is_file():
        unfinished = path.with_name(path.name + PARTIAL)
        hint = f"; {unfinished.name} beside it is an unfinished run" if unfinished.exists() else ""
        raise RunReadError(f"{path} is not a run folder: it has no {MANIFEST}{hint}")
    try:
        manifest = Manifest.from_json(name.read_text())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunReadError(f"{name} is not the manifest of a run: {error}") from None
    if manifest.status != COMPLETE:
        raise RunReadError(f"{path} is incomplete: its manifest says {manifest.status!r}")
    if manifest.schema_version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise RunReadError(
            f"{path} was written with table schema {manifest.schema_version}; "
            f"this program reads {SCHEMA_VERSION}"
        )
    return manifest


def _select(rows: pa.Table, rack: str, pack: str) -> pa.Table:
    for name, word in (("rack", rack), ("pack", pack)):
        if word:
            rows = rows.filter(pc.equal(pc.cast(rows.column(name), pa.string()), word))
    return rows


def _complete(rows: pa.Table, table: str, wanted: Sequence[str]) -> pa.Table:
    """Columns in the order asked for; those an older version did not write are NaN, false, 0 or empty."""
    arrays = []
    for name in wanted:
        if name in rows.column_names:
            arrays.append(rows.column(name))
            continue
        entry = column(table, name)
        if entry.per:
            offsets = np.zeros(len(rows) + 1, dtype=np.int32)
            empty = pa.array([], type=entry.arrow.value_type)
            arrays.append(pa.ListArray.from_arrays(offsets, empty, type=entry.arrow))
        elif entry.nullable:
            arrays.append(pa.nulls(len(rows), type=entry.arrow))
        else:
            fill: Any = "" if entry.dtype in ("name", "text") else entry.nothing if entry.optional else 0
            if entry.dtype.startswith("float"):
                fill = np.nan
            arrays.append(pa.array([fill] * len(rows)).cast(entry.arrow))
    return pa.table(arrays, names=list(wanted))


def _to_numpy(values: pa.ChunkedArray, entry: Column) -> NDArray[Any]:
    joined = values.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = pa.concat_arrays(joined.chunks) if joined.num_chunks else pa.array([], type=joined.type)
    if not entry.per:
        return np.asarray(joined.to_numpy(zero_copy_only=False))
    flat = np.asarray(joined.flatten().to_numpy(zero_copy_only=False))
    return flat.reshape(len(joined), -1) if len(joined) else flat.reshape(0, 0)


def _frames(site: str, rows: pa.Table) -> Iterator[Frame]:
    if len(rows) == 0:
        return
    values = {name: rows.column(name).combine_chunks() for name in rows.column_names}
    scalars = {}
    lists = {}
    names = {}
    for name, array in values.items():
        array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
        entry = column("measured", name)
        if entry.per:
            flat = array.flatten().to_numpy(zero_copy_only=False)
            flat = flat if entry.dtype == "bool" else flat.astype(np.float64)
            ends = np.concatenate([[0], np.cumsum(array.value_lengths().to_numpy())])
            lists[name] = (flat, ends.tolist())
        elif entry.dtype == "name":
            names[name] = (array.indices.to_numpy().tolist(), array.dictionary.to_pylist())
        else:
            scalars[name] = array.to_numpy(zero_copy_only=False).tolist()
    (volts, volt_ends), (kelvins, kelvin_ends) = lists["group_voltage_V"], lists["temperature_K"]
    balancing, balancing_ends = lists["balancing"]
    (racks, rack_names), (packs, pack_names) = names["rack"], names["pack"]
    for i in range(len(rows)):
        yield Frame(
            t_s=scalars["t_us"][i] * 1e-6,
            site=site,
            rack=rack_names[racks[i]],
            pack=pack_names[packs[i]],
            current_A=scalars["current_A"][i],
            pack_voltage_V=scalars["pack_voltage_V"][i],
            group_voltage_V=volts[volt_ends[i] : volt_ends[i + 1]],
            temperature_K=kelvins[kelvin_ends[i] : kelvin_ends[i + 1]],
            soc_bms=scalars["soc_bms"][i],
            bms_state=scalars["bms_state"][i],
            level=scalars["level"][i],
            fault_mask=scalars["fault_mask"][i],
            contactors=scalars["contactors"][i],
            balancing=balancing[balancing_ends[i] : balancing_ends[i + 1]],
            sample_age_s=scalars["sample_age_s"][i],
            power_W=scalars["power_W"][i],
            pressure_Pa=scalars["pressure_Pa"][i],
            gas_fraction=scalars["gas_fraction"][i],
            insulation_ohm=scalars["insulation_ohm"][i],
            cooling=scalars["cooling"][i],
        )


def code_names(field: pa.Field) -> dict[str, str]:
    """Names of the codes of a column, from its Parquet metadata."""
    text = (field.metadata or {}).get(b"names", b"{}")
    return dict(json.loads(text))
