"""Batches on groups of ranks: the same as one after another, and isolated."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from mpi4py import MPI

from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.loop import batches
from sqd_mpi.loop.batches import BatchGroup, shared_on_nodes, solve_batches
from tests.support import faulty
from tests.support.problems import make_hamiltonian, random_strings

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
SIZES = (30, 40, 45, 50, 35)


def problem():
    """A Hamiltonian and five batches."""
    strings = [(random_strings(8, 4, n, k), random_strings(8, 3, n - 5, k)) for k, n in enumerate(SIZES)]
    return make_hamiltonian(8, (4, 3), 1), strings


def on_ranks(**settings):
    """Results of the five batches on all ranks."""
    hamiltonian, strings = problem()
    with shared_on_nodes(COMM, hamiltonian if COMM.rank == 0 else None) as shared:
        place = {"comm": COMM} if COMM.size > 1 else {"workers": 0}
        return solve_batches(shared, strings, **place, **settings)


@cache
def alone():
    """Results of single solves."""
    return solve_batches(*problem(), workers=0)


def assert_same(results, besides=()):
    """All results but some are those of single solves."""
    assert [result.number for result in results] == list(range(len(SIZES)))
    for result, other in zip(results, alone(), strict=True):
        if result.number not in besides:
            assert result.failure is None
            assert abs(result.energy - other.energy) < 1e-10
            assert np.abs(result.occupancies - other.occupancies).max() < 1e-6


@pytest.mark.every_size
def test_groups_of_ranks_give_the_same():
    results = on_ranks(amplitudes=True)
    assert_same(results)
    assert all((result.amplitudes is not None) == (COMM.rank == 0) for result in results)
    assert sum(result.n_ranks for result in results) >= min(COMM.size, len(SIZES))


@pytest.mark.parametrize(
    ("solve", "timeout", "kind", "says"),
    [
        (faulty.raising, None, "exception", "RuntimeError: an error made for a test"),
        (faulty.not_finite, None, "not finite", "the energy is nan"),
        (faulty.slow, 1.0, "timeout", "no result after 1 s"),
    ],
)
def test_a_failed_batch_is_named_and_harms_no_other(solve, timeout, kind, says):
    results = on_ranks(solve=solve, timeout=timeout)
    assert_same(results, besides=(faulty.FAULTY,))
    failure = results[faulty.FAULTY].failure
    assert failure.kind == kind
    assert says in failure.reason


def test_a_batch_is_tried_again_on_all_ranks_of_its_group():
    results = on_ranks(solve=faulty.raising, retries=1)
    assert results[faulty.FAULTY].failure.attempts == 2
    assert COMM.allreduce(1) == COMM.size


@pytest.fixture
def one_group(monkeypatch):
    """All ranks solve all batches together, one after another."""
    monkeypatch.setattr(batches, "divide_ranks", lambda costs, n: [BatchGroup(0, n, tuple(range(len(costs))))])


@pytest.mark.usefixtures("one_group")
@pytest.mark.parametrize(
    ("solve", "kind", "says"),
    [
        (faulty.raising_at_once, "memory", "an allocation failed for a test"),
        (faulty.raising_midway, "exception", "RuntimeError: an error made for a test, on one rank"),
    ],
)
def test_a_failure_of_one_rank_is_that_of_the_batch_alone(solve, kind, says):
    results = on_ranks(solve=solve)
    assert_same(results, besides=(faulty.FAULTY,))
    failure = results[faulty.FAULTY].failure
    assert (failure.kind, failure.attempts) == (kind, 1)
    assert says in failure.reason


@pytest.mark.usefixtures("one_group")
def test_a_batch_that_failed_on_one_rank_succeeds_when_it_is_tried_again():
    faulty._TRIED.clear()
    assert_same(on_ranks(solve=faulty.raising_once, retries=1))


def test_integrals_are_held_once_per_node():
    if COMM.size == 1:
        pytest.skip("needs several ranks")
    hamiltonian, _ = problem()
    with shared_on_nodes(COMM, hamiltonian if COMM.rank == 0 else None) as shared:
        assert shared.fingerprint() == hamiltonian.fingerprint()
        assert np.array_equal(shared.eri_pairs(), hamiltonian.eri_pairs())
        COMM.Barrier()
        if COMM.rank == 0:
            shared.eri_pairs()[0, 0] = 42.0
        COMM.Barrier()
        assert ranks_of(COMM).local()[1] < COMM.size or shared.eri_pairs()[0, 0] == 42.0
