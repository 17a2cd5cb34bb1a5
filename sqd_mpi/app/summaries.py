"""Summaries of results: what is known when a solve or a loop has ended."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from sqd_mpi._version import __version__
from sqd_mpi.files.summary import Summary


def of_solve(
    result: Any, problem: Any, began: float, peak_rss_bytes: int, densities: list[Any], corrections: list[Any]
) -> Summary:
    """The summary of one solve.

    Args:
        result: what `solve_subspace` returned.
        problem: Hamiltonian and strings.
        began: when the program was started, seconds of `perf_counter`.
        peak_rss_bytes: largest peak memory of a rank.
        densities: density matrices of all roots, or nothing.
        corrections: second-order corrections of all roots, or nothing.
    """
    roots, target, seconds = result.roots, result.spin_target, result.task_seconds
    return Summary(
        energy=[root.energy for root in roots],
        penalised_energy=None if target is None else [root.penalised_energy for root in roots],
        converged=[root.converged for root in roots],
        residual_norm=[root.residual_norm for root in roots],
        spin_square=[root.spin_square for root in roots],
        spin_pure=[root.spin_pure for root in roots],
        sector=[root.sector for root in roots],
        spin_flip_parity=[root.parity or None for root in roots],
        occupancies=[root.occupancies.tolist() for root in roots],
        all_converged=result.converged,
        proven=result.proven,
        sectors=_sectors(result.sectors_examined),
        dimension=len(problem.strings_a) * len(problem.strings_b),
        sector_dimension=roots[0].layout.dimension,
        n_alpha_strings=len(problem.strings_a),
        n_beta_strings=len(problem.strings_b),
        norb=problem.hamiltonian.norb,
        nelec=list(problem.hamiltonian.nelec),
        grid=list(result.grid.shape),
        backend=result.backend,
        device=result.device,
        n_ranks=result.grid.n_ranks,
        n_threads=result.n_threads,
        n_iterations=result.n_iterations,
        n_sigma=result.n_sigma,
        sigma_seconds=result.sigma_seconds,
        solve_seconds=result.solve_seconds,
        wall_seconds=perf_counter() - began,
        cpu_seconds=seconds[1],
        imbalance=seconds[2] / max(seconds[1], 1e-9),
        messages=result.messages,
        peak_rss_bytes=peak_rss_bytes,
        symmetry={
            name: getattr(result.symmetry, name) for name in ("n_labels", "tolerance", "max_dropped", "effect_bound")
        },
        spin_target=None
        if target is None
        else {"spin": target.spin, "penalty": target.strength, "linear": target.linear},
        memory=result.memory,
        version=__version__,
        **_orbitals(densities),
        **_corrections(corrections),
    )


def _sectors(decisions: Any) -> dict[str, list[Any]]:
    """How every symmetry sector was decided: one entry per sector in every list."""
    return {
        "sector": [label for label, _ in decisions],
        "spin_flip_parity": [parity or None for _, parity in decisions],
        "energy": [found.energy for found in decisions.values()],
        "n_found": [found.n_found for found in decisions.values()],
        "how": [found.how for found in decisions.values()],
        "proven": [found.proven for found in decisions.values()],
    }


def _orbitals(densities: list[Any]) -> dict[str, Any]:
    """What the density matrices of the roots say about orbitals."""
    if not densities:
        return {}
    from sqd_mpi.solver.density_matrices import natural_occupations, orbital_entropies

    summary = {"natural_occupations": [natural_occupations(found.rdm1).tolist() for found in densities]}
    if densities[0].two_ab is not None:
        summary["orbital_entropies"] = [orbital_entropies(found).tolist() for found in densities]
    return summary


def _corrections(corrections: list[Any]) -> dict[str, Any]:
    """The second-order corrections of the roots as fields."""
    if not corrections:
        return {}
    return {
        "energy_pt2": [found.energy for found in corrections],
        "variance": [found.variance for found in corrections],
        "pt2_gap": [found.smallest_gap if np.isfinite(found.smallest_gap) else None for found in corrections],
    }


def of_loop(hamiltonian: Any, samples: Any, state: Any, began: float, n_ranks: int) -> Summary:
    """The summary of a loop, on rank 0.

    Args:
        hamiltonian: what was diagonalised.
        samples: those that the loop began with.
        state: of the loop at its end.
        began: when the program was started, seconds of `perf_counter`.
        n_ranks: number of ranks.
    """
    from sqd_mpi.resources import peak_rss_bytes

    best = state.best
    failures = [
        f"iteration {iteration}, batch {batch}: {text}"
        for iteration, row in enumerate(state.history["failure"], 1)
        for batch, text in enumerate(row)
        if text
    ]
    return Summary(
        energy=[best.energy],
        converged=[best.converged],
        residual_norm=[best.residual_norm],
        spin_square=[best.spin_square],
        sector=[best.sector],
        occupancies=[best.occupancies.tolist()],
        all_converged=bool(state.converged and best.converged),
        proven=best.proven,
        dimension=best.dimension,
        n_alpha_strings=len(best.strings_a),
        n_beta_strings=len(best.strings_b),
        norb=hamiltonian.norb,
        nelec=list(hamiltonian.nelec),
        n_ranks=n_ranks,
        n_threads=best.n_threads,
        wall_seconds=perf_counter() - began,
        peak_rss_bytes=peak_rss_bytes(),
        version=__version__,
        loop_converged=state.converged,
        loop_iterations=state.iteration,
        failed_batches=failures or None,
        samples=_count(samples, hamiltonian.nelec),
    )


def _count(samples: Any, nelec: tuple[int, int]) -> dict[str, Any]:
    """How many different samples there are, and how many, with which share, need no recovery."""
    from sqd_mpi.problem import bitstrings

    right = (bitstrings.counts(samples.alpha) == nelec[0]) & (bitstrings.counts(samples.beta) == nelec[1])
    return {
        "different": len(samples),
        "right_electrons": int(right.sum()),
        "right_share": float(samples.probabilities[right].sum()),
    }
