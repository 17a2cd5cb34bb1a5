"""Memory, messages and time of one process grid."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, prod
from typing import Any

from sqd_mpi.arrays import Shape
from sqd_mpi.planner.memory import MemoryLimits, MemoryNeeds
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.seconds import Seconds, setup_seconds
from sqd_mpi.planner.work import Work

ASSUMED_SIGMAS = 15  # of a solve, for predicted times: what the published inputs need for one root to 1e-6
SLICES_PER_STEP = 35  # vectors that an iteration of the eigensolver reads or writes beside sigma
REDUCTIONS_PER_STEP = 3


@dataclass(frozen=True)
class GridPlan:
    """What one grid is predicted to need; the largest of all ranks where ranks differ."""

    grid: Shape
    """(a, b, t, r)."""
    spin_flip: bool
    """Whether spin-flip symmetry is used."""
    single_precision: bool
    """Whether sigma is made in single precision."""
    max_subspace: int
    """Number of basis vectors that was planned for."""
    vectors_bytes: int
    """Basis, images and diagonal of the eigensolver."""
    buffers_bytes: int
    """Own block, ket blocks, partial sigma."""
    structure_bytes: int
    """Connections of the strings."""
    process_bytes: int
    """A rank of an empty run."""
    staging_bytes: int
    """Host memory in which vectors and messages of a GPU are kept on their way; 0 without one."""
    device_bytes: int
    """Memory of a GPU that a rank needs: then vectors and buffers lie there, and the connections on both sides."""
    compute_seconds: dict[str, float]
    """Mean processor seconds of a rank in the tasks of one sigma, by kind: mixed, alpha, beta."""
    balance: float
    """Largest over mean processor seconds of the ranks in these tasks."""
    message_bytes_per_rank: int
    """Received in one sigma: ket blocks, slices of replicas, stored halves, partial sums."""
    messages_per_rank: int
    """Ket blocks received in one sigma."""
    seconds_per_sigma: float
    """Wall time of one application of the Hamiltonian, every rank on cores of its own."""
    seconds_per_iteration: float
    """The same with the work on vectors and the sums over ranks."""
    setup_seconds: float
    """Making the lists of connections."""
    missing_bytes: int
    """What the memory of a rank lacks; 0 where the grid fits."""
    missing_device_bytes: int
    """What a rank's part of the memory of a GPU lacks."""
    density_bytes: int = 0
    """Vectors, blocks and matrices in host memory while density matrices are made; 0 where none are wanted."""

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return prod(self.grid)

    @property
    def bytes_per_rank(self) -> int:
        """All predicted bytes of a rank in host memory."""
        solving = self.staging_bytes if self.device_bytes else self.vectors_bytes + self.buffers_bytes
        return max(solving, self.density_bytes) + self.structure_bytes + self.process_bytes

    @property
    def fits(self) -> bool:
        """Whether nothing is missing."""
        return self.missing_bytes == 0 and self.missing_device_bytes == 0

    @property
    def seconds_per_solve(self) -> float:
        """Wall time of a solve of `ASSUMED_SIGMAS` iterations."""
        return self.setup_seconds + ASSUMED_SIGMAS * self.seconds_per_iteration

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {**vars(self), "grid": list(self.grid)}
        return {**values, "bytes_per_rank": self.bytes_per_rank, "seconds_per_solve": self.seconds_per_solve}


