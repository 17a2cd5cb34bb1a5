"""Spin targets in one process: against PySCF's full CI matrices, where states of several spins cross."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.app import run
from sqd_mpi.app.cli import main
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.space import Space
from sqd_mpi.solver.fitting import Call, fit
from sqd_mpi.solver.operators import Operators
from sqd_mpi.solver.solve import solve_subspace
from sqd_mpi.solver.spin_target import SpinTarget, is_pure
from sqd_mpi.timing import Timers
from tests.support.molecules import MOLECULES, exact_states, molecule, strings
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian

OFF = {"symmetry": "off", "spin_flip": "off"}


@pytest.mark.parametrize("name", MOLECULES)
def test_molecules_against_pyscf(name):
    hamiltonian = molecule(name)
    pair = strings(hamiltonian)
    least = abs(hamiltonian.nelec[0] - hamiltonian.nelec[1]) / 2
    for spin_square in (None, least * (least + 1), (least + 1) * (least + 2)):
        exact = exact_states(hamiltonian, spin_square, 3)
        options = SolveOptions(nroots=3, tol=1e-8, spin_square=spin_square, model_space=60)
        result = solve_subspace(None, hamiltonian, *pair, options)
        assert result.converged
        np.testing.assert_allclose(result.energies, [state.energy for state in exact], atol=1e-8)
        if spin_square is not None:
            assert all(root.spin_pure for root in result.roots)
            np.testing.assert_allclose([root.spin_square for root in result.roots], spin_square, atol=1e-8)
            np.testing.assert_allclose([root.penalised_energy for root in result.roots], result.energies, atol=1e-8)


@pytest.mark.parametrize("settings", [{}, OFF, {"backend": "reference"}])
@pytest.mark.parametrize("spin_square", [0.0, 2.0, 6.0])
def test_cold_start_where_spins_cross(spin_square, settings):
    # Stretched N2: singlet, triplet, quintet and septet within 0.05 hartree; the penalty of other programs fails here.
    hamiltonian = molecule("N2 2.2")
    exact = exact_states(hamiltonian, spin_square, 1)[0]
    options = SolveOptions(spin_square=spin_square, tol=1e-8, model_space=40, **settings)
    result = solve_subspace(None, hamiltonian, *strings(hamiltonian), options)
    root = result.roots[0]
    assert result.converged and root.spin_pure
    assert root.energy == pytest.approx(exact.energy, abs=1e-9)
    assert root.spin_square == pytest.approx(spin_square, abs=1e-8)
    if not settings:
        assert root.parity == (1 if spin_square in (0.0, 6.0) else -1)
        assert {sector.parity for sector in result.sectors_examined} == {root.parity}


def test_triplet_oxygen_lies_in_the_odd_parity():
    hamiltonian = molecule("O2")
    result = solve_subspace(None, hamiltonian, *strings(hamiltonian), SolveOptions(nroots=3, tol=1e-7))
    assert [root.parity for root in result.roots] == [-1, 1, 1]
    np.testing.assert_allclose([root.spin_square for root in result.roots], [2.0, 0.0, 0.0], atol=1e-7)
    assert result.roots[2].energy == pytest.approx(result.roots[1].energy, abs=1e-9)  # the two parts of a Delta state


@pytest.mark.parametrize(("spin_square", "settings"), [(0.0, {}), (2.0, {}), (2.0, OFF), (6.0, {})])
def test_operator_is_the_definition_in_any_space(spin_square, settings):
    # Random strings: the space lacks spin partners, and <S^2> is that of no spin.
    hamiltonian = make_hamiltonian(7, (3, 3), 4)
    one = close_strings(7, 3, 16)
    options = SolveOptions(spin_square=spin_square, tol=1e-9, model_space=20, spin_penalty=0.3, **settings)
    log = Log.silent()
    result = solve_subspace(None, hamiltonian, one, one, options, log=log)
    matrix, square = (
        dense_matrix(hamiltonian, one, one, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    root, target = result.roots[0], result.spin_target
    assert target is not None and target.strength == 0.3
    assert target.linear == (spin_square == 0.0)  # the same on every path
    shifted = square - spin_square * np.eye(len(square))
    n = len(one)  # only vectors of the right parity, whether sectors keep them apart or not
    swap = np.eye(n * n).reshape(n, n, n, n).transpose(1, 0, 2, 3).reshape(n * n, n * n)
    matrix = matrix + 1e3 * (np.eye(n * n) - target.parity * swap)
    exact = np.linalg.eigvalsh(matrix + 0.3 * (shifted if target.linear else shifted @ shifted))[0]
    vector = result.gather().ravel()
    assert result.converged
    assert root.penalised_energy == pytest.approx(exact, abs=1e-9)
    assert root.energy == pytest.approx(vector @ matrix @ vector, abs=1e-9)
    assert root.spin_square == pytest.approx(vector @ square @ vector, abs=1e-9)
    if not target.reached(root.spin_square):
        assert not root.spin_pure and any("<S^2>" in warning for warning in log.warnings)


@pytest.mark.parametrize("settings", [{}, {"spin_flip": "off"}])
@pytest.mark.parametrize("seed", range(3))
def test_states_of_the_other_parity_do_not_stand_in_the_way(seed, settings):
    # The penalty of 0.4 hartree leaves singlets below the triplets. Where sectors do not keep parities apart the solve
    # goes past them.
    hamiltonian = make_hamiltonian(5, (4, 4), seed)
    pair = strings(hamiltonian)
    matrix, square = (
        dense_matrix(hamiltonian, *pair, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    energies, vectors = np.linalg.eigh(matrix + 1e-3 * square)
    squares = np.einsum("ik,ij,jk->k", vectors, square, vectors)
    exact = (energies - 1e-3 * squares)[abs(squares - 2.0) < 1e-8][:3]
    options = SolveOptions(spin_square=2, spin_penalty=0.1, nroots=3, tol=1e-8, model_space=2, **settings)
    result = solve_subspace(None, hamiltonian, *pair, options)
    assert result.converged and result.proven
    np.testing.assert_allclose(result.energies, exact, atol=1e-9)
    np.testing.assert_allclose([root.spin_square for root in result.roots], 2.0, atol=1e-8)


def test_more_roots_than_wanted_keep_to_the_memory_limit():
    hamiltonian = make_hamiltonian(5, (4, 4), 1)

    def basis(memory: int, count: int) -> int:
        options = SolveOptions(nroots=3, spin_square=2, spin_flip="off", memory=memory)
        space = Space.create(hamiltonian, *strings(hamiltonian))
        frame = fit(Call(ranks_of(None), space, options, Log.silent(), Timers(), memory, 0, 1))
        return frame.basis_for(frame.layout(frame.sought.sectors[0]), count, count - 1)

    vector = 25 * 8
    assert [basis(100 * vector, count) for count in (1, 4, 5, 6)] == [14, 13, 15, 18]
    assert [basis(27 * vector, count) for count in (1, 4)] == [10, 9]  # 9 vectors, their images, 3 known roots, others
    with pytest.raises(InputError, match="^memory: vectors and buffers for 5 roots need"):
        basis(27 * vector, 5)


def test_impure_states_are_reported():
    hamiltonian = make_hamiltonian(6, (2, 1), 3)
    pair = all_strings(6, 2)[:4], all_strings(6, 1)[3:5]
    log = Log.silent()
    result = solve_subspace(None, hamiltonian, *pair, SolveOptions(spin_square=0.75), log=log)
    root = result.roots[0]
    assert result.converged and not root.spin_pure and abs(root.spin_square - 0.75) > 1e-3
    assert len(log.warnings) == 1 and f"{root.spin_square:.4f}" in log.warnings[0]


@pytest.mark.parametrize(
    ("nelec", "value"), [((3, 3), 0.75), ((3, 3), 1.0), ((4, 2), 0.0), ((3, 3), 20.0), ((5, 5), 6.0), ((1, 0), 2.0)]
)
def test_spins_that_cannot_be(nelec, value):
    hamiltonian = make_hamiltonian(6, nelec)
    with pytest.raises(InputError, match=r"^spin_square needs S\(S\+1\) of a spin that .* can have, one of"):
        solve_subspace(None, hamiltonian, *strings(hamiltonian), SolveOptions(spin_square=value))


def test_options_are_checked():
    with pytest.raises(InputError, match="^spin_penalty needs spin_square"):
        SolveOptions(spin_penalty=0.1)
    with pytest.raises(InputError, match="^spin_square needs"):
        SolveOptions(spin_square=-2)
    hamiltonian = make_hamiltonian(5, (2, 2))
    one = all_strings(5, 2)[:1]
    with pytest.raises(InputError, match="this space has 0"):
        solve_subspace(None, hamiltonian, one, one, SolveOptions(spin_square=2))


def test_under_converged_solve_says_so():
    hamiltonian = molecule("N2 2.2")
    options = SolveOptions(spin_square=0, model_space=10, max_iterations=3)
    result = solve_subspace(None, hamiltonian, *strings(hamiltonian), options)
    assert not result.converged and result.roots[0].residual_norm > 1e-6


def test_strength_lifts_the_nearest_spin_by_half_a_hartree():
    hamiltonian = make_hamiltonian(6, (3, 3))
    for value, flip, expected in ((0, True, 0.25), (2, True, 0.125), (2, False, 0.125), (6, True, 0.5 / 16)):
        target = SpinTarget.create(hamiltonian, value, None, flip, closed=True)
        assert target.linear == (value == 0 or (value == 2 and flip))
        assert target.strength == pytest.approx(expected)
        other = (target.spin + 1) * (target.spin + 2) if target.linear else (target.spin - 1) * target.spin
        distance = abs(other - target.value)
        assert target.strength * (distance if target.linear else distance**2) == pytest.approx(0.5)
    assert is_pure(2.0, 4.0) and not is_pure(2.0, 5.0) and not is_pure(1.0, 1.0)


def test_spaces_that_the_spin_leads_out_of_have_a_weaker_penalty():
    """It is linear where both spins have the same strings; a strength that is given has the form of PySCF."""
    hamiltonian = make_hamiltonian(6, (3, 3))
    for value, held, linear, strength in (
        (0, True, True, 0.1), (0, False, True, 0.1), (2, True, True, 0.05), (2, False, False, 0.125),
        (6, True, False, 0.5 / 16),
    ):  # fmt: skip
        for flip in (False, True):  # the form does not depend on the sectors
            target = SpinTarget.create(hamiltonian, value, None, flip, closed=False, held=held)
            assert target.linear == linear and target.strength == pytest.approx(strength)
    assert not SpinTarget.create(hamiltonian, 2, 0.1, True, closed=False, held=True).linear


@pytest.mark.parametrize("spin_square", [0.0, 2.0])
def test_cut_configurations_have_the_penalty_on_the_diagonal(spin_square):
    hamiltonian, one, other = make_hamiltonian(6, (3, 3), 4), close_strings(6, 3, 8), close_strings(6, 3, 7, 1)
    options = SolveOptions(spin_square=spin_square, symmetry="off", spin_flip="off")
    space = Space.create(hamiltonian, one, other, symmetry=False)
    frame = fit(Call(ranks_of(None), space, options, Log.silent(), Timers(), 2**30, 0, 1))
    diagonal = Operators(frame).hamiltonian(frame.sought.sectors[0]).diagonal()
    energy, square = (
        np.diag(dense_matrix(hamiltonian, one, other, each))
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    target, deviation = frame.sought.target, square - spin_square
    assert target is not None and target.linear == (spin_square == 0.0)
    expected = energy + target.strength * (deviation if target.linear else deviation**2)
    np.testing.assert_allclose(diagonal, expected, atol=1e-12)


def test_mixtures_are_told_from_other_spins():
    target = SpinTarget.create(make_hamiltonian(6, (3, 3)), 0, None, True, closed=False)
    # 85 % singlet and 15 % quintet; 40 % and 60 %; a triplet.
    assert not target.is_another(0.9, 0.85 * 0.15 * 36) and target.is_another(3.6, 0.4 * 0.6 * 36)
    assert target.is_another(2.0, 0.0) and not target.is_another(0.3, 0.0)
    assert target.complaint(None, None) is None and target.complaint(0.0, 0.0) is None
    assert "so that spins mix; a larger --spin-penalty makes the state purer" in (target.complaint(0.3, 0.9) or "")
    assert "not converged; the same strings for both spins, a larger --spin-penalty" in target.complaint(2.0, 0.0)
    same = SpinTarget.create(make_hamiltonian(6, (3, 3)), 0, None, True, closed=False, held=True)
    assert "a state of another spin, which counts as not converged; a larger" in (same.complaint(3.0, 0.1) or "")
    assert not same.is_another(1.5, 0.1)  # the next spin of this parity has 6


@pytest.mark.parametrize("spin_square", [0.0, 2.0])
def test_sampled_spaces_converge_as_without_a_target(spin_square):
    # Some strings of stretched N2, where singlet to septet lie within 0.05 hartree; no state has one spin.
    hamiltonian = molecule("N2 2.2")
    one = close_strings(hamiltonian.norb, hamiltonian.nelec[0], 16)
    matrix, square = (
        dense_matrix(hamiltonian, one, one, each)
        for each in (Interaction.energy(hamiltonian), Interaction.spin_square(hamiltonian))
    )
    n, parity = len(one), 1 if spin_square == 0.0 else -1
    swap = np.eye(n * n).reshape(n, n, n, n).transpose(1, 0, 2, 3).reshape(n * n, n * n)
    free = solve_subspace(None, hamiltonian, one, one, SolveOptions(tol=1e-7, model_space=20))
    found = {}
    for flip in ("auto", "off"):
        options = SolveOptions(spin_square=spin_square, tol=1e-7, model_space=20, spin_flip=flip)
        result = solve_subspace(None, hamiltonian, one, one, options)
        target, root = result.spin_target, result.roots[0]
        assert target is not None and target.linear and result.converged
        penalty = target.strength * (square - spin_square * np.eye(n * n)) + 1e3 * (np.eye(n * n) - parity * swap)
        exact = np.linalg.eigvalsh(matrix + penalty)[0]
        assert root.penalised_energy == pytest.approx(exact, abs=1e-9)
        found[flip] = result
    assert found["auto"].energies == pytest.approx(found["off"].energies, abs=1e-7)
    assert found["auto"].n_sigma < 2 * free.n_sigma


@pytest.fixture
def input_file(tmp_path, monkeypatch):
    """An input file of stretched N2 in the working directory."""
    monkeypatch.chdir(tmp_path)
    hamiltonian = molecule("N2 2.2")
    records.write_input("input.h5", hamiltonian, *strings(hamiltonian))
    return tmp_path / "input.h5"


def test_run_writes_what_it_found(input_file, capsys):
    exact = exact_states(molecule("N2 2.2"), 2.0, 1)[0]
    assert run.run_file(None, "input.h5", "result.h5", {"spin_square": "2", "model_space": 30}) == 0
    summary = records.read_summary("result.h5")
    assert summary["energy"][0] == pytest.approx(exact.energy, abs=1e-9)
    assert summary["penalised_energy"][0] == pytest.approx(exact.energy, abs=1e-9)
    assert summary["spin_pure"] == [True] and summary["spin_flip_parity"] == [-1]
    assert summary["spin_target"]["spin"] == 1.0 and summary["spin_target"]["linear"] is True
    assert run.run_file(None, "input.h5", "short.h5", {"spin_square": 0, "max_iterations": 1, "model_space": 5}) == 3
    assert records.read_summary("short.h5")["all_converged"] is False
    assert "not converged to a residual of 1e-06" in capsys.readouterr().err


def test_run_refuses_a_spin_that_cannot_be(input_file, capsys):
    with pytest.raises(InputError, match="^spin_square needs"):
        run.run_file(None, "input.h5", "result.h5", {"spin_square": 0.75})
    assert not (input_file.parent / "result.h5").exists()
    assert main(["run", "input.h5", "--spin-penalty", "0.1"]) == 2
    assert capsys.readouterr().err.startswith("sqd_mpi: error: --spin-penalty needs --spin-square")
