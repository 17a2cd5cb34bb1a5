"""What is installed here and on what machine: the page that a report of a problem begins with.

Nothing is started for it: neither MPI nor a compiler nor a device; libraries are looked at, not imported.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from sqd_mpi._version import __version__
from sqd_mpi.resources import PACKAGE, available_cores, available_memory

# Distributions whose versions decide what is computed, and how fast; those that are not there are null.
_PACKAGES = (
    "numpy", "scipy", "numba", "llvmlite", "h5py", "mpi4py", "mpich", "openmpi", "pyscf", "pydantic",
    "matplotlib", "qiskit-addon-sqd",
)  # fmt: skip
# Extensions of the instruction set that the kernels gain from.
_FEATURES = ("avx2", "fma", "avx512f", "avx512dq", "avx512vl", "amx_tile", "asimd", "sve", "sve2")
# What an environment variable says to a library below this program; one of a job only where it sets ranks and cores.
_VARIABLES = re.compile(
    r"(SQD_MPI|NUMBA|OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|HDF5|CUPY|CUDA|NCCL|HIP|ROCR|ROCM|HSA|MPICH|I_MPI|MPI4PY|UCX|FI)_\w+"
    r"|(OMPI|PRTE)_MCA_\w+|LD_LIBRARY_PATH|LD_PRELOAD|PYTHONPATH|PYTHONHOME|VIRTUAL_ENV|CONDA_PREFIX|TMPDIR"
    r"|SLURM_(NNODES|NTASKS|CPUS_PER_TASK|NTASKS_PER_NODE|GPUS_ON_NODE|CPU_BIND|MPI_TYPE|LOCALID|PROCID)"
)
_QUERY_SECONDS = 10.0


def describe() -> dict[str, Any]:
    """Versions, machine, MPI, threads, devices, caches and environment, as an object that JSON can hold."""
    return {
        "sqd_mpi": __version__,
        "location": str(PACKAGE),
        "python": platform.python_version(),
        "python_executable": sys.executable,
        "platform": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
        "mpi_library": _mpi_library(),
        "mpi_launcher": _launcher(),
        "cpu": {**_processor(Path("/proc/cpuinfo")), "n_in_machine": os.cpu_count()},
        "n_cores": available_cores(),
        "cpu_quota": _cpu_quota(Path("/sys/fs/cgroup")),
        "memory_total_bytes": _total_memory(),
        "memory_available_bytes": available_memory(),
        "shared_memory_bytes": _free_bytes(Path("/dev/shm")),
        "threading_layer": _threading_layer(),
        "devices": _devices(),
        "device_libraries": _device_libraries(),
        "caches": _caches(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)},
    }


def _version(package: str) -> str | None:
    """The version of an installed distribution, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _mpi_library() -> str:
    """What the MPI library says about itself, or why there is none."""
    from sqd_mpi.distribution.mpi import library_version

    return library_version()


def _launcher() -> dict[str, str | None]:
    """The `mpiexec` beside this Python, which belongs to the MPI wheels, and that of the PATH, and `srun`."""
    beside = Path(sys.executable).parent / "mpiexec"
    return {
        "beside_python": str(beside) if beside.exists() else None,
        "on_path": shutil.which("mpiexec") or shutil.which("mpirun"),
        "srun": shutil.which("srun"),
    }


def _processor(path: Path) -> dict[str, Any]:
    """Model and extensions of the first processor that the kernel lists."""
    text = _read(path).split("\n\n")[0]
    fields = dict(re.findall(r"^(\S[^\t:]*?)\s*: (.*)$", text, re.MULTILINE))
    listed = set((fields.get("flags") or fields.get("Features") or "").split())
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "features": [name for name in _FEATURES if name in listed],
    }


def _cpu_quota(control_groups: Path) -> float | None:
    """How many cores the control group of this process may use at once, None if it has no limit."""
    quota, _, period = _read(control_groups / "cpu.max").partition(" ")
    if not quota:
        quota, period = (_read(control_groups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) > 0 else None


def _total_memory() -> int:
    """The bytes of memory of this machine."""
    import psutil

    return int(psutil.virtual_memory().total)


def _free_bytes(folder: Path) -> int | None:
    """The bytes that are free on the file system of a folder, None if it is missing."""
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def _threading_layer() -> str | None:
    """The layer that numba will take: the first one of its order whose library can be loaded."""
    spec = importlib.util.find_spec("numba")
    if spec is None or not spec.submodule_search_locations:
        return None
    chosen = os.environ.get("NUMBA_THREADING_LAYER", "default")
    if chosen in ("tbb", "omp", "workqueue"):
        return f"{chosen} (NUMBA_THREADING_LAYER)"
    folder = Path(next(iter(spec.submodule_search_locations))) / "np" / "ufunc"
    libraries = {"tbb": ("tbbpool", "libtbb.so.12"), "omp": ("omppool", "libgomp.so.1"), "workqueue": ("workqueue", "")}
    order = os.environ.get("NUMBA_THREADING_LAYER_PRIORITY", "tbb omp workqueue").split()
    for layer in (name for name in order if name in libraries):
        extension, library = libraries[layer]
        if any(folder.glob(f"{extension}.*")) and _loads(library):
            return layer
    return None


def _loads(library: str) -> bool:
    """Whether the loader finds a shared library; none is always found."""
    try:
        ctypes.CDLL(library or None)
    except OSError:
        return False
    return True


def _devices(kernel_driver: Path = Path("/sys/class/kfd/kfd/topology/nodes")) -> list[str]:
    """The GPUs of this machine, as NVIDIA's tool lists them and as AMD's driver does."""
    found = []
    tool = shutil.which("nvidia-smi")
    if tool:
        query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False)
            found += [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
        except (OSError, subprocess.TimeoutExpired):
            found.append("nvidia-smi does not answer")
    for properties in sorted(kernel_driver.glob("*/properties")):
        values = dict(line.split(None, 1) for line in _read(properties).splitlines() if " " in line)
        if int(values.get("simd_count", 0)) > 0:
            name = _read(properties.with_name("name")) or "AMD GPU"
            found.append(f"{name}, gfx_target_version {values.get('gfx_target_version', 'unknown')}")
    return found


def _device_libraries() -> dict[str, str]:
    """The versions of the distributions of CuPy, which has one name for every CUDA or ROCm."""
    names = {str(found.metadata["Name"]) for found in metadata.distributions() if found.metadata["Name"]}
    return {name: metadata.version(name) for name in sorted(names) if name.lower().startswith("cupy")}


def _caches() -> dict[str, str]:
    """Where compiled kernels are kept."""
    beside = PACKAGE / "__pycache__" if os.access(PACKAGE, os.W_OK) else Path("~/.cache").expanduser() / "numba"
    return {
        "numba": os.environ.get("NUMBA_CACHE_DIR") or str(beside),
        "cupy": os.environ.get("CUPY_CACHE_DIR") or str(Path("~/.cupy/kernel_cache").expanduser()),
    }


def _read(path: Path) -> str:
    """The text of a file without its last line break, or nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
