"""Draws the picture of docs/sigma.md: the factorised sigma, one group of alpha excitations and the same-spin part.

python scripts/draw_sigma.py [--pictures docs/pictures]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INK = "#202020"
ROWS, COLUMNS = 9, 8
KETS, SIGNS, BRAS = (1, 4, 6), "+\N{MINUS SIGN}+", (2, 5, 8)
LOOKS = (("#9ccbe8", ""), ("#fee0b6", "////"), ("#d8b8e0", "...."))


def main() -> None:
    """Draw the picture and say how large the file is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures", metavar="DIR", help="where to")
    target = parser.parse_args().pictures.resolve() / "sigma.png"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(8.8, 3.1), layout="constrained")
    panel.set_xlim(-1.4, 44.4)
    panel.set_ylim(12.2, -2.6)
    panel.set_aspect("equal")
    panel.set_axis_off()
    matrix(panel, 0, "C", KETS)
    arrow(panel, 8.5, 12.2, "gather\nrows I',\ntimes sign")
    tile(panel, 12.8, "G")
    panel.text(21.7, 4.5, "x", size=16, ha="center", va="center")
    sparse(panel, 22.8)
    arrow(panel, 31.4, 35.2, "scatter\nto rows I")
    matrix(panel, 35.8, "sigma", BRAS)
    lines = (
        "One group: all alpha singles I' -> I that move an electron from q to p.",
        "Every row of the group meets the same sparse beta matrix M; only p and q decide its values.",
    )
    for row, text in enumerate(lines):
        panel.text(0, 10.6 + 1.3 * row, text, size=9)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=140, facecolor="white")
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


def rectangle(panel: Any, x: float, y: float, width: float, height: float, **look: Any) -> None:
    """Draw a rectangle."""
    from matplotlib.patches import Rectangle

    panel.add_patch(Rectangle((x, y), width, height, **({"facecolor": "white", "edgecolor": INK} | look)))


def matrix(panel: Any, x: float, name: str, rows: tuple[int, ...]) -> None:
    """A matrix of alpha by beta strings with some rows marked."""
    for row in range(ROWS):
        rectangle(panel, x, row, COLUMNS, 1, linewidth=0.4)
    for (color, hatch), row in zip(LOOKS, rows, strict=True):
        rectangle(panel, x, row, COLUMNS, 1, facecolor=color, hatch=hatch)
    rectangle(panel, x, 0, COLUMNS, ROWS, facecolor="none", linewidth=1.4)
    panel.text(x + COLUMNS / 2, -0.4, name, ha="center", size=11, style="italic")
    panel.text(x + COLUMNS / 2, -1.7, "beta strings", ha="center", size=7.5)
    if x == 0:
        panel.text(x - 0.3, ROWS / 2, "alpha strings", ha="right", va="center", rotation=90, size=7.5)


def arrow(panel: Any, start: float, end: float, text: str) -> None:
    """An arrow between two parts."""
    panel.annotate(
        "", xy=(end, 4.5), xytext=(start, 4.5), arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.5}
    )
    panel.text((start + end) / 2, 3.9, text, ha="center", va="bottom", size=7.5)


def tile(panel: Any, x: float, name: str) -> None:
    """The gathered rows of a group."""
    for lane, ((color, hatch), sign) in enumerate(zip(LOOKS, SIGNS, strict=True)):
        rectangle(panel, x, 3 + lane, COLUMNS, 1, facecolor=color, hatch=hatch)
        text = {
            "ha": "center",
            "va": "center",
            "size": 8,
            "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        }
        panel.text(x + 0.6, 3.5 + lane, sign, **text)
    panel.text(x + COLUMNS / 2, -0.4, name, ha="center", size=11, style="italic")


def sparse(panel: Any, x: float) -> None:
    """The sparse beta matrix of a group: squares where two beta strings differ by a single, and the diagonal."""
    rectangle(panel, x, 0.5, COLUMNS, COLUMNS, linewidth=1.4)
    singles = {(0, 2), (0, 5), (1, 3), (1, 6), (2, 4), (3, 7), (4, 6), (5, 7), (2, 7)}
    for row in range(COLUMNS):
        for column in range(COLUMNS):
            if row == column or (row, column) in singles or (column, row) in singles:
                color = "#989898" if row == column else "#08306b"
                rectangle(panel, x + column + 0.15, row + 0.65, 0.7, 0.7, facecolor=color, linewidth=0)
    panel.text(x + COLUMNS / 2, -0.4, "M of (p, q)", ha="center", size=11, style="italic")
    panel.text(x + COLUMNS / 2, -1.7, "dark: beta singles, grey: beta stays", ha="center", size=7.5)


if __name__ == "__main__":
    main()
