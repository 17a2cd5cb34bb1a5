"""What fits: the backend of a solve, the memory that it may take, its grid, and the size of its basis.

A solve is prepared in steps, each of which all ranks take together and with the same outcome: `Call` is what was asked,
`Engine` what computes and how much memory that leaves, `Frame` the space as it is divided among the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sqd_mpi import _jit, planner
from sqd_mpi.arrays import Shape
from sqd_mpi.backends import device_is_there, get_backend
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import Memory
from sqd_mpi.distribution.mpi import no_messages_from
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.problem.space import Space
from sqd_mpi.solver.davidson import enough_vectors, least_subspace, subspace_sizes
from sqd_mpi.solver.sectors import Sector
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.solver.sought import Sought, sector_layout, seek
from sqd_mpi.timing import Timers

# Largest share of the memory limit that vectors and buffers may be predicted to take.
_MEMORY_SHARE = 0.95
_ANY_MEMORY = 2**60
_ON_DEVICE = "vectors, buffers and connection lists"


@dataclass(frozen=True, eq=False)
class Call:
    """What one solve is asked for, the same on all ranks."""

    ranks: Ranks = field(repr=False)
    """Those that solve together."""
    space: Space
    """Hamiltonian and strings."""
    options: SolveOptions
    """As they were given."""
    log: Log = field(repr=False)
    """Where sentences go."""
    timers: Timers = field(repr=False)
    """Where seconds go."""
    memory: int
    """Bytes that each rank may take, the least of all ranks."""
    local_rank: int
    """Number of this rank on its node."""
    n_local: int
    """Ranks of this node."""

    @property
    def basis_sizes(self) -> tuple[int, int]:
        """Largest and least number of basis vectors."""
        return subspace_sizes(self.options.nroots, self.options.max_subspace)

    @cached_property
    def problem(self) -> planner.Problem:
        """What the planner knows about the input; wanted before strings are dealt to the parts of the grid."""
        flip = self.options.spin_flip == "auto" and self.space.same_spins
        single = self.options.takes_single_precision(self.space.n_determinants)
        return planner.Problem.from_space(self.space, flip, self.options.string_order != "sorted", single)

    def forget_problem(self) -> None:
        """Give back the memory of its connections."""
        self.__dict__.pop("problem", None)


@dataclass(frozen=True, eq=False)
class Engine:
    """What computes in a solve, and where its vectors lie."""

    name: str
    """Name of the backend."""
    backend: Any = field(repr=False)
    """Its module."""
    memory: Memory = field(repr=False)
    """Where vectors live."""
    allowed: int
    """Bytes of that memory which a rank may take."""

    def single(self, call: Call) -> Memory | None:
        """Where blocks and sums lie while sigma is made in single precision; None where that is not done."""
        return self.memory.single if call.options.takes_single_precision(call.space.n_determinants) else None

    @property
    def has_device(self) -> bool:
        """Whether vectors live on a device, which then limits them."""
        return self.memory.identity is not None


@dataclass(frozen=True, eq=False)
class Frame:
    """A space divided among the ranks of a grid, with what is sought in it."""

    call: Call = field(repr=False)
    """What was asked."""
    engine: Engine
    """What computes."""
    grid: ProcessGrid = field(repr=False)
    """The process grid."""
    space: Space
    """The space with its strings in the order of the blocks."""
    sought: Sought
    """Which spin is wanted, and the sectors that may have it."""
    max_subspace: int
    """Basis vectors that fit."""

    @property
    def single(self) -> Memory | None:
        """Where blocks and sums lie while sigma is made in single precision; None where that is not done."""
        return self.engine.single(self.call)

    @property
    def n_extra_vectors(self) -> int:
        """Vectors beside the basis that an operator keeps."""
        return _n_extra_vectors(self.call, self.engine, self.grid, self.sought)

    def layout(self, sector: Sector) -> Layout:
        """Ownership of the vectors of a sector."""
        return sector_layout(self.space, sector, self.grid.shape)

    def basis_for(self, layout: Layout, count: int, n_known: int) -> int:
        """Number of basis vectors with which `count` roots of a sector are followed.

        Two roots that are known, here or in another sector, take the place of a basis vector and its image. For a
        single one there is room (`planner.predict_memory`).

        Args:
            layout: of the sector.
            count: number of roots, beside locked ones.
            n_known: number of vectors of roots that are kept.

        Raises:
            InputError: not even two vectors a root fit into the memory limit; the same on all ranks.
        """
        size = self.max_subspace - n_known // 2
        if size >= max(min(self.max_subspace, enough_vectors(count)), 2 * count):
            return size
        # More roots than were asked for, such as those of the other parity. With two vectors a root nothing would be
        # left of the step before, without which iterations hardly come on.
        for size in range(max(self.max_subspace, least_subspace(count)), 2 * count - 1, -1):
            needed = _vector_bytes(self.grid.shape, [layout], size) + _extra_bytes(
                self.n_extra_vectors + max(n_known - 1, 0), [layout], self.grid
            )
            if self.engine.has_device or needed <= _MEMORY_SHARE * self.engine.allowed:
                return size
        raise _too_large(self.call, self.engine, self.grid.shape, needed, f"vectors and buffers for {count} roots")

    def basis_that_fits(
        self, operator: SigmaOperator, structure: int, n_basis: int, least: int, n_locked: int
    ) -> int:  # fmt: skip
        """As many basis vectors as fit beside lists and buffers that are on the device by now.

        Collective over the grid. Predicted lists may be somewhat smaller than those that were made.

        Args:
            operator: whose vectors they are.
            structure: bytes of this rank's lists.
            n_basis: as many as there should be.
            least: as many as there must be.
            n_locked: vectors of known roots that lie on the device as well.

        Raises:
            InputError: not even the least number fits; the same on all ranks.
        """
        if not self.engine.has_device:
            return n_basis
        taken = (
            structure
            + operator.plan.buffer_bytes
            + _extra_bytes(self.n_extra_vectors + n_locked, [operator.layout], self.grid)
        )
        counts = np.array([taken, 8 * operator.size], np.int64)
        self.grid.maximum_over_all(counts)
        fits = int((_MEMORY_SHARE * self.engine.allowed - counts[0]) // max(counts[1], 1) - 1) // 2
        if fits < least:
            needed = float(counts[0] + counts[1] * (2 * least + 1))
            raise _too_large(self.call, self.engine, self.grid.shape, needed, _ON_DEVICE)
        if fits < n_basis:
            self.call.log.info(
                f"memory limit: {fits} basis vectors instead of {n_basis}: lists are longer than predicted"
            )
        return min(fits, n_basis)


def fit(call: Call) -> Frame:
    """Everything that a solve needs before it makes lists and vectors. Collective over the communicator.

    Raises:
        InputError: something that was asked for does not fit; the same on all ranks.
    """
    options, space = call.options, call.space
    if options.nroots > space.n_determinants:
        raise InputError(
            f"--nroots {options.nroots} needs at least as many determinants; this space has {space.n_determinants}"
        )

    # Backend, then grid: what is counted on the way decides how many basis vectors fit at the end.
    engine = _engine(call)
    shape = _shape(call, engine)
    device_bytes = _device_bytes(call, engine, shape)

    # What is sought: the spin, and the sectors that may have it.
    flip = space.same_spins and shape[0] == shape[1] and options.spin_flip == "auto"
    sought = seek(space, options, flip)

    # The ranks, and who owns which string.
    grid = ProcessGrid(call.ranks, shape, options.share_blocks == "auto" and not options.gpu_aware_mpi)
    if grid.n_ranks > 1:
        with call.timers("structure"):
            space = space.ordered(
                *planner.order_strings(
                    space.alpha, space.beta, shape, options.string_order != "sorted", sought.sectors[0].parity != 0
                )
            )
            whole = sector_layout(space, sought.sectors[0], shape)
            space.keep_singles_of(whole.ket_rows(grid.coordinates.ia)[0], whole.beta_rows(grid.coordinates.ib)[0])
    call.forget_problem()
    layouts = [sector_layout(space, sector, shape) for sector in sought.sectors]
    n_extra = _n_extra_vectors(call, engine, grid, sought)
    max_subspace = _subspace_that_fits(call, engine, grid, layouts, n_extra, device_bytes)
    return Frame(call, engine, grid, space, sought, max_subspace)


def _engine(call: Call) -> Engine:
    """The backend and the memory of its vectors; that of a device limits the solve where it is smaller.

    Raises:
        InputError: there is no device, or messages cannot go from it; the same on all ranks.
    """
    name = _choose_backend(call)
    backend, options = get_backend(name), call.options
    memory: Memory | None = None
    trouble = None
    try:
        memory = backend.create_memory(
            direct=options.gpu_aware_mpi, local_rank=call.local_rank if call.ranks.size > 1 else None,
            n_local=call.n_local, say=call.log.warning_once,
        )  # fmt: skip
        if options.gpu_aware_mpi and memory is not None:
            trouble = no_messages_from(memory.kind)
    except InputError as error:
        trouble = str(error)
    call.ranks.agree_on_error(trouble)
    assert memory is not None

    allowed = call.memory
    if memory.identity is not None:
        found = memory.limit(call.ranks.count_alike(memory.identity))
        assert found is not None
        least = -int(call.ranks.maximum(np.array([-found], np.int64))[0])
        allowed = least if options.memory is None else min(least, allowed)
    return Engine(name, backend, memory, allowed)


def _choose_backend(call: Call) -> str:
    """The backend that was asked for; "auto" is the CPU, or a GPU that a measured profile says is faster.

    Raises:
        InputError: the machine profiles in the environment do not serve; the same on all ranks.
    """
    if call.options.backend != "auto":
        return call.options.backend
    profiles = call.ranks.from_rank_0(planner.named_profiles)
    if "gpu" not in profiles or call.ranks.maximum(np.array([not device_is_there()], np.int64))[0]:
        return "cpu"
    choice = call.ranks.from_rank_0(
        lambda: planner.choose_backend(call.problem, profiles, _jit.n_threads(), call.basis_sizes, call.ranks.size)
    )
    call.log.info(choice.sentence)
    return str(choice.backend)


def _shape(call: Call, engine: Engine) -> Shape:
    """The grid that was asked for, or the planner's; rank 0 plans for all."""
    if call.options.grid != "auto":
        return call.options.grid
    if call.ranks.size == 1:
        return 1, 1, 1, 1
    chosen, missing = (1, 1, 1, 1), 0
    with call.timers("plan"):
        if call.ranks.rank == 0:
            plan = _plan(call, engine)
            best = plan.chosen or plan.too_large[0]
            chosen, missing = best.grid, max(best.missing_bytes, best.missing_device_bytes)
        chosen, missing = call.ranks.broadcast((chosen, missing))
    if missing:
        call.log.warning(
            f"no grid of {call.ranks.size} ranks is predicted to fit into {engine.allowed / 2**30:.3g} GiB per rank; "
            f"{missing / 2**30:.3g} GiB are missing"
        )
    return chosen


