"""What a report is made of, read from files and checked: a file may be old, of another program, or damaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sqd_mpi.app import trace
from sqd_mpi.app.figures.pictures import check_same_run
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.files.summary import Summary

MOST_DRAWN_ROOTS = 10

NOT_SHOWN = {
    "penalised_energy": "`energy` is that of the Hamiltonian, which other programs give",
    "orbital_entropies": "a matrix for other programs; natural occupations tell people as much",
    "pt2_gap": "a gap that is too narrow is among the warnings",
    "sectors": "a sector that is not decided is in the banner; the others bear out the table of states",
    "spin_target": "follows from the option `spin_square`",
    "version": "stands among the versions",
}
"""Fields of the summary that no page shows, and why."""

_Text = str | int | float | bool | None


class _Rest(BaseModel):
    """The other parts of a result."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timings: dict[str, Annotated[list[float | None], Field(min_length=3, max_length=3)]]
    options: dict[str, _Text | list[Any]]
    versions: dict[str, _Text]
    run: dict[str, _Text]
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class Run:
    """A result, checked."""

    path: str
    """File."""
    summary: Summary
    """Numbers of the run and of its roots."""
    history: dict[str, NDArray[np.float64]]
    """One array per quantity whose first axis counts iterations; NaN where there is none."""
    timings: dict[str, tuple[float, float, float]]
    """Seconds of every phase: minimum, mean, maximum over the ranks."""
    options: dict[str, Any]
    """Effective options."""
    versions: dict[str, Any]
    """Of libraries."""
    run: dict[str, Any]
    """Where and how it ran."""
    warnings: list[str]
    """Of the run."""
    weights: dict[str, tuple[Any, NDArray[np.float64]]] = field(repr=False)
    """For alpha and beta strings (n, nwords) and weights (roots, n); missing in files that lack them."""

    @property
    def is_loop(self) -> bool:
        """Whether this is the result of the whole loop."""
        return self.summary.loop_iterations is not None


@dataclass(frozen=True, eq=False)
class Sources:
    """What a report is made of."""

    run: Run | None
    """The result, or None."""
    trace: trace.Trace | None
    """The phases of all ranks, or None."""


def read(result: str | Path | None, trace_path: str | Path | None) -> Sources:
    """What the files hold.

    Raises:
        InputError: a file is missing, damaged or of another kind, or the two belong to different runs.
    """
    content = None if result is None else records.read_run(result)
    found = None if trace_path is None else trace.read(trace_path)
    if content is not None and found is not None:
        check_same_run(content, found, f"{result} and {trace_path}")
    return Sources(None if content is None else _checked(str(result), content), found)


def _checked(path: str, content: dict[str, Any]) -> Run:
    try:
        summary = Summary.model_validate(content["summary"], strict=True)
        rest = _Rest(**{name: content[name] for name in _Rest.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][:2])
        raise InputError(f"{path} is no result that sqd_mpi wrote: {place}: {first['msg'].lower()}") from None
    timings: dict[str, tuple[float, float, float]] = {}
    for name, values in rest.timings.items():
        low, mean, high = values
        if low is not None and mean is not None and high is not None:
            timings[name] = low, mean, high
    _check_roots(path, summary)
    weights = records.read_weights(path, MOST_DRAWN_ROOTS)
    return Run(
        path, summary, _history(path, content["history"], summary), timings, rest.options, rest.versions, rest.run,
        rest.warnings, weights,
    )  # fmt: skip


def _check_roots(path: str, summary: Summary) -> None:
    """Check that all lists over roots are as long as that of the energies, and those over orbitals as well."""
    per_root = ("converged", "residual_norm", "spin_square", "spin_variance", "spin_pure", "sector",
                "spin_flip_parity", "occupancies", "natural_occupations", "energy_pt2", "variance",
                "penalised_energy")  # fmt: skip
    for name in per_root:
        values = getattr(summary, name)
        if values is not None and len(values) != summary.n_roots:
            raise InputError(
                f"{path} is no result that sqd_mpi wrote: {name} has {len(values)} roots, energy {summary.n_roots}"
            )
    shapes = {len(spin) for root in summary.occupancies or [] for spin in root}
    shapes |= {len(root) for root in summary.natural_occupations or []}
    if len(shapes) > 1 or any(len(root) != 2 for root in summary.occupancies or []):
        raise InputError(f"{path} is no result that sqd_mpi wrote: occupations of unlike numbers of orbitals")


def _history(path: str, content: dict[str, Any], summary: Summary) -> dict[str, NDArray[np.float64]]:
    """The history as arrays.

    Raises:
        InputError: its parts do not fit each other.
    """
    try:
        history = {name: np.array(values, np.float64) for name, values in content.items()}
    except (TypeError, ValueError):
        raise InputError(f"{path} is no result that sqd_mpi wrote: /history holds other things than numbers") from None
    lengths = {len(values) if values.ndim else -1 for values in history.values()}
    batches = {values.shape for name, values in history.items() if name.startswith("batch_")}
    roots = {values.shape[1:] for name, values in history.items() if name in ("energy", "residual_norm")}
    if len(lengths) > 1 or -1 in lengths or len(batches) > 1 or any(len(shape) != 2 for shape in batches):
        raise InputError(f"{path} is no result that sqd_mpi wrote: parts of /history have unlike shapes")
    # A solve may follow more roots than the result has, to see whether these are the lowest.
    fitting = len(roots) == 1 and all(len(shape) == 1 and shape[0] >= summary.n_roots for shape in roots)
    if roots and lengths != {0} and not fitting:
        raise InputError(f"{path} is no result that sqd_mpi wrote: /history has another number of roots")
    return history
