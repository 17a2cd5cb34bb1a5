"""The result of a solve: its roots with all that is reported of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import OrbitalLabels
from sqd_mpi.solver.davidson import Eigenpairs
from sqd_mpi.solver.fitting import Frame
from sqd_mpi.solver.observables import StringWeights, occupancies, string_weights
from sqd_mpi.solver.operators import Operators
from sqd_mpi.solver.sectors import Decision, Sector
from sqd_mpi.solver.spin_target import SpinTarget, is_pure


@dataclass(frozen=True, eq=False)
class Root:
    """One eigenpair."""

    energy: float
    """<H>, hartree, core included."""
    penalised_energy: float | None
    """Eigenvalue of the operator with the penalty on other spins, hartree; None without a spin target."""
    residual_norm: float
    """2-norm of H v - E v for the normalised v, hartree; with a spin target that of the operator with the penalty and
    its eigenvalue."""
    converged: bool
    """Whether the residual norm reached the tolerance, and the spin is not another than was asked for."""
    spin_square: float | None
    """<S^2>; None for spin-dependent integrals without the overlap of the orbitals."""
    spin_variance: float | None
    """<(P S^2 P)^2> - <S^2>^2 with the projection P on the subspace: 0 for a state of one spin; None as <S^2>."""
    spin_pure: bool | None
    """Whether the state is one of S^2 (in the subspace) with the value of a spin; None where <S^2> is."""
    sector: int
    """Label of the symmetry sector."""
    parity: int
    """+1 or -1 for C = +C^T (even spin) or -C^T (odd spin); 0 where spin-flip symmetry was not used."""
    twice_spin: int
    """2 S where states of every spin were sought for themselves, else -1."""
    occupancies: FloatArray = field(repr=False)
    """(2, norb) mean occupations of alpha and beta orbitals."""
    weights: StringWeights = field(repr=False)
    """Weights of the strings, canonical order."""
    layout: Layout = field(repr=False)
    """Ownership of the vector."""
    vector: FloatArray = field(repr=False)
    """This rank's slice, (slice size,)."""


@dataclass(frozen=True, eq=False)
class SubspaceResult:
    """Result of `solve_subspace`; equal on all ranks but for the slices of the vectors."""

    roots: list[Root]
    """Ascending in energy, or in penalised energy with a spin target."""
    stopped: bool
    """Whether a signal or the time limit ended the solve early."""
    grid: ProcessGrid = field(repr=False)
    """The process grid."""
    symmetry: OrbitalLabels
    """Orbital labels used."""
    spin_target: SpinTarget | None
    """The wanted spin and the penalty on others, or None."""
    n_iterations: int
    """Iterations over all sectors, those before a restart included."""
    n_sigma: int
    """Applications of the Hamiltonian, counted likewise."""
    n_sigma_single: int
    """How many of them were made in single precision, by this run."""
    sectors_examined: dict[Sector, Decision]
    """For every (label, parity) how it was decided, see `sectors`."""
    history: dict[str, FloatArray] = field(repr=False)
    """Name -> one value per iteration."""
    timings: dict[str, tuple[float, float, float]] = field(repr=False)
    """Phase -> (minimum, mean, maximum) over ranks, seconds."""
    backend: str
    """Name of the backend that was used."""
    device: str | None
    """Name of the GPU of rank 0, or None."""
    n_threads: int
    """Threads of a rank."""
    max_subspace: int
    """Basis vectors."""
    solve_seconds: float
    """From the call to the end of the iterations, those before a restart included."""
    sigma_seconds: float
    """Mean seconds per application of the Hamiltonian, slowest rank."""
    memory: dict[str, int]
    """Largest bytes of any rank of "vectors" (basis, images, diagonals, known roots), "buffers" and "structure"."""
    messages: dict[str, int]
    """Most "bytes" received and "ket_blocks" among them in one sigma of any rank."""
    task_seconds: tuple[float, float, float]
    """(minimum, mean, maximum) over ranks, processor seconds of all threads in the tasks of all sigmas."""
    frame: Frame = field(repr=False)
    """Where the solve took place."""

    @property
    def energies(self) -> FloatArray:
        """(nroots,) hartree."""
        return np.array([root.energy for root in self.roots])

    @property
    def converged(self) -> bool:
        """Whether all roots are."""
        return all(root.converged for root in self.roots)

    @property
    def proven(self) -> bool:
        """Whether no sector may hold a lower state than the roots that were found."""
        return all(decision.proven for decision in self.sectors_examined.values())

    def deviations(self, numbers: Sequence[int]) -> list[float]:
        """2-norms of H v - <H> v of some roots within the space, hartree: without a spin target the residual norms.

        Collective over the grid. With a spin target it costs one application of H for each.
        """
        if self.spin_target is None:
            return [self.roots[k].residual_norm for k in numbers]
        operators, found = Operators(self.frame), {}
        for k in sorted(numbers, key=lambda k: self.roots[k].sector):
            # Energies from one nearby, so that the difference below does not cancel.
            root = self.roots[k]
            shifted = Interaction.energy(self.frame.space.hamiltonian).shifted(-root.energy)
            mean, square = _moments(operators, shifted, root.layout, [root.vector])[0]
            found[k] = float(np.sqrt(max(square - mean**2, 0.0)))
        return [found[k] for k in numbers]

    def gather(self, root: int = 0) -> FloatArray:
        """The whole vector (n_alpha, n_beta) in canonical order, on every rank. Collective over the grid.

        This is the one place that puts a distributed vector together; it takes 8 n_alpha n_beta bytes on every rank.
        """
        chosen = self.roots[root]
        layout, where = chosen.layout, chosen.layout.geometry(*self.grid.coordinates)
        whole = np.zeros((layout.alpha.size, layout.beta.size))

        # Each rank puts its elements where they belong, and their mirror images.
        rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
        alpha, beta = layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]
        whole[alpha, beta] = chosen.vector
        if layout.parity:
            whole = np.sqrt(0.5) * (whole + layout.parity * whole.T)
            on_line = where.diagonal
            whole[alpha[on_line], beta[on_line]] = chosen.vector[on_line]
        self.grid.sum_over_all(whole)
        return whole


