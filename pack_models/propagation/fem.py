"""Our side of the finite elements: finds an interpreter with dolfinx, starts it, drives it.

    with FemRun(case) as run:
        run.advance(700.0)

The solver runs in its own process because distributions tie dolfinx to their own Python and numpy. The
interpreter is `TWIN_DOLFINX_PYTHON`, else this one, else `python3` of the path, the conda environment and
the system.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import kernel
from .case import Case
from .errors import MissingDolfinxError, PropagationError, SolverError
from .march import StepRules
from .problem import to_message
from .wire import receive, send

_ROOT = Path(__file__).parents[2]
_PROBE = (
    "import dolfinx, petsc4py.PETSc as p, numpy; assert numpy.dtype(p.ScalarType).kind == 'f'; "
    "print(dolfinx.__version__)"
)
INSTALL = (
    "Debian/Ubuntu: apt-get install python3-dolfinx; conda: conda install -c conda-forge fenics-dolfinx; "
    "then, if it is not found by itself, set TWIN_DOLFINX_PYTHON to that interpreter"
)


@lru_cache(maxsize=1)
def find_interpreter() -> tuple[str, str]:
    """(path, dolfinx version) of the first interpreter with a real-valued dolfinx, or MissingDolfinxError."""
    asked = os.environ.get("TWIN_DOLFINX_PYTHON")
    conda = os.environ.get("CONDA_PREFIX")
    candidates = (
        [asked]
        if asked
        else [
            sys.executable,
            shutil.which("python3"),
            f"{conda}/bin/python" if conda else None,
            "/usr/bin/python3",
        ]
    )
    tried = []
    for path in dict.fromkeys(c for c in candidates if c):
        try:
            done = subprocess.run(
                [path, "-c", _PROBE],
                capture_output=True,
                text=True,
                timeout=120,
                cwd="/",
                env=_environment(False),
            )
        except (OSError, subprocess.TimeoutExpired):
            tried.append(path)
            continue
        if done.returncode == 0:
            return path, done.stdout.strip().splitlines()[-1]
        tried.append(path)
    raise MissingDolfinxError(
        f"propagation: {{model: fem}} needs dolfinx; none of these has it: {', '.join(tried)}. {INSTALL}. "
        "Or choose {model: network}"
    )


def _environment(ours: bool = True) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # Containers run as root and have few cores; as variables these do not disturb other MPI launchers.
    env |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }
    if ours:
        env["PYTHONPATH"] = str(_ROOT)
    return env


class FemRun:
    """A case open in the dolfinx process.

    Parameters
    ----------
    case : checked case
    ranks : MPI processes; more than one starts under mpirun
    refine, mesh : as in `Case.grid`
    rules : stepping rules in place of the case's
    lattice_K : start temperature at every vertex instead of the case's
    """

    def __init__(
        self,
        case: Case,
        ranks: int = 1,
        refine: Sequence[int] = (1, 1, 1),
        mesh: Sequence[int] | None = None,
        rules: StepRules | None = None,
        lattice_K: np.ndarray | None = None,
    ) -> None:
        interpreter, self.version = find_interpreter()
        kernel.build()  # here, where a compiler surely is
        self.case = case
        self.grid = case.grid("fem", refine, mesh)
        self._folder = tempfile.TemporaryDirectory(prefix="fem-")
        path = str(Path(self._folder.name) / "socket")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(1)
        command = [interpreter, "-m", "pack_models.propagation.fem_process", path]
        if ranks > 1:
            launcher = shutil.which("mpirun", path=f"{Path(interpreter).parent}:{os.environ.get('PATH', '')}")
            if launcher is None:
                raise MissingDolfinxError(
                    f"{ranks} MPI processes need mpirun, which was not found beside {interpreter}"
                )
            command = [launcher, "-n", str(ranks), *command]
        with open(Path(self._folder.name) / "log", "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                cwd=self._folder.name,
            )
        listener.settimeout(1.0)
        for _ in range(180):
            try:
                self._link, _ = listener.accept()
                break
            except TimeoutError:
                if self._process.poll() is not None:
                    raise PropagationError(f"the dolfinx process ended at once:\n{self._log()}") from None
        else:
            self._process.kill()
            raise PropagationError(f"the dolfinx process did not answer within 180 s:\n{self._log()}")
        listener.close()
        self._link.settimeout(None)
        tables, g = case.tables(), self.grid
        values = {
            "do": "open",
            "curvature": g.curvature,
            "n_species": tables.n_species,
            "n_reactions": tables.n_reactions,
            "step": asdict(rules or case.run.steps["fem"]),
            "cg_rtol": case.run.cg_rtol or 1e-6,
            **to_message(list(case.boundaries), list(case.triggers)),
        }
        arrays = {
            name: getattr(tables, name) for name in ("rd", "ri", "stoich", "fd", "fi", "initial", "quiet_K")
        }
        arrays |= {
            name: getattr(g, name)
            for name in ("x", "y", "z", "material", "cell", "k_W_mK", "rho_cp_J_m3K", "initial_K")
        }
        arrays["cell_set"] = case.cell_set
        if lattice_K is not None:
            arrays["lattice_K"] = lattice_K
        self.facts, _ = self.call(values, arrays)

    def _log(self) -> str:
        return (Path(self._folder.name) / "log").read_text(errors="replace")[-3000:]

    def call(
        self, values: dict[str, Any], arrays: dict[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """One command and its answer; errors of the other side are raised here."""
        try:
            send(self._link, values, arrays)
            reply, result = receive(self._link)
        except (OSError, PropagationError) as error:
            self._process.wait(10)
            raise PropagationError(f"the dolfinx process died:\n{self._log()}") from error
        if "error" in reply:
            raise (SolverError if reply["kind"] == "solver" else PropagationError)(str(reply["error"]))
        return reply, result

    def advance(self, until_s: float, **more: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Step to a time; `more` may hold scale, ambient_K, cell_heat_W arrays, record and stop_above_K."""
        arrays: dict[str, np.ndarray] = {
            k: np.asarray(more.pop(k), dtype=float)
            for k in ("scale", "ambient_K", "cell_heat_W")
            if k in more
        }
        return self.call({"do": "advance", "until_s": until_s, **more}, arrays)

    def field_K(self) -> np.ndarray:
        """Temperature at the vertices, (nx + 1, ny + 1, nz + 1)."""
        return self.call({"do": "field"})[1]["temperature_K"]

    def write(self, path: Path) -> None:
        """Add the present temperature to an XDMF (or, with .bp, VTX) file."""
        self.call({"do": "write", "path": str(path.resolve())})

    def bare_solve_s(self, count: int = 20) -> float:
        """CPU time of one plain CG solve of this matrix."""
        return float(self.call({"do": "bare_solves", "count": count})[0]["solve_s"])

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            try:
                self.call({"do": "close"})
                self._process.wait(20)
            except (PropagationError, subprocess.TimeoutExpired):
                self._process.kill()
        self._link.close()
        self._folder.cleanup()

    def __enter__(self) -> FemRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
