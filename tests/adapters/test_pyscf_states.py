"""Which states the PySCF client finds: spin, irreps and number; against PySCF's own solvers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from pyscf import fci, gto, lib, mcscf, scf

from sqd_mpi.adapters.pyscf import SubspaceSolver, session, solver
from sqd_mpi.errors import InputError, RunError
from tests.support.pyscf_reference import PartOfStrings, boron_hydride, hydrogens, part_of_strings


@pytest.fixture(scope="module", autouse=True)
def one_pyscf_thread():
    with lib.with_omp_threads(1):
        yield


@pytest.fixture(scope="module")
def nitrogen() -> scf.hf.SCF:
    molecule = gto.M(atom="N 0 0 0; N 0 0 1.2", basis="6-31g", symmetry="D2h", verbose=0)
    return scf.RHF(molecule).run(conv_tol=1e-12)


@pytest.fixture(scope="module")
def oxygen() -> scf.hf.SCF:
    molecule = gto.M(atom="O 0 0 0; O 0 0 1.2", basis="6-31g", spin=2, symmetry=True, verbose=0)
    return scf.ROHF(molecule).run(conv_tol=1e-12)


def quiet(**settings: Any) -> SubspaceSolver:
    """A solver that prints no warnings."""
    return SubspaceSolver(**settings).set(verbose=0)


def warnings_of(mc: Any) -> str:
    """What PySCF's logger gets at the level of warnings while an active space is solved."""
    mc.stdout, mc.verbose = io.StringIO(), lib.logger.WARN
    mc.kernel()
    return mc.stdout.getvalue()


def matrix_states(mc: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, <S^2> and irreps of all states of a CASCI of an Abelian molecule, from PySCF's dense matrix."""
    h1e, ecore = mc.get_h1eff()
    eri, norb, nelec = mc.get_h2eff(), mc.ncas, mc.nelecas
    shape = tuple(fci.cistring.num_strings(norb, n) for n in nelec)
    size = shape[0] * shape[1]
    h2e = fci.direct_spin1.absorb_h1e(h1e, eri, norb, nelec, 0.5)
    units = np.eye(size).reshape(-1, *shape)
    matrix = np.array([fci.direct_spin1.contract_2e(h2e, unit, norb, nelec).ravel() for unit in units])
    square = np.array([fci.spin_op.contract_ss(unit, norb, nelec).ravel() for unit in units])
    strings = [fci.cistring.make_strings(range(norb), n) for n in nelec]
    alpha, beta = (fci.direct_spin1_symm._gen_strs_irrep(each, mc.fcisolver.orbsym) for each in strings)
    irrep = (alpha[:, None] ^ beta).ravel()
    _, vectors = np.linalg.eigh(matrix + 1e-3 * square + 1e-4 * np.diag(irrep))  # tells apart what is degenerate
    energies = np.einsum("ik,ij,jk->k", vectors, matrix, vectors) + ecore
    squares = np.einsum("ik,ij,jk->k", vectors, square, vectors)
    order = np.argsort(energies)
    return energies[order], squares[order], np.einsum("ik,i,ik->k", vectors, irrep, vectors).round().astype(int)[order]


# spin


@pytest.mark.parametrize(
    ("charge", "space", "n_states", "square", "energies"),
    [
        (1, (5, 5), 4, 0.75, [-75.59876732, -75.52267652, -75.33078312, -75.0658949]),
        (0, (4, 4), 2, 0.0, [-75.99974367, -75.7030285]),
    ],
)
def test_fix_spin_of_an_averaged_casscf(charge, space, n_states, square, energies):
    atoms = "O 0 0 0; H 0 -0.757 0.587; H 0 0.757 0.587"
    molecule = gto.M(atom=atoms, basis="6-31g", charge=charge, spin=charge, verbose=0)
    mean_field = scf.ROHF(molecule).run()
    expected, found = (mcscf.CASSCF(mean_field, *space) for _ in range(2))
    found.fcisolver = SubspaceSolver()
    for mc in (expected, found):
        mc.state_average_([1 / n_states] * n_states)
        mc.fix_spin_(ss=square)
        mc.kernel()
    np.testing.assert_allclose(found.fcisolver.states_spin_square(found.ci, space[0], mc.nelecas)[0], square, atol=1e-8)
    assert found.e_tot == pytest.approx(expected.e_tot, abs=2e-8)
    np.testing.assert_allclose(found.e_states, expected.e_states, atol=5e-6)
    np.testing.assert_allclose(found.e_states, energies, atol=5e-6)


@pytest.mark.parametrize("way", ["method", "function in place", "function"])
def test_fix_spin_finds_the_lowest_triplet(nitrogen, way):
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = quiet()
    if way == "method":
        mc.fix_spin_(ss=2)
    elif way == "function in place":
        fci.addons.fix_spin_(mc.fcisolver, ss=2)
    else:
        mc.fcisolver = fci.addons.fix_spin(mc.fcisolver, ss=2)
    mc.kernel()
    energies, squares, _ = matrix_states(mc)
    assert mc.e_tot == pytest.approx(energies[np.isclose(squares, 2)][0], abs=1e-9)
    assert mc.e_tot == pytest.approx(-108.71903850, abs=1e-7)
    assert mc.ci.spin_square == pytest.approx(2, abs=1e-8)
    mc.fcisolver = mc.fcisolver.undo_fix_spin()
    assert mc.kernel()[0] == pytest.approx(energies[0], abs=1e-9)


def test_fix_spin_without_a_number_means_the_lowest_spin(oxygen):
    mc = mcscf.CASCI(oxygen, 6, (4, 4))
    mc.fcisolver = quiet()
    mc.fix_spin_()
    assert mc.fcisolver.spin_square(mc.kernel()[2], 6, (4, 4))[0] == pytest.approx(0, abs=1e-8)


def test_a_penalty_too_weak_still_finds_the_spin_among_all_strings(nitrogen):
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = quiet()
    mc.fix_spin_(ss=6, shift=1e-6)
    mc.kernel()
    energies, squares, _ = matrix_states(mc)
    assert mc.e_tot == pytest.approx(energies[np.isclose(squares, 6)][0], abs=1e-9)


def test_the_shift_is_the_penalty_in_a_part_of_the_strings():
    strings = part_of_strings(4, 2)
    energies = []
    for shift in (0.05, 0.5, 5.0):
        expected, found = (mcscf.CASCI(hydrogens(), 4, 4) for _ in range(2))
        expected.fcisolver, found.fcisolver = PartOfStrings(), quiet(strings=(strings, strings), tol=1e-9)
        for mc in (expected, found):
            mc.fix_spin_(ss=0, shift=shift)
            mc.kernel()
        energies.append(found.e_tot)
        assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-9)
    assert energies[0] < energies[1] - 1e-6 < energies[2] - 1e-6  # the states do depend on it


