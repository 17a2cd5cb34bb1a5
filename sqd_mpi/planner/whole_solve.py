"""Predicted seconds of a whole solve by parts, on the CPU or on GPUs, and which of the two a run should take.

Nothing here is measured but what a machine profile says.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from sqd_mpi.backends.cpu import costs
from sqd_mpi.backends.gpu import costs as gpu_costs
from sqd_mpi.errors import InputError
from sqd_mpi.planner.data_sheets import ASSUMED
from sqd_mpi.planner.gpu_memory import uploaded_bytes
from sqd_mpi.planner.memory import MemoryLimits
from sqd_mpi.planner.prediction import ASSUMED_SIGMAS, predict
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile, read_profile
from sqd_mpi.planner.work import Work

PROFILES = "SQD_MPI_MACHINE"  # environment: machine profiles that bench wrote, separated as in PATH
_ALONE = (1, 1, 1, 1)


@dataclass(frozen=True)
class SolveSeconds:
    """Seconds of the parts of a solve, one after the other."""

    start: float
    """Making a GPU ready; 0 on the CPU."""
    lists: float
    """Connections of the strings, on the CPU."""
    copies: float
    """Lists to a GPU, and the eigenvector from it and back."""
    model: float
    """Model spaces of the sectors, on the CPU."""
    sigmas: float
    """Applications of the Hamiltonian, and of S^2."""
    vectors: float
    """Other work on vectors."""

    @property
    def total(self) -> float:
        """All of them."""
        return sum(vars(self).values())


def predict_solve(
    problem: Problem, profile: MachineProfile, n_threads: int, sizes: tuple[int, int], n_ranks: int = 1,
    n_sigmas: int = ASSUMED_SIGMAS, n_sectors: int = 1,
) -> SolveSeconds:  # fmt: skip
    """A solve for one root; with several ranks as if they shared the work of one evenly and without messages.

    Args:
        problem: the input.
        profile: machine; of a GPU if its backend is one.
        n_threads: threads of a rank.
        sizes: numbers of basis vectors, as in `MemoryLimits`.
        n_ranks: number of ranks, each with a GPU of its own if there are any.
        n_sigmas: applications of the Hamiltonian.
        n_sectors: sectors that have a model space.
    """
    plan = predict(problem, _ALONE, profile, n_threads, MemoryLimits(2**60, *sizes, 2**60))
    start = copies = 0.0
    if profile.backend == "gpu":
        work = Work(problem, _ALONE, profile, 1)
        n_bytes = uploaded_bytes(work) + 2 * 8 * problem.dimension(_ALONE)
        start, copies = gpu_costs.START_SECONDS, n_bytes / gpu_costs.COPY_BYTES_PER_SECOND
    return SolveSeconds(
        start,
        plan.setup_seconds / n_ranks,
        copies / n_ranks,
        costs.SECTOR_SECONDS * n_sectors,
        (n_sigmas + 1) * plan.seconds_per_sigma / n_ranks,
        n_sigmas * (plan.seconds_per_iteration - plan.seconds_per_sigma) / n_ranks,
    )


@dataclass(frozen=True)
class Choice:
    """Which backend a run takes."""

    backend: str
    """"cpu" or "gpu"."""
    cpu_seconds: float
    """Predicted seconds of a whole solve on the CPU."""
    gpu_seconds: float
    """The same on GPUs."""

    @property
    def sentence(self) -> str:
        """What was chosen, and why."""
        return (
            f"--backend auto takes the {self.backend.upper()}: by the profile in {PROFILES} a solve of "
            f"{ASSUMED_SIGMAS} iterations is predicted to take {self.cpu_seconds:.2g} s on the CPU and "
            f"{self.gpu_seconds:.2g} s on the GPU"
        )


def named_profiles() -> dict[str, MachineProfile]:
    """The machine profiles that the environment names (SQD_MPI_MACHINE), by backend.

    Raises:
        InputError: a file there is no machine profile, or one of a GPU that nobody has measured.
    """
    profiles: dict[str, MachineProfile] = {}
    for path in filter(None, os.environ.get(PROFILES, "").split(os.pathsep)):
        try:
            profile = read_profile(path)
        except InputError as error:
            raise InputError(f"{PROFILES}: {error}") from None
        if profile.backend == "gpu" and profile.name.startswith(ASSUMED):
            raise InputError(f"{PROFILES} needs what bench --backend gpu has measured; {path} is an assumed profile")
        profiles[profile.backend] = profile
    return profiles


def choose_backend(
    problem: Problem, profiles: dict[str, MachineProfile], n_threads: int, sizes: tuple[int, int], n_ranks: int
) -> Choice:
    """The faster one of CPU and GPU for a whole solve.

    Args:
        problem: the input.
        profiles: of a GPU and, unless it is the built-in one, of the CPU.
        n_threads: threads of a rank.
        sizes: numbers of basis vectors, as in `MemoryLimits`.
        n_ranks: number of ranks.
    """
    cpu, gpu = (
        predict_solve(problem, profile, n_threads, sizes, n_ranks).total
        for profile in (profiles.get("cpu", MachineProfile()), profiles["gpu"])
    )
    return Choice("gpu" if gpu < cpu else "cpu", cpu, gpu)
