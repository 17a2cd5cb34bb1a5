"""HDF5 input, result and checkpoint files, as docs/files.md describes them. The only door to h5py.

Everything here runs in one process: rank 0 makes the files; any number of ranks may write the elements of vectors at
the offsets that `VectorFile` gives, and read them, at the same time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi import __version__, bitstrings, checksums, hdf5_checks
from sqd_mpi.hamiltonian import Hamiltonian
from sqd_mpi.options import InputError, SolveOptions

if TYPE_CHECKING:
    from sqd_mpi.sampling import Samples

FORMAT_VERSION = 1
INPUT = "sqd_mpi-input"
RESULT = "sqd_mpi-result"
CHECKPOINT = "sqd_mpi-checkpoint"
PROBLEM = "sqd_mpi-problem"
LOOP = "sqd_mpi-loop"

_HEAD = checksums.HEAD_BYTES

PathLike = str | os.PathLike[str]
Strings = NDArray[np.uint64]

# What `info --json` prints for a result, in this order; a field that the file lacks is null.
SUMMARY_FIELDS = (
    "energy",
    "penalised_energy",
    "converged",
    "residual_norm",
    "spin_square",
    "spin_pure",
    "sector",
    "spin_flip_parity",
    "occupancies",
    "natural_occupations",
    "orbital_entropies",
    "energy_pt2",
    "variance",
    "pt2_gap",
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
    "spin_target",
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
    changed: bool = False
    """Whether the file was changed after sqd_mpi had written it: its checksum does not fit."""


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
    run: Mapping[str, Any] = field(default_factory=dict)
    """Where and how it ran: input, command, started, host, processor, system, n_nodes."""


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
        self._stream: _Stream | None = None

    def __enter__(self) -> h5py.File:
        """Returns the file, open for writing."""
        self._stream = _Stream(self._temporary)
        self._file = h5py.File(self._stream, "w", libver=("earliest", "v110"), userblock_size=_HEAD)
        _write_format(self._file, self.file_format)
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Renames the complete file or removes the incomplete one."""
        try:
            if self._file is not None and self._stream is not None:
                self._file.close()
                self._stream.finish()
            if kind is None:
                _write_head(self._temporary, checksums.file_sum(self._temporary, [(_HEAD, _size(self._temporary))]))
                _into_place(self._temporary, self.path)
        except OSError as failure:
            raise OSError(f"cannot write {self.path}: {failure.strerror or failure}") from None
        finally:
            self._temporary.unlink(missing_ok=True)


class _Stream(io.RawIOBase):
    """A new file that HDF5 writes into and never fails to: an error is kept until the file is closed.

    HDF5 cannot get rid of a file into which it could not write: it complains at every object of the file and crashes
    at the end of the process.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file.

        Raises:
            OSError: it cannot be made.
        """
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._place = 0
        self._error: OSError | None = None

    def __repr__(self) -> str:
        """Returns the name, which h5py takes for that of the file."""
        return str(self._path)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place of the file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        self._place = offset + (os.fstat(self._descriptor).st_size if start is None else start)
        return self._place

    def tell(self) -> int:
        """Returns the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Reads; where nothing could be written there are zeros."""
        view = memoryview(buffer).cast("B")
        content = os.pread(self._descriptor, len(view), self._place)
        view[:] = content + bytes(len(view) - len(content))
        self._place += len(view)
        return len(view)

    def write(self, content: Any) -> int:
        """Writes, or keeps the error."""
        left = memoryview(content).cast("B")
        n_bytes = len(left)
        try:
            while left and self._error is None:
                written = os.pwrite(self._descriptor, left, self._place)
                self._place += written
                left = left[written:]
        except OSError as error:
            self._error = error
        self._place += len(left)
        return n_bytes

    def truncate(self, size: int | None = None) -> int:
        """Sets the length, or keeps the error."""
        length = self._place if size is None else size
        try:
            os.ftruncate(self._descriptor, length)
        except OSError as error:
            self._error = self._error or error
        return length

    def finish(self) -> None:
        """Closes the file.

        Raises:
            OSError: the first error.
        """
        os.close(self._descriptor)
        if self._error is not None:
            raise self._error


