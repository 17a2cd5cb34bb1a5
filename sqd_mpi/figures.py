"""Pictures of a run: time-lines of the ranks, shares of the phases, convergence. The only door to matplotlib.

Functions take data and return a figure; `save` writes it. Colours differ in lightness, and what moves or waits is
hatched, so that the pictures can be read without colour vision and in print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi import files
from sqd_mpi.options import InputError
from sqd_mpi.trace import COMMUNICATION, Segments, Trace, read, segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 64  # ranks; beyond, their shares are drawn together

_DPI = 150
_WIDTH = 10.0  # inches
_COLUMNS = 1200  # intervals of time in a time-line


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
_OTHER = len(LOOKS) - 1


def groups_of(names: Sequence[str]) -> NDArray[np.intp]:
    """Returns for every name of a phase its place in LOOKS."""
    place = {name: k for k, look in enumerate(LOOKS) for name in look.phases}
    return np.array([place.get(name, _OTHER) for name in names], np.intp)


def imbalance(seconds: NDArray[np.float64]) -> float:
    """Returns the maximum divided by the mean over the ranks: 1 is perfect balance.

    Args:
        seconds: (n_ranks,) seconds of every rank.
    """
    mean = float(seconds.mean())
    return float(seconds.max()) / mean if mean > 0 else 1.0


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


def time_line(trace: Trace) -> Figure:
    """Returns the time-line of the whole run and, below, of one iteration with the ket blocks that travel meanwhile."""
    phases, zoom = segments(trace), typical_iteration(trace)
    height = _height_of_rows(trace.n_ranks)
    n_panels = 1 if zoom is None else 2
    figure = _figure(1.6 + n_panels * (height + 0.9))
    panels = np.atleast_1d(figure.subplots(n_panels, 1))
    _draw_rows(panels[0], trace, phases, 0.0, trace.end, 1.0)
    panels[0].set_title("whole run", loc="left")
    panels[0].set_xlabel("seconds")
    if zoom is not None:
        milliseconds = zoom[1] - zoom[0] < 1.0
        _draw_rows(panels[1], trace, phases, *zoom, 1e3 if milliseconds else 1.0, slides=True)
        title = f"one iteration, {zoom[0]:.3f} s after the start"
        covered = covered_share(trace, phases)
        if covered is not None:
            title += f"; in the run, compute covers {100 * covered:.0f} % of the slides"
        panels[1].set_title(title, loc="left")
        panels[1].set_xlabel("milliseconds" if milliseconds else "seconds")
    figure.suptitle(_heading(trace))
    used = phases.sums(trace.n_ranks, groups_of(trace.names), len(LOOKS)).sum(axis=0) > 0
    travels = bool((trace.thread >= COMMUNICATION).any())
    _legend(figure, used, slides=travels and zoom is not None and trace.n_ranks <= MOST_ROWS)
    return figure


def phase_shares(trace: Trace) -> Figure:
    """Returns a bar for every rank with the share of each phase, from the end of the warm-up, and the imbalance."""
    seconds = segments(trace).sums(trace.n_ranks, groups_of(trace.names), len(LOOKS))
    seconds[:, _START] = 0.0
    compute = seconds[:, COMPUTE].sum(axis=1)
    labels, rows = [f"rank {rank}" for rank in range(trace.n_ranks)], seconds
    if trace.n_ranks > MOST_ROWS:
        order = np.argsort(compute, kind="stable")
        labels = ["mean of ranks", f"most work: rank {order[-1]}", f"least work: rank {order[0]}"]
        rows = np.stack([seconds.mean(axis=0), seconds[order[-1]], seconds[order[0]]])
    texts = [f"{row[list(COMPUTE)].sum():.3g} s" for row in rows]
    figure = _bars(rows, labels, "% of the time after the warm-up", texts)
    figure.suptitle(_heading(trace))
    title = f"seconds of compute at the right; max/mean over the ranks {imbalance(compute):.3f}"
    figure.axes[0].set_title(title, loc="left")
    return figure


def mean_shares(timings: dict[str, Sequence[float]], heading: str) -> Figure:
    """Returns one bar with the share of each phase, from the timings of a result (no trace is needed).

    Args:
        timings: phase -> minimum, mean, maximum over the ranks, seconds; `sigma` holds the phases of its tasks.
        heading: title of the figure.
    """
    inner = [name for name in timings if name not in ("sigma", "structure", "model space")]
    groups = groups_of(inner)
    rows = np.zeros((1, len(LOOKS)))
    np.add.at(rows[0], groups, [timings[name][1] for name in inner])
    # The structure is built inside the model space and outside: what is nested cannot be told from sums.
    rows[0, _START] = 0.0
    figure = _bars(rows, ["mean"], "% of the time of the iterations", [f"{rows[0, list(COMPUTE)].sum():.3g} s"])
    figure.suptitle(heading)
    figure.axes[0].set_title("mean over the ranks; seconds of compute at the right", loc="left")
    return figure


def convergence(history: dict[str, Any], tol: float, heading: str) -> Figure:
    """Returns residual norms and distances of the energies from the last one, against the iterations.

    Args:
        history: `energy` and `residual_norm`, one list of the roots per iteration with None where there is none, and
            `sector`, one number per iteration.
        tol: residual norm at which a root is converged.
        heading: title of the figure.
    """
    energies, residuals = (np.array(history[name], float) for name in ("energy", "residual_norm"))
    sectors = np.stack([np.array(history[name], float) for name in ("sector", "parity")], axis=1)
    iterations = np.arange(1, len(energies) + 1)
    figure = _figure(5.5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    changes = np.flatnonzero(np.any(np.diff(sectors, axis=0) != 0, axis=1)) + 1
    for part in np.split(np.arange(len(energies)), changes):
        _draw_part(upper, lower, iterations[part], energies[part], residuals[part])
    _name_parts(upper, sectors, [0, *changes.tolist(), len(energies)])
    upper.set_xlim(0.5, len(energies) + 0.5)
    upper.axhline(tol, color="black", linestyle=":", linewidth=1.2)
    upper.annotate(
        f"tolerance {tol:g}", (1, tol), xycoords=("axes fraction", "data"), xytext=(-4, 3),
        textcoords="offset points", ha="right", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip
    upper.set_ylabel("residual norm")
    lower.set_ylabel("energy above the\nlast one (hartree)")
    lower.set_xlabel("iteration")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        axes.grid(axis="y", color="#dddddd")
    figure.suptitle(heading)
    if energies.shape[1] > 1:
        figure.legend(*upper.get_legend_handles_labels(), loc="outside right upper")
    return figure


def write_pictures(folder: str | Path, result: str | None = None, trace: str | None = None) -> list[Path]:
    """Writes the pictures of a result, of a trace, or of both as PNG and SVG; returns the files.

    Args:
        folder: where to; made if it does not exist.
        result: result file, or None.
        trace: trace file, or None.

    Raises:
        InputError: a file is missing or of another kind, the two belong to different runs, the folder cannot be made,
            or there is no matplotlib.
    """
    need_matplotlib()
    run = None if result is None else files.read_run(result)
    time_lines = None if trace is None else read(trace)
    if run is not None and time_lines is not None:
        _check_same_run(run, time_lines, f"{result} and {trace}")
    figures = {}
    if run is not None:
        heading = f"{Path(str(result)).name}: {_kind_of_run(**run['summary'])}"
        figures["convergence"] = convergence(run["history"], float(run["options"]["tol"]), heading)
        figures["phases"] = mean_shares(run["timings"], heading)
    if time_lines is not None:
        figures["phases"] = phase_shares(time_lines)
        figures["time_line"] = time_line(time_lines)
    target = Path(folder)
    try:
        target.mkdir(exist_ok=True)
        return [path for name, figure in figures.items() for path in save(figure, target, name)]
    except OSError as error:
        raise InputError(f"cannot write into {target}: {error.strerror or error}") from None


def extrapolation(data: dict[str, Any], reference: float | None = None) -> Figure:
    """Returns energies of truncated spaces against variance and correction, with the fits and their values at zero.

    Args:
        data: `points` and `fits`, as `sqd_mpi.extrapolation` makes them.
        reference: energy to draw as a line, hartree, or None.
    """
    points, fits = data["points"], data["fits"]
    energies = np.array([point["energy"] for point in points])
    origin = float(energies.min()) if reference is None else reference
    figure = _figure(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    texts = {"variance": "variance (hartree$^2$)", "energy_pt2": "second-order correction (hartree)"}
    for axes, (name, text) in zip(panels, texts.items(), strict=True):
        x = np.array([point[name] for point in points])
        axes.plot(x, 1e3 * (energies - origin), "o", color="black", label="truncated spaces")
        for kind, style, color in (("linear", "-", "#2f86c1"), ("quadratic", "--", "#b35806")):
            fit = fits.get(f"{name}_{kind}")
            if fit is None:
                continue
            line = np.linspace(0.0, float(x[np.argmax(np.abs(x))]), 100)
            curve = np.polynomial.polynomial.polyval(line, fit["coefficients"])
            error = fit["uncertainty"] or 0.0
            label = f"{kind}: {fit['energy']:.6f}" + (f" $\\pm$ {error:.1e}" if fit["uncertainty"] is not None else "")
            axes.plot(line, 1e3 * (curve - origin), style, color=color, label=label)
            marker = "s" if kind == "linear" else "D"
            axes.errorbar(
                [0.0], [1e3 * (fit["energy"] - origin)], [1e3 * error], marker=marker, color=color, capsize=4,
                markerfacecolor="white",
            )  # fmt: skip
        if reference is not None:
            axes.axhline(0.0, color="#0d5c2a", linestyle=":", label=f"reference: {reference:.6f}")
        axes.set_xlabel(text)
        axes.grid(color="#dddddd")
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel(f"energy above {origin:.6f} (millihartree)")
    return figure


def write_extrapolation(folder: str | Path, data: dict[str, Any], reference: float | None = None) -> list[Path]:
    """Writes the picture of an extrapolation as PNG and SVG into a folder that exists; returns the files."""
    return save(extrapolation(data, reference), Path(folder), "extrapolation")


def _check_same_run(run: dict[str, Any], trace: Trace, names: str) -> None:
    """Checks that result and trace are of the same problem on the same grid."""
    of_result = run["fingerprint"], run["summary"]["grid"]
    if of_result != (trace.about.get("fingerprint"), trace.about.get("grid")):
        raise InputError(f"{names} are of different runs; give those that one run wrote")


def draw_simulation(
    rows: Sequence[dict[str, Any]], heading: str, path: str | Path, published: Sequence[tuple[int, float]] = ()
) -> None:
    """Draws simulated scaling: time of a solve over the ranks, and what a sigma consists of.

    Args:
        rows: `Simulation.to_dict` of every number of ranks.
        heading: title.
        path: picture to write.
        published: (ranks, seconds) that another program needed.

    Raises:
        InputError: there is no matplotlib, or the file cannot be written.
    """
    figure = _figure(5.0)
    left, right = figure.subplots(1, 2)
    ranks = [row["n_ranks"] for row in rows]
    seconds = [row["seconds_per_solve"] for row in rows]
    left.loglog(ranks, seconds, "o-", color="black", label="predicted")
    left.loglog(ranks, [seconds[0] * ranks[0] / n for n in ranks], ":", color="gray", label="ideal")
    if published:
        left.loglog(*zip(*published, strict=True), "s--", color="tab:red", mfc="white", label="published, sbd")
    left.set(xlabel="ranks", ylabel="seconds of a solve")
    left.legend()
    bottom = np.zeros(len(rows))
    parts = ("compute", "wait", "replica", "vector", "idle")
    looks = (("tab:blue", ""), ("tab:orange", "//"), ("tab:green", "\\\\"), ("tab:gray", ".."), ("white", "xx"))
    places = np.arange(len(rows))
    for part, (color, hatch) in zip(parts, looks, strict=True):
        shares = np.array([100 * row[f"{part}_seconds"] / row["seconds_per_sigma"] for row in rows])
        right.bar(places, shares, bottom=bottom, color=color, hatch=hatch, edgecolor="black", linewidth=0.4, label=part)
        bottom += shares
    right.set_xticks(places, [f"{n}" for n in ranks], rotation=60)
    right.set(xlabel="ranks", ylabel="% of a sigma, mean over the ranks")
    right.legend(ncols=3, loc="lower center", fontsize="small")
    figure.suptitle(f"Predicted. {heading}", fontsize="small", wrap=True)
    try:
        figure.savefig(path, dpi=_DPI)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {error}") from None


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as PNG and SVG; returns the files."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=_DPI, pil_kwargs={"optimize": True})
    figure.savefig(paths[1], dpi=_DPI)
    return paths


def need_matplotlib() -> None:
    """Checks that there is matplotlib.

    Raises:
        InputError: if there is none, with what to do.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("pictures need matplotlib; install it with: pip install 'sqd_mpi[report]'") from None


