"""Draws the picture of docs/better_energies.md: stretched N2, its strings grown, extrapolated, beside full CI.

python scripts/draw_extrapolation.py [--ranks N] [--pictures docs/pictures]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOLECULE = ["N 0 0 0; N 0 0 1.3", "--basis", "6-31g", "--point-group", "D2h", "--ncas", "12", "--nelecas", "10"]
GROWING = ["--rounds", "4", "--carry", "2e-3", "--max-strings", "250"]
THRESHOLDS = "2e-3,4e-3,8e-3,1.6e-2"


def main() -> None:
    """Make the input, solve it with PySCF's full CI, extrapolate, keep the PNG."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="number of ranks (%(default)s)")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures", metavar="DIR", help="where to")
    options = parser.parse_args()
    target = options.pictures.resolve() / "extrapolation.png"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call([sys.executable, str(ROOT / "scripts" / "make_input.py"), *MOLECULE, *GROWING, "-o", "n2.h5"], folder)
        exact = full_ci(folder / "n2.h5")
        print(f"full CI {exact:.8f} hartree", flush=True)
        launcher = Path(sys.executable).parent / "mpiexec"
        command = [str(launcher if launcher.exists() else "mpiexec"), "-n", str(options.ranks), sys.executable]
        command += ["-m", "sqd_mpi", "extrapolate", "n2.h5", "--thresholds", THRESHOLDS, "--reference", str(exact)]
        call(command, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "extrapolation" / "extrapolation.png", target)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


def full_ci(path: Path) -> float:
    """Energy of all determinants of the active space, from PySCF."""
    from pyscf import ao2mo, fci

    from sqd_mpi import read_input

    hamiltonian = read_input(path).hamiltonian
    solver = fci.direct_spin1.FCI()
    solver.conv_tol = 1e-11
    eri = ao2mo.restore(8, hamiltonian.eri, hamiltonian.norb)
    return float(solver.kernel(hamiltonian.h1e, eri, hamiltonian.norb, hamiltonian.nelec)[0] + hamiltonian.ecore)


def call(command: list[str], folder: Path) -> None:
    """Run a command in a folder; stop if it fails."""
    print(" ".join(command[1:] if command[0] == sys.executable else command), flush=True)
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main()
