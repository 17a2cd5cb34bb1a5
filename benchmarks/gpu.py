"""The GPU backend on this machine: kernels against roofline, copies, one sigma and whole solves beside the CPU backend.

    python benchmarks/gpu.py [--data DIR] [h2o-1em4 n2-1em5 made-up-4000 input.h5 ...] [--seconds 300] [-o FILE]
    SQD_MPI_GPU=tests.gpu_shim:open_shim python benchmarks/gpu.py small.h5    # emulated: its speed means nothing

Everything is measured in one run, on one rank: rates of the device (DGEMM, copies in its memory, copies to and from
pinned host memory, the start of a kernel), then for every input each part of a sigma in the ground state's sector on
GPU and CPU, whether both agree, every form of the sums by itself, vectors, density matrices, whole solves, predicted
and measured memory and the shares of an iteration. Between the small and the large inputs: from which number of strings
on the GPU is faster, and the profile of this machine for plans. At the end the rates for `Rates`.

Inputs that would take too long are left out, and said to be. What fails is named, and the rest goes on; the file of -o
holds what is known so far at any time. Without the published inputs, problems are made up. Without a GPU it says so and
ends with code 2. The last line is a JSON object with all figures; the exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import gpu_forms
from gpu_forms import MADE_UP, PLACE
from kernels import SOURCE, load, median_seconds, useful

from sqd_mpi.errors import InputError
from sqd_mpi.resources import available_cores

DEFAULT_INPUTS = ["h2o-1em4", "n2-1em5", "h2o-1em6", "h2o-1em7", "h2o-1em8"]
MADE_UP_INPUTS = ["made-up-1500", "made-up-4000", "made-up-14000", "made-up-25000"]
N_SMALL = 2  # inputs that come before crossover and profile
CROSSOVER = (50, 100, 200, 400, 800, 1600, 3200, 6400)
SLOW = 1.0  # seconds of a call of the CPU that is measured once
FORMS_SECONDS = 15.0  # that lists may take where every form is measured
AGREEMENT = 1e-12  # largest relative deviation of a sigma of the GPU from that of the CPU


class Ended(BaseException):
    """A signal has asked the program to end."""


@dataclass
class Budget:
    """Seconds that the benchmark may take."""

    seconds: float
    began: float = field(default_factory=perf_counter)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (perf_counter() - self.began)


def open_the_device() -> Any:
    """The device of this process.

    Raises:
        InputError: there is none.
    """
    from sqd_mpi.backends.gpu.process_device import open_device

    return open_device(say=lambda text: print(text, file=sys.stderr))


def on_device(device: Any, function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call until the device is through."""

    def whole() -> None:
        function()
        device.synchronize()

    return median_seconds(whole, repeats)


def device_rates(device: Any, repeats: int) -> dict[str, float]:
    """DGEMM in multiply-adds per second; bytes per second of copies (on the device those read and written)."""
    emulated = device.kind == "host"
    n, size = (192, 200_000) if emulated else (6144, 64_000_000)
    matrices = [device.upload(np.ones((n, n))) for _ in range(3)]
    gemm = n**3 / on_device(device, lambda: device.gemm(*matrices), repeats)
    matrices.clear()
    one, two, pinned = device.upload(np.ones(size)), device.empty(size), device.pinned(size)
    pinned[:] = 1.0
    n_bytes = 8.0 * size
    return {
        "dgemm": gemm,
        "launch": gpu_forms.launch_seconds(device, lambda function: on_device(device, function, repeats)),
        "copy": 2 * n_bytes / on_device(device, lambda: device.copy(one, two), repeats),
        "upload": n_bytes / on_device(device, lambda: device.copy_in(pinned, two), repeats),
        "download": n_bytes / on_device(device, lambda: device.copy_out(one, pinned), repeats),
    }


