"""The three sums of sigma = H C as plain loops: the readable definition that `cpu.vector_kernels` must reproduce.

Vectors are flat float64 buffers; what the kernels know of them and of the connections stands in `cpu.records`. Work is
divided by the caller into one part per thread; two parts never write to the same row.
"""

from __future__ import annotations

import numba

from sqd_mpi._jit import jit, parallel_jit


def scratch_size(max_rows: int, max_columns: int, max_matrix_entries: int, n_pair_b: int) -> int:
    """Number of float64 of scratch that each thread needs (1: the plain loops use none, the vector kernels do).

    Args:
        max_rows: largest number of bra rows or of ket rows of one label.
        max_columns: length of the longest bra or ket row.
        max_matrix_entries: largest number of single excitations (`indptr` range) in one beta matrix.
        n_pair_b: norb (norb + 1) / 2, second dimension of `coupling`.
    """
    return 1


@jit
def _opposite_spin_group(ket, sigma, rows, groups, beta, coupling, swap, group):
    """One group of alpha singles that share pq: sigma[I, :] += eps M_pq C[I', :] for each of them (I, I')."""
    pq = groups.pair[group]
    matrix = groups.matrix[group]
    for k in range(groups.start[group], groups.start[group + 1]):
        bra_row = groups.pair_bra[k]
        source = rows.ket_offset[groups.pair_ket[k]]
        for j in range(rows.bra_stop[bra_row]):
            row = beta.matrix_row[matrix] + j
            total = 0.0
            for m in range(beta.indptr[row], beta.indptr[row + 1]):
                rs = beta.orbital_pair[m]
                value = coupling[pq >> 1, rs >> 1]
                if rs == (pq ^ 1):
                    value -= swap
                total += beta.sign[m] * value * ket[source + beta.column[m]]

            # The diagonal, where the beta string may stay.
            if beta.matrix_diagonal[matrix] != 0:
                diagonal = 0.0
                for r in range(beta.occupied_pair.shape[1]):
                    diagonal += coupling[pq >> 1, beta.occupied_pair[row, r]]
                total += diagonal * ket[source + j]
            sigma[rows.bra_offset[bra_row] + j] += groups.pair_sign[k] * total


@parallel_jit
def opposite_spin(ket, sigma, rows, groups, beta, coupling, swap, scratch):
    """Add the terms in which one alpha electron moves: single x single and, where asked, single x diagonal.

    sigma[I, J] += sum over (I, I', pq, eps) and (J, J', rs, eta) of eps eta V(pq, rs) C[I', J'], with
    V(pq, rs) = coupling[pq >> 1, rs >> 1] - swap * (rs == pq ^ 1), and, in beta matrices with a diagonal, the further
    entry (J, J) of value sum over r occupied in J of coupling[pq >> 1, pair(r, r)].

    Args:
        ket: (n,) float64, C.
        sigma: (m,) float64, added to.
        rows: `Rows`.
        groups: `Groups`; their bra rows have as many columns as their beta matrix has sparse rows.
        beta: `BetaSingles`.
        coupling: (n_pair_a, n_pair_b) float64, (pq|rs) with alpha pairs first, hartree.
        swap: float64, strength of the term -delta_ps delta_qr of a spin penalty. With 0 a group may mix both directions
            of pq.
        scratch: (n_threads, scratch_size) float64, not used here.
    """
    for thread in numba.prange(groups.thread_group.size - 1):
        for group in range(groups.thread_group[thread], groups.thread_group[thread + 1]):
            _opposite_spin_group(ket, sigma, rows, groups, beta, coupling, swap, group)


@parallel_jit
def same_spin_alpha(ket, sigma, rows, label_bra_start, label_ket_start, matrix, scratch):
    """Add H_alpha from the left: sigma[I, :] += sum_k value[k] C[column[k], :], k in indptr[I]:indptr[I + 1].

    Args:
        ket: (n,) float64, C.
        sigma: (m,) float64, added to.
        rows: `Rows`.
        label_bra_start: (n_labels + 1,) int64, bra rows label_bra_start[x]:label_bra_start[x + 1] have label x.
        label_ket_start: (n_labels + 1,) int64, likewise for ket rows; rows of label x connect to ket rows of label x
            only.
        matrix: `SparseRows` from bra rows to ket rows.
        scratch: (n_threads, scratch_size) float64; its first dimension is the number of parts of the work.
    """
    n_threads = scratch.shape[0]
    n_bra = rows.bra_offset.size
    for thread in numba.prange(n_threads):
        for bra in range(n_bra * thread // n_threads, n_bra * (thread + 1) // n_threads):
            target = rows.bra_offset[bra]
            for k in range(matrix.indptr[bra], matrix.indptr[bra + 1]):
                source = rows.ket_offset[matrix.column[k]]
                for j in range(rows.bra_stop[bra]):
                    sigma[target + j] += matrix.value[k] * ket[source + j]


@jit
def _beta_row(ket, sigma, rows, alpha, singles, single_value, doubles, coupling, row, label):
    """sigma[I, :] += H_beta C[I, :] and the alpha diagonal x beta single terms, for one alpha string I."""
    source = rows.ket_offset[row]
    first_single = singles.matrix_row[alpha.label_matrix[label]]
    first_double = alpha.label_doubles[label]
    for j in range(rows.bra_stop[row]):
        total = 0.0
        for m in range(doubles.indptr[first_double + j], doubles.indptr[first_double + j + 1]):
            total += doubles.value[m] * ket[source + doubles.column[m]]
        for m in range(singles.indptr[first_single + j], singles.indptr[first_single + j + 1]):
            g = 0.0
            for p in range(alpha.occupied_pair.shape[1]):
                g += coupling[alpha.occupied_pair[row, p], singles.orbital_pair[m] >> 1]
            total += (single_value[m] + singles.sign[m] * g) * ket[source + singles.column[m]]
        sigma[rows.bra_offset[row] + j] += total


@parallel_jit
def same_spin_beta(ket, sigma, rows, alpha, singles, single_value, doubles, coupling, scratch):
    """Add H_beta from the right and the terms alpha diagonal x beta single: the alpha string stays.

    sigma[I, J] += sum over doubles of value[k] C[I, column[k]] + sum over singles of
    (single_value[k] + sign[k] g[orbital_pair[k] >> 1, I]) C[I, column[k]], g[rs, I] = sum over p occupied in I of
    coupling[pair(p, p), rs].

    Args:
        ket: (n,) float64, C.
        sigma: (m,) float64, added to.
        rows: `Rows`; ket_offset has for every bra row the ket row of the same alpha string.
        alpha: `AlphaStrings` of the bra rows.
        singles: `BetaSingles`; a bra row has as many columns as its matrix has sparse rows.
        single_value: (nnz,) float64, element of H_beta of every single, hartree.
        doubles: `SparseRows` with the doubles of H_beta.
        coupling: (n_pair_a, n_pair_b) float64, hartree.
        scratch: (n_threads, scratch_size) float64, not used here.
    """
    for thread in numba.prange(alpha.thread_row.size - 1):
        for label in range(alpha.label_matrix.size):
            if alpha.label_matrix[label] < 0:
                continue
            first = max(alpha.thread_row[thread], alpha.label_start[label])
            for row in range(first, min(alpha.thread_row[thread + 1], alpha.label_start[label + 1])):
                _beta_row(ket, sigma, rows, alpha, singles, single_value, doubles, coupling, row, label)
