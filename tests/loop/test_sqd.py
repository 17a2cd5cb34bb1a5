"""The loop: noisy samples fall to full CI, the same on ranks, threads and workers, with failures and after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sqd_mpi.app.cli import main
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.files.summary import Summary
from sqd_mpi.loop.options import LoopOptions
from sqd_mpi.loop.sqd import LATEST, run_loop
from sqd_mpi.problem import bitstrings, sampling
from sqd_mpi.solver.solve import solve_subspace
from tests.support import faulty
from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT
from tests.support.problems import all_strings, make_hamiltonian
from tests.support.waiting import HANG

NORB, NELEC = 6, (3, 2)
COMMON = {"batches": 3, "samples_per_batch": 40, "seed": 4, "workers": 0}


def uniform(norb: int, n: int, seed: int = 1) -> sampling.Samples:
    """Noise: bits that are 0 or 1 with the same probability."""
    return sampling.from_matrix(np.random.default_rng(seed).integers(2, size=(n, 2 * norb)).astype(bool))


@pytest.fixture(scope="module")
def hamiltonian():
    """A random molecule."""
    return make_hamiltonian(NORB, NELEC, 3)


@pytest.fixture(scope="module")
def full(hamiltonian):
    """Its full CI energy."""
    strings = [all_strings(NORB, n) for n in NELEC]
    return solve_subspace(None, hamiltonian, *strings).roots[0].energy


def test_noise_falls_to_full_ci(hamiltonian, full):
    result = run_loop(hamiltonian, uniform(NORB, 400), LoopOptions(**COMMON))
    energies = np.array(result.state.history["energy"])
    best = energies.min(axis=1)
    assert result.state.converged
    assert best[0] > full + 1e-3
    assert (np.diff(best) < 1e-9).all()
    assert result.state.best.energy == pytest.approx(full, abs=1e-6)
    assert energies.shape == (result.state.iteration, 3)


def test_vectors_start_the_next_iteration(hamiltonian, tmp_path):
    options = LoopOptions(**COMMON, model_space=5)
    plain = run_loop(hamiltonian, uniform(NORB, 400), options)
    warm = run_loop(hamiltonian, uniform(NORB, 400), options, vectors=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LATEST]
    assert warm.state.best.energy == pytest.approx(plain.state.best.energy, abs=1e-9)
    assert np.sum(warm.state.history["n_iterations"]) < np.sum(plain.state.history["n_iterations"])


def test_it_goes_on_without_batches_that_fail(hamiltonian, full):
    result = run_loop(hamiltonian, uniform(NORB, 400), LoopOptions(**COMMON), solve=faulty.raising)
    assert all("an error made for a test" in row[faulty.FAULTY] for row in result.state.history["failure"])
    assert all(row[0] == row[1] == "" for row in result.state.history["failure"])
    assert result.state.best.energy == pytest.approx(full, abs=1e-6)
    one = LoopOptions(**{**COMMON, "batches": faulty.FAULTY + 1, "memory": 1000})
    with pytest.raises(RuntimeError, match="all batches of iteration 1 failed: batch 0: memory"):
        run_loop(hamiltonian, uniform(NORB, 400), one)


def test_limits_symmetry_and_included_strings(hamiltonian):
    included = bitstrings.from_integers([0b111000], NORB), bitstrings.from_integers([0b110000], NORB)
    seen = []
    options = LoopOptions(**COMMON, max_dim=(7, 5), loop_iterations=3)
    run_loop(hamiltonian, uniform(NORB, 400), options, included=included, on_iteration=lambda _, r: seen.extend(r))
    assert len(seen) in (6, 9)
    for result in seen:
        assert (len(result.strings_a), len(result.strings_b)) == (7, 5)
        assert bitstrings.find(result.strings_a, included[0])[0] >= 0
        assert bitstrings.find(result.strings_b, included[1])[0] >= 0
    seen.clear()
    options = LoopOptions(**COMMON, symmetrize_spin=True, loop_iterations=2)
    run_loop(make_hamiltonian(NORB, (3, 3), 3), uniform(NORB, 400), options, on_iteration=lambda _, r: seen.extend(r))
    assert all(np.array_equal(result.strings_a, result.strings_b) for result in seen)


def test_occupancies_to_begin_with_need_no_good_sample(hamiltonian, full):
    bad = sampling.from_matrix(np.ones((1, 2 * NORB), bool))
    with pytest.raises(InputError, match="no sample has 3 alpha and 2 beta"):
        run_loop(hamiltonian, bad, LoopOptions(**COMMON))
    noise = uniform(NORB, 400)
    keep = bitstrings.counts(noise.alpha) != 3
    occupancies = np.stack([np.full(NORB, 0.5), np.full(NORB, 1 / 3)])
    result = run_loop(hamiltonian, noise.take(np.flatnonzero(keep)), LoopOptions(**COMMON), occupancies=occupancies)
    assert result.state.best.energy == pytest.approx(full, abs=1e-6)


def test_what_does_not_fit_is_refused(hamiltonian):
    for options, says in (({"symmetrize_spin": True}, "as many alpha as beta"), ({"batches": 0}, "batches needs")):
        with pytest.raises(InputError, match=says):
            run_loop(hamiltonian, uniform(NORB, 40), LoopOptions(**{**COMMON, **options}))
    with pytest.raises(InputError, match="samples of 6 orbitals"):
        run_loop(hamiltonian, uniform(4, 40), LoopOptions(**COMMON))
    wrong = bitstrings.from_integers([1], NORB), bitstrings.from_integers([1], NORB)
    with pytest.raises(InputError, match="alpha string 1 has 1 electrons"):
        run_loop(hamiltonian, uniform(NORB, 40), LoopOptions(**COMMON), included=wrong)


@pytest.fixture(scope="module")
def problem(hamiltonian, tmp_path_factory):
    """A problem file."""
    path = tmp_path_factory.mktemp("sqd") / "problem.h5"
    records.write_problem(path, hamiltonian, uniform(NORB, 400))
    return path


def program(problem, output, *options, ranks=1, threads=1) -> tuple[int, str]:
    """Exit code and messages of `sqd`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", "sqd_mpi", "sqd", str(problem), "-o", str(output)]
    command += ["--batches", "3", "--samples-per-batch", "40", "--seed", "4", "--threads", str(threads), *options]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    return run.returncode, run.stderr


