"""Time-lines of the ranks, and what is read off them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.app.figures import canvas
from sqd_mpi.app.figures.phases import COMPUTE, LOOKS, MOST_ROWS, OTHER, groups_of, heading, legend
from sqd_mpi.app.trace import COMMUNICATION, Segments, Trace, segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 1200  # intervals of time in a time-line


def typical_iteration(trace: Trace) -> tuple[float, float] | None:
    """Returns start and end, in seconds, of one application of the Hamiltonian and what follows until the next.

    It is the one of median duration on rank 0, the first left out, whose memory is new; None if the trace has none.
    """
    if "sigma" not in trace.names:
        return None
    sigma = trace.names.index("sigma")
    chosen = np.flatnonzero((trace.rank == 0) & (trace.name == sigma))
    if not len(chosen):
        return None
    starts = np.sort(trace.start[chosen])[1 if len(chosen) > 2 else 0 :]
    until = starts[1:] if len(starts) > 1 else starts + trace.seconds[chosen[-1]]
    median = int(np.argsort(until - starts[: len(until)])[len(until) // 2])
    first, last = float(starts[median]), float(until[median])
    margin = 0.02 * (last - first)
    return first - margin, last + margin


def covered_share(trace: Trace, phases: Segments) -> float | None:
    """Returns which part of the time that ket blocks are on their way the ranks compute; None if none travels."""
    slides = trace.thread >= COMMUNICATION
    if not slides.any():
        return None
    covered = 0.0
    is_compute = np.isin(groups_of(trace.names), COMPUTE).astype(np.intp)
    for rank in np.unique(trace.rank[slides]):
        mine = slides & (trace.rank == rank)
        ends = np.stack([trace.start[mine], trace.start[mine] + trace.seconds[mine]])
        covered += float(np.diff(phases.so_far(rank, is_compute, 2, ends.ravel())[:, 1].reshape(2, -1), axis=0).sum())
    return covered / max(float(trace.seconds[slides].sum()), 1e-300)


def time_line(trace: Trace, width: float = canvas.WIDTH, head: str | None = None) -> Figure:
    """Returns the time-line of the whole run and, below, of one iteration with the ket blocks that travel meanwhile.

    Args:
        trace: time-lines.
        width: inches.
        head: title of the figure; by default input and grid.
    """
    phases, zoom = segments(trace), typical_iteration(trace)
    height = _height_of_rows(trace.n_ranks)
    n_panels = 1 if zoom is None else 2
    figure = canvas.figure(1.6 + n_panels * (height + 0.9), width)
    panels = np.atleast_1d(figure.subplots(n_panels, 1))
    _draw_rows(panels[0], trace, phases, 0.0, trace.end, 1.0)
    panels[0].set_title("whole run", loc="left", fontsize="medium")
    panels[0].set_xlabel("seconds")
    if zoom is not None:
        milliseconds = zoom[1] - zoom[0] < 1.0
        _draw_rows(panels[1], trace, phases, *zoom, 1e3 if milliseconds else 1.0, slides=True)
        title = f"one iteration, {zoom[0]:.3f} s after the start"
        covered = covered_share(trace, phases)
        if covered is not None:
            title += "; " if width > canvas.NARROW else "\n"
            title += f"in the run, compute covers {100 * covered:.0f} % of the slides"
        panels[1].set_title(title, loc="left", fontsize="medium")
        panels[1].set_xlabel("milliseconds" if milliseconds else "seconds")
    canvas.set_heading(figure, heading(trace) if head is None else head)
    used = phases.sums(trace.n_ranks, groups_of(trace.names), len(LOOKS)).sum(axis=0) > 0
    travels = bool((trace.thread >= COMMUNICATION).any())
    legend(figure, used, slides=travels and zoom is not None and trace.n_ranks <= MOST_ROWS)
    return figure


def _height_of_rows(n_ranks: int) -> float:
    """Returns the height of a panel of a time-line in inches."""
    return 3.0 if n_ranks > MOST_ROWS else float(np.clip(0.3 * n_ranks, 1.0, 5.0))


def _draw_rows(
    axes: Axes, trace: Trace, phases: Segments, first: float, last: float, unit: float, slides: bool = False
) -> None:
    """Draws the phases between two times as an image: a row for every rank, or all ranks in one."""
    edges, groups = np.linspace(first, last, _COLUMNS + 1), groups_of(trace.names)
    shares = (phases.shares(rank, groups, len(LOOKS), edges) for rank in range(trace.n_ranks))
    together = trace.n_ranks > MOST_ROWS
    rows = [np.add.reduce(list(shares)) / trace.n_ranks] if together else list(shares)
    n_pixels = int(_height_of_rows(trace.n_ranks) * canvas.DPI / len(rows))
    room = 0.3 if slides and not together and (trace.thread >= COMMUNICATION).any() else 0.0
    image = np.concatenate([row_image(row, n_pixels, room, k * n_pixels) for k, row in enumerate(rows)])
    width = unit * (last - first)
    top = 100.0 if together else len(rows) - 0.5
    bottom = 0.0 if together else -0.5
    extent = (0.0, width, bottom, top) if together else (0.0, width, top, bottom)
    axes.imshow(image, aspect="auto", extent=extent, interpolation="nearest")
    axes.set_ylabel("% of the ranks" if together else "rank")
    if not together:
        axes.set_yticks(range(0, len(rows), 1 if len(rows) <= 16 else 8))
    if room:
        _draw_slides(axes, trace, first, last, unit, room)


def _draw_slides(axes: Axes, trace: Trace, first: float, last: float, unit: float, room: float) -> None:
    """Draws the ket blocks on their way below the row of the rank that waits for them."""
    inside = (trace.thread >= COMMUNICATION) & (trace.start < last) & (trace.start + trace.seconds > first)
    lanes = max(2, int(trace.thread[inside].max(initial=0)))
    for rank in np.unique(trace.rank[inside]):
        for lane in range(lanes):
            chosen = inside & (trace.rank == rank) & (trace.thread == COMMUNICATION + lane)
            begin = np.maximum(trace.start[chosen], first)
            length = np.minimum(trace.start[chosen] + trace.seconds[chosen], last) - begin
            height = 0.8 * room / lanes
            bars = np.stack([unit * (begin - first), unit * length], axis=1)
            y = rank + 0.5 - room + lane * room / lanes
            axes.broken_barh(bars.tolist(), (y, height), facecolors="black", edgecolors="white", linewidth=0.5)


def row_image(shares: NDArray[np.float64], n_pixels: int, room: float, offset: int) -> NDArray[np.float64]:
    """Returns the image (n_pixels, n_intervals, 3) of one row: in every interval the groups on top of each other.

    Args:
        shares: (n_intervals, n_groups).
        n_pixels: height.
        room: part of the height that stays free at the bottom.
        offset: height of the rows above, so that patterns go on.
    """
    from matplotlib.colors import to_rgb

    gap = 1 if n_pixels >= 6 else 0
    height = max(1, int((n_pixels - 2 * gap) * (1 - room)))
    levels = (np.arange(height) + 0.5) / height
    bounds = np.cumsum(shares, axis=1)
    group = (bounds[None, :, :] <= levels[:, None, None]).sum(axis=2)  # len(LOOKS): in no phase
    group[group == len(LOOKS)] = OTHER
    palette = np.array([to_rgb(look.color) for look in LOOKS])
    image = np.ones((n_pixels, len(shares), 3))
    painted = palette[group[::-1]]
    y, x = np.mgrid[offset : offset + height, : len(shares)]
    for k, look in enumerate(LOOKS):
        if look.hatch:
            painted[_pattern(look.hatch[0], x, y) & (group[::-1] == k)] = 0.25
    image[gap : gap + height] = painted
    return image


def _pattern(hatch: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns which pixels a pattern darkens."""
    line = {"/": x + y, "\\": x - y, "|": x, "-": y}[hatch]
    return line % 7 < 1
