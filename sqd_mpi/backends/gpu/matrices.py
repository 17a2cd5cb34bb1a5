"""H_alpha and H_beta on the device: sparse rows, and dense matrices for the labels that are chosen for it.

A dense matrix is made on the device: the sparse rows of its label are uploaded, scattered into zeros and forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import IntArray
from sqd_mpi.backends.cpu.block import RowRange, StringStructure
from sqd_mpi.backends.cpu.records import BetaSingles, SparseRows
from sqd_mpi.backends.gpu import lists
from sqd_mpi.backends.gpu.device import Device, DeviceArray

Matrices = dict[int, DeviceArray]
Stretches = dict[int, list[tuple[int, int, int]]]  # of ket rows, by label (`rows.BlockRows.ket_stretches`)

_THREADS = 256


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """H_alpha of a range of bra rows on the device."""

    terms: IntArray = field(repr=False)
    """(n_rows,) number of elements of every row, on the host."""
    indptr: DeviceArray = field(repr=False)
    """The rows of labels without a matrix, in CSR; the others are empty."""
    column: DeviceArray = field(repr=False)
    """Ket row of every element of these."""
    value: DeviceArray = field(repr=False)
    """The elements."""
    matrices: Matrices = field(repr=False)
    """By label x, flat: a matrix (rows of x, ket rows) for every stretch of its ket rows in turn."""


@dataclass(frozen=True, eq=False)
class DeviceDoubles:
    """H_beta from this rank's columns to those of a ket block, on the device."""

    terms: IntArray = field(repr=False)
    """(n_labels,) multiply-adds of a row."""
    table: DeviceArray = field(repr=False)
    """This and the next five: the doubles of labels without a matrix; see `lists`."""
    column: DeviceArray = field(repr=False)
    """Ket column of every entry."""
    slice_start: DeviceArray = field(repr=False)
    """First entry of every slice."""
    counts: DeviceArray = field(repr=False)
    """Entries of every column."""
    order: DeviceArray = field(repr=False)
    """Column at every position."""
    value: DeviceArray = field(repr=False)
    """The values."""
    single_value: DeviceArray = field(repr=False)
    """The values of the singles, in the order of the lists; empty if no label needs it."""
    matrices: Matrices = field(repr=False)
    """By label y, (columns of y, ket columns), with doubles and singles."""


def alpha_matrices(
    device: Device, strings: StringStructure, da: int, rows: RowRange, dense: frozenset[int], stretches: Stretches
) -> DeviceRows:
    """H_alpha from a range of bra rows to those of block ia + da.

    Args:
        dense: labels that get a matrix; stretches: of the ket rows of each of them.
    """
    found = strings.alpha_hamiltonian(da, rows)
    layout = strings.layout
    start = np.clip(strings.bra.label_start, *rows) - rows[0]
    _, ket_start = layout.ket_rows((strings.ia + da) % layout.grid[0])
    matrices = {}
    for x in sorted(dense):
        n_rows, n_ket = int(start[x + 1] - start[x]), int(ket_start[x + 1] - ket_start[x])
        matrix = device.empty(n_rows * n_ket)
        device.zero(matrix)
        for first, last, _ in stretches[x]:
            part = matrix[n_rows * first : n_rows * last].reshape(n_rows, last - first)
            scatter(device, part, found, (int(start[x]), int(start[x + 1])), int(ket_start[x]) + first)
        matrices[x] = matrix
    label = np.repeat(np.arange(layout.n_labels), np.diff(start))
    kept, up = without(found, np.isin(label, list(dense))), device.upload
    return DeviceRows(np.diff(found.indptr), up(kept.indptr), up(kept.column), up(kept.value), matrices)


def beta_matrices(
    device: Device, strings: StringStructure, sliced_singles: lists.SlicedRows, db: int, dense: frozenset[int]
) -> DeviceDoubles:
    """H_beta from this rank's columns to those of block ib + db.

    Args:
        sliced_singles: where the singles of this shift stand in the lists of the kernels.
        dense: labels of columns that get a matrix.
    """
    layout, singles = strings.layout, strings.beta[db]
    doubles, single_value = strings.beta_hamiltonian(db)
    _, start = layout.beta_rows(strings.ib)
    n_ket = np.diff(layout.beta_bounds, axis=1)[:, (strings.ib + db) % layout.grid[1]]
    matrices = {}
    for y in sorted(dense):
        matrix = device.empty((int(start[y + 1] - start[y]), int(n_ket[y])))
        device.zero(matrix)
        scatter(device, matrix, doubles, (int(start[y]), int(start[y + 1])), 0)
        part, own = _singles_of(singles, y * layout.n_labels, single_value)
        scatter(device, matrix, part, own, 0)
        matrices[y] = matrix
    label = np.repeat(np.arange(layout.n_labels), np.diff(start))
    kept = without(doubles, np.isin(label, list(dense)))
    sliced, column, value = lists.double_lists(kept, start, n_ket, sliced_singles.tile_width)
    entries = singles.matrix_entries[:: layout.n_labels]
    placed = np.empty(0)
    if any(entries[y] > 0 and y not in dense for y in range(layout.n_labels)):
        placed = lists.placed_values(sliced_singles.where, single_value, sliced_singles.size)
    up = device.upload
    return DeviceDoubles(
        np.diff(doubles.indptr[start]) + entries, up(sliced.table), up(column), up(sliced.slice_start),
        up(sliced.counts), up(sliced.order), up(value), up(placed), matrices,
    )  # fmt: skip


def scatter(device: Device, matrix: DeviceArray, found: SparseRows, rows: RowRange, first_column: int) -> None:
    """Put the elements of some sparse rows that lie in the columns from `first_column` on into a matrix of zeros."""
    if matrix.size == 0:
        return
    low, high = int(found.indptr[rows[0]]), int(found.indptr[rows[1]])
    if low == high:
        return
    parts = found.indptr[rows[0] : rows[1] + 1] - low, found.column[low:high], found.value[low:high]
    there = [device.upload(np.ascontiguousarray(part)) for part in parts]
    device.kernel("same_spin", "scatter_rows")(
        matrix.shape[0], _THREADS, (matrix, *there, np.int64(first_column), np.int64(matrix.shape[1]))
    )
    device.synchronize()  # the uploaded arrays end here


def without(found: SparseRows, left_out: NDArray[np.bool_]) -> SparseRows:
    """The same sparse rows, some of them empty."""
    if not left_out.any():
        return found
    counts = np.diff(found.indptr)
    kept = np.repeat(~left_out, counts)
    indptr = np.concatenate([[0], np.cumsum(counts * ~left_out)]).astype(np.int64)
    return SparseRows(indptr, found.column[kept], found.value[kept])


def _singles_of(singles: BetaSingles, number: int, value: NDArray[np.float64]) -> tuple[SparseRows, RowRange]:
    """The singles of one list as a sparse matrix, and its rows there."""
    rows = int(singles.matrix_row[number]), int(singles.matrix_row[number + 1])
    return SparseRows(singles.indptr, singles.column, value), rows
