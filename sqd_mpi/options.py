"""Validated, frozen options with one sentence per field, and the error that stands for bad input."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sqd_mpi.errors import InputError, did_you_mean

Grid = tuple[int, int, int, int]

# Options that are set in the input file or from Python only; `run` knows the others on its command line.
_NOT_TYPED = ("spin_check", "model_space", "carry_over_threshold")

_SIZE = re.compile(r"\s*(\d+\.?\d*(?:e\+?\d+)?|\.\d+)\s*(?:([kmgt])(ib|b)?|b)?\s*", re.IGNORECASE)
# Options of version 0.1.0 that files may hold, with the value that is left of each.
_GONE = {"slide_precision": "double"}


@dataclass(frozen=True)
class Interval:
    """A distance between checkpoints: a number of iterations or a number of seconds."""

    iterations: int | None = None
    """Number of iterations, or None if the interval is a time."""
    seconds: float | None = None
    """Time in seconds, or None if the interval counts iterations."""

    def __post_init__(self) -> None:
        """Check that exactly one of the two is given and positive."""
        given = [value for value in (self.iterations, self.seconds) if value is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise InputError("an interval needs a positive number of iterations or a positive number of seconds")

    def __str__(self) -> str:
        """The text that `parse_interval` reads back."""
        return str(self.iterations) if self.seconds is None else f"{self.seconds / 60!r}min"


def parse_size(text: str | int | float) -> int:
    """A number of bytes.

    Args:
        text: a number with an optional unit: kB, MB, GB, TB are powers of 1000 (k, M, G, T alone as well),
            KiB, MiB, GiB, TiB powers of 1024; any case.

    Raises:
        InputError: if the text is no positive size.
    """
    size = 0.0
    if match := _SIZE.fullmatch(str(text)):
        number, prefix, ending = match.groups(default="")
        power = "kmgt".index(prefix.lower()) + 1 if prefix else 0
        size = float(number) * (1024 if ending.lower() == "ib" else 1000) ** power
    if not 1 <= size < 2**63:
        raise InputError(f"a size is a number with an optional unit such as 500MB, 12GB or 8GiB; got {text!r}")
    return int(size)


def parse_grid(text: Any) -> Literal["auto"] | Grid:
    """ "auto" or the process grid (a, b, t, r).

    Args:
        text: "auto", "A,B,T,R" or a sequence of four integers.

    Raises:
        InputError: if it is neither.
    """
    if isinstance(text, str) and text.strip().lower() == "auto":
        return "auto"
    parts = text.split(",") if isinstance(text, str) else text
    try:
        numbers = [int(part) for part in parts]
        a, b, t, r = numbers
        if min(numbers) < 1 or not all(isinstance(part, str) or part == int(part) for part in parts):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"a grid is auto or four positive integers A,B,T,R; got {text!r}") from None
    return a, b, t, r


def parse_interval(text: str | int | Interval) -> Interval:
    """An interval: "5" is every 5 iterations, "10min" is every 600 s.

    Raises:
        InputError: if the text is neither.
    """
    if isinstance(text, Interval):
        return text
    match = re.fullmatch(r"\s*(?:(\d+)|(\d+\.?\d*|\.\d+)\s*min)\s*", str(text), re.IGNORECASE)
    try:
        if match:
            return Interval(iterations=int(match[1])) if match[1] else Interval(seconds=60 * float(match[2]))
    except InputError:
        pass
    raise InputError(
        f"an interval is a number of iterations such as 5, or a number of minutes such as 10min; got {text!r}"
    )


def _not_a_bool(value: Any) -> Any:
    """The value; refuses True and False, which Python would take for the numbers 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


def _threads(value: Any) -> Any:
    """ "auto" or what is to become an integer."""
    if isinstance(value, str):
        return value if value == "auto" else int(value)
    return value


def fewest_krylov_vectors(nroots: int) -> int:
    """The least number of Krylov vectors: each root and one more beside them, and an expansion of each."""
    return 2 * nroots + 2


def _or_none(value: Any) -> Any:
    """None for "auto"."""
    return None if isinstance(value, str) and value.strip().lower() == "auto" else value


def _order(value: Any) -> Any:
    """The text of an order of density matrices, which may be given as a number."""
    return "none" if value in (0, None) else str(value)


_Count = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=1)]
_Real = Annotated[float, BeforeValidator(_not_a_bool), Field(allow_inf_nan=False)]


def _field(default: Any, needs: str, description: str) -> Any:
    """A pydantic field; `needs` completes the sentence '--option needs ...' of its error message."""
    return Field(default, description=description, json_schema_extra={"needs": needs})


LEAST_SINGLE = 1_000_000  # determinants from which on single precision pays for loading its kernels


