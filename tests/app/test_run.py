"""`python -m sqd_mpi run` from the input file to the exit code, on one rank and on several."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest

from sqd_mpi.files import records
from sqd_mpi.files.summary import Summary
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from tests.support.runs import check_refusal, info, run

NORB, NELEC = 6, (3, 2)


def all_strings(n_electrons: int) -> np.ndarray:
    """Returns all strings of a spin."""
    numbers = [sum(1 << orbital for orbital in chosen) for chosen in combinations(range(NORB), n_electrons)]
    return bitstrings.from_integers(sorted(numbers), NORB)


@pytest.fixture
def hamiltonian(random_hamiltonian: Callable[..., Hamiltonian]) -> Hamiltonian:
    """Returns random integrals."""
    return random_hamiltonian(NORB, NELEC, seed=11)


@pytest.fixture
def folder(tmp_path: Path, hamiltonian: Hamiltonian) -> Path:
    """Returns a directory with an input of the whole space, 20 x 15 strings, that a model space does not solve."""
    options = {"threads": 1, "model_space": 4}
    records.write_input(tmp_path / "input.h5", hamiltonian, all_strings(3), all_strings(2), options)
    return tmp_path


@pytest.fixture
def exact(hamiltonian: Hamiltonian) -> np.ndarray:
    """Returns the energies of the whole space, from PySCF."""
    fci = pytest.importorskip("pyscf.fci")
    h1e, eri = hamiltonian.h1e, hamiltonian.eri_pairs()
    _, matrix = fci.direct_spin1.pspace(h1e, eri, NORB, NELEC, np=300)
    return np.linalg.eigvalsh(matrix) + hamiltonian.ecore


LOOP = ("loop_converged", "loop_iterations", "failed_batches", "samples")  # fields of `sqd` only


def check_only(folder: Path, *names: str) -> None:
    """Checks that nothing but the input and these files lies there."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(["input.h5", *names])


