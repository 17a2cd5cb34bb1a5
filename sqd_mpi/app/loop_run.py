"""One run of the whole loop by the program: problem file in, result file and exit code out, a checkpoint per iteration.

Nothing numerical is imported at the top: the number of threads must be settled before numba is.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from sqd_mpi._version import __version__
from sqd_mpi.app import summaries
from sqd_mpi.app.interrupts import OutputLock, StopSignals
from sqd_mpi.app.record import about_run, library_versions, new_run_name
from sqd_mpi.app.run import DONE, NOT_CONVERGED, STOPPED, Job, seconds_since_start
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError, RunError, input_warnings_to
from sqd_mpi.files.new_files import WriteError, write_error
from sqd_mpi.log import Log
from sqd_mpi.loop.options import DECISIVE, LoopOptions
from sqd_mpi.solver import startup
from sqd_mpi.timing import Timers

_BEST = ("strings_a", "strings_b", "occupancies")
_WEIGHTS = ("alpha", "beta", "largest_alpha", "largest_beta")


def run_loop_file(
    ranks: Ranks, problem_path: str, output_path: str, given: dict[str, Any], extra: dict[str, str | None],
    signals: StopSignals | None = None, log: Log | None = None,
) -> int:  # fmt: skip
    """Run the loop on a problem file and write the result file.

    Collective over the ranks.

    Args:
        ranks: all of the job.
        problem_path: problem file.
        output_path: result file, replaced only by a finished run.
        given: options of the command line.
        extra: text files `include_alpha`, `include_beta` of strings that every batch has, and `occupancies` with the
            mean occupations to begin with, or None.
        signals: those that came since the start of the program; by default handlers are set here.
        log: where messages go; by default to standard error.

    Returns:
        exit code, the same on all ranks: 0 done, 3 not converged, 4 stopped with a checkpoint.

    Raises:
        InputError: the same on all ranks.
    """
    with ExitStack() as stack:
        remembered = stack.enter_context(StopSignals()) if signals is None else signals
        return _LoopJob(ranks, problem_path, output_path, given, extra, remembered, stack, log).run()


class _LoopJob(Job):
    """The parts of a job that are the same for a single solve are inherited: threads and signals."""

    options: LoopOptions
    size = 0  # of the batches, which are not drawn when the kernels are loaded

    def __init__(
        self, ranks: Ranks, problem_path: str, output_path: str, given: dict[str, Any], extra: dict[str, str | None],
        signals: StopSignals, stack: ExitStack, log: Log | None = None,
    ):  # fmt: skip
        self.began = perf_counter() - seconds_since_start()
        self.name = new_run_name()
        self.ranks = ranks
        self.output = Path(output_path)
        self.log, self.timers = log or Log(ranks.rank), Timers()
        self.options = LoopOptions(**given)
        self.input_path, self.extra = problem_path, extra
        self.signals, self._stack = signals, stack
        self.has_checkpoint = False  # of this run, or the one that it goes on from

    @property
    def vectors(self) -> Path:
        """Folder of the eigenvectors of the last iteration."""
        return Path(f"{self.output}.vectors")

    def run(self) -> int:
        """Run the loop and write."""
        # What is asked; with workers, these have the threads and kernels.
        startup.keep_cache_on_node()  # of workers too, and like the next line before numba is imported
        self.ranks.from_rank_0(startup.check_processor)
        hamiltonian, state, included, occupancies = self._read_problem()
        self.has_checkpoint = state is not None
        if self.ranks.size > 1 or self.options.workers == 0:
            self.start()
        from sqd_mpi.loop.batches import shared_on_nodes
        from sqd_mpi.loop.sqd import LoopState, run_loop

        # The loop, on integrals that are held once per node.
        with shared_on_nodes(self.ranks, hamiltonian) as shared:
            self.log.info(
                f"sqd_mpi {__version__}: {shared.norb} orbitals, {shared.nelec[0]} + {shared.nelec[1]} electrons, "
                f"{self.options.batches} batches, {self.ranks.size} ranks"
                + ("" if self.threads is None else f" x {self.threads.number} threads{self.threads.origin}")
            )
            if state is None:
                state = LoopState.first(shared.norb, self.options.seed, occupancies)
            result = run_loop(
                shared, self.samples, self.options, comm=self.ranks, included=included, vectors=self.vectors,
                state=state, on_iteration=lambda now, _: self._write_state(now), should_stop=self._should_stop,
                log=self.log,
            )  # fmt: skip
            if result.stopped:
                self._write_state(result.state, last=True)
                why = "signal" if self.signals.number else "time limit"
                self.log.info(f"stopped by the {why}; go on with --resume ({self.checkpoint})")
                return STOPPED

            # The result takes the place of the checkpoint.
            converged = result.state.converged
            self.ranks.from_rank_0(partial(self._write, shared, result.state))
            if self.ranks.rank == 0 and converged:
                self.checkpoint.unlink(missing_ok=True)
                shutil.rmtree(self.vectors, ignore_errors=True)
            self.ranks.barrier()

        best = result.state.best
        assert best is not None
        self.log.info(
            f"energy {best.energy:.10f} hartree, <S^2> {best.spin_square:.6f}, {len(best.strings_a)} x "
            f"{len(best.strings_b)} strings; {self.output} written after {perf_counter() - self.began:.2f} s"
        )
        if not converged:
            self.log.warning(f"not converged in {result.state.iteration} iterations; the result is marked so")
        return DONE if converged else NOT_CONVERGED

    def _read_problem(self) -> tuple[Any, Any, Any, Any]:
        """(Hamiltonian on rank 0, state to go on from or None, included strings, occupancies)."""
        self.hamiltonian: Any = None
        self.samples: Any = None
        outcome = self.ranks.from_rank_0(self._read_problem_here)
        return self.hamiltonian, *outcome

    def _read_problem_here(self) -> tuple[Any, Any, Any]:
        """(state to go on from or None, included strings, occupancies); the problem is kept on this rank."""
        from sqd_mpi.files import records

        records.check_output(self.output, self.input_path, *self.extra.values())
        lock = OutputLock(self.output)
        self._stack.callback(lock.release)
        lock.remove_remains(self.output, self.checkpoint)
        with input_warnings_to(self.log.warning):
            hamiltonian, self.samples = records.read_problem(self.input_path)
        included, occupancies = self._read_extra(hamiltonian)
        self.fingerprint = self._fingerprint(hamiltonian, self.samples, included, occupancies)
        state = self._read_state(hamiltonian) if self.options.resume else None
        if self.vectors.exists() and not self.vectors.is_dir():
            raise InputError(f"{self.vectors} must be a folder for eigenvectors; there is another file")
        if state is None:
            shutil.rmtree(self.vectors, ignore_errors=True)
        try:
            self.vectors.mkdir(exist_ok=True)
        except OSError as error:
            raise write_error(self.vectors, error) from None
        self.hamiltonian = hamiltonian
        return state, included, occupancies

    def _read_extra(self, hamiltonian: Any) -> tuple[Any, Any]:
        """Strings that every batch has, and occupancies to begin with."""
        from sqd_mpi.problem import bitstrings, sampling

        norb = hamiltonian.norb
        sets = []
        for spin, n_electrons in zip(("alpha", "beta"), hamiltonian.nelec, strict=True):
            path = self.extra.get(f"include_{spin}")
            strings = np.zeros((0, bitstrings.n_words(norb)), np.uint64)
            if path is not None:
                strings = bitstrings.canonical(bitstrings.read_text_file(path, norb))[0]
                try:
                    bitstrings.check(strings, norb, n_electrons, spin)
                except InputError as error:
                    raise InputError(f"{path}: {error}") from None
            sets.append(strings)
        path = self.extra.get("occupancies")
        return (sets[0], sets[1]), None if path is None else sampling.read_occupancies(path, norb)

    def _fingerprint(self, hamiltonian: Any, samples: Any, included: Any, occupancies: Any) -> str:
        """SHA-256 of all that decides which strings the loop sees."""
        chosen = {name: getattr(self.options, name) for name in DECISIVE}
        digest = hashlib.sha256(f"loop {hamiltonian.fingerprint()} {chosen}".encode())
        for array in (samples.alpha, samples.beta, samples.probabilities, *included):
            digest.update(np.ascontiguousarray(array).tobytes())
        if occupancies is not None:
            digest.update(occupancies.tobytes())
        return digest.hexdigest()

    def _should_stop(self) -> bool:
        limit = self.options.time_limit
        return bool(self.signals.number) or (limit is not None and perf_counter() - self.began >= limit)

    def _write_state(self, state: Any, last: bool = False) -> None:
        """Write the checkpoint, or go on without. Collective.

        Raises:
            RunError: the run ends here and would be lost.
        """
        trouble: str | None = None
        if self.ranks.rank == 0:
            try:
                self._write_state_here(state)
            except WriteError as error:
                trouble = str(error)
        trouble = self.ranks.broadcast(trouble)
        if trouble is None:
            self.has_checkpoint = True
            return
        if last and not self.has_checkpoint:
            raise RunError(f"{trouble}; the run was to stop and has no earlier checkpoint")
        kept = "the checkpoint before it stays" if self.has_checkpoint else "there is none of this run yet"
        self.log.warning(f"{trouble}; {kept}")

    def _write_state_here(self, state: Any) -> None:
        """Write the checkpoint; on rank 0."""
        from sqd_mpi.files import records

        values = {"iteration": state.iteration, "energy": state.energy, "random": state.random}
        values |= {"converged": state.converged, "failures": [text for row in state.history["failure"] for text in row]}
        arrays = {"carried_alpha": state.carried[0], "carried_beta": state.carried[1]}
        arrays |= {f"history_{k}": np.array(v, float) for k, v in state.history.items() if k != "failure" and v}
        if state.occupancies is not None:
            arrays["occupancies"] = state.occupancies
        best = state.best
        if best is not None:
            arrays |= {f"best_{name}": getattr(best, name) for name in _BEST}
            arrays |= {f"weight_{name}": getattr(best.weights, name) for name in _WEIGHTS}
            plain = {f.name: getattr(best, f.name) for f in fields(best)}
            values["best"] = {k: v for k, v in plain.items() if isinstance(v, int | float | bool)}
        records.write_loop(self.checkpoint, self.fingerprint, values, arrays)

    def _read_state(self, hamiltonian: Any) -> Any:
        """The state of the checkpoint, or None if there is none.

        Raises:
            InputError: the checkpoint belongs to another problem or cannot be read.
        """
        from sqd_mpi.files import records
        from sqd_mpi.loop.batch import BatchResult
        from sqd_mpi.loop.sqd import LoopState
        from sqd_mpi.solver.observables import StringWeights

        # The checkpoint of this problem.
        if not self.checkpoint.exists():
            self.log.warning(f"--resume: there is no checkpoint {self.checkpoint}; starting from the beginning")
            return None
        fingerprint, values, arrays = records.read_loop(self.checkpoint)
        if fingerprint != self.fingerprint:
            raise InputError(
                f"--resume needs a checkpoint of this problem and these options; {self.checkpoint} was written for "
                "others"
            )

        # Its best batch and its history.
        best = None
        if "best" in values:
            weights = StringWeights(*(arrays[f"weight_{name}"] for name in _WEIGHTS))
            known: dict[str, Any] = {**values["best"], **{name: arrays[f"best_{name}"] for name in _BEST}}
            best = BatchResult(**known, weights=weights)
        history = LoopState.first(hamiltonian.norb, 0).history
        for name in history:
            if f"history_{name}" in arrays:
                history[name] = list(arrays[f"history_{name}"])
        texts, n = values["failures"], self.options.batches
        history["failure"] = [texts[k : k + n] for k in range(0, len(texts), n)]

        self.log.info(f"resuming from {self.checkpoint} (iteration {values['iteration']})")
        energy = values["energy"]
        return LoopState(
            values["iteration"], arrays.get("occupancies"), float("nan") if energy is None else energy,
            (arrays["carried_alpha"], arrays["carried_beta"]), best, values["converged"], values["random"], history,
        )  # fmt: skip

    def _write(self, hamiltonian: Any, state: Any) -> None:
        """Write the result file; on rank 0."""
        from sqd_mpi.files import records

        best = state.best
        carried = best.carry_over(self.options.carry_over_threshold)
        record = records.Record(
            summary=summaries.of_loop(hamiltonian, self.samples, state, self.began, self.ranks.size),
            fingerprint=records.fingerprint(hamiltonian, best.strings_a, best.strings_b),
            strings_a=best.strings_a,
            strings_b=best.strings_b,
            weights_a=best.weights.alpha,
            weights_b=best.weights.beta,
            carry_over_a=[carried[0]],
            carry_over_b=[carried[1]],
            history=_history(state),
            options=self.options.to_dict(),
            versions=library_versions(),
            warnings=self.log.warnings,
            run=about_run(self.input_path, self.n_nodes, perf_counter() - self.began, self.name),
        )
        try:
            with records.AtomicFile(self.output, records.RESULT) as file:
                records.write_record(file, record)
        except WriteError as error:
            there = f"; go on with --resume ({self.checkpoint})" if self.has_checkpoint else ""
            raise RunError(f"the result could not be written: {error}{there}") from None


def _history(state: Any) -> dict[str, Any]:
    """History of the loop and of every batch in it; NaN for a batch that failed."""
    history = state.history
    best = [int(number) for number in history["best_batch"]]
    arrays: dict[str, Any] = {
        f"batch_{name}": np.array(values, float)
        for name, values in history.items()
        if name not in ("failure", "best_batch", "n_samples", "occupancies", "loop_seconds")
    }
    for name in ("energy", "residual_norm"):
        arrays[name] = np.array([[row[k]] for row, k in zip(history[name], best, strict=True)])
    with suppress(ValueError):
        arrays["occupancies"] = np.array(history["occupancies"])
    arrays["best_batch"] = np.array(best)
    arrays["n_samples"] = np.array(history["n_samples"], np.int64)
    arrays["seconds"] = np.cumsum(history["loop_seconds"])
    for name in ("sector", "parity"):
        arrays[name] = np.zeros(len(best), np.int64)  # one curve for `report`
    return arrays
