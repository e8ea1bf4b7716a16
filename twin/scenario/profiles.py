"""Time series of a scenario: ProfileSpec → Profile, from a constant, a data package, a file or a process.

    profile = load_profile(spec, scenario.start, scenario.duration_s, folder)
    profile.at(3600.0)            # value one hour after the start, SI
    profile.mean(0.0, 900.0)      # exact mean over the first quarter of an hour

Times are seconds from the start of the scenario, values SI. `synthesise` draws declared random processes and
needs a generator; everything else is deterministic. Known packages are in datasets.py, reading in packages.py
and user_files.py, laying on the time axis in placing.py. Only reading data needs pandas.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from twin.scenario.datasets import DATASETS
from twin.scenario.errors import Problem, ScenarioError
from twin.scenario.fields import key_of, yaml_fields
from twin.scenario.schema import ProfileSpec, Scenario
from twin.scenario.series import DataError, Floats, Message
from twin.scenario.source import lines_of
from twin.scenario.synthetic import PROCESSES


@dataclass(frozen=True, eq=False)
class Profile:
    """A time series; outside its times the first or last value holds.

    time_s : (n,) strictly ascending, from the start of the scenario; value : (n,) SI;
    hold : 'step' keeps a value until the next time, 'linear' interpolates.
    """

    time_s: Floats
    value: Floats
    hold: str
    _area: Floats = field(init=False, repr=False)  # integral from the first time to each time
    _inverse_step: float = field(init=False, repr=False)  # of a regular grid, else 0
    _first: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        time_s = np.ascontiguousarray(self.time_s, dtype=np.float64)
        value = np.ascontiguousarray(self.value, dtype=np.float64)
        if time_s.ndim != 1 or time_s.shape != value.shape or time_s.size == 0:
            raise ValueError(f"a profile needs two equal rows, not {time_s.shape} and {value.shape}")
        if time_s.size > 1 and not np.all(np.diff(time_s) > 0.0):
            raise ValueError("the times of a profile ascend")
        if self.hold not in ("step", "linear"):
            raise ValueError(f"a profile holds 'step' or 'linear', not {self.hold!r}")
        time_s.setflags(write=False)
        value.setflags(write=False)
        object.__setattr__(self, "time_s", time_s)
        object.__setattr__(self, "value", value)
        dt = np.diff(time_s)
        level = value[:-1] if self.hold == "step" else 0.5 * (value[:-1] + value[1:])
        object.__setattr__(self, "_area", np.concatenate(([0.0], np.cumsum(level * dt))))
        # Regular grids (nearly all) find their place by division instead of by search.
        regular = time_s.size > 1 and bool(np.all(np.abs(dt - dt[0]) <= 1e-9 * dt[0]))
        object.__setattr__(self, "_inverse_step", 1.0 / float(dt[0]) if regular else 0.0)
        object.__setattr__(self, "_first", float(time_s[0]))

    def _index(self, t_s: float) -> int:
        """Index of the last time at or before t_s, at least 0."""
        last = self.time_s.size - 1
        if self._inverse_step:
            i = int((t_s - self._first) * self._inverse_step)
            i = 0 if i < 0 else min(i, last)
            # Division may be one off where t_s lies on a grid point.
            if i < last and self.time_s[i + 1] <= t_s:
                return i + 1
            if i > 0 and self.time_s[i] > t_s:
                return i - 1
            return i
        return max(0, int(self.time_s.searchsorted(t_s, side="right")) - 1)

    def at(self, t_s: Any) -> Any:
        """Value at t_s: a float for a float, an array for an array."""
        if isinstance(t_s, np.ndarray):
            return self._at_many(t_s)
        if self.time_s.size == 1:
            return float(self.value[0])
        i = self._index(t_s)
        if self.hold == "step" or i == self.time_s.size - 1 or t_s <= self._first:
            return float(self.value[i])
        t0, t1 = float(self.time_s[i]), float(self.time_s[i + 1])
        v0, v1 = float(self.value[i]), float(self.value[i + 1])
        return v0 + (v1 - v0) * ((t_s - t0) / (t1 - t0))

    def _at_many(self, t_s: Floats) -> Floats:
        if self.hold == "linear":
            return np.asarray(np.interp(t_s, self.time_s, self.value))
        i = np.maximum(np.searchsorted(self.time_s, t_s, side="right") - 1, 0)
        return np.asarray(self.value[i])

    def integral(self, t_s: float) -> float:
        """Integral of the value from the first time to t_s (unit times second); ends are held."""
        if t_s <= self._first:
            return float(self.value[0]) * (t_s - self._first)
        i = self._index(t_s)
        t0, v0 = float(self.time_s[i]), float(self.value[i])
        level = v0 if self.hold == "step" else 0.5 * (v0 + float(self.at(t_s)))
        return float(self._area[i]) + level * (t_s - t0)

    def mean(self, t0_s: float, t1_s: float) -> float:
        """Exact mean over [t0_s, t1_s]; the value itself for an empty interval."""
        if t1_s <= t0_s:
            return float(self.at(t0_s))
        if self.time_s.size == 1:
            return float(self.value[0])
        return (self.integral(t1_s) - self.integral(t0_s)) / (t1_s - t0_s)

    def digest(self) -> str:
        """SHA-256 of times, values and hold, for the manifest: the same data give the same run."""
        sha = hashlib.sha256(self.hold.encode())
        sha.update(self.time_s.astype("<f8").tobytes())
        sha.update(self.value.astype("<f8").tobytes())
        return sha.hexdigest()


def constant(value: float, hold: str = "step") -> Profile:
    return Profile(np.zeros(1), np.array([value], dtype=np.float64), hold)


def load_profile(
    spec: ProfileSpec,
    scenario_start: datetime,
    duration_s: float,
    base_dir: Path,
    *,
    path: str = "",
    whole: bool = False,
) -> Profile:
    """The profile of a constant, package or file; it covers 0 … duration_s.

    `base_dir` is the folder of the scenario file; `path` (dotted) is named in errors. `whole` takes the data
    as they are, first row at t = 0, whatever the duration. Raises ScenarioError with the place in the YAML
    and, for data, the file and row.
    """
    if spec.constant is not None:
        return constant(spec.constant, spec.hold)
    if spec.synthetic is not None:
        raise ValueError(f"{path or spec.synthetic}: a synthetic profile needs a generator; use synthesise()")
    # pandas takes over a second to import; a scenario of constants does without.
    from twin.scenario.packages import read_package
    from twin.scenario.placing import place
    from twin.scenario.user_files import read_user_file

    try:
        series = read_package(spec) if spec.package is not None else read_user_file(spec, base_dir)
        time_s, value = place(series, spec, scenario_start, duration_s, whole=whole)
    except DataError as error:
        raise ScenarioError([_problem(spec, path, m) for m in error.messages], _file_of(spec)) from None
    return Profile(time_s, value, spec.hold)


def synthesise(
    spec: ProfileSpec, rng: np.random.Generator, duration_s: float, start: datetime = datetime(2016, 1, 1)
) -> Profile:
    """Draw a declared process (spec.synthetic); `start` tells it the hour of the day."""
    if spec.synthetic is None:
        raise ValueError("not a synthetic profile")
    process = PROCESSES[spec.synthetic](**dict(spec.params))
    time_s, value = process.series(rng, duration_s, start)
    return Profile(time_s, value, spec.hold)


def profile_fields(scenario: Scenario) -> Iterator[tuple[str, Any, str, ProfileSpec, bool]]:
    """Every profile of a scenario: (dotted path, owner object, attribute, spec, whole)."""
    yield from _profiles_in(scenario, "")


def _profiles_in(owner: Any, path: str) -> Iterator[tuple[str, Any, str, ProfileSpec, bool]]:
    for entry in yaml_fields(type(owner)):
        where = f"{path}.{key_of(entry)}" if path else key_of(entry)
        value = getattr(owner, entry.name)
        if isinstance(value, ProfileSpec):
            yield where, owner, entry.name, value, bool(entry.metadata.get("whole"))
        elif isinstance(value, tuple):
            for k, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    yield from _profiles_in(item, f"{where}[{k}]")
        elif dataclasses.is_dataclass(value):
            yield from _profiles_in(value, where)


def check_profiles(scenario: Scenario, base_dir: Path) -> None:
    """Load every profile once and collect all problems; packages stay cached for the run."""
    problems: list[Problem] = []
    name = scenario.name
    for path, _, _, spec, whole in profile_fields(scenario):
        name = _file_of(spec)
        if spec.synthetic is not None:
            continue  # its parameters were checked by the loader; there are no data
        try:
            load_profile(spec, scenario.start, scenario.duration_s, base_dir, path=path, whole=whole)
        except ScenarioError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems, name)


def profile_names() -> dict[str, str]:
    """What `package:` and `synthetic:` take, each with its meaning, for `twin list`."""
    names = {}
    for name, row in DATASETS.items():
        package = f"{row.distribution} {row.version}, {row.licence}"
        names[name] = f"{row.about}; clock: {row.clock}; {row.source} ({package})"
    for name, process in PROCESSES.items():
        names[f"synthetic: {name}"] = (process.__doc__ or "").strip().splitlines()[0]
    return names


def _file_of(spec: ProfileSpec) -> str:
    return spec.where.rsplit(":", 2)[0] or "scenario"


def _problem(spec: ProfileSpec, path: str, message: Message) -> Problem:
    """A mistake in the data, shown at the place in the YAML that named them."""
    file, _, rest = spec.where.rpartition(":")[0].rpartition(":")
    line, column = int(rest or 0), int(spec.where.rpartition(":")[2] or 0)
    source = ""
    try:
        source = lines_of(Path(file).read_text(encoding="utf-8"))[line - 1] if line else ""
    except (OSError, ValueError, IndexError):
        line = 0  # the text came from elsewhere (--set); name the place without an excerpt
    said = spec.package or spec.file or ""
    length = len(said) if source[column - 1 :].startswith(said) else 1
    return Problem(
        file=file or "scenario",
        line=line,
        column=column,
        path=path,
        message=message.text,
        expected=message.expected,
        guess=message.guess,
        source=source,
        length=length,
    )
