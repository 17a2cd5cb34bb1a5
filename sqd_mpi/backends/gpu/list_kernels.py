"""Loops that put connection lists into the order of the GPU kernels, on all threads (layout of the lists: `lists`).

Rows are shared out among threads and every place is written by the thread of its row, so that results do not depend on
the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np

from sqd_mpi._jit import parallel_jit


@parallel_jit
def mark_used(matrix_row, indptr, pair, present):
    """present[q, pq] = whether list q uses the orbital pair pq."""
    for q in numba.prange(present.shape[0]):
        for m in range(indptr[matrix_row[q]], indptr[matrix_row[q + 1]]):
            present[q, pair[m] >> 1] = True


@parallel_jit
def count_sliced(row_list, indptr, column, table, tile_width, position, counts):
    """Entries of every row in every tile of its list, (n_tiles, n_columns) for each list one after the other."""
    for row in numba.prange(row_list.shape[0]):
        q = row_list[row]
        for m in range(indptr[row], indptr[row + 1]):
            counts[table[q, 0] + column[m] // tile_width * table[q, 2] + position[row]] += 1


@parallel_jit
def depth_of_slices(table, counts, depth):
    """depth[1 + slice] = places of a slice: 32 times its longest column."""
    for q in numba.prange(table.shape[0]):
        n_columns = table[q, 2]
        n_slices = (n_columns + 31) // 32
        for tile in range(table[q, 3]):
            for j in range(n_columns):
                at = table[q, 1] + tile * n_slices + j // 32 + 1
                depth[at] = max(depth[at], 32 * counts[table[q, 0] + tile * n_columns + j])


@parallel_jit
def place_sliced(row_list, indptr, column, table, tile_width, position, slice_start, where):
    """where[m] = place of entry m; entries of a row in a tile follow each other at a distance of 32."""
    for row in numba.prange(row_list.shape[0]):
        q, at = row_list[row], position[row]
        n_slices = (table[q, 2] + 31) // 32
        done = np.zeros(table[q, 3], np.int64)
        for m in range(indptr[row], indptr[row + 1]):
            tile = column[m] // tile_width
            where[m] = slice_start[table[q, 1] + tile * n_slices + at // 32] + 32 * done[tile] + at % 32
            done[tile] += 1


@parallel_jit
def pack(row_list, indptr, column, pair, sign, number, tile_width, where, entries):
    """Put sign, direction and number of the orbital pair, and the ket column of every single into its place."""
    for row in numba.prange(row_list.shape[0]):
        q = row_list[row]
        for m in range(indptr[row], indptr[row + 1]):
            directed = 2 * np.int64(number[q, pair[m] >> 1]) + (pair[m] & 1)
            negative = np.int64(1) if sign[m] < 0 else np.int64(0)
            entries[where[m]] = np.uint32((negative << 31) | (directed << 16) | (column[m] % tile_width))


@parallel_jit
def put_doubles(where, column, value, tile_width, out_column, out_value):
    """Put ket column in its tile and value of every double into its place."""
    for m in numba.prange(where.shape[0]):
        out_column[where[m]] = np.uint16(column[m] % tile_width)
        out_value[where[m]] = value[m]


@parallel_jit
def put_values(where, value, out):
    """out[where] = value."""
    for m in numba.prange(where.shape[0]):
        out[where[m]] = value[m]


@parallel_jit
def count_alpha(indptr, ket, pair, in_block, pair_labels, n_labels, counts):
    """counts[1 + row n_labels + d] = singles of a row into the block, by label of the orbital pair."""
    for row in numba.prange(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            if in_block[ket[k]]:
                counts[row * n_labels + pair_labels[pair[k] >> 1] + 1] += 1


@parallel_jit
def sort_alpha(
    indptr, ket, pair, sign, in_block, ket_row, pair_labels, n_labels, position, out_ket, out_pair, out_sign
):
    """Put the singles into the order (row, label of the orbital pair); `position` is used up."""
    for row in numba.prange(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            if not in_block[ket[k]]:
                continue
            key = row * n_labels + pair_labels[pair[k] >> 1]
            target = position[key]
            position[key] += 1
            out_ket[target] = ket_row[ket[k]]
            out_pair[target] = pair[k]
            out_sign[target] = sign[k]
