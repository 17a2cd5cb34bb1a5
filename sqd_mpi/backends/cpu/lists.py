"""String structure of one rank: everything the factorised sigma needs that does not depend on the vector or the sector.

Singles of the rank's alpha rows are sorted into groups of equal orbital pair; singles of its beta columns are kept as
one sparse matrix per (beta label, label of the orbital pair); the same-spin Hamiltonians are sparse matrices over
strings. All of it is linear in the number of connections of this rank's strings, about 1/(a r) of alpha's and 1/b of
beta's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import FloatArray, IntArray, Strings
from sqd_mpi.backends.cpu.costs import wanted_share
from sqd_mpi.backends.cpu.records import BetaSingles, Groups, SparseRows
from sqd_mpi.backends.cpu.twins import make_twins
from sqd_mpi.distribution.layout import BraRows, Layout, owners
from sqd_mpi.problem.excitations import Singles, find_doubles, find_singles, n_moved, occupied_orbitals, pair_index
from sqd_mpi.problem.spin_strings import SpinStrings

# Same-spin elements at or below this (hartree) are not stored: rounding noise of exact zeros.
DROPPED_ELEMENT = 1e-14
_ROWS_AT_A_TIME = 4096  # bounds the doubles that exist at one time
_SAMPLED_ROWS = 512  # from so many rows the number of doubles is estimated


@dataclass(frozen=True, eq=False)
class AlphaSingles:
    """Singles from a rank's alpha rows to the rows of one ket block, in groups that meet the same beta matrix."""

    directed: Groups
    """Groups of equal directed orbital pair, in the order (thread, label, label of pq, pq, row)."""
    undirected: Groups
    """Both directions of a coupled pair in one group, regrouped so that ket rows are gathered once for two groups where
    possible (`twins`)."""


def array_bytes(part: Any) -> int:
    """Bytes of the arrays of a record, or of lists with records among their fields."""
    values = part if isinstance(part, tuple) else vars(part).values()
    own = sum(value.nbytes for value in values if isinstance(value, np.ndarray))
    return own + sum(array_bytes(value) for value in values if isinstance(value, tuple))


