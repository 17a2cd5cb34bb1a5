"""Krylov vectors on a device (through the host shim) against the CPU's functions, and the memory that they live in."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from sqd_mpi.backends.gpu import memory as gpu_memory
from sqd_mpi.backends.gpu import vectors as device_vectors
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.device import Limits
from sqd_mpi.backends.gpu.memory import DeviceMemory
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.distribution import mirror, vectors
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from sqd_mpi.problem.symmetry import find_labels
from sqd_mpi.solver.sigma import SigmaOperator
from tests.gpu_shim.host_device import HostDevice
from tests.support.problems import make_hamiltonian, random_strings
from tests.support.waiting import HANG

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
SIZES = [0, 1, 31, 5000, 20_003]  # empty, shorter than a block of threads, one range, several ranges


@pytest.fixture(params=[False, True], ids=["forward", "reverse"])
def memory(request, monkeypatch) -> DeviceMemory:
    """The memory of a host shim that runs threads in either order; in one of them threads take several elements."""
    if request.param:
        monkeypatch.setattr(device_vectors, "_MOST_BLOCKS", 3)
    return DeviceMemory(HostDevice(reverse=request.param))


def rows(n: int, size: int, seed: int) -> np.ndarray:
    """Random vectors."""
    return np.random.default_rng(seed).normal(size=(n, size))


def close(found, expected):
    """Equal to rounding, relative to the largest element."""
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("m", "k"), [(1, 1), (1, 7), (3, 5), (4, 8), (9, 2)])
def test_gram(memory, size, m, k):
    first, second = rows(m, size, 1), rows(k, size, 2)
    found = memory.vectors.gram(memory.from_host(first), memory.from_host(second))
    close(found, vectors.gram(first, second))
    assert memory.vectors.dot(memory.from_host(first[0]), memory.from_host(second[0])) == pytest.approx(
        vectors.dot(first[0], second[0]), abs=1e-10
    )


@pytest.mark.parametrize("size", [0, 1, 40, 5000])
@pytest.mark.parametrize("count", [1, 7, 60])
@pytest.mark.parametrize("stretch", [1, 16, 1024])
def test_smallest_elements_are_those_of_a_sort(memory, size, count, stretch, monkeypatch):
    monkeypatch.setattr(gpu_memory, "_STRETCH", stretch)
    values = np.random.default_rng(size).normal(size=size).round(2)  # some are equal
    for place, array in ((memory, memory.from_host(values)), (HOST, values)):
        positions, found = place.smallest(array, count)
        np.testing.assert_array_equal(values[positions], found)
        assert len(set(positions.tolist())) == len(positions) == min(count, size)
        np.testing.assert_array_equal(np.sort(found), np.sort(values)[:count])


def test_few_bytes_of_a_long_array_come_to_the_host(monkeypatch):
    memory, fetched = DeviceMemory(HostDevice()), []
    download = HostDevice.download
    monkeypatch.setattr(
        HostDevice, "download", lambda self, array, *rest: fetched.append(array.nbytes) or download(self, array, *rest)
    )
    array = memory.from_host(np.random.default_rng(0).normal(size=1_000_000))
    memory.smallest(array, 3)
    assert sum(fetched) < 0.05 * array.nbytes


def test_elements_are_put_where_they_belong(memory):
    expected, out = np.full((2, 700), 3.0), memory.from_host(np.full((2, 700), 3.0))
    positions, values = np.array([5, 699, 0]), np.array([1.0, -2.0, 4.0])
    memory.put(positions, values, out[1])
    HOST.put(positions, values, expected[1])
    np.testing.assert_array_equal(memory.to_host(out), expected)
    assert expected[1].sum() == 3.0 and expected[1, 699] == -2.0
    memory.put(positions[:0], values[:0], out[0])
    assert not memory.to_host(out[0]).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("m", "k", "shared"), [(1, 1, 65536), (1, 6, 65536), (3, 8, 65536), (2, 7, 2048)])
def test_residuals(size, m, k, shared):
    """With little shared memory the overlaps are not made in the same pass."""
    memory = DeviceMemory(HostDevice(limits=Limits(shared, 4)))
    basis, images = rows(k, size, 1), rows(k, size, 2)
    coefficients, energies = rows(m, k, 3), -1.0 - np.arange(m)
    shifts = energies - 0.25
    diagonal = np.random.default_rng(4).uniform(-2.0, 3.0, size)
    diagonal[: size // 3] = shifts[0]  # denominators that are moved to the floor
    expected = np.empty((m, size))
    sums = vectors.residuals(basis, images, coefficients, energies, shifts, diagonal, 1e-2, expected)
    out = memory.empty((m, size))
    found = memory.vectors.residuals(
        memory.from_host(basis),
        memory.from_host(images),
        coefficients,
        energies,
        shifts,
        memory.from_host(diagonal),
        1e-2,
        out,
    )
    close(memory.to_host(out), expected)
    for new, old in zip(found, sums, strict=True):
        assert new.shape == old.shape
        np.testing.assert_allclose(new, old, rtol=1e-11, atol=1e-11 * max(1.0, np.abs(old).max(initial=0.0)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (1, 3, 4), (3, 3, 9)])
def test_project_out(memory, size, n, m, k):
    fresh, basis, overlaps, transform = rows(m, size, 1), rows(k, size, 2), rows(m, k, 3), rows(n, m, 4)
    device = memory.from_host(np.concatenate([basis, fresh]))
    memory.vectors.project_out(device[k : k + m], device[:k], overlaps, transform)
    vectors.project_out(fresh, basis, overlaps, transform)
    close(memory.to_host(device[k : k + n]), fresh[:n])
    np.testing.assert_array_equal(memory.to_host(device[:k]), basis)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 7), (7, 7)])
def test_rotate(memory, size, n, k):
    host, coefficients = rows(k + 1, size, 1), rows(n, k, 2)
    device = memory.from_host(host)
    memory.vectors.rotate(device[:k], coefficients)
    vectors.rotate(host[:k], coefficients)
    close(memory.to_host(device), host)


@pytest.mark.parametrize("size", SIZES)
def test_elementwise(memory, size):
    diagonal, vector, out = rows(3, size, 1)
    line = np.sort(np.random.default_rng(2).choice(size, size // 3, replace=False)).astype(np.int64)
    on_device = [memory.from_host(each) for each in (diagonal, vector, out)]
    memory.vectors.scale_and_add(*on_device[:2], 0.7, on_device[2])
    vectors.scale_and_add(diagonal, vector, 0.7, out)
    close(memory.to_host(on_device[2]), out)
    memory.vectors.finish_folded(*on_device[:2], memory.indices(line), on_device[2])
    vectors.finish_folded(diagonal, vector, line, out)
    close(memory.to_host(on_device[2]), out)
    memory.vectors.add_scaled(on_device[1], -1.3, on_device[2])
    vectors.add_scaled(vector, -1.3, out)
    close(memory.to_host(on_device[2]), out)


def test_sums_are_the_same_in_every_order_of_threads_and_in_every_run():
    first, second = rows(3, 30_000, 1), rows(4, 30_000, 2)
    found = []
    for reverse in (False, True, False):
        memory = DeviceMemory(HostDevice(reverse=reverse))
        found.append(memory.vectors.gram(memory.from_host(first), memory.from_host(second)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("labels", [None, np.array([0, 1, 2, 3, 0, 1, 2])])
def test_unfolding(memory, parity, labels):
    """Every block of several grids, with and without symmetry labels."""
    hamiltonian = make_hamiltonian(7, (3, 3), labels=labels)
    found = find_labels(hamiltonian)
    strings = SpinStrings.from_canonical(random_strings(7, 3, 33), found.labels, found.n_labels)
    for shape in ((1, 1, 1, 1), (1, 1, 1, 3), (2, 2, 1, 2)):
        for sector in sectors(strings, strings):
            layout = Layout.create(strings, strings, sector, shape, parity)
            for ia, ib in np.ndindex(shape[:2]):
                host = mirror.Unfolding(layout, ia, ib)
                own, other = rows(1, host.own.size, 1)[0], rows(1, host.mirror.size, 2)[0]
                other = own if ia == ib else other
                expected = np.full(layout.block_size(ia, ib), np.nan)
                host.unfold(own, other, expected)
                whole = memory.empty(len(expected))
                mine = memory.from_host(own)
                theirs = mine if ia == ib else memory.from_host(other)
                memory.unfolding(layout, ia, ib).unfold(mine, theirs, whole)
                np.testing.assert_array_equal(memory.to_host(whole), expected)


def test_random_numbers_are_those_of_the_host(memory, monkeypatch):
    monkeypatch.setattr("sqd_mpi.backends.gpu.memory._CHUNK", 100)
    expected, out = np.empty(1234), memory.empty(1234)
    HOST.fill_random(np.random.default_rng(1), expected)
    memory.fill_random(np.random.default_rng(1), out)
    np.testing.assert_array_equal(memory.to_host(out), expected)


def test_copies_and_fillings(memory):
    host = rows(3, 10, 1)
    array = memory.from_host(host)
    other = memory.empty((3, 10))
    memory.copy(array, other)
    memory.zero(array[1])
    with memory.filling(other[2]) as row:
        row[:] = 7.0
    np.testing.assert_array_equal(memory.to_host(array), host * [[1], [0], [1]])
    np.testing.assert_array_equal(memory.to_host(other, np.empty((3, 10)))[2], 7.0)


@pytest.mark.parametrize("direct", [False, True])
def test_ports_and_arrivals(direct):
    """What is sent is what the array holds; what is received is found in the array; two blocks are there at a time."""
    memory = DeviceMemory(HostDevice(), direct)
    port, array = memory.port(10), memory.from_host(np.arange(10.0))
    assert port.sending(array[2:5]).tolist() == [2.0, 3.0, 4.0]
    port.receiving(array[5:])[:] = -1.0
    port.received(array[5:])
    assert memory.to_host(array).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0] + 5 * [-1.0]
    shared = np.zeros(4)  # memory that other ranks read stays in use in any case
    twin, through = memory.image_of(shared), memory.port(4, shared)
    shared[:] = 5.0
    through.received(twin)
    assert memory.to_host(twin).tolist() == [5.0] * 4
    arrivals = memory.arrivals(6)
    blocks = [arrivals.buffers.empty(6) for _ in range(2)]
    before = None
    for k in range(4):
        message = arrivals.buffers.message(blocks[k % 2][: 3 + k % 2])
        message[:] = float(k)
        array = arrivals.bring(blocks[k % 2][: 3 + k % 2])
        arrivals.release()
        assert memory.to_host(array).tolist() == [float(k)] * (3 + k % 2)
        if before is not None:
            assert memory.to_host(before)[0] == k - 1.0
        before = array


def test_more_than_the_device_has_is_refused():
    memory = DeviceMemory(HostDevice(memory_bytes=1000))
    assert memory.limit(2) == 475
    with pytest.raises(MemoryError, match="free"):
        memory.empty(126)


class RecordingDevice(HostDevice):
    """Notes every copy and everything that orders streams."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in ("copy_in", "copy_out", "upload", "download", "wait", "synchronize"):
            calls = super().__getattribute__("calls")

            def noted(*arguments, **more):
                calls.append((name, *arguments, *more.values()))
                return found(*arguments, **more)

            return noted
        return found


