"""HDF5 input, problem, result and checkpoint files, as docs/files.md describes them: the door to all that is stored.

Everything here runs in one process: rank 0 makes the files; any number of ranks may write the elements of vectors at
the offsets that `VectorFile` gives, and read them, at the same time. Only this module and those that it is made of
(`inspection`, `items`, `writing`, `vectors`) know h5py; other modules take all names from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi.arrays import Strings
from sqd_mpi.errors import InputError
from sqd_mpi.files import items
from sqd_mpi.files.items import CHECKPOINT, INPUT, LOOP, PROBLEM, RESULT, PathLike
from sqd_mpi.files.new_files import check_output, new_binary_file
from sqd_mpi.files.summary import Summary, as_printed
from sqd_mpi.files.vectors import VectorFile, VectorReader, create_vectors
from sqd_mpi.files.writing import AtomicFile
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian

if TYPE_CHECKING:
    from sqd_mpi.problem.sampling import Samples

__all__ = [
    "CHECKPOINT",
    "INPUT",
    "LOOP",
    "PROBLEM",
    "RESULT",
    "AtomicFile",
    "PathLike",
    "Problem",
    "Record",
    "VectorFile",
    "VectorReader",
    "check_output",
    "create_vectors",
    "fingerprint",
    "new_binary_file",
    "read_input",
    "read_loop",
    "read_problem",
    "read_run",
    "read_summary",
    "write_checkpoint_state",
    "write_input",
    "write_loop",
    "write_problem",
    "write_record",
]


@dataclass(frozen=True, eq=False)
class Problem:
    """What an input file holds, checked; what plans make of it is `planner.Problem`."""

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

    summary: Summary
    """Numbers of the run and of its roots."""
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


def fingerprint(hamiltonian: Hamiltonian, strings_a: Strings, strings_b: Strings) -> str:
    """The SHA-256, in hexadecimal digits, of a Hamiltonian and of strings (n, nwords) in canonical order."""
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
    """Write an input file; strings are stored in canonical order, each once.

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
    hamiltonian.check_strings(strings_a, strings_b)
    check_output(path)
    with AtomicFile(path, INPUT) as file:
        _write_hamiltonian(file, hamiltonian)
        _write_strings(file, bitstrings.canonical(strings_a)[0], bitstrings.canonical(strings_b)[0])
        items.write_tree(file.create_group("options"), {name: plain[name] for name in options or {} if name in plain})


def read_input(path: PathLike) -> Problem:
    """What an input file holds.

    Raises:
        InputError: if the file is missing, truncated or of another kind, a dataset is missing or has a wrong shape,
            an integral is not finite, a string does not fit the Hamiltonian, or an option is unknown.
    """
    changed = items.look(path)
    with items.opened(path, INPUT) as file:
        fields = _read_hamiltonian(file)
        stored = [items.array_of(file, f"strings/{spin_name}") for spin_name in ("alpha", "beta")]
        options = _read_options(file)
    with items.naming(path):
        hamiltonian = Hamiltonian(**fields)
        hamiltonian.check_strings(*stored)
        SolveOptions(**options)
    (strings_a, n_a), (strings_b, n_b) = (bitstrings.canonical(strings) for strings in stored)
    return Problem(hamiltonian, strings_a, strings_b, options, (n_a, n_b), changed)


def _integrals(hamiltonian: Hamiltonian) -> dict[str, NDArray[np.float64]]:
    """The arrays of a Hamiltonian under their names in files."""
    if not hamiltonian.spin_dependent:
        return {"h1e": hamiltonian.h1e, "eri": hamiltonian.eri}
    found = {"h1e_a": hamiltonian.h1e, "eri_aa": hamiltonian.eri}
    found |= {name: getattr(hamiltonian, name) for name in ("h1e_b", "eri_bb", "eri_ab", "overlap_ab")}
    return {name: array for name, array in found.items() if array is not None}


def _read_hamiltonian(file: h5py.File) -> dict[str, Any]:
    """The fields of a Hamiltonian."""
    group = items.group_of(file, "hamiltonian")
    names = {"h1e": "h1e", "eri": "eri"}
    if "h1e_a" in group:
        names = {"h1e": "h1e_a", "eri": "eri_aa", "h1e_b": "h1e_b", "eri_bb": "eri_bb", "eri_ab": "eri_ab"}
        names |= {"overlap_ab": "overlap_ab"} if "overlap_ab" in group else {}
    numbers = {name: items.attribute(group, name) for name in ("norb", "nelec", "ecore")}
    return numbers | {field: items.array_of(group, name) for field, name in names.items()}


