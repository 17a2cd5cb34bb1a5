"""The program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sqd_mpi as package
from tests.support.waiting import HANG


def environment(**changes: str) -> dict[str, str]:
    """Returns the environment without what a launcher sets."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI_", "SLURM_", "PYTEST", "HYD"))}
    root = str(Path(package.__file__).parents[1])
    return {**plain, "PYTHONPATH": os.pathsep.join(filter(None, [root, plain.get("PYTHONPATH")])), **changes}


def sqd_mpi(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m sqd_mpi` in a directory."""
    command = [sys.executable, "-m", "sqd_mpi", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=HANG, check=False
    )


def check_refusal(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """Checks exit code 2 and one sentence, no traceback, that holds the words."""
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("sqd_mpi: error: ")
    for word in words:
        assert word in run.stderr
