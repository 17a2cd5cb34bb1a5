"""The bra rows of a block on the device, where the rows of its ket blocks lie, and thread blocks of a launch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sqd_mpi.arrays import IntArray, Place
from sqd_mpi.backends.cpu import lists
from sqd_mpi.backends.gpu.device import Device, DeviceArray
from sqd_mpi.distribution.layout import Layout

COLUMNS = 4  # bra columns of a thread, as in sigma.cu


@dataclass(frozen=True, eq=False)
class Blocks:
    """Thread blocks of a launch: the arrays that say which row and stretch of columns each has."""

    arrays: tuple[DeviceArray, ...] = field(repr=False)
    n_blocks: int
    n_threads: int


class BlockRows:
    """Rows of one rank's block of one sector.

    Args:
        device: the rank's device.
        layout: of the sector.
        place: (ia, ib, it, ir).
    """

    def __init__(self, device: Device, layout: Layout, place: Place):
        self.device, self.layout = device, layout
        self.ia, self.ib, _, self.ir = place
        self.bra = layout.bra_rows(self.ia, self.ir, self.ib)
        self.label = np.repeat(np.arange(layout.n_labels), np.diff(self.bra.label_start))
        """(n_rows,) alpha label of every row; `offset`, `stop` and `label_there` are on the device."""
        self.offset, self.stop = device.upload(self.bra.offset), device.upload(self.bra.stop)
        self.label_there = device.upload(self.label.astype(np.int32))
        occupied = lists.diagonal_pairs(layout.alpha.strings[self.bra.alpha])
        self.alpha_pair, self.n_alpha = device.upload(occupied), occupied.shape[1]
        """(n_rows, n_alpha) pair(p, p) of the occupied orbitals of every row, on the device; and n_alpha."""
        self._ket_offset: dict[tuple[int, int], tuple[IntArray, DeviceArray]] = {}
        self._own_offset: dict[int, DeviceArray] = {}

    def ket_offsets(self, da: int, db: int) -> tuple[IntArray, DeviceArray]:
        """Flat offset of every row of the ket block at a shift, on the host and on the device."""
        key = self.ket_block(da, db)
        if key not in self._ket_offset:
            offsets = self.layout.ket_offsets(*key)
            self._ket_offset[key] = offsets, self.device.upload(offsets)
        return self._ket_offset[key]

    def ket_block(self, da: int, db: int) -> tuple[int, int]:
        """(ja, jb) of a shift."""
        a, b, _, _ = self.layout.grid
        return (self.ia + da) % a, (self.ib + db) % b

    def own_offsets(self, db: int) -> IntArray:
        """(n_rows,) flat offset of the bra rows in the ket block (ia, ib + db)."""
        return self.ket_offsets(0, db)[0][self.bra.block_row]

    def own_offsets_there(self, db: int) -> DeviceArray:
        """The same on the device."""
        if db not in self._own_offset:
            self._own_offset[db] = self.device.upload(self.own_offsets(db))
        return self._own_offset[db]

    def ket_stretches(self, da: int, label: int) -> list[tuple[int, int, int]]:
        """Ket rows of a label in block (ia + da, ib), cut where they do not lie next to each other.

        Returns:
            first and last (excluded) row, counted from the label's first, and the flat offset of the first.
        """
        _, start = self.layout.ket_rows(self.ket_block(da, 0)[0])
        offsets = self.ket_offsets(da, 0)[0][start[label] : start[label + 1]]
        stretches = contiguous(offsets, int(self.layout.row_lengths(self.ib)[label]))
        return [(first, last, int(offsets[first])) for first, last in stretches]

    def n_threads(self, stop: IntArray, most: int) -> int:
        """Threads of a block: enough for the longest row at COLUMNS each, in steps of 64."""
        wanted = -(-int(stop.max(initial=1)) // COLUMNS)
        return min(-(-wanted // 64) * 64, most, self.device.limits.threads)


def contiguous(offsets: IntArray, length: int) -> list[tuple[int, int]]:
    """First and last (excluded) of rows of a length that follow each other without a gap."""
    if len(offsets) == 0:
        return []
    edges = [0, *(np.flatnonzero(np.diff(offsets) != length) + 1).tolist(), len(offsets)]
    return list(zip(edges[:-1], edges[1:], strict=True))


@dataclass(frozen=True, eq=False)
class AlphaSide:
    """The bra rows and alpha singles of a mixed task, as kernels want them."""

    offset: DeviceArray
    """(rows,) flat start of every bra row of the sub-block."""
    stop: DeviceArray
    """(rows,) columns of every row."""
    label: DeviceArray
    """(rows,) label of every row."""
    ket_offset: DeviceArray
    """(ket rows,) flat start of every row of the ket block."""
    first_row: int
    """Of the task."""
    start: DeviceArray
    """Where the singles of a row and label of orbital pairs begin; this and the next three as `lists.AlphaLists`."""
    ket: DeviceArray
    """(singles,) ket row, sorted by orbital pair."""
    pair: DeviceArray
    """(singles,) orbital pair."""
    sign: DeviceArray
    """(singles,) sign."""
    n_labels: int
    """Of the layout."""
    sector: int
    """Of the layout."""
