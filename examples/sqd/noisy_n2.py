"""Recovery of configurations from nothing but noise: N2 in 8 orbitals falls to the full CI energy.

    python examples/sqd/noisy_n2.py

Every bit of every sample is 0 or 1 with the same probability. Few of them have the right numbers of electrons; the mean
occupations of the first solve repair the others. Needs no qiskit.
"""

import argparse
import sys

import numpy as np
from pyscf import gto, mcscf, scf

from sqd_mpi import Hamiltonian, Log, LoopOptions, run_loop, sampling

parser = argparse.ArgumentParser()
parser.add_argument("--samples", type=int, default=2000)
parser.add_argument("--samples-per-batch", type=int, default=60)
arguments = parser.parse_args()

molecule = gto.M(atom="N 0 0 0; N 0 0 1.0", basis="6-31g", symmetry="D2h", verbose=0)
mean_field = scf.RHF(molecule).run()
hamiltonian = Hamiltonian.from_pyscf(mean_field, 8, 10)
active_space = mcscf.CASCI(mean_field, 8, 10)
active_space.fcisolver.conv_tol = 1e-12
full = active_space.kernel()[0]

random = np.random.default_rng(24)
samples = sampling.from_matrix(random.integers(2, size=(arguments.samples, 16)).astype(bool))
options = LoopOptions(batches=5, samples_per_batch=arguments.samples_per_batch, loop_iterations=20, workers=0)
result = run_loop(hamiltonian, samples, options, log=Log(stream=sys.stdout))
best = result.state.best
print(f"energy {best.energy:.10f} hartree")
print(f"full CI {full:.10f} hartree")
print(f"above full CI {best.energy - full:.1e} hartree")
