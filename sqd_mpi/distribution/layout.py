"""How the vector of one symmetry sector is cut into blocks, sub-blocks and slices: arithmetic, no communication.

Any rank can ask it about any rank. The vector C has one dense piece per alpha label x: (alpha strings of label x) x
(beta strings of label x XOR sector). The a x b blocks, r row groups and t task groups of the process grid cut it like
this:

* *block* (ia, ib) owns a range of the alpha strings of every label and a range of the beta strings of every label;
* *sub-block* (ia, ir, ib): the rows of a block are split over the r row groups. Stored label after label, row-major;
  the r sub-blocks of a block follow each other, so a block is one flat buffer that slides as a whole;
* *slice* (ia, ir, ib, it): a contiguous 1/t of a sub-block. Krylov vectors are kept in slices only.

With spin-flip symmetry C = +-C^T only one of each pair of mirrored elements is stored in sub-blocks and slices, those
off the mirror line times sqrt(2), so that inner products of stored vectors are inner products of whole ones. Ket
blocks are whole.

Rows of a block or sub-block are numbered label after label; `row_offsets` says where each begins in the flat buffer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import IntArray, Shape
from sqd_mpi.problem.spin_strings import SpinStrings


@dataclass(frozen=True, eq=False)
class Layout:
    """Ownership of the vector of one sector on an (a, b, t, r) grid."""

    alpha: SpinStrings = field(repr=False)
    """Alpha strings in working order."""
    beta: SpinStrings = field(repr=False)
    """Beta strings in working order; the same object where spin-flip symmetry is used."""
    sector: int
    """Label(alpha) XOR label(beta) of every determinant of the vector."""
    grid: Shape
    """(a, b, t, r)."""
    parity: int
    """+1 or -1 for vectors with C = +C^T or -C^T, of which each element and its mirror image are stored once; 0 where
    spin-flip symmetry is not used."""
    alpha_bounds: IntArray = field(repr=False)
    """(n_labels, a + 1) working positions of the alpha strings of every block."""
    beta_bounds: IntArray = field(repr=False)
    """(n_labels, b + 1) working positions of the beta strings."""
    row_group_bounds: IntArray = field(repr=False)
    """(n_labels, a r + 1) equal cuts of the alpha strings, used without parity."""

    @classmethod
    def create(cls, alpha: SpinStrings, beta: SpinStrings, sector: int, grid: Shape, parity: int = 0) -> Layout:
        """Cut both string lists for a grid; parity needs alpha = beta and a = b.

        Raises:
            ValueError: parity without one of them.
        """
        a, b, _, r = grid
        if parity and (a != b or alpha is not beta):
            raise ValueError("spin-flip symmetry needs equal strings and a grid with a = b")
        groups = alpha.bounds(a * r)
        return cls(
            alpha, beta, sector, grid, parity, groups[:, ::r], groups[:, ::r] if parity else beta.bounds(b), groups
        )

    @property
    def n_labels(self) -> int:
        """Number of alpha labels, hence of pieces."""
        return self.alpha.n_labels

    @property
    def n_determinants(self) -> int:
        """Number of determinants of the sector."""
        n_alpha = np.diff(self.alpha.label_start)
        n_beta = np.diff(self.beta.label_start)
        return int(sum(int(n_alpha[x]) * int(n_beta[x ^ self.sector]) for x in range(self.n_labels)))

    @property
    def dimension(self) -> int:
        """Number of independent elements of a vector: the determinants, or one of each mirrored pair."""
        if not self.parity:
            return self.n_determinants
        on_diagonal = self.alpha.size if self.sector == 0 else 0
        return (self.n_determinants + self.parity * on_diagonal) // 2

    def row_lengths(self, ib: int) -> IntArray:
        """(n_labels,) number of beta columns that go with every alpha label in blocks with this ib."""
        widths = np.diff(self.beta_bounds, axis=1)[:, ib]
        return widths[np.arange(self.n_labels) ^ self.sector]

    def block_size(self, ia: int, ib: int) -> int:
        """Number of elements of a whole block."""
        return int(np.dot(np.diff(self.alpha_bounds, axis=1)[:, ia], self.row_lengths(ib)))

    @property
    def block_sizes(self) -> IntArray:
        """(a, b) number of elements of every whole block."""
        a, b = self.grid[:2]
        return np.array([[self.block_size(ia, ib) for ib in range(b)] for ia in range(a)], np.int64).reshape(a, b)

    def is_triangle(self, ia: int, ib: int) -> bool:
        """Whether the stored rows of a block end at the mirror line."""
        return self.parity != 0 and self.sector == 0 and ia == ib

    def meets_half_of_kets(self, ia: int, ib: int) -> bool:
        """Whether of each two mirrored ket blocks this block meets one only (`diagonal_blocks_meet_half`)."""
        return ia == ib and diagonal_blocks_meet_half(self.parity, self.sector, self.grid)

    def ket_rows(self, ia: int) -> tuple[IntArray, IntArray]:
        """Rows of a block: working positions of its alpha strings and (n_labels + 1,) first row of every label."""
        return _positions(self.alpha_bounds, ia)

    def ket_offsets(self, ia: int, ib: int) -> IntArray:
        """Flat offset in the whole block of every one of its rows (rows are numbered label after label)."""
        lengths = self.row_lengths(ib)
        _, label_start = self.ket_rows(ia)
        if self.parity:
            return _starts(np.repeat(lengths, np.diff(label_start)))[:-1]
        offsets = np.empty(int(label_start[-1]), np.int64)
        start = 0
        for ir in range(self.grid[3]):
            for x, (first, last) in enumerate(self._row_ranges(ia, ir, ib)):
                rows = slice(label_start[x] + first, label_start[x] + last)
                offsets[rows] = start + lengths[x] * np.arange(last - first)
                start += lengths[x] * (last - first)
        return offsets

    def row_stops(self, ia: int, ib: int, parity: int | None = None) -> IntArray:
        """How many columns of every row of block (ia, ib) are stored: all, or those before the mirror line.

        With parity, a diagonal block keeps its lower triangle. Of a block and its mirror image, whose ranks share the
        work, the one below keeps its columns up to the middle of the work, the one above the rows from there on.
        """
        lengths = self.row_lengths(ib)
        stops = []
        for x, bounds in enumerate(self.alpha_bounds):
            n_rows, width = int(bounds[ia + 1] - bounds[ia]), int(lengths[x])
            row = np.arange(n_rows, dtype=np.int64)
            mirror = x ^ self.sector
            if not self.parity or x > mirror:
                stop = np.full(n_rows, width, np.int64)
            elif x < mirror:
                stop = np.zeros(n_rows, np.int64)
            elif ia == ib:
                stop = row + (1 if (self.parity if parity is None else parity) > 0 else 0)
            elif ia > ib:
                stop = np.full(n_rows, self._middle(x, ib), np.int64)
            else:
                stop = np.where(row >= self._middle(x, ia), width, 0).astype(np.int64)
            stops.append(stop)
        return np.concatenate(stops)

    def _middle(self, label: int, block: int) -> int:
        """How many strings of a block and label come before the middle of their weight."""
        weight = self.alpha.weight[self.alpha_bounds[label, block] : self.alpha_bounds[label, block + 1]]
        total = np.cumsum(weight)
        return int(np.searchsorted(total, 0.5 * total[-1])) if len(total) else 0

    def _row_work(self, ia: int, ib: int, stops: IntArray) -> NDArray[np.float64]:
        """Relative work of every row of a block of which the first `stops` columns are wanted."""
        work = []
        _, label_start = self.ket_rows(ia)
        for x in range(self.n_labels):
            y = x ^ self.sector
            columns = self.beta.weight[self.beta_bounds[y, ib] : self.beta_bounds[y, ib + 1]]
            before = np.concatenate([[0.0], np.cumsum(columns)])
            rows = self.alpha.weight[self.alpha_bounds[x, ia] : self.alpha_bounds[x, ia + 1]]
            wanted = stops[label_start[x] : label_start[x + 1]]
            share = self.alpha.whole_share
            work.append(rows * ((1.0 - share) * before[wanted] + share * before[-1] * (wanted > 0)))
        return np.concatenate(work)

    def _row_ranges(self, ia: int, ir: int, ib: int) -> list[tuple[int, int]]:
        """For every label the rows of row group ir, counted from the label's first row in the block."""
        r = self.grid[3]
        if not self.parity:
            cuts = self.row_group_bounds[:, ia * r : ia * r + r + 1] - self.row_group_bounds[:, ia * r : ia * r + 1]
            return [(int(row[ir]), int(row[ir + 1])) for row in cuts]
        _, label_start = self.ket_rows(ia)
        work = self._row_work(ia, ib, self.row_stops(ia, ib, parity=1))  # the same rows for both parities
        ranges = []
        for x in range(self.n_labels):
            total = np.concatenate([[0.0], np.cumsum(work[label_start[x] : label_start[x + 1]])])
            cuts = np.searchsorted(total, total[-1] * np.arange(1, r) / r)
            edges = np.concatenate([[0], cuts, [len(total) - 1]])
            ranges.append((int(edges[ir]), int(edges[ir + 1])))
        return ranges

    def bra_rows(self, ia: int, ir: int, ib: int) -> BraRows:
        """The stored rows of sub-block (ia, ir, ib)."""
        positions, label_start = self.ket_rows(ia)
        stops, lengths = self.row_stops(ia, ib), self.row_lengths(ib)
        used = np.ones(len(stops), bool) if not self.parity else self.row_stops(ia, ib, parity=1) > 0
        chosen = []
        for x, (first, last) in enumerate(self._row_ranges(ia, ir, ib)):
            rows = np.arange(label_start[x] + first, label_start[x] + last, dtype=np.int64)
            chosen.append(rows[used[rows]])
        block_row = np.concatenate(chosen)
        counts = [len(rows) for rows in chosen]
        return BraRows(
            alpha=positions[block_row],
            block_row=block_row,
            label_start=_starts(counts),
            offset=_starts(stops[block_row])[:-1],
            stop=stops[block_row],
            length=np.repeat(lengths, counts),
        )

    def sub_block_size(self, ia: int, ir: int, ib: int) -> int:
        """Number of stored elements of a sub-block."""
        return int(self.bra_rows(ia, ir, ib).stop.sum())

    def slice_bounds(self, ia: int, ir: int, ib: int) -> IntArray:
        """(t + 1,) boundaries of the slices in sub-block (ia, ir, ib), relative to its start."""
        t = self.grid[2]
        return np.arange(t + 1, dtype=np.int64) * self.sub_block_size(ia, ir, ib) // t

    def slice_size(self, ia: int, ib: int, it: int, ir: int) -> int:
        """Number of elements that rank (ia, ib, it, ir) owns."""
        bounds = self.slice_bounds(ia, ir, ib)
        return int(bounds[it + 1] - bounds[it])

    def replica_counts(self, ia: int, ib: int) -> list[int]:
        """Sizes of the slices of all replicas of a block, in replica order (ir, it)."""
        _, _, t, r = self.grid
        return [int(n) for ir in range(r) for n in np.diff(self.slice_bounds(ia, ir, ib))]

    def beta_rows(self, ib: int) -> tuple[IntArray, IntArray]:
        """Columns of a block: working positions of its beta strings and (n_labels + 1,) first of every beta label."""
        return _positions(self.beta_bounds, ib)

    def geometry(self, ia: int, ib: int, it: int, ir: int) -> SliceGeometry:
        """Where the elements of one rank's slice lie among rows and columns."""
        rows = self.bra_rows(ia, ir, ib)
        columns, column_start = self.beta_rows(ib)
        bounds = self.slice_bounds(ia, ir, ib)
        start, stop = int(bounds[it]), int(bounds[it + 1])
        diagonal = np.empty(0, np.int64)
        if self.parity > 0 and self.sector == 0 and ia == ib:
            diagonal = rows.offset + rows.stop - 1 - start  # the last element of every row
            diagonal = diagonal[(diagonal >= 0) & (diagonal < stop - start)]
        return SliceGeometry(
            alpha=rows.alpha,
            beta=columns,
            row_offset=rows.offset,
            row_length=rows.stop,
            row_column=np.repeat(column_start[np.arange(self.n_labels) ^ self.sector], np.diff(rows.label_start)),
            start=start,
            stop=stop,
            diagonal=diagonal,
        )


