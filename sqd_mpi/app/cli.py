"""The command line: what each verb does; what it needs is imported when it runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqd_mpi.app.parser import EXIT_BAD_INPUT, PLAN_OPTIONS, build_parser
from sqd_mpi.app.speaker import all_arrive, refuse
from sqd_mpi.errors import InputError, RunError, as_typed
from sqd_mpi.log import OutputError, show, tell
from sqd_mpi.options import COMMAND_LINE_OPTIONS, SolveOptions

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import Ranks

EXIT_FAILED = 1
EXIT_NOT_CONVERGED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

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
            return _VERBS[parsed.verb](parsed)
        except (InputError, RunError, OutputError) as error:
            refuse(str(error), collective=parsed.parser is not None and parsed.parser.collective)
            return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


def _import(parsed: argparse.Namespace) -> int:
    """Write an input file or a problem file."""
    from sqd_mpi.solver.startup import check_processor

    check_processor()  # before numba is imported
    from sqd_mpi.app import importing

    return (importing.from_fcidump if parsed.verb == "import fcidump" else importing.from_counts)(parsed)


def _print_summary(path: str) -> None:
    """Print the summary of a file as one JSON object."""
    from sqd_mpi.files.records import read_summary

    show(json.dumps(read_summary(path), allow_nan=False) + "\n")


def _log(parsed: argparse.Namespace, ranks: Ranks) -> Any:
    """The log of this rank, as loud as was asked for."""
    from sqd_mpi.log import NORMAL, QUIET, VERBOSE, Log

    level = QUIET if parsed.quiet else VERBOSE if parsed.verbose else NORMAL
    return Log(ranks.rank, level=level)


def _after(parsed: argparse.Namespace, ranks: Ranks, code: int) -> int:
    """Print the summary of a result that was written, if it is wanted; returns the exit code."""
    if parsed.json and code in (0, EXIT_NOT_CONVERGED) and ranks.rank == 0:
        _print_summary(parsed.output)
    return code


def _run(parsed: argparse.Namespace) -> int:
    """Solve an input file on all ranks."""
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
    """Run the loop on all ranks, or on workers of this machine."""
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
    """Solve an input file and truncated ones on all ranks; rank 0 draws."""
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
    """What work(ranks) returns; ends all ranks if one alone finds its input bad or fails."""
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
    """Check the command lines of all ranks of a job.

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
    """Print the plan of a number of ranks; exit code 2 if no grid fits."""
    given = {name: getattr(parsed, name) for name in PLAN_OPTIONS if hasattr(parsed, name)}
    SolveOptions(**given)

    from sqd_mpi.app import plan

    found, title = plan.plan_file(parsed.input, parsed.ranks, parsed.profile, given, parsed.device_memory)
    if parsed.json or not parsed.quiet:
        show((json.dumps(found.to_dict(), allow_nan=False) if parsed.json else plan.plan_text(found, title)) + "\n")
    elif found.chosen is None:
        tell(plan.nothing_fits(found), "sqd_mpi:")
    return 0 if found.chosen is not None else EXIT_BAD_INPUT


def _bench(parsed: argparse.Namespace) -> int:
    """Measure the machine on all ranks."""
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
    """Print what a file or the installation holds."""
    if parsed.file is None:
        from sqd_mpi.app.installation import describe

        title, summary = "this installation", describe()
    else:
        from sqd_mpi.files.records import read_summary

        title, summary = parsed.file, read_summary(parsed.file)
    show((json.dumps(summary, allow_nan=False) if parsed.json else _table(title, summary)) + "\n")
    return 0


def _report(parsed: argparse.Namespace) -> int:
    """Write the page or the pictures of a run."""
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
    """Print lines for people, or one JSON object, or nothing."""
    if parsed.json:
        show(json.dumps(data, allow_nan=False) + "\n")
    elif not parsed.quiet:
        show("\n".join(lines) + "\n")


def _table(title: str, summary: dict[str, Any]) -> str:
    """The fields below each other, for people."""
    rows = [row for name, value in summary.items() for row in _rows(name, value)]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)])


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    """The rows of one field: several for dictionaries and for the occupancies of roots and spins."""
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
    """Numbers with four decimals, for long rows."""
    return "  ".join(f"{float(number):.4f}" for number in text.split())


def _text(value: Any) -> str:
    """A value as people write it."""
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "import fcidump": _import,
    "import counts": _import,
    "run": _run,
    "sqd": _sqd,
    "plan": _plan,
    "bench": _bench,
    "info": _info,
    "report": _report,
    "extrapolate": _extrapolate,
}
