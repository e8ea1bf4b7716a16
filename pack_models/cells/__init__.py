"""Cell models behind one port: `ecm` (equivalent circuit) and `spm`, `spme`, `dfn` (PyBaMM itself)."""
