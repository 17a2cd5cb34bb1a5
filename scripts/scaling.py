"""Strong and weak scaling studies: runs or submits the cases, collects the results, prints a table, plots.

    python scripts/scaling.py run input.h5 --ranks 1,2,4,8 -o study --plot study.png -- --tol 1e-5
    python scripts/scaling.py run small.h5 middle.h5 large.h5 --ranks 1,2,4 -o weak          # weak: an input for each
    python scripts/scaling.py submit perlmutter-cpu input.h5 --nodes 1,2,4,8 -o study --set account=m1234
    python scripts/scaling.py collect study --json

`run` starts every case on this machine with the mpiexec beside this Python, repeats interleaved; `submit` makes one
Slurm job of each number of nodes with slurm/render.py; `collect` reads the result files of a folder. What stands
after -- are options of `python -m sqd_mpi run`. Results of one input are strong scaling, of several inputs weak
scaling. Exit code 2 and one sentence for bad input or options.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "slurm")]

import render

from sqd_mpi.errors import InputError
from sqd_mpi.options import parse_grid
from sqd_mpi.resources import available_cores

STUDY = "study.json"
DEFAULT_RANKS = (1, 2, 4, 8)
ENERGY_TOLERANCE = 1e-8
MEASURES = {"solve": "solve_seconds", "sigma": "sigma_seconds", "wall": "wall_seconds"}
MEASURE_TEXTS = {"solve": "solve", "sigma": "one sigma", "wall": "start to result"}

# Phases of the result file that make up a solve; what is left of it is "other".
PHASES = {
    "compute": ("mixed", "alpha", "beta"),
    "wait": ("wait",),
    "replicas": ("collect", "scatter"),
    "reduce": ("reduce",),
    "vectors": ("vectors",),
    "structure": ("symmetry", "structure", "model space"),
}
OTHER = "other"


class StudyError(ValueError):
    """Bad input or options: one sentence for the user, and exit code 2."""


@dataclass(frozen=True)
class Case:
    """One point of a study on this machine."""

    input: Path
    """Input file."""
    n_ranks: int
    """Number of ranks."""
    grid: str
    """Process grid A,B,T,R, or auto."""
    n_threads: int
    """Threads of a rank."""

    def name(self, repeat: int) -> str:
        """Name of the result file of one repeat."""
        grid = self.grid.replace(",", "x")
        return f"{self.input.stem}-{self.n_ranks}ranks-{grid}-{self.n_threads}threads-{repeat}.h5"


@dataclass(frozen=True)
class Run:
    """What one result file says."""

    fingerprint: str
    """Which problem was solved."""
    summary: dict[str, Any]
    """Fields of `info --json`."""
    timings: dict[str, tuple[float, float, float]]
    """Seconds of every phase: minimum, mean and maximum over the ranks."""


def local_cases(
    inputs: Sequence[Path], ranks: Sequence[int], grids: Sequence[str], threads: Sequence[int]
) -> list[Case]:
    """Cases of a study on this machine.

    Args:
        inputs: one for strong scaling; for weak scaling one for each number of ranks (or grid).
        ranks: numbers of ranks whose grid the program chooses; 1, 2, 4, 8 where no grids are given either.
        grids: A,B,T,R texts; their products are the numbers of ranks.
        threads: threads of a rank; every case is run with each.

    Raises:
        StudyError: the inputs are neither one nor as many as the grids or numbers of ranks.
    """
    shapes = [(n, "auto") for n in ranks] + [(math.prod(parse_grid(grid)), grid) for grid in grids]
    shapes = shapes or [(n, "auto") for n in DEFAULT_RANKS]
    if len(inputs) not in (1, len(shapes)):
        raise StudyError(f"weak scaling needs an input for each of the {len(shapes)} cases; got {len(inputs)}")
    several = list(inputs) * (len(shapes) if len(inputs) == 1 else 1)
    return [
        Case(path, n_ranks, grid, n_threads)
        for n_threads in threads
        for path, (n_ranks, grid) in zip(several, shapes, strict=True)
    ]


def run_study(cases: Sequence[Case], folder: Path, repeats: int, options: Sequence[str]) -> None:
    """Run all cases on this machine, one repeat of each after the other, so that a disturbance hits all alike.

    Raises:
        StudyError: a run does not end with a result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDY).write_text(json.dumps({"cores": available_cores()}) + "\n")
    mpiexec = Path(sys.executable).parent / "mpiexec"
    launcher = str(mpiexec) if mpiexec.exists() else "mpiexec"
    for repeat in range(1, repeats + 1):
        for case in cases:
            result = folder / case.name(repeat)
            command = [launcher, "-n", str(case.n_ranks), sys.executable, "-m", "sqd_mpi", "run", str(case.input)]
            command += ["-o", str(result), "--grid", case.grid, "--threads", str(case.n_threads), *options]
            print(f"{result.name} (repeat {repeat} of {repeats})", file=sys.stderr, flush=True)
            _run(command)


