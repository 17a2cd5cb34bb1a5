"""Where, when and with what a result was made."""

from __future__ import annotations

import platform
import shlex
import sys
import time
import uuid
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from sqd_mpi._version import __version__
from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.resources import processor_name


def new_run_name() -> str:
    """A name that no other run has: by it a result and a trace are known to belong together."""
    return uuid.uuid4().hex


def about_run(input_path: str, n_nodes: int, seconds: float, name: str) -> dict[str, Any]:
    """What a result says about where and how it was made.

    Args:
        input_path: file that was solved.
        n_nodes: number of nodes.
        seconds: since the start of the program.
        name: of the run, from `new_run_name`.
    """
    started = datetime.fromtimestamp(time.time() - seconds, timezone.utc)
    return {
        "id": name,
        "input": _printable(Path(input_path).name),
        "command": _printable(shlex.join(sys.argv[1:])),
        "started": started.isoformat(timespec="seconds"),
        "host": platform.node(),
        "processor": processor_name(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "n_nodes": n_nodes,
    }


def _printable(text: str) -> str:
    """The text without what UTF-8 or HDF5 cannot hold: names of files are any bytes."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def count_nodes(ranks: Ranks) -> int:
    """Number of nodes: ranks that are the first of theirs. Collective over the ranks."""
    return int(ranks.sum(np.array([ranks.local()[0] == 0], np.int64))[0])


def library_versions() -> dict[str, str]:
    """Versions of sqd_mpi, Python, MPI and the libraries."""
    found = {"sqd_mpi": __version__, "python": platform.python_version(), "mpi_library": mpi.library_version()}
    for package in ("numpy", "numba", "h5py", "mpi4py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found
