"""Behaviour of the tests that run on several MPI ranks: rank 0 reports, and the first failure of any rank ends the job.

Without the second, a rank that fails would leave the others waiting in their next collective operation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest
from mpi4py import MPI

_FEW_RANKS = 2
_RANK, _SIZE = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()


@pytest.fixture
def comm() -> MPI.Intracomm:
    """All ranks of the job."""
    return MPI.COMM_WORLD


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let rank 0 alone print progress and summary: the reporter keeps the stream that it finds here."""
    if _RANK > 0:
        sys.stdout = open(os.devnull, "w")  # open until the process ends


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Abort the job when a test, its set-up or its clean-up fails on this rank."""
    report = yield
    if report.failed:
        _abort(report)
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Abort the job when this rank cannot import a test file."""
    if report.failed:
        _abort(report)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where ranks are many and cores few only one test of a kind is not slow."""
    for item in items:
        if _SIZE > _FEW_RANKS and item.get_closest_marker("every_size") is None:
            item.add_marker("slow")


def _abort(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Print what failed on this rank, then end all ranks; a job of one rank goes on with its other tests."""
    if _SIZE == 1:
        return
    text = [f"[rank {_RANK}] {report.nodeid}", report.longreprtext]
    text += [f"--- {title}\n{content}" for title, content in report.sections]
    print("\n".join(text).replace("\n", f"\n[rank {_RANK}] "), file=sys.stderr, flush=True)
    MPI.COMM_WORLD.Abort(1)
