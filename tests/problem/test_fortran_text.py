"""Namelists and numbers as Fortran reads them; compared with gfortran where it is installed."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from sqd_mpi.problem import fortran_text
from sqd_mpi.problem.fcidump_table import read_table

# What a FCIDUMP reader in Fortran does: READ (10, fci), then READ (10, *) x, i, j, k, l until the end.
PROGRAM = """
program reader
  implicit none
  integer :: norb = -1, nelec = -1, ms2 = 0, isym = 1, orbsym(64) = 0, iuhf = 0, i, j, k, l, ios
  logical :: uhf = .false.
  character(len=80) :: title = ' '
  real(8) :: x
  character(len=512) :: path
  namelist /fci/ norb, nelec, ms2, isym, orbsym, iuhf, uhf, title
  call get_command_argument(1, path)
  open (10, file=path, status='old')
  read (10, nml=fci)
  print '(5i6,l2)', norb, nelec, ms2, isym, iuhf, uhf
  do
    read (10, *, iostat=ios) x, i, j, k, l
    if (ios < 0) exit
    if (ios > 0) stop 1
    print '(es25.16e3,4i6)', x, i, j, k, l
  end do
end program
"""


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("+1.0", 1.0), ("-7", -7.0), ("1.5D-3", 1.5e-3), ("1.5d+3", 1.5e3),
        ("1d0", 1.0), ("1q2", 100.0), ("0.12-100", 0.12e-100), ("0.12+003", 120.0), ("1E400", float("inf")),
        ("1e-400", 0.0), ("", None), (".", None), ("1e", None), ("e5", None), ("1_0", None), ("0x10", None),
        ("nan", None), ("inf", None), ("1,5", None), ("\u0661", None), ("1.5.2", None), ("--1", None), ("1 2", None),
    ],
)  # fmt: skip
def test_real(word: str, number: float | None) -> None:
    assert fortran_text.real(word) == number


@pytest.mark.parametrize(
    ("word", "truth"),
    [
        (".TRUE.", True), ("T", True), (".t.", True), ("true", True), (".Tru", True), ("Trash", True),
        (".FALSE.", False), ("F", False), (".f", False), ("False", False), ("1", None), ("yes", None), ("..T", None),
    ],
)  # fmt: skip
def test_logical(word: str, truth: bool | None) -> None:
    assert fortran_text.logical(word) is truth


@pytest.mark.parametrize(("word", "number"), [("2", 2), ("+2", 2), ("-02", -2), ("2.", None), ("2_4", None)])
def test_integer(word: str, number: int | None) -> None:
    assert fortran_text.integer(word) == number


@pytest.mark.parametrize(
    ("text", "scalars", "constants"),
    [
        ("A=1 /", ["1"], ["1"]),
        ("A = 1*2, /", ["2"], ["2"]),
        ("A=, B=1 /", [], []),
        ("A=3* B=1 /", ["3*"], []),
        ("A=1* B=1 /", [], []),
        ("A=2*5 /", ["2*5"], ["5"]),
        ("A=1,,2 /", ["1,,2"], ["1", "2"]),
        ("A=4,, B=1 /", ["4"], ["4"]),
        ("A=1 A=1 /", ["1"], ["1", "1"]),
        ("A=1,A=2 /", ["1", "2"], ["1", "2"]),
        ("A(1)=7,8 A(3)=9 /", [], ["7", "8", "9"]),
        ("a\t=\n5\n&end", ["5"], ["5"]),
        ("A='x, A=3 / ! &END' /", ["'x, A=3 / ! &END'"], ["'x, A=3 / ! &END'"]),
        ("A='it''s' B=\"it's\" /", ["'it''s'"], ["'it''s'"]),
        ("A=1 ! A=2 /\n B=2 ! it's\n $END", ["1"], ["1"]),
        ("T=O'Neil, A=1 /'", ["1"], ["1"]),
        ("AA=2 BA=3 A1=4 A=1/A=5", ["1"], ["1"]),
    ],
)
def test_values_of_a_namelist(text: str, scalars: list[str], constants: list[str]) -> None:
    found = fortran_text.find_namelist(f"&N {text}", "N")
    assert found.scalars("A") == scalars
    assert found.constants("A") == constants


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("&N A=1 / rest", " rest"),
        ("title & more\n! &N A=2 /\n $n\nA=1\n$end rest", " rest"),
        ("&NN A=2 /\n&N A=1&END", ""),
        ("&N A=1\n", None),
        ("&N A='1 / \n", " \n"),
        ("N A=1 /", None),
        ("! &N A=1 /", None),
        ("", None),
    ],
)
def test_where_a_namelist_ends(text: str, rest: str | None) -> None:
    found = fortran_text.find_namelist(text, "N")
    assert (found if found is None else text[found.end :]) == rest


def test_a_namelist_without_end_costs_no_more_than_the_file() -> None:
    assert fortran_text.find_namelist("&N A=1\n" + 200_000 * "0.5 1 1 1 1\n", "N") is None


# --- against gfortran


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    """The program above."""
    if shutil.which("gfortran") is None:
        pytest.skip("gfortran is not installed")
    folder = tmp_path_factory.mktemp("fortran")
    (folder / "reader.f90").write_text(PROGRAM)
    subprocess.run(["gfortran", "-o", "reader", "reader.f90"], cwd=folder, check=True, capture_output=True)
    return folder / "reader"


def random_header(rng: random.Random) -> str:
    """A header that a Fortran program takes; a comment behind a comma is left out, which gfortran 12 misreads."""
    choice = rng.choice
    keys = [
        choice(["NORB=2", "norb = +2", "Norb= 1*2", "NORB=02"]),
        choice(["NELEC=2", "nelec=1*2", "NELEC =2 "]),
        choice(["MS2=0", "MS2=", "MS2=-2", "ms2 = 2", "MS2=1*"]),
        choice(["ISYM=1", "Isym=4,"]),
        choice(["ORBSYM=1,1", "ORBSYM=2*1", "ORBSYM(1)=1,1", "ORBSYM=,1", "ORBSYM=1,,4", "ORBSYM(2)=3", "ORBSYM=2*"]),
        choice(["TITLE='a/b'", 'TITLE="x, NORB=7 & c"', "TITLE='it''s / ! &END'", "TITLE=''"]),
        choice(["UHF=.FALSE.", "UHF=F", "uhf=.true.", "UHF=t", "UHF = .F.", "UHF=False"]),
        choice(["IUHF=0", "IUHF=1"]),
    ]
    keys = [key for key in keys if rng.random() < 0.7 or key.upper().startswith(("NORB", "NELEC"))]
    rng.shuffle(keys)
    before = choice(["", "! from & script\n", "title & more\n", "! &FCI NORB=9 /\n", " \n\n", "&OTHER a=1 /\n"])
    begin = choice(["&FCI ", " $fci\n", "   &fci\t", "&Fci\n "])
    middle = "".join(key + choice([",", " ", ", ", " , ", ",\n ", "\n", " ! note, NELEC=9 / here\n "]) for key in keys)
    return before + begin + middle + choice(["/", "&END", "$END", " &end", "/ words", "&END ! x", "/ 'x"]) + "\n"


def random_row(rng: random.Random) -> str:
    """A line, or two, with a value and four indices."""
    choice = rng.choice
    value = choice([0.5, 1.25e-3, 7.0, -0.75, 1e-101, 123.456])
    word = choice([
        repr(value), repr(value).replace("e", "D"), f"{value:+.10E}", f"{value:.8e}".replace("e", "d"),
        f"{value:.3f}".replace("0.", ".") if abs(value) < 1 else f"{value:.0f}.", f"{value:.10E}".replace("E", ""),
    ])  # fmt: skip
    indices = choice(["1 1 1 1", "2 1 2 1", "1 1 0 0", "0 0 0 0", "+1 01 1 1", "4*1", "2*2 2*1", "1 1 2*0", "4*0"])
    if "*" not in indices:
        indices = indices.replace(" ", choice([" ", "  ", ",", ", ", "\t", " , "]))
    row = word + choice([" ", ", ", "\t", "\n "] if "," not in indices else [" ", "\t"]) + indices
    return choice(["", " ", "\t"]) + row + choice(["", "", "", " ! note", " words", " /", ","]) + "\n"


@pytest.mark.parametrize("seed", range(120))
def test_as_gfortran_reads_it(reader: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    text = random_header(rng) + "".join(rng.choice(["", "", "\n"]) + random_row(rng) for _ in range(5))
    (tmp_path / "file").write_text(text)
    done = subprocess.run([reader, tmp_path / "file"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    found = fortran_text.find_namelist(text, "FCI")
    numbers = [
        fortran_text.integer((found.scalars(name) or [default])[0])
        for name, default in (("NORB", ""), ("NELEC", ""), ("MS2", "0"), ("ISYM", "1"), ("IUHF", "0"))
    ]
    assert numbers == [int(word) for word in head[:5]]
    assert fortran_text.logical((found.scalars("UHF") or ["F"])[0]) == (head[5] == "T")
    table = read_table("file", text[found.end :].partition("\n")[2], 1)
    assert table.values.tolist() == [float(row[0]) for row in rows]
    assert table.indices.tolist() == [[int(word) for word in row[1:]] for row in rows]
