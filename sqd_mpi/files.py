"""HDF5 input, result and checkpoint files, as docs/files.md describes them. The only door to h5py.

Everything here runs in one process: rank 0 writes; any number of ranks may read vectors at the same time.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi import __version__, bitstrings
from sqd_mpi.hamiltonian import Hamiltonian
from sqd_mpi.options import InputError, SolveOptions

FORMAT_VERSION = 1
INPUT = "sqd_mpi-input"
RESULT = "sqd_mpi-result"
CHECKPOINT = "sqd_mpi-checkpoint"

PathLike = str | os.PathLike[str]
Strings = NDArray[np.uint64]

# What `info --json` prints for a result, in this order; a field that the file lacks is null.
SUMMARY_FIELDS = (
    "energy",
    "converged",
    "residual_norm",
    "spin_square",
    "sector",
    "spin_flip_parity",
    "occupancies",
    "natural_occupations",
    "orbital_entropies",
    "all_converged",
    "dimension",
    "sector_dimension",
    "n_alpha_strings",
    "n_beta_strings",
    "norb",
    "nelec",
    "grid",
    "backend",
    "n_ranks",
    "n_threads",
    "n_iterations",
    "n_sigma",
    "sigma_seconds",
    "solve_seconds",
    "wall_seconds",
    "cpu_seconds",
    "imbalance",
    "messages",
    "peak_rss_bytes",
    "symmetry",
    "version",
)


@dataclass(frozen=True, eq=False)
class Problem:
    """What an input file holds, checked."""

    hamiltonian: Hamiltonian
    """Integrals and electron numbers."""
    strings_a: Strings
    """Alpha strings in canonical order, (n, nwords)."""
    strings_b: Strings
    """Beta strings in canonical order, (n, nwords)."""
    options: dict[str, Any]
    """Options that stand in the file, with their values as plain Python objects."""
    n_duplicates: tuple[int, int]
    """Numbers of alpha and beta strings that stood in the file more than once and were merged."""


@dataclass(frozen=True, eq=False)
class Record:
    """What a result file holds, apart from the vectors."""

    summary: Mapping[str, Any]
    """The fields of `SUMMARY_FIELDS`: numbers, texts, lists, dictionaries; None for what is unknown."""
    fingerprint: str
    """Fingerprint of the Hamiltonian and the strings."""
    strings_a: Strings
    """Alpha strings in canonical order, (n, nwords)."""
    strings_b: Strings
    """Beta strings in canonical order, (n, nwords)."""
    weights_a: NDArray[np.float64]
    """Weight of every alpha string in every root, (nroots, n)."""
    weights_b: NDArray[np.float64]
    """Weight of every beta string in every root, (nroots, n)."""
    carry_over_a: Sequence[Strings] = ()
    """For every root the alpha strings worth keeping for a next subspace, heaviest first, (n, nwords)."""
    carry_over_b: Sequence[Strings] = ()
    """The same for beta."""
    density_matrices: Sequence[Mapping[str, NDArray[np.float64]]] = ()
    """For every root its density matrices by name."""
    history: Mapping[str, ArrayLike] = field(default_factory=dict)
    """One array per quantity whose first axis counts iterations."""
    timings: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """Seconds of every phase: (minimum, mean, maximum) over the ranks."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Every effective option as a plain value."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of sqd_mpi, Python, numpy, numba, h5py and the MPI library."""
    warnings: Sequence[str] = ()
    """Warnings of the run."""


class AtomicFile:
    """A new HDF5 file that appears under its name only when it is complete.

    The context manager gives an open `h5py.File` under a temporary name beside the target. At the end the file is
    flushed to the disk and renamed; after an exception it is removed, and a former file of that name stays.
    """

    def __init__(self, path: PathLike, file_format: str) -> None:
        """Prepares a file.

        Args:
            path: name of the finished file.
            file_format: root attribute `format`, one of INPUT, RESULT, CHECKPOINT.
        """
        self.path = Path(path)
        self.file_format = file_format
        self._temporary = _temporary_name(self.path)
        self._file: h5py.File | None = None

    def __enter__(self) -> h5py.File:
        """Returns the file, open for writing."""
        try:
            self._file = h5py.File(self._temporary, "w", libver=("earliest", "v110"))
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {error}") from error
        self._file.attrs["format"] = self.file_format
        self._file.attrs["version"] = FORMAT_VERSION
        self._file.attrs["creator"] = f"sqd_mpi {__version__}"
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Renames the complete file or removes the incomplete one."""
        try:
            if self._file is not None:
                self._file.close()
            if kind is None:
                _into_place(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


@contextmanager
def new_binary_file(path: PathLike) -> Iterator[Any]:
    """Gives a new file of bytes, packed by gzip if its name ends in .gz, that appears when it is complete."""
    target = Path(path)
    temporary = _temporary_name(target)
    try:
        with gzip.open(temporary, "wb") if target.suffix == ".gz" else open(temporary, "wb") as stream:
            yield stream
        _into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: PathLike, *inputs: PathLike | None) -> None:
    """Checks, before any work, that a file can be written.

    Args:
        path: file that is to be written.
        inputs: files that are read and must not be replaced by it.

    Raises:
        InputError: if the directory is missing or not writable, or the file is a directory or one of the inputs.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"cannot write {target}: the directory {target.parent} does not exist")
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a directory")
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {target}: it is no ordinary file")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"cannot write {target}: the directory {target.parent} is not writable")
    for source in inputs:
        if source is not None and target.exists() and Path(source).exists() and target.samefile(source):
            raise InputError(f"cannot write {target}: it would replace the input file {source}")


def fingerprint(hamiltonian: Hamiltonian, strings_a: Strings, strings_b: Strings) -> str:
    """Returns the SHA-256, in hexadecimal digits, of a Hamiltonian and of strings in canonical order."""
    digest = hashlib.sha256(hamiltonian.fingerprint().encode())
    for strings in (strings_a, strings_b):
        digest.update(f"strings {strings.shape} ".encode())
        digest.update(np.ascontiguousarray(strings, dtype="<u8").tobytes())
    return digest.hexdigest()


def write_input(
    path: PathLike,
    hamiltonian: Hamiltonian,
    strings_a: Strings,
    strings_b: Strings,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Writes an input file; strings are stored in canonical order, each once.

    Args:
        path: name of the file.
        hamiltonian: integrals and electron numbers.
        strings_a: alpha strings (n, nwords).
        strings_b: beta strings (n, nwords).
        options: values for `SolveOptions` that a run of this file takes, unless its command line says otherwise.

    Raises:
        InputError: if the strings do not fit the Hamiltonian, an option is unknown, or the file cannot be written.
    """
    plain = SolveOptions(**(options or {})).to_dict()
    for strings, n_electrons, spin_name in zip(
        (strings_a, strings_b), hamiltonian.nelec, ("alpha", "beta"), strict=True
    ):
        bitstrings.check(strings, hamiltonian.norb, n_electrons, spin_name)
    check_output(path)
    with AtomicFile(path, INPUT) as file:
        group = file.create_group("hamiltonian")
        group.attrs["norb"] = hamiltonian.norb
        group.attrs["nelec"] = np.array(hamiltonian.nelec, dtype=np.int64)
        group.attrs["ecore"] = hamiltonian.ecore
        group["h1e"] = hamiltonian.h1e
        group["eri"] = hamiltonian.eri
        _write_strings(file, bitstrings.canonical(strings_a)[0], bitstrings.canonical(strings_b)[0])
        _write_tree(file.create_group("options"), {name: plain[name] for name in options or {}})


