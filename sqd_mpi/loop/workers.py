"""Worker processes on one machine: several batches at once, each isolated from the others and from the caller."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sqd_mpi._jit import threads_of_environment
from sqd_mpi.errors import InputError, RunError, is_typed
from sqd_mpi.loop.batch import BatchResult, BatchTask, Failure, Solve, failed, solve_one
from sqd_mpi.loop.worker import READY, Setup
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.resources import PACKAGE, available_cores, available_memory
from sqd_mpi.solver.startup import check_processor

_LOOK_SECONDS = 0.5  # longest time between looks at clocks and at what the caller wants
# A worker ends a solve by itself at the timeout; it is killed this much later, if it does not answer.
_GRACE_SECONDS = 2.0
_LOG_LINES = 12
_LOG_BYTES = 20_000
_MEMORY_SHARE = 0.9  # of what is available, divided among the workers


@dataclass(eq=False)
class _Worker:
    """One process and what it is doing."""

    process: subprocess.Popen[bytes]
    connection: Any
    log: Any = field(repr=False)
    ready: bool = False
    task: BatchTask | None = None
    began: float = 0.0
    log_start: int = 0


class WorkerPool:
    """Worker processes that share one Hamiltonian and stay for several calls of `solve`; a context manager.

    Args:
        hamiltonian: integrals; the workers map one copy of the two-electron part.
        n_workers: number of processes; by default one per core of this process' affinity mask, or as many as there are
            cores for their threads.
        threads: threads of every worker; by default what NUMBA_NUM_THREADS or OMP_NUM_THREADS say, else the cores are
            divided among the workers that have something to do.
        memory: bytes that a worker may allocate for a batch; by default what is available divided by the workers, for
            the solver's own prediction only.
        devices: devices that the workers may see, one after another in turn. Without, they use the CPU.
        tell: is given a sentence when the workers must compile their kernels first.

    Raises:
        InputError: a number is not positive.
    """

    def __init__(
        self, hamiltonian: Hamiltonian, n_workers: int | None = None, *, threads: int | None = None,
        memory: int | None = None, devices: Sequence[int] | None = None, tell: Callable[[str], None] | None = None,
    ):  # fmt: skip
        for name, value in (("n_workers", n_workers), ("threads", threads), ("memory", memory)):
            if value is not None and value < 1:
                raise InputError(f"{name} needs a positive number; got {value}")
        self.hamiltonian = hamiltonian
        check_processor()
        self.n_cores = available_cores()
        self.threads = threads or threads_of_environment(self.n_cores).number
        self.n_workers = n_workers or most_workers(self.threads)
        self.memory, self.devices = memory, devices
        self._tell = tell
        self._workers: list[_Worker | None] = [None] * self.n_workers
        self._integrals = _shared_file(hamiltonian)
        self._lock = tempfile.NamedTemporaryFile(prefix="sqd_mpi-workers-")

    def __enter__(self) -> WorkerPool:
        """The pool; processes start with the first batches."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes."""
        self.close()

    def close(self) -> None:
        """End all processes at once."""
        for place in range(self.n_workers):
            self._end(place)
        self._integrals.close()
        self._lock.close()

    def solve(
        self, tasks: Sequence[BatchTask], *, retries: int = 0, solve: Solve = solve_one,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[BatchResult]:  # fmt: skip
        """Solve all tasks, in the order given as workers become free; results in the same order.

        Args:
            tasks: the batches, the most expensive ones first.
            retries: how often a failed batch is tried again.
            solve: what solves one batch; an importable function like `solve_one`.
            should_stop: asked a few times a second; True ends what is running, as failures of kind "stopped".
        """
        queue = list(tasks)
        attempts = {task.number: 0 for task in tasks}
        results: dict[int, BatchResult] = {}
        while len(results) < len(tasks):
            if should_stop is not None and should_stop():
                self._stop(tasks, results)
                break
            self._hand_out(queue, len(tasks) - len(results), attempts, solve)
            for result in self._collect():
                if result.failure is not None and attempts[result.number] <= retries:
                    queue.append(next(task for task in tasks if task.number == result.number))
                else:
                    results[result.number] = result.after(attempts[result.number])
        return [results[task.number] for task in tasks]

    def _hand_out(self, queue: list[BatchTask], n_left: int, attempts: dict[int, int], solve: Solve) -> None:
        """Start processes for what waits, and give the next batches to those that are ready."""
        # Further processes start as long as there are batches for them.
        there = [worker for worker in self._workers if worker is not None]
        busy = sum(worker.task is not None for worker in there)
        waiting = len(there) - busy
        for place, worker in enumerate(self._workers):
            if worker is None and len(queue) > waiting:
                self._workers[place] = self._start(place)
                waiting += 1

        # The cores are divided among those that work.
        for place, worker in enumerate(self._workers):
            if worker is None or not worker.ready or worker.task is not None or not queue:
                continue

            # The next batch is its own.
            shared = min(self.n_workers, n_left)
            threads = self.threads or max(1, self.n_cores // max(shared, busy + 1))
            task = queue.pop(0)
            attempts[task.number] += 1
            worker.task, worker.began = task, time.monotonic()
            worker.log_start = os.fstat(worker.log.fileno()).st_size
            busy += 1

            # It is sent off; what cannot be sent is a fault of the caller.
            try:
                worker.connection.send((solve, self._limited(task), threads))
            except (OSError, BrokenPipeError):
                pass  # its end is noticed in the next look
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                worker.task = None
                self._end(place)
                raise InputError(f"what a worker gets must be importable: {error}") from None

    def _limited(self, task: BatchTask) -> BatchTask:
        """The task with what a worker may use."""
        options = task.options
        changes: dict[str, Any] = {}
        if options.backend == "auto" and self.devices is None:
            changes["backend"] = "cpu"
        if options.memory is None:
            share = int(_MEMORY_SHARE * available_memory() / self.n_workers)
            changes["memory"] = min(self.memory, share) if self.memory else share
        return replace(task, options=options.replace(**changes)) if changes else task

    def _collect(self) -> list[BatchResult]:
        """Wait a moment for answers, ends of processes and the end of somebody's time."""
        known = {worker.connection: place for place, worker in enumerate(self._workers) if worker is not None}
        found = []
        for connection in multiprocessing.connection.wait(list(known), timeout=_LOOK_SECONDS):
            result = self._receive(known[connection])
            if result is not None:
                found.append(result)
        for place, worker in enumerate(self._workers):
            if worker is None or worker.task is None or worker.task.timeout is None:
                continue
            if time.monotonic() - worker.began > worker.task.timeout + _GRACE_SECONDS:
                reason = f"no result after {worker.task.timeout:g} s; its worker was ended"
                found.append(failed(worker.task, Failure("timeout", reason, self._last_lines(worker))))
                self._end(place)
        return found

    def _receive(self, place: int) -> BatchResult | None:
        """What a worker says: that it is ready, a result, or by its end that it failed."""
        worker = self._workers[place]
        assert worker is not None
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):
            return self._after_end(place, worker)
        if isinstance(answer, BatchResult):
            worker.task = None
            return answer
        if isinstance(answer, InputError):
            self._end(place)
            raise answer
        if answer != READY:
            if self._tell is not None:
                self._tell(answer)
            return None
        worker.ready = True
        return None

    def _after_end(self, place: int, worker: _Worker) -> BatchResult | None:
        """The failure of the batch that a worker had when it ended."""
        code = worker.process.wait()
        lines = self._last_lines(worker)
        task, ready = worker.task, worker.ready
        self._end(place)
        if not ready:
            said = f": {lines[-1].strip()}" if lines else ""
            raise RunError(f"a worker process could not start (exit code {code}){said}")
        if task is None:
            return None
        if code < 0:
            return failed(task, Failure("signal", f"its worker was killed by {signal.Signals(-code).name}", lines))
        return failed(task, Failure("exception", f"its worker ended with exit code {code}", lines))

    def _stop(self, tasks: Sequence[BatchTask], results: dict[int, BatchResult]) -> None:
        """End what is running."""
        for place, worker in enumerate(self._workers):
            if worker is not None and worker.task is not None:
                self._end(place)
        for task in tasks:
            if task.number not in results:
                results[task.number] = failed(task, Failure("stopped", "the run was asked to stop"))

    def _start(self, place: int) -> _Worker:
        mine, theirs = multiprocessing.Pipe()
        log = tempfile.TemporaryFile(prefix="sqd_mpi-worker-")
        descriptor = self._integrals.fileno()
        environment = {**os.environ, **self._device(place)}
        process = subprocess.Popen(
            [sys.executable, "-m", "sqd_mpi.loop.worker", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), descriptor), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, env={**environment, "PYTHONPATH": os.pathsep.join(_search_path())},
        )  # fmt: skip
        theirs.close()
        with suppress(OSError, BrokenPipeError):  # its end is noticed in the next look
            mine.send(
                Setup(
                    _search_path(),
                    self.threads or self.n_cores,
                    self.memory,
                    self.hamiltonian.without_eri(),
                    descriptor,
                    self._lock.name,
                    is_typed(),
                )  # fmt: skip
            )
        return _Worker(process, mine, log)

    def _device(self, place: int) -> dict[str, str]:
        """Environment that shows a worker its device only."""
        if not self.devices:
            return {}
        device = str(self.devices[place % len(self.devices)])
        return {"CUDA_VISIBLE_DEVICES": device, "HIP_VISIBLE_DEVICES": device}

    def _end(self, place: int) -> None:
        worker, self._workers[place] = self._workers[place], None
        if worker is None:
            return
        worker.process.kill()
        worker.process.wait()
        worker.connection.close()
        worker.log.close()

    def _last_lines(self, worker: _Worker) -> tuple[str, ...]:
        """What the worker wrote last, while it had its batch."""
        size = os.fstat(worker.log.fileno()).st_size
        start = max(worker.log_start, size - _LOG_BYTES)
        text = os.pread(worker.log.fileno(), max(0, size - start), start).decode(errors="replace")
        return tuple(text.splitlines()[-_LOG_LINES:])


