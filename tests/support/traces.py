"""Traces made up for tests."""

from __future__ import annotations

import numpy as np

from sqd_mpi.app.trace import COMMUNICATION, Trace, Tracer
from sqd_mpi.distribution.process_grid import ProcessGrid


def alone() -> ProcessGrid:
    """Returns the grid of one process."""
    return ProcessGrid(None, (1, 1, 1, 1))


def small_tracer(limit: int = 100) -> Tracer:
    """Returns a tracer with a phase in a phase and two blocks on their way."""
    tracer = Tracer(limit)
    tracer.add("mixed", 11.0, 12.5, {"da": 0, "db": 1})
    tracer.add("sigma", 10.0, 13.0)
    tracer._keep((COMMUNICATION, "slide", ("bytes", 8)), 10.5, 12.0)
    tracer._keep((COMMUNICATION, "slide", ("bytes", 16)), 11.0, 12.25)
    return tracer


def make_trace(events: list[tuple[str, int, int, float, float]], n_ranks: int = 1) -> Trace:
    """Returns a trace of (name, rank, thread, start, end)."""
    names = sorted({event[0] for event in events})
    columns = list(zip(*events, strict=True))
    start, end = np.array(columns[3], float), np.array(columns[4], float)
    places = [np.array(values, np.intp) for values in ([names.index(name) for name in columns[0]], *columns[1:3])]
    return Trace({"n_ranks": n_ranks, "grid": [n_ranks, 1, 1, 1], "n_threads": 1}, names, *places, start, end - start)


def fake_trace(n_ranks: int, n_sigma: int = 4) -> Trace:
    """Returns the trace of a run in which rank k computes 10 + k ms in every application, and waits for the last."""
    events: list[tuple[str, int, int, float, float]] = []
    longest = 0.010 + 0.001 * (n_ranks - 1)
    for rank in range(n_ranks):
        events += [("start-up", rank, 0, 0.0, 0.5), ("warm-up", rank, 0, 0.5, 1.0), ("structure", rank, 0, 1.0, 1.1)]
        for k in range(n_sigma):
            begin = 1.1 + k * (longest + 0.010)
            done = begin + 0.002 + 0.010 + 0.001 * rank
            end = begin + 0.002 + longest
            events += [
                ("collect", rank, 0, begin, begin + 0.002),
                ("mixed", rank, 0, begin + 0.002, done - 0.004),
                ("alpha", rank, 0, done - 0.004, done - 0.002),
                ("beta", rank, 0, done - 0.002, done),
                ("slide", rank, 1, begin + 0.002, begin + 0.006),
                ("scatter", rank, 0, done, end + 0.001),
                ("sigma", rank, 0, begin, end + 0.001),
                ("vectors", rank, 0, end + 0.001, end + 0.004),
                ("reduce", rank, 0, end + 0.004, end + 0.005),
            ]
    return make_trace(events, n_ranks)
