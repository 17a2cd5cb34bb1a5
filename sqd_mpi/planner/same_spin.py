"""Same spin on a GPU by dense matrices: rows that go into one product, what products cost, whether matrices fit.

H_alpha and H_beta are block-diagonal in the labels of strings. Each block can be a dense matrix, multiplied by DGEMM at
the rate of the matrix units, instead of a sparse one (docs/gpu.md). The backend uses the rules of the first half of
this module, plans all of it. Nothing here is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray

if TYPE_CHECKING:
    from sqd_mpi.planner.work import Work


MEMORY_SHARE = 0.125  # of a device's memory that the matrices may take
# A product of fewer elements takes as long as one of so many: a tile of 64 x 64 on each of some 128 processors.
FULL_DEVICE = 128 * 64 * 64
_CHUNKS = 8  # of the rows of a triangle; each is computed up to its longest row
_LEAST_CHUNK = 256  # rows: smaller products leave matrix units idle
_MOST_CHUNK = 2**25  # elements of a chunk, which waits in scratch memory


def chunk_rows(n_rows: int, longest: int) -> int:
    """Rows of a triangle that are computed in one product, up to the longest of them."""
    return max(1, min(max(-(-n_rows // _CHUNKS), _LEAST_CHUNK), _MOST_CHUNK // max(longest, 1)))


def spare_bytes(free_bytes: float, vector_bytes: float) -> float:
    """Bytes that matrices may take of the free memory of a device in which vectors and buffers need so many.

    At most half of what vectors leave: lists, scratch and a margin need the rest.
    """
    return max(min(MEMORY_SHARE * free_bytes, 0.5 * (free_bytes - vector_bytes)), 0.0)


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


@dataclass(frozen=True, eq=False)
class SameSpinCounts:
    """Multiply-adds of same spin in one sigma by alpha label, (n_labels, a, r, b) each, all task groups together.

    Attributes:
        sparse: "alpha" and "beta": elements of the sparse matrices times columns or rows.
        dense: the same of dense matrices; with spin-flip symmetry those of exact triangles.
        of_field: singles of beta, for the field of the alpha string, which is sparse in any case.
    """

    sparse: dict[str, FloatArray] = field(repr=False)
    dense: dict[str, FloatArray] = field(repr=False)
    of_field: FloatArray = field(repr=False)

    @classmethod
    def create(cls, work: Work) -> SameSpinCounts:
        """Count them on a grid."""
        rows, columns = work.alpha.rows[:, None, :], work.beta.rows[None, :, work.mirror]
        elements = (work.alpha.doubles + work.alpha.singles[:, :, 0])[:, None, :]
        singles, doubles = work.beta.singles[None, :, work.mirror, 0], work.beta.doubles[None, :, work.mirror]
        kets, ket_columns = work.alpha.rows.sum(axis=0), work.beta.rows.sum(axis=0)[work.mirror]

        def spread(values: FloatArray, name: str) -> FloatArray:
            return np.stack([work.spread(values[:, :, x], name) for x in range(values.shape[2])])

        return cls(
            {"alpha": spread(elements * columns, "alpha"), "beta": spread(rows * (doubles + singles), "beta")},
            {"alpha": spread(rows * columns * kets, "alpha"), "beta": spread(rows * columns * ket_columns, "beta")},
            spread(rows * singles, "beta"),
        )


def timed_terms(work: Work, dense: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Multiply-adds of matrix products that would take as long on a device which they fill.

    Triangles are computed in chunks up to their longest rows, and a product of few elements does not fill a device.
    """
    a, b, _, r = work.shape
    rows = work.alpha.rows / r if work.parity else work.alpha.rows.reshape(a, r, -1).mean(axis=1)  # (a, n_labels)
    chunks = np.ceil(rows / np.maximum([[chunk_rows(int(n), int(n)) for n in row] for row in rows], 1))
    triangle = (np.eye(a, b) * (work.parity != 0 and work.problem.sector == 0))[None, :, None, :]
    parts = 1.0 + triangle * np.maximum(chunks.T[:, :, None, None] - 1.0, 0.0)
    longer = 1.0 + triangle / np.maximum(parts, 1.0)
    depth = {"alpha": work.alpha.rows.sum(axis=0), "beta": work.beta.rows.sum(axis=0)[work.mirror]}
    least = {name: FULL_DEVICE * parts * each[:, None, None, None] for name, each in depth.items()}
    return {
        name: np.where(terms > 0.0, np.maximum(terms * longer, least[name]), 0.0) for name, terms in dense.items()
    }


@dataclass(frozen=True, eq=False)
class SameSpinPlan:
    """Which labels have dense matrices on all ranks, and what that means.

    Attributes:
        chosen: "alpha" and "beta": (n_labels,) by alpha label.
        seconds: "alpha" and "beta": (a, r, b) processor seconds, all task groups together.
        n_bytes: of the matrices of the rank that has most.
    """

    chosen: dict[str, NDArray[np.bool_]] = field(repr=False)
    seconds: dict[str, FloatArray] = field(repr=False)
    n_bytes: int

    @classmethod
    def create(cls, work: Work, bound: float) -> SameSpinPlan:
        """The faster form for every label, as long as the matrices of a rank take no more than so many bytes."""
        profile, counts = work.profile, work.same_spin
        sparse = {name: profile.same_spin_seconds * terms for name, terms in counts.sparse.items()}
        chosen = {name: np.zeros(work.problem.n_labels, bool) for name in sparse}
        n_bytes, dense = np.zeros(2 * work.problem.n_labels), sparse
        if profile.dense_seconds is not None:
            timed = timed_terms(work, counts.dense)
            dense = {name: profile.dense_seconds * terms for name, terms in timed.items()}
            saved = np.concatenate([(sparse[name] - dense[name]).mean(axis=(1, 2, 3)) for name in sparse])
            n_bytes = np.concatenate([matrix_bytes(work)[name] for name in sparse])
            taken = choose(saved, n_bytes, bound)
            chosen = dict(zip(sparse, np.split(taken, 2), strict=True))
            n_bytes = n_bytes * taken
        seconds = {
            name: np.where(chosen[name][:, None, None, None], dense[name], sparse[name]).sum(axis=0) for name in sparse
        }
        seconds["beta"] = seconds["beta"] + profile.same_spin_seconds * counts.of_field.sum(axis=0)
        return cls(chosen, seconds, int(n_bytes.sum()))


def matrix_bytes(work: Work) -> dict[str, FloatArray]:
    """"alpha" and "beta": (n_labels,) bytes of the matrix of every alpha label, on the rank where it is largest."""
    a, b, t, r = work.shape
    rows = work.alpha.rows.max(axis=0) / (r if work.parity else 1)
    columns, ket_columns = work.beta.rows.max(axis=0)[work.mirror], work.beta.rows.sum(axis=0)[work.mirror]
    part_a, part_b = (min(1.0, 1.0 / t + 1.0 / n) for n in (a, b))  # a task group keeps what its tasks need
    return {"alpha": 8.0 * part_a * rows * work.alpha.rows.sum(axis=0), "beta": 8.0 * part_b * columns * ket_columns}
