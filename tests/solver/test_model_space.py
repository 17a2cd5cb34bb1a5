"""The model space holds the lowest determinants and their exact eigenpairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sqd_mpi.backends import get_backend
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings, sectors
from sqd_mpi.problem.symmetry import find_labels, trivial_labels
from sqd_mpi.solver.model_space import ModelSpace
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian, random_strings

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])
PLACE = (0, 0, 0, 0)


def create(hamiltonian, strings, size, sector=None, symmetry="auto"):
    """The model space of one sector (that of the first determinant), its layout and diagonal."""
    labels = find_labels(hamiltonian) if symmetry == "auto" else trivial_labels(hamiltonian.norb)
    alpha, beta = (SpinStrings.from_canonical(each, labels.labels, labels.n_labels) for each in strings)
    layout = Layout.create(alpha, beta, sectors(alpha, beta)[0] if sector is None else sector, (1, 1, 1, 1))
    backend = get_backend("cpu")
    interaction = Interaction.energy(hamiltonian)
    block = backend.create_block(layout, PLACE, hamiltonian, backend.create_share(layout, PLACE, hamiltonian, labels))
    diagonal = np.empty(layout.dimension)
    block.diagonal(interaction, diagonal)
    grid = ProcessGrid(None, (1, 1, 1, 1))
    return ModelSpace.create(grid, layout, diagonal, hamiltonian, interaction, size), layout, diagonal


def canonical_positions(layout: Layout) -> np.ndarray:
    """Row of the dense matrix of every element of the vector."""
    where = layout.geometry(*PLACE)
    rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
    alpha = layout.alpha.canonical[where.alpha[rows]]
    return alpha * layout.beta.size + layout.beta.canonical[where.beta[columns]]


@pytest.mark.parametrize("sector", range(4))
@pytest.mark.parametrize("size", [1, 5, 30])
def test_lowest_determinants_of_a_sector(size, sector):
    hamiltonian = make_hamiltonian(7, (3, 4), labels=LABELS)
    strings = random_strings(7, 3, 20), random_strings(7, 4, 18, seed=1)
    matrix = dense_matrix(hamiltonian, *strings)
    model, layout, diagonal = create(hamiltonian, strings, size, sector)
    positions = canonical_positions(layout)
    np.testing.assert_allclose(diagonal, np.diag(matrix)[positions], atol=1e-12)
    lowest = np.argsort(diagonal)[:size]
    assert sorted(model.mine.tolist()) == sorted(lowest.tolist())
    chosen = positions[model.mine]
    block = matrix[np.ix_(chosen, chosen)]
    np.testing.assert_allclose(model.energies, np.linalg.eigvalsh(block), atol=1e-12)
    np.testing.assert_allclose(block @ model.vectors, model.vectors * model.energies, atol=1e-11)


def test_fill_gives_normalised_ritz_vectors():
    hamiltonian = make_hamiltonian(7, (3, 4), labels=LABELS)
    strings = random_strings(7, 3, 20), random_strings(7, 4, 18, seed=1)
    model, layout, _ = create(hamiltonian, strings, 12)
    positions = canonical_positions(layout)
    matrix = dense_matrix(hamiltonian, *strings)[np.ix_(positions, positions)]
    out = np.full((5, layout.dimension), np.nan)
    assert model.fill(out, 3) == 3
    elements = np.diag(out[:3] @ matrix @ out[:3].T) / np.sum(out[:3] ** 2, axis=1)
    assert np.all(elements > model.energies[:3]) and np.allclose(elements, model.energies[:3], atol=0.02)
    model = replace(model, clean=np.zeros(len(model.energies), bool))  # no traces of other eigenvectors
    assert model.fill(out, 3) == 3
    np.testing.assert_allclose(out[:3] @ matrix @ out[:3].T, np.diag(model.energies[:3]), atol=1e-12)
    np.testing.assert_allclose(out[:3] @ out[:3].T, np.eye(3), atol=1e-12)
    assert np.isnan(out[3:]).all()


def test_a_model_space_of_everything_is_the_answer():
    hamiltonian = make_hamiltonian(5, (2, 1), seed=3)
    strings = all_strings(5, 2), all_strings(5, 1)
    model, layout, _ = create(hamiltonian, strings, 300)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))
    np.testing.assert_allclose(model.energies, exact, atol=1e-12)
    assert model.fill(np.empty((60, layout.dimension)), 60) == layout.dimension == 50


def test_determinants_of_equal_energy_stay_together():
    # Flipping all spins leaves the diagonal element: a cut between partners would break the spin symmetry.
    hamiltonian = make_hamiltonian(6, (3, 3), seed=1)
    strings = (close_strings(6, 3, 12),) * 2
    for size in range(1, 30):
        model, layout, diagonal = create(hamiltonian, strings, size)
        assert size <= len(model.energies) <= 2 * size
        positions = canonical_positions(layout)[model.mine]
        chosen = set(positions.tolist())
        flipped = {(each % 12) * 12 + each // 12 for each in chosen}
        assert chosen == flipped
        assert diagonal[model.mine].max() <= np.delete(diagonal, model.mine).min() - 1e-10


def test_many_equal_energies_do_not_blow_it_up():
    # All orbitals are alike: all determinants with the same numbers of pairs have the same energy.
    hamiltonian = make_hamiltonian(6, (1, 1))
    flat = type(hamiltonian)(0 * hamiltonian.h1e, 0 * hamiltonian.eri, 1.0, 6, (1, 1))
    model, _, _ = create(flat, (all_strings(6, 1),) * 2, 4, symmetry="off")
    assert 4 <= len(model.energies) <= 8
    np.testing.assert_allclose(model.energies, 1.0)


@pytest.mark.parametrize(("norb", "nelec"), [(65, (2, 3)), (6, (3, 0)), (6, (6, 1))])
def test_many_orbitals_no_electrons_and_full_shells(norb, nelec):
    hamiltonian = make_hamiltonian(norb, nelec)
    strings = tuple(
        close_strings(norb, n, 1 if n in (0, norb) else 6, seed=k) if n else random_strings(norb, 0, 1)
        for k, n in enumerate(nelec)
    )
    model, _, _ = create(hamiltonian, strings, 100)
    np.testing.assert_allclose(model.energies, np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings)), atol=1e-12)
