"""Says which GPU the tests and benchmarks would take; without one, why not, and exit code 2.

    python scripts/find_gpu.py

`make test-gpu` and `make bench-gpu` begin with it. What SQD_MPI_GPU names instead of a GPU is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqd_mpi.errors import InputError


def main() -> int:
    """Open the device and name it."""
    from sqd_mpi.backends.gpu.process_device import open_device

    try:
        device = open_device()
    except InputError as error:
        print(f"no GPU to test on: {error.typed}", file=sys.stderr)
        return 2
    if device.kind == "host":
        print("no GPU to test on: SQD_MPI_GPU names what takes the place of one; unset it", file=sys.stderr)
        return 2
    free, total = device.memory()
    print(f"{device.name} ({device.kind}), {total / 1e9:.3g} GB, {free / 1e9:.3g} GB free")
    return 0


if __name__ == "__main__":
    sys.exit(main())
