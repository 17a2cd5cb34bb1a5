"""What a Krylov basis is made of: the operator that it asks for, and small matrices over its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sqd_mpi.arrays import FloatArray


class Operator(Protocol):
    """A symmetric operator on distributed vectors; what `davidson` needs."""

    memory: Any
    """Where vectors live (`distribution.memory`)."""
    vectors: Any
    """Functions on vectors there."""

    @property
    def size(self) -> int:
        """Number of elements on this rank."""

    @property
    def dimension(self) -> int:
        """Number of elements in all."""

    @property
    def rough(self) -> bool:
        """Whether `matvec` works in single precision."""

    def matvec(self, vector: FloatArray, out: FloatArray) -> None:
        """out = H vector, both (size,)."""

    def exact(self, vector: FloatArray, out: FloatArray) -> None:
        """The same in double precision."""

    def diagonal(self) -> FloatArray:
        """Local part of the diagonal."""

    def lowest_diagonal(self, count: int) -> FloatArray:
        """(count,) lowest elements of the diagonal of all ranks, ascending, infinite where there are no more."""

    def purify(self, vector: FloatArray, scratch: Sequence[FloatArray] = (), exact: bool = True) -> float:
        """Take out what a vector should not have; the share of its squared norm that is left, 1 if it was not touched.

        `scratch` are up to two vectors that may be overwritten; `exact` says whether that is done in double precision.
        """

    def sum_over_ranks(self, values: FloatArray) -> None:
        """Add small arrays over all ranks, in place."""


@dataclass
class RitzRows:
    """Coefficients of Ritz vectors over the basis, in rows."""

    every: FloatArray
    """Of all of them."""
    current: FloatArray
    previous: FloatArray
    """Of the roots, in this iteration and in the one before."""


@dataclass
class Expansion:
    """What is known of the expansion vectors, which lie behind the basis."""

    shifts: FloatArray
    """Of the preconditioner, hartree."""
    corrections: FloatArray
    """Second-order estimates of what the Ritz values miss, hartree."""
    overlaps: FloatArray
    products: FloatArray
    """With the locked vectors and the basis, in this order, and among themselves."""

    @property
    def first_order_norms(self) -> FloatArray:
        """2-norms of the first-order corrections, which these vectors are before they are changed."""
        return np.asarray(np.sqrt(np.diag(self.products)))


class Locked:
    """Known eigenvectors X of norm 1, which need be orthogonal only roughly, and small matrices between them and V."""

    def __init__(self, vectors: Any, capacity: int) -> None:
        self.vectors = vectors
        """(n, size) in the memory of the operator; None if there are none."""
        self.count = 0 if vectors is None else vectors.shape[0]
        self.overlap = np.eye(self.count)
        """X X^T."""
        self.with_basis = np.zeros((capacity, self.count))
        """V X^T: rounding."""
        self.elements = np.zeros((capacity, self.count))
        """W X^T: residuals of the locked vectors."""
