"""The door to CuPy against a stand-in made of NumPy: copies, products in column order, launches, compilation, messages.

What CuPy itself does cannot be tested without a GPU. Names and arguments are those of CuPy 14.2, with which the whole
backend was run once, NVRTC and all, on an emulated CUDA runtime.
"""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sqd_mpi.backends.gpu import cupy_device, sources
from sqd_mpi.errors import InputError, RunError


class Array:
    """As much of cupy.ndarray as the device layer may use."""

    def __init__(self, values: np.ndarray):
        self.values = values
        self.shape, self.dtype, self.size, self.nbytes = values.shape, values.dtype, values.size, values.nbytes
        self.ndim, self.flags, self.data = values.ndim, values.flags, SimpleNamespace(ptr=values.ctypes.data)

    def __getitem__(self, key: slice) -> Array:
        return Array(self.values[key])

    def fill(self, value: float) -> None:
        """Set all elements."""
        self.values[...] = value

    def __imul__(self, factor: float) -> Array:
        self.values *= factor
        return self


class Stream:
    """cupy.cuda.Stream: remembers which one is current."""

    current: list[Stream] = []
    ptr = 0

    def __init__(self, non_blocking: bool = False):
        self.calls: list[str] = []

    def __enter__(self) -> Stream:
        Stream.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        Stream.current.pop()

    def record(self, event: str) -> None:
        """Put an event behind all that the stream holds."""

    def wait_event(self, event: str) -> None:
        """Wait for an event."""
        self.calls.append(event)

    def synchronize(self) -> None:
        """Wait."""
        self.calls.append("synchronized")


class RuntimeFailure(RuntimeError):
    """cupy.cuda.runtime.CUDARuntimeError."""


class DriverFailure(RuntimeError):
    """cupy.cuda.driver.CUDADriverError."""


class BlasFailure(RuntimeError):
    """cupy.cuda.cublas.CUBLASError."""


