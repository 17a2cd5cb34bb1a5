"""PySCF client: `SubspaceSolver` as `fcisolver` of CASCI and CASSCF, in one process or driven by rank 0 of many.

    def calculation():
        mc = mcscf.CASSCF(mean_field, 8, 10)
        mc.fcisolver = SubspaceSolver(strings=(alpha, beta))
        return mc.kernel()[0]

    energy = drive(calculation)

Under mpirun `drive` runs the function on rank 0 alone, so that PySCF's integrals and orbitals exist once, while the
other ranks wait for solves and density matrices to take part in. The vectors of small complete spaces are arrays, with
which all of PySCF works; others stay distributed, and PySCF hands small objects around that name them.
"""

from __future__ import annotations

from sqd_mpi.adapters.pyscf.session import drive
from sqd_mpi.adapters.pyscf.solver import SubspaceSolver
from sqd_mpi.adapters.pyscf.vectors import NotAnArray, SubspaceArray, SubspaceVector

__all__ = ["NotAnArray", "SubspaceArray", "SubspaceSolver", "SubspaceVector", "drive"]
