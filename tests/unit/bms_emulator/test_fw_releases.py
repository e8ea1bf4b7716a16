"""Releases: every file builds, says its version, and the flawed ones have their flaw."""

from __future__ import annotations

import numpy as np
import pytest

from bms_emulator.firmware import build, releases
from bms_emulator.firmware.releases import ReleaseError, load_release, release_names
from bms_emulator.native import NativeBms
from bms_emulator.telemetry_decode import release_code, release_name
from tests.unit.bms_emulator.fw_rig import DESIGN, Rig

GOOD = ("1.0.0", "1.1.0", "1.2.0")
FLAWED = ("soc_drift", "blind_l1", "rt_overrun", "hang_after_10min", "crash_at_boot", "confirm_then_crash",
          "no_further_update")  # fmt: skip


def rig_of(release, **params):
    rig = Rig(**params)
    rig.bms = NativeBms([DESIGN | params], release=release)
    return rig


def test_the_releases_of_the_story_are_there_with_different_versions():
    assert set(release_names()) == set(GOOD) | set(FLAWED)
    assert len({load_release(name).version for name in release_names()}) == len(release_names())
    assert [name for name in release_names() if not load_release(name).flawed] == list(GOOD)


@pytest.mark.parametrize("name", GOOD + FLAWED)
def test_version_is_in_the_outputs(name):
    bms = NativeBms([DESIGN], release=name)
    assert release_name(int(bms.outputs["release"][0])) == load_release(name).version
    assert release_code(load_release(name).version) == bms.outputs["release"][0]


def test_newest_good_release_is_the_default_build():
    default, named = NativeBms([DESIGN]), NativeBms([DESIGN], release="1.2.0")
    assert default.outputs["release"][0] == named.outputs["release"][0]
    assert default.params.tobytes() == named.params.tobytes()


def test_what_each_good_release_adds():
    seen = {}
    for name in GOOD:
        rig = rig_of(name)
        rig.tick(500)
        seen[name] = rig
    assert seen["1.0.0"].out["soc_sigma_ppm"] == 0
    assert seen["1.0.0"].out["sop_discharge_10s_W"] == 0
    for name in ("1.1.0", "1.2.0"):
        assert seen[name].out["soc_sigma_ppm"] > 0
        assert seen[name].out["sop_discharge_10s_W"] > 0
    assert [int(seen[name].bms.params["early_rate_mK_per_s"][0]) for name in GOOD] == [0, 0, 150]


def hours(rig, n, current_mA=0):
    frame = rig.frame
    frame["pack_current_mA"] = current_mA
    frame["sample_period_ticks"] = 100
    for _ in range(n * 3600):
        frame["sample_counter"] += np.uint16(1)
        rig.bms.step(frame, 1, 1_000)
    return int(rig.out["soc_ppm"])


def test_soc_drift_drifts():
    params = {"soc_rest_ms": 360_000_000}
    fine, drifting = rig_of("1.0.0", **params), rig_of("soc_drift", **params)
    for rig in (fine, drifting):
        rig.tick()
        rig.bms.set_soc(0, 500_000)
    assert hours(fine, 1, 100) - hours(drifting, 1, 100) == pytest.approx(20_000, abs=20)


def ramp(rig, rate_K_s):
    rig.close()
    rig.tick(200)
    for k in range(1_200):
        rig.frame["cell_temperature_ddegC"][0, 0] = 250 + round(rate_K_s * k / 10)
        rig.tick()
    return rig.faults


def test_blind_l1_misses_what_1_2_0_sees():
    cool = {
        "limit_trip.OVERTEMPERATURE_DISCHARGE.MSL": 1_500,
        "limit_trip.OVERTEMPERATURE_DISCHARGE.RSL": 1_500,
        "limit_trip.CELL_TEMPERATURE_SPREAD.MSL": 3_000,
        "temperature_outlier_ddegC": 3_000,
    }
    assert "RUNAWAY_EARLY" in ramp(rig_of("1.2.0", **cool), 4.0)
    assert "RUNAWAY" in ramp(rig_of("1.1.0", **cool), 4.0)
    assert ramp(rig_of("blind_l1", **cool), 4.0) == ()


def test_rt_overrun_shows_in_its_diagnosis():
    rig = rig_of("rt_overrun")
    rig.tick(200)
    assert "RT_OVERRUN" in rig.active
    assert rig.out["overruns"] >= 3


@pytest.mark.parametrize(("name", "period_s"), [("hang_after_10min", 601), ("confirm_then_crash", 30)])
def test_resets_open_the_contactors_again_and_again(name, period_s):
    rig = rig_of(name)
    rig.close()
    longest = 0
    rig.frame["sample_period_ticks"] = 100
    for _ in range(period_s + 5):
        rig.frame["sample_counter"] += np.uint16(1)
        rig.bms.step(rig.frame, 100)
        longest = max(longest, int(rig.out["uptime_ms"]))
    assert longest <= period_s * 1_000
    assert rig.out["uptime_ms"] < 10_000
    assert rig.state != "RUN"


def test_crash_at_boot_never_ticks():
    rig = rig_of("crash_at_boot")
    rig.tick(50)
    assert (rig.state, int(rig.out["uptime_ms"])) == ("OFF", 0)


def test_no_further_update_runs_like_its_base():
    healthy, deaf = rig_of("1.2.0"), rig_of("no_further_update")
    for rig in (healthy, deaf):
        rig.close()
        rig.tick(300)
    for name in healthy.out.dtype.names:
        if name != "release":
            assert np.array_equal(healthy.out[name], deaf.out[name]), name


BAD = {
    "no version": "about = 'x'\ndefines = []\n",
    "odd version": "about = 'x'\nversion = '1.2'\ndefines = []\n",
    "odd define": "about = 'x'\nversion = '1.2.3'\ndefines = ['-O3']\n",
    "unknown key": "about = 'x'\nversion = '1.2.3'\ndefines = []\nextra = 1\n",
    "no toml": "about = \n",
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_release_files_are_told(case, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.toml").write_text(BAD[case])
    monkeypatch.setattr(releases, "FOLDER", tmp_path)
    load_release.cache_clear()
    with pytest.raises(ReleaseError, match=r"bad\.toml"):
        load_release("bad")
    assert build.main(["--release", "bad"]) == 2
    assert "bad.toml" in capsys.readouterr().err
    with pytest.raises(ReleaseError, match="expected one of bad"):
        load_release("../1.0.0")
    load_release.cache_clear()


def test_command_line_builds_a_release_for_both(tmp_path, capsys):
    assert build.main(["--release", "1.1.0", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1.1.0  Improved estimator")
    assert "worst stack" in said
    assert (tmp_path / "bms-1.1.0.bin").stat().st_size > 10_000
    assert (tmp_path / "bms-1.1.0.so").exists()
