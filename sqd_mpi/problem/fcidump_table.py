"""The lines of a FCIDUMP below its header: a value and four orbital indices, as Fortran READs them with *."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.errors import InputError
from sqd_mpi.problem import fortran_text
from sqd_mpi.problem.text_files import shortened

_FAR = 2**62
_ROW = np.dtype([("value", np.float64), ("indices", np.int64, (4,))])
_REPEATED = re.compile(r"(\d{1,3})\*(\S+)", re.ASCII)
# What is no number behind the fifth word of a line.
_TEXT_BEHIND = re.compile(r"^([ \t]*[^\s,]+(?:[ \t]+[^\s,]+){4})[ \t]+[^\s\d+\-.*(].*$", re.MULTILINE)
# An exponent of three digits drives out its letter: 0.12-100.
_BARE_EXPONENT = re.compile(r"(?<=[\d.])(?=[+-]\d)")
_EMPTY_ITEM = re.compile(r"^[ \t]*,|,[ \t]*,", re.MULTILINE)


@dataclass(frozen=True)
class Table:
    """Values and indices, and where they stand."""

    path: str | os.PathLike[str]
    """The file."""
    values: NDArray[np.float64]
    """(n,) in the order of the file, all finite."""
    indices: NDArray[np.int64]
    """(n, 4) orbital indices from 1; 0 where there is none."""
    ends_in_line: bool
    """Whether the last line has no line end, as that of a file that was cut."""
    lines: Sequence[int] = field(repr=False)
    """(n,) number of the line in which each begins."""

    def fail(self, row: int | np.integer, complaint: str) -> NoReturn:
        """Stop because of a row.

        Raises:
            InputError: always, with the number of its line.
        """
        raise InputError(f"{self.path} line {self.lines[int(row)]}: {complaint}")


class _FilledLines(Sequence[int]):
    """Numbers of the lines that are not blank; counted when one is asked for."""

    def __init__(self, body: str, first: int) -> None:
        self.body, self.first = body, first

    def __len__(self) -> int:
        return sum(1 for line in self.body.split("\n") if line.strip())

    def __getitem__(self, row: Any) -> Any:
        return [number for number, line in enumerate(self.body.split("\n"), self.first) if line.strip()][row]


def read_table(path: str | os.PathLike[str], body: str, first_line: int) -> Table:
    """The table of what stands below a header.

    A line holds a value and four indices, between blanks, tabs or commas; repeat counts are known, what is no number
    behind the fifth item is ignored, and items may go on in the next line. Unlike Fortran, which would take what comes,
    items that are left out, more numbers in a line and a line that is cut are errors.

    Args:
        path: the file, for the sentences of errors.
        body: the text below the header.
        first_line: number of its first line in the file.

    Raises:
        InputError: with the number of the line.
    """
    rows = _plain_rows(body)
    lines: Sequence[int] = _FilledLines(body, first_line)
    if rows is None:
        rows, lines = _Records(path, first_line).read(body)
    ends_in_line = not body.rstrip(" \t").endswith("\n")
    table = Table(path, np.ascontiguousarray(rows["value"]), np.ascontiguousarray(rows["indices"]), ends_in_line, lines)
    wrong = np.flatnonzero(~np.isfinite(table.values))
    if len(wrong):
        table.fail(wrong[0], "a value is not finite (NaN or infinity)")
    return table


def _plain_rows(body: str) -> NDArray[np.void] | None:
    """The rows of a text whose lines hold exactly five words each, by numpy's reader; None if there are others."""
    plain = body.translate(str.maketrans("Dd", "Ee"))
    if "," in plain:
        if _EMPTY_ITEM.search(plain):
            return None
        plain = plain.replace(",", " ")
    try:
        return np.loadtxt(io.StringIO(plain), dtype=_ROW, comments=None, ndmin=1)
    except ValueError:
        plain = _BARE_EXPONENT.sub("E", _TEXT_BEHIND.sub(r"\1", plain))
    try:
        return np.loadtxt(io.StringIO(plain), dtype=_ROW, comments=None, ndmin=1)
    except ValueError:
        return None


