"""A plan as text for people."""

from __future__ import annotations

from io import StringIO
from shutil import get_terminal_size
from typing import Any

from sqd_mpi.planner.prediction import ASSUMED_SIGMAS, GridPlan
from sqd_mpi.planner.search import WORTHWHILE, Plan

_GIB = 2**30
_LEAST_WIDTH = 130
_SHOWN = 20  # grids in the table


def plan_text(plan: Plan, title: str, width: int | None = None) -> str:
    """Tables of the grids and of other numbers of ranks, and sentences on what they say.

    Args:
        plan: the plan.
        title: what was planned.
        width: characters in a line; by default those of the terminal, but at least 130.
    """
    from rich.console import Console

    stream = StringIO()
    width = max(get_terminal_size().columns, _LEAST_WIDTH) if width is None else width
    console = Console(file=stream, width=width, highlight=False)
    console.print(_grid_table(plan, title))
    for line in _sentences(plan):
        console.print(line, markup=False)
    if len(plan.scaling) > 1:
        console.print(_scaling_table(plan))
        console.print(_pays_off(plan), markup=False)
    return stream.getvalue().rstrip()


def _grid_table(plan: Plan, title: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    on_device = any(row.device_bytes for row in [*plan.grids, *plan.too_large])
    head = ["a,b,t,r", "GB/rank", "vectors", "buffers", "lists", "process", "compute s", "balance", "messages", "MB",
            "s/sigma", "s/solve", "fits"]  # fmt: skip
    if on_device:
        head[1:2] = ["GPU GB", "host GB"]
        head.remove("process")
    for name in head:
        table.add_column(name, justify="left" if name in ("a,b,t,r", "fits") else "right", no_wrap=True)
    chosen = plan.chosen
    for row in [*plan.grids, *plan.too_large][:_SHOWN]:
        missing = "yes" if row.fits else f"no: {_missing(row)} missing"
        parts = row.vectors_bytes, row.buffers_bytes, row.structure_bytes, *([] if on_device else [row.process_bytes])
        table.add_row(
            ",".join(str(n) for n in row.grid) + ("" if row.spin_flip else " *"),
            *([f"{row.device_bytes / 1e9:.3g}"] if on_device else []),
            f"{row.bytes_per_rank / 1e9:.3g}", *(f"{part / 1e9:.3f}" for part in parts),
            f"{sum(row.compute_seconds.values()):.3g}", f"{row.balance:.3f}", str(row.messages_per_rank),
            f"{row.message_bytes_per_rank / 1e6:.4g}", f"{row.seconds_per_sigma:.3g}", f"{row.seconds_per_solve:.3g}",
            missing, style="bold" if row is chosen else None,
        )  # fmt: skip
    return table


def _missing(plan: GridPlan) -> str:
    """What a grid lacks, in GiB."""
    parts = []
    if plan.missing_device_bytes:
        parts.append(f"{plan.missing_device_bytes / _GIB:.3g} GiB on the GPU")
    if plan.missing_bytes:
        parts.append(f"{plan.missing_bytes / _GIB:.3g} GiB")
    return " and ".join(parts)


def _sentences(plan: Plan) -> list[str]:
    chosen, lines = plan.chosen, []
    hidden = len(plan.grids) + len(plan.too_large) - _SHOWN
    if hidden > 0:
        lines.append(f"{hidden} slower grids are not shown (--json lists all)")
    if plan.n_left_out:
        lines.append(f"{plan.n_left_out} grids were not looked at: more parts than strings, or the most elongated ones")
    if any(not row.spin_flip for row in plan.grids + plan.too_large):
        lines.append("* without spin-flip symmetry, which needs equal strings and a = b")
    if chosen is None:
        lines.append(nothing_fits(plan))
    else:
        lines.append(f"Best: {_name(chosen)}. {_reason(plan, chosen)}")
        lines.append(f"A solve is taken for {ASSUMED_SIGMAS} iterations; seconds suppose that every thread has a core.")
    return lines


def nothing_fits(plan: Plan) -> str:
    """What the grid lacks that comes nearest to fitting."""
    least = plan.too_large[0]
    where = f"{plan.memory / _GIB:.3g} GiB per rank"
    if least.missing_device_bytes:
        where = f"{(least.device_bytes - least.missing_device_bytes) / _GIB:.3g} GiB of a GPU per rank"
    return (
        f"No grid of {plan.n_ranks} ranks fits into {where}; {_name(least)} comes nearest and lacks {_missing(least)}. "
        "Use more ranks or nodes, or more memory per rank."
    )


def _reason(plan: Plan, chosen: GridPlan) -> str:
    """Why a grid was chosen, against the best one of another kind."""
    if len(plan.grids) == 1 and not plan.too_large:
        return "There is no other grid."
    if len(plan.grids) == 1:
        return "No other grid fits the memory."
    fastest = plan.grids[0]
    if chosen is not fastest:
        return f"It is as fast as {_name(fastest)} and needs less memory."
    other = plan.grids[1]
    ratio = other.seconds_per_iteration / chosen.seconds_per_iteration
    causes = []
    mine, theirs = sum(chosen.compute_seconds.values()), sum(other.compute_seconds.values())
    if theirs > 1.01 * mine:
        causes.append("computes more")
    if other.balance > chosen.balance + 0.01:
        causes.append("is less even")
    if other.message_bytes_per_rank > 1.01 * chosen.message_bytes_per_rank:
        causes.append("moves more bytes")
    cause = f", which {' and '.join(causes)}" if causes else ""
    return f"The next, {_name(other)}{cause}, takes {ratio:.2f} times as long."


def _scaling_table(plan: Plan) -> Any:
    from rich.table import Table

    table = Table(title="Best grid of other numbers of ranks (predicted)", title_justify="left")
    for name in ("ranks", "a,b,t,r", "s/sigma", "s/solve", "speed-up", "efficiency", "GB/rank"):
        table.add_column(name, justify="left" if name == "a,b,t,r" else "right", no_wrap=True)
    first = plan.scaling[0]
    for row, efficiency in zip(plan.scaling, plan.efficiencies(), strict=True):
        a, b, t, r = row.grid
        table.add_row(
            str(a * b * t * r), ",".join(str(n) for n in row.grid), f"{row.seconds_per_sigma:.3g}",
            f"{row.seconds_per_solve:.3g}", f"{first.seconds_per_iteration / row.seconds_per_iteration:.2f}",
            f"{100 * efficiency:.0f} %", f"{row.bytes_per_rank / 1e9:.3g}",
        )  # fmt: skip
    return table


def _pays_off(plan: Plan) -> str:
    ranks = plan.worthwhile_ranks
    largest = max(_size(row) for row in plan.scaling)
    if ranks == largest:
        return f"Up to {ranks} ranks, the most looked at, the efficiency stays above {100 * WORTHWHILE:.0f} %."
    return f"More than {ranks} ranks hardly pay off: beyond them the efficiency falls below {100 * WORTHWHILE:.0f} %."


def _size(plan: GridPlan) -> int:
    a, b, t, r = plan.grid
    return a * b * t * r


def _name(plan: GridPlan) -> str:
    return f"({','.join(str(n) for n in plan.grid)})"
