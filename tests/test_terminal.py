"""Standard streams that are closed, broken or full: runs go on, results are written, exit codes stay, no traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sqd_mpi.app.watchdog import Watchdog
from sqd_mpi.files import records
from sqd_mpi.log import Iteration, Log, MessageStream, OutputError, colored, settle, show, tell
from sqd_mpi.timing import Timers
from tests.support.launching import mpiexec
from tests.support.programs import environment
from tests.support.two_sites import ENERGY, write_two_sites

SQD_MPI = f"{sys.executable} -m sqd_mpi"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a directory with an input file."""
    write_two_sites(tmp_path / "input.h5")
    return tmp_path


def shell(folder: Path, command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of bash in a directory; `sqd_mpi` stands for the program."""
    text = command.replace("sqd_mpi", SQD_MPI)
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "streams",
    ["2>&-", "--quiet 2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full", "2>&1 | head -n 1",
     "2>&1 | true"],
)  # fmt: skip
def test_a_run_needs_no_streams(folder, streams):
    """The log is not the product."""
    done = shell(folder, f"sqd_mpi run input.h5 -o result.h5 {streams}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0, done.stderr
    assert records.read_summary(folder / "result.h5")["energy"][0] == pytest.approx(ENERGY, abs=1e-9)
    assert "Traceback" not in done.stderr + done.stdout and "ignored" not in done.stderr


@pytest.mark.slow
def test_ranks_need_no_streams(folder):
    """Several ranks without standard error, and with nobody who reads on behind rank 0."""
    for streams in ("2>&-", "2>&1 | head -n 1"):
        inner = f"sqd_mpi run input.h5 -o result.h5 {streams}; exit ${{PIPESTATUS[0]}}"
        (folder / "rank.sh").write_text(inner.replace("sqd_mpi", SQD_MPI))
        done = shell(folder, f"{mpiexec()} -n 2 bash rank.sh")
        assert done.returncode == 0, done.stderr
        assert records.read_summary(folder / "result.h5")["n_ranks"] == 2
        assert "Traceback" not in done.stderr + done.stdout
        (folder / "result.h5").unlink()


def test_what_libraries_print_does_not_go_into_a_result(folder):
    """The next file that is opened would get the number of a closed stream."""
    program = (
        "import os, sys\nfrom sqd_mpi.log import open_closed_streams\nopen_closed_streams()\n"
        "file = open('written', 'w')\nassert file.fileno() > 2 and None not in (sys.stdin, sys.stdout, sys.stderr)\n"
        "for descriptor in (1, 2):\n    os.write(descriptor, b'noise of a library')\n"
        "sys.stdout.write('x')\nsys.stderr.write('x')\nassert sys.stdin.read() == ''\n"
    )
    (folder / "program.py").write_text(program)
    done = shell(folder, f"{sys.executable} program.py <&- >&- 2>&-")
    assert done.returncode == 0
    assert (folder / "written").read_text() == ""


@pytest.mark.parametrize(
    "command",
    ["info input.h5 | head -n 1", "info | true", "info input.h5 --json | true",
     "--help | head -n 1", "--version | true", "run --help | true", "plan input.h5 --ranks 2 | head -n 1",
     "plan input.h5 --ranks 2 --json | true", "report result.h5 | true", "import fcidump --help | true",
     "info input.h5 >&-", "--help >&-"],
)  # fmt: skip
def test_a_reader_may_stop(folder, command):
    """Nothing is said, and the exit code is that of the verb."""
    if "result.h5" in command:
        pytest.importorskip("matplotlib")
        shell(folder, "sqd_mpi run input.h5 -o result.h5 --quiet")
    done = shell(folder, f"sqd_mpi {command}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) <= 1


@pytest.mark.parametrize("command", ["info input.h5", "info --json", "plan input.h5 --ranks 2", "--help", "--version"])
def test_a_full_disk_is_one_sentence(folder, command):
    """Also when Python ends, which would try to write the rest again."""
    done = shell(folder, f"sqd_mpi {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "sqd_mpi: error: standard output cannot be written: no space left on device\n"


def test_the_result_is_kept_when_its_summary_cannot_be_printed(folder):
    """--json asks for more than the file."""
    done = shell(folder, "sqd_mpi run input.h5 -o result.h5 --quiet --json > /dev/full")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot be written" in done.stderr
    assert records.read_summary(folder / "result.h5")["all_converged"]
    assert shell(folder, "sqd_mpi run input.h5 -o other.h5 --json > /dev/full 2>&1").returncode == 1


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-", "2>&1 | true"])
@pytest.mark.parametrize("command", ["run missing.h5", "info missing.h5", "run input.h5 --nroot 2"])
def test_bad_input_that_cannot_be_told(folder, streams, command):
    """The exit code says it."""
    done = shell(folder, f"sqd_mpi {command} {streams}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show(folder):
    """Letters beyond its encoding are written as escapes; what is read by machines stays whole."""
    (folder / "input.h5").rename(folder / "ü.h5")
    done = shell(folder, "sqd_mpi run ü.h5 -o ö.h5 && sqd_mpi info ö.h5 --json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\xf6.h5 written after" in done.stderr and '"all_converged": true' in done.stdout
    for command in ("info ü.h5", "plan ü.h5 --ranks 2"):
        done = shell(folder, f"sqd_mpi {command}", PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("\\xfc.h5") and done.stdout.count("\\") == 1
    done = shell(folder, "sqd_mpi run ä.h5", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2 and done.stderr.endswith(".h5 does not exist\n")


class Stream(io.StringIO):
    """A stream that fails with an error, if it has one, and is a terminal or not."""

    def __init__(self, error: Exception | None = None, is_terminal: bool = False) -> None:
        """Takes what is raised by every write."""
        super().__init__()
        self.error, self.is_terminal = error, is_terminal

    def isatty(self) -> bool:
        """Returns whether it is a terminal."""
        return self.is_terminal

    def write(self, text: str) -> int:
        """Writes, or fails."""
        if self.error is not None:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    ("number", "written"), [(errno.ENOSPC, "two"), (errno.EAGAIN, "two"), (errno.EPIPE, ""), (errno.EIO, "")]
)
def test_a_disk_gets_room_and_a_pipe_does_not(number, written):
    """A broken stream is not tried again."""
    broken = Stream(OSError(number, "reason"), is_terminal=True)
    stream = MessageStream(broken)
    assert stream.write("one") == 3 and stream.isatty() == bool(written)
    broken.error = None
    stream.write("two")
    stream.flush()
    assert broken.getvalue() == written


def test_messages_without_a_stream(monkeypatch):
    """Python has none where it was closed."""
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    stream = MessageStream()
    assert (stream.write("lost"), stream.isatty(), stream.encoding) == (4, False, "utf-8")
    with pytest.raises(OSError):
        stream.fileno()
    tell("lost", "mark", "red")
    show("lost")
    settle()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    MessageStream(closed).write("lost")
    MessageStream(closed).flush()
    show("lost")
    assert colored("word", "red", closed) == "word"


def test_show(monkeypatch):
    """What nobody reads is no error; what cannot be written is."""
    monkeypatch.setattr(sys, "stdout", Stream(BrokenPipeError(errno.EPIPE, "reason")))
    show("text")
    monkeypatch.setattr(sys, "stdout", Stream(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OutputError, match="standard output cannot be written: input/output error"):
        show("text")
    plain = Stream()
    monkeypatch.setattr(sys, "stdout", plain)
    show("text")
    assert plain.getvalue() == "text"


def test_letters_beyond_an_encoding():
    """They become escapes."""
    content = io.BytesIO()
    stream = MessageStream(io.TextIOWrapper(content, encoding="ascii"))
    stream.write("ü, \udc80, a\n")
    stream.flush()
    assert content.getvalue() == b"\\xfc, \\udc80, a\n" and stream.encoding == "ascii"


@pytest.mark.parametrize(
    ("is_terminal", "changes", "expected"),
    [
        (True, {"TERM": "xterm"}, "\033[1;31mword\033[0m"),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, "word"),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, "\033[1;31mword\033[0m"),
        (True, {"TERM": "dumb"}, "word"),
        (False, {"TERM": "xterm"}, "word"),
    ],
)
def test_colours(monkeypatch, is_terminal, changes, expected):
    """On terminals only, and not where NO_COLOR is set to anything but nothing."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    assert colored("word", "red", Stream(is_terminal=is_terminal)) == expected


def test_a_watchdog_that_cannot_tell_ends_the_job_all_the_same():
    """Its report is lost, not its purpose."""
    ended = threading.Event()
    stream: Any = Stream(BrokenPipeError(errno.EPIPE, "reason"))
    with Watchdog(Timers(), 0.1, end=ended.set, stream=stream):
        assert ended.wait(30)


def test_a_live_line_on_a_terminal_that_goes_away():
    """A disowned job writes to a terminal that is closed."""
    stream: Any = Stream(is_terminal=True)
    with Log(stream=stream) as log:
        row = Iteration(1, 2, -1.0, 0.0, 0.5, 3, 1.5)
        log.iteration(row)
        stream.error = OSError(errno.EIO, os.strerror(errno.EIO))
        log.iteration(row)
        log.warning("kept")
    assert log.warnings == ["kept"]
