"""TUF client with the command line of the public tuf-conformance suite.

    ota tuf-client --metadata-dir D init ROOT
    ota tuf-client --metadata-dir D --metadata-url U refresh
    ota tuf-client --metadata-dir D --metadata-url U --target-name N --target-base-url B --target-dir T
    download

Exit code 0 on success, 1 on any failure. The workflow is python-tuf's ``Updater``; the size limits are ours.
A target that is already there with the right hashes is not fetched again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import limits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ota tuf-client", description=__doc__.splitlines()[0])
    parser.add_argument("--metadata-dir", required=True, type=Path, help="trusted metadata, read and written")
    parser.add_argument("--metadata-url", help="where the repository's metadata is")
    parser.add_argument("--target-name", help="target path to download")
    parser.add_argument("--target-base-url", help="where the repository's targets are")
    parser.add_argument("--target-dir", type=Path, help="folder for verified downloads")
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="trust a root without any request")
    init.add_argument("trusted_root", type=Path)
    commands.add_parser("refresh", help="update the top-level metadata")
    commands.add_parser("download", help="fetch and verify one target")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command != "init" and not options.metadata_url:
        parser.error("--metadata-url is needed")
    try:
        if options.command == "init":
            root = options.trusted_root.read_bytes()
            options.metadata_dir.mkdir(parents=True, exist_ok=True)
            (options.metadata_dir / "root.json").write_bytes(root)
        else:
            _run(options)
    except Exception as error:  # any failure of the network, the disk or the metadata is exit code 1
        print(f"ota tuf-client: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    from tuf.ngclient import Updater, UpdaterConfig

    config = UpdaterConfig(
        max_root_rotations=limits.ROOT_ROTATIONS_MAX,
        max_delegations=limits.DELEGATIONS_MAX,
        app_user_agent="ota-tuf-client",
    )
    updater = Updater(
        str(options.metadata_dir),
        options.metadata_url,
        None if options.target_dir is None else str(options.target_dir),
        options.target_base_url,
        config=config,
        bootstrap=None,  # the root was put there by ``init``
    )
    updater.refresh()
    if options.command == "download":
        for name in ("target_name", "target_base_url", "target_dir"):
            if getattr(options, name) is None:
                raise ValueError(f"--{name.replace('_', '-')} is needed")
        target = updater.get_targetinfo(options.target_name)
        if target is None:
            raise FileNotFoundError(f"no target {options.target_name!r}")
        if updater.find_cached_target(target) is None:
            updater.download_target(target)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
