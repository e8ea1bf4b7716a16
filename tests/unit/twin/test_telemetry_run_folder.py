"""Writer and reader together: what goes in comes out, the same bytes, never half a run that looks whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.twin import fake_run
from twin.telemetry.frame import PackInfo, block_frames
from twin.telemetry.manifest import Expectation, Manifest
from twin.telemetry.reader import MANIFEST, RunFolder, RunReadError
from twin.telemetry.schema import DAY_US, TABLES
from twin.telemetry.sink import RunWriteError, RunWriter, replace_alerts, write_parquet

ROOT = Path(__file__).resolve().parents[3]


def infos(lengths: list[int], sites: list[str] | None = None) -> list[PackInfo]:
    sites = sites or ["depot"] * len(lengths)
    return [
        fake_run.pack_info(site=site, rack=f"rack-{k // 2 + 1}", pack=f"pack-{k % 2 + 1}", n_series=n)
        for k, (n, site) in enumerate(zip(lengths, sites, strict=True))
    ]


def row(packs: list[PackInfo], rng: np.random.Generator) -> dict[str, np.ndarray]:
    n, groups = len(packs), sum(p.n_series for p in packs)
    sensors = sum(p.n_sensors for p in packs)
    block = {
        entry.name: rng.normal(size=n)
        for entry in TABLES["measured"]
        if entry.dtype == "float32" and not entry.per
    }
    block |= {
        "group_voltage_V": rng.normal(3.7, 0.1, size=groups),
        "temperature_K": rng.normal(300, 1, size=sensors),
        "balancing": rng.random(groups) > 0.5,
        "bms_state": rng.integers(0, 5, size=n),
        "level": rng.integers(0, 4, size=n),
        "fault_mask": rng.integers(0, 2**63, size=n).astype(np.uint64) * np.uint64(2),
        "contactors": rng.integers(0, 4, size=n),
    }
    return block


def meter_row(n: int) -> dict[str, object]:
    return {"power_requested_W": np.arange(n) + 1.0, "power_served_W": 1.0, "ambient_K": 300.0}


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    instants=st.integers(1, 12),
    small=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], instants: int, small: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    packs = infos(lengths, [("alpha", "beta")[k % 2] for k in range(len(lengths))])
    out = tmp_path_factory.mktemp("runs") / "x"
    blocks, times = [], [k * DAY_US // 4 for k in range(instants)]
    with RunWriter(out, packs=packs, buffer_bytes=1 if small else 2**20) as writer:
        for t_us in times:
            blocks.append(row(packs, rng))
            writer.measured.append_block(t_us, None, blocks[-1])
            writer.meter.append_block(t_us, None, meter_row(len(writer.sites)))
        run = writer.complete(Manifest(scenario="x"))
    run.verify()
    assert run.packs == tuple(packs)
    starts = np.cumsum([0, *lengths])
    for k, info in enumerate(packs):
        found = run.series("measured", [e.name for e in TABLES["measured"]], info.site, info.rack, info.pack)
        assert found["t_us"].tolist() == times
        for name in ("current_A", "fault_mask", "bms_state"):
            wanted = np.array([block[name][k] for block in blocks]).astype(found[name].dtype)
            np.testing.assert_array_equal(found[name], wanted)
        for name in ("group_voltage_V", "balancing"):
            wanted = np.array([block[name][starts[k] : starts[k + 1]] for block in blocks])
            np.testing.assert_array_equal(found[name], wanted.astype(found[name].dtype))
    # The same rows as frames: from the disk, and in the loop from the very blocks that were written.
    offline = {(f.t_s, f.site, f.rack, f.pack): f for f in run.frames()}
    assert len(offline) == instants * len(packs)
    for t_us, block in zip(times, blocks, strict=True):
        for live in block_frames(t_us, packs, block):
            stored = offline[(live.t_s, live.site, live.rack, live.pack)]
            for name in live.__dataclass_fields__:
                np.testing.assert_array_equal(getattr(stored, name), getattr(live, name))


def test_rows_of_some_packs_and_missing_optional_columns(tmp_path: Path) -> None:
    packs = infos([3, 5, 4])
    rng = np.random.default_rng(0)
    with RunWriter(tmp_path / "x", packs=packs) as writer:
        block = row(packs[1:], rng)
        del block["cooling"], block["balancing"]
        writer.measured.append_block(10, slice(1, 3), block)
        block = row([packs[0], packs[2]], rng)
        writer.measured.append_block(20, np.array([True, False, True]), block)
        run = writer.complete(Manifest(scenario="x"))
    frame = run.measured(["t_us", "rack", "pack", "cooling", "balancing", "site"])
    assert [f"{r}/{p}" for r, p in zip(frame["rack"], frame["pack"], strict=True)] == [
        "rack-1/pack-2", "rack-2/pack-1", "rack-1/pack-1", "rack-2/pack-1",
    ]  # fmt: skip
    assert set(frame["site"]) == {"depot"}
    assert frame["cooling"].isna().tolist() == [True, True, False, False]
    assert not np.concatenate(frame["balancing"][:2].tolist()).any()
    assert len(run.measured(["t_us"], rack="rack-2", pack="pack-1")) == 2


def test_days_are_folders_and_midnight_closes_the_day_before(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "x", packs=infos([2])) as writer:
        for t_us in (0, DAY_US - 1, DAY_US, DAY_US + 1, 2 * DAY_US):
            writer.meter.append_block(t_us, None, meter_row(1))
        run = writer.complete(Manifest(scenario="x"))
    files = {f["path"]: f["rows"] for f in run.manifest.tables["meter"].files}
    assert files == {
        "meter/site=depot/day=0000/part-0000.parquet": 3,
        "meter/site=depot/day=0001/part-0000.parquet": 2,
    }


def test_mistakes_of_the_caller_are_named(tmp_path: Path) -> None:
    packs = infos([2, 3])
    rng = np.random.default_rng(0)
    with RunWriter(tmp_path / "x", packs=packs) as writer:
        block = row(packs, rng)
        with pytest.raises(KeyError, match="did you mean 'current_A'"):
            writer.measured.append_block(0, None, {**block, "curent_A": 1.0})
        with pytest.raises(ValueError, match=r"group_voltage_V: got \(4,\) for 2 rows, expected \(5,\)"):
            writer.measured.append_block(0, None, {**block, "group_voltage_V": np.zeros(4)})
        del block["current_A"]
        with pytest.raises(KeyError, match="current_A is missing"):
            writer.measured.append_block(0, None, block)
        writer.meter.append_block(5, None, meter_row(1))
        with pytest.raises(ValueError, match="row at 4 us after one at 5 us"):
            writer.meter.append_block(4, None, meter_row(1))
        with pytest.raises(ValueError, match="event source 'gremlin'"):
            writer.event(t_us=0, source="gremlin", kind="x", severity="info", text="")
    with pytest.raises(ValueError, match="cannot be part of a folder name"):
        RunWriter(tmp_path / "y", packs=infos([2], ["../../etc"]))
    assert not list(tmp_path.iterdir())


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    runs = [fake_run.record(tmp_path / name, hours=1.0) for name in ("a", "b")]
    paths = [sorted(p.relative_to(run.path) for p in run.path.rglob("*.parquet")) for run in runs]
    assert paths[0] == paths[1]
    assert len(paths[0]) >= 5
    for path in paths[0]:
        assert (runs[0].path / path).read_bytes() == (runs[1].path / path).read_bytes()
    assert runs[0].manifest.deterministic_sha256() == runs[1].manifest.deterministic_sha256()
    other = fake_run.record(tmp_path / "c", hours=1.0, seed=2)
    assert other.manifest.deterministic_sha256() != runs[0].manifest.deterministic_sha256()


def test_manifest_round_trip() -> None:
    manifest = Manifest(
        scenario="x",
        summary={"lead": {"value": float("nan"), "dimension": "time"}},
        expectations=[
            Expectation(
                metric="m", relation="at_least", wanted=1.0, value=float("nan"), dimension="time", met=False
            )
        ],
        steps={"plant": np.int64(3)},  # type: ignore[dict-item]
    )
    again = Manifest.from_json(manifest.to_json())
    assert again.summary["lead"]["value"] is None
    assert np.isnan(again.expectations[0].value)
    assert again.to_json() == manifest.to_json()
    with pytest.raises(ValueError, match="not a battery-twin-run manifest"):
        Manifest.from_json('{"format": "something else"}')


# ---- a run that does not end well -----------------------------------------------------------------------

_ENDLESS = """
    import sys, time
    from pathlib import Path
    from tests.unit.twin import fake_run
    from twin.telemetry.sink import RunWriter
    with RunWriter(Path(sys.argv[1]), packs=[fake_run.pack_info()]) as writer:
        for k in range(100_000):
            row = {"power_requested_W": 1.0, "power_served_W": 1.0, "ambient_K": 300.0}
            writer.meter.append_block(k, None, row)
            if k == 500:
                writer.flush()
                print("written", flush=True)
            time.sleep(0.001 if k > 500 else 0)
