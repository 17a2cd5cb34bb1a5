"""The macros of `page.html`: they take texts, which they escape, and give markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqd_mpi.errors import InputError

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
except ImportError:
    raise InputError("the page needs Jinja2; install it with: pip install 'sqd_mpi[report]'") from None

_environment = Environment(
    autoescape=True, loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, undefined=StrictUndefined
)
macros: Any = _environment.get_template("page.html").module
