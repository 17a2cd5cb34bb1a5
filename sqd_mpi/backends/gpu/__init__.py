"""The GPU backend: one source of CUDA and HIP kernels, a small interface to the device, and the blocks made of both.

`create_share` and `create_block` are what `get_backend` promises; the device is the one of this process (`device`).
"""

from __future__ import annotations

from typing import Any

from sqd_mpi.backends.gpu.block import GpuBlock, StagedBlock
from sqd_mpi.backends.gpu.device import open_device
from sqd_mpi.backends.gpu.share import GpuShare


def create_share(layout: Any, place: Any, hamiltonian: Any, orbital_labels: Any) -> GpuShare:
    """String structure that the blocks of all sectors on this place share, on the device of this process."""
    return GpuShare(open_device(), layout, place, hamiltonian, orbital_labels)


def create_device_block(layout: Any, place: Any, hamiltonian: Any, share: GpuShare) -> GpuBlock:
    """The block of rank (ia, ib, it, ir) for one sector, for vectors on the device."""
    return GpuBlock(layout, place, share)


def create_block(layout: Any, place: Any, hamiltonian: Any, share: GpuShare) -> StagedBlock:
    """The same for vectors on the host, which travel to the device and back with every task."""
    return StagedBlock(GpuBlock(layout, place, share))
