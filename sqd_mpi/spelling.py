"""How sentences name options: `--max-subspace` on the command line, `max_subspace` in Python.

Sentences are written once, with options as the command line has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    """Returns whether this process is the command line."""
    return _typed


def spelled(sentence: str) -> str:
    """Returns a sentence with options as its reader types them.

    Args:
        sentence: with options as the command line has them.
    """
    return sentence if _typed else _OPTION.sub(lambda found: found[1].replace("-", "_"), sentence)
