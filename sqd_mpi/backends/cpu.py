"""The factorised sigma on CPU threads (design of the sum: docs/theory.md; the loops: `plain_kernels`,
`vector_kernels`)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi import _jit
from sqd_mpi._jit import parallel_jit
from sqd_mpi.backends import FloatArray, Interaction, Task, structure, vector_kernels
from sqd_mpi.hamiltonian import Hamiltonian
from sqd_mpi.layout import Layout
from sqd_mpi.symmetry import OrbitalLabels

IntArray = NDArray[np.int64]
Place = tuple[int, int, int, int]

# Seconds on one thread of a 2.6 GHz Zen 4: one gathered element, one fused multiply-add of opposite and of same spin.
GATHER_SECONDS = 0.75e-9
MIXED_SECONDS = 0.07e-9
SAME_SPIN_SECONDS = 0.1e-9
# To divide rows among threads: what gathering and scattering one column costs, in multiply-adds.
_GATHERED_TERMS = 7.3


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
        self.h1e = np.ascontiguousarray(hamiltonian.h1e)
        self.eri = hamiltonian.eri_pairs()
        rows, columns = np.tril_indices(hamiltonian.norb)
        self.pair_labels = (orbital_labels.labels[rows] ^ orbital_labels.labels[columns]).astype(np.int64)
        self._place = place
        self._alpha_rows: dict[int, structure.SparseRows] = {}
        self._beta_rows: dict[int, tuple[structure.SparseRows, FloatArray]] = {}

    @cached_property
    def beta(self) -> list[structure.BetaSingles]:
        """Beta singles, one entry per shift db."""
        return structure.beta_singles(self.layout, self.ib, len(self.h1e), self.pair_labels)

    @cached_property
    def alpha(self) -> list[structure.AlphaSingles]:
        """Alpha singles, one entry per shift da."""
        layout = self.layout
        entries = np.sum([table.block_entries.reshape(layout.n_labels, -1).sum(axis=1) for table in self.beta], axis=0)
        gathered = _GATHERED_TERMS * layout.row_lengths(self.ib)
        row_cost = 1.0 + gathered + entries[np.arange(layout.n_labels) ^ layout.sector]
        return structure.alpha_singles(layout, self._place, len(self.h1e), self.pair_labels, row_cost, _jit.n_threads())

    def alpha_hamiltonian(self, da: int) -> structure.SparseRows:
        """H_alpha from this rank's rows to those of block ia + da, singles and doubles; built when first asked for."""
        if da not in self._alpha_rows:
            layout, ja = self.layout, (self.ia + da) % self.layout.grid[0]
            starts = self.bra.label_start
            ends = [(starts[x], starts[x + 1]) for x in range(layout.n_labels)]
            bra = [(int(self.bra.alpha[i]), int(self.bra.alpha[j - 1]) + 1) if j > i else (0, 0) for i, j in ends]
            ket = [(int(row[ja]), int(row[ja + 1])) for row in layout.alpha_bounds]
            self._alpha_rows[da] = structure.same_spin_rows(layout.alpha.strings, bra, ket, self.h1e, self.eri, True)
        return self._alpha_rows[da]

    def beta_hamiltonian(self, db: int) -> tuple[structure.SparseRows, FloatArray]:
        """Doubles of H_beta from this rank's columns to those of block ib + db, and the values of the singles.

        Columns of the doubles are numbered inside the ket columns of the row's label.
        """
        if db not in self._beta_rows:
            layout, jb = self.layout, (self.ib + db) % self.layout.grid[1]
            parts = []
            for row in layout.beta_bounds:
                bra, ket = (int(row[self.ib]), int(row[self.ib + 1])), (int(row[jb]), int(row[jb + 1]))
                parts.append(structure.same_spin_rows(layout.beta.strings, [bra], [ket], self.h1e, self.eri, False))
            offsets = np.cumsum([0] + [part.indptr[-1] for part in parts])
            indptr = np.concatenate(
                [np.zeros(1, np.int64)] + [part.indptr[1:] + offsets[k] for k, part in enumerate(parts)]
            )
            doubles = structure.SparseRows(
                indptr.astype(np.int64),
                np.concatenate([part.column for part in parts]),
                np.concatenate([part.value for part in parts]),
            )
            rows, _ = layout.beta_rows(self.ib)
            values = structure.single_values(
                layout.beta.strings, self.beta[db], layout.n_labels, rows, self.h1e, self.eri
            )
            self._beta_rows[db] = doubles, values
        return self._beta_rows[db]

    @property
    def nbytes(self) -> int:
        """Bytes of all lists and matrices."""
        parts: list[Any] = [*self.alpha, *self.beta, *self._alpha_rows.values()]
        parts += [doubles for doubles, _ in self._beta_rows.values()]
        total = sum(values.nbytes for _, values in self._beta_rows.values())
        return total + sum(structure.array_bytes(part) for part in parts)

    def keep_only(self, alpha_shifts: set[int], beta_shifts: set[int]) -> None:
        """Forget the same-spin matrices of shifts that this rank does not work on."""
        self._alpha_rows = {da: rows for da, rows in self._alpha_rows.items() if da in alpha_shifts}
        self._beta_rows = {db: rows for db, rows in self._beta_rows.items() if db in beta_shifts}


