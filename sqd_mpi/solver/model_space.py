"""Start vectors from a small model space: the determinants of lowest diagonal element, diagonalised exactly.

A start vector that already has the leading correlation saves iterations, tells sectors apart before a single sigma,
and finds open-shell states that one determinant cannot represent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import parallel_jit
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.reference import spin_integrals, spin_matrix_element, twist_of
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST, Array, Memory
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.excitations import n_moved
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction

# Diagonal elements closer than this (hartree) belong together: determinants that differ by flipped spins.
_TIE = 1e-9
_SMALL_MATRIX = 400
_CLEAN = 1e-8
_LEAST_DENOMINATOR = 0.3  # hartree
_SAME_SPIN, _FEW_FUNCTIONS = 1e-6, 30
IMPOSSIBLE = 1e4  # hartree, added to elements of determinants that cannot have the wanted spin
_TRACE = 0.03  # norm of what start vectors hold of other eigenvectors of the model space


@dataclass(frozen=True, eq=False)
class Penalty:
    """What is added to the Hamiltonian: strength V, or strength V^2."""

    interaction: Interaction
    """V."""
    strength: float
    """Factor, hartree."""
    squared: bool
    """Whether V is squared."""


@dataclass(frozen=True, eq=False)
class ModelSpace:
    """Lowest determinants of a sector, their eigenpairs, and where they lie in this rank's slice."""

    energies: FloatArray = field(repr=False)
    """(n_states,) lowest eigenvalues in hartree, ascending."""
    vectors: FloatArray = field(repr=False)
    """(n, n_states) their eigenvectors in columns."""
    mine: NDArray[np.int64] = field(repr=False)
    """(n,) int64, position in this rank's slice, -1 if another rank's."""
    diagonal: FloatArray = field(repr=False)
    """(n,) hartree, elements of the determinants."""
    edge: float = float("inf")
    """Lowest diagonal element (hartree) of the determinants outside; infinite if there is none."""
    clean: NDArray[np.bool_] | None = field(repr=False, default=None)
    """(n_states,) which eigenvectors the penalty does not touch, None for all."""
    n_independent: int = 0
    """Its dimension: determinants, or functions of one spin."""

    @classmethod
    def create(
        cls, grid: ProcessGrid, layout: Layout, diagonal: Array, hamiltonian: Hamiltonian, interaction: Interaction,
        size: int, n_states: int | None = None, penalty: Penalty | None = None, twice_spin: int | None = None,
        memory: Memory = HOST,
    ) -> ModelSpace:  # fmt: skip
        """Pick the `size` lowest determinants (fewer in a small space, whole sets of equal energy) and diagonalise.

        The same on every grid: ties are broken by the strings. Collective over the grid.

        Args:
            grid: the process grid.
            layout: of the sector.
            diagonal: this rank's slice of the diagonal, in the memory below.
            hamiltonian: integrals.
            interaction: what is diagonalised.
            size: number of determinants wanted.
            n_states: number of eigenpairs wanted; by default all.
            penalty: added to the interaction. If it is squared, it must not lead out of sets of determinants of equal
                diagonal element.
            twice_spin: 2 S of the only eigenvectors that are wanted, or None; S^2 must not lead out of the sector, and
                the diagonal must be the same for all determinants of a configuration. There may be none.
            memory: where the diagonal lies.
        """
        chosen, edge, mine, elements = _lowest_determinants(grid, layout, diagonal, size, memory)

        # Their matrix.
        alpha, beta = np.divmod(chosen, layout.beta.size)
        strings = (
            layout.alpha.strings[np.argsort(layout.alpha.canonical)][alpha],
            layout.beta.strings[np.argsort(layout.beta.canonical)][beta],
        )
        mirror = np.zeros(len(alpha), bool) if not layout.parity else alpha == beta
        matrix = _matrix(strings, hamiltonian, interaction, layout.parity, mirror)
        edge = edge if len(mine) < layout.dimension else np.inf
        if twice_spin is not None:
            square = _matrix(strings, hamiltonian, Interaction.spin_square(hamiltonian), layout.parity, mirror)
            able = n_open_shells(*strings) >= twice_spin
            return cls._of_one_spin(matrix, square, twice_spin, able, mine, elements, edge, n_states)

        # With a penalty.
        count = min(n_states or len(matrix), len(matrix))
        if penalty is not None:
            added = _matrix(strings, hamiltonian, penalty.interaction, layout.parity, mirror)
            if penalty.squared:
                added = added @ added
            matrix += penalty.strength * added

        # Its eigenpairs, and which of them have no part of other spins.
        elements = np.diag(matrix).copy()
        energies, vectors = _lowest_eigenpairs(matrix, count)
        clean = np.ones(len(energies), bool)
        if penalty is not None:
            clean = np.linalg.norm(added @ vectors, axis=0) < _CLEAN
        return cls(energies, vectors, mine, elements, edge, clean, len(matrix))

    @classmethod
    def _of_one_spin(
        cls, matrix: FloatArray, square: FloatArray, twice_spin: int, able: NDArray[np.bool_],
        mine: NDArray[np.int64], elements: FloatArray, edge: float, n_states: int | None,
    ) -> ModelSpace:  # fmt: skip
        """Eigenpairs of a matrix among the functions of one spin.

        Args:
            matrix: (n, n) of the chosen determinants.
            square: (n, n) S^2.
            twice_spin: 2 S.
            able: (n,) whether a determinant has enough open shells for the spin; the others have no part in it.
            mine: (n,) as the field.
            elements: (n,) of the diagonal, hartree.
            edge: as the field, all determinants of the sector counted.
            n_states: number of eigenpairs wanted, or None for all.
        """
        if not able.all() or edge > elements.min() + IMPOSSIBLE / 2:
            edge = np.inf  # those that are left out have no part in this spin

        # The functions of the spin; where a configuration had to be cut there may be none, then those that are nearest.
        values, functions = np.linalg.eigh(square[np.ix_(able, able)])
        distances = abs(values - twice_spin * (twice_spin + 2) / 4.0)
        chosen = distances < _SAME_SPIN
        if not chosen.any() and np.isfinite(edge):
            chosen = distances <= np.sort(distances)[:_FEW_FUNCTIONS][-1]
        functions = functions[:, chosen]

        count = functions.shape[1]
        projected = functions.T @ matrix[np.ix_(able, able)] @ functions
        energies, vectors = _lowest_eigenpairs(projected, n_states or count)
        return cls(energies, functions @ vectors, mine[able], elements[able], edge, n_independent=count)

    @property
    def complete(self) -> bool:
        """Whether it is the whole sector."""
        return bool(np.isinf(self.edge))

    def shares(self, grid: ProcessGrid, vectors: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What the model space holds of normalised vectors. Collective over the grid.

        Args:
            grid: the process grid.
            vectors: (n, size) slices of this rank, in host memory.

        Returns:
            (n,) weights outside of it; (n,) energies, hartree, of the eigenvectors that they are most like; (n,)
            diagonal elements, hartree, of their main determinants. Of several alike the highest.
        """
        local = self.mine >= 0
        inside = np.zeros((len(vectors), len(self.mine)))
        inside[:, local] = vectors[:, self.mine[local]]
        grid.sum_over_all(inside)
        outside = np.maximum(1.0 - (inside**2).sum(axis=1), 0.0)
        return outside, _of_the_main(inside @ self.vectors, self.energies), _of_the_main(inside, self.diagonal)

    def fill(self, out: Array, n_vectors: int, memory: Memory = HOST, first: int = 0) -> int:
        """Put start vectors into the first rows of `out` (rows, size); returns how many.

        They are eigenvectors with a trace of others of the wanted spin: iterations do not leave a symmetry that has no
        label, and the lowest state of the whole sector may have another one than that of the model space.

        Args:
            out: in the memory below.
            n_vectors: as many are filled, or as many as there are or have room.
            memory: where `out` lies.
            first: number of the first eigenvector, from the lowest.
        """
        last = min(first + min(n_vectors, out.shape[0]), len(self.energies))
        local = np.flatnonzero(self.mine >= 0)
        clean = np.ones(len(self.energies), bool) if self.clean is None else self.clean
        start, others = self.vectors[:, first:last], self.vectors[:, last:][:, clean[last:]]
        if not self.complete and others.shape[1]:
            amounts = np.random.default_rng(1).choice([-_TRACE, _TRACE], (others.shape[1], start.shape[1]))
            start = start + others @ amounts / np.sqrt(others.shape[1])
        for k in range(start.shape[1]):
            memory.put(self.mine[local], start[local, k], out[k])
        return start.shape[1]

    def add_mixture(self, out: FloatArray, energy: float, seed: int, first: int = 0) -> None:
        """Add a random mixture of eigenvectors to this rank's slice, the weight of each 1 / (its energy - `energy`).

        Args:
            out: (size,) in host memory.
            energy: hartree, about that of the states that are sought.
            seed: another one gives another mixture.
            first: number of the first eigenvector that is used, from the lowest.
        """
        local = np.flatnonzero(self.mine >= 0)
        amounts = np.random.default_rng(seed).normal(size=max(len(self.energies) - first, 0))
        amounts /= np.maximum(self.energies[first:] - energy, _LEAST_DENOMINATOR)
        if len(amounts):
            out[self.mine[local]] += self.vectors[local, first:] @ (amounts / np.linalg.norm(amounts))


def _lowest_determinants(
    grid: ProcessGrid, layout: Layout, diagonal: Array, size: int, memory: Memory
) -> tuple[NDArray[np.int64], float, NDArray[np.int64], FloatArray]:
    """Codes of the lowest determinants of all ranks and the edge, as `_choose`; where they lie in this rank's slice;
    and their elements of the diagonal.
    """
    where = layout.geometry(*grid.coordinates)
    flat, elements = memory.smallest(diagonal, 2 * size)
    rows, columns = where.locate(flat)
    code = layout.alpha.canonical[where.alpha[rows]] * layout.beta.size + layout.beta.canonical[where.beta[columns]]
    everybody = grid.gather_everywhere(np.column_stack([elements, code.astype(np.float64)]))
    chosen, edge, elements = _choose(everybody, size)
    position = {int(key): int(place) for key, place in zip(code, flat, strict=True)}
    return chosen, edge, np.array([position.get(int(key), -1) for key in chosen], np.int64), elements


def n_open_shells(alpha: NDArray[np.uint64], beta: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n,) orbitals with one electron in determinants of the given strings, (n, n_words) uint64 each."""
    bits = np.unpackbits((alpha ^ beta).view(np.uint8), axis=1)
    return np.asarray(bits.sum(axis=1, dtype=np.int64))


def _of_the_main(amounts: FloatArray, values: FloatArray) -> FloatArray:
    """For every row of amounts the highest value among those with at least half of the largest weight."""
    weights = amounts**2
    main = weights >= 0.5 * weights.max(axis=1, initial=0.0)[:, None]
    return np.where(main, values, -np.inf).max(axis=1, initial=-np.inf)


def _lowest_eigenpairs(matrix: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """The `count` lowest eigenvalues and their eigenvectors in columns."""
    count = min(count, len(matrix))
    if len(matrix) <= _SMALL_MATRIX:  # importing SciPy would take longer
        energies, vectors = np.linalg.eigh(matrix)
        return energies[:count], vectors[:, :count]
    import scipy.linalg

    energies, vectors = scipy.linalg.eigh(matrix, subset_by_index=(0, count - 1))
    return energies, vectors


def _matrix(
    strings: tuple[NDArray[np.uint64], NDArray[np.uint64]], hamiltonian: Hamiltonian, interaction: Interaction,
    parity: int, mirror: NDArray[np.bool_],
) -> FloatArray:  # fmt: skip
    """(n, n) matrix of an interaction between determinants (alpha and beta strings of each)."""
    matrix = np.empty((len(mirror), len(mirror)))
    _fill_matrix(
        *strings, *spin_integrals(hamiltonian), interaction.coupling, interaction.swap, twist_of(interaction),
        interaction.same_spin, interaction.constant, parity, mirror, matrix,
    )  # fmt: skip
    return matrix


def _choose(candidates: FloatArray, size: int) -> tuple[NDArray[np.int64], float, FloatArray]:
    """Codes of the lowest candidates (value, code), a value that none of those that are left out lies below, and the
    values of those that were chosen.

    Ties at the end are taken whole or, past twice the size, not.
    """
    order = np.lexsort((candidates[:, 1], candidates[:, 0]))
    values, codes = candidates[order, 0], candidates[order, 1].astype(np.int64)
    if len(values) <= size:
        return codes, float(values[-1]), values
    stop = int(np.searchsorted(values, values[size - 1] + _TIE, side="right"))
    if stop > 2 * size:
        first = int(np.searchsorted(values, values[size - 1] - _TIE))
        stop = first if first >= size // 2 and first > 0 else size
    return codes[:stop], float(values[min(stop, len(values) - 1)]), values[:stop]


@parallel_jit
def _fill_matrix(
    alpha, beta, h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin, constant, parity, on_line, matrix
):  # fmt: skip
    """Matrix between determinants or, with parity, between (|IJ> + parity |JI>) / sqrt(2), and |II> itself."""
    half = np.sqrt(0.5)
    n = alpha.shape[0]
    for pair in numba.prange((n + 1) // 2):  # a short row and a long one make equal pieces of work
        for side in range(2):
            i = np.int64(pair) if side == 0 else n - 1 - np.int64(pair)
            if side == 1 and 2 * i == n - 1:
                continue
            for j in range(i + 1):
                # As they are.
                element = 0.0
                if n_moved(alpha[i], alpha[j]) + n_moved(beta[i], beta[j]) <= 2:
                    element = spin_matrix_element(
                        alpha[i], beta[i], alpha[j], beta[j],
                        h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin,
                    )  # fmt: skip

                # With the mirror image of one of them.
                if parity != 0:
                    if n_moved(alpha[i], beta[j]) + n_moved(beta[i], alpha[j]) <= 2:
                        element += parity * spin_matrix_element(
                            alpha[i], beta[i], beta[j], alpha[j],
                            h1e_a, h1e_b, eri_aa, eri_bb, coupling, swap, twist, same_spin,
                        )  # fmt: skip
                    element *= (half if on_line[i] else 1.0) * (half if on_line[j] else 1.0)
                matrix[i, j] = element + (constant if i == j else 0.0)

    for i in range(n):
        for j in range(i):
            matrix[j, i] = matrix[i, j]
