"""Start vectors are the same in every memory, whatever room there is."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends import get_backend
from sqd_mpi.backends.gpu.memory import DeviceMemory
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import HOST
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import trivial_labels
from sqd_mpi.solver.model_space import ModelSpace
from sqd_mpi.solver.sectors import Aim, SectorTask
from sqd_mpi.solver.start_vectors import StartVectors
from tests.gpu_shim.host_device import HostDevice
from tests.support.problems import close_strings, make_hamiltonian

PLACE = (0, 0, 0, 0)
SECTOR = (0, 1)
DIMENSION = 12 * 13 // 2


def of_task(task: SectorTask, memory) -> StartVectors:
    """The start vectors of a task in a small space."""
    hamiltonian = make_hamiltonian(6, (3, 3), seed=2)
    strings = SpinStrings.from_canonical(close_strings(6, 3, 12), np.zeros(6, np.int64), 1)
    layout = Layout.create(strings, strings, SECTOR[0], (1, 1, 1, 1), SECTOR[1])
    backend, energy = get_backend("cpu"), Interaction.energy(hamiltonian)
    share = backend.create_share(layout, PLACE, hamiltonian, trivial_labels(6))
    diagonal = np.empty(layout.dimension)
    backend.create_block(layout, PLACE, hamiltonian, share).diagonal(energy, diagonal)
    grid = ProcessGrid(None, (1, 1, 1, 1))
    model = ModelSpace.create(grid, layout, diagonal, hamiltonian, energy, 20)
    return StartVectors(grid, layout, model, memory, task, diagonal, float(model.energies[0]))


def start_vectors(task: SectorTask, rows: int, memory) -> np.ndarray:
    """What a task starts from that knows all but one of its roots, in host memory."""
    start = of_task(task, memory)
    known = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMENSION, task.count - 1)))[0].T
    start.add_known(np.ascontiguousarray(known))
    out = memory.empty((rows, DIMENSION))
    count = start.fill(out)
    found = memory.to_host(out[:count], np.empty((count, DIMENSION)))
    np.testing.assert_array_equal(found[: len(known)], known)
    return found


@pytest.mark.parametrize("aim", list(Aim))
@pytest.mark.parametrize("room", [1, 2, 4])
def test_the_same_in_every_memory(aim, room):
    task = SectorTask(SECTOR, 3, aim)
    rows = 2 * task.count - 1 + room  # davidson needs as many rows as roots for its first expansion
    host, device = (start_vectors(task, rows, memory) for memory in (HOST, DeviceMemory(HostDevice())))
    assert np.isfinite(host).all()
    np.testing.assert_array_equal(device, host)
    most = {Aim.ROOTS: task.count, Aim.LOOK: 1, Aim.GUARD: 2}  # model states come on top of known roots
    assert len(host) == task.count - 1 + min(room, most[aim])


def test_one_row_has_both_random_vectors_where_there_is_no_room_for_two():
    task = SectorTask(SECTOR, 3, Aim.GUARD)
    apart, together = (start_vectors(task, 2 * task.count - 1 + room, HOST)[task.count - 1 :] for room in (2, 1))
    np.testing.assert_allclose(together, apart.sum(axis=0, keepdims=True), atol=1e-14)


def test_stirring_adds_a_part_of_random_vectors_in_every_memory():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2, DIMENSION)) * [[3.0], [0.01]]
    stirred = []
    for memory in (HOST, DeviceMemory(HostDevice())):
        start = of_task(SectorTask(SECTOR, 2, Aim.ROOTS), memory)
        out, scratch = memory.from_host(rows.copy()), memory.empty(DIMENSION)
        start.stir(out, scratch)
        stirred.append(memory.to_host(out, np.empty_like(rows)))
    np.testing.assert_allclose(stirred[1], stirred[0], rtol=0, atol=1e-14)
    added = stirred[0] - rows
    np.testing.assert_allclose(np.linalg.norm(added, axis=1), 0.5 * np.linalg.norm(rows, axis=1))
    assert abs(added[0] @ added[1]) < 0.5 * np.linalg.norm(added[0]) * np.linalg.norm(added[1])
    assert (abs(added[0]) > 0).all()  # no determinant is left out
