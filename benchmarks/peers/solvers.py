"""The solvers that are compared: how each is started, and how its numbers come back as one kind of record.

A sample is a dictionary with `mode` (sigma or solve), `wall_seconds` of the whole process, `other_cores` (what other
processes used meanwhile) and the numbers that the solver gives about itself; `error` stands alone where it failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from peers import environment
from peers.inputs import BenchmarkInput, connections
from peers.load import Watch, wait_until_quiet

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """What is the same for all solvers and inputs."""

    venv: Path
    """The peers' environment."""
    threads: int
    """Threads of every solver."""
    tol: float
    """Norm of the residual at which a solve ends."""
    subspace: int
    """Vectors that the peers' Davidson keeps before it restarts."""
    timeout: float
    """Seconds after which a process is ended and counted as failed."""
    quiet: float
    """Seconds to wait at most, before each sample, for other work on the machine to end."""


@dataclass(frozen=True)
class Peer:
    """A program to compare with, run in the peers' environment."""

    name: str
    """Name in the tables and for --peers."""
    runner: str
    """File of the runner beside this one."""
    about: str
    """What it is, for the tables and the help."""
    arguments: tuple[str, ...] = ()
    """Further arguments of the runner."""
    tuned: bool = False
    """Whether it gets the settings that its authors' packages do not choose by themselves on this machine."""
    modes: tuple[str, ...] = ("sigma", "solve")
    """What it can be timed on."""

    def unavailable(self, problem: BenchmarkInput, settings: Settings) -> str | None:
        """Returns why this peer cannot run this input here, or None."""
        if not environment.interpreter(settings.venv).is_file():
            return f"there is no {settings.venv}; make it with --setup"
        if self.runner == "run_sbd.py" and environment.mpirun() is None:
            return f"there is no mpirun: apt-get install {' '.join(environment.DEBIAN_PACKAGES)}"
        if "--stored" in self.arguments:
            return _too_large_to_store(problem)
        return None

    def sample(self, problem: BenchmarkInput, mode: str, settings: Settings, workdir: Path) -> dict:
        """Returns one timed run of this peer."""
        out = workdir / f"{self.name}.json"
        out.unlink(missing_ok=True)
        command = [str(environment.interpreter(settings.venv)), str(HERE / self.runner), *self.arguments]
        command += ["--fcidump", str(problem.fcidump), "--alpha", str(problem.strings_file), "--mode", mode]
        command += ["--tol", repr(settings.tol), "--subspace", str(settings.subspace), "--out", str(out)]
        variables = {"OMP_NUM_THREADS": str(settings.threads), "OPENBLAS_NUM_THREADS": str(settings.threads)}
        if self.runner == "run_sbd.py":
            command = [*(environment.mpirun() or []), *command]
            if self.tuned:
                command += ["--bit-length", str(_word_length(2 * problem.norb))]
                variables["PYTHONPATH"] = str(environment.native_packages(settings.venv))
        elif self.tuned:
            variables["OPENBLAS_CORETYPE"] = "Haswell"
        sample = {"mode": mode} | timed(command, settings, variables)
        if "error" not in sample:
            sample |= json.loads(out.read_text())
            sample["wall_seconds"] -= sample.get("verification_seconds", 0.0)
        return sample


@dataclass(frozen=True)
class Ours:
    """sqd_mpi as a user runs it: one rank, its own MPI, from an imported input file."""

    key: str
    """Name for --variants."""
    name: str
    """Name in the tables; starts with sqd_mpi."""
    about: str
    """What it is."""
    symmetry: str
    """Value of --symmetry."""
    same_start: bool
    """Whether it starts from the lowest determinant, as the peers do, instead of from its model space."""

    def prepare(self, problem: BenchmarkInput, settings: Settings, workdir: Path) -> dict:
        """Writes the input file and runs once, so that kernels are compiled; returns both times or an error."""
        target = self._input(workdir)
        target.unlink(missing_ok=True)
        command = [sys.executable, "-m", "sqd_mpi", "import", "fcidump", str(problem.fcidump)]
        imported = timed([*command, "--alpha", str(problem.strings_file), "-o", str(target)], settings, {})
        if "error" in imported:
            return imported
        if self.same_start:
            import h5py

            with h5py.File(target, "r+") as file:
                file.require_group("options").attrs["model_space"] = 1
        first = self.sample(problem, "solve", settings, workdir)
        return {"import_seconds": imported["wall_seconds"], "first_run_seconds": first.get("wall_seconds")} | (
            {"error": first["error"]} if "error" in first else {}
        )

    def sample(self, problem: BenchmarkInput, mode: str, settings: Settings, workdir: Path) -> dict:
        """Returns one timed run: a whole solve, of which the time per sigma is a part."""
        result = workdir / f"{self._input(workdir).stem}-result.h5"
        result.unlink(missing_ok=True)
        mpiexec = Path(sys.executable).parent / "mpiexec"
        launcher = [str(mpiexec), "-n", "1"] if mpiexec.is_file() else []
        program = [sys.executable, "-m", "sqd_mpi"]
        options = ["-o", str(result), "--threads", str(settings.threads), "--tol", repr(settings.tol)]
        options += ["--symmetry", self.symmetry] + (["--spin-flip", "off"] if self._without_spin_flip() else [])
        command = [*launcher, *program, "run", str(self._input(workdir)), *options]
        sample = {"mode": "solve"} | timed(command, settings, {})
        if "error" in sample:
            return sample
        shown = subprocess.run([*program, "info", str(result), "--json"], capture_output=True, text=True, check=True)
        return sample | own_numbers(json.loads(shown.stdout)) | {"options": options}

    def _input(self, workdir: Path) -> Path:
        """Returns where the input file of this variant lies."""
        return workdir / ("input-one-determinant.h5" if self.same_start else "input.h5")

    def _without_spin_flip(self) -> bool:
        """Returns whether the spin-flip symmetry is to be switched off: if no symmetry is asked for and it exists."""
        if self.symmetry != "off":
            return False
        shown = subprocess.run([sys.executable, "-m", "sqd_mpi", "run", "--help"], capture_output=True, text=True)
        return "--spin-flip" in shown.stdout


