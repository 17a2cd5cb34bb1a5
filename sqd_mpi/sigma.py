"""The sigma operator: H applied to a vector that is distributed over the process grid.

The operator hides the distribution from the eigensolver, which sees a vector space: local slices, `matvec`,
`diagonal`, `sum_over_ranks`. One `matvec` collects this rank's block from the replicas' slices, walks through the
rank's tasks while ket blocks slide in, adds the partial results over the task groups and leaves each rank its slice.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from time import process_time
from typing import Any

import numpy as np

from sqd_mpi.backends import FloatArray, Interaction, SigmaBlock, Task, vectors
from sqd_mpi.backends.mirror import Unfolding
from sqd_mpi.grid import KetExchange, ProcessGrid
from sqd_mpi.layout import Layout
from sqd_mpi.log import Timed, Timers

# A task is cut between two task groups only where both pieces are larger than this part of a group's share.
_LEAST_CUT = 0.02


class SigmaOperator:
    """One interaction in one sector on a process grid.

    Collective over the grid at construction and in `matvec`.

    Args:
        grid: the process grid.
        layout: ownership of the vector; equal on all ranks.
        block: this rank's share, made by a backend.
        interaction: what is applied.
        timers: accumulates the seconds of each phase, or None.
    """

    def __init__(
        self,
        grid: ProcessGrid,
        layout: Layout,
        block: SigmaBlock,
        interaction: Interaction,
        timers: Timers | None = None,
    ):
        self.grid = grid
        self.layout = layout
        self.block = block
        self.interaction = interaction
        self.timers = timers if timers is not None else Timers()
        self.plan = TaskPlan(grid, layout, block, interaction)
        self.vectors: Any = Timed(vectors, self.timers, "vectors")
        self.n_sigma = 0
        self.task_seconds = 0.0  # processor time of all threads of this rank in its tasks
        self._diagonal = np.empty(self.size)
        block.diagonal(interaction, self._diagonal)

    @property
    def size(self) -> int:
        """Number of vector elements on this rank."""
        here = self.grid.coordinates
        return self.layout.slice_size(here.ia, here.ib, here.it, here.ir)

    @property
    def dimension(self) -> int:
        """Number of vector elements in all."""
        return self.layout.dimension

    def diagonal(self) -> FloatArray:
        """This rank's slice of the diagonal, in hartree (or units of the interaction)."""
        return self._diagonal

    def sum_over_ranks(self, values: FloatArray) -> None:
        """Add small arrays over all ranks, in place. Collective over the grid."""
        with self.timers("reduce"):
            self.grid.sum_over_all(values)

    def matvec(self, vector: FloatArray, out: FloatArray) -> None:
        """out = H vector, both (size,) slices of this rank. Collective over the grid."""
        with self.timers("sigma"):
            self._matvec(vector, out)
        self.n_sigma += 1

    def _matvec(self, vector: FloatArray, out: FloatArray) -> None:
        plan = self.plan
        with self.timers("collect"):
            own = plan.collect(vector)
        sigma = out if plan.sigma is None else plan.sigma
        with self.timers("vectors"):
            sigma[:] = 0.0
        plan.exchange.start()
        for task in plan.own_tasks:
            self._apply(task, own, sigma)
        for k, tasks in enumerate(plan.remote_tasks):
            with self.timers("wait"):
                ket = plan.exchange.wait(k)
            da, db = tasks[0].da, tasks[0].db
            self.timers.beside("slide", plan.exchange.started[k], da=da, db=db, bytes=ket.nbytes)
            for task in tasks:
                self._apply(task, ket, sigma)
            plan.exchange.release(k)
        with self.timers("wait"):
            plan.exchange.finish()
        with self.timers("scatter"):
            self.grid.scatter_sum(sigma, out, plan.task_group_counts)
        with self.timers("vectors"):
            plan.finish(self._diagonal, vector, out)

    def _apply(self, task: Task, ket: FloatArray, sigma: FloatArray) -> None:
        began = process_time()
        with self.timers(task.kind, da=task.da, db=task.db):
            self.block.apply(task, ket, sigma, self.interaction)
        self.task_seconds += process_time() - began

    def expectation(self, vector: FloatArray, work: FloatArray) -> float:
        """<v|V|v> of a normalised vector; `work` (size,) is overwritten. Collective over the grid."""
        self.matvec(vector, work)
        value = vectors.gram(vector[None, :], work[None, :])
        self.sum_over_ranks(value)
        return float(value[0, 0])


