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


# In place of the system's function, which only lets others go first if they have had less of the core.
NAP = "#include <time.h>\nint sched_yield(void) { struct timespec nap = {0, 20000}; return nanosleep(&nap, 0); }\n"


@pytest.fixture(scope="module")
def naps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which ranks that wait sleep, rather than take the cores from those that they wait for."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return {}
    library = tmp_path_factory.mktemp("naps") / "naps.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=NAP, text=True, check=True, timeout=HANG)
    return {"LD_PRELOAD": str(library)}


def run_suite(
    n_ranks: int, folder: Path, naps: dict[str, str], *options: str, timeout: float = TIMEOUT_SECONDS
) -> tuple[int, str]:
    """Exit code and output of the tests of a folder on n_ranks ranks; nothing of the job outlives the call."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | naps
    # A rank that waits in MPI answers no signal; the thread method prints where it hangs and exits.
    pytest_command = [sys.executable, "-m", "pytest", "--only-mpi", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    pytest_command += ["-c", str(ROOT / "pyproject.toml"), f"--timeout={HANG}", "--timeout-method=thread"]
    pytest_command += [*options, str(folder)]
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


def check_suite(n_ranks: int, naps: dict[str, str], request: pytest.FixtureRequest) -> None:
    """All tests of tests/mpi that the command line selects pass."""
    code, output = run_suite(n_ranks, SUITE, naps, "-m", request.config.option.markexpr)
    print(output)
    assert code == 0, f"tests/mpi failed on {n_ranks} ranks:\n{output}"


# Two classes, which go to different processes of pytest-xdist.
@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
class TestFewRanks:
    @pytest.mark.parametrize("n_ranks", [3, 2, 1])
    def test_suite_passes_on(self, n_ranks: int, naps: dict[str, str], request: pytest.FixtureRequest) -> None:
        check_suite(n_ranks, naps, request)


@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
class TestManyRanks:
    @pytest.mark.parametrize("n_ranks", [6, 4])
    def test_suite_passes_on(self, n_ranks: int, naps: dict[str, str], request: pytest.FixtureRequest) -> None:
        check_suite(n_ranks, naps, request)


def test_a_failing_rank_ends_the_job(tmp_path: Path, naps: dict[str, str]) -> None:
    shutil.copy(SUITE / "conftest.py", tmp_path)
    (tmp_path / "test_fails.py").write_text(
        "import pytest\n\n\n"
        "@pytest.mark.mpi\n"
        "def test_fails_on_rank_1(comm):\n"
        "    assert comm.rank != 1, 'told to fail'\n"
        "    comm.Barrier()\n"
    )
    code, output = run_suite(3, tmp_path, naps, timeout=HANG)
    assert code not in (0, 124), output
    assert "[rank 1]" in output and "told to fail" in output, output
