"""Half of the ket blocks of a block on the mirror line, and the sum that stands for both halves."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np

from sqd_mpi._jit import parallel_jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import Task
from sqd_mpi.distribution.layout import BraRows, Layout, stands_for_mirror_image

_ROWS = 32  # rows that a thread turns at a time: their cache lines stay in the first-level cache


def half_of_kets(layout: Layout, ia: int, ib: int, tasks: list[Task]) -> list[Task]:
    """The tasks of a block that have to be done: on the mirror line one of each two that are mirror images.

    H does not change when the spins are exchanged. So where a block is its own mirror image, the task with ket block
    (ia + db, ib + da) gives, but for the parity, the transpose of what that with (ia + da, ib + db) gives: the latter,
    marked as mirrored, stands for both. All kinds of tasks with a ket block go together.

    Args:
        layout: of the sector.
        ia, ib: the block.
        tasks: all tasks of the block.
    """
    if not layout.meets_half_of_kets(ia, ib):
        return tasks
    return [
        replace(task, mirrored=stands_for_mirror_image(task.da, task.db))
        for task in tasks
        if not stands_for_mirror_image(task.db, task.da)
    ]


class MirroredSum:
    """What the mirrored tasks of a block on the mirror line give, whole, until it is folded into stored elements.

    Args:
        layout: with parity +1 or -1 and one row group.
        ia: alpha block, and beta block.
    """

    bra: BraRows
    """All rows of the block with all their columns."""
    sigma: FloatArray
    """(block size,) flat sum."""

    def __init__(self, layout: Layout, ia: int) -> None:
        self.stored = layout.bra_rows(ia, 0, ia)
        self.bra = self.stored.with_all_columns()
        self.sigma = np.zeros(layout.block_size(ia, ia))
        self._parity = layout.parity

    @classmethod
    def of_tasks(cls, layout: Layout, ia: int, tasks: list[Task]) -> MirroredSum | None:
        """Room for the mirrored ones of the tasks of a rank, or None if there are none."""
        return cls(layout, ia) if any(task.mirrored for task in tasks) else None

    @property
    def nbytes(self) -> int:
        """Bytes of the sum."""
        return self.sigma.nbytes

    def like(self, sigma: FloatArray) -> FloatArray:
        """The flat sum, with elements of the type of sigma."""
        if self.sigma.dtype != sigma.dtype:
            self.sigma = np.zeros(self.sigma.shape, sigma.dtype)
        return self.sigma

    def fold(self, sigma: FloatArray) -> None:
        """Add the sum and its mirror image to sigma, (stored elements,), and begin anew."""
        _fold(
            self.sigma, self.stored.label_start, self.bra.offset, self.stored.offset, self.stored.stop,
            sigma.dtype.type(self._parity), sigma,
        )  # fmt: skip


@parallel_jit
def _fold(whole, label_start, whole_offset, offset, stop, parity, sigma):
    """sigma[i, j] += S[i, j] + parity S[j, i] for the stored j < stop[i] of every label's square; then S = 0.

    Pair after pair of mirrored tiles, which stay in the first-level cache.
    """
    for label in range(label_start.size - 1):
        start = label_start[label]
        end = label_start[label + 1]
        n_strips = (end - start + _ROWS - 1) // _ROWS
        for turn in numba.prange(n_strips):
            # Short and long rows in turn, for equal work of the threads.
            strip = turn // 2 if turn % 2 == 0 else n_strips - 1 - turn // 2
            low, high = start + strip * _ROWS, min(start + (strip + 1) * _ROWS, end)
            for left in range(start, high, _ROWS):
                right = min(left + _ROWS, end)
                for i in range(low, high):
                    row, column = whole_offset[i] - start, i - start
                    for j in range(left, min(right, start + stop[i])):
                        turned = whole[whole_offset[j] + column]
                        sigma[offset[i] + j - start] += whole[row + j] + parity * turned
                for i in range(low, high):
                    whole[whole_offset[i] + left - start : whole_offset[i] + right - start] = 0.0
                for j in range(left, right):
                    whole[whole_offset[j] + low - start : whole_offset[j] + high - start] = 0.0
