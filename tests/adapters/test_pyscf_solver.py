"""Start vectors, settings, integrals and vectors of the PySCF client."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
from pyscf import fci, gto, lib, mcscf, scf

from sqd_mpi.adapters.pyscf import SubspaceArray, SubspaceSolver, SubspaceVector, guesses, session, solver
from sqd_mpi.errors import InputError
from tests.support.pyscf_reference import hydrogens, part_of_strings


@pytest.fixture(scope="module", autouse=True)
def one_pyscf_thread():
    with lib.with_omp_threads(1):
        yield


@pytest.fixture(scope="module")
def nitrogen() -> scf.hf.SCF:
    molecule = gto.M(atom="N 0 0 0; N 0 0 1.2", basis="6-31g", symmetry="D2h", verbose=0)
    return scf.RHF(molecule).run(conv_tol=1e-12)


def quiet(**settings: Any) -> SubspaceSolver:
    """A solver that prints no warnings."""
    return SubspaceSolver(**settings).set(verbose=0)


def warnings_of(mc: Any) -> str:
    """What PySCF's logger gets at the level of warnings while an active space is solved."""
    mc.stdout, mc.verbose = io.StringIO(), lib.logger.WARN
    mc.kernel()
    return mc.stdout.getvalue()


# start vectors


def problem(mean_field: Any, norb: int, nelec: tuple[int, int]) -> tuple[Any, ...]:
    """Arguments of kernel."""
    mc = mcscf.CASCI(mean_field, norb, nelec)
    return mc.get_h1eff()[0], mc.get_h2eff(), norb, nelec


@pytest.mark.parametrize(("norb", "nelec"), [(6, (3, 3)), (8, (5, 5))])
def test_a_start_makes_no_solve_slower(nitrogen, norb, nelec):
    arguments = problem(nitrogen, norb, nelec)
    for limit in (solver.ARRAY_LIMIT, 1):
        found = quiet(array_limit=limit)
        energy, ci = found.kernel(*arguments)
        cold = found.result.n_sigma
        assert found.kernel(*arguments, ci0=ci)[0] == pytest.approx(energy, abs=1e-9)
        assert found.result.n_sigma <= cold
    found.davidson_only = True  # then even small spaces are left to the iterations, from the start
    assert found.kernel(*arguments, ci0=ci)[0] == pytest.approx(energy, abs=1e-9)


def test_a_small_space_is_solved_without_the_start(nitrogen, monkeypatch):
    arguments = problem(nitrogen, 4, (2, 2))
    found = quiet()
    energy, ci = found.kernel(*arguments)
    wrong = np.random.default_rng(1).normal(size=ci.shape)
    assert found.kernel(*arguments, ci0=wrong)[0] == pytest.approx(energy, abs=1e-10)
    sigmas = found.result.n_sigma
    assert found.kernel(*arguments, ci0=wrong, davidson_only=True)[0] == pytest.approx(energy, abs=1e-9)
    assert found.result.n_sigma > sigmas


def test_starts_save_sigmas_in_casscf(nitrogen, monkeypatch):
    def count() -> int:
        sigmas = []
        original = SubspaceSolver._call

        def counted(self, *arguments):
            handle, result = original(self, *arguments)
            sigmas.append(result.n_sigma)
            return handle, result

        with monkeypatch.context() as patch:
            patch.setattr(SubspaceSolver, "_call", counted)
            mc = mcscf.CASSCF(nitrogen, 8, 10)
            mc.fcisolver = quiet(symmetry="off")  # sectors that are not solved exactly
            mc.kernel()
            assert mc.converged
        return sum(sigmas)

    warm = count()
    with monkeypatch.context() as patch:
        patch.setattr(solver, "start_vectors", lambda *_: [])
        cold = count()
    assert warm < cold


def test_starts_of_other_kinds_and_other_strings():
    arguments = problem(hydrogens(), 4, (2, 2))
    strings = part_of_strings(4, 2)
    part, whole = quiet(strings=(strings, strings)), quiet(array_limit=1)
    part.davidson_only = whole.davidson_only = True
    energy, ci = part.kernel(*arguments)
    full_energy, full_ci = whole.kernel(*arguments)
    selected = fci.selected_ci._as_SCIvector(ci.gather(), (strings, strings))
    for start in (ci, ci.gather(), full_ci, full_ci.gather(), selected, lambda: ci, [ci.gather().ravel()]):
        assert part.kernel(*arguments, ci0=start)[0] == pytest.approx(energy, abs=1e-9)
    for start in (ci, selected, full_ci.gather().ravel(), np.array([full_ci.gather()] * 2)):
        assert whole.kernel(*arguments, ci0=start)[0] == pytest.approx(full_energy, abs=1e-9)


