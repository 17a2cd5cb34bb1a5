"""The three sums of sigma = H C as plain loops: the readable definition that `vector_kernels` must reproduce.

Vectors are flat float64 buffers. A row is one alpha string: `bra_offset[row]` (in sigma) and `ket_offset[row]`
(in C) are the places where its beta columns begin. A directed orbital pair pq of E_pq = a+_p a_q, p != q, is the
number 2 * pair(max, min) + (0 if p > q else 1), pair(p, q) = p (p + 1) / 2 + q for p >= q, so that `pq >> 1` is the
undirected pair and `pq ^ 1` is E_qp.

A "block" is the set of all beta single excitations from the bra columns of one symmetry label to the ket columns of
one label. The blocks' sparse rows are concatenated: row `block_row[block] + J` belongs to bra column J.

Work is divided by the caller into one part per thread; two parts never write to the same row.
"""

from __future__ import annotations

import numba

from sqd_mpi._jit import jit, parallel_jit


def scratch_size(max_rows: int, max_columns: int, max_block_entries: int, n_pair_b: int) -> int:
    """Number of float64 of scratch that each thread needs (1: the plain loops use none, the vector kernels do).

    Args:
        max_rows: largest number of bra rows or of ket rows of one label.
        max_columns: length of the longest bra or ket row.
        max_block_entries: largest number of single excitations (`indptr` range) in one beta block.
        n_pair_b: norb (norb + 1) / 2, second dimension of `coupling`.
    """
    return 1


@jit
def _opposite_spin_group(
    c, sigma, bra_offset, row_stop, ket_offset, coupling, swap, pq, first_pair, last_pair, pair_bra, pair_ket,
    pair_sign, first_row, indptr, column, orbital_pair, sign, with_diagonal, occupied_pair,
):  # fmt: skip
    """One group of alpha singles that share pq: sigma[I, :] += eps M_pq C[I', :] for each of its pairs (I, I')."""
    for k in range(first_pair, last_pair):
        bra = bra_offset[pair_bra[k]]
        ket = ket_offset[pair_ket[k]]
        for j in range(row_stop[pair_bra[k]]):
            row = first_row + j
            total = 0.0
            for m in range(indptr[row], indptr[row + 1]):
                rs = orbital_pair[m]
                value = coupling[pq >> 1, rs >> 1]
                if rs == (pq ^ 1):
                    value -= swap
                total += sign[m] * value * c[ket + column[m]]
            if with_diagonal:
                diagonal = 0.0
                for r in range(occupied_pair.shape[1]):
                    diagonal += coupling[pq >> 1, occupied_pair[row, r]]
                total += diagonal * c[ket + j]
            sigma[bra + j] += pair_sign[k] * total


