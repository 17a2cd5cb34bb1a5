"""Random problems: against dense matrices, on every grid against one process, stopped and resumed; and leaks.

    python scripts/soak.py [--parts dense grids restarts leaks] [--problems 300] [--repeats 200] [--seed 1]
    mpirun -n 3 python scripts/soak.py

Every problem has random sizes, strings, electrons, symmetry, roots, spin target, grid and backend; it depends on the
seed and its number alone. Collective over all ranks. Exit code 1 if one of these does not hold:

* dense: energies equal those of the dense matrix to 1e-9 hartree;
* grids: a random grid of all ranks gives what one process gives: energies to 1e-8, density matrices and second-order
  corrections to 1e-5, where states are not degenerate;
* restarts: a solve that is stopped in a random iteration and taken up again on another grid, or with and without the
  spin flip, by all ranks or by some of them, begins with the residual norm at which it was stopped (within 2 %; with
  another use of the spin flip not over 10 % worse, where it was below 0.1) and ends with the right energies;
* leaks: memory, open files and communicators do not grow over --repeats solves.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

EXACT = 1e-9  # hartree
SAME_ENERGY, SAME_MATRICES = 1e-8, 1e-5
NOT_DEGENERATE = 1e-3  # hartree to the neighbours of a state whose vector is compared
DEGENERATE = 1e-7  # hartree
HARDLY_BEGUN, CONVERGED = 0.1, 1e-7  # residual norms, hartree
SAME_RESIDUAL, NEARLY_THE_SAME = 0.02, 0.1
MOST_GROWTH = 8 * 2**20  # bytes over all repeats after the first tenth
BACKENDS = ("cpu", "cpu", "reference")
PARTS = ("dense", "grids", "restarts", "leaks")


@dataclass(frozen=True)
class Problem:
    """One space, with options."""

    hamiltonian: Any
    strings: tuple[Any, Any]
    options: dict[str, Any]

    def solve(self, comm: Any, hook: Any = None, **options: Any) -> Any:
        """Solve it on all ranks of a communicator, or on this rank alone."""
        from sqd_mpi import SolveOptions, solve_subspace

        return solve_subspace(
            comm, self.hamiltonian, *self.strings, SolveOptions(**{**self.options, **options}), hook=hook
        )


def shapes(n_ranks: int, square: bool = False) -> list[tuple[int, int, int, int]]:
    """All grids, or those with a = b."""
    divisors = [n for n in range(1, n_ranks + 1) if n_ranks % n == 0]
    return [
        (a, b, t, n_ranks // (a * b * t))
        for a in divisors for b in divisors for t in divisors if n_ranks % (a * b * t) == 0 and (a == b or not square)
    ]  # fmt: skip


def draw(seed: int, number: int, spins: bool = False) -> Problem:
    """A problem; with `spins` also spin targets and spin-dependent integrals."""
    from tests.support.problems import close_strings, make_hamiltonian, random_strings, spin_dependent

    rng = np.random.default_rng([seed, number])
    norb = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 65]))
    nelec = int(rng.integers(0, min(norb, 5) + 1)), int(rng.integers(0, min(norb, 5) + 1))
    if rng.random() < 0.3:
        nelec = nelec[0], nelec[0]
    labels = rng.integers(0, rng.choice([1, 2, 4]), norb) if rng.random() < 0.5 and norb < 65 else None
    two_spins = spins and norb < 65 and rng.random() < 0.2
    make = spin_dependent if two_spins else make_hamiltonian
    hamiltonian = make(norb, nelec, int(rng.integers(2**31)), labels)
    sizes = [min(comb(norb, n), int(rng.integers(1, 21))) for n in nelec]
    strings = [random_strings(norb, n, k, int(rng.integers(99))) for n, k in zip(nelec, sizes, strict=True)]
    if rng.random() < 0.3 and 1 < nelec[0] < norb < 65:
        strings[0] = close_strings(norb, nelec[0], min(sizes[0], norb), int(rng.integers(99)))
    if nelec[0] == nelec[1] and rng.random() < 0.6:
        strings[1] = strings[0]
    options: dict[str, Any] = {
        "nroots": int(min(rng.integers(1, 5), len(strings[0]) * len(strings[1]))),
        "tol": 1e-7,
        "backend": str(rng.choice(BACKENDS)),
        "symmetry": str(rng.choice(["auto", "off"])),
        "spin_flip": str(rng.choice(["auto", "off"])),
        "string_order": str(rng.choice(["auto", "sorted", "dealt"])),
        "model_space": int(rng.choice([2, 20, 300])),
        "max_iterations": 1000,
    }
    if spins and rng.random() < 0.4:
        spin = abs(nelec[0] - nelec[1]) / 2 + int(rng.choice([0, 0, 1]))
        options |= {"spin_square": spin * (spin + 1), "spin_check": "off", "nroots": 1}
    return Problem(hamiltonian, (strings[0], strings[1]), options)


def ranks_of(comm: Any) -> tuple[int, int]:
    """This rank and the number of ranks."""
    return (0, 1) if comm is None else (comm.rank, comm.size)


def from_rank_0(comm: Any, value: Any) -> Any:
    """The value of rank 0, on all ranks."""
    return value if comm is None else comm.bcast(value)


def against_dense(comm: Any, n_problems: int, seed: int) -> int:
    """Number of problems whose energies are not those of the dense matrix."""
    from tests.support.problems import dense_matrix

    rank, n_ranks = ranks_of(comm)
    wrong, largest = 0, 0.0
    for number in range(n_problems):
        problem = draw(seed, number)
        grid = shapes(n_ranks)[np.random.default_rng([seed, number, 1]).integers(len(shapes(n_ranks)))]
        result = problem.solve(comm, grid=grid)
        if rank == 0:
            nroots = problem.options["nroots"]
            exact = np.linalg.eigvalsh(dense_matrix(problem.hamiltonian, *problem.strings))[:nroots]
            error = float(abs(result.energies - exact).max())
            largest = max(largest, error)
            if error > EXACT or not result.converged or not result.proven:
                wrong += 1
                print(
                    f"problem {number}: {error:.1e} hartree off, converged {result.converged}, proven {result.proven}, "
                    f"grid {grid}, {problem.options}", flush=True,
                )  # fmt: skip
        result.grid.free()
    if rank == 0:
        print(f"dense, seed {seed}: {n_problems} problems on {n_ranks} ranks, {wrong} wrong, at most {largest:.0e} off")
    return wrong


def findings(problem: Problem, result: Any) -> dict[str, Any]:
    """What of a result must not depend on the grid; on every rank."""
    from sqd_mpi.solver import density_matrices, pt2

    matrices = density_matrices.of_all_roots(result, 1)
    pt2_known = not problem.hamiltonian.spin_dependent and problem.hamiltonian.norb < 65
    return {
        "converged": result.converged,
        # The penalty on a state of another spin than was asked for may have either form.
        "penalised": [root.penalised_energy or 0.0 if root.converged else 0.0 for root in result.roots],
        "energies": result.energies,
        "spin_square": [root.spin_square if root.spin_square is not None else 0.0 for root in result.roots],
        "matrices": [np.stack([each.alpha, each.beta]) for each in matrices] if matrices else [],
        "second order": [each.energy for each in pt2.of_all_roots(result, problem.hamiltonian)] if pt2_known else [],
    }


def differences(alone: dict[str, Any], together: dict[str, Any], apart: Any) -> list[str]:
    """What differs between one process and all ranks; vectors where `apart` says that states are not degenerate."""
    found = []
    if alone["converged"] != together["converged"]:
        found.append(f"converged {alone['converged']} and {together['converged']}")
    for name, limit, everywhere in (
        ("penalised", SAME_ENERGY, True), ("energies", SAME_ENERGY, True), ("spin_square", SAME_MATRICES, False),
        ("matrices", SAME_MATRICES, False), ("second order", SAME_MATRICES, False),
    ):  # fmt: skip
        for k, (one, other) in enumerate(zip(alone[name], together[name], strict=True)):
            error = float(np.max(abs(np.asarray(one) - other)))
            if error > limit and (everywhere or apart[k]):
                found.append(f"{name} of root {k} by {error:.1e}")
    return found


def on_grids(comm: Any, n_problems: int, seed: int) -> int:
    """Number of problems of which a random grid gives something else than one process."""
    rank, n_ranks = ranks_of(comm)
    wrong = 0
    for number in range(n_problems):
        problem = draw(seed, number, spins=True)
        random = np.random.default_rng([seed, number, 1])
        grid = shapes(n_ranks)[random.integers(len(shapes(n_ranks)))]
        flip = str(random.choice(["auto", "off"]))
        alone, apart = None, np.zeros(0, bool)
        if rank == 0:
            result = problem.solve(None, tol=1e-9)
            alone, apart = findings(problem, result), not_degenerate(problem)
        alone, apart = from_rank_0(comm, (alone, apart))
        result = problem.solve(comm, tol=1e-9, grid=grid, spin_flip=flip)
        together = findings(problem, result)
        result.grid.free()
        found = differences(alone, together, apart) if rank == 0 else []
        if found:
            wrong += 1
            print(f"problem {number}, grid {grid}, spin flip {flip}: {', '.join(found)}; {problem.options}", flush=True)
    if rank == 0:
        print(f"grids, seed {seed}: {n_problems} problems on {n_ranks} ranks, {wrong} differ")
    return wrong


def not_degenerate(problem: Problem) -> Any:
    """(nroots,) which states lie apart from all others."""
    nroots, dimension = problem.options["nroots"], len(problem.strings[0]) * len(problem.strings[1])
    result = problem.solve(None, nroots=min(nroots + 1, dimension), tol=1e-7)
    energies = np.array([root.penalised_energy or root.energy for root in result.roots])
    return np.array([np.sum(abs(energies - each) < NOT_DEGENERATE) == 1 for each in energies[:nroots]])


def restarts(comm: Any, n_problems: int, seed: int) -> int:
    """Number of problems that do not go on where they were stopped."""
    from tests.support.problems import dense_matrix

    rank, n_ranks = ranks_of(comm)
    wrong, n_stopped = 0, 0
    number = 0
    while n_stopped < n_problems:
        problem = draw(seed, number)
        number += 1
        random = np.random.default_rng([seed, number, 2])
        with tempfile.TemporaryDirectory() as mine:
            complaint = one_restart(comm, problem, Path(from_rank_0(comm, mine)), random)
            if comm is not None:
                comm.Barrier()
        if complaint is None:
            continue
        n_stopped += 1
        if rank == 0:
            nroots = problem.options["nroots"]
            exact = np.linalg.eigvalsh(dense_matrix(problem.hamiltonian, *problem.strings))[:nroots]
            error = float(abs(complaint[1] - exact).max())
            if complaint[0] or error > EXACT:
                wrong += 1
                print(f"problem {number - 1}: {complaint[0]}, {error:.1e} hartree off; {problem.options}", flush=True)
    if rank == 0:
        print(f"restarts, seed {seed}: {n_stopped} problems on {n_ranks} ranks, {wrong} wrong")
    return wrong


def one_restart(comm: Any, problem: Problem, folder: Path, random: Any) -> tuple[str, Any] | None:
    """Stop a solve, go on elsewhere: what is wrong with its start, and its energies; None if it had ended before."""
    from sqd_mpi.app.checkpoints import Checkpoints
    from sqd_mpi.distribution.ranks import ranks_of as as_ranks
    from sqd_mpi.files import records
    from sqd_mpi.log import Log

    _, n_ranks = ranks_of(comm)
    flips = [str(random.choice(["auto", "off"])) for _ in range(2)]
    grids = [shapes(n_ranks)[random.integers(len(shapes(n_ranks)))] for _ in range(2)]
    some = int(random.integers(1, n_ranks + 1))  # ranks that go on
    grids[1] = shapes(some)[random.integers(len(shapes(some)))]
    stop_at = int(random.integers(1, 25))
    known = records.Problem(problem.hamiltonian, *problem.strings, {}, (0, 0))
    fingerprint = records.fingerprint(problem.hamiltonian, *problem.strings)
    writer = Checkpoints(as_ranks(comm), folder / "result.h5", known, fingerprint, Log.silent())
    last: dict[str, Any] = {}

    def stop(progress: Any) -> bool:
        if progress.iteration < stop_at:
            return False
        layout = progress.layout
        last.update(sector=layout.sector, parity=layout.parity, norms=progress.step.residual_norms.copy())
        last.update(energies=progress.step.energies.copy())
        assert writer.write(progress) is None
        return True

    stopped = problem.solve(comm, hook=stop, grid=grids[0], spin_flip=flips[0])
    stopped.grid.free()
    if not stopped.stopped:
        return None
    group = None if comm is None else comm.Split(0 if comm.rank < some else 1)
    outcome = None
    if comm is None or comm.rank < some:
        again = problem.solve(group, grid=grids[1], spin_flip=flips[1], resume=True, start=writer.newest)
        complaint = ""
        same_sectors = (last["sector"], last["parity"]) in again.sectors_examined
        if not same_sectors:  # what had hardly begun is changed by the projection on a parity
            begun = last["norms"] < HARDLY_BEGUN
            last |= {name: last[name][begun] for name in ("norms", "energies")}
        norms = first_residuals(again, last, stop_at)
        if norms is not None and not same_residuals(norms, last, exactly=same_sectors):
            complaint = f"stopped at residuals {last['norms']}, began with {norms}, grids {grids}, flips {flips}"
        if not again.converged or not again.proven:
            complaint += f" converged {again.converged}, proven {again.proven}"
        outcome = complaint, again.energies
        again.grid.free()
    if group is not None:
        group.Free()
    return from_rank_0(comm, outcome)


def same_residuals(norms: Any, last: dict[str, Any], exactly: bool) -> bool:
    """Whether iterations go on with the residual norms that they had; those of degenerate roots together.

    Where the spin flip is used by one solve only, vectors are projected on a parity, or roots of both parities stand
    beside each other: then they may only not be worse, in all, since degenerate roots may be turned among themselves.
    """
    before = last["norms"]
    if exactly:
        level = np.cumsum(np.diff(last["energies"], prepend=-np.inf) > DEGENERATE)
        after, at_last = (np.sqrt(np.bincount(level, each**2)) for each in (norms, before))
        return bool(np.allclose(after, at_last, rtol=SAME_RESIDUAL, atol=1e-12))
    return bool(np.linalg.norm(norms) <= (1.0 + NEARLY_THE_SAME) * np.linalg.norm(before) + CONVERGED)


def first_residuals(result: Any, last: dict[str, Any], stop_at: int) -> Any:
    """Residual norms in the first iteration after a restart of the roots that were followed when it was stopped.

    None where they are not followed any more: the last iteration had decided their sector, or all had converged.
    """
    history, count = result.history, len(last["norms"])
    if len(history["sector"]) <= stop_at:
        return None
    if (last["sector"], last["parity"]) in result.sectors_examined:
        norms = history["residual_norm"][stop_at]
        norms = norms[np.isfinite(norms)]
        here = (history["sector"][stop_at], history["parity"][stop_at])
        return norms if here == (last["sector"], last["parity"]) and len(norms) == count else None
    # With other sectors the same roots stand among others, in one or both of the parities, some from later on.
    keys = np.column_stack([history["sector"], history["parity"]])[stop_at:]
    seen = []
    for key in np.unique(keys[keys[:, 0] == last["sector"]], axis=0):
        rows = stop_at + np.flatnonzero((keys == key).all(axis=1))
        for energies, norms in zip(history["energy"][rows].T, history["residual_norm"][rows].T, strict=True):
            first = np.flatnonzero(np.isfinite(energies))[:1]
            seen.extend(zip(energies[first], norms[first], strict=True))
    if len(seen) < count:
        return None
    from scipy.optimize import linear_sum_assignment

    energies, norms = np.array(seen).reshape(-1, 2).T
    return norms[linear_sum_assignment(abs(last["energies"][:, None] - energies[None, :]))[1]]


def leaks(comm: Any, n_repeats: int) -> int:
    """Whether something grows from solve to solve."""
    from sqd_mpi import SolveOptions, solve_subspace
    from tests.support.problems import close_strings, make_hamiltonian

    rank, n_ranks = ranks_of(comm)
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
    """All parts; a communicator that leaks runs out after 2,000 and so ends a long soak by an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    from sqd_mpi import _jit, world

    _jit.set_threads(1)
    comm = world()
    wrong = 0
    for name, part in (("dense", against_dense), ("grids", on_grids), ("restarts", restarts)):
        if name in arguments.parts:
            wrong += part(comm, arguments.problems, arguments.seed)
    if "leaks" in arguments.parts:
        wrong += leaks(comm, arguments.repeats)
    return int(from_rank_0(comm, wrong) > 0)


if __name__ == "__main__":
    sys.exit(main())
