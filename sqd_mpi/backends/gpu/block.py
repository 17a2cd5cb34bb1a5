"""The factorised sigma on a GPU (definition of the sums: `plain_kernels`; the loops: sigma.cu; layout: docs/gpu.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.backends import FloatArray, Interaction, Task, structure
from sqd_mpi.backends.cpu import Place, Rows
from sqd_mpi.backends.gpu import lists
from sqd_mpi.backends.gpu.device import DeviceArray, Stream
from sqd_mpi.backends.gpu.share import DeviceAlpha, GpuShare
from sqd_mpi.layout import Layout
from sqd_mpi.planner.device_costs import RATES, ListSizes, Work, alpha_work, beta_work, opposite_forms

IntArray = NDArray[np.int64]

COLUMNS = 4  # bra columns of a thread, as in sigma.cu
_SCRATCH_BYTES = 512 * 1024**2  # of the matrix products, at most; and not more than an eighth of what is free
_MOST_STACKED = 32768  # matrices in one product
_THREADS = 256


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Thread blocks of a launch: the arrays that say which row and stretch of columns each has."""

    arrays: tuple[DeviceArray, ...] = field(repr=False)
    n_blocks: int
    n_threads: int


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
    """How a mixed task is done: thread blocks of the direct form for labels of orbital pairs, and matrix products."""

    direct: list[tuple[int, _Blocks]]
    products: list[_Products]


