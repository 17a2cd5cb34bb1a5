"""The sums of density matrices as plain loops: the readable definition that `density_kernels` must reproduce.

Vectors are flat float64 buffers in which a row is one alpha string; `bra_offset[row]` and `ket_offset[row]` are the
places where its beta columns begin. Directed orbital pairs, blocks of beta singles and their sparse rows are those of
`plain_kernels`.
"""

from __future__ import annotations

from sqd_mpi._jit import jit


@jit
def opposite_spin(
    bra, ket, bra_offset, ket_offset, thread_group, group_start, group_row, group_block, pair_bra, pair_ket, pair_sign,
    block_row, block_n_ket, indptr, column, orbital_pair, sign, block_diagonal, occupied, pair_column, out,
):  # fmt: skip
    """Add <E^alpha_pq E^beta_rs>: out[pq, rs] += sum of eps eta bra[I, J] ket[I', J'].

    The sum runs over the pairs (I, I', eps) of every group and the beta singles (J, J', rs, eta) of the block that the
    group meets; in blocks with `block_diagonal` also over J' = J with rs = rr, eta = 1 for every r occupied in J.

    Args:
        bra, ket: float64, whole blocks.
        bra_offset: (n_bra,) int64; ket_offset: (n_ket,) int64.
        thread_group: (n_threads + 1,) int64, thread k owns the groups thread_group[k]:thread_group[k + 1].
        group_start: (n_groups + 1,) int64, range of each group in the lists of pairs.
        group_row: (n_groups,) int64, row pq of out, ascending.
        group_block: (n_groups,) int64, beta block.
        pair_bra, pair_ket: (n_pairs,) int32 rows; pair_sign: (n_pairs,) int8.
        block_row: (n_blocks + 1,) int64; block_n_ket: (n_blocks,) int64; indptr: (n_rows + 1,) int64.
        column, orbital_pair: (nnz,) int32 ket column and directed pair rs; sign: (nnz,) int8.
        block_diagonal: (n_blocks,) int8.
        occupied: (n_rows, n_beta) int32, pair(r, r) of the occupied orbitals of each bra column.
        pair_column: (2 n_pair,) int64, column of out for each directed pair.
        out: (n_out, norb**2) float64, added to.
    """
    for group in range(group_row.size):
        block = group_block[group]
        first_row = block_row[block]
        for k in range(group_start[group], group_start[group + 1]):
            left, right = bra_offset[pair_bra[k]], ket_offset[pair_ket[k]]
            for j in range(block_row[block + 1] - first_row):
                value = pair_sign[k] * bra[left + j]
                for m in range(indptr[first_row + j], indptr[first_row + j + 1]):
                    rs = pair_column[orbital_pair[m]]
                    out[group_row[group], rs] += sign[m] * value * ket[right + column[m]]
                if block_diagonal[block]:
                    for r in occupied[first_row + j]:
                        out[group_row[group], pair_column[2 * r]] += value * ket[right + j]


def alpha_products(bra, ket, bra_offset, ket_offset, length, patterns):
    """For every pattern value[k] += sum_J bra[I, J] ket[column[k], J], k in indptr[I]:indptr[I + 1].

    Args:
        bra_offset, ket_offset: int64, places of the rows, which have `length` columns.
        patterns: list of CSR (indptr int64, column int32, value float64) over the bra rows.
    """
    for indptr, column, value in patterns:
        _alpha_products(bra, ket, bra_offset, ket_offset, length, indptr, column, value)


def beta_products(bra, ket, bra_offset, ket_offset, bra_column, n_ket, patterns):
    """For every pattern value[k] += sum_I bra[I, bra_column[j]] ket[I, column[k]], k in indptr[j]:indptr[j + 1].

    Args:
        bra_offset, ket_offset: (n,) int64, places of the n common alpha rows in both vectors.
        bra_column: (n_columns,) int64, ascending, columns of the bra rows.
        n_ket: number of columns of the ket rows.
        patterns: list of CSR (indptr int64, column int32, value float64) over bra_column.
    """
    for indptr, column, value in patterns:
        _beta_products(bra, ket, bra_offset, ket_offset, bra_column, indptr, column, value)


@jit
def _alpha_products(bra, ket, bra_offset, ket_offset, length, indptr, column, value):
    for i in range(bra_offset.size):
        for k in range(indptr[i], indptr[i + 1]):
            for j in range(length):
                value[k] += bra[bra_offset[i] + j] * ket[ket_offset[column[k]] + j]


@jit
def _beta_products(bra, ket, bra_offset, ket_offset, bra_column, indptr, column, value):
    for i in range(bra_offset.size):
        for j in range(bra_column.size):
            for k in range(indptr[j], indptr[j + 1]):
                value[k] += bra[bra_offset[i] + bra_column[j]] * ket[ket_offset[i] + column[k]]
