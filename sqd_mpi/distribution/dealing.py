"""Which strings the blocks of a grid take, and the bytes of vectors and buffers: arithmetic on numbers of strings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import Shape
from sqd_mpi.distribution.layout import diagonal_blocks_meet_half
from sqd_mpi.problem.spin_strings import SpinStrings

# Work of a row that does not depend on its singles, as a share of that of a mean row.
_ROW_SHARE = 0.2


@dataclass(frozen=True)
class Memory:
    """Predicted bytes of one rank.

    Attributes:
        vectors: basis, images and diagonal of the eigensolver, 1/(a b t r) of the space each.
        buffers: own block, two ket blocks and the partial sums, 1/(a b) of the space each.
    """

    vectors: int
    buffers: int

    @property
    def total(self) -> int:
        """All predicted bytes."""
        return self.vectors + self.buffers


def string_weights(strings: SpinStrings, norb: int) -> NDArray[np.float64]:
    """(n,) relative work of a row or column of every string: its singles inside the set, and what every row costs."""
    return weights_of_counts(strings.n_singles())


def weights_of_counts(n_singles: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) relative work of a row or column from the number of singles of its string inside the set."""
    return np.asarray(n_singles + _ROW_SHARE * max(float(n_singles.mean()), 1.0))


def order_strings(
    alpha: SpinStrings, beta: SpinStrings, norb: int, grid: Shape, deal: bool, folded: bool
) -> tuple[SpinStrings, SpinStrings]:
    """Strings with their weights, in the order in which the blocks of a grid take them.

    Args:
        alpha, beta: strings in canonical order inside labels.
        norb: number of orbitals.
        grid: (a, b, t, r).
        deal: whether the parts of the grid get light and heavy strings alike; otherwise consecutive ones.
        folded: whether spin-flip symmetry is used: then both spins keep the same order.
    """
    same = beta is alpha
    alpha = alpha.weighted(string_weights(alpha, norb))
    beta = alpha if same else beta.weighted(string_weights(beta, norb))
    return deal_strings(alpha, beta, grid, folded) if deal else (alpha, beta)


def deal_strings(alpha: SpinStrings, beta: SpinStrings, grid: Shape, folded: bool) -> tuple[SpinStrings, SpinStrings]:
    """Strings that have weights, dealt so that the parts of a grid get light and heavy ones alike."""
    a, b, _, r = grid
    if folded:
        alpha = alpha.dealt(a)  # row groups are cut inside the blocks, by work
        return alpha, alpha
    return alpha.dealt(a * r), beta.dealt(b)


def predict_memory(grid: Shape, dimension: int, max_subspace: int, n_determinants: int | None = None) -> Memory:
    """Bytes of vectors and buffers of one rank, before anything is allocated.

    Args:
        grid: (a, b, t, r).
        dimension: number of stored elements of a vector of a sector.
        max_subspace: number of basis vectors.
        n_determinants: number of determinants of the sector, if spin-flip symmetry makes it differ from the dimension.
    """
    a, b, t, r = grid
    folded = n_determinants is not None and n_determinants != dimension
    block = -(-(n_determinants if n_determinants is not None else dimension) // (a * b))
    stored = -(-dimension // (a * b))
    vectors = (2 * max_subspace + 1) * -(-dimension // (a * b * t * r))
    own = block if a * b * t * r > 1 or folded else 0
    kets = min(2, a * b - 1) * block
    partial = -(-stored // r) if t > 1 else 0
    if not folded:
        return Memory(8 * vectors, 8 * (own + kets + partial))
    # The stored half of the mirror block; on the mirror line the sum of mirrored tasks.
    mirror = 0 if a == 1 else block if diagonal_blocks_meet_half(1, 0, grid) else stored
    return Memory(8 * vectors, 8 * (own + kets + partial + int(t * r > 1) * stored + mirror))
