"""The main job: lowest eigenpairs of a Hamiltonian in the product of given alpha and beta strings, on all ranks of a
communicator.

What fits where is decided in `fitting`, which sector comes next in `sectors`, and what is reported made in `result`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi import _jit
from sqd_mpi.arrays import FloatArray, Strings
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import Ranks, ranks_of
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.space import Space
from sqd_mpi.problem.symmetry import OrbitalLabels
from sqd_mpi.resources import available_memory
from sqd_mpi.solver.davidson import Eigenpairs, Step, davidson
from sqd_mpi.solver.fitting import Call, fit
from sqd_mpi.solver.history import History
from sqd_mpi.solver.observables import parity_of
from sqd_mpi.solver.operators import Operators
from sqd_mpi.solver.restart import Restart
from sqd_mpi.solver.result import Found, Root, SubspaceResult, lowest_roots
from sqd_mpi.solver.sector_search import SAME_ENERGY, SHARP, SectorSearch
from sqd_mpi.solver.sectors import HOW_DECIDED, Aim, Decision, ModelShare, Outlook, Sector, SectorTask, Verdict
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.solver.start_vectors import StartVectors
from sqd_mpi.timing import Timers

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks

_SURE_PARITY = 0.9  # a vector of smaller parity is taken for a mixture of both


@dataclass(frozen=True, eq=False)
class Progress:
    """Given to the caller's hook once an iteration, on all ranks."""

    step: Step
    """State of the eigensolver."""
    iteration: int
    """Counted over all sectors, those before a restart included."""
    layout: Layout
    """Of the sector being solved."""
    finished: list[tuple[Layout, FloatArray, FloatArray, FloatArray]]
    """Eigenpairs of sectors that are done: (layout, vectors, energies, residual norms)."""
    grid: ProcessGrid
    """The process grid."""
    symmetry: OrbitalLabels
    """Orbital labels."""
    state: Callable[[], dict[str, Any]]
    """Call it to get what a later run needs beside the vectors to go on from here."""


Hook = Callable[[Progress], bool]


