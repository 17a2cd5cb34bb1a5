"""What a machine can do: measures the constants of a `MachineProfile` on all ranks, and checks how they are placed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from math import log2
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sqd_mpi.app import bench_device
from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.ranks import MpiRanks, Ranks
from sqd_mpi.errors import InputError
from sqd_mpi.files.new_files import check_output
from sqd_mpi.log import Log
from sqd_mpi.planner.profile import MachineProfile, write_profile
from sqd_mpi.resources import peak_rss_bytes, processor_name
from sqd_mpi.solver import startup

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import Communicator

_KERNEL_CASES = (  # strings, orbitals, electrons, grids of which one place is measured
    (3600, 20, 5, ((1, 1, 1, 1), (4, 1, 1, 1), (1, 4, 1, 1), (2, 2, 1, 1))),
    (1200, 18, 4, ((1, 1, 1, 1), (2, 2, 1, 1))),
)
_OPERATIONS = "mixed_seconds", "gather_seconds", "same_spin_seconds", "group_seconds"
_LABELS = 4
_LARGE = 2_000_000  # elements of a large message or vector
_REPEATS = 5
_SMALL_REPEATS = 50


class CpuEngine:
    """Measures made-up problems with the CPU backend."""

    start = MachineProfile()
    """Profile whose constants are the first guess."""
    names = _OPERATIONS
    """Names of those that are fitted."""
    outside = 30.0
    """How many times smaller or larger than the guess a constant may be."""
    cases = _KERNEL_CASES
    """Made-up problems."""

    def block(self, layout: Any, place: Any, hamiltonian: Any, labels: Any) -> Any:
        """A block of the backend."""
        from sqd_mpi.backends import get_backend

        backend = get_backend("cpu")
        share = backend.create_share(layout, place, hamiltonian, labels)
        return backend.create_block(layout, place, hamiltonian, share)

    def array(self, host: Any) -> Any:
        """A vector for the block."""
        return host

    def seconds(self, function: Callable[[], object]) -> float:
        """Least processor seconds of a call."""
        return _least(function, process_time, 3)


def run(
    ranks: Ranks, threads: str | int, output: str | Path | None, backend: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure this machine on all ranks and write the profile.

    Collective over the ranks.

    Args:
        ranks: all of the job.
        threads: threads of a rank, or "auto".
        output: file for the profile, or None.
        backend: "cpu" or "gpu", whose kernels are measured.
        say: is given a sentence about the GPUs.

    Returns:
        {"profile": constants, "site": how ranks are placed, "warnings": sentences}, the same on all ranks.

    Raises:
        InputError: the profile cannot be written, or there is no GPU, on all ranks.
    """
    # What would be lost after the measurements.
    engine, message = _engine(backend, say)
    if output is not None:
        try:
            check_output(output)
        except InputError as error:
            message = str(error)
    ranks.agree_on_error(message)
    log = Log(-1)  # which keeps the warnings
    wanted: int | Literal["auto"] = "auto" if threads == "auto" else int(threads)
    n_threads, n_local = startup.start(ranks, wanted, log, startup.Kernels(), say).number, ranks.local()[1]

    # Measurements, on all ranks at once as in a run.
    measured = {"process_bytes": float(peak_rss_bytes())}
    ranks.barrier()
    measured.update(measure_kernels(engine))
    measured.update(engine.copies() if engine is not None else {"vector_seconds": _vector_seconds()})
    if isinstance(ranks, MpiRanks):
        measured.update(measure_messages(ranks.comm))

    # Their means are the profile.
    means = {name: mean for name, (_, mean, _) in ranks.minimum_mean_maximum(measured).items()}
    described = {} if engine is None else bench_device.describe(ranks, engine, n_local)
    profile = _profile(means, n_local, n_threads, engine, described)
    site, warnings = check_site(ranks, n_threads, n_local)
    warnings = [*log.warnings, *warnings]
    if output is not None:
        ranks.from_rank_0(partial(write_profile, output, profile))
    return {"profile": profile.model_dump(), "site": site, "warnings": warnings}


def _engine(backend: str, say: Callable[[str], None]) -> tuple[bench_device.DeviceEngine | None, str | None]:
    """The engine of a GPU, None for the CPU; or a message that there is none."""
    if backend == "cpu":
        return None, None
    try:
        return bench_device.open_engine(say), None
    except InputError as error:
        return None, str(error)


def _profile(
    measured: dict[str, float], n_local: int, n_threads: int, engine: bench_device.DeviceEngine | None,
    described: dict[str, Any],
) -> MachineProfile:  # fmt: skip
    default = MachineProfile()
    process = int(measured.pop("process_bytes")) - (n_local - 1) * default.rank_bytes
    processor = processor_name() if engine is None else f"{engine.device.name}, {processor_name()}"
    name = f"{processor}, {n_local} ranks x {n_threads} threads, {mpi.library_version()}"
    whole = {"name": name, "ranks_per_node": n_local, "process_bytes": max(process, 0), **described}
    rates = {key: measured.pop(key) for key in list(measured) if key.startswith(bench_device.RATE)}
    if rates:
        whole["device_rates"] = {key.removeprefix(bench_device.RATE): rate for key, rate in rates.items()}
    return default.model_copy(update={**measured, **whole})


