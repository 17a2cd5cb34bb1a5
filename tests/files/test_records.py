"""Input, result and checkpoint files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.files.summary import ONLY_WHERE_STORED, Summary
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian

NORB, NELEC = 5, (2, 3)


def all_strings(norb: int, n_electrons: int) -> np.ndarray:
    """Returns all strings in canonical order."""
    numbers = [sum(1 << orbital for orbital in chosen) for chosen in combinations(range(norb), n_electrons)]
    return bitstrings.from_integers(sorted(numbers), norb)


@pytest.fixture
def hamiltonian(random_hamiltonian: Callable[..., Hamiltonian]) -> Hamiltonian:
    """Returns a small Hamiltonian with unlike electron numbers."""
    return random_hamiltonian(NORB, NELEC, seed=3)


@pytest.fixture
def strings() -> tuple[np.ndarray, np.ndarray]:
    """Returns seven alpha and four beta strings in canonical order."""
    return all_strings(NORB, 2)[::-1][:7][::-1].copy(), all_strings(NORB, 3)[:4]


@pytest.fixture
def input_path(tmp_path: Path, hamiltonian: Hamiltonian, strings: tuple[np.ndarray, np.ndarray]) -> Path:
    """Returns the path of a good input file."""
    path = tmp_path / "input.h5"
    options = {"tol": 1e-4, "grid": (1, 1, 2, 1), "max_subspace": None}
    records.write_input(path, hamiltonian, strings[0], strings[1], options)
    return path


def temporary_files(folder: Path) -> list[Path]:
    """Returns what a failed writer left behind."""
    return [path for path in folder.iterdir() if ".tmp" in path.name]


def test_options_that_are_gone_are_read_where_they_change_nothing(input_path, tmp_path):
    """Files of version 0.1.0 may hold the precision of slides, which is double now."""
    with h5py.File(input_path, "a") as file:
        file["options"].attrs["slide_precision"] = "double"
    problem = records.read_input(input_path)
    assert SolveOptions(**problem.options).tol == 1e-4
    again = tmp_path / "again.h5"
    records.write_input(again, problem.hamiltonian, problem.strings_a, problem.strings_b, problem.options)
    assert "slide_precision" not in records.read_input(again).options
    with h5py.File(input_path, "a") as file:
        file["options"].attrs["slide_precision"] = "single"
    with pytest.raises(InputError, match="option slide_precision is no longer there.* with double; got 'single'"):
        records.read_input(input_path)


def test_input_keeps_every_digit(input_path, hamiltonian, strings):
    """What is read is what was written, bit for bit."""
    problem = records.read_input(input_path)
    assert problem.hamiltonian.fingerprint() == hamiltonian.fingerprint()
    assert problem.hamiltonian.nelec == NELEC
    np.testing.assert_array_equal(problem.strings_a, strings[0])
    np.testing.assert_array_equal(problem.strings_b, strings[1])
    assert problem.options == {"tol": 1e-4, "grid": "1,1,2,1", "max_subspace": None}
    assert problem.n_duplicates == (0, 0)
    assert temporary_files(input_path.parent) == []


@pytest.mark.parametrize("norb", [64, 65, 130])
def test_input_of_many_orbitals(tmp_path, norb):
    """Strings of several words."""
    npair = norb * (norb + 1) // 2
    hamiltonian = Hamiltonian(np.eye(norb), np.zeros(npair * (npair + 1) // 2), 0.0, norb, (1, 0))
    strings_a = bitstrings.from_integers([1, 1 << (norb - 1)], norb)
    records.write_input(tmp_path / "input.h5", hamiltonian, strings_a, bitstrings.from_integers([0], norb))
    problem = records.read_input(tmp_path / "input.h5")
    assert bitstrings.to_integers(problem.strings_a) == [1, 1 << (norb - 1)]
    assert bitstrings.to_integers(problem.strings_b) == [0]


def test_strings_are_sorted_and_merged(tmp_path, input_path, hamiltonian, strings):
    """The order in a file does not matter, and duplicates are counted."""
    with h5py.File(input_path, "r+") as file:
        del file["strings"]
        file["strings/alpha"] = strings[0][[3, 0, 1, 2, 6, 5, 4, 3, 3]]
        file["strings/beta"] = strings[1][::-1]
    problem = records.read_input(input_path)
    assert problem.n_duplicates == (2, 0)
    np.testing.assert_array_equal(problem.strings_a, strings[0])
    np.testing.assert_array_equal(problem.strings_b, strings[1])
    assert records.read_summary(input_path)["n_alpha_strings"] == 7

    records.write_input(tmp_path / "b.h5", hamiltonian, strings[0][[3, 0, 1, 2, 6, 5, 4, 3]], strings[1])
    assert records.read_input(tmp_path / "b.h5").n_duplicates == (0, 0)


def _set(name: str, value: Any) -> Callable[[h5py.File], None]:
    """Returns what replaces a dataset."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def _delete(name: str) -> Callable[[h5py.File], None]:
    """Returns what deletes a dataset or group."""
    return lambda file: file.__delitem__(name)


