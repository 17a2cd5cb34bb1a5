"""The space of a solve: both sets of strings, and singles that are found once, in any order of the strings."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.problem.excitations import Singles, find_singles
from sqd_mpi.problem.space import Space
from sqd_mpi.problem.spin_strings import SpinStrings
from tests.support.problems import all_strings, close_strings, make_hamiltonian, spin_dependent
from tests.support.searches import count_searches

LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3])


def assert_same(found: Singles, expected: Singles) -> None:
    """Every array is equal."""
    for name in ("indptr", "ket", "pair", "sign"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def dealt_strings(norb: int, n: int, count: int, n_parts: int, labels: np.ndarray) -> SpinStrings:
    """Strings in the order of a grid, by weights that have nothing to do with that by label."""
    strings = all_strings(norb, n) if n in (0, norb) else close_strings(norb, n, count)
    found = SpinStrings.from_canonical(strings, labels, int(labels.max()) + 1)
    weights = np.random.default_rng(1).random(found.size) + 0.1
    return found.weighted(weights, 0.3).dealt(n_parts) if n_parts > 1 else found


SIZES = [(8, 4, 47), (8, 1, 8), (8, 0, 1), (8, 8, 1), (65, 3, 40), (130, 2, 9)]


@pytest.mark.parametrize("n_parts", [1, 2, 5])
@pytest.mark.parametrize(("norb", "n", "count"), SIZES)
def test_singles_of_dealt_strings_are_those_found_afresh(norb, n, count, n_parts, monkeypatch):
    strings = dealt_strings(norb, n, count, n_parts, np.resize(LABELS, norb))
    expected = find_singles(strings.strings, strings.strings, norb)
    degrees = count_searches(monkeypatch)
    assert_same(strings.singles(), expected)
    np.testing.assert_array_equal(strings.n_singles(), np.diff(expected.indptr))
    chosen = np.random.default_rng(0).permutation(strings.size)[: strings.size // 2 + 1]
    assert_same(strings.singles(chosen), expected.rows(chosen))
    assert degrees == [1]
    if n_parts == 1:  # the lists of a process alone need no second copy
        assert strings.singles(np.arange(strings.size)) is strings.singles()


def test_a_rank_keeps_the_singles_of_its_own_strings(monkeypatch):
    strings = dealt_strings(8, 4, 47, 3, LABELS)
    expected = strings.singles()
    before = strings.found.nbytes
    mine = np.flatnonzero(np.arange(47) % 3 == 1)
    strings.keep_singles_of(mine)
    degrees = count_searches(monkeypatch)
    assert strings.found.nbytes < before / 2
    assert_same(strings.singles(mine[::-1]), expected.rows(mine[::-1]))
    assert degrees == []
    others = np.array([0, 3])
    assert_same(strings.singles(others), expected.rows(others))
    assert degrees == [1]


def test_kets_of_a_range_are_numbered_from_its_start():
    strings = dealt_strings(8, 4, 47, 1, LABELS)
    part = strings.singles(np.arange(5, 20)).between(10, 30)
    assert_same(part, find_singles(strings.strings[5:20], np.ascontiguousarray(strings.strings[10:30]), 8))


def test_equal_sets_are_one():
    hamiltonian, strings = make_hamiltonian(8, (4, 4)), close_strings(8, 4, 30)
    space = Space.create(hamiltonian, strings[::-1], np.concatenate([strings, strings[:3]]))
    assert space.same_spins and space.n_determinants == 900 and space.alpha.found is space.beta.found
    np.testing.assert_array_equal(space.canonical_strings[1], strings)
    assert not Space.create(hamiltonian, strings, strings[1:]).same_spins
    assert not Space.create(spin_dependent(8, (4, 4)), strings, strings).same_spins
