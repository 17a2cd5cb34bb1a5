"""States of one spin without a penalty: sectors of S^2 in spaces that S^2 does not lead out of.

H does not change the spin, and neither does a preconditioner whose diagonal is the same for all determinants of a
configuration. So vectors that are pure at the start stay pure, and the iterations see the states of one spin alone. A
penalty would not keep them purer: it is divided by the small denominators of the preconditioner, which blows rounding
errors up. What rounding brings in all the same, and what random start vectors hold of other spins, is taken out by
P.-O. Loewdin's projection (Phys. Rev. 97, 1509 (1955)): a factor (S^2 - t') / (t - t') for every other spin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from sqd_mpi.arrays import Strings
from sqd_mpi.backends.protocol import SigmaBlock
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.solver.mean_diagonal import mean_diagonal
from sqd_mpi.solver.model_space import IMPOSSIBLE
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.timing import Timers

# A vector is left as it is if |S^2 v - t v| is below that for the normalised v.
_PURE = 1e-9
_ROUGHLY_PURE = 1e-6  # where S^2 is applied in single precision


class SpinSectorOperator(SigmaOperator):
    """H in one sector of one spin on a process grid; arguments as of `SigmaOperator`, and 2 S.

    `spins` are the values of 2 S that vectors of the layout may have, `n_states` is the number of states of that spin.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, hamiltonian: Hamiltonian, twice_spin: int,
        spins: list[int], n_states: int, timers: Timers | None = None, memory: Memory = HOST,
    ):  # fmt: skip
        super().__init__(grid, layout, block, Interaction.energy(hamiltonian), timers, memory)
        mean = mean_diagonal(layout, grid.coordinates, hamiltonian, block, twice_spin, memory, wall=IMPOSSIBLE)
        self._mean_diagonal = memory.from_host(mean)
        self._n_states = n_states
        value = twice_spin * (twice_spin + 2) / 4.0
        self.deviation = Interaction.spin_square(hamiltonian).shifted(-value)
        self._others = [other * (other + 2) / 4.0 - value for other in spins if other != twice_spin]

    @property
    def dimension(self) -> int:
        """Number of independent vectors of the spin."""
        return self._n_states

    def diagonal(self) -> Array:
        """This rank's slice of the diagonal of H, averaged over the spin functions of each configuration."""
        return self._mean_diagonal

    def purify(self, vector: Array, scratch: Sequence[Array] = (), exact: bool = True) -> float:
        """Take other spins out of a vector, in place. Collective over the grid.

        Args:
            vector: (size,) slice of this rank.
            scratch: up to two more, which are overwritten; two are needed.
            exact: whether in double precision; else in that of `matvec`.

        Returns:
            the share of the squared norm that is left; exactly 1 if the vector was pure and was not touched.
        """
        memory, vectors = self.memory, self.memory.vectors
        arrays = [*scratch]
        while len(arrays) < 2:
            arrays.append(memory.empty(self.size))
        work, diagonal = arrays
        self.block.diagonal(self.deviation, diagonal)
        self._use(self.memory if exact else self.rough_memory or self.memory)
        pure = _ROUGHLY_PURE if self.rough and not exact else _PURE
        with self.timers("purify"):
            self._apply(self.deviation, diagonal, vector, work)
            square, left = self._squares(vector, work)
            if left <= pure**2 * square:
                return 1.0
            for k, distance in enumerate(self._others):
                if k > 0:
                    self._apply(self.deviation, diagonal, vector, work)
                vectors.add_scaled(work, -1.0 / distance, vector)
            return self._squares(vector)[0] / max(square, 1e-300)

    def _squares(self, *vectors: Array) -> list[float]:
        """Squared norms of some vectors, in one reduction."""
        totals = np.array([self.memory.vectors.dot(vector, vector) for vector in vectors])
        self.sum_over_ranks(totals)
        return [float(total) for total in totals]


def spins_of(norb: int, nelec: tuple[int, int], parity: int = 0) -> list[int]:
    """Every 2 S that states of so many alpha and beta electrons in `norb` orbitals can have, ascending.

    Args:
        norb: number of orbitals.
        nelec: numbers of electrons.
        parity: of the spin flip, which even and odd spins do not share; 0 for any.
    """
    most = min(sum(nelec), 2 * norb - sum(nelec))
    found = range(abs(nelec[0] - nelec[1]), most + 1, 2)
    return [twice for twice in found if parity == 0 or (-1) ** (twice // 2) == parity]


def n_spin_functions(labels: Sequence[int], nelec: tuple[int, int], twice_spin: int, sector: int = 0) -> int:
    """Number of independent states of one spin in all strings of some orbitals.

    Args:
        labels: of the orbitals.
        nelec: numbers of electrons.
        twice_spin: 2 S.
        sector: label of the states.
    """
    # Every state of spin S has one partner with M = S, and with M = S + 1 only those of higher spins have one.
    counts, total = _strings_by_label(labels), sum(nelec)

    def determinants(twice_m: int) -> int:
        n_alpha, n_beta = (total + twice_m) // 2, (total - twice_m) // 2
        if n_beta < 0 or n_alpha > len(labels):
            return 0
        return sum(n * counts[n_beta][label ^ sector] for label, n in counts[n_alpha].items())

    return determinants(twice_spin) - determinants(twice_spin + 2)


def _strings_by_label(labels: Sequence[int]) -> list[Counter[int]]:
    """Of every number of electrons how many strings have which label."""
    found: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in labels)]
    for orbital, label in enumerate(labels):
        for n in range(orbital, -1, -1):
            for other, count in found[n].items():
                found[n + 1][other ^ label] += count
    return found


class ActivePart(NamedTuple):
    """What is between full and empty orbitals in a space of all strings of some orbitals."""

    orbitals: list[int]
    """Numbers of the orbitals, from 0."""
    nelec: tuple[int, int]
    """Numbers of alpha and beta electrons in them."""

    def spins(self, parity: int = 0) -> list[int]:
        """Every 2 S; see `spins_of`."""
        return spins_of(len(self.orbitals), self.nelec, parity)


def active_part(strings_a: Strings, strings_b: Strings, norb: int) -> ActivePart | None:
    """The active part if both sets are all strings of the same orbitals, the same others being full; else None.

    Args:
        strings_a: (n, n_words) uint64, alpha.
        strings_b: (n, n_words) uint64, beta.
        norb: number of orbitals.
    """
    bits = [bitstrings.unpack(each, norb) for each in (strings_a, strings_b)]
    full, used = ([each.all(axis=0) for each in bits], [each.any(axis=0) for each in bits])
    if not (np.array_equal(full[0], full[1]) and np.array_equal(used[0], used[1])):
        return None
    active = np.flatnonzero(used[0] & ~full[0])
    nelec = tuple(int(each[0, active].sum()) for each in bits)
    whole = all(len(each) == comb(len(active), n) for each, n in zip(bits, nelec, strict=True))
    return ActivePart(active.tolist(), (nelec[0], nelec[1])) if whole else None


def is_closed(strings_a: Strings, strings_b: Strings, norb: int) -> bool:
    """Whether S^2 does not lead out of the space of all pairs of the given strings: a condition that suffices.

    There is an active part, or one spin has no electrons or no holes to exchange. Arguments as of `active_part`.
    """
    bits = [bitstrings.unpack(each, norb) for each in (strings_a, strings_b)]
    nothing_to_exchange = any(not each.any() or bool(each.all()) for each in bits)
    return nothing_to_exchange or active_part(strings_a, strings_b, norb) is not None
