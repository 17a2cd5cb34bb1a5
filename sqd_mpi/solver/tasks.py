"""Which tasks a rank does in which order, with the buffers for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import SigmaBlock, Task
from sqd_mpi.distribution.ket_exchange import KetExchange
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.whole_blocks import MirrorExchange
from sqd_mpi.problem.interaction import Interaction

# A task is cut between two task groups only where both pieces are larger than this part of a group's share.
_LEAST_CUT = 0.02


class TaskPlan:
    """Which tasks this rank does in which order, with the buffers for them. Planned once, run many times.

    Collective over the grid at construction.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, interaction: Interaction, memory: Memory = HOST
    ):
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
            self._own = memory.image_of(self._shared_own)
        elif whole:
            self._own = memory.empty(own_size)
        n_stored = layout.sub_block_size(here.ia, here.ir, here.ib) if t > 1 else 0
        self.sigma: Array = memory.empty(n_stored) if t > 1 else None
        self._slice_port = memory.port(self._slice)
        self._own_port = memory.port(own_size, self._shared_own)
        self._sigma_port = memory.port(n_stored)
        remote = [int(sizes[key]) for key in by_ket if key != (here.ia, here.ib)]
        self._arrivals = memory.arrivals(max(remote, default=0))
        own = self._own_port.receiving(self._own) if grid.layer.size > 1 else np.empty(0)
        present = self._shared.blocks if self._shared is not None else None
        self.exchange = KetExchange(grid, list(by_ket), sizes, own, present, self._arrivals.buffers)
        self.remote_tasks = [by_ket[key] for key in self.exchange.remote]
        self._fold: MirrorExchange | None = None
        if layout.parity and self._shared is not None:  # ranks of a node share halves and whole blocks in host memory
            self._fold = MirrorExchange(grid, layout, HOST, True)
        elif layout.parity:
            self._fold = MirrorExchange(grid, layout, memory)
        self._line = memory.indices(layout.geometry(here.ia, here.ib, here.it, here.ir).diagonal)

    def collect(self, vector: Array) -> Array:
        """This rank's own whole block, from the slices of its replicas (and the stored half of its mirror block)."""
        if self._own is None:
            return vector
        if self._shared is not None:
            self._collect_shared(self._slice_port.sending(vector))
            self._own_port.received(self._own)
        elif self._fold is not None:
            self._fold.unfold(vector, self._own)
        elif self.grid.replicas.size == 1:
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
        gathered = self._shared is not None or (self._fold is None and self.grid.replicas.size > 1)
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
        gathers = self.grid.replicas.size > 1 and self._shared is None
        replicas = sum(self._replica_counts) - self._slice if gathers else 0
        groups = sum(self.task_group_counts) - self._slice if self.grid.task_groups.size > 1 else 0
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
