"""Runs sbd-eigensolver once in the peers' environment and writes its own timings as JSON.

Mode `sigma`: one product of the Hamiltonian with a random (dense) vector, by asking for no Davidson iteration: what is
left is the evaluation of the energy of the start vector, which sbd times by itself. Mode `solve`: Davidson from the
Hartree-Fock determinant (the lowest string of the set) until the residual norm falls below --tol.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import tempfile
import time

PATTERNS = {
    "helpers": r"Elapsed time for helper construction (\S+)",
    "diagonal": r"Elapsed time for makeQChamDiagTerms (\S+)",
    "make_hamiltonian": r"Elapsed time for make Hamiltonian (\S+)",
    "davidson": r"Elapsed time for davidson (\S+)",
    "sigma": r"Elapsed time for mult (\S+)",
}


def main() -> None:
    """Runs one diagonalization and writes the record."""
    arguments = parse()
    started = time.perf_counter()
    with tempfile.TemporaryFile() as stdout:
        # The timings come from C++, so the file descriptor is turned, not sys.stdout.
        os.dup2(stdout.fileno(), 1)
        import sbd

        imported = time.perf_counter()
        result = sbd.tpb_diag_from_files(arguments.fcidump, arguments.alpha, configuration(sbd, arguments))
        finished = time.perf_counter()
        os.fsync(1)
        stdout.seek(0)
        text = stdout.read().decode()
    record = timings(text, arguments.mode)
    record |= {
        "energy": result["energy"] if arguments.mode == "solve" else None,
        "import_seconds": imported - started,
        "call_seconds": finished - imported,
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "options": vars(arguments),
        "start": "Hartree-Fock determinant" if arguments.mode == "solve" else "random vector",
    }
    with open(arguments.out, "w") as file:
        json.dump(record, file)


def parse() -> argparse.Namespace:
    """Returns the arguments of this runner."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fcidump", required=True)
    parser.add_argument("--alpha", required=True)
    parser.add_argument("--mode", choices=("sigma", "solve"), required=True)
    parser.add_argument("--tol", type=float, required=True)
    parser.add_argument("--subspace", type=int, required=True)
    parser.add_argument("--max-iterations", type=int, default=100)
    parser.add_argument("--bit-length", type=int, default=20)
    parser.add_argument("--stored", action="store_true", help="store the Hamiltonian's elements (sbd's method 1)")
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def configuration(sbd, arguments: argparse.Namespace):
    """Returns sbd's option set. sbd ignores unknown fields without a word, so every name is checked."""
    solve = arguments.mode == "solve"
    options = {
        "method": int(arguments.stored),
        "eps": arguments.tol,
        "max_nb": arguments.subspace,
        # sbd counts restarts: an iteration is up to max_nb products.
        "max_it": -(-arguments.max_iterations // arguments.subspace) if solve else 0,
        "init": 0 if solve else 1,
        "do_rdm": 0,
        "bit_length": arguments.bit_length,
    }
    config = sbd.TPB_SBD()
    for name, value in options.items():
        if not hasattr(config, name):
            raise SystemExit(f"this sbd-eigensolver has no option {name}")
        setattr(config, name, value)
    return config


def timings(text: str, mode: str) -> dict:
    """Returns seconds and iteration counts from what sbd prints."""
    seconds = {name: [float(value) for value in re.findall(pattern, text)] for name, pattern in PATTERNS.items()}
    residuals = [float(value) for value in re.findall(r"Davidson iteration \S+ \(tol=([^)]+)\)", text)]
    davidson = sum(seconds["davidson"])
    record: dict = {
        "sigma_seconds": seconds["sigma"],
        "setup_seconds": sum(sum(seconds[name]) for name in ("helpers", "diagonal", "make_hamiltonian")),
    }
    if mode == "solve":
        record |= {
            "solve_seconds": davidson,
            "n_sigma": len(residuals),
            "residual_norm": residuals[-1] if residuals else None,
            "history": residuals,
            # Vector work included; sbd does not time the products of the Davidson loop apart.
            "sigma_in_solve_seconds": davidson / max(len(residuals), 1),
        }
    return record


if __name__ == "__main__":
    main()
