"""Runs in this process, and runs of several ranks with faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from sqd_mpi.app import run
from sqd_mpi.files import records
from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT
from tests.support.waiting import HANG


def run_here(output: str = "result.h5", **options: Any) -> int:
    """Exit code of a run of one rank in this process."""
    return run.run_file(None, "input.h5", output, options)


def launch(n_ranks: int, *arguments: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    """A run on several ranks, of the program or of a script that starts it in another way."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment["PYTHONPATH"] = str(ROOT)
    program = ["-c", script] if script else ["-m", "sqd_mpi", "run"]
    command = [mpiexec(), "-n", str(n_ranks), sys.executable, *program, "input.h5", *arguments]
    # A job that hangs is the failure looked for here: it is ended with all its ranks.
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            pytest.fail(f"the job hangs:\n{output}\n{errors}")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def summary(name: str = "result.h5") -> dict[str, Any]:
    """What `info --json` prints."""
    return json.loads(json.dumps(records.read_summary(name), allow_nan=False))
