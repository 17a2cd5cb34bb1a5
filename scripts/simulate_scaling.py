"""Predicts strong scaling from the real structure of an input and a machine profile, task by task.

    python scripts/simulate_scaling.py input.h5 [--ranks 1,2,4,...,1024] [--grid A,B,T,R]... [--profile machine.json]
        [--threads 1] [--spin-flip auto|off] [--sigmas 15] [--json FILE] [--plot FILE]
    python scripts/simulate_scaling.py input.h5 --validate RESULT... [--profile machine.json]
    python scripts/simulate_scaling.py h2o-1em8.h5 --published [--profile scripts/machines/frontier-cores.json]

Every number of ranks gets the grid that the planner chooses; every --grid is simulated as well. --validate simulates
the grids of result files of the same input and puts what they measured beside. --published takes the grids of the table
that was published for h2o 1em8 on Frontier (8 to 1,024 dies) and puts its times beside. Nothing here is measured but
what is said to be: the rest is predicted. Needs no MPI. Exit code 2 and one sentence for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqd_mpi.errors import InputError
from sqd_mpi.options import parse_grid, parse_size
from sqd_mpi.planner.profile import MachineProfile, read_profile
from sqd_mpi.resources import available_cores

DEFAULT_RANKS = tuple(2**k for k in range(11))
# h2o 1em8 on Frontier: dies, grid, seconds of the whole diagonalization, as published with the code `sbd`.
PUBLISHED = (
    (8, (4, 2, 1, 1), 6384.7), (16, (4, 4, 1, 1), 2606.2), (32, (8, 4, 1, 1), 1057.2), (64, (8, 8, 1, 1), 581.1),
    (128, (8, 8, 2, 1), 318.0), (256, (8, 8, 4, 1), 167.0), (512, (8, 8, 8, 1), 99.9), (1024, (8, 8, 16, 1), 67.1),
)  # fmt: skip


def read_problem(path: Path, spin_flip: str) -> Any:
    """What the planner knows about an input file."""
    from sqd_mpi import _jit
    from sqd_mpi.files import records

    source = records.read_input(path)
    _jit.set_threads(min(available_cores(), 4))
    from sqd_mpi import planner

    return planner.Problem.create(source.hamiltonian, source.strings_a, source.strings_b, spin_flip=spin_flip == "auto")


def simulate_all(
    problem: Any, profile: MachineProfile, n_threads: int, ranks: Sequence[int], grids: Sequence[Any], memory: int,
    n_sigma: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for the chosen grid of every number of ranks, and for every grid."""
    from simulation import simulate

    from sqd_mpi import planner
    from sqd_mpi.solver.davidson import subspace_sizes

    limits = planner.MemoryLimits(memory, *subspace_sizes(1))
    shapes = []
    for n_ranks in ranks:
        chosen = planner.make_plan(problem, n_ranks, profile, n_threads, limits).chosen
        if chosen is None:
            print(f"{n_ranks} ranks: no grid fits into {memory / 1e9:.3g} GB per rank", file=sys.stderr)
        else:
            shapes.append(chosen.grid)
    rows = []
    for shape in [*shapes, *grids]:
        plan = planner.predict(problem, shape, profile, n_threads, limits)
        row = simulate(problem, shape, profile, n_threads).to_dict(n_sigma)
        rows.append({**row, "bytes_per_rank": plan.bytes_per_rank, "spin_flip": plan.spin_flip})
    for row in rows:
        first = rows[0]
        row["speed_up"] = first["seconds_per_iteration"] / row["seconds_per_iteration"]
        row["efficiency"] = row["speed_up"] * first["n_ranks"] / row["n_ranks"]
    return rows


