"""Same-spin tasks on a GPU: H_alpha and H_beta as sparse rows or, for the labels where that is faster, dense matrices.

Rows of one label lie next to each other, so sigma[rows, :] += H_alpha C and sigma[rows, :] += C H_beta^T are matrix
products for every label. Triangles of spin-flip symmetry are cut into chunks of rows, each computed up to its longest
row in scratch memory and added up to the end of every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray
from sqd_mpi.backends.cpu.block import RowRange
from sqd_mpi.backends.gpu import costs, lists
from sqd_mpi.backends.gpu.costs import TaskWork, alpha_work, beta_work, dense_work
from sqd_mpi.backends.gpu.device import DeviceArray, Stream
from sqd_mpi.backends.gpu.matrices import DeviceDoubles, DeviceRows, Stretches
from sqd_mpi.backends.gpu.rows import COLUMNS, BlockRows, Blocks, contiguous
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.backends.protocol import Task
from sqd_mpi.problem.interaction import Interaction

Scratch = Callable[[int, int], DeviceArray]

_THREADS = 256


@dataclass(frozen=True)
class Product:
    """A matrix product for some rows of one label."""

    first: int
    """First row of the sub-block."""
    last: int
    """Last one, excluded."""
    stop: int
    """How many of their first columns are computed."""
    in_place: bool
    """Whether each of the rows has just as many columns, so that they are a matrix in sigma."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """How a same-spin task is done."""

    dense: frozenset[int]
    """String labels (of rows for alpha, of columns for beta) with a matrix."""
    stretches: Stretches = field(repr=False)
    """Stretches of the ket rows of these labels, for alpha."""
    products: list[tuple[int, Product, int]] = field(repr=False)
    """Row label, product and, for beta, where its rows begin in the ket block."""
    sparse: Blocks = field(repr=False)
    """Thread blocks of the rows of the other labels."""
    field_only: Blocks = field(repr=False)
    """Thread blocks of the rows of labels with a matrix, for beta."""


class SameSpin:
    """Same-spin tasks of one block.

    Args:
        rows: bra rows of the block.
        share: string structure on the device.
        form: "dense" or "sparse" takes that form everywhere; None the faster one where its matrices fit.
    """

    def __init__(self, rows: BlockRows, share: GpuShare, form: str | None = None):
        self.rows, self.share, self.device, self._form = rows, share, share.device, form
        self.layout = rows.layout
        self._saved: dict[tuple[str, int], tuple[FloatArray, FloatArray]] = {}
        self._alpha: dict[tuple[int, RowRange], _Plan] = {}
        self._beta: dict[tuple[int, RowRange], _Plan] = {}

    def row_costs(self, task: Task) -> FloatArray:
        """(n_rows,) predicted seconds of a task for every bra row: those of the faster form, as if all matrices fitted.

        Ranks assign tasks by them without a word, so they depend on nothing but the layout.
        """
        bra, strings = self.rows.bra, self.share.strings
        wanted = bra.stop / np.maximum(bra.length, 1)
        _, dense = self._seconds(task)
        per_row = dense[self.rows.label] * bra.stop / self._total_of_label(bra.stop)
        chosen = self._saves(task)[self.rows.label]
        if task.kind == "alpha":
            return np.where(chosen, per_row, strings.alpha_terms[0][:, task.da] * bra.stop / costs.RATES.sparse)
        columns = self.rows.label ^ self.layout.sector
        terms = strings.beta_terms[0][columns, task.db]
        entries = self.share.list_sizes(task.db).entries[columns, 0]
        return np.where(chosen, entries * wanted / costs.RATES.sparse + per_row, terms * wanted / costs.RATES.sparse)

    def prepare(self, tasks: list[Task]) -> None:
        """Choose the form of every label, build what these tasks need, and cut their work into launches."""
        chosen = self._chosen(tasks)
        alpha, beta = {}, {}
        for task in tasks:
            rows = self.share.rows_of(task)
            if task.kind == "alpha":
                alpha[task.da, rows] = self._plan_alpha(task, rows, chosen["alpha", task.da, rows])
            elif task.kind == "beta":
                beta[task.db, rows] = self._plan_beta(task, rows, chosen["beta", task.db, None])
        self._alpha, self._beta = alpha, beta

    def work(self, task: Task, interaction: Interaction) -> TaskWork:
        """Counted work of a prepared task."""
        low, high = rows = self.share.rows_of(task)
        label, stop = self.rows.label[low:high], self.rows.bra.stop[low:high].astype(np.float64)
        if task.kind == "alpha":
            if not interaction.same_spin:
                return TaskWork()
            plan = self._alpha[task.da, rows]
            per_row = self._alpha_rows(task.da, rows, plan.dense, plan.stretches).terms.astype(np.float64)
            is_dense = np.isin(label, list(plan.dense))
            _, ket_start = self.layout.ket_rows(self.rows.ket_block(task.da, 0)[0])
            useful = float((per_row * stop)[is_dense].sum())
            sparse = alpha_work(per_row[~is_dense], stop[~is_dense])
            return sparse + self._dense_work(plan, useful, np.diff(ket_start).astype(np.float64))
        columns, plan = label ^ self.layout.sector, self._beta[task.db, rows]
        part = stop / np.maximum(self.rows.bra.length[low:high], 1)
        beta, is_dense = self.share.beta(task.db), np.isin(columns, list(plan.dense))
        entries = beta.sizes.entries[columns, 0] * part
        if not interaction.same_spin:
            return beta_work(entries, stop, beta.tiles.batch)
        terms = self._doubles(task.db, plan).terms[columns] * part
        sparse = beta_work(np.where(is_dense, entries, terms), stop, beta.tiles.batch)
        useful = float((terms - entries)[is_dense].sum())  # the field has counted the singles
        n_ket = self.layout.row_lengths(self.rows.ket_block(0, task.db)[1]).astype(np.float64)
        return sparse + self._dense_work(plan, useful, n_ket)

    def apply_alpha(self, task: Task, ket: DeviceArray, sigma: DeviceArray, scratch: Scratch, stream: Stream) -> None:
        """sigma += H_alpha C for the rows of a task."""
        rows = self.share.rows_of(task)
        plan = self._alpha[task.da, rows]
        found = self._alpha_rows(task.da, rows, plan.dense, plan.stretches)
        self._kernel("alpha_rows")(
            plan.sparse.n_blocks, plan.sparse.n_threads,
            (
                ket, sigma, *plan.sparse.arrays, self.rows.offset, self.rows.stop,
                self.rows.ket_offsets(task.da, task.db)[1], np.int64(rows[0]), found.indptr, found.column, found.value,
            ),
            16 * plan.sparse.n_threads, stream,
        )  # fmt: skip
        lengths, start = self.layout.row_lengths(self.rows.ib), np.clip(self.rows.bra.label_start, *rows)
        for x, product, _ in plan.products:
            n_rows, length = int(start[x + 1] - start[x]), int(lengths[x])
            own = slice(product.first - int(start[x]), product.last - int(start[x]))
            out, beta = self._out(product, sigma, scratch)
            for first, last, offset in plan.stretches[x]:
                n_ket = last - first
                matrix = found.matrices[x][n_rows * first : n_rows * last].reshape(n_rows, n_ket)[own]
                part = ket[offset : offset + n_ket * length].reshape(n_ket, length)
                self.device.gemm(matrix, part, out, beta=beta, stream=stream, columns=product.stop)
                beta = 1.0
            self._add(product, out, sigma, stream)

    def apply_beta(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, scratch: Scratch,
        stream: Stream,
    ) -> None:  # fmt: skip
        """sigma += C H_beta^T for the rows of a task, and the field of their occupied orbitals."""
        plan = self._beta[task.db, self.share.rows_of(task)]
        doubles, same_spin = self._doubles(task.db, plan), interaction.same_spin
        self._singles(task, plan.sparse, same_spin, ket, sigma, interaction, stream)
        self._singles(task, plan.field_only, False, ket, sigma, interaction, stream)
        if not same_spin:
            return
        blocks, tiles = plan.sparse, self.share.beta(task.db).tiles
        self._kernel("beta_doubles")(
            blocks.n_blocks, blocks.n_threads,
            (
                *self._beta_arguments(task, blocks, ket, sigma), np.int64(self.layout.sector), doubles.table,
                doubles.column, doubles.slice_start, doubles.counts, doubles.order, doubles.value,
                np.int64(tiles.width),
            ),
            8 * tiles.batch * tiles.width, stream,
        )  # fmt: skip
        for x, product, offset in plan.products:
            matrix = doubles.matrices[x ^ self.layout.sector]
            n_rows, n_ket = product.last - product.first, matrix.shape[1]
            part = ket[offset : offset + n_rows * n_ket].reshape(n_rows, n_ket)
            out, beta = self._out(product, sigma, scratch)
            self.device.gemm(part, matrix[: product.stop], out, beta=beta, transpose_b=True, stream=stream)
            self._add(product, out, sigma, stream)

    def _kernel(self, name: str) -> Any:
        return self.device.kernel("sigma", name)

    def _alpha_rows(self, da: int, rows: RowRange, dense: frozenset[int], stretches: Stretches) -> DeviceRows:
        return self.share.alpha_hamiltonian(da, rows, dense, stretches)

    def _doubles(self, db: int, plan: _Plan) -> DeviceDoubles:
        return self.share.beta_hamiltonian(db, plan.dense)

    def _beta_arguments(self, task: Task, blocks: Blocks, ket: DeviceArray, sigma: DeviceArray) -> tuple[Any, ...]:
        rows = self.rows
        return ket, sigma, *blocks.arrays, rows.offset, rows.stop, rows.label_there, rows.own_offsets_there(task.db)

    def _singles(
        self, task: Task, blocks: Blocks, same_spin: bool, ket: DeviceArray, sigma: DeviceArray,
        interaction: Interaction, stream: Stream,
    ) -> None:  # fmt: skip
        """The beta singles of some rows: the field of the alpha string and, with `same_spin`, their own elements."""
        beta, plan = self.share.beta(task.db), self._beta[task.db, self.share.rows_of(task)]
        coupling, _ = self.share.interaction(interaction)
        self._kernel("beta_singles")(
            blocks.n_blocks, blocks.n_threads,
            (
                *self._beta_arguments(task, blocks, ket, sigma), coupling, np.int64(self.share.n_pairs),
                np.int32(same_spin), np.int64(self.layout.n_labels), np.int64(self.layout.sector),
                self.rows.alpha_pair, np.int64(self.rows.n_alpha), beta.table, beta.entries, beta.slice_start,
                beta.counts, beta.order, self._doubles(task.db, plan).single_value, beta.used,
                np.int64(beta.tiles.width), np.int64(beta.tiles.staged),
            ),
            beta.tiles.shared_bytes, stream,
        )  # fmt: skip

    def _out(self, product: Product, sigma: DeviceArray, scratch: Scratch) -> tuple[DeviceArray, float]:
        """Where a product is written, as a matrix, and the factor of what stands there."""
        n_rows = product.last - product.first
        size = n_rows * product.stop
        if product.in_place:
            first = int(self.rows.bra.offset[product.first])
            return sigma[first : first + size].reshape(n_rows, product.stop), 1.0
        return scratch(size, size)[:size].reshape(n_rows, product.stop), 0.0

    def _add(self, product: Product, out: DeviceArray, sigma: DeviceArray, stream: Stream) -> None:
        """Add a product to the wanted columns of sigma, unless it stands there already."""
        if product.in_place:
            return
        self.device.kernel("same_spin", "add_wanted")(
            product.last - product.first, _THREADS,
            (out, sigma, self.rows.offset, self.rows.stop, np.int64(product.first), np.int64(product.stop)), 0, stream,
        )  # fmt: skip

    def _plan_alpha(self, task: Task, rows: RowRange, dense: frozenset[int]) -> _Plan:
        low, high = rows
        stop, label = self.rows.bra.stop[low:high], self.rows.label[low:high]
        stretches = {x: self.rows.ket_stretches(task.da, x) for x in sorted(dense)}
        products = [(x, product, 0) for x in stretches for product in self._products(x, rows)]
        terms = self._alpha_rows(task.da, rows, dense, stretches).terms * ~np.isin(label, list(dense))
        n_threads = self.rows.n_threads(stop, _THREADS)
        arrays = lists.stretches(terms.astype(np.float64), stop, n_threads * COLUMNS, low)
        return _Plan(dense, stretches, products, self._blocks(arrays, n_threads), self._blocks((), n_threads))

    def _plan_beta(self, task: Task, rows: RowRange, dense: frozenset[int]) -> _Plan:
        own, bra = self.rows.own_offsets(task.db), self.rows.bra
        n_ket = self.layout.row_lengths(self.rows.ket_block(0, task.db)[1])
        products = []
        for x in sorted(y ^ self.layout.sector for y in dense):
            low, high = (int(row) for row in np.clip(bra.label_start[x : x + 2], *rows))
            for first, last in contiguous(own[low:high], int(n_ket[x])):
                found = self._products(x, (low + first, low + last))
                products += [(x, product, int(own[product.first])) for product in found]
        n_threads = self.rows.n_threads(bra.stop[rows[0] : rows[1]], _THREADS)
        group = self.share.beta(task.db).tiles.batch
        table = lists.row_groups(bra.label_start, bra.stop, rows, group, n_threads * COLUMNS)
        is_dense = np.isin(self.rows.label[table[0]] ^ self.layout.sector, list(dense))
        sparse, field_only = (
            self._blocks(tuple(part[chosen] for part in table), n_threads) for chosen in (~is_dense, is_dense)
        )
        self.share.beta_hamiltonian(task.db, dense)
        return _Plan(dense, {}, products, sparse, field_only)

    def _blocks(self, arrays: tuple[NDArray[np.int32], ...], n_threads: int) -> Blocks:
        n_blocks = len(arrays[0]) if arrays else 0
        return Blocks(tuple(self.device.upload(part) for part in arrays), n_blocks, n_threads)

    def _products(self, x: int, rows: RowRange) -> list[Product]:
        """Products for the rows of a label in a range: one, or chunks where rows are of different lengths."""
        first, last = (int(row) for row in np.clip(self.rows.bra.label_start[x : x + 2], *rows))
        stop = self.rows.bra.stop[first:last]
        longest = int(stop.max(initial=0))
        if longest == 0:
            return []
        if int(stop.min()) == longest:
            return [Product(first, last, longest, True)]
        found, step = [], costs.chunk_rows(last - first, longest)
        for low in range(first, last, step):
            part = stop[low - first : low - first + step]
            if part.max() > 0:
                found.append(Product(low, low + len(part), int(part.max()), bool(part.min() == part.max())))
        return found

    def _dense_work(self, plan: _Plan, useful: float, n_inner: FloatArray) -> TaskWork:
        """Work of the products of a plan; n_inner: (n_labels,) their depth by label of rows."""
        if not plan.products:
            return TaskWork()
        labels = [x for x, _, _ in plan.products]
        return _work_of([product for _, product, _ in plan.products], useful, n_inner[labels])

    def _chosen(self, tasks: list[Task]) -> dict[tuple[str, int, RowRange | None], frozenset[int]]:
        """Labels with a matrix, for rows of alpha tasks and for ket blocks of beta tasks."""
        keys = {
            (task.kind, task.da if task.kind == "alpha" else task.db, self._key_rows(task)): task
            for task in tasks if task.kind != "mixed"
        }  # fmt: skip
        n_labels = self.layout.n_labels
        saved = np.array([self._saved_seconds(task) for task in keys.values()]).reshape(-1)
        n_bytes = np.array([self._matrix_bytes(task) for task in keys.values()]).reshape(-1)
        taken = costs.choose(np.where(n_bytes > 0.0, saved, 0.0), n_bytes, self._bound()).reshape(-1, n_labels)
        mirror = {"alpha": 0, "beta": self.layout.sector}  # by string label
        return {
            key: frozenset(int(x) ^ mirror[key[0]] for x in np.flatnonzero(row))
            for key, row in zip(keys, taken, strict=True)
        }

    def _key_rows(self, task: Task) -> RowRange | None:
        return self.share.rows_of(task) if task.kind == "alpha" else None

    def _bound(self) -> float:
        """Bytes that all matrices may take."""
        spare = self.device.spare_bytes
        return self.device.memory()[1] * costs.MEMORY_SHARE if spare is None else spare

    def _matrix_bytes(self, task: Task) -> FloatArray:
        """(n_labels,) bytes of the matrices of a task, by label of rows; 0 where nothing is wanted."""
        ja, jb = self.rows.ket_block(task.da, task.db)
        stop = np.bincount(self.rows.label, weights=self.rows.bra.stop, minlength=self.layout.n_labels)
        n_rows: NDArray[Any] = self.layout.row_lengths(self.rows.ib)
        n_ket = self.layout.row_lengths(jb)
        if task.kind == "alpha":
            n_rows = np.diff(np.clip(self.rows.bra.label_start, *self.share.rows_of(task)))
            n_ket = np.diff(self.layout.alpha_bounds, axis=1)[:, ja]
        return np.asarray(8.0 * n_rows * n_ket * (stop > 0))

    def _saved_seconds(self, task: Task) -> FloatArray:
        """(n_labels,) seconds that a matrix saves, by label of rows; inf or 0 where a form is forced."""
        if self._form is not None:
            return np.full(self.layout.n_labels, np.inf if self._form == "dense" else 0.0)
        sparse, dense = self._seconds(task)
        return sparse - dense

    def _saves(self, task: Task) -> NDArray[np.bool_]:
        return np.asarray(self._saved_seconds(task) > 0.0)

    def _seconds(self, task: Task) -> tuple[FloatArray, FloatArray]:
        """(n_labels,) seconds of all rows of a label in both forms; for beta without what the field takes anyway."""
        key = task.kind, task.da if task.kind == "alpha" else task.db
        if key not in self._saved:
            self._saved[key] = self._new_seconds(task)
        return self._saved[key]

    def _new_seconds(self, task: Task) -> tuple[FloatArray, FloatArray]:
        bra, strings, n_labels = self.rows.bra, self.share.strings, self.layout.n_labels
        ja, jb = self.rows.ket_block(task.da, task.db)
        columns = self.rows.label ^ self.layout.sector
        if task.kind == "alpha":
            terms = strings.alpha_terms[0][:, task.da] * bra.stop
            n_inner = np.diff(self.layout.alpha_bounds, axis=1)[:, ja]
        else:
            entries = self.share.list_sizes(task.db).entries[:, 0]
            of_label = np.maximum(strings.beta_terms[0][:, task.db] - 2.0 * entries, 0.0)
            terms = of_label[columns] * bra.stop / np.maximum(bra.length, 1)
            n_inner = self.layout.row_lengths(jb)
        sparse = np.bincount(self.rows.label, weights=terms, minlength=n_labels) / costs.RATES.sparse
        dense = np.zeros(n_labels)
        for x in range(n_labels):
            products = self._products(x, (0, len(bra.stop)))
            if products:
                dense[x] = _work_of(products, 0.0, float(n_inner[x])).seconds
        return sparse, dense

    def _total_of_label(self, values: IntArray) -> FloatArray:
        """(n_rows,) sum of a value over all rows of the same label, 1 where it is 0."""
        totals = np.bincount(self.rows.label, weights=values, minlength=self.layout.n_labels)
        return np.asarray(np.maximum(totals, 1.0)[self.rows.label])


def _work_of(products: list[Product], useful: float, n_inner: FloatArray | float) -> TaskWork:
    n_rows = np.array([product.last - product.first for product in products], np.float64)
    width = np.array([product.stop for product in products], np.float64)
    return dense_work(useful, n_rows, width, n_inner, np.array([product.in_place for product in products]))
