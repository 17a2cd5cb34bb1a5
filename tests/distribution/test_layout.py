"""Ownership of determinants: exactly one owner on every grid, and all views of a block agree."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqd_mpi.distribution.layout import Layout, owners
from sqd_mpi.problem.spin_strings import FoundSingles, SpinStrings, sectors
from sqd_mpi.problem.symmetry import string_labels
from tests.support.problems import all_strings, random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


def spin_strings(counts: list[int], seed: int = 0) -> SpinStrings:
    """As many strings of every label as asked for; the strings themselves do not matter here."""
    size = sum(counts)
    canonical = np.random.default_rng(seed).permutation(size).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    weight = np.random.default_rng(seed + 1).random(size) + 0.1
    strings = np.arange(size, dtype=np.uint64)[:, None]
    return SpinStrings(strings, canonical, start, weight, FoundSingles(strings, 64))


def places(grid):
    """(ia, ib, it, ir) of every rank."""
    a, b, t, r = grid
    return product(range(a), range(b), range(t), range(r))


def label_of(strings: SpinStrings) -> np.ndarray:
    """Label of every working position."""
    return np.repeat(np.arange(strings.n_labels), np.diff(strings.label_start))


def check(layout: Layout) -> None:
    """Every determinant of the sector has one owner, and the arrays of blocks and slices say the same."""
    seen = np.zeros((layout.alpha.size, layout.beta.size), np.int64)
    total = 0
    for ia, ib, it, ir in places(layout.grid):
        where = layout.geometry(ia, ib, it, ir)
        assert where.size == layout.slice_size(ia, ib, it, ir)
        rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
        np.add.at(seen, (where.alpha[rows], where.beta[columns]), 1)
        total += where.size
        sizes = [layout.sub_block_size(ia, group, ib) for group in range(layout.grid[3])]
        # A bra row lies in its sub-block where the ket view of the whole block has it.
        bra = layout.bra_rows(ia, ir, ib)
        ket, _ = layout.ket_rows(ia)
        assert np.array_equal(ket[bra.block_row], bra.alpha)
        if not layout.parity:
            assert sum(sizes) == layout.block_size(ia, ib)
            assert np.array_equal(layout.ket_offsets(ia, ib)[bra.block_row], bra.offset + sum(sizes[:ir]))
    if layout.parity:
        # One of each mirrored pair is stored, never both.
        seen = seen + seen.T - np.diag(np.diag(seen))
        assert layout.parity > 0 or not np.diag(seen).any()
        seen[np.diag_indices(len(seen))] += layout.parity < 0 and layout.sector == 0
    expected = (label_of(layout.alpha)[:, None] ^ label_of(layout.beta)[None, :]) == layout.sector
    assert np.array_equal(seen, expected.astype(np.int64))
    assert total == layout.dimension
    assert layout.n_determinants == expected.sum()
    assert layout.parity or total == expected.sum()


GRIDS = [(1, 1, 1, 1), (2, 1, 1, 1), (1, 3, 1, 1), (1, 1, 4, 1), (1, 1, 1, 4), (2, 2, 3, 2), (3, 2, 2, 3), (7, 5, 2, 2)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sector", range(4))
def test_four_labels(grid, sector):
    alpha = SpinStrings.from_canonical(random_strings(7, 3, 21), LABELS, 4)
    beta = SpinStrings.from_canonical(random_strings(7, 4, 17, seed=1), LABELS, 4)
    check(Layout.create(alpha, beta, sector, grid))


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid[0] == grid[1]] + [(3, 3, 1, 2), (9, 9, 1, 1)])
@pytest.mark.parametrize("sector", range(4))
@pytest.mark.parametrize("parity", [1, -1])
def test_one_of_each_mirrored_pair(grid, sector, parity):
    alpha = SpinStrings.from_canonical(random_strings(7, 3, 21), LABELS, 4)
    check(Layout.create(alpha, alpha, sector, grid, parity))


def weighted_strings() -> SpinStrings:
    """Strings of four labels with uneven weights."""
    strings = SpinStrings.from_canonical(random_strings(7, 3, 21), LABELS, 4)
    return strings.weighted(np.random.default_rng(3).random(21) ** 4 + 0.01, 0.3)


@pytest.mark.parametrize("grid", [(2, 2, 1, 1), (3, 3, 1, 2), (1, 1, 2, 3), (9, 9, 1, 1)])
@pytest.mark.parametrize("sector", range(4))
@pytest.mark.parametrize("parity", [1, -1, 0])
def test_weights_and_dealt_strings_keep_one_owner(grid, sector, parity):
    alpha = weighted_strings()
    check(Layout.create(alpha, alpha, sector, grid, parity))
    dealt = alpha.dealt(grid[0])
    check(Layout.create(dealt, dealt, sector, grid, parity))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(lambda n: len(n) in (1, 2, 4, 8)), st.integers(1, 9))
def test_dealt_parts_have_like_weights(counts, n_parts):
    strings = spin_strings(counts)
    dealt = strings.dealt(n_parts)
    assert np.array_equal(dealt.label_start, strings.label_start)
    by_name = np.argsort(dealt.canonical)
    assert np.array_equal(dealt.strings[by_name], strings.strings[np.argsort(strings.canonical)])
    assert np.array_equal(dealt.weight[by_name], strings.weight[np.argsort(strings.canonical)])
    assert np.array_equal(label_of(dealt)[by_name], label_of(strings)[np.argsort(strings.canonical)])
    for row in dealt.bounds(n_parts):
        sums = []
        for first, last in zip(row[:-1], row[1:], strict=True):
            assert np.all(np.diff(dealt.canonical[first:last]) > 0)
            sums.append(dealt.weight[first:last].sum())
        # Going back and forth, two parts differ by the range of all weights plus at most one string.
        assert np.ptp(sums) <= 2 * dealt.weight[row[0] : row[-1]].max(initial=0.0) + 1e-12


@pytest.mark.parametrize("grid", [(5, 4, 1, 1), (8, 8, 1, 2), (3, 3, 3, 3), (1, 9, 1, 1)])
def test_more_blocks_than_strings(grid):
    check(Layout.create(spin_strings([3]), spin_strings([2], 1), 0, grid))
    check(Layout.create(spin_strings([1]), spin_strings([1]), 0, grid))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=4),
    st.lists(st.integers(0, 5), min_size=4, max_size=4),
    st.integers(0, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)
def test_any_counts_on_any_grid(counts_a, counts_b, sector, grid):
    check(Layout.create(spin_strings(counts_a), spin_strings(counts_b, 1), sector, grid))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(lambda n: len(n) in (1, 2, 4, 8)), st.integers(1, 9))
def test_parts_are_nearly_equal(counts, n_parts):
    strings = spin_strings(counts)
    bounds = strings.bounds(n_parts)
    assert bounds.shape == (len(counts), n_parts + 1)
    assert np.array_equal(bounds[:, 0], strings.label_start[:-1])
    assert np.array_equal(bounds[:, -1], strings.label_start[1:])
    widths = np.diff(bounds, axis=1)
    assert widths.min() >= 0
    assert np.all(np.ptp(widths, axis=1) <= 1)
    assert np.ptp(widths.sum(axis=0)) <= 1
    owner = owners(bounds)
    assert np.array_equal(np.bincount(owner, minlength=n_parts), widths.sum(axis=0))
    for row in bounds:
        assert np.all(np.diff(owner[row[0] : row[-1]]) >= 0)


def test_strings_are_sorted_by_label_and_canonical_inside():
    strings = all_strings(7, 3)
    ordered = SpinStrings.from_canonical(strings, LABELS, 4)
    assert np.array_equal(strings[ordered.canonical], ordered.strings)
    assert np.array_equal(string_labels(ordered.strings, LABELS), label_of(ordered))
    for first, last in zip(ordered.label_start[:-1], ordered.label_start[1:], strict=True):
        assert np.all(np.diff(ordered.canonical[first:last]) > 0)
    assert (ordered.n_labels, ordered.size) == (4, 35)


def test_sectors_that_hold_a_determinant():
    assert sectors(spin_strings([3, 0, 0, 1]), spin_strings([2, 0, 0, 0])) == [0, 3]
    assert sectors(spin_strings([0, 2, 0, 0]), spin_strings([0, 0, 1, 0])) == [3]
    assert sectors(spin_strings([1, 1, 1, 1]), spin_strings([0, 0, 1, 0])) == [0, 1, 2, 3]


def test_dimensions_of_all_sectors_add_up():
    alpha, beta = spin_strings([3, 1, 4, 1]), spin_strings([5, 9, 2, 6])
    dimensions = [Layout.create(alpha, beta, sector, (2, 2, 1, 1)).dimension for sector in range(4)]
    assert sum(dimensions) == 9 * 22
    assert dimensions[0] == 3 * 5 + 1 * 9 + 4 * 2 + 1 * 6


def test_slices_are_balanced_over_the_replicas():
    layout = Layout.create(spin_strings([50, 31]), spin_strings([40, 47]), 1, (2, 2, 3, 4))
    sizes = np.array([layout.slice_size(*place) for place in places(layout.grid)])
    assert sizes.sum() == layout.dimension
    assert sizes.max() <= 1.25 * sizes.mean()