def read_input(path: PathLike) -> Problem:
    """Returns what an input file holds.

    Raises:
        InputError: if the file is missing, truncated or of another kind, a dataset is missing or has a wrong shape,
            an integral is not finite, a string does not fit the Hamiltonian, or an option is unknown.
    """
    with _open(path, INPUT) as file:
        group = _group(file, "hamiltonian")
        if "h1e_a" in group:
            raise InputError(f"{path} holds spin-dependent integrals, which are not supported")
        numbers = {name: _attribute(group, name) for name in ("norb", "nelec", "ecore")}
        h1e, eri = _array(group, "h1e"), _array(group, "eri")
        stored = [_array(file, f"strings/{spin_name}") for spin_name in ("alpha", "beta")]
        options = _read_options(file)
    with _naming(path):
        hamiltonian = Hamiltonian(h1e, eri, **numbers)
        for strings, n_electrons, spin_name in zip(stored, hamiltonian.nelec, ("alpha", "beta"), strict=True):
            bitstrings.check(strings, hamiltonian.norb, n_electrons, spin_name)
        SolveOptions(**options)
    (strings_a, n_a), (strings_b, n_b) = (bitstrings.canonical(strings) for strings in stored)
    return Problem(hamiltonian, strings_a, strings_b, options, (n_a, n_b))


