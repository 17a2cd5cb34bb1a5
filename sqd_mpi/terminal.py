"""Standard streams that may be closed, broken or full, and colours of a terminal.

Messages (standard error) are a courtesy: what cannot be written is lost, and the run goes on. What a verb prints is its
product (standard output): a reader that has seen enough, such as `head`, is no error, a full disk is one.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any

_CODES = {"red": 31, "yellow": 33}
# What may pass: a disk that is full gets room, a terminal that is stopped goes on. After anything else, such as a
# broken pipe, a stream is not tried again.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR)


class OutputError(Exception):
    """Standard output cannot be written: one sentence, which the command line turns into exit code 1."""


class MessageStream:
    """A stream for messages, with what `rich` asks of a file; writing to it never fails."""

    def __init__(self, stream: Any = None) -> None:
        """Takes the stream; by default standard error, of which there may be none."""
        self._stream = sys.stderr if stream is None else stream

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Returns whether this is a terminal that can still be written to."""
        return _is_terminal(self._stream)

    def fileno(self) -> int:
        """Returns the descriptor.

        Raises:
            OSError: the stream has none.
        """
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        """Writes a text, or loses it."""
        if self._stream is not None:
            try:
                _write(self._stream, text)
            except (OSError, ValueError) as error:
                self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Writes what waits, or loses it."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not (isinstance(error, OSError) and error.errno in _PASSING):
            self._stream = None


def tell(text: str, mark: str = "", color: str = "") -> None:
    """Prints a message on standard error, behind a mark in a colour; never fails."""
    stream = MessageStream()
    stream.write(f"{colored(mark, color) if mark else ''}{' ' if mark else ''}{text}\n")
    stream.flush()


def show(text: str) -> None:
    """Prints what a verb gives on standard output, as it is.

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
    """Opens the standard streams that the caller has closed, on nothing.

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
    """Writes what waits in the standard streams; what cannot be written is dropped.

    Python would try again when it ends, complain and change the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                _to_nowhere(stream)


def colored(text: str, color: str, stream: Any = None) -> str:
    """Returns text in a colour if the stream is a terminal that shows colours and NO_COLOR is not set.

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
    """Writes a text; letters that the stream's encoding lacks as escapes."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _to_nowhere(stream: Any) -> None:
    """Lets the descriptor of a stream lead to nothing, so that what waits in it can be written there."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
