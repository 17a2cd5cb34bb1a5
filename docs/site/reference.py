"""Pages of the reference that are made from the program itself: its parser, its option models and its summaries."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqd_mpi.app.cli import build_parser
from sqd_mpi.files.summary import Summary
from sqd_mpi.loop.options import LoopOptions
from sqd_mpi.options import SolveOptions

Verb = tuple[tuple[str, ...], argparse.ArgumentParser]

_HEAD = """# Every option

This page is made from the parser and the option models of the program when the documentation is built.
What the options are for is said in [](../command_line.md).
"""
_PYTHON = """
## In Python and in input files

`SolveOptions(name=value)`, `LoopOptions(name=value)`, keyword arguments of the drop-ins, and attributes of `/options`
of an input file take these names. Values may be Python objects or the texts of the command line.
An unknown name is an error.
"""
_SUMMARY = """# Every field of a summary

This page is made from the model of summaries when the documentation is built. What else a result holds is said in
[](../files.md). Lists over roots have the length nroots.

"""


def missing(*modules: str) -> list[str]:
    """Returns those of the modules that are not installed; their importers are documented nevertheless."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def write_pages(folder: Path) -> None:
    """Writes the generated pages into a folder; a file that would not change is left alone."""
    folder.mkdir(exist_ok=True)
    for name, text in (("options.md", options_page()), ("summary.md", summary_page())):
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def options_page() -> str:
    """Returns the page of all verbs with their options, and of all fields of the option models."""
    parts = [_HEAD]
    for names, parser in verbs():
        parts.append(f"\n## {' '.join(names)}\n\n{parser.description}\n\n```text\n{_usage(parser)}\n```\n")
        rows = list(_rows(parser))
        if rows:
            parts.append("\n" + _table(("argument", "default", "meaning"), rows))
    parts.append(_PYTHON)
    for model, inherited in ((SolveOptions, ()), (LoopOptions, tuple(SolveOptions.model_fields))):
        parts.append(f"\n### {model.__name__}\n\n")
        if inherited:
            parts.append("All fields of `SolveOptions`, and\n\n")
        parts.append(_table(("name", "value", "default", "meaning"), _fields(model, inherited)))
    return "".join(parts)


def summary_page() -> str:
    """Returns the page of all fields of a summary."""
    rows = [
        (f"`{name}`", " ".join((field.description or "").split()).replace("<", r"\<"))
        for name, field in Summary.model_fields.items()
    ]
    return _SUMMARY + _table(("field", "meaning"), rows)


def verbs(parser: argparse.ArgumentParser | None = None, names: tuple[str, ...] = ()) -> Iterator[Verb]:
    """Yields (words of the verb, its parser) for every verb, in the order of `--help`."""
    parser = parser or build_parser()
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield names, parser
    for name, inner in (pair for group in groups for pair in group.choices.items()):
        yield from verbs(inner, (*names, name))


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Returns what a verb takes, `--help` left out."""
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _usage(parser: argparse.ArgumentParser) -> str:
    """Returns the line of usage, as wide as it comes."""
    words = [parser.prog]
    for action in options(parser):
        if not action.option_strings:
            words.append(f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar))
        elif action.required:
            words.append(f"{action.option_strings[0]} {action.metavar}")
    optional = any(action.option_strings and not action.required for action in options(parser))
    return " ".join([*words, *(["[options]"] if optional else [])])


def _rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str]]:
    """Yields a row for each argument of a verb."""
    for action in options(parser):
        spelled = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar}`"
        if action.option_strings and action.nargs != 0:
            spelled += f" `{action.metavar}`"
        field = LoopOptions.model_fields.get(action.dest)
        default = field.default if field is not None and action.default is argparse.SUPPRESS else action.default
        sentence = str(action.help or "") % {"default": action.default}
        yield spelled, "required" if action.required else _default(default), _sentence(sentence, default)


def _fields(model: type[SolveOptions], without: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """Yields a row for each field of an option model."""
    for name, field in model.model_fields.items():
        if name not in without:
            extra = field.json_schema_extra
            needs = str(extra["needs"]) if isinstance(extra, dict) else ""
            yield f"`{name}`", needs, _default(field.default), _sentence(field.description or "", None)


def _default(value: object) -> str:
    """Returns how a default is written, nothing where there is none."""
    return "" if value is None or value is False or value == argparse.SUPPRESS else f"`{value}`"


def _sentence(text: str, default: object) -> str:
    """Returns a help text without the default that it ends with, as a sentence."""
    text = text.removesuffix(f" ({default})").rstrip(".")
    return text[:1].upper() + text[1:]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