class GpuBlock:
    """One rank's share of sigma for one sector; see `SigmaBlock`. Vectors are arrays of the device.

    Args:
        layout: of the sector.
        place: (ia, ib, it, ir).
        share: string structure on the device.
        form: "direct" or "product" takes that form of the opposite-spin sum everywhere; None the cheaper one.
    """

    mirrored = None  # threads beyond the mirror line end at once: triangles cost half, and all ket blocks are met

    def __init__(self, layout: Layout, place: Place, share: GpuShare, form: str | None = None):
        self.layout, self.share, self.device = layout, share, share.device
        self.ia, self.ib, self.it, self.ir = place
        self._form = form
        self._bra = layout.bra_rows(self.ia, self.ir, self.ib)
        self._labels = np.arange(layout.n_labels)
        self._row_label = np.repeat(self._labels, np.diff(self._bra.label_start))
        up = self.device.upload
        self._bra_offset, self._bra_stop = up(self._bra.offset), up(self._bra.stop)
        self._bra_label = up(self._row_label.astype(np.int32))
        occupied = structure.diagonal_pairs(layout.alpha.strings[self._bra.alpha])
        self._alpha_pair, self._n_alpha = up(occupied), occupied.shape[1]
        self._ket_offset: dict[tuple[int, int], tuple[IntArray, DeviceArray]] = {}
        self._own_offset: dict[int, DeviceArray] = {}
        self._mixed: dict[tuple[int, int, Rows], _MixedPlan] = {}
        self._alpha_blocks: dict[tuple[int, Rows], _Blocks] = {}
        self._beta_blocks: dict[tuple[int, Rows], _Blocks] = {}
        self._scratch: DeviceArray | None = None

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
        strings, columns = self.share.strings, self._row_label ^ self.layout.sector
        wanted = self._bra.stop / np.maximum(self._bra.length, 1)
        if task.kind == "alpha":
            return np.asarray(strings.alpha_terms[0][:, task.da] * self._bra.stop / RATES.sparse)
        if task.kind == "beta":
            return np.asarray(strings.beta_terms[0][columns, task.db] * wanted / RATES.sparse)
        counts = strings.singles_per_row[:, task.da].astype(np.float64)
        sizes = _rows_of(self.share.list_sizes(task.db), columns)
        seconds = np.minimum.reduce([form[2] for form in opposite_forms(sizes, counts, wanted[:, None])])
        return np.asarray(seconds.sum(axis=1))

    def prepare(self, tasks: list[Task]) -> None:
        """Upload what these tasks need, forget what none of them needs, and cut their work into thread blocks."""
        share = self.share
        share.keep_only(tasks)
        mixed, alpha_blocks, beta_blocks = {}, {}, {}
        for task in tasks:
            rows = share.rows_of(task)
            self._offsets(task)
            if task.kind == "mixed":
                mixed[task.da, task.db, rows] = self._plan_mixed(task.da, task.db, rows)
            elif task.kind == "alpha":
                alpha_blocks[task.da, rows] = self._plan_alpha(task.da, rows)
            else:
                share.beta_hamiltonian(task.db)
                beta_blocks[task.db, rows] = self._plan_beta(task.db, rows)
                offset = self._offsets(task)[0][self._bra.block_row]
                self._own_offset[task.db] = self.device.upload(offset)
        self._mixed, self._alpha_blocks, self._beta_blocks = mixed, alpha_blocks, beta_blocks
        share.strings.keep_only([])

    def apply(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, stream: Stream = None
    ) -> None:
        """sigma += this task's part; see `SigmaBlock.apply`."""
        if task.kind == "mixed":
            self._apply_direct(task, ket, sigma, interaction, stream)
            for products in self._mixed[task.da, task.db, self.share.rows_of(task)].products:
                self._apply_products(task, products, ket, sigma, interaction, stream)
        elif interaction.same_spin and task.kind == "alpha":
            self._apply_alpha(task, ket, sigma, stream)
        elif task.kind == "beta" and (interaction.same_spin or interaction.twist is not None):
            self._apply_beta(task, ket, sigma, interaction, stream)

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
        low, high = rows = self.share.rows_of(task)
        stop = self._bra.stop[low:high].astype(np.float64)
        if task.kind == "alpha":
            per_row = self.share.alpha_hamiltonian(task.da, rows).terms.astype(np.float64)
            return alpha_work(per_row, stop) if interaction.same_spin else Work()
        columns = self._row_label[low:high] ^ self.layout.sector
        part = stop / np.maximum(self._bra.length[low:high], 1)
        beta = self.share.beta(task.db)
        if task.kind == "beta":
            terms = self.share.beta_hamiltonian(task.db).terms if interaction.same_spin else beta.sizes.entries[:, 0]
            return beta_work(terms[columns] * part, stop, beta.tiles.batch)
        counts = self.share.alpha(task.da, rows).counts.astype(np.float64)
        sizes = _rows_of(beta.sizes, columns)
        product = self._takes_product(task.da, task.db, rows)[self._row_label[low:high]]
        direct, other = sizes.direct(counts * ~product, part[:, None]), sizes.product(counts * product)
        useful = (sizes.entries + sizes.diagonal) * counts * part[:, None]
        total = [float(first.sum() + second.sum()) for first, second in zip(direct, other, strict=True)]
        return Work(float(useful.sum()), *total)

    def _kernel(self, name: str) -> Any:
        return self.device.kernel("sigma", name)

    def _offsets(self, task: Task) -> tuple[IntArray, DeviceArray]:
        """Flat offset of every row of the task's ket block, on the host and on the device."""
        a, b, _, _ = self.layout.grid
        key = ((self.ia + task.da) % a, (self.ib + task.db) % b)
        if key not in self._ket_offset:
            offsets = self.layout.ket_offsets(*key)
            self._ket_offset[key] = offsets, self.device.upload(offsets)
        return self._ket_offset[key]

    def _takes_product(self, da: int, db: int, rows: Rows) -> NDArray[np.bool_]:
        """(n_labels, n_labels) whether rows of label x meet the beta list of pair label d by matrix products."""
        low, high = rows
        counts = self.share.alpha(da, rows).counts.astype(np.float64)
        sizes = self.share.beta(db).sizes
        labels = self._row_label[low:high]
        wanted = self._bra.stop[low:high] / np.maximum(self._bra.length[low:high], 1)
        chosen = np.zeros((len(self._labels), len(self._labels)), bool)
        for x in np.unique(labels):
            of_rows = _rows_of(sizes, np.array([x ^ self.layout.sector]))
            direct = of_rows.direct(counts[labels == x], wanted[labels == x][:, None])[2].sum(axis=0)
            product = of_rows.product(counts[labels == x])[2].sum(axis=0) + 4 * RATES.launch
            chosen[x] = of_rows.has_terms[0] & ((product < direct) if self._form is None else self._form == "product")
        return chosen

    def _plan_mixed(self, da: int, db: int, rows: Rows) -> _MixedPlan:
        low, high = rows
        alpha, beta = self.share.alpha(da, rows), self.share.beta(db)
        product = self._takes_product(da, db, rows)
        labels, stop = self._row_label[low:high], self._bra.stop[low:high]
        sizes = _rows_of(beta.sizes, labels ^ self.layout.sector)
        wanted = _rows_of(beta.sizes, self._labels ^ self.layout.sector).has_terms & ~product
        cost = sizes.direct((alpha.counts * wanted[labels]).astype(np.float64))[2]
        n_threads = self._threads(stop, 512)
        direct = []
        for d in np.flatnonzero(cost.any(axis=0)):
            blocks = lists.stretches(cost[:, d], stop, n_threads * COLUMNS, low)
            direct.append((int(d), _Blocks(tuple(map(self.device.upload, blocks)), len(blocks[0]), n_threads)))
        products = []
        for x, d in zip(*np.nonzero(product), strict=True):
            there = np.flatnonzero((labels == x) & (alpha.counts[:, d] > 0) & (stop > 0))
            there = there[np.argsort(-alpha.counts[there, d], kind="stable")]
            if len(there) > 0:
                number = int((x ^ self.layout.sector) * len(self._labels) + d)
                where = self.device.upload((low + there).astype(np.int32))
                products.append(_Products(number, int(d), where, alpha.counts[there, d], int(stop[there].max())))
        return _MixedPlan(direct, products)

    def _plan_alpha(self, da: int, rows: Rows) -> _Blocks:
        low, high = rows
        stop = self._bra.stop[low:high]
        n_threads = self._threads(stop, _THREADS)
        terms = self.share.alpha_hamiltonian(da, rows).terms.astype(np.float64)
        blocks = lists.stretches(terms, stop, n_threads * COLUMNS, low)
        return _Blocks(tuple(self.device.upload(part) for part in blocks), len(blocks[0]), n_threads)

    def _plan_beta(self, db: int, rows: Rows) -> _Blocks:
        n_threads = self._threads(self._bra.stop[rows[0] : rows[1]], _THREADS)
        group = self.share.beta(db).tiles.batch
        blocks = lists.row_groups(self._bra.label_start, self._bra.stop, rows, group, n_threads * COLUMNS)
        return _Blocks(tuple(self.device.upload(part) for part in blocks), len(blocks[0]), n_threads)

    def _threads(self, stop: IntArray, most: int) -> int:
        """Threads of a block: enough for the longest row at COLUMNS each, in steps of 64."""
        wanted = -(-int(stop.max(initial=1)) // COLUMNS)
        return min(-(-wanted // 64) * 64, most, self.device.limits.threads)

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

    def _launch_direct(
        self, task: Task, d: int, blocks: _Blocks, ket: DeviceArray, sigma: DeviceArray, coupling: DeviceArray,
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

    def _apply_alpha(self, task: Task, ket: DeviceArray, sigma: DeviceArray, stream: Stream) -> None:
        rows = self.share.rows_of(task)
        blocks, found = self._alpha_blocks[task.da, rows], self.share.alpha_hamiltonian(task.da, rows)
        self._kernel("alpha_rows")(
            blocks.n_blocks, blocks.n_threads,
            (
                ket, sigma, *blocks.arrays, self._bra_offset, self._bra_stop, self._offsets(task)[1],
                np.int64(rows[0]), found.indptr, found.column, found.value,
            ),
            16 * blocks.n_threads, stream,
        )  # fmt: skip

    def _apply_beta(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, stream: Stream
    ) -> None:
        blocks = self._beta_blocks[task.db, self.share.rows_of(task)]
        beta, doubles = self.share.beta(task.db), self.share.beta_hamiltonian(task.db)
        coupling, _ = self.share.interaction(interaction)
        vectors = (
            ket, sigma, *blocks.arrays, self._bra_offset, self._bra_stop, self._bra_label, self._own_offset[task.db]
        )  # fmt: skip
        sector, width = np.int64(self.layout.sector), np.int64(beta.tiles.width)
        self._kernel("beta_singles")(
            blocks.n_blocks, blocks.n_threads,
            (
                *vectors, coupling, np.int64(self.share.n_pairs), np.int32(interaction.same_spin),
                np.int64(self.layout.n_labels), sector, self._alpha_pair, np.int64(self._n_alpha), beta.table,
                beta.entries, beta.slice_start, beta.counts, beta.order, doubles.single_value, beta.used, width,
                np.int64(beta.tiles.staged),
            ),
            beta.tiles.shared_bytes, stream,
        )  # fmt: skip
        if interaction.same_spin:
            self._kernel("beta_doubles")(
                blocks.n_blocks, blocks.n_threads,
                (
                    *vectors, sector, doubles.table, doubles.column, doubles.slice_start, doubles.counts,
                    doubles.order, doubles.value, width,
                ),
                8 * beta.tiles.batch * beta.tiles.width, stream,
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
