"""Spin-flip symmetry C = +-C^T: from stored halves to whole ket blocks, and from half of the ket blocks to sigma.

Of each pair of mirrored elements one is stored, times sqrt(2); elements on the mirror line are stored as they are.
Whole blocks are exactly symmetric because every element is copied from its stored twin: the rounding that would grow
if a half-computed sigma met a vector that is symmetric only nearly has nowhere to enter. The same holds for half of the
ket blocks (`half_of_kets`): only stored elements of sigma are made, and the ket blocks left out are exact copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from sqd_mpi._jit import parallel_jit
from sqd_mpi.arrays import FloatArray, IntArray
from sqd_mpi.distribution.layout import Layout

_HALF = float(np.sqrt(0.5))
_ROWS = 32  # rows that a thread turns at a time: their cache lines stay in the first-level cache


@dataclass(frozen=True, eq=False)
class StoredBlock:
    """Where the stored elements of a block lie in the concatenation of its sub-blocks."""

    row: IntArray = field(repr=False)
    """(n,) row number in the whole block."""
    offset: IntArray = field(repr=False)
    """(n,) flat start."""
    stop: IntArray = field(repr=False)
    """(n,) number of elements."""
    label: IntArray = field(repr=False)
    """(n,) alpha label of the row."""
    column: IntArray = field(repr=False)
    """(n,) row number inside its label."""
    size: int
    """Number of stored elements."""

    @classmethod
    def create(cls, layout: Layout, ia: int, ib: int) -> StoredBlock:
        """The stored elements of block (ia, ib), row group after row group."""
        groups = [layout.bra_rows(ia, ir, ib) for ir in range(layout.grid[3])]
        starts = np.concatenate([[0], np.cumsum([group.stop.sum() for group in groups])]).astype(np.int64)
        row = np.concatenate([group.block_row for group in groups])
        _, label_start = layout.ket_rows(ia)
        label = np.searchsorted(label_start, row, side="right") - 1
        return cls(
            row,
            np.concatenate([group.offset + starts[k] for k, group in enumerate(groups)]),
            np.concatenate([group.stop for group in groups]),
            label.astype(np.int64),
            row - label_start[label],
            int(starts[-1]),
        )


class Unfolding:
    """Makes the whole block (ia, ib) from its stored half and that of the mirror block (ib, ia).

    Args:
        layout: with parity +1 or -1.
        ia: the block's range of alpha strings.
        ib: its range of beta strings.
    """

    own: StoredBlock
    """Stored elements of the block."""
    mirror: StoredBlock
    """Stored elements of its mirror block."""
    offset: IntArray
    """(n_rows,) where every row of the whole block begins."""
    first_row: IntArray
    """(mirror rows,) row of the whole block that the first element of a stored row goes to."""
    line: IntArray
    """(own rows,) column of the mirror line in every row, if it runs through the block; else empty."""

    def __init__(self, layout: Layout, ia: int, ib: int):
        self.parity = layout.parity
        self.own = StoredBlock.create(layout, ia, ib)
        self.mirror = self.own if ia == ib else StoredBlock.create(layout, ib, ia)
        self.offset = layout.ket_offsets(ia, ib)
        _, label_start = layout.ket_rows(ia)
        self.first_row = label_start[self.mirror.label ^ layout.sector]
        on_line = ia == ib and layout.sector == 0
        self.line = self.own.column if on_line else np.empty(0, np.int64)

    def unfold(self, own: FloatArray, mirror: FloatArray, whole: FloatArray, part: int = 0, n_parts: int = 1) -> None:
        """Fill the whole block, or one of several parts of it that several ranks fill at the same time.

        Args:
            own: (own.size,) stored elements of this block.
            mirror: (mirror.size,) those of the mirror block.
            whole: (block size,) filled.
            part: which part of the stored rows is copied.
            n_parts: of how many.
        """
        mine, half = _part_of_rows(self.own, part, n_parts), own.dtype.type(_HALF)
        target = self.offset[self.own.row[mine]]
        _place(own, self.own.offset[mine], self.own.stop[mine], target, half, whole)
        rows = _part_of_rows(self.mirror, part, n_parts)
        offset, stop, column = self.mirror.offset[rows], self.mirror.stop[rows], self.mirror.column[rows]
        _turn(
            mirror, offset, stop, self.first_row[rows], column, self.offset, half.dtype.type(self.parity * half), whole
        )
        if len(self.line):
            last = self.own.offset[mine] + self.own.stop[mine] - 1
            values = own[last] if self.parity > 0 else 0.0
            whole[target + self.line[mine]] = values


def _part_of_rows(block: StoredBlock, part: int, n_parts: int) -> slice:
    """Consecutive stored rows with one of n_parts equal parts of the stored elements."""
    if n_parts == 1:
        return slice(0, len(block.stop))
    total = np.cumsum(block.stop)
    cuts = np.searchsorted(total, block.size * np.arange(1, n_parts) / n_parts, side="right")
    edges = [0, *cuts, len(total)]
    return slice(int(edges[part]), int(edges[part + 1]))


@parallel_jit
def _place(stored, offset, stop, target, factor, whole):
    for row in numba.prange(offset.shape[0]):
        for j in range(stop[row]):
            whole[target[row] + j] = factor * stored[offset[row] + j]


@parallel_jit
def _turn(stored, offset, stop, first_row, column, row_offset, factor, whole):
    """Element j of stored row i goes to row first_row[i] + j, column column[i], of the whole block."""
    n_blocks = (offset.shape[0] + _ROWS - 1) // _ROWS
    for block in numba.prange(n_blocks):
        first, last = block * _ROWS, min((block + 1) * _ROWS, offset.shape[0])
        shortest, longest = stop[first], stop[first]
        alike = True  # rows of one label that become consecutive columns
        for row in range(first, last):
            shortest, longest = min(shortest, stop[row]), max(longest, stop[row])
            alike = alike and first_row[row] == first_row[first] and column[row] == column[first] + row - first

        # Eight elements of all rows at a time, to eight rows.
        done = np.int64(0)
        if alike:
            for j in range(0, shortest - 7, 8):
                at = first_row[first] + j
                a, b, c, d = row_offset[at], row_offset[at + 1], row_offset[at + 2], row_offset[at + 3]
                e, f, g, h = row_offset[at + 4], row_offset[at + 5], row_offset[at + 6], row_offset[at + 7]
                for row in range(column[first], column[first] + last - first):
                    source = offset[first + row - column[first]] + j
                    whole[a + row], whole[b + row] = factor * stored[source + 0], factor * stored[source + 1]
                    whole[c + row], whole[d + row] = factor * stored[source + 2], factor * stored[source + 3]
                    whole[e + row], whole[f + row] = factor * stored[source + 4], factor * stored[source + 5]
                    whole[g + row], whole[h + row] = factor * stored[source + 6], factor * stored[source + 7]
                done = j + 8
        for j in range(done, longest):
            for row in range(first, last):
                if j < stop[row]:
                    whole[row_offset[first_row[row] + j] + column[row]] = factor * stored[offset[row] + j]
