"""What is applied to a vector: the Hamiltonian, or S^2, or a sum of both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import InputError
from sqd_mpi.problem.hamiltonian import Hamiltonian


@dataclass(frozen=True, eq=False)
class Interaction:
    """What is applied: constant + [H_alpha + H_beta] + sum (coupling_pq,rs - swap delta_ps delta_qr + twist_pq,rs)
    E^alpha_pq E^beta_rs.
    """

    coupling: FloatArray = field(repr=False)
    """(n_pairs, n_pairs) float64, alpha pairs in rows."""
    swap: float
    """Strength of the exchange term that makes S^2."""
    same_spin: bool
    """Whether the one-body and same-spin two-body parts take part."""
    constant: float
    """Added to the diagonal."""
    twist: FloatArray | None = field(repr=False, default=None)
    """(n_pairs, n_pairs) the part of the coupling that changes its sign with the direction of either pair, given for p
    >= q and r >= s; or None."""

    @cached_property
    def is_swap(self) -> bool:
        """Whether nothing but the exchange term and the constant is there, as in S^2 of spin-free orbitals."""
        return self.swap != 0.0 and not self.same_spin and self.twist is None and not self.coupling.any()

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
