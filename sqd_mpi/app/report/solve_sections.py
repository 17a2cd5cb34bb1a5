"""Parts of a report on roots: states, convergence, occupations, strings."""

from __future__ import annotations

from typing import Any

import numpy as np

from sqd_mpi.app import figures
from sqd_mpi.app.figures import canvas
from sqd_mpi.app.report import words
from sqd_mpi.app.report.data import MOST_DRAWN_ROOTS, Run
from sqd_mpi.app.report.template import macros
from sqd_mpi.files.summary import Summary
from sqd_mpi.problem import bitstrings

_HARTREE_IN_EV = 27.211386245988  # CODATA 2018
_HEAVIEST = 10  # strings in the table


def states(run: Run) -> str | None:
    """The table of the roots."""
    # Energies.
    summary = run.summary
    columns: list[tuple[str, list[Any]]] = [("energy (hartree)", [words.energy(value) for value in summary.energy])]
    lowest = summary.energy[0]
    if summary.n_roots > 1 and lowest is not None:
        above = [None if value is None else (value - lowest) * _HARTREE_IN_EV for value in summary.energy]
        columns.append(("above root 0 (eV)", [words.number(value, ".4f") for value in above]))

    # How good they are, and of which states they are.
    if summary.converged is not None:
        columns.append(("converged", [macros.verdict(value) for value in summary.converged]))
    for title, values, form in (
        ("residual norm", summary.residual_norm, ".1e"),
        ("⟨S²⟩", summary.spin_square, ".6f"),
        ("Var S²", summary.spin_variance, ".1e"),
        ("second-order correction", summary.energy_pt2, ".8f"),
        ("variance (hartree²)", summary.variance, ".2e"),
    ):
        if values is not None:
            columns.append((title, [words.number(value, form) for value in values]))
    if summary.spin_square is not None:
        pure = summary.spin_pure or [None] * summary.n_roots
        names = [words.spin(value, is_pure) for value, is_pure in zip(summary.spin_square, pure, strict=True)]
        columns.append(("spin", names))
    for title, labels, form in (("sector", summary.sector, "d"), ("parity", summary.spin_flip_parity, "+d")):
        if labels is not None and any(value is not None for value in labels):
            columns.append((title, [words.number(value, form) for value in labels]))

    # One row a root.
    rows = [[f"root {k}", *(cells[k] for _, cells in columns)] for k in range(summary.n_roots)]
    head = ["", *(title for title, _ in columns)]
    return macros.section("States", macros.table(head, rows, caption="Lowest eigenpairs", cards=True))


def convergence(run: Run) -> str | None:
    """Residual norms and energies against the iterations."""
    history = run.history
    if any(name not in history or not len(history[name]) for name in ("energy", "residual_norm")):
        return None
    n = len(history["energy"])
    whole = {"sector": np.zeros(n), "parity": np.zeros(n), **history}
    tol = run.options.get("tol")
    states = figures.states_of(run.summary.sector, run.summary.spin_flip_parity)
    figure = figures.convergence(whole, tol if isinstance(tol, float) and tol > 0 else None, "", canvas.NARROW, states)
    caption = "Residual norms, and how far energies were above the last one, in the order of the work."
    if _has_sectors(history):
        caption += " Other states lie above; they were solved until that was sure."
    drawing = macros.picture(canvas.inline_svg(figure, "convergence"), caption)
    return macros.section("Convergence", drawing, macros.fold("All iterations as a table", *_iteration_table(history)))


def _has_sectors(history: dict[str, Any]) -> bool:
    """Whether more than one symmetry sector was solved."""
    return any(len(set(history[name].tolist())) > 1 for name in ("sector", "parity") if name in history)


def _iteration_table(history: dict[str, Any]) -> list[str | None]:
    n_roots = history["energy"].shape[1]
    shown = min(n_roots, MOST_DRAWN_ROOTS)
    parts = (("energy", "energy", ".10f"), ("residual norm", "residual_norm", ".2e"))
    labels = [(name, form) for name, form in (("sector", "d"), ("parity", "+d")) if _has_sectors(history)]
    labels = [(name, form) for name, form in labels if name in history and history[name].any()]
    head = ["iteration", *(name for name, _ in labels)]
    head += [f"{title}{_of_root(k, n_roots)}" for title, _, _ in parts for k in range(shown)]
    rows = (
        [
            f"{k + 1}",
            *(format(int(history[name][k]), form) for name, form in labels),
            *(words.number(value, form) for _, name, form in parts for value in history[name][k, :shown]),
        ]
        for k in range(len(history["energy"]))
    )
    hint = "States of a sector are counted from 0 within it."
    return [macros.paragraph(hint) if labels and n_roots > 1 else None, macros.table(head, rows)]


def _of_root(root: int, n_roots: int) -> str:
    return f" {root}" if n_roots > 1 else ""