def _figure(height: float) -> Figure:
    need_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _heading(trace: Trace) -> str:
    return f"{trace.about.get('input', 'a run')}: {_kind_of_run(**trace.about)}"


def _kind_of_run(grid: Sequence[int], n_ranks: int, n_threads: int, **_: Any) -> str:
    ranks, threads = (f"{n} {what}{'s' if n != 1 else ''}" for n, what in ((n_ranks, "rank"), (n_threads, "thread")))
    return f"grid {','.join(str(n) for n in grid)}, {ranks} of {threads}"


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
    n_pixels = int(_height_of_rows(trace.n_ranks) * _DPI / len(rows))
    room = 0.3 if slides and not together and (trace.thread >= COMMUNICATION).any() else 0.0
    image = np.concatenate([_row_image(row, n_pixels, room, k * n_pixels) for k, row in enumerate(rows)])
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


def _row_image(shares: NDArray[np.float64], n_pixels: int, room: float, offset: int) -> NDArray[np.float64]:
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
    group[group == len(LOOKS)] = _OTHER
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


def _legend(figure: Figure, used: NDArray[np.bool_], slides: bool) -> None:
    """Puts the names of the groups beside the panels."""
    from matplotlib.patches import Patch

    handles = [_patch(look) for look, is_used in zip(LOOKS, used, strict=True) if is_used]
    if slides:
        handles.append(Patch(facecolor="black", edgecolor="white", label="block on its way"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)


def _patch(look: Look) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=look.color, hatch=look.hatch, edgecolor="#404040", linewidth=0.5, label=look.label)


