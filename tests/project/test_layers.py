"""Imports inside the package point downwards from folder to folder, and every outside library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.waiting import HANG

PACKAGE = ROOT / "sqd_mpi"

# From the bottom up: a module imports from its own folder and from those before it. "" is the top of the package.
FOLDERS = ("", "problem", "distribution", "backends", "files", "planner", "solver", "loop", "adapters", "app")
# What may use everything: the entry points.
ENTRIES = ("__init__", "__main__")

# Library: the modules that may import it.
DOORS = {
    "mpi4py": ("distribution.*",),
    "h5py": ("files.*",),
    "pyscf": ("problem.*", "adapters.pyscf", "adapters.pyscf.*"),
    "cupy": ("backends.gpu.cupy_device",),
    "jinja2": ("app.report.template",),
    "matplotlib": ("app.figures", "app.figures.*"),
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


def folder_of(name: str) -> str:
    """The folder of a module, given by its name below sqd_mpi."""
    first = name.split(".")[0]
    return first if first in FOLDERS else ""


def faults(path: Path) -> list[str]:
    """What is wrong with the imports of a file, one sentence each."""
    module = module_name(path)
    here = folder_of(module)
    found = []
    for name in imported_names(path):
        library, *rest = name.split(".")
        if library in DOORS and not any(fnmatch(module, door) for door in DOORS[library]):
            found.append(f"{module} imports {name}; its door is {' or '.join(DOORS[library])}")
        if library != "sqd_mpi" or not here:
            continue
        if FOLDERS.index(folder_of(".".join(rest))) > FOLDERS.index(here):
            found.append(f"{module} imports {name}, which is not below it")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_point_downwards_and_use_the_doors(path: Path) -> None:
    assert not faults(path)


@pytest.mark.parametrize("arguments", [("-m", "sqd_mpi", "--help"), ("-c", "import sqd_mpi")], ids=["help", "import"])
def test_start_is_light(arguments: tuple[str, ...]) -> None:
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=HANG)
    assert run.returncode == 0, run.stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in run.stderr.splitlines()}
    assert "sqd_mpi" in loaded
    assert not loaded & {"numba", "mpi4py", "pyscf", "h5py", "cupy", "matplotlib"}


@pytest.mark.parametrize("module", ["app.cli", "app.run", "app.loop_run", "loop.extrapolation", "loop.worker"])
def test_numba_comes_after_the_number_of_threads(module: str) -> None:
    """numba takes the number of threads from the environment when it is imported; the job must set it before."""
    program = f"import sqd_mpi.{module}, sys; print([x for x in ('numba', 'mpi4py.MPI') if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
