"""The loop of qiskit-addon-sqd on noisy samples with our solver; prints its result. Run by tests on 1 to 4 ranks."""

from __future__ import annotations

import json
import sys

import numpy as np
from qiskit_addon_sqd.fermion import diagonalize_fermionic_hamiltonian
from qiskit_addon_sqd.processes import is_control_process

from sqd_mpi.adapters.qiskit import solve_sci_batch
from tests.support.problems import make_hamiltonian


def tensors(hamiltonian):
    """One- and two-body tensors in full."""
    norb = hamiltonian.norb
    rows, columns = np.tril_indices(norb)
    pair = np.zeros((norb, norb), int)
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    return hamiltonian.h1e, hamiltonian.eri_pairs()[pair][:, :, pair]


def loop(solver, **options):
    """Result of the loop on uniform random samples."""
    hamiltonian = make_hamiltonian(5, (2, 3), 4)
    bits = np.random.default_rng(1).integers(2, size=(300, 10)).astype(bool)
    return diagonalize_fermionic_hamiltonian(
        *tensors(hamiltonian), bits, 12, 5, (2, 3), num_batches=3, max_iterations=4, sci_solver=solver, seed=7,
        **options,
    )  # fmt: skip


if __name__ == "__main__":
    result = loop(solve_sci_batch)
    if is_control_process():
        occupancies = np.concatenate(result.orbital_occupancies).tolist()
        shape = list(result.sci_state.amplitudes.shape)
        json.dump({"energy": result.energy, "occupancies": occupancies, "shape": shape}, sys.stdout)
