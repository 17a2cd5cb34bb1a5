"""The GPU backend: one source of CUDA and HIP kernels, a small interface to the device, and the blocks made of both.

`create_share`, `create_block` and `create_memory` are what `get_backend` promises; the device is the one of this
process (`device`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqd_mpi.backends.gpu.process_device import local_rank_of, open_device

if TYPE_CHECKING:  # imported where needed: whoever only asks for a device does not load numba
    from sqd_mpi.backends.gpu.block import GpuBlock
    from sqd_mpi.backends.gpu.memory import DeviceMemory
    from sqd_mpi.backends.gpu.share import GpuShare

_remarks: list[str] = []  # what there was to say when the device of this process was opened


def create_share(layout: Any, place: Any, hamiltonian: Any, orbital_labels: Any) -> GpuShare:
    """String structure that the blocks of all sectors on this place share, on the device of this process."""
    from sqd_mpi.backends.gpu.share import GpuShare

    return GpuShare(open_device(), layout, place, hamiltonian, orbital_labels)


def create_block(layout: Any, place: Any, hamiltonian: Any, share: GpuShare) -> GpuBlock:
    """The block of rank (ia, ib, it, ir) for one sector, for vectors on the device."""
    from sqd_mpi.backends.gpu.block import GpuBlock

    return GpuBlock(layout, place, share)


def create_memory(
    direct: bool = False,
    local_rank: int | None = None,
    n_local: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> DeviceMemory:
    """The memory of the device of this process, which is opened by the first call.

    Args:
        direct: whether MPI takes arrays of the device.
        local_rank: number of this rank on its node, if the launcher does not say it; n_local: ranks there.
        say: is given a sentence where ranks share a device, or something takes the place of one.

    Raises:
        InputError: there is no device, or its kernels give other sums than the CPU (`self_check`).
    """
    from sqd_mpi.backends.gpu.memory import DeviceMemory

    # A communicator of some ranks of a node numbers them anew; what the launcher says comes first.
    device = open_device(local_rank_of(os.environ) or local_rank, n_local, _remarks.append)
    if device.kind != "host":  # what runs on the CPU is what the check compares with
        from sqd_mpi.backends.gpu.self_check import check_once

        check_once(device)
    for text in _remarks:
        say(text)
    return DeviceMemory(device, direct)
