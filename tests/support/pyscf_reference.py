"""PySCF's own solver in a part of all strings, and the small molecules that solvers are compared on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from pyscf import fci, gto, scf
from pyscf.fci import cistring, direct_spin1, direct_uhf

# How many strings of each spin the part leaves out: the last ones.
LEFT_OUT = 1


def part_of_strings(norb: int, n_electrons: int) -> np.ndarray:
    """All strings but the last, as integers."""
    return np.asarray(cistring.make_strings(range(norb), n_electrons))[:-LEFT_OUT]


class PartOfStrings(direct_spin1.FCISolver):
    """Dense diagonalisation in the part; vectors are over all strings, so that the rest is PySCF's own code."""

    _keys = {"ss_value", "ss_penalty"}

    def kernel(self, h1e, eri, norb, nelec, ci0=None, nroots=None, ecore=0.0, **ignored):
        nelec = direct_spin1._unpack_nelec(nelec, self.spin)
        code = direct_uhf if isinstance(eri, tuple) else direct_spin1
        nroots = nroots or self.nroots
        shape = tuple(cistring.num_strings(norb, n) for n in nelec)
        kept = np.zeros(shape, bool)
        kept[:-LEFT_OUT, :-LEFT_OUT] = True
        kept = np.flatnonzero(kept)
        h2e = code.absorb_h1e(h1e, eri, norb, nelec, 0.5)
        units = np.eye(shape[0] * shape[1])[kept].reshape(-1, *shape)
        matrix = np.array([code.contract_2e(h2e, unit, norb, nelec).ravel()[kept] for unit in units])
        penalty = np.zeros_like(matrix)
        if hasattr(self, "ss_value"):
            square = np.array([fci.spin_op.contract_ss(unit, norb, nelec).ravel()[kept] for unit in units])
            square -= self.ss_value * np.eye(len(kept))
            lowest = abs(nelec[0] - nelec[1]) / 2
            penalty = self.ss_penalty * (square if self.ss_value < lowest * (lowest + 1) + 0.1 else square @ square)
        _, columns = np.linalg.eigh(matrix + penalty)
        energies = np.einsum("ik,ij,jk->k", columns, matrix, columns)[:nroots] + ecore
        vectors = []
        for column in columns.T[:nroots]:
            whole = np.zeros(shape[0] * shape[1])
            whole[kept] = column
            vectors.append(whole.reshape(shape))
        self.converged = True
        return (energies, vectors) if nroots > 1 else (energies[0], vectors[0])

    approx_kernel = kernel
    # natural orbitals are those of the same vector
    transform_ci_for_orbital_rotation = None


@cache
def boron_hydride(symmetry: str | bool = False) -> scf.hf.SCF:
    """BH; orbitals of an active space of 4 electrons in 5 orbitals converge fast."""
    molecule = gto.M(atom="B 0 0 0; H 0 0 1.25", basis="6-31g", symmetry=symmetry, verbose=0)
    return scf.RHF(molecule).run(conv_tol=1e-13)


@cache
def hydrogens() -> scf.hf.SCF:
    """Four hydrogen atoms without any symmetry, none of whose states are degenerate."""
    molecule = gto.M(atom="H 0 0 0; H 0 0.1 1; H 0.2 0.9 0; H 0 1 1.1", basis="6-31g", verbose=0)
    return scf.RHF(molecule).run(conv_tol=1e-13)


@cache
def oxygen_unrestricted() -> scf.hf.SCF:
    """O2, a triplet with unlike alpha and beta orbitals."""
    molecule = gto.M(atom="O 0 0 0; O 0 0 1.3", basis="sto-3g", spin=2, verbose=0)
    return scf.UHF(molecule).run(conv_tol=1e-13)


def flat(found: Any) -> list[np.ndarray]:
    """The numbers of nested tuples and lists, as arrays."""
    if isinstance(found, list | tuple):
        return [array for each in found for array in flat(each)]
    return [np.asarray(found, float)]