def diagonal_pairs(strings: NDArray[np.uint64]) -> NDArray[np.int32]:
    """pair(r, r) of the occupied orbitals of every string, (n, n_electrons) int32."""
    occupied = occupied_orbitals(strings).astype(np.int64)
    return np.ascontiguousarray(occupied * (occupied + 1) // 2 + occupied, dtype=np.int32)


def string_energies(strings: NDArray[np.uint64], h1e: FloatArray, eri: FloatArray) -> FloatArray:
    """Same-spin part of the diagonal of every string, in hartree: sum h_pp + 1/2 sum ((pp|rr) - (pr|pr))."""
    out = np.zeros(strings.shape[0])
    _string_energies(occupied_orbitals(strings), h1e, eri, out)
    return out


def split_rows(cost: FloatArray, n_parts: int) -> IntArray:
    """(n_parts + 1,) boundaries of consecutive rows whose costs add up to nearly equal sums."""
    total = np.concatenate([[0.0], np.cumsum(cost)])
    targets = total[-1] * np.arange(1, n_parts) / n_parts
    middle = np.clip(np.searchsorted(total, targets), 0, len(cost))
    return np.concatenate([[0], np.maximum.accumulate(middle), [len(cost)]]).astype(np.int64)


def alpha_singles(
    layout: Layout, ia: int, bra: BraRows, singles: Singles, rows: tuple[int, int], shifts: set[int],
    pair_labels: IntArray, row_cost: FloatArray, n_threads: int, coupled: NDArray[np.bool_] | None = None,
) -> dict[int, AlphaSingles]:  # fmt: skip
    """Singles of a range of a rank's bra rows to the alpha blocks at the given shifts: shift -> sorted lists.

    Args:
        ia: alpha block of the rank.
        bra: rows of the rank's sub-block.
        singles: singles from every bra row to all strings in working order.
        rows: first and last (excluded) bra row.
        shifts: values of da.
        pair_labels: (n_pairs,) label of every orbital pair.
        row_cost: (n_labels,) cost of one single of a row, by alpha label of the bra.
        n_threads: threads among which rows are divided by cost.
        coupled: (n_pairs,) orbital pairs of the undirected groups; by default all.
    """
    # What a single's place in the lists hangs on: thread and label of its row, shift of its ket, rank of its pair.
    a = layout.grid[0]
    low, high = rows
    indptr = singles.indptr[low : high + 1]
    row_label = np.repeat(np.arange(layout.n_labels), np.diff(bra.label_start))[low:high]
    wanted = wanted_share(bra.wanted)[low:high]
    row_thread = _threads_of_rows(np.diff(indptr) * row_cost[row_label] * wanted, n_threads)
    slot_of_shift = np.full(a, -1, np.int64)
    slot_of_shift[sorted(shifts)] = np.arange(len(shifts))
    slot = slot_of_shift[(owners(layout.alpha_bounds) - ia) % a]
    ket_row = ket_row_numbers(layout)
    order = np.argsort(np.repeat(pair_labels, 2), kind="stable")
    rank_of_pair = np.argsort(order)

    # Sort by counting, all shifts in one pass.
    shape = (len(shifts), n_threads, layout.n_labels, len(order))
    counts = np.zeros(int(np.prod(shape)) + 1, np.int64)
    _count_keys(indptr, singles.ket, singles.pair, row_thread, row_label, slot, rank_of_pair, shape, counts)
    starts = np.cumsum(counts)
    n = int(starts[-1])
    out = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int8)
    _sort_singles(
        low, indptr, singles.ket, singles.pair, singles.sign, row_thread, row_label, slot, ket_row, rank_of_pair,
        shape, starts.copy(), *out,
    )  # fmt: skip

    # The stretch of every shift, in groups; with parity, rows that end early stand together.
    per_block = starts[:-1].reshape(len(shifts), -1)
    ends = np.append(per_block[1:, 0], n)
    result = {}
    for k, da in enumerate(sorted(shifts)):
        first, last = int(per_block[k, 0]), int(ends[k])
        key_counts = np.diff(np.append(per_block[k], last)).reshape(shape[1:])
        lists = out[0][first:last], out[1][first:last], out[2][first:last]
        n_ket = len(layout.ket_rows((ia + da) % a)[0])
        undirected = _groups(key_counts, order, 2, pair_labels, *lists)
        if coupled is not None:
            undirected = undirected.of_pairs(coupled)
        undirected = _with_twins(undirected, n_ket)
        if layout.parity:
            _sort_groups(undirected, bra.stop)
        result[da] = AlphaSingles(_groups(key_counts, order, 1, pair_labels, *lists), undirected)
    return result


def ket_row_numbers(layout: Layout) -> IntArray:
    """(n_alpha,) row of every alpha string in its block."""
    numbers = np.empty(layout.alpha.size, np.int64)
    for ja in range(layout.grid[0]):
        positions, _ = layout.ket_rows(ja)
        numbers[positions] = np.arange(len(positions))
    return numbers


def singles_per_row(layout: Layout, ia: int, singles: Singles, pair_labels: IntArray) -> NDArray[np.int32]:
    """(n_rows, a, n_labels) number of singles of every bra row by shift da and label of the orbital pair."""
    a = layout.grid[0]
    counts = np.zeros((len(singles.indptr) - 1, a, layout.n_labels), np.int32)
    shift = (owners(layout.alpha_bounds) - ia) % a
    _count_by_shift(singles.indptr, singles.ket, singles.pair, shift, pair_labels, counts)
    return counts


