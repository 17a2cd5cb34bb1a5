"""Density matrices against PySCF, against brute force and against the energy."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends.cpu.density import Accumulators
from sqd_mpi.errors import InputError
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver import density_matrices
from sqd_mpi.solver.density_matrices import (
    natural_occupations,
    orbital_entropies,
    predict_bytes,
    rdm1s,
    transition_density_matrices,
)
from sqd_mpi.solver.result import SubspaceResult
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings, make_hamiltonian, pair_matrix, random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


def energy_of(hamiltonian: Hamiltonian, found: density_matrices.DensityMatrices) -> float:
    """Energy from both density matrices."""
    pair = pair_matrix(hamiltonian.norb)
    eri = hamiltonian.eri_pairs()[pair[:, :, None, None], pair[None, None]]
    one = np.einsum("pq,qp", hamiltonian.h1e, found.rdm1)
    return float(hamiltonian.ecore + one + 0.5 * np.einsum("pqrs,pqrs", eri, found.rdm2))


def pyscf_vectors(result: SubspaceResult, strings) -> list:
    """The roots as PySCF's selected-CI vectors."""
    from pyscf import lib
    from pyscf.fci import selected_ci

    lib.num_threads(1)
    integers = [np.array(bitstrings.to_integers(each), np.int64) for each in strings]
    return [selected_ci._as_SCIvector(result.gather(k), integers) for k in range(len(result.roots))]


def solve(hamiltonian: Hamiltonian, strings, **options) -> SubspaceResult:
    return solve_subspace(None, hamiltonian, *strings, SolveOptions(**{"tol": 1e-8, **options}))


def assert_same(found: density_matrices.DensityMatrices, expected: density_matrices.DensityMatrices, atol: float):
    for name in ("alpha", "beta", "two_aa", "two_ab", "two_bb"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=atol, err_msg=name)


