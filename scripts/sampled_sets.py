"""Sets of strings as a sampler finds them: grown from a few by the weights of the first-order vector.

What comes out depends on the Hamiltonian, the first strings and the number alone; nothing is drawn by chance.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqd_mpi.problem import bitstrings  # noqa: E402
from sqd_mpi.problem.hamiltonian import Hamiltonian  # noqa: E402

SAME_WEIGHT_DIGITS = 4  # weights that agree to so many digits are equal, then the smaller string goes first
LEAST_GAP = 1e-3  # hartree, of denominators


def grown(hamiltonian: Hamiltonian, strings: NDArray[np.uint64], count: int, tol: float = 1e-7) -> NDArray[np.uint64]:
    """Some strings and the heaviest of those within two moves of them: both spins have the same set.

    The lowest state of the product of the given strings is found; the weight of an outside string I is the sum of
    (<D|H|Psi> / (E - H_DD))^2 over the determinants D = I J with J among the given strings.

    Args:
        hamiltonian: as many electrons of both spins.
        strings: (n, n_words) uint64, those to begin with.
        count: number of strings wanted; fewer if there are not so many within two moves.
        tol: residual norm of the state, hartree.

    Returns:
        (count, n_words) uint64 in canonical order.
    """
    from sqd_mpi import SolveOptions, solve_subspace
    from sqd_mpi.problem.outside_strings import external_strings

    known = bitstrings.canonical(strings)[0]
    state = solve_subspace(None, hamiltonian, known, known, SolveOptions(tol=tol))
    vector = state.gather()
    outside = np.concatenate([external_strings(known, hamiltonian.norb, moves) for moves in (1, 2)])
    outside = bitstrings.canonical(outside)[0]
    weights = _first_order_weights(hamiltonian, outside, known, vector, state.roots[0].energy)

    rounded = [float(f"{weight:.{SAME_WEIGHT_DIGITS}g}") for weight in weights]
    numbers = bitstrings.to_integers(outside)
    order = sorted(range(len(numbers)), key=lambda k: (-rounded[k], numbers[k]))
    chosen = outside[order[: max(count - len(known), 0)]]
    return np.ascontiguousarray(bitstrings.canonical(np.concatenate([known, chosen]))[0])


def _first_order_weights(
    hamiltonian: Hamiltonian, outside: NDArray[np.uint64], known: NDArray[np.uint64], vector: NDArray[np.float64],
    energy: float,
) -> NDArray[np.float64]:  # fmt: skip
    """(n_outside,) weights of outside strings beside known ones, from one sigma over all of them as alpha strings.

    Args:
        hamiltonian: integrals.
        outside: (n_outside, n_words) uint64, canonical.
        known: (n_known, n_words) uint64, canonical.
        vector: (n_known, n_known) the state, canonical.
        energy: of it, hartree.
    """
    from sqd_mpi import SolveOptions
    from sqd_mpi.distribution.ranks import ranks_of
    from sqd_mpi.log import Log
    from sqd_mpi.problem.interaction import Interaction
    from sqd_mpi.problem.space import Space
    from sqd_mpi.resources import available_memory
    from sqd_mpi.solver.fitting import Call, fit
    from sqd_mpi.solver.operators import Operators
    from sqd_mpi.timing import Timers

    rows = bitstrings.canonical(np.concatenate([outside, known]))[0]
    space = Space.create(hamiltonian, rows, known, symmetry=False)
    options = SolveOptions(symmetry="off", spin_flip="off")
    frame = fit(Call(ranks_of(None), space, options, Log.silent(), Timers(), available_memory(), 0, 1))
    operator = Operators(frame).sigma(frame.layout(frame.sought.sectors[0]), Interaction.energy(hamiltonian))

    # The state in the larger space, and what H makes of it.
    position = {number: k for k, number in enumerate(bitstrings.to_integers(rows))}
    inside = [position[number] for number in bitstrings.to_integers(known)]
    whole = np.zeros((len(rows), len(known)))
    whole[inside] = vector
    image = np.empty_like(whole)
    operator.matvec(whole.ravel(), image.ravel())

    gaps = operator.diagonal().reshape(whole.shape) - energy
    amplitudes = image / np.maximum(abs(gaps), LEAST_GAP)
    return np.asarray((amplitudes**2).sum(axis=1)[[position[n] for n in bitstrings.to_integers(outside)]])


def filled(norb: int, full: list[int], active: list[int], n_active: int) -> NDArray[np.uint64]:
    """All strings with some orbitals full and so many electrons in others, in canonical order.

    Args:
        norb: number of orbitals.
        full: numbers of full ones, from 0.
        active: numbers of those that hold the other electrons in all ways.
        n_active: how many these are.
    """
    core = sum(1 << p for p in full)
    integers = [core + sum(1 << p for p in chosen) for chosen in combinations(active, n_active)]
    return np.ascontiguousarray(bitstrings.canonical(bitstrings.from_integers(integers, norb))[0])


def from_lowest(hamiltonian: Hamiltonian, count: int, rounds: int = 3) -> NDArray[np.uint64]:
    """Strings grown in some rounds, each about so many times larger, from that of the lowest orbitals.

    Args:
        hamiltonian: as many electrons of both spins.
        count: number of strings wanted.
        rounds: of growing.
    """
    strings = bitstrings.from_integers([(1 << hamiltonian.nelec[0]) - 1], hamiltonian.norb)
    for k in range(rounds):
        strings = grown(hamiltonian, strings, max(2, round(count ** ((k + 1) / rounds))))
    return strings
