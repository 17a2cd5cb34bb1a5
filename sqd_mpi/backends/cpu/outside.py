"""Amplitudes <D|H|Psi> of determinants D outside a product space, one tile of them at a time, on CPU threads.

A tile is a list of alpha strings times a list of beta strings, at least one of the lists outside the space. Its
amplitudes are a sigma whose bra strings are not those of the vector: the kernels of sigma take it as it is. When all
ket blocks are added, the tile is summed up to a few numbers and forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi import _jit
from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import FloatArray, IntArray
from sqd_mpi.backends.cpu import costs, lists, vector_kernels
from sqd_mpi.backends.cpu.records import BetaSingles, Groups, Rows
from sqd_mpi.backends.reference import matrix_element
from sqd_mpi.distribution.layout import BraRows, Layout
from sqd_mpi.problem.excitations import find_singles, occupied_orbitals
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.spin_strings import SpinStrings

_NOISE = 1e-24  # squares of amplitudes (hartree^2) up to which they may be rounding of an exact zero


@dataclass(frozen=True, eq=False)
class Integrals:
    """Integrals as seen from the rows and the columns of a vector, in hartree."""

    rows: tuple[FloatArray, FloatArray] = field(repr=False)
    columns: tuple[FloatArray, FloatArray] = field(repr=False)
    """(h1e, eri) of the electrons of the row and the column strings: (norb, norb) and (n_pairs, n_pairs)."""
    coupling: FloatArray = field(repr=False)
    """(n_pairs, n_pairs), pairs of the rows first."""
    constant: float
    """Core energy."""

    @classmethod
    def of(cls, hamiltonian: Hamiltonian) -> Integrals:
        """Alpha strings in the rows, beta strings in the columns.

        Raises:
            InputError: the integrals depend on spin.
        """
        hamiltonian.check_pt2()
        same = np.ascontiguousarray(hamiltonian.h1e), hamiltonian.eri_pairs()
        return cls(same, same, hamiltonian.eri_pairs(), hamiltonian.ecore)

    def transposed(self) -> Integrals:
        """Rows and columns exchanged."""
        coupling = self.coupling if self.rows is self.columns else np.ascontiguousarray(self.coupling.T)
        return Integrals(self.columns, self.rows, coupling, self.constant)

    @property
    def norb(self) -> int:
        """Number of orbitals."""
        return len(self.rows[0])


@dataclass(frozen=True, eq=False)
class Columns:
    """The column strings of tiles, label after label, with their connections to the columns of every ket block."""

    strings: NDArray[np.uint64] = field(repr=False)
    """(n, nwords)."""
    start: IntArray = field(repr=False)
    """(n_labels + 1,) first of every label."""
    block: int
    """The column block that they are, or -1 if they lie outside the space."""
    singles: list[BetaSingles] = field(repr=False)
    """One table per ket column block, in the order of the shifts from `block` (or from 0); empty where no row moves by
    a single excitation."""

    @classmethod
    def of_block(cls, layout: Layout, ib: int, norb: int, pair_labels: IntArray, singles_too: bool) -> Columns:
        """The columns of a block of the vector."""
        rows, start = layout.beta_rows(ib)
        strings = np.ascontiguousarray(layout.beta.strings[rows])
        singles = lists.column_singles(layout, strings, start, ib, norb, pair_labels) if singles_too else []
        return cls(strings, start, ib, singles)

    @classmethod
    def outside(cls, layout: Layout, strings: SpinStrings, norb: int, pair_labels: IntArray) -> Columns:
        """Strings that are not in the vector."""
        singles = lists.column_singles(layout, strings.strings, strings.label_start, 0, norb, pair_labels, False)
        return cls(strings.strings, strings.label_start, -1, singles)

    def table(self, jb: int) -> BetaSingles:
        """Connections to the columns of ket block jb."""
        return self.singles[(jb - max(self.block, 0)) % len(self.singles)]


class ExternalTile:
    """Amplitudes of one tile.

    Args:
        layout: of the vector, without parity, with t = r = 1; rows are alpha strings, columns beta strings.
        integrals: as seen by this layout.
        rows: (n, nwords) row strings outside the space, label after label.
        row_start: (n_labels + 1,) first row of every label.
        columns: the column strings.
        pair_labels: (n_pairs,) label of every orbital pair.
        kernels: module with the loops of sigma.
    """

    def __init__(
        self, layout: Layout, integrals: Integrals, rows: NDArray[np.uint64], row_start: IntArray, columns: Columns,
        pair_labels: IntArray, kernels: Any = vector_kernels,
    ):  # fmt: skip
        self.layout, self.integrals, self.columns, self.kernels = layout, integrals, columns, kernels
        self.rows = np.ascontiguousarray(rows)
        self.row_start = row_start
        self.pair_labels = pair_labels
        labels = np.arange(layout.n_labels)
        self._length = np.repeat(np.diff(columns.start)[labels ^ layout.sector], np.diff(row_start))
        self._offset = np.concatenate([[0], np.cumsum(self._length)]).astype(np.int64)
        self.amplitudes = np.zeros(int(self._offset[-1]))
        self._prepare()

    def _prepare(self) -> None:
        layout, n_threads = self.layout, _jit.n_threads()
        self._groups = self._alpha_groups(n_threads) if self.columns.singles else []
        self._same_spin = []
        if self.columns.block >= 0:
            ranges = [
                [(int(bounds[ja]), int(bounds[ja + 1])) for bounds in layout.alpha_bounds]
                for ja in range(layout.grid[0])
            ]
            self._same_spin = [
                lists.same_spin_between(self.rows, self.row_start, layout.alpha.strings, each, *self.integrals.rows)
                for each in ranges
            ]

    def _alpha_groups(self, n_threads: int) -> list[Groups]:
        """Singles from the rows to the rows of every ket block, in groups of equal orbital pair."""
        layout, columns = self.layout, np.arange(self.layout.n_labels) ^ self.layout.sector
        entries = sum(table.matrix_entries.reshape(layout.n_labels, -1).sum(axis=1) for table in self.columns.singles)
        row_cost = costs.single_seconds(np.diff(self.columns.start)[columns], np.asarray(entries)[columns])
        n_rows = len(self.rows)
        bra = BraRows(np.arange(n_rows), np.arange(n_rows), self.row_start, self._offset, self._length, self._length)
        found = lists.alpha_singles(
            layout, 0, bra, find_singles(self.rows, layout.alpha.strings, self.integrals.norb), (0, n_rows),
            set(range(layout.grid[0])), self.pair_labels, row_cost, n_threads,
        )  # fmt: skip
        sector = layout.sector, layout.n_labels
        return [found[ja].undirected.of_sector(*sector) for ja in range(layout.grid[0])]

    def needed(self) -> list[tuple[int, int]]:
        """(ja, jb) of the ket blocks that have a connection to this tile."""
        a, b, _, _ = self.layout.grid
        blocks = {(ja, jb) for ja in range(a) for jb in range(b) if self._is_mixed(ja, jb)}
        blocks |= {(ja, self.columns.block) for ja, rows in enumerate(self._same_spin) if len(rows.column)}
        return sorted(blocks)

    def add(self, ja: int, jb: int, ket: FloatArray) -> None:
        """Add the contributions of ket block (ja, jb), given as a flat array."""
        ket_offset = self.layout.ket_offsets(ja, jb)
        if self._is_mixed(ja, jb):
            self.kernels.opposite_spin(
                ket, self.amplitudes, Rows(self._offset, self._length, ket_offset), self._groups[ja],
                self.columns.table(jb), self.integrals.coupling, 0.0, self._scratch,
            )  # fmt: skip
        if jb == self.columns.block and len(self._same_spin[ja].column):
            self.kernels.same_spin_alpha(
                ket, self.amplitudes, Rows(self._offset[:-1], self._length, ket_offset), self.row_start,
                self.layout.ket_rows(ja)[1], self._same_spin[ja], self._scratch,
            )  # fmt: skip

    def sums(self, energy: float) -> FloatArray:
        """(3,): sum of A^2 / (E - H_DD), sum of A^2, and the smallest |H_DD - E| of any A above rounding."""
        integrals, labels = self.integrals, np.arange(self.layout.n_labels)
        first_column = np.repeat(self.columns.start[labels ^ self.layout.sector], np.diff(self.row_start))
        pairs = np.arange(integrals.norb, dtype=np.int64)
        pairs = pairs * (pairs + 1) // 2 + pairs
        out = np.zeros((len(self.rows), 3))
        _sum_rows(
            self.amplitudes, self._offset, first_column, lists.string_energies(self.rows, *integrals.rows),
            lists.string_energies(self.columns.strings, *integrals.columns), occupied_orbitals(self.rows),
            occupied_orbitals(self.columns.strings), integrals.coupling[np.ix_(pairs, pairs)],
            energy - integrals.constant, _NOISE, out,
        )  # fmt: skip
        return np.array([out[:, 0].sum(), out[:, 1].sum(), out[:, 2].min(initial=np.inf)])

    def _is_mixed(self, ja: int, jb: int) -> bool:
        """Whether any row single meets a column single (or the column itself) in a ket block."""
        if not self._groups:
            return False
        table = self.columns.table(jb)
        terms = table.matrix_entries + table.matrix_diagonal * np.diff(table.matrix_row)
        return bool(np.any(terms[self._groups[ja].matrix] > 0))

    @cached_property
    def _scratch(self) -> FloatArray:
        """One row of 64-byte aligned scratch for every thread."""
        layout = self.layout
        rows = max(int(np.diff(layout.alpha_bounds, axis=1).max(initial=0)), int(np.diff(self.row_start).max()), 1)
        columns = max(int(np.diff(layout.beta_bounds, axis=1).max(initial=0)), int(self._length.max(initial=0)), 1)
        entries = max((int(table.matrix_entries.max(initial=0)) for table in self.columns.singles), default=0)
        size = max(8, self.kernels.scratch_size(rows, columns, entries, len(self.pair_labels)))
        size = -(-size // 8) * 8
        flat = np.empty(_jit.n_threads() * size + 8)
        first = (-flat.ctypes.data // 8) % 8
        return flat[first : first + _jit.n_threads() * size].reshape(-1, size)


class ReferenceTile(ExternalTile):
    """The same by brute force: every pair of a determinant of the tile and one of the vector is looked at."""

    def _prepare(self) -> None:
        """Nothing is prepared."""

    def needed(self) -> list[tuple[int, int]]:
        """All ket blocks."""
        a, b, _, _ = self.layout.grid
        return [(ja, jb) for ja in range(a) for jb in range(b)]

    def add(self, ja: int, jb: int, ket: FloatArray) -> None:
        """Add the contributions of ket block (ja, jb) element by element."""
        layout, integrals = self.layout, self.integrals
        ket_rows, ket_start = layout.ket_rows(ja)
        ket_columns, ket_column_start = layout.beta_rows(jb)
        _add_elements(
            ket, self.amplitudes, layout.sector, self.rows, layout.alpha.strings[ket_rows], self.row_start, ket_start,
            self._offset, layout.ket_offsets(ja, jb), self.columns.strings, layout.beta.strings[ket_columns],
            self.columns.start, ket_column_start, *integrals.rows, integrals.coupling,
        )  # fmt: skip

    def sums(self, energy: float) -> FloatArray:
        """As `ExternalTile.sums`, one determinant after another."""
        out = np.array([0.0, 0.0, np.inf])
        row_label = np.repeat(np.arange(self.layout.n_labels), np.diff(self.row_start))
        row_orbitals, column_orbitals = (occupied_orbitals(each) for each in (self.rows, self.columns.strings))
        for row, (first, last) in enumerate(pairwise(self._offset)):
            first_column = self.columns.start[row_label[row] ^ self.layout.sector]
            for k in range(last - first):
                amplitude = self.amplitudes[first + k]
                if amplitude != 0.0:
                    gap = self._diagonal(row_orbitals[row], column_orbitals[first_column + k]) - energy
                    out += [-(amplitude**2) / gap, amplitude**2, 0.0]
                    if amplitude**2 > _NOISE:
                        out[2] = min(out[2], abs(gap))
        return out

    def _diagonal(self, row: NDArray[np.int32], column: NDArray[np.int32]) -> float:
        """<D|H|D> from the occupied orbitals of both strings."""
        total = self.integrals.constant
        for orbitals, (h1e, eri) in ((row, self.integrals.rows), (column, self.integrals.columns)):
            for p in orbitals:
                total += h1e[p, p]
                for r in orbitals[orbitals < p]:
                    total += eri[p * (p + 1) // 2 + p, r * (r + 1) // 2 + r]
                    total -= eri[p * (p + 1) // 2 + r, p * (p + 1) // 2 + r]
        for p in row.astype(np.int64):
            for r in column.astype(np.int64):
                total += self.integrals.coupling[p * (p + 1) // 2 + p, r * (r + 1) // 2 + r]
        return float(total)


@jit
def _add_elements(
    ket, out, sector, bra_a, ket_a, bra_start, ket_start, offset, ket_offset, bra_b, ket_b, column_start,
    ket_column_start, h1e, eri, coupling,
):  # fmt: skip
    for x in range(bra_start.shape[0] - 1):
        first = column_start[x ^ sector]
        for i in range(bra_start[x], bra_start[x + 1]):
            for flat in range(offset[i], offset[i + 1]):
                bra_string_b = bra_b[first + flat - offset[i]]
                for x2 in range(ket_start.shape[0] - 1):
                    first2 = ket_column_start[x2 ^ sector]
                    for i2 in range(ket_start[x2], ket_start[x2 + 1]):
                        for j2 in range(first2, ket_column_start[(x2 ^ sector) + 1]):
                            element = matrix_element(
                                bra_a[i], bra_string_b, ket_a[i2], ket_b[j2], h1e, eri, coupling, 0.0, True
                            )
                            out[flat] += element * ket[ket_offset[i2] + j2 - first2]


@parallel_jit
def _sum_rows(
    amplitudes, offset, first_column, energies_a, energies_b, occupied_a, occupied_b, density, energy, noise, out,
):  # fmt: skip
    for row in numba.prange(first_column.shape[0]):
        potential = np.zeros(density.shape[0])
        for p in range(occupied_a.shape[1]):
            for r in range(density.shape[0]):
                potential[r] += density[occupied_a[row, p], r]
        correction, square, smallest = 0.0, 0.0, np.inf
        for flat in range(offset[row], offset[row + 1]):
            amplitude = amplitudes[flat]
            if amplitude == 0.0:
                continue
            j = first_column[row] + flat - offset[row]
            gap = energies_a[row] + energies_b[j] - energy
            for r in range(occupied_b.shape[1]):
                gap += potential[occupied_b[j, r]]
            term = amplitude * amplitude
            correction -= term / gap
            square += term
            if term > noise:
                smallest = min(smallest, abs(gap))
        out[row, 0] = correction
        out[row, 1] = square
        out[row, 2] = smallest
