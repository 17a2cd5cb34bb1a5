"""Runs tests/mpi on several numbers of ranks, odd ones and more ranks than cores included."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT, TESTS
from tests.support.waiting import HANG

SUITE = TESTS / "mpi"
TIMEOUT_SECONDS = 3000  # of the whole suite; it is made for more ranks than there are cores


def run_suite(n_ranks: int, folder: Path, timeout: float = TIMEOUT_SECONDS) -> tuple[int, str]:
    """Exit code and output of the tests of a folder on n_ranks ranks; nothing of the job outlives the call."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # A rank that waits in MPI answers no signal; the thread method prints where it hangs and exits.
    pytest_command = [sys.executable, "-m", "pytest", "--only-mpi", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    pytest_command += ["-c", str(ROOT / "pyproject.toml"), f"--timeout={HANG}", "--timeout-method=thread", str(folder)]
    command = [mpiexec(), "-n", str(n_ranks), *pytest_command]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as job:
        try:
            output, _ = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            output, _ = job.communicate()
            return 124, f"{output}\nended after {timeout} s"
    return job.returncode, output


@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 6])
def test_suite_passes_on(n_ranks: int) -> None:
    code, output = run_suite(n_ranks, SUITE)
    print(output)
    assert code == 0, f"tests/mpi failed on {n_ranks} ranks:\n{output}"


def test_a_failing_rank_ends_the_job(tmp_path: Path) -> None:
    shutil.copy(SUITE / "conftest.py", tmp_path)
    (tmp_path / "test_fails.py").write_text(
        "import pytest\n\n\n"
        "@pytest.mark.mpi\n"
        "def test_fails_on_rank_1(comm):\n"
        "    assert comm.rank != 1, 'told to fail'\n"
        "    comm.Barrier()\n"
    )
    code, output = run_suite(3, tmp_path, timeout=HANG)
    assert code not in (0, 124), output
    assert "[rank 1]" in output and "told to fail" in output, output
