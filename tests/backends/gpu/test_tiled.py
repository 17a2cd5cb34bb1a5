"""The tiled form of opposite spin: its lists, its thread blocks, and its sums on the host shim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sqd_mpi.backends.cpu import lists
from sqd_mpi.backends.cpu.records import BetaSingles
from sqd_mpi.backends.gpu import tiled_lists, tiled_shape
from sqd_mpi.backends.gpu.costs import ListSizes
from sqd_mpi.backends.gpu.device import Limits
from sqd_mpi.backends.gpu.tiled_shape import TiledShape
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.problem.spin_strings import SpinStrings
from tests.gpu_shim.host_device import HostDevice
from tests.support.gpu_blocks import CASES, LABELS, LONG, Case, Problem, assert_close, check
from tests.support.problems import random_strings

NORB = 14
N_PAIRS = NORB * (NORB + 1) // 2


def beta_singles(n_labels: int) -> list[BetaSingles]:
    """Singles of random strings with one label, or several; without labels they use more pairs than a chunk has."""
    labels = np.arange(NORB) % n_labels
    pair_labels = np.array([labels[p] ^ labels[q] for p in range(NORB) for q in range(p + 1)], np.int64)
    sides = [
        SpinStrings.from_canonical(random_strings(NORB, n, 400, seed=seed), labels, n_labels)
        for n, seed in ((4, 0), (5, 1))
    ]
    return lists.beta_singles(Layout.create(*sides, 0, (1, 2, 1, 1)), 1, NORB, pair_labels)


def read(found: tiled_lists.TiledLists, q: int) -> list[tuple[int, int, int, int]]:
    """Entries of a list as (bra column, ket column, directed pair, sign), read as the kernel does."""
    chunks, entries, n_warps = found.chunks, [], found.n_threads // 32
    first, n_singles, n_diagonal, n_tiles, _, _ = chunks.lists[q]
    for chunk in range(first, first + n_singles + n_diagonal):
        first_used, n_used, first_cell = chunks.chunks[chunk]
        assert 0 < n_used <= tiled_shape.CHUNK
        for tile in range(n_tiles):
            threads: dict[int, int] = {}
            for warp in range(n_warps):
                slices = found.slice_start[(first_cell + tile) * n_warps + warp :][:2]
                for at in range(*slices):
                    entry, thread = int(found.entries[at]), 32 * warp + (at - slices[0]) % 32
                    if entry == tiled_lists.NONE:
                        continue
                    bra, ket = entry & 0xFFFF, entry >> 22 & 0x7F
                    assert ket < chunks.tile_width
                    assert threads.setdefault(bra, thread) == thread, "two threads would add to one sum"
                    pair = int(chunks.used[first_used + (entry >> 16 & 0x3F)])
                    assert (entry >> 16 & 0x3F) < n_used
                    sign = -1 if entry >> 30 else 1
                    ket += tile * chunks.tile_width
                    entries.append((bra, ket, 2 * pair + (entry >> 29 & 1), sign))
    return entries


@pytest.mark.parametrize("n_threads", [128, 256])
@pytest.mark.parametrize("n_labels", [1, 4])
def test_every_single_and_diagonal_term_stands_once(n_threads: int, n_labels: int) -> None:
    for table in beta_singles(n_labels):
        found = tiled_lists.tiled_lists(table, N_PAIRS, n_threads)
        for q in range(n_labels**2):
            rows = range(table.matrix_row[q], table.matrix_row[q + 1])
            expected = [
                (row - rows[0], int(table.column[m]), int(table.orbital_pair[m]), int(table.sign[m]))
                for row in rows
                for m in range(table.indptr[row], table.indptr[row + 1])
            ]
            if table.matrix_diagonal[q]:
                expected += [(row - rows[0],) * 2 + (2 * int(p), 1) for row in rows for p in table.occupied_pair[row]]
            assert sorted(read(found, q)) == sorted(expected)
            if n_labels == 1 and table.matrix_diagonal[q]:
                assert found.chunks.lists[q, 1] > 1, "the strings use pairs for more than one chunk"


def test_pairs_of_singles_ascend_and_those_of_the_diagonal_follow() -> None:
    table = beta_singles(1)[0]
    chunks = tiled_lists.cut_chunks(table, N_PAIRS, 64)
    first, n_singles, n_diagonal = chunks.lists[0, :3]
    starts = chunks.chunks[first : first + n_singles + n_diagonal + 1, 0]
    singles = chunks.used[: starts[n_singles]]
    np.testing.assert_array_equal(singles, np.unique(table.orbital_pair >> 1))
    np.testing.assert_array_equal(chunks.used[len(singles) :], np.unique(table.occupied_pair))
    sizes = chunks.chunks[:n_singles, 1]
    assert sizes.max() - sizes.min() < tiled_shape.PAIRS


def test_sorting_by_pair_keeps_rows_and_their_parts_together() -> None:
    rng = np.random.default_rng(0)
    start = np.array([0, 3, 3, 40, 41])
    ket = np.arange(41, dtype=np.int32)
    pair, sign = rng.integers(0, 9, 41).astype(np.int32), rng.choice([-1, 1], 41).astype(np.int8)
    pairs, signs = pair.copy(), sign.copy()
    tiled_lists.sort_by_pair(start, ket, pair, sign)
    for low, high in zip(start[:-1], start[1:], strict=True):
        assert set(ket[low:high]) == set(range(low, high))
        assert (np.diff(pair[low:high]) >= 0).all()
    np.testing.assert_array_equal(pair, pairs[ket])
    np.testing.assert_array_equal(sign, signs[ket])


@pytest.mark.parametrize(
    ("shared", "n_columns", "shape"),
    [
        (232448, 8250, TiledShape(128, 8250, 115408)),  # H100: two thread blocks on a processor
        (232448, 10499, TiledShape(256, 10499, 8 * (64 * 128 + 2048 + 10499 + 32))),
        (232448, 40000, TiledShape(128, 0, 8 * (64 * 64 + 2048 + 32))),
        (65536, 1000, TiledShape(128, 1000, 8 * (64 * 64 + 2048 + 1000 + 32))),  # AMD
        (65536, 2500, TiledShape(128, 0, 8 * (64 * 64 + 2048 + 32))),
        (49152, 1, None),
        (232448, 2**16 + 1, None),
    ],
)
def test_thread_blocks_fit_into_shared_memory(shared: int, n_columns: int, shape: TiledShape | None) -> None:
    assert TiledShape.choose(shared, n_columns) == shape


@pytest.mark.parametrize(("shared", "taken"), [(49152, False), (65536, True)])
def test_small_processors_take_another_form(shared: int, taken: bool, monkeypatch) -> None:
    """The form without room is never the cheapest, and counted work stays finite."""
    direct = ListSizes.direct
    monkeypatch.setattr(ListSizes, "direct", lambda sizes, n, *_: direct(sizes, 1e3 * n))
    monkeypatch.setattr(ListSizes, "product", lambda sizes, n, *_: direct(sizes, 1e6 * n))
    problem = Problem(CASES["all strings"], HostDevice())
    problem.device.limits = Limits(shared, 4)
    _, block, _ = problem.blocks((0, 0, 0, 0))
    (task,) = [task for task in block.tasks(problem.interactions["energy"]) if task.kind == "mixed"]
    block.prepare([task])
    plan = block._opposite_spin._plans[0, 0, block.share.rows_of(task)]
    assert bool(plan.tiled) == taken and bool(plan.direct) == (not taken)
    assert np.isfinite(task.cost) and np.isfinite(block.work([task], problem.interactions["energy"]).seconds)


SHAPES = {"small": (128, True), "large": (256, True), "in memory": (128, False)}
BLOCKS = Case(7, (3, 3), (30, 30), (2, 2, 1, 1), LABELS, parity=1)
SUMS = {
    "rectangle": LONG["rectangle"],
    "even triangle": replace(LONG["triangle"], grid=(1, 1, 1, 1)),
    "odd triangle": Case(7, (3, 3), (30, 30), labels=LABELS, parity=-1),
    "triangle of blocks": BLOCKS,
    "more singles than at a time": Case(16, (3, 1), (560, 9)),
    "spin-dependent": CASES["spin-dependent sectors"],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SUMS)
def test_sums_against_the_cpu_backend(name: str, shape: str, monkeypatch) -> None:
    n_threads, in_shared = SHAPES[shape]

    def choose(shared_bytes: int, n_columns: int) -> TiledShape:
        n_sums = n_columns if in_shared else 0
        return TiledShape(n_threads, n_sums, 8 * (32 * n_threads + 2048 + n_sums + 32))

    monkeypatch.setattr(TiledShape, "choose", choose)
    device = HostDevice(reverse=shape == "large")
    device.limits = Limits(2**18, 4)
    check(Problem(SUMS[name], device, "tiled"))


def test_there_are_more_singles_than_at_a_time() -> None:
    problem = Problem(SUMS["more singles than at a time"], HostDevice())
    _, block, _ = problem.blocks((0, 0, 0, 0))
    assert np.diff(block.share.strings.singles.indptr).max() > 32


@pytest.mark.parametrize(("name", "place"), [("even triangle", (0, 0, 0, 0)), ("triangle of blocks", (1, 1, 0, 0))])
def test_pieces_of_halves_add_up(name: str, place: tuple[int, int, int, int]) -> None:
    """Of a block that is its own mirror image one half is made, whichever rows are in which piece."""
    problem = Problem(SUMS[name], HostDevice(), "tiled")
    on_cpu, on_gpu, _ = problem.blocks(place)
    interaction = problem.interactions["penalised"]
    n_rows = len(on_gpu._opposite_spin.rows.bra.alpha)
    tasks = [task for task in on_gpu.tasks(interaction) if task.kind == "mixed"]
    assert len(tasks) == problem.layout.grid[0] ** 2
    for task in tasks:
        pieces = [replace(task, rows=rows) for rows in ((0, 3), (3, n_rows // 2), (n_rows // 2, n_rows))]
        ket, start = problem.ket(place, task), problem.sigma(place)
        expected, there = start.copy(), problem.device.upload(start)
        on_cpu.prepare([task])
        on_cpu.apply(task, ket, expected, interaction)
        for piece in pieces:  # as on the ranks of several task groups
            on_gpu.prepare([piece])
            folded = on_gpu._opposite_spin._plans[task.da, task.db, piece.rows].fold is not None
            assert folded == (task.da == task.db)
            on_gpu.apply(piece, problem.device.upload(ket), there, interaction)
        assert_close(problem.device.download(there), expected)


def test_the_form_does_not_depend_on_the_rows_of_a_piece(monkeypatch) -> None:
    """Half of the pairs of one piece and all of those of another would be a wrong sum."""
    direct = ListSizes.direct
    problem = Problem(SUMS["even triangle"], HostDevice())
    _, block, _ = problem.blocks((0, 0, 0, 0))
    n_rows = len(block._opposite_spin.rows.bra.alpha)

    def cheap_for_few_rows(sizes, n_singles, *arguments):
        return tuple(0.5 ** (n_rows - len(n_singles)) * part for part in direct(sizes, 1e3 * n_singles, *arguments))

    monkeypatch.setattr(ListSizes, "direct", cheap_for_few_rows)
    monkeypatch.setattr(ListSizes, "product", lambda sizes, n, *_: direct(sizes, 1e6 * n))
    (task,) = [task for task in block.tasks(problem.interactions["energy"]) if task.kind == "mixed"]
    for rows in ((0, 3), (3, n_rows)):
        block.prepare([replace(task, rows=rows)])
        plan = block._opposite_spin._plans[0, 0, rows]
        assert plan.tiled and plan.fold is not None and not plan.direct and not plan.products


def test_row_groups_make_all_pairs() -> None:
    """The mirror image of a row lies on another rank."""
    problem = Problem(LONG["triangle"], HostDevice(), "tiled")
    _, block, _ = problem.blocks((0, 0, 0, 1))
    (task,) = [task for task in block.tasks(problem.interactions["energy"]) if task.kind == "mixed"]
    block.prepare([task])
    assert block._opposite_spin._plans[0, 0, block.share.rows_of(task)].fold is None
