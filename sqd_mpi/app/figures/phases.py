"""Groups of phases, how they look, bars of their shares, and how evenly ranks share the work.

Colours differ in lightness, and what moves or waits is hatched, so that the pictures can be read without colour vision
and in print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.app.figures import canvas
from sqd_mpi.app.trace import Trace, innermost_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 64  # ranks; beyond, their shares are drawn together
_MOST_POINTS = 400


@dataclass(frozen=True)
class Look:
    """How a group of phases is drawn."""

    label: str
    """Name in the legend."""
    phases: tuple[str, ...]
    """Names of the phases in the trace."""
    color: str
    """Colour of the area."""
    hatch: str = ""
    """matplotlib's name of the pattern, or nothing."""


LOOKS = (
    Look("both spins", ("mixed",), "#08306b"),
    Look("alpha only", ("alpha",), "#2f86c1"),
    Look("beta only", ("beta",), "#9ccbe8"),
    Look("vectors", ("vectors",), "#0d5c2a"),
    Look("wait for slides", ("wait",), "#fee0b6", "////"),
    Look("collect block", ("collect",), "#f1a340", "||||"),
    Look("sum of sigma", ("scatter",), "#b35806", "\\\\\\\\"),
    Look("small sums", ("reduce",), "#d8b8e0", "----"),
    Look("structure", ("structure",), "#5e5e5e"),
    Look("model space", ("model space",), "#989898"),
    Look("start, warm-up", ("start-up", "read", "warm-up"), "#d6d6d6"),
    Look("other", (), "#f2f2f2"),
)
COMPUTE = (0, 1, 2)  # places in LOOKS of the work on tasks
_START = 10


def phase_groups(names: Sequence[str]) -> NDArray[np.intp]:
    """For every name of a phase its place in LOOKS."""
    place = {name: k for k, look in enumerate(LOOKS) for name in look.phases}
    return np.array([place.get(name, len(LOOKS) - 1) for name in names], np.intp)


def imbalance(seconds: NDArray[np.float64]) -> float:
    """The maximum divided by the mean over the ranks: 1 is perfect balance.

    Args:
        seconds: (n_ranks,) seconds of every rank.
    """
    mean = float(seconds.mean())
    return float(seconds.max()) / mean if mean > 0 else 1.0


def compute_seconds(trace: Trace) -> NDArray[np.float64]:
    """The seconds that every rank spends on tasks, (n_ranks,)."""
    return _group_seconds(trace)[:, COMPUTE].sum(axis=1)


def _group_seconds(trace: Trace) -> NDArray[np.float64]:
    """The seconds of every group of phases, (n_ranks, n_groups)."""
    return innermost_seconds(trace) @ np.eye(len(LOOKS))[phase_groups(trace.names)]


def phase_shares(trace: Trace, width: float = canvas.WIDTH, head: str | None = None) -> Figure:
    """A bar for every rank with the share of each phase, from the end of the warm-up, and the imbalance.

    Args:
        trace: of all ranks.
        width: inches.
        head: title of the figure; by default input and grid.
    """
    seconds = _group_seconds(trace)
    seconds[:, _START] = 0.0
    compute = seconds[:, COMPUTE].sum(axis=1)
    labels, rows = [f"rank {rank}" for rank in range(trace.n_ranks)], seconds
    if trace.n_ranks > MOST_ROWS:
        order = np.argsort(compute, kind="stable")
        labels = ["mean of ranks", f"most work: rank {order[-1]}", f"least work: rank {order[0]}"]
        rows = np.stack([seconds.mean(axis=0), seconds[order[-1]], seconds[order[0]]])
    texts = [f"{row[list(COMPUTE)].sum():.3g} s" for row in rows]
    figure = _bars(rows, labels, "% of the time after the warm-up", texts, width)
    canvas.set_heading(figure, heading(trace) if head is None else head)
    title = f"seconds of compute at the right; max/mean over the ranks {imbalance(compute):.3f}"
    if width <= canvas.NARROW:
        title = f"at the right compute; max/mean {imbalance(compute):.3f}"
    figure.axes[0].set_title(title, loc="left", fontsize="medium")
    return figure


def mean_shares(timings: Mapping[str, Sequence[float]], heading: str, width: float = canvas.WIDTH) -> Figure:
    """One bar with the share of each phase, from the timings of a result (no trace is needed).

    Args:
        timings: phase -> minimum, mean, maximum over the ranks, seconds; `sigma` holds the phases of its tasks.
        heading: title of the figure.
        width: inches.
    """
    inner = [name for name in timings if name not in ("sigma", "structure", "model space")]
    groups = phase_groups(inner)
    rows = np.zeros((1, len(LOOKS)))
    np.add.at(rows[0], groups, [timings[name][1] for name in inner])
    # The structure is built inside the model space and outside: what is nested cannot be told from sums.
    rows[0, _START] = 0.0
    figure = _bars(rows, ["mean"], "% of the time of the iterations", [f"{rows[0, list(COMPUTE)].sum():.3g} s"], width)
    canvas.set_heading(figure, heading)
    figure.axes[0].set_title("mean over the ranks; seconds of compute at the right", loc="left", fontsize="medium")
    return figure


