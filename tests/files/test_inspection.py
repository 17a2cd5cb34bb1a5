"""The look that a child process takes at a file before it is read: it ends, and a busy machine is no damage."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.files import inspection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["numbers"] = [1.0, 2.0]
    return tmp_path / "f.h5"


@pytest.fixture(autouse=True)
def fork(monkeypatch) -> None:
    """The child is a fork, which has what a test has changed."""
    monkeypatch.setattr(inspection, "_may_fork", lambda: True)


def busy(walk: inspection._Walk, *_: object) -> None:
    """What HDF5 does with some damaged files."""
    while True:
        pass


def idle(walk: inspection._Walk, *_: object) -> None:
    """As on a machine whose processors are busy with something else."""
    time.sleep(1.0)


def test_a_file_with_which_hdf5_does_not_end_is_refused(monkeypatch, path: Path) -> None:
    monkeypatch.setattr(inspection._Walk, "group", busy)
    monkeypatch.setattr(inspection, "_CHILD_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"is damaged: HDF5 did not come to an end with it in 0 s"):
        inspection.look_in_child(path)


def test_waiting_for_a_processor_is_no_damage(monkeypatch, path: Path) -> None:
    monkeypatch.setattr(inspection._Walk, "group", idle)
    monkeypatch.setattr(inspection, "_CHILD_SECONDS", 0.5)
    inspection.look_in_child(path)
