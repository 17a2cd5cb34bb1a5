"""Kernel sources of this package, and where what is compiled from them is kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqd_mpi.errors import InputError

FOLDER = Path(__file__).parent
CACHE = "SQD_MPI_GPU_CACHE"  # environment: folder of compiled kernels
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
_BATCH_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")


def source(name: str) -> str:
    """The text of a kernel file, prelude first."""
    prelude = (FOLDER / "prelude.h").read_text(encoding="utf-8")
    return f'{prelude}#line 1 "{name}.cu"\n{(FOLDER / f"{name}.cu").read_text(encoding="utf-8")}'


def kernel_names(text: str) -> list[str]:
    """Names of all kernels of a source."""
    return _KERNEL.findall(text)


def cache_folder() -> Path:
    """Where compiled kernels are kept: SQD_MPI_GPU_CACHE, node-local storage under a batch job, or ~/.cache."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen)
    if any(name in os.environ for name in _BATCH_JOBS):
        return Path(tempfile.gettempdir()) / f"sqd_mpi-gpu-{os.getuid()}"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "sqd_mpi" / "gpu"


def cached(suffix: str, key: tuple[str, ...], build: Callable[[Path], None]) -> Path:
    """The file made by `build(path)` for this key, made by one process of the node if it does not exist yet.

    It is written aside and renamed, so that a file of this name is always whole.

    Raises:
        InputError: the cache cannot be written to.
    """
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
    folder = cache_folder()
    path = folder / f"{digest}{suffix}"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{digest}.lock").touch()
    except OSError as error:
        raise InputError(
            f"kernels cannot be kept in {folder} ({error.strerror}); {CACHE} names another folder"
        ) from error
    with _lock(folder / f"{digest}.lock"):
        if not path.exists():
            aside = folder / f"{digest}.{os.getpid()}{suffix}"
            try:
                build(aside)
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)
    return path


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock, where the file system has locks; without them several processes may do the same work."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
