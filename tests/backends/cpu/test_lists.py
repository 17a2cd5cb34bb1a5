"""String structure against lists of excitations and matrix elements made one at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sqd_mpi.backends.cpu import lists
from sqd_mpi.backends.cpu.records import Groups, SparseRows
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.problem.excitations import find_singles
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import string_labels
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian, random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])
GRIDS = [(1, 1, 1, 1), (2, 1, 1, 1), (3, 2, 1, 2), (1, 4, 1, 3), (9, 8, 1, 1)]


def one_spin_matrix(hamiltonian, strings):
    """H between strings of one spin without the core energy, from the definition with an empty other spin."""
    empty = all_strings(hamiltonian.norb, 0)
    return dense_matrix(hamiltonian, strings, empty) - hamiltonian.ecore * np.eye(len(strings))


def dense(rows: SparseRows, n_columns: int) -> np.ndarray:
    """A sparse matrix as an array; no entry may stand twice."""
    matrix = np.zeros((len(rows.indptr) - 1, n_columns))
    for row in range(len(matrix)):
        columns = rows.column[rows.indptr[row] : rows.indptr[row + 1]]
        assert np.all(np.diff(columns) > 0)
        matrix[row, columns] = rows.value[rows.indptr[row] : rows.indptr[row + 1]]
    return matrix


def pair_labels_of(labels: np.ndarray) -> np.ndarray:
    """Label of every orbital pair."""
    rows, columns = np.tril_indices(len(labels))
    return (labels[rows] ^ labels[columns]).astype(np.int64)


@pytest.mark.parametrize(("norb", "n_electrons", "count"), [(7, 3, 25), (6, 1, 6), (6, 5, 6), (65, 3, 20), (6, 0, 1)])
def test_string_energies_are_the_diagonal(norb, n_electrons, count):
    hamiltonian = make_hamiltonian(norb, (n_electrons, 0))
    strings = close_strings(norb, n_electrons, count) if n_electrons else all_strings(norb, 0)
    energies = lists.string_energies(strings, hamiltonian.h1e, hamiltonian.eri_pairs())
    np.testing.assert_allclose(energies, np.diag(one_spin_matrix(hamiltonian, strings)), atol=1e-12)


@pytest.mark.parametrize("rows_at_a_time", [5, 4096])
@pytest.mark.parametrize("singles_too", [True, False])
@pytest.mark.parametrize(("norb", "n_electrons", "count"), [(7, 3, 30), (6, 1, 6), (6, 5, 6), (65, 3, 20), (6, 6, 1)])
def test_same_spin_rows(norb, n_electrons, count, singles_too, rows_at_a_time, monkeypatch):
    monkeypatch.setattr(lists, "_ROWS_AT_A_TIME", rows_at_a_time)
    hamiltonian = make_hamiltonian(norb, (n_electrons, 0))
    strings = close_strings(norb, n_electrons, count)
    matrix = one_spin_matrix(hamiltonian, strings)
    distance = np.bitwise_count(strings[:, None, :] ^ strings[None, :, :]).sum(axis=2)
    wanted = np.isin(distance, [2, 4] if singles_too else [4])
    eri = hamiltonian.eri_pairs()
    ordered = SpinStrings.from_canonical(strings, np.zeros(norb, np.int64), 1)
    found = lists.same_spin_rows(ordered, [(0, count)], [(0, count)], hamiltonian.h1e, eri, singles_too)
    np.testing.assert_allclose(dense(found, count), matrix * wanted, atol=1e-12)
    bra, ket = [(count // 3, count)], [(0, count // 2)]
    part = lists.same_spin_rows(ordered, bra, ket, hamiltonian.h1e, eri, singles_too)
    np.testing.assert_allclose(dense(part, count // 2), (matrix * wanted)[count // 3 :, : count // 2], atol=1e-12)


def test_same_spin_rows_of_several_labels_drop_exact_zeros():
    hamiltonian = make_hamiltonian(7, (3, 0), labels=LABELS)
    ordered = SpinStrings.from_canonical(all_strings(7, 3), LABELS, 4)
    starts = ordered.label_start.tolist()
    ranges = list(zip(starts, starts[1:], strict=False))
    rows = lists.same_spin_rows(ordered, ranges, ranges, hamiltonian.h1e, hamiltonian.eri_pairs(), True)
    matrix = one_spin_matrix(hamiltonian, ordered.strings)
    np.testing.assert_allclose(dense(rows, 35), matrix - np.diag(np.diag(matrix)), atol=1e-12)
    assert len(rows.value) == np.count_nonzero(matrix) - 35
    nothing = lists.same_spin_rows(ordered, [], [], hamiltonian.h1e, hamiltonian.eri_pairs(), True)
    assert nothing.indptr.tolist() == [0] and len(nothing.column) == 0


@pytest.mark.parametrize("n_parts", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("n_rows", [0, 1, 5, 100])
def test_split_rows(n_rows, n_parts):
    cost = np.random.default_rng(n_rows).exponential(size=n_rows)
    bounds = lists.split_rows(cost, n_parts)
    assert len(bounds) == n_parts + 1 and bounds[0] == 0 and bounds[-1] == n_rows
    assert np.all(np.diff(bounds) >= 0)
    parts = [cost[first:last].sum() for first, last in zip(bounds, bounds[1:], strict=False)]
    assert max(parts) <= cost.sum() / n_parts + 2 * cost.max(initial=0.0)


def test_split_rows_without_work():
    assert lists.split_rows(np.zeros(10), 3)[[0, -1]].tolist() == [0, 10]


def layouts(grid):
    """A layout of the strings of both spins on a grid."""
    alpha = SpinStrings.from_canonical(random_strings(7, 3, 21), LABELS, 4)
    beta = SpinStrings.from_canonical(random_strings(7, 4, 19, seed=1), LABELS, 4)
    return Layout.create(alpha, beta, 1, grid)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("grid", GRIDS)
def test_alpha_singles_are_all_there_once(grid, n_threads):
    layout = layouts(grid)
    a, _, _, r = grid
    pair_labels = pair_labels_of(LABELS)
    strings = layout.alpha.strings
    labels = string_labels(strings, LABELS)
    expected = find_singles(strings, strings, 7)
    wanted = {
        (bra, int(expected.ket[k]), int(expected.pair[k]), int(expected.sign[k]))
        for bra in range(len(strings))
        for k in range(expected.indptr[bra], expected.indptr[bra + 1])
    }
    found = []
    for ia in range(a):
        for ir in range(r):
            bra = layout.bra_rows(ia, ir, 0)
            rows = bra.alpha
            all_singles = find_singles(strings[rows], strings, 7)
            # In two passes: a first stretch of rows, then the rest; the shifts in one pass and one by one.
            middle = len(rows) // 3
            shifts = []
            for stretch in ((0, middle), (middle, len(rows))):
                for wanted_shifts in [set(range(a))] if stretch[0] else [{da} for da in range(a)]:
                    arguments = (all_singles, stretch, wanted_shifts, pair_labels, np.ones(4), n_threads)
                    by_shift = lists.alpha_singles(layout, ia, bra, *arguments)
                    assert set(by_shift) == wanted_shifts
                    shifts += by_shift.items()
            for da, singles in shifts:
                kets, _ = layout.ket_rows((ia + da) % a)
                assert len(singles.directed.thread_group) == n_threads + 1
                for groups, directed in ((singles.directed, True), (singles.undirected, False)):
                    assert groups.start[0] == 0 and groups.start[-1] == len(groups.pair_bra)
                    assert groups.thread_group[-1] == len(groups.pair) == len(groups.start) - 1
                    for g, pair in enumerate(groups.pair):
                        for k in range(groups.start[g], groups.start[g + 1]):
                            bra, ket = int(rows[groups.pair_bra[k]]), int(kets[groups.pair_ket[k]])
                            assert labels[bra] == groups.matrix[g] // 4
                            assert pair_labels[pair >> 1] == groups.matrix[g] % 4
                            if directed:
                                found.append((bra, ket, int(pair), int(groups.pair_sign[k])))
                            else:
                                both = {(bra, ket, int(pair) ^ d, int(groups.pair_sign[k])) for d in (0, 1)}
                                assert both & wanted
    assert len(found) == len(wanted) and set(found) == wanted


@pytest.mark.parametrize("grid", GRIDS)
def test_beta_singles_are_all_there_once(grid):
    layout = layouts(grid)
    _, b, _, _ = grid
    hamiltonian = make_hamiltonian(7, (3, 4), labels=LABELS)
    pair_labels = pair_labels_of(LABELS)
    strings = layout.beta.strings
    labels = string_labels(strings, LABELS)
    matrix = one_spin_matrix(make_hamiltonian(7, (4, 0), labels=LABELS), strings)
    expected = find_singles(strings, strings, 7)
    total = 0
    for ib in range(b):
        rows, first = layout.beta_rows(ib)
        for db, table in enumerate(lists.beta_singles(layout, ib, 7, pair_labels)):
            jb = (ib + db) % b
            kets, ket_first = layout.beta_rows(jb)
            values = lists.single_values(strings, table, 4, rows, hamiltonian.h1e, hamiltonian.eri_pairs())
            for y in range(4):
                for d in range(4):
                    q = 4 * y + d
                    assert table.matrix_row[q + 1] - table.matrix_row[q] == first[y + 1] - first[y]
                    assert table.matrix_n_ket[q] == ket_first[(y ^ d) + 1] - ket_first[y ^ d]
                    for row in range(table.matrix_row[q], table.matrix_row[q + 1]):
                        bra = int(rows[first[y] + row - table.matrix_row[q]])
                        for k in range(table.indptr[row], table.indptr[row + 1]):
                            ket = int(kets[ket_first[y ^ d] + table.column[k]])
                            assert (labels[bra], labels[ket]) == (y, y ^ d)
                            assert pair_labels[table.orbital_pair[k] >> 1] == d
                            where = expected.indptr[bra] + np.searchsorted(
                                expected.ket[expected.indptr[bra] : expected.indptr[bra + 1]], ket
                            )
                            assert expected.ket[where] == ket and expected.pair[where] == table.orbital_pair[k]
                            assert expected.sign[where] == table.sign[k]
                            if d == 0:
                                assert values[k] == pytest.approx(matrix[bra, ket], abs=1e-12)
                            total += 1
            assert np.all(table.matrix_diagonal == (np.arange(16) % 4 == 0) * (db == 0))
    assert total == len(expected.ket)


def test_diagonal_pairs():
    strings = random_strings(9, 3, 5)
    occupied = [[p * (p + 1) // 2 + p for p in range(9) if int(each[0]) >> p & 1] for each in strings]
    assert lists.diagonal_pairs(strings).tolist() == occupied


def test_singles_are_sorted_by_the_ends_of_their_rows():
    rng = np.random.default_rng(5)
    start = np.array([0, 9, 18, 22, 22, 30])  # the first two groups have the same ket rows
    bra = rng.integers(0, 50, 30).astype(np.int32)
    ket = rng.permutation(50)[:30].astype(np.int32)
    ket[9:18] = ket[:9]
    sign = rng.choice([-1, 1], 30).astype(np.int8)
    stop = np.arange(50) // 3
    before = [sorted(zip(bra[i:j], ket[i:j], sign[i:j], strict=True)) for i, j in pairwise(start)]
    pair = np.zeros(5, np.int32)
    lists._sort_groups(Groups(np.array([0, 3, 5]), start, pair, pair, bra, ket, sign), stop)
    assert [sorted(zip(bra[i:j], ket[i:j], sign[i:j], strict=True)) for i, j in pairwise(start)] == before
    np.testing.assert_array_equal(ket[:9], ket[9:18])
    for ends in (np.maximum(stop[bra[:9]], stop[bra[9:18]]), stop[bra[18:22]], stop[bra[22:30]]):
        assert (np.diff(ends) >= 0).all()
