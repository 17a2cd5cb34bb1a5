"""Functions with the names, arguments and results of qiskit-addon-sqd 0.14 that solve with sqd_mpi.

    from sqd_mpi.adapters.qiskit import solve_fermion, solve_sci, solve_sci_batch

in place of the same names of `qiskit_addon_sqd.fermion`. Under mpirun all ranks must call them with the same
arguments; the whole result is then on rank 0, as `diagonalize_fermionic_hamiltonian` expects of its `sci_solver`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from qiskit_addon_sqd.fermion import SCIResult, SCIState, bitstring_matrix_to_ci_strs
    from qiskit_addon_sqd.processes import is_mpi_execution
except ImportError as error:
    raise ImportError(f"{error}; install it with: pip install 'sqd_mpi[qiskit]'") from error

from sqd_mpi import _jit
from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.loop.batches import BatchResult, WorkerPool, solve_batches
from sqd_mpi.options import SolveOptions, fewest_krylov_vectors
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver import startup

IntegerStrings = NDArray[Any]
Occupancies = tuple[NDArray[np.float64], NDArray[np.float64]]

# Arguments of PySCF's kernel_fixed_space that say nothing about the result here.
_WITHOUT_EFFECT = {
    "verbose", "lindep", "max_memory", "davidson_only", "pspace_size", "ecore", "link_index", "hop", "ci0",
}  # fmt: skip
# PySCF converges the energy; a residual norm of the square root of its tolerance does the same, and never less than our
# own default.
_LOOSEST_TOLERANCE = 1e-6
_SAME_SPIN = 0.1  # of <S^2>; sampled spaces rarely have states of pure spin
# Default strength of the penalty on other spins of PySCF's fix_spin_ and of qiskit-addon-sqd, hartree.
_SHIFT = 0.1


def solve_sci(
    ci_strings: tuple[IntegerStrings, IntegerStrings],
    one_body_tensor: NDArray[np.float64],
    two_body_tensor: NDArray[np.float64],
    norb: int,
    nelec: tuple[int, int],
    *,
    spin_sq: float | None = None,
    rdm: int = 1,
    amplitudes: bool = True,
    **kwargs: Any,
) -> SCIResult:
    """Lowest state in the space of all pairs of the given strings; see `solve_sci_batch` for the arguments.

    Raises:
        InputError: strings, integrals or options do not fit.
        RuntimeError: the solve failed otherwise.
    """
    found = _solve(
        [ci_strings], one_body_tensor, two_body_tensor, norb, nelec, spin_sq, _SHIFT, rdm, amplitudes, {"workers": 0},
        kwargs,
    )[0]  # fmt: skip
    _warn(found, spin_sq)
    return _result(_whole(found), nelec)


def solve_sci_batch(
    ci_strings: list[tuple[IntegerStrings, IntegerStrings]],
    one_body_tensor: NDArray[np.float64],
    two_body_tensor: NDArray[np.float64],
    norb: int,
    nelec: tuple[int, int],
    *,
    spin_sq: float | None = None,
    rdm: int = 1,
    amplitudes: bool = True,
    workers: int | WorkerPool | None = 0,
    timeout: float | None = None,
    retries: int = 0,
    **kwargs: Any,
) -> list[SCIResult]:
    """Lowest states in several subspaces; usable as `sci_solver` of `diagonalize_fermionic_hamiltonian`.

    Collective over all ranks if the program runs under mpirun: groups of ranks then take the batches.

    Args:
        ci_strings: (alpha, beta) integer strings of every subspace.
        one_body_tensor: (norb, norb), hartree.
        two_body_tensor: (norb, norb, norb, norb) in chemists' notation, hartree.
        norb: number of orbitals.
        nelec: (n_alpha, n_beta).
        spin_sq: S(S+1) of the wanted state; None for any. The operator is then that of PySCF's `fix_spin_`, H +
            0.1 (S^2 - spin_sq), squared where spin_sq is not the least possible; `spin_penalty` gives another factor
            than 0.1, or "auto" for a factor that this solver chooses. Where both spins have the same strings, only
            states of the spin's parity (even or odd S) are taken.
        rdm: order of the density matrices in the results: 0 for none, 1, or 2 for both.
        amplitudes: False leaves the eigenvectors where they are: `sci_state` is then None, and the results bring the
            strings to carry over instead.
        workers: number of worker processes without mpirun, each isolated from the others; 0 solves one after another
            in this process; None takes one per core. A `WorkerPool` of the same Hamiltonian stays for further calls.
        timeout: seconds after which a subspace has failed.
        retries: how often a failed subspace is tried again.
        kwargs: tol, tol_residual, max_cycle and max_space as for PySCF's `kernel_fixed_space`, or options of
            `sqd_mpi.SolveOptions`.

    Returns:
        one result per subspace in order; those that failed are left out with a warning.

    Raises:
        InputError: integrals or options do not fit.
        RuntimeError: every subspace failed.
    """
    place: dict[str, Any] = {"pool": workers} if isinstance(workers, WorkerPool) else {"workers": workers}
    place |= {"timeout": timeout, "retries": retries}
    found = _solve(
        ci_strings, one_body_tensor, two_body_tensor, norb, nelec, spin_sq, _SHIFT, rdm, amplitudes, place, kwargs
    )
    whole = [result for result in found if result.failure is None]
    for result in found:
        if result.failure is not None:
            warnings.warn(f"subspace {result.number} failed and is left out: {result.failure}", stacklevel=2)
        _warn(result, spin_sq)
    if found and not whole:
        _whole(found[0])
    return [_result(result, nelec) for result in whole]


def solve_fermion(
    bitstring_matrix: tuple[ArrayLike, ArrayLike] | NDArray[np.bool_],
    /,
    hcore: NDArray[np.float64],
    eri: NDArray[np.float64],
    *,
    open_shell: bool = False,
    spin_sq: float | None = None,
    shift: float = _SHIFT,
    **kwargs: Any,
) -> tuple[float, SCIState, Occupancies, float]:
    """Lowest state of the electronic Hamiltonian in the space that bit-strings span.

    Args:
        bitstring_matrix: (n, 2 norb) bits, beta on the left; or (alpha, beta) integer strings.
        hcore: (norb, norb), hartree.
        eri: (norb, norb, norb, norb) in chemists' notation, hartree.
        open_shell: whether alpha and beta strings are kept apart; otherwise both spins get those of both. Does not
            apply to integer strings.
        spin_sq: S(S+1) of the wanted state; None for any.
        shift: strength of the penalty on other spins, hartree; 0 for none.
        kwargs: as for `solve_sci_batch`.

    Returns:
        energy in hartree, state, (alpha, beta) occupancies, <S^2>.

    Raises:
        InputError: strings, integrals or options do not fit.
        RuntimeError: the solve failed otherwise.
    """
    if isinstance(bitstring_matrix, tuple):
        strings = bitstring_matrix
    else:
        strings = bitstring_matrix_to_ci_strs(bitstring_matrix, open_shell=open_shell)
    norb = np.shape(hcore)[0]
    nelec = (_electrons(strings[0], norb, "up"), _electrons(strings[1], norb, "down"))
    found = _whole(_solve([strings], hcore, eri, norb, nelec, spin_sq, shift, 0, True, {"workers": 0}, kwargs)[0])
    _warn(found, spin_sq)
    state = _result(found, nelec).sci_state
    assert found.occupancies is not None
    return found.energy, state, (found.occupancies[0], found.occupancies[1]), found.spin_square


def _solve(
    ci_strings: Sequence[tuple[ArrayLike, ArrayLike]], h1e: Any, eri: Any, norb: int, nelec: tuple[int, int],
    spin_sq: float | None, shift: float, rdm: int, amplitudes: bool, place: dict[str, Any],
    kwargs: dict[str, Any],
) -> list[BatchResult]:  # fmt: skip
    """Results of all subspaces on this process, or on all ranks of the job."""
    hamiltonian = Hamiltonian.from_arrays(h1e, eri, 0.0, nelec)
    if norb != hamiltonian.norb:
        raise InputError(f"norb = {norb} needs integrals of as many orbitals; these are of {hamiltonian.norb}")
    if rdm not in (0, 1, 2):
        raise InputError(f"rdm needs 0, 1 or 2, the order of density matrices; got {rdm!r}")
    batches = [(_packed(alpha, hamiltonian.norb), _packed(beta, hamiltonian.norb)) for alpha, beta in ci_strings]
    options = _options(kwargs, spin_sq, shift)
    ranks = ranks_of(mpi.world() if is_mpi_execution() else None)
    if ranks.size > 1:
        startup.start(ranks, kernels=startup.Kernels(rdm))
    elif options.threads != "auto":
        _jit.set_threads(options.threads)
        place = {**place, "threads": options.threads}
    return solve_batches(hamiltonian, batches, options, comm=ranks, amplitudes=amplitudes, rdm=rdm, **place)


def _options(kwargs: dict[str, Any], spin_sq: float | None, shift: float) -> SolveOptions:
    """Options of the solver from arguments for PySCF's and from our own."""
    names = {"tol_residual": "tol", "max_cycle": "max_iterations"}
    options: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name == "tol":
            options.setdefault("tol", min(_LOOSEST_TOLERANCE, float(np.sqrt(value))) if value > 0 else value)
        elif name == "max_space":
            options["max_subspace"] = max(value, fewest_krylov_vectors(1))  # PySCF takes one that is too small, too
        elif name in names:
            options[names[name]] = value
        elif name in SolveOptions.model_fields:
            options[name] = value
        elif name not in _WITHOUT_EFFECT:
            raise TypeError(f"unknown argument {name!r}; see {__name__}.solve_sci_batch")
    if spin_sq is not None and shift != 0.0:
        # The operator of PySCF's fix_spin_: any value, and a penalty that stays as it is.
        options["spin_square"], options["spin_check"] = spin_sq, "off"
        options.setdefault("spin_penalty", shift)
    if options.get("nroots", 1) != 1:
        raise InputError(f"one state is returned; got nroots = {options['nroots']}")
    return SolveOptions(**options)


