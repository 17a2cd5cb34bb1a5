"""Time-lines: what is recorded, how it is written and read back, and what a run on several ranks puts into it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from sqd_mpi.app import trace
from sqd_mpi.app.trace import COMMUNICATION, COMPUTE, Tracer
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.timing import Timed, Timers
from tests.support.problems import make_hamiltonian, random_strings
from tests.support.runs import check_refusal, run
from tests.support.traces import alone, make_trace, small_tracer

N_RANKS = 4
TASKS = ("mixed", "alpha", "beta")


def test_tracer_counts_like_timers():
    """Phases add up as without a trace; each stay is one event."""
    tracer = Tracer()
    for da in range(2):
        with tracer("outer"), tracer("inner", da=da, db=3):
            pass
    assert list(tracer.seconds) == ["inner", "outer"]
    kinds, codes, starts, ends = tracer.events(0.0)
    assert [kinds[code] for code in codes] == [
        (COMPUTE, "inner", ("da", 0), ("db", 3)),
        (COMPUTE, "outer"),
        (COMPUTE, "inner", ("da", 1), ("db", 3)),
        (COMPUTE, "outer"),
    ]
    assert np.all(starts <= ends)
    for name in ("inner", "outer"):
        chosen = [kinds[code][1] == name for code in codes]
        assert tracer.seconds[name] == pytest.approx((ends - starts)[chosen].sum(), abs=1e-12)


def test_an_error_leaves_the_phase():
    """What an exception ended is there as well."""
    tracer = Tracer()
    with pytest.raises(KeyError), tracer("phase"):
        raise KeyError
    assert len(tracer) == 1 and list(tracer.seconds) == ["phase"]


def test_beside_ends_now_and_adds_to_no_phase():
    """Slides are events, not seconds of the program; ordinary timers ignore them."""
    tracer, start = Tracer(), perf_counter()
    tracer.beside("slide", start, da=1)
    seconds = perf_counter() - start
    Timers().beside("slide", start, da=1)
    kinds, _, starts, ends = tracer.events(start)
    assert kinds == [(COMMUNICATION, "slide", ("da", 1))] and tracer.seconds == {}
    assert starts[0] == 0.0 and 0.0 <= ends[0] <= seconds


def test_the_limit_bounds_events_and_not_seconds():
    """Later events are counted; the sums go on."""
    tracer = Tracer(limit=3)
    for _ in range(5):
        tracer.add("phase", 1.0, 2.0)
    assert (len(tracer), tracer.n_dropped, tracer.seconds) == (3, 2, {"phase": 5.0})


@pytest.mark.parametrize(("n_ranks", "limit"), [(1, 500_000), (40, 500_000), (100, 200_000), (10**6, 20_000)])
def test_many_ranks_keep_fewer_events_each(n_ranks, limit):
    """The whole file stays bounded, but every rank keeps some."""
    assert trace.event_limit(n_ranks) == limit


@pytest.mark.parametrize(
    ("clocks", "expected"),
    [
        ([], [100.0, 150.0, 200.0]),
        ([(100.0, -90.0)], [10.0, 60.0, 110.0]),
        ([(100.0, -90.0), (200.0, -89.0)], [10.0, 60.5, 111.0]),
    ],
)
def test_times_are_those_of_rank_0(clocks, expected):
    """An offset moves them, two offsets stretch them as well."""
    tracer = Tracer()
    tracer._clocks = clocks
    for time in (100.0, 150.0, 200.0):
        tracer.add("phase", time, time)
    assert tracer.events(0.0)[2] == pytest.approx(expected)
    assert tracer.first() == pytest.approx(expected[0])


def test_lanes_do_not_overlap():
    """Each event takes the lowest lane that is free."""
    starts, ends = np.array([0.0, 5.0, 1.0, 3.0, 6.0]), np.array([4.0, 9.0, 3.0, 5.0, 7.0])
    assert trace._lanes(starts, ends).tolist() == [0, 0, 1, 1, 1]


def test_timed_counts_calls():
    """The functions of a module do what they did, in a phase."""
    timers = Timers()
    timed = Timed(np, timers, "vectors")
    assert timed.add(1, 2) == 3 and timed.add(3, 4) == 7
    assert list(timers.seconds) == ["vectors"]
    with pytest.raises(AttributeError):
        _ = timed.no_such_function


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_file_and_back(tmp_path, name):
    """The file is valid JSON in the Trace Event Format; reading gives the events back, to a nanosecond."""
    path = tmp_path / name
    assert trace.write(path, small_tracer(), alone(), {"input": 'a "b".h5', "n_threads": 2}) is None
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    content = path.read_bytes()
    text = gzip.decompress(content) if name.endswith("gz") else content
    decoded = json.loads(text)
    events = [event for event in decoded["traceEvents"] if event["ph"] == "X"]
    assert {(e["name"], e["pid"], e["tid"], e["ts"], e["dur"]) for e in events} == {
        ("sigma", 0, 0, 0.0, 3e6),
        ("mixed", 0, 0, 1e6, 1.5e6),
        ("slide", 0, 1, 0.5e6, 1.5e6),
        ("slide", 0, 2, 1e6, 1.25e6),
    }
    assert next(e["args"] for e in events if e["name"] == "mixed") == {"da": 0, "db": 1}
    named = {(e["name"], e["tid"]): e["args"] for e in decoded["traceEvents"] if e["ph"] == "M" and "tid" in e}
    assert named["process_name", 0]["name"] == "rank 0 (ia 0, ib 0, it 0, ir 0)"
    assert [named["thread_name", thread]["name"] for thread in range(3)] == [
        "compute",
        "communication",
        "communication 2",
    ]
    about = decoded["otherData"]
    assert (about["input"], about["grid"], about["n_ranks"], about["n_threads"]) == ('a "b".h5', [1, 1, 1, 1], 1, 2)
    assert (len(about["hosts"]), about["n_events"], about["n_dropped"]) == (1, 4, 0)
    found = trace.read(path)
    assert found.about == about and found.end == 3.0
    assert [found.names[k] for k in found.name] == ["mixed", "sigma", "slide", "slide"]
    assert found.seconds.tolist() == pytest.approx([1.5, 3.0, 1.5, 1.25])
    assert found.thread.tolist() == [0, 0, 1, 2]


def test_a_cut_trace_says_so(tmp_path):
    """The sentence counts what is missing, and so does the file."""
    path = tmp_path / "run.json"
    sentence = trace.write(path, small_tracer(limit=3), alone(), {})
    assert sentence is not None and "first 3 events of a rank; 1 later ones of 1 of 1 ranks are missing" in sentence
    assert trace.read(path).about["n_dropped"] == 1 and len(trace.read(path).name) == 3


def test_long_traces_are_written_in_pieces(tmp_path, monkeypatch):
    """No piece holds more than its share of the events."""
    monkeypatch.setattr(trace, "_PIECE_EVENTS", 10)
    tracer = Tracer()
    for k in range(95):
        tracer.add("phase", float(k), k + 0.5)
    pieces = list(trace._pieces(tracer, alone(), ("here",), 0.0))
    assert [piece.count(b'"ph":"X"') for piece in pieces] == [0] + 9 * [10] + [5]
    trace.write(tmp_path / "run.json", tracer, alone(), {})
    assert trace.read(tmp_path / "run.json").start.tolist() == list(range(95))


def test_a_full_disk_costs_the_trace_only(tmp_path, monkeypatch):
    """The error becomes a sentence, and no part of the file stays."""

    @contextmanager
    def full(path: Any) -> Iterator[Any]:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(records, "new_binary_file", full)
    sentence = trace.write(tmp_path / "run.json", small_tracer(), alone(), {})
    assert sentence is not None and sentence.endswith("could not be written: No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_new_binary_file_keeps_the_former_one(tmp_path):
    """An error on the way leaves the file of that name as it was."""
    path = tmp_path / "run.json"
    path.write_text("former")
    with pytest.raises(ZeroDivisionError), records.new_binary_file(path) as stream:
        stream.write(b"new")
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"] and path.read_text() == "former"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b'{"traceEvents": []}',
        b'{"traceEvents": [], "otherData": {"creator": "another", "n_ranks": 1}}',
        b'{"traceEvents": [{"ph": "X", "ts": 1}], "otherData": {"creator": "sqd_mpi 0.1.0", "n_ranks": 1}}',
        gzip.compress(b"{}", mtime=0)[:-5],
        b"\xff\xfe\x00",
    ],
)
@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_other_files_are_refused(tmp_path, name, content):
    """One sentence for whatever is no trace of ours."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        trace.read(tmp_path / name)


