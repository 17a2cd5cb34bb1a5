"""The three sums of sigma = H C at the speed of the machine: fast twins of `plain_kernels`, same arguments."""

from __future__ import annotations

import numba
import numpy as np

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.backends.simd import (
    MAX_WIDTH,
    add_vector,
    copy_vector,
    field_row,
    gather_tile,
    prefetch_lanes,
    scatter_tile,
    table_dot,
    table_row,
    value_row,
)

TILE_DOUBLES = 62_500
CHUNK_LANES = 8 * MAX_WIDTH


def _up8(n):
    return (n + 7) // 8 * 8


def scratch_size(max_rows: int, max_columns: int, max_block_entries: int, n_pair_b: int) -> int:
    columns = _up8(max_columns) + 8
    opposite = (
        _up8(max_block_entries + columns)  # entries
        + _up8(4 * n_pair_b + columns)  # table
        + _up8(n_pair_b + 1)  # used pairs
        + 2 * columns  # zero row and sink row
        + 6 * CHUNK_LANES  # addresses and signs
        + 8 * CHUNK_LANES  # tile of results
    )
    matrix = max(TILE_DOUBLES, 16 * columns) + 8 * CHUNK_LANES
    beta = _up8(max_block_entries) + CHUNK_LANES * (2 * _up8(n_pair_b) + 8)
    alpha = max(TILE_DOUBLES, 16 * max_rows)
    return max(opposite + matrix + beta, alpha + CHUNK_LANES)


