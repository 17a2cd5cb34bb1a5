"""The parser of all verbs: errors are one sentence with a suggestion, and help ends with examples and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from sqd_mpi._version import __version__
from sqd_mpi.app.speaker import refuse
from sqd_mpi.errors import did_you_mean
from sqd_mpi.log import show, tell
from sqd_mpi.loop.options import LoopOptions
from sqd_mpi.options import SolveOptions, option_name

PROGRAM = "python -m sqd_mpi"
EXIT_BAD_INPUT = 2

EXIT_CODES = """Exit codes:
  0  done
  1  anything else, such as a full disk
  2  bad input or options: one sentence, nothing written
  3  not converged: the result is written and marked
  4  stopped by a signal or the time limit, with a checkpoint: go on with --resume"""


_METAVARS = {
    "grid": "auto|A,B,T,R",
    "backend": "auto|cpu|gpu|reference",
    "threads": "auto|N",
    "memory": "SIZE",
    "tol": "R",
    "max_iterations": "N",
    "max_subspace": "N",
    "nroots": "K",
    "spin_square": "S2",
    "spin_penalty": "E",
    "rdm": "none|1|2",
    "symmetry": "auto|off",
    "spin_flip": "auto|off",
    "string_order": "auto|sorted|dealt",
    "share_blocks": "auto|off",
    "start": "RESULT",
    "checkpoint_every": "N|Nmin",
    "time_limit": "SEC",
    "watchdog": "SEC",
    "trace": "FILE",
    "energy_tol": "E",
    "occupancies_tol": "X",
    "max_dim": "N|A,B",
    "workers": "auto|N",
    "timeout": "SEC",
    "carry_over_threshold": "C",
}
# Options of `run` that a plan depends on.
PLAN_OPTIONS = (
    "backend", "threads", "memory", "max_subspace", "nroots", "rdm", "symmetry", "spin_flip", "string_order"
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """A parser that reports an error as one line, from one rank."""

    collective = True
    """Whether all ranks of a job come here with the same words: MPI then says which of them reports an error."""

    def __init__(self, **settings: Any) -> None:
        """Take no abbreviated options: what is unknown today may become an option tomorrow."""
        plain = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{**plain, **settings})

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exits with code 2."""
        refuse(f"{message}; see {self.prog} --help", self.collective)
        sys.exit(EXIT_BAD_INPUT)

    def refuse_unknown(self, words: Sequence[str], given: Sequence[str] = ()) -> NoReturn:
        """Report the first of the words that no argument took.

        Args:
            words: those that are left.
            given: the whole command line.
        """
        word = next((word for word in words if word != "--"), "--")
        if word.startswith("-") and word in [*given][[*given, "--"].index("--") + 1 :]:
            self.error(f"unexpected argument {word!r}: after -- every word is the name of a file; options go before --")
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        name = word.partition("=")[0]
        known = [text for action in self._actions for text in action.option_strings]
        self.error(f"unknown option {name}{did_you_mean(name, known)}")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help and version on standard output, which may be closed, broken or full, and errors."""
        if message:
            if file is sys.stdout:
                show(message)
            else:
                tell(message.rstrip())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is not among the choices, and says what is close."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            what = action.metavar.lower() if isinstance(action.metavar, str) else "value"
            hint = did_you_mean(str(value), names) or f"; choose from {', '.join(names)}"
            raise argparse.ArgumentError(None, f"unknown {what} {str(value)!r}{hint}")


def examples(*lines: str) -> str:
    """The end of a help text: examples of a verb, and what exit codes mean."""
    shown = "\n".join(f"  {line}" for line in lines)
    return f"Examples:\n{shown}\n\n{EXIT_CODES}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = Parser(
        prog=PROGRAM,
        description="Lowest eigenpairs of a molecular Hamiltonian in a product of alpha and beta bit-strings.",
        epilog=f"""{PROGRAM} VERB --help tells the options of a verb, with examples.

First steps:
  {PROGRAM} import fcidump FCIDUMP --alpha strings.txt -o input.h5
  mpirun -n 4 {PROGRAM} run input.h5
  {PROGRAM} report result.h5

{EXIT_CODES}""",
    )
    parser.add_argument("--version", action="version", version=f"sqd_mpi {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_import(verbs)
    _add_run(verbs)
    _add_sqd(verbs)
    _add_plan(verbs)
    _add_bench(verbs)
    _add_info(verbs)
    _add_report(verbs)
    _add_extrapolate(verbs)
    return parser


def _add_verb(
    verbs: Any, name: str, description: str, *lines: str, collective: bool = False
) -> argparse.ArgumentParser:
    """The parser of a new verb.

    Args:
        verbs: where it goes.
        name: of the verb.
        description: one sentence.
        lines: its examples.
        collective: whether all ranks of a job run it together.
    """
    epilog = examples(*(line.replace("sqd_mpi", PROGRAM, 1) for line in lines)) if lines else None
    parser: Parser = verbs.add_parser(name, help=description, description=description, epilog=epilog)
    parser.collective = collective
    return parser


def _add_manners(parser: argparse.ArgumentParser, *, json_text: str | None = None, verbose: bool = False) -> None:
    """Add --quiet, and --verbose and --json where they make sense."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    if verbose:
        loudness.add_argument("--verbose", action="store_true", help="show options, phases and memory as well")
    if json_text is not None:
        parser.add_argument("--json", action="store_true", help=json_text)


