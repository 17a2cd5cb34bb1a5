"""A sigma on a GPU in a plan: the costs of the backend (`backends.gpu.costs`) on sizes counted from strings.

The backend takes the cheapest form for every task, label of rows and label of orbital pairs. Here the rows of a part of
a grid stand in a few groups of equal size, sorted by their numbers of singles, and the connections of a part are spread
evenly over all ket blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.gpu import costs
from sqd_mpi.backends.gpu.costs import PRODUCT, ListSizes, Rates, opposite_forms
from sqd_mpi.backends.gpu.tiled_shape import TiledShape
from sqd_mpi.errors import InputError
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.work import Work

_GROUPS = 8  # of rows with similar numbers of singles
_MOST_SIZES = 2_000_000  # combinations that are looked at one by one; beyond, rows are one group


def rates_of(profile: MachineProfile) -> Rates:
    """Rates of the kernels on the GPU of a profile.

    What the profile does not say is that of an H100, times the factor by which the direct form is faster.

    Raises:
        InputError: the profile has a rate of an unknown name.
    """
    if unknown := set(profile.device_rates or {}) - set(vars(costs.RATES)):
        known_names = ", ".join(vars(costs.RATES))
        raise InputError(f"device_rates of a machine profile are among {known_names}; got {', '.join(sorted(unknown))}")
    faster = 1.0 / (profile.mixed_seconds * costs.RATES.direct)
    known = {
        "direct": 1.0 / profile.mixed_seconds, "sparse": 1.0 / profile.same_spin_seconds,
        "bytes": 8.0 / profile.gather_seconds, "launch": costs.RATES.launch, **(profile.device_rates or {}),
    }  # fmt: skip
    if profile.dense_seconds is not None:
        known["dense"] = 1.0 / profile.dense_seconds
    return Rates(**{name: known.get(name, value * faster) for name, value in vars(costs.RATES).items()})


def opposite_seconds(work: Work, rates: Rates | None = None) -> FloatArray:
    """(a, r, b) seconds of the opposite-spin tasks of every sub-block on a GPU, those of all task groups together.

    Args:
        work: on a grid.
        rates: of the device; by default those of the profile.
    """
    return _seconds(work, (rates_of(work.profile) if rates is None else rates,))


def opposite_floor(work: Work, rates: Rates) -> FloatArray:
    """(a, r, b) the same if arithmetic and memory hide behind each other, at the highest rates of a device."""
    arithmetic = Rates(**{**vars(rates), "bytes": np.inf})
    memory = Rates(**{name: np.inf for name in vars(rates)} | {"bytes": rates.bytes, "launch": 0.0})
    return _seconds(work, (arithmetic, memory))


def _seconds(work: Work, bounds: tuple[Rates, ...]) -> FloatArray:
    """Of every form the longest of some times, of these the shortest for every label of rows and pairs."""
    a, b, _, r = work.shape
    sizes, share, launch = _list_sizes(work), _row_groups(work), bounds[0].launch
    n_singles = work.alpha.singles / np.maximum(work.alpha.rows, 1e-300)[:, :, None] / a  # of a row, to one ket block
    counts = n_singles[:, :, :, None] * share  # (parts, x, d, groups)
    present = np.minimum(counts, 1.0) if a == 1 else -np.expm1(-counts)  # share of the rows that have any
    n_rows = work.alpha.rows[:, :, None, None] / share.shape[2] * present
    counts = counts / np.maximum(present, 1e-300)
    shape = TiledShape.choose(work.profile.device_shared_bytes, int(work.beta.rows.max()))
    total = np.zeros((len(counts), b))
    for ib in range(b):
        for part, (rows, wanted) in enumerate(_stored(work, ib)):
            of_block = ListSizes(*(values[ib][:, :, None] for values in sizes))
            for halved, n_tasks in _tasks(work, part, ib):
                by_bound = [opposite_forms(of_block, counts[part], wanted, rates, halved, shape) for rates in bounds]
                forms = [np.maximum.reduce([form[2] for form in same]) for same in zip(*by_bound, strict=True)]
                seconds = [(n_rows[part] * form).sum(axis=-1) * rows for form in forms]
                seconds[PRODUCT] = seconds[PRODUCT] + costs.PRODUCT_LAUNCHES * launch * (seconds[PRODUCT] > 0.0)
                total[part, ib] += np.minimum.reduce(seconds).sum() * n_tasks
    if work.parity:
        return np.repeat(total[:, None, :] / r, r, axis=1)
    return total.reshape(a, r, b)


def _tasks(work: Work, part: int, ib: int) -> list[tuple[bool, int]]:
    """How many ket blocks are their own mirror images, as is the bra block, and how many others are met."""
    a, b, _, r = work.shape
    on_line = work.parity != 0 and work.problem.sector == 0 and r == 1 and part == ib
    return [(True, a), (False, a * b - a)] if on_line else [(False, a * b)]


def _stored(work: Work, ib: int) -> list[tuple[float, float]]:
    """For every part of the rows the share that is stored with columns ib, and the share of their columns."""
    if not work.parity:
        return [(1.0, 1.0)] * len(work.alpha.rows)
    if work.problem.sector:
        return [(0.5, 1.0)] * len(work.alpha.rows)
    return [(0.5, 1.0) if ia < ib else (1.0, 0.5) for ia in range(len(work.alpha.rows))]


def _list_sizes(work: Work) -> tuple[FloatArray, ...]:
    """Fields of `ListSizes`, (b, n_labels, n_labels) by block of columns, alpha label and label of the pairs.

    Mean of the lists of all ket blocks.
    """
    problem, b = work.problem, work.shape[1]
    rows, mirror, labels = work.beta.rows, work.mirror, np.arange(work.problem.n_labels)
    columns = np.repeat(rows[:, mirror, None], len(labels), axis=2)
    diagonal = np.zeros(columns.shape)
    diagonal[:, :, 0] = problem.nelec[1] * rows[:, mirror] / b
    n_ket = np.broadcast_to(rows.sum(axis=0)[mirror[:, None] ^ labels] / b, columns.shape)
    used = np.broadcast_to(used_pairs(problem, b)[mirror], columns.shape)
    return work.beta.singles[:, mirror] / b, diagonal, columns, n_ket, used


def used_pairs(problem: Problem, n_blocks: int = 1) -> FloatArray:
    """(n_labels, n_labels) orbital pairs that beta singles between two blocks use, by label of the string and pair."""
    counts = problem.beta.pair_counts / n_blocks**2
    present = np.minimum(counts, 1.0) if n_blocks == 1 else -np.expm1(-counts)
    used = np.stack([present[:, problem.pair_labels == d].sum(axis=1) for d in range(problem.n_labels)], axis=1)
    used[:, 0] += problem.norb / n_blocks  # pairs (r, r) of the diagonal, of the own block
    return used


def _row_groups(work: Work) -> FloatArray:
    """(n_labels, n_labels, groups) singles of the rows of every group, relative to the mean of all rows of a label."""
    alpha, n_labels = work.problem.alpha, work.problem.n_labels
    n_groups = _GROUPS if len(work.alpha.rows) * n_labels**2 * _GROUPS * work.shape[1] <= _MOST_SIZES else 1
    share = np.ones((n_labels, n_labels, n_groups))
    for x in range(n_labels):
        counts = np.sort(alpha.singles[alpha.label == x], axis=0)
        if len(counts) < n_groups or n_groups == 1:
            continue
        means = np.stack([part.mean(axis=0) for part in np.array_split(counts, n_groups)], axis=-1)
        share[x] = means / np.maximum(means.mean(axis=-1, keepdims=True), 1e-300)
    return share


def timed_terms(work: Work, dense: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Multiply-adds of matrix products, (n_labels, a, r, b), that would take as long on a device which they fill.

    Triangles are computed in chunks up to their longest rows, and a product of few elements does not fill a device.
    """
    a, b, _, r = work.shape
    rows = work.alpha.rows / r if work.parity else work.alpha.rows.reshape(a, r, -1).mean(axis=1)  # (a, n_labels)
    chunks = np.ceil(rows / np.maximum([[costs.chunk_rows(int(n), int(n)) for n in row] for row in rows], 1))
    triangle = (np.eye(a, b) * (work.parity != 0 and work.problem.sector == 0))[None, :, None, :]
    parts = 1.0 + triangle * np.maximum(chunks.T[:, :, None, None] - 1.0, 0.0)
    longer = 1.0 + triangle / np.maximum(parts, 1.0)
    depth = {"alpha": work.alpha.rows.sum(axis=0), "beta": work.beta.rows.sum(axis=0)[work.mirror]}
    least = {name: costs.FULL_DEVICE * parts * each[:, None, None, None] for name, each in depth.items()}
    return {name: np.where(terms > 0.0, np.maximum(terms * longer, least[name]), 0.0) for name, terms in dense.items()}


