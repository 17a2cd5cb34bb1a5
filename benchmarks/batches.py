"""Five batches on 26 orbitals: one after another with PySCF, as qiskit-addon-sqd's solve_fermion does, and in parallel.

    python benchmarks/batches.py                                   # 600 to 1,200 strings, whole solves of both
    python benchmarks/batches.py --sizes 300,300 --threads 2
    python benchmarks/batches.py --large 4000                      # ours in full, PySCF by its time per sigma

Both solve the same strings in one run: first ours (worker processes, start-up included), then PySCF with all threads.
PySCF stops as its default does, by the change of the energy; ours by the residual norm. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from pyscf import fci, gto, lib, scf
from pyscf.fci import selected_ci

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqd_mpi import Hamiltonian, SolveOptions
from sqd_mpi.loop.batches import WorkerPool, solve_batches
from sqd_mpi.problem import bitstrings

NORB, N_ELECTRONS = 26, 5


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="600,750,900,1050,1200", help="strings of every batch")
    parser.add_argument("--large", type=int, help="one batch of so many strings instead")
    parser.add_argument("--threads", type=int, default=2, help="threads of PySCF, and cores of ours")
    parser.add_argument("--pyscf-seconds", type=float, default=float("inf"), help="end PySCF after so long")
    arguments = parser.parse_args()
    hamiltonian = molecule()
    sizes = [arguments.large] if arguments.large else [int(size) for size in arguments.sizes.split(",")]
    batches = make_batches(sizes)
    record = ours(hamiltonian, batches, arguments.threads)
    lib.num_threads(arguments.threads)
    if arguments.large:
        record |= by_time_per_sigma(hamiltonian, batches[0])
    else:
        record |= pyscf_one_after_another(hamiltonian, batches, arguments.pyscf_seconds)
        done = len(record["pyscf_energies"])
        differences = np.abs(np.array(record["energies"][:done]) - np.array(record["pyscf_energies"]))
        record["largest_difference"] = float(differences.max()) if done else None
        if done == len(batches):
            record["speed_up"] = record["pyscf_seconds"] / record["seconds"]
    print(json.dumps({"sizes": sizes} | record))


def molecule() -> Hamiltonian:
    """N2 in cc-pVDZ, the two core orbitals frozen."""
    mol = gto.M(atom="N 0 0 0; N 0 0 1.0977", basis="cc-pvdz", symmetry="D2h", verbose=0)
    return Hamiltonian.from_pyscf(scf.RHF(mol).run(), NORB, 2 * N_ELECTRONS)


def make_batches(sizes: list[int]) -> list[np.ndarray]:
    """Random subsets of the strings with the lowest excitation ranks and orbital numbers, the lowest string in all."""
    from itertools import combinations

    random = np.random.default_rng(5)
    strings = np.array([sum(1 << k for k in chosen) for chosen in combinations(range(NORB), N_ELECTRONS)], np.int64)
    cost = np.array([sum(k for k in range(NORB) if int(s) >> k & 1) for s in strings])
    pool = strings[np.argsort(cost, kind="stable")[: int(1.6 * max(sizes))]]
    chosen = [np.append(random.choice(pool[1:], size - 1, replace=False), pool[0]) for size in sizes]
    return [np.sort(each) for each in chosen]


def ours(hamiltonian: Hamiltonian, batches: list[np.ndarray], cores: int) -> dict:
    """Whole solves in worker processes, processes and kernels started for them."""
    packed = [(bitstrings.from_integers(each, NORB),) * 2 for each in batches]
    started = time.perf_counter()
    with WorkerPool(hamiltonian, min(cores, len(batches))) as pool:
        pool.n_cores = cores
        results = solve_batches(hamiltonian, packed, SolveOptions(tol=1e-5), pool=pool)
    seconds = time.perf_counter() - started
    for result in results:
        print(f"ours: {len(result.strings_a):6d} strings {result.energy:.10f} {result.seconds:9.2f} s", flush=True)
    print(f"ours: all {seconds:.2f} s")
    return {"seconds": seconds, "energies": [result.energy for result in results],
            "batch_seconds": [result.seconds for result in results]}  # fmt: skip


def full_integrals(hamiltonian: Hamiltonian) -> tuple[np.ndarray, np.ndarray]:
    """One- and two-electron integrals as PySCF and qiskit-addon-sqd take them."""
    from pyscf import ao2mo

    return hamiltonian.h1e, ao2mo.restore(1, hamiltonian.eri_pairs(), NORB)


def pyscf_one_after_another(hamiltonian: Hamiltonian, batches: list[np.ndarray], limit: float) -> dict:
    """What solve_fermion does: the solve, both density matrices, the energy from them, <S^2>."""
    h1e, eri = full_integrals(hamiltonian)
    nelec = (N_ELECTRONS, N_ELECTRONS)
    energies, seconds = [], []
    for each in batches:
        if sum(seconds) > limit:
            print("PySCF: stopped by --pyscf-seconds; what is left is not counted")
            break
        started = time.perf_counter()
        solver = fci.selected_ci.SelectedCI()
        _, vector = selected_ci.kernel_fixed_space(solver, h1e, eri, NORB, nelec, (each, each))
        solver.make_rdm1s(vector, NORB, nelec)
        rdm1, rdm2 = solver.make_rdm1(vector, NORB, nelec), solver.make_rdm2(vector, NORB, nelec)
        energy = np.einsum("pr,pr->", rdm1, h1e) + 0.5 * np.einsum("prqs,prqs->", rdm2, eri) + hamiltonian.ecore
        solver.spin_square(vector, NORB, nelec)
        seconds.append(time.perf_counter() - started)
        energies.append(float(energy))
        print(f"PySCF: {len(each):6d} strings {energy:.10f} {seconds[-1]:9.2f} s", flush=True)
    return {"pyscf_seconds": sum(seconds), "pyscf_energies": energies, "pyscf_batch_seconds": seconds}


def by_time_per_sigma(hamiltonian: Hamiltonian, strings: np.ndarray, n_sigma: int = 15) -> dict:
    """PySCF's time for one sigma, and for n_sigma of them by extrapolation; list making not counted."""
    h1e, eri = full_integrals(hamiltonian)
    nelec = (N_ELECTRONS, N_ELECTRONS)
    links = selected_ci._all_linkstr_index((strings, strings), NORB, nelec)
    h2e = fci.direct_spin1.absorb_h1e(h1e, eri, NORB, nelec, 0.5)
    vector = selected_ci._as_SCIvector(np.eye(len(strings)), (strings, strings))
    started = time.perf_counter()
    selected_ci.SelectedCI().contract_2e(h2e, vector, NORB, nelec, links)
    seconds = time.perf_counter() - started
    print(f"PySCF: {seconds:.1f} s per sigma; {n_sigma} sigmas would take {n_sigma * seconds:.0f} s (extrapolated)")
    return {"pyscf_sigma_seconds": seconds, "pyscf_seconds_extrapolated": n_sigma * seconds}


if __name__ == "__main__":
    main()
