"""Completion in shells, and suggestions for words that do not exist."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sqd_mpi.app import cli
from sqd_mpi.app.completion import SHELLS, script
from sqd_mpi.errors import InputError, did_you_mean
from sqd_mpi.options import COMMAND_LINE_OPTIONS
from tests.support.waiting import HANG

TRY = """source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
if [[ $1 == python ]]; then complete=_sqd_mpi_module; else complete=_shtab_sqd_mpi; fi
$complete "$1" "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_hold_every_verb_and_option(shell):
    """Both come from the parser."""
    text = script(cli.build_parser(), shell)
    for word in ("extrapolate", "fcidump", "completion", *(name.replace("_", "-") for name in COMMAND_LINE_OPTIONS)):
        assert word in text
    assert cli.build_parser().prog == "python -m sqd_mpi"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sqd_mpi", "r"], "run report"),
        (["sqd_mpi", "import", "f"], "fcidump"),
        (["sqd_mpi", "run", "x", "--spin-s"], "--spin-square"),
        (["sqd_mpi", "run", "x", "--symmetry", ""], "auto off"),
        (["sqd_mpi", "info", "some"], "some_file.h5"),
        (["python", "-m", "sqd_mpi", "pl"], "plan"),
        (["python", "some"], "some_file.h5"),
    ],
)
def test_bash(tmp_path, words, expected):
    """What a user sees after pressing the tabulator."""
    (tmp_path / "some_file.h5").touch()
    (tmp_path / "script").write_text(script(cli.build_parser(), "bash"))
    command = ["bash", "--norc", "-c", TRY, "bash", "./script", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_reads_its_script(tmp_path):
    """The syntax is right."""
    path: Path = tmp_path / "script"
    path.write_text(script(cli.build_parser(), "zsh"))
    done = subprocess.run(["zsh", "-n", str(path)], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_says_what_to_install(monkeypatch):
    """Without shtab."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(InputError, match="pip install shtab"):
        script(cli.build_parser(), "bash")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("--tools", " (did you mean --tol?)"), ("AUTO", " (did you mean auto?)"), ("--max", ""), ("--ma", ""),
     ("xyz", ""), ("", ""), ("--spi", " (did you mean --spin?)")],
)  # fmt: skip
def test_did_you_mean(word, expected):
    """One close name, or none."""
    assert did_you_mean(word, ["--tol", "--max-iterations", "--max-subspace", "auto", "--spin"]) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu", "input.h5"], "unknown verb 'rnu' (did you mean run?)"),
        (["frobnicate"], "unknown verb 'frobnicate'; choose from import, run,"),
        (["import", "fcidmp"], "unknown source 'fcidmp' (did you mean fcidump?)"),
        (["run", "x", "--max-iteration", "3"], "unknown option --max-iteration (did you mean --max-iterations?)"),
        (["run", "x", "--nroot=3"], "unknown option --nroot (did you mean --nroots?)"),
        (["run", "x", "--backend", "refrence"], "got 'refrence' (did you mean reference?)"),
        (["run", "x", "--grid", "aut"], "got 'aut' (did you mean auto?)"),
        (["sqd", "x", "--batch", "3"], "unknown option --batch (did you mean --batches?)"),
        (["report", "--jsn"], "unknown option --jsn (did you mean --json?)"),
        (["completion", "bsh"], "unknown shell 'bsh' (did you mean bash?)"),
        (["run", "x", "--quiet", "--verbose"], "--verbose: not allowed with argument --quiet"),
    ],
)
def test_suggestions_on_the_command_line(capsys, arguments, words):
    """Exit code 2, one sentence."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.count("\n") == 1 and words in printed.err
