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
        apart, coupling = p != q, hamiltonian.coupling()
        h1e, eri = hamiltonian.same_spin(1)
        return cls(
            coupled_alpha=_any(coupling, 1) | ~apart,
            coupled_beta=_any(coupling, 0, apart[:, None]) | ~apart,
            moving_beta=_any(coupling, 0, ~apart[:, None]) | _moves(h1e, eri, p, q) | ~apart,
        )


def _any(values: FloatArray, axis: int, where: NDArray[np.bool_] | bool = True) -> NDArray[np.bool_]:
    """Whether any of some values along an axis is not zero; without a copy, as a coupling may be large."""
    largest, smallest = values.max(axis, where=where, initial=0.0), values.min(axis, where=where, initial=0.0)
    return np.asarray(np.maximum(largest, -smallest) > _ZERO)


def _moves(h1e: FloatArray, eri: FloatArray, p: NDArray[np.int64], q: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_pairs,) whether a single p > q of one spin may have an element: h_pq, (pq|rr) or (pr|rq) of any r."""
    r = np.arange(len(h1e))
    direct, exchange = eri[:, pair_index(r, r)], eri[pair_index(p[:, None], r), pair_index(q[:, None], r)]
    return (abs(h1e[p, q]) > _ZERO) | _any(direct, 1) | _any(exchange, 1)