def _attribute(group: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    """Returns what sets an attribute, or deletes it if the value is None."""

    def change(file: h5py.File) -> None:
        if value is None:
            del file[group].attrs[name]
        else:
            file[group].attrs[name] = value

    return change


def _poison(name: str) -> Callable[[h5py.File], None]:
    """Returns what puts a NaN into a dataset."""
    return lambda file: file[name].write_direct(np.full(file[name].shape, np.nan))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_attribute("/", "format", None), "is not a file of sqd_mpi"),
        (_attribute("/", "format", "sqd_mpi-result"), "is a file of format sqd_mpi-result; .* sqd_mpi-input is needed"),
        (_attribute("/", "version", 2), "has version 2 of format sqd_mpi-input; .* up to version 1"),
        (_attribute("/", "version", None), "has no version"),
        (_delete("hamiltonian"), "has no group /hamiltonian"),
        (_delete("hamiltonian/h1e"), "has no dataset /hamiltonian/h1e"),
        (_delete("hamiltonian/eri"), "has no dataset /hamiltonian/eri"),
        (_delete("strings/alpha"), "has no dataset /strings/alpha"),
        (_delete("strings"), "has no dataset /strings/alpha"),
        (_attribute("hamiltonian", "norb", None), "has no attribute norb of /hamiltonian"),
        (_attribute("hamiltonian", "nelec", None), "has no attribute nelec"),
        (_attribute("hamiltonian", "norb", 6), r"one-electron integrals of 6 orbitals are \(6, 6\)"),
        (_attribute("hamiltonian", "nelec", [2, 9]), "5 orbitals hold 0 to 5 beta electrons; got 9"),
        (_attribute("hamiltonian", "nelec", [2]), "nelec is a pair of integers"),
        (_attribute("hamiltonian", "ecore", np.nan), "not finite|real numbers"),
        (_attribute("hamiltonian", "ecore", "much"), "core energy must be real"),
        (_set("hamiltonian/h1e", np.zeros((5, 4))), r"got \(5, 4\)"),
        (_set("hamiltonian/eri", np.zeros((5, 5, 5, 5))), "two-electron integrals of 5 orbitals are 120 numbers"),
        (_set("hamiltonian/h1e", np.tri(5)), "not symmetric"),
        (_set("hamiltonian/h1e", "text"), "/hamiltonian/h1e has a wrong type"),
        (_poison("hamiltonian/h1e"), "not finite"),
        (_poison("hamiltonian/eri"), "not finite"),
        (_set("strings/alpha", np.zeros((0, 1), dtype=np.uint64)), "no alpha strings"),
        (_set("strings/alpha", np.array([[3], [7]], dtype=np.uint64)), "alpha string 2 has 3 electrons; .* 2 alpha"),
        (_set("strings/beta", np.array([[7], [3]], dtype=np.uint64)), "beta string 2 has 2 electrons; .* 3 beta"),
        (_set("strings/beta", np.array([[7 << 3]], dtype=np.uint64)), "beta string 1 occupies orbital 5 "),
        (_set("strings/beta", np.array([[7, 0]], dtype=np.uint64)), r"\(n, 1\) of uint64; got \(1, 2\)"),
        (_set("strings/beta", np.array([7], dtype=np.uint64)), r"got \(1,\) of uint64"),
        (_set("strings/beta", np.array([[7]], dtype=np.int32)), "got .* of int32"),
        (_attribute("options", "tolerance", 1e-4), "unknown option 'tolerance'"),
        (_attribute("options", "tol", -1.0), "tol needs a positive number; got -1.0"),
        (lambda file: file.create_dataset("hamiltonian/h1e_a", data=1.0), "no dataset /hamiltonian/eri_aa"),
    ],
)
def test_bad_input_is_one_sentence(input_path, change, sentence):
    """Everything that can be wrong with an input file has a sentence that names the file."""
    with h5py.File(input_path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=sentence) as error:
        records.read_input(input_path)
    assert str(error.value).startswith(str(input_path))
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    """A file that is not there, and a directory."""
    with pytest.raises(InputError, match="nothing.h5 does not exist"):
        records.read_input(tmp_path / "nothing.h5")
    with pytest.raises(InputError, match="is a directory"):
        records.read_input(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(input_path, fraction):
    """A file that was cut anywhere is refused."""
    content = input_path.read_bytes()
    input_path.write_bytes(content[: int(fraction * len(content))])
    for read in (records.read_input, records.read_summary, records.VectorReader):
        with pytest.raises(InputError, match="is not an HDF5 file, or it is truncated"):
            read(input_path)


def test_text_file(tmp_path):
    """A FCIDUMP is no input file."""
    path = tmp_path / "fcidump.txt"
    path.write_text("&FCI NORB=2,NELEC=2,MS2=0, &END\n")
    with pytest.raises(InputError, match="not an HDF5 file"):
        records.read_input(path)


def test_write_input_checks_first(tmp_path, hamiltonian, strings):
    """Nothing is written if something does not fit."""
    path = tmp_path / "input.h5"
    with pytest.raises(InputError, match="alpha string 1 has 3 electrons"):
        records.write_input(path, hamiltonian, strings[1], strings[1])
    with pytest.raises(InputError, match="unknown option"):
        records.write_input(path, hamiltonian, strings[0], strings[1], {"foo": 1})
    with pytest.raises(InputError, match="directory .* does not exist"):
        records.write_input(tmp_path / "missing" / "input.h5", hamiltonian, *strings)
    assert list(tmp_path.iterdir()) == []


def test_check_output(tmp_path, input_path):
    """An output must be writable and must not replace an input."""
    records.check_output(tmp_path / "result.h5", input_path, None)
    records.check_output(input_path)
    with pytest.raises(InputError, match="is a directory"):
        records.check_output(tmp_path)
    with pytest.raises(InputError, match="would replace the input file"):
        records.check_output(tmp_path / "." / "input.h5", input_path)


def test_atomic_file_appears_when_complete(tmp_path):
    """The target does not exist before the end and is complete then."""
    path = tmp_path / "result.h5"
    with records.AtomicFile(path, records.RESULT) as file:
        file["data"] = np.arange(3)
        assert not path.exists()
        assert str(os.getpid()) in Path(file.filename).name
        assert Path(file.filename).parent == tmp_path
    with h5py.File(path) as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("sqd_mpi-result", 1)
        assert file.attrs["creator"].startswith("sqd_mpi ")
    assert os.listdir(tmp_path) == ["result.h5"]


def test_atomic_file_keeps_the_old_one_on_failure(tmp_path):
    """An exception leaves the former file and nothing else."""
    path = tmp_path / "result.h5"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), records.AtomicFile(path, records.RESULT) as file:
        file["data"] = np.arange(3)
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.h5"]


