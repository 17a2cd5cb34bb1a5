"""What a distributed eigenvector says about orbitals and strings, without gathering it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import n_threads, parallel_jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout, SliceGeometry
from sqd_mpi.distribution.memory import smallest
from sqd_mpi.distribution.process_grid import ProcessGrid

_N_PROBES = 16  # elements that show a parity


@dataclass(frozen=True, eq=False)
class StringWeights:
    """How much of one normalised vector each string carries, in canonical order of the strings."""

    alpha: FloatArray = field(repr=False)
    """(n_alpha,) sum over beta of |C|^2."""
    beta: FloatArray = field(repr=False)
    """(n_beta,) likewise."""
    largest_alpha: FloatArray = field(repr=False)
    """(n_alpha,) largest |C| of any determinant with this string."""
    largest_beta: FloatArray = field(repr=False)
    """(n_beta,) likewise."""


def string_weights(grid: ProcessGrid, layout: Layout, vector: FloatArray) -> StringWeights:
    """Weights of all strings in one vector. Collective over the grid; the result lives on every rank.

    Args:
        grid: the process grid.
        layout: ownership of the vector.
        vector: (size,) this rank's slice of a normalised vector.
    """
    where = layout.geometry(*grid.coordinates)
    n_alpha, n_beta = layout.alpha.size, layout.beta.size
    weights = np.zeros(n_alpha + n_beta)
    largest = np.zeros(n_alpha + n_beta)
    rows = np.zeros((2, len(where.alpha)))
    columns = np.zeros((2, len(where.beta)))
    _row_weights(where.row_offset, where.row_length, where.start, where.stop, vector, rows)
    _column_weights(
        where.row_offset, where.row_length, where.row_column, where.start, where.stop, vector, columns, n_threads()
    )
    alpha, beta = layout.alpha.canonical[where.alpha], n_alpha + layout.beta.canonical[where.beta]
    if layout.parity:
        _unscale_largest(where, vector, rows[1], columns[1])
    for target, part in ((weights, 0), (largest, 1)):
        target[alpha] = rows[part]
        target[beta] = columns[part]
    grid.sum_over_all(weights)
    grid.maximum_over_all(largest)
    if layout.parity:
        # Every stored element off the mirror line stands for two determinants with exchanged strings.
        weights = np.tile((weights[:n_alpha] + weights[n_alpha:]) / 2, 2)
        largest = np.tile(np.maximum(largest[:n_alpha], largest[n_alpha:]), 2)
    return StringWeights(weights[:n_alpha], weights[n_alpha:], largest[:n_alpha], largest[n_alpha:])


def occupancies(strings: NDArray[np.uint64], weights: FloatArray, norb: int) -> FloatArray:
    """Mean occupation (norb,) of every orbital, from the strings of one spin and their weights."""
    result = np.empty(norb)
    for orbital in range(norb):
        occupied = (strings[:, orbital // 64] >> np.uint64(orbital % 64)) & np.uint64(1)
        result[orbital] = float(np.dot(occupied.astype(np.float64), weights))
    return result


def carry_over(strings: NDArray[np.uint64], largest: FloatArray, threshold: float) -> NDArray[np.uint64]:
    """Strings of some determinant with |coefficient| above the threshold, heaviest first.

    Args:
        strings: (n, nwords) uint64.
        largest: (n,) largest |coefficient| with each.
        threshold: of the coefficient.
    """
    chosen = np.flatnonzero(largest > threshold)
    return np.ascontiguousarray(strings[chosen[np.argsort(-largest[chosen], kind="stable")]])


def parity_of(grid: ProcessGrid, layout: Layout, vector: FloatArray) -> float:
    """The parity of an eigenvector under the exchange of both spins, from its largest elements.

    1 for C = C^T, -1 for C = -C^T, something between for a mixture of both. Collective over the grid.

    Args:
        grid: the process grid.
        layout: of equal alpha and beta strings, without a parity of its own.
        vector: (size,) this rank's slice.
    """
    where = layout.geometry(*grid.coordinates)
    flat = smallest(-abs(vector), _N_PROBES)
    rows, columns = where.locate(flat)
    alpha, beta = layout.alpha.canonical[where.alpha], layout.beta.canonical[where.beta]
    mine = np.column_stack([vector[flat], alpha[rows], beta[columns]])
    probes = grid.gather_everywhere(mine)
    probes = probes[np.lexsort((probes[:, 2], probes[:, 1], -abs(probes[:, 0])))][:_N_PROBES]
    images = np.zeros(len(probes))
    for k, (_, i, j) in enumerate(probes):
        images[k] = _element(where, vector, np.flatnonzero(alpha == j), np.flatnonzero(beta == i))
    grid.sum_over_all(images)
    return float(probes[:, 0] @ images / (probes[:, 0] @ probes[:, 0]))


def _element(where: SliceGeometry, vector: FloatArray, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> float:
    """The element at one of some rows and one of some columns, or 0 if the slice does not hold it."""
    for row in rows:
        for column in columns:
            inside = column - where.row_column[row]
            position = where.row_offset[row] + inside - where.start
            if 0 <= inside < where.row_length[row] and 0 <= position < len(vector):
                return float(vector[position])
    return 0.0


def _unscale_largest(where: SliceGeometry, vector: FloatArray, rows: FloatArray, columns: FloatArray) -> None:
    """From stored elements (times sqrt(2) off the mirror line) to coefficients, in the largest of rows and columns.

    An element on the line was scaled down with the rest of its row, to below its true value; the true value is put
    back as a candidate for the maximum.
    """
    rows *= np.sqrt(0.5)
    columns *= np.sqrt(0.5)
    line_rows, line_columns = where.locate(where.diagonal)
    values = np.abs(vector[where.diagonal])
    np.maximum.at(rows, line_rows, values)
    np.maximum.at(columns, line_columns, values)


@parallel_jit
def _row_weights(row_offset, row_length, start, stop, vector, out):
    for row in numba.prange(row_offset.shape[0]):
        first = max(row_offset[row], start)
        last = min(row_offset[row] + row_length[row], stop)
        total, largest = 0.0, 0.0
        for flat in range(first, last):
            value = vector[flat - start]
            total += value * value
            largest = max(largest, abs(value))
        out[0, row] = total
        out[1, row] = largest


@parallel_jit
def _column_weights(row_offset, row_length, row_column, start, stop, vector, out, n_parts):
    # Threads own ranges of columns; every thread walks through all rows, so memory is read once in all.
    for part in numba.prange(n_parts):
        begin, end = out.shape[1] * part // n_parts, out.shape[1] * (part + 1) // n_parts
        for row in range(row_offset.shape[0]):
            shift = row_offset[row] - row_column[row]  # flat position of column j is shift + j
            first = max(row_offset[row], start, shift + begin)
            last = min(row_offset[row] + row_length[row], stop, shift + end)
            for flat in range(first, last):
                value = vector[flat - start]
                out[0, flat - shift] += value * value
                out[1, flat - shift] = max(out[1, flat - shift], abs(value))
