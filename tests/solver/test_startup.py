"""Numbers of threads: what was asked for, variables, cores; and environments that numba cannot use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sqd_mpi import _jit
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.solver import startup
from tests.support.programs import environment, sqd_mpi
from tests.support.runs import MPIEXEC
from tests.support.two_sites import write_two_sites


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with an input file."""
    write_two_sites(tmp_path / "input.h5")
    return tmp_path


VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """Nobody has said anything about threads, and there are eight cores."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in (("_written", None), ("_replaced", None), ("_settled", False)):
        monkeypatch.setattr(_jit, name, value)
    monkeypatch.setattr(startup, "available_cores", lambda: 8)


@pytest.mark.parametrize(
    ("wanted", "numba", "openmp", "number", "variable", "warning"),
    [
        ("auto", None, None, 8, "", None),
        (3, None, None, 3, "", None),
        (3, "2", "1", 3, "", None),
        ("auto", "2", "1", 2, "NUMBA_NUM_THREADS", None),
        ("auto", None, "1", 1, "OMP_NUM_THREADS", None),
        ("auto", None, "4,2", 4, "OMP_NUM_THREADS", None),
        ("auto", None, " 4 , 2", 4, "OMP_NUM_THREADS", None),
        ("auto", "", "  ", 8, "", None),
        ("auto", "8", None, 8, "NUMBA_NUM_THREADS", None),
        ("auto", "4,2", "3", 3, "OMP_NUM_THREADS", "NUMBA_NUM_THREADS needs a positive integer; got '4,2'"),
        ("auto", "0", None, 8, "", "NUMBA_NUM_THREADS needs a positive integer; got '0'"),
        ("auto", None, "0", 8, "", "OMP_NUM_THREADS needs a positive integer; got '0'"),
        ("auto", None, "-2", 8, "", "OMP_NUM_THREADS needs a positive integer; got '-2'"),
        ("auto", None, "abc", 8, "", "OMP_NUM_THREADS needs a positive integer; got 'abc'"),
        ("auto", None, "²", 8, "", "OMP_NUM_THREADS needs a positive integer; got '²'"),
        ("auto", "64", None, 8, "NUMBA_NUM_THREADS", "asks for 64 threads; this process has 8 cores"),
        (64, "1", None, 64, "", "--threads 64 is more than the 8 cores of this rank"),
    ],
)
def test_who_goes_first(monkeypatch, wanted, numba, openmp, number, variable, warning):
    """The option, then numba's variable, then OpenMP's, then the cores."""
    for name, value in zip(VARIABLES, (numba, openmp), strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(Ranks, "cores_of_node", lambda self: (8, 1))
    chosen = startup.choose(Ranks(), wanted)
    assert (chosen.number, chosen.variable) == (number, variable)
    assert chosen.origin == (f" ({variable})" if variable else "")
    assert len(chosen.warnings) == (warning is not None)
    assert warning is None or warning in chosen.warnings[0]


@pytest.mark.parametrize(
    ("own", "of_node", "ranks", "number"),
    [(8, 8, 2, 4), (8, 64, 8, 8), (1, 2, 2, 1), (8, 8, 3, 2), (4, 4, 5, 1), (2, 64, 4, 2)],
)
def test_cores_are_divided_among_the_ranks_that_share_them(monkeypatch, own, of_node, ranks, number):
    """A rank that is bound to cores of its own takes all of them."""
    monkeypatch.setattr(startup, "available_cores", lambda: own)
    monkeypatch.setattr(Ranks, "cores_of_node", lambda self: (of_node, ranks))
    assert startup.choose(Ranks()).number == number


def test_what_was_written_here_is_not_the_users(monkeypatch):
    """A second job of the same process finds what the user had said, and what the user says now."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    _jit._write(5)
    assert os.environ["NUMBA_NUM_THREADS"] == "5" and _jit.threads_of_environment(8).number == 3
    _jit._write(6)
    assert _jit.threads_of_environment(8).number == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert _jit.threads_of_environment(8).number == 2
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert _jit.threads_of_environment(8).number is None


def test_taking(monkeypatch):
    """A solve in a script takes what its option or the environment says, until `set_threads` has settled it."""
    import numba

    before = numba.get_num_threads()
    with _jit.taking("auto"):
        assert numba.get_num_threads() == before
    with _jit.taking(1):
        assert numba.get_num_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with _jit.taking("auto"):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    monkeypatch.setattr(_jit, "_settled", True)
    with _jit.taking("auto"):
        assert numba.get_num_threads() == before