def test_fingerprint_sees_everything(hamiltonian, strings, random_hamiltonian):
    """Another Hamiltonian, other strings or exchanged spins give another fingerprint."""
    strings_a, strings_b = strings
    prints = {
        records.fingerprint(hamiltonian, strings_a, strings_b),
        records.fingerprint(random_hamiltonian(NORB, NELEC, seed=4), strings_a, strings_b),
        records.fingerprint(hamiltonian, strings_a[1:], strings_b),
        records.fingerprint(hamiltonian, strings_a, strings_b[1:]),
        records.fingerprint(hamiltonian, strings_b, strings_a),
        records.fingerprint(hamiltonian, strings_a[:4], np.concatenate([strings_a[4:], strings_b])),
    }
    assert len(prints) == 6
    assert records.fingerprint(hamiltonian, strings_a.copy(), strings_b) in prints


SUMMARY: dict[str, Any] = {
    "energy": [-76.2359466308 / 3, -0.1 - 0.2],
    "penalised_energy": [-76.2, 1.0 / 3],
    "converged": [True, False],
    "residual_norm": [1e-7 / 3, 5e-324],
    "spin_square": [None, 2.0 / 3],
    "spin_variance": [None, 1.25],
    "spin_pure": [None, False],
    "sector": [0, 3],
    "spin_flip_parity": [None, 1],
    "occupancies": [[[1 / 3, 0.5], [0.1, 0.2]], [[1e-17, 1.0], [1.0, 0.0]]],
    "natural_occupations": [[1.5, 0.5], [1.0, 1.0]],
    "orbital_entropies": [[0.25, 0.125], [0.5, 0.0]],
    "energy_pt2": [-1e-3 / 3, None],
    "variance": [1e-2 / 3, 0.5],
    "pt2_gap": [0.1 / 3, None],
    "all_converged": False,
    "proven": False,
    "sectors": {
        "sector": [0, 0],
        "spin_flip_parity": [1, -1],
        "energy": [-1.0 / 3, 0.7],
        "n_found": [2, 0],
        "how": ["ritz", "undecided"],
        "proven": [True, False],
    },
    "dimension": 39028**2,
    "sector_dimension": 7,
    "n_alpha_strings": 39028,
    "n_beta_strings": 39028,
    "norb": 2,
    "nelec": [1, 1],
    "grid": [2, 1, 3, 1],
    "backend": "gpu",
    "device": "NVIDIA H200",
    "n_ranks": 6,
    "n_threads": 4,
    "n_iterations": 12,
    "n_sigma": 13,
    "n_sigma_single": 11,
    "sigma_seconds": 0.1 + 0.2,
    "solve_seconds": 1.0,
    "wall_seconds": 2.0,
    "cpu_seconds": 1.5,
    "imbalance": 1.25,
    "messages": {"bytes": 2**40, "ket_blocks": 3},
    "peak_rss_bytes": 10**12,
    "symmetry": {"n_labels": 4, "tolerance": None, "max_dropped": 1e-14 / 3},
    "spin_target": {"spin": 0.5, "penalty": 1.0 / 7, "linear": True},
    "version": "0.1.0",
}


