"""Who speaks: a process that is alone always, several ranks once, and rather several times than not at all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sqd_mpi.app import speaker
from sqd_mpi.distribution.ranks import MpiRanks
from tests.support.launching import mpiexec
from tests.support.programs import check_refusal, environment, sqd_mpi


@pytest.mark.parametrize("variable", speaker._NUMBERS)
def test_a_lone_process_speaks(tmp_path, variable):
    """Whatever number a launcher gave it: in a task farm, or in a shell of a job."""
    check_refusal(sqd_mpi(tmp_path, "run", "missing.h5", "--tol", "0", **{variable: "3"}), "--tol needs")


@pytest.mark.parametrize(
    "arguments",
    ["run missing.h5", "run a.h5 --bogus 1", "rum a.h5", "sqd missing.h5", "extrapolate a.h5", "bench --threads 0",
     "info missing.h5", "plan missing.h5 --ranks 2", "import fcidump missing.txt --alpha a --output b", "report a.h5"],
)  # fmt: skip
def test_every_verb_speaks(tmp_path, arguments):
    """Errors do not vanish with a number that Slurm gave."""
    check_refusal(sqd_mpi(tmp_path, *arguments.split(), SLURM_PROCID="3", OMPI_COMM_WORLD_RANK="3"))
    assert not list(tmp_path.iterdir())


def test_without_mpi_a_process_speaks(tmp_path):
    """An MPI that cannot be loaded answers nothing."""
    (tmp_path / "mpi4py.py").write_text("raise ImportError('none')\n")
    changes = {"SLURM_PROCID": "3", "PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"}
    check_refusal(sqd_mpi(tmp_path, "run", "--bogus", **changes), "--help")


def launch(folder: Path, *jobs: str) -> subprocess.CompletedProcess[str]:
    """Starts several programs as one MPI job; `sqd_mpi` stands for the program."""
    command = [mpiexec()]
    for job in jobs:
        words = job.split()
        place = words.index("sqd_mpi")
        command += [":"] * (job != jobs[0]) + words[:place] + [sys.executable, "-m", *words[place:]]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("arguments", ["run --bogus", "rum a.h5", "run a.h5 --tol 0", "run missing.h5", "bench -o a/b"])
def test_ranks_speak_once(tmp_path, arguments):
    """Before MPI runs and afterwards."""
    check_refusal(launch(tmp_path, f"-n 3 sqd_mpi {arguments}"))


def test_verbs_without_mpi_speak_on_every_rank(tmp_path):
    """They may be a task farm, whose other processes never come to MPI."""
    done = launch(tmp_path, "-n 2 sqd_mpi info missing.h5")
    assert done.returncode == 2
    assert done.stderr == 2 * "sqd_mpi: error: missing.h5 does not exist\n"


@pytest.mark.slow
def test_a_rank_that_is_alone_with_its_error_ends_the_job(tmp_path):
    """The other one would wait for it for ever."""
    for jobs in (("run a.h5 --bogus", "run a.h5"), ("run a.h5", "run a.h5 --bogus")):
        done = launch(tmp_path, *(f"-n 1 sqd_mpi {job}" for job in jobs))
        assert done.returncode == 2 and "sqd_mpi: error: unknown option --bogus" in done.stderr


def test_a_task_farm_that_is_one_job_is_refused(tmp_path):
    """Only the input of rank 0 would be solved."""
    done = launch(tmp_path, "-n 1 sqd_mpi run a.h5 -o r.h5", "-n 1 sqd_mpi run b.h5 -o r.h5")
    check_refusal(done, "all ranks of a job need the same command line", "'run a.h5 -o r.h5'", "rank 1 'run b.h5 -o")


@pytest.mark.parametrize("program", ["exit 3", "echo noise; exec sleep 60"])
def test_whoever_gets_no_answer_speaks(monkeypatch, tmp_path, program):
    """MPI may fail, or wait for ranks that do not come."""
    (tmp_path / "python").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(speaker, "_LIMIT_SECONDS", 1.0)
    with speaker.speaking(collective=True) as mine:
        assert mine


class LateBarrier:
    """A communicator whose other ranks never come, or come after a while."""

    rank, size = 0, 2

    def __init__(self, arrive: Callable[[], bool]) -> None:
        """Takes what tells whether they are there."""
        self.Test = arrive

    def Ibarrier(self) -> LateBarrier:
        """Returns the request."""
        return self


def test_bad_input_on_one_rank_only_is_noticed(monkeypatch):
    """The others would wait for ever."""
    monkeypatch.setattr(speaker, "AGREEMENT_SECONDS", 0.1)
    assert not speaker.all_arrive(MpiRanks(LateBarrier(lambda: False)))
    monkeypatch.setattr(speaker, "AGREEMENT_SECONDS", 5.0)
    start = time.monotonic()
    assert speaker.all_arrive(MpiRanks(LateBarrier(lambda: time.monotonic() > start + 0.02)))


def test_mpi_starts_after_its_version_was_asked_for():
    """A result names the MPI library also where MPI does not run; later work in the same process may need it."""
    program = (
        "from sqd_mpi.distribution import mpi\n"
        "version = mpi.library_version()\n"
        "before = mpi.started_rank()\n"
        "comm = mpi.world()\n"
        "print(before, 'none' if comm is None else (comm.rank, comm.size, mpi.started_rank()), mpi.world() is comm)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("None (0, 1, 0) True\n", "None none True\n")
