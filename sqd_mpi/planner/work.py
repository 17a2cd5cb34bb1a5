"""What the tasks of one sigma do on every sub-block of a grid, from counts of connections; `seconds` prices it.

The rule is that of the kernels (docs/theory.md): an opposite-spin task gathers and scatters its rows and does one
multiply-add for each pair of singles; same-spin tasks do one for each element of their sparse matrix and row or column.
Singles of one orbital pair form groups; the last lanes of a group run empty. How long groups are on a grid follows from
their lengths in the whole set, as if strings were dealt at random.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray, Shape
from sqd_mpi.backends.cpu import costs
from sqd_mpi.distribution.layout import diagonal_blocks_meet_half
from sqd_mpi.planner.connections import connected_parts
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile

_LONG_GROUP = 200.0  # from here on the padding of a group is half of its last vector
_DENSE = 30.0  # from so many singles between two parts on, they are taken for connected without a look


@dataclass(frozen=True, eq=False)
class Part:
    """Counts of connections of the parts of one spin, summed over their strings."""

    rows: FloatArray = field(repr=False)
    """(n_parts, n_labels) strings."""
    singles: FloatArray = field(repr=False)
    """(n_parts, n_labels, n_labels) singles by label of the string and of the orbital pair."""
    doubles: FloatArray = field(repr=False)
    """(n_parts, n_labels) doubles."""


def count_parts(problem: Problem, spin: str, part: IntArray, n_parts: int) -> Part:
    """Sums of the connections of one spin ("alpha" or "beta") over parts, (n,) part of every string."""
    connected = problem.alpha if spin == "alpha" else problem.beta
    n_labels = problem.n_labels
    key = part * n_labels + connected.label
    shape = n_parts, n_labels
    size = n_parts * n_labels

    def summed(weights: FloatArray | None = None) -> FloatArray:
        return np.bincount(key, weights=weights, minlength=size).astype(np.float64)

    singles = np.stack([summed(connected.singles[:, d]) for d in range(n_labels)], axis=-1)
    return Part(summed().reshape(shape), singles.reshape(*shape, n_labels), summed(connected.doubles).reshape(shape))


class Work:
    """Counted work of one sigma on one grid, and what its ranks hold.

    Args:
        problem: the input.
        shape: (a, b, t, r).
        profile: machine, whose backend and lanes decide how much is done.
        n_threads: threads of a rank.
    """

    def __init__(self, problem: Problem, shape: Shape, profile: MachineProfile, n_threads: int):
        self.problem, self.shape, self.profile, self.n_threads = problem, shape, profile, n_threads
        self.parity = problem.parity(shape)
        a, b, _, r = shape
        self.alpha_part, self.beta_part = problem.parts(shape)
        self.alpha = count_parts(problem, "alpha", self.alpha_part, a if self.parity else a * r)
        self.beta = self.alpha if self.parity else count_parts(problem, "beta", self.beta_part, b)
        self.mirror = np.arange(problem.n_labels) ^ problem.sector  # beta label that goes with every alpha label

    @property
    def twin_savings(self) -> tuple[float, float]:
        """What two groups that are treated together save: of multiply-adds (their loads), and of gathered rows."""
        return (0.0, 0.0) if self.profile.backend == "gpu" else (costs.SHARED_TERMS, costs.SHARED_GATHER)

    @cached_property
    def pieces(self) -> int:
        """Into how many pieces of rows a typical opposite-spin task is cut: threads, and task groups beyond tasks."""
        a, b, t, r = self.shape
        groups = max(1, round(t / (a * b)))
        return self.n_threads * groups * (r if self.parity else 1)

    @cached_property
    def group_lengths(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """By (alpha label, label of the pair): lanes per single, groups per single, share of twin groups."""
        return self._lengths_in(1.0)

    def _lengths_in(self, part: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Group lengths in a part of the rows."""
        a, _, _, r = self.shape
        rows = a if self.parity else a * r
        n_labels, lanes = self.problem.n_labels, self.profile.lanes
        expected = self.problem.alpha.pair_counts * part / (a * rows * self.pieces)
        used, groups = padded(expected, lanes), -np.expm1(-expected)
        twins = expected * costs.twin_share(expected)
        sums = [np.zeros((n_labels, n_labels)) for _ in range(4)]
        for d in range(n_labels):
            of_label = self.problem.pair_labels == d
            for total, values in zip(sums, (expected, used, groups, twins), strict=True):
                total[:, d] = values[:, of_label].sum(axis=1)
        singles = np.maximum(sums[0], 1e-300)
        present = sums[0] > 0.0
        return (
            np.where(present, sums[1] / singles, 1.0),
            np.where(present, sums[2] / singles, 0.0),
            sums[3] / singles,
        )

    @cached_property
    def half_of_kets(self) -> bool:
        """Whether blocks on the mirror line meet one of each two mirrored ket blocks only."""
        on_host = self.profile.backend == "cpu"  # a GPU computes triangles without loss
        return on_host and diagonal_blocks_meet_half(self.parity, self.problem.sector, self.shape)

    @cached_property
    def shares(self) -> dict[str, FloatArray]:
        """What is executed of whole rows and columns: opposite-spin "terms", "gather", "scatter", "groups", and "alpha"
        and "beta" of same spin; (a, b, 2) each, with ket blocks at shifts da = db and, in the mean, with the others.

        With spin-flip symmetry a block on the mirror line keeps a triangle, and computes it as such or, with ket blocks
        off the line, computes whole rows for one of two ket blocks. Of a block and its mirror image one keeps half of
        the columns of all rows, the other half of the rows. In sectors other than 0 whole pieces are left out.
        """
        a, b, _, _ = self.shape
        names = "terms", "gather", "scatter", "groups", "alpha", "beta"
        if not self.parity:
            return {name: np.ones((a, b, 2)) for name in names}
        shares = {name: np.full((a, b, 2), 0.5) for name in names}
        if self.problem.sector:
            return shares
        ia, ib = np.indices((a, b))
        shares["gather"][ia > ib] = shares["groups"][ia > ib] = 1.0
        triangle, rows = self._triangle, self._half_of_rows
        for name, share in shares.items():
            share[ia == ib] = triangle.get(name, 0.5)
            share[ia < ib] = rows.get(name, 0.5)
        if self.half_of_kets:
            for name, share in shares.items():  # half of the ket blocks; of same spin alpha alone, with all of them
                share[ia == ib, 1] = {"alpha": 1.0, "beta": 0.0}.get(name, 0.5)
        return shares

    @cached_property
    def _triangle(self) -> dict[str, float]:
        """What is executed of the opposite-spin part where bra rows form a triangle.

        A vector of lanes runs to the longest of its rows, and two groups that are treated together to the longer one of
        two rows. Reading an element of the sparse matrix takes as long as one vector, however many still run.
        """
        if self.profile.backend == "gpu":
            return {"gather": 1.0, "groups": 1.0}
        lanes, groups, twins = (self._mean_of_singles(values) for values in self.group_lengths)
        n_vectors = max(lanes / max(groups, 1e-300) / self.profile.lanes, 1.0)
        stepped = 0.5 * (1.0 + 1.0 / (n_vectors * self.pieces))
        running = min(stepped + costs.RAGGED_TWINS * twins, 1.0)
        terms = costs.stepped_share(running, min(n_vectors, costs.MOST_VECTORS))
        return {"terms": float(terms), "gather": 1.0, "scatter": stepped, "groups": 1.0}

    @cached_property
    def _half_of_rows(self) -> dict[str, float]:
        """What is executed of the opposite-spin part for half of the rows, where groups are half as long."""
        lanes, groups, twins = (self._mean_of_singles(values) for values in self.group_lengths)
        half_lanes, half_groups, half_twins = (self._mean_of_singles(values) for values in self._lengths_in(0.5))
        padding = 0.5 * half_lanes / max(lanes, 1e-300)
        terms, gather = (padding * (1.0 - part * half_twins) / (1.0 - part * twins) for part in self.twin_savings)
        return {"terms": terms, "gather": gather, "scatter": padding, "groups": 0.5 * half_groups / max(groups, 1e-300)}

    def _mean_of_singles(self, values: FloatArray) -> float:
        """Mean over all alpha singles of a quantity by (alpha label, label of the pair)."""
        singles = self.alpha.singles.sum(axis=0)
        return float((singles * values).sum() / max(float(singles.sum()), 1e-300))

    def mean_share(self, name: str) -> FloatArray:
        """(a, b) share of all ket blocks, if connections go to all blocks alike."""
        share, a = self.shares[name], self.shape[0]
        return share[..., 0] / a + share[..., 1] * (1.0 - 1.0 / a)

    @cached_property
    def operations(self) -> dict[str, FloatArray]:
        """(a, r, b) numbers of operations in the tasks of every sub-block, those of all task groups together.

        "terms": multiply-adds of opposite spin; "moved": elements gathered and scattered for them; "groups": of alpha
        singles; "alpha", "beta": multiply-adds of same spin; "rows": elements gathered and scattered for beta.
        """
        b = self.shape[1]
        rows_b, singles_b = self.beta.rows, self.beta.singles

        # Alpha singles as they are executed, (parts, label x pair label): lanes, groups, and what twins leave of both.
        lanes, groups, twins = self.group_lengths
        left = [lanes * (1.0 - part * twins) for part in self.twin_savings]
        singles, number, executed, gathered = (
            (self.alpha.singles * weight).reshape(len(self.alpha.rows), -1) for weight in (lanes, groups, *left)
        )

        # What each of them meets in a block of columns, by the same index.
        met = self._beta_blocks
        terms = singles_b.copy()
        terms[:, :, 0] += rows_b
        order = np.arange(self.problem.n_labels)[:, None] ^ np.arange(self.problem.n_labels)
        kets = rows_b.sum(axis=0)[order] * met / b  # columns of the ket blocks that are gathered
        columns = met * rows_b[:, :, None]
        terms, kets, columns, met = (values[:, self.mirror].reshape(b, -1).T for values in (terms, kets, columns, met))
        moved = self.spread(gathered @ kets, "gather")
        if self.profile.backend == "cpu":  # a GPU sums a row of sigma in registers
            moved = moved + self.spread(singles @ columns, "scatter")

        # Same spin: elements of one matrix times rows or columns of the other spin.
        same_a = self.alpha.doubles + self.alpha.singles[:, :, 0]
        same_b = self.beta.doubles + 2.0 * singles_b[:, :, 0]
        row_elements = rows_b.sum(axis=0) + b * rows_b
        return {
            "terms": self.spread(executed @ terms, "terms"),
            "moved": moved,
            "groups": self.spread(number @ met, "groups"),
            "alpha": self.spread(same_a @ rows_b[:, self.mirror].T, "alpha"),
            "beta": self.spread(self.alpha.rows @ same_b[:, self.mirror].T, "beta"),
            "rows": self.spread(self.alpha.rows @ row_elements[:, self.mirror].T) * self._beta_rows_moved[:, None, :],
        }

    @cached_property
    def same_spin(self) -> SameSpinCounts:
        """Multiply-adds of same spin by label, with sparse and with dense matrices."""
        return SameSpinCounts.create(self)

    @property
    def _beta_rows_moved(self) -> FloatArray:
        """(a, b) share of the ket blocks whose rows are gathered for beta: whole rows, or none."""
        a, b, _, _ = self.shape
        return np.where(np.eye(a, b, dtype=bool), 1.0 / a, 1.0) if self.half_of_kets else np.ones((a, b))

    def spread(self, values: FloatArray, name: str = "") -> FloatArray:
        """(a, r, b) from (parts, b) or (a, r, b), times the named share of each block."""
        a, b, _, r = self.shape
        if values.ndim == 2:
            values = np.repeat(values[:, None, :] / r, r, axis=1) if self.parity else values.reshape(a, r, b)
        return values * self.mean_share(name)[:, None, :] if name else values

    @cached_property
    def _beta_blocks(self) -> FloatArray:
        """(b, n_labels, n_labels) expected number of ket blocks to which a beta block has singles."""
        b = self.shape[1]
        singles = self.beta.singles
        met = b * -np.expm1(-singles / b)
        met[:, :, 0] = np.where(self.beta.rows > 0.0, np.maximum(met[:, :, 0], 1.0), met[:, :, 0])
        return met

    @cached_property
    def needed(self) -> FloatArray:
        """(a, b) number of ket blocks that each block needs, its own included."""
        a, b, _, r = self.shape
        masks_a, masks_b = self._masks("alpha", a, 1 if self.parity else r), self._masks("beta", b, 1)
        if masks_a is None and masks_b is None:
            return np.full((a, b), float(a * b))
        ones = np.uint64(2**64 - 1)
        masks_a = np.full((a, a), ones) if masks_a is None else masks_a
        masks_b = np.full((b, b), ones) if masks_b is None else masks_b
        counts = np.empty((a, b))
        for ib in range(b):
            met = (masks_a[:, :, None] & masks_b[ib][None, None, :]) != 0
            met[np.arange(a), np.arange(a)] = True
            met[:, :, ib] = True
            counts[:, ib] = met.sum(axis=(1, 2))
        return counts

    @property
    def fold_elements(self) -> FloatArray:
        """(a, b) elements of vectors for folding what mirrored tasks gave, on every rank of a block."""
        a, b, _, _ = self.shape
        return self.half_of_kets * np.eye(a, b) * costs.FOLDED_ELEMENTS * self.problem.n_determinants / (a * b)

    def _masks(self, spin: str, n_blocks: int, r: int) -> NDArray[np.uint64] | None:
        """Kinds of singles between blocks of strings; None where they are so many that all will occur."""
        connected = self.problem.alpha if spin == "alpha" else self.problem.beta
        if n_blocks == 1 or len(connected.bra) > _DENSE * n_blocks**2 * self.problem.n_labels**2:
            return None
        part = (self.alpha_part if spin == "alpha" else self.beta_part) // r
        label = connected.label if spin == "alpha" else connected.label ^ self.problem.sector
        masks = connected_parts(connected, part, n_blocks, np.left_shift(np.uint64(1), label.astype(np.uint64)))
        if spin == "beta":  # strings that stay
            own = np.zeros(n_blocks, np.uint64)
            np.bitwise_or.at(own, part, np.left_shift(np.uint64(1), label.astype(np.uint64)))
            masks[np.arange(n_blocks), np.arange(n_blocks)] |= own
        return masks


