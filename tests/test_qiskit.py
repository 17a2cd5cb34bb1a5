"""The drop-ins against qiskit-addon-sqd: the same calls with one import changed."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sqd_mpi.batches import WorkerPool
from sqd_mpi.hamiltonian import Hamiltonian
from sqd_mpi.options import InputError, InputWarning
from tests import faulty
from tests.problems import all_strings, make_hamiltonian, random_strings
from tests.test_mpi_driver import FOREIGN, ROOT, mpiexec

theirs = pytest.importorskip("qiskit_addon_sqd.fermion")
ours = pytest.importorskip("sqd_mpi.adapters.qiskit")
from tests.qiskit_loop import loop, tensors  # noqa: E402
from tests.waiting import HANG  # noqa: E402

NORB, NELEC = 6, (3, 2)


@pytest.fixture(scope="module")
def integrals():
    """One- and two-body tensors of a random molecule."""
    return tensors(make_hamiltonian(NORB, NELEC, 3))


def integer_strings(n_electrons: int, count: int, seed: int = 0) -> np.ndarray:
    """Strings as qiskit-addon-sqd has them."""
    return random_strings(NORB, n_electrons, count, seed)[:, 0].astype(np.int64)


def assert_same_state(mine, other):
    """Two normalised states are equal up to a sign."""
    assert np.array_equal(mine.ci_strs_a, other.ci_strs_a)
    assert np.array_equal(mine.ci_strs_b, other.ci_strs_b)
    assert (mine.norb, tuple(mine.nelec)) == (other.norb, tuple(other.nelec))
    assert abs(np.vdot(mine.amplitudes, other.amplitudes)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["solve_sci", "solve_sci_batch", "solve_fermion"])
def test_signatures_take_the_same_arguments(name):
    mine, other = (inspect.signature(getattr(module, name)).parameters for module in (ours, theirs))
    named = [parameter for parameter in other.values() if parameter.kind != inspect.Parameter.VAR_KEYWORD]
    for parameter in named:
        assert mine[parameter.name].kind == parameter.kind
        assert mine[parameter.name].default == parameter.default
    assert any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in mine.values())


@pytest.mark.parametrize("sizes", [(20, 15), (12, 8), (5, 1), (1, 6)])
def test_solve_sci(integrals, sizes):
    strings = integer_strings(3, sizes[0]), integer_strings(2, sizes[1])
    mine = ours.solve_sci(strings, *integrals, NORB, NELEC, rdm=2)
    other = theirs.solve_sci(strings, *integrals, NORB, NELEC, tol=1e-13)
    assert type(mine) is theirs.SCIResult
    assert type(mine.sci_state) is theirs.SCIState
    assert mine.energy == pytest.approx(other.energy, abs=1e-8)
    assert_same_state(mine.sci_state, other.sci_state)
    for spin in (0, 1):
        assert mine.orbital_occupancies[spin] == pytest.approx(other.orbital_occupancies[spin], abs=1e-5)
    assert mine.rdm1 == pytest.approx(other.rdm1, abs=1e-5)
    assert mine.rdm2 == pytest.approx(other.rdm2, abs=1e-5)
    assert mine.sci_state.spin_square() == pytest.approx(other.sci_state.spin_square(), abs=1e-5)


def test_two_particle_matrices_are_made_only_on_demand(integrals):
    strings = integer_strings(3, 10), integer_strings(2, 10)
    one, none = (ours.solve_sci(strings, *integrals, NORB, NELEC, rdm=order) for order in (1, 0))
    assert one.rdm1 is not None and one.rdm2 is None
    assert none.rdm1 is None and none.rdm2 is None
    assert ours.solve_sci(strings, *integrals, NORB, NELEC).rdm2 is None


@pytest.mark.parametrize("open_shell", [False, True])
def test_solve_fermion_of_bits(integrals, open_shell):
    full = all_strings(NORB, 3)[:, 0]
    rng = np.random.default_rng(2)
    halves = [[[int(x) >> k & 1 for k in reversed(range(NORB))] for x in rng.choice(full, 14)] for _ in range(2)]
    bits = np.concatenate(halves, axis=1).astype(bool)
    mine = ours.solve_fermion(bits, *integrals, open_shell=open_shell)
    other = theirs.solve_fermion(bits, *integrals, open_shell=open_shell, tol=1e-13)
    assert mine[0] == pytest.approx(other[0], abs=1e-8)
    assert_same_state(mine[1], other[1])
    for spin in (0, 1):
        assert mine[2][spin] == pytest.approx(other[2][spin], abs=1e-5)
    assert mine[3] == pytest.approx(other[3], abs=1e-5)


def test_solve_fermion_of_strings_in_any_order_and_twice(integrals):
    strings = integer_strings(3, 12), integer_strings(2, 9)
    shuffled = np.concatenate([strings[0][::-1], strings[0][:3]]), list(strings[1][::-1])
    mine, other = ours.solve_fermion(shuffled, *integrals), theirs.solve_fermion(strings, *integrals, tol=1e-13)
    assert mine[0] == pytest.approx(other[0], abs=1e-8)
    assert_same_state(mine[1], other[1])


def test_strings_of_unlike_electrons_are_refused_as_there(integrals):
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="Spin-up CI string in index 0 has hamming weight 3, but CI string in"):
            module.solve_fermion((np.array([7, 11, 3]), np.array([3, 5])), *integrals)
    with pytest.raises(InputError, match="alpha string 1 has 2 electrons"):
        ours.solve_sci((np.array([3]), np.array([3])), *integrals, NORB, NELEC)


@pytest.mark.parametrize("where", ["h1e", "eri"])
def test_integrals_with_noise_are_taken_as_there(where):
    """H2 in STO-3G at 0.735 angstrom; qiskit-addon-sqd looks at no symmetry."""
    from pyscf import ao2mo, gto, scf

    mean_field = scf.RHF(gto.M(atom="H 0 0 0; H 0 0 0.735", basis="sto-3g", verbose=0)).run()
    h1e = mean_field.mo_coeff.T @ mean_field.get_hcore() @ mean_field.mo_coeff
    eri = ao2mo.restore(1, ao2mo.full(mean_field.mol, mean_field.mo_coeff), 2)
    noisy = {"h1e": h1e, "eri": eri}[where]
    noisy[(0, 1, 0, 1)[: noisy.ndim]] += 1e-9
    strings = np.array([1, 2]), np.array([1, 2])
    with pytest.warns(InputWarning, match="the mean is taken"):
        energy = ours.solve_fermion(strings, h1e, eri)[0]
    assert energy == pytest.approx(-1.857275030, abs=2e-9)
    assert energy == pytest.approx(theirs.solve_fermion(strings, h1e, eri)[0], abs=2e-9)


def test_arguments_of_pyscf_and_of_our_own(integrals):
    strings = integer_strings(3, 20), integer_strings(2, 15)
    tight = ours.solve_sci(strings, *integrals, NORB, NELEC, tol=1e-12, max_cycle=200, max_space=20, verbose=0)
    assert tight.energy == pytest.approx(ours.solve_sci(strings, *integrals, NORB, NELEC).energy, abs=1e-10)
    assert ours.solve_sci(strings, *integrals, NORB, NELEC, symmetry="off").energy == pytest.approx(tight.energy)
    with pytest.raises(TypeError, match="unknown argument 'tolerance'"):
        ours.solve_sci(strings, *integrals, NORB, NELEC, tolerance=1e-3)
    with pytest.raises(InputError, match="nroots = 2"):
        ours.solve_sci(strings, *integrals, NORB, NELEC, nroots=2)


def test_a_solver_for_their_loop():
    mine, other = loop(ours.solve_sci_batch), loop(lambda *given: theirs.solve_sci_batch(*given, tol=1e-13))
    assert mine.energy == pytest.approx(other.energy, abs=1e-8)
    assert np.concatenate(mine.orbital_occupancies) == pytest.approx(
        np.concatenate(other.orbital_occupancies), abs=1e-5
    )
    without = loop(lambda *given: ours.solve_sci_batch(*given, amplitudes=False))
    assert without.sci_state is None
    assert without.energy == pytest.approx(other.energy, abs=1e-8)


@pytest.mark.parametrize("settings", [{"symmetrize_spin": False, "max_dim": (6, 5)}, {"include_configurations": [7]}])
def test_options_of_their_loop(settings):
    if "include_configurations" in settings:
        settings = {"include_configurations": ([3, 5], [7])}
    mine = loop(ours.solve_sci_batch, **settings)
    other = loop(lambda *given: theirs.solve_sci_batch(*given, tol=1e-13), **settings)
    assert mine.energy == pytest.approx(other.energy, abs=1e-8)


def test_a_subspace_that_fails_is_left_out(integrals, monkeypatch):
    strings = [(integer_strings(3, 10, k), integer_strings(2, 8, k)) for k in range(4)]
    whole = ours.solve_sci_batch(strings, *integrals, NORB, NELEC)
    hamiltonian = Hamiltonian.from_arrays(*integrals, 0.0, NELEC)
    with WorkerPool(hamiltonian, 1) as pool:
        monkeypatch.setattr(pool, "solve", lambda tasks, **given: WorkerPool.solve(
            pool, tasks, **{**given, "solve": faulty.killed}))  # fmt: skip
        with pytest.warns(UserWarning, match="subspace 2 failed and is left out: signal: .*SIGKILL"):
            left = ours.solve_sci_batch(strings, *integrals, NORB, NELEC, workers=pool)
    assert [result.energy for result in left] == pytest.approx([whole[k].energy for k in (0, 1, 3)], abs=1e-9)
    with pytest.raises(InputError, match="alpha string 1 has 2 electrons"), pytest.warns(UserWarning):
        ours.solve_sci_batch([(np.array([3]), np.array([3]))], *integrals, NORB, NELEC)


def test_their_loop_gives_the_same_on_every_number_of_ranks_and_threads():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    found = []
    for ranks, threads in ((1, 1), (1, 2), (3, 1)):
        launcher = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
        command = [*launcher, sys.executable, "-m", "tests.qiskit_loop"]
        run = subprocess.run(
            command, env=environment | {"NUMBA_NUM_THREADS": str(threads)}, capture_output=True, text=True,
            timeout=HANG, cwd=ROOT,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout))
    for each in found[1:]:
        assert each["energy"] == pytest.approx(found[0]["energy"], abs=1e-8)
        assert each["occupancies"] == pytest.approx(found[0]["occupancies"], abs=1e-6)
        assert each["shape"] == found[0]["shape"]


@pytest.mark.parametrize("spin_sq", [0.0, 2.0, 6.0])
@pytest.mark.parametrize("shift", [0.1, 0.4])
def test_spin_sq_gives_the_lowest_state_of_that_spin(spin_sq, shift):
    """In a space with all spin functions: against PySCF's full CI, whose roots are searched for the spin."""
    from pyscf import fci

    one, two = tensors(make_hamiltonian(5, (2, 2), 7))
    solver = fci.direct_spin1.FCI()
    energies, vectors = solver.kernel(one, two, 5, (2, 2), nroots=60)
    spins = [fci.spin_op.spin_square0(vector, 5, (2, 2))[0] for vector in vectors]
    exact = next(energy for energy, spin in zip(energies, spins, strict=True) if abs(spin - spin_sq) < 1e-4)
    strings = all_strings(5, 2)[:, 0].astype(np.int64)
    energy, state, occupancies, found = ours.solve_fermion((strings, strings), one, two, spin_sq=spin_sq, shift=shift)
    assert energy == pytest.approx(exact, abs=1e-8)
    assert found == pytest.approx(spin_sq, abs=1e-6) and state.spin_square() == pytest.approx(spin_sq, abs=1e-6)
    assert sum(map(np.sum, occupancies)) == pytest.approx(4.0)
    sci = ours.solve_sci((strings, strings), one, two, 5, (2, 2), spin_sq=spin_sq)
    assert sci.energy == pytest.approx(exact, abs=1e-8)
