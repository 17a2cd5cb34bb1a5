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


def test_the_tutorial_of_qiskit_addon_sqd_with_one_import_changed():
    pytest.importorskip("qiskit_addon_sqd")
    mine, theirs = run("sqd/n2_tutorial.py"), run("sqd/n2_tutorial.py", "--theirs")
    assert energy(mine) == pytest.approx(energy(theirs), abs=1e-8)
    assert energy(run("sqd/n2_tutorial.py", ranks=2)) == pytest.approx(energy(mine), abs=1e-8)
    assert re.search(r"^subspace dimension \d+$", mine, re.MULTILINE)


def test_noise_falls_to_full_ci():
    output = run("sqd/noisy_n2.py")
    assert energy(output) == pytest.approx(energy(output, "full CI"), abs=1e-6)
    found = re.findall(r"^iteration +\d+: energy +(-\d+\.\d+) hartree", output, re.MULTILINE)
    falls = [float(text) for text in found]
    assert falls[0] > falls[-1] + 1e-4


def test_a_growing_basis_is_the_same_on_workers_and_ranks():
    small = ("--strings", "40", "--iterations", "2")
    by_workers, on_ranks = run("sqd/growing_basis.py", *small), run("sqd/growing_basis.py", *small, ranks=2)
    assert energy(on_ranks) == pytest.approx(energy(by_workers), abs=1e-8)
    assert by_workers.count("strings kept") == 2
