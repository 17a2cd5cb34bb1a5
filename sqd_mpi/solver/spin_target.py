"""Eigenpairs of one spin: a penalty on all others, and a preconditioner that keeps vectors of pure spin pure.

With t = S (S + 1) of the wanted spin and P the projection on the subspace, the operator is

    H + strength (P S^2 P - t)          where S is the least spin of these electrons (only the coupling W changes),
    H + strength (P S^2 P - t)^2        otherwise (two more applications of S^2).

It is that of PySCF's `fix_spin_` and does not depend on the grid or on which symmetries are used. In a space that S^2
does not leave both forms have the same eigenvectors of spin S; the first, which is cheaper, then serves in sectors of
one parity of the spin flip as well if S is the lowest spin there, and the strength may follow what is found.

A penalty alone converges badly: a diagonal preconditioner that tells apart determinants of one configuration, which
differ only in how the spins of the open shells are dealt, mixes other spins into every new direction. Here the
diagonal is replaced by its mean over all spin functions of spin S of the configuration, so that in a space that holds
whole configurations (S^2 connects nothing else) pure vectors stay pure, and the penalty only holds off rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import parallel_jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import SigmaBlock
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.timing import Timers

_DEFAULT_LIFT = 0.5  # hartree by which the spin next to the wanted one is lifted
# Where the model spaces of a space that S^2 does not leave show states of other spins below, they are lifted above by
# this much and that share of the gap. In other spaces the strength is part of what is asked, and stays.
_LEAST_LIFT, _GAP_FACTOR, _LARGEST_LIFT = 0.3, 1.3, 5.0
# A state counts as spin-pure if <S^2> is that close to S (S + 1) of some spin, and |S^2 v - <S^2> v| that small.
_PURE_MEAN = 1e-4
_PURE_DEVIATION = 1e-2
# The linear form serves for values up to this much above the least possible S (S + 1), as in PySCF.
_LEAST_SLACK = 0.1


@dataclass(frozen=True)
class SpinTarget:
    """The wanted spin and how others are kept away."""

    value: float
    """S (S + 1)."""
    strength: float
    """Factor of the penalty, hartree."""
    linear: bool
    """Which of both forms it has."""
    may_lift: bool = False
    """Whether the strength may grow where states of other spins lie below."""

    @classmethod
    def create(
        cls, hamiltonian: Hamiltonian, spin_square: float, strength: float | None, spin_flip: bool, closed: bool,
        any_value: bool = False,
    ) -> SpinTarget:  # fmt: skip
        """The penalty for a value of S (S + 1).

        Args:
            hamiltonian: integrals.
            spin_square: S (S + 1).
            strength: hartree, or None to lift the next spin by half a hartree.
            spin_flip: whether sectors of even and of odd spin are solved separately.
            closed: whether S^2 does not lead out of the space.
            any_value: whether a value is taken that no state of these electrons can have.

        Raises:
            InputError: no state can have that spin, or the overlap that S^2 needs is missing.
        """
        if not any_value:
            hamiltonian.spin_of(spin_square)
        least = abs(hamiltonian.nelec[0] - hamiltonian.nelec[1]) / 2
        linear = spin_square < least * (least + 1.0) + _LEAST_SLACK
        target = cls(spin_square, 0.0 if strength is None else strength, linear)
        if closed and spin_flip and target.is_a_spin and target.spin < 2.0:  # the lowest of its parity
            target = replace(target, linear=True)
        if strength is None:
            may_lift = closed and not hamiltonian.spin_dependent
            target = replace(target, strength=_DEFAULT_LIFT / target.step, may_lift=may_lift)
        return target

    @property
    def step(self) -> float:
        """By how much the penalty lifts the nearest other spin, over its strength."""
        return 2.0 * self.spin + 2.0 if self.linear else (2.0 * self.spin) ** 2

    @property
    def spin(self) -> float:
        """S."""
        return (float(np.sqrt(4.0 * self.value + 1.0)) - 1.0) / 2.0

    @property
    def is_a_spin(self) -> bool:
        """Whether S is a multiple of 1/2."""
        return abs(2.0 * self.spin - round(2.0 * self.spin)) < 1e-6

    @property
    def n_vectors(self) -> int:
        """Vectors that the operator keeps beside those of H alone: a mean diagonal, and three for the squared form."""
        return 1 if self.linear else 4

    def complaint(self, mean: float | None) -> str | None:
        """What is to be said of a root with this <S^2>, or None if it has the wanted spin or that is not known."""
        if mean is None or self.reached(mean):
            return None
        why = (
            "a state of another spin, which counts as not converged; a larger --spin-penalty or space may bring the "
            "spin that was asked for"
            if self.is_another(mean)
            else "the space lacks spin partners of its determinants, so that no state of it has one spin"
        )
        return f"<S^2> {mean:.4f}, not {self.value:g}: {why}"

    @property
    def parity(self) -> int:
        """+1 for even and -1 for odd spin: C = +-C^T; 0 where S is no whole number."""
        whole = round(self.spin)
        return 0 if abs(self.spin - whole) > 1e-6 else 1 if whole % 2 == 0 else -1

    def interaction(self, hamiltonian: Hamiltonian) -> Interaction:
        """H, with the penalty if it is linear."""
        energy = Interaction.energy(hamiltonian)
        if not self.linear:
            return energy
        return energy.plus(Interaction.spin_square(hamiltonian), self.strength, -self.value)

    def deviation(self, hamiltonian: Hamiltonian) -> Interaction:
        """S^2 - t."""
        return Interaction.spin_square(hamiltonian).shifted(-self.value)

    def lifted(self, gap: float) -> SpinTarget:
        """At least this strength, and enough for other spins that lie by `gap` (hartree) below the wanted states."""
        lift = min(_GAP_FACTOR * gap + _LEAST_LIFT, _LARGEST_LIFT)  # a space without pure states shows any gap
        return replace(self, strength=max(self.strength, lift / self.step))

    def diagonal(
        self, layout: Layout, place: tuple[int, int, int, int], hamiltonian: Hamiltonian, block: SigmaBlock,
        memory: Memory = HOST,
    ) -> FloatArray:  # fmt: skip
        """(slice size,) diagonal for the choice of determinants and the preconditioner, hartree, in host memory."""
        elements = memory.empty(layout.slice_size(*place))
        where = layout.geometry(*place)
        if hamiltonian.spin_dependent:  # no configurations without common orbitals
            block.diagonal(self.interaction(hamiltonian), elements)
            return memory.to_host(elements)
        block.diagonal(Interaction.energy(hamiltonian), elements)
        out = memory.to_host(elements)
        _average_over_spin_functions(
            where.row_offset, where.row_length, where.row_column, where.start, where.stop,
            layout.alpha.strings[where.alpha], layout.beta.strings[where.beta], _exchange(hamiltonian),
            round(2.0 * self.spin) / 2.0, 0.0 if self.linear else self.strength, out,
        )  # fmt: skip
        return out

    def reached(self, mean: float) -> bool:
        """Whether <S^2> is that of the wanted spin."""
        return abs(mean - self.value) <= _PURE_MEAN

    def is_another(self, mean: float) -> bool:
        """Whether <S^2> is nearer to that of another spin that these electrons may have."""
        return abs((np.sqrt(4.0 * max(mean, 0.0) + 1.0) - 1.0) / 2.0 - self.spin) > 0.5

    def energy(self, penalised_energy: float, mean: float, square: float) -> float:
        """<H> from the energy of the operator with the penalty, <S^2> and <(P S^2 P)^2>."""
        if self.linear:
            return penalised_energy - self.strength * (mean - self.value)
        return penalised_energy - self.strength * (square - 2.0 * self.value * mean + self.value**2)


class SpinTargetOperator(SigmaOperator):
    """H with a penalty on other spins, in one sector on a process grid; arguments as of `SigmaOperator`."""

    def __init__(
        self, grid: ProcessGrid, layout: Layout, block: SigmaBlock, hamiltonian: Hamiltonian, target: SpinTarget,
        timers: Timers | None = None, memory: Memory = HOST,
    ):  # fmt: skip
        super().__init__(grid, layout, block, target.interaction(hamiltonian), timers, memory)
        self._mean_diagonal = memory.from_host(target.diagonal(layout, grid.coordinates, hamiltonian, block, memory))
        self._strength = target.strength
        self._root = None if target.linear else target.deviation(hamiltonian)
        if self._root is not None:
            self._root_diagonal = self._diagonal_of(self._root)
            self._once, self._twice = memory.empty(self.size), memory.empty(self.size)

    def diagonal(self) -> Array:
        """This rank's slice of the diagonal of H, averaged over the spin functions of each configuration."""
        return self._mean_diagonal

    def _matvec(self, vector: Array, out: Array) -> None:
        super()._matvec(vector, out)
        if self._root is not None:
            self._apply(self._root, self._root_diagonal, vector, self._once)
            self._apply(self._root, self._root_diagonal, self._once, self._twice)
            self.vectors.add_scaled(self._twice, self._strength, out)


