"""Opposite-spin tasks on a GPU: which form the rows of every label take, and the launches (docs/gpu.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray
from sqd_mpi.backends.cpu.block import RowRange
from sqd_mpi.backends.gpu import costs, lists
from sqd_mpi.backends.gpu.costs import (
    DIRECT,
    PRODUCT,
    TILED,
    Cost,
    ListSizes,
    TaskWork,
    opposite_forms,
)
from sqd_mpi.backends.gpu.device import DeviceArray, Stream
from sqd_mpi.backends.gpu.products import Products, add_products
from sqd_mpi.backends.gpu.rows import COLUMNS, AlphaSide, BlockRows, Blocks
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.backends.gpu.tiled import Fold, add_tiled
from sqd_mpi.backends.protocol import Task
from sqd_mpi.problem.interaction import Interaction

_FORMS = {"direct": DIRECT, "product": PRODUCT, "tiled": TILED}
_FEW_ROWS = 20  # for every processor of the device
_MOST_THREADS = 512  # of a block of opposite_direct


@dataclass(frozen=True, eq=False)
class _Plan:
    """How a task is done."""

    direct: dict[int, Blocks]
    """Thread blocks of the direct form, by label of the orbital pairs."""
    products: list[Products]
    """Rows that take matrix products."""
    tiled: dict[int, DeviceArray]
    """(n,) int32 rows that take the tiled form, by label of the orbital pairs."""
    fold: Fold | None
    """Sum of the tiled form that makes half of the pairs."""


class OppositeSpin:
    """Opposite-spin tasks of one block.

    Args:
        rows: bra rows of the block.
        share: string structure on the device.
        form: "direct", "product" or "tiled" takes that form everywhere; None the cheapest.
    """

    def __init__(self, rows: BlockRows, share: GpuShare, form: str | None = None):
        self.rows, self.share, self.device, self.layout = rows, share, share.device, rows.layout
        self._form = form
        self._plans: dict[tuple[int, int, RowRange], _Plan] = {}
        self._fold: Fold | None = None

    def row_costs(self, task: Task) -> FloatArray:
        """(n_rows,) predicted seconds of a task for every bra row, each label in its cheapest form."""
        counts = self.share.strings.singles_per_row[:, task.da].astype(np.float64)
        sizes = self._sizes(task.db, (0, len(counts)))
        by_form = self._costs(sizes, counts, self._wanted((0, len(counts))), task.da, task.db)
        return np.asarray(np.minimum.reduce([cost[2] for cost in by_form]).sum(axis=1))

    def prepare(self, tasks: list[Task]) -> None:
        """Upload what these tasks need, and cut their work into launches."""
        self._plans = {}
        for task in tasks:
            if task.kind == "mixed":
                rows = self.share.rows_of(task)
                self.rows.ket_offsets(task.da, task.db)
                self._plans[task.da, task.db, rows] = self._plan(task.da, task.db, rows)
        if all(plan.fold is None for plan in self._plans.values()):
            self._fold = None
            self.share.forget_whole()

    def work(self, task: Task, interaction: Interaction) -> TaskWork:
        """Counted work of a prepared task; the spin penalty, which may double it, is not looked at."""
        rows = self.share.rows_of(task)
        counts = self.share.alpha(task.da, rows).counts.astype(np.float64)
        sizes, wanted = self._sizes(task.db, rows), self._wanted(rows)
        form = self._forms(task.da, task.db)[self.rows.label[slice(*rows)]]
        total = TaskWork(float(((sizes.entries + sizes.diagonal) * counts * wanted).sum()))
        for number in _FORMS.values():
            cost = self._costs(sizes, counts * (form == number), wanted, task.da, task.db)[number]
            total += TaskWork(0.0, *(float(part.sum()) for part in cost))
        return total

    def apply(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction,
        scratch: Callable[[int, int], DeviceArray], stream: Stream,
    ) -> None:  # fmt: skip
        """sigma += the task's part.

        Args:
            task: a prepared one.
            ket, sigma: ket block and sub-block.
            interaction: to apply.
            scratch: gives at least, and if possible, so many float64.
            stream: for the launches.
        """
        plan, side = self._plans[task.da, task.db, self.share.rows_of(task)], self._side(task)
        coupling, twist = pair = self.share.interaction(interaction)
        for d, blocks in plan.direct.items():
            self._launch_direct(task, side, d, blocks, ket, sigma, coupling, interaction.swap, False, stream)
            if interaction.twist is not None:
                self._launch_direct(task, side, d, blocks, ket, sigma, twist, 0.0, True, stream)
        for products in plan.products:
            beta = self.share.beta(task.db)
            add_products(self.device, products, side, beta, ket, sigma, interaction, pair, scratch, stream)
        if plan.tiled:
            beta_side = self.share.tiled(task.db)
            add_tiled(self.device, plan.tiled, side, beta_side, plan.fold, ket, sigma, interaction, pair, stream)

    def is_halved(self, da: int, db: int) -> bool:
        """Whether the tiled form does with half of the pairs: bra and ket block are their own mirror images.

        What rows of the task then give to sigma, all tasks together, is the same; a single one adds to other rows too.
        """
        return self.layout.is_triangle(self.rows.ia, self.rows.ib) and self.layout.grid[3] == 1 and da == db

    def _wanted(self, rows: RowRange) -> FloatArray:
        """(n_rows, 1) share of the columns of every row that is wanted."""
        bra = self.rows.bra
        return np.asarray((bra.stop / np.maximum(bra.length, 1))[slice(*rows), None])

    def _sizes(self, db: int, rows: RowRange) -> ListSizes:
        """Sizes (n_rows, n_labels) of the beta lists that rows meet."""
        return self.share.list_sizes(db).take(self.rows.label[slice(*rows)] ^ self.layout.sector)

    def _costs(self, sizes: ListSizes, n_singles: FloatArray, wanted: FloatArray, da: int, db: int) -> list[Cost]:
        """Cost of every form for rows with so many singles that meet block (ia + da, ib + db)."""
        return opposite_forms(sizes, n_singles, wanted, None, self.is_halved(da, db), self.share.tiled_shape(db))

    def _forms(self, da: int, db: int) -> NDArray[np.int8]:
        """(n_labels, n_labels) how rows of label x meet the beta list of pair label d; -1 where it is empty.

        Chosen for all rows of the block, whatever rows a task has: two halves add up only if both are made.
        """
        n_labels, labels = self.layout.n_labels, self.rows.label
        counts = self.share.strings.singles_per_row[:, da].astype(np.float64)
        wanted = self._wanted((0, len(counts)))
        chosen = np.full((n_labels, n_labels), -1, np.int8)
        for x in np.unique(labels):
            of_rows = self.share.list_sizes(db).take(np.array([x ^ self.layout.sector]))
            by_form = self._costs(of_rows, counts[labels == x], wanted[labels == x], da, db)
            seconds = np.stack([cost[2].sum(axis=0) for cost in by_form])
            seconds[PRODUCT] += costs.PRODUCT_LAUNCHES * costs.RATES.launch
            best = np.argmin(seconds, axis=0) if self._form is None else _FORMS[self._form]
            chosen[x] = np.where(of_rows.has_terms[0], best, -1)
        return chosen

    def _plan(self, da: int, db: int, rows: RowRange) -> _Plan:
        forms = self._forms(da, db)
        of_row, counts = forms[self.rows.label[slice(*rows)]], self.share.alpha(da, rows).counts
        tiled = self._plan_tiled(counts * (of_row == TILED), db, rows, self.is_halved(da, db))
        fold = None
        if tiled:
            self.share.tiled(db)
            if self.is_halved(da, db):
                fold = self._fold = self._fold or self._new_fold()
        direct = self._plan_direct(counts * (of_row == DIRECT), db, rows)
        return _Plan(direct, self._plan_products(forms, counts, rows), tiled, fold)

    def _new_fold(self) -> Fold:
        bra = self.rows.bra
        return Fold(self.device, bra, self.layout.parity, self.share.whole(int(bra.length.sum())))

    def _plan_direct(self, counts: IntArray, db: int, rows: RowRange) -> dict[int, Blocks]:
        """Thread blocks for rows with so many singles of every label."""
        stop = self.rows.bra.stop[slice(*rows)]
        cost = self._sizes(db, rows).direct(counts.astype(np.float64))[2]
        n_threads = self.rows.n_threads(stop, _MOST_THREADS)
        direct = {}
        for d in np.flatnonzero(cost.any(axis=0)):
            blocks = lists.stretches(cost[:, d], stop, n_threads * COLUMNS, rows[0])
            direct[int(d)] = Blocks(tuple(map(self.device.upload, blocks)), len(blocks[0]), n_threads)
        return direct

    def _plan_products(self, forms: NDArray[np.int8], counts: IntArray, rows: RowRange) -> list[Products]:
        """Rows of every label that meet a beta list by matrix products, those with most singles first."""
        labels, stop, found = self.rows.label[slice(*rows)], self.rows.bra.stop[slice(*rows)], []
        for x, d in zip(*np.nonzero(forms == PRODUCT), strict=True):
            there = np.flatnonzero((labels == x) & (counts[:, d] > 0) & (stop > 0))
            there = there[np.argsort(-counts[there, d], kind="stable")]
            if len(there) > 0:
                number = int((x ^ self.layout.sector) * self.layout.n_labels + d)
                where = self.device.upload((rows[0] + there).astype(np.int32))
                found.append(Products(number, int(d), where, counts[there, d], int(stop[there].max())))
        return found

    def _plan_tiled(self, counts: IntArray, db: int, rows: RowRange, halved: bool) -> dict[int, DeviceArray]:
        """Bra rows with so many singles of every label.

        Neighbours share ket rows, which the second-level cache keeps while they run together. Where rows are few those
        with most work come first instead, so that no processor is left alone with one in the end.
        """
        wanted = self.rows.bra.stop[slice(*rows)] > 0
        if halved:  # what rows do not store themselves goes to their mirror images
            wanted[:] = True
        cost = self._sizes(db, rows).tiled(counts.astype(np.float64))[2] * wanted[:, None]
        plan = {}
        for d in np.flatnonzero(cost.any(axis=0)):
            there = np.flatnonzero(cost[:, d])
            if len(there) < _FEW_ROWS * self.device.limits.n_processors:
                there = there[np.argsort(-cost[there, d], kind="stable")]
            plan[int(d)] = self.device.upload((rows[0] + there).astype(np.int32))
        return plan

    def _side(self, task: Task) -> AlphaSide:
        rows, own = self.share.rows_of(task), self.rows
        alpha = self.share.alpha(task.da, rows)
        return AlphaSide(
            own.offset, own.stop, own.label_there, own.ket_offsets(task.da, task.db)[1], rows[0], alpha.start,
            alpha.ket, alpha.pair, alpha.sign, self.layout.n_labels, self.layout.sector,
        )  # fmt: skip

    def _launch_direct(
        self, task: Task, side: AlphaSide, d: int, blocks: Blocks, ket: DeviceArray, sigma: DeviceArray,
        coupling: DeviceArray, swap: float, turned: bool, stream: Stream,
    ) -> None:  # fmt: skip
        beta: Any = self.share.beta(task.db)
        self.device.kernel("sigma", "opposite_direct")(
            blocks.n_blocks, blocks.n_threads,
            (
                ket, sigma, *blocks.arrays, side.offset, side.stop, side.label, side.ket_offset, coupling,
                np.int64(self.share.n_pairs), np.float64(swap), np.int32(turned), np.int64(side.first_row),
                np.int64(side.n_labels), np.int64(side.sector), np.int64(d), side.start, side.ket, side.pair, side.sign,
                beta.table, beta.entries, beta.slice_start, beta.counts, beta.order, beta.used, beta.occupied,
                np.int64(beta.n_electrons), np.int64(beta.tiles.width), np.int64(beta.tiles.batch),
                np.int64(beta.tiles.staged),
            ),
            beta.tiles.shared_bytes, stream,
        )  # fmt: skip