ALWAYS = [name for name in Summary.model_fields if name not in ONLY_WHERE_STORED]


def make_record(strings: tuple[np.ndarray, np.ndarray], summary: dict[str, Any]) -> records.Record:
    """Returns a record of two roots."""
    return records.Record(
        summary=Summary(**summary),
        fingerprint="f" * 64,
        strings_a=strings[0],
        strings_b=strings[1],
        weights_a=np.full((2, 7), 1 / 7),
        weights_b=np.full((2, 4), 1 / 4),
        carry_over_a=[strings[0][:2], strings[0][:0]],
        carry_over_b=[strings[1][:1], strings[1][:3]],
        density_matrices=[{"alpha": np.eye(2)}, {"alpha": np.eye(2), "two_ab": np.ones((2, 2, 2, 2))}],
        history={"energy": np.arange(6.0).reshape(3, 2), "n_sigma": [1, 2, 3]},
        timings={"sigma": (1.0, 2.0, 3.0), "read input": (0.0, 0.0, 0.1)},
        options={"tol": 1e-6, "memory": None, "grid": "2,1,3,1", "save_vector": True},
        versions={"sqd_mpi": "0.1.0", "numpy": np.__version__},
        warnings=["one", "another with ünicode"],
    )


def test_summary_is_recovered_exactly(tmp_path, strings):
    """Every float comes back with its last bit, and None as None."""
    path = tmp_path / "result.h5"
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, SUMMARY))
    summary = records.read_summary(path)
    assert summary == SUMMARY
    assert list(summary) == list(SUMMARY) == ALWAYS
    assert json.loads(json.dumps(summary, allow_nan=False)) == SUMMARY
    assert [type(value) for value in summary["spin_flip_parity"]] == [type(None), int]
    assert [type(value) for value in summary["converged"]] == [bool, bool]


