"""Commands of ``python -m ota``: arguments only, the work is in the modules.

Exit codes: 0 done or accepted, 1 refused (with its reason code), 2 wrong use. Passphrases come from the
environment variable OTA_PASSPHRASE or are asked for, never from the command line.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import OtaError, Reason

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Over-the-air updates: keys, repositories, images, deltas, ceremonies, verification.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Signing keys in encrypted files.")
ceremony_app = typer.Typer(no_args_is_help=True, help="Signing by several people, with a transcript.")
audit_app = typer.Typer(no_args_is_help=True, help="Tamper-evident logs.")
image_app = typer.Typer(no_args_is_help=True, help="MCUboot images and parameter sets.")
delta_app = typer.Typer(no_args_is_help=True, help="Deltas: create, apply, compare.")
repo_app = typer.Typer(no_args_is_help=True, help="TUF image repository.")
for name, sub in {
    "keys": keys_app,
    "ceremony": ceremony_app,
    "audit": audit_app,
    "image": image_app,
    "delta": delta_app,
    "repo": repo_app,
}.items():
    app.add_typer(sub, name=name)

Key = Annotated[Path, typer.Option("--key", help="encrypted private key (PEM)", exists=True, dir_okay=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="file to write")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
Now = Annotated[int | None, typer.Option("--now", help="Unix time, default: the clock")]


def _now(value: int | None) -> int:
    return int(time.time()) if value is None else value


def _passphrase() -> bytes:
    text = os.environ.get("OTA_PASSPHRASE")
    if text is None:
        import getpass

        text = getpass.getpass("passphrase: ")
    return text.encode()


def _load(path: Path) -> Any:
    from . import keystore

    return keystore.load(path, _passphrase())


def _public(paths: list[Path] | None) -> list[Any]:
    from . import keystore

    return [keystore.load_public(path) for path in paths or []]


# ---- verify, reasons --------------------------------------------------------------------------------------


@app.command()
def verify(
    file: File,
    key: Annotated[list[Path] | None, typer.Option("--key", help="public key (PEM), repeatable")] = None,
    base: Annotated[Path | None, typer.Option(help="old image, for a delta")] = None,
    schema: Annotated[Path | None, typer.Option(help="parameter schema (YAML), for a set")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False,
) -> None:
    """Say what FILE is, and accept or refuse it with a stable reason code.

    Example: python -m ota verify firmware.bin --key release.pub.pem
    """
    from . import verify as module

    finding = module.verify_bytes(
        file.read_bytes(),
        _public(key),
        base=base.read_bytes() if base else None,
        schema=_schema(schema) if schema else None,
    )
    if as_json:
        print(module.as_json(finding))
    else:
        verdict = "accepted" if finding.accepted else "refused"
        trust = "signature verified" if finding.trusted else "signature not checked (no --key)"
        print(f"{file.name}: {finding.kind}, {verdict}{', ' + trust if finding.accepted else ''}")
        if not finding.accepted:
            detail = f" ({finding.detail})" if finding.detail else ""
            print(f"  {int(finding.reason)} {finding.reason.name}: {finding.reason.meaning}{detail}")
        for label, value in finding.facts.items():
            print(f"  {label}: {value}")
    raise typer.Exit(0 if finding.accepted else 1)


@app.command()
def reasons() -> None:
    """List all reason codes with their meaning."""
    for reason in Reason:
        print(f"{int(reason):4d} {reason.name:28s} {reason.meaning}")


# ---- keys -------------------------------------------------------------------------------------------------


@keys_app.command("new")
def keys_new(
    file: Annotated[Path, typer.Argument(help="private key file to create")],
    algorithm: Annotated[str, typer.Option(help="ed25519 or p256")] = "ed25519",
) -> None:
    """Make a key pair. Example: python -m ota keys new root-alice.pem"""
    from . import keystore
    from .signing import Algorithm, SoftwareKey

    try:
        kind = Algorithm(algorithm)
    except ValueError:
        raise typer.BadParameter("ed25519 or p256", param_hint="--algorithm") from None
    key = SoftwareKey.generate(kind)
    public = keystore.save(file, key, _passphrase())
    print(f"{file} and {public}\nkey hash {key.public.key_hash.hex()}")


@keys_app.command("show")
def keys_show(file: File) -> None:
    """Algorithm and identifiers of a public key. Example: python -m ota keys show root-alice.pub.pem"""
    from . import keystore
    from .repository import tuf_key

    public = keystore.load_public(file)
    print(f"algorithm {public.algorithm.value}")
    print(f"key hash {public.key_hash.hex()}")
    print(f"TUF key id {tuf_key(public).keyid}")


# ---- ceremonies and audit ---------------------------------------------------------------------------------


@ceremony_app.command("start")
def ceremony_start(
    folder: Annotated[Path, typer.Argument(help="folder of the ceremony, to be created")],
    payload: Annotated[Path, typer.Option(help="unsigned metadata or image", exists=True)],
    kind: Annotated[str, typer.Option(help="metadata or image")],
    signer: Annotated[list[str], typer.Option(help="NAME=public-key.pem, repeatable")],
    threshold: Annotated[int, typer.Option(help="signatures needed")],
    hours: Annotated[float, typer.Option(help="valid for this long")] = 8.0,
    now: Now = None,
) -> None:
    """Open a ceremony and print the digest everybody has to compare.

    Example: python -m ota ceremony start c1 --payload root.json --kind metadata --threshold 2
    --signer alice=alice.pub.pem --signer bob=bob.pub.pem
    """
    from . import keystore
    from .ceremony import Ceremony

    signers = {}
    for row in signer:
        who, _, path = row.partition("=")
        if not path or not Path(path).is_file():
            raise typer.BadParameter(f"{row!r} is not NAME=existing-file", param_hint="--signer")
        signers[who] = keystore.load_public(Path(path))
    made = Ceremony.start(
        folder, payload.read_bytes(), kind, signers, threshold, _now(now), valid_for_s=int(hours * 3600)
    )
    print(f"digest to confirm: {made.digest}\naudit head: {made.audit.head()}")


@ceremony_app.command("sign")
def ceremony_sign(
    folder: Annotated[Path, typer.Argument(exists=True)],
    person: Annotated[str, typer.Option(help="who signs")],
    key: Key,
    confirm: Annotated[str, typer.Option(help="the digest this person has compared")],
    now: Now = None,
) -> None:
    """Sign as one person.

    Example: python -m ota ceremony sign c1 --person alice --key alice.pem --confirm DIGEST
    """
    from .ceremony import Ceremony

    opened = Ceremony.open(folder)
    have = opened.sign(person, _load(key), confirm, _now(now))
    print(f"{have} of {opened.state['threshold']} signatures\naudit head: {opened.audit.head()}")


@ceremony_app.command("finish")
def ceremony_finish(folder: Annotated[Path, typer.Argument(exists=True)], out: Out, now: Now = None) -> None:
    """Attach the signatures. Example: python -m ota ceremony finish c1 --out root.json"""
    from .ceremony import Ceremony

    opened = Ceremony.open(folder)
    out.write_bytes(opened.finish(_now(now)))
    print(f"{out}\naudit head: {opened.audit.head()}")


@audit_app.command("verify")
def audit_verify(
    file: File, head: Annotated[str | None, typer.Option(help="head noted elsewhere")] = None
) -> None:
    """Check the chain of a log. Example: python -m ota audit verify c1/audit.log --head HASH"""
    from . import audit

    records = audit.verify(file, head)
    anchored = "and ends at the given head" if head else "(no --head given: a cut-off end cannot be seen)"
    print(f"{len(records)} records, chain whole {anchored}")


# ---- images -----------------------------------------------------------------------------------------------


def _schema(path: Path) -> Any:
    import yaml

    from .parameters import Schema

    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        raise OtaError(Reason.FORMAT, f"{path.name} is not YAML") from None
    if not isinstance(data, dict):
        raise OtaError(Reason.FORMAT, f"{path.name} is not a mapping")
    return Schema.from_mapping(data)


@image_app.command("build")
def image_build(
    body: File,
    version: Annotated[str, typer.Option(help="1.2.3 or 1.2.3+4")],
    counter: Annotated[int, typer.Option(help="security counter")],
    vendor: Annotated[str, typer.Option(help="vendor domain name")],
    hardware: Annotated[str, typer.Option(help="hardware class")],
    out: Out,
    key: Annotated[Path | None, typer.Option(help="private key; without it the image stays unsigned")] = None,
    schema: Annotated[str | None, typer.Option(help="parameter schemas read, LEAST-GREATEST")] = None,
    revision: Annotated[list[int] | None, typer.Option(help="hardware revision, repeatable")] = None,
    header_size: Annotated[int, typer.Option(help="bytes")] = 0x200,
    load_address: Annotated[int | None, typer.Option(help="for position-dependent images")] = None,
) -> None:
    """Wrap a binary as MCUboot image.

    Example: python -m ota image build app.bin --version 1.1.0 --counter 2 --vendor example.org
    --hardware bms-a --key release.pem --out app-1.1.0.img
    """
    from . import image

    span = None
    if schema is not None:
        least, _, greatest = schema.partition("-")
        if not (least.isdigit() and (greatest or least).isdigit()):
            raise typer.BadParameter("LEAST-GREATEST, like 1-2", param_hint="--schema")
        span = (int(least), int(greatest or least))
    data = image.build(
        body.read_bytes(),
        version=image.Version.parse(version),
        key=_load(key) if key else None,
        security_counter=counter,
        vendor_id=image.vendor_uuid(vendor),
        class_id=image.class_uuid(vendor, hardware),
        parameter_schema=span,
        hardware_revisions=revision or (),
        header_size=header_size,
        load_address=load_address or 0,
        flags=0 if load_address is None else image.FLAG_ROM_FIXED,
    )
    out.write_bytes(data)
    print(f"{out}: {len(data)} B, image sha256 {image.parse(data).sha256.hex()}")


@image_app.command("parameters")
def image_parameters(
    values: File,
    schema: Annotated[Path, typer.Option(help="parameter schema (YAML)", exists=True)],
    version: Annotated[str, typer.Option(help="1.2.3")],
    counter: Annotated[int, typer.Option(help="parameter counter")],
    vendor: Annotated[str, typer.Option(help="vendor domain name")],
    hardware: Annotated[str, typer.Option(help="hardware class")],
    key: Key,
    out: Out,
) -> None:
    """Pack and sign a parameter set (YAML mapping name: value, SI units).

    Example: python -m ota image parameters limits.yaml --schema schema.yaml --version 1.0.0 --counter 3
    --vendor example.org --hardware bms-a --key release.pem --out limits.img
    """
    import yaml

    from . import image, parameters

    loaded = yaml.safe_load(values.read_text())
    if not isinstance(loaded, dict):
        raise OtaError(Reason.FORMAT, f"{values.name} is not a mapping of names to values")
    data = parameters.build(
        _schema(schema),
        loaded,
        counter=counter,
        version=image.Version.parse(version),
        key=_load(key),
        vendor_id=image.vendor_uuid(vendor),
        class_id=image.class_uuid(vendor, hardware),
    )
    out.write_bytes(data)
    print(f"{out}: {len(data)} B, {len(loaded)} parameters")


# ---- deltas -----------------------------------------------------------------------------------------------


@delta_app.command("create")
def delta_create(
    old: File, new: File, out: Out, force: Annotated[bool, typer.Option(help="even if larger")] = False
) -> None:
    """Make a delta; says so and exits 1 when the full image is smaller.

    Example: python -m ota delta create app-1.0.0.img app-1.1.0.img --out app.btd
    """
    from .delta import create, read

    target = new.read_bytes()
    made = create(old.read_bytes(), target)
    share = len(made) / len(target)
    if share >= 1 and not force:
        print(f"the full image is smaller ({len(target)} B against {len(made)} B): send that")
        raise typer.Exit(1)
    out.write_bytes(made)
    print(f"{out}: {len(made)} B, {share:.1%} of the full image, {len(read(made).kinds)} blocks")


@delta_app.command("apply")
def delta_apply(
    old: File,
    delta: File,
    out: Out,
    foreign: Annotated[bool, typer.Option(help="a whole-image BSDIFF40 or detools patch")] = False,
) -> None:
    """Rebuild the new image. Example: python -m ota delta apply app-1.0.0.img app.btd --out app-1.1.0.img"""
    from .delta import apply
    from .delta.patch import apply_foreign

    data = (apply_foreign if foreign else apply)(old.read_bytes(), delta.read_bytes())
    out.write_bytes(data)
    print(f"{out}: {len(data)} B")


@delta_app.command("compare")
def delta_compare(
    files: Annotated[list[Path], typer.Argument(help="OLD NEW [OLD NEW …]", exists=True)],
    out: Annotated[Path | None, typer.Option(help="folder for table and plot")] = None,
) -> None:
    """Compare codecs on pairs of images. Example: python -m ota delta compare old.img new.img --out study"""
    from .delta import compare

    if len(files) % 2:
        raise typer.BadParameter("give pairs: OLD NEW [OLD NEW …]")
    rows = []
    for old, new in zip(files[::2], files[1::2], strict=True):
        rows += compare.compare(f"{old.stem}>{new.stem}", old.read_bytes(), new.read_bytes())
    print(f"{'pair':40s} {'codec':20s} {'bytes':>9s} {'%':>6s} {'enc s':>7s} {'dec s':>7s}  decoder RAM")
    for r in rows:
        print(
            f"{r.pair[:40]:40s} {r.codec:20s} {r.patch_bytes:9d} {100 * r.share:6.1f} "
            f"{r.encode_s:7.3f} {r.decode_s:7.3f}  {r.ram}"
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "codecs.csv").write_text(compare.as_csv(rows))
        compare.plot(rows, out / "codecs.png")


# ---- repository -------------------------------------------------------------------------------------------


@repo_app.command("init")
def repo_init(
    folder: Annotated[Path, typer.Argument(help="repository folder, to be created")],
    root: Annotated[list[Path], typer.Option(help="public root key, repeatable", exists=True)],
    targets: Annotated[list[Path], typer.Option(help="public targets key, repeatable", exists=True)],
    online: Annotated[Path, typer.Option(help="public key of snapshot and timestamp", exists=True)],
    threshold: Annotated[int, typer.Option(help="of root and of targets")] = 1,
    family: Annotated[list[str] | None, typer.Option(help="HARDWARE=public-key.pem, repeatable")] = None,
    now: Now = None,
) -> None:
    """Make a repository; its first root and targets are left in ``unsigned/`` for a ceremony.

    Example: python -m ota repo init images --root a.pub.pem --root b.pub.pem --targets t.pub.pem
    --online o.pub.pem --threshold 2 --family bms-a=f.pub.pem
    """
    from .repository import Repository, RoleKeys

    online_keys = RoleKeys(tuple(_public([online])))
    roles = {
        "root": RoleKeys(tuple(_public(root)), threshold),
        "targets": RoleKeys(tuple(_public(targets)), min(threshold, len(targets))),
        "snapshot": online_keys,
        "timestamp": online_keys,
    }
    families = {}
    for row in family or []:
        hardware, _, path = row.partition("=")
        if not path or not Path(path).is_file():
            raise typer.BadParameter(f"{row!r} is not HARDWARE=existing-file", param_hint="--family")
        families[hardware] = RoleKeys(tuple(_public([Path(path)])))
    _, unsigned = Repository.create(folder, roles, _now(now), families)
    (folder / "unsigned").mkdir()
    for role, metadata in unsigned.items():
        file = folder / "unsigned" / f"{metadata.signed.version}.{role}.json"
        file.write_bytes(metadata.to_bytes())
        print(file)


@repo_app.command("commit")
def repo_commit(
    folder: Annotated[Path, typer.Argument(exists=True)],
    role: Annotated[str, typer.Argument(help="root, targets, family-NAME")],
    file: Annotated[Path, typer.Argument(help="signed metadata from a ceremony", exists=True)],
    key: Annotated[list[Path] | None, typer.Option(help="private key to sign with as well")] = None,
) -> None:
    """Take signed metadata into the repository. Example: python -m ota repo commit images root root.json"""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata

    from .repository import Repository

    try:
        metadata = Metadata.from_bytes(file.read_bytes())
    except RepositoryError as error:
        raise OtaError(Reason.FORMAT, str(error)[:120]) from None
    Repository(folder).commit(role, metadata, [_load(k) for k in key or []])
    print(f"{role} version {metadata.signed.version}")


@repo_app.command("add")
def repo_add(
    folder: Annotated[Path, typer.Argument(exists=True)],
    name: Annotated[str, typer.Argument(help="target name, HARDWARE/FILE")],
    file: File,
    release: Annotated[int, typer.Option(help="release counter")],
    key: Key,
    delta_from: Annotated[Path | None, typer.Option(help="old image: add a delta too")] = None,
    now: Now = None,
) -> None:
    """Add an artifact to its family role, signed with the family key.

    Example: python -m ota repo add images bms-a/1.1.0 app-1.1.0.img --release 2 --key family.pem
    """
    import hashlib

    from . import delta, image
    from .repository import Repository, custom_fields

    hardware = name.split("/")[0]
    repository = Repository(folder)
    data = file.read_bytes()
    parsed = image.parse(data)
    image.verify_integrity(parsed)
    metadata = repository.edit(f"family-{hardware}", _now(now))
    deltas = []
    common = {
        "hardware_ids": [hardware],
        "release_counter": release,
        "version": str(parsed.version),
        "security_counter": parsed.security_counter or 0,
    }
    if delta_from is not None:
        base = delta_from.read_bytes()
        kind, made = delta.container.choose(base, data)
        if kind == "delta":
            digest = hashlib.sha256(base).hexdigest()
            target = f"{name}-from-{digest[:12]}.btd"
            row = custom_fields(kind="delta", data=made, **common)  # type: ignore[arg-type]
            repository.add_target(metadata, target, made, row)
            deltas.append({"base": digest, "name": target})
            print(f"{target}: {len(made) / len(data):.1%} of the full image")
    row = custom_fields(
        kind="firmware" if parsed.bootable else "parameters",
        data=data,
        param_schema=parsed.parameter_schema,
        deltas=deltas,
        **common,  # type: ignore[arg-type]
    )
    repository.add_target(metadata, name, data, row)
    repository.commit(f"family-{hardware}", metadata, [_load(key)])
    print(f"{name}: family-{hardware} version {metadata.signed.version}; now run: repo publish")


@repo_app.command("publish")
def repo_publish(folder: Annotated[Path, typer.Argument(exists=True)], key: Key, now: Now = None) -> None:
    """New snapshot and timestamp. Example: python -m ota repo publish images --key online.pem"""
    from .repository import Repository

    online = _load(key)
    repository = Repository(folder)
    repository.publish([online], [online], _now(now))
    print(f"snapshot {repository.latest('snapshot')}")


# ---- TUF client, campaigns of faults, bench, demo ---------------------------------------------------------


@app.command(
    "tuf-client",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def tuf_client(context: typer.Context) -> None:
    """TUF client with the command line of tuf-conformance: --metadata-dir D … init|refresh|download."""
    from .tuf_client import main as client_main

    raise typer.Exit(client_main(context.args))


@app.command()
def faults(
    out: Annotated[Path | None, typer.Option(help="CSV to write")] = None,
    full: Annotated[bool, typer.Option(help="all pairs and 10^4 fives (about half an hour)")] = False,
    controller: Annotated[
        str, typer.Option(help="MODULE:CLASS of a controller with the methods of mcu_model.Controller")
    ] = "ota.mcu_model:Mcu",
) -> None:
    """Power-cut and bit-flip campaign on a controller: every flash operation, between and inside.

    Example: python -m ota faults --full --out results/ota/power_cuts.csv
    Example: python -m ota faults --full --controller bms_emulator.host_mcu:HostMcu
    """
    import importlib
    import tempfile

    from . import faults as module

    name, _, attribute = controller.partition(":")
    try:
        factory = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        print(f"--controller {controller}: {error}; expected MODULE:CLASS", file=sys.stderr)
        raise typer.Exit(2) from None
    lines = ["flow,kind,runs,violations,example"]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for flow in module.FLOWS:
            case = module.make_case(Path(folder) / flow, flow, controller=factory)
            plans = {"every single cut": module.singles(case)}
            if full:
                plans["all pairs"] = module.pairs(case)
                plans["seeded fives"] = module.quintuples(case, 2000)
            else:
                plans["fives, sample"] = module.quintuples(case, 50)
            steps: list[Callable[[], Any]] = [
                functools.partial(module.campaign, case, plan, kind) for kind, plan in plans.items()
            ]
            if flow == "full":
                same = module.make_case(Path(folder) / "flips", flow, controller=factory, new_counter=1)
                steps.append(functools.partial(module.flips, same, 10_000 if full else 200))
            for step in steps:
                row = step()
                bad += row.violations
                lines.append(f"{row.flow},{row.kind},{row.runs},{row.violations},{row.example}")
                print(lines[-1], flush=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(lines) + "\n")
    raise typer.Exit(1 if bad else 0)


@app.command()
def bench(
    agents: Annotated[int, typer.Option(help="device agents over mosquitto; 0: leave out")] = 200,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure rates beside those of other tools. Example: python -m ota bench --agents 50"""
    from . import bench as module

    result = module.run(agents)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for group, rows in result.items():
        print(group)
        for label, value in rows.items():
            print(f"  {label:46s} {value:12.4g}")
    if "gateway" not in result:
        print("gateway left out (no mosquitto, or --agents 0)")


