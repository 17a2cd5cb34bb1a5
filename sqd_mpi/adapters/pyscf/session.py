"""The ranks that solve together: rank 0 leads them by commands, and every rank keeps its part of the vectors."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np
import threadpoolctl

from sqd_mpi.adapters.pyscf.start import SMALL_VECTOR_BYTES, Source, StartVectors, StringPair, congruent, placed
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends import get_density_backend
from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.ranks import Ranks, ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.resources import available_memory
from sqd_mpi.solver import density_matrices, startup
from sqd_mpi.solver.density_matrices import DensityMatrices
from sqd_mpi.solver.result import SubspaceResult
from sqd_mpi.solver.solve import solve_subspace

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks

T = TypeVar("T")
Reference = tuple[int, int]

# How long a waiting rank sleeps between looks, so that it takes no core from PySCF on rank 0; seconds.
_NAP = 5e-4
_SMALL_SPACE = 100_000  # determinants
# Largest share of the available memory that a whole vector may take.
_MEMORY_SHARE = 0.8


def drive(main: Callable[[], T], comm: SomeRanks = None) -> T | None:
    """Run a function on rank 0 while all other ranks take part in the solves that it starts.

    Collective over the communicator: all ranks call it with the same function. Solvers made inside the function use all
    ranks. An error in the function ends the job.

    Args:
        main: takes no arguments; may make any number of `SubspaceSolver`.
        comm: communicator, by default all ranks of the job.

    Returns:
        what the function returns, on rank 0; None on the others.
    """
    global _session
    ranks = ranks_of(comm if comm is not None else mpi.world())
    if ranks.size == 1:
        return main()
    startup.start(ranks, kernels=startup.Kernels())
    before, _session = _session, Session(ranks)
    try:
        if ranks.rank == 0:
            result = main()
            _session.call("stop")
            return result
        _session.serve()
    except BaseException:
        traceback.print_exc()
        mpi.abort(1)
        raise
    finally:
        _session = before
    return None


class Handle:
    """Names one solve; when the last vector of it is forgotten, all ranks forget it at their next common step."""

    def __init__(self, session: Session):
        self.session = session
        session.n_solves += 1
        self.number = session.n_solves
        weakref.finalize(self, session.forgotten.append, self.number)


class Session:
    """The results of solves that this process takes part in, and the commands by which rank 0 leads the others."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self.n_solves = 0
        self.results: dict[int, SubspaceResult] = {}
        self._threads: dict[int, Any] = {}
        self.forgotten: list[int] = []

    def call(self, command: str, *arguments: Any, log: Log | None = None) -> Any:
        """Do something on all ranks; called on rank 0 alone. Returns what it gives on rank 0."""
        forgotten = self.forgotten[:]
        del self.forgotten[: len(forgotten)]
        self.ranks.meet(0.0)
        self.ranks.broadcast((command, forgotten, arguments))
        return self._do(command, forgotten, arguments, log)

    def serve(self) -> None:
        """Take part in what rank 0 does, until it stops."""
        while True:
            self.ranks.meet(_NAP)
            command, forgotten, arguments = self.ranks.broadcast(None)
            try:
                self._do(command, forgotten, arguments, None)
            except InputError:
                continue  # raised alike on all ranks; rank 0 reports it
            if command == "stop":
                return

    def _do(self, command: str, forgotten: Sequence[int], arguments: Sequence[Any], log: Log | None) -> Any:
        for number in forgotten:
            result = self.results.pop(number, None)
            self._threads.pop(number, None)
            if result is not None:
                result.grid.free()
        if command == "stop":
            for result in self.results.values():
                result.grid.free()
            self.results.clear()
            return None
        return getattr(self, f"_{command}")(*arguments, **({"log": log} if command == "solve" else {}))

    def _solve(
        self, number: int, hamiltonian: Hamiltonian, strings_a: Any, strings_b: Any, options: SolveOptions,
        start: list[Reference | FloatArray], exact_dimension: int, log: Log | None,
    ) -> tuple[SubspaceResult, int]:  # fmt: skip
        found = [self._start_vector(source, (strings_a, strings_b)) for source in start]
        vectors = [each for each in found if each is not None]
        starts = StartVectors(vectors, exact_dimension) if vectors else None
        self._threads[number] = options.threads
        with _threads_for(len(strings_a) * len(strings_b), options.threads):
            self.results[number] = solve_subspace(
                self.ranks, hamiltonian, strings_a, strings_b, options, log=log, start_vectors=starts
            )
        return self.results[number], len(start) - len(vectors) + (starts.left_out if starts is not None else 0)

    def _start_vector(self, source: Reference | FloatArray, wanted: StringPair) -> Source | None:
        """A start vector on the strings of the new solve, or None where that needs too large an array."""
        if isinstance(source, np.ndarray):
            return source
        number, root = source
        layout = self.results[number].roots[root].layout
        spins = layout.alpha, layout.beta
        given = tuple(spin.strings[np.argsort(spin.canonical)] for spin in spins)
        if all(np.array_equal(one, other) for one, other in zip(given, wanted, strict=True)):
            return self.results[number], root
        if 8 * max(len(given[0]) * len(given[1]), len(wanted[0]) * len(wanted[1])) > SMALL_VECTOR_BYTES:
            return None
        return placed(self.results[number].gather(root), (given[0], given[1]), wanted)

    def _gather(self, reference: Reference) -> FloatArray:
        number, root = reference
        layout = self.results[number].roots[root].layout
        message = lack_of_memory(layout.alpha.size * layout.beta.size, self.ranks.local()[1])
        self.ranks.agree_on_error(message)
        return self.results[number].gather(root)

    def _large(self, reference: Reference, threshold: float) -> tuple[FloatArray, Any, Any]:
        """Values and positions (canonical order) of coefficients above a threshold, or of the largest one."""
        number, root = reference
        result = self.results[number]
        chosen = result.roots[root]
        where = chosen.layout.geometry(*result.grid.coordinates)
        values, parity = np.array(chosen.vector), chosen.layout.parity
        if parity:  # each pair of mirror images is stored once, with the norm of both
            line = values[where.diagonal].copy()
            values *= np.sqrt(0.5)
            values[where.diagonal] = line
        mine = np.flatnonzero(np.abs(values) > threshold)
        if not len(mine) and len(values):
            mine = np.array([np.argmax(np.abs(values))])
        rows, columns = where.locate(mine)
        alpha = chosen.layout.alpha.canonical[where.alpha[rows]]
        beta = chosen.layout.beta.canonical[where.beta[columns]]
        parts = [np.stack([values[mine], alpha, beta])]
        if parity:
            mirrored = alpha != beta
            parts.append(np.stack([parity * values[mine], beta, alpha])[:, mirrored])
        found = np.concatenate(self.ranks.gather_objects(np.concatenate(parts, axis=1)), axis=1)
        above = np.abs(found[0]) > threshold
        found = found[:, above] if above.any() else found[:, [np.argmax(np.abs(found[0]))]]
        found = found[:, np.lexsort((found[2], found[1]))]
        return found[0], found[1].astype(np.int64), found[2].astype(np.int64)

    def _matrices(self, bra: Reference, ket: Reference, order: int) -> DensityMatrices | None:
        result = self.results[bra[0]]
        roots = [self.results[number].roots[root] for number, root in (bra, ket)]
        if not congruent(roots[0].layout, roots[1].layout):
            raise InputError("transition density matrices need two vectors on the same strings and symmetry labels")
        labels = result.symmetry.both
        density_matrices.check_memory(self.ranks, labels.shape[1], order, symmetric=bra == ket)
        backend = get_density_backend(result.backend)
        with _threads_for(roots[0].layout.alpha.size * roots[0].layout.beta.size, self._threads[bra[0]]):
            sums = density_matrices.accumulate(result.grid, roots[0], roots[1], order, labels, backend)
        return density_matrices.unpack(sums) if self.ranks.rank == 0 else None


def lack_of_memory(n_determinants: int, n_local: int) -> str | None:
    """A sentence if this node cannot hold a whole vector for each of its ranks, or None."""
    needed = 2 * 8 * n_determinants  # a mirrored vector is added to its transposed
    allowed = _MEMORY_SHARE * available_memory() / n_local
    if needed <= allowed:
        return None
    return f"a whole vector needs {needed / 2**30:.3g} GiB on every rank; {allowed / 2**30:.3g} GiB are left"


@cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


@contextmanager
def _threads_for(n_determinants: int, wanted: Any = "auto") -> Iterator[None]:
    """The threads that are wanted; "auto" is one for small spaces, for which starting several costs more than it saves.

    CASSCF makes many small solves. BLAS sees the small matrices of model spaces only, and its threads hinder ours.
    """
    before = numba.get_num_threads()
    if wanted != "auto":
        numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))
    elif n_determinants < _SMALL_SPACE:
        numba.set_num_threads(1)
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before)


_alone = Session(Ranks())
_session: Session | None = None


def current() -> Session:
    """The session that a new solver belongs to: that of `drive`, or this process alone."""
    return _alone if _session is None else _session
