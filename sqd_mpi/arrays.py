"""Names of the kinds of arrays, and of the tuples that say where a rank stands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Strings = NDArray[np.uint64]
"""(n, n_words) bit-strings of one spin, a row each: orbital p is bit p % 64 of word p // 64."""
Shape = tuple[int, int, int, int]
"""A process grid (a, b, t, r): parts of alpha and of beta strings, task groups, row groups."""
Place = tuple[int, int, int, int]
"""Where a rank stands in the grid: (ia, ib, it, ir)."""
