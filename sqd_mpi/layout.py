"""How the vector of one symmetry sector is cut into blocks, sub-blocks and slices: arithmetic, no communication.

Any rank can ask it about any rank. The vector C has one dense piece per alpha label x: (alpha strings of label x) x
(beta strings of label x XOR sector). The a x b blocks, r row groups and t task groups of the process grid cut it like
this:

* *block* (ia, ib) owns a range of the alpha strings of every label and a range of the beta strings of every label;
* *sub-block* (ia, ir, ib): the rows of a block are split over the r row groups. Stored label after label, row-major;
  the r sub-blocks of a block follow each other, so a block is one flat buffer that slides as a whole;
* *slice* (ia, ir, ib, it): a contiguous 1/t of a sub-block. Krylov vectors are kept in slices only.

Rows of a block or sub-block are numbered label after label; `row_offsets` says where each begins in the flat buffer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.symmetry import string_labels

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpinStrings:
    """The strings of one spin in working order: by label, canonical inside a label.

    Attributes:
        strings: (n, nwords) uint64.
        canonical: (n,) int64, position of each string in canonical order.
        label_start: (n_labels + 1,) int64, first working position of every label.
    """

    strings: NDArray[np.uint64] = field(repr=False)
    canonical: IntArray = field(repr=False)
    label_start: IntArray = field(repr=False)

    @classmethod
    def from_canonical(
        cls, strings: NDArray[np.uint64], orbital_labels: NDArray[np.int64], n_labels: int
    ) -> SpinStrings:
        """Sort canonical strings by label."""
        labels = string_labels(strings, orbital_labels)
        order = np.argsort(labels, kind="stable").astype(np.int64)
        start = np.zeros(n_labels + 1, np.int64)
        np.cumsum(np.bincount(labels, minlength=n_labels), out=start[1:])
        return cls(np.ascontiguousarray(strings[order]), order, start)

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


@dataclass(frozen=True, eq=False)
class Layout:
    """Ownership of the vector of one sector on an (a, b, t, r) grid.

    Attributes:
        alpha, beta: strings in working order.
        sector: label(alpha) XOR label(beta) of every determinant of the vector.
        grid: (a, b, t, r).
        alpha_bounds: (n_labels, a r + 1) working positions; sub-block (ia, ir) owns part ia r + ir of every label.
        beta_bounds: (n_labels, b + 1) working positions.
    """

    alpha: SpinStrings = field(repr=False)
    beta: SpinStrings = field(repr=False)
    sector: int
    grid: tuple[int, int, int, int]
    alpha_bounds: IntArray = field(repr=False)
    beta_bounds: IntArray = field(repr=False)

    @classmethod
    def create(cls, alpha: SpinStrings, beta: SpinStrings, sector: int, grid: tuple[int, int, int, int]) -> Layout:
        """Cut both string lists for a grid."""
        a, b, _, r = grid
        return cls(alpha, beta, sector, grid, alpha.bounds(a * r), beta.bounds(b))

    @property
    def n_labels(self) -> int:
        """Number of alpha labels, hence of pieces."""
        return self.alpha.n_labels

    @property
    def dimension(self) -> int:
        """Number of determinants of the sector."""
        n_alpha = np.diff(self.alpha.label_start)
        n_beta = np.diff(self.beta.label_start)
        return int(sum(int(n_alpha[x]) * int(n_beta[x ^ self.sector]) for x in range(self.n_labels)))

    def row_lengths(self, ib: int) -> IntArray:
        """(n_labels,) number of beta columns of the piece of every alpha label in blocks with this ib."""
        widths = np.diff(self.beta_bounds, axis=1)[:, ib]
        return widths[np.arange(self.n_labels) ^ self.sector]

    def row_counts(self, ia: int, ir: int) -> IntArray:
        """(n_labels,) number of alpha rows of every label in sub-block (ia, ir)."""
        part = ia * self.grid[3] + ir
        return self.alpha_bounds[:, part + 1] - self.alpha_bounds[:, part]

    def sub_block_size(self, ia: int, ir: int, ib: int) -> int:
        """Number of elements of a sub-block."""
        return int(np.dot(self.row_counts(ia, ir), self.row_lengths(ib)))

    def sub_block_starts(self, ia: int, ib: int) -> IntArray:
        """(r + 1,) flat start of every sub-block in its block; the last entry is the size of the block."""
        sizes = [self.sub_block_size(ia, ir, ib) for ir in range(self.grid[3])]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def block_size(self, ia: int, ib: int) -> int:
        """Number of elements of a block."""
        return int(self.sub_block_starts(ia, ib)[-1])

    def slice_bounds(self, ia: int, ir: int, ib: int) -> IntArray:
        """(t + 1,) boundaries of the slices in sub-block (ia, ir, ib), relative to its start."""
        t = self.grid[2]
        return np.arange(t + 1, dtype=np.int64) * self.sub_block_size(ia, ir, ib) // t

    def slice_size(self, ia: int, ib: int, it: int, ir: int) -> int:
        """Number of elements that rank (ia, ib, it, ir) owns."""
        bounds = self.slice_bounds(ia, ir, ib)
        return int(bounds[it + 1] - bounds[it])

    def piece_starts(self, ia: int, ir: int, ib: int) -> IntArray:
        """(n_labels + 1,) flat start of every label's piece in a sub-block."""
        sizes = self.row_counts(ia, ir) * self.row_lengths(ib)
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def bra_rows(self, ia: int, ir: int) -> tuple[IntArray, IntArray]:
        """Rows of a sub-block: working positions of its alpha strings and (n_labels + 1,) first row of every label."""
        part = ia * self.grid[3] + ir
        ranges = [np.arange(bounds[part], bounds[part + 1]) for bounds in self.alpha_bounds]
        return np.concatenate(ranges), _starts([len(rows) for rows in ranges])

    def ket_rows(self, ia: int) -> tuple[IntArray, IntArray]:
        """Rows of a block: working positions of its alpha strings and (n_labels + 1,) first row of every label."""
        r = self.grid[3]
        ranges = [np.arange(bounds[ia * r], bounds[(ia + 1) * r]) for bounds in self.alpha_bounds]
        return np.concatenate(ranges), _starts([len(rows) for rows in ranges])

    def bra_offsets(self, ia: int, ir: int, ib: int) -> IntArray:
        """Flat offset in the sub-block of every one of its rows."""
        lengths = self.row_lengths(ib)
        starts = self.piece_starts(ia, ir, ib)
        counts = self.row_counts(ia, ir)
        pieces = [starts[x] + np.arange(counts[x], dtype=np.int64) * lengths[x] for x in range(self.n_labels)]
        return np.concatenate(pieces)

    def ket_offsets(self, ia: int, ib: int) -> IntArray:
        """Flat offset in the block of every one of its rows (rows are numbered label after label)."""
        r = self.grid[3]
        block_starts = self.sub_block_starts(ia, ib)
        per_label: list[list[IntArray]] = [[] for _ in range(self.n_labels)]
        for ir in range(r):
            lengths, counts = self.row_lengths(ib), self.row_counts(ia, ir)
            starts = self.piece_starts(ia, ir, ib) + block_starts[ir]
            for x in range(self.n_labels):
                per_label[x].append(starts[x] + np.arange(counts[x], dtype=np.int64) * lengths[x])
        return np.concatenate([part for parts in per_label for part in parts])

    def beta_rows(self, ib: int) -> tuple[IntArray, IntArray]:
        """Columns of a block: working positions of its beta strings and (n_labels + 1,) first of every beta label."""
        ranges = [np.arange(bounds[ib], bounds[ib + 1]) for bounds in self.beta_bounds]
        return np.concatenate(ranges), _starts([len(rows) for rows in ranges])

    def geometry(self, ia: int, ib: int, it: int, ir: int) -> SliceGeometry:
        """Where the elements of one rank's slice lie among rows and columns."""
        rows, label_start = self.bra_rows(ia, ir)
        columns, column_start = self.beta_rows(ib)
        counts = np.diff(label_start)
        bounds = self.slice_bounds(ia, ir, ib)
        return SliceGeometry(
            alpha=rows,
            beta=columns,
            row_offset=self.bra_offsets(ia, ir, ib),
            row_length=np.repeat(self.row_lengths(ib), counts),
            row_column=np.repeat(column_start[np.arange(self.n_labels) ^ self.sector], counts),
            start=int(bounds[it]),
            stop=int(bounds[it + 1]),
        )