class OutOfMemory(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""


def column_major(pointer: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """A matrix as BLAS sees it."""
    assert leading >= max(rows, 1)
    flat = np.ctypeslib.as_array((ctypes.c_double * (leading * columns)).from_address(pointer))
    return flat.reshape(columns, leading).T[:rows]


def dgemm(handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
    """cublasDgemm with scalars in host memory."""
    alpha, beta = (ctypes.c_double.from_address(pointer).value for pointer in (alpha, beta))
    first = column_major(a, k, m, lda).T if op_a else column_major(a, m, k, lda)
    second = column_major(b, n, k, ldb).T if op_b else column_major(b, k, n, ldb)
    out = column_major(c, m, n, ldc)
    out[...] = alpha * first @ second + (beta * out if beta else 0.0)


def strided(handle, op_a, op_b, m, n, k, alpha, a, lda, step_a, b, ldb, step_b, beta, c, ldc, step_c, count):
    """cublasDgemmStridedBatched."""
    for i in range(count):
        at = (alpha, a + 8 * i * step_a, lda, b + 8 * i * step_b, ldb, beta, c + 8 * i * step_c, ldc)
        dgemm(handle, op_a, op_b, m, n, k, *at)


class Function:
    """cupy.RawKernel: records its launches."""

    max_dynamic_shared_size_bytes = 0

    def __init__(self, name: str):
        self.name, self.launches = name, []

    def __call__(self, grid, block, arguments, *, shared_mem):
        self.launches.append((grid, block, arguments, shared_mem, Stream.current[-1]))


def make_cupy(is_hip: bool = False, count: int = 2) -> SimpleNamespace:
    """A stand-in for the package."""
    properties = {
        "name": b"Some GPU", "sharedMemPerBlock": 49152, "sharedMemPerBlockOptin": 232448, "multiProcessorCount": 132,
        "maxThreadsPerBlock": 1024, "gcnArchName": b"gfx90a:sramecc+:xnack-", "uuid": b"\x01\xff",
    }  # fmt: skip
    compiled: list[tuple[str, tuple[str, ...]]] = []

    def empty(shape, dtype):
        if int(np.prod(shape)) > 10**6:
            raise OutOfMemory
        return Array(np.full(shape, 7, dtype))

    def device_count() -> int:
        if count < 0:
            raise RuntimeFailure("no driver")
        return count

    runtime = SimpleNamespace(
        is_hip=is_hip, getDeviceCount=device_count, getDeviceProperties=lambda number: properties,
        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 12090,
        deviceGetPCIBusId=lambda number: f"0000:{number:02d}", memGetInfo=lambda: (5 * 10**6, 10**7),
        memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3, CUDARuntimeError=RuntimeFailure,
        memcpyAsync=lambda target, source, n, kind, stream: ctypes.memmove(target, source, n),
        deviceSynchronize=lambda: None,
    )  # fmt: skip

    def pin(n_bytes: int) -> bytearray:
        if n_bytes > 10**6:
            raise RuntimeFailure("no more")
        return bytearray(n_bytes)

    nvrtc = SimpleNamespace(
        createProgram=lambda text, name, headers, names: text, destroyProgram=lambda program: None,
        compileProgram=lambda program, options: compiled.append((program, options)), getVersion=lambda: (12, 9),
        getPTX=lambda program: b"hip binary", getCUBIN=lambda program: b"cuda binary", NVRTCError=RuntimeFailure,
        getProgramLog=lambda program: "log", getSupportedArchs=lambda: (80, 90),
    )  # fmt: skip
    Stream.null = Stream()  # type: ignore[attr-defined]
    device = SimpleNamespace(use=lambda: None, compute_capability="90", cublas_handle=1)
    cuda = SimpleNamespace(
        runtime=runtime, Device=lambda number: device, Stream=Stream, Event=lambda disable_timing: "event", nvrtc=nvrtc,
        cublas=SimpleNamespace(
            CUBLAS_OP_N=0, CUBLAS_OP_T=1, dgemm=dgemm, dgemmStridedBatched=strided, CUBLASError=BlasFailure
        ),
        driver=SimpleNamespace(CUDADriverError=DriverFailure), memory=SimpleNamespace(OutOfMemoryError=OutOfMemory),
        PinnedMemory=pin, PinnedMemoryPointer=lambda memory, offset: memory,
    )  # fmt: skip
    return SimpleNamespace(
        cuda=cuda, empty=empty, compiled=compiled,
        __version__="14.2.0", get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 3),
        RawModule=lambda path: SimpleNamespace(path=path, get_function=Function),
    )  # fmt: skip


@pytest.fixture(params=[False, True], ids=["cuda", "hip"])
def cupy(request, monkeypatch, tmp_path) -> SimpleNamespace:
    """The stand-in in the place of CuPy, and an empty cache of kernels."""
    package = make_cupy(request.param)
    monkeypatch.setenv(sources.CACHE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "cupy", package)
    monkeypatch.setitem(sys.modules, "cupy.cuda", package.cuda)
    cupy_device._compiler_version.cache_clear()
    return package


def test_what_a_device_says_about_itself(cupy) -> None:
    device = cupy_device.CupyDevice(1)
    assert (device.name, device.kind) == ("Some GPU", "hip" if cupy.cuda.runtime.is_hip else "cuda")
    assert device.identity.endswith(":0000:01:01ff")
    assert device.limits.shared_bytes == (49152 if cupy.cuda.runtime.is_hip else 232448)
    assert device.memory() == (5 * 10**6 + 3, 10**7)
    assert cupy_device.device_count() == 2


def test_copies(cupy) -> None:
    device = cupy_device.CupyDevice(0)
    stream = device.stream()
    host = np.arange(6.0).reshape(2, 3)
    array, twin = device.upload(host, stream), device.empty((2, 3))
    device.copy(array, twin, stream)
    device.wait(stream, None)
    np.testing.assert_array_equal(device.download(twin, stream=stream), host)
    assert stream.calls == ["event", "synchronized", "event", "synchronized"]  # an upload ends before it returns
    device.zero(twin)
    assert not device.download(twin).any()
    assert device.pinned((2, 2)).shape == (2, 2) and device.pinned(0).shape == (0,)
    assert device.download(device.upload(np.empty(0))).size == 0
    with pytest.raises(ValueError, match="a copy between"):
        device.copy_in(np.zeros(3), array)
    with pytest.raises(MemoryError, match=r"needs 0.016 GB more; 0.005 GB are free"):
        device.empty(2 * 10**6)
    with pytest.raises(MemoryError, match=r"0.016 GB of host memory cannot be pinned: no more"):
        device.pinned(2 * 10**6)


@pytest.mark.parametrize("stack", [(), (3,), (0,)])
@pytest.mark.parametrize("transpose", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 7, 1), (3, 3, 0)])
def test_products_of_row_major_matrices(cupy, shape, transpose, stack, monkeypatch) -> None:
    rng = np.random.default_rng(1)
    device = cupy_device.CupyDevice(0)
    m, n, k = shape
    a, b, c = (rng.normal(size=stack + dimensions) for dimensions in ((m, k), (k, n), (m, n)))
    arrays = [device.upload(x.swapaxes(-1, -2) if t else x) for x, t in zip((a, b), transpose, strict=True)]
    out = device.upload(c)
    device.gemm(*arrays, out, 0.5, -2.0, *transpose)
    np.testing.assert_allclose(device.download(out), 0.5 * a @ b - 2.0 * c, atol=1e-14)
    monkeypatch.setattr(cupy_device, "_MOST_STACKED", 2)
    device.gemm(*arrays, out, 1.0, 0.0, *transpose)
    np.testing.assert_allclose(device.download(out), a @ b, atol=1e-14)
    part = device.upload(c[..., :-1])
    device.gemm(*arrays, part, 1.0, 1.0, *transpose, columns=n - 1)
    np.testing.assert_allclose(device.download(part), (a @ b + c)[..., :-1], atol=1e-14)


