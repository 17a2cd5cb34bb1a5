"""The command line, as its users start it: exit codes, one sentence for bad input, nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from sqd_mpi.app import cli
from sqd_mpi.errors import InputError
from sqd_mpi.files import items, records
from tests.support.programs import check_refusal, environment, sqd_mpi

FCIDUMP = """ &FCI NORB=3,NELEC={nelec},MS2={ms2},
  ORBSYM=1,1,1,
 &END
  0.7  1 1 1 1
  0.1  2 1 2 1
  0.6  2 2 1 1
  0.5  3 3 3 3
 -1.3  1 1 0 0
 -0.9  2 2 0 0
 -0.4  3 3 0 0
  0.25 0 0 0 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a directory with good files: two FCIDUMPs and strings of one and two electrons."""
    (tmp_path / "singlet.txt").write_text(FCIDUMP.format(nelec=2, ms2=0))
    (tmp_path / "doublet.txt").write_text(FCIDUMP.format(nelec=3, ms2=1))
    (tmp_path / "one.txt").write_text("001\n010\n\n100\n")
    (tmp_path / "two.txt").write_text("011\n101\n")
    (tmp_path / "twice.txt").write_text("001\n010\n001\n001\n")
    return tmp_path


def import_command(fcidump: str = "singlet.txt", alpha: str = "one.txt", *more: str) -> list[str]:
    """Returns the arguments of `import fcidump`."""
    return ["import", "fcidump", fcidump, "--alpha", alpha, *more, "-o", "input.h5"]


def test_version_and_help(folder):
    """The verbs that exist are named, others are not."""
    assert sqd_mpi(folder, "--version").stdout.startswith("sqd_mpi 0.")
    text = sqd_mpi(folder, "--help").stdout
    assert all(verb in text for verb in ("import", "run", "info", "report", "Exit codes"))
    assert "batches" not in text
    assert "--checkpoint-every N|Nmin" in sqd_mpi(folder, "run", "--help").stdout


def test_import_closed_shell(folder):
    """Without --beta the beta strings are those of alpha."""
    run = sqd_mpi(folder, *import_command())
    assert (run.returncode, run.stderr) == (0, "")
    assert "3 orbitals, 1 alpha and 1 beta electrons, 3 x 3 strings" in run.stdout
    problem = records.read_input(folder / "input.h5")
    assert problem.strings_a.ravel().tolist() == problem.strings_b.ravel().tolist() == [1, 2, 4]
    assert problem.hamiltonian.ecore == 0.25
    assert problem.options == {}


def test_import_open_shell(folder):
    """Alpha and beta strings of their own."""
    run = sqd_mpi(folder, *import_command("doublet.txt", "two.txt", "--beta", "one.txt"))
    assert run.returncode == 0
    problem = records.read_input(folder / "input.h5")
    assert problem.strings_a.ravel().tolist() == [3, 5]
    assert problem.strings_b.ravel().tolist() == [1, 2, 4]
    assert problem.hamiltonian.nelec == (2, 1)


def test_import_merges_duplicates_with_a_warning(folder):
    """The warning counts them."""
    run = sqd_mpi(folder, *import_command(alpha="twice.txt"))
    assert run.returncode == 0
    assert run.stderr == "sqd_mpi: warning: twice.txt: 2 duplicate alpha strings merged\n"
    assert len(records.read_input(folder / "input.h5").strings_a) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (import_command("missing.txt"), ["missing.txt"]),
        (import_command(alpha="missing.txt"), ["missing.txt"]),
        (import_command("doublet.txt", "two.txt"), ["--beta", "MS2 = 1"]),
        (import_command(alpha="two.txt"), ["two.txt", "alpha string 1 has 2 electrons", "1 alpha"]),
        (import_command("doublet.txt", "two.txt", "--beta", "two.txt"), ["beta string 1 has 2 electrons"]),
        (import_command("doublet.txt", "one.txt", "--beta", "one.txt"), ["alpha string 1 has 1 electrons"]),
        (import_command("one.txt"), ["one.txt"]),
        (import_command(alpha="singlet.txt"), ["singlet.txt line 1"]),
        ([*import_command()[:-1], "missing/input.h5"], ["missing", "does not exist"]),
        ([*import_command()[:-1], "one.txt"], ["would replace the input file one.txt"]),
        (["import", "fcidump", "singlet.txt", "-o", "input.h5"], ["--alpha", "import fcidump --help"]),
        (["import", "wavefunction"], ["wavefunction"]),
    ],
)
def test_import_refuses(folder, arguments, words):
    """One sentence and no file."""
    before = sorted(path.name for path in folder.iterdir())
    check_refusal(sqd_mpi(folder, *arguments), *words)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "one.txt").read_text().startswith("001")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("001\n0101\n", ["line 2"]),
        ("001\n\n021\n", ["line 3", "'2' is not 0 or 1"]),
        ("", ["no bit-strings"]),
        ("0001\n", ["line 1"]),
    ],
)
def test_import_names_the_line_of_a_bad_string(folder, content, words):
    """Wrong length, not 0 or 1, nothing at all."""
    (folder / "bad.txt").write_text(content)
    check_refusal(sqd_mpi(folder, *import_command(alpha="bad.txt")), "bad.txt", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["VERB", "--help"]),
        (["solve"], ["solve"]),
        (["run"], ["INPUT"]),
        (["run", "input.h5", "--foo", "1"], ["unknown option --foo", "run --help"]),
        (["run", "input.h5", "--nroo", "1"], ["unknown option --nroo"]),
        (["run", "input.h5", "other.h5"], ["unexpected argument 'other.h5'"]),
        (["run", "input.h5", "--tol"], ["--tol"]),
        (["run", "input.h5", "--tol", "-1"], ["--tol needs a positive number; got '-1'"]),
        (["run", "input.h5", "--grid", "2,2"], ["--grid needs auto or four positive integers", "'2,2'"]),
        (["run", "input.h5", "--backend", "abacus"], ["--backend needs one of auto, cpu", "'abacus'"]),
        (["run", "input.h5", "--memory", "much"], ["--memory needs a size"]),
        (["run", "input.h5", "--checkpoint-every", "10h"], ["--checkpoint-every needs"]),
        (["run", "input.h5", "--max-subspace", "5", "--nroots", "2"], ["--max-subspace needs", "--nroots 2"]),
        (["report"], ["report needs a result file or --trace FILE"]),
        (["report", "missing.h5"], ["missing.h5 does not exist"]),
        (["report", "one.txt"], ["one.txt is not an HDF5 file"]),
        (["report", "--trace", "missing.json"], ["missing.json cannot be read: No such file"]),
        (["report", "--trace", "one.txt"], ["one.txt is not a trace that sqd_mpi wrote"]),
        (["info", "missing.h5"], ["missing.h5 does not exist"]),
        (["info", "one.txt"], ["one.txt is not an HDF5 file"]),
        (["info", "one.txt", "--json"], ["one.txt is not an HDF5 file"]),
    ],
)
def test_bad_command_lines(folder, arguments, words):
    """One sentence, exit code 2, nothing written."""
    before = sorted(folder.iterdir())
    check_refusal(sqd_mpi(folder, *arguments), *words)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("arguments", ["run -- -a.h5 --threads 1", "run -- -a.h5 --thread 1", "info -- -a.h5 -b"])
def test_nothing_is_an_option_behind_two_hyphens(folder, arguments):
    """The sentence does not call a known option unknown."""
    word = arguments.split()[3]
    run = sqd_mpi(folder, *arguments.split())
    check_refusal(run, f"unexpected argument '{word}': after -- every word is the name of a file; options go before --")


def test_a_file_that_begins_with_a_hyphen(folder):
    """It is read behind two hyphens."""
    sqd_mpi(folder, *import_command())
    (folder / "input.h5").rename(folder / "-input.h5")
    assert json.loads(sqd_mpi(folder, "info", "--json", "--", "-input.h5").stdout)["dimension"] == 9


def test_info_of_an_input(folder):
    """A table for people, an object for programs."""
    sqd_mpi(folder, *import_command())
    found = json.loads(sqd_mpi(folder, "info", "input.h5", "--json").stdout)
    assert found == records.read_summary(folder / "input.h5")
    assert (found["dimension"], found["nelec"]) == (9, [1, 1])
    lines = sqd_mpi(folder, "info", "input.h5").stdout.splitlines()
    assert lines[0] == "input.h5"
    assert ["dimension", "9"] in [line.split() for line in lines]


def test_info_of_the_installation(folder):
    """Versions and what the machine offers, without starting MPI."""
    found = json.loads(sqd_mpi(folder, "info", "--json").stdout)
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert found["n_cores"] >= 1
    assert found["memory_available_bytes"] > 0
    assert {"sqd_mpi", "numpy", "numba", "h5py", "mpi4py", "mpi_library"} <= set(found)
    assert "this installation" in sqd_mpi(folder, "info").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["info", "input.h5"]])
def test_fast_verbs_import_nothing_heavy(folder, arguments):
    """Neither MPI nor a compiler nor PySCF, and so well below half a second."""
    sqd_mpi(folder, *import_command())
    code = (
        "import sys; sys.argv[0] = 'sqd_mpi'\n"
        "from sqd_mpi.__main__ import run\n"
        "code = run()\n"
        "heavy = {'numba', 'mpi4py', 'pyscf', 'rich', 'scipy'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "[]\n")


def test_public_names_are_lazy():
    """`import sqd_mpi` costs nothing and still has its names."""
    code = (
        "import sys, sqd_mpi\n"
        "assert not {'numpy', 'h5py', 'numba', 'pydantic'} & set(sys.modules)\n"
        "from sqd_mpi import SolveOptions, read_input\n"
        "assert sqd_mpi.SolveOptions is SolveOptions and 'read_input' in dir(sqd_mpi)\n"
        "try:\n    sqd_mpi.nothing\nexcept AttributeError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("module 'sqd_mpi' has no attribute 'nothing'\n", "")


@pytest.mark.parametrize(
    ("raised", "code", "stderr"),
    [
        (ValueError("secret"), 1, ["Traceback", "ValueError: secret"]),
        (KeyboardInterrupt(), 1, ["Traceback", "KeyboardInterrupt"]),
        (SystemExit(5), 5, []),
        (SystemExit("sentence"), 1, ["sentence"]),
        (SystemExit(None), 0, []),
        (InputError("--this is wrong"), 2, ["sqd_mpi: error: --this is wrong"]),
    ],
)
def test_uncaught_errors(monkeypatch, capsys, raised, code, stderr):
    """There is a traceback, the job is aborted if it failed, exit codes are kept."""
    from sqd_mpi import __main__

    aborted: list[int] = []

    def fail(parsed: object) -> int:
        raise raised

    monkeypatch.setenv("PMI_RANK", "3")  # no word of MPI, which does not run here
    monkeypatch.delitem(sys.modules, "sqd_mpi.distribution.mpi", raising=False)  # other tests may have started it
    monkeypatch.setattr(sys, "argv", ["sqd_mpi", "info"])
    monkeypatch.setitem(cli._VERBS, "info", fail)
    monkeypatch.setattr(__main__, "_end_all_ranks", aborted.append)
    assert __main__.run() == code
    printed = capsys.readouterr().err
    assert all(text in printed for text in stderr) and "[rank" not in printed
    assert bool(printed) == bool(stderr)
    assert aborted == ([code] if code in (1, 5) else [])


def test_table_of_a_result():
    """Roots stand side by side, occupancies below each other, None is a dash."""
    text = cli._table(
        "result.h5",
        {
            "energy": [-1.25, -1.0],
            "spin_square": [None, 2.0],
            "all_converged": True,
            "occupancies": [[[1.0, 1 / 3], [0.5, 1e-9]]],
            "peak_rss_bytes": 123456789,
            "symmetry": {"n_labels": 4, "tolerance": None},
        },
    )
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
    assert rows["energy"] == ["-1.25", "-1.0"]
    assert rows["spin_square"] == ["-", "2.0"]
    assert rows["all_converged"] == ["yes"]
    assert rows["occupancies[0][0]"] == ["1.0000", "0.3333"]
    assert rows["occupancies[0][1]"] == ["0.5000", "0.0000"]
    assert rows["peak_rss_bytes"] == ["123456789", "(0.123", "GB)"]
    assert rows["symmetry.tolerance"] == ["-"]


def test_info_reproduces_floats(folder):
    """The last bit survives the way through file and JSON."""
    summary = {"energy": [-76.2359466308 / 3, 0.1 + 0.2], "n_sigma": 5, "all_converged": True}
    with records.AtomicFile(folder / "result.h5", records.RESULT) as file:
        group = file.create_group("summary")
        items.write_tree(group, summary)
    with h5py.File(folder / "result.h5") as file:
        assert file["summary/energy"].dtype == "f8"
    found = json.loads(sqd_mpi(folder, "info", "result.h5", "--json").stdout)
    assert {name: found[name] for name in summary} == summary
    assert found["backend"] is None


VERBS = ("import fcidump", "import counts", "run", "sqd", "plan", "bench", "info", "report", "extrapolate")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples_and_exit_codes(capsys, verb):
    """Of every verb."""
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb.split(), "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    example = printed.split("Examples:\n")[1].split("\n\n")[0]
    assert f"sqd_mpi {verb}" in example
    assert all(f"\n  {code}  " in printed.split("Exit codes:")[1] for code in range(5))


def test_examples_are_right(capsys):
    """The parser takes every example of its own help; each begins with python or mpirun."""
    parser = cli.build_parser()
    for verb in VERBS:
        with pytest.raises(SystemExit):
            parser.parse_args([*verb.split(), "--help"])
        shown = capsys.readouterr().out.split("Examples:\n")[1].split("\n\n")[0].splitlines()
        for line in shown:
            words = line.partition("sqd_mpi ")[2].partition(" |")[0].split()
            assert parser.parse_args(words).verb is not None


def test_import_as_json_or_quietly(folder):
    """One object, or nothing, on standard output."""
    run = sqd_mpi(folder, *import_command(), "--json")
    assert json.loads(run.stdout) == records.read_summary(folder / "input.h5")
    run = sqd_mpi(folder, *import_command(alpha="twice.txt"), "--quiet")
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr.startswith("sqd_mpi: warning: ")


def test_run_as_json_quietly_and_verbosely(folder):
    """Standard output holds the summary and nothing else; --quiet shows nothing, --verbose options and phases."""
    sqd_mpi(folder, *import_command())
    run = sqd_mpi(folder, "run", "input.h5", "--threads", "1", "--json", "--quiet")
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout) == records.read_summary(folder / "result.h5")
    run = sqd_mpi(folder, "run", "input.h5", "--threads", "1", "--verbose")
    assert (run.returncode, run.stdout) == (0, "")
    for text in ("options: grid", "tol 1e-06", "largest memory of a rank", "mean of the ranks", "left"):
        assert text in run.stderr
    plain = sqd_mpi(folder, "run", "input.h5", "--threads", "1", "--json", "--max-iterations", "1", "--tol", "1e-30")
    assert plain.returncode == 3 and json.loads(plain.stdout)["all_converged"] is False
    assert "options:" not in plain.stderr and "NOT CONVERGED" in plain.stderr
    with h5py.File(folder / "result.h5") as file:
        about = dict(file["run"].attrs)
    assert (about["input"], about["n_nodes"]) == ("input.h5", 1)
    assert about["command"].startswith("run input.h5 --threads 1") and about["started"].endswith("+00:00")
