"""The definition: Slater-Condon matrix elements by plain loops over all pairs of determinants.

Quadratic in the number of determinants; for tests and for reading. Szabo and Ostlund, Modern Quantum Chemistry,
tables 2.3 and 2.4, with the opposite-spin Coulomb integrals replaced by the interaction's coupling.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sqd_mpi._jit import jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.mirrored import MirroredSum, half_of_kets
from sqd_mpi.backends.protocol import Task
from sqd_mpi.distribution.layout import BraRows, Layout
from sqd_mpi.distribution.memory import HostMemory, host_memory
from sqd_mpi.problem.excitations import differing_orbitals, occupied_between, occupied_orbitals, pair_index
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings

_KINDS = {"mixed": 0, "alpha": 1, "beta": 2}


class ReferenceBlock:
    """One rank's share of sigma by brute force; see `SigmaBlock`."""

    def __init__(self, layout: Layout, place: tuple[int, int, int, int], hamiltonian: Hamiltonian):
        self.layout = layout
        self.ia, self.ib, self.it, self.ir = place
        self.integrals = spin_integrals(hamiltonian)
        self.mirrored: MirroredSum | None = None

    def tasks(self, interaction: Interaction) -> list[Task]:
        """All tasks with a determinant on both sides; cost is the number of pairs."""
        a, b, _, _ = self.layout.grid
        found = []
        for da in range(a):
            for db in range(b):
                kinds = ["mixed"] + (["alpha"] if db == 0 else []) + (["beta"] if da == 0 else [])
                found += [Task(kind, da, db, 0.0) for kind in kinds]
        found = half_of_kets(self.layout, self.ia, self.ib, found)
        found = [replace(task, cost=float(self.row_costs(task).sum())) for task in found]
        return [task for task in found if task.cost > 0.0]

    def row_costs(self, task: Task) -> FloatArray:
        """The cost of a row is the number of pairs of determinants."""
        a, b, _, _ = self.layout.grid
        bra = self._bra(task)
        return np.asarray(1e-8 * bra.stop * self.layout.block_size((self.ia + task.da) % a, (self.ib + task.db) % b))

    def _bra(self, task: Task) -> BraRows:
        bra = self.layout.bra_rows(self.ia, self.ir, self.ib)
        return bra.with_all_columns() if task.mirrored else bra

    def prepare(self, tasks: list[Task]) -> None:
        """Nothing but room for mirrored tasks is prepared: every element is evaluated anew."""
        self.mirrored = MirroredSum.of_tasks(self.layout, self.ia, tasks)

    def apply(self, task: Task, ket: FloatArray, sigma: FloatArray, interaction: Interaction) -> None:
        """sigma += this task's part; see `SigmaBlock.apply`."""
        layout, (a, b, _, _) = self.layout, self.layout.grid
        ja, jb = (self.ia + task.da) % a, (self.ib + task.db) % b
        bra = self._bra(task)
        if task.mirrored:
            assert self.mirrored is not None
            sigma = self.mirrored.sigma
        low, high = (0, len(bra.alpha)) if task.rows is None else task.rows
        ket_rows, ket_start = layout.ket_rows(ja)
        bra_columns, bra_column_start = layout.beta_rows(self.ib)
        ket_columns, ket_column_start = layout.beta_rows(jb)
        _apply(
            ket, sigma, _KINDS[task.kind], layout.sector,
            layout.alpha.strings[bra.alpha], layout.alpha.strings[ket_rows],
            np.clip(bra.label_start, low, high), ket_start, bra.offset, bra.stop, layout.ket_offsets(ja, jb),
            layout.beta.strings[bra_columns], layout.beta.strings[ket_columns], bra_column_start, ket_column_start,
            *self.integrals, interaction.coupling, interaction.swap, twist_of(interaction), interaction.same_spin,
        )  # fmt: skip

    def diagonal(self, interaction: Interaction, out: FloatArray) -> None:
        """Diagonal on this rank's slice, determinant by determinant."""
        where = self.layout.geometry(self.ia, self.ib, self.it, self.ir)
        rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
        occupied_a = _occupied(self.layout.alpha)
        occupied_b = _occupied(self.layout.beta)
        for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
            alpha, beta = occupied_a[where.alpha[row]], occupied_b[where.beta[column]]
            out[k] = interaction.constant + _diagonal_element(
                alpha, beta, *self.integrals, interaction.coupling, interaction.swap, interaction.same_spin
            )


def create_share(*_: Any) -> None:
    """Nothing is shared between the blocks of several sectors."""


def create_block(
    layout: Layout, place: tuple[int, int, int, int], hamiltonian: Hamiltonian, share: Any = None
) -> ReferenceBlock:
    """The block of rank (ia, ib, it, ir)."""
    return ReferenceBlock(layout, place, hamiltonian)


