"""Every code block of the documentation is run, or marked and checked; tables of options hold what the program has."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sqd_mpi.app.cli import build_parser
from sqd_mpi.options import SolveOptions
from tests.support import snippets
from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT
from tests.support.waiting import HANG

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {path.name: snippets.blocks(path.read_text(encoding="utf-8")) for path in PAGES}
# Pages whose unmarked blocks need a device.
DEVICE_PAGES = ("gpu.md", "gpu_machines.md")
RUN_PAGES = [name for name in BLOCKS if name not in DEVICE_PAGES and any(block.runs for block in BLOCKS[name])]
BEGINNING = ("README.md",)  # what everybody meets first is always tried
MARKED = [
    pytest.param(block, id=f"{name}:{block.line}")
    for name in BLOCKS
    for block in BLOCKS[name]
    if block.mark in snippets.MARKS or (name in DEVICE_PAGES and block.runs)
]
FOLDERS = ("benchmarks", "examples", "scripts", "slurm")
# Files that a page may ask for, and the commands that make them in this order, each in a folder with those before it.
NEEDED = {
    "input.h5": "python examples/n2/make_input.py --orbitals 8 --threshold 1e-3 -o input.h5",
    "result.h5": "python -m sqd_mpi run input.h5 -o result.h5 --save-vector --rdm 2 --threads 1",
    "FCIDUMP": "python scripts/make_input.py n2 --nelecas 10 --ncas 8 --point-group D2h --rounds 1 --max-strings 30"
    " --fcidump FCIDUMP --counts counts.json --shots 2000 --bit-flip 0.02 --seed 1 -o made.h5",
    "problem.h5": "python -m sqd_mpi import counts --hamiltonian FCIDUMP --counts counts.json -o problem.h5",
}
SIDE_FILES = {"alpha.txt": "FCIDUMP", "counts.json": "FCIDUMP"}


def environment(folder: Path) -> dict[str, str]:
    """Environment in which `python` and `mpirun` of a page are those of this interpreter."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name, target in (("python", sys.executable), ("mpirun", mpiexec()), ("mpiexec", mpiexec())):
        program = programs / name
        # one thread is for libraries in scripts; the program divides the cores, as pages show it
        first = 'case "$*" in *"-m sqd_mpi"*) unset OMP_NUM_THREADS;; esac'
        program.write_text(f'#!/bin/sh\n{first}\nexec {shlex.quote(target)} "$@"\n')
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = f"{programs}{os.pathsep}{kept.get('PATH', '')}"
    settings = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return kept | settings | {"MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1"}


def prepare(folder: Path) -> None:
    """Puts the folders of the repository that pages name into a folder."""
    for name in FOLDERS:
        (folder / name).symlink_to(ROOT / name)


@pytest.fixture(scope="session")
def needed(tmp_path_factory):
    """Maker of the files that pages need: needed(names, folder) copies them there."""
    kitchen = tmp_path_factory.mktemp("needed")
    prepare(kitchen)

    def make(name: str) -> Path:
        path = kitchen / name
        if not path.exists():
            if name in SIDE_FILES:
                make(SIDE_FILES[name])
            before = {"result.h5": "input.h5", "problem.h5": "FCIDUMP"}.get(name)
            if before:
                make(before)
            if name in NEEDED:
                command = ["bash", "-euc", NEEDED[name]]
                done = subprocess.run(
                    command,
                    cwd=kitchen,
                    env=environment(kitchen),
                    capture_output=True,
                    text=True,
                    timeout=HANG,
                    check=False,
                )
                assert done.returncode == 0, done.stdout + done.stderr
            if name == "FCIDUMP":
                write_strings(kitchen)
        return path

    def copy(names: list[str], folder: Path) -> None:
        for name in names:
            shutil.copy(make(name), folder)

    return copy


def write_strings(folder: Path) -> None:
    """Writes the alpha strings of made.h5 as text."""
    from sqd_mpi import read_input
    from sqd_mpi.problem import bitstrings

    problem = read_input(folder / "made.h5")
    (folder / "alpha.txt").write_text("\n".join(bitstrings.to_text(problem.strings_a, problem.hamiltonian.norb)) + "\n")


