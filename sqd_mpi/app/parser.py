"""A parser whose errors are one sentence with a suggestion, and whose help ends with examples and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from sqd_mpi.app.speaker import refuse
from sqd_mpi.errors import did_you_mean
from sqd_mpi.log import show, tell

PROGRAM = "python -m sqd_mpi"
EXIT_BAD_INPUT = 2

EXIT_CODES = """Exit codes:
  0  done
  1  anything else, such as a full disk
  2  bad input or options: one sentence, nothing written
  3  not converged: the result is written and marked
  4  stopped by a signal or the time limit, with a checkpoint: go on with --resume"""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error as one line, from one rank."""

    collective = True
    """Whether all ranks of a job come here with the same words: MPI then says which of them reports an error."""

    def __init__(self, **settings: Any) -> None:
        """Takes no abbreviated options: what is unknown today may become an option tomorrow."""
        plain = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{**plain, **settings})

    def error(self, message: str) -> NoReturn:
        """Prints one sentence and exits with code 2."""
        refuse(f"{message}; see {self.prog} --help", self.collective)
        sys.exit(EXIT_BAD_INPUT)

    def refuse_unknown(self, words: Sequence[str], given: Sequence[str] = ()) -> NoReturn:
        """Reports the first of the words that no argument took.

        Args:
            words: those that are left.
            given: the whole command line.
        """
        word = next((word for word in words if word != "--"), "--")
        if word.startswith("-") and word in [*given][[*given, "--"].index("--") + 1 :]:
            self.error(f"unexpected argument {word!r}: after -- every word is the name of a file; options go before --")
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        name = word.partition("=")[0]
        known = [text for action in self._actions for text in action.option_strings]
        self.error(f"unknown option {name}{did_you_mean(name, known)}")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and version on standard output, which may be closed, broken or full, and errors."""
        if message:
            if file is sys.stdout:
                show(message)
            else:
                tell(message.rstrip())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuses what is not among the choices, and says what is close."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            what = action.metavar.lower() if isinstance(action.metavar, str) else "value"
            hint = did_you_mean(str(value), names) or f"; choose from {', '.join(names)}"
            raise argparse.ArgumentError(None, f"unknown {what} {str(value)!r}{hint}")


def examples(*lines: str) -> str:
    """Returns the end of a help text: examples of a verb, and what exit codes mean."""
    shown = "\n".join(f"  {line}" for line in lines)
    return f"Examples:\n{shown}\n\n{EXIT_CODES}"
