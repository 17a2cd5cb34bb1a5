"""What somebody may have meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns " (did you mean NAME?)" if a known name is close, else nothing."""
    from difflib import get_close_matches

    lowered = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if not found and word:  # the beginning of one name only, such as --max-it
        begun = [name for name in lowered if name.startswith(word.lower())]
        found = begun if len(begun) == 1 else []
    return f" (did you mean {lowered[found[0]]}?)" if found else ""