def test_starts_keep_their_coefficients():
    """What is handed to the solve is the vector, on whichever strings it was made."""
    arguments = problem(hydrogens(), 4, (2, 2))
    strings = part_of_strings(4, 2)
    part, whole = quiet(strings=(strings, strings)), quiet()
    ci, full_ci = part.kernel(*arguments)[1], whole.kernel(*arguments)[1]
    spaces = [each._space(*arguments, 0.0) for each in (part, whole)]
    (moved,) = guesses.start_vectors(np.asarray(full_ci), None, spaces[0], part._session, True)
    np.testing.assert_array_equal(moved, np.asarray(full_ci)[:-1, :-1])
    selected = fci.selected_ci._as_SCIvector(ci.gather(), (strings, strings))
    (moved,) = guesses.start_vectors(selected, None, spaces[1], whole._session, True)
    np.testing.assert_array_equal(moved[:-1, :-1], ci.gather())
    assert not moved[-1].any() and not moved[:, -1].any()


def test_starts_that_do_not_fit_are_refused():
    arguments = problem(hydrogens(), 4, (2, 2))
    found = quiet(array_limit=1)
    other = found.kernel(*problem(hydrogens(), 4, (3, 1)))[1]
    alone = quiet(strings=([3], [3])).kernel(*arguments)[1]
    elsewhere = quiet(strings=([12], [12]))
    for start, sentence in (
        (other, r"ci0 has 4 orbitals and \(3, 1\) electrons; this solve has 4 and \(2, 2\)"),
        (np.zeros((3, 3)), r"ci0 is an array \(6, 6\); got \(3, 3\)"),
        (np.full((6, 6), np.nan), "finite real numbers; got an array of float64"),
        (np.zeros((6, 6), complex), "finite real numbers; got an array of complex128"),
        ("vector", "finite real numbers; got str"),
    ):
        with pytest.raises(InputError, match=sentence):
            found.kernel(*arguments, ci0=start)
    with pytest.raises(InputError, match="ci0 has no determinant in common with the space of this solve"):
        elsewhere.kernel(*arguments, ci0=alone)


# settings


def test_conv_tol_and_its_kin_have_their_effect(nitrogen):
    arguments = problem(nitrogen, 8, (5, 5))
    sigmas, residuals = [], []
    for energy in (1e-6, 1e-10, 1e-16):
        found = quiet(model_space=100)  # of which iterations are quick
        found.conv_tol = energy
        residuals.append(found.kernel(*arguments)[1].residual_norm)
        assert residuals[-1] <= np.sqrt(energy)
        assert found.conv_tol == pytest.approx(energy) and found.tol == pytest.approx(np.sqrt(energy))
        sigmas.append(found.result.n_sigma)
    assert sigmas[0] < sigmas[1] < sigmas[2]
    slow = quiet(model_space=5)
    slow.conv_tol = 1e-6
    assert slow.kernel(*arguments)[1].residual_norm <= 1e-6  # so that no lower state stays hidden
    found.conv_tol_residual = 1e-4
    assert found.tol == found.conv_tol_residual == 1e-4


def test_cycles_spaces_threads_and_memory_have_their_effect(nitrogen):
    arguments = problem(nitrogen, 8, (5, 5))
    found = quiet()
    found.max_cycle, found.max_space, found.pspace_size, found.threads = 3, 7, 5, 1
    assert found.options == {"max_iterations": 3, "max_subspace": 7, "model_space": 5, "threads": 1}
    ci = found.kernel(*arguments)[1]
    assert not found.converged and not ci.converged and found.result.max_subspace == 7
    assert found.kernel(*arguments, max_cycle=60, max_space=20, pspace_size=40)[1].converged
    assert found.result.max_subspace == 20
    assert quiet().set(max_space=2).kernel(*arguments, nroots=3)[1][2].converged  # two for each root and two
    found.max_memory = 1e-3
    with pytest.raises(InputError, match="memory"):
        found.kernel(*arguments)


