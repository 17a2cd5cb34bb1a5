"""The process grid: communicators, ownership of coordinates, slides, reductions. The only door to mpi4py.

Ranks form a grid (a, b, t, r). World rank = ((ia b + ib) r + ir) t + it, so replicas of a block are neighbours
(on a node, with the usual placement). Three communicators: *layer* (one replica of every block: fixed it, ir),
*replicas* (all replicas of one block) and *task_groups* (the t replicas of one sub-block).
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import Shape
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.log import settle
from sqd_mpi.resources import available_cores

if TYPE_CHECKING:
    from mpi4py import MPI

    from sqd_mpi.distribution.cancellable import Group

    Communicator = MPI.Intracomm


_CLOCK_QUESTIONS = 16
# Where MPI libraries keep shared memory, and how much of what is free there may be taken: a file system that fills up
# kills a process at the next write, without a message.
_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_SHARE = 0.8
_SHARED_PIECE = 2**27  # numbers of one message


def world() -> Communicator | None:
    """COMM_WORLD, or None where mpi4py or an MPI library is missing (then there is one process)."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    if not MPI.Is_initialized():  # it was imported to ask for its version only
        MPI.Init_thread()
        atexit.register(MPI.Finalize)
    return MPI.COMM_WORLD


def _running() -> Any:
    """The module of MPI if MPI was started here and goes on, else None."""
    module = sys.modules.get("mpi4py.MPI")
    return module if module is not None and module.Is_initialized() and not module.Is_finalized() else None


def started_rank() -> int | None:
    """Number of this process in COMM_WORLD, or None where MPI does not run here: nobody but MPI knows it."""
    module = _running()
    return None if module is None else int(module.COMM_WORLD.rank)


def abort(code: int) -> None:
    """End all ranks of this job at once, if MPI was started here; otherwise return."""
    module = _running()
    if module is not None:
        settle()
        module.COMM_WORLD.Abort(code)


def library_version() -> str:
    """Name and version of the MPI library, or why there is none."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"none ({str(error).splitlines()[0]}); install one with: pip install 'sqd_mpi[mpi]'"
    return " ".join(MPI.Get_library_version().replace("\x00", "").split("\n")[0].split())


def local_ranks(comm: Communicator | None) -> tuple[int, int]:
    """This rank's number among the ranks of its node, and how many these are."""
    if comm is None or comm.size == 1:
        return 0, 1
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    result = node.rank, node.size
    node.Free()
    return result


def cores_of_node(comm: Communicator | None) -> tuple[int, int]:
    """How many cores the ranks of this node may use together, and how many ranks these are.

    Collective over the communicator. A rank that is bound to cores of its own does not see those of the others.
    """
    if comm is None or comm.size == 1:
        return available_cores(), 1
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(available_cores())
    together: set[int] = set().union(*node.allgather(set(mine)))
    result = len(together), node.size
    node.Free()
    return result


def count_alike(comm: Communicator | None, text: str) -> int:
    """How many ranks of a communicator gave the same text as this one. Collective over the communicator."""
    return 1 if comm is None or comm.size == 1 else comm.allgather(text).count(text)


def no_messages_from(kind: str) -> str | None:
    """Why this MPI library does not send from the memory of GPUs of a kind, in one sentence, or None.

    Args:
        kind: "cuda", "hip", or "host" for the host shim, whose memory any library takes.
    """
    if kind == "host" or "mpi4py.MPI" not in sys.modules:
        return None
    if os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1":  # Cray MPICH, which then demands it
        return None
    if _answer_on_gpus(kind):
        return None
    return (
        f"--gpu-aware-mpi needs an MPI library that sends from the memory of GPUs ({kind}); {library_version()} does "
        "not say that it can (Cray MPICH does so with MPICH_GPU_SUPPORT_ENABLED=1)"
    )


def _answer_on_gpus(kind: str) -> bool:
    """What the MPI library answers, by the functions of Open MPI and MPICH; False if it has none of them."""
    import ctypes

    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libmpi" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        if hasattr(library, "MPIX_GPU_query_support"):  # MPICH: 0 for CUDA, 2 for HIP
            found = ctypes.c_int(0)
            code = library.MPIX_GPU_query_support({"cuda": 0, "hip": 2}[kind], ctypes.byref(found))
            if code == 0 and found.value:
                return True
        query = {"cuda": "MPIX_Query_cuda_support", "hip": "MPIX_Query_rocm_support"}[kind]
        if hasattr(library, query) and getattr(library, query)():
            return True
    return False


