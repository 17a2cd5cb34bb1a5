"""What the pages of the reference list is what the program has: options, defaults, fields of files, links, pictures."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import h5py
import pytest

from sqd_mpi.files import records
from sqd_mpi.files.summary import Summary
from sqd_mpi.loop.options import LoopOptions
from sqd_mpi.options import SolveOptions
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
COMMAND_LINE = (DOCS / "command_line.md").read_text(encoding="utf-8")


def reference() -> Any:
    """The module that makes the generated pages."""
    specification = importlib.util.spec_from_file_location("reference", DOCS / "site" / "reference.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


PARSERS = {" ".join(names): parser for names, parser in reference().verbs()}


def options_of(verb: str) -> set[str]:
    """Longest spelling of every option of a verb; of -o the short one, as pages write it."""
    found = set()
    for action in reference().options(PARSERS[verb]):
        if action.option_strings:
            found.add("-o" if "-o" in action.option_strings else action.option_strings[-1])
    return found


def section(verb: str) -> str:
    """The section of command_line.md on a verb."""
    return COMMAND_LINE.split(f"\n## {verb}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the table rows of a text that begin with an option."""
    lines = [line for line in text.splitlines() if re.match(r"\| `-", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("verb", PARSERS)
def test_a_section_names_the_options_of_its_verb(verb: str) -> None:
    text = section(verb)
    if verb == "extrapolate":  # its options stand in better_energies.md
        text += (DOCS / "better_energies.md").read_text(encoding="utf-8").split("## Extrapolation")[1].split("\n## ")[0]
    # those of `import` stand in the synopsis at the top of the page
    missing = {
        name for name in options_of(verb) if not re.search(rf"{name}\b(?!-)", text + COMMAND_LINE.split("\n## ")[0])
    }
    assert not missing
    listed = {name for row in rows(text) for name in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", row[0])}
    assert listed <= options_of(verb)


@pytest.mark.parametrize("verb", ["run", "sqd"])
def test_the_defaults_are_those_of_the_models(verb: str) -> None:
    model = SolveOptions if verb == "run" else LoopOptions
    seen = 0
    for cells in rows(section(verb)):
        names = [name[2:].replace("-", "_") for name in re.findall(r"--[a-z0-9-]+", cells[0])]
        values = [value.strip() for value in cells[1].split(",")]
        for name, value in zip(names, values, strict=False):
            default = model.model_fields[name].default if name in model.model_fields else None
            if default is not None and default is not False:
                assert value == str(default) or float(value) == default, (name, value, default)
                seen += 1
    assert seen > 5


def test_every_field_of_the_models_stands_in_the_generated_page() -> None:
    page = reference().options_page()
    for verb in PARSERS:
        assert f"\n## {verb}\n" in page
    for name in LoopOptions.model_fields:
        assert f"\n| `{name}` |" in page
    for name in options_of("run"):
        assert re.search(rf"^\| .*`{name}`", page, re.MULTILINE)


def test_every_item_of_a_result_is_described(tmp_path: Path) -> None:
    import numpy as np

    from sqd_mpi.app.run import run_file
    from sqd_mpi.problem import bitstrings
    from tests.support.problems import make_hamiltonian

    hamiltonian = make_hamiltonian(4, (2, 2), seed=1, labels=np.zeros(4, int))
    strings = bitstrings.from_integers([3, 5, 6, 9], 4)
    records.write_input(tmp_path / "input.h5", hamiltonian, strings, strings)
    given = {"save_vector": True, "rdm": "2", "pt2": True, "threads": 1}
    assert run_file(None, str(tmp_path / "input.h5"), str(tmp_path / "result.h5"), given) == 0
    page = (DOCS / "files.md").read_text(encoding="utf-8") + reference().summary_page()
    summary = records.read_summary(tmp_path / "result.h5")
    missing = [name for name in summary if f"`{name}`" not in page and name != "format"]
    for name, value in summary.items():
        if isinstance(value, dict):
            missing += [f"{name}.{inner}" for inner in value if f"`{inner}`" not in page]
    with h5py.File(tmp_path / "result.h5") as file:
        missing += [name for name in file if f"`/{name}" not in page]
        missing += [name for name in file.attrs if f"`{name}`" not in page]
        stored = {*file["summary"], *file["summary"].attrs}
    assert not missing
    of_loops = {"loop_converged", "loop_iterations", "failed_batches", "samples"}
    assert stored == set(Summary.model_fields) - of_loops


def test_links_and_pictures_are_there_and_small() -> None:
    pages = [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "benchmarks/README.md", "slurm/README.md"))]
    missing, used = [], set()
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            path = (page.parent / target).resolve()
            if not re.match(r"https?:", target) and not path.exists() and "generated" not in target:
                missing.append(f"{page.name}: {target}")
            used.add(path)
    assert not missing
    for picture in (DOCS / "pictures").iterdir():
        assert picture in used and picture.stat().st_size < 200_000, picture


def test_two_hyphens_stay_two_hyphens() -> None:
    """Typographic quotes and dashes would make `--json` of the help texts a dash that no shell understands."""
    assert re.search(r"^smartquotes = False\b", (ROOT / "docs/site/conf.py").read_text(), re.MULTILINE)
