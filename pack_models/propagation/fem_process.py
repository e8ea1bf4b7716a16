"""Finite elements in the interpreter that has dolfinx: trilinear hexahedra, lumped mass, conjugate gradients.

Started by `fem.py` as `python -m pack_models.propagation.fem_process SOCKET`, alone or under mpirun; rank 0
talks to the parent, every rank works on its share of the nodes. The mesh is a structured box on the integer
lattice whose coordinates are then moved to the grid lines, so a node's lattice position tells all its
properties and no mesh file or generator is needed. One conduction matrix per run; a step size only changes
the diagonal.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
import traceback
from typing import Any

import dolfinx  # type: ignore[import-not-found]
import numpy as np
import ufl  # type: ignore[import-not-found]
from dolfinx import fem  # type: ignore[import-not-found]
from dolfinx.fem import petsc as fem_petsc  # type: ignore[import-not-found]
from mpi4py import MPI  # type: ignore[import-not-found]
from petsc4py import PETSc  # type: ignore[import-not-found]

from . import dolfinx_shim as shim
from .errors import SolverError
from .grid import Grid
from .kernel import Tables
from .march import March, StepRules, Trace
from .problem import build, from_message, vertex_index
from .wire import receive, send


class FemConduction:
    """Conduction matrix and solver of one rank for `march.March`."""

    def __init__(self, grid: Grid, comm: Any, rtol: float) -> None:
        self.comm, self.rtol = comm, rtol
        shape = grid.shape
        self.mesh = shim.box(comm, shape)
        self.space = shim.space(self.mesh, "Lagrange", 1)
        pieces = shim.space(self.mesh, "DG", 0)
        self.owned = self.space.dofmap.index_map.size_local
        lattice = np.rint(self.space.tabulate_dof_coordinates()).astype(np.int64)
        self.vertex = vertex_index(shape, lattice[:, 0], lattice[:, 1], lattice[:, 2])
        volume = np.floor(pieces.tabulate_dof_coordinates()).astype(np.int64)
        material = grid.material[volume[:, 0], volume[:, 1], volume[:, 2]]
        x = self.mesh.geometry.x
        for axis, line in enumerate(grid.lines):
            x[:, axis] = line[np.rint(x[:, axis]).astype(np.int64)]
        k = []
        for axis in range(3):
            f = fem.Function(pieces)
            f.x.array[:] = grid.k_W_mK[material, axis]
            k.append(f)
        u, v = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        weight = ufl.SpatialCoordinate(self.mesh)[0] ** grid.curvature if grid.curvature else 1
        form = weight * sum(k[a] * u.dx(a) * v.dx(a) for a in range(3)) * ufl.dx
        self.matrix = fem_petsc.assemble_matrix(fem.form(form))
        self.matrix.assemble()
        self.diagonal_W_K = self.matrix.getDiagonal().array.copy()
        self._in, self._out = self.matrix.createVecRight(), self.matrix.createVecRight()
        self._solvers: dict[Any, Any] = {}
        self.temperature = fem.Function(self.space)
        self.temperature.name = "temperature_K"
        self.iterations = 0

    def apply(self, temperature_K: np.ndarray) -> np.ndarray:
        """K T, W."""
        self._in.array[:] = temperature_K
        self.matrix.mult(self._in, self._out)
        return np.array(self._out.array)

    def _solver(self, diagonal_W_K: np.ndarray, key: Any) -> Any:
        """CG on K + diagonal. Incomplete Cholesky per rank: the parabolic matrix is so well conditioned that
        multigrid never earns its set-up, and a direct factor does not fit from about 80 000 nodes."""
        if key not in self._solvers:
            if len(self._solvers) >= 6:
                self._solvers.pop(next(iter(self._solvers))).destroy()
            matrix = self.matrix.copy()
            values = self.matrix.createVecRight()
            values.array[:] = self.diagonal_W_K + diagonal_W_K
            matrix.setDiagonal(values)
            ksp = PETSc.KSP().create(self.comm)
            ksp.setOperators(matrix)
            ksp.setType("cg")
            pc = ksp.getPC()
            if self.comm.size == 1:
                pc.setType("icc")
            else:
                prefix = f"propagation_{len(self._solvers)}_{id(ksp)}_"
                ksp.setOptionsPrefix(prefix)
                options = PETSc.Options()
                options[f"{prefix}pc_type"], options[f"{prefix}sub_pc_type"] = "bjacobi", "icc"
                ksp.setFromOptions()
            ksp.setUp()
            self._solvers[key] = ksp
        return self._solvers[key]

    def solve(self, diagonal_W_K: np.ndarray, key: Any, rhs_W: np.ndarray, guess_K: np.ndarray) -> np.ndarray:
        """Solve (diag + K) T = rhs from a guess."""
        ksp = self._solver(diagonal_W_K, key)
        # Solved for the change, to a share of the change: a tolerance on the temperature itself would leave a
        # drift of micro-kelvins per step, which is all it takes near criticality.
        self._out.array[:] = guess_K
        ksp.getOperators()[0].mult(self._out, self._in)
        self._in.array[:] = rhs_W - self._in.array
        floor = 1e-14 * np.sqrt(float(self.total(np.array([guess_K @ guess_K]))[0]))
        ksp.setTolerances(rtol=self.rtol, atol=floor, max_it=2000)
        ksp.solve(self._in, self._out)
        if ksp.getConvergedReason() < 0:
            raise SolverError(
                f"conjugate gradients did not converge (PETSc reason {ksp.getConvergedReason()} after "
                f"{ksp.getIterationNumber()} iterations); choose a smaller run.step.largest_s or a larger "
                "run.cg_rtol"
            )
        self.iterations += ksp.getIterationNumber()
        return np.asarray(guess_K + self._out.array)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over ranks."""
        return values if self.comm.size == 1 else np.asarray(self.comm.allreduce(values, op=MPI.SUM))

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Maximum over ranks."""
        if self.comm.size == 1:
            return values
        return np.asarray(np.max(np.array(self.comm.allgather(values)), axis=0))


class Server:
    """One open case and the commands on it."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.march: March | None = None
        self.writer: Any = None

    def open(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Mesh, matrix and node arrays of a case."""
        tic = time.perf_counter()
        a = arrays
        self.grid = Grid(
            a["x"],
            a["y"],
            a["z"],
            a["material"],
            a["cell"],
            a["k_W_mK"],
            a["rho_cp_J_m3K"],
            a["initial_K"],
            (),
            values["curvature"],
        )
        tables = Tables(
            values["n_species"],
            values["n_reactions"],
            *(a[name] for name in ("rd", "ri", "stoich", "fd", "fi", "initial", "quiet_K")),
        )
        boundaries, triggers = from_message(values)
        self.conduction = FemConduction(self.grid, self.comm, values["cg_rtol"])
        n = self.conduction.owned
        self.problem = build(
            self.grid, tables, a["cell_set"], boundaries, triggers, True, self.conduction.vertex[:n]
        )
        self.march = March(self.problem, self.conduction, StepRules(**values["step"]))
        if "lattice_K" in a:  # start temperature given at every vertex (manufactured solutions)
            self.march.temperature_K = a["lattice_K"].ravel()[self.conduction.vertex[:n]]
            self.problem.initial_K = self.march.temperature_K.copy()
            self.march = March(self.problem, self.conduction, StepRules(**values["step"]))
        self._mean0, self._max0 = self.march.cell_mean_K(), self.march.cell_max_K()
        return {
            "dolfinx": dolfinx.__version__,
            "petsc": ".".join(map(str, PETSc.Sys.getVersion())),
            "ranks": self.comm.size,
            "nodes": self.grid.n_vertices,
            "vtx": shim.has_vtx(),
            "setup_s": time.perf_counter() - tic,
        }, {}

    def advance(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Step to a time; returns the trace since the last call, the energy split and the timing."""
        march, problem = self.march, self.problem
        assert march is not None
        if "scale" in arrays:
            problem.scale[:] = arrays["scale"]
        if "ambient_K" in arrays:
            problem.ambient_K[:] = arrays["ambient_K"]
            problem.reactor.face_ambient_K[:] = problem.ambient_K[problem.face_group]
        if "cell_heat_W" in arrays:
            march.cell_heat_W[:] = arrays["cell_heat_W"]
        trace, stop = Trace(), values.get("stop_above_K")

        def record() -> bool:
            trace.time_s.append(march.time_s)
            trace.mean_K.append(march.cell_mean_K())
            trace.max_K.append(march.cell_max_K())
            trace.extent.append(march.cell_extent())
            return stop is not None and float(trace.max_K[-1].max(initial=0.0)) > stop

        stopped = march.advance(values["until_s"], record if values.get("record", True) else None)
        if not values.get("record", True):
            record_now = (march.time_s, march.cell_mean_K(), march.cell_max_K(), march.cell_extent())
            trace = Trace([record_now[0]], [record_now[1]], [record_now[2]], [record_now[3]])
        t = march.timing
        reply = {
            "energy": march.energy(),
            "stopped": stopped,
            "time_s": march.time_s,
            "timing": {
                "kinetics_s": t.kinetics_s,
                "solve_s": t.solve_s,
                "steps": t.steps,
                "rejected": t.rejected,
                "solves": t.solves,
                "iterations": self.conduction.iterations,
                "cpu_s": time.process_time(),
                "memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
            },
        }
        return reply, {
            "time_s": np.array(trace.time_s),
            "mean_K": np.array(trace.mean_K),
            "max_K": np.array(trace.max_K),
            "extent": np.array(trace.extent),
            "trigger_J": march.ledger.triggers,
        }

    def field(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Temperature on the lattice (nx + 1, ny + 1, nz + 1)."""
        assert self.march is not None
        lattice = np.zeros(self.grid.n_vertices)
        lattice[self.conduction.vertex[: self.conduction.owned]] = self.march.temperature_K
        lattice = self.conduction.total(lattice)
        return {"time_s": self.march.time_s}, {
            "temperature_K": lattice.reshape([n + 1 for n in self.grid.shape])
        }

    def write(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Add the present temperature to the field file."""
        assert self.march is not None
        c = self.conduction
        c.temperature.x.array[: c.owned] = self.march.temperature_K
        c.temperature.x.scatter_forward()
        if self.writer is None:
            self.writer = shim.writer(self.comm, values["path"], c.mesh, c.temperature)
        self.writer.write(self.march.time_s)
        return {}, {}

    def bare_solves(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Time of plain CG solves with the matrix of the present step: the limit a run is compared with."""
        assert self.march is not None
        m = self.march
        diagonal, key = m._diagonal(m.rules.largest_s)
        rhs = diagonal * m.temperature_K
        start, spent = m.temperature_K * 0.999, []
        for _ in range(values["count"]):
            tic = time.process_time()
            self.conduction.solve(diagonal, key, rhs, start)
            spent.append(time.process_time() - tic)
        return {"solve_s": float(np.median(spent))}, {}

    def close(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Close the field file."""
        if self.writer is not None:
            self.writer.close()
        return {}, {}


def main(path: str) -> None:
    """Serve commands until `close` or until the parent goes away."""
    comm = MPI.COMM_WORLD
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if comm.rank == 0:
        link.connect(path)
    server = Server(comm)
    while True:
        message = None
        if comm.rank == 0:
            try:
                message = receive(link)
            except Exception:
                message = ({"do": "close"}, {})
        values, arrays = comm.bcast(message, root=0)
        try:
            reply, result = getattr(server, values["do"])(values, arrays)
            failed = None
        except Exception as error:
            kind = "solver" if isinstance(error, SolverError) else "other"
            failed = (kind, str(error) if kind == "solver" else traceback.format_exc())
            reply, result = {}, {}
        failures = [f for f in comm.allgather(failed) if f is not None]
        if comm.rank == 0:
            if failures:
                reply = {"error": failures[0][1], "kind": failures[0][0]}
            try:
                send(link, reply, result)
            except OSError:
                break
        if values["do"] == "close":
            break


if __name__ == "__main__":
    main(sys.argv[1])
