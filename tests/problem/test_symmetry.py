"""Labels found from the zeros of the integrals, against labels that were put in and against PySCF's point groups."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.symmetry import MAX_TOLERANCE, choose_tolerance, find_labels, string_labels, trivial_labels
from tests.support.problems import all_strings, dense_matrix, make_hamiltonian, random_strings

FOUR = np.array([0, 1, 2, 3, 0, 1, 2])


def same_partition(found: NDArray[np.int64], expected: NDArray[np.int64]) -> bool:
    """Whether XORs of two orbitals' labels agree up to relabelling: a linear map over GF(2)."""
    image: dict[int, int] = {}
    for p, q in combinations(range(len(found)), 2):
        if image.setdefault(int(expected[p] ^ expected[q]), int(found[p] ^ found[q])) != found[p] ^ found[q]:
            return False
    return len(set(image.values())) == len(image) and image.get(0, 0) == 0


def with_noise(hamiltonian: Hamiltonian, size: float, seed: int = 3) -> Hamiltonian:
    """The same with a number of magnitude `size` in place of every two-electron zero."""
    rng = np.random.default_rng(seed)
    eri = hamiltonian.eri.copy()
    zeros = np.flatnonzero(eri == 0.0)
    eri[zeros] = size * rng.choice([-1.0, 1.0], len(zeros)) * rng.uniform(0.5, 1.0, len(zeros))
    return Hamiltonian(hamiltonian.h1e, eri, hamiltonian.ecore, hamiltonian.norb, hamiltonian.nelec)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_bits", [0, 1, 2, 3])
def test_finds_labels_that_were_put_in(seed, n_bits):
    rng = np.random.default_rng(seed)
    # All labels occur, so the labels put in are all that is conserved.
    expected = rng.permutation(np.concatenate([np.arange(2**n_bits), rng.integers(2**n_bits, size=3)]))
    found = find_labels(make_hamiltonian(len(expected), (2, 2), seed, expected))
    assert found.n_labels == 2**n_bits
    assert found.labels.min() >= 0 and found.labels.max() < found.n_labels
    assert same_partition(found.labels, expected)
    assert found.max_dropped == 0.0 and found.effect_bound == 0.0


@pytest.mark.parametrize("size", [1e-15, 1e-13, 1e-12, 1e-11])
def test_noise_below_the_tolerance_is_dropped_and_reported(size):
    exact = make_hamiltonian(7, (2, 3), 1, FOUR)
    noisy = with_noise(exact, size)
    found = find_labels(noisy)
    assert found.n_labels == 4 and same_partition(found.labels, FOUR)
    assert size / 2 <= found.max_dropped <= size < found.tolerance <= MAX_TOLERANCE
    strings = all_strings(7, 2)[::2], all_strings(7, 3)[::3]
    energies = [np.linalg.eigvalsh(dense_matrix(each, *strings)) for each in (exact, noisy)]
    assert np.abs(energies[0] - energies[1]).max() <= found.effect_bound + 1e-12


@pytest.mark.parametrize("size", [1e-9, 1e-6])
def test_integrals_above_the_largest_tolerance_are_never_zeros(size):
    found = find_labels(with_noise(make_hamiltonian(7, (2, 3), 1, FOUR), size))
    assert found.n_labels == 1
    assert found.max_dropped == 0.0


def test_one_forbidden_integral_breaks_its_parity_only():
    exact = make_hamiltonian(7, (2, 3), 1, FOUR)
    h1e = exact.h1e.copy()
    h1e[0, 1] = h1e[1, 0] = 1e-8  # labels 0 and 1 become one
    found = find_labels(Hamiltonian(h1e, exact.eri, 0.0, 7, (2, 3)))
    assert found.n_labels == 2 and same_partition(found.labels, FOUR >> 1)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0, 0.1],
        [1.0, 1e-9, 1e-12],
        [1.0, 9e-11, 1e-14],
        [1.0, 1.5e-10, 8e-11, 1e-12, 1e-13],
        [1e-10, 1e-11, 1e-12, 1e-13, 1e-14],
        [2e-10, 1.1e-10],
    ],
)
def test_tolerance_lies_in_a_gap(values):
    tolerance = choose_tolerance(np.array([0.0, *values, *(-value for value in values)]))
    assert 0.0 < tolerance <= MAX_TOLERANCE
    assert all(not tolerance / 1.05 < value < tolerance * 1.05 for value in values)


def test_more_than_64_orbitals():
    rng = np.random.default_rng(5)
    expected = rng.integers(4, size=70)
    found = find_labels(make_hamiltonian(70, (2, 2), 0, expected))
    assert found.n_labels == 4 and same_partition(found.labels, expected)


