"""Seconds of the work of a grid, at the prices of a machine profile."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.cpu.costs import Rates
from sqd_mpi.backends.gpu import costs as gpu_costs
from sqd_mpi.planner.gpu_work import SameSpinPlan, opposite_seconds
from sqd_mpi.planner.work import Work


class Seconds:
    """Processor seconds of the tasks of one sigma on one grid.

    Args:
        work: what is counted; its profile has the prices.
    """

    def __init__(self, work: Work):
        self.work, self.profile = work, work.profile
        profile = work.profile
        self.rates = Rates(
            profile.gather_seconds, profile.mixed_seconds, profile.same_spin_seconds, profile.group_seconds
        )

    @cached_property
    def blocks(self) -> dict[str, FloatArray]:
        """(a, r, b) processor seconds of the tasks "mixed", "alpha" and "beta" of every sub-block, all task groups."""
        count, rates, same_spin = self.work.operations, self.rates, self._same_spin
        on_gpu = self.profile.backend == "gpu"
        return {
            "mixed": opposite_seconds(self.work)
            if on_gpu
            else rates.opposite_spin(count["terms"], count["moved"], count["groups"]),
            "alpha": same_spin["alpha"],
            "beta": same_spin["beta"] + rates.gather * count["rows"],
        }

    @property
    def _same_spin(self) -> dict[str, FloatArray]:
        """ "alpha" and "beta": (a, r, b) processor seconds of the faster form."""
        count, profile = self.work.operations, self.profile
        if profile.dense_seconds is None:
            return {name: self.rates.of_same_spin(count[name]) for name in ("alpha", "beta")}
        # Vectors that fill most of a device leave less room for matrices; only the bytes of a plan know that.
        share = gpu_costs.MEMORY_SHARE / profile.ranks_per_device
        bound = np.inf if profile.device_bytes is None else share * profile.device_bytes
        return SameSpinPlan.create(self.work, bound).seconds

    @cached_property
    def ranks(self) -> FloatArray:
        """(a, r, b) processor seconds of the tasks of every rank; task groups share them evenly."""
        a, b, t, _ = self.work.shape
        tasks = self.work.needed[:, None, :] + a + b
        total = self.blocks["mixed"] + self.blocks["alpha"] + self.blocks["beta"]
        return np.asarray(total / t + self.profile.task_seconds * np.maximum(tasks / t, 1.0))

    @property
    def balance(self) -> float:
        """Largest over mean processor time of the ranks."""
        return float(self.ranks.max() / self.ranks.mean())

    @property
    def fold(self) -> FloatArray:
        """(a, b) seconds of folding what mirrored tasks gave, on every rank of a block."""
        return self.work.fold_elements * self.profile.vector_seconds


def setup_seconds(work: Work, n_threads: int) -> float:
    """Seconds in which a rank finds its connections: every string of its part is compared with all others."""
    rows, columns = float(work.alpha.rows.sum(axis=1).max()), float(work.beta.rows.sum(axis=1).max())
    if work.parity:
        rows /= work.shape[3]
    pairs = 3.0 * (rows * work.problem.alpha.size + columns * work.problem.beta.size)
    return work.profile.pair_seconds * pairs / n_threads
