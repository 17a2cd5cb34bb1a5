"""Users hear that kernels are compiled where they are, and only there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sqd_mpi.solver.compile_notice import COMPILING, LOADING, notice
from tests.support.programs import environment

SHORT, LONG = 0.1, 0.4


class Watched:
    """A watch that tells when the test says so."""

    tell: Callable[[], None]

    @contextmanager
    def __call__(self, tell: Callable[[], None]) -> Iterator[None]:
        """Keeps whom to tell."""
        self.tell = tell
        yield


@pytest.mark.parametrize(
    ("steps", "loading", "said"),
    [
        ([], True, []),
        ([LONG], True, [LOADING]),
        ([LONG], False, []),
        (["compile"], True, []),
        (["compile", LONG], True, [COMPILING]),
        (["compile", LONG, "compile", LONG], False, [COMPILING]),
        ([LONG, "compile", LONG, "compile"], True, [LOADING, COMPILING]),
        ([LONG, "compile"], True, [LOADING]),
    ],
)
def test_what_is_said(steps, loading, said):
    """Nothing if it is soon over; that kernels are compiled once, and only if they are."""
    heard: list[str] = []
    watch = Watched()
    with notice(heard.append, watch, SHORT, loading):
        for step in steps:
            if step == "compile":
                watch.tell()
            else:
                time.sleep(step)
    time.sleep(LONG)
    assert heard == said


def test_nothing_follows_an_error():
    """It passes through."""
    heard: list[str] = []
    watch: Any = Watched()
    with pytest.raises(KeyError), notice(heard.append, watch, SHORT):
        raise KeyError
    time.sleep(LONG)
    assert heard == []


def test_numba_tells_when_it_compiles_and_not_when_it_loads(tmp_path):
    """The same program twice: only the first run compiles."""
    program = (
        "from sqd_mpi import _jit\n"
        "heard = []\n"
        "@_jit.jit\ndef twice(x):\n    return 2 * x\n"
        "with _jit.telling_of_compilation(lambda: heard.append(1)):\n"
        "    assert twice(2) == 4 and twice(3) == 6\n"
        "    n_numba = len(heard)\n"
        "    _jit.compilation_begins()\n"
        "assert twice(2.5) == 5.0\n"  # a new kernel, but nobody listens
        "_jit.compilation_begins()\n"
        "print(n_numba, len(heard))\n"
    )
    (tmp_path / "program.py").write_text(program)
    counts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=environment(NUMBA_CACHE_DIR=str(tmp_path / "cache")),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        counts.append(done.stdout.split())
    assert counts == [["1", "2"], ["0", "1"]]
