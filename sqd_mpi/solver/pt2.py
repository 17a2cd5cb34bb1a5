"""Second-order correction and energy variance of roots in a product space, without holding the space outside.

With the amplitudes A_D = <D|H|Psi> of all determinants D outside the space of the strings A x B,

    E2 = sum_D A_D^2 / (E - H_DD)                              (Epstein-Nesbet),
    <H^2> - <H>^2 = sum_D A_D^2 + |P (H - E) Psi|^2,

P the projector on the space: the second term is the square of the residual norm where there is no penalty on other
spins. Determinants outside come in three regions, each a product of string lists: alpha strings A' that single or
double excitations of A reach, times B; A times such B'; and A' x B' with single excitations on both sides. Every rank
has a part of the strings of every region, chosen by a hash, and works through it in tiles of bounded size: ket blocks
slide in as in a sigma, then the tile is summed up and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray
from sqd_mpi.backends import get_external_tile
from sqd_mpi.backends.cpu.outside import Columns, ExternalTile, Integrals
from sqd_mpi.distribution.ket_exchange import KetExchange
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.whole_blocks import whole_block
from sqd_mpi.problem.bitstrings import counts
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.outside_strings import external_strings, most_external
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.resources import available_memory
from sqd_mpi.solver.result import Root, SubspaceResult

# A tile takes at most this share of the memory that is left, and no more than these bytes or two blocks of the vector:
# larger tiles save slides of ket blocks, which matters only where there are several.
_MEMORY_SHARE = 0.25
_TILE_BYTES = 64 * 2**20
_MOST_ROWS = 65_536  # of a tile: bounds its lists of connections
_MOST_COLUMNS = 16_384  # of a tile with strings outside on both sides
_MOST_STRINGS = 2_000_000  # strings outside that a rank finds at a time


@dataclass(frozen=True)
class Correction:
    """What the determinants outside the space say about one root."""

    energy: float
    """Epstein-Nesbet second-order correction of the energy, hartree."""
    variance: float
    """<H^2> - <H>^2, hartree^2."""
    smallest_gap: float
    """Smallest |H_DD - E| of a determinant D outside that H couples to the root, hartree; infinity if there is none.
    Near zero the correction means nothing."""


def second_order(
    result: SubspaceResult, hamiltonian: Hamiltonian, root: int = 0, tile_bytes: int | None = None
) -> Correction:
    """Second-order correction and variance of one root.

    Collective over the grid: all ranks give the same arguments; the result lives on every rank. Costs some 30
    to 60 sigmas, more for small spaces: every determinant that the space couples to is visited.

    Args:
        result: what `solve_subspace` returned.
        hamiltonian: the same as there.
        root: which root.
        tile_bytes: bytes of a tile; by default a share of the memory.

    Raises:
        ValueError: there is no such root.
        InputError: the integrals depend on spin.
    """
    if not 0 <= root < len(result.roots):
        raise ValueError(f"a root is one of 0 to {len(result.roots) - 1}; got {root}")
    return _correction(result, hamiltonian, root, result.deviations([root])[0], tile_bytes)


def _correction(
    result: SubspaceResult, hamiltonian: Hamiltonian, root: int, deviation: float, tile_bytes: int | None = None
) -> Correction:
    """As `second_order`, with the 2-norm of H v - <H> v within the space."""
    chosen = result.roots[root]
    if tile_bytes is None:
        tile_bytes = _default_tile_bytes(result.grid, chosen.layout)
    tile_class = get_external_tile(result.backend)
    sums = _Sums(result.grid, hamiltonian, chosen, result.symmetry.labels, tile_bytes, tile_class).run()
    return Correction(float(sums[0]), float(sums[1] + deviation**2), float(sums[2]))


def of_all_roots(result: SubspaceResult, hamiltonian: Hamiltonian) -> list[Correction]:
    """Corrections of all roots. Collective over the grid."""
    deviations = result.deviations(range(len(result.roots)))
    return [_correction(result, hamiltonian, k, deviation) for k, deviation in enumerate(deviations)]


def _default_tile_bytes(grid: ProcessGrid, layout: Layout) -> int:
    """Bytes of a tile that suit the memory that is left; the same on all ranks. Collective over the grid."""
    a, b, _, _ = grid.shape
    left = np.array([-_MEMORY_SHARE * available_memory() / grid.ranks.local()[1]])
    grid.maximum_over_all(left)
    block = 8 * layout.n_determinants // (a * b)
    return max(1, min(int(-left[0]), max(_TILE_BYTES, 2 * block if a * b > 1 else 0)))


@dataclass(frozen=True, eq=False)
class _Frame:
    """The vector as rows and columns: as it is, or transposed so that beta strings stand in the rows."""

    layout: Layout
    """Of the vector in this frame, without parity, one rank per block."""
    integrals: Integrals
    """As seen by it."""
    block: tuple[int, int]
    """(row block, column block) of this rank."""
    own: FloatArray = field(repr=False)
    """Flat own block."""
    swapped: bool
    """Whether rows are beta strings."""

    def transposed(self) -> _Frame:
        """The same vector with rows and columns exchanged; copies the own block."""
        old, (row_block, column_block) = self.layout, self.block
        new = replace(
            old, alpha=old.beta, beta=old.alpha, grid=(old.grid[1], old.grid[0], 1, 1), alpha_bounds=old.beta_bounds,
            beta_bounds=old.alpha_bounds, row_group_bounds=old.beta_bounds,
        )  # fmt: skip
        turned = _Frame(
            new, self.integrals.transposed(), (column_block, row_block), np.empty_like(self.own), not self.swapped
        )
        pieces, targets = _pieces(old, self.block, self.own), _pieces(new, turned.block, turned.own)
        for x, piece in enumerate(pieces):
            targets[x ^ old.sector][:] = piece.T
        return turned


def _pieces(layout: Layout, block: tuple[int, int], flat: FloatArray) -> list[FloatArray]:
    """Views (rows of label x, columns of label x XOR sector) of a flat block, for every x."""
    heights, widths = np.diff(layout.alpha_bounds, axis=1)[:, block[0]], layout.row_lengths(block[1])
    ends = np.cumsum(heights * widths)
    return [
        flat[end - height * width : end].reshape(height, width)
        for end, height, width in zip(ends, heights, widths, strict=True)
    ]


def _frame_of(grid: ProcessGrid, hamiltonian: Hamiltonian, root: Root) -> _Frame:
    """The frame of a root with alpha strings in the rows. Collective over the grid."""
    old, here = root.layout, grid.coordinates
    layout = replace(old, grid=(*old.grid[:2], 1, 1), parity=0, row_group_bounds=old.alpha_bounds)
    own = root.vector
    if grid.n_ranks > 1 or old.parity:
        own = whole_block(grid, old, root.vector)
    if old.grid[3] > 1:  # from row groups to plain rows
        offsets, lengths = old.ket_offsets(here.ia, here.ib), old.row_lengths(here.ib)
        _, start = old.ket_rows(here.ia)
        ordered = np.empty_like(own)
        for x, piece in enumerate(_pieces(layout, (here.ia, here.ib), ordered)):
            for row, offset in zip(piece, offsets[start[x] : start[x + 1]], strict=True):
                row[:] = own[offset : offset + lengths[x]]
        own = ordered
    return _Frame(layout, Integrals.of(hamiltonian), (here.ia, here.ib), own, False)


class _Sums:
    """The sums over all determinants outside the space of one root."""

    def __init__(
        self, grid: ProcessGrid, hamiltonian: Hamiltonian, root: Root, labels: IntArray, tile_bytes: int,
        tile_class: type[ExternalTile],
    ):  # fmt: skip
        self.grid, self.root, self.tile_class = grid, root, tile_class
        self.hamiltonian = hamiltonian
        self.labels, self.tile_elements = labels, max(1, tile_bytes // 8)
        rows, columns = np.tril_indices(len(labels))
        self.pair_labels = (labels[rows] ^ labels[columns]).astype(np.int64)
        self.found = np.array([0.0, 0.0, np.inf])

    def run(self) -> FloatArray:
        """(3,): E2, the sum of squared amplitudes, the smallest gap; on all ranks. Collective over the grid."""
        frame = _frame_of(self.grid, self.hamiltonian, self.root)
        mirrored = self.root.layout.parity != 0
        # C = +-C^T makes what beta strings outside contribute equal to what alpha strings outside do.
        self._one_side(frame, 2.0 if mirrored else 1.0)
        self._both_sides(frame)
        if not mirrored:
            self._one_side(frame.transposed(), 1.0)
        sums, gap = self.found[:2].copy(), np.array([-self.found[2]])
        self.grid.sum_over_all(sums)
        self.grid.maximum_over_all(gap)
        return np.array([sums[0], sums[1], -gap[0]])

    def _one_side(self, frame: _Frame, weight: float) -> None:
        """Determinants whose row string alone lies outside: singles first, then what only doubles reach."""
        layout, norb = frame.layout, len(self.labels)
        part, n_parts = self._part(frame)
        singles = self._outside(layout.alpha, 1, part, n_parts)
        columns = Columns.of_block(layout, frame.block[1], norb, self.pair_labels, True)
        self._work_off(frame, self._rows(frame, singles, columns), columns, weight)
        columns = replace(columns, singles=[])
        n_electrons = int(counts(layout.alpha.strings[:1])[0])
        expected = most_external(layout.alpha.size, norb, n_electrons, 2) / n_parts
        n_passes = int(np.ceil(expected / _MOST_STRINGS))
        for k in range(n_passes):
            doubles = self._outside(layout.alpha, 2, part * n_passes + k, n_parts * n_passes, singles.strings)
            self._work_off(frame, self._rows(frame, doubles, columns), columns, weight)

    def _both_sides(self, frame: _Frame) -> None:
        """Determinants with both strings outside; single excitations of both spins reach them."""
        layout, norb = frame.layout, len(self.labels)
        rows = self._outside(layout.alpha, 1, *self._part(frame))
        width = layout.grid[1]
        n_electrons = int(counts(layout.beta.strings[:1])[0])
        expected = most_external(layout.beta.size, norb, n_electrons, 1) / width
        n_passes = int(np.ceil(expected / (_MOST_COLUMNS * max(1, layout.n_labels // 2))))
        for k in range(n_passes):
            outside = self._outside(layout.beta, 1, frame.block[1] * n_passes + k, width * n_passes)
            columns = Columns.outside(layout, outside, norb, self.pair_labels)
            self._work_off(frame, self._rows(frame, rows, columns), columns, 1.0)

    def _part(self, frame: _Frame) -> tuple[int, int]:
        """Which part of the rows outside is this rank's, of how many; ranks of one column block share all rows."""
        _, _, t, r = self.root.layout.grid
        here = self.grid.coordinates
        return (frame.block[0] * r + here.ir) * t + here.it, frame.layout.grid[0] * r * t

    def _outside(
        self, inside: SpinStrings, degree: int, part: int, n_parts: int, excluded: NDArray[np.uint64] | None = None
    ) -> SpinStrings:
        """One part of the strings outside, label after label."""
        found = external_strings(inside.strings, len(self.labels), degree, part, n_parts, excluded)
        return SpinStrings.from_canonical(found, self.labels, inside.n_labels)

    def _rows(self, frame: _Frame, strings: SpinStrings, columns: Columns) -> list[tuple[NDArray[np.uint64], IntArray]]:
        """The rows of every tile: strings and (n_labels + 1,) first of every label; rows without a column left out."""
        labels = np.arange(strings.n_labels)
        widths = np.diff(columns.start)[labels ^ frame.layout.sector]
        row_label = np.repeat(labels, np.diff(strings.label_start))
        kept = np.flatnonzero(widths[row_label] > 0)
        rows, row_label = strings.strings[kept], row_label[kept]
        elements = np.cumsum(widths[row_label])
        tiles, first = [], 0
        while first < len(rows):
            before = elements[first - 1] if first else 0
            last = int(np.searchsorted(elements, before + self.tile_elements, side="right"))
            last = min(max(last, first + 1), first + _MOST_ROWS)
            start = np.searchsorted(row_label[first:last], np.arange(strings.n_labels + 1)).astype(np.int64)
            tiles.append((rows[first:last], start))
            first = last
        return tiles

    def _work_off(
        self, frame: _Frame, tiles: list[tuple[NDArray[np.uint64], IntArray]], columns: Columns, weight: float
    ) -> None:
        """Add the sums of all tiles; every rank takes part in every round. Collective over the grid."""
        n_rounds = np.array([len(tiles)], np.int64)
        self.grid.maximum_over_all(n_rounds)
        for k in range(int(n_rounds[0])):
            tile = None
            if k < len(tiles):
                tile = self.tile_class(frame.layout, frame.integrals, *tiles[k], columns, self.pair_labels)
            for ja, jb, ket in self._kets(frame, [] if tile is None else tile.needed()):
                assert tile is not None
                tile.add(ja, jb, ket)
            if tile is not None:
                sums = tile.sums(self.root.energy)
                self.found[:2] += weight * sums[:2]
                self.found[2] = min(self.found[2], sums[2])

    def _kets(self, frame: _Frame, needed: list[tuple[int, int]]) -> Iterator[tuple[int, int, FloatArray]]:
        """The needed ket blocks (ja, jb, flat) of the frame, the own one first. Collective over the grid."""
        a, b = frame.layout.grid[:2]
        sizes = frame.layout.block_sizes
        ia, ib = frame.block
        order = sorted(needed, key=lambda key: ((key[0] - ia) % a, (key[1] - ib) % b))

        def turn(key: tuple[int, int]) -> tuple[int, int]:
            return key[::-1] if frame.swapped else key

        exchange = KetExchange(
            self.grid, [turn(key) for key in order], sizes.T.copy() if frame.swapped else sizes, frame.own
        )
        exchange.start()
        if frame.block in needed:
            yield ia, ib, frame.own
        for k, key in enumerate(exchange.remote):
            yield *turn(key), exchange.wait(k)
            exchange.release(k)
        exchange.finish()
        exchange.free()