@dataclass(frozen=True, eq=False)
class BraRows:
    """The stored rows of one sub-block, label after label."""

    alpha: IntArray = field(repr=False)
    """(n,) working positions of the alpha strings."""
    block_row: IntArray = field(repr=False)
    """(n,) row numbers in the whole block."""
    label_start: IntArray = field(repr=False)
    """(n_labels + 1,) first row of every label."""
    offset: IntArray = field(repr=False)
    """(n,) flat offset of every row in the sub-block."""
    stop: IntArray = field(repr=False)
    """(n,) number of stored columns of every row."""
    length: IntArray = field(repr=False)
    """(n,) number of columns of the row in the whole block."""

    @property
    def wanted(self) -> NDArray[np.float64]:
        """(n,) share of the columns of every row that is stored."""
        return np.asarray(self.stop / np.maximum(self.length, 1))

    def with_all_columns(self) -> BraRows:
        """The same rows with all their columns, one after the other: the whole block if these are all of its rows."""
        return replace(self, offset=_starts(self.length)[:-1], stop=self.length)


@dataclass(frozen=True, eq=False)
class SliceGeometry:
    """Rows and columns of the sub-block around one rank's slice.

    Element (row, j) of the sub-block stands at row_offset[row] + j for j < row_length[row]; its strings are
    alpha[row] and beta[row_column[row] + j].
    """

    alpha: IntArray = field(repr=False)
    """(n_rows,) working positions of the alpha strings."""
    beta: IntArray = field(repr=False)
    """(n_columns,) working positions of the beta strings of all labels."""
    row_offset: IntArray = field(repr=False)
    """(n_rows,) flat offset of every row in the sub-block."""
    row_length: IntArray = field(repr=False)
    """(n_rows,) number of stored columns."""
    row_column: IntArray = field(repr=False)
    """(n_rows,) number of the first column in `beta`."""
    start: int
    """First flat position of the slice in the sub-block."""
    stop: int
    """The position behind its last."""
    diagonal: IntArray = field(repr=False)
    """(n,) positions in the slice, from 0, of elements that are their own mirror image."""

    @property
    def size(self) -> int:
        """Number of elements of the slice."""
        return self.stop - self.start

    def locate(self, flat: IntArray) -> tuple[IntArray, IntArray]:
        """Rows and column numbers (into alpha and beta), (n,) each, of elements at positions (n,) of the slice."""
        rows = np.searchsorted(self.row_offset + self.row_length, flat + self.start, side="right")
        return rows, flat + self.start - self.row_offset[rows] + self.row_column[rows]