class _Records:
    """What lines hold that are not plain, one after another."""

    def __init__(self, path: str | os.PathLike[str], first_line: int) -> None:
        self.path, self.first_line = path, first_line
        self.values: list[float] = []
        self.indices: list[list[int]] = []
        self.lines: list[int] = []
        # of the row that is being read: its first line, and how many words that has
        self.begin, self.n_words = first_line, 0

    def read(self, body: str) -> tuple[NDArray[np.void], list[int]]:
        """Rows and the numbers of their lines."""
        items: list[str] = []
        for number, line in enumerate(body.split("\n"), self.first_line):
            words = self._words(number, line)
            if not words:
                continue
            if not items:
                self.begin, self.n_words = number, len(words)
            wanted = 5 - len(items)
            items += words[:wanted]
            self._check_rest(number, items, words[wanted:])
            if len(items) == 5:
                self._add(number, items)
                items = []
        if items:
            self._check_numbers(items)
            self._fail(
                self.begin,
                f"a value and four orbital indices were expected, {len(items)} words were found: "
                "it seems to be cut off",
            )
        rows = np.empty(len(self.values), _ROW)
        rows["value"], rows["indices"] = self.values, np.array(self.indices, np.int64).reshape(-1, 4)
        return rows, self.lines

    def _words(self, number: int, line: str) -> list[str]:
        """The items of a line."""
        if line.lstrip().startswith("("):
            self._fail(number, "complex integrals are not supported; a real value was expected")
        if _EMPTY_ITEM.search(line):
            self._fail(number, "a value and four orbital indices were expected; between two commas there is nothing")
        words: list[str] = []
        for word in line.replace(",", " ").split():
            repeated = _REPEATED.fullmatch(word)
            words += int(repeated[1]) * [repeated[2]] if repeated else [word]
        return words

    def _check_rest(self, number: int, items: list[str], rest: list[str]) -> None:
        """Raise InputError if what follows the fifth item in a line is a number, which Fortran would lose."""
        count = 0
        while count < len(rest) and fortran_text.real(rest[count]) is not None:
            count += 1
        if count:
            self._check_numbers(items)
            self._check_begin(number)
            self._fail(
                number,
                f"a value and four orbital indices were expected, {5 + count} numbers were found "
                "(complex integrals are not supported)",
            )

    def _check_begin(self, number: int) -> None:
        """Raise InputError if what is wrong in a line comes from a line before, in which items are missing."""
        if number != self.begin:
            self._fail(self.begin, f"a value and four orbital indices were expected, {self.n_words} words were found")

    def _add(self, number: int, items: list[str]) -> None:
        """One row."""
        value = fortran_text.real(items[0])
        if value is None:
            self._check_numbers(items)
        self.indices.append([self._index(number, items, k) for k in range(1, 5)])
        self.values.append(np.nan if value is None else value)
        self.lines.append(self.begin)

    def _check_numbers(self, items: list[str]) -> None:
        """Raise InputError for a word that is no number, in the line where the row begins."""
        for word in items[: self.n_words]:  # later items may be of another line, and taken for what is missing here
            if fortran_text.real(word) is None and word.lower().lstrip("+-") not in ("nan", "inf", "infinity"):
                self._fail(self.begin, f"{shortened(word)!r} is not a number")

    def _index(self, number: int, items: list[str], place: int) -> int:
        """An orbital index; 2.0 is taken for 2."""
        word = items[place]
        found = fortran_text.integer(word)
        if found is not None:
            return min(max(found, -_FAR), _FAR)  # out of range in any case
        as_real = fortran_text.real(word)
        if as_real is not None and as_real.is_integer() and "." in word and abs(as_real) < _FAR:
            return int(as_real)
        self._check_numbers(items)
        self._check_begin(number)
        self._fail(self.begin, "an orbital index is not an integer")

    def _fail(self, number: int, complaint: str) -> NoReturn:
        raise InputError(f"{self.path} line {number}: {complaint}")
