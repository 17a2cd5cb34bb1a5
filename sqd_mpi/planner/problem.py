"""What the planner knows about an input: its strings by label, their connections, the largest sector."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import IntArray, Shape
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.planner.connections import Connections, connections, deal_strings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.space import Space
from sqd_mpi.problem.spin_strings import SpinStrings


@dataclass(frozen=True, eq=False)
class Problem:
    """One input, as far as plans depend on it; the input itself is `files.records.Problem`."""

    norb: int
    """Number of spatial orbitals."""
    nelec: tuple[int, int]
    """(n_alpha, n_beta)."""
    pair_labels: IntArray = field(repr=False)
    """(n_pairs,) label of every pair of alpha orbitals."""
    alpha: Connections = field(repr=False)
    """Connections of the alpha strings."""
    beta: Connections = field(repr=False)
    """Those of the beta strings; the same object where the strings are equal."""
    sector: int
    """Label of the sector with most determinants."""
    spin_flip: bool
    """Whether spin-flip symmetry is used where the grid allows it."""
    deal: bool = True
    """Whether blocks get light and heavy strings alike."""
    single: bool = False
    """Whether the CPU makes sigma in single precision."""

    @classmethod
    def create(
        cls,
        hamiltonian: Hamiltonian,
        strings_a: NDArray[np.uint64],
        strings_b: NDArray[np.uint64],
        symmetry: bool = True,
        spin_flip: bool = True,
        deal: bool = True,
        single: bool = False,
    ) -> Problem:
        """Everything from integrals and strings, (n, nwords) uint64 in any order.

        Raises:
            InputError: the strings do not fit the Hamiltonian.
        """
        hamiltonian.check_strings(strings_a, strings_b)
        space = Space.create(hamiltonian, strings_a, strings_b, symmetry)
        return cls.from_space(space, spin_flip and space.same_spins, deal, single)

    @classmethod
    def from_space(cls, space: Space, spin_flip: bool, deal: bool, single: bool = False) -> Problem:
        """The same from a space whose strings are in the order by label."""
        norb, labels, alpha, beta = space.hamiltonian.norb, space.labels, space.alpha, space.beta
        rows, columns = np.tril_indices(norb)
        pair_labels, pair_labels_b = (labels.both[:, rows] ^ labels.both[:, columns]).astype(np.int64)
        found_a = connections(alpha, norb, pair_labels)
        found_b = found_a if space.same_spins else connections(beta, norb, pair_labels_b)
        one = (1, 1, 1, 1)
        sector = max(space.sectors, key=lambda x: Layout.create(alpha, beta, x, one).n_determinants)
        return cls(norb, space.hamiltonian.nelec, pair_labels, found_a, found_b, sector, spin_flip, deal, single)

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return self.alpha.strings.n_labels

    @property
    def n_determinants(self) -> int:
        """Determinants of the sector."""
        n_alpha, n_beta = np.diff(self.alpha.strings.label_start), np.diff(self.beta.strings.label_start)
        return int(n_alpha @ n_beta[np.arange(self.n_labels) ^ self.sector])

    def parity(self, shape: Shape) -> int:
        """+1 where spin-flip symmetry is used on a grid, 0 elsewhere."""
        return int(self.spin_flip and shape[0] == shape[1])

    def dimension(self, shape: Shape) -> int:
        """Stored elements of a vector of the sector."""
        on_line = self.alpha.size if self.sector == 0 else 0
        return (self.n_determinants + on_line) // 2 if self.parity(shape) else self.n_determinants

    def parts(self, shape: Shape) -> tuple[IntArray, IntArray]:
        """Parts of all alpha and all beta strings: row group (ia r + ir), or block ia with spin-flip symmetry; ib."""
        a, b, _, r = shape
        spin_flip = bool(self.parity(shape))
        key = a if spin_flip else a * r, b, spin_flip
        if key not in self._parts:
            ordered = self.alpha.strings, self.beta.strings
            if self.deal and a * b * r > 1:
                ordered = deal_strings(*ordered, shape, spin_flip)
            self._parts[key] = _part_of(ordered[0], key[0]), _part_of(ordered[1], b)
        return self._parts[key]

    @cached_property
    def _parts(self) -> dict[tuple[int, int, bool], tuple[IntArray, IntArray]]:
        return {}


def _part_of(ordered: SpinStrings, n_parts: int) -> IntArray:
    """(n,) part of every string, by its place in the order before it was dealt."""
    position = np.empty(ordered.size, np.int64)
    for row in ordered.bounds(n_parts):
        position[row[0] : row[-1]] = np.repeat(np.arange(n_parts), np.diff(row))
    label = np.repeat(np.arange(ordered.n_labels), np.diff(ordered.label_start))
    return position[np.lexsort((ordered.canonical, label))]
