"""The peers' own environment: made once by `compare_peers.py --setup`, apart from that of sqd_mpi.

sbd-eigensolver is C++ that its package compiles against the MPI and BLAS of the machine, so it gets Debian's Open MPI;
sqd_mpi runs on the MPI of its own environment. The two must not meet in one environment.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN_PACKAGES = ("g++", "openmpi-bin", "libopenmpi-dev", "libopenblas-dev")
PACKAGES = ("sbd-eigensolver", "qiskit-addon-sqd")
REPORTED = ("sbd-eigensolver", "qiskit-addon-sqd", "pyscf", "numpy", "mpi4py")

_VERSIONS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def interpreter(venv: Path) -> Path:
    """Returns the Python of the peers' environment."""
    return venv / "bin" / "python"


def native_packages(venv: Path) -> Path:
    """Returns the folder of the second sbd-eigensolver, compiled for this machine's own instruction set."""
    return venv / "native"


def create(venv: Path) -> None:
    """Makes the environment: the peers as their packages build them, and sbd-eigensolver for this CPU beside them.

    One compiler process at a time; about two minutes.

    Raises:
        SystemExit: if the Debian packages are missing or a step fails.
    """
    missing = [tool for tool in ("g++", "mpirun", "mpicxx") if shutil.which(tool) is None]
    if missing or not _has_openblas():
        needed = ", ".join(missing) or "the OpenBLAS library"
        raise SystemExit(f"the peers need {needed}: apt-get install {' '.join(DEBIAN_PACKAGES)}")
    pip = [str(interpreter(venv)), "-m", "pip", "install", "--quiet"]
    native = dict(os.environ, CFLAGS="-march=native", CXXFLAGS="-march=native")
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([*pip, *PACKAGES], check=True)
        # No cache: a wheel for this CPU must not be taken for the plain one later, nor the other way round.
        options = ["--no-cache-dir", "--no-deps", "--upgrade", "--no-binary", PACKAGES[0]]
        target = ["--target", str(native_packages(venv))]
        version = versions(interpreter(venv))[PACKAGES[0]]
        subprocess.run([*pip, *options, *target, f"{PACKAGES[0]}=={version}"], check=True, env=native)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"the peers' environment could not be made: {error}") from error


def mpirun() -> list[str] | None:
    """Returns the command of Open MPI for one rank that may use all cores, or None where there is no Open MPI."""
    launcher = shutil.which("mpirun.openmpi") or shutil.which("mpirun")
    if launcher is None:
        return None
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [launcher, *as_root, "--bind-to", "none", "-n", "1"]


def versions(python: Path, names: tuple[str, ...] = REPORTED) -> dict[str, str]:
    """Returns the versions of packages in the environment of an interpreter."""
    done = subprocess.run([str(python), "-c", _VERSIONS, *names], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def machine(threads: int) -> dict:
    """Returns what the times depend on: CPU, cores, memory, compiler and system."""
    cpu = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line.split(":", 1)[1].split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    memory = [line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "instruction_sets": [name for name in ("avx2", "fma", "avx512f") if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "threads_used": threads,
        "memory_bytes": 1024 * int(memory[0]) if memory else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "compiler": _first_line(["g++", "--version"]),
        "open_mpi": _first_line(["mpirun.openmpi", "--version"]) or _first_line(["mpirun", "--version"]),
    }


def _has_openblas() -> bool:
    """Returns whether the compiler finds OpenBLAS to link with."""
    command = ["g++", "-print-file-name=libopenblas.so"]
    return os.sep in subprocess.run(command, capture_output=True, text=True).stdout


def _lines(path: str) -> list[str]:
    """Returns the lines of a file, none if it cannot be read."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _first_line(command: list[str]) -> str | None:
    """Returns the first line that a command prints, or None if there is no such command."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, IndexError):
        return None
