"""Options and the texts they are made from."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from sqd_mpi.errors import InputError, InputWarning, RunError, as_typed, input_warnings_to
from sqd_mpi.options import (
    COMMAND_LINE_OPTIONS,
    Interval,
    SolveOptions,
    option_name,
    parse_grid,
    parse_interval,
    parse_size,
)
from sqd_mpi.resources import available_cores, available_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GB", 12 * 10**9),
        ("8GiB", 8 * 2**30),
        ("500M", 500 * 10**6),
        ("1.5 gb", 15 * 10**8),
        ("3k", 3000),
        ("2TiB", 2 * 2**40),
        ("123", 123),
        ("7B", 7),
        (1024, 1024),
        ("1e9", 10**9),
        ("5.kB", 5000),
        *((f"2{unit}{end}", 2 * 1000**k) for k, unit in enumerate("kMGT", 1) for end in ("", "B", "b")),
        *((f"2 {unit}iB", 2 * 1024**k) for k, unit in enumerate("KMGT", 1)),
    ],
)
def test_parse_size(text, size):
    """Decimal and binary units, any case, and plain bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0.1", "12GX", "nan", "inf", "1 2", "1e30",
                                  "10,5GB", "12GB/rank", "1 500 MB", "8bit", "2Gi", "2ib"])  # fmt: skip
def test_parse_size_refuses(text):
    """What is no positive size is named."""
    with pytest.raises(InputError, match="a size is a number") as error:
        parse_size(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "grid"),
    [("auto", "auto"), ("2,2,1,1", (2, 2, 1, 1)), (" 1, 2,3 ,4", (1, 2, 3, 4)), ([1, 1, 1, 5], (1, 1, 1, 5))],
)
def test_parse_grid(text, grid):
    """Text and sequences."""
    assert parse_grid(text) == grid


@pytest.mark.parametrize("text", ["", "2,2", "2,2,1,1,1", "0,1,1,1", "-1,1,1,-1", "a,b,c,d", 4, [1, 1, 1, 1.5], None])
def test_parse_grid_refuses(text):
    """What is no grid is named."""
    with pytest.raises(InputError, match="four positive integers"):
        parse_grid(text)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("5", Interval(iterations=5)),
        (5, Interval(iterations=5)),
        ("10min", Interval(seconds=600.0)),
        ("0.5 min", Interval(seconds=30.0)),
        (".25MIN", Interval(seconds=15.0)),
        (Interval(seconds=7.0), Interval(seconds=7.0)),
    ],
)
def test_parse_interval(text, interval):
    """Iterations and minutes."""
    assert parse_interval(text) == interval
    assert parse_interval(str(interval)) == interval


@pytest.mark.parametrize("text", ["", "0", "0min", "-5", "5s", "1.5", "min", "1.2.3min"])
def test_parse_interval_refuses(text):
    """What is no interval is named."""
    with pytest.raises(InputError, match="number of minutes"):
        parse_interval(text)


@pytest.mark.parametrize(
    "values", [{}, {"iterations": 1, "seconds": 1.0}, {"iterations": 0}, {"seconds": float("inf")}]
)
def test_interval_is_one_positive_number(values):
    """An interval is a number of iterations or a time."""
    with pytest.raises(InputError):
        Interval(**values)


def test_defaults():
    """The defaults of the documentation."""
    options = SolveOptions()
    assert (options.grid, options.backend, options.threads, options.memory) == ("auto", "auto", "auto", None)
    assert (options.tol, options.max_iterations, options.nroots) == (1e-6, 200, 1)
    assert (options.save_vector, options.resume, options.start) == (False, False, None)


def test_values_as_text():
    """The command line gives text."""
    options = SolveOptions(
        grid="2,1,3,1", threads="4", memory="2GB", tol="1e-5", max_iterations="7", checkpoint_every="3", start="a.h5"
    )
    assert options.grid == (2, 1, 3, 1)
    assert (options.threads, options.memory, options.tol, options.max_iterations) == (4, 2 * 10**9, 1e-5, 7)
    assert options.checkpoint_every == Interval(iterations=3)
    assert options.start == Path("a.h5")
    assert [SolveOptions(rdm=value).rdm for value in ("2", 1, np.int64(2), None, "none")] == [
        "2",
        "1",
        "2",
        "none",
        "none",
    ]


def test_values_as_hdf5_attributes():
    """Attributes of a file are numpy scalars, arrays and bytes."""
    options = SolveOptions(
        grid=np.array([1, 2, 1, 1]),
        backend=b"cpu",
        nroots=np.int64(2),
        tol=np.float64(1e-3),
        save_vector=np.bool_(True),
    )
    assert (options.grid, options.backend, options.nroots) == ((1, 2, 1, 1), "cpu", 2)
    assert (options.tol, options.save_vector) == (1e-3, True)
    assert type(options.nroots) is int


