"""PySCF client: `SubspaceSolver` as `fcisolver` of CASCI and CASSCF, in one process or driven by rank 0 of many.

    def calculation():
        mc = mcscf.CASSCF(mean_field, 8, 10)
        mc.fcisolver = SubspaceSolver(strings=(alpha, beta))
        return mc.kernel()[0]

    energy = drive(calculation)

Under mpirun `drive` runs the function on rank 0 alone, so that PySCF's integrals and orbitals exist once, while the
other ranks wait for solves and density matrices to take part in. Vectors stay distributed; PySCF hands small objects
around that name them.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import sleep
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyscf import lib
from pyscf.fci import cistring
from pyscf.fci.direct_spin1 import _unpack_nelec

from sqd_mpi import bitstrings, density_matrices, grid, threads
from sqd_mpi.backends import FloatArray, get_density_backend
from sqd_mpi.density_matrices import DensityMatrices
from sqd_mpi.hamiltonian import Hamiltonian
from sqd_mpi.layout import Layout
from sqd_mpi.log import Log
from sqd_mpi.options import InputError, SolveOptions
from sqd_mpi.solve import Root, SubspaceResult, solve_subspace

T = TypeVar("T")
Strings = tuple[NDArray[np.uint64], NDArray[np.uint64]]
Rule = Callable[[int, tuple[int, int], FloatArray, FloatArray], tuple[ArrayLike, ArrayLike]]

# How long a waiting rank sleeps between looks, so that it takes no core from PySCF on rank 0; seconds.
_NAP = 5e-4
# Vectors up to this many bytes are put together to start a solve whose layout differs from theirs.
_SMALL_VECTOR_BYTES = 100_000_000
_SMALL_SPACE = 100_000  # determinants
# Residual norms that an approximate solve inside an orbital step is content with lie below this.
_LOOSEST_TOLERANCE = 1e-4
# Determinants of the model space of a solve that has start vectors.
_MODEL_SPACE_BESIDE_START = 60


class SubspaceVector:
    """One eigenvector, which lives on all ranks; what PySCF hands around as `ci`.

    Attributes:
        energy: hartree, core included.
        spin_square: <S^2>.
        residual_norm: hartree.
        converged: whether the residual norm reached the tolerance.
        strings: (alpha, beta), (n, nwords) uint64 in canonical order.
        shape: (n_alpha, n_beta) of the whole vector.
    """

    def __init__(self, handle: _Handle, number: int, root: Root, strings: Strings):
        self._handle = handle
        self._number = number
        self._matrices: DensityMatrices | None = None
        assert root.spin_square is not None  # the adapter has spin-free integrals only
        self.energy, self.spin_square = root.energy, root.spin_square
        self.residual_norm, self.converged = root.residual_norm, root.converged
        self.strings = strings
        self.shape = len(strings[0]), len(strings[1])

    def gather(self) -> FloatArray:
        """The whole vector (n_alpha, n_beta) in canonical order; takes 8 n_alpha n_beta bytes on every rank."""
        found: FloatArray = self._handle.session.call("gather", self._reference)
        return found

    def density_matrices(self, order: int) -> DensityMatrices:
        """Its density matrices; kept, so that asking again costs nothing."""
        if self._matrices is None or (order == 2 and self._matrices.two_ab is None):
            self._matrices = self._handle.session.call("matrices", self._reference, self._reference, order)
        return self._matrices

    def transition_to(self, ket: SubspaceVector, order: int) -> DensityMatrices:
        """Density matrices <self|...|ket>."""
        found: DensityMatrices = self._handle.session.call("matrices", self._reference, ket._reference, order)
        return found

    @property
    def _reference(self) -> tuple[int, int]:
        return self._handle.number, self._number

    def __repr__(self) -> str:
        return f"SubspaceVector(shape={self.shape}, energy={self.energy:.10f})"


class SubspaceSolver(lib.StreamObject):
    """Lowest eigenpairs in a product of strings, with the methods that PySCF expects of an `fcisolver`.

    Attributes:
        strings: which strings span the space: "all"; a pair (alpha, beta) of arrays, (n, nwords) uint64 or (n,)
            integers for up to 64 orbitals; or a function (norb, nelec, h1e, eri) -> (alpha, beta) that is called in
            every solve, eri as (npair, npair).
        tol: residual norm at which a root is converged, hartree.
        nroots: number of roots where PySCF does not say.
        options: further options of `SolveOptions` by name.
        log: where the iterations of solves are reported; by default nowhere.
        spin: n_alpha - n_beta where PySCF gives the number of electrons only, or None for the least.
        wfnsym, orbsym: set by PySCF, not used: the lowest states of the whole space are found.
        converged: whether the last solve converged; a list for several roots.
        result: of the last solve on this rank: iterations, timings and symmetry, see `SubspaceResult`.

    Raises:
        InputError: strings or options do not fit.
    """

    _keys = {"strings", "tol", "nroots", "options", "log", "spin", "wfnsym", "orbsym", "converged", "result", "mol"}

    def __init__(
        self,
        strings: str | tuple[ArrayLike, ArrayLike] | Rule = "all",
        *,
        tol: float = 1e-6,
        nroots: int = 1,
        mol: Any = None,
        log: Log | None = None,
        **options: Any,
    ):
        SolveOptions(tol=tol, nroots=nroots, **options)
        self.strings = strings
        self.tol, self.nroots, self.options, self.log = tol, nroots, options, log
        self.mol = mol
        self.stdout, self.verbose = getattr(mol, "stdout", lib.StreamObject.stdout), getattr(mol, "verbose", 0)
        self.spin: int | None = None
        self.wfnsym: Any = None
        self.orbsym: Any = None
        self.converged: bool | list[bool] = False
        self.result: SubspaceResult | None = None
        self._session = _current()
        self._last: list[SubspaceVector] = []

    def kernel(
        self, h1e: ArrayLike, eri: ArrayLike, norb: int, nelec: int | tuple[int, int], ci0: Any = None,
        tol: float | None = None, nroots: int | None = None, ecore: float = 0.0, max_cycle: int | None = None,
        **ignored: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Lowest eigenpairs: (energy, vector), or (energies, list of vectors) for several roots.

        Args:
            h1e: (norb, norb); eri: with 8- or 4-fold symmetry or none, as PySCF gives them; both in hartree.
            nelec: (n_alpha, n_beta) or their sum.
            ci0: start: vectors of an earlier solve, arrays (n_alpha, n_beta) in canonical order, True or False (what
                CASSCF says after small and larger steps of the orbitals) for those of the last solve, None to start
                anew.
            tol: change of the energy that PySCF is content with; the residual norm goes down to sqrt(tol) if that is
                below the solver's own tolerance.
            nroots: number of roots.
            ecore: added to the energies, hartree.
            max_cycle: largest number of iterations.
            ignored: other arguments of PySCF's solvers.
        """
        residual = self.tol if tol is None else min(self.tol, float(np.sqrt(tol)))
        return self._solve(h1e, eri, norb, nelec, ci0, residual, nroots, ecore, max_cycle)

    def approx_kernel(
        self, h1e: ArrayLike, eri: ArrayLike, norb: int, nelec: int | tuple[int, int], ci0: Any = None,
        tol: float | None = None, nroots: int | None = None, ecore: float = 0.0, **ignored: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        """As `kernel`, as precise as a step of the orbitals needs it; PySCF calls it between orbital steps."""
        wanted = self.tol if tol is None else 0.1 * float(np.sqrt(tol))
        residual = min(max(wanted, self.tol), max(_LOOSEST_TOLERANCE, self.tol))
        return self._solve(h1e, eri, norb, nelec, True if ci0 is None else ci0, residual, nroots, ecore, None)

    def make_rdm1s(self, ci: SubspaceVector, *_: Any, **ignored: Any) -> tuple[FloatArray, FloatArray]:
        """(alpha, beta) one-particle density matrices, (norb, norb) each, [p, q] = <q+ p>."""
        found = ci.density_matrices(1)
        return found.alpha, found.beta

    def make_rdm1(self, ci: SubspaceVector, *_: Any, **ignored: Any) -> FloatArray:
        """(norb, norb) one-particle density matrix summed over spin."""
        return ci.density_matrices(1).rdm1

    def make_rdm12s(self, ci: SubspaceVector, *_: Any, **ignored: Any) -> tuple[Any, Any]:
        """(alpha, beta) one-particle and (aa, ab, bb) two-particle matrices, [p, q, r, s] = <p+ r+ s q>."""
        found = ci.density_matrices(2)
        return (found.alpha, found.beta), (found.two_aa, found.two_ab, found.two_bb)

    def make_rdm12(self, ci: SubspaceVector, *_: Any, **ignored: Any) -> tuple[FloatArray, FloatArray]:
        """One- and two-particle density matrices summed over spin."""
        found = ci.density_matrices(2)
        return found.rdm1, found.rdm2

    def make_rdm2(self, ci: SubspaceVector, *_: Any, **ignored: Any) -> FloatArray:
        """Two-particle density matrix summed over spin."""
        return ci.density_matrices(2).rdm2

    def trans_rdm1s(
        self, bra: SubspaceVector, ket: SubspaceVector, *_: Any, **ignored: Any
    ) -> tuple[FloatArray, FloatArray]:
        """(alpha, beta) transition density matrices, [p, q] = <bra|q+ p|ket>."""
        found = bra.transition_to(ket, 1)
        return found.alpha, found.beta

    def trans_rdm1(self, bra: SubspaceVector, ket: SubspaceVector, *_: Any, **ignored: Any) -> FloatArray:
        """Transition density matrix summed over spin."""
        return bra.transition_to(ket, 1).rdm1

    def trans_rdm12s(self, bra: SubspaceVector, ket: SubspaceVector, *_: Any, **ignored: Any) -> tuple[Any, Any]:
        """(alpha, beta) and (aa, ab, ba, bb) transition density matrices."""
        found = bra.transition_to(ket, 2)
        return (found.alpha, found.beta), (found.two_aa, found.two_ab, found.two_ba, found.two_bb)

    def trans_rdm12(
        self, bra: SubspaceVector, ket: SubspaceVector, *_: Any, **ignored: Any
    ) -> tuple[FloatArray, FloatArray]:
        """One- and two-particle transition density matrices summed over spin."""
        found = bra.transition_to(ket, 2)
        return found.rdm1, found.rdm2

    def spin_square(self, ci: SubspaceVector, *_: Any, **ignored: Any) -> tuple[float, float]:
        """(<S^2>, 2 S + 1)."""
        return ci.spin_square, float(np.sqrt(max(4.0 * ci.spin_square + 1.0, 0.0)))

    def dump_flags(self, verbose: int | None = None) -> SubspaceSolver:
        """Write the settings to PySCF's log."""
        log = lib.logger.new_logger(self, verbose)
        kind = self.strings if isinstance(self.strings, str) else type(self.strings).__name__
        log.info("******** %s ********", type(self).__name__)
        log.info("strings = %s, tol = %g, nroots = %d, options = %s", kind, self.tol, self.nroots, self.options)
        return self

    def reset(self, mol: Any = None) -> SubspaceSolver:
        """Forget the last solve, for a new geometry."""
        self.mol = mol if mol is not None else self.mol
        self.orbsym = self.wfnsym = self.result = None
        self._last = []
        return self

    def _solve(
        self, h1e: ArrayLike, eri: ArrayLike, norb: int, nelec: int | tuple[int, int], ci0: Any, residual: float,
        nroots: int | None, ecore: float, max_cycle: int | None,
    ) -> tuple[Any, Any]:  # fmt: skip
        pair = tuple(int(n) for n in _unpack_nelec(nelec, self.spin))
        h1e, eri = _symmetric(np.asarray(h1e)), _eight_fold(np.asarray(eri), norb)
        hamiltonian = Hamiltonian.from_arrays(h1e, eri, float(ecore), (pair[0], pair[1]))
        strings = self._choose_strings(norb, hamiltonian.nelec, h1e, eri)
        count = nroots or self.nroots
        options = {**self.options, "tol": residual, "nroots": count}
        if max_cycle is not None:
            options["max_iterations"] = max(max_cycle, 1)
        handle = _Handle(self._session)
        start = self._start(ci0)
        if start:
            options.setdefault("model_space", _MODEL_SPACE_BESIDE_START)
        self.result = self._session.call(
            "solve", handle.number, hamiltonian, *strings, SolveOptions(**options), start, log=self.log
        )
        vectors = [SubspaceVector(handle, k, root, strings) for k, root in enumerate(self.result.roots)]
        self._last = vectors
        converged = [root.converged for root in self.result.roots]
        self.converged = converged if count > 1 else converged[0]
        return (self.result.energies, vectors) if count > 1 else (vectors[0].energy, vectors[0])

    def _choose_strings(self, norb: int, nelec: tuple[int, int], h1e: FloatArray, eri: FloatArray) -> Strings:
        chosen: Any = self.strings
        if chosen is None or (isinstance(chosen, str) and chosen == "all"):
            chosen = tuple(cistring.make_strings(range(norb), n) for n in nelec)
        elif callable(chosen):
            chosen = chosen(norb, nelec, h1e, eri)
        if isinstance(chosen, str) or len(chosen) != 2:
            raise InputError(f'strings are "all", a pair (alpha, beta) or a function that returns one; got {chosen!r}')
        alpha, beta = (bitstrings.canonical(_as_strings(each, norb))[0] for each in chosen)
        return alpha, beta

    def _start(self, ci0: Any) -> list[Any]:
        """What the start vectors are, as every rank can understand it: references to vectors, or arrays."""
        given = ci0 if isinstance(ci0, list | tuple) else [ci0]
        if any(isinstance(each, bool) for each in given):
            given = self._last
        known = [each for each in given if isinstance(each, SubspaceVector | np.ndarray)]
        sources: list[Any] = []
        for each in known:
            if isinstance(each, SubspaceVector):
                sources.append(each._reference if each._handle.session is self._session else each.gather())
            else:
                sources.append(np.asarray(each, np.float64))
        return sources


def drive(main: Callable[[], T], comm: Any = None) -> T | None:
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
    communicator = comm if comm is not None else grid.world()
    if communicator is None or communicator.size == 1:
        return main()
    threads.set_up(communicator)
    before, _session = _session, _Session(communicator)
    try:
        if communicator.rank == 0:
            result = main()
            _session.call("stop")
            return result
        _session.serve()
    except BaseException:
        traceback.print_exc()
        grid.abort(1)
        raise
    finally:
        _session = before
    return None


class _Handle:
    """Names one solve; when the last vector of it is forgotten, all ranks forget it at their next common step."""

    def __init__(self, session: _Session):
        self.session = session
        session.n_solves += 1
        self.number = session.n_solves
        weakref.finalize(self, session.forgotten.append, self.number)


class _Session:
    """The results of solves that this process takes part in, and the commands by which rank 0 leads the others."""

    def __init__(self, comm: Any):
        self.comm = comm
        self.n_solves = 0
        self.results: dict[int, SubspaceResult] = {}
        self.forgotten: list[int] = []

    def call(self, command: str, *arguments: Any, log: Log | None = None) -> Any:
        """Do something on all ranks; called on rank 0 alone. Returns what it gives on rank 0."""
        forgotten = self.forgotten[:]
        del self.forgotten[: len(forgotten)]
        if self.comm is not None:
            self.comm.Ibarrier().Wait()
            grid.broadcast(self.comm, (command, forgotten, arguments))
        return self._do(command, forgotten, arguments, log)

    def serve(self) -> None:
        """Take part in what rank 0 does, until it stops."""
        while True:
            request = self.comm.Ibarrier()
            while not request.Test():
                sleep(_NAP)
            command, forgotten, arguments = grid.broadcast(self.comm, None)
            try:
                self._do(command, forgotten, arguments, None)
            except InputError:
                continue  # raised alike on all ranks; rank 0 reports it
            if command == "stop":
                return

    def _do(self, command: str, forgotten: Sequence[int], arguments: Sequence[Any], log: Log | None) -> Any:
        for number in forgotten:
            result = self.results.pop(number, None)
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
        start: list[Any], log: Log | None,
    ) -> SubspaceResult:  # fmt: skip
        found = [self._start_vector(source, (strings_a, strings_b)) for source in start]
        vectors = [each for each in found if each is not None]
        with _threads_for(len(strings_a) * len(strings_b)):
            self.results[number] = solve_subspace(
                self.comm, hamiltonian, strings_a, strings_b, options, log=log,
                start_vectors=_StartVectors(vectors) if vectors else None,
            )  # fmt: skip
        return self.results[number]

    def _start_vector(self, source: Any, wanted: Strings) -> tuple[SubspaceResult, int] | FloatArray | None:
        """A start vector that fits the strings of the new solve, or None."""
        if isinstance(source, np.ndarray):
            if source.shape != (len(wanted[0]), len(wanted[1])):
                raise InputError(f"ci0 is an array {(len(wanted[0]), len(wanted[1]))}; got {source.shape}")
            return source
        number, root = source
        layout = self.results[number].roots[root].layout
        for spin, strings in zip((layout.alpha, layout.beta), wanted, strict=True):
            if spin.size != len(strings) or not np.array_equal(spin.strings, strings[spin.canonical]):
                return None
        return self.results[number], root

    def _gather(self, reference: tuple[int, int]) -> FloatArray:
        number, root = reference
        return self.results[number].gather(root)

    def _matrices(self, bra: tuple[int, int], ket: tuple[int, int], order: int) -> DensityMatrices | None:
        result = self.results[bra[0]]
        roots = [self.results[number].roots[root] for number, root in (bra, ket)]
        if not _congruent(roots[0].layout, roots[1].layout):
            raise InputError("transition density matrices need two vectors on the same strings and symmetry labels")
        labels = result.symmetry.labels
        density_matrices.check_memory(self.comm, len(labels), order, symmetric=bra == ket)
        backend = get_density_backend(result.backend)
        with _threads_for(roots[0].layout.alpha.size * roots[0].layout.beta.size):
            sums = density_matrices.accumulate(result.grid, roots[0], roots[1], order, labels, backend)
        leads = self.comm is None or self.comm.rank == 0
        return density_matrices.unpack(sums) if leads else None


