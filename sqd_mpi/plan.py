"""The plan of an input file: what `python -m sqd_mpi plan` prints. Needs no MPI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqd_mpi.machine import MachineProfile, read_profile
from sqd_mpi.options import InputError, SolveOptions, available_cores, available_memory
from sqd_mpi.planner.report import plan_text
from sqd_mpi.planner.search import Plan

_MOST_RANKS = 10**6


def plan_file(
    input_path: str | Path, n_ranks: str | int, profile_path: str | Path | None, given: dict[str, Any]
) -> tuple[Plan, str]:
    """The plan of a number of ranks for an input file, and a title.

    Args:
        input_path: input file.
        n_ranks: number of ranks.
        profile_path: machine profile, or None for the built-in one.
        given: options of the command line; they override those in the file.

    Raises:
        InputError: a file or an option does not fit.
    """
    from sqd_mpi import files

    ranks = _number_of_ranks(n_ranks)
    profile = MachineProfile() if profile_path is None else read_profile(profile_path)
    problem_file = files.read_input(input_path)
    options = SolveOptions(**{**problem_file.options, **given})
    n_threads = options.threads if isinstance(options.threads, int) else 1

    from sqd_mpi import _jit

    _jit.set_threads(min(available_cores(), 4))  # of this process, not of the run

    from sqd_mpi import planner
    from sqd_mpi.davidson import subspace_sizes

    per_node = profile.ranks_per_node or max(1, available_cores() // n_threads)
    memory = options.memory or int(available_memory() / min(ranks, per_node))
    problem = planner.Problem.create(
        problem_file.hamiltonian, problem_file.strings_a, problem_file.strings_b, options.symmetry == "auto",
        options.spin_flip == "auto", options.string_order != "sorted",
    )  # fmt: skip
    limits = planner.Limits(memory, *subspace_sizes(options.nroots, options.max_subspace))
    numbers = tuple(sorted({*planner.RANKS, ranks}))
    profile = profile.model_copy(update={"ranks_per_node": per_node})
    found = planner.make_plan(problem, ranks, profile, n_threads, limits, numbers)
    title = (
        f"{Path(input_path).name}: {problem.alpha.size} x {problem.beta.size} strings, {ranks} ranks x {n_threads} "
        f"threads, {memory / 1e9:.3g} GB per rank; {profile.name}"
    )
    return found, title


def _number_of_ranks(text: str | int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= _MOST_RANKS:
        raise InputError(f"--ranks needs a positive integer up to {_MOST_RANKS}; got {text!r}")
    return number


__all__ = ["plan_file", "plan_text"]
