"""Recipes of containers: linted where the linters are installed, and what they name exists."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sqd_mpi.app import cli
from tests.support.paths import ROOT
from tests.support.waiting import HANG

DOCKERFILE = ROOT / "containers" / "Dockerfile"
APPTAINER = ROOT / "containers" / "sqd_mpi.def"
ENTRYPOINT = ROOT / "containers" / "entrypoint.sh"
SCRIPTS = ("post", "environment", "runscript", "test")


def program(name: str) -> str:
    """A linter beside this Python or on the path; the test skips without."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def sections() -> dict[str, str]:
    """The sections of the Apptainer definition; the header is called header."""
    parts = re.split(r"^%(\w+)$", APPTAINER.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"header": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, continued lines joined, without comments."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line]


def verbs() -> set[str]:
    """The verbs of the command line."""
    for action in cli.build_parser()._actions:
        if action.choices:
            return set(action.choices)
    raise AssertionError("the parser has no verbs")


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([program("hadolint"), DOCKERFILE], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["entrypoint", *SCRIPTS])
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    text = ENTRYPOINT.read_text(encoding="utf-8") if name == "entrypoint" else "#!/bin/sh\n" + sections()[name]
    command = [program("shellcheck"), "--exclude=SC2155", "-"]  # export and assignment in one line
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stdout


def test_the_definition_has_the_sections_of_apptainer() -> None:
    found = sections()
    assert dict(re.findall(r"^(\w+): (\S+)$", found["header"], re.MULTILINE)).keys() == {"Bootstrap", "From"}
    assert set(found) == {"header", "files", "labels", "help", *SCRIPTS}
    assert all(text.strip() for text in found.values())


def test_the_image_has_manners() -> None:
    kinds = [kind for kind, _ in instructions()]
    last = {kind: value for kind, value in instructions()[len(kinds) - kinds[::-1].index("FROM") :]}
    assert last["USER"].isdigit() and int(last["USER"]) > 0
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["ENTRYPOINT"].startswith("[") and last["CMD"].startswith("[")
    assert "org.opencontainers.image.licenses" in last["LABEL"]


def test_what_the_recipes_name_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (DOCKERFILE, APPTAINER, ENTRYPOINT)]
    named = {word for text in texts for word in re.findall(r"python -m sqd_mpi ([a-z]+)", text)}
    assert named and named <= verbs()
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = re.findall(r"EXTRAS=(\S+)", texts[0]) + re.findall(r"sqd_mpi\[([a-z,]+)\]", texts[1])
    assert extras and all(set(line.split(",")) <= set(settings["options.extras_require"]) for line in extras)
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for kind, value in instructions():
        if kind == "COPY" and "--from" not in value:
            source = value.split()[-2]
            assert source in sent
            assert source.startswith("dist/") or (ROOT / source).exists()
    # the same base and the same packages in both
    base = {value.split()[0] for kind, value in instructions() if kind == "FROM"}
    assert base == set(re.findall(r"^From: (\S+)$", sections()["header"], re.MULTILINE))


def test_the_entrypoint_knows_all_verbs() -> None:
    (line,) = re.findall(r'^  "" \| -\* \| (.+)\)$', ENTRYPOINT.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(line.split(" | ")) == verbs()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ((), "python -m sqd_mpi"),
        (("--version",), "python -m sqd_mpi --version"),
        (("info", "a file.h5"), "python -m sqd_mpi info a file.h5"),
        (("mpiexec", "-n", "2", "python"), "mpiexec -n 2 python"),
    ],
)
def test_the_entrypoint_runs_verbs_and_programs(tmp_path: Path, arguments: tuple[str, ...], command: str) -> None:
    for name in ("python", "mpiexec"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$(basename "$0") $*" | sed "s/ *$//"\nexit 7\n')
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [ENTRYPOINT, *arguments], env=environment, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (command, 7)


def test_signals_reach_what_the_entrypoint_runs() -> None:
    with subprocess.Popen([ENTRYPOINT, "sleep", "60"]) as child:
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=HANG) == -signal.SIGTERM