def _run(command: Sequence[str]) -> None:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise StudyError(f"there is no {command[0]}; install an MPI with: pip install 'sqd_mpi[mpi]'") from None
    if done.returncode not in (0, 3):  # 3: not converged, as in a study of a few iterations
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StudyError(f"{' '.join(command)} ends with code {done.returncode}: {last}")


def submit_study(
    machine: str, inputs: Sequence[Path], nodes: Sequence[int], folder: Path, settings: dict[str, str],
    options: Sequence[str], submit: bool = True,
) -> list[str]:  # fmt: skip
    """Write a Slurm script for each number of nodes and submit it; returns a line on each.

    Raises:
        StudyError: the inputs are neither one nor as many as the numbers of nodes.
    """
    if len(inputs) not in (1, len(nodes)):
        raise StudyError(
            f"weak scaling needs an input for each of the {len(nodes)} numbers of nodes; got {len(inputs)}"
        )
    several = list(inputs) * (len(nodes) if len(inputs) == 1 else 1)
    jobs = []
    for path, n in zip(several, nodes, strict=True):
        name = f"{path.stem}-{n}nodes"
        jobs.append(render.Job(path, folder / f"{name}.sh", folder / f"{name}.h5", name, n, tuple(options)))
    render.check_run_options(render.run_options(settings, jobs[0]), jobs[0].input)
    scripts = render.write_scripts(machine, settings, jobs)
    return [f"{script}: job {render.submit(script)}" if submit else str(script) for script in scripts]


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], int | None]:
    """The results in files and folders, and the cores of the machine where a study of this program ran on it.

    Raises:
        StudyError: there are none.
    """
    from sqd_mpi.files.records import read_summary

    runs, cores = [], None
    for path in paths:
        if (path / STUDY).is_file():
            cores = int(json.loads((path / STUDY).read_text())["cores"])
        for file_path in sorted(path.glob("*.h5")) if path.is_dir() else [path]:
            fingerprint, timings = _timings(file_path)
            if fingerprint is not None:
                runs.append(Run(fingerprint, read_summary(file_path), timings))
    if not runs:
        raise StudyError(f"there are no results in {', '.join(str(path) for path in paths)}")
    return runs, cores


