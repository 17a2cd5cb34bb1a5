"""`info` without a file: what is installed and on what machine; and the metadata of the package."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sqd_mpi
from sqd_mpi.app import installation
from tests.support.paths import ROOT
from tests.support.waiting import HANG


def info(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`info` in a process of its own."""
    command = [sys.executable, "-m", "sqd_mpi", "info", *arguments]
    values = os.environ | variables
    return subprocess.run(command, env=values, capture_output=True, text=True, timeout=HANG, check=False)


def test_it_says_what_a_maintainer_asks_for() -> None:
    done = info("--json", NUMBA_NUM_THREADS="3", A_SECRET_TOKEN="hidden", SLURM_NTASKS="4", SLURM_JOB_USER="someone")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["sqd_mpi"] == sqd_mpi.__version__ and Path(found["location"]) == Path(sqd_mpi.__file__).parent
    assert all(re.match(r"\d+\.\d+", found[name]) for name in ("python", "numpy", "numba", "h5py", "pyscf", "scipy"))
    assert found["platform"] and found["python_executable"] == sys.executable
    assert found["cpu"]["model"] and isinstance(found["cpu"]["features"], list)
    assert 1 <= found["n_cores"] <= found["cpu"]["n_in_machine"]
    assert 0 < found["memory_available_bytes"] <= found["memory_total_bytes"]
    assert found["threading_layer"] in ("tbb", "omp", "workqueue")
    assert set(found["caches"]) == {"numba", "cupy"} and isinstance(found["devices"], list)
    assert found["environment"].items() >= {"NUMBA_NUM_THREADS": "3", "SLURM_NTASKS": "4"}.items()
    assert not {"A_SECRET_TOKEN", "SLURM_JOB_USER"} & set(found["environment"])


def test_the_table_holds_the_same(monkeypatch) -> None:
    done = info()
    assert done.returncode == 0 and done.stdout.startswith("this installation\n")
    labels = {line.split()[0] for line in done.stdout.splitlines()[1:]}
    assert {"sqd_mpi", "cpu.model", "mpi_library", "threading_layer", "devices", "caches.numba"} <= labels


def test_it_starts_neither_a_compiler_nor_a_device_nor_mpi() -> None:
    program = (
        "import sys; from sqd_mpi.app.installation import describe; describe(); "
        "assert not {'numba', 'h5py', 'pyscf', 'cupy', 'matplotlib'} & set(sys.modules); "
        "MPI = sys.modules.get('mpi4py.MPI'); assert MPI is None or not MPI.Is_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        ("processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 fma sse\n\nprocessor\t: 1\n", "Fast 9000", 2),
        ("processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd40\n", None, 2),
        ("", None, 0),
    ],
)
def test_processors(tmp_path: Path, text: str, model: str | None, features: int) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    found = installation._processor(tmp_path / "cpuinfo")
    assert found["model"] and (model is None or found["model"] == model)
    assert len(found["features"]) == features


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_share_of_cores_of_a_container(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert installation._cpu_quota(tmp_path) == quota


def test_devices_of_both_makers(tmp_path: Path, monkeypatch) -> None:
    for number, (simds, name) in enumerate([(0, ""), (440, "gfx90a")]):
        folder = tmp_path / "nodes" / str(number)
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"cpu_cores_count 64\nsimd_count {simds}\ngfx_target_version 90010\n")
        (folder / "name").write_text(name + "\n")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 570.1'\necho 'NVIDIA H100, 81559 MiB, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = installation._devices(tmp_path / "nodes")
    assert found == ["NVIDIA H100, 81559 MiB, 570.1"] * 2 + ["gfx90a, gfx_target_version 90010"]
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert installation._devices(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("variables", "layer"),
    [
        ({"NUMBA_THREADING_LAYER": "workqueue"}, "workqueue (NUMBA_THREADING_LAYER)"),
        ({"NUMBA_THREADING_LAYER_PRIORITY": "workqueue omp tbb"}, "workqueue"),
    ],
)
def test_the_threading_layer_that_is_asked_for(monkeypatch, variables: dict[str, str], layer: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert installation._threading_layer() == layer


def test_the_threading_layer_is_the_one_that_numba_takes() -> None:
    program = "import numba\n@numba.njit(parallel=True)\ndef f(n):\n    s = 0\n    for k in numba.prange(n):\n        s += k\n    return s\nf(9); print(numba.threading_layer())"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=True)
    assert installation._threading_layer() == done.stdout.strip()


def test_the_version_stands_in_one_place_and_the_citation_follows() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["metadata"]["version"] == "attr: sqd_mpi._version.__version__"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [sqd_mpi.__version__]


def test_the_changelog_is_kept_in_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert all(re.fullmatch(r"## \[(Unreleased|\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d)\]?", line) for line in versions)
    newest = [line for line in versions if line != "## [Unreleased]"][:1]
    assert newest == [] or newest[0].startswith(f"## [{sqd_mpi.__version__}]")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line[4:] for line in lines if line.startswith("### ")} <= kinds
