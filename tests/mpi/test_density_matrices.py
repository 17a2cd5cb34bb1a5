"""Density matrices on every grid equal those of one process."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.density_matrices import transition_density_matrices
from sqd_mpi.solver.result import SubspaceResult
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import close_strings, make_hamiltonian, random_strings
from tests.support.shapes import LABELS, shapes

pytestmark = pytest.mark.mpi

NAMES = ("alpha", "beta", "two_aa", "two_ab", "two_bb")


def overlaps(result: SubspaceResult, expected: SubspaceResult) -> np.ndarray:
    """Sign of every root's vector relative to that of another solve."""
    return np.array([np.sign(np.vdot(result.gather(k), expected.gather(k))) for k in range(len(result.roots))])


def check(comm, hamiltonian, strings, nroots, grids, **options) -> None:
    """Matrices of and between roots, on all grids, against the reference backend in one process."""
    plain = SolveOptions(nroots=nroots, tol=1e-9, symmetry="off", spin_flip="off", backend="reference")
    reference = solve_subspace(None, hamiltonian, *strings, plain)
    pairs = [(0, 0)] if nroots == 1 else [(0, 0), (nroots - 1, 0), (1, nroots - 1)]
    expected = {pair: transition_density_matrices(reference, *pair) for pair in pairs}
    for shape in grids:
        result = solve_subspace(
            comm, hamiltonian, *strings, SolveOptions(grid=shape, nroots=nroots, tol=1e-9, **options)
        )
        sign = overlaps(result, reference)
        for bra, ket in pairs:
            found = transition_density_matrices(result, bra, ket)
            for name in NAMES:
                np.testing.assert_allclose(
                    sign[bra] * sign[ket] * getattr(found, name), getattr(expected[bra, ket], name), atol=3e-7,
                    err_msg=f"grid {shape}, roots {bra} {ket}, {name}",
                )  # fmt: skip


@pytest.mark.parametrize("string_order", ["sorted", "dealt"])
def test_different_strings_with_empty_blocks(comm, string_order):
    strings = close_strings(6, 3, 7), close_strings(6, 2, 5, seed=1)
    check(comm, make_hamiltonian(6, (3, 2), seed=3), strings, 2, shapes(comm.size), string_order=string_order)


@pytest.mark.every_size
def test_three_roots_of_several_sectors(comm):
    hamiltonian = make_hamiltonian(7, (3, 4), seed=2, labels=LABELS)
    strings = random_strings(7, 3, 13), random_strings(7, 4, 11, seed=1)
    check(comm, hamiltonian, strings, 3, shapes(comm.size))


@pytest.mark.parametrize("labels", [None, LABELS])
def test_both_parities_of_the_spin_flip(comm, labels):
    hamiltonian = make_hamiltonian(7, (3, 3), seed=6, labels=labels)
    strings = random_strings(7, 3, 12)
    square = [shape for shape in shapes(comm.size) if shape[0] == shape[1]]
    check(comm, hamiltonian, (strings, strings), 3, square)


def test_more_ranks_than_strings(comm):
    strings = close_strings(5, 2, 2), close_strings(5, 2, 1, seed=1)
    check(comm, make_hamiltonian(5, (2, 2)), strings, 1, shapes(comm.size))


def test_memory_of_one_rank_refuses_on_all(comm, monkeypatch):
    from sqd_mpi.solver import density_matrices

    strings = close_strings(6, 3, 7), close_strings(6, 2, 5, seed=1)
    result = solve_subspace(comm, make_hamiltonian(6, (3, 2)), *strings)
    if comm.rank == comm.size - 1:
        monkeypatch.setattr(density_matrices, "available_memory", lambda: 10)
    with pytest.raises(InputError, match="GiB per rank"):
        density_matrices.density_matrices(result)
