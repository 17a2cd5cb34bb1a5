"""States of one irreducible representation: PySCF's `wfnsym`.

The solver knows sectors by labels that it finds from the integrals. Where these are as fine as the irreps of the
orbitals, every sector has one irrep: the product of those of its electrons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib, symm
from pyscf.fci import cistring, direct_spin1_symm
from pyscf.scf.hf_symm import map_degeneracy
from pyscf.symm.param import IRREP_ID_TABLE

from sqd_mpi.adapters.pyscf.space import RequestedSpace
from sqd_mpi.errors import InputError, did_you_mean
from sqd_mpi.problem.symmetry import OrbitalLabels

LINEAR = ("Dooh", "Coov")


def irrep_id(wfnsym: Any, group: str | None) -> int | None:
    """PySCF's number of an irrep; None stands for any.

    Args:
        wfnsym: a number, a name, or None.
        group: name of the point group, or None if it is not known; a name must then mean one number in all groups.

    Raises:
        InputError: there is no such irrep.
    """
    if wfnsym is None:
        return None
    if isinstance(wfnsym, int | np.integer) and not isinstance(wfnsym, bool) and wfnsym >= 0:
        return int(wfnsym)
    if not isinstance(wfnsym, str):
        raise InputError(f"wfnsym is the name or the number of an irrep; got {wfnsym!r}")
    if group is not None:
        try:
            return int(symm.irrep_name2id(group, wfnsym))
        except (KeyError, ValueError, IndexError):
            known = list(IRREP_ID_TABLE.get(group, ()))
            raise InputError(f"wfnsym = {wfnsym!r} is no irrep of {group}{did_you_mean(wfnsym, known)}") from None
    numbers = {table[wfnsym] for table in IRREP_ID_TABLE.values() if wfnsym in table}
    if len(numbers) != 1:
        raise InputError(
            f"wfnsym = {wfnsym!r} needs the molecule's point group: SubspaceSolver(mol=mol), or the number of the irrep"
        )
    return numbers.pop()


def irreps_of_sectors(labels: OrbitalLabels, orbsym: NDArray[np.int64], n_electrons: int) -> NDArray[np.int64] | None:
    """Irrep of every symmetry sector, in D2h and its subgroups, or None where labels do not tell irreps apart.

    Args:
        labels: of the orbitals.
        orbsym: (norb,) irrep of every orbital; of larger groups the last digit counts.
        n_electrons: of both spins.
    """
    sectors = np.arange(labels.n_labels)
    found = np.zeros(labels.n_labels, np.int64)
    for bit in range(3):
        wanted = np.asarray(orbsym) % 10 >> bit & 1
        for mask in range(labels.n_labels):
            own = np.bitwise_count(labels.labels & mask).astype(np.int64) & 1
            offset = int(own[0] ^ wanted[0])  # the number of electrons is a parity as well
            if np.array_equal(own ^ offset, wanted):
                parity = np.bitwise_count(sectors & mask).astype(np.int64) + offset * n_electrons
                found |= (parity & 1) << bit
                break
        else:
            return None
    return found


@dataclass(frozen=True, eq=False)
class Irrep:
    """A wanted irrep."""

    number: int
    """As PySCF counts."""
    name: Any
    """As the user gave it."""
    of_sector: NDArray[np.int64]
    """Irrep of every symmetry sector, in D2h."""
    n_determinants: int
    """That have it."""
    linear: bool
    """Whether the group is larger than D2h, so that several irreps share one of D2h."""
    orbsym: Any
    strings: Any
    """Irreps of the orbitals, or None where partners are missing, and all strings of both spins as PySCF has them; of
    linear molecules."""

    @classmethod
    def create(cls, number: int, name: Any, orbsym: Any, space: RequestedSpace, mol: Any) -> Irrep:
        """The irrep in a space.

        Args:
            number: of the irrep, as PySCF counts.
            name: as the user gave it.
            orbsym: irreps of the orbitals, or None.
            space: of the solve.
            mol: the molecule, or None if it is not known.

        Raises:
            InputError: sectors do not tell it from others, or no determinant has it.
        """
        hamiltonian = space.hamiltonian
        if hamiltonian.spin_dependent:
            raise InputError(f"wfnsym = {name!r} needs the same orbitals for both spins")
        if orbsym is None or len(orbsym) != hamiltonian.norb:
            got = "none" if orbsym is None else f"those of {len(orbsym)}"
            raise InputError(
                f"wfnsym = {name!r} needs the irreps of {hamiltonian.norb} orbitals, of a molecule with symmetry or as "
                f"orbsym; got {got}"
            )
        of_sector = irreps_of_sectors(space.labels, orbsym, sum(hamiltonian.nelec))
        if of_sector is None:
            raise InputError(
                f"wfnsym = {name!r} needs integrals whose zeros tell the irreps of orbsym apart, and the option "
                "symmetry = 'auto'"
            )
        n_there = int(space.sector_sizes[of_sector == number % 10].sum())
        if not n_there:
            raise InputError(f"no determinant of this space has wfnsym = {name!r}")
        linear = getattr(mol, "groupname", None) in LINEAR or hasattr(orbsym, "degen_mapping")
        strings = None
        if linear:
            orbsym = _with_pairs(hamiltonian.h1e, orbsym)
            strings = [cistring.make_strings(range(hamiltonian.norb), n) for n in hamiltonian.nelec]
        return cls(number, name, of_sector, n_there, linear, orbsym, strings)

    def in_sector(self, sector: int) -> bool:
        """Whether the vectors of a sector can have the irrep."""
        return bool(self.of_sector[sector] == self.number % 10)

    def is_exact(self, vector: NDArray[np.float64]) -> bool:
        """Whether a vector over all strings, (n_alpha, n_beta), has the irrep of a linear molecule."""
        found = direct_spin1_symm._guess_wfnsym_cyl_sym(vector, *self.strings, self.orbsym)
        return bool(found == self.number)


def _with_pairs(h1e: NDArray[np.float64], orbsym: Any) -> Any:
    """Irreps of the orbitals of a linear molecule with the partner of each; None where partners are missing."""
    if not hasattr(orbsym, "degen_mapping"):
        orbsym = lib.tag_array(np.asarray(orbsym), degen_mapping=map_degeneracy(h1e.diagonal(), np.asarray(orbsym)))
    partner = np.asarray(orbsym.degen_mapping)
    whole = partner.max() < len(partner) and np.array_equal(partner[partner], np.arange(len(partner)))
    return orbsym if whole else None


def high_spin_irrep(orbsym: NDArray[np.int64], nelec: tuple[int, int]) -> int:
    """What PySCF's solver looks for where nobody says: the first orbitals are filled, with all open shells alpha.

    Args:
        orbsym: (norb,) irreps of the orbitals.
        nelec: (n_alpha, n_beta).
    """
    return int(np.bitwise_xor.reduce(np.asarray(orbsym)[min(nelec) : max(nelec)] % 10, initial=0))
