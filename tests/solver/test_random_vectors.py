"""Random vectors: the same on every grid, of the right parity, nowhere zero."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.distribution.layout import Layout
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.solver.random_vectors import fill_random
from tests.support.problems import random_strings

LABELS = np.array([0, 1, 0, 1, 0, 1, 0])


def whole(shape, parity, sector, seed=3):
    """The vector put together from the slices of all ranks of a grid: (n, n), unscaled where halves are stored."""
    strings = SpinStrings.from_canonical(random_strings(7, 3, 25), LABELS, 2)
    layout = Layout.create(strings, strings, sector, shape, parity)
    out = np.full((25, 25), np.nan)
    a, b, t, r = shape
    for place in np.ndindex(a, b, t, r):
        where = layout.geometry(*place)
        part = np.empty(where.size)
        fill_random(layout, place, seed, np.linspace(-1.0, 1.0, where.size) * 0.0 - 1.0, -2.0, part)
        rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
        alpha, beta = layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]
        out[alpha, beta] = part
        if parity:
            out[beta, alpha] = parity * part
            out[alpha[where.diagonal], beta[where.diagonal]] = part[where.diagonal]
    return out


@pytest.mark.parametrize("sector", [0, 1])
@pytest.mark.parametrize("parity", [0, 1, -1])
def test_the_same_on_every_grid(parity, sector):
    expected = whole((1, 1, 1, 1), parity, sector)
    for shape in [(2, 2, 1, 1), (1, 1, 3, 2), (3, 3, 2, 1)] + ([(2, 3, 1, 2)] if parity == 0 else []):
        np.testing.assert_array_equal(whole(shape, parity, sector), expected)
    known = expected[~np.isnan(expected)]
    assert np.all(known != 0.0) and abs(known).max() <= 1.0 and abs(known.mean()) < 0.2 < known.std()
    if parity:
        np.testing.assert_array_equal(expected, parity * expected.T)


def test_another_seed_gives_another_vector_and_low_determinants_weigh_more():
    first, second = (whole((1, 1, 1, 1), 0, 0, seed) for seed in (1, 2))
    mask = ~np.isnan(first)
    assert abs(np.corrcoef(first[mask], second[mask])[0, 1]) < 0.2
    strings = SpinStrings.from_canonical(random_strings(7, 3, 25), np.zeros(7, np.int64), 1)
    layout = Layout.create(strings, strings, 0, (1, 1, 1, 1))
    out, flat = np.empty(625), np.empty(625)
    diagonal = np.linspace(0.0, 10.0, 625)
    fill_random(layout, (0, 0, 0, 0), 1, diagonal, -1.0, out)
    fill_random(layout, (0, 0, 0, 0), 1, np.zeros(625), -1.0, flat)
    np.testing.assert_allclose(out * (diagonal + 1.0), flat, rtol=1e-14)