def test_a_shift_of_nothing_has_no_effect_and_a_negative_one_is_refused(nitrogen):
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = quiet()
    lowest = mc.kernel()[0]
    assert mc.fix_spin_(ss=2, shift=0).kernel()[0] == pytest.approx(lowest, abs=1e-9)
    with pytest.raises(InputError, match="fix_spin needs a positive shift; got -1"):
        mc.fix_spin_(ss=2, shift=-1).kernel()


def test_spins_that_contradict_or_cannot_be_are_refused(nitrogen):
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = quiet(spin_square=0)
    with pytest.raises(InputError, match="fix_spin asks for <S\\^2> = 2, the option spin_square for 0"):
        mc.fix_spin_(ss=2).kernel()
    mc.fcisolver = quiet()
    with pytest.raises(InputError):
        mc.fix_spin_(ss=0.75).kernel()


def test_a_spin_that_is_not_reached_is_said():
    mc = mcscf.CASCI(hydrogens(), 4, 4)
    mc.fcisolver = SubspaceSolver(([0b0011], [0b0101]), spin_square=2)
    text = warnings_of(mc)
    assert "<S^2> is [" in text and "not 2 as wanted" in text


# irreps


@pytest.mark.parametrize("wanted", ["B1u", 5, np.int64(5)])
def test_wfnsym_finds_the_lowest_state_of_an_irrep(nitrogen, wanted):
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = quiet()
    mc.fcisolver.wfnsym = wanted
    mc.kernel()
    assert mc.e_tot == pytest.approx(-108.71903850, abs=1e-7)
    energies, _, irreps = matrix_states(mc)
    assert mc.e_tot == pytest.approx(energies[irreps == 5][0], abs=1e-9)


