"""The diagonal of H with the mean over all spin functions of a configuration, which keeps vectors of one spin pure."""

from __future__ import annotations

import numba
import numpy as np

from sqd_mpi._jit import parallel_jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.protocol import SigmaBlock
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Memory
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction


def mean_diagonal(
    layout: Layout, place: tuple[int, int, int, int], hamiltonian: Hamiltonian, block: SigmaBlock, twice_spin: int,
    memory: Memory = HOST, strength: float = 0.0, wall: float = 0.0,
) -> FloatArray:  # fmt: skip
    """(slice size,) diagonal for the choice of determinants and the preconditioner, hartree, in host memory.

    Args:
        layout: ownership of the vector.
        place: (ia, ib, it, ir) of this rank.
        hamiltonian: spin-free integrals.
        block: this rank's share.
        twice_spin: 2 S of the spin functions.
        memory: that of the block.
        strength: times the square of what S (S + 1) lacks, added to configurations with too few open shells, hartree.
        wall: added to them as well, hartree.
    """
    elements = memory.empty(layout.slice_size(*place))
    where = layout.geometry(*place)
    block.diagonal(Interaction.energy(hamiltonian), elements)
    out = memory.to_host(elements)
    _average_over_spin_functions(
        where.row_offset, where.row_length, where.row_column, where.start, where.stop,
        layout.alpha.strings[where.alpha], layout.beta.strings[where.beta], _exchange(hamiltonian), twice_spin / 2.0,
        strength, wall, out,
    )  # fmt: skip
    return out


def _exchange(hamiltonian: Hamiltonian) -> FloatArray:
    """(norb, norb) K[p, q] = (pq|pq)."""
    p, q = np.tril_indices(hamiltonian.norb)
    out = np.empty((hamiltonian.norb, hamiltonian.norb))
    out[p, q] = out[q, p] = np.diagonal(hamiltonian.eri_pairs())
    return out


@parallel_jit
def _average_over_spin_functions(
    row_offset, row_length, row_column, start, stop, alpha, beta, exchange, spin, strength, wall, out
):
    """Diagonal elements of H to their means over the spin functions of spin S of the configuration, in place.

    A determinant has -K_pq for every pair of parallel open shells; the mean over the functions of spin S of n open
    shells has -K_pq (1/2 + 2 <s_p s_q>) for every pair, where n (n - 1) <s_p s_q> = S (S + 1) - 3 n / 4.
    """
    for row in numba.prange(row_offset.shape[0]):
        first, last = max(row_offset[row], start), min(row_offset[row] + row_length[row], stop)
        opened, is_alpha = np.empty(64 * alpha.shape[1], np.int64), np.empty(64 * alpha.shape[1], np.bool_)
        for flat in range(first, last):
            # The open shells, and which of them have an alpha electron.
            j = row_column[row] + flat - row_offset[row]
            n_open = 0
            for word in range(alpha.shape[1]):
                bits = alpha[row, word] ^ beta[j, word]
                orbital = 64 * word
                while bits != 0:
                    if bits & np.uint64(1):
                        opened[n_open] = orbital
                        is_alpha[n_open] = (alpha[row, word] >> np.uint64(orbital & 63)) & np.uint64(1) == 1
                        n_open += 1
                    bits >>= np.uint64(1)
                    orbital += 1

            # Exchange integrals of pairs of parallel ones, and of all pairs.
            parallel, total = 0.0, 0.0
            for p in range(n_open):
                for q in range(p):
                    value = exchange[opened[p], opened[q]]
                    total += value
                    if is_alpha[p] == is_alpha[q]:
                        parallel += value

            # The mean of the wanted spin, or of the highest one that there is, and what this differs by.
            possible = min(spin, 0.5 * n_open)
            if n_open > 1:
                scalar = (possible * (possible + 1.0) - 0.75 * n_open) / (n_open * (n_open - 1.0))
                out[flat - start] += parallel - (0.5 + 2.0 * scalar) * total
            if possible < spin:
                out[flat - start] += strength * (spin * (spin + 1.0) - possible * (possible + 1.0)) ** 2 + wall
