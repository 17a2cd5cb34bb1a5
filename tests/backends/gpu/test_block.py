"""GpuBlock on the host shim against CpuBlock, task by task, and against the brute-force definition."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sqd_mpi.backends.gpu import share
from sqd_mpi.backends.gpu.device import Limits
from sqd_mpi.backends.gpu.rows import BlockRows
from sqd_mpi.backends.gpu.share import Tiles
from tests.gpu_shim.host_device import HostDevice
from tests.support.gpu_blocks import CASES, LONG, Case, Problem, assert_close, check
from tests.support.waiting import HANG

FORMS = [("direct", "sparse"), ("product", "dense"), ("tiled", "sparse")]
# In all forms what they differ in; every other size in one of them, in turn.
IN_ALL_FORMS = "one string", "A unlike B", "sectors", "grid of sectors", "odd triangle", "spin-dependent", "65 orbitals"
TRIED = [(name, *FORMS[number % 3]) for number, name in enumerate(CASES) if name not in IN_ALL_FORMS]
TRIED += [(name, *form) for name in IN_ALL_FORMS for form in FORMS]


@pytest.mark.parametrize(("name", "form", "same_spin"), TRIED)
def test_against_the_cpu_backend(name: str, form: str, same_spin: str) -> None:
    check(Problem(CASES[name], HostDevice(reverse=form == "product"), form, same_spin))


@pytest.mark.parametrize("name", ["no labels", "sectors", "odd triangle", "spin-dependent", "65 orbitals"])
@pytest.mark.parametrize(("room", "form"), [(12, "direct"), (40, "product"), (60, "direct")])
def test_what_does_not_fit_into_shared_memory_is_cut_or_read_in_place(name, room, form, monkeypatch) -> None:
    monkeypatch.setattr(share, "_SHARED_BYTES", 8 * room)
    check(Problem(replace(CASES[name], grid=(1, 1, 1, 1)), HostDevice(), form))


@pytest.mark.parametrize("form", ["direct", "product"])
@pytest.mark.parametrize("name", LONG)
def test_rows_of_several_thread_blocks(name: str, form: str, monkeypatch) -> None:
    """Rows longer than a thread block covers, with several windows of sorted columns and tiles of ket columns."""
    monkeypatch.setattr(BlockRows, "n_threads", lambda *_: 64)
    monkeypatch.setattr(share, "_SHARED_BYTES", 8 * 150)
    check(Problem(LONG[name], HostDevice(), form, "sparse"))


@pytest.mark.parametrize("name", ["no labels", "sectors", "grid of sectors", "full shells", "spin-dependent"])
def test_against_the_definition(name: str) -> None:
    """All tasks of a place together, with whatever form is cheaper."""
    problem = Problem(CASES[name], HostDevice())
    device = problem.device
    for place in problem.places():
        _, on_gpu, definition = problem.blocks(place)
        for interaction in problem.interactions.values():
            sigma, there = problem.sigma(place), device.upload(problem.sigma(place))
            for task in definition.tasks(interaction):
                definition.apply(task, problem.ket(place, task), sigma, interaction)
            tasks = on_gpu.tasks(interaction)
            on_gpu.prepare(tasks)
            for task in tasks:
                on_gpu.apply(task, device.upload(problem.ket(place, task)), there, interaction)
            assert_close(device.download(there), sigma)


@pytest.mark.parametrize(("name", "form"), [("sectors", None), ("sectors", "tiled"), ("even triangle", "tiled")])
def test_results_do_not_depend_on_the_order_of_threads(name: str, form: str | None) -> None:
    """Every element has one owner: forwards and backwards give the same bits."""
    found = []
    for reverse in (False, True):
        problem = Problem(CASES[name], HostDevice(reverse=reverse), form)
        place = problem.places()[0]
        _, block, _ = problem.blocks(place)
        interaction = problem.interactions["penalised"]
        there = problem.device.upload(problem.sigma(place))
        tasks = block.tasks(interaction)
        block.prepare(tasks)
        for task in tasks:
            block.apply(task, problem.device.upload(problem.ket(place, task)), there, interaction)
        found.append(problem.device.download(there))
    np.testing.assert_array_equal(*found)


def test_small_scratch_makes_many_batches(monkeypatch) -> None:
    from sqd_mpi.backends.gpu import block

    monkeypatch.setattr(block, "_SCRATCH_BYTES", 8)
    check(Problem(replace(CASES["sectors"], counts=(12, 10)), HostDevice(), "product"))


def test_lists_are_forgotten_and_counted() -> None:
    device = HostDevice()
    problem = Problem(CASES["grid"], device)
    _, block, _ = problem.blocks((0, 0, 0, 0))
    tasks = block.tasks(problem.interactions["energy"])
    block.prepare(tasks)
    before, all_bytes = device._allocated, block.share.nbytes
    assert 0 < all_bytes <= before
    block.prepare([task for task in tasks if task.kind == "beta"][:1])
    assert device._allocated < before and block.share.nbytes < all_bytes
    block.prepare([])
    assert block.share.nbytes == 0


@pytest.mark.parametrize("form", ["direct", "product", "tiled"])
def test_counted_work_is_the_number_of_connected_pairs(form: str) -> None:
    """Useful multiply-adds: the elements of the matrix in each task, one for every connected pair of determinants."""
    case = Case(6, (3, 3), (12, 14))
    problem = Problem(case, HostDevice(), form)
    _, block, _ = problem.blocks((0, 0, 0, 0))
    interaction = problem.interactions["energy"]
    tasks = block.tasks(interaction)
    block.prepare(tasks)
    alpha, beta = (strings[:, 0] for strings in case.strings())
    apart_a = np.bitwise_count(alpha[:, None] ^ alpha[None, :]).astype(int)
    apart_b = np.bitwise_count(beta[:, None] ^ beta[None, :]).astype(int)
    n_singles_a, n_singles_b = (apart_a == 2).sum(), (apart_b == 2).sum()
    expected = {
        "mixed": n_singles_a * (n_singles_b + 3 * len(beta)),  # 3 occupied orbitals on the diagonal
        "alpha": ((apart_a == 2) | (apart_a == 4)).sum() * len(beta),
        "beta": (2 * n_singles_b + (apart_b == 4).sum()) * len(alpha) - n_singles_b * len(alpha),
    }
    for task in tasks:
        work = block.work([task], interaction)
        assert work.useful == expected[task.kind], task.kind
        assert work.executed >= (1.0 - 1e-12) * work.useful and work.bytes > 0 and work.seconds > 0
    total = block.work(tasks, interaction)
    assert total.useful == sum(expected.values())


@pytest.mark.parametrize(
    ("shared", "n_used", "n_ket", "tiles"),
    [
        (65536, 75, 1000, Tiles(1000, 4, True, 8 * 4 * 1075)),
        (65536, 300, 6265, Tiles(6265, 1, True, 8 * 6565)),
        (65536, 300, 20000, Tiles(7872, 1, True, 8 * 8172)),
        (65536, 8515, 4041, Tiles(4041, 2, False, 8 * 2 * 4041)),
        (232448, 300, 6265, Tiles(6265, 2, True, 16 * 6565)),
        (65536, 0, 0, Tiles(1, 4, True, 32)),
    ],
)
def test_tiles_fit_into_shared_memory(shared: int, n_used: int, n_ket: int, tiles: Tiles) -> None:
    assert Tiles.choose(Limits(shared, 1), n_used, n_ket) == tiles
    assert tiles.shared_bytes <= shared


SANITIZED = """
from sqd_mpi.backends.gpu import share
from tests.gpu_shim.host_device import HostDevice
from tests.support.gpu_blocks import CASES, Problem, check
for name in ("one string", "no beta electrons", "sectors", "odd triangle", "spin-dependent", "65 orbitals"):
    for form in (("direct", "sparse"), ("product", "dense"), ("tiled", "sparse")):
        check(Problem(CASES[name], HostDevice(), *form))
check(Problem(CASES["even triangle"], HostDevice(), "tiled"))
share._SHARED_BYTES = 480
check(Problem(CASES["no labels"], HostDevice(), "direct"))
print("done")
"""


@pytest.mark.slow
def test_no_access_out_of_bounds(sanitized_environment) -> None:
    """The kernels under the address and undefined-behaviour sanitizers."""
    command = [sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, capture_output=True, text=True, env=sanitized_environment, timeout=HANG, check=False)
    assert done.stdout.strip() == "done", done.stderr[-3000:]
