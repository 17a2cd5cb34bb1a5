"""How a process begins: threads, the cache of kernels, and which process of a node compiles what is not in it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sqd_mpi import _jit
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.resources import available_cores
from sqd_mpi.solver.compile_notice import notice
from sqd_mpi.timing import Timers

if TYPE_CHECKING:
    from sqd_mpi.arrays import Strings
    from sqd_mpi.problem.hamiltonian import Hamiltonian

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


@dataclass(frozen=True)
class Kernels:
    """What a program is going to compute, which decides on the kernels that it needs."""

    rdm_order: int = 0
    """Order of density matrices, or 0."""
    pt2: bool = False
    """Whether second-order corrections are wanted."""
    backend: str = "cpu"
    """The backend; "auto" is settled by the problem, and its device is opened then."""
    single: bool = False
    """Whether sigma is made in single precision."""


_loaded: set[Kernels] = set()  # by this process


def start(
    ranks: Ranks, threads: int | Literal["auto"] = "auto", log: Log | None = None, kernels: Kernels | None = None,
    say: Callable[[str], None] | None = None, timers: Timers | None = None,
) -> Threads:  # fmt: skip
    """Make a process ready: kernel cache, number of threads, device, and kernels without that all ranks compile them.

    Collective over the ranks.

    Args:
        ranks: all of the job.
        threads: threads of a rank, or "auto".
        log: where warnings go; by default those of Python, on the first rank.
        kernels: what is loaded now; by default nothing, so that the first solve does it.
        say: is told on rank 0 why it takes long, if it does.
        timers: phases "start-up" and "warm-up".

    Raises:
        InputError: numba cannot compile or start threads in this environment, or there is no device; the same on all
            ranks.
    """
    timers = timers if timers is not None else Timers()
    with timers("start-up"):
        keep_cache_on_node()
        chosen = set_up(ranks, threads, log)
    if kernels is None:
        return chosen

    watched = nullcontext() if say is None or ranks.rank > 0 else notice(say, _jit.telling_of_compilation)
    with watched, timers("warm-up"):
        place = ranks.local()
        if kernels.backend != "auto":
            _open_device(ranks, place, kernels.backend)
        _warm_up_in_turn(ranks, place[0], kernels)
    return chosen


def choose(ranks: Ranks, wanted: int | Literal["auto"] = "auto") -> Threads:
    """How many threads this rank takes. Collective over the ranks.

    What is wanted goes first, then NUMBA_NUM_THREADS, then OMP_NUM_THREADS; else the cores of the node are divided
    among its ranks, and none takes more than its own.

    Args:
        ranks: all of the job.
        wanted: threads of a rank, or "auto".
    """
    own, (n_cores, n_local) = available_cores(), ranks.cores_of_node()
    if wanted != "auto":
        too_many = [f"--threads {wanted} is more than the {own} cores of this rank"] if wanted > own else []
        return Threads(wanted, "", too_many)
    said = _jit.threads_of_environment(own)
    if said.number is not None:
        return Threads(said.number, said.variable, said.warnings)
    return Threads(max(1, min(own, n_cores // n_local)), "", said.warnings)


def set_up(ranks: Ranks, wanted: int | Literal["auto"] = "auto", log: Log | None = None) -> Threads:
    """Fix the number of threads of this rank. Collective over the ranks.

    Args:
        ranks: all of the job.
        wanted: threads of a rank, or "auto".
        log: where warnings go; by default those of Python, on the first rank.

    Raises:
        InputError: numba cannot compile or start threads in this environment; the same on all ranks.
    """
    ranks.from_rank_0(check_processor)
    chosen, trouble = choose(ranks, wanted), None
    try:
        _jit.set_threads(chosen.number)
    except InputError as error:
        trouble = error.typed
    ranks.agree_on_error(trouble)
    for text in chosen.warnings:
        if log is not None:
            log.warning(text)
        elif ranks.rank == 0:
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


def keep_cache_on_node() -> None:
    """Keep compiled kernels on node-local storage under a batch job: network file systems have races.

    Of no effect once numba has been imported.
    """
    if "NUMBA_CACHE_DIR" not in os.environ and any(
        name in os.environ for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
    ):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"sqd_mpi-kernels-{os.getuid()}")


def _open_device(ranks: Ranks, place: tuple[int, int], backend: str) -> None:
    """Open the device of a backend, if it has one; it is chosen by the rank's number on the node.

    Collective over the ranks.

    Raises:
        InputError: a rank has no device; the same on all ranks.
    """
    from sqd_mpi.backends import get_backend

    trouble = None
    try:
        get_backend(backend).create_memory(local_rank=place[0], n_local=place[1])
    except InputError as error:
        trouble = str(error)
    ranks.agree_on_error(trouble)


def _warm_up_in_turn(ranks: Ranks, local_rank: int, kernels: Kernels) -> None:
    """Load kernels on the first rank of every node, which compiles what is not in the cache, and then on the others.

    Collective over the ranks. What these ranks have loaded before costs nothing.
    """
    if not ranks.maximum(np.array([kernels not in _loaded], np.int64))[0]:
        return
    for turn in (local_rank == 0, local_rank > 0):
        if turn:
            warm_up(kernels)
        ranks.barrier()


def warm_up_behind_lock(lock: str, say: Callable[[str], None]) -> None:
    """Load the kernels of a solve in one of several processes without MPI: the one that locks a file may compile them.

    Args:
        lock: the file.
        say: is told if kernels are compiled.
    """
    with notice(say, _jit.telling_of_compilation, loading=False), open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH)
            fcntl.flock(file, fcntl.LOCK_UN)
        warm_up(Kernels())


def warm_up(kernels: Kernels) -> None:
    """Compile or load kernels by solving a toy problem in this process."""
    from sqd_mpi.problem.hamiltonian import Hamiltonian
    from sqd_mpi.solver.solve import solve_subspace

    h1e = -np.array([[2.0, 0.1, 0.0], [0.1, 1.0, 0.1], [0.0, 0.1, 0.5]])
    eri = np.full(21, 0.01)
    strings = np.array([[3], [5], [6]], np.uint64)
    # a model space so small that the solver must iterate
    options = SolveOptions(memory=2**40, model_space=1, backend="gpu" if kernels.backend == "gpu" else "cpu")
    hamiltonian = Hamiltonian(h1e, eri, 0.0, 3, (2, 2))
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    if kernels.single:
        solve_subspace(None, hamiltonian, strings, strings, options.replace(precision="mixed"))
    if kernels.rdm_order:
        from sqd_mpi.solver.density_matrices import of_all_roots

        # Without spin-flip symmetry beta strings have kernels of their own.
        apart = solve_subspace(None, hamiltonian, strings, strings, options.replace(spin_flip="off"))
        for each in (result, apart):
            of_all_roots(each, kernels.rdm_order)
    if kernels.pt2:
        from sqd_mpi.solver.pt2 import second_order

        second_order(solve_subspace(None, hamiltonian, strings[:2], strings[:2], options), hamiltonian)
    _warm_up_of_grids(hamiltonian, strings)
    _loaded.add(kernels)


def _warm_up_of_grids(hamiltonian: Hamiltonian, strings: Strings) -> None:
    """Kernels of which a solve in one process has no need: for strings that are dealt, and blocks off the diagonal."""
    from sqd_mpi.backends.mirrored import MirroredSum
    from sqd_mpi.distribution.layout import Layout
    from sqd_mpi.problem.space import Space

    alpha = Space.create(hamiltonian, strings, strings, symmetry=False).alpha.dealt(2)
    alpha.singles(np.array([1, 0]))
    layout = Layout.create(alpha, alpha, 0, (2, 2, 1, 1), 1)
    MirroredSum(layout, 0).fold(np.zeros(layout.sub_block_size(0, 0, 0)))
