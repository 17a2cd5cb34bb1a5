"""Sigma on every grid equals the dense definition, for both backends, with and without symmetry."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends import get_backend
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.planner import order_strings
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from sqd_mpi.problem.symmetry import find_labels, trivial_labels
from sqd_mpi.solver.sigma import SigmaOperator
from tests.support.problems import close_strings, dense_matrix, make_hamiltonian, random_strings, with_few_integrals
from tests.support.shapes import LABELS, shapes

pytestmark = pytest.mark.mpi

BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.every_size)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("what", ["energy", "spin_square"])
def test_spin_flip_parity(comm, backend, parity, what):
    """Stored halves on every square grid, against the dense matrix on a whole symmetric vector."""
    hamiltonian = make_hamiltonian(7, (3, 3), labels=LABELS)
    labels = find_labels(hamiltonian)
    strings = random_strings(7, 3, 23)
    interaction = getattr(Interaction, what)(hamiltonian)
    matrix = dense_matrix(hamiltonian, strings, strings, interaction)
    in_order = SpinStrings.from_canonical(strings, labels.labels, labels.n_labels)
    whole = np.random.default_rng(5).normal(size=(23, 23))
    whole = whole + parity * whole.T
    expected = (matrix @ whole.ravel()).reshape(whole.shape)
    module = get_backend(backend)
    for shape in [shape for shape in shapes(comm.size) if shape[0] == shape[1]]:
        grid = ProcessGrid(comm, shape, share_blocks=what == "energy")
        here = grid.coordinates
        place = (here.ia, here.ib, here.it, here.ir)
        alpha, _ = order_strings(in_order, in_order, shape, deal=parity > 0, spin_flip=True)
        n_stored = 0
        for sector in sectors(alpha, alpha):
            layout = Layout.create(alpha, alpha, sector, shape, parity)
            share = module.create_share(layout, place, hamiltonian, labels)
            operator = SigmaOperator(grid, layout, module.create_block(layout, place, hamiltonian, share), interaction)
            where = layout.geometry(*place)
            rows, columns = where.locate(np.arange(where.size))
            index = alpha.canonical[where.alpha[rows]], alpha.canonical[where.beta[columns]]
            scale = np.full(where.size, np.sqrt(2.0))
            scale[where.diagonal] = 1.0
            out = np.empty(where.size)
            operator.matvec(scale * whole[index], out)
            error = np.abs(out / scale - expected[index]).max(initial=0.0) / np.abs(expected).max()
            assert error < 1e-12, f"grid {shape}, sector {sector}: relative error {error:.1e}"
            n_stored += where.size
            operator.plan.free()
        assert comm.allreduce(n_stored) == 23 * (23 + parity) // 2
        grid.free()


def apply_everywhere(comm, shape, hamiltonian, strings, labels, interaction, backend, seed=5, planned=False):
    """Sigma of a random vector as a whole array, with the vector; summed over sectors.

    With `planned` the tasks are those of H.
    """
    alpha, beta = (SpinStrings.from_canonical(each, labels.labels, labels.n_labels) for each in strings)
    alpha, beta = order_strings(alpha, beta, shape, deal=sum(shape) % 2 == 0, spin_flip=False)
    whole = np.random.default_rng(seed).normal(size=(alpha.size, beta.size))
    sigma = np.zeros_like(whole)
    # Of every two grids one shares blocks inside the node, and of the two backends the other one.
    grid = ProcessGrid(comm, shape, share_blocks=(shapes(comm.size).index(shape) + (backend == "cpu")) % 2 == 0)
    here = grid.coordinates
    place = (here.ia, here.ib, here.it, here.ir)
    module = get_backend(backend)
    found = sectors(alpha, beta)
    share = module.create_share(Layout.create(alpha, beta, found[0], shape), place, hamiltonian, labels)
    for sector in found:
        layout = Layout.create(alpha, beta, sector, shape)
        block = module.create_block(layout, place, hamiltonian, share)
        operator = SigmaOperator(grid, layout, block, Interaction.energy(hamiltonian) if planned else interaction)
        where = layout.geometry(*place)
        rows, columns = where.locate(np.arange(where.size))
        index = alpha.canonical[where.alpha[rows]], beta.canonical[where.beta[columns]]
        out, diagonal = np.empty(where.size), np.empty(where.size)
        block.diagonal(interaction, diagonal)
        operator._apply(interaction, diagonal, np.ascontiguousarray(whole[index]), out)
        sigma[index] = out
        operator.plan.free()
    grid.sum_over_all(sigma)
    grid.free()
    return whole, sigma


def check(comm, hamiltonian, strings, labels, interaction, backend, planned=False):
    """All grids of this number of ranks against the dense matrix; `planned` as in `apply_everywhere`."""
    matrix = dense_matrix(hamiltonian, *strings, interaction)
    for shape in shapes(comm.size):
        whole, sigma = apply_everywhere(
            comm, shape, hamiltonian, strings, labels, interaction, backend, planned=planned
        )
        expected = (matrix @ whole.ravel()).reshape(whole.shape)
        error = np.abs(sigma - expected).max() / np.abs(expected).max()
        assert error < 1e-12, f"grid {shape}: relative error {error:.1e}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_seven_by_five_strings_with_empty_blocks(comm, backend):
    hamiltonian = make_hamiltonian(6, (3, 2))
    strings = close_strings(6, 3, 7), close_strings(6, 2, 5, seed=1)
    check(comm, hamiltonian, strings, trivial_labels(6), Interaction.energy(hamiltonian), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["energy", "spin_square"])
def test_four_labels(comm, backend, what):
    hamiltonian = make_hamiltonian(7, (3, 4), labels=LABELS)
    labels = find_labels(hamiltonian)
    assert labels.n_labels == 4
    strings = random_strings(7, 3, 17), random_strings(7, 4, 13, seed=1)
    check(comm, hamiltonian, strings, labels, getattr(Interaction, what)(hamiltonian), backend)


def test_sixty_five_orbitals(comm):
    hamiltonian = make_hamiltonian(65, (2, 3))
    strings = random_strings(65, 2, 9), close_strings(65, 3, 11)
    check(comm, hamiltonian, strings, trivial_labels(65), Interaction.energy(hamiltonian), "cpu")


@pytest.mark.every_size
@pytest.mark.parametrize("nelec", [(3, 0), (0, 2), (6, 6), (6, 1)])
def test_no_electrons_and_full_shells(comm, nelec):
    hamiltonian = make_hamiltonian(6, nelec)
    strings = tuple(random_strings(6, n, {0: 1, 6: 1}.get(n, 5), seed=k) for k, n in enumerate(nelec))
    check(comm, hamiltonian, strings, trivial_labels(6), Interaction.energy(hamiltonian), "cpu")


@pytest.mark.every_size
def test_no_connection_at_all(comm):
    hamiltonian = make_hamiltonian(12, (3, 3))
    far = np.array([[0b000000000111], [0b000000111000], [0b000111000000], [0b111000000000]], np.uint64)
    check(comm, hamiltonian, (far, far), trivial_labels(12), Interaction.energy(hamiltonian), "cpu")


@pytest.mark.every_size
@pytest.mark.parametrize("what", ["energy", "spin_square"])
@pytest.mark.parametrize("kind", ["sites", "extended", "impurity", "pairs"])
def test_few_integrals(comm, kind, what):
    """S^2 is applied in the order of tasks that was planned for H, which may leave nearly all pairs out."""
    hamiltonian = with_few_integrals(kind, 7, (3, 2))
    strings = random_strings(7, 3, 19), random_strings(7, 2, 17, seed=1)
    check(comm, hamiltonian, strings, trivial_labels(7), getattr(Interaction, what)(hamiltonian), "cpu", planned=True)
