"""CASSCF on several ranks, driven by rank 0."""

from __future__ import annotations

import pytest
from pyscf import gto, lib, mcscf, scf

from sqd_mpi.adapters.pyscf import SubspaceSolver, drive
from sqd_mpi.options import InputError
from tests.mpi.test_sigma import shapes

pytestmark = pytest.mark.mpi


def test_casscf_gives_the_same_energies_on_every_grid(comm):
    def calculation() -> list[float]:
        with lib.with_omp_threads(1):
            mean_field = scf.RHF(gto.M(atom="N 0 0 0; N 0 0 1.2", basis="6-31g", verbose=0)).run(conv_tol=1e-12)
            expected = mcscf.CASSCF(mean_field, 4, 4).run(conv_tol=1e-10)
            energies = []
            for shape in {shapes(comm.size)[0], shapes(comm.size)[-1]}:
                found = mcscf.CASSCF(mean_field, 4, 4)
                found.fcisolver = SubspaceSolver(grid=shape)
                found.run(conv_tol=1e-10)
                assert found.converged and found.fcisolver.result.grid.shape == shape
                energies.append(found.e_tot)
                assert found.e_tot == pytest.approx(expected.e_tot, abs=1e-8)
                assert found.ci.gather().shape == (6, 6)
                assert len(found.fcisolver._session.results) < 12
        return energies

    energies = drive(calculation, comm)
    assert (energies is None) == (comm.rank != 0)


def test_an_error_that_is_caught_ends_nothing(comm):
    def calculation() -> float:
        mean_field = scf.RHF(gto.M(atom="H 0 0 0; H 0 0 1", basis="sto-3g", verbose=0)).run()
        active_space = mcscf.CASCI(mean_field, 2, 2)
        active_space.fcisolver = SubspaceSolver(nroots=3, spin_square=2)  # there is one such state
        with pytest.raises(InputError, match="as many states of spin 1"):
            active_space.kernel()
        active_space.fcisolver = SubspaceSolver()
        return active_space.kernel()[0]

    energy = drive(calculation, comm)
    assert comm.rank != 0 or energy == pytest.approx(-1.1011503, abs=1e-6)
