"""Imports inside the package point downwards only, and every outside library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.waiting import HANG

PACKAGE = Path(__file__).parent.parent / "sqd_mpi"

# From the bottom up. A module may import what stands in an earlier group; nothing of its own group or of a later one.
LAYERS = (
    ("suggestions", "terminal", "progress", "spelling", "compile_notice"),
    ("options", "log"),
    ("_jit",),
    ("fortran_text", "permutations", "text_files", "new_files"),
    ("fcidump_table",),
    ("fcidump",),
    ("bitstrings", "hamiltonian", "interrupts", "machine", "watchdog", "loop_options"),
    ("symmetry", "excitations"),
    ("layout", "sampling", "external_strings", "recall"),
    ("planner",),
    ("backends", "grid"),
    ("sigma", "checksums", "speaker", "threads"),
    ("hdf5_checks",),
    ("hdf5_items",),
    ("hdf5_writing",),
    ("vector_files",),
    ("files",),
    ("davidson", "model_space", "observables", "random_vectors", "spin_target", "trace", "vector_io"),
    ("sectors",),
    ("start_vectors",),
    ("solve",),
    ("density_matrices", "pt2", "checkpoints", "plan", "provenance"),
    ("job", "extrapolation", "batch", "bench_device"),
    ("worker", "bench"),
    ("workers",),
    ("batches",),
    ("sqd",),
    ("sqd_job",),
    ("figures", "adapters", "installation"),
    ("report",),
    ("command_parser", "completion", "importing"),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL = {name: level for level, group in enumerate(LAYERS) for name in group}

# Library: the modules that may import it.
DOORS = {
    "mpi4py": ("grid", "recall"),
    "h5py": ("files", "vector_files", "hdf5_*"),
    "pyscf": ("hamiltonian", "adapters.pyscf", "adapters.pyscf.*"),
    "cupy": ("backends.gpu.cupy_device",),
    "matplotlib": ("figures", "figures.*"),
    "qiskit": ("adapters.qiskit",),
    "qiskit_addon_sqd": ("adapters.qiskit",),
}


def module_name(path: Path) -> str:
    """Name below sqd_mpi, such as backends.cpu; a package is named after its folder, the root __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported_names(path: Path) -> list[str]:
    """Absolute names of everything that a file imports anywhere, import_module("...") included."""
    package = ["sqd_mpi", *path.relative_to(PACKAGE).parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join(base + ([node.module] if node.module else []))
            names += [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names += [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return names


def faults(path: Path) -> list[str]:
    """What is wrong with the imports of a file, one sentence each."""
    module = module_name(path)
    group = module.split(".")[0]
    found = []
    if group not in LEVEL:
        return [f"{module} has no place in LAYERS"]
    for name in imported_names(path):
        library, *rest = name.split(".")
        if library in DOORS and not any(fnmatch(module, door) for door in DOORS[library]):
            found.append(f"{module} imports {name}; its door is {' or '.join(DOORS[library])}")
        # the version is a constant of the package's __init__, which Python runs before any of its modules
        if library != "sqd_mpi" or rest == ["__version__"]:
            continue
        target = rest[0] if rest and rest[0] in LEVEL else "__init__"
        if target != group and LEVEL[target] >= LEVEL[group]:
            found.append(f"{module} imports {name}, which is not below it")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_point_downwards_and_use_the_doors(path: Path) -> None:
    assert not faults(path)


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("hamiltonian", "import sqd_mpi.bitstrings", "hamiltonian imports sqd_mpi.bitstrings, which is not below it"),
        ("hamiltonian", "from . import bitstrings", "hamiltonian imports sqd_mpi.bitstrings, which is not below it"),
        ("backends/cpu", "from ..solve import x", "backends.cpu imports sqd_mpi.solve.x, which is not below it"),
        ("backends/cpu", "from .. import grid", "backends.cpu imports sqd_mpi.grid, which is not below it"),
        ("solve", "def f():\n    from sqd_mpi import cli", "solve imports sqd_mpi.cli, which is not below it"),
        ("solve", "from sqd_mpi import solve_subspace", "solve imports sqd_mpi.solve_subspace, which is not below it"),
        ("solve", "def f():\n    from mpi4py import MPI", "solve imports mpi4py.MPI; its door is grid or recall"),
        ("adapters/qiskit", "import pyscf.fci", "adapters.qiskit imports pyscf.fci; its door is hamiltonian or"),
        ("cli", "importlib.import_module('h5py')", "cli imports h5py; its door is files"),
        ("utils", "", "utils has no place in LAYERS"),
        ("solve", "from sqd_mpi import __version__, files\nimport numpy", ""),
        ("backends/gpu_kernels", "from .cpu import x\nfrom sqd_mpi.backends import y", ""),
        ("backends/gpu", "import cupy", "backends.gpu imports cupy; its door is backends.gpu.cupy_device"),
    ],
)
def test_faults_are_found(monkeypatch, tmp_path: Path, module: str, line: str, fault: str) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    assert len(faults(path)) == bool(fault)
    assert "".join(faults(path)).startswith(fault)


@pytest.mark.parametrize("arguments", [("-m", "sqd_mpi", "--help"), ("-c", "import sqd_mpi")], ids=["help", "import"])
def test_start_is_light(arguments: tuple[str, ...]) -> None:
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=HANG)
    assert run.returncode == 0, run.stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in run.stderr.splitlines()}
    assert "sqd_mpi" in loaded
    assert not loaded & {"numba", "mpi4py", "pyscf", "h5py", "cupy", "matplotlib"}


@pytest.mark.parametrize("module", ["cli", "job", "sqd_job", "extrapolation", "worker"])
def test_numba_comes_after_the_number_of_threads(module: str) -> None:
    """numba takes the number of threads from the environment when it is imported; the job must set it before."""
    program = f"import sqd_mpi.{module}, sys; print([x for x in ('numba', 'mpi4py.MPI') if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
