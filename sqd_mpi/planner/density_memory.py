"""Bytes of a rank while density matrices are made, after the solve: arithmetic on numbers of orbitals and strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqd_mpi.planner.work import Work


def packed_size(norb: int, order: int, symmetric: bool) -> int:
    """Number of float64 of the packed matrices up to `order`, in which ranks add them up."""
    n_pair = norb * (norb + 1) // 2
    two = 2 * n_pair**2 + (n_pair if symmetric else norb**2) * norb**2
    return 2 * norb**2 + (two if order == 2 else 0)


def matrix_bytes(norb: int, order: int, symmetric: bool = True) -> int:
    """Bytes per rank of the matrices: the packed sums, the unpacked results and what unpacking needs beside them."""
    unpacked = 5 * norb**4 if order == 2 else 4 * norb**2
    return 8 * (packed_size(norb, order, symmetric) + unpacked)


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
