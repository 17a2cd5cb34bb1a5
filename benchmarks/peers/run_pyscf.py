"""Runs PySCF's selected_ci once in the peers' environment and writes its timings as JSON.

It is the solver that qiskit-addon-sqd calls by default. Mode `sigma`: `contract_2e` on a random (dense) vector, without
the link indices, which are made once and timed apart. Mode `solve`: `kernel_fixed_space` from the Hartree-Fock
determinant until the residual norm falls below --tol; with --addon through `qiskit_addon_sqd.fermion.solve_sci`, which
makes the one- and two-particle density matrices as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
from pyscf import ao2mo, fci
from pyscf.fci import selected_ci
from pyscf.tools import fcidump as fcidump_tools

SAMPLE_SECONDS = 2.0
MAX_SAMPLES = 5


class Timed:
    """A function that remembers how long each of its calls took, in seconds."""

    def __init__(self, function) -> None:
        """Wraps the function."""
        self.function = function
        self.seconds: list[float] = []

    def __call__(self, *args, **kwargs):
        """Calls the function."""
        started = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.seconds.append(time.perf_counter() - started)
        return result


def main() -> None:
    """Runs one diagonalization, or some products, and writes the record."""
    arguments = parse()
    started = time.perf_counter()
    h1e, eri, ecore, norb, nelec = read_fcidump(arguments.fcidump)
    with open(arguments.alpha) as file:
        strings = np.unique(np.array([int(line, 2) for line in file.read().split()], dtype=np.int64))
    problem = (h1e, eri, norb, nelec, (strings, strings))
    record: dict = {"read_seconds": time.perf_counter() - started}
    record |= sample_sigma(problem) if arguments.mode == "sigma" else solve(problem, ecore, arguments)
    record |= {
        "options": vars(arguments),
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    with open(arguments.out, "w") as file:
        json.dump(record, file)


def parse() -> argparse.Namespace:
    """Returns the arguments of this runner."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fcidump", required=True)
    parser.add_argument("--alpha", required=True)
    parser.add_argument("--mode", choices=("sigma", "solve"), required=True)
    parser.add_argument("--tol", type=float, required=True)
    parser.add_argument("--subspace", type=int, required=True)
    parser.add_argument("--max-iterations", type=int, default=100)
    parser.add_argument("--addon", action="store_true", help="through qiskit_addon_sqd.fermion.solve_sci")
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def read_fcidump(path: str) -> tuple[np.ndarray, np.ndarray, float, int, tuple[int, int]]:
    """Returns h1e (norb, norb), eri (norb, norb, norb, norb), ecore, norb and nelec (alpha, beta)."""
    content = fcidump_tools.read(path, verbose=False)
    norb, electrons, unpaired = content["NORB"], content["NELEC"], content.get("MS2", 0)
    eri = ao2mo.restore(1, content["H2"], norb)
    nelec = ((electrons + unpaired) // 2, (electrons - unpaired) // 2)
    return content["H1"], eri, content["ECORE"], norb, nelec


def sample_sigma(problem) -> dict:
    """Returns the times of a few products with a random vector, and that of the link indices."""
    h1e, eri, norb, nelec, strings = problem
    make_links = Timed(selected_ci._all_linkstr_index)
    links = make_links(strings, norb, nelec)
    h2e = fci.direct_spin1.absorb_h1e(h1e, eri, norb, nelec, 0.5)
    vector = np.random.default_rng(1).standard_normal((len(strings[0]), len(strings[1])))
    vector /= np.linalg.norm(vector)
    contract = Timed(selected_ci.SelectedCI().contract_2e)
    while len(contract.seconds) < MAX_SAMPLES and sum(contract.seconds) < SAMPLE_SECONDS:
        contract(h2e, selected_ci._as_SCIvector(vector, strings), norb, nelec, links)
    return {"sigma_seconds": contract.seconds, "setup_seconds": sum(make_links.seconds), "start": "random vector"}


def solve(problem, ecore: float, arguments: argparse.Namespace) -> dict:
    """Returns times, energy and the true residual norm of a solve from the Hartree-Fock determinant."""
    h1e, eri, norb, nelec, strings = problem
    start = np.zeros((len(strings[0]), len(strings[1])))
    start[tuple(np.searchsorted(side, (1 << n) - 1) for side, n in zip(strings, nelec, strict=True))] = 1.0
    options = {
        "ci0": selected_ci._as_SCIvector(start, strings),
        # The residual decides, as with the other solvers: the test on the energy's change is made to pass.
        "tol": 1.0,
        "tol_residual": arguments.tol,
        "max_space": arguments.subspace,
        "max_cycle": arguments.max_iterations,
    }
    contract = Timed(selected_ci.contract_2e)
    links = Timed(selected_ci._all_linkstr_index)
    kernel = Timed(selected_ci.kernel_fixed_space)
    selected_ci.SelectedCI.contract_2e = lambda self, *args, **kwargs: contract(*args, **kwargs)
    selected_ci._all_linkstr_index = links
    selected_ci.kernel_fixed_space = kernel

    started = time.perf_counter()
    energy, vector = run_kernel(problem, options, arguments.addon)
    call_seconds = time.perf_counter() - started
    in_solve = list(contract.seconds)

    started = time.perf_counter()
    h2e = fci.direct_spin1.absorb_h1e(h1e, eri, norb, nelec, 0.5)
    residual = contract.function(h2e, selected_ci._as_SCIvector(vector, strings), norb, nelec) - energy * vector
    return {
        "sigma_seconds": in_solve,
        "n_sigma": len(in_solve),
        "setup_seconds": sum(links.seconds),
        "solve_seconds": sum(kernel.seconds),
        "call_seconds": call_seconds,
        "energy": energy + ecore,
        "residual_norm": float(np.linalg.norm(residual) / np.linalg.norm(vector)),
        # Not part of the solve; the caller takes it off the wall time.
        "verification_seconds": time.perf_counter() - started,
        "start": "Hartree-Fock determinant",
    }


def run_kernel(problem, options: dict, addon: bool) -> tuple[float, np.ndarray]:
    """Returns the electronic energy and the vector (n_alpha, n_beta), from PySCF or through qiskit-addon-sqd."""
    h1e, eri, norb, nelec, strings = problem
    if addon:
        from qiskit_addon_sqd.fermion import solve_sci

        result = solve_sci(strings, h1e, eri, norb, nelec, **options)
        return float(result.energy), np.asarray(result.sci_state.amplitudes)
    solver = selected_ci.SelectedCI()
    energy, vector = selected_ci.kernel_fixed_space(solver, h1e, eri, norb, nelec, strings, **options)
    return float(energy), np.asarray(vector)


if __name__ == "__main__":
    main()
