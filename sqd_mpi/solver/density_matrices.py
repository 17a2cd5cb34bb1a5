"""One- and two-particle density matrices of distributed eigenvectors, and between two of them, without gathering any.

In PySCF's conventions (McWeeney, Methods of Molecular Quantum Mechanics, eq. 5.4.20), for spins s and t:

    rdm1[p, q] = <q+_s p_s>,    rdm2[p, q, r, s] = <p+_s r+_t s_t q_s>,
    E = ecore + sum h[p, q] rdm1[q, p] + 1/2 sum (pq|rs) rdm2[p, q, r, s].

Every rank adds up products of coefficients of its own block and of the blocks that slide in, on the connections of the
strings, into small matrices over orbitals; one reduction adds those of all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sqd_mpi import planner
from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends import get_density_backend
from sqd_mpi.backends.cpu.density import Accumulators
from sqd_mpi.distribution.ket_exchange import KetExchange
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.distribution.whole_blocks import whole_block
from sqd_mpi.resources import available_memory
from sqd_mpi.solver.result import Root, SubspaceResult

# Largest share of the available memory that the matrices may take.
_MEMORY_SHARE = 0.8


@dataclass(frozen=True, eq=False)
class DensityMatrices:
    """Density matrices of one state, or between two."""

    alpha: FloatArray = field(repr=False)
    beta: FloatArray = field(repr=False)
    """(norb, norb) one-particle matrices, [p, q] = <q+ p>."""
    two_aa: FloatArray | None = field(repr=False, default=None)
    two_ab: FloatArray | None = field(repr=False, default=None)
    two_bb: FloatArray | None = field(repr=False, default=None)
    """(norb, norb, norb, norb), [p, q, r, s] = <p+ r+ s q> with the spin of p and q first, or None where only
    one-particle matrices were asked for."""

    def to_dict(self) -> dict[str, FloatArray]:
        """The matrices that there are, by name."""
        return {name: matrix for name, matrix in vars(self).items() if matrix is not None}

    @property
    def rdm1(self) -> FloatArray:
        """(norb, norb) summed over spin."""
        return self.alpha + self.beta

    @property
    def two_ba(self) -> FloatArray:
        """(norb, norb, norb, norb) with beta first: the transposed of `two_ab`."""
        return self._two()[1].transpose(2, 3, 0, 1)

    @property
    def rdm2(self) -> FloatArray:
        """(norb, norb, norb, norb) summed over both spins."""
        two_aa, two_ab, two_bb = self._two()
        total = two_aa + two_bb
        total += two_ab
        total += two_ab.transpose(2, 3, 0, 1)
        return total

    def _two(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self.two_aa is None or self.two_ab is None or self.two_bb is None:
            raise ValueError("two-particle density matrices need order = 2; these were made with order = 1")
        return self.two_aa, self.two_ab, self.two_bb


def density_matrices(result: SubspaceResult, root: int = 0, order: int = 2) -> DensityMatrices:
    """Density matrices of one root.

    Collective over the grid: all ranks ask for the same root and order; the matrices live on every rank.

    Args:
        result: what `solve_subspace` returned.
        root: which root.
        order: 1 for one-particle matrices only, 2 for both.

    Raises:
        InputError: the matrices do not fit the memory of a rank; the sentence says what is missing.
        ValueError: there is no such root or order.
    """
    return transition_density_matrices(result, root, root, order)


def transition_density_matrices(result: SubspaceResult, bra: int, ket: int, order: int = 2) -> DensityMatrices:
    """Density matrices between two roots, of any sectors and parities: [p, q] = <bra|q+ p|ket>.

    Collective over the grid: all ranks ask for the same roots and order; the matrices live on every rank. The sign of a
    root's vector, hence of a transition matrix, is arbitrary.

    Args:
        result: what `solve_subspace` returned.
        bra: number of the root on the left.
        ket: number of the one on the right.
        order: 1 for one-particle matrices only, 2 for both.

    Raises:
        InputError: the matrices do not fit the memory of a rank; the sentence says what is missing.
        ValueError: there is no such root or order.
    """
    for number in (bra, ket):
        if not 0 <= number < len(result.roots):
            raise ValueError(f"a root is one of 0 to {len(result.roots) - 1}; got {number}")
    norb = len(result.symmetry.labels)
    check_memory(result.grid.ranks, norb, order, symmetric=bra == ket)
    backend = get_density_backend(result.backend)
    return unpack(accumulate(result.grid, result.roots[bra], result.roots[ket], order, result.symmetry.both, backend))


def of_all_roots(result: SubspaceResult, order: int) -> list[DensityMatrices]:
    """Density matrices of all roots, on rank 0; an empty list elsewhere. Collective over the grid."""
    backend, labels = get_density_backend(result.backend), result.symmetry.both
    found = []
    for root in result.roots:
        sums = accumulate(result.grid, root, root, order, labels, backend)
        if result.grid.rank == 0:
            found.append(unpack(sums))
    return found


def rdm1s(result: SubspaceResult, root: int = 0) -> tuple[FloatArray, FloatArray]:
    """(alpha, beta) one-particle density matrices of one root, like PySCF's make_rdm1s. Collective over the grid."""
    found = density_matrices(result, root, order=1)
    return found.alpha, found.beta


