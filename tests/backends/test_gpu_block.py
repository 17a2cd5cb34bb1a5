"""GpuBlock on the host shim against CpuBlock, task by task, and against the brute-force definition."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
import pytest

from sqd_mpi.backends import Interaction, Task, cpu, reference
from sqd_mpi.backends.gpu import share
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.device import Limits
from sqd_mpi.backends.gpu.host_device import HostDevice
from sqd_mpi.backends.gpu.rows import BlockRows
from sqd_mpi.backends.gpu.share import GpuShare, Tiles
from sqd_mpi.backends.mirror import Unfolding
from sqd_mpi.layout import Layout, SpinStrings
from sqd_mpi.symmetry import OrbitalLabels, find_labels, trivial_labels
from tests.problems import all_strings, close_strings, make_hamiltonian, random_strings, spin_dependent
from tests.waiting import HANG

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
            SpinStrings.from_canonical(strings, orbital_labels, labels.n_labels)
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


def cut(tasks: list[Task], n_rows: int) -> list[Task]:
    """The same tasks, some of them in pieces."""
    pieces = []
    for k, task in enumerate(tasks):
        middle = (k + 1) * n_rows // (len(tasks) + 2)
        cuts = [(0, middle), (middle, n_rows)] if k % 2 else [None]
        pieces += [replace(task, rows=rows) for rows in cuts]
    return pieces


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


FORMS = [("direct", "sparse"), ("product", "dense"), ("tiled", "sparse")]
# In all forms what they differ in; every other size in one of them, in turn.
IN_ALL_FORMS = "one string", "A unlike B", "sectors", "grid of sectors", "odd triangle", "spin-dependent", "65 orbitals"
TRIED = [(name, *FORMS[number % 3]) for number, name in enumerate(CASES) if name not in IN_ALL_FORMS]
TRIED += [(name, *form) for name in IN_ALL_FORMS for form in FORMS]


@pytest.mark.parametrize(("name", "form", "same_spin"), TRIED)
def test_against_the_cpu_backend(name: str, form: str, same_spin: str) -> None:
    check(Problem(CASES[name], HostDevice(reverse=form == "product"), form, same_spin))


@pytest.mark.parametrize("name", ["no labels", "sectors", "odd triangle", "spin-dependent", "65 orbitals"])
@pytest.mark.parametrize(("room", "form"), [(12, "direct"), (40, "product"), (60, "direct")])
def test_what_does_not_fit_into_shared_memory_is_cut_or_read_in_place(name, room, form, monkeypatch) -> None:
    monkeypatch.setattr(share, "_SHARED_BYTES", 8 * room)
    check(Problem(replace(CASES[name], grid=(1, 1, 1, 1)), HostDevice(), form))


LONG = {
    "rectangle": Case(12, (2, 4), (9, 495), labels=np.array([0, 1, 0, 0] * 3)),
    "triangle": Case(12, (3, 3), (210, 210), (1, 1, 1, 2), parity=1, close=True),
}


@pytest.mark.parametrize("form", ["direct", "product"])
@pytest.mark.parametrize("name", LONG)
def test_rows_of_several_thread_blocks(name: str, form: str, monkeypatch) -> None:
    """Rows longer than a thread block covers, with several windows of sorted columns and tiles of ket columns."""
    monkeypatch.setattr(BlockRows, "n_threads", lambda *_: 64)
    monkeypatch.setattr(share, "_SHARED_BYTES", 8 * 150)
    check(Problem(LONG[name], HostDevice(), form, "sparse"))


@pytest.mark.parametrize("name", ["no labels", "sectors", "grid of sectors", "full shells", "spin-dependent"])
def test_against_the_definition(name: str) -> None:
    """All tasks of a place together, with whatever form is cheaper."""
    problem = Problem(CASES[name], HostDevice())
    device = problem.device
    for place in problem.places():
        _, on_gpu, definition = problem.blocks(place)
        for interaction in problem.interactions.values():
            sigma, there = problem.sigma(place), device.upload(problem.sigma(place))
            for task in definition.tasks(interaction):
                definition.apply(task, problem.ket(place, task), sigma, interaction)
            tasks = on_gpu.tasks(interaction)
            on_gpu.prepare(tasks)
            for task in tasks:
                on_gpu.apply(task, device.upload(problem.ket(place, task)), there, interaction)
            assert_close(device.download(there), sigma)


@pytest.mark.parametrize(("name", "form"), [("sectors", None), ("sectors", "tiled"), ("even triangle", "tiled")])
def test_results_do_not_depend_on_the_order_of_threads(name: str, form: str | None) -> None:
    """Every element has one owner: forwards and backwards give the same bits."""
    found = []
    for reverse in (False, True):
        problem = Problem(CASES[name], HostDevice(reverse=reverse), form)
        place = problem.places()[0]
        _, block, _ = problem.blocks(place)
        interaction = problem.interactions["penalised"]
        there = problem.device.upload(problem.sigma(place))
        tasks = block.tasks(interaction)
        block.prepare(tasks)
        for task in tasks:
            block.apply(task, problem.device.upload(problem.ket(place, task)), there, interaction)
        found.append(problem.device.download(there))
    np.testing.assert_array_equal(*found)


def test_small_scratch_makes_many_batches(monkeypatch) -> None:
    from sqd_mpi.backends.gpu import block

    monkeypatch.setattr(block, "_SCRATCH_BYTES", 8)
    check(Problem(replace(CASES["sectors"], counts=(12, 10)), HostDevice(), "product"))


def test_lists_are_forgotten_and_counted() -> None:
    device = HostDevice()
    problem = Problem(CASES["grid"], device)
    _, block, _ = problem.blocks((0, 0, 0, 0))
    tasks = block.tasks(problem.interactions["energy"])
    block.prepare(tasks)
    before, all_bytes = device._allocated, block.share.nbytes
    assert 0 < all_bytes <= before
    block.prepare([task for task in tasks if task.kind == "beta"][:1])
    assert device._allocated < before and block.share.nbytes < all_bytes
    block.prepare([])
    assert block.share.nbytes == 0


@pytest.mark.parametrize("form", ["direct", "product", "tiled"])
def test_counted_work_is_the_number_of_connected_pairs(form: str) -> None:
    """Useful multiply-adds: the elements of the matrix in each task, one for every connected pair of determinants."""
    case = Case(6, (3, 3), (12, 14))
    problem = Problem(case, HostDevice(), form)
    _, block, _ = problem.blocks((0, 0, 0, 0))
    interaction = problem.interactions["energy"]
    tasks = block.tasks(interaction)
    block.prepare(tasks)
    alpha, beta = (strings[:, 0] for strings in case.strings())
    apart_a = np.bitwise_count(alpha[:, None] ^ alpha[None, :]).astype(int)
    apart_b = np.bitwise_count(beta[:, None] ^ beta[None, :]).astype(int)
    n_singles_a, n_singles_b = (apart_a == 2).sum(), (apart_b == 2).sum()
    expected = {
        "mixed": n_singles_a * (n_singles_b + 3 * len(beta)),  # 3 occupied orbitals on the diagonal
        "alpha": ((apart_a == 2) | (apart_a == 4)).sum() * len(beta),
        "beta": (2 * n_singles_b + (apart_b == 4).sum()) * len(alpha) - n_singles_b * len(alpha),
    }
    for task in tasks:
        work = block.work([task], interaction)
        assert work.useful == expected[task.kind], task.kind
        assert work.executed >= (1.0 - 1e-12) * work.useful and work.bytes > 0 and work.seconds > 0
    total = block.work(tasks, interaction)
    assert total.useful == sum(expected.values())


@pytest.mark.parametrize(
    ("shared", "n_used", "n_ket", "tiles"),
    [
        (65536, 75, 1000, Tiles(1000, 4, True, 8 * 4 * 1075)),
        (65536, 300, 6265, Tiles(6265, 1, True, 8 * 6565)),
        (65536, 300, 20000, Tiles(7872, 1, True, 8 * 8172)),
        (65536, 8515, 4041, Tiles(4041, 2, False, 8 * 2 * 4041)),
        (232448, 300, 6265, Tiles(6265, 2, True, 16 * 6565)),
        (65536, 0, 0, Tiles(1, 4, True, 32)),
    ],
)
def test_tiles_fit_into_shared_memory(shared: int, n_used: int, n_ket: int, tiles: Tiles) -> None:
    assert Tiles.choose(Limits(shared, 1), n_used, n_ket) == tiles
    assert tiles.shared_bytes <= shared


SANITIZED = """
from sqd_mpi.backends.gpu import share
from sqd_mpi.backends.gpu.host_device import HostDevice
from tests.backends.test_gpu_block import CASES, Problem, check
for name in ("one string", "no beta electrons", "sectors", "odd triangle", "spin-dependent", "65 orbitals"):
    for form in (("direct", "sparse"), ("product", "dense"), ("tiled", "sparse")):
        check(Problem(CASES[name], HostDevice(), *form))
check(Problem(CASES["even triangle"], HostDevice(), "tiled"))
share._SHARED_BYTES = 480
check(Problem(CASES["no labels"], HostDevice(), "direct"))
print("done")
"""


@pytest.mark.slow
def test_no_access_out_of_bounds(sanitized_environment) -> None:
    """The kernels under the address and undefined-behaviour sanitizers."""
    command = [sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, capture_output=True, text=True, env=sanitized_environment, timeout=HANG, check=False)
    assert done.stdout.strip() == "done", done.stderr[-3000:]
