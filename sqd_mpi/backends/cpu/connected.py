"""Orbital pairs by which the Hamiltonian connects strings: of a lattice in its sites nearly all integrals are zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.permutations import pair_index

# Integrals at or below this (hartree) are zeros with rounding noise, as `lists.DROPPED_ELEMENT`.
_ZERO = 1e-14


@dataclass(frozen=True, eq=False)
class ConnectedPairs:
    """Which orbital pairs p > q have a part; the others are left out of what is multiplied. Pairs p = q always are."""

    coupled_alpha: NDArray[np.bool_]
    """(n_pairs,) pairs of alpha electrons that any pair of beta electrons, r = s included, is coupled with."""
    coupled_beta: NDArray[np.bool_]
    """(n_pairs,) pairs of beta electrons that any pair p > q of alpha electrons is coupled with."""
    moving_beta: NDArray[np.bool_]
    """(n_pairs,) pairs of beta electrons that have elements between strings, or with alpha electrons that stay."""

    @property
    def all_coupled(self) -> bool:
        """Whether all pairs p > q of both spins are coupled."""
        return bool(self.coupled_alpha.all() and self.coupled_beta.all())

    @classmethod
    def of(cls, hamiltonian: Hamiltonian) -> ConnectedPairs:
        """Those of a Hamiltonian."""
        p, q = np.tril_indices(hamiltonian.norb)
        apart, coupled = p != q, abs(hamiltonian.coupling()) > _ZERO
        h1e, eri = hamiltonian.same_spin(1)
        return cls(
            coupled_alpha=coupled.any(axis=1) | ~apart,
            coupled_beta=coupled[apart].any(axis=0) | ~apart,
            moving_beta=coupled[~apart].any(axis=0) | _moves(h1e, eri, p, q) | ~apart,
        )


def _moves(h1e: FloatArray, eri: FloatArray, p: NDArray[np.int64], q: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_pairs,) whether a single p > q of one spin may have an element: h_pq, (pq|rr) or (pr|rq) of any r."""
    r = np.arange(len(h1e))
    direct, exchange = eri[:, pair_index(r, r)], eri[pair_index(p[:, None], r), pair_index(q[:, None], r)]
    return np.asarray(
        (abs(h1e[p, q]) > _ZERO) | (abs(direct) > _ZERO).any(axis=1) | (abs(exchange) > _ZERO).any(axis=1)
    )
