"""GDB remote serial protocol: registers, CSRs, memory, breakpoints, step, continue, interrupt.

    python -m bms_emulator run a.elf --gdb 3333
    gdb-multiarch a.elf -ex 'target remote :3333'

One client, all-stop, one thread. `continue` runs in slices so that Ctrl-C is seen. Exact time goes on as the
program runs and stands still while it is stopped; `monitor cycles` tells it. Protocol: GDB manual, appendix
E.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

from .csr import NAMES
from .machine import Machine, Outcome, Stop

_SLICE = 5_000_000  # cycles between two looks at the socket
_INTERRUPT = 0x03
_CSR_BASE = 65  # gdb's number of CSR 0
_SHOWN = (
    "mstatus",
    "mie",
    "mtvec",
    "mscratch",
    "mepc",
    "mcause",
    "mtval",
    "mip",
    "mcycle",
    "minstret",
    "misa",
)
_SIGINT, _SIGILL, _SIGTRAP = 2, 4, 5
_PACKET = 0x4000


def target_xml() -> str:
    """Description of the registers for gdb."""
    names = (
        "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
    )
    rows = [f'<reg name="{name}" bitsize="32" regnum="{i}"/>' for i, name in enumerate(names.split())]
    rows.append('<reg name="pc" bitsize="32" type="code_ptr" regnum="32"/>')
    csrs = [
        f'<reg name="{name}" bitsize="32" regnum="{_CSR_BASE + number}" group="system"/>'
        for number, name in sorted(NAMES.items())
        if name in _SHOWN
    ]
    return (
        '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
        "<architecture>riscv:rv32</architecture>"
        f'<feature name="org.gnu.gdb.riscv.cpu">{"".join(rows)}</feature>'
        f'<feature name="org.gnu.gdb.riscv.csr">{"".join(csrs)}</feature></target>'
    )


def serve(
    machine: Machine, port: int, max_cycles: int, listening: Callable[[int], None] | None = None
) -> Outcome:
    """Wait for one gdb on localhost, serve it until it leaves, then let the program run on to its end.

    `listening` is called with the port when the socket is open (port 0 picks a free one). After `kill` the
    program does not run on. The cycle limit counts from the present cycle.
    """
    end = machine.cycle + max_cycles
    with socket.create_server(("127.0.0.1", port)) as server:
        chosen = server.getsockname()[1]
        print(f"bms_emulator: waiting for gdb on port {chosen}", file=sys.stderr, flush=True)
        if listening is not None:
            listening(chosen)
        client, _ = server.accept()
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(machine, client, end)
        session.run()
    if session.outcome is not None and session.outcome.reason in (Stop.HALT, Stop.LOCKUP):
        return session.outcome
    if session.killed:
        return Outcome(Stop.CYCLES, machine.cycle)
    return machine.run(until=end)


class Session:
    """The conversation with one client."""

    def __init__(self, machine: Machine, client: socket.socket, end: int) -> None:
        self.machine = machine
        self.client = client
        self.end = end
        self.outcome: Outcome | None = None
        self.killed = False
        self._input = bytearray()
        self._open = True
        self._acknowledge = True

    # --- packets

    def _receive(self) -> bool:
        try:
            data = self.client.recv(4096)
        except OSError:
            data = b""
        self._input += data
        return bool(data)

    def _next(self) -> bytes | None:
        """Next packet; b"\\x03" for an interrupt; None when the client is gone."""
        while True:
            while self._input and self._input[0] not in (ord("$"), _INTERRUPT):
                del self._input[0]
            if self._input and self._input[0] == _INTERRUPT:
                del self._input[0]
                return b"\x03"
            end = self._input.find(b"#")
            if self._input and end >= 0 and len(self._input) >= end + 3:
                body, check = bytes(self._input[1:end]), bytes(self._input[end + 1 : end + 3])
                del self._input[: end + 3]
                try:
                    good = sum(body) & 0xFF == int(check, 16)
                except ValueError:
                    good = False
                if self._acknowledge:
                    self.client.sendall(b"+" if good else b"-")
                if good:
                    return body
                continue
            if len(self._input) > 4 * _PACKET or not self._receive():
                return None

    def _send(self, text: str) -> None:
        body = text.encode("latin-1")
        self.client.sendall(b"$" + body + b"#%02x" % (sum(body) & 0xFF))

    def run(self) -> None:
        """Until the client leaves."""
        while self._open:
            try:
                packet = self._next()
                if packet is None:
                    return
                if packet == b"\x03":
                    self._send(f"T{_SIGINT:02x}")
                    continue
                try:
                    reply = self._answer(packet.decode("latin-1"))
                except (ValueError, IndexError):
                    reply = "E01"
                if reply is not None:
                    self._send(reply)
            except OSError:
                return

    def _answer(self, packet: str) -> str | None:
        kind, rest = packet[:1], packet[1:]
        match kind:
            case "?":
                return f"T{_SIGTRAP:02x}"
            case "g":
                return "".join(_word(self._read(i)) for i in range(33))
            case "G":
                for i in range(33):
                    self._write(i, _value(rest[8 * i : 8 * i + 8]))
                return "OK"
            case "p":
                return _word(self._read(int(rest, 16)))
            case "P":
                number, _, value = rest.partition("=")
                self._write(int(number, 16), _value(value))
                return "OK"
            case "m":
                address, size = (int(part, 16) for part in rest.split(","))
                return self.machine.read_memory(address, min(size, _PACKET // 2)).hex()
            case "M":
                where, _, data = rest.partition(":")
                address, size = (int(part, 16) for part in where.split(","))
                content = bytes.fromhex(data)
                if len(content) != size:
                    return "E01"
                self.machine.write_memory(address, content)
                return "OK"
            case "Z" | "z":
                return self._breakpoint(kind == "Z", rest)
            case "c" | "s":
                if rest:
                    self.machine.pc = int(rest, 16)
                return self._go(kind == "s")
            case "H" | "T":
                return "OK"
            case "D":
                self._open = False
                return "OK"
            case "k":
                self.killed = True
                self._open = False
                return None
            case "v":
                return self._v(packet)
            case "q" | "Q":
                return self._query(packet)
        return ""

    def _v(self, packet: str) -> str | None:
        if packet == "vCont?":
            return "vCont;c;C;s;S"
        if packet.startswith("vCont;"):
            return self._go(packet[6] in "sS")
        if packet.startswith("vKill"):
            self.killed = True
            self._open = False
            return "OK"
        return ""

    def _query(self, packet: str) -> str:
        if packet.startswith("qSupported"):
            return f"PacketSize={_PACKET:x};qXfer:features:read+;QStartNoAckMode+;vContSupported+"
        if packet == "QStartNoAckMode":
            self._acknowledge = False
            return "OK"
        if packet == "qAttached":
            return "1"
        if packet == "qC":
            return "QC1"
        if packet == "qfThreadInfo":
            return "m1"
        if packet == "qsThreadInfo":
            return "l"
        if packet.startswith("qXfer:features:read:target.xml:"):
            start, size = (int(part, 16) for part in packet.rsplit(":", 1)[1].split(","))
            text = target_xml()
            return ("m" if start + size < len(text) else "l") + text[start : start + size]
        if packet.startswith("qRcmd,"):
            return self._monitor(bytes.fromhex(packet[6:]).decode("latin-1").strip())
        return ""

    def _monitor(self, command: str) -> str:
        machine = self.machine
        if command == "cycles":
            text = f"cycle {machine.cycle}, retired {machine.retired}, mcycle {machine.mcycle}\n"
        elif command == "console":
            text = machine.console.decode("latin-1")
        elif command == "reset":
            machine.reset()
            text = "reset\n"
        else:
            text = "monitor commands: cycles, console, reset\n"
        return text.encode("latin-1").hex() or "OK"

    # --- machine

    def _read(self, number: int) -> int:
        if number < 32:
            return self.machine.register(number)
        if number == 32:
            return self.machine.pc
        return self.machine.csr(number - _CSR_BASE)

    def _write(self, number: int, value: int) -> None:
        if number < 32:
            self.machine.set_register(number, value)
        elif number == 32:
            self.machine.pc = value
        else:
            self.machine.set_csr(number - _CSR_BASE, value)

    def _breakpoint(self, insert: bool, text: str) -> str:
        kind, address = text.split(",")[:2]
        if kind not in "01":
            return ""
        if insert:
            self.machine.set_breakpoint(int(address, 16))
        else:
            self.machine.clear_breakpoint(int(address, 16))
        return "OK"

    def _go(self, step: bool) -> str:
        """Run until something stops it, and say what."""
        machine = self.machine
        if step:
            self.outcome = machine.step()
        else:
            machine.skip_breakpoint()
            self.client.setblocking(False)
            try:
                while True:
                    self.outcome = machine.run(until=min(machine.cycle + _SLICE, self.end))
                    if self.outcome.reason is not Stop.CYCLES or machine.cycle >= self.end:
                        break
                    if self._interrupted():
                        return f"T{_SIGINT:02x}"
            finally:
                self.client.setblocking(True)
        if self.outcome.reason is Stop.HALT:
            code = self.outcome.code >> 1 if machine.board.tohost else 0
            return f"W{code & 0xFF:02x}"
        if self.outcome.reason is Stop.LOCKUP:
            return f"T{_SIGILL:02x}"
        return f"T{_SIGTRAP:02x}"

    def _interrupted(self) -> bool:
        """Whether Ctrl-C came, or the client is gone."""
        try:
            data = self.client.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._open = False
            return True
        if _INTERRUPT in data:
            return True
        self._input += data
        return False


def _word(value: int) -> str:
    return value.to_bytes(4, "little").hex()


def _value(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")
