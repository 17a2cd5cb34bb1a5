"""Density matrices on a device (through the host shim) against the CPU's and brute force."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sqd_mpi.backends import get_density_backend, reference
from sqd_mpi.backends.cpu import density
from sqd_mpi.backends.cpu.density import Accumulators
from sqd_mpi.backends.gpu import density as gpu_density
from sqd_mpi.backends.gpu import process_device as device_module
from sqd_mpi.backends.gpu.density import DeviceProducts, GpuDensityBlock
from sqd_mpi.backends.slow import density_kernels
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.errors import RunError
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from sqd_mpi.solver import density_matrices
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim import SHIM
from tests.gpu_shim.host_device import HostDevice
from tests.support.gpu_densities import close, on_device, sums
from tests.support.problems import all_strings, close_strings, make_hamiltonian, random_strings
from tests.support.waiting import HANG

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 1, 0])
SIZES = [((4, 3), (24, 17)), ((5, 5), (1, 30)), ((2, 7), (20, 1)), ((3, 0), (25, 1)), ((10, 4), (1, 9))]


def spin_strings(nelec, counts, labels) -> list[SpinStrings]:
    """Strings of both spins, not alike."""
    norb, found = len(labels), []
    for seed, (n, count) in enumerate(zip(nelec, counts, strict=True)):
        full = n in (0, norb)
        strings = all_strings(norb, n) if full else close_strings(norb, n, count, seed)
        found.append(SpinStrings.from_canonical(strings, labels, int(labels.max()) + 1))
    return found


@pytest.mark.parametrize("labels", [LABELS, 0 * LABELS], ids=["labels", "one label"])
@pytest.mark.parametrize(("nelec", "counts"), SIZES)
def test_sectors_and_transitions(labels, nelec, counts):
    alpha, beta = spin_strings(nelec, counts, labels)
    chosen = sectors(alpha, beta)[:2]
    for first, second in itertools.product(chosen, chosen):
        layouts = [Layout.create(alpha, beta, sector, (1, 1, 1, 1)) for sector in (first, second)]
        for symmetric in [False, True] if first == second else [False]:
            expected = sums(density.create_density_block, layouts, labels, symmetric=symmetric)
            close(sums(on_device(), layouts, labels, symmetric=symmetric), expected)
            assert np.abs(expected.flat).max() > 0 or first != second


@pytest.mark.parametrize(("nelec", "counts"), [((3, 2), (8, 6)), ((2, 3), (9, 5)), ((4, 0), (7, 1))])
def test_brute_force(nelec, counts):
    labels = LABELS[:6]
    alpha, beta = spin_strings(nelec, counts, labels)
    for first, second in itertools.product(sectors(alpha, beta)[:2], repeat=2):
        layouts = [Layout.create(alpha, beta, sector, (1, 1, 1, 1)) for sector in (first, second)]
        symmetric = first == second
        expected = sums(reference.create_density_block, layouts, labels, symmetric=symmetric)
        close(sums(on_device(), layouts, labels, symmetric=symmetric), expected)


@pytest.mark.parametrize("grid", [(2, 3, 1, 1), (3, 1, 2, 2), (1, 2, 1, 3)])
def test_blocks_of_a_grid(grid):
    alpha, beta = spin_strings((4, 3), (24, 17), LABELS)
    for first, second in ((0, 0), (0, 1)):
        layouts = [Layout.create(alpha, beta, sector, grid) for sector in (first, second)]
        symmetric = first == second
        expected = sums(density.create_density_block, layouts, LABELS, symmetric=symmetric)
        close(sums(on_device(), layouts, LABELS, symmetric=symmetric), expected)


@pytest.mark.parametrize(("reverse", "scratch"), [(False, 2**28), (True, 2**16), (True, 0)])
def test_any_scratch_and_order_of_threads(reverse, scratch):
    """Little scratch cuts rows into stacks of one and ket columns into stretches of 32."""
    alpha, beta = spin_strings((3, 3), (15, 70), 0 * LABELS)
    layouts = [Layout.create(alpha, beta, 0, (1, 1, 1, 1))] * 2
    expected = sums(density.create_density_block, layouts, 0 * LABELS)
    device = HostDevice(reverse=reverse)
    found = sums(on_device(device, scratch), layouts, 0 * LABELS)
    close(found, expected)
    assert np.array_equal(found.flat, sums(on_device(device, scratch), layouts, 0 * LABELS).flat)


@pytest.mark.parametrize("order", [1, 2])
def test_more_than_64_orbitals(order):
    labels = np.zeros(65, np.int64)
    spins = [SpinStrings.from_canonical(random_strings(65, n, count), labels, 1) for n, count in ((2, 9), (1, 14))]
    layouts = [Layout.create(*spins, 0, (1, 1, 1, 1))] * 2
    expected = sums(density.create_density_block, layouts, labels, order=order, symmetric=True)
    close(sums(on_device(), layouts, labels, order=order, symmetric=True), expected)


@pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 1), (3, 9000), (2000, 3), (40, 131), (0, 5)])
def test_inner_products_cut_into_parts(n_rows, n_columns):
    rng = np.random.default_rng(n_columns)
    bra, ket = rng.normal(size=(2, n_rows, n_columns))
    offset = np.arange(n_rows) * n_columns
    device = HostDevice()
    vectors = device.upload(bra.ravel()), device.upload(ket.ravel())
    products = DeviceProducts(device)
    for name, count in (("alpha", n_rows), ("beta", min(n_columns, 40))):
        dense = rng.random((count, count)) < 0.4
        indptr = np.concatenate([[0], np.cumsum(dense.sum(axis=1))]).astype(np.int64)
        column = np.nonzero(dense)[1].astype(np.int32)
        values = np.ones((2, len(column)))  # what is there is added to
        for each, arrays, value in ((products, vectors, values[0]), (density_kernels, (bra, ket), values[1])):
            arrays = vectors if each is products else (bra.ravel(), ket.ravel())
            patterns = [(indptr, column, value), (np.zeros(count + 1, np.int64), column[:0], np.zeros(0))]
            if name == "alpha":
                each.alpha_products(*arrays, offset, offset, n_columns, patterns)
            else:
                each.beta_products(*arrays, offset, offset, np.arange(count), n_columns, patterns)
        np.testing.assert_allclose(values[0], values[1], rtol=0, atol=1e-11)


@pytest.fixture
def host_shim(monkeypatch):
    """The host shim as the device of this process."""
    monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    device_module.close_device()
    yield
    device_module.close_device()


@pytest.mark.parametrize("spin_flip", ["auto", "off"])
def test_roots_of_a_solve(host_shim, spin_flip):
    """States and transitions between roots of any parity and sector, from eigenvectors of the GPU backend."""
    labels = LABELS[:6]
    strings = close_strings(6, 3, 12)
    options = SolveOptions(backend="gpu", nroots=4, spin_flip=spin_flip, tol=1e-6)
    hamiltonian = make_hamiltonian(6, (3, 3), seed=2)
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    assert result.backend == "gpu" and get_density_backend("gpu") is gpu_density
    if spin_flip == "auto":
        assert {root.layout.parity for root in result.roots} == {1, -1}
    labels = result.symmetry.both
    for bra, ket in itertools.product(range(4), repeat=2):
        roots = result.roots[bra], result.roots[ket]
        expected = density_matrices.accumulate(result.grid, *roots, 2, labels, density)
        close(density_matrices.accumulate(result.grid, *roots, 2, labels, gpu_density), expected)
    found = density_matrices.density_matrices(result)
    assert np.trace(found.rdm1) == pytest.approx(6, abs=1e-11)


def test_what_does_not_fit_is_made_on_the_cpu(host_shim, monkeypatch):
    alpha, beta = spin_strings((4, 3), (24, 17), LABELS)
    layouts = [Layout.create(alpha, beta, 0, (1, 1, 1, 1))] * 2
    arguments = (*layouts, (0, 0, 0, 0), 10, LABELS, Accumulators.zeros(10, 2, True))
    device = device_module.open_device()
    needed = gpu_density.predict_bytes(*layouts, (0, 0, 0, 0), arguments[-1])
    monkeypatch.setattr(device, "_memory_bytes", 2 * needed + device._allocated)
    assert type(gpu_density.create_density_block(*arguments)) is GpuDensityBlock
    monkeypatch.setattr(device, "_memory_bytes", needed + device._allocated)
    assert type(gpu_density.create_density_block(*arguments)) is density.DensityBlock
    block = GpuDensityBlock(device, *arguments)
    monkeypatch.setattr(device, "_memory_bytes", device._allocated)
    vector = np.ones(layouts[0].dimension)
    with pytest.raises(RunError, match="too little memory for density matrices: the device needs"):
        block.add(0, 0, vector, vector, True)


SANITIZED = """
import tests.backends.gpu.test_density as t
for nelec, counts in t.SIZES[:4]:
    t.test_sectors_and_transitions(t.LABELS, nelec, counts)
t.test_any_scratch_and_order_of_threads(True, 0)
for size in ((3, 9000), (200, 3), (40, 131)):
    t.test_inner_products_cut_into_parts(*size)
print("done")
"""


@pytest.mark.slow
def test_no_access_out_of_bounds(sanitized_environment):
    """The kernels under the address and undefined-behaviour sanitizers."""
    command = [sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, capture_output=True, text=True, env=sanitized_environment, timeout=HANG, check=False)
    assert done.stdout.strip() == "done", done.stderr[-3000:]
