"""A small problem, as the planner knows it, and the grids on which its plans are looked at."""

from __future__ import annotations

import numpy as np

from sqd_mpi import planner
from sqd_mpi.problem.space import Space
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import OrbitalLabels
from tests.support.problems import close_strings, make_hamiltonian

NORB = 8
LABELS = OrbitalLabels(np.array([0, 1, 2, 3, 0, 1, 2, 3]), 4, 0.0, 0.0, 0.0)
SHAPES = [(1, 1, 1, 1), (2, 1, 1, 1), (1, 3, 1, 1), (2, 2, 1, 1), (3, 1, 1, 2), (1, 2, 3, 1), (1, 1, 2, 3)]


def make_problem(labels: OrbitalLabels = LABELS, spin_flip: bool = False, same: bool = False) -> planner.Problem:
    """47 alpha and 33 beta strings over 8 orbitals, or 47 for both spins."""
    alpha = SpinStrings.from_canonical(close_strings(NORB, 4, 47), labels.labels, labels.n_labels)
    beta = SpinStrings.from_canonical(close_strings(NORB, 3, 33), labels.labels, labels.n_labels)
    hamiltonian = make_hamiltonian(NORB, (4, 4 if same else 3))
    return planner.Problem.from_space(Space(hamiltonian, labels, alpha, alpha if same else beta), spin_flip, deal=True)
