"""Selected configuration interaction in a product of alpha and beta bit-strings, on any number of MPI ranks.

Everything public is here or in `sqd_mpi.adapters`; where a name is defined may change, its path here does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sqd_mpi._version import __version__ as __version__

if TYPE_CHECKING:
    from sqd_mpi.distribution.mpi import world
    from sqd_mpi.errors import InputError, InputWarning, RunError
    from sqd_mpi.files.records import Problem, read_input, read_summary, write_input
    from sqd_mpi.log import Log
    from sqd_mpi.loop.batch import BatchResult, Failure
    from sqd_mpi.loop.batches import solve_batches
    from sqd_mpi.loop.options import LoopOptions
    from sqd_mpi.loop.sqd import LoopResult, LoopState, run_loop
    from sqd_mpi.loop.workers import WorkerPool
    from sqd_mpi.options import SolveOptions
    from sqd_mpi.problem import bitstrings, sampling
    from sqd_mpi.problem.hamiltonian import Hamiltonian
    from sqd_mpi.solver.density_matrices import DensityMatrices, density_matrices, transition_density_matrices
    from sqd_mpi.solver.pt2 import Correction, second_order
    from sqd_mpi.solver.result import Root, SubspaceResult
    from sqd_mpi.solver.solve import solve_subspace

# Where the public names lie. They are imported when they are first used, so that `import sqd_mpi` costs nothing and
# starts neither MPI nor a compiler. A module that is public stands beside itself.
_PLACES = {
    "distribution.mpi": ("world",),
    "errors": ("InputError", "InputWarning", "RunError"),
    "files.records": ("Problem", "read_input", "read_summary", "write_input"),
    "log": ("Log",),
    "loop.batch": ("BatchResult", "Failure"),
    "loop.batches": ("solve_batches",),
    "loop.options": ("LoopOptions",),
    "loop.sqd": ("LoopResult", "LoopState", "run_loop"),
    "loop.workers": ("WorkerPool",),
    "options": ("SolveOptions",),
    "problem.bitstrings": ("bitstrings",),
    "problem.hamiltonian": ("Hamiltonian",),
    "problem.sampling": ("sampling",),
    "solver.density_matrices": ("DensityMatrices", "density_matrices", "transition_density_matrices"),
    "solver.pt2": ("Correction", "second_order"),
    "solver.result": ("Root", "SubspaceResult"),
    "solver.solve": ("solve_subspace",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BatchResult",
    "Correction",
    "DensityMatrices",
    "Failure",
    "Hamiltonian",
    "InputError",
    "InputWarning",
    "Log",
    "LoopOptions",
    "LoopResult",
    "LoopState",
    "Problem",
    "Root",
    "RunError",
    "SolveOptions",
    "SubspaceResult",
    "WorkerPool",
    "bitstrings",
    "density_matrices",
    "read_input",
    "read_summary",
    "run_loop",
    "sampling",
    "second_order",
    "solve_batches",
    "solve_subspace",
    "transition_density_matrices",
    "world",
    "write_input",
]


def __getattr__(name: str) -> Any:
    """Returns a public name from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted([*globals(), *__all__])