@pytest.mark.parametrize("parity", [0, 1, -1])
def test_one_rank_copies_nothing_between_host_and_device(parity):
    """Not even with spin-flip symmetry, once the first sigma has brought the integrals."""
    device = RecordingDevice()
    hamiltonian, memory = make_hamiltonian(7, (3, 3)), DeviceMemory(device)
    labels = find_labels(hamiltonian)
    strings = SpinStrings.from_canonical(random_strings(7, 3, 23), labels.labels, labels.n_labels)
    layout, place = Layout.create(strings, strings, 0, (1, 1, 1, 1), parity), (0, 0, 0, 0)
    block = GpuBlock(layout, place, GpuShare(device, layout, place, hamiltonian, labels))
    grid = ProcessGrid(None, (1, 1, 1, 1))
    operator = SigmaOperator(grid, layout, block, Interaction.energy(hamiltonian), memory=memory)
    vector, out = memory.from_host(rows(1, operator.size, 1)[0]), memory.empty(operator.size)
    operator.matvec(vector, out)
    device.calls.clear()
    operator.matvec(vector, out)
    assert [call[0] for call in device.calls if call[0] != "synchronize"] == []


def test_a_block_is_uploaded_beside_kernels_and_not_into_what_they_read():
    """An upload is on the stream of its buffer, which waits for kernels before the last; the next ones wait for it."""
    device = RecordingDevice()
    arrivals = DeviceMemory(device).arrivals(5)
    streams = []
    for k in range(4):
        device.calls.clear()
        arrivals.bring(np.full(5, float(k)))
        arrivals.release()
        (_, other, kernels), (name, _, _, stream), (_, later, before), (_, awaited) = device.calls
        assert [call[0] for call in device.calls] == ["wait", "copy_in", "wait", "synchronize"] and name == "copy_in"
        assert kernels is None and later is None and stream is before is awaited and other is not stream
        streams.append((stream, other))
    assert streams[0] == streams[2] == streams[1][::-1] == streams[3][::-1]


SANITIZED = """
from tests.backends.gpu import test_vectors as t
memory = t.DeviceMemory(t.HostDevice())
for size in t.SIZES:
    t.test_gram(memory, size, 3, 5)
    t.test_residuals(size, 3, 8, 65536)
    t.test_project_out(memory, size, 1, 3, 4)
    t.test_rotate(memory, size, 2, 7)
    t.test_elementwise(memory, size)
for parity in (1, -1):
    t.test_unfolding(memory, parity, None)
print("done")
"""


@pytest.mark.slow
def test_no_access_out_of_bounds(sanitized_environment) -> None:
    """The kernels under the address and undefined-behaviour sanitizers."""
    command = [sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, capture_output=True, text=True, env=sanitized_environment, timeout=HANG, check=False)
    assert done.stdout.strip() == "done", done.stderr[-3000:]
