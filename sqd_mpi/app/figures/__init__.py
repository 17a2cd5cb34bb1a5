"""Pictures of runs: shares of the phases, convergence, orbitals, the loop.

Functions take data and return a figure of matplotlib, which this package alone imports; `save` writes it.
"""

from __future__ import annotations

from sqd_mpi.app.figures.canvas import need_matplotlib, save
from sqd_mpi.app.figures.curves import (
    convergence,
    extrapolation,
    roots_of_sector,
    write_extrapolation,
)
from sqd_mpi.app.figures.loops import energies as loop_energies
from sqd_mpi.app.figures.loops import spaces as loop_spaces
from sqd_mpi.app.figures.orbitals import occupancies, weights
from sqd_mpi.app.figures.phases import (
    COMPUTE,
    LOOKS,
    balance,
    compute_seconds,
    imbalance,
    mean_shares,
    phase_groups,
    phase_shares,
    ranges,
)
from sqd_mpi.app.figures.pictures import states_of, write_pictures

__all__ = [
    "COMPUTE",
    "LOOKS",
    "balance",
    "compute_seconds",
    "convergence",
    "extrapolation",
    "phase_groups",
    "imbalance",
    "loop_energies",
    "loop_spaces",
    "mean_shares",
    "need_matplotlib",
    "occupancies",
    "phase_shares",
    "ranges",
    "roots_of_sector",
    "save",
    "states_of",
    "weights",
    "write_extrapolation",
    "write_pictures",
]
