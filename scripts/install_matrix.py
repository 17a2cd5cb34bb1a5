"""Installs the wheel into clean environments and tries it: Pythons x oldest and newest dependencies x MPI wheels.

    python scripts/install_matrix.py                          # all; an hour on two slow cores, minutes on a workstation
    python scripts/install_matrix.py --pythons 3.12 --mpi openmpi --dependencies newest --tests full

Builds wheel and sdist unless --dist names a folder that has them. Each environment gets the wheel, never the checkout;
examples and tests come from the unpacked sdist, whose package is removed first. "oldest" takes for every direct
dependency the lowest version that setup.cfg allows and that has a wheel for that Python; "newest" is what pip gives.
Prints a table as it goes, writes it with --output. Exit code 1 if any environment fails. Needs uv: pip install uv.
"""

from __future__ import annotations

import argparse
import email
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
EXTRAS = {"mpich": "mpi", "openmpi": "openmpi"}
SHOWN = ("numpy", "numba", "h5py", "scipy", "pyscf", "mpi4py")
# Tests that say something about an installation and compile little: libraries, files and command line work.
SHORT_TESTS = (
    "tests/problem/test_bitstrings.py",
    "tests/problem/test_hamiltonian.py",
    "tests/app/test_installation.py",
    "tests/files/test_records.py",
)
# With --tests full: every kernel against its definition as well, and all that runs on several ranks.
FULL_TESTS = (
    *SHORT_TESTS, "tests/backends/cpu/test_vector_kernels.py", "tests/solver/test_davidson.py",
    "tests/solver/test_solve.py",
)  # fmt: skip
# What a Slurm or MPI job around this one, or a checkout on the path, would bring along.
FOREIGN = ("PMI", "PMIX", "OMPI_", "PRTE_", "SLURM", "NUMBA", "PYTHON", "VIRTUAL_ENV", "PYTEST")
# What Open MPI needs in a container: it refuses root, and more ranks than cores, and binds a rank to one core.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


class StepFailed(Exception):
    """A step of an environment that failed; the text says which, and the end of its output."""


