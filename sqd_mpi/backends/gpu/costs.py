"""Price list of the GPU backend: counted work and its seconds, by which it chooses and plans add up, and room.

The rates are not measured: they follow from data sheets and from what the kernels move (docs/gpu.md).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.gpu.tiled_shape import CHUNK, DEPTH, PAIRS, TiledShape

Cost = tuple[FloatArray, FloatArray, FloatArray]  # executed multiply-adds, bytes and seconds

DIRECT, PRODUCT, TILED = range(3)  # forms of opposite spin
PRODUCT_LAUNCHES = 4  # of a matrix product with what goes before and after it
TASK_LAUNCHES = 8  # of a task, all kinds alike
_BYTES = 8.0  # of a float64
_SECTOR = 32.0  # bytes that are moved at once
# Neighbouring rows share ket rows: of those that 264 of them read 0.30 to 0.43 are different (counted, h2o 1em6, 1em7).
_TILED_MISSED = 0.4
MEMORY_SHARE = 0.125  # of a device's memory that the matrices may take
# A product of fewer elements takes as long as one of so many: a tile of 64 x 64 on each of some 128 processors.
FULL_DEVICE = 128 * 64 * 64
_CHUNKS = 8  # of the rows of a triangle; each is computed up to its longest row
_LEAST_CHUNK = 256  # rows: smaller products leave matrix units idle
_MOST_CHUNK = 2**25  # elements of a chunk, which waits in scratch memory
STAGING_SHARE = 0.75  # of the data sheet's rate of copies to and from host memory; assumed, as the next two
COPY_BYTES_PER_SECOND = 5e9  # to and from ordinary host memory, not pinned
START_SECONDS = 2.0  # until a GPU, its libraries and its compiled kernels are ready


@dataclass(frozen=True)
class Rates:
    """Speeds of a device, for one rank that has it alone; by default those of an H100."""

    direct: float = 5e11
    """Multiply-adds a second of `opposite_direct`, bound by reads from shared memory."""
    product: float = 1.2e13
    """Multiply-adds a second of stacks of small matrix products."""
    tiled: float = 9e12
    """Multiply-adds a second of the products that `opposite_tiled` makes in registers."""
    contracted: float = 3.2e11
    """Entries a second that it reads from its tiles."""
    sparse: float = 5e11
    """Multiply-adds a second of the same-spin sums, bound by reads from the second-level cache."""
    dense: float = 2e13
    """Multiply-adds a second of large matrix products: 60 % of an H100's matrix units."""
    bytes: float = 2.5e12
    """Bytes a second from and to memory."""
    launch: float = 5e-6
    """Seconds of one launch."""


RATES = Rates()  # looked up when it is used


