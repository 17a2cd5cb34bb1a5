"""Second-order correction and variance against all determinants of small full spaces, and against PySCF."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends.cpu.outside import ExternalTile
from sqd_mpi.backends.reference import matrix_element
from sqd_mpi.backends.slow import kernels
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.outside_strings import external_strings, most_external
from sqd_mpi.solver import pt2
from sqd_mpi.solver.result import SubspaceResult
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings, make_hamiltonian, random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1])


def solve(hamiltonian: Hamiltonian, strings, **options) -> SubspaceResult:
    return solve_subspace(None, hamiltonian, *strings, SolveOptions(**{"tol": 1e-8, **options}))


def some_strings(norb: int, n: int, count: int, seed: int = 0) -> np.ndarray:
    return close_strings(norb, n, count, seed) if 0 < n < norb else all_strings(norb, n)


def by_enumeration(hamiltonian: Hamiltonian, strings, energy: float, vector: np.ndarray) -> tuple[float, float, float]:
    """E2, the sum of squares and the smallest gap from every determinant of the full space."""
    norb, energy_of = hamiltonian.norb, Interaction.energy(hamiltonian)
    integrals = np.ascontiguousarray(hamiltonian.h1e), hamiltonian.eri_pairs(), energy_of.coupling, 0.0, True
    inside = [set(bitstrings.to_integers(each)) for each in strings]
    correction, square, gap = 0.0, 0.0, np.inf
    for alpha in all_strings(norb, hamiltonian.nelec[0]):
        for beta in all_strings(norb, hamiltonian.nelec[1]):
            if int(alpha[0]) in inside[0] and int(beta[0]) in inside[1]:
                continue
            amplitude = sum(
                matrix_element(alpha, beta, ket_a, ket_b, *integrals) * vector[i, j]
                for i, ket_a in enumerate(strings[0])
                for j, ket_b in enumerate(strings[1])
            )
            if amplitude == 0.0:
                continue
            diagonal = matrix_element(alpha, beta, alpha, beta, *integrals) + hamiltonian.ecore
            correction += amplitude**2 / (energy - diagonal)
            square += amplitude**2
            gap = min(gap, abs(diagonal - energy)) if abs(amplitude) > 1e-12 else gap
    return correction, square, gap


def with_pyscf(hamiltonian: Hamiltonian, strings, energy: float, vector: np.ndarray) -> tuple[float, float]:
    """E2 and the variance from H applied by PySCF to the vector in the full space."""
    from pyscf import ao2mo
    from pyscf.fci import direct_spin1

    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    every = [all_strings(norb, n) for n in nelec]
    place = [bitstrings.find(full, each) for full, each in zip(every, strings, strict=True)]
    whole = np.zeros([len(each) for each in every])
    whole[np.ix_(*place)] = vector
    eri = ao2mo.restore(1, hamiltonian.eri, norb)
    absorbed = direct_spin1.absorb_h1e(hamiltonian.h1e, eri, norb, nelec, 0.5)
    image = direct_spin1.contract_2e(absorbed, whole, norb, nelec) + hamiltonian.ecore * whole
    diagonal = direct_spin1.make_hdiag(hamiltonian.h1e, eri, norb, nelec).reshape(whole.shape) + hamiltonian.ecore
    variance = np.vdot(image, image) - np.vdot(whole, image) ** 2
    image[np.ix_(*place)] = 0.0
    return float(np.sum(image**2 / (energy - diagonal))), float(variance)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("nelec", "counts"),
    [((3, 2), (7, 6)), ((3, 3), (8, 8)), ((3, 0), (5, 1)), ((1, 1), (2, 3)), ((3, 3), (1, 1)), ((6, 2), (1, 4))],
)
def test_agree_with_all_determinants(nelec, counts, backend):
    for labels in (None, LABELS):
        hamiltonian = make_hamiltonian(6, nelec, seed=3, labels=labels)
        alpha = some_strings(6, nelec[0], counts[0])
        strings = alpha, alpha if counts[0] == counts[1] else some_strings(6, nelec[1], counts[1], 1)
        result = solve(hamiltonian, strings, nroots=min(2, len(alpha) * len(strings[1])), backend=backend)
        for k, root in enumerate(result.roots):
            found = pt2.second_order(result, hamiltonian, k, tile_bytes=400 if k else None)
            expected = by_enumeration(hamiltonian, strings, root.energy, result.gather(k))
            if expected[2] > 1e-6:  # else a determinant outside is degenerate with the root
                assert found.energy == pytest.approx(expected[0], abs=1e-10)
            assert found.variance == pytest.approx(expected[1] + root.residual_norm**2, abs=1e-12)
            assert found.smallest_gap == pytest.approx(expected[2], abs=1e-8)


@pytest.mark.parametrize("options", [{}, {"spin_flip": "off"}, {"symmetry": "off"}])
@pytest.mark.parametrize(("nelec", "counts"), [((3, 3), (20, 20)), ((4, 2), (15, 12)), ((2, 5), (9, 21))])
def test_agree_with_pyscf(nelec, counts, options):
    hamiltonian = make_hamiltonian(8, nelec, seed=5, labels=np.arange(8) % 4)
    alpha = random_strings(8, nelec[0], counts[0])
    strings = alpha, alpha if nelec[0] == nelec[1] else random_strings(8, nelec[1], counts[1], 1)
    result = solve(hamiltonian, strings, nroots=3, **options)
    for root, found in zip(range(3), pt2.of_all_roots(result, hamiltonian), strict=True):
        expected = with_pyscf(hamiltonian, strings, result.energies[root], result.gather(root))
        assert found.energy == pytest.approx(expected[0], abs=1e-10)
        assert found.variance == pytest.approx(expected[1], abs=1e-9)


def test_a_loose_solve_has_its_residual_in_the_variance():
    hamiltonian = make_hamiltonian(8, (3, 4), seed=5)
    strings = close_strings(8, 3, 30), close_strings(8, 4, 30, 1)
    result = solve(hamiltonian, strings, tol=0.5, model_space=2, symmetry="off", max_iterations=2)
    assert result.roots[0].residual_norm > 1e-3
    expected = with_pyscf(hamiltonian, strings, result.energies[0], result.gather())
    assert pt2.second_order(result, hamiltonian).variance == pytest.approx(expected[1], abs=1e-10)


@pytest.mark.parametrize("options", [{}, {"spin_flip": "off"}, {"spin_penalty": 0.3}])
@pytest.mark.parametrize(
    ("nelec", "spin_square"), [((3, 3), 0.0), ((3, 3), 2.0), ((4, 2), 2.0), ((4, 2), 6.0), ((3, 4), 3.75)]
)
def test_a_penalty_on_other_spins_leaves_its_trace_in_the_variance(nelec, spin_square, options):
    """The state is that of another operator: within the space it is no eigenstate of H."""
    hamiltonian = make_hamiltonian(8, nelec, seed=5)
    alpha = close_strings(8, nelec[0], 18)
    strings = alpha, alpha if nelec[0] == nelec[1] else close_strings(8, nelec[1], 15, 1)
    result = solve(hamiltonian, strings, nroots=2, spin_square=spin_square, max_iterations=1000, **options)
    for root, found in zip(range(2), pt2.of_all_roots(result, hamiltonian), strict=True):
        expected = with_pyscf(hamiltonian, strings, result.energies[root], result.gather(root))
        assert found.energy == pytest.approx(expected[0], abs=1e-10)
        assert found.variance == pytest.approx(expected[1], abs=1e-9)
        assert result.deviations([root])[0] > 1e-3 > 100 * result.roots[root].residual_norm


def test_nothing_lies_outside_the_full_space():
    hamiltonian = make_hamiltonian(5, (3, 2), seed=1)
    result = solve(hamiltonian, (all_strings(5, 3), all_strings(5, 2)))
    found = pt2.second_order(result, hamiltonian)
    assert found.energy == 0.0 and found.smallest_gap == np.inf
    assert found.variance == result.roots[0].residual_norm ** 2


@pytest.mark.slow
@pytest.mark.parametrize(("nelec", "counts"), [((2, 1), (3, 2)), ((1, 1), (2, 2)), ((64, 1), (1, 2))])
def test_sixty_five_orbitals(nelec, counts, monkeypatch):
    hamiltonian = make_hamiltonian(65, nelec, seed=1)
    strings = tuple(close_strings(65, n, count, k) for k, (n, count) in enumerate(zip(nelec, counts, strict=True)))
    monkeypatch.setattr(pt2, "_MOST_STRINGS", 500)  # several passes over the strings outside
    monkeypatch.setattr(pt2, "_MOST_COLUMNS", 50)
    found, slow = (
        pt2.second_order(solve(hamiltonian, strings, backend=name), hamiltonian) for name in ("cpu", "reference")
    )
    assert found.energy == pytest.approx(slow.energy, rel=1e-10)
    assert found.variance == pytest.approx(slow.variance, rel=1e-10)
    assert found.smallest_gap == pytest.approx(slow.smallest_gap, abs=1e-9)


def test_plain_kernels_give_the_same(monkeypatch):
    hamiltonian = make_hamiltonian(8, (3, 4), seed=5, labels=np.arange(8) % 4)
    result = solve(hamiltonian, (close_strings(8, 3, 20), close_strings(8, 4, 25, 1)))
    fast = pt2.second_order(result, hamiltonian)

    def plain(*arguments):
        return ExternalTile(*arguments, kernels=kernels)

    monkeypatch.setattr(pt2, "get_external_tile", lambda _: plain)
    slow = pt2.second_order(result, hamiltonian)
    assert fast.energy == pytest.approx(slow.energy, rel=1e-12)
    assert fast.variance == pytest.approx(slow.variance, rel=1e-12)


def excitations(bits: int, norb: int, degree: int) -> set[int]:
    occupied = [k for k in range(norb) if bits >> k & 1]
    virtual = [k for k in range(norb) if not bits >> k & 1]
    once = {bits ^ 1 << q ^ 1 << p for q in occupied for p in virtual}
    return once if degree == 1 else {two for one in once for two in excitations(one, norb, 1)} - once - {bits}


@pytest.mark.parametrize(("norb", "n", "count"), [(8, 3, 20), (65, 2, 4), (130, 1, 3), (6, 0, 1), (6, 6, 1), (5, 4, 5)])
def test_external_strings(norb, n, count):
    strings = some_strings(norb, n, count)
    inside = set(bitstrings.to_integers(strings))
    singles = external_strings(strings, norb, 1)
    expected = set().union(*(excitations(bits, norb, 1) for bits in inside)) - inside
    assert bitstrings.to_integers(singles) == sorted(expected)
    assert len(singles) <= most_external(len(strings), norb, n, 1)
    doubles = set().union(*(excitations(bits, norb, 2) for bits in inside)) - inside - expected
    whole = external_strings(strings, norb, 2, excluded=singles)
    assert bitstrings.to_integers(whole) == sorted(doubles)
    parts = [external_strings(strings, norb, 2, k, 6, singles) for k in range(6)]
    assert bitstrings.to_integers(bitstrings.canonical(np.concatenate(parts))[0]) == sorted(doubles)
    assert sum(len(part) for part in parts) == len(doubles)
    half = np.concatenate(parts[3:])
    nested = external_strings(strings, norb, 2, 1, 2, singles)
    assert sorted(bitstrings.to_integers(half)) == bitstrings.to_integers(nested)


def test_a_root_that_is_not_there_is_refused():
    hamiltonian = make_hamiltonian(6, (3, 2))
    result = solve(hamiltonian, (close_strings(6, 3, 5), close_strings(6, 2, 5)))
    with pytest.raises(ValueError, match="a root is one of 0 to 0; got 1"):
        pt2.second_order(result, hamiltonian, 1)
