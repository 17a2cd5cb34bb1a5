"""Code blocks of Markdown pages: how they are found, run, compared with the output that a page shows, or checked.

A fenced block in `sh`, `console` (commands after `$` with their output) or `python` is run. A comment right before a
block changes that; it is seen neither on the site nor elsewhere:

    <!-- snippet: long -->            not run: takes too long here; `cluster`, `gpu`, `install` and `synopsis` likewise
    <!-- snippet: output -->          a `text` block that shows what the block before it printed
    <!-- snippet: file NAME -->       the block is written into a file, for a block that follows

and these stand anywhere in a page:

    <!-- snippet: needs NAME ... -->  files that the test makes (see NEEDED in test_docs.py)
    <!-- snippet: setup               shell commands that come before the next block
    COMMANDS -->

As a program (python snippets.py STEPS.json) it runs the steps of a page in the present folder.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RUN = ("sh", "console", "python")
SHOWN = ("text", "json", "ini", "none")
MARKS = ("long", "cluster", "gpu", "install", "synopsis")
_COMMENT = re.compile(r"<!-- snippet: (\w+)\s*(.*?)-->", re.DOTALL)
_COMMAND = re.compile(
    r"^(\$ |[A-Z_]+=\S+ |)(python3?|mpirun|mpiexec|srun|sbatch|make|pip|git|conda|module|apt-get|docker|\$)\b"
)
# A block that begins with one of these changes what is installed, and counts as marked `install`.
_INSTALLS = re.compile(r"(sudo )?(python3? -m venv|pip|make|git|conda|apt-get|docker|podman|apptainer|singularity)\b")
_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    line: int
    """Line of the page on which it begins."""
    language: str
    """Language of the fence; `sh`, `console` or `text` for an indented block, by what its lines look like."""
    text: str
    mark: str = ""
    """Kind of the comment before it, or nothing."""
    argument: str = ""
    """What stands behind the kind in that comment."""

    @property
    def runs(self) -> bool:
        """Whether the block is run."""
        return self.language in RUN and self.mark not in (*MARKS, "file")


def blocks(page: str) -> list[Block]:
    """Returns the code blocks of a page and its `needs` and `setup` comments, in order."""
    from markdown_it import MarkdownIt

    found, comment = [], ("", "")
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            for kind, argument in _COMMENT.findall(token.content):
                if kind in ("needs", "setup"):
                    found.append(Block(line, "", argument.strip(), kind))
                else:
                    comment = kind, argument.strip()
        elif token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info.split() else ""
            if token.type == "code_block":
                language = _guess(token.content)
            if language == "sh" and not comment[0] and _INSTALLS.match(token.content):
                comment = "install", ""
            if not language.startswith("{"):
                found.append(Block(line, language, token.content, *comment))
            comment = "", ""
        elif token.type not in ("list_item_open", "bullet_list_open", "ordered_list_open"):
            comment = "", ""
    return found


def _guess(text: str) -> str:
    """Returns the language of an indented block."""
    if re.match(r"\$ ", text):
        return "console"
    return "sh" if _COMMAND.match(text) else "text"


def complaint(block: Block) -> str:
    """Returns what is wrong with the way in which a block is marked, or nothing."""
    if block.mark in ("needs", "setup"):
        return ""
    if block.language not in (*RUN, *SHOWN):
        return f"has the language {block.language!r}; one of {', '.join((*RUN, *SHOWN))} is needed"
    if block.mark and block.mark not in (*MARKS, "file", "output"):
        return f"has the unknown mark {block.mark!r}"
    if block.language == "text" and block.mark != "output" and any(map(_COMMAND.match, block.text.splitlines())):
        return "is text but holds a command, which is neither run nor marked"
    return ""


def commands(block: Block) -> list[tuple[str, str]]:
    """Returns (command, output that is shown) of a console block; other blocks are one command without output."""
    if block.language != "console":
        return [(block.text, "")]
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = f"{found[-1][0]}\n{line.removeprefix('> ')}", ""
        elif found:
            found[-1] = found[-1][0], f"{found[-1][1]}{line}\n"
    return found


def not_shown(shown: str, actual: str) -> list[str]:
    """Returns the lines of a page that the real output does not have, in their order.

    Words and whole numbers must agree, numbers with five or more decimals to 1e-5, and other numbers
    (times, residuals) must be numbers. A line `...` stands for any lines.
    """
    rest, missing = actual.splitlines(), []
    for line in (text for text in shown.splitlines() if text.strip() not in ("", "...")):
        place = next((k for k, other in enumerate(rest) if _alike(line, other)), None)
        if place is None:
            missing.append(line)
        else:
            rest = rest[place + 1 :]
    return missing


def _alike(shown: str, actual: str) -> bool:
    """Returns whether two lines say the same, but for times and rounding."""
    words = [_NUMBER.sub("#", text).split() for text in (shown, actual)]
    numbers = [_NUMBER.findall(text) for text in (shown, actual)]
    return words[0] == words[1] and all(_close(*pair) for pair in zip(*numbers, strict=True))


def _close(shown: str, actual: str) -> bool:
    """Returns whether two numbers agree as far as a page can promise it."""
    if re.fullmatch(r"[-+]?\d+", shown):
        return shown == actual
    decimals = len(shown.partition(".")[2]) if "e" not in shown.lower() else 0
    return decimals < 5 or abs(float(shown) - float(actual)) < 1e-5


def run_steps(path: Path) -> None:
    """Runs the steps of a page, [kind, text, file name] each, and stores their outputs; stops at the first failure."""
    outputs: list[tuple[int, str]] = []
    names: dict[str, object] = {"__name__": "__main__"}
    for kind, text, name in json.loads(path.read_text(encoding="utf-8")):
        code, output = 0, ""
        if kind == "file":
            Path(name).write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile(text, name, "exec"), names)
        else:
            shell = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            code, output = done.returncode, done.stdout
            print(f"$ {text.strip()}\n{output}", flush=True)
        outputs.append((code, output))
        path.with_suffix(".out").write_text(json.dumps(outputs), encoding="utf-8")
        if code:
            sys.exit(f"{name}: exit code {code}")


if __name__ == "__main__":
    run_steps(Path(sys.argv[1]))
