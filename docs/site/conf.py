"""Settings of the documentation; `make docs` builds it from the whole repository, so that links work as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import reference  # noqa: E402

import sqd_mpi  # noqa: E402

project = "sqd_mpi"
author = "the authors of sqd_mpi"
release = version = sqd_mpi.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/decisions/*.md",
    "docs/generated/*.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/*/README.md",
    "benchmarks/README.md",
    "slurm/README.md",
]
exclude_patterns = [".git", ".venv", "build", "sqd_mpi", "tests"]
nitpicky = True
# Annotations name types of other libraries, and of modules that no page describes.
nitpick_ignore_regex = [("py:class", r".*"), ("py:(data|obj)", r"(?!sqd_mpi\.).*")]

myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
highlight_language = "none"
html_math_renderer = "mathml"
math_number_all = False

default_role = "code"
smartquotes = False  # two hyphens begin an option, and quotes of commands are typed
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "FloatArray", "IntArray", "Strings", "IntegerStrings")}
maximum_signature_line_length = 100
autodoc_mock_imports = reference.missing("mpi4py", "qiskit_addon_sqd", "qiskit")
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"sqd_mpi {release}"
html_static_path = ["static"]
html_css_files = ["sqd_mpi.css"]
html_extra_path = ["root"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False


def escape(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Lets a bar in a docstring be a bar; docutils would take two of them for a substitution."""
    lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def shorten(app: Sphinx, what: str, name: str, thing: object, options: object, *signature: str | None) -> object:
    """Writes numpy's types as the source does."""
    found = [
        re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[([\w.]+)\]\]", r"NDArray[\1]", text or "") for text in signature
    ]
    return tuple(text or None for text in found)


def setup(app: Sphinx) -> None:
    """Writes the generated pages before anything is read."""
    app.connect("builder-inited", lambda app: reference.write_pages(ROOT / "docs" / "generated"))
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", shorten)