class _StartVectors:
    """Start vectors for `solve_subspace`: vectors of earlier solves on the same strings, or whole arrays."""

    def __init__(self, vectors: list[tuple[SubspaceResult, int] | FloatArray]):
        self._vectors = vectors
        self.nroots = len(vectors)

    def fill(self, process_grid: grid.ProcessGrid, layout: Layout, root: int, out: FloatArray) -> None:
        """This rank's slice of one vector, as far as it lies in the layout's sector."""
        source = self._vectors[root]
        out[:] = 0.0
        if isinstance(source, tuple):
            result, number = source
            old = result.roots[number]
            if _congruent(old.layout, layout):
                if (old.sector, old.parity) == (layout.sector, layout.parity):
                    out[:] = old.vector
                return
            if 8 * layout.alpha.size * layout.beta.size > _SMALL_VECTOR_BYTES:
                return
            source = self._vectors[root] = result.gather(number)
        _take_slice(process_grid, layout, source, out)


@contextmanager
def _threads_for(n_determinants: int) -> Iterator[None]:
    """One thread for small spaces, where starting several costs more than they save; CASSCF makes many small solves."""
    before = numba.get_num_threads()
    if n_determinants < _SMALL_SPACE:
        numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _take_slice(process_grid: grid.ProcessGrid, layout: Layout, whole: FloatArray, out: FloatArray) -> None:
    """The slice of a whole vector in canonical order that this rank owns."""
    here = process_grid.coordinates
    where = layout.geometry(here.ia, here.ib, here.it, here.ir)
    rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
    alpha, beta = layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]
    out[:] = whole[alpha, beta]
    if layout.parity:
        line = out[where.diagonal].copy()
        out[:] = np.sqrt(0.5) * (out + layout.parity * whole[beta, alpha])
        out[where.diagonal] = line