def _packed(strings: ArrayLike, norb: int) -> NDArray[np.uint64]:
    """Integer strings as rows of words."""
    array = np.asarray(strings)
    if array.ndim == 1 and array.dtype.kind in "iu" and norb < 64 and len(array):
        if array.min() >= 0 and int(array.max()) < 1 << norb:
            return np.ascontiguousarray(array.astype(np.uint64)[:, None])
    return bitstrings.from_sequence(strings, norb)


def _electrons(strings: ArrayLike, norb: int, spin: str) -> int:
    """Number of electrons of all strings of one spin.

    Raises:
        InputError: there are no strings, or they differ.
    """
    counts = bitstrings.counts(_packed(strings, norb))
    if len(counts) == 0:
        raise InputError(f"there are no spin-{spin} strings; at least one is needed")
    unlike = np.flatnonzero(counts != counts[0])
    if len(unlike):
        raise InputError(
            f"Spin-{spin} CI string in index 0 has hamming weight {counts[0]}, but CI string in index {unlike[0]} has "
            f"hamming weight {counts[unlike[0]]}"
        )
    return int(counts[0])


def _whole(result: BatchResult) -> BatchResult:
    """A result that did not fail.

    Raises:
        RuntimeError: with the reason.
    """
    if result.failure is None:
        return result
    text = result.failure.reason
    if result.failure.kind == "exception" and text.startswith("InputError: "):
        raise InputError(text.removeprefix("InputError: "))
    raise RuntimeError("\n".join([str(result.failure), *result.failure.log]))


