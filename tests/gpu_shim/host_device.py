"""The host shim: the GPU's kernel sources compiled by g++ and run on the CPU, for tests.

Its arrays cannot be used as NumPy arrays by mistake, new memory is full of NaN, and arguments of kernels are checked
against what the kernels declare, which a real device does not do. Everything is done at once; `late_device` differs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import DTypeLike, NDArray

from sqd_mpi import _jit
from sqd_mpi.backends.gpu import sources
from sqd_mpi.backends.gpu.device import Limits, Stream, check_gemm
from sqd_mpi.errors import InputError

FLAGS = ("-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-fno-strict-aliasing", "-w")
EXTRA_FLAGS = "SQD_MPI_GPU_HOST_FLAGS"  # environment: more compiler flags, such as -fsanitize=address
_DTYPES = {
    "d": np.float64, "f": np.float32, "q": np.int64, "Q": np.uint64, "i": np.int32, "I": np.uint32, "h": np.int16,
    "H": np.uint16, "b": np.int8, "B": np.uint8,
}  # fmt: skip


LIMITS = Limits(64 * 1024, 4)  # the shared memory of an AMD compute unit


class HostArray:
    """An array of the host shim; no NumPy function takes it."""

    __array_ufunc__ = None
    __iter__ = None
    __slots__ = ("address", "dtype", "owner", "shape")

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: object):
        self.address, self.shape, self.dtype, self.owner = address, shape, dtype, owner

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.size * self.dtype.itemsize

    def reshape(self, *shape: Any) -> HostArray:
        """The same memory in another shape; one dimension may be -1."""
        wanted = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int | np.integer) else shape)
        if -1 in wanted:
            rest = int(np.prod([n for n in wanted if n != -1], dtype=np.int64))
            wanted[wanted.index(-1)] = self.size // max(rest, 1)
        if int(np.prod(wanted, dtype=np.int64)) != self.size:
            raise ValueError(f"an array of shape {self.shape} in the shape {tuple(shape)}")
        return HostArray(self.address, tuple(int(n) for n in wanted), self.dtype, self.owner)

    def __getitem__(self, key: int | slice) -> HostArray:
        """A contiguous part along the first dimension."""
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if isinstance(key, slice):
            start, stop, step = key.indices(self.shape[0])
            if step != 1:
                raise IndexError("a slice of a device array is contiguous here")
            shape = (max(stop - start, 0), *self.shape[1:])
            return HostArray(self.address + start * row_bytes, shape, self.dtype, self.owner)
        index = int(key) + (self.shape[0] if key < 0 else 0)
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"index {key} of a device array of shape {self.shape}")
        return HostArray(self.address + index * row_bytes, self.shape[1:], self.dtype, self.owner)

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError("an array of the device is not a NumPy array; download it")

    def __repr__(self) -> str:
        return f"HostArray(shape={self.shape}, dtype={self.dtype})"


class HostStream:
    """Orders nothing: everything on the host shim is done at once."""


Submit = Callable[[Callable[[], None], Stream, Sequence[Any], Sequence[NDArray[Any]]], None]
"""Takes something that a device is to do, the stream, the device arrays and the host arrays that it is done with."""


def do_at_once(
    action: Callable[[], None], stream: Stream, arrays: Sequence[Any], hosts: Sequence[NDArray[Any]]
) -> None:
    """What a host shim without streams does with everything."""
    action()


class HostKernel:
    """A compiled kernel; see `device.Kernel`."""

    def __init__(self, name: str, library: ctypes.CDLL, limits: Limits, reverse: bool, submit: Submit = do_at_once):
        self._name, self._limits, self._reverse, self._submit = name, limits, reverse, submit
        self._launch = getattr(library, f"sqd_launch_{name}")
        self._launch.restype = ctypes.c_int
        self._launch.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int]
        types = getattr(library, f"sqd_types_{name}")
        types.restype = ctypes.c_char_p
        self._parameters = _parameters(types().decode())

    def __call__(
        self, n_blocks: int, n_threads: int, arguments: Sequence[Any], shared_bytes: int = 0, stream: Stream = None
    ) -> None:
        if n_blocks == 0:
            return
        if not (0 < n_blocks < 2**31 and 0 < n_threads <= self._limits.threads):
            raise ValueError(f"{self._name}: {n_blocks} blocks of {n_threads} threads")
        if not 0 <= shared_bytes <= self._limits.shared_bytes:
            raise ValueError(f"{self._name}: {shared_bytes} bytes of shared memory, of {self._limits.shared_bytes}")
        if len(arguments) != len(self._parameters):
            raise TypeError(f"{self._name} takes {len(self._parameters)} arguments; got {len(arguments)}")
        values = [self._value(k, argument) for k, argument in enumerate(arguments)]

        def launch() -> None:
            pointers = (ctypes.c_void_p * max(len(values), 1))(*(value.ctypes.data for value in values))
            if self._launch(n_blocks, n_threads, shared_bytes, ctypes.addressof(pointers), int(self._reverse)) != 0:
                raise RuntimeError(f"{self._name}: some threads of a block ended while others wait at a barrier")

        self._submit(launch, stream, [each for each in arguments if isinstance(each, HostArray)], ())

    def _value(self, number: int, argument: Any) -> NDArray[Any]:
        """An argument in memory, with its type checked."""
        pointer, dtype = self._parameters[number]
        if isinstance(argument, HostArray) != pointer or getattr(argument, "dtype", None) != dtype:
            what = f"a device array of {dtype}" if pointer else f"a NumPy {dtype}"
            raise TypeError(f"{self._name}: argument {number} is {what}; got {argument!r}")
        return np.array(argument.address, np.uint64) if pointer else np.array(argument)


class HostDevice:
    """The CPU as a device; see `device.Device`.

    Args:
        reverse: run blocks and threads in the opposite order; results may not depend on it.
        memory_bytes: most bytes that arrays may take; by default what the machine has available.
        limits: a device with less shared memory may be asked for.
        flags: more compiler flags; by default from the environment (SQD_MPI_GPU_HOST_FLAGS).
    """

    def __init__(
        self,
        reverse: bool = False,
        memory_bytes: int | None = None,
        limits: Limits = LIMITS,
        flags: Sequence[str] | None = None,
    ):
        self.name, self.kind, self.identity, self.limits = "host shim", "host", f"host:{os.getpid()}", limits
        self.software = "g++"
        self.spare_bytes: int | None = None
        self._reverse, self._memory_bytes = reverse, memory_bytes
        self._flags = tuple(flags) if flags is not None else tuple(os.environ.get(EXTRA_FLAGS, "").split())
        self._allocated = 0
        self._kernels: dict[tuple[str, str], HostKernel] = {}

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        if self._memory_bytes is not None:
            return self._memory_bytes - self._allocated, self._memory_bytes
        found = psutil.virtual_memory()
        return int(found.available), int(found.total)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> HostArray:
        """A new array, full of NaN (or of -1)."""
        shape = (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(n) for n in shape)
        dtype = np.dtype(dtype)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if n_bytes > self.memory()[0]:
            raise MemoryError(f"the device needs {n_bytes / 1e9:.3g} GB more; {self.memory()[0] / 1e9:.3g} GB are free")
        library = self._library("host_memory", "")
        address = int(library.sqd_allocate(n_bytes))
        self._allocated += n_bytes
        array = _Memory()
        weakref.finalize(array, self._free, library, address, n_bytes)
        return HostArray(address, shape, dtype, array)

    def _free(self, library: ctypes.CDLL, address: int, n_bytes: int) -> None:
        library.sqd_free(address)
        self._allocated -= n_bytes

    def zero(self, array: HostArray, stream: Stream = None) -> None:
        """Fill an array with zeros."""
        where, n_bytes = array.address, array.nbytes
        self._submit(lambda: _fill(where, 0, n_bytes), stream, (array,), ())

    def upload(self, host: NDArray[Any], stream: Stream = None) -> HostArray:
        """A new device array with the content of a host array."""
        host = np.asarray(host)
        array = self.empty(host.shape, host.dtype)
        if stream is not None:
            self.wait(stream, None)
        whole = np.ascontiguousarray(host)
        self.copy_in(whole, array, stream)
        self._wait_for(stream)
        return array

    def download(self, array: HostArray, out: NDArray[Any] | None = None, stream: Stream = None) -> NDArray[Any]:
        """The content as a host array."""
        out = np.empty(array.shape, array.dtype) if out is None else out
        self.copy_out(array, out, stream)
        self._wait_for(stream)
        return out

    def copy_in(self, host: NDArray[Any], array: HostArray, stream: Stream = None) -> None:
        """Copy a C-contiguous host array into a device array."""
        _check_copy(host, array)
        target, source, n_bytes = array.address, host.ctypes.data, array.nbytes
        self._submit(lambda: _move(target, source, n_bytes), stream, (array,), (host,))

    def copy_out(self, array: HostArray, host: NDArray[Any], stream: Stream = None) -> None:
        """Copy a device array into a C-contiguous host array."""
        _check_copy(host, array)
        target, source, n_bytes = host.ctypes.data, array.address, array.nbytes
        self._submit(lambda: _move(target, source, n_bytes), stream, (array,), (host,))

    def copy(self, source: HostArray, target: HostArray, stream: Stream = None) -> None:
        """Copy between device arrays."""
        if source.size != target.size or source.dtype != target.dtype:
            raise ValueError(f"copy from {source!r} to {target!r}")
        if abs(source.address - target.address) < source.nbytes:
            raise ValueError("a copy between overlapping device arrays")
        to, place, n_bytes = target.address, source.address, source.nbytes
        self._submit(lambda: _move(to, place, n_bytes), stream, (source, target), ())

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """A host array."""
        return np.empty(shape, dtype)

    def message(self, array: HostArray) -> NDArray[Any]:
        """The memory of the array, which MPI reads and writes in place."""
        return _view(array)

    def stream(self) -> HostStream:
        """A new stream."""
        return HostStream()

    def wait(self, stream: Stream, other: Stream) -> None:
        """Nothing: all is done at once."""

    def synchronize(self, stream: Stream = None) -> None:
        """Nothing: all is done at once."""

    def _wait_for(self, stream: Stream) -> None:
        """Wait until a stream, or the default stream, is through."""

    def _submit(
        self, action: Callable[[], None], stream: Stream, arrays: Sequence[HostArray], hosts: Sequence[NDArray[Any]]
    ) -> None:
        """Do something; see `Submit`."""
        action()

    def kernel(self, source_name: str, kernel_name: str) -> HostKernel:
        """A kernel of a source file of this package."""
        key = source_name, kernel_name
        if key not in self._kernels:
            library = self._library(source_name, sources.source(source_name))
            self._kernels[key] = HostKernel(kernel_name, library, self.limits, self._reverse, self._submit)
        return self._kernels[key]

    def gemm(
        self,
        a: HostArray,
        b: HostArray,
        c: HostArray,
        alpha: float = 1.0,
        beta: float = 0.0,
        transpose_a: bool = False,
        transpose_b: bool = False,
        stream: Stream = None,
        columns: int | None = None,
    ) -> None:
        """c = alpha op(a) op(b) + beta c; see `device.Device.gemm`."""
        check_gemm(a.shape, b.shape, c.shape, transpose_a, transpose_b, columns)
        first, second, out = _view(a), _view(b), _view(c)
        first = first.swapaxes(-1, -2) if transpose_a else first
        second = second.swapaxes(-1, -2) if transpose_b else second

        def multiply() -> None:
            product = alpha * np.matmul(first, second[..., :columns])
            out[...] = product if beta == 0.0 else product + beta * out

        self._submit(multiply, stream, (a, b, c), ())

    def _library(self, name: str, text: str) -> ctypes.CDLL:
        return load_library(name, text, self._flags)


class _Memory:
    """Keeps an allocation alive."""


def load_library(name: str, text: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The shared library of kernels made from a source text, compiled if it is not in the cache."""
    return _load(str(compile_library(name, text, flags)))


