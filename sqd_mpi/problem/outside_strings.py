"""Strings outside a set that single or double excitations of its strings reach.

They are found by generating every excitation and inserting it into a hash table, for one part of them at a time: which
part a string belongs to is decided by a hash that an excitation changes by four XORs, so what belongs elsewhere is
passed over in a nanosecond. Parts have nearly equal sizes, and light and heavy strings alike. No rank ever needs all.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit
from sqd_mpi.arrays import Strings
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.excitations import _flip, occupied_orbitals

_FIRST_CAPACITY = 4096


def external_strings(
    strings: Strings, norb: int, degree: int, part: int = 0, n_parts: int = 1, excluded: Strings | None = None
) -> Strings:
    """Strings outside a set that are single (degree 1) or double (degree 2) excitations of one of its strings.

    Args:
        strings: (n, nwords) uint64, the set, no string twice; all have the same number of electrons.
        norb: number of orbitals.
        degree: 1 or 2.
        part: which part of the strings is wanted.
        n_parts: number of parts. Part k of n is the union of the parts k m ... k m + m - 1 of n m.
        excluded: (m, nwords) further strings to leave out.

    Returns:
        (n_found, nwords) in canonical order.
    """
    if len(strings) == 0 or count_candidates(1, norb, int(bitstrings.counts(strings[:1])[0]), degree) == 0:
        return np.empty((0, strings.shape[1]), np.uint64)
    keys = _orbital_keys(norb)
    known = strings if excluded is None else np.concatenate([strings, excluded])
    occupied = occupied_orbitals(strings)
    found, hashes = known, np.empty(len(known), np.uint64)
    _hash_all(known, keys, hashes)
    next_string, n_found = 0, len(known)
    while next_string < len(strings):
        capacity = max(2 * n_found, n_found + count_candidates(1, norb, occupied.shape[1], degree), _FIRST_CAPACITY)
        found, hashes = _grown(found, n_found, capacity), _grown(hashes, n_found, capacity)
        table = np.full(1 << (2 * capacity).bit_length(), -1, np.int64)
        _fill_table(hashes, n_found, table)
        next_string, n_found = _reach(
            strings, next_string, occupied, norb, degree, keys, part, n_parts, found, hashes, n_found, table
        )
    return bitstrings.canonical(found[len(known) : n_found])[0]


def count_candidates(n_strings: int, norb: int, n_electrons: int, degree: int) -> int:
    """Number of excitations of all strings; equal results counted each time."""
    return n_strings * comb(n_electrons, degree) * comb(norb - n_electrons, degree)


def most_external(n_strings: int, norb: int, n_electrons: int, degree: int) -> int:
    """Upper bound of the number of different strings that `external_strings` finds in all parts."""
    return min(count_candidates(n_strings, norb, n_electrons, degree), comb(norb, n_electrons) - n_strings)


def _orbital_keys(norb: int) -> NDArray[np.uint64]:
    """(norb,) a fixed pseudo-random word for every orbital (splitmix64)."""
    with np.errstate(over="ignore"):
        key = np.arange(1, norb + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def _grown(array: NDArray[np.uint64], n_used: int, capacity: int) -> NDArray[np.uint64]:
    larger = np.empty((capacity, *array.shape[1:]), np.uint64)
    larger[:n_used] = array[:n_used]
    return larger


@jit
def _hash_all(strings, keys, out):
    for i in range(strings.shape[0]):
        value = np.uint64(0)
        for orbital in range(keys.shape[0]):
            if (strings[i, orbital >> 6] >> np.uint64(orbital & 63)) & np.uint64(1):
                value ^= keys[orbital]
        out[i] = value


@jit
def _fill_table(hashes, n, table):
    mask = np.uint64(table.shape[0] - 1)
    for i in range(n):
        slot = hashes[i] & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = i


@jit
def _insert(words, value, found, hashes, n_found, table):
    """Append a string unless it is there; the new number of strings."""
    mask = np.uint64(table.shape[0] - 1)
    slot = value & mask
    while table[slot] >= 0:
        candidate = table[slot]
        if hashes[candidate] == value:
            equal = True
            for word in range(words.shape[0]):
                if found[candidate, word] != words[word]:
                    equal = False
            if equal:
                return n_found
        slot = (slot + np.uint64(1)) & mask
    table[slot] = n_found
    hashes[n_found] = value
    found[n_found] = words
    return n_found + 1


@jit
def _reach(strings, first, occupied, norb, degree, keys, part, n_parts, found, hashes, n_found, table):
    """Insert the excitations of the strings from `first` on; stops before a string for which there may be no room.

    Returns:
        the next string, and the number of strings found.
    """
    n_electrons = occupied.shape[1]
    n_virtual = norb - n_electrons
    most = n_electrons * n_virtual
    if degree == 2:
        most = n_electrons * (n_electrons - 1) // 2 * (n_virtual * (n_virtual - 1) // 2)
    virtual = np.empty(n_virtual, np.int64)
    wanted, parts = np.uint64(part), np.uint64(n_parts)
    high = np.uint64(32)
    for i in range(first, strings.shape[0]):
        if n_found + most > found.shape[0]:
            return i, n_found

        # The hash of the string, and the orbitals that are not occupied.
        trial = strings[i].copy()
        n = 0
        own = np.uint64(0)
        for orbital in range(norb):
            if (trial[orbital >> 6] >> np.uint64(orbital & 63)) & np.uint64(1):
                own ^= keys[orbital]
            else:
                virtual[n] = orbital
                n += 1

        # The hash of an excitation tells its part; only a string of the wanted part is made, inserted and undone.
        for q1 in range(n_electrons):
            hole = own ^ keys[occupied[i, q1]]
            for p1 in range(n_virtual):
                once = hole ^ keys[virtual[p1]]
                if degree == 1:
                    if ((once >> high) * parts) >> high == wanted:
                        _flip(trial, occupied[i, q1])
                        _flip(trial, virtual[p1])
                        n_found = _insert(trial, once, found, hashes, n_found, table)
                        _flip(trial, virtual[p1])
                        _flip(trial, occupied[i, q1])
                    continue
                for q2 in range(q1):
                    second = once ^ keys[occupied[i, q2]]
                    for p2 in range(p1):
                        twice = second ^ keys[virtual[p2]]
                        if ((twice >> high) * parts) >> high != wanted:
                            continue
                        _flip(trial, occupied[i, q1])
                        _flip(trial, virtual[p1])
                        _flip(trial, occupied[i, q2])
                        _flip(trial, virtual[p2])
                        n_found = _insert(trial, twice, found, hashes, n_found, table)
                        _flip(trial, virtual[p2])
                        _flip(trial, occupied[i, q2])
                        _flip(trial, virtual[p1])
                        _flip(trial, occupied[i, q1])
    return strings.shape[0], n_found
