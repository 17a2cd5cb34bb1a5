"""The sums of density matrices as plain loops: the readable definition that `cpu.density_kernels` must reproduce.

Vectors are flat float64 buffers in which a row is one alpha string; `bra_offset[row]` and `ket_offset[row]` are the
places where its beta columns begin. Directed orbital pairs, groups and beta matrices are those of `cpu.records`.
"""

from __future__ import annotations

from sqd_mpi._jit import jit


@jit
def opposite_spin(bra, ket, bra_offset, ket_offset, groups, beta, pair_column, out):
    """Add <E^alpha_pq E^beta_rs>: out[pq, rs] += sum of eps eta bra[I, J] ket[I', J'].

    The sum runs over the pairs (I, I', eps) of every group and the beta singles (J, J', rs, eta) of the matrix that the
    group meets; in matrices with a diagonal also over J' = J with rs = rr, eta = 1 for every r occupied in J.

    Args:
        bra, ket: float64, whole blocks.
        bra_offset: (n_bra,) int64; ket_offset: (n_ket,) int64.
        groups: `Groups`, whose `pair` is the row pq of out, ascending.
        beta: `BetaSingles`.
        pair_column: (2 n_pair,) int64, column of out for each directed pair.
        out: (n_out, norb**2) float64, added to.
    """
    for group in range(groups.pair.size):
        matrix, pq = groups.matrix[group], groups.pair[group]
        first_row = beta.matrix_row[matrix]
        for k in range(groups.start[group], groups.start[group + 1]):
            left, right = bra_offset[groups.pair_bra[k]], ket_offset[groups.pair_ket[k]]
            for j in range(beta.matrix_row[matrix + 1] - first_row):
                value = groups.pair_sign[k] * bra[left + j]
                for m in range(beta.indptr[first_row + j], beta.indptr[first_row + j + 1]):
                    out[pq, pair_column[beta.orbital_pair[m]]] += beta.sign[m] * value * ket[right + beta.column[m]]
                if beta.matrix_diagonal[matrix]:
                    for r in beta.occupied_pair[first_row + j]:
                        out[pq, pair_column[2 * r]] += value * ket[right + j]


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
