"""Compiles, loads and calls `kernel.c`: the abuse kinetics of many nodes.

Works with numpy alone, because the process that has dolfinx imports it too. The shared library is built
once by the first interpreter that has a C compiler (ziglang from our environment, else `cc`) into a cache
folder keyed by the source, so that the dolfinx interpreter only loads it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import PropagationError

MAX_REACTIONS, MAX_SPECIES, MAX_FACTORS, MAX_SITES = 12, 16, 4, 8
RD_A, RD_A_HOT, RD_T_HOT, RD_E_R, RD_T_ON, RD_CEILING, RD_DIFF_A, RD_DIFF_E_R, RD_ORDER, RD_HEAT = range(10)
RI_SPECIES, RI_FORM, RI_FACTORS, RI_FED = range(4)
FORMS = {"power": 0, "logistic": 1, "source": 2}
FACTORS = {"power": 0, "exp": 1, "saturation": 2, "critical": 3, "below": 4}

_SOURCE = Path(__file__).with_name("kernel.c")
# No fused multiply-add and no fast-math: the same bits wherever it is compiled.
_FLAGS = ["-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off"]


class _Tables(ctypes.Structure):
    _fields_ = [
        ("n_reactions", ctypes.c_int64),
        ("n_species", ctypes.c_int64),
        ("rd", ctypes.c_void_p),
        ("ri", ctypes.c_void_p),
        ("stoich", ctypes.c_void_p),
        ("fd", ctypes.c_void_p),
        ("fi", ctypes.c_void_p),
    ]


class _Faces(ctypes.Structure):
    _fields_ = [
        ("start", ctypes.c_void_p),
        ("area", ctypes.c_void_p),
        ("ambient", ctypes.c_void_p),
        ("resistance", ctypes.c_void_p),
    ]


def cache_folder() -> Path:
    """Folder of compiled kernels: `BATTERY_TWIN_CACHE`, else the user's cache folder."""
    base = os.environ.get("BATTERY_TWIN_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "battery-twin"


def _compilers() -> list[list[str]]:
    found = []
    try:
        import ziglang  # noqa: F401

        found.append([sys.executable, "-m", "ziglang", "cc"])
    except ImportError:
        pass
    found += [[path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    return found


def build() -> Path:
    """Path of the compiled kernel, compiling it when this source was not compiled before."""
    key = hashlib.sha256(_SOURCE.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    target = cache_folder() / f"propagation-{key}.so"
    if target.exists():
        return target
    compilers = _compilers()
    if not compilers:
        raise PropagationError(
            "the kinetics kernel needs a C compiler once: pip install ziglang, or install gcc"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        out = Path(folder) / target.name
        for compiler in compilers:
            done = subprocess.run(
                [*compiler, *_FLAGS, str(_SOURCE), "-o", str(out), "-lm"], capture_output=True, text=True
            )
            if done.returncode == 0:
                os.replace(out, target)  # atomic: two processes may build at the same moment
                return target
    raise PropagationError(f"{' '.join(compilers[-1])} could not compile {_SOURCE.name}:\n{done.stderr}")


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build()))
    library.layout.restype = ctypes.c_int64
    library.layout.argtypes = [ctypes.c_int64]
    expected = [MAX_REACTIONS, MAX_SPECIES, MAX_FACTORS, MAX_SITES, RD_HEAT + 1, RI_FED + 1]
    if [library.layout(i) for i in range(6)] != expected:
        raise PropagationError("kernel.c and kernel.py disagree about their layout")
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    library.react.restype = real
    library.react.argtypes = [integer, *[pointer] * 8, *[pointer] * 2, real, real, *[pointer] * 3]
    library.conduct_apply.restype = None
    library.conduct_apply.argtypes = [integer] * 3 + [pointer] * 6
    library.conduct_factor.restype = integer
    library.conduct_factor.argtypes = [integer] * 3 + [pointer] * 5
    library.conduct_solve.restype = integer
    library.conduct_solve.argtypes = [integer] * 3 + [pointer] * 8 + [real, real, integer]
    library.rates.restype = real
    library.rates.argtypes = [pointer, integer, real, pointer, pointer, pointer]
    return library


@dataclass(frozen=True)
class Tables:
    """Kinetic sets as the kernel reads them; made by `kinetics.compile_sets`.

    Parameters
    ----------
    n_species : species per set (the widest)
    n_reactions : reactions per set (the widest)
    rd, ri, stoich, fd, fi : parameter rows, see kernel.c
    initial : (n_sets, n_species) species at the start
    quiet_K : (n_sets,) below this temperature a set releases next to nothing and is skipped
    """

    n_species: int
    n_reactions: int
    rd: np.ndarray
    ri: np.ndarray
    stoich: np.ndarray
    fd: np.ndarray
    fi: np.ndarray
    initial: np.ndarray
    quiet_K: np.ndarray

    @property
    def struct(self) -> _Tables:
        arrays = (self.rd, self.ri, self.stoich, self.fd, self.fi)
        return _Tables(self.n_reactions, self.n_species, *(a.ctypes.data for a in arrays))

    @property
    def heat_J_m3(self) -> np.ndarray:
        """(n_sets, MAX_REACTIONS) heat per m3 of cell and unit extent."""
        return np.asarray(self.rd[:, :, RD_HEAT])


class Reactor:
    """Nodes, their sites and radiating faces, ready to be advanced by the kernel.

    Parameters
    ----------
    tables : kinetic sets
    cell_set : (n_cells,) set of each cell
    capacity_J_K : (n_nodes,)
    site_start : (n_nodes + 1,) first site of each node
    site_cell, site_volume_m3 : (n_sites,)
    face_start : (n_nodes + 1,) first radiating face of each node
    face_area_m2 : (n_faces,) emissivity times area
    face_ambient_K, face_resistance_K_W : (n_faces,)
    """

    def __init__(
        self,
        tables: Tables,
        cell_set: np.ndarray,
        capacity_J_K: np.ndarray,
        site_start: np.ndarray,
        site_cell: np.ndarray,
        site_volume_m3: np.ndarray,
        face_start: np.ndarray,
        face_area_m2: np.ndarray,
        face_ambient_K: np.ndarray,
        face_resistance_K_W: np.ndarray,
    ) -> None:
        def real(a: Any) -> np.ndarray:
            return np.ascontiguousarray(a, dtype=np.float64)

        def whole(a: Any) -> np.ndarray:
            return np.ascontiguousarray(a, dtype=np.int64)

        self.tables = tables
        self.cell_set = whole(cell_set)
        self.capacity_J_K = real(capacity_J_K)
        self.site_start, self.site_cell, self.site_volume_m3 = (
            whole(site_start),
            whole(site_cell),
            real(site_volume_m3),
        )
        self.face_start, self.face_area_m2 = whole(face_start), real(face_area_m2)
        self.face_ambient_K, self.face_resistance_K_W = real(face_ambient_K), real(face_resistance_K_W)
        if self.site_start.size and int(np.diff(self.site_start).max(initial=0)) > MAX_SITES:
            raise PropagationError(f"a node touches more than {MAX_SITES} cells")
        self.species = tables.initial[self.cell_set[self.site_cell]].copy()
        self.extent_m3 = np.zeros((max(self.cell_set.size, 1), MAX_REACTIONS))
        self.radiated_J = np.zeros(1)
        self.substeps = np.zeros(1, dtype=np.int64)
        self._tables = tables.struct
        faces = (self.face_start, self.face_area_m2, self.face_ambient_K, self.face_resistance_K_W)
        self._faces = _Faces(*(a.ctypes.data for a in faces))
        self._react = _library().react

    def react(self, temperature_K: np.ndarray, dt_s: float, limit_K: float) -> float:
        """Advance species and temperature (in place) by dt without conduction; largest rise by reactions,
        K.
        """
        return float(
            self._react(
                temperature_K.size,
                temperature_K.ctypes.data,
                self.capacity_J_K.ctypes.data,
                self.site_start.ctypes.data,
                self.site_cell.ctypes.data,
                self.site_volume_m3.ctypes.data,
                self.species.ctypes.data,
                self.cell_set.ctypes.data,
                self.tables.quiet_K.ctypes.data,
                ctypes.addressof(self._tables),
                ctypes.addressof(self._faces),
                dt_s,
                limit_K,
                self.extent_m3.ctypes.data,
                self.radiated_J.ctypes.data,
                self.substeps.ctypes.data,
            )
        )


class Rates:
    """Instantaneous rates of one kinetic set, for the 0-D integrator and for tests."""

    def __init__(self, tables: Tables, index: int = 0) -> None:
        self.tables, self.index = tables, index
        self._struct = tables.struct
        self._extent = np.zeros(MAX_REACTIONS)
        self._dy = np.zeros(MAX_SPECIES)
        self._rates = _library().rates

    def __call__(self, temperature_K: float, species: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Heat W/m3, extent rates (n_reactions,) 1/s, species rates (n_species,) 1/s."""
        y = np.ascontiguousarray(species, dtype=np.float64)
        heat = self._rates(
            ctypes.addressof(self._struct),
            self.index,
            temperature_K,
            y.ctypes.data,
            self._extent.ctypes.data,
            self._dy.ctypes.data,
        )
        n, m = self.tables.n_reactions, self.tables.n_species
        return float(heat), self._extent[:n].copy(), self._dy[:m].copy()


class Lattice:
    """Conductances between the volumes of a structured grid and the solver on them.

    Parameters
    ----------
    conductance_W_K : three arrays (nx, ny, nz): to the upper neighbour along each axis, 0 at the end
    """

    def __init__(self, conductance_W_K: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        self.shape = conductance_W_K[0].shape
        self._g = [np.ascontiguousarray(g, dtype=np.float64) for g in conductance_W_K]
        self.row_sum: np.ndarray = np.zeros(
            self.shape
        )  # of the off-diagonals: the diagonal of pure conduction
        for axis, g in enumerate(self._g):
            low, high = [slice(None)] * 3, [slice(None)] * 3
            low[axis], high[axis] = slice(0, -1), slice(1, None)
            self.row_sum += g
            self.row_sum[tuple(high)] += g[tuple(low)]
        self.row_sum = np.ravel(self.row_sum)
        n = self.row_sum.size
        self._head = (*self.shape, *(g.ctypes.data for g in self._g))
        self._work = np.zeros(4 * n)
        self._library = _library()

    def apply(self, x: np.ndarray) -> np.ndarray:
        """K x."""
        x, out = np.ascontiguousarray(x), np.empty_like(x)
        self._library.conduct_apply(*self._head, self.row_sum.ctypes.data, x.ctypes.data, out.ctypes.data)
        return out

    def factor(self, extra: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Diagonal, incomplete factor and total loss of K + diag(extra); None when that is not positive
        definite.
        """
        diagonal = self.row_sum + extra
        inverse = np.empty_like(diagonal)
        if self._library.conduct_factor(*self._head, diagonal.ctypes.data, inverse.ctypes.data):
            return None
        return diagonal, inverse, float(extra.sum())

    def solve(
        self, factor: tuple[np.ndarray, np.ndarray, float], rhs: np.ndarray, guess: np.ndarray, rtol: float
    ) -> tuple[np.ndarray, int]:
        """Solution and iterations (-1: not converged)."""
        x, b = guess.copy(), np.ascontiguousarray(rhs)
        count = self._library.conduct_solve(
            *self._head,
            factor[0].ctypes.data,
            factor[1].ctypes.data,
            b.ctypes.data,
            x.ctypes.data,
            self._work.ctypes.data,
            factor[2],
            rtol,
            5000,
        )
        return x, int(count)