def diagonal_blocks_meet_half(parity: int, sector: int, grid: Shape) -> bool:
    """Whether the blocks on the mirror line meet only one of each two mirrored ket blocks.

    What ket block (ja, jb) gives to a block on the mirror line is, but for the parity, the transpose of what (jb, ja)
    gives. One of them, computed for whole rows, does for both; only ket blocks on the line are left for triangles. In
    sectors other than 0 whole pieces are left out instead, which costs nothing. With row groups the transpose would lie
    on other ranks; there all ket blocks are met, by triangles.
    """
    a, _, _, r = grid
    return parity != 0 and sector == 0 and a > 1 and r == 1


def stands_for_mirror_image(da: Any, db: Any) -> Any:
    """Which ket block of a block on the mirror line, at shifts (da, db) and (db, da), is met for both; elementwise."""
    return da > db


def owners(bounds: IntArray) -> IntArray:
    """Part (n,) that owns each working position, for boundaries (n_labels, n_parts + 1)."""
    owner = np.empty(int(bounds[-1, -1]), np.int64)
    for row in bounds:
        owner[row[0] : row[-1]] = np.repeat(np.arange(len(row) - 1), np.diff(row))
    return owner


def _positions(bounds: IntArray, part: int) -> tuple[IntArray, IntArray]:
    """Working positions of the strings of a part, and (n_labels + 1,) where those of every label begin."""
    ranges = [np.arange(row[part], row[part + 1]) for row in bounds]
    return np.concatenate(ranges), _starts([len(positions) for positions in ranges])


def _starts(counts: list[int] | IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