@dataclass(frozen=True, eq=False)
class SameSpinPlan:
    """Which labels have dense matrices on all ranks, and what that means."""

    chosen: dict[str, NDArray[np.bool_]] = field(repr=False)
    """"alpha" and "beta": (n_labels,) by alpha label."""
    seconds: dict[str, FloatArray] = field(repr=False)
    """"alpha" and "beta": (a, r, b) processor seconds, all task groups together."""
    n_bytes: int
    """Of the matrices of the rank that has most."""

    @classmethod
    def create(cls, work: Work, bound: float) -> SameSpinPlan:
        """The faster form for every label, as long as the matrices of a rank take no more than so many bytes."""
        profile, counts = work.profile, work.same_spin
        sparse = {name: profile.same_spin_seconds * terms for name, terms in counts.sparse.items()}
        chosen = {name: np.zeros(work.problem.n_labels, bool) for name in sparse}
        n_bytes, dense = np.zeros(2 * work.problem.n_labels), sparse
        if profile.dense_seconds is not None:
            timed = timed_terms(work, counts.dense)
            dense = {name: profile.dense_seconds * terms for name, terms in timed.items()}
            saved = np.concatenate([(sparse[name] - dense[name]).mean(axis=(1, 2, 3)) for name in sparse])
            n_bytes = np.concatenate([matrix_bytes(work)[name] for name in sparse])
            taken = costs.choose(saved, n_bytes, bound)
            chosen = dict(zip(sparse, np.split(taken, 2), strict=True))
            n_bytes = n_bytes * taken
        seconds = {
            name: np.where(chosen[name][:, None, None, None], dense[name], sparse[name]).sum(axis=0) for name in sparse
        }
        seconds["beta"] = seconds["beta"] + profile.same_spin_seconds * counts.of_field.sum(axis=0)
        return cls(chosen, seconds, int(n_bytes.sum()))


def matrix_bytes(work: Work) -> dict[str, FloatArray]:
    """ "alpha" and "beta": (n_labels,) bytes of the matrix of every alpha label, on the rank where it is largest."""
    a, b, t, r = work.shape
    rows = work.alpha.rows.max(axis=0) / (r if work.parity else 1)
    columns, ket_columns = work.beta.rows.max(axis=0)[work.mirror], work.beta.rows.sum(axis=0)[work.mirror]
    part_a, part_b = (min(1.0, 1.0 / t + 1.0 / n) for n in (a, b))  # a task group keeps what its tasks need
    return {"alpha": 8.0 * part_a * rows * work.alpha.rows.sum(axis=0), "beta": 8.0 * part_b * columns * ket_columns}
