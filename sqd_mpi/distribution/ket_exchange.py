"""The slides of ket blocks from rank to rank while one sigma is computed."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import MpiRanks


class KetExchange:
    """The slides of one sigma: which ket blocks this rank receives, in which order, and to whom it sends its own.

    Planned once; each sigma then starts two lists of persistent requests. All sends leave from the same buffer (this
    rank's own block), receives alternate between two buffers: the next block travels while this one is used. Blocks
    that this rank can read in place do not travel; they come first, and give the others time.

    Collective over the layer at construction.

    Args:
        grid: the process grid.
        needed: (ja, jb) of the ket blocks this rank needs, in order of use; its own block may be among them.
        sizes: number of elements of every block, (a, b) int64.
        own: (own size,) flat buffer with this rank's own block.
        present: (size,) of blocks that this rank can read in place.
        buffers: what blocks arrive in: `empty(n)` makes a buffer, `message(buffer)` is what MPI is given for it;
            by default arrays in host memory.
    """

    def __init__(
        self,
        grid: ProcessGrid,
        needed: list[tuple[int, int]],
        sizes: NDArray[np.int64],
        own: NDArray[np.float64],
        present: Mapping[tuple[int, int], NDArray[np.float64]] | None = None,
        buffers: Any = None,
    ):
        # Which blocks come from elsewhere: those that can be read in place first, then those that travel.
        _, b, _, _ = grid.shape
        here = grid.coordinates
        readable = present if present is not None else {}
        others = [key for key in needed if key != (here.ia, here.ib) and sizes[key] > 0]
        travelling = [key for key in others if key not in readable]
        self.remote = [key for key in others if key in readable] + travelling
        self._present = [readable[key] for key in others if key in readable]

        # Two buffers, in which the travelling ones arrive in turn.
        empty = np.empty if buffers is None else buffers.empty
        self._sources = [ja * b + jb for ja, jb in travelling]
        self._sizes = [int(sizes[key]) for key in travelling]
        capacity = max(self._sizes, default=0)
        self._buffers: list[NDArray[Any]] = [empty(capacity) for _ in range(min(2, len(travelling)))]
        self._started = [0.0] * len(travelling)
        element = self._buffers[0].nbytes // capacity if self._buffers else 0
        self.bytes_received = element * sum(self._sizes)

        # Persistent requests, once every rank has heard who wants its block.
        self._sends: list[Any] = []
        self._receives: list[Any] = []
        if not isinstance(grid.layer, MpiRanks):
            return
        self._layer, comm = grid.layer, grid.layer.comm
        wanted = np.zeros(comm.size, np.uint8)
        wanted[self._sources] = 1
        wants_mine = np.empty_like(wanted)
        comm.Alltoall(wanted, wants_mine)
        for destination in np.flatnonzero(wants_mine):
            self._sends.append(comm.Send_init(own, dest=int(destination)))
        for k, source in enumerate(self._sources):
            block: Any = self._buffers[k % 2][: self._sizes[k]]
            message = block if buffers is None else buffers.message(block)
            self._receives.append(comm.Recv_init(message, source=source))

    @property
    def n_received(self) -> int:
        """Number of blocks that travel to this rank; those that it reads in place do not count."""
        return len(self._sizes)

    @property
    def sends(self) -> bool:
        """Whether any rank receives this rank's own block."""
        return bool(self._sends)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers of what travels."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def start(self) -> None:
        """Begin all sends and the first two receives; the own block must be complete."""
        if self._sends:
            from mpi4py import MPI

            MPI.Prequest.Startall(self._sends)
        for k in range(min(2, len(self._receives))):
            self._receive(k)

    def wait(self, k: int) -> NDArray[np.float64]:
        """The k-th remote ket block, once it has arrived. Valid until `release(k)`."""
        if k < len(self._present):
            return self._present[k]
        k -= len(self._present)
        self._layer.wait_for_all([self._receives[k]])
        block: NDArray[Any] = self._buffers[k % 2][: self._sizes[k]]
        return block

    def started(self, k: int) -> float | None:
        """When the k-th remote block began to travel last, in seconds of perf_counter; None if it does not travel."""
        return self._started[k - len(self._present)] if k >= len(self._present) else None

    def release(self, k: int) -> None:
        """Say that the k-th block is used up: its buffer takes the block after the next."""
        k -= len(self._present)
        if 0 <= k < len(self._receives) - 2:
            self._receive(k + 2)

    def _receive(self, k: int) -> None:
        self._started[k] = perf_counter()
        self._receives[k].Start()

    def finish(self) -> None:
        """Wait until all sends are done; then the own block may change."""
        if self._sends:
            self._layer.wait_for_all(self._sends)

    def free(self) -> None:
        """Release the persistent requests."""
        for request in self._sends + self._receives:
            request.Free()
        self._sends, self._receives = [], []
