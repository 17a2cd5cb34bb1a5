"""Messages for people from rank 0, progress of the iterations, and standard streams that may be closed, broken or full.

Messages (standard error) are a courtesy: what cannot be written is lost, and the run goes on. What a verb prints is its
product (standard output): a reader that has seen enough, such as `head`, is no error, a full disk is one.
"""

from __future__ import annotations

import atexit
import errno
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO, cast

from sqd_mpi.errors import spelled

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
    energy: float
    """Lowest energy, hartree."""
    change: float
    """Change of the lowest energy since the iteration before, hartree; NaN in the first."""
    residual_norm: float
    """Largest residual norm of a root."""
    n_sigma: int
    """Number of applications of the Hamiltonian so far."""
    seconds: float
    """Seconds since the start of the solve."""
    remaining: float | None = None
    """Estimate of the seconds that this solve still takes, or None where nothing is known."""
    penalised: bool = False
    """Whether energies are those of an operator with a penalty on other spins."""

    def header(self) -> str:
        """What stands over the line."""
        width = _WIDTHS["energy"]
        return _HEADER.replace(f"{'energy':>{width}}", f"{_WITH_PENALTY:>{width}}") if self.penalised else _HEADER

    def line(self) -> str:
        """The line of the log."""
        change = f"{self.change:11.3e}" if math.isfinite(self.change) else f"{'-':>11}"
        return (
            f"{self.iteration:5d} {self.subspace:9d} {self.energy:20.12f} {change} {self.residual_norm:10.3e} "
            f"{self.n_sigma:7d} {self.seconds:9.2f} {as_text(self.remaining):>7}"
        )


class Log:
    """Messages of a job, printed by rank 0 only.

    On a terminal the iterations are one live line; in a batch log each is a line, flushed at once.
    Every rank may call every method; none of them communicates.

    Args:
        rank: rank of this process; only 0 prints.
        stream: where to print; standard error by default.
        live: whether to show a live line; by default if the stream is a terminal.
        level: QUIET shows warnings and errors only, VERBOSE details as well.
    """

    def __init__(
        self, rank: int = 0, stream: TextIO | None = None, live: bool | None = None, level: int = NORMAL
    ) -> None:
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
        """A log that prints nothing, for use as a library."""
        return cls(rank=-1)

    def info(self, text: str) -> None:
        """Print a line."""
        if self.level > QUIET:
            self._print(text)

    def detail(self, text: str) -> None:
        """Print a line that is wanted with --verbose only."""
        if self.level >= VERBOSE:
            self._print(text)

    def warning(self, text: str) -> None:
        """Print a warning and remember it, on every rank, in `warnings`."""
        self.warnings.append(text)
        self._print_marked("sqd_mpi: warning:", "yellow", text)

    def warning_once(self, text: str) -> None:
        """Print a warning that may come with every solve, the first time."""
        if text not in self.warnings:
            self.warning(text)

    def error(self, text: str) -> None:
        """Print an error."""
        self._print_marked("sqd_mpi: error:", "red", text)

    def iteration(self, row: Iteration) -> None:
        """Show one iteration."""
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

    def close(self) -> None:
        """End the live line, leaving the last iteration, so that a next solve starts a new table."""
        if self._status is not None:
            self._status.stop()
            self._status = None
            if self._last_line is not None:
                self._print(self._last_line)
        self._last_line = None
        self._started = False

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _print(self, text: str) -> None:
        """Print a line on rank 0, above the live line if there is one."""
        if self.rank != 0:
            return
        text = spelled(text)
        if self._status is None:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print_marked(self, mark: str, color: str, text: str) -> None:
        """Print a line that begins with a mark, in colour on a terminal."""
        if self._status is None:
            mark = colored(mark, color, self._stream)
        self._print(f"{mark} {text}")

    def _update_status(self, text: str) -> None:
        """Show the text on the live line."""
        from rich.text import Text

        if self._status is None:
            from rich.console import Console

            self._console = Console(file=cast("TextIO", self._stream))
            self._status = self._console.status(Text(text, no_wrap=True))
            self._status.start()
            atexit.register(self._status.stop)  # an error must not leave the terminal without a cursor
        else:
            self._status.update(Text(text, no_wrap=True))


def as_text(seconds: float | None) -> str:
    """A time for people, short: "42s", "3m05s", "2h10m"; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = math.ceil(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 100 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d"


_CODES = {"red": 31, "yellow": 33}
# What may pass: a disk that is full gets room, a terminal that is stopped goes on. After anything else, such as a
# broken pipe, a stream is not tried again.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR)


class OutputError(Exception):
    """Standard output cannot be written: one sentence, which the command line turns into exit code 1."""


class MessageStream:
    """A stream for messages, with what `rich` asks of a file; writing to it never fails."""

    def __init__(self, stream: Any = None) -> None:
        """Take the stream; by default standard error, of which there may be none."""
        self._stream = sys.stderr if stream is None else stream

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether this is a terminal that can still be written to."""
        return _is_terminal(self._stream)

    def fileno(self) -> int:
        """The descriptor.

        Raises:
            OSError: the stream has none.
        """
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        if self._stream is not None:
            try:
                _write(self._stream, text)
            except (OSError, ValueError) as error:
                self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Write what waits, or lose it."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not (isinstance(error, OSError) and error.errno in _PASSING):
            self._stream = None


def tell(text: str, mark: str = "", color: str = "") -> None:
    """Print a message on standard error, behind a mark in a colour; never fails."""
    stream = MessageStream()
    stream.write(f"{colored(mark, color) if mark else ''}{' ' if mark else ''}{text}\n")
    stream.flush()


def show(text: str) -> None:
    """Print what a verb gives on standard output, as it is.

    Raises:
        OutputError: it cannot be written. That nobody reads on, or that standard output is closed, is no error.
    """
    stream = sys.stdout
    if stream is None:
        return
    try:
        _write(stream, text)
        stream.flush()
    except BrokenPipeError:
        _to_nowhere(stream)
    except OSError as error:
        _to_nowhere(stream)
        raise OutputError(f"standard output cannot be written: {(error.strerror or str(error)).lower()}") from None
    except ValueError:  # it was closed
        pass


def open_closed_streams() -> None:
    """Open the standard streams that the caller has closed, on nothing.

    A closed descriptor would be given to the next file that is opened, and what a library prints would go into that.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, descriptor)
            if nothing != descriptor:
                os.close(nothing)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # open until the process ends


def settle() -> None:
    """Write what waits in the standard streams; what cannot be written is dropped.

    Python would try again when it ends, complain and change the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                _to_nowhere(stream)


def colored(text: str, color: str, stream: Any = None) -> str:
    """Text in a colour if the stream is a terminal that shows colours and NO_COLOR is not set.

    Args:
        text: to be shown.
        color: red or yellow.
        stream: standard error by default.
    """
    stream = sys.stderr if stream is None else stream
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb") or not _is_terminal(stream)
    return text if plain else f"\033[1;{_CODES[color]}m{text}\033[0m"


def _is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except (OSError, ValueError):  # it was closed
        return False


def _write(stream: Any, text: str) -> None:
    """Write a text; letters that the stream's encoding lacks as escapes."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _to_nowhere(stream: Any) -> None:
    """Let the descriptor of a stream lead to nothing, so that what waits in it can be written there."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
