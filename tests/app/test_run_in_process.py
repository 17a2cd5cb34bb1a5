"""Jobs from start to end: checkpoints, signals, ranks that fail, and what the result file holds.

Runs of one rank are made in this process, which saves the start of an interpreter; those of several are launched.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import h5py
import numba
import numpy as np
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.files import checksums, records
from sqd_mpi.files.vectors import VectorReader
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver.pt2 import of_all_roots
from sqd_mpi.solver.solve import solve_subspace
from tests.support.jobs import launch, run_here, summary
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian

NORB, NELEC = 7, (3, 4)
LABELS = np.array([0, 1, 2, 3, 0, 1, 2])
STRINGS = all_strings(NORB, 3)[:33], all_strings(NORB, 4)[2:]
OPTIONS = {"threads": 1, "model_space": 40}

# The fields of `info --json` for a result, as the interface names them.
PER_ROOT = [
    "energy",
    "converged",
    "residual_norm",
    "spin_square",
    "spin_variance",
    "sector",
    "spin_flip_parity",
    "occupancies",
]
NUMBERS = {
    "dimension": int, "sector_dimension": int, "n_alpha_strings": int, "n_beta_strings": int, "norb": int,
    "n_ranks": int, "n_threads": int, "n_iterations": int, "n_sigma": int, "sigma_seconds": float,
    "solve_seconds": float, "wall_seconds": float, "peak_rss_bytes": int,
}  # fmt: skip
OTHERS = ["all_converged", "nelec", "grid", "backend", "symmetry", "version"]

# Runs the program with `ACTION` before the sigmas of the real problem (not before those of the warm-up).
SCRIPT = """
import os, signal, sys
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.__main__ import run

plain, count = SigmaOperator.matvec, 0

def matvec(self, vector, out):
    global count
    if self.grid.n_ranks > 1:
        count += 1
        if count == 4 and self.grid.rank == 1:
            {action}
    plain(self, vector, out)