def free_shared_memory() -> int:
    """Bytes of shared memory that this node has left; 0 where it is not known."""
    try:
        state = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return 0
    return state.f_bavail * state.f_frsize


def broadcast(comm: Communicator | None, value: Any, root: int = 0) -> Any:
    """The value of `root` on every rank of a communicator."""
    return value if comm is None or comm.size == 1 else comm.bcast(value, root=root)


def from_rank_0(comm: Communicator | None, work: Callable[[], Any]) -> Any:
    """What work() returns on rank 0, on all ranks; if it raises an InputError or a RunError there, all ranks raise it.

    Collective over the communicator.
    """
    outcome: Any = None
    if comm is None or comm.rank == 0:
        try:
            outcome = work()
        except (InputError, RunError) as error:
            outcome = error
    outcome = broadcast(comm, outcome)
    if isinstance(outcome, InputError | RunError):
        raise outcome
    return outcome


def barrier(comm: Communicator | None) -> None:
    """Wait for all ranks of a communicator."""
    if comm is not None and comm.size > 1:
        comm.Barrier()


def agree_on_error(comm: Communicator | None, message: str | None) -> None:
    """Raise the same InputError on every rank if any rank has a message.

    Collective over the communicator.

    Raises:
        InputError: with the message of the lowest rank that has one.
    """
    messages = [message] if comm is None or comm.size == 1 else comm.allgather(message)
    for text in messages:
        if text is not None:
            raise InputError(text)


