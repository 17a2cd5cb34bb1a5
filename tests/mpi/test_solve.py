"""Whole solves: the same answer on every grid, against dense diagonalisation."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import close_strings, dense_matrix, make_hamiltonian, random_strings
from tests.support.shapes import LABELS, shapes

pytestmark = [pytest.mark.mpi, pytest.mark.every_size]


def test_same_energies_on_every_grid(comm):
    hamiltonian = make_hamiltonian(6, (3, 2), seed=3)
    strings = close_strings(6, 3, 7), close_strings(6, 2, 5, seed=1)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings)) + 0.0
    for shape in shapes(comm.size):
        result = solve_subspace(comm, hamiltonian, *strings, SolveOptions(grid=shape, nroots=3, tol=1e-8))
        assert result.converged
        np.testing.assert_allclose(result.energies, exact[:3], atol=1e-10)


def test_lowest_states_of_several_sectors(comm):
    hamiltonian = make_hamiltonian(7, (3, 4), seed=2, labels=LABELS)
    strings = random_strings(7, 3, 20), random_strings(7, 4, 20, seed=1)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))
    for shape in shapes(comm.size)[:3]:
        result = solve_subspace(comm, hamiltonian, *strings, SolveOptions(grid=shape, nroots=5, tol=1e-7))
        np.testing.assert_allclose(result.energies, exact[:5], atol=1e-10)
        assert len({root.sector for root in result.roots}) > 1


def test_one_string_of_each_spin(comm):
    hamiltonian = make_hamiltonian(5, (2, 2))
    strings = close_strings(5, 2, 1), close_strings(5, 2, 1)
    result = solve_subspace(comm, hamiltonian, *strings)
    assert result.converged
    assert result.energies[0] == pytest.approx(dense_matrix(hamiltonian, *strings)[0, 0], abs=1e-12)


def test_gathered_vector_is_the_eigenvector(comm):
    hamiltonian = make_hamiltonian(6, (3, 3), seed=4)
    strings = close_strings(6, 3, 9), close_strings(6, 3, 8, seed=2)
    matrix = dense_matrix(hamiltonian, *strings)
    for shape in shapes(comm.size):
        result = solve_subspace(comm, hamiltonian, *strings, SolveOptions(grid=shape, tol=1e-9))
        vector = result.gather().ravel()
        assert np.linalg.norm(matrix @ vector - result.energies[0] * vector) < 1e-8
        root = result.roots[0]
        np.testing.assert_allclose(root.weights.alpha, (vector.reshape(9, 8) ** 2).sum(axis=1), atol=1e-12)
        np.testing.assert_allclose(root.weights.largest_beta, np.abs(vector.reshape(9, 8)).max(axis=0), atol=1e-12)
        assert root.occupancies.sum() == pytest.approx(6.0, abs=1e-12)


def test_a_grid_that_does_not_fit_is_refused_on_all_ranks(comm):
    hamiltonian = make_hamiltonian(5, (2, 2))
    strings = close_strings(5, 2, 4)
    with pytest.raises(InputError, match="needs 5 ranks"):
        solve_subspace(comm, hamiltonian, strings, strings, SolveOptions(grid=(5, 1, 1, 1)))


def test_memory_limit_shrinks_the_subspace_and_then_refuses(comm):
    hamiltonian = make_hamiltonian(8, (4, 4))
    strings = close_strings(8, 4, 40)
    shape = (comm.size, 1, 1, 1)
    exact = solve_subspace(comm, hamiltonian, strings, strings, SolveOptions(grid=shape, spin_flip="off")).energies
    enough_for_four = int(planner.predict_memory(shape, 1600, 4).total / 0.95) + 8
    options = SolveOptions(grid=shape, spin_flip="off", memory=enough_for_four)
    small = solve_subspace(comm, hamiltonian, strings, strings, options)
    assert small.max_subspace == 4
    np.testing.assert_allclose(small.energies, exact, atol=1e-10)
    with pytest.raises(InputError, match="GiB too few"):
        solve_subspace(comm, hamiltonian, strings, strings, SolveOptions(memory=1000))


@pytest.mark.parametrize("labels", [None, LABELS])
def test_both_parities_of_equal_string_sets(comm, labels):
    hamiltonian = make_hamiltonian(7, (3, 3), seed=6, labels=labels)
    strings = random_strings(7, 3, 15)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, strings, strings))
    for shape in [shape for shape in shapes(comm.size) if shape[0] == shape[1]]:
        result = solve_subspace(comm, hamiltonian, strings, strings, SolveOptions(grid=shape, nroots=6, tol=1e-7))
        np.testing.assert_allclose(result.energies, exact[:6], atol=1e-10)
        assert {root.parity for root in result.roots} == {1, -1}
        plain = solve_subspace(
            comm, hamiltonian, strings, strings, SolveOptions(grid=shape, nroots=6, tol=1e-7, spin_flip="off")
        )
        for with_flip, without in zip(result.roots, plain.roots, strict=True):
            assert with_flip.spin_square == pytest.approx(without.spin_square, abs=1e-5)
            np.testing.assert_allclose(with_flip.weights.alpha, without.weights.alpha, atol=1e-6)
            np.testing.assert_allclose(with_flip.weights.largest_alpha, without.weights.largest_alpha, atol=1e-6)
        vector = result.gather(1)
        np.testing.assert_array_equal(vector, result.roots[1].parity * vector.T)


@pytest.mark.parametrize("what", ["Hamiltonian", "alpha strings", "beta strings", "options"])
def test_arguments_that_differ_between_ranks_are_refused_on_all(comm, what):
    odd = comm.rank == comm.size - 1
    hamiltonian = make_hamiltonian(6, (3, 3), seed=5 if what == "Hamiltonian" and odd else 4)
    strings = [close_strings(6, 3, 9, seed=int(what == f"{spin} strings" and odd)) for spin in ("alpha", "beta")]
    options = SolveOptions(tol=1e-5 if what == "options" and odd else 1e-6)
    if comm.size == 1:
        assert solve_subspace(comm, hamiltonian, *strings, options).converged
        return
    with pytest.raises(InputError, match=f"all ranks need the same arguments; they have different {what}"):
        solve_subspace(comm, hamiltonian, *strings, options)


def test_bad_strings_on_one_rank_are_an_error_on_all(comm):
    hamiltonian = make_hamiltonian(6, (3, 3))
    strings = close_strings(6, 3, 9)
    mine = strings if comm.rank else close_strings(6, 2, 9)
    with pytest.raises(InputError, match="alpha string 1 has 2 electrons"):
        solve_subspace(comm, hamiltonian, mine, strings)


def test_a_start_file_that_one_rank_does_not_see_is_an_error_on_all(comm, tmp_path):
    options = SolveOptions(start=tmp_path / f"nothing-{comm.rank}.h5")
    with pytest.raises(InputError, match="nothing-0.h5 does not exist"):
        solve_subspace(comm, make_hamiltonian(6, (3, 3)), close_strings(6, 3, 9), close_strings(6, 3, 9), options)


@pytest.mark.parametrize("count", [1, 4])
def test_nan_in_a_vector_is_one_error_on_all_ranks(comm, monkeypatch, count):
    """One element of one rank's sigma, in the first or a later iteration."""
    plain, calls = SigmaOperator.matvec, [0]

    def matvec(self, vector, out):
        plain(self, vector, out)
        calls[0] += 1
        if calls[0] == count and comm.rank == comm.size - 1 and len(out):
            out[len(out) // 2] = np.nan

    monkeypatch.setattr(SigmaOperator, "matvec", matvec)
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 40), close_strings(8, 4, 41, seed=1)
    with pytest.raises(RunError, match="a vector of the eigensolver holds a value that is not finite"):
        solve_subspace(comm, hamiltonian, *strings, SolveOptions(model_space=4))