def _add_import(verbs: Any) -> None:
    """Add `import fcidump` and `import counts`."""
    importer = _add_verb(verbs, "import", "Make an input file from files of other programs.",
        "sqd_mpi import fcidump --help",
        "sqd_mpi import counts --help",
    )  # fmt: skip
    sources = importer.add_subparsers(metavar="SOURCE", required=True)

    # Integrals and strings.
    parser = _add_verb(sources, "fcidump", "Make an input file from a FCIDUMP file and text files of bit-strings.",
        "sqd_mpi import fcidump h2o.fcidump --alpha strings.txt -o input.h5",
        "sqd_mpi import fcidump o2.fcidump --alpha alpha.txt --beta beta.txt -o input.h5",
    )  # fmt: skip
    parser.add_argument("fcidump", metavar="FCIDUMP", help="file of integrals")
    strings_help = "bit-strings, one a line, rightmost character = orbital 0"
    parser.add_argument("--alpha", metavar="FILE", required=True, help=f"alpha {strings_help}")
    parser.add_argument("--beta", metavar="FILE", help=f"beta {strings_help}; by default those of alpha, if MS2 is 0")
    _add_spin_orbitals(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="input file to write")
    _add_manners(parser, json_text="print what info --json says of the new file")
    parser.set_defaults(verb="import fcidump", parser=parser)

    # Integrals and samples.
    parser = _add_verb(sources, "counts", "Make a problem file from a FCIDUMP file and sampled bit-strings.",
        "sqd_mpi import counts --hamiltonian n2.fcidump --counts counts.json -o problem.h5",
    )  # fmt: skip
    parser.add_argument("--hamiltonian", metavar="FCIDUMP", required=True, help="file of integrals")
    parser.add_argument(
        "--counts", metavar="FILE", required=True, help="counts as JSON, or a .npy matrix of bits, beta on the left"
    )
    _add_spin_orbitals(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="problem file to write")
    _add_manners(parser, json_text="print what info --json says of the new file")
    parser.set_defaults(verb="import counts", parser=parser)