def _plan(call: Call, engine: Engine) -> planner.Plan:
    profile, limits = MachineProfile(), planner.MemoryLimits(engine.allowed, *call.basis_sizes)
    if engine.has_device:  # the memory is this rank's part of a device
        profile = planner.assumed_device().model_copy(update={"context_bytes": 0})
        limits = planner.MemoryLimits(_ANY_MEMORY, *call.basis_sizes, engine.allowed)
    profile = profile.model_copy(update={"ranks_per_node": call.n_local})
    return planner.make_plan(call.problem, call.ranks.size, profile, _jit.n_threads(), limits)


def _device_bytes(call: Call, engine: Engine, shape: Shape) -> dict[int, int] | None:
    """Predicted bytes of a rank on its device by number of basis vectors, everything included.

    None without a device, and where any lists would fit beside the vectors, so that none need be counted.
    """
    if not engine.has_device:
        return None
    found, sizes, space = None, call.basis_sizes, call.space
    with call.timers("plan"):
        most = planner.predict_memory(shape, space.n_determinants, sizes[0]).total
        most += planner.most_bytes(space.alpha, space.beta, space.hamiltonian.norb, space.hamiltonian.nelec)
        if most <= _MEMORY_SHARE * engine.allowed:
            return None
        if call.ranks.rank == 0:
            found = planner.rank_bytes(call.problem, shape, planner.MemoryLimits(_ANY_MEMORY, *sizes, engine.allowed))
        return call.ranks.broadcast(found)


