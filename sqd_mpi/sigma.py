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

from sqd_mpi.backends import FloatArray, Interaction, SigmaBlock, Task
from sqd_mpi.backends.memory import HOST, Array, Memory
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
        memory: where vectors, blocks and partial sums live; that of the backend which made the block.
    """

    def __init__(
        self,
        grid: ProcessGrid,
        layout: Layout,
        block: SigmaBlock,
        interaction: Interaction,
        timers: Timers | None = None,
        single: bool = False,
        memory: Memory = HOST,
    ):
        self.grid = grid
        self.layout = layout
        self.memory = memory
        self.block = block
        self.interaction = interaction
        self.timers = timers if timers is not None else Timers()
        self.plan = TaskPlan(grid, layout, block, interaction, single, memory)
        self.vectors: Any = Timed(memory.vectors, self.timers, "vectors")
        self.n_sigma = 0
        self.task_seconds = 0.0  # processor time of all threads of this rank in its tasks
        self._diagonal = self._diagonal_of(interaction)

    @property
    def size(self) -> int:
        """Number of vector elements on this rank."""
        here = self.grid.coordinates
        return self.layout.slice_size(here.ia, here.ib, here.it, here.ir)

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

    def sum_over_ranks(self, values: FloatArray) -> None:
        """Add small arrays over all ranks, in place. Collective over the grid."""
        with self.timers("reduce"):
            self.grid.sum_over_all(values)

    def matvec(self, vector: Array, out: Array) -> None:
        """out = H vector, both (size,) slices of this rank, in its memory. Collective over the grid."""
        with self.timers("sigma"):
            self._matvec(vector, out)
        self.n_sigma += 1

    def _matvec(self, vector: Array, out: Array) -> None:
        self._apply(self.interaction, self._diagonal, vector, out)

    def _apply(self, interaction: Interaction, diagonal: Array, vector: Array, out: Array) -> None:
        """out = interaction vector, for any interaction whose connections are among the planned ones."""
        plan = self.plan
        with self.timers("collect"):
            own = plan.collect(vector)
        sigma = out if plan.sigma is None else plan.sigma
        with self.timers("vectors"):
            self.memory.zero(sigma)
        plan.start()
        for task in plan.own_tasks:
            self._do(task, interaction, own, sigma)
        for k, tasks in enumerate(plan.remote_tasks):
            with self.timers("wait"):
                ket = plan.wait(k)
            da, db = tasks[0].da, tasks[0].db
            if (started := plan.exchange.started(k)) is not None:
                self.timers.beside("slide", started, da=da, db=db, bytes=ket.nbytes)
            for task in tasks:
                self._do(task, interaction, ket, sigma)
            plan.release(k)
        with self.timers("wait"):
            plan.exchange.finish()
            self.memory.finish()  # so that times of kernels count here
        if self.block.mirrored is not None:
            with self.timers("vectors"):
                self.block.mirrored.fold(sigma)
        with self.timers("scatter"):
            plan.scatter(sigma, out)
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

    def _do(self, task: Task, interaction: Interaction, ket: Array, sigma: Array) -> None:
        began = process_time()
        with self.timers(task.kind, da=task.da, db=task.db):
            self.block.apply(task, ket, sigma, interaction)
        self.task_seconds += process_time() - began

    def expectation(self, vector: Array, work: Array) -> float:
        """<v|V|v> of a normalised vector; `work` (size,) is overwritten. Collective over the grid."""
        return self.moments(vector, work)[0]

    def moments(self, vector: Array, work: Array) -> tuple[float, float]:
        """<v|V|v> and <v|V V|v> of a normalised vector; `work` (size,) is overwritten. Collective over the grid."""
        self.matvec(vector, work)
        values = np.array([self.memory.vectors.dot(each, work) for each in (vector, work)])
        self.sum_over_ranks(values)
        return float(values[0]), float(values[1])


class TaskPlan:
    """Which tasks this rank does in which order, with the buffers for them. Planned once, run many times.

    Collective over the grid at construction.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, interaction: Interaction, single: bool = False,
        memory: Memory = HOST,
    ):  # fmt: skip
        self.grid, self.layout, self.block, self.memory = grid, layout, block, memory
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
        whole, own_size = grid.n_ranks > 1 or layout.parity != 0, int(sizes[here.ia, here.ib])
        self._shared = grid.node_blocks(own_size) if whole else None
        self._shared_own = self._shared.blocks[here.ia, here.ib] if self._shared is not None else None
        self._own: Array = None
        if self._shared_own is not None:
            self._own = memory.twin(self._shared_own)
        elif whole:
            self._own = memory.empty(own_size)
        n_stored = layout.sub_block_size(here.ia, here.ir, here.ib) if t > 1 else 0
        self.sigma: Array = memory.empty(n_stored) if t > 1 else None
        self._slice_port = memory.port(self._slice)
        self._own_port = memory.port(own_size, self._shared_own)
        self._sigma_port = memory.port(n_stored)
        remote = [int(sizes[key]) for key in by_ket if key != (here.ia, here.ib)]
        self._arrivals = memory.arrivals(max(remote, default=0))
        self._needed, self._sizes = list(by_ket), sizes
        self.exchange = self._new_exchange(single)
        self.single = single and grid.layer is not None
        self.remote_tasks = [by_ket[key] for key in self.exchange.remote]
        self._fold: Fold | None = None
        if layout.parity and self._shared is not None:  # ranks of a node share halves and whole blocks in host memory
            self._fold = Fold(grid, layout, HOST, True)
        elif layout.parity:
            self._fold = Fold(grid, layout, memory)
        self._line = memory.indices(layout.geometry(here.ia, here.ib, here.it, here.ir).diagonal)

    def _new_exchange(self, single: bool) -> KetExchange:
        own = self._own_port.receiving(self._own) if self.grid.layer is not None else np.empty(0)
        present = self._shared.blocks if self._shared is not None else None
        return KetExchange(self.grid, self._needed, self._sizes, own, present, single, self._arrivals.buffers)

    def slide_in_double(self) -> None:
        """Let ket blocks travel in double precision from now on. Collective over the grid."""
        self.exchange.free()
        self.exchange = self._new_exchange(False)
        self.single = False

    def collect(self, vector: Array) -> Array:
        """This rank's own whole block, from the slices of its replicas (and the stored half of its mirror block)."""
        if self._own is None:
            return vector
        if self._shared is not None:
            self._collect_shared(self._slice_port.sending(vector))
            self._own_port.received(self._own)
        elif self._fold is not None:
            self._fold.unfold(vector, self._own)
        elif self.grid.replicas is None:
            self.memory.copy(vector, self._own)
        else:
            mine, whole = self._slice_port.sending(vector), self._own_port.receiving(self._own)
            self.grid.collect_slices(mine, whole, self._replica_counts)
            self._own_port.received(self._own)
        return self._own

    def _collect_shared(self, mine: FloatArray) -> None:
        """Put a slice in host memory to those of the other replicas in the memory of the node."""
        assert self._shared is not None and self._shared_own is not None
        self._shared.fence()  # until here the others may have read the blocks of the sigma before
        if self._fold is not None:
            self._fold.unfold(mine, self._shared_own)
        else:
            self._shared_own[self._replica_start : self._replica_start + len(mine)] = mine
        self._shared.fence()

    def start(self) -> None:
        """Begin the slides; the own block has been collected."""
        gathered = self._shared is not None or (self._fold is None and self.grid.replicas is not None)
        if self.exchange.sends and not gathered:
            self._own_port.sending(self._own)  # fills the message from which all sends leave
        self.exchange.start()

    def wait(self, k: int) -> Array:
        """The k-th remote ket block, once it has arrived. Valid until `release(k)`."""
        return self._arrivals.bring(self.exchange.wait(k))

    def release(self, k: int) -> None:
        """Say that the tasks of the k-th remote ket block have been started: the next but one may come."""
        self._arrivals.release()
        self.exchange.release(k)

    def scatter(self, sigma: Array, out: Array) -> None:
        """The slice of this rank of the sum over the task groups."""
        if self.sigma is None:
            return
        here = self._sigma_port.sending(sigma)
        self.grid.scatter_sum(here, self._slice_port.receiving(out), self.task_group_counts)
        self._slice_port.received(out)

    def finish(self, diagonal: Array, vector: Array, out: Array) -> None:
        """Turn the sum of all tasks into stored elements and add the diagonal."""
        if self._fold is None:
            self.memory.vectors.scale_and_add(diagonal, vector, 1.0, out)
        else:
            self.memory.vectors.finish_folded(diagonal, vector, self._line, out)

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
            own = self._shared.nbytes + (own if self._own is not self._shared_own else 0)
        partial = self.sigma.nbytes if self.sigma is not None else 0
        folded = self._fold.buffer_bytes if self._fold is not None else 0
        mirrored = self.block.mirrored.nbytes if self.block.mirrored is not None else 0
        return own + partial + mirrored + self.exchange.buffer_bytes + folded

    def free(self) -> None:
        """Release the requests and buffers. Collective over the grid."""
        self.exchange.free()
        if self._fold is not None:
            self._fold.free()
        self._own = self._shared_own = self.sigma = self._fold = None
        if self._shared is not None:
            self._shared.free()


class Fold:
    """Whole blocks from stored halves, with spin-flip symmetry.

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
        self._shared = grid.node_blocks(self._unfolding.own.size) if shared else None
        halves = self._shared.blocks if self._shared is not None else {}
        self._own: Array = halves.get((here.ia, here.ib))
        self._mirror: Array = halves.get((here.ib, here.ia)) if here.ia != here.ib else None
        self._mirror_is_here = self._mirror is not None
        if self._own is None and grid.replicas is not None:
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
