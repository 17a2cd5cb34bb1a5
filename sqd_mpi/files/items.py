"""Groups, attributes and datasets of HDF5 files, read so that whatever is wrong with a file is one sentence.

Values that JSON knows (numbers, texts, lists, dictionaries, None) go into a file as a tree and come back as they were.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sqd_mpi.errors import InputError
from sqd_mpi.files import inspection

FORMAT_VERSION = 1
INPUT = "sqd_mpi-input"
RESULT = "sqd_mpi-result"
CHECKPOINT = "sqd_mpi-checkpoint"
PROBLEM = "sqd_mpi-problem"
LOOP = "sqd_mpi-loop"

PathLike = str | os.PathLike[str]


def _check_there(path: PathLike) -> None:
    """Raise InputError unless there is an ordinary file."""
    try:
        if not Path(path).exists():
            raise InputError(f"{path} does not exist")
        if Path(path).is_dir():
            raise InputError(f"{path} is a directory; a file is needed")
        if not Path(path).is_file():
            raise InputError(f"{path} is no ordinary file")
    except OSError as error:  # a directory that may not be searched, a name too long
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def look(path: PathLike) -> bool:
    """Make sure that a file is whole enough for HDF5; returns whether it was changed since it was written.

    Raises:
        InputError: if it is not.
    """
    _check_there(path)
    return inspection.look(path)


def open_file(path: PathLike, *formats: str) -> h5py.File:
    """An open file of one of the formats.

    Raises:
        InputError: if there is none.
    """
    _check_there(path)
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except OSError:
        raise InputError(f"{path} is not an HDF5 file, or it is truncated") from None
    try:
        with reading(path):
            inspection.check_structure(file)
            _check_format(file, path, formats)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def opened(path: PathLike, *formats: str) -> Iterator[h5py.File]:
    """Give an open file of one of the formats and close it."""
    with open_file(path, *formats) as file, reading(path):
        yield file


@contextmanager
def reading(path: PathLike) -> Iterator[None]:
    """Turn what h5py raises for a damaged file into one sentence.

    Raises:
        InputError: with that sentence.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def _check_format(file: h5py.File, path: PathLike, formats: Sequence[str]) -> None:
    """Check the root attributes."""
    stated, version = plain(file.attrs.get("format")), plain(file.attrs.get("version"))
    needed = " or ".join(formats)
    if stated is None:
        raise InputError(f"{path} is not a file of sqd_mpi: a root attribute format = {needed} is needed")
    if stated not in formats:
        raise InputError(f"{path} is a file of format {stated}; one of format {needed} is needed")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{path} has no version of its format: a root attribute version = 1 is needed")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has version {version} of format {stated}; this sqd_mpi reads up to version {FORMAT_VERSION}"
        )


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Put the name of a file before the sentence of an error.

    Raises:
        InputError: with the longer sentence.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def group_of(parent: h5py.Group, name: str) -> h5py.Group:
    """A group.

    Raises:
        InputError: it is not there.
    """
    group = parent.get(name)
    if not isinstance(group, h5py.Group):
        raise InputError(f"{parent.file.filename} has no group /{name}")
    return group


def attribute(item: h5py.Group, name: str) -> Any:
    """An attribute, as a Python object.

    Raises:
        InputError: it is not there.
    """
    if name not in item.attrs:
        raise InputError(f"{item.file.filename} has no attribute {name} of {item.name}")
    return plain(item.attrs[name])


def array_of(parent: h5py.Group, name: str, ndim: int | None = None) -> NDArray[Any]:
    """The numbers of a dataset, of its shape.

    Raises:
        InputError: it is not there, holds no numbers or has not `ndim` dimensions.
    """
    item = parent.get(name)
    full_name = f"{parent.name.rstrip('/')}/{name}"
    if not isinstance(item, h5py.Dataset):
        raise InputError(f"{parent.file.filename} has no dataset {full_name}")
    if item.dtype.kind not in "fiu" or ndim not in (None, item.ndim):
        raise InputError(f"{parent.file.filename}: {full_name} has a wrong type or shape: {item.dtype}, {item.shape}")
    return np.asarray(item[()])


def write_tree(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Write numbers, texts and None as attributes, lists and arrays as datasets, dictionaries as groups."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            write_tree(group.create_group(name), value)
        elif isinstance(value, list | tuple | np.ndarray):
            _write_list(group, name, value)
        else:
            group.attrs[name] = h5py.Empty("f8") if value is None else _storable(value)


def _storable(value: Any) -> Any:
    """A value as HDF5 takes it: names of files may have bytes that are no UTF-8, which become escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _write_list(group: h5py.Group, name: str, values: Sequence[Any] | NDArray[Any]) -> None:
    """Write a list; None becomes NaN, and a mark says that the other numbers are integers."""
    array = np.array(values)
    if array.dtype.kind in "U":
        array = np.array([_storable(value) for value in array.ravel().tolist()], dtype=object).reshape(array.shape)
        group.create_dataset(name, data=array, dtype=h5py.string_dtype())
    elif array.dtype.kind == "O":
        known = {type(value) for value in array.ravel() if value is not None}
        group[name] = array.astype(np.float64)
        group[name].attrs["integers"] = bool(known) and known <= {int, np.int64, np.int32}
    else:
        group[name] = array


def read_tree(group: h5py.Group) -> dict[str, Any]:
    """What `write_tree` wrote, as an object that JSON can hold: what is not finite is None."""
    tree = {name: plain(value) for name, value in group.attrs.items()}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            tree[name] = read_tree(item)
        elif h5py.check_string_dtype(item.dtype):
            tree[name] = item.asstr()[...].tolist()
        else:
            values = plain(np.asarray(item[()]))
            tree[name] = _integers(values) if item.attrs.get("integers", False) else values
    return tree


def plain(value: Any) -> Any:
    """A Python object for what h5py gives."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _integers(values: Any) -> Any:
    """Nested lists with their numbers as integers."""
    if isinstance(values, list):
        return [_integers(value) for value in values]
    return None if values is None else int(values)
