"""The command line: verbs and options. Parsing only; what a verb needs is imported when it runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqd_mpi._version import __version__
from sqd_mpi.app.parser import EXIT_BAD_INPUT, EXIT_CODES, PROGRAM, Parser, examples
from sqd_mpi.app.speaker import all_arrive, refuse
from sqd_mpi.errors import InputError, RunError, as_typed
from sqd_mpi.log import OutputError, show, tell
from sqd_mpi.options import COMMAND_LINE_OPTIONS, SolveOptions, option_name

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import Ranks

EXIT_FAILED = 1
EXIT_NOT_CONVERGED = 3

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
_PLAN_OPTIONS = (
    "backend", "threads", "memory", "max_subspace", "nroots", "rdm", "symmetry", "spin_flip", "string_order"
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Collective over all ranks of the job: they take the same arguments and return the same exit code.

    Args:
        arguments: what stands after `python -m sqd_mpi`; by default that of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad input or options, 3 not converged, 4 stopped with a checkpoint.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = argparse.Namespace(parser=None)
    with as_typed():
        try:
            parsed, unknown = build_parser().parse_known_args(words, parsed)
            parsed.words = words
            if "" in words:
                raise InputError(f"argument {words.index('') + 1} is empty; is a variable of the shell not set?")
            if unknown:
                parsed.parser.refuse_unknown(unknown, words)
            verb: Callable[[argparse.Namespace], int] = parsed.verb
            return verb(parsed)
        except (InputError, RunError, OutputError) as error:
            refuse(str(error), collective=parsed.parser is not None and parsed.parser.collective)
            return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs."""
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
    _add_completion(verbs)
    return parser


def _add_verb(
    verbs: Any, name: str, description: str, *lines: str, collective: bool = False
) -> argparse.ArgumentParser:
    """Returns the parser of a new verb.

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
    """Adds --quiet, and --verbose and --json where they make sense."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    if verbose:
        loudness.add_argument("--verbose", action="store_true", help="show options, phases and memory as well")
    if json_text is not None:
        parser.add_argument("--json", action="store_true", help=json_text)


def _add_import(verbs: Any) -> None:
    """Adds `import fcidump` and `import counts`."""
    importer = _add_verb(verbs, "import", "Make an input file from files of other programs.",
        "sqd_mpi import fcidump --help",
        "sqd_mpi import counts --help",
    )  # fmt: skip
    sources = importer.add_subparsers(metavar="SOURCE", required=True)
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
    parser.set_defaults(verb=_import_fcidump, parser=parser)
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
    parser.set_defaults(verb=_import_counts, parser=parser)


