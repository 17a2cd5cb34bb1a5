"""Half of the ket blocks: sigma of every block on every grid, without MPI, against the dense matrix."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from sqd_mpi import _jit
from sqd_mpi.backends import get_backend
from sqd_mpi.backends.mirrored import MirroredSum
from sqd_mpi.distribution.layout import Layout, diagonal_blocks_meet_half
from sqd_mpi.planner import order_strings
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from sqd_mpi.problem.symmetry import find_labels, trivial_labels
from sqd_mpi.solver.tasks import assign
from tests.support.problems import close_strings, dense_matrix, make_hamiltonian, random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


@pytest.fixture
def two_threads():
    """Two threads where the machine has them."""
    before = _jit.n_threads()
    _jit.set_threads(2)
    yield
    _jit.set_threads(before)


def make_layout(hamiltonian, labels, strings, shape, sector, parity, deal=True):
    """Layout of one sector with equal strings."""
    alpha = SpinStrings.from_canonical(strings, labels.labels, labels.n_labels)
    alpha, _ = order_strings(alpha, alpha, shape, deal=deal, spin_flip=True)
    return Layout.create(alpha, alpha, sector, shape, parity)


def block_of(layout, ia, ib, whole):
    """Block (ia, ib) of an array over working positions, flat."""
    rows, start = layout.ket_rows(ia)
    label = np.repeat(np.arange(layout.n_labels), np.diff(start)) ^ layout.sector
    parts = [whole[i, slice(*layout.beta_bounds[y, ib : ib + 2])] for i, y in zip(rows, label, strict=True)]
    return np.concatenate([*parts, np.empty(0)])


def symmetric_vector(layout, parity, seed=3):
    """A random array over working positions with this parity, zero outside the sector."""
    whole = np.random.default_rng(seed).normal(size=(layout.alpha.size, layout.alpha.size))
    label = np.repeat(np.arange(layout.n_labels), np.diff(layout.alpha.label_start))
    return (whole + parity * whole.T) * ((label[:, None] ^ label) == layout.sector)


def sigma_of(layout, place, backend, hamiltonian, labels, interaction, whole):
    """Stored elements of one sub-block, summed over the task groups, and the ket blocks that were used."""
    ia, ib, _, _ = place
    a, b, t, _ = layout.grid
    share = backend.create_share(layout, place, hamiltonian, labels)
    block = backend.create_block(layout, place, hamiltonian, share)
    total = np.zeros(layout.sub_block_size(ia, place[3], ib))
    used = set()
    for tasks in assign(block, block.tasks(interaction), t):
        block.prepare(tasks)
        sigma = np.zeros_like(total)
        for _ in range(2):  # what is kept between two sigmas must not stay
            sigma[:] = 0.0
            for task in tasks:
                ket = (ia + task.da) % a, (ib + task.db) % b
                used.add(ket)
                block.apply(task, block_of(layout, *ket, whole), sigma, interaction)
            if block.mirrored is not None:
                block.mirrored.fold(sigma)
        total += sigma
    return total, used


def check(hamiltonian, labels, strings, shape, parity, name="cpu", what="energy", deal=True):
    """Every block of a grid in every sector against the dense matrix; which ket blocks diagonal blocks meet."""
    interaction = getattr(Interaction, what)(hamiltonian)
    matrix = dense_matrix(hamiltonian, strings, strings, interaction)
    np.fill_diagonal(matrix, 0.0)
    n, a = len(strings), shape[0]
    for sector in range(labels.n_labels):
        layout = make_layout(hamiltonian, labels, strings, shape, sector, parity, deal)
        whole = symmetric_vector(layout, parity)
        back = np.ix_(layout.alpha.canonical, layout.alpha.canonical)
        canonical = np.empty_like(whole)
        canonical[back] = whole
        expected = (matrix @ canonical.ravel()).reshape(n, n)[back]
        for ia, ib, ir in product(range(a), range(a), range(shape[3])):
            place = ia, ib, 0, ir
            found, used = sigma_of(layout, place, get_backend(name), hamiltonian, labels, interaction, whole)
            bra = layout.bra_rows(ia, ir, ib)
            column = np.repeat(np.arange(layout.n_labels), np.diff(bra.label_start)) ^ sector
            rows = [
                expected[i, layout.beta_bounds[y, ib] :][:stop]
                for i, y, stop in zip(bra.alpha, column, bra.stop, strict=True)
            ]
            wanted = np.concatenate([*rows, np.empty(0)])
            np.testing.assert_allclose(found, wanted, atol=1e-12 * max(1.0, np.abs(expected).max()))
            if layout.meets_half_of_kets(ia, ib):
                assert not any((jb, ja) in used for ja, jb in used if ja != jb)
                assert len(used) <= a * (a + 1) // 2


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (2, 2, 3, 1), (2, 2, 1, 2), (3, 3, 2, 1), (4, 4, 1, 1), (5, 5, 3, 1)])
def test_blocks_of_equal_strings(shape, parity):
    hamiltonian = make_hamiltonian(7, (3, 3), labels=LABELS)
    check(hamiltonian, find_labels(hamiltonian), random_strings(7, 3, 23), shape, parity, deal=parity > 0)


@pytest.mark.parametrize("shape", [(2, 2, 2, 1), (3, 3, 1, 1)])
@pytest.mark.parametrize("what", ["energy", "spin_square"])
def test_two_threads_and_long_rows(shape, what, two_threads):
    hamiltonian = make_hamiltonian(8, (4, 4))
    check(hamiltonian, trivial_labels(8), close_strings(8, 4, 36), shape, 1, what=what)


@pytest.mark.parametrize("parity", [1, -1])
def test_reference_backend(parity):
    hamiltonian = make_hamiltonian(6, (2, 2))
    check(hamiltonian, trivial_labels(6), close_strings(6, 2, 9), (3, 3, 2, 1), parity, name="reference")


@pytest.mark.parametrize("n_strings", [1, 2, 4])
def test_more_blocks_than_strings(n_strings):
    hamiltonian = make_hamiltonian(6, (3, 3))
    check(hamiltonian, trivial_labels(6), close_strings(6, 3, n_strings), (3, 3, 1, 1), 1)


@pytest.mark.parametrize("parity", [1, -1])
def test_fold_adds_the_transpose(parity):
    hamiltonian = make_hamiltonian(10, (5, 5), labels=np.arange(10) % 2)
    strings = random_strings(10, 5, 211)  # rows of 50 to 60: tiles that are not full
    layout = make_layout(hamiltonian, find_labels(hamiltonian), strings, (2, 2, 1, 1), 0, parity)
    kept = MirroredSum(layout, 1)
    rng = np.random.default_rng(8)
    kept.sigma[:] = rng.normal(size=len(kept.sigma))
    sigma = rng.normal(size=layout.sub_block_size(1, 0, 1))
    expected, offset, stored = sigma.copy(), 0, 0
    for first, last in zip(kept.bra.label_start[:-1], kept.bra.label_start[1:], strict=True):
        n = int(last - first)
        square = kept.sigma[offset : offset + n * n].reshape(n, n)
        folded = (square + parity * square.T)[np.tril_indices(n, 0 if parity > 0 else -1)]
        expected[stored : stored + len(folded)] += folded
        offset, stored = offset + n * n, stored + len(folded)
    assert offset == len(kept.sigma) == kept.nbytes // 8 and stored == len(sigma)
    kept.fold(sigma)
    np.testing.assert_allclose(sigma, expected, atol=1e-14)
    assert not kept.sigma.any()


def test_where_all_ket_blocks_are_met():
    assert diagonal_blocks_meet_half(1, 0, (2, 2, 5, 1)) and diagonal_blocks_meet_half(-1, 0, (3, 3, 1, 1))
    for parity, sector, grid in (0, 0, (2, 2, 1, 1)), (1, 3, (2, 2, 1, 1)), (1, 0, (1, 1, 4, 1)), (1, 0, (2, 2, 1, 2)):
        assert not diagonal_blocks_meet_half(parity, sector, grid)
    labels = find_labels(make_hamiltonian(7, (3, 3), labels=LABELS))
    alpha = SpinStrings.from_canonical(random_strings(7, 3, 23), labels.labels, labels.n_labels)
    assert len(sectors(alpha, alpha)) > 1
    layout = Layout.create(alpha, alpha, 0, (2, 2, 1, 1), 1)
    assert layout.meets_half_of_kets(1, 1) and not layout.meets_half_of_kets(0, 1)
    assert not replace(layout, sector=1).meets_half_of_kets(1, 1)
