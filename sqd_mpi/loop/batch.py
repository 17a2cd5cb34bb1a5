"""One subspace of several: what is asked, what comes back, and why it failed if it did."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sqd_mpi import _jit
from sqd_mpi.arrays import FloatArray, Strings
from sqd_mpi.errors import InputError, Recalled
from sqd_mpi.files import distributed, records
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings, sampling
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver.density_matrices import DensityMatrices, density_matrices
from sqd_mpi.solver.observables import StringWeights
from sqd_mpi.solver.result import SubspaceResult
from sqd_mpi.solver.solve import Progress, solve_subspace

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import Communicator, SomeRanks

_LOG_LINES = 12
# Determinants below which starting threads costs more than they save.
_SMALL_SPACE = 100_000


@dataclass(frozen=True, eq=False)
class BatchTask:
    """One subspace to diagonalise."""

    number: int
    """Place in the list of batches, from 0."""
    strings_a: Strings = field(repr=False)
    """Alpha strings, (n, nwords)."""
    strings_b: Strings = field(repr=False)
    """Beta strings, (n, nwords)."""
    options: SolveOptions
    """Options of the solve; only the lowest root is used."""
    vector_file: Path | None = None
    """File for the eigenvector, from which a later solve may start."""
    amplitudes: bool = False
    """Whether the whole eigenvector is wanted as an array."""
    rdm: int = 0
    """Order of the density matrices that are wanted: 0, 1 or 2."""
    timeout: float | None = None
    """Seconds after which the batch has failed."""


@dataclass(frozen=True)
class Failure:
    """Why a batch has no result."""

    kind: str
    """exception, not finite, memory, timeout, signal or stopped; recalled on ranks that wait for one that failed."""
    reason: str
    """One sentence."""
    log: tuple[str, ...] = ()
    """Last lines of the traceback or of what the worker wrote to standard error."""
    attempts: int = 1
    """How often it was tried."""

    def __str__(self) -> str:
        """Kind and reason in one line."""
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, eq=False)
class BatchResult:
    """Result of one batch, or why there is none."""

    number: int
    """Place in the list of batches, from 0."""
    strings_a: Strings = field(repr=False)
    """Alpha strings in canonical order."""
    strings_b: Strings = field(repr=False)
    """Beta strings in canonical order."""
    failure: Failure | None = None
    """Why the batch failed; None if it did not."""
    energy: float = float("nan")
    """Lowest energy, hartree, core included."""
    residual_norm: float = float("nan")
    """2-norm of H v - E v, hartree."""
    converged: bool = False
    """Whether the residual norm reached the tolerance."""
    spin_square: float = float("nan")
    """<S^2>."""
    spin_variance: float = float("nan")
    """<(P S^2 P)^2> - <S^2>^2 with the projection P on the subspace: 0 for a state of one spin."""
    sector: int = 0
    """Symmetry sector."""
    occupancies: FloatArray | None = field(default=None, repr=False)
    """(2, norb) mean occupations of alpha and beta orbitals."""
    weights: StringWeights | None = field(default=None, repr=False)
    """Weights of the strings, canonical order."""
    amplitudes: FloatArray | None = field(default=None, repr=False)
    """(n_alpha, n_beta) coefficients in canonical order, if they were asked for."""
    densities: DensityMatrices | None = field(default=None, repr=False)
    """Density matrices, if they were asked for."""
    vector_file: Path | None = None
    """File with the eigenvector, if one was asked for and could be written."""
    vector_trouble: str | None = None
    """Why it could not be written."""
    n_iterations: int = 0
    """Iterations of the eigensolver."""
    n_sigma: int = 0
    """Applications of the Hamiltonian."""
    seconds: float = 0.0
    """Seconds of the solve."""
    n_ranks: int = 1
    """Ranks that solved it."""
    n_threads: int = 1
    """Threads per rank."""
    proven: bool = True
    """Whether no symmetry sector may hold a lower state."""

    @property
    def dimension(self) -> int:
        """Number of determinants."""
        return len(self.strings_a) * len(self.strings_b)

    def carry_over(self, threshold: float, symmetrize_spin: bool = False) -> tuple[Strings, Strings]:
        """(alpha, beta) strings, (n, nwords), of some coefficient above the threshold; see `sampling.carry_over`."""
        weights = self.weights
        assert weights is not None
        return sampling.carry_over(
            (self.strings_a, self.strings_b), (weights.alpha, weights.beta),
            (weights.largest_alpha, weights.largest_beta), threshold, symmetrize_spin,
        )  # fmt: skip

    def after(self, attempts: int) -> BatchResult:
        """The same with the number of attempts in its failure."""
        return self if self.failure is None else replace(self, failure=replace(self.failure, attempts=attempts))

    def without_arrays(self) -> BatchResult:
        """The same without what grows with the number of determinants or with norb^4."""
        return replace(self, amplitudes=None, densities=None)


class BatchError(Exception):
    """A batch came to nothing without an exception of its own; `kind` is that of `Failure`."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


Solve = Callable[[Any, Hamiltonian, BatchTask, "Callable[[], bool] | None"], BatchResult]


