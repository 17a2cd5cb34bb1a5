"""The published inputs by name: an integral file and one set of strings that serves both spins.

A name is MOLECULE-THRESHOLD, `h2o-1em4` say, with an optional `/N` for every N-th string of the file (a sparse set).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOURCE = "the data directory of the sbd project on GitHub (r-ccs-cms/sbd, Apache-2.0), folders h2o and n2"


class MissingInputError(FileNotFoundError):
    """An input that is not on this machine, or a name that says no input."""


@dataclass(frozen=True)
class BenchmarkInput:
    """One eigenvalue problem, as files that every solver can read."""

    name: str
    """Name as given, `n2-1em5/5` say."""
    fcidump: Path
    """Integrals, with a header that ends in &END."""
    strings_file: Path
    """Alpha strings, one a line, rightmost character = orbital 0; the beta strings are the same set."""
    norb: int
    """Number of orbitals."""
    n_electrons: int
    """Number of electrons, both spins."""
    strings: np.ndarray
    """The strings as integers, ascending, shape (n_strings,), uint64."""

    @property
    def dimension(self) -> int:
        """Number of determinants."""
        return len(self.strings) ** 2

    @property
    def start(self) -> int:
        """The string of the Hartree-Fock determinant: the lowest orbitals filled."""
        return (1 << self.n_electrons // 2) - 1


def data_directory(given: str | None) -> Path | None:
    """Returns the directory that holds h2o/ and n2/: the one given, or that of SQD_MPI_DATA, or None."""
    text = given or os.environ.get("SQD_MPI_DATA")
    return Path(text).expanduser().resolve() if text else None


def load(name: str, data: Path | None, workdir: Path) -> BenchmarkInput:
    """Returns the input of this name, with the files that differ from the published ones written to `workdir`.

    Raises:
        MissingInputError: if the name says no input, or its files are not there.
    """
    match = re.fullmatch(r"([a-z]\w*)-([^/]+?)(?:/([1-9]\d*))?", name)
    if match is None:
        raise MissingInputError(f"an input is named MOLECULE-THRESHOLD or MOLECULE-THRESHOLD/N; got {name!r}")
    if data is None:
        raise MissingInputError(f"{name} needs --data DIR or SQD_MPI_DATA; the files are in {SOURCE}")
    molecule, threshold, step = match[1], match[2], int(match[3] or 1)
    fcidump = data / molecule / "fcidump.txt"
    published = [data / molecule / f"{prefix}{threshold}-alpha.txt" for prefix in (f"{molecule}-", "")]
    found = [path for path in published if path.is_file()]
    if not found or not fcidump.is_file():
        missing = fcidump if found else published[0]
        raise MissingInputError(f"{name}: {missing} is missing; the files are in {SOURCE}")

    workdir.mkdir(parents=True, exist_ok=True)
    lines = found[0].read_text().split()[::step]
    strings_file = found[0]
    if step > 1:
        strings_file = workdir / "alpha.txt"
        strings_file.write_text("\n".join(lines) + "\n")
    norb, n_electrons = _header_numbers(fcidump)
    strings = np.unique(np.array([int(line, 2) for line in lines], dtype=np.uint64))
    return BenchmarkInput(name, _with_end(fcidump, workdir), strings_file, norb, n_electrons, strings)


def connections(strings: np.ndarray) -> tuple[int, int]:
    """Returns the numbers of ordered pairs of strings that differ by one and by two electrons.

    Compares all pairs; seconds for 10,000 strings.
    """
    singles = doubles = 0
    for first in range(0, len(strings), 512):
        moved = np.bitwise_count(strings[first : first + 512, None] ^ strings[None, :])
        singles += int(np.count_nonzero(moved == 2))
        doubles += int(np.count_nonzero(moved == 4))
    return singles, doubles


def _header_numbers(fcidump: Path) -> tuple[int, int]:
    """Returns NORB and NELEC of the header."""
    with fcidump.open() as file:
        header = file.read(4096).upper()
    numbers = [re.search(rf"{key}\s*=\s*(\d+)", header) for key in ("NORB", "NELEC")]
    if None in numbers:
        raise MissingInputError(f"{fcidump} has no NORB or NELEC in its header")
    return int(numbers[0][1]), int(numbers[1][1])  # type: ignore[index]


def _with_end(fcidump: Path, workdir: Path) -> Path:
    """Returns the file itself, or a copy whose header ends in &END if it ends in /.

    sbd-eigensolver 1.7.1 reads on past a `/` and gives an energy of 1e117 without a word.
    """
    text = fcidump.read_text()
    header = re.match(r"\s*&FCI.*?(&END|^\s*/\s*$|/\s*$)", text, re.IGNORECASE | re.DOTALL | re.MULTILINE)
    if header is None or header[1].upper() == "&END":
        return fcidump
    copy = workdir / "fcidump.txt"
    copy.write_text(text[: header.start(1)] + "\n &END" + text[header.end(1) :])
    return copy
