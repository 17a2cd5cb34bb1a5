"""Draws the pictures of docs/time_lines.md: runs the N2 example on four ranks with a trace and reports on it.

    python scripts/draw_time_lines.py [--ranks N] [--grid A,B,T,R] [--pictures docs/pictures]

The input has all strings of 12 orbitals unless --input names another file. Needs the extras [mpi] and [report].
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ("time_line", "phases")


def main() -> None:
    """Make the input, run it, draw, keep the PNGs."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.input or make_input(folder / "n2.h5")
        launcher = Path(sys.executable).parent / "mpiexec"
        command = [str(launcher if launcher.exists() else "mpiexec"), "-n", str(options.ranks), *program()]
        call([*command, "run", str(source), "-o", "result.h5", *run_options(options)], folder)
        call([*program(), "report", "result.h5", "--trace", "trace.json.gz", "-o", "report"], folder)
        options.pictures.mkdir(parents=True, exist_ok=True)
        for picture in PICTURES:
            target = options.pictures / f"{picture}.png"
            shutil.copyfile(folder / "report" / f"{picture}.png", target)
            print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path, metavar="FILE", help="input file instead of the example")
    parser.add_argument("--ranks", type=int, default=4, metavar="N", help="number of ranks (%(default)s)")
    parser.add_argument("--grid", default="2,2,1,1", metavar="A,B,T,R", help="process grid (%(default)s)")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures", metavar="DIR", help="where to")
    options = parser.parse_args()
    options.input = options.input and options.input.resolve()
    options.pictures = options.pictures.resolve()
    return options


def run_options(options: argparse.Namespace) -> list[str]:
    """Options of the run: one thread a rank, and every ket element travels, as it would between nodes."""
    alone = ["--threads", "1", "--spin-flip", "off", "--share-blocks", "off"]
    return ["--grid", options.grid, *alone, "--trace", "trace.json.gz"]


def make_input(path: Path) -> Path:
    """Write the input of the example with all strings of its 12 orbitals."""
    call([sys.executable, str(ROOT / "examples" / "n2" / "make_input.py"), "--threshold", "0", "-o", str(path)], ROOT)
    return path


def program() -> list[str]:
    """The command that starts sqd_mpi."""
    return [sys.executable, "-m", "sqd_mpi"]


def call(command: list[str], folder: Path) -> None:
    """Run a command in a folder; stop if it fails."""
    print(" ".join(command), flush=True)
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main()
