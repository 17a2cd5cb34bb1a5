"""Counts of connections against brute force, and predicted operations, bytes and messages against real arrays."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.backends import get_backend
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.planner.connections import connected_parts, connections
from sqd_mpi.planner.memory import structure_bytes
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.work import Work, padded
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.space import Space
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import OrbitalLabels, trivial_labels
from sqd_mpi.solver.sigma import SigmaOperator
from tests.support.planned import LABELS, NORB, SHAPES, make_problem
from tests.support.problems import close_strings, make_hamiltonian


@pytest.mark.parametrize("labels", [trivial_labels(NORB), LABELS], ids=["one label", "four labels"])
def test_connections_agree_with_comparing_all_pairs(labels):
    found = make_problem(labels).alpha
    words = found.strings.strings[:, 0]
    distance = np.bitwise_count(words[:, None] ^ words)
    between = found.label[:, None] ^ found.label
    for d in range(labels.n_labels):
        np.testing.assert_array_equal(found.singles[:, d], ((distance == 2) & (between == d)).sum(axis=1))
    np.testing.assert_array_equal(found.doubles, ((distance == 4) & (between == 0)).sum(axis=1))
    assert found.exact
    assert found.pair_counts.sum() == (distance == 2).sum() == len(found.bra)
    np.testing.assert_array_equal(distance[found.bra, found.ket], 2)


def test_sampled_doubles_add_up_to_the_true_number():
    strings = SpinStrings.from_canonical(close_strings(13, 5, 1200), np.zeros(13, np.int64), 1)
    found = connections(strings, 13, np.zeros(91, np.int64))
    words = found.strings.strings[:, 0]
    counts = (np.bitwise_count(words[:, None] ^ words) == 4).sum(axis=1)
    assert not found.exact
    assert found.doubles.sum() == pytest.approx(counts.sum(), rel=0.03)
    assert np.abs(found.doubles - counts).mean() < 0.1 * counts.mean()


@pytest.mark.parametrize(("n", "n_electrons"), [(1, 3), (1, 0), (1, NORB)])
def test_one_string_has_no_connections(n, n_electrons):
    alpha = SpinStrings.from_canonical(close_strings(NORB, n_electrons, n), np.zeros(NORB, np.int64), 1)
    hamiltonian = make_hamiltonian(NORB, (n_electrons, n_electrons))
    problem = planner.Problem.from_space(Space(hamiltonian, trivial_labels(NORB), alpha, alpha), True, True)
    plan = planner.predict(problem, (1, 1, 1, 1), MachineProfile(), 1, planner.MemoryLimits(10**12, 7, 3))
    assert problem.alpha.singles.sum() == problem.alpha.doubles.sum() == 0
    assert plan.balance == 1.0 and plan.messages_per_rank == plan.message_bytes_per_rank == 0
    assert 0.0 < plan.seconds_per_sigma < 1.0


@pytest.mark.slow
def test_strings_of_130_orbitals_are_counted():
    strings = bitstrings.from_integers([1, 1 << 64, 1 << 129, 3 << 70], 130)[:3]
    problem = planner.Problem.create(make_hamiltonian(130, (1, 1)), strings, strings, symmetry=False)
    np.testing.assert_array_equal(problem.alpha.singles, [[2], [2], [2]])
    assert problem.n_determinants == 9 and problem.dimension((1, 1, 1, 1)) == 6 and problem.dimension((2, 1, 1, 1)) == 9


def test_connected_parts_are_those_with_singles():
    found = make_problem().alpha
    part = np.arange(found.size) % 5
    masks = connected_parts(found, part, 5, np.ones(found.size, np.uint64))
    expected = np.zeros((5, 5), bool)
    expected[part[found.bra], part[found.ket]] = True
    np.testing.assert_array_equal(masks == 1, expected)


def test_groups_are_filled_up_to_whole_vectors():
    rng = np.random.default_rng(3)
    for expected in (0.01, 0.7, 5.0, 40.0, 190.0):
        sample = np.ceil(rng.poisson(expected, 200_000) / 8) * 8
        assert padded(np.array([expected]), 8)[0] == pytest.approx(sample.mean(), rel=0.05)
    assert padded(np.array([1e6]), 8)[0] == 1e6 + 3.5


@pytest.mark.parametrize("shape", SHAPES)
def test_operations_agree_with_those_of_the_tasks(shape):
    problem = make_problem()
    # One lane a vector: nothing is filled up, so that numbers of operations are exact.
    profile = MachineProfile(lanes=1)
    work = Work(problem, shape, profile, 1)
    a, b, _, r = shape
    alpha, beta = planner.order_strings(
        problem.alpha.strings, problem.beta.strings, shape, a * b * r > 1, spin_flip=False
    )
    layout = Layout.create(alpha, beta, problem.sector, shape)
    backend = get_backend("cpu")
    hamiltonian = make_hamiltonian(NORB, problem.nelec)
    for ia, ir, ib in product(range(a), range(r), range(b)):
        place = ia, ib, 0, ir
        share = backend.create_share(layout, place, hamiltonian, LABELS)
        terms = 0
        mirror = np.arange(4) ^ problem.sector
        bra_label = np.repeat(np.arange(4), np.diff(share.bra.label_start))
        for table, da in product(share.beta, range(a)):
            entries = (table.matrix_entries + table.matrix_diagonal * np.diff(table.matrix_row)).reshape(4, 4)
            terms += int((share.singles_per_row[:, da] * entries[mirror[bra_label]]).sum())
        assert work.operations["terms"][ia, ir, ib] == pytest.approx(terms, rel=0.02)  # twins save a little
        widths = layout.row_lengths(ib)[bra_label]
        assert work.operations["alpha"][ia, ir, ib] == pytest.approx(
            (share.alpha_terms[0].sum(axis=1) * widths).sum(), rel=0.1, abs=50
        )


@pytest.mark.parametrize("same", [False, True])
def test_predicted_structure_covers_the_arrays(same):
    strings = close_strings(14, 4, 700)
    labels = OrbitalLabels(np.arange(14) % 4, 4, 0.0, 0.0, 0.0)
    alpha = SpinStrings.from_canonical(strings, labels.labels, 4)
    hamiltonian = make_hamiltonian(14, (4, 4))
    problem = planner.Problem.from_space(Space(hamiltonian, labels, alpha, alpha), same, True)
    work = Work(problem, (1, 1, 1, 1), MachineProfile(), 1)
    layout = Layout.create(alpha, alpha, problem.sector, (1, 1, 1, 1), problem.parity((1, 1, 1, 1)))
    backend = get_backend("cpu")
    share = backend.create_share(layout, (0, 0, 0, 0), hamiltonian, labels)
    block = backend.create_block(layout, (0, 0, 0, 0), hamiltonian, share)
    operator = SigmaOperator(ProcessGrid(None, (1, 1, 1, 1)), layout, block, Interaction.energy(hamiltonian))
    assert 0.75 * share.nbytes < structure_bytes(work) < 1.25 * share.nbytes
    memory = planner.predict_memory((1, 1, 1, 1), layout.dimension, 7, layout.n_determinants)
    assert memory.buffers == operator.plan.buffer_bytes
    assert operator.plan.message_bytes == 0
