"""The factorised sigma on a GPU (definition of the sums: `slow.kernels`; the loops: sigma.cu; layout: docs/gpu.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sqd_mpi.arrays import FloatArray, Place
from sqd_mpi.backends.cpu import lists
from sqd_mpi.backends.gpu.costs import TaskWork
from sqd_mpi.backends.gpu.device import DeviceArray, Stream
from sqd_mpi.backends.gpu.opposite_spin import OppositeSpin
from sqd_mpi.backends.gpu.rows import BlockRows
from sqd_mpi.backends.gpu.same_spin import SameSpin
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.backends.protocol import Task
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.problem.interaction import Interaction

_SCRATCH_BYTES = 512 * 1024**2  # of the matrix products, at most; and not more than an eighth of what is free
_THREADS = 256


class GpuBlock:
    """One rank's share of sigma for one sector; see `SigmaBlock`. Vectors are arrays of the device.

    Args:
        layout: of the sector.
        place: (ia, ib, it, ir).
        share: string structure on the device.
        form: "direct", "product" or "tiled" takes that form of the opposite-spin sum everywhere; None the cheapest.
        same_spin: "dense" or "sparse" takes that form of the same-spin sums everywhere; None the cheaper one.
    """

    mirrored = None  # threads beyond the mirror line end at once: triangles cost half, and all ket blocks are met

    def __init__(
        self, layout: Layout, place: Place, share: GpuShare, form: str | None = None, same_spin: str | None = None
    ):
        self.layout, self.share, self.device = layout, share, share.device
        self.ia, self.ib, self.it, self.ir = place
        rows = BlockRows(self.device, layout, place)
        self._opposite_spin = OppositeSpin(rows, share, form)
        self._same_spin = SameSpin(rows, share, same_spin)
        self._scratch: DeviceArray | None = None

    def tasks(self, interaction: Interaction) -> list[Task]:
        """Every task of this rank's sub-block that may have a connection."""
        a, b, _, _ = self.layout.grid
        strings = self.share.strings
        found = [self._task("mixed", da, db, False) for da in range(a) for db in range(b)]
        if interaction.same_spin:
            found += [self._task("alpha", da, 0, not strings.alpha_terms[1]) for da in range(a)]
        if interaction.same_spin or interaction.twist is not None:
            found += [self._task("beta", 0, db, not strings.beta_terms[1]) for db in range(b)]
        return [task for task in found if task is not None]

    def _task(self, kind: str, da: int, db: int, uncertain: bool) -> Task | None:
        """A task with its cost; None if it has no connection for sure."""
        cost = float(self.row_costs(Task(kind, da, db, 0.0)).sum())
        return Task(kind, da, db, cost) if cost > 0.0 or uncertain else None

    def row_costs(self, task: Task) -> FloatArray:
        """(n_rows,) predicted seconds of the task for every bra row of the sub-block."""
        return self._part(task).row_costs(task)

    def prepare(self, tasks: list[Task]) -> None:
        """Upload what these tasks need, forget what none of them needs, and cut their work into thread blocks."""
        self.share.keep_only(tasks)
        self._opposite_spin.prepare(tasks)
        self._same_spin.prepare(tasks)
        self.share.strings.keep_only([])

    def apply(
        self, task: Task, ket: DeviceArray, sigma: DeviceArray, interaction: Interaction, stream: Stream = None
    ) -> None:
        """sigma += this task's part; see `SigmaBlock.apply`."""
        if task.kind == "mixed":
            self._opposite_spin.apply(task, ket, sigma, interaction, self._scratch_of, stream)
        elif interaction.same_spin and task.kind == "alpha":
            self._same_spin.apply_alpha(task, ket, sigma, self._scratch_of, stream)
        elif task.kind == "beta" and (interaction.same_spin or interaction.twist is not None):
            self._same_spin.apply_beta(task, ket, sigma, interaction, self._scratch_of, stream)

    def diagonal(self, interaction: Interaction, out: DeviceArray, stream: Stream = None) -> None:
        """Diagonal of the interaction on this rank's slice."""
        layout, strings = self.layout, self.share.strings
        where = layout.geometry(self.ia, self.ib, self.it, self.ir)
        alpha, beta = layout.alpha.strings[where.alpha], layout.beta.strings[where.beta]
        energies_a, energies_b = np.zeros(len(alpha)), np.zeros(len(beta))
        if interaction.same_spin:
            energies_a = lists.string_energies(alpha, *strings.integrals[0])
            energies_b = lists.string_energies(beta, *strings.integrals[1])
        pairs = np.arange(strings.norb, dtype=np.int64)
        pairs = pairs * (pairs + 1) // 2 + pairs
        density = interaction.coupling[np.ix_(pairs, pairs)] - interaction.swap * np.eye(len(pairs))
        occupied_a = lists.occupied_orbitals(alpha).astype(np.int32)
        occupied_b = lists.occupied_orbitals(beta).astype(np.int32)
        rows = np.flatnonzero((where.row_offset < where.stop) & (where.row_offset + where.row_length > where.start))
        up = self.device.upload
        self._kernel("diagonal_rows")(
            len(rows), _THREADS,
            (
                out, up(where.row_offset[rows]), up(where.row_length[rows]), up(where.row_column[rows]),
                np.int64(where.start), np.int64(where.stop), up(energies_a[rows]), up(energies_b),
                up(occupied_a[rows]), np.int64(occupied_a.shape[1]), up(occupied_b), np.int64(occupied_b.shape[1]),
                up(density), np.int64(strings.norb), np.float64(interaction.constant),
            ),
            8 * strings.norb, stream,
        )  # fmt: skip
        self.device.synchronize(stream)  # the uploaded arrays end here

    def work(self, tasks: list[Task], interaction: Interaction) -> TaskWork:
        """Counted work of one sigma of these prepared tasks."""
        return sum((self._part(task).work(task, interaction) for task in tasks), TaskWork())

    def _part(self, task: Task) -> OppositeSpin | SameSpin:
        return self._opposite_spin if task.kind == "mixed" else self._same_spin

    def _kernel(self, name: str) -> Any:
        return self.device.kernel("sigma", name)

    def _scratch_of(self, least: int, wanted: int) -> DeviceArray:
        """Scratch for the matrix products: as many float64 as wanted where they are to spare, and at least `least`."""
        size = 0 if self._scratch is None else self._scratch.size
        if size < least or (size < wanted and 8 * size < _SCRATCH_BYTES):
            self._scratch = None
            most = min(_SCRATCH_BYTES, self.device.memory()[0] // 8) // 8
            self._scratch = self.device.empty(max(min(most, wanted), least))
        return self._scratch
