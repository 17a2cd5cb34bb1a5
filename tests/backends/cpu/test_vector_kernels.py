"""The three sums of sigma: plain loops against a dense definition, vector kernels against the plain loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sqd_mpi.backends.cpu import vector_kernels
from sqd_mpi.backends.cpu.records import AlphaStrings, BetaSingles, Groups, Rows, SparseRows
from sqd_mpi.backends.cpu.twins import SHORTEST_TWIN, make_twins
from sqd_mpi.backends.slow import kernels

NORB = 5
N_PAIR = NORB * (NORB + 1) // 2
MODULES = [kernels, vector_kernels]


@dataclass(frozen=True)
class Case:
    """Sizes of one made-up problem; lists have one number for every label (a power of two of them)."""

    bra_rows: list[int]
    ket_rows: list[int]
    bra_columns: list[int]
    ket_columns: list[int]
    sector: int = 0
    swap: float = 0.0
    n_threads: int = 1
    density: float = 0.3
    n_electrons: int = 2
    shift: int = 0  # doubles before the first row: rows off the 64-byte grid
    ragged: bool = False  # rows of which only the first columns are wanted, as under spin-flip symmetry

    @property
    def n_labels(self) -> int:
        """Number of symmetry labels."""
        return len(self.bra_rows)


CASES = {
    "one by one": Case([1], [1], [1], [1]),
    "no rows": Case([0], [3], [4], [4]),
    "no ket rows": Case([3], [0], [4], [4]),
    "no columns": Case([3], [3], [0], [0]),
    "no ket columns": Case([3], [3], [5], [0]),
    "shorter than a vector": Case([3], [3], [5], [5], shift=3),
    "no electrons": Case([4], [4], [9], [9], n_electrons=0),
    "no connections": Case([9], [9], [9], [9], density=0.0),
    "not divisible": Case([21], [19], [27], [27], n_threads=2, shift=1),
    "other ket columns": Case([12], [14], [9], [22], swap=0.3),
    "spin penalty": Case([17], [17], [17], [17], swap=-0.7, n_threads=3),
    "two labels": Case([5, 9], [6, 7], [11, 8], [11, 8], sector=1, n_threads=2),
    "four labels, one empty": Case([7, 0, 3, 12], [8, 4, 0, 12], [6, 13, 1, 8], [6, 13, 1, 8], sector=2, swap=0.2),
    "wide": Case([90], [90], [70], [70], density=0.9, n_threads=3, shift=5),
    "wide in labels": Case([70, 33], [65, 40], [70, 41], [70, 41], density=0.8, n_threads=2),
    "long tiles": Case([40], [1100], [75], [75], density=0.05, n_threads=2),
    "ragged": Case([60], [60], [61], [61], density=0.8, n_threads=3, ragged=True),
    "ragged in labels": Case([23, 0, 9, 40], [20, 4, 9, 40], [8, 70, 30, 3], [8, 70, 30, 3], sector=1, ragged=True),
}


class Problem:
    """Random tables in the layout of the kernels, and the dense sums that they stand for."""

    def __init__(self, case: Case, dtype: type = np.float64):
        self.case = case
        self.dtype = dtype
        self.rng = rng = np.random.default_rng(sum(case.bra_rows) * 100 + sum(case.ket_columns))
        labels = np.arange(case.n_labels)
        self.bra_start = np.concatenate([[0], np.cumsum(case.bra_rows)]).astype(np.int64)
        self.ket_start = np.concatenate([[0], np.cumsum(case.ket_rows)]).astype(np.int64)
        self.bra_label = np.repeat(labels, case.bra_rows)
        self.ket_label = np.repeat(labels, case.ket_rows)
        self.row_length = np.array(case.bra_columns, np.int64)[self.bra_label ^ case.sector]
        self.ket_length = np.array(case.ket_columns, np.int64)[self.ket_label ^ case.sector]
        self.row_stop = self.row_length.copy()
        if case.ragged:
            for x in labels:
                rows = slice(self.bra_start[x], self.bra_start[x + 1])
                self.row_stop[rows] = np.sort((rng.random(case.bra_rows[x]) * (self.row_length[rows] + 1)).astype(int))
        self.bra_offset, size = self.offsets(self.row_length)
        self.ket_offset, ket_size = self.offsets(self.ket_length)
        self.start_value = rng.standard_normal(size).astype(dtype)
        self.c = rng.standard_normal(ket_size).astype(dtype)
        self.coupling = rng.standard_normal((N_PAIR, N_PAIR))
        self.same_columns = case.bra_columns == case.ket_columns
        self.make_beta()
        self.make_alpha()
        self.make_same_spin()

    def offsets(self, lengths: np.ndarray) -> tuple[np.ndarray, int]:
        """Flat offsets of rows that lie in random order in one buffer."""
        order = self.rng.permutation(lengths.size)
        offset = np.empty(lengths.size, np.int64)
        offset[order] = self.case.shift + np.cumsum(lengths[order]) - lengths[order]
        return offset, self.case.shift + int(lengths.sum()) + 3

    def make_beta(self) -> None:
        """One random sparse matrix for every (bra label, ket label)."""
        case, rng = self.case, self.rng
        row, counts, columns, n_ket, diagonal = [0], [], [], [], []
        for bra_label in range(case.n_labels):
            for ket_label in range(case.n_labels):
                pattern = rng.random((case.bra_columns[bra_label], case.ket_columns[ket_label])) < case.density
                counts += list(pattern.sum(axis=1))
                columns.append(np.nonzero(pattern)[1])
                row.append(row[-1] + pattern.shape[0])
                n_ket.append(pattern.shape[1])
                diagonal.append(bra_label == ket_label and self.same_columns)
        column = np.concatenate(columns).astype(np.int32)
        self.beta = BetaSingles(
            np.array(row, np.int64), np.array(n_ket, np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), column, self.directed_pairs(column.size),
            self.signs(column.size), np.array(diagonal, np.int8), self.occupied(row[-1]),
        )  # fmt: skip
        self.s_value = rng.standard_normal(column.size)

    def make_alpha(self) -> None:
        """Random groups of alpha singles for every thread, beta matrix and orbital pair."""
        case, rng = self.case, self.rng
        n_bra = self.bra_label.size
        cuts = np.linspace(0, n_bra, case.n_threads + 1).astype(np.int64)
        groups, pairs, thread_group = [], [], np.zeros(case.n_threads + 1, np.int64)
        for thread in range(case.n_threads):
            for x in range(case.n_labels):
                bras = np.arange(max(cuts[thread], self.bra_start[x]), min(cuts[thread + 1], self.bra_start[x + 1]))
                for y in range(case.n_labels):
                    kets = np.arange(self.ket_start[y], self.ket_start[y + 1])
                    block = (x ^ case.sector) * case.n_labels + (y ^ case.sector)
                    for pq in rng.permutation(self.directed_pairs(8)):
                        n = int(rng.random() * (min(bras.size, kets.size) + 1))
                        if n > 0:
                            groups.append((pq, block, n))
                            pairs.append((np.sort(rng.permutation(bras)[:n]), rng.permutation(kets)[:n]))
            thread_group[thread + 1] = len(groups)
        self.thread_row = cuts
        pair_bra = np.concatenate([np.zeros(0, int)] + [p[0] for p in pairs]).astype(np.int32)
        self.groups = Groups(
            thread_group, np.concatenate([[0], np.cumsum([g[2] for g in groups])]).astype(np.int64),
            np.array([g[0] for g in groups], np.int32), np.array([g[1] for g in groups], np.int32), pair_bra,
            np.concatenate([np.zeros(0, int)] + [p[1] for p in pairs]).astype(np.int32), self.signs(pair_bra.size),
        )  # fmt: skip

    def make_same_spin(self) -> None:
        """Random same-spin matrices: alpha over rows of equal label, beta doubles over the columns of each label."""
        case, rng = self.case, self.rng
        n_ket = self.ket_label.size
        pattern = (self.bra_label[:, None] == self.ket_label) & (
            rng.random((self.bra_label.size, n_ket)) < case.density
        )
        pattern &= self.row_length[:, None] == self.ket_length
        self.h_alpha = np.where(pattern, rng.standard_normal(pattern.shape), 0.0)
        indptr = np.concatenate([[0], np.cumsum(pattern.sum(axis=1))]).astype(np.int64)
        self.alpha_rows = SparseRows(indptr, np.nonzero(pattern)[1].astype(np.int32), self.h_alpha[pattern])
        columns = np.arange(case.n_labels) ^ case.sector
        self.h_beta = []
        for y in columns:
            pattern = rng.random((case.bra_columns[y], case.ket_columns[y])) < case.density
            self.h_beta.append(np.where(pattern, rng.standard_normal(pattern.shape), 0.0))
        counts = np.concatenate([(h != 0).sum(axis=1) for h in self.h_beta])
        self.doubles = SparseRows(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([np.nonzero(h)[1] for h in self.h_beta]).astype(np.int32),
            np.concatenate([h[h != 0] for h in self.h_beta]),
        )
        first_double = np.cumsum([0, *(h.shape[0] for h in self.h_beta)])[:-1].astype(np.int64)
        self.label_matrix = (columns * case.n_labels + columns).astype(np.int32)
        if case.n_labels > 1:
            self.label_matrix[-1] = -1
        # Any ket row of the same label serves as "the same alpha string".
        own = [self.ket_start[x] + k % max(case.ket_rows[x], 1) for x in range(case.n_labels)
               for k in range(case.bra_rows[x])]  # fmt: skip
        self.own_row = np.array(own, np.int64)
        for x in range(case.n_labels):
            if case.ket_rows[x] == 0:
                self.label_matrix[x] = -1
        self.own_row = np.minimum(self.own_row, max(self.ket_label.size - 1, 0))
        self.alpha_strings = AlphaStrings(
            self.thread_row, self.bra_start, self.label_matrix, first_double, self.occupied(self.bra_label.size)
        )

    def directed_pairs(self, n: int) -> np.ndarray:
        """Random directed orbital pairs pq, p != q."""
        p, q = np.tril_indices(NORB, -1)
        pair = p * (p + 1) // 2 + q
        return (2 * self.rng.choice(pair, n) + self.rng.integers(0, 2, n)).astype(np.int32)

    def signs(self, n: int) -> np.ndarray:
        """Random +1 and -1."""
        return (1 - 2 * self.rng.integers(0, 2, n)).astype(np.int8)

    def occupied(self, n: int) -> np.ndarray:
        """pair(r, r) of random occupied orbitals of n strings."""
        orbital = np.array([self.rng.permutation(NORB)[: self.case.n_electrons] for _ in range(n)], dtype=np.int64)
        orbital = orbital.reshape(n, self.case.n_electrons)
        return np.ascontiguousarray(orbital * (orbital + 1) // 2 + orbital, dtype=np.int32)

    def scratch(self, module) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Aligned scratch full of NaN: a kernel that reads what it has not written shows."""
        case = self.case
        entries = int(self.beta.matrix_entries.max())
        rows, columns = max(case.bra_rows + case.ket_rows), max(case.bra_columns + case.ket_columns)
        size = -(-module.scratch_size(rows, columns, entries, N_PAIR) // 8) * 8
        flat = np.full(case.n_threads * size + 16, np.nan)
        first = (-flat.ctypes.data // 8) % 8
        return flat[first : first + case.n_threads * size].reshape(case.n_threads, size)

    def rows(self) -> Rows:
        """Where the rows of both vectors lie."""
        return Rows(self.bra_offset, self.row_stop, self.ket_offset)

    def opposite_spin(self, module, groups=None) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Result of a module's opposite_spin."""
        sigma = self.start_value.copy()
        module.opposite_spin(
            self.c, sigma, self.rows(), self.groups if groups is None else groups, self.beta, self.coupling,
            self.case.swap, self.scratch(module),
        )  # fmt: skip
        return sigma

    def same_spin_alpha(self, module) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Result of a module's same_spin_alpha."""
        sigma = self.start_value.copy()
        module.same_spin_alpha(
            self.c, sigma, self.rows(), self.bra_start, self.ket_start, self.alpha_rows, self.scratch(module)
        )
        return sigma

    def same_spin_beta(self, module) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Result of a module's same_spin_beta."""
        sigma = self.start_value.copy()
        own = self.ket_offset[self.own_row] if self.ket_offset.size else np.zeros_like(self.bra_offset)
        module.same_spin_beta(
            self.c, sigma, self.rows()._replace(ket_offset=own), self.alpha_strings, self.beta, self.s_value,
            self.doubles, self.coupling, self.scratch(module),
        )  # fmt: skip
        return sigma

    def ket(self, row: int) -> np.ndarray:
        """Row of C."""
        return self.c[self.ket_offset[row] : self.ket_offset[row] + self.ket_length[row]]

    def add(self, sigma: np.ndarray, row: int, values: np.ndarray) -> None:
        """Add to the wanted columns of a row of sigma."""
        stop = self.row_stop[row]
        sigma[self.bra_offset[row] : self.bra_offset[row] + stop] += values[:stop]

    def matrix(self, number: int, value: np.ndarray) -> np.ndarray:
        """A beta matrix as an array, with the given value of every entry."""
        beta = self.beta
        first, last = beta.matrix_row[number], beta.matrix_row[number + 1]
        dense = np.zeros((last - first, beta.matrix_n_ket[number]))
        rows = np.repeat(np.arange(last - first), np.diff(beta.indptr[first : last + 1]))
        entries = slice(beta.indptr[first], beta.indptr[last])
        dense[rows, beta.column[entries]] = value[entries]
        return dense

    def dense_opposite_spin(self) -> np.ndarray:
        """The definition, with one dense matrix for every group."""
        sigma, beta, groups = self.start_value.astype(np.float64), self.beta, self.groups
        for group, (pq, number) in enumerate(zip(groups.pair, groups.matrix, strict=True)):
            value = beta.sign * (
                self.coupling[pq >> 1, beta.orbital_pair >> 1] - self.case.swap * (beta.orbital_pair == (pq ^ 1))
            )
            matrix = self.matrix(number, value)
            if beta.matrix_diagonal[number]:
                occupied = beta.occupied_pair[beta.matrix_row[number] : beta.matrix_row[number + 1]]
                matrix = matrix + np.diag(self.coupling[pq >> 1][occupied].sum(axis=1))
            for k in range(groups.start[group], groups.start[group + 1]):
                self.add(sigma, groups.pair_bra[k], groups.pair_sign[k] * (matrix @ self.ket(groups.pair_ket[k])))
        return sigma

    def dense_same_spin_alpha(self) -> np.ndarray:
        """The definition, with a dense H_alpha."""
        sigma = self.start_value.astype(np.float64)
        for bra, ket in zip(*np.nonzero(self.h_alpha), strict=True):
            self.add(sigma, bra, self.h_alpha[bra, ket] * self.ket(ket))
        return sigma

    def dense_same_spin_beta(self) -> np.ndarray:
        """The definition, with a dense H_beta + g for every alpha string."""
        sigma = self.start_value.astype(np.float64)
        for row, label in enumerate(self.bra_label):
            if self.label_matrix[label] >= 0:
                field = self.coupling[self.alpha_strings.occupied_pair[row]].sum(axis=0)
                value = self.s_value + self.beta.sign * field[self.beta.orbital_pair >> 1]
                matrix = self.h_beta[label] + self.matrix(self.label_matrix[label], value)
                self.add(sigma, row, matrix @ self.ket(self.own_row[row]))
        return sigma


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sum_name", ["opposite_spin", "same_spin_alpha", "same_spin_beta"])
def test_kernels_reproduce_the_dense_definition(name: str, sum_name: str) -> None:
    """Plain and vector kernels agree with dense matrices and leave everything outside the rows alone."""
    problem = Problem(CASES[name])
    expected = getattr(problem, f"dense_{sum_name}")()
    for module in MODULES:
        found = getattr(problem, sum_name)(module)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * max(np.abs(expected).max(), 1.0))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sum_name", ["opposite_spin", "same_spin_alpha", "same_spin_beta"])
def test_kernels_reproduce_the_dense_definition_in_single_precision(name: str, sum_name: str) -> None:
    """The same kernels on float32: right to the rounding of sums of so many terms."""
    problem = Problem(CASES[name], np.float32)
    expected = getattr(problem, f"dense_{sum_name}")()
    found = getattr(problem, sum_name)(vector_kernels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * max(np.abs(expected).max(), 1.0))


@pytest.mark.parametrize("name", ["not divisible", "two labels", "wide", "wide in labels", "no rows", "ragged"])
def test_shared_gathers_change_the_order_only(name: str) -> None:
    """Regrouped singles are the same singles, and both kernels give the same sum from them."""
    problem = Problem(CASES[name])
    expected = problem.dense_opposite_spin()
    groups = problem.groups
    thread_group, source, start, *lists = make_twins(
        groups.thread_group, groups.matrix, groups.start, *groups[4:], problem.ket_label.size
    )
    regrouped = Groups(thread_group, start, groups.pair[source], groups.matrix[source], *lists)

    def singles(groups):  # type: ignore[no-untyped-def]
        group = np.repeat(np.arange(groups.pair.size), np.diff(groups.start))
        thread = np.searchsorted(groups.thread_group, group, side="right")
        return sorted(zip(thread, groups.matrix[group], groups.pair[group], *groups[4:], strict=True))

    assert singles(regrouped) == singles(groups)
    for module in MODULES:
        found = problem.opposite_spin(module, regrouped)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * max(np.abs(expected).max(), 1.0))


def test_groups_with_common_kets_become_twins() -> None:
    """Two orbital pairs that apply to the same ket rows end as two consecutive groups with equal lists."""
    n = 2 * SHORTEST_TWIN
    kets = np.arange(n, dtype=np.int32)
    pair_ket = np.concatenate([kets, kets[::-1]])
    pair_bra = np.arange(2 * n, dtype=np.int32)
    thread_group, source, start, _, ket, _ = make_twins(
        np.array([0, 2]), np.zeros(2, np.int64), np.array([0, n, 2 * n]),
        pair_bra, pair_ket, np.ones(2 * n, np.int8), n,
    )  # fmt: skip
    assert list(thread_group) == [0, 2]
    assert sorted(source) == [0, 1]
    assert list(start) == [0, n, 2 * n]
    assert list(ket[:n]) == list(ket[n:])
