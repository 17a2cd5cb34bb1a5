"""The device layer on the host shim: memory, copies, launches, matrix products, and mistakes that it must find."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.backends.gpu import process_device as device_module
from sqd_mpi.backends.gpu import sources
from sqd_mpi.backends.gpu.device import Limits
from sqd_mpi.backends.gpu.process_device import local_rank_of, open_device, shared_device_warning
from sqd_mpi.errors import InputError
from tests.gpu_shim import SHIM
from tests.gpu_shim.host_device import HostDevice, HostKernel, load_library
from tests.support.paths import TESTS
from tests.support.waiting import HANG

TRIAL = TESTS / "gpu_shim" / "shim_trial.cu"


@pytest.fixture(params=[False, True], ids=["forward", "reverse"])
def device(request) -> HostDevice:
    """A host shim that runs threads in either order."""
    return HostDevice(reverse=request.param)


def trial(device: HostDevice, name: str) -> HostKernel:
    """A kernel of the trial file."""
    text = (sources.FOLDER / "prelude.h").read_text() + TRIAL.read_text()
    return HostKernel(name, load_library("shim_trial", text), device.limits, device._reverse)


def test_arrays_are_sliced_and_reshaped_but_never_numpy_arrays(device: HostDevice) -> None:
    host = np.arange(24.0).reshape(4, 6)
    array = device.upload(host)
    assert (array.shape, array.dtype, array.size, array.nbytes) == ((4, 6), np.float64, 24, 192)
    np.testing.assert_array_equal(device.download(array[1:3]), host[1:3])
    np.testing.assert_array_equal(device.download(array[-1]), host[-1])
    np.testing.assert_array_equal(device.download(array[3][2:]), host[3, 2:])
    np.testing.assert_array_equal(device.download(array.reshape(2, -1)), host.reshape(2, 12))
    np.testing.assert_array_equal(device.download(array.reshape((24,))[20:]), host.reshape(24)[20:])
    assert device.download(array[4:]).shape == (0, 6)
    for use in (np.asarray, np.sum, list, float, lambda x: x + 1.0, lambda x: np.ones(6) * x, memoryview):
        with pytest.raises(TypeError):
            use(array)
    for key in (slice(None, None, 2), 4, -5):
        with pytest.raises(IndexError):
            array[key]
    with pytest.raises(ValueError):
        array.reshape(5, 5)


def test_copies(device: HostDevice) -> None:
    stream, other = device.stream(), device.stream()
    pinned = device.pinned((3, 2), np.int32)
    pinned[:] = [[1, 2], [3, 4], [5, 6]]
    array = device.empty((3, 2), np.int32)
    device.copy_in(pinned, array, stream)
    device.wait(other, stream)
    twin = device.empty(6, np.int32)
    device.copy(array.reshape(6), twin, other)
    back = np.zeros(6, np.int32)
    device.copy_out(twin, back, other)
    device.synchronize(other)
    device.synchronize()
    assert back.tolist() == [1, 2, 3, 4, 5, 6]
    device.zero(array)
    assert not device.download(array, back.reshape(3, 2)).any()
    assert np.isnan(device.download(device.empty(5))).all()  # undefined content
    with pytest.raises(ValueError, match="a copy between"):
        device.copy_in(np.zeros(6), array)
    with pytest.raises(ValueError, match="overlapping"):
        device.copy(array[0:2], array[1:3])
    with pytest.raises(TypeError):
        device.copy_in(array, array)


def test_memory_is_counted_and_given_back() -> None:
    device = HostDevice(memory_bytes=1000)
    array = device.empty(100)
    assert device.memory() == (200, 1000)
    part = array[:3]
    del array
    with pytest.raises(MemoryError, match=r"needs 4e-07 GB more; 2e-07 GB are free"):
        device.empty(50)
    del part
    assert device.memory() == (1000, 1000)


@pytest.mark.parametrize("n", [0, 1, 255, 1000])
def test_threads_see_their_numbers(device: HostDevice, n: int) -> None:
    order = np.random.default_rng(n).permutation(n).astype(np.int32)
    out = device.empty(n)
    arguments = (np.float64(0.5), np.int64(n), device.upload(order), out)
    trial(device, "write_numbers")(-(-n // 64), 64, arguments)
    expected = np.empty(n)
    expected[order] = 0.5 * np.arange(n)
    np.testing.assert_array_equal(device.download(out), expected)


@pytest.mark.parametrize(("n", "n_threads"), [(1, 1), (300, 256), (1000, 64), (40, 32)])
def test_barriers_and_shared_memory(device: HostDevice, n: int, n_threads: int) -> None:
    values = np.arange(1.0, n + 1)
    n_blocks = -(-n // n_threads)
    out = device.empty(n_blocks)
    trial(device, "sum_blocks")(n_blocks, n_threads, (device.upload(values), np.int64(n), out), 8 * n_threads)
    expected = [values[k : k + n_threads].sum() for k in range(0, n, n_threads)]
    np.testing.assert_array_equal(device.download(out), expected)


def test_mistakes_of_kernels_are_found(device: HostDevice) -> None:
    out = device.upload(np.zeros(64))
    trial(device, "race")(2, 32, (out,), 256)
    assert np.isnan(device.download(out)).any()
    with pytest.raises(RuntimeError, match="barrier"):
        trial(device, "divergent_barrier")(1, 8, (out,))
    trial(device, "sum_blocks")(1, 8, (out, np.int64(8), out), 64)  # works afterwards


def test_arguments_of_kernels_are_checked(device: HostDevice) -> None:
    kernel, out = trial(device, "sum_blocks"), device.empty(4)
    good = (out, np.int64(4), out)
    for arguments in ((out, 4, out), (out, np.int32(4), out), (np.zeros(4), np.int64(4), out), good[:2]):
        with pytest.raises(TypeError, match="sum_blocks"):
            kernel(1, 4, arguments, 32)
    with pytest.raises(TypeError, match="device array of float64"):
        kernel(1, 4, (device.empty(4, np.int64), np.int64(4), out), 32)
    for launch in ((1, 2000, good, 32), (1, 4, good, device.limits.shared_bytes + 8), (2**31, 4, good, 32)):
        with pytest.raises(ValueError, match="sum_blocks"):
            kernel(*launch)


@pytest.mark.parametrize("stack", [(), (3,), (0,)])
@pytest.mark.parametrize("transpose", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 7, 1), (3, 3, 0)])
def test_gemm(device: HostDevice, shape, transpose, stack) -> None:
    rng = np.random.default_rng(1)
    m, n, k = shape
    a, b, c = (rng.normal(size=stack + dimensions) for dimensions in ((m, k), (k, n), (m, n)))
    arrays = [device.upload(x.swapaxes(-1, -2) if t else x) for x, t in zip((a, b), transpose, strict=True)]
    out = device.upload(c)
    device.gemm(*arrays, out, 0.5, -2.0, *transpose)
    np.testing.assert_allclose(device.download(out), 0.5 * a @ b - 2.0 * c, atol=1e-14)
    fresh = device.empty(c.shape)
    device.gemm(*arrays, fresh, 1.0, 0.0, *transpose)
    np.testing.assert_allclose(device.download(fresh), a @ b, atol=1e-14)
    part = device.upload(c[..., :-1])
    device.gemm(*arrays, part, 1.0, 1.0, *transpose, columns=n - 1)
    np.testing.assert_allclose(device.download(part), (a @ b + c)[..., :-1], atol=1e-14)
    with pytest.raises(ValueError, match="matrix product"):
        device.gemm(*arrays, device.empty((*stack, m + 1, n)), 1.0, 0.0, *transpose)
    for wide, columns in ((n, n - 1), (n + 1, n + 1), (n - 1, None)):
        with pytest.raises(ValueError, match="matrix product"):
            device.gemm(*arrays, device.empty((*stack, m, wide)), 1.0, 0.0, *transpose, columns=columns)


def test_a_kernel_of_the_package_is_found_by_name(device: HostDevice) -> None:
    for path in sources.FOLDER.glob("*.cu"):
        for name in sources.kernel_names(sources.source(path.stem)):
            assert device.kernel(path.stem, name)._parameters


def test_several_processes_compile_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(sources.CACHE, str(tmp_path))
    count = []

    def build(path: Path) -> None:
        count.append(path.name)
        path.write_text("made")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sources.cached(".so", ("a", "b"), build), range(8)))
    assert len(set(found)) == 1 and found[0].read_text() == "made" and len(count) == 1
    assert sources.cached(".so", ("a", "c"), build) != found[0]
    with pytest.raises(ZeroDivisionError):
        sources.cached(".so", ("d",), lambda path: print(1 / 0))
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".so", ".lock")]
    (tmp_path / "file").touch()
    monkeypatch.setenv(sources.CACHE, str(tmp_path / "file" / "folder"))
    with pytest.raises(InputError, match="kernels cannot be kept in .*; SQD_MPI_GPU_CACHE names another folder"):
        sources.cached(".so", ("a", "b"), build)


def test_which_device_a_rank_takes(monkeypatch) -> None:
    assert local_rank_of({"SLURM_LOCALID": "3"}) == 3
    assert local_rank_of({"MPI_LOCALRANKID": "2", "SLURM_LOCALID": "3"}) == 2
    assert local_rank_of({}) == 0
    assert not shared_device_warning(4, 4, {})
    assert shared_device_warning(4, 1, {}) == "4 ranks on a node share 1 GPU; one rank for each GPU is faster"
    assert "share 2 GPUs" in shared_device_warning(4, 2, {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert not shared_device_warning(8, 1, {"ROCR_VISIBLE_DEVICES": "5"})
    monkeypatch.setattr(device_module, "_process_device", [])
    monkeypatch.setenv(device_module.CHOICE, SHIM)
    said: list[str] = []
    first = open_device(0, 1, said.append)
    assert first.kind == "host" and "for tests only" in said[0]
    assert open_device() is first
    device_module.close_device()
    monkeypatch.setenv(device_module.CHOICE, "cuda")
    with pytest.raises(InputError, match="SQD_MPI_GPU names as MODULE:NAME .* got 'cuda'"):
        open_device()


SANITIZED = """
import sys
import numpy as np
from pathlib import Path
from sqd_mpi.backends.gpu import sources
from tests.gpu_shim.host_device import HostDevice, HostKernel, load_library
device = HostDevice()
text = (sources.FOLDER / "prelude.h").read_text() + Path(sys.argv[1]).read_text()
def kernel(name):
    return HostKernel(name, load_library("shim_trial", text, device._flags), device.limits, False)
out = device.empty(8)
kernel("sum_blocks")(2, 256, (device.upload(np.ones(300)), np.int64(300), out), 2048)
print(device.download(out)[:2])
kernel("overrun")(1, 1, (out, np.int64(7)))
print("inside")
kernel("overrun")(1, 1, (out, np.int64(8)))
print("outside")
"""


def test_the_address_sanitizer_finds_an_overrun(tmp_path: Path, sanitized_environment) -> None:
    command = [sys.executable, "-c", SANITIZED, str(TRIAL)]
    done = subprocess.run(command, capture_output=True, text=True, env=sanitized_environment, timeout=HANG, check=False)
    assert done.stdout.split("\n")[:2] == ["[256.  44.]", "inside"], done.stderr
    assert "outside" not in done.stdout and "heap-buffer-overflow" in done.stderr


def test_small_shared_memory_can_be_asked_for() -> None:
    assert HostDevice(limits=Limits(1024, 1)).limits.shared_bytes == 1024


def test_asking_for_a_device_is_light() -> None:
    """numba takes its number of threads when it is imported, so a look at the devices must not import it."""
    program = "import sys, sqd_mpi.backends.gpu.process_device; print('numba' in sys.modules, 'cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.stdout.strip(), done.stderr) == ("False False", "")
