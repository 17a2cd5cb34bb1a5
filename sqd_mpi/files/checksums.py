"""A checksum over every word of a file, which any number of ranks can make and verify in parts.

    sum over i of mix(i, word i)  (mod 2^64)

with the 64-bit words of the file after its first 512 bytes. A term depends on the place and the content of one word
alone, so ranks that write or read different parts of a file add up their sums in any order. `mix` is bijective in the
word: a single damaged word is always noticed, several with a probability of 1 - 2^-64.

The sum stands in the first 512 bytes as text. HDF5 calls them the user block and leaves them alone, so such a file is
still an ordinary HDF5 file; but it can be verified before HDF5, which is not made for damaged files, sees it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError

HEAD_BYTES = 512  # the smallest user block of HDF5

_MAGIC = b"sqd_mpi checksum 1\n"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_CHUNK_WORDS = 1 << 16  # 0.5 MB: stays in the cache
_READ_BYTES = 32 * 2**20
_PLACE, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

PathLike = str | os.PathLike[str]


def word_sum(words: NDArray[Any], first: int) -> int:
    """Sum of 64-bit words that follow each other in a file.

    Args:
        words: contiguous array of any shape and type whose size is a multiple of 8 bytes.
        first: number of the first word: its offset in the file over 8.
    """
    flat = words.reshape(-1).view(np.uint64)
    total = 0
    for start in range(0, len(flat), _CHUNK_WORDS):
        piece = flat[start : start + _CHUNK_WORDS]
        mixed = np.arange(first + start, first + start + len(piece), dtype=np.uint64)
        mixed *= _PLACE
        mixed ^= piece
        mixed *= _FIRST
        mixed ^= mixed >> np.uint64(31)
        mixed *= _SECOND
        total += int(mixed.sum(dtype=np.uint64))
    return total % 2**64


def file_sum(path: PathLike, ranges: Iterable[tuple[int, int]]) -> int:
    """Sum of the words of ranges of bytes [start, stop) of a file; starts are multiples of 8, an end is padded."""
    total = 0
    with open(path, "rb") as stream:
        for start, stop in ranges:
            for offset in range(start, stop, _READ_BYTES):
                stream.seek(offset)
                content = stream.read(min(_READ_BYTES, stop - offset))
                content += bytes(-len(content) % 8)
                total += word_sum(np.frombuffer(content, np.uint64), offset // 8)
    return total % 2**64


def outside(ranges: Iterable[tuple[int, int]], n_bytes: int) -> list[tuple[int, int]]:
    """What of a file of n_bytes, without its head, lies outside of ranges of bytes that do not overlap."""
    gaps, position = [], HEAD_BYTES
    for start, stop in sorted(ranges):
        if start > position:
            gaps.append((position, start))
        position = stop
    return gaps + ([(position, n_bytes)] if n_bytes > position else [])


def head(n_bytes: int, total: int) -> bytes:
    """The first bytes of a file of n_bytes in all whose words add up to `total`."""
    text = _MAGIC + f"bytes {n_bytes}\nsum {total:016x}\n".encode()
    return (text + f"head {zlib.crc32(text):08x}\n".encode()).ljust(HEAD_BYTES, b"\0")


def read_head(path: PathLike) -> tuple[int, int] | None:
    """Number of bytes and sum that a file states, or None for an HDF5 file that states none.

    Raises:
        InputError: the file cannot be read, is shorter or longer than it should be, or its beginning is damaged.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(HEAD_BYTES)
            n_bytes = stream.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if content.startswith(_HDF5):
        return None
    match = re.match(rb"sqd_mpi checksum 1\nbytes (\d{1,18})\nsum ([0-9a-f]{16})\n", content)
    if match is None or head(int(match[1]), int(match[2], 16)) != content:
        raise InputError(f"{path} is damaged: its first bytes are no head of a file of sqd_mpi")
    if int(match[1]) != n_bytes:
        raise InputError(f"{path} is damaged: it has {n_bytes} bytes, not the {match[1].decode()} that were written")
    return n_bytes, int(match[2], 16)


def verify(ranks: Ranks, path: PathLike, needed: bool = True) -> bool:
    """Verify the checksum of a file; every rank reads a part of it.

    Collective over the ranks.

    Args:
        ranks: those that read it.
        path: the file; all ranks see the same.
        needed: whether a file without a checksum is refused too.

    Returns:
        whether the file has a checksum.

    Raises:
        InputError: the same on all ranks: the file cannot be read or is damaged, in one sentence.
    """
    # What the head says, read once.
    stated = ranks.from_rank_0(lambda: read_head(path))
    if stated is None:
        if needed:
            raise InputError(f"{path} is damaged: it has no checksum")
        return False

    # Every rank adds up an equal part of the words; an error of one must not leave the others waiting.
    n_words = -(-(stated[0] - HEAD_BYTES) // 8)
    start, stop = (HEAD_BYTES + 8 * (n_words * k // ranks.size) for k in (ranks.rank, ranks.rank + 1))
    mine, unread = 0, 0
    try:
        mine = file_sum(path, [(start, min(stop, stated[0]))])
    except OSError:
        unread = 1
    total = ranks.sum(np.array([mine, unread], np.uint64))

    # All see the same sums, so all judge alike.
    if total[1]:
        raise InputError(f"{path} cannot be read by {int(total[1])} of {ranks.size} ranks")
    if int(total[0]) != stated[1]:
        raise InputError(f"{path} is damaged: its checksum is wrong")
    return True
