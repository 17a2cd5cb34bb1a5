"""The three sums of sigma: plain loops against a dense definition, vector kernels against the plain loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sqd_mpi.backends.cpu import vector_kernels
from sqd_mpi.backends.cpu.twins import SHORTEST_TWIN, share_gathers
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

    def __init__(self, case: Case):
        self.case = case
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
        self.start_value = rng.standard_normal(size)
        self.c = rng.standard_normal(ket_size)
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
        self.block_row, self.block_n_ket = np.array(row, np.int64), np.array(n_ket, np.int64)
        self.block_diagonal = np.array(diagonal, np.int8)
        self.indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.column = np.concatenate(columns).astype(np.int32)
        self.orbital_pair = self.directed_pairs(self.column.size)
        self.sign = self.signs(self.column.size)
        self.occupied_pair = self.occupied(row[-1])
        self.s_value = rng.standard_normal(self.column.size)

    def make_alpha(self) -> None:
        """Random groups of alpha singles for every thread, beta block and orbital pair."""
        case, rng = self.case, self.rng
        n_bra = self.bra_label.size
        cuts = np.linspace(0, n_bra, case.n_threads + 1).astype(np.int64)
        groups, pairs, self.thread_group = [], [], np.zeros(case.n_threads + 1, np.int64)
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
            self.thread_group[thread + 1] = len(groups)
        self.thread_row = cuts
        self.group_pair = np.array([g[0] for g in groups], np.int32)
        self.group_block = np.array([g[1] for g in groups], np.int32)
        self.group_start = np.concatenate([[0], np.cumsum([g[2] for g in groups])]).astype(np.int64)
        self.pair_bra = np.concatenate([np.zeros(0, int)] + [p[0] for p in pairs]).astype(np.int32)
        self.pair_ket = np.concatenate([np.zeros(0, int)] + [p[1] for p in pairs]).astype(np.int32)
        self.pair_sign = self.signs(self.pair_bra.size)

    def make_same_spin(self) -> None:
        """Random same-spin matrices: alpha over rows of equal label, beta doubles over the columns of each label."""
        case, rng = self.case, self.rng
        n_ket = self.ket_label.size
        pattern = (self.bra_label[:, None] == self.ket_label) & (
            rng.random((self.bra_label.size, n_ket)) < case.density
        )
        pattern &= self.row_length[:, None] == self.ket_length
        self.h_alpha = np.where(pattern, rng.standard_normal(pattern.shape), 0.0)
        self.alpha_indptr = np.concatenate([[0], np.cumsum(pattern.sum(axis=1))]).astype(np.int64)
        self.alpha_column = np.nonzero(pattern)[1].astype(np.int32)
        self.alpha_value = self.h_alpha[pattern]
        columns = np.arange(case.n_labels) ^ case.sector
        self.h_beta = []
        for y in columns:
            pattern = rng.random((case.bra_columns[y], case.ket_columns[y])) < case.density
            self.h_beta.append(np.where(pattern, rng.standard_normal(pattern.shape), 0.0))
        counts = np.concatenate([(h != 0).sum(axis=1) for h in self.h_beta])
        self.d_indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.d_column = np.concatenate([np.nonzero(h)[1] for h in self.h_beta]).astype(np.int32)
        self.d_value = np.concatenate([h[h != 0] for h in self.h_beta])
        sizes = [h.shape[0] for h in self.h_beta]
        self.d_block_row = (np.cumsum([0, *sizes])[:-1]).astype(np.int64)
        self.label_block = (columns * case.n_labels + columns).astype(np.int32)
        if case.n_labels > 1:
            self.label_block[-1] = -1
        # Any ket row of the same label serves as "the same alpha string".
        own = [self.ket_start[x] + k % max(case.ket_rows[x], 1) for x in range(case.n_labels)
               for k in range(case.bra_rows[x])]  # fmt: skip
        self.own_row = np.array(own, np.int64)
        for x in range(case.n_labels):
            if case.ket_rows[x] == 0:
                self.label_block[x] = -1
        self.own_row = np.minimum(self.own_row, max(self.ket_label.size - 1, 0))
        self.row_occupied_pair = self.occupied(self.bra_label.size)

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
        entries = int(np.diff(self.indptr[self.block_row]).max())
        rows, columns = max(case.bra_rows + case.ket_rows), max(case.bra_columns + case.ket_columns)
        size = -(-module.scratch_size(rows, columns, entries, N_PAIR) // 8) * 8
        flat = np.full(case.n_threads * size + 16, np.nan)
        first = (-flat.ctypes.data // 8) % 8
        return flat[first : first + case.n_threads * size].reshape(case.n_threads, size)

    def alpha_tables(self) -> tuple[np.ndarray, ...]:
        """Arguments of opposite_spin that describe the alpha singles."""
        return (
            self.thread_group, self.group_start, self.group_pair, self.group_block,
            self.pair_bra, self.pair_ket, self.pair_sign,
        )  # fmt: skip

    def opposite_spin(self, module, tables=None) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Result of a module's opposite_spin."""
        sigma = self.start_value.copy()
        module.opposite_spin(
            self.c, sigma, self.bra_offset, self.row_stop, self.ket_offset, self.coupling, self.case.swap,
            *(self.alpha_tables() if tables is None else tables),
            self.block_row, self.block_n_ket, self.indptr, self.column, self.orbital_pair, self.sign,
            self.block_diagonal, self.occupied_pair, self.scratch(module),
        )  # fmt: skip
        return sigma

    def same_spin_alpha(self, module) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Result of a module's same_spin_alpha."""
        sigma = self.start_value.copy()
        module.same_spin_alpha(
            self.c, sigma, self.bra_offset, self.row_stop, self.ket_offset, self.bra_start, self.ket_start,
            self.alpha_indptr, self.alpha_column, self.alpha_value, self.scratch(module),
        )  # fmt: skip
        return sigma

    def same_spin_beta(self, module) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Result of a module's same_spin_beta."""
        sigma = self.start_value.copy()
        own = self.ket_offset[self.own_row] if self.ket_offset.size else np.zeros_like(self.bra_offset)
        module.same_spin_beta(
            self.c, sigma, self.bra_offset, self.row_stop, own, self.bra_start, self.label_block, self.thread_row,
            self.block_row, self.block_n_ket, self.indptr, self.column, self.orbital_pair, self.sign, self.s_value,
            self.d_block_row, self.d_indptr, self.d_column, self.d_value, self.coupling, self.row_occupied_pair,
            self.scratch(module),
        )  # fmt: skip
        return sigma

    def ket(self, row: int) -> np.ndarray:
        """Row of C."""
        return self.c[self.ket_offset[row] : self.ket_offset[row] + self.ket_length[row]]

    def add(self, sigma: np.ndarray, row: int, values: np.ndarray) -> None:
        """Add to the wanted columns of a row of sigma."""
        stop = self.row_stop[row]
        sigma[self.bra_offset[row] : self.bra_offset[row] + stop] += values[:stop]

    def block(self, block: int, value: np.ndarray) -> np.ndarray:
        """Dense matrix of a beta block with the given value of every entry."""
        first, last = self.block_row[block], self.block_row[block + 1]
        dense = np.zeros((last - first, self.block_n_ket[block]))
        rows = np.repeat(np.arange(last - first), np.diff(self.indptr[first : last + 1]))
        entries = slice(self.indptr[first], self.indptr[last])
        dense[rows, self.column[entries]] = value[entries]
        return dense

    def dense_opposite_spin(self) -> np.ndarray:
        """The definition, with one dense matrix for every group."""
        sigma = self.start_value.copy()
        for group, (pq, block) in enumerate(zip(self.group_pair, self.group_block, strict=True)):
            value = self.sign * (
                self.coupling[pq >> 1, self.orbital_pair >> 1] - self.case.swap * (self.orbital_pair == (pq ^ 1))
            )
            matrix = self.block(block, value)
            if self.block_diagonal[block]:
                occupied = self.occupied_pair[self.block_row[block] : self.block_row[block + 1]]
                matrix = matrix + np.diag(self.coupling[pq >> 1][occupied].sum(axis=1))
            for k in range(self.group_start[group], self.group_start[group + 1]):
                self.add(sigma, self.pair_bra[k], self.pair_sign[k] * (matrix @ self.ket(self.pair_ket[k])))
        return sigma

    def dense_same_spin_alpha(self) -> np.ndarray:
        """The definition, with a dense H_alpha."""
        sigma = self.start_value.copy()
        for bra, ket in zip(*np.nonzero(self.h_alpha), strict=True):
            self.add(sigma, bra, self.h_alpha[bra, ket] * self.ket(ket))
        return sigma

    def dense_same_spin_beta(self) -> np.ndarray:
        """The definition, with a dense H_beta + g for every alpha string."""
        sigma = self.start_value.copy()
        for row, label in enumerate(self.bra_label):
            if self.label_block[label] >= 0:
                field = self.coupling[self.row_occupied_pair[row]].sum(axis=0)
                value = self.s_value + self.sign * field[self.orbital_pair >> 1]
                matrix = self.h_beta[label] + self.block(self.label_block[label], value)
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


