"""Bytes of a rank on its GPU beside vectors and buffers: connection lists in the kernels' order, matrices, scratch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.gpu.tiled_shape import CHUNK
from sqd_mpi.planner.gpu_work import SameSpinPlan, used_pairs
from sqd_mpi.planner.work import Work
from sqd_mpi.problem.spin_strings import SpinStrings

SLICE = 32  # columns of beta that stand side by side in a list, filled up to the longest of them
WINDOW = 256  # columns are sorted by length inside windows of so many before
SCRATCH_BYTES = 512 * 1024**2  # of the matrix products, at most; and not more than an eighth of what is free
_TILE, _WARPS = 64, 4  # ket columns of a cell of `opposite_tiled`, and warps of its thread blocks
_FILLED = 0.85  # of the places of its lists hold an entry (0.70 to 0.85 counted on the inputs of docs/gpu.md)
_INTERACTIONS = 2  # couplings on the device: of the Hamiltonian and of S^2


def device_structure_bytes(work: Work, spare: float = np.inf) -> int:
    """Largest bytes of lists and matrices of a rank on its GPU (`backends.gpu.share`, `backends.gpu.block`).

    Args:
        work: of a grid.
        spare: bytes that dense matrices may take.
    """
    problem, (a, b, t, r) = work.problem, work.shape
    n_labels, alpha, beta = problem.n_labels, work.alpha, work.beta
    plan = SameSpinPlan.create(work, spare)
    in_lists_a, in_lists_b = ~plan.chosen["alpha"], ~plan.chosen["beta"][work.mirror]  # by string label

    # Strings and connections of the rank that has most.
    share = 1.0 / r if work.parity else 1.0  # row groups are parts already without spin-flip symmetry
    rows = share * float(alpha.rows.sum(axis=1).max())
    singles = share * float(alpha.singles.sum(axis=(1, 2)).max())
    elements = share * float(((alpha.doubles + alpha.singles[:, :, 0]) @ in_lists_a).max())
    columns = float(beta.rows.sum(axis=1).max())
    entries = _padded_singles(work)
    doubles = _padded(problem.beta.doubles * in_lists_b[problem.beta.label], problem.beta.label, work.beta_part, b)
    slices = 8.0 * (columns / SLICE + n_labels) * b

    # Lists of singles and sparse matrices of both spins; a task group keeps what its tasks need.
    part_a, part_b = (min(1.0, 1.0 / t + 1.0 / n) for n in (a, b))
    lists_a = part_a * (9.0 * singles + 8.0 * rows * n_labels * a)
    matrix_a = part_a * (12.0 * elements + 8.0 * rows * a)
    values = 8.0 if (in_lists_b & (beta.singles[:, :, 0].sum(axis=0) > 0.0)).any() else 0.0
    lists_b = part_b * ((4.0 + values) * entries + n_labels * (8.0 * columns * b + slices))
    lists_b += 4.0 * problem.nelec[1] * columns
    matrix_b = part_b * (10.0 * doubles + 8.0 * columns * b + slices)

    # Offsets of rows, integrals, and what single forms of opposite spin need.
    ket_rows = float(alpha.rows.sum()) / a
    blocks = rows * (20.0 + 4.0 * problem.nelec[0] + 8.0 * b + 24.0 + 16.0 * columns / 1024) + 8.0 * ket_rows * a * b
    unfolding = 8.0 * (4.0 * rows + 6.0 * ket_rows) if work.parity else 0.0
    integrals = _INTERACTIONS * 8.0 * len(problem.pair_labels) ** 2
    tiled = part_b * _tiled_bytes(work) + _fold_bytes(work)
    return int(lists_a + matrix_a + lists_b + matrix_b + plan.n_bytes + blocks + unfolding + integrals + tiled)


def uploaded_bytes(work: Work) -> int:
    """Largest bytes of lists that a rank copies to its GPU; dense matrices are made there from lists."""
    return device_structure_bytes(work, 0.0) - int(_fold_bytes(work))


def most_bytes(alpha: SpinStrings, beta: SpinStrings, norb: int, nelec: tuple[int, int]) -> int:
    """Bytes on the GPU beside vectors and buffers that no rank exceeds, without counting connections.

    As if every string were connected to as many others as there are of its label, and had as many singles as there are
    orbitals to excite to.
    """
    total = 2.0 * _INTERACTIONS * 8.0 * (norb * (norb + 1) // 2) ** 2 + SCRATCH_BYTES
    for strings, n_electrons, per_element in ((alpha, nelec[0], 12.0), (beta, nelec[1], 10.0)):
        n, n_labels = strings.size, strings.n_labels
        singles = n * min(n, n_electrons * (norb - n_electrons))
        same_label = float((np.diff(strings.label_start).astype(np.float64) ** 2).sum())
        rows = 200.0 + 14.0 * n_electrons + 32.0 * n_labels + 16.0 * beta.size / 1024
        total += per_element * same_label + 18.0 * singles + rows * (n + SLICE * n_labels)
    total += 8.0 * float(np.diff(alpha.label_start).astype(np.float64) @ np.diff(beta.label_start))  # of a fold
    return int(1.2 * total)


def scratch_bytes(free: int) -> int:
    """Most bytes of scratch that matrix products take on a device with so many bytes free."""
    return min(SCRATCH_BYTES, max(free, 0) // 8)


def staging_bytes(work: Work, buffers: int) -> int:
    """Pinned host memory of a rank for messages on their way to and from its GPU, and the vector of its result."""
    a, b, t, r = work.shape
    n_ranks = a * b * t * r
    stored = 8 * -(-work.problem.dimension(work.shape) // n_ranks)
    return 2 * stored + (buffers if n_ranks > 1 else 0)


def _tiled_bytes(work: Work) -> float:
    """Largest bytes of the lists of beta singles in the order of `opposite_tiled`, of all ket blocks."""
    problem, b = work.problem, work.shape[1]
    columns = work.beta.rows.max(axis=0)  # of a block, by label
    entries = float(work.beta.singles.sum(axis=(1, 2)).max() + problem.nelec[1] * work.beta.rows.sum(axis=1).max())
    labels = np.arange(problem.n_labels)
    ket = columns[labels[:, None] ^ labels]  # of the list of label y and pairs of label d
    cells = np.ceil(used_pairs(problem) / CHUNK) * np.ceil(ket / _TILE)
    return 4.0 * entries / _FILLED + 8.0 * _WARPS * b * float(cells.sum())


def _fold_bytes(work: Work) -> float:
    """Y of a block on the mirror line: one number for every determinant of the block."""
    a, b, _, r = work.shape
    if not work.parity or work.problem.sector != 0 or a != b or r > 1:
        return 0.0
    return 8.0 * float((work.alpha.rows * work.beta.rows).sum(axis=1).max())


def _padded_singles(work: Work) -> float:
    """Largest number of entries in the lists of beta singles of a block, empty places included."""
    beta, b = work.problem.beta, work.shape[1]
    padded = sum(_padded(beta.singles[:, d], beta.label, work.beta_part, b) for d in range(work.problem.n_labels))
    return float(padded)


def _padded(counts: FloatArray, label: NDArray[np.int64], part: NDArray[np.int64], n_parts: int) -> float:
    """Largest number of entries of any part, if SLICE neighbours of one label are filled up to the longest of them.

    The entries of a column are spread evenly over the lists of all ket blocks; the longest of a slice is taken to stand
    out by one standard deviation of a Poisson distribution in each.
    """
    sums = np.zeros(n_parts)
    for y in np.unique(label):
        for k in range(n_parts):
            chosen = counts[(label == y) & (part == k)]
            filled = np.zeros(-(-len(chosen) // WINDOW) * WINDOW)
            filled[: len(chosen)] = chosen
            longest = np.sort(filled.reshape(-1, WINDOW), axis=1).reshape(-1, SLICE)[:, -1]
            if n_parts > 1:
                mean = longest / n_parts
                longest = n_parts * (mean + np.sqrt(mean))
            sums[k] += SLICE * float(longest.sum())
    return float(sums.max())