@jit
def _width(n_rows):
    """Vectors in a row of the packed matrix such that it stays in the second-level cache."""
    return min(max(TILE_DOUBLES // (8 * max(n_rows, 1)), 2), MAX_WIDTH)


@jit
def _take(scratch, start, size):
    return scratch[start : start + size], start + (size + 7) // 8 * 8


@jit
def _block_entries(
    first_row, n_columns, indptr, column, orbital_pair, sign, with_diagonal, swap, n_pair, entries, used
):
    """Pack the sparse rows of a block into (column, place in the table) and list the orbital pairs that it uses.

    The table of one alpha pair holds V and -V of every beta pair, both directions where `swap` tells them apart, then
    the diagonal of each row. Returns the number of pairs used.
    """
    directed = swap != 0.0
    used[:n_pair] = 0
    diagonal = (4 if directed else 2) * n_pair
    k = 0
    for j in range(n_columns):
        for m in range(indptr[first_row + j], indptr[first_row + j + 1]):
            pair = np.int64(orbital_pair[m])
            used[pair >> 1] = 1
            place = 2 * (pair if directed else pair >> 1) + (1 if sign[m] < 0 else 0)
            entries[k] = np.int64(column[m]) | (place << 32)
            k += 1
        if with_diagonal:
            entries[k] = j | ((diagonal + j) << 32)
            k += 1
    n_used = 0
    for pair in range(n_pair):
        if used[pair]:
            used[n_used] = pair
            n_used += 1
    return n_used


@jit
def _fill_table(pq, coupling, swap, used, n_used, with_diagonal, first_row, n_columns, occupied_pair, table):
    """Values of M_pq: both signs of every used coupling and the diagonal."""
    row = coupling[pq >> 1]
    if swap == 0.0:
        for u in range(n_used):
            rs = used[u]
            table[2 * rs] = row[rs]
            table[2 * rs + 1] = -row[rs]
        diagonal = 2 * row.size
    else:
        for u in range(n_used):
            rs = used[u]
            for direction in range(2):
                value = row[rs] - (swap if 2 * rs + direction == (pq ^ 1) else 0.0)
                table[4 * rs + 2 * direction] = value
                table[4 * rs + 2 * direction + 1] = -value
        diagonal = 4 * row.size
    if with_diagonal:
        for j in range(n_columns):
            total = 0.0
            for r in range(occupied_pair.shape[1]):
                total += row[occupied_pair[first_row + j, r]]
            table[diagonal + j] = total


@jit
def _fill_lanes(
    first, count, width, c, sigma, bra_offset, ket_offset, pair_bra, pair_ket, pair_sign, zero_row, sink_row, lanes
):
    """Addresses of the ket rows and bra rows and the signs of `count` pairs; the rest of the lanes is padding."""
    kets = lanes[0:CHUNK_LANES]
    bras = lanes[CHUNK_LANES : 2 * CHUNK_LANES]
    signs = lanes[2 * CHUNK_LANES : 3 * CHUNK_LANES].view(np.float64)
    for lane in range(count):
        k = first + lane
        kets[lane] = c + 8 * ket_offset[pair_ket[k]]
        bras[lane] = sigma + 8 * bra_offset[pair_bra[k]]
        signs[lane] = pair_sign[k]
    for lane in range(count, 8 * width):
        kets[lane] = zero_row
        bras[lane] = sink_row
        signs[lane] = 0.0


@jit
def _gather(width, kets, n_ket, matrix):
    """G[j, lane] = C[ket row of lane, j]."""
    stride = 64 * width
    for j in range(0, n_ket, 8):
        for v in range(width):
            gather_tile(kets + 64 * v, 8 * j, n_ket - j, matrix + j * stride + 64 * v, stride)


@jit
def _scatter(width, tile, bras, signs, j, count):
    for v in range(width):
        scatter_tile(tile + 64 * v, 64 * width, signs + 64 * v, bras + 64 * v, 8 * j, count)


@jit
def _chunk(remaining, width):
    """Pairs of a group in the next chunk."""
    return min(remaining, 8 * width)


@jit
def _opposite_spin_part(
    first_group, last_group, c, sigma, bra_offset, ket_offset, coupling, swap,
    group_start, group_pair, group_block, pair_bra, pair_ket, pair_sign,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, block_diagonal, occupied_pair, scratch,
):  # fmt: skip
    n_pair = coupling.shape[1]
    if first_group == last_group:
        return
    max_columns = 0
    max_entries = 0
    for block in range(block_n_ket.size):
        max_columns = max(max_columns, block_n_ket[block], block_row[block + 1] - block_row[block])
        max_entries = max(max_entries, indptr[block_row[block + 1]] - indptr[block_row[block]])
    entries_, at = _take(scratch, 0, max_entries + max_columns)
    entries = entries_.view(np.int64)
    table, at = _take(scratch, at, 4 * n_pair + max_columns)
    used_, at = _take(scratch, at, n_pair + 1)
    used = used_.view(np.int64)
    zero_row, at = _take(scratch, at, max_columns)
    sink_row, at = _take(scratch, at, max_columns)
    lanes_, at = _take(scratch, at, 6 * CHUNK_LANES)
    lanes = lanes_.view(np.int64)
    tile_, at = _take(scratch, at, 8 * CHUNK_LANES)
    zero_row[:] = 0.0
    sink_row[:] = 0.0
    zero = zero_row.ctypes.data
    sink = sink_row.ctypes.data
    tile = tile_.ctypes.data
    matrix = scratch.ctypes.data + 8 * at
    entry_address = entries_.ctypes.data
    table_address = table.ctypes.data
    c_address = c.ctypes.data
    sigma_address = sigma.ctypes.data
    lane_address = lanes_.ctypes.data

    block = np.int64(-1)
    n_used = 0
    n_ket = np.int64(0)
    first_row = np.int64(0)
    n_columns = np.int64(0)
    diagonal = 0
    buffer = 0
    group = first_group
    k = group_start[group]
    width = _width(block_n_ket[group_block[group]])
    count = _chunk(group_start[group + 1] - k, width)
    _fill_lanes(
        k, count, (count + 7) // 8, c_address, sigma_address, bra_offset, ket_offset, pair_bra, pair_ket, pair_sign,
        zero, sink, lanes,
    )  # fmt: skip
    new_group = True
    while True:
        # what follows
        next_group = group
        next_k = k + count
        if next_k == group_start[group + 1]:
            next_group = group + 1
        other = lanes[3 * CHUNK_LANES * (1 - buffer) : 3 * CHUNK_LANES * (2 - buffer)]
        next_count = np.int64(0)
        next_n_ket = np.int64(0)
        if next_group < last_group:
            next_n_ket = block_n_ket[group_block[next_group]]
            next_count = _chunk(group_start[next_group + 1] - next_k, _width(next_n_ket))
            _fill_lanes(
                next_k, next_count, (next_count + 7) // 8, c_address, sigma_address, bra_offset, ket_offset,
                pair_bra, pair_ket, pair_sign, zero, sink, other,
            )  # fmt: skip
        if new_group:
            if group_block[group] != block:
                block = np.int64(group_block[group])
                first_row = block_row[block]
                n_columns = block_row[block + 1] - first_row
                n_ket = block_n_ket[block]
                diagonal = 1 if block_diagonal[block] != 0 else 0
                n_used = _block_entries(
                    first_row, n_columns, indptr, column, orbital_pair, sign, diagonal != 0, swap, n_pair, entries, used
                )
            _fill_table(
                group_pair[group],
                coupling,
                swap,
                used,
                n_used,
                diagonal != 0,
                first_row,
                n_columns,
                occupied_pair,
                table,
            )
        w = (count + 7) // 8
        kets = lane_address + 24 * CHUNK_LANES * buffer
        bras = kets + 8 * CHUNK_LANES
        signs = bras + 8 * CHUNK_LANES
        next_kets = lane_address + 24 * CHUNK_LANES * (1 - buffer)
        next_w = (next_count + 7) // 8
        _gather(w, kets, n_ket, matrix)
        base = indptr[first_row]
        for j in range(0, n_columns, 8):
            n = min(8, n_columns - j)
            if j + 8 < n_columns:
                for v in range(w):
                    prefetch_lanes(bras + 64 * v, 8 * (j + 8), True)
            if j < next_n_ket:
                for v in range(next_w):
                    prefetch_lanes(next_kets + 64 * v, 8 * j, False)
            for i in range(j, j + n):
                table_row(
                    w, indptr[first_row + i] - base + diagonal * i, indptr[first_row + i + 1] - base + diagonal * (i + 1),
                    entry_address, table_address, matrix, tile + (i - j) * 64 * w,
                )  # fmt: skip
            _scatter(w, tile, bras, signs, j, n)
        if next_group == last_group:
            break
        new_group = next_group != group
        group = next_group
        k = next_k
        count = next_count
        buffer = 1 - buffer


@parallel_jit
def opposite_spin(
    c, sigma, bra_offset, ket_offset, coupling, swap,
    thread_group, group_start, group_pair, group_block, pair_bra, pair_ket, pair_sign,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, block_diagonal, occupied_pair, scratch,
):  # fmt: skip
    """Add the terms in which one alpha electron moves (arguments: `plain_kernels.opposite_spin`)."""
    for thread in numba.prange(thread_group.size - 1):
        _opposite_spin_part(
            thread_group[thread], thread_group[thread + 1], c, sigma, bra_offset, ket_offset, coupling, swap,
            group_start, group_pair, group_block, pair_bra, pair_ket, pair_sign,
            block_row, block_n_ket, indptr, column, orbital_pair, sign, block_diagonal, occupied_pair, scratch[thread],
        )  # fmt: skip


@jit
def _column_tile(first, last, row_bytes_width, c, ket_offset, first_ket, n_ket, matrix):
    """Pack columns first:last of the ket rows of a label."""
    w = row_bytes_width
    for r in range(n_ket):
        source = c + 8 * (ket_offset[first_ket + r] + first)
        for v in range(w):
            copy_vector(source + 64 * v, last - first - 8 * v, matrix + 64 * (w * r + v))


@jit
def _same_spin_alpha_part(
    thread, n_threads, c, sigma, bra_offset, ket_offset, row_length, label_bra_start, label_ket_start,
    indptr, column, value, scratch,
):  # fmt: skip
    total = scratch.ctypes.data
    matrix = total + 8 * CHUNK_LANES
    c_address = c.ctypes.data
    sigma_address = sigma.ctypes.data
    column_address = column.ctypes.data
    value_address = value.ctypes.data
    for label in range(label_bra_start.size - 1):
        first_bra = label_bra_start[label]
        last_bra = label_bra_start[label + 1]
        first_ket = label_ket_start[label]
        n_ket = label_ket_start[label + 1] - first_ket
        if first_bra == last_bra or n_ket == 0 or row_length[first_bra] == 0:
            continue
        n_entries = indptr[last_bra] - indptr[first_bra]
        if n_entries == 0:
            continue
        length = row_length[first_bra]
        width = min(_width(n_ket), (length + 7) // 8)
        n_tiles = (length + 8 * width - 1) // (8 * width)
        # the plane (tile, entry) is cut into equal parts
        lo = n_tiles * n_entries * thread // n_threads
        hi = n_tiles * n_entries * (thread + 1) // n_threads
        if lo == hi:
            continue
        for t in range(lo // n_entries, (hi + n_entries - 1) // n_entries):
            first = 8 * width * t
            last = min(first + 8 * width, length)
            w = (last - first + 7) // 8
            a = first_bra
            b = last_bra
            if t * n_entries < lo:
                a += np.searchsorted(indptr[first_bra : last_bra + 1], indptr[first_bra] + lo - t * n_entries)
            if (t + 1) * n_entries > hi:
                b = first_bra + np.searchsorted(
                    indptr[first_bra : last_bra + 1], indptr[first_bra] + hi - t * n_entries
                )
            if a >= b:
                continue
            _column_tile(first, last, w, c_address, ket_offset, first_ket, n_ket, matrix)
            for bra in range(a, b):
                for v in range(w):
                    copy_vector(matrix, 0, total + 64 * v)
                value_row(w, indptr[bra], indptr[bra + 1], column_address, value_address, matrix, first_ket, total)
                target = sigma_address + 8 * (bra_offset[bra] + first)
                for v in range(w):
                    add_vector(total + 64 * v, last - first - 8 * v, target + 64 * v)


@parallel_jit
def same_spin_alpha(
    c, sigma, bra_offset, ket_offset, row_length, label_bra_start, label_ket_start, indptr, column, value, scratch,
):  # fmt: skip
    """Add H_alpha from the left (arguments: `plain_kernels.same_spin_alpha`)."""
    n_threads = scratch.shape[0]
    for thread in numba.prange(n_threads):
        _same_spin_alpha_part(
            thread, n_threads, c, sigma, bra_offset, ket_offset, row_length, label_bra_start, label_ket_start,
            indptr, column, value, scratch[thread],
        )  # fmt: skip


@jit
def _field(first, count, width, coupling, row_occupied_pair, used, n_used, rows, lanes, out):
    """F[u, lane] = sum over p occupied in alpha string of lane of coupling[pair(p, p), used[u]]."""
    n = (n_used + 7) // 8 * 8
    for lane in range(8 * width):
        row = rows[lane * n : (lane + 1) * n]
        row[:] = 0.0
        lanes[lane] = row.ctypes.data
        if lane < count:
            for p in range(row_occupied_pair.shape[1]):
                terms = coupling[row_occupied_pair[first + lane, p]]
                for u in range(n_used):
                    row[u] += terms[used[u]]
    _gather(width, lanes.ctypes.data, n, out)


@jit
def _same_spin_beta_part(
    first_row_thread, last_row_thread, c, sigma, bra_offset, own_ket_offset, label_bra_start, label_block,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, s_value, d_block_row, d_indptr, d_column, d_value,
    coupling, row_occupied_pair, scratch,
):  # fmt: skip
    n_pair = coupling.shape[1]
    max_columns = 0
    max_entries = 0
    for block in range(block_n_ket.size):
        max_columns = max(max_columns, block_n_ket[block], block_row[block + 1] - block_row[block])
        max_entries = max(max_entries, indptr[block_row[block + 1]] - indptr[block_row[block]])
    entries_, at = _take(scratch, 0, max_entries)
    entries = entries_.view(np.int64)
    signs, at = _take(scratch, at, max_entries)
    used_, at = _take(scratch, at, n_pair + 1)
    used = used_.view(np.int64)
    zero_row, at = _take(scratch, at, max_columns)
    sink_row, at = _take(scratch, at, max_columns)
    lanes_, at = _take(scratch, at, 4 * CHUNK_LANES)
    lanes = lanes_.view(np.int64)
    tile_, at = _take(scratch, at, 8 * CHUNK_LANES)
    rows, at = _take(scratch, at, CHUNK_LANES * ((n_pair + 7) // 8 * 8))
    field_, at = _take(scratch, at, CHUNK_LANES * ((n_pair + 7) // 8 * 8))
    zero_row[:] = 0.0
    sink_row[:] = 0.0
    zero = zero_row.ctypes.data
    sink = sink_row.ctypes.data
    tile = tile_.ctypes.data
    field = field_.ctypes.data
    matrix = scratch.ctypes.data + 8 * at
    kets = lanes_.ctypes.data
    bras = kets + 8 * CHUNK_LANES
    ones = bras + 8 * CHUNK_LANES
    lanes_[2 * CHUNK_LANES : 3 * CHUNK_LANES] = 1.0
    for label in range(label_block.size):
        block = label_block[label]
        first = max(first_row_thread, label_bra_start[label])
        last = min(last_row_thread, label_bra_start[label + 1])
        if block < 0 or first >= last:
            continue
        first_row = block_row[block]
        n_columns = block_row[block + 1] - first_row
        n_ket = block_n_ket[block]
        base = indptr[first_row]
        # renumber pairs
        used[:n_pair] = 0
        for m in range(base, indptr[first_row + n_columns]):
            used[orbital_pair[m] >> 1] = 1
        n_used = 0
        number = rows.view(np.int64)
        for pair in range(n_pair):
            number[pair] = n_used
            if used[pair]:
                used[n_used] = pair
                n_used += 1
        for m in range(base, indptr[first_row + n_columns]):
            entries[m - base] = np.int64(column[m]) | (number[orbital_pair[m] >> 1] << 32)
            signs[m - base] = sign[m]
        width = _width(n_ket)
        d_row = d_block_row[label]
        for chunk in range(first, last, 8 * width):
            count = min(8 * width, last - chunk)
            w = (count + 7) // 8
            _field(chunk, count, w, coupling, row_occupied_pair, used, n_used, rows, lanes, field)
            for lane in range(8 * w):
                if lane < count:
                    lanes[lane] = c.ctypes.data + 8 * own_ket_offset[chunk + lane]
                    lanes[CHUNK_LANES + lane] = sigma.ctypes.data + 8 * bra_offset[chunk + lane]
                else:
                    lanes[lane] = zero
                    lanes[CHUNK_LANES + lane] = sink
            _gather(w, kets, n_ket, matrix)
            for j in range(0, n_columns, 8):
                n = min(8, n_columns - j)
                if j + 8 < n_columns:
                    for v in range(w):
                        prefetch_lanes(bras + 64 * v, 8 * (j + 8), True)
                tile_[: 64 * w] = 0.0
                for i in range(j, j + n):
                    out = tile + (i - j) * 64 * w
                    value_row(
                        w,
                        d_indptr[d_row + i],
                        d_indptr[d_row + i + 1],
                        d_column.ctypes.data,
                        d_value.ctypes.data,
                        matrix,
                        0,
                        out,
                    )
                    field_row(
                        w,
                        indptr[first_row + i] - base,
                        indptr[first_row + i + 1] - base,
                        entries_.ctypes.data,
                        s_value.ctypes.data + 8 * base,
                        signs.ctypes.data,
                        field,
                        matrix,
                        out,
                    )
                _scatter(w, tile, bras, ones, j, n)


@parallel_jit
def same_spin_beta(
    c, sigma, bra_offset, own_ket_offset, label_bra_start, label_block, thread_row,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, s_value, d_block_row, d_indptr, d_column, d_value,
    coupling, row_occupied_pair, scratch,
):  # fmt: skip
    """Add H_beta from the right and alpha diagonal x beta single (arguments: `plain_kernels.same_spin_beta`)."""
    for thread in numba.prange(thread_row.size - 1):
        _same_spin_beta_part(
            thread_row[thread], thread_row[thread + 1], c, sigma, bra_offset, own_ket_offset, label_bra_start,
            label_block, block_row, block_n_ket, indptr, column, orbital_pair, sign, s_value,
            d_block_row, d_indptr, d_column, d_value, coupling, row_occupied_pair, scratch[thread],
        )  # fmt: skip