def test_what_is_missing_or_not_finite_is_none(tmp_path, strings):
    """JSON knows no NaN."""
    path = tmp_path / "result.h5"
    summary = {"energy": [np.float64(np.nan)], "spin_square": [None], "solve_seconds": np.inf, "n_sigma": np.int64(3)}
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, summary))
    found = records.read_summary(path)
    assert found["energy"] == found["spin_square"] == [None]
    assert found["solve_seconds"] is None
    assert found["backend"] is None
    assert found["n_sigma"] == 3
    assert list(found) == ALWAYS


def test_summaries_of_other_versions(tmp_path, strings):
    """What an older file lacks is null, or left out where it belongs to few; what a newer one adds comes last."""
    path = tmp_path / "result.h5"
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, {"energy": [-1.0], "samples": {"different": 3}}))
        file["summary"].attrs["colour"] = "blue"
    found = records.read_summary(path)
    assert list(found) == [*ALWAYS, "samples", "colour"] and found["colour"] == "blue"
    assert {name: value for name, value in found.items() if value is not None} == {
        "energy": [-1.0], "samples": {"different": 3}, "colour": "blue",
    }  # fmt: skip


def test_record_holds_the_rest(tmp_path, strings):
    """Weights, carry-over, history, timings, options and versions stand where docs/files.md says."""
    path = tmp_path / "result.h5"
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, SUMMARY))
    with h5py.File(path) as file:
        assert file.attrs["fingerprint"] == "f" * 64
        assert file["weights/alpha"].shape == (2, 7)
        assert set(file["density_matrices/0"]) == {"alpha"}
        assert np.array_equal(file["density_matrices/1/two_ab"], np.ones((2, 2, 2, 2)))
        assert file["weights/beta"].shape == (2, 4)
        np.testing.assert_array_equal(file["strings/beta"], strings[1])
        np.testing.assert_array_equal(file["carry_over/0/alpha"], strings[0][:2])
        assert file["carry_over/1/alpha"].shape == (0, 1)
        np.testing.assert_array_equal(file["carry_over/1/beta"], strings[1][:3])
        assert file["history/energy"].shape == (3, 2)
        assert file["timings"].attrs["sigma"].tolist() == [1.0, 2.0, 3.0]
        assert file["options"].attrs["tol"] == 1e-6
        assert isinstance(file["options"].attrs["memory"], h5py.Empty)
        assert file["versions"].attrs["numpy"] == np.__version__
        assert file["warnings"].asstr()[...].tolist() == ["one", "another with ünicode"]


LABELS_A = np.array([0, 2, 1, 0, 0, 2, 0])
LABELS_B = np.array([3, 0, 3, 1])
SECTORS = [0, 3]


def write_block(file: h5py.File, root: int, label: int, row: int, col: int, block: np.ndarray) -> None:
    piece = file[f"vectors/{root}/{label}"]
    piece[row : row + block.shape[0], col : col + block.shape[1]] = block


def write_vectors(file: h5py.File, vectors: np.ndarray) -> None:
    """Writes vectors (nroots, n_alpha, n_beta) in small blocks, in an odd order."""
    records.create_vectors(file, LABELS_A, LABELS_B, SECTORS)
    for root, sector in enumerate(SECTORS):
        for label in range(4):
            piece = vectors[root][np.ix_(LABELS_A == label, LABELS_B == label ^ sector)]
            for row in reversed(range(0, len(piece), 2)):
                for col in range(piece.shape[1]):
                    write_block(file, root, label, row, col, piece[row : row + 2, col : col + 1])


def test_vectors_in_blocks(tmp_path, strings):
    """What is written in one set of blocks can be read in another."""
    path = tmp_path / "result.h5"
    vectors = np.random.default_rng(5).normal(size=(2, 7, 4))
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, SUMMARY))
        write_vectors(file, vectors)
    with records.VectorReader(path) as reader, records.VectorReader(path) as second:
        assert (reader.nroots, reader.n_labels, reader.sectors) == (2, 4, SECTORS)
        np.testing.assert_array_equal(reader.labels_a, LABELS_A)
        np.testing.assert_array_equal(reader.strings_b, strings[1])
        assert reader.fingerprint == "f" * 64
        for root, sector in enumerate(SECTORS):
            for label in range(4):
                piece = vectors[root][np.ix_(LABELS_A == label, LABELS_B == label ^ sector)]
                assert second.piece_shape(root, label) == piece.shape
                np.testing.assert_array_equal(second.read_block(root, label, 0, len(piece), 0, piece.shape[1]), piece)
                if piece.size:
                    np.testing.assert_array_equal(reader.read_block(root, label, 1, len(piece), 0, 1), piece[1:, :1])
        assert reader.read_block(0, 1, 0, 0, 0, 5).shape == (0, 5)


