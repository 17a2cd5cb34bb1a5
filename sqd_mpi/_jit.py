"""Numba settings in one place: every compiled kernel of the package is made by `jit` or `parallel_jit`.

The number of threads must be fixed before numba is first imported (numba reads NUMBA_NUM_THREADS once and
ignores OMP_NUM_THREADS), so this module is imported only after `set_threads` of a caller has run, or with
numba's own default of one thread per core of the affinity mask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Contraction to fused multiply-add and reciprocal-free reassociation inside one kernel are wanted; finite-math
# assumptions are not: a NaN must stay visible.
_FASTMATH = {"contract", "reassoc", "nsz"}


def jit(function: Callable[..., Any]) -> Any:
    """Compile a serial kernel: cached on disk, without the interpreter lock."""
    import numba

    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH)(function)


def parallel_jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel whose `numba.prange` loops run on all threads of this rank."""
    import numba

    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH, parallel=True)(function)


def set_threads(n_threads: int) -> None:
    """Fix the number of threads of this process, before numba is imported if that is still possible.

    Args:
        n_threads: threads for numba's parallel loops. BLAS gets one: it only sees small matrices here, and its waiting
            threads would take the cores away from the loops.
    """
    if "numba" not in sys.modules:
        os.environ["NUMBA_NUM_THREADS"] = str(n_threads)
    # Waiting threads sleep after a short spin: endless spinning takes the core from a busy neighbour (libgomp).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
        os.environ[variable] = "1"  # for BLAS libraries that are loaded later, such as SciPy's own
    import numba
    import threadpoolctl

    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")


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