def _timings(path: Path) -> tuple[str | None, dict[str, tuple[float, float, float]]]:
    """Fingerprint and phases of a result; None for files of another kind."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != "sqd_mpi-result":
                return None, {}
            timings = {name: tuple(float(x) for x in values) for name, values in file["timings"].attrs.items()}
            return str(file.attrs["fingerprint"]), timings
    except (OSError, KeyError) as error:
        raise StudyError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def analyse(runs: Sequence[Run], cores: int | None = None, measure: str | None = None) -> dict[str, Any]:
    """What a study found, as an object that JSON can hold.

    Repeats of a case are reduced to their medians. T0 is the time of the fastest case of the smallest number p0 of
    cores (ranks x threads). With one input (strong scaling) the speed-up is T0 / T and the efficiency that divided
    by p / p0; with several (weak scaling) the efficiency is T0 / T and the speed-up that times p / p0.

    Args:
        runs: results.
        cores: cores of the machine that all of them ran on, if they did; cases that need more are marked.
        measure: solve, sigma or wall: the time to compare; by default solve for strong, sigma for weak scaling, whose
            inputs may need different numbers of iterations.
    """
    cases: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        summary = run.summary
        key = (summary["n_ranks"] * summary["n_threads"], summary["n_ranks"], tuple(summary["grid"]), run.fingerprint)
        cases.setdefault(key, []).append(run)
    problems = {run.fingerprint for run in runs}
    measure = measure or ("solve" if len(problems) == 1 else "sigma")
    rows = [_row(cases[key], cores, MEASURES[measure]) for key in sorted(cases)]
    base = min(rows, key=lambda row: (row["cores"], row["seconds"]))
    for row in rows:
        ratio, share = base["seconds"] / row["seconds"], row["cores"] / base["cores"]
        row["speed_up"] = ratio if len(problems) == 1 else ratio * share
        row["efficiency"] = row["speed_up"] / share
    return {
        "scaling": "strong" if len(problems) == 1 else "weak",
        "measure": measure,
        "machine_cores": cores,
        "rows": rows,
        "notes": list(_notes(rows, cases.values(), cores)),
    }


def _row(runs: Sequence[Run], cores: int | None, field: str) -> dict[str, Any]:
    """Medians of the repeats of one case."""
    first = runs[0].summary
    times = [float(run.summary[field]) for run in runs]
    used = first["n_ranks"] * first["n_threads"]
    row = {
        "n_ranks": first["n_ranks"],
        "n_threads": first["n_threads"],
        "cores": used,
        "grid": list(first["grid"]),
        "dimension": first["dimension"],
        "sector_dimension": first["sector_dimension"],
        "n_sigma": first["n_sigma"],
        "repeats": len(runs),
        "seconds": median(times),
        "seconds_min": min(times),
        "seconds_max": max(times),
        "solve_seconds": median(float(run.summary["solve_seconds"]) for run in runs),
        "peak_rss_bytes": max(run.summary["peak_rss_bytes"] for run in runs),
        "oversubscribed": cores is not None and used > cores,
        "all_converged": all(run.summary["all_converged"] for run in runs),
        "shares": {name: median(shares[name] for shares in map(phase_shares, runs)) for name in (*PHASES, OTHER)},
    }
    processor = [float(run.summary["cpu_seconds"]) for run in runs if run.summary.get("cpu_seconds") is not None]
    return {**row, "cpu_seconds": median(processor)} if processor else row


def phase_shares(run: Run) -> dict[str, float]:
    """Share of every phase in the solve, from its mean over the ranks."""
    solve = float(run.summary["solve_seconds"])
    means = {
        name: sum(run.timings.get(part, (0.0, 0.0, 0.0))[1] for part in parts) / solve for name, parts in PHASES.items()
    }
    return {**means, OTHER: max(0.0, 1.0 - sum(means.values()))}


def _notes(rows: Sequence[dict[str, Any]], cases: Any, cores: int | None) -> Iterator[str]:
    """Sentences on what the table must not be read for."""
    if any(row["oversubscribed"] for row in rows):
        yield (
            f"* more ranks x threads than the {cores} cores of this machine: seconds, speed-up, efficiency and shares "
            "of these rows say nothing about a machine with enough cores"
        )
    if not all(row["all_converged"] for row in rows):
        yield "not all runs converged: compare the time of one sigma (--measure sigma)"
    energies: dict[str, list[float]] = {}
    for run in (run for case in cases for run in case if run.summary["all_converged"]):
        energies.setdefault(run.fingerprint, []).append(run.summary["energy"][0])
    spread = max((max(values) - min(values) for values in energies.values()), default=0.0)
    if spread > ENERGY_TOLERANCE:
        yield f"the energies of one input differ by {spread:.1e} hartree between the runs"


def table(study: dict[str, Any]) -> str:
    """The study for people."""
    rows = study["rows"]
    processor = any("cpu_seconds" in row for row in rows)
    head = ["ranks", "threads", "grid", "coefficients", "runs", "seconds", "min", "max", "speed-up", "efficiency"]
    head += (["CPU s/rank"] if processor else []) + [*PHASES, OTHER]
    lines = [head]
    for row in rows:
        star = "*" if row["oversubscribed"] else ""
        cells = [f"{row['n_ranks']}{star}", str(row["n_threads"]), ",".join(map(str, row["grid"]))]
        cells += [f"{row['sector_dimension']:.3g}", str(row["repeats"])]
        cells += [f"{row[name]:.4g}" for name in ("seconds", "seconds_min", "seconds_max")]
        cells += [f"{row['speed_up']:.2f}", f"{100 * row['efficiency']:.0f} %"]
        cells += [f"{row['cpu_seconds']:.4g}" if "cpu_seconds" in row else "-"] if processor else []
        cells += [f"{100 * row['shares'][name]:.0f} %" for name in (*PHASES, OTHER)]
        lines.append(cells)
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    title = f"{study['scaling']} scaling; seconds of {MEASURE_TEXTS[study['measure']]}, medians; shares of the solve"
    return "\n".join([title, *text, *study["notes"]])


def plot(study: dict[str, Any], path: Path) -> None:
    """Draw time, speed-up, efficiency and the share of phases.

    Raises:
        StudyError: there is no matplotlib, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise StudyError("--plot needs matplotlib; install it with: pip install 'sqd_mpi[report]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    rows = study["rows"]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    figure.suptitle(f"{study['scaling'].capitalize()} scaling: seconds of {MEASURE_TEXTS[study['measure']]}")
    weak = study["scaling"] == "weak"
    best = {row["cores"]: row for row in sorted(rows, key=lambda row: -row["seconds"])}
    cores = sorted(best)
    first = best[cores[0]]
    share = [n / cores[0] for n in cores]
    ideal = [first["seconds"] / (1 if weak else s) for s in share]
    panels = [
        ("seconds", "seconds", ideal),
        ("speed_up", "speed-up", share),
        ("efficiency", "parallel efficiency", [1.0] * len(cores)),
    ]
    for axis, (name, label, line) in zip(axes.flat, panels, strict=False):
        axis.plot(cores, line, color="0.6", linestyle="--", label="ideal")
        axis.plot(cores, [best[n][name] for n in cores], color="C0", label="fastest grid")
        for marked, style in (
            (False, {"color": "C0"}),
            (True, {"facecolors": "white", "edgecolors": "C3", "zorder": 3}),
        ):
            chosen = [row for row in rows if row["oversubscribed"] == marked]
            if chosen:
                text = "more than the machine's cores" if marked else "measured"
                axis.scatter([row["cores"] for row in chosen], [row[name] for row in chosen], label=text, **style)
        axis.set_xscale("log", base=2)
        axis.set_xticks(cores, [str(n) for n in cores])
        axis.minorticks_off()
        axis.set_xlabel("ranks x threads")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0, 0].set_yscale("log")
    axes[0, 0].yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[0, 1].set_yscale("log", base=2)
    for axis in axes[0]:
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(ticker.NullLocator())
    axes[1, 0].set_ylim(0, max(1.1, 1.05 * max(row["efficiency"] for row in rows)))
    axes[1, 0].legend(loc="best")
    _draw_phases(axes[1, 1], rows)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise StudyError(f"cannot write {path}: {error}") from None
    finally:
        pyplot.close(figure)


