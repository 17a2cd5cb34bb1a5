"""Parts of a report on time, memory, options and the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqd_mpi.app import figures
from sqd_mpi.app.figures import canvas
from sqd_mpi.app.report import words
from sqd_mpi.app.report.data import Run
from sqd_mpi.app.report.template import macros
from sqd_mpi.app.trace import COMMUNICATION, Trace
from sqd_mpi.loop.options import LoopOptions
from sqd_mpi.options import SolveOptions

_MOST_HOSTS = 20


def time(run: Run) -> str | None:
    """The phases of a result: shares, minimum, mean and maximum over the ranks."""
    summary, timings = run.summary, run.timings
    children: list[Any] = []
    if timings:
        n_ranks = summary.n_ranks or 1
        if any(values[1] > 0 for name, values in timings.items() if name not in ("sigma", "structure", "model space")):
            shares = canvas.inline_svg(figures.mean_shares(timings, "", canvas.NARROW), "shares")
            children.append(macros.picture(shares, "Share of every phase, mean over the ranks."))
        if n_ranks > 1:
            ranges = canvas.inline_svg(figures.ranges(timings, canvas.NARROW), "ranges")
            caption = f"Seconds of every phase over {n_ranks} ranks. Phases may be nested."
            children.append(macros.picture(ranges, caption))
        rows = [[name, *(f"{value:.4g}" for value in timings[name])] for name in _by_mean(timings)]
        head = ["phase", "minimum (s)", "mean (s)", "maximum (s)"]
        children.append(macros.fold("All phases as a table", macros.table(head, rows)))
    facts = [
        ("wall time", words.seconds(summary.wall_seconds)),
        ("solve", words.seconds(summary.solve_seconds)),
        ("one application of the Hamiltonian, mean", words.seconds(summary.sigma_seconds)),
        ("applications", words.count(summary.n_sigma)),
        ("of these in single precision", words.count(summary.n_sigma_single)),
        ("processor time of a rank, mean", words.seconds(summary.cpu_seconds)),
        ("imbalance of it (largest / mean; 1 is perfect)", words.number(summary.imbalance, ".3f")),
        *_messages(summary.messages),
    ]
    return macros.section("Time", *children, _known(facts))


def _by_mean(timings: dict[str, tuple[float, float, float]]) -> list[str]:
    return sorted(timings, key=lambda name: (-timings[name][1], name))


def _messages(messages: dict[str, float | None] | None) -> list[tuple[str, str]]:
    if messages is None:
        return []
    blocks = words.number(messages.get("ket_blocks"), ".0f")
    return [("received by a rank in one application, at most", f"{words.size(messages.get('bytes'))}, {blocks} blocks")]


def ranks(trace: Trace) -> str | None:
    """Shares of the phases and the balance of the ranks from a trace."""
    children = [
        macros.picture(
            canvas.inline_svg(figures.phase_shares(trace, canvas.NARROW, ""), "rank-shares"),
            "Share of every phase of the time after the warm-up.",
        ),
    ]
    seconds = figures.compute_seconds(trace)
    if trace.n_ranks > 1:
        caption = f"Work of {trace.n_ranks} ranks: largest / mean {figures.imbalance(seconds):.3f}."
        children.append(macros.picture(canvas.inline_svg(figures.balance(seconds, canvas.NARROW), "balance"), caption))
    about = trace.about
    facts = [
        ("input", str(about.get("input", words.UNKNOWN))),
        ("ranks", str(trace.n_ranks)),
        ("hosts", _hosts(about.get("hosts"))),
        ("events", f"{len(trace.start)}, of blocks on their way {int((trace.thread >= COMMUNICATION).sum())}"),
        ("events left out", str(about.get("n_dropped", words.UNKNOWN))),
        ("written by", str(about.get("creator", words.UNKNOWN))),
    ]
    return macros.section("Phases and balance of the ranks", *children, _known(facts))


def _hosts(hosts: Any) -> str:
    if not isinstance(hosts, list):
        return words.UNKNOWN
    names = sorted({str(host) for host in hosts})
    more = f" and {len(names) - _MOST_HOSTS} more" if len(names) > _MOST_HOSTS else ""
    return ", ".join(names[:_MOST_HOSTS]) + more


def memory(run: Run) -> str | None:
    """The memory of the rank that needed most, in bars."""
    summary = run.summary
    parts = [(f"{name} (known before)", value) for name, value in (summary.memory or {}).items() if value is not None]
    if summary.peak_rss_bytes is not None:
        parts.append(("the whole process, peak", summary.peak_rss_bytes))
    limit = run.options.get("memory")
    if isinstance(limit, int) and limit > 0:
        parts.append(("limit (--memory)", limit))
    if not parts:
        return None
    largest = max(1, max(value for _, value in parts))
    rows = [(name, words.size(value), value) for name, value in parts]
    return macros.section("Memory", macros.bars("Largest of all ranks", rows, largest))


def problem(run: Run) -> str | None:
    """What was solved."""
    summary = run.summary
    symmetry = summary.symmetry or {}
    facts = [
        ("input", words.any_value(run.run["input"]) if run.run.get("input") else words.UNKNOWN),
        ("orbitals", words.count(summary.norb)),
        ("electrons, alpha and beta", " + ".join(str(n) for n in summary.nelec) if summary.nelec else words.UNKNOWN),
        ("strings, alpha and beta", f"{words.count(summary.n_alpha_strings)} × {words.count(summary.n_beta_strings)}"),
        ("determinants", words.count(summary.dimension)),
        ("independent coefficients of root 0", words.count(summary.sector_dimension)),
        ("symmetry labels", words.number(symmetry.get("n_labels"), ".0f")),
    ]
    return macros.section("Problem", _known(facts))


def options(run: Run) -> str | None:
    """Every effective option; those that differ from the default are marked."""
    if not run.options:
        return None
    fields = (LoopOptions if run.is_loop else SolveOptions).model_fields
    rows = []
    for name, value in run.options.items():
        default = fields[name].default if name in fields else None
        changed = name in fields and words.any_value(value) != words.any_value(default)
        mark = macros.changed(words.any_value(value)) if changed else words.any_value(value)
        rows.append((macros.code(name), mark))
    marked = macros.table(["option", "value"], rows, numeric=False)
    hint = "● differs from the default, by choice or because the program chose."
    return macros.section("Options", macros.fold(f"All {len(rows)} effective options", macros.paragraph(hint), marked))


def environment(run: Run) -> str | None:
    """Where it ran and with which libraries."""
    about, summary = run.run, run.summary
    nodes = about.get("n_nodes")
    facts = [
        ("command", macros.code(f"python -m sqd_mpi {about['command']}") if about.get("command") else words.UNKNOWN),
        ("started", str(about.get("started") or words.UNKNOWN)),
        ("host of rank 0", str(about.get("host") or words.UNKNOWN)),
        ("processor", str(about.get("processor") or words.UNKNOWN)),
        ("system", str(about.get("system") or words.UNKNOWN)),
        ("nodes", str(nodes) if nodes else words.UNKNOWN),
        ("ranks", words.count(summary.n_ranks)),
        ("threads of a rank", words.count(summary.n_threads)),
        (
            "process grid (alpha, beta, tasks, rows)",
            ", ".join(map(str, summary.grid)) if summary.grid else words.UNKNOWN,
        ),
        ("backend", summary.backend or words.UNKNOWN),
        ("GPU of rank 0", summary.device or words.UNKNOWN),
        *((f"version of {name}", words.any_value(value)) for name, value in run.versions.items()),
    ]
    return macros.section("Environment", _known(facts))


def _known(facts: Iterable[tuple[str, Any]]) -> str | None:
    """Names and values, without those that are not known."""
    shown = [(name, value) for name, value in facts if value != words.UNKNOWN]
    return macros.pairs(shown) if shown else None