def test_warnings_without_a_log(monkeypatch):
    """Python's own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setattr(_jit, "set_threads", lambda number: None)
    with pytest.warns(UserWarning, match="OMP_NUM_THREADS needs a positive integer; got 'many'"):
        startup.set_up(Ranks())


@pytest.mark.parametrize(
    ("arguments", "changes", "says", "number"),
    [
        ([], {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}, "1 ranks x 1 threads (NUMBA_NUM_THREADS)", 1),
        ([], {"OMP_NUM_THREADS": "1,4"}, "1 ranks x 1 threads (OMP_NUM_THREADS)", 1),
        (["--threads", "1"], {"OMP_NUM_THREADS": "2"}, "1 ranks x 1 threads\n", 1),
        (["--threads", "auto"], {"NUMBA_NUM_THREADS": "abc", "OMP_NUM_THREADS": "1"}, "warning: NUMBA_NUM_THREADS", 1),
    ],
)
def test_a_run_says_where_its_threads_come_from(folder, arguments, changes, says, number):
    """In the log; the result has the number."""
    with records.h5py.File(folder / "input.h5", "r+") as file:
        del file["options"].attrs["threads"]
    done = sqd_mpi(folder, "run", "input.h5", "-o", "result.h5", *arguments, **changes)
    assert done.returncode == 0 and says in done.stderr, done.stderr
    assert records.read_summary(folder / "result.h5")["n_threads"] == number


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT switches off the compiler"),
        ("NUMBA_THREADING_LAYER", "foo", "numba cannot start threads: .*NUMBA_THREADING_LAYER is 'foo'"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "foo", "numba cannot start threads: .*_PRIORITY is 'foo'"),
        ("NUMBA_CPU_NAME", "abacus", "NUMBA_CPU_NAME = 'abacus': LLVM, .* does not know this"),
        ("NUMBA_CPU_FEATURES", "abacus", "NUMBA_CPU_FEATURES = 'abacus': LLVM, .* does not know this"),
    ],
)
def test_environments_that_numba_cannot_use(folder, variable, value, says):
    """One sentence, nothing written, MPI not aborted; on one rank and on several."""
    launchers = [[], [str(MPIEXEC), "-n", "2"]] if MPIEXEC.exists() else [[]]
    for launcher in launchers:
        done = subprocess.run(
            [*launcher, sys.executable, "-m", "sqd_mpi", "run", "input.h5"], cwd=folder, capture_output=True, text=True,
            env=environment(**{variable: value}), timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert re.match(f"sqd_mpi: error: {says}", done.stderr)
    assert not (folder / "result.h5").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="TBB is looked for as Linux does")
def test_a_threading_layer_that_is_not_installed(folder):
    """numba says what is missing."""
    from sqd_mpi.app.installation import _loads

    if _loads("libtbb.so.12"):
        pytest.skip("it is installed")
    done = sqd_mpi(folder, "run", "input.h5", NUMBA_THREADING_LAYER="tbb")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "NUMBA_THREADING_LAYER is 'tbb'" in done.stderr


def test_kernels_need_the_compiler():
    """In a script too."""
    program = "import sqd_mpi\ntry:\n    sqd_mpi.solve_subspace\nexcept sqd_mpi.InputError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(NUMBA_DISABLE_JIT="1"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.startswith("NUMBA_DISABLE_JIT switches off the compiler"), done.stderr


def test_workers_have_cores_for_their_threads(monkeypatch):
    """With more threads each there are fewer."""
    from sqd_mpi.loop import workers

    monkeypatch.setattr(workers, "available_cores", lambda: 8)
    assert [workers.most_workers(n) for n in (None, 1, 2, 3, 16)] == [8, 8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert [workers.most_workers(n) for n in (None, 1)] == [2, 8]


def test_a_worker_that_cannot_compute_says_why(monkeypatch, random_hamiltonian):
    """As the caller would."""
    from sqd_mpi.loop.batches import solve_batches
    from sqd_mpi.problem import bitstrings

    strings = bitstrings.from_integers([1, 2], 2)
    monkeypatch.setenv("NUMBA_THREADING_LAYER", "foo")
    with pytest.raises(InputError, match="numba cannot start threads: .* NUMBA_THREADING_LAYER is 'foo'"):
        solve_batches(random_hamiltonian(2, (1, 1)), [(strings, strings)], workers=1)