@dataclass(frozen=True)
class TaskWork:
    """Counted work of tasks, and its price."""

    useful: float = 0.0
    """Multiply-adds that the definition needs (one for every connected pair of determinants)."""
    executed: float = 0.0
    """Multiply-adds that are done."""
    bytes: float = 0.0
    """Bytes that thread blocks read from and write to device memory, if no cache helped."""
    seconds: float = 0.0
    """Predicted seconds at `RATES`."""

    def __add__(self, other: TaskWork) -> TaskWork:
        return TaskWork(
            self.useful + other.useful, self.executed + other.executed, self.bytes + other.bytes,
            self.seconds + other.seconds,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ListSizes:
    """Sizes of lists of beta singles, arrays of any common shape."""

    entries: FloatArray
    """Singles."""
    diagonal: FloatArray
    """Further terms (n_electrons for every column where the diagonal belongs to the list)."""
    n_columns: FloatArray
    n_ket: FloatArray
    """Bra and ket columns."""
    n_used: FloatArray
    """Orbital pairs in use."""

    def take(self, columns: NDArray[Any]) -> ListSizes:
        """Sizes of the lists of some labels of columns."""
        return ListSizes(*(getattr(self, each.name)[columns] for each in fields(self)))

    @property
    def has_terms(self) -> NDArray[np.bool_]:
        """Whether a list contributes anything."""
        return np.asarray((self.entries > 0) | (self.diagonal > 0))

    def direct(self, n_singles: FloatArray, wanted: FloatArray | float = 1.0, rates: Rates | None = None) -> Cost:
        """Executed multiply-adds, bytes and seconds of the direct form for rows with so many alpha singles.

        Args:
            n_singles: alpha singles of every row.
            wanted: share of its columns that is wanted; threads of the others end at once.
            rates: of the device; `RATES` where none are given.
        """
        rates, there = rates or RATES, self.has_terms * n_singles
        executed = there * (self.entries + self.diagonal) * wanted
        moved = _BYTES * there * (self.n_ket + self.n_used) + 4.0 * there * self.entries * wanted
        moved += 2 * _BYTES * self.n_columns * wanted * (there > 0)
        return executed, moved, executed / rates.direct + moved / rates.bytes

    def product(self, n_singles: FloatArray, rates: Rates | None = None) -> Cost:
        """The same of the form with matrix products; without launches, which come once for every batch."""
        rates, there = rates or RATES, self.has_terms * n_singles
        executed = there * self.n_used * self.n_ket + (there > 0) * (self.entries + self.diagonal)
        moved = _BYTES * there * (2.0 * self.n_ket + 2.0 * self.n_used + self.n_ket)  # gathered, and read again
        moved += (there > 0) * (
            2 * _BYTES * self.n_used * self.n_ket + 36.0 * self.entries + 2 * _BYTES * self.n_columns
        )
        return executed, moved, there * self.n_used * self.n_ket / rates.product + moved / rates.bytes

    def tiled(
        self, n_singles: FloatArray, halved: bool = False, in_memory: bool = False, rates: Rates | None = None
    ) -> Cost:
        """The same of the form that makes products in registers.

        Args:
            n_singles: alpha singles of every row.
            halved: whether only pairs pq <= rs are multiplied, as with spin-flip symmetry.
            in_memory: whether sums are added to memory, a sector of which is read and written for each.
            rates: of the device; `RATES` where none are given.
        """
        rates, there = rates or RATES, self.has_terms * n_singles
        groups = np.ceil(self.n_used / PAIRS)
        chunks = np.ceil(self.n_used / CHUNK)
        multiplied, read = groups, chunks
        if halved:  # the k-th of n groups (chunks) of orbital pairs meets k / n of the singles
            multiplied, read = (groups + 1.0) / 2.0, (chunks + 1.0) / 2.0
        products = there * PAIRS * multiplied * self.n_ket
        passes = np.ceil(n_singles / DEPTH) * self.has_terms
        terms = passes * (self.entries + self.diagonal)
        moved = _BYTES * there * self.n_ket * read + (5.0 + 2 * _SECTOR * in_memory) * terms
        moved += 2 * _BYTES * self.n_columns * (there > 0)
        seconds = products / rates.tiled + terms / rates.contracted + _TILED_MISSED * moved / rates.bytes
        return products + terms, moved, seconds


def chunk_rows(n_rows: int, longest: int) -> int:
    """Rows of a triangle that are computed in one product, up to the longest of them."""
    return max(1, min(max(-(-n_rows // _CHUNKS), _LEAST_CHUNK), _MOST_CHUNK // max(longest, 1)))


def spare_bytes(free_bytes: float, vector_bytes: float) -> float:
    """Bytes that matrices may take of the free memory of a device in which vectors and buffers need so many.

    At most half of what vectors leave: lists, scratch and a margin need the rest.
    """
    return max(min(MEMORY_SHARE * free_bytes, 0.5 * (free_bytes - vector_bytes)), 0.0)


def choose(saved: FloatArray, n_bytes: FloatArray, bound: float) -> NDArray[np.bool_]:
    """Which matrices to make: those that save time, most seconds per byte first, as long as they fit.

    Args:
        saved: (n,) seconds that every matrix saves; inf takes it in any case.
        n_bytes: (n,) its bytes.
        bound: of all bytes.
    """
    order = np.argsort(-saved / np.maximum(n_bytes, 1.0), kind="stable")
    chosen, left = np.zeros(len(saved), bool), bound
    for k in order:
        if saved[k] > 0.0 and (n_bytes[k] <= left or np.isinf(saved[k])):
            chosen[k], left = True, left - n_bytes[k]
    return chosen


def opposite_forms(
    sizes: ListSizes, n_singles: FloatArray, wanted: FloatArray | float = 1.0, rates: Rates | None = None,
    halved: bool = False, shape: TiledShape | None = None,
) -> list[Cost]:  # fmt: skip
    """Executed multiply-adds, bytes and seconds of the direct form, of matrix products and of the tiled form.

    Runs choose among these, and plans are made from them.

    Args:
        sizes: of the lists of beta singles.
        n_singles: alpha singles of every row.
        wanted: share of the columns of the rows that is wanted.
        rates: of the device; `RATES` where none are given.
        halved: whether bra and ket block are their own mirror images, of which the tiled form makes use.
        shape: thread blocks of the tiled form; None where it cannot be taken.
    """
    rates = rates or RATES
    direct, product = sizes.direct(n_singles, wanted, rates), sizes.product(n_singles, rates)
    if shape is not None:
        return [direct, product, sizes.tiled(n_singles, halved, shape.n_sums == 0, rates)]
    nothing = 0.0 * product[0]
    return [direct, product, (nothing, nothing, np.where(sizes.has_terms * n_singles > 0.0, np.inf, 0.0))]


def alpha_work(terms: FloatArray, stop: FloatArray) -> TaskWork:
    """Work of alpha same spin for rows with so many elements of H_alpha and wanted columns."""
    count = float((terms * stop).sum())
    moved = _BYTES * (count + float((2 * stop).sum())) + 12.0 * float(terms.sum())
    return TaskWork(count, count, moved, count / RATES.sparse)


def beta_work(terms: FloatArray, stop: FloatArray, group: int) -> TaskWork:
    """Work of beta same spin for rows whose columns have so many terms in all."""
    count = float(terms.sum())
    moved = 12.0 * count / max(group, 1) + 3 * _BYTES * float(stop.sum())
    return TaskWork(count, count, moved, count / RATES.sparse)


def dense_work(
    useful: float, n_rows: FloatArray, width: FloatArray, n_inner: FloatArray | float, in_place: NDArray[np.bool_]
) -> TaskWork:  # fmt: skip
    """Work of same spin by matrix products.

    Args:
        useful: multiply-adds that the definition needs.
        n_rows, width: (n,) rows and columns of sigma of every product; n_inner: its depth.
        in_place: (n,) whether it adds to sigma itself; else it is added by a kernel of its own.
    """
    size = n_rows * width
    moved = _BYTES * ((n_rows + width) * n_inner + size * np.where(in_place, 2.0, 1.0))
    added = _BYTES * np.where(in_place, 0.0, 3.0 * size)
    # A product reads while it multiplies.
    seconds = np.maximum(np.maximum(size, FULL_DEVICE) * n_inner / RATES.dense, moved / RATES.bytes)
    seconds += added / RATES.bytes + RATES.launch * np.where(in_place, 1.0, 2.0)
    return TaskWork(useful, float((size * n_inner).sum()), float((moved + added).sum()), float(seconds.sum()))
