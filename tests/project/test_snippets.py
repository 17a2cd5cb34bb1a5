"""Blocks of pages are found with their marks, faults are named, and shown output is compared as it should be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import snippets
from tests.support.snippets import Block
from tests.support.waiting import HANG

PAGE = """# Page

<!-- snippet: needs a.h5 b.h5 -->

    python one.py

<!-- snippet: long -->

```sh
python two.py
```

Text between.

```python
x = 1
```

* in a list

      mpirun -n 2 python three.py

<!-- snippet: setup
echo hello -->

```{toctree}
page
```

    pip install something

    H = T + V
"""


def test_blocks_are_found_with_their_marks() -> None:
    found = [(block.language, block.text.strip().splitlines()[0], block.mark) for block in snippets.blocks(PAGE)]
    assert found == [
        ("", "a.h5 b.h5", "needs"),
        ("sh", "python one.py", ""),
        ("sh", "python two.py", "long"),
        ("python", "x = 1", ""),
        ("sh", "mpirun -n 2 python three.py", ""),
        ("", "echo hello", "setup"),
        ("sh", "pip install something", "install"),
    ]
    assert [block.runs for block in snippets.blocks(PAGE)] == [False, True, False, True, True, False, False]


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        (Block(1, "sh", "ls"), ""),
        (Block(1, "text", "energy -1.0"), ""),
        (Block(1, "text", "energy\nmpirun -n 2 python x.py"), "is text but holds a command"),
        (Block(1, "text", "$ python x.py"), "is text but holds a command"),
        (Block(1, "", "ls"), "has the language ''"),
        (Block(1, "bash", "ls"), "has the language 'bash'"),
        (Block(1, "sh", "ls", "skip"), "has the unknown mark 'skip'"),
    ],
)
def test_what_is_neither_run_nor_marked_is_a_fault(block: Block, complaint: str) -> None:
    found = snippets.complaint(block)
    assert bool(found) == bool(complaint) and found.startswith(complaint)


def test_a_console_block_is_commands_with_their_outputs() -> None:
    block = Block(1, "console", "$ one \\\n>   --two\na 1\nb 2\n$ three\n")
    assert snippets.commands(block) == [("one \\\n  --two", "a 1\nb 2\n"), ("three", "")]


@pytest.mark.parametrize(
    ("shown", "actual", "same"),
    [
        ("energy -1.123456 hartree, 2.5 s", "x\nenergy -1.123457 hartree, 9.1 s\ny", True),
        ("energy -1.123456 hartree", "energy -1.123556 hartree", False),
        ("residual 1.2e-07", "residual 4.5e-09", True),
        ("4 ranks", "3 ranks", False),
        ("b\na", "a\nb", False),
        ("a\n...\nc", "a\nb\nc", True),
        ("energy 1.5", "energy 1.5 hartree", False),
    ],
)
def test_shown_output_is_compared_but_for_times(shown: str, actual: str, same: bool) -> None:
    assert (snippets.not_shown(shown, actual) == []) == same


def test_steps_run_in_one_folder_and_stop_at_a_failure(tmp_path: Path) -> None:
    steps = [
        ("file", "y = 2\n", "made.py"),
        ("python", "import made; x = made.y", "p:1"),
        ("sh", "echo $((1 + 1))", "p:2"),
    ]
    steps += [("python", "assert x == 2", "p:3"), ("sh", "false", "p:4"), ("sh", "echo never", "p:5")]
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    command = [sys.executable, snippets.__file__, "steps.json"]
    environment = {"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 1 and "p:4: exit code 1" in done.stderr and "never" not in done.stdout
    assert json.loads((tmp_path / "steps.out").read_text())[2] == [0, "2\n"]