@pytest.mark.parametrize("norb", [5, 64, 65, 130])
def test_string_labels_are_a_plain_xor(norb):
    labels = np.random.default_rng(norb).integers(32, size=norb)
    strings = random_strings(norb, 3, 9, seed=norb)
    expected = []
    for row in bitstrings.unpack(strings, norb):
        label = 0
        for orbital in range(norb):
            if row[orbital]:
                label ^= int(labels[orbital])
        expected.append(label)
    assert string_labels(strings, labels).tolist() == expected


def test_no_electrons_and_no_symmetry():
    assert string_labels(random_strings(6, 0, 1), np.array([1, 2, 3, 1, 2, 3])).tolist() == [0]
    assert string_labels(random_strings(6, 3, 5), trivial_labels(6).labels).tolist() == [0] * 5


def test_matrix_elements_between_sectors_vanish():
    hamiltonian = make_hamiltonian(7, (3, 4), 2, FOUR)
    labels = find_labels(hamiltonian)
    strings = random_strings(7, 3, 12), random_strings(7, 4, 11)
    label_a, label_b = (string_labels(each, labels.labels) for each in strings)
    sector = (label_a[:, None] ^ label_b[None, :]).ravel()
    matrix = dense_matrix(hamiltonian, *strings)
    assert np.all(matrix[sector[:, None] != sector[None, :]] == 0.0)
    assert len(set(sector.tolist())) == 4


def density_only(norb: int) -> Hamiltonian:
    """Orbital energies and density-density repulsion: no orbital couples to another."""
    rng = np.random.default_rng(8)
    n_pairs = norb * (norb + 1) // 2
    diagonal = np.array([p * (p + 1) // 2 + p for p in range(norb)])
    eri = np.zeros((n_pairs, n_pairs))
    eri[np.ix_(diagonal, diagonal)] = rng.uniform(0.1, 0.5, size=(norb, norb))
    eri = (eri + eri.T) / 2
    return Hamiltonian(np.diag(rng.normal(size=norb)), eri[np.tril_indices(n_pairs)], 0.0, norb, (2, 2))


@pytest.mark.parametrize("norb", [1, 2, 12, 66])
def test_uncoupled_orbitals_have_many_parities_of_which_five_bits_are_used(norb):
    hamiltonian = density_only(norb) if norb > 1 else make_hamiltonian(1, (1, 0))
    found = find_labels(hamiltonian)
    assert found.n_labels == min(2 ** (norb - 1), 32)
    assert found.labels.max(initial=0) < found.n_labels
    assert len(np.unique(found.labels)) == min(norb, 6)
    assert found.max_dropped == 0.0


def test_hubbard_chain_in_its_lattice_basis():
    # Neighbours hop, so that no parity but the trivial one is left; without hopping all are.
    hop = -np.eye(6, k=1) - np.eye(6, k=-1)
    eri = np.zeros((21, 21))
    for p in range(6):
        eri[p * (p + 1) // 2 + p, p * (p + 1) // 2 + p] = 4.0
    packed = eri[np.tril_indices(21)]
    assert find_labels(Hamiltonian(hop, packed, 0.0, 6, (3, 3))).n_labels == 1
    assert find_labels(Hamiltonian(0 * hop, packed, 0.0, 6, (3, 3))).n_labels == 32


@pytest.mark.parametrize(
    ("atom", "n_labels"), [("N 0 0 0; N 0 0 1.1", 8), ("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", 4)]
)
def test_finds_the_point_group(atom, n_labels):
    from pyscf import gto, scf

    molecule = gto.M(atom=atom, basis="sto-3g", symmetry=True, verbose=0)
    mean_field = scf.RHF(molecule).run(conv_tol=1e-12)
    found = find_labels(Hamiltonian.from_pyscf(mean_field))
    assert found.n_labels == n_labels
    # PySCF's irrep numbers (0 to 7 in D2h and its subgroups) multiply by XOR too.
    assert same_partition(found.labels, np.asarray(mean_field.mo_coeff.orbsym))
    assert found.max_dropped <= found.tolerance <= MAX_TOLERANCE


@pytest.mark.parametrize("name", ["h2o", "n2"])
def test_published_inputs_have_four_labels(data_dir, name):
    found = find_labels(Hamiltonian.from_fcidump(data_dir / name / "fcidump.txt"))
    assert found.n_labels == 4
    assert found.tolerance == pytest.approx(1e-10)
    assert found.max_dropped < 2e-11
