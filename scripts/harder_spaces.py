"""Small spaces of the kinds that are hardest, with and without a wanted spin, against ARPACK or the dense matrix.

    python scripts/harder_spaces.py [--problems 1000] [--seed 1] [--first 0] [--kind dimer] [--verbose]

4 x 3 and 5 x 2 Hubbard clusters in sites and in orbitals of the hopping; dimers of two shells with strong exchange,
antiferromagnetic like Cr2, in orbitals of the centres and of both; N2, C2 and O2 at 2 to 4 angstrom; cuts of [2Fe-2S]
with six to ten orbitals, for which fe2s2/fcidump.txt (TrimCI project, MIT licence) must be in the folder that
SQD_MPI_DATA names. A third has unlike numbers of both spins, a third samples of strings, drawn or grown by first-order
weights, and a third asks for a spin that is possible. One to six roots. Output and options are those of
scripts/hard_spaces.py, whose problems are not touched.

Right energies of one spin S are those of M = S with other spins lifted away; in samples, where the operator has a
penalty, those of the same operator.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import hard_spaces  # noqa: E402
import hard_systems  # noqa: E402
import sampled_sets  # noqa: E402
from hard_spaces import Problem  # noqa: E402

from sqd_mpi.problem import bitstrings  # noqa: E402
from sqd_mpi.problem.hamiltonian import Hamiltonian  # noqa: E402
from sqd_mpi.solver.spin_sector import n_spin_functions, spins_of  # noqa: E402

KINDS = {"cluster": 0.35, "dimer": 0.3, "stretched": 0.2, "iron": 0.15}
MOST_STRINGS = 100  # of a sample
FAR = 30.0  # hartree by which other spins are lifted
OTHER_PARITY = 1e3


def draw(seed: int, number: int, kind: str | None = None) -> Problem | None:
    """Problem `number` of a seed; None if it needs integrals that are not there."""
    rng = np.random.default_rng([seed, number, 1])
    drawn = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    kind = kind or drawn
    with threadpool_limits(1):  # else degenerate orbitals may differ from run to run
        found = {"cluster": cluster, "dimer": dimer, "stretched": stretched, "iron": iron}[kind](rng)
    if found is None:
        return None
    hamiltonian, name = found

    # All strings, or some of them.
    strings = _some_strings(rng, hamiltonian)
    complete = all(len(s) == comb(hamiltonian.norb, n) for s, n in zip(strings, hamiltonian.nelec, strict=True))
    if not complete:
        name += f", {len(strings[0])} x {len(strings[1])} strings"

    # How many states, and of which spin.
    n_determinants = len(strings[0]) * len(strings[1])
    nroots = int(min(rng.choice([1, 1, 1, 2, 3, 4, 5, 6]), n_determinants))
    spin_square = None
    if rng.random() < 0.35:
        spins = spins_of(hamiltonian.norb, hamiltonian.nelec)
        twice = int(rng.choice(spins if complete else spins[:3]))
        count = n_spin_functions([0] * hamiltonian.norb, hamiltonian.nelec, twice) if complete else n_determinants // 4
        if count:
            nroots, spin_square = min(nroots, count, 4), twice * (twice + 2) / 4.0
            name += f", S = {twice / 2:g}"
    return Problem(f"{kind}: {name}", hamiltonian, strings[0], strings[1], nroots, spin_square)


def _some_strings(rng: np.random.Generator, hamiltonian: Hamiltonian) -> list[NDArray[np.uint64]]:
    """All strings of both spins, or a sample; always one where there are too many determinants."""
    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    whole = [hard_spaces.all_strings(norb, n) for n in nelec]
    n_determinants = len(whole[0]) * len(whole[1])
    if n_determinants <= hard_spaces.MOST_DETERMINANTS and rng.random() > 0.35:
        return whole
    most = [min(MOST_STRINGS, max(1, int(0.9 * len(each)))) for each in whole]
    counts = [int(rng.integers(max(1, n // 3), n + 1)) for n in most]
    if nelec[0] == nelec[1] and rng.random() < 0.7:
        if rng.random() < 0.5:
            return [sampled_sets.from_lowest(hamiltonian, counts[0])] * 2
        return [_drawn(rng, whole[0], counts[0])] * 2
    return [_drawn(rng, each, n) for each, n in zip(whole, counts, strict=True)]


def _drawn(rng: np.random.Generator, strings: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """So many of the strings."""
    return np.ascontiguousarray(strings[np.sort(rng.choice(len(strings), count, replace=False))])


def cluster(rng: np.random.Generator) -> tuple[Hamiltonian, str]:
    """A Hubbard cluster of 5 x 2 or 4 x 3 sites, at any filling; all determinants where they are few enough."""
    shape = (5, 2) if rng.random() < 0.5 else (4, 3)
    n = shape[0] * shape[1]
    repulsion = float(rng.choice(hard_spaces.REPULSIONS[1:]))
    h1e, eri = hard_spaces.hubbard_integrals(n, hard_spaces.rectangle(*shape), 1.0, repulsion)
    eigenorbitals = bool(rng.random() < 0.5)
    if eigenorbitals:
        h1e, eri = hard_spaces.rotated(h1e, eri, np.linalg.eigh(h1e)[1])
    most = n // 2 if rng.random() < 0.4 else 3  # half filled, or all determinants
    nelec = _electrons(rng, 2, most)
    orbitals = "eigenorbitals" if eigenorbitals else "sites"
    name = f"{shape[0]} x {shape[1]}, U {repulsion:g}, {nelec[0]} + {nelec[1]} electrons, {orbitals}"
    return Hamiltonian.from_arrays(h1e, eri, 0.0, nelec), name


def dimer(rng: np.random.Generator) -> tuple[Hamiltonian, str]:
    """Two shells of three or four orbitals with strong exchange inside and weak hopping between them."""
    n = int(rng.choice([3, 4, 4]))
    norb, repulsion = 2 * n, float(rng.choice([0.2, 0.4, 0.7]))
    hund, hopping = repulsion * float(rng.choice([0.1, 0.2])), float(rng.choice([0.005, 0.02, 0.05, 0.1]))
    between = 0.3 * repulsion
    h1e, eri = np.zeros((norb, norb)), np.zeros((norb,) * 4)
    hops = hopping * (np.eye(n) * rng.uniform(0.5, 1.5, n) + 0.2 * rng.normal(size=(n, n)))
    h1e[:n, n:], h1e[n:, :n] = hops, hops.T
    h1e += np.diag(0.03 * rng.normal(size=norb))
    for p in range(norb):
        for q in range(norb):
            together = p // n == q // n
            eri[p, p, q, q] = repulsion if p == q else repulsion - 2 * hund if together else between
            if p != q and together:
                eri[p, q, p, q] = eri[p, q, q, p] = hund
    h1e -= np.eye(norb) * (repulsion + (2 * n - 2) * (repulsion - 2 * hund)) / 2
    both = bool(rng.random() < 0.5)
    if both:
        shared = np.sqrt(0.5) * np.block([[np.eye(n), np.eye(n)], [np.eye(n), -np.eye(n)]])
        h1e, eri = hard_spaces.rotated(h1e, eri, shared)
    nelec = _electrons(rng, n - 1, n)
    name = (
        f"2 x {n} orbitals, U {repulsion:g}, J {hund:g}, t {hopping:g}, {nelec[0]} + {nelec[1]} electrons, "
        f"{'shared orbitals' if both else 'centres'}"
    )
    return Hamiltonian.from_arrays(h1e, eri, 0.0, nelec), name


def stretched(rng: np.random.Generator) -> tuple[Hamiltonian, str]:
    """N2, C2 or O2 or an ion with far atoms, in the valence orbitals."""
    atom, distance = str(rng.choice(["N", "C", "O"])), float(rng.choice([2.0, 2.5, 3.0, 4.0]))
    localised = bool(rng.random() < 0.5)
    h1e, eri, core = hard_spaces.diatomic_integrals(atom, distance, localised)
    n = {"N": 5, "C": 4, "O": 6}[atom]
    nelec = _electrons(rng, n, n) if rng.random() < 0.7 else (n, n - 1)
    name = f"{atom}2 {distance:g} A, {nelec[0]} + {nelec[1]} electrons, {'localised' if localised else 'HF'} orbitals"
    return Hamiltonian.from_arrays(h1e, eri, core, nelec), name


def iron(rng: np.random.Generator) -> tuple[Hamiltonian, str] | None:
    """[2Fe-2S] in some of its 3d orbitals, as many of both atoms; the others of them empty, all further ones full."""
    whole = _iron_sulfur(os.environ.get("SQD_MPI_DATA"))
    n = int(rng.choice([3, 4, 4, 4, 5]))
    chosen = sorted(int(p) for half in (0, 5) for p in half + rng.choice(5, n, replace=False))
    nelec = _electrons(rng, n - 1, n)
    if whole is None:
        return None
    h1e, eri = whole.h1e[np.ix_(chosen, chosen)], hard_spaces.full_integrals(whole)[1][np.ix_(*[chosen] * 4)]
    name = f"3d orbitals {' '.join(str(p) for p in chosen)}, {nelec[0]} + {nelec[1]} electrons"
    return Hamiltonian.from_arrays(h1e, eri, whole.ecore, nelec), name


@lru_cache(maxsize=1)
def _iron_sulfur(data: str | None) -> Hamiltonian | None:
    return hard_systems.iron_sulfur(data, [])


def _electrons(rng: np.random.Generator, least: int, most: int) -> tuple[int, int]:
    """Numbers of electrons, equal in two thirds of all cases; else there are one to four more alpha ones."""
    n = int(rng.integers(least, most + 1))
    if rng.random() < 0.67:
        return n, n
    excess = int(rng.integers(1, min(4, 2 * n - 1) + 1))
    n_alpha = (2 * n + excess) // 2
    return n_alpha, n_alpha - excess


def exact_energies(problem: Problem, result: Any) -> NDArray[np.float64]:
    """(nroots,) eigenvalues of what was to be diagonalised, hartree, without code of the solver."""
    if problem.spin_square is None:
        return hard_spaces.lowest_energies(problem, problem.nroots)
    target, norb = result.spin_target, problem.hamiltonian.norb
    if target.strength == 0.0:
        return _energies_of_a_spin(problem)

    # In a sample: the operator with its penalty, among states of the parity of the spin.
    matrix, n = hard_spaces.sparse_matrix(problem), problem.dimension
    deviation = spin_square(problem.strings_a, problem.strings_b, norb)
    deviation = deviation - problem.spin_square * scipy.sparse.identity(n)
    matrix = matrix + target.strength * (deviation if target.linear else deviation @ deviation)
    if target.parity and np.array_equal(problem.strings_a, problem.strings_b):
        m = len(problem.strings_a)
        mirror = scipy.sparse.csr_array(
            (np.ones(n), (np.arange(n), np.arange(n).reshape(m, m).T.ravel())), shape=(n, n)
        )
        matrix = matrix + OTHER_PARITY * (scipy.sparse.identity(n) - target.parity * mirror)
    return hard_spaces.lowest_eigenvalues(scipy.sparse.csr_array(matrix), problem.nroots)


def _energies_of_a_spin(problem: Problem) -> NDArray[np.float64]:
    """(nroots,) lowest energies of spin S in all strings: those with M = S that S+ brings to nothing."""
    assert problem.spin_square is not None
    hamiltonian, twice = problem.hamiltonian, round(float(np.sqrt(4.0 * problem.spin_square + 1.0))) - 1
    total = sum(hamiltonian.nelec)
    nelec = (total + twice) // 2, (total - twice) // 2
    strings = [hard_spaces.all_strings(hamiltonian.norb, n) for n in nelec]
    highest = Hamiltonian(hamiltonian.h1e, hamiltonian.eri, hamiltonian.ecore, hamiltonian.norb, nelec)
    same = Problem(problem.name, highest, *strings, problem.nroots)
    raised = raising(*strings, hamiltonian.norb)
    matrix = hard_spaces.sparse_matrix(same) + FAR * (raised.T @ raised)
    return hard_spaces.lowest_eigenvalues(scipy.sparse.csr_array(matrix), problem.nroots)


def spin_square(alpha: NDArray[np.uint64], beta: NDArray[np.uint64], norb: int) -> scipy.sparse.csr_array:
    """P S^2 P over the pairs of strings, from S^2 = S- S+ + M (M + 1)."""
    raised = raising(alpha, beta, norb)
    n_alpha, n_beta = (bitstrings.to_integers(each)[0].bit_count() for each in (alpha, beta))
    m = (n_alpha - n_beta) / 2
    return scipy.sparse.csr_array(raised.T @ raised + m * (m + 1) * scipy.sparse.identity(raised.shape[1]))


def raising(alpha: NDArray[np.uint64], beta: NDArray[np.uint64], norb: int) -> scipy.sparse.csr_array:
    """S+ but for its sign, from the pairs of strings to all determinants that it leads to."""
    numbers, others = bitstrings.to_integers(alpha), bitstrings.to_integers(beta)
    targets = sorted({string | 1 << p for string in numbers for p in range(norb) if not string >> p & 1})
    kept, removed = hard_spaces.annihilators(targets, norb) if targets else ([], [])
    place = {string: k for k, string in enumerate(kept)}
    rows = [place.get(string, -1) for string in numbers]
    lowered = hard_spaces.annihilators(others, norb)[1]
    shape = max(len(targets), 1) * lowered[0].shape[0], len(numbers) * len(others)
    total = scipy.sparse.csr_array(shape)
    for p in range(norb) if targets else ():
        total = total + scipy.sparse.kron(removed[p][rows].T, lowered[p], "csr")
    return total


if __name__ == "__main__":
    sys.exit(hard_spaces.run(__doc__, KINDS, draw, exact_energies))
