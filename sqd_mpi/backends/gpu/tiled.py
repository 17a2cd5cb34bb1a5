"""Opposite spin by products made tile by tile in registers: what a rank keeps for it, and its launches (tiled.cu)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sqd_mpi.backends.cpu.records import BetaSingles
from sqd_mpi.backends.gpu import tiled_lists
from sqd_mpi.backends.gpu.device import Device, DeviceArray, Stream
from sqd_mpi.backends.gpu.rows import AlphaSide
from sqd_mpi.backends.gpu.tiled_shape import TiledShape
from sqd_mpi.distribution.layout import BraRows
from sqd_mpi.problem.interaction import Interaction

_TURN = 32  # rows of a thread block of fold_rows


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


class Fold:
    """Y of a block on the mirror line, to which only pairs pq <= rs contribute, and its addition to sigma.

    Args:
        device: of the rank.
        bra: all stored rows of the block.
        parity: +1 or -1.
        whole: (block size,) room for Y.
    """

    def __init__(self, device: Device, bra: BraRows, parity: int, whole: DeviceArray):
        first, label_first, label_end = [], [], []
        for low, high in zip(bra.label_start[:-1].tolist(), bra.label_start[1:].tolist(), strict=True):
            # Rows at the end have most columns: they begin first.
            for start in range(low, high, _TURN)[::-1]:
                first.append(start)
                label_first.append(low)
                label_end.append(high)
        self._device, self._parity, self._n_blocks = device, np.float64(parity), len(first)
        self._where = tuple(device.upload(np.array(part, np.int32)) for part in (first, label_first, label_end))
        self.offset, self.whole = device.upload(bra.with_all_columns().offset), whole

    def begin(self, stream: Stream) -> None:
        """Y = 0."""
        self._device.zero(self.whole, stream)

    def add(self, sigma: DeviceArray, offset: DeviceArray, stop: DeviceArray, stream: Stream) -> None:
        """Add Y and its mirror image to the stored elements of sigma."""
        self._device.kernel("tiled", "fold_rows")(
            self._n_blocks, 256, (self.whole, sigma, *self._where, offset, stop, self.offset, self._parity),
            8 * _TURN * (_TURN + 1), stream,
        )  # fmt: skip


def add_tiled(
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
