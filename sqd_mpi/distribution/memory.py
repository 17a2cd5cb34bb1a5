"""Where vectors, ket blocks and partial sums live, and what can be done with them there.

The operator and the eigensolver name arrays of a memory but never look into them: they ask for sums, copies and
messages here. In host memory an array is a NumPy array, every message is the array itself, and nothing is ever copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.distribution import vectors
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.mirror import Unfolding
from sqd_mpi.errors import InputError

_CHUNK = 1 << 20  # elements that are looked at together for the smallest ones

Array = Any  # of some memory: has shape, size, nbytes, and views of consecutive rows by indexing


class Port(Protocol):
    """How messages reach arrays of a memory."""

    def sending(self, array: Array) -> Any:
        """What MPI sends for an array: its elements, complete. Valid until the next use of the port."""

    def receiving(self, array: Array) -> Any:
        """Where MPI puts what is for an array; the same place as `sending` for an array of the whole port."""

    def received(self, array: Array) -> None:
        """What came is now to be found in the array."""


class Arrivals(Protocol):
    """Ket blocks on their way from messages to the kernels."""

    buffers: Any
    """What a `KetExchange` receives into: `empty(n, dtype)` and `message(array)`."""

    def bring(self, block: Any) -> Array:
        """The array of the memory that holds a block which has arrived; kernels are started with it, then `release`."""

    def release(self) -> None:
        """Return when the place where the last block had arrived may be overwritten."""


class Memory(Protocol):
    """The memory of a backend.

    Arrays of vectors are (size,) or (n_vectors, size), blocks and buffers (size,), all of one type; positions (m,)
    int64.
    """

    dtype: Any
    """Of the elements: float64 where vectors live; float32 is for blocks and sums of a sigma in single precision."""
    single: Memory | None
    """The same memory with float32, or None where sigma has no kernels for it."""

    device: str | None
    """Name of the device for people; None in host memory."""
    identity: str | None
    """Names the device among all of a job, equal on ranks that share it; None in host memory."""
    kind: str
    """What messages that are sent from its arrays in place are sent from: "host", "cuda" or "hip"."""
    vectors: Any
    """Functions on vectors, as in `distribution.vectors`."""

    def empty(self, shape: int | tuple[int, ...]) -> Array:
        """A C-contiguous array with any elements."""

    def zero(self, array: Array) -> None:
        """Set all elements to zero."""

    def copy(self, source: Array, out: Array) -> None:
        """out = source, both of this memory; rounded, where they have elements of different types."""

    def to_host(self, array: Array, out: FloatArray | None = None) -> FloatArray:
        """The elements in host memory: in `out`, or in the array itself where it already lies there."""

    def from_host(self, host: FloatArray, out: Array | None = None) -> Array:
        """Elements of a host array in this memory: in `out`, or the host array itself where that will do."""

    def filling(self, array: Array) -> Any:
        """A context that gives a host array whose elements are those of the array when it ends."""

    def fill_random(self, generator: np.random.Generator, out: Array) -> None:
        """Normally distributed numbers, the same in every memory."""

    def smallest(self, array: Array, count: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Positions (count,) and values of the smallest elements, in any order; of all where there are fewer."""

    def put(self, positions: NDArray[np.int64], values: FloatArray, out: Array) -> None:
        """out[positions] = values, and 0 elsewhere."""

    def indices(self, positions: NDArray[np.int64]) -> Any:
        """A list of positions for `vectors.finish_folded`."""

    def unfolding(self, layout: Layout, ia: int, ib: int) -> Any:
        """The `mirror.Unfolding` of arrays of this memory."""

    def port(self, size: int, host: FloatArray | None = None) -> Port:
        """For arrays of up to `size` elements; messages go through a given host array where they need one."""

    def image_of(self, host: FloatArray) -> Array:
        """An array of this memory for the elements of a host array that others read: the host array if it will do."""

    def arrivals(self, capacity: int) -> Arrivals:
        """For ket blocks of up to `capacity` elements."""

    def finish(self) -> None:
        """Return when all kernels that were started are through."""

    def limit(self, n_sharing: int) -> int | None:
        """Bytes that each of several ranks may take of a device; None in host memory."""

    def reserve(self, n_bytes: int) -> None:
        """Hear how many bytes the vectors and buffers of this rank will take: blocks leave them alone."""


