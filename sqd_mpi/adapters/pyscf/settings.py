"""PySCF's names of the settings of a solver, and which of them have no counterpart."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import lib

from sqd_mpi.errors import InputError, did_you_mean
from sqd_mpi.options import SolveOptions, fewest_krylov_vectors

# Options of a job, which belongs to the command line.
_OF_A_JOB = (
    "rdm", "pt2", "save_vector", "resume", "checkpoint_every", "time_limit", "watchdog", "watchdog_end", "trace",
    "carry_over_threshold",
)  # fmt: skip
# Attributes and arguments of PySCF's Davidson solver that have no counterpart.
_WITHOUT_COUNTERPART = ("lindep", "level_shift", "lessio")
# Arguments that PySCF's procedures pass and that say nothing to this solver: memory for PySCF's own arrays, its tables.
_OF_PYSCF = ("max_memory", "link_index")
_PROPERTIES = ("conv_tol", "conv_tol_residual", "max_cycle", "max_space", "pspace_size", "threads", "max_memory")
_ARGUMENTS = (
    "ci0", "tol", "max_cycle", "max_space", "nroots", "davidson_only", "pspace_size", "orbsym", "wfnsym", "ecore",
    "verbose",
)  # fmt: skip


def check_options(options: dict[str, Any]) -> None:
    """Raise InputError for options that only a job knows what to do with."""
    for name in _OF_A_JOB:
        if name in options:
            raise InputError(f"SubspaceSolver has no option {name!r}, which belongs to a job of the command line")


def _positive(option: str, doc: str, least: int = 1) -> Any:
    """Property that is an option of the solve by another name; smaller numbers than the least are taken for it."""
    return property(
        lambda self: self._option(option), lambda self, number: self._set_option(option, max(number, least)), doc=doc
    )


class Settings:
    """Attributes of PySCF's solvers that are options of this one; those of `SubspaceSolver`."""

    tol: float
    options: dict[str, Any]

    @property
    def conv_tol(self) -> float:
        """Energy to which PySCF's solvers converge, hartree: the square of the residual norm."""
        return self.tol**2

    @conv_tol.setter
    def conv_tol(self, energy: float) -> None:
        self.tol = SolveOptions(tol=float(np.sqrt(max(energy, 0.0)))).tol

    @property
    def conv_tol_residual(self) -> float:
        """The residual norm `tol`, as PySCF's solvers name it."""
        return self.tol

    @conv_tol_residual.setter
    def conv_tol_residual(self, residual: float | None) -> None:
        if residual is not None:
            self.tol = SolveOptions(tol=residual).tol

    max_cycle = _positive("max_iterations", "Largest number of iterations in a symmetry sector.")
    pspace_size = _positive(
        "model_space", "Number of determinants whose Hamiltonian is diagonalised exactly before the iterations."
    )
    max_space = _positive(
        "max_subspace",
        "Largest number of Krylov vectors, at least two for each root and two; None for what the memory allows.",
        fewest_krylov_vectors(1),
    )

    @property
    def threads(self) -> int | None:
        """Threads of a rank, or None for the solver's choice."""
        found = self._option("threads")
        return None if found == "auto" else int(found)

    @threads.setter
    def threads(self, number: int | None) -> None:
        self._set_option("threads", "auto" if number is None else number)

    @property
    def max_memory(self) -> float:
        """Memory of a rank, MB."""
        found = self._option("memory")
        return float(lib.param.MAX_MEMORY if found is None else found / 1e6)

    @max_memory.setter
    def max_memory(self, megabytes: float) -> None:
        self._set_option("memory", int(megabytes * 1e6))

    def _option(self, name: str) -> Any:
        """Value of an option of the solve."""
        return self.options.get(name, SolveOptions.model_fields[name].default)

    def _set_option(self, name: str, value: Any) -> None:
        """Another option of the solve; copies of the solver, which share the old options, keep these."""
        SolveOptions(**{name: value})
        self.options = {**self.options, name: value}

    def _check_arguments(self, given: dict[str, Any]) -> None:
        """Refuse arguments and attributes that would have no effect."""
        for name in _PROPERTIES:  # copied from the dictionary of another solver, where they are no properties
            if name in self.__dict__:
                setattr(self, name, self.__dict__.pop(name))
        names = [name for name, value in given.items() if value is not None and name not in _OF_PYSCF]
        names += [name for name in _WITHOUT_COUNTERPART if name in self.__dict__]
        for name in names:
            if name in _WITHOUT_COUNTERPART:
                raise InputError(f"{name} has no counterpart in SubspaceSolver; leave it as it is")
            raise InputError(f"SubspaceSolver's kernel has no argument {name!r}{did_you_mean(name, _ARGUMENTS)}")