def _add_spin_orbitals(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says how a FCIDUMP numbers spin orbitals."""
    parser.add_argument(
        "--spin-orbitals", choices=("auto", "interleaved", "blocked"), default="auto",
        help="order of spin orbitals if the indices of the FCIDUMP are theirs: alpha, beta, alpha, ... or all alpha "
        "first (auto: known by its header and its integrals)",
    )  # fmt: skip


def _add_run(verbs: Any) -> None:
    """Adds `run`; its options are those of `SolveOptions`."""
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
    parser.set_defaults(verb=_run, parser=parser)


def _add_sqd(verbs: Any) -> None:
    """Adds `sqd`; its options are those of `LoopOptions`."""
    from sqd_mpi.loop.options import LoopOptions

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
    parser.set_defaults(verb=_sqd, parser=parser)


def _add_options(parser: argparse.ArgumentParser, options: type[SolveOptions]) -> None:
    """Adds the options of a class that have a place on the command line."""
    for name in options.command_line:
        field = options.model_fields[name]
        settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(field)}
        typed = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(typed, action="store_true", **settings)
        else:
            parser.add_argument(typed, metavar=_METAVARS.get(name, "N"), **settings)


def _add_plan(verbs: Any) -> None:
    """Adds `plan`; its options on the solve are those of `run`."""
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
    for name in _PLAN_OPTIONS:
        text = _help(SolveOptions.model_fields[name])
        settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        parser.add_argument(option_name(name), metavar=_METAVARS[name], **settings)
    _add_manners(parser, json_text="print one JSON object")
    parser.set_defaults(verb=_plan, parser=parser)


def _add_bench(verbs: Any) -> None:
    """Adds `bench`."""
    parser = _add_verb(verbs, "bench", "Measure what this machine can do, for plan, and check its set-up; use mpirun.",
        "mpirun -n 4 sqd_mpi bench -o machine.json",
        collective=True,
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="machine profile to write, for plan --profile")
    parser.add_argument("--threads", metavar="auto|N", default="auto", help=_help(SolveOptions.model_fields["threads"]))
    parser.add_argument("--backend", metavar="cpu|gpu", default="cpu", help="whose kernels are measured (%(default)s)")
    _add_manners(parser, json_text="print one JSON object")
    parser.set_defaults(verb=_bench, parser=parser)


def _add_info(verbs: Any) -> None:
    """Adds `info`."""
    parser = _add_verb(verbs, "info", "Say what an input, result or checkpoint file or this installation holds.",
        "sqd_mpi info result.h5",
        "sqd_mpi info result.h5 --json | jq .energy",
        "sqd_mpi info",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", nargs="?", help="the file; without it, this installation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(verb=_info, parser=parser)


def _add_report(verbs: Any) -> None:
    """Adds `report`."""
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
    parser.set_defaults(verb=_report, parser=parser)


def _add_extrapolate(verbs: Any) -> None:
    """Adds `extrapolate`."""
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
    parser.set_defaults(verb=_extrapolate, parser=parser)


def _add_completion(verbs: Any) -> None:
    """Adds `completion`."""
    parser = _add_verb(
        verbs, "completion", "Print a script that lets a shell complete verbs, options and names of files.",
        'eval "$(sqd_mpi completion bash)"   # in ~/.bashrc, or in a shell',
        'source <(sqd_mpi completion zsh)    # in ~/.zshrc, after compinit',
    )  # fmt: skip
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help="bash or zsh")
    parser.set_defaults(verb=_completion, parser=parser)


def _help(field: Any) -> str:
    """Returns the sentence of an option with its default."""
    default = "" if field.default is None or field.default is False else f" ({field.default})"
    return f"{field.description or ''}".rstrip(".").replace("%", "%%") + default


def _import_fcidump(parsed: argparse.Namespace) -> int:
    """Writes an input file."""
    from sqd_mpi.solver.startup import check_processor

    check_processor()  # before numba is imported
    from sqd_mpi.app import importing

    return importing.from_fcidump(parsed)


def _import_counts(parsed: argparse.Namespace) -> int:
    """Writes a problem file."""
    from sqd_mpi.solver.startup import check_processor

    check_processor()
    from sqd_mpi.app import importing

    return importing.from_counts(parsed)


def _print_summary(path: str) -> None:
    """Prints the summary of a file as one JSON object."""
    from sqd_mpi.files.records import read_summary

    show(json.dumps(read_summary(path), allow_nan=False) + "\n")


def _log(parsed: argparse.Namespace, ranks: Ranks) -> Any:
    """Returns the log of this rank, as loud as was asked for."""
    from sqd_mpi.log import NORMAL, QUIET, VERBOSE, Log

    level = QUIET if parsed.quiet else VERBOSE if parsed.verbose else NORMAL
    return Log(ranks.rank, level=level)


def _after(parsed: argparse.Namespace, ranks: Ranks, code: int) -> int:
    """Prints the summary of a result that was written, if it is wanted; returns the exit code."""
    if parsed.json and code in (0, EXIT_NOT_CONVERGED) and ranks.rank == 0:
        _print_summary(parsed.output)
    return code


def _run(parsed: argparse.Namespace) -> int:
    """Solves an input file on all ranks."""
    given = {name: getattr(parsed, name) for name in COMMAND_LINE_OPTIONS if hasattr(parsed, name)}
    SolveOptions(**given)  # bad options are reported before MPI starts

    from sqd_mpi.app.interrupts import StopSignals

    with StopSignals() as signals:  # before anything that takes time
        from sqd_mpi.app import run

        def work(ranks: Ranks) -> int:
            log = _log(parsed, ranks)
            return _after(parsed, ranks, run.run_file(ranks, parsed.input, parsed.output, given, signals, log))

        return _on_all_ranks(parsed, work)


def _sqd(parsed: argparse.Namespace) -> int:
    """Runs the loop on all ranks, or on workers of this machine."""
    from sqd_mpi.app.interrupts import StopSignals
    from sqd_mpi.loop.options import LoopOptions

    given = {name: getattr(parsed, name) for name in LoopOptions.command_line if hasattr(parsed, name)}
    LoopOptions(**given)  # bad options are reported before MPI starts
    extra = {name: getattr(parsed, name) for name in ("include_alpha", "include_beta", "occupancies")}

    with StopSignals() as signals:
        from sqd_mpi.app import loop_run

        def work(ranks: Ranks) -> int:
            log = _log(parsed, ranks)
            code = loop_run.run_loop_file(ranks, parsed.input, parsed.output, given, extra, signals, log)
            return _after(parsed, ranks, code)

        return _on_all_ranks(parsed, work)


def _extrapolate(parsed: argparse.Namespace) -> int:
    """Solves an input file and truncated ones on all ranks; rank 0 draws."""
    given = {name: getattr(parsed, name) for name in ("tol", "threads") if hasattr(parsed, name)}
    SolveOptions(**given)

    from sqd_mpi.app import figures
    from sqd_mpi.loop import extrapolation

    extrapolation.parse_thresholds(parsed.thresholds)
    figures.need_matplotlib()

    def work(ranks: Ranks) -> int:
        log = _log(parsed, ranks)
        data = extrapolation.run_file(ranks, parsed.input, parsed.output, parsed.thresholds, given, log)
        if ranks.rank == 0:
            paths = figures.write_extrapolation(parsed.output, data, parsed.reference)
            _say(parsed, [str(path) for path in paths], data)
        return 0 if all(point["converged"] for point in data["points"]) else 3

    return _on_all_ranks(parsed, work)


def _on_all_ranks(parsed: argparse.Namespace, work: Callable[[Ranks], int]) -> int:
    """Returns what work(ranks) returns; ends all ranks if one alone finds its input bad or fails."""
    from sqd_mpi.distribution import mpi
    from sqd_mpi.distribution.ranks import ranks_of

    ranks = ranks_of(mpi.world())
    try:
        _check_words(ranks.gather_objects(parsed.words))
        return work(ranks)
    except (InputError, RunError) as error:
        if not all_arrive(ranks):
            tell(str(error), "sqd_mpi: error:", "red")
            mpi.abort(EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED)
        raise


def _check_words(words: Sequence[Sequence[str]]) -> None:
    """Checks the command lines of all ranks of a job.

    Raises:
        InputError: they differ: what rank 0 says would be done, and what others say would be passed over.
    """
    for rank, other in enumerate(words):
        if list(other) != list(words[0]):
            raise InputError(
                f"all ranks of a job need the same command line; rank 0 has {shlex.join(words[0])!r}, rank {rank} "
                f"{shlex.join(other)!r}. Start each problem with an mpirun or srun of its own"
            )


def _plan(parsed: argparse.Namespace) -> int:
    """Prints the plan of a number of ranks; exit code 2 if no grid fits."""
    given = {name: getattr(parsed, name) for name in _PLAN_OPTIONS if hasattr(parsed, name)}
    SolveOptions(**given)

    from sqd_mpi.app import plan

    found, title = plan.plan_file(parsed.input, parsed.ranks, parsed.profile, given, parsed.device_memory)
    if parsed.json or not parsed.quiet:
        show((json.dumps(found.to_dict(), allow_nan=False) if parsed.json else plan.plan_text(found, title)) + "\n")
    elif found.chosen is None:
        tell(plan.nothing_fits(found), "sqd_mpi:")
    return 0 if found.chosen is not None else EXIT_BAD_INPUT


def _bench(parsed: argparse.Namespace) -> int:
    """Measures the machine on all ranks."""
    threads = SolveOptions(threads=parsed.threads).threads
    if parsed.backend not in ("cpu", "gpu"):
        raise InputError(f"--backend needs cpu or gpu; got {parsed.backend!r}")

    def work(ranks: Ranks) -> int:
        from sqd_mpi.app import bench

        first = ranks.rank == 0

        def say(text: str) -> None:
            if first:
                tell(text, "sqd_mpi:")

        report = bench.run(ranks, threads, parsed.output, parsed.backend, say)
        if first and (parsed.json or not parsed.quiet):
            show((json.dumps(report, allow_nan=False) if parsed.json else _table("this machine", report)) + "\n")
        elif first:
            for text in report["warnings"]:
                tell(text, "sqd_mpi: warning:", "yellow")
        return 0

    return _on_all_ranks(parsed, work)


def _info(parsed: argparse.Namespace) -> int:
    """Prints what a file or the installation holds."""
    if parsed.file is None:
        from sqd_mpi.app.installation import describe

        title, summary = "this installation", describe()
    else:
        from sqd_mpi.files.records import read_summary

        title, summary = parsed.file, read_summary(parsed.file)
    show((json.dumps(summary, allow_nan=False) if parsed.json else _table(title, summary)) + "\n")
    return 0


def _report(parsed: argparse.Namespace) -> int:
    """Writes the page or the pictures of a run."""
    if parsed.result is None and parsed.trace is None:
        raise InputError("report needs a result file or --trace FILE")
    if parsed.output.lower().endswith((".html", ".htm")):
        from sqd_mpi.app.report import write_report

        paths = [write_report(parsed.output, parsed.result, parsed.trace)]
    else:
        from sqd_mpi.app import figures

        paths = figures.write_pictures(parsed.output, parsed.result, parsed.trace)
    names = [str(path) for path in paths]
    _say(parsed, names, {"files": names})
    return 0


def _say(parsed: argparse.Namespace, lines: Sequence[str], data: dict[str, Any]) -> None:
    """Prints lines for people, or one JSON object, or nothing."""
    if parsed.json:
        show(json.dumps(data, allow_nan=False) + "\n")
    elif not parsed.quiet:
        show("\n".join(lines) + "\n")


def _completion(parsed: argparse.Namespace) -> int:
    """Prints the script of a shell."""
    from sqd_mpi.app import completion

    show(completion.script(build_parser(), parsed.shell))
    return 0


def _table(title: str, summary: dict[str, Any]) -> str:
    """Returns the fields below each other, for people."""
    rows = [row for name, value in summary.items() for row in _rows(name, value)]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)])


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    """Returns the rows of one field: several for dictionaries and for the occupancies of roots and spins."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _rows(f"{name}.{key}", item)] or [(name, "none")]
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        rows = [row for number, item in enumerate(value) for row in _rows(f"{name}[{number}]", item)]
        return [(label, text if "." not in text else _rounded(text)) for label, text in rows]
    if isinstance(value, list):
        return [(name, "  ".join(_text(item) for item in value) or "none")]
    if name.endswith("_bytes") and value is not None:
        return [(name, f"{value} ({value / 1e9:.3g} GB)")]
    return [(name, _text(value))]


def _rounded(text: str) -> str:
    """Returns numbers with four decimals, for long rows."""
    return "  ".join(f"{float(number):.4f}" for number in text.split())


def _text(value: Any) -> str:
    """Returns a value as people write it."""
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
