"""Compares sqd_mpi with sbd-eigensolver and with the PySCF solver of qiskit-addon-sqd.

Same input, same start determinant, same residual norm, same number of threads, in one run, the solvers in turn.
Writes every sample and the medians as JSON and prints Markdown tables: seconds per sigma and per whole solve, and how
many times as long as sqd_mpi each peer takes. `--setup` makes the peers' environment, once. benchmarks/README.md says
what is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from peers import environment, report
from peers.inputs import BenchmarkInput, MissingInputError, connections, data_directory, load
from peers.solvers import OURS, PEERS, Ours, Peer, Settings

ROOT = Path(__file__).resolve().parents[1]
OWN_PACKAGES = ("sqd_mpi", "numba", "numpy", "mpich")
INPUTS = ("h2o-1em3", "h2o-1em4", "n2-1em5/5")
VARIANTS = tuple(ours.key for ours in OURS)
MAX_COUNTED_STRINGS = 6000


def main() -> int:
    """Runs the comparison; returns 0, or 1 if there was nothing to compare."""
    arguments = parse()
    if arguments.setup:
        environment.create(arguments.venv)
        if arguments.inputs is None:
            return 0
    record = describe(arguments)
    for name in arguments.inputs or INPUTS:
        try:
            problem = load(name, data_directory(arguments.data), arguments.workdir / name.replace("/", "-every-"))
        except MissingInputError as error:
            print(f"skipped: {error}", file=sys.stderr)
            record["skipped"][name] = str(error)
            continue
        record["inputs"].append(compare(problem, arguments, record["skipped"]))
        write(record, arguments.output)
    write(record, arguments.output)
    print(report.tables(record))
    print(f"written to {arguments.output} and {arguments.output.with_suffix('.md')}", file=sys.stderr)
    return 0 if record["inputs"] else 1


def parse() -> argparse.Namespace:
    """Returns the command line's arguments."""
    peers = "; ".join(f"{peer.name}: {peer.about}" for peer in PEERS.values())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"Peers: {peers}.")
    add = parser.add_argument
    add("--inputs", type=names, help=f"names with commas, /N: every N-th string (default {','.join(INPUTS)})")
    add("--data", help="directory with h2o/ and n2/ (default: SQD_MPI_DATA)")
    add("--peers", type=names, default=["sbd", "pyscf"], help=f"of {', '.join(PEERS)}, or none")
    add("--variants", type=names, default=list(VARIANTS), help=f"{', '.join(VARIANTS)}, or none")
    add("--threads", type=int, default=2)
    add("--tol", type=float, default=1e-5, help="residual norm at which a solve ends (default 1e-5)")
    add("--repeats", type=int, default=3, help="rounds of one sample per solver (default 3)")
    add("--solves", type=int, default=1, help="rounds in which the peers solve to the end as well (default 1)")
    add("--no-solve", action="store_true", help="time the peers' sigma only")
    add("--subspace", type=int, default=20, help="vectors of the peers' Davidson, enough for no restart (default 20)")
    add("--timeout", type=float, default=7200.0, help="seconds that one process may take")
    add("--quiet", type=float, default=0.0, help="seconds to wait at most for an idle machine before each sample")
    add("--setup", action="store_true", help="make the peers' environment (minutes, compiles C++); alone: only that")
    add("--venv", type=Path, default=ROOT / "build" / "peers-venv", help="the peers' environment")
    add("--workdir", type=Path, default=ROOT / "build" / "compare_peers", help="for input and result files")
    add("-o", "--output", type=Path, default=ROOT / "build" / "compare_peers.json")
    arguments = parser.parse_args()
    for option, given, known in (("peers", arguments.peers, PEERS), ("variants", arguments.variants, VARIANTS)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"--{option} knows {', '.join(known)}; got {', '.join(unknown)}")
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads need at least 1")
    return arguments


def names(text: str) -> list[str]:
    """Returns the names of a list with commas; none for `none`."""
    return [] if text == "none" else [name.strip() for name in text.split(",") if name.strip()]


def describe(arguments: argparse.Namespace) -> dict:
    """Returns the head of the record: when, where, with what."""
    python = environment.interpreter(arguments.venv)
    peers = environment.versions(python) if python.is_file() else {}
    ours = environment.versions(Path(sys.executable), OWN_PACKAGES)
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": environment.machine(arguments.threads),
        "versions": ours
        | {name if name not in ours else f"{name} (peers)": version for name, version in peers.items()},
        "tol": arguments.tol,
        "peers_subspace": arguments.subspace,
        "solvers": {ours.name: ours.about for ours in OURS} | {peer.name: peer.about for peer in PEERS.values()},
        "inputs": [],
        "skipped": {},
    }