def occupations(run: Run) -> str | None:
    """Occupations of the orbitals, alpha, beta and natural."""
    summary = run.summary
    if not summary.occupancies or not summary.occupancies[0][0]:
        return None
    of_spins = np.array(summary.occupancies, float)
    natural = None
    if summary.natural_occupations:
        natural = np.array(summary.natural_occupations, float)
        if natural.shape[1] != of_spins.shape[2]:
            natural = None
    figure = figures.occupancies(of_spins, natural, canvas.NARROW)
    caption = "Mean occupation of every orbital by alpha (filled, up) and beta (hollow, down) electrons"
    caption += "." if natural is None else ", and occupations of the natural orbitals, both spins together."
    if summary.n_roots > MOST_DRAWN_ROOTS:
        caption += f" The first {MOST_DRAWN_ROOTS} of {summary.n_roots} roots; all are in the table."
    return macros.section("Occupations", macros.picture(canvas.inline_svg(figure, "occupations"), caption),
                   macros.fold("All numbers as a table", _occupation_table(summary, of_spins, natural)))  # fmt: skip


def _occupation_table(summary: Summary, of_spins: Any, natural: Any) -> str:
    head, columns = ["orbital"], []
    for root in range(summary.n_roots):
        name = _of_root(root, summary.n_roots)
        head += [f"α{name}", f"β{name}"]
        columns += [of_spins[root, 0], of_spins[root, 1]]
        if natural is not None:
            head.append(f"natural{name}")
            columns.append(natural[root])
    rows = ([f"{k}", *(words.number(column[k], ".4f") for column in columns)] for k in range(of_spins.shape[2]))
    return macros.table(head, rows)


def strings(run: Run) -> str | None:
    """How the weight is spread over the strings, and the heaviest of them."""
    if set(run.weights) != {"alpha", "beta"} or not all(weights.size for _, weights in run.weights.values()):
        return None
    of_alpha, of_beta = (list(run.weights[spin][1]) for spin in ("alpha", "beta"))
    figure = figures.weights(of_alpha, of_beta, canvas.NARROW)
    caption = "What is left out of each root if only the heaviest strings of one spin are kept."
    norb = run.summary.norb or 64 * run.weights["alpha"][0].shape[1]
    tables = [
        macros.table(
            [f"{spin} strings of root 0, heaviest first", "weight"],
            [(macros.code(text), words.number(weight, ".6f")) for text, weight in _heaviest(*run.weights[spin], norb)],
        )
        for spin in ("alpha", "beta")
    ]
    hint = "The rightmost character is orbital 0."
    return macros.section(
        "Weights of strings", macros.picture(canvas.inline_svg(figure, "weights"), caption),
        macros.fold("The heaviest strings", macros.paragraph(hint), *tables),
    )  # fmt: skip


def _heaviest(found: Any, weights: Any, norb: int) -> list[tuple[str, float]]:
    order = np.argsort(-weights[0], kind="stable")[:_HEAVIEST]
    bits = bitstrings.unpack(np.ascontiguousarray(found[order]), norb)
    texts = ["".join("1" if bit else "0" for bit in row[::-1]) for row in bits]
    return list(zip(texts, weights[0][order].tolist(), strict=True))


def verdict(run: Run) -> str:
    """What must be seen at once: whether all converged, and the warnings."""
    summary = run.summary
    flags = summary.converged or []
    missing = [k for k, value in enumerate(flags) if not value]
    reasons = []
    if missing:
        named = ", ".join(f"root {k}" for k in missing[:10]) + (", …" if len(missing) > 10 else "")
        reasons.append(f"{len(missing)} of {len(flags)} roots did not reach the tolerance ({named}).")
    if summary.loop_converged is False:
        reasons.append("The loop ended before energy and occupancies stopped to change.")
    if summary.all_converged is None and not flags:
        return macros.banner("warn", "? Unknown", "The file does not say whether the run converged.")
    if reasons or summary.all_converged is False:
        text = " ".join(reasons) or "The file says so, but not which root."
        return macros.banner("bad", "✗ NOT CONVERGED", text, "alert")
    if summary.proven is False:
        text = "All roots reached the tolerance, but a symmetry sector that may hold a lower state was not decided."
        return macros.banner("warn", "? NOT PROVEN", text, "alert")
    return macros.banner("good", "✓ Converged", "All roots reached the tolerance.")


def warnings(run: Run) -> str | None:
    """The warnings of the run."""
    if not run.warnings:
        return None
    count = f"{len(run.warnings)} warning{'s' if len(run.warnings) != 1 else ''}"
    return macros.banner("warn", f"! {count}", macros.items(run.warnings))


def tiles(run: Run) -> str:
    """The numbers that are looked for first."""
    summary = run.summary
    shown: list[tuple[str, str]] = [("energy of root 0, hartree", words.energy(summary.energy[0]))]
    for name, values, form in (("residual norm", summary.residual_norm, ".1e"), ("⟨S²⟩", summary.spin_square, ".4f")):
        if values:
            shown.append((name, words.number(values[0], form)))
    shown += [
        ("determinants", words.count(summary.dimension)),
        ("iterations of the loop" if run.is_loop else "iterations",
         words.count(summary.loop_iterations if run.is_loop else summary.n_iterations)),
        ("wall time", words.seconds(summary.wall_seconds)),
    ]  # fmt: skip
    return macros.tiles([(name, value) for name, value in shown if value != words.UNKNOWN])


__all__ = ["convergence", "occupations", "states", "strings", "tiles", "verdict", "warnings"]
