"""Start vectors of one sector: what is known of its roots, stored vectors, model states, and random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.solver.model_space import ModelSpace
from sqd_mpi.solver.random_vectors import fill_random
from sqd_mpi.solver.sectors import Aim, ModelShare, SectorTask

_N_RANDOM = 2
_OUTSIDE_SHARE = 1.0  # norm of the part of a random vector over all determinants beside that in the model space
_STIRRED = 0.5  # norm of a random vector beside that of what it is added to
_LEAST_SQUARE = 1e-4  # norm squared of the part of a stored vector that lies in the sector


def _nothing_to_purify(vector: Array) -> float:
    """Leave a vector as it is."""
    return 1.0


class StartVectors:
    """Fills the first rows of a basis for one task.

    Args:
        grid: the process grid.
        layout: of the sector.
        model: its model space.
        memory: where the basis lies.
        task: what the sector is solved for.
        diagonal: this rank's slice of the diagonal of the operator, in host memory.
        energy: about that of the states that are sought, hartree.
        purify: takes out of a vector what it should not have, and gives the share of its squared norm that is left.
        n_locked: how many of the roots of the task are known and have no rows in the basis.
    """

    def __init__(
        self, grid: ProcessGrid, layout: Layout, model: ModelSpace, memory: Memory, task: SectorTask,
        diagonal: FloatArray, energy: float, purify: Callable[[Array], float] = _nothing_to_purify, n_locked: int = 0,
    ):  # fmt: skip
        self._grid, self._layout, self._model, self._memory, self._task = grid, layout, model, memory, task
        self._diagonal, self._energy, self._purify = diagonal, energy, purify
        self._n_locked = n_locked
        self._known: list[FloatArray] = []
        self._stored: tuple[Any, int, bool] = None, 0, False  # as in `add_stored`
        self.stored_numbers: list[int] = []
        """Which stored eigenvectors lie in the sector and were taken."""
        self.share: ModelShare | None = None
        """What the model space holds of the vector from which the last root of the task starts; None if that is one of
        its states."""

    def add_known(self, vectors: FloatArray) -> None:
        """Take eigenvectors of the sector, (n, size) slices of this rank in host memory."""
        self._known.extend(vectors)

    def add_stored(self, stored: Any, n_skipped: int = 0, with_guard: bool = False) -> None:
        """Take stored vectors.

        Args:
            stored: see `files.distributed.StoredVectors`.
            n_skipped: how many of those that lie in the sector are passed over, the first ones.
            with_guard: whether the next comes from iterations that began with random vectors.
        """
        self._stored = stored, n_skipped, with_guard

    def fill(self, out: Array) -> int:
        """Fill the first rows of (rows, size); returns how many. Collective over the grid."""
        task, n_rows = self._task, self._task.count - self._n_locked
        limit, count = out.shape[0] - n_rows, 0
        for vector in self._known[:limit]:
            self._memory.from_host(vector, out[count])
            count += 1
        n_guards = 0 if task.aim is Aim.ROOTS else 1
        count = self._fill_stored(out, count, limit - n_guards)
        if count >= n_rows:
            last = self._memory.to_host(out[n_rows - 1])[None, :]
            self.share = ModelShare(*self._model.shares(self._grid, last))
        if task.aim is Aim.GUARD:
            if not (self._stored[2] and count >= n_rows):
                count = self._fill_guards(out, count, limit)
        else:
            # Model states come on top: they guard against a root that stored vectors lack.
            first = self._n_locked if task.aim is Aim.ROOTS else task.count - 1
            wanted = task.count - first if count < n_rows or task.aim is not Aim.ROOTS else 0
            n_model = self._model.fill(out[count:limit], wanted, self._memory, first)
            for row in range(count, count + n_model):
                self._purify(out[row])  # configurations may have been cut
            count += n_model
        return self._fill_directions(out, count, limit)

    def stir(self, rows: Array, scratch: Array) -> None:
        """Add a random vector of low energy to each of some vectors: from there on no state is out of reach.

        Collective over the grid.

        Args:
            rows: the (n, size) vectors.
            scratch: (size,), overwritten.
        """
        vectors = self._memory.vectors
        for number in range(rows.shape[0]):
            with self._memory.filling(scratch) as random:
                self._make_guard(number, random)
            squares = np.array([vectors.dot(each, each) for each in (rows[number], scratch)])
            self._grid.sum_over_all(squares)
            factor = _STIRRED * np.sqrt(squares[0] / max(float(squares[1]), 1e-300))
            vectors.add_scaled(scratch, factor, rows[number])

    def _fill_stored(self, out: Array, count: int, limit: int) -> int:
        """Stored eigenvectors, as far as they lie in the sector."""
        stored, left, _ = self._stored
        for number in range(stored.nroots if stored is not None else 0):
            if count >= limit:
                break
            if self._fill_one(number, out[count]):
                left -= 1
                if left < 0:
                    self.stored_numbers.append(number)
                    count += 1
        return count

    def _fill_directions(self, out: Array, count: int, limit: int) -> int:
        """Directions in which the iterations that were stored were going, if they were those of this sector."""
        stored = self._stored[0]
        for number in range(getattr(stored, "n_directions", 0) if self.stored_numbers else 0):
            if count < limit and self._fill_one(stored.nroots + number, out[count]):
                count += 1
        return count

    def _fill_one(self, number: int, row: Array) -> bool:
        """One stored vector, normalised; False if next to nothing of it lies in the sector."""
        with self._memory.filling(row) as vector:
            self._stored[0].fill(self._grid, self._layout, number, vector)
            square = np.array([np.dot(vector, vector)])
            self._grid.sum_over_all(square)
            if square[0] > _LEAST_SQUARE:
                vector /= np.sqrt(square[0])
        return bool(square[0] > _LEAST_SQUARE) and self._purify(row) > _LEAST_SQUARE

    def _fill_guards(self, out: Array, count: int, limit: int) -> int:
        """Random vectors, from which no state is out of reach; together in one row where there is no room."""
        n_guards = max(1, min(_N_RANDOM, limit - count))
        for row in range(n_guards):
            with self._memory.filling(out[count + row]) as vector:
                self._make_guard(row, vector)
                for number in range(n_guards, _N_RANDOM) if row == n_guards - 1 else ():
                    vector += self._make_guard(number, np.empty_like(vector))
            self._purify(out[count + row])
        return count + n_guards

    def _make_guard(self, number: int, out: FloatArray) -> FloatArray:
        """A random vector of low energy: over all determinants, and in the model space over its eigenvectors."""
        seed = _N_RANDOM * self._task.count + number
        fill_random(self._layout, self._grid.coordinates, seed, self._diagonal, self._energy, out)
        square = np.array([np.dot(out, out)])
        self._grid.sum_over_all(square)
        out *= _OUTSIDE_SHARE / np.sqrt(max(float(square[0]), 1e-300))
        self._model.add_mixture(out, self._energy, seed, first=self._task.count - 1)
        return out