def test_what_is_inside_a_phase_is_taken_from_it():
    """At every moment the innermost phase counts; ranks and communication do not mix."""
    found = make_trace(
        [
            ("b", 0, 0, 1.0, 2.0),
            ("c", 0, 0, 3.0, 4.0),
            ("d", 0, 0, 3.25, 3.5),
            ("a", 0, 0, 0.0, 5.0),
            ("slide", 0, 1, 0.0, 9.0),
            ("b", 0, 0, 6.0, 7.0),
            ("a", 1, 0, 0.5, 0.75),
        ],
        n_ranks=2,
    )
    assert found.names == ["a", "b", "c", "d", "slide"]
    assert trace.innermost_seconds(found).tolist() == [[3.0, 2.0, 0.75, 0.25, 0.0], [0.25, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("seed", range(5))
def test_random_nesting(seed):
    """All phases together are as long as the outermost ones."""
    rng = np.random.default_rng(seed)
    events: list[tuple[str, int, int, float, float]] = []

    def fill(first: float, last: float, depth: int) -> None:
        cuts = np.sort(rng.uniform(first, last, 2 * int(rng.integers(0, 4))))
        for start, end in cuts.reshape(-1, 2):
            events.append((f"phase {rng.integers(3)}", 0, 0, round(float(start), 3), round(float(end), 3)))
            if depth:
                fill(start, end, depth - 1)

    for k in range(3):
        events.append(("outer", 0, 0, 10.0 * k, 10.0 * k + 8.0))
        fill(10.0 * k, 10.0 * k + 8.0, 3)
    spent = trace.innermost_seconds(make_trace([events[k] for k in rng.permutation(len(events))]))
    assert np.all(spent >= -1e-12) and spent.sum() == pytest.approx(24.0)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Returns the directory of a run with a trace on four ranks, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("traced")
    hamiltonian, strings = make_hamiltonian(11, (5, 5), seed=3), random_strings(11, 5, 420, seed=3)
    options = {"threads": 1, "tol": 1e-3, "spin_flip": "off", "share_blocks": "off"}
    records.write_input(folder / "input.h5", hamiltonian, strings, strings, options)
    began = perf_counter()
    finished = run(folder, "input.h5", "--grid", "2,2,1,1", "--trace", "run.json.gz", ranks=N_RANKS)
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["input.h5", "result.h5", "run.json.gz"]
    return folder, perf_counter() - began


def test_every_event_of_a_run_is_inside_it(traced):
    """No start before that of the first rank, no end after that of the job; all ranks are there and named."""
    folder, seconds = traced
    found = trace.read(folder / "run.json.gz")
    assert set(found.rank.tolist()) == set(range(N_RANKS))
    assert found.start.min() == 0.0 and np.all(found.seconds >= 0.0) and found.end < seconds
    about, summary = found.about, records.read_summary(folder / "result.h5")
    assert (about["grid"], about["n_ranks"], about["input"]) == ([2, 2, 1, 1], N_RANKS, "input.h5")
    assert (about["n_dropped"], len(about["hosts"])) == (0, N_RANKS)
    assert about["n_events"] == len(found.name)
    assert about["run"] == records.read_run(folder / "result.h5")["run"]["id"] != ""
    assert found.end > summary["wall_seconds"] - 0.5


def test_phases_of_a_rank_are_nested_and_tasks_do_not_overlap(traced):
    """The kernels run one after another, all inside an application of the Hamiltonian."""
    found = trace.read(traced[0] / "run.json.gz")
    for rank in range(N_RANKS):
        mine = (found.rank == rank) & (found.thread == COMPUTE)
        tasks = np.flatnonzero(mine & np.isin(found.name, [found.names.index(kind) for kind in TASKS]))
        tasks = tasks[np.argsort(found.start[tasks])]
        start, end = found.start[tasks], (found.start + found.seconds)[tasks]
        assert len(tasks) > 0 and np.all(end[:-1] <= start[1:] + 2e-9)
        sigmas = np.flatnonzero(mine & (found.name == found.names.index("sigma")))
        around = np.searchsorted(np.sort(found.start[sigmas]), start, side="right") - 1
        assert np.all(end <= np.sort((found.start + found.seconds)[sigmas])[around] + 2e-9)


def test_sums_of_the_events_are_the_timings_of_the_result(traced):
    """Minimum, mean and maximum over the ranks agree for the phases of the iterations and of the start."""
    found, timings = trace.read(traced[0] / "run.json.gz"), records.read_run(traced[0] / "result.h5")["timings"]
    names = [*TASKS, "sigma", "collect", "scatter", "wait", "reduce", "vectors", "model space", "start-up", "warm-up"]
    assert set(names) <= set(timings)
    for name in names:
        chosen = found.name == found.names.index(name)
        sums = np.bincount(found.rank[chosen], found.seconds[chosen], N_RANKS)
        assert [sums.min(), sums.mean(), sums.max()] == pytest.approx(timings[name], rel=1e-6, abs=1e-9 * chosen.sum())


def test_slides_overlap_compute(traced):
    """Three ket blocks come for every application, at most two at a time, and kernels run while they travel."""
    found = trace.read(traced[0] / "run.json.gz")
    slides = found.name == found.names.index("slide")
    assert np.array_equal(slides, found.thread >= COMMUNICATION)
    assert found.thread[slides].max() == COMMUNICATION + 1
    for rank in range(N_RANKS):
        n_sigma = np.sum((found.rank == rank) & (found.name == found.names.index("sigma")))
        assert np.sum(slides & (found.rank == rank)) == 3 * n_sigma > 0
    tasks = (found.thread == COMPUTE) & np.isin(found.name, [found.names.index(kind) for kind in TASKS])
    end = found.start + found.seconds
    for event in np.flatnonzero(slides):
        mine = tasks & (found.rank == found.rank[event])
        during = np.minimum(end[mine], end[event]) - np.maximum(found.start[mine], found.start[event])
        assert during.max() > 0.0


def test_the_shift_and_size_of_blocks_are_told(traced):
    """Tasks say to which block they belong, slides how many bytes came."""
    with gzip.open(traced[0] / "run.json.gz") as stream:
        events = [event for event in json.load(stream)["traceEvents"] if event["ph"] == "X"]
    shifts = {(e["args"]["da"], e["args"]["db"]) for e in events if e["name"] == "mixed"}
    assert shifts == {(0, 0), (0, 1), (1, 0), (1, 1)}
    slides = [event["args"] for event in events if event["name"] == "slide"]
    assert {(args["da"], args["db"]) for args in slides} == shifts - {(0, 0)}
    assert all(0 < args["bytes"] <= 8 * 420 * 420 for args in slides)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trace", "input.h5"], ["it would replace the input file input.h5"]),
        (["--trace", "./result.h5"], ["--trace needs a file of its own", "is the result file"]),
        (["-o", "x.h5", "--trace", "x.h5.checkpoint"], ["--trace needs a file of its own", "is the checkpoint file"]),
        (["--trace", "missing/run.json"], ["cannot write missing/run.json", "does not exist"]),
        (["--trace", "."], ["it is a directory"]),
        (["--trace", "/dev/null"], ["/dev/null", "it is no ordinary file"]),
    ],
)
def test_bad_names_are_refused_before_the_work(tmp_path, arguments, words):
    """Exit code 2, one sentence, nothing written."""
    strings = random_strings(4, 2, 5)
    records.write_input(tmp_path / "input.h5", make_hamiltonian(4, (2, 2)), strings, strings)
    check_refusal(run(tmp_path, "input.h5", *arguments), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["input.h5"]


def test_a_stopped_run_leaves_its_trace(tmp_path):
    """The time limit ends the run with a checkpoint and the events so far."""
    strings = random_strings(8, 4, 60)
    options = {"threads": 1, "model_space": 4, "trace": "run.json"}
    records.write_input(tmp_path / "input.h5", make_hamiltonian(8, (4, 4)), strings, strings, options)
    finished = run(tmp_path, "input.h5", "--time-limit", "0.001")
    assert finished.returncode == 4, finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.h5", "result.h5.checkpoint", "run.json"]
    assert "checkpoint" in trace.read(tmp_path / "run.json").names


def test_a_file_that_unpacks_to_more_than_there_is_room_for_is_refused(tmp_path, monkeypatch):
    with gzip.open(tmp_path / "bomb.json.gz", "wb") as stream:
        stream.write(b'{"otherData": {}, "traceEvents": [' + b" " * 10**6 + b"]}")
    monkeypatch.setattr(trace, "available_memory", lambda: 10**6)
    with pytest.raises(InputError, match="unpacks to more than"):
        trace.read(tmp_path / "bomb.json.gz")
