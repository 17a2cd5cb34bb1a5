"""Grids that fit the number of ranks, and predicted bytes against the arrays of a solve."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.backends import get_backend
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.planner import predict_memory, shapes_of
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.text import plan_text
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import trivial_labels
from sqd_mpi.solver.davidson import default_subspace
from sqd_mpi.solver.sigma import SigmaOperator
from tests.support.problems import close_strings, make_hamiltonian


@pytest.mark.parametrize("grid", [(1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 1, 6), (2, 2, 3, 1), (4, 4, 2, 2), (8, 8, 16, 1)])
def test_memory_stays_below_the_promise(grid):
    # 10 D/(a b t r) + 4 D/(a b) numbers per rank.
    a, b, t, r = grid
    dimension = 5000 * 5000
    predicted = predict_memory(grid, dimension, default_subspace(1))
    assert predicted.total == predicted.vectors + predicted.buffers
    assert predicted.total <= 8 * (10 * dimension / (a * b * t * r) + 4 * dimension / (a * b)) + 1000


def test_memory_grows_with_the_subspace_and_falls_with_the_ranks():
    sizes = [predict_memory((1, 1, 1, 1), 10**6, n).vectors for n in (2, 7, 20)]
    assert sizes == [8 * 6 * 10**6, 8 * 16 * 10**6, 8 * 42 * 10**6]
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


def plan_of(n_ranks, n_strings=60, memory=10**12, spin_flip=True, **changes):
    strings = close_strings(9, 4, n_strings)
    problem = planner.Problem.create(make_hamiltonian(9, (4, 4)), strings, strings, spin_flip=spin_flip)
    return planner.make_plan(problem, n_ranks, MachineProfile(**changes), 1, planner.MemoryLimits(memory, 7, 3), (1, 2))


def test_single_precision_halves_messages_and_takes_less_time():
    strings, hamiltonian = close_strings(9, 4, 60), make_hamiltonian(9, (4, 4))
    limits = planner.MemoryLimits(10**12, 7, 3)
    double, single = (
        planner.predict(planner.Problem.create(hamiltonian, strings, strings, single=single), (2, 2, 2, 1),
                        MachineProfile(), 1, limits)
        for single in (False, True)
    )  # fmt: skip
    assert single.message_bytes_per_rank == pytest.approx(double.message_bytes_per_rank / 2, abs=1)
    assert single.compute_seconds["alpha"] < 0.6 * double.compute_seconds["alpha"]  # no groups that must be filled up
    assert single.bytes_per_rank == double.bytes_per_rank  # the last sigmas are in double precision
    assert single.to_dict()["single_precision"] and not double.to_dict()["single_precision"]


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 6, 7, 12, 64, 97])
@pytest.mark.parametrize("n_strings", [1, 2, 60])
def test_chosen_grid_uses_all_ranks(n_ranks, n_strings):
    plan = plan_of(n_ranks, n_strings)
    assert np.prod(plan.chosen.grid) == n_ranks
    assert {np.prod(found.grid) for found in plan.grids} == {n_ranks}
    assert plan.chosen.seconds_per_iteration <= 1.021 * min(found.seconds_per_iteration for found in plan.grids)


def test_all_grids_of_a_number_of_ranks_are_looked_at():
    shapes, left_out = shapes_of(12, 100, 100)
    assert left_out == 0 and len(shapes) == len(set(shapes)) == 40  # of 2^2: 10, of 3: 4 distributions over 4 places
    shapes, left_out = shapes_of(5040, 10**5, 10**5, most=200)
    assert len(shapes) == 200 and left_out == 35 * 10 * 4 * 4 - 200
    assert all(np.prod(shape) == 5040 for shape in shapes)
    assert shapes_of(7, 1, 1)[0] == [(1, 1, 7, 1)]


def test_nothing_fits_into_too_little_memory():
    plan = plan_of(2, memory=10**6)
    assert plan.chosen is None and not plan.grids
    nearest = plan.too_large[0]
    assert nearest.missing_bytes == nearest.bytes_per_rank - 10**6
    text = " ".join(plan_text(plan, "title").split())
    assert "No grid of 2 ranks fits into 0.001 GB" in text and f"lacks {nearest.missing_bytes / 1e9:.3g} GB" in text
    found = plan.to_dict()
    assert found["chosen"] is None and found["missing_bytes"] == nearest.missing_bytes and found["grids"] == []


def test_less_memory_means_fewer_basis_vectors_before_it_means_no():
    full = plan_of(1).chosen
    smaller = plan_of(1, memory=full.bytes_per_rank - 8)
    assert full.max_subspace == 7 and smaller.chosen.max_subspace == 6


def test_slow_messages_favour_grids_without_ket_blocks():
    plan = plan_of(4, slide_latency_seconds=1.0, spin_flip=False)
    assert plan.chosen.messages_per_rank == 0
    assert plan.worthwhile_ranks == 2 and [found.grid[:2] for found in plan.scaling] == [(1, 1), (1, 1)]


def test_json_has_the_fields_of_the_interface():
    found = json.loads(json.dumps(plan_of(4).to_dict(), allow_nan=False))
    assert len(found["chosen"]) == 4
    names = {"grid", "bytes_per_rank", "seconds_per_sigma", "balance", "message_bytes_per_rank", "messages_per_rank"}
    assert all(names <= set(grid) for grid in found["grids"]) and len(found["grids"]) == 10
    assert all(grid["balance"] >= 1.0 for grid in found["grids"])


def test_text_names_the_best_grid_and_what_pays_off():
    plan = plan_of(4)
    text = plan_text(plan, "title")
    assert f"Best: ({','.join(map(str, plan.chosen.grid))})." in text
    assert "efficiency" in text and "title" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("> ")] == [
        ",".join(map(str, plan.chosen.grid))
    ]


COLUMNS = ["GB/rank", "process", "vectors", "buffers", "lists", "compute s", "balance", "messages", "MB", "s/sigma",
           "s/solve", "fits"]  # fmt: skip


@pytest.mark.parametrize("width", [None, 40, 80, 100, 200])
@pytest.mark.parametrize("memory", [10**12, 10**8, 10**6])
def test_lines_keep_to_the_width_and_nothing_is_cut(monkeypatch, width, memory):
    """Columns go, the least important ones first, and are named; what stays is whole, in one unit."""
    monkeypatch.delenv("COLUMNS", raising=False)
    plan = plan_of(64, memory=memory)
    text = plan_text(plan, "a title of some length, " * 8, width)
    assert max(map(len, text.splitlines())) <= max(80, width or 80)
    assert text.isascii() and "GiB" not in text and not any(line.endswith(" ") for line in text.splitlines())
    lines = text.splitlines()
    place = next(k for k, line in enumerate(lines) if line.lstrip().startswith("a,b,t,r"))
    shown = [name for name in COLUMNS if f" {name} " in f"{lines[place]} "]
    flat = " ".join(lines)
    left_out = [name for name in COLUMNS if name not in shown]
    assert (f"Not shown in {max(80, width or 80)} columns (COLUMNS=200 shows all): {', '.join(left_out)}." in flat) == (
        width != 200
    )
    assert {"GB/rank", "s/sigma", "s/solve", "fits"} <= set(shown)
    rows = [*plan.grids, *plan.too_large][:20]
    for line, row in zip(lines[place + 2 :], rows, strict=False):
        words = line.replace("*", " ").lstrip("> ").split()
        assert words[0] == ",".join(map(str, row.grid)) and words[1] == f"{row.bytes_per_rank / 1e9:.3g}"
        assert f"{row.seconds_per_sigma:.3g}" in words and f"{row.seconds_per_solve:.3g}" in words
        assert " ".join(words[-3:]) == f"lacks {row.missing_bytes / 1e9:.3g} GB" or (row.fits and words[-1] == "yes")
