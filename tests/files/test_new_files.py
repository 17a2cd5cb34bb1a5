"""New files: complete or not there, behind symbolic links, and one sentence where the disk has no room."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from sqd_mpi.app import trace
from sqd_mpi.app.cli import main
from sqd_mpi.app.interrupts import OutputLock
from sqd_mpi.distribution import mpi
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.files import new_files, records
from sqd_mpi.loop import batch
from sqd_mpi.planner import profile
from sqd_mpi.problem import bitstrings, sampling
from tests.support.fcidump_files import BODY, HEADER, expected_small
from tests.support.problems import dense_matrix


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in a directory with a FCIDUMP, strings, counts, an input and a problem; in this process, without MPI."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpi, "world", lambda: None)
    Path("FCIDUMP").write_text(HEADER + BODY)
    Path("strings.txt").write_text("01\n10\n")
    Path("counts.json").write_text(json.dumps({"0110": 1, "1001": 1, "0101": 1, "1010": 1}))
    strings, hamiltonian = bitstrings.from_integers([1, 2], 2), expected_small()
    records.write_input("input.h5", hamiltonian, strings, strings, {"threads": 1})
    records.write_problem("problem.h5", hamiltonian, sampling.read_samples("counts.json", 2))
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@pytest.fixture
def exact() -> float:
    """The lowest energy."""
    strings = bitstrings.from_integers([1, 2], 2)
    return float(np.linalg.eigvalsh(dense_matrix(expected_small(), strings, strings))[0])


# --- symbolic links


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("options", [[], ["--save-vector"]])
def test_a_result_behind_a_link_goes_where_it_leads(exact, there, options):
    """Results are often sent to a larger disk in this way; the link stays."""
    Path("scratch").mkdir()
    Path("middle").symlink_to("scratch/real.h5")
    Path("result.h5").symlink_to("middle")
    if there:
        Path("scratch/real.h5").write_text("a former result")
    assert main(["run", "input.h5", "--threads", "1", *options]) == 0
    assert os.readlink("result.h5") == "middle" and os.readlink("middle") == "scratch/real.h5"
    assert records.read_summary("scratch/real.h5")["energy"][0] == pytest.approx(exact, abs=1e-10)
    assert os.listdir("scratch") == ["real.h5"]


def test_every_kind_of_file_goes_behind_links():
    Path("scratch").mkdir()
    for name in ("machine.json", "input2.h5", "problem2.h5", "run.json"):
        Path(name).symlink_to(f"scratch/{name}")
    profile.write_profile("machine.json", profile.MachineProfile(name="here"))
    assert main(["import", "fcidump", "FCIDUMP", "--alpha", "strings.txt", "-o", "input2.h5"]) == 0
    assert main(["import", "counts", "--hamiltonian", "FCIDUMP", "--counts", "counts.json", "-o", "problem2.h5"]) == 0
    with records.new_binary_file("run.json") as stream:
        stream.write(b"{}")
    assert profile.read_profile("scratch/machine.json").name == "here"
    assert records.read_input("scratch/input2.h5").hamiltonian.fingerprint() == expected_small().fingerprint()
    assert all(Path(name).is_symlink() for name in os.listdir("scratch")) and len(os.listdir("scratch")) == 4


def test_links_that_lead_nowhere_or_back(capsys):
    Path("result.h5").symlink_to("missing/real.h5")
    assert main(["run", "input.h5", "--threads", "1"]) == 2
    said = capsys.readouterr().err
    assert "cannot write result.h5: the directory " in said and "missing does not exist" in said
    Path("back.h5").symlink_to("input.h5")
    with pytest.raises(InputError, match="it would replace the input file input.h5"):
        new_files.check_output("back.h5", "input.h5")
    assert records.read_input("input.h5").options == {"threads": 1}


def test_remains_behind_links_are_removed():
    Path("scratch").mkdir()
    Path("result.h5").symlink_to("scratch/real.h5")
    remains = new_files.temporary_name(Path("result.h5"))
    assert remains.parent.name == "scratch"
    remains.write_text("of a job that was killed")
    lock = OutputLock(Path("result.h5"))
    lock.remove_remains(Path("result.h5"))
    lock.release()
    assert os.listdir("scratch") == []


# --- names


def test_names_that_are_too_long(capsys):
    """Also where only a checkpoint or a temporary file would have no name; nothing is solved for nothing."""
    for length, code in ((230, 0), (231, 2), (245, 2), (256, 2), (5000, 2)):
        name = (length - 3) * "n" + ".h5"
        assert main(["run", "input.h5", "--threads", "1", "-o", name, "--save-vector"]) == code
        said = capsys.readouterr().err
        assert code == 0 or (said.count("\n") == 1 and "its name is longer than 230 bytes" in said)
    assert main(["run", "input.h5", "--threads", "1", "-o", name[:227] + ".h5", "--time-limit", "1e-9"]) == 4
    long = 300 * "n"
    for command in (
        ["info", long], ["run", long], ["plan", long, "--ranks", "2"], ["sqd", long], ["report", long],
        ["import", "fcidump", long, "--alpha", "strings.txt", "-o", "out"],
        ["import", "fcidump", "FCIDUMP", "--alpha", long, "-o", "out"],
        ["import", "fcidump", "FCIDUMP", "--alpha", "strings.txt", "-o", f"{long}/out"],
        ["report", "result.h5", "--trace", long],
    ):  # fmt: skip
        capsys.readouterr()
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1, command


def test_directories_that_may_not_be_searched(monkeypatch, capsys):
    """The system does not even say whether a file is there."""

    def refuse(path: Any, **_: Any) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "stat", refuse)
    for command in ("info there/input.h5", "import fcidump there/FCIDUMP --alpha a -o b", "run there/input.h5"):
        assert main(command.split()) == 2
        said = capsys.readouterr().err
        assert "ermission denied" in said and said.count("\n") == 1


def test_names_that_are_no_text(exact):
    """Names are bytes; in the result they are escapes, and the result is not lost for them."""
    name = os.fsdecode(b"\xff\xfe")
    os.rename("input.h5", name)
    assert main(["run", name, "--threads", "1", "-o", f"{name}.out", "--trace", f"{name}.json", "--save-vector"]) == 0
    assert main(["run", name, "--threads", "1", "--start", f"{name}.out"]) == 0
    found = records.read_run("result.h5")
    assert found["summary"]["energy"][0] == pytest.approx(exact, abs=1e-10)
    assert found["options"]["start"] == "\\udcff\\udcfe.out" and Path(f"{name}.json").is_file()


# --- full disks


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk says that it has no room when a file should be on it."""

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(new_files, "to_disk", fail)


