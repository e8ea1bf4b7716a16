"""The few calls of dolfinx that changed between 0.5 and 0.11, in one place; everything else is PETSc and
numpy.
"""

from __future__ import annotations

from typing import Any

import dolfinx  # type: ignore[import-not-found]
import numpy as np
from dolfinx import fem, io, mesh  # type: ignore[import-not-found]


def box(comm: Any, counts: tuple[int, int, int]) -> Any:
    """Hexahedra on the integer lattice [0, nx] x [0, ny] x [0, nz] (keywords: the argument order moved in
    0.7).
    """
    corners = [np.zeros(3), np.array(counts, dtype=float)]
    return mesh.create_box(comm, corners, list(counts), cell_type=mesh.CellType.hexahedron)


def space(domain: Any, family: str, degree: int) -> Any:
    """Function space (`functionspace` from 0.7, the class before)."""
    make = getattr(fem, "functionspace", None) or fem.FunctionSpace
    return make(domain, (family, degree))


def writer(comm: Any, path: str, domain: Any, function: Any) -> Any:
    """Open writer with write(time) and close(): VTX where this build has ADIOS2 and `path` ends in .bp,
    else XDMF.
    """
    if path.endswith(".bp"):
        vtx = io.VTXWriter(comm, path, [function])
        return type("Vtx", (), {"write": staticmethod(vtx.write), "close": staticmethod(vtx.close)})
    file = io.XDMFFile(comm, path, "w")
    file.write_mesh(domain)
    write = staticmethod(lambda time_s: file.write_function(function, time_s))
    return type("Xdmf", (), {"write": write, "close": staticmethod(file.close)})


def has_vtx() -> bool:
    """Whether this build can write VTX (.bp) files."""
    return hasattr(io, "VTXWriter") and bool(getattr(dolfinx.common, "has_adios2", False))
