"""How evenly ranks share the work, for any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.app.figures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_POINTS = 400


def balance(seconds: NDArray[np.float64], width: float = canvas.WIDTH) -> Figure:
    """Returns the seconds of compute of all ranks in ascending order, with mean and largest.

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
    """Returns minimum, mean and maximum over the ranks of the seconds of every phase, the longest above.

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
