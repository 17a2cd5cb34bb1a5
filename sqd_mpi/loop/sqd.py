"""The loop of sample-based quantum diagonalisation: recover, subsample, diagonalise, carry over, till nothing changes.

J. Robledo-Moreno et al., Science Advances 11, eadu9991 (2025). Samples and random numbers live on rank 0; strings of
the batches and what their solves say about strings and orbitals on all ranks; eigenvectors nowhere as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sqd_mpi._jit import threads_of_environment
from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.ranks import Ranks, ranks_of
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.log import Log
from sqd_mpi.loop.batches import BatchResult, Pair, solve_batches
from sqd_mpi.loop.options import LoopOptions
from sqd_mpi.loop.workers import WorkerPool, most_workers
from sqd_mpi.problem import bitstrings, sampling
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.sampling import Samples
from sqd_mpi.resources import available_cores

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks

LATEST = "latest.h5"  # in the folder of vectors: the eigenvector of the last iteration
# Energies that differ by less belong to the same subspace: rounding must not decide which batch is the best.
_SAME_ENERGY_DIGITS = 10
# A start vector is used where the space is so many times larger than the model space, which is exact in small ones.
_WARM_START = 10
# History: one row per iteration, and in it one number per batch.
BATCH_HISTORY = (
    "energy",
    "residual_norm",
    "converged",
    "spin_square",
    "n_alpha_strings",
    "n_beta_strings",
    "n_iterations",
    "seconds",
    "n_ranks",
)


@dataclass(frozen=True, eq=False)
class LoopState:
    """Where the loop stands after an iteration; the same on all ranks."""

    iteration: int
    """Number of iterations done."""
    occupancies: FloatArray | None
    """(2, norb) of the best batch of the last iteration, or those given at first."""
    energy: float
    """Of the best batch of the last iteration, hartree; NaN before the first."""
    carried: Pair
    """(alpha, beta) strings for the next iteration, the heaviest first."""
    best: BatchResult | None
    """The lowest result so far."""
    converged: bool
    """Whether energy and occupancies have stopped to change."""
    random: str
    """State of the random generator of rank 0, JSON."""
    history: dict[str, list[Any]] = field(repr=False)
    """One entry per iteration: lists over batches for the names of BATCH_HISTORY and `failure`, numbers for others."""

    @classmethod
    def first(cls, norb: int, seed: int, occupancies: FloatArray | None = None) -> LoopState:
        """The state before the first iteration; occupancies (2, norb) to recover with in it, or None."""
        nothing = np.zeros((0, bitstrings.n_words(norb)), np.uint64)
        random = json.dumps(np.random.default_rng(seed).bit_generator.state)
        names = (*BATCH_HISTORY, "failure", "best_batch", "n_samples", "occupancies", "loop_seconds")
        return cls(0, occupancies, float("nan"), (nothing, nothing), None, False, random, {name: [] for name in names})


@dataclass(frozen=True, eq=False)
class LoopResult:
    """How the loop ended."""

    state: LoopState
    """The last complete iteration."""
    stopped: bool
    """Whether it was asked to stop before its end."""


def run_loop(
    hamiltonian: Hamiltonian,
    samples: Samples | None,
    options: LoopOptions | None = None,
    *,
    comm: SomeRanks = None,
    included: Pair | None = None,
    occupancies: FloatArray | None = None,
    vectors: Path | str | None = None,
    state: LoopState | None = None,
    on_iteration: Callable[[LoopState, list[BatchResult]], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    log: Log | None = None,
    **settings: Any,
) -> LoopResult:
    """Run the loop until energy and occupancies stop to change.

    Collective over the communicator: all ranks call it with the same arguments, but for the samples, which rank 0 needs
    alone.

    Args:
        hamiltonian: integrals.
        samples: sampled bit-strings, see `sampling`; on rank 0.
        options: see `LoopOptions`.
        comm: MPI communicator, or None; without, worker processes solve the batches.
        included: (alpha, beta) strings that every batch has.
        occupancies: (2, norb) mean occupations to recover with in the first iteration; without, it takes the samples
            with the right numbers of electrons.
        vectors: existing folder for eigenvectors; every iteration then starts from the last one's.
        state: where to go on; by default the beginning.
        on_iteration: called on every rank after every iteration with the state and the results of all batches.
        should_stop: asked often on every rank; True ends the loop with the last complete iteration.
        log: where progress goes.
        settings: further arguments of `solve_batches`.

    Returns:
        the state after the last complete iteration.

    Raises:
        InputError: options do not fit, or there is no sample with the right numbers of electrons.
        RunError: every batch of an iteration failed.
    """
    loop = _Loop(hamiltonian, samples, options or LoopOptions(), ranks_of(comm), included, vectors, should_stop, log)
    now = state or LoopState.first(hamiltonian.norb, loop.options.seed, occupancies)
    pool = loop.make_pool(settings)
    try:
        while not now.converged and now.iteration < loop.options.loop_iterations:
            after, results = loop.iterate(now, settings)
            if after is None:
                return LoopResult(now, True)
            now = after
            if on_iteration is not None:
                on_iteration(now, results)
    finally:
        if pool is not None:
            pool.close()
    return LoopResult(now, False)


class _Loop:
    """What stays the same from iteration to iteration."""

    def __init__(
        self, hamiltonian: Hamiltonian, samples: Samples | None, options: LoopOptions, ranks: Ranks,
        included: Pair | None, vectors: Path | str | None, should_stop: Callable[[], bool] | None, log: Log | None,
    ):  # fmt: skip
        self.hamiltonian, self.samples, self.options, self.ranks = hamiltonian, samples, options, ranks
        self.vectors = None if vectors is None else Path(vectors)
        self.should_stop = should_stop
        self.log = log if log is not None else Log.silent()
        norb, nelec = hamiltonian.norb, hamiltonian.nelec
        nothing = np.zeros((0, bitstrings.n_words(norb)), np.uint64)
        self.included = included if included is not None else (nothing, nothing)
        for strings, n_electrons, spin in zip(self.included, nelec, ("alpha", "beta"), strict=True):
            if len(strings):
                bitstrings.check(strings, norb, n_electrons, spin)
        if options.symmetrize_spin and nelec[0] != nelec[1]:
            raise InputError(
                f"--symmetrize-spin needs as many alpha as beta electrons; there are {nelec[0]} and {nelec[1]}"
            )
        if options.symmetrize_spin and options.max_dim is not None and options.max_dim[0] != options.max_dim[1]:
            raise InputError(f"--symmetrize-spin needs one limit for both spins; got {options.max_dim}")
        if self.ranks.rank == 0 and (samples is None or samples.norb != norb):
            raise InputError(f"samples of {norb} orbitals are needed; got {samples and samples.norb}")

    def make_pool(self, settings: dict[str, Any]) -> WorkerPool | None:
        """Workers for the whole loop, if batches are solved by workers that nobody brought."""
        if self.ranks.size > 1 or self.options.workers == 0 or settings.get("pool") is not None:
            settings.setdefault("workers", 0)
            return None
        threads = None if self.options.threads == "auto" else self.options.threads
        said = threads_of_environment(available_cores())
        for text in said.warnings if threads is None else ():
            self.log.warning(text)
        wanted = most_workers(threads) if self.options.workers == "auto" else self.options.workers
        count = min(wanted, self.options.batches)
        if threads is None and said.number is not None:
            self.log.info(f"{count} workers x {said.number} threads ({said.variable})")
        pool = WorkerPool(self.hamiltonian, count, threads=threads, memory=self.options.memory, tell=self.log.info)
        settings["pool"] = pool
        return pool

    def iterate(self, state: LoopState, settings: dict[str, Any]) -> tuple[LoopState | None, list[BatchResult]]:
        """The state after one more iteration, or None if it was stopped, and the results of its batches.

        Raises:
            RunError: every batch failed.
        """
        began = perf_counter()
        batches, n_samples, random = self.ranks.from_rank_0(partial(self._draw, state))
        start = None if self.vectors is None else self.vectors / LATEST
        smallest = min(len(alpha) * len(beta) for alpha, beta in batches)
        wanted = state.iteration > 0 and smallest > _WARM_START * self.options.model_space
        has_start = self.ranks.broadcast(start is not None and wanted and start.exists())
        results = solve_batches(
            self.hamiltonian, batches, self.options.of_a_solve(start=start if has_start else None), comm=self.ranks,
            timeout=self.options.timeout, retries=self.options.retries, vectors=self.vectors,
            should_stop=self.should_stop, log=self.log, **settings,
        )  # fmt: skip
        if any(result.failure is not None and result.failure.kind == "stopped" for result in results):
            return None, results
        whole = [result for result in results if result.failure is None]
        if not whole:
            reasons = "; ".join(f"batch {result.number}: {result.failure}" for result in results)
            raise RunError(f"all batches of iteration {state.iteration + 1} failed: {reasons}")
        found = min(whole, key=lambda result: (round(result.energy, _SAME_ENERGY_DIGITS), result.number))
        if self.ranks.rank == 0 and self.vectors is not None:
            _keep(self.vectors, found.number)
        after = self._after(state, results, found, n_samples, random, perf_counter() - began)
        self._report(after, results, found)
        return after, results

    def _draw(self, state: LoopState) -> tuple[list[Pair], int, str]:
        """Strings of all batches; number of samples they are drawn from; state of the generator. On rank 0."""
        samples, nelec, options = self.samples, self.hamiltonian.nelec, self.options
        assert samples is not None
        random = np.random.default_rng()
        random.bit_generator.state = json.loads(state.random)
        if state.occupancies is None:
            usable = sampling.postselect(samples, nelec)
        else:
            usable = sampling.recover(samples, state.occupancies, nelec, random)
        rows = sampling.subsample(usable, options.samples_per_batch, options.batches, random)
        batches = [
            sampling.batch_strings(
                usable,
                each,
                state.carried,
                self.included,
                symmetrize_spin=options.symmetrize_spin,
                max_dim=options.max_dim or (None, None),
            )  # fmt: skip
            for each in rows
        ]
        return batches, len(usable), json.dumps(random.bit_generator.state)

    def _after(
        self, state: LoopState, results: list[BatchResult], found: BatchResult, n_samples: int, random: str,
        seconds: float,
    ) -> LoopState:  # fmt: skip
        options = self.options
        assert found.occupancies is not None
        converged = (
            state.iteration > 0
            and abs(found.energy - state.energy) < options.energy_tol
            and state.occupancies is not None
            and float(abs(found.occupancies - state.occupancies).max()) < options.occupancies_tol
        )
        carried = found.carry_over(options.carry_over_threshold, options.symmetrize_spin)
        best = found if state.best is None or found.energy < state.best.energy else state.best
        row: dict[str, list[Any]] = {name: [_entry(result, name) for result in results] for name in BATCH_HISTORY}
        row["failure"] = ["" if result.failure is None else str(result.failure) for result in results]
        single = {"best_batch": found.number, "n_samples": n_samples, "loop_seconds": seconds}
        history = {name: [*old, {**row, **single, "occupancies": found.occupancies}[name]]
                   for name, old in state.history.items()}  # fmt: skip
        return replace(
            state, iteration=state.iteration + 1, occupancies=found.occupancies, energy=found.energy, carried=carried,
            best=best, converged=converged, random=random, history=history,
        )  # fmt: skip

    def _report(self, state: LoopState, results: list[BatchResult], found: BatchResult) -> None:
        left = sum(result.failure is None for result in results)
        self.log.info(
            f"iteration {state.iteration:3d}: energy {found.energy:.10f} hartree, batch {found.number} of "
            f"{left}/{len(results)}, {len(found.strings_a)} x {len(found.strings_b)} strings, "
            f"{state.history['n_samples'][-1]} samples, {state.history['loop_seconds'][-1]:.2f} s"
            + ("" if found.converged else ", SOLVE NOT CONVERGED")
            + ("" if found.proven else ", NOT PROVEN TO BE THE LOWEST")
        )


def _entry(result: BatchResult, name: str) -> float:
    """One number of a batch for the history."""
    if name in ("n_alpha_strings", "n_beta_strings"):
        return float(len(result.strings_a if name == "n_alpha_strings" else result.strings_b))
    return float(getattr(result, name))


def _keep(folder: Path, number: int) -> None:
    """Keep the eigenvector of one batch as the latest, and no other."""
    with suppress(FileNotFoundError):
        (folder / f"batch-{number}.h5").replace(folder / LATEST)
    for path in folder.glob("batch-*.h5"):
        path.unlink()
