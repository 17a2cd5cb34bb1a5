"""The examples run and give what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT, TESTS
from tests.support.waiting import HANG


def run(script: str, *arguments: str, ranks: int = 1) -> str:
    """Output of an example on one or several ranks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    launcher = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, str(ROOT / "examples" / script), *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def energy(output: str, label: str = "energy") -> float:
    """An energy of the output."""
    found = re.search(rf"^{label} +(-\d+\.\d+) hartree$", output, re.MULTILINE)
    assert found, output
    return float(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--excitations", "2")])
def test_casscf_gives_the_same_energy_on_every_number_of_ranks(arguments):
    outputs = [
        run("casscf/n2_casscf.py", "--orbitals", "4", "--electrons", "4", *arguments, ranks=n) for n in (1, 2, 3)
    ]
    energies = [energy(output) for output in outputs]
    assert max(energies) - min(energies) < 1e-8
    assert all(re.search(r"^converged +True$", output, re.MULTILINE) for output in outputs)
    assert outputs[0].count("energy") == 1  # rank 0 alone speaks


@pytest.mark.slow
def test_casscf_of_all_strings_is_that_of_pyscf():
    output = run("casscf/n2_casscf.py", "--compare")
    assert energy(output) == pytest.approx(energy(output, "PySCF's own solver"), abs=1e-8)


def test_the_ladder_is_the_same_in_spaces_of_every_m(data_dir):
    output = run("fe2s2/ladder.py", "--data", str(data_dir), "--orbitals", "2-6,13-17", "--spins", "3,4", "--m", "0,S")
    rows = [line.split() for line in output.splitlines() if re.match(r"^[34]  [034]  ", line)]
    assert [row[:2] for row in rows] == [["3", "0"], ["3", "3"], ["4", "0"], ["4", "4"]]
    found = [float(row[3]) for row in rows]
    assert found == pytest.approx([-116.0426799341, -116.0426799341, -116.0029597942, -116.0029597942], abs=1e-8)
    assert [float(row[5]) for row in rows] == pytest.approx([12.0, 12.0, 20.0, 20.0], abs=1e-5)
    assert "S = 4:   39.720 millihartree above the lowest, 2 ways within" in output


def test_the_ladder_says_what_data_it_needs(tmp_path):
    command = [sys.executable, str(ROOT / "examples/fe2s2/ladder.py"), "--data", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert finished.returncode == 2 and finished.stderr == ""
    assert "needs the folder of fe2s2/fcidump.txt, from the TrimCI project" in finished.stdout


@pytest.mark.slow
def test_the_tutorial_of_qiskit_addon_sqd_with_one_import_changed():
    pytest.importorskip("qiskit_addon_sqd")
    mine, theirs = run("sqd/n2_tutorial.py"), run("sqd/n2_tutorial.py", "--theirs")
    assert energy(mine) == pytest.approx(energy(theirs), abs=1e-8)
    assert energy(run("sqd/n2_tutorial.py", ranks=2)) == pytest.approx(energy(mine), abs=1e-8)
    assert re.search(r"^subspace dimension \d+$", mine, re.MULTILINE)


@pytest.mark.slow
def test_noise_falls_to_full_ci():
    output = run("sqd/noisy_n2.py")
    assert energy(output) == pytest.approx(energy(output, "full CI"), abs=1e-6)
    found = re.findall(r"^iteration +\d+: energy +(-\d+\.\d+) hartree", output, re.MULTILINE)
    falls = [float(text) for text in found]
    assert falls[0] > falls[-1] + 1e-4


@pytest.mark.slow
def test_a_growing_basis_is_the_same_on_workers_and_ranks():
    small = ("--strings", "40", "--iterations", "2")
    by_workers, on_ranks = run("sqd/growing_basis.py", *small), run("sqd/growing_basis.py", *small, ranks=2)
    assert energy(on_ranks) == pytest.approx(energy(by_workers), abs=1e-8)
    assert by_workers.count("strings kept") == 2


@pytest.mark.slow
def test_excited_states_are_those_of_full_ci():
    small = ("--orbitals", "6", "--roots", "3", "--compare")
    output = run("excited_states/water.py", *small, ranks=2)
    found = re.search(r"^largest deviation from PySCF (\S+) hartree$", output, re.MULTILINE)
    assert found and float(found[1]) < 1e-9
    rows = [line.split() for line in output.splitlines() if re.match(r" +\d", line)]
    assert [int(row[0]) for row in rows] == [0, 1, 2]
    triplets = run("excited_states/water.py", *small[:2], "--roots", "2", "--spin-square", "2")
    rows = [line.split() for line in triplets.splitlines() if re.match(r" +\d", line)]
    assert [round(float(row[3]), 4) for row in rows] == [2.0, 2.0]


@pytest.mark.slow
def test_a_scaling_study_of_this_machine(tmp_path):
    mpiexec()
    script = ROOT / "examples" / "scaling" / "this_machine.sh"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    command = ["bash", str(script), str(tmp_path / "a study"), "6", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "strong scaling" in done.stdout and len(list((tmp_path / "a study" / "study").glob("*.h5"))) >= 2


@pytest.mark.parametrize("script", sorted((ROOT / "examples").rglob("*.sh")), ids=lambda path: path.stem)
def test_shellcheck_has_nothing_to_say(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stdout


def test_every_example_has_a_test_and_says_what_it_does():
    tests = "".join((TESTS / "project" / f"test_{name}.py").read_text("utf-8") for name in ("examples", "slurm"))
    demo = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in [*(ROOT / "examples").rglob("*.py"), *(ROOT / "examples").rglob("*.sh")]:
        name = path.relative_to(ROOT / "examples").as_posix()
        assert name in tests or path.name in tests or name in demo, f"no test runs {name}"
        head = path.read_text(encoding="utf-8").split("\n", 2)
        assert head[0].startswith('"""') or head[1].startswith("# "), f"{name} does not say what it does"


def test_the_demo(tmp_path):
    """The commands of `make demo` on an active space that takes a second."""
    mpiexec()
    files = [str(tmp_path / name) for name in ("n2.h5", "result.h5")]
    run("n2/make_input.py", "--orbitals", "6", "--electrons", "6", "-o", files[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    command = [mpiexec(), "-n", "2", sys.executable, "-m", "sqd_mpi", "run", files[0], "-o", files[1]]
    subprocess.run(command, env=environment | {"PYTHONPATH": str(ROOT)}, check=True, timeout=HANG, capture_output=True)
    assert "agrees to 1e-08" in run("n2/compare_with_pyscf.py", *files)
