"""Messages for people from rank 0, progress of the iterations, and timers."""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO, cast

import numpy as np

from sqd_mpi import compile_notice
from sqd_mpi.progress import as_text
from sqd_mpi.spelling import spelled
from sqd_mpi.terminal import MessageStream, colored

NO_DETAIL: Mapping[str, int] = {}

_WIDTHS = {"iter": 5, "subspace": 9, "energy": 20, "change": 11, "residual": 10, "sigmas": 7, "seconds": 9, "left": 7}
_HEADER = " ".join(f"{name:>{width}}" for name, width in _WIDTHS.items())
_WITH_PENALTY = "with penalty"  # stands over energies that are no <H>

QUIET, NORMAL, VERBOSE = -1, 0, 1


@dataclass(frozen=True)
class Iteration:
    """What one line of the progress of an eigensolver says."""

    iteration: int
    """Number of the iteration, from 1."""
    subspace: int
    """Number of Krylov vectors."""
    energy: float | Sequence[float] | np.ndarray
    """Energy of every root, hartree; the line gives the lowest."""
    change: float
    """Change of the lowest energy since the iteration before, hartree; NaN in the first."""
    residual_norm: float | Sequence[float] | np.ndarray
    """Residual norm of every root; the line gives the largest."""
    n_sigma: int
    """Number of applications of the Hamiltonian so far."""
    seconds: float
    """Seconds since the start of the solve."""
    remaining: float | None = None
    """Estimate of the seconds that this solve still takes, or None where nothing is known."""
    penalised: bool = False
    """Whether energies are those of an operator with a penalty on other spins."""

    def header(self) -> str:
        """Returns what stands over the line."""
        width = _WIDTHS["energy"]
        return _HEADER.replace(f"{'energy':>{width}}", f"{_WITH_PENALTY:>{width}}") if self.penalised else _HEADER

    def line(self) -> str:
        """Returns the line of the log."""
        energy = float(np.min(self.energy))
        residual_norm = float(np.max(self.residual_norm))
        change = f"{self.change:11.3e}" if math.isfinite(self.change) else f"{'-':>11}"
        return (
            f"{self.iteration:5d} {self.subspace:9d} {energy:20.12f} {change} {residual_norm:10.3e} "
            f"{self.n_sigma:7d} {self.seconds:9.2f} {as_text(self.remaining):>7}"
        )


class Log:
    """Messages of a job, printed by rank 0 only.

    On a terminal the iterations are one live line; in a batch log each is a line, flushed at once.
    Every rank may call every method; none of them communicates.
    """

    def __init__(
        self, rank: int = 0, stream: TextIO | None = None, live: bool | None = None, level: int = NORMAL
    ) -> None:
        """Prepares the log.

        Args:
            rank: rank of this process; only 0 prints.
            stream: where to print; standard error by default.
            live: whether to show a live line; by default if the stream is a terminal.
            level: QUIET shows warnings and errors only, VERBOSE details as well.
        """
        self.rank = rank
        self.level = level
        self.warnings: list[str] = []
        self._stream = MessageStream(stream)
        self._live = rank == 0 and (self._stream.isatty() if live is None else live)
        self._console: Any = None
        self._status: Any = None
        self._last_line: str | None = None
        self._started = False

    @classmethod
    def silent(cls) -> Log:
        """Returns a log that prints nothing, for use as a library."""
        return cls(rank=-1)

    def info(self, text: str) -> None:
        """Prints a line."""
        if self.level > QUIET:
            self._print(text)

    def detail(self, text: str) -> None:
        """Prints a line that is wanted with --verbose only."""
        if self.level >= VERBOSE:
            self._print(text)

    def warning(self, text: str) -> None:
        """Prints a warning and remembers it, on every rank, in `warnings`."""
        self.warnings.append(text)
        self._print_marked("sqd_mpi: warning:", "yellow", text)

    def warning_once(self, text: str) -> None:
        """Prints a warning that may come with every solve, the first time."""
        if text not in self.warnings:
            self.warning(text)

    def error(self, text: str) -> None:
        """Prints an error."""
        self._print_marked("sqd_mpi: error:", "red", text)

    def iteration(self, row: Iteration) -> None:
        """Shows one iteration."""
        if self.rank != 0 or self.level <= QUIET:
            return
        if not self._started:
            self._started = True
            self._print(row.header())
        self._last_line = row.line()
        if self._live:
            self._update_status(self._last_line)
        else:
            self._print(self._last_line)

    def compiling(
        self, watch: compile_notice.Watch, delay: float = compile_notice.DELAY_SECONDS, loading: bool = True
    ) -> AbstractContextManager[None]:
        """Returns a context that says why it takes long, if it does: see `compile_notice.notice`."""
        return compile_notice.notice(self.info, watch, delay, loading) if self.rank == 0 else nullcontext()

    def close(self) -> None:
        """Ends the live line, leaving the last iteration, so that a next solve starts a new table."""
        if self._status is not None:
            self._status.stop()
            self._status = None
            if self._last_line is not None:
                self._print(self._last_line)
        self._last_line = None
        self._started = False

    def __enter__(self) -> Log:
        """Returns the log."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the log."""
        self.close()

    def _print(self, text: str) -> None:
        """Prints a line on rank 0, above the live line if there is one."""
        if self.rank != 0:
            return
        text = spelled(text)
        if self._status is None:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print_marked(self, mark: str, color: str, text: str) -> None:
        """Prints a line that begins with a mark, in colour on a terminal."""
        if self._status is None:
            mark = colored(mark, color, self._stream)
        self._print(f"{mark} {text}")

    def _update_status(self, text: str) -> None:
        """Shows the text on the live line."""
        from rich.text import Text

        if self._status is None:
            from rich.console import Console

            self._console = Console(file=cast("TextIO", self._stream))
            self._status = self._console.status(Text(text, no_wrap=True))
            self._status.start()
            atexit.register(self._status.stop)  # an error must not leave the terminal without a cursor
        else:
            self._status.update(Text(text, no_wrap=True))


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
