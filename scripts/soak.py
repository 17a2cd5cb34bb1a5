"""Random problems against dense diagonalisation, and many solves in one process for leaks.

    python scripts/soak.py [--problems 300] [--repeats 200] [--seed 1]
    mpirun -n 3 python scripts/soak.py

Every problem has random sizes, strings, electrons, symmetry, roots, grid and backend; it depends on the seed and its
number alone. Then one problem is solved --repeats times: memory, open files and communicators must not grow.
Collective over all ranks. Exit code 1 if an energy is off by more than 1e-9 hartree or something leaks.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

TOLERANCE = 1e-9  # hartree
MOST_GROWTH = 8 * 2**20  # bytes over all repeats after the first tenth
BACKENDS = ("cpu", "cpu", "reference")


def shapes(n_ranks: int) -> list[tuple[int, int, int, int]]:
    """All grids."""
    divisors = [n for n in range(1, n_ranks + 1) if n_ranks % n == 0]
    return [
        (a, b, t, n_ranks // (a * b * t))
        for a in divisors for b in divisors for t in divisors if n_ranks % (a * b * t) == 0
    ]  # fmt: skip


def draw(seed: int, number: int, n_ranks: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Hamiltonian, strings and options of a problem."""
    from tests.problems import make_hamiltonian, random_strings

    rng = np.random.default_rng([seed, number])
    norb = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 65]))
    n_electrons = [int(rng.integers(0, min(norb, 5) + 1)) for _ in range(2)]
    labels = rng.integers(0, rng.choice([1, 2, 4]), norb) if rng.random() < 0.5 and norb < 65 else None
    hamiltonian = make_hamiltonian(norb, (n_electrons[0], n_electrons[1]), int(rng.integers(2**31)), labels)
    from math import comb

    sizes = [min(comb(norb, n), int(rng.integers(1, 21))) for n in n_electrons]
    strings = [random_strings(norb, n, k, int(rng.integers(99))) for n, k in zip(n_electrons, sizes, strict=True)]
    if n_electrons[0] == n_electrons[1] and rng.random() < 0.6:
        strings[1] = strings[0]
    options: dict[str, Any] = {
        "nroots": int(min(rng.integers(1, 5), len(strings[0]) * len(strings[1]))),
        "tol": 1e-7,
        "backend": str(rng.choice(BACKENDS)),
        "symmetry": str(rng.choice(["auto", "off"])),
        "spin_flip": str(rng.choice(["auto", "off"])),
        "string_order": str(rng.choice(["auto", "sorted"])),
        "model_space": int(rng.choice([2, 20, 300])),
        "max_iterations": 500,
        "grid": shapes(n_ranks)[int(rng.integers(len(shapes(n_ranks))))],
    }
    return hamiltonian, strings[0], strings[1], options


def solve_all(comm: Any, n_problems: int, seed: int) -> int:
    """Number of problems whose energies are wrong."""
    from sqd_mpi import SolveOptions, solve_subspace
    from tests.problems import dense_matrix

    rank, n_ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    wrong, largest = 0, 0.0
    for number in range(n_problems):
        hamiltonian, strings_a, strings_b, options = draw(seed, number, n_ranks)
        result = solve_subspace(comm, hamiltonian, strings_a, strings_b, SolveOptions(**options))
        if rank == 0:
            exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, strings_a, strings_b))[: options["nroots"]]
            error = float(abs(result.energies - exact).max())
            largest = max(largest, error)
            if error > TOLERANCE or not result.converged:
                wrong += 1
                print(f"problem {number}: {error:.1e} hartree off, converged {result.converged}, {options}", flush=True)
        result.grid.free()
    if rank == 0:
        print(f"seed {seed}: {n_problems} problems on {n_ranks} ranks, {wrong} wrong, largest error {largest:.1e}")
    return wrong


def leaks(comm: Any, n_repeats: int) -> int:
    """Whether something grows from solve to solve."""
    from sqd_mpi import SolveOptions, solve_subspace
    from tests.problems import close_strings, make_hamiltonian

    rank, n_ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 60)
    process = psutil.Process(os.getpid())
    samples = []
    for number in range(n_repeats):
        shape = shapes(n_ranks)[number % len(shapes(n_ranks))]
        result = solve_subspace(comm, hamiltonian, strings, strings, SolveOptions(model_space=10, grid=shape))
        result.grid.free()
        del result
        if number >= n_repeats // 10:
            gc.collect()
            samples.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
    first, last = np.array(samples[: max(1, len(samples) // 5)]), np.array(samples[-max(1, len(samples) // 5) :])
    growth = last.min(axis=0) - first.max(axis=0)  # a leak lifts even the lowest
    bad = growth[0] > MOST_GROWTH or growth[1] > 0 or growth[2] > 0
    if rank == 0 or bad:
        print(
            f"[rank {rank}] {n_repeats} solves: memory {growth[0] / 2**20:+.1f} MiB, files {growth[1]:+d}, threads "
            f"{growth[2]:+d}" + (": LEAK" if bad else "")
        )
    return int(bad)


def main() -> int:
    """Both parts; a communicator that leaks runs out after 2,000 and so ends a long soak by an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    from sqd_mpi import _jit, grid

    _jit.set_threads(1)
    comm = grid.world()
    wrong = solve_all(comm, arguments.problems, arguments.seed)
    wrong += leaks(comm, arguments.repeats)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