def predict_bytes(norb: int, order: int, symmetric: bool = True) -> int:
    """Bytes per rank of the matrices: the packed sums, the unpacked results and what unpacking needs beside them."""
    return planner.matrix_bytes(norb, order, symmetric)


def check_memory(ranks: Ranks, norb: int, order: int, symmetric: bool = True) -> None:
    """Raise InputError on all ranks if the matrices do not fit the memory of any rank. Collective over `comm`."""
    if order not in (1, 2):
        raise ValueError(f"the order of density matrices is 1 or 2; got {order}")
    needed = predict_bytes(norb, order, symmetric)
    allowed = _MEMORY_SHARE * available_memory() / ranks.local()[1]
    message = None
    if needed > allowed:
        message = (
            f"density matrices of order {order} over {norb} orbitals need {needed / 2**30:.3g} GiB per rank; "
            f"{allowed / 2**30:.3g} GiB are available"
        )
    ranks.agree_on_error(message)


def accumulate(grid: ProcessGrid, bra: Root, ket: Root, order: int, labels: Any, backend: Any) -> Accumulators:
    """The packed sums over all ranks, on every rank. Collective over the grid.

    Args:
        grid: the process grid.
        bra: the root on the left.
        ket: the one on the right; the same object for the matrices of a state.
        order: 1 or 2.
        labels: (norb,) labels of the orbitals, or (2, norb) those of alpha and of beta.
        backend: module with `create_density_block`.
    """
    # Whole blocks of both vectors.
    here = grid.coordinates
    a, b, _, _ = grid.shape
    norb = labels.shape[-1]
    out = Accumulators.zeros(norb, order, symmetric=bra is ket)
    own_ket = _whole_block(grid, ket.layout, ket.vector)
    own_bra = own_ket if bra is ket else _whole_block(grid, bra.layout, bra.vector)
    block = backend.create_density_block(bra.layout, ket.layout, here, norb, labels, out)

    # Ket blocks slide in as in a sigma.
    mirrored = bra.layout.parity * ket.layout.parity
    beta_too = mirrored == 0  # C = +-C^T on both sides makes the beta matrices those of alpha
    shifts = {((here.ia + da) % a, (here.ib + db) % b): (da, db) for da, db in block.shifts(beta_too)}
    exchange = KetExchange(grid, list(shifts), ket.layout.block_sizes, own_ket)
    exchange.start()
    if (here.ia, here.ib) in shifts:
        block.add(0, 0, own_bra, own_ket, beta_too)
    for k, key in enumerate(exchange.remote):
        block.add(*shifts[key], own_bra, exchange.wait(k), beta_too)
        exchange.release(k)
    exchange.finish()
    exchange.free()

    # The sums of all ranks, and what symmetry leaves out.
    block.finish()
    grid.sum_over_all(out.flat)
    if mirrored:
        out.one[1] = mirrored * out.one[0]
        if out.same is not None:
            out.same[1] = mirrored * out.same[0]
    return out


