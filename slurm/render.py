"""Writes job scripts for Slurm from one file of settings and the templates beside this file.

    python slurm/render.py generic --input input.h5 --nodes 4 -o job.sh
    python slurm/render.py frontier --input input.h5 --nodes 1,2,4,8 -o study --set account=abc123 -- --tol 1e-5
    python slurm/render.py --list

What stands after -- are options of `python -m sqd_mpi run`. Needs nothing but Python 3.10. Exit code 2 and one
sentence for settings that do not fit.

Templates are shell scripts with a few lines for this program: `{{name}}` is a value, `%if name`, `%if name=value`,
`%else` and `%end` keep lines under a condition, `%include part` inserts parts/part.sh, and `%needs name` refuses an
empty value.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import io
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE / "templates"
SETTINGS = HERE / "settings.ini"

# Options of `run` that the script gives itself.
_SET_BY_SCRIPT = {
    "-o": "--result",
    "--output": "--result",
    "--threads": "--set threads=N",
    "--gpu-aware-mpi": "--set gpu_aware_mpi=yes",
    "--resume": "none, as the script adds it",
}

_COUNT = (r"[1-9]\d{0,8}", "a positive integer")
_WORD = (r"[A-Za-z0-9_.,:&|@+*=\[\]()/-]*", "a word without blanks")
_WORDS = (r"[A-Za-z0-9_.,:+=/ -]*", "words of letters, digits and _.,:+=/-")
# Put between double quotes in a shell script: variables are expanded there, commands are not wanted.
_SHELL_PATH = (r'[^"`\n]*', 'a path without " and `')
_RULES: dict[str, tuple[str, str]] = {
    "account": _WORD,
    "partition": _WORD,
    "qos": _WORD,
    "constraint": _WORD,
    "time": (r"(\d+-)?\d{1,3}:\d\d:\d\d", "a wall time as HH:MM:SS or D-HH:MM:SS"),
    "ranks_per_node": _COUNT,
    "cpus_per_rank": _COUNT,
    "threads": _COUNT,
    "node_memory": (r"\d+[KMGT]?", "0 or a size such as 64G"),
    "backend": (r"[a-z]*", "a backend that `python -m sqd_mpi run --help` lists, or nothing"),
    "devices_per_node": (r"\d{0,3}", "a number of GPUs, or nothing"),
    "gpu_aware_mpi": ("yes|no", "yes or no"),
    "modules": _WORDS,
    "setup": (r"[\s\S]*", "shell commands"),
    "python": (r'[^"`\n]+', 'the path of a Python without " and `'),
    "mpi": (r"[a-z0-9_]*", "a name that srun --mpi=list shows, or nothing"),
    "local_directory": (r'[^"`\n]+', 'a path without " and `'),
    "kernel_cache": _SHELL_PATH,
    "packed_environment": _SHELL_PATH,
    "on_time_limit": ("requeue|chain|stop", "requeue, chain or stop"),
    "signal_lead": _COUNT,
    "max_restarts": _COUNT,
    "checkpoint_every": (r"(\d+(\.\d*)?( ?min)?)?", "a number of iterations (5) or of minutes (30min), or nothing"),
}


class SettingsError(ValueError):
    """A setting or option that does not fit: one sentence for the user, and exit code 2."""


@dataclass(frozen=True)
class Job:
    """What differs between the jobs of one machine."""

    input: Path
    """Input file."""
    script: Path | None
    """Where the script will lie; None if that is not known (then it cannot submit itself)."""
    result: Path
    """Result file."""
    name: str
    """Name in the queue and of the log."""
    nodes: int
    """Number of nodes."""
    options: tuple[str, ...] = ()
    """Further options of `python -m sqd_mpi run`."""


def machines(path: Path = SETTINGS) -> list[str]:
    """Names of the machines that have settings."""
    return _read(path).sections()


def load_settings(machine: str, path: Path = SETTINGS, changes: Sequence[str] = ()) -> dict[str, str]:
    """Settings of one machine.

    Args:
        machine: section of the file.
        path: file of settings.
        changes: KEY=VALUE texts that override the file.

    Raises:
        SettingsError: a file that cannot be read, an unknown machine or key, or a value that does not fit.
    """
    parser = _read(path)
    if machine not in parser:
        raise SettingsError(f"unknown machine {machine!r}; {path} has {', '.join(parser.sections()) or 'none'}")
    settings = {key: value.strip() for key, value in parser[machine].items()}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise SettingsError(f"--set needs KEY=VALUE; got {change!r}")
        settings[key.strip()] = value.strip()
    check_settings(settings)
    return settings


def check_settings(settings: Mapping[str, str]) -> None:
    """Check every value.

    Raises:
        SettingsError: for the first that is missing, unknown or does not fit.
    """
    for key in settings:
        if key not in _RULES:
            raise SettingsError(f"unknown setting {key!r}; the settings are {', '.join(_RULES)}")
    for key, (pattern, needs) in _RULES.items():
        if key not in settings:
            raise SettingsError(f"the setting {key!r} is missing")
        if not re.fullmatch(pattern, settings[key]) or "$(" in settings[key] and key != "setup":
            raise SettingsError(f"{key} needs {needs}; got {settings[key]!r}")
    if int(settings["signal_lead"]) >= seconds(settings["time"]):
        raise SettingsError(
            f"signal_lead needs fewer seconds than the wall time {settings['time']}; got {settings['signal_lead']}"
        )


def seconds(time: str) -> int:
    """Seconds of a wall time D-HH:MM:SS."""
    days, _, clock = time.rpartition("-")
    hours, minutes, rest = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def run_options(settings: Mapping[str, str], job: Job) -> list[str]:
    """Options of `python -m sqd_mpi run` that the script gives, without input, result and --resume.

    Raises:
        SettingsError: for one that the script sets itself, or a grid that does not fit the ranks.
    """
    for option in job.options:
        name = option.partition("=")[0]
        if name in _SET_BY_SCRIPT:
            raise SettingsError(f"{name} is set by the script; use {_SET_BY_SCRIPT[name]}")
    given = {option.partition("=")[0] for option in job.options}
    every, backend = settings["checkpoint_every"], settings["backend"]
    aware = settings["gpu_aware_mpi"] == "yes"
    if aware and backend != "gpu":
        raise SettingsError(f"gpu_aware_mpi = yes needs backend = gpu; got {backend!r}")
    _check_grid(settings, job)
    return [
        "--threads",
        settings["threads"],
        *(["--backend", backend] if backend and "--backend" not in given else []),
        *(["--gpu-aware-mpi"] if aware else []),
        *(["--checkpoint-every", every] if every and "--checkpoint-every" not in given else []),
        *job.options,
    ]


def check_run_options(options: Sequence[str], input_path: Path) -> bool:
    """Whether the options could be checked with the program's own parser, which needs its libraries.

    Raises:
        SettingsError: the program would refuse them.
    """
    sys.path.insert(0, str(HERE.parent))
    try:
        from sqd_mpi.app.cli import build_parser
        from sqd_mpi.errors import InputError
        from sqd_mpi.options import COMMAND_LINE_OPTIONS, SolveOptions
    except ImportError:
        return False
    finally:
        sys.path.pop(0)
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            parsed, unknown = build_parser().parse_known_args(["run", str(input_path), *options])
    except SystemExit:
        raise SettingsError(message.getvalue().strip().removeprefix("sqd_mpi: error: ")) from None
    if unknown:
        raise SettingsError(f"`python -m sqd_mpi run` does not know {unknown[0]!r}")
    try:
        SolveOptions(**{name: getattr(parsed, name) for name in COMMAND_LINE_OPTIONS if hasattr(parsed, name)})
    except InputError as error:
        raise SettingsError(error.typed) from None
    return True


def render(machine: str, settings: Mapping[str, str], job: Job) -> str:
    """The job script of one machine.

    Args:
        machine: name of a template.
        settings: checked settings of that machine.
        job: what this job computes.

    Raises:
        SettingsError: a value that this template needs is empty, or the job does not fit.
    """
    if not (TEMPLATES / f"{machine}.sh").is_file():
        known = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.sh")))
        raise SettingsError(f"there is no template for {machine!r} in {TEMPLATES}, only for {known}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", job.name):
        raise SettingsError(f"--name needs letters, digits and _.- only; got {job.name!r}")
    if settings["on_time_limit"] == "chain" and job.script is None:
        raise SettingsError("on_time_limit = chain needs -o, as the script submits itself")
    directory = job.result.absolute().parent
    if any(sign in str(directory) for sign in '"\n'):
        raise SettingsError(f'the folder of the result needs a path without "; got {str(directory)!r}')
    values = {
        **settings,
        "name": job.name,
        "nodes": str(job.nodes),
        "directory_quoted": f'"{directory}"' if " " in str(directory) else str(directory),
        "input_quoted": shlex.quote(str(job.input.absolute())),
        "result_quoted": shlex.quote(str(job.result.absolute())),
        "script_quoted": shlex.quote(str(job.script.absolute())) if job.script else "",
        "options": shlex.join(run_options(settings, job)),
    }
    return "\n".join(_lines(machine, (TEMPLATES / f"{machine}.sh").read_text(), values)) + "\n"


def _lines(machine: str, template: str, values: Mapping[str, str]) -> Iterator[str]:
    """Lines of a template with conditions, parts and values put in."""
    kept = [True]
    for line in template.splitlines():
        word, _, rest = line.partition(" ")
        if word == "%if":
            name, equals, value = rest.partition("=")
            kept.append(values[name] == value if equals else bool(values[name]))
        elif word == "%else":
            kept[-1] = not kept[-1]
        elif word == "%end":
            kept.pop()
        elif not all(kept):
            continue
        elif word == "%include":
            yield from _lines(machine, (TEMPLATES / "parts" / f"{rest}.sh").read_text(), values)
        elif word == "%needs":
            if not values[rest]:
                raise SettingsError(f"{machine} needs {rest}; set it in the settings or with --set {rest}=...")
        else:
            yield re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], line)


def _check_grid(settings: Mapping[str, str], job: Job) -> None:
    """Refuse a grid whose product is not the number of ranks."""
    grids = [
        option.partition("=")[2] or after
        for option, after in zip(job.options, [*job.options, ""][1:], strict=True)
        if option.partition("=")[0] == "--grid"
    ]
    n_ranks = job.nodes * int(settings["ranks_per_node"])
    for grid in grids:
        if re.fullmatch(r"\d+(,\d+){3}", grid) and math.prod(int(n) for n in grid.split(",")) != n_ranks:
            raise SettingsError(
                f"--grid {grid} needs {math.prod(int(n) for n in grid.split(','))} ranks; {job.nodes} nodes of "
                f"{settings['ranks_per_node']} ranks have {n_ranks}"
            )


def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=(";",), inline_comment_prefixes=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings {path}: {getattr(error, 'strerror', None) or error}") from None
    except configparser.Error as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from None
    return parser


def submit(script: Path) -> str:
    """Number of the job that sbatch makes of a script.

    Raises:
        SettingsError: there is no sbatch, or it refuses the script.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SettingsError("there is no sbatch on this machine; submit the scripts where Slurm is") from None
    if done.returncode:
        raise SettingsError(f"sbatch refuses {script}: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]


def parse_nodes(text: str) -> list[int]:
    """Numbers of nodes of a text such as 1,2,4.

    Raises:
        SettingsError: it is none.
    """
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise SettingsError(f"--nodes needs positive integers such as 4 or 1,2,4; got {text!r}")
    return [int(part) for part in text.split(",")]


def write_scripts(machine: str, settings: Mapping[str, str], jobs: Sequence[Job]) -> list[Path]:
    """Write the scripts of jobs whose place is known; returns these places."""
    texts = {job.script: render(machine, settings, job) for job in jobs}
    for script, text in texts.items():
        assert script is not None
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)
    return [script for script in texts if script is not None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="render.py", description=__doc__, formatter_class=layout, allow_abbrev=False)
    parser.add_argument("machine", nargs="?", help="section of the settings and template")
    parser.add_argument("--list", action="store_true", help="list the machines")
    parser.add_argument("--input", metavar="FILE", help="input file of sqd_mpi")
    parser.add_argument(
        "--nodes", default="1", metavar="N[,N...]", help="number of nodes; several make one job each (1)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="script, or folder of scripts for several numbers of nodes; by default the script is printed",
    )
    parser.add_argument(
        "--result", metavar="FILE", help="result file, for one number of nodes (result.h5 beside the script)"
    )
    parser.add_argument("--name", default="sqd_mpi", help="name in the queue and of the log (sqd_mpi)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a setting")
    parser.add_argument("--settings", default=str(SETTINGS), metavar="FILE", help="file of settings")
    parser.add_argument("--submit", action="store_true", help="give the scripts to sbatch")
    return parser


