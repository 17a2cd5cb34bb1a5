"""The GPU backend on the device of this machine: `make test-gpu`. On the host shim where there is none, as in CI.

Blocks and density matrices against the CPU backend, vectors, matrix products and copies, and whole solves on one and on
two ranks. Problems are larger than in the tests of the shim alone, so that a real device has many thread blocks, tiles
and batches at work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.backends.cpu import density
from sqd_mpi.backends.gpu.process_device import close_device, is_there, open_device
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.files import records
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim import SHIM
from tests.gpu_shim.host_device import HostDevice
from tests.support.gpu_blocks import CASES, Case, Problem, check
from tests.support.gpu_densities import close, on_device, sums
from tests.support.launching import FOREIGN
from tests.support.paths import ROOT
from tests.support.problems import close_strings, make_hamiltonian
from tests.support.waiting import HANG

MPIEXEC = Path(sys.executable).parent / "mpiexec"
REAL = is_there()
SIZE = 1 if REAL else 20  # the shim takes problems that are so many times smaller


@pytest.fixture(scope="module")
def device():
    """The GPU of this process, or the host shim; `make test-gpu` makes sure that it is a GPU."""
    if not REAL:
        assert "SQD_MPI_TEST_GPU" not in os.environ, "make test-gpu needs a GPU"
        yield HostDevice()
        return
    close_device()
    yield open_device()
    close_device()


@pytest.mark.parametrize("forms", [("direct", "sparse"), ("product", "dense")])
@pytest.mark.parametrize("name", CASES if REAL else ["one string", "sectors", "odd triangle"])
def test_small_blocks(name, forms, device):
    check(Problem(CASES[name], device, *forms))


@pytest.mark.parametrize("forms", [(None, None), ("direct", "dense"), ("product", "sparse")])
@pytest.mark.parametrize("parity", [0, 1, -1])
def test_large_blocks(parity, forms, device):
    count = 3000 // SIZE
    labels = np.arange(18) % 4
    case = Case(18, (4, 4), (count, count), (1, 1, 1, 1), labels, 0, parity, close=True)
    check(Problem(case if parity else replace(case, counts=(count, count - count // 7)), device, *forms))


@pytest.mark.parametrize("symmetric", [True, False])
def test_density_matrices(symmetric, device):
    labels, count = np.arange(16) % 4, 2000 // SIZE
    strings = (close_strings(16, 4, n, seed) for seed, n in enumerate((count, count - count // 7)))
    spins = [SpinStrings.from_canonical(each, labels, 4) for each in strings]
    layouts = [Layout.create(*spins, sector, (1, 1, 1, 1)) for sector in (0, 0 if symmetric else 1)]
    expected = sums(density.create_density_block, layouts, labels, symmetric=symmetric)
    assert np.abs(expected.opposite).max() > 0
    close(sums(on_device(device, 2**28 if REAL else 2**20), layouts, labels, symmetric=symmetric), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (65, 33, 17), (300, 1, 257), (128, 512, 64)])
@pytest.mark.parametrize("transpose", [(False, False), (True, False), (False, True)])
def test_matrix_products(shape, transpose, device):
    m, n, k = shape
    generator = np.random.default_rng(1)
    a, b, c = (generator.normal(size=(3, *sides)) for sides in ((m, k), (k, n), (m, n)))
    given = [
        np.ascontiguousarray(each.swapaxes(1, 2) if turned else each)
        for each, turned in zip((a, b), transpose, strict=True)
    ]
    there = [device.upload(each) for each in (*given, c)]
    device.gemm(*there, alpha=1.5, beta=-0.5, transpose_a=transpose[0], transpose_b=transpose[1])
    np.testing.assert_allclose(device.download(there[2]), 1.5 * a @ b - 0.5 * c, rtol=0, atol=1e-12 * k)
    first = [each[1] for each in there]
    device.gemm(*first, transpose_a=transpose[0], transpose_b=transpose[1])
    np.testing.assert_allclose(device.download(there[2])[1], a[1] @ b[1], rtol=0, atol=1e-12 * k)


def test_copies_arrive_in_order(device):
    n = 1_000_000 // SIZE
    pinned, back, stream = device.pinned(n), device.pinned(n), device.stream()
    one, two = device.empty(n), device.empty(n)
    for number in range(20):
        pinned[:] = number
        device.copy_in(pinned, one, stream)
        device.copy(one, two, stream)
        device.copy_out(two, back, stream)
        device.synchronize(stream)
        assert back[0] == back[-1] == number
    free, total = device.memory()
    assert 0 < free <= total
    with pytest.raises(MemoryError, match="GB are free"):
        device.empty(total)


@pytest.mark.parametrize("spin_flip", ["auto", "off"])
def test_a_solve_gives_the_energy_of_the_cpu(spin_flip, device, monkeypatch):
    if not REAL:
        monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    strings = close_strings(12, 5, 700 if REAL else 60)
    hamiltonian = make_hamiltonian(12, (5, 5))
    found = {}
    for backend in ("gpu", "cpu"):
        options = SolveOptions(backend=backend, spin_flip=spin_flip, symmetry="off", nroots=2, tol=1e-7)
        found[backend] = solve_subspace(None, hamiltonian, strings, strings, options)
    assert found["gpu"].backend == "gpu"
    np.testing.assert_allclose(found["gpu"].energies, found["cpu"].energies, rtol=0, atol=1e-10)


@pytest.mark.skipif(not REAL, reason="tests/mpi/test_gpu.py runs several ranks on the host shim")
@pytest.mark.parametrize(("n_ranks", "grid"), [(2, "2,1,1,1"), (2, "1,1,2,1"), (4, "2,2,1,1")])
def test_ranks_that_share_a_device(n_ranks, grid, tmp_path):
    strings = close_strings(12, 5, 300)
    records.write_input(tmp_path / "input.h5", make_hamiltonian(12, (5, 5)), strings, strings)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    energies = []
    for backend, ranks, options in (("cpu", 1, []), ("gpu", n_ranks, ["--grid", grid])):
        output = tmp_path / f"{backend}.h5"
        command = [
            str(MPIEXEC), "-n", str(ranks), sys.executable, "-m", "sqd_mpi", "run", str(tmp_path / "input.h5"), "-o",
            str(output), "--backend", backend, "--threads", "1", *options,
        ]  # fmt: skip
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=HANG, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        energies.append(records.read_summary(output)["energy"][0])
    assert energies[1] == pytest.approx(energies[0], abs=1e-10)
