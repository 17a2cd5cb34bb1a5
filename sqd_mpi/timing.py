"""Seconds of named phases, and how long a solve will still take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIRST_ESTIMATE = 4  # iteration from which on there is one
_WINDOW = 6  # iterations whose slope counts at least; in a long solve the latter half of all
_LEAST_SHARE = 0.85  # of the mean slope so far: on a plateau norms will fall again
_CAUTION = 1.3  # most solves become slower towards their end


class RemainingTime:
    """Estimates the iterations and seconds until all roots are converged.

    The logarithm of the residual norm of an open root goes on falling as in the latter half of the iterations, but not
    much slower than in the mean of all; the root that comes last decides. Time goes on as in the last iterations.
    """

    def __init__(self, tol: float, max_iterations: int | None = None) -> None:
        """Take the residual norm at which a root is converged, and the iterations after which the solver gives up."""
        self.tol = tol
        """It may change from one iteration to the next."""
        self._most = math.inf if max_iterations is None else max_iterations
        self._norms: list[NDArray[np.float64]] = []  # (nroots,) of every iteration
        self._seconds: list[float] = []

    def add(self, residual_norms: ArrayLike, seconds: float) -> None:
        """Take the norms of all roots, (nroots,), and the seconds since any fixed moment after an iteration."""
        self._norms.append(np.atleast_1d(np.asarray(residual_norms, float)))
        self._seconds.append(seconds)

    def iterations(self) -> float | None:
        """The number of iterations still needed, or None before the fourth or if norms do not fall."""
        n = len(self._norms)
        if n < FIRST_ESTIMATE:
            return None
        norms = np.log(np.maximum(np.array(self._norms) / self.tol, 1e-6))  # what is exact has no logarithm
        left = norms[:, norms[-1] > 0.0]
        window = min(n, max(_WINDOW, n // 2))
        falls = np.maximum((left[-window] - left[-1]) / (window - 1), _LEAST_SHARE * (left[0] - left[-1]) / (n - 1))
        if np.any(falls <= 0.0):
            return None
        needed = float((_CAUTION * left[-1] / falls).max(initial=0.0))
        return min(max(1.0, needed), max(0.0, self._most - n)) if left.size else 0.0

    def seconds(self) -> float | None:
        """The seconds still needed, or None as `iterations`."""
        needed = self.iterations()
        return None if needed is None else needed * float(np.diff(self._seconds[-8:]).mean())


NO_DETAIL: Mapping[str, int] = {}


class Timers:
    """Seconds spent in named phases; `with timers("sigma"):` adds to one of them."""

    def __init__(self) -> None:
        """Start with no phase."""
        self.seconds: dict[str, float] = {}
        """Seconds of every phase so far."""
        self.open: list[str] = []
        """Phases that were entered and not yet left, the outermost first."""
        self.n_changes = 0
        """How often a phase was entered or left: whether a job moves."""

    def __call__(self, name: str, **detail: int) -> Phase:
        """A context that adds the time spent inside to phase `name`.

        Phases may be nested and then count in both. The detail, such as the shift of a ket block, is for a trace.
        """
        return Phase(self, name, detail)

    def add(self, name: str, start: float, end: float, detail: Mapping[str, int] = NO_DETAIL) -> None:
        """Add the time from start to end, seconds of `time.perf_counter`, to phase `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + (end - start)

    def beside(self, name: str, start: float, **detail: int) -> None:
        """Note what went on beside the phases from start until now; only a trace keeps it."""


class Phase:
    """One stay in a phase: what `with timers(name):` enters and leaves."""

    __slots__ = ("_detail", "_name", "_start", "_timers")

    def __init__(self, timers: Timers, name: str, detail: Mapping[str, int]) -> None:
        """Take the timers that the time goes to."""
        self._timers, self._name, self._detail = timers, name, detail

    def __enter__(self) -> None:
        """Start the clock."""
        timers = self._timers
        timers.open.append(self._name)
        timers.n_changes += 1
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        """Add the time, also when an error leaves the phase."""
        timers = self._timers
        timers.add(self._name, self._start, time.perf_counter(), self._detail)
        timers.open.pop()
        timers.n_changes += 1


Method = TypeVar("Method", bound=Callable[..., Any])


def in_phase(name: str) -> Callable[[Method], Method]:
    """Decorate a method so that its calls count in a phase of the `timers` of its object."""

    def decorate(method: Method) -> Method:
        @wraps(method)
        def timed(self: Any, *arguments: Any) -> Any:
            with self.timers(name):
                return method(self, *arguments)

        return cast(Method, timed)

    return decorate


class Timed:
    """The functions of a module, or methods of an object, whose calls count in one phase."""

    def __init__(self, owner: Any, timers: Timers, phase: str) -> None:
        """Take whose functions they are and where their time goes."""
        self._owner, self._timers, self._phase = owner, timers, phase

    def __getattr__(self, name: str) -> Any:
        """The function, timed; it is made at the first use."""
        function = getattr(self._owner, name)

        def timed(*arguments: Any) -> Any:
            with self._timers(self._phase):
                return function(*arguments)

        setattr(self, name, timed)
        return timed
