"""New files that appear under their name only when they are complete, with a checksum over every word."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import h5py

from sqd_mpi._version import __version__
from sqd_mpi.files import checksums
from sqd_mpi.files.items import FORMAT_VERSION, PathLike
from sqd_mpi.files.new_files import into_place, temporary_name, write_error

_HEAD = checksums.HEAD_BYTES


class AtomicFile:
    """A new HDF5 file that appears under its name only when it is complete.

    The context manager gives an open `h5py.File` under a temporary name beside the target. At the end the file is
    flushed to the disk and renamed; after an exception it is removed, and a former file of that name stays.

    Args:
        path: name of the finished file.
        file_format: root attribute `format`, such as INPUT.

    Raises:
        WriteError: on entering or leaving: the file cannot be made or written.
    """

    def __init__(self, path: PathLike, file_format: str) -> None:
        self.path = Path(path)
        self.file_format = file_format
        self._temporary = temporary_name(self.path)
        self._file: h5py.File | None = None
        self._stream: Stream | None = None

    def __enter__(self) -> h5py.File:
        try:
            self._stream = Stream(self._temporary)
        except OSError as failure:
            raise write_error(self.path, failure) from None
        self._file = h5py.File(self._stream, "w", libver=("earliest", "v110"), userblock_size=_HEAD)
        write_format(self._file, self.file_format)
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if self._file is not None and self._stream is not None:
                self._file.close()
                self._stream.finish()
            if kind is None:
                write_head(self._temporary, checksums.file_sum(self._temporary, [(_HEAD, size_of(self._temporary))]))
                into_place(self._temporary, self.path)
        except OSError as failure:
            raise write_error(self.path, failure) from None
        finally:
            self._temporary.unlink(missing_ok=True)


class Stream(io.RawIOBase):
    """A new file that HDF5 writes into and never fails to: an error is kept until the file is closed.

    HDF5 cannot get rid of a file into which it could not write: it complains at every object of the file and crashes
    at the end of the process.

    Args:
        path: the file, which is made.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._place = 0
        self._error: OSError | None = None

    def __repr__(self) -> str:
        """The name, which h5py takes for that of the file."""
        return str(self._path)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place of the file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        self._place = offset + (os.fstat(self._descriptor).st_size if start is None else start)
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read; where nothing could be written there are zeros."""
        view = memoryview(buffer).cast("B")
        content = os.pread(self._descriptor, len(view), self._place)
        view[:] = content + bytes(len(view) - len(content))
        self._place += len(view)
        return len(view)

    def write(self, content: Any) -> int:
        """Write, or keep the error."""
        left = memoryview(content).cast("B")
        n_bytes = len(left)
        try:
            while left and self._error is None:
                written = os.pwrite(self._descriptor, left, self._place)
                self._place += written
                left = left[written:]
        except OSError as error:
            self._error = error
        self._place += len(left)
        return n_bytes

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or keep the error."""
        length = self._place if size is None else size
        try:
            os.ftruncate(self._descriptor, length)
        except OSError as error:
            self._error = self._error or error
        return length

    def finish(self) -> None:
        """Close the file.

        Raises:
            OSError: the first error.
        """
        os.close(self._descriptor)
        if self._error is not None:
            raise self._error


def size_of(path: Path) -> int:
    """The length of a file in bytes."""
    return path.stat().st_size


def write_head(path: Path, total: int) -> None:
    """Write the checksum into the first bytes of a complete file."""
    with open(path, "r+b") as stream:
        stream.write(checksums.head(size_of(path), total))


def write_format(file: h5py.File, file_format: str) -> None:
    """Write the attributes that every file has."""
    file.attrs["format"] = file_format
    file.attrs["version"] = FORMAT_VERSION
    file.attrs["creator"] = f"sqd_mpi {__version__}"
