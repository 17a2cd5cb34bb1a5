"""Where output goes: which rank speaks, and whether a terminal shows colours."""

from __future__ import annotations

import os
import sys
from typing import Any

_CODES = {"red": 31, "yellow": 33}


def launcher_rank() -> int:
    """Returns the rank that the launcher gave this process, without MPI; 0 if there is no launcher."""
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def colored(text: str, color: str, stream: Any = None) -> str:
    """Returns text in a colour if the stream is a terminal that shows colours and NO_COLOR is not set.

    Args:
        text: to be shown.
        color: red or yellow.
        stream: standard error by default.
    """
    stream = sys.stderr if stream is None else stream
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb") or not stream.isatty()
    return text if plain else f"\033[1;{_CODES[color]}m{text}\033[0m"