@dataclass(frozen=True, eq=False)
class SameSpinCounts:
    """Multiply-adds of same spin in one sigma by alpha label, (n_labels, a, r, b) each, all task groups together."""

    sparse: dict[str, FloatArray] = field(repr=False)
    """"alpha" and "beta": elements of the sparse matrices times columns or rows."""
    dense: dict[str, FloatArray] = field(repr=False)
    """The same of dense matrices; with spin-flip symmetry those of exact triangles."""
    of_field: FloatArray = field(repr=False)
    """Singles of beta, for the field of the alpha string, which is sparse in any case."""

    @classmethod
    def create(cls, work: Work) -> SameSpinCounts:
        """Count them on a grid."""
        rows, columns = work.alpha.rows[:, None, :], work.beta.rows[None, :, work.mirror]
        elements = (work.alpha.doubles + work.alpha.singles[:, :, 0])[:, None, :]
        singles, doubles = work.beta.singles[None, :, work.mirror, 0], work.beta.doubles[None, :, work.mirror]
        kets, ket_columns = work.alpha.rows.sum(axis=0), work.beta.rows.sum(axis=0)[work.mirror]

        def spread(values: FloatArray, name: str) -> FloatArray:
            return np.stack([work.spread(values[:, :, x], name) for x in range(values.shape[2])])

        return cls(
            {"alpha": spread(elements * columns, "alpha"), "beta": spread(rows * (doubles + singles), "beta")},
            {"alpha": spread(rows * columns * kets, "alpha"), "beta": spread(rows * columns * ket_columns, "beta")},
            spread(rows * singles, "beta"),
        )


def padded(expected: FloatArray, lanes: int) -> FloatArray:
    """Expected sizes, of any shape, of groups filled up to a multiple of `lanes`, if sizes are Poisson distributed."""
    # Between the knots the padding beyond the size itself is interpolated.
    extra = np.interp(expected, *_padding(lanes))
    return expected + np.where(expected > _LONG_GROUP, costs.empty_lanes(lanes), extra)


@lru_cache
def _padding(lanes: int) -> tuple[FloatArray, FloatArray]:
    """Expected sizes of groups, and by how much they grow when filled up."""
    knots = np.concatenate([[0.0], np.geomspace(1e-3, _LONG_GROUP, 60)])
    sizes = np.arange(0, int(_LONG_GROUP + 8 * _LONG_GROUP**0.5) + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(sizes[1:], 1)))])
    with np.errstate(divide="ignore"):
        weights = np.exp(sizes[None, :] * np.log(np.maximum(knots, 1e-300))[:, None] - knots[:, None] - logs[None, :])
    values = weights @ (np.ceil(sizes / lanes) * lanes)
    return knots, values - knots