@app.command()
def demo() -> None:
    """One update from signing to confirmation, in memory, with its time line. Example: python -m ota demo"""
    import tempfile

    from .testbed import EPOCH_S, Testbed, firmware_body

    with tempfile.TemporaryDirectory() as folder:
        bed = Testbed(Path(folder))
        bed.release("1.0.0", bed.firmware("1.0.0", firmware_body()))
        bed.release("1.1.0", bed.firmware("1.1.0", firmware_body(edits=8)), ["1.0.0"])
        unit = bed.add_unit("rack-1", bed.releases["1.0.0"].file)
        unit.mcu.conditions = 1
        ident = bed.order("rack-1", "1.1.0")
        bed.run(60)
        unit.mcu.conditions = 0
        outcome = bed.finish(ident)
        row = bed.server.deployments[ident]
        for at, state, reason, detail in row.history:
            print(f"{at - EPOCH_S:7.1f} s  {state.value:11s} {reason.name if reason else ''} {detail}")
        full = len(bed.releases["1.1.0"].file)
        print(f"{outcome}; {row.bytes_received} B received for an image of {full} B")


def run(arguments: list[str] | None = None) -> int:
    """Exit code; refusals and missing files are one line, never a traceback."""
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        result = command(arguments, prog_name="ota", standalone_mode=False)  # type: ignore[call-arg]
    except OtaError as error:
        print(f"ota: {int(error.reason)} {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"ota: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        return 2
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        print(f"ota: {usage()}", file=sys.stderr)
        return 2
    return int(result) if isinstance(result, int) else 0


def main() -> None:
    sys.exit(run())
