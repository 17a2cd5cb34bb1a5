"""CASSCF of N2 with PySCF's orbital optimiser and sqd_mpi as its solver, in one process or on all ranks of a job.

    python examples/casscf/n2_casscf.py
    mpirun -n 2 python examples/casscf/n2_casscf.py --orbitals 8 --electrons 10 --excitations 4

With --excitations the space is the product of the strings that differ from the lowest one by so many electrons at most;
by default it holds all strings, which is PySCF's own CASSCF (--compare shows it).
"""

from __future__ import annotations

import argparse

import numpy as np
from pyscf import gto, lib, mcscf, scf

from sqd_mpi.adapters.pyscf import SubspaceSolver, drive


def near_strings(norb: int, n_electrons: int, excitations: int) -> np.ndarray:
    """Strings, as integers, with at most so many electrons outside the lowest orbitals."""
    from pyscf.fci import cistring

    strings = np.asarray(cistring.make_strings(range(norb), n_electrons), np.uint64)
    lowest = np.uint64((1 << n_electrons) - 1)
    return strings[np.bitwise_count(strings & ~lowest) <= excitations]


def main(arguments: argparse.Namespace) -> None:
    """What rank 0 does."""
    lib.num_threads(1)
    atoms = f"N 0 0 0; N 0 0 {arguments.bond_length}"
    # the point group fixes how degenerate orbitals are oriented, and so the space that given strings span
    molecule = gto.M(atom=atoms, basis=arguments.basis, symmetry="D2h", verbose=0)
    mean_field = scf.RHF(molecule).run(conv_tol=1e-12)
    calculation = mcscf.CASSCF(mean_field, arguments.orbitals, arguments.electrons)
    strings = "all"
    if arguments.excitations is not None:
        strings = tuple(near_strings(arguments.orbitals, n, arguments.excitations) for n in calculation.nelecas)
    calculation.fcisolver = SubspaceSolver(strings)
    calculation.conv_tol = 1e-9
    calculation.kernel()
    ci, solver = calculation.ci, calculation.fcisolver
    rdm1 = solver.make_rdm1(ci, arguments.orbitals, calculation.nelecas)
    occupations = np.linalg.eigvalsh(rdm1)[::-1]
    print(f"strings                {ci.shape[0]} x {ci.shape[1]} on grid {solver.result.grid.shape}")
    print(f"converged              {calculation.converged}")
    print(f"energy                 {calculation.e_tot:.9f} hartree")
    print(f"<S^2>                  {ci.spin_square:.6f}")
    print("natural occupations   ", " ".join(f"{value:.4f}" for value in occupations))
    if arguments.compare:
        reference = mcscf.CASSCF(mean_field, arguments.orbitals, arguments.electrons).run(conv_tol=1e-9)
        print(f"PySCF's own solver     {reference.e_tot:.9f} hartree")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bond-length", type=float, default=1.2, help="angstrom (%(default)s)")
    parser.add_argument("--basis", default="6-31g", help="basis set (%(default)s)")
    parser.add_argument("--orbitals", type=int, default=6, help="active orbitals (%(default)s)")
    parser.add_argument("--electrons", type=int, default=6, help="active electrons (%(default)s)")
    parser.add_argument("--excitations", type=int, help="take strings up to this excitation of each spin (all)")
    parser.add_argument("--compare", action="store_true", help="also run PySCF's own CASSCF")
    parsed = parser.parse_args()
    drive(lambda: main(parsed))