def create_memory(direct: bool = False, **_: Any) -> HostMemory:
    """Vectors and blocks live in host memory; see `memory.create_memory`."""
    return host_memory(direct)


def spin_integrals(hamiltonian: Hamiltonian) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """h1e of alpha and of beta (norb, norb), (pq|rs) of alpha and of beta (n_pairs, n_pairs)."""
    (h1e_a, eri_aa), (h1e_b, eri_bb) = hamiltonian.same_spin(0), hamiltonian.same_spin(1)
    return np.ascontiguousarray(h1e_a), np.ascontiguousarray(h1e_b), eri_aa, eri_bb


def twist_of(interaction: Interaction) -> FloatArray:
    """The twist, empty where there is none."""
    return np.zeros((0, 0)) if interaction.twist is None else interaction.twist


def _occupied(strings: SpinStrings) -> Any:
    return occupied_orbitals(strings.strings).astype(np.int64)


@jit
def _diagonal_element(alpha, beta, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, same_spin):
    """<D|V|D> of one determinant from its occupied orbitals, without the constant."""
    total = 0.0
    if same_spin:
        for occupied, h1e, eri in ((alpha, h1e_a, eri_aa), (beta, h1e_b, eri_bb)):
            for p in occupied:
                total += h1e[p, p]
                for r in occupied:
                    total += 0.5 * (eri[pair_index(p, p), pair_index(r, r)] - eri[pair_index(p, r), pair_index(p, r)])
    for p in alpha:
        for r in beta:
            total += coupling[pair_index(p, p), pair_index(r, r)] - (swap if p == r else 0.0)
    return total


@jit
def _distance(first, second):
    """Number of orbitals occupied in the first string only."""
    return differing_orbitals(first, second, np.empty(2, np.int64))


@jit
def _single(bra, ket):
    """Orbitals p, q and sign of bra = sign a+_p a_q ket."""
    p, q = np.empty(1, np.int64), np.empty(1, np.int64)
    differing_orbitals(bra, ket, p)
    differing_orbitals(ket, bra, q)
    return p[0], q[0], 1.0 - 2.0 * (occupied_between(ket, p[0], q[0]) & 1)


@jit
def _occupied_in(words, orbital):
    return (words[orbital >> 6] >> np.uint64(orbital & 63)) & np.uint64(1) == 1


@jit
def _one_spin_single(bra, ket, other, h1e, eri, coupling, transpose, same_spin):
    """Element in which one string moves by a single and the other spin's string stays."""
    p, q, sign = _single(bra, ket)
    total = 0.0
    pq = pair_index(p, q)
    for r in range(h1e.shape[0]):
        rr = pair_index(r, r)
        if same_spin and _occupied_in(ket, r):
            total += eri[pq, rr] - eri[pair_index(p, r), pair_index(q, r)]
        if _occupied_in(other, r):
            total += coupling[rr, pq] if transpose else coupling[pq, rr]
    if same_spin:
        total += h1e[p, q]
    return sign * total


@jit
def _double(bra, ket, eri):
    """Element in which one string moves by a double."""
    created, annihilated = np.empty(2, np.int64), np.empty(2, np.int64)
    differing_orbitals(bra, ket, created)
    differing_orbitals(ket, bra, annihilated)
    q, p = created
    s, r = annihilated
    middle = ket.copy()
    middle[q >> 6] ^= np.uint64(1) << np.uint64(q & 63)
    middle[s >> 6] ^= np.uint64(1) << np.uint64(s & 63)
    parity = (occupied_between(ket, q, s) + occupied_between(middle, p, r)) & 1
    direct = eri[pair_index(p, r), pair_index(q, s)]
    exchange = eri[pair_index(p, s), pair_index(q, r)]
    return (1.0 - 2.0 * parity) * (direct - exchange)


@jit
def _element(
    kind, bra_a, bra_b, ket_a, ket_b, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin
):  # fmt: skip
    """<bra|V|ket> if this pair of determinants belongs to this kind of task, else 0."""
    moved_a, moved_b = _distance(bra_a, ket_a), _distance(bra_b, ket_b)
    if kind == 0 and moved_a == 1 and moved_b == 1:
        p, q, sign_a = _single(bra_a, ket_a)
        r, s, sign_b = _single(bra_b, ket_b)
        value = coupling[pair_index(p, q), pair_index(r, s)]
        if p == s and q == r:
            value -= swap
        if twist.size:
            turned = twist[pair_index(p, q), pair_index(r, s)]
            value += turned if (p > q) == (r > s) else -turned
        return sign_a * sign_b * value
    if kind == 1 and moved_b == 0:
        if moved_a == 1:
            return _one_spin_single(bra_a, ket_a, bra_b, h1e_a, eri_aa, coupling, False, same_spin)
        if moved_a == 2 and same_spin:
            return _double(bra_a, ket_a, eri_aa)
    if kind == 2 and moved_a == 0:
        if moved_b == 1:
            return _one_spin_single(bra_b, ket_b, bra_a, h1e_b, eri_bb, coupling, True, same_spin)
        if moved_b == 2 and same_spin:
            return _double(bra_b, ket_b, eri_bb)
    return 0.0