class VectorFile:
    """A new file with vectors, which many processes fill and which appears under its name only when it is complete.

    One process lays the file out and says at which offsets the pieces of the vectors stand; all write their elements
    there, without HDF5; the first completes the file with its checksum and renames it.
    """

    def __init__(self, path: PathLike, file_format: str) -> None:
        """Prepares a file.

        Args:
            path: name of the finished file.
            file_format: root attribute `format`, RESULT or CHECKPOINT.
        """
        self.path = Path(path)
        self.file_format = file_format
        self.temporary = _temporary_name(self.path)

    def lay_out(self, fill: Callable[[h5py.File], None]) -> dict[tuple[int, int], tuple[int, int, int]]:
        """Makes the file but for the elements of its vectors.

        Args:
            fill: writes everything else and calls `create_vectors`.

        Returns:
            for every (root, label) of a piece its offset in bytes, its rows and its columns.

        Raises:
            OSError: the file cannot be written.
        """
        layout = {"userblock_size": _HEAD, "alignment_threshold": 1, "alignment_interval": 8}
        stream = _Stream(self.temporary)
        with h5py.File(stream, "w", libver=("earliest", "v110"), **layout) as file:
            _write_format(file, self.file_format)
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
        """Writes the checksum and renames the file.

        Args:
            pieces: what `lay_out` gave.
            total: `checksums.word_sum` over all elements of the vectors.
            before_renaming: called when the file is on the disk and about to get its name.

        Raises:
            OSError: the file cannot be written.
        """
        ranges = [(offset, offset + 8 * rows * columns) for offset, rows, columns in pieces.values()]
        rest = checksums.outside(ranges, _size(self.temporary))
        _write_head(self.temporary, (total + checksums.file_sum(self.temporary, rest)) % 2**64)
        _to_disk(self.temporary)
        before_renaming()
        _into_place(self.temporary, self.path)

    def discard(self) -> None:
        """Removes what was written."""
        with suppress(OSError):
            self.temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Returns the length of a file in bytes."""
    return path.stat().st_size


def _write_head(path: Path, total: int) -> None:
    """Writes the checksum into the first bytes of a complete file."""
    with open(path, "r+b") as stream:
        stream.write(checksums.head(_size(path), total))


def _write_format(file: h5py.File, file_format: str) -> None:
    """Writes the attributes that every file has."""
    file.attrs["format"] = file_format
    file.attrs["version"] = FORMAT_VERSION
    file.attrs["creator"] = f"sqd_mpi {__version__}"


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
        _write_hamiltonian(file, hamiltonian)
        _write_strings(file, bitstrings.canonical(strings_a)[0], bitstrings.canonical(strings_b)[0])
        _write_tree(file.create_group("options"), {name: plain[name] for name in options or {}})


def read_input(path: PathLike) -> Problem:
    """Returns what an input file holds.

    Raises:
        InputError: if the file is missing, truncated or of another kind, a dataset is missing or has a wrong shape,
            an integral is not finite, a string does not fit the Hamiltonian, or an option is unknown.
    """
    changed = _look(path)
    with _open(path, INPUT) as file:
        group = _group(file, "hamiltonian")
        numbers = {name: _attribute(group, name) for name in ("norb", "nelec", "ecore")}
        integrals: dict[str, Any] = _read_integrals(group)
        stored = [_array(file, f"strings/{spin_name}") for spin_name in ("alpha", "beta")]
        options = _read_options(file)
    with _naming(path):
        hamiltonian = Hamiltonian(**integrals, **numbers)
        for strings, n_electrons, spin_name in zip(stored, hamiltonian.nelec, ("alpha", "beta"), strict=True):
            bitstrings.check(strings, hamiltonian.norb, n_electrons, spin_name)
        SolveOptions(**options)
    (strings_a, n_a), (strings_b, n_b) = (bitstrings.canonical(strings) for strings in stored)
    return Problem(hamiltonian, strings_a, strings_b, options, (n_a, n_b), changed)


def _integrals(hamiltonian: Hamiltonian) -> dict[str, NDArray[np.float64]]:
    """Returns the arrays of a Hamiltonian under their names in files."""
    if not hamiltonian.spin_dependent:
        return {"h1e": hamiltonian.h1e, "eri": hamiltonian.eri}
    found = {"h1e_a": hamiltonian.h1e, "eri_aa": hamiltonian.eri}
    found |= {name: getattr(hamiltonian, name) for name in ("h1e_b", "eri_bb", "eri_ab", "overlap_ab")}
    return {name: array for name, array in found.items() if array is not None}


def _read_integrals(group: h5py.Group) -> dict[str, NDArray[np.float64]]:
    """Returns the arrays of a Hamiltonian under the names of its fields."""
    if "h1e_a" not in group:
        return {"h1e": _array(group, "h1e"), "eri": _array(group, "eri")}
    found = {"h1e": _array(group, "h1e_a"), "eri": _array(group, "eri_aa")}
    found |= {name: _array(group, name) for name in ("h1e_b", "eri_bb", "eri_ab")}
    return found | ({"overlap_ab": _array(group, "overlap_ab")} if "overlap_ab" in group else {})


def write_problem(path: PathLike, hamiltonian: Hamiltonian, samples: Samples) -> None:
    """Writes a problem file: a Hamiltonian and sampled bit-strings.

    Raises:
        InputError: if the samples do not fit the Hamiltonian or the file cannot be written.
    """
    if samples.norb != hamiltonian.norb:
        raise InputError(f"the Hamiltonian has {hamiltonian.norb} orbitals; the samples have {samples.norb}")
    check_output(path)
    with AtomicFile(path, PROBLEM) as file:
        _write_hamiltonian(file, hamiltonian)
        file["samples/alpha"] = np.asarray(samples.alpha, dtype="<u8")
        file["samples/beta"] = np.asarray(samples.beta, dtype="<u8")
        file["samples/probability"] = samples.probabilities


def read_problem(path: PathLike) -> tuple[Hamiltonian, Samples]:
    """Returns what a problem file holds; samples in ascending order, each once.

    Raises:
        InputError: if the file is missing, truncated or of another kind, or its contents do not fit each other.
    """
    from sqd_mpi import sampling

    _look(path)
    with _open(path, PROBLEM) as file:
        group = _group(file, "hamiltonian")
        numbers = {name: _attribute(group, name) for name in ("norb", "nelec", "ecore")}
        integrals: dict[str, Any] = _read_integrals(group)
        alpha, beta, weights = (_array(file, f"samples/{name}") for name in ("alpha", "beta", "probability"))
    with _naming(path):
        hamiltonian = Hamiltonian(**integrals, **numbers)
        norb, shape = hamiltonian.norb, (len(weights), bitstrings.n_words(hamiltonian.norb))
        if alpha.shape != shape or beta.shape != shape or alpha.dtype != np.uint64 or beta.dtype != np.uint64:
            raise InputError(f"samples are {shape} numbers of uint64 for each spin; got {alpha.shape}, {beta.shape}")
        samples = sampling.merge(alpha, beta, weights, norb)
        for half in (samples.alpha, samples.beta):
            if not np.array_equal(bitstrings.pack(bitstrings.unpack(half, norb)), half):
                raise InputError(f"a sample occupies an orbital that does not exist; there are {norb}")
    return hamiltonian, samples


def write_loop(
    path: PathLike, fingerprint: str, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Writes the checkpoint of a loop: small values, which come back as JSON has them, and arrays."""
    with AtomicFile(path, LOOP) as file:
        file.attrs["fingerprint"] = fingerprint
        _write_tree(file.create_group("state"), values)
        for name, array in arrays.items():
            file[f"arrays/{name}"] = array


