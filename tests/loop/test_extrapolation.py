"""Truncated spaces, fits and the verb `extrapolate`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.app import cli, figures
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.loop.extrapolation import Point, fit_to_zero, fits_of, parse_thresholds, truncated_series
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.solver import pt2
from sqd_mpi.solver.observables import carry_over
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings, make_hamiltonian
from tests.support.runs import MPIEXEC, environment
from tests.support.waiting import HANG


def test_fits_find_polynomials():
    x = np.array([0.01, 0.03, 0.1, 0.2, 0.5])
    line = fit_to_zero(x, -75.0 + 0.4 * x, 1)
    assert line.energy == pytest.approx(-75.0, abs=1e-12) and line.uncertainty < 1e-12
    np.testing.assert_allclose(line.coefficients, [-75.0, 0.4], atol=1e-11)
    curve = fit_to_zero(-x, -75.0 + 0.4 * x + 2.0 * x**2, 2)
    np.testing.assert_allclose(curve.coefficients, [-75.0, -0.4, 2.0], atol=1e-10)
    assert fit_to_zero(x[:2], x[:2], 1).uncertainty is None
    with pytest.raises(ValueError, match="needs 3 different points"):
        fit_to_zero([1.0, 1.0, 2.0], [0.0, 0.0, 1.0], 2)


def test_uncertainty_is_that_of_the_scatter():
    """The standard error agrees with the spread over many noisy data sets with errors proportional to x."""
    rng = np.random.default_rng(1)
    x = np.linspace(0.1, 1.0, 12)
    found = [fit_to_zero(x, -1.0 + x + 0.01 * x * rng.normal(size=12), 1) for _ in range(400)]
    spread = np.std([fit.energy for fit in found])
    assert np.sqrt(np.mean([fit.uncertainty**2 for fit in found])) == pytest.approx(spread, rel=0.15)


def test_points_are_solves_of_truncated_spaces():
    hamiltonian = make_hamiltonian(7, (3, 2), seed=3)
    strings = close_strings(7, 3, 25), close_strings(7, 2, 15, 1)
    options = SolveOptions(tol=1e-8)
    points = truncated_series(None, hamiltonian, *strings, [1e-3, 1e-2, 3e-2, 0.99], options)
    whole = solve_subspace(None, hamiltonian, *strings, options)
    assert points[0].threshold == 0.0 and points[0].energy == pytest.approx(whole.energies[0], abs=1e-12)
    weights = whole.roots[0].weights
    assert len(points) >= 3
    for point in points[1:]:
        largest = weights.largest_alpha, weights.largest_beta
        kept = [carry_over(each, size, point.threshold) for each, size in zip(strings, largest, strict=True)]
        result = solve_subspace(None, hamiltonian, *kept, options)
        assert (point.n_alpha_strings, point.n_beta_strings) == tuple(map(len, kept))
        assert point.energy == pytest.approx(result.energies[0], abs=1e-12)
        assert point.variance == pytest.approx(pt2.second_order(result, hamiltonian).variance, abs=1e-12)
    assert [p.energy for p in points] == sorted(p.energy for p in points)
    assert [p.variance for p in points] == sorted(p.variance for p in points)


def molecule_input(path: Path) -> float:
    """N2 in a small active space, strings of the heavier determinants; returns the full-CI energy."""
    from pyscf import ao2mo, fci, gto, scf

    from sqd_mpi import Hamiltonian

    mean_field = scf.RHF(gto.M(atom="N 0 0 0; N 0 0 1.2", basis="6-31g", symmetry="D2h", verbose=0)).run()
    hamiltonian = Hamiltonian.from_pyscf(mean_field, ncas=8, nelecas=6)
    solver = fci.direct_spin1.FCI()
    energy, vector = solver.kernel(hamiltonian.h1e, ao2mo.restore(8, hamiltonian.eri, 8), 8, (3, 3))
    integers = np.array(fci.cistring.make_strings(range(8), 3))
    kept = bitstrings.from_integers(integers[abs(vector).max(axis=1) > 1e-3], 8)
    kept = bitstrings.canonical(kept)[0]
    assert 10 < len(kept) < 56
    records.write_input(path, hamiltonian, kept, kept, {"threads": 1})
    return float(energy + hamiltonian.ecore)


@pytest.mark.slow
def test_extrapolated_energy_is_nearer_to_full_ci(tmp_path):
    exact = molecule_input(tmp_path / "n2.h5")
    arguments = ["extrapolate", "n2.h5", "--thresholds", "3e-2,1e-2,3e-3", "--reference", str(exact), "-o", "out"]
    command = [str(MPIEXEC), "-n", "2", sys.executable, "-m", "sqd_mpi", *arguments]
    finished = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=HANG)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["out/extrapolation.png", "out/extrapolation.svg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "extrapolation.json", "extrapolation.png", "extrapolation.svg"
    ]  # fmt: skip
    data = json.loads((tmp_path / "out" / "extrapolation.json").read_text())
    points, fits = data["points"], data["fits"]
    assert len(points) == 4 and all(point["converged"] for point in points)
    lowest = points[0]["energy"]
    assert lowest > exact
    assert abs(fits["energy_pt2_linear"]["energy"] - exact) < 0.3 * (lowest - exact)
    assert abs(lowest + points[0]["energy_pt2"] - exact) < 0.3 * (lowest - exact)


def test_picture_has_points_and_limits(tmp_path):
    points = [Point(10.0**-k, 9, 9, 81, -1.0 + 0.1**k, -(0.1**k), 0.2 * 0.1**k, True) for k in range(1, 5)]
    data = {
        "points": [vars(point) for point in points],
        "fits": {name: vars(fit) for name, fit in fits_of(points).items()},
    }
    assert set(data["fits"]) == {
        f"{name}_{kind}" for name in ("variance", "energy_pt2") for kind in ("linear", "quadratic")
    }
    figure = figures.extrapolation(data, -1.0)
    for axes, slope in zip(figure.axes, (0.2, -1.0), strict=True):
        x, y = axes.lines[0].get_data()
        np.testing.assert_allclose(x, slope * y / 1e3, atol=1e-12)
    paths = figures.write_extrapolation(tmp_path, data)
    assert [path.stat().st_size > 1000 for path in paths] == [True, True]


def test_few_points_give_lines_only():
    points = [Point(0.1, 1, 1, 1, -1.0, -0.1, 0.1, True), Point(0.2, 1, 1, 1, -0.9, -0.2, 0.2, True)]
    assert set(fits_of(points)) == {"variance_linear", "energy_pt2_linear"}


@pytest.mark.parametrize("text", ["", "a", "1e-2,2", "-1", "0", "nan"])
def test_thresholds_are_checked(text):
    with pytest.raises(InputError, match="^thresholds needs numbers between 0 and 1"):
        parse_thresholds(text)
    assert parse_thresholds("1e-2,1e-3,1e-2") == [1e-3, 1e-2]


def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sqd_mpi.distribution.mpi.world", lambda: None)
    strings = all_strings(4, 2)
    records.write_input("full.h5", make_hamiltonian(4, (2, 2)), strings[:1], strings[:1], {"threads": 1})
    for arguments, words in (
        (["missing.h5"], "missing.h5"),
        (["full.h5", "--thresholds", "x"], "--thresholds needs"),
        (["full.h5", "--tol", "-1"], "--tol needs"),
        (["full.h5", "-o", "full.h5"], "cannot make the folder full.h5"),
        (["full.h5", "--thresholds", "0.5"], "a line needs at least two"),
    ):
        assert cli.main(["extrapolate", *arguments]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sqd_mpi: error")]
        assert len(error) == 1 and words in error[0], arguments


# The program, which leaves a file with the kernels that its process has compiled.
COUNTING = """
import atexit, os, sys
from pathlib import Path
from numba.core import event
from sqd_mpi.__main__ import run

names = []

class Listener(event.Listener):
    def on_start(self, started): names.append(started.data["dispatcher"].py_func.__name__)
    def on_end(self, ended): pass

event.register("numba:compile", Listener())
atexit.register(lambda: Path(f"compiled-{os.getpid()}").write_text(" ".join(names)))
sys.exit(run())
"""


@pytest.mark.slow
@pytest.mark.skipif(not MPIEXEC.exists(), reason="needs mpiexec")
def test_one_rank_compiles(tmp_path):
    """With a cold cache; the other rank loads, the whole series through."""
    strings = close_strings(8, 4, 40)
    records.write_input(tmp_path / "input.h5", make_hamiltonian(8, (4, 4)), strings, strings, {"threads": 1})
    (tmp_path / "program.py").write_text(COUNTING)
    done = subprocess.run(
        [MPIEXEC, "-n", "2", sys.executable, "program.py", "extrapolate", "input.h5", "--thresholds", "1e-2,5e-2"],
        cwd=tmp_path, env={**environment(), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}, capture_output=True, text=True,
        timeout=2 * HANG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    compiled = [path.read_text().split() for path in tmp_path.glob("compiled-*")]
    assert sorted(map(bool, compiled)) == [False, True], compiled
