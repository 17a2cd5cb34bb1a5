"""Operations on the local parts of Krylov vectors, fused so that each pass streams every vector once.

Vectors are rows of C-contiguous (n_vectors, size) float64 arrays. Sums run over a fixed number of ranges that are
added in order, so they do not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import FloatArray

_RANGES = 128  # parts of a sum; fixed, so that results do not depend on threads
_CHUNK = 1024  # elements of every vector that stay in cache while all combinations are formed


def gram(first: FloatArray, second: FloatArray) -> FloatArray:
    """Local part of first second^T, (m, k), for (m, size) and (k, size)."""
    partial = np.zeros((_RANGES, first.shape[0], second.shape[0]))
    _gram(first, second, partial)
    return partial.sum(axis=0)


def grams(first: FloatArray, second: FloatArray, basis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Local parts of first basis^T and second basis^T, (m, k) each, for twice (m, size) and (k, size), in one pass."""
    partial = np.zeros((_RANGES, 2, first.shape[0], basis.shape[0]))
    _grams(first, second, basis, partial)
    total = partial.sum(axis=0)
    return total[0], total[1]


def dot(first: FloatArray, second: FloatArray) -> float:
    """Local part of the inner product of two vectors (size,)."""
    return float(gram(first[None, :], second[None, :])[0, 0])


