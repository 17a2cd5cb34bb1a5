"""The fast sums of density matrices against their plain twins, on awkward sizes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from sqd_mpi import _jit
from sqd_mpi.backends.cpu import density_kernels
from sqd_mpi.backends.cpu.density import Accumulators, DensityBlock
from sqd_mpi.backends.slow import density_kernels as slow_kernels
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from tests.support.paths import ROOT
from tests.support.problems import all_strings, close_strings, random_strings
from tests.support.waiting import HANG

LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 1, 0])
PLACE = (0, 0, 0, 0)


def strings_of(norb: int, n_electrons: int, count: int, seed: int) -> np.ndarray:
    if n_electrons in (0, norb):
        return all_strings(norb, n_electrons)
    return close_strings(norb, n_electrons, count, seed)


@pytest.mark.parametrize("labels", [LABELS, 0 * LABELS])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("nelec", "counts"),
    [((4, 3), (60, 43)), ((5, 5), (1, 90)), ((2, 7), (40, 1)), ((3, 0), (70, 1)), ((10, 4), (1, 9))],
)
def test_fast_sums_equal_plain_sums(monkeypatch, labels, n_threads, nelec, counts):
    monkeypatch.setattr(_jit, "n_threads", lambda: n_threads)
    n_labels = int(labels.max()) + 1
    alpha, beta = (
        SpinStrings.from_canonical(strings_of(10, n, count, k), labels, n_labels)
        for k, (n, count) in enumerate(zip(nelec, counts, strict=True))
    )
    rng = np.random.default_rng(0)
    for bra_sector in sectors(alpha, beta)[:2]:
        for ket_sector in sectors(alpha, beta):
            bra_layout, ket_layout = (Layout.create(alpha, beta, s, (1, 1, 1, 1)) for s in (bra_sector, ket_sector))
            bra, ket = (rng.normal(size=layout.dimension) for layout in (bra_layout, ket_layout))
            symmetric = bra_sector == ket_sector
            found = []
            for kernels in (density_kernels, slow_kernels):
                out = Accumulators.zeros(10, 2, symmetric)
                block = DensityBlock(bra_layout, ket_layout, PLACE, 10, labels, out, kernels)
                block.add(0, 0, ket if symmetric else bra, ket, True)
                found.append(out.flat)
            np.testing.assert_allclose(found[0], found[1], atol=1e-12 * max(np.abs(found[1]).max(), 1.0))
            assert np.abs(found[1]).max() > 0 or bra_sector != ket_sector


@pytest.mark.parametrize("n_columns", [1, 7, 64, 131])
@pytest.mark.parametrize("n_rows", [1, 9, 70])
def test_inner_products_of_any_length(n_columns, n_rows):
    rng = np.random.default_rng(n_columns)
    bra, ket = rng.normal(size=(2, n_rows, n_columns))
    offset = np.arange(n_rows) * n_columns
    for name, count, shape in (("alpha", n_rows, (n_rows, n_rows)), ("beta", n_columns, (n_columns, n_columns))):
        dense = rng.random(shape) < 0.4
        indptr = np.concatenate([[0], np.cumsum(dense.sum(axis=1))])
        column = np.nonzero(dense)[1].astype(np.int32)
        expected = (bra @ ket.T if name == "alpha" else bra.T @ ket)[dense]
        for kernels in (density_kernels, slow_kernels):
            value = np.zeros(len(column))
            patterns = [(indptr, column, value)]
            if name == "alpha":
                kernels.alpha_products(bra.ravel(), ket.ravel(), offset, offset, n_columns, patterns)
            else:
                columns = np.arange(count)
                kernels.beta_products(bra.ravel(), ket.ravel(), offset, offset, columns, n_columns, patterns)
            np.testing.assert_allclose(value, expected, atol=1e-12 * n_rows * n_columns)


def test_two_words_a_string():
    strings = random_strings(70, 3, 30)
    layout = Layout.create(*[SpinStrings.from_canonical(strings, np.zeros(70, np.int64), 1)] * 2, 0, (1, 1, 1, 1))
    vector = np.random.default_rng(1).normal(size=layout.dimension)
    out = Accumulators.zeros(70, 1, True)
    DensityBlock(layout, layout, PLACE, 70, np.zeros(70, np.int64), out).add(0, 0, vector, vector, True)
    np.testing.assert_allclose(np.trace(out.one, axis1=1, axis2=2), 3 * np.dot(vector, vector))


FREED_AT_ONCE = """
import numpy as np
from pytest import MonkeyPatch
from tests.backends.cpu import test_density
test_density.test_fast_sums_equal_plain_sums(MonkeyPatch(), 0 * test_density.LABELS, 2, (4, 3), (60, 43))
test_density.test_inner_products_of_any_length(9, 131)
print("done")
"""


def test_no_array_is_freed_before_its_last_use_by_address():
    """The allocator of glibc gives arrays back to the system at once, and fills the rest of what is freed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_PERTURB_": "165"}
    command = [sys.executable, "-c", FREED_AT_ONCE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=HANG, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]
