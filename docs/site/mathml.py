"""Formulas as MathML, which browsers draw themselves: no script, no font and no network is needed."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: nodes.Element, display: bool) -> str:
    """Returns the MathML of a formula; a formula that cannot be read is a warning, and stays as text."""
    text = node.astext().strip()
    if display and r"\\" in text and r"\begin" not in text:
        text = r"\begin{align*}" + text + r"\end{align*}"
    try:
        tree = latex2mathml.tex2mathml(text, as_block=display)
    except MathError as error:
        logger.warning("formula %r: %s", text, error, location=node)
        return f"<code>{nodes.unescape(text)}</code>"
    return str(tree)


def visit_math(self: Any, node: nodes.Element) -> None:
    """Writes a formula in a line."""
    self.body.append(mathml(node, display=False))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.Element) -> None:
    """Writes a formula of its own."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(mathml(node, display=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the writer of formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