def write_record(file: h5py.File, record: Record) -> None:
    """Writes everything of a result but the vectors into an open result file."""
    file.attrs["fingerprint"] = record.fingerprint
    _write_tree(file.create_group("summary"), record.summary)
    _write_strings(file, record.strings_a, record.strings_b)
    file["weights/alpha"] = np.atleast_2d(record.weights_a)
    file["weights/beta"] = np.atleast_2d(record.weights_b)
    for spin_name, carry_over in (("alpha", record.carry_over_a), ("beta", record.carry_over_b)):
        for root, strings in enumerate(carry_over):
            file[f"carry_over/{root}/{spin_name}"] = np.asarray(strings, dtype=np.uint64)
    for root, matrices in enumerate(record.density_matrices):
        for name, matrix in matrices.items():
            file[f"density_matrices/{root}/{name}"] = matrix
    for name, values in record.history.items():
        file[f"history/{name}"] = np.asarray(values)
    timings = file.create_group("timings")
    for name, seconds in record.timings.items():
        timings.attrs[name] = np.array(seconds, dtype=np.float64)
    _write_tree(file.create_group("options"), record.options)
    _write_tree(file.create_group("versions"), record.versions)
    _write_tree(file, {"warnings": list(record.warnings)})


def write_checkpoint_state(
    file: h5py.File,
    *,
    fingerprint: str,
    strings_a: Strings,
    strings_b: Strings,
    iteration: int,
    energies: ArrayLike,
    residual_norms: ArrayLike,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Writes everything of a checkpoint but the vectors into an open checkpoint file.

    Args:
        file: the open file.
        fingerprint: of Hamiltonian and strings.
        strings_a: alpha strings in canonical order.
        strings_b: beta strings in canonical order.
        iteration: number of iterations done.
        energies: energy of every root, hartree.
        residual_norms: residual norm of every root.
        state: whatever else the solver needs to go on: numbers, texts, lists, dictionaries, None.
    """
    file.attrs["fingerprint"] = fingerprint
    _write_strings(file, strings_a, strings_b)
    group = file.create_group("state")
    group.attrs["iteration"] = iteration
    group["energies"] = np.asarray(energies, dtype=np.float64)
    group["residual_norms"] = np.asarray(residual_norms, dtype=np.float64)
    _write_tree(group.create_group("solver"), state or {})


def create_vectors(
    file: h5py.File,
    labels_a: NDArray[np.integer],
    labels_b: NDArray[np.integer],
    sectors: Sequence[int],
    n_labels: int | None = None,
    order_a: NDArray[np.integer] | None = None,
    order_b: NDArray[np.integer] | None = None,
) -> None:
    """Creates the datasets that `write_block` fills, one per root and alpha label.

    Args:
        file: open result or checkpoint file.
        labels_a: label of every alpha string, in canonical order, (n,).
        labels_b: label of every beta string, in canonical order, (n,).
        sectors: sector of every root.
        n_labels: number of labels, a power of two; by default the smallest that holds all labels and sectors.
        order_a, order_b: canonical numbers of the strings in the order in which the pieces have their rows and columns,
            label after label; by default canonical inside a label.
    """
    largest = max([0, *(int(array.max(initial=0)) for array in (labels_a, labels_b)), *sectors])
    n_labels = 1 << largest.bit_length() if n_labels is None else n_labels
    group = file.create_group("vectors")
    group.attrs["n_labels"] = n_labels
    group.attrs["nroots"] = len(sectors)
    group.attrs["sector"] = np.array(sectors, dtype=np.int64)
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
                # Every element is written once: filling a large dataset beforehand would double the traffic.
                pieces.create_dataset(str(label), shape=shape, dtype="<f8", fill_time="never")


def write_block(
    file: h5py.File, root: int, label: int, row_start: int, col_start: int, block: NDArray[np.float64]
) -> None:
    """Writes a rectangle of one piece of a vector.

    Args:
        file: open file with the datasets of `create_vectors`.
        root: which vector.
        label: alpha label of the piece.
        row_start: first row, counted in the alpha strings of this label in canonical order.
        col_start: first column, counted in the beta strings of label `label ^ sector`.
        block: the coefficients, 2-D; may be empty.
    """
    if block.size:
        piece = file[f"vectors/{root}/{label}"]
        piece[row_start : row_start + block.shape[0], col_start : col_start + block.shape[1]] = block


class VectorReader:
    """The vectors of a result or a checkpoint; any rank may open the file and read what it owns."""

    def __init__(self, path: PathLike) -> None:
        """Opens the file and reads all but the vectors.

        Raises:
            InputError: if the file is missing, damaged, of another kind, or holds no vectors.
        """
        self.path = Path(path)
        self._file = _open_file(path, RESULT, CHECKPOINT)
        try:
            with _reading(path):
                self._read_structure()
        except BaseException:
            self._file.close()
            raise

    def _read_structure(self) -> None:
        """Reads the strings and labels and checks the shapes of the pieces."""
        if "vectors" not in self._file:
            raise InputError(f"{self.path} holds no vectors; write them with --save-vector")
        group = _group(self._file, "vectors")
        self.fingerprint = str(_attribute(self._file, "fingerprint"))
        self.nroots = int(_attribute(group, "nroots"))
        self.n_labels = int(_attribute(group, "n_labels"))
        self.sectors = [int(sector) for sector in _attribute(group, "sector")]
        self.labels_a, self.labels_b = _array(group, "label_alpha"), _array(group, "label_beta")
        self.order_a, self.order_b = _array(group, "order_alpha"), _array(group, "order_beta")
        self.strings_a, self.strings_b = (_array(self._file, f"strings/{spin_name}") for spin_name in ("alpha", "beta"))
        self._counts_a, self._counts_b = (
            np.bincount(labels, minlength=self.n_labels) for labels in (self.labels_a, self.labels_b)
        )
        consistent = (len(self.labels_a), len(self.labels_b)) == (len(self.strings_a), len(self.strings_b))
        if not consistent or len(self.sectors) != self.nroots or len(self._counts_a) != self.n_labels:
            raise InputError(f"{self.path} is damaged: its labels do not fit its strings")
        for labels, order in ((self.labels_a, self.order_a), (self.labels_b, self.order_b)):
            if not np.array_equal(np.sort(order), np.arange(len(labels))) or np.any(np.diff(labels[order]) < 0):
                raise InputError(f"{self.path} is damaged: the order of its strings does not fit their labels")
        for root in range(self.nroots):
            for label in range(self.n_labels):
                self._check_piece(root, label)

    def _check_piece(self, root: int, label: int) -> None:
        """Checks that a piece is there with the shape that the labels give it."""
        shape = self.piece_shape(root, label)
        if min(shape) == 0:
            return
        piece = self._file.get(f"vectors/{root}/{label}")
        if not isinstance(piece, h5py.Dataset) or piece.shape != shape:
            raise InputError(f"{self.path} is damaged: /vectors/{root}/{label} is missing or has a wrong shape")

    def piece_shape(self, root: int, label: int) -> tuple[int, int]:
        """Returns the numbers of alpha and beta strings of the piece of alpha label `label`."""
        return int(self._counts_a[label]), int(self._counts_b[label ^ self.sectors[root]])

    def read_block(
        self, root: int, label: int, row_start: int, row_stop: int, col_start: int, col_stop: int
    ) -> NDArray[np.float64]:
        """Returns rows and columns of one piece of a vector, counted as in `write_block`."""
        if row_stop <= row_start or col_stop <= col_start:
            return np.zeros((max(row_stop - row_start, 0), max(col_stop - col_start, 0)))
        with _reading(self.path):
            return np.asarray(self._file[f"vectors/{root}/{label}"][row_start:row_stop, col_start:col_stop])

    def state(self) -> dict[str, Any]:
        """Returns `iteration`, `energies`, `residual_norms` and the solver's state `solver` of a checkpoint."""
        with _reading(self.path):
            return _read_tree(_group(self._file, "state"))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> VectorReader:
        """Returns the reader."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the file."""
        self.close()


def read_summary(path: PathLike) -> dict[str, Any]:
    """Returns what `info` says about an input, a result or a checkpoint, as an object that JSON can hold."""
    with _open(path, INPUT, RESULT, CHECKPOINT) as file:
        file_format = str(_plain(file.attrs["format"]))
        if file_format == RESULT:
            stored = _read_tree(_group(file, "summary"))
            return {name: stored.get(name) for name in (*SUMMARY_FIELDS, *(set(stored) - set(SUMMARY_FIELDS)))}
        if file_format == INPUT:
            return {"format": file_format, **_summary_of_input(file)}
        return {"format": file_format, **_summary_of_checkpoint(file)}


def read_run(path: PathLike) -> dict[str, Any]:
    """Returns what a result says about its run: `summary`, `history`, `timings`, `options`, `versions`, `fingerprint`.

    Each is a dictionary but the last; arrays are nested lists, and what is not finite is None.

    Raises:
        InputError: if the file is missing, damaged or no result.
    """
    with _open(path, RESULT) as file:
        parts = ("summary", "history", "timings", "options", "versions")
        run = {name: _read_tree(_group(file, name)) for name in parts}
        return {**run, "fingerprint": _attribute(file, "fingerprint")}


def _summary_of_input(file: h5py.File) -> dict[str, Any]:
    """Returns the numbers of an input file."""
    group = _group(file, "hamiltonian")
    n_a, n_b = (len(bitstrings.canonical(_array(file, f"strings/{name}", ndim=2))[0]) for name in ("alpha", "beta"))
    return {
        "norb": _attribute(group, "norb"),
        "nelec": _attribute(group, "nelec"),
        "n_alpha_strings": n_a,
        "n_beta_strings": n_b,
        "dimension": n_a * n_b,
        "options": _read_options(file),
    }


def _summary_of_checkpoint(file: h5py.File) -> dict[str, Any]:
    """Returns the numbers of a checkpoint."""
    state, vectors = _group(file, "state"), _group(file, "vectors")
    return {
        "iteration": _attribute(state, "iteration"),
        "energies": _array(state, "energies").tolist(),
        "residual_norms": _array(state, "residual_norms").tolist(),
        "fingerprint": _attribute(file, "fingerprint"),
        "n_labels": _attribute(vectors, "n_labels"),
        "sectors": _attribute(vectors, "sector"),
    }


def _temporary_name(path: Path) -> Path:
    """Returns the name under which a file is written before it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _into_place(temporary: Path, path: Path) -> None:
    """Gives a complete file its name, once it is on the disk."""
    _to_disk(temporary)
    os.replace(temporary, path)
    with suppress(OSError):
        _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Waits until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_strings(file: h5py.File, strings_a: Strings, strings_b: Strings) -> None:
    """Writes both sets of strings."""
    file["strings/alpha"] = np.asarray(strings_a, dtype="<u8")
    file["strings/beta"] = np.asarray(strings_b, dtype="<u8")


def _write_tree(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Writes numbers, texts and None as attributes, lists and arrays as datasets, dictionaries as groups."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            _write_tree(group.create_group(name), value)
        elif isinstance(value, list | tuple | np.ndarray):
            _write_list(group, name, value)
        else:
            group.attrs[name] = h5py.Empty("f8") if value is None else value


def _write_list(group: h5py.Group, name: str, values: Sequence[Any] | NDArray[Any]) -> None:
    """Writes a list; None becomes NaN, and a mark says that the other numbers are integers."""
    array = np.array(values)
    if array.dtype.kind in "U":
        array = np.array(values, dtype=object)
        group.create_dataset(name, data=array, dtype=h5py.string_dtype())
    elif array.dtype.kind == "O":
        known = {type(value) for value in array.ravel() if value is not None}
        group[name] = array.astype(np.float64)
        group[name].attrs["integers"] = bool(known) and known <= {int, np.int64, np.int32}
    else:
        group[name] = array


def _read_tree(group: h5py.Group) -> dict[str, Any]:
    """Returns what `_write_tree` wrote, as an object that JSON can hold: what is not finite is None."""
    tree = {name: _plain(value) for name, value in group.attrs.items()}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            tree[name] = _read_tree(item)
        elif h5py.check_string_dtype(item.dtype):
            tree[name] = item.asstr()[...].tolist()
        else:
            values = _plain(_read(item))
            tree[name] = _integers(values) if item.attrs.get("integers", False) else values
    return tree


def _plain(value: Any) -> Any:
    """Returns a Python object for what h5py gives."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _integers(values: Any) -> Any:
    """Returns nested lists with their numbers as integers."""
    if isinstance(values, list):
        return [_integers(value) for value in values]
    return None if values is None else int(values)


def _read_options(file: h5py.File) -> dict[str, Any]:
    """Returns the attributes of /options."""
    return {name: _plain(value) for name, value in file["options"].attrs.items()} if "options" in file else {}


def _open_file(path: PathLike, *formats: str) -> h5py.File:
    """Returns an open file of one of the formats.

    Raises:
        InputError: if there is none.
    """
    if not Path(path).exists():
        raise InputError(f"{path} does not exist")
    if Path(path).is_dir():
        raise InputError(f"{path} is a directory; a file is needed")
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except OSError:
        raise InputError(f"{path} is not an HDF5 file, or it is truncated") from None
    try:
        with _reading(path):
            _check_format(file, path, formats)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def _open(path: PathLike, *formats: str) -> Iterator[h5py.File]:
    """Gives an open file of one of the formats and closes it."""
    with _open_file(path, *formats) as file, _reading(path):
        yield file


@contextmanager
def _reading(path: PathLike) -> Iterator[None]:
    """Turns what h5py raises for a damaged file into one sentence."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def _check_format(file: h5py.File, path: PathLike, formats: Sequence[str]) -> None:
    """Checks the root attributes."""
    found, version = _plain(file.attrs.get("format")), _plain(file.attrs.get("version"))
    needed = " or ".join(formats)
    if found is None:
        raise InputError(f"{path} is not a file of sqd_mpi: a root attribute format = {needed} is needed")
    if found not in formats:
        raise InputError(f"{path} is a file of format {found}; one of format {needed} is needed")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{path} has no version of its format: a root attribute version = 1 is needed")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has version {version} of format {found}; this sqd_mpi reads up to version {FORMAT_VERSION}"
        )


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Puts the name of a file before the sentence of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    """Returns a group that must be there."""
    group = parent.get(name)
    if not isinstance(group, h5py.Group):
        raise InputError(f"{parent.file.filename} has no group /{name}")
    return group


def _attribute(item: h5py.Group, name: str) -> Any:
    """Returns an attribute that must be there, as a Python object."""
    if name not in item.attrs:
        raise InputError(f"{item.file.filename} has no attribute {name} of {item.name}")
    return _plain(item.attrs[name])


def _array(parent: h5py.Group, name: str, ndim: int | None = None) -> NDArray[Any]:
    """Returns the numbers of a dataset that must be there."""
    item = parent.get(name)
    full_name = f"{parent.name.rstrip('/')}/{name}"
    if not isinstance(item, h5py.Dataset):
        raise InputError(f"{parent.file.filename} has no dataset {full_name}")
    if item.dtype.kind not in "fiu" or ndim not in (None, item.ndim):
        raise InputError(f"{parent.file.filename}: {full_name} has a wrong type or shape: {item.dtype}, {item.shape}")
    return _read(item)


def _read(item: h5py.Dataset) -> NDArray[Any]:
    """Returns the whole of a dataset."""
    return np.asarray(item[()])
