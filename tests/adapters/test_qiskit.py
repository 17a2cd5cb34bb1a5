"""The drop-ins against qiskit-addon-sqd: the same calls with one import changed."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sqd_mpi.errors import InputError, InputWarning
from sqd_mpi.loop.batches import WorkerPool
from sqd_mpi.problem.hamiltonian import Hamiltonian
from tests.support import faulty
from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT
from tests.support.problems import all_strings, make_hamiltonian, random_strings

theirs = pytest.importorskip("qiskit_addon_sqd.fermion")
ours = pytest.importorskip("sqd_mpi.adapters.qiskit")
from tests.support.qiskit_loop import loop, tensors  # noqa: E402
from tests.support.waiting import HANG  # noqa: E402

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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strings": (["000111"], ["000011"])}, "string 1: '000111' is not an integer"),
        ({"strings": (np.array([7.0]), np.array([3]))}, "must be integers; this array is of type float64"),
        ({"strings": (np.array([[7]]), np.array([3]))}, r"strings of one spin are \(n,\) integers"),
        ({"norb": 7}, "norb = 7 needs integrals of as many orbitals; these are of 6"),
        ({"nelec": 5}, r"nelec is a pair of integers \(n_alpha, n_beta\); got 5"),
        ({"nelec": (2.5, 2)}, "nelec is a pair of integers"),
        ({"rdm": 3}, "rdm needs 0, 1 or 2, the order of density matrices; got 3"),
        ({"rdm": "2"}, "rdm needs 0, 1 or 2, the order of density matrices; got '2'"),
        ({"tol": -1e-8}, "tol needs a positive number; got -1e-08"),
        ({"tol": float("nan")}, "tol needs a positive number; got nan"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_the_solve(integrals, monkeypatch, change, says):
    """Texts were read as decimal numbers, floats cut to integers, norb and a negative tol passed over."""
    monkeypatch.setattr(ours, "solve_batches", lambda *_, **__: pytest.fail("solved"))
    given = {"strings": (np.array([7]), np.array([3])), "norb": NORB, "nelec": NELEC, **change}
    strings, norb, nelec = (given.pop(name) for name in ("strings", "norb", "nelec"))
    with pytest.raises(InputError, match=says):
        ours.solve_sci(strings, *integrals, norb, nelec, **given)
    with pytest.raises(InputError, match=says):
        ours.solve_sci_batch([strings], *integrals, norb, nelec, **given)


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


@pytest.mark.slow
def test_their_loop_gives_the_same_on_every_number_of_ranks_and_threads():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    found = []
    for ranks, threads in ((1, 1), (1, 2), (3, 1)):
        launcher = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
        command = [*launcher, sys.executable, "-m", "tests.support.qiskit_loop"]
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
def test_spin_sq_with_our_own_penalty_gives_the_lowest_state_of_that_spin(spin_sq):
    """In a space with all spin functions: against PySCF's full CI, whose roots are searched for the spin."""
    from pyscf import fci

    one, two = tensors(make_hamiltonian(5, (2, 2), 7))
    solver = fci.direct_spin1.FCI()
    energies, vectors = solver.kernel(one, two, 5, (2, 2), nroots=60)
    spins = [fci.spin_op.spin_square0(vector, 5, (2, 2))[0] for vector in vectors]
    exact = next(energy for energy, spin in zip(energies, spins, strict=True) if abs(spin - spin_sq) < 1e-4)
    strings = all_strings(5, 2)[:, 0].astype(np.int64)
    pair = strings, strings
    energy, state, occupancies, found = ours.solve_fermion(pair, one, two, spin_sq=spin_sq, spin_penalty="auto")
    assert energy == pytest.approx(exact, abs=1e-8)
    assert found == pytest.approx(spin_sq, abs=1e-6) and state.spin_square() == pytest.approx(spin_sq, abs=1e-6)
    assert sum(map(np.sum, occupancies)) == pytest.approx(4.0)
    sci = ours.solve_sci(pair, one, two, 5, (2, 2), spin_sq=spin_sq, spin_penalty="auto")
    assert sci.energy == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("spin_sq", [0.0, 2.0, 6.0])
