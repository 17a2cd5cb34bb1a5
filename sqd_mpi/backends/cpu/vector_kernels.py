"""The three sums of sigma = H C at the speed of the machine: fast twins of `slow.kernels`, same arguments.

Each kernel copies what it needs of C into a packed matrix G of rows of `width` vectors of a cache line, kept in the
second-level cache, and multiplies it by a sparse matrix: row of results = sum of coefficient times row of G, with the
results in registers (`simd`). Opposite spin and same-spin beta gather rows of C as lanes, by transposes of full cache
lines, since there the sparse matrix acts on columns; same-spin alpha packs a tile of columns as it stands.

C and sigma are both float64, eight to a vector, or both float32, sixteen (`lanes` below); lists and values of sparse
matrices are the same for both.

Limits of the inner loop on a Zen 4 core: DGEMM does 27 GFMA/s; one load per multiply-add allows 23 from the first-level
cache and 14 from the second. Rates below are executed multiply-adds per second on two threads of a core pair with a
DGEMM of 54 GFMA/s; inputs: h2o 1em4, n2 1em5 (1543 and 4041 strings) in one block without labels, in one sector of
four labels, and every fifth string of n2 1em5.

Tried without gain: scalars instead of vectors for groups of one to three pairs; asking for lines two or three steps
ahead; huge pages for G; one width for all. Sorting strings by shared singles gives 10 % where G is small (h2o 1em4).
"""

from __future__ import annotations

import numba
import numpy as np

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.backends.cpu.simd import (
    MAX_TWIN_WIDTH,
    MAX_WIDTH,
    copy_vector,
    field_row,
    gather_tile,
    prefetch_lanes,
    prefetch_line,
    scatter_tile,
    scatter_tile_ragged,
    store_vector,
    table_row,
    table_row_twin,
    value_row,
)

# Doubles of G such that it stays in a second-level cache of 1 MB beside what streams by: rows of C and sigma, and, for
# same spin, the entries of the sparse matrix. Measured best on Zen 4, flat within 20 %.
MIXED_TILE = 44_000
ALPHA_TILE = 57_000
BETA_TILE = 20_000
# Doubles of a strip of G that stays in a first-level cache of 32 KB, and entries that a sparse row must have in such
# a strip on average, so that going through G strip by strip pays.
NEAR_TILE = 1_500
NEAR_ENTRIES = 12
LANES = 16 * MAX_WIDTH  # most pairs in one chunk


