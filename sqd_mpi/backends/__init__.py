"""Backends compute one rank's share of sigma = H C. They see arrays and ranges, never a communicator.

A backend turns a layout and a place in the grid into a *block*: an object that lists its tasks with predicted costs,
prepares those that it is given, and applies them one at a time to a ket block.
"""

from __future__ import annotations

from typing import Any


def get_backend(name: str) -> Any:
    """The module of a backend; it has `create_share`, `create_block` and `create_memory`.

    Args:
        name: "cpu", "gpu" or "reference"; "auto" is the CPU here, as only the size of a problem says whether a device
            pays.
    """
    if name in ("auto", "cpu"):
        from sqd_mpi.backends.cpu import block

        return block
    if name == "gpu":
        from sqd_mpi.backends import gpu

        return gpu
    if name == "reference":
        from sqd_mpi.backends import reference

        return reference
    raise ValueError(f"a backend is one of auto, cpu, gpu, reference; got {name!r}")


def device_is_there() -> bool:
    """Whether this process sees a GPU and the library that the backend gpu needs."""
    from sqd_mpi.backends.gpu.process_device import is_there

    return is_there()


def get_density_backend(name: str) -> Any:
    """The module that makes density matrices beside a backend; it has `create_density_block`.

    Args:
        name: as for `get_backend`.
    """
    if name == "reference":
        from sqd_mpi.backends import reference

        return reference
    if name == "gpu":
        from sqd_mpi.backends.gpu import density as gpu_density

        return gpu_density
    from sqd_mpi.backends.cpu import density

    return density


def get_external_tile(name: str) -> Any:
    """The class that makes amplitudes of determinants outside the space beside a backend (`cpu.outside.ExternalTile`).

    Args:
        name: as for `get_backend`; every backend but "reference" uses the CPU for them.
    """
    from sqd_mpi.backends.cpu import outside

    return outside.ReferenceTile if name == "reference" else outside.ExternalTile
