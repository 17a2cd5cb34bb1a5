"""`SubspaceSolver`, what PySCF calls an `fcisolver`: from PySCF's arguments and attributes to options of a solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pyscf import lib
from pyscf.fci.addons import SpinPenaltyFCISolver
from pyscf.mcscf.addons import StateAverageFCISolver, StateSpecificFCISolver

from sqd_mpi.adapters.pyscf import callers, irreps
from sqd_mpi.adapters.pyscf.guesses import start_vectors
from sqd_mpi.adapters.pyscf.interface import FCIInterface
from sqd_mpi.adapters.pyscf.irreps import Irrep
from sqd_mpi.adapters.pyscf.session import Handle, Reference, current, lack_of_memory
from sqd_mpi.adapters.pyscf.settings import Settings, check_options
from sqd_mpi.adapters.pyscf.space import RequestedSpace, Rule, make_space
from sqd_mpi.adapters.pyscf.vectors import SubspaceArray, SubspaceVector, why_no_array
from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions, fewest_krylov_vectors
from sqd_mpi.solver.result import Root, SubspaceResult

# Determinants up to which vectors are arrays.
ARRAY_LIMIT = 1_000_000
# Residual norms that an approximate solve inside an orbital step is content with lie below this.
_LOOSEST_TOLERANCE = 1e-4
# States among which those of one irrep are looked for: this many, or this many for each one that is wanted.
_MOST_STATES, _MOST_STATES_PER_ROOT = 64, 16
# Sectors that a space can have at most: 32 labels, two parities.
_MOST_SECTORS = 64
# Classes around a solver, which need as many roots as they ask for and pass its own attribute wfnsym.
_PASS_THE_ATTRIBUTE = (StateAverageFCISolver, StateSpecificFCISolver)
# How far <S^2> may be from what was asked for.
_SPIN_TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Wishes:
    """What a call asks for beyond the attributes; None stands for these."""

    residual: float
    ci0: Any = None
    nroots: int | None = None
    max_cycle: int | None = None
    max_space: int | None = None
    pspace_size: int | None = None
    davidson_only: bool | None = None
    orbsym: Any = None
    wfnsym: Any = None


class SubspaceSolver(Settings, FCIInterface):
    """Lowest eigenpairs in a product of strings, with the methods that PySCF expects of an `fcisolver`.

    Attributes:
        strings: which strings span the space: "all"; a pair (alpha, beta) of arrays, (n, nwords) uint64 or (n,)
            integers for up to 64 orbitals; or a function (norb, nelec, h1e, eri) -> (alpha, beta) that is called in
            every solve, eri as (npair, npair).
        tol: residual norm at which a root is converged, hartree. `conv_tol` is its square, as PySCF's solvers have it.
        nroots: number of roots where PySCF does not say.
        options: further options of `SolveOptions` by name. `max_cycle`, `max_space`, `pspace_size`, `threads` and
            `max_memory` (MB) are PySCF's names for max_iterations, max_subspace, model_space, threads and memory.
        log: where the iterations of solves are reported; by default nowhere.
        array_limit: number of determinants up to which the vectors of a space of all strings are arrays.
        spin: n_alpha - n_beta where PySCF gives the number of electrons only, or None for the least.
        wfnsym: irrep of the states, number or name; None for the lowest states of all. What PySCF's CASCI and CASSCF
            guess in molecules with symmetry is not taken for a wish.
        orbsym: irreps of the orbitals, which PySCF sets.
        davidson_only: whether start vectors are used in small spaces as well, which are solved exactly without.
        converged: whether the last solve converged; a list for several roots.
        eci, ci: energies and vectors of the last solve.
        result: of the last solve on this rank: iterations, timings and symmetry, see `SubspaceResult`; with a wanted
            irrep its roots are more than those returned.

    Raises:
        InputError: strings or options do not fit.
    """

    _keys = {"strings", "tol", "options", "log", "array_limit", "result"}

    def __init__(
        self,
        strings: str | tuple[ArrayLike, ArrayLike] | Rule = "all",
        *,
        tol: float = 1e-6,
        nroots: int = 1,
        mol: Any = None,
        log: Log | None = None,
        array_limit: int = ARRAY_LIMIT,
        **options: Any,
    ):
        # What is asked for.
        check_options(options)
        if not isinstance(array_limit, int) or array_limit < 0:
            raise InputError(f"array_limit is a number of determinants; got {array_limit!r}")
        SolveOptions(tol=tol, nroots=nroots, **options)
        self.strings = strings
        self.tol, self.nroots, self.options, self.log = tol, nroots, options, log
        self.array_limit = array_limit

        # What PySCF's procedures read and set.
        self.mol = mol
        self.stdout = getattr(mol, "stdout", lib.StreamObject.stdout)
        self.verbose = getattr(mol, "verbose", lib.logger.NOTE)
        self.spin: int | None = None
        self._wfnsym: Any = None
        self._wfnsym_is_guess = False
        self._has_warned: set[str] = set()
        self.orbsym: Any = None
        self.davidson_only = False

        # The last solve.
        self.converged: bool | list[bool] = False
        self.result: SubspaceResult | None = None
        self.norb: int | None = None
        self.nelec: tuple[int, int] | None = None
        self.eci: Any = None
        self.ci: Any = None
        self._session = current()
        self._handle: Handle | None = None
        self._n_searched: dict[int, int] = {}

    @property
    def wfnsym(self) -> Any:
        """Irrep of the states, or PySCF's guess of it, which is no wish."""
        if "wfnsym" in self.__dict__:  # put there before PySCF's classes for averages were mixed with this one
            self.wfnsym = self.__dict__.pop("wfnsym")
        return self._wfnsym

    @wfnsym.setter
    def wfnsym(self, wanted: Any) -> None:
        self._wfnsym = wanted
        self._wfnsym_is_guess = callers.guesses_irreps()

    def kernel(
        self, h1e: ArrayLike, eri: ArrayLike, norb: int, nelec: int | tuple[int, int], ci0: Any = None,
        tol: float | None = None, lindep: float | None = None, max_cycle: int | None = None,
        max_space: int | None = None, nroots: int | None = None, davidson_only: bool | None = None,
        pspace_size: int | None = None, orbsym: Any = None, wfnsym: Any = None, ecore: float = 0.0, **others: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Lowest eigenpairs: (energy, vector), or (energies, list of vectors) for several roots.

        Args:
            h1e: (norb, norb), or those of alpha and beta, (2, norb, norb); hartree.
            eri: with 8- or 4-fold symmetry or none, as PySCF gives them; a triple for two spins; hartree.
            nelec: (n_alpha, n_beta) or their sum.
            ci0: start: vectors of an earlier solve, arrays (n_alpha, n_beta) in canonical order, a function that
                returns them, True or False (what CASSCF says after small and larger steps of the orbitals) for those of
                the last solve, None to start anew. Small spaces are solved without.
            tol: change of the energy that PySCF is content with; the residual norm goes down to sqrt(tol) if that is
                below the solver's own tolerance.
            max_cycle, max_space, nroots, davidson_only, pspace_size, orbsym, wfnsym: as the attributes.
            ecore: added to the energies, hartree.
            others: `verbose`, the logger for warnings; `max_memory` and `link_index` concern PySCF only.

        Raises:
            InputError: an argument does not fit or has no counterpart.
            RunError: no state of the irrep is among the lowest ones.
        """
        log = lib.logger.new_logger(self, others.pop("verbose", None))
        self._check_arguments({"lindep": lindep, **others})
        if self.verbose >= lib.logger.WARN:
            self.check_sanity()
        residual = self.tol if tol is None else min(self.tol, float(np.sqrt(tol)))
        wishes = _Wishes(residual, ci0, nroots, max_cycle, max_space, pspace_size, davidson_only, orbsym, wfnsym)
        space = self._space(h1e, eri, norb, nelec, ecore)
        found = self._solve(space, wishes, log)
        self._warn(space, wishes, log)
        return found

    def approx_kernel(
        self, h1e: ArrayLike, eri: ArrayLike, norb: int, nelec: int | tuple[int, int], ci0: Any = None,
        tol: float | None = None, max_cycle: int | None = None, nroots: int | None = None, orbsym: Any = None,
        wfnsym: Any = None, ecore: float = 0.0, **others: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        """As `kernel`, as precise as a step of the orbitals needs it; PySCF calls it between orbital steps."""
        log = lib.logger.new_logger(self, others.pop("verbose", None))
        self._check_arguments(others)
        wanted = self.tol if tol is None else 0.1 * float(np.sqrt(tol))
        residual = min(max(wanted, self.tol), max(_LOOSEST_TOLERANCE, self.tol))
        start = True if ci0 is None else ci0
        wishes = _Wishes(residual, start, nroots, max_cycle, orbsym=orbsym, wfnsym=wfnsym)
        return self._solve(self._space(h1e, eri, norb, nelec, ecore), wishes, log)

    def dump_flags(self, verbose: int | None = None) -> SubspaceSolver:
        """Write the settings to PySCF's log."""
        log = lib.logger.new_logger(self, verbose)
        kind = self.strings if isinstance(self.strings, str) else type(self.strings).__name__
        log.info("******** %s ********", type(self).__name__)
        log.info("strings = %s, tol = %g, nroots = %d, options = %s", kind, self.tol, self.nroots, self.options)
        log.info("wfnsym = %s, spin = %s, array_limit = %d", self.wfnsym, self.spin, self.array_limit)
        return self

    def reset(self, mol: Any = None) -> SubspaceSolver:
        """Forget the last solve and the irreps of its orbitals, for a new geometry."""
        self.mol = mol if mol is not None else self.mol
        self.orbsym = self.result = self.ci = self.eci = self._handle = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("stdout", "log", "result", "_session", "_handle")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.stdout = lib.StreamObject.stdout
        self.log = self.result = self._handle = None
        self._session = current()

    def _space(self, h1e: Any, eri: Any, norb: int, nelec: Any, ecore: float) -> RequestedSpace:
        """The space of a solve, unless a caller needs more than its vectors offer."""
        labelled = self._option("symmetry") != "off"
        space = make_space(self.strings, h1e, eri, norb, nelec, self.spin, ecore, labelled)
        mc = callers.active_space()
        if self.mol is None:
            self.mol = getattr(mc, "mol", None)
        if not self._gives_arrays(space):
            what = callers.needs_arrays()
            if what is not None:
                raise InputError(why_no_array(what, space.n_determinants, space.complete, self.array_limit))
            missing = lack_of_memory(space.n_determinants, 1) if getattr(mc, "chk_ci", False) else None
            if missing is not None:
                raise InputError(f"chk_ci: {missing}")
        if not space.complete and callers.needs_natural_orbitals():
            raise InputError(why_no_array("natorb", 0, False, self.array_limit))
        return space

    def _gives_arrays(self, space: RequestedSpace) -> bool:
        return space.complete and space.n_determinants <= self.array_limit

    def _solve(self, space: RequestedSpace, wishes: _Wishes, log: Any) -> tuple[Any, Any]:
        """Solve and hand out what PySCF gets."""
        irrep = self._irrep(space, wishes)
        wanted = wishes.nroots or self.nroots
        count = self._count(space.n_determinants if irrep is None else irrep.n_determinants, wanted, log)
        options = self._options(space, wishes, count)
        start, exact_dimension = self._useful_start(space, wishes, options)
        if irrep is None:
            handle, result = self._call(space, options, start, exact_dimension, log)
            chosen: Sequence[int] = range(count)
        else:
            handle, result, chosen = self._search(space, options, start, exact_dimension, irrep, count, log)
        roots = [result.roots[k] for k in chosen]
        vectors = self._vectors(space, handle, chosen, roots)
        self._handle, self.result = handle, result
        self.norb, self.nelec = space.hamiltonian.norb, space.hamiltonian.nelec
        several = wanted > 1
        self.converged = [root.converged for root in roots] if several else roots[0].converged
        energies = np.array([root.energy for root in roots])
        self.eci = energies if several else energies[0]  # a number of numpy, as PySCF expects
        self.ci = vectors if several else vectors[0]
        return self.eci, self.ci

    def _count(self, n_there: int, wanted: int, log: Any) -> int:
        """As many roots as are wanted, or as there are, with a warning as long as the caller can do with fewer."""
        if wanted <= n_there:
            return wanted
        sentence = f"{wanted} roots are wanted; this space has {n_there}"
        if any(callers.is_called_by(kind) for kind in _PASS_THE_ATTRIBUTE):
            raise InputError(sentence)
        log.warn("%s", sentence)
        return n_there

    def _options(self, space: RequestedSpace, wishes: _Wishes, count: int) -> dict[str, Any]:
        """Options of the solve."""
        options = {**self.options, "tol": wishes.residual, "nroots": count, **self._spin_options(space)}
        if wishes.max_cycle is not None:
            options["max_iterations"] = max(wishes.max_cycle, 1)
        if wishes.pspace_size is not None:
            options["model_space"] = max(wishes.pspace_size, 1)
        if wishes.max_space is not None:
            options["max_subspace"] = wishes.max_space
        if options.get("max_subspace") is not None:
            options["max_subspace"] = max(options["max_subspace"], fewest_krylov_vectors(count))
        return options

    def _spin_options(self, space: RequestedSpace) -> dict[str, float]:
        """The spin that PySCF's `fix_spin` asks for.

        In a space of all strings the states that are wanted do not depend on the penalty, and the solver chooses one
        that suffices. In a part of it they do.
        """
        if not isinstance(self, SpinPenaltyFCISolver) or self.ss_penalty == 0:
            return {}
        if self.ss_penalty < 0:
            raise InputError(f"fix_spin needs a positive shift; got {self.ss_penalty}")
        lowest = abs(space.hamiltonian.nelec[0] - space.hamiltonian.nelec[1]) / 2
        wanted = lowest * (lowest + 1) if self.ss_value is None else float(self.ss_value)
        given = self.options.get("spin_square")
        if given is not None and abs(given - wanted) > _SPIN_TOLERANCE:
            raise InputError(f"fix_spin asks for <S^2> = {wanted:g}, the option spin_square for {given:g}")
        found = {"spin_square": wanted}
        if not space.complete and "spin_penalty" not in self.options:
            found["spin_penalty"] = float(self.ss_penalty)
        return found

    def _useful_start(
        self, space: RequestedSpace, wishes: _Wishes, options: dict[str, Any]
    ) -> tuple[list[Reference | FloatArray], int]:
        """Start vectors, and up to which dimension sectors are solved exactly by their model space and need none."""
        must_fit = not callable(self.strings)
        start = start_vectors(wishes.ci0, self.ci, space, self._session, must_fit)
        iterates = wishes.davidson_only
        if iterates is None:  # PySCF's fix_spin sets the attribute, for reasons of its own
            iterates = self.davidson_only and not isinstance(self, SpinPenaltyFCISolver)
        exact_dimension = 0 if iterates else int(options.get("model_space", self._option("model_space")))
        if not start or _largest_sector(space, exact_dimension) <= exact_dimension:
            return [], exact_dimension
        return start, exact_dimension

    def _call(
        self, space: RequestedSpace, options: dict[str, Any], start: list[Reference | FloatArray], exact_dimension: int,
        log: Any,
    ) -> tuple[Handle, SubspaceResult]:  # fmt: skip
        """One solve on all ranks."""
        handle = Handle(self._session)
        result, left_out = self._session.call(
            "solve", handle.number, space.hamiltonian, *space.strings, SolveOptions(**options), start, exact_dimension,
            log=self.log,
        )  # fmt: skip
        if left_out:
            log.warn("the start is not used: its strings or symmetry labels differ, and it is too large to be moved")
        return handle, result

    def _irrep(self, space: RequestedSpace, wishes: _Wishes) -> Irrep | None:
        """The irrep that is wanted, or None for any.

        Raises:
            InputError: it cannot be told from others, or no determinant has it.
        """
        wanted = self.wfnsym
        if self._wfnsym_is_guess:
            wanted = None
        if wishes.wfnsym is not None and not any(callers.is_called_by(kind) for kind in _PASS_THE_ATTRIBUTE):
            wanted = wishes.wfnsym
        orbsym = self.orbsym if wishes.orbsym is None else wishes.orbsym
        number = irreps.irrep_id(wanted, getattr(self.mol, "groupname", None))
        return None if number is None else Irrep.create(number, wanted, orbsym, space, self.mol)

    def _search(
        self, space: RequestedSpace, options: dict[str, Any], start: list[Reference | FloatArray], exact_dimension: int,
        irrep: Irrep, count: int, log: Any,
    ) -> tuple[Handle, SubspaceResult, list[int]]:  # fmt: skip
        """The lowest roots of one irrep, by solving for more and more roots of all."""
        most = min(self._n_states(space, options), max(_MOST_STATES, _MOST_STATES_PER_ROOT * count))
        n_roots = min(max(count, self._n_searched.get(irrep.number, 0)), max(most, count))
        while True:
            options["nroots"] = n_roots
            if options.get("max_subspace") is not None:
                options["max_subspace"] = max(options["max_subspace"], 2 * n_roots)
            handle, result = self._call(space, options, start, exact_dimension, log)
            chosen = self._of_irrep(space, handle, result, irrep, log)[:count]
            if len(chosen) == count:
                self._n_searched[irrep.number] = chosen[-1] + 1
                return handle, result, chosen
            if n_roots >= most:
                raise RunError(
                    f"{len(chosen)} of {count} states with wfnsym = {irrep.name} are among the lowest {n_roots} states"
                )
            start = [(handle.number, k) for k in range(n_roots)]
            n_roots = min(2 * n_roots + 2, most)

    def _n_states(self, space: RequestedSpace, options: dict[str, Any]) -> int:
        """Number of states among which the solver can look: with a wanted spin, those of its parity."""
        alpha, beta = space.strings
        if options.get("spin_square") is None or not np.array_equal(alpha, beta):
            return space.n_determinants
        even = space.hamiltonian.spin_of(options["spin_square"]) % 2 == 0
        return (space.n_determinants + (len(alpha) if even else -len(alpha))) // 2

    def _of_irrep(
        self, space: RequestedSpace, handle: Handle, result: SubspaceResult, irrep: Irrep, log: Any
    ) -> list[int]:
        """Numbers of the roots that have an irrep."""
        found = [k for k, root in enumerate(result.roots) if irrep.in_sector(root.sector)]
        if not irrep.linear:
            return found
        if irrep.orbsym is None or not self._gives_arrays(space):
            if "linear" not in self._has_warned:
                log.warn("irreps of this linear molecule are told apart as those of D2h only")
            self._has_warned.add("linear")
            return found
        return [k for k in found if irrep.is_exact(self._session.call("gather", (handle.number, k)))]

    def _vectors(self, space: RequestedSpace, handle: Handle, chosen: Sequence[int], roots: list[Root]) -> list[Any]:
        """What PySCF gets: arrays of a small space of all strings, else objects that name distributed vectors."""
        if self._gives_arrays(space):
            return [
                SubspaceArray.create(self._session.call("gather", (handle.number, k)), root, space.strings)
                for k, root in zip(chosen, roots, strict=True)
            ]
        hamiltonian = space.hamiltonian
        return [
            SubspaceVector(handle, k, root, space.strings, hamiltonian.norb, hamiltonian.nelec)
            for k, root in zip(chosen, roots, strict=True)
        ]

    def _warn(self, space: RequestedSpace, wishes: _Wishes, log: Any) -> None:
        """Say through PySCF's logger what the states lack."""
        vectors = self.ci if isinstance(self.ci, list) else [self.ci]
        open_roots = [k for k, each in enumerate(vectors) if not each.converged]
        if open_roots:
            largest = max(vectors[k].residual_norm for k in open_roots)
            log.warn("roots %s are not converged: residual norm %.2g", open_roots, largest)
        assert self.result is not None
        if not self.result.proven and not open_roots:
            log.warn("it is not proven that no lower state lies in another symmetry sector; max_cycle is too small")
        wanted = {**self.options, **self._spin_options(space)}.get("spin_square")
        squares = [each.spin_square for each in vectors]
        if wanted is not None and any(each is None or abs(each - wanted) > _SPIN_TOLERANCE for each in squares):
            log.warn("<S^2> is %s, not %g as wanted", squares, wanted)
        orbsym = self.orbsym if wishes.orbsym is None else wishes.orbsym
        if orbsym is not None and "irreps" not in self._has_warned and not space.hamiltonian.spin_dependent:
            self._warn_of_irreps(space, wishes, orbsym, log)

    def _warn_of_irreps(self, space: RequestedSpace, wishes: _Wishes, orbsym: Any, log: Any) -> None:
        """Say once where PySCF's solver would have looked for states of another irrep."""
        if self._irrep(space, wishes) is not None:
            return
        assert self.result is not None
        of_sector = irreps.irreps_of_sectors(self.result.symmetry, orbsym, sum(space.hamiltonian.nelec))
        guess = self._wfnsym if self._wfnsym_is_guess else irreps.high_spin_irrep(orbsym, space.hamiltonian.nelec)
        if of_sector is None or all(of_sector[root.sector] == guess % 10 for root in self.result.roots):
            return
        self._has_warned.add("irreps")
        log.warn(
            "these are the lowest states of all irreps, D2h numbers %s; set fcisolver.wfnsym for those of one, such as "
            "%d, PySCF's guess", sorted({int(of_sector[root.sector]) for root in self.result.roots}), guess,
        )  # fmt: skip


def _largest_sector(space: RequestedSpace, limit: int) -> int:
    """Dimension of the largest sector of the solve, or the number of determinants where that exceeds the limit by far.

    Exchange of spins halves sectors where both spins have the same strings.
    """
    if space.n_determinants > _MOST_SECTORS * max(limit, 1):
        return space.n_determinants
    largest = int(space.sector_sizes.max())
    alpha, beta = space.strings
    same = np.array_equal(alpha, beta) and not space.hamiltonian.spin_dependent
    return (largest + len(alpha)) // 2 if same else largest
