"""Looks at HDF5 files before they are read: what they claim must fit what they hold, and damage must not hurt.

HDF5 is not made for damaged files: some flipped bits make it crash, or look for ever. A file whose checksum is right
has none. Any other file is looked at in a child process first, with a limit of time and memory.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from sqd_mpi.errors import InputError
from sqd_mpi.files import checksums
from sqd_mpi.resources import PACKAGE

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_DEPTH = 8
_MOST_OBJECTS = 200_000
_MOST_ATTRIBUTE_BYTES = 16 * 2**20
_SMALL_BYTES = 2**20  # a dataset of this size may hold less than it claims
_MOST_PACKING = 1100  # bytes that one stored byte may stand for: somewhat more than deflate can do
_LARGEST_SUMMED = 2**30  # files above are not summed up by one process; their structure is looked at instead
_CHILD_MEMORY = 4 * 2**30
_CHILD_SECONDS = 30.0  # of processor time: a busy machine is no damage
_PATIENCE = 20.0  # times as long by the clock
_CHILD_RATE = 20e6  # bytes per second that a child reads at least
_REFUSED, _DAMAGED = 3, 4  # exit codes of the child

PathLike = str | os.PathLike[str]


def look(path: PathLike) -> bool:
    """Make sure that an existing file can be given to HDF5.

    Returns:
        whether the file has a checksum that does not fit: it was changed after sqd_mpi had written it.

    Raises:
        InputError: it is no HDF5 file, damaged, or claims what it does not hold.
    """
    changed = False
    try:
        with open(path, "rb") as stream:
            content = stream.read(checksums.HEAD_BYTES + len(_SIGNATURE))
        n_bytes = Path(path).stat().st_size
        if not _is_hdf5(path):
            raise InputError(f"{path} is not an HDF5 file, or it is truncated")
        if not content.startswith(_SIGNATURE) and n_bytes <= _LARGEST_SUMMED:
            with suppress(InputError):  # a head that is damaged, or of another length
                stated = checksums.read_head(path)
                if stated and checksums.file_sum(path, [(checksums.HEAD_BYTES, n_bytes)]) == stated[1]:
                    return False
            changed = True
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    look_in_child(path)
    return changed


def _is_hdf5(path: PathLike) -> bool:
    """Whether the signature stands at one of the places where HDF5 looks for it."""
    with open(path, "rb") as stream:
        size, place = stream.seek(0, os.SEEK_END), 0
        while place + len(_SIGNATURE) <= size:
            stream.seek(place)
            if stream.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            place = max(512, 2 * place)
    return False


def look_in_child(path: PathLike) -> None:
    """Let a child process read the structure of a file, whatever becomes of it.

    Raises:
        InputError: the child did not end well in time.
    """
    limit = _CHILD_SECONDS + Path(path).stat().st_size / _CHILD_RATE
    code, sentence = (_fork if _may_fork() else _spawn)(path, limit)
    if code == 0:
        return
    if code == _REFUSED and sentence:
        raise InputError(sentence)
    if code is None or code == -signal.SIGXCPU:
        raise InputError(f"{path} is damaged: HDF5 did not come to an end with it in {limit:.0f} s")
    raise InputError(f"{path} is not an HDF5 file, or it is truncated or damaged: {sentence or 'HDF5 cannot read it'}")


def _may_fork() -> bool:
    """Whether a fork is safe: neither MPI nor threads of Python have locks that the child would inherit."""
    return hasattr(os, "fork") and "mpi4py.MPI" not in sys.modules and threading.active_count() == 1


def _fork(path: PathLike, limit: float) -> tuple[int | None, str]:
    """Exit code (None after the time limit) and sentence of a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads of libraries, which the child does not use
        child = os.fork()
    if child == 0:
        ending = _DAMAGED
        try:
            os.close(reader)
            ending, sentence = _looked(path, limit)
            os.write(writer, sentence.encode(errors="replace")[:4000])
        finally:
            os._exit(ending)
    os.close(writer)
    code = _wait(child, _PATIENCE * limit)
    with os.fdopen(reader, "rb") as stream:
        sentence = stream.read().decode(errors="replace")
    return code, sentence


