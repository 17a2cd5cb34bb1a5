"""States of one spin without a penalty, against dense matrices: pure vectors, high spins, several roots."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.space import Space
from sqd_mpi.solver.fitting import Call, fit
from sqd_mpi.solver.operators import Operators
from sqd_mpi.solver.sectors import Sector
from sqd_mpi.solver.solve import solve_subspace
from sqd_mpi.solver.spin_sector import active_part, n_spin_functions, spins_of
from sqd_mpi.timing import Timers
from tests.support.molecules import molecule, strings
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian
from tests.support.shapes import LABELS

ELECTRONS = [(3, (2, 1)), (4, (2, 2)), (4, (3, 1)), (5, (2, 2)), (5, (4, 3)), (5, (0, 3)), (4, (4, 4))]


def states_of(hamiltonian, pair) -> tuple[np.ndarray, np.ndarray]:
    """All energies of the dense matrix, ascending, and the spin S of each."""
    matrix, square = (
        dense_matrix(hamiltonian, *pair, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    energies, vectors = np.linalg.eigh(matrix + 1e-3 * square)  # tells apart degenerate levels of several spins
    squares = np.einsum("ik,ij,jk->k", vectors, square, vectors)
    energies = energies - 1e-3 * squares
    order = np.argsort(energies, kind="stable")
    return energies[order], np.sqrt(squares[order].clip(0.0) + 0.25) - 0.5


@pytest.mark.parametrize(("norb", "nelec"), ELECTRONS)
def test_numbers_of_spin_functions(norb, nelec):
    hamiltonian = make_hamiltonian(norb, nelec, 1)
    _, spins = states_of(hamiltonian, strings(hamiltonian))
    twice, counts = np.unique(np.rint(2 * spins).astype(int), return_counts=True)
    assert spins_of(norb, nelec) == twice.tolist()
    assert [n_spin_functions([0] * norb, nelec, each) for each in twice] == counts.tolist()


def test_numbers_of_spin_functions_in_every_sector():
    """Against the dense S^2 in the determinants of one label."""
    nelec, labels = (3, 2), LABELS[:5]
    pair = all_strings(5, 3), all_strings(5, 2)
    square = dense_matrix(make_hamiltonian(5, nelec, 1), *pair, Interaction.spin_square(make_hamiltonian(5, nelec, 1)))
    of_strings = [np.bitwise_xor.reduce(np.where(bitstrings.unpack(each, 5), labels, 0), axis=1) for each in pair]
    label = (of_strings[0][:, None] ^ of_strings[1][None, :]).ravel()
    for sector in range(4):
        inside = np.flatnonzero(label == sector)
        values = np.linalg.eigvalsh(square[np.ix_(inside, inside)])
        for twice in (1, 3, 5):
            expected = int((abs(values - twice * (twice + 2) / 4) < 1e-8).sum())
            assert n_spin_functions(labels.tolist(), nelec, twice, sector) == expected


@pytest.mark.parametrize(
    ("norb", "nelec", "spin_square", "nroots", "settings"),
    [
        (4, (2, 2), 6.0, 1, {"spin_flip": "off"}),
        (5, (3, 2), 8.75, 1, {}),
        (6, (3, 3), 12.0, 1, {"spin_flip": "off"}),
        (4, (2, 1), 3.75, 4, {"spin_flip": "off"}),
    ],
)
def test_all_states_of_a_spin_whose_configurations_are_cut(norb, nelec, spin_square, nroots, settings):
    """One root more than there are was looked for without end: the model space does not show that there is none."""
    hamiltonian = make_hamiltonian(norb, nelec, 1)
    energies, spins = states_of(hamiltonian, strings(hamiltonian))
    options = SolveOptions(spin_square=spin_square, nroots=nroots, model_space=2, tol=1e-8, **settings)
    result = solve_subspace(None, hamiltonian, *strings(hamiltonian), options)
    exact = energies[abs(spins * (spins + 1) - spin_square) < 1e-6]
    assert len(exact) == nroots and result.converged and result.proven
    np.testing.assert_allclose(result.energies, exact, atol=1e-9)


def test_spins_of_both_parities():
    assert spins_of(6, (3, 3), +1) == [0, 4]
    assert spins_of(6, (3, 3), -1) == [2, 6]


def test_orbitals_between_full_and_empty_ones():
    whole = all_strings(4, 2)
    assert active_part(whole, whole, 4) == ([0, 1, 2, 3], (2, 2))
    shifted = (whole << np.uint64(2)) | np.uint64(0b11)  # orbitals 0 and 1 are full, 6 and 7 are empty
    assert active_part(shifted, shifted, 8) == ([2, 3, 4, 5], (2, 2))
    assert active_part(whole, all_strings(4, 1), 4) == ([0, 1, 2, 3], (2, 1))
    assert active_part(whole[:5], whole, 4) is None
    assert active_part(whole, whole << np.uint64(1), 5) is None


@pytest.mark.parametrize("settings", [{}, {"spin_flip": "off"}, {"backend": "reference"}])
@pytest.mark.parametrize("twice_spin", [0, 2, 4, 6])
def test_projection(twice_spin, settings):
    hamiltonian = make_hamiltonian(6, (3, 3), 2)
    pair = strings(hamiltonian)
    options = SolveOptions(spin_square=twice_spin * (twice_spin + 2) / 4, symmetry="off", **settings)
    space = Space.create(hamiltonian, *pair, symmetry=False)
    frame = fit(Call(ranks_of(None), space, options, Log.silent(), Timers(), 2**30, 0, 1))
    (sector,) = frame.sought.sectors
    assert sector == Sector(0, 0 if settings.get("spin_flip") else (-1) ** (twice_spin // 2), twice_spin)
    operator = Operators(frame).hamiltonian(sector)
    vector = np.random.default_rng(3).normal(size=operator.size)
    before = vector.copy()
    share = operator.purify(vector)

    # What is left is the part in the eigenspace of S^2.
    layout = Layout.create(space.alpha, space.beta, 0, (1, 1, 1, 1), sector.parity)
    square = np.array([_applied(operator, row) for row in np.eye(operator.size)])
    values, vectors = np.linalg.eigh(square)
    inside = vectors[:, abs(values) < 1e-8]
    np.testing.assert_allclose(vector, inside @ (inside.T @ before), atol=1e-12)
    assert share == pytest.approx((vector @ vector) / (before @ before))
    assert layout.dimension == operator.size

    # Pure vectors are not touched.
    before = vector.copy()
    assert operator.purify(vector) == 1.0
    np.testing.assert_array_equal(vector, before)


def _applied(operator, vector) -> np.ndarray:
    """(S^2 - t) vector."""
    diagonal, out = np.empty(operator.size), np.empty(operator.size)
    operator.block.diagonal(operator.deviation, diagonal)
    operator._apply(operator.deviation, diagonal, vector, out)
    return out


@pytest.mark.parametrize("seed", range(12))
def test_lowest_states_of_every_spin(seed):
    """Random integrals, in which high spins lie anywhere; 4 of 95 ended in a lower spin when a penalty was used."""
    rng = np.random.default_rng(seed)
    norb = int(rng.integers(3, 6))
    nelec = tuple(int(n) for n in rng.integers(1, norb + 1, 2))
    hamiltonian = make_hamiltonian(norb, nelec, seed)
    energies, spins = states_of(hamiltonian, strings(hamiltonian))
    for twice in spins_of(norb, nelec):
        exact = energies[abs(spins - twice / 2) < 1e-6]
        nroots = min(3, len(exact))
        options = SolveOptions(
            spin_square=twice * (twice + 2) / 4, nroots=nroots, tol=1e-8, model_space=int(rng.integers(2, 60)),
            spin_flip=str(rng.choice(["auto", "off"])),
        )  # fmt: skip
        result = solve_subspace(None, hamiltonian, *strings(hamiltonian), options)
        assert result.converged and result.proven, (norb, nelec, twice)
        np.testing.assert_allclose(result.energies, exact[:nroots], atol=1e-9)
        unlike = active_part(*strings(hamiltonian), norb) is not None
        assert (result.spin_target.strength == 0.0) == unlike
        for root in result.roots:
            assert root.twice_spin == (twice if unlike else -1) and root.spin_pure
            assert root.spin_variance < 1e-12
            assert root.spin_square == pytest.approx(twice * (twice + 2) / 4, abs=1e-8)
            assert root.penalised_energy == pytest.approx(root.energy, abs=1e-10)


def test_septets_of_water():
    """The second and third were triplets when a penalty was used."""
    hamiltonian = _water()
    energies, spins = states_of(hamiltonian, strings(hamiltonian))
    options = SolveOptions(spin_square=12.0, nroots=3, tol=1e-8)
    result = solve_subspace(None, hamiltonian, *strings(hamiltonian), options)
    assert result.converged
    np.testing.assert_allclose(result.energies, energies[abs(spins - 3.0) < 1e-6][:3], atol=1e-9)
    np.testing.assert_allclose([root.spin_square for root in result.roots], 12.0, atol=1e-8)


def _water():
    """H2O in 6-31G, the 1s of oxygen frozen: 4 + 4 electrons in 7 orbitals."""
    from pyscf import gto, scf

    from sqd_mpi.problem.hamiltonian import Hamiltonian

    mol = gto.M(atom="O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", basis="6-31g", verbose=0)
    return Hamiltonian.from_pyscf(scf.RHF(mol).run(conv_tol=1e-12), 7, (4, 4))


def test_more_roots_than_states_of_a_spin():
    hamiltonian = molecule("N2 1.1")
    with pytest.raises(InputError, match="needs as many states of spin 3; this space has 1$"):
        solve_subspace(None, hamiltonian, *strings(hamiltonian), SolveOptions(spin_square=12, nroots=2))


def test_variance_of_a_mixture():
    """In sampled spaces the variance of S^2 says how far from one spin a root is."""
    hamiltonian = make_hamiltonian(7, (3, 3), 4)
    pair = close_strings(7, 3, 16), close_strings(7, 3, 16)
    result = solve_subspace(None, hamiltonian, *pair, SolveOptions(tol=1e-9))
    square = dense_matrix(hamiltonian, *pair, Interaction.spin_square(hamiltonian))
    vector = result.gather().ravel()
    mean = vector @ square @ vector
    variance = vector @ square @ square @ vector - mean**2
    assert variance > 1e-3
    assert result.roots[0].spin_variance == pytest.approx(variance, abs=1e-9)
    assert not result.roots[0].spin_pure
