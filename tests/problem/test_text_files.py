"""Text of other programs: marks, encodings, gzip, other packings, and characters that cannot be seen."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings, sampling, text_files
from sqd_mpi.problem.hamiltonian import Hamiltonian
from tests.support.fcidump_files import BODY, HEADER, expected_small

TEXTS = {
    "fcidump": HEADER + BODY,
    "strings": "0011\n0101\n",
    "counts": '{"0110": 3, "1001": 1}',
    "occupancies": "1 0.5\n0.25 0\n",
}


def as_read(kind: str, path: Path) -> object:
    """What a reader makes of a file, comparable."""
    if kind == "fcidump":
        return Hamiltonian.from_fcidump(path).fingerprint()
    if kind == "strings":
        return bitstrings.to_integers(bitstrings.read_text_file(path, 4))
    if kind == "counts":
        samples = sampling.read_samples(path, 2)
        return bitstrings.to_text(samples.beta, 2), bitstrings.to_text(samples.alpha, 2), list(samples.probabilities)
    return sampling.read_occupancies(path, 2).tolist()


EXPECTED = {
    "fcidump": expected_small().fingerprint(),
    "strings": [3, 5],
    "counts": (["01", "10"], ["10", "01"], [0.75, 0.25]),
    "occupancies": [[1.0, 0.5], [0.25, 0.0]],
}


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zip_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("file", content)
    return stream.getvalue()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),  # as PowerShell redirects
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
        lambda text: codecs.BOM_UTF32_BE + text.encode("utf-32-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode()),
        lambda text: gzip.compress(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()),
    ],
    ids="utf8 mark utf16le utf16be utf32le utf32be crlf cr gzip gzip-twice-in-a-row gzip-mark-crlf".split(),
)
def test_every_text_is_read_in_every_form(tmp_path: Path, kind: str, encode) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(encode(TEXTS[kind]))
    assert as_read(kind, path) == EXPECTED[kind]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(
    ("pack", "says"),
    [
        (lambda content: gzip.compress(content)[:-9], r"it is packed \(gzip\), but damaged or cut off"),
        (lambda content: gzip.compress(content)[:12], r"it is packed \(gzip\), but damaged or cut off"),
        (lambda content: gzip.compress(content)[:20] + b"x" * 30, r"it is packed \(gzip\), but damaged or cut off"),
        (lambda content: gzip.compress(gzip.compress(content)), r"it is packed \(gzip, twice\)"),
        (bz2.compress, r"it is packed \(bzip2\); it must be unpacked first"),
        (lzma.compress, r"it is packed \(xz\)"),
        (zip_of, r"it is packed \(zip\)"),
        (tar_of, r"it is packed \(tar\)"),
        (lambda content: gzip.compress(tar_of(content)), r"it is packed \(tar\)"),
        (lambda content: content.decode().encode("utf-16-le"), "line 1 has a NUL character; .* UTF-16 without a byte"),
        (lambda content: content + b"\n\0", "line .* has a NUL character"),
    ],
    ids="cut cut-early damaged twice bzip2 xz zip tar tar.gz utf16-without-mark nul".split(),
)
def test_what_is_no_text_is_named(tmp_path: Path, kind: str, pack, says: str) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(pack(TEXTS[kind].encode()))
    with pytest.raises(InputError, match=f"cannot read .*any.name: {says}") as caught:
        as_read(kind, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", TEXTS)
def test_missing_files_folders_and_pipes(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("none", "No such file"), (".", "Is a directory"), ("pipe", "it is no ordinary file")):
        with pytest.raises(InputError, match=f"cannot read .*: {says}"):
            as_read(kind, tmp_path / name)


def test_more_than_memory_holds_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Unpacked or not: a file of zeros is packed a thousandfold."""
    content = b"0" * (1 << 25)
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content, 1))
    monkeypatch.setattr(text_files, "available_memory", lambda: 1 << 26)
    for name in ("plain", "packed"):
        with pytest.raises(InputError, match="GiB of text need .* GiB of memory; 0.0625 GiB are available"):
            text_files.read_text(tmp_path / name, "the test")


@pytest.mark.parametrize(
    ("character", "words"),
    [
        ("2", "'2'"),
        (" ", "' '"),
        ("\0", "NUL (U+0000)"),
        ("\f", "form feed (U+000C)"),
        ("\x07", "control character (U+0007)"),
        ("\u00a0", "no-break space (U+00A0)"),
        ("\u200b", "zero width space (U+200B)"),
        ("\ufeff", "zero width no-break space (U+FEFF)"),
        ("\uff10", "'\uff10' (fullwidth digit zero, U+FF10)"),
        ("\u041e", "'\u041e' (cyrillic capital letter o, U+041E)"),
    ],
)
def test_characters_are_named(character: str, words: str) -> None:
    assert text_files.described(character) == words


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_may_be_packed(tmp_path: Path, packed: bool) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([[0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]], bool))
    path = tmp_path / "bits"  # the content tells, not the name
    path.write_bytes(gzip.compress(stream.getvalue()) if packed else stream.getvalue())
    assert as_read("counts", path) == EXPECTED["counts"]