class CpuBlock:
    """One rank's share of sigma for one sector; see `SigmaBlock`."""

    def __init__(self, layout: Layout, place: Place, share: StringStructure, kernels: Any = vector_kernels):
        self.layout = layout
        self.ia, self.ib, self.it, self.ir = place
        self.share = share
        self.kernels = kernels
        self._bra = layout.bra_rows(self.ia, self.ir, self.ib)
        self._labels = np.arange(layout.n_labels)
        self._row_occupied = structure.diagonal_pairs(layout.alpha.strings[self._bra.alpha])
        self._label_block = ((self._labels ^ layout.sector) * layout.n_labels).astype(np.int32)
        self._ket_offset: dict[tuple[int, int], IntArray] = {}
        self._ket_start: dict[int, IntArray] = {}  # by alpha block
        self._own_offset: dict[int, IntArray] = {}  # by shift db: where the rows of the sub-block lie in that ket block
        self._group_block: dict[tuple[int, bool], NDArray[np.int32]] = {}
        self._n_threads = _jit.n_threads()
        self._thread_row = structure.split_rows(self._bra.stop.astype(np.float64), self._n_threads)

    def tasks(self, interaction: Interaction) -> list[Task]:
        """Every task of this rank's sub-block that has a connection."""
        a, b, _, _ = self.layout.grid
        found = []
        for da in range(a):
            for db in range(b):
                cost = self._mixed_cost(da, db)
                if cost > 0.0:
                    found.append(Task("mixed", da, db, cost))
        if not interaction.same_spin:
            return found
        for da in range(a):
            rows = self.share.alpha_hamiltonian(da)
            cost = SAME_SPIN_SECONDS * float(np.dot(np.diff(rows.indptr), self._bra.stop))
            if cost > 0.0:
                found.append(Task("alpha", da, 0, cost))
        for db in range(b):
            cost = SAME_SPIN_SECONDS * self._beta_terms(db)
            if cost > 0.0:
                found.append(Task("beta", 0, db, cost))
        return found

    def prepare(self, tasks: list[Task]) -> None:
        """Keep the same-spin matrices of these tasks and plan where their ket rows lie."""
        a, b, _, _ = self.layout.grid
        self.share.keep_only(
            {task.da for task in tasks if task.kind == "alpha"}, {task.db for task in tasks if task.kind == "beta"}
        )
        for task in tasks:
            key = ((self.ia + task.da) % a, (self.ib + task.db) % b)
            if key not in self._ket_offset:
                self._ket_offset[key] = self.layout.ket_offsets(*key)
            if task.kind == "alpha":
                self._ket_start[key[0]] = self.layout.ket_rows(key[0])[1]
            elif task.kind == "beta":
                self._own_offset[task.db] = self._ket_offset[key][self._bra.block_row]

    def apply(self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction) -> None:
        """sigma += this task's part; see `SigmaBlock.apply`."""
        a, b, _, _ = self.layout.grid
        ket_offset = self._ket_offset[(self.ia + task.da) % a, (self.ib + task.db) % b]
        if task.kind == "mixed":
            self._apply_mixed(task, ket, sigma, interaction, ket_offset)
        elif interaction.same_spin and task.kind == "alpha":
            self._apply_alpha(task, ket, sigma, ket_offset)
        elif interaction.same_spin:
            self._apply_beta(task, ket, sigma, interaction)

    def diagonal(self, interaction: Interaction, out: FloatArray) -> None:
        """Diagonal of the interaction on this rank's slice."""
        layout = self.layout
        where = layout.geometry(self.ia, self.ib, self.it, self.ir)
        alpha, beta = layout.alpha.strings[where.alpha], layout.beta.strings[where.beta]
        energies_a, energies_b = np.zeros(len(alpha)), np.zeros(len(beta))
        if interaction.same_spin:
            energies_a = structure.string_energies(alpha, self.share.h1e, self.share.eri)
            energies_b = structure.string_energies(beta, self.share.h1e, self.share.eri)
        pairs = np.arange(len(self.share.h1e), dtype=np.int64)
        pairs = pairs * (pairs + 1) // 2 + pairs
        density = interaction.coupling[np.ix_(pairs, pairs)] - interaction.swap * np.eye(len(pairs))
        _diagonal(
            where.row_offset, where.row_length, where.row_column, where.start, where.stop, energies_a, energies_b,
            structure.occupied_orbitals(alpha), structure.occupied_orbitals(beta), density, interaction.constant, out,
        )  # fmt: skip

    def _apply_mixed(
        self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction, ket_offset: IntArray
    ) -> None:
        alpha, beta = self.share.alpha[task.da], self.share.beta[task.db]
        groups = alpha.directed if interaction.swap else alpha.undirected
        self.kernels.opposite_spin(
            ket, sigma, self._bra.offset, self._bra.stop, ket_offset, interaction.coupling, interaction.swap,
            groups.thread_group, groups.start, groups.pair, self._blocks_of(task.da, bool(interaction.swap)),
            groups.pair_bra, groups.pair_ket, groups.pair_sign,
            beta.block_row, beta.block_n_ket, beta.indptr, beta.column, beta.orbital_pair, beta.sign,
            beta.block_diagonal, beta.occupied_pair, self._scratch,
        )  # fmt: skip

    def _apply_alpha(self, task: Task, ket: FloatArray, sigma: FloatArray, ket_offset: IntArray) -> None:
        rows = self.share.alpha_hamiltonian(task.da)
        ket_start = self._ket_start[(self.ia + task.da) % self.layout.grid[0]]
        self.kernels.same_spin_alpha(
            ket, sigma, self._bra.offset, self._bra.stop, ket_offset, self._bra.label_start, ket_start,
            rows.indptr, rows.column, rows.value, self._scratch,
        )  # fmt: skip

    def _apply_beta(self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction) -> None:
        doubles, single_value = self.share.beta_hamiltonian(task.db)
        beta = self.share.beta[task.db]
        self.kernels.same_spin_beta(
            ket, sigma, self._bra.offset, self._bra.stop, self._own_offset[task.db], self._bra.label_start,
            self._label_block, self._thread_row, beta.block_row, beta.block_n_ket, beta.indptr, beta.column,
            beta.orbital_pair, beta.sign, single_value, self._doubles_row, doubles.indptr, doubles.column,
            doubles.value, interaction.coupling, self._row_occupied, self._scratch,
        )  # fmt: skip

    @cached_property
    def _doubles_row(self) -> IntArray:
        """(n_labels,) first row in the doubles of H_beta of the columns that go with every alpha label."""
        _, column_start = self.layout.beta_rows(self.ib)
        return np.ascontiguousarray(column_start[self._labels ^ self.layout.sector])

    def _blocks_of(self, da: int, directed: bool) -> NDArray[np.int32]:
        """Beta block of every group of alpha singles: bra columns of label x XOR sector, orbital pairs of label d."""
        key = da, directed
        if key not in self._group_block:
            groups = self.share.alpha[da].directed if directed else self.share.alpha[da].undirected
            pair_label = self.share.pair_labels[groups.pair >> 1]
            block = (groups.label ^ self.layout.sector) * self.layout.n_labels + pair_label
            self._group_block[key] = block.astype(np.int32)
        return self._group_block[key]

    def _mixed_cost(self, da: int, db: int) -> float:
        """Predicted seconds of a mixed task on this rank's threads; 0 if it has no connection."""
        groups, beta = self.share.alpha[da].undirected, self.share.beta[db]
        block = self._blocks_of(da, False)
        columns = np.diff(beta.block_row)
        terms = beta.block_entries + beta.block_diagonal * columns
        gathered = (beta.block_n_ket + columns) * (terms > 0) / 2
        pairs = np.diff(groups.start)
        work = GATHER_SECONDS * np.dot(pairs, gathered[block]) + MIXED_SECONDS * np.dot(pairs, terms[block])
        return float(work) / self._n_threads

    def _beta_terms(self, db: int) -> float:
        """Multiply-adds of a beta task."""
        layout = self.layout
        doubles, _ = self.share.beta_hamiltonian(db)
        beta = self.share.beta[db]
        _, column_start = layout.beta_rows(self.ib)
        per_label = doubles.indptr[column_start[1:]] - doubles.indptr[column_start[:-1]]
        per_label = per_label + beta.block_entries[:: layout.n_labels]
        shares = self._bra.stop / np.maximum(self._bra.length, 1)
        row_terms = np.repeat(per_label[self._labels ^ layout.sector], np.diff(self._bra.label_start))
        return float(np.dot(shares, row_terms))

    @cached_property
    def _scratch(self) -> FloatArray:
        """One row of 64-byte aligned scratch for every thread."""
        layout = self.layout
        rows = max(int(np.diff(layout.alpha_bounds, axis=1).max(initial=0)), 1)
        columns = max(int(np.diff(layout.beta_bounds, axis=1).max(initial=0)), 1)
        entries = max(int(table.block_entries.max(initial=0)) for table in self.share.beta)
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