def same_spin_terms(
    strings: SpinStrings, positions: IntArray, bounds: IntArray, h1e: FloatArray, eri: FloatArray, singles_too: bool
) -> tuple[FloatArray, bool]:
    """Number of elements of the same-spin Hamiltonian in the rows of some strings, estimated from a sample of them.

    Args:
        positions: working positions of the strings, ascending.
        bounds: (n_labels, n_parts + 1) boundaries of the blocks of ket strings.
        singles_too: whether single excitations count as well as doubles.

    Returns:
        (n_positions, n_parts) expected numbers, and whether they are exact.
    """
    n_parts = bounds.shape[1] - 1
    terms = np.zeros((len(positions), n_parts))
    step = max(1, len(positions) // _SAMPLED_ROWS)
    owner = owners(bounds)
    for first, last in zip(strings.label_start[:-1], strings.label_start[1:], strict=True):
        low, high = np.searchsorted(positions, (first, last))
        if low == high:
            continue
        sample = positions[low:high:step]
        singles = strings.singles(sample).between(first, last) if singles_too else Singles.none(len(sample))
        rows = _same_spin_chunk(strings.strings[sample], strings.strings[first:last], h1e, eri, singles)
        row = np.repeat(np.arange(len(sample)), np.diff(rows.indptr))
        counts = np.bincount(row * n_parts + owner[first + rows.column], minlength=len(sample) * n_parts)
        terms[low:high] = np.repeat(counts.reshape(-1, n_parts), step, axis=0)[: high - low]
    return terms, step == 1


def beta_singles(layout: Layout, ib: int, norb: int, pair_labels: IntArray) -> list[BetaSingles]:
    """Singles of the columns of blocks with this ib to every beta block, one entry per shift db."""
    rows, column_start = layout.beta_rows(ib)
    singles = layout.beta.singles(rows)
    return column_singles(layout, layout.beta.strings[rows], column_start, ib, norb, pair_labels, singles=singles)


def column_singles(
    layout: Layout, columns: NDArray[np.uint64], column_start: IntArray, ib: int, norb: int, pair_labels: IntArray,
    in_block: bool = True, singles: Singles | None = None,
) -> list[BetaSingles]:  # fmt: skip
    """Singles of any beta strings to every beta block, one entry per shift db from block ib.

    Args:
        columns: (n, nwords) the bra columns, label after label.
        column_start: (n_labels + 1,) first bra column of every label.
        in_block: whether the bra columns are those of block ib, whose diagonal then belongs to the shift 0.
        singles: from the columns to all beta strings, where they are known already.
    """
    # First sparse row of every bra column: matrices of a label follow one another, one for every label of a pair.
    _, b, _, _ = layout.grid
    n_labels = layout.n_labels
    if singles is None:
        singles = find_singles(columns, layout.beta.strings, norb)
    counts = np.diff(column_start)
    matrix_row = np.concatenate([[0], np.cumsum(np.repeat(counts, n_labels))]).astype(np.int64)
    row_label = np.repeat(np.arange(n_labels), counts)
    first_row = matrix_row[row_label * n_labels] + np.arange(len(columns)) - column_start[row_label]

    # Sort by counting: ket block, then sparse row.
    owner = owners(layout.beta_bounds)
    n_rows = int(matrix_row[-1])
    key_counts = np.zeros(b * n_rows + 1, np.int64)
    stride = counts[row_label]
    _count_beta(singles.indptr, singles.ket, singles.pair, first_row, stride, owner, pair_labels, n_rows, key_counts)
    starts = np.cumsum(key_counts)
    column = np.empty(singles.ket.size, np.int32)
    orbital_pair = np.empty(singles.ket.size, np.int32)
    sign = np.empty(singles.ket.size, np.int8)
    widths = np.diff(layout.beta_bounds, axis=1)  # (n_labels, b) of the pieces that follow one another
    ket_first = np.repeat(layout.beta_bounds[:, :-1].ravel(), widths.ravel())  # of the piece that holds a ket column
    _sort_beta(
        singles.indptr, singles.ket, singles.pair, singles.sign, first_row, stride, owner, pair_labels, n_rows,
        ket_first, starts.copy(), column, orbital_pair, sign,
    )  # fmt: skip

    # One table for every ket block, diagonals included where columns may stay.
    occupied = diagonal_pairs(columns)
    occupied_pair = np.concatenate(
        [occupied[column_start[y] : column_start[y + 1]] for y in range(n_labels) for _ in range(n_labels)]
    )
    result = []
    for db in range(b):
        jb = (ib + db) % b
        indptr = starts[jb * n_rows : (jb + 1) * n_rows + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        n_ket = np.array([widths[y ^ d, jb] for y in range(n_labels) for d in range(n_labels)], np.int64)
        own = int(in_block and db == 0)
        diagonal = np.array([own * int(d == 0) for _ in range(n_labels) for d in range(n_labels)], np.int8)
        result.append(
            BetaSingles(
                matrix_row,
                n_ket,
                indptr - first,
                column[first:last],
                orbital_pair[first:last],
                sign[first:last],
                diagonal,
                np.ascontiguousarray(occupied_pair),
            )  # fmt: skip
        )
    return result


def same_spin_rows(
    strings: SpinStrings,
    bra_ranges: list[tuple[int, int]],
    ket_ranges: list[tuple[int, int]],
    h1e: FloatArray,
    eri: FloatArray,
    singles_too: bool,
) -> SparseRows:
    """Same-spin Hamiltonian between the strings of equal label, diagonal left out.

    Args:
        strings: all strings of this spin.
        bra_ranges, ket_ranges: working positions (start, stop) for every label; columns number the ket strings through
            all ranges.
        h1e: (norb, norb); eri: (n_pairs, n_pairs), both in hartree.
        singles_too: whether single excitations are stored as well as doubles.

    Returns:
        CSR with the bra strings of all ranges as rows; elements of magnitude up to `DROPPED_ELEMENT` are left out.
    """
    indptrs, columns, values = [np.zeros(1, np.int64)], [], []
    first_column = 0
    for (bra_start, bra_stop), (ket_start, ket_stop) in zip(bra_ranges, ket_ranges, strict=True):
        ket = strings.strings[ket_start:ket_stop]
        for start in range(bra_start, bra_stop, _ROWS_AT_A_TIME):
            bra = np.arange(start, min(start + _ROWS_AT_A_TIME, bra_stop))
            singles = strings.singles(bra).between(ket_start, ket_stop) if singles_too else Singles.none(len(bra))
            rows = _same_spin_chunk(strings.strings[bra], ket, h1e, eri, singles)
            indptrs.append(rows.indptr[1:] + indptrs[-1][-1])
            columns.append(rows.column + np.int32(first_column))
            values.append(rows.value)
        first_column += ket_stop - ket_start
    if not columns:
        return SparseRows(indptrs[0], np.empty(0, np.int32), np.empty(0))
    return SparseRows(np.concatenate(indptrs), np.concatenate(columns), np.concatenate(values))


def without_singles(
    rows: SparseRows, bra_start: IntArray, bra: NDArray[np.uint64], ket_start: IntArray, ket: NDArray[np.uint64]
) -> SparseRows:
    """The doubles of a same-spin Hamiltonian that holds singles as well, with columns numbered inside their label.

    Args:
        rows: as `same_spin_rows` makes them, with singles.
        bra_start, ket_start: (n_labels + 1,) first row and column of every label; bra, ket: strings of rows, columns.
    """
    label = np.repeat(np.arange(len(bra_start) - 1), np.diff(bra_start))
    counts = np.zeros(len(bra) + 1, np.int64)
    nothing = np.empty(0, np.int32), np.empty(0)
    _keep_doubles(rows.indptr, rows.column, rows.value, bra, ket, ket_start[label], counts, *nothing, False)
    indptr = np.cumsum(counts)
    column, value = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    _keep_doubles(rows.indptr, rows.column, rows.value, bra, ket, ket_start[label], indptr, column, value, True)
    return SparseRows(indptr, column, value)


def same_spin_between(
    bra: NDArray[np.uint64],
    bra_start: IntArray,
    ket: NDArray[np.uint64],
    ket_ranges: list[tuple[int, int]],
    h1e: FloatArray,
    eri: FloatArray,
) -> SparseRows:
    """Same-spin Hamiltonian between two lists of strings without a common string; else as `same_spin_rows`.

    Args:
        bra: (n, nwords) bra strings, label after label; bra_start: (n_labels + 1,) first of every label.
        ket: all ket strings; ket_ranges: (start, stop) for every label.
    """
    indptrs, columns, values = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0)]
    first_column = 0
    for label, (first_ket, last_ket) in enumerate(ket_ranges):
        for start in range(bra_start[label], bra_start[label + 1], _ROWS_AT_A_TIME):
            chunk = bra[start : min(start + _ROWS_AT_A_TIME, bra_start[label + 1])]
            kets = ket[first_ket:last_ket]
            rows = _same_spin_chunk(chunk, kets, h1e, eri, find_singles(chunk, kets, len(h1e)))
            indptrs.append(rows.indptr[1:] + indptrs[-1][-1])
            columns.append(rows.column + np.int32(first_column))
            values.append(rows.value)
        first_column += last_ket - first_ket
    return SparseRows(np.concatenate(indptrs), np.concatenate(columns), np.concatenate(values))