@pytest.mark.parametrize("name", ["not divisible", "two labels", "wide", "wide in labels", "no rows", "ragged"])
def test_shared_gathers_change_the_order_only(name: str) -> None:
    """Regrouped singles are the same singles, and both kernels give the same sum from them."""
    problem = Problem(CASES[name])
    expected = problem.dense_opposite_spin()
    tables = problem.alpha_tables()
    thread_group, start, pair, block, *lists = tables
    regrouped = share_gathers(thread_group, block.astype(np.int64), start, *lists, problem.ket_label.size)
    new_thread_group, source, new_start, *new_lists = regrouped
    new_tables = (new_thread_group, new_start, pair[source], block[source], *new_lists)

    def singles(thread_group, start, pair, block, bra, ket, sign):  # type: ignore[no-untyped-def]
        group = np.repeat(np.arange(pair.size), np.diff(start))
        thread = np.searchsorted(thread_group, group, side="right")
        return sorted(zip(thread, block[group], pair[group], bra, ket, sign, strict=True))

    assert singles(*new_tables) == singles(*tables)
    for module in MODULES:
        found = problem.opposite_spin(module, new_tables)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * max(np.abs(expected).max(), 1.0))


def test_groups_with_common_kets_become_twins() -> None:
    """Two orbital pairs that apply to the same ket rows end as two consecutive groups with equal lists."""
    n = 2 * SHORTEST_TWIN
    kets = np.arange(n, dtype=np.int32)
    pair_ket = np.concatenate([kets, kets[::-1]])
    pair_bra = np.arange(2 * n, dtype=np.int32)
    thread_group, source, start, _, ket, _ = share_gathers(
        np.array([0, 2]), np.zeros(2, np.int64), np.array([0, n, 2 * n]),
        pair_bra, pair_ket, np.ones(2 * n, np.int8), n,
    )  # fmt: skip
    assert list(thread_group) == [0, 2]
    assert sorted(source) == [0, 1]
    assert list(start) == [0, n, 2 * n]
    assert list(ket[:n]) == list(ket[n:])