def measure_kernels(device: bench_device.DeviceEngine | None = None) -> dict[str, float]:
    """The constants of the cost rule that fit the times of tasks of small made-up problems best.

    Processor times on the CPU; on a device wall times.
    """
    if device is not None:
        return device.constants(_measured(device))
    engine = CpuEngine()
    rows = [row for work, seconds in _measured(engine) for row in _rows(work, seconds)]
    columns = [0, *(1 + _OPERATIONS.index(name) for name in engine.names)]
    table = np.array(rows)[:, columns]
    start = np.array([getattr(engine.start, name) for name in engine.names])
    from scipy.optimize import lsq_linear

    relative = table[:, 1:] * start / table[:, :1]
    found = lsq_linear(relative, np.ones(len(table)), (1.0 / engine.outside, engine.outside)).x
    return {name: float(value) for name, value in zip(engine.names, found * start, strict=True)}


def _measured(engine: CpuEngine | bench_device.DeviceEngine) -> list[tuple[Any, dict[str, float]]]:
    """What a plan counts and the seconds by kind of task, of every problem and grid of an engine."""
    found = []
    for n_strings, norb, n_electrons, shapes in engine.cases:
        case = KernelCase.create(n_strings, norb, n_electrons)
        found += [case.seconds_by_kind(shape, engine) for shape in shapes]
    return found


