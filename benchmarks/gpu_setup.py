"""What the host does before the first sigma of a solve on one GPU, measured without a GPU, and predicted whole solves.

    python benchmarks/gpu_setup.py h2o-1em7.h5 h2o-1em8.h5 [--threads 1,2] [--devices h200] [--cores 16] [--sigmas 15]

Every input is prepared in a process of its own, once for each number of threads, with a stand-in for the device that
takes arrays, counts their bytes and computes nothing. The first table is measured. The second is predicted: what was
measured on one and two threads is extrapolated to the cores of a node (Amdahl: a serial part, and one that the threads
share), and uploads, sigmas and vectors are those of `planner.predict_solve`. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PLACE = (0, 0, 0, 0)
START_UP = "start-up"
SECTORS = "all model spaces"


class StandInArray:
    """An array that is not there."""

    def __init__(self, shape: Any, dtype: Any = np.float64):
        self.shape = (shape,) if np.isscalar(shape) else tuple(shape)
        self.dtype = np.dtype(dtype)
        self.size = int(np.prod(self.shape, dtype=np.int64))
        self.nbytes = self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> StandInArray:
        length = len(range(*key.indices(self.shape[0]))) if isinstance(key, slice) else None
        return StandInArray(self.shape[1:] if length is None else (length, *self.shape[1:]), self.dtype)

    def reshape(self, *shape: Any) -> StandInArray:
        """The same elements in another shape."""
        wanted = shape[0] if len(shape) == 1 and not np.isscalar(shape[0]) else shape
        return StandInArray([self.size // max(-int(np.prod(wanted)), 1) if n == -1 else n for n in wanted], self.dtype)


class StandIn:
    """A device that counts what is sent to it and computes nothing; limits are those of an H100."""

    name, kind, identity, software = "stand-in", "host", "stand-in", "none"
    spare_bytes = None

    def __init__(self) -> None:
        from sqd_mpi.backends.gpu.device import Limits

        self.limits, self.uploaded, self.allocated = Limits(227 * 1024, 132), 0, 0

    def memory(self) -> tuple[int, int]:
        """Those of an H200."""
        return 140 * 10**9, 141 * 10**9

    def upload(self, host: Any, stream: Any = None) -> StandInArray:
        """Counts its bytes."""
        self.uploaded += host.nbytes
        return self.empty(host.shape, host.dtype)

    def empty(self, shape: Any, dtype: Any = np.float64) -> StandInArray:
        """Nothing of that shape."""
        array = StandInArray(shape, dtype)
        self.allocated += array.nbytes
        return array

    def kernel(self, *names: str) -> Callable[..., None]:
        """Does nothing."""
        return lambda *arguments, **named: None

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name in ("zero", "copy", "copy_in", "synchronize", "wait", "stream", "gemm"):
            return lambda *arguments, **named: None
        raise AttributeError(name)


class Steps:
    """Seconds of steps and the largest resident memory after each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, int] = {}

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        """What the function returns."""
        began = perf_counter()
        result = function()
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began
        self.peak[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return result

    def inside(self, part: Any, method: str, name: str) -> None:
        """Count the calls of a method as a step of their own."""
        original = getattr(part, method)
        setattr(part, method, lambda *arguments: self(name, lambda: original(*arguments)))


def prepare(path: Path, n_threads: int) -> dict[str, Any]:
    """All steps of one input in this process."""
    from sqd_mpi import _jit

    _jit.set_threads(n_threads)
    from sqd_mpi.app.run import seconds_since_start
    from sqd_mpi.files import records
    from sqd_mpi.problem.hamiltonian import Hamiltonian

    strings = np.array([[3], [5], [6]], np.uint64)
    toy = Hamiltonian(np.diag([-2.0, -1.0, -0.5]), np.full(21, 0.01), 0.0, 3, (2, 2))
    prepare_problem(Steps(), toy, strings, strings)  # loads kernels, or compiles them first
    steps = Steps()
    steps.seconds[START_UP] = seconds_since_start()
    source = steps("reading", lambda: records.read_input(path))
    found = prepare_problem(steps, source.hamiltonian, source.strings_a, source.strings_b)
    return {"input": path.name, "threads": n_threads, **found}


def prepare_problem(steps: Steps, hamiltonian: Any, strings_a: Any, strings_b: Any) -> dict[str, Any]:
    """The steps of one problem."""
    from sqd_mpi.backends.gpu.block import GpuBlock
    from sqd_mpi.backends.gpu.share import GpuShare
    from sqd_mpi.distribution import layout
    from sqd_mpi.problem import bitstrings, spin_strings, symmetry
    from sqd_mpi.problem.interaction import Interaction

    labels = steps("labels", lambda: symmetry.find_labels(hamiltonian))

    def sort_strings() -> Any:
        found = [
            spin_strings.SpinStrings.from_canonical(bitstrings.canonical(each)[0], of_spin, labels.n_labels)
            for each, of_spin in zip((strings_a, strings_b), labels.both, strict=True)
        ]
        same = np.array_equal(found[0].strings, found[1].strings) and not hamiltonian.spin_dependent
        return (found[0], found[0], 1) if same else (*found, 0)

    alpha, beta, parity = steps("strings", sort_strings)
    sectors = spin_strings.sectors(alpha, beta)
    largest = max(sectors, key=lambda x: layout.Layout.create(alpha, beta, x, (1, 1, 1, 1)).n_determinants)
    of_sector = layout.Layout.create(alpha, beta, largest, (1, 1, 1, 1), parity)
    device, interaction = StandIn(), Interaction.energy(hamiltonian)
    share = steps("strings", lambda: GpuShare(device, of_sector, PLACE, hamiltonian, labels))  # type: ignore[arg-type]
    block = steps("strings", lambda: GpuBlock(of_sector, PLACE, share))
    steps("singles", lambda: (share.strings.singles, share.strings.beta, share.strings.singles_per_row))
    tasks = steps("costs of tasks", lambda: block.tasks(interaction))
    steps.inside(share.strings, "alpha_hamiltonian", "H_alpha")
    steps.inside(share.strings, "beta_hamiltonian", "H_beta")
    before = dict(steps.seconds)
    steps("lists of the kernels", lambda: block.prepare(tasks))
    inner = sum(steps.seconds.get(name, 0.0) - before.get(name, 0.0) for name in ("H_alpha", "H_beta"))
    steps.seconds["lists of the kernels"] -= inner
    uploaded = device.uploaded
    n_models = len(sectors) * (2 if parity else 1)
    model_space(steps, of_sector, hamiltonian, interaction)
    steps.seconds[SECTORS] *= n_models
    return {
        "strings": alpha.size, "dimension": of_sector.dimension, "seconds": steps.seconds, "peak_bytes": steps.peak,
        "uploaded_bytes": uploaded, "model_spaces": n_models,
    }  # fmt: skip


def model_space(steps: Steps, layout: Any, hamiltonian: Any, interaction: Any) -> None:
    """The part of a model space that the host makes; the diagonal and its smallest elements are the device's."""
    from sqd_mpi.backends.cpu import block as cpu
    from sqd_mpi.distribution.memory import HostMemory, smallest
    from sqd_mpi.distribution.process_grid import ProcessGrid
    from sqd_mpi.problem.symmetry import find_labels
    from sqd_mpi.solver.model_space import ModelSpace

    share = cpu.create_share(layout, PLACE, hamiltonian, find_labels(hamiltonian))
    diagonal = np.empty(layout.dimension)
    cpu.create_block(layout, PLACE, hamiltonian, share).diagonal(interaction, diagonal)
    positions = smallest(diagonal, 2000)

    class Chosen(HostMemory):
        def smallest(self, array: Any, count: int) -> Any:
            return positions[:count], diagonal[positions[:count]]

    grid, size = ProcessGrid(None, (1, 1, 1, 1)), 1000 if layout.dimension > 1_000_000 else 300
    steps(SECTORS, lambda: ModelSpace.create(
        grid, layout, diagonal, hamiltonian, interaction, size, 32, memory=Chosen()
    ))  # fmt: skip


def extrapolated(seconds: dict[int, float], n_cores: int) -> float:
    """Seconds on so many cores of what took the given seconds on fewest and most threads, by Amdahl's law."""
    (n, first), (m, second) = sorted(seconds.items())[0], sorted(seconds.items())[-1]
    if m == n:
        return first
    shared = max((first - second) / (1.0 / n - 1.0 / m), 0.0)
    serial = max(first - shared / n, 0.0)
    return min(serial + shared / n_cores, second)


def predicted(path: Path, runs: Sequence[dict[str, Any]], keys: Sequence[str], options: Any) -> list[dict[str, Any]]:
    """Whole solves on several GPUs, from the measured preparation."""
    from sqd_mpi import planner
    from sqd_mpi.files import records
    from sqd_mpi.planner import data_sheets
    from sqd_mpi.solver.davidson import subspace_sizes

    source = records.read_input(path)
    problem = planner.Problem.create(source.hamiltonian, source.strings_a, source.strings_b)
    names = runs[0]["seconds"]
    parts = {
        name: extrapolated({run["threads"]: run["seconds"][name] for run in runs}, options.cores) for name in names
    }
    parts[START_UP] = min(run["seconds"][START_UP] for run in runs)
    building = sum(seconds for name, seconds in parts.items() if name not in (START_UP, SECTORS))
    found = []
    for key in keys:
        profile = data_sheets.assumed_profile(data_sheets.data_sheet(key))
        solve = planner.predict_solve(problem, profile, options.cores, subspace_sizes(1), n_sigmas=options.sigmas)
        row = {
            START_UP: parts[START_UP], "start of the GPU": solve.start, "building": building, "copies": solve.copies,
            "model spaces": parts[SECTORS], "sigmas": solve.sigmas, "vectors": solve.vectors,
        }  # fmt: skip
        found.append({"input": path.name, "device": key, **row, "whole": sum(row.values())})
    return found


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def report(results: dict[str, list[dict[str, Any]]], solves: list[dict[str, Any]], options: Any) -> str:
    """Both tables."""
    runs = [run for group in results.values() for run in group]
    names = list(runs[0]["seconds"])
    building = [sum(run["seconds"][name] for name in names if name not in (START_UP, SECTORS)) for run in runs]
    measured = table(
        ["seconds", *(f"{run['input']}, {run['threads']} threads" for run in runs)],
        [[name, *(f"{run['seconds'][name]:.3f}" for run in runs)] for name in names]
        + [
            ["building (without start-up and model spaces)", *(f"{seconds:.2f}" for seconds in building)],
            ["GB uploaded", *(f"{run['uploaded_bytes'] / 1e9:.3f}" for run in runs)],
            ["GB of memory at most", *(f"{run['peak_bytes']['lists of the kernels'] / 1e9:.2f}" for run in runs)],
        ],
    )  # fmt: skip
    if not solves:
        return f"Measured on this machine:\n\n{measured}"
    parts = [name for name in solves[0] if name not in ("input", "device")]
    whole = table(
        ["input, GPU", *(f"{name}, s" for name in parts)],
        [[f"{row['input']}, {row['device']}", *(f"{row[name]:.2f}" for name in parts)] for row in solves],
    )
    return (
        f"Measured on this machine:\n\n{measured}\n\nPredicted, not measured: a solve of {options.sigmas} sigmas on "
        f"one GPU with {options.cores} cores\n\n{whole}"
    )


def in_a_process(path: Path, n_threads: int) -> Any:
    """What `prepare` gives in a process of its own, or the last line of its errors."""
    command = [sys.executable, __file__, str(path), "--one", str(n_threads)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def least(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first run with the least seconds of every step."""
    return {**runs[0], "seconds": {name: min(run["seconds"][name] for run in runs) for name in runs[0]["seconds"]}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--threads", default="1,2", help="numbers of threads to measure on (1,2)")
    parser.add_argument("--devices", default="h200", help="GPUs of the prediction (h200); none with ''")
    parser.add_argument("--cores", type=int, default=16, help="cores of the prediction (16)")
    parser.add_argument("--sigmas", type=int, default=15, help="sigmas of a solve (15)")
    parser.add_argument("--repeats", type=int, default=1, help="processes, of which the least seconds count (1)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(prepare(options.inputs[0], options.one)))
        return 0
    results: dict[str, list[dict[str, Any]]] = {}
    for path in options.inputs:
        for n_threads in map(int, options.threads.split(",")):
            runs = [in_a_process(path, n_threads) for _ in range(options.repeats)]
            if isinstance(runs[0], str):
                print(runs[0], file=sys.stderr)
                return 2
            results.setdefault(path.name, []).append(least(runs))
    keys = [key for key in options.devices.split(",") if key]
    solves = [row for path in options.inputs for row in predicted(path, results[path.name], keys, options)]
    print(report(results, solves, options))
    print(json.dumps({"measured": results, "predicted": solves}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