@dataclass(frozen=True, eq=False)
class Found:
    """Eigenpairs of one sector."""

    pairs: Eigenpairs
    """As the eigensolver left them."""
    wanted: NDArray[np.bool_]
    """(n,) which of them may be wanted roots."""


def lowest_roots(operators: Operators, found: dict[Sector, Found]) -> list[Root]:
    """The lowest roots over all sectors with everything that is reported about them. Collective over the grid.

    Args:
        operators: of the solve.
        found: eigenpairs by sector.
    """
    # Those of the wanted parity go before all others.
    ranked = sorted(
        (not each.wanted[k], float(each.pairs.energies[k]), sector, k)
        for sector, each in found.items()
        for k in range(len(each.pairs.energies))
    )
    candidates = [(sector, k) for _, _, sector, k in ranked[: operators.frame.call.options.nroots]]

    # Sector after sector, on the lists of one sector at a time.
    roots: dict[tuple[Sector, int], Root] = {}
    with operators.frame.call.timers("observables"):
        for sector in sorted({sector for sector, _ in candidates}):
            chosen = [k for other, k in candidates if other == sector]
            pairs = found[sector].pairs
            for k, spin in zip(chosen, _spin_squares(operators, sector, pairs, chosen), strict=True):
                roots[sector, k] = _root(operators, sector, pairs, k, spin)
    return [roots[candidate] for candidate in candidates]


def _spin_squares(
    operators: Operators, sector: Sector, pairs: Eigenpairs, chosen: list[int]
) -> list[tuple[float, float]]:
    """<S^2> and <(P S^2 P)^2> of some vectors; NaN where the overlap of the orbitals is not known."""
    hamiltonian = operators.frame.space.hamiltonian
    if hamiltonian.spin_dependent and hamiltonian.overlap_ab is None:
        return [(np.nan, np.nan)] * len(chosen)
    layout, vectors = operators.frame.layout(sector), [pairs.vectors[k] for k in chosen]
    return _moments(operators, Interaction.spin_square(hamiltonian), layout, vectors)


def _moments(
    operators: Operators, interaction: Interaction, layout: Layout, vectors: Sequence[FloatArray]
) -> list[tuple[float, float]]:
    """<v|V|v> and <v|V V|v> of an interaction V and some vectors v."""
    memory = operators.frame.engine.memory
    operator = operators.sigma(layout, interaction)
    work = memory.empty(operator.size)
    values = [operator.moments(memory.from_host(vector), work) for vector in vectors]
    operator.plan.free()
    return values


def _root(operators: Operators, sector: Sector, pairs: Eigenpairs, k: int, spin: tuple[float, float]) -> Root:
    frame, penalised = operators.frame, float(pairs.energies[k])
    target, layout, space = frame.sought.target, frame.layout(sector), frame.space

    # Energy and spin.
    known = not np.isnan(spin[0])
    spin_square, spin_pure = (spin[0], is_pure(*spin)) if known else (None, None)
    variance = max(spin[1] - spin[0] ** 2, 0.0) if known else None
    energy = penalised if target is None else target.energy(penalised, *spin)
    another = target is not None and variance is not None and target.is_another(spin[0], variance)

    # Weights of the strings, and occupations from them.
    weights = string_weights(frame.grid, layout, pairs.vectors[k])
    occupied = np.stack(
        [
            occupancies(strings.strings, weight[strings.canonical], space.hamiltonian.norb)
            for strings, weight in ((space.alpha, weights.alpha), (space.beta, weights.beta))
        ]
    )
    return Root(
        energy, None if target is None else penalised, float(pairs.residual_norms[k]),
        bool(pairs.converged[k]) and not another, spin_square, variance, spin_pure, *sector, occupied, weights, layout,
        pairs.vectors[k],
    )  # fmt: skip
