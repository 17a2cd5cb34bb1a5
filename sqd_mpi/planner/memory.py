"""Bytes of a rank, before anything is allocated: vectors, buffers, connection lists, density matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from sqd_mpi.arrays import Shape
from sqd_mpi.backends.cpu.density import Accumulators
from sqd_mpi.backends.gpu import costs as gpu_costs
from sqd_mpi.distribution.layout import diagonal_blocks_meet_half
from sqd_mpi.planner.gpu_memory import SCRATCH_BYTES, device_structure_bytes, scratch_bytes, staging_bytes
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.work import Work


@dataclass(frozen=True)
class VectorBytes:
    """Predicted bytes of the vectors of one rank."""

    vectors: int
    """Basis, images and diagonal of the eigensolver, 1/(a b t r) of the space each."""
    buffers: int
    """Own block, two ket blocks and the partial sums, 1/(a b) of the space each."""

    @property
    def total(self) -> int:
        """All predicted bytes."""
        return self.vectors + self.buffers


@dataclass(frozen=True)
class MemoryLimits:
    """Memory and subspace of a plan."""

    memory: int
    """Bytes of a rank."""
    wanted: int
    """Number of basis vectors that is best."""
    least: int
    """Smallest number of basis vectors that works."""
    device_memory: int | None = None
    """Bytes of a GPU; by default those of the profile."""
    nroots: int = 1
    """Number of roots."""
    rdm_order: int = 0
    """Order of the density matrices that are wanted, or 0."""


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a rank needs with some number of basis vectors."""

    eigensolver: VectorBytes
    """Vectors and buffers, on the GPU if there is one."""
    structure: int
    """Connection lists, in host memory."""
    process: int
    """A rank of an empty run."""
    staging: int
    """Pinned host memory for messages of a GPU; 0 without one."""
    device: int
    """Everything on the GPU; 0 without one."""
    density: int
    """In host memory in place of vectors, buffers and staging while density matrices are made."""

    @classmethod
    def create(cls, work: Work, n_basis: int, limits: MemoryLimits) -> MemoryNeeds:
        """Count the bytes of a grid."""
        problem, profile, shape = work.problem, work.profile, work.shape
        n_ranks = prod(shape)
        vectors = predict_memory(shape, problem.dimension(shape), n_basis, problem.n_determinants)
        neighbours = min(n_ranks, profile.ranks_per_node or n_ranks) - 1
        process = profile.process_bytes + neighbours * profile.rank_bytes
        structure = structure_bytes(work)
        density = density_bytes(work, limits.nroots, limits.rdm_order)
        if profile.backend == "cpu":
            return cls(vectors, structure, process, 0, 0, density)
        capacity = limits.device_memory or profile.device_bytes
        part = np.inf if capacity is None else capacity / profile.ranks_per_device - profile.context_bytes
        structure_there = device_structure_bytes(work, gpu_costs.spare_bytes(part, vectors.total))
        device = vectors.total + structure_there + profile.context_bytes
        device += scratch_bytes((profile.device_bytes or 8 * SCRATCH_BYTES) - device)
        return cls(vectors, structure, process, staging_bytes(work, vectors.buffers), device, density)

    def missing(self, profile: MachineProfile, limits: MemoryLimits) -> tuple[int, int]:
        """Bytes that are too many in host memory and on the GPU; negative where there are enough."""
        host = self.structure + self.process
        if not self.device:
            return host + max(self.eigensolver.total, self.density) - limits.memory, 0
        host += max(self.staging, self.density)
        capacity = limits.device_memory or profile.device_bytes
        part = capacity // profile.ranks_per_device if capacity else self.device
        return host - limits.memory, self.device - part