def is_closed(strings_a: NDArray[np.uint64], strings_b: NDArray[np.uint64], norb: int) -> bool:
    """Whether S^2 does not lead out of the space of all pairs of the given strings: a condition that suffices.

    Both sets are all strings over the same orbitals, the same others being full; or one spin has no electrons or no
    holes to exchange.

    Args:
        strings_a: (n, nwords) uint64, alpha.
        strings_b: (n, nwords) uint64, beta.
        norb: number of orbitals.
    """
    bits = [bitstrings.unpack(each, norb) for each in (strings_a, strings_b)]
    full, used = ([each.all(axis=0) for each in bits], [each.any(axis=0) for each in bits])
    if not used[1].any() or not used[0].any() or full[0].all() or full[1].all():
        return True
    complete = [
        len(each) == comb(int((u & ~f).sum()), int(each[0].sum() - f.sum()))
        for each, f, u in zip(bits, full, used, strict=True)
    ]
    return all(complete) and np.array_equal(full[0], full[1]) and np.array_equal(used[0], used[1])


def is_pure(mean: float, square: float) -> bool:
    """Whether a state is of pure spin, from <S^2> and <(P S^2 P)^2>."""
    spin = np.round(np.sqrt(4.0 * max(mean, 0.0) + 1.0) - 1.0) / 2.0
    deviation = np.sqrt(max(square - mean**2, 0.0))
    return bool(abs(mean - spin * (spin + 1.0)) <= _PURE_MEAN and deviation <= _PURE_DEVIATION)


