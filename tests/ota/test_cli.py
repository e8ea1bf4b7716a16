"""The command line: a whole release by hand, exit codes, and the TUF client over HTTP."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ota import cli, tuf_client
from ota.errors import Reason
from ota.testbed import Testbed, firmware_body

from .conftest import make_bed

NOW = "1800000000"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTA_PASSPHRASE", "correct horse battery")
    monkeypatch.chdir(tmp_path)


def ota(*arguments: str) -> int:
    return cli.run(list(arguments))


def words(text: str) -> list[str]:
    return text.split()


def digest_in(text: str) -> str:
    return next(line.split(": ")[1] for line in text.splitlines() if "digest to confirm" in line)


def test_a_release_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys, repository, two-person ceremony, images, delta, publication, verification."""
    for name in ("alice", "bob", "targets", "online", "family", "release"):
        assert ota("keys", "new", f"{name}.pem") == 0
    arguments = [
        "repo",
        "init",
        "images",
        "--root",
        "alice.pub.pem",
        "--root",
        "bob.pub.pem",
        "--threshold",
        "2",
    ]
    arguments += [
        "--targets",
        "targets.pub.pem",
        "--online",
        "online.pub.pem",
        "--family",
        "bms-a=family.pub.pem",
    ]
    assert ota(*arguments, "--now", NOW) == 0
    start = ["ceremony", "start", "c1", "--payload", "images/unsigned/1.root.json", "--kind", "metadata"]
    start += ["--threshold", "2", "--signer", "alice=alice.pub.pem", "--signer", "bob=bob.pub.pem"]
    capsys.readouterr()
    assert ota(*start, "--now", NOW) == 0
    digest = digest_in(capsys.readouterr().out)
    sign = ["ceremony", "sign", "c1", "--now", NOW]
    assert ota(*sign, "--person", "alice", "--key", "alice.pem", "--confirm", digest) == 0
    assert ota(*sign, "--person", "alice", "--key", "alice.pem", "--confirm", digest) == 1
    assert Reason.SIGNER_REPEATED.name in capsys.readouterr().err
    assert ota("ceremony", "finish", "c1", "--out", "root.json", "--now", NOW) == 1
    assert ota(*sign, "--person", "bob", "--key", "bob.pem", "--confirm", digest) == 0
    assert ota("ceremony", "finish", "c1", "--out", "root.json", "--now", NOW) == 0
    assert ota("audit", "verify", "c1/audit.log") == 0
    assert ota("audit", "verify", "c1/audit.log", "--head", "0" * 64) == 1
    assert ota("repo", "commit", "images", "root", "root.json") == 0
    assert (
        ota("repo", "commit", "images", "targets", "images/unsigned/1.targets.json", "--key", "targets.pem")
        == 0
    )
    family = ["images/unsigned/1.family-bms-a.json", "--key", "family.pem"]
    assert ota("repo", "commit", "images", "family-bms-a", *family) == 0
    for version, edits in (("1.0.0", 0), ("1.1.0", 5)):
        Path("body.bin").write_bytes(firmware_body(9000, edits=edits))
        build = [
            "image",
            "build",
            "body.bin",
            "--version",
            version,
            "--counter",
            "1",
            "--vendor",
            "example.org",
        ]
        build += ["--hardware", "bms-a", "--key", "release.pem", "--out", f"{version}.img", "--schema", "1-2"]
        assert ota(*build) == 0
    add = ["repo", "add", "images", "bms-a/1.1.0", "1.1.0.img", "--release", "2", "--key", "family.pem"]
    assert ota(*add, "--delta-from", "1.0.0.img", "--now", NOW) == 0
    assert ota("repo", "publish", "images", "--key", "online.pem", "--now", NOW) == 0
    assert ota("delta", "create", "1.0.0.img", "1.1.0.img", "--out", "d.btd") == 0
    assert ota("delta", "apply", "1.0.0.img", "d.btd", "--out", "again.img") == 0
    assert Path("again.img").read_bytes() == Path("1.1.0.img").read_bytes()
    assert ota("delta", "apply", "1.1.0.img", "d.btd", "--out", "x.img") == 1
    assert "DELTA_BASE" in capsys.readouterr().err
    assert ota("verify", "1.1.0.img", "--key", "release.pub.pem") == 0
    assert ota("verify", "1.1.0.img", "--key", "online.pub.pem") == 1
    assert "202 KEY_UNKNOWN" in capsys.readouterr().out
    assert ota("verify", "d.btd", "--base", "1.0.0.img") == 0
    assert ota("verify", "root.json", "--key", "alice.pub.pem", "--json") == 0
    assert '"kind": "metadata root"' in capsys.readouterr().out


