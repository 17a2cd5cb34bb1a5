"""Thread blocks of the tiled form of opposite spin on a GPU, by the shared memory that they can have (docs/gpu.md)."""

from __future__ import annotations

from dataclasses import dataclass

CHUNK = 64  # orbital pairs of a chunk, at most; as the following in tiled.cu
PAIRS = 16  # orbital pairs of a thread
DEPTH = 32  # alpha singles at a time, at most
MOST_COLUMNS = 2**16  # bra columns that an entry can tell apart
_PROCESSOR_BYTES = 113 * 1024  # so much for each of two thread blocks on a processor of an H100


@dataclass(frozen=True)
class TiledShape:
    """Thread blocks of `opposite_tiled`."""

    n_threads: int
    """128 or 256, for tiles of half as many ket columns."""
    n_sums: int
    """Sums of a row that lie in shared memory; 0 if they do not fit there."""
    shared_bytes: int
    """Shared memory of a thread block."""

    @classmethod
    def choose(cls, shared_bytes: int, n_columns: int) -> TiledShape | None:
        """Thread blocks for rows of so many bra columns; None if the form cannot be taken.

        Args:
            shared_bytes: that a thread block can have.
            n_columns: bra columns of the longest row.

        Small ones, of which two fit on a processor, if they have room for the sums of a row; else large ones, which
        wait less for each other's barriers; else the sums stay in memory.
        """
        if n_columns > MOST_COLUMNS:
            return None
        for n_threads, n_sums, most in (
            (128, n_columns, _PROCESSOR_BYTES),
            (256, n_columns, shared_bytes),
            (128, 0, shared_bytes),
        ):
            tile = CHUNK * n_threads // 2
            shared = 8 * (tile + DEPTH * CHUNK + n_sums + DEPTH)
            if shared <= min(most, shared_bytes):
                return cls(n_threads, n_sums, shared)
        return None
