"""Prints a table of small molecules against PySCF's full CI: energies, <S^2> and density matrices of each spin.

    NUMBA_NUM_THREADS=1 mpiexec -n 4 python -m benchmarks.physics

For every molecule and every spin target (none, the lowest spin of its M, the next one) three roots are found on all
ranks. Columns: the lowest energy, the largest deviation from PySCF over the roots in energy, <S^2> and one-particle
density matrix, the penalty, and the number of applications of H. Density matrices of degenerate roots are compared as
sums over the level; a level that the three roots do not complete is left out.
Ends with code 1 if any deviation exceeds 1e-8.
"""

from __future__ import annotations

import sys

import numpy as np

from sqd_mpi.distribution.mpi import world
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.density_matrices import density_matrices
from sqd_mpi.solver.solve import solve_subspace
from tests.support.molecules import MOLECULES, State, exact_states, molecule, strings

ROOTS = 3
ALLOWED = 1e-8
_DEGENERATE = 1e-7  # hartree


def levels(states: list[State]) -> list[list[int]]:
    """Positions of the states of each degenerate level."""
    found: list[list[int]] = []
    for k, state in enumerate(states):
        if found and state.energy - states[found[-1][-1]].energy < _DEGENERATE:
            found[-1].append(k)
        else:
            found.append([k])
    return found


def compare(name: str, step: int | None) -> tuple[str, float]:
    """A row of the table, and the largest deviation. Collective over all ranks."""
    ranks = ranks_of(world())
    hamiltonian = ranks.from_rank_0(lambda: molecule(name))
    least = abs(hamiltonian.nelec[0] - hamiltonian.nelec[1]) / 2
    wanted = None if step is None else (least + step) * (least + step + 1)
    options = SolveOptions(nroots=ROOTS, tol=1e-9, spin_square=wanted, model_space=60)
    result = solve_subspace(ranks, hamiltonian, *strings(hamiltonian), options)
    exact = exact_states(hamiltonian, wanted, ROOTS + 3)
    energy = max(abs(root.energy - state.energy) for root, state in zip(result.roots, exact, strict=False))
    spin, density = 0.0, 0.0
    matrices = [density_matrices(result, k, order=1).rdm1 for k in range(ROOTS)]
    for level in levels(exact):
        if level[-1] < ROOTS:
            difference = sum(matrices[k] - exact[k].rdm1 for k in level)
            density = max(density, float(np.abs(difference).max()))
            means = [(result.roots[k].spin_square or 0.0) - exact[k].spin_square for k in level]
            spin = max(spin, abs(sum(means)))
    target = result.spin_target
    penalty = "-" if target is None else f"{target.strength:.3f} {'linear' if target.linear else 'squared'}"
    row = f"| {name} | {'any' if wanted is None else f'{wanted:g}'} | {result.energies[0]:.10f} | {energy:.1e} "
    row += f"| {spin:.1e} | {density:.1e} | {penalty} | {result.n_sigma} |"
    return row, max(energy, spin, density) if result.converged else np.inf


def main() -> int:
    """Prints the table on rank 0."""
    ranks = ranks_of(world())
    leads = ranks.rank == 0
    worst = 0.0
    if leads:
        print("| molecule | S(S+1) | energy | error | error of <S^2> | error of density | penalty | sigmas |")
        print("|---|---|---|---|---|---|---|---|")
    for name in MOLECULES:
        for step in (None, 0, 1):
            row, deviation = compare(name, step)
            worst = max(worst, deviation)
            if leads:
                print(row, flush=True)
    if leads:
        print(f"\nlargest deviation {worst:.1e} on {ranks.size} ranks")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
