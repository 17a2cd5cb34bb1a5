"""What a first run on a GPU has to settle, for benchmarks/gpu.py.

Every form of the sums by itself, Krylov vectors, density matrices, the start of a kernel, rates for `Rates`, and the
profile of the machine for plans.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MADE_UP = "made-up-"  # and a number of strings: problems for machines without the published inputs
PLACE = (0, 0, 0, 0)
FORMS = {"mixed": ("direct", "product", "tiled"), "same spin": ("sparse", "dense")}
_ORBITALS, _ELECTRONS = 24, 5
_LAUNCHES = 200
_BASIS = 8  # Krylov vectors

Timer = Callable[[Callable[[], Any]], float]


def child_environment() -> dict[str, str]:
    """Environment of processes that run this sqd_mpi; CuPy may lie in a folder of PYTHONPATH."""
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *([known] if known else [])])}


def made_up(name: str) -> tuple[Any, tuple[Any, Any]]:
    """Hamiltonian and strings of a problem that needs no files: the lowest strings of equally spaced orbitals."""
    from sqd_mpi.app.bench import KernelCase
    from sqd_mpi.problem import bitstrings

    case = KernelCase.create(int(name.removeprefix(MADE_UP)), _ORBITALS, _ELECTRONS)
    strings, _ = bitstrings.canonical(case.problem.alpha.strings.strings)
    return case.hamiltonian, (strings, strings)


def some_ket(layout: Any) -> Any:
    """Random elements of the whole block (0, 0), its own mirror image where the layout stores one half."""
    random = np.random.default_rng(0).normal
    whole = random(size=layout.block_size(0, 0))
    if layout.parity:
        from sqd_mpi.distribution.mirror import Unfolding

        unfolding = Unfolding(layout, 0, 0)
        half = random(size=unfolding.own.size)
        unfolding.unfold(half, half, whole)
    return whole


def launch_seconds(device: Any, seconds: Timer) -> float:
    """Seconds from the start of one small kernel to the next."""
    one, two = device.upload(np.ones(32)), device.upload(np.ones(32))
    kernel = device.kernel("vectors", "add_scaled")

    def many() -> None:
        for _ in range(_LAUNCHES):
            kernel(1, 32, (one, np.float64(0.0), two, np.int64(32)))

    return seconds(many) / _LAUNCHES


def measure_forms(case: Any, hamiltonian: Any, labels: Any, seconds: Timer) -> dict[str, dict[str, Any]]:
    """Every form of opposite and same spin, taken everywhere: counted work, predicted and measured seconds.

    Args:
        case: a `gpu.Sigma`.
        hamiltonian, labels: of its problem.
        seconds: measures a call.
    """
    found: dict[str, dict[str, Any]] = {}
    for part, forms in FORMS.items():
        for form in forms:
            try:
                found[form] = _measure_form(case, hamiltonian, labels, part, form, seconds)
            except (MemoryError, RuntimeError, ValueError) as error:
                found[form] = {"failed": " ".join(str(error).split())}
    return found


def _measure_form(case: Any, hamiltonian: Any, labels: Any, part: str, form: str, seconds: Timer) -> dict[str, Any]:
    from sqd_mpi.backends.gpu.block import GpuBlock
    from sqd_mpi.backends.gpu.share import GpuShare

    device, layout, interaction = case.device, case.layout, case.interaction
    share = GpuShare(device, layout, PLACE, hamiltonian, labels)
    chosen = {"form": form} if part == "mixed" else {"same_spin": form}
    block = GpuBlock(layout, PLACE, share, **chosen)
    tasks = [task for task in block.tasks(interaction) if (task.kind == "mixed") == (part == "mixed")]
    block.prepare(tasks)
    ket, out = device.upload(some_ket(layout)), device.empty(layout.sub_block_size(0, 0, 0))
    device.zero(out)
    work = block.work(tasks, interaction)

    def apply() -> None:
        for task in tasks:
            block.apply(task, ket, out, interaction)

    measured = seconds(apply)
    return {
        "useful": work.useful, "executed": work.executed, "bytes": work.bytes, "predicted_seconds": work.seconds,
        "seconds": measured, "measured_over_predicted": measured / work.seconds if work.seconds > 0.0 else None,
    }  # fmt: skip


def measure_vectors(device: Any, size: int, seconds: Timer) -> dict[str, dict[str, float]]:
    """Sums and combinations of Krylov vectors of so many elements: bytes that they read and write, and seconds."""
    from sqd_mpi.backends.gpu.vectors import DeviceVectors

    vectors = DeviceVectors(device)
    basis, turn = device.upload(np.ones((_BASIS, size))), np.eye(_BASIS)
    diagonal, out = device.upload(np.ones(size)), device.upload(np.ones(size))
    calls = {
        "gram": (2 * _BASIS, lambda: vectors.gram(basis, basis)),
        "rotate": (2 * _BASIS, lambda: vectors.rotate(basis, turn)),
        "scale_and_add": (4, lambda: vectors.scale_and_add(diagonal, out, 1.0, out)),
    }
    return {name: {"bytes": 8.0 * n * size, "seconds": seconds(call)} for name, (n, call) in calls.items()}


def measure_density(case: Any, norb: int, seconds: Timer, cpu_seconds: Timer) -> dict[str, float]:
    """One- and two-particle density matrices of a vector on both backends: seconds, lists included, and agreement."""
    from sqd_mpi.backends.cpu.density import Accumulators, DensityBlock
    from sqd_mpi.backends.gpu.density import GpuDensityBlock
    from sqd_mpi.distribution.layout import Layout

    layout = Layout.create(case.layout.alpha, case.layout.beta, case.layout.sector, (1, 1, 1, 1))
    ket = np.random.default_rng(0).normal(size=layout.block_size(0, 0))
    ket /= np.linalg.norm(ket)
    found = {}

    def make(create: Callable[..., Any]) -> None:
        out = Accumulators.zeros(norb, 2, True)
        block = create(layout, layout, PLACE, norb, case.labels.both[0], out)
        for shift in block.shifts(True):
            block.add(*shift, ket, ket, True)
        block.finish()
        found[create] = out.flat

    on_gpu = partial(GpuDensityBlock, case.device)
    times = {"seconds": seconds(partial(make, on_gpu)), "cpu_seconds": cpu_seconds(partial(make, DensityBlock))}
    return {**times, "agreement": float(np.abs(found[on_gpu] - found[DensityBlock]).max())}


def forms_text(found: dict[str, dict[str, Any]]) -> str:
    """The forms as a table."""
    lines = ["  form     useful GFMA  executed GFMA       GB  predicted ms  measured ms   ratio  executed GFMA/s"]
    for form, each in found.items():
        if "failed" in each:
            lines.append(f"  {form:8} left out ({each['failed']})")
            continue
        ratio = each["measured_over_predicted"]
        lines.append(
            f"  {form:8} {each['useful'] / 1e9:11.4g}  {each['executed'] / 1e9:13.4g}  {each['bytes'] / 1e9:7.4g}"
            f"  {1e3 * each['predicted_seconds']:12.4g}  {1e3 * each['seconds']:11.4g}"
            f"  {'-' if ratio is None else format(ratio, '6.3g'):>6}  {each['executed'] / each['seconds'] / 1e9:15.4g}"
        )
    return "\n".join(lines)


def suggested_rates(report: dict[str, Any]) -> dict[str, float]:
    """Values for `backends.gpu.costs.Rates`: the assumed ones, scaled to the largest input with that form."""
    from sqd_mpi.backends.gpu.costs import RATES

    rates = asdict(RATES)
    for result in report["inputs"]:  # the largest come last
        for form, each in (result.get("forms") or {}).items():
            if each.get("measured_over_predicted"):
                for name in (form, "contracted") if form == "tiled" else (form,):
                    if name in rates:
                        rates[name] = getattr(RATES, name) / each["measured_over_predicted"]
    if report.get("rates"):
        rates["bytes"] = report["rates"]["copy"]
        rates["launch"] = report["rates"]["launch"]
    return rates


def predicted_cpu_seconds(hamiltonian: Any, strings: tuple[Any, Any], n_threads: int) -> float:
    """Seconds of a sigma that a plan for the CPU says."""
    from sqd_mpi import planner
    from sqd_mpi.planner.profile import MachineProfile

    problem = planner.Problem.create(hamiltonian, *strings)
    plan = planner.predict(problem, (1, 1, 1, 1), MachineProfile(), n_threads, planner.MemoryLimits(10**15, 2, 2))
    return float(plan.seconds_per_sigma)


def machine_profile(limit: float) -> dict[str, Any]:
    """The profile that `bench --backend gpu` measures, in a process of its own.

    Raises:
        RuntimeError: it does not end in time, or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.json"
        command = [sys.executable, "-m", "sqd_mpi", "bench", "--backend", "gpu", "-o", str(path)]
        run = partial(subprocess.run, command, capture_output=True, text=True, check=False, env=child_environment())
        try:
            done = run(timeout=max(limit, 1.0))
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"longer than {limit:.0f} s") from None
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        return dict(json.loads(path.read_text()))
