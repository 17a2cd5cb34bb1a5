"""One sigma on every rank of a grid, task by task: who computes what, which ket blocks travel, who waits.

The tasks of a sub-block get their costs from the counts of singles between the blocks; they are assigned to the task
groups as `solver.tasks.assign` does it, in stretches of equal cost in the order of their ket blocks. Ket blocks
arrive one after the other over the rank's own link, at most two ahead of their use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
from typing import Any

import numpy as np

from sqd_mpi.arrays import FloatArray, IntArray, Shape
from sqd_mpi.distribution.layout import stands_for_mirror_image
from sqd_mpi.planner.connections import Connections
from sqd_mpi.planner.prediction import (
    ASSUMED_SIGMAS,
    REDUCTIONS_PER_STEP,
    SLICES_PER_STEP,
    Messages,
)
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.seconds import Seconds, setup_seconds
from sqd_mpi.planner.work import Work


@dataclass(frozen=True, eq=False)
class Simulation:
    """What every rank does in one sigma; arrays are (a, r, b, t), seconds.

    Attributes:
        grid: (a, b, t, r).
        compute: wall seconds in the tasks.
        slides: ket blocks received; slide_bytes: of each rank.
        exposed: waiting for ket blocks.
        replicas: collecting the own block and adding partial sums.
        vectors: arithmetic on vectors beside the tasks; (a, 1, b, 1).
        step_seconds: the rest of an iteration: vectors of the eigensolver and sums over all ranks.
        setup_seconds: making the lists of connections.
    """

    grid: Shape
    compute: FloatArray = field(repr=False)
    slides: FloatArray = field(repr=False)
    slide_bytes: FloatArray = field(repr=False)
    exposed: FloatArray = field(repr=False)
    replicas: float
    vectors: FloatArray = field(repr=False)
    step_seconds: float
    setup_seconds: float

    @property
    def busy(self) -> FloatArray:
        """Seconds until each rank has done its part of a sigma."""
        return self.compute + self.exposed + self.replicas + self.vectors

    @property
    def seconds_per_sigma(self) -> float:
        """Seconds until the last rank is done."""
        return float(self.busy.max())

    @property
    def imbalance(self) -> float:
        """Largest over mean compute time."""
        return float(self.compute.max() / self.compute.mean())

    def seconds_per_solve(self, n_sigma: int = ASSUMED_SIGMAS) -> float:
        """Seconds of a solve of some iterations."""
        return self.setup_seconds + n_sigma * (self.seconds_per_sigma + self.step_seconds)

    def to_dict(self, n_sigma: int = ASSUMED_SIGMAS) -> dict[str, Any]:
        """Plain values for JSON; means over the ranks where a phase is meant."""
        waiting = float((self.busy.max() - self.busy).mean())
        return {
            "grid": list(self.grid),
            "n_ranks": int(np.prod(self.grid)),
            "seconds_per_sigma": self.seconds_per_sigma,
            "seconds_per_iteration": self.seconds_per_sigma + self.step_seconds,
            "seconds_per_solve": self.seconds_per_solve(n_sigma),
            "imbalance": self.imbalance,
            "compute_seconds": float(self.compute.mean()),
            "wait_seconds": float(self.exposed.mean()),
            "idle_seconds": waiting,
            "replica_seconds": self.replicas,
            "vector_seconds": float(self.vectors.mean()),
            "step_seconds": self.step_seconds,
            "setup_seconds": self.setup_seconds,
            "ket_blocks": int(self.slides.max()),
            "slide_bytes": float(self.slide_bytes.max()),
        }


def simulate(problem: Problem, shape: Shape, profile: MachineProfile, n_threads: int = 1) -> Simulation:
    """Every rank of a grid through one sigma.

    Args:
        problem: the input.
        shape: (a, b, t, r).
        profile: machine.
        n_threads: threads of a rank.
    """
    work = Work(problem, shape, profile, profile.kernel_threads(n_threads))
    a, b, t, r = shape
    cost = block_costs(work) / work.n_threads
    pieces = dealt(cost, t)
    sizes = 8.0 * problem.n_determinants / (a * b)
    remote = pieces[..., 1:] > 0.0
    slides = remote.sum(axis=-1).astype(np.float64)
    compute = pieces.sum(axis=-1)
    exposed = _waiting(pieces, sizes, profile)
    messages, seconds = Messages.create(work), Seconds(work)
    n_ranks = a * b * t * r
    step = SLICES_PER_STEP * problem.dimension(shape) / n_ranks * profile.vector_seconds
    step += REDUCTIONS_PER_STEP * profile.reduction_latency_seconds * log2(n_ranks)
    replicas = messages.exchange_seconds(profile)
    vectors = (profile.vector_seconds * messages.vector_elements + seconds.fold)[:, None, :, None]
    return Simulation(
        shape, compute, slides, slides * sizes, exposed, replicas, vectors, step, setup_seconds(work, n_threads)
    )


def block_costs(work: Work) -> FloatArray:
    """(a, r, b, a b) processor seconds of the tasks with each ket block, by shift (da, db), of all task groups."""
    a, b, _, r = work.shape
    problem, profile, n_labels, seconds = work.problem, work.profile, work.problem.n_labels, Seconds(work)
    n_parts = len(work.alpha.rows)
    blocks_a = work.alpha_part if work.parity else work.alpha_part // r
    counts = _pair_counts(problem.alpha, work.alpha_part, n_parts, blocks_a, a)
    lanes, groups, twins = work.group_lengths
    counts_b = counts if work.parity else _pair_counts(problem.beta, work.beta_part, b, work.beta_part, b)
    terms = counts_b.copy()
    terms[np.arange(b), np.arange(b), :, 0] += work.beta.rows
    present = (terms > 0.0).astype(np.float64)
    order = np.arange(n_labels)[:, None] ^ np.arange(n_labels)
    kets = work.beta.rows[:, order][None] * present  # (1, jb, y, d) columns of each ket block
    columns = work.beta.rows[:, None, :, None] * present
    mirror = work.mirror
    by_alpha = [values[:, :, mirror].reshape(b * b, -1).T for values in (terms, kets, columns, present)]
    singles = counts * lanes

    def product(values: FloatArray, table: FloatArray, name: str) -> FloatArray:
        """(a, r, ib, ja, jb) summed over labels, times the named share of each bra and ket block."""
        flat = (values.reshape(n_parts * a, -1) @ table).reshape(n_parts, a, b, b).transpose(0, 2, 1, 3)
        spread = np.repeat(flat[:, None] / r, r, axis=1) if work.parity else flat.reshape(a, r, b, a, b)
        return np.asarray(spread * _shares_by_ket(work, name)[:, None])

    saved = [singles * (1.0 - part * twins) for part in work.twin_savings]
    mixed = profile.mixed_seconds * product(saved[0], by_alpha[0], "terms")
    mixed += profile.gather_seconds * product(saved[1], by_alpha[1], "gather")
    mixed += profile.gather_seconds * product(singles, by_alpha[2], "scatter")
    mixed += profile.group_seconds * product(counts * groups, by_alpha[3], "groups")
    if profile.backend == "gpu":  # spread over the ket blocks as the direct form would be
        mixed = seconds.blocks["mixed"][..., None, None] * _parts(mixed.reshape(a, r, b, -1)).reshape(mixed.shape)
    mixed += profile.task_seconds * (mixed > 0.0)
    # Same spin: spread over the ket blocks as the singles are, where they are met.
    same = seconds.blocks
    from_a, from_b = counts.sum(axis=(2, 3)), counts_b.sum(axis=(2, 3))
    part_a = np.repeat(from_a[:, None], r, axis=1) if work.parity else from_a.reshape(a, r, a)
    share_a, share_b = _shares_by_ket(work, "alpha"), _shares_by_ket(work, "beta")
    for ib in range(b):
        mixed[:, :, ib, :, ib] += same["alpha"][:, :, ib, None] * _parts(part_a * share_a[:, None, ib, :, ib])
    for ia in range(a):
        mixed[ia, :, :, ia, :] += same["beta"][ia][:, :, None] * _parts(from_b * share_b[ia, :, ia])
    return _by_shift(mixed)


def _shares_by_ket(work: Work, name: str) -> FloatArray:
    """(a, b, a, b) share of every ket block (ja, jb)."""
    a, b, _, _ = work.shape
    share = work.shares[name]
    ia, ib, ja, jb = np.indices((a, b, a, b), sparse=True)
    da, db = (ja - ia) % a, (jb - ib) % b
    on_line = (da == db) & bool(work.parity)
    result = np.where(on_line, share[:, :, None, None, 0], share[:, :, None, None, 1])
    if work.half_of_kets:
        # Means over two ket blocks of which one is met; of same spin there is one.
        chosen = (1.0 if name in ("alpha", "beta") else 2.0) * stands_for_mirror_image(da, db)
        result = np.where((ia == ib) & ~on_line, result * chosen, result)
    return result


def _parts(weights: FloatArray) -> FloatArray:
    """Weights divided by their sum over the last axis."""
    return np.asarray(weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300))


def _by_shift(cost: FloatArray) -> FloatArray:
    """(a, r, b, a b) by shift, from (a, r, b, ja, jb) by ket block."""
    a, _, b, _, _ = cost.shape
    result = np.empty_like(cost)
    for ia in range(a):
        for ib in range(b):
            result[ia, :, ib] = np.roll(cost[ia, :, ib], (-ia, -ib), axis=(1, 2))
    return result.reshape(*cost.shape[:3], a * b)


def _pair_counts(found: Connections, part: IntArray, n_parts: int, block: IntArray, n_blocks: int) -> FloatArray:
    """(n_parts, n_blocks, n_labels, n_labels) singles from a part to a block, by label of the string and the pair."""
    n_labels = found.singles.shape[1]
    label = found.label[found.bra]
    key = (part[found.bra] * n_blocks + block[found.ket]) * n_labels + label
    key = key * n_labels + (label ^ found.label[found.ket])
    size = n_parts * n_blocks * n_labels**2
    return np.bincount(key, minlength=size).astype(np.float64).reshape(n_parts, n_blocks, n_labels, n_labels)


def dealt(cost: FloatArray, n_groups: int) -> FloatArray:
    """(a, r, b, t, n) cost of every ket block in every task group: stretches of equal cost, in the order of blocks."""
    ends = np.cumsum(cost, axis=-1)
    starts = ends - cost
    total = ends[..., -1:]
    low = total * (np.arange(n_groups) / n_groups)
    high = total * ((np.arange(n_groups) + 1) / n_groups)
    inside = np.minimum(ends[..., None, :], high[..., None]) - np.maximum(starts[..., None, :], low[..., None])
    return np.maximum(inside, 0.0)


def _waiting(pieces: FloatArray, size: float, profile: MachineProfile) -> FloatArray:
    """(a, r, b, t) seconds of waiting for ket blocks of `size` bytes, own block first."""
    transfer = profile.slide_latency_seconds + size / profile.slide_bytes_per_second
    if profile.staging_bytes_per_second is not None:
        transfer += size / profile.staging_bytes_per_second
    hidden = profile.hidden_share
    clock = pieces[..., 0].copy()  # computing on the own block; the first slides start with it
    link = np.zeros_like(clock)
    waited = np.zeros_like(clock)
    before = np.zeros_like(clock)  # when the buffer of the block after the next became free
    for k in range(1, pieces.shape[-1]):
        wanted = pieces[..., k] > 0.0
        arrival = np.maximum(link, before) + transfer
        wait = np.maximum(np.maximum(arrival - clock, (1.0 - hidden) * transfer), 0.0) * wanted
        link = np.where(wanted, arrival, link)
        before = np.where(wanted, clock, before)
        waited += wait
        clock = clock + wait + pieces[..., k]
    return waited
