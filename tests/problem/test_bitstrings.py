"""Bit-strings against plain Python integers, for one word and for several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings

ORBITALS = (1, 7, 8, 24, 63, 64, 65, 128, 130)


@st.composite
def integer_sets(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Number of orbitals and integers below 2**norb, duplicates among them."""
    norb = draw(st.sampled_from(ORBITALS))
    return norb, draw(st.lists(st.integers(0, 2**norb - 1), min_size=1, max_size=20))


@pytest.mark.parametrize(("norb", "words"), [(0, 1), (1, 1), (64, 1), (65, 2), (128, 2), (129, 3), (130, 3)])
def test_n_words(norb: int, words: int) -> None:
    assert bitstrings.n_words(norb) == words


def test_layout_is_word_w_bit_k() -> None:
    matrix = np.zeros((3, 130), dtype=bool)
    matrix[0, 0] = matrix[1, 64 + 5] = matrix[2, 129] = True
    strings = bitstrings.pack(matrix)
    assert strings.dtype == np.uint64 and strings.flags.c_contiguous
    assert strings.tolist() == [[1, 0, 0], [0, 32, 0], [0, 0, 2]]


@settings(deadline=None)
@given(integer_sets())
def test_every_form_gives_the_same_strings(case: tuple[int, list[int]]) -> None:
    norb, integers = case
    strings = bitstrings.from_integers(integers, norb)
    assert strings.shape == (len(integers), bitstrings.n_words(norb))
    assert strings.dtype == np.uint64 and strings.flags.c_contiguous and strings.flags.writeable
    assert bitstrings.to_integers(strings) == integers
    texts = bitstrings.to_text(strings, norb)
    assert texts == [format(integer, f"0{norb}b") for integer in integers]
    np.testing.assert_array_equal(bitstrings.from_text(texts, norb), strings)
    np.testing.assert_array_equal(bitstrings.from_text(texts), strings)
    matrix = bitstrings.unpack(strings, norb)
    assert matrix.tolist() == [[bool(integer >> k & 1) for k in range(norb)] for integer in integers]
    np.testing.assert_array_equal(bitstrings.pack(matrix), strings)
    assert bitstrings.counts(strings).tolist() == [integer.bit_count() for integer in integers]


@settings(deadline=None)
@given(integer_sets())
def test_canonical_is_sorted_as_integers_without_duplicates(case: tuple[int, list[int]]) -> None:
    norb, integers = case
    strings, n_duplicates = bitstrings.canonical(bitstrings.from_integers(integers, norb))
    assert bitstrings.to_integers(strings) == sorted(set(integers))
    assert n_duplicates == len(integers) - len(set(integers))
    assert strings.flags.c_contiguous


@settings(deadline=None)
@given(integer_sets(), st.data())
def test_find_gives_positions_in_the_set(case: tuple[int, list[int]], data: st.DataObject) -> None:
    norb, integers = case
    ordered = sorted(set(integers))
    queries = integers + data.draw(st.lists(st.integers(0, 2**norb - 1), max_size=20))
    positions = bitstrings.find(bitstrings.from_integers(ordered, norb), bitstrings.from_integers(queries, norb))
    assert positions.dtype == np.int64
    assert positions.tolist() == [ordered.index(query) if query in ordered else -1 for query in queries]


def test_find_keeps_strings_apart_that_differ_in_zero_words_only() -> None:
    # bytes of zeros at either end of a key must count
    integers = [0, 1, 1 << 63, 1 << 64, 1 << 127, (1 << 127) + 1]
    strings = bitstrings.from_integers(integers, 128)
    assert bitstrings.find(strings, strings[::-1]).tolist() == [5, 4, 3, 2, 1, 0]
    assert bitstrings.find(strings[1:], strings[:1]).tolist() == [-1]


def test_find_in_nothing_and_of_nothing() -> None:
    strings = bitstrings.from_integers([1, 2], 3)
    assert bitstrings.find(strings[:0], strings).tolist() == [-1, -1]
    assert bitstrings.find(strings, strings[:0]).tolist() == []


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint8, object])
def test_integers_of_an_array(dtype: type) -> None:
    assert bitstrings.from_integers(np.array([3, 5], dtype=dtype), 65).tolist() == [[3, 0], [5, 0]]


@pytest.mark.parametrize("norb", [5, 70])
def test_no_electrons_is_the_all_zero_string(norb: int) -> None:
    strings = bitstrings.from_text(["0" * norb], norb)
    assert bitstrings.counts(strings).tolist() == [0]
    assert not strings.any()
    bitstrings.check(strings, norb, 0, "beta")


@pytest.mark.parametrize(
    ("integers", "norb", "message"),
    [
        ([1, -1], 4, "string 2: -1 is not the bit-string of 4 orbitals"),
        ([16], 4, "string 1: 16 is not the bit-string of 4 orbitals"),
        ([2**65], 65, "not the bit-string of 65 orbitals"),
        ([1, "1"], 4, "string 2: '1' is not an integer"),
        ([1.0], 4, "string 1: 1.0 is not an integer"),
        (np.array([1.0]), 4, "must be integers; this array is of type float64"),
    ],
)
def test_wrong_integers_are_refused(integers: list, norb: int, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("*", r"\*")):
        bitstrings.from_integers(integers, norb)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0011", "011"], "string 2: 4 characters were expected, one per orbital; there are 3"),
        (["0011", "0012"], "string 2: '2' is not 0 or 1"),
        (["00 1"], "string 1: ' ' is not 0 or 1"),
        (["00é1"], r"string 1: 'é' .latin small letter e with acute, U\+00E9. is not 0 or 1"),
        (["0011", "00\u200b11"], r"string 2: zero width space .U\+200B. is not 0 or 1"),
        (["00\f11"], r"string 1: form feed .U\+000C. is not 0 or 1"),
        (["00\x0011"], r"string 1: NUL .U\+0000. is not 0 or 1"),
        (["0x3"], "string 1: 'x' is not 0 or 1"),
        (["00,11"], "string 1: ',' is not 0 or 1"),
    ],
)
def test_wrong_text_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bitstrings.from_text(lines, 4)