def read_loop(path: PathLike) -> tuple[str, dict[str, Any], dict[str, NDArray[Any]]]:
    """Returns fingerprint, values and arrays of the checkpoint of a loop."""
    _look(path)
    with _open(path, LOOP) as file:
        group = _group(file, "arrays")
        arrays = {name: _array(group, name) for name in group}
        return str(_attribute(file, "fingerprint")), _read_tree(_group(file, "state")), arrays


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
    _write_tree(file.create_group("run"), record.run)
    _write_tree(file, {"warnings": list(record.warnings)})


def write_checkpoint_state(
    file: h5py.File,
    *,
    fingerprint: str,
    hamiltonian: str = "",
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
        hamiltonian: fingerprint of the Hamiltonian alone.
        strings_a: alpha strings in canonical order.
        strings_b: beta strings in canonical order.
        iteration: number of iterations done.
        energies: energy of every root, hartree.
        residual_norms: residual norm of every root.
        state: whatever else the solver needs to go on: numbers, texts, lists, dictionaries, None.
    """
    file.attrs["fingerprint"] = fingerprint
    file.attrs["hamiltonian"] = hamiltonian
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
                # Every element is written once: filling a large dataset beforehand would double the traffic. It must
                # have its place in the file now, for those who write there without HDF5.
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                pieces.create_dataset(str(label), shape=shape, dtype="<f8", fill_time="never", dcpl=layout)


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
        self.hamiltonian = str(_plain(self._file.attrs.get("hamiltonian", "")))  # a result has none
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
    """Returns what `info` says about a file of this program, as an object that JSON can hold.

    Raises:
        InputError: if the file is missing, damaged or of another kind.
    """
    _look(path)
    with _open(path, INPUT, RESULT, CHECKPOINT, PROBLEM, LOOP) as file:
        file_format = str(_plain(file.attrs["format"]))
        if file_format == RESULT:
            stored = _read_tree(_group(file, "summary"))
            return {name: stored.get(name) for name in (*SUMMARY_FIELDS, *(set(stored) - set(SUMMARY_FIELDS)))}
        if file_format == INPUT:
            return {"format": file_format, **_summary_of_input(file)}
        if file_format == PROBLEM:
            return {"format": file_format, **_summary_of_problem(file)}
        if file_format == LOOP:
            return {"format": file_format, **_read_tree(_group(file, "state"))}
        return {"format": file_format, **_summary_of_checkpoint(file)}


def read_run(path: PathLike) -> dict[str, Any]:
    """Returns what a result says about its run: `summary`, `history`, `timings`, `options`, `versions`, `run`,
    `warnings`, `fingerprint`.

    Each is a dictionary but for the last two, a list and a text; arrays are nested lists, what is not finite is None,
    and what the file lacks is empty. Only the summary must be there.

    Raises:
        InputError: if the file is missing, damaged or no result.
    """
    _look(path)
    with _open(path, RESULT) as file:
        run: dict[str, Any] = {"summary": _read_tree(_group(file, "summary"))}
        for name in ("history", "timings", "options", "versions", "run"):
            run[name] = _read_tree(_group(file, name)) if name in file else {}
        run["warnings"] = file["warnings"].asstr()[...].ravel().tolist() if _has_texts(file, "warnings") else []
        return {**run, "fingerprint": _attribute(file, "fingerprint")}


def _has_texts(file: h5py.File, name: str) -> bool:
    """Returns whether there is a list of texts; an empty list is written as numbers."""
    item = file.get(name)
    return isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype) is not None


def read_weights(path: PathLike, most_roots: int) -> dict[str, tuple[Strings, NDArray[np.float64]]]:
    """Returns for alpha and beta the strings of a result, (n, nwords), and their weights, (nroots, n).

    Args:
        path: result file.
        most_roots: roots to read at most.

    Raises:
        InputError: if the file is missing, damaged, no result, or holds strings and weights that do not fit.
    """
    found = {}
    with _open(path, RESULT) as file:
        for name in ("alpha", "beta"):
            if f"weights/{name}" not in file or f"strings/{name}" not in file:
                continue
            strings, item = _array(file, f"strings/{name}", ndim=2), file[f"weights/{name}"]
            if not isinstance(item, h5py.Dataset) or item.ndim != 2 or item.shape[1] != len(strings):
                raise InputError(f"{path}: /weights/{name} does not fit /strings/{name}")
            found[name] = strings, np.asarray(item[:most_roots], np.float64)
    return found


def _summary_of_problem(file: h5py.File) -> dict[str, Any]:
    """Returns the numbers of a problem file."""
    group = _group(file, "hamiltonian")
    nelec = _attribute(group, "nelec")
    right = [
        np.bitwise_count(_array(file, f"samples/{name}", ndim=2)).sum(axis=1) == n
        for name, n in zip(("alpha", "beta"), nelec, strict=True)
    ]
    return {
        "norb": _attribute(group, "norb"),
        "nelec": nelec,
        "n_samples": len(right[0]),
        "n_samples_with_right_electrons": int((right[0] & right[1]).sum()),
    }


def _summary_of_input(file: h5py.File) -> dict[str, Any]:
    """Returns the numbers of an input file."""
    group = _group(file, "hamiltonian")
    n_a, n_b = (len(bitstrings.canonical(_array(file, f"strings/{name}", ndim=2))[0]) for name in ("alpha", "beta"))
    return {
        "norb": _attribute(group, "norb"),
        "nelec": _attribute(group, "nelec"),
        "spin_dependent": "h1e_a" in group,
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


def _write_hamiltonian(file: h5py.File, hamiltonian: Hamiltonian) -> None:
    """Writes integrals and electron numbers."""
    group = file.create_group("hamiltonian")
    group.attrs["norb"] = hamiltonian.norb
    group.attrs["nelec"] = np.array(hamiltonian.nelec, dtype=np.int64)
    group.attrs["ecore"] = hamiltonian.ecore
    for name, array in _integrals(hamiltonian).items():
        group[name] = array


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


def _check_there(path: PathLike) -> None:
    """Raises InputError unless there is an ordinary file."""
    if not Path(path).exists():
        raise InputError(f"{path} does not exist")
    if Path(path).is_dir():
        raise InputError(f"{path} is a directory; a file is needed")
    if not Path(path).is_file():
        raise InputError(f"{path} is no ordinary file")


def _look(path: PathLike) -> bool:
    """Makes sure that a file is whole enough for HDF5; returns whether it was changed since it was written.

    Raises:
        InputError: if it is not.
    """
    _check_there(path)
    return hdf5_checks.look(path)


def _open_file(path: PathLike, *formats: str) -> h5py.File:
    """Returns an open file of one of the formats.

    Raises:
        InputError: if there is none.
    """
    _check_there(path)
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except OSError:
        raise InputError(f"{path} is not an HDF5 file, or it is truncated") from None
    try:
        with _reading(path):
            hdf5_checks.check_structure(file)
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
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
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
