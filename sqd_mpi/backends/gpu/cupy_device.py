"""A GPU of NVIDIA or AMD, through CuPy: the only module that imports it."""

from __future__ import annotations

import ctypes
import importlib.util
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqd_mpi import _jit
from sqd_mpi.backends.gpu import sources
from sqd_mpi.backends.gpu.device import DeviceArray, Limits, Stream, check_gemm
from sqd_mpi.errors import InputError, RunError

F = TypeVar("F", bound=Callable[..., Any])

INSTALL = "pip install 'sqd_mpi[cuda12]' or 'sqd_mpi[cuda13]' for NVIDIA, 'sqd_mpi[rocm]' for AMD with ROCm 7"
_DEFAULT_SHARED = 48 * 1024  # more has to be asked for, on NVIDIA
_MOST_BLOCKS = 2**31  # of a launch
_MOST_THREADS = 2**32  # of a launch, on AMD
_MOST_STACKED = 32768  # matrices in one call of BLAS; some libraries count them in 16 bits


def device_count() -> int:
    """Number of GPUs that this process sees.

    Raises:
        InputError: there is none, or no CuPy.
    """
    try:
        import cupy
    except ImportError as error:
        raise InputError(f"the backend gpu needs CuPy ({INSTALL}); importing it says: {_line(error)}") from None
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise InputError(f"the backend gpu needs a GPU and its driver; CuPy says: {error}") from None
    if count == 0:
        raise InputError("the backend gpu needs a GPU; CuPy sees none")
    return count


def _line(error: Exception) -> str:
    """What an error says, on one line; of CuPy's page on a failed import the error that led to it."""
    return " ".join(str(error).split("Original error:")[-1].strip(" =\n").split())


