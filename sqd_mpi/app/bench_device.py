"""What a GPU can do: the constants of a `MachineProfile` that `bench` measures on the device of each rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log
from time import perf_counter
from typing import Any

import numpy as np

from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.planner import data_sheets
from sqd_mpi.planner.seconds import Seconds

RATE = "device_rates."  # before the names of measured rates of forms
_LARGE = 32_000_000  # elements of a large copy; fewer where the device is emulated
_LARGE_EMULATED = 200_000
_SQUARE = 2048  # rows and columns of a matrix product of same spin
_SQUARE_EMULATED = 96
_REPEATS = 5
_SHAPES = ((1, 1, 1, 1), (4, 1, 1, 1), (1, 4, 1, 1), (2, 2, 1, 1))


class DeviceEngine:
    """Measures made-up problems on the device of this process; see `bench.CpuEngine`.

    Args:
        device: the device.
    """

    start = data_sheets.assumed_profile(data_sheets.data_sheet("h100"))

    def __init__(self, device: Any):
        self.device = device
        emulated = device.kind == "host"
        self.cases = ((120, 10, 4, _SHAPES[:1]),) if emulated else ((16000, 24, 5, _SHAPES), (4000, 20, 5, _SHAPES[:2]))
        self._large = _LARGE_EMULATED if emulated else _LARGE
        self._square = _SQUARE_EMULATED if emulated else _SQUARE

    def block(self, layout: Any, place: Any, hamiltonian: Any, labels: Any) -> Any:
        """A block on the device."""
        from sqd_mpi.backends.gpu import block, share

        parts = share.GpuShare(self.device, layout, place, hamiltonian, labels)
        return block.GpuBlock(layout, place, parts, same_spin="sparse")

    def array(self, host: Any) -> Any:
        """A vector for the block."""
        return self.device.upload(host)

    def seconds(self, function: Callable[[], object]) -> float:
        """Least wall seconds of a call until the device is through, after one that is not counted."""
        samples = []
        for _ in range(1 + _REPEATS):
            began = perf_counter()
            function()
            self.device.synchronize()
            samples.append(perf_counter() - began)
        return max(min(samples[1:]), 1e-9)

    def constants(self, measured: Sequence[tuple[Any, dict[str, float]]]) -> dict[str, Any]:
        """The constants of a profile: the assumed rates, made slower or faster by what was measured.

        Opposite spin has several forms, of which the cheapest is taken: all of them get one factor, and same spin gets
        another, geometric means over all problems.

        Args:
            measured: what a plan counts (`planner.work.Work`) with the assumed rates, and seconds by kind of task.
        """
        logs: dict[str, list[float]] = {"mixed": [], "same spin": []}
        for work, seconds in measured:
            for kind, found in seconds.items():
                predicted = float(Seconds(work).blocks[kind][0, 0, 0])
                if predicted > 0.0:
                    logs["mixed" if kind == "mixed" else "same spin"].append(log(found / predicted))
        opposite, same_spin = (exp(sum(each) / max(len(each), 1)) for each in logs.values())
        return {
            "mixed_seconds": opposite * self.start.mixed_seconds,
            "same_spin_seconds": same_spin * self.start.same_spin_seconds,
            "gather_seconds": opposite * self.start.gather_seconds,
            **{RATE + name: rate / opposite for name, rate in (self.start.device_rates or {}).items()},
        }

    def copies(self) -> dict[str, float]:
        """Seconds of a launch, of a vector's element and of a multiply-add of a matrix product, and bytes per second of
        copies through pinned memory.
        """
        one, two = self.device.upload(np.ones(self._large)), self.device.empty(self._large)
        pinned, small = self.device.pinned(self._large), self.device.empty(1)
        pinned[:] = 1.0
        slowest = max(
            self.seconds(lambda: self.device.copy_in(pinned, two)),
            self.seconds(lambda: self.device.copy_out(two, pinned)),
        )
        n = self._square
        matrices = [self.device.upload(np.ones((n, n))) for _ in range(3)]
        return {
            "dense_seconds": self.seconds(lambda: self.device.gemm(*matrices)) / n**3,
            "task_seconds": 4.0 * self.seconds(lambda: self.device.zero(small)),
            "vector_seconds": self.seconds(lambda: self.device.copy(one, two)) / (2 * self._large),
            "staging_bytes_per_second": 8.0 * self._large / slowest,
        }


def open_engine(say: Callable[[str], None] = lambda text: None) -> DeviceEngine:
    """The engine of the device of this process.

    Raises:
        InputError: there is none.
    """
    from sqd_mpi.backends.gpu.process_device import open_device

    return DeviceEngine(open_device(say=say))


def describe(ranks: Ranks, engine: DeviceEngine, n_local: int) -> dict[str, Any]:
    """Memory of the device and how the ranks of a node share devices. Collective over the ranks."""
    device = engine.device
    everyone = ranks.gather_objects(device.identity)
    sharing = everyone.count(device.identity)
    free, total = device.memory()
    taken = 0 if device.kind == "host" else max(total - free, 0) // sharing
    n_nodes = max(1, len(everyone) // n_local)
    return {
        "backend": "gpu",
        "device_bytes": total,
        "device_shared_bytes": device.limits.shared_bytes,
        "devices_per_node": max(1, len(set(everyone)) // n_nodes),
        "context_bytes": taken,
        "lanes": 1,
        "group_seconds": DeviceEngine.start.group_seconds,
    }
