"""From sampled bit-strings to the strings of subspaces: postselection, configuration recovery, subsampling, carry-over.

A sample over 2 norb bits is [b_{norb-1} ... b_0, a_{norb-1} ... a_0], beta on the left. Here both halves are packed
strings of their own (see `bitstrings`), so a million samples of 72 bits take 16 MB. All of it runs in one process,
depends on the given random generator only, and gives the same for every number of threads.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from tokenize import TokenError
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi._jit import n_threads, parallel_jit
from sqd_mpi.arrays import FloatArray, Strings
from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import checked_nelec
from sqd_mpi.problem.text_files import read_bytes, read_text, shortened, text_of

Pair = tuple[Strings, Strings]

_NPY = b"\x93NUMPY"
_NUMBER = re.compile(r"(0x([0-9a-f]+))|(0b([01]+))", re.IGNORECASE | re.ASCII)
# Weight, relative to 1, of flipping a bit that agrees with the mean occupations: the constant of the published rule.
_RELUCTANCE = 0.01
# By how much the occupation of an orbital may lie outside 0 to 1.
_ROUNDING = 1e-6
# Weights that differ by less come from the same number: rounding must not decide the order of strings.
_SAME_WEIGHT_DIGITS = 11


@dataclass(frozen=True, eq=False)
class Samples:
    """Different sampled bit-strings and how often each was seen, ascending as integers."""

    alpha: Strings = field(repr=False)
    """Right halves, (n, nwords)."""
    beta: Strings = field(repr=False)
    """Left halves, (n, nwords)."""
    probabilities: FloatArray = field(repr=False)
    """(n,) share of every bit-string; they add up to 1."""
    norb: int
    """Number of spatial orbitals, half of the number of bits."""

    def __len__(self) -> int:
        """The number of different bit-strings."""
        return len(self.probabilities)

    def take(self, chosen: NDArray[Any]) -> Samples:
        """Some of the samples, (m,) numbers or (n,) bool, with probabilities that add up to 1 again."""
        probabilities = self.probabilities[chosen]
        return Samples(self.alpha[chosen], self.beta[chosen], probabilities / probabilities.sum(), self.norb)


def merge(alpha: Strings, beta: Strings, weights: ArrayLike, norb: int) -> Samples:
    """Samples of bit-strings that may repeat.

    Args:
        alpha: (n, nwords) right halves, n >= 1.
        beta: (n, nwords) left halves.
        weights: (n,) counts or probabilities, at least 0 and not all 0.
        norb: number of spatial orbitals.

    Raises:
        InputError: there are no samples, they do not fit the orbitals, or the weights do not fit them.
    """
    numbers = np.asarray(weights, dtype=np.float64)
    if len(alpha) == 0:
        raise InputError("there are no samples; at least one bit-string is needed")
    shape = len(alpha), bitstrings.n_words(norb)
    if alpha.shape != shape or beta.shape != shape:
        raise InputError(f"samples of {norb} orbitals are two arrays {shape}; got {alpha.shape} and {beta.shape}")
    beyond = np.uint64(norb - 64 * (shape[1] - 1))  # of the last word
    if beyond < 64 and any((half[:, -1] >> beyond).any() for half in (alpha, beta)):
        raise InputError(f"a sample occupies an orbital that does not exist; there are {norb}")
    if numbers.shape != (len(alpha),) or not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() <= 0:
        raise InputError("every sample needs a finite count of at least 0, and not all may be 0")
    # a power of two keeps every bit, and the sum finite
    numbers = np.ldexp(numbers, -np.frexp(numbers.max())[1])
    whole = np.concatenate([alpha, beta], axis=1)
    order = np.lexsort(whole.T)  # the last key, the most significant word of beta, is the primary one
    start = bitstrings.starts(whole[order])
    sums = np.add.reduceat(numbers[order], start)
    probabilities = sums / sums.sum()
    seen = probabilities > 0
    chosen = order[start[seen]]
    return Samples(alpha[chosen], beta[chosen], probabilities[seen], norb)


def from_matrix(matrix: ArrayLike, norb: int | None = None) -> Samples:
    """Samples of a matrix (n, 2 norb) of bits, one bit-string a row.

    Raises:
        InputError: the matrix has another shape or holds other numbers than 0 and 1.
    """
    bits = np.asarray(matrix)
    if bits.ndim != 2 or bits.shape[1] % 2 or (norb is not None and bits.shape[1] != 2 * norb):
        wanted = "an even number of" if norb is None else str(2 * norb)
        raise InputError(f"samples are a matrix of bits with {wanted} columns, beta then alpha; got shape {bits.shape}")
    if bits.dtype != bool:
        if bits.dtype.kind not in "iuf" or not ((bits == 0) | (bits == 1)).all():
            raise InputError(f"a matrix of bits holds 0 and 1 only; this one is of {bits.dtype} with other values")
        bits = bits.astype(bool)
    n = bits.shape[1] // 2
    alpha, beta = bitstrings.pack(bits[:, n:][:, ::-1]), bitstrings.pack(bits[:, :n][:, ::-1])
    return merge(alpha, beta, np.ones(len(bits)), n)


def from_bit_array(bit_array: Any, norb: int | None = None) -> Samples:
    """Samples of a qiskit `BitArray` (anything with its `array` of packed bits and `num_bits`)."""
    packed = np.asarray(bit_array.array, np.uint8)
    return _from_packed(packed.reshape(-1, packed.shape[-1]), int(bit_array.num_bits), norb)


def _from_packed(packed: NDArray[np.uint8], n_bits: int, norb: int | None) -> Samples:
    """Samples of rows of octets, most significant first, whose last n_bits bits count."""
    return from_matrix(np.unpackbits(packed, axis=1)[:, packed.shape[1] * 8 - n_bits :].astype(bool), norb)


def from_counts(counts: Mapping[Any, float], norb: int) -> Samples:
    """Samples of counts or probabilities of bit-strings, beta on the left; equal bit-strings are added up.

    Args:
        counts: keys are texts of 2 norb characters 0 and 1 (blanks between registers are ignored), numbers as texts
            that begin with 0x or 0b, or integers, as in a qiskit `QuasiDistribution`; each is read by its own kind.
        norb: number of spatial orbitals.

    Raises:
        InputError: a key or a count does not fit; probabilities below 0 are none of samples.
    """
    if not isinstance(counts, Mapping):
        raise InputError(f"counts are a dictionary of bit-strings and numbers; got {type(counts).__name__}")
    if not counts:
        raise InputError("there are no samples; at least one bit-string is needed")
    texts = [_bits_of(key, 2 * norb) for key in counts]
    whole = bitstrings.from_text(texts, 2 * norb, lambda place: f"the key {shortened(repr(list(counts)[place]), 80)}")
    bits = bitstrings.unpack(whole, 2 * norb)
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in counts.values()):
        raise InputError("counts are numbers, one for every bit-string")
    try:
        numbers = np.array([float(value) for value in counts.values()])
    except OverflowError:
        numbers = np.array([np.inf] * len(texts))
    if numbers.min() < 0:
        raise InputError(
            f"every sample needs a finite count of at least 0; got {numbers.min():g} (quasi-probabilities below 0 must "
            "be made probabilities first, as by nearest_probability_distribution() of qiskit)"
        )
    return merge(bitstrings.pack(bits[:, :norb]), bitstrings.pack(bits[:, norb:]), numbers, norb)


def _bits_of(key: Any, n_bits: int) -> str:
    """A key of counts as a text of 0 and 1, which is not checked further if it was a text of bits."""
    shown = shortened(repr(key), 80)
    if isinstance(key, str):
        text = key.replace(" ", "")
        other = text.strip("01")
        number = _NUMBER.fullmatch(text) if other else None
        if number is None:
            if other and text.isdecimal():
                raise InputError(f"the key {shown} is neither {n_bits} bits nor a number that begins with 0x")
            return text
        value = int(number[2] or number[4], 16 if number[2] else 2)
        if " " in key.strip():
            raise InputError(f"the key {shown} must not have blanks in its number")
    elif isinstance(key, Integral) and not isinstance(key, bool):
        value = int(key)
    else:
        raise InputError(f"keys of counts are texts or integers; got {shown}")
    if not 0 <= value < 1 << n_bits:
        raise InputError(f"the key {shown} is not a number of {n_bits} bits, one for each orbital of each spin")
    return f"{value:0{n_bits}b}"


def read_samples(path: str | os.PathLike[str], norb: int) -> Samples:
    """Samples of a file: counts as a JSON object, or an array in the format of .npy; each may be packed with gzip.

    The array is a matrix of bits (shots, 2 norb), or the octets (shots, ceil(2 norb / 8)) of a qiskit `BitArray`, its
    `array`.

    Raises:
        InputError: the file cannot be read or does not fit norb orbitals; the sentence names the file.
    """
    complaint = f"cannot read the samples of {path}"
    content = read_bytes(path, complaint)
    text = None if content.startswith(_NPY) else text_of(content, complaint)
    try:
        return _from_array(content, norb) if text is None else _from_json(text, norb)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, EOFError, RecursionError, SyntaxError, TypeError, TokenError, MemoryError, OverflowError):
        raise InputError(f"{path} holds no samples: a JSON object of counts or a .npy matrix is needed") from None


def _from_array(content: bytes, norb: int) -> Samples:
    """Samples of a file in the format of .npy."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype == np.uint8 and array.ndim >= 2 and array.shape[-1] == -(-2 * norb // 8) != 2 * norb:
        return _from_packed(array.reshape(-1, array.shape[-1]), 2 * norb, norb)
    return from_matrix(array, norb)


