"""How busy the machine is with other work: a time taken on a shared machine is worth what this says."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

QUIET_CORES = 0.1
"""A sample counts as undisturbed if other processes used less than this many cores on average."""


class Watch:
    """Wall time, and the cores that others used meanwhile, from its making to `stop`."""

    def __init__(self) -> None:
        """Starts."""
        self.started = time.perf_counter()
        self.busy = busy_seconds()
        self.own = own_seconds()

    def stop(self) -> tuple[float, float | None]:
        """Returns the wall time in seconds and the mean number of cores that other processes used.

        The second is None where the system does not say. Own work counts once its process has ended.
        """
        wall = time.perf_counter() - self.started
        now = busy_seconds()
        if self.busy is None or now is None or wall <= 0:
            return wall, None
        return wall, max(0.0, (now - self.busy) - (own_seconds() - self.own)) / wall


def wait_until_quiet(limit: float) -> bool:
    """Returns whether two seconds without other work were seen within `limit` seconds; True at once for no limit."""
    deadline = time.monotonic() + limit
    while limit > 0:
        watch = Watch()
        time.sleep(2.0)
        others = watch.stop()[1]
        if others is None or others < QUIET_CORES:
            return True
        if time.monotonic() > deadline:
            return False
    return True


def busy_seconds() -> float | None:
    """Returns the seconds that all cores together have worked since the machine was started."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return None
    # user, nice, system, irq, softirq, steal; idle and waiting for disks left out.
    ticks = [int(fields[position]) for position in (0, 1, 2, 5, 6, 7)]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Returns the seconds of CPU that this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
