"""Lists of equal alpha and beta strings are made once, and do not depend on how, nor on the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi import _jit
from sqd_mpi.backends.cpu import block as cpu
from sqd_mpi.backends.cpu import lists
from sqd_mpi.backends.gpu import lists as gpu_lists
from sqd_mpi.distribution.layout import Layout, owners
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import OrbitalLabels
from tests.support.problems import close_strings, make_hamiltonian

LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0])
NORB = len(LABELS)


def make_structure(
    grid: tuple[int, int, int, int], place: tuple[int, int, int, int], sector: int, parity: int, norb: int = NORB,
    count: int = 90,
) -> cpu.StringStructure:  # fmt: skip
    """String structure of equal alpha and beta strings."""
    labels = LABELS if norb == NORB else np.arange(norb) % 4
    strings = SpinStrings.from_canonical(close_strings(norb, 4, count), labels, 4)
    layout = Layout.create(strings, strings, sector, grid, parity)
    hamiltonian = make_hamiltonian(norb, (4, 4), labels=labels)
    return cpu.StringStructure(layout, place, hamiltonian, OrbitalLabels(labels, 4, 0.0, 0.0, 0.0))


def arrays_of(part: object) -> list[np.ndarray]:
    values = part if isinstance(part, tuple) else vars(part).values()
    return [value for value in values if isinstance(value, np.ndarray)]


@pytest.mark.parametrize(
    ("grid", "place", "sector", "parity", "shared"),
    [
        ((1, 1, 1, 1), (0, 0, 0, 0), 0, 1, True),
        ((1, 1, 1, 1), (0, 0, 0, 0), 0, 0, True),
        ((1, 1, 1, 1), (0, 0, 0, 0), 2, 0, True),
        ((1, 1, 1, 1), (0, 0, 0, 0), 2, 1, False),  # a part of the rows is stored
        ((3, 3, 1, 1), (1, 1, 0, 0), 0, 0, True),
        ((3, 3, 1, 1), (1, 2, 0, 0), 0, 0, False),
        ((2, 2, 1, 2), (1, 1, 0, 1), 0, 0, False),
        ((2, 1, 1, 1), (0, 0, 0, 0), 0, 0, False),
    ],
)
def test_lists_of_beta_are_those_of_alpha(grid, place, sector, parity, shared, monkeypatch):
    mine, other = (make_structure(grid, place, sector, parity) for _ in range(2))
    monkeypatch.setattr(type(other), "_doubles_of_alpha", lambda self, db: None)
    expected = [other.beta_hamiltonian(db) for db in range(grid[1])]
    columns = lists.beta_singles(other.layout, place[1], NORB, other.pair_labels_b)
    monkeypatch.undo()
    for db in range(grid[1]):
        if db < grid[0]:
            mine.alpha_hamiltonian(db, (0, len(mine.bra.alpha)))
        assert (mine._doubles_of_alpha(db) is not None) == shared
        doubles, values = mine.beta_hamiltonian(db)
        for found, wanted in zip(arrays_of(doubles), arrays_of(expected[db][0]), strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(values, expected[db][1])
        for found, wanted in zip(arrays_of(mine.beta[db]), arrays_of(columns[db]), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_spin_dependent_integrals_have_lists_of_their_own():
    found = make_structure((1, 1, 1, 1), (0, 0, 0, 0), 0, 0)
    (h1e, eri), _ = found.integrals
    found.integrals = (h1e, eri), (2.0 * h1e, eri)
    found.alpha_hamiltonian(0, (0, len(found.bra.alpha)))
    assert found._doubles_of_alpha(0) is None


@pytest.mark.parametrize(
    ("norb", "count", "tile_width"),
    [(NORB, 1, 8), (NORB, 90, 7), (65, 70, 1000), pytest.param(130, 40, 16, marks=pytest.mark.slow)],
)
def test_lists_do_not_depend_on_the_number_of_threads(norb, count, tile_width):
    made = []
    for n_threads in (1, 4):
        with _jit.at_most(n_threads):
            found = make_structure((1, 1, 1, 1), (0, 0, 0, 0), 0, 1, norb, count)
            n_pairs, layout = len(found.pair_labels), found.layout
            beta = gpu_lists.beta_lists(found.beta[0], n_pairs, tile_width)
            rows = found.alpha_hamiltonian(0, (0, count))
            doubles, values = found.beta_hamiltonian(0)
            _, start = layout.beta_rows(0)
            sliced, column, value = gpu_lists.double_lists(doubles, start, np.diff(start), tile_width)
            alpha = gpu_lists.alpha_lists(
                found.singles, (0, count), owners(layout.alpha_bounds) == 0, np.arange(count, dtype=np.int32),
                found.pair_labels, 4,
            )  # fmt: skip
            placed = gpu_lists.placed_values(beta.sliced.where, values, beta.sliced.size)
            parts = [found.beta[0], beta, beta.sliced, rows, doubles, sliced, alpha]
            made.append([column, value, placed, found.singles_per_row, *(a for part in parts for a in arrays_of(part))])
    for one, four in zip(*made, strict=True):
        np.testing.assert_array_equal(one, four)


def test_groups_of_rows_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    label_start = np.array([0, 7, 7, 30, 41])
    stop = rng.integers(0, 900, 41)
    for rows in ((0, 41), (5, 33), (8, 9), (7, 7)):
        for size, width in ((1, 256), (4, 256), (3, 1000)):
            first, n_rows, column = gpu_lists.row_groups(label_start, stop, rows, size, width)
            expected = []
            for low, high in zip(np.clip(label_start, *rows)[:-1], np.clip(label_start, *rows)[1:], strict=True):
                for row in range(low, high, size):
                    n = min(size, high - row)
                    expected += [(row, n, at) for at in range(0, int(stop[row : row + n].max(initial=0)), width)]
            expected.sort(key=lambda block: -int(stop[block[0]]))
            assert list(zip(first.tolist(), n_rows.tolist(), column.tolist(), strict=True)) == expected
