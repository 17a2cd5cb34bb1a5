"""Memory that the ranks of a node share: arrays that all read, and blocks that all read and write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.distribution.ranks import MpiRanks, Ranks

# Where MPI libraries keep shared memory, and how much of what is free there may be taken: a file system that fills up
# kills a process at the next write, without a message.
_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_SHARE = 0.8
_SHARED_PIECE = 2**27  # numbers of one message


def free_shared_memory() -> int:
    """Bytes of shared memory that this node has left; 0 where it is not known."""
    try:
        state = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return 0
    return state.f_bavail * state.f_frsize


class NodeShared:
    """Arrays of rank 0 as every rank reads them, one copy on each node.

    Collective over the ranks at construction and in `free`.

    Args:
        ranks: several ranks.
        arrays: float64 arrays of rank 0, of any shapes; what other ranks give does not matter.
    """

    arrays: list[NDArray[np.float64]]
    """The same arrays, in memory that the ranks of a node share."""

    def __init__(self, ranks: MpiRanks, arrays: Sequence[NDArray[np.float64]] | None):
        from mpi4py import MPI

        mine = arrays if ranks.rank == 0 and arrays is not None else ()
        shapes = ranks.broadcast([array.shape for array in mine])
        sizes = [int(np.prod(shape)) for shape in shapes]
        self._node = ranks.split_node()
        leads = self._node.rank == 0
        leaders = ranks.comm.Split(0 if leads else MPI.UNDEFINED, ranks.rank)
        self._window = MPI.Win.Allocate_shared(8 * sum(sizes) if leads else 0, 8, comm=self._node.comm)
        memory = np.frombuffer(cast("Any", self._window.Shared_query(0)[0]), np.float64)
        parts = np.split(memory, np.cumsum(sizes))[:-1]
        self.arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self._window.Fence()
        if leads:
            for k, array in enumerate(self.arrays):
                if ranks.rank == 0:
                    array[...] = mine[k]
                for piece in np.array_split(array.reshape(-1), -(-array.size // _SHARED_PIECE) or 1):
                    leaders.Bcast(piece)
            leaders.Free()
        self._window.Fence()  # what the leader wrote is seen by all

    def free(self) -> None:
        """Give the memory back; the arrays must not be used any more."""
        self.arrays = []
        self._window.Free()
        self._node.free()


class NodeBlocks:
    """Blocks of the ranks of one node in memory that all of them read and write: an MPI shared-memory window.

    Between writing by some ranks and reading by others all must pass a `fence`.

    Collective over the node at construction and in `fence` and `free`.

    Args:
        node: the ranks of the node.
        places: block coordinates (ia, ib) of each of them; the first rank of a place provides the memory.
        size: number of elements that this rank provides.
        dtype: their type.
    """

    def __init__(self, node: MpiRanks, places: list[tuple[int, int]], size: int, dtype: Any = np.float64):
        from mpi4py import MPI

        self._node, self.nbytes = node, np.dtype(dtype).itemsize * size
        self._window = MPI.Win.Allocate_shared(self.nbytes, 8, comm=node.comm)
        self._window.Lock_all()
        self.blocks: dict[tuple[int, int], NDArray[Any]] = {}
        for rank, place in enumerate(places):
            if place not in self.blocks:
                memory: Any = self._window.Shared_query(rank)[0]
                self.blocks[place] = np.frombuffer(memory, dtype) if len(memory) else np.empty(0, dtype)

    @classmethod
    def where_they_fit(
        cls, ranks: Ranks, node: MpiRanks, places: list[tuple[int, int]], size: int, dtype: Any = np.float64
    ) -> NodeBlocks | None:
        """Blocks on all nodes, or on none if one has not enough room. Collective over the ranks.

        Args:
            ranks: those of all nodes.
            node: the ranks of the node.
            places: block coordinates (ia, ib) of each of them.
            size: number of elements of this rank's block.
            dtype: their type.
        """
        provided = size if places.index(places[node.rank]) == node.rank else 0
        needed = node.sum(np.array([float(np.dtype(dtype).itemsize) * provided]))[0]
        too_large = needed > _SHARED_MEMORY_SHARE * free_shared_memory()
        return None if ranks.maximum(np.array([too_large], np.int64))[0] else cls(node, places, provided, dtype)

    def fence(self) -> None:
        """Return when all ranks of the node are here; what they wrote before is visible after."""
        self._window.Sync()
        self._node.barrier()
        self._window.Sync()

    def free(self) -> None:
        """Give the memory back; the arrays must not be used any more."""
        self.blocks.clear()
        self._node.barrier()
        self._window.Unlock_all()
        self._window.Free()
