"""`info` on problem files: what they hold, and one sentence and exit code 2 where they are damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sqd_mpi.app import cli
from sqd_mpi.files import records
from sqd_mpi.problem.sampling import from_matrix
from tests.support.problems import make_hamiltonian
from tests.support.waiting import HANG

DATASETS = {
    "hamiltonian/h1e": np.eye(2),
    "hamiltonian/eri": np.zeros(6),
    "samples/alpha": np.array([[1], [2]], dtype=np.uint64),
    "samples/beta": np.array([[1], [3]], dtype=np.uint64),
    "samples/probability": np.array([0.5, 0.5]),
}
ATTRIBUTES = {"norb": 2, "nelec": np.array([1, 1]), "ecore": 0.0}


def write(path: Path, changes: dict[str, object]) -> Path:
    """A problem file by hand: two orbitals, one electron of each spin, two samples; None leaves an item out."""
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = changes.get("format", records.PROBLEM), 1
        file.create_group("hamiltonian")
        for name, value in {**DATASETS, **changes}.items():
            if "/" in name and value is not None:
                file[name] = value
        for name, value in {**ATTRIBUTES, **changes}.items():
            if name in ATTRIBUTES and value is not None:
                file["hamiltonian"].attrs[name] = value
    return path


def refusal(path: Path, capsys) -> str:
    """The one sentence with which `info` refuses a file."""
    assert cli.main(["info", str(path)]) == cli.EXIT_BAD_INPUT
    output, errors = capsys.readouterr()
    assert output == "" and errors.count("\n") == 1 and errors.startswith("sqd_mpi: error: "), errors
    assert str(path) in errors
    return errors


def test_a_whole_file(tmp_path: Path, capsys) -> None:
    assert cli.main(["info", str(write(tmp_path / "p.h5", {})), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": "sqd_mpi-problem", "norb": 2, "nelec": [1, 1], "n_samples": 2, "n_samples_with_right_electrons": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples/alpha": None}, "has no dataset /samples/alpha"),
        ({"samples/alpha": None, "samples/beta": None, "samples/probability": None}, "has no dataset /samples/"),
        ({"norb": None}, "has no attribute norb of /hamiltonian"),
        ({"nelec": None}, "has no attribute nelec of /hamiltonian"),
        ({"nelec": 2}, "damaged"),
        ({"nelec": np.array([1, 1, 1])}, "damaged"),
        ({"nelec": "one"}, "damaged"),
        ({"samples/alpha": np.array([1, 2], dtype=np.uint64)}, "/samples/alpha has a wrong type or shape"),
        ({"samples/alpha": "01"}, "/samples/alpha has a wrong type or shape"),
        ({"samples/beta": np.array([[0.5], [1.0]])}, "damaged"),
        ({"samples/beta": np.ones((3, 1), dtype=np.uint64)}, "damaged"),
        ({"samples/beta": h5py.ExternalLink("other.h5", "/x")}, "is a link to another file"),
        ({"samples/beta": h5py.SoftLink("/nowhere")}, "is a link to nothing"),
        ({"format": "sqd_mpi-other"}, "is a file of format sqd_mpi-other"),
    ],
)
def test_damaged_structure(tmp_path: Path, capsys, changes: dict[str, object], sentence: str) -> None:
    assert sentence in refusal(write(tmp_path / "p.h5", changes), capsys)


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> bytes:
    """A problem file as `import counts` writes it."""
    path = tmp_path_factory.mktemp("problem") / "p.h5"
    bits = np.random.default_rng(5).integers(2, size=(50, 8)).astype(bool)
    records.write_problem(path, make_hamiltonian(4, (2, 2)), from_matrix(bits))
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_files_that_were_cut_off(tmp_path: Path, capsys, problem: bytes, share: float) -> None:
    path = tmp_path / "p.h5"
    path.write_bytes(problem[: int(share * len(problem))])
    refusal(path, capsys)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_end_with_a_sentence_or_an_answer(tmp_path: Path, problem: bytes, seed: int) -> None:
    """In a process of its own: HDF5 may crash on such files, and must not do so here."""
    random = np.random.default_rng(seed)
    content = np.frombuffer(problem, dtype=np.uint8).copy()
    places = random.integers(1024, len(content), size=1 + 10 * seed)
    content[places] ^= random.integers(1, 256, size=len(places)).astype(np.uint8)
    path = tmp_path / "p.h5"
    path.write_bytes(content.tobytes())
    command = [sys.executable, "-m", "sqd_mpi", "info", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode in (0, cli.EXIT_BAD_INPUT), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == cli.EXIT_BAD_INPUT:
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("sqd_mpi: error: ")
