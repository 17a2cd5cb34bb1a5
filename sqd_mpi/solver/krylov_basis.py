"""Basis of the block Davidson method: what it spans, its Ritz vectors, and how it is expanded and restarted.

Known eigenvectors may be *locked*: the basis stays orthogonal to them, and they have no images. As they are
eigenvectors but for their residuals, what H has between them and the basis is next to nothing; it is measured all the
same, in the reductions that are made anyway, and is part of every residual norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import RunError
from sqd_mpi.solver.krylov_parts import Expansion, Locked, Operator, RitzRows

_DENOMINATOR_FLOOR = 1e-2  # hartree; smaller denominators of the preconditioner are moved to it
_DEPENDENT = 1e-12  # a new direction whose squared norm falls below this share is not used
_CANCELLED = 1e-2  # below this share of the squared norm left, orthogonalise once more
# Where less than this share of the squared norm of a preconditioned residual is new it is of no use: where the matrix
# is nearly diagonal, r / (E - d) is nearly -x. Of 7,755 in small molecules and lattices one was below.
_STALE = 1e-4
# Shares of the squared norm of a new direction that are left when it is purified: what was noise is dropped, and what
# was changed by less than that stays orthogonal enough.
_NOISE, _HARDLY_CHANGED = 0.5, 1.0 - 1e-6
_ROUGH = 1e-6  # hartree; norm of what a sigma in single precision is off by, until it is measured
_SEEN = 0.5  # share of an image in single precision that shows what such images are off by
_NOTHING_NEW = 1e-10  # norm of what is left of a normalised vector that is dependent on others


Stir = Callable[[Any, Any], float]


class KrylovBasis:
    """Basis V, images W = H V and the projected matrices V^T H V and V^T V.

    Args:
        operator: the operator.
        capacity: number of basis vectors and of images that there is room for.
        nroots: number of roots that are followed, beside the locked ones.
        locked: (n, size) known eigenvectors in host memory, of norm 1, or None.
    """

    def __init__(self, operator: Operator, capacity: int, nroots: int, locked: FloatArray | None = None):
        self.operator = operator
        self.basis: Any = operator.memory.empty((capacity, operator.size))
        self.images: Any = None  # until there are start vectors, so that there is room for what makes them
        self.matrix = np.zeros((capacity, capacity))
        self.overlap = np.zeros((capacity, capacity))
        self.locked = Locked(None if locked is None else operator.memory.from_host(locked), capacity)
        self.nroots, self.count, self.n_sigma, self.n_exact = nroots, 0, 0, 0
        # How much of every image was made in single precision, and what such an image is off by.
        self.roughness, self._unit = np.zeros(capacity), _ROUGH
        self.random = np.random.default_rng(1)
        self.ceilings: FloatArray = np.zeros(0)  # each eigenvalue is at most that element (a guide for a mean)
        nothing = np.zeros((0, 0))
        self.rows = RitzRows(nothing, nothing, nothing)
        self.expansion: Expansion  # from `expand` on
        self.locked_norms: FloatArray  # of parts of the residuals, (nroots,), likewise
        self.norms_beside_locked: FloatArray

    @property
    def capacity(self) -> int:
        """Number of basis vectors that there is room for."""
        return len(self.matrix)

    @property
    def _dimension(self) -> int:
        """Most vectors that can be independent of the locked ones and of each other."""
        return self.operator.dimension - self.locked.count

    def begin(self, start: Callable[[Any], int]) -> None:
        """Orthonormalise the start vectors and apply the operator to them."""
        n_locked = self.locked.count
        # The lowest eigenvalues but for n locked ones lie at most as high as those that follow the n lowest.
        self.ceilings = self.operator.lowest_diagonal(n_locked + self.nroots)[n_locked:]
        if n_locked:
            self.locked.overlap = self._reduced(self.operator.vectors.gram(self.locked.vectors, self.locked.vectors))
        n_start = start(self.basis)
        while True:
            n_start = self._orthonormalise_start(n_start)
            if n_start >= min(self.nroots, self._dimension):
                break
            for row in range(n_start, self.nroots):
                self.operator.memory.fill_random(self.random, self.basis[row])
                self.operator.purify(self.basis[row])
            n_start = self.nroots
        self.images = self.operator.memory.empty((self.capacity, self.operator.size))
        self._append(n_start)

    def _orthonormalise_start(self, count: int) -> int:
        """Make the first rows of the basis orthonormal and orthogonal to locked vectors; returns how many are left."""
        for _ in range(3):
            fresh = self.basis[:count]
            overlaps, products = self._inner_products(0, count)
            inside = np.linalg.solve(self.locked.overlap, overlaps.T).T
            left = products - inside @ overlaps.T
            transform = _orthonormal(left, _DEPENDENT)
            if not self.locked.count:
                self.operator.vectors.rotate(fresh, transform)
                return len(transform)
            self.operator.vectors.project_out(fresh, self.locked.vectors, inside, transform)
            count = len(transform)
            # What is left of a vector that was all but locked is full of rounding.
            if not count or np.linalg.eigvalsh(left).min() > _CANCELLED * np.diag(products).max():
                break
        return count

    def _inner_products(self, first: int, count: int) -> tuple[FloatArray, FloatArray]:
        """Overlaps of `count` rows from `first` on with the locked vectors and the rows before, (count, n_locked +
        first), and among themselves, in one reduction."""
        rows, vectors = self.basis[first : first + count], self.operator.vectors
        both = vectors.gram(rows, self.basis[: first + count])
        both = self._reduced(np.column_stack([self._with_locked(rows), both]))
        n_before = self.locked.count + first
        return both[:, :n_before], both[:, n_before:]

    def _with_locked(self, rows: Any) -> FloatArray:
        """Local part of the overlaps (m, n_locked) of vectors with the locked ones."""
        if not self.locked.count:
            return np.zeros((rows.shape[0], 0))
        return np.asarray(self.operator.vectors.gram(rows, self.locked.vectors))

    @property
    def _metric(self) -> FloatArray:
        """Overlaps of the locked vectors and the basis."""
        k, locked = self.count, self.locked
        if not locked.count:
            return self.overlap[:k, :k]
        cross = locked.with_basis[:k]
        return np.block([[locked.overlap, cross.T], [cross, self.overlap[:k, :k]]])

    def ritz(self, nroots: int) -> tuple[FloatArray, FloatArray]:
        """Lowest Ritz values and their coefficients (nroots, count), normalised in the metric of the overlap."""
        matrix, overlap = self.matrix[: self.count, : self.count], self.overlap[: self.count, : self.count]
        inverse = np.linalg.inv(np.linalg.cholesky(overlap))
        energies, columns = np.linalg.eigh(inverse @ matrix @ inverse.T)
        self.rows.every = np.ascontiguousarray((inverse.T @ columns).T)
        self.rows.previous, self.rows.current = self.rows.current, self.rows.every[:nroots]
        return energies[:nroots].copy(), self.rows.current

    def restart(self, nroots: int) -> tuple[FloatArray, FloatArray]:
        """Keep the Ritz vectors of the roots, then those of the step before, then Ritz vectors that lie higher."""
        # As many as there is room for. But where all but one direction stay, the one that goes may be the same each
        # time, and the next residual brings it back: where there is room three expansions are made before.
        most = max(min(3 * nroots, self.capacity - nroots), self.capacity - 3 * nroots)
        wanted = [self.rows.current, self._padded(self.rows.previous), self.rows.every[nroots:]]
        self._keep(np.concatenate(wanted), most)
        return self.ritz(nroots)

    def turn(self) -> FloatArray:
        """Make the basis consist of the lowest Ritz vectors, what those of the step before had beside them, and the
        rest of what it spans; returns the first two kinds."""
        k, n = self.count, len(self.rows.current)
        previous = self._padded(self.rows.previous)
        overlap = self.overlap[:k, :k].copy()
        kept = self._keep(np.concatenate([self.rows.every[:n], previous, self.rows.every[n:]]))
        into = overlap @ kept.T  # from coefficients in the old basis to those in the new one
        self.rows.previous, self.rows.current, self.rows.every = previous @ into, np.eye(n, k), self.rows.every @ into
        n_locked = self.locked.count
        with_locked, with_basis = self.expansion.overlaps[:, :n_locked], self.expansion.overlaps[:, n_locked:]
        self.expansion.overlaps = np.column_stack([with_locked, with_basis @ kept.T])
        return self.operator.memory.to_host(self.basis[: min(n + len(previous), k)])

    def give_up(self) -> FloatArray:
        """The Ritz vectors in host memory of their own; the basis and its images are released."""
        self.operator.vectors.rotate(self.basis[: self.count], self.rows.current)
        n_vectors = len(self.rows.current)
        del self.images
        self.locked.vectors = None
        return self.operator.memory.to_host(self.basis[:n_vectors], np.empty((n_vectors, self.operator.size)))

    def renew(self, which: NDArray[np.bool_], alone: bool = False) -> None:
        """Make the images of some of the Ritz vectors in double precision; what else the basis spans is kept as it is.

        What iterations add to the Ritz vectors from then on is small, and so are the errors of its images: as in the
        refinement of a solution of linear equations, all else may go on in single precision.

        Args:
            which: (nroots,) of which.
            alone: whether the nroots Ritz vectors alone are kept.
        """
        nroots = len(which)
        wanted = [self.rows.current, self._padded(self.rows.previous), self.rows.every[nroots:]]
        self._keep(np.concatenate(wanted), nroots if alone else self.capacity - 1)
        rows, vectors = np.flatnonzero(which[: self.count]).tolist(), self.operator.vectors
        spare, squares = self.images[self.count], np.zeros(self.count)
        for row in rows:
            self._purify_exactly(row)
            image = self.images[row]
            self.operator.memory.copy(image, spare)
            self.operator.exact(self.basis[row], image)
            vectors.project_out(spare[None], image[None], np.ones((1, 1)), np.ones((1, 1)))  # the difference
            squares[row] = vectors.dot(spare, spare)
        self.n_sigma, self.n_exact = self.n_sigma + len(rows), self.n_exact + len(rows)
        found = np.sqrt(self._reduced(squares)) / np.maximum(self.roughness[: self.count], _SEEN)
        self._unit = float(found.max(initial=0.0, where=self.roughness[: self.count] > _SEEN)) or self._unit
        self.roughness[rows] = 0.0
        count, self.count = self.count, 0
        self._take_in(count)

    def _purify_exactly(self, row: int) -> None:
        free = self.images[self.count :]
        self.operator.purify(self.basis[row], [free[k] for k in range(min(2, free.shape[0]))])

    def errors(self, coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How much of the images of Ritz vectors was made in single precision, and by what residual norms may be off.

        Args:
            coefficients: (m, count) of the Ritz vectors over the basis.

        Returns:
            (m,) shares; (m,) hartree.
        """
        shares = abs(coefficients) @ self.roughness[: coefficients.shape[1]]
        return shares, self._unit * shares

    def expand(self, energies: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Preconditioned residuals into the free rows of the basis; returns the norms of the residuals, (m,).

        Those of what they have of locked vectors and of the rest are `locked_norms` and `norms_beside_locked`.

        Args:
            energies: (m,) Ritz values, hartree.
            coefficients: (m, count) of the Ritz vectors over the basis.
        """
        k, m = self.count, len(energies)
        # A Ritz value above what its eigenvalue may be (from random vectors) draws to an eigenvector in the midst of
        # the spectrum, which may even converge; from a shift below, it sinks.
        ceilings = self.ceilings[:m]
        shifts = np.where(energies > ceilings, ceilings - _DENOMINATOR_FLOOR, energies)
        squares, corrections, overlaps, products = self.operator.vectors.residuals(
            self.basis[:k], self.images[:k], coefficients, energies, shifts, self.operator.diagonal(),
            _DENOMINATOR_FLOOR, self.basis[k : k + m],
        )  # fmt: skip
        with_locked, n_before = self._with_locked(self.basis[k : k + m]), self.locked.count + k
        packed = self._reduced(np.column_stack([squares, corrections, with_locked, overlaps, products]))
        self.expansion = Expansion(shifts, packed[:, 1], packed[:, 2 : 2 + n_before], packed[:, 2 + n_before :])
        self._measure_locked_part(energies, coefficients, packed[:, 0])
        return np.sqrt(packed[:, 0])

    def _measure_locked_part(self, energies: FloatArray, coefficients: FloatArray, squares: FloatArray) -> None:
        """Divide the squared norms (m,) of residuals into what they have of locked vectors and the rest."""
        locked, k = self.locked, self.count
        inner = coefficients @ locked.elements[:k] - energies[:, None] * (coefficients @ locked.with_basis[:k])
        part = np.einsum("ij,ji->i", inner, np.linalg.solve(locked.overlap, inner.T))
        self.locked_norms = np.sqrt(np.maximum(part, 0.0))
        self.norms_beside_locked = np.sqrt(np.maximum(squares - part, 0.0))

    def stir(self, change: Stir, aim: float) -> tuple[Stir | None, float]:
        """Let a function change the expansion vectors, see `davidson`.

        Returns:
            the function as long as it has not, else None; the residual norm down to which roots are followed.
        """
        k, m = self.count, len(self.expansion.products)
        sharper = change(self.basis[k : k + m], self.images[k])
        if np.isinf(sharper):
            return change, aim
        self.expansion.overlaps, self.expansion.products = self._inner_products(k, m)
        return None, min(aim, sharper)

    def accept(self, wanted: NDArray[np.bool_]) -> bool:
        """Take in those of the (m,) expansion vectors that are wanted; False if nothing new is left."""
        self._replace_stale(wanted)
        return self._accept(wanted)

    def _accept(self, wanted: NDArray[np.bool_]) -> bool:
        """Orthonormalise wanted vectors behind the basis against it and append them; False if nothing new is left."""
        k, m = self.count, len(wanted)
        overlaps, products = self.expansion.overlaps, self.expansion.products
        selection = np.eye(m)[wanted]
        fresh = self.basis[k : k + m]
        metric, n_locked = self._metric, self.locked.count
        for _ in range(3):
            inside = np.linalg.solve(metric, overlaps.T).T
            left = products - inside @ overlaps.T
            scale = np.diag(selection @ products @ selection.T)
            small = selection @ left @ selection.T
            transform = _orthonormal(small, _DEPENDENT * max(float(scale.max(initial=0.0)), 1e-300)) @ selection
            if not len(transform):
                return False
            if n_locked:
                self.operator.vectors.project_out(fresh, self.locked.vectors, inside[:, :n_locked], np.eye(m))
            self.operator.vectors.project_out(fresh, self.basis[:k], inside[:, n_locked:], transform)
            m, unchanged = self._purify(k, len(transform))
            if m == 0:
                return False
            fresh, selection = self.basis[k : k + m], np.eye(m)
            if unchanged and np.linalg.eigvalsh(small).min() > _CANCELLED * scale.max():
                break
            overlaps, products = self._inner_products(k, m)
        self._append(m)
        return True

    def _purify(self, first: int, count: int) -> tuple[int, bool]:
        """Take out of some new vectors of norm 1 what they should not have; returns how many are left, and whether they
        are still those that they were."""
        rows, free = self.basis[first : first + count], self.images[first:]
        scratch = [free[k] for k in range(min(2, free.shape[0]))]
        shares = np.array([self.operator.purify(rows[k], scratch, exact=False) for k in range(count)])
        kept = shares > _NOISE
        if not kept.all() and kept.any():
            self.operator.vectors.rotate(rows, np.eye(count)[kept])
        return int(kept.sum()), bool(shares.min(initial=1.0) > _HARDLY_CHANGED)

    def _replace_stale(self, wanted: NDArray[np.bool_]) -> None:
        """Take x / (E - d) for wanted expansion vectors that the basis all but holds.

        E. R. Davidson's direction and this one span that of J. Olsen et al., Chem. Phys. Lett. 169, 463 (1990), which
        leads on where H is nearly diagonal, too.
        """
        k, m = self.count, len(wanted)
        overlaps, squares = self.expansion.overlaps, np.diag(self.expansion.products)
        inside = np.linalg.solve(self._metric, overlaps.T).T
        new = squares - np.einsum("ij,ij->i", inside, overlaps)
        stale = np.flatnonzero(wanted & (new < _STALE * squares))
        if not len(stale):
            return
        vectors, basis = self.operator.vectors, self.basis[:k]
        for row in stale:  # "residuals" of the unit matrix and of energies 0
            here = slice(row, row + 1)
            vectors.residuals(
                basis, basis, np.ascontiguousarray(self.rows.current[here]), np.zeros(1), self.expansion.shifts[here],
                self.operator.diagonal(), _DENOMINATOR_FLOOR, self.basis[k + row : k + row + 1],
            )  # fmt: skip
        self.expansion.overlaps, self.expansion.products = self._inner_products(k, m)

    def accept_random(self) -> bool:
        """Take in a random direction where the preconditioner gave none (a diagonal matrix); False if none is left."""
        k = self.count
        if k >= self._dimension:
            return False
        self.operator.memory.fill_random(self.random, self.basis[k])
        self.operator.purify(self.basis[k])
        self.expansion.overlaps, self.expansion.products = self._inner_products(k, 1)
        return self._accept(np.ones(1, bool))

    def _append(self, n_new: int) -> None:
        """Apply the operator to the n_new rows behind the basis and take them in."""
        k, n = self.count, self.count + n_new
        for row in range(k, n):
            self.operator.matvec(self.basis[row], self.images[row])
            self.n_sigma += 1
        self.roughness[k:n] = float(self.operator.rough)
        self.n_exact += 0 if self.operator.rough else n_new
        self._take_in(n_new)

    def _take_in(self, n_new: int) -> None:
        """Take in the n_new rows behind the basis, whose images are there."""
        k, n = self.count, self.count + n_new
        vectors, fresh, rough = self.operator.vectors, slice(k, n), self.roughness[:n]
        products = [*vectors.grams(self.basis[fresh], self.images[fresh], self.basis[:n])]
        better = rough[:k].min(initial=1.0) < rough[fresh].max(initial=0.0)
        if better:
            products.append(vectors.gram(self.basis[fresh], self.images[:k]))
        products += [self._with_locked(each[fresh]) for each in (self.basis, self.images)]
        both = self._reduced(np.concatenate(products, axis=1))
        self._set(self.overlap, both[:, :n])
        elements = both[:, n : 2 * n]
        if better:
            elements[:, :k] = np.where(rough[:k] < rough[fresh, None], both[:, 2 * n : 2 * n + k], elements[:, :k])
        # Of two vectors the one with the better image gives the element: an error of it would count at first order.
        ahead = np.sign(rough[None, fresh] - rough[fresh, None])
        new = elements[:, k:]
        elements[:, k:] = new * (1.0 + ahead) / 2 + new.T * (1.0 - ahead) / 2
        self._set(self.matrix, elements)
        last = both[:, both.shape[1] - 2 * self.locked.count :]
        self.locked.with_basis[fresh], self.locked.elements[fresh] = np.split(last, 2, axis=1)
        self.count = n

    def _set(self, matrix: FloatArray, values: FloatArray) -> None:
        """Fill in the rows and columns of the last vectors, (n_new, n), of a symmetric matrix."""
        n = values.shape[1]
        k = n - len(values)
        matrix[k:n, :n] = values
        matrix[:n, k:n] = values.T
        matrix[k:n, k:n] = (values[:, k:] + values[:, k:].T) / 2

    def _keep(self, coefficients: FloatArray, most: int | None = None) -> FloatArray:
        """Replace the basis by the first `most` of some combinations of it, made orthonormal in order; dependent ones
        are left out.

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
            if norm > _NOTHING_NEW and len(rows) < (k if most is None else most):
                rows.append(row / norm)
        kept_rows = np.array(rows)
        self.operator.vectors.rotate(self.basis[:k], kept_rows)
        self.operator.vectors.rotate(self.images[:k], kept_rows)
        n = len(kept_rows)
        self.matrix[:n, :n] = kept_rows @ self.matrix[:k, :k] @ kept_rows.T
        self.overlap[:n, :n] = kept_rows @ self.overlap[:k, :k] @ kept_rows.T
        self.roughness[:n] = abs(kept_rows) @ self.roughness[:k]
        for with_locked in (self.locked.with_basis, self.locked.elements):
            with_locked[:n] = kept_rows @ with_locked[:k]
        self.count = n
        self.rows.previous = self.rows.current = np.zeros((0, 0))  # they belonged to the old basis
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
