"""Same spin on a GPU by dense matrices: rows that go into one product, what products cost, whether matrices fit.

H_alpha and H_beta are block-diagonal in the labels of strings. Each block can be a dense matrix, multiplied by DGEMM at
the rate of the matrix units, instead of a sparse one (docs/gpu.md). The backend uses the rules of the first half of
this module, plans all of it. Nothing here is measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MEMORY_SHARE = 0.125  # of a device's memory that the matrices may take
# A product of fewer elements takes as long as one of so many: a tile of 64 x 64 on each of some 128 processors.
FULL_DEVICE = 128 * 64 * 64
_CHUNKS = 8  # of the rows of a triangle; each is computed up to its longest row
_LEAST_CHUNK = 256  # rows: smaller products leave matrix units idle
_MOST_CHUNK = 2**25  # elements of a chunk, which waits in scratch memory


def chunk_rows(n_rows: int, longest: int) -> int:
    """Rows of a triangle that are computed in one product, up to the longest of them."""
    return max(1, min(max(-(-n_rows // _CHUNKS), _LEAST_CHUNK), _MOST_CHUNK // max(longest, 1)))


def spare_bytes(device_bytes: float, vector_bytes: float) -> int:
    """Bytes that matrices may take of the memory of a device in which vectors and buffers need so many.

    At most half of what vectors leave: lists, scratch and a margin need the rest.
    """
    return int(max(min(MEMORY_SHARE * device_bytes, 0.5 * (device_bytes - vector_bytes)), 0.0))


def choose(saved: FloatArray, n_bytes: FloatArray, bound: float) -> NDArray[np.bool_]:
    """Which matrices to make: those that save time, most seconds per byte first, as long as they fit.

    Args:
        saved: (n,) seconds that every matrix saves; inf takes it in any case.
        n_bytes: (n,) its bytes.
        bound: of all bytes.
    """
    order = np.argsort(-saved / np.maximum(n_bytes, 1.0), kind="stable")
    chosen, left = np.zeros(len(saved), bool), bound
    for k in order:
        if saved[k] > 0.0 and (n_bytes[k] <= left or np.isinf(saved[k])):
            chosen[k], left = True, left - n_bytes[k]
    return chosen
