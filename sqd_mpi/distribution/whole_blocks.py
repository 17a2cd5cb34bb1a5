"""Whole blocks from the slices of all replicas and, with spin-flip symmetry, from stored halves."""

from __future__ import annotations

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid


class MirrorExchange:
    """The messages that make whole blocks from stored halves, with spin-flip symmetry.

    Collective over the grid at construction.

    Args:
        grid: the process grid, a = b.
        layout: with parity +1 or -1.
        memory: where slices and whole blocks live.
        shared: whether the ranks of a node fill one whole block together, each replica a part of its rows.
    """

    def __init__(self, grid: ProcessGrid, layout: Layout, memory: Memory = HOST, shared: bool = False):
        self.grid = grid
        here = grid.coordinates
        _, _, t, r = grid.shape
        self._unfolding = memory.unfolding(layout, here.ia, here.ib)
        self._counts = layout.replica_counts(here.ia, here.ib)
        number = here.ir * t + here.it
        self._start = sum(self._counts[:number])
        self._part = (number, t * r) if shared else ()
        self._shared = grid.node_blocks(self._unfolding.own.size, memory.dtype) if shared else None
        halves = self._shared.blocks if self._shared is not None else {}
        self._own: Array = halves.get((here.ia, here.ib))
        self._mirror: Array = halves.get((here.ib, here.ia)) if here.ia != here.ib else None
        self._mirror_is_here = self._mirror is not None
        if self._own is None and grid.replicas.size > 1:
            self._own = memory.empty(self._unfolding.own.size)
        if self._mirror is None and here.ia != here.ib:
            self._mirror = memory.empty(self._unfolding.mirror.size)
        self._slice_port = memory.port(self._counts[number])
        self._own_port = memory.port(self._unfolding.own.size)
        self._mirror_port = memory.port(self._unfolding.mirror.size)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the stored halves that are put together here; shared memory counts on the rank that provides it."""
        own = self._own.nbytes if self._own is not None else 0
        if self._shared is not None:
            own = self._shared.nbytes
        return own + (self._mirror.nbytes if self._mirror is not None and not self._mirror_is_here else 0)

    @property
    def mirror_size(self) -> int:
        """Number of elements that the mirror block's rank sends."""
        return 0 if self._mirror is None or self._mirror_is_here else self._mirror.size

    def unfold(self, vector: Array, whole: Array) -> None:
        """The whole block of this rank, or its part of a shared one, from the slices of all replicas.

        Collective over the grid.

        Args:
            vector: (slice size,) slice of this rank.
            whole: (block size,) filled.
        """
        own = vector
        if self._shared is not None and self._own is not None:
            own = self._own
            own[self._start : self._start + vector.size] = vector
            self._shared.fence()
        elif self._own is not None:
            own = self._own
            mine = self._slice_port.sending(vector)
            self.grid.collect_slices(mine, self._own_port.receiving(own), self._counts)
            self._own_port.received(own)
        mirror = own
        if self._mirror is not None:
            mirror = self._mirror
            if not self._mirror_is_here:
                self.grid.swap_with_mirror(self._own_port.sending(own), self._mirror_port.receiving(mirror))
                self._mirror_port.received(mirror)
        self._unfolding.unfold(own, mirror, whole, *self._part)

    def free(self) -> None:
        """Release the shared memory. Collective over the grid."""
        self._own = self._mirror = None
        if self._shared is not None:
            self._shared.free()


def whole_block(grid: ProcessGrid, layout: Layout, vector: FloatArray) -> FloatArray:
    """The whole block of this rank, (block size,), from the slices of a vector. Collective over the grid."""
    here = grid.coordinates
    whole = np.empty(layout.block_size(here.ia, here.ib))
    if layout.parity:
        MirrorExchange(grid, layout).unfold(vector, whole)
    else:
        grid.collect_slices(vector, whole, layout.replica_counts(here.ia, here.ib))
    return whole