@jit
def matrix_element(bra_a, bra_b, ket_a, ket_b, h1e, eri, coupling, swap, same_spin):
    """<bra|V|ket> of any two determinants with spin-free integrals, without the constant of the diagonal."""
    none = np.zeros((0, 0))
    return spin_matrix_element(bra_a, bra_b, ket_a, ket_b, h1e, h1e, eri, eri, coupling, swap, none, same_spin)


@jit
def spin_matrix_element(
    bra_a, bra_b, ket_a, ket_b, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin
):  # fmt: skip
    """<bra|V|ket> of any two determinants, without the constant of the diagonal."""
    if _distance(bra_a, ket_a) == 0 and _distance(bra_b, ket_b) == 0:
        alpha, beta = _occupied_of(bra_a), _occupied_of(bra_b)
        return _diagonal_element(alpha, beta, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, same_spin)
    total = 0.0
    for kind in range(3):
        total += _element(
            kind, bra_a, bra_b, ket_a, ket_b, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin
        )
    return total


@jit
def _occupied_of(words):
    out = np.empty(64 * words.shape[0], np.int64)
    return out[: differing_orbitals(words, np.zeros_like(words), out)]


@jit
def _apply(
    ket, sigma, kind, sector, bra_a, ket_a, bra_start, ket_start, bra_offset, bra_stop, ket_offset,
    bra_b, ket_b, bra_column_start, ket_column_start, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin,
):  # fmt: skip
    for x in range(bra_start.shape[0] - 1):
        for i in range(bra_start[x], bra_start[x + 1]):
            first = bra_column_start[x ^ sector]
            for j in range(first, first + bra_stop[i]):
                total = 0.0
                for x2 in range(ket_start.shape[0] - 1):
                    first2 = ket_column_start[x2 ^ sector]
                    for i2 in range(ket_start[x2], ket_start[x2 + 1]):
                        for j2 in range(first2, ket_column_start[(x2 ^ sector) + 1]):
                            element = _element(
                                kind, bra_a[i], bra_b[j], ket_a[i2], ket_b[j2], h1e_a, h1e_b, eri_aa, eri_bb,
                                coupling, swap, twist, same_spin,
                            )  # fmt: skip
                            if element != 0.0:
                                total += element * ket[ket_offset[i2] + j2 - first2]
                sigma[bra_offset[i] + j - first] += total


class ReferenceDensity:
    """One rank's share of the density matrices by brute force; see `density.DensityBlock`.

    Every pair of determinants is looked at, and every product of operators is applied to the ket's string, one operator
    at a time.
    """

    def __init__(
        self, bra_layout: Layout, ket_layout: Layout, place: tuple[int, int, int, int], norb: int, labels: Any, out: Any
    ):
        self.bra_layout, self.ket_layout, self.out = bra_layout, ket_layout, out
        self.ia, self.ib, it, ir = place
        _, _, t, r = bra_layout.grid
        self.part, self.n_parts = ir * t + it, t * r

    def shifts(self, beta_too: bool) -> list[tuple[int, int]]:
        """All shifts to a ket block."""
        a, b, _, _ = self.bra_layout.grid
        return [(da, db) for da in range(a) for db in range(b)]

    def add(self, da: int, db: int, bra: FloatArray, ket: FloatArray, beta_too: bool) -> None:
        """Add all terms between the own bra block and the ket block (ia + da, ib + db)."""
        layout, (a, b, _, _) = self.bra_layout, self.bra_layout.grid
        ja, jb = (self.ia + da) % a, (self.ib + db) % b
        bra_rows, bra_start = layout.ket_rows(self.ia)
        ket_rows, ket_start = layout.ket_rows(ja)
        bra_columns, bra_column_start = layout.beta_rows(self.ib)
        ket_columns, ket_column_start = layout.beta_rows(jb)
        empty = np.zeros((0, 0))
        _density(
            bra, ket, layout.sector, self.ket_layout.sector, self.part, self.n_parts,
            layout.alpha.strings[bra_rows], layout.alpha.strings[ket_rows], bra_start, ket_start,
            layout.ket_offsets(self.ia, self.ib), self.ket_layout.ket_offsets(ja, jb),
            layout.beta.strings[bra_columns], layout.beta.strings[ket_columns], bra_column_start, ket_column_start,
            self.out.norb, self.out.symmetric, self.out.one,
            np.zeros((2, 0, 0)) if self.out.same is None else self.out.same,
            empty if self.out.opposite is None else self.out.opposite,
        )  # fmt: skip

    def finish(self) -> None:
        """Complete `out`: nothing is left to do."""


