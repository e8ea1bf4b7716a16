"""Every file in scenarios/ runs and meets its `expect:`; runs are deterministic, leave nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ota.transport import mosquitto
from pack_models.propagation.errors import MissingDolfinxError
from pack_models.propagation.fem import find_interpreter
from twin.assemble import assemble
from twin.run import check_scenario, load_scenario, report_again, run_scenario
from twin.telemetry.reader import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
SCENARIOS = sorted((REPOSITORY / "scenarios").glob("*.yaml"))
FIRST = REPOSITORY / "scenarios" / "first_light.yaml"
TWIN = str(Path(sys.executable).parent / "twin")


def twin(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TWIN, *words], cwd=REPOSITORY, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """Twenty minutes of first_light, in-process."""
    out = tmp_path_factory.mktemp("short") / "run"
    return run_scenario(FIRST, out, overrides=["duration=20 min", "faults.0.at=5 min"])


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_scenario_meets_its_expectations(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    if "mosquitto" in text and mosquitto.find() is None:
        pytest.skip("mosquitto is not installed")
    if "model: fem" in text:
        try:
            find_interpreter()
        except MissingDolfinxError as missing:
            pytest.skip(str(missing))
    result = run_scenario(path, tmp_path / "run")
    missed = [claim for claim in result.manifest.expectations if not claim.met]
    assert result.manifest.expectations, "a scenario without a claim tells nothing"
    assert not missed
    assert result.report is not None
    assert result.report.stat().st_size > 10_000
    run = RunFolder(tmp_path / "run")
    run.verify()
    summary = {name: figure["value"] for name, figure in run.manifest.summary.items()}
    # Finite elements solve to a tolerance of their own (1e-6 of a step's change).
    finite_elements = "fem" in result.manifest.fidelity["propagation"]
    assert summary["energy_balance_error"] < (1e-7 if finite_elements else 1e-9)
    assert summary["charge_balance_error"] < 1e-9


def test_same_scenario_and_seed_give_the_same_bytes(short_run, tmp_path):
    again = run_scenario(FIRST, tmp_path / "run", overrides=["duration=20 min", "faults.0.at=5 min"])
    hashes = {name: table.sha256 for name, table in short_run.manifest.tables.items()}
    assert hashes == {name: table.sha256 for name, table in again.manifest.tables.items()}
    assert len(hashes) >= 5
    other = run_scenario(
        FIRST, tmp_path / "other", overrides=["duration=20 min", "faults.0.at=5 min"], seed=99
    )
    assert other.manifest.tables["measured"].sha256 != hashes["measured"]


def test_an_update_over_a_real_broker_gives_the_same_bytes_every_time(tmp_path):
    """Sockets and processes have their own time; the tables must not know it."""
    if mosquitto.find() is None:
        pytest.skip("mosquitto is not installed")
    overrides = ["duration=7 min", "sites.0.racks.0.count=1", "sites.0.racks.1.count=2", "expect=[]",
                 "updates.link.broker_outages=[{at: 3 min, until: 3.5 min}]"]  # fmt: skip
    path = REPOSITORY / "scenarios" / "ota_single.yaml"
    runs = [
        run_scenario(path, tmp_path / name, overrides=[*overrides, *more], with_report=False)
        for name, more in (("one", []), ("two", []), ("memory", ["updates.link.broker=memory"]))
    ]
    hashes = [{name: table.sha256 for name, table in run.manifest.tables.items()} for run in runs]
    assert hashes[0] == hashes[1]
    assert hashes[0] == hashes[2], "the broker carries the messages, the air decides when they arrive"
    assert runs[0].manifest.summary["updates_succeeded"]["value"] == 3
    measured = RunFolder(tmp_path / "one").measured(["t_us", "rack", "firmware"])
    names = runs[0].manifest.code_names["firmware"]
    first = measured[measured["t_us"] == measured["t_us"].min()]
    last = measured[measured["t_us"] == measured["t_us"].max()]
    assert {names[str(code)].split(",")[0] for code in first["firmware"]} == {"1.0.0"}
    assert {names[str(code)].split(",")[0] for code in last["firmware"]} == {"1.1.0"}
    assert all("image sha256" in name and "build sha256" in name for name in names.values())


def test_adding_a_rack_changes_no_other_rack():
    def draws(count: int):
        scenario = load_scenario(FIRST, [f"sites.0.racks.0.count={count}"])
        world = assemble(scenario, FIRST.parent)
        shard = world.shards[0]
        return {
            str(path): (
                shard.cells.soc[shard.cells.layout.pack_cell_start[p] :][:50].copy(),
                shard.sensors.offset[shard.sensors.channels("voltage", p)].copy(),
                shard.sensors.key[shard.sensors.channels("voltage", p)].copy(),
            )
            for p, path in enumerate(shard.paths)
        }

    two, three = draws(2), draws(3)
    assert len(three) == len(two) * 3 // 2
    for path, arrays in two.items():
        assert all(np.array_equal(a, b) for a, b in zip(arrays, three[path], strict=True))


def test_a_report_can_be_made_again_from_disk(short_run):
    before = short_run.manifest.summary
    again = report_again(short_run.folder)
    assert again.manifest.summary == before
    assert again.report == short_run.report


def test_measured_differs_from_truth_by_the_sensors_only(short_run):
    run = RunFolder(short_run.folder)
    measured = run.measured(["t_us", "rack", "group_voltage_V", "current_A"])
    truth = run.truth(["t_us", "rack", "voltage_min_V", "voltage_max_V", "current_A"])
    for table in (measured, truth):
        table["rack"] = table["rack"].astype(str)
    both = measured.merge(truth, on=["t_us", "rack"], suffixes=("", "_true"))
    assert len(both) > 30
    lowest = both["group_voltage_V"].map(np.min)
    assert 0 < (lowest - both["voltage_min_V"]).abs().max() < 5e-3  # offsets and noise of 0.5 mV each
    assert 0 < (both["current_A"] - both["current_A_true"]).abs().max() < 0.3


def test_check_shows_every_default():
    shown = check_scenario(FIRST)
    assert shown["sites"][0]["converter"]["no_load_loss"]
    assert shown["telemetry"]["period"]


def test_command_line_exit_codes(tmp_path):
    good = twin("run", "scenarios/first_light.yaml", "--set", "duration=2 min", "--set", "faults=[]",
                "--set", "expect=[]", "--no-report", "--out", str(tmp_path / "good"))  # fmt: skip
    assert good.returncode == 0, good.stderr
    claim = "expect=[{metric: soc_max, at_most: 1 %}]"
    failed = twin("run", "scenarios/first_light.yaml", "--set", "duration=2 min", "--set", "faults=[]",
                  "--set", claim, "--no-report", "--out", str(tmp_path / "failed"))  # fmt: skip
    assert failed.returncode == 1
    assert (tmp_path / "failed" / "manifest.json").exists()
    wrong = twin("run", "scenarios/first_light.yaml", "--set", "sites.0.racks.0.pack.design=nothing",
                 "--out", str(tmp_path / "wrong"))  # fmt: skip
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    assert not (tmp_path / "wrong").exists()
    again = twin("run", "scenarios/first_light.yaml", "--out", str(tmp_path / "good"))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert twin("report", str(tmp_path / "nowhere")).returncode == 2
    assert twin("--version").stdout.startswith("twin ")


def test_an_unwritable_place_gives_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = twin("run", "scenarios/first_light.yaml", "--set", "duration=1 min", "--set", "faults=[]",
                "--out", str(tmp_path / "file" / "run"))  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_a_killed_run_leaves_nothing_that_reads_as_complete(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [TWIN, "run", str(FIRST), "--out", str(out)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    partial = out.with_name(out.name + ".partial")
    deadline = time.monotonic() + 120
    while not any(partial.glob("**/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert partial.exists()
    with pytest.raises(Exception, match=r"partial|incomplete|not finished|killed"):
        RunFolder(partial)
    retry = twin("run", str(FIRST), "--set", "duration=1 min", "--set", "faults=[]", "--set", "expect=[]",
                 "--no-report", "--out", str(out))  # fmt: skip
    assert retry.returncode == 0, retry.stderr
    assert out.exists()
    assert not partial.exists()
