"""The exchange ladder of the [2Fe-2S] cluster: the lowest state of every spin, in spaces of one M or several.

    python examples/fe2s2/ladder.py --data DIR --orbitals 2-6,8,12-17
    mpirun -n 2 python examples/fe2s2/ladder.py --data DIR --spins 3,4,5 --picture ladder.png

DIR (by default that of SQD_MPI_DATA) holds fe2s2/fcidump.txt: 30 electrons in 20 localised orbitals, of which 2-6 and
13-17 are the 3d orbitals of the two irons; it is part of the TrimCI project (MIT licence). With --orbitals only those
are active, numbered from 1, and all others are doubly occupied.

The lowest state of spin S lies in all spaces with M up to S. That with M = S, which is taken by default, is much the
smallest; --m 0 or --m 0,S takes another or both. For every state: energy, <S^2> and its variance, the sum of
<s_p s_q> over the 3d orbitals p of one iron and q of the other, natural occupations, and what it cost. Where several M
are taken, energies that differ by more than 1e-8 hartree end the program with code 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import ao2mo
from pyscf.fci import cistring
from pyscf.tools import fcidump

from sqd_mpi import Hamiltonian, SolveOptions, bitstrings, density_matrices, solve_subspace, world

FIRST_IRON, SECOND_IRON = range(2, 7), range(13, 18)  # 3d orbitals, numbered from 1
SAME = 1e-8  # hartree
MILLIHARTREE = 1e3


def main() -> int:
    """Solve on all ranks; rank 0 prints the table."""
    options = parse_options()
    comm = world()
    here = comm is None or comm.rank == 0
    source = Path(options.data or "") / "fe2s2" / "fcidump.txt"
    if not options.data or not source.is_file():
        if here:
            print(f"--data needs the folder of fe2s2/fcidump.txt, from the TrimCI project; got {options.data}")
        return 2
    orbitals, h1e, eri, core, n_electrons = active_integrals(source, options.orbitals)

    if here:
        print(f"{n_electrons} electrons in {len(orbitals)} orbitals")
        print("S  M  determinants  energy (hartree)   residual  <S^2>     Var(S^2)  sA.sB     sigmas  seconds  memory")
    energies: dict[int, list[float]] = {}
    for spin in options.spins:
        for m in dict.fromkeys(spin if each == "S" else int(each) for each in options.m):
            nelec = n_electrons // 2 + m, n_electrons // 2 - m
            hamiltonian = Hamiltonian.from_arrays(h1e, eri, core, nelec)
            began = perf_counter()
            result, matrices = solve(comm, hamiltonian, spin, options.tol)
            energies.setdefault(spin, []).append(result.roots[0].energy)
            if here:
                print(row(spin, m, result, perf_counter() - began, correlation(matrices, orbitals)), flush=True)
                occupations = np.linalg.eigvalsh(matrices.rdm1)[::-1]
                print("      natural occupations " + " ".join(f"{each:.3f}" for each in occupations))

    spreads = {spin: max(found) - min(found) for spin, found in energies.items()}
    if here:
        lowest = min(min(found) for found in energies.values())
        for spin, found in sorted(energies.items()):
            both = f", {len(found)} ways within {spreads[spin]:.1e}" if len(found) > 1 else ""
            print(f"S = {spin}: {MILLIHARTREE * (min(found) - lowest):8.3f} millihartree above the lowest{both}")
        if options.picture:
            draw(options.picture, {spin: min(found) for spin, found in energies.items()})
    return int(max(spreads.values()) > SAME)


def parse_options() -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SQD_MPI_DATA"), help="folder of fe2s2/fcidump.txt")
    parser.add_argument("--orbitals", type=numbers, help="active orbitals, such as 2-6,8,13-17; by default all")
    parser.add_argument("--spins", type=numbers, default=list(range(6)), help="values of S; by default 0-5")
    parser.add_argument("--m", type=lambda text: text.split(","), default=["S"], help="S, a number, or several")
    parser.add_argument("--tol", type=float, default=1e-6, help="residual norm in hartree")
    parser.add_argument("--picture", help="file for a picture of the ladder")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """The numbers of a list of ranges such as 2-6,8."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def active_integrals(
    source: Path, chosen: list[int] | None
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64], float, int]:
    """Active orbitals (from 1), their integrals, the energy of the others, and the number of active electrons."""
    data = fcidump.read(source, verbose=False)
    norb, n_electrons, h1e, energy = data["NORB"], data["NELEC"], data["H1"], data["ECORE"]
    eri = ao2mo.restore(1, data["H2"], norb)
    active = chosen or list(range(1, norb + 1))
    core = [p for p in range(norb) if p + 1 not in active]
    mean_field = (
        h1e + 2.0 * np.einsum("pqkk->pq", eri[:, :, core][..., core]) - np.einsum("pkkq->pq", eri[:, core][:, :, core])
    )
    energy += sum(h1e[k, k] + mean_field[k, k] for k in core)
    here = [p - 1 for p in active]
    return (
        active,
        mean_field[np.ix_(here, here)],
        eri[np.ix_(here, here, here, here)],
        energy,
        n_electrons - 2 * len(core),
    )


def solve(comm: Any, hamiltonian: Hamiltonian, spin: int, tol: float) -> tuple[Any, Any]:
    """The lowest state of a spin in all strings of the given electrons, and its density matrices. Collective."""
    norb = hamiltonian.norb
    strings = [
        bitstrings.from_integers(cistring.make_strings(range(norb), n).tolist(), norb) for n in hamiltonian.nelec
    ]
    result = solve_subspace(comm, hamiltonian, *strings, SolveOptions(spin_square=spin * (spin + 1), tol=tol))
    return result, density_matrices(result)


def correlation(matrices: Any, orbitals: list[int]) -> float:
    """Sum of <s_p s_q> over orbitals p of one iron and q of the other, as far as they are active."""
    first, second = ([orbitals.index(p) for p in iron if p in orbitals] for iron in (FIRST_IRON, SECOND_IRON))
    aa, ab, bb = matrices.two_aa, matrices.two_ab, matrices.two_bb
    total = 0.0
    for p in first:
        for q in second:
            total += 0.25 * (aa[p, p, q, q] + bb[p, p, q, q] - ab[p, p, q, q] - ab[q, q, p, p])
            total -= 0.5 * (ab[p, q, q, p] + ab[q, p, p, q])
    return total


def row(spin: int, m: int, result: Any, seconds: float, spins: float) -> str:
    """A line of the table."""
    root, n = result.roots[0], result.frame.space.n_determinants
    memory = sum(result.memory.values()) / 2**20
    return (
        f"{spin}  {m}  {n:12d}  {root.energy:.10f}  {root.residual_norm:.1e}  {root.spin_square:8.5f}  "
        f"{root.spin_variance:.1e}  {spins:8.4f}  {result.n_sigma:6d}  {seconds:7.1f}  {memory:.0f} MiB"
        + ("" if root.converged else "  not converged")
    )


def draw(path: str, energies: dict[int, float]) -> None:
    """A picture of the ladder."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 4.0), layout="constrained")
    lowest = min(energies.values())
    for spin, energy in energies.items():
        height = MILLIHARTREE * (energy - lowest)
        axes.hlines(height, spin - 0.35, spin + 0.35, color="tab:blue", linewidth=2.5)
        axes.annotate(f"{height:.1f}", (spin, height), xytext=(0, 4), textcoords="offset points", ha="center")
    axes.set(xlabel="S", ylabel="above the lowest (millihartree)", xticks=sorted(energies))
    axes.margins(y=0.12)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
