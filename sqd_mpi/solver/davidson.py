"""Lowest eigenpairs of a symmetric operator by the block Davidson method with thick restart; knows no MPI.

E. R. Davidson, J. Comput. Phys. 17, 87 (1975). A restart keeps the Ritz vectors and those of the step before
(generalized Davidson + k: A. Stathopoulos, SIAM J. Sci. Comput. 29, 481 (2007)), so a small subspace converges almost
like an unrestricted one. The inner products of a step travel in two reductions: one with the residual norms, one with
the matrix elements of the new vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import RunError
from sqd_mpi.options import fewest_krylov_vectors

_DENOMINATOR_FLOOR = 1e-2  # hartree; smaller denominators of the preconditioner are moved to it
_DEPENDENT = 1e-12  # a new direction whose squared norm falls below this share is not used
_CANCELLED = 1e-2  # below this share of the squared norm left, orthogonalise once more
# Where less than this share of the squared norm of a preconditioned residual is new it is of no use: where the matrix
# is nearly diagonal, r / (E - d) is nearly -x. Of 7,755 in small molecules and lattices one was below.
_STALE = 1e-4
_NOTHING_NEW = 1e-10  # norm of what is left of a normalised vector that is dependent on others


class Operator(Protocol):
    """A symmetric operator on distributed vectors; what `davidson` needs."""

    memory: Any
    """Where vectors live (`distribution.memory`)."""
    vectors: Any
    """Functions on vectors there."""

    @property
    def size(self) -> int:
        """Number of elements on this rank."""

    @property
    def dimension(self) -> int:
        """Number of elements in all."""

    def matvec(self, vector: FloatArray, out: FloatArray) -> None:
        """out = H vector."""

    def diagonal(self) -> FloatArray:
        """Local part of the diagonal."""

    def lowest_diagonal(self, count: int) -> FloatArray:
        """(count,) lowest elements of the diagonal of all ranks, ascending, infinite where there are no more."""

    def sum_over_ranks(self, values: FloatArray) -> None:
        """Add small arrays over all ranks, in place."""


@dataclass(frozen=True)
class Step:
    """State of the solver at one iteration, given to the callback."""

    iteration: int
    """From 1."""
    subspace: int
    """Number of basis vectors."""
    energies: FloatArray
    """(nroots,) Ritz values, hartree."""
    residual_norms: FloatArray
    """(nroots,) 2-norms for normalised vectors, hartree."""
    corrections: FloatArray
    """(nroots,) hartree, second-order estimate sum r^2 / (E - d) of how much lower the roots will come."""
    first_order_norms: FloatArray
    """(nroots,) 2-norms of the first-order corrections r / (E - d) of the normalised Ritz vectors; the estimate above
    means something where they are small."""
    n_sigma: int
    """Matrix-vector products so far."""
    seconds: float
    """Since the start."""
    vectors: Callable[[], FloatArray] = field(repr=False)
    """Call it, on all ranks, to get in host memory the Ritz vectors and, behind these nroots rows, directions from
    which iterations that start anew go on like these; the iterations go on as if it had not been called."""


@dataclass(frozen=True)
class Eigenpairs:
    """Result of `davidson`."""

    energies: FloatArray
    """(nroots,) hartree, ascending."""
    vectors: FloatArray
    """(nroots, size) local parts of the normalised eigenvectors, in host memory."""
    residual_norms: FloatArray
    """(nroots,) hartree."""
    converged: NDArray[np.bool_]
    """(nroots,) bool."""
    n_iterations: int
    n_sigma: int
    """Counts."""
    stopped: bool
    """Whether the callback ended the iterations."""


def default_subspace(nroots: int) -> int:
    """Number of basis vectors kept by default; with their images and the diagonal 15 vectors for one root."""
    return max(7, 4 * nroots + 2)


def least_subspace(nroots: int) -> int:
    """Smallest number of basis vectors that works well: Ritz vectors, those of the step before, one expansion each."""
    return max(fewest_krylov_vectors(nroots), 3 * nroots)


def subspace_sizes(nroots: int, max_subspace: int | None = None) -> tuple[int, int]:
    """Numbers of basis vectors to try from the first down to the second: what is asked for, or default and least."""
    if max_subspace is not None:
        return max_subspace, max_subspace
    return default_subspace(nroots), least_subspace(nroots)


def davidson(
    operator: Operator,
    start: Callable[[Any], int],
    nroots: int = 1,
    tol: float = 1e-6,
    max_iterations: int = 100,
    max_subspace: int | None = None,
    callback: Callable[[Step], bool] | None = None,
) -> Eigenpairs:
    """Lowest eigenpairs of a symmetric operator.

    Collective over the ranks of the operator; all arguments must agree.

    Args:
        operator: matvec, diagonal, sums.
        start: fills the first rows of a (n, size) array of the operator's memory with linearly independent start
            vectors and returns how many (if fewer than nroots are independent, random ones are added).
        nroots: number of eigenpairs; at most the dimension.
        tol: residual 2-norm of a normalised vector at which a root is converged, hartree.
        max_iterations: iterations after which to give up.
        max_subspace: basis vectors kept, at least `least_subspace(nroots)`; default `default_subspace(nroots)`.
        callback: called once an iteration; returns True to stop.

    Returns:
        eigenpairs, converged or not.

    Raises:
        RunError: a vector holds a value that is not finite; the same on all ranks.
    """
    size = max_subspace if max_subspace is not None else default_subspace(nroots)
    subspace = _Subspace(operator, min(size, operator.dimension + nroots), nroots)
    began = perf_counter()
    subspace.begin(start)
    iteration, stopped = 0, False
    while True:
        iteration += 1
        energies, coefficients = subspace.ritz(nroots)
        if subspace.count + nroots > subspace.capacity:
            energies, coefficients = subspace.restart(nroots)
        norms = subspace.expand(energies, coefficients)
        converged = norms <= tol
        if callback is not None:
            step = Step(
                iteration, subspace.count, energies, norms, subspace.corrections, subspace.first_order_norms,
                subspace.n_sigma, perf_counter() - began, subspace.turn,
            )  # fmt: skip
            stopped = callback(step)
        if stopped or converged.all() or iteration >= max_iterations:
            break
        if not subspace.accept(~converged) and not subspace.accept_random():
            break
    return Eigenpairs(energies, subspace.give_up(), norms, converged, iteration, subspace.n_sigma, stopped)


class _Subspace:
    """Basis V, images W = H V and the projected matrices V^T H V and V^T V."""

    def __init__(self, operator: Operator, capacity: int, nroots: int):
        self.operator = operator
        self.memory = operator.memory
        self.nroots = nroots
        self.capacity = capacity
        self.basis: Any = self.memory.empty((capacity, operator.size))
        self.images: Any = self.memory.empty((capacity, operator.size))
        self.matrix = np.zeros((capacity, capacity))
        self.overlap = np.zeros((capacity, capacity))
        self.count = 0
        self.n_sigma = 0
        self.random = np.random.default_rng(1)
        self.previous: FloatArray = np.zeros((0, 0))  # Ritz coefficients of the iteration before
        self.current: FloatArray = np.zeros((0, 0))
        self.ceilings: FloatArray = np.zeros(0)  # each eigenvalue is at most that element (a guide for a mean)
        self.shifts: FloatArray = np.zeros(0)  # of the preconditioner
        self.ritz_rows: FloatArray = np.zeros((0, 0))  # coefficients of all Ritz vectors
        self.corrections: FloatArray = np.zeros(0)  # second-order estimates of what the Ritz values miss
        self.first_order_norms: FloatArray = np.zeros(0)
        self.overlaps: FloatArray = np.zeros((0, 0))  # of the expansion vectors with the basis
        self.products: FloatArray = np.zeros((0, 0))  # and among themselves

    def begin(self, start: Callable[[Any], int]) -> None:
        """Orthonormalise the start vectors and apply the operator to them."""
        self.ceilings = self.operator.lowest_diagonal(self.nroots)
        n_start = start(self.basis)
        while True:
            gram = self._reduced(self.operator.vectors.gram(self.basis[:n_start], self.basis[:n_start]))
            transform = _orthonormal(gram, _DEPENDENT)
            self.operator.vectors.rotate(self.basis[:n_start], transform)
            n_start = len(transform)
            if n_start >= min(self.nroots, self.operator.dimension):
                break
            for row in range(n_start, self.nroots):
                self.memory.fill_random(self.random, self.basis[row])
            n_start = self.nroots
        self._append(n_start)

    def ritz(self, nroots: int) -> tuple[FloatArray, FloatArray]:
        """Lowest Ritz values and their coefficients (nroots, count), normalised in the metric of the overlap."""
        matrix, overlap = self.matrix[: self.count, : self.count], self.overlap[: self.count, : self.count]
        inverse = np.linalg.inv(np.linalg.cholesky(overlap))
        energies, columns = np.linalg.eigh(inverse @ matrix @ inverse.T)
        self.ritz_rows = np.ascontiguousarray((inverse.T @ columns).T)
        self.previous, self.current = self.current, self.ritz_rows[:nroots]
        return energies[:nroots].copy(), self.current

    def restart(self, nroots: int) -> tuple[FloatArray, FloatArray]:
        """Keep the Ritz vectors and, where there is room, those of the step before."""
        kept = self.current
        room = self.capacity - 2 * nroots
        if len(self.previous) and room > 0:
            kept = np.concatenate([kept, self._padded(self.previous[:room])])
        self._keep(kept)
        return self.ritz(nroots)

    def turn(self) -> FloatArray:
        """Make the basis consist of the lowest Ritz vectors, what those of the step before had beside them, and the
        rest of what it spans; returns the first two kinds."""
        k, n = self.count, len(self.current)
        previous = self._padded(self.previous)
        overlap = self.overlap[:k, :k].copy()
        kept = self._keep(np.concatenate([self.ritz_rows[:n], previous, self.ritz_rows[n:]]))
        into = overlap @ kept.T  # from coefficients in the old basis to those in the new one
        self.previous, self.current, self.ritz_rows = previous @ into, np.eye(n, k), self.ritz_rows @ into
        self.overlaps = self.overlaps @ kept.T
        return self.memory.to_host(self.basis[: min(n + len(previous), k)])

    def give_up(self) -> FloatArray:
        """The Ritz vectors in host memory of their own; the basis and its images are released."""
        self.operator.vectors.rotate(self.basis[: self.count], self.current)
        n_vectors = len(self.current)
        del self.images
        return self.memory.to_host(self.basis[:n_vectors], np.empty((n_vectors, self.operator.size)))

    def expand(self, energies: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Preconditioned residuals into the free rows of the basis; returns the norms of the residuals."""
        k, m = self.count, len(energies)
        # A Ritz value above what its eigenvalue may be (from random vectors) draws to an eigenvector in the midst of
        # the spectrum, which may even converge; from a shift below, it sinks.
        ceilings = self.ceilings[:m]
        self.shifts = np.where(energies > ceilings, ceilings - _DENOMINATOR_FLOOR, energies)
        squares, corrections, overlaps, products = self.operator.vectors.residuals(
            self.basis[:k], self.images[:k], coefficients, energies, self.shifts, self.operator.diagonal(),
            _DENOMINATOR_FLOOR, self.basis[k : k + m],
        )  # fmt: skip
        packed = self._reduced(np.column_stack([squares, corrections, overlaps, products]))
        self.corrections, self.overlaps, self.products = packed[:, 1], packed[:, 2 : 2 + k], packed[:, 2 + k :]
        self.first_order_norms = np.sqrt(np.diag(self.products))
        return np.sqrt(packed[:, 0])

    def accept(self, wanted: NDArray[np.bool_]) -> bool:
        """Take in the wanted expansion vectors; False if nothing new is left."""
        self._replace_stale(wanted)
        return self._accept(wanted)

    def _accept(self, wanted: NDArray[np.bool_]) -> bool:
        """Orthonormalise wanted vectors behind the basis against it and append them; False if nothing new is left."""
        k, m = self.count, len(wanted)
        overlaps, products = self.overlaps, self.products
        selection = np.eye(m)[wanted]
        fresh = self.basis[k : k + m]
        metric = self.overlap[:k, :k]
        for _ in range(3):
            inside = np.linalg.solve(metric, overlaps.T).T
            left = products - inside @ overlaps.T
            scale = np.diag(selection @ products @ selection.T)
            small = selection @ left @ selection.T
            transform = _orthonormal(small, _DEPENDENT * max(float(scale.max(initial=0.0)), 1e-300)) @ selection
            if not len(transform):
                return False
            self.operator.vectors.project_out(fresh, self.basis[:k], inside, transform)
            m = len(transform)
            fresh, selection = self.basis[k : k + m], np.eye(m)
            if np.linalg.eigvalsh(small).min() > _CANCELLED * scale.max():
                break
            both = self._reduced(self.operator.vectors.gram(fresh, self.basis[: k + m]))
            overlaps, products = both[:, :k], both[:, k:]
        self._append(m)
        return True

    def _replace_stale(self, wanted: NDArray[np.bool_]) -> None:
        """Take x / (E - d) for wanted expansion vectors that the basis all but holds.

        E. R. Davidson's direction and this one span that of J. Olsen et al., Chem. Phys. Lett. 169, 463 (1990), which
        leads on where H is nearly diagonal, too.
        """
        k, m = self.count, len(wanted)
        inside = np.linalg.solve(self.overlap[:k, :k], self.overlaps.T).T
        new = np.diag(self.products) - np.einsum("ij,ij->i", inside, self.overlaps)
        stale = np.flatnonzero(wanted & (new < _STALE * np.diag(self.products)))
        if not len(stale):
            return
        vectors, basis = self.operator.vectors, self.basis[:k]
        for row in stale:  # "residuals" of the unit matrix and of energies 0
            here = slice(row, row + 1)
            vectors.residuals(
                basis, basis, np.ascontiguousarray(self.current[here]), np.zeros(1), self.shifts[here],
                self.operator.diagonal(), _DENOMINATOR_FLOOR, self.basis[k + row : k + row + 1],
            )  # fmt: skip
        both = self._reduced(vectors.gram(self.basis[k : k + m], self.basis[: k + m]))
        self.overlaps, self.products = both[:, :k], both[:, k:]

    def accept_random(self) -> bool:
        """Take in a random direction where the preconditioner gave none (a diagonal matrix); False if none is left."""
        k = self.count
        if k >= self.operator.dimension:
            return False
        self.memory.fill_random(self.random, self.basis[k])
        both = self._reduced(self.operator.vectors.gram(self.basis[k : k + 1], self.basis[: k + 1]))
        self.overlaps, self.products = both[:, :k], both[:, k:]
        return self._accept(np.ones(1, bool))

    def _append(self, n_new: int) -> None:
        """Apply the operator to the n_new rows behind the basis and take them in."""
        k, n = self.count, self.count + n_new
        for row in range(k, n):
            self.operator.matvec(self.basis[row], self.images[row])
            self.n_sigma += 1
        products = self.operator.vectors.gram(self.basis[k:n], self.basis[:n])
        elements = self.operator.vectors.gram(self.images[k:n], self.basis[:n])
        both = self._reduced(np.concatenate([products, elements], axis=1))
        for target, values in ((self.overlap, both[:, :n]), (self.matrix, both[:, n:])):
            target[k:n, :n] = values
            target[:n, k:n] = values.T
            target[k:n, k:n] = (values[:, k:] + values[:, k:].T) / 2
        self.count = n

    def _keep(self, coefficients: FloatArray) -> FloatArray:
        """Replace the basis by combinations of it, made orthonormal in order; dependent ones are left out.

        Returns:
            the combinations.
        """
        k = self.count
        overlap = self.overlap[:k, :k]
        rows: list[FloatArray] = []
        for row in coefficients:
            for _ in range(2):
                for kept in rows:
                    row = row - (kept @ overlap @ row) * kept
            norm = np.sqrt(row @ overlap @ row)
            if norm > _NOTHING_NEW and len(rows) < k:
                rows.append(row / norm)
        kept_rows = np.array(rows)
        self.operator.vectors.rotate(self.basis[:k], kept_rows)
        self.operator.vectors.rotate(self.images[:k], kept_rows)
        n = len(kept_rows)
        self.matrix[:n, :n] = kept_rows @ self.matrix[:k, :k] @ kept_rows.T
        self.overlap[:n, :n] = kept_rows @ self.overlap[:k, :k] @ kept_rows.T
        self.count = n
        self.previous = self.current = np.zeros((0, 0))  # they belonged to the old basis
        return kept_rows

    def _padded(self, coefficients: FloatArray) -> FloatArray:
        """Coefficients over the whole basis, from coefficients over its first vectors."""
        padded = np.zeros((len(coefficients), self.count))
        padded[:, : coefficients.shape[1]] = coefficients
        return padded

    def _reduced(self, values: FloatArray) -> FloatArray:
        packed = np.ascontiguousarray(values)
        self.operator.sum_over_ranks(packed)
        # The sums are the same on all ranks, and so is the error. A NaN anywhere in a vector comes out here.
        if not np.isfinite(packed).all():
            raise RunError(
                f"a vector of the eigensolver holds a value that is not finite (NaN or infinity) after {self.n_sigma} "
                "applications of the Hamiltonian: a fault of memory or of a kernel; the last checkpoint is not touched"
            )
        return packed


def _orthonormal(gram: FloatArray, smallest: float) -> FloatArray:
    """Rows that make vectors with this Gram matrix orthonormal; directions below `smallest` are left out."""
    values, columns = np.linalg.eigh(gram)
    used = values > max(smallest, _DEPENDENT * max(float(values.max(initial=0.0)), 0.0))
    return np.ascontiguousarray((columns[:, used] / np.sqrt(values[used])).T)
