"""The iterations of a solve, sector after sector: rows of the result, lines of the log, counts, the time left."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.log import Iteration, Log
from sqd_mpi.solver.davidson import Step
from sqd_mpi.solver.sectors import ANY_SPIN, Sector
from sqd_mpi.timing import RemainingTime

_ONE_NUMBER = "sector", "parity", "twice_spin", "seconds"  # of an iteration; the others have one per root


class History:
    """What every iteration of a solve gave, those before a restart included."""

    def __init__(self, tol: float, max_iterations: int, log: Log) -> None:
        """Start the clock.

        Args:
            tol: residual norm at which a root is converged, hartree.
            max_iterations: after which the iterations of a sector end.
            log: where a line goes for every iteration.
        """
        self.n_iterations = self.n_sigma = self.n_sigma_before = self.n_single = 0
        self._began, self._seconds_before = perf_counter(), 0.0
        self.penalised = False
        """Whether energies are those of an operator with a penalty on other spins."""
        self._limits, self._log = (tol, max_iterations), log
        self._left = RemainingTime(*self._limits)
        self._rows: dict[str, list[Any]] = {
            name: [] for name in ("sector", "parity", "twice_spin", "energy", "residual_norm", "seconds")
        }

    @property
    def seconds(self) -> float:
        """Since the solve began, those before a restart included."""
        return perf_counter() - self._began + self._seconds_before

    @property
    def n_sigma_here(self) -> int:
        """Applications of the Hamiltonian in this process."""
        return self.n_sigma - self.n_sigma_before

    def record(self, sector: Sector, step: Step, shown: bool, tol: float = np.inf) -> None:
        """Keep an iteration, and show it; roots are followed down to `tol` where that is less than must be."""
        self.n_iterations += 1
        if step.iteration == 1:
            self._left = RemainingTime(*self._limits)
        self._left.tol = min(self._limits[0], tol)
        self._left.add(step.residual_norms, step.seconds)
        seconds = self.seconds

        last = self._rows["energy"][-1][0] if step.iteration > 1 else np.nan
        if shown:
            self._log.iteration(
                Iteration(
                    self.n_iterations, step.subspace, float(step.energies.min()), float(step.energies[0] - last),
                    float(step.residual_norms.max()), self.n_sigma + step.n_sigma, seconds, self._left.seconds(),
                    self.penalised,
                )
            )  # fmt: skip
        for name, value in zip(self._rows, (*sector, step.energies, step.residual_norms, seconds), strict=True):
            self._rows[name].append(value)

    def arrays(self, nroots: int) -> dict[str, FloatArray]:
        """One row per iteration of every quantity; NaN where a sector was solved for fewer roots than the most."""
        width = max([nroots, *(len(row) for row in self._rows["energy"])])
        arrays = {name: np.array(values) for name, values in self._rows.items() if name in _ONE_NUMBER}
        for name in ("energy", "residual_norm"):
            arrays[name] = np.full((len(self._rows[name]), width), np.nan)
            for padded, row in zip(arrays[name], self._rows[name], strict=True):
                padded[: len(row)] = row
        return {name: arrays[name] for name in self._rows}

    def state(self, nroots: int, step: Step) -> dict[str, Any]:
        """What a later run needs to go on counting from here."""
        rows = {name: array.tolist() for name, array in self.arrays(nroots).items()}
        return {"n_sigma": self.n_sigma + step.n_sigma, "seconds": self.seconds, "history": rows}

    def restore(self, n_iterations: int, state: dict[str, Any]) -> None:
        """Go on from what `state` gave an earlier run."""
        self.n_iterations = n_iterations
        self.n_sigma = self.n_sigma_before = int(state["n_sigma"])
        self._seconds_before = float(state["seconds"])
        for name, values in state["history"].items():
            self._rows[name] = list(np.array(values, np.float64))
        self._rows["twice_spin"] = self._rows["twice_spin"] or [ANY_SPIN] * len(self._rows["sector"])
