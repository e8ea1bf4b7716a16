"""The build: same bytes from anywhere, once per content, safe for two at a time, loud when it fails.

And the pure part compiles for the controller.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bms_emulator.firmware import build
from bms_emulator.firmware.interface import constants, load, names

REPOSITORY = Path(__file__).resolve().parents[3]


def copy_of_sources(folder: Path) -> Path:
    shutil.copytree(build.SOURCE_DIR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_two_folders_give_the_same_bytes(tmp_path):
    libraries = []
    for name in ("here", "somewhere/else entirely"):
        folder = copy_of_sources(tmp_path / name)
        (tmp_path / name / "out").mkdir()
        libraries.append(build.build_native(folder=folder, out_dir=folder / "out"))
    assert libraries[0].name == libraries[1].name
    assert libraries[0].read_bytes() == libraries[1].read_bytes()
    assert str(tmp_path).encode() not in libraries[0].read_bytes()


def test_changed_source_is_a_new_build_and_an_error_is_told(tmp_path):
    folder = copy_of_sources(tmp_path / "fw")
    before = build.content_key(build.NATIVE, folder)
    source = folder / "app" / "cooling.c"
    source.write_text(source.read_text() + "\nint broken( {\n")
    assert build.content_key(build.NATIVE, folder) != before
    with pytest.raises(build.FirmwareBuildError, match=r"app/cooling\.c:\d+") as caught:
        build.build_native(folder=folder, out_dir=tmp_path)
    assert "error:" in str(caught.value)
    assert not list(tmp_path.glob("*.so")), "nothing half-built is left"
    assert not list(tmp_path.glob("build-*"))


def test_unwritable_cache_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TWIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.FirmwareBuildError, match="TWIN_CACHE"):
        build.cache_dir()


def test_two_processes_build_at_once(tmp_path):
    """Both start without a cached build and end with the same complete library."""
    code = (
        "import sys; from pathlib import Path; from bms_emulator.firmware.build import build_native; "
        "from bms_emulator.firmware.interface import Firmware; "
        "path = build_native(out_dir=Path(sys.argv[1])); Firmware(path); print(path.name)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert [path.name for path in tmp_path.iterdir()] == [said[0].strip()]


def test_app_compiles_for_the_controller_without_warnings(tmp_path):
    sizes = build.build_target_objects(tmp_path)
    assert set(sizes) == {path.name for path in (build.SOURCE_DIR / "app").glob("*.c")}
    assert all(size > 0 for size in sizes.values())
    assert sum(sizes.values()) < 96 * 1024


FLOAT_SOURCES = {
    *("ekf.c", "soh.c", "sop.c", "est.h", "est_math.h", "est_params.h", "estimate.c"),
    *("abuse.c", "slow.h", "params.c"),
}


def test_app_is_pure():
    """No libc header, no register, no allocation, no double; floats only in the models without a deadline."""
    headers = [p for p in (build.SOURCE_DIR / "include").glob("*.h") if p.name != "regs.h"]
    for path in [*(build.SOURCE_DIR / "app").glob("*.[ch]"), *headers]:
        code = re.sub(r'/\*.*?\*/|"[^"\n]*"', "", path.read_text(), flags=re.DOTALL)
        assert set(re.findall(r"#include <(\w+\.h)>", code)) <= {"stdint.h", "stddef.h"}, path.name
        assert not re.search(r"\b(malloc|free|volatile|asm|double|goto)\b", code), path.name
        if path.parent.name == "app" and path.name not in FLOAT_SOURCES:
            assert not re.search(r"\bfloat\b", code), path.name


def test_layout_and_names_come_from_the_sources():
    firmware = load()
    assert firmware.input_dtype["cell_voltage_100uV"].shape == (constants()["MAX_GROUPS"],)
    assert firmware.input_dtype["cell_voltage_100uV"].base == np.dtype("<u2")
    assert firmware.output_dtype["fault_latched"] == np.dtype("<u8")
    assert firmware.param_dtype["limit_trip"].shape == (constants()["LIMIT_CAPACITY"], 3)
    assert constants()["CURRENT_INVALID"] == -(2**31) + 1
    assert names("STATE")[0] == "OFF"
    assert set(names("LIMIT")) < set(names("DIAG"))
    with pytest.raises(KeyError, match="expected one of"):
        names("NOTHING")


def test_command_line(capsys):
    assert build.main(["--native", "--target"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"bms-release-\w+\.so  \d+ bytes", said)
    assert re.search(r"app/ for RV32IMC +\d+ bytes", said)
    with pytest.raises(SystemExit):
        build.main([])