@parallel_jit
def opposite_spin(
    c, sigma, bra_offset, row_stop, ket_offset, coupling, swap,
    thread_group, group_start, group_pair, group_block, pair_bra, pair_ket, pair_sign,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, block_diagonal, occupied_pair, scratch,
):  # fmt: skip
    """Add the terms in which one alpha electron moves: single x single and, where asked, single x diagonal.

    sigma[I, J] += sum over (I, I', pq, eps) and (J, J', rs, eta) of eps eta V(pq, rs) C[I', J'], with
    V(pq, rs) = coupling[pq >> 1, rs >> 1] - swap * (rs == pq ^ 1), and, in blocks with `block_diagonal`, the further
    entry (J, J) of value sum over r occupied in J of coupling[pq >> 1, pair(r, r)].

    Args:
        c: (n,) float64, the ket vector.
        sigma: (m,) float64, the bra vector; added to.
        bra_offset: (n_bra,) int64, flat offset in sigma of each bra row.
        row_stop: (n_bra,) int64, number of columns of each bra row that are wanted; the others are neither computed nor
            stored (spin-flip symmetry). Does not decrease inside a label.
        ket_offset: (n_ket,) int64, flat offset in c of each ket row.
        coupling: (n_pair_a, n_pair_b) float64, (pq|rs) with alpha pairs first, hartree.
        swap: float64, strength of the term -delta_ps delta_qr of a spin penalty. With 0 a group may mix both directions
            of pq.
        thread_group: (n_threads + 1,) int64, thread k owns the groups thread_group[k]:thread_group[k + 1].
        group_start: (n_groups + 1,) int64, range of each group in the lists of pairs.
        group_pair: (n_groups,) int32, directed alpha orbital pair.
        group_block: (n_groups,) int32, beta block.
        pair_bra: (n_pairs,) int32, bra row; a bra row belongs to one thread only.
        pair_ket: (n_pairs,) int32, ket row.
        pair_sign: (n_pairs,) int8, +1 or -1.
        block_row: (n_blocks + 1,) int64, first sparse row of each block; the bra rows of a block have as many columns
            as it has sparse rows.
        block_n_ket: (n_blocks,) int64, columns of the ket rows of a block.
        indptr: (n_rows + 1,) int64, range of each sparse row in the next three.
        column: (nnz,) int32, ket column.
        orbital_pair: (nnz,) int32, directed beta orbital pair.
        sign: (nnz,) int8.
        block_diagonal: (n_blocks,) int8, 1 where bra and ket columns are the same strings and the diagonal belongs to
            this block.
        occupied_pair: (n_rows, n_beta_electrons) int32, pair(r, r) of the occupied orbitals of each bra column.
        scratch: (n_threads, scratch_size) float64, not used here.
    """
    for thread in numba.prange(thread_group.size - 1):
        for group in range(thread_group[thread], thread_group[thread + 1]):
            block = group_block[group]
            first_row = block_row[block]
            _opposite_spin_group(
                c, sigma, bra_offset, row_stop, ket_offset, coupling, swap, group_pair[group],
                group_start[group], group_start[group + 1], pair_bra, pair_ket, pair_sign,
                first_row, indptr, column, orbital_pair, sign,
                block_diagonal[block] != 0, occupied_pair,
            )  # fmt: skip


@jit
def _alpha_row(c, sigma, bra, length, ket_offset, first, last, column, value):
    """sigma[bra row] += sum_k value[k] C[ket row column[k]] for one bra row."""
    for k in range(first, last):
        ket = ket_offset[column[k]]
        for j in range(length):
            sigma[bra + j] += value[k] * c[ket + j]


