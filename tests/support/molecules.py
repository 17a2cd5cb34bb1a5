"""Small molecules in active spaces that PySCF diagonalises completely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.problem.hamiltonian import Hamiltonian
from tests.support.problems import all_strings

# name: geometry in angstrom, 2 M of the mean field, orbitals and electrons of the active space
MOLECULES = {
    "N2 1.1": ("N 0 0 0; N 0 0 1.1", 0, 6, (3, 3)),
    "N2 1.6": ("N 0 0 0; N 0 0 1.6", 0, 6, (3, 3)),
    "N2 2.2": ("N 0 0 0; N 0 0 2.2", 0, 6, (3, 3)),
    "O2": ("O 0 0 0; O 0 0 1.2075", 2, 6, (4, 4)),
    "O2 M=1": ("O 0 0 0; O 0 0 1.2075", 2, 6, (5, 3)),
    "CH2": ("C 0 0 0; H 0 0.99 0.42; H 0 -0.99 0.42", 2, 6, (3, 3)),
    "CH2 M=1": ("C 0 0 0; H 0 0.99 0.42; H 0 -0.99 0.42", 2, 6, (4, 2)),
    "C2": ("C 0 0 0; C 0 0 1.2425", 0, 6, (3, 3)),
    "C2 1.7": ("C 0 0 0; C 0 0 1.7", 0, 6, (3, 3)),
}


@dataclass(frozen=True)
class State:
    """One exact eigenstate: energy (hartree), S(S+1), and the spin-summed (norb, norb) density matrix."""

    energy: float
    spin_square: float
    rdm1: NDArray[np.float64]


def molecule(name: str) -> Hamiltonian:
    """The Hamiltonian of an active space."""
    from pyscf import gto, lib, scf

    lib.num_threads(1)
    atoms, spin, norb, nelec = MOLECULES[name]
    mol = gto.M(atom=atoms, basis="6-31g", spin=spin, symmetry=True, verbose=0)
    mean_field = (scf.ROHF if spin else scf.RHF)(mol).run(conv_tol=1e-12)
    return Hamiltonian.from_pyscf(mean_field, norb, nelec)


def strings(hamiltonian: Hamiltonian) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """All strings of both spins."""
    return tuple(all_strings(hamiltonian.norb, n) for n in hamiltonian.nelec)  # type: ignore[return-value]


def exact_states(hamiltonian: Hamiltonian, spin_square: float | None, count: int) -> list[State]:
    """The lowest states of PySCF's full CI matrix, of one spin or of any.

    A degenerate level may be turned inside itself; its density matrices are then defined as a sum only.
    """
    from pyscf import fci

    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    shape = tuple(len(each) for each in strings(hamiltonian))
    size = shape[0] * shape[1]
    h1e, eri = hamiltonian.h1e, hamiltonian.eri_pairs()
    order, matrix = fci.direct_spin1.pspace(h1e, eri, norb, nelec, np=size)
    whole = np.empty((size, size))
    whole[np.ix_(order, order)] = matrix
    square = np.array([fci.spin_op.contract_ss(row.reshape(shape), norb, nelec).ravel() for row in np.eye(size)])
    energies, vectors = np.linalg.eigh(whole + 1e-3 * square)  # tells apart degenerate levels of several spins
    values = np.einsum("ik,ij,jk->k", vectors, square, vectors)
    energies = energies - 1e-3 * values + hamiltonian.ecore
    found = []
    for k in np.argsort(energies, kind="stable"):
        if spin_square is None or abs(values[k] - spin_square) < 1e-6:
            rdm1 = fci.direct_spin1.make_rdm1(vectors[:, k].reshape(shape), norb, nelec)
            found.append(State(float(energies[k]), float(values[k]), rdm1))
            if len(found) == count:
                break
    return found
