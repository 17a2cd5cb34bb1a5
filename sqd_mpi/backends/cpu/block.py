"""The factorised sigma on CPU threads (design of the sum: docs/theory.md; the loops: `vector_kernels`, and as plain
twins `slow.kernels`)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi import _jit
from sqd_mpi._jit import parallel_jit
from sqd_mpi.arrays import FloatArray, IntArray, Place
from sqd_mpi.backends.cpu import costs, lists, swaps, vector_kernels
from sqd_mpi.backends.cpu.connected import ConnectedPairs
from sqd_mpi.backends.cpu.records import AlphaStrings, BetaSingles, Groups, Rows, SparseRows
from sqd_mpi.backends.mirrored import MirroredSum, half_of_kets
from sqd_mpi.backends.protocol import Task
from sqd_mpi.distribution.layout import BraRows, Layout, owners
from sqd_mpi.distribution.memory import HostMemory, host_memory
from sqd_mpi.problem.excitations import Singles
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import OrbitalLabels

RowRange = tuple[int, int]  # first and last (excluded) bra row of a sub-block


class StringStructure:
    """What a rank keeps about its strings; shared by the blocks of all sectors on the same grid place.

    Args:
        layout: any sector's layout; only its string blocks are used.
        place: (ia, ib, it, ir).
        hamiltonian: integrals.
        orbital_labels: labels that the layout's strings are sorted by.
    """

    def __init__(self, layout: Layout, place: Place, hamiltonian: Hamiltonian, orbital_labels: OrbitalLabels):
        self.layout = layout
        self.ia, self.ib, _, self.ir = place
        self.bra = layout.bra_rows(self.ia, self.ir, self.ib)
        self.norb = hamiltonian.norb
        self.integrals = hamiltonian.same_spin(0), hamiltonian.same_spin(1)
        self.coupling = hamiltonian.coupling()
        self.pairs = ConnectedPairs.of(hamiltonian)
        rows, columns = np.tril_indices(hamiltonian.norb)
        self.pair_labels, self.pair_labels_b = (
            (labels[rows] ^ labels[columns]).astype(np.int64) for labels in orbital_labels.both
        )
        self._alpha: dict[tuple[int, RowRange, bool], lists.AlphaSingles] = {}
        self._alpha_rows: dict[tuple[int, RowRange], SparseRows] = {}
        self._beta_rows: dict[int, tuple[SparseRows, FloatArray]] = {}
        self._moving_values: dict[int, FloatArray] = {}
        self._sorted_beta: dict[int, swaps.SortedSingles] = {}

    @cached_property
    def beta(self) -> list[BetaSingles]:
        """Beta singles, one entry per shift db."""
        return lists.beta_singles(self.layout, self.ib, self.norb, self.pair_labels_b)

    @cached_property
    def coupled_beta(self) -> list[BetaSingles]:
        """Those beta singles, likewise, that any alpha single is coupled with."""
        return [each.of_pairs(self.pairs.coupled_beta) for each in self.beta]

    @cached_property
    def moving_beta(self) -> list[BetaSingles]:
        """Those beta singles, likewise, that have elements where no alpha electron moves."""
        return [each.of_pairs(self.pairs.moving_beta) for each in self.beta]

    def moving_values(self, db: int) -> FloatArray:
        """Elements of H_beta of the beta singles in `moving_beta`."""
        if db not in self._moving_values:
            _, values = self.beta_hamiltonian(db)
            kept = self.pairs.moving_beta[self.beta[db].orbital_pair >> 1]
            self._moving_values[db] = values if kept.all() else values[kept]
        return self._moving_values[db]

    @cached_property
    def _rows_are_columns(self) -> bool:
        """Whether bra rows and columns are the same strings with the same integrals, so that lists are made once."""
        layout, same = self.layout, self.integrals[0][0] is self.integrals[1][0]
        if layout.alpha is not layout.beta or not same:
            return False
        return np.array_equal(self.bra.alpha, layout.beta_rows(self.ib)[0])

    @cached_property
    def singles(self) -> Singles:
        """Singles from this rank's bra rows to all alpha strings."""
        return self.layout.alpha.singles(self.bra.alpha)

    @cached_property
    def singles_per_row(self) -> NDArray[np.int32]:
        """(n_rows, a, n_labels) number of singles of every bra row by shift da and label of the orbital pair."""
        return lists.singles_per_row(self.layout, self.ia, self.singles, self.pair_labels)

    @cached_property
    def coupled_per_row(self) -> NDArray[np.int32]:
        """Those of them that are coupled with beta electrons."""
        if self.coupled_singles is self.singles:
            return self.singles_per_row
        return lists.singles_per_row(self.layout, self.ia, self.coupled_singles, self.pair_labels)

    @cached_property
    def coupled_singles(self) -> Singles:
        """Those of the singles from this rank's bra rows that are coupled with beta electrons."""
        coupled = self.pairs.coupled_alpha
        return self.singles if coupled.all() else self.singles.where(coupled[self.singles.pair >> 1])

    @cached_property
    def group_sizes(self) -> FloatArray:
        """(a,) singles in the group of a typical alpha single (both directions of its pair), by shift da."""
        a, _, _, _ = self.layout.grid
        n_pairs = len(self.pair_labels)
        label = np.repeat(np.arange(self.layout.n_labels), np.diff(self.bra.label_start))
        shift = (owners(self.layout.alpha_bounds) - self.ia) % a
        singles = self.coupled_singles
        key = shift[singles.ket] * self.layout.n_labels + np.repeat(label, np.diff(singles.indptr))
        size = a * self.layout.n_labels * n_pairs
        counts = np.bincount(key * n_pairs + (singles.pair >> 1), minlength=size).reshape(a, -1).astype(float)
        return np.asarray((counts**2).sum(axis=1) / np.maximum(counts.sum(axis=1), 1.0))

    @cached_property
    def alpha_terms(self) -> tuple[FloatArray, bool]:
        """(n_rows, a) expected number of elements of H_alpha in every bra row by shift da, and whether it is exact."""
        layout = self.layout
        terms, exact = lists.same_spin_terms(
            layout.alpha, self.bra.alpha, layout.alpha_bounds, *self.integrals[0], True
        )
        return np.roll(terms, -self.ia, axis=1), exact

    @cached_property
    def beta_terms(self) -> tuple[FloatArray, bool]:
        """(n_labels, b) expected multiply-adds of a whole row of beta same spin, by beta label and shift db; exact?"""
        layout = self.layout
        columns, column_start = layout.beta_rows(self.ib)
        terms, exact = lists.same_spin_terms(layout.beta, columns, layout.beta_bounds, *self.integrals[1], False)
        total = np.concatenate([np.zeros((1, terms.shape[1])), np.cumsum(terms, axis=0)])
        doubles = np.roll(total[column_start[1:]] - total[column_start[:-1]], -self.ib, axis=1)
        singles = np.stack([table.matrix_entries[:: layout.n_labels] for table in self.moving_beta], axis=1)
        return doubles + 2.0 * singles, exact

    def alpha(self, da: int, rows: RowRange, mirrored: bool = False) -> lists.AlphaSingles:
        """Sorted singles from a range of bra rows to block ia + da; those of mirrored tasks are divided otherwise."""
        if (da, rows, mirrored) not in self._alpha:
            self.build_alpha({da}, rows, mirrored)
        return self._alpha[da, rows, mirrored]

    def build_alpha(self, shifts: set[int], rows: RowRange, mirrored: bool = False) -> None:
        """Sort the singles from a range of bra rows to the blocks at several shifts, in one pass."""
        missing = {da for da in shifts if (da, rows, mirrored) not in self._alpha}
        if not missing:
            return
        layout = self.layout
        entries = np.sum(
            [table.matrix_entries.reshape(layout.n_labels, -1).sum(axis=1) for table in self.coupled_beta], axis=0
        )
        entries = entries[np.arange(layout.n_labels) ^ layout.sector]
        row_cost = costs.single_seconds(layout.row_lengths(self.ib), entries)
        bra = self.bra.with_all_columns() if mirrored else self.bra
        found = lists.alpha_singles(
            layout, self.ia, bra, self.singles, rows, missing, self.pair_labels, row_cost, _jit.n_threads(),
            self.pairs.coupled_alpha,
        )  # fmt: skip
        self._alpha.update({(da, rows, mirrored): singles for da, singles in found.items()})

    def alpha_hamiltonian(self, da: int, rows: RowRange) -> SparseRows:
        """H_alpha from a range of bra rows to those of block ia + da, singles and doubles; built when first wanted."""
        key = da, rows
        if key not in self._alpha_rows:
            layout, ja = self.layout, (self.ia + da) % self.layout.grid[0]
            starts = np.clip(self.bra.label_start, *rows)
            ends = [(starts[x], starts[x + 1]) for x in range(layout.n_labels)]
            bra = [(int(self.bra.alpha[i]), int(self.bra.alpha[j - 1]) + 1) if j > i else (0, 0) for i, j in ends]
            ket = [(int(row[ja]), int(row[ja + 1])) for row in layout.alpha_bounds]
            self._alpha_rows[key] = lists.same_spin_rows(layout.alpha, bra, ket, *self.integrals[0], True)
        return self._alpha_rows[key]

    def beta_hamiltonian(self, db: int) -> tuple[SparseRows, FloatArray]:
        """Doubles of H_beta from this rank's columns to those of block ib + db, and the values of the singles.

        Columns of the doubles are numbered inside the ket columns of the row's label.
        """
        if db not in self._beta_rows:
            layout = self.layout
            rows, _ = layout.beta_rows(self.ib)
            doubles = self._doubles_of_alpha(db)
            values = lists.single_values(layout.beta.strings, self.beta[db], layout.n_labels, rows, *self.integrals[1])
            self._beta_rows[db] = self._find_doubles(db) if doubles is None else doubles, values
        return self._beta_rows[db]

    def sorted_beta(self, db: int) -> swaps.SortedSingles:
        """Beta singles to the columns of block ib + db by orbital pair; made when S^2 is first applied."""
        if db not in self._sorted_beta:
            self._sorted_beta[db] = swaps.sort_singles(self.beta[db], self.norb)
        return self._sorted_beta[db]

    def _find_doubles(self, db: int) -> SparseRows:
        """Doubles of H_beta from this rank's columns to those of block ib + db."""
        layout, jb = self.layout, (self.ib + db) % self.layout.grid[1]
        parts = []
        for row in layout.beta_bounds:
            bra, ket = (int(row[self.ib]), int(row[self.ib + 1])), (int(row[jb]), int(row[jb + 1]))
            parts.append(lists.same_spin_rows(layout.beta, [bra], [ket], *self.integrals[1], False))
        offsets = np.cumsum([0] + [part.indptr[-1] for part in parts])
        indptr = np.concatenate(
            [np.zeros(1, np.int64)] + [part.indptr[1:] + offsets[k] for k, part in enumerate(parts)]
        )
        return SparseRows(
            indptr.astype(np.int64),
            np.concatenate([part.column for part in parts]),
            np.concatenate([part.value for part in parts]),
        )

    def _doubles_of_alpha(self, db: int) -> SparseRows | None:
        """The doubles of H_beta out of H_alpha, if that is at hand and of the same strings."""
        layout = self.layout
        key = db, (0, len(self.bra.alpha))
        if key not in self._alpha_rows or not self._rows_are_columns or layout.grid[0] != layout.grid[1]:
            return None
        if self.ia != self.ib:
            return None
        ket, ket_start = layout.beta_rows((self.ib + db) % layout.grid[1])
        strings = layout.beta.strings
        return lists.without_singles(
            self._alpha_rows[key], self.bra.label_start, strings[self.bra.alpha], ket_start, strings[ket]
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all lists and matrices."""
        parts: list[Any] = [*self._alpha.values(), *self._alpha_rows.values()]
        lists_of_singles = (self.singles, self.coupled_singles, *self.beta, *self.coupled_beta, *self.moving_beta)
        parts += {id(each): each for each in lists_of_singles}.values()
        parts += [*self._sorted_beta.values(), *(doubles for doubles, _ in self._beta_rows.values())]
        arrays = [values for _, values in self._beta_rows.values()] + [self.singles_per_row, self.coupled_per_row]
        arrays += self._moving_values.values()
        total = sum({id(array): array.nbytes for array in arrays}.values())
        return total + sum(lists.array_bytes(part) for part in parts)

    def keep_only(self, tasks: list[Task]) -> None:
        """Forget the lists and matrices that none of these tasks needs."""
        mixed = {(task.da, self.rows_of(task), task.mirrored) for task in tasks if task.kind == "mixed"}
        alpha = {(task.da, self.rows_of(task)) for task in tasks if task.kind == "alpha"}
        beta = {task.db for task in tasks if task.kind == "beta"}
        self._alpha = {key: singles for key, singles in self._alpha.items() if key in mixed}
        self._alpha_rows = {key: rows for key, rows in self._alpha_rows.items() if key in alpha}
        self._beta_rows = {db: rows for db, rows in self._beta_rows.items() if db in beta}
        self._moving_values = {db: values for db, values in self._moving_values.items() if db in beta}

    def rows_of(self, task: Task) -> RowRange:
        """The range of bra rows of a task."""
        return (0, len(self.bra.alpha)) if task.rows is None else task.rows


class CpuBlock:
    """One rank's share of sigma for one sector; see `SigmaBlock`."""

    def __init__(self, layout: Layout, place: Place, share: StringStructure, kernels: Any = vector_kernels):
        self.layout = layout
        self.ia, self.ib, self.it, self.ir = place
        self.share = share
        self.kernels = kernels
        self._bra = layout.bra_rows(self.ia, self.ir, self.ib)
        self._labels = np.arange(layout.n_labels)
        self._row_label = np.repeat(self._labels, np.diff(self._bra.label_start))
        self._row_occupied = lists.diagonal_pairs(layout.alpha.strings[self._bra.alpha])
        self._label_matrix = ((self._labels ^ layout.sector) * layout.n_labels).astype(np.int32)
        self._ket_offset: dict[tuple[int, int], IntArray] = {}
        self._ket_start: dict[int, IntArray] = {}  # by alpha block
        self._own_offset: dict[int, IntArray] = {}  # by shift db: where the rows of the sub-block lie in that ket block
        self._n_threads = _jit.n_threads()
        self.mirrored: MirroredSum | None = None

    def tasks(self, interaction: Interaction) -> list[Task]:
        """Every task of this rank's sub-block that may have a connection."""
        a, b, _, _ = self.layout.grid
        found = [Task("mixed", da, db, 0.0) for da in range(a) for db in range(b)]
        # S^2 is applied by the tasks of H, to singles that H does not couple as well.
        certain = {"mixed"} if self.share.pairs.all_coupled else set()
        if interaction.same_spin:
            found += [Task("alpha", da, 0, 0.0) for da in range(a)]
            certain |= {"alpha"} if self.share.alpha_terms[1] else set()
        if interaction.same_spin or interaction.twist is not None:
            found += [Task("beta", 0, db, 0.0) for db in range(b)]
            certain |= {"beta"} if self.share.beta_terms[1] else set()
        found = half_of_kets(self.layout, self.ia, self.ib, found)
        found = [replace(task, cost=float(self.row_costs(task).sum())) for task in found]
        return [task for task in found if task.cost > 0.0 or task.kind not in certain]

    def _bra_of(self, task: Task) -> BraRows:
        """The bra rows of the sub-block, and where and how far a task adds to them."""
        return self._whole if task.mirrored else self._bra

    @cached_property
    def _whole(self) -> BraRows:
        return self._bra.with_all_columns()

    def row_costs(self, task: Task) -> FloatArray:
        """(n_rows,) predicted seconds of the task for every bra row of the sub-block."""
        share, bra = self.share, self._bra_of(task)
        if task.kind == "mixed":
            seconds = self._mixed_seconds(task, bra)
        elif task.kind == "alpha":
            seconds = costs.rates().of_same_spin(share.alpha_terms[0][:, task.da] * bra.stop)
        else:
            terms = share.beta_terms[0][self._row_label ^ self.layout.sector, task.db]
            seconds = costs.rates().of_same_spin(terms * bra.wanted)
        return seconds / self._n_threads

    def _mixed_seconds(self, task: Task, bra: BraRows) -> FloatArray:
        """(n_rows,) predicted seconds of an opposite-spin task on one thread."""
        share, layout = self.share, self.layout
        beta, counts = share.coupled_beta[task.db], share.coupled_per_row[:, task.da]

        # What one single costs, by label of its row and of its orbital pair.
        width = np.diff(beta.matrix_row)
        terms = beta.matrix_entries + beta.matrix_diagonal * width
        size = max(float(share.group_sizes[task.da]) / self._n_threads, 1.0)
        per_single = costs.opposite_spin_seconds(terms, beta.matrix_n_ket, width, size)
        per_single = per_single.reshape(layout.n_labels, layout.n_labels)[self._row_label ^ layout.sector]

        # RowRange of which a part is wanted, and the groups, which no row has for itself.
        triangle = layout.is_triangle(self.ia, self.ib) and not task.mirrored
        wanted = costs.triangle_share(bra.wanted, size) if triangle else costs.wanted_share(bra.wanted)
        seconds = np.einsum("rd,rd->r", counts, per_single) * wanted
        n_groups = min(int(counts.sum()), self._n_threads * layout.n_labels * len(share.pair_labels))
        seconds += costs.GROUP_SECONDS * n_groups / max(len(seconds), 1) * (seconds.sum() > 0.0)
        return np.asarray(seconds)

    def prepare(self, tasks: list[Task]) -> None:
        """Build what these tasks need, forget what none of them needs, and plan where their ket rows lie."""
        a, b, _, _ = self.layout.grid
        share = self.share
        share.keep_only(tasks)
        self.mirrored = MirroredSum.of_tasks(self.layout, self.ia, tasks)
        shifts: dict[tuple[RowRange, bool], set[int]] = {}
        for task in tasks:
            if task.kind == "mixed":
                shifts.setdefault((share.rows_of(task), task.mirrored), set()).add(task.da)
        for (rows, mirrored), wanted in shifts.items():
            share.build_alpha(wanted, rows, mirrored)
        for task in tasks:
            key = ((self.ia + task.da) % a, (self.ib + task.db) % b)
            if key not in self._ket_offset:
                self._ket_offset[key] = self.layout.ket_offsets(*key)
            if task.kind == "alpha":
                share.alpha_hamiltonian(task.da, share.rows_of(task))
                self._ket_start[key[0]] = self.layout.ket_rows(key[0])[1]
            elif task.kind == "beta":
                share.moving_values(task.db)
                self._own_offset[task.db] = self._ket_offset[key][self._bra.block_row]

    def apply(self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction) -> None:
        """sigma += this task's part; see `SigmaBlock.apply`."""
        a, b, _, _ = self.layout.grid
        ket_offset = self._ket_offset[(self.ia + task.da) % a, (self.ib + task.db) % b]
        if task.mirrored:
            assert self.mirrored is not None
            sigma = self.mirrored.like(sigma)
        if task.kind == "mixed":
            self._apply_mixed(task, ket, sigma, interaction, ket_offset)
        elif interaction.same_spin and task.kind == "alpha":
            self._apply_alpha(task, ket, sigma, ket_offset)
        elif task.kind == "beta" and (interaction.same_spin or interaction.twist is not None):
            self._apply_beta(task, ket, sigma, interaction)

    def diagonal(self, interaction: Interaction, out: FloatArray) -> None:
        """Diagonal of the interaction on this rank's slice."""
        layout = self.layout
        where = layout.geometry(self.ia, self.ib, self.it, self.ir)
        alpha, beta = layout.alpha.strings[where.alpha], layout.beta.strings[where.beta]
        energies_a, energies_b = np.zeros(len(alpha)), np.zeros(len(beta))
        if interaction.same_spin:
            energies_a = lists.string_energies(alpha, *self.share.integrals[0])
            energies_b = lists.string_energies(beta, *self.share.integrals[1])
        pairs = np.arange(self.share.norb, dtype=np.int64)
        pairs = pairs * (pairs + 1) // 2 + pairs
        density = interaction.coupling[np.ix_(pairs, pairs)] - interaction.swap * np.eye(len(pairs))
        _diagonal(
            where.row_offset, where.row_length, where.row_column, where.start, where.stop, energies_a, energies_b,
            lists.occupied_orbitals(alpha), lists.occupied_orbitals(beta), density, interaction.constant, out,
        )  # fmt: skip

    def _apply_mixed(
        self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction, ket_offset: IntArray
    ) -> None:
        share = self.share
        bra, beta = self._bra_of(task), share.beta[task.db]
        rows = Rows(bra.offset, bra.stop, ket_offset)
        singles = share.alpha(task.da, share.rows_of(task), task.mirrored)
        if interaction.is_swap:
            groups = singles.directed.of_sector(self.layout.sector, self.layout.n_labels)
            swaps.swap_both(ket, sigma, rows, groups, share.sorted_beta(task.db), -interaction.swap)
            return
        coupled = share.pairs.all_coupled or interaction.coupling is share.coupling
        if coupled and interaction.swap == 0.0:
            groups, beta = singles.undirected, share.coupled_beta[task.db]
        else:
            groups = singles.directed
        self._apply_opposite(ket, sigma, rows, groups, beta, interaction.coupling, interaction.swap)
        if interaction.twist is not None:
            # A coupling whose sign goes with the directions of both pairs: plain, with those signs in the lists.
            groups = singles.directed
            direction = (1 - 2 * (groups.pair & 1)).astype(np.int8)
            groups = groups._replace(pair_sign=groups.pair_sign * np.repeat(direction, np.diff(groups.start)))
            beta = beta._replace(sign=beta.sign * (1 - 2 * (beta.orbital_pair & 1)).astype(np.int8))
            self._apply_opposite(ket, sigma, rows, groups, beta, interaction.twist, 0.0)

    def _apply_opposite(
        self, ket: FloatArray, sigma: FloatArray, rows: Rows, groups: Groups, beta: BetaSingles, coupling: FloatArray,
        swap: float,
    ) -> None:  # fmt: skip
        groups = groups.of_sector(self.layout.sector, self.layout.n_labels)
        self.kernels.opposite_spin(ket, sigma, rows, groups, beta, coupling, swap, self._scratch)

    def _apply_alpha(self, task: Task, ket: FloatArray, sigma: FloatArray, ket_offset: IntArray) -> None:
        low, high = self.share.rows_of(task)
        bra = self._bra_of(task)
        rows = Rows(bra.offset[low:high], bra.stop[low:high], ket_offset)
        bra_start = np.clip(bra.label_start, low, high) - low
        ket_start = self._ket_start[(self.ia + task.da) % self.layout.grid[0]]
        matrix = self.share.alpha_hamiltonian(task.da, (low, high))
        self.kernels.same_spin_alpha(ket, sigma, rows, bra_start, ket_start, matrix, self._scratch)

    def _apply_beta(self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction) -> None:
        doubles, _ = self.share.beta_hamiltonian(task.db)
        singles, single_value = self.share.moving_beta[task.db], self.share.moving_values(task.db)
        if not interaction.same_spin:  # alpha diagonal x beta single only, of any coupling
            doubles = SparseRows(np.zeros_like(doubles.indptr), doubles.column[:0], doubles.value[:0])
            singles = self.share.beta[task.db]
            single_value = np.zeros(len(singles.column))
        low, high = self.share.rows_of(task)
        bra = self._bra_of(task)
        thread_row = low + lists.split_rows(bra.stop[low:high].astype(np.float64), self._n_threads)
        rows = Rows(bra.offset, bra.stop, self._own_offset[task.db])
        alpha = AlphaStrings(thread_row, bra.label_start, self._label_matrix, self._doubles_row, self._row_occupied)
        self.kernels.same_spin_beta(
            ket, sigma, rows, alpha, singles, single_value, doubles, interaction.coupling, self._scratch,
        )  # fmt: skip

    @cached_property
    def _doubles_row(self) -> IntArray:
        """(n_labels,) first row in the doubles of H_beta of the columns that go with every alpha label."""
        _, column_start = self.layout.beta_rows(self.ib)
        return np.ascontiguousarray(column_start[self._labels ^ self.layout.sector])

    @cached_property
    def _scratch(self) -> FloatArray:
        """One row of 64-byte aligned scratch for every thread."""
        layout = self.layout
        rows = max(int(np.diff(layout.alpha_bounds, axis=1).max(initial=0)), 1)
        columns = max(int(np.diff(layout.beta_bounds, axis=1).max(initial=0)), 1)
        entries = max(int(table.matrix_entries.max(initial=0)) for table in self.share.beta)
        size = max(8, self.kernels.scratch_size(rows, columns, entries, len(self.share.pair_labels)))
        size = -(-size // 8) * 8
        flat = np.empty(self._n_threads * size + 8)
        first = (-flat.ctypes.data // 8) % 8
        return flat[first : first + self._n_threads * size].reshape(-1, size)


def create_block(layout: Layout, place: Place, hamiltonian: Hamiltonian, share: StringStructure) -> CpuBlock:
    """The block of rank (ia, ib, it, ir) for one sector, on a string structure made by `create_share`."""
    return CpuBlock(layout, place, share)


def create_share(
    layout: Layout, place: Place, hamiltonian: Hamiltonian, orbital_labels: OrbitalLabels
) -> StringStructure:
    """String structure that the blocks of all sectors on this place share."""
    return StringStructure(layout, place, hamiltonian, orbital_labels)


def create_memory(direct: bool = False, **_: Any) -> HostMemory:
    """Vectors and blocks live in host memory; see `memory.create_memory`."""
    return host_memory(direct)


@parallel_jit
def _diagonal(
    row_offset,
    row_length,
    row_column,
    start,
    stop,
    energies_a,
    energies_b,
    occupied_a,
    occupied_b,
    density,
    constant,
    out,
):
    for row in numba.prange(row_offset.shape[0]):
        first = max(row_offset[row], start)
        last = min(row_offset[row] + row_length[row], stop)
        if first >= last:
            continue
        field = np.zeros(density.shape[0])
        for p in occupied_a[row]:
            for r in range(density.shape[0]):
                field[r] += density[p, r]
        for flat in range(first, last):
            j = row_column[row] + flat - row_offset[row]
            total = constant + energies_a[row] + energies_b[j]
            for r in occupied_b[j]:
                total += field[r]
            out[flat - start] = total
