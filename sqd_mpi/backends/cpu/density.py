"""One rank's share of the density matrices <bra|a+ a|ket> and <bra|a+ a+ a a|ket>, on CPU threads.

The products of sigma are turned round: instead of multiplying by integrals, the same string connections collect
products of coefficients. Opposite spin: groups of alpha singles of equal pair pq (and, with p = q, of occupied
orbitals) meet the beta singles (and occupied orbitals) of their block. Same spin: inner products of rows or columns of
the vectors on the pattern of single and double excitations between strings.

Where bra and ket are the same vector the result is symmetric under exchange of bra and ket, and only pairs p >= q, or
created pair > annihilated pair, are computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi import _jit
from sqd_mpi._jit import jit
from sqd_mpi.arrays import FloatArray, IntArray, Place
from sqd_mpi.backends.cpu import costs, density_kernels, lists
from sqd_mpi.backends.cpu.records import Groups
from sqd_mpi.distribution.layout import Layout, owners
from sqd_mpi.problem.excitations import find_doubles, occupied_orbitals, pair_index

_ROWS_AT_A_TIME = 4096  # bounds the doubles that exist at one time
_LARGEST_GROUP = 512  # pairs; larger groups are cut so that threads get equal shares


@dataclass(frozen=True, eq=False)
class Accumulators:
    """Density matrices in the packed form in which ranks add them up; pair(p, q) = p (p + 1) / 2 + q for p >= q."""

    norb: int
    """Number of orbitals."""
    symmetric: bool
    """Bra and ket are the same vector: only p >= q, or created >= annihilated pair, is filled."""
    flat: FloatArray = field(repr=False)
    """All numbers in one buffer; the others are views of it."""
    one: FloatArray = field(repr=False)
    """(2, norb, norb), <p+ q> of alpha and beta."""
    same: FloatArray | None = field(repr=False)
    """(2, n_pair, n_pair) or None, <p+ q+ s r> at [pair(p, q), pair(r, s)] for p > q, r > s."""
    opposite: FloatArray | None = field(repr=False)
    """(n_rows, norb**2) or None, <E^alpha_pq E^beta_rs> at [row, r norb + s], row = pair(p, q) where symmetric, else p
    norb + q."""

    @staticmethod
    def size(norb: int, order: int, symmetric: bool) -> int:
        """Number of float64 of the packed matrices up to `order`."""
        n_pair = norb * (norb + 1) // 2
        two = 2 * n_pair**2 + (n_pair if symmetric else norb**2) * norb**2
        return 2 * norb**2 + (two if order == 2 else 0)

    @classmethod
    def zeros(cls, norb: int, order: int, symmetric: bool) -> Accumulators:
        """Empty accumulators for 1-RDMs (order 1) or both (order 2)."""
        flat = np.zeros(cls.size(norb, order, symmetric))
        n_pair, at = norb * (norb + 1) // 2, 2 * norb**2
        one = flat[:at].reshape(2, norb, norb)
        if order == 1:
            return cls(norb, symmetric, flat, one, None, None)
        same = flat[at : at + 2 * n_pair**2].reshape(2, n_pair, n_pair)
        return cls(norb, symmetric, flat, one, same, flat[at + 2 * n_pair**2 :].reshape(-1, norb**2))


class DensityBlock:
    """One rank's share of the density matrices between two vectors on the same strings and grid.

    The bra is the whole block (ia, ib) of one vector; kets are whole blocks of the other. The t r replicas of a block
    take every (t r)-th alpha string of opposite-spin and alpha terms, and every (t r)-th beta string of beta terms.

    Args:
        bra_layout, ket_layout: ownership of both vectors; they differ in sector and parity only.
        place: (ia, ib, it, ir).
        norb: number of orbitals.
        orbital_labels: labels by which the strings are sorted, (norb,) or (2, norb) for alpha and beta.
        out: where results are added.
        kernels: module with the loops.
    """

    def __init__(
        self, bra_layout: Layout, ket_layout: Layout, place: Place, norb: int, orbital_labels: IntArray,
        out: Accumulators, kernels: Any = density_kernels,
    ):  # fmt: skip
        self.bra_layout, self.ket_layout, self.out, self.kernels = bra_layout, ket_layout, out, kernels
        self.ia, self.ib, it, ir = place
        self.norb = norb
        _, _, t, r = bra_layout.grid
        self.part, self.n_parts = ir * t + it, t * r
        self.shift = bra_layout.sector ^ ket_layout.sector
        rows, columns = np.tril_indices(norb)
        self._rows, self._columns = rows.astype(np.int64), columns.astype(np.int64)
        labels_of_spins = np.atleast_2d(orbital_labels)
        self.pair_labels = (labels_of_spins[0, rows] ^ labels_of_spins[0, columns]).astype(np.int64)
        self._bra_offset = bra_layout.ket_offsets(self.ia, self.ib)
        alpha, self._label_start = bra_layout.ket_rows(self.ia)
        labels = np.repeat(np.arange(bra_layout.n_labels), np.diff(self._label_start))
        self._own_rows = np.arange(self.part, len(alpha), self.n_parts)  # rows of the block that this rank works on
        self._own_alpha, self._own_labels = alpha[self._own_rows], labels[self._own_rows]
        if out.opposite is not None:
            beta_labels = (labels_of_spins[-1, rows] ^ labels_of_spins[-1, columns]).astype(np.int64)
            self._beta = lists.beta_singles(bra_layout, self.ib, norb, beta_labels)
            self._groups = self._alpha_groups()

    def shifts(self, beta_too: bool) -> list[tuple[int, int]]:
        """(da, db) of the ket blocks that are needed; `beta_too`: also for terms in which beta strings move alone."""
        a, b, _, _ = self.bra_layout.grid
        needed = {(da, 0) for da in range(a)} | ({(0, db) for db in range(b)} if beta_too else set())
        if self.out.opposite is not None:
            needed |= {(da, db) for da in range(a) for db in range(b) if self._connected(da, db)}
        return sorted(needed)

    def add(self, da: int, db: int, bra: FloatArray, ket: FloatArray, beta_too: bool) -> None:
        """Add all terms between the own bra block and the ket block (ia + da, ib + db).

        Args:
            bra: flat, the whole own block; ket: flat, the whole ket block.
            beta_too: whether terms in which beta strings move alone, or beta densities, are wanted.
        """
        if self.out.opposite is not None and self._connected(da, db):
            self._add_opposite(da, db, bra, ket)
        if db == 0:
            self._add_alpha(da, bra, ket)
        if da == 0 and beta_too:
            self._add_beta(db, bra, ket)

    def finish(self) -> None:
        """Complete `out`; called once, after the last `add`."""

    def _ket_block(self, da: int, db: int) -> tuple[int, int]:
        a, b, _, _ = self.bra_layout.grid
        return (self.ia + da) % a, (self.ib + db) % b

    # --- opposite spin -----------------------------------------------------------------------------------------------

    def _row_of(self, p: IntArray, q: IntArray) -> IntArray:
        """Row of `out.opposite` of E^alpha_pq."""
        return p * (p + 1) // 2 + q if self.out.symmetric else p * self.norb + q

    def _pair_columns(self) -> IntArray:
        """Column r norb + s of `out.opposite` for every directed pair."""
        forward, backward = self._rows * self.norb + self._columns, self._columns * self.norb + self._rows
        return np.stack([forward, backward], axis=1).reshape(-1)

    def _alpha_groups(self) -> list[Any]:
        """Alpha singles and occupied orbitals of the own rows, one entry per shift da; `pair` is the row of the
        result."""
        # Singles; where bra and ket are the same vector, those with p > q.
        layout, strings = self.bra_layout, self.bra_layout.alpha.strings
        singles = layout.alpha.singles(self._own_alpha)
        row = np.repeat(np.arange(len(self._own_rows), dtype=np.int32), np.diff(singles.indptr))
        if self.out.symmetric:
            keep = singles.pair & 1 == 0
            row, ket, pair, sign = row[keep], singles.ket[keep], singles.pair[keep], singles.sign[keep]
        else:
            ket, pair, sign = singles.ket, singles.pair, singles.sign

        # Where each adds to the result, and the label that decides on its beta matrix.
        p, q = self._rows[pair >> 1], self._columns[pair >> 1]
        forward = pair & 1 == 0
        target = self._row_of(np.where(forward, p, q), np.where(forward, q, p))
        label = self.pair_labels[pair >> 1]

        # Sorted by the block of the ket row; with da = 0 the string that stays goes with them.
        owner = owners(layout.alpha_bounds)[ket]
        occupied = occupied_orbitals(strings[self._own_alpha]).astype(np.int64)
        n_alpha = occupied.shape[1]
        result = []
        for da in range(layout.grid[0]):
            ja, _ = self._ket_block(da, 0)
            ket_row = np.empty(layout.alpha.size, np.int32)
            positions, _ = layout.ket_rows(ja)
            ket_row[positions] = np.arange(len(positions))
            mine = np.flatnonzero(owner == ja)
            parts = [(row[mine], ket_row[ket[mine]], sign[mine], target[mine], label[mine])]
            if da == 0 and n_alpha:
                n = len(self._own_rows) * n_alpha
                parts.append(
                    (
                        np.repeat(np.arange(len(self._own_rows), dtype=np.int32), n_alpha),
                        np.repeat(self._own_rows.astype(np.int32), n_alpha),
                        np.ones(n, np.int8),
                        self._row_of(occupied, occupied).reshape(-1),
                        np.zeros(n, np.int64),
                    )
                )
            result.append(self._grouped(*(np.concatenate(column) for column in zip(*parts, strict=True))))
        return result

    def _grouped(
        self, bra: NDArray[np.int32], ket: NDArray[np.int32], sign: NDArray[np.int8], target: IntArray, label: IntArray
    ) -> Any:
        """Groups of equal target and beta matrix, in the order of targets, divided among threads by cost."""
        n_labels = self.bra_layout.n_labels
        matrix = (self._own_labels[bra] ^ self.bra_layout.sector) * n_labels + (label ^ self.shift)
        key = target * n_labels**2 + matrix
        order = np.argsort(key, kind="stable")
        key, bra, ket, sign = key[order], bra[order], ket[order], sign[order]
        first = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1])[: len(key)]
        place_in_group = np.arange(len(key)) - np.repeat(first, np.diff(np.append(first, len(key))))
        start = np.append(np.flatnonzero(place_in_group % _LARGEST_GROUP == 0), len(key)).astype(np.int64)
        row, matrix = np.divmod(key[start[:-1]], n_labels**2)
        table = self._beta[0]
        entries = np.sum([each.matrix_entries for each in self._beta], axis=0)
        columns = np.diff(table.matrix_row)
        seconds = np.diff(start) * costs.single_seconds(columns, entries)[matrix]
        seconds += costs.MIXED_SECONDS * costs.FLUSHED_TERMS * self.norb**2
        threads = lists.split_rows(seconds, _jit.n_threads())
        return Groups(threads, start, row.astype(np.int32), matrix.astype(np.int32), bra, ket, sign)

    def _connected(self, da: int, db: int) -> bool:
        """Whether any pair of groups and beta matrices has a term."""
        beta = self._beta[db]
        terms = beta.matrix_entries + beta.matrix_diagonal * np.diff(beta.matrix_row)
        return bool(np.any(terms[self._groups[da].matrix] > 0))

    def _add_opposite(self, da: int, db: int, bra: FloatArray, ket: FloatArray) -> None:
        ket_offset = self.ket_layout.ket_offsets(*self._ket_block(da, db))
        self.kernels.opposite_spin(
            bra, ket, self._bra_offset[self._own_rows], ket_offset, self._groups[da], self._beta[db],
            self._pair_columns(), self.out.opposite,
        )  # fmt: skip

    # --- same spin ---------------------------------------------------------------------------------------------------

    def _add_alpha(self, da: int, bra: FloatArray, ket: FloatArray) -> None:
        """Terms in which alpha strings move, or stay, while the beta string stays."""
        layout = self.bra_layout
        ja, jb = self._ket_block(da, 0)
        ket_offset = self.ket_layout.ket_offsets(ja, jb)
        ket_alpha, ket_start = layout.ket_rows(ja)
        lengths = layout.row_lengths(self.ib)
        for x in range(layout.n_labels):
            own = np.flatnonzero(self._own_labels == x)
            kets = slice(int(ket_start[x ^ self.shift]), int(ket_start[(x ^ self.shift) + 1]))
            if not len(own) or kets.start == kets.stop or not lengths[x]:
                continue

            def products(rows, patterns, own=own, kets=kets, length=int(lengths[x])):
                mine = self._bra_offset[self._own_rows[own[rows]]]
                self.kernels.alpha_products(bra, ket, mine, ket_offset[kets], length, patterns)

            stays = self._own_rows[own] - self._label_start[x] if da == 0 and self.shift == 0 else None
            self._add_same(0, self._own_alpha[own], ket_alpha[kets], products, stays)

    def _add_beta(self, db: int, bra: FloatArray, ket: FloatArray) -> None:
        """Terms in which beta strings move, or stay, while the alpha string stays."""
        layout = self.bra_layout
        ja, jb = self._ket_block(0, db)
        ket_offset = self.ket_layout.ket_offsets(ja, jb)
        columns, start = layout.beta_rows(self.ib)
        ket_columns, ket_start = layout.beta_rows(jb)
        for x in range(layout.n_labels):
            y, y_ket = x ^ layout.sector, x ^ self.ket_layout.sector
            rows = slice(int(self._label_start[x]), int(self._label_start[x + 1]))
            own = np.arange(self.part, start[y + 1] - start[y], self.n_parts)
            kets = slice(int(ket_start[y_ket]), int(ket_start[y_ket + 1]))
            if rows.start == rows.stop or not len(own) or kets.start == kets.stop:
                continue

            def products(chosen, patterns, rows=rows, own=own, n_ket=int(kets.stop - kets.start)):
                self.kernels.beta_products(
                    bra, ket, self._bra_offset[rows], ket_offset[rows], own[chosen], n_ket, patterns
                )

            stays = own if db == 0 and self.shift == 0 else None
            self._add_same(1, columns[start[y] + own], ket_columns[kets], products, stays)

    def _add_same(self, spin: int, bra: IntArray, kets: IntArray, products: Any, stays: IntArray | None) -> None:
        """Add the terms of one spin between two lists of strings.

        Args:
            bra, kets: working positions; those of the kets follow each other.
            products: products(rows, patterns) adds the inner products of bra strings `rows`.
            stays: for every bra string its own position among the kets, or None if it is not there.
        """
        same = self.out.same[spin] if self.out.same is not None else np.zeros((0, 0))
        one = self.out.one[spin]
        of_spin = (self.bra_layout.alpha, self.bra_layout.beta)[spin]
        ket = of_spin.strings[kets]
        for first in range(0, len(bra), _ROWS_AT_A_TIME):
            rows = np.arange(first, min(first + _ROWS_AT_A_TIME, len(bra)))
            strings = of_spin.strings[bra[rows]]
            occupied = occupied_orbitals(strings)

            # Where the bra string meets itself, its singles and its doubles, as patterns in CSR.
            patterns = []
            if stays is not None:
                patterns.append((np.arange(len(rows) + 1), stays[rows].astype(np.int32), np.zeros(len(rows))))
            singles = of_spin.singles(bra[rows]).between(int(kets[0]), int(kets[-1]) + 1)
            indptr, column, pair, single_sign = self._wanted(
                singles.indptr, singles.pair & 1 == 0, singles.ket, singles.pair, singles.sign
            )
            patterns.append((indptr, column, np.zeros(len(column))))
            if same.size:
                doubles = find_doubles(strings, ket, self.norb)
                double_indptr, column, created, annihilated, double_sign = self._wanted(
                    doubles.indptr, doubles.created > doubles.annihilated, doubles.ket, doubles.created,
                    doubles.annihilated, doubles.sign,
                )  # fmt: skip
                patterns.append((double_indptr, column, np.zeros(len(column))))

            # The inner products there, which then go to the elements of the density matrices.
            products(rows, patterns)
            if stays is not None:
                _add_densities(occupied, patterns[0][2], one, same)
            _add_singles(indptr, pair, single_sign, patterns[int(stays is not None)][2], occupied, one, same)
            if same.size:
                _add_doubles(created, annihilated, double_sign, patterns[-1][2], same)

    def _wanted(self, indptr: IntArray, keep: NDArray[np.bool_], *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """CSR lists without the entries that follow from the symmetry of bra and ket."""
        if not self.out.symmetric:
            return [indptr, *arrays]
        kept = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
        return [kept[indptr], *(each[keep] for each in arrays)]


def create_density_block(*arguments: Any) -> DensityBlock:
    """The share of rank (ia, ib, it, ir); arguments as of `DensityBlock`."""
    return DensityBlock(*arguments)


@jit
def _add_densities(occupied, value, one, same):
    for i in range(occupied.shape[0]):
        for p in occupied[i]:
            one[p, p] += value[i]
            if same.size:
                for q in occupied[i]:
                    if q < p:
                        pq = pair_index(np.int64(p), np.int64(q))
                        same[pq, pq] += value[i]


@jit
def _add_singles(indptr, pair, sign, value, occupied, one, same):
    """I = sign a+_p a_q I': <p+ q>, and <p+ k+ k q> for every other occupied k."""
    for i in range(indptr.shape[0] - 1):
        for k in range(indptr[i], indptr[i + 1]):
            directed = np.int64(pair[k])
            p = np.int64((np.sqrt(8.0 * (directed >> 1) + 1.0) - 1.0) / 2.0)
            while p * (p + 1) // 2 > directed >> 1:
                p -= 1
            while (p + 1) * (p + 2) // 2 <= directed >> 1:
                p += 1
            q = (directed >> 1) - p * (p + 1) // 2
            if directed & 1:
                p, q = q, p
            term = sign[k] * value[k]
            one[p, q] += term
            if same.size:
                for other in occupied[i]:
                    o = np.int64(other)
                    if o != p:
                        turned = (p < o) != (q < o)
                        same[pair_index(p, o), pair_index(q, o)] += -term if turned else term


@jit
def _add_doubles(created, annihilated, sign, value, same):
    """I = sign a+_p a_r a+_q a_s I' = sign a+_p a+_q a_s a_r I'."""
    for k in range(value.shape[0]):
        same[created[k], annihilated[k]] += sign[k] * value[k]
