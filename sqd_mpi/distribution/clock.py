"""How far the clocks of ranks are apart."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from sqd_mpi.distribution.ranks import Ranks

_QUESTIONS = 16


def clock_offset(ranks: Ranks, host: str | None = None, clock: Callable[[], float] = perf_counter) -> float:
    """Seconds that the clock of rank 0 is ahead of the clock of this rank.

    Ranks of one host share a monotonic clock. The first rank of every other host asks rank 0 for its time and takes
    the answer that came back fastest: F. Cristian, Distributed Computing 3, 146 (1989). Its error is at most half of
    the time that a message takes there and back.

    Collective over the ranks.

    Args:
        ranks: those whose clocks are compared.
        host: name of what shares a clock; by default that of this node.
        clock: clock in question.
    """
    hosts = ranks.gather_objects(_host_of_clock() if host is None else host)
    leader = hosts.index(hosts[ranks.rank])
    mine = 0.0
    for asking in sorted({hosts.index(name) for name in hosts} - {0}):
        if ranks.rank == 0:
            for _ in range(_QUESTIONS):
                ranks.receive_object(asking)
                ranks.send_object(clock(), asking)
        elif ranks.rank == asking:
            mine = _ask_for_offset(ranks, clock)
    return float(ranks.gather_objects(mine)[leader])


def _host_of_clock() -> str:
    """What ranks with the same monotonic clock have in common: the boot of their kernel, or else the host's name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return socket.gethostname()


def _ask_for_offset(ranks: Ranks, clock: Callable[[], float]) -> float:
    answers = []
    for _ in range(_QUESTIONS):
        asked = clock()
        ranks.send_object(None, 0)
        theirs = ranks.receive_object(0)
        answered = clock()
        answers.append((answered - asked, theirs - (asked + answered) / 2))
    return min(answers)[1]