def single_values(
    strings: NDArray[np.uint64], singles: BetaSingles, n_labels: int, rows: IntArray, h1e: FloatArray, eri: FloatArray
) -> FloatArray:
    """Same-spin element of every single of the matrices (y, 0), aligned with the singles; 0 for other matrices.

    Args:
        strings: all strings in working order; rows: working positions of the bra columns, label after label.
    """
    value = np.zeros(singles.column.size)
    occupied = occupied_orbitals(strings[rows])
    first = np.concatenate([[0], np.cumsum(np.diff(singles.matrix_row)[::n_labels])]).astype(np.int64)
    _single_values(
        singles.matrix_row, n_labels, first, singles.indptr, singles.orbital_pair, singles.sign, occupied, h1e, eri,
        value,
    )  # fmt: skip
    return value


def _same_spin_chunk(bra: Strings, ket: Strings, h1e: FloatArray, eri: FloatArray, singles: Singles) -> SparseRows:
    """Doubles that are found here and singles that are known, both from bra to ket strings, with their elements."""
    doubles = find_doubles(bra, ket, len(h1e))
    double_value = np.empty(doubles.ket.size)
    _double_values(doubles.created, doubles.annihilated, doubles.sign, eri, double_value)
    single_value = np.empty(singles.ket.size)
    _plain_single_values(singles.indptr, singles.pair, singles.sign, occupied_orbitals(bra), h1e, eri, single_value)
    counts = np.zeros(len(bra) + 1, np.int64)
    empty_columns, empty_values = np.empty(0, np.int32), np.empty(0)
    arguments = (singles.indptr, singles.ket, single_value, doubles.indptr, doubles.ket, double_value, DROPPED_ELEMENT)
    _merge(*arguments, counts, empty_columns, empty_values, False)
    indptr = np.cumsum(counts)
    column, value = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    _merge(*arguments, indptr, column, value, True)
    return SparseRows(indptr, column, value)


