"""The MPI library: its start, its end, and what it can do."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqd_mpi.log import settle

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import Communicator


def world() -> Communicator | None:
    """COMM_WORLD, or None where mpi4py or an MPI library is missing (then there is one process)."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    if not MPI.Is_initialized():  # it was imported to ask for its version only
        MPI.Init_thread()
        atexit.register(MPI.Finalize)
    return MPI.COMM_WORLD


def _running() -> Any:
    """The module of MPI if MPI was started here and goes on, else None."""
    module = sys.modules.get("mpi4py.MPI")
    return module if module is not None and module.Is_initialized() and not module.Is_finalized() else None


def started_rank() -> int | None:
    """Number of this process in COMM_WORLD, or None where MPI does not run here: nobody but MPI knows it."""
    module = _running()
    return None if module is None else int(module.COMM_WORLD.rank)


def abort(code: int) -> None:
    """End all ranks of this job at once, if MPI was started here; otherwise return."""
    module = _running()
    if module is not None:
        settle()
        module.COMM_WORLD.Abort(code)


def library_version() -> str:
    """Name and version of the MPI library, or why there is none."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"none ({str(error).splitlines()[0]}); install one with: pip install 'sqd_mpi[mpi]'"
    return " ".join(MPI.Get_library_version().replace("\x00", "").split("\n")[0].split())


def no_messages_from(kind: str) -> str | None:
    """Why this MPI library does not send from the memory of GPUs of a kind, in one sentence, or None.

    Args:
        kind: "cuda", "hip", or "host" for ordinary memory, which any library takes.
    """
    if kind == "host" or "mpi4py.MPI" not in sys.modules:
        return None
    if os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1":  # Cray MPICH, which then demands it
        return None
    if _answer_on_gpus(kind):
        return None
    return (
        f"--gpu-aware-mpi needs an MPI library that sends from the memory of GPUs ({kind}); {library_version()} does "
        "not say that it can (Cray MPICH does so with MPICH_GPU_SUPPORT_ENABLED=1)"
    )


def _answer_on_gpus(kind: str) -> bool:
    """What the MPI library answers, by the functions of Open MPI and MPICH; False if it has none of them."""
    import ctypes

    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libmpi" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        if hasattr(library, "MPIX_GPU_query_support"):  # MPICH: 0 for CUDA, 2 for HIP
            found = ctypes.c_int(0)
            code = library.MPIX_GPU_query_support({"cuda": 0, "hip": 2}[kind], ctypes.byref(found))
            if code == 0 and found.value:
                return True
        query = {"cuda": "MPIX_Query_cuda_support", "hip": "MPIX_Query_rocm_support"}[kind]
        if hasattr(library, query) and getattr(library, query)():
            return True
    return False