def test_kernels_are_compiled_once_and_launched_on_their_stream(cupy) -> None:
    device, other = cupy_device.CupyDevice(0), cupy_device.CupyDevice(1)
    kernel, stream = device.kernel("sigma", "alpha_rows"), device.stream()
    assert device.kernel("sigma", "alpha_rows") is kernel
    other.kernel("sigma", "diagonal_rows")
    ((text, options),) = cupy.compiled
    assert text.startswith("// Stands in front") and "alpha_rows" in text
    is_hip = cupy.cuda.runtime.is_hip
    assert ("--offload-arch=gfx90a:sramecc+:xnack-" if is_hip else "--gpu-architecture=sm_90") in options
    binary = device._modules["sigma"].path
    with open(binary, "rb") as file:
        assert file.read() == (b"hip binary\0" if is_hip else b"cuda binary\0")  # CuPy has cut the last byte
    kernel(0, 64, ())
    kernel(3, 64, (1, 2), 1000, stream)
    kernel(4, 32, (), 60000)
    first, second = kernel._function.launches
    assert first == ((3,), (64,), (1, 2), 1000, stream)
    assert second == ((4,), (32,), (), 60000, cupy.cuda.Stream.null)
    assert kernel._function.max_dynamic_shared_size_bytes == (0 if is_hip else 60000)
    for n_blocks in (2**31, *([2**27] if is_hip else [])):
        with pytest.raises(ValueError, match="more than a launch takes"):
            kernel(n_blocks, 32, ())


def test_a_kernel_that_does_not_compile(cupy) -> None:
    def refuse(program, options):
        raise RuntimeFailure

    cupy.cuda.nvrtc.compileProgram = refuse
    with pytest.raises(RuntimeError, match=r"bad.cu does not compile:\nlog"):
        cupy_device.compile_binary("text", "bad.cu", "sm_90")
    assert not list(sources.cache_folder().glob("*.bin"))


def test_failures_of_the_device_are_one_sentence(cupy) -> None:
    device = cupy_device.CupyDevice(0)
    kernel, array = device.kernel("vectors", "gram"), device.upload(np.ones((2, 2)))

    def fail(failure):
        def function(*arguments, **options):
            raise failure("illegal address")

        return function

    cupy.cuda.runtime.deviceSynchronize = cupy.cuda.runtime.memcpyAsync = fail(RuntimeFailure)
    cupy.cuda.cublas.dgemm = fail(BlasFailure)
    kernel._function = fail(DriverFailure)
    for call in (
        device.synchronize, lambda: device.download(array), lambda: device.gemm(array, array, array),
        lambda: kernel(1, 32, ()),
    ):  # fmt: skip
        with pytest.raises(RunError, match="the GPU failed: illegal address"):
            call()


def test_what_keeps_a_device_from_being_opened(cupy) -> None:
    def fail(error):
        def function():
            raise error

        return SimpleNamespace(use=function)

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            cupy_device.CupyDevice(1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    device, cupy.cuda.Device = cupy.cuda.Device(1), lambda number: device
    if not cupy.cuda.runtime.is_hip:
        device.compute_capability = "130"
        assert "Some GPU is of architecture 130; NVRTC here knows (80, 90)" in refusal()
        device.compute_capability = "90"
        cupy.cuda.runtime.runtimeGetVersion = lambda: 13000
        assert "CuPy for CUDA 13 finds NVRTC 12.9 and not its own" in refusal()
    device = fail(RuntimeFailure("busy"))
    assert refusal() == "GPU 1 cannot be used: busy"
    device = fail(ImportError("====\nA page\n\nOriginal error:\n  no such file: libcublas.so\n====\n"))
    assert refusal().startswith("a library of the GPU is missing (pip install")
    assert refusal().endswith(": no such file: libcublas.so")


@pytest.mark.parametrize(("count", "message"), [(0, "CuPy sees none"), (-1, "its driver; CuPy says: no driver")])
def test_no_device(monkeypatch, count: int, message: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", make_cupy(count=count))
    with pytest.raises(InputError, match=message):
        cupy_device.device_count()


def test_no_cupy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"needs CuPy \(pip install 'sqd_mpi\[cuda12\]'"):
        cupy_device.device_count()
