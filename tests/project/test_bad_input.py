"""Every sentence of docs/bad_input.md stands in the program."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "bad_input.md").read_text(encoding="utf-8")


def texts_of_the_program() -> str:
    """All texts of the package, one a line; what is put into them is `…`."""
    found = []
    for path in sorted((ROOT / "sqd_mpi").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


PROGRAM = texts_of_the_program()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "what is wrong" not in line]
SENTENCES = [sentence for line in ROWS for sentence in re.findall(r"`([^`]+)`", line.split("|")[2])]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_sentence_stands_in_the_program(sentence: str) -> None:
    pieces = [re.escape(piece.strip()) for piece in sentence.split("…")]
    assert re.search("[^\n]*".join(pieces), PROGRAM), sentence


def test_the_page_is_complete_in_outline() -> None:
    assert len(SENTENCES) > 70
    assert all(len(line.split("|")) == 4 for line in ROWS)
