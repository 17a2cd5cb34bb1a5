"""Connections of the strings of one spin, counted once for all grids, and the order that follows from their work.

Singles are counted exactly, doubles on a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit
from sqd_mpi.arrays import FloatArray, IntArray, Shape
from sqd_mpi.backends.cpu import costs
from sqd_mpi.problem.excitations import find_doubles
from sqd_mpi.problem.spin_strings import SpinStrings

_SAMPLED_ROWS = 256  # of each label; fewer strings are counted exactly


@dataclass(frozen=True, eq=False)
class Connections:
    """Connections inside one set of strings, in the order of the set (`SpinStrings.from_canonical`)."""

    strings: SpinStrings = field(repr=False)
    """The set."""
    label: IntArray = field(repr=False)
    """(n,) label of every string."""
    singles: FloatArray = field(repr=False)
    """(n, n_labels) number of singles of every string by label of the orbital pair."""
    doubles: FloatArray = field(repr=False)
    """(n,) number of doubles to strings of the same label."""
    exact: bool
    """Whether the doubles were counted, not estimated."""
    pair_counts: FloatArray = field(repr=False)
    """(n_labels, n_pairs) number of singles by label of the string and orbital pair, both directions."""
    bra: NDArray[np.int32] = field(repr=False)
    """(n_singles,) number of the bra string of every single."""
    ket: NDArray[np.int32] = field(repr=False)
    """(n_singles,) number of the ket string."""

    @property
    def size(self) -> int:
        """Number of strings."""
        return self.strings.size

    @property
    def same_spin(self) -> FloatArray:
        """(n,) number of elements of the same-spin Hamiltonian in every row, diagonal left out."""
        return np.asarray(self.doubles + self.singles[:, 0])


def connections(strings: SpinStrings, norb: int, pair_labels: IntArray) -> Connections:
    """Count the connections inside a set of strings.

    Args:
        strings: in canonical order inside labels.
        norb: number of orbitals.
        pair_labels: (n_pairs,) label of every orbital pair.
    """
    n_labels = strings.n_labels
    csr = strings.singles()
    label = np.repeat(np.arange(n_labels), np.diff(strings.label_start))
    bra = np.repeat(np.arange(strings.size, dtype=np.int32), np.diff(csr.indptr))
    pair = csr.pair >> 1
    key = bra.astype(np.int64) * n_labels + pair_labels[pair]
    singles = np.bincount(key, minlength=strings.size * n_labels).reshape(-1, n_labels).astype(np.float64)
    n_pairs = len(pair_labels)
    pair_counts = np.bincount(label[bra] * n_pairs + pair, minlength=n_labels * n_pairs).astype(np.float64)
    doubles, exact = _doubles(strings, norb, singles.sum(axis=1))
    weighted = strings.weighted(costs.string_weights(np.diff(csr.indptr)), costs.WHOLE_SHARE)
    return Connections(weighted, label, singles, doubles, exact, pair_counts.reshape(n_labels, n_pairs), bra, csr.ket)


def _doubles(strings: SpinStrings, norb: int, n_singles: FloatArray) -> tuple[FloatArray, bool]:
    """Doubles of every string to strings of the same label; beyond a sample from a fit to the numbers of singles."""
    counts = np.zeros(strings.size)
    exact = True
    for first, last in zip(strings.label_start[:-1], strings.label_start[1:], strict=True):
        step = max(1, -(-int(last - first) // _SAMPLED_ROWS))
        sample = np.arange(first, last, step)
        if not len(sample):
            continue
        among = np.ascontiguousarray(strings.strings[first:last])
        found = np.diff(find_doubles(np.ascontiguousarray(strings.strings[sample]), among, norb).indptr)
        if step == 1:
            counts[first:last] = found
            continue
        exact = False
        powers = np.vander(n_singles[sample], 3)
        fitted = np.vander(n_singles[first:last], 3) @ np.linalg.lstsq(powers, found.astype(np.float64), rcond=None)[0]
        fitted = np.maximum(fitted, 0.0)
        total = found.mean() * (last - first)
        counts[first:last] = fitted * (total / fitted.sum()) if fitted.sum() > 0.0 else found.mean()
    return counts, exact


def connected_parts(connected: Connections, part: IntArray, n_parts: int, bits: IntArray) -> NDArray[np.uint64]:
    """(n_parts, n_parts) bit masks: what kinds of singles lead from strings of one part to strings of another.

    Args:
        connected: connections inside a set of strings.
        part: (n,) part of every string.
        n_parts: number of parts.
        bits: (n,) uint64 bit for singles from this string, by its label.
    """
    masks = np.zeros((n_parts, n_parts), np.uint64)
    _mark(connected.bra, connected.ket, part, bits.astype(np.uint64), masks)
    return masks


@jit
def _mark(bra, ket, part, bits, masks):
    for k in range(bra.shape[0]):
        masks[part[bra[k]], part[ket[k]]] |= bits[bra[k]]


def order_strings(
    alpha: SpinStrings, beta: SpinStrings, grid: Shape, deal: bool, spin_flip: bool
) -> tuple[SpinStrings, SpinStrings]:
    """Strings with their weights, in the order in which the blocks of a grid take them.

    Args:
        alpha: strings in canonical order inside labels.
        beta: the same object where they are equal.
        grid: (a, b, t, r).
        deal: whether the parts of the grid get light and heavy strings alike; otherwise consecutive ones.
        spin_flip: whether spin-flip symmetry is used: then both spins keep the same order.
    """
    same = beta is alpha
    alpha = alpha.weighted(costs.string_weights(alpha.n_singles()), costs.WHOLE_SHARE)
    beta = alpha if same else beta.weighted(costs.string_weights(beta.n_singles()), costs.WHOLE_SHARE)
    return deal_strings(alpha, beta, grid, spin_flip) if deal else (alpha, beta)


def deal_strings(
    alpha: SpinStrings, beta: SpinStrings, grid: Shape, spin_flip: bool
) -> tuple[SpinStrings, SpinStrings]:
    """Strings that have weights, dealt so that the parts of a grid get light and heavy ones alike."""
    a, b, _, r = grid
    if spin_flip:
        alpha = alpha.dealt(a)  # row groups are cut inside the blocks, by work
        return alpha, alpha
    return alpha.dealt(a * r), beta.dealt(b)
