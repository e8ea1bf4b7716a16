"""Devices of the boards, one file each, with a row in `memory_map.toml`.

Two kinds. A *hot* device lives inside the compiled loop: its file has `KIND`, `NAME`, `REGISTERS` and
compiled functions `read` and `write`; its state is `state.SLOTS` words of the state array; its row is in
`HOT` below and in the dispatch of `bus.py`. Any other device is a Python object with `read` and `write`
(`machine.PythonDevice`); the loop leaves for every access to it, which costs some microseconds. Its file has
`NAME`, `REGISTERS` and `SIZE`; its row is in `COLD`. `MEMORY` are those that only fill a memory of the map.
"""

from __future__ import annotations

from . import afe, can, console, gpio, hsm, mailbox, nvm, reset, timer, watchdog

HOT = {module.NAME: module for module in (console, timer, gpio)}
COLD = {module.NAME: module for module in (watchdog, reset, nvm, hsm, mailbox, can)}
MEMORY = {module.NAME: module for module in (afe,)}