def scratch_size(max_rows: int, max_columns: int, max_matrix_entries: int, n_pair_b: int) -> int:
    """Number of float64 of scratch that each thread needs (arguments: `slow.kernels.scratch_size`)."""
    columns = (max_columns + 31) // 16 * 16
    entries = (max_matrix_entries + 7) // 8 * 8 + columns
    pairs = (n_pair_b + 31) // 16 * 16
    packed = max(MIXED_TILE, BETA_TILE, 16 * columns) + 128 * MAX_WIDTH
    opposite = entries + 2 * (4 * pairs + columns) + pairs + 2 * columns + 10 * LANES + 16 * LANES
    most = max(BETA_TILE, 16 * columns) + 128 * MAX_WIDTH
    beta = 2 * entries + pairs + 2 * columns + 5 * LANES + 2 * LANES * pairs
    beta += most + 64 + columns * (most // NEAR_TILE + 3)
    alpha = LANES + ALPHA_TILE + 8 * LANES + (max_rows + 8) * (8 * MAX_WIDTH * max_rows // ALPHA_TILE + 3)
    return max(packed + max(opposite, beta), alpha)


@jit
def _lanes(like):
    """Elements of an array that make a vector."""
    return np.int64(64 // like.itemsize)


@jit
def _width(n_rows, tile, widest):
    """Vectors in a row of G such that its n_rows take at most `tile` doubles, but at least two."""
    return min(max(tile // (8 * max(n_rows, 1)), 2), widest)


@jit
def _take(scratch, start, size):
    """The next `size` doubles of scratch, and where the following begin (64-byte aligned)."""
    return scratch[start : start + size], start + (size + 7) // 8 * 8


@jit
def _largest_matrix(matrix_row, matrix_n_ket, indptr):
    """Most columns of a bra or ket row and most entries of a beta matrix."""
    columns = np.int64(1)
    entries = np.int64(1)
    for matrix in range(matrix_n_ket.size):
        columns = max(columns, matrix_n_ket[matrix], matrix_row[matrix + 1] - matrix_row[matrix])
        entries = max(entries, indptr[matrix_row[matrix + 1]] - indptr[matrix_row[matrix]])
    return columns, entries


@jit
def _gather(like, width, kets, n_ket, packed):
    """G[j, lane] = C[ket row of lane, j], by transposes of full cache lines; `like` is an array like C."""
    stride, lanes = 64 * width, _lanes(like)
    for j in range(0, n_ket, lanes):
        for v in range(width):
            gather_tile(
                like, kets + 8 * lanes * v, like.itemsize * j, n_ket - j, packed + j * stride + 64 * v, stride
            )  # fmt: skip


@jit
def _scatter(like, width, tile, bras, signs, stops, ends, lowest, j, count):
    """sigma[bra row of lane, j : j + count] += sign of lane * tile, by transposes; lanes end at their stops.

    ends: smallest and largest stop of every vector of lanes (`_ends_of_vectors`).
    lowest: smallest of the stops; the columns before it need no look at single vectors. Masked stores are slow, so of
        the others only the vectors whose own lanes end here take them.
    """
    shift, step = like.itemsize * j, 8 * _lanes(like)
    for v in range(width):
        source, place, factors = tile + 64 * v, bras + step * v, signs + step * v
        if j + count <= lowest:
            scatter_tile(like, source, 64 * width, factors, place, shift, count)
            continue
        if j + count <= ends[2 * v]:
            scatter_tile(like, source, 64 * width, factors, place, shift, count)
        elif j < ends[2 * v + 1]:
            scatter_tile_ragged(like, source, 64 * width, factors, place, shift, stops.ctypes.data + step * v, j)


@jit
def _ends_of_vectors(lanes, width, stops, ends):
    """ends[2 v], ends[2 v + 1] = smallest and largest stop of the lanes of vector v; returns those of all vectors."""
    lowest = stops[0]
    highest = stops[0]
    for v in range(width):
        least = stops[lanes * v]
        most = least
        for lane in range(lanes * v + 1, lanes * v + lanes):
            least = min(least, stops[lane])
            most = max(most, stops[lane])
        ends[2 * v] = least
        ends[2 * v + 1] = most
        lowest = min(lowest, least)
        highest = max(highest, most)
    return lowest, highest


# --- opposite spin ---------------------------------------------------------------------------------------------------


@jit
def _matrix_entries(
    first_row, n_columns, indptr, column, orbital_pair, sign, with_diagonal, swap, n_pair, entries, used
):
    """Pack the sparse rows of a beta matrix into (column, place in the table) and list the orbital pairs that it uses.

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
def _diagonal_values(row, occupied_pair, out, step):
    """out[step j] = sum over r of row[occupied_pair[j, r]], four j at a time."""
    n = occupied_pair.shape[0]
    j = 0
    while j < n:
        last = n - 1
        second, third, fourth = min(j + 1, last), min(j + 2, last), min(j + 3, last)
        a = b = c = d = 0.0
        for r in range(occupied_pair.shape[1]):
            a += row[np.uint64(occupied_pair[j, r])]
            b += row[np.uint64(occupied_pair[second, r])]
            c += row[np.uint64(occupied_pair[third, r])]
            d += row[np.uint64(occupied_pair[fourth, r])]
        out[step * fourth] = d
        out[step * third] = c
        out[step * second] = b
        out[step * j] = a
        j += 4


@jit
def _fill_table(
    pq, coupling, swap, used, n_used, with_diagonal, first_row, n_columns, occupied_pair, table, step, part
):
    """Values of M_pq at table[step * place + part]: both signs of every used coupling, and the diagonal."""
    row = coupling[pq >> 1]
    if swap == 0.0:
        for u in range(n_used):
            rs = used[u]
            table[step * 2 * rs + part] = row[rs]
            table[step * (2 * rs + 1) + part] = -row[rs]
    else:
        for u in range(2 * n_used):
            rs = 2 * used[u >> 1] + (u & 1)
            value = row[rs >> 1] - (swap if rs == (pq ^ 1) else 0.0)
            table[step * 2 * rs + part] = value
            table[step * (2 * rs + 1) + part] = -value
    if with_diagonal:
        first = (2 if swap == 0.0 else 4) * row.size
        _diagonal_values(row, occupied_pair[first_row : first_row + n_columns], table[step * first + part :], step)


@jit
def _is_twin(group, last_group, group_start, group_matrix, pair_ket):
    """Whether the next group has the same beta matrix and the same ket rows."""
    if group + 1 >= last_group or group_matrix[group] != group_matrix[group + 1]:
        return False
    first = group_start[group]
    second = group_start[group + 1]
    if group_start[group + 2] - second != second - first:
        return False
    for k in range(second - first):
        if pair_ket[first + k] != pair_ket[second + k]:
            return False
    return True


@jit
def _fill_lanes(
    like, first, count, sigma, bra_offset, row_stop, pair_bra, pair_sign, sink, bras, signs, stops, ends
):  # fmt: skip
    """Addresses, signs and ends of the bra rows of `count` pairs; lanes up to the end of the last
    vector write to the sink.

    Returns the numbers of columns that all lanes and that some lane want.
    """
    for lane in range(count):
        bra = pair_bra[first + lane]
        bras[lane] = sigma + like.itemsize * bra_offset[bra]
        signs[lane] = pair_sign[first + lane]
        stops[lane] = row_stop[bra]
    lanes = _lanes(like)
    width = (count + lanes - 1) // lanes
    for lane in range(count, lanes * width):
        bras[lane] = sink
        signs[lane] = 0.0
        stops[lane] = stops[count - 1]
    return _ends_of_vectors(lanes, width, stops, ends)


@jit
def _has_ended(ends, vector, twin, j):
    """Whether no lane of a vector (nor of that of its twin) wants column j or a later one."""
    return ends[2 * vector + 1] <= j and not (twin and ends[2 * MAX_WIDTH + 2 * vector + 1] > j)


@jit
def _chunk(lanes, remaining, n_ket, twin):
    """Pairs in the next chunk: vectors are dealt evenly to chunks of at most the width that suits the cache."""
    widest = _width(n_ket, MIXED_TILE, MAX_TWIN_WIDTH if twin else MAX_WIDTH)
    vectors = (remaining + lanes - 1) // lanes
    n_chunks = (vectors + widest - 1) // widest
    return min(remaining, (vectors + n_chunks - 1) // n_chunks * lanes)


@jit
def _opposite_spin_part(first_group, last_group, c, sigma, rows, groups, beta, coupling, swap, scratch):
    """The groups of one thread, chunk after chunk; the ket rows of the next chunk are prefetched during each."""
    if first_group == last_group:
        return
    bra_offset, row_stop, ket_offset = rows
    _, group_start, group_pair, group_matrix, pair_bra, pair_ket, pair_sign = groups
    matrix_row, matrix_n_ket, indptr, column, orbital_pair, sign, matrix_diagonal, occupied_pair = beta

    lanes, size = _lanes(c), c.itemsize

    # Places in the scratch: the beta matrix and the values of M_pq, the lanes of this and the next chunk, results, G.
    n_pair = coupling.shape[1]
    max_columns, max_entries = _largest_matrix(matrix_row, matrix_n_ket, indptr)
    entries, at = _take(scratch, 0, max_entries + max_columns)
    entries = entries.view(np.int64)
    table, at = _take(scratch, at, 2 * (4 * n_pair + max_columns))
    table = table.view(c.dtype)
    used, at = _take(scratch, at, n_pair + 1)
    used = used.view(np.int64)
    zero_row, at = _take(scratch, at, max_columns)
    sink_row, at = _take(scratch, at, max_columns)
    all_kets, at = _take(scratch, at, 2 * LANES)
    all_kets = all_kets.view(np.int64)
    all_bras, at = _take(scratch, at, 2 * LANES)
    all_bras = all_bras.view(np.int64)
    all_signs, at = _take(scratch, at, 2 * LANES)
    all_stops, at = _take(scratch, at, 2 * LANES)
    all_stops = all_stops.view(np.int64)
    all_ends, at = _take(scratch, at, 4 * MAX_WIDTH)
    all_ends = all_ends.view(np.int64)
    tiles, at = _take(scratch, at, 16 * LANES)
    packed = scratch.ctypes.data + 8 * at
    zero_row[:] = 0.0
    sink_row[:] = 0.0

    # The inner loops take addresses.
    zero = zero_row.ctypes.data
    sink = sink_row.ctypes.data
    tile = tiles.ctypes.data
    entry_data = entries.ctypes.data
    table_data = table.ctypes.data
    c_data = c.ctypes.data
    sigma_data = sigma.ctypes.data
    bras = all_bras.ctypes.data
    signs = all_signs.ctypes.data

    # The first chunk, which no earlier one asks for.
    matrix = np.int64(-1)
    n_used = 0
    n_ket = np.int64(0)
    first_row = np.int64(0)
    n_columns = np.int64(0)
    diagonal = np.int64(0)
    group = np.int64(first_group)
    k = group_start[group]
    twin = _is_twin(group, last_group, group_start, group_matrix, pair_ket)
    count = np.int64(0)
    next_count = _chunk(lanes, group_start[group + 1] - k, matrix_n_ket[group_matrix[group]], twin)
    _fill_kets(c, k, next_count, c_data, ket_offset, pair_ket, zero, all_kets[:LANES])
    buffer = 0
    new_group = True
    while group < last_group:
        count = next_count
        w = (count + lanes - 1) // lanes
        length = group_start[group + 1] - group_start[group]

        # What follows this chunk, so that its ket rows can be asked for early.
        next_k = k + count
        next_group = group
        next_twin = twin
        if next_k == group_start[group + 1]:
            next_group = group + (2 if twin else 1)
            next_twin = _is_twin(next_group, last_group, group_start, group_matrix, pair_ket)
            next_k = group_start[next_group]
        next_n_ket = np.int64(0)
        next_count = np.int64(0)
        if next_group < last_group:
            next_n_ket = matrix_n_ket[group_matrix[next_group]]
            next_count = _chunk(lanes, group_start[next_group + 1] - next_k, next_n_ket, next_twin)
            other = LANES * (1 - buffer)
            _fill_kets(c, next_k, next_count, c_data, ket_offset, pair_ket, zero, all_kets[other : other + LANES])
        next_w = (next_count + lanes - 1) // lanes
        kets = all_kets.ctypes.data + 8 * LANES * buffer
        next_kets = all_kets.ctypes.data + 8 * LANES * (1 - buffer)

        # Where the results of this chunk go, and of its twin.
        lowest, wanted = _fill_lanes(
            c, k, count, sigma_data, bra_offset, row_stop, pair_bra, pair_sign, sink,
            all_bras, all_signs, all_stops, all_ends,
        )  # fmt: skip
        if twin:
            lowest_second, more = _fill_lanes(
                c, k + length, count, sigma_data, bra_offset, row_stop, pair_bra, pair_sign, sink,
                all_bras[LANES:], all_signs[LANES:], all_stops[LANES:], all_ends[2 * MAX_WIDTH :],
            )  # fmt: skip
            lowest = min(lowest, lowest_second)
            wanted = max(wanted, more)

        # The values of M_pq once per group, the places of its entries once per beta matrix.
        if new_group:
            if group_matrix[group] != matrix:
                matrix = np.int64(group_matrix[group])
                first_row = matrix_row[matrix]
                n_columns = matrix_row[matrix + 1] - first_row
                n_ket = matrix_n_ket[matrix]
                diagonal = np.int64(1 if matrix_diagonal[matrix] != 0 else 0)
                n_used = _matrix_entries(
                    first_row, n_columns, indptr, column, orbital_pair, sign, diagonal != 0, swap, n_pair, entries, used
                )
            for part in range(2 if twin else 1):
                _fill_table(
                    group_pair[group + part], coupling, swap, used, n_used, diagonal != 0, first_row, n_columns,
                    occupied_pair, table, 2 if twin else 1, part,
                )  # fmt: skip

        # A vector of columns at a time: ask for what comes next, multiply, add to sigma.
        _gather(c, w, kets, n_ket, packed)
        base = indptr[first_row]
        skip = 0  # leading vectors whose rows have all ended: rows of a triangle are sorted by their ends
        for j in range(0, wanted, lanes):
            n = min(lanes, wanted - j)
            while skip < w - 1 and j >= lowest and _has_ended(all_ends, skip, twin, j):
                skip += 1
            if j + lanes < wanted:
                for v in range(skip, w):
                    prefetch_lanes(c, bras + 8 * lanes * v, size * (j + lanes), True)
                if twin:
                    for v in range(skip, w):
                        prefetch_lanes(c, bras + 8 * (LANES + lanes * v), size * (j + lanes), True)
            if j < next_n_ket:
                for v in range(next_w):
                    prefetch_lanes(c, next_kets + 8 * lanes * v, size * j, False)
            if twin:
                for i in range(j, j + n):
                    out = tile + (i - j) * 64 * w + 64 * skip
                    table_row_twin(
                        c, w - skip, 64 * w, indptr[first_row + i] - base + diagonal * i,
                        indptr[first_row + i + 1] - base + diagonal * (i + 1),
                        entry_data, table_data, packed + 64 * skip, out, out + 64 * LANES,
                    )  # fmt: skip
                _scatter(c, w, tile, bras, signs, all_stops, all_ends, lowest, j, n)
                _scatter(
                    c, w, tile + 64 * LANES, bras + 8 * LANES, signs + 8 * LANES, all_stops[LANES:],
                    all_ends[2 * MAX_WIDTH :], lowest, j, n,
                )  # fmt: skip
            else:
                for i in range(j, j + n):
                    table_row(
                        c, w - skip, 64 * w, indptr[first_row + i] - base + diagonal * i,
                        indptr[first_row + i + 1] - base + diagonal * (i + 1),
                        entry_data, table_data, packed + 64 * skip, tile + (i - j) * 64 * w + 64 * skip,
                    )  # fmt: skip
                _scatter(c, w, tile, bras, signs, all_stops, all_ends, lowest, j, n)

        new_group = next_group != group
        group = next_group
        twin = next_twin
        k = next_k
        buffer = 1 - buffer


@jit
def _fill_kets(like, first, count, c, ket_offset, pair_ket, zero, kets):
    """Addresses of the ket rows of `count` pairs; lanes up to the end of the last vector read zeros."""
    lanes = _lanes(like)
    for lane in range(count):
        kets[lane] = c + like.itemsize * ket_offset[pair_ket[first + lane]]
    for lane in range(count, (count + lanes - 1) // lanes * lanes):
        kets[lane] = zero


@parallel_jit
def opposite_spin(ket, sigma, rows, groups, beta, coupling, swap, scratch):
    """Add the terms in which one alpha electron moves (arguments: `slow.kernels.opposite_spin`).

    A chunk is up to w vectors of pairs of one group. Its ket rows are gathered into G, M_pq is applied row by row, and
    as many rows of results as a vector has lanes are transposed back and added to the bra rows. Values of M_pq stand
    once per group in a table of 2 n_pair couplings and n_columns diagonal elements. A twin, two consecutive groups of
    one beta matrix with identical ket rows (see `twins`), shares gather and loads: two multiply-adds for each vector of
    G.

    Floor: pairs x (entries + diagonal) multiply-adds; pairs x (8 n_ket + 16 n_columns) bytes of C and sigma from the
    third-level cache or memory. Measured: 28 GFMA/s (h2o 1em4), 30 (n2 1em5), 15 and 19 in one sector, 10 sparse. One
    thread needs 0.066 ns a multiply-add + 0.48 ns x pairs (n_ket + n_columns) / 2 + 2 us a group.
    """
    for thread in numba.prange(groups.thread_group.size - 1):
        _opposite_spin_part(
            groups.thread_group[thread], groups.thread_group[thread + 1], ket, sigma, rows, groups, beta, coupling,
            swap, scratch[thread],
        )  # fmt: skip


# --- same spin, alpha ------------------------------------------------------------------------------------------------


@jit
def _pack_columns(c, first, count, w, ket_offset, first_ket, n_ket, packed):
    """G[row, :] = C[ket row, first : first + count], zeros up to w vectors."""
    lanes = _lanes(c)
    for r in range(n_ket):
        source = c.ctypes.data + c.itemsize * (ket_offset[first_ket + r] + first)
        for v in range(w):
            copy_vector(c, source + 64 * v, count - lanes * v, packed + 64 * (w * r + v))


@jit
def _alpha_shape(lanes, n_bra, n_ket, length, n_entries):
    """Vectors in a column tile and number of ket strips, such that a packed strip stays in the second-level cache.

    Chosen for the least traffic beyond that cache: each strip reads and writes all elements of sigma, and each tile
    reads the sparse matrix again (12 bytes an entry).
    """
    best = 1
    least = np.inf
    for width in range(1, min(MAX_WIDTH, (length + lanes - 1) // lanes) + 1):
        n_strips = (8 * width * n_ket + ALPHA_TILE - 1) // ALPHA_TILE
        traffic = 128.0 / lanes * n_strips + 12.0 * n_entries / (lanes * width * n_bra)
        if traffic < least:
            least = traffic
            best = width
    return best, (8 * best * n_ket + ALPHA_TILE - 1) // ALPHA_TILE


@jit
def _divide_rows(first_bra, last_bra, indptr, column, first_ket, n_ket, n_strips, ends):
    """ends[strip, row] = first entry of the row whose ket row lies in ket strip `strip` or a later one."""
    n_bra = last_bra - first_bra
    for bra in range(n_bra):
        k = indptr[first_bra + bra]
        for strip in range(n_strips):
            ends[strip * n_bra + bra] = k
            limit = first_ket + n_ket * (strip + 1) // n_strips
            while k < indptr[first_bra + bra + 1] and column[k] < limit:
                k += 1
        ends[n_strips * n_bra + bra] = k


@jit
def _alpha_tile(
    start, stop, first_bra, first, count, w, c, sigma, bra_offset, row_stop, ket_offset, first_ket, n_ket, next_count,
    begin, end, column, value, total, packed,
):  # fmt: skip
    """sigma[start:stop, first : first + count] += sparse matrix times the packed columns of ket rows of one strip.

    Asks early for the lines of sigma a few rows ahead and for the columns that the next tile packs.
    """
    lanes, size = _lanes(c), c.itemsize
    sigma_data, c_data = sigma.ctypes.data, c.ctypes.data
    _pack_columns(c, first, count, w, ket_offset, first_ket, n_ket, packed)
    for bra in range(start, stop):
        target = sigma_data + size * (bra_offset[bra] + first)
        if bra + 4 < stop:
            for v in range(w):
                prefetch_line(sigma_data + size * (bra_offset[bra + 4] + first) + 64 * v, True)
        if bra - start < n_ket:
            soon = c_data + size * (ket_offset[first_ket + bra - start] + first + count)
            for v in range((next_count + lanes - 1) // lanes):
                prefetch_line(soon + 64 * v, False)
        k = begin[bra - first_bra]
        last = end[bra - first_bra]
        if k == last:
            continue
        wanted = min(count, row_stop[bra] - first)
        whole = wanted == lanes * w
        if not whole:
            for v in range((wanted + lanes - 1) // lanes):
                copy_vector(c, target + 64 * v, wanted - lanes * v, total + 64 * v)
        value_row(c, w, k, last, column, value, packed, first_ket, target if whole else total)
        if not whole:
            for v in range((wanted + lanes - 1) // lanes):
                store_vector(c, total + 64 * v, wanted - lanes * v, target + 64 * v)


@jit
def _same_spin_alpha_part(thread, n_threads, c, sigma, rows, label_bra_start, label_ket_start, elements, scratch):
    """One thread's part: the plane (column tile, entry of the label's sparse matrix) is cut into equal pieces."""
    bra_offset, row_stop, ket_offset = rows
    indptr, column, value = elements
    lanes = _lanes(c)
    total, at = _take(scratch, 0, LANES)
    packed = scratch.ctypes.data + 8 * at
    ends = scratch[at + ALPHA_TILE + 8 * LANES :].view(np.int64)
    for label in range(label_bra_start.size - 1):
        first_bra = label_bra_start[label]
        last_bra = label_bra_start[label + 1]
        n_bra = last_bra - first_bra
        n_ket = label_ket_start[label + 1] - label_ket_start[label]
        starts = indptr[first_bra : last_bra + 1]
        if n_bra == 0 or starts[-1] == starts[0] or row_stop[last_bra - 1] == 0:
            continue

        # Tiles of columns and strips of ket rows, such as the cache holds.
        stops = row_stop[first_bra:last_bra]
        length = stops[-1]
        width, n_strips = _alpha_shape(lanes, n_bra, n_ket, length, starts[-1] - starts[0])
        n_columns = lanes * width
        n_tiles = (length + n_columns - 1) // n_columns
        _divide_rows(first_bra, last_bra, indptr, column, label_ket_start[label], n_ket, n_strips, ends)

        # This thread's piece of the entries that all tiles have.
        total_entries = np.int64(0)
        for t in range(n_tiles):
            total_entries += starts[-1] - starts[np.searchsorted(stops, n_columns * t, side="right")]
        lowest = total_entries * thread // n_threads
        highest = total_entries * (thread + 1) // n_threads

        # The part of every tile that lies in this piece, strip after strip.
        passed = np.int64(0)
        for t in range(n_tiles):
            first = n_columns * t
            count = min(n_columns, length - first)
            top = np.searchsorted(stops, first, side="right")  # rows above end before this tile
            origin = starts[top] - passed  # entry number of the first entry that this tile has
            passed += starts[-1] - starts[top]
            start = first_bra + max(np.searchsorted(starts, lowest + origin), top)
            stop = min(first_bra + np.searchsorted(starts, highest + origin), last_bra)
            if start >= stop:
                continue
            for strip in range(n_strips):
                first_ket = label_ket_start[label] + n_ket * strip // n_strips
                last_ket = label_ket_start[label] + n_ket * (strip + 1) // n_strips
                _alpha_tile(
                    start, stop, first_bra, first, count, (count + lanes - 1) // lanes, c, sigma,
                    bra_offset, row_stop, ket_offset, first_ket, last_ket - first_ket,
                    max(min(n_columns, length - first - count), 0),
                    ends[strip * n_bra : (strip + 1) * n_bra], ends[(strip + 1) * n_bra : (strip + 2) * n_bra],
                    column.ctypes.data, value.ctypes.data, total.ctypes.data, packed,
                )  # fmt: skip


@parallel_jit
def same_spin_alpha(ket, sigma, rows, label_bra_start, label_ket_start, matrix, scratch):
    """Add H_alpha from the left (arguments: `slow.kernels.same_spin_alpha`).

    A tile of w vectors of columns of a strip of ket rows is packed and every bra row's entries of that strip are
    applied to it, straight into sigma. Columns must ascend in each sparse row: that is how rows are divided among
    strips.

    Floor: entries x row length multiply-adds; 24 bytes of C and sigma per element and 12 bytes per entry and tile.
    Measured: 21 GFMA/s (h2o 1em4), 18 (n2 1em5), 22 and 21 in one sector, 18 sparse. Above some 3,000 rows of a label
    the passes over sigma and the entries from the third-level cache are the limit.
    """
    n_threads = scratch.shape[0]
    for thread in numba.prange(n_threads):
        _same_spin_alpha_part(
            thread, n_threads, ket, sigma, rows, label_bra_start, label_ket_start, matrix, scratch[thread],
        )  # fmt: skip


# --- same spin, beta -------------------------------------------------------------------------------------------------


@jit
def _field(first, count, width, coupling, row_occupied_pair, used, n_used, rows, addresses, out):
    """F[u, lane] = sum over p occupied in alpha string of lane of coupling[pair(p, p), used[u]]."""
    lanes = _lanes(rows)
    n = (n_used + lanes - 1) // lanes * lanes
    for lane in range(lanes * width):
        row = rows[lane * n : (lane + 1) * n]
        row[:] = 0.0
        addresses[lane] = row.ctypes.data
        if lane < count:
            for p in range(row_occupied_pair.shape[1]):
                terms = coupling[row_occupied_pair[first + lane, p]]
                for u in range(n_used):
                    row[u] += terms[used[u]]
    _gather(rows, width, addresses.ctypes.data, n, out)


@jit
def _near_strips(n_ket, width, n_rows, n_entries):
    """Number of strips of G that are gone through one after another: such as fit the first-level cache, or one."""
    n_strips = (8 * width * n_ket + NEAR_TILE - 1) // NEAR_TILE
    return n_strips if n_entries >= NEAR_ENTRIES * n_rows * n_strips else 1


@jit
def _divide_columns(first_row, n_rows, indptr, column, n_ket, n_strips, ends):
    """ends[strip n_rows + row] = first entry of the row whose column lies in strip `strip` of n_ket or a later one."""
    for row in range(n_rows):
        k = indptr[first_row + row]
        last = indptr[first_row + row + 1]
        for strip in range(n_strips):
            ends[strip * n_rows + row] = k
            limit = n_ket * (strip + 1) // n_strips
            while k < last and column[k] < limit:
                k += 1
        ends[n_strips * n_rows + row] = last


@jit
def _number_pairs(first, last, n_pair, orbital_pair, column, sign, used, number, entries, signs):
    """Renumber the orbital pairs of entries first:last without gaps; pack (column, number) and signs as float64."""
    used[:n_pair] = 0
    for m in range(first, last):
        used[orbital_pair[m] >> 1] = 1
    n_used = 0
    for pair in range(n_pair):
        number[pair] = n_used
        if used[pair]:
            used[n_used] = pair
            n_used += 1
    for m in range(first, last):
        entries[m - first] = np.int64(column[m]) | (number[orbital_pair[m] >> 1] << 32)
        signs[m - first] = sign[m]
    return n_used


@jit
def _same_spin_beta_part(
    first_bra, last_bra, c, sigma, rows, alpha, singles, single_value, doubles, coupling, scratch
):  # fmt: skip
    """The bra rows of one thread, in chunks of w vectors of rows of one label."""
    bra_offset, row_stop, own_ket_offset = rows
    _, label_bra_start, label_matrix, label_doubles, row_occupied_pair = alpha
    matrix_row, matrix_n_ket, indptr, column, orbital_pair, sign, _, _ = singles
    d_indptr, d_column, d_value = doubles

    lanes, size = _lanes(c), c.itemsize

    # Places in the scratch: entries of a beta matrix, the lanes of a chunk, their fields, sums over doubles, G.
    n_pair = coupling.shape[1]
    max_columns, max_entries = _largest_matrix(matrix_row, matrix_n_ket, indptr)
    entries, at = _take(scratch, 0, max_entries)
    entries = entries.view(np.int64)
    signs, at = _take(scratch, at, max_entries)
    used, at = _take(scratch, at, n_pair + 1)
    used = used.view(np.int64)
    zero_row, at = _take(scratch, at, max_columns)
    sink_row, at = _take(scratch, at, max_columns)
    kets, at = _take(scratch, at, LANES)
    kets = kets.view(np.int64)
    bras, at = _take(scratch, at, LANES)
    bras = bras.view(np.int64)
    ones, at = _take(scratch, at, LANES)
    stops, at = _take(scratch, at, LANES)
    stops = stops.view(np.int64)
    ends, at = _take(scratch, at, 2 * MAX_WIDTH)
    ends_of_lanes = ends.view(np.int64)
    numbers, at = _take(scratch, at, LANES * ((n_pair + 15) // 16 * 16))
    field_rows, numbers = numbers.view(c.dtype), numbers.view(np.int64)
    field, at = _take(scratch, at, LANES * ((n_pair + 15) // 16 * 16))
    most = max(BETA_TILE, 16 * max_columns) + 128 * MAX_WIDTH
    totals, at = _take(scratch, at, most)
    ends, at = _take(scratch, at, max_columns * (most // NEAR_TILE + 3))
    ends = ends.view(np.int64)
    packed = scratch.ctypes.data + 8 * at
    zero_row[:] = 0.0
    sink_row[:] = 0.0
    ones[:] = 1.0

    # The inner loops take addresses.
    total_data = totals.ctypes.data
    entry_data = entries.ctypes.data
    sign_data = signs.ctypes.data
    field_data = field.ctypes.data
    d_column_data = d_column.ctypes.data
    d_value_data = d_value.ctypes.data
    bra_data = bras.ctypes.data

    for label in range(label_matrix.size):
        matrix = label_matrix[label]
        first = max(first_bra, label_bra_start[label])
        last = min(last_bra, label_bra_start[label + 1])
        if matrix < 0 or first >= last:
            continue

        # The singles of this label with the pairs numbered that occur, and the doubles cut into strips of the cache.
        first_row = matrix_row[matrix]
        n_columns = matrix_row[matrix + 1] - first_row
        n_ket = matrix_n_ket[matrix]
        base = indptr[first_row]
        n_used = _number_pairs(
            base, indptr[first_row + n_columns], n_pair, orbital_pair, column, sign, used, numbers, entries, signs,
        )  # fmt: skip
        value_data = single_value.ctypes.data + 8 * base
        width = _width(max(n_ket, n_columns), BETA_TILE, MAX_WIDTH)
        first_double = label_doubles[label]
        n_near = _near_strips(n_ket, width, n_columns, d_indptr[first_double + n_columns] - d_indptr[first_double])
        _divide_columns(first_double, n_columns, d_indptr, d_column, n_ket, n_near, ends)
        for chunk in range(first, last, lanes * width):
            count = min(lanes * width, last - chunk)
            w = (count + lanes - 1) // lanes
            _field(chunk, count, w, coupling, row_occupied_pair, used, n_used, field_rows, kets, field_data)

            # Where the rows of this chunk lie; surplus lanes read zeros and write to the sink.
            wanted = row_stop[chunk + count - 1]
            for lane in range(lanes * w):
                kets[lane] = zero_row.ctypes.data
                bras[lane] = sink_row.ctypes.data
                stops[lane] = wanted
                if lane < count:
                    stops[lane] = row_stop[chunk + lane]
                    kets[lane] = c.ctypes.data + size * own_ket_offset[chunk + lane]
                    bras[lane] = sigma.ctypes.data + size * bra_offset[chunk + lane]
            lowest, _ = _ends_of_vectors(lanes, w, stops, ends_of_lanes)
            _gather(c, w, kets.ctypes.data, n_ket, packed)

            # Doubles for all columns.
            totals[: 8 * w * wanted] = 0.0
            for near in range(n_near):
                for i in range(wanted):
                    k, end = ends[near * n_columns + i], ends[(near + 1) * n_columns + i]
                    if k < end:
                        value_row(c, w, k, end, d_column_data, d_value_data, packed, 0, total_data + 64 * w * i)

            # Singles, a vector of columns at a time, which then go to sigma.
            for j in range(0, wanted, lanes):
                n = min(lanes, wanted - j)
                if j + lanes < wanted:
                    for v in range(w):
                        prefetch_lanes(c, bra_data + 8 * lanes * v, size * (j + lanes), True)
                tile_data = total_data + 64 * w * j
                for i in range(j, j + n):
                    out = total_data + 64 * w * i
                    field_row(
                        c, w, indptr[first_row + i] - base, indptr[first_row + i + 1] - base,
                        entry_data, value_data, sign_data, field_data, packed, out,
                    )  # fmt: skip
                _scatter(c, w, tile_data, bra_data, ones.ctypes.data, stops, ends_of_lanes, lowest, j, n)


@parallel_jit
def same_spin_beta(ket, sigma, rows, alpha, singles, single_value, doubles, coupling, scratch):
    """Add H_beta from the right and alpha diagonal x beta single (arguments: `slow.kernels.same_spin_beta`).

    A chunk is w vectors of consecutive rows of a label, gathered once. Doubles have one value for all lanes; they go
    first, for all columns and, where the matrix is dense enough, through strips of G that stay in the first-level
    cache. Singles have the value plus sign times the field g of each lane, F[rs, lane], made once per chunk for the
    pairs that occur.

    Floor: rows x (doubles + 2 singles) multiply-adds; 24 bytes of C and sigma per element, 12 bytes per double and 24
    per single and chunk. Measured: 25 GFMA/s (h2o 1em4), 25 (n2 1em5), 23 and 26 in one sector, 18 sparse.
    """
    for thread in numba.prange(alpha.thread_row.size - 1):
        _same_spin_beta_part(
            alpha.thread_row[thread], alpha.thread_row[thread + 1], ket, sigma, rows, alpha, singles, single_value,
            doubles, coupling, scratch[thread],
        )  # fmt: skip