@parallel_jit
def same_spin_alpha(
    c, sigma, bra_offset, row_stop, ket_offset, label_bra_start, label_ket_start, indptr, column, value, scratch,
):  # fmt: skip
    """Add H_alpha from the left: sigma[I, :] += sum_k value[k] C[column[k], :], k in indptr[I]:indptr[I + 1].

    Args:
        c: (n,) float64, the ket vector.
        sigma: (m,) float64, the bra vector; added to.
        bra_offset: (n_bra,) int64, flat offset in sigma of each bra row.
        row_stop: (n_bra,) int64, number of columns of each bra row that are wanted; the others are neither computed nor
            stored (spin-flip symmetry). Does not decrease inside a label.
        ket_offset: (n_ket,) int64, flat offset in c of each ket row.
        label_bra_start: (n_labels + 1,) int64, bra rows label_bra_start[x]:label_bra_start[x + 1] have label x.
        label_ket_start: (n_labels + 1,) int64, likewise for ket rows; rows of label x connect to ket rows of label x
            only.
        indptr: (n_bra + 1,) int64.
        column: (nnz,) int32, ket row, ascending within a row.
        value: (nnz,) float64, hartree.
        scratch: (n_threads, scratch_size) float64; its first dimension is the number of parts of the work.
    """
    n_threads = scratch.shape[0]
    n_bra = bra_offset.size
    for thread in numba.prange(n_threads):
        for bra in range(n_bra * thread // n_threads, n_bra * (thread + 1) // n_threads):
            _alpha_row(
                c, sigma, bra_offset[bra], row_stop[bra], ket_offset, indptr[bra], indptr[bra + 1], column, value
            )


@jit
def _beta_row(
    c, sigma, bra, ket, bra_row, first_row, n_columns, indptr, column, orbital_pair, sign, s_value,
    first_d_row, d_indptr, d_column, d_value, coupling, row_occupied_pair,
):  # fmt: skip
    """sigma[I, :] += H_beta C[I, :] and the alpha diagonal x beta single terms, for one alpha string I."""
    for j in range(n_columns):
        total = 0.0
        for m in range(d_indptr[first_d_row + j], d_indptr[first_d_row + j + 1]):
            total += d_value[m] * c[ket + d_column[m]]
        for m in range(indptr[first_row + j], indptr[first_row + j + 1]):
            pair = orbital_pair[m] >> 1
            g = 0.0
            for p in range(row_occupied_pair.shape[1]):
                g += coupling[row_occupied_pair[bra_row, p], pair]
            total += (s_value[m] + sign[m] * g) * c[ket + column[m]]
        sigma[bra + j] += total


@parallel_jit
def same_spin_beta(
    c, sigma, bra_offset, row_stop, own_ket_offset, label_bra_start, label_block, thread_row,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, s_value, d_block_row, d_indptr, d_column, d_value,
    coupling, row_occupied_pair, scratch,
):  # fmt: skip
    """Add H_beta from the right and the terms alpha diagonal x beta single: the alpha string stays.

    sigma[I, J] += sum over doubles of d_value[k] C[I, d_column[k]] + sum over singles of
    (s_value[k] + sign[k] g[orbital_pair[k] >> 1, I]) C[I, column[k]], g[rs, I] = sum over p occupied in I of
    coupling[pair(p, p), rs].

    Args:
        c: (n,) float64, the ket vector.
        sigma: (m,) float64, the bra vector; added to.
        bra_offset: (n_bra,) int64, flat offset in sigma of each bra row.
        row_stop: (n_bra,) int64, as in `opposite_spin`.
        own_ket_offset: (n_bra,) int64, flat offset in c of the ket row of the same alpha string.
        label_bra_start: (n_labels + 1,) int64, bra rows of each label.
        label_block: (n_labels,) int32, beta block of the rows of each label, or -1: nothing to add.
        thread_row: (n_threads + 1,) int64, thread k owns the bra rows thread_row[k]:thread_row[k + 1].
        block_row: (n_blocks + 1,) int64, first sparse row of the singles of each block; a bra row has as many columns
            as its block has sparse rows.
        block_n_ket: (n_blocks,) int64, columns of the ket rows of a block.
        indptr: (n_rows + 1,) int64, range of each sparse row in the next four.
        column: (nnz,) int32, ket column.
        orbital_pair: (nnz,) int32, directed beta orbital pair.
        sign: (nnz,) int8.
        s_value: (nnz,) float64, element of H_beta, hartree.
        d_block_row: (n_labels,) int64, first sparse row of the doubles of the rows of each label.
        d_indptr: (n_d_rows + 1,) int64, range of each sparse row in the next two.
        d_column: (d_nnz,) int32, ket column.
        d_value: (d_nnz,) float64, element of H_beta, hartree.
        coupling: (n_pair_a, n_pair_b) float64, hartree.
        row_occupied_pair: (n_bra, n_alpha_electrons) int32, pair(p, p) of the occupied orbitals of each alpha string.
        scratch: (n_threads, scratch_size) float64, not used here.
    """
    for thread in numba.prange(thread_row.size - 1):
        for label in range(label_block.size):
            block = label_block[label]
            if block < 0:
                continue
            first_row = block_row[block]
            first = max(thread_row[thread], label_bra_start[label])
            for row in range(first, min(thread_row[thread + 1], label_bra_start[label + 1])):
                _beta_row(
                    c, sigma, bra_offset[row], own_ket_offset[row], row, first_row, row_stop[row],
                    indptr, column, orbital_pair, sign, s_value,
                    d_block_row[label], d_indptr, d_column, d_value, coupling, row_occupied_pair,
                )  # fmt: skip
