"""Occupation strings of one spin as rows of 64-bit words.

A set of n strings over norb orbitals is a C-contiguous (n, n_words) array of uint64; bit k of word w is the occupation
of orbital 64 w + k. In text the rightmost character is orbital 0. The canonical order of a set is ascending as
integers, without duplicates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi.arrays import Strings
from sqd_mpi.errors import InputError
from sqd_mpi.problem.text_files import described, read_text

_WORD_BITS = 64
_ZERO, _ONE = ord("0"), ord("1")


def n_words(norb: int) -> int:
    """Number of 64-bit words that hold a string over norb orbitals (at least one)."""
    return max(1, -(-norb // _WORD_BITS))


def pack(matrix: ArrayLike) -> Strings:
    """Strings (n, n_words) of an occupation matrix (n, norb) of bool, whose column k is orbital k.

    Raises:
        InputError: it is no matrix.
    """
    occupied = np.asarray(matrix, dtype=bool)
    if occupied.ndim != 2:
        raise InputError(f"an occupation matrix has two dimensions (strings, orbitals); this array has {occupied.ndim}")
    n_strings, norb = occupied.shape
    octets = np.zeros((n_strings, n_words(norb) * 8), dtype=np.uint8)
    octets[:, : -(-norb // 8)] = np.packbits(occupied, axis=1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(strings: Strings, norb: int) -> NDArray[np.bool_]:
    """Occupation matrix (n, norb) of bool of strings (n, n_words); the inverse of `pack`."""
    octets = np.ascontiguousarray(strings, dtype="<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, :norb].astype(bool)


def from_text(lines: Iterable[str], norb: int | None = None, name: Callable[[int], str] | None = None) -> Strings:
    """Strings (n, n_words) of n lines of 0 and 1, whose rightmost character is orbital 0.

    Args:
        lines: one string each, without blanks around it.
        norb: the length every line must have; by default that of the first line.
        name: what the line of a place from 0 is called in the message of an error; by default string 1, 2, ...

    Raises:
        InputError: for a line of another length or with a character that is not 0 or 1.
    """
    texts = list(lines)
    if norb is None:
        norb = len(texts[0]) if texts else 0
    for place, text in enumerate(texts):
        other = text.strip("01")
        if not other and len(text) == norb:
            continue
        called = f"string {place + 1}" if name is None else name(place)
        if other:
            raise InputError(f"{called}: {described(other[0])} is not 0 or 1")
        raise InputError(f"{called}: {norb} characters were expected, one per orbital; there are {len(text)}")
    codes = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8).reshape(len(texts), norb)
    return pack(codes[:, ::-1] == _ONE)


def read_text_file(path: str | os.PathLike[str], norb: int | None = None) -> Strings:
    """Strings of a text file, one a line as for `from_text`; blank lines and those that begin with # are ignored.

    Returns:
        (n, n_words) in the order of the file, duplicates included.

    Raises:
        InputError: the file cannot be read, holds no string, or one that is not norb characters 0 or 1; the sentence
            names the file and the line.
    """
    content = read_text(path, f"cannot read the bit-strings of {path}")
    numbered = [(number, line.strip()) for number, line in enumerate(content.split("\n"), 1)]
    numbered = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not numbered:
        raise InputError(f"{path} holds no bit-strings")
    return from_text([line for _, line in numbered], norb, lambda place: f"{path} line {numbered[place][0]}")


def to_text(strings: Strings, norb: int) -> list[str]:
    """Texts of strings (n, n_words): norb characters 0 or 1, the rightmost of orbital 0; the inverse of `from_text`."""
    codes = np.where(unpack(strings, norb)[:, ::-1], _ONE, _ZERO).astype(np.uint8)
    return [row.tobytes().decode("ascii") for row in codes]


def from_integers(integers: Iterable[int] | NDArray[np.integer], norb: int) -> Strings:
    """Strings (n, n_words) of integers whose bit k is the occupation of orbital k.

    Args:
        integers: Python integers of any size, or an array (n,) of an integer type.
        norb: number of orbitals.

    Raises:
        InputError: an integer is negative or has a bit beyond orbital norb - 1; integers count from 1.
    """
    if isinstance(integers, np.ndarray) and integers.dtype.kind not in "iuO":
        raise InputError(f"bit-strings as numbers must be integers; this array is of type {integers.dtype}")
    width = 8 * n_words(norb)
    octets = bytearray()
    count = 0
    for number, value in enumerate(integers, 1):
        try:
            integer = value.__index__()
        except (AttributeError, TypeError):
            raise InputError(f"string {number}: {value!r} is not an integer") from None
        if not 0 <= integer < 1 << norb:
            raise InputError(f"string {number}: {integer} is not the bit-string of {norb} orbitals")
        octets += integer.to_bytes(width, "little")
        count = number
    return np.frombuffer(bytes(octets), dtype="<u8").reshape(count, n_words(norb)).astype(np.uint64)


def from_sequence(strings: Any, norb: int) -> Strings:
    """Strings (n, n_words) of one spin from whatever a user has for (n,) integers: an array, a list, a tuple.

    Lists are taken as they are: numpy makes floats of lists with integers of more than 63 bits, which lose bits.

    Raises:
        InputError: they are no integers, such as texts and floats, or do not fit the orbitals.
    """
    if np.ndim(strings) != 1:
        raise InputError(f"strings of one spin are (n,) integers; got an array {np.shape(strings)}")
    return from_integers(strings if isinstance(strings, np.ndarray) else list(strings), norb)


def to_integers(strings: Strings) -> list[int]:
    """Python integers of strings (n, n_words), bit k for orbital k; the inverse of `from_integers`."""
    rows = np.ascontiguousarray(strings, dtype="<u8")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def canonical(strings: Strings) -> tuple[Strings, int]:
    """A set (n, n_words) in canonical order, ascending as integers and each once, and the number of rows dropped."""
    order = np.lexsort(strings.T)  # the last key, which is the most significant word, is the primary one
    ordered = np.ascontiguousarray(strings[order], dtype=np.uint64)
    start = starts(ordered)
    return ordered[start], len(ordered) - len(start)


def starts(ordered: Strings) -> NDArray[np.int64]:
    """Rows (m,) of strings (n, n_words) in which equal ones stand together, where a new string begins."""
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.flatnonzero(new)


def counts(strings: Strings) -> NDArray[np.int64]:
    """Number of electrons (n,) of every string (n, n_words)."""
    return np.bitwise_count(strings).sum(axis=1, dtype=np.int64)


def check(strings: Strings, norb: int, n_electrons: int, spin_name: str) -> None:
    """Check that strings fit a Hamiltonian of norb orbitals and n_electrons electrons of one spin.

    Args:
        strings: (n, n_words(norb)) uint64, at least one row.
        norb: number of orbitals of the Hamiltonian.
        n_electrons: its electrons of this spin.
        spin_name: "alpha" or "beta", for the message.

    Raises:
        InputError: the first thing that does not fit, in one sentence; strings count from 1.
    """
    if strings.ndim != 2 or strings.shape[1] != n_words(norb) or strings.dtype != np.uint64:
        raise InputError(
            f"{spin_name} strings over {norb} orbitals are an array (n, {n_words(norb)}) of uint64; "
            f"got {strings.shape} of {strings.dtype}"
        )
    if len(strings) == 0:
        raise InputError(f"there are no {spin_name} strings; at least one is needed")
    _check_range(strings, norb, spin_name)
    electrons = counts(strings)
    wrong = np.flatnonzero(electrons != n_electrons)
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"{spin_name} string {row + 1} has {electrons[row]} electrons; "
            f"the Hamiltonian has {n_electrons} {spin_name} electrons"
        )


def _check_range(strings: Strings, norb: int, spin_name: str) -> None:
    """Raise InputError for a string with an occupied orbital that does not exist."""
    spare_bits = n_words(norb) * _WORD_BITS - norb
    if spare_bits == 0:
        return
    beyond = np.flatnonzero(strings[:, -1] >> np.uint64(_WORD_BITS - spare_bits))
    if len(beyond):
        row = beyond[0]
        orbital = int(to_integers(strings[row : row + 1])[0]).bit_length() - 1
        raise InputError(
            f"{spin_name} string {row + 1} occupies orbital {orbital} (counted from 0); "
            f"the Hamiltonian has {norb} orbitals"
        )


def find(strings_sorted: Strings, queries: Strings) -> NDArray[np.int64]:
    """Positions (n_queries,) of queries in a set in canonical order; -1 where a query is not in the set."""
    if len(strings_sorted) == 0:
        return np.full(len(queries), -1, dtype=np.int64)
    keys, wanted = _keys(strings_sorted), _keys(queries)
    positions = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[positions] == wanted, positions, -1).astype(np.int64)


def _keys(strings: Strings) -> NDArray[np.uint64] | NDArray[np.bytes_]:
    """One sortable key (n,) per string: the word itself, or big-endian bytes, which compare as the integers do."""
    words = strings.shape[1]
    if words == 1:
        return np.ascontiguousarray(strings[:, 0])
    # trailing zero bytes, which numpy ignores in this type, change neither order nor equality at a fixed length
    return np.ascontiguousarray(strings[:, ::-1]).astype(">u8").view(f"S{8 * words}")[:, 0]