@cache
def _load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.sqd_allocate.restype, library.sqd_allocate.argtypes = ctypes.c_void_p, [ctypes.c_int64]
    library.sqd_free.restype, library.sqd_free.argtypes = None, [ctypes.c_void_p]
    return library


@cache
def compile_library(name: str, text: str, flags: tuple[str, ...]) -> Path:
    """Path of the shared library made from a source text.

    Raises:
        InputError: there is no compiler.
        RuntimeError: the source does not compile; with what the compiler says.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise InputError("the host shim needs a C++ compiler: install g++ or name one in CXX")
    shim = Path(__file__).with_name("host_shim.h").read_text(encoding="utf-8")
    launchers = "".join(f"SQD_LAUNCHER({kernel})\n" for kernel in sources.kernel_names(text))
    whole = f'#line 1 "host_shim.h"\n{shim}\n#line 1 "prelude.h"\n{text}\n{launchers}'

    def build(path: Path) -> None:
        _jit.compilation_begins()
        program = path.with_suffix(".cpp")
        program.write_text(whole, encoding="utf-8")
        command = [compiler, *FLAGS, *flags, "-o", str(path), str(program)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            program.unlink(missing_ok=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name}.cu does not compile for the host shim:\n{done.stderr}")

    return sources.cached(".so", (whole, compiler, platform.machine(), *FLAGS, *flags), build)


def _parameters(types: str) -> list[tuple[bool, np.dtype[Any]]]:
    """For every parameter whether it is a pointer, and the type that it has or points to."""
    found, pointer = [], False
    for letter in types:
        if letter == "P":
            pointer = True
            continue
        if letter not in _DTYPES:
            raise TypeError("a kernel has a parameter of a type that the host shim does not know")
        found.append((pointer, np.dtype(_DTYPES[letter])))
        pointer = False
    return found


def _fill(address: int, byte: int, n_bytes: int) -> None:
    ctypes.memset(address, byte, n_bytes)


def _move(target: int, source: int, n_bytes: int) -> None:
    ctypes.memmove(target, source, n_bytes)


def _check_copy(host: NDArray[Any], array: HostArray) -> None:
    if not isinstance(array, HostArray) or not isinstance(host, np.ndarray):
        raise TypeError(f"a copy between a host array and a device array; got {type(host)} and {type(array)}")
    if host.size != array.size or host.dtype != array.dtype or not host.flags.c_contiguous:
        raise ValueError(f"a copy between {array!r} and a host array of shape {host.shape}, {host.dtype}")


def _view(array: HostArray) -> NDArray[Any]:
    """The memory of a device array; only for what the real device does itself."""
    if array.size == 0:
        return np.empty(array.shape, array.dtype)
    buffer = (ctypes.c_char * array.nbytes).from_address(array.address)
    return np.frombuffer(memoryview(buffer), array.dtype).reshape(array.shape)
