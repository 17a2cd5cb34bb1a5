"""The second-order correction on every grid equals that of one process."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.pt2 import second_order
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import close_strings, make_hamiltonian, random_strings
from tests.support.shapes import LABELS, shapes

pytestmark = pytest.mark.mpi


def check(comm, hamiltonian, strings, nroots, grids, **options) -> None:
    """All grids against one process; small tiles on odd grids, so that ranks have unequal numbers of them."""
    chosen = SolveOptions(nroots=nroots, tol=1e-9, **options)
    alone = solve_subspace(None, hamiltonian, *strings, chosen)
    expected = [second_order(alone, hamiltonian, k) for k in range(nroots)]
    for number, shape in enumerate(grids):
        result = solve_subspace(comm, hamiltonian, *strings, chosen.replace(grid=shape))
        for k, one in enumerate(expected):
            found = second_order(result, hamiltonian, k, tile_bytes=None if number % 2 else 500)
            values = [[each.energy, each.variance, each.smallest_gap] for each in (found, one)]
            np.testing.assert_allclose(*values, atol=1e-10, err_msg=f"grid {shape}, root {k}")


@pytest.mark.parametrize("symmetry", ["auto", "off"])
def test_alpha_unlike_beta(comm, symmetry):
    hamiltonian = make_hamiltonian(7, (3, 4), seed=2, labels=LABELS)
    strings = random_strings(7, 3, 9), random_strings(7, 4, 7, seed=1)
    check(comm, hamiltonian, strings, 2, shapes(comm.size), symmetry=symmetry)


def test_both_parities_of_the_spin_flip(comm):
    hamiltonian = make_hamiltonian(7, (3, 3), seed=6, labels=LABELS)
    strings = random_strings(7, 3, 9)
    check(comm, hamiltonian, (strings, strings), 3, [shape for shape in shapes(comm.size) if shape[0] == shape[1]])


@pytest.mark.every_size
def test_more_ranks_than_strings_and_no_beta_electrons(comm):
    strings = close_strings(5, 2, 2), np.zeros((1, 1), np.uint64)
    check(comm, make_hamiltonian(5, (2, 0)), strings, 1, shapes(comm.size))
