"""Scripts that complete verbs, options, choices and names of files in a shell."""

from __future__ import annotations

import argparse
import copy
import re

from sqd_mpi.errors import InputError

SHELLS = ("bash", "zsh")
COMMAND = "sqd_mpi"

_FILES = ("FILE", "INPUT", "RESULT", "PROBLEM", "FCIDUMP", "FILE.html|DIR")
_CHOICES = re.compile(r"[a-z0-9]+(\|[a-z0-9]+)+")

# `python -m sqd_mpi` is what most people type: its words are handed on as those of `sqd_mpi`. Other uses of python keep
# the completion that they had.
_BASH = r"""
_sqd_mpi_module() {
  if [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == sqd_mpi && $COMP_CWORD -gt 2 ]]; then
    COMP_WORDS=(sqd_mpi "${COMP_WORDS[@]:3}")
    COMP_CWORD=$((COMP_CWORD - 2))
    _shtab_sqd_mpi sqd_mpi "$2" "$3"
  elif declare -F _python >/dev/null; then
    _python "$@"
  else
    COMPREPLY=($(compgen -f -- "$2"))
  fi
}
complete -o filenames -F _sqd_mpi_module python python3
"""
_ZSH = r"""
_sqd_mpi_module() {
  if [[ ${words[2]} == -m && ${words[3]} == sqd_mpi && $CURRENT -gt 3 ]]; then
    words=(sqd_mpi "${words[@]:3}")
    (( CURRENT -= 2 ))
    _shtab_sqd_mpi
  elif (( $+functions[_python] )); then
    _python "$@"
  else
    _files
  fi
}
compdef _sqd_mpi_module python python3
"""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Returns the script of a shell.

    Args:
        parser: the parser of all verbs.
        shell: one of SHELLS.

    Raises:
        InputError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise InputError("completion needs shtab; install it with: pip install shtab") from None
    marked = copy.copy(parser)
    marked.prog = COMMAND
    _mark(marked)
    text = shtab.complete(marked, shell=shell, root_prefix=COMMAND)
    return text.rstrip("\n") + "\n" + (_BASH if shell == "bash" else _ZSH)


def _mark(parser: argparse.ArgumentParser) -> None:
    """Says of every argument, from what help shows for its value, whether it is a file or one of some words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _mark(below)
        elif isinstance(action.metavar, str) and action.choices is None:
            if action.metavar in _FILES:
                action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
            elif _CHOICES.fullmatch(action.metavar):
                action.choices = action.metavar.split("|")
            elif action.metavar.startswith("auto|"):
                action.choices = ["auto"]