def solve_one(
    comm: SomeRanks, hamiltonian: Hamiltonian, task: BatchTask, should_stop: Callable[[], bool] | None = None
) -> BatchResult:
    """Solve one batch. Collective over the communicator; the result lives on every rank, amplitudes included.

    Args:
        comm: the ranks that solve it, or None for this process alone.
        hamiltonian: integrals.
        task: what is asked.
        should_stop: asked once an iteration on every rank; if any says yes, the solve ends.

    Raises:
        InputError: strings or options do not fit.
        BatchError: the energy is not finite, or the time was up.
    """
    small = len(task.strings_a) * len(task.strings_b) < _SMALL_SPACE
    with _jit.at_most(1 if small else _jit.n_threads()):
        return _solve(comm, hamiltonian, task, should_stop)


def _solve(
    comm: SomeRanks, hamiltonian: Hamiltonian, task: BatchTask, should_stop: Callable[[], bool] | None
) -> BatchResult:
    """As `solve_one`, on the threads that there are."""
    # Whoever is asked to stop, or finds the time up, ends the solve for all ranks.
    began = perf_counter()

    def hook(progress: Progress) -> bool:
        late = task.timeout is not None and perf_counter() - began >= task.timeout
        flags = np.array([late, should_stop is not None and should_stop()], np.int64)
        progress.grid.maximum_over_all(flags)
        return bool(flags.any())

    result = solve_subspace(comm, hamiltonian, task.strings_a, task.strings_b, task.options, hook=hook)
    try:
        # What is no result.
        if result.stopped:
            asked = np.array([should_stop is not None and should_stop()], np.int64)
            result.grid.maximum_over_all(asked)
            if asked[0]:
                raise BatchError("stopped", "the run was asked to stop")
            raise BatchError("timeout", f"no result after {task.timeout:g} s")
        root = result.roots[0]
        if not np.isfinite(root.energy):
            raise BatchError("not finite", f"the energy is {root.energy}")

        # What is kept of it.
        strings = [bitstrings.canonical(each)[0] for each in (task.strings_a, task.strings_b)]
        trouble = None if task.vector_file is None else _write_vector(result, task.vector_file, strings, hamiltonian)
        square, variance = (np.nan if each is None else each for each in (root.spin_square, root.spin_variance))
        return BatchResult(
            task.number, strings[0], strings[1], None, root.energy, root.residual_norm, root.converged,
            square, variance, root.sector, root.occupancies, root.weights,
            result.gather() if task.amplitudes else None,
            density_matrices(result, 0, task.rdm) if task.rdm else None,
            None if trouble else task.vector_file, trouble, result.n_iterations, result.n_sigma, perf_counter() - began,
            result.grid.n_ranks, result.n_threads, result.proven,
        )  # fmt: skip
    finally:
        result.grid.free()


def _write_vector(result: SubspaceResult, path: Path, strings: list[Strings], hamiltonian: Hamiltonian) -> str | None:
    """Write the lowest root as a checkpoint of its solve; why that failed, on all ranks. Collective over the grid."""
    root = result.roots[0]

    def fill(file: Any) -> None:
        records.write_checkpoint_state(
            file, fingerprint=records.fingerprint(hamiltonian, *strings), hamiltonian=hamiltonian.fingerprint(),
            strings_a=strings[0], strings_b=strings[1], iteration=result.n_iterations, energies=[root.energy],
            residual_norms=[root.residual_norm],
        )  # fmt: skip

    try:
        distributed.write_file(result.grid, path, records.CHECKPOINT, fill, [(root.layout, root.vector)])
    except OSError as error:
        return str(error)
    return None


def isolated(
    solve: Solve, comm: Communicator | None, hamiltonian: Hamiltonian, task: BatchTask,
    should_stop: Callable[[], bool] | None = None,
) -> BatchResult:  # fmt: skip
    """What `solve` gives; a failed result if it raises or if its energy is not finite."""
    try:
        result = solve(comm, hamiltonian, task, should_stop)
        if result.failure is None and not np.isfinite(result.energy):
            raise BatchError("not finite", f"the energy is {result.energy}")
        return result
    except Exception as error:
        return failed(task, describe(error))


def failed(task: BatchTask, failure: Failure) -> BatchResult:
    """The result of a batch that failed."""
    strings = [bitstrings.canonical(np.asarray(each, np.uint64))[0] for each in (task.strings_a, task.strings_b)]
    return BatchResult(task.number, strings[0], strings[1], failure)


def describe(error: BaseException) -> Failure:
    """What an exception means for a batch."""
    lines = tuple("".join(traceback.format_exception(error)).splitlines()[-_LOG_LINES:])
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, BatchError):
        return Failure(error.kind, text)
    if isinstance(error, Recalled):
        return Failure("recalled", text, lines)
    if isinstance(error, MemoryError) or (isinstance(error, InputError) and error.typed.startswith("--memory")):
        return Failure("memory", text if text != "no message" else "an allocation failed", lines)
    return Failure("exception", f"{type(error).__name__}: {text}", lines)
