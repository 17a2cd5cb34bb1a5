"""Seconds of named phases, and how long a solve will still take."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_ESTIMATE = 4  # iteration from which on there is one
_WINDOW = 6  # iterations whose slope counts at least; in a long solve the latter half of all
_LEAST_SHARE = 0.85  # of the mean slope so far: on a plateau norms will fall again
_CAUTION = 1.3  # most solves become slower towards their end
_LAST_STEPS = 8  # iterations whose duration counts
_MOST_ITERATIONS = 10_000  # where norms do not fall, there is no estimate


class RemainingTime:
    """Estimates, iteration by iteration, of the iterations and seconds until all roots are converged.

    The logarithm of the residual norm of every open root goes on falling as a straight line through the latter half of
    the iterations, but not much slower than in the mean of all; the root that comes last decides. Time goes on as in
    the last iterations.
    """

    def __init__(self, tol: float, max_iterations: int | None = None) -> None:
        """Starts a solve.

        Args:
            tol: residual norm at which a root is converged.
            max_iterations: iterations after which the solver gives up; no estimate exceeds it.
        """
        self.tol = tol
        self.max_iterations = max_iterations
        self._norms: list[NDArray[np.float64]] = []  # logarithms, one row of the roots per iteration
        self._seconds: list[float] = []

    def add(self, residual_norms: Sequence[float] | NDArray[np.float64], seconds: float) -> None:
        """Takes what an iteration gave.

        Args:
            residual_norms: of every root.
            seconds: since any fixed moment.
        """
        floor = self.tol * 1e-6  # what is exact has no logarithm
        self._norms.append(np.log(np.maximum(np.atleast_1d(np.asarray(residual_norms, float)), floor)))
        self._seconds.append(seconds)

    def iterations(self) -> float | None:
        """Returns the number of iterations still needed, or None before the fourth or if norms do not fall."""
        if len(self._norms) < FIRST_ESTIMATE:
            return None
        norms, goal = np.array(self._norms), math.log(self.tol)
        open_roots = np.flatnonzero(norms[-1] > goal)
        if not len(open_roots):
            return 0.0
        needed = max(self._of_root(norms[:, root], goal) for root in open_roots)
        if not needed < _MOST_ITERATIONS:
            return None
        left = math.inf if self.max_iterations is None else max(0, self.max_iterations - len(norms))
        return min(max(1.0, needed), left)

    def seconds(self) -> float | None:
        """Returns the seconds still needed, or None as `iterations`."""
        needed = self.iterations()
        if needed is None:
            return None
        steps = np.diff(self._seconds[-_LAST_STEPS:])
        return needed * float(steps.mean())

    @staticmethod
    def _of_root(norms: NDArray[np.float64], goal: float) -> float:
        """Returns how many iterations one root needs, infinity if its norm does not fall."""
        recent = norms[-max(_WINDOW, len(norms) // 2) :]
        x = np.arange(len(recent)) - (len(recent) - 1) / 2
        slope = float(x @ recent / (x @ x))
        here = float(recent.mean() + slope * x[-1])
        rate = max(-slope, _LEAST_SHARE * float(norms[0] - norms[-1]) / (len(norms) - 1))
        return _CAUTION * (max(here, float(norms[-1])) - goal) / rate if rate > 0 else math.inf


NO_DETAIL: Mapping[str, int] = {}


class Timers:
    """Seconds spent in named phases; `with timers("sigma"):` adds to one of them."""

    def __init__(self) -> None:
        """Starts with no phase."""
        self.seconds: dict[str, float] = {}
        """Seconds of every phase so far."""
        self.open: list[str] = []
        """Phases that were entered and not yet left, the outermost first."""
        self.n_changes = 0
        """How often a phase was entered or left: whether a job moves."""

    def __call__(self, name: str, **detail: int) -> Phase:
        """Returns a context that adds the time spent inside to phase `name`.

        Phases may be nested and then count in both. The detail, such as the shift of a ket block, is for a trace.
        """
        return Phase(self, name, detail)

    def add(self, name: str, start: float, end: float, detail: Mapping[str, int] = NO_DETAIL) -> None:
        """Adds the time from start to end, seconds of `time.perf_counter`, to phase `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + (end - start)

    def beside(self, name: str, start: float, **detail: int) -> None:
        """Notes what went on beside the phases from start until now; only a trace keeps it."""


class Phase:
    """One stay in a phase: what `with timers(name):` enters and leaves."""

    __slots__ = ("_detail", "_name", "_start", "_timers")

    def __init__(self, timers: Timers, name: str, detail: Mapping[str, int]) -> None:
        """Takes the timers that the time goes to."""
        self._timers, self._name, self._detail = timers, name, detail

    def __enter__(self) -> None:
        """Starts the clock."""
        timers = self._timers
        timers.open.append(self._name)
        timers.n_changes += 1
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        """Adds the time, also when an error leaves the phase."""
        timers = self._timers
        timers.add(self._name, self._start, time.perf_counter(), self._detail)
        timers.open.pop()
        timers.n_changes += 1


class Timed:
    """The functions of a module, or methods of an object, whose calls count in one phase."""

    def __init__(self, owner: Any, timers: Timers, phase: str) -> None:
        """Takes whose functions they are and where their time goes."""
        self._owner, self._timers, self._phase = owner, timers, phase

    def __getattr__(self, name: str) -> Any:
        """Returns the function, timed; it is made at the first use."""
        function = getattr(self._owner, name)

        def timed(*arguments: Any) -> Any:
            with self._timers(self._phase):
                return function(*arguments)

        setattr(self, name, timed)
        return timed
