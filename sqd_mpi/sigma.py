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
# Residual norm (hartree) down to which ket blocks may travel in single precision: their rounding, 6e-8 of every
# element, adds some 1e-6 to a residual.
_SINGLE_UNTIL = 1e-4


class SigmaOperator:
    """One interaction in one sector on a process grid.

    Collective over the grid at construction and in `matvec`.

    Args:
        grid: the process grid.
        layout: ownership of the vector; equal on all ranks.
        block: this rank's share, made by a backend.
        interaction: what is applied.
        timers: accumulates the seconds of each phase, or None.
        single: whether ket blocks travel in single precision until `sharpen` ends it.
    """

    def __init__(
        self,
        grid: ProcessGrid,
        layout: Layout,
        block: SigmaBlock,
        interaction: Interaction,
        timers: Timers | None = None,
        single: bool = False,
    ):
        self.grid = grid
        self.layout = layout
        self.block = block
        self.interaction = interaction
        self.timers = timers if timers is not None else Timers()
        self.plan = TaskPlan(grid, layout, block, interaction, single)
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
        self._apply(self.interaction, self._diagonal, vector, out)

    def _apply(self, interaction: Interaction, diagonal: FloatArray, vector: FloatArray, out: FloatArray) -> None:
        """out = interaction vector, for any interaction whose connections are among the planned ones."""
        plan = self.plan
        with self.timers("collect"):
            own = plan.collect(vector)
        sigma = out if plan.sigma is None else plan.sigma
        with self.timers("vectors"):
            sigma[:] = 0.0
        plan.exchange.start()
        for task in plan.own_tasks:
            self._do(task, interaction, own, sigma)
        for k, tasks in enumerate(plan.remote_tasks):
            with self.timers("wait"):
                ket = plan.exchange.wait(k)
            da, db = tasks[0].da, tasks[0].db
            if (started := plan.exchange.started(k)) is not None:
                self.timers.beside("slide", started, da=da, db=db, bytes=ket.nbytes)
            for task in tasks:
                self._do(task, interaction, ket, sigma)
            plan.exchange.release(k)
        with self.timers("wait"):
            plan.exchange.finish()
        if self.block.mirrored is not None:
            with self.timers("vectors"):
                self.block.mirrored.fold(sigma)
        with self.timers("scatter"):
            self.grid.scatter_sum(sigma, out, plan.task_group_counts)
        with self.timers("vectors"):
            plan.finish(diagonal, vector, out)

    def sharpen(self, residual_norms: FloatArray, tol: float) -> bool:
        """End the sliding in single precision once all residual norms are small or the next may be the last.

        Collective over the grid, with the same norms on all ranks.

        Returns:
            whether it ended now: then what was applied before is less accurate than what follows.
        """
        if not self.plan.single or residual_norms.max(initial=0.0) > max(_SINGLE_UNTIL, tol):
            return False
        self.plan.slide_in_double()
        return True

    def _do(self, task: Task, interaction: Interaction, ket: FloatArray, sigma: FloatArray) -> None:
        began = process_time()
        with self.timers(task.kind, da=task.da, db=task.db):
            self.block.apply(task, ket, sigma, interaction)
        self.task_seconds += process_time() - began

    def expectation(self, vector: FloatArray, work: FloatArray) -> float:
        """<v|V|v> of a normalised vector; `work` (size,) is overwritten. Collective over the grid."""
        return self.moments(vector, work)[0]

    def moments(self, vector: FloatArray, work: FloatArray) -> tuple[float, float]:
        """<v|V|v> and <v|V V|v> of a normalised vector; `work` (size,) is overwritten. Collective over the grid."""
        self.matvec(vector, work)
        values = np.array([vectors.gram(each[None, :], work[None, :])[0, 0] for each in (vector, work)])
        self.sum_over_ranks(values)
        return float(values[0]), float(values[1])


