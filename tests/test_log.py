"""The log and the timers."""

from __future__ import annotations

import io
import math
import time

import pytest

from sqd_mpi.errors import as_typed
from sqd_mpi.log import Iteration, Log
from sqd_mpi.timing import Timers


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Returns True."""
        return True


def row(iteration: int = 1, energy=-76.23594663081234, change: float = math.nan, residual_norm=0.5) -> Iteration:
    """Returns a line with harmless values."""
    return Iteration(iteration, 2, energy, change, residual_norm, 3, 1.5)


def test_line_has_every_column_and_ten_digits():
    """The line holds the numbers in order."""
    columns = row(7, change=-1.25e-7).line().split()
    assert columns == ["7", "2", "-76.235946630812", "-1.250e-07", "5.000e-01", "3", "1.50", "-"]


def test_first_line_has_no_change():
    """A change that is not known yet is a dash."""
    assert row().line().split()[3] == "-"


def test_batch_log_has_a_header_and_a_line_per_iteration():
    """Nothing but plain lines goes into a file."""
    stream = io.StringIO()
    with Log(stream=stream) as log:
        log.iteration(row(1))
        log.iteration(row(2))
        log.info("done")
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["iter", "1", "2", "done"]
    assert len(lines[0]) == len(lines[1])


def test_a_second_solve_has_its_own_header():
    """Closing ends the table."""
    stream = io.StringIO()
    log = Log(stream=stream)
    for _ in range(2):
        log.iteration(row())
        log.close()
    assert stream.getvalue().count("energy") == 2


def test_a_warning_that_comes_with_every_solve_is_printed_once():
    stream = io.StringIO()
    with Log(0, stream) as log:
        for text in ("one", "two", "one"):
            log.warning_once(text)
    assert log.warnings == ["one", "two"]
    assert stream.getvalue().count("one") == 1


@pytest.mark.parametrize("rank", [-1, 1, 5])
def test_other_ranks_are_silent_but_remember_warnings(rank):
    """Only rank 0 prints."""
    stream = Terminal()
    with Log(rank, stream) as log:
        log.info("text")
        log.warning("text")
        log.error("text")
        log.iteration(row())
    assert stream.getvalue() == ""
    assert log.warnings == ["text"]


def test_messages_name_the_program():
    """Warnings and errors say where they come from."""
    stream = io.StringIO()
    log = Log(stream=stream)
    log.warning("a [bold] word")
    log.error("another")
    assert stream.getvalue() == "sqd_mpi: warning: a [bold] word\nsqd_mpi: error: another\n"


def test_live_line_on_a_terminal():
    """A terminal gets the messages, the live line and at the end the last iteration."""
    stream = Terminal()
    with Log(stream=stream) as log:
        log.iteration(row(1))
        log.iteration(row(2))
        log.info("a message with [brackets]")
        log.iteration(row(3))
    text = stream.getvalue()
    assert "a message with [brackets]" in text
    assert text.splitlines()[-1].split()[-8:] == row(3).line().split()


def test_messages_name_options_as_their_reader_types_them():
    """In Python without hyphens, but what is remembered for the file is as it was written."""
    stream = io.StringIO()
    log = Log(stream=stream)
    log.warning("--spin-penalty is too small")
    assert stream.getvalue() == "sqd_mpi: warning: spin_penalty is too small\n"
    with as_typed():
        log.info("go on with --resume")
    assert stream.getvalue().endswith("go on with --resume\n") and log.warnings == ["--spin-penalty is too small"]


def test_timers_accumulate_and_nest():
    """Phases add up, also when an error leaves them."""
    timers = Timers()
    for _ in range(2):
        with timers("outer"), timers("inner"):
            time.sleep(0.01)
    with pytest.raises(KeyError), timers("outer"):
        raise KeyError
    assert list(timers.seconds) == ["inner", "outer"]
    assert timers.seconds["outer"] >= timers.seconds["inner"] >= 0.02


def test_energies_with_a_penalty_are_headed_so():
    lines = []
    for penalised in (False, True):
        stream = io.StringIO()
        Log(stream=stream).iteration(Iteration(1, 1, -1.5, float("nan"), 0.1, 1, 0.5, None, penalised))
        lines.append(stream.getvalue().splitlines())
    (plain, first), (header, second) = lines
    assert first == second and len(header) == len(plain)
    assert plain.split()[2] == "energy" and header.split()[2:4] == ["with", "penalty"] and "energy" not in header