@dataclass(frozen=True, eq=False)
class Sigma:
    """One sigma of the ground state's sector, on both backends with the same vectors."""

    layout: Any
    cpu: Any
    gpu: Any
    device: Any
    interaction: Any
    labels: Any

    @classmethod
    def create(cls, hamiltonian: Any, strings: Any, device: Any) -> Sigma:
        """Prepared blocks of both backends; spin-flip symmetry is used as in a solve."""
        from sqd_mpi.backends.cpu import block as cpu
        from sqd_mpi.backends.gpu.block import GpuBlock
        from sqd_mpi.backends.gpu.share import GpuShare
        from sqd_mpi.distribution import layout as layouts
        from sqd_mpi.problem import spin_strings, symmetry
        from sqd_mpi.problem.interaction import Interaction

        labels = symmetry.find_labels(hamiltonian)
        alpha, beta = (
            spin_strings.SpinStrings.from_canonical(each, of_spin, labels.n_labels)
            for each, of_spin in zip(strings, labels.both, strict=True)
        )
        same = np.array_equal(alpha.strings, beta.strings) and not hamiltonian.spin_dependent
        beta = alpha if same else beta
        sector = max(
            spin_strings.sectors(alpha, beta),
            key=lambda x: layouts.Layout.create(alpha, beta, x, (1, 1, 1, 1)).n_determinants,
        )
        layout = layouts.Layout.create(alpha, beta, sector, (1, 1, 1, 1), int(same))
        share = cpu.create_share(layout, PLACE, hamiltonian, labels)
        blocks = (
            cpu.create_block(layout, PLACE, hamiltonian, share),
            GpuBlock(layout, PLACE, GpuShare(device, layout, PLACE, hamiltonian, labels)),
        )
        interaction = Interaction.energy(hamiltonian)
        for block in blocks:
            block.prepare(block.tasks(interaction))
        return cls(layout, *blocks, device, interaction, labels)

    def measure(self, repeats: int, with_cpu: bool) -> dict[str, Any]:
        """Seconds, useful multiply-adds and bytes by kind of task; the largest relative deviation of the results."""
        ket = gpu_forms.some_ket(self.layout)
        there, out = self.device.upload(ket), self.device.empty(self.layout.sub_block_size(0, 0, 0))
        host = np.zeros(out.shape)
        found: dict[str, Any] = {"dimension": host.size, "kinds": {}, "agreement": None}
        self.device.zero(out)
        for task in self.gpu.tasks(self.interaction):
            self.gpu.apply(task, there, out, self.interaction)
        result = self.device.download(out)
        for task in self.gpu.tasks(self.interaction):
            work = self.gpu.work([task], self.interaction)
            apply = partial(self.gpu.apply, task, there, out, self.interaction)
            found["kinds"][task.kind] = {
                "useful": work.useful, "executed": work.executed, "bytes": work.bytes,
                "predicted_seconds": work.seconds, "seconds": on_device(self.device, apply, repeats),
            }  # fmt: skip
        if with_cpu:
            for task in self.cpu.tasks(self.interaction):
                kind = found["kinds"].setdefault(task.kind, {"useful": useful(self.cpu, task)})
                began = perf_counter()
                self.cpu.apply(task, ket, host, self.interaction)
                kind["cpu_seconds"] = perf_counter() - began
            found["agreement"] = float(np.abs(result - host).max() / np.abs(host).max())
            for task in self.cpu.tasks(self.interaction):
                kind = found["kinds"][task.kind]
                if kind["cpu_seconds"] < SLOW:  # the first time compiled, or filled caches
                    kind["cpu_seconds"] = median_seconds(
                        partial(self.cpu.apply, task, ket, host, self.interaction), repeats
                    )
        found["seconds"] = sum(kind.get("seconds", 0.0) for kind in found["kinds"].values())
        found["cpu_seconds"] = sum(kind["cpu_seconds"] for kind in found["kinds"].values()) if with_cpu else None
        return found


