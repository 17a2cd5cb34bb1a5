"""Permutational symmetry of integrals: indices of orbital pairs, and how far integrals may be from the symmetry."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.errors import InputError, InputWarning

# Relative to the largest integral: differences of integrals that should be equal are not worth a word up to the first
# and cannot be noise beyond the second, which single precision keeps.
UNNOTICED = 1e-10
NOISE = 1e-6


def n_pairs(norb: int) -> int:
    """Number of unordered pairs of norb orbitals."""
    return norb * (norb + 1) // 2


def n_eri(norb: int) -> int:
    """Length of the s8 vector of norb orbitals."""
    return n_pairs(n_pairs(norb))


def pair_index(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of an unordered pair: p (p + 1) / 2 + q for p >= q."""
    larger, smaller = np.maximum(first, second), np.minimum(first, second)
    return larger * (larger + 1) // 2 + smaller


def full(packed: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """(norb, norb) symmetric matrix of its packed lower triangle."""
    matrix = np.empty((norb, norb))
    lower = np.tril_indices(norb)
    matrix[lower] = matrix.T[lower] = packed
    return matrix


def unpacked_eri(eri: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """(npair, npair) symmetric matrix of an s8 vector."""
    npair = n_pairs(norb)
    matrix = np.empty((npair, npair))
    for row in range(npair):
        values = eri[row * (row + 1) // 2 :][: row + 1]
        matrix[row, : row + 1] = values
        matrix[: row + 1, row] = values
    return matrix


def judge_noise(difference: float, largest: float, complaint: str) -> None:
    """Whether integrals that should be equal are: silence, a warning that their mean is taken, or an error.

    Args:
        difference: the largest that was found.
        largest: magnitude of the largest integral.
        complaint: a sentence that says what should be equal and is not.

    Raises:
        InputError: the difference is more than noise.
    """
    if difference > NOISE * largest:
        raise InputError(
            f"{complaint}: they differ by up to {difference:.1e}; at most {NOISE:g} of the largest is taken for noise"
        )
    if difference > UNNOTICED * largest:
        warnings.warn(
            f"{complaint}: they differ by up to {difference:.1e}; the mean is taken", InputWarning, stacklevel=5
        )
