"""Distributed vectors to and from files, in bounded pieces: no rank ever holds a whole vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi import bitstrings, files
from sqd_mpi.backends import FloatArray
from sqd_mpi.grid import ProcessGrid
from sqd_mpi.layout import Layout, SpinStrings
from sqd_mpi.sigma import whole_block

_PIECE_BYTES = 32 * 2**20  # travels at a time
_TAG = 77


def labels_in_canonical_order(strings: SpinStrings) -> NDArray[np.int64]:
    """(n,) label of every string, in canonical order."""
    labels = np.empty(strings.size, np.int64)
    labels[strings.canonical] = np.repeat(np.arange(strings.n_labels), np.diff(strings.label_start))
    return labels


def write_vectors(grid: ProcessGrid, file: Any, vectors: Sequence[tuple[Layout, FloatArray]]) -> None:
    """Write vectors into an open result or checkpoint file. Collective over the grid.

    Args:
        grid: the process grid.
        file: open file on rank 0, None elsewhere.
        vectors: for every root its layout (they differ in the sector only) and this rank's slice.
    """
    if not vectors:
        return
    layout = vectors[0][0]
    if grid.rank == 0:
        files.create_vectors(
            file,
            labels_in_canonical_order(layout.alpha),
            labels_in_canonical_order(layout.beta),
            [each.sector for each, _ in vectors],
            layout.n_labels,
            layout.alpha.canonical,
            layout.beta.canonical,
        )
    for root, (each, vector) in enumerate(vectors):
        _write_vector(grid, file, root, each, vector)


def _write_vector(grid: ProcessGrid, file: Any, root: int, layout: Layout, vector: FloatArray) -> None:
    here = grid.coordinates
    _, _, t, r = grid.shape
    whole = vector if grid.n_ranks == 1 and not layout.parity else whole_block(grid, layout, vector)
    if grid.rank == 0:
        for source in range(0, grid.n_ranks, t * r):
            _write_block(grid, file, root, layout, source, whole if source == 0 else None)
    elif here.it == 0 and here.ir == 0:
        for label, rows, width in _pieces(layout, here.ia, here.ib):
            for first, last in _row_chunks(len(rows), width):
                grid.send(_rows(whole, rows[first:last], width), 0, _TAG + label)


def _write_block(
    grid: ProcessGrid, file: Any, root: int, layout: Layout, source: int, whole: FloatArray | None
) -> None:
    """On rank 0: write the pieces of one block, its own or one that another rank sends."""
    there = grid.coordinates_of(source)
    for label, rows, width in _pieces(layout, there.ia, there.ib):
        row0 = int(layout.alpha_bounds[label, there.ia] - layout.alpha.label_start[label])
        beta = label ^ layout.sector
        column0 = int(layout.beta_bounds[beta, there.ib] - layout.beta.label_start[beta])
        for first, last in _row_chunks(len(rows), width):
            if whole is None:
                chunk = np.empty((last - first) * width)
                grid.receive(chunk, source, _TAG + label)
            else:
                chunk = _rows(whole, rows[first:last], width)
            files.write_block(file, root, label, row0 + first, column0, chunk.reshape(last - first, width))


def _pieces(layout: Layout, ia: int, ib: int) -> list[tuple[int, NDArray[np.int64], int]]:
    """(label, flat offsets of the rows, number of columns) of the pieces of a whole block that are not empty."""
    offsets, widths = layout.ket_offsets(ia, ib), layout.row_lengths(ib)
    _, start = layout.ket_rows(ia)
    pieces = [(x, offsets[start[x] : start[x + 1]], int(widths[x])) for x in range(layout.n_labels)]
    return [(x, rows, width) for x, rows, width in pieces if len(rows) and width]


def _rows(whole: FloatArray, offsets: NDArray[np.int64], width: int) -> FloatArray:
    """Rows of a whole block, one after another."""
    return np.concatenate([whole[start : start + width] for start in offsets])


def _row_chunks(rows: int, width: int) -> list[tuple[int, int]]:
    step = max(1, _PIECE_BYTES // (8 * width))
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


class StoredVectors:
    """Vectors of an earlier result or checkpoint, matched by strings to a layout that may differ in every way.

    Every rank reads what it needs by itself; determinants that the file does not have get 0.

    Args:
        path: result with vectors, or checkpoint.
        alpha, beta: strings of the new problem in working order.

    Raises:
        InputError: the file holds no vectors or cannot be read.
    """

    def __init__(self, path: Path | str, alpha: SpinStrings, beta: SpinStrings):
        self.reader = files.VectorReader(path)
        self._rows = _positions(self.reader.strings_a, self.reader.labels_a, self.reader.order_a, alpha)
        self._columns = _positions(self.reader.strings_b, self.reader.labels_b, self.reader.order_b, beta)

    @property
    def nroots(self) -> int:
        """Number of vectors in the file."""
        return self.reader.nroots

    def fill(self, grid: ProcessGrid, layout: Layout, root: int, out: FloatArray) -> None:
        """This rank's slice of one stored vector, as far as it lies in the layout's sector."""
        here = grid.coordinates
        where = layout.geometry(here.ia, here.ib, here.it, here.ir)
        out[:] = 0.0
        sector = self.reader.sectors[root]
        old_label_a, old_row = (array[where.alpha] for array in self._rows)
        old_label_b, old_column = (array[where.beta] for array in self._columns)
        lengths = where.row_length
        for label in range(self.reader.n_labels):
            mine = np.flatnonzero((old_label_a == label) & (lengths > 0))
            columns = np.flatnonzero(old_label_b == label ^ sector)
            if not len(mine) or not len(columns):
                continue
            stored = old_column[columns]
            low, high = int(stored.min()), int(stored.max()) + 1
            order = mine[np.argsort(old_row[mine], kind="stable")]
            step = max(1, _PIECE_BYTES // (8 * (high - low)))
            for chunk in np.split(order, np.flatnonzero(np.diff(old_row[order] // step)) + 1):
                top, bottom = int(old_row[chunk[0]]), int(old_row[chunk[-1]]) + 1
                block = self.reader.read_block(root, label, top, bottom, low, high)
                for row in chunk:
                    self._place(where, int(row), columns, block[old_row[row] - top, stored - low], out)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    @staticmethod
    def _place(where: Any, row: int, columns: NDArray[np.int64], values: FloatArray, out: FloatArray) -> None:
        """Put values of one row at those of its columns that lie in the slice."""
        inside = columns - where.row_column[row]
        flat = where.row_offset[row] + inside - where.start
        keep = (inside >= 0) & (inside < where.row_length[row]) & (flat >= 0) & (flat < len(out))
        out[flat[keep]] = values[keep]


def _positions(
    stored: NDArray[np.uint64], stored_labels: NDArray[Any], order: NDArray[Any], strings: SpinStrings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every working position: label and place inside the label of the same string in the file, or label -1."""
    if stored.shape[1] != strings.strings.shape[1]:
        return np.full(strings.size, -1, np.int64), np.zeros(strings.size, np.int64)
    rank_in_label = np.empty(len(stored), np.int64)
    for label in np.unique(stored_labels):
        members = order[stored_labels[order] == label]
        rank_in_label[members] = np.arange(len(members))
    found = bitstrings.find(stored, strings.strings)
    labels = np.where(found >= 0, np.asarray(stored_labels, np.int64)[found], -1)
    return labels, np.where(found >= 0, rank_in_label[found], 0)