PEERS = {
    peer.name: peer
    for peer in (
        Peer("sbd", "run_sbd.py", "sbd-eigensolver as its package builds it, elements re-evaluated in every sigma"),
        Peer(
            "sbd-tuned",
            "run_sbd.py",
            "the same compiled with -march=native and with words as long as a determinant",
            tuned=True,
        ),
        Peer("sbd-stored", "run_sbd.py", "sbd-eigensolver with stored elements (its method 1)", ("--stored",)),
        Peer("pyscf", "run_pyscf.py", "PySCF's selected_ci.kernel_fixed_space, what qiskit-addon-sqd calls by default"),
        Peer(
            "pyscf-tuned",
            "run_pyscf.py",
            "the same with OPENBLAS_CORETYPE=Haswell, as its old OpenBLAS may not know this CPU",
            tuned=True,
        ),
        Peer(
            "qiskit-addon-sqd",
            "run_pyscf.py",
            "qiskit_addon_sqd.fermion.solve_sci: PySCF's solve and the density matrices that it always makes",
            ("--addon",),
            modes=("solve",),
        ),
    )
}

OURS = (
    Ours("off", "sqd_mpi (no symmetry)", "--symmetry off, from the lowest determinant", "off", True),
    Ours("auto", "sqd_mpi", "from the lowest determinant", "auto", True),
    Ours("own-start", "sqd_mpi (own start)", "as a user runs it: from its own model space", "auto", False),
)


def own_numbers(info: dict) -> dict:
    """Returns the numbers of a record from what `info --json` prints of a result with one root."""
    return {
        "sigma_seconds": info["sigma_seconds"],
        "n_sigma": info["n_sigma"],
        "n_iterations": info["n_iterations"],
        "solve_seconds": info["solve_seconds"],
        "own_wall_seconds": info["wall_seconds"],
        "energy": info["energy"][0],
        "residual_norm": info["residual_norm"][0],
        "sector_dimension": info["sector_dimension"],
        "peak_rss_bytes": info["peak_rss_bytes"],
        "version": info["version"],
    }


def timed(command: Sequence[str], settings: Settings, variables: dict[str, str]) -> dict:
    """Returns the wall time of a process and what others did meanwhile, or an error with the end of its output."""
    quiet = wait_until_quiet(settings.quiet)
    watch = Watch()
    try:
        done = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, timeout=settings.timeout
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return {"error": f"{Path(command[0]).name}: {error}"[:300]}
    wall, others = watch.stop()
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {_reason(done.stderr or done.stdout)}"}
    return {"wall_seconds": wall, "other_cores": others, "waited_for_quiet": quiet}


def _reason(output: str) -> str:
    """Returns the line that says why a process failed: the last that speaks of an error, else the last at all."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    return (telling or lines or ["no output"])[-1]


def _word_length(bits: int) -> int:
    """Returns the shortest word, in bits, that holds a determinant in as few words as sbd can (62 bits at most)."""
    words = -(-bits // 62)
    return -(-bits // words)


def _too_large_to_store(problem: BenchmarkInput) -> str | None:
    """Returns why the elements of the Hamiltonian cannot be stored, or None: 24 bytes each."""
    singles, doubles = connections(problem.strings)
    needed = 24 * (singles * singles + 2 * len(problem.strings) * (singles + doubles))
    available = psutil.virtual_memory().available
    return f"its elements need {needed / 1e9:.0f} GB of memory" if needed > 0.6 * available else None
