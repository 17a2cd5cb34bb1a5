"""A watchdog: says where a rank stands when it has not moved for a while, so that a dead-lock can be understood.

A thread of every rank looks at the phases that the timers enter and leave. A rank that waits for another one does not
move either, so every rank of a stuck job speaks.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TextIO

from sqd_mpi.log import MessageStream
from sqd_mpi.timing import Timers

_LOOKS = 8  # how often it looks within the time that must pass
_GRACE_SECONDS = 2.0  # between the report and the end of the job, for the reports of the other ranks


class Watchdog:
    """While the context lasts, prints phase and Python stack of the calling thread whenever nothing moved for a time.

    Args:
        timers: the timers of the job.
        seconds: how long nothing may move; None for no watchdog.
        rank: of this process.
        end: called after a report, to end the job; None to go on.
        stream: where to print; standard error by default.
    """

    def __init__(
        self, timers: Timers, seconds: float | None, rank: int = 0, end: Callable[[], None] | None = None,
        stream: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.timers, self.seconds, self.rank, self.end = timers, seconds, rank, end
        self._stream = MessageStream(stream)
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Start to watch."""
        if self.seconds is not None:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End watching."""
        if self.seconds is not None:
            self._stop.set()
            self._thread.join()
            _last_resort(None)

    def _watch(self) -> None:
        limit = float(self.seconds or 0.0)
        seen, since = self.timers.n_changes, time.monotonic()
        while not self._stop.wait(limit / _LOOKS):
            _last_resort(2 * limit + 1.0)  # in case this thread cannot run: native code may hold Python's lock
            now = time.monotonic()
            if self.timers.n_changes != seen:
                seen, since = self.timers.n_changes, now
            elif now - since >= limit:
                self._report(now - since)
                since = now
                if self.end is not None and not self._stop.wait(_GRACE_SECONDS) and self.timers.n_changes == seen:
                    self.end()

    def _report(self, seconds: float) -> None:
        phases = " > ".join(list(self.timers.open)) or "between phases"
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        # one write, so that the reports of several ranks do not mix
        self._stream.write(f"[rank {self.rank}] watchdog: nothing moved for {seconds:.0f} s in {phases}\n{stack}")
        self._stream.flush()


def _last_resort(seconds: float | None) -> None:
    """Let a thread outside Python print the stacks after so many seconds, unless this is called again before."""
    try:
        if seconds is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            faulthandler.dump_traceback_later(seconds, exit=False)
    except (RuntimeError, ValueError, OSError, AttributeError):  # standard error is no real file
        pass
