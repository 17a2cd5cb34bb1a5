"""The same input gives the same numbers: bit by bit for a number of threads, to rounding for another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sqd_mpi.files import records
from tests.support.problems import close_strings, make_hamiltonian
from tests.support.waiting import HANG


def solve(folder: Path, name: str, threads: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, vector and residual norms per iteration of the program with a number of threads."""
    output = folder / name
    command = [sys.executable, "-m", "sqd_mpi", "run", str(folder / "input.h5"), "-o", str(output), "--save-vector"]
    done = subprocess.run(
        [*command, "--threads", str(threads), "--tol", "1e-8"], capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = records.read_summary(output)
    assert summary["n_threads"] == threads
    with h5py.File(output) as file:
        vector = np.concatenate([np.ravel(piece[:]) for piece in file["vectors/0"].values()])
        return summary["energy"][0], vector, file["history/residual_norm"][:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input of two unequal sets of strings."""
    place = tmp_path_factory.mktemp("determinism")
    hamiltonian = make_hamiltonian(9, (4, 3), seed=4, labels=np.array([0, 1, 2, 3, 0, 1, 2, 0, 3]))
    records.write_input(place / "input.h5", hamiltonian, close_strings(9, 4, 90), close_strings(9, 3, 60))
    return place


@pytest.mark.slow
def test_same_threads_same_bits_and_other_threads_same_to_rounding(folder: Path) -> None:
    energy, vector, residual_norms = solve(folder, "first.h5", 2)
    again = solve(folder, "again.h5", 2)
    assert energy == again[0]
    np.testing.assert_array_equal(vector, again[1])
    np.testing.assert_array_equal(residual_norms, again[2])
    for threads in (1, 3):
        other_energy, other_vector, _ = solve(folder, f"{threads}.h5", threads)
        assert other_energy == pytest.approx(energy, rel=1e-12)
        other_vector = other_vector * np.sign(other_vector @ vector)
        np.testing.assert_allclose(other_vector, vector, atol=1e-9)
