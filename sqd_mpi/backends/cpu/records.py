"""What the kernels of the CPU take: tuples of arrays, C-contiguous and of the dtypes that stand here.

A directed orbital pair pq of E_pq = a+_p a_q, p != q, is the number 2 pair(max, min) + (0 if p > q else 1), pair(p, q)
= p (p + 1) / 2 + q for p >= q, so that `pq >> 1` is the undirected pair and `pq ^ 1` is E_qp.

numba keeps compiled kernels beside the kernels' own files. So whoever changes the order of fields here must change
those files as well, or empty the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray


class Rows(NamedTuple):
    """Where the rows of both vectors lie; a row is one alpha string."""

    bra_offset: IntArray
    """(n_bra,) int64 flat offset in sigma of every bra row."""
    bra_stop: IntArray
    """(n_bra,) int64 number of columns of every bra row that are wanted; the others are neither computed nor stored
    (spin-flip symmetry). Does not decrease inside a label."""
    ket_offset: IntArray
    """(n_ket,) int64 flat offset in C of every ket row."""


class Groups(NamedTuple):
    """Groups of alpha singles (I, I', pq, eps) that meet the same beta matrix with the same orbital pair.

    The groups of density matrices hold occupied orbitals as well, and stand in the order of the results' rows.
    """

    thread_group: IntArray
    """(n_threads + 1,) int64, thread k owns the groups thread_group[k]:thread_group[k + 1]. A bra row belongs to one
    thread only."""
    start: IntArray
    """(n_groups + 1,) int64 range of every group in the lists of singles."""
    pair: NDArray[np.int32]
    """(n_groups,) int32 directed orbital pair; for density matrices the row of the result."""
    matrix: NDArray[np.int32]
    """(n_groups,) int32 beta matrix, in lists that are shared by sectors that of sector 0."""
    pair_bra: NDArray[np.int32]
    """(n,) int32 bra row of every single."""
    pair_ket: NDArray[np.int32]
    """(n,) int32 ket row of every single."""
    pair_sign: NDArray[np.int8]
    """(n,) int8, +1 or -1."""

    def of_sector(self, sector: int, n_labels: int) -> Groups:
        """Lists of sector 0 as those of another, in which alpha label x goes with beta label x XOR sector."""
        return self if sector == 0 else self._replace(matrix=self.matrix ^ np.int32(sector * n_labels))

    def of_pairs(self, wanted: NDArray[np.bool_]) -> Groups:
        """The groups of some orbital pairs, (n_pairs,); this record itself if these are all."""
        kept = wanted[self.pair >> 1]
        if kept.all():
            return self
        lengths = np.diff(self.start)
        single = np.repeat(kept, lengths)
        return Groups(
            np.concatenate([[0], np.cumsum(kept)])[self.thread_group].astype(np.int64),
            np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
            self.pair[kept],
            self.matrix[kept],
            self.pair_bra[single],
            self.pair_ket[single],
            self.pair_sign[single],
        )


class BetaSingles(NamedTuple):
    """Singles from a rank's beta columns to the columns of one ket block: a sparse matrix for every y n_labels + d.

    Its rows are the bra columns of label y; its entries are reached by orbital pairs of label d and lie in the ket
    columns of label y XOR d. The sparse rows of all matrices follow one another.
    """

    matrix_row: IntArray
    """(n_matrices + 1,) int64 first sparse row of every matrix: one for every bra column."""
    matrix_n_ket: IntArray
    """(n_matrices,) int64 number of ket columns."""
    indptr: IntArray
    """(n_rows + 1,) int64 range of every sparse row in the next three."""
    column: NDArray[np.int32]
    """(nnz,) int32 ket column."""
    orbital_pair: NDArray[np.int32]
    """(nnz,) int32 directed pair rs."""
    sign: NDArray[np.int8]
    """(nnz,) int8."""
    matrix_diagonal: NDArray[np.int8]
    """(n_matrices,) int8, 1 where the bra columns are the ket columns (db = 0, d = 0): the diagonal belongs to it."""
    occupied_pair: NDArray[np.int32]
    """(n_rows, n_beta_electrons) int32 pair(r, r) of the occupied orbitals of every bra column."""

    @property
    def matrix_entries(self) -> IntArray:
        """(n_matrices,) number of singles of every matrix."""
        return self.indptr[self.matrix_row[1:]] - self.indptr[self.matrix_row[:-1]]

    def of_pairs(self, wanted: NDArray[np.bool_]) -> BetaSingles:
        """The singles by some orbital pairs, (n_pairs,); this record itself if these are all."""
        kept = wanted[self.orbital_pair >> 1]
        if kept.all():
            return self
        indptr = np.concatenate([[0], np.cumsum(kept)])[self.indptr].astype(np.int64)
        column, orbital_pair, sign = (array[kept] for array in (self.column, self.orbital_pair, self.sign))
        return self._replace(indptr=indptr, column=column, orbital_pair=orbital_pair, sign=sign)


class SparseRows(NamedTuple):
    """A sparse matrix over strings of one spin in CSR; columns ascend within a row."""

    indptr: IntArray
    """(n_rows + 1,) int64."""
    column: NDArray[np.int32]
    """(nnz,) int32."""
    value: FloatArray
    """(nnz,) float64, hartree."""


class AlphaStrings(NamedTuple):
    """What the terms in which beta strings move alone must know of the alpha strings of the bra rows."""

    thread_row: IntArray
    """(n_threads + 1,) int64, thread k owns the bra rows thread_row[k]:thread_row[k + 1]."""
    label_start: IntArray
    """(n_labels + 1,) int64 first bra row of every label."""
    label_matrix: NDArray[np.int32]
    """(n_labels,) int32 matrix of beta singles of the rows of every label, or -1: nothing to add."""
    label_doubles: IntArray
    """(n_labels,) int64 first sparse row of the doubles of the rows of every label."""
    occupied_pair: NDArray[np.int32]
    """(n_bra, n_alpha_electrons) int32 pair(p, p) of the occupied orbitals of every alpha string."""