def write_bytes(path: str) -> None:
    with records.new_binary_file(path) as stream:
        stream.write(b"new")


WRITERS: dict[str, Callable[[str], Any]] = {
    "input": lambda path: records.write_input(path, expected_small(), *2 * [bitstrings.from_integers([1], 2)]),
    "problem": lambda path: records.write_problem(path, expected_small(), sampling.read_samples("counts.json", 2)),
    "profile": lambda path: profile.write_profile(path, profile.MachineProfile()),
    "bytes": write_bytes,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_error_with_the_name_of_the_file(full, kind):
    """For Python an OSError, for the command line an error of the run; a former file stays, nothing is left."""
    before = sorted([*os.listdir(), "file"])
    Path("file").write_text("former")
    with pytest.raises(new_files.WriteError, match="^cannot write file: No space left on device$") as caught:
        WRITERS[kind]("file")
    assert isinstance(caught.value, OSError) and isinstance(caught.value, RunError)
    assert sorted(os.listdir()) == before and Path("file").read_text() == "former"


@pytest.mark.parametrize(
    "command",
    [
        "import fcidump FCIDUMP --alpha strings.txt -o out",
        "import counts --hamiltonian FCIDUMP --counts counts.json -o out",
        "run input.h5 --threads 1 -o out",
        "run input.h5 --threads 1 -o out --save-vector",
        "sqd problem.h5 --workers 0 --threads 1 -o out",
        "extrapolate input.h5 --threads 1 -o out --thresholds 0.5,0.3",
    ],
)
def test_a_full_disk_is_one_sentence_of_every_verb(full, capsys, command):
    """Exit code 1."""
    if command.startswith("extrapolate"):
        pytest.importorskip("matplotlib")
    assert main(command.split()) == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("sqd_mpi: error: ")]
    assert len(errors) == 1 and errors[0] == lines[-1]
    assert "cannot write out" in errors[0] and errors[0].count("No space left on device") == 1
    assert not Path("out").is_file()


def test_a_report_for_a_full_disk(capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    assert main(["run", "input.h5", "--threads", "1"]) == 0

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(new_files, "to_disk", fail)
    for output, says in (("page.html", "page.html"), ("pictures", "pictures/convergence.png")):
        capsys.readouterr()
        assert main(["report", "result.h5", "-o", output]) == 1
        assert capsys.readouterr().err == f"sqd_mpi: error: cannot write {says}: No space left on device\n"


def test_a_loop_goes_on_without_its_vectors(exact, monkeypatch, capsys):
    """They only make the next iteration faster."""

    def fail(*given: Any) -> None:
        raise OSError("cannot write the vector: No space left on device")

    monkeypatch.setattr(batch.distributed, "write_file", fail)
    assert main(["sqd", "problem.h5", "--workers", "0", "--threads", "1", "--batches", "1"]) == 0
    assert records.read_summary("result.h5")["energy"][0] == pytest.approx(exact, abs=1e-10)
    said = capsys.readouterr().err
    assert "the eigenvector of batch 0 is not kept: cannot write the vector: No space left on device" in said


def test_a_loop_goes_on_without_its_checkpoint(exact, monkeypatch, capsys):
    """Its result is there all the same; where it is to stop, it says that all is lost."""

    def fail(*given: Any) -> None:
        raise new_files.WriteError("cannot write result.h5.checkpoint: No space left on device")

    monkeypatch.setattr(records, "write_loop", fail)
    command = ["sqd", "problem.h5", "--workers", "0", "--threads", "1", "--batches", "1"]
    assert main(command) == 0
    assert records.read_summary("result.h5")["energy"][0] == pytest.approx(exact, abs=1e-10)
    assert "No space left on device; there is none of this run yet" in capsys.readouterr().err
    assert main([*command, "--time-limit", "1e-9"]) == 1
    assert "the run was to stop and has no earlier checkpoint" in capsys.readouterr().err


def test_the_sentence_of_a_trace_names_it_once(full):
    from tests.support.traces import alone, small_tracer

    sentence = trace.write("run.json", small_tracer(), alone(), {})
    assert sentence == "the trace run.json could not be written: No space left on device"


@pytest.mark.parametrize(
    "words", [["run", ""], ["run", "input.h5", "-o", ""], ["info", ""], ["plan", "", "--ranks", "2"]]
)
def test_an_empty_name_is_named(capsys, words):
    """A variable of the shell that is not set."""
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"sqd_mpi: error: argument {words.index('') + 1} is empty; is a variable of the shell not set?\n"
    )
