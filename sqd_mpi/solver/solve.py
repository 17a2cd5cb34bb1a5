"""The main job: lowest eigenpairs of a Hamiltonian in the product of given alpha and beta strings, on all ranks of a
communicator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi import _jit, planner
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends import device_is_there, get_backend
from sqd_mpi.distribution.layout import Layout, SpinStrings, sectors
from sqd_mpi.distribution.memory import HOST, Memory
from sqd_mpi.distribution.mpi import no_messages_from
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import Ranks, ranks_of
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.files import checksums, inspection, records
from sqd_mpi.files.distributed import StoredVectors
from sqd_mpi.log import Iteration, Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import OrbitalLabels, find_labels, trivial_labels
from sqd_mpi.resources import available_memory, peak_rss_bytes
from sqd_mpi.solver.davidson import Eigenpairs, Step, davidson, least_subspace, subspace_sizes
from sqd_mpi.solver.model_space import ModelSpace, Penalty
from sqd_mpi.solver.observables import StringWeights, carry_over, occupancies, parity_of, string_weights
from sqd_mpi.solver.sectors import (
    HOW_DECIDED,
    Aim,
    Decision,
    ModelShare,
    Outlook,
    Sector,
    SectorSearch,
    Task,
    Verdict,
)
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.solver.spin_target import SpinTarget, SpinTargetOperator, is_closed, is_pure
from sqd_mpi.solver.start_vectors import StartVectors
from sqd_mpi.timing import RemainingTime, Timers

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks

_MODEL_STATES = 30  # more eigenvectors of the model space than roots, which leave traces in the start vectors
# Above that dimension of a sector a larger model space costs nothing.
_SMALL_DIMENSION = 1_000_000
_LARGE_MODEL_SPACE = 1000  # determinants
# Largest share of the memory limit that vectors and buffers may be predicted to take.
_MEMORY_SHARE = 0.95
_NUMBERS_OF_A_STEP = "sector", "parity", "seconds"  # one each; others are one per root
_SURE_PARITY = 0.9  # a vector of smaller parity is taken for a mixture of both
_NORMALISED = 1e-9  # by how much the squared norm of an eigenvector from a checkpoint may differ from 1
_ANY_MEMORY = 2**60
_ON_DEVICE = "vectors, buffers and connection lists"


@dataclass(frozen=True, eq=False)
class Root:
    """One eigenpair.

    Attributes:
        energy: <H>, hartree, core included.
        penalised_energy: eigenvalue of the operator with the penalty on other spins; None without a spin target.
        residual_norm: 2-norm of H v - E v for the normalised v, hartree; with a spin target that of the operator with
            the penalty and its eigenvalue.
        deviation: 2-norm of H v - <H> v within the space, hartree; without a spin target the residual norm.
        converged: whether the residual norm reached the tolerance, and the spin is not another than was asked for.
        spin_square: <S^2>; None for spin-dependent integrals without the overlap of the orbitals.
        spin_pure: whether the state is one of S^2 (in the subspace) with the value of a spin; None where
            <S^2> is.
        sector: label of the symmetry sector.
        parity: +1 or -1 for C = +C^T (even spin) or -C^T (odd spin); 0 where spin-flip symmetry was not used.
        occupancies: (2, norb) mean occupations of alpha and beta orbitals.
        weights: weights of the strings, canonical order.
        layout: ownership of the vector.
        vector: this rank's slice.
    """

    energy: float
    penalised_energy: float | None
    residual_norm: float
    deviation: float
    converged: bool
    spin_square: float | None
    spin_pure: bool | None
    sector: int
    parity: int
    occupancies: FloatArray = field(repr=False)
    weights: StringWeights = field(repr=False)
    layout: Layout = field(repr=False)
    vector: FloatArray = field(repr=False)


@dataclass(frozen=True, eq=False)
class SubspaceResult:
    """Result of `solve_subspace`; equal on all ranks but for the slices of the vectors.

    Attributes:
        roots: ascending in energy, or in penalised energy with a spin target.
        stopped: whether a signal or the time limit ended the solve early.
        grid: the process grid.
        symmetry: orbital labels used.
        spin_target: the wanted spin and the penalty on others, or None.
        n_iterations, n_sigma: counts over all sectors, those before a restart included.
        sectors_examined: for every (label, parity) how it was decided, see `sectors`.
        history: name -> one value per iteration.
        timings: phase -> (minimum, mean, maximum) over ranks, seconds.
        backend, n_threads, max_subspace: what was used.
        device: name of the GPU of rank 0, or None.
        solve_seconds: from the call to the end of the iterations, those before a restart included.
        sigma_seconds: mean seconds per application of the Hamiltonian, slowest rank.
        memory: largest bytes of any rank of "vectors" (basis, images, diagonal), "buffers" and "structure".
        messages: most "bytes" received and "ket_blocks" among them in one sigma of any rank.
        task_seconds: (minimum, mean, maximum) over ranks, processor seconds of all threads in the tasks of all sigmas.
    """

    roots: list[Root]
    stopped: bool
    grid: ProcessGrid = field(repr=False)
    symmetry: OrbitalLabels
    spin_target: SpinTarget | None
    n_iterations: int
    n_sigma: int
    sectors_examined: dict[Sector, Decision]
    history: dict[str, FloatArray] = field(repr=False)
    timings: dict[str, tuple[float, float, float]] = field(repr=False)
    backend: str
    device: str | None
    n_threads: int
    max_subspace: int
    solve_seconds: float
    sigma_seconds: float
    memory: dict[str, int]
    messages: dict[str, int]
    task_seconds: tuple[float, float, float]

    @property
    def energies(self) -> FloatArray:
        """(nroots,) hartree."""
        return np.array([root.energy for root in self.roots])

    @property
    def converged(self) -> bool:
        """Whether all roots are."""
        return all(root.converged for root in self.roots)

    @property
    def proven(self) -> bool:
        """Whether no sector may hold a lower state than the roots that were found."""
        return all(decision.proven for decision in self.sectors_examined.values())

    def gather(self, root: int = 0) -> FloatArray:
        """The whole vector (n_alpha, n_beta) in canonical order, on every rank. Collective over the grid.

        This is the one place that puts a distributed vector together; it takes 8 n_alpha n_beta bytes on every rank.
        """
        chosen = self.roots[root]
        layout, here = chosen.layout, self.grid.coordinates
        where = layout.geometry(here.ia, here.ib, here.it, here.ir)
        whole = np.zeros((layout.alpha.size, layout.beta.size))
        rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
        alpha, beta = layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]
        whole[alpha, beta] = chosen.vector
        if layout.parity:
            whole = np.sqrt(0.5) * (whole + layout.parity * whole.T)
            on_line = where.diagonal
            whole[alpha[on_line], beta[on_line]] = chosen.vector[on_line]
        self.grid.sum_over_all(whole)
        return whole


@dataclass(frozen=True, eq=False)
class Progress:
    """Given to the caller's hook once an iteration, on all ranks.

    Attributes:
        step: state of the eigensolver.
        iteration: counted over all sectors, those before a restart included.
        layout: of the sector being solved.
        finished: eigenpairs of sectors that are done: (layout, vectors, energies, residual norms).
        grid: the process grid.
        symmetry: orbital labels.
        state: call it to get what a later run needs beside the vectors to go on from here.
    """

    step: Step
    iteration: int
    layout: Layout
    finished: list[tuple[Layout, FloatArray, FloatArray, FloatArray]]
    grid: ProcessGrid
    symmetry: OrbitalLabels
    state: Callable[[], dict[str, Any]]


Hook = Callable[[Progress], bool]


def solve_subspace(
    comm: SomeRanks,
    hamiltonian: Hamiltonian,
    strings_a: NDArray[np.uint64],
    strings_b: NDArray[np.uint64],
    options: SolveOptions | None = None,
    *,
    log: Log | None = None,
    hook: Hook | None = None,
    timers: Timers | None = None,
    start_vectors: Any = None,
) -> SubspaceResult:
    """Lowest eigenpairs of H in the space of all pairs of the given strings.

    Collective over the communicator: all arguments must be the same on all ranks, which is checked.

    Args:
        comm: MPI communicator, or None for this process alone.
        hamiltonian: integrals in hartree.
        strings_a, strings_b: (n, nwords) uint64; any order, duplicates are merged.
        options: see `SolveOptions`.
        log: where progress goes; by default nowhere.
        hook: called once an iteration with the state; returns True to stop (it must agree on all ranks).
        timers: collects seconds per phase.
        start_vectors: start vectors in memory, with `nroots` and `fill(grid, layout, root, out)` like `StoredVectors`;
            they go before those of the option `start`.

    Returns:
        the result; a solve that does not converge is a result with `converged` False.

    Raises:
        InputError: strings or options do not fit, or arguments differ between the ranks; the same on all ranks.
        RunError: a vector holds a value that is not finite, the same on all ranks; or this rank's memory, or that of
            its device, does not suffice.
    """
    ranks = ranks_of(comm)

    def solve(chosen: SolveOptions | None) -> SubspaceResult:
        with _jit.taking("auto" if chosen is None else chosen.threads):
            return _Solve(ranks, hamiltonian, strings_a, strings_b, chosen, log, hook, timers, start_vectors).run()

    try:
        try:
            return solve(options)
        except _DeviceTooSmall as error:  # the same on all ranks
            if log is not None:
                log.info(f"--backend auto takes the CPU after all: {error}")
            return solve((options or SolveOptions()).replace(backend="cpu"))
    except MemoryError as error:
        raise RunError(
            f"too little memory: {error}; more ranks, fewer Krylov vectors (--max-subspace) or another grid need less"
        ) from error


class _DeviceTooSmall(InputError):
    """A solve that chose a device by itself does not fit there."""


class _Solve:
    """One call of `solve_subspace`: the sectors, their operators and what is shared between them."""

    def __init__(
        self,
        ranks: Ranks,
        hamiltonian: Hamiltonian,
        strings_a: NDArray[np.uint64],
        strings_b: NDArray[np.uint64],
        options: SolveOptions | None,
        log: Log | None,
        hook: Hook | None,
        timers: Timers | None,
        start_vectors: Any = None,
    ):
        self.began = perf_counter()
        self.options = options if options is not None else SolveOptions()
        self.hamiltonian = hamiltonian
        self.log = log if log is not None else Log.silent()
        self.hook = hook
        self.timers = timers if timers is not None else Timers()
        self.local_rank, self.n_local = ranks.local()
        available = self.options.memory or int(available_memory() / self.n_local)
        self.memory = _agree_on_arguments(ranks, hamiltonian, (strings_a, strings_b), self.options, available)
        with self.timers("symmetry"):
            off = self.options.symmetry == "off"
            self.symmetry = trivial_labels(hamiltonian.norb) if off else find_labels(hamiltonian)
            self.alpha, self.beta = (
                SpinStrings.from_canonical(bitstrings.canonical(strings)[0], labels, self.symmetry.n_labels)
                for strings, labels in zip((strings_a, strings_b), self.symmetry.both, strict=True)
            )
            same_orbitals = not hamiltonian.spin_dependent
            if same_orbitals and np.array_equal(self.alpha.strings, self.beta.strings):
                self.beta = self.alpha
        self.nroots = self.options.nroots
        if self.nroots > self.alpha.size * self.beta.size:
            total = self.alpha.size * self.beta.size
            raise InputError(f"--nroots {self.nroots} needs at least as many determinants; this space has {total}")
        self.backend_name = self._choose_backend(ranks)
        self.backend = get_backend(self.backend_name)
        self.vector_memory = self._vector_memory(ranks)
        shape = self._shape(ranks)
        device_bytes = self._device_bytes(ranks, shape)
        self.target = self._spin_target(shape)
        self.sectors = self._sectors(spin_flip=self._flips(shape))
        share_blocks = self.options.share_blocks == "auto" and not self.options.gpu_aware_mpi
        self.grid = ProcessGrid(ranks, shape, share_blocks)
        if self.grid.n_ranks > 1:
            with self.timers("structure"):
                deal, folded = self.options.string_order != "sorted", self.sectors[0][1] != 0
                self.alpha, self.beta = planner.order_strings(
                    self.alpha, self.beta, hamiltonian.norb, self.grid.shape, deal, folded
                )
        self.max_subspace = self._subspace_that_fits(device_bytes)
        here = self.grid.coordinates
        self.place = (here.ia, here.ib, here.it, here.ir)
        self._shares: dict[int, Any] = {}
        self.n_iterations = self.n_sigma = self.n_sigma_before = 0
        self.seconds_before = 0.0
        self.asked_to_stop = False
        self.solved: dict[Sector, Eigenpairs] = {}
        self.wanted: dict[Sector, NDArray[np.bool_]] = {}  # which of them may be wanted roots
        self.used_stored = False
        self.n_restored: dict[Sector, int] = {}  # roots that a checkpoint has brought
        self.guarded: tuple[int, ...] | None = None  # sector for which it has a vector that began as a random one
        self.messages = {"bytes": 0, "ket_blocks": 0}
        self.task_seconds = 0.0
        self.bytes_used = {"vectors": 0, "buffers": 0, "structure": 0}
        self.history: dict[str, list[Any]] = {
            name: [] for name in ("sector", "parity", "energy", "residual_norm", "seconds")
        }
        self.stored = self._open_stored() if start_vectors is None else start_vectors

    def run(self) -> SubspaceResult:
        """Solve every sector that may hold one of the wanted roots."""
        self.models = self._models()
        outlooks = {
            sector: Outlook(model.energies, model.edge, self._layout(sector).dimension, len(model.mine))
            for sector, model in self.models.items()
        }
        self.search = SectorSearch(outlooks, self.nroots)
        self._restore()
        while not self.asked_to_stop and (task := self.search.next()) is not None:
            self._solve_sector(task)
        decisions = self.search.decisions()
        timings = self.grid.ranks.minimum_mean_maximum(self.timers.seconds)
        task_seconds = self.grid.ranks.minimum_mean_maximum({"tasks": self.task_seconds})["tasks"]
        solve_seconds = self.seconds
        roots = self._roots()
        if not self.asked_to_stop:
            self._tell(decisions, roots)
        if self.target is not None and not self.asked_to_stop:
            self._warn_about_spin(self.target, roots)
        if self.hamiltonian.spin_dependent and self.hamiltonian.overlap_ab is None:
            self.log.warning("<S^2> is not known: spin-dependent integrals came without the overlap of the orbitals")
        return SubspaceResult(
            roots, self.asked_to_stop, self.grid, self.symmetry, self.target, self.n_iterations, self.n_sigma,
            decisions, self._history_arrays(), timings,
            self.backend_name, self.vector_memory.device, _jit.n_threads(), self.max_subspace, solve_seconds,
            timings.get("sigma", (0.0, 0.0, 0.0))[2] / max(self.n_sigma - self.n_sigma_before, 1), self.bytes_used,
            self.messages, task_seconds,
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Since the solve began, those before a restart included."""
        return perf_counter() - self.began + self.seconds_before

    def _tell(self, decisions: dict[Sector, Decision], roots: list[Root]) -> None:
        """Say how the sectors without wanted roots were left out, and which may still hold one."""
        if isinstance(self.stored, StoredVectors) and not self.used_stored and not self.n_restored:
            self.log.warning(f"the vectors of {self.options.start} have no part in the sectors of the roots; not used")
        counts = {how: [d.how for d in decisions.values() if d.n_found == 0].count(how) for how in HOW_DECIDED}
        told = [f"{count} by {HOW_DECIDED[how]}" for how, count in counts.items() if count and how in HOW_DECIDED]
        if told:
            total = sum(counts.values())
            self.log.info(f"{total} other symmetry sectors lie above: {', '.join(told)}")
        # Where a root that is reported has not converged that is said of the root.
        open_roots = {(root.sector, root.parity) for root in roots if root.residual_norm > self.options.tol}
        unknown = [_name(s) for s, decision in decisions.items() if not decision.proven and s not in open_roots]
        if unknown:
            self.log.warning(
                f"not proven: a lower state may lie in {', '.join(unknown)}, where {self.options.max_iterations} "
                "iterations (--max-iterations) did not decide"
            )

    def _warn_about_spin(self, target: SpinTarget, roots: list[Root]) -> None:
        """Say which roots have not the wanted spin."""
        for k, root in enumerate(roots):
            mean = root.spin_square
            if mean is None or target.reached(mean):
                continue
            why = (
                "a state of another spin, which counts as not converged; a larger --spin-penalty or space may bring "
                "the spin that was asked for"
                if target.is_another(mean)
                else "the space lacks spin partners of its determinants, so that no state of it has one spin"
            )
            self.log.warning(f"root {k} has <S^2> {mean:.4f}, not {target.value:g}: {why}")

    def _flips(self, shape: tuple[int, int, int, int]) -> bool:
        """Whether spin-flip symmetry is used: equal string sets, and a grid with a = b."""
        return self.beta is self.alpha and shape[0] == shape[1] and self.options.spin_flip == "auto"

    def _spin_target(self, shape: tuple[int, int, int, int]) -> SpinTarget | None:
        wanted = self.options.spin_square
        if wanted is None:
            return None
        closed = is_closed(self.alpha.strings, self.beta.strings, self.hamiltonian.norb)
        lenient = self.options.spin_check == "off"
        return SpinTarget.create(
            self.hamiltonian, wanted, self.options.spin_penalty, self._flips(shape), closed, lenient
        )

    def _sectors(self, spin_flip: bool) -> list[Sector]:
        """Every (label, parity) that holds a vector, with a spin target of its parity only."""
        self.wanted_parity = self._wanted_parity()
        parities = (0,) if not spin_flip else (self.wanted_parity,) if self.wanted_parity else (1, -1)
        found = [(label, parity) for label in sectors(self.alpha, self.beta) for parity in parities]
        return [sector for sector in found if self._layout(sector, (1, 1, 1, 1)).dimension > 0]

    def _wanted_parity(self) -> int:
        """The parity of the spin that is wanted where both spins have the same strings, else 0.

        Raises:
            InputError: too few vectors have it.
        """
        if self.target is None or self.beta is not self.alpha:
            return 0
        parity, n = self.target.parity, self.alpha.size
        total = n * (n + parity) // 2
        if parity == 0 or total >= self.nroots:
            return parity
        if self.options.spin_check == "off":
            return 0
        raise InputError(
            f"--nroots {self.nroots} needs as many states of spin {self.target.spin:g}; this space has at most {total}"
        )

    def _choose_backend(self, ranks: Ranks) -> str:
        """The backend that was asked for; "auto" is a GPU if every rank has one and a solve is predicted to be faster.

        Raises:
            InputError: the machine profiles in the environment cannot be read; the same on all ranks.
        """
        if self.options.backend != "auto":
            return self.options.backend
        if ranks.maximum(np.array([not device_is_there()], np.int64))[0]:
            return "cpu"
        sizes = subspace_sizes(self.nroots, self.options.max_subspace)
        choice = ranks.from_rank_0(
            lambda: planner.choose_backend(self._problem, _jit.n_threads(), sizes, ranks.size)
        )
        self.log.info(choice.sentence)
        return str(choice.backend)

    def _vector_memory(self, ranks: Ranks) -> Memory:
        """The memory of the backend; that of a device limits this solve where it is smaller.

        Raises:
            InputError: there is no device, or messages cannot go from it; the same on all ranks.
        """
        memory: Memory | None = None
        trouble = None
        try:
            memory = self.backend.create_memory(
                direct=self.options.gpu_aware_mpi, local_rank=self.local_rank if ranks.size > 1 else None,
                n_local=self.n_local, say=self.log.warning_once,
            )  # fmt: skip
            if self.options.gpu_aware_mpi and memory is not None:
                trouble = no_messages_from(memory.kind)
        except InputError as error:
            trouble = str(error)
        ranks.agree_on_error(trouble)
        assert memory is not None
        if memory.identity is not None:
            found = memory.limit(ranks.count_alike(memory.identity))
            assert found is not None
            least = -int(ranks.maximum(np.array([-found], np.int64))[0])
            self.memory = least if self.options.memory is None else min(least, self.memory)
        return memory

    def _shape(self, ranks: Ranks) -> tuple[int, int, int, int]:
        """The grid that was asked for, or the planner's; rank 0 plans for all."""
        if self.options.grid != "auto":
            return self.options.grid
        if (n_ranks := ranks.size) == 1:
            return 1, 1, 1, 1
        chosen, missing = None, 0
        with self.timers("plan"):
            if ranks.rank == 0:
                plan = self._plan(n_ranks, local_ranks_of_node=self.n_local)
                best = plan.chosen or plan.too_large[0]
                chosen, missing = best.grid, max(best.missing_bytes, best.missing_device_bytes)
            chosen, missing = ranks.broadcast((chosen, missing))
        if missing:
            self.log.warning(
                f"no grid of {n_ranks} ranks is predicted to fit into {self.memory / 2**30:.3g} GiB per rank; "
                f"{missing / 2**30:.3g} GiB are missing"
            )
        return chosen

    def _plan(self, n_ranks: int, local_ranks_of_node: int) -> planner.Plan:
        profile, sizes = MachineProfile(), subspace_sizes(self.nroots, self.options.max_subspace)
        limits = planner.Limits(self.memory, *sizes)
        if self.vector_memory.identity is not None:  # the memory is this rank's part of a device
            profile = planner.assumed_device().model_copy(update={"context_bytes": 0})
            limits = planner.Limits(_ANY_MEMORY, *sizes, self.memory)
        profile = profile.model_copy(update={"ranks_per_node": local_ranks_of_node})
        return planner.make_plan(self._problem, n_ranks, profile, _jit.n_threads(), limits)

    @cached_property
    def _problem(self) -> planner.Problem:
        """What the planner knows about the input; wanted before the strings are dealt to the parts of the grid."""
        return planner.Problem.from_sorted(
            self.hamiltonian, self.symmetry, self.alpha, self.beta,
            self.options.spin_flip == "auto" and self.beta is self.alpha, self.options.string_order != "sorted",
        )  # fmt: skip

    def _layout(self, sector: Sector, grid: tuple[int, int, int, int] | None = None) -> Layout:
        label, parity = sector
        return Layout.create(self.alpha, self.beta, label, self.grid.shape if grid is None else grid, parity)

    def _device_bytes(self, ranks: Ranks, shape: tuple[int, int, int, int]) -> dict[int, int] | None:
        """Predicted bytes of a rank on its device by number of basis vectors, everything included.

        None without a device, and where any lists would fit beside the vectors, so that none need be counted.
        """
        if self.vector_memory.identity is None:
            return None
        found, sizes = None, subspace_sizes(self.nroots, self.options.max_subspace)
        with self.timers("plan"):
            n_determinants = self.alpha.size * self.beta.size  # of all sectors
            most = planner.predict_memory(shape, n_determinants, sizes[0]).total
            most += planner.most_bytes(self.alpha, self.beta, self.hamiltonian.norb, self.hamiltonian.nelec)
            if most <= _MEMORY_SHARE * self.memory:
                return None
            if ranks.rank == 0:
                found = planner.rank_bytes(self._problem, shape, planner.Limits(_ANY_MEMORY, *sizes, self.memory))
            return ranks.broadcast(found)

    def _subspace_that_fits(self, device_bytes: dict[int, int] | None) -> int:
        """Number of basis vectors: as asked for, or the default, or less where the memory limit wants it.

        Args:
            device_bytes: what a rank needs on its device; without one, vectors and buffers in host memory count.

        Raises:
            InputError: not even the smallest subspace fits; says what is missing.
        """
        layouts = [self._layout(sector) for sector in self.sectors]
        dimension = max(layout.dimension for layout in layouts)
        n_determinants = max(layout.n_determinants for layout in layouts)
        wanted, smallest = subspace_sizes(self.nroots, self.options.max_subspace)
        for size in range(wanted, smallest - 1, -1):
            if device_bytes is None:
                needed = planner.predict_memory(self.grid.shape, dimension, size, n_determinants).total
            else:
                needed = device_bytes[size]
            needed += self._extra_bytes(dimension)
            if needed <= _MEMORY_SHARE * self.memory:
                if size < wanted:
                    self.log.info(f"memory limit: {size} basis vectors instead of {wanted}")
                self.vector_memory.reserve(needed)
                return size
        raise self._too_large(needed, "vectors and buffers" if device_bytes is None else _ON_DEVICE)

    def _extra_bytes(self, dimension: int) -> int:
        """Bytes of the vectors beside the basis that the penalty on other spins needs."""
        n_extra = 0 if self.target is None else self.target.n_vectors
        return 8 * n_extra * -(-dimension // self.grid.n_ranks)

    def _too_large(self, needed: float, what: str) -> InputError:
        """The sentence that says what is missing."""
        by_itself = self.options.backend == "auto" and self.vector_memory.identity is not None
        return (_DeviceTooSmall if by_itself else InputError)(
            f"--memory: {what} need {needed / 2**30:.3g} GiB per rank on grid "
            f"{','.join(str(n) for n in self.grid.shape)}; {self.memory / 2**30:.3g} GiB per rank "
            + (f"of {self.vector_memory.device} " if self.vector_memory.device else "")
            + f"are allowed, {(needed - _MEMORY_SHARE * self.memory) / 2**30:.3g} GiB too few"
        )

    def _basis_for(self, layout: Layout, count: int) -> int:
        """Number of basis vectors with which `count` roots of a sector are followed.

        Raises:
            InputError: not even two vectors a root fit into the memory limit; the same on all ranks.
        """
        if count <= self.nroots + 1:
            return max(self.max_subspace, 2 * count)
        # Roots of the other parity, which are not wanted, lie below. With two vectors a root nothing would be left of
        # the step before, without which iterations hardly come on.
        for size in range(max(self.max_subspace, least_subspace(count)), 2 * count - 1, -1):
            needed = planner.predict_memory(self.grid.shape, layout.dimension, size, layout.n_determinants).total
            needed += self._extra_bytes(layout.dimension)
            if self.vector_memory.identity is not None or needed <= _MEMORY_SHARE * self.memory:
                return size
        raise self._too_large(needed, f"vectors and buffers for {count} roots")

    def _basis_that_fits(self, operator: SigmaOperator, n_basis: int, least: int) -> int:
        """As many basis vectors as fit beside lists and buffers that are on the device by now; collective.

        Predicted lists may be somewhat smaller than those that were made.

        Raises:
            InputError: not even the least number fits; the same on all ranks.
        """
        if self.vector_memory.identity is None:
            return n_basis
        structure = max((share.nbytes for share in self._shares.values()), default=0)
        taken = structure + operator.plan.buffer_bytes + self._extra_bytes(operator.dimension)
        counts = np.array([taken, 8 * operator.size], np.int64)
        self.grid.maximum_over_all(counts)
        fits = int((_MEMORY_SHARE * self.memory - counts[0]) // max(counts[1], 1) - 1) // 2
        if fits < least:
            raise self._too_large(float(counts[0] + counts[1] * (2 * least + 1)), _ON_DEVICE)
        if fits < n_basis:
            self.log.info(f"memory limit: {fits} basis vectors instead of {n_basis}: lists are longer than predicted")
        return min(fits, n_basis)

    def _open_stored(self) -> StoredVectors | None:
        if self.options.start is None:
            return None
        ranks, stored, trouble = self.grid.ranks, None, None
        if not checksums.verify(ranks, self.options.start, needed=False) and self.grid.rank == 0:
            try:
                inspection.look(self.options.start)
            except InputError as error:
                trouble = str(error)
        ranks.agree_on_error(trouble)
        try:
            stored = StoredVectors(self.options.start, self.alpha, self.beta)
        except InputError as error:
            trouble = str(error)
        ranks.agree_on_error(trouble)
        assert stored is not None
        unknown = [spin for spin, n in zip(("alpha", "beta"), stored.n_known, strict=True) if n == 0]
        if unknown:
            self.log.warning(
                f"{self.options.start} has none of the {' and '.join(unknown)} strings of this space; its vectors are "
                "not used"
            )
            return None
        return stored

    def _block(self, layout: Layout) -> Any:
        """This rank's block; string structure is shared by all sectors, or by both parities of one label."""
        key = layout.sector if layout.parity else 0
        if key not in self._shares:
            self._shares.clear()  # one at a time
            with self.timers("structure"):
                self._shares[key] = self.backend.create_share(layout, self.place, self.hamiltonian, self.symmetry)
        return self.backend.create_block(layout, self.place, self.hamiltonian, self._shares[key])

    def _model(self, sector: Sector) -> ModelSpace:
        layout = self._layout(sector)
        block = self._block(layout)
        with self.timers("model space"):
            size = max(self.options.model_space, 2 * self.nroots)
            if layout.dimension > _SMALL_DIMENSION and "model_space" not in self.options.model_fields_set:
                size = max(size, _LARGE_MODEL_SPACE)
            energy = Interaction.energy(self.hamiltonian)
            n_states = 2 * self.nroots + _MODEL_STATES
            memory = self.vector_memory if self.target is None else HOST
            if self.target is None:
                penalty = None
                diagonal = memory.empty(layout.slice_size(*self.place))
                block.diagonal(energy, diagonal)
            else:
                deviation = self.target.deviation(self.hamiltonian)
                penalty = Penalty(deviation, self.target.strength, not self.target.linear)
                diagonal = self.target.diagonal(layout, self.place, self.hamiltonian, block, self.vector_memory)
            return ModelSpace.create(
                self.grid, layout, diagonal, self.hamiltonian, energy, size, n_states, penalty, memory
            )

    def _models(self) -> dict[Sector, ModelSpace]:
        """The model spaces of all sectors; they may show that the penalty on other spins must be stronger."""
        models = {sector: self._model(sector) for sector in self.sectors}
        if self.target is None or not self.target.may_lift:
            return models
        bounds = [model.bounds for model in models.values() if model.bounds is not None]
        lowest = min(float(without[0]) for without, _ in bounds)
        wanted = np.sort(np.concatenate([pure for _, pure in bounds]))[: self.nroots]
        lifted = self.target.lifted(float(wanted[-1]) - lowest)
        if lifted == self.target:
            return models
        self.target = lifted
        return {sector: self._model(sector) for sector in self.sectors}

    def _solve_sector(self, task: Task) -> None:
        """Follow the lowest roots of one sector as far as the task asks, and note what that shows."""
        sector, search = task.sector, self.search
        layout, model, bound = self._layout(sector), self.models[sector], search.bound
        operator = self._operator(layout)
        n_basis = self._basis_that_fits(operator, self._basis_for(layout, task.count), 2 * task.count)
        self._count_bytes(operator, n_basis)
        finished = [
            (self._layout(other), pairs.vectors, pairs.energies, pairs.residual_norms)
            for other, pairs in self.solved.items()
            if other != sector
        ]
        start = self._start_vectors(task, operator)
        verdict = Verdict.OPEN

        def callback(step: Step) -> bool:
            nonlocal verdict
            self._record(sector, step, shown=task.aim is Aim.ROOTS)
            if step.iteration == 1 and task.aim is Aim.ROOTS:
                self._compare_with_stored(start.stored_numbers, step)
            verdict = search.judge(task, step, start.outside)
            if self.hook is not None:
                state = partial(self._state, task, step)
                progress = Progress(step, self.n_iterations, layout, finished, self.grid, self.symmetry, state)
                self.asked_to_stop = self.hook(progress)
            return self.asked_to_stop or verdict is not Verdict.OPEN

        pairs = davidson(
            operator, start.fill, nroots=task.count, tol=self.options.tol, max_iterations=self.options.max_iterations,
            max_subspace=n_basis, callback=callback,
        )  # fmt: skip
        self.used_stored = self.used_stored or bool(start.stored_numbers)
        self.n_sigma += pairs.n_sigma
        self.task_seconds += operator.task_seconds
        self.log.close()
        operator.plan.free()
        if self.asked_to_stop and task.aim is not Aim.ROOTS:
            return
        share = ModelShare(*model.shares(self.grid, pairs.vectors))
        wanted = self._wanted_roots(layout, pairs.vectors)
        if search.note(task, verdict, pairs.energies, pairs.converged, share, wanted):
            self.solved[sector], self.wanted[sector] = pairs, wanted
            if np.isfinite(bound):
                self.log.info(f"also solved: {_name(sector)}, energy {pairs.energies[-1]:.10f}")

    def _compare_with_stored(self, numbers: list[int], step: Step) -> None:
        """Say what residuals stored vectors have here beside those that their file gives them."""
        if not numbers or not isinstance(self.stored, StoredVectors):
            return
        energies, told = self.stored.reader.energies(), self.stored.reader.residual_norms()
        norms = [told[number] for number in sorted(numbers, key=energies.__getitem__)][: len(step.residual_norms)]
        here, there = (", ".join(f"{x:.1e}" for x in each) for each in (step.residual_norms[: len(norms)], norms))
        self.log.info(f"start vectors: residual {here}; where they were written {there}")

    def _state(self, task: Task, step: Step) -> dict[str, Any]:
        """What a later run needs beside the vectors to go on from here."""
        sectors_known = self.search.state()
        return {
            "settings": self._settings,
            "guarded": task.sector if task.aim is Aim.GUARD else None,
            "n_sigma": self.n_sigma + step.n_sigma,
            "seconds": self.seconds,
            "history": {name: array.tolist() for name, array in self._history_arrays().items()},
            "sectors": {
                "label": [label for label, _ in sectors_known],
                "parity": [parity for _, parity in sectors_known],
                "n_found": [n_found for n_found, _, _ in sectors_known.values()],
                "hard": [int(hard) for _, hard, _ in sectors_known.values()],
                "how": [how for _, _, how in sectors_known.values()],
            },
        }

    @property
    def _settings(self) -> str:
        """What decisions on sectors depend on beside Hamiltonian and strings."""
        names = "nroots", "spin_square", "spin_penalty", "symmetry", "model_space"
        return ", ".join(f"{name} {getattr(self.options, name)}" for name in names)

    def _restore(self) -> None:
        """Go on where a run of the same problem was stopped: counts, history, known roots, decided sectors."""
        if not self.options.resume or not isinstance(self.stored, StoredVectors):
            return
        reader = self.stored.reader
        if not reader.is_checkpoint:  # there was none, and a result was given as start
            return
        state = reader.state()
        known = state.get("solver", {})
        same = reader.fingerprint == records.fingerprint(self.hamiltonian, *self._canonical_strings())
        if not same or known.get("settings") != self._settings:
            return
        self.n_iterations, self.n_sigma_before = int(state["iteration"]), int(known["n_sigma"])
        self.n_sigma, self.seconds_before = self.n_sigma_before, float(known["seconds"])
        for name, values in known["history"].items():
            self.history[name] = list(np.array(values, np.float64))
        self.guarded = tuple(known["guarded"]) if known["guarded"] is not None else None
        columns = known["sectors"]
        for row in zip(*(columns[name] for name in ("label", "parity", "n_found", "hard", "how")), strict=True):
            label, parity, n_found, hard, how = row
            if (label, parity) in self.models and self._restore_roots((label, parity), n_found, state):
                self.search.restore((label, parity), bool(hard), str(how))

    def _restore_roots(self, sector: Sector, n_found: int, state: dict[str, Any]) -> bool:
        """Take up the known roots of a sector; False if they are not all there with the accuracy that is wanted now."""
        assert isinstance(self.stored, StoredVectors)
        layout, reader = self._layout(sector), self.stored.reader
        numbers = [
            k for k in range(self.stored.nroots) if (reader.sectors[k], reader.parities[k]) == sector
        ][:n_found]
        energies, norms = (np.array(state[name], float)[numbers] for name in ("energies", "residual_norms"))
        if len(numbers) < n_found or np.any(norms > self.options.tol):
            return False
        if not numbers:
            return True
        vectors = np.empty((len(numbers), layout.slice_size(*self.place)))
        for vector, number in zip(vectors, numbers, strict=True):
            self.stored.fill(self.grid, layout, number, vector)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        self.grid.sum_over_all(squares)
        if np.any(abs(squares - 1.0) > _NORMALISED):
            return False
        self.solved[sector] = Eigenpairs(energies, vectors, norms, norms <= self.options.tol, 0, 0, False)
        self.n_restored[sector] = n_found
        self.wanted[sector] = self._wanted_roots(layout, vectors)
        share = ModelShare(*self.models[sector].shares(self.grid, vectors))
        self.search.found(sector, energies, share, self.wanted[sector])
        return True

    def _canonical_strings(self) -> list[NDArray[np.uint64]]:
        """Alpha and beta strings in canonical order."""
        return [each.strings[np.argsort(each.canonical)] for each in (self.alpha, self.beta)]

    def _start_vectors(self, task: Task, operator: SigmaOperator) -> StartVectors:
        """What a task starts from."""
        sector, model = task.sector, self.models[task.sector]
        start = StartVectors(
            self.grid, self._layout(sector), model, self.vector_memory, task,
            self.vector_memory.to_host(operator.diagonal()), min(self.search.bound, float(model.energies[0])),
        )  # fmt: skip
        if sector in self.solved:
            start.add_known(self.solved[sector].vectors)
        if self.stored is not None:
            start.add_stored(self.stored, self.n_restored.get(sector, 0), sector == self.guarded)
        return start

    def _wanted_roots(self, layout: Layout, vectors: FloatArray) -> NDArray[np.bool_]:
        """Which eigenvectors have the parity of the wanted spin, where sectors do not keep parities apart."""
        if not self.wanted_parity or layout.parity:
            return np.ones(len(vectors), bool)
        parities = np.array([parity_of(self.grid, layout, vector) for vector in vectors])
        return self.wanted_parity * parities > -_SURE_PARITY

    def _operator(self, layout: Layout) -> SigmaOperator:
        """What is diagonalised in a sector: the Hamiltonian, with a penalty on other spins if one is wanted."""
        with self.timers("structure"):
            block, common = self._block(layout), (self.timers, self.vector_memory)
            if self.target is not None:
                return SpinTargetOperator(self.grid, layout, block, self.hamiltonian, self.target, *common)
            return SigmaOperator(self.grid, layout, block, Interaction.energy(self.hamiltonian), *common)

    def _count_bytes(self, operator: SigmaOperator, n_basis: int) -> None:
        """Note the largest memory and message volume of any rank; collective over the grid."""
        structure = max((getattr(share, "nbytes", 0) for share in self._shares.values()), default=0)
        plan = operator.plan
        n_extra = 0 if self.target is None else self.target.n_vectors
        vectors_bytes = 8 * operator.size * (2 * n_basis + 1 + n_extra)
        used = np.array(
            [vectors_bytes, plan.buffer_bytes, structure, plan.message_bytes, plan.exchange.n_received], np.int64
        )
        self.grid.maximum_over_all(used)
        for name, value in zip(("vectors", "buffers", "structure"), used[:3], strict=True):
            self.bytes_used[name] = max(self.bytes_used[name], int(value))
        for name, value in zip(("bytes", "ket_blocks"), used[3:], strict=True):
            self.messages[name] = max(self.messages[name], int(value))

    def _record(self, sector: Sector, step: Step, shown: bool) -> None:
        self.n_iterations += 1
        last = self.history["energy"][-1][0] if step.iteration > 1 else np.nan
        row = Iteration(
            self.n_iterations, step.subspace, float(step.energies.min()), float(step.energies[0] - last),
            float(step.residual_norms.max()), self.n_sigma + step.n_sigma, self.seconds, self._remaining(step),
            self.target is not None,
        )  # fmt: skip
        if shown:
            self.log.iteration(row)
        for name, value in (("sector", sector[0]), ("parity", sector[1]), ("energy", step.energies),
        ("residual_norm", step.residual_norms)):
            self.history[name].append(value)
        self.history["seconds"].append(row.seconds)

    def _history_arrays(self) -> dict[str, FloatArray]:
        """One row per iteration; NaN where a sector was solved for fewer roots than the most."""
        width = max([self.nroots, *(len(row) for row in self.history["energy"])])
        arrays = {name: np.array(values) for name, values in self.history.items() if name in _NUMBERS_OF_A_STEP}
        for name in ("energy", "residual_norm"):
            arrays[name] = np.full((len(self.history[name]), width), np.nan)
            for padded, row in zip(arrays[name], self.history[name], strict=True):
                padded[: len(row)] = row
        return {name: arrays[name] for name in self.history}

    def _remaining(self, step: Step) -> float | None:
        """Estimate of the seconds that the solve of this sector still takes."""
        if step.iteration == 1:
            self.expected = RemainingTime(self.options.tol, self.options.max_iterations)
        self.expected.add(step.residual_norms, step.seconds)
        return self.expected.seconds()

    def _roots(self) -> list[Root]:
        """The lowest roots over all sectors with everything that is reported about them."""
        solved = self.solved
        ranked = sorted(
            (not self.wanted[sector][k], float(pairs.energies[k]), sector, k)
            for sector, pairs in solved.items()
            for k in range(len(pairs.energies))
        )
        candidates = [(energy, sector, k) for _, energy, sector, k in ranked[: self.nroots]]
        known: dict[tuple[Sector, int], tuple[tuple[float, float], float]] = {}
        with self.timers("observables"):
            for sector in sorted({sector for _, sector, _ in candidates}):
                chosen = [k for _, other, k in candidates if other == sector]
                spins = self._spin_squares(sector, solved[sector], chosen)
                deviations = self._deviations(sector, solved[sector], chosen)
                for k, spin, deviation in zip(chosen, spins, deviations, strict=True):
                    known[sector, k] = spin, deviation
            return [self._root(solved[s], s, k, *known[s, k]) for _, s, k in candidates]

    def _spin_squares(self, sector: Sector, pairs: Eigenpairs, chosen: list[int]) -> list[tuple[float, float]]:
        """<S^2> and <(P S^2 P)^2> of some vectors; NaN where the overlap of the orbitals is not known."""
        if self.hamiltonian.spin_dependent and self.hamiltonian.overlap_ab is None:
            return [(np.nan, np.nan)] * len(chosen)
        return self._moments(Interaction.spin_square(self.hamiltonian), sector, pairs, chosen)

    def _deviations(self, sector: Sector, pairs: Eigenpairs, chosen: list[int]) -> list[float]:
        """2-norms of H v - <H> v of some vectors within the space, hartree."""
        if self.target is None:
            return [float(pairs.residual_norms[k]) for k in chosen]
        # Energies from one nearby, so that the difference below does not cancel.
        energy = Interaction.energy(self.hamiltonian).shifted(-float(pairs.energies[chosen[0]]))
        return [float(np.sqrt(max(s - m**2, 0.0))) for m, s in self._moments(energy, sector, pairs, chosen)]

    def _moments(
        self, interaction: Interaction, sector: Sector, pairs: Eigenpairs, chosen: list[int]
    ) -> list[tuple[float, float]]:
        """<v|V|v> and <v|V V|v> of an interaction V and some vectors v."""
        layout, memory = self._layout(sector), self.vector_memory
        operator = SigmaOperator(self.grid, layout, self._block(layout), interaction, memory=memory)
        work = memory.empty(operator.size)
        values = [operator.moments(memory.from_host(pairs.vectors[k]), work) for k in chosen]
        operator.plan.free()
        return values

    def _root(
        self, pairs: Eigenpairs, sector: Sector, k: int, spin: tuple[float, float], deviation: float
    ) -> Root:
        penalised = float(pairs.energies[k])
        known = not np.isnan(spin[0])
        spin_square, spin_pure = (spin[0], is_pure(*spin)) if known else (None, None)
        energy = penalised if self.target is None else self.target.energy(penalised, *spin)
        another = self.target is not None and known and self.target.is_another(spin[0])
        layout = self._layout(sector)
        weights = string_weights(self.grid, layout, pairs.vectors[k])
        occupied = np.stack(
            [
                occupancies(strings.strings, weight[strings.canonical], self.hamiltonian.norb)
                for strings, weight in ((self.alpha, weights.alpha), (self.beta, weights.beta))
            ]
        )
        return Root(
            energy, None if self.target is None else penalised, float(pairs.residual_norms[k]), deviation,
            bool(pairs.converged[k]) and not another, spin_square, spin_pure, *sector, occupied, weights, layout,
            pairs.vectors[k],
        )  # fmt: skip


def _agree_on_arguments(
    ranks: Ranks, hamiltonian: Hamiltonian, strings: tuple[Any, Any], options: SolveOptions, memory: int
) -> int:
    """Check the arguments on all ranks and compare them between ranks, in one reduction.

    Returns:
        the smallest memory of any rank, bytes.

    Raises:
        InputError: the same on all ranks.
    """
    trouble = None
    try:
        for each, n_electrons, spin in zip(strings, hamiltonian.nelec, ("alpha", "beta"), strict=True):
            bitstrings.check(each, hamiltonian.norb, n_electrons, spin)
    except InputError as error:
        trouble = str(error)
    texts = [hamiltonian.fingerprint().encode(), *(np.ascontiguousarray(each).tobytes() for each in strings)]
    # A path may be given relative to different working directories; what the file holds is compared by its checksum.
    texts.append(repr(sorted(options.replace(start=None, trace=None).to_dict().items())).encode())
    hashes = np.frombuffer(b"".join(hashlib.sha256(text).digest()[:8] for text in texts), np.int64)
    limits = np.iinfo(np.int64)
    hashes = np.clip(hashes, limits.min + 1, limits.max)  # so that the negative exists
    mine = np.concatenate([hashes, -hashes, [-memory, trouble is not None]]).astype(np.int64)
    most = ranks.maximum(mine)
    if most[-1]:
        ranks.agree_on_error(trouble)
    names = ("Hamiltonian", "alpha strings", "beta strings", "options")
    unlike = [name for name, high, low in zip(names, most[:4], -most[4:8], strict=True) if high != low]
    if unlike:
        raise InputError(f"all ranks need the same arguments; they have different {' and '.join(unlike)}")
    return -int(most[8])


def _name(sector: Sector) -> str:
    label, parity = sector
    return f"sector {label}" + (f", parity {parity:+d}" if parity else "")


__all__ = ["Progress", "Root", "SubspaceResult", "carry_over", "peak_rss_bytes", "solve_subspace"]