class _HostPort:
    """Messages are sent from the arrays themselves, and arrive there."""

    def sending(self, array: FloatArray) -> FloatArray:
        return array

    def receiving(self, array: FloatArray) -> FloatArray:
        return array

    def received(self, array: FloatArray) -> None:
        """It is there already."""


class HostBuffers:
    """Buffers for messages in pageable host memory."""

    def __init__(self, dtype: Any = np.float64) -> None:
        self._dtype = dtype

    def empty(self, size: int, dtype: Any = None) -> NDArray[Any]:
        """A buffer, by default of the type of elements that these are for."""
        return np.empty(size, dtype or self._dtype)

    def message(self, array: NDArray[Any]) -> NDArray[Any]:
        """What MPI is given for a buffer or a part of it."""
        return array


class _HostArrivals:
    """Kernels read blocks where they arrive."""

    def __init__(self, dtype: Any) -> None:
        self.buffers: Any = HostBuffers(dtype)

    def bring(self, block: FloatArray) -> FloatArray:
        """The block itself."""
        return block

    def release(self) -> None:
        """Kernels return when they are done."""


def smallest(values: FloatArray, count: int) -> NDArray[np.int64]:
    """Positions (count,) of the smallest values (n,), in one pass over chunks; of all where there are fewer."""
    if len(values) <= count:
        return np.arange(len(values), dtype=np.int64)
    kept = np.empty(0, np.int64)
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        below = np.arange(len(chunk)) if len(kept) < count else np.flatnonzero(chunk < values[kept].max())
        kept = np.concatenate([kept, below + start])
        if len(kept) > count:
            kept = kept[np.argpartition(values[kept], count)[:count]]
    return kept


class HostMemory(Memory):
    """NumPy arrays; methods are documented at `Memory`. There are two, `HOST` and its `single`."""

    device: str | None = None
    identity: str | None = None
    kind = "host"
    vectors: Any = vectors

    def __init__(self, dtype: Any = np.float64, single: HostMemory | None = None) -> None:
        self.dtype, self.single = dtype, single

    def empty(self, shape: int | tuple[int, ...]) -> FloatArray:
        return np.empty(shape, self.dtype)

    def zero(self, array: FloatArray) -> None:
        array[:] = 0.0

    def copy(self, source: FloatArray, out: FloatArray) -> None:
        out[:] = source

    def to_host(self, array: FloatArray, out: FloatArray | None = None) -> FloatArray:
        if out is None:
            return array
        out[:] = array
        return out

    def from_host(self, host: FloatArray, out: FloatArray | None = None) -> FloatArray:
        return self.to_host(host, out)

    @contextmanager
    def filling(self, array: FloatArray) -> Iterator[FloatArray]:
        yield array

    def fill_random(self, generator: np.random.Generator, out: FloatArray) -> None:
        out[:] = generator.normal(size=out.shape)

    def smallest(self, array: FloatArray, count: int) -> tuple[NDArray[np.int64], FloatArray]:
        positions = smallest(array, count)
        return positions, array[positions]

    def put(self, positions: NDArray[np.int64], values: FloatArray, out: FloatArray) -> None:
        out[:] = 0.0
        out[positions] = values

    def indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return positions

    def unfolding(self, layout: Layout, ia: int, ib: int) -> Unfolding:
        return Unfolding(layout, ia, ib)

    def port(self, size: int, host: FloatArray | None = None) -> Port:
        return _HostPort()

    def image_of(self, host: FloatArray) -> FloatArray:
        return host

    def arrivals(self, capacity: int) -> Arrivals:
        return _HostArrivals(self.dtype)

    def finish(self) -> None:
        """Kernels return when they are done."""

    def limit(self, n_sharing: int) -> None:
        return None

    def reserve(self, n_bytes: int) -> None:
        pass


HOST = HostMemory(np.float64, HostMemory(np.float32))


def host_memory(direct: bool) -> HostMemory:
    """`HOST`, for backends without a device.

    Raises:
        InputError: messages are to go from a device.
    """
    if direct:
        raise InputError("--gpu-aware-mpi needs vectors on a GPU (--backend gpu); this run has them in host memory")
    return HOST
