"""What a rank keeps about its strings on the device; shared by the blocks of all sectors on the same grid place.

The lists are built by the CPU kernels of `cpu.StringStructure`, put into the order of the GPU kernels (`lists`) and
uploaded when first wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import Place
from sqd_mpi.backends.cpu.block import RowRange, StringStructure
from sqd_mpi.backends.gpu import lists, tiled_lists
from sqd_mpi.backends.gpu.costs import ListSizes
from sqd_mpi.backends.gpu.device import Device, DeviceArray, Limits
from sqd_mpi.backends.gpu.matrices import DeviceDoubles, DeviceRows, Stretches, alpha_matrices, beta_matrices
from sqd_mpi.backends.gpu.tiled import DeviceTiled
from sqd_mpi.backends.gpu.tiled_shape import TiledShape
from sqd_mpi.backends.protocol import Task
from sqd_mpi.distribution.layout import Layout, owners
from sqd_mpi.errors import InputError
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import OrbitalLabels

T = TypeVar("T")

GROUP = 4  # as in sigma.cu
_SHARED_BYTES = 112 * 1024  # two thread blocks on a processor of an H100
_INTERACTIONS = 4  # so many stay on the device


@dataclass(frozen=True)
class Tiles:
    """How thread blocks use their shared memory."""

    width: int
    """Ket columns of a tile."""
    batch: int
    """Ket rows at a time."""
    staged: bool
    """Whether rows of the coupling lie in shared memory too."""
    shared_bytes: int
    """Shared memory of a thread block."""

    @classmethod
    def choose(cls, limits: Limits, n_used: int, n_ket: int) -> Tiles:
        """Tiles for lists with at most so many orbital pairs in use and so many ket columns.

        Whole rows if they fit, up to four of them; else tiles of one.
        """
        room = min(limits.shared_bytes, _SHARED_BYTES) // 8
        staged = n_used <= room // 2
        pairs = n_used if staged else 0
        if pairs + n_ket <= room and n_ket <= lists.WIDEST_TILE:
            batch = min(GROUP, room // max(pairs + n_ket, 1))
            return cls(max(n_ket, 1), batch, staged, 8 * batch * (pairs + max(n_ket, 1)))
        width = min(max((room - pairs) // 32 * 32, 1), lists.WIDEST_TILE)
        return cls(width, 1, staged, 8 * (pairs + width))


@dataclass(frozen=True, eq=False)
class DeviceBeta:
    """Beta singles of one shift db on the device; see `lists.BetaLists`."""

    tiles: Tiles
    sizes: ListSizes
    n_electrons: int
    host: lists.BetaLists
    table: DeviceArray = field(repr=False)
    entries: DeviceArray = field(repr=False)
    slice_start: DeviceArray = field(repr=False)
    counts: DeviceArray = field(repr=False)
    order: DeviceArray = field(repr=False)
    used: DeviceArray = field(repr=False)
    occupied: DeviceArray = field(repr=False)


@dataclass(frozen=True, eq=False)
class DeviceAlpha:
    """Alpha singles of a range of bra rows to one ket block on the device; see `lists.AlphaLists`."""

    counts: NDArray[np.int64] = field(repr=False)
    start: DeviceArray = field(repr=False)
    ket: DeviceArray = field(repr=False)
    pair: DeviceArray = field(repr=False)
    sign: DeviceArray = field(repr=False)


class GpuShare:
    """String structure of one rank on its device.

    Args:
        device: the rank's device.
        layout, place, hamiltonian, orbital_labels: as for `cpu.StringStructure`.
    """

    def __init__(
        self, device: Device, layout: Layout, place: Place, hamiltonian: Hamiltonian, orbital_labels: OrbitalLabels
    ):
        self.device = device
        self.strings = StringStructure(layout, place, hamiltonian, orbital_labels)
        self.n_pairs = len(self.strings.pair_labels)
        self._alpha: dict[tuple[int, RowRange], DeviceAlpha] = {}
        self._alpha_rows: dict[tuple[int, RowRange], tuple[frozenset[int], DeviceRows]] = {}
        self._beta: dict[int, DeviceBeta] = {}
        self._tiled: dict[int, DeviceTiled] = {}
        self._doubles: dict[int, tuple[frozenset[int], DeviceDoubles]] = {}
        self._whole: DeviceArray | None = None
        self._interactions: list[tuple[Interaction, DeviceArray, DeviceArray]] = []
        self._sizes: dict[int, ListSizes] = {}

    def rows_of(self, task: Task) -> RowRange:
        """The range of bra rows of a task."""
        return self.strings.rows_of(task)

    def alpha(self, da: int, rows: RowRange) -> DeviceAlpha:
        """Singles from a range of bra rows to block ia + da."""

        def build() -> DeviceAlpha:
            strings, layout = self.strings, self.strings.layout
            block = (strings.ia + da) % layout.grid[0]
            ket_row = np.zeros(layout.alpha.size, np.int32)
            positions, _ = layout.ket_rows(block)
            ket_row[positions] = np.arange(len(positions), dtype=np.int32)
            found = lists.alpha_lists(
                strings.singles, rows, owners(layout.alpha_bounds) == block, ket_row, strings.pair_labels,
                layout.n_labels,
            )  # fmt: skip
            up = self.device.upload
            tiled_lists.sort_by_pair(found.start, found.ket, found.pair, found.sign)
            counts = found.counts(layout.n_labels)
            return DeviceAlpha(counts, up(found.start), up(found.ket), up(found.pair), up(found.sign))

        return _remembered(self._alpha, (da, rows), build)

    def beta(self, db: int) -> DeviceBeta:
        """Singles of the columns to block ib + db.

        Raises:
            InputError: more orbital pairs than an entry of a list can number.
        """

        def build() -> DeviceBeta:
            table, sizes = self.strings.beta[db], self.list_sizes(db)
            n_used = int(sizes.n_used.max(initial=0))
            if n_used > lists.MOST_PAIRS:
                raise InputError(f"the backend gpu takes {lists.MOST_PAIRS} orbital pairs; the strings use {n_used}")
            tiles = Tiles.choose(self.device.limits, n_used, int(sizes.n_ket.max(initial=0)))
            found = lists.beta_lists(table, self.n_pairs, tiles.width)
            up = self.device.upload
            return DeviceBeta(
                tiles, sizes, found.n_electrons, found, up(found.table), up(found.entries),
                up(found.sliced.slice_start), up(found.sliced.counts), up(found.sliced.order), up(found.used),
                up(found.occupied),
            )  # fmt: skip

        return _remembered(self._beta, db, build)

    def tiled(self, db: int) -> DeviceTiled:
        """Singles of the columns to block ib + db for `opposite_tiled`; only where `tiled_shape(db)` is not None."""

        def build() -> DeviceTiled:
            shape = self.tiled_shape(db)
            assert shape is not None
            return DeviceTiled.create(self.device, self.strings.beta[db], self.n_pairs, shape)

        return _remembered(self._tiled, db, build)

    def tiled_shape(self, db: int) -> TiledShape | None:
        """How `opposite_tiled` would meet block ib + db, or None if it cannot."""
        return TiledShape.choose(self.device.limits.shared_bytes, int(self.list_sizes(db).n_columns.max(initial=0)))

    def list_sizes(self, db: int) -> ListSizes:
        """Sizes of the beta lists of a shift, arrays (n_labels, n_labels) over labels of columns and of pairs."""

        def build() -> ListSizes:
            table, n_labels = self.strings.beta[db], self.strings.layout.n_labels
            _, start, _ = lists.used_pairs(table, self.n_pairs)
            columns = np.diff(table.matrix_row)
            parts = (
                table.matrix_entries, table.matrix_diagonal * columns * table.occupied_pair.shape[1], columns,
                table.matrix_n_ket, np.diff(start),
            )  # fmt: skip
            return ListSizes(*(part.astype(np.float64).reshape(n_labels, n_labels) for part in parts))

        return _remembered(self._sizes, db, build)

    def alpha_hamiltonian(
        self, da: int, rows: RowRange, dense: frozenset[int] = frozenset(), stretches: Stretches | None = None
    ) -> DeviceRows:
        """H_alpha from a range of bra rows to those of block ia + da; see `matrices.alpha_matrices`."""

        def build() -> DeviceRows:
            return alpha_matrices(self.device, self.strings, da, rows, dense, stretches or {})

        return _remembered_as(self._alpha_rows, (da, rows), dense, build)

    def beta_hamiltonian(self, db: int, dense: frozenset[int] = frozenset()) -> DeviceDoubles:
        """H_beta from this rank's columns to those of block ib + db; see `matrices.beta_matrices`."""

        def build() -> DeviceDoubles:
            return beta_matrices(self.device, self.strings, self.beta(db).host.sliced, db, dense)

        return _remembered_as(self._doubles, db, dense, build)

    def whole(self, size: int) -> DeviceArray:
        """Room for the sum of a whole block (`tiled.Fold`), one for the blocks of all sectors."""
        if self._whole is None or self._whole.size != size:
            self._whole = None
            self._whole = self.device.empty(size)
        return self._whole

    def forget_whole(self) -> None:
        """Give that room back, once no block uses it."""
        self._whole = None

    def interaction(self, interaction: Interaction) -> tuple[DeviceArray, DeviceArray]:
        """Coupling and twist (the coupling again where there is none) on the device."""
        for known, coupling, twist in self._interactions:
            if known is interaction:
                return coupling, twist
        coupling = self.device.upload(np.ascontiguousarray(interaction.coupling))
        twist = coupling
        if interaction.twist is not None:
            twist = self.device.upload(np.ascontiguousarray(interaction.twist))
        self._interactions = [*self._interactions[-_INTERACTIONS + 1 :], (interaction, coupling, twist)]
        return coupling, twist

    def keep_only(self, tasks: list[Task]) -> None:
        """Forget what none of these tasks needs, and what of it lies on the host."""
        mixed = {(task.da, self.rows_of(task)) for task in tasks if task.kind == "mixed"}
        alpha = {(task.da, self.rows_of(task)) for task in tasks if task.kind == "alpha"}
        beta = {task.db for task in tasks if task.kind == "beta"}
        shifts = {task.db for task in tasks if task.kind != "alpha"}
        self._alpha = {key: value for key, value in self._alpha.items() if key in mixed}
        self._alpha_rows = {key: value for key, value in self._alpha_rows.items() if key in alpha}
        self._beta = {key: value for key, value in self._beta.items() if key in shifts}
        self._doubles = {key: value for key, value in self._doubles.items() if key in beta}
        self._tiled = {key: value for key, value in self._tiled.items() if key in shifts}
        self.strings.keep_only([])

    @property
    def nbytes(self) -> int:
        """Bytes of all lists on the device, and of room for the sum of a whole block."""
        same_spin: list[Any] = [part for _, part in (*self._alpha_rows.values(), *self._doubles.values())]
        parts: list[Any] = [*self._alpha.values(), *self._beta.values(), *self._tiled.values(), *same_spin]
        arrays = [getattr(part, each.name) for part in parts for each in fields(part)]
        arrays += [matrix for part in same_spin for matrix in part.matrices.values()]
        arrays += [self._whole]
        lists_bytes = sum(array.nbytes for array in arrays if hasattr(array, "nbytes") and not _on_host(array))
        couplings = {id(array): array for _, *pair in self._interactions for array in pair}
        return lists_bytes + sum(array.nbytes for array in couplings.values())


def _on_host(array: object) -> bool:
    return isinstance(array, np.ndarray)


def _remembered(known: dict[Any, T], key: Any, build: Callable[[], T]) -> T:
    if key not in known:
        known[key] = build()
    return known[key]


def _remembered_as(
    known: dict[Any, tuple[frozenset[int], T]], key: Any, form: frozenset[int], build: Callable[[], T]
) -> T:
    """What is remembered in one form; what there is in another form is forgotten first."""
    if key not in known or known[key][0] != form:
        known.pop(key, None)
        known[key] = form, build()
    return known[key][1]
