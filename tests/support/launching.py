"""How tests start programs on several ranks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# Variables of an MPI job or a pytest run around this one, which would mislead the ranks. Those of Open MPI that are
# settings and not a job (OMPI_ALLOW, OMPI_MCA) stay.
_OPEN_MPI_JOB = "APP ARGV COMM COMMAND FILE FIRST NUM RELEASE UNIVERSE VERSION".split()


FOREIGN = ("PMI", "PMIX", "MPI_", "HYD", "PYTEST", *(f"OMPI_{name}" for name in _OPEN_MPI_JOB))


def mpiexec() -> str:
    """The launcher that belongs to the mpi4py of this interpreter: the one beside it, else that of the PATH."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec; install the extra [mpi]")
    return found