def _from_json(text: str, norb: int) -> Samples:
    """Samples of a JSON object of counts."""
    counts = json.loads(text, object_pairs_hook=_each_once)
    if not isinstance(counts, dict):
        raise InputError("there are no counts; a JSON object of bit-strings and numbers is needed")
    return from_counts(counts, norb)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different: the last of equal ones would silently replace the others."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for k, key in enumerate(keys) if key in keys[:k])
        raise InputError(f"counts need each bit-string once; there are several of {twice[:80]!r}")
    return found


def read_occupancies(path: str | os.PathLike[str], norb: int) -> FloatArray:
    """(2, norb) mean occupations of alpha and beta orbitals, a line of a text file for each; may be packed with gzip.

    Raises:
        InputError: the file cannot be read, or does not hold two lines of norb numbers from 0 to 1.
    """
    text = read_text(path, f"cannot read the occupancies of {path}")
    wanted = f"two lines of {norb} numbers from 0 to 1 are needed"
    if not any(line.partition("#")[0].strip() for line in text.split("\n")):
        raise InputError(f"{path}: {wanted}; the file is empty")
    try:
        occupancies = np.loadtxt(io.StringIO(text), ndmin=2)
    except ValueError as error:
        raise InputError(f"cannot read the occupancies of {path}: {error}") from None
    if occupancies.shape != (2, norb):
        raise InputError(f"{path}: {wanted}; there are {len(occupancies)} of {occupancies.shape[1]}")
    wrong = ~((occupancies >= 0) & (occupancies <= 1))
    if wrong.any():
        raise InputError(f"{path}: {wanted}; one is {occupancies[wrong][0]:g}")
    return occupancies


