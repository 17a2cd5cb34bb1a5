"""Several batches at once: equal to one after another, isolated from each other, divided among ranks."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from sqd_mpi.errors import InputError, as_typed
from sqd_mpi.loop.batch import BatchTask, solve_one
from sqd_mpi.loop.batches import WorkerPool, divide_ranks, predicted_cost, solve_batches
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.solver.density_matrices import density_matrices
from sqd_mpi.solver.solve import solve_subspace
from tests.support import faulty
from tests.support.problems import make_hamiltonian, random_strings

SIZES = (30, 40, 45, 50, 35)


def problem():
    """A Hamiltonian and five batches."""
    batches = [(random_strings(8, 4, n, k), random_strings(8, 3, n - 5, k)) for k, n in enumerate(SIZES)]
    return make_hamiltonian(8, (4, 3), 1), batches


@pytest.fixture(scope="module")
def alone():
    """Results of the batches, one after another in this process."""
    hamiltonian, batches = problem()
    return solve_batches(hamiltonian, batches, workers=0)


@pytest.fixture(scope="module")
def pool():
    """Two workers for all tests of this file."""
    with WorkerPool(problem()[0], 2, memory=500_000_000) as workers:
        yield workers


def assert_same(results, alone, besides=()):
    """All results but some are those of the solves one after another."""
    assert [result.number for result in results] == list(range(len(alone)))
    for result, other in zip(results, alone, strict=True):
        if result.number in besides:
            continue
        assert result.failure is None
        assert result.converged
        assert result.energy == pytest.approx(other.energy, abs=1e-10)
        assert result.occupancies == pytest.approx(other.occupancies, abs=1e-6)
        assert result.weights.alpha == pytest.approx(other.weights.alpha, abs=1e-6)
        assert np.array_equal(result.strings_a, other.strings_a)


def test_batches_are_solved_as_subspaces(alone):
    hamiltonian, batches = problem()
    for result, (alpha, beta) in zip(alone, batches, strict=True):
        whole = solve_subspace(None, hamiltonian, alpha, beta)
        assert result.energy == pytest.approx(whole.roots[0].energy, abs=1e-12)
        assert result.spin_square == pytest.approx(whole.roots[0].spin_square, abs=1e-8)
        assert result.spin_variance == pytest.approx(whole.roots[0].spin_variance, abs=1e-8)
        assert result.dimension == len(alpha) * len(beta)


def test_workers_give_the_same_with_vectors_amplitudes_and_matrices(alone, pool, tmp_path):
    hamiltonian, batches = problem()
    results = solve_batches(hamiltonian, batches, pool=pool, vectors=tmp_path, amplitudes=True, rdm=1)
    assert_same(results, alone)
    whole = solve_subspace(None, hamiltonian, *batches[1])
    assert abs(np.vdot(results[1].amplitudes, whole.gather())) == pytest.approx(1.0, abs=1e-9)
    assert results[1].densities.alpha == pytest.approx(density_matrices(whole, 0, 1).alpha, abs=1e-6)
    start = SolveOptions(start=tmp_path / "batch-1.h5")
    again = solve_batches(hamiltonian, batches[1:2], start, pool=pool)[0]
    assert again.energy == pytest.approx(results[1].energy, abs=1e-10)
    assert again.n_iterations < results[1].n_iterations


def test_workers_name_options_as_their_callers_reader_types_them():
    hamiltonian, batches = problem()
    for context, option in ((nullcontext(), "memory"), (as_typed(), "--memory")):
        with context:
            (result,) = solve_batches(hamiltonian, batches[:1], SolveOptions(memory=1), workers=1)
        assert result.failure.kind == "memory" and result.failure.reason.startswith(f"{option}: ")


@pytest.mark.parametrize(
    ("solve", "timeout", "kind", "says", "logged"),
    [
        (faulty.raising, None, "exception", "RuntimeError: an error made for a test", "RuntimeError"),
        (faulty.not_finite, None, "not finite", "the energy is nan", None),
        # the others, which the same limit holds for, take a tenth of a second where nothing else runs
        (faulty.sleeping, 4.0, "timeout", "no result after 4 s; its worker was ended", "about to sleep"),
        (faulty.slow, 4.0, "timeout", "no result after 4 s", None),
        (faulty.killed, None, "signal", "killed by SIGKILL", "about to die"),
        (faulty.greedy, None, "memory", "Unable to allocate", "MemoryError"),
    ],
)
def test_a_failed_batch_is_named_and_harms_no_other(alone, pool, solve, timeout, kind, says, logged):
    hamiltonian, batches = problem()
    results = solve_batches(hamiltonian, batches, pool=pool, solve=solve, timeout=timeout)
    assert_same(results, alone, besides=(faulty.FAULTY,))
    failure = results[faulty.FAULTY].failure
    assert failure.kind == kind
    assert says in failure.reason
    assert failure.attempts == 1
    assert np.isnan(results[faulty.FAULTY].energy)
    if logged is not None:
        assert logged in "\n".join(failure.log)


def test_a_failed_batch_is_tried_again(alone, pool, tmp_path):
    hamiltonian, batches = problem()
    results = solve_batches(hamiltonian, batches, pool=pool, solve=faulty.dying_once, retries=1, vectors=tmp_path)
    assert_same(results, alone)
    results = solve_batches(hamiltonian, batches, pool=pool, solve=faulty.raising, retries=2)
    assert results[faulty.FAULTY].failure.attempts == 3


@pytest.mark.parametrize("where", ["here", "workers"])
def test_strings_and_memory_that_do_not_fit_fail_alone(alone, pool, where):
    hamiltonian, batches = problem()
    batches[0] = random_strings(8, 5, 10), batches[0][1]
    place = {"workers": 0} if where == "here" else {"pool": pool}
    results = solve_batches(hamiltonian, batches, **place)
    assert_same(results, alone, besides=(0,))
    assert "alpha string 1 has 5 electrons" in results[0].failure.reason
    small = solve_batches(hamiltonian, batches[1:2], SolveOptions(memory=1000), **place)
    assert small[0].failure.kind == "memory"


def test_a_run_that_is_asked_to_stop_stops(pool):
    hamiltonian, batches = problem()
    for place in ({"pool": pool}, {"workers": 0}):
        results = solve_batches(hamiltonian, batches[:2], should_stop=lambda: True, **place)
        assert [result.failure.kind for result in results] == ["stopped", "stopped"]


def test_a_solve_that_cannot_be_imported_is_refused(pool):
    hamiltonian, batches = problem()
    with pytest.raises(InputError, match="must be importable"):
        solve_batches(hamiltonian, batches[:1], pool=pool, solve=lambda *_: None)


@pytest.mark.parametrize(("name", "value"), [("timeout", 0), ("retries", -1), ("workers", -2), ("threads", 0)])
def test_bad_numbers_are_refused(name, value):
    hamiltonian, batches = problem()
    with pytest.raises(InputError, match=name):
        solve_batches(hamiltonian, batches, **{name: value})


def test_a_pool_of_another_hamiltonian_is_refused(pool):
    with pytest.raises(InputError, match="they have another one"):
        solve_batches(make_hamiltonian(8, (4, 3), 2), problem()[1], pool=pool)


def test_no_batches_have_no_results():
    assert solve_batches(problem()[0], []) == []


@pytest.mark.parametrize(
    ("costs", "n_ranks", "wanted"),
    [
        ([1.0], 3, [(0, 3, (0,))]),
        ([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2, [(0, 1, (0,)), (1, 1, (1, 2, 3, 4, 5))]),
        ([8.0, 1.0, 1.0], 5, [(0, 4, (0,)), (4, 1, (1, 2))]),
        ([1.0, 1.0, 1.0, 1.0], 4, [(k, 1, (k,)) for k in range(4)]),
    ],
)
def test_ranks_are_divided_by_cost(costs, n_ranks, wanted):
    groups = divide_ranks(costs, n_ranks)
    assert [(group.first_rank, group.n_ranks, group.batches) for group in groups] == wanted


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7, 64])
def test_all_ranks_and_all_batches_are_in_one_group(n_ranks):
    costs = list(np.random.default_rng(n_ranks).random(9) ** 3)
    groups = divide_ranks(costs, n_ranks)
    assert sorted(number for group in groups for number in group.batches) == list(range(9))
    assert [group.first_rank for group in groups] == list(np.cumsum([0] + [g.n_ranks for g in groups])[:-1])
    assert sum(group.n_ranks for group in groups) == n_ranks


def test_costs_grow_with_connections():
    task = BatchTask(0, random_strings(8, 4, 60), random_strings(8, 4, 60), SolveOptions())
    smaller = replace(task, strings_a=task.strings_a[:20])
    assert predicted_cost(smaller, 8) < predicted_cost(task, 8)
    pairs = bitstrings.from_integers([3, 5, 24], 5)  # one single each way between the first two
    assert predicted_cost(replace(task, strings_a=pairs, strings_b=pairs), 5) == 25.0


def test_nothing_is_left_in_shared_memory():
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    hamiltonian, batches = problem()
    with WorkerPool(hamiltonian, 1) as pool:
        solve_batches(hamiltonian, batches[:1], pool=pool)
        left = {name for name in os.listdir("/dev/shm") if "sqd_mpi" in name} if before else set()
        assert not left - before


def test_a_vector_that_was_kept_starts_the_next_solve_where_it_had_ended(tmp_path):
    """As the loop does: with equal strings of both spins, too, of which one half of the vector is stored."""
    hamiltonian = make_hamiltonian(8, (4, 4), 1)
    strings = random_strings(8, 4, 40, 2)
    for pair in ((strings, strings), (strings, random_strings(8, 4, 35, 3))):
        options = SolveOptions(model_space=10)
        task = BatchTask(0, *pair, options.replace(tol=1e-8), vector_file=tmp_path / "vector.h5")
        first = solve_one(None, hamiltonian, task)
        again = solve_subspace(None, hamiltonian, *pair, options.replace(start=tmp_path / "vector.h5"))
        assert again.history["residual_norm"][0, 0] <= 1.02 * first.residual_norm
        assert again.energies[0] == pytest.approx(first.energy, abs=1e-11)
        # A part of the strings, and more than there were.
        part = solve_subspace(None, hamiltonian, pair[0][:30], pair[1][:30], options)
        warm = solve_subspace(
            None, hamiltonian, pair[0][:30], pair[1][:30], options.replace(start=tmp_path / "vector.h5")
        )
        assert warm.history["energy"][0, 0] < part.history["energy"][0, 0]
        assert warm.energies[0] == pytest.approx(part.energies[0], abs=1e-10)
