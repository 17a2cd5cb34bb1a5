"""Excited states of water: energies, spins and transition dipoles of the lowest roots, in one process or on all ranks.

    python examples/excited_states/water.py --compare
    mpirun -n 2 python examples/excited_states/water.py --roots 5 --spin-square 2

Without --spin-square the roots are the lowest of any spin; with it those of one spin, S(S+1): 0 singlets, 2 triplets.
The oscillator strength is 2/3 dE |<0|r|n>|^2 in atomic units; between states of unlike spin it is zero.
"""

from __future__ import annotations

import argparse

import numpy as np
from pyscf import ao2mo, fci, gto, mcscf, scf

from sqd_mpi import Hamiltonian, SolveOptions, bitstrings, solve_subspace, transition_density_matrices, world

HARTREE_IN_EV = 27.211386
WATER = "O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587"


def main() -> None:
    """Solve on all ranks; rank 0 prints the table."""
    options = parse_options()
    comm = world()
    molecule = gto.M(atom=WATER, basis="6-31g", symmetry=True, verbose=0)
    mean_field = scf.RHF(molecule).run(conv_tol=1e-12)
    hamiltonian = Hamiltonian.from_pyscf(mean_field, ncas=options.orbitals, nelecas=8)
    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    strings = [bitstrings.from_integers(fci.cistring.make_strings(range(norb), n), norb) for n in nelec]
    settings = SolveOptions(nroots=options.roots, spin_square=options.spin_square, tol=1e-6)
    result = solve_subspace(comm, hamiltonian, *strings, settings)
    dipoles = dipole_integrals(mean_field, norb)
    moments = [transition_moment(result, dipoles, root) for root in range(options.roots)]  # collective
    if comm is None or comm.rank == 0:
        print(f"{len(strings[0])} x {len(strings[1])} strings on grid {result.grid.shape}")
        print("root  energy (hartree)   excitation (eV)  <S^2>   oscillator strength")
        for number, (root, moment) in enumerate(zip(result.roots, moments, strict=True)):
            gap = root.energy - result.roots[0].energy
            strength = 2 / 3 * gap * float(moment @ moment)
            excitation = HARTREE_IN_EV * gap
            print(f"{number:4d}  {root.energy:16.10f}  {excitation:15.4f}  {root.spin_square:6.4f}  {strength:8.5f}")
        if options.compare:
            compare(hamiltonian, result.energies, options.spin_square)


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--roots", type=int, default=4, help="number of states (%(default)s)")
    parser.add_argument("--spin-square", type=float, help="S(S+1) of the wanted states; by default any")
    parser.add_argument("--orbitals", type=int, default=8, help="active orbitals (%(default)s)")
    parser.add_argument("--compare", action="store_true", help="also PySCF's full CI")
    return parser.parse_args()


def dipole_integrals(mean_field: scf.hf.SCF, norb: int) -> np.ndarray:
    """(3, norb, norb) position integrals between active orbitals, in bohr."""
    active = mcscf.CASCI(mean_field, norb, 8)
    orbitals = mean_field.mo_coeff[:, active.ncore : active.ncore + norb]
    return np.einsum("xuv,up,vq->xpq", mean_field.mol.intor("int1e_r"), orbitals, orbitals)


def transition_moment(result, dipoles: np.ndarray, root: int) -> np.ndarray:
    """(3,) <0|r|root> in bohr; collective over the ranks."""
    if root == 0:
        return np.zeros(3)
    matrices = transition_density_matrices(result, 0, root, order=1)
    return np.einsum("xpq,pq->x", dipoles, matrices.rdm1)


def compare(hamiltonian: Hamiltonian, energies: np.ndarray, spin_square: float | None) -> None:
    """Print the largest deviation from full CI by PySCF."""
    solver = fci.direct_spin1.FCI()
    solver.conv_tol = 1e-12
    if spin_square is not None:
        solver = fci.addons.fix_spin_(solver, shift=1.0, ss=spin_square)
    eri = ao2mo.restore(8, hamiltonian.eri, hamiltonian.norb)
    found, _ = solver.kernel(hamiltonian.h1e, eri, hamiltonian.norb, hamiltonian.nelec, nroots=len(energies))
    deviation = np.abs(np.sort(np.atleast_1d(found)) + hamiltonian.ecore - energies).max()
    print(f"largest deviation from PySCF {deviation:.1e} hartree")


if __name__ == "__main__":
    main()
