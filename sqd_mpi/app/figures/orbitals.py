"""Occupations of orbitals and weights of strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.app.figures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROOTS = 10  # drawn; the tables of a report hold all
_MOST_POINTS = 200  # of a curve of weights


def occupancies(
    of_spins: NDArray[np.float64], natural: NDArray[np.float64] | None = None, width: float = canvas.WIDTH
) -> Figure:
    """A row for every root: occupation of each orbital by alpha and beta, and natural occupations beside.

    Args:
        of_spins: (nroots, 2, norb), alpha and beta.
        natural: (nroots, norb), descending, or None.
        width: inches.
    """
    n_rows = min(len(of_spins), MOST_ROOTS)
    figure = canvas.figure(1.1 + 1.15 * n_rows, width)
    panels = figure.subplots(n_rows, 1 if natural is None else 2, squeeze=False, sharex=True, sharey="col")
    for root in range(n_rows):
        axes = panels[root, 0]
        _draw_spins(axes, of_spins[root])
        axes.set_ylabel("occupation" if n_rows == 1 else f"root {root}")
        if natural is not None:
            _draw_natural(panels[root, 1], natural[root])
    for axes in panels[-1]:
        axes.set_xlabel("orbital")
        canvas.count_along(axes.xaxis)
    canvas.add_legend(figure, [handle for axes in panels[0] for handle in axes.get_legend_handles_labels()[0]])
    return figure


def _draw_spins(axes: Axes, occupations: NDArray[np.float64]) -> None:
    orbitals = np.arange(occupations.shape[1])
    small = 5 if len(orbitals) <= 40 else 2.5
    axes.vlines(orbitals, 0.0, occupations.max(axis=0), color=canvas.GRID, linewidth=1.0)
    # Beside each other: where both spins are occupied alike, neither must hide the other.
    axes.plot(orbitals - 0.15, occupations[0], "^", color=canvas.SERIES[0], markersize=small, label="alpha")
    axes.plot(
        orbitals + 0.15,
        occupations[1],
        "v",
        color=canvas.SERIES[1],
        markersize=small,
        label="beta",
        markerfacecolor="none",
    )
    axes.set_ylim(-0.08, 1.08)


def _draw_natural(axes: Axes, occupations: NDArray[np.float64]) -> None:
    orbitals = np.arange(len(occupations))
    axes.bar(orbitals, occupations, width=0.8, color=canvas.SERIES[2], label="natural orbitals")
    axes.set_ylim(0.0, 2.08)


def weights(of_alpha: Sequence[NDArray[np.float64]], of_beta: Sequence[NDArray[np.float64]], width: float) -> Figure:
    """For both spins, the weight that is left out when only the n heaviest strings are kept, against n.

    Args:
        of_alpha: for every root (n_alpha,) weights of its strings in any order.
        of_beta: the same for beta.
        width: inches.
    """
    figure = canvas.figure(3.2, width)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, spin, roots in zip(panels, ("alpha", "beta"), (of_alpha, of_beta), strict=True):
        for root, values in enumerate(roots[:MOST_ROOTS]):
            numbers, left = left_out(values)
            shown = left > 1e-14
            style = canvas.curve_style(root)
            every = max(1, len(numbers) // 6)
            axes.plot(numbers[shown], left[shown], **style, markevery=(root % every, every), label=f"root {root}")
        axes.set(xscale="log", xlabel=f"{spin} strings kept")
        if any((left_out(values)[1] > 1e-14).any() for values in roots[:MOST_ROOTS]):
            axes.set_yscale("log")
        axes.grid(color=canvas.GRID)
    panels[0].set_ylabel("weight left out")
    if len(of_alpha) > 1:
        canvas.add_legend(figure, panels[0].get_legend_handles_labels()[0])
    return figure


def left_out(values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Numbers of strings, at most some hundred, and what (n,) weights have beyond so many of the heaviest."""
    ordered = np.sort(np.asarray(values, float))  # the lightest first, so that small weights add up exactly
    rest = np.concatenate([np.cumsum(ordered)[::-1][1:], [0.0]])
    numbers = np.unique(np.geomspace(1, len(ordered), min(_MOST_POINTS, len(ordered))).round().astype(np.intp))
    return numbers, rest[numbers - 1]
