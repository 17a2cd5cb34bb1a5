"""Two sites of the Hubbard model: an input that takes no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sqd_mpi.files import records
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian

U, T = 4.0, 1.0
ENERGY = U / 2 - np.sqrt(U**2 / 4 + 4 * T**2)


def write_two_sites(path: Path) -> None:
    """Write the input file."""
    eri = np.zeros((2, 2, 2, 2))
    eri[0, 0, 0, 0] = eri[1, 1, 1, 1] = U
    hamiltonian = Hamiltonian.from_arrays(-T * (1 - np.eye(2)), eri, 0.0, (1, 1))
    strings = bitstrings.from_integers([1, 2], 2)
    records.write_input(path, hamiltonian, strings, strings, {"threads": 1})