def _warn(found: BatchResult, spin_sq: float | None) -> None:
    """Say what of a result is not as it was asked for."""
    if found.failure is not None:
        return
    name = f"subspace {found.number}"
    if spin_sq is not None and abs(found.spin_square - spin_sq) > _SAME_SPIN:
        warnings.warn(f"{name}: the state has <S^2> {found.spin_square:.4f}, not {spin_sq:g}", stacklevel=3)
    elif not found.converged:
        warnings.warn(f"{name} is not converged: residual norm {found.residual_norm:.1e}", stacklevel=3)
    if not found.proven:
        warnings.warn(f"{name}: it is not proven that no lower state lies in another symmetry sector", stacklevel=3)


def _result(found: BatchResult, nelec: tuple[int, int]) -> SCIResult:
    """A batch as qiskit-addon-sqd has it. On ranks other than 0 there are no arrays."""
    assert found.occupancies is not None
    norb = found.occupancies.shape[1]
    strings = _integers(found.strings_a, norb), _integers(found.strings_b, norb)
    state = carried = None
    if found.amplitudes is not None:
        state = SCIState(found.amplitudes, *strings, norb=norb, nelec=(int(nelec[0]), int(nelec[1])))
    else:
        kept = found.carry_over(SolveOptions().carry_over_threshold)
        carried = _integers(kept[0], norb), _integers(kept[1], norb)
    densities = found.densities
    return SCIResult(
        found.energy, state, (found.occupancies[0], found.occupancies[1]),
        rdm1=None if densities is None else densities.rdm1,
        rdm2=None if densities is None or densities.two_ab is None else densities.rdm2, carryover=carried,
    )  # fmt: skip


def _integers(strings: NDArray[np.uint64], norb: int) -> IntegerStrings:
    """Strings as qiskit-addon-sqd has them: int64, or Python integers for 64 orbitals and more."""
    if norb < 64:
        return strings[:, 0].astype(np.int64)
    return np.array(bitstrings.to_integers(strings), dtype=object)
