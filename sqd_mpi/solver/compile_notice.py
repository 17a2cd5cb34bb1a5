"""Says why a start takes long: kernels are compiled, which a user should know, or only loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

COMPILING = "compiling kernels for this machine (once; a minute or two)"
LOADING = "loading kernels"
DELAY_SECONDS = 3.0

Watch = Callable[[Callable[[], None]], AbstractContextManager[None]]


class _Notice:
    """What was seen so far, and the timer of the next thing to say."""

    def __init__(self, say: Callable[[str], None], delay: float) -> None:
        self._say, self._delay = say, delay
        self._lock = threading.Lock()
        self._compiles = self._ended = False
        self._timer: threading.Timer | None = None

    def after_a_while(self, text: str) -> None:
        """Say a text when the delay has passed, if nothing else is said or ends before."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if not self._ended:
                self._timer = threading.Timer(self._delay, self._speak, (text,))
                self._timer.daemon = True
                self._timer.start()

    def _speak(self, text: str) -> None:
        with self._lock:  # so that nothing is said after the end, or beside what is said then
            if not self._ended:
                self._say(text)

    def compiles(self) -> None:
        """A kernel is being compiled."""
        if not self._compiles:
            self._compiles = True
            self.after_a_while(COMPILING)

    def end(self) -> None:
        """Nothing is to be said any more."""
        with self._lock:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()


@contextmanager
def notice(
    say: Callable[[str], None], watch: Watch, delay: float = DELAY_SECONDS, loading: bool = True
) -> Iterator[None]:
    """Inside, says once that kernels are compiled, if that takes longer than `delay` seconds.

    Args:
        say: prints a text.
        watch: context in which a function is called whenever a kernel is compiled.
        delay: seconds from the start of the first compilation.
        loading: whether to say after so many seconds that kernels are loaded, where none is compiled.
    """
    found = _Notice(say, delay)
    if loading:
        found.after_a_while(LOADING)
    try:
        with watch(found.compiles):
            yield
    finally:
        found.end()
