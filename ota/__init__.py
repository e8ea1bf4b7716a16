"""Over-the-air updates: from a signed image to a confirmed, reported update on a device.

The package is useful alone (``python -m ota --help``). It knows nothing of batteries, simulators or of the
emulator; time and bytes come in as arguments, and every decision over time is a state machine
``(state, event, now_s) -> (state, commands)`` without I/O.

Floors, lower ones import nothing from higher ones:

    cli, bench                                    commands
    gateway, server_app, testbed                  loops that own sockets, files, clocks
    device, server, mcu_model, invariants         state machines and the checker
    repository, trust, ceremony, verify           metadata, chains of trust
    manifest, image, parameters, delta, frames, messages   formats: one module each, with its byte table
    keystore, signing, audit, merkle, cbor        primitives
    errors, limits                                reason codes; every bound that must hold under attack
"""