@dataclass(frozen=True, eq=False)
class KernelCase:
    """A made-up problem whose tasks are measured."""

    hamiltonian: Any
    problem: Any
    labels: Any
    """Integrals, what the planner knows, and labels."""

    @classmethod
    def create(cls, n_strings: int, norb: int, n_electrons: int) -> KernelCase:
        """The lowest strings of equally spaced orbitals, which carry labels as in a molecule of C2v symmetry."""
        from sqd_mpi import planner
        from sqd_mpi.problem import bitstrings
        from sqd_mpi.problem.hamiltonian import Hamiltonian
        from sqd_mpi.problem.space import Space
        from sqd_mpi.problem.spin_strings import SpinStrings
        from sqd_mpi.problem.symmetry import OrbitalLabels

        occupied = sorted(combinations(range(norb), n_electrons), key=lambda chosen: (sum(chosen), chosen))
        integers = [sum(1 << k for k in chosen) for chosen in islice(occupied, n_strings)]
        n_pairs = norb * (norb + 1) // 2
        eri = 0.01 * np.random.default_rng(0).normal(size=n_pairs * (n_pairs + 1) // 2)
        hamiltonian = Hamiltonian(np.diag(np.linspace(-2.0, 2.0, norb)), eri, 0.0, norb, (n_electrons, n_electrons))
        labels = OrbitalLabels(np.arange(norb) % _LABELS, _LABELS, 0.0, 0.0, 0.0)
        strings = SpinStrings.from_canonical(bitstrings.from_integers(sorted(integers), norb), labels.labels, _LABELS)
        problem = planner.Problem.from_space(Space(hamiltonian, labels, strings, strings), spin_flip=False, deal=True)
        return cls(hamiltonian, problem, labels)

    def seconds_by_kind(self, shape: tuple[int, int, int, int], engine: Any = None) -> tuple[Any, dict[str, float]]:
        """What a plan counts on a grid, and for each kind of task the seconds of its first place."""
        from sqd_mpi import _jit, planner
        from sqd_mpi.distribution.layout import Layout
        from sqd_mpi.planner.work import Work
        from sqd_mpi.problem.interaction import Interaction

        # What the planner counts.
        problem, engine = self.problem, CpuEngine() if engine is None else engine
        work = Work(problem, shape, engine.start, engine.start.kernel_threads(_jit.n_threads()))

        # The block of the first place, with vectors for it.
        a, b, _, r = shape
        alpha, beta = planner.order_strings(problem.alpha.strings, problem.beta.strings, shape, a * b * r > 1, False)
        layout = Layout.create(alpha, beta, problem.sector, shape)
        block = engine.block(layout, (0, 0, 0, 0), self.hamiltonian, self.labels)
        interaction = Interaction.energy(self.hamiltonian)
        tasks = block.tasks(interaction)
        block.prepare(tasks)
        sigma = engine.array(np.zeros(layout.sub_block_size(0, 0, 0)))
        kets = {(t.da, t.db): engine.array(np.ones(layout.block_size(t.da % a, t.db % b))) for t in tasks}

        # Its tasks, kind by kind.
        seconds = {}
        for kind in ("mixed", "alpha", "beta"):
            chosen = [task for task in tasks if task.kind == kind]

            def once(chosen: list[Any] = chosen) -> None:
                for task in chosen:
                    block.apply(task, kets[task.da, task.db], sigma, interaction)

            seconds[kind] = engine.seconds(once)
        return work, seconds


def _rows(work: Any, seconds: dict[str, float]) -> list[list[float]]:
    """For each kind of task its seconds, then numbers of operations in the order of `_OPERATIONS`."""
    count = {name: float(values[0, 0, 0]) for name, values in work.operations.items()}
    operations = {
        "mixed": [count["terms"], count["moved"], 0.0, count["groups"]],
        "alpha": [0.0, 0.0, count["alpha"], 0.0],
        "beta": [0.0, count["rows"], count["beta"], 0.0],
    }
    return [[seconds[kind], *numbers] for kind, numbers in operations.items()]


def _least(function: Callable[[], object], clock: Callable[[], float] = perf_counter, repeats: int = _REPEATS) -> float:
    """Least seconds of a call, after one that is not counted."""
    function()
    samples = []
    for _ in range(repeats):
        began = clock()
        function()
        samples.append(clock() - began)
    return max(min(samples), 1e-9)


def _vector_seconds() -> float:
    """Seconds for one element that a vector operation reads or writes."""
    from sqd_mpi.distribution import vectors

    one, two, out = np.ones(4 * _LARGE), np.ones(4 * _LARGE), np.zeros(4 * _LARGE)
    return _least(lambda: vectors.scale_and_add(one, two, 1.0, out)) / (16 * _LARGE)


def measure_messages(comm: Communicator) -> dict[str, float]:
    """Latency and bandwidth of a ring and of reductions. Collective over the communicator, of at least two ranks."""
    following, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size

    def slide(send: Any, receive: Any) -> None:
        comm.Sendrecv(send, dest=following, recvbuf=receive, source=before)

    def timed(function: Callable[[], object], repeats: int) -> float:
        function()
        samples = []
        for _ in range(_REPEATS):  # the fastest batch: others on the machine disturb some
            comm.Barrier()
            began = perf_counter()
            for _ in range(repeats):
                function()
            samples.append((perf_counter() - began) / repeats)
        return max(min(samples), 1e-9)

    # Messages around a ring.
    small, large = np.zeros(1), np.zeros(_LARGE)
    small_in, large_in = np.empty(1), np.zeros(_LARGE)
    latency = timed(lambda: slide(small, small_in), _SMALL_REPEATS)
    transfer = timed(lambda: slide(large, large_in), 2)

    # Reductions, as of a step of the eigensolver and as of the sum over the task groups.
    sums_in, sums_out = np.zeros(16), np.empty(16)
    reduction = timed(lambda: comm.Allreduce(sums_in, sums_out), _SMALL_REPEATS)
    part = np.zeros(max(1, _LARGE // comm.size))
    whole = np.empty(len(part) * comm.size)
    gathering = timed(lambda: comm.Allgather(part, whole), 2)
    received = 8.0 * (len(whole) - len(part))

    return {
        "slide_latency_seconds": latency,
        "slide_bytes_per_second": 8.0 * _LARGE / transfer,
        "hidden_share": _hidden_share(comm, large, large_in, transfer),
        "reduction_latency_seconds": reduction / log2(comm.size),
        "reduction_bytes_per_second": received / gathering,
    }


def _hidden_share(comm: Communicator, send: Any, receive: Any, transfer: float) -> float:
    """Part of a slide that goes on while the rank computes for as long as the slide takes."""
    following, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    waits = []
    for _ in range(_REPEATS):
        comm.Barrier()
        requests = [comm.Irecv(receive, source=before), comm.Isend(send, dest=following)]
        until = perf_counter() + transfer
        values = np.ones(1000)
        while perf_counter() < until:
            values *= 1.0
        began = perf_counter()
        for request in requests:
            request.Wait()
        waits.append(perf_counter() - began)
    return float(np.clip(1.0 - min(waits) / transfer, 0.0, 1.0))


def check_site(ranks: Ranks, n_threads: int, n_local: int) -> tuple[dict[str, Any], list[str]]:
    """How the ranks are placed, and what looks wrong. Collective over the ranks."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    places = ranks.gather_objects((socket.gethostname(), cores, os.cpu_count() or 1))
    hosts = sorted({host for host, _, _ in places})
    per_host = [sum(other == host for other, _, _ in places) for host in hosts]
    warnings = []
    for host, count in zip(hosts, per_host, strict=True):
        masks = [set(mine) for other, mine, _ in places if other == host]
        usable = set().union(*masks)
        if count * n_threads > len(usable):
            warnings.append(f"{host}: {count} ranks x {n_threads} threads share {len(usable)} cores")
        elif min(len(mask) for mask in masks) < n_threads:
            warnings.append(f"{host}: a rank is bound to fewer cores than its {n_threads} threads")
    if len(set(per_host)) > 1:
        warnings.append(f"nodes have different numbers of ranks, {min(per_host)} to {max(per_host)}")
    if ranks.size == 1:
        warnings.append("one rank: messages and reductions were not measured; start bench with mpirun -n N")
    site = {
        "n_ranks": len(places), "n_nodes": len(hosts), "ranks_per_node": n_local, "n_threads": n_threads,
        "cores_of_rank_0": places[0][1], "cores_of_node": places[0][2], "mpi_library": mpi.library_version(),
    }  # fmt: skip
    return site, warnings
