"""Solves an input file with PySCF's selected_ci, on the same strings, and compares the energy with a result file.

    python examples/n2/compare_with_pyscf.py n2.h5 result.h5

Exits with code 1 when the energies differ by more than 1e-8 hartree.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from pyscf import ao2mo
from pyscf.fci import selected_ci

from sqd_mpi import Problem, bitstrings, read_input, read_summary

TOLERANCE = 1e-8


def main() -> int:
    """Print both energies and times; the exit code says whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("input", help="input file")
    parser.add_argument("result", help="result file of the same input")
    options = parser.parse_args()
    summary = read_summary(options.result)
    energy, seconds = summary["energy"][0], summary["solve_seconds"]
    started = perf_counter()
    reference = pyscf_energy(read_input(options.input))
    reference_seconds = perf_counter() - started
    agrees = abs(energy - reference) <= TOLERANCE
    print()
    print(f"energy     sqd_mpi  {energy:.10f} hartree   {seconds:8.2f} s on {summary['n_ranks']} ranks")
    print(f"           PySCF    {reference:.10f} hartree   {reference_seconds:8.2f} s")
    verdict = "agrees" if agrees else "DOES NOT AGREE"
    print(f"difference {energy - reference:+.1e} hartree: {verdict} to {TOLERANCE:.0e}")
    print(f"result     {Path(options.result)}  (python -m sqd_mpi info {options.result})")
    return 0 if agrees else 1


def pyscf_energy(problem: Problem) -> float:
    """Lowest energy of the subspace by PySCF, core energy included, in hartree."""
    hamiltonian = problem.hamiltonian
    strings = tuple(bitstrings.to_integers(strings) for strings in (problem.strings_a, problem.strings_b))
    energy, _ = selected_ci.kernel_fixed_space(
        selected_ci.SelectedCI(),
        hamiltonian.h1e,
        ao2mo.restore(1, hamiltonian.eri, hamiltonian.norb),
        hamiltonian.norb,
        hamiltonian.nelec,
        ci_strs=strings,
        tol=1e-12,
        max_cycle=200,
    )
    return float(energy) + hamiltonian.ecore


if __name__ == "__main__":
    sys.exit(main())
