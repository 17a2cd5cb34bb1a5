"""What this machine has for a process: cores, memory, the name of its processor."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""Folder of this package; what starts Python on it puts the folder above on the search path."""


def available_cores() -> int:
    """The number of cores in the affinity mask of this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory(
    control_groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """The bytes of memory that this node, or this job's control group on it, has left.

    Args:
        control_groups: where the control groups are mounted.
        membership: file that names the groups of this process.
    """
    import psutil

    return int(min([psutil.virtual_memory().available, *_control_group_memory(control_groups, membership)]))


def _control_group_memory(root: Path, membership: Path) -> list[int]:
    """The bytes left below every memory limit of the control groups, version 2 or 1, of this process."""
    left = []
    for line in _read_text(membership).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        folder = top / name.lstrip("/")
        # A container may see its own group as the root, so that the named folder does not exist.
        for group in {top, folder, *(parent for parent in folder.parents if parent.is_relative_to(top))}:
            limit = _read_text(group / "memory.max") or _read_text(group / "memory.limit_in_bytes")
            used = _read_text(group / "memory.current") or _read_text(group / "memory.usage_in_bytes")
            if limit.isdigit() and used.isdigit():
                cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _read_text(group / "memory.stat"), re.MULTILINE)
                left.append(max(int(limit) - int(used) + int(cached[1] if cached else 0), 0))
    return left


def _read_text(path: Path) -> str:
    """The text of a file without its last line break, or nothing if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor_name() -> str:
    """What the system calls the processors of this node."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