"""


def start(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_run_never_reads_as_complete_and_the_next_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(_ENDLESS, str(out))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        with pytest.raises(RunWriteError, match="another run is writing"):
            RunWriter(out, packs=infos([2]))
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    partial = tmp_path / "run.partial"
    assert list(partial.rglob("*.parquet"))
    with pytest.raises(RunReadError, match=r"run\.partial is incomplete"):
        RunFolder(partial)
    with pytest.raises(RunReadError, match=r"no such folder"):
        RunFolder(out)
    run = fake_run.record(out, hours=0.1)
    assert run.has("measured")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert not (out / ".lock").exists()


def test_an_exception_in_the_run_leaves_nothing(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "x", packs=infos([2]))

    def run() -> None:
        with writer:
            writer.meter.append_block(0, None, meter_row(1))
            writer.flush()
            assert list(tmp_path.rglob("*.parquet"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunWriteError, match="is closed"):
        writer.finish_tables()


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunWriteError, match="is a file, not a folder"):
        RunWriter(tmp_path / "file" / "run", packs=infos([2]))
    with pytest.raises(RunWriteError, match="exists already"):
        RunWriter(tmp_path / "file", packs=infos([2]))
    with pytest.raises(RunWriteError, match=r"is not a run folder .* so it is not overwritten"):
        RunWriter(tmp_path / "file", packs=infos([2]), overwrite=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.jpg").write_text("dear")
    with pytest.raises(RunWriteError, match="not overwritten"):
        RunWriter(mine, packs=infos([2]), overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine"]
    assert (mine / "photo.jpg").read_text() == "dear"


def test_overwriting_keeps_the_old_run_until_the_new_one_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fake_run.record(out, hours=0.1, seed=1)
    with pytest.raises(RunWriteError, match="exists already"):
        fake_run.record(out, hours=0.1)
    with pytest.raises(ZeroDivisionError), RunWriter(out, packs=infos([2]), overwrite=True):
        raise ZeroDivisionError
    assert RunFolder(out).manifest.seed == 1
    fake_run.record(out, hours=0.1, seed=2, overwrite=True)
    assert RunFolder(out).manifest.seed == 2
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


_FULL = """
    import resource, sys
    from pathlib import Path
    from tests.unit.twin import fake_run
    from twin.telemetry.sink import RunWriteError
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        fake_run.record(Path(sys.argv[1]), hours=3.0)
    except RunWriteError as error:
        print(error)
    else:
        print("no error")
