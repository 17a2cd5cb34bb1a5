"""Sampling steps: against their definitions, against qiskit-addon-sqd, and their distributions."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings, sampling


def matrix(n: int, norb: int, seed: int = 0) -> np.ndarray:
    """Random bits (n, 2 norb)."""
    return np.random.default_rng(seed).integers(2, size=(n, 2 * norb)).astype(bool)


def text_of(row) -> str:
    """A row of bits as text."""
    return "".join("01"[int(bit)] for bit in row)


def rows_of(samples: sampling.Samples) -> list[str]:
    """Samples as texts of beta and alpha."""
    texts = (bitstrings.to_text(half, samples.norb) for half in (samples.beta, samples.alpha))
    return [beta + alpha for beta, alpha in zip(*texts, strict=True)]


@pytest.mark.parametrize("norb", [1, 5, 36, 65, 130])
def test_samples_of_a_matrix_are_its_different_rows(norb):
    bits = matrix(40, norb)
    bits = np.concatenate([bits, bits[:7], bits[:3]])
    samples = sampling.from_matrix(bits)
    unique, counts = np.unique(bits, axis=0, return_counts=True)
    assert rows_of(samples) == [text_of(row) for row in unique]
    assert samples.probabilities == pytest.approx(counts / len(bits))


def test_all_kinds_of_files_give_the_same_samples(tmp_path):
    norb, bits = 5, matrix(30, 5)
    texts = [text_of(row) for row in bits]
    counts = {text: texts.count(text) for text in texts}
    np.save(tmp_path / "bits.npy", bits)
    np.save(tmp_path / "octets.npy", np.packbits(np.pad(bits, ((0, 0), (6, 0))), axis=1))
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    (tmp_path / "blanks.json").write_text(json.dumps({f"{key[:5]} {key[5:]}": n for key, n in counts.items()}))
    (tmp_path / "hex.json").write_text(json.dumps({hex(int(key, 2)): n for key, n in counts.items()}))
    wanted = sampling.from_matrix(bits)
    for path in tmp_path.iterdir():
        found = sampling.read_samples(path, norb)
        assert rows_of(found) == rows_of(wanted), path
        assert found.probabilities == pytest.approx(wanted.probabilities), path


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "[1, 2]", "there are no counts"),
        ("a.json", "{", "holds no samples"),
        ("a.json", "{}", "there are no samples"),
        ("a.json", '{"0101": -1, "0110": 2}', "a finite count of at least 0"),
        ("a.json", '{"0101": "x"}', "counts are numbers"),
        ("a.json", '{"0101": true}', "counts are numbers"),
        ("a.json", '{"0101": 1, "0110": 2, "0101": 3}', "several of '0101'"),
        ("a.json", '{"0101": 1' + 400 * "0" + "}", "a finite count"),
        ("a.json", 100_000 * "[", "holds no samples"),
        ("a.json", '{"01011": 1}', "the key '01011': 4 characters were expected, one per orbital; there are 5"),
        ("a.json", '{"010": 1}', "the key '010': 4 characters were expected"),
        ("a.json", '{"0102": 1}', "the key '0102' is neither 4 bits nor a number that begins with 0x"),
        ("a.json", '{"6": 0.75, "9": 0.25}', "the key '6' is neither 4 bits nor a number that begins with 0x"),
        ("a.json", '{"010f": 1}', "the key '010f': 'f' is not 0 or 1"),
        ("a.json", '{"0x1f": 1}', "the key '0x1f' is not a number of 4 bits"),
        ("a.json", '{"0x_6": 1}', "the key '0x_6': 'x' is not 0 or 1"),
        ("a.json", '{"0x": 1}', "the key '0x': 'x' is not 0 or 1"),
        ("a.json", '{"0x1 0x2": 1}', "the key '0x1 0x2': 'x' is not 0 or 1"),
        ("a.json", '{"0x0 6": 1}', "the key '0x0 6' must not have blanks in its number"),
        ("a.json", '{"0b": 1}', "the key '0b': 'b' is not 0 or 1"),
        ("a.json", '{"-0x6": 1}', "the key '-0x6': '-' is not 0 or 1"),
        ("a.json", '{"+101": 1}', r"the key '\+101': '\+' is not 0 or 1"),
        ("a.json", '{"": 1}', "the key '': 4 characters were expected"),
        ("a.json", '{"01\\u200b10": 1}', r"zero width space .U\+200B. is not 0 or 1"),
        ("a.json", '{"0110": -0.02, "1001": 1.02}', "count of at least 0; got -0.02 .quasi-probabilities below 0"),
        ("a.json", '{"0110": NaN}', "a finite count"),
        ("a.json", '{"0110": 0}', "not all may be 0"),
        ("a.npy", "nonsense", "holds no samples"),
        ("absent.npy", None, "cannot read the samples"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        sampling.read_samples(tmp_path / name, 2)
    assert name in str(caught.value)


def test_an_array_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), bool))
    content = (tmp_path / "a.npy").read_bytes().replace(b"(3, 4), }      ", b"(10**13, 4), }")
    content = content.replace(b"(10**13, 4)", b"(9999999999999, 4)")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match="holds no samples"):
        sampling.read_samples(tmp_path / "a.npy", 2)


@pytest.mark.parametrize(
    ("counts", "norb", "beta", "alpha", "shares"),
    [
        ({6: 0.75, 9: 0.25}, 2, ["01", "10"], ["10", "01"], [0.75, 0.25]),  # a quasi-distribution of qiskit
        ({np.int64(6): 3, np.uint8(9): 1}, 2, ["01", "10"], ["10", "01"], [0.75, 0.25]),
        ({"0x0f": 3, "00000011": 1}, 4, ["0000", "0000"], ["0011", "1111"], [0.25, 0.75]),
        ({"00000011": 1, "0x0f": 3}, 4, ["0000", "0000"], ["0011", "1111"], [0.25, 0.75]),
        ({"0X0F": 3, "0b11": 1}, 4, ["0000", "0000"], ["0011", "1111"], [0.25, 0.75]),
        ({"0xAf": 1, "0000 0001": 1}, 4, ["0000", "1010"], ["0001", "1111"], [0.5, 0.5]),
        ({"0110": 1, 6: 1, "01 10": 1, "0x6": 1, "1001": 4}, 2, ["01", "10"], ["10", "01"], [0.5, 0.5]),
        ({"10": 1, "0x1": 1}, 1, ["0", "1"], ["1", "0"], [0.5, 0.5]),
        ({0: 1, "11": 0}, 1, ["0"], ["0"], [1.0]),
        ({"00": 1.5e308, "01": 1.5e308, "10": 1e308}, 1, ["0", "0", "1"], ["0", "1", "0"], [0.375, 0.375, 0.25]),
        ({"00": 1e-320, "01": 1e-320}, 1, ["0", "0"], ["0", "1"], [0.5, 0.5]),
        ({"00": 1e300, "01": 1e-320, "10": 3e300}, 1, ["0", "1"], ["0", "0"], [0.25, 0.75]),
        ({"00": 1, "10": np.float32(3)}, 1, ["0", "1"], ["0", "0"], [0.25, 0.75]),
        ({"00": 2**1000, "01": 3 * 2**1000}, 1, ["0", "0"], ["0", "1"], [0.25, 0.75]),
    ],
)
def test_every_key_is_read_by_its_own_kind(counts, norb, beta, alpha, shares):
    samples = sampling.from_counts(counts, norb)
    assert (bitstrings.to_text(samples.beta, norb), bitstrings.to_text(samples.alpha, norb)) == (beta, alpha)
    assert samples.probabilities == pytest.approx(shares, rel=1e-12)
    assert (samples.probabilities > 0).all()


def test_quasi_distributions_of_qiskit():
    result = pytest.importorskip("qiskit.result")
    quasi = result.QuasiDistribution({6: 0.75, 9: 0.25})
    assert rows_of(sampling.from_counts(quasi, 2)) == ["0110", "1001"]
    assert rows_of(sampling.from_counts(quasi.binary_probabilities(4), 2)) == ["0110", "1001"]
    assert rows_of(sampling.from_counts(quasi.hex_probabilities(), 2)) == ["0110", "1001"]
    negative = result.QuasiDistribution({6: 1.1, 9: -0.1})
    with pytest.raises(InputError, match="got -0.1 .*nearest_probability_distribution"):
        sampling.from_counts(negative, 2)
    assert rows_of(sampling.from_counts(negative.nearest_probability_distribution(), 2)) == ["0110"]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({True: 1}, "keys of counts are texts or integers; got True"),
        ({6.0: 1}, "keys of counts are texts or integers; got 6.0"),
        ({(0, 1): 1}, r"keys of counts are texts or integers; got \(0, 1\)"),
        ({b"0110": 1}, "keys of counts are texts or integers; got b'0110'"),
        ({None: 1}, "keys of counts are texts or integers; got None"),
        ({-1: 1}, "the key -1 is not a number of 4 bits"),
        ({16: 1}, "the key 16 is not a number of 4 bits"),
        ({"0110": True}, "counts are numbers"),
        ({"0110": np.bool_(True)}, "counts are numbers"),
        ({"0110": "3"}, "counts are numbers"),
        ({"0110": None}, "counts are numbers"),
        ({"0110": 1j}, "counts are numbers"),
        ({"0110": float("nan")}, "a finite count"),
        ({"0110": float("inf")}, "a finite count"),
        ({"0110": 10**400}, "a finite count"),
        ({"0110": 0}, "not all may be 0"),
        ({}, "there are no samples"),
        (["0110"], "counts are a dictionary of bit-strings and numbers; got list"),
    ],
)
def test_what_is_no_count_is_refused(counts, says):
    with pytest.raises(InputError, match=says):
        sampling.from_counts(counts, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1 0 1\n0 1 0\n", "two lines of 2 numbers from 0 to 1 are needed; there are 2 of 3"),
        ("1 0\n", "two lines of 2 numbers from 0 to 1 are needed; there are 1 of 2"),
        ("1 0\n0.5 1.5\n", "two lines of 2 numbers from 0 to 1 are needed; one is 1.5"),
        ("1 0\n0.5 nan\n", "two lines of 2 numbers from 0 to 1 are needed; one is nan"),
        ("1 0\n0.5\n", "cannot read the occupancies of .*the number of columns changed from 2 to 1 at row 2"),
        ("1 0\n0,5 1\n", "cannot read the occupancies of .*could not convert string '0,5' to float64 at row 1"),
        (" \n", "two lines of 2 numbers from 0 to 1 are needed; the file is empty"),
        ("# alpha, then beta\n", "two lines of 2 numbers from 0 to 1 are needed; the file is empty"),
    ],
)
def test_bad_occupancies_are_named_in_one_sentence(tmp_path, content, says):
    (tmp_path / "occupancies.txt").write_text(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=says) as caught:
            sampling.read_occupancies(tmp_path / "occupancies.txt", 2)
    assert "occupancies.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_recovery_refuses_occupancies_that_are_none():
    samples = sampling.from_matrix(matrix(10, 3))
    good = np.full((2, 3), 0.5)
    for wrong, says in (
        (np.where(np.eye(2, 3), np.nan, good), "contain a value that is not finite"),
        (np.where(np.eye(2, 3), np.inf, good), "contain a value that is not finite"),
        (good[:, :2], r"occupancies are \(2, 3\), of alpha and of beta orbitals; got shape \(2, 2\)"),
        (good[0], "got shape"),
        (2 * good + 1e-3, "are numbers from 0 to 1; one is 1.001"),  # spin-summed ones
        (good - 0.6, "are numbers from 0 to 1; one is -0.1"),
        (good + 1e-3j, "occupancies are real numbers"),
        (good.astype(str), "occupancies are real numbers"),
        (np.full((2, 3), "x", object), "occupancies are real numbers"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match=says):
                sampling.recover(samples, wrong, (1, 1), np.random.default_rng(0))


@pytest.mark.parametrize("rounded", [np.full((2, 3), 1 + 1e-9), np.full((2, 3), -1e-9), np.ones((2, 3), complex)])
def test_recovery_takes_occupancies_with_rounding_errors(rounded):
    found = sampling.recover(sampling.from_matrix(matrix(10, 3)), rounded, (1, 2), np.random.default_rng(0))
    assert (bitstrings.counts(found.alpha) == 1).all() and (bitstrings.counts(found.beta) == 2).all()


@pytest.mark.parametrize(
    ("nelec", "says"),
    [
        ((4, 1), "3 orbitals hold 0 to 3 alpha electrons; got 4"),
        ((1, -1), "3 orbitals hold 0 to 3 beta electrons; got -1"),
        ((1.5, 1), "nelec is a pair of integers"),
        (2, "nelec is a pair of integers"),
    ],
)
def test_recovery_refuses_electrons_that_do_not_fit(nelec, says):
    """Its kernel would read beyond the orbitals."""
    samples = sampling.from_matrix(matrix(10, 3))
    with pytest.raises(InputError, match=says):
        sampling.recover(samples, np.full((2, 3), 0.5), nelec, np.random.default_rng(0))


@pytest.mark.parametrize("norb", [3, 64, 65])
def test_samples_beyond_the_orbitals_are_refused(norb):
    whole, words = np.zeros((2, bitstrings.n_words(norb)), np.uint64), bitstrings.n_words(norb)
    assert len(sampling.merge(whole, whole, [1, 1], norb)) == 1
    beyond = whole.copy()
    beyond[1, -1] = 1 << norb % 64
    for halves in ((beyond, whole), (whole, beyond)):
        if norb % 64:
            with pytest.raises(InputError, match=f"a sample occupies an orbital that does not exist; there are {norb}"):
                sampling.merge(*halves, [1, 1], norb)
    with pytest.raises(InputError, match=f"samples of {norb} orbitals are two arrays .2, {words}.; got"):
        sampling.merge(whole, whole[:1], [1, 1], norb)
    with pytest.raises(InputError, match="are two arrays"):
        sampling.merge(np.zeros((2, words + 1), np.uint64), whole, [1, 1], norb)


@pytest.mark.parametrize("number", [0, -1])
def test_a_batch_of_nothing_is_refused(number):
    with pytest.raises(InputError, match=f"a batch needs at least one sample; got {number}"):
        sampling.subsample(sampling.from_matrix(matrix(10, 3)), number, 1, np.random.default_rng(0))


def test_a_matrix_of_another_shape_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 6), bool))
    with pytest.raises(InputError, match="with 4 columns"):
        sampling.read_samples(tmp_path / "a.npy", 2)
    with pytest.raises(InputError, match="0 and 1 only"):
        sampling.from_matrix(np.full((2, 4), 2))


def test_postselection_keeps_what_has_the_right_electrons():
    bits = matrix(500, 4)
    kept = sampling.postselect(sampling.from_matrix(bits), (3, 2))
    right = bits[(bits[:, 4:].sum(axis=1) == 3) & (bits[:, :4].sum(axis=1) == 2)]
    wanted = sampling.from_matrix(right)
    assert rows_of(kept) == rows_of(wanted)
    assert kept.probabilities == pytest.approx(wanted.probabilities)
    with pytest.raises(InputError, match="no sample has 4 alpha and 0 beta"):
        sampling.postselect(wanted, (4, 0))


@pytest.mark.parametrize(("norb", "nelec"), [(1, (0, 1)), (6, (3, 2)), (6, (6, 0)), (36, (9, 9)), (65, (30, 2))])
def test_recovered_samples_have_the_right_electrons_and_keep_good_halves(norb, nelec):
    samples = sampling.from_matrix(matrix(300, norb))
    occupancies = np.random.default_rng(3).random((2, norb))
    found = sampling.recover(samples, occupancies, nelec, np.random.default_rng(1))
    assert (bitstrings.counts(found.alpha) == nelec[0]).all()
    assert (bitstrings.counts(found.beta) == nelec[1]).all()
    assert found.probabilities.sum() == pytest.approx(1.0)
    good = sampling.recover(found, occupancies, nelec, np.random.default_rng(2))
    assert rows_of(good) == rows_of(found)


def test_bits_without_weight_are_flipped_last():
    samples = sampling.from_matrix([[0, 0, 0, 0, 0, 0]])
    occupancies = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    for seed in range(20):
        found = sampling.recover(samples, occupancies, (1, 3), np.random.default_rng(seed))
        assert rows_of(found) == ["111010"]
        two = sampling.recover(samples, occupancies, (2, 0), np.random.default_rng(seed))
        assert rows_of(two)[0][4] == "1"


def test_recovery_is_the_same_for_every_number_of_threads():
    import numba

    samples = sampling.from_matrix(matrix(2000, 10))
    occupancies = np.random.default_rng(3).random((2, 10))
    before, found = numba.get_num_threads(), []
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            found.append(rows_of(sampling.recover(samples, occupancies, (4, 5), np.random.default_rng(1))))
    finally:
        numba.set_num_threads(before)
    assert all(rows == found[0] for rows in found)


def distribution(recovered, n_runs: int) -> dict[str, float]:
    """Shares of the outcomes of many recoveries."""
    total: dict[str, float] = {}
    for run in range(n_runs):
        for text, share in recovered(run):
            total[text] = total.get(text, 0.0) + share / n_runs
    return total


def test_recovery_has_the_distribution_of_qiskit_addon_sqd():
    recovery = pytest.importorskip("qiskit_addon_sqd.configuration_recovery")
    bits = np.array([[1, 1, 1, 0, 0, 1, 0, 0]] * 1, bool)
    occupancies = np.array([[0.9, 0.7, 0.35, 0.05], [0.8, 0.6, 0.4, 0.2]])
    samples, n_runs = sampling.from_matrix(bits), 4000

    def ours(run):
        found = sampling.recover(samples, occupancies, (2, 1), np.random.default_rng(run))
        return zip(rows_of(found), found.probabilities, strict=True)

    def theirs(run):
        found, shares = recovery.recover_configurations(
            bits, [1.0], (occupancies[0], occupancies[1]), 2, 1, rand_seed=run
        )
        return zip((text_of(row) for row in found), shares, strict=True)

    mine, other = distribution(ours, n_runs), distribution(theirs, n_runs)
    assert set(mine) == set(other)
    for text, share in other.items():
        assert abs(mine[text] - share) < 5 * np.sqrt(2 * share / n_runs), text


def test_flip_weights_are_those_of_qiskit_addon_sqd():
    recovery = pytest.importorskip("qiskit_addon_sqd.configuration_recovery")
    occupancies = np.array([0.0, 0.01, 0.3, 0.5, 0.51, 0.99, 1.0])
    for n_electrons in (1, 3, 6):
        ratio = n_electrons / 7
        weights = sampling.flip_weights(occupancies, n_electrons)
        assert weights[0] == pytest.approx([recovery._p_flip_0_to_1(ratio, n) for n in occupancies], abs=1e-14)
        assert weights[1] == pytest.approx([recovery._p_flip_1_to_0(ratio, n) for n in occupancies], abs=1e-14)


def test_batches_are_different_rows_drawn_by_probability():
    samples = sampling.merge(
        np.arange(4, dtype=np.uint64)[:, None], np.zeros((4, 1), np.uint64), [8.0, 4.0, 2.0, 1.0], 2
    )
    batches = sampling.subsample(samples, 2, 6000, np.random.default_rng(0))
    assert all(len(set(rows)) == 2 for rows in batches)
    p = samples.probabilities
    for row in range(4):
        share = np.mean([row in rows for rows in batches])
        second = sum(p[first] * p[row] / (1 - p[first]) for first in range(4) if first != row)
        assert share == pytest.approx(p[row] + second, abs=0.03)
    assert [list(rows) for rows in sampling.subsample(samples, 4, 2, np.random.default_rng(0))] == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("symmetrize", [False, True])
@pytest.mark.parametrize("limits", [(None, None), (6, 6), (3, 3)])
def test_strings_of_a_batch_are_those_of_qiskit_addon_sqd(symmetrize, limits):
    fermion = pytest.importorskip("qiskit_addon_sqd.fermion")
    norb, rng = 5, np.random.default_rng(2)
    samples = sampling.from_matrix(matrix(60, norb))
    rows = np.sort(rng.choice(len(samples), 25, replace=False))
    carried = [3, 17, 4] if symmetrize else [3, 17], [3, 17, 4] if symmetrize else [9]
    included = [31, 1], [2]
    a, b = fermion.batch_to_ci_strings(
        np.array([[bit == "1" for bit in rows_of(samples)[row]] for row in rows]),
        norb, np.array(carried[0]), np.array(carried[1]), symmetrize_spin=symmetrize,
    )  # fmt: skip
    config = type("Config", (), {"symmetrize_spin": symmetrize, "include_a": np.unique(included[0]), "include_b":
        np.unique(included[1]), "max_dim_a": limits[0], "max_dim_b": limits[1]})()  # fmt: skip
    wanted = fermion._apply_shape_constraints(config, a, b)
    packed = [[bitstrings.from_integers(each, norb) for each in pair] for pair in (carried, map(sorted, included))]
    found = sampling.batch_strings(
        samples, rows, tuple(packed[0]), tuple(packed[1]), symmetrize_spin=symmetrize, max_dim=limits
    )
    for spin in (0, 1):
        assert bitstrings.to_integers(found[spin]) == list(wanted[spin])


@pytest.mark.parametrize("symmetrize", [False, True])
def test_carry_over_is_that_of_qiskit_addon_sqd(symmetrize):
    fermion = pytest.importorskip("qiskit_addon_sqd.fermion")
    amplitudes = np.random.default_rng(5).normal(size=(6, 5)) ** 5
    amplitudes /= np.linalg.norm(amplitudes)
    strings = np.array([3, 5, 6, 9, 10, 12]), np.array([3, 5, 9, 10, 12])
    state = fermion.SCIState(amplitudes, *strings, norb=4, nelec=(2, 2))
    result = fermion.SCIResult(0.0, state, (np.zeros(4), np.zeros(4)))
    wanted = fermion._select_carryover(result, threshold=0.1, symmetrize_spin=symmetrize)
    packed = tuple(bitstrings.from_integers(each, 4) for each in strings)
    squares, sizes = amplitudes**2, abs(amplitudes)
    found = sampling.carry_over(packed, (squares.sum(1), squares.sum(0)), (sizes.max(1), sizes.max(0)), 0.1, symmetrize)
    for spin in (0, 1):
        assert bitstrings.to_integers(found[spin]) == list(wanted[spin])