def write_problem(path: PathLike, hamiltonian: Hamiltonian, samples: Samples) -> None:
    """Write a problem file: a Hamiltonian and sampled bit-strings.

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
    """What a problem file holds; samples in ascending order, each once.

    Raises:
        InputError: if the file is missing, truncated or of another kind, or its contents do not fit each other.
    """
    from sqd_mpi.problem import sampling

    items.look(path)
    with items.opened(path, PROBLEM) as file:
        fields = _read_hamiltonian(file)
        alpha, beta, weights = (items.array_of(file, f"samples/{name}") for name in ("alpha", "beta", "probability"))
    with items.naming(path):
        hamiltonian = Hamiltonian(**fields)
        norb, shape = hamiltonian.norb, (len(weights), bitstrings.n_words(hamiltonian.norb))
        if alpha.shape != shape or beta.shape != shape or alpha.dtype != np.uint64 or beta.dtype != np.uint64:
            raise InputError(f"samples are {shape} numbers of uint64 for each spin; got {alpha.shape}, {beta.shape}")
        samples = sampling.merge(alpha, beta, weights, norb)
    return hamiltonian, samples


def write_loop(path: PathLike, fingerprint: str, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the checkpoint of a loop: small values, which come back as JSON has them, and arrays of any shape."""
    with AtomicFile(path, LOOP) as file:
        file.attrs["fingerprint"] = fingerprint
        items.write_tree(file.create_group("state"), values)
        for name, array in arrays.items():
            file[f"arrays/{name}"] = array


def read_loop(path: PathLike) -> tuple[str, dict[str, Any], dict[str, NDArray[Any]]]:
    """Fingerprint, values and arrays of the checkpoint of a loop, as `write_loop` got them."""
    items.look(path)
    with items.opened(path, LOOP) as file:
        group = items.group_of(file, "arrays")
        arrays = {name: items.array_of(group, name) for name in group}
        return str(items.attribute(file, "fingerprint")), items.read_tree(items.group_of(file, "state")), arrays


def write_record(file: h5py.File, record: Record) -> None:
    """Write everything of a result but the vectors into an open result file."""
    file.attrs["fingerprint"] = record.fingerprint
    items.write_tree(file.create_group("summary"), record.summary.stored())
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
    items.write_tree(file.create_group("options"), record.options)
    items.write_tree(file.create_group("versions"), record.versions)
    items.write_tree(file.create_group("run"), record.run)
    items.write_tree(file, {"warnings": list(record.warnings)})


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
    """Write everything of a checkpoint but the vectors into an open checkpoint file.

    Args:
        file: the open file.
        fingerprint: of Hamiltonian and strings.
        hamiltonian: fingerprint of the Hamiltonian alone.
        strings_a: (n, nwords) alpha strings in canonical order.
        strings_b: (n, nwords) beta strings in canonical order.
        iteration: number of iterations done.
        energies: (nroots,) hartree.
        residual_norms: (nroots,) hartree.
        state: whatever else the solver needs to go on: numbers, texts, lists, dictionaries, None.
    """
    file.attrs["fingerprint"] = fingerprint
    file.attrs["hamiltonian"] = hamiltonian
    _write_strings(file, strings_a, strings_b)
    group = file.create_group("state")
    group.attrs["iteration"] = iteration
    group["energies"] = np.asarray(energies, dtype=np.float64)
    group["residual_norms"] = np.asarray(residual_norms, dtype=np.float64)
    items.write_tree(group.create_group("solver"), state or {})


def read_summary(path: PathLike) -> dict[str, Any]:
    """What `info` says about a file of this program, as an object that JSON can hold.

    Raises:
        InputError: if the file is missing, damaged or of another kind.
    """
    items.look(path)
    with items.opened(path, INPUT, RESULT, CHECKPOINT, PROBLEM, LOOP) as file:
        file_format = str(items.plain(file.attrs["format"]))
        if file_format == RESULT:
            return as_printed(items.read_tree(items.group_of(file, "summary")))
        if file_format == LOOP:
            return {"format": file_format, **items.read_tree(items.group_of(file, "state"))}
        summary = {INPUT: _summary_of_input, PROBLEM: _summary_of_problem, CHECKPOINT: _summary_of_checkpoint}
        return {"format": file_format, **summary[file_format](file)}


