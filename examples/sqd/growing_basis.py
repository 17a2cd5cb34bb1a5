"""The loop of a neural sampler: random subsets of a growing basis are diagonalised in parallel, the best strings stay.

    python examples/sqd/growing_basis.py --workers 2
    mpirun -n 4 python examples/sqd/growing_basis.py

The sampler is stood in for by random single and double excitations of the strings that are worth keeping. N2 in 26
orbitals (52 qubits), 5 batches an iteration, each a random subset of the basis; the next basis is what all batches
carry over and what the sampler proposes from it. Worker processes stay for the whole loop. No main guard is needed.
"""

import argparse

import numpy as np
from pyscf import gto, scf

from sqd_mpi import Hamiltonian, SolveOptions, WorkerPool, bitstrings, sampling, solve_batches, world

parser = argparse.ArgumentParser()
parser.add_argument("--orbitals", type=int, default=26)
parser.add_argument("--strings", type=int, default=120, help="strings of a batch")
parser.add_argument("--iterations", type=int, default=3)
parser.add_argument("--workers", type=int, default=2)
arguments = parser.parse_args()

BATCHES = 5
comm = world()
rank = 0 if comm is None else comm.rank
random = np.random.default_rng(7)  # the same on all ranks, so that all ranks make the same batches

molecule = gto.M(atom="N 0 0 0; N 0 0 1.1", basis="cc-pvdz", symmetry="D2h", verbose=0)
hamiltonian = Hamiltonian.from_pyscf(scf.RHF(molecule).run(), arguments.orbitals, 10)
norb, n_electrons = hamiltonian.norb, hamiltonian.nelec[0]


def propose(basis: np.ndarray, count: int) -> np.ndarray:
    """The basis and `count` random excitations of its strings."""
    bits = bitstrings.unpack(basis[random.integers(len(basis), size=count)], norb)
    for row in bits:
        for _ in range(random.integers(1, 3)):
            row[random.choice(np.flatnonzero(row))] = False
            row[random.choice(np.flatnonzero(~row))] = True
    right = bits.sum(axis=1) == n_electrons
    return bitstrings.canonical(np.concatenate([basis, bitstrings.pack(bits[right])]))[0]


lowest = bitstrings.from_integers([(1 << n_electrons) - 1], norb)
kept = basis = propose(lowest, 2 * arguments.strings)
pool = WorkerPool(hamiltonian, arguments.workers) if comm is None or comm.size == 1 else None
for iteration in range(1, arguments.iterations + 1):
    batches = []
    for _ in range(BATCHES):
        size = min(arguments.strings, len(basis))
        subset = basis[np.sort(random.choice(len(basis), size, replace=False))]
        batches.append((bitstrings.canonical(np.concatenate([lowest, subset]))[0],) * 2)
    results = solve_batches(hamiltonian, batches, SolveOptions(tol=1e-5), comm=comm, pool=pool, timeout=3600.0)
    whole = [result for result in results if result.failure is None]
    heavy = []
    for result in whole:
        weights, strings = result.weights, (result.strings_a, result.strings_b)
        largest = weights.largest_alpha, weights.largest_beta
        heavy += sampling.carry_over(strings, (weights.alpha, weights.beta), largest, 1e-3, False)
    kept = bitstrings.canonical(np.concatenate(heavy))[0]
    basis = propose(kept, 2 * arguments.strings)
    if rank == 0:
        energies = " ".join(f"{result.energy:.6f}" for result in results)
        print(f"iteration {iteration}: {energies}; {len(kept)} strings kept, basis of {len(basis)}")
if rank == 0:
    print(f"energy {min(result.energy for result in whole):.10f} hartree")
if pool is not None:
    pool.close()
