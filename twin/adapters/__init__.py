"""Engines made to fit the ports; the only modules of twin that import pack_models, bms_emulator and ota."""