@pytest.mark.parametrize(
    "name", [name if name in BEGINNING else pytest.param(name, marks=pytest.mark.slow) for name in RUN_PAGES]
)
def test_the_blocks_of_a_page_run(name: str, needed, tmp_path: Path) -> None:
    prepare(tmp_path)
    steps: list[tuple[str, str, str]] = []
    shown: list[tuple[int, str, str]] = []  # step, where it stands, the output that the page shows
    for block in BLOCKS[name]:
        where = f"{name}:{block.line}"
        if block.mark == "needs":
            needed(block.text.split(), tmp_path)
        elif block.mark == "setup":
            steps.append(("sh", block.text, where))
        elif block.mark == "file":
            steps.append(("file", block.text, block.argument))
        elif block.mark == "output":
            shown.append((len(steps) - 1, where, block.text))
        elif block.language == "python" and block.runs:
            steps.append(("python", block.text, where))
        elif block.runs:
            for command, output in snippets.commands(block):
                steps.append(("sh", command, where))
                shown.append((len(steps) - 1, where, output))
    outputs = run_page(steps, tmp_path)
    for step, where, text in shown:
        missing = snippets.not_shown(text, outputs[step][1])
        assert not missing, f"{where} shows {missing}, but the output is\n{outputs[step][1]}"


def run_page(steps: list[tuple[str, str, str]], folder: Path) -> list[tuple[int, str]]:
    """Exit codes and outputs of the steps of a page."""
    path = folder / "steps.json"
    path.write_text(json.dumps(steps), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "snippets.py"), str(path)],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.with_suffix(".out").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_run_or_marked(name: str) -> None:
    if name not in DEVICE_PAGES:
        found = [
            f"{name}:{block.line} {snippets.complaint(block)}" for block in BLOCKS[name] if snippets.complaint(block)
        ]
        assert not found, "\n".join(found)


@pytest.mark.parametrize("block", MARKED)
def test_a_marked_block_is_sound(block: snippets.Block) -> None:
    if block.language == "python":
        ast.parse(block.text)
        return
    text = "\n".join(command for command, _ in snippets.commands(block))
    if block.mark != "synopsis":
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=HANG, check=False)
        assert done.returncode == 0, done.stderr
    for line in text.replace("\\\n", " ").splitlines():
        check_command(line, synopsis=block.mark == "synopsis")


VERBS = {"run", "sqd", "plan", "bench", "info", "report", "extrapolate", "import"}


def check_command(line: str, synopsis: bool) -> None:
    """Checks one command: options of sqd_mpi by its parser, scripts and their options, targets of make."""
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.", " ", line) if synopsis else line, comments=True)
    words = words[: next((k for k, word in enumerate(words) if word in ("|", "&&", ">", ";")), len(words))]
    module = next((k for k, word in enumerate(words) if words[k - 1 : k + 1] == ["-m", "sqd_mpi"]), None)
    if module is not None:
        check_options(words[module + 1 :], synopsis)
    elif words[:1] == ["make"]:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word] == [word for word in words[1:] if word in targets], line
    elif script := next((word for word in words if word.endswith(".py")), None):
        path = ROOT / script
        assert path.exists(), line
        own = words[words.index(script) + 1 :]
        theirs = own[own.index("--") + 1 :] if "--" in own else []
        # a script with modules of its own beside it may read its options there
        source = path.read_text() + "".join(part.read_text() for part in path.parent.glob("*/*.py"))
        for word in own[: len(own) - len(theirs)]:
            assert not word.startswith("--") or word == "--" or f'"{word}"' in source or word == "--help", (word, line)
        if theirs:
            check_options(["run", "input.h5", *theirs], synopsis)


def check_options(words: list[str], synopsis: bool) -> None:
    """Checks words behind `python -m sqd_mpi` by the real parser and the option models."""
    if synopsis:
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", all_help()))
        unknown = [word for word in words if word.startswith("-") and word.split("|")[0] not in known]
        assert not unknown, unknown
        return
    parsed, unknown = build_parser().parse_known_args(words)
    assert not unknown, (words, unknown)
    given = {name: value for name, value in vars(parsed).items() if name in SolveOptions.model_fields}
    SolveOptions(**given)


def all_help() -> str:
    """Help of all verbs."""
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    try:
        import reference
    finally:
        sys.path.pop(0)
    return build_parser().format_help() + "".join(parser.format_help() for _, parser in reference.verbs())