def create_density_block(*arguments: Any) -> ReferenceDensity:
    """The share of rank (ia, ib, it, ir); arguments as of `ReferenceDensity`."""
    return ReferenceDensity(*arguments)


@jit
def _act(words, orbital, creates):
    """Apply a+ or a to a string in place; its sign, or 0 where the result vanishes."""
    if _occupied_in(words, orbital) == creates:
        return 0
    words[orbital >> 6] ^= np.uint64(1) << np.uint64(orbital & 63)
    return 1 - 2 * (occupied_between(words, -1, orbital) & 1)


@jit
def _one_body(bra, ket, p, q):
    """<bra| p+ q |ket>."""
    work = ket.copy()
    sign = _act(work, q, False)
    if sign:
        sign *= _act(work, p, True)
    return sign if np.array_equal(work, bra) else 0


@jit
def _two_body(bra, ket, p, q, r, s):
    """<bra| p+ q+ s r |ket>."""
    work = ket.copy()
    sign = _act(work, r, False)
    if sign:
        sign *= _act(work, s, False)
    if sign:
        sign *= _act(work, q, True)
    if sign:
        sign *= _act(work, p, True)
    return sign if np.array_equal(work, bra) else 0


@jit
def _one_spin_density(bra, ket, occupied, ket_occupied, value, symmetric, one, same):
    for p in occupied:
        for q in ket_occupied:
            if p >= q or not symmetric:
                one[p, q] += value * _one_body(bra, ket, p, q)
    if not same.size:
        return
    for p in occupied:
        for q in occupied[occupied < p]:
            for r in ket_occupied:
                for s in ket_occupied[ket_occupied < r]:
                    pq, rs = pair_index(p, q), pair_index(r, s)
                    if pq >= rs or not symmetric:
                        same[pq, rs] += value * _two_body(bra, ket, p, q, r, s)


@jit
def _opposite_density(bra_a, ket_a, bra_b, ket_b, value, norb, symmetric, out):
    for p in _occupied_of(bra_a):
        for q in _occupied_of(ket_a):
            left = _one_body(bra_a, ket_a, p, q)
            if left == 0 or (symmetric and p < q):
                continue
            row = pair_index(p, q) if symmetric else p * norb + q
            for r in _occupied_of(bra_b):
                for s in _occupied_of(ket_b):
                    out[row, r * norb + s] += value * left * _one_body(bra_b, ket_b, r, s)


@jit
def _density(
    bra, ket, bra_sector, ket_sector, part, n_parts, bra_a, ket_a, bra_start, ket_start, bra_offset, ket_offset,
    bra_b, ket_b, bra_column_start, ket_column_start, norb, symmetric, one, same, opposite,
):  # fmt: skip
    # Rows of the bra that this rank takes, with all rows of the ket.
    for x in range(bra_start.shape[0] - 1):
        for i in range(bra_start[x], bra_start[x + 1]):
            if i % n_parts != part:
                continue
            first = bra_column_start[x ^ bra_sector]
            for x2 in range(ket_start.shape[0] - 1):
                first2 = ket_column_start[x2 ^ ket_sector]
                for i2 in range(ket_start[x2], ket_start[x2 + 1]):
                    moved_a = _distance(bra_a[i], ket_a[i2])
                    if moved_a > 2:
                        continue

                    # Columns of both; two electrons may move in all.
                    for j in range(first, bra_column_start[(x ^ bra_sector) + 1]):
                        for j2 in range(first2, ket_column_start[(x2 ^ ket_sector) + 1]):
                            moved_b = _distance(bra_b[j], ket_b[j2])
                            if moved_a + moved_b > 2:
                                continue

                            # One spin moves and the other stays, or one electron of each moves.
                            value = bra[bra_offset[i] + j - first] * ket[ket_offset[i2] + j2 - first2]
                            if moved_b == 0:
                                occupied, ket_occupied = _occupied_of(bra_a[i]), _occupied_of(ket_a[i2])
                                _one_spin_density(
                                    bra_a[i], ket_a[i2], occupied, ket_occupied, value, symmetric, one[0], same[0]
                                )
                            if moved_a == 0:
                                occupied, ket_occupied = _occupied_of(bra_b[j]), _occupied_of(ket_b[j2])
                                _one_spin_density(
                                    bra_b[j], ket_b[j2], occupied, ket_occupied, value, symmetric, one[1], same[1]
                                )
                            if opposite.size and moved_a < 2 and moved_b < 2:
                                _opposite_density(
                                    bra_a[i], ket_a[i2], bra_b[j], ket_b[j2], value, norb, symmetric, opposite
                                )