def test_vectors_without_symmetry(tmp_path, strings):
    """One label is the ordinary case: one piece."""
    path = tmp_path / "result.h5"
    vector = np.random.default_rng(6).normal(size=(7, 4))
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, SUMMARY))
        records.create_vectors(file, np.zeros(7, dtype=np.int64), np.zeros(4, dtype=np.int64), [0])
        write_block(file, 0, 0, 0, 0, vector)
    with records.VectorReader(path) as reader:
        assert reader.n_labels == 1
        np.testing.assert_array_equal(reader.read_block(0, 0, 0, 7, 0, 4), vector)


def test_result_without_vectors(tmp_path, strings):
    """The sentence says which option was missing."""
    path = tmp_path / "result.h5"
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, SUMMARY))
    with pytest.raises(InputError, match="holds no vectors; write them with save_vector"):
        records.VectorReader(path)


def test_input_holds_no_vectors(input_path):
    """An input file is no start."""
    with pytest.raises(InputError, match="sqd_mpi-result or sqd_mpi-checkpoint is needed"):
        records.VectorReader(input_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_delete("vectors/1/2"), "is damaged: /vectors/1/2 is missing"),
        (_set("vectors/0/0", np.zeros((1, 1))), "is damaged: /vectors/0/0 .* wrong shape"),
        (_set("vectors/label_beta", np.zeros(9, dtype=np.int32)), "is damaged: its labels"),
        (_delete("vectors/label_alpha"), "has no dataset /vectors/label_alpha"),
        (_delete("strings/beta"), "has no dataset /strings/beta"),
    ],
)
def test_damaged_vectors(tmp_path, strings, change, sentence):
    """Half a vector is never read silently."""
    path = tmp_path / "result.h5"
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, make_record(strings, SUMMARY))
        write_vectors(file, np.ones((2, 7, 4)))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=sentence):
        records.VectorReader(path)


def test_checkpoint(tmp_path, strings):
    """A checkpoint holds vectors, what the user wants to know and the state of the solver."""
    path = tmp_path / "result.h5.checkpoint"
    state = {"n_sigma": 7, "history": {"energy": [0.1 + 0.2, -1.0]}, "note": "text", "nothing": None, "flag": True}
    with records.AtomicFile(path, records.CHECKPOINT) as file:
        records.write_checkpoint_state(
            file,
            fingerprint="a" * 64,
            strings_a=strings[0],
            strings_b=strings[1],
            iteration=6,
            energies=[-1.0 / 3, 2.0],
            residual_norms=[1e-3, 1e-4],
            state=state,
        )
        write_vectors(file, np.ones((2, 7, 4)))
    with records.VectorReader(path) as reader:
        stored = reader.state()
        assert reader.fingerprint == "a" * 64
    assert stored == {"iteration": 6, "energies": [-1 / 3, 2.0], "residual_norms": [1e-3, 1e-4], "solver": state}
    assert records.read_summary(path) == {
        "format": "sqd_mpi-checkpoint",
        "iteration": 6,
        "energies": [-1 / 3, 2.0],
        "residual_norms": [1e-3, 1e-4],
        "fingerprint": "a" * 64,
        "n_labels": 4,
        "sectors": SECTORS,
    }


def test_summary_of_an_input(input_path):
    """What `info` says about an input file."""
    assert records.read_summary(input_path) == {
        "format": "sqd_mpi-input",
        "norb": NORB,
        "nelec": list(NELEC),
        "spin_dependent": False,
        "n_alpha_strings": 7,
        "n_beta_strings": 4,
        "dimension": 28,
        "options": {"tol": 1e-4, "grid": "1,1,2,1", "max_subspace": None},
    }
