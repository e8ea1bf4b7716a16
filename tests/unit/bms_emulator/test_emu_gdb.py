"""The GDB stub with a real gdb-multiarch, and with broken packets."""

import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bms_emulator.bench import IMAGES
from bms_emulator.elf import read_image
from bms_emulator.gdb import serve
from bms_emulator.machine import Machine, Outcome, Stop

CRC = IMAGES / "k_crc32.elf"
GDB = shutil.which("gdb-multiarch")


class Server:
    """The stub in a thread."""

    def __init__(self, max_cycles: int = 10_000_000) -> None:
        self.machine = Machine()
        self.machine.load(read_image(CRC))
        self.outcome: Outcome | None = None
        ready = threading.Event()
        self.port = 0

        def listening(port: int) -> None:
            self.port = port
            ready.set()

        def work() -> None:
            self.outcome = serve(self.machine, 0, max_cycles, listening)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert ready.wait(60)

    def join(self) -> Outcome:
        self.thread.join(60)
        assert self.outcome is not None
        return self.outcome


SCRIPT = """
set pagination off
set confirm off
target remote :{port}
printf "start %08x\\n", $pc
break *0x00100310
continue
printf "hit %08x\\n", $pc
stepi
stepi
printf "step %08x\\n", $pc
set {{int}}0x001ff300 = 0x12345678
printf "memory %08x %02x\\n", *(int*)0x001ff300, *(unsigned char*)0x001ff301
set $t0 = 77
printf "register %d\\n", $t0
set $mscratch = 0xabcd
printf "csr %x %x\\n", $mscratch, $misa
x/2i 0x00100310
monitor cycles
delete
hbreak *rt_print
continue
printf "print %08x\\n", $pc
delete
continue
"""


@pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed")
def test_a_session_with_gdb(tmp_path: Path):
    server = Server()
    script = tmp_path / "script"
    script.write_text(SCRIPT.format(port=server.port))
    assert GDB is not None
    done = subprocess.run(
        [GDB, "-q", "-batch", "-nx", "-x", script, CRC], capture_output=True, text=True, timeout=120
    )
    text = done.stdout + done.stderr
    assert "start 00100080" in text, text
    assert "hit 00100310" in text
    assert "step 00100318" in text
    assert "memory 12345678 56" in text
    assert "register 77" in text
    assert "csr abcd 40101104" in text
    assert "lbu" in text
    assert "retired 10346" in text
    assert "print 0010021c" in text
    assert "exited normally" in text
    assert server.join().reason is Stop.HALT
    straight = Machine()
    straight.load(read_image(CRC))
    straight.run(max_cycles=10_000_000)
    assert server.machine.console == straight.console  # breakpoints and steps cost no cycles


def packet(text: str) -> bytes:
    return f"${text}#{sum(text.encode()) & 0xFF:02x}".encode()


def test_broken_packets_and_interrupt():
    server = Server(max_cycles=400_000_000)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:

        def ask(text: str) -> str:
            client.sendall(packet(text))
            return answer()

        def answer() -> str:
            data = b""
            while not (len(data) > 3 and data[-3:-2] == b"#"):
                piece = client.recv(4096)
                assert piece
                data += piece
            return data.decode().lstrip("+-").split("#")[0].lstrip("$")

        assert ask("?") == "T05"
        assert ask("m0,4") == "E01"  # not memory
        assert ask("m100000,zz") == "E01"
        assert ask("M100080,4:00") == "E01"
        assert ask("p7a0") == "E01"
        assert ask("Z9,0,0") == ""
        assert ask("vMustReplyEmpty") == ""
        assert len(ask("g")) == 33 * 8
        client.sendall(b"$g#00")  # wrong check sum: asked to repeat
        assert client.recv(1) == b"-"
        assert ask("P20=c8001000") == "OK"  # pc
        assert ask("M1000c8,4:6f000000") == "OK"  # jump to itself
        client.sendall(packet("c"))
        client.sendall(b"\x03")
        assert answer() == "T02"
        assert ask("D") == "OK"
    assert server.join().reason is Stop.CYCLES


def test_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "bms_emulator", "run", str(CRC), "--gdb", str(port)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2
    assert f"cannot listen on port {port}" in done.stderr