def test_settings_of_pyscf_without_counterpart_are_refused(nitrogen):
    arguments = problem(nitrogen, 4, (2, 2))
    for name in ("lindep", "level_shift", "lessio"):
        found = quiet()
        setattr(found, name, 1)
        with pytest.raises(InputError, match=f"{name} has no counterpart in SubspaceSolver; leave it as it is"):
            found.kernel(*arguments)
    with pytest.raises(InputError, match="lindep has no counterpart"):
        quiet().kernel(*arguments, lindep=1e-10)
    with pytest.raises(InputError, match=r"kernel has no argument 'max_cycles' \(did you mean max_cycle\?\)"):
        quiet().kernel(*arguments, max_cycles=3)
    with pytest.raises(InputError, match="SubspaceSolver has no option 'rdm', which belongs to a job"):
        SubspaceSolver(rdm=1)
    with pytest.raises(InputError, match="array_limit is a number of determinants; got 'all'"):
        SubspaceSolver(array_limit="all")


def test_settings_copied_from_another_solver_have_their_effect():
    other = fci.direct_spin1.FCI()
    other.conv_tol, other.max_cycle, other.nroots = 1e-14, 77, 2
    found = quiet()
    found.__dict__.update(other.__dict__)
    found.kernel(*problem(hydrogens(), 4, (2, 2)))
    assert found.tol == pytest.approx(1e-7) and found.max_cycle == 77 and len(found.ci) == 2


def test_what_is_not_converged_is_said(nitrogen):
    mc = mcscf.CASCI(nitrogen, 8, 10)
    mc.fcisolver = SubspaceSolver(model_space=5, max_iterations=2)
    assert "roots [0] are not converged: residual norm" in warnings_of(mc)
    assert not mc.converged


def test_what_is_not_proven_is_said():
    """A chain in site orbitals, whose other parity is not decided in so few iterations."""
    h1e, eri = np.zeros((9, 9)), np.zeros((9, 9, 9, 9))
    for k in range(8):
        h1e[k, k + 1] = h1e[k + 1, k] = -1.3 if k % 2 == 0 else -0.7
    eri[(np.arange(9),) * 4] = 8.0
    found = SubspaceSolver(tol=0.15, max_iterations=16)
    found.davidson_only, found.verbose, found.stdout = True, lib.logger.WARN, io.StringIO()
    found.kernel(h1e, eri, 9, (4, 4))
    assert found.converged and "it is not proven that no lower state lies in another" in found.stdout.getvalue()


def test_a_misspelled_attribute_is_said(capsys):
    found = SubspaceSolver()
    found.conv_toll = 1e-3
    found.kernel(*problem(hydrogens(), 4, (2, 2)))
    assert "conv_toll" in capsys.readouterr().err


# integrals, strings, vectors


def test_integrals_without_symmetry_are_refused():
    h1e, eri, norb, nelec = problem(hydrogens(), 4, (2, 2))
    slanted = h1e.copy()
    slanted[0, 1] += 1e-3
    with pytest.raises(InputError, match="integrals lack the symmetry of real orbitals: they differ by up to 1.0e-03"):
        quiet().kernel(slanted, eri, norb, nelec)
    with pytest.raises(InputError, match="integrals are real numbers"):
        quiet().kernel(h1e.astype(complex), eri, norb, nelec)
    with pytest.raises(InputError, match="two-electron integrals of 4 orbitals are"):
        quiet().kernel(h1e, eri[:5], norb, nelec)
    slanted[0, 1] = h1e[0, 1] + 1e-9  # rounding and noise
    assert quiet().kernel(slanted, eri, norb, nelec)[0] == pytest.approx(quiet().kernel(h1e, eri, norb, nelec)[0])


def test_all_strings_of_more_than_64_orbitals():
    rng = np.random.default_rng(3)
    norb = 66
    h1e = np.diag(np.arange(norb, dtype=float)) + 0.01 * rng.normal(size=(norb, norb))
    h1e = h1e + h1e.T
    pairs = norb * (norb + 1) // 2
    energy, ci = quiet(tol=1e-9).kernel(h1e, np.zeros((pairs, pairs)), norb, (1, 1))
    assert ci.shape == (66, 66)
    assert energy == pytest.approx(2 * np.linalg.eigvalsh(h1e)[0], abs=1e-9)


