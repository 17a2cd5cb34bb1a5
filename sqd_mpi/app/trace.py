"""Time-lines: the phases of every rank with start and duration, in a file that Perfetto opens and `report` sums up.

The file holds the Trace Event Format of Chrome (JSON): a process is a rank; its thread "compute" shows the phases of
the program, nested as in the code, and its threads "communication" the ket blocks on their way to this rank.
"""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi._version import __version__
from sqd_mpi.distribution.clock import clock_offset
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.resources import available_memory
from sqd_mpi.timing import NO_DETAIL, Timers

COMPUTE, COMMUNICATION = 0, 1  # threads; further ones of communication are 2, 3, ...
MOST_EVENTS = 500_000  # of a rank: 10 MB of memory, about 60 MB in the file
MOST_EVENTS_OF_ALL = 20_000_000
LEAST_EVENTS = 20_000  # of a rank, however many there are

_PIECE_EVENTS = 10_000  # written or sent at a time, about 1.5 MB
_KNOWN_AS = "sqd_mpi"


def event_limit(n_ranks: int) -> int:
    """How many events a rank keeps: fewer where there are many ranks, so that the file stays readable."""
    return max(LEAST_EVENTS, min(MOST_EVENTS, MOST_EVENTS_OF_ALL // n_ranks))


class Tracer(Timers):
    """Timers that also keep the start and end of every phase, up to a number of them; later ones are only counted."""

    def __init__(self, limit: int = MOST_EVENTS) -> None:
        """Start with nothing.

        Args:
            limit: number of events to keep, 20 bytes each.
        """
        super().__init__()
        self.n_dropped = 0
        """Number of events beyond the limit."""
        self._limit = limit
        self._kinds: dict[tuple[Any, ...], int] = {}  # (thread, name, *detail) -> code
        self._codes, self._starts, self._ends = array("i"), array("d"), array("d")
        self._clocks: list[tuple[float, float]] = []  # (time here, time on rank 0 minus time here)

    def add(self, name: str, start: float, end: float, detail: Mapping[str, int] = NO_DETAIL) -> None:
        """Add to phase `name` and keeps the event."""
        super().add(name, start, end)
        self._keep((COMPUTE, name, *detail.items()), start, end)

    def beside(self, name: str, start: float, **detail: int) -> None:
        """Keep an event of the communication that goes on beside the phases, from start until now."""
        self._keep((COMMUNICATION, name, *detail.items()), start, perf_counter())

    def _keep(self, kind: tuple[Any, ...], start: float, end: float) -> None:
        if len(self._codes) >= self._limit:
            self.n_dropped += 1
            return
        self._codes.append(self._kinds.setdefault(kind, len(self._kinds)))
        self._starts.append(start)
        self._ends.append(end)

    def __len__(self) -> int:
        """The number of events kept."""
        return len(self._codes)

    def align(self, ranks: Ranks) -> None:
        """Compare the clock with that of rank 0; at the start and the end of a run, so that drift is seen.

        Collective over the ranks.
        """
        self._clocks.append((perf_counter(), clock_offset(ranks)))

    def first(self) -> float:
        """The start of the first event, seconds of the clock of rank 0; infinity without events."""
        return float(self._on_rank_0(np.array(self._starts)).min(initial=np.inf))

    def events(self, origin: float) -> tuple[list[tuple[Any, ...]], NDArray[np.intp], NDArray[Any], NDArray[Any]]:
        """The kinds, and for every event the number of its kind, its start and its end.

        Args:
            origin: time on the clock of rank 0 from which starts and ends are counted, in seconds.
        """
        starts, ends = (self._on_rank_0(np.array(times)) - origin for times in (self._starts, self._ends))
        return list(self._kinds), np.array(self._codes, np.intp), starts, ends

    def _on_rank_0(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Times on the clock of rank 0: what was measured at first and at last, and a line between."""
        here, offsets = np.array(self._clocks or [(0.0, 0.0)]).T
        rate = (offsets[-1] - offsets[0]) / (here[-1] - here[0]) if here[-1] > here[0] else 0.0
        return times + offsets[0] + rate * (times - here[0])


def write(path: Path, tracer: Tracer, process_grid: ProcessGrid, about: Mapping[str, Any]) -> str | None:
    """Write the file of all ranks; rank 0 holds a bounded piece of it at a time.

    Collective over the grid.

    Args:
        path: the file; packed by gzip if its name ends in .gz.
        tracer: events of this rank.
        process_grid: the process grid.
        about: what else the file should say of the run, JSON values.

    Returns:
        On rank 0 a sentence on what went wrong, if something did; else None.
    """
    # What all ranks have.
    tracer.align(process_grid.ranks)
    mine = (tracer.first(), socket.gethostname(), len(tracer), tracer.n_dropped)
    firsts, hosts, n_events, n_dropped = zip(*process_grid.ranks.gather_objects(mine), strict=True)
    incoming = process_grid.ranks.pieces_of_all_ranks(_pieces(tracer, process_grid, hosts, min(firsts)))
    head = {
        "creator": f"{_KNOWN_AS} {__version__}",
        **about,
        "grid": list(process_grid.shape),
        "n_ranks": process_grid.n_ranks,
        "hosts": hosts,
        "n_events": sum(n_events),
        "n_dropped": sum(n_dropped),
    }

    # Rank 0 writes, piece after piece.
    try:
        if process_grid.rank == 0:
            with records.new_binary_file(path) as stream:
                stream.write(f'{{"displayTimeUnit":"ms","otherData":{json.dumps(head)},\n"traceEvents":[\n'.encode())
                for piece in incoming:
                    stream.write(piece)
                stream.write(b'{"ph":"M","pid":0,"name":"process_sort_index","args":{"sort_index":0}}\n]}\n')
    except OSError as error:
        return f"the trace {path} could not be written: {error.strerror or error}"
    finally:
        for _ in incoming:  # the other ranks send theirs here, also if rank 0 cannot write
            pass

    # Of what is missing.
    cut = sum(number > 0 for number in n_dropped)
    if cut:
        return (
            f"the trace {path} is cut: it has the first {max(n_events)} events of a rank; {sum(n_dropped)} later ones "
            f"of {cut} of {len(n_events)} ranks are missing"
        )
    return None


def _pieces(tracer: Tracer, process_grid: ProcessGrid, hosts: tuple[str, ...], origin: float) -> Iterator[bytes]:
    """Yield the events of this rank as text, each followed by a comma and a line break."""
    rank = process_grid.rank
    kinds, codes, starts, ends = tracer.events(origin)
    threads = np.array([thread for thread, *_ in kinds], np.intp)[codes]
    beside = np.flatnonzero(threads == COMMUNICATION)
    threads[beside] += _lanes(starts[beside], ends[beside])
    yield _names(process_grid, hosts[rank], int(threads.max(initial=COMPUTE)))
    texts = [f'"name":{json.dumps(name)},"args":{json.dumps(dict(detail))}' for _, name, *detail in kinds]
    for begin in range(0, len(codes), _PIECE_EVENTS):
        chosen = slice(begin, begin + _PIECE_EVENTS)
        columns = (threads[chosen], codes[chosen], 1e6 * starts[chosen], 1e6 * (ends - starts)[chosen])
        yield "".join(
            f'{{"ph":"X","pid":{rank},"tid":{thread},{texts[code]},"ts":{start:.3f},"dur":{duration:.3f}}},\n'
            for thread, code, start, duration in zip(*(column.tolist() for column in columns), strict=True)
        ).encode()


def _names(process_grid: ProcessGrid, host: str, last_thread: int) -> bytes:
    """The events that name a rank and its threads."""
    here, rank = process_grid.coordinates, process_grid.rank
    place = f"rank {rank} (ia {here.ia}, ib {here.ib}, it {here.it}, ir {here.ir})"
    named: list[tuple[int, str, Any]] = [(0, "process_name", place), (0, "process_labels", host)]
    named.append((0, "process_sort_index", rank))
    named += [(thread, "thread_name", _thread_name(thread)) for thread in range(last_thread + 1)]
    return "".join(
        json.dumps({"ph": "M", "pid": rank, "tid": thread, "name": what, "args": {_argument(what): value}}) + ",\n"
        for thread, what, value in named
    ).encode()


def _argument(what: str) -> str:
    """Under which name a naming event has its value."""
    return {"process_labels": "labels", "process_sort_index": "sort_index"}.get(what, "name")


def _thread_name(thread: int) -> str:
    return "compute" if thread == COMPUTE else "communication" + (f" {thread}" if thread > COMMUNICATION else "")


def _lanes(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.intp]:
    """For every event the lowest lane in which it overlaps no earlier one."""
    lanes = np.zeros(len(starts), np.intp)
    free: list[float] = []  # when each lane becomes free
    for event in np.argsort(starts, kind="stable"):
        lane = next((k for k, end in enumerate(free) if end <= starts[event]), len(free))
        free[lane : lane + 1] = [ends[event]]
        lanes[event] = lane
    return lanes


@dataclass(frozen=True, eq=False)
class Trace:
    """What a trace file holds: one entry of every array per event, in the order of the file."""

    about: dict[str, Any]
    """What the file says of the run: creator, input, grid, n_ranks, hosts, n_dropped, ..."""
    names: list[str]
    """Names of the phases."""
    name: NDArray[np.intp] = field(repr=False)
    """(n,) place of its name in `names`."""
    rank: NDArray[np.intp] = field(repr=False)
    """(n,) rank."""
    thread: NDArray[np.intp] = field(repr=False)
    """(n,) COMPUTE, or COMMUNICATION and above."""
    start: NDArray[np.float64] = field(repr=False)
    """(n,) seconds since the start of the first rank."""
    seconds: NDArray[np.float64] = field(repr=False)
    """(n,) duration."""

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return int(self.about["n_ranks"])

    @property
    def end(self) -> float:
        """End of the last event, seconds."""
        return float((self.start + self.seconds).max(initial=0.0))


def read(path: str | Path) -> Trace:
    """What a trace file holds.

    Raises:
        InputError: if the file is missing, is no trace, or none of sqd_mpi.
    """
    room = available_memory() // 4
    names: dict[str, int] = {}
    numbers, places = array("d"), array("q")  # (start, duration) and (name, rank, thread) of every event

    def collect(decoded: dict[str, Any]) -> dict[str, Any] | None:
        """Keep an event as numbers, so that the objects of a large file never lie in memory together."""
        if decoded.get("ph") != "X":
            return decoded
        numbers.extend((float(decoded["ts"]), float(decoded["dur"])))
        places.extend((names.setdefault(decoded["name"], len(names)), decoded["pid"], decoded["tid"]))
        return None

    # Read and decode; whatever goes wrong, the file is no trace.
    try:
        with gzip.open(path, "rb") if Path(path).suffix == ".gz" else open(path, "rb") as stream:
            text = stream.read(room + 1)
        if len(text) > room:  # a small packed file can hold any length
            raise InputError(f"{path} unpacks to more than {room / 2**30:.3g} GiB, for which there is no room")
        content = json.loads(text, object_hook=collect)
        del text

        # Times and ranks must be possible ones.
        about = content["otherData"]
        n_ranks = about["n_ranks"]
        if not str(about["creator"]).startswith(_KNOWN_AS) or type(n_ranks) is not int or n_ranks < 1:
            raise KeyError("creator")
        ranks = np.array(places, np.intp).reshape(-1, 3)[:, 1]
        if not np.isfinite(numbers).all() or np.any((ranks < 0) | (ranks >= n_ranks)):
            raise ValueError("an event at no time or of no rank")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error):
        raise InputError(f"{path} is not a trace that sqd_mpi wrote; `run` writes one with --trace FILE") from None

    name, rank, thread = np.array(places, np.intp).reshape(-1, 3).T
    start, seconds = 1e-6 * np.array(numbers).reshape(-1, 2).T
    return Trace(about, list(names), name, rank, thread, start, seconds)


def innermost_seconds(trace: Trace) -> NDArray[np.float64]:
    """How long every rank was in every phase and in none inside it, (n_ranks, n_names) seconds."""
    compute = np.flatnonzero(trace.thread == COMPUTE)
    order = compute[np.lexsort((-trace.seconds[compute], trace.start[compute], trace.rank[compute]))]
    spent = np.zeros((trace.n_ranks, len(trace.names)))
    open_phases: list[tuple[int, float, int]] = []  # (rank, end, name), the innermost last

    columns = (trace.rank[order], trace.name[order], trace.start[order], trace.seconds[order])
    for rank, name, start, seconds in zip(*(column.tolist() for column in columns), strict=True):
        while open_phases and (open_phases[-1][0] != rank or open_phases[-1][1] <= start):
            open_phases.pop()

        # What goes to this phase is taken from the one around it, which it must not outlast: the file rounds times.
        end = start + seconds
        if open_phases:
            _, last, outer = open_phases[-1]
            end = min(end, last)
            spent[rank, outer] -= end - start
        spent[rank, name] += end - start
        open_phases.append((rank, end, name))
    return spent