def postselect(samples: Samples, nelec: tuple[int, int]) -> Samples:
    """The samples with the right numbers of electrons.

    Raises:
        InputError: there are none.
    """
    right = (bitstrings.counts(samples.alpha) == nelec[0]) & (bitstrings.counts(samples.beta) == nelec[1])
    if not right.any():
        raise InputError(
            f"no sample has {nelec[0]} alpha and {nelec[1]} beta electrons; the first iteration needs one at least, or "
            "initial occupancies to recover configurations with"
        )
    return samples.take(np.flatnonzero(right))


def flip_weights(occupancies: FloatArray, n_electrons: int) -> FloatArray:
    """(2, norb) relative weights of flipping a bit that is 0 and one that is 1, by the mean occupations (norb,).

    With the filling f = n_electrons / norb and the occupation n, a 0 has the weight 0.01 n / f below the filling and
    rises linearly from 0.01 to 1 above it; a 1 the same with f and n counted from 1: J. Robledo-Moreno et al., Science
    Advances 11, eadu9991 (2025), section on configuration recovery.
    """
    filling = n_electrons / len(occupancies)
    mean = np.clip(np.asarray(occupancies, np.float64), 0.0, 1.0)
    return np.stack([_rise(mean, filling), _rise(1.0 - mean, 1.0 - filling)])


