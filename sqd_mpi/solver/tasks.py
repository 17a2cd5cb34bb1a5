"""Which tasks a rank does in which order, with the buffers for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import SigmaBlock, Task
from sqd_mpi.distribution.ket_exchange import KetExchange
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.whole_blocks import MirrorExchange
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.timing import Timers, in_phase

# A task is cut between two task groups only where both pieces are larger than this part of a group's share.
_LEAST_CUT = 0.02


class TaskPlan:
    """Which tasks this rank does in which order, with the buffers for them. Planned once, run many times.

    Collective over the grid at construction.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, interaction: Interaction, memory: Memory = HOST,
        timers: Timers | None = None,
    ):  # fmt: skip
        self.block, self.memory = block, memory
        # Where sigma is made in single precision: the slice of the vector as it goes there, and that of the result.
        size = layout.slice_size(*grid.coordinates)
        self._rounded = None if memory.dtype == np.float64 else (memory.empty(size), memory.empty(size))
        self.timers = timers if timers is not None else Timers()
        a, b, t, _ = grid.shape
        here = grid.coordinates

        # This rank's tasks, by the ket blocks that they need.
        tasks = assign(block, block.tasks(interaction), t)[here.it]
        block.prepare(tasks)
        by_ket: dict[tuple[int, int], list[Task]] = {}
        for task in sorted(tasks, key=lambda task: (task.da, task.db)):
            by_ket.setdefault(((here.ia + task.da) % a, (here.ib + task.db) % b), []).append(task)
        self.own_tasks = by_ket.get((here.ia, here.ib), [])

        # The own ket block and the sum over the task groups, which exchange slices through one port.
        port = memory.port(layout.slice_size(*here))
        self._own = _OwnBlock(grid, layout, memory, port)
        self._sum = _GroupSum(grid, layout, memory, port)
        self._line = memory.indices(layout.geometry(*here).diagonal)

        # The other ket blocks slide in, but for those that lie in the memory of the node.
        sizes = layout.block_sizes
        remote = [int(sizes[key]) for key in by_ket if key != (here.ia, here.ib)]
        self._arrivals = memory.arrivals(max(remote, default=0))
        own = self._own.message() if grid.layer.size > 1 else np.empty(0, memory.dtype)
        self.exchange = KetExchange(grid, list(by_ket), sizes, own, self._own.of_node, self._arrivals.buffers)
        self.remote_tasks = [by_ket[key] for key in self.exchange.remote]

    @in_phase("collect")
    def collect(self, vector: Array) -> Array:
        """This rank's own whole block, from the slices of its replicas (and the stored half of its mirror block)."""
        if self._rounded is not None:
            self.memory.copy(vector, self._rounded[0])
            vector = self._rounded[0]
        return self._own.collect(vector)

    @in_phase("vectors")
    def cleared(self, out: Array) -> Array:
        """Zeros for the sum of this rank's tasks: the slice of the result itself where there is one task group."""
        sigma = self._result(out) if self._sum.partial is None else self._sum.partial
        self.memory.zero(sigma)
        return sigma

    def tasks_with_kets(self, own: Array) -> Iterator[tuple[Task, Array]]:
        """This rank's tasks with their ket blocks: those of the own one while the first others are on their way."""
        if self.exchange.sends:
            self._own.fill_message()
        self.exchange.start()
        for task in self.own_tasks:
            yield task, own
        for k, tasks in enumerate(self.remote_tasks):
            ket = self._wait(k)
            if (started := self.exchange.started(k)) is not None:
                self.timers.beside("slide", started, da=tasks[0].da, db=tasks[0].db, bytes=ket.nbytes)
            for task in tasks:
                yield task, ket
            self._arrivals.release()  # these tasks have been started: the next but one may come
            self.exchange.release(k)
        self._end()

    @in_phase("wait")
    def _wait(self, k: int) -> Array:
        """The k-th remote ket block, once it has arrived; valid until it is released."""
        return self._arrivals.bring(self.exchange.wait(k))

    @in_phase("wait")
    def _end(self) -> None:
        """Wait for sends, and for kernels so that their times count here."""
        self.exchange.finish()
        self.memory.finish()

    def add_mirrored(self, sigma: Array) -> None:
        """Add what mirrored tasks have given."""
        if self.block.mirrored is not None:
            with self.timers("vectors"):
                self.block.mirrored.fold(sigma)

    @in_phase("scatter")
    def scatter(self, sigma: Array, out: Array) -> None:
        """The slice of this rank of the sum over the task groups."""
        result = self._result(out)
        self._sum.scatter(sigma, result)
        if result is not out:
            self.memory.copy(result, out)

    def _result(self, out: Array) -> Array:
        return out if self._rounded is None else self._rounded[1]

    @in_phase("vectors")
    def finish(self, diagonal: Array, vector: Array, out: Array) -> None:
        """Turn the sum of all tasks into stored elements and add the diagonal."""
        if self._own.fold is None:
            self.memory.vectors.scale_and_add(diagonal, vector, 1.0, out)
        else:
            self.memory.vectors.finish_folded(diagonal, vector, self._line, out)

    @property
    def message_bytes(self) -> int:
        """Bytes that this rank receives in one sigma: ket blocks, slices of its replicas, stored halves, sums.

        What is read in place in the memory of the node does not count.
        """
        size = np.dtype(self.memory.dtype).itemsize
        return self.exchange.bytes_received + size * (self._own.n_received + self._sum.n_received)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of own block, receive buffers and partial sums; shared memory counts on the rank that provides it."""
        partial = self._sum.partial.nbytes if self._sum.partial is not None else 0
        mirrored = self.block.mirrored.nbytes if self.block.mirrored is not None else 0
        rounded = sum(each.nbytes for each in self._rounded or ())
        return self._own.buffer_bytes + partial + mirrored + rounded + self.exchange.buffer_bytes

    def free(self) -> None:
        """Release the requests and buffers. Collective over the grid."""
        self.exchange.free()
        self._own.free()
        self._sum.partial = self._rounded = None


class _OwnBlock:
    """This rank's whole ket block, put together from the slices of its replicas. Collective over the grid."""

    def __init__(self, grid: ProcessGrid, layout: Layout, memory: Memory, slice_port: Any):
        self._grid, self._memory = grid, memory
        here, (_, _, t, _) = grid.coordinates, grid.shape
        self._counts = layout.replica_counts(here.ia, here.ib)
        self._number = here.ir * t + here.it

        # One for all ranks of a node, or one of its own; none where the vector itself is the block.
        is_whole, size = grid.n_ranks == 1 and not layout.parity, layout.block_size(here.ia, here.ib)
        self._shared = None if is_whole else grid.node_blocks(size, memory.dtype)
        self._on_node = self._shared.blocks[here.ia, here.ib] if self._shared is not None else None
        self._whole: Array = None
        if self._on_node is not None:
            self._whole = memory.image_of(self._on_node)
        elif not is_whole:
            self._whole = memory.empty(size)
        self._slice_port, self._port = slice_port, memory.port(size, self._on_node)

        # Ranks of a node share halves and whole blocks in host memory.
        self.fold: MirrorExchange | None = None
        if layout.parity:
            on_host = self._shared is not None
            self.fold = MirrorExchange(grid, layout, HOST if on_host and memory.device else memory, on_host)

    @property
    def of_node(self) -> Any:
        """Blocks that lie in the memory of the node, by place, or None."""
        return self._shared.blocks if self._shared is not None else None

    def collect(self, vector: Array) -> Array:
        """The block of a vector."""
        if self._whole is None:
            return vector
        if self._shared is not None:
            self._collect_shared(self._slice_port.sending(vector))
            self._port.received(self._whole)
        elif self.fold is not None:
            self.fold.unfold(vector, self._whole)
        elif self._grid.replicas.size == 1:
            self._memory.copy(vector, self._whole)
        else:
            self._grid.collect_slices(self._slice_port.sending(vector), self.message(), self._counts)
            self._port.received(self._whole)
        return self._whole

    def _collect_shared(self, mine: FloatArray) -> None:
        """Put a slice in host memory to those of the other replicas in the memory of the node."""
        assert self._shared is not None and self._on_node is not None
        self._shared.fence()  # until here the others may have read the blocks of the sigma before
        if self.fold is not None:
            self.fold.unfold(mine, self._on_node)
        else:
            start = sum(self._counts[: self._number])
            self._on_node[start : start + len(mine)] = mine
        self._shared.fence()

    def message(self) -> FloatArray:
        """The block in host memory, from which all sends leave."""
        whole: FloatArray = self._port.receiving(self._whole)
        return whole

    def fill_message(self) -> None:
        """Bring the block that was collected there, unless it was collected by way of there."""
        if self._shared is None and (self.fold is not None or self._grid.replicas.size == 1):
            self._port.sending(self._whole)

    @property
    def n_received(self) -> int:
        """Number of elements that come from other ranks in one sigma."""
        gathers = self._grid.replicas.size > 1 and self._shared is None
        replicas = sum(self._counts) - self._counts[self._number] if gathers else 0
        return replicas + (self.fold.mirror_size if self.fold is not None else 0)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the block and of halves; shared memory counts on the rank that provides it."""
        own = self._whole.nbytes if self._whole is not None else 0
        if self._shared is not None:
            own = self._shared.nbytes + (own if self._whole is not self._on_node else 0)
        return own + (self.fold.buffer_bytes if self.fold is not None else 0)

    def free(self) -> None:
        """Release the buffers. Collective over the grid."""
        if self.fold is not None:
            self.fold.free()
        self._whole = self._on_node = self.fold = None
        if self._shared is not None:
            self._shared.free()


class _GroupSum:
    """The sum of the tasks of all task groups, of which every rank gets a slice."""

    def __init__(self, grid: ProcessGrid, layout: Layout, memory: Memory, slice_port: Any):
        self._grid = grid
        here, (_, _, t, _) = grid.coordinates, grid.shape
        self._counts = [layout.slice_size(here.ia, here.ib, it, here.ir) for it in range(t)]
        n_stored = layout.sub_block_size(here.ia, here.ir, here.ib) if t > 1 else 0
        self.partial: Array = memory.empty(n_stored) if t > 1 else None
        self._port, self._slice_port = memory.port(n_stored), slice_port

    def scatter(self, sigma: Array, out: Array) -> None:
        """The slice of this rank."""
        if self.partial is None:
            return
        here = self._port.sending(sigma)
        self._grid.scatter_sum(here, self._slice_port.receiving(out), self._counts)
        self._slice_port.received(out)

    @property
    def n_received(self) -> int:
        """Number of elements that come from other ranks in one sigma."""
        return sum(self._counts) - self._counts[self._grid.coordinates.it] if self._grid.task_groups.size > 1 else 0


def assign(block: SigmaBlock, tasks: list[Task], n_groups: int) -> list[list[Task]]:
    """Assign tasks to task groups: a consecutive stretch of equal predicted cost to each.

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
