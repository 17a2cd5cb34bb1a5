"""Operators and model spaces of the sectors of one solve, on lists that the sectors share."""

from __future__ import annotations

from typing import Any

from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.solver.fitting import Frame
from sqd_mpi.solver.mean_diagonal import mean_diagonal
from sqd_mpi.solver.model_space import IMPOSSIBLE, ModelSpace, Penalty
from sqd_mpi.solver.sectors import Sector
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.solver.spin_sector import SpinSectorOperator
from sqd_mpi.solver.spin_target import SpinTargetOperator

_MODEL_STATES = 30  # more eigenvectors of the model space than roots, which leave traces in the start vectors
# Above that dimension of a sector a larger model space costs nothing.
_SMALL_DIMENSION = 1_000_000
_LARGE_MODEL_SPACE = 1000  # determinants


class Operators:
    """Makes what acts on the vectors of a sector."""

    def __init__(self, frame: Frame) -> None:
        """Take where the solve takes place; lists are made when they are first wanted."""
        self.frame = frame
        self._timers = frame.call.timers
        self._structures: dict[int, Any] = {}

    @property
    def structure_bytes(self) -> int:
        """Bytes of this rank's lists."""
        return max((getattr(each, "nbytes", 0) for each in self._structures.values()), default=0)

    def block(self, layout: Layout) -> Any:
        """This rank's block; string structure is shared by all sectors, or by both parities of one label."""
        frame, here = self.frame, self.frame.grid.coordinates
        backend, hamiltonian = frame.engine.backend, frame.space.hamiltonian
        key = layout.sector if layout.parity else 0
        if key not in self._structures:
            self._structures.clear()  # one at a time
            with self._timers("structure"):
                self._structures[key] = backend.create_share(layout, here, hamiltonian, frame.space.labels)
        return backend.create_block(layout, here, hamiltonian, self._structures[key])

    def sigma(self, layout: Layout, interaction: Interaction) -> SigmaOperator:
        """An interaction applied to vectors of a sector. Collective over the grid."""
        return SigmaOperator(self.frame.grid, layout, self.block(layout), interaction, memory=self.frame.engine.memory)

    def hamiltonian(self, sector: Sector) -> SigmaOperator:
        """What is diagonalised: the Hamiltonian, with a penalty on other spins where those are not left out.

        Collective over the grid.
        """
        operator = self._hamiltonian(sector)
        operator.rough_memory = self.frame.single
        return operator

    def _hamiltonian(self, sector: Sector) -> SigmaOperator:
        frame = self.frame
        hamiltonian, layout = frame.space.hamiltonian, frame.layout(sector)
        with self._timers("structure"):
            block, common = self.block(layout), (self._timers, frame.engine.memory)
            if sector.has_spin:
                spins, n_states = frame.sought.spins_of(layout.parity), frame.sought.n_states[sector]
                return SpinSectorOperator(
                    frame.grid, layout, block, hamiltonian, sector.twice_spin, spins, n_states, *common
                )
            if frame.sought.target is not None:
                return SpinTargetOperator(frame.grid, layout, block, hamiltonian, frame.sought.target, *common)
            return SigmaOperator(frame.grid, layout, block, Interaction.energy(hamiltonian), *common)

    def models(self) -> dict[Sector, ModelSpace]:
        """The model spaces of all sectors. Collective over the grid."""
        return {sector: self._model(sector) for sector in self.frame.sought.sectors}

    def _model(self, sector: Sector) -> ModelSpace:
        frame, options = self.frame, self.frame.call.options
        space, target, layout = frame.space, frame.sought.target, frame.layout(sector)
        block, here = self.block(layout), frame.grid.coordinates
        with self._timers("model space"):
            # As many determinants as do not count beside one sigma.
            size = max(options.model_space, 2 * options.nroots)
            if layout.dimension > _SMALL_DIMENSION and "model_space" not in options.model_fields_set:
                size = max(size, _LARGE_MODEL_SPACE)

            # Its lowest diagonal elements: where one spin is wanted those of configurations.
            energy = Interaction.energy(space.hamiltonian)
            memory = frame.engine.memory if target is None and not sector.has_spin else HOST
            penalty = None
            if sector.has_spin:
                diagonal = mean_diagonal(
                    layout, here, space.hamiltonian, block, sector.twice_spin, frame.engine.memory, wall=IMPOSSIBLE
                )
            elif target is None:
                diagonal = memory.empty(layout.slice_size(*here))
                block.diagonal(energy, diagonal)
            else:
                penalty = Penalty(target.deviation(space.hamiltonian), target.strength, not target.linear)
                diagonal = target.diagonal(layout, here, space.hamiltonian, block, frame.engine.memory)
            n_states = 2 * options.nroots + _MODEL_STATES
            return ModelSpace.create(
                frame.grid,
                layout,
                diagonal,
                space.hamiltonian,
                energy,
                size,
                n_states,
                penalty,
                sector.twice_spin if sector.has_spin else None,
                memory,
            )
