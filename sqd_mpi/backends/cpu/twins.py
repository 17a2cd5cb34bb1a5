"""Regrouping of alpha singles so that two groups use one gathered tile of C.

The opposite-spin kernel gathers the ket rows of a group (all singles by one orbital pair pq) and multiplies them by the
sparse matrix M_pq. It is bound by the loads of that tile from the second-level cache. Two groups with the same list of
ket rows can be multiplied together: one gather, one load for two multiply-adds. Most ket strings allow many
excitations, so common lists are long: between half and four fifths of all singles of dense sets end in such twins.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import IntArray

# Shorter common lists do not pay for the two further tables of values.
SHORTEST_TWIN = 16

RowNumbers = NDArray[np.int32]


def make_twins(
    thread_group: IntArray,
    group_class: IntArray | NDArray[np.int32],
    group_start: IntArray,
    pair_bra: RowNumbers,
    pair_ket: RowNumbers,
    pair_sign: NDArray[np.int8],
    n_ket: int,
) -> tuple[IntArray, IntArray, IntArray, RowNumbers, RowNumbers, NDArray[np.int8]]:
    """Regrouped singles in which twins, two consecutive groups with identical ket rows, are as large as can be.

    The sum that the tables describe stays the same. Within a class, the two groups with most ket rows in common give a
    multiple of eight of them to a twin, again and again until no two groups have SHORTEST_TWIN in common. Time and
    memory: singles times singles per ket row.

    Args:
        thread_group: (n_threads + 1,) int64 first group of every thread.
        group_class: (n_groups,) integer; groups of one class, which are consecutive within a thread, meet the same beta
            matrix.
        group_start: (n_groups + 1,) int64 range of every group in the lists of singles.
        pair_bra, pair_ket: (n,) int32 rows; no ket row stands twice in a group.
        pair_sign: (n,) int8.
        n_ket: number of ket rows.

    Returns:
        thread_group, source, group_start, pair_bra, pair_ket, pair_sign as above; source: (new n_groups,) int64 old
        group from which each group was cut (its class and orbital pair).
    """
    n_singles = pair_bra.size
    order = np.empty(n_singles, np.int64)
    cut = np.zeros(n_singles, np.int8)
    source_of = np.empty(n_singles, np.int64)
    _regroup(
        thread_group, np.ascontiguousarray(group_class, np.int64), group_start, pair_ket, n_ket, order, cut, source_of
    )
    start = np.flatnonzero(cut).astype(np.int64)
    first_single = group_start[thread_group]
    new_start = np.append(start, n_singles).astype(np.int64)
    new_thread_group = np.searchsorted(start, first_single).astype(np.int64)
    return new_thread_group, source_of[start], new_start, pair_bra[order], pair_ket[order], pair_sign[order]


@parallel_jit
def _regroup(thread_group, group_class, group_start, pair_ket, n_ket, order, cut, source_of):
    for thread in numba.prange(thread_group.size - 1):
        first = thread_group[thread]
        while first < thread_group[thread + 1]:
            last = first + 1
            while last < thread_group[thread + 1] and group_class[last] == group_class[first]:
                last += 1
            _regroup_class(first, last, group_start, pair_ket, n_ket, order, cut, source_of)
            first = last


@jit
def _regroup_class(first, last, group_start, pair_ket, n_ket, order, cut, source_of):
    """Order of the singles of groups first:last, and marks where new groups begin."""
    # Singles by ket row.
    n_groups = last - first
    base = group_start[first]
    n_singles = group_start[last] - base
    group_of = np.empty(n_singles, np.int64)
    by_ket = np.zeros(n_ket + 1, np.int64)
    for g in range(n_groups):
        for k in range(group_start[first + g], group_start[first + g + 1]):
            group_of[k - base] = g
            by_ket[pair_ket[k] + 1] += 1
    for ket in range(n_ket):
        by_ket[ket + 1] += by_ket[ket]
    place = by_ket[:-1].copy()
    members = np.empty(n_singles, np.int64)
    for k in range(n_singles):
        ket = pair_ket[base + k]
        members[place[ket]] = k
        place[ket] += 1

    # Ket rows that every two groups have in common.
    alive = np.ones(n_singles, np.bool_)
    common = np.zeros((n_groups, n_groups), np.int32)
    for ket in range(n_ket):
        for i in range(by_ket[ket], by_ket[ket + 1]):
            for j in range(by_ket[ket], by_ket[ket + 1]):
                if i != j:
                    common[group_of[members[i]], group_of[members[j]]] += 1
    most = np.zeros(n_groups, np.int64)
    for g in range(n_groups):
        most[g] = common[g].max()

    # The two groups with most in common become a twin, until no two have enough.
    at = base
    twin = np.empty((2, n_singles), np.int64)
    while True:
        g = int(np.argmax(most))
        if most[g] < SHORTEST_TWIN:
            break
        other = np.argmax(common[g])
        if common[g, other] < most[g]:  # counts only fall: an outdated bound
            most[g] = common[g, other]
            continue

        # Common ket rows in the order of the first group, a multiple of eight of them.
        n = 0
        wanted = common[g, other] // 8 * 8
        for k in range(group_start[first + g] - base, group_start[first + g + 1] - base):
            if alive[k] and n < wanted:
                ket = pair_ket[base + k]
                for i in range(by_ket[ket], by_ket[ket + 1]):
                    m = members[i]
                    if alive[m] and group_of[m] == other:
                        twin[0, n] = k
                        twin[1, n] = m
                        n += 1

        # Both sides become groups, and are no longer counted.
        for side in range(2):
            cut[at] = 1
            for i in range(n):
                k = twin[side, i]
                _remove(k, base, pair_ket, by_ket, members, group_of, alive, common)
                order[at] = base + k
                source_of[at] = first + group_of[k]
                at += 1

    # What is left of every group.
    for g in range(n_groups):
        new = True
        for k in range(group_start[first + g] - base, group_start[first + g + 1] - base):
            if alive[k]:
                if new:
                    cut[at] = 1
                    new = False
                order[at] = base + k
                source_of[at] = first + g
                at += 1


@jit
def _remove(k, base, pair_ket, by_ket, members, group_of, alive, common):
    """Take single k out of the counts of common ket rows."""
    alive[k] = False
    ket = pair_ket[base + k]
    for i in range(by_ket[ket], by_ket[ket + 1]):
        m = members[i]
        if alive[m]:
            common[group_of[k], group_of[m]] -= 1
            common[group_of[m], group_of[k]] -= 1
