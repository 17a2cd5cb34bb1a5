"""S^2 on CPU threads: of all pairs of singles it needs those in which both spins swap an orbital, pq and qp.

With the beta singles sorted by their orbital pair these are reached at once, which makes S^2 some ten times cheaper
than a sum over all pairs whose coupling is mostly zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import IntArray
from sqd_mpi.backends.cpu.records import BetaSingles


class SortedSingles(NamedTuple):
    """The beta singles of one ket block, matrix after matrix, sorted by directed orbital pair."""

    start: IntArray
    """(n_matrices, n_pairs + 1) int64 range of every pair in the next three."""
    row: NDArray[np.int32]
    """(n,) int32 bra column, ascending within a pair."""
    column: NDArray[np.int32]
    """(n,) int32 ket column."""
    sign: NDArray[np.int8]
    """(n,) int8."""


def sort_singles(beta: BetaSingles, norb: int) -> SortedSingles:
    """Sort the singles of all matrices by orbital pair; linear in their number."""
    n_pairs, n = norb * (norb + 1), len(beta.column)
    found = SortedSingles(
        np.zeros((len(beta.matrix_row) - 1, n_pairs + 1), np.int64),
        np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int8),
    )  # fmt: skip
    _sort(beta, found)
    return found


@jit
def _sort(beta, found):
    for matrix in range(found.start.shape[0]):
        # How many there are of every pair, then where the first of it goes.
        start = found.start[matrix]
        first, last = beta.matrix_row[matrix], beta.matrix_row[matrix + 1]
        for m in range(beta.indptr[first], beta.indptr[last]):
            start[beta.orbital_pair[m] + 1] += 1
        start[0] = beta.indptr[first]
        for pair in range(start.size - 1):
            start[pair + 1] += start[pair]

        # One after the other into its place.
        place = start.copy()
        for row in range(first, last):
            for m in range(beta.indptr[row], beta.indptr[row + 1]):
                k = place[beta.orbital_pair[m]]
                place[beta.orbital_pair[m]] += 1
                found.row[k], found.column[k], found.sign[k] = row - first, beta.column[m], beta.sign[m]


@parallel_jit
def swap_both(ket, sigma, rows, groups, singles, factor):
    """Add factor x sum over p unlike q of E^alpha_pq E^beta_qp: `slow.kernels.opposite_spin` without a coupling.

    Args:
        ket: (n,) float64, C.
        sigma: (m,) float64, added to.
        rows: `Rows`.
        groups: `Groups` of directed pairs.
        singles: `SortedSingles`.
        factor: float64.
    """
    for thread in numba.prange(groups.thread_group.size - 1):
        for group in range(groups.thread_group[thread], groups.thread_group[thread + 1]):
            matrix, back = groups.matrix[group], groups.pair[group] ^ 1
            first, last = singles.start[matrix, back], singles.start[matrix, back + 1]
            for k in range(groups.start[group], groups.start[group + 1]):
                bra_row = groups.pair_bra[k]
                out, stop = rows.bra_offset[bra_row], rows.bra_stop[bra_row]
                source, amount = rows.ket_offset[groups.pair_ket[k]], factor * groups.pair_sign[k]
                for m in range(first, last):
                    if singles.row[m] >= stop:
                        break
                    sigma[out + singles.row[m]] += amount * singles.sign[m] * ket[source + singles.column[m]]
