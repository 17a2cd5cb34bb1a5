"""Curves: convergence and extrapolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.app.figures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OTHERS = canvas.MOST_CURVES + 1  # place in the legend of states that are no roots of the result
_SIGNS = {1: "+", 0: "", -1: "\N{MINUS SIGN}"}  # of parities
_ROOM = 2.0  # pixels between names


State = tuple[int, int]


def convergence(
    history: Mapping[str, Any],
    tol: float | None,
    heading: str,
    width: float = canvas.WIDTH,
    states: Sequence[State] | None = None,
) -> Figure:
    """Residual norms and distances of the energies from the last one, against the iterations.

    Args:
        history: `energy` and `residual_norm`, one list of the roots of a sector per iteration with None where there is
            none, and `sector` and `parity`, one number per iteration.
        tol: residual norm at which a root is converged, if it is known.
        heading: title of the figure.
        width: inches.
        states: sector and parity (0 without spin-flip symmetry) of every root of the result, in ascending order of the
            energies, if they are known: curves have their names, and what else was solved is faint.
    """
    # Stretches of iterations in one sector.
    energies, residuals = (np.array(history[name], float) for name in ("energy", "residual_norm"))
    sectors = np.stack([np.nan_to_num(np.array(history[name], float)) for name in ("sector", "parity")], axis=1)
    sectors = sectors.astype(np.intp)
    iterations = np.arange(1, len(energies) + 1)
    changes = np.flatnonzero(np.any(np.diff(sectors, axis=0) != 0, axis=1)) + 1

    # The curves of each.
    figure = canvas.figure(5.5, width)
    upper, lower = figure.subplots(2, 1, sharex=True)
    named: dict[int, Any] = {}
    for part in np.split(np.arange(len(energies)), changes):
        roots = roots_of_sector((int(sectors[part[0], 0]), int(sectors[part[0], 1])), energies.shape[1], states)
        _draw_part(upper, lower, iterations[part], energies[part], residuals[part], roots, named)

    # Axes and names.
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
    if len(named) > 1:
        canvas.add_legend(figure, [named[place] for place in sorted(named)], frameon=True)
    _name_parts(figure, upper, sectors, [0, *changes.tolist(), len(energies)])
    return figure


def roots_of_sector(sector: State, n_columns: int, states: Sequence[State] | None) -> list[int | None]:
    """For every state that was solved in a sector which root of the result it is, None for none.

    Args:
        sector: sector and parity.
        n_columns: number of states.
        states: sector and parity of the roots, in ascending order of the energies; None if they are not known.
    """
    if states is None:
        return list(range(n_columns))
    found = [root for root, state in enumerate(states) if state == sector]
    return [*found[:n_columns], *[None] * (n_columns - len(found))]


def _draw_tolerance(upper: Axes, tol: float) -> None:
    """Draw the line below which a root is converged."""
    upper.axhline(tol, color="black", linestyle=":", linewidth=1.2)
    upper.annotate(
        f"tolerance {tol:g}", (1, tol), xycoords=("axes fraction", "data"), xytext=(-4, 3),
        textcoords="offset points", ha="right", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def extrapolation(data: dict[str, Any], reference: float | None = None) -> Figure:
    """Energies of truncated spaces against variance and correction, with the fits and their values at zero.

    Args:
        data: `points` and `fits`, as `sqd_mpi.loop.extrapolation` makes them.
        reference: energy to draw as a line, hartree, or None.
    """
    points, fits = data["points"], data["fits"]
    energies = np.array([point["energy"] for point in points])
    origin = float(energies.min()) if reference is None else reference
    figure = canvas.figure(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    texts = {"variance": "variance (hartree$^2$)", "energy_pt2": "second-order correction (hartree)"}
    for axes, (name, text) in zip(panels, texts.items(), strict=True):
        # What was computed.
        x = np.array([point[name] for point in points])
        axes.plot(x, 1e3 * (energies - origin), "o", color="black", label="truncated spaces")

        # The fits, with their values at zero and the errors of these.
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
    """Write the picture of an extrapolation as PNG and SVG into a folder that exists; returns the files."""
    return canvas.save(extrapolation(data, reference), Path(folder), "extrapolation")


def _draw_part(
    upper: Axes, lower: Axes, iterations: NDArray[np.intp], energies: NDArray[np.float64],
    residuals: NDArray[np.float64], roots: Sequence[int | None], named: dict[int, Any],
) -> None:  # fmt: skip
    """Draw the iterations in one sector; `named` keeps one curve for each line of the legend."""
    for column, root in enumerate(roots):
        known = energies[~np.isnan(energies[:, column]), column]
        if not len(known):
            continue
        if root is None:
            name, place, style = "other states", _OTHERS, {"color": canvas.FAINT, "linewidth": 0.8}
        elif root < canvas.MOST_CURVES:
            name, place, style = f"root {root}", root, canvas.curve_style(root)
        else:
            name, place, style = "further roots", canvas.MOST_CURVES, canvas.curve_style(root)
        curve = _plot_positive(upper, iterations, residuals[:, column], label=name, **style)
        if curve is not None:
            named.setdefault(place, curve)
        _plot_positive(lower, iterations, energies[:, column] - known[-1], **style)


def _plot_positive(axes: Axes, x: NDArray[np.intp], y: NDArray[np.float64], **style: Any) -> Any:
    """Draw the points that a logarithmic axis can show; returns the curve, None if there are none."""
    shown = y > 0
    if not shown.any():
        return None
    axes.set_yscale("log")
    return axes.plot(x[shown], y[shown], **style)[0]


def _name_parts(figure: Figure, axes: Axes, sectors: NDArray[np.intp], bounds: Sequence[int]) -> None:
    """Draw a line between the sectors and names those that have room for it, the longest first."""
    with_parity = bool(sectors[:, 1].any())
    if len(bounds) == 2:
        label, parity = (int(number) for number in sectors[0])
        axes.set_title(f"sector {label}" + (f", parity {parity:+d}" if parity else ""), loc="left", fontsize="medium")
        return
    title = "sector and spin-flip parity of the states" if with_parity else "sector of the states"
    axes.set_title(title, loc="left", fontsize="medium", pad=18)
    texts = []
    for first, stop in zip(bounds[:-1], bounds[1:], strict=True):
        if first:
            axes.axvline(first + 0.5, color=canvas.GRID, linewidth=0.8)
        name = f"{sectors[first, 0]}{_SIGNS[int(np.sign(sectors[first, 1]))]}"
        place = (first + stop + 1) / 2
        text = axes.annotate(
            name, (place, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize="small",
        )  # fmt: skip
        texts.append((stop - first, text))
    _keep_apart([text for _, text in sorted(texts, key=lambda pair: -pair[0])], figure)


def _keep_apart(texts: Sequence[Any], figure: Figure) -> None:
    """Remove texts that would touch one that comes before them."""
    figure.draw_without_rendering()
    taken: list[tuple[float, float]] = []
    for text in texts:
        box = text.get_window_extent()
        if any(box.x0 - _ROOM < right and left < box.x1 + _ROOM for left, right in taken):
            text.remove()
        else:
            taken.append((box.x0, box.x1))
