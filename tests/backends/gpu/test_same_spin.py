"""Same spin on the GPU by dense matrices: chunks of triangles, the choice of the form, memory, counted work, solves."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.backends.gpu import block as gpu_block
from sqd_mpi.backends.gpu import costs, process_device
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.memory import DeviceMemory
from sqd_mpi.backends.gpu.rows import contiguous
from sqd_mpi.backends.gpu.same_spin import SameSpin
from sqd_mpi.backends.protocol import Task
from sqd_mpi.options import SolveOptions
from sqd_mpi.planner import data_sheets, gpu_memory
from sqd_mpi.planner.gpu_work import SameSpinPlan
from sqd_mpi.planner.seconds import Seconds
from sqd_mpi.planner.work import Work
from sqd_mpi.solver.davidson import subspace_sizes
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim.host_device import HostDevice
from tests.support.gpu_blocks import CASES, LABELS, Case, Problem, assert_close, check
from tests.support.paths import ROOT
from tests.support.problems import close_strings, make_hamiltonian

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_child  # noqa: E402

TRIANGLE = Case(7, (3, 3), (30, 30), parity=1)


def prepared(case: Case, form: str | None, device: HostDevice | None = None) -> tuple[GpuBlock, Problem]:
    """The block of the first place, prepared for the Hamiltonian."""
    problem = Problem(case, device or HostDevice(), "direct", form)
    _, block, _ = problem.blocks(problem.places()[0])
    block.prepare(block.tasks(problem.interactions["energy"]))
    return block, problem


def tasks_of(block: GpuBlock, problem: Problem, kind: str) -> list[Task]:
    return [task for task in block.tasks(problem.interactions["energy"]) if task.kind == kind]


CHUNKED = {
    "even": TRIANGLE,
    "odd": replace(TRIANGLE, parity=-1),
    "labels": Case(7, (3, 3), (33, 33), labels=LABELS, parity=1),
    "grid": Case(7, (3, 3), (30, 30), (2, 2, 1, 2), parity=-1),
    "grid of labels": Case(7, (3, 3), (33, 33), (2, 2, 1, 2), LABELS, 0, 1),
}


@pytest.mark.parametrize("name", CHUNKED)
def test_triangles_in_chunks(name: str, monkeypatch) -> None:
    monkeypatch.setattr(costs, "_LEAST_CHUNK", 3)
    check(Problem(CHUNKED[name], HostDevice(), "direct", "dense"))


@pytest.mark.parametrize("rows", [1, 2])
def test_chunks_that_scratch_cuts(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(costs, "_MOST_CHUNK", 30 * rows)
    check(Problem(TRIANGLE, HostDevice(), "direct", "dense"))


def test_what_is_not_wanted_stays_as_it_is() -> None:
    """Every element of sigma that a task does not own keeps its bits; so does all of it without same spin."""
    block, problem = prepared(replace(TRIANGLE, grid=(1, 1, 1, 1)), "dense")
    device, energy = problem.device, problem.interactions["energy"]
    start = problem.sigma((0, 0, 0, 0))
    n_rows = len(block._same_spin.rows.bra.stop)
    cut = int(block._same_spin.rows.bra.offset[n_rows // 2])
    for task in tasks_of(block, problem, "alpha") + tasks_of(block, problem, "beta"):
        half = replace(task, rows=(0, n_rows // 2))
        block.prepare([half])
        there, ket = device.upload(start), device.upload(problem.ket((0, 0, 0, 0), task))
        block.apply(half, ket, there, energy)
        found = device.download(there)
        np.testing.assert_array_equal(found[cut:], start[cut:])
        assert (found[:cut] != start[:cut]).all()
        block.apply(half, ket, there, replace(energy, same_spin=False))
        np.testing.assert_array_equal(device.download(there), found)


def test_matrices_stand_for_the_sparse_rows() -> None:
    """H_alpha and H_beta of equal strings are one symmetric matrix, and nothing of them stays in the lists."""
    block, problem = prepared(TRIANGLE, "dense")
    rows = block.share.rows_of(Task("alpha", 0, 0, 0.0))
    share, labels = block.share, frozenset([0])
    alpha = problem.device.download(share.alpha_hamiltonian(0, rows, labels).matrices[0]).reshape(30, 30)
    beta_lists = share.beta_hamiltonian(0, labels)
    beta = problem.device.download(beta_lists.matrices[0])
    expected = np.zeros((30, 30))
    found = share.strings.alpha_hamiltonian(0, rows)
    expected[np.repeat(np.arange(30), np.diff(found.indptr)), found.column] = found.value
    np.testing.assert_array_equal(alpha, expected)
    assert_close(beta, expected)
    assert_close(alpha, alpha.T)
    assert share.alpha_hamiltonian(0, rows, labels).value.size == beta_lists.value.size == 0
    assert beta_lists.single_value.size == 0 and np.count_nonzero(expected) > 300


@pytest.mark.parametrize(("case", "form"), [("sectors", "dense"), ("triangle", "dense"), ("sectors", "sparse")])
def test_counted_work(case: str, form: str, monkeypatch) -> None:
    """What is useful does not depend on the form; dense products execute whole matrices, of triangles half and more."""
    monkeypatch.setattr(costs, "_LEAST_CHUNK", 5)
    chosen = CASES["sectors"] if case == "sectors" else TRIANGLE
    block, problem = prepared(chosen, form)
    other, _ = prepared(chosen, "sparse")
    energy = problem.interactions["energy"]
    bra, layout = block._same_spin.rows.bra, problem.layout
    n_rows, width = np.diff(bra.label_start), layout.row_lengths(0)
    entries = block.share.list_sizes(0).entries[block._same_spin.rows.label ^ layout.sector, 0] * bra.stop / bra.length
    for kind, depth in (("alpha", np.diff(layout.alpha.label_start)), ("beta", width)):
        (task,) = tasks_of(block, problem, kind)
        work, sparse = block.work([task], energy), other.work([task], energy)
        assert work.useful == pytest.approx(sparse.useful) and work.useful > 0.0
        whole = float((n_rows * width * depth).sum())
        field = float(entries.sum()) if kind == "beta" else 0.0
        share = (work.executed - field) / whole
        if form == "sparse":
            assert work == sparse
        elif case == "sectors":
            assert share == pytest.approx(1.0)
        else:
            assert share == pytest.approx(30 / 31 * 0.5 * (1 + 5 / 30) * 31 / 30)
        assert work.bytes > 0.0 and work.seconds > 0.0
        if form == "dense":
            assert work.seconds > (work.executed - field) / costs.RATES.dense


def test_products_that_do_not_fill_a_device_take_as_long_as_those_that_do() -> None:
    sizes = [np.array([float(n)]) for n in (64, 512, 4096)]
    flat = [costs.dense_work(0.0, n, n, 1000.0, np.array([True])).seconds for n in sizes]
    assert flat[0] == pytest.approx(flat[1], rel=0.2) and flat[2] > 10 * flat[1]
    added = costs.dense_work(0.0, sizes[1], sizes[1], 1000.0, np.array([False]))
    assert added.seconds > flat[1] + 0.9 * costs.RATES.launch


def test_dense_is_chosen_where_it_is_predicted_to_be_faster(monkeypatch) -> None:
    """Small matrices stay sparse; with matrix units that cost nothing none does. Costs of rows follow."""
    block, problem = prepared(CASES["grid of sectors"], None)
    plans = [*block._same_spin._alpha.values(), *block._same_spin._beta.values()]
    assert len(plans) == 5 and not any(plan.dense for plan in plans)
    before = {task: block.row_costs(task) for task in block.tasks(problem.interactions["energy"])}
    monkeypatch.setattr(costs, "FULL_DEVICE", 1)
    monkeypatch.setattr(costs, "RATES", costs.Rates(dense=1e30, launch=0.0, bytes=1e30, sparse=1e3))
    block, _ = prepared(CASES["grid of sectors"], None)
    plans = [*block._same_spin._alpha.values(), *block._same_spin._beta.values()]
    assert all(plan.dense and plan.products for plan in plans)
    assert any(plan.field_only.n_blocks > 0 for plan in block._same_spin._beta.values())
    for task, seconds in before.items():
        now = block.row_costs(task)
        assert now.shape == seconds.shape and (now >= 0.0).all()
        if task.kind == "alpha":
            assert 0.0 < now.sum() < 1e-15 < seconds.sum()


def test_costs_of_rows_do_not_depend_on_the_memory_of_a_device() -> None:
    """All ranks of a block assign its tasks by them, without a word."""
    found = []
    for spare in (0, 10**9):
        device = HostDevice(memory_bytes=10**9)
        device.spare_bytes = spare
        block, problem = prepared(CASES["sectors"], None, device)
        found.append([block.row_costs(task) for task in block.tasks(problem.interactions["penalised"])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bound", [0, 500, 1500, 10**9])
def test_matrices_stay_below_their_bound(bound: int, monkeypatch) -> None:
    """The most useful matrices are made; with some labels sparse and some dense sigma is the same."""
    monkeypatch.setattr(SameSpin, "_saved_seconds", lambda self, task: np.arange(1.0, self.layout.n_labels + 1.0))
    case = Case(7, (3, 4), (30, 28), (1, 2, 1, 1), LABELS, 2)
    device = HostDevice()
    device.spare_bytes = bound
    block, problem = prepared(case, None, device)
    parts = [part for _, part in (*block.share._alpha_rows.values(), *block.share._doubles.values())]
    taken = [matrix.nbytes for part in parts for matrix in part.matrices.values()]
    assert sum(taken) <= bound and bool(taken) == (bound > 0)
    wanted = [task for task in block.tasks(problem.interactions["energy"]) if task.kind != "mixed"]
    sizes = np.concatenate([block._same_spin._matrix_bytes(task) for task in wanted])
    assert len(sizes) == 12 and sizes.sum() > 1500
    assert sum(taken) > min(bound - sizes.max(), sizes.sum() - 1)
    check(Problem(case, device, "direct"))


def test_without_a_word_about_vectors_an_eighth_of_the_memory_is_the_bound() -> None:
    block, _ = prepared(CASES["sectors"], None, HostDevice(memory_bytes=8 * 10**8))
    assert block._same_spin._bound() == 10**8


@pytest.mark.parametrize(("vectors", "spare"), [(0, 10**6), (7 * 10**6, 500_000), (8 * 10**6, 0), (9 * 10**6, 0)])
def test_memory_leaves_room_for_the_vectors(vectors: int, spare: int) -> None:
    device = HostDevice(memory_bytes=16 * 10**6)
    memory = DeviceMemory(device)
    memory.limit(2)
    memory.reserve(vectors)
    assert device.spare_bytes == spare


def test_choose_takes_the_most_useful_that_fit() -> None:
    saved, n_bytes = np.array([4.0, 3.0, -1.0, 0.0, 5.0]), np.array([40.0, 10.0, 1.0, 1.0, 100.0])
    for bound, chosen in ((0, []), (10, [1]), (49, [1]), (50, [0, 1]), (149, [0, 1]), (150, [0, 1, 4])):
        assert np.flatnonzero(costs.choose(saved, n_bytes, bound)).tolist() == chosen
    assert costs.choose(np.full(2, np.inf), n_bytes[:2], 0).all()
    assert costs.choose(np.empty(0), np.empty(0), 1).size == 0


def test_rows_without_a_gap() -> None:
    assert contiguous(np.array([], np.int64), 3) == []
    assert contiguous(np.array([4, 7, 10, 20, 23, 0]), 3) == [(0, 3), (3, 5), (5, 6)]
    assert contiguous(np.array([5, 5, 5]), 0) == [(0, 3)]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 1, 1), (2, 2, 1, 2), (3, 1, 1, 2), (1, 2, 3, 1)])
@pytest.mark.parametrize("spin_flip", [False, True])
def test_planned_multiply_adds_are_those_of_the_blocks(shape, spin_flip: bool, monkeypatch) -> None:
    """Counts of both forms on all ranks of a grid against `GpuBlock.work`, and bytes against what is allocated."""
    monkeypatch.setattr(costs, "_LEAST_CHUNK", 4)
    flip = spin_flip and shape[0] == shape[1]
    case = Case(9, (4, 4), (60, 60), shape, parity=int(flip), close=True)
    problem = Problem(case, HostDevice(), "direct", "dense")
    profile = data_sheets.assumed_device().model_copy(update={"dense_seconds": 1e-30})
    planned = planner.Problem.create(problem.hamiltonian, *case.strings(), False, flip, False)
    work = Work(planned, shape, profile, 1)
    executed, most = {"alpha": 0.0, "beta": 0.0}, 0
    energy = problem.interactions["energy"]
    for place in problem.places():
        _, block, _ = problem.blocks(place)
        tasks = block.tasks(energy)
        block.prepare(tasks)
        for task in tasks:
            if task.kind != "mixed":
                executed[task.kind] += block.work([task], energy).executed
        parts = [part for _, part in (*block.share._alpha_rows.values(), *block.share._doubles.values())]
        most = max(most, sum(matrix.nbytes for part in parts for matrix in part.matrices.values()))
    whole = 60.0**3
    counts = work.same_spin
    triangle = 0.5 if flip else 1.0
    for name in executed:
        assert counts.dense[name].sum() == pytest.approx(triangle * whole)
    longer = executed["alpha"] / counts.dense["alpha"].sum()
    assert 1.0 - 1e-12 <= longer <= (1.3 if flip else 1.0 + 1e-12)
    field = executed["beta"] - longer * counts.dense["beta"].sum()
    assert counts.of_field.sum() == pytest.approx(field, rel=0.25 if flip else 1e-12)
    plan = SameSpinPlan.create(work, np.inf)
    assert all(chosen.all() for chosen in plan.chosen.values())
    slack = 1.0 if shape[2] == 1 else 3.0  # the blocks above do the tasks of all task groups
    assert 0.9 * most / slack <= plan.n_bytes <= 1.3 * most


def test_planned_seconds_are_those_of_the_faster_form() -> None:
    strings = close_strings(9, 4, 60)
    problem = planner.Problem.create(make_hamiltonian(9, (4, 4)), strings, strings, False, True)
    profile = data_sheets.assumed_device()
    seconds = {}
    for dense in (None, 1.0, 1e-30):
        work = Work(problem, (1, 1, 1, 1), profile.model_copy(update={"dense_seconds": dense}), 1)
        seconds[dense] = Seconds(work).blocks
        plan = SameSpinPlan.create(work, np.inf)
        np.testing.assert_allclose(plan.seconds["alpha"], seconds[dense]["alpha"], rtol=1e-14)
        if dense == 1e-30:
            field = profile.same_spin_seconds * work.same_spin.of_field.sum(axis=0)
            np.testing.assert_allclose(plan.seconds["alpha"], 0.0, atol=1e-20)
            np.testing.assert_allclose(plan.seconds["beta"], field)
    for name in ("alpha", "beta"):
        np.testing.assert_allclose(seconds[None][name], seconds[1.0][name], rtol=1e-14)
        assert (seconds[1e-30][name] < seconds[None][name]).all()
    little = profile.model_copy(update={"dense_seconds": 1e-30, "device_bytes": 8 * 8 * 60**2})
    chosen = SameSpinPlan.create(Work(problem, (1, 1, 1, 1), little, 1), 8 * 60**2).chosen
    assert [bool(each.all()) for each in chosen.values()] in ([True, False], [False, True])


@pytest.mark.slow
@pytest.mark.parametrize("spin_flip", ["auto", "off"])
def test_a_solve_with_matrices(spin_flip, monkeypatch) -> None:
    """The energy is that of the CPU, and the peak of the device's memory that of the plan."""
    device = HostDevice(memory_bytes=10**9)
    watched = gpu_child.WatchedDevice(device)
    monkeypatch.setattr(process_device, "_process_device", [device])
    monkeypatch.setattr(SameSpin, "_saved_seconds", lambda self, task: np.ones(self.layout.n_labels))
    monkeypatch.setattr(costs, "_LEAST_CHUNK", 40)
    monkeypatch.setattr(gpu_block, "_SCRATCH_BYTES", 8)
    monkeypatch.setattr(gpu_memory, "SCRATCH_BYTES", 8)
    hamiltonian, strings = make_hamiltonian(10, (4, 4)), close_strings(10, 4, 150)
    options = SolveOptions(spin_flip=spin_flip, symmetry="off", tol=1e-6)
    found = solve_subspace(None, hamiltonian, strings, strings, options.model_copy(update={"backend": "gpu"}))
    expected = solve_subspace(None, hamiltonian, strings, strings, options)
    assert (found.backend, expected.backend) == ("gpu", "cpu")
    np.testing.assert_allclose(found.energies, expected.energies, rtol=0, atol=1e-10)
    problem = planner.Problem.create(hamiltonian, strings, strings, False, spin_flip == "auto")
    profile = data_sheets.assumed_device().model_copy(update={"context_bytes": 0, "dense_seconds": 1e-30})
    limits = planner.MemoryLimits(10**12, *subspace_sizes(1), 10**9)
    plan = planner.predict(problem, (1, 1, 1, 1), profile, 1, limits)
    sparse = profile.model_copy(update={"dense_seconds": None})
    without = planner.predict(problem, (1, 1, 1, 1), sparse, 1, limits)
    assert plan.device_bytes > without.device_bytes
    assert watched.peak_bytes == pytest.approx(plan.device_bytes, rel=0.1)
