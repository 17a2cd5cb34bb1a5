"""The generator of the hardest kinds: its right energies, its problems, and a few solves."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from sqd_mpi import _jit
from sqd_mpi.problem.interaction import Interaction
from tests.support.paths import ROOT
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian

sys.path.insert(0, str(ROOT / "scripts"))

import hard_spaces  # noqa: E402
import harder_spaces  # noqa: E402
import sampled_sets  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Spaces are small; no data but those of the repository."""
    monkeypatch.delenv("SQD_MPI_DATA", raising=False)
    with _jit.at_most(1), threadpool_limits(1):
        yield


@pytest.mark.parametrize("nelec", [(3, 3), (3, 2), (1, 3)])
def test_spin_square_is_that_of_the_solver(nelec):
    one, other = (close_strings(5, n, 4, seed) for seed, n in enumerate(nelec))
    expected = dense_matrix(make_hamiltonian(5, nelec), one, other, Interaction.spin_square(make_hamiltonian(5, nelec)))
    np.testing.assert_allclose(harder_spaces.spin_square(one, other, 5).toarray(), expected, atol=1e-12)


def test_energies_of_a_spin_are_some_of_all():
    hamiltonian = make_hamiltonian(4, (2, 2), 3)
    strings = all_strings(4, 2)
    energies = hard_spaces.lowest_energies(hard_spaces.Problem("all", hamiltonian, strings, strings, 36), 36)
    found = []
    for value, count in ((0.0, 20), (2.0, 15), (6.0, 1)):
        problem = hard_spaces.Problem("one spin", hamiltonian, strings, strings, count, value)
        found.extend(harder_spaces._energies_of_a_spin(problem))
    np.testing.assert_allclose(np.sort(found), energies, atol=1e-10)


@pytest.mark.parametrize("kind", ["cluster", "dimer", "stretched"])
def test_a_problem_depends_on_its_number_alone(kind):
    drawn = [harder_spaces.draw(3, 4, kind) for _ in range(2)]
    assert drawn[0] is not None and drawn[1] is not None
    assert drawn[0].name == drawn[1].name and drawn[0].nroots == drawn[1].nroots
    assert np.array_equal(drawn[0].strings_a, drawn[1].strings_a)
    assert drawn[0].dimension <= hard_spaces.MOST_DETERMINANTS


def test_solves_are_right_and_sigmas_are_counted():
    wanted = 0
    for number in range(12):
        problem = harder_spaces.draw(1, number, "dimer")
        assert problem is not None
        if problem.dimension > 1000:
            continue
        outcome = hard_spaces.attempt(problem, harder_spaces.exact_energies)
        assert outcome.converged and not outcome.wrong, problem.name
        assert 0 <= outcome.n_deciding < outcome.n_sigma
        wanted += problem.spin_square is not None
    assert wanted > 0


def test_what_needs_missing_data_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["harder_spaces.py", "--problems", "3", "--kind", "iron"])
    assert hard_spaces.run("", harder_spaces.KINDS, harder_spaces.draw, harder_spaces.exact_energies) == 0
    assert capsys.readouterr().out.startswith("3 problems need fe2s2/fcidump.txt of the TrimCI project")


def test_strings_grow_by_the_weights_of_the_first_order_vector():
    hamiltonian = make_hamiltonian(6, (3, 3), 5)
    known = sampled_sets.filled(6, [0], [1, 2, 3], 2)
    grown = sampled_sets.grown(hamiltonian, known, 8)
    assert len(grown) == 8 and {tuple(each) for each in known} <= {tuple(each) for each in grown}

    # The weights by the dense matrix.
    outside = np.array([each for each in all_strings(6, 3) if tuple(each) not in {tuple(one) for one in known}])
    everything = np.concatenate([known, outside])
    matrix = dense_matrix(hamiltonian, everything, known)
    n = len(known) ** 2
    energies, vectors = np.linalg.eigh(matrix[:n, :n])
    amplitudes = matrix[n:, :n] @ vectors[:, 0] / (energies[0] - np.diag(matrix)[n:])
    weights = (amplitudes.reshape(len(outside), len(known)) ** 2).sum(axis=1)
    expected = {tuple(each) for each in outside[np.argsort(-weights)[:5]]}
    assert {tuple(each) for each in grown} == expected | {tuple(each) for each in known}
