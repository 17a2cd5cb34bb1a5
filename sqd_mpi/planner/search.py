"""All process grids of a number of ranks, the best of them, and how many ranks pay off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqd_mpi.arrays import Shape
from sqd_mpi.planner.memory import MemoryLimits
from sqd_mpi.planner.prediction import ASSUMED_SIGMAS, GridPlan, predict
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile

MOST_GRIDS = 300  # that are looked at for one number of ranks
_FEWER_GRIDS = 80  # of other numbers of ranks
RANKS = tuple(2**k for k in range(11))
WORTHWHILE = 0.5  # efficiency down to which further ranks are said to pay off
_NEAR = 0.02  # grids whose times differ by less are as good as each other; the one with least memory is taken


@dataclass(frozen=True)
class Plan:
    """Grids of one number of ranks."""

    n_ranks: int
    """Ranks of the run."""
    n_threads: int
    """Threads of a rank."""
    memory: int
    """Bytes of a rank."""
    grids: list[GridPlan] = field(repr=False)
    """Those that fit, fastest first."""
    too_large: list[GridPlan] = field(repr=False)
    """The others, least missing memory first."""
    n_left_out: int
    """Grids that were not looked at."""
    scaling: list[GridPlan] = field(default_factory=list, repr=False)
    """Best grid of other numbers of ranks."""

    @property
    def chosen(self) -> GridPlan | None:
        """The best grid, or None where none fits: the fastest, or one as fast that needs less memory."""
        if not self.grids:
            return None
        limit = (1.0 + _NEAR) * self.grids[0].seconds_per_iteration
        return min(
            (plan for plan in self.grids if plan.seconds_per_iteration <= limit),
            key=lambda plan: plan.bytes_per_rank + plan.device_bytes,
        )

    def efficiencies(self) -> list[float]:
        """Efficiency of every entry of `scaling` against the first."""
        first = self.scaling[0]
        cost = first.seconds_per_iteration * first.n_ranks
        return [cost / (plan.seconds_per_iteration * plan.n_ranks) for plan in self.scaling]

    @property
    def worthwhile_ranks(self) -> int | None:
        """Largest number of ranks of `scaling` up to which the efficiency stays above `WORTHWHILE`."""
        result = None
        for plan, efficiency in zip(self.scaling, self.efficiencies() if self.scaling else [], strict=True):
            if efficiency < WORTHWHILE:
                break
            result = plan.n_ranks
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        chosen = self.chosen
        efficiencies = self.efficiencies() if self.scaling else []
        return {
            "chosen": None if chosen is None else list(chosen.grid),
            "n_ranks": self.n_ranks,
            "n_threads": self.n_threads,
            "memory_bytes": self.memory,
            "missing_bytes": self.too_large[0].missing_bytes if chosen is None else 0,
            "missing_device_bytes": self.too_large[0].missing_device_bytes if chosen is None else 0,
            "assumed_sigmas": ASSUMED_SIGMAS,
            "n_left_out": self.n_left_out,
            "grids": [plan.to_dict() for plan in self.grids],
            "too_large": [plan.to_dict() for plan in self.too_large],
            "scaling": [
                {
                    "n_ranks": plan.n_ranks, "grid": list(plan.grid), "efficiency": efficiency,
                    "seconds_per_sigma": plan.seconds_per_sigma, "seconds_per_iteration": plan.seconds_per_iteration,
                    "seconds_per_solve": plan.seconds_per_solve, "bytes_per_rank": plan.bytes_per_rank,
                }
                for plan, efficiency in zip(self.scaling, efficiencies, strict=True)
            ],
            "worthwhile_ranks": self.worthwhile_ranks,
        }  # fmt: skip


def make_plan(
    problem: Problem, n_ranks: int, profile: MachineProfile, n_threads: int, limits: MemoryLimits,
    scaling: tuple[int, ...] = (), most: int = MOST_GRIDS,
) -> Plan:  # fmt: skip
    """Predict all grids of a number of ranks.

    Args:
        problem: the input.
        n_ranks: number of ranks.
        profile: machine.
        n_threads: threads of a rank.
        limits: memory and subspace.
        scaling: other numbers of ranks whose best grids are wanted as well; those where nothing fits are left out.
        most: grids to look at, those least out of proportion.
    """
    shapes, n_left_out = shapes_of(n_ranks, problem.alpha.size, problem.beta.size, most)
    plans = [predict(problem, shape, profile, n_threads, limits) for shape in shapes]
    fits = sorted((plan for plan in plans if plan.fits), key=lambda plan: plan.seconds_per_iteration)
    rest = sorted(
        (plan for plan in plans if not plan.fits), key=lambda plan: plan.missing_bytes + plan.missing_device_bytes
    )
    best = []
    for n in scaling:
        chosen = Plan(n, n_threads, limits.memory, fits, rest, 0).chosen if n == n_ranks else None
        if n != n_ranks:
            chosen = make_plan(problem, n, profile, n_threads, limits, most=_FEWER_GRIDS).chosen
        if chosen is not None:
            best.append(chosen)
    return Plan(n_ranks, n_threads, limits.memory, fits, rest, n_left_out, best)


def shapes_of(n_ranks: int, n_alpha: int, n_beta: int, most: int = MOST_GRIDS) -> tuple[list[Shape], int]:
    """Grids (a, b, t, r) of a number of ranks, and how many were left out.

    Left out are grids with more blocks or row groups than strings (unless nothing else is left), and of more than
    `most` those whose blocks are most elongated and whose task groups outnumber their tasks most.
    """
    divisors = [n for n in range(1, n_ranks + 1) if n_ranks % n == 0]
    every = [
        (a, b, t, n_ranks // (a * b * t))
        for a in divisors
        for b in divisors
        if n_ranks % (a * b) == 0
        for t in divisors
        if n_ranks % (a * b * t) == 0
    ]
    sensible = [shape for shape in every if shape[0] * shape[3] <= n_alpha and shape[1] <= n_beta] or every
    sensible.sort(key=_oddness)
    return sorted(sensible[:most]), len(every) - len(sensible[:most])


def _oddness(shape: Shape) -> tuple[float, Shape]:
    """How unusual a grid is: elongated blocks, far more task or row groups than blocks."""
    a, b, t, r = shape
    return max(a, b) / min(a, b) + max(1.0, t / (a * b + a + b)) + max(1.0, r / (4.0 * a)), shape
