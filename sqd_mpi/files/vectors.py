"""Vectors in result and checkpoint files: laid out by one process, filled and read by any number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sqd_mpi.errors import InputError
from sqd_mpi.files import checksums
from sqd_mpi.files.items import (
    CHECKPOINT,
    RESULT,
    PathLike,
    array_of,
    attribute,
    group_of,
    open_file,
    plain,
    read_tree,
    reading,
)
from sqd_mpi.files.new_files import into_place, temporary_name, to_disk
from sqd_mpi.files.writing import Stream, size_of, write_format, write_head

_HEAD = checksums.HEAD_BYTES


class VectorFile:
    """A new file with vectors, which many processes fill and which appears under its name only when it is complete.

    One process lays the file out and says at which offsets the pieces of the vectors stand; all write their elements
    there, without HDF5; the first completes the file with its checksum and renames it.

    Args:
        path: name of the finished file.
        file_format: root attribute `format`, RESULT or CHECKPOINT.
    """

    def __init__(self, path: PathLike, file_format: str) -> None:
        self.path = Path(path)
        self.file_format = file_format
        self.temporary = temporary_name(self.path)

    def lay_out(self, fill: Callable[[h5py.File], None]) -> dict[tuple[int, int], tuple[int, int, int]]:
        """Make the file but for the elements of its vectors.

        Args:
            fill: writes everything else and calls `create_vectors`.

        Returns:
            for every (root, label) of a piece its offset in bytes, its rows and its columns.

        Raises:
            OSError: the file cannot be written.
        """
        layout = {"userblock_size": _HEAD, "alignment_threshold": 1, "alignment_interval": 8}
        stream = Stream(self.temporary)
        with h5py.File(stream, "w", libver=("earliest", "v110"), **layout) as file:
            write_format(file, self.file_format)
            fill(file)
            pieces = {}
            for root in range(int(file["vectors"].attrs["nroots"])):
                for label, piece in file[f"vectors/{root}"].items():
                    pieces[root, int(label)] = (int(piece.id.get_offset()), *piece.shape)
        stream.finish()
        return pieces

    def complete(
        self,
        pieces: Mapping[tuple[int, int], tuple[int, int, int]],
        total: int,
        before_renaming: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the checksum and rename the file.

        Args:
            pieces: what `lay_out` gave.
            total: `checksums.word_sum` over all elements of the vectors.
            before_renaming: called when the file is on the disk and about to get its name.

        Raises:
            OSError: the file cannot be written.
        """
        ranges = [(offset, offset + 8 * rows * columns) for offset, rows, columns in pieces.values()]
        rest = checksums.outside(ranges, size_of(self.temporary))
        write_head(self.temporary, (total + checksums.file_sum(self.temporary, rest)) % 2**64)
        to_disk(self.temporary)
        before_renaming()
        into_place(self.temporary, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self.temporary.unlink(missing_ok=True)


def create_vectors(
    file: h5py.File,
    labels_a: NDArray[np.integer],
    labels_b: NDArray[np.integer],
    sectors: Sequence[int],
    n_labels: int | None = None,
    order_a: NDArray[np.integer] | None = None,
    order_b: NDArray[np.integer] | None = None,
    parities: Sequence[int] | None = None,
    n_directions: int = 0,
) -> None:
    """Create the datasets of vectors, one per root and alpha label, whose elements are written without HDF5.

    Args:
        file: open result or checkpoint file.
        labels_a: label of every alpha string, in canonical order, (n,).
        labels_b: label of every beta string, in canonical order, (n,).
        sectors: sector of every root.
        n_labels: number of labels, a power of two; by default the smallest that holds all labels and sectors.
        order_a: (n,) canonical numbers of the alpha strings in the order of the rows of the pieces, label after label;
            by default canonical inside a label.
        order_b: (n,) the same of the beta strings and the columns.
        parities: of every root +1 or -1 for C = +C^T or -C^T, 0 where that is not known; by default not known.
        n_directions: how many of the vectors, the last ones, are no eigenvectors but directions in which the
            eigensolver was going.
    """
    largest = max([0, *(int(array.max(initial=0)) for array in (labels_a, labels_b)), *sectors])
    n_labels = 1 << largest.bit_length() if n_labels is None else n_labels
    group = file.create_group("vectors")
    group.attrs["n_labels"] = n_labels
    group.attrs["nroots"] = len(sectors)
    group.attrs["sector"] = np.array(sectors, dtype=np.int64)
    group.attrs["parity"] = np.array(parities if parities is not None else [0] * len(sectors), dtype=np.int64)
    group.attrs["n_directions"] = n_directions
    group["label_alpha"] = np.asarray(labels_a, dtype=np.int32)
    group["label_beta"] = np.asarray(labels_b, dtype=np.int32)
    for spin_name, labels, order in (("alpha", labels_a, order_a), ("beta", labels_b, order_b)):
        group[f"order_{spin_name}"] = np.argsort(labels, kind="stable") if order is None else np.asarray(order)
    counts_a, counts_b = (np.bincount(labels, minlength=n_labels) for labels in (labels_a, labels_b))
    for root, sector in enumerate(sectors):
        pieces = group.create_group(str(root))
        for label in range(n_labels):
            shape = (int(counts_a[label]), int(counts_b[label ^ sector]))
            if min(shape) > 0:
                # Every element is written once: filling a large dataset beforehand would double the traffic. It must
                # have its place in the file now, for those who write there without HDF5.
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # h5py below 3.12 has no argument for it
                pieces.create_dataset(str(label), shape=shape, dtype="<f8", dcpl=layout)


class VectorReader:
    """The vectors of a result or a checkpoint; any rank may open the file and read what it owns.

    Args:
        path: the file, of which all but the vectors is read.

    Raises:
        InputError: the file is missing, damaged, of another kind, or holds no vectors.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._file = open_file(path, RESULT, CHECKPOINT)
        try:
            with reading(path):
                self._read_structure()
        except BaseException:
            self._file.close()
            raise

    def _read_structure(self) -> None:
        """Read strings and labels and check the shapes of the pieces."""
        if "vectors" not in self._file:
            raise InputError(f"{self.path} holds no vectors; write them with --save-vector")
        group = group_of(self._file, "vectors")

        # Numbers of vectors, labels and directions.
        self.fingerprint = str(attribute(self._file, "fingerprint"))
        self.hamiltonian = str(plain(self._file.attrs.get("hamiltonian", "")))  # a result has none
        self.nroots = int(attribute(group, "nroots"))
        self.n_labels = int(attribute(group, "n_labels"))
        self.sectors = [int(sector) for sector in attribute(group, "sector")]
        # Files of version 0.1.0 say nothing about parities, and have no directions.
        self.parities = [int(parity) for parity in np.atleast_1d(group.attrs.get("parity", [0] * self.nroots))]
        self.n_directions = int(group.attrs.get("n_directions", 0))

        # Strings, their labels and their order.
        self.labels_a, self.labels_b = array_of(group, "label_alpha"), array_of(group, "label_beta")
        self.order_a, self.order_b = array_of(group, "order_alpha"), array_of(group, "order_beta")
        self.strings_a, self.strings_b = (
            array_of(self._file, f"strings/{spin_name}") for spin_name in ("alpha", "beta")
        )
        self._counts_a, self._counts_b = (
            np.bincount(labels, minlength=self.n_labels) for labels in (self.labels_a, self.labels_b)
        )

        # All of it must fit together, and the pieces must have the shapes that follow from it.
        consistent = (len(self.labels_a), len(self.labels_b)) == (len(self.strings_a), len(self.strings_b))
        consistent = consistent and len(self.sectors) == len(self.parities) == self.nroots > self.n_directions >= 0
        if not consistent or len(self._counts_a) != self.n_labels or not set(self.parities) <= {-1, 0, 1}:
            raise InputError(f"{self.path} is damaged: its labels do not fit its strings")
        for labels, order in ((self.labels_a, self.order_a), (self.labels_b, self.order_b)):
            if not np.array_equal(np.sort(order), np.arange(len(labels))) or np.any(np.diff(labels[order]) < 0):
                raise InputError(f"{self.path} is damaged: the order of its strings does not fit their labels")
        for root in range(self.nroots):
            for label in range(self.n_labels):
                self._check_piece(root, label)

    def _check_piece(self, root: int, label: int) -> None:
        """Check that a piece is there with the shape that the labels give it."""
        shape = self.piece_shape(root, label)
        if min(shape) == 0:
            return
        piece = self._file.get(f"vectors/{root}/{label}")
        if not isinstance(piece, h5py.Dataset) or piece.shape != shape:
            raise InputError(f"{self.path} is damaged: /vectors/{root}/{label} is missing or has a wrong shape")

    def piece_shape(self, root: int, label: int) -> tuple[int, int]:
        """The numbers of alpha and beta strings of the piece of alpha label `label`."""
        return int(self._counts_a[label]), int(self._counts_b[label ^ self.sectors[root]])

    def read_block(
        self, root: int, label: int, row_start: int, row_stop: int, col_start: int, col_stop: int
    ) -> NDArray[np.float64]:
        """(row_stop - row_start, col_stop - col_start) elements of a piece, counted in its strings in stored order."""
        if row_stop <= row_start or col_stop <= col_start:
            return np.zeros((max(row_stop - row_start, 0), max(col_stop - col_start, 0)))
        with reading(self.path):
            return np.asarray(self._file[f"vectors/{root}/{label}"][row_start:row_stop, col_start:col_stop])

    @property
    def is_checkpoint(self) -> bool:
        """Whether there is a `state`; results have none."""
        return "state" in self._file

    def state(self) -> dict[str, Any]:
        """`iteration`, `energies`, `residual_norms` and the solver's state `solver` of a checkpoint."""
        with reading(self.path):
            return read_tree(group_of(self._file, "state"))

    def energies(self) -> list[float]:
        """The energy of every eigenvector, hartree; NaN where the file does not say."""
        return self._of_roots("energies", "energy")

    def residual_norms(self) -> list[float]:
        """The residual norm of every eigenvector, hartree; NaN where the file does not say."""
        return self._of_roots("residual_norms", "residual_norm")

    def _of_roots(self, in_state: str, in_summary: str) -> list[float]:
        """One number for every eigenvector from a checkpoint or a result."""
        with reading(self.path):
            if self.is_checkpoint:
                found = read_tree(group_of(self._file, "state")).get(in_state)
            else:
                found = read_tree(group_of(self._file, "summary")).get(in_summary)
        count = self.nroots - self.n_directions
        numbers = [float("nan") if number is None else float(number) for number in found or []]
        return (numbers + [float("nan")] * count)[:count]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> VectorReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
