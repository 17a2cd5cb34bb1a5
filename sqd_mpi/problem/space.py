"""The space in which a Hamiltonian is diagonalised: all pairs of given alpha and beta strings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sqd_mpi.arrays import IntArray, Strings
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from sqd_mpi.problem.symmetry import OrbitalLabels, find_labels, trivial_labels


@dataclass(frozen=True, eq=False)
class Space:
    """A Hamiltonian and both sets of strings, sorted by symmetry label, with the singles inside each set.

    It is made once a solve. Whoever wants connections, the planner, the order of the strings, the lists of the kernels,
    takes them from here, so that the singles of a set are found once.
    """

    hamiltonian: Hamiltonian = field(repr=False)
    """Integrals, hartree."""
    labels: OrbitalLabels = field(repr=False)
    """Symmetry labels of the orbitals."""
    alpha: SpinStrings = field(repr=False)
    """Alpha strings in working order."""
    beta: SpinStrings = field(repr=False)
    """Beta strings; the same object as alpha where strings and integrals of both spins are equal."""

    @classmethod
    def create(cls, hamiltonian: Hamiltonian, strings_a: Strings, strings_b: Strings, symmetry: bool = True) -> Space:
        """Sort both sets of strings.

        Args:
            hamiltonian: integrals.
            strings_a: (n_alpha, n_words) alpha strings in any order; duplicates are merged.
            strings_b: (n_beta, n_words) beta strings.
            symmetry: whether exact zeros of the integrals are used; without, all orbitals have one label.
        """
        labels = find_labels(hamiltonian) if symmetry else trivial_labels(hamiltonian.norb)
        alpha, beta = (
            SpinStrings.from_canonical(bitstrings.canonical(strings)[0], of_spin, labels.n_labels)
            for strings, of_spin in zip((strings_a, strings_b), labels.both, strict=True)
        )
        if not hamiltonian.spin_dependent and np.array_equal(alpha.strings, beta.strings):
            beta = alpha
        return cls(hamiltonian, labels, alpha, beta)

    @property
    def same_spins(self) -> bool:
        """Whether both spins have the same strings and integrals, so that spin-flip symmetry can be used."""
        return self.beta is self.alpha

    @property
    def n_determinants(self) -> int:
        """Number of pairs of strings, all sectors together."""
        return self.alpha.size * self.beta.size

    @property
    def sectors(self) -> list[int]:
        """Labels of the symmetry sectors that hold at least one determinant, ascending."""
        return sectors(self.alpha, self.beta)

    @property
    def canonical_strings(self) -> list[Strings]:
        """Alpha and beta strings, (n, n_words) each, in canonical order."""
        return [each.strings[np.argsort(each.canonical)] for each in (self.alpha, self.beta)]

    def ordered(self, alpha: SpinStrings, beta: SpinStrings) -> Space:
        """The same space with its strings in another order."""
        return replace(self, alpha=alpha, beta=beta)

    def keep_singles_of(self, rows: IntArray, columns: IntArray) -> None:
        """Forget the singles of all strings but those of one rank.

        Args:
            rows: (n_rows,) working positions of the alpha strings of its block.
            columns: (n_columns,) those of the beta strings.
        """
        if self.same_spins:
            self.alpha.keep_singles_of(np.union1d(rows, columns))
        else:
            self.alpha.keep_singles_of(rows)
            self.beta.keep_singles_of(columns)
