"""The page: parts in order, style, and how it is written."""

from __future__ import annotations

from pathlib import Path

from sqd_mpi._version import __version__
from sqd_mpi.app.figures import need_matplotlib
from sqd_mpi.app.report import data, loop_sections, machine_sections, solve_sections
from sqd_mpi.app.report.html import Markup, escaped, joined, tag
from sqd_mpi.app.report.style import STYLE
from sqd_mpi.files import records

# A page that loads nothing, runs nothing and sends nothing; style and pictures stand in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(path: str | Path, result: str | None = None, trace: str | None = None) -> Path:
    """Writes one page on a result, a trace, or both; returns its path.

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
        stream.write(content.encode("utf-8", "replace"))
    return Path(path)


def page(sources: data.Sources) -> str:
    """Returns the page."""
    run, trace = sources.run, sources.trace
    name = Path(run.path).name if run is not None else str(trace.about.get("input", "a run")) if trace else "a run"
    first: list[Markup | None] = [tag("h1", tag("code", name))]
    parts: list[Markup | None] = []
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
    footer = tag("footer", f"Made by sqd_mpi {__version__}. Energies in hartree, times in seconds.")
    return _document(
        f"{name} – sqd_mpi report", joined([tag("main", *first, tag("div", *parts, class_="columns")), footer])
    )


def _document(title: str, body: Markup) -> str:
    head = joined(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("title", escaped(title)),
            tag("style", Markup(STYLE)),
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{tag("head", head)}\n{tag("body", body)}\n</html>\n'