def _threads_of_rows(cost: FloatArray, n_threads: int) -> IntArray:
    return np.repeat(np.arange(n_threads), np.diff(split_rows(cost, n_threads)))


def _with_twins(groups: Groups, n_ket: int) -> Groups:
    """The same singles regrouped such that as many as can be are gathered once for two groups (`twins`)."""
    thread_group, source, start, bra, ket, sign = make_twins(
        groups.thread_group, groups.matrix, groups.start, groups.pair_bra, groups.pair_ket, groups.pair_sign, n_ket
    )
    return Groups(thread_group, start, groups.pair[source], groups.matrix[source], bra, ket, sign)


def _groups(
    key_counts: IntArray,
    order: IntArray,
    directions: int,
    pair_labels: IntArray,
    pair_bra: NDArray[np.int32],
    pair_ket: NDArray[np.int32],
    pair_sign: NDArray[np.int8],
) -> Groups:
    """Non-empty groups of one ket block; directions = 2 merges the two directions of every orbital pair.

    Args:
        key_counts: (n_threads, n_labels, n_directed) number of singles, pairs in the order of `order`.
        pair_labels: (n_pairs,) label of every orbital pair.
    """
    n_threads, n_labels, n_directed = key_counts.shape
    merged = key_counts.reshape(n_threads, n_labels, n_directed // directions, directions).sum(axis=3)
    flat = merged.reshape(-1)
    present = np.flatnonzero(flat)
    thread, rest = np.divmod(present, n_labels * merged.shape[2])
    label, position = np.divmod(rest, merged.shape[2])
    thread_group = np.searchsorted(thread, np.arange(n_threads + 1)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(flat[present])]).astype(np.int64)
    pair = order[position * directions].astype(np.int32)
    matrix = (label * n_labels + pair_labels[pair >> 1]).astype(np.int32)
    return Groups(thread_group, start, pair, matrix, pair_bra, pair_ket, pair_sign)