def _subspace_that_fits(
    call: Call, engine: Engine, grid: ProcessGrid, layouts: list[Layout], n_extra: int,
    device_bytes: dict[int, int] | None,
) -> int:  # fmt: skip
    """Number of basis vectors: as asked for, or the default, or less where the memory limit wants it.

    Args:
        call: what was asked.
        engine: what computes.
        grid: the process grid.
        layouts: of all sectors.
        n_extra: vectors beside the basis that an operator keeps.
        device_bytes: what a rank needs on its device; without one, vectors and buffers in host memory count.

    Raises:
        InputError: not even the smallest subspace fits; says what is missing.
    """
    wanted, smallest = call.basis_sizes
    for size in range(wanted, smallest - 1, -1):
        needed = _vector_bytes(grid.shape, layouts, size) if device_bytes is None else device_bytes[size]
        needed += _extra_bytes(n_extra, layouts, grid)
        if needed <= _MEMORY_SHARE * engine.allowed:
            if size < wanted:
                call.log.info(f"memory limit: {size} basis vectors instead of {wanted}")
            engine.memory.reserve(needed)
            return size
    what = "vectors and buffers" if device_bytes is None else _ON_DEVICE
    raise _too_large(call, engine, grid.shape, needed, what)


def _vector_bytes(shape: Shape, layouts: list[Layout], n_basis: int) -> int:
    """Predicted bytes of vectors and buffers of one rank in the largest of some sectors."""
    dimension = max(layout.dimension for layout in layouts)
    n_determinants = max(layout.n_determinants for layout in layouts)
    return planner.predict_memory(shape, dimension, n_basis, n_determinants).total


