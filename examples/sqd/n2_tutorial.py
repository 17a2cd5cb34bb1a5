"""The N2 workflow of qiskit-addon-sqd's tutorial on noise instead of a quantum computer, with one import changed.

    python examples/sqd/n2_tutorial.py
    mpirun -n 4 python examples/sqd/n2_tutorial.py

Needs qiskit-addon-sqd: pip install 'sqd_mpi[qiskit]'. `--theirs` takes the solver of qiskit-addon-sqd instead.
"""

import argparse

import numpy as np
import pyscf
import pyscf.mcscf
from qiskit_addon_sqd.counts import generate_bit_array_uniform
from qiskit_addon_sqd.fermion import SCIResult, diagonalize_fermionic_hamiltonian
from qiskit_addon_sqd.processes import is_control_process

parser = argparse.ArgumentParser()
parser.add_argument("--theirs", action="store_true", help="use the solver of qiskit-addon-sqd")
parser.add_argument("--samples-per-batch", type=int, default=60)
arguments = parser.parse_args()

# The one changed import: it was qiskit_addon_sqd.fermion.
if arguments.theirs:
    from qiskit_addon_sqd.fermion import solve_sci_batch
else:
    from sqd_mpi.adapters.qiskit import solve_sci_batch

# Molecule and active space
mol = pyscf.gto.Mole()
mol.build(atom=[["N", (0, 0, 0)], ["N", (1.0, 0, 0)]], basis="6-31g", symmetry="Dooh", verbose=0)
n_frozen = 2
active_space = range(n_frozen, n_frozen + 8)
scf = pyscf.scf.RHF(mol).run()
norb = len(active_space)
n_electrons = int(sum(scf.mo_occ[active_space]))
nelec = (n_electrons + mol.spin) // 2, (n_electrons - mol.spin) // 2
cas = pyscf.mcscf.CASCI(scf, norb, nelec)
mo = cas.sort_mo(active_space, base=0)
hcore, nuclear_repulsion_energy = cas.get_h1cas(mo)
eri = pyscf.ao2mo.restore(1, cas.get_h2cas(mo), norb)

# Samples: uniform noise
bit_array = generate_bit_array_uniform(10_000, norb * 2, rand_seed=24)

# Recovery loop
history: list[list[SCIResult]] = []
result = diagonalize_fermionic_hamiltonian(
    hcore,
    eri,
    bit_array,
    samples_per_batch=arguments.samples_per_batch,
    norb=norb,
    nelec=nelec,
    num_batches=3,
    max_iterations=8,
    sci_solver=solve_sci_batch,
    symmetrize_spin=True,
    callback=history.append,
    seed=24,
)

if is_control_process():
    for number, results in enumerate(history, 1):
        energies = ", ".join(f"{each.energy + nuclear_repulsion_energy:.8f}" for each in results)
        print(f"iteration {number}: {energies}")
    print(f"energy {result.energy + nuclear_repulsion_energy:.10f} hartree")
    print(f"subspace dimension {int(np.prod(result.sci_state.amplitudes.shape))}")