def _add_spin_orbitals(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how a FCIDUMP numbers spin orbitals."""
    parser.add_argument(
        "--spin-orbitals", choices=("auto", "interleaved", "blocked"), default="auto",
        help="order of spin orbitals if the indices of the FCIDUMP are theirs: alpha, beta, alpha, ... or all alpha "
        "first (auto: known by its header and its integrals)",
    )  # fmt: skip


def _add_run(verbs: Any) -> None:
    """Add `run`; its options are those of `SolveOptions`."""
    parser = _add_verb(verbs, "run", "Find the lowest eigenpairs of an input file; start it with mpirun.",
        "mpirun -n 4 sqd_mpi run input.h5",
        "mpirun -n 4 sqd_mpi run input.h5 --nroots 3 --spin-square 0 -o singlets.h5",
        "mpirun -n 8 sqd_mpi run input.h5 --checkpoint-every 10min --resume",
        collective=True,
    )  # fmt: skip
    parser.add_argument("input", metavar="INPUT", help="input file")
    parser.add_argument("-o", "--output", metavar="FILE", default="result.h5", help="result file (result.h5)")
    _add_options(parser, SolveOptions)
    _add_manners(parser, json_text="print the summary of the result at the end, as info --json does", verbose=True)
    parser.set_defaults(verb="run", parser=parser)


def _add_sqd(verbs: Any) -> None:
    """Add `sqd`; its options are those of `LoopOptions`."""
    parser = _add_verb(verbs, "sqd", "Run the whole loop on sampled bit-strings; alone or with mpirun.",
        "sqd_mpi sqd problem.h5 --samples-per-batch 500",
        "mpirun -n 8 sqd_mpi sqd problem.h5 --batches 8 --symmetrize-spin --resume",
        collective=True,
    )  # fmt: skip
    parser.add_argument("input", metavar="PROBLEM", help="problem file, made by import counts")
    parser.add_argument("-o", "--output", metavar="FILE", default="result.h5", help="result file (result.h5)")
    for spin in ("alpha", "beta"):
        parser.add_argument(
            f"--include-{spin}", metavar="FILE", help=f"text file of {spin} strings that every batch has"
        )
    parser.add_argument(
        "--occupancies", metavar="FILE", help="text file of mean occupations to begin with, alpha then beta"
    )
    _add_options(parser, LoopOptions)
    _add_manners(parser, json_text="print the summary of the result at the end, as info --json does", verbose=True)
    parser.set_defaults(verb="sqd", parser=parser)


def _add_options(parser: argparse.ArgumentParser, options: type[SolveOptions]) -> None:
    """Add the options of a class that have a place on the command line."""
    for name in options.command_line:
        field = options.model_fields[name]
        settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(field)}
        typed = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(typed, action="store_true", **settings)
        else:
            parser.add_argument(typed, metavar=_METAVARS.get(name, "N"), **settings)


def _add_plan(verbs: Any) -> None:
    """Add `plan`; its options on the solve are those of `run`."""
    parser = _add_verb(
        verbs, "plan", "Predict memory and time of all process grids, without MPI, and say which is best.",
        "sqd_mpi plan input.h5 --ranks 64 --memory 4GB",
        "sqd_mpi plan input.h5 --ranks 64 --profile machine.json --json",
    )  # fmt: skip
    parser.add_argument("input", metavar="INPUT", help="input file")
    parser.add_argument("--ranks", metavar="N", required=True, help="number of ranks")
    parser.add_argument("--profile", metavar="FILE", help="machine profile that bench wrote; by default a built-in one")
    parser.add_argument(
        "--device-memory", metavar="SIZE", help="memory of a GPU (80GB), for the backend gpu; by default the profile's"
    )
    for name in PLAN_OPTIONS:
        text = _help(SolveOptions.model_fields[name])
        settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        parser.add_argument(option_name(name), metavar=_METAVARS[name], **settings)
    _add_manners(parser, json_text="print one JSON object")
    parser.set_defaults(verb="plan", parser=parser)


def _add_bench(verbs: Any) -> None:
    """Add `bench`."""
    parser = _add_verb(verbs, "bench", "Measure what this machine can do, for plan, and check its set-up; use mpirun.",
        "mpirun -n 4 sqd_mpi bench -o machine.json",
        collective=True,
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="machine profile to write, for plan --profile")
    parser.add_argument("--threads", metavar="auto|N", default="auto", help=_help(SolveOptions.model_fields["threads"]))
    parser.add_argument("--backend", metavar="cpu|gpu", default="cpu", help="whose kernels are measured (%(default)s)")
    _add_manners(parser, json_text="print one JSON object")
    parser.set_defaults(verb="bench", parser=parser)


def _add_info(verbs: Any) -> None:
    """Add `info`."""
    parser = _add_verb(verbs, "info", "Say what an input, result or checkpoint file or this installation holds.",
        "sqd_mpi info result.h5",
        "sqd_mpi info result.h5 --json | jq .energy",
        "sqd_mpi info",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", nargs="?", help="the file; without it, this installation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(verb="info", parser=parser)


def _add_report(verbs: Any) -> None:
    """Add `report`."""
    parser = _add_verb(verbs, "report", "Make one HTML page, or pictures, of a result, a trace, or both.",
        "sqd_mpi report result.h5",
        "sqd_mpi report result.h5 --trace trace.json.gz -o report.html",
        "sqd_mpi report result.h5 -o pictures",
    )  # fmt: skip
    parser.add_argument("result", metavar="RESULT", nargs="?", help="result file")
    parser.add_argument("--trace", metavar="FILE", help="trace that run --trace wrote; alone or with the result")
    parser.add_argument(
        "-o", "--output", metavar="FILE.html|DIR", default="report.html",
        help="page to write, if the name ends in .html, else folder of PNG and SVG pictures (%(default)s)",
    )  # fmt: skip
    _add_manners(parser, json_text="print the names of the files as one JSON object")
    parser.set_defaults(verb="report", parser=parser)


def _add_extrapolate(verbs: Any) -> None:
    """Add `extrapolate`."""
    parser = _add_verb(verbs, "extrapolate", "Extrapolate the energy to zero variance; start it with mpirun.",
        "mpirun -n 4 sqd_mpi extrapolate input.h5 --thresholds 1e-3,3e-4,1e-4",
        collective=True,
    )  # fmt: skip
    parser.add_argument("input", metavar="INPUT", help="input file")
    parser.add_argument(
        "--thresholds", metavar="LIST", default="3e-3,1e-3,3e-4,1e-4",
        help="coefficients above which strings stay in a truncated space (%(default)s)",
    )  # fmt: skip
    for name, values in (("tol", "R"), ("threads", "auto|N")):
        text = _help(SolveOptions.model_fields[name])
        parser.add_argument(f"--{name}", metavar=values, default=argparse.SUPPRESS, help=text)
    parser.add_argument("--reference", metavar="E", type=float, help="energy in hartree to draw as a line")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default="extrapolation", help="folder of table and picture (%(default)s)"
    )
    _add_manners(parser, json_text="print points and fits as one JSON object", verbose=True)
    parser.set_defaults(verb="extrapolate", parser=parser)


def _help(field: Any) -> str:
    """The sentence of an option with its default."""
    default = "" if field.default is None or field.default is False else f" ({field.default})"
    return f"{field.description or ''}".rstrip(".").replace("%", "%%") + default