def _exchange(hamiltonian: Hamiltonian) -> FloatArray:
    """(norb, norb) K[p, q] = (pq|pq)."""
    p, q = np.tril_indices(hamiltonian.norb)
    out = np.empty((hamiltonian.norb, hamiltonian.norb))
    out[p, q] = out[q, p] = np.diagonal(hamiltonian.eri_pairs())
    return out


@parallel_jit
def _average_over_spin_functions(
    row_offset, row_length, row_column, start, stop, alpha, beta, exchange, spin, strength, out
):
    """Diagonal elements of H to their means over the spin functions of spin S of the configuration, in place.

    A determinant has -K_pq for every pair of parallel open shells; the mean over the functions of spin S of n open
    shells has -K_pq (1/2 + 2 <s_p s_q>) for every pair, where n (n - 1) <s_p s_q> = S (S + 1) - 3 n / 4. Configurations
    with too few open shells for S are lifted by what the quadratic penalty makes of their highest spin.
    """
    for row in numba.prange(row_offset.shape[0]):
        first, last = max(row_offset[row], start), min(row_offset[row] + row_length[row], stop)
        opened, is_alpha = np.empty(64 * alpha.shape[1], np.int64), np.empty(64 * alpha.shape[1], np.bool_)
        for flat in range(first, last):
            # The open shells, and which of them have an alpha electron.
            j = row_column[row] + flat - row_offset[row]
            n_open = 0
            for word in range(alpha.shape[1]):
                bits = alpha[row, word] ^ beta[j, word]
                orbital = 64 * word
                while bits != 0:
                    if bits & np.uint64(1):
                        opened[n_open] = orbital
                        is_alpha[n_open] = (alpha[row, word] >> np.uint64(orbital & 63)) & np.uint64(1) == 1
                        n_open += 1
                    bits >>= np.uint64(1)
                    orbital += 1

            # Exchange integrals of pairs of parallel ones, and of all pairs.
            parallel, total = 0.0, 0.0
            for p in range(n_open):
                for q in range(p):
                    value = exchange[opened[p], opened[q]]
                    total += value
                    if is_alpha[p] == is_alpha[q]:
                        parallel += value

            # The mean of the wanted spin, or of the highest one that there is, and what this differs by.
            possible = min(spin, 0.5 * n_open)
            if n_open > 1:
                scalar = (possible * (possible + 1.0) - 0.75 * n_open) / (n_open * (n_open - 1.0))
                out[flat - start] += parallel - (0.5 + 2.0 * scalar) * total
            out[flat - start] += strength * (spin * (spin + 1.0) - possible * (possible + 1.0)) ** 2