@jit
def _sort_groups(groups, stop):
    """Sort the singles inside every group, or inside two with identical ket rows at once, by where their rows end.

    A kernel takes so many at a time and goes on to the longest row among them.
    """
    thread_group, start, _, _, pair_bra, pair_ket, pair_sign = groups
    for thread in range(thread_group.size - 1):
        group = thread_group[thread]
        while group < thread_group[thread + 1]:
            first, last = start[group], start[group + 1]
            n = last - first
            key = stop[pair_bra[first:last]]
            twin = group + 1 < thread_group[thread + 1] and start[group + 2] - last == n
            for k in range(n if twin else 0):
                if pair_ket[first + k] != pair_ket[last + k]:
                    twin = False
                    break
            if twin:
                for k in range(n):
                    key[k] = max(key[k], stop[pair_bra[last + k]])
            order = np.argsort(key, kind="mergesort")
            for base in range(first, last + n if twin else last, max(n, 1)):
                part = slice(base, base + n)
                pair_bra[part] = pair_bra[part][order]
                pair_ket[part] = pair_ket[part][order]
                pair_sign[part] = pair_sign[part][order]
            group += 2 if twin else 1


@parallel_jit
def _count_by_shift(indptr, ket, pair, shift, pair_labels, counts):
    for row in numba.prange(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            counts[row, shift[ket[k]], pair_labels[pair[k] >> 1]] += 1


@jit
def _count_keys(indptr, ket, pair, row_thread, row_label, slot, rank_of_pair, shape, counts):
    for row in range(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            if slot[ket[k]] < 0:
                continue
            key = (slot[ket[k]] * shape[1] + row_thread[row]) * shape[2] + row_label[row]
            counts[key * shape[3] + rank_of_pair[pair[k]] + 1] += 1


@jit
def _sort_singles(
    first_row, indptr, ket, pair, sign, row_thread, row_label, slot, ket_row, rank_of_pair, shape, position,
    pair_bra, pair_ket, pair_sign,
):  # fmt: skip
    for row in range(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            if slot[ket[k]] < 0:
                continue
            key = (slot[ket[k]] * shape[1] + row_thread[row]) * shape[2] + row_label[row]
            key = key * shape[3] + rank_of_pair[pair[k]]
            target = position[key]
            position[key] += 1
            pair_bra[target] = first_row + row
            pair_ket[target] = ket_row[ket[k]]
            pair_sign[target] = sign[k]


@parallel_jit
def _count_beta(indptr, ket, pair, first_row, stride, owner, pair_labels, n_rows, counts):
    for row in numba.prange(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            target = first_row[row] + stride[row] * pair_labels[pair[k] >> 1]
            counts[owner[ket[k]] * n_rows + target + 1] += 1


@parallel_jit
def _sort_beta(
    indptr, ket, pair, sign, first_row, stride, owner, pair_labels, n_rows, ket_first, position,
    column, orbital_pair, out_sign,
):  # fmt: skip
    for row in numba.prange(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            key = owner[ket[k]] * n_rows + first_row[row] + stride[row] * pair_labels[pair[k] >> 1]
            target = position[key]
            position[key] += 1
            column[target] = ket[k] - ket_first[ket[k]]
            orbital_pair[target] = pair[k]
            out_sign[target] = sign[k]


@jit
def _orbitals_of(pair):
    """Orbitals p >= q of a pair index."""
    p = np.int64((np.sqrt(8.0 * pair + 1.0) - 1.0) / 2.0)
    while p * (p + 1) // 2 > pair:
        p -= 1
    while (p + 1) * (p + 2) // 2 <= pair:
        p += 1
    return p, np.int64(pair) - p * (p + 1) // 2


@jit
def _single_value(pair, sign, occupied, h1e, eri):
    """Same-spin element of one single from the occupied orbitals of its bra string (created orbital included)."""
    p, q = _orbitals_of(pair >> 1)
    pq = np.int64(pair >> 1)
    total = h1e[p, q]
    for r in occupied:
        # The created orbital cancels itself: (pq|pp) - (pp|qp) = 0, so the bra's occupation will do.
        total += eri[pq, pair_index(np.int64(r), np.int64(r))]
        total -= eri[pair_index(p, np.int64(r)), pair_index(q, np.int64(r))]
    return sign * total


@parallel_jit
def _plain_single_values(indptr, pair, sign, occupied, h1e, eri, value):
    for row in numba.prange(indptr.shape[0] - 1):
        for k in range(indptr[row], indptr[row + 1]):
            value[k] = _single_value(pair[k], sign[k], occupied[row], h1e, eri)


@parallel_jit
def _single_values(matrix_row, n_labels, first, indptr, pair, sign, occupied, h1e, eri, value):
    for y in range(n_labels):
        start = matrix_row[y * n_labels]
        for row in numba.prange(matrix_row[y * n_labels + 1] - start):
            for k in range(indptr[start + row], indptr[start + row + 1]):
                value[k] = _single_value(pair[k], sign[k], occupied[first[y] + row], h1e, eri)


@parallel_jit
def _double_values(created, annihilated, sign, eri, value):
    for k in numba.prange(created.shape[0]):
        p, q = _orbitals_of(np.int64(created[k]))
        r, s = _orbitals_of(np.int64(annihilated[k]))
        direct = eri[pair_index(p, r), pair_index(q, s)]
        exchange = eri[pair_index(p, s), pair_index(q, r)]
        value[k] = sign[k] * (direct - exchange)


@parallel_jit
def _merge(s_indptr, s_ket, s_value, d_indptr, d_ket, d_value, threshold, indptr, column, value, fill):
    """Merge sorted rows of singles and doubles, leaving out small elements; counts, or fills."""
    for row in numba.prange(indptr.shape[0] - 1):
        s, d = s_indptr[row], d_indptr[row]
        position = indptr[row] if fill else np.int64(0)
        while s < s_indptr[row + 1] or d < d_indptr[row + 1]:
            if d >= d_indptr[row + 1] or (s < s_indptr[row + 1] and s_ket[s] < d_ket[d]):
                ket, element = s_ket[s], s_value[s]
                s += 1
            else:
                ket, element = d_ket[d], d_value[d]
                d += 1
            if abs(element) > threshold:
                if fill:
                    column[position] = ket
                    value[position] = element
                position += 1
        if not fill:
            indptr[row + 1] = position


@parallel_jit
def _keep_doubles(indptr, column, value, bra, ket, first_column, out_indptr, out_column, out_value, fill):
    """Count the doubles of every row, or fill them in."""
    for row in numba.prange(indptr.shape[0] - 1):
        position = out_indptr[row] if fill else np.int64(0)
        for k in range(indptr[row], indptr[row + 1]):
            if n_moved(bra[row], ket[column[k]]) == 2:
                if fill:
                    out_column[position] = column[k] - first_column[row]
                    out_value[position] = value[k]
                position += 1
        if not fill:
            out_indptr[row + 1] = position


@parallel_jit
def _string_energies(occupied, h1e, eri, out):
    for i in numba.prange(occupied.shape[0]):
        total = 0.0
        for p in occupied[i]:
            total += h1e[p, p]
            pp = pair_index(np.int64(p), np.int64(p))
            for r in occupied[i]:
                pr = pair_index(np.int64(p), np.int64(r))
                total += 0.5 * (eri[pp, pair_index(np.int64(r), np.int64(r))] - eri[pr, pr])
        out[i] = total
