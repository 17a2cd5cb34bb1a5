"""The loop on sampled bit-strings: energies, sizes and samples of its iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.app.figures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 2000  # batches drawn one by one; beyond, their range is


def energies(of_best: NDArray[np.float64], of_batches: NDArray[np.float64], width: float = canvas.WIDTH) -> Figure:
    """Energies above the lowest one against the iterations: the best batch, all batches, those that failed.

    Args:
        of_best: (n_iterations,) hartree.
        of_batches: (n_iterations, n_batches) hartree, NaN where a batch failed.
        width: inches.
    """
    iterations = np.arange(1, len(of_best) + 1)
    known = np.concatenate([of_best, of_batches.ravel()])
    known = known[np.isfinite(known)]
    lowest = float(known.min()) if len(known) else 0.0
    figure = canvas.figure(3.4, width)
    axes = figure.subplots()

    # All batches, or their range where they are many.
    above = 1e3 * (of_batches - lowest)
    if above.size <= _MOST_POINTS:
        axes.plot(
            np.repeat(iterations, above.shape[1]), above.ravel(), "o", color=canvas.SERIES[0], markersize=4,
            markerfacecolor="none", label="batches",
        )  # fmt: skip
    else:
        low, high = np.nanmin(above, axis=1, initial=np.inf), np.nanmax(above, axis=1, initial=-np.inf)
        axes.fill_between(iterations, low, high, where=low <= high, color=canvas.GRID, label="range of the batches")

    # The best one, and those that failed.
    axes.plot(iterations, 1e3 * (of_best - lowest), "D-", color=canvas.SERIES[1], markersize=4, label="best batch")
    _mark_failures(axes, iterations, np.isnan(of_batches).sum(axis=1))

    # The axis is linear next to zero, where the lowest energy lies.
    axes.set(xlabel="iteration", ylabel=f"energy above {lowest:.6f}\n(millihartree)")
    axes.set_yscale("symlog", linthresh=_linear_part(above))
    canvas.count_along(axes.xaxis)
    axes.grid(axis="y", color=canvas.GRID)
    axes.set_ylim(bottom=0.0)
    axes.margins(y=0.1)
    canvas.add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _linear_part(above: NDArray[np.float64]) -> float:
    """Up to where the axis is linear: the smallest distance that means something."""
    positive = above[np.isfinite(above) & (above > 1e-7)]
    return float(np.clip(positive.min(initial=1.0), 1e-6, 1.0))


def _mark_failures(axes: Axes, iterations: NDArray[np.intp], failed: NDArray[np.intp]) -> None:
    """Draw a cross with a number at the top of iterations in which batches failed."""
    some = failed > 0
    if not some.any():
        return
    axes.plot(
        iterations[some], np.full(some.sum(), 0.95), "X", color="black", markersize=7, label="failed batches",
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip
    for iteration, number in zip(iterations[some], failed[some], strict=True):
        axes.annotate(
            f"{number}", (iteration, 0.95), xycoords=axes.get_xaxis_transform(), xytext=(6, -4),
            textcoords="offset points",
        )  # fmt: skip


def spaces(
    n_alpha: NDArray[np.float64], n_beta: NDArray[np.float64], n_samples: NDArray[np.float64] | None,
    width: float = canvas.WIDTH,
) -> Figure:  # fmt: skip
    """The numbers of strings of the batches, their range and mean, and of samples after recovery.

    Args:
        n_alpha: (n_iterations, n_batches), NaN where unknown.
        n_beta: the same for beta.
        n_samples: (n_iterations,) different samples that batches are drawn from, or None.
        width: inches.
    """
    iterations = np.arange(1, len(n_alpha) + 1)
    figure = canvas.figure(3.2, width)
    panels = figure.subplots(1, 1 if n_samples is None else 2, squeeze=False)[0]
    for values, marker, color, name in ((n_alpha, "^", 0, "alpha"), (n_beta, "v", 1, "beta")):
        known = np.ma.masked_invalid(values)
        mean = known.mean(axis=1).filled(np.nan)
        panels[0].vlines(iterations, known.min(axis=1).filled(np.nan), known.max(axis=1).filled(np.nan),
                         color=canvas.FAINT)  # fmt: skip
        panels[0].plot(
            iterations, mean, marker=marker, color=canvas.SERIES[color], linestyle="-" if color == 0 else "--",
            markersize=5, label=f"{name} strings",
        )  # fmt: skip
    panels[0].set_ylabel("strings")
    if n_samples is not None:
        panels[1].plot(iterations, n_samples, "s-", color=canvas.SERIES[2], markersize=4, label="samples")
        panels[1].set_ylabel("different samples")
    for axes in panels:
        axes.set_xlabel("iteration")
        canvas.count_along(axes.xaxis)
        axes.set_ylim(bottom=0.0)
        axes.grid(axis="y", color=canvas.GRID)
    handles = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    canvas.add_legend(figure, handles)
    return figure
