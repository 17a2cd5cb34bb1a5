"""scripts/make_input.py: molecules, strings from wave functions and by growing, noisy samples, bad input."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi import Hamiltonian, SolveOptions, solve_subspace
from sqd_mpi.files import records
from sqd_mpi.problem import bitstrings
from tests.support.launching import FOREIGN, mpiexec
from tests.support.paths import ROOT
from tests.support.waiting import HANG

SCRIPT = ROOT / "scripts" / "make_input.py"
specification = importlib.util.spec_from_file_location("make_input", SCRIPT)
make_input = importlib.util.module_from_spec(specification)
sys.modules["make_input"] = make_input
specification.loader.exec_module(make_input)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Work in an empty directory, on one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sqd_mpi.solver.startup.available_cores", lambda: 1)
    monkeypatch.setattr("sqd_mpi.distribution.mpi.world", lambda: None)


def energy_of(path: str) -> float:
    problem = records.read_input(path)
    strings = problem.strings_a, problem.strings_b
    return solve_subspace(None, problem.hamiltonian, *strings, SolveOptions(tol=1e-7)).energies[0]


def run_ranks(n_ranks: int, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [mpiexec(), "-n", str(n_ranks), sys.executable, str(SCRIPT), *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_growing_reaches_the_full_space_and_its_energy(capsys):
    from pyscf import fci, gto, scf

    atoms = "Li 0 0 0; H 0 0 1.6"
    assert make_input.main([atoms, "--basis", "sto-3g", "--carry", "0", "--rounds", "9", "-o", "lih.h5"]) == 0
    mean_field = scf.RHF(gto.M(atom=atoms, basis="sto-3g", verbose=0)).run()
    assert energy_of("lih.h5") == pytest.approx(fci.FCI(mean_field).kernel()[0], abs=1e-8)
    output = capsys.readouterr().out
    assert f"HF       {mean_field.e_tot:.8f} hartree" in output
    assert "15 x 15" in output and "lih.h5: 6 orbitals, 2 + 2 electrons, 15 x 15 strings" in output


def test_every_round_grows_and_keeps_to_the_limit(capsys):
    arguments = ["n2", "--basis", "sto-3g", "--frozen-core", "--point-group", "D2h", "--max-strings", "40"]
    assert make_input.main([*arguments, "--seed", "1", "-o", "one.h5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line[:5].strip().isdigit()]
    energies = [float(words[5]) for words in lines]
    assert len(energies) >= 2 and energies == sorted(energies, reverse=True)
    assert int(lines[-1][1]) == 40
    assert energy_of("one.h5") == pytest.approx(energies[-1], abs=1e-7)
    assert make_input.main([*arguments, "--seed", "1", "-o", "same.h5"]) == 0
    first, second = records.read_input("one.h5"), records.read_input("same.h5")
    np.testing.assert_array_equal(first.strings_a, second.strings_a)
    np.testing.assert_array_equal(first.strings_a, first.strings_b)


@pytest.mark.parametrize("method", ["cisd", "ccsd"])
def test_two_electrons_are_exact(method, capsys):
    """For two electrons CISD and CCSD are full CI, so their strings hold it and the energies agree."""
    arguments = ["h2", "--strings", method, "--threshold", "0", "-o", "h2.h5"]
    assert make_input.main(arguments) == 0
    reference = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(method.upper()))
    assert energy_of("h2.h5") == pytest.approx(float(reference.split()[1]), abs=1e-6)


def test_amplitudes_of_cisd_are_coefficients():
    """The strings above a threshold are those of the CISD vector written out over determinants."""
    from pyscf import ci, gto, scf
    from pyscf.ci import cisd

    mean_field = scf.RHF(gto.M(atom=make_input.MOLECULES["h2o"], basis="sto-3g", verbose=0)).run()
    solver = ci.CISD(mean_field).set(verbose=0).run()
    vector = np.abs(cisd.to_fcivec(solver.ci, 7, 10))
    from pyscf.fci import cistring

    strings = np.array(cistring.make_strings(range(7), 5))
    hamiltonian = Hamiltonian.from_pyscf(mean_field)
    for threshold in (1e-2, 1e-3):
        options = Namespace(threshold=threshold, max_strings=1000)
        amplitudes = make_input.configuration_amplitudes(solver)
        alpha, beta = make_input.strings_of(hamiltonian, amplitudes, options)
        expected = set(strings[vector.max(axis=1) > threshold].tolist())
        assert set(bitstrings.to_integers(alpha)) == expected == set(bitstrings.to_integers(beta))


def test_open_shells_and_an_active_space():
    arguments = ["o2", "--basis", "sto-3g", "--spin", "2", "--ncas", "6", "--nelecas", "8"]
    for method in ("cisd", "ccsd", "grow"):
        assert make_input.main([*arguments, "--strings", method, "-o", f"{method}.h5"]) == 0
        problem = records.read_input(f"{method}.h5")
        assert (problem.hamiltonian.norb, problem.hamiltonian.nelec) == (6, (5, 3))
        assert 1 < len(problem.strings_a) <= 6 and 1 < len(problem.strings_b) <= 20


def test_samples_follow_the_ground_state():
    arguments = ["h2", "--counts", "counts.json", "--shots", "20000", "--seed", "3", "--fcidump", "h2.fcidump"]
    assert make_input.main([*arguments, "-o", "h2.h5"]) == 0
    counts = json.loads(Path("counts.json").read_text())
    assert sum(counts.values()) == 20000
    problem = records.read_input("h2.h5")
    result = solve_subspace(None, problem.hamiltonian, problem.strings_a, problem.strings_b)
    weight = result.gather() ** 2
    names = bitstrings.to_text(problem.strings_a, 4)
    assert all(text[:4] in names and text[4:] in names for text in counts)
    found = counts["00010001"] / 20000  # beta left, alpha right
    expected = weight[names.index("0001"), names.index("0001")]
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 20000))
    again = Hamiltonian.from_fcidump("h2.fcidump")
    np.testing.assert_allclose(again.eri, problem.hamiltonian.eri, rtol=0, atol=1e-15)
    # with noise: every bit of the lowest determinant is turned as often as asked for
    assert make_input.main([*arguments, "--bit-flip", "0.1", "-o", "h2.h5"]) == 0
    noisy = json.loads(Path("counts.json").read_text())
    assert sum(noisy.values()) == 20000 and len(noisy) > len(counts)
    mean = sum(text.count("1") * count for text, count in noisy.items()) / 20000
    assert mean == pytest.approx(2 * 0.9 + 6 * 0.1, abs=0.03)


def test_rounding_does_not_decide_between_equal_strings(capsys):
    """Where the limit cuts through strings of equal weight: sums on several ranks differ in their last bit."""
    options = make_input.parse_options(["n2", "--basis", "sto-3g", "--frozen-core", "--point-group", "D2h"])
    options.max_strings = 30
    molecule = make_input.prepare(options)
    exact, found = molecule.hamiltonian, []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        h1e, eri = (each * (1 + 1e-15 * rng.normal(size=each.shape)) for each in (exact.h1e, exact.eri))
        molecule.hamiltonian = Hamiltonian((h1e + h1e.T) / 2, eri, exact.ecore, exact.norb, exact.nelec)
        found.append(make_input.grow(None, molecule, options)[0][0].tolist())
    assert all(strings == found[0] for strings in found)


@pytest.mark.slow
def test_several_ranks_make_the_same_file():
    arguments = ("n2", "--basis", "sto-3g", "--frozen-core", "--point-group", "D2h", "--max-strings", "30")
    output = run_ranks(2, *arguments, "-o", "two.h5")
    assert output.count("two.h5:") == 1
    assert make_input.main([*arguments, "-o", "one.h5"]) == 0
    one, two = records.read_input("one.h5"), records.read_input("two.h5")
    np.testing.assert_array_equal(one.strings_a, two.strings_a)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["H 0 0 0"], "Electron number 1 and spin 0"),
        (["unknown"], "cannot make the molecule 'unknown'"),
        (["missing.xyz"], "there is no file missing.xyz"),
        (["h2", "--basis", "none-such"], "cannot make the molecule 'h2'"),
        (["h2", "--point-group", "D9"], "cannot make the molecule 'h2'"),
        (["h2", "--ncas", "9", "--nelecas", "2"], "does not fit"),
        (["o2", "--spin", "2", "--ncas", "4", "--nelecas", "3"], "--nelecas 3 does not go with --spin 2"),
        (["h2", "-o", "nowhere/input.h5"], "nowhere does not exist"),
        (["h2", "--bit-flip", "1.5"], "--bit-flip needs a number from 0 to 1; got 1.5"),
        (["h2", "--ncas", "2"], "an active space needs both --ncas and --nelecas"),
        (["h2", "--rounds", "0"], "--rounds needs a positive number; got 0"),
        (["h2", "--colour"], "unrecognized arguments: --colour"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_input_is_one_sentence(arguments, words, capsys, tmp_path):
    try:
        code = make_input.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