def residuals(
    basis: FloatArray,
    images: FloatArray,
    coefficients: FloatArray,
    energies: FloatArray,
    shifts: FloatArray,
    diagonal: FloatArray,
    floor: float,
    out: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Preconditioned residuals of Ritz vectors, and all inner products that the next step needs, in one pass.

    r_i = sum_j c_ij (images_j - energy_i basis_j); out_i = r_i / (shift_i - diagonal), denominators of magnitude below
    `floor` moved to it.

    Args:
        basis: (k, size) V.
        images: (k, size) H V.
        coefficients: (m, k) of the Ritz vectors.
        energies: (m,) hartree.
        shifts: (m,) hartree.
        diagonal: (size,) of H, hartree.
        floor: least magnitude of a denominator, hartree.
        out: (m, size), filled.

    Returns:
        local parts of |r_i|^2 (m,), r_i . out_i (m,) (a second-order estimate of what the energy misses), out basis^T
        (m, k) and out out^T (m, m).
    """
    m, k = coefficients.shape
    partial = np.zeros((_RANGES, m, 2 + k + m))
    _residuals(basis, images, coefficients, energies, shifts, diagonal, floor, out, partial)
    total = partial.sum(axis=0)
    return total[:, 0].copy(), total[:, 1].copy(), total[:, 2 : 2 + k].copy(), total[:, 2 + k :].copy()


def project_out(vectors: FloatArray, basis: FloatArray, overlaps: FloatArray, transform: FloatArray) -> None:
    """vectors[:n] = transform (vectors - overlaps basis), in place.

    Args:
        vectors: (m, size).
        basis: (k, size).
        overlaps: (m, k).
        transform: (n, m) with n <= m.
    """
    _project_out(vectors, basis, np.ascontiguousarray(overlaps), transform)  # in one order, so that it is compiled once


def rotate(vectors: FloatArray, coefficients: FloatArray) -> None:
    """vectors[:n] = coefficients vectors[:k], in place, for coefficients (n, k) and vectors (m, size)."""
    _rotate(vectors, coefficients)


def scale_and_add(diagonal: FloatArray, vector: FloatArray, factor: float, out: FloatArray) -> None:
    """out = factor out + diagonal * vector, elementwise, (size,) each."""
    _scale_and_add(diagonal, vector, factor, out)


def add_scaled(vector: FloatArray, factor: float, out: FloatArray) -> None:
    """out += factor vector, (size,) each; the vector is overwritten."""
    vector *= factor
    out += vector


def finish_folded(diagonal: FloatArray, vector: FloatArray, line: NDArray[np.int64], out: FloatArray) -> None:
    """out = sqrt(2) out + diagonal * vector, (size,) each, without the factor on the mirror line, positions (n,)."""
    on_line = out[line]
    _scale_and_add(diagonal, vector, float(np.sqrt(2.0)), out)
    out[line] += (1.0 - np.sqrt(2.0)) * on_line


@jit
def _dot(first, second, start, stop):
    total = 0.0
    for e in range(start, stop):
        total += first[e] * second[e]
    return total


@parallel_jit
def _gram(first, second, partial):
    size = first.shape[1]
    for part in numba.prange(_RANGES):
        begin, end = size * part // _RANGES, size * (part + 1) // _RANGES
        for start in range(begin, end, _CHUNK):
            stop = min(start + _CHUNK, end)
            for i in range(first.shape[0]):
                for j in range(second.shape[0]):
                    partial[part, i, j] += _dot(first[i], second[j], start, stop)


@parallel_jit
def _grams(first, second, basis, partial):
    size = first.shape[1]
    for part in numba.prange(_RANGES):
        begin, end = size * part // _RANGES, size * (part + 1) // _RANGES
        for start in range(begin, end, _CHUNK):
            stop = min(start + _CHUNK, end)
            for j in range(basis.shape[0]):
                for i in range(first.shape[0]):
                    partial[part, 0, i, j] += _dot(first[i], basis[j], start, stop)
                    partial[part, 1, i, j] += _dot(second[i], basis[j], start, stop)


@parallel_jit
def _residuals(basis, images, coefficients, energies, shifts, diagonal, floor, out, partial):
    m, k = coefficients.shape
    size = basis.shape[1]
    for part in numba.prange(_RANGES):
        begin, end = size * part // _RANGES, size * (part + 1) // _RANGES
        for start in range(begin, end, _CHUNK):
            stop = min(start + _CHUNK, end)
            for i in range(m):
                # The residual of one Ritz vector.
                target = out[i]
                for e in range(start, stop):
                    target[e] = 0.0
                for j in range(k):
                    c, shifted = coefficients[i, j], coefficients[i, j] * energies[i]
                    image, vector = images[j], basis[j]
                    for e in range(start, stop):
                        target[e] += c * image[e] - shifted * vector[e]
                partial[part, i, 0] += _dot(target, target, start, stop)

                # Divided by the distance to the diagonal.
                correction = 0.0
                for e in range(start, stop):
                    denominator = shifts[i] - diagonal[e]
                    if abs(denominator) < floor:
                        denominator = floor if denominator >= 0.0 else -floor
                    residual = target[e]
                    target[e] = residual / denominator
                    correction += residual * target[e]
                partial[part, i, 1] += correction

                # Inner products with the basis, and with the others once all are made.
                for j in range(k):
                    partial[part, i, 2 + j] += _dot(target, basis[j], start, stop)
            for i in range(m):
                for j in range(m):
                    partial[part, i, 2 + k + j] += _dot(out[i], out[j], start, stop)


@parallel_jit
def _project_out(vectors, basis, overlaps, transform):
    m, k = overlaps.shape
    n = transform.shape[0]
    size = vectors.shape[1]
    for part in numba.prange(_RANGES):
        work = np.empty((m, _CHUNK))
        begin, end = size * part // _RANGES, size * (part + 1) // _RANGES
        for start in range(begin, end, _CHUNK):
            length = min(start + _CHUNK, end) - start
            for i in range(m):
                row = work[i]
                for e in range(length):
                    row[e] = vectors[i, start + e]
                for j in range(k):
                    c = overlaps[i, j]
                    for e in range(length):
                        row[e] -= c * basis[j, start + e]
            for i in range(n):
                for e in range(length):
                    vectors[i, start + e] = transform[i, 0] * work[0, e]
                for j in range(1, m):
                    c = transform[i, j]
                    for e in range(length):
                        vectors[i, start + e] += c * work[j, e]


@parallel_jit
def _rotate(vectors, coefficients):
    n, k = coefficients.shape
    size = vectors.shape[1]
    for part in numba.prange(_RANGES):
        work = np.empty((k, _CHUNK))
        begin, end = size * part // _RANGES, size * (part + 1) // _RANGES
        for start in range(begin, end, _CHUNK):
            length = min(start + _CHUNK, end) - start
            for j in range(k):
                for e in range(length):
                    work[j, e] = vectors[j, start + e]
            for i in range(n):
                for e in range(length):
                    vectors[i, start + e] = coefficients[i, 0] * work[0, e]
                for j in range(1, k):
                    c = coefficients[i, j]
                    for e in range(length):
                        vectors[i, start + e] += c * work[j, e]


@parallel_jit
def _scale_and_add(diagonal, vector, factor, out):
    for e in numba.prange(out.shape[0]):
        out[e] = factor * out[e] + diagonal[e] * vector[e]