def test_run_to_the_result(folder, exact):
    """The energy, every field of the summary, one line per iteration, and nothing left behind."""
    finished = run(folder, "input.h5")
    assert finished.returncode == 0, finished.stderr
    check_only(folder, "result.h5")
    found = info(folder)
    assert list(found) == [name for name in Summary.model_fields if name not in LOOP]
    assert found["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert found["converged"] == [True] and found["all_converged"] is True
    assert 0 < found["residual_norm"][0] <= 1e-6
    assert np.sum(found["occupancies"][0], axis=1) == pytest.approx(NELEC, abs=1e-9)
    assert (found["dimension"], found["n_alpha_strings"], found["n_beta_strings"]) == (300, 20, 15)
    assert (found["norb"], found["nelec"], found["grid"]) == (NORB, list(NELEC), [1, 1, 1, 1])
    assert (found["n_ranks"], found["n_threads"], found["backend"]) == (1, 1, "cpu")
    assert found["n_sigma"] >= found["n_iterations"] > 1
    assert found["wall_seconds"] > found["solve_seconds"] > 0
    assert found["peak_rss_bytes"] > 10**7
    lines = [line for line in finished.stderr.splitlines() if line[:5].strip().isdigit()]
    assert found["n_iterations"] == len(lines) > 1
    assert float(lines[-1].split()[2]) == pytest.approx(exact[0], abs=1e-10)


def test_result_holds_weights_and_effective_options(folder):
    """What a next step needs stands in the file."""
    assert run(folder, "input.h5", "-o", "other.h5", "--tol", "1e-4", "--max-subspace", "9").returncode == 0
    check_only(folder, "other.h5")
    with h5py.File(folder / "other.h5") as file:
        assert file["weights/alpha"].shape == (1, 20)
        assert file["weights/alpha"][:].sum() == pytest.approx(1)
        assert file["weights/beta"][:].sum() == pytest.approx(1)
        assert file["carry_over/0/alpha"].dtype == np.uint64
        assert file["options"].attrs["tol"] == 1e-4
        assert file["options"].attrs["max_subspace"] == 9
        assert file["options"].attrs["model_space"] == 4
        assert "numba" in file["versions"].attrs
        assert "sigma" in file["timings"].attrs
        assert len(file["history/energy"]) == info(folder, "other.h5")["n_iterations"]
        assert "vectors" not in file


def test_command_line_goes_before_the_file(folder, hamiltonian):
    """Options of the file hold where the command line says nothing."""
    strings = all_strings(3), all_strings(2)
    records.write_input(folder / "input.h5", hamiltonian, *strings, {"nroots": 2, "backend": "reference", "threads": 1})
    assert run(folder, "input.h5", "--nroots", "1").returncode == 0
    found = info(folder)
    assert len(found["energy"]) == 1
    assert found["backend"] == "reference"


def test_several_roots(folder, exact):
    """Lists of length nroots, ascending."""
    assert run(folder, "input.h5", "--nroots", "3").returncode == 0
    found = info(folder)
    assert found["energy"] == pytest.approx(exact[:3], abs=1e-10)
    assert all(len(found[name]) == 3 for name in ("converged", "residual_norm", "spin_square", "sector", "occupancies"))


def test_not_converged_is_written_and_marked(folder):
    """Exit code 3 on every rank count."""
    for ranks in (1, 2):
        finished = run(folder, "input.h5", "--max-iterations", "2", ranks=ranks)
        assert finished.returncode == 3, finished.stderr
        assert "not converged" in finished.stderr
        found = info(folder)
        assert (found["all_converged"], found["converged"], found["n_iterations"]) == (False, [False], 2)


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks(folder, exact, ranks):
    """The same energy, one log."""
    grid = f"1,1,{ranks},1"
    finished = run(folder, "input.h5", "--grid", grid, ranks=ranks)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("residual ") == 2
    found = info(folder)
    assert found["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert (found["grid"], found["n_ranks"]) == ([1, 1, ranks, 1], ranks)


def test_time_limit_and_resume_on_another_grid(folder, exact):
    """Exit code 4 with a checkpoint and no result; the rest on other ranks, and the checkpoint goes."""
    stopped = run(folder, "input.h5", "--time-limit", "1e-3")
    assert stopped.returncode == 4, stopped.stderr
    check_only(folder, "result.h5.checkpoint")
    checkpoint = info(folder, "result.h5.checkpoint")
    assert checkpoint["format"] == "sqd_mpi-checkpoint"
    assert checkpoint["iteration"] >= 1
    assert len(checkpoint["energies"]) == len(checkpoint["residual_norms"]) == len(checkpoint["sectors"])
    finished = run(folder, "input.h5", "--resume", "--grid", "2,1,1,1", ranks=2)
    assert finished.returncode == 0, finished.stderr
    assert info(folder)["energy"] == pytest.approx([exact[0]], abs=1e-10)
    check_only(folder, "result.h5")


def test_resume_refuses_another_hamiltonian(folder, random_hamiltonian):
    """The fingerprint knows."""
    assert run(folder, "input.h5", "--time-limit", "1e-3").returncode == 4
    other = random_hamiltonian(NORB, NELEC, seed=12)
    records.write_input(folder / "input.h5", other, all_strings(3), all_strings(2), {"threads": 1})
    check_refusal(run(folder, "input.h5", "--resume"), "--resume", "another Hamiltonian")


def test_resume_on_other_strings(folder, hamiltonian, exact):
    """Strings are matched: what the checkpoint has of the new space is where the run begins."""
    records.write_input(folder / "input.h5", hamiltonian, all_strings(3)[:-1], all_strings(2), {"threads": 1})
    assert run(folder, "input.h5", "--time-limit", "1e-3").returncode == 4
    records.write_input(folder / "input.h5", hamiltonian, all_strings(3), all_strings(2), {"threads": 1})
    finished = run(folder, "input.h5", "--resume")
    assert finished.returncode == 0, finished.stderr
    assert "written for other strings: it has 19 of 20 alpha and 15 of 15 beta strings" in finished.stderr
    assert info(folder)["energy"] == pytest.approx([exact[0]], abs=1e-10)
    check_only(folder, "result.h5")


def test_start_from_saved_vectors(folder, exact):
    """A converged vector needs no more work, on any grid."""
    assert run(folder, "input.h5", "-o", "first.h5", "--save-vector", "--grid", "1,2,1,1", ranks=2).returncode == 0
    finished = run(folder, "input.h5", "--start", "first.h5")
    assert finished.returncode == 0, finished.stderr
    found, first = info(folder), info(folder, "first.h5")
    assert found["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert found["n_iterations"] < first["n_iterations"]  # both show that no lower state hides
    with h5py.File(folder / "result.h5") as file:
        assert file["history/residual_norm"][0, 0] == pytest.approx(first["residual_norm"][0], rel=0.02)
    residual = f"{first['residual_norm'][0]:.1e}"
    assert f"start vectors: residual {residual}; where they were written {residual}" in finished.stderr


def test_start_needs_vectors(folder):
    """One sentence, from any number of ranks."""
    assert run(folder, "input.h5", "-o", "first.h5").returncode == 0
    for ranks in (1, 2):
        finished = run(folder, "input.h5", "--start", "first.h5", ranks=ranks)
        check_refusal(finished, "first.h5 holds no vectors", "--save-vector")
    check_refusal(run(folder, "input.h5", "--start", "missing.h5"), "missing.h5 does not exist")
    check_only(folder, "first.h5")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.h5"], ["missing.h5 does not exist"]),
        (["input.h5", "--grid", "2,2,1,1"], ["--grid 2,2,1,1 needs 4 ranks; this run has"]),
        (["input.h5", "--memory", "1kB"], ["--memory", "too few"]),
        (["input.h5", "--nroots", "301"], ["--nroots 301", "300"]),
        (["input.h5", "-o", "missing/result.h5"], ["missing", "does not exist"]),
        (["input.h5", "-o", "input.h5"], ["would replace the input file"]),
        (["input.h5", "--tol", "0"], ["--tol needs a positive number"]),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_bad_input_on_any_number_of_ranks(folder, ranks, arguments, words):
    """Exit code 2, one sentence in all, nothing written."""
    check_refusal(run(folder, *arguments, ranks=ranks), *words)
    check_only(folder)


def _wrong_option(file: h5py.File) -> None:
    """Puts an option that does not exist."""
    file["options"].attrs["tolerance"] = 1e-5


def _nan(file: h5py.File) -> None:
    """Puts a NaN into the integrals."""
    file["hamiltonian/eri"][3] = np.nan


def _wrong_number(file: h5py.File) -> None:
    """Changes the electron number of a string."""
    file["strings/beta"][4] = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_wrong_option, ["unknown option 'tolerance'"]),
        (_nan, ["not finite"]),
        (_wrong_number, ["beta string 5 has 1 electrons"]),
    ],
)
def test_bad_input_file(folder, change, words):
    """The sentence names the file; all ranks end."""
    with h5py.File(folder / "input.h5", "r+") as file:
        change(file)
    check_refusal(run(folder, "input.h5", ranks=2), "input.h5", *words)
    check_only(folder)


def test_duplicates_in_the_file_are_merged_with_a_warning(folder, exact):
    """A file of another program may hold a string twice."""
    with h5py.File(folder / "input.h5", "r+") as file:
        strings = file["strings/alpha"][:]
        del file["strings/alpha"]
        file["strings/alpha"] = np.concatenate([strings[::-1], strings[:2]])
    finished = run(folder, "input.h5")
    assert finished.returncode == 0
    assert "2 duplicate alpha strings merged" in finished.stderr
    assert info(folder)["energy"] == pytest.approx([exact[0]], abs=1e-10)
    with h5py.File(folder / "result.h5") as file:
        assert file["warnings"].asstr()[0] == "2 duplicate alpha strings merged"


def test_one_determinant(tmp_path, hamiltonian):
    """The smallest space there is, on more ranks than strings."""
    records.write_input(tmp_path / "input.h5", hamiltonian, all_strings(3)[:1], all_strings(2)[:1], {"threads": 1})
    for ranks in (1, 3):
        finished = run(tmp_path, "input.h5", ranks=ranks)
        assert finished.returncode == 0, finished.stderr
        found = info(tmp_path)
        assert (found["dimension"], found["all_converged"]) == (1, True)