"""


def test_a_file_that_may_not_grow_gives_one_clear_sentence(tmp_path: Path) -> None:
    said, trouble = start(_FULL, str(tmp_path / "run"), "limit").communicate(timeout=120)
    assert "cannot write the table" in said, trouble
    assert "File too large" in said
    assert "unfinished folder was removed" in said
    assert not list(tmp_path.iterdir())


def test_a_full_disk_gives_one_clear_sentence(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--mount", "sh", "-c"]
    tmpfs = f"mount -t tmpfs -o size=48k none {disk}"
    try:
        possible = subprocess.run([*mount, tmpfs], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        possible = False
    if not possible:
        pytest.skip("a small file system needs the right to mount one (unshare --mount as root)")
    script = tmp_path / "full.py"
    script.write_text(textwrap.dedent(_FULL))
    command = f"{tmpfs} && {sys.executable} {script} {disk}/run disk && ls -A {disk}"
    done = subprocess.run(
        [*mount, command], capture_output=True, text=True, timeout=120, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "No space left on device" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1, "nothing is left on the full disk"


# ---- reading what others left -----------------------------------------------------------------------------


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunReadError, match=r"it has no manifest\.json"):
        RunFolder(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(RunReadError, match="is not the manifest of a run"):
        RunFolder(tmp_path)
    (tmp_path / MANIFEST).write_text(Manifest(scenario="x", status="draft").to_json())
    with pytest.raises(RunReadError, match="incomplete: its manifest says 'draft'"):
        RunFolder(tmp_path)
    (tmp_path / MANIFEST).write_text(Manifest(scenario="x", schema_version="9.0.0").to_json())
    with pytest.raises(RunReadError, match=r"table schema 9\.0\.0"):
        RunFolder(tmp_path)


def test_altered_and_missing_files_are_found(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=0.1)
    run.verify()
    part = run.path / run.manifest.tables["measured"].files[0]["path"]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(RunReadError, match="was changed after the run"):
        run.verify()
    part.unlink()
    with pytest.raises(RunReadError, match="No such file"):
        run.verify()
    with pytest.raises(RunReadError, match="cannot read"):
        run.measured()


def test_files_lying_about_are_not_data(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=0.1)
    part = run.path / run.manifest.tables["meter"].files[0]["path"]
    rows = len(run.meter())
    (part.parent / "part-9999.parquet").write_bytes(part.read_bytes())
    assert len(RunFolder(run.path).meter()) == rows


def test_a_column_that_an_older_version_did_not_write(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=0.1)
    part = run.path / run.manifest.tables["measured"].files[0]["path"]
    old = pq.read_table(part).drop_columns(["cooling", "balancing", "level"])
    write_parquet(part, old)
    frame = run.measured(["cooling", "balancing", "level", "power_W"])
    assert frame["cooling"].isna().all()
    assert (frame["level"] == 0).all()
    assert all(len(entry) == 0 for entry in frame["balancing"])
    first = next(run.frames())
    assert np.isfinite(first.power_W)
    assert first.balancing.size == 0


def test_alerts_can_be_replaced_later(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=0.1)
    alert = {
        "t_us": 5, "site": "depot", "rack": "rack-1", "pack": "pack-1", "group": 3, "detector": "d",
        "severity": "alarm", "score": 4.0, "threshold": 3.0, "unit": "mV", "text": "t",
    }  # fmt: skip
    for rows in ([alert], [alert, {**alert, "group": None}], []):
        run = replace_alerts(run, rows, {"summary": {"n": {"value": len(rows), "dimension": "count"}}})
        run.verify()
        assert len(run.alerts()) == len(rows)
        assert run.manifest.summary["n"]["value"] == len(rows)
        assert len(list((run.path / "alerts").iterdir())) == 1
    assert json.loads((run.path / MANIFEST).read_text())["tables"]["alerts"]["rows"] == 0


def test_frames_are_read_fast_enough_to_be_useful(tmp_path: Path) -> None:
    run = fake_run.record(tmp_path / "x", hours=6.0, n_series=112)
    start_s = time.process_time()
    count = sum(1 for _ in run.frames())
    spent = time.process_time() - start_s
    assert count == 2 * (6 * 360 + 1)
    assert spent / count < 200e-6  # measured 8 us; the margin is for a slow, shared machine
