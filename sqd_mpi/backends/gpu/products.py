"""Opposite spin by stacks of matrix products T = W G, and what all forms need of the alpha strings (sigma.cu)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sqd_mpi.arrays import IntArray
from sqd_mpi.backends.gpu import lists
from sqd_mpi.backends.gpu.device import Device, DeviceArray, Stream
from sqd_mpi.backends.gpu.rows import AlphaSide
from sqd_mpi.backends.gpu.share import DeviceBeta
from sqd_mpi.problem.interaction import Interaction

_MOST_STACKED = 32768  # matrices in one product
_THREADS = 256


@dataclass(frozen=True, eq=False)
class Products:
    """Bra rows of one label that meet one beta list by matrix products, those with most singles first."""

    list_number: int
    """Number of the beta list."""
    d: int
    """Label of its orbital pairs."""
    rows: DeviceArray = field(repr=False)
    """(n,) bra rows on the device."""
    depth: IntArray = field(repr=False)
    """(n,) singles of every row."""
    longest: int
    """Most columns that are wanted of one of them."""


def add_products(
    device: Device,
    products: Products,
    alpha: AlphaSide,
    beta: DeviceBeta,
    ket: DeviceArray,
    sigma: DeviceArray,
    interaction: Interaction,
    coupling: tuple[DeviceArray, DeviceArray],
    scratch: Callable[[int, int], DeviceArray],
    stream: Stream,
) -> None:
    """sigma += what the rows of `products` get, stack after stack of rows with similar numbers of singles.

    Args:
        device: of the rank.
        products, alpha, beta: rows and singles.
        ket, sigma: ket block and sub-block.
        interaction, coupling: its matrices on the device.
        scratch: gives at least, and if possible, so many float64.
        stream: for the launches.
    """
    list_row = beta.host.table[products.list_number]
    directed = interaction.swap != 0.0 or interaction.twist is not None
    n_weights, n_ket = int(list_row[lists.N_USED]) * (2 if directed else 1), int(list_row[lists.N_KET])
    n_stretches = -(-products.longest // _THREADS)
    first = 0
    while first < len(products.depth):
        depth = int(products.depth[first])
        per_row = n_weights * depth + depth * n_ket + n_weights * n_ket
        room = scratch(per_row, min(len(products.depth) - first, _MOST_STACKED) * per_row)
        n = min(len(products.depth) - first, int(room.size) // per_row, _MOST_STACKED)
        some = products.rows[first : first + n]
        sizes = np.cumsum([n * n_weights * depth, n * depth * n_ket, n * n_weights * n_ket])
        weights = room[: int(sizes[0])].reshape(n, n_weights, depth)
        gathered = room[int(sizes[0]) : int(sizes[1])].reshape(n, depth, n_ket)
        product = room[int(sizes[1]) : int(sizes[2])].reshape(n, n_weights, n_ket)
        _fill_factors(
            device, products, alpha, beta, some, weights, gathered, ket, interaction, coupling, directed, stream
        )
        device.gemm(weights, gathered, product, stream=stream)
        device.kernel("sigma", "opposite_contract")(
            n * n_stretches, _THREADS,
            (
                product, sigma, some, np.int64(n_stretches), alpha.offset, alpha.stop, beta.table,
                np.int64(products.list_number), beta.entries, beta.slice_start, beta.counts, beta.order,
                beta.occupied, np.int64(beta.n_electrons), np.int64(beta.tiles.width), np.int32(directed),
                np.int64(n_weights),
            ),
            0, stream,
        )  # fmt: skip
        first += n


def _fill_factors(
    device: Device, products: Products, alpha: AlphaSide, beta: DeviceBeta, some: DeviceArray, weights: DeviceArray,
    gathered: DeviceArray, ket: DeviceArray, interaction: Interaction, coupling: tuple[DeviceArray, DeviceArray],
    directed: bool, stream: Stream,
) -> None:  # fmt: skip
    list_row = beta.host.table[products.list_number]
    first_used = int(list_row[lists.FIRST_USED])
    used = beta.used[first_used : first_used + int(list_row[lists.N_USED])]
    n, n_weights, depth = weights.shape
    low, n_labels, d = np.int64(alpha.first_row), np.int64(alpha.n_labels), np.int64(products.d)
    device.kernel("sigma", "opposite_weights")(
        n, _THREADS,
        (
            weights, some, *coupling, np.int64(len(interaction.coupling)), np.float64(interaction.swap),
            np.int32(directed), np.int32(interaction.twist is not None), low, n_labels, d, alpha.start, alpha.pair,
            alpha.sign, used, np.int64(n_weights), np.int64(depth),
        ),
        0, stream,
    )  # fmt: skip
    device.kernel("sigma", "opposite_gather")(
        n * depth, _THREADS,
        (
            ket, gathered, some, alpha.ket_offset, low, n_labels, d, alpha.start, alpha.ket, np.int64(depth),
            np.int64(gathered.shape[2]),
        ),
        0, stream,
    )  # fmt: skip
