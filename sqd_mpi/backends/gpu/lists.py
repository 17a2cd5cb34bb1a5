"""The connection lists of a rank in the order in which the kernels of sigma.cu read them, as host arrays.

Beta lists are sliced ELL: 32 columns stand side by side, so that neighbouring threads read neighbouring entries, and
columns are sorted by length inside windows, so that those side by side are equally long. Alpha lists are rows, each
sorted by the label of the orbital pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import IntArray
from sqd_mpi.backends.cpu.records import BetaSingles, SparseRows
from sqd_mpi.backends.gpu import list_kernels
from sqd_mpi.problem.excitations import Singles

SLICE = 32  # columns of a slice
WINDOW = 256  # columns are sorted by length inside windows of so many; as in sigma.cu
WIDEST_TILE = 2**16  # ket columns that an entry can tell apart
MOST_PAIRS = 2**14  # orbital pairs that an entry can tell apart
# Numbers of a list, in the order of sigma.cu.
FIRST_COUNT, FIRST_SLICE, N_COLUMNS, N_TILES, N_KET, FIRST_USED, N_USED, FIRST_OCCUPIED, FIRST_COLUMN = range(9)


@dataclass(frozen=True, eq=False)
class SlicedRows:
    """Where the entries of sparse rows stand: cut into tiles of ket columns, 32 rows side by side."""

    table: IntArray = field(repr=False)
    """(n_lists, 9) int64, numbers of every list."""
    order: NDArray[np.int32] = field(repr=False)
    """(sum of n_columns,) int32 column at every position of every list."""
    counts: NDArray[np.int32] = field(repr=False)
    """(sum of n_tiles n_columns,) int32 entries of the column at every position in every tile."""
    slice_start: IntArray = field(repr=False)
    """int64, first entry of every slice of every tile of every list; the last is the total."""
    where: IntArray = field(repr=False)
    """(nnz,) int64, place of every entry."""
    tile_width: int
    """Ket columns of a tile."""

    @property
    def size(self) -> int:
        """Number of entries, empty places included."""
        return int(self.slice_start[-1])


@dataclass(frozen=True, eq=False)
class BetaLists:
    """Beta singles of one shift db for the kernels."""

    sliced: SlicedRows = field(repr=False)
    """Where the entries stand; list q = y n_labels + d."""
    entries: NDArray[np.uint32] = field(repr=False)
    """(size,) uint32: sign, direction and number of the orbital pair in `used`, ket column in its tile."""
    used: NDArray[np.int32] = field(repr=False)
    """(sum of n_used,) int32 orbital pairs in use, list after list."""
    occupied: NDArray[np.int32] = field(repr=False)
    """int32 numbers in `used` of the occupied pairs rr, (n_electrons, n_columns) of every list with a diagonal."""
    n_electrons: int
    """Number of beta electrons."""

    @property
    def table(self) -> IntArray:
        """(n_lists, 9) numbers of every list."""
        return self.sliced.table


@dataclass(frozen=True, eq=False)
class AlphaLists:
    """Alpha singles from a range of bra rows to one ket block, sorted by row and label of the orbital pair."""

    start: IntArray = field(repr=False)
    """(n_rows n_labels + 1,) int64 first single of every row and label."""
    ket: NDArray[np.int32] = field(repr=False)
    """(n,) int32 ket row."""
    pair: NDArray[np.int32] = field(repr=False)
    """(n,) int32 directed orbital pair."""
    sign: NDArray[np.int8] = field(repr=False)
    """(n,) int8 sign."""

    def counts(self, n_labels: int) -> IntArray:
        """(n_rows, n_labels) number of singles."""
        return np.diff(self.start).reshape(-1, n_labels)


def used_pairs(beta: BetaSingles, n_pairs: int) -> tuple[NDArray[np.int32], IntArray, NDArray[np.int32]]:
    """Orbital pairs that every list of beta singles uses, its diagonal included.

    Returns:
        the pairs list after list; (n_lists + 1,) first of every list; (n_lists, n_pairs) number of each, or -1.
    """
    n_lists = len(beta.matrix_n_ket)
    present = np.zeros((n_lists, n_pairs), np.bool_)
    list_kernels.mark_used(beta.matrix_row, beta.indptr, beta.orbital_pair, present)
    for q in np.flatnonzero(beta.matrix_diagonal):
        present[q, np.unique(beta.occupied_pair[beta.matrix_row[q] : beta.matrix_row[q + 1]])] = True
    number = np.where(present, np.cumsum(present, axis=1) - 1, -1).astype(np.int32)
    start = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    return np.nonzero(present)[1].astype(np.int32), start, number


def sliced_rows(
    matrix_row: IntArray, matrix_n_ket: IntArray, indptr: IntArray, column: NDArray[np.int32], tile_width: int
) -> SlicedRows:
    """Places of the entries of sparse rows.

    Args:
        matrix_row: (n_lists + 1,) first row of every list; matrix_n_ket: (n_lists,) its number of ket columns.
        indptr: (n_rows + 1,); column: (nnz,) ket column inside the list.
        tile_width: ket columns of a tile.
    """
    n_lists = len(matrix_n_ket)
    table = np.zeros((n_lists, 9), np.int64)
    table[:, FIRST_OCCUPIED] = -1
    table[:, N_COLUMNS] = np.diff(matrix_row)
    table[:, N_TILES] = np.maximum(-(-matrix_n_ket // tile_width), 1)
    table[:, N_KET] = matrix_n_ket
    table[:, FIRST_COLUMN] = matrix_row[:-1]
    n_slices = -(-table[:, N_COLUMNS] // SLICE)
    table[1:, FIRST_COUNT] = np.cumsum(table[:, N_TILES] * table[:, N_COLUMNS])[:-1]
    table[1:, FIRST_SLICE] = np.cumsum(table[:, N_TILES] * n_slices)[:-1]
    counts = np.zeros(int((table[:, N_TILES] * table[:, N_COLUMNS]).sum()), np.int32)
    depth = np.zeros(int((table[:, N_TILES] * n_slices).sum()) + 1, np.int64)
    row_list = _list_of_rows(matrix_row)
    order, position = _order_columns(matrix_row, row_list, np.diff(indptr))
    list_kernels.count_sliced(row_list, indptr, column, table, tile_width, position, counts)
    list_kernels.depth_of_slices(table, counts, depth)
    slice_start = np.cumsum(depth)
    where = np.empty(column.size, np.int64)
    list_kernels.place_sliced(row_list, indptr, column, table, tile_width, position, slice_start, where)
    return SlicedRows(table, order, counts, slice_start, where, tile_width)


def _list_of_rows(matrix_row: IntArray) -> NDArray[np.int32]:
    """(n_rows,) list of every row."""
    return np.repeat(np.arange(len(matrix_row) - 1, dtype=np.int32), np.diff(matrix_row))


def _order_columns(
    matrix_row: IntArray, row_list: NDArray[np.int32], n_entries: IntArray
) -> tuple[NDArray[np.int32], IntArray]:
    """Columns of every window of a list by falling length, as columns and as their positions; both inside the list."""
    first = matrix_row[row_list]
    rows = np.arange(len(row_list), dtype=np.int64)
    window = (rows - first) // WINDOW
    sorted_rows = np.lexsort((-n_entries, window, row_list))  # a stable sort
    position = np.empty(len(rows), np.int64)
    position[sorted_rows] = rows - first
    return (sorted_rows - first).astype(np.int32), position


def placed_values(where: IntArray, value: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """(size,) values in the places of their entries, 0 in empty ones."""
    out = np.zeros(size)
    list_kernels.put_values(where, value, out)
    return out


def beta_lists(beta: BetaSingles, n_pairs: int, tile_width: int) -> BetaLists:
    """The singles of one shift db for the kernels, with ket columns cut into tiles."""
    used, used_start, number = used_pairs(beta, n_pairs)
    sliced = sliced_rows(beta.matrix_row, beta.matrix_n_ket, beta.indptr, beta.column, tile_width)
    table = sliced.table
    table[:, FIRST_USED], table[:, N_USED] = used_start[:-1], np.diff(used_start)
    entries = np.zeros(sliced.size, np.uint32)
    list_kernels.pack(
        _list_of_rows(beta.matrix_row), beta.indptr, beta.column, beta.orbital_pair, beta.sign, number, tile_width,
        sliced.where, entries,
    )  # fmt: skip
    occupied, first = [np.empty(0, np.int32)], 0
    for q in np.flatnonzero(beta.matrix_diagonal):
        rows = beta.occupied_pair[beta.matrix_row[q] : beta.matrix_row[q + 1]]
        rows = rows[sliced.order[beta.matrix_row[q] : beta.matrix_row[q + 1]]]
        occupied.append(number[q][rows].T.reshape(-1))
        table[q, FIRST_OCCUPIED] = first
        first += rows.size
    return BetaLists(sliced, entries, used, np.concatenate(occupied), beta.occupied_pair.shape[1])


def double_lists(
    doubles: SparseRows, column_start: IntArray, n_ket: IntArray, tile_width: int
) -> tuple[SlicedRows, NDArray[np.uint16], NDArray[np.float64]]:
    """The doubles of H_beta for the kernels: where they stand, ket column in its tile, and value.

    Args:
        column_start: (n_labels + 1,) first row of every label; n_ket: (n_labels,) ket columns of every label.
    """
    sliced = sliced_rows(column_start, n_ket, doubles.indptr, doubles.column, tile_width)
    column = np.zeros(sliced.size, np.uint16)
    value = np.zeros(sliced.size)
    list_kernels.put_doubles(sliced.where, doubles.column, doubles.value, tile_width, column, value)
    return sliced, column, value


def alpha_lists(
    singles: Singles,
    rows: tuple[int, int],
    in_block: NDArray[np.bool_],
    ket_row: NDArray[np.int32],
    pair_labels: IntArray,
    n_labels: int,
) -> AlphaLists:
    """Singles from a range of bra rows to the strings of one ket block.

    Args:
        singles: singles from every bra row to all strings.
        rows: first and last (excluded) bra row.
        in_block: (n_strings,) whether a string is in the ket block; ket_row: (n_strings,) its row there.
        pair_labels: (n_pairs,) label of every orbital pair.
    """
    low, high = rows
    indptr = singles.indptr[low : high + 1]
    counts = np.zeros((high - low) * n_labels + 1, np.int64)
    list_kernels.count_alpha(indptr, singles.ket, singles.pair, in_block, pair_labels, n_labels, counts)
    start = np.cumsum(counts)
    n = int(start[-1])
    ket, pair, sign = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int8)
    list_kernels.sort_alpha(
        indptr, singles.ket, singles.pair, singles.sign, in_block, ket_row, pair_labels, n_labels, start.copy(),
        ket, pair, sign,
    )  # fmt: skip
    return AlphaLists(start, ket, pair, sign)


def stretches(
    cost: NDArray[np.float64], stop: IntArray, width: int, first_row: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Thread blocks (row, first column) that cover the first `stop` columns of rows of cost > 0, heavy rows first."""
    wanted = np.flatnonzero((cost > 0) & (stop > 0))
    wanted = wanted[np.argsort(-(cost[wanted] * np.minimum(stop[wanted], width)), kind="stable")]
    n = -(-stop[wanted] // width)
    rows = np.repeat(wanted, n)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(n) - n, n)
    return (first_row + rows).astype(np.int32), (number * width).astype(np.int32)


def row_groups(
    label_start: IntArray, stop: IntArray, rows: tuple[int, int], size: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Thread blocks (first row, number of rows, first column) of up to `size` rows of one label, long rows first."""
    first, n_rows = _groups_of_rows(label_start, rows, size)
    longest = np.zeros(len(first), np.int64)
    for k in range(size):
        there = n_rows > k
        longest[there] = np.maximum(longest[there], stop[first[there] + k])
    n = -(-longest // width)
    group = np.repeat(np.arange(len(first)), n)
    column = (np.arange(len(group)) - np.repeat(np.cumsum(n) - n, n)) * width
    order = np.argsort(-stop[first[group]], kind="stable")
    chosen = group[order]
    return first[chosen].astype(np.int32), n_rows[chosen].astype(np.int32), column[order].astype(np.int32)


def _groups_of_rows(label_start: IntArray, rows: tuple[int, int], size: int) -> tuple[IntArray, IntArray]:
    """First row and number of rows of all groups of up to `size` rows of one label, in their order."""
    bounds = np.clip(label_start, *rows)
    n = -(-np.diff(bounds) // size)
    number = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
    first = np.repeat(bounds[:-1], n) + size * number
    return first, np.minimum(size, np.repeat(bounds[1:], n) - first)
