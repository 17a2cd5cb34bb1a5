"""Postselection, recovery and subsampling of many samples: ours beside those of qiskit-addon-sqd, in one run.

    python benchmarks/sampling.py                    # 1,000,000 samples of 72 bits
    python benchmarks/sampling.py --theirs 20000     # recovery of qiskit-addon-sqd on so many, scaled up and marked

Their recovery is a Python loop over samples; by default 20,000 of them are timed and the time is scaled to all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqd_mpi.problem import sampling


def timed(function, *arguments, **settings) -> tuple[float, object]:
    """Seconds of one call and what it gives."""
    started = time.perf_counter()
    result = function(*arguments, **settings)
    return time.perf_counter() - started, result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--orbitals", type=int, default=36)
    parser.add_argument("--electrons", type=int, default=12, help="of each spin")
    parser.add_argument("--theirs", type=int, default=20_000, help="samples that their recovery gets; 0 leaves it out")
    arguments = parser.parse_args()
    norb, nelec = arguments.orbitals, (arguments.electrons, arguments.electrons)
    random = np.random.default_rng(0)
    share = np.where(np.arange(norb) < nelec[0], 0.9, 0.05)
    bits = random.random((arguments.samples, 2 * norb)) < np.tile(share[::-1], 2)
    occupancies = np.stack([share, share])
    sampling.recover(sampling.from_matrix(bits[:100]), occupancies, nelec, random)  # compiles

    seconds: dict[str, float] = {}
    seconds["merge"], samples = timed(sampling.from_matrix, bits)
    seconds["postselect"], right = timed(sampling.postselect, samples, nelec)
    seconds["recover"], recovered = timed(sampling.recover, samples, occupancies, nelec, random)
    seconds["subsample"], _ = timed(sampling.subsample, recovered, 5000, 5, random)
    record: dict[str, object] = {"n_different": len(samples), "n_right": len(right), "n_recovered": len(recovered)}
    record["seconds"] = seconds
    if arguments.theirs:
        record["theirs"] = theirs(bits, arguments.theirs, occupancies, nelec)
    for name, value in seconds.items():
        other = record.get("theirs", {}).get(name)  # type: ignore[union-attr]
        print(f"{name:12s} {value:9.3f} s" + (f"   qiskit-addon-sqd {other:9.3f} s" if other is not None else ""))
    if arguments.theirs < arguments.samples:
        print(f"their recovery was timed on {arguments.theirs} samples and scaled (extrapolated)")
    print(json.dumps(record))


def theirs(bits: np.ndarray, n_recovered: int, occupancies: np.ndarray, nelec: tuple[int, int]) -> dict[str, float]:
    """Seconds of the same steps in qiskit-addon-sqd."""
    from qiskit_addon_sqd.configuration_recovery import recover_configurations
    from qiskit_addon_sqd.subsampling import postselect_by_hamming_right_and_left, subsample

    seconds: dict[str, float] = {}
    seconds["merge"], (unique, counts) = timed(np.unique, bits, axis=0, return_counts=True)
    shares = counts / len(bits)
    seconds["postselect"], _ = timed(
        postselect_by_hamming_right_and_left, unique, shares, hamming_right=nelec[0], hamming_left=nelec[1]
    )
    part = min(n_recovered, len(unique))
    some, _ = timed(
        recover_configurations, unique[:part], shares[:part] / shares[:part].sum(), tuple(occupancies), *nelec, 1
    )
    seconds["recover"] = some * len(unique) / part
    seconds["subsample"], _ = timed(subsample, unique, shares, 5000, 5, 1)
    return seconds


if __name__ == "__main__":
    main()