def test_vectors_say_what_they_are_until_they_are_changed():
    ci = quiet().kernel(*problem(hydrogens(), 4, (2, 2)))[1]
    assert isinstance(ci, SubspaceArray) and ci.converged and ci.spin_square == pytest.approx(0, abs=1e-8)
    again = pickle.loads(pickle.dumps(ci))
    assert again.energy == ci.energy and np.array_equal(again, ci)
    assert getattr(2 * ci, "energy", None) is None and ci.ravel().energy is None
    assert type(ci.gather()) is np.ndarray


def test_a_solver_can_be_pickled():
    found = pickle.loads(pickle.dumps(quiet(tol=1e-8, nroots=2, max_iterations=70)))
    assert (found.tol, found.nroots, found.max_cycle) == (1e-8, 2, 70)
    assert len(found.kernel(*problem(hydrogens(), 4, (2, 2)))[0]) == 2


def test_a_distributed_vector_is_no_array():
    ci = quiet(array_limit=1).kernel(*problem(hydrogens(), 4, (2, 2)))[1]
    assert isinstance(ci, SubspaceVector) and not hasattr(ci, "ravel") and not hasattr(ci, "size")
    np.testing.assert_array_equal(np.asarray(ci), ci.gather())
    with pytest.raises(InputError, match=r"asked a distributed CI vector for its \.ravel: it needs an array"):
        fci.addons.overlap(ci, ci, 4, (2, 2))
    with pytest.raises(InputError, match=r"got norb = 4, nelec = \(3, 1\)"):
        quiet().make_rdm1(ci, 4, (3, 1))
    with pytest.raises(InputError, match="reorder = False needs a CI vector as an array"):
        quiet().make_rdm12(ci, 4, (2, 2), reorder=False)
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = ci.colour


def test_a_vector_larger_than_the_memory_is_not_put_together(monkeypatch):
    ci = quiet(array_limit=1).kernel(*problem(hydrogens(), 4, (2, 2)))[1]
    monkeypatch.setattr(session, "available_memory", lambda: 100)
    with pytest.raises(InputError, match="a whole vector needs .* GiB on every rank"):
        ci.gather()


def test_a_checkpoint_that_memory_cannot_hold_is_refused_before_the_solve(monkeypatch):
    monkeypatch.setattr(session, "available_memory", lambda: 100)
    monkeypatch.setattr(session, "solve_subspace", lambda *_, **__: pytest.fail("solved"))
    mc = mcscf.CASSCF(hydrogens(), 4, 4)
    mc.fcisolver, mc.chk_ci = quiet(array_limit=1), True
    with pytest.raises(InputError, match="chk_ci: a whole vector needs"):
        mc.kernel()


def test_gathered_vectors_serve_where_arrays_are_needed():
    mc = mcscf.CASCI(hydrogens(), 4, 4)
    mc.fcisolver = quiet(array_limit=1)
    mc.kernel()
    mc.ci = mc.ci.gather()
    expected = mcscf.CASCI(hydrogens(), 4, 4).run()
    np.testing.assert_allclose(mcscf.spin_square(mc), mcscf.spin_square(expected), atol=1e-8)


def test_procedures_that_need_arrays_are_refused_before_the_solve(monkeypatch):
    monkeypatch.setattr(session, "solve_subspace", lambda *_, **__: pytest.fail("solved"))
    for settings, sentence in (
        ({"array_limit": 1}, "newton\\(\\) needs CI vectors as arrays; this space has 36 determinants"),
        ({"strings": ([3, 5], [3, 5])}, "newton\\(\\) needs all strings of the active space"),
    ):
        mc = mcscf.CASSCF(hydrogens(), 4, 4)
        mc.fcisolver = quiet(**settings)
        with pytest.raises(InputError, match=sentence):
            mc.newton().kernel()
    mc = mcscf.CASSCF(hydrogens(), 4, 4)
    mc.fcisolver, mc.natorb = quiet(strings=([3, 5], [3, 5])), True
    with pytest.raises(InputError, match="natorb needs all strings of the active space"):
        mc.kernel()
