"""Symmetry sectors: what is asked of them, what is known of them, and how they are decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np

from sqd_mpi.arrays import FloatArray

ANY_SPIN = -1


class Sector(NamedTuple):
    """Symmetry by which states are kept apart."""

    label: int
    """Of the orbitals."""
    parity: int = 0
    """Of the spin flip; 0 where that is not used."""
    twice_spin: int = ANY_SPIN
    """2 S, where states of every spin are sought for themselves; else ANY_SPIN."""

    @property
    def has_spin(self) -> bool:
        """Whether all its states have one spin."""
        return self.twice_spin != ANY_SPIN

    @property
    def spin_square(self) -> float:
        """S (S + 1)."""
        return self.twice_spin * (self.twice_spin + 2) / 4.0

    def __str__(self) -> str:
        parity = f", parity {self.parity:+d}" if self.parity else ""
        spin = f", S = {self.twice_spin / 2:g}" if self.has_spin else ""
        return f"sector {self.label}{parity}{spin}"


# How a sector was decided, as people read it.
HOW_DECIDED = {
    "solved": "all their states",
    "exact": "their exact model spaces",
    "model": "their model spaces",
    "ritz": "their Ritz values",
}


class Aim(Enum):
    """What a sector is solved for."""

    ROOTS = "its lowest roots, from the model space"
    LOOK = "whether one more root lies below the bound, from the model space"
    GUARD = "whether one more root lies below the bound, from random vectors as well"


class Verdict(Enum):
    """What the iterations of a task show so far."""

    OPEN = "nothing yet"
    ABOVE = "the last root lies above the bound"
    UNCLEAR = "the model space says too little about the last root"


class Decision(NamedTuple):
    """How a sector was decided."""

    energy: float
    """Lowest energy known there, hartree."""
    how: str
    """One of HOW_DECIDED; "undecided" or "open" if it may hold a wanted root that was not found."""
    n_found: int
    """Number of its states that are known."""

    @property
    def proven(self) -> bool:
        """Whether no wanted root can be missing there."""
        return self.how in HOW_DECIDED


class Known(NamedTuple):
    """What a checkpoint tells of a sector."""

    n_found: int
    """Number of its states that are known."""
    hard: bool
    """Whether its model space says too little."""
    how: str
    """How it was decided, or nothing."""
    stirred: bool
    """Whether random vectors have had a part in its lowest roots."""
    complete_below: float
    """All its states that lie below are known, hartree."""


@dataclass(frozen=True)
class SectorTask:
    """A sector to solve next."""

    sector: Sector
    count: int
    """Number of its lowest roots; those that are known are among them."""
    aim: Aim


@dataclass(frozen=True, eq=False)
class Outlook:
    """What its model space says about a sector."""

    energies: FloatArray = field(repr=False)
    """(n,) lowest eigenvalues, hartree, ascending."""
    edge: float
    """No determinant outside has a lower diagonal element, hartree; infinite if there is none."""
    dimension: int
    """Of the sector."""
    size: int
    """Of the model space."""

    @property
    def complete(self) -> bool:
        """Whether the model space is the whole sector."""
        return bool(np.isinf(self.edge))


class ModelShare(NamedTuple):
    """What a model space holds of eigenvectors."""

    outside: FloatArray
    """(n,) weight outside."""
    energies: FloatArray
    """(n,) of the model states that they are most like, hartree."""
    diagonals: FloatArray
    """(n,) elements of their main determinants, hartree."""
