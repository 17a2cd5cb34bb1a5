"""What is sought in a space: the spin, how others are kept away, and the sectors that may hold such states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sqd_mpi.arrays import Shape
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.errors import InputError
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.space import Space
from sqd_mpi.solver.sectors import ANY_SPIN, Sector
from sqd_mpi.solver.spin_sector import ActivePart, active_part, is_closed, n_spin_functions
from sqd_mpi.solver.spin_target import SpinTarget

_SAME_SPIN = 1e-6  # of 2 S


@dataclass(frozen=True)
class Sought:
    """States of which spin, and where they may lie."""

    target: SpinTarget | None
    """The wanted spin and the penalty on others, or None."""
    parity: int
    """Parity of the wanted spin where both spins have the same strings, else 0."""
    n_states: dict[Sector, int]
    """Number of independent vectors of every sector that holds any, with a spin target of its parity only."""
    active: ActivePart | None
    """Orbitals and electrons between full and empty ones, where the spin is a symmetry of the space."""

    @property
    def sectors(self) -> list[Sector]:
        """All sectors."""
        return list(self.n_states)

    @property
    def n_extra_vectors(self) -> int:
        """Vectors that an operator needs beside those of H alone."""
        if self.active is not None:
            return 2  # the mean diagonal, and the diagonal of S^2 while the last row of a basis is purified
        return 0 if self.target is None else self.target.n_vectors

    def spins_of(self, parity: int) -> list[int]:
        """Every 2 S that vectors may have, of one parity of the spin flip or, with 0, of any."""
        assert self.active is not None
        return self.active.spins(parity)


def seek(space: Space, options: SolveOptions, flip: bool) -> Sought:
    """What the options ask for.

    Args:
        space: Hamiltonian and strings.
        options: of the solve.
        flip: whether spin-flip symmetry is used.

    Raises:
        InputError: too few states or vectors have the wanted spin.
    """
    active = _active_part(space, options)
    target = _spin_target(space, options, flip, active is not None)
    parity = _wanted_parity(space, options, target)
    parities = (0,) if not flip else (parity,) if parity else (1, -1)
    spin = ANY_SPIN if active is None or target is None else round(2 * target.spin)
    found = [Sector(label, each, spin) for label in space.sectors for each in parities]
    n_states = {sector: _n_states(space, sector, active) for sector in found}
    return Sought(target, parity, {sector: n for sector, n in n_states.items() if n > 0}, active)


def sector_layout(space: Space, sector: Sector, shape: Shape) -> Layout:
    """Ownership of the vectors of a sector on a grid."""
    return Layout.create(space.alpha, space.beta, sector.label, shape, sector.parity)


def _spin_target(space: Space, options: SolveOptions, flip: bool, pure: bool) -> SpinTarget | None:
    if options.spin_square is None:
        return None
    closed = is_closed(space.alpha.strings, space.beta.strings, space.hamiltonian.norb)
    target = SpinTarget.create(
        space.hamiltonian, options.spin_square, options.spin_penalty, flip, closed, options.spin_check == "off",
        held=space.same_spins and space.alpha.size * (space.alpha.size - 1) // 2 >= options.nroots,
    )  # fmt: skip
    return target.without_penalty() if pure else target


def _n_states(space: Space, sector: Sector, active: ActivePart | None) -> int:
    """Number of independent vectors of a sector."""
    if active is None:
        return sector_layout(space, sector, (1, 1, 1, 1)).dimension
    labels = space.labels.labels[active.orbitals].tolist()
    return n_spin_functions(labels, active.nelec, sector.twice_spin, sector.label)


def _active_part(space: Space, options: SolveOptions) -> ActivePart | None:
    """Orbitals and electrons between full and empty ones where the wanted spin is a symmetry of the space, or None.

    Raises:
        InputError: too few states have it.
    """
    hamiltonian = space.hamiltonian
    if options.spin_square is None or options.spin_penalty is not None or hamiltonian.spin_dependent:
        return None
    active = active_part(space.alpha.strings, space.beta.strings, hamiltonian.norb)
    twice_spin = np.sqrt(4.0 * options.spin_square + 1.0) - 1.0
    if active is None or abs(twice_spin - round(twice_spin)) > _SAME_SPIN:
        return None
    if options.spin_check == "strict":
        hamiltonian.spin_of(options.spin_square)
    # Without labels all states count.
    labels, wanted = [0] * len(active.orbitals), round(twice_spin)
    total = n_spin_functions(labels, active.nelec, wanted) if wanted in active.spins() else 0
    if total >= options.nroots:
        return active
    if options.spin_check == "off":
        return None
    raise InputError(
        f"--nroots {options.nroots} needs as many states of spin {twice_spin / 2:g}; this space has {total}"
    )


def _wanted_parity(space: Space, options: SolveOptions, target: SpinTarget | None) -> int:
    """The parity of the spin that is wanted where both spins have the same strings, else 0.

    Raises:
        InputError: too few vectors have it.
    """
    if target is None or not space.same_spins:
        return 0
    parity, n = target.parity, space.alpha.size
    total = n * (n + parity) // 2
    if parity == 0 or total >= options.nroots:
        return parity
    if options.spin_check == "off":
        return 0
    raise InputError(
        f"--nroots {options.nroots} needs as many states of spin {target.spin:g}; this space has at most {total}"
    )
