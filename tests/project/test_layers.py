"""Imports inside the package point downwards from folder to folder, and every outside library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.paths import ROOT, TESTS
from tests.support.waiting import HANG

PACKAGE = ROOT / "sqd_mpi"

# From the bottom up: a module imports from its own folder and from those before it. "" is the top of the package.
FOLDERS = ("", "problem", "distribution", "backends", "files", "planner", "solver", "loop", "adapters", "app")
# What stands above all folders: nobody imports it, and it may import everything.
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
    """Absolute names of everything that a file of the package imports anywhere."""
    return imported_names_of(path.read_text(encoding="utf-8"), ["sqd_mpi", *path.relative_to(PACKAGE).parts[:-1]])


def imported_names_of(text: str, package: list[str]) -> list[str]:
    """Absolute names of everything that is imported, import_module("...") included, in a package of that name."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join(base + ([node.module] if node.module else []))
            names += [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names += [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return names


def modules() -> dict[str, Path]:
    """Every file of the package by its absolute name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = module_name(path)
        found["sqd_mpi" if name == "__init__" else f"sqd_mpi.{name}"] = path
    return found


def level(name: str) -> int:
    """Place among the folders of a module or of a name in it, given below sqd_mpi; entries come last."""
    first = name.split(".")[0]
    if first in FOLDERS:
        return FOLDERS.index(first)
    return 0 if (PACKAGE / f"{first}.py").exists() and first not in ENTRIES else len(FOLDERS)


def faults(path: Path) -> list[str]:
    """What is wrong with the imports of a file, one sentence each."""
    module = module_name(path)
    found = []
    for name in imported_names(path):
        library, *rest = name.split(".")
        if library in DOORS and not any(fnmatch(module, door) for door in DOORS[library]):
            found.append(f"{module} imports {name}; its door is {' or '.join(DOORS[library])}")
        if library == "sqd_mpi" and level(".".join(rest) or "__init__") > level(module):
            found.append(f"{module} imports {name}, which is not below it")
    return found


def arrows() -> dict[str, set[str]]:
    """The files that each file imports, wherever it does so."""
    known = modules()
    found = {}
    for name, path in known.items():
        targets = (target if target in known else target.rpartition(".")[0] for target in imported_names(path))
        found[name] = {target for target in targets if target in known} - {name}
    return found


def ring(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a ring, if there are any."""
    left = dict(graph)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_point_downwards_and_use_the_doors(path: Path) -> None:
    assert not faults(path)


def test_no_files_import_each_other() -> None:
    """Imports inside functions and for annotations count as well."""
    assert ring(arrows()) == []
    assert ring({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_ten_files_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def test_no_test_imports_another_test_file() -> None:
    """What several need lies in tests/support; tests have the folders of the package."""
    for path in TESTS.rglob("*.py"):
        names = imported_names_of(path.read_text(encoding="utf-8"), [])
        assert not [name for name in names if ".test_" in name and name.startswith("tests.")], path
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*FOLDERS[1:], "gpu_shim", "mpi", "project", "scripts", "support"}


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("problem/hamiltonian", "import sqd_mpi.solver.solve", "problem.hamiltonian imports sqd_mpi.solver.solve"),
        ("problem/hamiltonian", "from . import bitstrings", ""),
        ("backends/cpu/block", "from ...solver.solve import x", "backends.cpu.block imports sqd_mpi.solver.sol"),
        ("backends/cpu/block", "from ...distribution import layout", ""),
        ("solver/solve", "def f():\n    from sqd_mpi.app import cli", "solver.solve imports sqd_mpi.app.cli, which"),
        ("solver/solve", "from sqd_mpi import solve_subspace", "solver.solve imports sqd_mpi.solve_subspace,"),
        ("errors", "from sqd_mpi.problem import bitstrings", "errors imports sqd_mpi.problem.bitstrings, which is not"),
        ("solver/solve", "def f():\n    from mpi4py import MPI", "solver.solve imports mpi4py.MPI; its door is"),
        ("adapters/qiskit", "import pyscf.fci", "adapters.qiskit imports pyscf.fci; its door is problem.* or"),
        ("app/cli", "importlib.import_module('h5py')", "app.cli imports h5py; its door is files"),
        ("app/cli", "from sqd_mpi import errors, _jit\nimport numpy", ""),
        ("backends/gpu/lists", "import cupy", "backends.gpu.lists imports cupy; its door is backends.gpu.cupy_device"),
    ],
)
def test_faults_are_found(monkeypatch, tmp_path: Path, module: str, line: str, fault: str) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for name in ("errors", "_jit"):
        (tmp_path / f"{name}.py").touch()
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(exist_ok=True, parents=True)
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


@pytest.mark.parametrize("module", ["app.cli", "app.run", "app.loop_run", "loop.extrapolation", "loop.worker"])
def test_numba_comes_after_the_number_of_threads(module: str) -> None:
    """numba takes the number of threads from the environment when it is imported; the job must set it before."""
    program = f"import sqd_mpi.{module}, sys; print([x for x in ('numba', 'mpi4py.MPI') if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
