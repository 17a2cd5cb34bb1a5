"""The strings of one spin in the order in which a calculation works on them, and the singles among them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray, Strings
from sqd_mpi.problem.excitations import Singles, find_singles
from sqd_mpi.problem.symmetry import string_labels


class FoundSingles:
    """The singles among all strings of one spin, found when they are first wanted and not again.

    They are kept in the order in which the strings were sorted by label; whoever deals strings to the parts of a grid
    gets them in the new order. Once the grid is known, a rank keeps those of its own rows and columns only.
    """

    def __init__(self, strings: Strings, norb: int) -> None:
        """Take the strings, (n, n_words) sorted by label, without looking at them."""
        self.norb = norb
        self._strings = strings
        self._found: Singles | None = None
        self._kept: IntArray | None = None  # rows that are left of all, ascending

    def rows(self, wanted: IntArray | None) -> Singles:
        """Singles from some of the strings, (m,) numbers, or from all, to all strings."""
        if self._found is None:
            self._found = find_singles(self._strings, self._strings, self.norb)
        if wanted is None and self._kept is None:
            return self._found
        if wanted is None:
            return find_singles(self._strings, self._strings, self.norb)
        if self._kept is None:
            every = len(wanted) == len(self._strings) and np.array_equal(wanted, np.arange(len(wanted)))
            return self._found if every else self._found.rows(wanted)
        place = np.searchsorted(self._kept, wanted)
        if np.any(place >= len(self._kept)) or not np.array_equal(self._kept[place], wanted):
            return find_singles(np.ascontiguousarray(self._strings[wanted]), self._strings, self.norb)
        return self._found.rows(place)

    def keep(self, wanted: IntArray) -> None:
        """Forget the singles of all strings but these, (m,) ascending numbers."""
        if self._found is not None and len(wanted) < len(self._strings):
            self._found, self._kept = self.rows(wanted), wanted

    @property
    def nbytes(self) -> int:
        """Bytes of what was found."""
        return 0 if self._found is None else self._found.nbytes


@dataclass(frozen=True, eq=False)
class SpinStrings:
    """The strings of one spin in working order: by label; inside a label canonical, or dealt to the parts of a grid."""

    strings: Strings = field(repr=False)
    """(n, n_words) uint64."""
    canonical: IntArray = field(repr=False)
    """(n,) int64, position of each string in canonical order."""
    label_start: IntArray = field(repr=False)
    """(n_labels + 1,) int64, first working position of every label."""
    weight: FloatArray = field(repr=False)
    """(n,) float64 positive relative work of each string, by which halves and row groups are cut."""
    found: FoundSingles = field(repr=False)
    """Singles among the strings, in the order by label."""
    by_label: IntArray | None = field(repr=False, default=None)
    """(n,) position of each string in that order, or None where it is the working order."""
    whole_share: float = 0.0
    """Part of the work on a row that is done wherever some of its columns are wanted."""

    @classmethod
    def from_canonical(cls, strings: Strings, orbital_labels: NDArray[np.int64], n_labels: int) -> SpinStrings:
        """Sort canonical strings by label.

        Args:
            strings: (n, n_words) uint64 in canonical order.
            orbital_labels: (norb,) label of every orbital.
            n_labels: number of labels, a power of two.
        """
        labels = string_labels(strings, orbital_labels)
        order = np.argsort(labels, kind="stable").astype(np.int64)
        start = np.zeros(n_labels + 1, np.int64)
        np.cumsum(np.bincount(labels, minlength=n_labels), out=start[1:])
        by_label = np.ascontiguousarray(strings[order])
        return cls(by_label, order, start, np.ones(len(order)), FoundSingles(by_label, len(orbital_labels)))

    def weighted(self, weight: FloatArray, whole_share: float) -> SpinStrings:
        """The same strings with other weights, (n,) in working order, and another share of whole rows."""
        return replace(self, weight=weight, whole_share=whole_share)

    def dealt(self, n_parts: int) -> SpinStrings:
        """The same strings in an order in which every part of `bounds(n_parts)` gets light and heavy ones alike.

        In every label the strings are dealt by falling weight, to the parts in turn and back again, like cards; inside
        a part they stay in canonical order.
        """
        # To which part each string goes.
        bounds = self.bounds(n_parts)
        part = np.empty(self.size, np.int64)
        for label, (first, last) in enumerate(pairwise(self.label_start)):
            sizes = np.diff(bounds[label])
            n_rounds = int(sizes.min())
            turn, place = np.divmod(np.arange(n_rounds * n_parts), n_parts)
            turns = np.where(turn % 2 == 0, place, n_parts - 1 - place)
            whole = np.concatenate([turns, np.flatnonzero(sizes > n_rounds)])
            part[first + np.argsort(-self.weight[first:last], kind="stable")] = whole

        # Parts follow each other inside a label.
        label_of = np.repeat(np.arange(self.n_labels), np.diff(self.label_start))
        order = np.lexsort((self.canonical, part, label_of))
        by_label = order if self.by_label is None else self.by_label[order]
        return SpinStrings(
            np.ascontiguousarray(self.strings[order]), self.canonical[order], self.label_start, self.weight[order],
            self.found, by_label, self.whole_share,
        )  # fmt: skip

    @property
    def n_labels(self) -> int:
        """Number of labels, present or not."""
        return len(self.label_start) - 1

    @property
    def size(self) -> int:
        """Number of strings."""
        return len(self.canonical)

    def bounds(self, n_parts: int) -> IntArray:
        """Boundaries (n_labels, n_parts + 1) that cut every label into nearly equal counts.

        The left-over strings of the labels go to different parts in turn, so that totals differ by at most one.
        """
        counts = np.diff(self.label_start)
        result = np.empty((self.n_labels, n_parts + 1), np.int64)
        first_with_extra = 0
        for label, count in enumerate(counts):
            part = np.arange(n_parts)
            extra = (part - first_with_extra) % n_parts < count % n_parts
            result[label, 0] = self.label_start[label]
            result[label, 1:] = self.label_start[label] + np.cumsum(count // n_parts + extra)
            first_with_extra = (first_with_extra + int(count) % n_parts) % n_parts
        return result

    def singles(self, positions: IntArray | None = None) -> Singles:
        """Singles from some strings, or from all, to all strings, numbered in working order.

        Args:
            positions: (m,) working positions of the strings; None for all.

        Returns:
            a row per position; kets ascend in a row.
        """
        if self.by_label is None:
            return self.found.rows(positions)
        rows = self.found.rows(self.by_label if positions is None else self.by_label[positions])
        working = np.empty(self.size, np.int32)
        working[self.by_label] = np.arange(self.size, dtype=np.int32)
        return rows.renumbered(working)

    def n_singles(self) -> IntArray:
        """(n,) number of singles of every string."""
        counts = np.diff(self.found.rows(None).indptr)
        return counts if self.by_label is None else counts[self.by_label]

    def keep_singles_of(self, positions: IntArray) -> None:
        """Forget the singles of all strings but those at some working positions, (m,)."""
        self.found.keep(np.sort(positions if self.by_label is None else self.by_label[positions]))


def sectors(alpha: SpinStrings, beta: SpinStrings) -> list[int]:
    """Sectors that hold at least one determinant, ascending."""
    present_a = np.flatnonzero(np.diff(alpha.label_start))
    present_b = np.flatnonzero(np.diff(beta.label_start))
    return [int(sector) for sector in np.unique(present_a[:, None] ^ present_b[None, :])]