SigmaOperator.matvec = matvec
sys.argv = ["sqd_mpi", "run", *sys.argv[1:]]
code = run()
os.write(1, f"rank ends with {{code}}\\n".encode())  # at once: lines of two ranks must not mix
sys.exit(code)
"""


@pytest.fixture(scope="module")
def hamiltonian() -> Hamiltonian:
    """Integrals with four labels."""
    return make_hamiltonian(NORB, NELEC, 4, LABELS)


@pytest.fixture(scope="module")
def exact(hamiltonian) -> np.ndarray:
    """All energies."""
    return np.linalg.eigvalsh(dense_matrix(hamiltonian, *STRINGS))


@pytest.fixture
def folder(tmp_path, hamiltonian, monkeypatch) -> Path:
    """A working directory with an input file; threads and environment of this process are put back afterwards."""
    records.write_input(tmp_path / "input.h5", hamiltonian, *STRINGS, OPTIONS)
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    before = numba.get_num_threads()
    yield tmp_path
    numba.set_num_threads(before)


def test_summary_has_the_fields_of_the_interface(folder, exact):
    began = time.perf_counter()
    assert run_here(nroots=3, tol=1e-8) == 0
    seconds = time.perf_counter() - began
    found = summary()
    assert {*PER_ROOT, *NUMBERS, *OTHERS} <= set(found)
    for name in PER_ROOT:
        assert isinstance(found[name], list) and len(found[name]) == 3, name
    for name, kind in NUMBERS.items():
        assert type(found[name]) is kind and found[name] > 0, name
    np.testing.assert_allclose(found["energy"], exact[:3], atol=1e-10)
    assert found["converged"] == [True] * 3 and found["all_converged"] is True
    assert all(type(sector) is int and 0 <= sector < 4 for sector in found["sector"])
    assert np.shape(found["occupancies"]) == (3, 2, NORB)
    np.testing.assert_allclose(np.sum(found["occupancies"], axis=2), [NELEC] * 3, atol=1e-10)
    assert (found["n_alpha_strings"], found["n_beta_strings"], found["dimension"]) == (33, 33, 1089)
    assert 0 < found["sector_dimension"] < 1089
    assert (found["norb"], found["nelec"], found["grid"], found["backend"]) == (7, [3, 4], [1, 1, 1, 1], "cpu")
    assert (found["n_ranks"], found["n_threads"]) == (1, 1)
    assert found["n_sigma"] >= found["n_iterations"]
    assert found["sigma_seconds"] < found["solve_seconds"] <= seconds
    assert found["solve_seconds"] < found["wall_seconds"]
    assert found["symmetry"]["n_labels"] == 4
    assert {"n_labels", "tolerance", "max_dropped"} <= set(found["symmetry"])
    assert isinstance(found["version"], str)


def test_result_holds_vectors_weights_and_carry_over(folder, hamiltonian, exact):
    assert run_here(nroots=2, tol=1e-8, save_vector=True) == 0
    matrix = dense_matrix(hamiltonian, *STRINGS)
    with h5py.File("result.h5") as file, records.VectorReader("result.h5") as reader:
        for root in range(2):
            whole = np.zeros((33, 33))
            for label in range(reader.n_labels):
                rows = np.flatnonzero(reader.labels_a == label)
                columns = np.flatnonzero(reader.labels_b == label ^ reader.sectors[root])
                if len(rows) and len(columns):
                    block = reader.read_block(root, label, 0, len(rows), 0, len(columns))
                    whole[np.ix_(rows, columns)] = block
            vector = whole.ravel()
            assert np.linalg.norm(matrix @ vector - exact[root] * vector) < 1e-7
            np.testing.assert_allclose(file["weights/alpha"][root], (whole**2).sum(axis=1), atol=1e-12)
            np.testing.assert_allclose(file["weights/beta"][root], (whole**2).sum(axis=0), atol=1e-12)
            for spin, strings, axis in (("alpha", STRINGS[0], 1), ("beta", STRINGS[1], 0)):
                largest = np.abs(whole).max(axis=axis)
                kept = file[f"carry_over/{root}/{spin}"][:]
                position = bitstrings.find(strings, kept)
                assert set(position.tolist()) == set(np.flatnonzero(largest > 1e-4).tolist())
                assert np.all(np.diff(largest[position]) <= 0)
        assert np.array_equal(file["strings/alpha"][:], STRINGS[0])
        assert np.array_equal(file["strings/beta"][:], STRINGS[1])


@pytest.mark.parametrize("order", ["none", "1", "2"])
def test_result_holds_density_matrices(folder, hamiltonian, order):
    assert run_here(nroots=2, tol=1e-8, rdm=order) == 0
    found = summary()
    with h5py.File("result.h5") as file:
        assert ("density_matrices" in file) == (order != "none")
        assert ("density matrices" in file["timings"].attrs) == (order != "none")
        if order == "none":
            assert found["natural_occupations"] is found["orbital_entropies"] is None
            return
        names = ["alpha", "beta"] + ["two_aa", "two_ab", "two_bb"] * (order == "2")
        matrices = [{name: file[f"density_matrices/{root}/{name}"][:] for name in names} for root in range(2)]
        assert all(set(file[f"density_matrices/{root}"]) == set(names) for root in range(2))
    for root, matrix in enumerate(matrices):
        np.testing.assert_allclose(np.diag(matrix["alpha"]), found["occupancies"][root][0], atol=1e-12)
        natural = found["natural_occupations"][root]
        assert sum(natural) == pytest.approx(sum(NELEC), abs=1e-10) and natural == sorted(natural, reverse=True)
        if order == "1":
            assert found["orbital_entropies"] is None
            continue
        assert all(0 <= entropy <= np.log(4) for entropy in found["orbital_entropies"][root])
        two = matrix["two_aa"] + matrix["two_bb"] + matrix["two_ab"] + matrix["two_ab"].transpose(2, 3, 0, 1)
        pair = np.add.outer(*[np.arange(NORB)] * 2)  # any shape (norb, norb); filled below
        rows, columns = np.tril_indices(NORB)
        pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
        eri = hamiltonian.eri_pairs()[pair[:, :, None, None], pair[None, None]]
        energy = hamiltonian.ecore + np.sum(hamiltonian.h1e * (matrix["alpha"] + matrix["beta"]))
        assert energy + 0.5 * np.sum(eri * two) == pytest.approx(found["energy"][root], abs=1e-9)


def test_result_holds_second_order_corrections(folder, hamiltonian):
    assert run_here(nroots=2, tol=1e-8) == 0
    found = summary()
    assert found["energy_pt2"] is found["variance"] is found["pt2_gap"] is None
    assert run_here(nroots=2, tol=1e-8, pt2=True) == 0
    found = summary()
    result = solve_subspace(None, hamiltonian, *STRINGS, SolveOptions(nroots=2, tol=1e-8))
    for root, expected in enumerate(of_all_roots(result, hamiltonian)):
        assert found["energy_pt2"][root] == pytest.approx(expected.energy, abs=1e-7)
        assert found["variance"][root] == pytest.approx(expected.variance, abs=1e-7)
        assert found["pt2_gap"][root] == pytest.approx(expected.smallest_gap, abs=1e-7)
    with h5py.File("result.h5") as file:
        assert "second order" in file["timings"].attrs


def test_density_matrices_that_do_not_fit_are_refused_before_the_solve(folder, monkeypatch):
    from sqd_mpi.solver import density_matrices

    monkeypatch.setattr(density_matrices, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match="density matrices of order 2 over 7 orbitals need"):
        run_here(rdm="2")
    assert not Path("result.h5").exists()


def test_result_holds_history_timings_options_and_versions(folder):
    assert run_here(max_subspace=9, carry_over_threshold=0.1) == 0
    found = summary()
    with h5py.File("result.h5") as file:
        assert dict(file.attrs)["format"] == "sqd_mpi-result" and file.attrs["version"] == 1
        history = {name: data[:] for name, data in file["history"].items()}
        assert {len(values) for values in history.values()} == {found["n_iterations"]}
        assert history["energy"].shape == history["residual_norm"].shape == (found["n_iterations"], 1)
        assert not np.isnan(history["energy"]).any()
        assert found["energy"][0] in history["energy"][:, 0]
        assert np.all(np.diff(history["seconds"]) > 0)
        timings = {name: values.tolist() for name, values in file["timings"].attrs.items()}
        assert {"read", "warm-up", "sigma", "structure"} <= set(timings)
        assert all(low <= mean <= high for low, mean, high in timings.values())
        options = dict(file["options"].attrs)
        assert (options["max_subspace"], options["model_space"], options["grid"]) == (9, 40, "1,1,1,1")
        assert (options["threads"], options["backend"], options["tol"]) == (1, "cpu", 1e-6)
        assert {"nroots", "max_iterations", "symmetry", "carry_over_threshold", "memory"} <= {
            *options,
            *file["options"],
        }
        assert {"sqd_mpi", "python", "numpy", "numba", "h5py", "mpi4py", "mpi_library"} <= set(file["versions"].attrs)
        assert len(file["carry_over/0/alpha"]) < 33


def first_residual(path: str = "result.h5") -> float:
    """Residual norm of the lowest root in the first iteration of a run."""
    with h5py.File(path) as file:
        return float(file["history/residual_norm"][0, 0])


def test_iterations_that_only_show_that_no_lower_state_hides_have_no_line(folder, capfd):
    assert run_here(nroots=3) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line[:5].strip().isdigit()]
    with h5py.File("result.h5") as file:
        sectors = file["history/sector"][:]
    assert set(sectors) > set(summary()["sector"])
    assert 1 < len(lines) < len(sectors) == summary()["n_iterations"]
    shown = [int(line[:5]) for line in lines]
    assert set(sectors[np.array(shown) - 1]) == set(summary()["sector"])


def test_start_from_a_result_takes_fewer_iterations(folder, hamiltonian, exact):
    assert run_here("first.h5", save_vector=True) == 0
    before = Path("first.h5").read_bytes()
    assert run_here(start="first.h5") == 0
    first, second = summary("first.h5"), summary()
    assert second["n_iterations"] < first["n_iterations"]  # the other sectors are looked at in both
    assert second["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert Path("first.h5").read_bytes() == before
    assert first_residual() == pytest.approx(first["residual_norm"][0], rel=0.02)
    # Without labels, and in a larger space than that of the vector (its lowest state has the same label).
    assert run_here(start="first.h5", symmetry="off") == 0
    assert first_residual() == pytest.approx(first["residual_norm"][0], rel=0.02)
    records.write_input("input.h5", hamiltonian, all_strings(7, 3), STRINGS[1], OPTIONS)
    assert run_here("plain.h5") == 0
    assert run_here(start="first.h5") == 0
    assert summary()["n_iterations"] <= summary("plain.h5")["n_iterations"]
    with h5py.File("result.h5") as better, h5py.File("plain.h5") as plain:
        assert better["history/energy"][0, 0] < plain["history/energy"][0, 0]
    assert summary()["energy"] == pytest.approx(summary("plain.h5")["energy"], abs=1e-10)


@pytest.mark.parametrize("nroots", [1, 3])
def test_checkpoints_do_not_change_the_solve(folder, nroots):
    assert run_here("plain.h5", nroots=nroots) == 0
    assert run_here(nroots=nroots, checkpoint_every=1) == 0
    plain, found = summary("plain.h5"), summary()
    assert found["n_iterations"] == plain["n_iterations"]
    assert found["energy"] == pytest.approx(plain["energy"], abs=1e-11)
    assert sorted(path.name for path in folder.iterdir()) == ["input.h5", "plain.h5", "result.h5"]


@pytest.mark.parametrize("nroots", [1, 3])
def test_resume_after_the_last_iteration(folder, exact, nroots):
    assert run_here("whole.h5", nroots=nroots) == 0
    n_whole = summary("whole.h5")["n_iterations"]
    assert run_here(nroots=nroots, max_iterations=4, checkpoint_every="1") == 3
    assert summary()["all_converged"] is False
    checkpoint = summary("result.h5.checkpoint")
    assert checkpoint["iteration"] >= 4
    assert run_here(nroots=nroots, resume=True) == 0
    assert summary()["energy"] == pytest.approx(exact[:nroots], abs=1e-10)
    with h5py.File("result.h5") as file:  # iterations go on counting
        assert len(file["history/energy"]) == summary()["n_iterations"] > checkpoint["iteration"]
        assert np.all(np.diff(file["history/seconds"]) > 0)
    n_sectors = len(summary()["sectors"]["energy"])
    assert summary()["n_iterations"] <= n_whole + 4 * n_sectors  # at most what each was given before it was left
    assert not Path("result.h5.checkpoint").exists()


def test_resume_reads_the_checkpoint_once(folder, exact, monkeypatch):
    assert run_here(max_iterations=2, checkpoint_every=1) == 3
    read: list[str] = []
    for owner, name in ((checksums, "file_sum"), (VectorReader, "_read_structure"), (VectorReader, "state")):
        plain = getattr(owner, name)

        def counted(*arguments, plain=plain, name=name):
            source = getattr(arguments[0], "path", arguments[0])
            read.extend([name] if Path(source) == Path("result.h5.checkpoint") else [])
            return plain(*arguments)

        monkeypatch.setattr(owner, name, counted)
    assert run_here(resume=True) == 0
    assert summary()["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert read.count("file_sum") == read.count("_read_structure") == 1


def test_checkpoint_interval(folder, monkeypatch):
    written = []
    plain = records.write_checkpoint_state
    monkeypatch.setattr(
        records,
        "write_checkpoint_state",
        lambda file, **state: written.append(state["iteration"]) or plain(file, **state),
    )
    assert run_here(max_iterations=7, checkpoint_every=3) == 3
    assert written == list(range(3, summary()["n_iterations"] + 1, 3)) != []
    written.clear()
    assert run_here(max_iterations=4, checkpoint_every="0.0000000001min") == 3
    assert written == list(range(1, summary()["n_iterations"] + 1))
    written.clear()
    assert run_here(max_iterations=4, checkpoint_every="60min") == 3
    assert written == []


def test_time_limit_keeps_the_former_result(folder, exact):
    assert run_here(max_iterations=2) == 3
    before = Path("result.h5").read_bytes()
    assert run_here(time_limit=1e-3) == 4
    assert Path("result.h5").read_bytes() == before
    assert Path("result.h5.checkpoint").exists()
    assert run_here(resume=True, time_limit=3600.0) == 0
    assert summary()["energy"] == pytest.approx([exact[0]], abs=1e-10)


def test_resume_without_a_checkpoint_starts_from_the_beginning(folder, exact, capfd):
    assert run_here(resume=True) == 0
    assert "there is no checkpoint" in capfd.readouterr().err
    assert summary()["energy"] == pytest.approx([exact[0]], abs=1e-10)


def test_resume_without_a_checkpoint_starts_from_what_is_given(folder, exact, capfd):
    """A job script may always pass --resume."""
    assert run_here("first.h5", save_vector=True) == 0
    assert run_here(resume=True, start="first.h5") == 0
    assert "there is no checkpoint" in capfd.readouterr().err
    assert summary()["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert first_residual() == pytest.approx(summary("first.h5")["residual_norm"][0], rel=0.02)


@pytest.mark.parametrize("max_iterations", [3, 5, 8])
def test_residuals_of_start_vectors_stand_beside_those_of_their_file(folder, capfd, max_iterations):
    """Root by root, also where those of two sectors that were kept apart come together."""
    strings = close_strings(NORB, 3, 20)
    options = {"threads": 1, "model_space": 6}
    records.write_input("input.h5", make_hamiltonian(NORB, (3, 3), 4), strings, strings, options)
    assert run_here(nroots=3, max_iterations=max_iterations, checkpoint_every=1) == 3
    capfd.readouterr()
    assert run_here(nroots=3, resume=True, spin_flip="off") == 0
    (line,) = [each for each in capfd.readouterr().err.splitlines() if each.startswith("start vectors: residual ")]
    here, there = (
        [float(number) for number in part.split(", ")]
        for part in line.removeprefix("start vectors: residual ").split("; where they were written ")
    )
    assert len(here) == 3 and here == pytest.approx(there, rel=0.06)


def test_damaged_checkpoint_is_refused(folder):
    assert run_here(time_limit=1e-3) == 4
    whole = Path("result.h5.checkpoint").read_bytes()
    Path("result.h5.checkpoint").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="result.h5.checkpoint"):
        run_here(resume=True)


def test_bad_input_writes_nothing_over(folder):
    assert run_here(checkpoint_every=1, max_iterations=2) == 3
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "input.h5"}
    assert set(before) == {"result.h5", "result.h5.checkpoint", "result.h5.checkpoint.previous"}
    for options in (
        {"nroots": 1090}, {"grid": "2,1,1,1"}, {"memory": "1kB"}, {"start": "missing.h5"}, {"start": "input.h5"},
        {"start": "result.h5"}, {"tol": -1}, {"nonsense": 1},
    ):  # fmt: skip
        with pytest.raises(InputError):
            run_here(**options)
    with h5py.File("input.h5", "r+") as file:
        file["hamiltonian/h1e"][0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        run_here()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "input.h5"} == before


def test_signal_handlers_are_put_back(folder):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    assert run_here() == 0
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.parametrize(
    ("name", "other_grid"), [("SIGTERM", "3,1,1,1"), pytest.param("SIGUSR1", "1,1,1,2", marks=pytest.mark.slow)]
)
def test_signal_to_one_rank_stops_all(folder, exact, name, other_grid):
    script = SCRIPT.format(action=f"os.kill(os.getpid(), signal.{name})")
    finished = launch(2, "--grid", "1,2,1,1", script=script)
    assert finished.returncode == 4, finished.stderr
    assert finished.stdout.count("rank ends with 4") == 2
    assert "signal" in finished.stderr and "--resume" in finished.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["input.h5", "result.h5.checkpoint"]
    iteration = summary("result.h5.checkpoint")["iteration"]
    assert iteration >= 2
    resumed = launch(int(np.prod([int(n) for n in other_grid.split(",")])), "--resume", "--grid", other_grid)
    assert resumed.returncode == 0, resumed.stderr
    assert f"(iteration {iteration})" in resumed.stderr
    assert summary()["energy"] == pytest.approx([exact[0]], abs=1e-10)
    assert not Path("result.h5.checkpoint").exists()


@pytest.mark.parametrize("action", ["raise RuntimeError('told to fail')", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_rank_that_fails_ends_the_job(folder, exact, action):
    Path("result.h5").write_bytes(b"a former result")
    finished = launch(3, "--grid", "3,1,1,1", "--checkpoint-every", "1", script=SCRIPT.format(action=action))
    assert finished.returncode not in (0, 2, 3, 4)
    assert "rank ends with 0" not in finished.stdout
    if "raise" in action:
        assert "[rank 1]" in finished.stderr and "told to fail" in finished.stderr
        assert finished.stderr.count("Traceback") == 1
    # What was there stays, and the last checkpoint is whole.
    assert Path("result.h5").read_bytes() == b"a former result"
    assert run_here(resume=True) == 0
    assert summary()["energy"] == pytest.approx([exact[0]], abs=1e-10)


def test_several_roots_in_several_sectors_go_through_a_checkpoint(folder, exact):
    stopped = launch(2, "--nroots", "4", "--grid", "2,1,1,1", "--checkpoint-every", "1", "--max-iterations", "3")
    assert stopped.returncode == 3, stopped.stderr
    assert Path("result.h5.checkpoint").exists()
    assert run_here(nroots=4, resume=True) == 0
    assert summary()["energy"] == pytest.approx(exact[:4], abs=1e-10)
    assert len(set(summary()["sector"])) > 1
