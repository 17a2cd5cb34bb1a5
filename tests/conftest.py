"""Fixtures for all tests; those that need the published inputs skip where SQD_MPI_DATA does not point to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Threads of small solves that wait should not take cores from others; read when numba starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Open MPI refuses root and more ranks than cores, and binds a rank to one core; other libraries do not look at these.
os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
os.environ.setdefault("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
os.environ.setdefault("PRTE_MCA_hwloc_default_binding_policy", "none")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from sqd_mpi.problem.hamiltonian import Hamiltonian


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave tests/mpi to tests/test_mpi_driver.py, so that MPI does not start in the process of the ordinary tests."""
    wanted = config.getoption("only_mpi") or config.getoption("with_mpi")
    return True if collection_path == Path(__file__).parent / "mpi" and not wanted else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels once, before processes that run tests side by side would all compile them."""
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        program = "from sqd_mpi.solver import startup; startup.warm_up(startup.Kernels(2, True))"
        subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=False)


# Files that take long, which begin first, so that no process is left with one of them at the end.
_LONG = "test_mpi_driver", "test_docs", "test_examples", "test_faults", "test_hard_spaces", "test_terminal", "test_run"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first where several processes share the tests."""
    if hasattr(config, "workerinput"):
        rank = {name: number for number, name in enumerate(_LONG)}
        items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Directory of the published FCIDUMP files and bit-strings (h2o/ and n2/)."""
    text = os.environ.get("SQD_MPI_DATA")
    if not text or not Path(text).is_dir():
        pytest.skip("SQD_MPI_DATA does not point to the published inputs")
    return Path(text).resolve()


@pytest.fixture(scope="session")
def random_hamiltonian() -> Callable[..., Hamiltonian]:
    """Maker of Hamiltonians of dense random integrals: random_hamiltonian(norb, nelec, seed)."""

    def make(norb: int, nelec: tuple[int, int], seed: int = 0) -> Hamiltonian:
        rng = np.random.default_rng(seed)
        npair = norb * (norb + 1) // 2
        h1e = rng.normal(size=(norb, norb))
        eri = rng.normal(size=npair * (npair + 1) // 2)
        return Hamiltonian.from_arrays(h1e + h1e.T, eri, rng.normal(), nelec)

    return make