def solve_subspace(
    comm: SomeRanks,
    hamiltonian: Hamiltonian,
    strings_a: Strings,
    strings_b: Strings,
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
        strings_a: (n, n_words) uint64, alpha; any order, duplicates are merged.
        strings_b: the same for beta.
        options: see `SolveOptions`.
        log: where progress goes; by default nowhere.
        hook: called once an iteration with the state; returns True to stop (it must agree on all ranks).
        timers: collects seconds per phase.
        start_vectors: start vectors in memory, with `nroots` and `fill(grid, layout, root, out)` like
            `files.distributed.StoredVectors`, or an open reader of a file that was verified; they go before those of
            the option `start`.

    Returns:
        the result; a solve that does not converge is a result with `converged` False.

    Raises:
        InputError: strings or options do not fit, or arguments differ between the ranks; the same on all ranks.
        RunError: a vector holds a value that is not finite, the same on all ranks; or this rank's memory, or that of
            its device, does not suffice.
    """
    options, log, timers = options or SolveOptions(), log or Log.silent(), timers or Timers()
    try:
        with _jit.taking(options.threads):
            history = History(options.tol, options.max_iterations, log)
            call = _agree(ranks_of(comm), hamiltonian, (strings_a, strings_b), options, log, timers)
            operators = Operators(fit(call))
            target = operators.frame.sought.target
            history.penalised = target is not None and target.strength > 0.0
            restart = Restart.open(operators.frame, start_vectors)
            return _Solve(operators, restart, history, hook).run()
    except MemoryError as error:
        raise RunError(
            f"too little memory: {error}; more ranks, fewer Krylov vectors (--max-subspace) or another grid need less"
        ) from error


class _Solve:
    """The loop over sectors of one solve."""

    def __init__(self, operators: Operators, restart: Restart, history: History, hook: Hook | None) -> None:
        self.operators, self.restart, self.history, self.hook = operators, restart, history, hook
        self.call = operators.frame.call
        self.stopped = False
        self.found: dict[Sector, Found] = {}
        self.usage = _Usage()

    def run(self) -> SubspaceResult:
        """Solve every sector that may hold one of the wanted roots."""
        # What the model spaces promise decides where the search begins; a checkpoint, how far it has come.
        self.models = self.operators.models()
        self.frame = self.operators.frame
        outlooks = {
            sector: Outlook(model.energies, model.edge, self.frame.sought.n_states[sector], model.n_independent)
            for sector, model in self.models.items()
        }
        self.search = SectorSearch(outlooks, self.call.options.nroots)
        for sector, pairs, known in self.restart.known(self.history, list(self.models)):
            if pairs is not None:
                self._take(sector, Found(pairs, self._wanted_roots(sector, pairs.vectors)))
            self.search.restore(sector, known)

        if self.frame.single is not None:
            self.call.log.info("single precision until it no longer serves: till then energies are right to about 1e-7")
        while not self.stopped and (task := self.search.next()) is not None:
            self._solve_sector(task)
        return self._result()

    def _solve_sector(self, task: SectorTask, lock: bool = True) -> None:
        """Follow the lowest roots of one sector as far as the task asks, and note what that shows.

        Args:
            task: what the sector is solved for.
            lock: whether roots that are known are left as they are.
        """
        frame, options, search, sector = self.frame, self.call.options, self.search, task.sector
        bound = search.bound

        # The operator, and as many basis vectors as fit beside it and the roots that are known.
        operator = self.operators.hamiltonian(sector)
        known = self.found[sector].pairs if lock and self._is_converged(sector) else None
        n_locked = 0 if known is None else len(known.energies)
        n_basis = self._basis_size(operator, task.count - n_locked, n_locked)
        start = self._start_vectors(task, operator, n_locked, stored=lock)

        # Iterations, until the roots are converged or enough is known of the sector.
        watch = _Watch(self, task, start, known)
        pairs = davidson(
            operator, start.fill, nroots=task.count - n_locked, tol=options.tol, max_iterations=options.max_iterations,
            max_subspace=n_basis, callback=watch.step, locked=None if known is None else known.vectors, stir=watch.stir,
        )  # fmt: skip
        self.restart.used = self.restart.used or bool(start.stored_numbers)
        self.history.n_sigma += pairs.n_sigma
        self.history.n_single += pairs.n_sigma - pairs.n_exact
        self.usage.task_seconds += operator.task_seconds
        self.call.log.close()
        operator.plan.free()

        # What that shows of this and the other sectors.
        if self.stopped and task.aim is not Aim.ROOTS:
            return
        together = pairs if known is None else pairs.behind(known)
        share = ModelShare(*self.models[sector].shares(frame.grid, together.vectors))
        wanted = self._wanted_roots(sector, together.vectors)
        if not search.note(task, watch.verdict, together, share, wanted):
            return
        order = np.argsort(together.energies, kind="stable")
        self.found[sector] = Found(together.taken(order), wanted[order])
        if np.isfinite(bound):
            self.call.log.info(f"also solved: {sector}, energy {together.energies[-1]:.10f}")
        if known is not None and not self.stopped and _disturb_each_other(known, pairs, options.tol):
            self._solve_sector(SectorTask(sector, task.count, Aim.ROOTS), lock=False)

    def _is_converged(self, sector: Sector) -> bool:
        """Whether roots of a sector are known, all of them converged."""
        return sector in self.found and bool(self.found[sector].pairs.converged.all())

    def _basis_size(self, operator: SigmaOperator, count: int, n_locked: int) -> int:
        """How many basis vectors there are for some roots of a sector beside locked ones; noted with all others.

        Collective over the grid.
        """
        frame, structure_bytes = self.frame, self.operators.structure_bytes
        n_known = sum(len(each.pairs.energies) for each in self.found.values())
        wanted = frame.basis_for(operator.layout, count, n_known)
        n_basis = frame.basis_that_fits(operator, structure_bytes, wanted, 2 * count, n_locked)

        # Vectors of roots are kept in host memory; on a device there are copies of those that are locked.
        kept = 8 * operator.size * n_locked
        if not frame.engine.has_device:
            kept = sum(each.pairs.vectors.nbytes for each in self.found.values())
        own = 8 * operator.size * (2 * n_basis + 1 + frame.n_extra_vectors)
        self.usage.count(operator, structure_bytes, own + kept)
        return n_basis

    def finished_but(self, sector: Sector) -> list[tuple[Layout, FloatArray, FloatArray, FloatArray]]:
        """What is known of the other sectors, as in `Progress.finished`."""
        return [
            (self.frame.layout(other), each.pairs.vectors, each.pairs.energies, each.pairs.residual_norms)
            for other, each in self.found.items()
            if other != sector
        ]

    def _take(self, sector: Sector, found: Found) -> None:
        """Take up the roots of a sector that an earlier run has found."""
        self.found[sector] = found
        share = ModelShare(*self.models[sector].shares(self.frame.grid, found.pairs.vectors))
        self.search.found(sector, found.pairs.energies, share, found.wanted)

    def _start_vectors(self, task: SectorTask, operator: SigmaOperator, n_locked: int, stored: bool) -> StartVectors:
        """What a task starts from: known roots unless they are locked, stored vectors if they are wanted, and more."""
        frame, sector, model, restart = self.frame, task.sector, self.models[task.sector], self.restart
        memory = frame.engine.memory
        start = StartVectors(
            frame.grid, frame.layout(sector), model, memory, task, memory.to_host(operator.diagonal()),
            min(self.search.bound, float(model.energies[0])), operator.purify, n_locked,
        )  # fmt: skip
        if sector in self.found and not n_locked:
            start.add_known(self.found[sector].pairs.vectors)
        if stored and restart.stored is not None:
            # The first stored vectors of a sector are those of roots that are known by now.
            n_skipped = max(n_locked, restart.n_restored.get(sector, 0))
            start.add_stored(restart.stored, n_skipped, sector == restart.guarded)
        return start

    def _wanted_roots(self, sector: Sector, vectors: FloatArray) -> NDArray[np.bool_]:
        """Which eigenvectors have the parity of the wanted spin, where sectors do not keep parities apart."""
        layout = self.frame.layout(sector)
        if not self.frame.sought.parity or layout.parity:
            return np.ones(len(vectors), bool)
        parities = np.array([parity_of(self.frame.grid, layout, vector) for vector in vectors])
        return self.frame.sought.parity * parities > -_SURE_PARITY

    def state(self, task: SectorTask, step: Step) -> dict[str, Any]:
        """What a later run needs beside the vectors to go on from here."""
        history, restart = self.history.state(self.call.options.nroots, step), self.restart.state(task, self.search)
        others = [s.twice_spin for s, each in self.found.items() if s != task.sector for _ in each.pairs.energies]
        return {**history, **restart, "twice_spins": [task.sector.twice_spin] * len(step.energies) + others}

    def _result(self) -> SubspaceResult:
        """What is returned, and what is said of it. Collective over the grid."""
        frame, history, ranks = self.frame, self.history, self.call.ranks
        decisions = self.search.decisions()
        timings = ranks.minimum_mean_maximum(self.call.timers.seconds)
        task_seconds = ranks.minimum_mean_maximum({"tasks": self.usage.task_seconds})["tasks"]
        self.usage.agree(frame.grid)
        solve_seconds = history.seconds
        roots = lowest_roots(self.operators, self.found)
        if not self.stopped:
            self._tell(decisions, roots)
        if frame.space.hamiltonian.spin_dependent and frame.space.hamiltonian.overlap_ab is None:
            self.call.log.warning(
                "<S^2> is not known: spin-dependent integrals came without the overlap of the orbitals"
            )
        return SubspaceResult(
            roots, self.stopped, frame.grid, frame.space.labels, frame.sought.target, history.n_iterations,
            history.n_sigma, history.n_single, decisions, history.arrays(self.call.options.nroots), timings,
            frame.engine.name, frame.engine.memory.device, _jit.n_threads(), frame.max_subspace, solve_seconds,
            timings.get("sigma", (0.0, 0.0, 0.0))[2] / max(history.n_sigma_here, 1), self.usage.memory,
            self.usage.messages, task_seconds, frame,
        )  # fmt: skip

    def _tell(self, decisions: dict[Sector, Decision], roots: list[Root]) -> None:
        """Say how the sectors without wanted roots were left out, and which may still hold one."""
        log, options = self.call.log, self.call.options
        if self.restart.unused_file is not None:
            log.warning(f"the vectors of {self.restart.unused_file} have no part in the sectors of the roots; not used")
        counts = {how: [d.how for d in decisions.values() if d.n_found == 0].count(how) for how in HOW_DECIDED}
        told = [f"{count} by {HOW_DECIDED[how]}" for how, count in counts.items() if count and how in HOW_DECIDED]
        if told:
            total = sum(counts.values())
            log.info(f"{total} other symmetry sectors lie above: {', '.join(told)}")

        # Where a root that is reported has not converged that is said of the root.
        open_roots = {
            Sector(root.sector, root.parity, root.twice_spin) for root in roots if root.residual_norm > options.tol
        }
        unknown = [str(s) for s, decision in decisions.items() if not decision.proven and s not in open_roots]
        if unknown:
            log.warning(
                f"not proven: a lower state may lie in {', '.join(unknown)}, where {options.max_iterations} "
                "iterations (--max-iterations) did not decide"
            )
        if self.frame.sought.target is not None:
            target = self.frame.sought.target
            for k, complaint in enumerate(target.complaint(root.spin_square, root.spin_variance) for root in roots):
                if complaint is not None:
                    log.warning(f"root {k} has {complaint}")


def _disturb_each_other(known: Eigenpairs, new: Eigenpairs, tol: float) -> bool:
    """Whether roots that were converged one after the other are to be looked at together.

    Beside locked vectors a residual may stay too large; and what those hold of a root that lies close is not rounding.
    """
    if np.any(new.residual_norms > tol):
        return bool(new.converged.all())
    couplings = np.minimum(known.residual_norms[:, None], new.residual_norms[None, :])  # at most
    return bool(np.any(couplings**2 > SAME_ENERGY * abs(known.energies[:, None] - new.energies[None, :])))


class _Watch:
    """What the eigensolver asks at every step of a task, on all ranks.

    Args:
        solve: the solve.
        task: what a sector is solved for.
        start: what the iterations start from.
        known: roots of the sector that are left as they are, or None.
    """

    def __init__(self, solve: _Solve, task: SectorTask, start: StartVectors, known: Eigenpairs | None) -> None:
        self.verdict = Verdict.OPEN
        """What the last step says of the sector."""
        self._solve, self._task, self._start, self._known = solve, task, start, known
        self._finished = solve.finished_but(task.sector)
        self._slow = False

    def step(self, step: Step) -> bool:
        """Take a step in; whether iterations end here."""
        solve, task, search = self._solve, self._task, self._solve.search
        step = step if self._known is None else step.behind(self._known)
        solve.history.record(task.sector, step, shown=task.aim is Aim.ROOTS, tol=search.tolerance(task))
        self.verdict = search.judge(task, step, self._start.share)
        if step.iteration == 1 and task.aim is Aim.ROOTS and self._known is None:
            solve.restart.compare(self._start.stored_numbers, step)
            if self._start.stored_numbers and task.sector in solve.restart.stirred:
                search.stirred(task.sector)
        self._slow = search.to_stir(task, step)
        if solve.hook is not None:
            n, frame, state = solve.history.n_iterations, solve.frame, partial(solve.state, task, step)
            layout, labels = frame.layout(task.sector), frame.space.labels
            solve.stopped = solve.hook(Progress(step, n, layout, self._finished, frame.grid, labels, state))
        return solve.stopped or self.verdict is not Verdict.OPEN

    def stir(self, rows: Any, scratch: Any) -> float:
        """See `davidson`."""
        if self._slow:
            self._start.stir(rows, scratch)
            self._solve.search.stirred(self._task.sector)
            if self._solve.call.options.tol > SHARP:
                self._solve.call.log.info(
                    f"slow iterations: they go on to a residual of {SHARP:g}, lest a lower state stays hidden"
                )
        return self._solve.search.tolerance(self._task)


class _Usage:
    """The most that any sector took on this rank; after `agree` on any rank."""

    def __init__(self) -> None:
        self.memory = {"vectors": 0, "buffers": 0, "structure": 0}
        self.messages = {"bytes": 0, "ket_blocks": 0}
        self.task_seconds = 0.0

    def count(self, operator: SigmaOperator, structure_bytes: int, vector_bytes: int) -> None:
        """Note what an operator and all vectors take."""
        plan = operator.plan
        for found, name, value in (
            (self.memory, "vectors", vector_bytes),
            (self.memory, "buffers", plan.buffer_bytes),
            (self.memory, "structure", structure_bytes),
            (self.messages, "bytes", plan.message_bytes),
            (self.messages, "ket_blocks", plan.exchange.n_received),
        ):
            found[name] = max(found[name], int(value))

    def agree(self, grid: ProcessGrid) -> None:
        """Take the most of all ranks. Collective over the grid."""
        most = np.array([*self.memory.values(), *self.messages.values()], np.int64)
        grid.maximum_over_all(most)
        self.memory = dict(zip(self.memory, map(int, most), strict=False))
        self.messages = dict(zip(self.messages, map(int, most[len(self.memory) :]), strict=True))


def _agree(
    ranks: Ranks, hamiltonian: Hamiltonian, strings: tuple[Strings, Strings], options: SolveOptions, log: Log,
    timers: Timers,
) -> Call:  # fmt: skip
    """Check the arguments on all ranks and compare them between ranks, in one reduction; then sort the strings.

    Raises:
        InputError: the same on all ranks.
    """
    local_rank, n_local = ranks.local()
    memory = options.memory or int(available_memory() / n_local)
    trouble = None
    try:
        for each, n_electrons, spin in zip(strings, hamiltonian.nelec, ("alpha", "beta"), strict=True):
            bitstrings.check(each, hamiltonian.norb, n_electrons, spin)
    except InputError as error:
        trouble = str(error)

    # The largest and the smallest of every checksum are the same if all are.
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

    with timers("symmetry"):
        space = Space.create(hamiltonian, *strings, symmetry=options.symmetry != "off")
    return Call(ranks, space, options, log, timers, -int(most[8]), local_rank, n_local)