class SolveOptions(BaseModel):
    """The options of one subspace diagonalisation.

    Values may be given as Python objects or as the text of the command line.

    Raises:
        InputError: for an unknown option or a value that does not fit, naming the option.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    command_line: ClassVar[tuple[str, ...]]
    """Names of the options that stand on the command line."""

    grid: Annotated[Literal["auto"] | Grid, BeforeValidator(parse_grid)] = _field(
        "auto", "auto or four positive integers A,B,T,R", "Process grid A,B,T,R whose product is the number of ranks."
    )
    backend: Literal["auto", "cpu", "gpu", "reference"] = _field(
        "auto",
        "one of auto, cpu, gpu, reference",
        "Kernels that apply the Hamiltonian: cpu, gpu or reference; auto takes a GPU if a measured profile says so.",
    )
    threads: Annotated[Literal["auto"] | _Count, BeforeValidator(_threads)] = _field(
        "auto",
        "auto or a positive integer",
        "Threads per rank; auto: NUMBA_NUM_THREADS, OMP_NUM_THREADS or a node's cores divided among its ranks.",
    )
    memory: Annotated[int, BeforeValidator(_not_a_bool), BeforeValidator(parse_size)] | None = _field(
        None,
        "a size such as 500MB, 12GB or 8GiB",
        "Memory per rank (500MB, 12GB, 8GiB); by default what is available divided by the ranks of the node.",
    )
    precision: Literal["auto", "double", "mixed"] = _field(
        "auto",
        "one of auto, double, mixed",
        "mixed: sigma in single precision but for its diagonal, and energies and residuals refined to those of double "
        "precision; auto: from 1,000,000 determinants on, where the backend has it.",
    )
    tol: Annotated[_Real, Field(gt=0)] = _field(
        1e-6, "a positive number", "Residual norm of a normalised vector at which a root is converged."
    )
    max_iterations: _Count = _field(
        200, "a positive integer", "Number of Davidson iterations in one symmetry sector after which to give up."
    )
    max_subspace: Annotated[_Count, Field(ge=4)] | None = _field(
        None, "an integer of at least 4", "Largest number of Krylov vectors; by default what the memory allows."
    )
    nroots: _Count = _field(1, "a positive integer", "Number of lowest eigenpairs.")
    spin_square: Annotated[_Real, Field(ge=0)] | None = _field(
        None, "S(S+1), a number of at least 0", "Spin S(S+1) of the wanted states; by default any: 0 is a singlet."
    )
    spin_penalty: Annotated[Annotated[_Real, Field(gt=0)] | None, BeforeValidator(_or_none)] = _field(
        None,
        "auto or a positive number",
        "Strength of the penalty on other spins in hartree; by default it lifts the nearest one by 0.2 to 0.5.",
    )
    spin_check: Literal["strict", "off"] = _field(
        "strict",
        "strict or off",
        "Whether a value of spin_square that no state of these electrons, or none of the space, can have is refused.",
    )
    rdm: Annotated[Literal["none", "1", "2"], BeforeValidator(_order)] = _field(
        "none", "one of none, 1, 2", "Density matrices of every root in the result: none, 1 (one-particle) or 2 (both)."
    )
    pt2: bool = _field(
        False, "true or false", "Second-order correction of the energy and the energy variance of every root."
    )
    symmetry: Literal["auto", "off"] = _field(
        "auto", "auto or off", "Use of the exact zeros that orbital symmetry leaves in the integrals: auto or off."
    )
    spin_flip: Literal["auto", "off"] = _field(
        "auto", "auto or off", "Use of the spin-flip symmetry of equal alpha and beta strings: auto or off."
    )
    string_order: Literal["auto", "sorted", "dealt"] = _field(
        "auto",
        "auto, sorted or dealt",
        "Strings of a block of the grid: consecutive ones (sorted) or light and heavy ones alike (dealt).",
    )
    share_blocks: Literal["auto", "off"] = _field(
        "auto", "auto or off", "Ranks of one node read each other's blocks in shared memory: auto or off."
    )
    gpu_aware_mpi: bool = _field(
        False, "true or false", "Let MPI send and receive in the memory of GPUs; needs an MPI library that can."
    )
    model_space: _Count = _field(
        300, "a positive integer", "Number of determinants of the model space that gives the start vector."
    )
    carry_over_threshold: Annotated[_Real, Field(ge=0)] = _field(
        1e-4,
        "a number of at least 0",
        "Absolute coefficient above which the strings of a determinant are carried over to a next subspace.",
    )
    start: Path | None = _field(
        None, "the path of a file", "Result file with eigenvectors that give the start vectors."
    )
    save_vector: bool = _field(False, "true or false", "Write the eigenvectors into the result file.")
    resume: bool = _field(False, "true or false", "Go on from the checkpoint of this output file.")
    checkpoint_every: Annotated[Interval, BeforeValidator(parse_interval)] | None = _field(
        None,
        "a number of iterations such as 5, or a number of minutes such as 10min",
        "Distance between checkpoints: a number of iterations (5) or of minutes (10min).",
    )
    time_limit: Annotated[_Real, Field(gt=0)] | None = _field(
        None, "a positive number of seconds", "Seconds after which to stop with a checkpoint."
    )
    watchdog: Annotated[_Real, Field(gt=0)] | None = _field(
        None,
        "a positive number of seconds",
        "Seconds without any progress after which every rank prints where it stands.",
    )
    watchdog_end: bool = _field(False, "true or false", "End the job when the watchdog finds no progress.")
    trace: Path | None = _field(
        None, "the path of a file", "File for the time-lines of all ranks, which Perfetto opens; packed if named .gz."
    )

    def __init__(self, **values: Any) -> None:
        """Check the values and report the first that does not fit."""
        plain = {name: _plain(value) for name, value in values.items()}
        for name, only in _GONE.items():
            if (got := plain.pop(name, only)) != only:
                raise InputError(f"option {name} is no longer there, everything is as with {only}; got {got!r}")
        try:
            super().__init__(**plain)
        except ValidationError as error:
            raise InputError(_sentence(type(self), error, plain)) from None

    @model_validator(mode="after")
    def _check_together(self) -> SolveOptions:
        """Check options that depend on each other."""
        least = fewest_krylov_vectors(self.nroots)
        if self.max_subspace is not None and self.max_subspace < least:
            raise InputError(
                f"--max-subspace needs at least twice the number of roots and two, {least} for --nroots {self.nroots}; "
                f"got {self.max_subspace}"
            )
        if self.spin_penalty is not None and self.spin_square is None:
            raise InputError("--spin-penalty needs --spin-square, which says which spin is wanted")
        if self.watchdog_end and self.watchdog is None:
            raise InputError("--watchdog-end needs --watchdog SECONDS")
        return self

    def takes_single_precision(self, n_determinants: int) -> bool:
        """Whether sigma is made in single precision in a space of so many determinants, if the backend can."""
        wanted = self.precision == "mixed" or (self.precision == "auto" and n_determinants >= LEAST_SINGLE)
        return wanted and self.backend not in ("gpu", "reference")

    def replace(self, **changes: Any) -> SolveOptions:
        """A copy with other values, checked like the first."""
        return type(self)(**{**dict(self), **changes})

    def to_dict(self) -> dict[str, str | int | float | bool | None]:
        """Every option as a plain value that JSON, an HDF5 attribute and `SolveOptions` understand."""
        return {name: _as_plain_value(value) for name, value in self}


COMMAND_LINE_OPTIONS = tuple(name for name in SolveOptions.model_fields if name not in _NOT_TYPED)
SolveOptions.command_line = COMMAND_LINE_OPTIONS


def option_name(field: str) -> str:
    """The name of an option as its user types it: `--max-iterations`, or the attribute's name."""
    return "--" + field.replace("_", "-") if field in COMMAND_LINE_OPTIONS else f"option {field}"


