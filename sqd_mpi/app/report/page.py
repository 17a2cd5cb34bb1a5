"""The page: parts in order, and how it is written."""

from __future__ import annotations

import re
from pathlib import Path

from sqd_mpi._version import __version__
from sqd_mpi.app.figures import need_matplotlib
from sqd_mpi.app.report import data, loop_sections, machine_sections, solve_sections
from sqd_mpi.app.report.template import macros
from sqd_mpi.files import records

# Characters that HTML forbids; names of files may hold any.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def write_report(path: str | Path, result: str | None = None, trace: str | None = None) -> Path:
    """Write one page on a result, a trace, or both; returns its path.

    Args:
        path: the page, `*.html`; replaced when the new one is complete.
        result: result file of `run` or `sqd`, or None.
        trace: trace file, or None.

    Raises:
        InputError: a file is missing, damaged or of another kind, the two belong to different runs, the folder of the
            page is missing, or there is no matplotlib.
        WriteError: the page cannot be written.
    """
    need_matplotlib()
    records.check_output(path, result, trace)
    content = page(data.read(result, trace))
    with records.new_binary_file(path) as stream:
        stream.write(content.encode("utf-8"))
    return Path(path)


def page(sources: data.Sources) -> str:
    """The page."""
    run, trace = sources.run, sources.trace
    name = Path(run.path).name if run is not None else str(trace.about.get("input", "a run")) if trace else "a run"
    first, parts = [], []
    if run is not None:
        first += [solve_sections.verdict(run), solve_sections.warnings(run), solve_sections.tiles(run)]
        first += [solve_sections.states(run)]
        if run.is_loop:
            parts += [loop_sections.energies(run), loop_sections.failures(run), loop_sections.spaces(run)]
        else:
            parts += [solve_sections.convergence(run)]
        parts += [solve_sections.occupations(run), solve_sections.strings(run), machine_sections.problem(run)]
        parts += [machine_sections.time(run)]
    if trace is not None:
        parts.append(machine_sections.ranks(trace))
    if run is not None:
        parts += [machine_sections.memory(run), machine_sections.options(run), machine_sections.environment(run)]
    return _FORBIDDEN.sub("\ufffd", macros.page(name, first, parts, __version__))
