"""mosquitto, started by the run: generated configuration, own folder, loopback only, ended by its process id.

Two kinds of access: certificates (TLS 1.3, ``use_identity_as_username``) for everything real, or user names
with passwords on a plain loopback port for tests of the protocol itself. The access rule is the file made by
``topics.mosquitto_acl``. Queue limits are raised from mosquitto's defaults, but nothing relies on them: with
the defaults, 3000 acknowledged messages to a sleeping session end as 1000 delivered ones.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from .. import limits, topics
from ..errors import OtaError, Reason, require


def find() -> str | None:
    """Path of the broker program, None if it is not installed (Debian package ``mosquitto``)."""
    return shutil.which("mosquitto") or next(
        (p for p in ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto") if os.path.exists(p)), None
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def password_line(user: str, password: str) -> str:
    """One line of a mosquitto password file (PBKDF2-HMAC-SHA512, format 7)."""
    salt = hashlib.sha256(f"salt/{user}".encode()).digest()[:12]
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


class Mosquitto:
    """A broker process in ``folder``.

    ``passwords`` (plain) or ``tls`` = (CA, certificate, key, revocation list or None).
    """

    def __init__(
        self,
        folder: Path,
        *,
        passwords: Mapping[str, str] | None = None,
        tls: tuple[Path, Path, Path, Path | None] | None = None,
        persistence: bool = True,
        port: int | None = None,
        queue: int = 10_000,
    ) -> None:
        program = find()
        if program is None:
            raise OtaError(Reason.NOT_FOUND, "mosquitto is not installed; choose the embedded broker")
        require((passwords is None) != (tls is None), Reason.FORMAT, "either passwords or certificates")
        self.program = program
        self.folder = folder
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "acl").write_text(topics.mosquitto_acl())
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"acl_file {folder / 'acl'}",
            f"message_size_limit {limits.MESSAGE_MAX}",
            f"max_queued_messages {queue}",
            "max_inflight_messages 200",
            "set_tcp_nodelay true",
            f"persistence {'true' if persistence else 'false'}",
            f"log_dest file {folder / 'log'}",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # otherwise it changes to a user that cannot read the folder
        if persistence:
            lines += [f"persistence_location {folder}/", "autosave_interval 1", "autosave_on_changes true"]
        if passwords is not None:
            (folder / "passwords").write_text("".join(password_line(u, p) for u, p in passwords.items()))
            (folder / "passwords").chmod(0o600)
            lines.append(f"password_file {folder / 'passwords'}")
        if tls is not None:
            ca, certificate, key, crl = tls
            lines += [f"cafile {ca}", f"certfile {certificate}", f"keyfile {key}", "tls_version tlsv1.3"]
            lines += ["require_certificate true", "use_identity_as_username true"]
            if crl is not None:
                lines.append(f"crlfile {crl}")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        """Start and wait until the port answers."""
        self.process = subprocess.Popen(
            [self.program, "-c", str(self.folder / "mosquitto.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            if self.process.poll() is not None:
                log = self.folder / "log"
                tail = log.read_text()[-300:] if log.exists() else ""
                raise OtaError(Reason.DISCONNECTED, f"mosquitto did not start: {tail}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise OtaError(Reason.TIMEOUT, "mosquitto does not listen")

    def kill(self) -> None:
        """SIGKILL, as a crash: nothing is saved."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self) -> Mosquitto:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
