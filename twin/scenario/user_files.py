"""A user's own CSV or Parquet file as a series: suspicious of every row.

Rows are counted as an editor counts the lines of a CSV (the header is row 1), and from 1 in Parquet.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twin.scenario.errors import closest, one_of
from twin.scenario.schema import ProfileSpec
from twin.scenario.series import US_PER_S, DataError, Floats, Instants, Message, Series, to_si
from twin.units import DIMENSIONS, UnitError, dimensions_of

MAX_CSV_BYTES = 400_000_000
TIME_NAMES = ("time", "timestamp", "datetime", "date", "utc", "time_utc", "t_s", "time_s", "seconds", "t")


def read_user_file(spec: ProfileSpec, base_dir: Path) -> Series:
    """A CSV or Parquet file with the mapping of a spec; raises DataError naming file and row."""
    return _UserFile(spec, base_dir / str(spec.file)).series()


class _UserFile:
    def __init__(self, spec: ProfileSpec, path: Path) -> None:
        self.spec = spec
        self.path = path
        self.name = str(spec.file)
        self.parquet = path.suffix.lower() in (".parquet", ".pq")
        self.decimal_comma = False

    def stop(self, text: str, expected: str = "", guess: str | None = None) -> DataError:
        return DataError(Message(f"{self.name}: {text}", expected, guess))

    def row(self, index: int) -> str:
        """How a row is called: the line of a CSV (the header is line 1), the row of a Parquet file."""
        return f"row {index + 1}" if self.parquet else f"row {index + 2}"

    def series(self) -> Series:
        frame = self.frame()
        time_column, value_columns = self.columns(frame)
        if len(frame) == 0:
            raise self.stop("has no rows", "a header and at least one row of numbers")
        problems: list[Message] = []
        time, dated, bad_times = self.times(frame[time_column], time_column, problems)
        value, holes = self.values(frame, value_columns, problems)
        if bad_times is None and holes is None:
            problems.append(Message(f"{self.name}: no row can be read"))
        if problems:
            raise DataError(*problems)
        keep = ~holes
        self.check_order(time)
        time, value = time[keep], value[keep]
        if time.size == 0:
            raise self.stop("has no numbers", "at least one row with a time and a number")
        step_us = int(np.median(np.diff(time))) if time.size > 1 else 0
        time, value = self.gaps(time, value, step_us, keep)
        return Series(time, value, dated, step_us, self.name)

    # -- reading ------------------------------------------------------------------------------------

    def frame(self) -> pd.DataFrame:
        self.must_exist()
        if self.parquet:
            return self.read_parquet()
        if self.path.suffix.lower() not in (".csv", ".txt", ".tsv"):
            raise self.stop(f"'{self.path.suffix}' is no known kind of file", ".csv, .tsv, .txt or .parquet")
        return self.read_csv()

    def must_exist(self) -> None:
        try:
            if self.path.is_file():
                size = self.path.stat().st_size
                if size == 0:
                    raise self.stop("the file is empty", "a header and rows")
                if not self.parquet and size > MAX_CSV_BYTES:
                    raise self.stop(f"is larger than {MAX_CSV_BYTES // 1_000_000} MB", "a Parquet file")
                return
            if self.path.is_dir():
                raise self.stop("is a folder", "a CSV or Parquet file")
            folder = self.path.parent
            near = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
        except OSError as error:
            raise self.stop(f"cannot be read ({error.strerror or error})") from None
        except ValueError:
            raise self.stop("is not a file name") from None
        guess = closest(self.path.name, near)
        if guess is not None:
            guess = str(Path(self.name).with_name(guess))
        raise self.stop("no such file", "a path relative to the scenario file", guess)

    def read_parquet(self) -> pd.DataFrame:
        try:
            frame = pd.read_parquet(self.path)
        except Exception as error:  # pyarrow raises many kinds, some derived from no common base
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise self.stop(f"is not a readable Parquet file ({reason})", "a Parquet file") from None
        if frame.index.name is not None or isinstance(frame.index, pd.DatetimeIndex):
            frame = frame.reset_index()
        frame.columns = frame.columns.map(str)
        return frame

    def read_csv(self) -> pd.DataFrame:
        """All cells as text, so that a bad one can be shown as it stands."""
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as stream:
                header = stream.readline()
        except UnicodeDecodeError:
            raise self.stop("is not UTF-8 text", "a CSV file in UTF-8") from None
        except OSError as error:
            raise self.stop(f"cannot be read ({error.strerror or error})") from None
        separator = max((";", "\t", ","), key=header.count)
        self.decimal_comma = separator == ";"
        try:
            frame = pd.read_csv(
                self.path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
                encoding="utf-8-sig",
                index_col=False,
                on_bad_lines="error",
                engine="c",
            )
        except UnicodeDecodeError:
            raise self.stop("is not UTF-8 text", "a CSV file in UTF-8") from None
        except (ValueError, OSError, OverflowError) as error:
            reason = " ".join(str(error).split())[:120]
            match = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason)
            if match:
                text = f"row {match.group(2)} has {match.group(3)} cells"
                raise self.stop(text, f"{match.group(1)} cells, as in the header") from None
            raise self.stop(f"is not a readable CSV file ({reason})", "a table with a header") from None
        frame.columns = frame.columns.map(lambda c: str(c).strip())
        # Blank lines at the end are no rows.
        filled = np.flatnonzero((frame != "").any(axis=1).to_numpy())
        return frame.iloc[: int(filled[-1]) + 1 if filled.size else 0]

    # -- columns --------------------------------------------------------------------------------------

    def columns(self, frame: pd.DataFrame) -> tuple[str, list[str]]:
        names = [str(c) for c in frame.columns]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise self.stop(f"two columns are called '{twice}'", "different names")
        problems: list[Message] = []
        time_column = self.spec.time_column
        if time_column is None:
            time_column = next((n for n in names if n.lower() in TIME_NAMES), None)
            if time_column is None:
                expected = f"time: with {one_of(names)}"
                problems.append(Message(f"{self.name}: which column is the time is not said", expected))
        elif time_column not in names:
            problems.append(self.no_column(time_column, names))
        others = [n for n in names if n != time_column]
        if self.spec.column is None:
            wanted = others
            if len(others) != 1 and time_column is not None:
                expected = f"column: with {one_of(others)}"
                problems.append(Message(f"{self.name}: which column is the value is not said", expected))
        elif self.spec.column in names:
            wanted = [self.spec.column]
        else:
            wanted = [part.strip() for part in self.spec.column.split("+")]
            problems += [self.no_column(n, names) for n in wanted if n not in names]
        if problems:
            raise DataError(*problems)
        assert time_column is not None
        return time_column, wanted

    def no_column(self, name: str, names: list[str]) -> Message:
        return Message(f"{self.name}: no column '{name}'", one_of(names), closest(name, names))

    # -- time -----------------------------------------------------------------------------------------

    def times(
        self, column: pd.Series, name: str, problems: list[Message]
    ) -> tuple[Instants, bool, NDArray[np.bool_] | None]:
        """Microseconds, whether they are dates, and (None when hopeless) which could not be read."""
        nothing = np.zeros(0, dtype=np.int64)
        if self.parquet and isinstance(column.dtype, pd.DatetimeTZDtype):
            stamps = column.dt.tz_convert("UTC").dt.tz_localize(None)
        elif self.parquet and pd.api.types.is_datetime64_any_dtype(column):
            stamps = column
        elif self.parquet and pd.api.types.is_numeric_dtype(column):
            return self.seconds(column.to_numpy(dtype=np.float64, na_value=np.nan), column, name, problems)
        else:
            text = column.astype(str).str.strip()
            numbers = self.numbers(text)
            if np.sum(~np.isnan(numbers)) > len(text) // 2:
                return self.seconds(numbers, text, name, problems)
            # A time without an offset is UTC; mixed offsets are converted.
            stamps = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
        bad = stamps.isna().to_numpy()
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            cell = column.iloc[first]
            text_of = "empty" if str(cell).strip() in ("", "NaT", "nan") else f"'{cell}'"
            more = f", and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
            expected = "times such as 2016-06-06 14:30 (UTC, or with an offset), or seconds"
            problems.append(
                Message(f"{self.name} {self.row(first)}: {name} is {text_of}, no time{more}", expected)
            )
            return nothing, True, bad
        return stamps.to_numpy().astype("datetime64[us]").astype(np.int64), True, bad

    def seconds(
        self, seconds: Floats, cells: pd.Series, name: str, problems: list[Message]
    ) -> tuple[Instants, bool, NDArray[np.bool_] | None]:
        bad = ~np.isfinite(seconds) | (np.abs(seconds) > 1e11)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            text = f"{self.name} {self.row(first)}: {name} is '{cells.iloc[first]}', no number of seconds"
            problems.append(Message(text, "seconds in every row"))
            return np.zeros(0, dtype=np.int64), False, bad
        return np.round(seconds * US_PER_S).astype(np.int64), False, bad

    def check_order(self, time: Instants) -> None:
        steps = np.diff(time)
        if np.all(steps > 0):
            return
        at = int(np.flatnonzero(steps <= 0)[0]) + 1
        if steps[at - 1] == 0:
            text = f"{self.name} {self.row(at)}: the same time as the row above"
            hint = "ascending times; local time repeats an hour in autumn, use UTC or an offset"
            raise DataError(Message(text, hint))
        raise DataError(Message(f"{self.name} {self.row(at)}: earlier than the row above", "ascending times"))

    # -- values ---------------------------------------------------------------------------------------

    def numbers(self, text: pd.Series) -> Floats:
        if self.decimal_comma:
            text = text.str.replace(",", ".", regex=False)
        return np.asarray(pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64))

    def values(
        self, frame: pd.DataFrame, columns: list[str], problems: list[Message]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """SI values and which rows have none; a hole is a mistake unless gaps are allowed."""
        total = np.zeros(len(frame))
        holes = np.zeros(len(frame), dtype=bool)
        for name in columns:
            column = frame[name]
            if self.parquet and pd.api.types.is_numeric_dtype(column):
                raw = column.to_numpy(dtype=np.float64, na_value=np.nan)
                empty = np.isnan(raw)
            else:
                cells = column.astype(str).str.strip()
                raw = self.numbers(cells)
                empty = cells.str.lower().isin(["", "nan", "na", "null", "none", "nat", "<na>"]).to_numpy()
            wrong = ~np.isfinite(raw) & ~empty
            if wrong.any():
                first = int(np.flatnonzero(wrong)[0])
                more = f", and {int(wrong.sum()) - 1} more" if wrong.sum() > 1 else ""
                cell = str(column.iloc[first])[:40]
                text = f"{self.name} {self.row(first)}: {name} is '{cell}', no number{more}"
                problems.append(Message(text, "a number in every row"))
            if empty.any() and self.spec.gaps == "error":
                first = int(np.flatnonzero(empty)[0])
                more = f", and {int(empty.sum()) - 1} more" if empty.sum() > 1 else ""
                text = f"{self.name} {self.row(first)}: {name} is empty or NaN{more}"
                problems.append(Message(text, "a number in every row, or gaps: interpolate"))
            holes |= empty
            total += np.where(np.isfinite(raw), raw, 0.0)
        try:
            value = to_si(total, self.unit(columns), self.dimension()) * self.spec.scale + self.spec.offset
        except UnitError as error:
            problems.append(Message(f"{self.name}: {error.message}", error.expected, error.guess))
            value = total
        return value, holes

    def dimension(self) -> str:
        """Of the numbers in the file: a fraction where `peak` makes them a power."""
        relative = self.spec.dimension == "power" and self.spec.unit in ("", "%")
        return "fraction" if relative else self.spec.dimension

    def unit(self, columns: list[str]) -> str:
        """What the YAML says, else what the header says in brackets: 'load [kW]'."""
        if self.spec.unit is not None:
            return self.spec.unit
        units = set()
        for name in columns:
            match = re.search(r"[\[(]\s*([^\])]+?)\s*[\])]\s*$", name)
            if match and self.spec.dimension in dimensions_of(match.group(1)):
                units.add(match.group(1))
        if len(units) == 1:
            return units.pop()
        dim = DIMENSIONS[self.spec.dimension]
        if "" in dim.units:
            return ""
        kind = self.spec.dimension.replace("_", " ")
        raise UnitError(
            f"the unit of '{' + '.join(columns)}' is not said",
            f"unit: with a unit of {kind}: {dim.unit_names()}",
        )

    # -- gaps -----------------------------------------------------------------------------------------

    def gaps(
        self, time: Instants, value: Floats, step_us: int, keep: NDArray[np.bool_]
    ) -> tuple[Instants, Floats]:
        """Steps of more than 1.5 times the usual one: a mistake, a line, or the value before."""
        steps = np.diff(time)
        wide = steps > 1.5 * step_us
        if not wide.any() or self.spec.gaps == "hold":
            return time, value
        if self.spec.gaps == "error":
            gap = int(np.flatnonzero(wide)[0])
            row = int(np.flatnonzero(keep)[gap + 1])
            more = f", and {int(wide.sum()) - 1} more" if wide.sum() > 1 else ""
            text = (
                f"{self.name} {self.row(row)}: {steps[gap] / US_PER_S:g} s after the row above, "
                f"the usual step is {step_us / US_PER_S:g} s{more}"
            )
            raise DataError(Message(text, "a regular series, or gaps: interpolate, or gaps: hold"))
        grid = [time]
        for at in np.flatnonzero(wide):
            first, end = int(time[at]) + step_us, int(time[at + 1])
            grid.append(np.arange(first, end, step_us, dtype=np.int64))
        filled = np.unique(np.concatenate(grid))
        # Relative to the first time: microseconds since 1970 would cost the last digits of a float.
        return filled, np.interp(filled - time[0], time - time[0], value)
