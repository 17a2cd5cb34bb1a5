"""Distributed vectors to and from files, in bounded pieces: no rank ever holds a whole vector."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution.layout import Layout, SliceGeometry
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.whole_blocks import whole_block
from sqd_mpi.files import records
from sqd_mpi.files.checksums import word_sum
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.spin_strings import SpinStrings

_PIECE_BYTES = 32 * 2**20  # written or read at a time


def labels_in_canonical_order(strings: SpinStrings) -> NDArray[np.int64]:
    """(n,) label of every string, in canonical order."""
    labels = np.empty(strings.size, np.int64)
    labels[strings.canonical] = np.repeat(np.arange(strings.n_labels), np.diff(strings.label_start))
    return labels


def write_file(
    grid: ProcessGrid,
    path: Path | str,
    file_format: str,
    fill: Callable[[Any], None],
    vectors: Sequence[tuple[Layout, FloatArray]],
    before_renaming: Callable[[], None] = lambda: None,
    n_directions: int = 0,
) -> None:
    """Write a result or checkpoint file with vectors; every rank writes its part, aside, and rank 0 renames the file.

    Collective over the grid.

    Args:
        grid: the process grid.
        path: the file; a former one of this name stays until the new one is complete.
        file_format: `records.RESULT` or `records.CHECKPOINT`.
        fill: writes everything but the vectors into an open file; called on rank 0.
        vectors: for every root its layout (they differ in the sector only) and this rank's slice; at least one.
        before_renaming: called on rank 0 when the new file is complete and about to get its name.
        n_directions: how many of the vectors, the last ones, are search directions and no eigenvectors.

    Raises:
        OSError: the same on all ranks, in one sentence: a rank could not write. There is nothing new then.
    """
    file = records.VectorFile(path, file_format)
    temporary, pieces = _laid_out(grid, file, fill, vectors, n_directions)

    # Every rank writes its share. One that cannot still takes part in putting blocks together.
    total, trouble = 0, None
    try:
        descriptor = os.open(temporary, os.O_WRONLY)
    except OSError as error:
        descriptor, trouble = -1, error.strerror
    for root, (layout, vector) in enumerate(vectors):
        whole = vector if grid.n_ranks == 1 and not layout.parity else whole_block(grid, layout, vector)
        try:
            if trouble is None:
                mine = {label: piece for (other, label), piece in pieces.items() if other == root}
                total += _write_share(grid, descriptor, layout, whole, mine)
        except OSError as error:
            trouble = error.strerror
    try:
        if descriptor >= 0:
            os.fsync(descriptor)
            os.close(descriptor)
    except OSError as error:
        trouble = trouble or error.strerror

    # The sums of all make the checksum; the file gets its name only if all could write.
    sums = grid.ranks.sum(np.array([total % 2**64, trouble is not None], np.uint64))
    if not sums[1] and grid.rank == 0:
        try:
            file.complete(pieces, int(sums[0]), before_renaming)
        except OSError as error:
            trouble = error.strerror or str(error)
    if grid.rank == 0:
        file.discard()
    _agree(grid, path, trouble)


def _laid_out(
    grid: ProcessGrid,
    file: records.VectorFile,
    fill: Callable[[Any], None],
    vectors: Sequence[tuple[Layout, FloatArray]],
    n_directions: int,
) -> tuple[Path, dict[tuple[int, int], tuple[int, int, int]]]:
    """On all ranks the name of the unfinished file and where its pieces stand, once rank 0 has made it."""
    layout = vectors[0][0]

    def everything(target: Any) -> None:
        fill(target)
        records.create_vectors(
            target,
            labels_in_canonical_order(layout.alpha),
            labels_in_canonical_order(layout.beta),
            [each.sector for each, _ in vectors],
            layout.n_labels,
            layout.alpha.canonical,
            layout.beta.canonical,
            [each.parity for each, _ in vectors],
            n_directions,
        )

    plan: Any = None
    trouble = None
    if grid.rank == 0:
        try:
            plan = file.temporary, file.lay_out(everything)
        except OSError as error:
            file.discard()
            trouble = error.strerror or str(error)
    _agree(grid, file.path, trouble)
    return grid.ranks.broadcast(plan)


def _agree(grid: ProcessGrid, path: Path | str, trouble: str | None) -> None:
    """Raise the same OSError on all ranks if one of them has trouble."""
    if grid.ranks.maximum(np.array([trouble is not None], np.int64))[0]:
        causes = [text for text in grid.ranks.gather_objects(trouble) if text is not None]
        raise OSError(f"cannot write {path}: {causes[0]}")


def _write_share(
    grid: ProcessGrid,
    descriptor: int,
    layout: Layout,
    whole: FloatArray,
    pieces: dict[int, tuple[int, int, int]],
) -> int:
    """Write this rank's share of its block: the replicas of a block take its chunks of rows in turn.

    Returns:
        the checksum of what was written.
    """
    here = grid.coordinates
    _, _, t, r = grid.shape
    total = 0
    for label, rows, width in _pieces(layout, here.ia, here.ib):
        offset, _, n_columns = pieces[label]
        row0 = int(layout.alpha_bounds[label, here.ia] - layout.alpha.label_start[label])
        beta = label ^ layout.sector
        column0 = int(layout.beta_bounds[beta, here.ib] - layout.beta.label_start[beta])
        for first, last in _row_chunks(len(rows), width, t * r)[here.ir * t + here.it :: t * r]:
            chunk = _rows(whole, rows[first:last], width)
            word = offset // 8 + (row0 + first) * n_columns + column0
            if width == n_columns:
                total += _write_words(descriptor, chunk, word)
                continue
            for row, values in enumerate(chunk.reshape(last - first, width)):
                total += _write_words(descriptor, values, word + row * n_columns)
    return total


def _write_words(descriptor: int, values: FloatArray, word: int) -> int:
    """Write numbers at the place of a word of a file and return their checksum."""
    left, offset = values.view(np.uint8).data, 8 * word
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
    return word_sum(values, word)


def _pieces(layout: Layout, ia: int, ib: int) -> list[tuple[int, NDArray[np.int64], int]]:
    """(label, flat offsets of the rows, number of columns) of the pieces of a whole block that are not empty."""
    offsets, widths = layout.ket_offsets(ia, ib), layout.row_lengths(ib)
    _, start = layout.ket_rows(ia)
    pieces = [(x, offsets[start[x] : start[x + 1]], int(widths[x])) for x in range(layout.n_labels)]
    return [(x, rows, width) for x, rows, width in pieces if len(rows) and width]


def _rows(whole: FloatArray, offsets: NDArray[np.int64], width: int) -> FloatArray:
    """Rows of a whole block, one after another."""
    return np.concatenate([whole[start : start + width] for start in offsets])


def _row_chunks(rows: int, width: int, n_parts: int = 1) -> list[tuple[int, int]]:
    """Ranges of rows of bounded size, at least n_parts of them where there are as many rows."""
    step = max(1, min(_PIECE_BYTES // (8 * width), rows // n_parts))
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


class StoredVectors:
    """Vectors of an earlier result or checkpoint, matched by strings to a layout that may differ in every way.

    Every rank reads what it needs by itself; determinants that the file does not have get 0.

    Args:
        source: path of a result with vectors or of a checkpoint, or an open reader of one.
        alpha, beta: strings of the new problem in working order.

    Raises:
        InputError: the file holds no vectors or cannot be read.
    """

    def __init__(self, source: Path | str | records.VectorReader, alpha: SpinStrings, beta: SpinStrings):
        self.reader = source if isinstance(source, records.VectorReader) else records.VectorReader(source)
        self._rows = _positions(self.reader.strings_a, self.reader.labels_a, self.reader.order_a, alpha)
        self._columns = _positions(self.reader.strings_b, self.reader.labels_b, self.reader.order_b, beta)

    @property
    def nroots(self) -> int:
        """Number of eigenvectors in the file."""
        return self.reader.nroots - self.reader.n_directions

    @property
    def n_directions(self) -> int:
        """Number of search directions behind them."""
        return self.reader.n_directions

    @property
    def n_known(self) -> tuple[int, int]:
        """How many alpha and beta strings of the new problem the file has."""
        return int((self._rows[0] >= 0).sum()), int((self._columns[0] >= 0).sum())

    def fill(self, grid: ProcessGrid, layout: Layout, number: int, out: FloatArray) -> None:
        """This rank's slice of one stored vector, as far as it lies in the layout's sector, and its part of a parity.

        The file has whole vectors. Where the layout stores one of each two mirrored elements, that is
        (C_IJ + parity C_JI) / sqrt(2) off the mirror line and C_II on it.
        """
        where = layout.geometry(*grid.coordinates)
        out[:] = 0.0
        known = self.reader.parities[number]
        if layout.parity and known not in (0, layout.parity):
            return
        self._read(where, number, out, mirrored=False)
        if not layout.parity:
            return
        if known:
            out *= np.sqrt(2.0)
            out[where.diagonal] *= np.sqrt(0.5)
            return
        line, image = out[where.diagonal], np.zeros_like(out)
        self._read(where, number, image, mirrored=True)
        out += layout.parity * image
        out *= np.sqrt(0.5)
        out[where.diagonal] = line

    def _read(self, where: SliceGeometry, number: int, out: FloatArray, mirrored: bool) -> None:
        """Put C_IJ, or C_JI, of a stored vector where row I and column J of the slice are."""
        sector = self.reader.sectors[number]
        rows, columns = (self._columns, self._rows) if mirrored else (self._rows, self._columns)
        row_label, row_place = (array[where.alpha] for array in rows)
        column_label, column_place = (array[where.beta] for array in columns)
        for label in range(self.reader.n_labels):
            slice_rows = np.flatnonzero((row_label == label) & (where.row_length > 0))
            file_columns = np.flatnonzero(column_label == label ^ sector)
            if not len(slice_rows) or not len(file_columns):
                continue
            stored = column_place[file_columns]
            low, high = int(stored.min()), int(stored.max()) + 1
            order = slice_rows[np.argsort(row_place[slice_rows], kind="stable")]
            step = max(1, _PIECE_BYTES // (8 * (high - low)))
            for chunk in np.split(order, np.flatnonzero(np.diff(row_place[order] // step)) + 1):
                top, bottom = int(row_place[chunk[0]]), int(row_place[chunk[-1]]) + 1
                if mirrored:  # rows of the slice are columns of the file
                    block = self.reader.read_block(number, label ^ sector, low, high, top, bottom).T
                else:
                    block = self.reader.read_block(number, label, top, bottom, low, high)
                for row in chunk:
                    self._place(where, int(row), file_columns, block[row_place[row] - top, stored - low], out)

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    @staticmethod
    def _place(where: SliceGeometry, row: int, columns: NDArray[np.int64], values: FloatArray, out: FloatArray) -> None:
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
    position = bitstrings.find(stored, strings.strings)
    labels = np.where(position >= 0, np.asarray(stored_labels, np.int64)[position], -1)
    return labels, np.where(position >= 0, rank_in_label[position], 0)
