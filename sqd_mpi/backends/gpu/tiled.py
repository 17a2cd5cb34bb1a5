"""Opposite spin by products made tile by tile in registers: what a rank keeps for it, and its launches (tiled.cu)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.backends import Interaction
from sqd_mpi.backends.gpu import tiled_lists
from sqd_mpi.backends.gpu.device import Device, DeviceArray, Limits, Stream
from sqd_mpi.backends.structure import BetaSingles
from sqd_mpi.layout import BraRows

IntArray = NDArray[np.int64]

_DEPTH = 32  # alpha singles at a time, as in tiled.cu
_TURN = 32  # rows of a thread block of fold_rows
_PROCESSOR_BYTES = 113 * 1024  # so much for each of two thread blocks on a processor of an H100


@dataclass(frozen=True)
class TiledShape:
    """Thread blocks of `opposite_tiled`.

    Attributes:
        n_threads: 128 or 256, for tiles of half as many ket columns.
        n_sums: sums of a row that lie in shared memory; 0 if they do not fit there.
        shared_bytes: of a thread block.
    """

    n_threads: int
    n_sums: int
    shared_bytes: int

    @classmethod
    def choose(cls, limits: Limits, n_columns: int) -> TiledShape | None:
        """Thread blocks for rows of so many bra columns; None if the form cannot be taken.

        Small ones, of which two fit on a processor, if they have room for the sums of a row; else large ones, which
        wait less for each other's barriers; else the sums stay in memory.
        """
        if n_columns > tiled_lists.MOST_COLUMNS:
            return None
        for n_threads, n_sums, most in (
            (128, n_columns, _PROCESSOR_BYTES),
            (256, n_columns, limits.shared_bytes),
            (128, 0, limits.shared_bytes),
        ):
            tile = tiled_lists.CHUNK * n_threads // 2
            shared = 8 * (tile + _DEPTH * tiled_lists.CHUNK + n_sums + _DEPTH)
            if shared <= min(most, limits.shared_bytes):
                return cls(n_threads, n_sums, shared)
        return None


@dataclass(frozen=True, eq=False)
class DeviceTiled:
    """Beta singles of one shift db on the device; see `tiled_lists.TiledLists`."""

    shape: TiledShape
    lists: DeviceArray = field(repr=False)
    chunks: DeviceArray = field(repr=False)
    used: DeviceArray = field(repr=False)
    slice_start: DeviceArray = field(repr=False)
    entries: DeviceArray = field(repr=False)

    @classmethod
    def create(cls, device: Device, beta: BetaSingles, n_pairs: int, shape: TiledShape) -> DeviceTiled:
        """Build the lists on the host and upload them."""
        found = tiled_lists.tiled_lists(beta, n_pairs, shape.n_threads)
        parts = found.chunks.lists, found.chunks.chunks, found.chunks.used, found.slice_start, found.entries
        return cls(shape, *(device.upload(part) for part in parts))


@dataclass(frozen=True, eq=False)
class AlphaSide:
    """The bra rows and alpha singles of a mixed task, as kernels want them.

    Attributes:
        offset, stop, label: of all bra rows of the sub-block; ket_offset: flat start of every row of the ket block.
        first_row: of the task.
        start, ket, pair, sign: `lists.AlphaLists`, sorted by orbital pair.
        n_labels, sector: of the layout.
    """

    offset: DeviceArray
    stop: DeviceArray
    label: DeviceArray
    ket_offset: DeviceArray
    first_row: int
    start: DeviceArray
    ket: DeviceArray
    pair: DeviceArray
    sign: DeviceArray
    n_labels: int
    sector: int


class Fold:
    """Y of a block on the mirror line, to which only pairs pq <= rs contribute, and its addition to sigma.

    Args:
        device: of the rank.
        bra: all stored rows of the block.
        parity: +1 or -1.
    """

    def __init__(self, device: Device, bra: BraRows, parity: int):
        whole = bra.with_all_columns()
        first, label_first, label_end = [], [], []
        for low, high in zip(bra.label_start[:-1].tolist(), bra.label_start[1:].tolist(), strict=True):
            # Rows at the end have most columns: they begin first.
            for start in range(low, high, _TURN)[::-1]:
                first.append(start)
                label_first.append(low)
                label_end.append(high)
        self._device, self._parity, self._n_blocks = device, np.float64(parity), len(first)
        self._where = tuple(device.upload(np.array(part, np.int32)) for part in (first, label_first, label_end))
        self.offset = device.upload(whole.offset)
        self.whole = device.empty(int(whole.length.sum()))

    def begin(self, stream: Stream) -> None:
        """Y = 0."""
        self._device.zero(self.whole, stream)

    def add(self, sigma: DeviceArray, offset: DeviceArray, stop: DeviceArray, stream: Stream) -> None:
        """Add Y and its mirror image to the stored elements of sigma."""
        self._device.kernel("tiled", "fold_rows")(
            self._n_blocks, 256, (self.whole, sigma, *self._where, offset, stop, self.offset, self._parity),
            8 * _TURN * (_TURN + 1), stream,
        )  # fmt: skip


def apply_tiled(
    device: Device,
    rows: dict[int, DeviceArray],
    alpha: AlphaSide,
    beta: DeviceTiled,
    fold: Fold | None,
    ket: DeviceArray,
    sigma: DeviceArray,
    interaction: Interaction,
    coupling: tuple[DeviceArray, DeviceArray],
    stream: Stream,
) -> None:
    """sigma += opposite spin for labels d of orbital pairs and the bra rows rows[d].

    Args:
        device: of the rank.
        rows: int32 bra rows for every label, those with most work first.
        alpha, beta: the singles.
        fold: for a block on the mirror line whose rows are all here; None elsewhere.
        ket, sigma: ket block and sub-block.
        interaction, coupling: its matrices on the device.
        stream: for the launches.
    """
    directed = interaction.swap != 0.0 or interaction.twist is not None
    if fold is not None:
        fold.begin(stream)
    target, target_offset = (fold.whole, fold.offset) if fold is not None else (sigma, alpha.offset)
    shape = beta.shape
    for d, some in rows.items():
        device.kernel("tiled", "opposite_tiled")(
            some.size, shape.n_threads,
            (
                ket, sigma, target, some, alpha.offset, alpha.stop, target_offset, alpha.label, alpha.ket_offset,
                *coupling, np.int64(len(interaction.coupling)), np.float64(interaction.swap), np.int32(directed),
                np.int32(interaction.twist is not None), np.int32(fold is not None), np.int64(alpha.first_row),
                np.int64(alpha.n_labels), np.int64(alpha.sector), np.int64(d), alpha.start, alpha.ket, alpha.pair,
                alpha.sign, beta.lists, beta.chunks, beta.used, beta.slice_start, beta.entries, np.int64(shape.n_sums),
            ),
            shape.shared_bytes, stream,
        )  # fmt: skip
    if fold is not None:
        fold.add(sigma, alpha.offset, alpha.stop, stream)