@pytest.mark.parametrize("limit", [solver.ARRAY_LIMIT, 1])
def test_several_states_of_every_irrep(limit):
    mc = mcscf.CASCI(boron_hydride("C2v"), 5, 4)
    mc.fcisolver = quiet(array_limit=limit, nroots=2)
    for number in range(4):
        mc.fcisolver.wfnsym = number
        mc.kernel()
        energies, _, irreps = matrix_states(mc)
        np.testing.assert_allclose(mc.e_tot, energies[irreps == number][:2], atol=1e-8)
        assert mc.fcisolver.converged == [True, True]


def test_an_irrep_and_a_spin():
    mc = mcscf.CASCI(boron_hydride("C2v"), 5, 4)
    mc.fcisolver = quiet()
    mc.fcisolver.wfnsym = "A2"
    mc.fix_spin_(ss=0)
    mc.kernel()
    energies, squares, irreps = matrix_states(mc)
    assert mc.e_tot == pytest.approx(energies[(irreps == 1) & np.isclose(squares, 0)][0], abs=1e-9)


@pytest.mark.parametrize("name", ["A1g", "A2g", "E2gx", "E2gy", "A1u", "A2u", "E1gx"])
def test_irreps_of_a_linear_molecule(oxygen, name):
    expected, found = (mcscf.CASCI(oxygen, 6, (4, 4)) for _ in range(2))
    found.fcisolver = quiet()
    for mc in (expected, found):
        mc.fcisolver.wfnsym = name
        mc.kernel()
    assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)


def test_a_linear_molecule_beyond_arrays_says_what_it_tells_apart(oxygen):
    mc = mcscf.CASCI(oxygen, 6, (4, 4))
    mc.fcisolver = SubspaceSolver(array_limit=1)
    mc.fcisolver.wfnsym = "A2g"
    assert "as those of D2h only" in warnings_of(mc)
    assert mc.e_tot == pytest.approx(-149.59852117, abs=1e-7)


def test_casscf_of_an_irrep_equals_pyscf():
    expected, found = (mcscf.CASSCF(boron_hydride("C2v"), 5, 4) for _ in range(2))
    found.fcisolver = quiet()
    for mc in (expected, found):
        mc.fcisolver.wfnsym = "B1"
        mc.conv_tol = 1e-10
        mc.fix_spin_(ss=2)
        mc.kernel()
    assert expected.converged and found.converged
    assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)


def test_an_irrep_in_a_part_of_the_strings():
    mc = mcscf.CASCI(boron_hydride("C2v"), 5, 4)
    strings = part_of_strings(5, 2)
    mc.fcisolver = quiet(strings=(strings, strings), nroots=2, tol=1e-9)
    h1e, ecore = mc.get_h1eff()
    eri = mc.get_h2eff()
    units = np.eye(100).reshape(-1, 10, 10)
    h2e = fci.direct_spin1.absorb_h1e(h1e, eri, 5, (2, 2), 0.5)
    matrix = np.array([fci.direct_spin1.contract_2e(h2e, unit, 5, (2, 2)).ravel() for unit in units])
    for number in (0, 2):
        mc.fcisolver.wfnsym = number
        mc.kernel()
        all_irreps = fci.direct_spin1_symm._gen_strs_irrep(fci.cistring.make_strings(range(5), 2), mc.fcisolver.orbsym)
        kept = all_irreps[:, None] ^ all_irreps == number
        kept[-1] = kept[:, -1] = False
        kept = np.flatnonzero(kept)
        expected = np.linalg.eigvalsh(matrix[np.ix_(kept, kept)])[:2] + ecore
        np.testing.assert_allclose(mc.e_tot, expected, atol=1e-9)


def test_averages_of_one_irrep_and_of_several():
    """state_average_ passes the attribute on; state_average_mix_ has a solver for each irrep."""
    expected, found = (mcscf.CASSCF(boron_hydride("C2v"), 5, 4) for _ in range(2))
    found.fcisolver = quiet()
    for mc in (expected, found):
        mc.conv_tol = 1e-10
        mc.state_average_([0.5, 0.5], wfnsym="A1")
        mc.kernel()
    np.testing.assert_allclose(found.e_states, expected.e_states, atol=1e-6)
    mixed = []
    for make in (lambda: fci.direct_spin1_symm.FCI(boron_hydride("C2v").mol), quiet):
        mc = mcscf.CASSCF(boron_hydride("C2v"), 5, 4)
        solvers = make(), make()
        solvers[0].wfnsym, solvers[1].wfnsym = "A1", "B2"
        mc.state_average_mix_(solvers, [0.5, 0.5])
        mc.conv_tol = 1e-10
        mc.kernel()
        mixed.append(mc.e_states)
    np.testing.assert_allclose(mixed[1], mixed[0], atol=1e-6)


