"""Density matrices on a device: twin of `backends.cpu.density`, the loops in density.cu.

Vectors arrive on the host, where roots live, and are uploaded; string lists are made on the host as for the CPU. The
opposite-spin matrix stays on the device until `finish`. Of the same-spin terms the inner products of rows or columns
come back, one number for a pair of connected strings, and are added up by the CPU's loops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray, Place
from sqd_mpi.backends.cpu.density import Accumulators, DensityBlock
from sqd_mpi.backends.gpu.device import Device, DeviceArray
from sqd_mpi.backends.gpu.process_device import open_device
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.errors import RunError

_CHUNK = 8  # as in density.cu
_SCRATCH_BYTES = 2**28  # of the three matrices of the opposite-spin products
_LEAST_WIDTH = 32  # ket columns at a time, however many orbital pairs there are
_THREADS = 256
_FEW_THREADS = 32
_FEW = 4096  # elements for which few threads do
_BLOCKS = 4096  # thread blocks that fill any device; sums are cut into parts to reach them
_LEAST_ROWS = 64  # of a part of a sum over rows


class DeviceProducts:
    """`alpha_products` and `beta_products` of `slow.density_kernels` for vectors on a device; lists are on the host.

    Args:
        device: the device.
    """

    def __init__(self, device: Device):
        self.device = device

    def alpha_products(
        self, bra: DeviceArray, ket: DeviceArray, bra_offset: IntArray, ket_offset: IntArray, length: int, patterns: Any
    ) -> None:
        """Inner products of rows."""
        offsets = upload(self.device, bra_offset), upload(self.device, ket_offset)
        n_threads = _threads(length)
        for indptr, column, value in patterns:
            if not (length and len(value)):
                continue
            row, first = _chunks(indptr)
            n_parts = max(1, min(-(-_BLOCKS // len(row)), length // _FEW))
            partial = self.device.empty((n_parts, len(value)))
            lists = (upload(self.device, each) for each in (row, first, indptr.astype(np.int64), column))
            sizes = (np.int64(n) for n in (len(row), length, len(value), n_parts))
            self.device.kernel("density", "row_products")(
                len(row) * n_parts, n_threads, (bra, ket, partial, *offsets, *lists, *sizes), 8 * _CHUNK * n_threads
            )
            value += self._total(partial)

    def beta_products(
        self,
        bra: DeviceArray,
        ket: DeviceArray,
        bra_offset: IntArray,
        ket_offset: IntArray,
        bra_column: IntArray,
        n_ket: int,
        patterns: Any,
    ) -> None:
        """Inner products of columns."""
        n_rows = len(bra_offset)
        offsets = upload(self.device, bra_offset), upload(self.device, ket_offset)
        for indptr, column, value in patterns:
            if not (n_rows and len(value)):
                continue
            own = np.repeat(bra_column, np.diff(indptr)).astype(np.int32)
            n_threads = _threads(len(value))
            n_stretches = -(-len(value) // n_threads)
            n_parts = max(1, min(_BLOCKS // n_stretches, n_rows // _LEAST_ROWS))
            partial = self.device.empty((n_parts, len(value)))
            lists = upload(self.device, own), upload(self.device, column)
            sizes = (np.int64(n) for n in (n_rows, len(value), n_parts))
            self.device.kernel("density", "column_products")(
                n_stretches * n_parts, n_threads, (bra, ket, partial, *offsets, *lists, *sizes)
            )
            value += self._total(partial)

    def _total(self, partial: DeviceArray) -> FloatArray:
        """(n_entries,) sums over the parts, on the host."""
        n_parts, n_entries = partial.shape
        if n_parts == 1:
            return self.device.download(partial[0])
        out, n_threads = self.device.empty(n_entries), _threads(n_entries)
        arguments = (partial, out, np.int64(n_entries), np.int64(n_parts))
        self.device.kernel("density", "add_products")(-(-n_entries // n_threads), n_threads, arguments)
        return self.device.download(out)


@dataclass(frozen=True, eq=False)
class BetaEntries:
    """One block of beta singles (and occupied orbitals) by ket column."""

    start: IntArray = field(repr=False)
    """(n_ket + 1,) first entry of every ket column, on the host."""
    bra: DeviceArray = field(repr=False)
    """(n,) int32 bra columns."""
    ket: DeviceArray = field(repr=False)
    """(n,) int32 ket columns."""
    place: DeviceArray = field(repr=False)
    """(n,) int32, 2 u + (1 if negative) with u numbering the pairs in use."""
    out_column: DeviceArray = field(repr=False)
    """(n_used,) int32 column of the result for every pair in use."""


@dataclass(frozen=True)
class Stack:
    """Alpha rows whose matrix products are one batch."""

    block: int
    """Beta block."""
    depth: int
    """Most pairs of a row."""
    width: int
    """Ket columns at a time."""
    rows: tuple[int, int]
    """First and last (excluded) place in the list of rows."""
    targets: tuple[int, int]
    """Likewise, in the list of targets."""


@dataclass(frozen=True, eq=False)
class AlphaStacks:
    """Alpha singles and occupied orbitals of the own rows for one shift da."""

    matrix: IntArray = field(repr=False)
    """Beta matrices that they meet, on the host."""
    stacks: list[Stack] = field(repr=False)
    """What is computed at a time."""
    row: DeviceArray = field(repr=False)
    """(n_rows,) int32 own row, once for every beta block that it meets."""
    start: DeviceArray = field(repr=False)
    """(n_rows + 1,) its first pair."""
    ket: DeviceArray = field(repr=False)
    """(n_pairs,) int32 ket row."""
    sign: DeviceArray = field(repr=False)
    """(n_pairs,) int8 sign."""
    target: DeviceArray = field(repr=False)
    """(n_targets,) int32 row of the result."""
    target_start: DeviceArray = field(repr=False)
    """(n_targets + 1,) its first place in `slot`."""
    slot: DeviceArray = field(repr=False)
    """(n_pairs,) int32 row of the product of its stack."""


class GpuDensityBlock(DensityBlock):
    """One rank's share of the density matrices between two vectors, on its device.

    Args:
        device: the rank's device.
        bra_layout, ket_layout, place, norb, orbital_labels, out: as for `DensityBlock`.
        scratch_bytes: of the matrices of the opposite-spin products, which are cut to fit.
    """

    def __init__(
        self, device: Device, bra_layout: Layout, ket_layout: Layout, place: Place, norb: int, orbital_labels: IntArray,
        out: Accumulators, scratch_bytes: int = _SCRATCH_BYTES,
    ):  # fmt: skip
        self.device, self.scratch_bytes = device, scratch_bytes
        self._on_device: tuple[FloatArray, DeviceArray] | None = None
        self._entries: dict[tuple[int, int], BetaEntries] = {}
        self._opposite: DeviceArray = None
        super().__init__(bra_layout, ket_layout, place, norb, orbital_labels, out, DeviceProducts(device))

    def add(self, da: int, db: int, bra: FloatArray, ket: FloatArray, beta_too: bool) -> None:
        """Add all terms between the own bra block and the ket block (ia + da, ib + db); vectors on the host.

        Raises:
            RunError: they do not fit on the device.
        """
        try:
            self._add(da, db, bra, ket, beta_too)
        except MemoryError as error:
            raise RunError(f"too little memory for density matrices: {error}; more ranks need less") from error

    def _add(self, da: int, db: int, bra: FloatArray, ket: FloatArray, beta_too: bool) -> None:
        if self._on_device is None or self._on_device[0] is not bra:
            self._on_device = None  # room for the new one
            self._on_device = bra, upload(self.device, bra)
        own = self._on_device[1]
        other = own if ket is bra else upload(self.device, ket)
        super().add(da, db, own, other, beta_too)
        self.device.synchronize()

    def finish(self) -> None:
        """Add what is still on the device to the accumulators."""
        total = self.out.opposite
        if self._opposite is not None and total is not None:
            total += self.device.download(self._opposite)
        self._opposite = self._on_device = None

    # --- opposite spin -----------------------------------------------------------------------------------------------

    def _beta_entries(self, db: int, block: int) -> BetaEntries:
        """Entries of a beta block of shift db, occupied orbitals included where they belong to it."""
        if (db, block) in self._entries:
            return self._entries[db, block]
        beta, pair_column = self._beta[db], self._pair_columns()
        rows = slice(int(beta.matrix_row[block]), int(beta.matrix_row[block + 1]))
        n = rows.stop - rows.start
        entries = slice(int(beta.indptr[rows.start]), int(beta.indptr[rows.stop]))
        bra = np.repeat(np.arange(n), np.diff(beta.indptr[rows.start : rows.stop + 1]))
        ket, column, negative = beta.column[entries], pair_column[beta.orbital_pair[entries]], beta.sign[entries] < 0
        if beta.matrix_diagonal[block]:
            occupied = beta.occupied_pair[rows]
            stays = np.repeat(np.arange(n), occupied.shape[1])
            bra, ket = np.concatenate([bra, stays]), np.concatenate([ket, stays])
            column = np.concatenate([column, pair_column[2 * occupied.astype(np.int64)].reshape(-1)])
            negative = np.concatenate([negative, np.zeros(len(stays), bool)])
        used, number = np.unique(column, return_inverse=True)
        order = np.argsort(ket, kind="stable")
        start = np.searchsorted(ket[order], np.arange(beta.matrix_n_ket[block] + 1)).astype(np.int64)
        lists = (bra[order], ket[order], (2 * number + negative)[order], used)
        found = BetaEntries(start, *(upload(self.device, each.astype(np.int32)) for each in lists))
        self._entries[db, block] = found
        return found

    def _grouped(
        self, bra: NDArray[np.int32], ket: NDArray[np.int32], sign: NDArray[np.int8], target: IntArray, label: IntArray
    ) -> AlphaStacks:
        """Pairs by beta block and bra row, rows with most pairs first, cut into stacks that fit into the scratch."""
        n_labels, n_own = self.bra_layout.n_labels, max(len(self._own_rows), 1)
        block = (self._own_labels[bra] ^ self.bra_layout.sector) * n_labels + (label ^ self.shift)
        key = block * n_own + bra
        counts = np.bincount(key, minlength=1)
        rows = np.flatnonzero(counts)
        rows = rows[np.lexsort((-counts[rows], rows // n_own))]
        counts, block_of_row = counts[rows], rows // n_own
        rank = np.zeros(int(key.max(initial=0)) + 1, np.int64)
        rank[rows] = np.arange(len(rows))
        row_of_pair = rank[key]
        order = np.argsort(row_of_pair, kind="stable")
        row_of_pair, ket, sign, target = row_of_pair[order], ket[order], sign[order], target[order]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

        cuts = self._cuts(block_of_row, counts)
        first_row = np.array([first for first, _, _ in cuts], np.int64)
        depth = np.array([depth for _, depth, _ in cuts], np.int64)
        stack = np.searchsorted(first_row, row_of_pair, side="right") - 1
        slot = (row_of_pair - first_row[stack]) * depth[stack] + np.arange(len(ket)) - start[row_of_pair]
        by_target = np.lexsort((target, stack))
        stack, target, slot = stack[by_target], target[by_target], slot[by_target]
        changes = np.flatnonzero((np.diff(stack) != 0) | (np.diff(target) != 0)) + 1
        target_start = np.concatenate([[0], changes, [len(ket)]]) if len(ket) else np.zeros(1)
        begins = target_start[:-1].astype(np.int64)
        targets = np.searchsorted(stack[begins], np.arange(len(cuts) + 1))
        stacks = [
            Stack(int(block_of_row[first]), most, width, (first, last), (int(targets[k]), int(targets[k + 1])))
            for k, ((first, most, width), last) in enumerate(
                zip(cuts, [*first_row[1:].tolist(), len(rows)], strict=False)
            )
        ]
        lists = (
            (rows % n_own).astype(np.int32), start, ket.astype(np.int32), sign, target[begins].astype(np.int32),
            target_start.astype(np.int64), slot.astype(np.int32),
        )  # fmt: skip
        return AlphaStacks(np.unique(block_of_row), stacks, *(upload(self.device, each) for each in lists))

    def _cuts(self, block_of_row: IntArray, counts: IntArray) -> list[tuple[int, int, int]]:
        """(first row, depth, width) of every stack; all shifts db fit."""
        found = []
        room = self.scratch_bytes // 8
        first = 0
        for block in np.unique(block_of_row).tolist():
            last = int(np.searchsorted(block_of_row, block, side="right"))
            entries = [self._beta_entries(db, block) for db in range(len(self._beta))]
            n_used = max(each.out_column.size for each in entries)
            n_ket = max(len(each.start) - 1 for each in entries)
            while first < last:
                depth = int(counts[first])
                width = min(max((room - depth * n_used) // (n_used + depth), _LEAST_WIDTH), max(n_ket, 1))
                found.append((first, depth, width))
                first += min(max(room // (width * (n_used + depth) + depth * n_used), 1), last - first)
        return found

    def _add_opposite(self, da: int, db: int, bra: DeviceArray, ket: DeviceArray) -> None:
        assert self.out.opposite is not None
        if self._opposite is None:
            self._opposite = self.device.empty(self.out.opposite.shape)
            self.device.zero(self._opposite)
        bra_offset = upload(self.device, self._bra_offset[self._own_rows])
        ket_offset = upload(self.device, self.ket_layout.ket_offsets(*self._ket_block(da, db)))
        stacks: AlphaStacks = self._groups[da]
        scratch: dict[int, DeviceArray] = {}
        for stack in stacks.stacks:
            entries = self._beta_entries(db, stack.block)
            if entries.bra.size:
                self._add_stack(stacks, stack, entries, (bra, ket, bra_offset, ket_offset), scratch)

    def _add_stack(
        self, lists: AlphaStacks, stack: Stack, entries: BetaEntries, vectors: tuple[Any, ...],
        scratch: dict[int, DeviceArray],
    ) -> None:  # fmt: skip
        """Gamma += the terms of one stack; `scratch` keeps the three matrices for the next."""
        bra, ket, bra_offset, ket_offset = vectors
        first_row, last_row = stack.rows
        n, depth, n_used, n_ket = last_row - first_row, stack.depth, entries.out_column.size, len(entries.start) - 1
        product = self._matrix(scratch, 2, (n, depth, n_used))
        kernel = self.device.kernel
        for first in range(0, n_ket, stack.width):
            width = min(stack.width, n_ket - first)
            spread = self._matrix(scratch, 0, (n, width, n_used))
            gathered = self._matrix(scratch, 1, (n, depth, width))
            self.device.zero(spread)
            begin, end = int(entries.start[first]), int(entries.start[first + width])
            n_threads = _threads(end - begin)
            kernel("density", "opposite_spread")(
                n * -(-(end - begin) // n_threads), n_threads,
                (
                    bra, spread, lists.row[first_row:last_row], bra_offset, entries.bra, entries.ket, entries.place,
                    *(np.int64(k) for k in (begin, end - begin, first, width, n_used)),
                ),
            )  # fmt: skip
            kernel("density", "opposite_rows")(
                n * depth, _threads(width),
                (
                    ket, gathered, lists.start[first_row : last_row + 1], lists.ket, lists.sign, ket_offset,
                    *(np.int64(k) for k in (depth, first, width)),
                ),
            )  # fmt: skip
            self.device.gemm(gathered, spread, product, beta=1.0 if first else 0.0)
        first_target, last_target = stack.targets
        n_threads = _threads(n_used)
        kernel("density", "opposite_collect")(
            (last_target - first_target) * -(-n_used // n_threads), n_threads,
            (
                product, self._opposite, lists.target, lists.target_start, lists.slot, entries.out_column,
                *(np.int64(k) for k in (first_target, self._opposite.shape[1], n_used)),
            ),
        )  # fmt: skip

    def _matrix(self, scratch: dict[int, DeviceArray], which: int, shape: tuple[int, ...]) -> DeviceArray:
        """A stack of matrices in scratch memory, which grows where it is too small."""
        size = int(np.prod(shape))
        if which not in scratch or scratch[which].size < size:
            scratch.pop(which, None)
            scratch[which] = self.device.empty(size)
        return scratch[which][:size].reshape(shape)


def create_density_block(
    bra_layout: Layout, ket_layout: Layout, place: Place, norb: int, orbital_labels: IntArray, out: Accumulators
) -> DensityBlock:
    """The share of rank (ia, ib, it, ir), arguments as of `density.DensityBlock`: on the device of this process, or on
    the CPU where less than twice the predicted bytes are free there, so that no finished solve is lost to them."""
    device = open_device()
    arguments = bra_layout, ket_layout, place, norb, orbital_labels, out
    if 2 * predict_bytes(bra_layout, ket_layout, place, out) > device.memory()[0]:
        return DensityBlock(*arguments)
    return GpuDensityBlock(device, *arguments)


def predict_bytes(bra_layout: Layout, ket_layout: Layout, place: Place, out: Accumulators) -> int:
    """Bytes on the device without lists: the bra block, the largest ket block, the result and the scratch."""
    a, b, _, _ = ket_layout.grid
    largest = max(ket_layout.block_size(ia, ib) for ia in range(a) for ib in range(b))
    two = 0 if out.opposite is None else 8 * out.opposite.size + _SCRATCH_BYTES
    return 8 * (bra_layout.block_size(*place[:2]) + largest) + two


def upload(device: Device, host: NDArray[Any]) -> DeviceArray:
    """A copy on the device; the host array may go at once."""
    array = device.upload(np.ascontiguousarray(host))
    device.synchronize()
    return array


def _chunks(indptr: IntArray) -> tuple[NDArray[np.int32], IntArray]:
    """Row and first entry of every run of up to _CHUNK entries of one row."""
    n = -(-np.diff(indptr) // _CHUNK)
    row = np.repeat(np.arange(len(n)), n)
    number = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    return row.astype(np.int32), (np.asarray(indptr)[row] + _CHUNK * number).astype(np.int64)


def _threads(size: int) -> int:
    """Threads of a block, from the size alone: few for small sums, such as those of tests."""
    return _THREADS if size > _FEW else _FEW_THREADS