def unpack(sums: Accumulators) -> DensityMatrices:
    """Density matrices in PySCF's index order from packed sums."""
    one = sums.one
    if sums.symmetric:
        one = np.tril(one) + np.tril(one, -1).transpose(0, 2, 1)
    alpha, beta = (np.ascontiguousarray(each.T) for each in one)
    if sums.same is None or sums.opposite is None:
        return DensityMatrices(alpha, beta)
    return DensityMatrices(alpha, beta, _same_spin(sums, 0), _opposite_spin(sums), _same_spin(sums, 1))


def natural_occupations(rdm1: FloatArray) -> FloatArray:
    """(norb,) eigenvalues of the spin-summed one-particle density matrix, descending; they add up to the electrons."""
    return np.linalg.eigvalsh(rdm1)[::-1].copy()


def orbital_entropies(found: DensityMatrices) -> FloatArray:
    """(norb,) von Neumann entropy of every orbital, -sum w ln w, natural logarithm.

    w are the probabilities to find the orbital empty, with one alpha, with one beta and with two electrons:
    1 - n_a - n_b + d, n_a - d, n_b - d and d, d = <n_a n_b> (Rissler, Noack and White, Chem. Phys. 323, 519 (2006)).
    """
    both = np.einsum("pppp->p", found._two()[1])
    n_alpha, n_beta = np.diag(found.alpha), np.diag(found.beta)
    weights = np.stack([1.0 - n_alpha - n_beta + both, n_alpha - both, n_beta - both, both])
    weights = np.clip(weights, 1e-300, 1.0)
    return -np.sum(weights * np.log(weights), axis=0)


def _whole_block(grid: ProcessGrid, layout: Layout, vector: FloatArray) -> FloatArray:
    """The own whole block; the vector itself where it is that."""
    return vector if grid.n_ranks == 1 and not layout.parity else whole_block(grid, layout, vector)


def _pairs(norb: int) -> np.ndarray:
    """(norb, norb) pair(p, q) for p >= q, symmetric."""
    orbitals = np.arange(norb)
    larger, smaller = np.maximum.outer(orbitals, orbitals), np.minimum.outer(orbitals, orbitals)
    return larger * (larger + 1) // 2 + smaller


def _same_spin(sums: Accumulators, spin: int) -> FloatArray:
    """[p, q, r, s] = <p+ r+ s q> from its antisymmetric packed form."""
    assert sums.same is not None
    packed = sums.same[spin]
    if sums.symmetric:
        packed = np.tril(packed) + np.tril(packed, -1).T
    pair = _pairs(sums.norb)
    sign = np.sign(np.subtract.outer(np.arange(sums.norb), np.arange(sums.norb))).astype(np.float64)
    full = packed[pair[:, None, :, None], pair[None, :, None, :]]  # pair(p, r), pair(q, s)
    full *= sign[:, None, :, None]
    full *= sign[None, :, None, :]
    return full


def _opposite_spin(sums: Accumulators) -> FloatArray:
    """[p, q, r, s] = <p+_a r+_b s_b q_a> from its packed form."""
    assert sums.opposite is not None
    norb = sums.norb
    if not sums.symmetric:
        return sums.opposite.reshape(norb, norb, norb, norb).copy()
    full = sums.opposite.reshape(-1, norb, norb)[_pairs(norb)]
    upper = np.triu_indices(norb, 1)
    full[upper] = full[upper].transpose(0, 2, 1)
    return full
