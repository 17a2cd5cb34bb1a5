"""What checkpoints cost: one after every iteration, on a space of 3e7 determinants.

    python benchmarks/checkpoints.py [--data DIR] [--strings 5514] [--ranks 1] [--threads 2] [--folder DIR]

Solves H2O in the first strings of h2o-1em6 with a checkpoint after every iteration and prints seconds per checkpoint
(turning the basis and writing, the disk included), its size, and the share of the run that it would take at intervals.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Make the input, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SQD_MPI_DATA"), help="directory with h2o/ and n2/")
    parser.add_argument("--strings", type=int, default=5514)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--folder", help="where the files are written (a new folder for temporary files)")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("--data, or SQD_MPI_DATA, must name the directory of the published inputs")
    import h5py

    from sqd_mpi import Hamiltonian
    from sqd_mpi.files import records
    from sqd_mpi.problem import bitstrings

    source = Path(arguments.data) / "h2o"
    hamiltonian = Hamiltonian.from_fcidump(source / "fcidump.txt")
    strings = bitstrings.read_text_file(source / "h2o-1em6-alpha.txt", hamiltonian.norb)[: arguments.strings]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        records.write_input(folder / "input.h5", hamiltonian, strings, strings)
        python = Path(sys.executable)
        launcher = [str(python.parent / "mpiexec"), "-n", str(arguments.ranks)] if arguments.ranks > 1 else []
        command = [*launcher, str(python), "-m", "sqd_mpi", "run", str(folder / "input.h5"), "-o", "result.h5"]
        command += ["--checkpoint-every", "1", "--max-iterations", "8", "--threads", arguments.threads]
        subprocess.run(command, cwd=folder, check=False)
        summary = records.read_summary(folder / "result.h5")
        size = (folder / "result.h5.checkpoint").stat().st_size
        with h5py.File(folder / "result.h5") as file:
            whole = float(file["timings"].attrs["checkpoint"][2])
    n_iterations = summary["n_iterations"]
    each, solve = whole / n_iterations, summary["solve_seconds"]
    print(f"{len(strings)} x {len(strings)} strings, {summary['dimension']:.3g} determinants, {arguments.ranks} ranks")
    print(f"{n_iterations} iterations and checkpoints in {solve:.1f} s; {(solve - whole) / n_iterations:.2f} s without")
    print(f"one checkpoint: {each:.3f} s, {size / 1e6:.0f} MB, {size / each / 1e6:.0f} MB/s")
    for minutes in (0.25, 1, 10, 30):
        print(f"every {minutes:g} min: {each / (60 * minutes + each):.2%} of the run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
