"""Blocks of a device beside those of the CPU, on awkward problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from sqd_mpi.backends import reference
from sqd_mpi.backends.cpu import block as cpu
from sqd_mpi.backends.cpu import costs
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.backends.protocol import Task
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.mirror import Unfolding
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import OrbitalLabels, find_labels, trivial_labels
from tests.gpu_shim.host_device import HostDevice
from tests.support.problems import all_strings, close_strings, make_hamiltonian, random_strings, spin_dependent

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


@dataclass(frozen=True)
class Case:
    """A problem and a grid; by default random strings of both spins."""

    norb: int
    nelec: tuple[int, int]
    counts: tuple[int, int]
    grid: tuple[int, int, int, int] = (1, 1, 1, 1)
    labels: np.ndarray | None = None
    sector: int = 0
    parity: int = 0
    spin_dependent: bool = False
    close: bool = False

    def strings(self) -> list[np.ndarray]:
        """Alpha and beta strings in canonical order; the same for both spins with parity."""
        found = []
        for spin, (n, count) in enumerate(zip(self.nelec, self.counts, strict=True)):
            if n == 0 or n == self.norb:
                found.append(all_strings(self.norb, n))
            elif self.close:
                found.append(close_strings(self.norb, n, count, seed=spin * (self.parity == 0)))
            else:
                found.append(random_strings(self.norb, n, count, seed=spin * (self.parity == 0)))
        return found


CASES = {
    "one string": Case(4, (2, 2), (1, 1)),
    "one orbital": Case(1, (1, 1), (1, 1)),
    "no beta electrons": Case(6, (3, 0), (15, 1)),
    "no electrons": Case(4, (0, 0), (1, 1)),
    "full shells": Case(5, (5, 2), (1, 8)),
    "full beta shell": Case(5, (2, 5), (8, 1)),
    "no labels": Case(7, (3, 4), (21, 19)),
    "all strings": Case(6, (3, 3), (20, 20)),
    "A unlike B": Case(7, (2, 4), (5, 33)),
    "sectors": Case(7, (3, 4), (30, 28), labels=LABELS, sector=2),
    "grid": Case(7, (3, 4), (30, 31), (3, 2, 1, 2)),
    "grid of sectors": Case(7, (3, 3), (30, 30), (2, 3, 1, 1), LABELS, 1),
    "empty blocks": Case(5, (2, 2), (4, 5), (5, 6, 1, 2)),
    "even triangle": Case(7, (3, 3), (30, 30), labels=LABELS, parity=1),
    "odd triangle": Case(7, (3, 3), (30, 30), (2, 2, 1, 2), parity=-1),
    "triangles of sectors": Case(7, (3, 3), (33, 33), (2, 2, 1, 1), LABELS, 1, 1),
    "spin-dependent": Case(6, (3, 2), (15, 14), spin_dependent=True),
    "spin-dependent sectors": Case(7, (3, 3), (28, 30), (1, 2, 1, 1), LABELS, 3, spin_dependent=True),
    "65 orbitals": Case(65, (3, 2), (40, 30), close=True),
    "130 orbitals": Case(130, (2, 3), (35, 30), close=True),
}


@lru_cache(maxsize=1)
def hamiltonian_of(norb, nelec, labels, differ):
    """Random integrals; those of 130 orbitals take a while."""
    return (spin_dependent if differ else make_hamiltonian)(
        norb, nelec, 1, None if labels is None else np.array(labels)
    )


class Problem:
    """Blocks of both backends for every place of a grid, with random vectors."""

    def __init__(self, case: Case, device: HostDevice, form: str | None = None, same_spin: str | None = None):
        self.case = case
        labels_key = None if case.labels is None else tuple(case.labels.tolist())
        self.hamiltonian = hamiltonian_of(case.norb, case.nelec, labels_key, case.spin_dependent)
        labels = trivial_labels(case.norb)
        if case.labels is not None:
            labels = OrbitalLabels(case.labels, 4, 0.0, 0.0, 0.0)
        elif case.spin_dependent:
            labels = find_labels(self.hamiltonian)
        sides = [
            SpinStrings.from_canonical(strings, orbital_labels, labels.n_labels).weighted(
                np.ones(len(strings)), costs.WHOLE_SHARE
            )
            for strings, orbital_labels in zip(case.strings(), labels.both, strict=True)
        ]
        if case.parity:
            sides[1] = sides[0]
        self.layout = Layout.create(*sides, case.sector, case.grid, case.parity)
        self.device, self.form, self.same_spin, self.labels = device, form, same_spin, labels

    @property
    def interactions(self) -> dict[str, Interaction]:
        """The Hamiltonian, S^2 and both."""
        energy = Interaction.energy(self.hamiltonian)
        square = Interaction.spin_square(self.hamiltonian)
        found = {"energy": energy, "square": square, "penalised": energy.plus(square, 0.7, -0.2)}
        return found if self.case.norb < 100 else {"penalised": found["penalised"]}

    def places(self):
        """All (ia, ib, 0, ir)."""
        a, b, _, r = self.case.grid
        return [(ia, ib, 0, ir) for ia, ib, ir in product(range(a), range(b), range(r))]

    def blocks(self, place):
        """The block of the CPU, that of the GPU and the definition."""
        parts = self.layout, place, self.hamiltonian
        on_cpu = cpu.create_block(*parts, cpu.create_share(*parts, self.labels))
        share = GpuShare(self.device, *parts, self.labels)
        on_gpu = GpuBlock(self.layout, place, share, self.form, self.same_spin)
        return on_cpu, on_gpu, reference.create_block(*parts, None)

    def ket(self, place, task: Task) -> np.ndarray:
        """A random ket block for a task."""
        a, b, _, _ = self.case.grid
        key = ((place[0] + task.da) % a, (place[1] + task.db) % b)
        whole = np.random.default_rng(key).normal(size=self.layout.block_size(*key))
        if self.layout.is_triangle(*key):  # as symmetric as the vector that it is a part of
            unfolding = Unfolding(self.layout, *key)
            stored = whole[: unfolding.own.size].copy()
            unfolding.unfold(stored, stored, whole)
        return whole

    def sigma(self, place) -> np.ndarray:
        """What stands in sigma before."""
        ia, ib, _, ir = place
        return np.random.default_rng(7).normal(size=self.layout.sub_block_size(ia, ir, ib))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to 1e-12 of the largest element."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(initial=0.0), 1.0))


def check(problem: Problem) -> None:
    """Tasks of the GPU against those of the CPU, for every place, interaction and task."""
    device = problem.device
    for place in problem.places():
        on_cpu, on_gpu, _ = problem.blocks(place)
        for interaction in problem.interactions.values():
            tasks = on_cpu.tasks(interaction)
            known = {(task.kind, task.da, task.db) for task in on_gpu.tasks(interaction)}
            if problem.layout.meets_half_of_kets(*place[:2]):
                tasks = on_gpu.tasks(interaction)  # some of those of the CPU stand for two each
            # Pieces of a halved sum add to each other's rows.
            halved = problem.form == "tiled" and on_gpu._opposite_spin.is_halved(0, 0)
            tasks = tasks if halved else cut(tasks, len(on_cpu._bra.alpha))
            on_cpu.prepare(tasks)
            on_gpu.prepare(tasks)
            for task in tasks:
                ket, start = problem.ket(place, task), problem.sigma(place)
                expected, there = start.copy(), device.upload(start)
                on_cpu.apply(task, ket, expected, interaction)
                on_gpu.apply(task, device.upload(ket), there, interaction)
                assert_close(device.download(there), expected)
                if (task.kind, task.da, task.db) not in known:  # nothing connected
                    np.testing.assert_array_equal(expected, start)
            expected = np.zeros(problem.layout.slice_size(*(place[k] for k in (0, 1, 2, 3))))
            on_cpu.diagonal(interaction, expected)
            there = device.empty(expected.shape)
            on_gpu.diagonal(interaction, there)
            assert_close(device.download(there), expected)


LONG = {
    "rectangle": Case(12, (2, 4), (9, 495), labels=np.array([0, 1, 0, 0] * 3)),
    "triangle": Case(12, (3, 3), (210, 210), (1, 1, 1, 2), parity=1, close=True),
}


def cut(tasks: list[Task], n_rows: int) -> list[Task]:
    """The same tasks, some of them in pieces."""
    pieces = []
    for k, task in enumerate(tasks):
        middle = (k + 1) * n_rows // (len(tasks) + 2)
        cuts = [(0, middle), (middle, n_rows)] if k % 2 else [None]
        pieces += [replace(task, rows=rows) for rows in cuts]
    return pieces