@pytest.mark.parametrize(
    ("field", "value", "needs"),
    [
        ("grid", "2,2", "auto or four positive integers"),
        ("backend", "fpga", "one of auto, cpu"),
        ("threads", "0", "auto or a positive integer"),
        ("threads", "many", "auto or a positive integer"),
        ("memory", "12GX", "a size"),
        ("memory", True, "a size"),
        ("tol", "0", "a positive number"),
        ("tol", "nan", "a positive number"),
        ("tol", "inf", "a positive number"),
        ("max_iterations", "0", "a positive integer"),
        ("max_iterations", "2.5", "a positive integer"),
        ("max_iterations", True, "a positive integer"),
        ("max_subspace", "3", "at least 4"),
        ("nroots", "-1", "a positive integer"),
        ("symmetry", "on", "auto or off"),
        ("rdm", "3", "one of none, 1, 2"),
        ("rdm", True, "one of none, 1, 2"),
        ("model_space", 0, "a positive integer"),
        ("carry_over_threshold", -1e-9, "at least 0"),
        ("save_vector", "maybe", "true or false"),
        ("start", 3, "the path of a file"),
        ("checkpoint_every", "often", "a number of iterations"),
        ("time_limit", "0", "a positive number of seconds"),
    ],
)
def test_bad_value_is_one_sentence_naming_the_option(field, value, needs):
    """The sentence says what was needed, then what was got."""
    with pytest.raises(InputError) as error:
        SolveOptions(**{field: value})
    sentence = error.value.typed
    assert sentence.startswith(option_name(field) + " needs ")
    assert needs in sentence
    assert sentence.endswith(f"got {value!r}")
    assert "\n" not in sentence


def test_unknown_option_is_named():
    """A misspelt option is refused, never ignored."""
    with pytest.raises(InputError, match="unknown option 'mistake'; the options are backend, .*, tol, trace, watchdog"):
        SolveOptions(mistake=1e-5)


def test_unknown_option_that_is_close_to_one():
    """Then one name is enough."""
    with pytest.raises(InputError) as error:
        SolveOptions(nroot=2)
    assert str(error.value) == "unknown option 'nroot' (did you mean nroots?)"


def test_sentences_name_options_as_their_reader_types_them():
    """In Python without hyphens; on the command line with them, also for what is raised far below it, or sent there."""
    with pytest.raises(InputError) as found:
        SolveOptions(nroots=4, max_subspace=9)
    error = pickle.loads(pickle.dumps(found.value))
    in_python = "max_subspace needs at least twice the number of roots and two, 10 for nroots 4; got 9"
    typed = "--max-subspace needs at least twice the number of roots and two, 10 for --nroots 4; got 9"
    assert (str(error), f"{error}", error.typed) == (in_python, in_python, typed)
    with as_typed():
        assert (str(error), f"{error}") == (typed, typed)
        assert str(RunError("go on with --resume")) == "go on with --resume"
    assert (str(error), str(RunError("go on with --resume"))) == (in_python, "go on with resume")
    name = "a--b.h5, ./--c.h5, -- and --- stay"
    assert str(InputError(name)) == name


def test_options_that_exclude_each_other():
    """The subspace must hold every root, and one more that shows whether they are the lowest, twice."""
    with pytest.raises(InputError, match="^max_subspace needs .* 10 for nroots 4; got 9"):
        SolveOptions(nroots=4, max_subspace=9)
    assert SolveOptions(nroots=4, max_subspace=10).max_subspace == 10


def test_frozen_and_replaced():
    """A copy is checked like the first."""
    options = SolveOptions(nroots=2)
    with pytest.raises(ValidationError):
        options.nroots = 3
    assert options.replace(tol="1e-3").tol == 1e-3
    assert options.replace(tol=1e-3).nroots == 2
    with pytest.raises(InputError, match="^tol needs"):
        options.replace(tol=-1)


def test_dictionary_is_plain_and_reads_back():
    """The result repeats the options in a form that gives them back."""
    options = SolveOptions(grid=(1, 2, 1, 1), start="a.h5", checkpoint_every="10min", memory="1GB", time_limit=5)
    plain = options.to_dict()
    assert plain["grid"] == "1,2,1,1"
    assert SolveOptions(**json.loads(json.dumps(plain))) == options
    assert set(plain) == set(SolveOptions.model_fields)


def test_every_field_has_one_sentence():
    """The help of the command line is made of these."""
    assert set(COMMAND_LINE_OPTIONS) <= set(SolveOptions.model_fields)
    for field in SolveOptions.model_fields.values():
        assert field.description is not None
        assert field.description.endswith(".")
        assert isinstance(field.json_schema_extra, dict)


def test_machine():
    """What this machine offers is positive."""
    assert available_cores() >= 1
    assert available_memory() > 2**20


def test_memory_limit_of_a_control_group(tmp_path):
    """The tightest limit of the group and its parents counts, less what is used."""
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1000\n")
    (inner.parent / "memory.max").write_text("100000\n")
    (inner.parent / "memory.current").write_text("40000\n")
    (inner.parent / "memory.stat").write_text("anon 1000\ninactive_file 10000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job/step\n")
    assert available_memory(tmp_path, membership) == 70000


def test_warnings_about_input_go_where_they_are_wanted():
    """Each once; others stay Python's."""
    said: list[str] = []
    with pytest.warns(DeprecationWarning, match="old"), input_warnings_to(said.append):
        for text in ("odd", "odd", "strange"):
            warnings.warn(text, InputWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert said == ["odd", "strange"]
    with pytest.warns(InputWarning, match="outside"):
        warnings.warn("outside", InputWarning, stacklevel=1)
