"""Estimates of the time that is left, on made-up histories and on those of real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqd_mpi.log import as_text
from sqd_mpi.timing import FIRST_ESTIMATE, RemainingTime

HISTORIES = json.loads((Path(__file__).parent / "convergence_histories.json").read_text())


def ratios(history: dict[str, Any]) -> list[float]:
    """Returns estimate / truth after every iteration from the fourth to the last but one; 0 where there is none."""
    expected, norms = RemainingTime(history["tol"]), history["residual_norms"]
    found = []
    for k, row in enumerate(norms):
        expected.add([np.nan if value is None else value for value in row], 2.0 * k)
        left = len(norms) - 1 - k
        if k + 1 >= FIRST_ESTIMATE and left:
            found.append((expected.seconds() or 0.0) / (2.0 * left))
    return found


def test_histories_of_real_runs():
    """Of many problems; most estimates are right within a factor of two."""
    problems = {history["problem"].split(",")[0].split(" nroots")[0] for history in HISTORIES}
    assert len(problems) >= 6
    found = [ratio for history in HISTORIES for ratio in ratios(history)]
    right = np.mean([0.5 <= ratio <= 2.0 for ratio in found])
    assert len(found) > 800 and right > 0.9


def test_single_histories():
    """On nine of ten runs two of three estimates are right; where many close roots cross, fewer are."""
    shares = [np.mean([0.5 <= ratio <= 2.0 for ratio in ratios(history)]) for history in HISTORIES]
    assert np.mean([share > 2 / 3 for share in shares]) >= 0.9


def test_a_straight_line_is_followed_exactly():
    """Norms that fall tenfold each iteration; the slower root decides, with the factor of caution."""
    expected = RemainingTime(1e-6)
    for k in range(5):
        assert expected.seconds() is None if k < FIRST_ESTIMATE else expected.seconds() is not None
        expected.add([10.0 ** -(2 * k), 10.0**-k], 3.0 * k)
    assert expected.iterations() == pytest.approx(1.3 * 2.0)
    assert expected.seconds() == pytest.approx(1.3 * 6.0)


def test_nothing_is_known_where_norms_do_not_fall():
    """No estimate instead of a wrong one."""
    expected = RemainingTime(1e-6)
    for k in range(6):
        expected.add([1.0 + 0.1 * k], float(k))
    assert expected.iterations() is None and expected.seconds() is None


def test_limits():
    """What is converged needs nothing, one more iteration is the least, and the solver may give up first."""
    done, close, cut = RemainingTime(1e-2), RemainingTime(1e-3), RemainingTime(1e-30, max_iterations=7)
    for k in range(4):
        for expected in (done, close, cut):
            expected.add([1.01 * 10.0**-k], float(k))
    assert (done.iterations(), close.iterations(), cut.iterations()) == (0.0, 1.0, 3.0)


def test_exact_zeros_have_a_logarithm():
    """A root that was exact at once does not disturb the others."""
    expected = RemainingTime(1e-3)
    for k in range(4):
        expected.add([0.0, 2.0 * 10.0 ** (-k / 2)], float(k))
    assert expected.iterations() == pytest.approx(1.3 * 2 * (np.log10(2.0) - 1.5 + 3.0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (float("inf"), "-"), (0.0, "0s"), (0.2, "1s"), (59.5, "1m00s"), (185, "3m05s"), (7800, "2h10m"),
     (400_000, "4d")],
)  # fmt: skip
def test_as_text(seconds, text):
    """Short enough for a column."""
    assert as_text(seconds) == text
