"""The verb run in a process of its own, on one or several ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sqd_mpi as package
from tests.support.waiting import HANG

MPIEXEC = Path(sys.executable).parent / "mpiexec"


def environment() -> dict[str, str]:
    """Returns the environment without what a launcher sets."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI_", "SLURM_", "PYTEST", "HYD"))}
    root = str(Path(package.__file__).parents[1])
    return {**plain, "PYTHONPATH": os.pathsep.join(filter(None, [root, plain.get("PYTHONPATH")]))}


def run(folder: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Runs `python -m sqd_mpi run` in a directory on one or several ranks."""
    launcher = [str(MPIEXEC), "-n", str(ranks)] if ranks > 1 else []
    if launcher and not MPIEXEC.exists():
        pytest.skip("no mpiexec beside this Python")
    command = [*launcher, sys.executable, "-m", "sqd_mpi", "run", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=HANG, check=False
    )


def check_refusal(finished: subprocess.CompletedProcess[str], *words: str) -> None:
    """Checks exit code 2 and one sentence, from one rank, no traceback, that holds the words."""
    assert finished.returncode == 2, finished.stderr
    assert finished.stdout == ""
    sentence = [line for line in finished.stderr.splitlines() if line.startswith("sqd_mpi: error: ")]
    assert len(sentence) == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    for word in words:
        assert word in sentence[0]


def info(folder: Path, name: str = "result.h5") -> dict[str, Any]:
    """Returns the JSON object of `info`."""
    command = [sys.executable, "-m", "sqd_mpi", "info", name, "--json"]
    text = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True).stdout
    return json.loads(text)
