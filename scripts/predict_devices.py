"""Predicts what one GPU of several kinds takes for one sigma, from the real strings of an input and from data sheets.

    python scripts/predict_devices.py input.h5 ... [--devices h100,mi250x-die] [--grid A,B,T,R] [--json FILE]
    python scripts/predict_devices.py --profiles scripts/machines          # machine profiles of these GPUs, for plan

Nothing here is measured. The floor is that of the fastest form at the rates of the data sheet: arithmetic, operands
from shared memory, or bytes of device memory, whichever takes longest. The expected time is that of the form that is
chosen, at assumed shares of these rates, with the messages of the grid. Needs neither a GPU nor MPI. Exit code 2 and
one sentence for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqd_mpi.errors import InputError
from sqd_mpi.options import parse_grid
from sqd_mpi.planner.profile import write_profile
from sqd_mpi.resources import available_cores


def predict_input(path: Path, keys: Sequence[str], shape: Any) -> dict[str, Any]:
    """What one input asks of GPUs, and how long each kind takes: seconds of one sigma, bytes of a rank."""
    from sqd_mpi import _jit
    from sqd_mpi.files import records

    source = records.read_input(path)
    _jit.set_threads(min(available_cores(), 4))
    from device_work import count_device_work

    from sqd_mpi import planner
    from sqd_mpi.planner import data_sheets
    from sqd_mpi.solver.davidson import subspace_sizes

    problem = planner.Problem.create(source.hamiltonian, source.strings_a, source.strings_b)
    work = count_device_work(problem, shape)
    rows = []
    for key in keys:
        sheet = data_sheets.data_sheet(key)
        limits = planner.MemoryLimits(10**15, *subspace_sizes(1))
        plan = planner.predict(problem, shape, data_sheets.assumed_profile(sheet), 1, limits)
        floor = work.floor_seconds(sheet, prod(shape))
        rows.append(
            {
                "device": key, "floor_seconds": sum(floor.values()), "floors": floor,
                "expected_seconds": plan.seconds_per_sigma, "device_bytes": plan.device_bytes, "fits": plan.fits,
                "basis_vectors": plan.max_subspace,
            }
        )  # fmt: skip
    return {
        "input": path.name, "strings": [problem.alpha.size, problem.beta.size], "dimension": problem.dimension(shape),
        "grid": list(shape), "useful": work.useful, "product": float(work.product.sum()),
        "moved_bytes": work.moved_bytes, "devices": rows,
    }  # fmt: skip


def table(results: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    """The predictions as a table in Markdown."""
    head = ["input (strings)", "stored coefficients", "multiply-adds", "GB moved", *keys]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for result in results:
        cells = [
            f"{row['floor_seconds']:.2g} / {row['expected_seconds']:.2g} s"
            + ("" if row["fits"] else f" (no: {row['device_bytes'] / 1e9:.3g} GB)")
            for row in result["devices"]
        ]
        lines.append(
            [f"{result['input']} ({result['strings'][0]})", f"{result['dimension']:.3g}",
             f"{result['useful']:.3g}", f"{result['moved_bytes'] / 1e9:.3g}", *cells]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence and exit code 2."""
        raise SystemExit(_fail(message))


def _fail(message: str) -> int:
    print(f"predict_devices: error: {message}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, predict, print the table."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path)
    parser.add_argument("--devices", help="short names, separated by commas; by default all that are known")
    parser.add_argument("--grid", default="1,1,1,1", help="A,B,T,R, a GPU for each rank (1,1,1,1)")
    parser.add_argument("--profiles", type=Path, help="folder for machine profiles of the GPUs")
    parser.add_argument("--json", type=Path)
    try:
        return _run(parser.parse_args(arguments))
    except InputError as error:
        return _fail(error.typed)


def _run(options: argparse.Namespace) -> int:
    from sqd_mpi.planner import data_sheets

    keys = options.devices.split(",") if options.devices else [sheet.key for sheet in data_sheets.DATA_SHEETS]
    sheets = [data_sheets.data_sheet(key) for key in keys]
    shape = parse_grid(options.grid)
    if shape == "auto":
        raise InputError("--grid needs four positive integers A,B,T,R; got 'auto'")
    if not options.inputs and options.profiles is None:
        raise InputError("input files or --profiles DIR are needed")
    if options.profiles is not None:
        for sheet in sheets:
            write_profile(options.profiles / f"{sheet.key}.json", data_sheets.assumed_profile(sheet))
    results = [predict_input(path, keys, shape) for path in options.inputs]
    if results:
        print(f"Predicted, not measured: seconds of one sigma on grid {options.grid}, floor / expected.\n")
        print(table(results, keys))
    if options.json:
        data = {"predicted": True, "data_sheets": [vars(sheet) for sheet in sheets], "results": results}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
