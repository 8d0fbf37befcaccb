"""Elements of a page.  What is not markup already is escaped, so that nothing that stands in a record can become any.

Knows HTML and SVG.  Knows nothing of mail.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from imapgate.audit.sentence import printable

_VOID = frozenset(("meta", "br", "wbr"))

_BREAKS = re.compile(r"(?<=[@/,:_-])(?=\w)")
"""Where a long name may go on in the next line."""

_WORD_MOST = 24
"""Characters that are never broken."""


class Markup(str):
    """Text that is markup; everything else is only text."""

    __slots__ = ()


Child = str | int | float


def escaped(child: Child) -> str:
    """A piece of a page: markup as it is, text escaped and with nothing invisible in it."""
    return child if isinstance(child, Markup) else escape(printable(child))


def together(children: Iterable[Child]) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(map(escaped, children)))


def element(tag: str, *children: Child, **attributes: Child | None) -> Markup:
    """One element; ``class_`` is its class, ``fill_opacity`` its ``fill-opacity``; one that is None is left out."""
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(printable(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{together(children)}</{tag}>")


def worded(text: str) -> Markup:
    """Text that is broken, where it must be, behind a sign; a word that is far too long anywhere."""
    words = printable(text).split(" ")
    broken = [element("wbr").join(escape(piece) for piece in _BREAKS.split(word)) for word in words]
    class_ = "long" if any(len(piece) > _WORD_MOST for word in words for piece in _BREAKS.split(word)) else None
    return element("span", Markup(" ".join(broken)), class_=class_)


def amount(number: int) -> Markup:
    """A number; nothing, less loud."""
    return Markup(f"{number:,}") if number else element("span", "0", class_="less")


def table(heads: Iterable[Child], rows: Iterable[Iterable[Child]], numbers: Iterable[int] = ()) -> Markup:
    """A table; the columns with these indices hold numbers."""
    right = frozenset(numbers)

    def cells(tag: str, row: Iterable[Child], **attributes: str) -> Markup:
        return element(
            "tr",
            *(
                element(
                    tag,
                    cell if isinstance(cell, Markup) or index in right else worded(str(cell)),
                    class_="number" if index in right else None,
                    **attributes,
                )
                for index, cell in enumerate(row)
            ),
        )

    body = [cells("td", row) for row in rows]
    head = element("thead", cells("th", heads, scope="col"))
    return element("div", element("table", head, element("tbody", *body)), class_="table")