def validate(
    problem: Any, profile: MachineProfile, paths: Sequence[Path], print_: str | None = None
) -> list[dict[str, Any]]:
    """One row for every result file: simulated and measured.

    Args:
        problem: the input.
        profile: machine on which the results were made.
        paths: result files.
        print_: fingerprint of the input, or None not to look.
    """
    from simulation import simulate

    from sqd_mpi.files.records import read_run

    rows = []
    for path in paths:
        run = read_run(path)
        summary = run["summary"]
        if print_ is not None and run["fingerprint"] != print_:
            raise InputError(f"{path} is a result of another input")
        if summary.get("cpu_seconds") is None:
            raise InputError(f"{path} lacks cpu_seconds: it was written by an older version")
        shape = tuple(int(n) for n in summary["grid"])
        found = problem if summary["spin_flip_parity"][0] is not None else replace(problem, spin_flip=False)
        row = simulate(found, shape, profile, summary["n_threads"]).to_dict()  # type: ignore[arg-type]
        cores = summary["n_ranks"] * summary["n_threads"]
        rows.append(
            {
                "grid": list(shape),
                "n_ranks": summary["n_ranks"],
                "cpu": [row["compute_seconds"] * summary["n_threads"], summary["cpu_seconds"] / summary["n_sigma"]],
                "imbalance": [row["imbalance"], summary["imbalance"]],
                "ket_blocks": [row["ket_blocks"], summary["messages"]["ket_blocks"]],
                "sigma": [row["seconds_per_sigma"], summary["sigma_seconds"] if cores <= available_cores() else None],
            }
        )
    return rows