def test_a_guess_of_pyscf_is_no_wish(nitrogen):
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = SubspaceSolver(spin_square=2)
    text = warnings_of(mc)  # PySCF guesses Ag; the lowest triplet is B1u
    assert mc.fcisolver.wfnsym == 0 and mc.e_tot == pytest.approx(-108.71903850, abs=1e-7)
    assert "lowest states of all irreps, D2h numbers [5]" in text
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = SubspaceSolver()
    assert warnings_of(mc) == ""
    mc.wfnsym = 5  # now a wish, after a guess
    assert mc.kernel()[0] == pytest.approx(-108.71903850, abs=1e-7)


def test_irreps_that_cannot_be_had_are_refused_before_the_solve(nitrogen, monkeypatch):
    monkeypatch.setattr(session, "solve_subspace", lambda *_, **__: pytest.fail("solved"))
    mc = mcscf.CASCI(nitrogen, 6, 6)

    def refused(sentence: str, wanted: Any, **settings: Any) -> None:
        mc.fcisolver = quiet(**settings)
        mc.fcisolver.wfnsym = wanted
        with pytest.raises(InputError, match=sentence):
            mc.kernel()

    refused("'B1v' is no irrep of D2h \\(did you mean B1[gu]\\?\\)", "B1v")
    refused("wfnsym is the name or the number of an irrep; got 1.5", 1.5)
    refused("needs integrals whose zeros tell the irreps of orbsym apart", "B1u", symmetry="off")
    refused("no determinant of this space has wfnsym = 'B1u'", "B1u", strings=([7], [7]))
    plain = mcscf.CASCI(boron_hydride(), 5, 4)
    plain.fcisolver = quiet()
    plain.fcisolver.wfnsym = 0
    with pytest.raises(InputError, match="needs the irreps of 5 orbitals, of a molecule with symmetry or as orbsym"):
        plain.kernel()
    alone = quiet()
    alone.wfnsym, alone.orbsym = "B1", [0, 1, 2, 3]
    with pytest.raises(InputError, match="needs the molecule's point group"):
        alone.kernel(np.eye(4), np.zeros((10, 10)), 4, 2)


def test_a_search_that_ends_is_an_error_of_one_sentence(nitrogen, monkeypatch):
    monkeypatch.setattr(solver, "_MOST_STATES", 3)
    monkeypatch.setattr(solver, "_MOST_STATES_PER_ROOT", 3)
    mc = mcscf.CASCI(nitrogen, 6, 6)
    mc.fcisolver = quiet()
    mc.fcisolver.wfnsym = "B1g"
    with pytest.raises(RunError, match="0 of 1 states with wfnsym = B1g are among the lowest 3 states"):
        mc.kernel()


# number of states


def test_as_many_roots_as_there_are():
    mean_field = scf.RHF(gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)).run()
    expected, found = (mcscf.CASCI(mean_field, 2, 2) for _ in range(2))
    expected.fcisolver.nroots = 10
    found.fcisolver = SubspaceSolver(nroots=10)
    expected.kernel()
    assert "10 roots are wanted; this space has 4" in warnings_of(found)
    np.testing.assert_allclose(found.e_tot, expected.e_tot, atol=1e-10)
    assert len(found.ci) == 4
    for wrap in (lambda mc: mc.state_average_([0.1] * 10), lambda mc: mc.state_specific_(7)):
        mc = mcscf.CASSCF(mean_field, 2, 2)
        mc.fcisolver = SubspaceSolver()
        with pytest.raises(InputError, match="roots are wanted; this space has 4"):
            wrap(mc).kernel()


def test_more_solvers_than_states_are_refused():
    mc = mcscf.CASSCF(hydrogens(), 4, 4)
    solvers = quiet(strings=([3], [3]), nroots=2), quiet()
    with pytest.raises(InputError, match="2 roots are wanted; this space has 1"):
        mc.state_average_mix_(solvers, [0.4, 0.3, 0.3]).kernel()


def test_weights_go_before_the_number_of_roots():
    expected, found = (mcscf.CASSCF(hydrogens(), 4, 4) for _ in range(2))
    expected.fcisolver.nroots = 3
    found.fcisolver = quiet(nroots=3)
    for mc in (expected, found):
        mc.state_average_([0.5, 0.5]).kernel()
    np.testing.assert_allclose(found.e_states, expected.e_states, atol=1e-6)