def _wait(child: int, limit: float) -> int | None:
    """Exit code of a child, negative after a signal; None if it had to be killed after `limit` seconds."""
    deadline, pause = time.monotonic() + limit, 1e-4
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _spawn(path: PathLike, limit: float) -> tuple[int | None, str]:
    """Exit code (None after the time limit) and sentence of another Python."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from sqd_mpi.files import inspection\n"
        "code, sentence = inspection._looked(sys.argv[2], float(sys.argv[3]))\n"
        "sys.stdout.write(sentence); sys.stdout.flush(); os._exit(code)"
    )
    root = str(PACKAGE.parent)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, root, os.fspath(path), str(limit)], stdin=subprocess.DEVNULL,
            capture_output=True, timeout=_PATIENCE * limit, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout.decode(errors="replace")


def _looked(path: PathLike, seconds: float) -> tuple[int, str]:
    """In the child: exit code and sentence of a look at everything in a file, in so much processor time."""
    signal.alarm(0)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + _CHILD_MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed if hard < 0 else min(allowed, hard), hard))
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            check_structure(file, read=True)
    except InputError as error:
        return _REFUSED, str(error)
    except Exception as error:
        return _DAMAGED, " ".join(str(error).split())[:300]
    return 0, ""


def check_structure(file: h5py.File, read: bool = False) -> None:
    """Walk through a file.

    Args:
        file: open file.
        read: whether to read attributes and packed datasets as well, to see if that works.

    Raises:
        InputError: for links out of the file, virtual datasets, elements in other files, a group that contains itself,
            or a dataset or attribute that claims to hold far more than the file does.
    """
    _Walk(file, read).group(file, 0)


class _Walk:
    """One walk through a file."""

    def __init__(self, file: h5py.File, read: bool) -> None:
        self.file, self.read = file, read
        self.n_bytes = os.stat(file.filename).st_size
        self.n_objects = 0
        self.seen: set[Any] = set()

    def fail(self, item: Any, complaint: str) -> None:
        """Raise InputError about an object."""
        name = item if isinstance(item, str) else item.name
        raise InputError(f"{self.file.filename} is refused: {name} {complaint}")

    def group(self, group: h5py.Group, depth: int) -> None:
        """A group and what is in it."""
        address = h5py.h5o.get_info(group.id).addr
        if address in self.seen or depth > _MOST_DEPTH:
            self.fail(group, "is contained in itself, linked twice or nested too deeply")
        self.seen.add(address)
        self.attributes(group)
        for name in group:
            self.n_objects += 1
            if self.n_objects > _MOST_OBJECTS:
                self.fail(group, f"holds more than {_MOST_OBJECTS} objects")
            full_name = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                self.fail(full_name, "is a link to another file")
            item = group.get(name)
            if item is None:
                self.fail(full_name, "is a link to nothing")
            if isinstance(item, h5py.Group):
                self.group(item, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self.dataset(item)

    def dataset(self, item: h5py.Dataset) -> None:
        """What a dataset claims."""
        if item.is_virtual or item.external:
            self.fail(item, "has its elements in other files or datasets")
        self.attributes(item)
        claimed, stored = item.size * item.dtype.itemsize if item.size else 0, item.id.get_storage_size()
        chunk = item.dtype.itemsize
        for length in item.chunks or ():
            chunk *= length
        held = min(int(stored), self.n_bytes)
        if max(claimed, chunk if item.chunks else 0) > max(_SMALL_BYTES, _MOST_PACKING * held):
            self.fail(item, f"claims {max(claimed, chunk):.3g} bytes, of which the file holds {held}")
        if self.read and item.size and (item.chunks or h5py.check_string_dtype(item.dtype)) and claimed <= 2**30:
            item[()]

    def attributes(self, item: Any) -> None:
        """What the attributes of an object claim."""
        for name in item.attrs:
            attribute = item.attrs.get_id(name)
            claimed = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
            if claimed > min(_MOST_ATTRIBUTE_BYTES, self.n_bytes):
                self.fail(item, f"has an attribute {name} that claims {claimed} bytes")
            if self.read:
                item.attrs[name]
