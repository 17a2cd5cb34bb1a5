"""Devices for tests that have no GPU: the kernels' sources run on the CPU, at once or as late as streams allow."""

from __future__ import annotations

import os

from sqd_mpi.errors import InputError
from tests.gpu_shim.host_device import HostDevice
from tests.gpu_shim.late_device import LateDevice

SHIM = "tests.gpu_shim:open_shim"  # the value of SQD_MPI_GPU
LATE = "SQD_MPI_GPU_HOST_LATE"  # environment: a seed; streams are done late, in an order that depends on it


def open_shim() -> HostDevice:
    """The host shim that the environment asks for.

    Raises:
        InputError: it asks for what is no seed.
    """
    seed = os.environ.get(LATE, "")
    if not seed:
        return HostDevice()
    if not seed.isdigit():
        raise InputError(f"{LATE} is a whole number, from which the order of streams is drawn; got {seed!r}")
    return LateDevice(int(seed))
