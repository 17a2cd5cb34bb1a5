"""Summaries of results: what is known when a solve or a loop has ended."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from sqd_mpi import resources
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
    return Summary(
        **_roots(result),
        **_space(problem.hamiltonian, problem.strings_a, problem.strings_b),
        **_course(result),
        all_converged=result.converged,
        proven=result.proven,
        sectors=_sectors(result.sectors_examined),
        sector_dimension=result.roots[0].layout.dimension,
        wall_seconds=perf_counter() - began,
        peak_rss_bytes=peak_rss_bytes,
        version=__version__,
        **_orbitals(densities),
        **_corrections(corrections),
    )


def _roots(result: Any) -> dict[str, Any]:
    """The roots, and which spin and symmetry were asked for and found."""
    roots, target = result.roots, result.spin_target
    symmetry = "n_labels", "tolerance", "max_dropped", "effect_bound"
    spin_target = target and {"spin": target.spin, "penalty": target.strength, "linear": target.linear}
    return {
        **{
            name: [getattr(root, name) for root in roots]
            for name in ("energy", "converged", "residual_norm", "spin_square", "spin_variance", "spin_pure", "sector")
        },
        "penalised_energy": target and [root.penalised_energy for root in roots],
        "spin_flip_parity": [root.parity or None for root in roots],
        "occupancies": [root.occupancies.tolist() for root in roots],
        "symmetry": {name: getattr(result.symmetry, name) for name in symmetry},
        "spin_target": spin_target,
    }


def _space(hamiltonian: Any, strings_a: Any, strings_b: Any) -> dict[str, Any]:
    """Sizes of what was diagonalised."""
    return {
        "dimension": len(strings_a) * len(strings_b),
        "n_alpha_strings": len(strings_a),
        "n_beta_strings": len(strings_b),
        "norb": hamiltonian.norb,
        "nelec": list(hamiltonian.nelec),
    }


def _course(result: Any) -> dict[str, Any]:
    """On what the solve ran, how long, and what it took."""
    _, mean, most = result.task_seconds
    same = (
        "backend", "device", "n_threads", "n_iterations", "n_sigma", "n_sigma_single", "sigma_seconds", "solve_seconds",
        "messages", "memory",
    )  # fmt: skip
    return {
        **{name: getattr(result, name) for name in same},
        "grid": list(result.grid.shape),
        "n_ranks": result.grid.n_ranks,
        "cpu_seconds": mean,
        "imbalance": most / max(mean, 1e-9),
    }


def _sectors(decisions: Any) -> dict[str, list[Any]]:
    """How every symmetry sector was decided: one entry per sector in every list."""
    return {
        "sector": [sector.label for sector in decisions],
        "spin_flip_parity": [sector.parity or None for sector in decisions],
        "twice_spin": [sector.twice_spin if sector.has_spin else None for sector in decisions],
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
    # What failed on the way.
    best, history = state.best, state.history
    failures = [
        f"iteration {iteration}, batch {batch}: {text}"
        for iteration, row in enumerate(history["failure"], 1)
        for batch, text in enumerate(row)
        if text
    ]

    # Of all iterations the best state counts.
    return Summary(
        energy=[best.energy],
        converged=[best.converged],
        residual_norm=[best.residual_norm],
        spin_square=[best.spin_square],
        spin_variance=[best.spin_variance],
        sector=[best.sector],
        occupancies=[best.occupancies.tolist()],
        all_converged=bool(state.converged and best.converged),
        proven=best.proven,
        **_space(hamiltonian, best.strings_a, best.strings_b),
        # The loop itself.
        n_ranks=n_ranks,
        n_threads=best.n_threads,
        wall_seconds=perf_counter() - began,
        peak_rss_bytes=resources.peak_rss_bytes(),
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
