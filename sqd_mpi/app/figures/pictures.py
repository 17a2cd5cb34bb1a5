"""The pictures of a result, of a trace, or of both, in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqd_mpi.app.figures.canvas import need_matplotlib, save
from sqd_mpi.app.figures.curves import convergence
from sqd_mpi.app.figures.loops import energies, spaces
from sqd_mpi.app.figures.phases import kind_of_run, mean_shares, phase_shares
from sqd_mpi.app.trace import Trace, read
from sqd_mpi.errors import InputError
from sqd_mpi.files import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_pictures(folder: str | Path, result: str | None = None, trace: str | None = None) -> list[Path]:
    """Write the pictures of a result, of a trace, or of both as PNG and SVG; returns the files.

    Args:
        folder: where to; made if it does not exist.
        result: result file, or None.
        trace: trace file, or None.

    Raises:
        InputError: a file is missing or of another kind, the two belong to different runs, the folder cannot be made,
            or there is no matplotlib.
    """
    need_matplotlib()
    run = None if result is None else records.read_run(result)
    found = None if trace is None else read(trace)
    if run is not None and found is not None:
        check_same_run(run, found, f"{result} and {trace}")
    figures = {}
    if run is not None:
        heading = f"{Path(str(result)).name}: {kind_of_run(**run['summary'])}"
        if run["history"]:
            states = states_of(run["summary"].get("sector"), run["summary"].get("spin_flip_parity"))
            figures["convergence"] = convergence(run["history"], run["options"].get("tol"), heading, states=states)
        figures.update(_of_the_loop(run["history"]))
        if run["timings"]:
            figures["phases"] = mean_shares(run["timings"], heading)
    if found is not None:
        figures["phases"] = phase_shares(found)
    target = Path(folder)
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {target}: {error.strerror or error}") from None
    return [path for name, figure in figures.items() for path in save(figure, target, name)]


def _of_the_loop(history: dict[str, Any]) -> dict[str, Figure]:
    """Pictures of the iterations, if the history is that of the loop."""
    names = ("batch_energy", "batch_n_alpha_strings", "batch_n_beta_strings")
    if not set(names) <= set(history):
        return {}
    of_batches, n_alpha, n_beta = (np.array(history[name], float) for name in names)
    of_best, n_samples = np.array(history["energy"], float)[:, 0], history.get("n_samples")
    samples = None if n_samples is None else np.array(n_samples, float)
    return {"loop_energies": energies(of_best, of_batches), "loop_spaces": spaces(n_alpha, n_beta, samples)}


def states_of(sectors: Any, parities: Any) -> list[tuple[int, int]] | None:
    """Sector and parity of every root, None if the file does not say them.

    Args:
        sectors: of the roots, as in the summary of a result.
        parities: 1, -1, or None without spin-flip symmetry.
    """
    if not isinstance(sectors, list) or not all(isinstance(sector, int) for sector in sectors):
        return None
    signs = parities if isinstance(parities, list) and len(parities) == len(sectors) else [None] * len(sectors)
    return [(sector, sign if isinstance(sign, int) else 0) for sector, sign in zip(sectors, signs, strict=True)]


def check_same_run(run: Mapping[str, Any], trace: Trace, names: str) -> None:
    """Check that a result and a trace were written by one run.

    Args:
        run: what `files.records.read_run` returns.
        trace: the trace.
        names: of both files.

    Raises:
        InputError: they were not.
    """
    mine, theirs = run["run"].get("id"), trace.about.get("run")
    same = run["fingerprint"] == trace.about.get("fingerprint") and mine == theirs
    if mine is None and theirs is None:  # in older files runs have no names
        shared = ("grid", "n_ranks", "n_threads", "backend", "n_sigma")
        pairs = [(run["summary"].get(name), trace.about.get(name)) for name in shared]
        same = same and all(one == other for one, other in pairs if one is not None and other is not None)
    if not same:
        raise InputError(f"{names} are of different runs; give those that one run wrote")