def compare(problem: BenchmarkInput, arguments: argparse.Namespace, skipped: dict[str, str]) -> dict:
    """Returns the record of one input: every sample, the summaries, the ratios."""
    settings = Settings(
        venv=arguments.venv,
        threads=arguments.threads,
        tol=arguments.tol,
        subspace=arguments.subspace,
        timeout=arguments.timeout,
        quiet=arguments.quiet,
    )
    workdir = arguments.workdir / problem.name.replace("/", "-every-")
    workdir.mkdir(parents=True, exist_ok=True)
    solvers, prepared = available(problem, arguments, settings, workdir, skipped)
    samples: dict[str, list[dict]] = {solver.name: [] for solver in solvers}
    for round_number in range(arguments.repeats):
        for solver in solvers:
            for mode in modes(solver, round_number, arguments):
                sample = solver.sample(problem, mode, settings, workdir)
                samples[solver.name].append(sample | {"round": round_number})
                show(problem, solver, sample)
    summaries = {name: report.summarise(taken) for name, taken in samples.items()}
    return {
        "name": problem.name,
        "norb": problem.norb,
        "n_electrons": problem.n_electrons,
        "n_strings": len(problem.strings),
        "dimension": problem.dimension,
        "useful_fma_per_sigma": useful_fma(problem),
        "prepared": prepared,
        "solvers": summaries,
        "ratios": report.ratios(summaries),
        "energy_spread": report.energy_spread(summaries),
        "samples": samples,
    }


def available(
    problem: BenchmarkInput, arguments: argparse.Namespace, settings: Settings, workdir: Path, skipped: dict[str, str]
) -> tuple[list[Ours | Peer], dict[str, dict]]:
    """Returns the solvers that can run this input, and what making sqd_mpi's input files and kernels took."""
    solvers: list[Ours | Peer] = []
    prepared: dict[str, dict] = {}
    for ours in OURS:
        if ours.key not in arguments.variants:
            continue
        prepared[ours.name] = ours.prepare(problem, settings, workdir)
        if "error" in prepared[ours.name]:
            skipped[f"{ours.name} on {problem.name}"] = prepared[ours.name]["error"]
        else:
            solvers.append(ours)
    for name in arguments.peers:
        why = PEERS[name].unavailable(problem, settings)
        if why:
            skipped[f"{name} on {problem.name}"] = why
        else:
            solvers.append(PEERS[name])
    return solvers, prepared


def modes(solver: Ours | Peer, round_number: int, arguments: argparse.Namespace) -> tuple[str, ...]:
    """Returns what to time of a solver in a round: sqd_mpi solves in every round, peers in the first ones."""
    if isinstance(solver, Ours):
        return ("solve",)
    solves = 0 if arguments.no_solve else arguments.solves
    return tuple(mode for mode in solver.modes if mode == "sigma" or round_number < solves)


def useful_fma(problem: BenchmarkInput) -> dict | None:
    """Returns the multiply-adds of a factorised sigma without symmetry, or None for sets too large to count here.

    Opposite spin: singles x singles + 2 singles x strings; same spin: (singles + doubles + strings) x strings, twice.
    """
    n_strings = len(problem.strings)
    if n_strings > MAX_COUNTED_STRINGS:
        return None
    singles, doubles = connections(problem.strings)
    return {
        "opposite_spin": singles * singles + 2 * singles * n_strings,
        "same_spin": 2 * (singles + doubles + n_strings) * n_strings,
        "singles_per_string": singles / n_strings,
    }


def show(problem: BenchmarkInput, solver: Ours | Peer, sample: dict) -> None:
    """Prints one line about a sample."""
    line = f"{problem.name} {solver.name} {sample['mode']}: "
    if "error" in sample:
        line += sample["error"]
    else:
        sigma = report.spread([sample], "sigma_seconds")
        line += f"{sigma['median']:.4g} s per sigma, " if sigma else ""
        line += f"{sample['wall_seconds']:.4g} s in all, others used {sample['other_cores'] or 0:.2f} cores"
    print(line, file=sys.stderr, flush=True)


def write(record: dict, output: Path) -> None:
    """Writes the record as JSON, and its tables as Markdown beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n")
    output.with_suffix(".md").write_text(report.tables(record))


if __name__ == "__main__":
    sys.exit(main())
