"""GPUs in a plan: what their data sheets promise, and the bytes that a rank keeps there."""

from __future__ import annotations

from dataclasses import dataclass

from sqd_mpi.arrays import Shape
from sqd_mpi.backends.gpu import costs
from sqd_mpi.backends.gpu.costs import Rates
from sqd_mpi.errors import InputError
from sqd_mpi.planner.memory import MemoryLimits, MemoryNeeds
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.work import Work

# The rates of an H100 in `backends.gpu.costs` hold for other devices in proportion to what bounds the kernel on its
# data sheet: reads from shared memory, the vector or the matrix units, or memory. Nothing of it is measured.
_BOUND_BY = {
    "direct": "operands_per_second", "contracted": "operands_per_second", "sparse": "operands_per_second",
    "product": "matrix_flops", "dense": "matrix_flops", "tiled": "vector_flops", "bytes": "bytes_per_second",
}  # fmt: skip
_OPERANDS = 2.0  # doubles that an opposite-spin multiply-add reads from shared memory: coupling and coefficient
_ON_CHIP_BYTES = 128  # that a multiprocessor or compute unit reads from its shared memory in a cycle
_CONTEXT_BYTES = 500_000_000
ASSUMED = "assumed: "  # the name of a profile that nobody has measured begins so


@dataclass(frozen=True)
class DataSheet:
    """What the maker says about one GPU, or about the half of one that is a device of its own."""

    key: str
    """Short name."""
    name: str
    """For people."""
    vector_flops: float
    """FP64 operations per second (a multiply-add is two) of the vector units."""
    matrix_flops: float
    """The same of the matrix units."""
    bytes_per_second: float
    """Bandwidth of its memory."""
    n_bytes: int
    """Size of its memory."""
    n_processors: int
    """Multiprocessors or compute units."""
    hertz: float
    """Their highest clock."""
    host_bytes_per_second: float
    """To and from host memory, one way."""
    shared_bytes: int
    """Shared memory of a thread block, at most."""
    source: str
    """Where the numbers stand."""

    @property
    def operands_per_second(self) -> float:
        """Doubles that all multiprocessors together read from shared memory."""
        return self.n_processors * self.hertz * _ON_CHIP_BYTES / 8


_NVIDIA, _AMD = "https://www.nvidia.com/en-us/data-center", "https://www.amd.com/en/products/accelerators/instinct"
DATA_SHEETS = (
    DataSheet("a100", "A100 SXM, 80 GB", 9.7e12, 19.5e12, 2.039e12, 80 * 10**9, 108, 1.41e9, 32e9, 163 * 1024,
        f"{_NVIDIA}/a100/",
    ),
    DataSheet("h100", "H100 SXM", 34e12, 67e12, 3.35e12, 80 * 10**9, 132, 1.98e9, 64e9, 227 * 1024, f"{_NVIDIA}/h100/"),
    DataSheet("h200", "H200 SXM", 34e12, 67e12, 4.8e12, 141 * 10**9, 132, 1.98e9, 64e9, 227 * 1024,
        f"{_NVIDIA}/h200/",
    ),
    DataSheet(
        "mi250x-die", "MI250X, one of its two dies", 23.95e12, 47.85e12, 1.6e12, 64 * 10**9, 110, 1.7e9, 36e9,
        64 * 1024, f"{_AMD}/mi200/mi250x.html",
    ),
    DataSheet(
        "mi300x", "MI300X", 81.7e12, 163.4e12, 5.3e12, 192 * 10**9, 304, 2.1e9, 64e9, 64 * 1024,
        f"{_AMD}/mi300/mi300x.html"
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


def assumed_rates(sheet: DataSheet) -> Rates:
    """Rates of the kernels on a device: those of an H100 in proportion to what bounds them."""
    first = data_sheet("h100")
    factors = {name: getattr(sheet, bound) / getattr(first, bound) for name, bound in _BOUND_BY.items()}
    return Rates(**{name: value * factors.get(name, 1.0) for name, value in vars(costs.RATES).items()})


def highest_rates(sheet: DataSheet) -> Rates:
    """Rates that no kernel on a device exceeds."""
    bound = {
        "operands_per_second": sheet.operands_per_second, "matrix_flops": sheet.matrix_flops / 2,
        "vector_flops": sheet.vector_flops / 2, "bytes_per_second": sheet.bytes_per_second,
    }  # fmt: skip
    rates = {name: bound[_BOUND_BY[name]] for name in vars(costs.RATES) if name in _BOUND_BY}
    rates["direct"] = min(sheet.operands_per_second / _OPERANDS, sheet.vector_flops / 2)
    return Rates(**rates, launch=0.0)


def assumed_profile(sheet: DataSheet) -> MachineProfile:
    """A machine with one rank for each of these GPUs, whose kernels reach assumed shares of the data sheet's rates."""
    rates = assumed_rates(sheet)
    element = 8.0 / rates.bytes
    said = {"direct", "sparse", "dense", "bytes", "launch"}  # by the seconds of operations
    return MachineProfile(
        name=f"{ASSUMED}{sheet.name}, shares of the rates of its data sheet ({sheet.source})",
        backend="gpu",
        device_bytes=sheet.n_bytes,
        device_shared_bytes=sheet.shared_bytes,
        context_bytes=_CONTEXT_BYTES,
        staging_bytes_per_second=costs.STAGING_SHARE * sheet.host_bytes_per_second,
        gather_seconds=element,
        mixed_seconds=1.0 / rates.direct,
        same_spin_seconds=1.0 / rates.sparse,
        dense_seconds=1.0 / rates.dense,
        device_rates={name: value for name, value in vars(rates).items() if name not in said},
        group_seconds=1e-15,  # a GPU does not group alpha singles
        task_seconds=costs.TASK_LAUNCHES * rates.launch,
        lanes=1,
        vector_seconds=element,
        slide_bytes_per_second=10e9,
        reduction_bytes_per_second=6e9,
        process_bytes=1_000_000_000,
    )


def assumed_device() -> MachineProfile:
    """What plans for GPUs suppose if nobody says anything else."""
    return assumed_profile(data_sheet("h100"))


def rank_bytes(problem: Problem, shape: Shape, limits: MemoryLimits) -> dict[int, int]:
    """Predicted bytes on the GPU of a rank, what its driver takes left out, by number of basis vectors.

    Those that a run compares with what is free; in a plan they are `GridPlan.device_bytes`.
    """
    profile = assumed_device().model_copy(update={"context_bytes": 0, "device_bytes": limits.device_memory})
    work = Work(problem, shape, profile, 1)
    sizes = range(limits.wanted, limits.least - 1, -1)
    return {size: MemoryNeeds.create(work, size, limits).device for size in sizes}
