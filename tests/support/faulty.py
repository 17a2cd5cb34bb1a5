"""Solvers of a batch that fail on purpose in one of several batches, for the tests of isolation."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np

from sqd_mpi.loop.batch import solve_one

FAULTY = 2  # number of the batch that fails


def raising(comm, hamiltonian, task, should_stop):
    """An exception on all ranks."""
    if task.number == FAULTY:
        print("about to fail", file=sys.stderr, flush=True)
        raise RuntimeError("an error made for a test")
    return solve_one(comm, hamiltonian, task, should_stop)


def raising_at_once(comm, hamiltonian, task, should_stop):
    """An exception on the last rank of the group while the others begin."""
    if task.number == FAULTY and (comm is None or comm.rank == comm.size - 1):
        raise MemoryError("an allocation failed for a test")
    return solve_one(comm, hamiltonian, task, should_stop)


def raising_midway(comm, hamiltonian, task, should_stop):
    """An exception on the last rank of the group between two iterations; the others wait for it in MPI."""
    iterations = iter(range(100))

    def stop() -> bool:
        if next(iterations) == 2 and (comm is None or comm.rank == comm.size - 1):
            raise RuntimeError("an error made for a test, on one rank")
        return should_stop is not None and should_stop()

    return solve_one(comm, hamiltonian, task, stop if task.number == FAULTY else should_stop)


def raising_once(comm, hamiltonian, task, should_stop):
    """As `raising_midway`, but at the first attempt only."""
    solve = solve_one if task.number in _TRIED else raising_midway
    _TRIED.add(task.number)
    return solve(comm, hamiltonian, task, should_stop)


_TRIED: set[int] = set()


def not_finite(comm, hamiltonian, task, should_stop):
    """NaN for an energy."""
    result = solve_one(comm, hamiltonian, task, should_stop)
    return replace(result, energy=float("nan")) if task.number == FAULTY else result


def sleeping(comm, hamiltonian, task, should_stop):
    """No answer for a long time, and deaf."""
    if task.number == FAULTY:
        print("about to sleep", file=sys.stderr, flush=True)
        time.sleep(300)
    return solve_one(comm, hamiltonian, task, should_stop)


def slow(comm, hamiltonian, task, should_stop):
    """A solve that does not converge and takes its time for every iteration."""
    if task.number != FAULTY:
        return solve_one(comm, hamiltonian, replace(task, timeout=None), should_stop)

    def wait() -> bool:
        time.sleep(0.2)
        return should_stop is not None and should_stop()

    options = task.options.replace(tol=1e-300, max_iterations=10_000, model_space=1)
    return solve_one(comm, hamiltonian, replace(task, options=options), wait)


def killed(comm, hamiltonian, task, should_stop):
    """SIGKILL, as from the system when memory is short."""
    if task.number == FAULTY:
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return solve_one(comm, hamiltonian, task, should_stop)


def greedy(comm, hamiltonian, task, should_stop):
    """More memory than a worker has."""
    if task.number == FAULTY:
        np.ones(10**9)
    return solve_one(comm, hamiltonian, task, should_stop)


def dying_once(comm, hamiltonian, task, should_stop):
    """SIGKILL at the first attempt only; a file remembers it."""
    mark = f"{task.vector_file}.mark"
    if task.number == FAULTY and not os.path.exists(mark):
        with open(mark, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return solve_one(comm, hamiltonian, task, should_stop)
