"""Orbital labels found from the exact zeros of the integrals, and the sectors that they make.

A bit vector f over orbitals with f(p) + f(q) + f(r) + f(s) = 0 (mod 2) wherever (pq|rs) does not vanish, and
f(p) + f(q) = 0 wherever h_pq does not vanish, is a conserved parity. All of them form a null space over GF(2); k
independent ones give every orbital a k-bit label, and a string the XOR of the labels of its occupied orbitals.
H conserves label(alpha) XOR label(beta), the *sector*. Spin-dependent orbitals have labels of their own for each spin,
from one null space over 2 norb bits. No point-group code is needed; what is found is at least the
Abelian point group of the molecule.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit
from sqd_mpi.problem.hamiltonian import Hamiltonian

MAX_TOLERANCE = 1e-10  # integrals above this are never taken for zero
_NOISE_FLOOR = 1e-15
_CLEAR_GAP = 3.0  # a tolerance wants no integral within this factor on either side
_MAX_LABEL_BITS = 5  # 32 labels; more only fragment the vectors (model Hamiltonians can have many parities)


@dataclass(frozen=True)
class OrbitalLabels:
    """Labels of the orbitals of one Hamiltonian."""

    labels: NDArray[np.int64] = field(repr=False)
    """(norb,) int64, label of each orbital, in 0 .. n_labels - 1; of alpha orbitals if they differ."""
    n_labels: int
    """2**k for k independent parities."""
    tolerance: float
    """Integrals up to this magnitude count as zero."""
    max_dropped: float
    """Largest magnitude of an integral that the labels forbid (it is then treated as zero)."""
    effect_bound: float
    """Bound in hartree on the change of any eigenvalue by dropping them."""
    labels_b: NDArray[np.int64] | None = field(repr=False, default=None)
    """(norb,) labels of beta orbitals, or None: those of alpha."""

    @property
    def both(self) -> NDArray[np.int64]:
        """(2, norb) labels of alpha and beta orbitals."""
        return np.stack([self.labels, self.labels if self.labels_b is None else self.labels_b])


def trivial_labels(norb: int) -> OrbitalLabels:
    """One label for all orbitals: symmetry not used."""
    return OrbitalLabels(np.zeros(norb, np.int64), 1, 0.0, 0.0, 0.0)


def find_labels(hamiltonian: Hamiltonian) -> OrbitalLabels:
    """Labels of the orbitals from the integrals alone.

    Args:
        hamiltonian: integrals in hartree.

    Returns:
        labels with 2**k values, k the dimension of the null space without the all-ones vector (at most 5 are used).
    """
    if hamiltonian.spin_dependent:
        return _labels_of_two_spins(hamiltonian)
    tolerance = choose_tolerance(np.concatenate([hamiltonian.h1e.ravel(), hamiltonian.eri]))
    labels, n_labels = _conserved_parities(hamiltonian, tolerance)
    first, second = np.tril_indices(hamiltonian.norb)
    forbidden_h1e = np.abs(hamiltonian.h1e) * (labels[:, None] != labels[None, :])
    largest, total = _forbidden(hamiltonian.eri, labels[first] ^ labels[second])
    # |E_pq| <= 1 for each spin: h_pq counts twice, (pq|rs) at most 8 permutations x 4 spin pairs x 1/2.
    bound = 2.0 * float(forbidden_h1e.sum()) + 16.0 * float(total)
    return OrbitalLabels(labels, n_labels, tolerance, max(float(forbidden_h1e.max()), float(largest)), bound)


def _labels_of_two_spins(hamiltonian: Hamiltonian) -> OrbitalLabels:
    """Labels of spin-dependent orbitals."""
    norb, overlap = hamiltonian.norb, hamiltonian.overlap_ab
    h1e = hamiltonian.same_spin(0)[0], hamiltonian.same_spin(1)[0]
    eri = hamiltonian.eri, hamiltonian.eri if hamiltonian.eri_bb is None else hamiltonian.eri_bb
    values = [*h1e, *eri, hamiltonian.coupling()] + ([] if overlap is None else [overlap])
    tolerance = choose_tolerance(np.concatenate([np.ravel(array) for array in values]))
    labels, n_labels = _conserved_parities_of_two_spins(hamiltonian, h1e, eri, tolerance)

    # What the labels forbid: one-electron integrals, those between the spins, and those of each spin.
    labels_a, labels_b = labels[:norb], labels[norb:]
    first, second = np.tril_indices(norb)
    pairs_a, pairs_b = labels_a[first] ^ labels_a[second], labels_b[first] ^ labels_b[second]
    one = [np.abs(h1e[k][own[:, None] != own[None, :]]) for k, own in enumerate((labels_a, labels_b))]
    between = np.abs(hamiltonian.coupling()[pairs_a[:, None] != pairs_b[None, :]])
    same = [_forbidden(eri[0], pairs_a), _forbidden(eri[1], pairs_b)]

    # 4 permutations between the spins; 8, and 1/2, of each.
    largest = max(*(float(array.max(initial=0.0)) for array in (*one, between)), *(float(most) for most, _ in same))
    bound = sum(float(array.sum()) for array in one) + 4.0 * float(between.sum())
    bound += 4.0 * sum(float(total) for _, total in same)
    return OrbitalLabels(labels_a.copy(), n_labels, tolerance, largest, bound, labels_b.copy())


def string_labels(strings: NDArray[np.uint64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Label of every string: XOR of the labels of its occupied orbitals.

    Args:
        strings: (n, nwords) uint64.
        labels: (norb,) orbital labels.

    Returns:
        (n,) int64.
    """
    result = np.zeros(strings.shape[0], np.int64)
    for bit in range(int(labels.max(initial=0)).bit_length()):
        mask = np.zeros(strings.shape[1], np.uint64)
        for orbital in np.flatnonzero((labels >> bit) & 1):
            mask[orbital // 64] |= np.uint64(1) << np.uint64(orbital % 64)
        parity = np.bitwise_count(strings & mask).sum(axis=1).astype(np.int64) & 1
        result |= parity << bit
    return result


def choose_tolerance(values: NDArray[np.float64]) -> float:
    """Magnitude below which an integral of (n,) counts as zero: in a gap of log10|value|, never above 1e-10.

    Integrals of a symmetric molecule leave a gap between the last real value and rounding noise. If values lie
    close to 1e-10, the widest gap below it is taken instead; then fewer zeros, never a wrong one, are found.
    """
    magnitude = np.abs(values[values != 0.0])
    magnitude = np.sort(magnitude[(magnitude > _NOISE_FLOOR) & (magnitude < MAX_TOLERANCE * _CLEAR_GAP)])
    if not np.any(magnitude > MAX_TOLERANCE / _CLEAR_GAP):
        return MAX_TOLERANCE
    edges = np.concatenate([[_NOISE_FLOOR], magnitude])
    ratios = np.diff(np.log10(edges))
    widest = int(np.argmax(ratios))
    return float(min(MAX_TOLERANCE, np.sqrt(edges[widest] * edges[widest + 1])))


def _conserved_parities(hamiltonian: Hamiltonian, tolerance: float) -> tuple[NDArray[np.int64], int]:
    """Null space by adding one violated constraint at a time: each integral is looked at once."""
    norb = hamiltonian.norb
    first, second = np.tril_indices(norb)
    constraints: list[int] = []
    for p, q in np.argwhere(np.abs(np.tril(hamiltonian.h1e, -1)) > tolerance):
        _add_constraint(constraints, (1 << int(p)) | (1 << int(q)))
    position = 0
    while True:
        labels, n_labels = _labels_of_null_space(constraints, norb)
        pair_labels = labels[first] ^ labels[second]
        position, row, column = _next_violation(hamiltonian.eri, pair_labels, tolerance, position)
        if position < 0:
            return _fewer_labels(labels, n_labels)
        mask = 0
        for orbital in (first[row], second[row], first[column], second[column]):
            mask ^= 1 << int(orbital)
        _add_constraint(constraints, mask)


def _conserved_parities_of_two_spins(
    hamiltonian: Hamiltonian,
    h1e: tuple[NDArray[np.float64], NDArray[np.float64]],
    eri: tuple[NDArray[np.float64], NDArray[np.float64]],
    tolerance: float,
) -> tuple[NDArray[np.int64], int]:
    """The same for spin-dependent orbitals: bits 0 to norb - 1 of a mask are those of alpha, the others of beta."""
    norb, overlap = hamiltonian.norb, hamiltonian.overlap_ab
    first, second = np.tril_indices(norb)
    constraints: list[int] = []
    for spin in (0, 1):
        for p, q in np.argwhere(np.abs(np.tril(h1e[spin], -1)) > tolerance):
            _add_constraint(constraints, (1 << int(p + spin * norb)) | (1 << int(q + spin * norb)))

    # Parities of the number of electrons of one spin say nothing; S^2 conserves but that of all electrons.
    trivial = (0, norb) if overlap is None else (0,)
    if overlap is not None:
        for p, s in np.argwhere(np.abs(overlap) > tolerance):
            _add_constraint(constraints, (1 << int(p)) | (1 << int(s + norb)))

    # Two-electron integrals of each spin, then between the spins.
    for spins in ((0, 0), (1, 1), (0, 1)):
        position = 0
        while True:
            labels, n_labels = _labels_of_null_space(constraints, 2 * norb, trivial)
            left, right = (labels[spin * norb + first] ^ labels[spin * norb + second] for spin in spins)
            if spins == (0, 1):
                violation = _next_violation_between(hamiltonian.coupling(), left, right, tolerance, position)
            else:
                violation = _next_violation(eri[spins[0]], left, tolerance, position)
            position, row, column = violation
            if position < 0:
                break
            mask = 0
            for spin, pair in zip(spins, (row, column), strict=True):
                mask ^= (1 << int(first[pair] + spin * norb)) ^ (1 << int(second[pair] + spin * norb))
            _add_constraint(constraints, mask)
    return _fewer_labels(labels, n_labels)


def _fewer_labels(labels: NDArray[np.int64], n_labels: int) -> tuple[NDArray[np.int64], int]:
    """The labels with no more parities than are useful."""
    if n_labels <= 2**_MAX_LABEL_BITS:
        return labels, n_labels
    return labels & (2**_MAX_LABEL_BITS - 1), 2**_MAX_LABEL_BITS


def _add_constraint(echelon: list[int], mask: int) -> None:
    """Reduce a bit mask by the rows found so far and keep what is left (Gaussian elimination over GF(2))."""
    for row in echelon:
        mask = min(mask, mask ^ row)
    if mask:
        echelon.append(mask)
        echelon.sort(reverse=True)


def _labels_of_null_space(
    echelon: list[int], norb: int, trivial: tuple[int, ...] = (0,)
) -> tuple[NDArray[np.int64], int]:
    """Labels from a basis of the null space that is complementary to the trivial vectors, a free column for each."""
    pivots = [row.bit_length() - 1 for row in echelon]
    free = [orbital for orbital in range(norb) if orbital not in pivots]
    labels = np.zeros(norb, np.int64)
    # The all-ones vector is in the null space (masks have even weight, for each spin alone if there are two trivial
    # vectors), so one free column is redundant. More than 62 parities would not fit a label; any subset of parities is
    # still conserved.
    free = [column for column in free if column not in trivial][:62]
    for bit, column in enumerate(free):
        vector = 1 << column
        for row, pivot in sorted(zip(echelon, pivots, strict=True), key=lambda item: item[1]):
            if (row & vector & ~(1 << pivot)).bit_count() & 1:
                vector |= 1 << pivot
        for orbital in range(norb):
            labels[orbital] |= ((vector >> orbital) & 1) << bit
    return labels, 2 ** len(free)


@jit
def _next_violation(eri, pair_labels, tolerance, start):
    """First packed integral at or after `start` that is not zero but forbidden; (-1, 0, 0) if there is none."""
    n_pairs = pair_labels.shape[0]
    row = np.int64(np.floor((np.sqrt(8.0 * start + 1.0) - 1.0) / 2.0))
    while row * (row + 1) // 2 > start:
        row -= 1
    while (row + 1) * (row + 2) // 2 <= start:
        row += 1
    column = start - row * (row + 1) // 2
    position = np.int64(start)
    while row < n_pairs:
        while column <= row:
            if abs(eri[position]) > tolerance and pair_labels[row] != pair_labels[column]:
                return position, row, column
            position += 1
            column += 1
        row += 1
        column = 0
    return np.int64(-1), np.int64(0), np.int64(0)


@jit
def _next_violation_between(eri, labels_a, labels_b, tolerance, start):
    """First (row, column) at or after the flat position `start` that is not zero but forbidden; (-1, 0, 0) if none."""
    n = labels_b.shape[0]
    for position in range(start, labels_a.shape[0] * n):
        row, column = position // n, position % n
        if abs(eri[row, column]) > tolerance and labels_a[row] != labels_b[column]:
            return np.int64(position), np.int64(row), np.int64(column)
    return np.int64(-1), np.int64(0), np.int64(0)


@jit
def _forbidden(eri, pair_labels):
    """Largest magnitude and sum of magnitudes of the packed integrals that the labels forbid."""
    largest = 0.0
    total = 0.0
    position = np.int64(0)
    for row in range(pair_labels.shape[0]):
        for column in range(row + 1):
            if pair_labels[row] != pair_labels[column]:
                value = abs(eri[position])
                total += value
                largest = max(largest, value)
            position += 1
    return largest, total
