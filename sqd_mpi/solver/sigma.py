"""The sigma operator: H applied to a vector that is distributed over the process grid.

The operator hides the distribution from the eigensolver, which sees a vector space: local slices, `matvec`,
`diagonal`, `sum_over_ranks`. One `matvec` collects this rank's block from the replicas' slices, walks through the
rank's tasks while ket blocks slide in, adds the partial results over the task groups and leaves each rank its slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import process_time
from typing import Any

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import SigmaBlock, Task
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.solver.tasks import TaskPlan
from sqd_mpi.timing import Timed, Timers, in_phase


class SigmaOperator:
    """One interaction in one sector on a process grid.

    Collective over the grid at construction and in `matvec`.

    Args:
        grid: the process grid.
        layout: ownership of the vector; equal on all ranks.
        block: this rank's share, made by a backend.
        interaction: what is applied.
        timers: accumulates the seconds of each phase, or None.
        memory: where vectors, blocks and partial sums live; that of the backend which made the block.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, interaction: Interaction,
        timers: Timers | None = None, memory: Memory = HOST,
    ):  # fmt: skip
        self.grid = grid
        self.layout = layout
        self.memory = memory
        self.block = block
        self.interaction = interaction
        self.timers = timers if timers is not None else Timers()
        self.rough_memory: Memory | None = None
        self.plan = self._plan(memory)
        self.vectors: Any = Timed(memory.vectors, self.timers, "vectors")
        self.task_seconds = 0.0  # processor time of all threads of this rank in its tasks
        self._diagonal = self._diagonal_of(interaction)

    def _plan(self, memory: Memory) -> TaskPlan:
        return TaskPlan(self.grid, self.layout, self.block, self.interaction, memory, self.timers)

    def _use(self, memory: Memory) -> None:
        """Have blocks, messages and sums in a memory from now on. Collective over the grid."""
        if self.plan.memory is not memory:
            with self.timers("structure"):
                self.plan.free()
                self.plan = self._plan(memory)

    @property
    def rough(self) -> bool:
        """Whether `matvec` works in single precision."""
        return self.rough_memory is not None

    @property
    def size(self) -> int:
        """Number of vector elements on this rank."""
        return self.layout.slice_size(*self.grid.coordinates)

    @property
    def dimension(self) -> int:
        """Number of vector elements in all."""
        return self.layout.dimension

    def diagonal(self) -> Array:
        """This rank's slice of the diagonal, in hartree (or units of the interaction)."""
        return self._diagonal

    def lowest_diagonal(self, count: int) -> FloatArray:
        """(count,) lowest elements of the diagonal of all ranks, ascending, infinite where there are no more."""
        mine = self.memory.smallest(self.diagonal(), count)[1]
        everybody = self.grid.gather_everywhere(mine)
        return np.sort(np.append(everybody, np.full(count, np.inf)))[:count]

    def _diagonal_of(self, interaction: Interaction) -> Array:
        out = self.memory.empty(self.size)
        self.block.diagonal(interaction, out)
        return out

    @in_phase("reduce")
    def sum_over_ranks(self, values: FloatArray) -> None:
        """Add small arrays over all ranks, in place. Collective over the grid."""
        self.grid.sum_over_all(values)

    @in_phase("sigma")
    def matvec(self, vector: Array, out: Array) -> None:
        """out = H vector, both (size,) slices of this rank, in its memory. Collective over the grid.

        Where `rough_memory` is set, what is not on the diagonal is multiplied and summed there, in single precision.
        """
        self._use(self.rough_memory or self.memory)
        self._matvec(vector, out)

    @in_phase("sigma")
    def exact(self, vector: Array, out: Array) -> None:
        """out = H vector as `matvec`, always in double precision. Collective over the grid."""
        self._use(self.memory)
        self._matvec(vector, out)

    def purify(self, vector: Array, scratch: Sequence[Array] = (), exact: bool = True) -> float:
        """Take out what a vector should not have: here nothing; see `krylov_parts.Operator`."""
        return 1.0

    def _matvec(self, vector: Array, out: Array) -> None:
        self._apply(self.interaction, self._diagonal, vector, out)

    def _apply(self, interaction: Interaction, diagonal: Array, vector: Array, out: Array) -> None:
        """out = interaction vector, for any interaction whose connections are among the planned ones."""
        plan = self.plan
        own, sigma = plan.collect(vector), plan.cleared(out)
        for task, ket in plan.tasks_with_kets(own):
            self._do(task, interaction, ket, sigma)
        plan.add_mirrored(sigma)
        plan.scatter(sigma, out)
        plan.finish(diagonal, vector, out)

    def _do(self, task: Task, interaction: Interaction, ket: Array, sigma: Array) -> None:
        began = process_time()
        with self.timers(task.kind, da=task.da, db=task.db):
            self.block.apply(task, ket, sigma, interaction)
        self.task_seconds += process_time() - began

    def moments(self, vector: Array, work: Array) -> tuple[float, float]:
        """<v|V|v> and <v|V V|v> of a normalised vector; `work` (size,) is overwritten. Collective over the grid."""
        self.matvec(vector, work)
        values = np.array([self.memory.vectors.dot(each, work) for each in (vector, work)])
        self.sum_over_ranks(values)
        return float(values[0]), float(values[1])
