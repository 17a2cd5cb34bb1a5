"""Curves: convergence, extrapolation, simulated scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.figures import canvas
from sqd_mpi.options import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def convergence(history: Mapping[str, Any], tol: float | None, heading: str, width: float = canvas.WIDTH) -> Figure:
    """Returns residual norms and distances of the energies from the last one, against the iterations.

    Args:
        history: `energy` and `residual_norm`, one list of the roots per iteration with None where there is none, and
            `sector`, one number per iteration.
        tol: residual norm at which a root is converged, if it is known.
        heading: title of the figure.
        width: inches.
    """
    energies, residuals = (np.array(history[name], float) for name in ("energy", "residual_norm"))
    sectors = np.stack([np.array(history[name], float) for name in ("sector", "parity")], axis=1)
    iterations = np.arange(1, len(energies) + 1)
    figure = canvas.figure(5.5, width)
    upper, lower = figure.subplots(2, 1, sharex=True)
    changes = np.flatnonzero(np.any(np.diff(sectors, axis=0) != 0, axis=1)) + 1
    for part in np.split(np.arange(len(energies)), changes):
        _draw_part(upper, lower, iterations[part], energies[part], residuals[part])
    _name_parts(upper, sectors, [0, *changes.tolist(), len(energies)])
    upper.set_xlim(0.5, len(energies) + 0.5)
    if tol is not None:
        _draw_tolerance(upper, tol)
    upper.set_ylabel("residual norm")
    lower.set_ylabel("energy above the\nlast one (hartree)")
    lower.set_xlabel("iteration")
    canvas.count_along(lower.xaxis)
    for axes in (upper, lower):
        axes.grid(axis="y", color=canvas.GRID)
    canvas.set_heading(figure, heading)
    if energies.shape[1] > 1:
        canvas.add_legend(figure, upper.get_legend_handles_labels()[0], frameon=True)
    return figure


def _draw_tolerance(upper: Axes, tol: float) -> None:
    """Draws the line below which a root is converged."""
    upper.axhline(tol, color="black", linestyle=":", linewidth=1.2)
    upper.annotate(
        f"tolerance {tol:g}", (1, tol), xycoords=("axes fraction", "data"), xytext=(-4, 3),
        textcoords="offset points", ha="right", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def extrapolation(data: dict[str, Any], reference: float | None = None) -> Figure:
    """Returns energies of truncated spaces against variance and correction, with the fits and their values at zero.

    Args:
        data: `points` and `fits`, as `sqd_mpi.extrapolation` makes them.
        reference: energy to draw as a line, hartree, or None.
    """
    points, fits = data["points"], data["fits"]
    energies = np.array([point["energy"] for point in points])
    origin = float(energies.min()) if reference is None else reference
    figure = canvas.figure(4.2)
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
        axes.grid(color=canvas.GRID)
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel(f"energy above {origin:.6f} (millihartree)")
    return figure


def write_extrapolation(folder: str | Path, data: dict[str, Any], reference: float | None = None) -> list[Path]:
    """Writes the picture of an extrapolation as PNG and SVG into a folder that exists; returns the files."""
    return canvas.save(extrapolation(data, reference), Path(folder), "extrapolation")


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
    figure = canvas.figure(5.0)
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
        figure.savefig(path, dpi=canvas.DPI)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {error}") from None


def _draw_part(
    upper: Axes,
    lower: Axes,
    iterations: NDArray[np.intp],
    energies: NDArray[np.float64],
    residuals: NDArray[np.float64],
) -> None:
    """Draws the iterations in one sector."""
    for root in range(energies.shape[1]):
        known = energies[~np.isnan(energies[:, root]), root]
        if not len(known):
            continue
        named = str(root) in {line.get_gid() for line in upper.lines} or root > canvas.MOST_CURVES
        name = f"root {root}" if root < canvas.MOST_CURVES else "further roots"
        label, style = None if named else name, canvas.curve_style(root)
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
            axes.axvline(first + 0.5, color=canvas.FAINT, linewidth=0.8)
        few = stop - first < 0.2 * bounds[-1]
        label, parity = int(sectors[first, 0]), int(sectors[first, 1])
        text = f"sector {label}" + (f", parity {parity:+d}" if parity else "")
        if not few or not few_named:
            axes.annotate("other sectors" if few else text, (first + 0.6, 1.02), xycoords=("data", "axes fraction"))
        few_named |= few
