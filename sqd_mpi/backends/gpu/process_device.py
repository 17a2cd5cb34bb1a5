"""The device of this process: a GPU, or in tests what the environment names instead (SQD_MPI_GPU)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from sqd_mpi.backends.gpu.device import Device
from sqd_mpi.errors import InputError

CHOICE = "SQD_MPI_GPU"  # environment: MODULE:NAME of what opens a device in place of a GPU, for tests
_LOCAL_RANK = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID")
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_process_device: list[Device] = []  # the one of this process, once it is open


def open_device(
    local_rank: int | None = None, n_local: int = 1, say: Callable[[str], None] = lambda text: None
) -> Device:
    """The device of this process; a second call returns the same.

    Args:
        local_rank: number of this rank on its node; by default what the MPI launcher says. It takes device
            local_rank % (devices that it sees).
        n_local: ranks on the node.
        say: is given a sentence where ranks share a device or something takes the place of one.

    Raises:
        InputError: there is no device, with what to install, or no such one as the environment names.
    """
    if not _process_device:
        if local_rank is None:
            local_rank = local_rank_of(os.environ)
        if choice := os.environ.get(CHOICE):
            _process_device.append(_open_named(choice))
            say(f"{CHOICE}={choice} takes the place of a GPU: {_process_device[0].name}, for tests only")
        else:
            from sqd_mpi.backends.gpu.cupy_device import CupyDevice, device_count

            count = device_count()
            _process_device.append(CupyDevice(local_rank % count))
            if text := shared_device_warning(n_local, count, os.environ):
                say(text)
    return _process_device[0]


def _open_named(choice: str) -> Device:
    """The device that the environment names.

    Raises:
        InputError: there is nothing of this name.
    """
    module, _, name = choice.partition(":")
    try:
        create = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        create, why = None, str(error)
    else:
        why = f"{name} cannot be called"
    if not callable(create):
        raise InputError(
            f"{CHOICE} names as MODULE:NAME what opens a device for tests, or is not set; got {choice!r}: {why}"
        )
    device: Device = create()
    return device


def is_there() -> bool:
    """Whether this process sees a GPU and CuPy; what takes the place of one does not count."""
    if importlib.util.find_spec("cupy") is None or os.environ.get(CHOICE):
        return False
    from sqd_mpi.backends.gpu.cupy_device import device_count

    try:
        return device_count() > 0
    except InputError:
        return False


def close_device() -> None:
    """Forget the device of this process, so that `open_device` chooses again."""
    _process_device.clear()


def local_rank_of(environment: Any) -> int:
    """Number of this rank on its node, as MPI launchers tell it; 0 if none does."""
    for name in _LOCAL_RANK:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0


def shared_device_warning(n_local: int, n_devices: int, environment: Any) -> str:
    """A sentence if more ranks than devices are on a node, else an empty string.

    A rank that sees one device only because the launcher shows it no other (such as --gpus-per-task=1) shares nothing
    as far as it can know.
    """
    if n_local <= n_devices or (n_devices == 1 and any(environment.get(name) for name in _VISIBLE)):
        return ""
    devices = "1 GPU" if n_devices == 1 else f"{n_devices} GPUs"
    return f"{n_local} ranks on a node share {devices}; one rank for each GPU is faster"
