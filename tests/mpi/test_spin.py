"""Spin targets and spin-dependent Hamiltonians on several ranks: the same answer on every grid."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian, spin_dependent
from tests.support.shapes import shapes

pytestmark = pytest.mark.mpi

TARGETS = [0.0, 2.0, 6.0]


@pytest.mark.parametrize("spin_square", [pytest.param(0.0, marks=pytest.mark.every_size), *TARGETS[1:]])
def test_spin_target_on_every_grid(comm, spin_square):
    hamiltonian = make_hamiltonian(5, (3, 3), 2)
    strings = all_strings(5, 3)
    matrix, square = (
        dense_matrix(hamiltonian, strings, strings, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    shifted = square - spin_square * np.eye(len(square))
    exact = np.linalg.eigvalsh(matrix + 100.0 * shifted @ shifted)[:2]
    # of many grids every target has a third
    dealt = shapes(comm.size)[TARGETS.index(spin_square) :: len(TARGETS)] if comm.size > 3 else shapes(comm.size)
    for shape in dealt:
        options = SolveOptions(grid=shape, spin_square=spin_square, nroots=2, tol=1e-8, model_space=20)
        result = solve_subspace(comm, hamiltonian, strings, strings, options)
        assert result.converged
        np.testing.assert_allclose(result.energies, exact, atol=1e-10)
        np.testing.assert_allclose([root.spin_square for root in result.roots], spin_square, atol=1e-8)


def test_quadratic_penalty_on_every_grid_without_whole_configurations(comm):
    hamiltonian = make_hamiltonian(6, (3, 2), 5)
    strings = close_strings(6, 3, 9), close_strings(6, 2, 8, 1)
    matrix, square = (
        dense_matrix(hamiltonian, *strings, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    shifted = square - 3.75 * np.eye(len(square))
    exact = np.linalg.eigvalsh(matrix + 0.1 * shifted @ shifted)[0]
    for shape in shapes(comm.size):
        options = SolveOptions(grid=shape, spin_square=3.75, spin_penalty=0.1, tol=1e-8, model_space=8)
        root = solve_subspace(comm, hamiltonian, *strings, options).roots[0]
        assert root.residual_norm <= 1e-8 and root.penalised_energy == pytest.approx(exact, abs=1e-10)
        assert root.spin_square < 1.0 and not root.converged  # the penalty is too weak for a quartet here


def test_linear_penalty_of_sampled_triplets_on_every_grid(comm):
    # Singlets, which the penalty leaves below, have the other parity: they are passed over where a sector holds both.
    hamiltonian = make_hamiltonian(6, (3, 3), 5)
    one = close_strings(6, 3, 9)
    matrix, square = (
        dense_matrix(hamiltonian, one, one, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    swap = np.eye(81).reshape(9, 9, 9, 9).transpose(1, 0, 2, 3).reshape(81, 81)
    exact = np.linalg.eigvalsh(matrix + 0.05 * (square - 2.0 * np.eye(81)) + 1e3 * (np.eye(81) + swap))[:2]
    for shape in shapes(comm.size):
        options = SolveOptions(grid=shape, spin_square=2, nroots=2, tol=1e-8, model_space=8)
        result = solve_subspace(comm, hamiltonian, one, one, options)
        target = result.spin_target
        assert target is not None and target.linear and target.strength == pytest.approx(0.05)
        assert all(root.residual_norm <= 1e-8 for root in result.roots)
        np.testing.assert_allclose([root.penalised_energy for root in result.roots], exact, atol=1e-10)


def test_spin_dependent_integrals_on_every_grid(comm):
    hamiltonian = spin_dependent(6, (3, 2), 2, np.array([0, 1, 0, 1, 1, 0]))
    strings = close_strings(6, 3, 9), close_strings(6, 2, 8, 1)
    energies, vectors = np.linalg.eigh(dense_matrix(hamiltonian, *strings))
    square = dense_matrix(hamiltonian, *strings, Interaction.spin_square(hamiltonian))
    mean = vectors[:, 0] @ square @ vectors[:, 0]
    for shape in shapes(comm.size):
        result = solve_subspace(comm, hamiltonian, *strings, SolveOptions(grid=shape, tol=1e-9, model_space=5))
        assert result.energies[0] == pytest.approx(energies[0], abs=1e-10)
        assert result.roots[0].spin_square == pytest.approx(mean, abs=1e-8)
