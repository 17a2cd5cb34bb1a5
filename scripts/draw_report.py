"""Draws docs/pictures/report.png: runs the N2 example with a trace, makes the page, and takes its picture in a browser.

    python scripts/draw_report.py [--ranks N] [--picture docs/pictures/report.png]

Needs the extras [mpi] and [report] and Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COLORS = 128  # of the picture, which keeps it small


def main() -> None:
    """Make the input, run it, make the page, take its picture."""
    options = parse_options()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"a browser is needed: one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example = ROOT / "examples" / "n2" / "make_input.py"
        call([sys.executable, str(example), "--threshold", "0", "-o", str(folder / "n2.h5")], ROOT)
        launcher = Path(sys.executable).parent / "mpiexec"
        program = [sys.executable, "-m", "sqd_mpi"]
        run = [str(launcher if launcher.exists() else "mpiexec"), "-n", str(options.ranks), *program, "run", "n2.h5"]
        call([*run, "--nroots", "3", "--rdm", "1", "--threads", "1", "--trace", "trace.json"], folder)
        call([*program, "report", "result.h5", "--trace", "trace.json", "-o", "report.html"], folder)
        size = f"--window-size={options.width},{options.height}"
        page, shot = folder / "report.html", folder / "report.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'b'}"]
        call([browser, *flags, size, f"--screenshot={shot}", page.as_uri()], folder)
        shrink(shot, options.picture)
    print(f"{options.picture}: {options.picture.stat().st_size / 1e3:.0f} kB")


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="number of ranks (%(default)s)")
    parser.add_argument("--width", type=int, default=1280, metavar="PIXELS", help="of the window (%(default)s)")
    parser.add_argument("--height", type=int, default=1750, metavar="PIXELS", help="of the window (%(default)s)")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "report.png", metavar="FILE")
    options = parser.parse_args()
    options.picture = options.picture.resolve()
    return options


def shrink(source: Path, target: Path) -> None:
    """Write a picture with few colours."""
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).convert("RGB").quantize(COLORS).save(target, optimize=True)


def call(command: list[str], folder: Path) -> None:
    """Run a command in a folder; stop if it fails."""
    print(" ".join(command), flush=True)
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main()
