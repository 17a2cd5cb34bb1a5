"""Lists of the GPU kernels: every entry stands once where a kernel looks for it."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends.cpu.lists import beta_singles
from sqd_mpi.backends.cpu.records import SparseRows
from sqd_mpi.backends.gpu import lists
from sqd_mpi.distribution.layout import Layout, owners
from sqd_mpi.problem.excitations import find_singles
from sqd_mpi.problem.spin_strings import SpinStrings
from tests.support.problems import random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0])
NORB = len(LABELS)
PAIR_LABELS = np.array([LABELS[p] ^ LABELS[q] for p in range(NORB) for q in range(p + 1)], np.int64)
N_PAIRS = len(PAIR_LABELS)


def a_layout() -> Layout:
    """Strings of both spins on a grid."""
    alpha = SpinStrings.from_canonical(random_strings(NORB, 3, 40), LABELS, 4)
    beta = SpinStrings.from_canonical(random_strings(NORB, 4, 120, seed=1), LABELS, 4)
    return Layout.create(alpha, beta, 1, (2, 2, 1, 1))


def read(found: lists.BetaLists, q: int) -> set[tuple[int, int, int, int]]:
    """Entries of a list as (column, ket column, directed pair, sign), read as the kernels do."""
    row, sliced, entries = found.table[q], found.sliced, []
    n_columns = row[lists.N_COLUMNS]
    n_slices = -(-n_columns // 32)
    for tile in range(row[lists.N_TILES]):
        for position in range(n_columns):
            j = int(sliced.order[row[lists.FIRST_COLUMN] + position])
            first = sliced.slice_start[row[lists.FIRST_SLICE] + tile * n_slices + position // 32] + position % 32
            for m in range(sliced.counts[row[lists.FIRST_COUNT] + tile * n_columns + position]):
                entry = int(found.entries[first + 32 * m])
                directed = entry >> 16 & 0x7FFF
                pair = 2 * int(found.used[row[lists.FIRST_USED] + directed // 2]) + directed % 2
                entries.append((j, tile * sliced.tile_width + (entry & 0xFFFF), pair, -1 if entry >> 31 else 1))
    assert len(set(entries)) == len(entries)
    return set(entries)


@pytest.mark.parametrize("tile_width", [1, 7, 32, 1000])
@pytest.mark.parametrize("db", [0, 1])
def test_beta_singles_are_found_where_kernels_look(tile_width: int, db: int) -> None:
    layout = a_layout()
    table = beta_singles(layout, 1, NORB, PAIR_LABELS)[db]
    found = lists.beta_lists(table, N_PAIRS, tile_width)
    for q in range(16):
        first, last = table.matrix_row[q], table.matrix_row[q + 1]
        expected = {
            (row - first, int(table.column[m]), int(table.orbital_pair[m]), int(table.sign[m]))
            for row in range(first, last)
            for m in range(table.indptr[row], table.indptr[row + 1])
        }
        assert read(found, q) == expected
        numbers = found.table[q]
        assert sorted(found.sliced.order[first:last]) == list(range(last - first))
        used = found.used[numbers[lists.FIRST_USED] : numbers[lists.FIRST_USED] + numbers[lists.N_USED]]
        assert np.all(np.diff(used) > 0)
        if not table.matrix_diagonal[q]:
            assert numbers[lists.FIRST_OCCUPIED] == -1
            continue
        occupied = found.occupied[numbers[lists.FIRST_OCCUPIED] :][: 4 * (last - first)].reshape(4, -1)
        order = found.sliced.order[first:last]
        np.testing.assert_array_equal(used[occupied].T, table.occupied_pair[first:last][order])


def test_neighbouring_columns_are_equally_long() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 40, 700)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    column = np.zeros(indptr[-1], np.int32)
    found = lists.sliced_rows(np.array([0, 700]), np.array([1]), indptr, column, 1)
    for start in range(0, 700, lists.WINDOW):
        assert np.all(np.diff(found.counts[start : start + lists.WINDOW]) <= 0)
    np.testing.assert_array_equal(found.counts, counts[found.order])
    assert np.all(found.order // lists.WINDOW == np.arange(700) // lists.WINDOW)
    assert column.size / found.size > 0.85


def test_doubles_stand_in_their_places() -> None:
    rng = np.random.default_rng(5)
    dense = rng.normal(size=(50, 30)) * (rng.random((50, 30)) < 0.3)
    indptr = np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))])
    rows = SparseRows(indptr, np.nonzero(dense)[1].astype(np.int32), dense[dense != 0])
    starts, n_ket = np.array([0, 20, 20, 50]), np.array([30, 5, 30])
    sliced, column, value = lists.double_lists(rows, starts, n_ket, 13)
    back = np.zeros_like(dense)
    for y in range(3):
        numbers = sliced.table[y]
        n_columns = numbers[lists.N_COLUMNS]
        for tile in range(numbers[lists.N_TILES]):
            for position in range(n_columns):
                row = starts[y] + sliced.order[starts[y] + position]
                at = numbers[lists.FIRST_SLICE] + tile * -(-n_columns // 32) + position // 32
                for m in range(sliced.counts[numbers[lists.FIRST_COUNT] + tile * n_columns + position]):
                    place = sliced.slice_start[at] + 32 * m + position % 32
                    back[row, 13 * tile + column[place]] += value[place]
    np.testing.assert_array_equal(back, dense)


def test_alpha_singles_are_sorted_by_label_of_their_pair() -> None:
    layout = a_layout()
    strings = layout.alpha.strings
    singles = find_singles(strings, strings, NORB)
    in_block, rows = owners(layout.alpha_bounds) == 1, (3, 30)
    ket_row = np.arange(len(strings), dtype=np.int32)[::-1].copy()
    found = lists.alpha_lists(singles, rows, in_block, ket_row, PAIR_LABELS, 4)
    n = 0
    for row in range(*rows):
        for d in range(4):
            begin, end = found.start[4 * (row - 3) + d : 4 * (row - 3) + d + 2]
            own = slice(singles.indptr[row], singles.indptr[row + 1])
            chosen = in_block[singles.ket[own]] & (PAIR_LABELS[singles.pair[own] >> 1] == d)
            for mine, theirs in ((found.ket, ket_row[singles.ket[own]]), (found.pair, singles.pair[own])):
                np.testing.assert_array_equal(mine[begin:end], theirs[chosen])
            np.testing.assert_array_equal(found.sign[begin:end], singles.sign[own][chosen])
            n += end - begin
    assert n == found.ket.size > 0
    assert found.counts(4).sum() == n


def test_thread_blocks_cover_every_wanted_column_once() -> None:
    stop = np.array([0, 300, 5, 1000, 256])
    rows, first = lists.stretches(np.array([1.0, 2.0, 0.0, 1.0, 1.0]), stop, 256, 10)
    assert sorted(zip(rows.tolist(), first.tolist(), strict=True)) == [
        (11, 0), (11, 256), (13, 0), (13, 256), (13, 512), (13, 768), (14, 0)
    ]  # fmt: skip
    assert rows[0] == 11  # the heaviest first
    groups = lists.row_groups(np.array([0, 2, 2, 5]), stop, (1, 5), 2, 256)
    covered = {(row, column) for row, n, column in zip(*groups, strict=True) for row in range(row, row + n)}
    assert {(row, column) for row in range(1, 5) for column in range(0, stop[row], 256)} <= covered
    assert {(int(row), int(n)) for row, n, _ in zip(*groups, strict=True)} == {(1, 1), (2, 2), (4, 1)}
