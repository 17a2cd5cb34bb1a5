"""Pieces of HTML: everything that is not made here is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

_EMPTY_TAGS = ("meta", "br", "hr")
# Characters that HTML forbids; names of files may hold any.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already."""


def escaped(value: Any) -> Markup:
    """Returns a value as HTML: markup as it is, everything else as text."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", str(value))))


def joined(parts: Iterable[Any]) -> Markup:
    """Returns parts behind each other; None is left out."""
    return Markup("".join(escaped(part) for part in parts if part is not None))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Returns an element.

    Args:
        name: of the element.
        children: markup, or text, which is escaped; None is left out.
        attributes: their values are escaped; a trailing underscore of a name is left out (`class_`), others become
            hyphens, and None leaves the attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _EMPTY_TAGS else f"</{name}>"
    return Markup(f"<{name}{written}>{joined(children)}{end}")


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    numeric: bool = True,
    caption: str | None = None,
    cards: bool = False,
) -> Markup:
    """Returns a table that scrolls sideways where it is too wide; the first column names the rows.

    Args:
        head: names of the columns.
        rows: their cells, text or markup.
        numeric: whether all columns but the first hold numbers, which stand at the right.
        caption: what the table shows.
        cards: whether narrow screens show a row as names and values below each other, instead of scrolling.
    """
    kind, names = "number" if numeric else None, [*head[1:]]
    header = tag("tr", *(tag("th", name, scope="col", class_=kind if k else None) for k, name in enumerate(head)))
    lines = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            *(tag("td", cell, class_=kind, data_name=names[k] if cards else None) for k, cell in enumerate(rest)),
        )
        for first, *rest in rows
    ]
    content = (tag("caption", caption) if caption else None, tag("thead", header), tag("tbody", *lines))
    return tag(
        "div", tag("table", *content, class_="cards" if cards else None), class_="scroll", tabindex="0", role="region",
        aria_label=caption or head[0],
    )  # fmt: skip


def pairs(rows: Iterable[tuple[Any, Any]]) -> Markup:
    """Returns names and values below each other."""
    return tag("dl", *(joined((tag("dt", name), tag("dd", value))) for name, value in rows))


def picture(svg: str, caption: str) -> Markup:
    """Returns a drawing with what it shows, also for those who cannot see it."""
    inside = Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escaped(caption)}" ', 1))
    return tag("figure", inside, tag("figcaption", caption))


def section(title: str, *children: Any) -> Markup | None:
    """Returns a part of the page with its title, or None if there is nothing in it."""
    found = [child for child in children if child is not None]
    if not found:
        return None
    name = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
    return tag("section", tag("h2", title, id=name), *found, aria_labelledby=name)


def fold(title: str, *children: Any) -> Markup:
    """Returns what is shown when its title is clicked."""
    return tag("details", tag("summary", title), *children)
