"""Exactly degenerate states: Hubbard rings, whose momenta k and -k no symmetry label tells apart."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, dense_matrix


def ring(n_sites: int, nelec: tuple[int, int], repulsion: float) -> Hamiltonian:
    """A Hubbard ring with hopping -1 and a repulsion on every site."""
    h1e = np.zeros((n_sites, n_sites))
    for site in range(n_sites):
        h1e[site, (site + 1) % n_sites] = h1e[(site + 1) % n_sites, site] = -1.0
    pairs = np.zeros((n_sites * (n_sites + 1) // 2,) * 2)
    diagonal = [p * (p + 1) // 2 + p for p in range(n_sites)]
    pairs[diagonal, diagonal] = repulsion
    return Hamiltonian(h1e, pairs[np.tril_indices(len(pairs))], 0.0, n_sites, nelec)


@pytest.mark.parametrize("spin_flip", ["auto", "off"])
@pytest.mark.parametrize(("n_sites", "nelec"), [(5, (2, 1)), (5, (2, 2)), (6, (2, 2)), (6, (4, 3))])
def test_degenerate_pairs_are_found_whole(n_sites, nelec, spin_flip):
    hamiltonian = ring(n_sites, nelec, repulsion=2.0)
    strings = all_strings(n_sites, nelec[0]), all_strings(n_sites, nelec[1])
    matrix = dense_matrix(hamiltonian, *strings)
    exact = np.linalg.eigvalsh(matrix)
    assert np.any(np.diff(exact[:6]) < 1e-10), "this ring has no degenerate states"
    for nroots in range(1, 7):
        options = SolveOptions(nroots=nroots, tol=1e-8, spin_flip=spin_flip)
        result = solve_subspace(None, hamiltonian, *strings, options)
        assert result.converged
        np.testing.assert_allclose(result.energies, exact[:nroots], atol=1e-10)
        vectors = np.array([result.gather(root).ravel() for root in range(nroots)])
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(nroots), atol=1e-7)
        for energy, vector in zip(result.energies, vectors, strict=True):
            assert np.linalg.norm(matrix @ vector - energy * vector) < 1e-7