def sum_of_words(comm: Communicator | None, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sum of an array of 64-bit words over all ranks, modulo 2^64. Collective over the communicator."""
    if comm is None or comm.size == 1:
        return values
    from mpi4py import MPI

    total = np.empty_like(values)
    comm.Allreduce(values, total, op=MPI.SUM)
    return total


def largest_of_all(comm: Communicator | None, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Elementwise maximum of an array over all ranks. Collective over the communicator."""
    if comm is None or comm.size == 1:
        return values
    from mpi4py import MPI

    total = np.empty_like(values)
    comm.Allreduce(values, total, op=MPI.MAX)
    return total


def minimum_mean_maximum(comm: Communicator | None, values: dict[str, float]) -> dict[str, tuple[float, float, float]]:
    """(minimum, mean, maximum) over the ranks of every named number; names of rank 0 are used by all."""
    names = sorted(broadcast(comm, list(values)))
    mine = np.array([values.get(name, 0.0) for name in names])
    gathered = mine[None, :] if comm is None or comm.size == 1 else np.array(comm.allgather(mine))
    lows, means, highs = gathered.min(axis=0), gathered.mean(axis=0), gathered.max(axis=0)
    return {name: (float(lows[k]), float(means[k]), float(highs[k])) for k, name in enumerate(names)}


def gather_objects(comm: Communicator | None, mine: Any) -> list[Any]:
    """One small object of every rank, on all ranks. Collective over the communicator."""
    return [mine] if comm is None or comm.size == 1 else comm.allgather(mine)


def gather_on_root(comm: Communicator | None, mine: Any) -> list[Any]:
    """One object of every rank on rank 0, nothing on the others. Collective over the communicator."""
    if comm is None or comm.size == 1:
        return [mine]
    return comm.gather(mine) or []


def split(comm: Communicator, color: int) -> Communicator:
    """The communicator of all ranks that give the same color, in their order. Collective over the communicator."""
    return cast("Communicator", comm.Split(color, comm.rank))


def group_with_recall(comm: Communicator) -> Group:
    """The ranks of a communicator as a group that can call its members back. Collective over the communicator."""
    from sqd_mpi.distribution.cancellable import Group

    return Group(comm)


def _wait_for_all(comm: Communicator | None, requests: list[Any]) -> None:
    """Return when all requests are done; on a communicator of a `recall.Group`, raise if a rank has given up."""
    from mpi4py import MPI

    complete = getattr(comm, "complete", MPI.Request.Waitall)
    complete(requests)


class NodeShared:
    """Arrays of rank 0 as every rank reads them, one copy on each node. Collective over the communicator.

    Args:
        comm: communicator of several ranks.
        arrays: float64 arrays of rank 0; what other ranks give does not matter.

    Attributes:
        arrays: the same arrays, in memory that the ranks of a node share.
    """

    def __init__(self, comm: Communicator, arrays: Sequence[NDArray[np.float64]] | None):
        from mpi4py import MPI

        mine = arrays if comm.rank == 0 and arrays is not None else ()
        shapes = comm.bcast([array.shape for array in mine])
        sizes = [int(np.prod(shape)) for shape in shapes]
        self._node = cast("Communicator", comm.Split_type(MPI.COMM_TYPE_SHARED))
        leads = self._node.rank == 0
        leaders = comm.Split(0 if leads else MPI.UNDEFINED, comm.rank)
        self._window = MPI.Win.Allocate_shared(8 * sum(sizes) if leads else 0, 8, comm=self._node)
        memory = np.frombuffer(cast("Any", self._window.Shared_query(0)[0]), np.float64)
        self.arrays = [part.reshape(shape) for part, shape in zip(_parts(memory, sizes), shapes, strict=True)]
        self._window.Fence()
        if leads:
            for k, array in enumerate(self.arrays):
                if comm.rank == 0:
                    array[...] = mine[k]
                for piece in np.array_split(array.reshape(-1), -(-array.size // _SHARED_PIECE) or 1):
                    leaders.Bcast(piece)
            leaders.Free()
        self._window.Fence()  # what the leader wrote is seen by all

    def free(self) -> None:
        """Give the memory back. Collective over the communicator; the arrays must not be used any more."""
        self.arrays = []
        self._window.Free()
        self._node.Free()


def _parts(memory: NDArray[np.float64], sizes: Sequence[int]) -> list[NDArray[np.float64]]:
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return [memory[first:last] for first, last in pairwise(bounds)]


def pieces_of_all_ranks(comm: Communicator | None, mine: Iterable[bytes]) -> Iterator[bytes]:
    """On rank 0 the pieces of bytes of all ranks, rank after rank; on the others nothing.

    Collective over the communicator: every rank must exhaust the iterator. A rank makes its pieces when its turn
    comes, and only one travels at a time. No piece may be empty.
    """
    if comm is None or comm.size == 1:
        yield from mine
    elif comm.rank == 0:
        yield from mine
        for source in range(1, comm.size):
            comm.send(None, dest=source)  # its turn: pieces that nobody waits for would pile up here
            while piece := comm.recv(source=source):
                yield piece
    else:
        comm.recv(source=0)
        for piece in mine:
            comm.send(piece, dest=0)
        comm.send(b"", dest=0)


def clock_offset(
    comm: Communicator | None, host: str | None = None, clock: Callable[[], float] = perf_counter
) -> float:
    """Seconds that the clock of rank 0 is ahead of the clock of this rank.

    Ranks of one host share a monotonic clock. The first rank of every other host asks rank 0 for its time and takes
    the answer that came back fastest: F. Cristian, Distributed Computing 3, 146 (1989). Its error is at most half of
    the time that a message takes there and back.

    Collective over the communicator.

    Args:
        comm: communicator, or None.
        host: name of what shares a clock; by default that of this node.
        clock: clock in question.
    """
    if comm is None or comm.size == 1:
        return 0.0
    hosts = comm.allgather(_host_of_clock() if host is None else host)
    leader = hosts.index(hosts[comm.rank])
    mine = 0.0
    for asking in sorted({hosts.index(name) for name in hosts} - {0}):
        if comm.rank == 0:
            for _ in range(_CLOCK_QUESTIONS):
                comm.recv(source=asking)
                comm.send(clock(), dest=asking)
        elif comm.rank == asking:
            mine = _ask_for_offset(comm, clock)
    return comm.allgather(mine)[leader]


def _host_of_clock() -> str:
    """What ranks with the same monotonic clock have in common: the boot of their kernel, or else the host's name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return socket.gethostname()


def _ask_for_offset(comm: Communicator, clock: Callable[[], float]) -> float:
    answers = []
    for _ in range(_CLOCK_QUESTIONS):
        asked = clock()
        comm.send(None, dest=0)
        theirs = comm.recv(source=0)
        answered = clock()
        answers.append((answered - asked, theirs - (asked + answered) / 2))
    return min(answers)[1]


@dataclass(frozen=True)
class Coordinates:
    """Place of a rank in the grid."""

    ia: int
    ib: int
    it: int
    ir: int


class ProcessGrid:
    """An (a, b, t, r) arrangement of the ranks of one communicator.

    Args:
        comm: communicator with a b t r ranks, or None for one process without MPI.
        shape: (a, b, t, r).
        share_blocks: whether ranks of one node may read each other's blocks in place (`node_blocks`).

    Raises:
        InputError: the shape does not fit the number of ranks.
    """

    def __init__(self, comm: Communicator | None, shape: Shape, share_blocks: bool = True):
        n_ranks = 1 if comm is None else comm.size
        if int(np.prod(shape)) != n_ranks or min(shape) < 1:
            text = ",".join(str(n) for n in shape)
            raise InputError(f"--grid {text} needs {int(np.prod(shape))} ranks; this run has {n_ranks}")
        self.comm = comm
        self.shape = shape
        self.n_ranks = n_ranks
        self.rank = 0 if comm is None else comm.rank
        self.coordinates = self.coordinates_of(self.rank)
        a, b, t, r = shape
        here = self.coordinates
        self.layer = self._split(here.ir * t + here.it, here.ia * b + here.ib, a * b)
        self.replicas = self._split(here.ia * b + here.ib, here.ir * t + here.it, t * r)
        self.task_groups = self._split((here.ia * b + here.ib) * r + here.ir, here.it, t)
        self.node = self._node() if share_blocks else None

    def _node(self) -> Communicator | None:
        """The ranks of this node, if every block has all its replicas on one node and some node has several ranks."""
        if self.comm is None or self.n_ranks == 1:
            return None
        from mpi4py import MPI

        node = cast("Communicator", self.comm.Split_type(MPI.COMM_TYPE_SHARED, self.rank))
        _, _, t, r = self.shape
        mine = self.rank // (t * r)
        together = node.allgather(mine).count(mine) == t * r
        answers = np.array([together, node.size == 1], np.int64)
        self.comm.Allreduce(MPI.IN_PLACE, answers, op=MPI.MIN)
        if answers[0] and not answers[1]:
            return node
        node.Free()
        return None

    def node_blocks(self, size: int) -> NodeBlocks | None:
        """Memory for one block of every place (ia, ib) on this node, which all its ranks can read and write.

        Collective over the grid. None where blocks are not shared: one rank a node, replicas of a block on several
        nodes, or not enough room for shared memory.

        Args:
            size: number of elements of this rank's block.
        """
        if self.node is None or self.comm is None:
            return None
        from mpi4py import MPI

        here = self.coordinates
        places = self.node.allgather((here.ia, here.ib))
        first = places.index((here.ia, here.ib)) == self.node.rank
        needed = np.array([8.0 * size if first else 0.0])
        self.node.Allreduce(MPI.IN_PLACE, needed, op=MPI.SUM)
        fits = np.array([needed[0] <= _SHARED_MEMORY_SHARE * free_shared_memory()], np.int64)
        self.comm.Allreduce(MPI.IN_PLACE, fits, op=MPI.MIN)
        return NodeBlocks(self.node, places, size if first else 0) if fits[0] else None

    def _split(self, color: int, key: int, size: int) -> Communicator | None:
        return None if self.comm is None or size == 1 else cast("Communicator", self.comm.Split(color, key))

    def coordinates_of(self, rank: int) -> Coordinates:
        """Coordinates of any rank."""
        _, b, t, r = self.shape
        block, replica = divmod(rank, r * t)
        return Coordinates(ia=block // b, ib=block % b, it=replica % t, ir=replica // t)

    def sum_over_all(self, values: NDArray[np.float64]) -> None:
        """Add an array over all ranks, in place. Collective over the grid."""
        if self.comm is not None and self.n_ranks > 1:
            from mpi4py import MPI

            self.comm.Allreduce(MPI.IN_PLACE, values, op=MPI.SUM)

    def maximum_over_all(self, values: NDArray[Any]) -> None:
        """Elementwise maximum over all ranks, in place. Collective over the grid."""
        if self.comm is not None and self.n_ranks > 1:
            from mpi4py import MPI

            self.comm.Allreduce(MPI.IN_PLACE, values, op=MPI.MAX)

    def gather_everywhere(self, values: NDArray[Any]) -> NDArray[Any]:
        """Concatenate small arrays (of unequal length along axis 0) of all ranks on all ranks. Collective."""
        if self.comm is None or self.n_ranks == 1:
            return values
        return np.concatenate(self.comm.allgather(values))

    def collect_slices(self, mine: NDArray[np.float64], whole: NDArray[np.float64], counts: list[int]) -> None:
        """Put the slices of all replicas of this block together on each of them. Collective over the replicas.

        Args:
            mine: slice of this rank.
            whole: the block, filled on return.
            counts: sizes of the slices in replica order (ir, it).
        """
        if self.replicas is None:
            whole[:] = mine
            return
        from mpi4py import MPI

        displacements = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.replicas.Allgatherv(mine, [whole, (counts, displacements), MPI.DOUBLE])

    def swap_with_mirror(self, mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
        """Exchange arrays with the rank of the mirror block (ib, ia) in the same layer. Collective over the layer."""
        here = self.coordinates
        if self.layer is None or here.ia == here.ib:
            raise RuntimeError("a diagonal block is its own mirror")
        mirror = here.ib * self.shape[1] + here.ia
        self.layer.Sendrecv(mine, dest=mirror, recvbuf=theirs, source=mirror)

    def scatter_sum(self, partial: NDArray[np.float64], mine: NDArray[np.float64], counts: list[int]) -> None:
        """Add the t partial sub-blocks and leave each task group its slice. Collective over the task groups."""
        if self.task_groups is None:
            if mine is not partial:
                mine[:] = partial
            return
        from mpi4py import MPI

        self.task_groups.Reduce_scatter(partial, mine, recvcounts=counts, op=MPI.SUM)

    def send(self, array: NDArray[Any], destination: int, tag: int) -> None:
        """Blocking send of an array to a rank of the whole communicator."""
        if self.comm is None:
            raise RuntimeError("there is no other rank to send to")
        self.comm.Send(array, dest=destination, tag=tag)

    def receive(self, array: NDArray[Any], source: int, tag: int) -> None:
        """Blocking receive from a rank of the whole communicator."""
        if self.comm is None:
            raise RuntimeError("there is no other rank to receive from")
        self.comm.Recv(array, source=source, tag=tag)

    def free(self) -> None:
        """Give the communicators back."""
        for comm in (self.layer, self.replicas, self.task_groups, self.node):
            if comm is not None:
                comm.Free()


class NodeBlocks:
    """Blocks of the ranks of one node in memory that all of them read and write: an MPI shared-memory window.

    Between writing by some ranks and reading by others all must pass a `fence`.

    Collective over the node at construction and in `fence` and `free`.

    Args:
        node: the ranks of the node.
        places: block coordinates (ia, ib) of each of them; the first rank of a place provides the memory.
        size: number of elements that this rank provides.
    """

    def __init__(self, node: Communicator, places: list[tuple[int, int]], size: int):
        from mpi4py import MPI

        self._node = node
        self._window = MPI.Win.Allocate_shared(8 * size, 8, comm=node)
        self._window.Lock_all()
        self.blocks: dict[tuple[int, int], NDArray[np.float64]] = {}
        for rank, place in enumerate(places):
            if place not in self.blocks:
                memory: Any = self._window.Shared_query(rank)[0]
                self.blocks[place] = np.frombuffer(memory, np.float64) if len(memory) else np.empty(0)
        self.nbytes = 8 * size

    def fence(self) -> None:
        """Return when all ranks of the node are here; what they wrote before is visible after."""
        self._window.Sync()
        self._node.Barrier()
        self._window.Sync()

    def free(self) -> None:
        """Give the memory back; the arrays must not be used any more."""
        self.blocks.clear()
        self._node.Barrier()
        self._window.Unlock_all()
        self._window.Free()


class KetExchange:
    """The slides of one sigma: which ket blocks this rank receives, in which order, and to whom it sends its own.

    Planned once; each sigma then starts two lists of persistent requests. All sends leave from the same buffer (this
    rank's own block), receives alternate between two buffers: the next block travels while this one is used. Blocks
    that this rank can read in place do not travel; they come first, and give the others time.

    Collective over the layer at construction.

    Args:
        grid: the process grid.
        needed: (ja, jb) of the ket blocks this rank needs, in order of use; its own block may be among them.
        sizes: number of elements of every block, (a, b) int64.
        own: flat buffer with this rank's own block.
        present: blocks that this rank can read in place.
        buffers: what blocks arrive in: `empty(n)` makes a buffer, `message(buffer)` is what MPI is given for it;
            by default arrays in host memory.
    """

    def __init__(
        self,
        grid: ProcessGrid,
        needed: list[tuple[int, int]],
        sizes: NDArray[np.int64],
        own: NDArray[np.float64],
        present: Mapping[tuple[int, int], NDArray[np.float64]] | None = None,
        buffers: Any = None,
    ):
        self.grid = grid
        empty = np.empty if buffers is None else buffers.empty
        _, b, _, _ = grid.shape
        here = grid.coordinates
        readable = present if present is not None else {}
        others = [key for key in needed if key != (here.ia, here.ib) and sizes[key] > 0]
        travelling = [key for key in others if key not in readable]
        self.remote = [key for key in others if key in readable] + travelling
        self._present = [readable[key] for key in others if key in readable]
        self._sources = [ja * b + jb for ja, jb in travelling]
        self._sizes = [int(sizes[key]) for key in travelling]
        capacity = max(self._sizes, default=0)
        self._buffers: list[NDArray[Any]] = [empty(capacity) for _ in range(min(2, len(travelling)))]
        self._sends: list[Any] = []
        self._receives: list[Any] = []
        self._started = [0.0] * len(travelling)
        self.bytes_received = 8 * sum(self._sizes)
        if grid.layer is None:
            return
        wanted = np.zeros(grid.layer.size, np.uint8)
        wanted[self._sources] = 1
        wants_mine = np.empty_like(wanted)
        grid.layer.Alltoall(wanted, wants_mine)
        for destination in np.flatnonzero(wants_mine):
            self._sends.append(grid.layer.Send_init(own, dest=int(destination)))
        for k, source in enumerate(self._sources):
            block: Any = self._buffers[k % 2][: self._sizes[k]]
            message = block if buffers is None else buffers.message(block)
            self._receives.append(grid.layer.Recv_init(message, source=source))

    @property
    def n_received(self) -> int:
        """Number of blocks that travel to this rank; those that it reads in place do not count."""
        return len(self._sizes)

    @property
    def sends(self) -> bool:
        """Whether any rank receives this rank's own block."""
        return bool(self._sends)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers of what travels."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def start(self) -> None:
        """Begin all sends and the first two receives; the own block must be complete."""
        if self._sends:
            from mpi4py import MPI

            MPI.Prequest.Startall(self._sends)
        for k in range(min(2, len(self._receives))):
            self._receive(k)

    def wait(self, k: int) -> NDArray[np.float64]:
        """The k-th remote ket block, once it has arrived. Valid until `release(k)`."""
        if k < len(self._present):
            return self._present[k]
        k -= len(self._present)
        _wait_for_all(self.grid.layer, [self._receives[k]])
        block: NDArray[Any] = self._buffers[k % 2][: self._sizes[k]]
        return block

    def started(self, k: int) -> float | None:
        """When the k-th remote block began to travel last, in seconds of perf_counter; None if it does not travel."""
        return self._started[k - len(self._present)] if k >= len(self._present) else None

    def release(self, k: int) -> None:
        """Say that the k-th block is used up: its buffer takes the block after the next."""
        k -= len(self._present)
        if 0 <= k < len(self._receives) - 2:
            self._receive(k + 2)

    def _receive(self, k: int) -> None:
        self._started[k] = perf_counter()
        self._receives[k].Start()

    def finish(self) -> None:
        """Wait until all sends are done; then the own block may change."""
        if self._sends:
            _wait_for_all(self.grid.layer, self._sends)

    def free(self) -> None:
        """Release the persistent requests."""
        for request in self._sends + self._receives:
            request.Free()
        self._sends, self._receives = [], []