def _n_extra_vectors(call: Call, engine: Engine, grid: ProcessGrid, sought: Sought) -> int:
    """Vectors beside the basis that an operator keeps."""
    # In double precision the vector of one process is its own block. A rounded one and its image take one more vector;
    # elsewhere blocks of half the size make up for them.
    is_whole = grid.n_ranks == 1 and not sought.sectors[0].parity
    return sought.n_extra_vectors + int(is_whole and engine.single(call) is not None)


def _extra_bytes(n_extra: int, layouts: list[Layout], grid: ProcessGrid) -> int:
    """Bytes of the vectors beside the basis that an operator keeps."""
    return 8 * n_extra * -(-max(layout.dimension for layout in layouts) // grid.n_ranks)


def _too_large(call: Call, engine: Engine, shape: Shape, needed: float, what: str) -> InputError:
    """The sentence that says what is missing."""
    device = f"of {engine.memory.device} " if engine.memory.device else ""
    advice = "; --backend cpu takes the memory of the host" if device and call.options.backend == "auto" else ""
    return InputError(
        f"--memory: {what} need {needed / 2**30:.3g} GiB per rank on grid {','.join(str(n) for n in shape)}; "
        f"{engine.allowed / 2**30:.3g} GiB per rank {device}are allowed, "
        f"{(needed - _MEMORY_SHARE * engine.allowed) / 2**30:.3g} GiB too few{advice}"
    )