@pytest.mark.parametrize("made", [list, tuple, lambda values: np.array(values, object)])
def test_sequences_of_integers_keep_every_bit(made) -> None:
    """numpy makes floats of a list with 2^63 and -1, and of some without."""
    values = [2**64 - 1, 2**63 + 1, 2**53 + 1, 1]
    assert bitstrings.to_integers(bitstrings.from_sequence(made(values), 64)) == values
    assert len(bitstrings.from_sequence(made([]), 64)) == 0
    assert bitstrings.to_integers(bitstrings.from_sequence(np.array([3, 5], np.uint8), 4)) == [3, 5]


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        (["0011", "0101"], "string 1: '0011' is not an integer"),
        (np.array(["0011"]), "must be integers; this array is of type <U4"),
        ([3, 5.5], "string 2: 5.5 is not an integer"),
        (np.array([3.0]), "must be integers; this array is of type float64"),
        (np.array([True]), "must be integers; this array is of type bool"),
        ([[3], [5]], r"strings of one spin are \(n,\) integers; got an array \(2, 1\)"),
        (3, r"strings of one spin are \(n,\) integers; got an array \(\)"),
    ],
)
def test_sequences_of_something_else_are_refused(strings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bitstrings.from_sequence(strings, 4)


def test_pack_refuses_a_vector() -> None:
    with pytest.raises(InputError, match="two dimensions"):
        bitstrings.pack(np.zeros(4, dtype=bool))


def test_text_file_with_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "alpha.txt"
    path.write_bytes(b"\n0011\r\n\r\n 0101 \n1001")
    assert bitstrings.to_integers(bitstrings.read_text_file(path, 4)) == [3, 5, 9]


def test_comments_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "alpha.txt").write_text("# of 4 orbitals\n0011\n  # 1111\n0101\n")
    assert bitstrings.to_integers(bitstrings.read_text_file(tmp_path / "alpha.txt", 4)) == [3, 5]


def test_the_first_string_that_is_none_is_named(tmp_path: Path) -> None:
    """Not the first of another length than it has: without norb it says how long they are."""
    (tmp_path / "alpha.txt").write_text("0\u00a0011\n0101\n")
    with pytest.raises(InputError, match=r"alpha.txt line 1: no-break space .U\+00A0. is not 0 or 1"):
        bitstrings.read_text_file(tmp_path / "alpha.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0011 # two\n", r"alpha\.txt line 1: ' ' is not 0 or 1"),
        ("# nothing\n", r"alpha\.txt holds no bit-strings"),
        ("0011\n\n0021\n", r"alpha\.txt line 3: '2' is not 0 or 1"),
        ("0011\n00111\n", r"alpha\.txt line 2: 4 characters were expected, one per orbital; there are 5"),
        ("\n \n", r"alpha\.txt holds no bit-strings"),
        ("", r"alpha\.txt holds no bit-strings"),
    ],
)
def test_wrong_text_file_names_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "alpha.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        bitstrings.read_text_file(tmp_path / "alpha.txt", 4)


def test_missing_and_binary_text_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the bit-strings of .*: No such file"):
        bitstrings.read_text_file(tmp_path / "none.txt", 4)
    with pytest.raises(InputError, match="Is a directory"):
        bitstrings.read_text_file(tmp_path, 4)
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="binary line 1"):
        bitstrings.read_text_file(tmp_path / "binary", 4)


@pytest.mark.parametrize(
    ("integers", "made_for", "message"),
    [
        ([3, 7], 4, "alpha string 2 has 3 electrons; the Hamiltonian has 2 alpha electrons"),
        ([3, 17], 5, r"alpha string 2 occupies orbital 4 \(counted from 0\); the Hamiltonian has 4 orbitals"),
        ([3], 65, r"alpha strings over 4 orbitals are an array \(n, 1\) of uint64; got \(1, 2\)"),
        ([], 4, "there are no alpha strings"),
    ],
)
def test_check_says_what_does_not_fit(integers: list[int], made_for: int, message: str) -> None:
    strings = bitstrings.from_integers(integers, made_for)
    with pytest.raises(InputError, match=message):
        bitstrings.check(strings, 4, 2, "alpha")


@pytest.mark.parametrize("norb", [64, 65, 128, 130])
def test_check_at_word_boundaries(norb: int) -> None:
    bitstrings.check(bitstrings.from_integers([1 << (norb - 1), 1], norb), norb, 1, "beta")
    if norb % 64:
        beyond = bitstrings.from_integers([1 << norb], norb + 1)
        with pytest.raises(InputError, match=f"beta string 1 occupies orbital {norb} "):
            bitstrings.check(beyond, norb, 1, "beta")


def test_check_refuses_another_type() -> None:
    with pytest.raises(InputError, match="of int64"):
        bitstrings.check(np.array([[3]]), 4, 2, "alpha")


def test_published_strings(data_dir: Path) -> None:
    for name, norb, n_electrons, n_strings in (("h2o/h2o-1em3", 24, 5, 275), ("n2/1em5", 18, 7, 4041)):
        strings = bitstrings.read_text_file(data_dir / f"{name}-alpha.txt", norb)
        bitstrings.check(strings, norb, n_electrons, "alpha")
        assert len(bitstrings.canonical(strings)[0]) == n_strings
