"""Two threads and two ranks against one: seconds per sigma, in turn, beside the same ratio of DGEMM.

    python benchmarks/speedup.py INPUT.h5 [--repeats 5] [--options "--symmetry off --spin-flip off"]

Every sample is a process of its own; the medians of the samples are compared. INPUT.h5 is made by
`python -m sqd_mpi import fcidump`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = {"1 rank x 1 thread": (1, 1), "1 rank x 2 threads": (1, 2), "2 ranks x 1 thread": (2, 1)}
DGEMM = """
import time, numpy as np
n = 1536
a, b, c = (np.ones((n, n)) for _ in range(3))
np.matmul(a, b, out=c)
samples = []
for _ in range(7):
    began = time.perf_counter()
    np.matmul(a, b, out=c)
    samples.append(time.perf_counter() - began)
print(sorted(samples)[3])
"""


def sigma_seconds(ranks: int, threads: int, source: Path, options: list[str], folder: Path) -> float:
    """Mean seconds per sigma of a run to a residual norm of 1e-3."""
    result = folder / "result.h5"
    beside = Path(sys.executable).parent / "mpiexec"
    command = [str(beside) if beside.exists() else "mpiexec", "-n", str(ranks), sys.executable, "-m", "sqd_mpi", "run"]
    command += [str(source), "-o", str(result), "--threads", str(threads), "--tol", "1e-3", *options]
    subprocess.run(command, check=True, capture_output=True)
    shown = subprocess.run(
        [sys.executable, "-m", "sqd_mpi", "info", str(result), "--json"], check=True, capture_output=True, text=True
    )
    return float(json.loads(shown.stdout)["sigma_seconds"])


def dgemm_seconds(threads: int) -> float:
    """Seconds of a matrix product with a number of threads."""
    environment = os.environ | {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", DGEMM], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> int:
    """Take the samples and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--options", default="", help="more options of `run`, in one argument")
    arguments = parser.parse_args()
    if not arguments.input.is_file():
        parser.error(f"{arguments.input} is no file")
    samples: dict[str, list[float]] = {name: [] for name in CASES}
    gemm: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            for name, (ranks, threads) in CASES.items():
                found = sigma_seconds(ranks, threads, arguments.input, arguments.options.split(), Path(folder))
                samples[name].append(found)
            for threads, taken in gemm.items():
                taken.append(dgemm_seconds(threads))
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    first = medians["1 rank x 1 thread"]
    print(f"{'':<20} {'s per sigma':>12} {'least':>9} {'most':>9} {'speed-up':>9}")
    for name, taken in samples.items():
        print(f"{name:<20} {medians[name]:12.4f} {min(taken):9.4f} {max(taken):9.4f} {first / medians[name]:9.2f}")
    one, two = (statistics.median(taken) for taken in gemm.values())
    print(f"DGEMM, 2 threads against 1: {one / two:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
