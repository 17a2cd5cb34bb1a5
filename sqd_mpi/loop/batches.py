"""Several subspaces of one Hamiltonian at once: on groups of MPI ranks, in worker processes, or one after another.

A batch that fails is a result with the reason in its place; the others are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sqd_mpi.arrays import Strings
from sqd_mpi.distribution.node_memory import NodeShared
from sqd_mpi.distribution.ranks import MpiRanks, ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.loop.batch import BatchResult, BatchTask, Solve, failed, isolated, solve_one
from sqd_mpi.loop.workers import WorkerPool, most_workers
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.excitations import find_singles
from sqd_mpi.problem.hamiltonian import Hamiltonian

if TYPE_CHECKING:
    from sqd_mpi.distribution.cancellable import Group
    from sqd_mpi.distribution.ranks import SomeRanks

Pair = tuple[Strings, Strings]

# A batch on r ranks is taken to be r to this power times as fast as on one.
_SCALING = 0.9
_SAMPLED_STRINGS = 256  # of each spin, from which the cost of a batch is predicted


@dataclass(frozen=True)
class BatchGroup:
    """Ranks that solve some of the batches, one after another."""

    first_rank: int
    """Lowest rank."""
    n_ranks: int
    """Number of ranks, which follow each other."""
    batches: tuple[int, ...]
    """Numbers of the batches."""


def solve_batches(
    hamiltonian: Hamiltonian, batches: Sequence[Pair], options: SolveOptions | None = None, *, comm: SomeRanks = None,
    pool: WorkerPool | None = None, workers: int | None = None, threads: int | None = None, memory: int | None = None,
    devices: Sequence[int] | None = None, timeout: float | None = None, retries: int = 0,
    vectors: Path | str | None = None, amplitudes: bool = False, rdm: int = 0, solve: Solve = solve_one,
    should_stop: Callable[[], bool] | None = None, log: Log | None = None,
) -> list[BatchResult]:  # fmt: skip
    """Lowest eigenpair in each of several subspaces, all at once as far as there are ranks or cores.

    Collective over the communicator: all arguments must be the same on all ranks. With several ranks, groups of them
    take the batches; a large batch gets more ranks, small ones wait for each other. Without, worker processes do.

    Args:
        hamiltonian: integrals; under MPI the two-electron part is held once per node while the batches run.
        batches: (alpha, beta) strings of every batch, (n, nwords) uint64.
        options: of every solve; the lowest root is what counts.
        comm: MPI communicator, or None.
        pool: workers that exist already; then `workers`, `threads`, `memory` and `devices` are those of the pool.
        workers: number of worker processes, by default one per core, or as many as there are cores for their threads,
            but not more than batches; 0 solves one batch after another in this process, where nothing protects from
            signals and the memory limit is not enforced.
        threads: threads of a worker; by default what NUMBA_NUM_THREADS or OMP_NUM_THREADS say, else cores are divided.
        memory: bytes that each worker may allocate.
        devices: devices that workers see, one after another in turn; without, workers use the CPU.
        timeout: seconds after which a batch has failed.
        retries: how often a failed batch is tried again.
        vectors: folder for the eigenvectors, `batch-<number>.h5`, from which later solves may start.
        amplitudes: whether the results hold the whole eigenvectors; under MPI on rank 0 only.
        rdm: order of the density matrices that the results hold: 0, 1 or 2; under MPI on rank 0 only.
        solve: what solves one batch, an importable function like `solve_one`.
        should_stop: asked between iterations, on every rank; True makes unfinished batches fail as "stopped".
        log: where failures are reported.

    Returns:
        one result per batch, in order; those that failed have a `failure`.

    Raises:
        InputError: options do not fit. Strings that do not fit make their batch fail.
    """
    _check(hamiltonian, pool, timeout, retries)

    # One task a batch.
    plain = options if options is not None else SolveOptions()
    tasks = [
        BatchTask(
            number, np.asarray(alpha), np.asarray(beta), plain,
            None if vectors is None else Path(vectors) / f"batch-{number}.h5", amplitudes, rdm, timeout,
        )
        for number, (alpha, beta) in enumerate(batches)
    ]  # fmt: skip
    if not tasks:
        return []

    # Groups of ranks solve them, or workers, or this process.
    ranks = ranks_of(comm)
    if isinstance(ranks, MpiRanks):
        results = _on_groups(ranks, hamiltonian, tasks, retries, solve, should_stop)
    elif pool is not None:
        results = _by_workers(pool, tasks, retries, solve, should_stop)
    elif workers == 0:
        results = [_tried(partial(isolated, solve, None, hamiltonian, task, should_stop), retries) for task in tasks]
    else:
        count = workers or min(len(tasks), most_workers(threads))
        tell = None if log is None else log.info
        with WorkerPool(hamiltonian, count, threads=threads, memory=memory, devices=devices, tell=tell) as own:
            results = _by_workers(own, tasks, retries, solve, should_stop)
    _tell(results, log or Log.silent())
    return results


def _check(hamiltonian: Hamiltonian, pool: WorkerPool | None, timeout: float | None, retries: int) -> None:
    """Raise InputError where arguments do not fit."""
    if timeout is not None and not timeout > 0:
        raise InputError(f"timeout needs a positive number of seconds; got {timeout}")
    if retries < 0:
        raise InputError(f"retries needs a number of at least 0; got {retries}")
    if pool is not None and pool.hamiltonian is not hamiltonian:
        if pool.hamiltonian.fingerprint() != hamiltonian.fingerprint():
            raise InputError("the workers of a pool need the Hamiltonian of the batches; they have another one")


def _tell(results: list[BatchResult], log: Log) -> None:
    """Say what failed."""
    for result in results:
        if result.failure is not None:
            log.warning(f"batch {result.number} failed after {result.failure.attempts} attempts: {result.failure}")
        if result.vector_trouble is not None:
            log.warning(f"the eigenvector of batch {result.number} is not kept: {result.vector_trouble}")


def predicted_cost(task: BatchTask, norb: int) -> float:
    """Relative cost of a batch: the multiply-adds of one sigma between opposite spins, singles x singles."""
    try:
        sides = [bitstrings.canonical(each)[0] for each in (task.strings_a, task.strings_b)]
        counts = [len(side) * (1.0 + _mean_singles(side, norb)) for side in sides]
    except (IndexError, ValueError, TypeError):
        return 1.0  # strings that do not fit; their solve will say so
    return max(counts[0], 1.0) * max(counts[1], 1.0)


def _mean_singles(strings: Strings, norb: int) -> float:
    """Mean number of singles of a string inside its set, from a sample of the strings."""
    sample = np.ascontiguousarray(strings[:: max(1, len(strings) // _SAMPLED_STRINGS)])
    return float(np.diff(find_singles(sample, strings, norb).indptr).mean()) if len(sample) else 0.0


def divide_ranks(costs: Sequence[float], n_ranks: int) -> list[BatchGroup]:
    """Groups of ranks for batches of given costs, so that the last one is done as early as possible.

    For every number of groups the batches are assigned to them, the most expensive first, each to the one with the
    least to do; ranks then go one by one to the group that would be the last. The best number is taken.
    """
    order = sorted(range(len(costs)), key=lambda k: (-costs[k], k))
    best: tuple[float, list[list[int]], list[int]] | None = None
    for n_groups in range(1, min(n_ranks, len(costs)) + 1):
        queues: list[list[int]] = [[] for _ in range(n_groups)]
        loads = [0.0] * n_groups
        for number in order:
            least = min(range(n_groups), key=lambda g: (loads[g], g))
            queues[least].append(number)
            loads[least] += costs[number]
        ranks = [1] * n_groups
        for _ in range(n_ranks - n_groups):
            last = max(range(n_groups), key=lambda g: (loads[g] / ranks[g] ** _SCALING, -g))
            ranks[last] += 1
        end = max(load / count**_SCALING for load, count in zip(loads, ranks, strict=True))
        if best is None or end < best[0] * (1 - 1e-9):
            best = end, queues, ranks
    assert best is not None
    first = np.concatenate([[0], np.cumsum(best[2])])
    return [BatchGroup(int(first[g]), best[2][g], tuple(queue)) for g, queue in enumerate(best[1])]


@contextmanager
def shared_on_nodes(comm: SomeRanks, hamiltonian: Hamiltonian | None) -> Iterator[Hamiltonian]:
    """The Hamiltonian of rank 0 on all ranks, its two-electron integrals once per node.

    Collective over the communicator. Only rank 0 needs to have it before. With one rank it is what was given.
    """
    ranks = ranks_of(comm)
    assert hamiltonian is not None or ranks.rank > 0
    if not isinstance(ranks, MpiRanks):
        assert hamiltonian is not None
        yield hamiltonian
        return
    rest = ranks.broadcast(None if hamiltonian is None else hamiltonian.without_eri())
    arrays = [hamiltonian.eri, hamiltonian.eri_pairs()] if ranks.rank == 0 and hamiltonian is not None else None
    shared = NodeShared(ranks, arrays)
    try:
        yield Hamiltonian.from_parts(rest, shared.arrays[0], shared.arrays[1])
    finally:
        shared.free()


def _tried(attempt: Callable[[], BatchResult], retries: int) -> BatchResult:
    """The result of the first attempt that does not fail, or of the last one."""
    for number in range(1, retries + 2):
        result = attempt().after(number)
        if result.failure is None or result.failure.kind == "stopped":
            break
    return result


def _by_workers(
    pool: WorkerPool, tasks: list[BatchTask], retries: int, solve: Solve, should_stop: Callable[[], bool] | None
) -> list[BatchResult]:
    """All batches in worker processes, the most expensive first."""
    costs = {task.number: predicted_cost(task, pool.hamiltonian.norb) for task in tasks} if len(tasks) > 1 else {}
    order = sorted(tasks, key=lambda task: (-costs.get(task.number, 0.0), task.number))
    results = pool.solve(order, retries=retries, solve=solve, should_stop=should_stop)
    return sorted(results, key=lambda result: result.number)


def _on_groups(
    ranks: MpiRanks, hamiltonian: Hamiltonian, tasks: list[BatchTask], retries: int, solve: Solve,
    should_stop: Callable[[], bool] | None,
) -> list[BatchResult]:  # fmt: skip
    """All batches on groups of ranks. Collective over the ranks."""
    from sqd_mpi.distribution.cancellable import Group

    # The ranks predict the costs together, and each finds its group.
    part = {k: predicted_cost(task, hamiltonian.norb) for k, task in enumerate(tasks) if k % ranks.size == ranks.rank}
    costs: dict[int, float] = {}
    for each in ranks.gather_objects(part):
        costs.update(each)
    groups = divide_ranks([costs[k] for k in range(len(tasks))], ranks.size)
    number = next(g for g, group in enumerate(groups) if ranks.rank < group.first_rank + group.n_ranks)

    # Its batches, one after another.
    mine_alone = ranks.split(number)
    group = Group(mine_alone.comm)
    mine = [tasks[k] for k in groups[number].batches]
    results = [_tried(partial(_agreed, group, hamiltonian, task, solve, should_stop), retries) for task in mine]
    leads = group.rank == 0
    group.free()
    mine_alone.free()

    # Arrays are on rank 0 only.
    whole = ranks.gather_on_root(results if leads else [])
    known_to_all = ranks.broadcast([each.without_arrays() for part in whole for each in part])
    found = [each for part in whole for each in part] if ranks.rank == 0 else known_to_all
    return sorted(found, key=lambda result: result.number)


def _agreed(
    group: Group, hamiltonian: Hamiltonian, task: BatchTask, solve: Solve, should_stop: Callable[[], bool] | None
) -> BatchResult:
    """One batch on the ranks of a group; a failure of any of them is the failure of all. Collective over the group."""
    mine = isolated(solve, group.attempt(), hamiltonian, task, should_stop)
    if mine.failure is not None:
        group.give_up()
    failures = [each for each in group.settle(mine.failure) if each is not None]
    # Those that were called back failed as well; the reason is with the others.
    own = [each for each in failures if each.kind != "recalled"] or failures
    return failed(task, own[0]) if own else mine
