"""Small problems for tests: random Hamiltonians with and without symmetry, random strings, dense definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.backends.reference import spin_integrals, spin_matrix_element, twist_of
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction


def make_hamiltonian(
    norb: int, nelec: tuple[int, int], seed: int = 0, labels: NDArray[np.int64] | None = None
) -> Hamiltonian:
    """Random integrals that look like a molecule's (a level spacing and weaker coupling); zero where labels forbid."""
    rng = np.random.default_rng(seed)
    rows, columns = np.tril_indices(norb)
    h1e = 0.1 * rng.normal(size=(norb, norb))
    h1e = h1e + h1e.T + np.diag(np.linspace(-2.0, 2.0, norb))
    n_pairs = len(rows)
    eri = 0.1 * rng.normal(size=(n_pairs, n_pairs))
    eri = eri + eri.T
    if labels is not None:
        h1e[labels[:, None] != labels[None, :]] = 0.0
        pair_labels = labels[rows] ^ labels[columns]
        eri[pair_labels[:, None] != pair_labels[None, :]] = 0.0
    return Hamiltonian(h1e, eri[np.tril_indices(n_pairs)], 0.7, norb, nelec)


def with_few_integrals(kind: str, norb: int, nelec: tuple[int, int], seed: int = 0) -> Hamiltonian:
    """Random hopping and few two-electron integrals that are not zero.

    Args:
        kind: "sites", a Hubbard model; "extended", with repulsion and exchange of neighbours as well; "impurity", all
            integrals of the first three orbitals; "pairs", pair hopping (pq|pq) alone.
        norb, nelec: orbitals and electrons.
        seed: of random numbers.
    """
    full = make_hamiltonian(norb, nelec, seed)
    p, q = np.tril_indices(norb)
    wanted = (p[:, None] == q[None, :]) & (p == q)[:, None] & (p == q)[None, :]
    if kind == "extended":
        wanted = (p == q)[:, None] & (p == q)[None, :] & (abs(p[:, None] - p[None, :]) <= 1)
        wanted |= np.diag(p - q == 1)
    elif kind == "impurity":
        wanted = (p < 3)[:, None] & (p < 3)[None, :]
    elif kind == "pairs":
        wanted = np.diag(p > q)
    pairs = np.where(wanted, full.eri_pairs(), 0.0)
    return Hamiltonian(full.h1e, pairs[np.tril_indices(len(p))], full.ecore, norb, nelec)


def turned(hamiltonian: Hamiltonian, seed: int = 0, blocks: np.ndarray | None = None) -> Hamiltonian:
    """The same Hamiltonian with beta orbitals of their own, turned among those of equal label."""
    rng = np.random.default_rng(seed)
    norb = hamiltonian.norb
    labels = np.zeros(norb, np.int64) if blocks is None else blocks
    matrix = rng.normal(size=(norb, norb)) * (labels[:, None] == labels[None, :]) + 3 * np.eye(norb)
    rotation = np.linalg.qr(matrix)[0]
    p, q = np.tril_indices(norb)
    full = np.zeros((norb, norb), np.int64)
    full[p, q] = full[q, p] = np.arange(len(p))
    eri = hamiltonian.eri_pairs()[full[:, :, None, None], full[None, None]]
    ab = np.einsum("pqrs,rk,sl->pqkl", eri, rotation, rotation, optimize=True)
    bb = np.einsum("pqkl,pi,qj->ijkl", ab, rotation, rotation, optimize=True)
    h1e = np.stack([hamiltonian.h1e, rotation.T @ hamiltonian.h1e @ rotation])
    return Hamiltonian.from_arrays(h1e, (eri, ab, bb), hamiltonian.ecore, hamiltonian.nelec, rotation)


def spin_dependent(norb: int, nelec: tuple[int, int], seed: int = 0, labels: np.ndarray | None = None) -> Hamiltonian:
    """Random integrals that differ for both spins, and a random overlap."""
    parts = [make_hamiltonian(norb, nelec, seed + k, labels) for k in range(3)]
    pairs = parts[2].eri_pairs() + np.triu(0.05 * parts[1].eri_pairs())  # no symmetry between alpha and beta pairs
    overlap = np.linalg.qr(np.eye(norb) + 0.1 * parts[1].h1e)[0]
    return Hamiltonian(
        parts[0].h1e, parts[0].eri, 0.3, norb, nelec, h1e_b=parts[1].h1e, eri_bb=parts[1].eri, eri_ab=pairs,
        overlap_ab=overlap,
    )  # fmt: skip


def all_strings(norb: int, n_electrons: int) -> NDArray[np.uint64]:
    """Every string, in canonical order."""
    integers = [sum(1 << orbital for orbital in chosen) for chosen in combinations(range(norb), n_electrons)]
    return bitstrings.canonical(bitstrings.from_integers(integers, norb))[0]


def random_strings(norb: int, n_electrons: int, count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Different random strings, in canonical order."""
    rng = np.random.default_rng(seed)
    found: set[int] = set()
    while len(found) < count:
        found.add(sum(1 << int(k) for k in rng.choice(norb, n_electrons, replace=False)))
    return bitstrings.canonical(bitstrings.from_integers(sorted(found), norb))[0]


def close_strings(norb: int, n_electrons: int, count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Different random strings that are mostly singles and doubles of each other, in canonical order."""
    rng = np.random.default_rng(seed)
    found = {(1 << n_electrons) - 1}
    while len(found) < count:
        bits = list(sorted(found))[int(rng.integers(len(found)))]
        occupied = [k for k in range(norb) if bits >> k & 1]
        virtual = [k for k in range(norb) if not bits >> k & 1]
        found.add(bits ^ 1 << int(rng.choice(occupied)) ^ 1 << int(rng.choice(virtual)))
    return bitstrings.canonical(bitstrings.from_integers(sorted(found), norb))[0]


def dense_matrix(
    hamiltonian: Hamiltonian,
    strings_a: NDArray[np.uint64],
    strings_b: NDArray[np.uint64],
    interaction: Interaction | None = None,
) -> NDArray[np.float64]:
    """The whole matrix over (alpha, beta) in canonical order, element by element."""
    what = interaction if interaction is not None else Interaction.energy(hamiltonian)
    integrals = (*spin_integrals(hamiltonian), what.coupling, what.swap, twist_of(what), what.same_spin)
    determinants = [(a, b) for a in strings_a for b in strings_b]
    matrix = np.empty((len(determinants), len(determinants)))
    for i, (bra_a, bra_b) in enumerate(determinants):
        for j, (ket_a, ket_b) in enumerate(determinants[: i + 1]):
            element = spin_matrix_element(bra_a, bra_b, ket_a, ket_b, *integrals)
            matrix[i, j] = matrix[j, i] = element + (what.constant if i == j else 0.0)
    return matrix


def pair_matrix(norb: int) -> np.ndarray:
    """(norb, norb) index of every orbital pair."""
    rows, columns = np.tril_indices(norb)
    pair = np.zeros((norb, norb), np.int64)
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    return pair
