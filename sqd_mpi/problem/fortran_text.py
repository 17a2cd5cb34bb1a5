"""Text as Fortran reads it: a namelist at the head of a file, and numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REAL = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[EDQ]([+-]?\d+)|([+-]\d+))?", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# Whatever follows the letter is ignored: T, .T., .TRUE., true, ...
_LOGICAL = re.compile(r"\.?([TF])[^\s,/=]*", re.IGNORECASE)
_REPEATED = re.compile(r"(\d+)\*(.*)", re.DOTALL | re.ASCII)

# What a namelist consists of. A quote begins a text only where a value begins; in a text it is doubled.
_TOKEN = re.compile(
    r"""(?P<comment>![^\n]*)
      | (?P<end>/|[&$]END\b)
      | (?P<name>[A-Z_][\w%]*)(?P<subscript>\s*\([^()=\n]*\))?\s*=
      | (?P<comma>,)
      | (?P<value>(?:\d+\*)?(?:'(?:[^']|'')*'|"(?:[^"]|"")*")|(?:(?![&$]END\b)[^\s,!/])+)""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Assignment:
    """One "name = values" of a namelist."""

    name: str
    """In upper case."""
    subscript: str
    """What stands in parentheses behind the name, or nothing."""
    values: tuple[str | None, ...]
    """Constants as they are written, with their repeat counts; None for a null value, which leaves things unchanged."""


@dataclass(frozen=True)
class Namelist:
    """A namelist, and where it ends."""

    assignments: tuple[Assignment, ...]
    """In their order."""
    end: int
    """Place of the first character behind it."""

    def scalars(self, name: str) -> list[str]:
        """The different values that a scalar is given: none, one, or several that contradict each other."""
        found: list[str] = []
        for each in self.assignments:
            if each.name != name or each.subscript:
                continue
            # a count of one is the constant itself; several values are no scalar, and kept for the complaint
            values = [value if value is None else re.sub(r"^0*1\*", "", value) or None for value in each.values]
            while values and values[-1] is None:
                values.pop()
            if values:
                text = ",".join("" if value is None else value for value in values)
                found += [] if text in found else [text]
        return found

    def constants(self, name: str) -> list[str]:
        """All constants that a name or elements of it are given, without repeat counts."""
        texts = [text for each in self.assignments if each.name == name for text in each.values if text is not None]
        constants = [repeated[2] if (repeated := _REPEATED.fullmatch(text)) else text for text in texts]
        return [constant for constant in constants if constant]


def find_namelist(text: str, name: str) -> Namelist | None:
    """The first namelist of a name, "&name ... /", in a text; None if there is none, or none that ends.

    Whatever stands before it is skipped, comments as a whole. $ may stand for &, and &END for the slash. Comments,
    texts in quotes, null values, repeat counts and array elements are as in Fortran; keys and texts without quotes
    that no Fortran program would take are read as well.
    """
    # a name in a comment is none
    marks = re.finditer(rf"![^\n]*|[&$]{name}(?!\w)", text, re.IGNORECASE)
    start = next((mark for mark in marks if not mark[0].startswith("!")), None)
    if start is None:
        return None
    found: list[tuple[str, str, list[str | None]]] = []
    values: list[str | None] = []
    after_value = True  # whether a comma here only ends the value before it
    for token in _TOKEN.finditer(text, start.end()):
        if token["end"] is not None:
            made = (Assignment(name, subscript, tuple(constants)) for name, subscript, constants in found)
            return Namelist(tuple(made), token.end())
        if token["name"] is not None:
            values, after_value = [], False
            found.append((token["name"].upper(), (token["subscript"] or "").strip(), values))
        elif token["comma"] is not None:
            values += [] if after_value else [None]
            after_value = False
        elif token["value"] is not None:
            values.append(token["value"])
            after_value = True
    return None


def real(word: str) -> float | None:
    """The number of a word such as 1.5, .5, 5., 1d0 or 0.12-100, whose exponent has lost its letter; None if none.

    Neither NaN nor infinity is a number here; what is too large for a float is infinite.
    """
    parts = _REAL.fullmatch(word)
    return None if parts is None else float(f"{parts[1]}e{parts[2] or parts[3] or 0}")


def integer(word: str) -> int | None:
    """The integer of a word, or None."""
    return int(word) if _INTEGER.fullmatch(word) and len(word) < 30 else None


def logical(word: str) -> bool | None:
    """The truth value of a word in any spelling of Fortran, or None."""
    found = _LOGICAL.fullmatch(word)
    return None if found is None else found[1] in "Tt"
