"""`plan`, `bench` and the simulated scaling from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.app.cli import main
from sqd_mpi.files import records
from sqd_mpi.planner.profile import MachineProfile, write_profile
from sqd_mpi.solver.solve import solve_subspace
from tests.support.paths import ROOT
from tests.support.problems import close_strings, make_hamiltonian
from tests.support.waiting import HANG

MPIEXEC = Path(sys.executable).parent / "mpiexec"


@pytest.fixture(scope="module")
def input_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "input.h5"
    strings = close_strings(9, 4, 80)
    records.write_input(path, make_hamiltonian(9, (4, 4)), strings, strings)
    return path


def test_plan_needs_neither_mpi_nor_a_device(input_path):
    command = [sys.executable, "-X", "importtime", "-m", "sqd_mpi", "plan", str(input_path), "--ranks", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "numba" in loaded and not loaded & {"mpi4py", "cupy", "matplotlib", "pyscf"}
    found = json.loads(done.stdout)
    assert np.prod(found["chosen"]) == 4 and found["n_ranks"] == 4
    assert [row["n_ranks"] for row in found["scaling"]][:3] == [1, 2, 4]


def test_plan_prints_a_table_for_people(input_path, capsys):
    assert main(["plan", str(input_path), "--ranks", "4", "--memory", "8GB", "--threads", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Best: (" in shown and "4 ranks x 2 threads, 8 GB per rank" in shown and "built-in" in shown


def test_plan_says_no_with_code_2(input_path, capsys):
    assert main(["plan", str(input_path), "--ranks", "2", "--memory", "1MB"]) == 2
    assert "fits into 0.001 GB per rank" in capsys.readouterr().out
    assert main(["plan", str(input_path), "--ranks", "2", "--memory", "1MB", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["chosen"] is None


def test_plan_says_nothing_where_it_is_told_to(input_path, capsys):
    arguments = ["plan", str(input_path), "--ranks", "2", "--quiet", "--memory"]
    assert main([*arguments, "8GB"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*arguments, "1MB"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "No grid of 2 ranks fits into" in shown.err
    assert main([*arguments, "8GB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"] is not None


def test_bench_says_nothing_but_warnings_where_it_is_told_to(tmp_path, capsys, monkeypatch):
    report = {"profile": {}, "site": {}, "warnings": ["a rank is bound to fewer cores"]}
    monkeypatch.setattr("sqd_mpi.app.bench.run", lambda *arguments: report)
    monkeypatch.setenv("SLURM_PROCID", "3")  # of a task farm: this process is alone all the same
    assert main(["bench"]) == 0
    assert capsys.readouterr().out.startswith("this machine\n")
    assert main(["bench", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "sqd_mpi: warning: a rank is bound to fewer cores\n")
    assert main(["bench", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report


def test_density_matrices_need_memory_of_their_own(input_path, capsys):
    arguments = ["plan", str(input_path), "--ranks", "1", "--memory", "8GB", "--json"]
    for order, least in (("none", 0), ("1", 1), ("2", 8 * 5 * 9**4)):
        assert main([*arguments, "--rdm", order]) == 0
        (grid,) = json.loads(capsys.readouterr().out)["grids"]
        assert grid["density_bytes"] >= least and (grid["density_bytes"] > 0) == (order != "none")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ranks", "0"], "--ranks needs a positive integer"),
        (["--ranks", "two"], "--ranks needs a positive integer"),
        (["--ranks", "2", "--memory", "much"], "--memory needs a size"),
        (["--ranks", "2", "--nroots", "0"], "--nroots needs a positive integer"),
        (["--ranks", "2", "--profile", "none.json"], "cannot read the machine profile none.json"),
        (["--ranks", "2", "--max-subspace", "5", "--nroots", "2"], "--max-subspace needs at least twice"),
    ],
)
def test_bad_input_is_one_sentence(input_path, capsys, arguments, sentence):
    assert main(["plan", str(input_path), *arguments]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_missing_ranks_and_missing_file(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "input.h5"])
    assert stop.value.code == 2
    assert main(["plan", str(tmp_path / "none.h5"), "--ranks", "2"]) == 2
    assert "none.h5" in capsys.readouterr().err


def test_profile_scales_the_times(input_path, tmp_path, capsys):
    slow = MachineProfile(
        name="slow", **{f"{name}_seconds": 1e-3 for name in ("gather", "mixed", "same_spin", "group")}
    )
    write_profile(tmp_path / "slow.json", slow)
    seconds = []
    for extra in ([], ["--profile", str(tmp_path / "slow.json")]):
        assert main(["plan", str(input_path), "--ranks", "2", "--json", *extra]) == 0
        seconds.append(json.loads(capsys.readouterr().out)["grids"][0]["seconds_per_sigma"])
    assert seconds[1] > 1000 * seconds[0]


def test_auto_takes_one_rank_without_a_plan():
    strings = close_strings(7, 3, 20)
    result = solve_subspace(None, make_hamiltonian(7, (3, 3)), strings, strings)
    assert result.grid.shape == (1, 1, 1, 1) and "plan" not in result.timings
    assert result.task_seconds[0] > 0.0 and result.messages == {"bytes": 0, "ket_blocks": 0}


@pytest.mark.slow
@pytest.mark.skipif(not MPIEXEC.exists(), reason="there is no MPI")
def test_two_ranks_run_on_the_planned_grid_and_bench_measures_them(input_path, tmp_path):
    def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(MPIEXEC), "-n", "2", sys.executable, "-m", "sqd_mpi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANG, cwd=ROOT, check=False)

    result = tmp_path / "result.h5"
    alone = ("--threads", "1", "--memory", "8GB", "--share-blocks", "off")
    run = launch("run", str(input_path), "-o", str(result), *alone)
    assert run.returncode == 0, run.stderr
    summary = records.read_summary(result)
    plan = [sys.executable, "-m", "sqd_mpi", "plan", str(input_path), "--ranks", "2", "--memory", "8GB", "--json"]
    done = subprocess.run(plan, capture_output=True, text=True, timeout=HANG, cwd=ROOT, check=False)
    assert json.loads(done.stdout)["chosen"] == summary["grid"]
    assert summary["cpu_seconds"] > 0.0 and summary["imbalance"] >= 1.0
    assert summary["messages"]["bytes"] > 0

    profile = tmp_path / "machine.json"
    bench = launch("bench", "--threads", "1", "-o", str(profile), "--json")
    assert bench.returncode == 0, bench.stderr
    report = json.loads(bench.stdout)
    assert report["site"]["n_ranks"] == 2 and report["profile"] == json.loads(profile.read_text())
    default = MachineProfile().model_dump()
    assert all(report["profile"][name] != default[name] for name in ("gather_seconds", "slide_bytes_per_second"))
    assert main(["plan", str(input_path), "--ranks", "2", "--profile", str(profile)]) == 0

    bad = launch("bench", "-o", str(tmp_path / "none" / "machine.json"))
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and "cannot write" in bad.stderr

    script = [sys.executable, str(ROOT / "scripts" / "simulate_scaling.py"), str(input_path)]
    done = subprocess.run(
        [*script, "--validate", str(result)], capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.slow
def test_scaling_is_simulated(input_path, tmp_path):
    script = [sys.executable, str(ROOT / "scripts" / "simulate_scaling.py"), str(input_path)]

    def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*script, *arguments], capture_output=True, text=True, timeout=HANG, check=False)

    data, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    done = launch("--ranks", "1,2,8", "--grid", "2,2,1,1", "--json", str(data), "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    rows = json.loads(data.read_text())["rows"]
    assert [row["n_ranks"] for row in rows] == [1, 2, 8, 4] and rows[-1]["grid"] == [2, 2, 1, 1]
    assert all(row["imbalance"] >= 1.0 for row in rows) and rows[0]["efficiency"] == 1.0
    assert "All numbers are predicted" in done.stdout and picture.stat().st_size > 1000
    for arguments in (("--ranks", "0"), ("--grid", "1,1"), ("--profile", "none.json"), ("--memory", "1kB")):
        bad = launch(*arguments)
        assert bad.returncode == 2 and "Traceback" not in bad.stderr and bad.stdout == ""