def _draw_phases(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Bars of the share of every phase, one for each case."""
    stars = ["*" if row["oversubscribed"] else "" for row in rows]
    labels = [
        f"{row['n_ranks']} x {row['n_threads']}{star}\n{','.join(map(str, row['grid']))}"
        for row, star in zip(rows, stars, strict=True)
    ]
    bottom = [0.0] * len(rows)
    for k, name in enumerate((*PHASES, OTHER)):
        shares = [row["shares"][name] for row in rows]
        axis.bar(
            range(len(rows)), shares, bottom=bottom, label=name, color="0.8" if name == OTHER else f"C{k}", width=0.8
        )
        bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    axis.set_xticks(range(len(rows)), labels, fontsize=8 if len(rows) <= 8 else 6)
    axis.set_ylabel("share of the solve, mean over ranks")
    axis.set_xlabel("ranks x threads, grid" + ("   (* more than the machine's cores)" if any(stars) else ""))
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _numbers(text: str) -> list[int]:
    """Positive integers of a text such as 1,2,4."""
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"positive integers such as 1,2,4 are needed; got {text!r}")
    return [int(part) for part in parts]


def _grid(text: str) -> str:
    """The text of a grid that is not auto."""
    try:
        if parse_grid(text) == "auto":
            raise InputError("auto is the default; use --ranks")
    except InputError as error:
        raise argparse.ArgumentTypeError(error.typed) from None
    return text


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StudyError(message)


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="scaling.py", description=__doc__, formatter_class=layout, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="run all cases on this machine", allow_abbrev=False)
    run.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="input file; several for weak scaling")
    run.add_argument(
        "--ranks", type=_numbers, default=[], metavar="N[,N...]", help="numbers of ranks, grids chosen (1,2,4,8)"
    )
    run.add_argument(
        "--grid",
        type=_grid,
        action="append",
        default=[],
        metavar="A,B,T,R",
        help="another case; may be repeated",
    )
    run.add_argument("--threads", type=_numbers, default=[1], metavar="N[,N...]", help="threads per rank (1)")
    run.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each case (3)")
    run.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the results go")
    submit = verbs.add_parser("submit", help="submit one Slurm job for each number of nodes", allow_abbrev=False)
    submit.add_argument("machine", help="a machine of slurm/settings.ini")
    submit.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="input file; several for weak scaling")
    submit.add_argument("--nodes", type=_numbers, required=True, metavar="N[,N...]", help="numbers of nodes")
    submit.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="where scripts and results go"
    )
    submit.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a setting")
    submit.add_argument("--settings", type=Path, default=render.SETTINGS, metavar="FILE", help="file of settings")
    submit.add_argument("--dry-run", action="store_true", help="write the scripts only")
    collect = verbs.add_parser("collect", help="table and plot of results", allow_abbrev=False)
    collect.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folder of a study, or result files")
    for verb in (run, collect):
        verb.add_argument("--measure", choices=MEASURES, help="time to compare (solve; sigma for weak scaling)")
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.add_argument("--plot", type=Path, metavar="FILE", help="picture (png, pdf, svg); needs matplotlib")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of one command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    split = words.index("--") if "--" in words else len(words)
    try:
        _main(_parser().parse_args(words[:split]), words[split + 1 :])
    except (StudyError, InputError, render.SettingsError) as error:
        print(f"scaling.py: error: {getattr(error, 'typed', error)}", file=sys.stderr)
        return 2
    return 0


def _main(parsed: argparse.Namespace, options: Sequence[str]) -> None:
    for path in getattr(parsed, "inputs", []) + getattr(parsed, "paths", []):
        if not path.exists():
            raise StudyError(f"there is no {path}")
    if parsed.verb == "submit":
        settings = render.load_settings(parsed.machine, parsed.settings, parsed.set)
        lines = submit_study(
            parsed.machine, parsed.inputs, parsed.nodes, parsed.output, settings, options, not parsed.dry_run
        )
        print("\n".join(lines))
        return
    if parsed.verb == "run":
        if parsed.repeats < 1:
            raise StudyError(f"--repeats needs a positive integer; got {parsed.repeats}")
        cases = local_cases(parsed.inputs, parsed.ranks, parsed.grid, parsed.threads)
        run_study(cases, parsed.output, parsed.repeats, options)
    elif options:
        raise StudyError("collect takes no options of `python -m sqd_mpi run`")
    study = analyse(*read_runs(parsed.paths if parsed.verb == "collect" else [parsed.output]), parsed.measure)
    print(json.dumps(study, allow_nan=False) if parsed.json else table(study))
    if parsed.plot:
        plot(study, parsed.plot)


if __name__ == "__main__":
    sys.exit(main())