class TaskPlan:
    """Which tasks this rank does in which order, with the buffers for them. Planned once, run many times.

    Collective over the grid at construction.
    """

    def __init__(self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, interaction: Interaction):
        self.grid, self.layout = grid, layout
        a, b, t, _ = grid.shape
        here = grid.coordinates
        self.tasks = assign(block, block.tasks(interaction), t)[here.it]
        block.prepare(self.tasks)
        by_ket: dict[tuple[int, int], list[Task]] = {}
        for task in sorted(self.tasks, key=lambda task: (task.da, task.db)):
            by_ket.setdefault(((here.ia + task.da) % a, (here.ib + task.db) % b), []).append(task)
        self.own_tasks = by_ket.get((here.ia, here.ib), [])
        sizes = np.array([[layout.block_size(ia, ib) for ib in range(b)] for ia in range(a)], np.int64).reshape(a, b)
        self._replica_counts = layout.replica_counts(here.ia, here.ib)
        self.task_group_counts = [layout.slice_size(here.ia, here.ib, it, here.ir) for it in range(t)]
        self._slice = self.task_group_counts[here.it]
        whole = grid.n_ranks > 1 or layout.parity != 0
        self._own = np.empty(int(sizes[here.ia, here.ib])) if whole else None
        self.sigma = np.empty(layout.sub_block_size(here.ia, here.ir, here.ib)) if t > 1 else None
        self.exchange = KetExchange(grid, list(by_ket), sizes, self._own if self._own is not None else np.empty(0))
        self.remote_tasks = [by_ket[key] for key in self.exchange.remote]
        self._fold = Fold(grid, layout) if layout.parity else None

    def collect(self, vector: FloatArray) -> FloatArray:
        """This rank's own whole block, from the slices of its replicas (and the stored half of its mirror block)."""
        if self._own is None:
            return vector
        if self._fold is None:
            self.grid.collect_slices(vector, self._own, self._replica_counts)
        else:
            self._fold.unfold(vector, self._own)
        return self._own

    def finish(self, diagonal: FloatArray, vector: FloatArray, out: FloatArray) -> None:
        """Turn the sum of all tasks into stored elements and add the diagonal."""
        if self._fold is None:
            vectors.scale_and_add(diagonal, vector, 1.0, out)
            return
        line = out[self._fold.line]
        vectors.scale_and_add(diagonal, vector, float(np.sqrt(2.0)), out)
        out[self._fold.line] += (1.0 - np.sqrt(2.0)) * line

    @property
    def message_bytes(self) -> int:
        """Bytes that this rank receives in one sigma: ket blocks, slices of its replicas, stored halves, sums."""
        replicas = sum(self._replica_counts) - self._slice if self.grid.replicas is not None else 0
        groups = sum(self.task_group_counts) - self._slice if self.grid.task_groups is not None else 0
        swapped = self._fold.mirror_size if self._fold is not None else 0
        return self.exchange.bytes_received + 8 * (replicas + groups + swapped)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the own block, the receive buffers and the partial sigma."""
        own = [array.nbytes for array in (self._own, self.sigma) if array is not None]
        folded = self._fold.buffer_bytes if self._fold is not None else 0
        return sum(own) + self.exchange.buffer_bytes + folded

    def free(self) -> None:
        """Release the requests and buffers."""
        self.exchange.free()
        self._own = self.sigma = self._fold = None


class Fold:
    """Whole blocks from stored halves, with spin-flip symmetry.

    Args:
        grid: the process grid, a = b.
        layout: with parity +1 or -1.
    """

    def __init__(self, grid: ProcessGrid, layout: Layout):
        self.grid = grid
        here = grid.coordinates
        self._unfolding = Unfolding(layout, here.ia, here.ib)
        self._counts = layout.replica_counts(here.ia, here.ib)
        self._own = np.empty(self._unfolding.own.size) if grid.replicas is not None else None
        self._mirror = np.empty(self._unfolding.mirror.size) if here.ia != here.ib else None
        self.line = layout.geometry(here.ia, here.ib, here.it, here.ir).diagonal

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the stored halves that are put together here."""
        return sum(array.nbytes for array in (self._own, self._mirror) if array is not None)

    @property
    def mirror_size(self) -> int:
        """Number of elements that come from the mirror block."""
        return 0 if self._mirror is None else self._mirror.size

    def unfold(self, vector: FloatArray, whole: FloatArray) -> None:
        """The whole block of this rank from the slices of all replicas. Collective over the grid."""
        own = vector
        if self._own is not None:
            self.grid.collect_slices(vector, self._own, self._counts)
            own = self._own
        mirror = own
        if self._mirror is not None:
            self.grid.swap_with_mirror(own, self._mirror)
            mirror = self._mirror
        self._unfolding.unfold(own, mirror, whole)


def whole_block(grid: ProcessGrid, layout: Layout, vector: FloatArray) -> FloatArray:
    """The whole block of this rank, (block size,), from the slices of a vector. Collective over the grid."""
    here = grid.coordinates
    whole = np.empty(layout.block_size(here.ia, here.ib))
    if layout.parity:
        Fold(grid, layout).unfold(vector, whole)
    else:
        grid.collect_slices(vector, whole, layout.replica_counts(here.ia, here.ib))
    return whole


def assign(block: SigmaBlock, tasks: list[Task], n_groups: int) -> list[list[Task]]:
    """Deal tasks to task groups: a consecutive stretch of equal predicted cost to each.

    Tasks stand in the order of their ket blocks, the rank's own first, so that a group receives few blocks. A task on
    the border of two stretches is cut by bra rows. Deterministic, so that all replicas of a sub-block agree without
    talking.
    """
    order = sorted(tasks, key=lambda task: (task.da, task.db, task.kind))
    if n_groups == 1:
        return [order]
    groups: list[list[Task]] = [[] for _ in range(n_groups)]
    share = sum(task.cost for task in order) / n_groups
    before = 0.0
    for task in order:
        after = before + task.cost
        borders = [share * k for k in range(1, n_groups) if before < share * k < after]
        slack = _LEAST_CUT * share
        borders = [border for border in borders if border - before > slack and after - border > slack]
        middle = 0.5 * (before + after) if not borders else 0.5 * (before + borders[0])
        first = min(int(middle / share), n_groups - 1) if share > 0.0 else 0
        for k, piece in enumerate(_cut(block, task, [border - before for border in borders])):
            if piece is not None:
                groups[first + k].append(piece)
        before = after
    return groups


def _cut(block: SigmaBlock, task: Task, costs: list[float]) -> list[Task | None]:
    """The task in pieces that end at the given costs; None for a piece without rows."""
    if not costs:
        return [task]
    per_row = block.row_costs(task)
    total = np.cumsum(per_row)
    edges = [0, *(int(np.searchsorted(total, cost)) for cost in costs), len(per_row)]
    pieces: list[Task | None] = []
    for low, high in pairwise(edges):
        cost = float(per_row[low:high].sum())
        pieces.append(replace(task, cost=cost, rows=(low, high)) if high > low else None)
    return pieces