def predict_memory(grid: Shape, dimension: int, max_subspace: int, n_determinants: int | None = None) -> VectorBytes:
    """Bytes of vectors and buffers of one rank, before anything is allocated.

    Vectors are the basis, its images, the diagonal, and a root that is known while others are sought.

    Args:
        grid: (a, b, t, r).
        dimension: number of stored elements of a vector of a sector.
        max_subspace: number of basis vectors.
        n_determinants: number of determinants of the sector, if spin-flip symmetry makes it differ from the dimension.
    """
    a, b, t, r = grid
    spin_flip = n_determinants is not None and n_determinants != dimension
    block = -(-(n_determinants if n_determinants is not None else dimension) // (a * b))
    stored = -(-dimension // (a * b))
    vectors = (2 * max_subspace + 2) * -(-dimension // (a * b * t * r))
    own = block if a * b * t * r > 1 or spin_flip else 0
    kets = min(2, a * b - 1) * block
    partial = -(-stored // r) if t > 1 else 0
    if not spin_flip:
        return VectorBytes(8 * vectors, 8 * (own + kets + partial))
    # The stored half of the mirror block; on the mirror line the sum of mirrored tasks.
    mirror = 0 if a == 1 else block if diagonal_blocks_meet_half(1, 0, grid) else stored
    return VectorBytes(8 * vectors, 8 * (own + kets + partial + int(t * r > 1) * stored + mirror))


def structure_bytes(work: Work) -> int:
    """Largest bytes of the connection lists of a rank (`StringStructure` and what a block keeps beside it)."""
    problem, (a, b, t, r) = work.problem, work.shape
    n_labels, alpha, beta = problem.n_labels, work.alpha, work.beta
    share = 1.0 / r if work.parity else 1.0  # row groups are parts already without spin-flip symmetry
    rows = share * float(alpha.rows.sum(axis=1).max())
    singles = share * float(alpha.singles.sum(axis=(1, 2)).max())
    elements = share * float((alpha.doubles + alpha.singles[:, :, 0]).sum(axis=1).max())
    columns = float(beta.rows.sum(axis=1).max())
    beta_singles = float(beta.singles.sum(axis=(1, 2)).max())
    beta_doubles = float(beta.doubles.sum(axis=1).max())
    part_a, part_b = max(1.0 / t, 1.0 / a), max(1.0 / t, 1.0 / b)  # a task group keeps what its tasks need
    lists = 9.0 * singles + 8.0 * rows + 4.0 * rows * a * n_labels + 18.0 * singles / t
    beta_lists = 9.0 * beta_singles + 8.0 * columns * n_labels * b + 4.0 * problem.nelec[1] * columns * n_labels
    matrices = 12.0 * elements * part_a + (12.0 * beta_doubles + 8.0 * beta_singles) * part_b + 8.0 * columns * b
    offsets = 8.0 * problem.alpha.size * b + 8.0 * rows * (b + 4)
    integrals = 3.0 * 8.0 * len(problem.pair_labels) ** 2
    return int(lists + beta_lists + matrices + offsets + integrals)


def matrix_bytes(norb: int, order: int, symmetric: bool = True) -> int:
    """Bytes per rank of the matrices: the packed sums, the unpacked results and what unpacking needs beside them."""
    unpacked = 5 * norb**4 if order == 2 else 4 * norb**2
    return 8 * (Accumulators.size(norb, order, symmetric) + unpacked)


def density_bytes(work: Work, nroots: int, order: int) -> int:
    """Most bytes of a rank in host memory beside its process while matrices of all roots are made; 0 for order 0.

    The vectors of the roots, the own block and up to two ket blocks, the packed sums, and the matrices of all roots on
    rank 0. Connections are found anew and take no more than in the solve, whose lists and Krylov vectors are gone. What
    is done on a GPU takes no more there than the solve did, or is done on the CPU instead.
    """
    if order == 0:
        return 0
    problem, (a, b, t, r) = work.problem, work.shape
    block, slices = problem.n_determinants / (a * b), problem.dimension(work.shape) / (a * b * t * r)
    n_blocks = (1 if a * b * t * r > 1 or work.parity else 0) + min(2, a * b - 1)
    results = 8 * (nroots - 1) * ((3 * problem.norb**4 if order == 2 else 0) + 2 * problem.norb**2)
    return int(8.0 * (nroots * slices + n_blocks * block)) + matrix_bytes(problem.norb, order) + results
