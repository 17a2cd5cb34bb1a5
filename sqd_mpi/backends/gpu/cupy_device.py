"""A GPU of NVIDIA or AMD, through CuPy: the only module that imports it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqd_mpi.backends.gpu import sources
from sqd_mpi.backends.gpu.device import DeviceArray, Limits, Stream, check_gemm
from sqd_mpi.options import InputError

INSTALL = "pip install 'sqd_mpi[cuda12]' or 'sqd_mpi[cuda13]' for NVIDIA, 'sqd_mpi[rocm]' for AMD with ROCm 7"
_DEFAULT_SHARED = 48 * 1024  # more has to be asked for, on NVIDIA


def device_count() -> int:
    """Number of GPUs that this process sees.

    Raises:
        InputError: there is none, or no CuPy.
    """
    try:
        import cupy
    except ImportError as error:
        raise InputError(f"the backend gpu needs CuPy ({INSTALL}); importing it says: {error}") from None
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise InputError(f"the backend gpu needs a GPU and its driver; CuPy says: {error}") from None
    if count == 0:
        raise InputError("the backend gpu needs a GPU; CuPy sees none")
    return count


class CupyKernel:
    """A kernel of a loaded module; see `device.Kernel`."""

    def __init__(self, device: CupyDevice, function: Any):
        self._device, self._function = device, function
        self._shared_bytes = _DEFAULT_SHARED

    def __call__(
        self, n_blocks: int, n_threads: int, arguments: Sequence[Any], shared_bytes: int = 0, stream: Stream = None
    ) -> None:
        if n_blocks == 0:
            return
        if shared_bytes > self._shared_bytes and self._device.kind == "cuda":
            self._function.max_dynamic_shared_size_bytes = shared_bytes
            self._shared_bytes = shared_bytes
        with self._device.on(stream):
            self._function((n_blocks,), (n_threads,), tuple(arguments), shared_mem=shared_bytes)


class CupyDevice:
    """A GPU; see `device.Device`.

    Args:
        number: of the device, among those that this process sees.
    """

    def __init__(self, number: int):
        import cupy

        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self._device = cupy.cuda.Device(number)
        self._device.use()
        properties = self._runtime.getDeviceProperties(number)
        self.kind = "hip" if self._runtime.is_hip else "cuda"
        self.name = properties["name"].decode()
        self.identity = f"{socket.gethostname()}:{self._runtime.deviceGetPCIBusId(number)}"
        shared = int(properties["sharedMemPerBlock"])
        self.limits = Limits(
            shared_bytes=max(shared, int(properties.get("sharedMemPerBlockOptin", 0)))
            if self.kind == "cuda"
            else shared,
            n_processors=int(properties["multiProcessorCount"]),
            threads=int(properties["maxThreadsPerBlock"]),
        )
        self.spare_bytes: int | None = None
        self._architecture = (
            properties["gcnArchName"].decode() if self.kind == "hip" else f"sm_{self._device.compute_capability}"
        )
        self._modules: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], CupyKernel] = {}

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """Inside, what CuPy starts goes to a stream."""
        with stream if stream is not None else self._cupy.cuda.Stream.null:
            yield

    def memory(self) -> tuple[int, int]:
        """Free and total bytes; what CuPy keeps for later counts as free."""
        free, total = self._runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes()), int(total)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> DeviceArray:
        """A new array of undefined content."""
        try:
            return self._cupy.empty(shape, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError:
            n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            free = self.memory()[0]
            raise MemoryError(f"the device needs {n_bytes / 1e9:.3g} GB more; {free / 1e9:.3g} GB are free") from None

    def zero(self, array: DeviceArray, stream: Stream = None) -> None:
        """Fill an array with zeros."""
        with self.on(stream):
            array.fill(0)

    def upload(self, host: NDArray[Any], stream: Stream = None) -> DeviceArray:
        """A new device array with the content of a host array."""
        host = np.asarray(host)
        array = self.empty(host.shape, host.dtype)
        self.copy_in(np.ascontiguousarray(host), array, stream)
        return array

    def download(self, array: DeviceArray, out: NDArray[Any] | None = None, stream: Stream = None) -> NDArray[Any]:
        """The content as a host array."""
        out = np.empty(array.shape, array.dtype) if out is None else out
        self.copy_out(array, out, stream)
        self.synchronize(stream if stream is not None else self._cupy.cuda.Stream.null)
        return out

    def copy_in(self, host: NDArray[Any], array: DeviceArray, stream: Stream = None) -> None:
        """Copy a C-contiguous host array into a device array."""
        self._copy(array.data.ptr, host.ctypes.data, array, host, self._runtime.memcpyHostToDevice, stream)

    def copy_out(self, array: DeviceArray, host: NDArray[Any], stream: Stream = None) -> None:
        """Copy a device array into a C-contiguous host array."""
        self._copy(host.ctypes.data, array.data.ptr, array, host, self._runtime.memcpyDeviceToHost, stream)

    def copy(self, source: DeviceArray, target: DeviceArray, stream: Stream = None) -> None:
        """Copy between device arrays."""
        self._copy(target.data.ptr, source.data.ptr, source, target, self._runtime.memcpyDeviceToDevice, stream)

    def _copy(self, target: int, source: int, first: Any, second: Any, direction: int, stream: Stream) -> None:
        if first.size != second.size or first.dtype != second.dtype or not second.flags.c_contiguous:
            raise ValueError(f"a copy between arrays of {first.size} {first.dtype} and {second.size} {second.dtype}")
        if first.nbytes > 0:
            pointer = stream.ptr if stream is not None else self._cupy.cuda.Stream.null.ptr
            self._runtime.memcpyAsync(target, source, first.nbytes, direction, pointer)

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """A host array in pinned memory."""
        count = int(np.prod(shape, dtype=np.int64))
        if count == 0:
            return np.empty(shape, dtype)
        memory = self._cupy.cuda.alloc_pinned_memory(count * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def message(self, array: DeviceArray) -> Any:
        """The array itself: mpi4py takes it."""
        return array

    def stream(self) -> Stream:
        """A new stream."""
        return self._cupy.cuda.Stream(non_blocking=True)

    def wait(self, stream: Stream, other: Stream) -> None:
        """What is put on `stream` from now on starts after what `other` holds now."""
        null = self._cupy.cuda.Stream.null
        event = (other if other is not None else null).record()
        (stream if stream is not None else null).wait_event(event)

    def synchronize(self, stream: Stream = None) -> None:
        """Wait until a stream, or the whole device, is through."""
        if stream is None:
            self._runtime.deviceSynchronize()
        else:
            stream.synchronize()

    def kernel(self, source_name: str, kernel_name: str) -> CupyKernel:
        """A kernel of a source file of this package."""
        key = source_name, kernel_name
        if key not in self._kernels:
            if source_name not in self._modules:
                path = compile_binary(sources.source(source_name), f"{source_name}.cu", self._architecture)
                self._modules[source_name] = self._cupy.RawModule(path=str(path))
            self._kernels[key] = CupyKernel(self, self._modules[source_name].get_function(kernel_name))
        return self._kernels[key]

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
        """c = alpha op(a) op(b) + beta c by cuBLAS or rocBLAS; see `device.Device.gemm`."""
        m, n, k, stack = check_gemm(a.shape, b.shape, c.shape, transpose_a, transpose_b, columns)
        if c.size == 0:
            return
        with self.on(stream):
            if k == 0:
                c *= beta if beta != 0.0 else 0.0
                if beta == 0.0:
                    c.fill(0)
                return
            blas = self._cupy.cuda.cublas
            handle = self._device.cublas_handle
            # The library counts columns first: it makes the transposed product, of the transposed factors.
            operation_a = blas.CUBLAS_OP_T if transpose_a else blas.CUBLAS_OP_N
            operation_b = blas.CUBLAS_OP_T if transpose_b else blas.CUBLAS_OP_N
            scalars = np.array([alpha, beta])
            one, two = scalars.ctypes.data, scalars.ctypes.data + 8
            first, second, out = b.data.ptr, a.data.ptr, c.data.ptr
            leading = b.shape[-1], a.shape[-1]
            if c.ndim == 2:
                blas.dgemm(
                    handle, operation_b, operation_a, n, m, k, one, first, leading[0], second, leading[1], two, out, n
                )
            else:
                blas.dgemmStridedBatched(
                    handle, operation_b, operation_a, n, m, k, one, first, leading[0], b.shape[-2] * b.shape[-1],
                    second, leading[1], m * k, two, out, n, m * n, stack,
                )  # fmt: skip


def compile_options(architecture: str) -> tuple[str, ...]:
    """Options of NVRTC or hipRTC for an architecture (sm_90, gfx90a)."""
    if architecture.startswith("gfx"):
        return f"--offload-arch={architecture}", "-std=c++17", "-O3"
    return f"--gpu-architecture={architecture}", "--std=c++17"


def compile_binary(text: str, name: str, architecture: str) -> Path:
    """Path of the binary made from a kernel source: one process of a node compiles, the others load.

    Raises:
        RuntimeError: the source does not compile; with what the compiler says.
    """
    options = compile_options(architecture)

    def build(path: Path) -> None:
        path.write_bytes(_compile(text, name, options))

    return sources.cached(".bin", (text, *options, *_compiler_version()), build)


def _compile(text: str, name: str, options: tuple[str, ...]) -> bytes:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, name, (), ())
    try:
        nvrtc.compileProgram(program, options)
        if not any("gfx" in option for option in options):
            return bytes(nvrtc.getCUBIN(program))
        # hipRTC's "PTX" is the whole binary, of which CuPy cuts the last byte as if it ended a text; it is zero.
        return bytes(nvrtc.getPTX(program)) + b"\0"
    except nvrtc.NVRTCError:
        raise RuntimeError(f"{name} does not compile:\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


@cache
def _compiler_version() -> tuple[str, ...]:
    from cupy.cuda import nvrtc

    return tuple(str(part) for part in nvrtc.getVersion())
