"""The host shim with streams that are done late: it finds missing waits, and blocks and solves have none."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from sqd_mpi.backends.cpu import density
from sqd_mpi.backends.gpu import process_device as device_module
from sqd_mpi.backends.gpu.memory import DeviceMemory
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.errors import InputError
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim import SHIM
from tests.gpu_shim.host_device import HostDevice
from tests.gpu_shim.late_device import LateDevice
from tests.support.gpu_blocks import CASES, Problem, check
from tests.support.gpu_densities import close, on_device, sums
from tests.support.problems import close_strings, make_hamiltonian

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
LAZY, SOME = 0, 1  # seeds: all is left until it is awaited, or some is done at every call


def doubled(values: np.ndarray, device: LateDevice, array) -> None:
    """out += 2 out by a kernel, on the default stream."""
    device.kernel("vectors", "add_scaled")(1, 32, (array, np.float64(1.0), array, np.int64(len(values))))


@pytest.mark.parametrize("seed", range(6))
def test_what_waits_is_done_in_order(seed):
    device, values = LateDevice(seed), np.arange(5.0)
    stream, other = device.stream(), device.stream()
    pinned, back = device.pinned(5), device.pinned(5)
    array, twin = device.empty(5), device.empty(5)
    for number in range(4):
        pinned[:] = values + number
        device.wait(stream, None)
        device.copy_in(pinned, array, stream)
        device.wait(None, stream)
        doubled(values, device, array)
        device.wait(other, None)
        device.copy(array, twin, other)
        device.copy_out(twin, back, other)
        device.synchronize(other)
        np.testing.assert_array_equal(back, 2 * (values + number))
    np.testing.assert_array_equal(device.download(device.upload(values, stream)), values)
    device.zero(array)
    assert not device.download(array).any()


def test_missing_waits_are_found():
    """Each is right on the plain host shim."""
    device = LateDevice(LAZY)
    stream, pinned, back = device.stream(), device.pinned(3), device.pinned(3)
    pinned[:] = 1.0
    fresh = device.empty(3)
    device.copy_in(pinned, fresh, stream)  # kernels may still use what the array is made of
    device.synchronize(stream)
    assert np.isnan(device.download(fresh)).all()
    array = device.upload(pinned)
    device.copy_in(pinned, array)
    pinned[:] = 2.0  # before the copy is through
    assert device.download(array).tolist() == [2.0] * 3
    back[:] = 0.0
    device.copy_out(array, back)
    assert np.isnan(back).all()  # and not what it will be
    device.copy_in(np.ones(3), array)
    with pytest.raises(RuntimeError, match="a host array ended before its copy was through"):
        device.synchronize()
    device = LateDevice(LAZY)
    stream, array = device.stream(), device.upload(np.ones(3))
    device.zero(array, stream)
    del array
    with pytest.raises(RuntimeError, match="given back while a stream still used it"):
        device.synchronize(stream)


def test_memory_of_the_default_stream_lasts_until_it_is_through():
    device = LateDevice(LAZY, memory_bytes=100)
    array = device.empty(8)
    del array
    assert device.memory() == (36, 100)
    assert device.download(device.empty(9)).shape == (9,)  # waits for what was given back


@pytest.mark.parametrize("missing", ["wait", "synchronize"])
def test_arrivals_without_their_waits_fail(missing, monkeypatch):
    """What the two buffers of ket blocks wait for is needed."""

    def brought(seed: int) -> list[float]:
        device = LateDevice(seed)
        arrivals, seen = DeviceMemory(device).arrivals(4), device.empty(12)
        block = arrivals.buffers.empty(4)
        if missing in gone:
            monkeypatch.setattr(device, missing, lambda *streams: None)
        for k in range(3):
            block[:] = k
            device.copy(arrivals.bring(block), seen[4 * k : 4 * k + 4])
            arrivals.release()
        monkeypatch.undo()
        return device.download(seen).tolist()

    expected = np.repeat(np.arange(3.0), 4).tolist()
    gone: set[str] = set()
    assert all(brought(seed) == expected for seed in range(8))
    gone.add(missing)
    assert any(brought(seed) != expected for seed in range(8))


@pytest.mark.parametrize("seed", [LAZY, SOME])
@pytest.mark.parametrize(
    ("name", "form", "same_spin"),
    [("odd triangle", None, None), ("spin-dependent", "product", "dense"), ("even triangle", "tiled", "sparse")],
)
def test_blocks(name, form, same_spin, seed):
    check(Problem(CASES[name], LateDevice(seed), form, same_spin))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [LAZY, SOME])
@pytest.mark.parametrize("spin_flip", ["auto", "off"])
def test_a_solve(seed, spin_flip, monkeypatch):
    monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    strings, hamiltonian = close_strings(8, 4, 40), make_hamiltonian(8, (4, 4))
    options = SolveOptions(backend="gpu", spin_flip=spin_flip, nroots=2, tol=1e-7, model_space=6)
    found = {}
    for late in ("", str(seed)):
        monkeypatch.setenv("SQD_MPI_GPU_HOST_LATE", late)
        device_module.close_device()
        found[late] = solve_subspace(None, hamiltonian, strings, strings, options)
        assert type(device_module.open_device()) is (LateDevice if late else HostDevice)
        device_module.close_device()
    at_once, later = found.values()
    assert later.converged and later.n_sigma == at_once.n_sigma
    np.testing.assert_array_equal(later.energies, at_once.energies)  # not even rounding depends on the order


@pytest.mark.parametrize("seed", [LAZY, SOME])
def test_density_matrices(seed):
    strings = SpinStrings.from_canonical(close_strings(8, 3, 30), np.zeros(8, np.int64), 1)
    layouts = [Layout.create(strings, strings, 0, (1, 1, 1, 1))] * 2
    expected = sums(density.create_density_block, layouts, np.zeros(8, np.int64))
    close(sums(on_device(LateDevice(seed), 2**14), layouts, np.zeros(8, np.int64)), expected)


def test_a_seed_is_a_number(monkeypatch):
    monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    monkeypatch.setenv("SQD_MPI_GPU_HOST_LATE", "yes")
    device_module.close_device()
    with pytest.raises(InputError, match="SQD_MPI_GPU_HOST_LATE is a whole number.* got 'yes'"):
        device_module.open_device()
