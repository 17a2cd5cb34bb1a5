"""The sums of density matrices at the speed of the machine: fast twins of `slow.density_kernels`, same arguments.

They are sigma's products turned round. Where sigma multiplies a packed matrix G of gathered ket rows by a sparse
matrix, the density takes inner products of its rows with those of gathered bra rows, at the places where the sparse
matrix has elements (`dot_simd`). Work is divided into parts of equal cost; no two threads write to the same place.
"""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.backends.cpu.dot_simd import dot_row_table, dot_row_value
from sqd_mpi.backends.cpu.simd import MAX_WIDTH, gather_tile, prefetch_lanes
from sqd_mpi.backends.cpu.vector_kernels import LANES, _fill_kets, _gather, _width

# Doubles of G that stay in the second-level cache, and in all threads' shared cache.
_MIXED_TILE = 44_000
_SHARED_TILE = 60_000


@jit
def _aligned(size):
    """A new (size,) float64 array that starts on a cache line."""
    flat = np.empty(size + 8)
    first = (-(flat.ctypes.data // 8)) % 8
    return flat[first : first + size]


@jit
def _keep(*arrays):
    """Stands where arrays may end whose addresses were used; numba frees an array after its last use by name."""


# --- opposite spin ---------------------------------------------------------------------------------------------------


@parallel_jit
def _pack_entries(beta, n_directed, start, entries):
    """Sparse rows as (column, place in the table): 2 rs + (1 if eta < 0) for singles, 2 n_directed + J for J' = J."""
    matrix_row, _, indptr, column, orbital_pair, sign, matrix_diagonal, _ = beta
    for matrix in range(matrix_diagonal.size):
        first = matrix_row[matrix]
        for j in numba.prange(matrix_row[matrix + 1] - first):
            at = start[first + j]
            for m in range(indptr[first + j], indptr[first + j + 1]):
                place = 2 * np.int64(orbital_pair[m]) + (1 if sign[m] < 0 else 0)
                entries[at] = np.int64(column[m]) | (place << 32)
                at += 1
            if matrix_diagonal[matrix]:
                entries[at] = j | ((2 * n_directed + j) << 32)


@jit
def _flush(table, n_directed, pair_column, diagonal, first_row, n_columns, occupied, out):
    """Add a table to a row of the result and set it to zero."""
    for rs in range(n_directed):
        out[pair_column[rs]] += table[2 * rs] - table[2 * rs + 1]
    table[: 2 * n_directed] = 0.0
    if diagonal:
        for j in range(n_columns):
            value = table[2 * n_directed + j]
            for r in occupied[first_row + j]:
                out[pair_column[2 * r]] += value
        table[2 * n_directed : 2 * n_directed + n_columns] = 0.0


@jit
def _opposite_spin_part(
    first_group, last_group, bra, ket, bra_offset, ket_offset, groups, beta, start, entries, pair_column, out, edges
):  # fmt: skip
    """The groups of one thread; rows of `out` that neighbours may share go to `edges` (2, norb**2) instead."""
    if first_group == last_group:
        return
    _, group_start, group_row, group_matrix, pair_bra, pair_ket, pair_sign = groups
    matrix_row, matrix_n_ket, _, _, _, _, matrix_diagonal, occupied = beta

    # Room for the table of a group, G, eight columns of bra rows, and the lanes of a chunk.
    n_directed = pair_column.size
    most = np.int64(8)
    for matrix in range(matrix_n_ket.size):
        most = max(most, matrix_n_ket[matrix], matrix_row[matrix + 1] - matrix_row[matrix])
    table = _aligned(2 * n_directed + most)
    table[:] = 0.0
    zero_row = _aligned(most + 8)
    zero_row[:] = 0.0
    zero = zero_row.ctypes.data
    packed_array = _aligned(max(_MIXED_TILE, 16 * (most + 8)) + 64 * MAX_WIDTH)
    tile_array = _aligned(64 * MAX_WIDTH)
    signs_array = _aligned(LANES)
    bras_array = np.empty(LANES, np.int64)
    kets_array = np.empty(LANES, np.int64)
    packed, tile, signs = packed_array.ctypes.data, tile_array.ctypes.data, signs_array.ctypes.data
    bras, kets = bras_array.ctypes.data, kets_array.ctypes.data

    first_out, last_out = group_row[first_group], group_row[last_group - 1]
    entry_data, table_data = entries.ctypes.data, table.ctypes.data
    for group in range(first_group, last_group):
        matrix = group_matrix[group]
        first_row = matrix_row[matrix]
        n_columns, n_ket = matrix_row[matrix + 1] - first_row, matrix_n_ket[matrix]
        widest = 8 * _width(n_ket, _MIXED_TILE, MAX_WIDTH)
        k = group_start[group]

        # Chunk after chunk: gather, and add inner products to the table.
        while k < group_start[group + 1]:
            count = min(widest, group_start[group + 1] - k)
            w = (count + 7) // 8
            _fill_kets(ket, k, count, ket.ctypes.data, ket_offset, pair_ket, zero, kets_array)
            _fill_kets(bra, k, count, bra.ctypes.data, bra_offset, pair_bra, zero, bras_array)
            for lane in range(8 * w):
                signs_array[lane] = pair_sign[k + lane] if lane < count else 0.0
            _gather(ket, w, kets, n_ket, packed)
            for j in range(0, n_columns, 8):
                for v in range(w):
                    gather_tile(bra, bras + 64 * v, 8 * j, n_columns - j, tile + 64 * v, 64 * w)
                    if j + 8 < n_columns:
                        prefetch_lanes(bra, bras + 64 * v, 8 * (j + 8), False)
                for i in range(min(8, n_columns - j)):
                    row = first_row + j + i
                    dot_row_table(
                        w, start[row], start[row + 1], entry_data, tile + 64 * w * i, signs, packed, table_data
                    )
            k += count

        # The table is full where the next group has another row of the result or another matrix.
        last_of_table = group + 1 == last_group or group_row[group + 1] != group_row[group]
        if last_of_table or group_matrix[group + 1] != matrix:
            diagonal = matrix_diagonal[matrix] != 0
            if group_row[group] == first_out:
                target = edges[0]
            elif group_row[group] == last_out:
                target = edges[1]
            else:
                target = out[group_row[group]]
            _flush(table, n_directed, pair_column, diagonal, first_row, n_columns, occupied, target)
    _keep(zero_row, packed_array, tile_array, signs_array, bras_array, kets_array)


@parallel_jit
def _opposite_spin(bra, ket, bra_offset, ket_offset, groups, beta, start, entries, pair_column, out, edges):
    for thread in numba.prange(groups.thread_group.size - 1):
        _opposite_spin_part(
            groups.thread_group[thread], groups.thread_group[thread + 1], bra, ket, bra_offset, ket_offset, groups,
            beta, start, entries, pair_column, out, edges[thread],
        )  # fmt: skip


def opposite_spin(bra, ket, bra_offset, ket_offset, groups, beta, pair_column, out):
    """Add <E^alpha_pq E^beta_rs> (arguments: `slow.density_kernels.opposite_spin`).

    A chunk is up to 8 w pairs of one group: its ket rows are gathered into G, its bra rows eight columns at a time,
    and the inner products are added to a table of 2 n_directed + n_columns numbers, which goes to a row of the result
    when the group ends.
    """
    extra = np.repeat(beta.matrix_diagonal.astype(np.int64), np.diff(beta.matrix_row))
    start = np.zeros(len(beta.indptr), np.int64)
    np.cumsum(np.diff(beta.indptr) + extra, out=start[1:])
    entries = np.empty(int(start[-1]), np.int64)
    _pack_entries(beta, len(pair_column), start, entries)
    edges = np.zeros((len(groups.thread_group) - 1, 2, out.shape[1]))
    _opposite_spin(bra, ket, bra_offset, ket_offset, groups, beta, start, entries, pair_column, out, edges)
    for thread, (first, last) in enumerate(pairwise(groups.thread_group)):
        if last > first:
            out[groups.pair[first]] += edges[thread, 0]
            out[groups.pair[last - 1]] += edges[thread, 1]


# --- same spin -------------------------------------------------------------------------------------------------------


@parallel_jit
def _products_of_tiles(w, left, right, indptr, column, value, cuts):
    """value[k] += row of left . row column[k] of right; rows of w vectors, threads own rows between `cuts`."""
    left_data, right_data = left.ctypes.data, right.ctypes.data
    column_data, value_data = column.ctypes.data, value.ctypes.data
    for part in numba.prange(cuts.size - 1):
        for i in range(cuts[part], cuts[part + 1]):
            dot_row_value(w, indptr[i], indptr[i + 1], column_data, left_data + 64 * w * i, right_data, value_data)


@parallel_jit
def _pack_columns(vector, offset, first, count, width, out):
    """out[row, lane] = vector[offset[row] + first + lane] for lane < count, else 0."""
    for row in numba.prange(offset.size):
        for lane in range(count):
            out[row * width + lane] = vector[offset[row] + first + lane]
        for lane in range(count, width):
            out[row * width + lane] = 0.0


@parallel_jit
def _pack_rows(vector, offset, first, count, n_columns, w, zero_row, out):
    """out[column, lane] = vector[offset[first + lane] + column] for lane < count, else 0, by 8 x 8 transposes."""
    n_blocks = (n_columns + 7) // 8
    rows = np.empty(8 * w, np.int64)
    for lane in range(8 * w):
        rows[lane] = vector.ctypes.data + 8 * offset[first + lane] if lane < count else zero_row.ctypes.data
    for block in numba.prange(n_blocks):
        j = 8 * block
        for v in range(w):
            gather_tile(
                vector, rows.ctypes.data + 64 * v, 8 * j, n_columns - j, out.ctypes.data + 64 * (w * j + v), 64 * w
            )


def _cuts(indptr):
    """Boundaries of rows with nearly equal numbers of entries, one part per thread."""
    n_threads = numba.get_num_threads()
    targets = indptr[-1] * np.arange(1, n_threads) // n_threads
    middle = np.minimum(np.searchsorted(indptr, targets), len(indptr) - 1)
    return np.concatenate([[0], middle, [len(indptr) - 1]]).astype(np.int64)


def alpha_products(bra, ket, bra_offset, ket_offset, length, patterns):
    """Inner products of rows (arguments: `slow.density_kernels.alpha_products`), in tiles of 8 w columns."""
    if length == 0 or not any(len(value) for _, _, value in patterns):
        return
    w = int(_width(len(ket_offset), _SHARED_TILE, MAX_WIDTH))
    right = _aligned(8 * w * len(ket_offset))
    same = bra is ket and np.array_equal(bra_offset, ket_offset)
    left = right if same else _aligned(8 * w * len(bra_offset))
    cuts = [_cuts(indptr) for indptr, _, _ in patterns]
    for first in range(0, length, 8 * w):
        count = min(8 * w, length - first)
        _pack_columns(ket, ket_offset, first, count, 8 * w, right)
        if not same:
            _pack_columns(bra, bra_offset, first, count, 8 * w, left)
        for (indptr, column, value), cut in zip(patterns, cuts, strict=True):
            _products_of_tiles(w, left, right, indptr, column, value, cut)


def beta_products(bra, ket, bra_offset, ket_offset, bra_column, n_ket, patterns):
    """Inner products of columns (arguments: `slow.density_kernels.beta_products`), in tiles of 8 w alpha rows."""
    if len(bra_offset) == 0 or not any(len(value) for _, _, value in patterns):
        return
    w = int(_width(n_ket, _SHARED_TILE, MAX_WIDTH))
    n_bra = int(bra_column[-1]) + 1
    right = _aligned(8 * w * ((n_ket + 15) // 8 * 8))
    same = bra is ket and n_bra <= n_ket and np.array_equal(bra_offset, ket_offset)
    whole = right if same else _aligned(8 * w * ((n_bra + 15) // 8 * 8))
    first_column, last_column = int(bra_column[0]), n_bra
    consecutive = last_column - first_column == len(bra_column)
    zero_row = np.zeros(max(n_bra, n_ket) + 8)
    cuts = [_cuts(indptr) for indptr, _, _ in patterns]
    for first in range(0, len(bra_offset), 8 * w):
        count = min(8 * w, len(bra_offset) - first)
        _pack_rows(ket, ket_offset, first, count, n_ket, w, zero_row, right)
        if not same:
            _pack_rows(bra, bra_offset, first, count, n_bra, w, zero_row, whole)
        if consecutive:
            left = whole[8 * w * first_column : 8 * w * last_column]
        else:
            left = whole[: len(whole) // (8 * w) * (8 * w)].reshape(-1, 8 * w)[bra_column].reshape(-1)
        for (indptr, column, value), cut in zip(patterns, cuts, strict=True):
            _products_of_tiles(w, left, right, indptr, column, value, cut)
