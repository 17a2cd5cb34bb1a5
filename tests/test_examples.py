"""The examples run and give what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.test_mpi_driver import FOREIGN, ROOT, mpiexec


def run(script: str, *arguments: str, ranks: int = 1) -> str:
    """Output of an example on one or several ranks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    launcher = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, str(ROOT / "examples" / script), *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def energy(output: str, label: str = "energy") -> float:
    """An energy of the output."""
    found = re.search(rf"^{label} +(-\d+\.\d+) hartree$", output, re.MULTILINE)
    assert found, output
    return float(found[1])


@pytest.mark.parametrize("arguments", [(), ("--excitations", "2")])
def test_casscf_gives_the_same_energy_on_every_number_of_ranks(arguments):
    outputs = [
        run("casscf/n2_casscf.py", "--orbitals", "4", "--electrons", "4", *arguments, ranks=n) for n in (1, 2, 3)
    ]
    energies = [energy(output) for output in outputs]
    assert max(energies) - min(energies) < 1e-8
    assert all(re.search(r"^converged +True$", output, re.MULTILINE) for output in outputs)
    assert outputs[0].count("energy") == 1  # rank 0 alone speaks


def test_casscf_of_all_strings_is_that_of_pyscf():
    output = run("casscf/n2_casscf.py", "--compare")
    assert energy(output) == pytest.approx(energy(output, "PySCF's own solver"), abs=1e-8)
