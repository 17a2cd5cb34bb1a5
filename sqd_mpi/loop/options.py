"""Options of the whole loop on sampled bit-strings: those of a solve, and how subspaces are made."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from sqd_mpi.options import COMMAND_LINE_OPTIONS, SolveOptions, _Count, _field, _Real

# Options of the loop's own; `sqd` knows them on its command line.
LOOP_OPTIONS = (
    "batches",
    "samples_per_batch",
    "loop_iterations",
    "energy_tol",
    "occupancies_tol",
    "symmetrize_spin",
    "max_dim",
    "seed",
    "workers",
    "timeout",
    "retries",
)
# Options of a solve that have no meaning here: a group of ranks finds its own grid, and one root is followed.
_WITHOUT = (
    "grid", "nroots", "rdm", "pt2", "start", "save_vector", "checkpoint_every", "trace", "watchdog", "watchdog_end",
)  # fmt: skip
# Those that decide which strings the loop sees: a checkpoint belongs to them.
DECISIVE = ("batches", "samples_per_batch", "symmetrize_spin", "max_dim", "seed", "carry_over_threshold")


def parse_max_dim(value: Any) -> tuple[int, int] | None:
    """Limits for alpha and beta strings: "1000" is both, "1000,800" one each; None stays None.

    Raises:
        ValueError: they are not one or two positive integers.
    """
    if value is None:
        return None
    parts = str(value).split(",") if isinstance(value, str | int | float) else list(value)
    numbers = [int(part) for part in parts]
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ValueError("one or two positive integers")
    return numbers[0], numbers[-1]


def _workers(value: Any) -> Any:
    """ "auto" or what is to become an integer."""
    return value if value == "auto" else int(value)


class LoopOptions(SolveOptions):
    """The options of the loop, with those of every solve in it.

    Raises:
        InputError: for an unknown option or a value that does not fit, naming the option.
    """

    command_line: ClassVar[tuple[str, ...]] = (
        *LOOP_OPTIONS,
        *(name for name in COMMAND_LINE_OPTIONS if name not in _WITHOUT),
        "carry_over_threshold",
    )

    batches: _Count = _field(5, "a positive integer", "Number of batches in every iteration.")
    samples_per_batch: _Count = _field(
        1000, "a positive integer", "Number of different bit-strings that a batch is made of."
    )
    loop_iterations: _Count = _field(
        100, "a positive integer", "Number of iterations of recovery and diagonalisation after which to give up."
    )
    energy_tol: Annotated[_Real, Field(ge=0)] = _field(
        1e-8, "a number of at least 0", "Change of the energy between iterations, hartree, below which the loop ends."
    )
    occupancies_tol: Annotated[_Real, Field(ge=0)] = _field(
        1e-5, "a number of at least 0", "Largest change of an occupancy below which the loop ends."
    )
    symmetrize_spin: bool = _field(False, "true or false", "Give both spins the strings of both.")
    max_dim: Annotated[tuple[int, int] | None, BeforeValidator(parse_max_dim)] = _field(
        None, "one or two positive integers N or A,B", "Largest numbers of alpha and beta strings of a batch: N or A,B."
    )
    seed: Annotated[int, Field(ge=0)] = _field(0, "an integer of at least 0", "Seed of all random choices.")
    workers: Annotated[Literal["auto"] | Annotated[int, Field(ge=0)], BeforeValidator(_workers)] = _field(
        "auto",
        "auto or a number of at least 0",
        "Without mpirun: worker processes that solve batches at once; 0 solves them one after another.",
    )
    timeout: Annotated[_Real, Field(gt=0)] | None = _field(
        None, "a positive number of seconds", "Seconds after which a batch counts as failed."
    )
    retries: Annotated[int, Field(ge=0)] = _field(
        0, "a number of at least 0", "How often a failed batch is tried again."
    )

    def of_a_solve(self, **changes: Any) -> SolveOptions:
        """The options of one diagonalisation in the loop."""
        values = {name: value for name, value in dict(self).items() if name in SolveOptions.model_fields}
        fixed = {"grid": "auto", "nroots": 1, "resume": False, "time_limit": None, "trace": None}
        return SolveOptions(**{**values, **fixed, **changes})