def most_workers(threads: int | None) -> int:
    """How many processes of so many threads each have a core for every thread.

    Args:
        threads: of a worker; None for what the environment says, else one.
    """
    n_cores = available_cores()
    return max(1, n_cores // (threads or threads_of_environment(n_cores).number or 1))


def _search_path() -> list[str]:
    """Where a worker looks for modules: as this process does, in absolute terms."""
    package = str(PACKAGE.parent)
    here = [str(Path(entry or os.curdir).absolute()) for entry in sys.path]
    return here if package in here else [package, *here]


def _shared_file(hamiltonian: Hamiltonian) -> Any:
    """File without a name, in memory where the system has a place for it, that holds the two-electron integrals."""
    size = hamiltonian.eri.nbytes + hamiltonian.eri_pairs().nbytes
    file = tempfile.TemporaryFile(prefix="sqd_mpi-integrals-", dir=_memory_folder(size))
    for numbers in (hamiltonian.eri, hamiltonian.eri_pairs()):
        file.write(np.ascontiguousarray(numbers).data)
    file.flush()
    return file


def _memory_folder(size: int) -> str | None:
    """The folder of shared memory if it has room, else None for that of temporary files."""
    folder = "/dev/shm"
    with suppress(OSError):
        place = os.statvfs(folder)
        if os.access(folder, os.W_OK) and place.f_bavail * place.f_frsize > 2 * size:
            return folder
    return None