@pytest.mark.parametrize(
    ("norb", "nelec", "counts"),
    [
        (7, (3, 3), (25, 18)),
        (8, (5, 2), (30, 20)),
        (8, (6, 3), (9, 40)),
        (9, (2, 2), (5, 7)),
        (7, (4, 3), (70, 9)),
        (10, (2, 8), (30, 25)),
    ],
)
def test_agree_with_pyscf(norb, nelec, counts):
    from pyscf.fci import selected_ci

    hamiltonian = make_hamiltonian(norb, nelec, seed=3)
    alpha_strings = close_strings(norb, nelec[0], min(counts[0], 35))
    strings = alpha_strings, close_strings(norb, nelec[1], counts[1], seed=1)
    result = solve(hamiltonian, strings, nroots=2)
    vectors = pyscf_vectors(result, strings)
    for root, vector in enumerate(vectors):
        found = density_matrices.density_matrices(result, root)
        expected = selected_ci.SelectedCI().make_rdm12s(vector, norb, nelec)
        for one, other in zip((found.alpha, found.beta), expected[0], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        for one, other in zip((found.two_aa, found.two_ab, found.two_bb), expected[1], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        spin_summed = selected_ci.make_rdm2(vector, norb, nelec)
        np.testing.assert_allclose(found.rdm2, spin_summed, atol=1e-12)
        assert energy_of(hamiltonian, found) == pytest.approx(result.energies[root], abs=1e-9)
        for one, other in zip(rdm1s(result, root), selected_ci.make_rdm1s(vector, norb, nelec), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        np.testing.assert_allclose(np.diag(found.alpha), result.roots[root].occupancies[0], atol=1e-12)
    between = transition_density_matrices(result, 0, 1, order=1)
    for one, other in zip((between.alpha, between.beta), selected_ci.trans_rdm1s(*vectors, norb, nelec), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("nelec", [(3, 3), (4, 2), (3, 0), (1, 1)])
def test_full_space_agrees_with_pyscf_between_three_roots(nelec):
    from pyscf.fci import direct_spin1

    hamiltonian = make_hamiltonian(6, nelec, seed=2)
    strings = all_strings(6, nelec[0]), all_strings(6, nelec[1])
    result = solve(hamiltonian, strings, nroots=3)
    vectors = [result.gather(k) for k in range(3)]
    for bra in range(3):
        for ket in range(3):
            found = transition_density_matrices(result, bra, ket)
            one, two = direct_spin1.trans_rdm12s(vectors[bra], vectors[ket], 6, nelec)
            for mine, theirs in zip((found.alpha, found.beta), one, strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-12)
            mine = found.two_aa, found.two_ab, found.two_ba, found.two_bb
            for each, theirs in zip(mine, two, strict=True):
                np.testing.assert_allclose(each, theirs, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("nelec", "equal"), [((3, 4), False), ((3, 3), True), ((2, 5), False)])
def test_symmetry_and_backend_make_no_difference(nelec, equal, order):
    hamiltonian = make_hamiltonian(7, nelec, seed=4, labels=LABELS)
    strings = tuple(random_strings(7, n, 14, seed=0 if equal else k) for k, n in enumerate(nelec))
    auto = solve(hamiltonian, strings, nroots=4)
    plain = solve(hamiltonian, strings, nroots=4, symmetry="off", spin_flip="off", backend="reference")
    assert len({(root.sector, root.parity) for root in auto.roots}) > 1
    for bra in range(4):
        for ket in range(bra, 4):
            found = transition_density_matrices(auto, bra, ket, order)
            expected = transition_density_matrices(plain, bra, ket, order)
            if order == 1:
                pairs = [(found.alpha, expected.alpha), (found.beta, expected.beta)]
            else:
                pairs = [(getattr(found, n), getattr(expected, n)) for n in ("alpha", "two_aa", "two_ab", "two_bb")]
            signs = [np.sign(np.vdot(one, other)) for one, other in pairs if np.abs(other).max() > 1e-3]
            assert len(set(signs)) <= 1  # one sign for all: that of the two vectors
            for one, other in pairs:
                np.testing.assert_allclose(one, (signs or [1.0])[0] * other, atol=2e-6)


@pytest.mark.parametrize(("nelec", "counts"), [((2, 3), (12, 9)), ((1, 1), (8, 8)), ((63, 2), (6, 10))])
def test_sixty_five_orbitals_one_particle(nelec, counts):
    hamiltonian = make_hamiltonian(65, nelec, seed=1)
    strings = tuple(close_strings(65, n, count, k) for k, (n, count) in enumerate(zip(nelec, counts, strict=True)))
    fast, slow = (solve(hamiltonian, strings, backend=name, model_space=200) for name in ("cpu", "reference"))
    for one, other in zip(rdm1s(fast), rdm1s(slow), strict=True):
        assert np.trace(one) == pytest.approx(np.trace(other), abs=1e-10)
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_thirty_four_orbitals_two_particle():
    hamiltonian = make_hamiltonian(34, (2, 3), seed=1)
    strings = close_strings(34, 2, 12), close_strings(34, 3, 15, seed=1)
    found = density_matrices.density_matrices(solve(hamiltonian, strings))
    expected = density_matrices.density_matrices(solve(hamiltonian, strings, backend="reference"))
    assert_same(found, expected, 1e-7)


@pytest.mark.parametrize(("nelec", "counts"), [((3, 3), (1, 1)), ((3, 2), (1, 10)), ((3, 2), (8, 1)), ((6, 0), (1, 1))])
def test_one_string(nelec, counts):
    hamiltonian = make_hamiltonian(6, nelec, seed=4)
    strings = tuple(
        close_strings(6, n, count, k) if 0 < n < 6 else all_strings(6, n)
        for k, (n, count) in enumerate(zip(nelec, counts, strict=True))
    )
    result = solve(hamiltonian, strings)
    found = density_matrices.density_matrices(result)
    assert energy_of(hamiltonian, found) == pytest.approx(result.energies[0], abs=1e-10)
    assert np.trace(found.rdm1) == pytest.approx(sum(nelec), abs=1e-12)
    assert np.einsum("ppqq", found.rdm2) == pytest.approx(sum(nelec) * (sum(nelec) - 1), abs=1e-11)


def test_natural_occupations_and_entropies_of_known_states():
    # One determinant: integer occupations, no entropy.
    hamiltonian = make_hamiltonian(5, (2, 2))
    strings = close_strings(5, 2, 1), close_strings(5, 2, 1)
    found = density_matrices.density_matrices(solve(hamiltonian, strings))
    np.testing.assert_allclose(natural_occupations(found.rdm1), [2, 2, 0, 0, 0], atol=1e-14)
    np.testing.assert_allclose(orbital_entropies(found), 0.0, atol=1e-13)
    # Two electrons, evenly in two orbitals as (20 - 02) / sqrt(2): each orbital is empty or full, entropy ln 2.
    eri = np.zeros((2, 2, 2, 2))
    eri[0, 1, 0, 1] = eri[0, 1, 1, 0] = eri[1, 0, 0, 1] = eri[1, 0, 1, 0] = 1.0
    hamiltonian = Hamiltonian.from_arrays(np.zeros((2, 2)), eri, 0.0, (1, 1))
    result = solve(hamiltonian, (all_strings(2, 1), all_strings(2, 1)), nroots=4)
    root = int(np.argmax([root.parity > 0 and root.energy < 0 for root in result.roots]))
    found = density_matrices.density_matrices(result, root)
    np.testing.assert_allclose(natural_occupations(found.rdm1), [1.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(orbital_entropies(found), np.log(2.0), atol=1e-10)


def test_what_does_not_fit_is_refused(monkeypatch):
    result = solve(make_hamiltonian(6, (3, 2)), (close_strings(6, 3, 5), close_strings(6, 2, 5)))
    with pytest.raises(ValueError, match="a root is one of 0 to 0; got 1"):
        density_matrices.density_matrices(result, 1)
    with pytest.raises(ValueError, match="is 1 or 2; got 3"):
        density_matrices.density_matrices(result, 0, order=3)
    with pytest.raises(ValueError, match="need order = 2"):
        _ = density_matrices.density_matrices(result, 0, order=1).rdm2
    monkeypatch.setattr(density_matrices, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match="order 2 over 6 orbitals need .* GiB per rank"):
        density_matrices.density_matrices(result)
    assert predict_bytes(130, 2) > 1e10 > predict_bytes(65, 2) > predict_bytes(65, 1)
    assert Accumulators.size(4, 1, True) == 32
