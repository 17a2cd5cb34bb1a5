"""How many threads a rank takes, and whether the compiler of its kernels can work with this environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sqd_mpi import _jit
from sqd_mpi.distribution import grid
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.resources import available_cores

_PROCESSOR = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
# What numba does with the two when it compiles; LLVM ends the process over some values.
_TRY_PROCESSOR = """
import os, llvmlite.binding as llvm
for start in ("initialize", "initialize_native_target", "initialize_native_asmprinter"):
    try:
        getattr(llvm, start)()
    except RuntimeError:
        pass  # newer versions start by themselves
llvm.Target.from_default_triple().create_target_machine(
    cpu=os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name(), features=os.environ.get("NUMBA_CPU_FEATURES", ""))
"""


@dataclass(frozen=True)
class Threads:
    """How many threads this rank takes, and why."""

    number: int
    """Threads."""
    variable: str = ""
    """The environment variable that says so, or nothing."""
    warnings: Sequence[str] = ()
    """What the user should know."""

    @property
    def origin(self) -> str:
        """Words for the log behind the number: the variable it comes from."""
        return f" ({self.variable})" if self.variable else ""


def choose(comm: Any, wanted: int | Literal["auto"] = "auto") -> Threads:
    """How many threads this rank takes. Collective over the communicator.

    What is wanted goes first, then NUMBA_NUM_THREADS, then OMP_NUM_THREADS; else the cores of the node are divided
    among its ranks, and none takes more than its own.

    Args:
        comm: communicator, or None.
        wanted: threads of a rank, or "auto".
    """
    own, (n_cores, n_local) = available_cores(), grid.cores_of_node(comm)
    if wanted != "auto":
        too_many = [f"--threads {wanted} is more than the {own} cores of this rank"] if wanted > own else []
        return Threads(wanted, "", too_many)
    said = _jit.threads_of_environment(own)
    if said.number is not None:
        return Threads(said.number, said.variable, said.warnings)
    return Threads(max(1, min(own, n_cores // n_local)), "", said.warnings)


def set_up(comm: Any, wanted: int | Literal["auto"] = "auto", log: Log | None = None) -> Threads:
    """Fix the number of threads of this rank. Collective over the communicator.

    Args:
        comm: communicator, or None.
        wanted: threads of a rank, or "auto".
        log: where warnings go; by default those of Python, on the first rank.

    Raises:
        InputError: numba cannot compile or start threads in this environment; the same on all ranks.
    """
    grid.from_rank_0(comm, check_processor)
    chosen, trouble = choose(comm, wanted), None
    try:
        _jit.set_threads(chosen.number)
    except InputError as error:
        trouble = error.typed
    grid.agree_on_error(comm, trouble)
    for text in chosen.warnings:
        if log is not None:
            log.warning(text)
        elif comm is None or comm.rank == 0:
            warnings.warn(text, stacklevel=2)
    return chosen


def check_processor() -> None:
    """Check that LLVM knows the processor that the environment names.

    Raises:
        InputError: it does not, and would compile for another one or end the process.
    """
    given = {name: os.environ[name] for name in _PROCESSOR if os.environ.get(name)}
    if not given:
        return
    done = subprocess.run(
        [sys.executable, "-c", _TRY_PROCESSOR], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0 or "not a recognized" in done.stderr:
        named = " and ".join(f"{name} = {value!r}" for name, value in given.items())
        raise InputError(f"{named}: LLVM, which compiles the kernels, does not know this; unset it")


def _node_local_cache() -> None:
    """Keep compiled kernels on node-local storage under a batch job: network file systems have races."""
    if "NUMBA_CACHE_DIR" not in os.environ and any(
        name in os.environ for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
    ):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"sqd_mpi-kernels-{os.getuid()}")


def warm_up(rdm_order: int, pt2: bool = False, backend: str = "cpu") -> None:
    """Compile or load every kernel of a solve by solving a toy problem in this process."""
    from sqd_mpi.problem.hamiltonian import Hamiltonian
    from sqd_mpi.solver.solve import solve_subspace

    h1e = -np.array([[2.0, 0.1, 0.0], [0.1, 1.0, 0.1], [0.0, 0.1, 0.5]])
    eri = np.full(21, 0.01)
    strings = np.array([[3], [5], [6]], np.uint64)
    # a model space so small that the solver must iterate
    options = SolveOptions(memory=2**40, model_space=1, backend="gpu" if backend == "gpu" else "cpu")
    hamiltonian = Hamiltonian(h1e, eri, 0.0, 3, (2, 2))
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    if rdm_order:
        from sqd_mpi.solver.density_matrices import of_all_roots

        of_all_roots(result, rdm_order)
    if pt2:
        from sqd_mpi.solver.pt2 import second_order

        second_order(solve_subspace(None, hamiltonian, strings[:2], strings[:2], options), hamiltonian)
