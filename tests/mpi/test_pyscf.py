"""CASSCF on several ranks, driven by rank 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyscf import fci, gto, lib, mcscf, mrpt, scf

from sqd_mpi.adapters.pyscf import SubspaceSolver, drive
from sqd_mpi.errors import InputError
from tests.support.pyscf_reference import boron_hydride, hydrogens, oxygen_unrestricted
from tests.support.shapes import shapes

pytestmark = pytest.mark.mpi


def on_rank_0(comm: Any, calculation: Callable[[], None]) -> None:
    """Drive a calculation on one PySCF thread."""

    def alone() -> bool:
        with lib.with_omp_threads(1):
            calculation()
        return True

    assert drive(alone, comm) is (True if comm.rank == 0 else None)


def quiet(**settings: Any) -> SubspaceSolver:
    """A solver that prints no warnings."""
    return SubspaceSolver(**settings).set(verbose=0)


@pytest.mark.parametrize("limit", [10**6, 1], ids=["arrays", "distributed"])
def test_casscf_gives_the_same_energies_on_every_grid(comm, limit):
    def calculation() -> None:
        mean_field = scf.RHF(gto.M(atom="N 0 0 0; N 0 0 1.2", basis="6-31g", verbose=0)).run(conv_tol=1e-12)
        expected = mcscf.CASSCF(mean_field, 4, 4).run(conv_tol=1e-10)
        for shape in {shapes(comm.size)[0], shapes(comm.size)[-1]}:
            found = mcscf.CASSCF(mean_field, 4, 4)
            found.fcisolver = quiet(grid=shape, array_limit=limit)
            found.run(conv_tol=1e-10)
            assert found.converged and found.fcisolver.result.grid.shape == shape
            assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)
            assert found.ci.gather().shape == (6, 6)
            assert len(found.fcisolver._session.results) < 12

    on_rank_0(comm, calculation)


def test_an_error_that_is_caught_ends_nothing(comm):
    def calculation() -> None:
        mean_field = scf.RHF(gto.M(atom="H 0 0 0; H 0 0 1", basis="sto-3g", verbose=0)).run()
        active_space = mcscf.CASCI(mean_field, 2, 2)
        active_space.fcisolver = SubspaceSolver(nroots=3, spin_square=2)  # there is one such state
        with pytest.raises(InputError, match="as many states of spin 1"):
            active_space.kernel()
        active_space.fcisolver = SubspaceSolver()
        assert active_space.kernel()[0] == pytest.approx(-1.1011503, abs=1e-6)

    on_rank_0(comm, calculation)


def test_spins_and_irreps(comm):
    def calculation() -> None:
        for limit in (10**6, 1):
            found = []
            for solver in (None, quiet(array_limit=limit)):
                mc = mcscf.CASCI(boron_hydride("C2v"), 5, 4)
                mc.fcisolver = mc.fcisolver if solver is None else solver
                mc.fcisolver.wfnsym, mc.fcisolver.nroots = "B1", 2
                found.append(mc.fix_spin_(ss=2, shift=1.0).kernel()[0])
            np.testing.assert_allclose(found[1], found[0], atol=1e-8)

    on_rank_0(comm, calculation)


def test_what_needs_arrays(comm):
    def calculation() -> None:
        found = []
        for make in (fci.direct_spin1.FCI, quiet):
            mc = mcscf.CASCI(boron_hydride(), 5, 4)
            mc.fcisolver = make()
            mc.kernel()
            second = mcscf.CASSCF(hydrogens(), 4, 4)
            second.fcisolver, second.conv_tol = make(), 1e-11
            found.append([mrpt.NEVPT(mc).kernel(), second.newton().kernel()[0]])
        np.testing.assert_allclose(found[1], found[0], atol=1e-8)

    on_rank_0(comm, calculation)


@pytest.mark.every_size
def test_distributed_vectors(comm):
    """Largest coefficients, density matrices, starts on other strings and whole vectors, with and without mirroring."""

    def calculation() -> None:
        for spin_flip in ("auto", "off"):
            for shape in {shapes(comm.size)[0], shapes(comm.size)[-1]}:
                check(quiet(array_limit=1, grid=shape, spin_flip=spin_flip, tol=1e-9))

    def check(solver: SubspaceSolver) -> None:
        expected, mc = (mcscf.CASCI(hydrogens(), 4, 4) for _ in range(2))
        mc.fcisolver = solver
        expected.kernel()
        mc.kernel()
        space = 4, (2, 2)
        for threshold in (0.02, 1.0):
            one, other = (each.fcisolver.large_ci(each.ci, *space, threshold) for each in (expected, mc))
            assert [entry[1:] for entry in one] == [entry[1:] for entry in other]
            np.testing.assert_allclose([abs(each[0]) for each in one], [abs(each[0]) for each in other], atol=1e-7)
        np.testing.assert_allclose(np.abs(np.asarray(mc.ci)), np.abs(expected.ci), atol=1e-7)
        for one, other in zip(*(each.fcisolver.make_rdm12(each.ci, *space) for each in (expected, mc)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-7)
        part = quiet(strings=([3, 5, 6, 9], [3, 5, 6, 9]), tol=1e-9)
        part.davidson_only = True
        h1e, _ = mc.get_h1eff()
        cold = part.kernel(h1e, mc.get_h2eff(), *space)[0]
        assert part.kernel(h1e, mc.get_h2eff(), *space, ci0=mc.ci)[0] == pytest.approx(cold, abs=1e-9)

    on_rank_0(comm, calculation)


def test_unlike_orbitals_of_both_spins(comm):
    def calculation() -> None:
        found = []
        for solver in (None, quiet(), quiet(array_limit=1)):
            mc = mcscf.UCASCI(oxygen_unrestricted(), 6, 8)
            mc.fcisolver = mc.fcisolver if solver is None else solver
            mc.kernel()
            found.append((mc.e_tot, mc.make_rdm1s()))
        for other in found[1:]:
            assert other[0] == pytest.approx(found[0][0], abs=1e-9)
            np.testing.assert_allclose(other[1], found[0][1], atol=1e-6)

    on_rank_0(comm, calculation)
