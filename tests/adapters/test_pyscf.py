"""The PySCF client against PySCF's own solvers."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from pyscf import gto, lib, mcscf, scf
from pyscf.fci import direct_spin1

from sqd_mpi.adapters.pyscf import SubspaceArray, SubspaceSolver, SubspaceVector, drive
from sqd_mpi.errors import InputError
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings


@pytest.fixture(scope="module", autouse=True)
def one_pyscf_thread():
    with lib.with_omp_threads(1):
        yield


@pytest.fixture(scope="module")
def nitrogen() -> scf.hf.SCF:
    molecule = gto.M(atom="N 0 0 0; N 0 0 1.2", basis="6-31g", verbose=0)
    return scf.RHF(molecule).run(conv_tol=1e-12)


@pytest.fixture(scope="module")
def oxygen() -> scf.hf.SCF:
    molecule = gto.M(atom="O 0 0 0; O 0 0 1.3", basis="sto-3g", spin=2, verbose=0)
    return scf.ROHF(molecule).run(conv_tol=1e-12)


def test_casci_of_all_strings(oxygen):
    expected = mcscf.CASCI(oxygen, 6, (5, 3)).run()
    active_space = mcscf.CASCI(oxygen, 6, (5, 3))
    active_space.fcisolver = SubspaceSolver(tol=1e-8)
    active_space.kernel()
    solver, ci = active_space.fcisolver, active_space.ci
    assert isinstance(ci, SubspaceArray) and ci.shape == (6, 20)
    assert active_space.converged and solver.converged is True
    assert active_space.e_tot == pytest.approx(expected.e_tot, abs=1e-10)
    for name in ("make_rdm1s", "make_rdm1", "make_rdm12", "make_rdm2", "make_rdm12s"):
        found = getattr(solver, name)(ci, 6, (5, 3))
        exact = getattr(expected.fcisolver, name)(expected.ci, 6, (5, 3))
        for one, other in zip(flat(found), flat(exact), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)
    assert solver.spin_square(ci, 6, (5, 3)) == pytest.approx((2.0, 3.0), abs=1e-7)
    np.testing.assert_allclose(np.abs(ci.gather()), np.abs(expected.ci), atol=1e-6)
    np.testing.assert_allclose(active_space.make_rdm1(), expected.make_rdm1(), atol=1e-6)


def flat(found) -> list[np.ndarray]:
    """The arrays of nested tuples."""
    return [found] if isinstance(found, np.ndarray) else [array for each in found for array in flat(each)]


def test_casci_of_three_roots_and_between_them(nitrogen):
    active_space = mcscf.CASCI(nitrogen, 6, 6)
    active_space.fcisolver = SubspaceSolver(tol=1e-8, nroots=3)
    energies, _, vectors, _, _ = active_space.kernel()
    h1e, ecore = active_space.get_h1eff()
    exact = np.linalg.eigvalsh(direct_spin1.pspace(h1e, active_space.get_h2eff(), 6, (3, 3), np=400)[1])[:3]
    np.testing.assert_allclose(energies, exact + ecore, atol=1e-9)
    assert active_space.fcisolver.converged == [True] * 3
    whole = [vector.gather() for vector in vectors]
    for bra, ket in ((0, 1), (1, 2), (2, 2)):
        one, two = direct_spin1.trans_rdm12s(whole[bra], whole[ket], 6, (3, 3))
        found = active_space.fcisolver.trans_rdm12s(vectors[bra], vectors[ket], 6, (3, 3))
        for mine, theirs in zip(flat(found), [*one, *two], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-10)
        for name in ("trans_rdm1", "trans_rdm1s", "trans_rdm12"):
            found = getattr(active_space.fcisolver, name)(vectors[bra], vectors[ket], 6, (3, 3))
            theirs = getattr(direct_spin1, name)(whole[bra], whole[ket], 6, (3, 3))
            for each, other in zip(flat(found), flat(theirs), strict=True):
                np.testing.assert_allclose(each, other, atol=1e-10)


def test_casscf_of_eight_orbitals_equals_pyscf(nitrogen):
    expected, found = (mcscf.CASSCF(nitrogen, 8, 10) for _ in range(2))
    found.fcisolver = SubspaceSolver()
    for calculation in (expected, found):
        calculation.conv_tol = 1e-10
        calculation.kernel()
    assert expected.converged and found.converged
    assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)
    one, other = (np.linalg.eigvalsh(each.fcisolver.make_rdm1(each.ci, 8, (5, 5))) for each in (found, expected))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_state_average_equals_pyscf(nitrogen):
    weights = [0.5, 0.25, 0.25]
    expected = mcscf.state_average_(mcscf.CASSCF(nitrogen, 4, 4), weights)
    found = mcscf.CASSCF(nitrogen, 4, 4)
    found.fcisolver = SubspaceSolver()
    found = mcscf.state_average_(found, weights)
    for calculation in (expected, found):
        calculation.conv_tol = 1e-10
        calculation.kernel()
    assert found.converged
    np.testing.assert_allclose(found.e_states, expected.e_states, atol=1e-6)
    assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)
    squares, _ = found.fcisolver.states_spin_square(found.ci, 4, (2, 2))
    np.testing.assert_allclose(squares, [0.0, 2.0, 2.0], atol=1e-6)


@pytest.mark.slow
def test_casscf_with_point_group_and_natural_orbitals():
    molecule = gto.M(atom="O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", basis="6-31g", symmetry=True, verbose=0)
    mean_field = scf.RHF(molecule).run(conv_tol=1e-12)
    expected, found = (mcscf.CASSCF(mean_field, 5, 6) for _ in range(2))
    found.fcisolver = SubspaceSolver()
    for calculation in (expected, found):
        calculation.natorb, calculation.conv_tol = True, 1e-10
        calculation.kernel()
    assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)
    one, other = (each.fcisolver.make_rdm1(each.ci, 5, (3, 3)) for each in (found, expected))
    np.testing.assert_allclose(one, np.diag(np.diag(one)), atol=1e-6)
    np.testing.assert_allclose(np.diag(one), np.diag(other), atol=1e-4)


@pytest.mark.parametrize("as_integers", [True, False])
def test_given_strings_and_a_rule(nitrogen, as_integers):
    strings = close_strings(6, 3, 9), close_strings(6, 3, 7, seed=1)
    given = tuple(np.array(bitstrings.to_integers(each)) for each in strings) if as_integers else strings
    active_space = mcscf.CASCI(nitrogen, 6, 6)
    hamiltonian = Hamiltonian.from_pyscf(nitrogen, 6, 6)
    expected = solve_subspace(None, hamiltonian, *strings, SolveOptions(tol=1e-8))
    asked = []

    def rule(norb, nelec, h1e, eri):
        asked.append((norb, nelec, h1e.shape, eri.shape))
        return given

    for chosen in (given, rule):
        active_space.fcisolver = SubspaceSolver(chosen, tol=1e-8, spin_flip="off")
        assert active_space.kernel()[0] == pytest.approx(expected.energies[0], abs=1e-9)
        assert active_space.ci.shape == (9, 7)
    assert asked == [(6, (3, 3), (6, 6), (21, 21))]


def test_start_vectors_save_iterations(nitrogen):
    active_space = mcscf.CASCI(nitrogen, 7, 8)
    h1e, ecore = active_space.get_h1eff()
    eri = active_space.get_h2eff()
    problem = h1e, eri, 7, (4, 4)
    settings = {"tol": 1e-8, "model_space": 20, "array_limit": 1}
    solvers = {name: SubspaceSolver(symmetry=name, **settings) for name in ("auto", "off")}
    energy, ci = solvers["auto"].kernel(*problem, ecore=ecore)
    cold = {}
    for name, solver in solvers.items():
        solver.kernel(*problem, ecore=ecore)
        cold[name] = solver.result.n_iterations
    # the same labels, other labels (the vector is put together), and an array
    for name, start in (("auto", ci), ("off", ci), ("auto", ci.gather()), ("off", [ci.gather()]), ("auto", True)):
        found, vector = solvers[name].kernel(*problem, ecore=ecore, ci0=start)
        assert found == pytest.approx(energy, abs=1e-10)
        assert solvers[name].result.n_iterations < cold[name]
        np.testing.assert_allclose(np.abs(vector.gather()), np.abs(ci.gather()), atol=1e-6)
    with pytest.raises(InputError, match=r"ci0 is an array \(35, 35\); got \(3, 3\)"):
        solvers["auto"].kernel(*problem, ci0=np.ones((3, 3)))
    with pytest.raises(InputError, match="same strings and symmetry labels"):
        solvers["auto"].trans_rdm1(ci, vector_of(solvers["off"], problem), 7, (4, 4))


def vector_of(solver: SubspaceSolver, problem) -> SubspaceVector:
    return solver.kernel(*problem)[1]


def test_integrals_in_any_form(nitrogen):
    from pyscf import ao2mo

    active_space = mcscf.CASCI(nitrogen, 5, 6)
    h1e, _ = active_space.get_h1eff()
    energies = [
        SubspaceSolver(tol=1e-8).kernel(h1e, ao2mo.restore(symmetry, active_space.get_h2eff(), 5), 5, 6)[0]
        for symmetry in (1, 4, 8)
    ]
    np.testing.assert_allclose(energies, energies[0], atol=1e-11)


def test_not_converged_is_said(nitrogen):
    active_space = mcscf.CASCI(nitrogen, 8, 10)
    active_space.fcisolver = SubspaceSolver(tol=1e-9, model_space=5, max_iterations=2)
    active_space.kernel()
    assert not active_space.converged and not active_space.ci.converged


def test_forgotten_vectors_free_their_results(nitrogen):
    solver = SubspaceSolver()
    h1e, _ = mcscf.CASCI(nitrogen, 4, 4).get_h1eff()
    eri = mcscf.CASCI(nitrogen, 4, 4).get_h2eff()
    gc.collect()
    counts = []
    for _ in range(4):
        solver.kernel(h1e, eri, 4, 4)
        counts.append(len(solver._session.results))
    assert counts[-1] <= counts[0] + 1
    assert solver.reset().result is None


def test_what_does_not_fit_is_refused(nitrogen):
    with pytest.raises(InputError, match="unknown option 'spin_shift'"):
        SubspaceSolver(spin_shift=0.1)
    active_space = mcscf.CASCI(nitrogen, 4, 4)
    active_space.fcisolver = SubspaceSolver("some")
    with pytest.raises(InputError, match='strings are "all", a pair'):
        active_space.kernel()
    active_space.fcisolver = SubspaceSolver((all_strings(4, 1), all_strings(4, 2)))
    with pytest.raises(InputError, match="has 1 electrons; the Hamiltonian has 2"):
        active_space.kernel()
    for strings, says in (
        (["0011", "0101"], "string 1: '0011' is not an integer"),
        ([3, 5.5], "string 2: 5.5 is not an integer"),
        (np.array([[3.0], [5.0]]), r"strings of one spin are \(n,\) integers"),
    ):
        active_space.fcisolver = SubspaceSolver((strings, strings))
        with pytest.raises(InputError, match=says):
            active_space.kernel()


def test_drive_in_one_process_calls_the_function():
    assert drive(lambda: 7) == 7
