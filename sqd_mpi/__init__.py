"""Selected configuration interaction in a product of alpha and beta bit-strings, on any number of MPI ranks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sqd_mpi.files.records import Problem, read_input, read_summary, write_input
    from sqd_mpi.log import Log
    from sqd_mpi.options import InputError, InputWarning, SolveOptions
    from sqd_mpi.problem.hamiltonian import Hamiltonian
    from sqd_mpi.solver.solve import SubspaceResult, solve_subspace

# Where the public names lie. They are imported when they are first used, so that `import sqd_mpi` costs nothing and
# starts neither MPI nor a compiler.
_MODULES = {
    "Hamiltonian": "hamiltonian",
    "InputError": "options",
    "InputWarning": "options",
    "Log": "log",
    "Problem": "files",
    "SolveOptions": "options",
    "SubspaceResult": "solve",
    "read_input": "files",
    "read_summary": "files",
    "solve_subspace": "solve",
    "write_input": "files",
}

__all__ = [
    "Hamiltonian",
    "InputError",
    "InputWarning",
    "Log",
    "Problem",
    "SolveOptions",
    "SubspaceResult",
    "read_input",
    "read_summary",
    "solve_subspace",
    "write_input",
]


def __getattr__(name: str) -> Any:
    """Returns a public name from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted([*globals(), *__all__])
