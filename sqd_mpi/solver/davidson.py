"""Lowest eigenpairs of a symmetric operator by the block Davidson method with thick restart; knows no MPI.

E. R. Davidson, J. Comput. Phys. 17, 87 (1975). A restart keeps the Ritz vectors, those of the step before (generalized
Davidson + k: A. Stathopoulos, SIAM J. Sci. Comput. 29, 481 (2007)) and, where there is room, higher Ritz vectors (thick
restart: A. Stathopoulos, Y. Saad, K. Wu, SIAM J. Sci. Comput. 19, 227 (1998)), so a small subspace converges almost
like an unrestricted one. The inner products of a step travel in two reductions: one with the residual norms, one with
the matrix elements of the new vectors.

Where the operator works in single precision, images of the Ritz vectors are made anew in double precision once they
have converged as far as that goes. What iterations add from there on is small, so that what its images are off by does
not count: the outcome is that of double precision for one more sigma a root.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.options import fewest_krylov_vectors
from sqd_mpi.solver.krylov_basis import KrylovBasis
from sqd_mpi.solver.krylov_parts import Operator

# In single precision a root is followed until its residual norm is so many times what that may be off by.
_CERTAIN = 3.0
# Energies count as those of double precision where a smaller share of the image of the Ritz vector is not.
_SMALL_SHARE = 1e-2
_PATIENCE, _PROGRESS = 8, 0.7  # iterations in which the largest residual norm should fall to that
# What is left of a residual beside locked vectors hardly sinks where what they have of it is as large.
_STALLED = 2.0


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
    vectors: Callable[[], Sequence[FloatArray]] = field(repr=False)
    """Call it, on all ranks, to get in host memory the Ritz vectors and, behind these nroots ones, directions from
    which iterations that start anew go on like these; the iterations go on as if it had not been called."""

    def behind(self, known: Eigenpairs) -> Step:
        """The same with known eigenpairs before the roots that are iterated; nothing is left to correct of them."""
        zeros = np.zeros(len(known.energies))
        return replace(
            self,
            energies=np.append(known.energies, self.energies),
            residual_norms=np.append(known.residual_norms, self.residual_norms),
            corrections=np.append(zeros, self.corrections),
            first_order_norms=np.append(zeros, self.first_order_norms),
            vectors=lambda: [*known.vectors, *self.vectors()],
        )


@dataclass(frozen=True)
class Eigenpairs:
    """Result of `davidson`."""

    energies: FloatArray
    """(nroots,) hartree, ascending; but see `behind`."""
    vectors: FloatArray
    """(nroots, size) local parts of the normalised eigenvectors, in host memory."""
    residual_norms: FloatArray
    """(nroots,) hartree."""
    converged: NDArray[np.bool_]
    """(nroots,) bool; beside locked vectors whether the residual is that small but for what it has of these, or cannot
    become so."""
    n_iterations: int
    n_sigma: int
    n_exact: int
    """Counts: of iterations, of applications of the operator, and of those in double precision."""
    stopped: bool
    """Whether the callback ended the iterations."""

    def behind(self, known: Eigenpairs) -> Eigenpairs:
        """The same with known eigenpairs before them, in this order."""
        return replace(
            self,
            energies=np.append(known.energies, self.energies),
            vectors=np.concatenate([known.vectors, self.vectors]),
            residual_norms=np.append(known.residual_norms, self.residual_norms),
            converged=np.append(known.converged, self.converged),
        )

    def taken(self, order: NDArray[np.int64]) -> Eigenpairs:
        """The same in another order."""
        if np.array_equal(order, np.arange(len(order))):
            return self
        names = "energies", "vectors", "residual_norms", "converged"
        return replace(self, **{name: getattr(self, name)[order] for name in names})


def default_subspace(nroots: int) -> int:
    """Number of basis vectors kept by default; with their images, the diagonal and a known root 10 for one root."""
    return 4 if nroots == 1 else 4 * nroots + 2


def enough_vectors(nroots: int) -> int:
    """Number of basis vectors from which on more are hardly of use: Ritz vectors, those of the step before, a higher
    one, and expansions."""
    return 3 * nroots + 1


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
    locked: FloatArray | None = None,
    stir: Callable[[Any, Any], float] | None = None,
) -> Eigenpairs:
    """Lowest eigenpairs of a symmetric operator, or of what is left of it beside some known eigenvectors.

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
        locked: (n, size) known eigenvectors of norm 1, in host memory; the roots that are sought are orthogonal to
            them, and no operator is applied to them.
        stir: called after the callback with the (nroots, size) vectors that are about to expand the subspace, and one
            more as scratch; infinite as long as it leaves them as they are. Once it has changed them it is not called
            any more, and the roots are followed down to the residual norm that it returns if that is below `tol`.

    Returns:
        eigenpairs, converged or not. Residual norms are those of the operator, which may stay above `tol` where locked
        vectors are known to no more than that.

    Raises:
        RunError: a vector holds a value that is not finite; the same on all ranks.
    """
    size = max_subspace if max_subspace is not None else default_subspace(nroots)
    basis = KrylovBasis(operator, min(size, operator.dimension + nroots), nroots, locked)
    began = perf_counter()
    basis.begin(start)
    iteration, stopped, patience, aim = 0, False, _Patience(), tol
    while True:
        iteration, settling = min(iteration + 1, max_iterations), iteration == max_iterations
        energies, coefficients = basis.ritz(nroots)
        if basis.count + nroots > basis.capacity:
            energies, coefficients = basis.restart(nroots)
        norms = basis.expand(energies, coefficients)
        if callback is not None and not settling:
            stopped = callback(_step(iteration, basis, energies, norms, perf_counter() - began))
        if stir is not None and not settling and not stopped:
            stir, aim = basis.stir(stir, aim)
        shares, errors = basis.errors(coefficients)
        reached = basis.norms_beside_locked <= np.maximum(aim, _STALLED * basis.locked_norms)
        converged = reached | (basis.norms_beside_locked <= _CERTAIN * errors)
        unsure = (shares > _SMALL_SHARE) | (_CERTAIN * errors > aim)
        if stopped or (not unsure.any() and (converged.all() or iteration >= max_iterations)):
            break
        worst = float((basis.norms_beside_locked / np.maximum(aim, _CERTAIN * errors)).max())
        if unsure.any() and (converged.all() or iteration >= max_iterations or patience.ends(worst)):
            basis.renew(unsure, alone=iteration >= max_iterations)
        elif not basis.accept(~converged) and not basis.accept_random():
            if not unsure.any():
                break
            basis.renew(unsure, alone=True)
    converged = (basis.norms_beside_locked <= np.maximum(tol, _STALLED * basis.locked_norms)) & (shares <= _SMALL_SHARE)
    return Eigenpairs(energies, basis.give_up(), norms, converged, iteration, basis.n_sigma, basis.n_exact, stopped)


def _step(iteration: int, basis: KrylovBasis, energies: FloatArray, norms: FloatArray, seconds: float) -> Step:
    """What the callback is told."""
    return Step(
        iteration, basis.count, energies, norms, basis.expansion.corrections, basis.expansion.first_order_norms,
        basis.n_sigma, seconds, lambda: list(basis.turn()),
    )  # fmt: skip


class _Patience:
    """Whether iterations in single precision still come on."""

    def __init__(self) -> None:
        self._best, self._since = np.inf, 0

    def ends(self, worst: float) -> bool:
        """Whether the worst of the roots has not come on for long; told once an iteration."""
        self._since += 1
        if worst < _PROGRESS * self._best:
            self._best, self._since = worst, 0
        if self._since < _PATIENCE:
            return False
        self._best, self._since = np.inf, 0
        return True
