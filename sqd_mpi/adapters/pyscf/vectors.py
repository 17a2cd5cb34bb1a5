"""What PySCF hands around as `ci`: an array where the space is complete and small, else an object that names a vector.

PySCF's own routines (second-order CASSCF, NEVPT2, gradients of averaged states, checkpoints) take vectors as arrays. A
`SubspaceArray` is one of PySCF's; a `SubspaceVector` answers with one sentence where PySCF takes it for an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf.fci.direct_spin1 import FCIvector

from sqd_mpi.adapters.pyscf import callers
from sqd_mpi.adapters.pyscf.session import Handle, Reference
from sqd_mpi.adapters.pyscf.start import StringPair
from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import InputError
from sqd_mpi.solver.density_matrices import DensityMatrices
from sqd_mpi.solver.result import Root


class NotAnArray(InputError, AttributeError):
    """A distributed vector was taken for an array; an AttributeError too, so that `hasattr` says no."""


class SubspaceVector:
    """One eigenvector, which lives on all ranks.

    `numpy.asarray`, `pickle` and `gather` put it together; nothing else does, PySCF's full CI code least of all.
    """

    def __init__(self, handle: Handle, number: int, root: Root, strings: StringPair, norb: int, nelec: tuple[int, int]):
        self._handle = handle
        self._number = number
        self._matrices: DensityMatrices | None = None
        self.energy, self.residual_norm = root.energy, root.residual_norm
        """Hartree, core included; 2-norm, hartree."""
        self.converged = root.converged
        """Whether the residual norm reached the tolerance."""
        self.spin_square = root.spin_square
        """<S^2>; None for spin-dependent orbitals, whose overlap the solver does not see."""
        self.strings = strings
        """(alpha, beta), (n, nwords) uint64 in canonical order."""
        self.norb, self.nelec = norb, nelec
        """Number of orbitals, (n_alpha, n_beta)."""
        self.shape = len(strings[0]), len(strings[1])
        """Numbers of alpha and of beta strings of the whole vector."""

    def gather(self) -> FloatArray:
        """The whole vector in canonical order; takes 8 bytes per determinant on every rank.

        Raises:
            InputError: the memory does not suffice.
        """
        found: FloatArray = self._handle.session.call("gather", self.reference)
        return found

    def density_matrices(self, order: int) -> DensityMatrices:
        """Its density matrices; kept, so that asking again costs nothing."""
        if self._matrices is None or (order == 2 and self._matrices.two_ab is None):
            self._matrices = self._handle.session.call("matrices", self.reference, self.reference, order)
        return self._matrices

    def transition_to(self, ket: SubspaceVector, order: int) -> DensityMatrices:
        """Density matrices <self|...|ket>."""
        found: DensityMatrices = self._handle.session.call("matrices", self.reference, ket.reference, order)
        return found

    def large(self, threshold: float) -> tuple[FloatArray, StringPair]:
        """Coefficients above a threshold in magnitude, or the largest one, and the strings of their determinants."""
        values, alpha, beta = self._handle.session.call("large", self.reference, threshold)
        return values, (self.strings[0][alpha], self.strings[1][beta])

    def lives_in(self, session: Any) -> bool:
        """Whether the ranks of a session hold it."""
        return self._handle.session is session

    @property
    def reference(self) -> Reference:
        """By which every rank knows the vector: numbers of the solve and of the root."""
        return self._handle.number, self._number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        if callers.is_full_ci_code():
            raise _not_an_array("elements")
        return np.asarray(self.gather(), dtype)

    def __getattr__(self, name: str) -> Any:
        if hasattr(np.ndarray, name) and not name.startswith("__"):
            raise _not_an_array(f".{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getitem__(self, number: int) -> SubspaceVector:
        """Itself as the first of one: PySCF looks into vectors to see what they are."""
        if number != 0:
            raise IndexError("a SubspaceVector is one vector")
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (self.gather(),)

    def __copy__(self) -> SubspaceVector:
        return self

    def __deepcopy__(self, memo: Any) -> SubspaceVector:
        return self

    def __repr__(self) -> str:
        return f"SubspaceVector(shape={self.shape}, energy={self.energy:.10f})"


def _not_an_array(what: str) -> NotAnArray:
    return NotAnArray(
        f"what was called asked a distributed CI vector for its {what}: it needs an array over all strings of the "
        "active space, which gather() makes if these are all strings"
    )


class SubspaceArray(FCIvector):
    """One eigenvector over all strings as PySCF's own solver gives it, (n_alpha strings, n_beta strings).

    What is computed from it is an array without the attributes.
    """

    energy: float | None = None
    spin_square: float | None = None
    residual_norm: float | None = None
    converged: bool | None = None
    strings: StringPair | None = None
    """As of `SubspaceVector`; None for other arrays."""

    @classmethod
    def create(cls, whole: FloatArray, root: Root, strings: StringPair) -> SubspaceArray:
        """The array of a root, from its whole vector (n_alpha, n_beta)."""
        found: SubspaceArray = whole.view(cls)  # type: ignore[assignment]
        found.energy, found.spin_square = root.energy, root.spin_square
        found.residual_norm, found.converged = root.residual_norm, root.converged
        found.strings = strings
        return found

    def gather(self) -> FloatArray:
        """A copy without the attributes, as of a `SubspaceVector`."""
        return np.array(self)

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments, state = super().__reduce__()[:3]
        return make, arguments, (state, self.__dict__)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.__dict__.update(state[1])


def of_complete_space(ci: Any, what: str, n_strings: tuple[int, int], array_limit: int) -> FloatArray:
    """A CI vector over all strings as an array of any shape.

    Args:
        ci: as a caller gave it.
        what: what needs it, for the message.
        n_strings: numbers of all alpha and of all beta strings.
        array_limit: determinants up to which vectors are arrays.

    Raises:
        InputError: it is no such vector.
    """
    size = n_strings[0] * n_strings[1]
    if isinstance(ci, SubspaceVector):
        n_determinants = ci.shape[0] * ci.shape[1]
        raise InputError(why_no_array(what, n_determinants, n_determinants == size, array_limit))
    array: FloatArray = np.asarray(ci)
    if array.dtype.kind not in "fiuc":
        raise InputError(f"{what} needs a CI vector of numbers; got {type(ci).__name__}")
    if array.size != size:
        raise InputError(
            f"{what} needs a CI vector over all {n_strings[0]} x {n_strings[1]} strings of the active space; got an "
            f"array {array.shape}"
        )
    return array


def why_no_array(what: str, n_determinants: int, complete: bool, array_limit: int) -> str:
    """The sentence for what needs arrays where vectors are distributed."""
    if not complete:
        return f"{what} needs all strings of the active space; the strings given are a part of them"
    return (
        f"{what} needs CI vectors as arrays; this space has {n_determinants} determinants, more than array_limit = "
        f"{array_limit}, which can be raised, and gather() makes an array of one vector"
    )
