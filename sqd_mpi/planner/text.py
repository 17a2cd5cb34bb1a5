"""A plan as text for people: tables that lose columns, never letters, where lines are short."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from shutil import get_terminal_size

from sqd_mpi.planner.prediction import ASSUMED_SIGMAS, GridPlan
from sqd_mpi.planner.search import WORTHWHILE, Plan

_GB = 1e9
_LEAST_WIDTH = 80
_SHOWN = 20  # grids in the table
_GAP = 2  # blanks between columns


@dataclass(frozen=True)
class _Column:
    """One column of a table."""

    name: str
    """Heading."""
    cells: Sequence[str]
    """Texts below it."""
    rank: int = 0
    """How soon it is left out where lines are short: the highest first, 0 never."""
    left: bool = False
    """Whether texts stand at the left."""

    @property
    def width(self) -> int:
        """Characters of the longest text."""
        return max(map(len, [self.name, *self.cells]))

    def lines(self) -> list[str]:
        """Heading, a rule and the texts, all of one length."""
        width = self.width
        texts = [self.name, "-" * width, *self.cells]
        return [text.ljust(width) if self.left else text.rjust(width) for text in texts]


def plan_text(plan: Plan, title: str, width: int | None = None) -> str:
    """Tables of the grids and of other numbers of ranks, and sentences on what they say.

    Args:
        plan: the plan.
        title: what was planned.
        width: characters in a line, at least 80; by default those of the terminal, or of COLUMNS.
    """
    width = max(_LEAST_WIDTH, get_terminal_size().columns if width is None else width)
    shown, left_out = _fitting(_grid_columns(plan), width)
    lines = [*_wrapped(title, width), "", *_table(shown)]
    sentences = _sentences(plan)
    if left_out:
        names = ", ".join(column.name for column in left_out)
        sentences.insert(0, f"Not shown in {width} columns (COLUMNS=200 shows all): {names}.")
    for sentence in sentences:
        lines += _wrapped(sentence, width)
    if len(plan.scaling) > 1:
        lines += ["", "Best grid of other numbers of ranks (predicted)", "", *_table(_scaling_columns(plan))]
        lines += _wrapped(_pays_off(plan), width)
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of a sentence; words, such as names of files, stay whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _table(columns: Sequence[_Column]) -> list[str]:
    rows = zip(*(column.lines() for column in columns), strict=True)
    return [(" " * _GAP).join(cells).rstrip() for cells in rows]


def _fitting(columns: Sequence[_Column], width: int) -> tuple[list[_Column], list[_Column]]:
    """The columns that have room, and those that are left out."""
    shown, left_out = list(columns), []
    while sum(column.width + _GAP for column in shown) - _GAP > width:
        least = max(shown, key=lambda column: column.rank)
        if least.rank == 0:
            break
        shown.remove(least)
        left_out.append(least)
    return shown, [column for column in columns if column in left_out]


def _grid_columns(plan: Plan) -> list[_Column]:
    """The grids of a plan; the best one has a mark."""
    rows = [*plan.grids, *plan.too_large][:_SHOWN]
    on_device = any(row.device_bytes for row in [*plan.grids, *plan.too_large])
    names = [",".join(str(n) for n in row.grid) + ("" if row.spin_flip else " *") for row in rows]
    marks = ["> " if row is plan.chosen else "  " for row in rows]

    # Columns in bytes, of which there may be a dozen; the highest rank is left out first.
    def size(name: str, attribute: str, rank: int = 0) -> _Column:
        return _Column(name, [_amount(getattr(row, attribute)) for row in rows], rank)

    # With GPUs vectors and buffers lie there, and the host's memory is one number.
    memory = [size("host GB" if on_device else "GB/rank", "bytes_per_rank")]
    if on_device:
        memory.insert(0, size("GPU GB", "device_bytes"))
    else:
        memory.append(size("process", "process_bytes", 8))
    return [
        _Column("  a,b,t,r", [mark + name for mark, name in zip(marks, names, strict=True)], left=True),
        *memory,
        size("vectors", "vectors_bytes", 4),
        size("buffers", "buffers_bytes", 6),
        size("lists", "structure_bytes", 5),
        _Column("compute s", [f"{sum(row.compute_seconds.values()):.3g}" for row in rows], 7),
        _Column("balance", [f"{row.balance:.3f}" for row in rows], 2),
        _Column("messages", [str(row.messages_per_rank) for row in rows], 3),
        _Column("MB", [f"{row.message_bytes_per_rank / 1e6:.3g}" for row in rows], 1),
        _Column("s/sigma", [f"{row.seconds_per_sigma:.3g}" for row in rows]),
        _Column("s/solve", [f"{row.seconds_per_solve:.3g}" for row in rows]),
        _Column("fits", ["yes" if row.fits else f"lacks {_missing(row)}" for row in rows], left=True),
    ]


def _amount(n_bytes: int) -> str:
    """Bytes in GB, without a unit."""
    return f"{n_bytes / _GB:.3g}"


def _missing(plan: GridPlan) -> str:
    """What a grid lacks."""
    parts = []
    if plan.missing_device_bytes:
        parts.append(f"{_amount(plan.missing_device_bytes)} GB on the GPU")
    if plan.missing_bytes:
        parts.append(f"{_amount(plan.missing_bytes)} GB")
    return " and ".join(parts)


def _sentences(plan: Plan) -> list[str]:
    chosen, lines = plan.chosen, []
    hidden = len(plan.grids) + len(plan.too_large) - _SHOWN
    if hidden > 0:
        lines.append(f"{hidden} slower grids are not shown (--json lists all).")
    if plan.n_left_out:
        kinds = "more parts than strings, or the most elongated ones"
        lines.append(f"{plan.n_left_out} grids were not looked at: {kinds}.")
    if any(not row.spin_flip for row in plan.grids + plan.too_large):
        lines.append("* without spin-flip symmetry, which needs equal strings and a = b.")
    if chosen is None:
        lines.append(nothing_fits(plan))
    else:
        lines.append(f"Best: {_name(chosen)}. {_reason(plan, chosen)}")
        lines.append(f"A solve is taken for {ASSUMED_SIGMAS} iterations; seconds suppose that every thread has a core.")
    return lines


def nothing_fits(plan: Plan) -> str:
    """What the grid lacks that comes nearest to fitting."""
    least = plan.too_large[0]
    where = f"{_amount(plan.memory)} GB per rank"
    if least.missing_device_bytes:
        where = f"{_amount(least.device_bytes - least.missing_device_bytes)} GB of a GPU per rank"
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


def _scaling_columns(plan: Plan) -> list[_Column]:
    """The best grids of other numbers of ranks."""
    rows, first = plan.scaling, plan.scaling[0]
    speed_ups = [first.seconds_per_iteration / row.seconds_per_iteration for row in rows]
    return [
        _Column("ranks", [str(row.n_ranks) for row in rows]),
        _Column("a,b,t,r", [",".join(str(n) for n in row.grid) for row in rows], left=True),
        _Column("s/sigma", [f"{row.seconds_per_sigma:.3g}" for row in rows]),
        _Column("s/solve", [f"{row.seconds_per_solve:.3g}" for row in rows]),
        _Column("speed-up", [f"{value:.2f}" for value in speed_ups]),
        _Column("efficiency", [f"{100 * value:.0f} %" for value in plan.efficiencies()]),
        _Column("GB/rank", [_amount(row.bytes_per_rank) for row in rows]),
    ]


def _pays_off(plan: Plan) -> str:
    ranks = plan.worthwhile_ranks
    largest = max(row.n_ranks for row in plan.scaling)
    if ranks == largest:
        return f"Up to {ranks} ranks, the most looked at, the efficiency stays above {100 * WORTHWHILE:.0f} %."
    more = "More than 1 rank hardly pays" if ranks == 1 else f"More than {ranks} ranks hardly pay"
    return f"{more} off: beyond that the efficiency falls below {100 * WORTHWHILE:.0f} %."


def _name(plan: GridPlan) -> str:
    return f"({','.join(str(n) for n in plan.grid)})"