def _bars(rows: NDArray[np.float64], labels: Sequence[str], what: str, texts: Sequence[str]) -> Figure:
    """Returns horizontal bars that add up to 100 %, with a text at the right of each."""
    figure = _figure(max(2.8, 1.3 + min(0.32 * len(rows), 12.0)))
    axes = figure.subplots()
    totals = np.maximum(rows.sum(axis=1), 1e-300)
    left = np.zeros(len(rows))
    for k, look in enumerate(LOOKS):
        share = 100 * rows[:, k] / totals
        axes.barh(
            np.arange(len(rows)), share, left=left, height=0.8, color=look.color, hatch=look.hatch, edgecolor="#404040",
            linewidth=0.5,
        )  # fmt: skip
        _write_shares(axes, look, share, left)
        left += share
    for row, text in enumerate(texts):
        axes.annotate(text, (100.5, row), va="center", annotation_clip=False)
    axes.set_yticks(np.arange(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(what)
    _legend(figure, rows.sum(axis=0) > 0, slides=False)
    return figure


def _write_shares(axes: Axes, look: Look, share: NDArray[np.float64], left: NDArray[np.float64]) -> None:
    """Writes the number into every part that has room for it."""
    from matplotlib.colors import to_rgb

    light = float(np.dot(to_rgb(look.color), (0.3, 0.6, 0.1))) > 0.5
    box = {"facecolor": look.color, "edgecolor": "none", "pad": 1.0} if look.hatch else None
    for row, value in enumerate(share):
        if value >= 4:
            axes.text(
                left[row] + value / 2, row, f"{value:.0f}", ha="center", va="center", fontsize=9,
                color="black" if light else "white", bbox=box,
            )  # fmt: skip


def _draw_part(
    upper: Axes,
    lower: Axes,
    iterations: NDArray[np.intp],
    energies: NDArray[np.float64],
    residuals: NDArray[np.float64],
) -> None:
    """Draws the iterations in one sector."""
    markers = "osv^D*PX"
    for root in range(energies.shape[1]):
        known = energies[~np.isnan(energies[:, root]), root]
        if not len(known):
            continue
        label = None if str(root) in {line.get_gid() for line in upper.lines} else f"root {root}"
        style: dict[str, Any] = {"color": f"C{root % 10}", "marker": markers[root % len(markers)], "markersize": 4}
        _plot_positive(upper, iterations, residuals[:, root], label=label, gid=str(root), **style)
        _plot_positive(lower, iterations, energies[:, root] - known[-1], **style)


def _plot_positive(axes: Axes, x: NDArray[np.intp], y: NDArray[np.float64], **style: Any) -> None:
    """Draws the points that a logarithmic axis can show."""
    shown = y > 0
    if shown.any():
        axes.plot(x[shown], y[shown], **style)
        axes.set_yscale("log")


def _name_parts(axes: Axes, sectors: NDArray[np.float64], bounds: Sequence[int]) -> None:
    """Draws a line between the sectors and names those with many iterations; the others share a name."""
    few_named = False
    for first, stop in zip(bounds[:-1], bounds[1:], strict=True):
        if first:
            axes.axvline(first + 0.5, color="#888888", linewidth=0.8)
        few = stop - first < 0.2 * bounds[-1]
        label, parity = int(sectors[first, 0]), int(sectors[first, 1])
        text = f"sector {label}" + (f", parity {parity:+d}" if parity else "")
        if not few or not few_named:
            axes.annotate("other sectors" if few else text, (first + 0.6, 1.02), xycoords=("data", "axes fraction"))
        few_named |= few
