"""Energies of truncated product spaces against variance and second-order correction, and their limit at zero.

A run solves the whole space, then the spaces of the strings whose determinants reach ever larger coefficients in it.
Towards the exact state both the variance and the correction vanish, and the energy is nearly a straight line in them.

Nothing numerical is imported at the top: the number of threads must be settled before numba is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError, input_warnings_to
from sqd_mpi.files.new_files import new_binary_file
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver import startup

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import SomeRanks

# The distance of a point from zero below this share of the largest one does not raise its weight any more.
_LEAST_DISTANCE = 1e-3


@dataclass(frozen=True)
class Point:
    """One truncated space."""

    threshold: float
    """The strings of determinants with a larger |coefficient| in the whole space; 0 is the whole space."""
    n_alpha_strings: int
    n_beta_strings: int
    """Their numbers."""
    dimension: int
    """Their product."""
    energy: float
    """Hartree."""
    energy_pt2: float
    """Second-order correction, hartree."""
    variance: float
    """Hartree^2."""
    converged: bool
    """Whether the solve converged."""


@dataclass(frozen=True)
class Fit:
    """A polynomial through the points."""

    energy: float
    """Its value at zero, hartree."""
    uncertainty: float | None
    """Standard error of that value from the scatter of the points, hartree; None with as many points as
    coefficients."""
    coefficients: list[float]
    """Constant first."""


def fit_to_zero(x: ArrayLike, energies: ArrayLike, degree: int) -> Fit:
    """Weighted least-squares polynomial of the energies in x, and its value at x = 0.

    What a polynomial leaves out grows with the distance from zero: points weigh 1 / x^2.

    Args:
        x: (n,) variances or corrections.
        energies: (n,) hartree.
        degree: of the polynomial.

    Raises:
        ValueError: there are fewer different x than coefficients.
    """
    x, energies = np.asarray(x, np.float64), np.asarray(energies, np.float64)
    if len(np.unique(x)) <= degree:
        raise ValueError(f"a polynomial of degree {degree} needs {degree + 1} different points")
    scale = float(np.abs(x).max())
    weight = 1.0 / np.maximum(np.abs(x) / scale, _LEAST_DISTANCE)
    shift = float(energies[np.argmin(np.abs(x))])
    design = weight[:, None] * np.vander(x / scale, degree + 1, increasing=True)
    found, *_ = np.linalg.lstsq(design, weight * (energies - shift), rcond=None)
    coefficients = found / scale ** np.arange(degree + 1)
    coefficients[0] += shift
    spare = len(x) - degree - 1
    uncertainty = None
    if spare > 0:
        scatter = float(np.sum((design @ found - weight * (energies - shift)) ** 2)) / spare
        uncertainty = float(np.sqrt(scatter * np.linalg.inv(design.T @ design)[0, 0]))
    return Fit(float(coefficients[0]), uncertainty, coefficients.tolist())


def fits_of(points: Sequence[Point]) -> dict[str, Fit]:
    """Lines and, from four points on, parabolas in the variance and in the correction, by name."""
    energies = [point.energy for point in points]
    result = {}
    for name in ("variance", "energy_pt2"):
        x = [getattr(point, name) for point in points]
        for degree, kind in ((1, "linear"), (2, "quadratic")):
            if len(np.unique(x)) > (degree if degree == 1 else 3):
                result[f"{name}_{kind}"] = fit_to_zero(x, energies, degree)
    return result


def parse_thresholds(text: str) -> list[float]:
    """Thresholds of a list with commas, ascending.

    Raises:
        InputError: one is not a number between 0 and 1.
    """
    try:
        values = sorted({float(part) for part in text.split(",")})
        if not values or not all(0.0 < value < 1.0 for value in values):
            raise ValueError
    except ValueError:
        raise InputError(f"--thresholds needs numbers between 0 and 1 such as 1e-2,1e-3; got {text!r}") from None
    return values


def truncated_series(
    comm: SomeRanks,
    hamiltonian: Any,
    strings_a: Any,
    strings_b: Any,
    thresholds: Sequence[float],
    options: SolveOptions,
    log: Log | None = None,
) -> list[Point]:
    """The lowest root in the whole space and in truncated ones, with correction and variance.

    Collective over the communicator: all arguments must be the same on all ranks; so are the points.

    Args:
        comm: MPI communicator, or None for this process alone.
        hamiltonian: integrals in hartree.
        strings_a: (n, n_words) uint64, alpha.
        strings_b: the same for beta.
        thresholds: absolute coefficients in the whole space, ascending; those that give the same strings as the one
            before, or none, are left out.
        options: of every solve.
        log: where the points go, by default nowhere.

    Raises:
        InputError: the integrals depend on spin; the same on all ranks.
    """
    hamiltonian.check_pt2()
    from sqd_mpi.problem import bitstrings
    from sqd_mpi.solver.observables import carry_over
    from sqd_mpi.solver.pt2 import second_order
    from sqd_mpi.solver.solve import solve_subspace

    log = log if log is not None else Log.silent()
    whole = [bitstrings.canonical(each)[0] for each in (strings_a, strings_b)]
    strings, weights = whole, None
    points: list[Point] = []
    for threshold in (0.0, *thresholds):
        # The strings of some coefficient of the whole space above the threshold.
        if weights is not None:
            largest = weights.largest_alpha, weights.largest_beta
            kept = [carry_over(each, size, threshold) for each, size in zip(whole, largest, strict=True)]
            if not all(map(len, kept)) or [len(each) for each in kept] == [len(each) for each in strings]:
                log.warning(f"threshold {threshold:g} gives no new space; left out")
                continue
            strings = kept

        # A solve in their space.
        result = solve_subspace(comm, hamiltonian, strings[0], strings[1], options)
        root, found = result.roots[0], second_order(result, hamiltonian)
        weights = root.weights if weights is None else weights
        sizes = len(strings[0]), len(strings[1])
        energies = root.energy, found.energy, found.variance
        points.append(Point(threshold, *sizes, sizes[0] * sizes[1], *energies, root.converged))
        log.info(row(points[-1]))
        result.grid.free()
    return points


def heading() -> str:
    """Heading of the table of `row`."""
    return f"{'threshold':>9} {'strings':>15} {'energy':>16} {'with E2':>16} {'variance':>11}"


def row(point: Point) -> str:
    """One line of the table."""
    strings = f"{point.n_alpha_strings} x {point.n_beta_strings}"
    return (
        f"{point.threshold:9.1e} {strings:>15} {point.energy:16.8f} {point.energy + point.energy_pt2:16.8f} "
        f"{point.variance:11.4e}" + ("" if point.converged else "  NOT CONVERGED")
    )


def run_file(
    ranks: Ranks, input_path: str, folder: str, thresholds: str, given: dict[str, Any], log: Log | None = None
) -> dict[str, Any]:
    """Solve an input file and truncated ones, fit, write `extrapolation.json` into a folder.

    Collective over the ranks.

    Args:
        ranks: all of the job.
        input_path: input file.
        folder: where the table goes; made if it does not exist.
        thresholds: list with commas.
        given: options that override those of the file.
        log: where messages go; by default to standard error.

    Returns:
        what stands in the file: `points` and `fits`, on all ranks.

    Raises:
        InputError: the same on all ranks.
        WriteError: the table cannot be written.
    """
    values = parse_thresholds(thresholds)
    log = log or Log(ranks.rank)
    problem, options = ranks.from_rank_0(partial(_read, input_path, folder, given, log))
    startup.start(ranks, options.threads, log, startup.Kernels(pt2=True, backend=options.backend), say=log.info)
    log.info(heading())
    points = truncated_series(ranks, problem.hamiltonian, problem.strings_a, problem.strings_b, values, options, log)
    if len(points) < 2:
        raise InputError("--thresholds gives a single space; a line needs at least two")
    fits = fits_of(points)
    for name, fit in fits.items():
        error = "" if fit.uncertainty is None else f" +- {fit.uncertainty:.1e}"
        log.info(f"{name.replace('_', ' ')}: {fit.energy:.8f}{error} hartree")
    data = {"points": [asdict(point) for point in points], "fits": {name: asdict(fit) for name, fit in fits.items()}}
    ranks.from_rank_0(partial(_write, Path(folder) / "extrapolation.json", data))
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    with new_binary_file(path) as stream:
        stream.write((json.dumps(data, indent=1) + "\n").encode())


def _read(input_path: str, folder: str, given: dict[str, Any], log: Log) -> tuple[Any, SolveOptions]:
    """Read and checks the input, and makes the folder."""
    from sqd_mpi.files import records

    with input_warnings_to(log.warning):
        problem = records.read_input(input_path)
    options = SolveOptions(**{**problem.options, **given})
    problem.hamiltonian.check_pt2()
    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None
    return problem, options