def _failing(method: F) -> F:
    """A method of a device or kernel whose failures on the GPU become one sentence.

    A GPU also reports here what went wrong in kernels that were started before.
    """

    @wraps(method)
    def whole(self: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except self.errors as error:
            raise RunError(f"the GPU failed: {error}") from error

    return whole  # type: ignore[return-value]


class CupyKernel:
    """A kernel of a loaded module; see `device.Kernel`."""

    def __init__(self, device: CupyDevice, function: Any):
        self._device, self._function = device, function
        self.errors = device.errors
        self._shared_bytes = _DEFAULT_SHARED

    @_failing
    def __call__(
        self, n_blocks: int, n_threads: int, arguments: Sequence[Any], shared_bytes: int = 0, stream: Stream = None
    ) -> None:
        if n_blocks == 0:
            return
        if n_blocks >= _MOST_BLOCKS or (self._device.kind == "hip" and n_blocks * n_threads >= _MOST_THREADS):
            raise ValueError(f"{n_blocks} blocks of {n_threads} threads are more than a launch takes")
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
        self._modules: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], CupyKernel] = {}
        self.spare_bytes: int | None = None
        self.errors: tuple[type[Exception], ...] = (self._runtime.CUDARuntimeError,)
        try:
            self._open(number)
            self.errors += cupy.cuda.driver.CUDADriverError, cupy.cuda.cublas.CUBLASError
        except self.errors as error:
            raise InputError(f"GPU {number} cannot be used: {_line(error)}") from error
        except (ImportError, RuntimeError) as error:
            raise InputError(f"a library of the GPU is missing ({INSTALL}): {_line(error)}") from error

    def _open(self, number: int) -> None:
        """Take the device, learn what it can do, and load the libraries, so that none is found missing later.

        Raises:
            InputError: it is newer than the compiler.
        """
        self._device = self._cupy.cuda.Device(number)
        self._device.use()
        properties = self._runtime.getDeviceProperties(number)
        self.kind = "hip" if self._runtime.is_hip else "cuda"
        self.name = properties["name"].decode()
        versions = self._runtime.driverGetVersion(), self._runtime.runtimeGetVersion()
        self.software = f"driver {versions[0]}, runtime {versions[1]}, CuPy {self._cupy.__version__}"
        self.identity = self._identity(number, properties)
        shared = int(properties["sharedMemPerBlock"])
        if self.kind == "cuda":
            shared = max(shared, int(properties.get("sharedMemPerBlockOptin", 0)))
        self.limits = Limits(
            shared_bytes=shared,
            n_processors=int(properties["multiProcessorCount"]),
            threads=int(properties["maxThreadsPerBlock"]),
        )
        if self.kind == "hip":
            self._architecture = properties["gcnArchName"].decode()
        else:
            capability = self._device.compute_capability
            self._architecture = f"sm_{capability}"
            _load_compiler(self._runtime.runtimeGetVersion() // 1000)
            if int(capability) not in (known := self._cupy.cuda.nvrtc.getSupportedArchs()):
                raise InputError(f"{self.name} is of architecture {capability}; NVRTC here knows {known}: {INSTALL}")
        _compiler_version()
        _ = self._device.cublas_handle  # its memory is no longer free when the limit of a solve is set

    def _identity(self, number: int, properties: dict[str, Any]) -> str:
        """Names the device among all of the job; parts of a GPU (MIG) lie on one bus but have numbers of their own."""
        try:
            bus = self._runtime.deviceGetPCIBusId(number)
        except self._runtime.CUDARuntimeError:  # more digits than CuPy has room for
            bus = "" if "uuid" in properties else str(number)
        return f"{socket.gethostname()}:{bus}:{bytes(properties.get('uuid', b'')).hex()}"

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """Inside, what CuPy starts goes to a stream."""
        with stream if stream is not None else self._cupy.cuda.Stream.null:
            yield

    def memory(self) -> tuple[int, int]:
        """Free and total bytes; what CuPy keeps for later counts as free."""
        free, total = self._runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes()), int(total)

    @_failing
    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> DeviceArray:
        """A new array of undefined content."""
        try:
            with self.on(None):  # CuPy's pool gives memory again to the stream that is current here
                return self._cupy.empty(shape, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError:
            n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            free = self.memory()[0]
            raise MemoryError(f"the device needs {n_bytes / 1e9:.3g} GB more; {free / 1e9:.3g} GB are free") from None

    @_failing
    def zero(self, array: DeviceArray, stream: Stream = None) -> None:
        """Fill an array with zeros."""
        with self.on(stream):
            array.fill(0)

    def upload(self, host: NDArray[Any], stream: Stream = None) -> DeviceArray:
        """A new device array with the content of a host array."""
        host = np.asarray(host)
        array = self.empty(host.shape, host.dtype)
        if stream is not None:
            self.wait(stream, None)  # what the memory was used for before
        self.copy_in(np.ascontiguousarray(host), array, stream)
        self._wait_for(stream)  # a copy from pageable memory may read it until then
        return array

    def download(self, array: DeviceArray, out: NDArray[Any] | None = None, stream: Stream = None) -> NDArray[Any]:
        """The content as a host array."""
        out = np.empty(array.shape, array.dtype) if out is None else out
        self.copy_out(array, out, stream)
        self._wait_for(stream)
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

    @_failing
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
        n_bytes = count * np.dtype(dtype).itemsize
        cuda = self._cupy.cuda
        try:  # not by CuPy's pool, which takes a power of two
            memory = cuda.PinnedMemoryPointer(cuda.PinnedMemory(n_bytes), 0)
        except self._runtime.CUDARuntimeError as error:
            raise MemoryError(f"{n_bytes / 1e9:.3g} GB of host memory cannot be pinned: {error}") from None
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def message(self, array: DeviceArray) -> Any:
        """The array itself: mpi4py takes it."""
        return array

    @_failing
    def stream(self) -> Stream:
        """A new stream."""
        return self._cupy.cuda.Stream(non_blocking=True)

    @_failing
    def wait(self, stream: Stream, other: Stream) -> None:
        """What is put on `stream` from now on starts after what `other` holds now."""
        null, event = self._cupy.cuda.Stream.null, self._cupy.cuda.Event(disable_timing=True)
        (other if other is not None else null).record(event)
        (stream if stream is not None else null).wait_event(event)

    @_failing
    def synchronize(self, stream: Stream = None) -> None:
        """Wait until a stream, or the whole device, is through."""
        if stream is None:
            self._runtime.deviceSynchronize()
        else:
            stream.synchronize()

    @_failing
    def _wait_for(self, stream: Stream) -> None:
        """Wait until a stream, or the default stream, is through."""
        (stream if stream is not None else self._cupy.cuda.Stream.null).synchronize()

    @_failing
    def kernel(self, source_name: str, kernel_name: str) -> CupyKernel:
        """A kernel of a source file of this package."""
        key = source_name, kernel_name
        if key not in self._kernels:
            if source_name not in self._modules:
                path = compile_binary(sources.source(source_name), f"{source_name}.cu", self._architecture)
                self._modules[source_name] = self._cupy.RawModule(path=str(path))
            self._kernels[key] = CupyKernel(self, self._modules[source_name].get_function(kernel_name))
        return self._kernels[key]

    @_failing
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
            if k == 0 and beta == 0.0:
                c.fill(0)
            elif k == 0:
                c *= beta
            elif c.ndim == 2:
                self._multiply((a, b, c), (m, n, k), None, (alpha, beta), (transpose_a, transpose_b))
            else:
                for first in range(0, stack, _MOST_STACKED):
                    some = tuple(each[first : first + _MOST_STACKED] for each in (a, b, c))
                    count = min(stack - first, _MOST_STACKED)
                    self._multiply(some, (m, n, k), count, (alpha, beta), (transpose_a, transpose_b))

    def _multiply(
        self, matrices: tuple[Any, ...], sizes: tuple[int, int, int], count: int | None, factors: tuple[float, float],
        transposed: tuple[bool, bool],
    ) -> None:  # fmt: skip
        """One call of BLAS, for `count` matrices of a stack or (None) for one."""
        blas, handle = self._cupy.cuda.cublas, self._device.cublas_handle
        (a, b, c), (m, n, k) = matrices, sizes
        # The library counts columns first: it makes the transposed product, of the transposed factors.
        operations = tuple(blas.CUBLAS_OP_T if each else blas.CUBLAS_OP_N for each in reversed(transposed))
        scalars = np.array(factors, np.float64)
        alpha, beta = scalars.ctypes.data, scalars.ctypes.data + 8
        first, second, out = (b.data.ptr, b.shape[-1]), (a.data.ptr, a.shape[-1]), (c.data.ptr, n)
        if count is None:
            blas.dgemm(handle, *operations, n, m, k, alpha, *first, *second, beta, *out)
        else:
            blas.dgemmStridedBatched(
                handle, *operations, n, m, k, alpha, *first, b.shape[-2] * b.shape[-1], *second, m * k, beta, *out,
                m * n, count,
            )  # fmt: skip


def _load_compiler(major: int) -> None:
    """Load the NVRTC that belongs to CuPy's version of CUDA.

    CuPy takes the newest in an environment, such as one that another package brought; drivers of `major` do not take
    what it makes.

    Raises:
        InputError: it is not there, but another one.
    """
    from cupy.cuda import nvrtc

    package = importlib.util.find_spec("nvidia")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        for path in Path(folder).glob(f"*/lib/libnvrtc.so.{major}"):
            ctypes.CDLL(str(path))  # a library that is loaded already is the one that CuPy takes
    found = nvrtc.getVersion()
    if found[0] != major:
        raise InputError(f"CuPy for CUDA {major} finds NVRTC {found[0]}.{found[1]} and not its own ({INSTALL})")


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
        _jit.compilation_begins()
        path.write_bytes(_compile(text, name, options))

    return sources.cached(".bin", (text, *options, *_compiler_version()), build)


def _compile(text: str, name: str, options: tuple[str, ...]) -> bytes:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, name, (), ())
    try:
        nvrtc.compileProgram(program, options)
        is_hip = any("gfx" in option for option in options)  # of hipRTC, "PTX" is the whole binary
        # CuPy cuts the last byte as if it ended a text; it is zero. A file that lacks it ends before its headers do.
        return bytes(nvrtc.getPTX(program) if is_hip else nvrtc.getCUBIN(program)) + b"\0"
    except nvrtc.NVRTCError:
        raise RuntimeError(f"{name} does not compile:\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


@cache
def _compiler_version() -> tuple[str, ...]:
    from cupy.cuda import nvrtc

    return tuple(str(part) for part in nvrtc.getVersion())
