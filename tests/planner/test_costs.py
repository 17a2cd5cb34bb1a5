"""Plans take their seconds from the price lists of the backends, and nearly the numbers of runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from sqd_mpi import _jit, planner
from sqd_mpi.backends import get_backend
from sqd_mpi.backends.cpu import costs as cpu_costs
from sqd_mpi.backends.gpu import costs
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.errors import InputError
from sqd_mpi.planner import data_sheets, gpu_work
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.seconds import Seconds
from sqd_mpi.planner.work import Work
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import find_labels
from tests.gpu_shim.host_device import HostDevice
from tests.support.problems import close_strings, make_hamiltonian

H100 = data_sheets.assumed_profile(data_sheets.data_sheet("h100"))
LABELS = np.arange(12) % 4


def make_problem(symmetry: bool, spin_flip: bool, count: int = 160):
    hamiltonian = make_hamiltonian(12, (4, 4), labels=LABELS if symmetry else None)
    strings = close_strings(12, 4, count)
    return hamiltonian, planner.Problem.create(hamiltonian, strings, strings, symmetry, spin_flip)


def make_layout(problem, shape) -> Layout:
    """The layout of a run of the problem on a grid."""
    parity = problem.parity(shape)
    alpha, beta = problem.alpha.strings, problem.beta.strings
    strings, _ = planner.order_strings(alpha, beta, shape, np.prod(shape) > 1, bool(parity))
    return Layout.create(strings, strings, problem.sector, shape, parity)


def price_of_a_run(hamiltonian, problem) -> dict[str, object]:
    """What hangs on prices: seconds of a plan and of rows by kind of task, and the shares of threads."""
    one = 1, 1, 1, 1
    seconds = planner.predict(problem, one, MachineProfile(), 1, planner.MemoryLimits(10**12, 7, 3)).compute_seconds
    layout, place, backend = make_layout(problem, one), (0, 0, 0, 0), get_backend("cpu")
    share = backend.create_share(layout, place, hamiltonian, find_labels(hamiltonian))
    block = backend.create_block(layout, place, hamiltonian, share)
    rows = {task.kind: block.row_costs(task) for task in block.tasks(Interaction.energy(hamiltonian))}
    groups = share.alpha(0, (0, len(share.bra.alpha))).directed
    return {"plan": seconds, "rows": rows, "threads": groups.start[groups.thread_group]}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("GATHER_SECONDS", ("mixed", "threads")), ("MIXED_SECONDS", ("mixed", "threads")),
        ("SHARED_GATHER", ("mixed",)), ("SHARED_TERMS", ("mixed",)), ("GROUP_SECONDS", ("mixed",)),
        ("SAME_SPIN_SECONDS", ("alpha", "beta")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("spin_flip", [True, False])
def test_a_constant_of_the_cpu_moves_plans_rows_and_threads(name, kinds, spin_flip, monkeypatch):
    monkeypatch.setattr(_jit, "n_threads", lambda: 3)
    hamiltonian, problem = make_problem(True, spin_flip)
    before = price_of_a_run(hamiltonian, problem)
    factor = 0.5 if name.startswith("SHARED") else 100.0  # a smaller saving is a higher price
    monkeypatch.setattr(cpu_costs, name, factor * getattr(cpu_costs, name))
    after = price_of_a_run(hamiltonian, problem)
    for kind in ("mixed", "alpha", "beta"):
        changes = [after["plan"][kind] - before["plan"][kind], (after["rows"][kind] - before["rows"][kind]).sum()]
        if kind in kinds:
            assert all(change > 0.0 for change in changes), kind
        elif kind != "beta":  # which gathers rows as well
            assert changes == [0.0, 0.0], kind
    assert ("threads" in kinds) == (after["threads"].tolist() != before["threads"].tolist())


def test_shares_of_rows_move_the_parts_of_a_grid(monkeypatch):
    _, problem = make_problem(True, True)
    counts = problem.alpha.singles.sum(axis=1)
    weights, stops = cpu_costs.string_weights(counts), make_layout(problem, (1, 1, 1, 3))._row_ranges(0, 1, 0)
    monkeypatch.setattr(cpu_costs, "ROW_SHARE", 0.5)
    monkeypatch.setattr(cpu_costs, "WHOLE_SHARE", 0.9)
    np.testing.assert_allclose(cpu_costs.string_weights(counts) - weights, 0.3 * counts.mean())
    assert make_layout(problem, (1, 1, 1, 3))._row_ranges(0, 1, 0) != stops


def test_a_rate_of_a_gpu_moves_plans_and_the_choice_of_a_form(monkeypatch):
    hamiltonian, problem = make_problem(True, False)
    layout = make_layout(problem, (1, 1, 1, 1))

    def plan_and_forms():
        plan = Seconds(Work(problem, (1, 1, 1, 1), planner.assumed_device(), 1)).blocks["mixed"].sum()
        share = GpuShare(HostDevice(), layout, (0, 0, 0, 0), hamiltonian, find_labels(hamiltonian))
        return plan, GpuBlock(layout, (0, 0, 0, 0), share)._opposite_spin._forms(0, 0)

    before, forms = plan_and_forms()
    assert (forms == costs.TILED).any()
    monkeypatch.setattr(costs, "RATES", replace(costs.RATES, tiled=1e6))
    after, others = plan_and_forms()
    assert after > before and not (others == costs.TILED).any()


def seconds_of_the_run(hamiltonian, problem, shape) -> dict[str, float]:
    """Seconds that the blocks of all ranks predict by the costs, in tasks of every kind; nothing is computed."""
    layout = make_layout(problem, shape)
    found = dict.fromkeys(("mixed", "alpha", "beta"), 0.0)
    device, interaction, labels = HostDevice(), Interaction.energy(hamiltonian), find_labels(hamiltonian)
    a, b, _, r = shape
    for ia, ib, ir in product(range(a), range(b), range(r)):
        place = ia, ib, 0, ir
        block = GpuBlock(layout, place, GpuShare(device, layout, place, hamiltonian, labels))
        tasks = block.tasks(interaction)
        block.prepare(tasks)
        for task in tasks:
            found[task.kind] += block.work([task], interaction).seconds
    return found


@pytest.mark.parametrize("spin_flip", [True, False])
@pytest.mark.parametrize(
    ("symmetry", "shape", "factor"),
    [(True, (1, 1, 1, 1), 1.15), (False, (1, 1, 1, 1), 1.15), (True, (2, 2, 1, 1), 1.4), (True, (3, 1, 1, 2), 1.4)],
)
def test_expected_seconds_are_those_of_the_backend(symmetry, shape, factor, spin_flip):
    hamiltonian, problem = make_problem(symmetry, spin_flip)
    found = seconds_of_the_run(hamiltonian, problem, shape)["mixed"]
    planned = float(Seconds(Work(problem, shape, H100, 1)).blocks["mixed"].sum())
    assert found / factor < planned < found * factor


def test_plans_follow_the_costs(monkeypatch):
    _, problem = make_problem(True, True)
    limits = planner.MemoryLimits(10**12, 7, 3)
    before = planner.predict(problem, (1, 1, 1, 1), H100, 1, limits).compute_seconds["mixed"]
    forms = costs.opposite_forms

    def dearer(*arguments, **names):
        return [(executed, moved, 3.0 * seconds) for executed, moved, seconds in forms(*arguments, **names)]

    monkeypatch.setattr(gpu_work, "opposite_forms", dearer)
    after = planner.predict(problem, (1, 1, 1, 1), H100, 1, limits).compute_seconds["mixed"]
    assert 2.9 * before < after <= 3.0 * before  # launches stay

    def one_more(*arguments, **names):
        cheap = forms(*arguments, **names)[0]
        return [*forms(*arguments, **names), (cheap[0], cheap[1], 0.0 * cheap[2])]

    monkeypatch.setattr(gpu_work, "opposite_forms", one_more)
    last = planner.predict(problem, (1, 1, 1, 1), H100, 1, limits).compute_seconds["mixed"]
    assert last < before


def test_no_form_beats_the_floor():
    _, problem = make_problem(True, True)
    for sheet in data_sheets.DATA_SHEETS:
        work = Work(problem, (1, 1, 1, 1), data_sheets.assumed_profile(sheet), 1)
        floor = gpu_work.opposite_floor(work, data_sheets.highest_rates(sheet))
        assert 0.0 < floor.sum() < Seconds(work).blocks["mixed"].sum()


def test_rates_of_profiles():
    for name, value in vars(gpu_work.rates_of(H100)).items():
        assert value == pytest.approx(getattr(costs.RATES, name)), name
    assert set(vars(costs.RATES)) - {"launch"} <= set(data_sheets._BOUND_BY)
    slower = H100.model_copy(update={"mixed_seconds": 2.0 * H100.mixed_seconds, "device_rates": None})
    assert gpu_work.rates_of(slower).product == pytest.approx(0.5 * costs.RATES.product)
    with pytest.raises(InputError, match="device_rates of a machine profile are among direct, .*; got sideways"):
        gpu_work.rates_of(H100.model_copy(update={"device_rates": {"sideways": 1.0}}))
    assert MachineProfile().device_rates is None


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (1, 30), (30, 1)])
def test_few_strings(alpha, beta):
    hamiltonian = make_hamiltonian(12, (4, 3))
    problem = planner.Problem.create(hamiltonian, close_strings(12, 4, alpha), close_strings(12, 3, beta), False)
    for shape in ((1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1)):
        seconds = Seconds(Work(problem, shape, H100, 1)).blocks["mixed"]
        assert seconds.shape == (shape[0], shape[3], shape[1]) and np.isfinite(seconds).all()
        assert (seconds.sum() > 0.0) == (alpha > 1)


def test_no_beta_electrons():
    hamiltonian, strings = make_hamiltonian(8, (3, 0)), close_strings(8, 3, 20)
    problem = planner.Problem.create(hamiltonian, strings, np.zeros((1, 1), np.uint64), False)
    assert np.isfinite(Seconds(Work(problem, (1, 1, 1, 1), H100, 1)).blocks["mixed"]).all()