def _rise(occupation: FloatArray, filling: float) -> FloatArray:
    """Weights of `flip_weights` for bits that are 0."""
    if filling >= 1.0:
        return np.where(occupation < 1.0, _RELUCTANCE * occupation, _RELUCTANCE)
    above = 1.0 - (1.0 - _RELUCTANCE) / (1.0 - filling) * (1.0 - occupation)
    below = _RELUCTANCE * occupation / filling if filling > 0 else np.zeros_like(occupation)
    return np.clip(np.where(occupation < filling, below, above), 0.0, 1.0)


def recover(samples: Samples, occupancies: FloatArray, nelec: tuple[int, int], random: np.random.Generator) -> Samples:
    """Samples with the right numbers of electrons, made by flipping bits by the mean occupations of the orbitals.

    A half with electrons too many loses some, one with too few gets some: the bits are drawn one after another,
    without replacement, with the weights of `flip_weights`; bits of weight 0 come last. Halves with the right number
    stay as they are.

    Args:
        samples: any bit-strings.
        occupancies: (2, norb) mean occupations of alpha and beta orbitals.
        nelec: (n_alpha, n_beta).
        random: source of one uniform number per flipped bit.

    Raises:
        InputError: occupancies of another shape or not from 0 to 1, or more electrons than orbitals.
    """
    means = _checked_occupancies(occupancies, samples.norb)
    n_electrons = checked_nelec(nelec, samples.norb)
    halves = [
        _corrected(strings, flip_weights(means[spin], n_electrons[spin]), n_electrons[spin], random)
        for spin, strings in enumerate((samples.alpha, samples.beta))
    ]
    return merge(halves[0], halves[1], samples.probabilities, samples.norb)


def _checked_occupancies(occupancies: ArrayLike, norb: int) -> FloatArray:
    """(2, norb) mean occupations; see `recover` for what is refused."""
    try:
        given = np.asarray(occupancies)
        means = given.real.astype(np.float64) if given.dtype.kind != "U" else None
    except (TypeError, ValueError):
        means = None
    if means is None or given.imag.any():
        raise InputError(f"occupancies are real numbers, (2, {norb}) of alpha and of beta orbitals")
    if means.shape != (2, norb):
        raise InputError(f"occupancies are (2, {norb}), of alpha and of beta orbitals; got shape {means.shape}")
    if not np.isfinite(means).all():
        raise InputError("occupancies contain a value that is not finite (NaN or infinity)")
    outside = means[(means < -_ROUNDING) | (means > 1 + _ROUNDING)]
    if len(outside):
        raise InputError(f"occupancies of alpha and of beta orbitals are numbers from 0 to 1; one is {outside[0]:g}")
    return means


def _corrected(strings: Strings, weights: FloatArray, n_electrons: int, random: np.random.Generator) -> Strings:
    excess = bitstrings.counts(strings) - n_electrons
    first = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(abs(excess), out=first[1:])
    result = strings.copy()
    _flip_bits(result, excess, first, random.random(int(first[-1])), weights, n_threads())
    return result


@parallel_jit
def _flip_bits(strings, excess, first, uniforms, weights, n_parts):
    norb = weights.shape[1]
    for part in numba.prange(n_parts):
        weight = np.empty(norb)
        orbital = np.empty(norb, np.int64)
        begin, end = len(excess) * part // n_parts, len(excess) * (part + 1) // n_parts
        for row in range(begin, end):
            if excess[row] == 0:
                continue
            value = np.uint64(1) if excess[row] > 0 else np.uint64(0)
            count = 0
            for p in range(norb):
                if (strings[row, p >> 6] >> np.uint64(p & 63)) & np.uint64(1) == value:
                    orbital[count] = p
                    weight[count] = weights[np.int64(value), p]
                    count += 1
            for k in range(first[row], first[row + 1]):
                chosen = _draw(weight, count, uniforms[k])
                p = orbital[chosen]
                strings[row, p >> 6] ^= np.uint64(1) << np.uint64(p & 63)
                count -= 1
                for rest in range(chosen, count):
                    orbital[rest], weight[rest] = orbital[rest + 1], weight[rest + 1]


@numba.njit(inline="always")
def _draw(weight, count, uniform):
    """Number of one of the first `count` weights, drawn in proportion; evenly if all are 0."""
    total = 0.0
    for k in range(count):
        total += weight[k]
    if total <= 0.0:
        return min(np.int64(uniform * count), count - 1)
    point, last = uniform * total, 0
    for k in range(count):
        if weight[k] > 0.0:
            last = k
            point -= weight[k]
            if point < 0.0:
                break
    return last


