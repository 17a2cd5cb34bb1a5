"""The kernel of S^2 against the plain twin of the opposite-spin sum with a coupling of zeros."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends.cpu import swaps
from sqd_mpi.backends.cpu.block import CpuBlock, StringStructure
from sqd_mpi.backends.cpu.records import Rows
from sqd_mpi.backends.slow import kernels
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import find_labels
from tests.support.problems import make_hamiltonian, random_strings
from tests.support.shapes import LABELS


@pytest.mark.parametrize("sector", [0, 1])
@pytest.mark.parametrize(("grid", "parity"), [((1, 1, 1, 1), 0), ((2, 3, 1, 1), 0), ((2, 2, 1, 1), 1)])
def test_against_the_plain_twin(grid, parity, sector):
    norb, nelec = 7, (3, 3) if parity else (4, 3)
    hamiltonian = make_hamiltonian(norb, nelec, labels=LABELS)
    labels = find_labels(hamiltonian)
    alpha, beta = (
        SpinStrings.from_canonical(random_strings(norb, n, 20, seed), labels.labels, labels.n_labels)
        for seed, n in enumerate(nelec)
    )
    layout = Layout.create(alpha, alpha if parity else beta, sector, grid, parity)
    rng, largest = np.random.default_rng(1), 0.0
    for ia in range(grid[0]):
        for ib in range(grid[1]):
            place = ia, ib, 0, 0
            share = StringStructure(layout, place, hamiltonian, labels)
            block = CpuBlock(layout, place, share)
            tasks = [task for task in block.tasks(Interaction.spin_square(hamiltonian)) if task.kind == "mixed"]
            block.prepare(tasks)
            for task in tasks:
                largest = max(largest, compare(block, task, rng))
    assert largest > 0.1


def compare(block: CpuBlock, task, rng) -> float:
    """One task by both kernels, on a random vector; returns the largest element."""
    layout, share, a, b = block.layout, block.share, *block.layout.grid[:2]
    offsets = block._ket_offset[(block.ia + task.da) % a, (block.ib + task.db) % b]
    ket = rng.normal(size=max(layout.block_size((block.ia + task.da) % a, (block.ib + task.db) % b), 1))
    bra = block._bra_of(task)
    rows = Rows(bra.offset, bra.stop, offsets)
    size = int((bra.offset + bra.stop).max(initial=1))
    groups = share.alpha(task.da, share.rows_of(task), task.mirrored).directed
    groups = groups.of_sector(layout.sector, layout.n_labels)
    beta = share.beta[task.db]
    n_pairs = share.norb * (share.norb + 1) // 2
    expected, found = np.zeros(size), np.zeros(size)
    kernels.opposite_spin(ket, expected, rows, groups, beta, np.zeros((n_pairs, n_pairs)), 0.7, np.empty((8, 1)))
    swaps.swap_both(ket, found, rows, groups, share.sorted_beta(task.db), -0.7)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    return float(abs(expected).max())


def test_sorted_singles_are_the_same_singles():
    hamiltonian = make_hamiltonian(7, (3, 3), labels=LABELS)
    labels = find_labels(hamiltonian)
    strings = SpinStrings.from_canonical(random_strings(7, 3, 25), labels.labels, labels.n_labels)
    layout = Layout.create(strings, strings, 0, (1, 1, 1, 1), 0)
    (beta,) = StringStructure(layout, (0, 0, 0, 0), hamiltonian, labels).beta
    found = swaps.sort_singles(beta, 7)
    for matrix in range(len(beta.matrix_row) - 1):
        first, last = beta.matrix_row[matrix : matrix + 2]
        entries = slice(beta.indptr[first], beta.indptr[last])
        rows = np.repeat(np.arange(last - first), np.diff(beta.indptr[first : last + 1]))
        expected = zip(beta.orbital_pair[entries], rows, beta.column[entries], beta.sign[entries], strict=True)
        pairs = np.repeat(np.arange(56), np.diff(found.start[matrix]))
        there = found.row[entries], found.column[entries], found.sign[entries]
        assert sorted(expected) == list(zip(pairs, *there, strict=True))