def read_run(path: PathLike) -> dict[str, Any]:
    """What a result says about its run: `summary`, `history`, `timings`, `options`, `versions`, `run`,
    `warnings`, `fingerprint`.

    Each is a dictionary but for the last two, a list and a text; arrays are nested lists, what is not finite is None,
    and what the file lacks is empty. Only the summary must be there.

    Raises:
        InputError: if the file is missing, damaged or no result.
    """
    items.look(path)
    with items.opened(path, RESULT) as file:
        run: dict[str, Any] = {"summary": items.read_tree(items.group_of(file, "summary"))}
        for name in ("history", "timings", "options", "versions", "run"):
            run[name] = items.read_tree(items.group_of(file, name)) if name in file else {}
        run["warnings"] = file["warnings"].asstr()[...].ravel().tolist() if _has_texts(file, "warnings") else []
        return {**run, "fingerprint": items.attribute(file, "fingerprint")}


def _has_texts(file: h5py.File, name: str) -> bool:
    """Whether there is a list of texts; an empty list is written as numbers."""
    item = file.get(name)
    return isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype) is not None


def read_weights(path: PathLike, most_roots: int) -> dict[str, tuple[Strings, NDArray[np.float64]]]:
    """For alpha and beta the strings of a result, (n, nwords), and their weights, (nroots, n).

    Args:
        path: result file.
        most_roots: roots to read at most.

    Raises:
        InputError: if the file is missing, damaged, no result, or holds strings and weights that do not fit.
    """
    found = {}
    with items.opened(path, RESULT) as file:
        for name in ("alpha", "beta"):
            if f"weights/{name}" not in file or f"strings/{name}" not in file:
                continue
            strings, item = items.array_of(file, f"strings/{name}", ndim=2), file[f"weights/{name}"]
            if not isinstance(item, h5py.Dataset) or item.ndim != 2 or item.shape[1] != len(strings):
                raise InputError(f"{path}: /weights/{name} does not fit /strings/{name}")
            found[name] = strings, np.asarray(item[:most_roots], np.float64)
    return found


def _summary_of_problem(file: h5py.File) -> dict[str, Any]:
    """The numbers of a problem file."""
    group = items.group_of(file, "hamiltonian")
    nelec = items.attribute(group, "nelec")
    right = [
        np.bitwise_count(items.array_of(file, f"samples/{name}", ndim=2)).sum(axis=1) == n
        for name, n in zip(("alpha", "beta"), nelec, strict=True)
    ]
    return {
        "norb": items.attribute(group, "norb"),
        "nelec": nelec,
        "n_samples": len(right[0]),
        "n_samples_with_right_electrons": int((right[0] & right[1]).sum()),
    }


def _summary_of_input(file: h5py.File) -> dict[str, Any]:
    """The numbers of an input file."""
    group = items.group_of(file, "hamiltonian")
    stored = (items.array_of(file, f"strings/{name}", ndim=2) for name in ("alpha", "beta"))
    n_a, n_b = (len(bitstrings.canonical(strings)[0]) for strings in stored)
    return {
        "norb": items.attribute(group, "norb"),
        "nelec": items.attribute(group, "nelec"),
        "spin_dependent": "h1e_a" in group,
        "n_alpha_strings": n_a,
        "n_beta_strings": n_b,
        "dimension": n_a * n_b,
        "options": _read_options(file),
    }


def _summary_of_checkpoint(file: h5py.File) -> dict[str, Any]:
    """The numbers of a checkpoint."""
    state, vectors = items.group_of(file, "state"), items.group_of(file, "vectors")
    return {
        "iteration": items.attribute(state, "iteration"),
        "energies": items.array_of(state, "energies").tolist(),
        "residual_norms": items.array_of(state, "residual_norms").tolist(),
        "fingerprint": items.attribute(file, "fingerprint"),
        "n_labels": items.attribute(vectors, "n_labels"),
        "sectors": items.attribute(vectors, "sector"),
    }


def _write_hamiltonian(file: h5py.File, hamiltonian: Hamiltonian) -> None:
    """Write integrals and electron numbers."""
    group = file.create_group("hamiltonian")
    group.attrs["norb"] = hamiltonian.norb
    group.attrs["nelec"] = np.array(hamiltonian.nelec, dtype=np.int64)
    group.attrs["ecore"] = hamiltonian.ecore
    for name, array in _integrals(hamiltonian).items():
        group[name] = array


def _write_strings(file: h5py.File, strings_a: Strings, strings_b: Strings) -> None:
    """Write both sets of strings."""
    file["strings/alpha"] = np.asarray(strings_a, dtype="<u8")
    file["strings/beta"] = np.asarray(strings_b, dtype="<u8")


def _read_options(file: h5py.File) -> dict[str, Any]:
    """The attributes of /options."""
    return {name: items.plain(value) for name, value in file["options"].attrs.items()} if "options" in file else {}