def _as_plain_value(value: Any) -> str | int | float | bool | None:
    """Text for the types that JSON does not know."""
    if isinstance(value, tuple):
        return ",".join(str(number) for number in value)
    return str(value) if isinstance(value, Path | Interval) else value


def _plain(value: Any) -> Any:
    """A Python object for a numpy scalar or array and text for bytes, as HDF5 attributes come."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _sentence(options: type[SolveOptions], error: ValidationError, values: dict[str, Any]) -> str:
    """One sentence on the first thing that pydantic found."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(first["loc"][0]), options.model_fields)
        known = "" if hint else f"; the options are {', '.join(sorted(options.model_fields))}"
        return f"unknown option {first['loc'][0]!r}{hint}{known}"
    if not first["loc"]:
        found = first.get("ctx", {}).get("error", first["msg"])
        return found.typed if isinstance(found, InputError) else str(found)
    name = str(first["loc"][0])
    extra = options.model_fields[name].json_schema_extra
    needs = extra["needs"] if isinstance(extra, dict) else "another value"
    typed = "--" + name.replace("_", "-") if name in options.command_line else option_name(name)
    got = values.get(name)
    shown = repr(got) if got is None or isinstance(got, bool | int | float) else repr(str(got))
    choices = _choices(options.model_fields[name].annotation)
    return f"{typed} needs {needs}; got {shown}{did_you_mean(str(got), choices)}"


def _choices(annotation: Any) -> list[str]:
    """The words that an option takes, as far as it takes words."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]