def solve(path: Path, backend: str, folder: Path, limit: float, tol: float) -> dict[str, Any]:
    """A whole solve in a process of its own: what its result says, the shares of its phases, and the wall time."""
    from sqd_mpi.files import records

    output, memory = folder / f"{backend}.h5", folder / "memory.json"
    program = [str(HERE / "gpu_child.py"), str(memory)] if backend == "gpu" else ["-m", "sqd_mpi"]
    command = [sys.executable, *program, "run", str(path), "-o", str(output), "--backend", backend]
    began = perf_counter()
    try:
        done = subprocess.run(
            [*command, "--tol", str(tol)], capture_output=True, text=True, timeout=max(limit, 1.0), check=False,
            env=gpu_forms.child_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {limit:.0f} s"}
    wall = perf_counter() - began
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    run = records.read_run(output)
    summary = run["summary"]
    names = "energy", "n_sigma", "sigma_seconds", "solve_seconds", "peak_rss_bytes", "memory", "all_converged"
    chosen = {name: summary.get(name) for name in names}
    phases = {name: float(np.ravel(seconds)[1]) for name, seconds in run["timings"].items()}
    peak = json.loads(memory.read_text())["peak_bytes"] if memory.exists() else None
    return {**chosen, "wall_seconds": wall, "phases": phases, "peak_device_bytes": peak}


def predicted_memory(hamiltonian: Any, strings: Any, device: Any) -> dict[str, int]:
    """Bytes on the GPU and in host memory that the planner predicts for one rank with all basis vectors it wants."""
    from sqd_mpi import planner
    from sqd_mpi.planner import data_sheets
    from sqd_mpi.solver.davidson import subspace_sizes

    problem = planner.Problem.create(hamiltonian, *strings)
    profile = data_sheets.assumed_profile(data_sheets.DATA_SHEETS[0]).model_copy(update={"context_bytes": 0})
    limits = planner.MemoryLimits(10**15, *subspace_sizes(1), device.memory()[1])
    plan = planner.predict(problem, (1, 1, 1, 1), profile, 1, limits)
    return {"device_bytes": plan.device_bytes, "host_bytes": plan.bytes_per_rank}


def read_problem(name: str, data: Path) -> tuple[Any, tuple[Any, Any]]:
    """Hamiltonian and strings of a published input or of an input file."""
    if name.startswith(MADE_UP):
        return gpu_forms.made_up(name)
    if Path(name).suffix == ".h5":
        from sqd_mpi.files import records
        from sqd_mpi.problem import bitstrings

        source = records.read_input(name)
        return source.hamiltonian, tuple(bitstrings.canonical(each)[0] for each in (source.strings_a, source.strings_b))
    hamiltonian, strings = load(name, data)
    return hamiltonian, (strings, strings)


def crossover(hamiltonian: Any, strings: Any, device: Any, sizes: Sequence[int], budget: Budget) -> dict[str, Any]:
    """Seconds of one sigma on both for growing numbers of strings, and the first from which on the GPU is faster.

    `auto_seconds` are those that the planner predicts there for the CPU, which `--backend auto` compares.
    """
    rows: list[dict[str, Any]] = []
    for n in sizes:
        if n > min(len(each) for each in strings) or budget.left < 20.0:
            break
        some = tuple(np.ascontiguousarray(each[:n]) for each in strings)
        found = Sigma.create(hamiltonian, some, device).measure(3, True)
        row = {"strings": n, "seconds": found["seconds"], "cpu_seconds": found["cpu_seconds"]}
        rows.append({**row, "auto_seconds": gpu_forms.predicted_cpu_seconds(hamiltonian, some, available_cores())})
    slower = [k for k, row in enumerate(rows) if row["seconds"] >= row["cpu_seconds"]]
    first = (slower[-1] + 1) if slower else 0
    there = rows[first] if first < len(rows) else {"strings": None, "auto_seconds": None}
    return {"rows": rows, "strings": there["strings"], "auto_seconds": there["auto_seconds"]}


def kinds_text(found: dict[str, Any], rates: dict[str, float]) -> str:
    """The parts of one sigma as a table."""
    head = (
        "part",
        "GFMA",
        "ms",
        "GFMA/s",
        "of DGEMM",
        "executed",
        "GB/s",
        "of copy",
        "predicted ms",
        "CPU ms",
        "ratio",
    )
    lines = [head]
    for name, kind in found["kinds"].items():
        seconds, cpu = kind["seconds"], kind.get("cpu_seconds")
        rate, moved = kind["useful"] / seconds, kind["bytes"] / seconds
        lines.append(
            (name, f"{kind['useful'] / 1e9:.3g}", f"{1e3 * seconds:.3g}", f"{rate / 1e9:.1f}",
             f"{rate / rates['dgemm']:.1%}", f"{kind['executed'] / max(kind['useful'], 1.0):.2f}", f"{moved / 1e9:.1f}",
             f"{moved / rates['copy']:.1%}", f"{1e3 * kind['predicted_seconds']:.3g}",
             *(("-", "-") if cpu is None else (f"{1e3 * cpu:.3g}", f"{cpu / seconds:.2f}")))
        )  # fmt: skip
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join("  " + "  ".join(cell.rjust(n) for cell, n in zip(line, widths, strict=True)) for line in lines)


def solve_text(name: str, gpu: dict[str, Any], cpu: dict[str, Any], memory: dict[str, int]) -> str:
    """Whole solves and memory in a few sentences."""
    lines = []
    for backend, found in (("gpu", gpu), ("cpu", cpu)):
        if "failed" in found:
            lines.append(f"  solve on {backend}: left out ({found['failed']})")
            continue
        lines.append(
            f"  solve on {backend}: {found['wall_seconds']:.2f} s, {found['n_sigma']} sigmas of "
            f"{found['sigma_seconds']:.4g} s, E = {found['energy'][0]:.10f}"
        )
    if "failed" not in gpu:
        total = sum(gpu["phases"].values())
        shares = sorted(gpu["phases"].items(), key=lambda item: -item[1])[:8]
        lines.append("  phases: " + ", ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in shares))
        if "failed" not in cpu:
            lines.append(f"  energies differ by {abs(gpu['energy'][0] - cpu['energy'][0]):.1e} hartree")
    measured = gpu.get("peak_device_bytes")
    seen = "not measured" if measured is None else f"measured {measured / 1e9:.4g} GB"
    lines.append(f"  GPU memory: predicted {memory['device_bytes'] / 1e9:.4g} GB, {seen}")
    return "\n".join(lines)


def run_input(
    name: str, device: Any, rates: dict[str, float], options: argparse.Namespace, budget: Budget, report: dict[str, Any]
) -> None:
    """All measurements of one input, printed and put into its report as they come."""
    hamiltonian, strings = read_problem(name, options.data)
    memory = report["predicted_memory"] = predicted_memory(hamiltonian, strings, device)
    report["strings"] = [len(each) for each in strings]
    print(f"\n{name}: {len(strings[0])} x {len(strings[1])} strings", flush=True)
    if memory["device_bytes"] > device.memory()[0] and device.kind != "host":
        print(f"  left out: needs {memory['device_bytes'] / 1e9:.3g} GB on the GPU")
        report["left_out"] = "memory"
        return
    began = perf_counter()
    case = Sigma.create(hamiltonian, strings, device)
    report["list_seconds"] = perf_counter() - began
    print(f"  lists of connections, both backends: {report['list_seconds']:.2f} s")
    found = report["sigma"] = case.measure(options.repeats, budget.left > 30.0)
    print(kinds_text(found, rates))
    cpu = "" if found["cpu_seconds"] is None else f", CPU {found['cpu_seconds']:.4g} s"
    print(f"  sigma: GPU {found['seconds']:.4g} s{cpu}, agreement {found['agreement']}", flush=True)
    transfer = 16.0 * found["dimension"]
    report["transfer_share"] = (transfer / rates["upload"]) / (transfer / rates["upload"] + found["seconds"])
    print(f"  a vector there and back with every sigma would take {report['transfer_share']:.1%} of the time")
    if report["list_seconds"] < FORMS_SECONDS and budget.left > 60.0:
        measured = partial(on_device, device, repeats=options.repeats)
        report["forms"] = gpu_forms.measure_forms(case, hamiltonian, case.labels, measured)
        print(gpu_forms.forms_text(report["forms"]), flush=True)
        run_others(case, hamiltonian.norb, measured, rates, report)
    del case
    if options.solve and budget.left > 10.0:
        run_solves(name, hamiltonian, strings, options, budget, report)


def run_others(case: Sigma, norb: int, measured: Any, rates: dict[str, float], report: dict[str, Any]) -> None:
    """Krylov vectors and density matrices."""
    report["vectors"] = gpu_forms.measure_vectors(case.device, case.layout.dimension, measured)
    shares = (
        f"{name} {each['bytes'] / each['seconds'] / rates['copy']:.0%}" for name, each in report["vectors"].items()
    )
    print(f"  vectors, of the rate of copies: {', '.join(shares)}")
    found = report["density"] = gpu_forms.measure_density(
        case, norb, partial(on_device, case.device, repeats=1), partial(median_seconds, repeats=1)
    )
    print(
        f"  density matrices: GPU {found['seconds']:.4g} s, CPU {found['cpu_seconds']:.4g} s, "
        f"agreement {found['agreement']:.1e}",
        flush=True,
    )


def run_solves(
    name: str, hamiltonian: Any, strings: Any, options: argparse.Namespace, budget: Budget, report: dict[str, Any]
) -> None:
    """Whole solves on both backends."""
    from sqd_mpi.files import records

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.h5"
        records.write_input(path, hamiltonian, *strings)
        limit = budget.left
        report["gpu"] = solve(path, "gpu", Path(folder), limit, options.tol)
        report["cpu"] = solve(path, "cpu", Path(folder), min(limit / 2, budget.left), options.tol)
    print(solve_text(name, report["gpu"], report["cpu"], report["predicted_memory"]), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything that fits into the time and print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", help="published inputs or input files (h2o-1em4 n2-1em5 h2o-1em6 ...)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SQD_MPI_DATA", "data")))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=300.0, help="time after which no input is begun (300)")
    parser.add_argument("--sizes", default=",".join(map(str, CROSSOVER)), help="numbers of strings for the crossover")
    parser.add_argument("--tol", type=float, default=1e-5, help="residual norm of the whole solves (1e-5)")
    parser.add_argument("--no-solve", dest="solve", action="store_false", help="leave the whole solves out")
    parser.add_argument("--no-profile", dest="profile", action="store_false", help="leave the profile for plans out")
    parser.add_argument("-o", "--output", type=Path, help="file for the JSON object as well")
    options = parser.parse_args(arguments)
    try:
        device = open_the_device()
    except InputError as error:
        print(f"gpu benchmark: nothing was measured: {error.typed}", file=sys.stderr)
        return 2
    inputs = options.inputs or (DEFAULT_INPUTS if options.data.is_dir() else MADE_UP_INPUTS)
    published = [name for name in inputs if Path(name).suffix != ".h5" and not name.startswith(MADE_UP)]
    if not options.data.is_dir() and published:
        print(f"gpu benchmark: --data DIR or SQD_MPI_DATA must name {SOURCE}, or give input files", file=sys.stderr)
        return 2
    report: dict[str, Any] = {"inputs": [], "failures": []}
    before = signal.signal(signal.SIGTERM, _end)
    try:
        measure_all(inputs, device, options, report)
    except (KeyboardInterrupt, Ended):
        report["failures"].append({"section": "all that follows", "error": "ended by a signal"})
    finally:
        signal.signal(signal.SIGTERM, before)
        save(report, options.output)
        print(json.dumps(report), flush=True)
    return 0 if not report["failures"] and all(good(result) for result in report["inputs"]) else 1


def _end(*_: Any) -> None:
    raise Ended


def good(result: dict[str, Any]) -> bool:
    """Whether the GPU's sigma of an input is that of the CPU, and a solve on it did not fail."""
    agreement = result.get("sigma", {}).get("agreement")
    agree = all(each is None or each < AGREEMENT for each in (agreement, result.get("density", {}).get("agreement")))
    return agree and "failed" not in result.get("gpu", {})


def save(report: dict[str, Any], path: Path | None) -> None:
    """Write what is known so far, if there is a file for it."""
    if path is not None:
        aside = path.with_name(path.name + ".part")
        aside.write_text(json.dumps(report) + "\n")
        os.replace(aside, path)


def section(report: dict[str, Any], name: str, options: argparse.Namespace, work: Callable[[], Any]) -> Any:
    """What a part of the benchmark gives; None if it fails, which is noted."""
    try:
        return work()
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"  {name} failed: {text}", flush=True)
        report["failures"].append({"section": name, "error": text})
        return None
    finally:
        save(report, options.output)


def measure_all(inputs: Sequence[str], device: Any, options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Fill the report, section by section."""
    from sqd_mpi import _jit

    _jit.set_threads(available_cores())
    budget, emulated = Budget(options.seconds), device.kind == "host"
    if emulated:
        print("EMULATED on the CPU by one thread: the figures are meaningless as speed")
    free, total = device.memory()
    report |= {
        "emulated": emulated, "device": device.name, "kind": device.kind, "memory_bytes": total,
        "cpu_threads": available_cores(), "rates": None, "profile": None, "crossover": None, "suggested_rates": None,
    }  # fmt: skip
    rates = report["rates"] = section(report, "rates", options, lambda: device_rates(device, options.repeats))
    if rates is None:
        return
    print(
        f"{device.name}, {total / 1e9:.3g} GB ({free / 1e9:.3g} free): DGEMM {rates['dgemm'] / 1e9:.1f} GFMA/s, copies "
        f"{rates['copy'] / 1e9:.1f} GB/s, up {rates['upload'] / 1e9:.1f}, down {rates['download'] / 1e9:.1f} GB/s, a "
        f"kernel starts every {1e6 * rates['launch']:.1f} us; CPU {available_cores()} threads"
    )
    for number, name in enumerate(inputs):
        if number == N_SMALL:
            between(device, options, budget, report)
        result: dict[str, Any] = {"input": name}
        report["inputs"].append(result)
        if budget.left < 10.0:
            print(f"\n{name}: left out, as the time is up (--seconds {options.seconds:g})")
            result["left_out"] = "time"
            continue
        section(report, name, options, partial(run_input, name, device, rates, options, budget, result))
    if len(inputs) <= N_SMALL:
        between(device, options, budget, report)
    report["suggested_rates"] = section(report, "suggested rates", options, lambda: gpu_forms.suggested_rates(report))
    if report["suggested_rates"] is not None:
        text = ", ".join(f"{name}={value:.3g}" for name, value in report["suggested_rates"].items())
        print(f"\nRates({text})")


def between(device: Any, options: argparse.Namespace, budget: Budget, report: dict[str, Any]) -> None:
    """From where on the GPU is faster, and the profile of the machine."""
    measured = [result for result in report["inputs"] if "sigma" in result]
    sizes = [int(n) for n in options.sizes.split(",") if n]
    if measured and sizes:
        name = max(measured, key=lambda result: min(result["strings"]))["input"]
        found = section(
            report, "crossover", options,
            lambda: crossover(*read_problem(name, options.data), device, sizes, budget),
        )  # fmt: skip
        report["crossover"] = found
        if found is not None:
            where = "nowhere" if found["strings"] is None else f"from {found['strings']} strings on"
            print(
                f"\nthe GPU is faster {where}, among {', '.join(str(row['strings']) for row in found['rows'])} ({name})"
            )
            if found["auto_seconds"] is not None:
                print(f"  where a plan for the CPU says {found['auto_seconds']:.3g} s for a sigma (--backend auto)")
    if options.profile and budget.left > 10.0:
        limit = min(120.0, 0.4 * budget.left)
        report["profile"] = section(report, "profile", options, lambda: gpu_forms.machine_profile(limit))
        if report["profile"] is not None:
            print(f"\nprofile of this machine: {json.dumps(report['profile'])}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
