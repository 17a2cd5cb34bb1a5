"""Weights of strings and occupancies against sums over the whole vector."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.solver.observables import carry_over, occupancies, string_weights
from tests.support.problems import random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])
PLACE = (0, 0, 0, 0)


def random_vector(layout: Layout, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A normalised vector of the sector, flat and as an array in canonical order."""
    vector = np.random.default_rng(seed).normal(size=layout.dimension)
    vector /= np.linalg.norm(vector)
    where = layout.geometry(*PLACE)
    rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
    whole = np.zeros((layout.alpha.size, layout.beta.size))
    whole[layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]] = vector
    return vector, whole


@pytest.mark.parametrize("sector", range(4))
def test_weights_of_a_sector(sector):
    strings = random_strings(7, 3, 21), random_strings(7, 4, 17, seed=1)
    layout = Layout.create(*(SpinStrings.from_canonical(each, LABELS, 4) for each in strings), sector, (1, 1, 1, 1))
    vector, whole = random_vector(layout)
    found = string_weights(ProcessGrid(None, (1, 1, 1, 1)), layout, vector)
    np.testing.assert_allclose(found.alpha, (whole**2).sum(axis=1), atol=1e-14)
    np.testing.assert_allclose(found.beta, (whole**2).sum(axis=0), atol=1e-14)
    assert np.array_equal(found.largest_alpha, np.abs(whole).max(axis=1))
    assert np.array_equal(found.largest_beta, np.abs(whole).max(axis=0))


@pytest.mark.parametrize("norb", [5, 64, 65, 130])
def test_occupancies_are_weighted_means(norb):
    strings = random_strings(norb, 3, 8, seed=norb)
    weights = np.random.default_rng(0).dirichlet(np.ones(8))
    found = occupancies(strings, weights, norb)
    np.testing.assert_allclose(found, weights @ bitstrings.unpack(strings, norb), atol=1e-15)
    assert found.sum() == pytest.approx(3.0, abs=1e-14)


def test_occupancies_without_electrons():
    assert occupancies(random_strings(6, 0, 1), np.ones(1), 6).tolist() == [0.0] * 6


def test_carry_over_is_above_the_threshold_and_sorted():
    strings = random_strings(9, 4, 6)
    largest = np.array([0.1, 1e-4, 0.7, 0.0, 2e-4, 0.3])
    assert np.array_equal(carry_over(strings, largest, 1e-4), strings[[2, 5, 0, 4]])
    assert np.array_equal(carry_over(strings, largest, 0.0), strings[[2, 5, 0, 4, 1]])
    assert carry_over(strings, largest, 1.0).shape == (0, 1)
