"""What density matrices, <S^2>, a spin penalty and the second-order correction cost, as multiples of one sigma.

    python benchmarks/costs.py [--data DIR] [--inputs h2o-1em4 n2-1em4 n2-1em5] [--threads 2] [--repeats 3] [--json F]

Times are whole calls: the density matrices with their string structure, <S^2> with the plan of its operator. One sigma
is the mean over a solve of a few iterations, without its string structure. Modes: as the program runs by itself, in
one sector without the spin flip, and without any symmetry.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernels import median_seconds

INPUTS = {"h2o-1em3": "h2o-1em3-alpha.txt", "h2o-1em4": "h2o-1em4-alpha.txt", "n2-1em3": "1em3-alpha.txt",
          "n2-1em4": "1em4-alpha.txt", "n2-1em5": "1em5-alpha.txt"}  # fmt: skip
COSTS = ("with penalty", "<S^2>", "1-RDM", "1- and 2-RDM", "E2 and variance")  # beside sigma
MODES = {"auto": {}, "one sector": {"spin_flip": "off"}, "no symmetry": {"spin_flip": "off", "symmetry": "off"}}


def measure(hamiltonian: Any, strings: Any, options: dict[str, Any], repeats: int) -> dict[str, float]:
    """Seconds of one sigma and of everything else for the lowest root."""
    import numpy as np

    from sqd_mpi.backends import get_backend
    from sqd_mpi.options import SolveOptions
    from sqd_mpi.problem.interaction import Interaction
    from sqd_mpi.solver.density_matrices import density_matrices
    from sqd_mpi.solver.pt2 import second_order
    from sqd_mpi.solver.sigma import SigmaOperator
    from sqd_mpi.solver.solve import solve_subspace

    result = solve_subspace(None, hamiltonian, strings, strings, SolveOptions(max_iterations=4, **options))
    layout, backend = result.roots[0].layout, get_backend("cpu")
    share = backend.create_share(layout, (0, 0, 0, 0), hamiltonian, result.symmetry)

    def operator(interaction: Any) -> SigmaOperator:
        return SigmaOperator(
            result.grid, layout, backend.create_block(layout, (0, 0, 0, 0), hamiltonian, share), interaction
        )

    vector = result.roots[0].vector
    work = np.empty(len(vector))
    energy = operator(Interaction.energy(hamiltonian))
    # the Hamiltonian + 0.2 S^2, but for a constant
    penalised = operator(replace(Interaction.energy(hamiltonian), swap=0.2))
    return {
        "sigma": median_seconds(lambda: energy.matvec(vector, work), repeats),
        "with penalty": median_seconds(lambda: penalised.matvec(vector, work), repeats),
        "<S^2>": median_seconds(lambda: operator(Interaction.spin_square(hamiltonian)).moments(vector, work), repeats),
        "1-RDM": median_seconds(lambda: density_matrices(result, 0, 1), repeats),
        "1- and 2-RDM": median_seconds(lambda: density_matrices(result, 0, 2), repeats),
        "E2 and variance": median_seconds(lambda: second_order(result, hamiltonian), repeats),
    }


def main() -> None:
    """Read the options, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SQD_MPI_DATA"), help="directory with h2o/ and n2/")
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=["h2o-1em4", "n2-1em4", "n2-1em5"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write all seconds to this file")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("--data, or SQD_MPI_DATA, must name the directory of the published inputs")
    from sqd_mpi import _jit

    _jit.set_threads(arguments.threads)
    from sqd_mpi import Hamiltonian
    from sqd_mpi.problem import bitstrings

    table: list[dict[str, Any]] = []
    print(f"| input | strings | mode | sigma (s) | {' | '.join(COSTS)} |\n|---|---|---|---|{'---|' * len(COSTS)}")
    for name in arguments.inputs:
        folder = Path(arguments.data) / name.split("-")[0]
        hamiltonian = Hamiltonian.from_fcidump(folder / "fcidump.txt")
        strings = bitstrings.read_text_file(folder / INPUTS[name], hamiltonian.norb)
        for mode, options in MODES.items():
            seconds = measure(hamiltonian, strings, options, arguments.repeats)
            table.append({"input": name, "mode": mode, "seconds": seconds})
            ratios = [f"{seconds[key] / seconds['sigma']:.2f}" for key in COSTS]
            print(f"| {name} | {len(strings)} | {mode} | {seconds['sigma']:.4f} | {' | '.join(ratios)} |", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