def test_wrong_use_is_two_and_never_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["verify"],
        ["verify", "missing.bin"],
        ["nonsense"],
        ["keys", "new", "k.pem", "--algorithm", "rsa"],
        ["delta", "compare", "cli.py"],
        ["keys", "new", "missing-folder/k.pem"],
    ):
        assert ota(*arguments) == 2, arguments
    assert "Traceback" not in capsys.readouterr().err


def test_wrong_passphrase_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ota("keys", "new", "k.pem") == 0
    assert ota("keys", "show", "k.pub.pem") == 0
    Path("b").write_bytes(b"x")
    monkeypatch.setenv("OTA_PASSPHRASE", "another passphrase")
    build = [
        "image",
        "build",
        "b",
        "--version",
        "1.0.0",
        "--counter",
        "1",
        "--vendor",
        "v",
        "--hardware",
        "h",
    ]
    assert ota(*build, "--key", "k.pem", "--out", "o") == 1
    assert "900 PASSPHRASE" in capsys.readouterr().err
    assert ota(*build[:3], "--version", "one", *build[5:], "--out", "o") == 1


def test_parameter_set_and_schema_files(capsys: pytest.CaptureFixture[str]) -> None:
    ota("keys", "new", "k.pem")
    Path("schema.yaml").write_text(
        "version: 1\nparameters:\n- {id: 1, name: limit, type: f32, unit: V, minimum: 3, maximum: 4.3}\n"
    )
    pack = [
        "image",
        "parameters",
        "values.yaml",
        "--schema",
        "schema.yaml",
        "--version",
        "1.0.0",
        "--counter",
        "1",
    ]
    pack += ["--vendor", "example.org", "--hardware", "bms-a", "--key", "k.pem", "--out", "p.img"]
    for text, code in (("limit: 4.2\n", 0), ("limit: 5\n", 1), ("limit: .nan\n", 1), ("- 1\n", 1)):
        Path("values.yaml").write_text(text)
        assert ota(*pack) == code, text
    assert ota("verify", "p.img", "--key", "k.pub.pem", "--schema", "schema.yaml") == 0
    assert "limit" in capsys.readouterr().out


def test_every_command_has_help_and_most_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    group = typer.main.get_command(cli.app)
    leaves = [([n], c) for n, c in group.commands.items()]  # type: ignore[attr-defined]
    flat = []
    for path, command in leaves:
        inner = getattr(command, "commands", None)
        flat += [([*path, n], c) for n, c in inner.items()] if inner else [(path, command)]
    assert len(flat) > 15
    for path, command in flat:
        assert command.help, path
        if path[-1] not in ("reasons", "tuf-client"):
            assert "Example: python -m ota " + " ".join(path) in " ".join(command.help.split()), path


def test_demo_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert ota("demo") == 0
    assert "success" in capsys.readouterr().out
    assert ota("reasons") == 0
    listed = capsys.readouterr().out
    assert len(set(Reason)) == len(listed.splitlines())


# ---- TUF client over HTTP ---------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Testbed]]:
    """A repository on a loopback web server; its clock is the real one."""
    import time

    from ota import testbed

    monkeypatch.setattr(testbed, "EPOCH_S", time.time())
    bed = make_bed(tmp_path / "w")
    folder = bed.repository.folder

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", bed
        server.shutdown()


def test_tuf_client_init_refresh_download(site: tuple[str, Testbed], tmp_path: Path) -> None:
    url, bed = site
    meta, downloads = tmp_path / "meta", tmp_path / "downloads"
    meta.mkdir()
    downloads.mkdir()
    common = ["--metadata-dir", str(meta), "--metadata-url", f"{url}/metadata"]
    root = bed.repository.metadata_dir / "1.root.json"
    assert tuf_client.main(["--metadata-dir", str(meta), "init", str(root)]) == 0
    assert tuf_client.main([*common, "refresh"]) == 0
    assert {p.name for p in meta.glob("*.json")} == {
        "root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
    }
    name = bed.releases["1.1.0"].name
    fetch = ["--target-name", name, "--target-base-url", f"{url}/targets", "--target-dir", str(downloads)]
    assert tuf_client.main([*common, *fetch, "download"]) == 0
    assert next(downloads.iterdir()).read_bytes() == bed.releases["1.1.0"].file
    for path in bed.repository.targets_dir.rglob("*.1.1.0"):
        path.unlink()
    assert tuf_client.main([*common, *fetch, "download"]) == 0  # cached, not fetched again
    missing = ["--target-name", "bms-a/none", *fetch[2:]]
    assert tuf_client.main([*common, *missing, "download"]) == 1
    assert ota("tuf-client", *common, "refresh") == 0
    (bed.repository.metadata_dir / "timestamp.json").write_bytes(b"{}")
    assert ota("tuf-client", *common, "refresh") == 1
    assert tuf_client.main(["--metadata-dir", str(meta), "init", str(tmp_path / "none.json")]) == 1