@pytest.mark.slow
def test_the_program_gives_the_same_on_ranks_threads_and_workers(hamiltonian, problem, tmp_path):
    wanted = run_loop(hamiltonian, uniform(NORB, 400), LoopOptions(**COMMON)).state
    cases = {"one": (1, 1, "0"), "threads": (1, 2, "0"), "workers": (1, 1, "2"), "2": (2, 1, "0"), "4": (4, 1, "0")}
    for name, (ranks, threads, workers) in cases.items():
        output = tmp_path / f"{name}.h5"
        code, messages = program(problem, output, "--workers", workers, ranks=ranks, threads=threads)
        assert code == 0, messages
        found = records.read_run(output)
        assert found["summary"]["energy"][0] == pytest.approx(wanted.best.energy, abs=1e-8), name
        assert np.array(found["history"]["batch_energy"]) == pytest.approx(
            np.array(wanted.history["energy"]), abs=1e-8
        ), name
        assert found["summary"]["loop_iterations"] == wanted.iteration
        assert {"loop_converged", "failed_batches", "samples"} <= set(found["summary"]) < set(Summary.model_fields)
        assert sorted(path.name for path in tmp_path.glob(f"{name}.h5*")) == [output.name]


def test_workers_without_memory_are_one_sentence(problem, tmp_path):
    code, messages = program(problem, tmp_path / "result.h5", "--workers", "1", "--memory", "1kB")
    errors = [line for line in messages.splitlines() if line.startswith("sqd_mpi: error: ")]
    assert code == 1 and len(errors) == 1 and "Traceback" not in messages, messages
    assert errors[0].startswith("sqd_mpi: error: all batches of iteration 1 failed: batch 0: ")


def test_a_stopped_loop_goes_on_as_if_it_had_not_stopped(problem, tmp_path):
    whole, output = tmp_path / "whole.h5", tmp_path / "parts.h5"
    assert program(problem, whole, "--workers", "0")[0] == 0
    code, messages = program(problem, output, "--workers", "0", "--loop-iterations", "2")
    assert code == 3, messages
    assert "not converged in 2 iterations" in messages
    code, messages = program(problem, output, "--workers", "0", "--time-limit", "0.1", "--resume")
    assert code == 4, messages
    code, messages = program(problem, output, "--resume", ranks=2)
    assert code == 0, messages
    assert "(iteration 2)" in messages
    parts, all_at_once = records.read_run(output), records.read_run(whole)
    for name in ("batch_energy", "occupancies", "n_samples"):
        assert np.array(parts["history"][name]) == pytest.approx(np.array(all_at_once["history"][name]), abs=1e-6)
    assert parts["summary"]["energy"] == pytest.approx(all_at_once["summary"]["energy"], abs=1e-8)
    code, messages = program(problem, output, "--workers", "0", "--loop-iterations", "1")
    assert code == 3
    code, messages = program(problem, output, "--workers", "0", "--resume", "--seed", "5")
    assert code == 2
    assert "--resume needs a checkpoint of this problem" in messages


def test_import_and_info(tmp_path, capsys, data_free_fcidump):
    fcidump, norb = data_free_fcidump
    bits = np.random.default_rng(0).integers(2, size=(50, 2 * norb))
    texts = ["".join(map(str, row)) for row in bits]
    (tmp_path / "counts.json").write_text(json.dumps({text: texts.count(text) for text in texts}))
    target = tmp_path / "problem.h5"
    command = ["import", "counts", "--hamiltonian", str(fcidump), "--counts", str(tmp_path / "counts.json")]
    assert main([*command, "-o", str(target)]) == 0
    assert "different samples" in capsys.readouterr().out
    hamiltonian, samples = records.read_problem(target)
    assert len(samples) == len(set(texts))
    assert main(["info", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_samples"] == len(samples)
    assert main(["run", str(target)]) == 2
    assert "format sqd_mpi-problem; one of format sqd_mpi-input is needed" in capsys.readouterr().err


@pytest.fixture
def data_free_fcidump(tmp_path, hamiltonian):
    """A FCIDUMP file and its number of orbitals."""
    from pyscf.tools import fcidump

    path = tmp_path / "fcidump"
    fcidump.from_integrals(
        str(path), hamiltonian.h1e, hamiltonian.eri_pairs(), NORB, sum(NELEC), hamiltonian.ecore, NELEC[0] - NELEC[1]
    )
    return path, NORB