@pytest.mark.parametrize("shift", [0.1, 0.4, 2.0])
@pytest.mark.filterwarnings("ignore:subspace 0. the state has:UserWarning")
def test_spin_sq_with_their_penalty_gives_the_lowest_state_of_their_operator(spin_sq, shift):
    """A weak penalty leaves a singlet below the quintet that is asked for, there as here."""
    one, two = tensors(make_hamiltonian(5, (2, 2), 7))
    strings = all_strings(5, 2)[:, 0].astype(np.int64)
    pair = strings, strings
    exact = lowest_energy(one, two, 5, (2, 2), pair, spin_sq, shift)
    assert ours.solve_fermion(pair, one, two, spin_sq=spin_sq, shift=shift)[0] == pytest.approx(exact, abs=1e-8)
    if shift == 0.1:
        assert ours.solve_sci(pair, one, two, 5, (2, 2), spin_sq=spin_sq).energy == pytest.approx(exact, abs=1e-8)


def their_operator(one, two, norb, nelec, strings, spin_sq, shift=0.1):
    """(dimension, dimension) matrix of PySCF's operator in the space, column by column."""
    from pyscf import fci
    from pyscf.fci import selected_ci

    solver = selected_ci.SelectedCI()
    if spin_sq is not None:
        solver = fci.addons.fix_spin_(solver, ss=spin_sq, shift=shift)
    shape = len(strings[0]), len(strings[1])
    integrals = solver.absorb_h1e(one, two, norb, nelec, 0.5)
    columns = []
    for column in np.eye(shape[0] * shape[1]):
        vector = selected_ci._as_SCIvector(column.reshape(shape), strings)
        columns.append(np.asarray(solver.contract_2e(integrals, vector, norb, nelec)).ravel())
    return np.array(columns).T


def lowest_energy(one, two, norb, nelec, strings, spin_sq, shift=0.1):
    """<H> of the lowest state of their operator; with equal strings of both spins, of that parity."""
    operator, plain = (their_operator(one, two, norb, nelec, strings, each, shift) for each in (spin_sq, None))
    n = len(strings[0])
    if spin_sq is not None and nelec[0] == nelec[1] and np.array_equal(*strings):
        parity = 1 if round((np.sqrt(4 * spin_sq + 1) - 1) / 2) % 2 == 0 else -1
        if n * (n + parity) // 2 > 0:
            mirror = np.eye(n * n).reshape(n, n, n, n).transpose(1, 0, 2, 3).reshape(n * n, n * n)
            operator = operator + 1e3 * (np.eye(n * n) - parity * mirror)
    vectors = np.linalg.eigh(operator)[1]
    return vectors[:, 0] @ plain @ vectors[:, 0]


def nitrogen(distance=1.2, norb=8):
    """Integrals of N2 in STO-3G, eight valence orbitals; angstrom."""
    from pyscf import ao2mo, gto, mcscf, scf

    mean_field = scf.RHF(gto.M(atom=f"N 0 0 0; N 0 0 {distance}", basis="sto-3g", symmetry="D2h", verbose=0)).run()
    space = mcscf.CASCI(mean_field, norb, 10)
    return space.get_h1eff()[0], ao2mo.restore(1, space.get_h2eff(), norb)


@pytest.mark.slow
def test_random_strings_of_nitrogen():
    """24 x 22 strings without spin partners, where a penalty of our own gave 0.37 hartree more."""
    one, two = nitrogen()
    strings = random_strings(8, 5, 24, 1)[:, 0].astype(np.int64), random_strings(8, 5, 22, 2)[:, 0].astype(np.int64)
    exact = lowest_energy(one, two, 8, (5, 5), strings, 0.0)
    with pytest.warns(UserWarning, match="the state has <S.2>"):
        assert ours.solve_sci(strings, one, two, 8, (5, 5), spin_sq=0.0).energy == pytest.approx(exact, abs=1e-7)
        assert ours.solve_fermion(strings, one, two, spin_sq=0.0)[0] == pytest.approx(exact, abs=1e-7)
        own = ours.solve_sci(strings, one, two, 8, (5, 5), spin_sq=0.0, spin_penalty="auto")
        stronger = ours.solve_sci(strings, one, two, 8, (5, 5), spin_sq=0.0, spin_penalty=0.25)
    assert own.energy == pytest.approx(exact, abs=1e-7) and abs(stronger.energy - exact) > 1e-5


@pytest.mark.parametrize("number", range(30))
@pytest.mark.filterwarnings("ignore:subspace 0. the state has:UserWarning")
def test_random_spaces_and_spins(number):
    rng = np.random.default_rng([11, number])
    norb = int(rng.integers(4, 9))
    n_alpha = int(rng.integers(1, norb))
    nelec = n_alpha, n_alpha if rng.random() < 0.6 else int(rng.integers(1, n_alpha + 1))
    one, two = nitrogen() if norb == 8 else tensors(make_hamiltonian(norb, nelec, number))
    sizes = [min(int(rng.integers(1, 15)), len(all_strings(norb, n))) for n in nelec]
    strings = [random_strings(norb, n, k, number)[:, 0].astype(np.int64) for n, k in zip(nelec, sizes, strict=True)]
    if nelec[0] == nelec[1] and rng.random() < 0.5:
        strings[1] = strings[0]
    spin = abs(nelec[0] - nelec[1]) / 2 + int(rng.integers(0, 3))
    for spin_sq in (None, spin * (spin + 1)):
        exact = lowest_energy(one, two, norb, nelec, strings, spin_sq)
        sci = ours.solve_sci(strings, one, two, norb, nelec, spin_sq=spin_sq)
        assert sci.energy == pytest.approx(exact, abs=1e-7)
        assert ours.solve_fermion(tuple(strings), one, two, spin_sq=spin_sq)[0] == pytest.approx(exact, abs=1e-7)


def test_a_spin_that_no_state_has_is_a_warning_and_ends_no_loop():
    one, two = nitrogen()
    string = np.array([31])
    with pytest.warns(UserWarning, match="the state has <S.2> 0.0000, not 2"):
        found = ours.solve_sci((string, string), one, two, 8, (5, 5), spin_sq=2.0)
    other = theirs.solve_sci((string, string), one, two, 8, (5, 5), spin_sq=2.0)
    assert found.energy == pytest.approx(other.energy, abs=1e-10)
    with pytest.warns(UserWarning):
        results = ours.solve_sci_batch([(string, string)] * 2, one, two, 8, (5, 5), spin_sq=2.0)
    assert len(results) == 2


def test_a_solve_that_does_not_converge_is_a_warning(integrals):
    strings = integer_strings(3, 20), integer_strings(2, 15)
    with pytest.warns(UserWarning, match="subspace 0 is not converged: residual norm"):
        ours.solve_sci(strings, *integrals, NORB, NELEC, max_cycle=1, model_space=3)


@pytest.mark.parametrize(("samples", "symmetrize"), [(15, True), pytest.param(25, False, marks=pytest.mark.slow)])
def test_the_public_quickstart_in_every_iteration(samples, symmetrize):
    """Energies of all batches equal theirs, or lie below where PySCF's solver stays in a higher state."""
    from functools import partial

    from qiskit_addon_sqd.counts import generate_bit_array_uniform
    from qiskit_addon_sqd.fermion import diagonalize_fermionic_hamiltonian

    one, two = nitrogen(1.0)
    bits = generate_bit_array_uniform(10_000, 16, rand_seed=24)
    histories = []
    for module in (ours, theirs):
        history: list = []
        diagonalize_fermionic_hamiltonian(
            one, two, bits, samples_per_batch=samples, norb=8, nelec=(5, 5), num_batches=2, max_iterations=5,
            sci_solver=partial(module.solve_sci_batch, spin_sq=0.0, max_cycle=200), symmetrize_spin=symmetrize,
            callback=history.append, seed=12345,
        )  # fmt: skip
        histories.append(history)
    pairs = [pair for mine, other in zip(*histories, strict=False) for pair in zip(mine, other, strict=True)]
    same = [pair for pair in pairs if np.array_equal(pair[0].sci_state.ci_strs_a, pair[1].sci_state.ci_strs_a)
            and np.array_equal(pair[0].sci_state.ci_strs_b, pair[1].sci_state.ci_strs_b)]  # fmt: skip
    lower = [pair for pair in same if pair[0].energy != pytest.approx(pair[1].energy, abs=1e-6)]
    assert len(same) > len(pairs) // 2 and len(lower) <= len(same) // 4
    for mine, other in lower:
        strings = mine.sci_state.ci_strs_a, mine.sci_state.ci_strs_b
        assert mine.energy == pytest.approx(lowest_energy(one, two, 8, (5, 5), strings, 0.0), abs=1e-7)
        assert mine.energy < other.energy
