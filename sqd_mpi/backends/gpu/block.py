"""The factorised sigma on a GPU (definition of the sums: `plain_kernels`; the loops: sigma.cu; layout: docs/gpu.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.backends import FloatArray, Interaction, Task, structure
from sqd_mpi.backends.cpu import Place, Rows
from sqd_mpi.backends.gpu import lists
from sqd_mpi.backends.gpu.costs import RATES, ListSizes, Work
from sqd_mpi.backends.gpu.device import DeviceArray, Stream
from sqd_mpi.backends.gpu.rows import COLUMNS, BlockRows, Blocks
from sqd_mpi.backends.gpu.same_spin import SameSpin
from sqd_mpi.backends.gpu.share import DeviceAlpha, GpuShare
from sqd_mpi.backends.gpu.tiled import AlphaSide, Fold, apply_tiled
from sqd_mpi.layout import Layout

IntArray = NDArray[np.int64]

_SCRATCH_BYTES = 512 * 1024**2  # of the matrix products, at most; and not more than an eighth of what is free
_MOST_STACKED = 32768  # matrices in one product
_THREADS = 256
_FEW_ROWS = 20  # for every processor of the device
_DIRECT, _PRODUCT, _TILED = range(3)
_FORMS = {"direct": _DIRECT, "product": _PRODUCT, "tiled": _TILED}


@dataclass(frozen=True, eq=False)
class _Products:
    """Bra rows of one label that meet one beta list by matrix products, those with most singles first.

    Attributes:
        list_number: of the beta list; d: label of its orbital pairs.
        rows: (n,) bra rows on the device; depth: (n,) singles of every row.
    """

    list_number: int
    d: int
    rows: DeviceArray = field(repr=False)
    depth: IntArray = field(repr=False)
    longest: int


@dataclass(frozen=True, eq=False)
class _MixedPlan:
    """How a mixed task is done: thread blocks of the direct form for labels of orbital pairs, matrix products, and rows
    of the tiled form for labels of orbital pairs, half of whose work is done if there is a fold."""

    direct: list[tuple[int, Blocks]]
    products: list[_Products]
    tiled: dict[int, DeviceArray]
    fold: Fold | None


class GpuBlock:
    """One rank's share of sigma for one sector; see `SigmaBlock`. Vectors are arrays of the device.

    Args:
        layout: of the sector.
        place: (ia, ib, it, ir).
        share: string structure on the device.
        form: "direct", "product" or "tiled" takes that form of the opposite-spin sum everywhere; None the cheapest.
        same_spin: "dense" or "sparse" takes that form of the same-spin sums everywhere; None the cheaper one.
    """

    mirrored = None  # threads beyond the mirror line end at once: triangles cost half, and all ket blocks are met

    def __init__(
        self, layout: Layout, place: Place, share: GpuShare, form: str | None = None, same_spin: str | None = None
    ):
        self.layout, self.share, self.device = layout, share, share.device
        self.ia, self.ib, self.it, self.ir = place
        self._form = form
        self._rows = rows = BlockRows(self.device, layout, place)
        self._same_spin = SameSpin(rows, share, same_spin)
        self._bra, self._row_label = rows.bra, rows.label
        self._labels = np.arange(layout.n_labels)
        self._bra_offset, self._bra_stop, self._bra_label = rows.offset, rows.stop, rows.label_there
        self._mixed: dict[tuple[int, int, Rows], _MixedPlan] = {}
        self._scratch: DeviceArray | None = None
        self._fold: Fold | None = None

    def tasks(self, interaction: Interaction) -> list[Task]:
        """Every task of this rank's sub-block that may have a connection."""
        a, b, _, _ = self.layout.grid
        strings = self.share.strings
        found = [self._task("mixed", da, db, False) for da in range(a) for db in range(b)]
        if interaction.same_spin:
            found += [self._task("alpha", da, 0, not strings.alpha_terms[1]) for da in range(a)]
        if interaction.same_spin or interaction.twist is not None:
            found += [self._task("beta", 0, db, not strings.beta_terms[1]) for db in range(b)]
        return [task for task in found if task is not None]

    def _task(self, kind: str, da: int, db: int, uncertain: bool) -> Task | None:
        """A task with its cost; None if it has no connection for sure."""
        cost = float(self.row_costs(Task(kind, da, db, 0.0)).sum())
        return Task(kind, da, db, cost) if cost > 0.0 or uncertain else None

    def row_costs(self, task: Task) -> FloatArray:
        """(n_rows,) predicted seconds of the task for every bra row of the sub-block."""
        if task.kind != "mixed":
            return self._same_spin.row_costs(task)
        strings, columns = self.share.strings, self._row_label ^ self.layout.sector
        wanted = self._bra.stop / np.maximum(self._bra.length, 1)
        counts = strings.singles_per_row[:, task.da].astype(np.float64)
        sizes = _rows_of(self.share.list_sizes(task.db), columns)
        seconds = np.minimum(sizes.direct(counts, wanted[:, None])[2], sizes.product(counts)[2])
        return np.asarray(np.minimum(seconds, self._tiled(sizes, counts, task.da, task.db)[2]).sum(axis=1))

    def prepare(self, tasks: list[Task]) -> None:
        """Upload what these tasks need, forget what none of them needs, and cut their work into thread blocks."""
        share = self.share
        share.keep_only(tasks)
        self._mixed = {}
        for task in tasks:
            if task.kind == "mixed":
                self._offsets(task)
                self._mixed[task.da, task.db, share.rows_of(task)] = self._plan_mixed(
                    task.da, task.db, share.rows_of(task)
                )
        if all(plan.fold is None for plan in self._mixed.values()):
            self._fold = None
        self._same_spin.prepare(tasks)
        share.strings.keep_only([])

    def apply(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, stream: Stream = None
    ) -> None:
        """sigma += this task's part; see `SigmaBlock.apply`."""
        if task.kind == "mixed":
            self._apply_direct(task, ket, sigma, interaction, stream)
            self._apply_tiled(task, ket, sigma, interaction, stream)
            for products in self._mixed[task.da, task.db, self.share.rows_of(task)].products:
                self._apply_products(task, products, ket, sigma, interaction, stream)
        elif interaction.same_spin and task.kind == "alpha":
            self._same_spin.apply_alpha(task, ket, sigma, self._scratch_of, stream)
        elif task.kind == "beta" and (interaction.same_spin or interaction.twist is not None):
            self._same_spin.apply_beta(task, ket, sigma, interaction, self._scratch_of, stream)

    def diagonal(self, interaction: Interaction, out: DeviceArray, stream: Stream = None) -> None:
        """Diagonal of the interaction on this rank's slice."""
        layout, strings = self.layout, self.share.strings
        where = layout.geometry(self.ia, self.ib, self.it, self.ir)
        alpha, beta = layout.alpha.strings[where.alpha], layout.beta.strings[where.beta]
        energies_a, energies_b = np.zeros(len(alpha)), np.zeros(len(beta))
        if interaction.same_spin:
            energies_a = structure.string_energies(alpha, *strings.integrals[0])
            energies_b = structure.string_energies(beta, *strings.integrals[1])
        pairs = np.arange(strings.norb, dtype=np.int64)
        pairs = pairs * (pairs + 1) // 2 + pairs
        density = interaction.coupling[np.ix_(pairs, pairs)] - interaction.swap * np.eye(len(pairs))
        occupied_a = structure.occupied_orbitals(alpha).astype(np.int32)
        occupied_b = structure.occupied_orbitals(beta).astype(np.int32)
        rows = np.flatnonzero((where.row_offset < where.stop) & (where.row_offset + where.row_length > where.start))
        up = self.device.upload
        self._kernel("diagonal_rows")(
            len(rows), _THREADS,
            (
                out, up(where.row_offset[rows]), up(where.row_length[rows]), up(where.row_column[rows]),
                np.int64(where.start), np.int64(where.stop), up(energies_a[rows]), up(energies_b),
                up(occupied_a[rows]), np.int64(occupied_a.shape[1]), up(occupied_b), np.int64(occupied_b.shape[1]),
                up(density), np.int64(strings.norb), np.float64(interaction.constant),
            ),
            8 * strings.norb, stream,
        )  # fmt: skip
        self.device.synchronize(stream)  # the uploaded arrays end here

    def work(self, tasks: list[Task], interaction: Interaction) -> Work:
        """Counted work of one sigma of these prepared tasks."""
        return sum((self._work(task, interaction) for task in tasks), Work())

    def _work(self, task: Task, interaction: Interaction) -> Work:
        if task.kind != "mixed":
            return self._same_spin.work(task, interaction)
        low, high = rows = self.share.rows_of(task)
        columns = self._row_label[low:high] ^ self.layout.sector
        part = self._bra.stop[low:high] / np.maximum(self._bra.length[low:high], 1)
        beta = self.share.beta(task.db)
        counts = self.share.alpha(task.da, rows).counts.astype(np.float64)
        sizes = _rows_of(beta.sizes, columns)
        form = self._forms(task.da, task.db, rows)[self._row_label[low:high]]
        forms = (
            sizes.direct(counts * (form == _DIRECT), part[:, None]), sizes.product(counts * (form == _PRODUCT)),
            self._tiled(sizes, counts * (form == _TILED), task.da, task.db),
        )  # fmt: skip
        useful = (sizes.entries + sizes.diagonal) * counts * part[:, None]
        total = [float(sum(part.sum() for part in parts)) for parts in zip(*forms, strict=True)]
        return Work(float(useful.sum()), *total)

    def _kernel(self, name: str) -> Any:
        return self.device.kernel("sigma", name)

    def _offsets(self, task: Task) -> tuple[IntArray, DeviceArray]:
        """Flat offset of every row of the task's ket block, on the host and on the device."""
        return self._rows.ket_offsets(task.da, task.db)

    def _is_halved(self, da: int, db: int) -> bool:
        """Whether the tiled form does with half of the pairs: bra and ket block are their own mirror images.

        What rows of the task then give to sigma, all tasks together, is the same; a single one adds to other rows too.
        """
        return self.layout.is_triangle(self.ia, self.ib) and self.layout.grid[3] == 1 and da == db

    def _tiled(
        self, sizes: ListSizes, n_singles: FloatArray, da: int, db: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`ListSizes.tiled` of rows that meet block (ia + da, ib + db); without end where the form cannot be taken."""
        shape = self.share.tiled_shape(db)
        if shape is None:
            nothing = 0.0 * sizes.n_ket * n_singles
            return nothing, nothing, np.where(sizes.has_terms * n_singles > 0.0, np.inf, 0.0)
        return sizes.tiled(n_singles, self._is_halved(da, db), shape.n_sums == 0)

    def _forms(self, da: int, db: int, rows: Rows) -> NDArray[np.int8]:
        """(n_labels, n_labels) how rows of label x meet the beta list of pair label d; -1 where it is empty."""
        low, high = rows
        counts = self.share.alpha(da, rows).counts.astype(np.float64)
        sizes = self.share.beta(db).sizes
        labels = self._row_label[low:high]
        wanted = self._bra.stop[low:high] / np.maximum(self._bra.length[low:high], 1)
        chosen = np.full((len(self._labels), len(self._labels)), -1, np.int8)
        for x in np.unique(labels):
            of_rows, n = _rows_of(sizes, np.array([x ^ self.layout.sector])), counts[labels == x]
            seconds = np.stack(
                [
                    of_rows.direct(n, wanted[labels == x][:, None])[2].sum(axis=0),
                    of_rows.product(n)[2].sum(axis=0) + 4 * RATES.launch,
                    self._tiled(of_rows, n, da, db)[2].sum(axis=0),
                ]
            )
            best = np.argmin(seconds, axis=0) if self._form is None else _FORMS[self._form]
            chosen[x] = np.where(of_rows.has_terms[0], best, -1)
        return chosen

    def _plan_mixed(self, da: int, db: int, rows: Rows) -> _MixedPlan:
        low, high = rows
        forms, labels, stop = self._forms(da, db, rows), self._row_label[low:high], self._bra.stop[low:high]
        counts = self.share.alpha(da, rows).counts
        products = []
        for x, d in zip(*np.nonzero(forms == _PRODUCT), strict=True):
            there = np.flatnonzero((labels == x) & (counts[:, d] > 0) & (stop > 0))
            there = there[np.argsort(-counts[there, d], kind="stable")]
            if len(there) > 0:
                number = int((x ^ self.layout.sector) * len(self._labels) + d)
                where = self.device.upload((low + there).astype(np.int32))
                products.append(_Products(number, int(d), where, counts[there, d], int(stop[there].max())))
        halved = self._is_halved(da, db)
        tiled = self._plan_tiled(counts * (forms == _TILED)[labels], db, rows, halved)
        if tiled:
            self.share.tiled(db)
        fold = None
        if tiled and halved:
            fold = self._fold = self._fold or Fold(self.device, self._bra, self.layout.parity)
        return _MixedPlan(self._plan_direct(counts * (forms == _DIRECT)[labels], db, rows), products, tiled, fold)

    def _plan_direct(self, counts: IntArray, db: int, rows: Rows) -> list[tuple[int, Blocks]]:
        """Thread blocks for rows with so many singles of every label."""
        low, high = rows
        stop = self._bra.stop[low:high]
        sizes = _rows_of(self.share.beta(db).sizes, self._row_label[low:high] ^ self.layout.sector)
        cost = sizes.direct(counts.astype(np.float64))[2]
        n_threads = self._threads(stop, 512)
        direct = []
        for d in np.flatnonzero(cost.any(axis=0)):
            blocks = lists.stretches(cost[:, d], stop, n_threads * COLUMNS, low)
            direct.append((int(d), Blocks(tuple(map(self.device.upload, blocks)), len(blocks[0]), n_threads)))
        return direct

    def _plan_tiled(self, counts: IntArray, db: int, rows: Rows, halved: bool) -> dict[int, DeviceArray]:
        """Bra rows with so many singles of every label.

        Neighbours share ket rows, which the second-level cache keeps while they run together. Where rows are few those
        with most work come first instead, so that no processor is left alone with one in the end.
        """
        low, high = rows
        wanted = (self._bra.stop[low:high] > 0) | halved  # what rows do not store themselves goes to mirror images
        sizes = _rows_of(self.share.list_sizes(db), self._row_label[low:high] ^ self.layout.sector)
        cost = sizes.tiled(counts.astype(np.float64))[2] * wanted[:, None]
        plan = {}
        for d in np.flatnonzero(cost.any(axis=0)):
            there = np.flatnonzero(cost[:, d])
            if len(there) < _FEW_ROWS * self.device.limits.n_processors:
                there = there[np.argsort(-cost[there, d], kind="stable")]
            plan[int(d)] = self.device.upload((low + there).astype(np.int32))
        return plan

    def _threads(self, stop: IntArray, most: int) -> int:
        """Threads of a block: enough for the longest row at COLUMNS each, in steps of 64."""
        return self._rows.n_threads(stop, most)

    def _apply_direct(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, stream: Stream
    ) -> None:
        rows = self.share.rows_of(task)
        plan = self._mixed[task.da, task.db, rows]
        coupling, twist = self.share.interaction(interaction)
        for d, blocks in plan.direct:
            self._launch_direct(task, d, blocks, ket, sigma, coupling, interaction.swap, False, stream)
            if interaction.twist is not None:
                self._launch_direct(task, d, blocks, ket, sigma, twist, 0.0, True, stream)

    def _apply_tiled(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, stream: Stream
    ) -> None:
        rows = self.share.rows_of(task)
        plan = self._mixed[task.da, task.db, rows]
        if not plan.tiled:
            return
        alpha = self.share.alpha(task.da, rows)
        side = AlphaSide(
            self._bra_offset, self._bra_stop, self._bra_label, self._offsets(task)[1], rows[0], alpha.start, alpha.ket,
            alpha.pair, alpha.sign, self.layout.n_labels, self.layout.sector,
        )  # fmt: skip
        apply_tiled(
            self.device, plan.tiled, side, self.share.tiled(task.db), plan.fold, ket, sigma, interaction,
            self.share.interaction(interaction), stream,
        )  # fmt: skip

    def _launch_direct(
        self, task: Task, d: int, blocks: Blocks, ket: DeviceArray, sigma: DeviceArray, coupling: DeviceArray,
        swap: float, turned: bool, stream: Stream,
    ) -> None:  # fmt: skip
        rows = self.share.rows_of(task)
        alpha, beta = self.share.alpha(task.da, rows), self.share.beta(task.db)
        self._kernel("opposite_direct")(
            blocks.n_blocks, blocks.n_threads,
            (
                ket, sigma, *blocks.arrays, self._bra_offset, self._bra_stop, self._bra_label,
                self._offsets(task)[1], coupling, np.int64(self.share.n_pairs), np.float64(swap), np.int32(turned),
                np.int64(rows[0]), np.int64(self.layout.n_labels), np.int64(self.layout.sector), np.int64(d),
                alpha.start, alpha.ket, alpha.pair, alpha.sign, beta.table, beta.entries, beta.slice_start, beta.counts,
                beta.order, beta.used, beta.occupied, np.int64(beta.n_electrons), np.int64(beta.tiles.width),
                np.int64(beta.tiles.batch), np.int64(beta.tiles.staged),
            ),
            beta.tiles.shared_bytes, stream,
        )  # fmt: skip

    def _apply_products(
        self, task: Task, products: _Products, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction,
        stream: Stream,
    ) -> None:  # fmt: skip
        rows = self.share.rows_of(task)
        alpha, beta = self.share.alpha(task.da, rows), self.share.beta(task.db)
        list_row = beta.host.table[products.list_number]
        directed = interaction.swap != 0.0 or interaction.twist is not None
        n_weights = int(list_row[lists.N_USED]) * (2 if directed else 1)
        n_ket = int(list_row[lists.N_KET])
        first_used = int(list_row[lists.FIRST_USED])
        used = beta.used[first_used : first_used + int(list_row[lists.N_USED])]
        first = 0
        while first < len(products.depth):
            depth = int(products.depth[first])
            per_row = n_weights * depth + depth * n_ket + n_weights * n_ket
            scratch = self._scratch_of(per_row, min(len(products.depth) - first, _MOST_STACKED) * per_row)
            n = min(len(products.depth) - first, int(scratch.size) // per_row, _MOST_STACKED)
            some = products.rows[first : first + n]
            sizes = np.cumsum([n * n_weights * depth, n * depth * n_ket, n * n_weights * n_ket])
            weights = scratch[: int(sizes[0])].reshape(n, n_weights, depth)
            gathered = scratch[int(sizes[0]) : int(sizes[1])].reshape(n, depth, n_ket)
            product = scratch[int(sizes[1]) : int(sizes[2])].reshape(n, n_weights, n_ket)
            self._fill_factors(task, products, alpha, some, used, weights, gathered, ket, interaction, directed, stream)
            self.device.gemm(weights, gathered, product, stream=stream)
            n_stretches = -(-products.longest // _THREADS)
            self._kernel("opposite_contract")(
                n * n_stretches, _THREADS,
                (
                    product, sigma, some, np.int64(n_stretches), self._bra_offset, self._bra_stop, beta.table,
                    np.int64(products.list_number), beta.entries, beta.slice_start, beta.counts, beta.order,
                    beta.occupied, np.int64(beta.n_electrons), np.int64(beta.tiles.width), np.int32(directed),
                    np.int64(n_weights),
                ),
                0, stream,
            )  # fmt: skip
            first += n

    def _fill_factors(
        self, task: Task, products: _Products, alpha: DeviceAlpha, some: DeviceArray, used: DeviceArray,
        weights: DeviceArray, gathered: DeviceArray, ket: DeviceArray, interaction: Interaction, directed: bool,
        stream: Stream,
    ) -> None:  # fmt: skip
        coupling, twist = self.share.interaction(interaction)
        n, n_weights, depth = weights.shape
        low, n_labels, d = np.int64(self.share.rows_of(task)[0]), np.int64(self.layout.n_labels), np.int64(products.d)
        self._kernel("opposite_weights")(
            n, _THREADS,
            (
                weights, some, coupling, twist, np.int64(self.share.n_pairs), np.float64(interaction.swap),
                np.int32(directed), np.int32(interaction.twist is not None), low, n_labels, d, alpha.start,
                alpha.pair, alpha.sign, used, np.int64(n_weights), np.int64(depth),
            ),
            0, stream,
        )  # fmt: skip
        self._kernel("opposite_gather")(
            n * depth, _THREADS,
            (
                ket, gathered, some, self._offsets(task)[1], low, n_labels, d, alpha.start, alpha.ket,
                np.int64(depth), np.int64(gathered.shape[2]),
            ),
            0, stream,
        )  # fmt: skip

    def _scratch_of(self, least: int, wanted: int) -> DeviceArray:
        """Scratch for the matrix products: as many float64 as wanted where they are to spare, and at least `least`."""
        size = 0 if self._scratch is None else self._scratch.size
        if size < least or (size < wanted and 8 * size < _SCRATCH_BYTES):
            self._scratch = None
            most = min(_SCRATCH_BYTES, self.device.memory()[0] // 8) // 8
            self._scratch = self.device.empty(max(min(most, wanted), least))
        return self._scratch


def _rows_of(sizes: ListSizes, columns: NDArray[Any]) -> ListSizes:
    """Sizes (n_rows, n_labels) for rows whose columns have the given labels."""
    return ListSizes(
        sizes.entries[columns], sizes.diagonal[columns], sizes.n_columns[columns], sizes.n_ket[columns],
        sizes.n_used[columns],
    )  # fmt: skip
