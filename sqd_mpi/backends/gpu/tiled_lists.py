"""The beta singles of a rank in the order in which `opposite_tiled` (tiled.cu) reads them, as host arrays.

Orbital pairs of a list are cut into chunks, its ket columns into tiles; the entries of a chunk and a tile are a cell.
The entries of a cell are dealt to the threads of a thread block so that all entries of one bra column go to one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray

from sqd_mpi._jit import jit, parallel_jit
from sqd_mpi.arrays import IntArray
from sqd_mpi.backends.cpu.records import BetaSingles
from sqd_mpi.backends.gpu.tiled_shape import CHUNK, PAIRS

LIST, CELLS = 6, 3  # numbers of a list and of a chunk, as in tiled.cu
NONE = 2**32 - 1  # an empty place
_WARP = 32


@dataclass(frozen=True, eq=False)
class Chunks:
    """Orbital pairs of all lists, cut into chunks."""

    lists: IntArray = field(repr=False)
    """(n_lists, 6) int64: first chunk, numbers of chunks of singles and of the diagonal, numbers of tiles, ket columns
    and bra columns."""
    chunks: IntArray = field(repr=False)
    """(n_chunks, 3) int64: first orbital pair in `used`, number of pairs, first cell."""
    used: NDArray[np.int32] = field(repr=False)
    """int32 orbital pairs: of every list those of its singles, ascending, then those of its diagonal."""
    place: NDArray[np.int32] = field(repr=False)
    """(n_lists, 2, n_pairs) int32: chunk times 64 plus place in it, of pairs of singles [0] and diagonal [1]."""
    tile_width: int
    """Ket columns of a tile."""
    n_cells: int
    """Cells of all lists."""


@dataclass(frozen=True, eq=False)
class TiledLists:
    """Beta singles of one shift db for `opposite_tiled`."""

    chunks: Chunks
    """Chunks of the orbital pairs."""
    slice_start: IntArray = field(repr=False)
    """(n_cells n_warps + 1,) int64 first entry of every 32 threads of every cell; the last is the total."""
    entries: NDArray[np.uint32] = field(repr=False)
    """uint32: bra column, orbital pair in its chunk, ket column in its tile, direction, sign; or NONE."""
    n_threads: int
    """Threads of a thread block."""

    @cached_property
    def n_columns(self) -> int:
        """Most bra columns of a list."""
        return int(self.chunks.lists[:, 5].max(initial=0))


def cut_chunks(beta: BetaSingles, n_pairs: int, tile_width: int) -> Chunks:
    """Chunks of about equal size of the orbital pairs that the lists use."""
    n_lists = len(beta.matrix_n_ket)
    present = np.zeros((n_lists, 2, n_pairs), np.bool_)
    _mark_singles(beta.matrix_row, beta.indptr, beta.orbital_pair, present)
    for with_diagonal in np.flatnonzero(beta.matrix_diagonal).tolist():
        own = slice(beta.matrix_row[with_diagonal], beta.matrix_row[with_diagonal + 1])
        present[with_diagonal, 1, np.unique(beta.occupied_pair[own])] = True
    lists = np.zeros((n_lists, LIST), np.int64)
    lists[:, 3] = -(-beta.matrix_n_ket // tile_width)
    lists[:, 4], lists[:, 5] = beta.matrix_n_ket, np.diff(beta.matrix_row)
    place = np.full((n_lists, 2, n_pairs), -1, np.int32)
    chunks: list[tuple[int, int, int]] = []
    used, n_used, n_cells = [np.empty(0, np.int32)], 0, 0
    for q in range(n_lists):
        lists[q, 0], n_tiles = len(chunks), int(lists[q, 3])
        for kind in range(2):
            pairs = np.flatnonzero(present[q, kind]).astype(np.int32)
            size = _chunk_size(len(pairs))
            place[q, kind, pairs] = [(len(chunks) + k // size) * CHUNK + k % size for k in range(len(pairs))]
            starts = range(0, len(pairs), size)
            lists[q, 1 + kind] = len(starts)
            for start in starts:
                chunks.append((n_used + start, min(size, len(pairs) - start), n_cells))
                n_cells += n_tiles
            used.append(pairs)
            n_used += len(pairs)
    table = np.array(chunks, np.int64).reshape(-1, CELLS)
    return Chunks(lists, table, np.concatenate(used), place, tile_width, n_cells)


def tiled_lists(beta: BetaSingles, n_pairs: int, n_threads: int) -> TiledLists:
    """The singles and the diagonal of one shift db, dealt to the threads of thread blocks.

    Args:
        n_threads: of a thread block, 128 or 256; tiles have half as many ket columns.
    """
    chunks = cut_chunks(beta, n_pairs, n_threads // 2)
    cell_start = np.zeros(chunks.n_cells + 1, np.int64)
    arrays = (
        beta.matrix_row, beta.matrix_diagonal, beta.indptr, beta.column, beta.orbital_pair, beta.sign,
        beta.occupied_pair, chunks.chunks, chunks.place, np.int64(chunks.tile_width),
    )  # fmt: skip
    _count_cells(*arrays[:5], *arrays[6:], cell_start)
    np.cumsum(cell_start, out=cell_start)
    packed = np.empty(int(cell_start[-1]), np.uint32)
    _pack_cells(*arrays, cell_start[:-1].copy(), packed)
    n_warps = n_threads // _WARP
    slice_start = np.zeros(chunks.n_cells * n_warps + 1, np.int64)
    _measure_slices(cell_start, packed, n_threads, slice_start[1:])
    np.cumsum(slice_start, out=slice_start)
    entries = np.full(int(slice_start[-1]), NONE, np.uint32)
    _deal(cell_start, packed, n_threads, slice_start, entries)
    return TiledLists(chunks, slice_start, entries, n_threads)


def sort_by_pair(start: IntArray, ket: NDArray[np.int32], pair: NDArray[np.int32], sign: NDArray[np.int8]) -> None:
    """Sort the alpha singles between any two neighbouring starts by orbital pair, in place."""
    _sort_by_pair(start, ket, pair, sign)


def _chunk_size(n: int) -> int:
    """Pairs of a chunk: chunks as few as possible, then as equal as possible in steps of PAIRS."""
    n_chunks = max(-(-n // CHUNK), 1)
    return max(-(-n // (n_chunks * PAIRS)), 1) * PAIRS


@jit
def _mark_singles(matrix_row, indptr, pair, present):
    for q in range(present.shape[0]):
        for m in range(indptr[matrix_row[q]], indptr[matrix_row[q + 1]]):
            present[q, 0, pair[m] >> 1] = True


@jit
def _cell_of(chunks, place, tile_width, column):
    return chunks[place >> 6, 2] + column // tile_width


@jit
def _count_cells(matrix_row, matrix_diagonal, indptr, column, pair, occupied, chunks, place, tile_width, counts):
    """Entries of every cell c at counts[c + 1]."""
    for q in range(place.shape[0]):
        for row in range(matrix_row[q], matrix_row[q + 1]):
            for m in range(indptr[row], indptr[row + 1]):
                counts[_cell_of(chunks, place[q, 0, pair[m] >> 1], tile_width, np.int64(column[m])) + 1] += 1
            if matrix_diagonal[q]:
                for r in range(occupied.shape[1]):
                    cell = _cell_of(chunks, place[q, 1, occupied[row, r]], tile_width, row - matrix_row[q])
                    counts[cell + 1] += 1


@jit
def _pack_cells(
    matrix_row, matrix_diagonal, indptr, column, pair, sign, occupied, chunks, place, tile_width, position, packed
):
    """The entries of every cell, by bra column."""
    for q in range(place.shape[0]):
        for row in range(matrix_row[q], matrix_row[q + 1]):
            bra = row - matrix_row[q]
            for m in range(indptr[row], indptr[row + 1]):
                where, ket = place[q, 0, pair[m] >> 1], np.int64(column[m])
                cell = _cell_of(chunks, where, tile_width, ket)
                upper = (pair[m] & 1) << 29 | (np.int64(1) if sign[m] < 0 else np.int64(0)) << 30
                packed[position[cell]] = np.uint32(bra | (where & 63) << 16 | (ket % tile_width) << 22 | upper)
                position[cell] += 1
            if matrix_diagonal[q]:
                for r in range(occupied.shape[1]):
                    where = place[q, 1, occupied[row, r]]
                    cell = _cell_of(chunks, where, tile_width, bra)
                    packed[position[cell]] = np.uint32(bra | (where & 63) << 16 | (bra % tile_width) << 22)
                    position[cell] += 1


@jit
def _runs(packed, start, stop):
    """First entry of every bra column of a cell, and how many it has, in the order in which they are dealt.

    Those with most entries come first; among equals, columns of all residues modulo 16 follow each other in turn, so
    that the sums of neighbouring threads lie in different banks of the shared memory.
    """
    first = np.empty(stop - start, np.int64)
    length = np.zeros(stop - start, np.int64)
    n = 0
    for m in range(start, stop):
        if m == start or (packed[m] ^ packed[m - 1]) & 0xFFFF != 0:
            first[n] = m
            n += 1
        length[n - 1] += 1
    order = np.argsort(-length[:n], kind="mergesort")
    key = np.empty(n, np.int64)
    turn = np.zeros(16, np.int64)
    for place in range(n):
        run = order[place]
        if place > 0 and length[run] != length[order[place - 1]]:
            turn[:] = 16 * place  # after all that are longer
        bank = np.int64(packed[first[run]]) & 15
        key[run] = turn[bank] + bank
        turn[bank] += 16
    order = np.argsort(key, kind="mergesort")
    return first[:n][order], length[:n][order]


@jit
def _thread_of(run, n_threads):
    """Run are dealt back and forth, so that all threads get about as many entries."""
    place = run % n_threads
    return n_threads - 1 - place if run // n_threads % 2 else place


@parallel_jit
def _measure_slices(cell_start, packed, n_threads, sizes):
    """(n_cells n_warps,) places for every 32 threads: 32 times the most entries that one of them gets."""
    n_warps = n_threads // 32
    for cell in numba.prange(cell_start.shape[0] - 1):
        _, length = _runs(packed, cell_start[cell], cell_start[cell + 1])
        load = np.zeros(n_threads, np.int64)
        for run in range(length.shape[0]):
            thread = _thread_of(run, n_threads)
            load[thread] += length[run]
            at = cell * n_warps + thread // 32
            sizes[at] = max(sizes[at], 32 * load[thread])


@parallel_jit
def _deal(cell_start, packed, n_threads, slice_start, entries):
    n_warps = n_threads // 32
    for cell in numba.prange(cell_start.shape[0] - 1):
        first, length = _runs(packed, cell_start[cell], cell_start[cell + 1])
        load = np.zeros(n_threads, np.int64)
        for run in range(length.shape[0]):
            thread = _thread_of(run, n_threads)
            at = slice_start[cell * n_warps + thread // 32] + thread % 32
            for m in range(length[run]):
                entries[at + 32 * load[thread]] = packed[first[run] + m]
                load[thread] += 1


@parallel_jit
def _sort_by_pair(start, ket, pair, sign):
    for row in numba.prange(start.shape[0] - 1):
        low, high = start[row], start[row + 1]
        order = np.argsort(pair[low:high], kind="mergesort")
        ket[low:high] = ket[low:high][order]
        pair[low:high] = pair[low:high][order]
        sign[low:high] = sign[low:high][order]
