"""A worker process: solves the batches that come through a pipe, until the pipe closes.

    python -m sqd_mpi.loop.worker DESCRIPTOR

It is a program of its own and not a copy of the caller's: scripts need no main guard, and notebooks work.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

READY = "ready"  # said once a worker takes batches; before, it may say why that takes long
_PARENT_CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class Setup:
    """What a worker must know before its first batch."""

    path: list[str]
    """Where modules are looked for: the caller's `sys.path`."""
    max_threads: int
    """Most threads that it will ever use."""
    memory: int | None
    """Bytes that it may allocate, or None."""
    fields: dict[str, Any]
    """The Hamiltonian but for its two-electron integrals."""
    descriptor: int
    """File of the two-electron integrals, s8 and then as a matrix of pairs, that all workers map."""
    lock: str
    """File that one worker locks while it compiles the kernels."""
    typed: bool = False
    """Whether the caller is the command line, whose users type options with hyphens."""


def serve(connection: Connection) -> None:
    """Set up and answer every (solve, task, number of threads) with a result, failed or not."""
    setup: Setup = connection.recv()
    sys.path[:] = setup.path
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    from sqd_mpi.errors import as_typed

    with as_typed() if setup.typed else nullcontext():
        _serve(connection, setup)


def _serve(connection: Connection, setup: Setup) -> None:
    from sqd_mpi import _jit
    from sqd_mpi.errors import InputError
    from sqd_mpi.solver import startup

    try:
        _jit.set_threads(setup.max_threads)
    except InputError as error:  # of the environment, so no batch could be solved
        connection.send(error)
        return
    hamiltonian = _map_hamiltonian(setup)
    startup.warm_up_behind_lock(setup.lock, connection.send)
    from sqd_mpi.loop.batch import isolated

    if setup.memory is not None:
        _limit_memory(setup.memory)  # of batches, not of the libraries
    connection.send(READY)
    while True:
        try:
            solve, task, n_threads = connection.recv()
        except EOFError:
            return
        _jit.set_threads(n_threads)
        answer = isolated(solve, None, hamiltonian, task)
        connection.send(answer)


def _map_hamiltonian(setup: Setup) -> Any:
    """The Hamiltonian on the shared integrals."""
    from sqd_mpi.problem.hamiltonian import Hamiltonian

    norb = setup.fields["norb"]
    n_pairs = norb * (norb + 1) // 2
    n_eri = n_pairs * (n_pairs + 1) // 2
    with os.fdopen(setup.descriptor, "rb") as file:
        # copied on write, which nobody does: kernels for arrays that must not be written to would be compiled once more
        numbers = np.asarray(np.memmap(file, np.float64, "c", shape=(n_eri + n_pairs * n_pairs,)))
    eri, pairs = numbers[:n_eri], numbers[n_eri:].reshape(n_pairs, n_pairs)
    return Hamiltonian.from_parts(setup.fields, eri, pairs)


def _limit_memory(size: int) -> None:
    """Let allocations fail beyond this many bytes more than there are now."""
    import resource

    if not hasattr(resource, "RLIMIT_DATA"):
        return
    used = 0
    with suppress(OSError), open("/proc/self/status") as status:
        used = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + size, used + size))


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
