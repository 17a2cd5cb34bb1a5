"""The log and the timers."""

from __future__ import annotations

import io
import math
import time

import numpy as np
import pytest

from sqd_mpi.log import COMPILE_NOTICE, Iteration, Log, Timers
from tests.waiting import wait_until


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


def test_several_roots_give_lowest_energy_and_largest_residual():
    """Several roots make one line."""
    columns = row(energy=np.array([-1.5, -2.5]), residual_norm=[1e-3, 1e-2]).line().split()
    assert float(columns[2]) == -2.5
    assert float(columns[4]) == 1e-2


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
        with log.compiling(delay=0.0):
            time.sleep(0.05)
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


def test_compiling_speaks_only_if_slow():
    """A warm cache needs no message."""
    stream = io.StringIO()
    log = Log(stream=stream)
    with log.compiling():
        pass
    assert stream.getvalue() == ""
    with log.compiling(delay=0.01):
        wait_until(stream.getvalue)
    assert stream.getvalue() == COMPILE_NOTICE + "\n"


def test_compiling_stops_the_timer_when_it_fails():
    """An error inside passes through, and no message follows."""
    stream = io.StringIO()
    with pytest.raises(KeyError), Log(stream=stream).compiling(delay=0.05):
        raise KeyError
    time.sleep(0.1)
    assert stream.getvalue() == ""


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