def predict(problem: Problem, shape: Shape, profile: MachineProfile, n_threads: int, limits: MemoryLimits) -> GridPlan:
    """Memory, messages and time of one grid.

    Args:
        problem: the input.
        shape: (a, b, t, r).
        profile: machine.
        n_threads: threads of a rank.
        limits: memory and subspace; the largest subspace that fits is planned for.
    """
    single = problem.single and profile.backend == "cpu"
    profile = profile.in_single_precision() if single else profile
    work = Work(problem, shape, profile, profile.kernel_threads(n_threads))

    # The largest subspace that fits, or the smallest with what it lacks.
    for size in range(limits.wanted, limits.least - 1, -1):
        needed = MemoryNeeds.create(work, size, limits)
        missing, missing_device = needed.missing(profile, limits)
        if missing <= 0 and missing_device <= 0:
            break

    # A sigma is the slowest rank's tasks, messages that they do not hide, and vectors; an iteration adds its own.
    n_ranks = prod(shape)
    messages, seconds = Messages.create(work, 4.0 if single else 8.0), Seconds(work)
    compute = float((seconds.ranks / work.n_threads + seconds.fold[:, None]).max())
    slice_size = problem.dimension(shape) / n_ranks
    sigma = compute + messages.seconds(profile, compute) + profile.vector_seconds * messages.vector_elements
    step = SLICES_PER_STEP * slice_size * profile.vector_seconds
    step += REDUCTIONS_PER_STEP * profile.reduction_latency_seconds * log2(n_ranks)

    return GridPlan(
        grid=shape,
        spin_flip=bool(work.parity),
        single_precision=single,
        max_subspace=size,
        vectors_bytes=needed.eigensolver.vectors,
        buffers_bytes=needed.eigensolver.buffers,
        structure_bytes=needed.structure,
        process_bytes=needed.process,
        staging_bytes=needed.staging,
        device_bytes=needed.device,
        compute_seconds={name: float(values.mean()) / shape[2] for name, values in seconds.blocks.items()},
        balance=seconds.balance,
        message_bytes_per_rank=ceil(messages.total_bytes),
        messages_per_rank=ceil(messages.slides),
        seconds_per_sigma=sigma,
        seconds_per_iteration=sigma + step,
        setup_seconds=setup_seconds(work, n_threads),
        missing_bytes=max(0, missing),
        missing_device_bytes=max(0, missing_device),
        density_bytes=needed.density,
    )


@dataclass(frozen=True)
class Messages:
    """What the rank with most messages receives in one sigma."""

    slides: float
    """Ket blocks."""
    slide_bytes: float
    """Of them together."""
    collected: float
    """Bytes of a block put together from the slices of its replicas."""
    swapped: float
    """Bytes of the stored half of the mirror block."""
    reduced: float
    """Bytes of partial sums over task groups."""
    n_replicas: int
    """Ranks that put a block together."""
    n_groups: int
    """Ranks that add partial sums."""
    vector_elements: float
    """Elements read or written beside the tasks."""

    @classmethod
    def create(cls, work: Work, element: float = 8.0) -> Messages:
        """Count the messages of a grid, with so many bytes an element."""
        a, b, t, r = work.shape
        problem = work.problem
        block = problem.n_determinants / (a * b)
        stored = problem.dimension(work.shape) / (a * b)
        needed = float(work.needed.max()) - 1.0
        # A task group takes a stretch of blocks; the one on a border goes to both sides.
        slides = needed if t == 1 else min(needed, needed / t + 1.0)
        replicas = t * r
        elements = 4.0 * stored / replicas + stored / r
        if work.parity:
            elements += 6.0 * block  # turned copies, which miss the caches
        return cls(
            slides,
            element * slides * block,
            element * stored * (1.0 - 1.0 / replicas),
            element * stored * (work.parity != 0 and a > 1),
            element * stored / r * (1.0 - 1.0 / t),
            replicas,
            t,
            elements,
        )

    @property
    def total_bytes(self) -> float:
        """All bytes received."""
        return self.slide_bytes + self.collected + self.swapped + self.reduced

    def seconds(self, profile: MachineProfile, compute: float) -> float:
        """Time of the messages that is not hidden behind `compute` seconds."""
        slides = self.slides * profile.slide_latency_seconds + self.slide_bytes / profile.slide_bytes_per_second
        slides += self.staged_seconds(profile, self.slide_bytes)
        exposed = max(slides - profile.hidden_share * compute, (1.0 - profile.hidden_share) * slides)
        return exposed + self.exchange_seconds(profile)

    def exchange_seconds(self, profile: MachineProfile) -> float:
        """Time of putting the own block together and of adding partial sums."""
        replicas = (self.collected + self.reduced) / profile.reduction_bytes_per_second
        replicas += profile.reduction_latency_seconds * (log2(self.n_replicas) + log2(self.n_groups))
        staged = self.staged_seconds(profile, 2.0 * (self.collected + self.reduced + self.swapped))
        return replicas + staged + self.swapped / profile.slide_bytes_per_second

    def staged_seconds(self, profile: MachineProfile, n_bytes: float) -> float:
        """Time of copies of messages between a GPU and host memory."""
        return n_bytes / profile.staging_bytes_per_second if profile.staging_bytes_per_second else 0.0
