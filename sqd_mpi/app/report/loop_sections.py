"""Parts of a report on the loop: energies, sizes and samples of its iterations, and what failed."""

from __future__ import annotations

from typing import Any

import numpy as np

from sqd_mpi.app import figures
from sqd_mpi.app.figures import canvas
from sqd_mpi.app.report import words
from sqd_mpi.app.report.data import Run
from sqd_mpi.app.report.template import macros

_MOST_FAILURES = 50


def energies(run: Run) -> str | None:
    """Energies of the iterations and their batches."""
    history = run.history
    if not {"energy", "batch_energy"} <= set(history) or not len(history["energy"]):
        return None
    figure = figures.loop_energies(history["energy"][:, 0], history["batch_energy"], canvas.NARROW)
    caption = (
        "Energy of the best batch (diamonds) and of all batches (circles) in every iteration; crosses count failures."
    )
    rows = [_row(history, k) for k in range(len(history["energy"]))]
    head = ["iteration", "energy (hartree)", "best batch", "residual norm", "failed batches", "seconds so far"]
    drawing = macros.picture(canvas.inline_svg(figure, "loop-energies"), caption)
    folded = macros.fold("All iterations as a table", macros.table(head, rows))
    return macros.section("Energies of the iterations", drawing, folded)


def _row(history: dict[str, Any], k: int) -> list[str]:
    def entry(name: str, form: str) -> str:
        return words.number(float(np.ravel(history[name][k])[0]), form) if name in history else words.UNKNOWN

    failed = int(np.isnan(history["batch_energy"][k]).sum())
    numbers = (entry("energy", ".10f"), entry("best_batch", ".0f"), entry("residual_norm", ".1e"))
    return [f"{k + 1}", *numbers, f"{failed}", entry("seconds", ".2f")]


def spaces(run: Run) -> str | None:
    """Sizes of the batches and the samples they are drawn from."""
    history = run.history
    names = ("batch_n_alpha_strings", "batch_n_beta_strings")
    if not set(names) <= set(history) or not len(history[names[0]]):
        return None
    figure = figures.loop_spaces(history[names[0]], history[names[1]], history.get("n_samples"), canvas.NARROW)
    caption = "Numbers of strings of the batches (mean and range), and different samples after recovery."
    children: list[Any] = [macros.picture(canvas.inline_svg(figure, "loop-spaces"), caption)]
    samples = run.summary.samples
    if samples is not None:
        children.append(_samples(samples, history))
    return macros.section("Samples and dimensions", *children)


def _samples(samples: dict[str, float | None], history: dict[str, Any]) -> str:
    """What became of the samples."""
    given, right = samples.get("different"), samples.get("right_electrons")
    rows = [("different samples given", words.number(given, ".0f"))]
    if given is not None and right is not None:
        share = samples.get("right_share")
        weight = "" if share is None else f", {100 * share:.1f} % of all shots"
        rows.append(("kept as they are (right numbers)", f"{right:.0f}{weight}"))
        rows.append(("recovered (wrong numbers of electrons)", f"{given - right:.0f}"))
    if "n_samples" in history and len(history["n_samples"]):
        rows.append(("different ones in the last iteration", f"{history['n_samples'][-1]:.0f}"))
    return macros.pairs(rows)


def failures(run: Run) -> str | None:
    """The batches that failed, with their reasons."""
    failed = run.summary.failed_batches
    if not failed:
        return None
    items = failed[:_MOST_FAILURES]
    if len(failed) > _MOST_FAILURES:
        items = [*items, f"and {len(failed) - _MOST_FAILURES} more, in failed_batches of info --json"]
    return macros.section("Failed batches", macros.items(items))
