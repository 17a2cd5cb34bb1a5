"""What all pictures share: the only door to matplotlib, sizes, colours, and how they are written."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqd_mpi.errors import InputError
from sqd_mpi.files.new_files import check_output, new_binary_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
_SMALL: dict[str, dict[str, Any]] = {".png": {"pil_kwargs": {"optimize": True}}, ".svg": {}}
WIDTH = 10.0  # inches
NARROW = 5.0  # inches, in a page: letters stay readable on a telephone

# Colours of curves. They differ in lightness too; markers and line styles say the same without colour.
SERIES = ("#1c5cab", "#d9631e", "#12876b", "#8a5fc7", "#a8720a")
MARKERS = "os^vD*PX<>"
GRID, FAINT = "#dddddd", "#888888"
ON_COLOR = "#010101"  # black that stays black on a dark page: letters on coloured areas

MOST_CURVES = 10  # with a marker and a name of their own; further ones are drawn faintly

# Colours that a page gives by its style sheet, so that they fit a dark one; black and white are matplotlib's defaults.
THEME = {
    "#000000": "ink", "#ffffff": "surface", GRID: "grid", FAINT: "faint", "#404040": "edge", "#808080": "faint",
    "#cccccc": "grid", "#d3d3d3": "grid", **{color: f"series-{k}" for k, color in enumerate(SERIES)},
}  # fmt: skip


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of a height and a width in inches."""
    need_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def set_heading(figure: Figure, heading: str) -> None:
    """Write the title of a figure, if it has one."""
    if heading:
        figure.suptitle(literal(heading))


def literal(text: str) -> str:
    """A text that matplotlib writes as it is: dollars in names of files begin no formula."""
    return text.replace("$", r"\$")


def count_along(axis: Any) -> None:
    """Put the marks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def add_legend(figure: Figure, handles: Sequence[Any], frameon: bool = False) -> None:
    """Put names beside the panels, or above them where the figure is narrow."""
    wide = figure.get_figwidth() > NARROW
    place: dict[str, Any] = {"loc": "outside right upper"} if wide else {"loc": "outside upper left", "ncols": 3}
    if not wide:
        place.update(fontsize="small", handlelength=1.8, columnspacing=1.2)
    figure.legend(handles=handles, frameon=frameon and wide, **place)


def curve_style(number: int) -> dict[str, Any]:
    """How a curve is drawn: ten differ in marker, colour or line style; further ones are faint."""
    if number >= MOST_CURVES:
        return {"color": FAINT, "linewidth": 0.6}
    line = "-" if number < len(SERIES) else "--"
    return {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number], "linestyle": line, "markersize": 4}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG; returns the files.

    Raises:
        InputError: the folder is not writable.
        WriteError: a file cannot be written.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        check_output(path)
        with new_binary_file(path) as stream:
            figure.savefig(stream, format=path.suffix[1:], dpi=DPI, **_SMALL[path.suffix])
    return paths


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as SVG to stand in a page: letters are text, colours come from the page, nothing is random.

    Args:
        figure: the figure.
        name: of letters and hyphens; begins the names inside, which must differ between figures of one page.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", dpi=DPI, transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    # Letters take the size of the drawing and the fonts of the page.
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1sans-serif", text)
    return re.sub(r"(?<=[:] )#[0-9a-f]{6}", lambda found: _themed(found[0]), text)


def _themed(color: str) -> str:
    """The colour of the page that stands for one of a figure, or the colour itself."""
    return f"var(--{THEME[color]})" if color in THEME else color


def need_matplotlib() -> None:
    """Check that there is matplotlib.

    Raises:
        InputError: if there is none, with what to do.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("pictures need matplotlib; install it with: pip install 'sqd_mpi[report]'") from None
