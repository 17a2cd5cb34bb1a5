"""Random vectors that are the same on every grid: each element depends on its determinant and a seed alone."""

from __future__ import annotations

import numba
import numpy as np

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout

_LEAST_DENOMINATOR = 0.3  # hartree


def fill_random(
    layout: Layout, place: tuple[int, int, int, int], seed: int, diagonal: FloatArray, energy: float, out: FloatArray
) -> None:
    """This rank's slice of a vector of random numbers over (diagonal - energy): no state of low energy is missing.

    Args:
        layout: ownership of the vector.
        place: (ia, ib, it, ir) of this rank.
        seed: another one gives another vector.
        diagonal: (size,) hartree.
        energy: hartree, about that of the states that are sought.
        out: (size,), filled.
    """
    where = layout.geometry(*place)
    _fill(
        where.row_offset, where.row_length, where.row_column, where.start, where.stop,
        layout.alpha.canonical[where.alpha], layout.beta.canonical[where.beta], layout.beta.size, layout.parity,
        np.uint64(seed), diagonal, energy, _LEAST_DENOMINATOR, out,
    )  # fmt: skip


@jit
def _uniform(number, seed):
    """A number of [-1, 1) from two integers, by the finaliser of splitmix64 (G. Steele et al., OOPSLA 2014)."""
    bits = number + np.uint64(0x9E3779B97F4A7C15) * (seed + np.uint64(1))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return np.float64(bits >> np.uint64(11)) * (2.0**-52) - 1.0


@parallel_jit
def _fill(
    row_offset, row_length, row_column, start, stop, alpha, beta, n_beta, parity, seed, diagonal, energy, least, out
):  # fmt: skip
    for row in numba.prange(row_offset.shape[0]):
        first, last = max(row_offset[row], start), min(row_offset[row] + row_length[row], stop)
        i = alpha[row]
        for flat in range(first, last):
            j = beta[row_column[row] + flat - row_offset[row]]
            # Of two mirrored elements either may be stored; C_JI = parity C_IJ.
            low, high = (i, j) if parity == 0 or i <= j else (j, i)
            value = _uniform(np.uint64(low * n_beta + high), seed)
            if parity < 0 and i > j:
                value = -value
            out[flat - start] = value / max(diagonal[flat - start] - energy, least)
