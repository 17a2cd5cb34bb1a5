"""Singles and doubles against their definition by creation and annihilation operators on Python integers."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.excitations import choose_method, find_doubles, find_singles, occupied_between, occupied_orbitals
from tests.support.problems import all_strings, close_strings, random_strings

METHODS = ["compare", "look-up", "auto"]


def apply(operators: list[tuple[str, int]], string: int) -> tuple[int, int]:
    """Product of operators on a string, rightmost first: (sign, string), sign 0 if it vanishes."""
    sign = 1
    for kind, orbital in reversed(operators):
        if bool(string >> orbital & 1) == (kind == "create"):
            return 0, 0
        sign *= (-1) ** (string & ((1 << orbital) - 1)).bit_count()
        string ^= 1 << orbital
    return sign, string


def pair(p: int, q: int) -> int:
    """Index of an orbital pair."""
    return max(p, q) * (max(p, q) + 1) // 2 + min(p, q)


def orbitals(string: int) -> list[int]:
    """Occupied orbitals, ascending."""
    return [k for k in range(string.bit_length()) if string >> k & 1]


def expected_singles(bra: list[int], ket: list[int]) -> list[list[tuple[int, int, int]]]:
    """For every bra string: (ket, directed pair, sign)."""
    rows = []
    for target in bra:
        row = []
        for k, source in enumerate(ket):
            if (target ^ source).bit_count() == 2:
                (p,), (q,) = orbitals(target & ~source), orbitals(source & ~target)
                sign, reached = apply([("create", p), ("annihilate", q)], source)
                assert reached == target
                row.append((k, 2 * pair(p, q) + (p < q), sign))
        rows.append(row)
    return rows


def expected_doubles(bra: list[int], ket: list[int]) -> list[list[tuple[int, int, int, int]]]:
    """For every bra string: (ket, created pair, annihilated pair, sign)."""
    rows = []
    for target in bra:
        row = []
        for k, source in enumerate(ket):
            if (target ^ source).bit_count() == 4:
                (q, p), (s, r) = orbitals(target & ~source), orbitals(source & ~target)
                product = [("create", p), ("annihilate", r), ("create", q), ("annihilate", s)]
                sign, reached = apply(product, source)
                assert reached == target
                row.append((k, pair(p, q), pair(r, s), sign))
        rows.append(row)
    return rows


def check(bra, ket, norb, method):
    """Both kinds of excitations between two lists."""
    bra_integers, ket_integers = bitstrings.to_integers(bra), bitstrings.to_integers(ket)
    singles = find_singles(bra, ket, norb, method)
    doubles = find_doubles(bra, ket, norb, method)
    for found, fields, expected in (
        (singles, (singles.ket, singles.pair, singles.sign), expected_singles(bra_integers, ket_integers)),
        (
            doubles,
            (doubles.ket, doubles.created, doubles.annihilated, doubles.sign),
            expected_doubles(bra_integers, ket_integers),
        ),
    ):
        assert found.indptr.tolist() == np.cumsum([0] + [len(row) for row in expected]).tolist()
        entries = list(zip(*(array.tolist() for array in fields), strict=True))
        assert entries == [entry for row in expected for entry in row]
    return singles.ket.size, doubles.ket.size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("norb", "n_electrons"), [(5, 2), (64, 5), (65, 4), (130, 3)])
def test_a_set_with_itself(norb, n_electrons, method):
    strings = close_strings(norb, n_electrons, 10 if norb == 5 else 90, seed=norb)
    assert min(check(strings, strings, norb, method)) > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("norb", "n_electrons"), [(8, 4), (64, 3), (65, 3), (130, 2)])
def test_bra_range_unlike_ket_range(norb, n_electrons, method):
    pool = close_strings(norb, n_electrons, 60, seed=1)
    other = random_strings(norb, n_electrons, 20, seed=2)
    ket = bitstrings.canonical(np.concatenate([pool[::2], other]))[0]
    assert check(pool[5:29], ket, norb, method)[0] > 0
    check(pool[:1], ket, norb, method)
    check(pool, ket[3:4], norb, method)


@pytest.mark.parametrize("method", METHODS)
def test_bra_in_any_order(method):
    strings = close_strings(9, 4, 50)
    order = np.random.default_rng(0).permutation(50)
    check(np.ascontiguousarray(strings[order]), strings, 9, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norb", [6, 70])
def test_empty_lists(norb, method):
    strings, nothing = close_strings(norb, 2, 7), close_strings(norb, 2, 7)[:0]
    for bra, ket in ((nothing, strings), (strings, nothing), (nothing, nothing)):
        assert check(bra, ket, norb, method) == (0, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("norb", "n_electrons"), [(6, 0), (70, 0), (6, 6), (64, 64), (65, 65)])
def test_no_electrons_and_full_shells(norb, n_electrons, method):
    strings = bitstrings.from_integers([(1 << n_electrons) - 1], norb)
    assert check(strings, strings, norb, method) == (0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_one_electron_and_one_hole(method):
    for n_electrons in (1, 6):
        strings = all_strings(7, n_electrons)
        assert check(strings, strings, 7, method) == (42, 0)


def test_whole_space_has_the_combinatorial_counts():
    strings = all_strings(10, 4)
    for method in METHODS:
        assert set(np.diff(find_singles(strings, strings, 10, method).indptr)) == {4 * 6}
        assert set(np.diff(find_doubles(strings, strings, 10, method).indptr)) == {6 * 15}


def test_excitations_across_words():
    # Bits 63, 64 and 127 are the edges of words.
    integers = [1 << 63 | 1 << 3, 1 << 64 | 1 << 3, 1 << 127 | 1 << 3, 1 << 127 | 1 << 64, 1 << 129 | 1 << 128]
    strings = bitstrings.from_integers(sorted(integers), 130)
    for method in METHODS:
        assert check(strings, strings, 130, method) == (10, 10)


@pytest.mark.parametrize("norb", [5, 64, 130])
def test_occupied_orbitals_and_those_between(norb):
    strings = random_strings(norb, 3, 6, seed=4)
    integers = bitstrings.to_integers(strings)
    assert occupied_orbitals(strings).tolist() == [orbitals(each) for each in integers]
    rng = np.random.default_rng(norb)
    for words, integer in zip(strings, integers, strict=True):
        for p, q in rng.integers(norb, size=(20, 2)):
            low, high = min(p, q), max(p, q)
            assert occupied_between(words, p, q) == sum(low < k < high for k in orbitals(integer))


def test_method_follows_the_number_of_kets():
    assert choose_method(10, 1, 24, 5, 1) == "compare"
    assert choose_method(10**6, 1, 24, 5, 1) == "look-up"
    assert choose_method(10**6, 1, 24, 0, 2) == "look-up"


@pytest.mark.parametrize("method", ["compare", "look-up"])
def test_published_set_of_1543_strings(data_dir, method):
    strings = bitstrings.canonical(bitstrings.read_text_file(data_dir / "h2o" / "h2o-1em4-alpha.txt", 24))[0]
    distance = np.bitwise_count(strings[:, 0][:, None] ^ strings[:, 0][None, :])
    for degree, find in ((1, find_singles), (2, find_doubles)):
        found = find(strings, strings, 24, method)
        assert np.diff(found.indptr).tolist() == (distance == 2 * degree).sum(axis=1).tolist()
        assert found.ket.tolist() == np.nonzero(distance == 2 * degree)[1].tolist()


def test_published_set_of_39028_strings(data_dir):
    strings = bitstrings.canonical(bitstrings.read_text_file(data_dir / "h2o" / "h2o-1em8-alpha.txt", 24))[0]
    assert len(strings) == 39028
    rows = np.random.default_rng(0).choice(len(strings), 40, replace=False)
    distance = np.bitwise_count(strings[rows, 0][:, None] ^ strings[:, 0][None, :])
    for degree, find in ((1, find_singles), (2, find_doubles)):
        found = find(strings, strings, 24)
        counts = np.diff(found.indptr)
        assert counts[rows].tolist() == (distance == 2 * degree).sum(axis=1).tolist()
        # The relation is symmetric: each string is a ket as often as a bra.
        assert np.array_equal(np.bincount(found.ket, minlength=len(strings)), counts)