def _congruent(first: Layout, second: Layout) -> bool:
    """Whether two layouts own the same strings in the same order everywhere; sectors and parities may differ."""
    return first.grid == second.grid and all(
        np.array_equal(one, other)
        for one, other in (
            (first.alpha.strings, second.alpha.strings),
            (first.beta.strings, second.beta.strings),
            (first.alpha.label_start, second.alpha.label_start),
            (first.beta.label_start, second.beta.label_start),
            (first.alpha.weight, second.alpha.weight),
            (first.beta.weight, second.beta.weight),
            (first.alpha_bounds, second.alpha_bounds),
            (first.beta_bounds, second.beta_bounds),
        )
    )


def _as_strings(strings: ArrayLike, norb: int) -> NDArray[np.uint64]:
    """(n, nwords) uint64 from that or from (n,) integers."""
    array = np.asarray(strings)
    if array.ndim == 2:
        return np.ascontiguousarray(array, np.uint64)
    return bitstrings.from_integers([int(each) for each in array], norb)


def _symmetric(matrix: FloatArray) -> FloatArray:
    """The symmetric part: effective integrals of PySCF are symmetric up to the rounding of their contractions."""
    return 0.5 * (matrix + matrix.T)


def _eight_fold(eri: FloatArray, norb: int) -> FloatArray:
    """(npair, npair) symmetric matrix from integrals in any of PySCF's forms."""
    n_pair = norb * (norb + 1) // 2
    if eri.size == norb**4 and norb > 1:
        eri = eri.reshape(norb, norb, norb, norb)
        eri = 0.5 * (eri + eri.transpose(1, 0, 2, 3))
        eri = 0.5 * (eri + eri.transpose(0, 1, 3, 2))
        rows, columns = np.tril_indices(norb)
        eri = eri[rows, columns][:, rows, columns]
    elif eri.size == n_pair * (n_pair + 1) // 2:
        eri = lib.unpack_tril(eri.ravel())
    return _symmetric(eri.reshape(n_pair, n_pair))


_alone = _Session(None)
_session: _Session | None = None


def _current() -> _Session:
    """The session that a new solver belongs to: that of `drive`, or this process alone."""
    return _alone if _session is None else _session