@dataclass
class Environment:
    """One clean environment and what was seen in it."""

    python: str
    """Version, such as 3.10."""
    dependencies: str
    """oldest or newest."""
    mpi: str
    """mpich or openmpi."""
    folder: Path
    """Where it is made."""
    found: dict[str, str] = field(default_factory=dict)
    """Versions as `info` gives them."""
    results: list[str] = field(default_factory=list)
    """What each step gave, in words."""
    passed: bool = False
    """Whether all steps were as they should be."""
    seconds: float = 0.0
    """Time for everything."""

    @property
    def interpreter(self) -> str:
        """The Python of the environment."""
        return str(self.folder / "bin" / "python")

    def run(self, step: str, *command: str, cwd: Path | None = None, timeout: float = 1200.0) -> str:
        """Output of a command with this environment's programs on the path.

        Raises:
            StepFailed: its exit code is not 0, or it takes too long.
        """
        variables = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        # kernels that one MPI library has compiled serve the other, as the environments have the same path
        variables["NUMBA_CACHE_DIR"] = str(self.folder.with_name(f"{self.folder.name}-kernels"))
        variables |= OPEN_MPI | {"PATH": f"{self.folder / 'bin'}:{variables['PATH']}", "OMP_WAIT_POLICY": "passive"}
        try:
            done = subprocess.run(
                command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(f"{step}: not done after {timeout:.0f} s") from None
        if done.returncode != 0:
            last = (done.stdout + done.stderr).strip().splitlines()[-60:]
            raise StepFailed("\n".join([f"{step}: exit code {done.returncode}", *last]))
        return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, tries all environments, prints the table; exit code 1 if one of them fails."""
    options = parse_options(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("UV_CACHE_DIR", str(folder / "cache"))
    uv = options.uv or shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        print("install_matrix.py: error: uv is needed: pip install uv", file=sys.stderr)
        return 2
    wheel, sdist = distributions(options.dist or build(folder / "dist"))
    tests = unpack(sdist, folder / "sdist")
    rows = []
    for python, dependencies, mpi in product(options.pythons, options.dependencies, options.mpi):
        environment = Environment(python, dependencies, mpi, folder / f"{python}-{dependencies}")
        start = time.monotonic()
        try:
            install(environment, uv, wheel)
            check(environment, tests, options.tests)
            environment.passed = True
        except StepFailed as failure:
            print(failure, file=sys.stderr)
            environment.results.append(f"FAILED: {str(failure).splitlines()[0]}")
        environment.seconds = time.monotonic() - start
        if not options.keep:
            shutil.rmtree(environment.folder, ignore_errors=True)
        rows.append(environment)
        print(table(rows[-1:], head=len(rows) == 1), flush=True)
    if options.output:
        options.output.write_text(f"{title()}\n\n{table(rows)}\n", encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pythons", nargs="+", default=["3.10", "3.13"], metavar="V", help="versions (%(default)s)")
    parser.add_argument("--dependencies", nargs="+", choices=list(RESOLUTIONS), default=list(RESOLUTIONS))
    parser.add_argument("--mpi", nargs="+", choices=list(EXTRAS), default=list(EXTRAS), help="MPI wheels")
    parser.add_argument(
        "--tests", choices=("short", "full"), default="short", help="full: kernels and tests/mpi on 2 and 3 ranks too"
    )
    parser.add_argument("--dist", type=Path, metavar="DIR", help="folder of wheel and sdist; else they are built")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "matrix", help="working folder (%(default)s)")
    parser.add_argument("--uv", metavar="FILE", help="the program uv")
    parser.add_argument("--keep", action="store_true", help="do not remove the environments")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the table as Markdown")
    return parser.parse_args(arguments)


def build(folder: Path) -> Path:
    """Wheel and sdist of this checkout, made by `python -m build`."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder, ROOT], check=True)
    return folder


def distributions(folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of a folder."""
    wheels, sdists = list(folder.glob("sqd_mpi-*.whl")), list(folder.glob("sqd_mpi-*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise SystemExit(f"install_matrix.py: error: one wheel and one sdist are needed in {folder}")
    return wheels[0], sdists[0]


def unpack(sdist: Path, folder: Path) -> Path:
    """The unpacked sdist without its package, so that only an installed one can be imported."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    shutil.rmtree(top / "sqd_mpi")
    return top


def requirements(wheel: Path, extra: str) -> list[str]:
    """What the wheel requires directly, with the extra, as requirement lines."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    wanted = []
    for line in lines:
        requirement, _, condition = line.partition(";")
        if not condition or condition.strip() in (f'extra == "{extra}"', f"extra == '{extra}'"):
            wanted.append(requirement.strip())
    return wanted


def install(environment: Environment, uv: str, wheel: Path) -> None:
    """Makes the environment: dependencies of the chosen age, the wheel, and pytest."""
    shutil.rmtree(environment.folder, ignore_errors=True)
    environment.run("venv", uv, "venv", "--quiet", "--python", environment.python, str(environment.folder))
    pip = [uv, "pip", "install", "--quiet", "--python", environment.interpreter]
    resolution = ["--resolution", RESOLUTIONS[environment.dependencies], "--only-binary", ":all:"]
    wanted = requirements(wheel, EXTRAS[environment.mpi])
    environment.run("dependencies", *pip, *resolution, *wanted)
    environment.run("wheel", *pip, "--no-deps", str(wheel))
    environment.run("pytest", *pip, "pytest", "pytest-mpi", "pytest-timeout", "hypothesis")


def check(environment: Environment, sdist: Path, tests: str) -> None:
    """Runs the installed program: `info`, a solve on two ranks against PySCF, tests."""
    python, work = environment.interpreter, environment.folder / "work"
    work.mkdir()
    where = environment.run("import", python, "-c", "import sqd_mpi; print(sqd_mpi.__file__)", cwd=work)
    if "site-packages" not in where:
        raise StepFailed(f"import: sqd_mpi comes from {where.strip()}, not from the wheel")
    if not Path(where.strip()).with_name("py.typed").exists():
        raise StepFailed("import: the wheel lacks py.typed, and with it the types")
    environment.found = json.loads(environment.run("info", python, "-m", "sqd_mpi", "info", "--json", cwd=work))
    n2 = sdist / "examples" / "n2"
    environment.run("input", python, str(n2 / "make_input.py"), "--orbitals", "8", "-o", "n2.h5", cwd=work)
    ranks = [str(environment.folder / "bin" / "mpiexec"), "-n", "2"]
    environment.run("solve", *ranks, python, "-m", "sqd_mpi", "run", "n2.h5", cwd=work)
    said = environment.run("energy", python, str(n2 / "compare_with_pyscf.py"), "n2.h5", "result.h5", cwd=work)
    environment.results.append(next(line for line in said.splitlines() if line.startswith("difference")).split(":")[0])
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    said = environment.run("tests", *pytest, *(FULL_TESTS if tests == "full" else SHORT_TESTS), cwd=sdist)
    environment.results.append(counts(said))
    if tests == "full":
        for n_ranks in ("2", "3"):
            command = [ranks[0], "-n", n_ranks, *pytest, "--only-mpi", "--timeout=300", "--timeout-method=thread"]
            said = environment.run(f"tests/mpi on {n_ranks} ranks", *command, "tests/mpi", cwd=sdist)
            environment.results.append(f"{n_ranks} ranks: {counts(said)}")


def counts(output: str) -> str:
    """Numbers of tests that passed and were skipped, out of what pytest prints at its end."""
    return ", ".join(re.findall(r"\d+ (?:passed|skipped)", output.strip().splitlines()[-1]))


def title() -> str:
    """Where and when the table was made."""
    return f"{date.today():%Y-%m-%d}, {platform.system()} {platform.machine()}, glibc {platform.libc_ver()[1]}"


def table(rows: Sequence[Environment], head: bool = True) -> str:
    """A Markdown table, a row for each environment."""
    lines = []
    if head:
        names = ["Python", "dependencies", "MPI", *SHOWN, "what was seen", "seconds"]
        lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        library = row.found.get("mpi_library") or row.mpi
        cells = [row.found.get("python", row.python), row.dependencies, short_name(library)]
        cells += [str(row.found.get(name, "-")) for name in SHOWN]
        lines.append("| " + " | ".join([*cells, "; ".join(row.results), f"{row.seconds:.0f}"]) + " |")
    return "\n".join(lines)


def short_name(library: str) -> str:
    """Name and version of an MPI library out of what it says about itself."""
    words = library.replace(",", " ").split()
    if words[:2] == ["Open", "MPI"]:
        return f"Open MPI {words[2].lstrip('v')}"
    return f"MPICH {words[2]}" if words[:2] == ["MPICH", "Version:"] else library


if __name__ == "__main__":
    sys.exit(main())
