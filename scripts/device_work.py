"""What one sigma asks of GPUs: operations, bytes, and the least time that they take by a data sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np

from sqd_mpi.arrays import FloatArray, Shape
from sqd_mpi.planner import data_sheets
from sqd_mpi.planner.gpu_work import opposite_floor, used_pairs
from sqd_mpi.planner.prediction import Messages
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.work import Work


@dataclass(frozen=True, eq=False)
class DeviceWork:
    """What one sigma asks of the GPUs of a grid, all of them together.

    Opposite spin is counted by (alpha label, label of the orbital pair), in both forms that a GPU can take: direct, and
    by matrix products T = W G of all alpha singles of a row (docs/gpu.md).
    """

    direct: FloatArray = field(repr=False)
    """Multiply-adds of the direct form, which are the useful ones."""
    gathered: FloatArray = field(repr=False)
    """Bytes of ket rows for them."""
    product: FloatArray = field(repr=False)
    """Multiply-adds of the matrix products."""
    sparse: FloatArray = field(repr=False)
    """Multiply-adds of same spin with sparse matrices, (2, n_labels) those of H_alpha and of H_beta."""
    dense: FloatArray = field(repr=False)
    """(2, n_labels) the same with dense matrices."""
    of_field: float
    """Of the field of the alpha strings, on singles of beta; both forms need it."""
    vector_bytes: float
    """Read or written in all other places."""
    work: Work = field(repr=False)
    """What was counted."""

    @property
    def same_spin(self) -> float:
        """Multiply-adds of same spin that the definition needs."""
        return float(self.sparse.sum()) + self.of_field

    @property
    def useful(self) -> float:
        """Multiply-adds that the definition needs."""
        return float(self.direct.sum()) + self.same_spin

    @property
    def moved_bytes(self) -> float:
        """Bytes of device memory that are read or written, with the direct form and no help of a cache."""
        return float(self.gathered.sum()) + self.vector_bytes

    def floor_seconds(self, sheet: data_sheets.DataSheet, n_devices: int = 1) -> dict[str, float]:
        """Least seconds of one sigma, "opposite" and "same" spin and "vectors", each bound by what takes longest.

        That is arithmetic, operands from shared memory, or bytes of device memory; opposite spin takes the form that
        is fastest for every pair of labels, same spin that for every label.
        """
        sparse = max(2.0 / sheet.vector_flops, 1.0 / sheet.operands_per_second)
        same_spin = float(np.minimum(self.sparse * sparse, 2.0 * self.dense / sheet.matrix_flops).sum())
        return {
            "opposite": float(opposite_floor(self.work, data_sheets.highest_rates(sheet)).sum()) / n_devices,
            "same": (same_spin + self.of_field * sparse) / n_devices,
            "vectors": self.vector_bytes / sheet.bytes_per_second / n_devices,
        }


def count_device_work(problem: Problem, shape: Shape = (1, 1, 1, 1)) -> DeviceWork:
    """Operations and bytes of one sigma on all devices of a grid (a, b, t, r)."""
    work = Work(problem, shape, MachineProfile(backend="gpu", lanes=1), 1)

    # Opposite spin: alpha singles (x, d) times what they meet in the beta strings of their columns.
    labels = np.arange(problem.n_labels)
    mirror, ket_label = labels ^ problem.sector, (labels[:, None] ^ problem.sector) ^ labels
    alpha = work.alpha.singles.sum(axis=0)  # (x, d), as all of these
    terms = work.beta.singles.sum(axis=0)
    terms[:, 0] += work.beta.rows.sum(axis=0)
    columns = work.beta.rows.sum(axis=0)
    n_ket = columns[ket_label]
    wanted = float(work.shares["terms"].mean())
    used = used_pairs(problem)[mirror]

    # Vectors, and both same-spin parts, which read and write them.
    stored = float(problem.dimension(shape))
    elements = Messages.create(work).vector_elements * prod(shape) + 4.0 * stored
    same_spin = work.same_spin
    sparse, dense = (
        np.stack([form[name].sum(axis=(1, 2, 3)) for name in ("alpha", "beta")])
        for form in (same_spin.sparse, same_spin.dense)
    )
    return DeviceWork(
        direct=wanted * alpha * terms[mirror],
        gathered=8.0 * alpha * n_ket,
        product=alpha * used * n_ket,
        sparse=sparse,
        dense=dense,
        of_field=float(same_spin.of_field.sum()),
        vector_bytes=8.0 * elements,
        work=work,
    )
