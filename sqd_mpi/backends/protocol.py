"""What a backend offers: blocks with tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqd_mpi.arrays import FloatArray
from sqd_mpi.problem.interaction import Interaction


@dataclass(frozen=True)
class Task:
    """One unit of work of a rank: all connections of one kind to one ket block."""

    kind: str
    """"mixed" (one alpha and one beta string move), "alpha" (only alpha strings move) or "beta". Where exactly the
    terms in which one string moves and the other contributes its density are counted is the backend's choice."""
    da: int
    db: int
    """Shift from the bra block to the ket block, on the periodic a x b torus."""
    cost: float
    """Predicted seconds."""
    rows: tuple[int, int] | None = None
    """First and last (excluded) bra row of the sub-block that the task covers; None for all of them."""
    mirrored: bool = False
    """Whether the task stands for its mirror image as well (`mirror.half_of_kets`): it acts on all elements of a
    diagonal block, and what it gives counts once as it is and once transposed."""


class PartialSum(Protocol):
    """Part of the sum of a block that is not yet in sigma."""

    @property
    def nbytes(self) -> int:
        """Bytes of it."""

    def fold(self, sigma: FloatArray) -> None:
        """Add it to sigma and begin anew."""


class SigmaBlock(Protocol):
    """One rank's share of sigma for one sector."""

    mirrored: PartialSum | None
    """What mirrored tasks have given, or None where no prepared task is mirrored."""

    def tasks(self, interaction: Interaction) -> list[Task]:
        """Every task of this rank's sub-block that may have a connection, with predicted costs, not cut."""

    def row_costs(self, task: Task) -> FloatArray:
        """(n_rows,) predicted seconds of a task for every bra row of the sub-block."""

    def prepare(self, tasks: list[Task]) -> None:
        """Build what these tasks need and forget what no task needs."""

    def apply(self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction) -> None:
        """sigma += (this task's part of the interaction) ket; a mirrored task's part is added to `mirrored`.

        Args:
            task: one of the prepared tasks.
            ket: flat ket block (ia + da, ib + db), in the backend's memory.
            sigma: flat bra sub-block of this rank, likewise.
            interaction: what to apply.
        """

    def diagonal(self, interaction: Interaction, out: FloatArray) -> None:
        """Diagonal of the interaction on this rank's slice, into out (slice size,) in the backend's memory."""
