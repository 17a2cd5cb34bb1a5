"""GPUs in a plan: what a sigma asks of them, what their data sheets promise, and the bytes that a rank keeps there."""

from __future__ import annotations

from dataclasses import dataclass

from sqd_mpi.layout import Shape
from sqd_mpi.machine import MachineProfile
from sqd_mpi.options import InputError
from sqd_mpi.planner.prediction import Messages
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.work import Work

ASSUMED_SHARE = 0.5  # of what a data sheet says that kernels are taken to reach; nothing of it is measured
LANES = 32  # pairs of strings that a kernel treats together
_ON_CHIP_BYTES = 128  # that a multiprocessor or compute unit reads from its shared memory in a cycle
_LAUNCH_SECONDS = 1e-5
_CONTEXT_BYTES = 500_000_000


@dataclass(frozen=True)
class DataSheet:
    """What the maker says about one GPU, or about the half of one that is a device of its own.

    Attributes:
        key: short name; name: for people.
        vector_flops, matrix_flops: FP64 operations per second (a multiply-add is two), of the vector and of the
            matrix units.
        bytes_per_second, n_bytes: of its memory.
        n_processors, hertz: multiprocessors or compute units, and their highest clock.
        host_bytes_per_second: to and from host memory, one way.
        source: where the numbers stand.
    """

    key: str
    name: str
    vector_flops: float
    matrix_flops: float
    bytes_per_second: float
    n_bytes: int
    n_processors: int
    hertz: float
    host_bytes_per_second: float
    source: str

    @property
    def operands_per_second(self) -> float:
        """Doubles that all multiprocessors together read from shared memory; a sparse multiply-add needs one."""
        return self.n_processors * self.hertz * _ON_CHIP_BYTES / 8


_NVIDIA, _AMD = "https://www.nvidia.com/en-us/data-center", "https://www.amd.com/en/products/accelerators/instinct"
DATA_SHEETS = (
    DataSheet("a100", "A100 SXM, 80 GB", 9.7e12, 19.5e12, 2.039e12, 80 * 10**9, 108, 1.41e9, 32e9, f"{_NVIDIA}/a100/"),
    DataSheet("h100", "H100 SXM", 34e12, 67e12, 3.35e12, 80 * 10**9, 132, 1.98e9, 64e9, f"{_NVIDIA}/h100/"),
    DataSheet("h200", "H200 SXM", 34e12, 67e12, 4.8e12, 141 * 10**9, 132, 1.98e9, 64e9, f"{_NVIDIA}/h200/"),
    DataSheet(
        "mi250x-die", "MI250X, one of its two dies", 23.95e12, 47.85e12, 1.6e12, 64 * 10**9, 110, 1.7e9, 36e9,
        f"{_AMD}/mi200/mi250x.html",
    ),
    DataSheet(
        "mi300x", "MI300X", 81.7e12, 163.4e12, 5.3e12, 192 * 10**9, 304, 2.1e9, 64e9, f"{_AMD}/mi300/mi300x.html"
    ),
)  # fmt: skip


def data_sheet(key: str) -> DataSheet:
    """The data sheet of a short name.

    Raises:
        InputError: there is none of that name.
    """
    for sheet in DATA_SHEETS:
        if sheet.key == key:
            return sheet
    raise InputError(f"a device is one of {', '.join(sheet.key for sheet in DATA_SHEETS)}; got {key!r}")


def assumed_profile(sheet: DataSheet) -> MachineProfile:
    """A machine with one rank for each of these GPUs, whose kernels reach `ASSUMED_SHARE` of the data sheet."""
    multiply_add = max(2.0 / sheet.vector_flops, 1.0 / sheet.operands_per_second) / ASSUMED_SHARE
    element = 8.0 / sheet.bytes_per_second / ASSUMED_SHARE
    return MachineProfile(
        name=f"assumed: {sheet.name}, {100 * ASSUMED_SHARE:.0f} % of the rates of its data sheet ({sheet.source})",
        backend="gpu",
        device_bytes=sheet.n_bytes,
        context_bytes=_CONTEXT_BYTES,
        staging_bytes_per_second=ASSUMED_SHARE * sheet.host_bytes_per_second,
        gather_seconds=element,
        mixed_seconds=multiply_add,
        same_spin_seconds=multiply_add,
        group_seconds=1e-9,  # many groups run at the same time
        task_seconds=4 * _LAUNCH_SECONDS,
        lanes=LANES,
        vector_seconds=element,
        slide_bytes_per_second=10e9,
        reduction_bytes_per_second=6e9,
        process_bytes=1_000_000_000,
    )


@dataclass(frozen=True)
class DeviceWork:
    """What one sigma asks of the devices of a grid, all of them together.

    Attributes:
        multiply_adds: of opposite spin and of same spin; padding lanes are not counted.
        moved_bytes: of device memory, for gathered and scattered elements.
        vector_bytes: of device memory, read or written beside the tasks.
    """

    multiply_adds: tuple[float, float]
    moved_bytes: float
    vector_bytes: float

    def floor_seconds(self, sheet: DataSheet, n_devices: int = 1) -> dict[str, float]:
        """Least seconds by what limits a sigma: "arithmetic", "operands" from shared memory, device "memory".

        A perfect kernel overlaps all three and takes as long as the longest.
        """
        total = sum(self.multiply_adds)
        return {
            "arithmetic": 2.0 * total / sheet.vector_flops / n_devices,
            "operands": total / sheet.operands_per_second / n_devices,
            "memory": (self.moved_bytes + self.vector_bytes) / sheet.bytes_per_second / n_devices,
        }


def count_device_work(problem: Problem, shape: Shape = (1, 1, 1, 1)) -> DeviceWork:
    """Operations and bytes of one sigma on all devices of a grid."""
    work = Work(problem, shape, MachineProfile(backend="gpu", lanes=1), 1)
    totals = {name: float(values.sum()) for name, values in work.operations.items()}
    stored = float(problem.dimension(shape))
    moved = totals["moved"] + totals["rows"] + 2.0 * stored  # alpha same spin: the vector in, sigma out
    elements = Messages.create(work).vector_elements * shape[0] * shape[1] * shape[2] * shape[3]
    return DeviceWork((totals["terms"], totals["alpha"] + totals["beta"]), 8.0 * moved, 8.0 * elements)
