"""What the loops on CPU threads cost: every constant once, and what tasks, rows and shares of threads cost by them.

Seconds are those of one thread of a 2-core virtual machine, Zen 4 at 2.6 GHz, as `bench` fits them where nothing else
is said. Runs divide their work by them on all machines, so that ranks agree without a word; plans take those of a
`MachineProfile`, whose defaults they are. They are looked up when they are used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.cpu.simd import LANES

Counts = NDArray[Any]  # integers, or expected numbers

GATHER_SECONDS = 0.32e-9
"""One gathered or scattered element."""
MIXED_SECONDS = 0.1e-9
"""One fused multiply-add of opposite spin."""
SAME_SPIN_SECONDS = 0.09e-9
"""One fused multiply-add of same spin: 21 GFMA/s on two threads, mean of both spins (docs/performance.md)."""
GROUP_SECONDS = 0.6e-6
"""One group of alpha singles with the same orbital pair."""
TASK_SECONDS = 3e-5
"""Start of one task."""
VECTOR_SECONDS = 0.7e-9
"""One element that a vector operation reads or writes, on all threads of a rank."""
FOLDED_ELEMENTS = 4.0
"""Elements of vectors that folding one element of a block costs."""
PAIR_SECONDS = 0.8e-9
"""Comparison of two strings while the connection lists are made."""
SECTOR_SECONDS = 0.1
"""Model space of 1,000 determinants of one sector beside its diagonal."""

SINGLE_SHARE = 0.57
"""What an operation takes in single precision, as a share of its seconds in double; vectors have twice the lanes."""

MOST_VECTORS = 8.0
"""Vectors of lanes that the opposite-spin kernel treats at a time."""
SHARED_GROUP = 24.0
"""Singles in a group from which on two groups with common ket rows are treated together (`twins`)."""
SHARED_TERMS, SHARED_GATHER = 0.35, 0.5
"""What that saves of the time of multiply-adds, and of gathered rows."""
RAGGED_TWINS = 1 / 12
"""By which part of whole rows two such groups go beyond a triangle: 1/6 if their bra rows were unrelated."""
FLUSHED_TERMS = 4.0
"""Multiply-adds that one element of the result of a group costs while density matrices are made."""

ROW_SHARE = 0.2
"""Work of a row that does not depend on its singles, as a share of that of a mean row."""
WHOLE_SHARE = 0.3
"""Part of the work on a whole row that is done wherever some of its columns are wanted: ket rows are gathered whole."""


class Rates(NamedTuple):
    """Seconds of one operation of every kind on one thread, of this machine's price list or of a machine profile."""

    gather: float
    """One element that is gathered or scattered."""
    mixed: float
    """One fused multiply-add of opposite spin."""
    same_spin: float
    """One fused multiply-add of same spin."""
    group: float
    """One group of alpha singles."""

    def opposite_spin(self, terms: Counts, moved: Counts, n_groups: Counts | float = 0.0) -> FloatArray:
        """Seconds of so many multiply-adds of opposite spin, moved elements and groups of alpha singles."""
        return np.asarray(self.mixed * terms + self.gather * moved + self.group * n_groups)

    def of_same_spin(self, terms: Counts, moved: Counts | float = 0.0) -> FloatArray:
        """Seconds of so many multiply-adds of same spin and moved elements."""
        return np.asarray(self.same_spin * terms + self.gather * moved)


def rates() -> Rates:
    """The rates by which runs divide their work."""
    return Rates(GATHER_SECONDS, MIXED_SECONDS, SAME_SPIN_SECONDS, GROUP_SECONDS)


def empty_lanes(lanes: int = LANES) -> float:
    """Lanes of a long group of alpha singles that run empty: half of its last vector."""
    return 0.5 * (lanes - 1)


def twin_share(size: FloatArray | float) -> FloatArray:
    """Share of the singles in groups of some size that are treated together with those of another group."""
    return np.asarray(np.exp(-SHARED_GROUP / np.maximum(size, 1e-3)))


def opposite_spin_seconds(terms: Counts, n_ket: Counts, n_columns: Counts, size: float) -> FloatArray:
    """Seconds of one alpha single that meets a block of beta singles, without those of its group.

    Args:
        terms: multiply-adds, entries of the block and its diagonal; any shape, as the next two.
        n_ket, n_columns: ket columns that are gathered, and bra columns that are scattered.
        size: singles in its group.
    """
    shared = float(twin_share(size))
    moved = (n_ket * (1.0 - SHARED_GATHER * shared) + n_columns) * (terms > 0)
    return (1.0 + empty_lanes() / size) * rates().opposite_spin((1.0 - SHARED_TERMS * shared) * terms, moved)


def single_seconds(n_columns: Counts, entries: Counts) -> FloatArray:
    """Seconds of one alpha single of a row, by which rows or groups are divided among threads.

    Args:
        n_columns: columns of the row, which are gathered once and scattered (or gathered as bra) once; any shape.
        entries: entries of the beta lists that it meets, of the same shape.
    """
    return rates().opposite_spin(1.0 + entries, 2.0 * n_columns)


def stepped_share(running: FloatArray | float, n_vectors: float) -> FloatArray:
    """Share of the multiply-adds of whole rows that is executed where lanes stop early.

    Reading an element of the sparse matrix takes as long as one vector of lanes, however many of them still run.

    Args:
        running: mean share of the columns for which a vector of lanes runs.
        n_vectors: vectors of lanes in a typical group.
    """
    return np.asarray(running + (1.0 - running) / (1.0 + n_vectors))


def wanted_share(wanted: FloatArray, ragged: float = 0.0, n_vectors: float = np.inf) -> FloatArray:
    """(n_rows,) share of the work on whole rows that is done where only a part of their columns is wanted.

    Args:
        wanted: (n_rows,) that part of the columns.
        ragged: by which part of whole rows the kernels go beyond it.
        n_vectors: as in `stepped_share`.
    """
    return WHOLE_SHARE + (1.0 - WHOLE_SHARE) * stepped_share(np.minimum(wanted + ragged, 1.0), n_vectors)


def triangle_share(wanted: FloatArray, size: float) -> FloatArray:
    """The same where rows form a triangle, with groups of alpha singles of some size.

    A vector of lanes runs to the longest of its rows, and two groups to the longer one of two rows.
    """
    ragged = 0.5 * LANES / size + RAGGED_TWINS * float(twin_share(size))
    return wanted_share(wanted, ragged, min(max(size / LANES, 1.0), MOST_VECTORS))


def string_weights(n_singles: Counts) -> FloatArray:
    """(n,) relative work of a row or column from the number of singles of its string inside the set."""
    return np.asarray(n_singles + ROW_SHARE * max(float(n_singles.mean()), 1.0))
