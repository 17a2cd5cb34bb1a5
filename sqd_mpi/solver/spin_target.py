"""Eigenpairs of one spin: a penalty on all others, and a preconditioner that keeps vectors of pure spin pure.

With t = S (S + 1) of the wanted spin and P the projection on the subspace, the operator is

    H + strength (P S^2 P - t)          where S is the least spin of these electrons (only the coupling W changes),
    H + strength (P S^2 P - t)^2        otherwise (two more applications of S^2).

It is that of PySCF's `fix_spin_` and does not depend on the grid or on which symmetries are used. It serves in spaces
that S^2 leads out of, and where a penalty is asked for; elsewhere the spin is a symmetry (`spin_sector`). With a
penalty on a space that S^2 does not leave both forms have the same eigenvectors of spin S, so the first, which is
cheaper, serves in sectors of one parity of the spin flip as well if S is the lowest spin there. In spaces that S^2
leads out of it does so by default wherever both spins have the same strings, which hold states to their parity: the
square spreads high spins over tens of hartree, and iterations then take six times as many steps.

A penalty alone converges badly: a diagonal preconditioner that tells apart determinants of one configuration, which
differ only in how the spins of the open shells are dealt, mixes other spins into every new direction. Here the
diagonal is replaced by its mean over all spin functions of spin S of the configuration, so that in a space that holds
whole configurations (S^2 connects nothing else) pure vectors stay pure, and the penalty only holds off rounding. In
other spaces no vector is pure, and the diagonal is that of the operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import SigmaBlock
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.solver.mean_diagonal import mean_diagonal
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.timing import Timers

_DEFAULT_LIFT = 0.5  # hartree by which the spin next to the wanted one is lifted
# The same where S^2 leads out of the space and no lower spin is to be kept away. Determinants without spin partners are
# lifted, too: a stronger penalty leaves less and less of them, and more and more steps are needed.
_WEAK_LIFT = 0.2
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
    closed: bool = True
    """Whether S^2 does not lead out of the space."""
    held: bool = False
    """Whether both spins have the same strings, which hold states to the parity of the spin."""

    @classmethod
    def create(
        cls, hamiltonian: Hamiltonian, spin_square: float, strength: float | None, spin_flip: bool, closed: bool,
        any_value: bool = False, held: bool = False,
    ) -> SpinTarget:  # fmt: skip
        """The penalty for a value of S (S + 1).

        Args:
            hamiltonian: integrals.
            spin_square: S (S + 1).
            strength: hartree, or None to lift the next spin by half a hartree, or by less where S^2 leads out.
            spin_flip: whether sectors of even and of odd spin are solved separately.
            closed: whether S^2 does not lead out of the space.
            any_value: whether a value is taken that no state of these electrons can have.
            held: whether both spins have the same strings, which hold states to the parity of the spin.

        Raises:
            InputError: no state can have that spin, or the overlap that S^2 needs is missing.
        """
        if not any_value:
            hamiltonian.spin_of(spin_square)
        least = abs(hamiltonian.nelec[0] - hamiltonian.nelec[1]) / 2
        linear = spin_square < least * (least + 1.0) + _LEAST_SLACK
        target = cls(spin_square, 0.0 if strength is None else strength, linear, closed, held)
        alone = spin_flip if closed else held and strength is None
        if alone and target.is_a_spin and target.spin < 2.0:  # the lowest of its parity
            target = replace(target, linear=True)
        if strength is None:
            lift = _DEFAULT_LIFT if closed or not target.linear else _WEAK_LIFT
            target = replace(target, strength=lift / target.step)
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

    def complaint(self, mean: float | None, variance: float | None) -> str | None:
        """What is to be said of a root with this <S^2> and its variance, or None if it has the wanted spin or that is
        not known."""
        if mean is None or variance is None or self.reached(mean):
            return None
        if self.is_another(mean, variance):
            unlike = "" if self.closed or self.held else "the same strings for both spins, "
            why = (
                f"a state of another spin, which counts as not converged; {unlike}a larger --spin-penalty or space may "
                "bring the spin that was asked for"
            )
        elif self.closed:
            why = "spins mix, as states of two are nearly degenerate; a larger --spin-penalty keeps them apart"
        else:
            why = (
                "the space lacks spin partners of its determinants, so that spins mix; a larger --spin-penalty makes "
                "the state purer and its energy higher, and missing strings make it pure"
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

    def without_penalty(self) -> SpinTarget:
        """The same for vectors that have no part of other spins."""
        return replace(self, strength=0.0, linear=True)

    def diagonal(
        self, layout: Layout, place: tuple[int, int, int, int], hamiltonian: Hamiltonian, block: SigmaBlock,
        memory: Memory = HOST,
    ) -> FloatArray:  # fmt: skip
        """(slice size,) diagonal for the choice of determinants and the preconditioner, hartree, in host memory.

        Where S^2 leads out of the space it has the penalty on single determinants: most lack spin partners.
        """
        if hamiltonian.spin_dependent or not self.closed:  # no configurations without common orbitals, or cut ones
            elements = memory.empty(layout.slice_size(*place))
            block.diagonal(self.interaction(hamiltonian), elements)
            out = memory.to_host(elements)
            if not self.linear and not hamiltonian.spin_dependent:
                deviation = memory.empty(len(out))
                block.diagonal(self.deviation(hamiltonian), deviation)
                out += self.strength * memory.to_host(deviation) ** 2
            return out
        # Configurations with too few open shells: lifted by what the penalty makes of their highest spin.
        strength = 0.0 if self.linear else self.strength
        return mean_diagonal(layout, place, hamiltonian, block, round(2.0 * self.spin), memory, strength)

    def reached(self, mean: float) -> bool:
        """Whether <S^2> is that of the wanted spin."""
        return abs(mean - self.value) <= _PURE_MEAN

    def is_another(self, mean: float, variance: float) -> bool:
        """Whether a state is one of another spin, not a mixture with the wanted one as its main part.

        Its <S^2> is nearer to that of another spin (of its parity, to which equal strings hold it), and so far from
        the wanted value that less than half of it can have that (F. P. Cantelli's inequality).
        """
        half = 1.0 if self.held and not self.closed else 0.5
        nearer = abs((np.sqrt(4.0 * max(mean, 0.0) + 1.0) - 1.0) / 2.0 - self.spin) > half
        return bool(nearer and (mean - self.value) ** 2 > variance)

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


def is_pure(mean: float, square: float) -> bool:
    """Whether a state is of pure spin, from <S^2> and <(P S^2 P)^2>."""
    spin = np.round(np.sqrt(4.0 * max(mean, 0.0) + 1.0) - 1.0) / 2.0
    deviation = np.sqrt(max(square - mean**2, 0.0))
    return bool(abs(mean - spin * (spin + 1.0)) <= _PURE_MEAN and deviation <= _PURE_DEVIATION)