class TaskPlan:
    """Which tasks this rank does in which order, with the buffers for them. Planned once, run many times.

    Collective over the grid at construction.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, interaction: Interaction, single: bool = False
    ):
        self.grid, self.layout, self.block = grid, layout, block
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
        self._replica_start = sum(self._replica_counts[: here.ir * t + here.it])
        self.task_group_counts = [layout.slice_size(here.ia, here.ib, it, here.ir) for it in range(t)]
        self._slice = self.task_group_counts[here.it]
        whole = grid.n_ranks > 1 or layout.parity != 0
        self._shared = grid.node_blocks(int(sizes[here.ia, here.ib])) if whole else None
        self._own: FloatArray | None = None
        if self._shared is not None:
            self._own = self._shared.blocks[here.ia, here.ib]
        elif whole:
            self._own = np.empty(int(sizes[here.ia, here.ib]))
        self.sigma = np.empty(layout.sub_block_size(here.ia, here.ir, here.ib)) if t > 1 else None
        self._needed, self._sizes = list(by_ket), sizes
        self.exchange = self._new_exchange(single)
        self.single = single and grid.layer is not None
        self.remote_tasks = [by_ket[key] for key in self.exchange.remote]
        self._fold = Fold(grid, layout, self._shared is not None) if layout.parity else None

    def _new_exchange(self, single: bool) -> KetExchange:
        own = self._own if self._own is not None else np.empty(0)
        present = self._shared.blocks if self._shared is not None else None
        return KetExchange(self.grid, self._needed, self._sizes, own, present, single)

    def slide_in_double(self) -> None:
        """Let ket blocks travel in double precision from now on. Collective over the grid."""
        self.exchange.free()
        self.exchange = self._new_exchange(False)
        self.single = False

    def collect(self, vector: FloatArray) -> FloatArray:
        """This rank's own whole block, from the slices of its replicas (and the stored half of its mirror block)."""
        if self._own is None:
            return vector
        if self._shared is not None:
            self._shared.fence()  # until here the others may have read the blocks of the sigma before
        if self._fold is not None:
            self._fold.unfold(vector, self._own)
        elif self._shared is not None:
            self._own[self._replica_start : self._replica_start + vector.size] = vector
        else:
            self.grid.collect_slices(vector, self._own, self._replica_counts)
        if self._shared is not None:
            self._shared.fence()
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
        """Bytes that this rank receives in one sigma: ket blocks, slices of its replicas, stored halves, sums.

        What is read in place in the memory of the node does not count.
        """
        gathers = self.grid.replicas is not None and self._shared is None
        replicas = sum(self._replica_counts) - self._slice if gathers else 0
        groups = sum(self.task_group_counts) - self._slice if self.grid.task_groups is not None else 0
        swapped = self._fold.mirror_size if self._fold is not None else 0
        return self.exchange.bytes_received + 8 * (replicas + groups + swapped)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of own block, receive buffers and partial sums; shared memory counts on the rank that provides it."""
        own = self._own.nbytes if self._own is not None else 0
        if self._shared is not None:
            own = self._shared.nbytes
        partial = self.sigma.nbytes if self.sigma is not None else 0
        folded = self._fold.buffer_bytes if self._fold is not None else 0
        mirrored = self.block.mirrored.nbytes if self.block.mirrored is not None else 0
        return own + partial + mirrored + self.exchange.buffer_bytes + folded

    def free(self) -> None:
        """Release the requests and buffers. Collective over the grid."""
        self.exchange.free()
        if self._fold is not None:
            self._fold.free()
        self._own = self.sigma = self._fold = None
        if self._shared is not None:
            self._shared.free()


class Fold:
    """Whole blocks from stored halves, with spin-flip symmetry.

    Collective over the grid at construction.

    Args:
        grid: the process grid, a = b.
        layout: with parity +1 or -1.
        shared: whether the ranks of a node fill one whole block together, each replica a part of its rows.
    """

    def __init__(self, grid: ProcessGrid, layout: Layout, shared: bool = False):
        self.grid = grid
        here = grid.coordinates
        _, _, t, r = grid.shape
        self._unfolding = Unfolding(layout, here.ia, here.ib)
        self._counts = layout.replica_counts(here.ia, here.ib)
        number = here.ir * t + here.it
        self._start = sum(self._counts[:number])
        self._part = (number, t * r) if shared else (0, 1)
        self._shared = grid.node_blocks(self._unfolding.own.size) if shared else None
        halves = self._shared.blocks if self._shared is not None else {}
        self._own = halves.get((here.ia, here.ib))
        self._mirror = halves.get((here.ib, here.ia)) if here.ia != here.ib else None
        self._mirror_is_here = self._mirror is not None
        if self._own is None and grid.replicas is not None:
            self._own = np.empty(self._unfolding.own.size)
        if self._mirror is None and here.ia != here.ib:
            self._mirror = np.empty(self._unfolding.mirror.size)
        self.line = layout.geometry(here.ia, here.ib, here.it, here.ir).diagonal

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

    def unfold(self, vector: FloatArray, whole: FloatArray) -> None:
        """The whole block of this rank, or its part of a shared one, from the slices of all replicas.

        Collective over the grid.
        """
        own = vector
        if self._shared is not None and self._own is not None:
            own = self._own
            own[self._start : self._start + vector.size] = vector
            self._shared.fence()
        elif self._own is not None:
            own = self._own
            self.grid.collect_slices(vector, own, self._counts)
        mirror = own
        if self._mirror is not None:
            mirror = self._mirror
            if not self._mirror_is_here:
                self.grid.swap_with_mirror(own, mirror)
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
