"""Numba settings in one place: every compiled kernel of the package is made by `jit` or `parallel_jit`.

The number of threads must be fixed before numba is first imported (numba reads NUMBA_NUM_THREADS once and does not
know OMP_NUM_THREADS), so this module is imported only after `set_threads` of a caller has run, or with numba's own
default of one thread per core of the affinity mask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from sqd_mpi.errors import InputError
from sqd_mpi.resources import available_cores

# Contraction to fused multiply-add and reciprocal-free reassociation inside one kernel are wanted; finite-math
# assumptions are not: a NaN must stay visible.
_FASTMATH = {"contract", "reassoc", "nsz"}

_NUMBA, _OPENMP = "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"
_written: str | None = None  # what this module has put into NUMBA_NUM_THREADS
_replaced: str | None = None  # what stood there before
_settled = False  # whether `set_threads` was called
_told: list[Callable[[], None]] = []  # who wants to know of compilation


def jit(function: Callable[..., Any]) -> Any:
    """Compile a serial kernel: cached on disk, without the interpreter lock."""
    return _numba().njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH)(function)


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel whose `numba.prange` loops run on all threads of this rank."""
    return _numba().njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH, parallel=True)(function)


def _numba() -> Any:
    """numba, if it compiles.

    Raises:
        InputError: the environment switches its compiler off.
    """
    import numba

    if numba.config.DISABLE_JIT:
        raise InputError("NUMBA_DISABLE_JIT switches off the compiler that the kernels need; it must be unset or 0")
    return numba


def compilation_begins() -> None:
    """Tell those who asked that a kernel is compiled; by whoever compiles with something else than numba."""
    for tell in _told:
        tell()


@contextmanager
def telling_of_compilation(tell: Callable[[], None]) -> Iterator[None]:
    """Inside, call a function whenever the compilation of a kernel begins; not when it is loaded from the cache."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, _: Any) -> None:
            tell()

        def on_end(self, _: Any) -> None:
            pass

    listener = Listener()
    event.register("numba:compile", listener)
    _told.append(tell)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
        _told.remove(tell)


@dataclass(frozen=True)
class VariableThreads:
    """What the environment says about threads."""

    number: int | None
    """Threads of this process, or None if no variable says so."""
    variable: str = ""
    """The one that does."""
    warnings: Sequence[str] = ()
    """One sentence for everything in the variables that is not done as it stands there."""


def threads_of_environment(n_cores: int) -> VariableThreads:
    """What NUMBA_NUM_THREADS or else OMP_NUM_THREADS, as the user set them, say about threads.

    Args:
        n_cores: cores of this process, which are not exceeded.
    """
    warnings = []
    for variable, text in ((_NUMBA, _users_variable()), (_OPENMP, os.environ.get(_OPENMP))):
        if not text or not text.strip():
            continue
        # OpenMP takes a list, for loops within loops; there are none here.
        first = text.split(",")[0].strip() if variable == _OPENMP else text.strip()
        if not (first.isascii() and first.isdigit() and int(first) > 0):
            warnings.append(f"{variable} needs a positive integer; got {text!r}, which is passed over")
            continue
        number = int(first)
        if number > n_cores:
            warnings.append(
                f"{variable} asks for {number} threads; this process has {n_cores} cores and takes as many threads "
                f"(--threads {number} insists)"
            )
        return VariableThreads(min(number, n_cores), variable, warnings)
    return VariableThreads(None, "", warnings)


def _users_variable() -> str | None:
    """NUMBA_NUM_THREADS as it was before this module wrote to it."""
    now = os.environ.get(_NUMBA)
    return _replaced if now is not None and now == _written else now


def _write(n_threads: int) -> None:
    """Let numba read a number of threads."""
    global _written, _replaced
    _replaced = _users_variable()
    _written = os.environ[_NUMBA] = str(n_threads)


def set_threads(n_threads: int) -> None:
    """Fix the number of threads of this process, before numba is imported if that is still possible.

    Args:
        n_threads: threads for numba's parallel loops. BLAS gets one: it only sees small matrices here, and its waiting
            threads would take the cores away from the loops.

    Raises:
        InputError: the environment keeps numba from compiling, or from starting threads.
    """
    if "numba" not in sys.modules:
        _write(n_threads)
    # Waiting threads sleep after a short spin: endless spinning takes the core from a busy neighbour (libgomp).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
        os.environ[variable] = "1"  # for BLAS libraries that are loaded later, such as SciPy's own
    global _settled
    _settled = True
    import threadpoolctl

    numba = _numba()
    try:
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    except ValueError as error:  # no threading layer, or one that numba does not know
        layers = {name: value for name, value in os.environ.items() if name.startswith("NUMBA_THREADING_LAYER")}
        said = "".join(f"; {name} is {value!r}" for name, value in sorted(layers.items()))
        raise InputError(f"numba cannot start threads: {' '.join(str(error).split()).rstrip('.')}{said}") from None
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")


@contextmanager
def taking(wanted: int | Literal["auto"]) -> Iterator[None]:
    """Inside, parallel loops take as many threads as an option wants, but not more than there are.

    "auto" is what `set_threads` has fixed in this process; without, what the environment says.
    """
    if wanted == "auto":
        said = None if _settled else threads_of_environment(available_cores()).number
    else:
        said = wanted
    with nullcontext() if said is None else at_most(said):
        yield


@contextmanager
def at_most(n: int) -> Iterator[None]:
    """Inside, parallel loops use no more than n threads."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(n, before))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def n_threads() -> int:
    """Number of threads that numba's parallel loops use now."""
    import numba

    return int(numba.get_num_threads())
