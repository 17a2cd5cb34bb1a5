"""How long tests wait: for what must come, not for what should be quick; a busy machine is no failure."""

from __future__ import annotations

import time
from collections.abc import Callable

# No program of the tests takes as long, even beside ten busy processes on two cores: one that does hangs. Less than the
# limit of pytest for one test (pyproject.toml).
HANG = 900  # seconds


def wait_until(ready: Callable[[], object]) -> None:
    """Waits until something is true.

    Raises:
        TimeoutError: it does not come.
    """
    deadline = time.monotonic() + HANG
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came in {HANG} s")
        time.sleep(0.005)