def jobs_of(
    input_path: Path, nodes: Sequence[int], output: Path | None, result: Path | None, name: str, options: Sequence[str]
) -> list[Job]:
    """One job for each number of nodes; several lie in one folder."""
    if len(nodes) == 1:
        folder = output.parent if output else Path()
        return [Job(input_path, output, result or folder / "result.h5", name, nodes[0], tuple(options))]
    if output is None or result is not None or len(set(nodes)) < len(nodes):
        raise SettingsError("several numbers of nodes need -o FOLDER, no --result, and each number once")
    return [
        Job(
            input_path,
            output / f"{name}-{n}nodes.sh",
            output / f"{name}-{n}nodes.h5",
            f"{name}-{n}nodes",
            n,
            tuple(options),
        )
        for n in nodes
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of one command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    split = words.index("--") if "--" in words else len(words)
    try:
        return _main(_parser().parse_args(words[:split]), words[split + 1 :])
    except SettingsError as error:
        print(f"render.py: error: {error}", file=sys.stderr)
        return 2


def _main(parsed: argparse.Namespace, options: Sequence[str]) -> int:
    if parsed.list:
        print("\n".join(machines(Path(parsed.settings))))
        return 0
    if parsed.machine is None or parsed.input is None:
        raise SettingsError("a machine and --input FILE are needed; --list names the machines")
    if parsed.submit and not parsed.output:
        raise SettingsError("--submit needs -o PATH for the script")
    settings = load_settings(parsed.machine, Path(parsed.settings), parsed.set)
    output = Path(parsed.output) if parsed.output else None
    result = Path(parsed.result) if parsed.result else None
    jobs = jobs_of(Path(parsed.input), parse_nodes(parsed.nodes), output, result, parsed.name, options)
    if not check_run_options(run_options(settings, jobs[0]), jobs[0].input):
        print(
            "render.py: the options of run are not checked, as sqd_mpi is not installed in this Python", file=sys.stderr
        )
    if not Path(parsed.input).is_file():
        print(f"render.py: warning: there is no file {parsed.input} yet", file=sys.stderr)
    if output is None:
        print(render(parsed.machine, settings, jobs[0]), end="")
        return 0
    for script in write_scripts(parsed.machine, settings, jobs):
        print(f"{script}: job {submit(script)}" if parsed.submit else script)
    return 0


if __name__ == "__main__":
    sys.exit(main())
