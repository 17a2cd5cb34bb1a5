"""Which strings the blocks of a grid take."""

from __future__ import annotations

from sqd_mpi.arrays import Shape
from sqd_mpi.problem.spin_strings import SpinStrings


def deal_strings(alpha: SpinStrings, beta: SpinStrings, grid: Shape, folded: bool) -> tuple[SpinStrings, SpinStrings]:
    """Strings that have weights, dealt so that the parts of a grid get light and heavy ones alike."""
    a, b, _, r = grid
    if folded:
        alpha = alpha.dealt(a)  # row groups are cut inside the blocks, by work
        return alpha, alpha
    return alpha.dealt(a * r), beta.dealt(b)
