"""Faults, injected: no hang, one clear message, the last good state loads, the energy is that of an undisturbed run.

Jobs of several ranks are launched with a script that does something to itself at a given place (`INJECT`); the program
itself knows nothing of these tests.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import sqd_mpi
from sqd_mpi.app import checkpoints
from sqd_mpi.app.interrupts import OutputLock, StopSignals
from sqd_mpi.app.watchdog import Watchdog
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.files import checksums, distributed, records
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.timing import Timers
from tests.support.jobs import launch, run_here, summary
from tests.support.problems import all_strings, dense_matrix, make_hamiltonian
from tests.support.waiting import HANG, wait_until

NORB, NELEC = 7, (3, 4)
STRINGS = all_strings(NORB, 3)[:33], all_strings(NORB, 4)[2:]
CHECKPOINT, PREVIOUS = Path("result.h5.checkpoint"), Path("result.h5.checkpoint.previous")

# Runs the program; `{setup}` may replace functions of it by others that first call `when(rank)`.
INJECT = """
import os, resource, signal, sys, time
import numpy as np
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.files import checksums, records as files, vectors as vector_files, distributed as vector_io
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.__main__ import run

count = 0

def before(owner, name, action, at=1, ranks=(1,)):
    plain = getattr(owner, name)
    def replaced(*arguments, **named):
        global count
        process_grid = next((each for each in (getattr(arguments[0], "grid", None), arguments[0]) if
                             isinstance(each, ProcessGrid)), None) if arguments else None
        if process_grid is None or process_grid.n_ranks > 1:
            count += 1
            if count == at and (process_grid is None or process_grid.rank in ranks):
                action(*arguments)
        return plain(*arguments, **named)
    setattr(owner, name, replaced)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{setup}
