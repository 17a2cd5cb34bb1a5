"""New files that appear under their name only when they are complete."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqd_mpi.errors import InputError, RunError

# The 255 bytes of file systems, less what the longest name of a temporary file beside has more: that of a checkpoint.
_LONGEST_NAME = 255 - len("..checkpoint.12345678.tmp")


class WriteError(RunError, OSError):
    """A file that could not be written, on a full disk for one: a sentence with its name."""


def write_error(path: str | os.PathLike[str], error: OSError) -> WriteError:
    """The error of a file for one of the system."""
    reason = error.strerror or str(error)
    made = WriteError(f"cannot write {path}: {reason}")
    made.strerror = reason
    return made


def behind_links(path: str | os.PathLike[str]) -> Path:
    """The file that a symbolic link leads to, which may not exist yet; other paths as they are."""
    named = Path(path)
    return Path(os.path.realpath(named)) if named.is_symlink() else named


def check_output(path: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Check, before any work, that a file can be written.

    Args:
        path: file that is to be written.
        inputs: files that are read and must not be replaced by it.

    Raises:
        InputError: if the directory is missing or not writable, the file is a directory or one of the inputs, or its
            name is too long.
    """
    target = Path(path)
    try:
        complaint = _complaint(target, inputs)
    except OSError as error:  # a directory that may not be searched
        complaint = error.strerror or str(error)
    if complaint is not None:
        raise InputError(f"cannot write {target}: {complaint}")


def _complaint(target: Path, inputs: Iterable[str | os.PathLike[str] | None]) -> str | None:
    """Why a file cannot be written, or None."""
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        return f"its name is longer than {_LONGEST_NAME} bytes"
    folder = behind_links(target).parent
    if not folder.is_dir():
        return f"the directory {folder} does not exist"
    if target.is_dir():
        return "it is a directory"
    if target.exists() and not target.is_file():
        return "it is no ordinary file"
    if not os.access(folder, os.W_OK):
        return f"the directory {folder} is not writable"
    for source in inputs:
        if source is not None and target.exists() and Path(source).exists() and target.samefile(source):
            return f"it would replace the input file {source}"
    return None


@contextmanager
def new_binary_file(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Give a new file of bytes, packed by gzip if its name ends in .gz, that appears when it is complete.

    Raises:
        WriteError: it cannot be written; a former file of this name stays.
    """
    target = Path(path)
    temporary = temporary_name(target)
    try:
        with gzip.open(temporary, "wb") if target.suffix == ".gz" else open(temporary, "wb") as stream:
            yield stream
        into_place(temporary, target)
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """The name under which a file is written before it is complete: beside it, behind symbolic links."""
    real = behind_links(path)
    return real.with_name(f".{real.name}.{os.getpid()}.tmp")


def into_place(temporary: Path, path: Path) -> None:
    """Give a complete file its name, once it is on the disk; a symbolic link of that name stays and leads to it."""
    to_disk(temporary)
    real = behind_links(path)
    os.replace(temporary, real)
    with suppress(OSError):
        to_disk(real.parent)


def to_disk(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