def heading(trace: Trace) -> str:
    """Title of the figures of a trace: its input, and on what it ran."""
    return f"{trace.about.get('input', 'a run')}: {kind_of_run(**trace.about)}"


def kind_of_run(grid: Sequence[int] | None = None, n_ranks: int = 1, n_threads: int | None = None, **_: Any) -> str:
    """Grid, ranks and threads in words; a result of the loop has no grid."""
    named = ((n_ranks, "rank"), (n_threads, "thread"))
    counts = [f"{n} {what}{'s' if n != 1 else ''}" for n, what in named if n is not None]
    place = "" if not isinstance(grid, list | tuple) else f"grid {','.join(str(n) for n in grid)}, "
    return place + " of ".join(counts)


def _patch(look: Look) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=look.color, hatch=look.hatch, edgecolor="#404040", linewidth=0.5, label=look.label)


def _bars(rows: NDArray[np.float64], labels: Sequence[str], what: str, texts: Sequence[str], width: float) -> Figure:
    """Horizontal bars that add up to 100 %, with a text at the right of each."""
    figure = canvas.figure(max(2.8 if width > canvas.NARROW else 2.1, 1.7 + min(0.32 * len(rows), 12.0)), width)
    axes = figure.subplots()
    totals = np.maximum(rows.sum(axis=1), 1e-300)
    left = np.zeros(len(rows))
    for k, look in enumerate(LOOKS):
        share = 100 * rows[:, k] / totals
        axes.barh(
            np.arange(len(rows)), share, left=left, height=0.8, color=look.color, hatch=look.hatch, edgecolor="#404040",
            linewidth=0.5,
        )  # fmt: skip
        _write_shares(axes, look, share, left, width)
        left += share
    for row, text in enumerate(texts):
        axes.annotate(text, (100.5, row), va="center", annotation_clip=False)
    axes.set_yticks(np.arange(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(what)
    handles = [_patch(look) for look, is_used in zip(LOOKS, rows.sum(axis=0) > 0, strict=True) if is_used]
    canvas.add_legend(figure, handles)
    return figure


def _write_shares(axes: Axes, look: Look, share: NDArray[np.float64], left: NDArray[np.float64], width: float) -> None:
    """Write the number into every part that has room for it."""
    from matplotlib.colors import to_rgb

    light = float(np.dot(to_rgb(look.color), (0.3, 0.6, 0.1))) > 0.5
    box = {"facecolor": look.color, "edgecolor": "none", "pad": 1.0} if look.hatch else None
    room = 40 / width
    for row, value in enumerate(share):
        if value >= room:
            axes.text(
                left[row] + value / 2, row, f"{value:.0f}", ha="center", va="center", fontsize=9,
                color=canvas.ON_COLOR if light else "#fefefe", bbox=box,
            )  # fmt: skip


def balance(seconds: NDArray[np.float64], width: float = canvas.WIDTH) -> Figure:
    """The seconds of compute of all ranks in ascending order, with mean and largest.

    Args:
        seconds: (n_ranks,) seconds of compute.
        width: inches.
    """
    ordered = np.sort(seconds)
    n = len(ordered)
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(np.intp))
    figure = canvas.figure(2.6, width)
    axes = figure.subplots()
    mean, largest = float(ordered.mean()), float(ordered[-1])
    marker = "o" if n <= 64 else ""
    axes.plot(100 * (chosen + 0.5) / n, ordered[chosen], marker=marker, markersize=4, color=canvas.SERIES[0])
    for value, line, text in ((mean, "--", f"mean {mean:.3g} s"), (largest, ":", f"largest {largest:.3g} s")):
        axes.axhline(value, color="black", linestyle=line, linewidth=1.0, label=text)
    axes.set(xlabel="% of the ranks, least work first", ylabel="seconds of compute", xlim=(0, 100))
    axes.set_ylim(0.0, 1.15 * largest if largest > 0 else 1.0)
    axes.grid(axis="y", color=canvas.GRID)
    canvas.add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def ranges(timings: Mapping[str, Sequence[float]], width: float = canvas.WIDTH) -> Figure:
    """Minimum, mean and maximum over the ranks of the seconds of every phase, the longest above.

    Args:
        timings: phase -> minimum, mean, maximum.
        width: inches.
    """
    names = sorted(timings, key=lambda name: (timings[name][1], name))
    low, mean, high = np.maximum(np.array([timings[name] for name in names], float).T, 0.0)
    least = float(mean[mean > 0].min(initial=np.inf))
    floor = max(1e-6, 0.5 * least) if np.isfinite(least) else 1e-6
    low, mean, high = (np.maximum(values, floor) for values in (low, mean, high))  # a logarithm has no zero
    figure = canvas.figure(0.9 + 0.24 * len(names), width)
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.hlines(places, low, high, color=canvas.FAINT, linewidth=3.0, label="minimum to maximum")
    axes.plot(mean, places, "D", color=canvas.SERIES[0], markersize=5, label="mean over the ranks")
    axes.set_xscale("log")
    axes.set_yticks(places, [canvas.literal(name) for name in names])
    axes.set_xlabel("seconds")
    axes.grid(axis="x", color=canvas.GRID)
    canvas.add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure
