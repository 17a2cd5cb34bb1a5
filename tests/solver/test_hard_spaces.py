"""No state is missed with defaults: the named cases that were, and a tenth of what scripts/hard_spaces.py draws."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from sqd_mpi import _jit
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver.sectors import HOW_DECIDED
from sqd_mpi.solver.solve import solve_subspace
from tests.support.paths import ROOT
from tests.support.problems import all_strings, dense_matrix

sys.path.insert(0, str(ROOT / "scripts"))

import hard_spaces  # noqa: E402

SEED = 7
CHUNK = 10
# Bonds of a chain: hopping 1.3, 0.7, 1.3, ...
CHAIN_8, CHAIN_9 = ([(k, k + 1) for k in range(n - 1)] for n in (8, 9))
RING_9 = [(k, (k + 1) % 9) for k in range(9)]


def hubbard(n, bonds, hopping, repulsion, nelec) -> Hamiltonian:
    """A Hubbard model in site orbitals."""
    return Hamiltonian.from_arrays(*hard_spaces.hubbard_integrals(n, bonds, hopping, repulsion), 0.0, nelec)


def chain(n: int, repulsion: float, nelec: tuple[int, int]) -> Hamiltonian:
    """A chain with alternating hopping."""
    return hubbard(n, CHAIN_8 if n == 8 else CHAIN_9, np.where(np.arange(n - 1) % 2 == 0, 1.3, 0.7), repulsion, nelec)


def h8(shape: str, distance: float) -> Hamiltonian:
    """Eight hydrogen atoms in Loewdin orbitals."""
    h1e, eri, core = hard_spaces.hydrogen_integrals(shape, 8, distance, 0, True)
    return Hamiltonian.from_arrays(h1e, eri, core, (4, 4))


@pytest.fixture(autouse=True)
def one_thread():
    """Spaces are so small that threads cost more than they save, most of all beside other work."""
    with _jit.at_most(1), threadpool_limits(1):
        yield


NAMED = {
    "chain of 9, U 1": (lambda: chain(9, 1, (3, 3)), 1, [-8.727630]),
    "chain of 9, U 8": (lambda: chain(9, 8, (4, 4)), 1, [-4.584327]),
    "chain of 9, U 8, four": (lambda: chain(9, 8, (4, 4)), 4, [-4.584327, -4.484748, -4.321521, -4.224122]),
    "chain of 9, U 12": (lambda: chain(9, 12, (3, 3)), 1, [-5.740500]),
    "chain of 9, U 12, half filled": (lambda: chain(9, 12, (4, 4)), 1, [-3.764692]),
    "chain of 8, U 1, four": (lambda: chain(8, 1, (4, 4)), 4, [-9.137100, -7.693385, -7.383707, -7.364753]),
    "ring of 9, U 16, three": (lambda: hubbard(9, RING_9, 1.0, 16, (3, 3)), 3, [-5.898540, -5.575405, -5.575405]),
    "H8 cube": (lambda: h8("cube", 1.2), 6, {5: -13.757040}),
    "H8 ring 0.9": (lambda: h8("ring", 0.9), 5, {0: -14.445794, 1: -14.427594, 2: -14.370115, 3: -14.331549}),
    "H8 ring 1.2": (lambda: h8("ring", 1.2), 6, {3: -11.752850}),
    "H8 chain": (lambda: h8("chain", 0.9), 5, {4: -11.988110}),
}


@pytest.mark.parametrize("name", NAMED)
def test_states_that_were_missed(name):
    make, nroots, known = NAMED[name]
    hamiltonian = make()
    strings = [all_strings(hamiltonian.norb, n) for n in hamiltonian.nelec]
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=nroots))
    problem = hard_spaces.Problem(name, hamiltonian, *strings, nroots)
    exact = hard_spaces.lowest_energies(problem, nroots)
    for root, energy in known.items() if isinstance(known, dict) else enumerate(known):
        assert exact[root] - hamiltonian.ecore == pytest.approx(energy, abs=2e-6)  # as they were reported
    assert result.converged and result.proven
    np.testing.assert_allclose(result.energies, exact, atol=1e-8)
    assert {decision.how for decision in result.sectors_examined.values()} <= set(HOW_DECIDED)


@pytest.mark.parametrize(("seed", "number"), [(5, 9), (5, 18), (6, 28)])
def test_states_among_scattered_strings_that_were_missed(seed, number):
    """Few strings of many: the matrix is nearly diagonal, and model spaces do not show all that is low."""
    outcome = hard_spaces.attempt(hard_spaces.draw(seed, number, "scattered"))
    assert outcome.converged and outcome.proven
    np.testing.assert_allclose(outcome.energies, outcome.exact, atol=1e-8)


SELDOM = [pytest.param(first, marks=pytest.mark.slow) for first in range(0, 100, CHUNK) if first not in (0, 30, 70)]


@pytest.mark.parametrize("first", [0, 30, 70, *SELDOM])
def test_a_tenth_of_the_generator(first):
    outcomes = [hard_spaces.attempt(hard_spaces.draw(SEED, number)) for number in range(first, first + CHUNK)]
    wrong = [f"{each.problem.name}: {each.energies}, not {each.exact}" for each in outcomes if each.wrong]
    assert not wrong, "\n".join(wrong)
    assert sum(not each.converged for each in outcomes) <= 1


def test_the_judge_is_right():
    """Its sparse matrix against the one element by element, and its eigenvalues with all copies."""
    for number in range(40):
        problem = hard_spaces.draw(SEED, number)
        if problem.dimension <= 200:
            matrix = dense_matrix(problem.hamiltonian, problem.strings_a, problem.strings_b)
            np.testing.assert_allclose(hard_spaces.sparse_matrix(problem).toarray(), matrix, atol=1e-12)
    hamiltonian = hubbard(6, [(k, (k + 1) % 6) for k in range(6)], 1.0, 4.0, (3, 3))
    strings = all_strings(6, 3)
    problem = hard_spaces.Problem("ring", hamiltonian, strings, strings, 8)
    exact = np.linalg.eigvalsh(hard_spaces.sparse_matrix(problem).toarray())[:8]
    assert np.any(np.diff(exact) < 1e-10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hard_spaces, "DENSE", 10)
        np.testing.assert_allclose(hard_spaces.lowest_energies(problem, 8), exact, atol=1e-10)


def test_a_solve_that_ends_too_early_is_not_proven():
    hamiltonian = chain(9, 8, (4, 4))
    strings = all_strings(9, 4)
    log = Log.silent()
    few = solve_subspace(None, hamiltonian, strings, strings, SolveOptions(max_iterations=16, tol=0.15), log=log)
    assert few.converged and not few.proven
    undecided = [sector for sector, decision in few.sectors_examined.items() if decision.how == "undecided"]
    assert undecided and len(log.warnings) == 1 and log.warnings[0].startswith("not proven: a lower state may lie in")
    enough = solve_subspace(None, hamiltonian, strings, strings, SolveOptions(tol=0.15))
    assert enough.converged and enough.proven
