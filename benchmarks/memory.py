"""Memory per rank on several grids against the bound 16 D/(a b t r) + 4 D/(a b) numbers plus string structure.

Makes its own input (the strings of lowest orbital-number sum, random weak integrals without symmetry), runs a few
iterations on every grid and compares peak memory, less that of an empty run, with the bound.

    python benchmarks/memory.py [--strings 5000] [--grids 1,1,1,1 2,1,1,1 ...] [-o build/memory.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import combinations, islice
from math import prod
from pathlib import Path

import numpy as np

from sqd_mpi.files import records
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian

GRIDS = ["1,1,1,1", "1,1,1,2", "2,1,1,1", "1,1,2,1", "1,2,1,1", "2,2,1,1", "4,1,1,1", "1,1,2,2", "2,1,1,2", "2,2,2,1"]


def make_input(path: Path, n_strings: int, norb: int = 24, n_electrons: int = 5) -> None:
    """Write an input with the n_strings lowest strings."""
    strings = sorted(combinations(range(norb), n_electrons), key=lambda chosen: (sum(chosen), chosen))
    integers = [sum(1 << k for k in chosen) for chosen in islice(strings, n_strings)]
    rng = np.random.default_rng(0)
    n_pairs = norb * (norb + 1) // 2
    h1e = np.diag(np.linspace(-2.0, 2.0, norb))
    eri = 0.01 * rng.normal(size=n_pairs * (n_pairs + 1) // 2)
    packed = bitstrings.from_integers(integers, norb)
    records.write_input(path, Hamiltonian(h1e, eri, 0.0, norb, (n_electrons,) * 2), packed, packed)


def run(path: Path, grid: str, folder: Path) -> dict[str, object]:
    """Summary of three iterations on one grid."""
    n_ranks = prod(int(n) for n in grid.split(","))
    python = Path(sys.executable)
    command = [str(python.parent / "mpiexec"), "-n", str(n_ranks), str(python), "-m", "sqd_mpi", "run", str(path)]
    command += ["--grid", grid, "--symmetry", "off", "--threads", "1", "--max-iterations", "7"]
    output = folder / "result.h5"
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return records.read_summary(output)


def row(grid: str, summary: dict[str, object], base: int) -> dict[str, object]:
    """One line of the table; all in bytes."""
    a, b, t, r = (int(n) for n in grid.split(","))
    dimension = int(summary["dimension"])  # one sector: symmetry is off  # type: ignore[call-overload]
    structure = int(summary["memory"]["structure"])  # type: ignore[index]
    bound = 8 * (16 * dimension // (a * b * t * r) + 4 * dimension // (a * b)) + structure
    used = int(summary["peak_rss_bytes"]) - base  # type: ignore[call-overload]
    return {"grid": grid, "used": used, "bound": bound, "structure": structure, "ratio": used / bound}


def main() -> int:
    """Run all grids and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=5000)
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_input(folder / "one.h5", 1)
        make_input(folder / "many.h5", options.strings)
        print(f"{options.strings} x {options.strings} strings; MB per rank (maximum over ranks)")
        print(f"{'grid':>10} {'used':>9} {'bound':>9} {'structure':>10} {'used/bound':>11}")
        for grid in options.grids:
            n_ranks = prod(int(n) for n in grid.split(","))
            base = int(run(folder / "one.h5", f"{n_ranks},1,1,1", folder)["peak_rss_bytes"])  # type: ignore[call-overload]
            rows.append(row(grid, run(folder / "many.h5", grid, folder), base))
            numbers = [int(rows[-1][key]) / 1e6 for key in ("used", "bound", "structure")]  # type: ignore[call-overload]
            print(f"{grid:>10} {numbers[0]:9.0f} {numbers[1]:9.0f} {numbers[2]:10.0f} {rows[-1]['ratio']:11.2f}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(rows, indent=1))
    return int(any(float(each["ratio"]) > 1.0 for each in rows))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
