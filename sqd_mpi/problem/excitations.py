"""Singles and doubles between two lists of strings of one spin, as CSR lists over the bra strings.

Two ways to find them, chosen by cost: comparing every bra with every ket (one XOR and popcount a pair, streams), or
generating every excitation of a bra string and looking it up in a hash table of the kets. Memory is linear in what is
found; rows are sorted by ket, so results do not depend on the way or on the number of threads.

Orbital pairs: pair(p, q) = p (p + 1) / 2 + q for p >= q; a directed pair, for E_pq = a+_p a_q with p != q, is
2 pair + (0 if p > q else 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit, parallel_jit

# Measured on a 2-core Zen 4 at 2.6 GHz: one comparison of two words (both passes), and one generated excitation
# looked up.
_NS_PER_COMPARED_WORD = 0.8
_NS_PER_LOOK_UP = 22.0
_SCAN = 512  # kets compared at a time


@dataclass(frozen=True)
class Singles:
    """Single excitations: string[bra] = sign * E_pq string[ket]."""

    indptr: NDArray[np.int64] = field(repr=False)
    """(n_bra + 1,) int64."""
    ket: NDArray[np.int32] = field(repr=False)
    """(nnz,) int32 position in the ket list, ascending in a row."""
    pair: NDArray[np.int32] = field(repr=False)
    """(nnz,) int32 directed pair pq."""
    sign: NDArray[np.int8] = field(repr=False)
    """(nnz,) int8, +1 or -1."""

    @classmethod
    def none(cls, n_bra: int) -> Singles:
        """No single from so many bra strings."""
        nothing = np.empty(0, np.int32)
        return cls(np.zeros(n_bra + 1, np.int64), nothing, nothing, np.empty(0, np.int8))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.indptr.nbytes + self.ket.nbytes + self.pair.nbytes + self.sign.nbytes

    def rows(self, bra: NDArray[np.int64]) -> Singles:
        """The singles of some bra strings, (m,) numbers in any order."""
        counts = np.diff(self.indptr)[bra]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        out: Any = tuple(np.empty(indptr[-1], array.dtype) for array in (self.ket, self.pair, self.sign))
        _copy_rows(self.indptr, self.ket, self.pair, self.sign, bra, indptr, *out)
        return Singles(indptr, *out)

    def between(self, low: int, high: int) -> Singles:
        """The singles to kets low .. high - 1, which are numbered from 0."""
        found = self.where((self.ket >= low) & (self.ket < high))
        return Singles(found.indptr, found.ket - np.int32(low), found.pair, found.sign)

    def where(self, wanted: NDArray[np.bool_]) -> Singles:
        """Some of the singles, (nnz,)."""
        indptr = np.concatenate([[0], np.cumsum(wanted)])[self.indptr].astype(np.int64)
        return Singles(indptr, self.ket[wanted], self.pair[wanted], self.sign[wanted])

    def renumbered(self, new: NDArray[np.int32]) -> Singles:
        """The same singles with ket k called new[k], (n_ket,); sorted anew in every row."""
        out: Any = tuple(np.empty_like(array) for array in (self.ket, self.pair, self.sign))
        _renumber_rows(self.indptr, self.ket, self.pair, self.sign, new, *out)
        return Singles(self.indptr, *out)


@dataclass(frozen=True)
class Doubles:
    """Double excitations: string[bra] = sign * a+_p a_r a+_q a_s string[ket] with p > q and r > s."""

    indptr: NDArray[np.int64] = field(repr=False)
    """(n_bra + 1,) int64."""
    ket: NDArray[np.int32] = field(repr=False)
    """(nnz,) int32 position in the ket list, ascending in a row."""
    created: NDArray[np.int32] = field(repr=False)
    """(nnz,) int32 pair(p, q)."""
    annihilated: NDArray[np.int32] = field(repr=False)
    """(nnz,) int32 pair(r, s)."""
    sign: NDArray[np.int8] = field(repr=False)
    """(nnz,) int8, +1 or -1."""


def find_singles(bra: NDArray[np.uint64], ket: NDArray[np.uint64], norb: int, method: str = "auto") -> Singles:
    """All single excitations between two lists of strings.

    Args:
        bra: (n_bra, nwords) uint64.
        ket: (n_ket, nwords) uint64, no string twice.
        norb: number of orbitals.
        method: "auto", "compare" or "look-up".

    Returns:
        CSR over the bra strings.
    """
    indptr, columns = _connected(bra, ket, norb, 1, method)
    pair = np.empty(columns.size, np.int32)
    sign = np.empty(columns.size, np.int8)
    _describe_singles(bra, ket, indptr, columns, pair, sign)
    return Singles(indptr, columns, pair, sign)


def find_doubles(bra: NDArray[np.uint64], ket: NDArray[np.uint64], norb: int, method: str = "auto") -> Doubles:
    """All double excitations between two lists of strings; arguments as in `find_singles`."""
    indptr, columns = _connected(bra, ket, norb, 2, method)
    created = np.empty(columns.size, np.int32)
    annihilated = np.empty(columns.size, np.int32)
    sign = np.empty(columns.size, np.int8)
    _describe_doubles(bra, ket, indptr, columns, created, annihilated, sign)
    return Doubles(indptr, columns, created, annihilated, sign)


def occupied_orbitals(strings: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Occupied orbitals of strings that all have the same number of electrons, ascending.

    Args:
        strings: (n, nwords) uint64.

    Returns:
        (n, n_electrons) int32; (0, 0) without strings.
    """
    if strings.shape[0] == 0:
        return np.zeros((0, 0), np.int32)
    n_electrons = int(np.bitwise_count(strings[0]).sum())
    out = np.empty((strings.shape[0], n_electrons), np.int32)
    _fill_occupied(strings, out)
    return out


