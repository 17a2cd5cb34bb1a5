"""Coordinates, sums, collections and slides of the process grid on every shape."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.distribution import node_memory
from sqd_mpi.distribution.ket_exchange import KetExchange
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.errors import InputError
from tests.support.shapes import shapes

pytestmark = [pytest.mark.mpi, pytest.mark.every_size]


@pytest.fixture
def grids(comm):
    """A grid of every shape, freed afterwards."""
    made = [ProcessGrid(comm, shape) for shape in shapes(comm.size)]
    yield made
    for grid in made:
        grid.free()


def test_coordinates_are_a_bijection(comm, grids):
    for grid in grids:
        a, b, t, r = grid.shape
        places = {(c.ia, c.ib, c.it, c.ir) for c in map(grid.coordinates_of, range(comm.size))}
        assert len(places) == comm.size
        assert all(ia < a and ib < b and it < t and ir < r for ia, ib, it, ir in places)
        assert grid.coordinates == grid.coordinates_of(comm.rank)


def test_communicators_hold_the_right_ranks(comm, grids):
    for grid in grids:
        a, b, t, r = grid.shape
        here = grid.coordinates
        mine = np.array([here.ia, here.ib, here.it, here.ir])
        for part, size, fixed in (
            (grid.layer, a * b, [2, 3]),
            (grid.replicas, t * r, [0, 1]),
            (grid.task_groups, t, [0, 1, 3]),
        ):
            assert part.size == size
            everybody = np.array(part.gather_objects(mine))
            assert np.all(everybody[:, fixed] == mine[fixed])
        assert grid.layer.rank == here.ia * b + here.ib
        assert grid.replicas.rank == here.ir * t + here.it


@pytest.mark.parametrize("extra", [1, 2])
def test_shape_must_fit_the_ranks(comm, extra):
    n_ranks = comm.size + extra
    with pytest.raises(InputError, match=f"^grid {n_ranks},1,1,1 needs {n_ranks} ranks; this run has {comm.size}"):
        ProcessGrid(comm, (n_ranks, 1, 1, 1))


def test_without_mpi():
    grid = ProcessGrid(None, (1, 1, 1, 1))
    values = np.array([1.0, 2.0])
    grid.sum_over_all(values)
    grid.maximum_over_all(values)
    assert values.tolist() == [1.0, 2.0]
    assert grid.gather_everywhere(values).tolist() == [1.0, 2.0]
    out = np.empty(2)
    grid.collect_slices(values, out, [2])
    assert out.tolist() == [1.0, 2.0]
    with pytest.raises(InputError):
        ProcessGrid(None, (2, 1, 1, 1))


def test_sums_and_maxima(comm, grids):
    for grid in grids:
        values = np.array([comm.rank + 1.0, -comm.rank, 0.5])
        grid.sum_over_all(values)
        n = comm.size
        assert values.tolist() == [n * (n + 1) / 2, -n * (n - 1) / 2, n / 2]
        flags = np.array([comm.rank, -comm.rank, 7], np.int64)
        grid.maximum_over_all(flags)
        assert flags.tolist() == [n - 1, 0, 7]


def test_gather_unequal_lengths(comm, grids):
    expected = [value for rank in range(comm.size) for value in [float(rank)] * (rank % 3)]
    for grid in grids:
        assert grid.gather_everywhere(np.full(comm.rank % 3, float(comm.rank))).tolist() == expected


def slice_counts(n: int) -> list[int]:
    """Uneven sizes with empty ones among them."""
    return [(3 * k + 1) % 4 for k in range(n)]


def test_slices_of_a_block_come_together(comm, grids):
    for grid in grids:
        _, _, t, r = grid.shape
        here = grid.coordinates
        counts = slice_counts(t * r)
        mine = here.ir * t + here.it
        whole = np.empty(sum(counts))
        grid.collect_slices(np.full(counts[mine], float(mine)), whole, counts)
        assert whole.tolist() == [float(k) for k, n in enumerate(counts) for _ in range(n)]


def test_partial_sums_are_scattered_over_the_task_groups(comm, grids):
    for grid in grids:
        _, _, t, r = grid.shape
        here = grid.coordinates
        counts = slice_counts(t)
        partial = np.arange(sum(counts), dtype=float) * (here.it + 1) + 100 * here.ir
        mine = np.empty(counts[here.it])
        grid.scatter_sum(partial, mine, counts)
        first = sum(counts[: here.it])
        expected = np.arange(first, first + counts[here.it]) * t * (t + 1) / 2 + 100 * here.ir * t
        assert mine.tolist() == expected.tolist()


def test_every_block_slides_to_who_needs_it(comm, grids):
    """Different ranks need different blocks in their own order; some blocks are empty; many times over."""
    for grid in grids:
        a, b, _, _ = grid.shape
        here = grid.coordinates
        sizes = np.array([[(2 * ia + 3 * ib + 1) % 5 for ib in range(b)] for ia in range(a)], np.int64)
        rng = np.random.default_rng([here.ia, here.ib, 1])
        needed = [(ia, ib) for ia in range(a) for ib in range(b) if rng.random() < 0.7]
        needed = [needed[k] for k in rng.permutation(len(needed))]
        own = np.empty(int(sizes[here.ia, here.ib]))
        exchange = KetExchange(grid, needed, sizes, own)
        assert exchange.remote == [key for key in needed if key != (here.ia, here.ib) and sizes[key] > 0]
        assert exchange.buffer_bytes <= 2 * 8 * sizes.max()
        assert exchange.bytes_received == 8 * sum(int(sizes[key]) for key in exchange.remote)
        for sweep in range(3):
            own[:] = 10 * here.ia + here.ib + 1000 * sweep
            exchange.start()
            for k, (ja, jb) in enumerate(exchange.remote):
                block = exchange.wait(k)
                assert block.tolist() == [10 * ja + jb + 1000 * sweep] * int(sizes[ja, jb])
                exchange.release(k)
            exchange.finish()
        exchange.free()


def test_blocks_in_shared_memory_are_read_in_place_and_others_travel(comm, grids):
    """All ranks of this node see what the replicas of a block have written; a second set of blocks slides as before."""
    for grid in grids:
        _, _, t, r = grid.shape
        here = grid.coordinates
        sizes = np.array([[5 + ia + 2 * ib for ib in range(grid.shape[1])] for ia in range(grid.shape[0])], np.int64)
        blocks = grid.node_blocks(int(sizes[here.ia, here.ib]))
        if comm.size == 1:
            assert blocks is None
            continue
        own = blocks.blocks[here.ia, here.ib]
        assert comm.allreduce(blocks.nbytes) == 8 * sizes.sum()
        present = {key: block for key, block in blocks.blocks.items() if sum(key) % 2 == 0}
        needed = list(np.ndindex(grid.shape[:2]))
        exchange = KetExchange(grid, needed, sizes, own, present)
        assert set(exchange.remote) == set(needed) - {(here.ia, here.ib)}
        for sweep in range(3):
            blocks.fence()
            own[here.ir * t + here.it :: t * r] = 10 * here.ia + here.ib + 1000 * sweep
            blocks.fence()
            exchange.start()
            for k, key in enumerate(exchange.remote):
                assert (exchange.started(k) is None) == (key in present)
                assert exchange.wait(k).tolist() == [10 * key[0] + key[1] + 1000 * sweep] * int(sizes[key])
                exchange.release(k)
            exchange.finish()
        exchange.free()
        blocks.free()


def test_blocks_are_not_shared_where_they_do_not_fit(comm, grids, monkeypatch):
    monkeypatch.setattr(node_memory, "free_shared_memory", lambda: 100 if comm.rank % 2 == 0 else 10**9)
    for grid in grids:
        assert grid.node_blocks(1000) is None
