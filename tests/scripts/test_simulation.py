"""Simulated ranks: costs of ket blocks against the work of a plan and the tasks of blocks, assigning, waiting."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.backends import get_backend
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.seconds import Seconds
from sqd_mpi.planner.work import Work
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import trivial_labels
from tests.support.paths import ROOT
from tests.support.planned import NORB, SHAPES, make_problem
from tests.support.problems import close_strings, make_hamiltonian

specification = importlib.util.spec_from_file_location("simulation", ROOT / "scripts" / "simulation.py")
simulation = importlib.util.module_from_spec(specification)
sys.modules["simulation"] = simulation
specification.loader.exec_module(simulation)
block_costs, dealt, simulate = simulation.block_costs, simulation.dealt, simulation.simulate


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spin_flip", [False, True])
def test_costs_of_ket_blocks_add_up_to_the_work(shape, spin_flip):
    problem = make_problem(spin_flip=spin_flip, same=spin_flip)
    work = Work(problem, shape, MachineProfile(task_seconds=1e-15, lanes=1), 1)
    total = sum(Seconds(work).blocks.values())
    cost = block_costs(work).sum(axis=-1)
    # The number of ket blocks with any single is expected in one, counted in the other.
    np.testing.assert_allclose(cost, total, rtol=0.2)
    if shape[0] == shape[1] == 1:
        np.testing.assert_allclose(cost, total, rtol=1e-6)


def test_dealt_tasks_are_even_and_complete():
    cost = np.random.default_rng(1).random((2, 1, 3, 12))
    pieces = dealt(cost, 5)
    np.testing.assert_allclose(pieces.sum(axis=3), cost)
    np.testing.assert_allclose(pieces.sum(axis=4), np.repeat(cost.sum(axis=3)[..., None] / 5, 5, axis=3))
    # A stretch of blocks each: no group skips a block.
    for row in pieces.reshape(-1, 12) > 0:
        used = np.flatnonzero(row)
        np.testing.assert_array_equal(used, np.arange(used[0], used[-1] + 1))


def test_simulated_ranks_wait_for_slow_links_and_hide_fast_ones():
    problem = make_problem()
    slow = MachineProfile(slide_latency_seconds=1.0, hidden_share=1.0)
    fast = MachineProfile(slide_latency_seconds=1e-12, slide_bytes_per_second=1e15, hidden_share=1.0)
    assert simulate(problem, (2, 2, 1, 1), slow).exposed.min() > 2.9  # three ket blocks
    assert simulate(problem, (2, 2, 1, 1), fast).exposed.max() < 1e-6
    one = simulate(problem, (1, 1, 1, 1), fast)
    assert one.imbalance == 1.0 and one.slides.max() == 0
    assert one.seconds_per_solve(10) > 10 * one.seconds_per_sigma


@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (3, 3, 2, 1), (2, 2, 1, 2), (4, 4, 1, 1)])
def test_the_ket_blocks_of_mirrored_blocks_are_those_of_their_tasks(shape):
    hamiltonian, strings = make_hamiltonian(NORB, (4, 4)), close_strings(NORB, 4, 60)
    problem = planner.Problem.create(hamiltonian, strings, strings, symmetry=False)
    assert problem.sector == 0 and problem.parity(shape) == 1
    work, labels, a = Work(problem, shape, MachineProfile(), 1), trivial_labels(NORB), shape[0]
    alpha, _ = planner.order_strings(problem.alpha.strings, problem.alpha.strings, shape, True, spin_flip=True)
    layout = Layout.create(alpha, alpha, 0, shape, 1)
    backend, costs = get_backend("cpu"), block_costs(work)
    for ia, ib in product(range(a), range(a)):
        place = ia, ib, 0, 0
        share = backend.create_share(layout, place, hamiltonian, labels)
        block = backend.create_block(layout, place, hamiltonian, share)
        met = np.zeros((a, a), bool)
        for task in block.tasks(Interaction.energy(hamiltonian)):
            met[task.da, task.db] = True
        np.testing.assert_array_equal(costs[ia, 0, ib].reshape(a, a) > 0.0, met)


def test_half_of_the_ket_blocks_takes_half_of_the_work():
    strings = close_strings(NORB, 4, 60)
    problem = planner.Problem.create(make_hamiltonian(NORB, (4, 4)), strings, strings, symmetry=False)
    whole = Work(replace(problem, spin_flip=False), (4, 4, 1, 1), MachineProfile(task_seconds=1e-15), 1)
    half = Work(problem, (4, 4, 1, 1), MachineProfile(task_seconds=1e-15), 1)
    costs, expected = block_costs(half), block_costs(whole)
    for k in range(4):
        shifts = [(da, db) for da in range(4) for db in range(4) if da != db]
        taken = sum(costs[k, 0, k].reshape(4, 4)[shift] for shift in shifts)
        assert taken == pytest.approx(0.5 * sum(expected[k, 0, k].reshape(4, 4)[shift] for shift in shifts), rel=0.15)
    on_line = half.fold_elements > 0.0
    np.testing.assert_array_equal(on_line, np.eye(4, dtype=bool))
    assert not whole.fold_elements.any()
