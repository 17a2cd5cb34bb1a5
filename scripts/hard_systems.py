"""Strongly correlated systems in complete spaces: what their lowest states cost, and whether they are right.

    python scripts/hard_systems.py [--systems fe11,h10] [--data DIR] [--roots 4] [--tol 1e-5] [--sampled]

For every system the lowest state, the lowest singlet and several roots of any spin are sought with the program's
defaults, and, to check them, as many roots of every spin by themselves: the lowest of all spins must be what the first
and the third solve gave. Prints sigmas, those that show that no state was missed included, and energies. Exit code 1 if
a state was missed. The [2Fe-2S] clusters need fe2s2/fcidump.txt (TrimCI project, MIT licence) in DIR, by default that
of SQD_MPI_DATA; without it they are left out.

With --sampled the spaces are samples of strings, grown by first-order weights, which S^2 leads out of: the lowest state
of any spin, and what comes out where a singlet, a triplet or a quintet is wanted, with the sigmas of these states alone
and of all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import hard_spaces  # noqa: E402
import sampled_sets  # noqa: E402

from sqd_mpi.problem.hamiltonian import Hamiltonian  # noqa: E402

WRONG = 1e-7  # hartree
MISSING = "needs fe2s2/fcidump.txt of the TrimCI project in --data"
IRON = [2, 3, 4, 5, 6, 13, 14, 15, 16, 17]  # 3d orbitals of [2Fe-2S], numbered from 1


def nitrogen(n_orbitals: int) -> Hamiltonian:
    """N2 at 2.5 angstrom in 6-31G, the 1s frozen: ten electrons in Hartree-Fock orbitals."""
    from pyscf import ao2mo, gto, mcscf, scf

    mol = gto.M(atom="N 0 0 0; N 0 0 2.5", basis="6-31g", verbose=0)
    cas = mcscf.CASCI(scf.RHF(mol).run(max_cycle=200), n_orbitals, 10)
    h1e, core = cas.get_h1eff()
    eri = ao2mo.restore(1, np.asarray(cas.get_h2eff()), n_orbitals)
    return Hamiltonian.from_arrays(0.5 * (h1e + h1e.T), eri, float(core), (5, 5))


def hydrogen() -> Hamiltonian:
    """A chain of ten atoms, 2 angstrom apart, in Hartree-Fock orbitals of STO-3G."""
    return Hamiltonian.from_arrays(*hard_spaces.hydrogen_integrals("chain", 10, 2.0, 0, False), (5, 5))


def hubbard(length: int, width: int, repulsion: float, eigenorbitals: bool) -> Hamiltonian:
    """An open cluster, half filled."""
    n, bonds = length * width, hard_spaces.rectangle(length, width)
    h1e, eri = hard_spaces.hubbard_integrals(n, bonds, 1.0, repulsion)
    if eigenorbitals:
        h1e, eri = hard_spaces.rotated(h1e, eri, np.linalg.eigh(h1e)[1])
    return Hamiltonian.from_arrays(h1e, eri, 0.0, (n // 2, n // 2))


def iron_sulfur(data: str | None, others: list[int]) -> Hamiltonian | None:
    """[2Fe-2S] in its 3d and some other orbitals, all further ones doubly occupied; None without its integrals."""
    source = Path(data or "") / "fe2s2" / "fcidump.txt"
    if not data or not source.is_file():
        return None
    from pyscf import ao2mo
    from pyscf.tools import fcidump

    found = fcidump.read(source, verbose=False)
    active = [p - 1 for p in sorted(IRON + others)]
    core = [p for p in range(found["NORB"]) if p not in active]
    eri = ao2mo.restore(1, found["H2"], found["NORB"])
    coulomb, exchange = np.einsum("pqkk->pqk", eri)[..., core], np.einsum("pkkq->pqk", eri)[..., core]
    field = found["H1"] + 2.0 * coulomb.sum(axis=2) - exchange.sum(axis=2)
    energy = found["ECORE"] + sum(found["H1"][k, k] + field[k, k] for k in core)
    n = (found["NELEC"] - 2 * len(core)) // 2
    return Hamiltonian.from_arrays(field[np.ix_(active, active)], eri[np.ix_(*[active] * 4)], energy, (n, n))


def systems(data: str | None) -> dict[str, Callable[[], Hamiltonian | None]]:
    """All of them by name."""
    return {
        "fe10": lambda: iron_sulfur(data, []),
        "fe11": lambda: iron_sulfur(data, [8]),
        "fe12": lambda: iron_sulfur(data, [8, 12]),
        "n2-10": lambda: nitrogen(10),
        "n2-12": lambda: nitrogen(12),
        "h10": hydrogen,
        "hubbard-5x2-U8": lambda: hubbard(5, 2, 8.0, False),
        "hubbard-5x2-U4-eigen": lambda: hubbard(5, 2, 4.0, True),
        "hubbard-4x3-U8": lambda: hubbard(4, 3, 8.0, False),
        "hubbard-4x3-U4-eigen": lambda: hubbard(4, 3, 4.0, True),
    }


def sampled_systems(data: str | None) -> dict[str, Callable[[], tuple[Hamiltonian, NDArray[np.uint64]] | None]]:
    """All samples by name: the Hamiltonian and the strings of both spins."""

    def iron(count: int) -> tuple[Hamiltonian, NDArray[np.uint64]] | None:
        sulfur = [p for p in range(1, 21) if p not in IRON]
        hamiltonian = iron_sulfur(data, sulfur)
        if hamiltonian is None:
            return None
        strings = sampled_sets.filled(20, [p - 1 for p in sulfur], [p - 1 for p in IRON], 5)
        return hamiltonian, sampled_sets.grown(hamiltonian, strings, count)

    def lowest(hamiltonian: Hamiltonian, count: int) -> tuple[Hamiltonian, NDArray[np.uint64]]:
        return hamiltonian, sampled_sets.from_lowest(hamiltonian, count)

    return {
        "fes400": lambda: iron(400),
        "fes800": lambda: iron(800),
        "n2-12-300": lambda: lowest(nitrogen(12), 300),
        "hubbard-4x3-U8-400": lambda: lowest(hubbard(4, 3, 8.0, False), 400),
        "hubbard-4x3-U4-eigen-300": lambda: lowest(hubbard(4, 3, 4.0, True), 300),
    }


def solve(hamiltonian: Hamiltonian, **options: Any) -> Any:
    """The result of a solve in all strings."""
    from sqd_mpi import SolveOptions, solve_subspace

    strings = [hard_spaces.all_strings(hamiltonian.norb, n) for n in hamiltonian.nelec]
    return solve_subspace(None, hamiltonian, *strings, SolveOptions(**options))


def ladder(hamiltonian: Hamiltonian, nroots: int, tol: float) -> NDArray[np.float64]:
    """The lowest energies of all spins, each sought by itself, ascending."""
    from sqd_mpi.solver.spin_sector import n_spin_functions, spins_of

    energies: list[float] = []
    for twice in spins_of(hamiltonian.norb, hamiltonian.nelec):
        count = min(nroots, n_spin_functions([0] * hamiltonian.norb, hamiltonian.nelec, twice))
        energies.extend(solve(hamiltonian, spin_square=twice * (twice + 2) / 4, nroots=count, tol=tol).energies)
    return np.sort(energies)[:nroots]


def show_samples(chosen: dict[str, Any], tol: float) -> int:
    """The table of samples; 1 if a state did not converge."""
    from sqd_mpi import SolveOptions, solve_subspace

    print(f"{'sample':26} S(S+1)  sigmas (all)  energy (hartree)  <S^2>    residual  what is said")
    open_ones = False
    for name, make in chosen.items():
        found = make()
        if found is None:
            print(f"{name:26} {MISSING}")
            continue
        hamiltonian, strings = found
        for value in (None, 0.0, 2.0, 6.0):
            counter = hard_spaces.Counter()
            result = solve_subspace(
                None, hamiltonian, strings, strings, SolveOptions(spin_square=value, tol=tol), log=counter,
                hook=counter.count,
            )  # fmt: skip
            root, wanted = result.roots[0], "any" if value is None else f"{value:g}"
            open_ones = open_ones or root.residual_norm > tol
            print(
                f"{name:26} {wanted:>6}  {counter.n_following:4d} ({result.n_sigma:5d})  {root.energy:16.8f}  "
                f"{root.spin_square:7.4f}  {root.residual_norm:.1e}  {'; '.join(counter.warnings)}",
                flush=True,
            )
    return int(open_ones)


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", help="names, separated by commas; by default all")
    parser.add_argument("--data", default=os.environ.get("SQD_MPI_DATA"))
    parser.add_argument("--roots", type=int, default=4)
    parser.add_argument("--tol", type=float, default=1e-5)
    parser.add_argument("--sampled", action="store_true", help="samples of strings")
    options = parser.parse_args()
    known: dict[str, Any] = sampled_systems(options.data) if options.sampled else dict(systems(options.data))
    names = options.systems.split(",") if options.systems else list(known)
    if unknown := [name for name in names if name not in known]:
        print(f"--systems are among {', '.join(known)}; got {', '.join(unknown)}", file=sys.stderr)
        return 2
    if options.sampled:
        return show_samples({name: known[name] for name in names}, options.tol)

    print(f"{'system':22} determinants  lowest (sigmas)  singlet  {options.roots} roots  verdict, energies (hartree)")
    missed = False
    for name in names:
        hamiltonian = known[name]()
        if hamiltonian is None:
            print(f"{name:22} {MISSING}")
            continue
        exact = ladder(hamiltonian, options.roots, options.tol)
        lowest, singlet = solve(hamiltonian, tol=options.tol), solve(hamiltonian, spin_square=0.0, tol=options.tol)
        roots = solve(hamiltonian, nroots=options.roots, tol=options.tol)
        wrong = abs(lowest.energies[0] - exact[0]) > WRONG or float(abs(roots.energies - exact).max()) > WRONG
        open_ones = not (lowest.converged and singlet.converged and roots.converged)
        missed = missed or wrong
        states = " ".join(f"{root.energy:.8f} ({root.spin_square:.0f})" for root in roots.roots)
        print(
            f"{name:22} {lowest.frame.space.n_determinants:12,d}  {lowest.n_sigma:15d}  {singlet.n_sigma:7d}  "
            f"{roots.n_sigma:7d}  {'WRONG' if wrong else 'not converged' if open_ones else 'right'}, {states}",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
