"""What a machine can do, as a few constants: the profile that `bench` writes and predictions are made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sqd_mpi.backends.cpu import costs
from sqd_mpi.errors import InputError
from sqd_mpi.files.new_files import check_output, new_binary_file
from sqd_mpi.problem.text_files import read_text

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _price(name: str) -> Any:
    """A field whose default is a constant of the CPU's price list, as it is when a profile is made."""
    return Field(default_factory=lambda: getattr(costs, name))


class MachineProfile(BaseModel):
    """Constants of one rank of a machine; the defaults are those of one core of a 2-core 2.6 GHz Zen 4 with MPICH.

    Times of the kernels are seconds of one thread; bandwidths are those that one rank gets while all ranks of the
    node want theirs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["sqd_mpi-machine"] = "sqd_mpi-machine"
    """Kind of file."""
    version: Literal[1] = 1
    """Version of the format."""
    name: str = "built-in: one core of a 2.6 GHz Zen 4, MPICH in shared memory"
    """What was measured."""
    ranks_per_node: Annotated[int, Field(ge=1)] | None = None
    """Ranks that share a node's memory; None for as many as this machine has cores."""
    gather_seconds: _Positive = _price("GATHER_SECONDS")
    """One gathered or scattered element."""
    mixed_seconds: _Positive = _price("MIXED_SECONDS")
    """One fused multiply-add of opposite spin."""
    same_spin_seconds: _Positive = _price("SAME_SPIN_SECONDS")
    """One fused multiply-add of same spin."""
    dense_seconds: _Positive | None = None
    """One fused multiply-add of a large matrix product on a GPU, for same spin; None where same spin has sparse lists
    only."""
    group_seconds: _Positive = _price("GROUP_SECONDS")
    """One group of alpha singles with the same orbital pair."""
    task_seconds: _Positive = _price("TASK_SECONDS")
    """Start of one task."""
    lanes: Annotated[int, Field(ge=1)] = costs.LANES
    """Pairs of strings that a kernel treats together; groups are filled up to a multiple."""
    vector_seconds: _Positive = _price("VECTOR_SECONDS")
    """One element that a vector operation reads or writes, on all threads of a rank."""
    pair_seconds: _Positive = _price("PAIR_SECONDS")
    """Comparison of two strings while the connection lists are made."""
    slide_latency_seconds: _Positive = 2e-5
    """One message of a ring."""
    slide_bytes_per_second: _Positive = 3e9
    """Bandwidth of a ring."""
    hidden_share: _Share = 0.0
    """Part of a slide that goes on while the rank computes."""
    reduction_latency_seconds: _Positive = 2e-5
    """One small sum over all ranks, divided by the number of times that two halves must meet, log2(ranks)."""
    reduction_bytes_per_second: _Positive = 1.5e9
    """Large sums over the replicas of a block."""
    process_bytes: Annotated[int, Field(ge=0)] = 230_000_000
    """Resident memory of a rank of an empty run: Python, libraries, kernels, MPI."""
    rank_bytes: Annotated[int, Field(ge=0)] = 500_000
    """What every further rank of the node adds to that."""
    backend: Literal["cpu", "gpu"] = "cpu"
    """Whose the times of kernels and vectors are. Those of a GPU hold for a rank that has it alone."""
    device_bytes: Annotated[int, Field(ge=1)] | None = None
    """Memory of a GPU."""
    device_shared_bytes: Annotated[int, Field(ge=1)] = 232_448
    """Shared memory that a thread block of a GPU can have; that of an H100."""
    devices_per_node: Annotated[int, Field(ge=1)] | None = None
    """GPUs that the ranks of a node share; None for one each."""
    context_bytes: Annotated[int, Field(ge=0)] = 0
    """What every rank takes of a GPU's memory before the first array: driver, libraries, kernels."""
    staging_bytes_per_second: _Positive | None = None
    """Copies between a GPU and pinned host memory, which messages go through; None where there is no GPU."""
    device_rates: dict[str, _Positive] | None = None
    """Rates of the forms of opposite spin on a GPU by name (`backends.gpu.costs.Rates`), as far as they do not follow
    from the seconds of a multiply-add."""

    @property
    def ranks_per_device(self) -> int:
        """Ranks that share a GPU."""
        if self.devices_per_node is None or self.ranks_per_node is None:
            return 1
        return max(1, -(-self.ranks_per_node // self.devices_per_node))

    def in_single_precision(self) -> MachineProfile:
        """The same for a sigma in single precision on a CPU."""
        names = ("gather_seconds", "mixed_seconds", "same_spin_seconds")
        seconds = {name: costs.SINGLE_SHARE * getattr(self, name) for name in names}
        return self.model_copy(update={**seconds, "lanes": 2 * self.lanes})

    def kernel_threads(self, n_threads: int) -> int:
        """By how many the times of kernels are divided, of ranks with so many threads."""
        return 1 if self.backend == "gpu" else n_threads


def read_profile(path: str | Path) -> MachineProfile:
    """Profile from a file that `bench` wrote.

    Raises:
        InputError: the file cannot be read, is of another kind or holds a value that does not fit.
    """
    text = read_text(path, f"cannot read the machine profile {path}")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(
            f"{path} is no machine profile: it is not JSON; make one with python -m sqd_mpi bench"
        ) from None
    if not isinstance(values, dict) or values.get("format") != "sqd_mpi-machine":
        raise InputError(f"{path} is no machine profile: its format is not sqd_mpi-machine; bench makes one")
    if values.get("version") != 1:
        raise InputError(f"{path} needs version 1 of the machine profile; it has version {values.get('version')!r}")
    try:
        return MachineProfile(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] == "missing" else f"; got {values.get(name)!r}"
        raise InputError(f"machine profile {path}: {name}: {first['msg'].lower()}{got}") from None


def write_profile(path: str | Path, profile: MachineProfile) -> None:
    """Write a profile that `read_profile` reads.

    Raises:
        InputError: the folder is missing or not writable.
        WriteError: the file cannot be written.
    """
    check_output(path)
    with new_binary_file(path) as stream:
        stream.write((json.dumps(profile.model_dump(), indent=1) + "\n").encode())
