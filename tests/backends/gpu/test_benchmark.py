"""benchmarks/gpu.py and `bench --backend gpu` on the emulated device: the programs, not the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sqd_mpi.app.cli import main
from sqd_mpi.files import records
from sqd_mpi.planner.profile import read_profile
from tests.gpu_shim import SHIM
from tests.support.paths import ROOT
from tests.support.problems import close_strings, make_hamiltonian

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_setup  # noqa: E402

from tests.support.waiting import HANG  # noqa: E402

BENCHMARK = ROOT / "benchmarks" / "gpu.py"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def input_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "input.h5"
    strings = close_strings(8, 4, 40)
    records.write_input(path, make_hamiltonian(8, (4, 4)), strings, strings)
    return path


def benchmark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if name not in ("SQD_MPI_GPU", "SQD_MPI_DATA")}
    command = [sys.executable, str(BENCHMARK), *arguments]
    return subprocess.run(
        command, env={**base, **environment}, capture_output=True, text=True, timeout=HANG, check=False
    )


def test_everything_is_measured_and_marked_as_emulated(input_path, tmp_path):
    output = tmp_path / "report.json"
    done = benchmark(str(input_path), "--repeats", "1", "--sizes", "10,20,99", "-o", str(output), SQD_MPI_GPU=SHIM)
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    assert shown[0].startswith("EMULATED") and "meaningless" in shown[0]
    report = json.loads(last)
    assert report == json.loads(output.read_text()) and report["emulated"] is True and report["failures"] == []
    assert set(report["rates"]) == {"dgemm", "copy", "upload", "download", "launch"}
    assert min(report["rates"].values()) > 0.0
    (result,) = report["inputs"]
    kinds = result["sigma"]["kinds"]
    assert set(kinds) == {"mixed", "alpha", "beta"} and result["sigma"]["agreement"] < 1e-13
    for kind in kinds.values():
        assert min(kind["seconds"], kind["cpu_seconds"], kind["useful"], kind["bytes"]) > 0.0
    assert result["gpu"]["all_converged"] and result["cpu"]["all_converged"]
    assert result["gpu"]["energy"] == pytest.approx(result["cpu"]["energy"], abs=1e-10)
    assert 0 < result["gpu"]["peak_device_bytes"] < result["predicted_memory"]["device_bytes"]
    assert "mixed" in result["gpu"]["phases"] and 0.0 < result["transfer_share"] < 1.0
    forms = result["forms"]
    assert list(forms) == ["direct", "product", "tiled", "sparse", "dense"]
    assert forms["direct"]["useful"] == forms["product"]["useful"] == kinds["mixed"]["useful"]
    assert min(each["seconds"] for each in forms.values()) > 0.0
    assert set(result["vectors"]) == {"gram", "rotate", "scale_and_add"}
    density = result["density"]
    assert density["agreement"] < 1e-13 and min(density["seconds"], density["cpu_seconds"]) > 0.0
    crossover = report["crossover"]
    assert [row["strings"] for row in crossover["rows"]] == [10, 20]
    assert min(row["auto_seconds"] for row in crossover["rows"]) > 0.0
    assert report["suggested_rates"]["launch"] == report["rates"]["launch"] and report["suggested_rates"]["direct"] > 0
    assert report["profile"]["backend"] == "gpu" and any("profile of this machine" in line for line in shown)


def test_what_fails_does_not_take_the_rest_along(tmp_path):
    """The second input does not exist; the first one's figures, and what does not depend on it, are there."""
    output = tmp_path / "report.json"
    options = ["--repeats", "1", "--sizes", "20", "--no-solve", "--no-profile", "-o", str(output)]
    done = benchmark("made-up-60", "none.h5", *options, "--data", "/none", SQD_MPI_GPU=SHIM)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads(output.read_text())
    assert [failure["section"] for failure in report["failures"]] == ["none.h5"]
    first, second = report["inputs"]
    assert first["sigma"]["agreement"] < 1e-13 and second == {"input": "none.h5"}
    assert report["crossover"]["rows"][0]["strings"] == 20 and report["profile"] is None


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["i.h5"], {"SQD_MPI_GPU": "other"}, "nothing was measured: SQD_MPI_GPU names as MODULE:NAME"),
        (["h2o-1em4", "--data", "/none"], {"SQD_MPI_GPU": SHIM}, "--data DIR or SQD_MPI_DATA must name"),
    ],
)
def test_without_device_or_data_one_sentence(arguments, environment, sentence):
    done = benchmark(*arguments, **environment)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr.splitlines()[-1]


def test_bench_measures_a_device_for_plans(input_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    profile = tmp_path / "machine.json"
    assert main(["bench", "--backend", "gpu", "--threads", "1", "-o", str(profile)]) == 0
    found = read_profile(profile)
    assert found.backend == "gpu" and found.name.startswith("host shim, ")
    assert found.device_bytes > 0 and found.devices_per_node == 1 and found.staging_bytes_per_second > 0.0
    assert found.mixed_seconds > 1e-12 and found.lanes == 1
    capsys.readouterr()
    assert main(["plan", str(input_path), "--ranks", "2", "--profile", str(profile), "--device-memory", "2GB"]) == 0
    assert "2 GB of a GPU; host shim" in " ".join(capsys.readouterr().out.split())
    assert main(["bench", "--backend", "reference"]) == 2
    assert "--backend needs cpu or gpu; got 'reference'" in capsys.readouterr().err


def test_preparation_is_measured_and_whole_solves_are_predicted(input_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_setup.py"), str(input_path), "--threads", "1"]
    done = subprocess.run(
        [*command, "--devices", "h200,mi300x", "--sigmas", "9"],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    text, report = "\n".join(shown), json.loads(last)
    assert "Predicted, not measured: a solve of 9 sigmas on one GPU with 16 cores" in text
    (run,) = report["measured"]["input.h5"]
    assert run["strings"] == 40 and run["dimension"] == 40 * 41 // 2 and run["uploaded_bytes"] > 0
    for step in ("reading", "singles", "H_alpha", "H_beta", "lists of the kernels", "all model spaces"):
        assert run["seconds"][step] > 0.0 and run["peak_bytes"].get(step, 1) > 0
    assert [row["device"] for row in report["predicted"]] == ["h200", "mi300x"]
    for row in report["predicted"]:
        parts = [value for name, value in row.items() if name not in ("input", "device", "whole")]
        assert row["whole"] == pytest.approx(sum(parts)) and min(parts) >= 0.0


def test_times_are_extrapolated_by_amdahls_law():
    assert gpu_setup.extrapolated({1: 10.0, 2: 6.0}, 4) == pytest.approx(4.0)
    assert gpu_setup.extrapolated({1: 10.0, 2: 5.0}, 16) == pytest.approx(10.0 / 16)
    assert gpu_setup.extrapolated({1: 1.0, 2: 1.2}, 16) == 1.0  # noise is no reason to expect less
    assert gpu_setup.extrapolated({2: 3.0}, 16) == 3.0


def test_preparation_of_a_file_that_is_not_there():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_setup.py"), "none.h5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 2 and done.stdout == "" and "none.h5" in done.stderr and done.stderr.count("\n") == 1
