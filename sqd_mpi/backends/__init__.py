"""Backends compute one rank's share of sigma = H C. They see arrays and ranges, never a communicator.

A backend turns a layout and a place in the grid into a *block*: an object that lists its tasks with predicted costs,
prepares those that it is given, and applies them one at a time to a ket block.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.options import InputError
from sqd_mpi.problem.hamiltonian import Hamiltonian

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One unit of work of a rank: all connections of one kind to one ket block.

    Attributes:
        kind: "mixed" (one alpha and one beta string move), "alpha" (only alpha strings move) or "beta". Where exactly
            the terms in which one string moves and the other contributes its density are counted is the backend's
            choice.
        da, db: shift from the bra block to the ket block, on the periodic a x b torus.
        cost: predicted seconds.
        rows: first and last (excluded) bra row of the sub-block that the task covers; None for all of them.
        mirrored: whether the task stands for its mirror image as well (`mirror.half_of_kets`): it acts on all elements
            of a diagonal block, and what it gives counts once as it is and once transposed.
    """

    kind: str
    da: int
    db: int
    cost: float
    rows: tuple[int, int] | None = None
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class Interaction:
    """What is applied: constant + [H_alpha + H_beta] + sum (coupling_pq,rs - swap delta_ps delta_qr + twist_pq,rs)
    E^alpha_pq E^beta_rs.

    Attributes:
        coupling: (n_pairs, n_pairs) float64, alpha pairs in rows.
        swap: strength of the exchange term that makes S^2.
        same_spin: whether the one-body and same-spin two-body parts take part.
        constant: added to the diagonal.
        twist: (n_pairs, n_pairs) the part of the coupling that changes its sign with the direction of either pair,
            given for p >= q and r >= s; or None.
    """

    coupling: FloatArray = field(repr=False)
    swap: float
    same_spin: bool
    constant: float
    twist: FloatArray | None = field(repr=False, default=None)

    @classmethod
    def energy(cls, hamiltonian: Hamiltonian) -> Interaction:
        """The Hamiltonian itself, core energy included."""
        return cls(hamiltonian.coupling(), 0.0, True, hamiltonian.ecore)

    @classmethod
    def spin_square(cls, hamiltonian: Hamiltonian) -> Interaction:
        """S^2 = M (M + 1) + N_beta - sum_pq E^alpha_pq E^beta_qp with M = (N_alpha - N_beta) / 2.

        For spin-dependent orbitals of overlap O the sum is over O_ps O_qr E^alpha_pq E^beta_rs.

        Raises:
            InputError: the overlap is needed and missing.
        """
        n_pairs = hamiltonian.norb * (hamiltonian.norb + 1) // 2
        n_alpha, n_beta = hamiltonian.nelec
        magnetisation = (n_alpha - n_beta) / 2
        constant = magnetisation * (magnetisation + 1) + n_beta
        if not hamiltonian.spin_dependent:
            return cls(np.zeros((n_pairs, n_pairs)), 1.0, False, constant)
        overlap = hamiltonian.overlap_ab
        if overlap is None:
            raise InputError("S^2 of spin-dependent integrals needs the overlap of the orbitals (overlap_ab)")
        p, q = np.tril_indices(hamiltonian.norb)
        straight = overlap[np.ix_(p, p)] * overlap[np.ix_(q, q)]  # O_pr O_qs
        crossed = overlap[np.ix_(p, q)] * overlap[np.ix_(q, p)]  # O_ps O_qr
        return cls(-0.5 * (crossed + straight), 0.0, False, constant, -0.5 * (crossed - straight))

    def shifted(self, constant: float) -> Interaction:
        """This one with another constant added to the diagonal."""
        return replace(self, constant=self.constant + constant)

    def plus(self, other: Interaction, factor: float, constant: float = 0.0) -> Interaction:
        """This one + factor (other + constant), for S^2 as the other one."""
        total = replace(
            self, swap=self.swap + factor * other.swap, constant=self.constant + factor * (other.constant + constant)
        )
        if other.twist is None:  # then all of its coupling is the swap
            return total
        return replace(total, coupling=self.coupling + factor * other.coupling, twist=factor * other.twist)


class PartialSum(Protocol):
    """Part of the sum of a block that is not yet in sigma."""

    @property
    def nbytes(self) -> int:
        """Bytes of it."""

    def fold(self, sigma: FloatArray) -> None:
        """Add it to sigma and begin anew."""


class SigmaBlock(Protocol):
    """One rank's share of sigma for one sector.

    Attributes:
        mirrored: what mirrored tasks have given, or None where no prepared task is mirrored.
    """

    mirrored: PartialSum | None

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


def get_backend(name: str) -> Any:
    """The module of a backend; it has `create_share`, `create_block` and `create_memory`.

    Args:
        name: "cpu", "gpu" or "reference"; "auto" is the CPU here, as only the size of a problem says whether a device
            pays (`planner.choose_backend`).
    """
    if name in ("auto", "cpu"):
        from sqd_mpi.backends import cpu

        return cpu
    if name == "gpu":
        from sqd_mpi.backends import gpu

        return gpu
    if name == "reference":
        from sqd_mpi.backends import reference

        return reference
    raise ValueError(f"a backend is one of auto, cpu, gpu, reference; got {name!r}")


def device_is_there() -> bool:
    """Whether this process sees a GPU and the library that the backend gpu needs."""
    from sqd_mpi.backends.gpu.device import is_there

    return is_there()


def get_density_backend(name: str) -> Any:
    """The module that makes density matrices beside a backend; it has `create_density_block`.

    Args:
        name: as for `get_backend`.
    """
    if name == "reference":
        from sqd_mpi.backends import reference

        return reference
    if name == "gpu":
        from sqd_mpi.backends.gpu import density as gpu_density

        return gpu_density
    from sqd_mpi.backends import density

    return density


def get_external_tile(name: str) -> Any:
    """The class that makes amplitudes of determinants outside the space beside a backend (`external.ExternalTile`).

    Args:
        name: as for `get_backend`; every backend but "reference" uses the CPU for them.
    """
    from sqd_mpi.backends import external

    return external.ReferenceTile if name == "reference" else external.ExternalTile


__all__ = [
    "FloatArray",
    "Hamiltonian",
    "Interaction",
    "SigmaBlock",
    "Task",
    "device_is_there",
    "get_backend",
    "get_density_backend",
    "get_external_tile",
]
