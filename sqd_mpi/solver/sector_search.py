"""Which symmetry sector is solved next, for how many roots, and when no wanted state can hide anywhere any more.

Pure: it is told what model spaces and solves have shown and knows no vectors. A sector is *settled* when it cannot
hold another state below the highest wanted root. It says how that was decided:

* `solved`: all its states are known;
* `exact`: its model space is the whole sector;
* `model`: its next model state, lowered by several times what the model spaces missed in the sectors that were solved,
  lies above, and so does every determinant outside, lowered by several times what the states that were solved lie below
  their main determinants; believed only where the model spaces hold nearly all of the weight of every such state;
* `ritz`: iterations from the model state, where its first-order vector is small, or from random vectors, which leave
  no state out, have led to a Ritz value above; or random vectors were stirred into the first steps of its lowest roots,
  which then converged as far as it takes to bring up a state that lies lower, and the highest of them lies above;
* `undecided`: iterations ended too early. Then the result is not proven.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.solver.davidson import Eigenpairs, Step
from sqd_mpi.solver.sectors import (
    HOW_DECIDED,
    Aim,
    Decision,
    Known,
    ModelShare,
    Outlook,
    Sector,
    SectorTask,
    Verdict,
)

# A state of a model space is lowered by so many times what the model spaces missed in states that were solved, or by so
# many times its second-order correction. Over random Hamiltonians with model spaces of 4 to 100 determinants what was
# missed was at most 2.1 times the correction.
CAUTION = 2.5
LEAST_MARGIN = 0.02  # hartree
# Both mean something only where a model space says nearly all about a state: largest weight outside of it, and largest
# norm of a first-order vector. scripts/hard_spaces.py shows what is safe.
LARGEST_OUTSIDE = 0.1
LARGEST_FIRST_ORDER = 0.35
LARGEST_PART = 0.5  # of a sector that is a model space from which others may be judged
# Smaller sectors are not left out without a look, which costs next to nothing.
LEAST_DIMENSION = 100_000
# A Ritz value from random start vectors decides when its residual norm is below this share of its distance.
DECISIVE = 0.03
# Random vectors are stirred into iterations that are slow: where the largest first-order norm falls by less than that a
# step or is too large from the start; and where that says nothing. Late in the iterations too little of them would come
# into the Ritz vectors.
SLOW, LEAST_STIRRED = 0.4, 0.01
# So far are roots followed then, hartree: a state that lies closely below comes up late. With residual norms of 1e-3
# one of 300 hard problems lost a state, with 1e-5 one of 1,000, with 1e-6 none.
SHARP = 1e-6
SAME_ENERGY = 1e-8  # hartree; a state that is missed by less is not missed


@dataclass
class _Sector:
    """What is known about a sector."""

    outlook: Outlook
    lowest: float
    """Lowest energy seen there, hartree."""
    energies: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Of its known roots, hartree."""
    wanted: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Which of them may be wanted roots."""
    missed: float = 0.0
    """By how much model states lie above them at most, hartree."""
    depth: float = 0.0
    """By how much their main determinants lie above them at most, hartree."""
    outside: float = 0.0
    """Their largest weight outside of the model space."""
    hard: bool = False
    """Whether the model space says too little."""
    first_norms: FloatArray = field(default_factory=lambda: np.zeros(0))
    """First-order norms from which the iterations of its lowest roots began."""
    slow: bool = False
    """Whether they come on slowly."""
    stirred: bool = False
    """Whether they have had a part of random vectors."""
    complete_below: float = -np.inf
    """All its states that lie below are known, hartree."""
    how: str | None = None
    """How it was decided, where that cannot be read off the rest."""


class SectorSearch:
    """The order in which sectors are solved.

    Args:
        outlooks: every sector with what its model space says.
        nroots: number of wanted roots over all sectors.
    """

    def __init__(self, outlooks: dict[Sector, Outlook], nroots: int):
        self.nroots = nroots
        self._sectors = {s: _Sector(outlook, float(outlook.energies[0])) for s, outlook in outlooks.items()}
        self._first = _lowest_per_sector({s: outlook.energies for s, outlook in outlooks.items()}, nroots)

    @property
    def bound(self) -> float:
        """Energy of the highest wanted root as far as roots are known, hartree; infinite while there are too few."""
        known = np.sort(np.concatenate([np.full(self.nroots, np.inf), *(s.energies[s.wanted] for s in self._all)]))
        return float(known[self.nroots - 1])

    @property
    def _all(self) -> list[_Sector]:
        return list(self._sectors.values())

    def next(self) -> SectorTask | None:
        """The sector to solve next; None when every sector is settled."""
        while self._first:
            sector = min(self._first, key=lambda s: float(self._sectors[s].outlook.energies[0]))
            count = self._first.pop(sector)
            if count > len(self._sectors[sector].energies):
                return SectorTask(sector, count, Aim.ROOTS)
        bound = self.bound
        open_sectors = [sector for sector in self._sectors if not self._settled(sector, bound)]
        if not open_sectors:
            return None
        sector = min(open_sectors, key=self._order)
        state = self._sectors[sector]
        count = len(state.energies) + 1
        if state.outlook.complete:
            return SectorTask(sector, count, Aim.ROOTS)
        return SectorTask(sector, count, Aim.LOOK if self._lies_above(state, bound) else Aim.GUARD)

    def _lies_above(self, state: _Sector, bound: float) -> bool:
        """Whether the model space is believed and puts the next state of a sector above the bound."""
        if state.hard or not self.believed:
            return False
        missed = max((each.missed for each in self._all), default=0.0)
        depth = max((max(each.depth, each.missed) for each in self._all), default=0.0)
        return _is_above(state.outlook, len(state.energies), bound, missed, depth)

    def _order(self, sector: Sector) -> tuple[bool, float]:
        """Cheap looks first, and what may lower the bound."""
        state = self._sectors[sector]
        k = min(len(state.energies), len(state.outlook.energies) - 1)
        return state.hard, float(state.outlook.energies[k])

    def judge(self, task: SectorTask, step: Step, share: ModelShare | None) -> Verdict:
        """What a step of the eigensolver says about the last root of a task; noted for a checkpoint of this step.

        Args:
            task: what the sector is solved for.
            step: of the eigensolver.
            share: what the model space holds of the vector from which the last root started; None if that was the state
                of the model space itself.
        """
        verdict = self._verdict(task, step, share)
        state = self._sectors[task.sector]
        if task.aim is Aim.ROOTS:
            _follow(state, step, share)
        state.hard = state.hard or verdict is Verdict.UNCLEAR
        state.how = "ritz" if verdict is Verdict.ABOVE else state.how
        return verdict

    def _verdict(self, task: SectorTask, step: Step, share: ModelShare | None) -> Verdict:
        bound, last = self.bound, task.count - 1
        energy, residual_norm = float(step.energies[last]), float(step.residual_norms[last])
        if task.aim is Aim.ROOTS:
            return Verdict.OPEN
        if task.aim is Aim.GUARD:
            return Verdict.ABOVE if decides(energy, residual_norm, bound) else Verdict.OPEN
        small = step.first_order_norms[last] <= LARGEST_FIRST_ORDER
        if step.iteration == 1 and not (small if share is None else share.outside[-1] <= LARGEST_OUTSIDE):
            return Verdict.UNCLEAR
        above = energy + CAUTION * float(step.corrections[last]) > bound + LEAST_MARGIN
        return Verdict.ABOVE if small and above else Verdict.OPEN

    def note(
        self, task: SectorTask, verdict: Verdict, pairs: Eigenpairs, share: ModelShare,
        wanted: NDArray[np.bool_] | None = None,
    ) -> bool:  # fmt: skip
        """Take in what the iterations of a task have led to.

        Args:
            task: what the sector was solved for.
            verdict: with which the iterations ended.
            pairs: eigenpairs, those that were known before and then the others, each ascending; Ritz values where a
                root did not converge.
            share: what the model space holds of their vectors.
            wanted: (count,) which of them may be wanted roots; by default all.

        Returns:
            whether these are roots of the sector that are known from now on.
        """
        state, bound, energies, converged = self._sectors[task.sector], self.bound, pairs.energies, pairs.converged
        state.lowest = min(state.lowest, float(np.min(energies)))
        if verdict is not Verdict.OPEN:
            return False
        if task.aim is not Aim.ROOTS and energies[-1] > bound + SAME_ENERGY:
            if not converged.all():
                state.how = "undecided"
            elif task.aim is Aim.GUARD or share.outside[-1] <= LARGEST_OUTSIDE:
                state.how = "ritz"
            else:
                state.hard = True
            return False
        self.found(task.sector, energies, share, wanted)
        if not converged.all():
            state.how = "undecided"
        elif task.aim is Aim.GUARD:  # the lowest of all that were not known
            state.complete_below = float(energies[-1])
        elif task.aim is Aim.ROOTS and state.stirred and np.all(pairs.residual_norms <= SHARP):
            state.complete_below = float(energies.max())
        return True

    def to_stir(self, task: SectorTask, step: Step) -> bool:
        """Whether random vectors should come into the iterations of a task now."""
        state = self._sectors[task.sector]
        wanted = task.aim is Aim.ROOTS and state.slow and not state.stirred
        return wanted and bool(step.first_order_norms.max() >= LEAST_STIRRED)

    def stirred(self, sector: Sector) -> None:
        """Note that random vectors have come into the iterations of the lowest roots of a sector."""
        self._sectors[sector].stirred = True

    def tolerance(self, task: SectorTask) -> float:
        """Residual norm down to which roots are followed even if a larger one will do, hartree."""
        return SHARP if task.aim is Aim.ROOTS and self._sectors[task.sector].stirred else np.inf

    def found(
        self, sector: Sector, energies: FloatArray, share: ModelShare, wanted: NDArray[np.bool_] | None = None
    ) -> None:
        """Note the lowest roots of a sector; arguments as of `note`."""
        state, order = self._sectors[sector], np.argsort(energies, kind="stable")
        share = ModelShare(*(np.asarray(values)[order] for values in share))
        state.energies = energies = np.array(energies, float)[order]
        state.wanted = (np.ones(len(energies), bool) if wanted is None else np.array(wanted, bool))[order]
        state.lowest = min([state.lowest, *state.energies])
        state.outside = float(np.max(share.outside, initial=0.0))
        k = min(len(energies), len(state.outlook.energies))
        missed = np.concatenate([state.outlook.energies[:k] - state.energies[:k], share.energies - state.energies])
        state.missed = float(np.max(missed, initial=0.0))
        state.depth = float(np.max(share.diagonals - state.energies, initial=0.0))
        state.hard = state.hard or state.outside > LARGEST_OUTSIDE

    def n_found(self, sector: Sector) -> int:
        """How many roots of a sector are known."""
        return len(self._sectors[sector].energies)

    def decisions(self) -> dict[Sector, Decision]:
        """How every sector was decided."""
        bound = self.bound
        return {
            sector: Decision(
                float(min(state.energies, default=state.lowest)),
                self._settled(sector, bound) or "open",
                len(state.energies),
            )
            for sector, state in self._sectors.items()
        }

    def state(self) -> dict[Sector, Known]:
        """What `restore` needs of every sector."""
        return {
            sector: Known(len(state.energies), state.hard, state.how or "", state.stirred, state.complete_below)
            for sector, state in self._sectors.items()
        }

    def restore(self, sector: Sector, known: Known) -> None:
        """Take up what was known about a sector; its roots are noted by `found`."""
        state = self._sectors[sector]
        state.hard = state.hard or known.hard
        state.how = known.how if known.how in HOW_DECIDED else None
        state.complete_below = known.complete_below

    def _settled(self, sector: Sector, bound: float) -> str | None:
        state = self._sectors[sector]
        k, outlook = len(state.energies), state.outlook
        if state.how is not None:
            return state.how
        if k >= outlook.dimension:
            return "solved"
        if state.complete_below > bound - SAME_ENERGY:
            return "ritz"
        if outlook.complete:
            return "exact" if outlook.energies[k] > bound - SAME_ENERGY else None
        looked_at = outlook.dimension >= LEAST_DIMENSION or k > 0
        return "model" if looked_at and self._lies_above(state, bound) else None

    @property
    def believed(self) -> bool:
        """Whether the model spaces explain every root that was solved, and are but a part of those sectors."""
        solved = [each for each in self._all if len(each.energies) and not each.outlook.complete]
        return bool(solved) and all(each.outside <= LARGEST_OUTSIDE and _is_part(each.outlook) for each in solved)


def _follow(state: _Sector, step: Step, share: ModelShare | None) -> None:
    """Note how the iterations of the lowest roots of a sector come on; arguments as of `SectorSearch.judge`."""
    norms = step.first_order_norms
    if step.iteration == 1:  # nothing is known of these iterations yet
        state.first_norms, state.stirred = norms, False
        state.slow = bool(np.any(norms > LARGEST_FIRST_ORDER)) or _is_doubtful(state.outlook, step, share)
    elif share is None:  # else the first norms were small already
        state.slow = state.slow or bool(np.any(norms > state.first_norms * SLOW ** (step.iteration - 1)))


def _is_doubtful(outlook: Outlook, step: Step, share: ModelShare | None) -> bool:
    """Whether a model space will not show that no state lies below the last root, as far as its first step tells."""
    if share is None:
        return not _is_part(outlook)
    count, energy = len(step.energies), float(step.energies[-1])
    missed = max(float(outlook.energies[:count][-1]), float(share.energies[-1])) - energy
    depth = max(float(share.diagonals[-1]) - energy, missed)
    believed = _is_part(outlook) and share.outside[-1] <= LARGEST_OUTSIDE
    return not (believed and _is_above(outlook, count, energy, missed, depth))


def _is_above(outlook: Outlook, n_known: int, bound: float, missed: float, depth: float) -> bool:
    """Whether a model space puts all states but some known ones above a bound.

    Args:
        outlook: what it says.
        n_known: number of known states.
        bound: hartree.
        missed, depth: by how much model states and main determinants lie above states at most, hartree.
    """
    following = float(outlook.energies[min(n_known, len(outlook.energies) - 1)])
    margin, depth = (max(CAUTION * value, LEAST_MARGIN) for value in (missed, depth))
    return following > bound + margin and outlook.edge > bound + depth


def _is_part(outlook: Outlook) -> bool:
    """Whether a model space is so small a part of its sector that it can be judged by what lies outside."""
    return outlook.size <= LARGEST_PART * outlook.dimension


def decides(energy: float, residual_norm: float, bound: float) -> bool:
    """Whether a Ritz value from random start vectors shows that the next root lies above the bound (hartree)."""
    return bool(energy > bound and residual_norm <= DECISIVE * (energy - bound))


def _lowest_per_sector(energies: dict[Sector, FloatArray], nroots: int) -> dict[Sector, int]:
    """How many of the nroots lowest model energies lie in each sector."""
    merged = sorted((float(value), sector) for sector, values in energies.items() for value in values[:nroots])
    counts: dict[Sector, int] = {}
    for _, sector in merged[:nroots]:
        counts[sector] = counts.get(sector, 0) + 1
    return counts
