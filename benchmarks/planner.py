"""Planned against measured memory, time and messages of grids of 1 to 8 ranks.

    python benchmarks/planner.py input.h5 [--grids 1,1,1,1 2,2,1,1 ...] [--profile P.json] [--repeats 1] [-o F.json]

Every grid is planned first and then run for a few iterations with one thread per rank. Memory is the peak resident
memory of the largest rank, that of an empty process included. Time is the wall time of one sigma where all ranks have
cores of their own, and otherwise the processor time that a rank spends in the tasks of one sigma, which does not depend
on how many ranks share a core. Without --profile `bench` measures the machine first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any

GRIDS = ["1,1,1,1", "1,1,1,2", "1,1,2,1", "2,1,1,1", "1,2,1,1", "2,2,1,1", "1,1,1,4", "2,1,2,1", "4,1,1,1", "1,4,1,1",
         "2,2,2,1", "1,1,1,8", "2,2,1,2", "2,4,1,1"]  # fmt: skip
ITERATIONS = 9  # enough to fill the subspace


def launch(n_ranks: int, arguments: list[str]) -> str:
    """Standard output of the program on some ranks."""
    python = Path(sys.executable)
    command = [str(python.parent / "mpiexec"), "-n", str(n_ranks), str(python), "-m", "sqd_mpi", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def measure(path: Path, grid: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Result summary of the fastest of some short runs on one grid."""
    from sqd_mpi.files.records import read_summary

    n_ranks = prod(int(n) for n in grid.split(","))
    output = folder / "result.h5"
    found = []
    for _ in range(repeats):
        arguments = ["run", str(path), "--grid", grid, "--threads", "1", "--share-blocks", "off"]
        launch(n_ranks, [*arguments, "--max-iterations", str(ITERATIONS), "-o", str(output)])
        found.append(read_summary(output))
    best = min(found, key=lambda summary: summary["sigma_seconds"])
    best["cpu_seconds"] = min(summary["cpu_seconds"] / summary["n_sigma"] for summary in found)
    return best


def compare(plan: Any, summary: dict[str, Any], n_cores: int) -> dict[str, Any]:
    """One line of the table: planned and measured numbers and their ratios."""
    n_ranks = prod(plan.grid)
    row: dict[str, Any] = {
        "grid": ",".join(str(n) for n in plan.grid),
        "fits_cores": n_ranks <= n_cores,
        "memory": [plan.bytes_per_rank, summary["peak_rss_bytes"]],
        "cpu": [sum(plan.compute_seconds.values()), summary["cpu_seconds"]],
        "sigma": [plan.seconds_per_sigma, summary["sigma_seconds"]],
        "bytes": [plan.message_bytes_per_rank, summary["messages"]["bytes"]],
        "ket_blocks": [plan.messages_per_rank, summary["messages"]["ket_blocks"]],
        "balance": [plan.balance, summary["imbalance"]],
    }
    row["memory_ratio"] = row["memory"][0] / row["memory"][1]
    planned, measured = row["sigma"] if row["fits_cores"] else row["cpu"]
    row["time_ratio"] = planned / measured
    return row


def text(rows: list[dict[str, Any]]) -> str:
    """The table for people (Markdown)."""
    lines = [
        "| grid | memory planned, measured (MB) | ratio | time of | planned, measured (ms) | ratio | MB received | "
        "ket blocks | balance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        planned, measured = row["sigma"] if row["fits_cores"] else row["cpu"]
        memory = [f"{value / 1e6:.0f}" for value in row["memory"]]
        lines.append(
            f"| {row['grid']} | {memory[0]}, {memory[1]} | {row['memory_ratio']:.2f} | "
            f"{'sigma' if row['fits_cores'] else 'tasks, CPU'} | {1e3 * planned:.1f}, {1e3 * measured:.1f} | "
            f"{row['time_ratio']:.2f} | {row['bytes'][0] / 1e6:.1f}, {row['bytes'][1] / 1e6:.1f} | "
            f"{row['ket_blocks'][0]}, {row['ket_blocks'][1]} | {row['balance'][0]:.2f}, {row['balance'][1]:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Plan, run, print the table; exit code 1 if memory is off by more than 15 % or time by more than 30 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    from sqd_mpi import planner
    from sqd_mpi.files.records import read_input
    from sqd_mpi.options import parse_grid
    from sqd_mpi.planner.profile import read_profile
    from sqd_mpi.resources import available_cores, available_memory
    from sqd_mpi.solver.davidson import subspace_sizes

    source = read_input(options.input)
    problem = planner.Problem.create(source.hamiltonian, source.strings_a, source.strings_b)
    limits = planner.MemoryLimits(available_memory(), *subspace_sizes(1))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        profile_path = options.profile or folder / "machine.json"
        if options.profile is None:
            launch(min(2, available_cores()), ["bench", "--threads", "1", "-o", str(profile_path)])
        profile = read_profile(profile_path).model_copy(update={"ranks_per_node": None})
        for grid in options.grids:
            plan = planner.predict(problem, parse_grid(grid), profile, 1, limits)  # type: ignore[arg-type]
            rows.append(compare(plan, measure(options.input, grid, folder, options.repeats), available_cores()))
            print(text(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(f"{options.input.name}: {problem.alpha.size} x {problem.beta.size} strings; {profile.name}\n")
    print(text(rows))
    for n_ranks in sorted({prod(map(int, row["grid"].split(","))) for row in rows if row["fits_cores"]}):
        of_size = [row for row in rows if prod(map(int, row["grid"].split(","))) == n_ranks]
        chosen = min(of_size, key=lambda row: row["sigma"][0])
        best = min(of_size, key=lambda row: row["sigma"][1])
        loss = chosen["sigma"][1] / best["sigma"][1]
        print(f"{n_ranks} ranks: planned best {chosen['grid']}, measured best {best['grid']}; loss {loss:.2f}")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(abs(row["memory_ratio"] - 1) > 0.15 or abs(row["time_ratio"] - 1) > 0.3 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