sys.argv = ["sqd_mpi", "run", *sys.argv[1:]]
sys.exit(run())
"""


def inject(setup: str) -> str:
    """The script."""
    return INJECT.replace("{setup}", setup)


@pytest.fixture(scope="module")
def hamiltonian() -> Hamiltonian:
    return make_hamiltonian(NORB, NELEC, 4, np.array([0, 1, 2, 3, 0, 1, 2]))


@pytest.fixture(scope="module")
def exact(hamiltonian) -> float:
    """The lowest energy."""
    return float(np.linalg.eigvalsh(dense_matrix(hamiltonian, *STRINGS))[0])


@pytest.fixture
def folder(tmp_path, hamiltonian, monkeypatch) -> Path:
    """A working directory with an input file; the threads of this process are put back afterwards."""
    records.write_input(tmp_path / "input.h5", hamiltonian, *STRINGS, {"threads": 1, "model_space": 40})
    monkeypatch.chdir(tmp_path)
    before = numba.get_num_threads()
    yield tmp_path
    numba.set_num_threads(before)


def check_resumed(exact: float, capfd: Any = None) -> str:
    """Go on in this process; the energy is right and nothing is left behind. Returns what was said."""
    assert run_here(resume=True) == 0
    assert summary()["energy"] == pytest.approx([exact], abs=1e-10)
    assert sorted(path.name for path in Path().iterdir()) == ["input.h5", "result.h5"]
    return capfd.readouterr().err if capfd is not None else ""


# --- ranks that die, fail or are slow


@pytest.mark.parametrize(
    ("phase", "setup"),
    [
        ("reading", "before(files, 'read_input', die, ranks=(0, 1))"),
        ("sigma", "before(SigmaOperator, 'matvec', die, at=4)"),
        pytest.param("writing a checkpoint", "before(vector_io, '_write_share', die, at=2)", marks=pytest.mark.slow),
        pytest.param(
            "all ranks, writing a checkpoint",
            "before(vector_io, '_write_share', die, at=2, ranks=(0, 1, 2))",
            marks=pytest.mark.slow,
        ),
        pytest.param("renaming a checkpoint", "before(vector_files, 'into_place', die, at=2)", marks=pytest.mark.slow),
    ],
)
def test_killed_ranks(folder, exact, phase, setup):
    """The launcher ends the job; the run goes on from the last complete checkpoint, and remains are removed."""
    finished = launch(3, "--checkpoint-every", "1", "--grid", "3,1,1,1", script=inject(setup))
    assert finished.returncode not in (0, 2, 3, 4), finished.stderr
    assert not Path("result.h5").exists()
    if phase not in ("reading", "sigma"):
        assert CHECKPOINT.exists() or PREVIOUS.exists()
    check_resumed(exact)


def test_a_rank_that_raises_in_a_task(folder, exact):
    setup = (
        "def fail(*_): raise ZeroDivisionError('told to fail')\n"
        "from sqd_mpi.backends import cpu\n"
        "plain = SigmaOperator._matvec\n"
        "def matvec(self, vector, out):\n"
        "    if self.grid.n_ranks > 1 and self.grid.rank == 2: self.block.apply = fail\n"
        "    plain(self, vector, out)\n"
        "SigmaOperator._matvec = matvec\n"
    )
    finished = launch(3, "--grid", "3,1,1,1", script=inject(setup))
    assert finished.returncode == 1 and finished.stderr.count("Traceback") == 1
    assert "[rank 2]" in finished.stderr and "told to fail" in finished.stderr
    check_resumed(exact)


@pytest.mark.slow
def test_a_slow_rank(folder, exact):
    """Nothing happens but that it takes longer."""
    setup = "before(SigmaOperator, 'matvec', lambda *_: time.sleep(2), at=3)"
    finished = launch(3, "--grid", "1,1,3,1", script=inject(setup))
    assert finished.returncode == 0, finished.stderr
    assert summary()["energy"] == pytest.approx([exact], abs=1e-10)


def test_nan_in_a_vector(folder, exact):
    """One sentence, no traceback, exit code 1; the checkpoint before it is whole."""
    setup = "before(SigmaOperator, 'matvec', lambda self, vector, out: vector.__setitem__(0, np.nan), at=5)"
    finished = launch(2, "--checkpoint-every", "1", "--grid", "2,1,1,1", script=inject(setup))
    assert finished.returncode == 1 and "Traceback" not in finished.stderr, finished.stderr
    sentence = [line for line in finished.stderr.splitlines() if "error" in line]
    assert len(sentence) == 1 and "not finite (NaN or infinity)" in sentence[0]
    assert CHECKPOINT.exists() and not Path("result.h5").exists()
    check_resumed(exact)


# --- signals


def test_a_signal_before_the_first_iteration(folder, exact):
    """While the kernels are compiled or loaded: code 4, and nothing written."""
    setup = (
        "from sqd_mpi.solver import startup\n"
        "plain = startup.warm_up\n"
        "def warm_up(*order):\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    plain(*order)\n"
        "startup.warm_up = warm_up\n"
    )
    finished = launch(2, script=inject(setup))
    assert finished.returncode == 4, finished.stderr
    assert "stopped by the signal before the first iteration" in finished.stderr
    assert [path.name for path in folder.iterdir()] == ["input.h5"]
    check_resumed(exact)


def test_a_signal_while_the_result_is_written_does_not_lose_it(folder, exact, monkeypatch):
    plain = records.write_record

    def interrupted(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given)

    monkeypatch.setattr(records, "write_record", interrupted)
    assert run_here() == 0
    assert summary()["energy"] == pytest.approx([exact], abs=1e-10)


def test_signals_are_remembered_and_handlers_put_back():
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as signals:
        assert signals.number == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.number == signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) is before


# --- disks


def test_disk_full_at_a_checkpoint(folder, exact, monkeypatch, capfd):
    """A warning, and the run goes on; the generation before stays whole."""
    plain, calls = distributed._write_share, [0]

    def full(*given: Any) -> int:
        calls[0] += 1
        if calls[0] > 2:
            raise OSError(28, "No space left on device")
        return plain(*given)

    monkeypatch.setattr(distributed, "_write_share", full)
    assert run_here(checkpoint_every=1, max_iterations=4) == 3
    said = capfd.readouterr().err
    assert "cannot write result.h5.checkpoint: No space left on device; the checkpoint before it stays" in said
    assert not list(folder.glob(".*.tmp"))
    checksums.verify(Ranks(), CHECKPOINT)
    monkeypatch.setattr(distributed, "_write_share", plain)
    check_resumed(exact)


def test_disk_full_at_the_only_checkpoint_of_a_run_that_must_stop(folder, monkeypatch):
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(distributed, "_write_share", full)
    with pytest.raises(RunError, match="No space left on device; the run was to stop and has no earlier checkpoint"):
        run_here(time_limit=1e-3)
    assert [path.name for path in folder.iterdir()] == ["input.h5"]


@pytest.mark.slow
@pytest.mark.parametrize(("bytes_left", "save"), [(3000, True), (3000, False)])
def test_files_that_may_not_grow(folder, exact, bytes_left, save):
    """The system refuses to write more, as a full disk or a quota does, also inside HDF5: one sentence, code 1."""
    Path("result.h5").write_bytes(b"a former result")
    # the limit holds from the end of the solve on: compiled kernels may have to be stored before
    setup = (
        "from sqd_mpi.app import run as job\n"
        "plain = job.Job._write_result\n"
        "def write(self, result):\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_left}, resource.RLIM_INFINITY))\n"
        "    return plain(self, result)\n"
        "job.Job._write_result = write\n"
    )
    options = ["--checkpoint-every", "1"] + ["--save-vector"] * save
    finished = launch(2, *options, script=inject(setup))
    assert finished.returncode == 1, finished.stderr
    assert "sqd_mpi: error: the result could not be written: " in finished.stderr
    assert "go on with --resume" in finished.stderr and "Traceback" not in finished.stderr
    assert Path("result.h5").read_bytes() == b"a former result"
    check_resumed(exact)


def test_unwritable_directory(folder):
    """Before any work, in one sentence."""
    if not os.access(sys.executable, os.X_OK) or any(
        not path.stat().st_mode & 0o001 for path in Path(sys.executable).resolve().parents
    ):
        pytest.skip("another user may not run this Python")
    folder.chmod(0o555)
    account = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    root = Path(sqd_mpi.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "sqd_mpi", "run", "input.h5"], capture_output=True, text=True, timeout=HANG, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "HOME": "/nonexistent"}, **account,
    )  # fmt: skip
    folder.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "sqd_mpi: error: cannot write result.h5" in done.stderr and "writable" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["input.h5"]


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a directory that not even root may write to")
def test_directory_of_the_system(folder):
    """The same for every user, root included."""
    done = subprocess.run(
        [sys.executable, "-m", "sqd_mpi", "run", "input.h5", "-o", "/sys/kernel/result.h5"], capture_output=True,
        text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "sqd_mpi: error: cannot write /sys/kernel/result.h5" in done.stderr


# --- damaged checkpoints


def two_generations() -> None:
    """Checkpoints of iterations 2 and 3."""
    assert run_here(checkpoint_every=1, max_iterations=3) == 3
    Path("result.h5").unlink()
    assert CHECKPOINT.exists() and PREVIOUS.exists()


def flip(path: Path, place: int, bit: int = 3) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


DAMAGES = {
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 8),
    "empty": lambda path: path.write_bytes(b""),
    "a bit of the head": lambda path: flip(path, 25),
    "a bit of the metadata": lambda path: flip(path, 600),
    "the last bit": lambda path: flip(path, path.stat().st_size - 1),
    "a bit of a vector": lambda path: flip(path, path.stat().st_size // 2),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(folder, exact, capfd, damage):
    two_generations()
    damage(CHECKPOINT)
    said = check_resumed(exact, capfd)
    assert "going on from the checkpoint before it" in said and "resuming from result.h5.checkpoint.previous" in said


def test_two_damaged_checkpoints_are_refused(folder):
    two_generations()
    flip(CHECKPOINT, 2000)
    PREVIOUS.write_bytes(PREVIOUS.read_bytes()[:700])
    with pytest.raises(InputError, match="^resume needs a whole checkpoint; .*checkpoint is damaged.*previous is dam"):
        run_here(resume=True)
    assert CHECKPOINT.exists() and PREVIOUS.exists()


def test_every_bit_counts(folder):
    """Random places of a small checkpoint."""
    two_generations()
    rng, content = np.random.default_rng(0), CHECKPOINT.read_bytes()
    for place in rng.integers(0, len(content), 300):
        flip(CHECKPOINT, int(place), int(rng.integers(8)))
        with pytest.raises(InputError, match="is damaged"):
            checksums.verify(Ranks(), CHECKPOINT)
        CHECKPOINT.write_bytes(content)
    checksums.verify(Ranks(), CHECKPOINT)


def test_a_result_with_a_damaged_vector_is_no_start(folder):
    assert run_here("first.h5", save_vector=True) == 0
    with records.VectorReader("first.h5") as reader:
        place = reader._file["vectors/0/0"].id.get_offset()
    flip(Path("first.h5"), place + 5)
    with pytest.raises(InputError, match="first.h5 is damaged: its checksum is wrong"):
        run_here(start="first.h5")


def test_sums_do_not_depend_on_the_parts():
    words = np.random.default_rng(0).integers(0, 2**63, 200_000)
    whole = checksums.word_sum(words, 64)
    parts = [checksums.word_sum(part, 64 + start) for start, part in ((0, words[:7]), (7, words[7:100_001]))]
    rest = checksums.word_sum(words[100_001:], 64 + 100_001)
    assert (sum(parts) + rest) % 2**64 == whole
    assert checksums.word_sum(words[::-1].copy(), 64) != whole
    assert checksums.outside([(600, 700), (512, 520)], 800) == [(520, 600), (700, 800)]


# --- other jobs


def test_two_jobs_with_the_same_output(folder, exact, monkeypatch):
    monkeypatch.setattr("sqd_mpi.app.interrupts._DYING_SECONDS", 0.2)
    lock = OutputLock(Path("result.h5"))
    with pytest.raises(InputError, match=f"another job is writing it .host .*, process {os.getpid()}"):
        run_here()
    assert run_here("other.h5") == 0
    lock.release()
    assert run_here() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["input.h5", "other.h5", "result.h5"]


def test_remains_are_removed_but_not_those_of_others(folder):
    remains = [".result.h5.123.tmp", ".result.h5.checkpoint.77.tmp"]
    others = [".result.h5.x.tmp", ".result2.h5.5.tmp", ".result.h5.old.5.tmp"]
    for name in remains + others:
        Path(name).write_bytes(b"half a file")
    assert run_here() == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted([*others, "input.h5", "result.h5"])


def test_a_file_system_without_locks(folder, monkeypatch):
    """The run is not refused, and nothing of others is removed."""

    def unknown(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    Path(".result.h5.123.tmp").write_bytes(b"perhaps of another job")
    assert run_here() == 0
    assert Path(".result.h5.123.tmp").exists()


def test_the_lock_of_a_killed_job_is_free(folder):
    code = (
        "import os, signal; from pathlib import Path; from sqd_mpi.app.interrupts import OutputLock\n"
        "lock = OutputLock(Path('result.h5')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(sqd_mpi.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, check=False)
    assert Path(".result.h5.lock").exists()
    assert run_here() == 0
    assert not Path(".result.h5.lock").exists()


# --- the watchdog


def test_watchdog_says_where_a_rank_stands():
    timers, stream = Timers(), io.StringIO()
    with Watchdog(timers, 0.2, rank=3, stream=stream), timers("sigma"), timers("wait"):
        wait_until(lambda: "watchdog" in stream.getvalue())
    said = stream.getvalue()
    assert re.match(r"\[rank 3\] watchdog: nothing moved for \d+ s in sigma > wait\n", said)
    assert "test_watchdog_says_where_a_rank_stands" in said


def test_watchdog_is_silent_while_something_moves(monkeypatch):
    """By its own clock, in which no machine is busy: something moves between any two looks."""
    timers, stream, looks = Timers(), io.StringIO(), []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            if len(looks) < 40:
                with timers("sigma"):
                    pass
            looks.append(None)
            return 0.9 * len(looks)  # nearly as long as nothing may move

    monkeypatch.setattr("sqd_mpi.app.watchdog.time", Clock)
    with Watchdog(timers, 1.0, stream=stream) as watchdog:
        watchdog._stop.wait = lambda _: len(looks) >= 40
        wait_until(lambda: len(looks) >= 40)
    assert stream.getvalue() == ""


@pytest.mark.slow
def test_watchdog_ends_a_dead_lock(folder):
    """One rank stands still outside MPI, the other waits for it: both speak, and the job ends."""
    setup = "before(SigmaOperator, 'matvec', lambda *_: time.sleep(1000), at=3)"
    finished = launch(2, "--grid", "2,1,1,1", "--watchdog", "4", "--watchdog-end", script=inject(setup))
    assert finished.returncode not in (0, 2, 3, 4)
    assert "[rank 0] watchdog: nothing moved for" in finished.stderr
    assert "[rank 1] watchdog: nothing moved for" in finished.stderr
    assert "time.sleep(1000)" in finished.stderr or "<lambda>" in finished.stderr


def test_checkpoint_paths():
    assert checkpoints.checkpoint_path("a/result.h5") == Path("a/result.h5.checkpoint")
