"""Writes an input file for the nitrogen molecule: integrals and bit-strings from PySCF.

    python examples/n2/make_input.py --bond-length 1.4 -o n2.h5

The bit-strings stand for what a quantum computer would sample: those that occur, with a coefficient above a threshold,
in the full-CI ground state of the active space.
"""

from __future__ import annotations

import argparse

import numpy as np
from pyscf import ao2mo, fci, gto, scf

from sqd_mpi import Hamiltonian, bitstrings, write_input


def main() -> None:
    """Read the options, compute, write the file, say what is in it."""
    options = parse_options()
    atoms = f"N 0 0 0; N 0 0 {options.bond_length}"
    # the point group fixes how degenerate orbitals are oriented, and so the space that the strings span
    mean_field = scf.RHF(gto.M(atom=atoms, basis=options.basis, symmetry="D2h", verbose=0)).run()
    hamiltonian = Hamiltonian.from_pyscf(mean_field, ncas=options.orbitals, nelecas=options.electrons)
    strings_a, strings_b = important_strings(hamiltonian, options.threshold)
    write_input(options.output, hamiltonian, strings_a, strings_b)
    print(f"N2 at {options.bond_length} angstrom, {options.basis}: RHF energy {mean_field.e_tot:.10f} hartree")
    print(
        f"{options.output}: {hamiltonian.norb} orbitals, {hamiltonian.nelec[0]} + {hamiltonian.nelec[1]} electrons, "
        f"{len(strings_a)} x {len(strings_b)} strings = {len(strings_a) * len(strings_b)} determinants"
    )


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bond-length", type=float, default=1.1, metavar="R", help="in angstrom (%(default)s)")
    parser.add_argument("--basis", default="6-31g", help="basis set (%(default)s)")
    parser.add_argument("--electrons", type=int, default=10, metavar="N", help="active electrons (%(default)s)")
    parser.add_argument("--orbitals", type=int, default=12, metavar="N", help="active orbitals (%(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=1e-4, metavar="C", help="smallest coefficient; 0: all strings (%(default)s)"
    )
    parser.add_argument("-o", "--output", default="n2.h5", metavar="FILE", help="input file to write (%(default)s)")
    return parser.parse_args()


def important_strings(hamiltonian: Hamiltonian, threshold: float) -> tuple[bitstrings.Strings, bitstrings.Strings]:
    """Alpha and beta strings with a full-CI coefficient of at least the threshold, in canonical order."""
    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    solver = fci.direct_spin1.FCI()
    _, vector = solver.kernel(hamiltonian.h1e, ao2mo.restore(8, hamiltonian.eri, norb), norb, nelec)
    coefficients = abs(vector)
    kept = []
    for axis, n_electrons in enumerate(nelec):
        integers = fci.cistring.make_strings(range(norb), n_electrons)
        kept.append(bitstrings.from_integers(integers[coefficients.max(axis=1 - axis) >= threshold], norb))
    if nelec[0] == nelec[1]:
        # both sets are one in exact arithmetic; rounding may keep a string on one side only
        kept = [bitstrings.canonical(np.concatenate(kept))[0]] * 2
    return kept[0], kept[1]


if __name__ == "__main__":
    main()
