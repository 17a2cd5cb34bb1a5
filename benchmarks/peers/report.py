"""Medians, ratios and tables of the comparison; pure arithmetic on the records."""

from __future__ import annotations

from statistics import median

from peers.load import QUIET_CORES

OURS = "sqd_mpi"


def spread(samples: list[dict], key: str) -> dict | None:
    """Returns median, min, max and count of a number over the undisturbed samples, or None if no sample has it.

    A number may be a list (several products in one process): then its median is the sample's value. Where every sample
    was disturbed by other work, all are used and `disturbed` is true.
    """
    having = [sample for sample in samples if sample.get(key) not in (None, [])]
    if not having:
        return None
    quiet = [sample for sample in having if (sample.get("other_cores") or 0.0) <= QUIET_CORES]
    values = [median(value) if isinstance(value := sample[key], list) else value for sample in quiet or having]
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "n_samples": len(values),
        "n_disturbed": len(having) - len(quiet),
        "disturbed": not quiet,
    }


def summarise(samples: list[dict]) -> dict:
    """Returns what the tables show of one solver on one input.

    `sigma` comes from products with a dense vector where the solver has such a mode, else from its solve;
    `whole` is the wall time of the whole process of a solve, start-up and structure included.
    """
    solves = [sample for sample in samples if sample["mode"] == "solve" and "error" not in sample]
    products = [sample for sample in samples if sample["mode"] == "sigma" and "error" not in sample]
    last = solves[-1] if solves else {}
    return {
        "sigma": spread(products, "sigma_seconds") or spread(solves, "sigma_seconds"),
        "sigma_in_solve": spread(solves, "sigma_in_solve_seconds") or spread(solves, "sigma_seconds"),
        "setup": spread(products + solves, "setup_seconds"),
        "solve": spread(solves, "solve_seconds"),
        "whole": spread(solves, "wall_seconds"),
        **{key: last.get(key) for key in ("n_sigma", "energy", "residual_norm", "start", "sigma_gflops")},
        "peak_rss_bytes": max((sample.get("peak_rss_bytes") or 0 for sample in samples), default=0) or None,
        "errors": sorted({sample["error"] for sample in samples if "error" in sample}),
    }


def ratios(solvers: dict[str, dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns peer -> variant of sqd_mpi -> how many times as long the peer takes, per sigma and whole."""
    result: dict = {}
    for peer in (name for name in solvers if not name.startswith(OURS)):
        for ours in (name for name in solvers if name.startswith(OURS)):
            pairs = {key: (solvers[peer][key], solvers[ours][key]) for key in ("sigma", "whole")}
            values = {key: a["median"] / b["median"] for key, (a, b) in pairs.items() if a and b}
            result.setdefault(peer, {})[ours] = values
    return result


def energy_spread(solvers: dict[str, dict]) -> float | None:
    """Returns the largest difference between the solvers' energies in hartree, None if fewer than two have one."""
    energies = [summary["energy"] for summary in solvers.values() if summary["energy"] is not None]
    return max(energies) - min(energies) if len(energies) > 1 else None


def tables(record: dict) -> str:
    """Returns the whole comparison as Markdown: the machine, then per input the times and the ratios."""
    machine, versions = record["machine"], record["versions"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads_used']} threads per solver; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; to a residual norm of {record['tol']:g}.",
    ]
    for entry in record["inputs"]:
        parts.append(f"### {entry['name']}: {entry['n_strings']} strings, {entry['dimension']:,} determinants")
        parts.append(_times(entry["solvers"]))
        if entry["ratios"]:
            parts.append(_ratios(entry["ratios"]))
        if entry["energy_spread"] is not None:
            parts.append(f"Energies agree to {entry['energy_spread']:.1e} hartree.")
    parts.extend(f"Skipped {name}: {why}" for name, why in record["skipped"].items())
    if any(_disturbed(entry) for entry in record["inputs"]):
        parts.append(f"`*`: other processes used more than {QUIET_CORES} cores during every sample of this number.")
    return "\n\n".join(parts) + "\n"


def _times(solvers: dict[str, dict]) -> str:
    """Returns the table of times of one input."""
    header = ["solver", "s per sigma", "min to max", "s per sigma in the solve", "n sigma", "set-up s"]
    header += ["whole s", "residual", "energy", "peak GB"]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for name, summary in solvers.items():
        sigma, memory = summary["sigma"], summary["peak_rss_bytes"]
        rows.append(
            [
                name,
                _median(sigma),
                f"{_seconds(sigma['min'])} to {_seconds(sigma['max'])}" if sigma else "",
                _median(summary["sigma_in_solve"]),
                str(summary["n_sigma"] or ""),
                _median(summary["setup"]),
                _median(summary["whole"]),
                f"{summary['residual_norm']:.1e}" if summary["residual_norm"] is not None else "",
                f"{summary['energy']:.10f}" if summary["energy"] is not None else "",
                f"{memory / 1e9:.2f}" if memory else "",
            ]
        )
    failed = [f"{name}: {why}" for name, summary in solvers.items() for why in summary["errors"]]
    return "\n\n".join([_markdown(rows), *failed])


def _ratios(values: dict) -> str:
    """Returns the table of ratios of one input."""
    ours = list(next(iter(values.values())))
    header = ["times as long as"] + [f"{name}, {what}" for name in ours for what in ("sigma", "whole")]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for peer, by_variant in values.items():
        cells = [by_variant.get(name, {}).get(what) for name in ours for what in ("sigma", "whole")]
        rows.append([peer] + ["" if value is None else f"{value:,.3g}" for value in cells])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    """Returns a Markdown table with aligned columns; the second row holds the alignment marks."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(value: dict | None) -> str:
    """Returns a median as text, with a star if every sample was disturbed."""
    return "" if value is None else _seconds(value["median"]) + ("*" if value["disturbed"] else "")


def _seconds(value: float) -> str:
    """Returns seconds with three digits."""
    return f"{value:#.3g}".rstrip(".")


def _disturbed(entry: dict) -> bool:
    """Returns whether a number of this input's tables carries a star."""
    keys = ("sigma", "sigma_in_solve", "setup", "whole")
    return any(summary[key] and summary[key]["disturbed"] for summary in entry["solvers"].values() for key in keys)
