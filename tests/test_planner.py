"""Grids that fit the number of ranks, and predicted bytes against the arrays of a solve."""

from __future__ import annotations

from itertools import product

import pytest

from sqd_mpi.backends import Interaction, get_backend
from sqd_mpi.davidson import default_subspace
from sqd_mpi.grid import ProcessGrid
from sqd_mpi.layout import Layout, SpinStrings
from sqd_mpi.planner import predict_memory
from sqd_mpi.sigma import SigmaOperator
from sqd_mpi.symmetry import trivial_labels
from tests.problems import close_strings, make_hamiltonian


@pytest.mark.parametrize("grid", [(1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 1, 6), (2, 2, 3, 1), (4, 4, 2, 2), (8, 8, 16, 1)])
def test_memory_stays_below_the_promise(grid):
    # 16 D/(a b t r) + 4 D/(a b) numbers per rank.
    a, b, t, r = grid
    dimension = 5000 * 5000
    predicted = predict_memory(grid, dimension, default_subspace(1))
    assert predicted.total == predicted.vectors + predicted.buffers
    assert predicted.total <= 8 * (16 * dimension / (a * b * t * r) + 4 * dimension / (a * b)) + 1000


def test_memory_grows_with_the_subspace_and_falls_with_the_ranks():
    sizes = [predict_memory((1, 1, 1, 1), 10**6, n).vectors for n in (2, 7, 20)]
    assert sizes == [8 * 5 * 10**6, 8 * 15 * 10**6, 8 * 41 * 10**6]
    assert predict_memory((1, 1, 1, 1), 10**6, 7).buffers == 0
    totals = [predict_memory((n, 1, 1, 1), 10**6, 7).total for n in (2, 4, 8)]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 1, 1), (2, 1, 2, 2), (1, 4, 3, 1), (1, 1, 2, 3)])
def test_prediction_covers_every_rank_of_the_layout(shape):
    a, b, t, r = shape
    trivial = trivial_labels(8)
    alpha, beta = (
        SpinStrings.from_canonical(close_strings(8, n, count), trivial.labels, 1) for n, count in ((4, 61), (3, 47))
    )
    layout = Layout.create(alpha, beta, 0, shape)
    predicted = predict_memory(shape, layout.dimension, 5)
    places = list(product(range(a), range(b), range(t), range(r)))
    vectors = [11 * layout.slice_size(*place) for place in places]
    blocks = [layout.block_size(ia, ib) for ia in range(a) for ib in range(b)]
    # Blocks are uneven by at most one row and one column.
    assert 0.8 * predicted.vectors <= 8 * max(vectors) <= 1.2 * predicted.vectors
    n_ranks = a * b * t * r
    partial = max(layout.sub_block_size(ia, ir, ib) for ia, ib, _, ir in places) if t > 1 else 0
    buffers = (n_ranks > 1) * max(blocks) + min(2, a * b - 1) * max(blocks) + partial
    assert 0.8 * predicted.buffers <= 8 * buffers <= 1.2 * predicted.buffers


def test_one_process_needs_no_buffers():
    hamiltonian = make_hamiltonian(6, (3, 3))
    strings = close_strings(6, 3, 10)
    trivial = trivial_labels(6)
    alpha = SpinStrings.from_canonical(strings, trivial.labels, 1)
    layout = Layout.create(alpha, alpha, 0, (1, 1, 1, 1))
    backend = get_backend("cpu")
    share = backend.create_share(layout, (0, 0, 0, 0), hamiltonian, trivial)
    block = backend.create_block(layout, (0, 0, 0, 0), hamiltonian, share)
    operator = SigmaOperator(ProcessGrid(None, (1, 1, 1, 1)), layout, block, Interaction.energy(hamiltonian))
    assert operator.plan.buffer_bytes == predict_memory((1, 1, 1, 1), 100, 7).buffers == 0
