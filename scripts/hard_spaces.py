"""Small spaces that are hard on an eigensolver, against ARPACK with deflation or the dense matrix.

    python scripts/hard_spaces.py [--problems 1000] [--seed 1] [--first 0] [--kind lattice] [--verbose]

Hubbard clusters on chains, rings, ladders, squares and random graphs at all fillings, in sites and in orbitals of the
hopping; hydrogen clusters and stretched N2, C2, O2 in Hartree-Fock and in localised orbitals; random integrals with and
without symmetry; a few strings of very many, which next to nothing couples; all strings and samples of them; one to
six roots. States are close or degenerate, and in localised orbitals and scattered strings the lowest determinants say
little about them, so a solver that trusts its start misses some. A problem depends on the seed and its number alone.
Every solve has the program's defaults but for the number of roots.

Prints a line for every solve that is wrong (off by more than 1e-7 hartree) or not converged and, per kind, how many
sigmas were needed, and how many of them only showed that no state was missed. Exit code 1 if a state was missed.
scripts/harder_spaces.py draws other kinds, and solves that ask for a spin.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqd_mpi.log import Iteration, Log
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian

WRONG = 1e-7  # hartree
KINDS = {"lattice": 0.44, "hydrogen": 0.18, "diatomic": 0.11, "random": 0.16, "scattered": 0.11}
MOST_DETERMINANTS = 16_000
DENSE = 1500  # determinants up to which the whole matrix is diagonalised
REPULSIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0)


@dataclass(frozen=True)
class Problem:
    """One space and how many roots are wanted in it."""

    name: str
    hamiltonian: Hamiltonian = field(repr=False)
    strings_a: NDArray[np.uint64] = field(repr=False)
    strings_b: NDArray[np.uint64] = field(repr=False)
    nroots: int
    spin_square: float | None = None
    """S(S+1) that is asked for, or None for any."""

    @property
    def dimension(self) -> int:
        """Number of determinants."""
        return len(self.strings_a) * len(self.strings_b)


def draw(seed: int, number: int, kind: str | None = None) -> Problem:
    """Problem `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    drawn = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    kind = kind or drawn
    makers = {"lattice": lattice, "hydrogen": hydrogen, "diatomic": diatomic, "random": random_integrals}
    hamiltonian, name = random_integrals(rng, (12, 16, 20)) if kind == "scattered" else makers[kind](rng)
    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    if kind == "scattered":
        strings = [_drawn_strings(rng, norb, n, int(rng.integers(5, 90))) for n in nelec]
    else:
        strings = [all_strings(norb, n) for n in nelec]
        share = float(rng.uniform(0.3, 0.95)) if rng.random() < 0.35 else 1.0
        strings = strings if share == 1.0 else [_sampled(rng, each, share) for each in strings]
    if kind == "scattered" or share < 1.0:
        if nelec[0] == nelec[1] and rng.random() < 0.7:
            strings[1] = strings[0]
        name += f", {len(strings[0])} x {len(strings[1])} sampled strings"
    nroots = int(min(rng.choice([1, 1, 1, 2, 3, 4, 5, 6]), len(strings[0]) * len(strings[1])))
    return Problem(f"{kind}: {name}", hamiltonian, strings[0], strings[1], nroots)


def lattice(rng: np.random.Generator) -> tuple[Hamiltonian, str]:
    """A Hubbard or extended Hubbard model of at most nine sites, at any filling."""
    shape = str(rng.choice(["chain", "ring", "ladder", "square", "graph"]))
    n = int(rng.choice({"ladder": [4, 6, 8, 8], "square": [4, 6, 9, 9]}.get(shape, [4, 5, 6, 7, 8, 8, 9, 9])))
    bonds = {
        "chain": [(k, k + 1) for k in range(n - 1)],
        "ring": [(k, (k + 1) % n) for k in range(n)],
        "ladder": rectangle(n // 2, 2),
        "square": rectangle(*{4: (2, 2), 6: (3, 2), 9: (3, 3)}.get(n, (n // 2, 2))),
    }.get(shape) or _random_graph(rng, n)
    pattern = str(rng.choice(["equal", "alternating", "random"]))
    hopping = {
        "equal": np.ones(len(bonds)),
        "alternating": np.where(np.arange(len(bonds)) % 2 == 0, 1.3, 0.7),
        "random": rng.uniform(0.5, 1.5, len(bonds)),
    }[pattern]
    repulsion = float(rng.choice(REPULSIONS))
    neighbours = float(rng.choice([0.0, 0.0, 0.25, 0.6])) * repulsion
    disorder = float(rng.choice([0.0, 0.0, 0.0, 0.5]))
    h1e, eri = hubbard_integrals(n, bonds, hopping, repulsion, neighbours)
    h1e += np.diag(disorder * rng.normal(size=n))
    nelec = _filling(rng, n)
    orbitals = str(rng.choice(["sites", "sites", "eigenorbitals"]))
    if orbitals == "eigenorbitals":
        h1e, eri = rotated(h1e, eri, np.linalg.eigh(h1e)[1])
    name = (
        f"{shape} of {n}, {pattern} hopping, U {repulsion:g}, V {neighbours:g}, disorder {disorder:g}, {nelec[0]} + "
        f"{nelec[1]} electrons, {orbitals}"
    )
    return Hamiltonian.from_arrays(h1e, eri, 0.0, nelec), name


def hydrogen(rng: np.random.Generator) -> tuple[Hamiltonian, str]:
    """Four to eight hydrogen atoms, or their ion."""
    shape = str(rng.choice(["chain", "ring", "cube", "cloud"]))
    n = 8 if shape == "cube" else int(rng.choice([4, 5, 6, 6, 7, 7, 8, 8]))
    distance = float(rng.choice([0.9, 1.2, 1.6, 2.0]))
    charge = int(rng.choice([0, 0, 0, 1]))
    localised = bool(rng.random() < 0.6)
    seed = int(rng.integers(1000)) if shape == "cloud" else 0
    spin = (n - charge) % 2 + (2 if rng.random() < 0.2 else 0)
    if _too_large(n, ((n - charge + spin) // 2, (n - charge - spin) // 2)):
        spin += 4
    h1e, eri, core = hydrogen_integrals(shape, n, distance, seed, localised)
    nelec = (n - charge + spin) // 2, (n - charge - spin) // 2
    orbitals = "Loewdin" if localised else "Hartree-Fock"
    name = f"H{n} {shape} {distance:g} A, charge {charge}, {nelec}, {orbitals} orbitals"
    return Hamiltonian.from_arrays(h1e, eri, core, nelec), name


def diatomic(rng: np.random.Generator) -> tuple[Hamiltonian, str]:
    """N2, C2 or O2 in an active space of the valence orbitals, stretched."""
    atom = str(rng.choice(["N", "C", "O"]))
    distance = float(rng.choice([1.1, 1.3, 1.6, 2.0, 2.5, 3.0]))
    localised = bool(rng.random() < 0.5)
    n_electrons = {"N": 10, "C": 8, "O": 12}[atom]
    spin = int(rng.choice([0, 0, 2, 4]))
    h1e, eri, core = diatomic_integrals(atom, distance, localised)
    nelec = (n_electrons + spin) // 2, (n_electrons - spin) // 2
    name = f"{atom}2 {distance:g} A, {nelec}, {'localised' if localised else 'Hartree-Fock'} orbitals"
    return Hamiltonian.from_arrays(h1e, eri, core, nelec), name


def random_integrals(
    rng: np.random.Generator, sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 7, 8, 8)
) -> tuple[Hamiltonian, str]:
    """Integrals of no molecule, with or without labels, of any strength; over 8 orbitals 2 to 5 electrons a spin."""
    norb = int(rng.choice(sizes))
    strength, spread = float(rng.choice([0.03, 0.1, 0.3, 1.0])), float(rng.choice([0.0, 0.5, 2.0]))
    n_labels = int(rng.choice([1, 1, 2, 4]))
    labels = rng.integers(0, n_labels, norb)
    rows, columns = np.tril_indices(norb)
    h1e = strength * rng.normal(size=(norb, norb))
    h1e = h1e + h1e.T + np.diag(np.linspace(-spread, spread, norb))
    eri = strength * rng.normal(size=(len(rows), len(rows)))
    eri = eri + eri.T
    h1e[labels[:, None] != labels[None, :]] = 0.0
    pairs = labels[rows] ^ labels[columns]
    eri[pairs[:, None] != pairs[None, :]] = 0.0
    if norb <= 8:
        nelec = _filling(rng, norb)
    else:
        n_alpha, n_beta = (int(k) for k in rng.integers(2, 6, 2))
        nelec = n_alpha, n_alpha if rng.random() < 0.6 else n_beta
    name = f"{norb} orbitals, strength {strength:g}, spread {spread:g}, {n_labels} labels, {nelec}"
    return Hamiltonian(h1e, eri[np.tril_indices(len(rows))], 0.7, norb, nelec), name


def hubbard_integrals(
    n: int, bonds: list[tuple[int, int]], hopping: Any, repulsion: float, neighbours: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, n) and (n, n, n, n) integrals of sites with a repulsion on every site and one between neighbours."""
    h1e, eri = np.zeros((n, n)), np.zeros((n, n, n, n))
    for (p, q), amount in zip(bonds, np.broadcast_to(hopping, len(bonds)), strict=True):
        h1e[p, q] = h1e[q, p] = -amount
        eri[p, p, q, q] = eri[q, q, p, p] = neighbours
    for p in range(n):
        eri[p, p, p, p] = repulsion
    return h1e, eri


def rotated(
    h1e: NDArray[np.float64], eri: NDArray[np.float64], orbitals: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Integrals over orbitals, in columns."""
    eri = np.einsum("pqrs,pi,qj,rk,sl->ijkl", eri, *[orbitals] * 4, optimize=True)
    eri = 0.25 * (eri + eri.transpose(1, 0, 2, 3) + eri.transpose(0, 1, 3, 2) + eri.transpose(1, 0, 3, 2))
    h1e = orbitals.T @ h1e @ orbitals
    return 0.5 * (h1e + h1e.T), 0.5 * (eri + eri.transpose(2, 3, 0, 1))


@lru_cache(maxsize=256)
def hydrogen_integrals(
    shape: str, n: int, distance: float, seed: int, localised: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Integrals of hydrogen atoms in STO-3G and the energy of the nuclei."""
    from pyscf import gto, scf

    radius = n * distance / (2 * np.pi)
    positions = {
        "chain": [(k * distance, 0.0, 0.0) for k in range(n)],
        "ring": [(radius * np.cos(2 * np.pi * k / n), radius * np.sin(2 * np.pi * k / n), 0.0) for k in range(n)],
        "cube": [(distance * i, distance * j, distance * k) for i in (0, 1) for j in (0, 1) for k in (0, 1)],
        "cloud": _cloud(n, distance, seed),
    }[shape]
    mol = gto.M(atom=[("H", xyz) for xyz in positions], basis="sto-3g", spin=n % 2, verbose=0)
    if localised:
        overlap = mol.intor("int1e_ovlp")
        orbitals = scipy.linalg.fractional_matrix_power(overlap, -0.5).real
    else:
        orbitals = scf.ROHF(mol).run(max_cycle=200).mo_coeff
    return (*_transformed(mol, orbitals), float(mol.energy_nuc()))


@lru_cache(maxsize=256)
def diatomic_integrals(
    atom: str, distance: float, localised: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Integrals of the eight valence orbitals in STO-3G, the two cores frozen, and the energy of cores and nuclei."""
    from pyscf import gto, lo, mcscf, scf

    mol = gto.M(atom=f"{atom} 0 0 0; {atom} 0 0 {distance}", basis="sto-3g", verbose=0)
    mean_field = scf.RHF(mol).run(max_cycle=200)
    cas = mcscf.CASCI(mean_field, 8, mol.nelectron - 4)
    orbitals = mean_field.mo_coeff[:, 2:]
    if localised:
        orbitals = lo.orth.vec_lowdin(orbitals @ (orbitals.T @ mol.intor("int1e_ovlp"))[:, _valence(mol)],
                                      mol.intor("int1e_ovlp"))  # fmt: skip
    whole = np.column_stack([mean_field.mo_coeff[:, :2], orbitals])
    h1e, core = cas.get_h1eff(whole)
    from pyscf import ao2mo

    eri = ao2mo.restore(1, np.asarray(cas.get_h2eff(whole)), 8)
    return 0.5 * (h1e + h1e.T), eri, float(core)


def _valence(mol: Any) -> list[int]:
    """Basis functions that are no 1s of an atom of the second row."""
    return [k for k, label in enumerate(mol.ao_labels()) if "1s" not in label]


def _transformed(mol: Any, orbitals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from pyscf import ao2mo

    kinetic = mol.intor("int1e_kin") + mol.intor("int1e_nuc")
    h1e = orbitals.T @ kinetic @ orbitals
    return 0.5 * (h1e + h1e.T), ao2mo.restore(1, ao2mo.full(mol, orbitals), orbitals.shape[1])


def rectangle(length: int, width: int) -> list[tuple[int, int]]:
    along = [(width * k + j, width * (k + 1) + j) for k in range(length - 1) for j in range(width)]
    return along + [(width * k + j, width * k + j + 1) for k in range(length) for j in range(width - 1)]


def _random_graph(rng: np.random.Generator, n: int) -> list[tuple[int, int]]:
    """A tree and some more bonds."""
    bonds = {(int(rng.integers(k)), k) for k in range(1, n)}
    for _ in range(int(rng.integers(0, n))):
        p, q = sorted(int(k) for k in rng.choice(n, 2, replace=False))
        bonds.add((p, q))
    return sorted(bonds)


def _cloud(n: int, distance: float, seed: int) -> list[tuple[float, float, float]]:
    """Points in a box that keep most of a distance from each other."""
    rng = np.random.default_rng(seed)
    points: list[Any] = []
    while len(points) < n:
        point = rng.uniform(0.0, 2.2 * distance, 3)
        if all(np.linalg.norm(point - other) > 0.8 * distance for other in points):
            points.append(point)
    return [tuple(float(x) for x in point) for point in points]


def _too_large(norb: int, nelec: tuple[int, int]) -> bool:
    return comb(norb, nelec[0]) * comb(norb, nelec[1]) > MOST_DETERMINANTS


def _filling(rng: np.random.Generator, norb: int) -> tuple[int, int]:
    """Electron numbers, often equal; mostly no tiny space."""
    least = 4 if rng.random() < 0.1 else min(900, comb(norb, norb // 2) ** 2 // 3)
    while True:
        n_alpha, n_beta = (int(k) for k in rng.integers(0, norb + 1, 2))
        if rng.random() < 0.6:
            n_beta = n_alpha
        size = comb(norb, n_alpha) * comb(norb, n_beta)
        if least <= size <= MOST_DETERMINANTS:
            return n_alpha, n_beta


def _sampled(rng: np.random.Generator, strings: NDArray[np.uint64], share: float) -> NDArray[np.uint64]:
    """A random part of the strings, at least one."""
    count = max(1, int(share * len(strings)))
    return np.ascontiguousarray(strings[np.sort(rng.choice(len(strings), count, replace=False))])


def _drawn_strings(rng: np.random.Generator, norb: int, n_electrons: int, count: int) -> NDArray[np.uint64]:
    """Up to `count` strings out of all."""
    drawn = {sum(1 << int(k) for k in rng.choice(norb, n_electrons, replace=False)) for _ in range(count)}
    return bitstrings.canonical(bitstrings.from_integers(sorted(drawn), norb))[0]


def all_strings(norb: int, n_electrons: int) -> NDArray[np.uint64]:
    """Every string, in canonical order."""
    integers = [sum(1 << orbital for orbital in chosen) for chosen in combinations(range(norb), n_electrons)]
    return bitstrings.canonical(bitstrings.from_integers(integers, norb))[0]


def sparse_matrix(problem: Problem) -> scipy.sparse.csr_array:
    """The Hamiltonian over (alpha, beta) in canonical order, from products of annihilators: no code of the solver."""
    hamiltonian = problem.hamiltonian
    h1e, eri = full_integrals(hamiltonian)
    spins = [_Spin(bitstrings.to_integers(each), hamiltonian.norb) for each in (problem.strings_a, problem.strings_b)]
    alone = [each.interaction(h1e, eri) for each in spins]
    identity = [scipy.sparse.identity(each.size, format="csr") for each in spins]
    matrix = scipy.sparse.kron(alone[0], identity[1], "csr") + scipy.sparse.kron(identity[0], alone[1], "csr")
    for p in range(hamiltonian.norb):
        for q in range(hamiltonian.norb):
            if spins[0].moved[p][q].nnz and np.any(eri[p, q]):
                matrix = matrix + scipy.sparse.kron(spins[0].moved[p][q], spins[1].contracted(eri[p, q]), "csr")
    matrix = scipy.sparse.csr_array(matrix + hamiltonian.ecore * scipy.sparse.identity(problem.dimension))
    matrix.eliminate_zeros()
    return matrix


class _Spin:
    """Operators between the strings of one spin."""

    def __init__(self, strings: list[int], norb: int):
        self.size = len(strings)
        targets, self._removed = annihilators(strings, norb)
        self._removed_again = annihilators(targets, norb)[1]
        self.moved = [[left.T @ right for right in self._removed] for left in self._removed]  # a+_p a_q

    def contracted(self, amounts: NDArray[np.float64]) -> Any:
        """Sum of amounts[r, s] a+_r a_s."""
        total = scipy.sparse.csr_array((self.size, self.size))
        for r, s in np.argwhere(amounts):
            total = total + amounts[r, s] * self.moved[r][s]
        return total

    def interaction(self, h1e: NDArray[np.float64], eri: NDArray[np.float64]) -> Any:
        """The one-electron part and the repulsion inside this spin: 1/2 sum (pq|rs) a+_p a+_r a_s a_q."""
        total = self.contracted(h1e)
        first, second = np.array(list(combinations(range(len(h1e)), 2)), int).reshape(-1, 2).T
        if not len(first):
            return total
        both = [self._removed_again[s] @ self._removed[q] for q, s in zip(first, second, strict=True)]  # a_s a_q
        stacked = scipy.sparse.vstack(both, "csr")
        p, r, q, s = first[:, None], second[:, None], first[None, :], second[None, :]
        amounts = scipy.sparse.csr_array(eri[p, q, r, s] - eri[p, s, r, q])
        return total + stacked.T @ scipy.sparse.kron(amounts, scipy.sparse.identity(both[0].shape[0]), "csr") @ stacked


def annihilators(strings: list[int], norb: int) -> tuple[list[int], list[Any]]:
    """Strings with one electron less, and a_q from the given strings to them for every orbital q."""
    number: dict[int, int] = {}
    entries: list[list[tuple[int, int, float]]] = [[] for _ in range(norb)]
    for column, string in enumerate(strings):
        for q in range(norb):
            if string >> q & 1:
                row = number.setdefault(string ^ 1 << q, len(number))
                passed = (string & ((1 << q) - 1)).bit_count()
                entries[q].append((row, column, (-1.0) ** passed))
    shape = max(len(number), 1), len(strings)
    matrices = []
    for each in entries:
        rows, columns, signs = zip(*each, strict=True) if each else ((), (), ())
        matrices.append(scipy.sparse.csr_array((np.array(signs, float), (rows, columns)), shape=shape))
    return list(number) or [0], matrices


def full_integrals(hamiltonian: Hamiltonian) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from pyscf import ao2mo

    return hamiltonian.h1e, ao2mo.restore(1, hamiltonian.eri, hamiltonian.norb)


def lowest_energies(problem: Problem, count: int) -> NDArray[np.float64]:
    """The `count` lowest eigenvalues with all their copies, hartree."""
    return lowest_eigenvalues(sparse_matrix(problem), count)


def lowest_eigenvalues(matrix: scipy.sparse.csr_array, count: int) -> NDArray[np.float64]:
    """The `count` lowest eigenvalues of a symmetric matrix with all their copies."""
    if matrix.shape[0] <= DENSE:
        return scipy.linalg.eigh(matrix.toarray(), eigvals_only=True, subset_by_index=(0, count - 1))
    rng = np.random.default_rng(0)
    energies, vectors = _arpack(matrix, count + 2, rng)
    while True:  # one Krylov space shows one copy of a degenerate state
        highest = np.sort(energies)[count - 1]
        lift = 2.0 * (energies.max() - energies.min()) + 5.0
        left = scipy.sparse.linalg.LinearOperator(
            matrix.shape, matvec=lambda x, v=vectors, f=lift: matrix @ x + f * (v @ (v.T @ x)), dtype=np.float64
        )
        more, found = _arpack(left, 2, rng)
        new = more < highest + 1e-8
        if not new.any():
            return np.sort(energies)[:count]
        energies, vectors = np.concatenate([energies, more[new]]), np.column_stack([vectors, found[:, new]])


def _arpack(matrix: Any, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    start = rng.normal(size=matrix.shape[0])
    found: tuple[NDArray[np.float64], NDArray[np.float64]] = scipy.sparse.linalg.eigsh(
        matrix, count, which="SA", v0=start, ncv=max(60, 4 * count), tol=1e-12, maxiter=100_000
    )
    return found


@dataclass(frozen=True)
class Outcome:
    """What the solver made of a problem."""

    problem: Problem
    exact: NDArray[np.float64]
    energies: NDArray[np.float64]
    converged: bool
    n_sigma: int
    n_deciding: int
    """Sigmas of those that did not follow the lowest states of the model spaces, but looked for others."""
    proven: bool

    @property
    def wrong(self) -> bool:
        """Whether a state was missed although the solver says that it is done."""
        return self.converged and float(abs(self.energies - self.exact).max()) > WRONG


class Counter(Log):
    """Counts the sigmas that follow the lowest states of the model spaces; prints nothing."""

    def __init__(self) -> None:
        super().__init__(rank=-1)
        self.n_following = self._before = 0
        self._follows = False

    def iteration(self, row: Iteration) -> None:
        """Iterations of other tasks are not shown."""
        self._follows = True

    def count(self, progress: Any) -> bool:
        """The hook of a solve, called after the log."""
        self._before = 0 if progress.step.iteration == 1 else self._before
        if self._follows:
            self.n_following += progress.step.n_sigma - self._before
        self._before, self._follows = progress.step.n_sigma, False
        return False


def attempt(
    problem: Problem, exactly: Callable[[Problem, Any], NDArray[np.float64]] | None = None, **options: Any
) -> Outcome:
    """Solve a problem with the program's defaults, and exactly.

    Args:
        problem: what is solved.
        exactly: gives the right energies, (nroots,) hartree, from the problem and the result.
        options: of the solve.
    """
    from sqd_mpi import SolveOptions, solve_subspace

    counter = Counter()
    chosen = SolveOptions(nroots=problem.nroots, spin_square=problem.spin_square, **options)
    result = solve_subspace(
        None, problem.hamiltonian, problem.strings_a, problem.strings_b, chosen, log=counter, hook=counter.count
    )
    exact = exactly(problem, result) if exactly else lowest_energies(problem, problem.nroots)
    energies = result.energies if problem.spin_square is None else _penalised(result)
    n_deciding = result.n_sigma - counter.n_following
    # In samples a state may turn out to be of another spin than was asked for.
    converged = all(root.residual_norm <= chosen.tol for root in result.roots)
    return Outcome(problem, exact, energies, converged, result.n_sigma, n_deciding, result.proven)


def _penalised(result: Any) -> NDArray[np.float64]:
    """(nroots,) eigenvalues of what is diagonalised, hartree."""
    return np.array([root.penalised_energy for root in result.roots])


def main() -> int:
    """All problems of a seed."""
    return run(__doc__, KINDS, draw)


def run(
    description: str | None, kinds: Iterable[str], draw: Callable[[int, int, str | None], Problem | None],
    exactly: Callable[[Problem, Any], NDArray[np.float64]] | None = None,
) -> int:  # fmt: skip
    """Command line of a generator.

    Args:
        description: for its help.
        kinds: of problems.
        draw: gives the problem of a seed, number and kind, or None where data are missing.
        exactly: as of `attempt`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=tuple(kinds))
    parser.add_argument("--verbose", action="store_true", help="print every solve")
    arguments = parser.parse_args()
    from sqd_mpi import _jit

    _jit.set_threads(1)
    outcomes, n_skipped = [], 0
    for number in range(arguments.first, arguments.first + arguments.problems):
        problem = draw(arguments.seed, number, arguments.kind)
        if problem is None:
            n_skipped += 1
            continue
        outcome = attempt(problem, exactly)
        outcomes.append(outcome)
        if outcome.wrong or not outcome.converged or arguments.verbose:
            verdict = "WRONG" if outcome.wrong else "right" if outcome.converged else "not converged"
            print(
                f"{number} {outcome.problem.name}, {outcome.problem.nroots} roots, {outcome.problem.dimension} "
                f"determinants: {verdict}, {outcome.n_sigma} sigmas",
                flush=True,
            )
        if outcome.wrong:
            print(f"    got   {outcome.energies}\n    right {outcome.exact}", flush=True)
    if n_skipped:
        print(f"{n_skipped} problems need fe2s2/fcidump.txt of the TrimCI project in the folder SQD_MPI_DATA; left out")
    if not outcomes:
        return 0
    print(f"seed {arguments.seed}: {summary(outcomes)}")
    for kind in kinds:
        those = [each for each in outcomes if each.problem.name.startswith(kind)]
        if those:
            print(f"    {kind}: {summary(those)}")
    return int(any(outcome.wrong for outcome in outcomes))


def summary(outcomes: list[Outcome]) -> str:
    """One line on some outcomes."""
    sigmas = [outcome.n_sigma for outcome in outcomes]
    deciding = sum(outcome.n_deciding for outcome in outcomes)
    return (
        f"{len(outcomes)} solves, {sum(each.wrong for each in outcomes)} wrong, "
        f"{sum(not each.converged for each in outcomes)} not converged, "
        f"{sum(not each.proven for each in outcomes)} not proven, {sum(sigmas)} sigmas, median {np.median(sigmas):g}, "
        f"{deciding} to decide: {deciding / max(sum(sigmas) - deciding, 1):.2f} of the others"
    )


if __name__ == "__main__":
    sys.exit(main())