@dataclass(frozen=True, eq=False)
class SliceGeometry:
    """Rows and columns of the sub-block around one rank's slice.

    Element (row, j) of the sub-block stands at row_offset[row] + j for j < row_length[row]; its strings are
    alpha[row] and beta[row_column[row] + j] (working positions). The slice holds flat positions start .. stop - 1 of
    the sub-block.
    """

    alpha: IntArray = field(repr=False)
    beta: IntArray = field(repr=False)
    row_offset: IntArray = field(repr=False)
    row_length: IntArray = field(repr=False)
    row_column: IntArray = field(repr=False)
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of elements of the slice."""
        return self.stop - self.start

    def locate(self, flat: IntArray) -> tuple[IntArray, IntArray]:
        """Rows and column numbers (into alpha and beta) of elements given by their position in the slice."""
        ends = self.row_offset + self.row_length
        order = np.argsort(ends, kind="stable")
        rows = order[np.searchsorted(ends[order], flat + self.start, side="right")]
        return rows, flat + self.start - self.row_offset[rows] + self.row_column[rows]


def owners(bounds: IntArray) -> IntArray:
    """Part that owns each working position, for boundaries (n_labels, n_parts + 1)."""
    owner = np.empty(int(bounds[-1, -1]), np.int64)
    for row in bounds:
        owner[row[0] : row[-1]] = np.repeat(np.arange(len(row) - 1), np.diff(row))
    return owner


def sectors(alpha: SpinStrings, beta: SpinStrings) -> list[int]:
    """Sectors that hold at least one determinant, ascending."""
    present_a = np.flatnonzero(np.diff(alpha.label_start))
    present_b = np.flatnonzero(np.diff(beta.label_start))
    return [int(sector) for sector in np.unique(present_a[:, None] ^ present_b[None, :])]


def _starts(counts: list[int]) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
