"""Errors that are one sentence, how sentences name options, and what somebody may have meant.

Sentences are written once, with options as the command line has them: `--max-subspace`, in Python `max_subspace`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_OPTION = re.compile(r"(?<![\w/.-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)\b")

_typed = False


@contextmanager
def as_typed() -> Iterator[None]:
    """Inside, this process is the command line: options are named as they are typed there."""
    global _typed
    before, _typed = _typed, True
    try:
        yield
    finally:
        _typed = before


def is_typed() -> bool:
    """Whether this process is the command line."""
    return _typed


def spelled(sentence: str) -> str:
    """A sentence with options as its reader types them.

    Args:
        sentence: with options as the command line has them.
    """
    return sentence if _typed else _OPTION.sub(lambda found: found[1].replace("-", "_"), sentence)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean NAME?)" if a known name is close, else nothing."""
    from difflib import get_close_matches

    lowered = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if not found and word:  # the beginning of one name only, such as --max-it
        begun = [name for name in lowered if name.startswith(word.lower())]
        found = begun if len(begun) == 1 else []
    return f" (did you mean {lowered[found[0]]}?)" if found else ""


class _Sentence(Exception):
    """An error that is one sentence, with options as the command line has them: `--max-subspace`."""

    @property
    def typed(self) -> str:
        """The sentence for those who type command lines."""
        return super().__str__()

    def __str__(self) -> str:
        """The sentence with options as its reader types them: in Python `max_subspace`."""
        return spelled(self.typed)


class InputError(_Sentence, ValueError):
    """Bad input or options: one sentence for the user, which the command line turns into exit code 2."""


class InputWarning(UserWarning):
    """Input that is taken although something about it looks wrong: one sentence, which a run puts into its result."""


class RunError(_Sentence, RuntimeError):
    """What keeps a run from going on, such as a full disk: one sentence, which becomes exit code 1."""


class Recalled(RunError):
    """Another rank of the same group has given up what they did together."""


@contextmanager
def input_warnings_to(say: Callable[[str], None]) -> Iterator[None]:
    """Within this context every InputWarning goes to `say` at the end, once; other warnings stay as they are."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [str(each.message) for each in caught if issubclass(each.category, InputWarning)]
    for text in dict.fromkeys(ours):
        say(text)
    for each in caught:
        if not issubclass(each.category, InputWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
