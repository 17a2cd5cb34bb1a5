"""Start vectors for `solve_subspace`: vectors of earlier solves, or whole arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings
from sqd_mpi.solver.result import SubspaceResult

StringPair = tuple[NDArray[np.uint64], NDArray[np.uint64]]
Source = tuple[SubspaceResult, int] | FloatArray

# Vectors up to this many bytes are put together to start a solve whose layout differs from theirs.
SMALL_VECTOR_BYTES = 100_000_000


class StartVectors:
    """What `solve_subspace` takes as `start_vectors`.

    Args:
        vectors: roots of earlier solves on the same strings, or whole arrays in canonical order.
        exact_dimension: sectors of up to so many determinants get no start, because the model space solves them
            exactly and a start would only lead away from that.
    """

    def __init__(self, vectors: list[Source], exact_dimension: int):
        self._vectors = vectors
        self._exact_dimension = exact_dimension
        self.nroots = len(vectors)
        self.left_out = 0
        """Vectors that were too large to be put together for another layout."""

    def fill(self, process_grid: ProcessGrid, layout: Layout, root: int, out: FloatArray) -> None:
        """This rank's slice of one vector, as far as it lies in the layout's sector, into out (slice size,)."""
        source = self._vectors[root]
        out[:] = 0.0
        if layout.dimension <= self._exact_dimension:
            return
        if isinstance(source, tuple):
            result, number = source
            old = result.roots[number]
            if congruent(old.layout, layout):
                if (old.sector, old.parity) == (layout.sector, layout.parity):
                    out[:] = old.vector
                return
            if 8 * layout.alpha.size * layout.beta.size > SMALL_VECTOR_BYTES:
                self.left_out += 1
                return
            source = self._vectors[root] = result.gather(number)
        _take_slice(process_grid, layout, source, out)


def placed(values: FloatArray, given: StringPair, wanted: StringPair) -> FloatArray:
    """Coefficients over some strings on other strings, zero where they are new.

    Args:
        values: (n_alpha, n_beta) over the given strings.
        given: (alpha, beta), (n, nwords) uint64 in canonical order.
        wanted: the same of the others.

    Raises:
        InputError: they have no determinant in common.
    """
    rows, columns = positions(given, wanted)
    out = np.zeros((len(rows), len(columns)))
    out[np.ix_(rows >= 0, columns >= 0)] = values[np.ix_(rows[rows >= 0], columns[columns >= 0])]
    return out


def positions(given: StringPair, wanted: StringPair) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the wanted strings of both spins stand among the given ones, -1 where they are new.

    Raises:
        InputError: they have no determinant in common.
    """
    if all(one.shape[1] == other.shape[1] for one, other in zip(given, wanted, strict=True)):
        rows, columns = (bitstrings.find(old, new) for old, new in zip(given, wanted, strict=True))
        if (rows >= 0).any() and (columns >= 0).any():
            return rows, columns
    raise InputError("ci0 has no determinant in common with the space of this solve")


def same_strings(one: StringPair, other: StringPair) -> bool:
    """Whether two spaces are the same."""
    return all(np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True))


def _take_slice(process_grid: ProcessGrid, layout: Layout, whole: FloatArray, out: FloatArray) -> None:
    """The slice of a whole vector in canonical order that this rank owns."""
    where = layout.geometry(*process_grid.coordinates)
    rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
    alpha, beta = layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]
    out[:] = whole[alpha, beta]
    if layout.parity:
        line = out[where.diagonal].copy()
        out[:] = np.sqrt(0.5) * (out + layout.parity * whole[beta, alpha])
        out[where.diagonal] = line


def congruent(first: Layout, second: Layout) -> bool:
    """Whether two layouts own the same strings in the same order everywhere; sectors and parities may differ."""
    return first.grid == second.grid and all(
        np.array_equal(one, other)
        for one, other in (
            (first.alpha.strings, second.alpha.strings),
            (first.beta.strings, second.beta.strings),
            (first.alpha.label_start, second.alpha.label_start),
            (first.beta.label_start, second.beta.label_start),
            (first.alpha.weight, second.alpha.weight),
            (first.beta.weight, second.beta.weight),
            (first.alpha_bounds, second.alpha_bounds),
            (first.beta_bounds, second.beta_bounds),
        )
    )