def scaling_text(rows: Sequence[dict[str, Any]], title: str) -> str:
    """The simulated table for people."""
    head = ("ranks", "a,b,t,r", "s/sigma", "compute", "wait", "idle", "replicas", "vectors", "imbalance", "ket blocks",
            "s/solve", "speed-up", "efficiency", "GB/rank")  # fmt: skip
    lines = [
        (
            str(row["n_ranks"]), ",".join(map(str, row["grid"])) + ("" if row["spin_flip"] else " *"),
            *(f"{row[name]:.3g}" for name in ("seconds_per_sigma", "compute_seconds", "wait_seconds", "idle_seconds",
              "replica_seconds", "vector_seconds")), f"{row['imbalance']:.3f}", str(row["ket_blocks"]),
            f"{row['seconds_per_solve']:.4g}", f"{row['speed_up']:.1f}", f"{100 * row['efficiency']:.0f} %",
            f"{row['bytes_per_rank'] / 1e9:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    return f"{title}\n{_columns(head, lines)}\n* without spin-flip symmetry. All numbers are predicted."


def published_text(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Published times beside simulated ones on the same grids."""
    head = ("dies", "a,b,t,r", "published s", "speed-up", "predicted s", "speed-up", "imbalance", "s/sigma")
    lines = []
    for (n, shape, seconds), row in zip(PUBLISHED, rows, strict=True):
        lines.append(
            (str(n), ",".join(map(str, shape)), f"{seconds:.1f}", f"{PUBLISHED[0][2] / seconds:.1f}",
             f"{row['seconds_per_solve']:.1f}", f"{rows[0]['seconds_per_solve'] / row['seconds_per_solve']:.1f}",
             f"{row['imbalance']:.3f}", f"{row['seconds_per_sigma']:.3g}")
        )  # fmt: skip
    return f"{title}\n{_columns(head, lines)}\nPublished: sbd on MI250X dies. Ours is predicted, on the same grids."


def validation_text(rows: Sequence[dict[str, Any]]) -> str:
    """Simulated and measured numbers of real runs."""
    head = ("ranks", "a,b,t,r", "CPU s/sigma", "measured", "ratio", "imbalance", "measured", "ket blocks", "measured",
            "s/sigma", "measured")  # fmt: skip
    lines = []
    for row in rows:
        planned, measured = row["cpu"]
        wall = "-" if row["sigma"][1] is None else f"{row['sigma'][1]:.4g}"
        lines.append(
            (str(row["n_ranks"]), ",".join(map(str, row["grid"])), f"{planned:.4g}", f"{measured:.4g}",
             f"{planned / measured:.2f}", *(f"{value:.3f}" for value in row["imbalance"]),
             *(str(value) for value in row["ket_blocks"]), f"{row['sigma'][0]:.4g}", wall)
        )  # fmt: skip
    return _columns(head, lines)


def _columns(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in (head, *lines)) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *lines)
    )


def _ranks(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise InputError(f"--ranks needs positive integers such as 1,2,4,8; got {text!r}")
    return numbers


def draw_simulation(
    rows: Sequence[dict[str, Any]], heading: str, path: str | Path, published: Sequence[tuple[int, float]] = ()
) -> None:
    """Draws simulated scaling: time of a solve over the ranks, and what a sigma consists of.

    Args:
        rows: `Simulation.to_dict` of every number of ranks.
        heading: title.
        path: picture to write.
        published: (ranks, seconds) that another program needed.

    Raises:
        InputError: there is no matplotlib, or the file cannot be written.
    """

    from sqd_mpi.app.figures import canvas

    figure = canvas.figure(5.0)
    left, right = figure.subplots(1, 2)
    ranks = [row["n_ranks"] for row in rows]
    seconds = [row["seconds_per_solve"] for row in rows]
    left.loglog(ranks, seconds, "o-", color="black", label="predicted")
    left.loglog(ranks, [seconds[0] * ranks[0] / n for n in ranks], ":", color="gray", label="ideal")
    if published:
        left.loglog(*zip(*published, strict=True), "s--", color="tab:red", mfc="white", label="published, sbd")
    left.set(xlabel="ranks", ylabel="seconds of a solve")
    left.legend()
    bottom = np.zeros(len(rows))
    parts = ("compute", "wait", "replica", "vector", "idle")
    looks = (("tab:blue", ""), ("tab:orange", "//"), ("tab:green", "\\\\"), ("tab:gray", ".."), ("white", "xx"))
    places = np.arange(len(rows))
    for part, (color, hatch) in zip(parts, looks, strict=True):
        shares = np.array([100 * row[f"{part}_seconds"] / row["seconds_per_sigma"] for row in rows])
        right.bar(places, shares, bottom=bottom, color=color, hatch=hatch, edgecolor="black", linewidth=0.4, label=part)
        bottom += shares
    right.set_xticks(places, [f"{n}" for n in ranks], rotation=60)
    right.set(xlabel="ranks", ylabel="% of a sigma, mean over the ranks")
    right.legend(ncols=3, loc="lower center", fontsize="small")
    figure.suptitle(f"Predicted. {heading}", fontsize="small", wrap=True)
    try:
        figure.savefig(path, dpi=canvas.DPI)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {error}") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence and exit code 2."""
        raise SystemExit(_fail(message))


def _fail(message: str) -> int:
    print(f"simulate_scaling: error: {message}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, simulate, print the table."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--ranks", default=None)
    parser.add_argument("--grid", action="append", default=[])
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", default="64GB", help="memory of a rank (64GB)")
    parser.add_argument("--spin-flip", choices=("auto", "off"), default="auto")
    parser.add_argument("--sigmas", type=int, default=15, help="iterations of a solve (15)")
    parser.add_argument("--validate", nargs="+", type=Path, metavar="RESULT")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    try:
        return _run(parser.parse_args(arguments))
    except InputError as error:
        return _fail(error.typed)


def _run(options: argparse.Namespace) -> int:
    profile = MachineProfile() if options.profile is None else read_profile(options.profile)
    grids: list[Any] = [parse_grid(grid) for grid in options.grid]
    if "auto" in grids or options.threads < 1 or options.sigmas < 1:
        raise InputError("--grid needs four positive integers A,B,T,R, --threads and --sigmas positive integers")
    ranks = _ranks(options.ranks) if options.ranks else [] if grids or options.published else list(DEFAULT_RANKS)
    memory = parse_size(options.memory)
    problem = read_problem(options.input, options.spin_flip)
    title = f"{options.input.name}: {problem.alpha.size} x {problem.beta.size} strings; predicted for {profile.name}"
    if options.validate:
        from sqd_mpi.files import records

        source = records.read_input(options.input)
        print_ = records.fingerprint(source.hamiltonian, source.strings_a, source.strings_b)
        rows = validate(problem, profile, options.validate, print_)
        print(f"{title}\n{validation_text(rows)}")
    else:
        grids = [shape for _, shape, _ in PUBLISHED] if options.published else grids
        ranks = [] if options.published else ranks
        rows = simulate_all(problem, profile, options.threads, ranks, grids, memory, options.sigmas)
        if not rows:
            raise InputError("no grid fits into the memory of a rank")
        print(published_text(rows, title) if options.published else scaling_text(rows, title))
    if options.json:
        data = {"input": options.input.name, "profile": profile.model_dump(), "predicted": True, "rows": rows}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.plot and not options.validate:
        points = [(n, seconds) for n, _, seconds in PUBLISHED] if options.published else []
        draw_simulation(rows, title, options.plot, points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
