"""Sigma in single precision on several ranks: blocks, slides and sums in float32, the answer that of float64."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings, make_hamiltonian, random_strings, spin_dependent
from tests.support.shapes import LABELS, shapes

pytestmark = pytest.mark.mpi


PROBLEMS = {
    "unlike strings": (make_hamiltonian(6, (3, 2), 3), close_strings(6, 3, 9), close_strings(6, 2, 8, 1)),
    "spin flip": (make_hamiltonian(7, (3, 3), 1), random_strings(7, 3, 21), random_strings(7, 3, 21)),
    "labels": (make_hamiltonian(7, (3, 3), 2, LABELS), random_strings(7, 3, 25), random_strings(7, 3, 25)),
    "fewer strings than ranks": (make_hamiltonian(5, (2, 2)), close_strings(5, 2, 2), close_strings(5, 2, 2)),
    "spin-dependent": (spin_dependent(6, (3, 3), 2, np.zeros(6, int)), close_strings(6, 3, 9), close_strings(6, 3, 9)),
}  # fmt: skip


@pytest.mark.every_size
@pytest.mark.parametrize("name", PROBLEMS)
def test_energies_of_double_precision_on_every_grid(comm, name):
    """Energies agree to 1e-10 and residual norms are true, on grids with task and row groups, shared blocks or not."""
    hamiltonian, *strings = PROBLEMS[name]
    options = SolveOptions(tol=1e-8, precision="double", nroots=2, model_space=8)
    exact = solve_subspace(None, hamiltonian, *strings, options)
    grids = list(enumerate(shapes(comm.size)))
    for k, shape in grids[list(PROBLEMS).index(name) % 3 :: 3] if comm.size > 2 else grids:  # there are many
        share = "off" if k % 2 else "auto"
        mixed = options.replace(precision="mixed", grid=shape, share_blocks=share)
        result = solve_subspace(comm, hamiltonian, *strings, mixed)
        assert result.converged
        np.testing.assert_allclose(result.energies, exact.energies, rtol=0, atol=1e-10)
        np.testing.assert_allclose(result.deviations([0, 1]), 0.0, atol=1e-8)
        assert (result.n_sigma_single > 0) == (result.n_sigma > 0)
        assert result.n_sigma_single < result.n_sigma or result.n_sigma == 0


@pytest.mark.parametrize("spin_square", [0.0, 6.0])
def test_spins_stay_pure(comm, spin_square):
    """In sectors of one spin, S^2 in single precision takes out what rounding brings in."""
    hamiltonian, strings = make_hamiltonian(6, (3, 3), 2), all_strings(6, 3)
    options = SolveOptions(tol=1e-8, precision="double", spin_square=spin_square, nroots=2, model_space=20)
    exact = solve_subspace(None, hamiltonian, strings, strings, options)
    for shape in shapes(comm.size)[:4]:
        result = solve_subspace(comm, hamiltonian, strings, strings, options.replace(precision="mixed", grid=shape))
        assert result.converged and result.n_sigma_single > 0
        np.testing.assert_allclose(result.energies, exact.energies, rtol=0, atol=1e-10)
        np.testing.assert_allclose([root.spin_square for root in result.roots], spin_square, atol=1e-8)