def choose_method(n_ket: int, n_words: int, norb: int, n_electrons: int, degree: int) -> str:
    """The cheaper of "compare" and "look-up" for one bra string (both costs are per bra string)."""
    n_virtual = norb - n_electrons
    candidates = n_electrons * n_virtual
    if degree == 2:
        candidates = n_electrons * (n_electrons - 1) // 2 * (n_virtual * (n_virtual - 1) // 2)
    return "compare" if n_ket * n_words * _NS_PER_COMPARED_WORD <= candidates * _NS_PER_LOOK_UP else "look-up"


def _connected(
    bra: NDArray[np.uint64], ket: NDArray[np.uint64], norb: int, degree: int, method: str
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    n_bra, n_words = bra.shape
    counts = np.zeros(n_bra + 1, np.int64)
    if n_bra == 0 or ket.shape[0] == 0:
        return counts, np.empty(0, np.int32)
    n_electrons = int(np.bitwise_count(bra[0]).sum())
    if method == "auto":
        method = choose_method(ket.shape[0], n_words, norb, n_electrons, degree)
    if method == "compare":
        words = np.ascontiguousarray(ket.T)
        _count_by_comparison(bra, words, degree, counts)
        indptr = np.cumsum(counts)
        columns = np.empty(indptr[-1], np.int32)
        _fill_by_comparison(bra, words, degree, indptr, columns)
        return indptr, columns
    table = _hash_table(ket)
    occupied = occupied_orbitals(bra)
    _look_up(bra, ket, table, occupied, norb, degree, counts, counts, np.empty(0, np.int32), False)
    indptr = np.cumsum(counts)
    columns = np.empty(indptr[-1], np.int32)
    _look_up(bra, ket, table, occupied, norb, degree, counts, indptr, columns, True)
    return indptr, columns


@parallel_jit
def _copy_rows(indptr, ket, pair, sign, bra, new_indptr, new_ket, new_pair, new_sign):
    for i in numba.prange(bra.shape[0]):
        start, first, last = new_indptr[i], indptr[bra[i]], indptr[bra[i] + 1]
        new_ket[start : start + last - first] = ket[first:last]
        new_pair[start : start + last - first] = pair[first:last]
        new_sign[start : start + last - first] = sign[first:last]


@parallel_jit
def _renumber_rows(indptr, ket, pair, sign, new, new_ket, new_pair, new_sign):
    for i in numba.prange(indptr.shape[0] - 1):
        first, last = indptr[i], indptr[i + 1]
        renamed = new[ket[first:last]]
        order = np.argsort(renamed)
        for k in range(last - first):
            new_ket[first + k] = renamed[order[k]]
            new_pair[first + k] = pair[first + order[k]]
            new_sign[first + k] = sign[first + order[k]]


@jit
def _popcount(word):
    # The classical bit-slice sum; LLVM recognises it and emits popcnt, or vpopcntq in vector loops.
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit
def _bit_position(word):
    """Position of the lowest set bit of a non-zero word."""
    return np.int64(_popcount((word & (~word + np.uint64(1))) - np.uint64(1)))


@jit
def _distances(bra_words, ket_words, start, stop, out):
    """Number of differing orbitals of one bra string with kets start..stop; ket_words is (nwords, n_ket)."""
    for j in range(stop - start):
        out[j] = _popcount(bra_words[0] ^ ket_words[0, start + j])
    for word in range(1, ket_words.shape[0]):
        for j in range(stop - start):
            out[j] += _popcount(bra_words[word] ^ ket_words[word, start + j])


@parallel_jit
def _count_by_comparison(bra, ket_words, degree, counts):
    n_ket = ket_words.shape[1]
    target = np.uint64(2 * degree)
    for i in numba.prange(bra.shape[0]):
        distance = np.empty(_SCAN, np.uint64)
        found = np.int64(0)
        for start in range(0, n_ket, _SCAN):
            stop = min(start + _SCAN, n_ket)
            _distances(bra[i], ket_words, start, stop, distance)
            for j in range(stop - start):
                found += np.int64(distance[j] == target)
        counts[i + 1] = found


@parallel_jit
def _fill_by_comparison(bra, ket_words, degree, indptr, columns):
    n_ket = ket_words.shape[1]
    target = np.uint64(2 * degree)
    for i in numba.prange(bra.shape[0]):
        distance = np.empty(_SCAN, np.uint64)
        position = indptr[i]
        if position == indptr[i + 1]:
            continue
        for start in range(0, n_ket, _SCAN):
            stop = min(start + _SCAN, n_ket)
            _distances(bra[i], ket_words, start, stop, distance)
            for j in range(stop - start):
                if distance[j] == target:
                    columns[position] = start + j
                    position += 1


@jit
def _hash(words):
    value = np.uint64(0x9E3779B97F4A7C15)
    for word in words:
        value = (value ^ word) * np.uint64(0xBF58476D1CE4E5B9)
        value = value ^ (value >> np.uint64(31))
    return value


@jit
def _fill_hash_table(strings, table):
    mask = np.uint64(table.shape[0] - 1)
    for i in range(strings.shape[0]):
        slot = _hash(strings[i]) & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = i


def _hash_table(strings: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Open-addressing table of string positions, at most one quarter full."""
    table = np.full(1 << (4 * strings.shape[0]).bit_length(), -1, np.int32)
    _fill_hash_table(strings, table)
    return table


@jit
def _position(words, strings, table):
    mask = np.uint64(table.shape[0] - 1)
    slot = _hash(words) & mask
    while table[slot] >= 0:
        candidate = table[slot]
        equal = True
        for word in range(words.shape[0]):
            if strings[candidate, word] != words[word]:
                equal = False
        if equal:
            return np.int64(candidate)
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@jit
def _flip(words, orbital):
    words[orbital >> 6] ^= np.uint64(1) << np.uint64(orbital & 63)


@parallel_jit
def _look_up(bra, ket, table, occupied, norb, degree, counts, indptr, columns, fill):
    """Generate all excitations of every bra string and look each up; counts them, or fills sorted rows."""
    n_electrons = occupied.shape[1]
    n_virtual = norb - n_electrons
    for i in numba.prange(bra.shape[0]):
        # The orbitals that are not occupied.
        trial = bra[i].copy()
        virtual = np.empty(n_virtual, np.int64)
        n_found = np.int64(0)
        for orbital in range(norb):
            if not (trial[orbital >> 6] >> np.uint64(orbital & 63)) & np.uint64(1):
                virtual[n_found] = orbital
                n_found += 1

        # Electron q1 goes to p1 and, of a double, q2 to p2; what was flipped is flipped back.
        first = indptr[i] if fill else np.int64(0)
        found = np.int64(0)
        for q1 in range(n_electrons):
            _flip(trial, occupied[i, q1])
            for p1 in range(n_virtual):
                _flip(trial, virtual[p1])
                if degree == 1:
                    position = _position(trial, ket, table)
                    if position >= 0:
                        if fill:
                            columns[first + found] = position
                        found += 1
                else:
                    for q2 in range(q1):
                        _flip(trial, occupied[i, q2])
                        for p2 in range(p1):
                            _flip(trial, virtual[p2])
                            position = _position(trial, ket, table)
                            if position >= 0:
                                if fill:
                                    columns[first + found] = position
                                found += 1
                            _flip(trial, virtual[p2])
                        _flip(trial, occupied[i, q2])
                _flip(trial, virtual[p1])
            _flip(trial, occupied[i, q1])

        if fill:
            columns[first : first + found].sort()
        else:
            counts[i + 1] = found


@jit
def occupied_between(words, p, q):
    """Number of occupied orbitals strictly between orbitals p and q of one string."""
    low, high = min(p, q) + 1, max(p, q)
    total = np.int64(0)
    for word in range(low >> 6, (high >> 6) + 1):
        if word >= words.shape[0]:
            break
        bits = words[word]
        if word == low >> 6:
            bits &= ~np.uint64(0) << np.uint64(low & 63)
        if word == high >> 6:
            bits &= (np.uint64(1) << np.uint64(high & 63)) - np.uint64(1)
        total += np.int64(_popcount(bits))
    return total


@jit
def pair_index(p, q):
    """pair(p, q) = p (p + 1) / 2 + q for p >= q, symmetric in its arguments."""
    return p * (p + 1) // 2 + q if p >= q else q * (q + 1) // 2 + p


@jit
def n_moved(bra, ket):
    """Number of electrons that move from one string to another of as many electrons."""
    differing = np.uint64(0)
    for word in range(bra.shape[0]):
        differing += _popcount(bra[word] ^ ket[word])
    return np.int64(differing >> np.uint64(1))


@jit
def differing_orbitals(source, target, out):
    """Orbitals occupied in `source` and not in `target`, ascending, into `out`; returns how many."""
    found = 0
    for word in range(source.shape[0]):
        bits = source[word] & ~target[word]
        while bits != 0:
            if found < out.shape[0]:
                out[found] = 64 * word + _bit_position(bits)
            found += 1
            bits &= bits - np.uint64(1)
    return found


@parallel_jit
def _describe_singles(bra, ket, indptr, columns, pair, sign):
    for i in numba.prange(bra.shape[0]):
        created = np.empty(1, np.int64)
        annihilated = np.empty(1, np.int64)
        for k in range(indptr[i], indptr[i + 1]):
            source = ket[columns[k]]
            differing_orbitals(bra[i], source, created)
            differing_orbitals(source, bra[i], annihilated)
            p, q = created[0], annihilated[0]
            pair[k] = 2 * pair_index(p, q) + (0 if p > q else 1)
            sign[k] = 1 - 2 * (occupied_between(source, p, q) & 1)


@parallel_jit
def _describe_doubles(bra, ket, indptr, columns, created_pair, annihilated_pair, sign):
    for i in numba.prange(bra.shape[0]):
        created = np.empty(2, np.int64)
        annihilated = np.empty(2, np.int64)
        middle = np.empty(bra.shape[1], np.uint64)
        for k in range(indptr[i], indptr[i + 1]):
            source = ket[columns[k]]
            differing_orbitals(bra[i], source, created)
            differing_orbitals(source, bra[i], annihilated)
            q, p = created[0], created[1]
            s, r = annihilated[0], annihilated[1]
            created_pair[k] = pair_index(p, q)
            annihilated_pair[k] = pair_index(r, s)
            middle[:] = source
            _flip(middle, q)
            _flip(middle, s)
            parity = occupied_between(source, q, s) + occupied_between(middle, p, r)
            sign[k] = 1 - 2 * (parity & 1)


@parallel_jit
def _fill_occupied(strings, out):
    for i in numba.prange(strings.shape[0]):
        found = 0
        for word in range(strings.shape[1]):
            bits = strings[i, word]
            while bits != 0:
                out[i, found] = 64 * word + _bit_position(bits)
                found += 1
                bits &= bits - np.uint64(1)
