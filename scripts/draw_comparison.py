"""Draws the measured comparison with other programs, read from the table of benchmarks/README.md.

    python scripts/draw_comparison.py [-o docs/pictures/comparison.png]

Seconds of one product of the Hamiltonian with a vector, on a logarithmic scale, for both inputs of that table.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "benchmarks" / "README.md"
# Rows of the table, and what they are called in the picture.
ROWS = {
    "sbd": "sbd-eigensolver 1.7.1 (C++)",
    "pyscf": "PySCF 2.14 (C)",
    "sqd_mpi (no symmetry)": "sqd_mpi, symmetry off",
    "sqd_mpi": "sqd_mpi",
}
INPUTS = {
    1: "H$_2$O, 1,543 strings\n2.4 million determinants",
    3: "N$_2$, 809 strings (sparse)\n0.65 million determinants",
}


def read_seconds(text: str) -> dict[str, list[str]]:
    """Cells of the table's rows by the name in their first cell."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return {row[0]: row for row in rows if row[0] in ROWS and len(row) == 5}


def seconds(cell: str) -> float:
    """The number that a cell begins with."""
    found = re.match(r"[\d,.]+", cell)
    if found is None:
        raise ValueError(f"no number of seconds in {cell!r}")
    return float(found[0].replace(",", ""))


def draw(rows: dict[str, list[str]], path: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 2.3), sharey=True, layout="constrained")
    colours = ["#8a8f98", "#8a8f98", "#7fb2e5", "#1f6fb5"]
    for axis, (column, title) in zip(axes, INPUTS.items(), strict=True):
        values = [seconds(rows[name][column]) for name in ROWS]
        bars = axis.barh(list(ROWS.values()), values, color=colours)
        axis.bar_label(bars, labels=[f"{value:g} s" for value in values], padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 3, max(values) * 12)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.invert_yaxis() if axis is axes[0] else None
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("seconds per product of Hamiltonian and vector, 2 cores", fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main() -> None:
    """Read, draw, say where."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "pictures" / "comparison.png")
    path = parser.parse_args().output
    draw(read_seconds(TABLE.read_text(encoding="utf-8")), path)
    print(path)


if __name__ == "__main__":
    main()
