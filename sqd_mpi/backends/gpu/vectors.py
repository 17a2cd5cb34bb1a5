"""Operations on the local parts of Krylov vectors on a device: twin of `distribution.vectors`, the loops in vectors.cu.

Coefficients, energies and sums are small host arrays; everything of the length of a vector is on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.gpu.device import Device, DeviceArray

_MOST_PARTS = 1024  # ranges of a sum
_PART = 4096  # elements that a range has at least
_THREADS = 256
_FEW_THREADS = 32
_MOST_BLOCKS = 2**20  # of a kernel with a thread for every element, which then takes several
_SHARED_BYTES = 32 * 1024  # of a thread block that keeps columns there, where the device has them


@dataclass(frozen=True, eq=False)
class Line:
    """Positions in a vector, and room for as many elements."""

    positions: DeviceArray = field(repr=False)
    kept: DeviceArray = field(repr=False)


class DeviceVectors:
    """The functions of `distribution.vectors` for arrays of a device.

    Args:
        device: the device.
    """

    def __init__(self, device: Device):
        self.device = device

    def gram(self, first: DeviceArray, second: DeviceArray) -> FloatArray:
        """Local part of first second^T; see `distribution.vectors.gram`."""
        m, size = first.shape
        k = second.shape[0]
        if m * k * size == 0:
            return np.zeros((m, k))
        n_parts = _parts(size)
        n_threads = _threads(size)
        partial = self.device.empty((n_parts, m * k))
        n_tiles = -(-m // 4) * -(-k // 4)
        self._kernel("gram")(
            n_parts * n_tiles, n_threads,
            (first, second, partial, *(np.int64(n) for n in (m, k, size, n_parts))), 8 * n_threads,
        )  # fmt: skip
        return self._total(partial).reshape(m, k)

    def grams(self, first: DeviceArray, second: DeviceArray, basis: DeviceArray) -> tuple[FloatArray, FloatArray]:
        """Local parts of first basis^T and second basis^T; see `distribution.vectors.grams`."""
        return self.gram(first, basis), self.gram(second, basis)

    def dot(self, first: DeviceArray, second: DeviceArray) -> float:
        """Local part of the inner product of two vectors."""
        return float(self.gram(first.reshape(1, -1), second.reshape(1, -1))[0, 0])

    def residuals(
        self,
        basis: DeviceArray,
        images: DeviceArray,
        coefficients: FloatArray,
        energies: FloatArray,
        shifts: FloatArray,
        diagonal: DeviceArray,
        floor: float,
        out: DeviceArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Preconditioned residuals and their inner products; see `distribution.vectors.residuals`."""
        m, k = coefficients.shape
        size = basis.shape[1]
        if m * size == 0:
            return np.zeros(m), np.zeros(m), np.zeros((m, k)), np.zeros((m, m))
        n_threads = self._columns(k + 2)
        fused, n_threads = n_threads > 0, n_threads or _FEW_THREADS
        n_sums, n_parts = 2 + (k if fused else 0), _parts(size)
        partial = self.device.empty((n_parts, m * n_sums))
        self._kernel("residuals")(
            n_parts * m, n_threads,
            (
                basis, images, self._small(coefficients), self._small(energies), self._small(shifts), diagonal,
                np.float64(floor), out, partial, *(np.int64(n) for n in (m, k, size, n_parts)), np.int32(fused),
            ),
            8 * n_threads * n_sums,
        )  # fmt: skip
        sums = self._total(partial).reshape(m, n_sums)
        overlaps = sums[:, 2:].copy() if fused else self.gram(out, basis)
        return sums[:, 0].copy(), sums[:, 1].copy(), overlaps, self.gram(out, out)

    def project_out(
        self, vectors: DeviceArray, basis: DeviceArray, overlaps: FloatArray, transform: FloatArray
    ) -> None:
        """vectors[:n] = transform (vectors - overlaps basis), in place."""
        m, size = vectors.shape
        sizes = tuple(np.int64(n) for n in (len(transform), m, basis.shape[0], size))
        small = self._small(overlaps), self._small(transform)
        self._by_column("project_out", m, size, (vectors, basis, *small, *sizes))

    def rotate(self, vectors: DeviceArray, coefficients: FloatArray) -> None:
        """vectors[:n] = coefficients vectors[:k], in place."""
        (n, k), size = coefficients.shape, vectors.shape[1]
        arguments = (vectors, self._small(coefficients), *(np.int64(number) for number in (n, k, size)))
        self._by_column("rotate", k, size, arguments)

    def scale_and_add(self, diagonal: DeviceArray, vector: DeviceArray, factor: float, out: DeviceArray) -> None:
        """out = factor out + diagonal * vector, elementwise."""
        self._elements("scale_and_add", out.size, (diagonal, vector, np.float64(factor), out))

    def add_scaled(self, vector: DeviceArray, factor: float, out: DeviceArray) -> None:
        """out += factor vector."""
        self._elements("add_scaled", out.size, (vector, np.float64(factor), out))

    def finish_folded(self, diagonal: DeviceArray, vector: DeviceArray, line: Line, out: DeviceArray) -> None:
        """out = sqrt(2) out + diagonal * vector, but without the factor on the mirror line."""
        count = line.positions.size
        self._elements("keep_line", count, (out, line.positions, line.kept))
        self.scale_and_add(diagonal, vector, float(np.sqrt(2.0)), out)
        self._elements("add_line", count, (out, line.positions, line.kept, np.float64(1.0 - np.sqrt(2.0))))

    def line(self, positions: NDArray[np.int64]) -> Line:
        """Positions for `finish_folded`."""
        return Line(self.device.upload(positions.astype(np.int64)), self.device.empty(len(positions)))

    def _kernel(self, name: str) -> Any:
        return self.device.kernel("vectors", name)

    def _small(self, values: FloatArray) -> DeviceArray:
        return self.device.upload(np.ascontiguousarray(values, np.float64))

    def _elements(self, name: str, size: int, arguments: tuple[Any, ...]) -> None:
        """Launch a kernel with one thread for every element."""
        n_threads = _threads(size)
        self._kernel(name)(_blocks(size, n_threads), n_threads, (*arguments, np.int64(size)))

    def _by_column(self, name: str, height: int, size: int, arguments: tuple[Any, ...]) -> None:
        """Launch a kernel whose threads keep `height` doubles each in shared memory."""
        n_threads = min(self._columns(height), _threads(size))
        if n_threads == 0:
            raise ValueError(f"{height} vectors at a time are more than this device can combine")
        self._kernel(name)(_blocks(size, n_threads), n_threads, arguments, 8 * n_threads * height)

    def _columns(self, height: int) -> int:
        """Largest number of threads whose columns of doubles fit into shared memory; 0 if not even few do."""
        for limit in (min(_SHARED_BYTES, self.device.limits.shared_bytes), self.device.limits.shared_bytes):
            n_threads = _THREADS
            while n_threads >= _FEW_THREADS:
                if 8 * n_threads * height <= limit:
                    return n_threads
                n_threads //= 2
        return 0

    def _total(self, partial: DeviceArray) -> FloatArray:
        """(count,) sums over all ranges, on the host."""
        n_parts, count = partial.shape
        out = self.device.empty(count)
        n_threads = _FEW_THREADS if n_parts <= 64 else _THREADS
        self._kernel("add_parts")(count, n_threads, (partial, out, np.int64(count), np.int64(n_parts)), 8 * n_threads)
        return self.device.download(out)


def _parts(size: int) -> int:
    """Number of ranges of a sum, from the size alone."""
    return max(1, min(_MOST_PARTS, size // _PART))


def _blocks(size: int, n_threads: int) -> int:
    """Blocks of a kernel with a thread for every element."""
    return min(-(-size // n_threads), _MOST_BLOCKS)


def _threads(size: int) -> int:
    """Threads of a block, from the size alone: few for small vectors, such as those of tests."""
    return _THREADS if size > _PART else _FEW_THREADS
