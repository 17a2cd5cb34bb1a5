"""One run of sqd_mpi that watches the memory of the GPU, for benchmarks/gpu.py.

    python benchmarks/gpu_child.py MEMORY.json run input.h5 -o result.h5 --backend gpu ...

What stands after the first file are arguments of `python -m sqd_mpi`. The file gets the most bytes that arrays took on
the device of this process at any time, beyond what was taken when it was opened.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class WatchedDevice:
    """Notes the most memory that the arrays of a device take; the device works as before."""

    def __init__(self, device: Any):
        self.peak_bytes = 0
        self._memory, self._empty = device.memory, device.empty
        self._before = self._taken()
        device.empty = self.empty

    def _taken(self) -> int:
        free, total = self._memory()
        return int(total - free)

    def empty(self, *arguments: Any) -> Any:
        """A new array of the device."""
        array = self._empty(*arguments)
        self.peak_bytes = max(self.peak_bytes, self._taken() - self._before)
        return array


def open_watched() -> WatchedDevice:
    """The device of this process, watched; the emulated one counts its own arrays only."""
    from sqd_mpi.backends.gpu import process_device

    found = process_device.open_device(say=lambda text: print(text, file=sys.stderr))
    if found.kind == "host":
        found = type(found)(memory_bytes=found.memory()[0])
        process_device.close_device()
        process_device._process_device.append(found)
    return WatchedDevice(found)


def main() -> int:
    """Run the command and write what was seen."""
    from sqd_mpi.app.cli import main as run

    watched = open_watched()
    code = run(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps({"peak_bytes": watched.peak_bytes}) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
