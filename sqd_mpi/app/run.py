"""One run of the program: input file in, result file and exit code out, with checkpoints, signals and the time limit.

Nothing numerical is imported at the top: the number of threads must be settled before numba is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sqd_mpi._version import __version__
from sqd_mpi.app import summaries, trace
from sqd_mpi.app.checkpoints import Checkpoints, checkpoint_path
from sqd_mpi.app.interrupts import OutputLock, StopSignals
from sqd_mpi.app.record import about_run, count_nodes, library_versions, new_run_name
from sqd_mpi.app.watchdog import Watchdog
from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.ranks import Ranks, ranks_of
from sqd_mpi.errors import InputError, RunError, input_warnings_to
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver import startup
from sqd_mpi.timing import Timers

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks

DONE, NOT_CONVERGED, STOPPED = 0, 3, 4

_NARROW_GAP = 0.05  # hartree between a root and a determinant outside below which perturbation theory is doubtful


def run_file(
    comm: SomeRanks, input_path: str, output_path: str, given: dict[str, Any], signals: StopSignals | None = None,
    log: Log | None = None,
) -> int:  # fmt: skip
    """Solve an input file and write the result file.

    Collective over the communicator.

    Args:
        comm: communicator, ranks, or None without MPI.
        input_path: input file.
        output_path: result file, replaced only by a finished run.
        given: options of the command line; they override those in the file.
        signals: what remembers signals since the start of the program; by default they are remembered from now on.
        log: where messages go; by default to standard error.

    Returns:
        exit code, the same on all ranks: 0 done, 3 not converged, 4 stopped with a checkpoint.

    Raises:
        InputError: the same on all ranks.
        RunError: the same on all ranks.
    """
    with ExitStack() as stack:
        remembered = stack.enter_context(StopSignals()) if signals is None else signals
        job = Job(ranks_of(comm), input_path, output_path, given, remembered, stack, log)
        return job.run()


class Job:
    """One run of an input file on this rank.

    Collective over the ranks at construction.

    Args:
        ranks: all of the job.
        input_path, output_path: input and result file.
        given: options of the command line.
        signals: those that came since the start of the program.
        stack: ends with the run; what must be undone then goes here.
        log: where messages go; by default to standard error.
    """

    n_nodes = 1
    threads: startup.Threads | None = None  # once they are settled

    def __init__(
        self, ranks: Ranks, input_path: str, output_path: str, given: dict[str, Any], signals: StopSignals,
        stack: ExitStack, log: Log | None = None,
    ):  # fmt: skip
        self.began = perf_counter() - seconds_since_start()
        self.name = new_run_name()  # that of rank 0 is what files hold
        self.ranks = ranks
        self.output = Path(output_path)
        self.signals = signals
        self.log = log or Log(ranks.rank)
        self.input_path = input_path
        reading = perf_counter()
        self.problem, self.options, self.fingerprint = ranks.from_rank_0(partial(self._read, input_path, given, stack))
        self.timers = self._timers()
        self.timers.add("start-up", self.began, reading)
        self.timers.add("read", reading, perf_counter())
        for name, count in zip(("alpha", "beta"), self.problem.n_duplicates, strict=True):
            if count:
                self.log.warning(f"{count} duplicate {name} strings merged")
        if self.problem.changed:
            self.log.warning(f"{input_path} was changed after it was written: its checksum does not fit")
        self.checkpoints = Checkpoints(self.ranks, self.output, self.problem, self.fingerprint, self.log)
        if self.options.resume:
            self.checkpoints.find()

    def run(self) -> int:
        """Solve and write."""
        # Threads first: what is numerical must not be imported before.
        self.start()
        from sqd_mpi.solver.solve import solve_subspace

        # What can be refused or ends the job is known before the first iteration.
        self._announce()
        if self.rdm_order:
            from sqd_mpi.solver.density_matrices import check_memory

            check_memory(self.ranks, self.problem.hamiltonian.norb, self.rdm_order)
        if self._told_to_stop():
            self.log.info("stopped by the signal before the first iteration; nothing was written; start with --resume")
            return STOPPED

        # The solve; its time-lines are written also where it was stopped.
        problem = self.problem
        end = (lambda: mpi.abort(1)) if self.options.watchdog_end else None
        with Watchdog(self.timers, self.options.watchdog, self.ranks.rank, end):
            result = solve_subspace(
                self.ranks, problem.hamiltonian, problem.strings_a, problem.strings_b, self.options,
                log=self.log, hook=self._hook, timers=self.timers, start_vectors=self.checkpoints.found,
            )  # fmt: skip
            if not result.stopped:
                with self.timers("write"):
                    self._write_result(result)
            self._write_trace(result)

        # A checkpoint stays as long as --resume can go on from it.
        if result.stopped:
            self.log.close()
            why = "signal" if self.signals.agreed else "time limit"
            self.log.info(f"stopped by the {why}; go on with --resume ({self.checkpoint})")
            return STOPPED
        done = result.converged and result.proven
        if done:
            self.checkpoints.remove()
        self._report(result)
        return DONE if done else NOT_CONVERGED

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint of the result."""
        return checkpoint_path(self.output)

    @property
    def rdm_order(self) -> int:
        """Order of the density matrices that are wanted, or 0."""
        return 0 if self.options.rdm == "none" else int(self.options.rdm)

    def _read(self, input_path: str, given: dict[str, Any], stack: ExitStack) -> tuple[Any, SolveOptions, str]:
        """The problem, its options and its fingerprint; locks the output. On rank 0."""
        from sqd_mpi.files import records

        with input_warnings_to(self.log.warning):
            problem = records.read_input(input_path)
        options = SolveOptions(**{**problem.options, **given})
        records.check_output(self.output, input_path, options.start)
        self._check_trace(options, input_path)
        self._check_grid(options)
        if options.spin_square is not None:
            problem.hamiltonian.spin_of(options.spin_square)  # refused before anything is compiled
        if options.pt2:
            problem.hamiltonian.check_pt2()
        lock = OutputLock(self.output)
        stack.callback(lock.release)
        lock.remove_remains(self.output, self.checkpoint)
        return problem, options, records.fingerprint(problem.hamiltonian, problem.strings_a, problem.strings_b)

    def _check_grid(self, options: SolveOptions) -> None:
        if options.grid != "auto" and int(np.prod(options.grid)) != self.ranks.size:
            text = ",".join(str(n) for n in options.grid)
            raise InputError(f"--grid {text} needs {int(np.prod(options.grid))} ranks; this run has {self.ranks.size}")

    def _check_trace(self, options: SolveOptions, input_path: str) -> None:
        from sqd_mpi.files import records

        if options.trace is None:
            return
        records.check_output(options.trace, input_path, options.start)
        for other, what in ((self.output, "result"), (self.checkpoint, "checkpoint")):
            if options.trace.resolve() == other.resolve():
                raise InputError(f"--trace needs a file of its own; {options.trace} is the {what} file")

    def _timers(self) -> Timers:
        """Timers that keep every phase if a trace is wanted. Collective."""
        if self.options.trace is None:
            return Timers()
        tracer = trace.Tracer(trace.event_limit(self.ranks.size))
        tracer.align(self.ranks)
        return tracer

    @property
    def size(self) -> int:
        """Number of determinants, as far as it is known."""
        return len(self.problem.strings_a) * len(self.problem.strings_b)

    def start(self) -> None:
        """Settle the number of threads and load the kernels. Collective."""
        self.n_nodes = count_nodes(self.ranks)
        kernels = startup.Kernels(
            self.rdm_order, self.options.pt2, self.options.backend, self.options.takes_single_precision(self.size)
        )
        self.threads = startup.start(
            self.ranks, self.options.threads, self.log, kernels, say=self.log.info, timers=self.timers
        )

    def _announce(self) -> None:
        assert self.threads is not None
        problem = self.problem
        n_alpha, n_beta = problem.hamiltonian.nelec
        from sqd_mpi import _jit

        self.log.info(
            f"sqd_mpi {__version__}: {problem.hamiltonian.norb} orbitals, {n_alpha} + {n_beta} electrons, "
            f"{len(problem.strings_a)} x {len(problem.strings_b)} strings, {self.ranks.size} ranks x "
            f"{_jit.n_threads()} threads{self.threads.origin}"
        )
        given = {name: value for name, value in self.options.to_dict().items() if value is not None}
        self.log.detail("options: " + ", ".join(f"{name} {value}" for name, value in given.items()))

    def _told_to_stop(self) -> bool:
        """Whether a signal has come to any rank. Collective."""
        self.signals.agreed = int(self.ranks.maximum(np.array([self.signals.number], np.int64))[0])
        return self.signals.agreed != 0

    def _hook(self, progress: Any) -> bool:
        """Once an iteration: agree on signals and clocks, write a checkpoint if it is due."""
        limit, every = self.options.time_limit, self.options.checkpoint_every
        seconds = perf_counter()
        late = limit is not None and seconds - self.began >= limit
        due = False
        if every is not None:
            due = (
                progress.iteration % every.iterations == 0
                if every.iterations
                else seconds - self.checkpoints.last_written >= (every.seconds or 0.0)
            )
        flags = np.array([self.signals.number, int(late), int(due)], np.int64)
        with self.timers("reduce"):
            progress.grid.maximum_over_all(flags)
        self.signals.agreed = int(flags[0])
        stop = bool(flags[0] or flags[1])
        if stop or flags[2]:
            with self.timers("checkpoint"):
                trouble = self.checkpoints.write(progress)
            if trouble is not None:
                self._without_checkpoint(trouble, stop)
        return stop

    def _without_checkpoint(self, trouble: str, stop: bool) -> None:
        """A checkpoint could not be written: the run goes on, or stops if there is an earlier one to go on from.

        Raises:
            RunError: the run must stop and would be lost.
        """
        if stop and not self.checkpoints.written and self.checkpoints.found is None:
            raise RunError(f"{trouble}; the run was to stop and has no earlier checkpoint")
        kept = "the checkpoint before it stays" if self.checkpoints.written else "there is none of this run yet"
        self.log.warning(f"{trouble}; {kept}")

    def _write_result(self, result: Any) -> None:
        """All ranks write the result, or raise the same RunError."""
        from sqd_mpi.files import distributed, records
        from sqd_mpi.resources import peak_rss_bytes

        peak = np.array([peak_rss_bytes()], np.int64)
        result.grid.maximum_over_all(peak)
        densities = self._densities(result)
        corrections = self._corrections(result)

        def fill(file: Any) -> None:
            records.write_record(file, self._record(result, int(peak[0]), densities, corrections))

        trouble: str | None = None
        try:
            if self.options.save_vector:
                vectors = [(root.layout, root.vector) for root in result.roots]
                distributed.write_file(result.grid, self.output, records.RESULT, fill, vectors)
            elif self.ranks.rank == 0:
                with records.AtomicFile(self.output, records.RESULT) as file:
                    fill(file)
        except OSError as error:
            trouble = str(error)
        trouble = self.ranks.broadcast(trouble)
        if trouble is not None:
            there = f"; go on with --resume ({self.checkpoint})" if self.checkpoints.written else ""
            raise RunError(f"the result could not be written: {trouble}{there}")

    def _write_trace(self, result: Any) -> None:
        if self.options.trace is None or not isinstance(self.timers, trace.Tracer):
            return
        about = {
            "input": Path(self.input_path).name,
            "run": self.name,
            "fingerprint": self.fingerprint,
            "n_threads": result.n_threads,
            "backend": result.backend,
            "n_sigma": result.n_sigma,
        }
        trouble = trace.write(self.options.trace, self.timers, result.grid, about)
        if trouble is not None:
            self.log.warning(trouble)

    def _in_phase(self, name: str, result: Any, make: Callable[[], list[Any]]) -> list[Any]:
        """What is made after the solve; the time goes to the timings of the result. Collective."""
        with self.timers(name):
            found = make()
        result.timings.update(self.ranks.minimum_mean_maximum({name: self.timers.seconds[name]}))
        return found

    def _densities(self, result: Any) -> list[Any]:
        """Density matrices of all roots on rank 0, if they are wanted."""
        if not self.rdm_order:
            return []
        from sqd_mpi.solver.density_matrices import of_all_roots

        return self._in_phase("density matrices", result, lambda: of_all_roots(result, self.rdm_order))

    def _corrections(self, result: Any) -> list[Any]:
        """Second-order corrections of all roots, if they are wanted."""
        if not self.options.pt2:
            return []
        from sqd_mpi.solver.pt2 import of_all_roots

        hamiltonian = self.problem.hamiltonian
        corrections = self._in_phase("second order", result, lambda: of_all_roots(result, hamiltonian))
        for k, (root, found) in enumerate(zip(result.roots, corrections, strict=True)):
            self.log.info(
                f"root {k}: second-order correction {found.energy:.8f} hartree, energy with it "
                f"{root.energy + found.energy:.8f}, variance {found.variance:.3e} hartree^2"
            )
            if found.smallest_gap < _NARROW_GAP:
                self.log.warning(
                    f"root {k}: a determinant outside lies {found.smallest_gap:.1e} hartree from the energy; the "
                    "second-order correction is not reliable"
                )
        return corrections

    def _record(self, result: Any, peak: int, densities: list[Any], corrections: list[Any]) -> Any:
        from sqd_mpi.files.records import Record
        from sqd_mpi.solver.observables import carry_over

        roots, problem, threshold = result.roots, self.problem, self.options.carry_over_threshold
        options = self.options.replace(max_subspace=result.max_subspace, grid=result.grid.shape).to_dict()
        return Record(
            summary=summaries.of_solve(result, problem, self.began, peak, densities, corrections),
            fingerprint=self.fingerprint,
            strings_a=problem.strings_a,
            strings_b=problem.strings_b,
            weights_a=np.array([root.weights.alpha for root in roots]),
            weights_b=np.array([root.weights.beta for root in roots]),
            carry_over_a=[carry_over(problem.strings_a, root.weights.largest_alpha, threshold) for root in roots],
            carry_over_b=[carry_over(problem.strings_b, root.weights.largest_beta, threshold) for root in roots],
            density_matrices=[found.to_dict() for found in densities],
            history=result.history,
            timings=result.timings,
            options={**options, "threads": result.n_threads, "backend": result.backend},
            versions=library_versions(),
            warnings=self.log.warnings,
            run=about_run(self.input_path, self.n_nodes, perf_counter() - self.began, self.name),
        )

    def _report(self, result: Any) -> None:
        for k, root in enumerate(result.roots):
            name = "energy" if len(result.roots) == 1 else f"energy {k}"
            self.log.info(
                f"{name} {root.energy:.10f} hartree, residual {root.residual_norm:.1e}, "
                + ("" if root.spin_square is None else f"<S^2> {root.spin_square:.6f}, ")
                + f"sector {root.sector}"
                + (f", parity {root.parity:+d}" if root.parity else "")
                + ("" if root.converged else ", NOT CONVERGED")
            )
        self._report_details(result)
        self.log.info(f"{self.output} written after {perf_counter() - self.began:.2f} s")
        if not result.converged:
            self.log.warning(
                f"not converged to a residual of {self.options.tol:g} in {result.n_iterations} iterations; "
                "the result is marked so"
            )

    def _report_details(self, result: Any) -> None:
        """Grid, memory and phases, for --verbose."""
        shape = ",".join(str(n) for n in result.grid.shape)
        parts = ", ".join(f"{name} {n_bytes / 1e6:.3g} MB" for name, n_bytes in result.memory.items())
        self.log.detail(f"grid {shape}, backend {result.backend}, largest memory of a rank: {parts}")
        for name, (low, mean, high) in sorted(result.timings.items(), key=lambda item: -item[1][1]):
            self.log.detail(f"  {name:<16} {mean:10.3f} s mean of the ranks, {low:.3f} to {high:.3f}")


def seconds_since_start() -> float:
    """Seconds since this process was started, where the system tells (Linux, to 10 ms); else 0."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (AttributeError, OSError):
        return 0.0
