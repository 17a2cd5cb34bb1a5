"""Grids and labels of the tests on several ranks."""

from __future__ import annotations

from itertools import product

import numpy as np

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


def shapes(n_ranks: int) -> list[tuple[int, int, int, int]]:
    """Every grid of n_ranks ranks."""
    divisors = [n for n in range(1, n_ranks + 1) if n_ranks % n == 0]
    return [shape for shape in product(divisors, repeat=4) if np.prod(shape) == n_ranks]
