"""What the GPU backend asks of a device: memory, copies, streams, kernels and matrix products, and nothing else.

A device is a GPU (`cupy_device.CupyDevice`) or, for tests, something that runs the same kernel sources on the CPU. A
process has one (`process_device`).

Of a device array this package uses `.shape .dtype .size .nbytes`, the contiguous slices `x[i:j]` and `x[i]`, and
`reshape`; everything else goes through the device. It is C-contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

DeviceArray = Any
Stream = Any


class Kernel(Protocol):
    """A kernel that can be launched."""

    def __call__(
        self, n_blocks: int, n_threads: int, arguments: Sequence[Any], shared_bytes: int = 0, stream: Stream = None
    ) -> None:
        """Launch blocks of threads, both in one dimension; 0 blocks do nothing.

        Args:
            arguments: device arrays, and NumPy scalars of exactly the types that the kernel declares.
            shared_bytes: dynamic shared memory of a block.
            stream: None for the default stream.
        """


@dataclass(frozen=True)
class Limits:
    """What a device can do."""

    shared_bytes: int
    """Largest shared memory of a block."""
    n_processors: int
    """Multiprocessors or compute units."""
    threads: int = 1024
    """Largest number of threads of a block."""


class Device(Protocol):
    """One device. Copies and kernels on one stream happen in order; without a stream, on the default stream.

    Memory belongs to the default stream: what becomes free is given out again before kernels there are through. What
    other streams do with a new array has to `wait` for the default stream, and the array has to outlive it.
    A failure of the device, also one of work started before, is a RunError of whatever is called next.
    """

    name: str
    """What people call it."""
    kind: str
    """One of "cuda", "hip" and, of what runs on the CPU, "host"."""
    software: str
    """Versions of driver and libraries."""
    identity: str
    """Names the physical device among all of the job; equal for ranks that share one."""
    limits: Limits
    """What it can do."""
    spare_bytes: int | None
    """Bytes that blocks may take for what is not necessary; None if nobody has said."""

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> DeviceArray:
        """A new array of undefined content.

        Raises:
            MemoryError: it does not fit; the sentence says how much was wanted and how much is free.
        """

    def zero(self, array: DeviceArray, stream: Stream = None) -> None:
        """Fill an array with zeros."""

    def upload(self, host: NDArray[Any], stream: Stream = None) -> DeviceArray:
        """A new device array with the content of a host array, which may change or go at once."""

    def download(self, array: DeviceArray, out: NDArray[Any] | None = None, stream: Stream = None) -> NDArray[Any]:
        """The content as a host array; complete on return."""

    def copy_in(self, host: NDArray[Any], array: DeviceArray, stream: Stream = None) -> None:
        """Copy a C-contiguous host array into a device array of equal size and type; pinned memory is not awaited."""

    def copy_out(self, array: DeviceArray, host: NDArray[Any], stream: Stream = None) -> None:
        """Copy a device array into a C-contiguous host array of equal size and type; complete once the stream is."""

    def copy(self, source: DeviceArray, target: DeviceArray, stream: Stream = None) -> None:
        """Copy between device arrays of equal size and type that do not overlap."""

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """A host array in pinned memory."""

    def message(self, array: DeviceArray) -> Any:
        """What an MPI library that knows devices is given for an array, without a copy."""

    def stream(self) -> Stream:
        """A new stream, which does not wait for the default stream."""

    def wait(self, stream: Stream, other: Stream) -> None:
        """What is put on `stream` from now on starts after what `other` holds now."""

    def synchronize(self, stream: Stream = None) -> None:
        """Wait until a stream, or without one the whole device, is through."""

    def kernel(self, source_name: str, kernel_name: str) -> Kernel:
        """A kernel of a source file of this package (`source_name`.cu), compiled when first wanted."""

    def gemm(
        self,
        a: DeviceArray,
        b: DeviceArray,
        c: DeviceArray,
        alpha: float = 1.0,
        beta: float = 0.0,
        transpose_a: bool = False,
        transpose_b: bool = False,
        stream: Stream = None,
        columns: int | None = None,
    ) -> None:
        """c = alpha op(a) op(b) + beta c for float64 matrices, or for stacks of equally many matrices.

        Args:
            a: (m, k), or (k, m) if transposed; b: (k, n), or (n, k); c: (m, n). Stacks have one dimension more in
                front.
            columns: only so many first columns of op(b) take part, and are the columns of c.
        """


def check_gemm(
    a: tuple[int, ...],
    b: tuple[int, ...],
    c: tuple[int, ...],
    transpose_a: bool,
    transpose_b: bool,
    columns: int | None = None,
) -> tuple[int, int, int, int]:
    """(m, n, k, size of the stack) of a matrix product of these shapes; see `Device.gemm`.

    Raises:
        ValueError: they do not fit.
    """
    rows, inner = a[:-3:-1] if transpose_a else a[-2:]
    inner_b, present = b[:-3:-1] if transpose_b else b[-2:]
    used = present if columns is None else columns
    stack = {shape[:-2] for shape in (a, b, c)}
    fits = inner == inner_b and c[-2:] == (rows, used) and 0 <= used <= present
    if not fits or len(stack) != 1 or len(c) not in (2, 3):
        raise ValueError(
            f"matrix product of shapes {a} and {b} into {c} (transposed: {transpose_a}, {transpose_b}; "
            f"columns: {columns})"
        )
    return rows, used, inner, int(np.prod(c[:-2]))