def subsample(
    samples: Samples, samples_per_batch: int, n_batches: int, random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Rows (samples_per_batch,) of n_batches batches, drawn without replacement by probability, or all rows of few.

    The smallest of exponential waiting times with rates p are such a draw: P. S. Efraimidis and P. G. Spirakis,
    Information Processing Letters 97, 181 (2006).

    Raises:
        InputError: a batch would have no row.
    """
    if samples_per_batch < 1:
        raise InputError(f"a batch needs at least one sample; got {samples_per_batch}")
    if samples_per_batch >= len(samples):
        return [np.arange(len(samples))] * n_batches
    batches = []
    for _ in range(n_batches):
        with np.errstate(over="ignore"):  # what is nearly impossible waits for ever
            waiting = random.standard_exponential(len(samples)) / samples.probabilities
        batches.append(np.sort(np.argpartition(waiting, samples_per_batch - 1)[:samples_per_batch]))
    return batches


def batch_strings(
    samples: Samples,
    rows: NDArray[np.int64],
    carried: Pair,
    included: Pair,
    *,
    symmetrize_spin: bool = False,
    max_dim: tuple[int | None, int | None] = (None, None),
) -> Pair:
    """Alpha and beta strings of one batch, in canonical order.

    By rank come the included strings, those carried over, then those of the samples, the most frequent of the batch
    first; the first max_dim of them are kept.

    Args:
        samples: recovered or postselected samples.
        rows: (m,) which of them are in the batch.
        carried: (alpha, beta) strings carried over, by rank, (n, nwords), n may be 0.
        included: the same of strings that every batch has.
        symmetrize_spin: whether both spins get all strings of both; max_dim must then be equal for both.
        max_dim: largest numbers of alpha and beta strings.
    """
    halves = samples.alpha[rows], samples.beta[rows]
    if symmetrize_spin:
        ranked = [*included, _by_frequency(np.concatenate(halves))]
        ranked[2:2] = carried
        both = bitstrings.canonical(_first_of_each(np.concatenate(ranked))[: max_dim[0]])[0]
        return both, both
    ranks = [[included[spin], carried[spin], _by_frequency(halves[spin])] for spin in (0, 1)]
    alpha, beta = (
        bitstrings.canonical(_first_of_each(np.concatenate(each))[:limit])[0]
        for each, limit in zip(ranks, max_dim, strict=True)
    )
    return alpha, beta


def carry_over(
    strings: Pair, weights: Sequence[FloatArray], largest: Sequence[FloatArray], threshold: float, symmetrize_spin: bool
) -> Pair:
    """Strings of some determinant with |coefficient| above the threshold, the heaviest first.

    Args:
        strings: (alpha, beta) in canonical order.
        weights: for both spins (n,) sum of squared coefficients with this string.
        largest: for both spins (n,) largest |coefficient| with this string.
        threshold: of the coefficient.
        symmetrize_spin: whether both spins get all strings of both.
    """
    chosen = [np.flatnonzero(values > threshold) for values in largest]
    kept = [strings[spin][chosen[spin]] for spin in (0, 1)]
    heavy = [np.round(weights[spin][chosen[spin]], _SAME_WEIGHT_DIGITS) for spin in (0, 1)]
    if symmetrize_spin:
        both = _first_of_each(np.concatenate(kept)[np.argsort(-np.concatenate(heavy), kind="stable")])
        return both, both
    alpha, beta = (kept[spin][np.argsort(-heavy[spin], kind="stable")] for spin in (0, 1))
    return alpha, beta


def _by_frequency(strings: Strings) -> Strings:
    """Every string once, the most frequent first, equally frequent ones ascending."""
    order = np.lexsort(strings.T)
    start = bitstrings.starts(strings[order])
    frequency = np.diff(np.append(start, len(strings)))
    return strings[order[start]][np.argsort(-frequency, kind="stable")]


def _first_of_each(strings: Strings) -> Strings:
    """Every string once, in the order of first appearance."""
    order = np.lexsort(strings.T)  # stable: equal strings stay in order
    return strings[np.sort(order[bitstrings.starts(strings[order])])]
