"""Draws the picture of docs/grid.md: blocks, ranks, slides and tasks of an (a, b, t, r) grid.

python scripts/draw_grid.py [--pictures docs/pictures]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
A, B, T, R = 3, 2, 2, 2
BRA = (1, 0)
KINDS = {"mixed": ("#9ccbe8", ""), "alpha": ("#fee0b6", "////"), "beta": ("#d8b8e0", "....")}
INK = "#202020"


def main() -> None:
    """Draw the three panels and say how large the file is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures", metavar="DIR", help="where to")
    target = parser.parse_args().pictures.resolve() / "grid.png"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplot_mosaic(
        [["blocks", "slides"], ["tasks", "tasks"]], figsize=(8.2, 7.2), height_ratios=(1.25, 1.0), layout="constrained"
    )
    axes = [panels[name] for name in ("blocks", "slides", "tasks")]
    draw_blocks(axes[0])
    draw_slides(axes[1])
    draw_tasks(axes[2])
    for panel in axes:
        panel.set_axis_off()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, facecolor="white")
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


def box(panel: Any, x: float, y: float, width: float, height: float, text: str = "", **look: Any) -> None:
    """Draw a rectangle with a text in its middle."""
    size = look.pop("size", 9)
    settings = {"facecolor": "white", "edgecolor": INK, "linewidth": 1.0} | look
    from matplotlib.patches import Rectangle

    panel.add_patch(Rectangle((x, y), width, height, **settings))
    ground = {"facecolor": settings["facecolor"], "edgecolor": "none", "pad": 1.0} if settings.get("hatch") else None
    panel.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=size, color=INK, bbox=ground)


def frame(panel: Any, title: str) -> None:
    """Set limits and title of a panel that holds the matrix C."""
    panel.set_xlim(-0.55, B * 1.5 + 0.75)
    panel.set_ylim(A + 0.5, -0.45)
    panel.set_title(title, size=11, loc="left")
    panel.text(B * 0.75, -0.12, "beta strings", ha="center", size=9)
    panel.text(-0.12, A / 2, "alpha strings", va="center", ha="right", rotation=90, size=9)


def draw_blocks(panel: Any) -> None:
    """The matrix C in blocks, and the ranks that share one of them."""
    frame(panel, f"{A} x {B} blocks of C")
    for ia in range(A):
        for ib in range(B):
            mine = (ia, ib) == BRA
            box(panel, 1.5 * ib, ia, 1.5, 1, "" if mine else f"({ia}, {ib})", facecolor="#fff3c4" if mine else "white")
    x, y = 1.5 * BRA[1], BRA[0]
    for ir in range(R):
        for it in range(T):
            left, top = x + 0.06 + it * 0.7, y + 0.05 + ir * 0.46
            box(
                panel,
                left,
                top,
                0.66,
                0.42,
                f"t={it}\nr={ir}",
                facecolor="#9ccbe8" if it == ir == 0 else "white",
                size=7,
            )
    panel.text(0, A + 0.12, f"Each block belongs to t r = {T * R} ranks:", size=9, va="top")
    panel.text(0, A + 0.3, "r: halves of its rows;  t: shares of its tasks", size=9, va="top")


def draw_slides(panel: Any) -> None:
    """Where the ket blocks of one bra block come from."""
    frame(panel, "slides to the bra block (1, 0)")
    for ia in range(A):
        for ib in range(B):
            shift = (ia - BRA[0]) % A, (ib - BRA[1]) % B
            mine = shift == (0, 0)
            box(panel, 1.5 * ib, ia, 1.5, 1, facecolor="#fff3c4" if mine else "white")
            text = "bra block\n(da, db) = (0, 0)" if mine else f"({shift[0]}, {shift[1]})"
            panel.text(1.5 * ib + 0.75, ia + 0.5, text, ha="center", va="center", size=8.5)
    arrow = {"arrowstyle": "-|>", "color": "#b35806", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    for start, end in (
        ((0.35, 0.75), (0.35, 1.15)), ((0.35, 2.25), (0.35, 1.85)), ((1.75, 1.5), (1.42, 1.5)),
        ((1.7, 0.8), (1.3, 1.15)), ((1.7, 2.2), (1.3, 1.85)),
    ):  # fmt: skip
        panel.annotate("", xy=end, xytext=start, arrowprops=arrow)
    panel.text(0, A + 0.12, "A shift counts round the edge (a torus). The next", size=9, va="top")
    panel.text(0, A + 0.3, "ket block travels while the present one is used.", size=9, va="top")


def draw_tasks(panel: Any) -> None:
    """The tasks of a bra block, assigned to its task groups."""
    panel.set_xlim(-0.6, 9.2)
    panel.set_ylim(A + 0.5, -0.45)
    panel.set_title(f"a b + a + b = {A * B + A + B} tasks, dealt to {T} task groups", size=11, loc="left")
    tasks = [("mixed", da, db, 1.6 if (da, db) == (0, 0) else 1.25) for da in range(A) for db in range(B)]
    tasks += [("alpha", da, 0, 1.0 if da == 0 else 0.7) for da in range(A)]
    tasks += [("beta", 0, db, 1.0 if db == 0 else 0.7) for db in range(B)]
    ends = [0.0] * T
    for kind, da, db, cost in sorted(tasks, key=lambda task: -task[3]):
        group = ends.index(min(ends))
        color, hatch = KINDS[kind]
        box(panel, ends[group], 0.45 + group, cost, 0.62, f"{da},{db}", facecolor=color, hatch=hatch, size=8)
        ends[group] += cost
    for group in range(T):
        panel.text(-0.12, 0.76 + group, f"t={group}", ha="right", va="center", size=9)
    panel.annotate("", xy=(6.8, 0.25), xytext=(0, 0.25), arrowprops={"arrowstyle": "->", "color": INK})
    panel.text(0, 0.16, "predicted cost (widths are made up)", size=8.5)
    texts = (
        ("mixed", "coupling of both spins, alpha string moves: each (da, db)"),
        ("alpha", "H of the alpha electrons: each (da, 0)"),
        ("beta", "H of the beta electrons, coupling with beta alone: each (0, db)"),
    )
    for row, (kind, text) in enumerate(texts):
        color, hatch = KINDS[kind]
        box(panel, 0, 2.42 + 0.3 * row, 0.5, 0.2, facecolor=color, hatch=hatch)
        panel.text(0.65, 2.52 + 0.3 * row, f"{kind}: {text}", va="center", size=8.5)
    panel.text(0, A + 0.3, "Each r computes its own rows of every task of its group.", size=9, va="top")


if __name__ == "__main__":
    main()
