"""The process grid: ownership of coordinates, sums and exchanges over its parts.

Ranks form a grid (a, b, t, r). World rank = ((ia b + ib) r + ir) t + it, so replicas of a block are neighbours
(on a node, with the usual placement). Three groups of them: *layer* (one replica of every block: fixed it, ir),
*replicas* (all replicas of one block) and *task_groups* (the t replicas of one sub-block).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import Shape
from sqd_mpi.distribution.node_memory import NodeBlocks
from sqd_mpi.distribution.ranks import MpiRanks, Ranks, ranks_of
from sqd_mpi.errors import InputError

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks


class Coordinates(NamedTuple):
    """Place of a rank in the grid."""

    ia: int
    """Range of alpha strings."""
    ib: int
    """Range of beta strings."""
    it: int
    """Task group."""
    ir: int
    """Row group."""


class ProcessGrid:
    """An (a, b, t, r) arrangement of the ranks of one communicator.

    Collective over the ranks at construction and in `node_blocks`.

    Args:
        ranks: a b t r ranks, or their communicator.
        shape: (a, b, t, r).
        share_blocks: whether ranks of one node may read each other's blocks in place (`node_blocks`).

    Raises:
        InputError: the shape does not fit the number of ranks.
    """

    def __init__(self, ranks: SomeRanks, shape: Shape, share_blocks: bool = True):
        self.ranks = ranks_of(ranks)
        self.n_ranks, self.rank, self.shape = self.ranks.size, self.ranks.rank, shape
        if int(np.prod(shape)) != self.n_ranks or min(shape) < 1:
            text = ",".join(str(n) for n in shape)
            raise InputError(f"--grid {text} needs {int(np.prod(shape))} ranks; this run has {self.n_ranks}")
        self.coordinates = self.coordinates_of(self.rank)

        a, b, t, r = shape
        here = self.coordinates
        block = here.ia * b + here.ib
        self.layer = self._part(a * b, here.ir * t + here.it, block)
        self.replicas = self._part(t * r, block, here.ir * t + here.it)
        self.task_groups = self._part(t, block * r + here.ir, here.it)
        self.node = self._node() if share_blocks else None

    def _part(self, size: int, color: int, key: int) -> Ranks:
        """The ranks of the same color, of which there are `size`, in the order of their keys."""
        return self.ranks.split(color, key) if isinstance(self.ranks, MpiRanks) and size > 1 else Ranks()

    def _node(self) -> MpiRanks | None:
        """The ranks of this node, if every block has all its replicas on one node and some node has several ranks."""
        node = self.ranks.split_node()
        _, _, t, r = self.shape
        mine = self.rank // (t * r)
        together = node.gather_objects(mine).count(mine) == t * r
        apart, several = self.ranks.maximum(np.array([not together, node.size > 1], np.int64))
        if several and not apart:
            assert isinstance(node, MpiRanks)
            return node
        node.free()
        return None

    def node_blocks(self, size: int, dtype: Any = np.float64) -> NodeBlocks | None:
        """Memory for one block of every place (ia, ib) on this node, which all its ranks can read and write.

        None where blocks are not shared: one rank a node, replicas of a block on several nodes, or not enough room for
        shared memory.

        Args:
            size: number of elements of this rank's block.
            dtype: their type.
        """
        if self.node is None:
            return None
        places = self.node.gather_objects((self.coordinates.ia, self.coordinates.ib))
        return NodeBlocks.where_they_fit(self.ranks, self.node, places, size, dtype)

    def coordinates_of(self, rank: int) -> Coordinates:
        """Coordinates of any rank."""
        _, b, t, r = self.shape
        block, replica = divmod(rank, r * t)
        return Coordinates(ia=block // b, ib=block % b, it=replica % t, ir=replica // t)

    def sum_over_all(self, values: NDArray[np.float64]) -> None:
        """Add an array of any shape over all ranks, in place. Collective over the grid."""
        self.ranks.sum(values)

    def maximum_over_all(self, values: NDArray[Any]) -> None:
        """Elementwise maximum of an array of any shape over all ranks, in place. Collective over the grid."""
        self.ranks.maximum(values)

    def gather_everywhere(self, values: NDArray[Any]) -> NDArray[Any]:
        """Concatenate small arrays (of unequal length along axis 0) of all ranks on all ranks. Collective."""
        return np.concatenate(self.ranks.gather_objects(values))

    def collect_slices(self, mine: NDArray[np.float64], whole: NDArray[np.float64], counts: list[int]) -> None:
        """Put the slices of all replicas of this block together on each of them. Collective over the replicas.

        Args:
            mine: (slice size,) slice of this rank.
            whole: (block size,) the block, filled on return.
            counts: sizes of the slices in replica order (ir, it).
        """
        self.replicas.put_together(mine, whole, counts)

    def swap_with_mirror(self, mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
        """Exchange stored halves, (n,) and (m,), with the rank of the mirror block. Collective over the layer."""
        here = self.coordinates
        assert here.ia != here.ib, "a diagonal block is its own mirror"
        self.layer.swap(mine, theirs, here.ib * self.shape[1] + here.ia)

    def scatter_sum(self, partial: NDArray[np.float64], mine: NDArray[np.float64], counts: list[int]) -> None:
        """Add the t partial sub-blocks, (sub-block size,), and leave each task group its slice, (slice size,).

        Collective over the task groups.
        """
        self.task_groups.scatter_sum(partial, mine, counts)

    def free(self) -> None:
        """Give the communicators back."""
        for part in (self.layer, self.replicas, self.task_groups, self.node):
            if part is not None:
                part.free()
