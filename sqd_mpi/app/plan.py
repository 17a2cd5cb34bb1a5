"""The plan of an input file: what `python -m sqd_mpi plan` prints. Needs no MPI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError, input_warnings_to
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions, parse_size
from sqd_mpi.planner.profile import MachineProfile, read_profile
from sqd_mpi.planner.search import Plan
from sqd_mpi.planner.text import nothing_fits, plan_text
from sqd_mpi.resources import available_cores, available_memory

_MOST_RANKS = 10**6
_MOST_THREADS = 4


def plan_file(
    input_path: str | Path, n_ranks: str | int, profile_path: str | Path | None, given: dict[str, Any],
    device_memory: str | int | None = None,
) -> tuple[Plan, str]:  # fmt: skip
    """The plan of a number of ranks for an input file, and a title.

    Args:
        input_path: input file.
        n_ranks: number of ranks.
        profile_path: machine profile, or None for the built-in one.
        given: options of the command line; they override those in the file.
        device_memory: of a GPU, for the backend gpu; by default that of the profile.

    Raises:
        InputError: a file or an option does not fit.
    """
    from sqd_mpi.files import records

    # What is asked.
    ranks = _number_of_ranks(n_ranks)
    profile = None if profile_path is None else read_profile(profile_path)
    with input_warnings_to(Log().warning):
        problem_file = records.read_input(input_path)
    options = SolveOptions(**{**problem_file.options, **given})
    profile = _profile(options.backend, profile, str(profile_path))
    device_bytes = _device_bytes(device_memory, profile)
    n_threads = options.threads if isinstance(options.threads, int) else 1

    from sqd_mpi.solver import startup

    alone = Ranks()
    startup.set_up(alone, min(startup.choose(alone).number, _MOST_THREADS))  # of this process, not of the run

    from sqd_mpi import planner
    from sqd_mpi.solver.davidson import subspace_sizes

    # The problem, and what a rank may take.
    per_node = profile.ranks_per_node or max(1, available_cores() // n_threads)
    memory = options.memory or int(available_memory() / min(ranks, per_node))
    problem = planner.Problem.create(
        problem_file.hamiltonian, problem_file.strings_a, problem_file.strings_b, options.symmetry == "auto",
        options.spin_flip == "auto", options.string_order != "sorted",
        options.takes_single_precision(len(problem_file.strings_a) * len(problem_file.strings_b)),
    )  # fmt: skip
    rdm_order = 0 if options.rdm == "none" else int(options.rdm)
    sizes = subspace_sizes(options.nroots, options.max_subspace)
    limits = planner.MemoryLimits(memory, *sizes, device_bytes, options.nroots, rdm_order)

    # Plans for this number of ranks and for the usual ones.
    numbers = tuple(sorted({*planner.RANKS, ranks}))
    profile = profile.model_copy(update={"ranks_per_node": per_node})
    found = planner.make_plan(problem, ranks, profile, n_threads, limits, numbers)
    on_device = f", {device_bytes / 1e9:.3g} GB of a GPU" if device_bytes is not None else ""
    single = ", single precision" if problem.single and profile.backend == "cpu" else ""
    title = (
        f"{Path(input_path).name}: {problem.alpha.size} x {problem.beta.size} strings, {ranks} ranks x {n_threads} "
        f"threads, {memory / 1e9:.3g} GB per rank{on_device}{single}; {profile.name}"
    )
    return found, title


def _profile(backend: str, profile: MachineProfile | None, path: str) -> MachineProfile:
    """The profile for a backend: a given one, else what is built in."""
    from sqd_mpi import planner

    if profile is None:
        return planner.assumed_device() if backend == "gpu" else MachineProfile()
    if backend == "gpu" and profile.backend != "gpu":
        raise InputError(f"--backend gpu needs the profile of a GPU; {path} is one of the backend {profile.backend}")
    if backend not in ("auto", profile.backend):
        raise InputError(f"{path} is the profile of a GPU; --backend {backend} needs one of the backend cpu")
    return profile


def _device_bytes(text: str | int | None, profile: MachineProfile) -> int | None:
    """Memory of a GPU, or None without one."""
    if profile.backend != "gpu":
        if text is not None:
            raise InputError("--device-memory needs --backend gpu or the profile of a GPU")
        return None
    try:
        device_bytes = profile.device_bytes if text is None else parse_size(text)
    except InputError as error:
        raise InputError(f"--device-memory: {error}") from None
    if device_bytes is None:
        raise InputError("this profile does not say what memory its GPU has; --device-memory SIZE does")
    return device_bytes


def _number_of_ranks(text: str | int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= _MOST_RANKS:
        raise InputError(f"--ranks needs a positive integer up to {_MOST_RANKS}; got {text!r}")
    return number


__all__ = ["nothing_fits", "plan_file", "plan_text"]
