"""Files of other programs as text: what editors and shells put before it, gzip, and characters that cannot be seen."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import unicodedata
import zlib
from pathlib import Path

from sqd_mpi.errors import InputError
from sqd_mpi.resources import available_memory

# Longest first: UTF-32 begins as UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GZIP = b"\x1f\x8b"
# First bytes of what has to be unpacked by another program.
_PACKINGS = {
    b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x9d": "compress",
    b"7z\xbc\xaf\x27\x1c": "7z", _GZIP: "gzip, twice",
}  # fmt: skip
_TAR = slice(257, 262), b"ustar"
_CHUNK = 1 << 24
# Text, its bytes and a copy to work on are in memory at the same time.
_COPIES = 3
_CONTROL_NAMES = {"\0": "NUL", "\t": "tab", "\n": "line feed", "\v": "vertical tab", "\f": "form feed", "\x1a": "SUB"}


def read_text(path: str | os.PathLike[str], complaint: str) -> str:
    r"""The text of a file; lines end with \n.

    UTF-8 without or with a byte-order mark, UTF-16 and UTF-32 with one, each plain or packed with gzip, which the first
    bytes tell and not the name. Bytes that are no UTF-8 become U+FFFD.

    Args:
        path: the file.
        complaint: how the sentence of an error begins, such as "cannot read the bit-strings of alpha.txt".

    Raises:
        InputError: the file cannot be read, is packed in another way, damaged or larger than memory, or holds NUL.
    """
    return text_of(read_bytes(path, complaint), complaint)


def text_of(content: bytes, complaint: str) -> str:
    """The text of the content of a file; arguments as of `read_text`.

    Raises:
        InputError: it holds NUL.
    """
    mark, encoding = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8"))
    text = content[len(mark) :].decode(encoding, errors="replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    place = text.find("\0")
    if place >= 0:
        line = 1 + text.count("\n", 0, place)
        raise InputError(
            f"{complaint}: line {line} has a NUL character; it is no text, or UTF-16 without a byte-order mark"
        )
    return text


def read_bytes(path: str | os.PathLike[str], complaint: str) -> bytes:
    """The content of a file, unpacked if it is packed with gzip; arguments as of `read_text`.

    Raises:
        InputError: the file cannot be read, is packed in another way, damaged or larger than memory.
    """
    try:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise InputError(f"{complaint}: it is no ordinary file")
        _check_size(os.stat(path).st_size, complaint)
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{complaint}: {error.strerror}") from error
    if content.startswith(_GZIP):
        content = _unpacked(content, complaint)
    packing = next((name for start, name in _PACKINGS.items() if content.startswith(start)), None)
    if content[_TAR[0]] == _TAR[1]:
        packing = "tar"
    if packing is not None:
        raise InputError(f"{complaint}: it is packed ({packing}); it must be unpacked first, or packed with gzip alone")
    return content


def _unpacked(content: bytes, complaint: str) -> bytes:
    """What gzip has packed."""
    parts: list[bytes] = []
    size = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            while part := stream.read(_CHUNK):
                parts.append(part)
                size += len(part)
                _check_size(size, complaint)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{complaint}: it is packed (gzip), but damaged or cut off") from error
    return b"".join(parts)


def _check_size(n_bytes: int, complaint: str) -> None:
    """Raise InputError for more than memory has room for."""
    if n_bytes > _CHUNK and _COPIES * n_bytes > (available := available_memory()):
        raise InputError(
            f"{complaint}: its {n_bytes / 2**30:.3g} GiB of text need {_COPIES * n_bytes / 2**30:.3g} GiB of memory; "
            f"{available / 2**30:.3g} GiB are available"
        )


def shortened(text: str, most: int = 60) -> str:
    """A text that may be of any length, for a sentence."""
    return text if len(text) <= most else text[: most - 3] + "..."


def described(character: str) -> str:
    """A character for a sentence: as it is, with its name if it cannot be seen or looks like another one."""
    if character.isascii() and character.isprintable():
        return repr(character)
    name = _CONTROL_NAMES.get(character) or unicodedata.name(character, "control character").lower()
    code = f"U+{ord(character):04X}"
    return f"{character!r} ({name}, {code})" if character.isprintable() else f"{name} ({code})"
