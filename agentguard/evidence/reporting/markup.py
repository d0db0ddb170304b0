"""Elements of a page, built so that no text in them can become anything but text.

There is one way to make markup, `element`: its texts and values are escaped, its names
are those of a closed list, and what could run or fetch something has no name there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final, TypeAlias

from agentguard.evidence.kept import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TAGS: Final = {
    "a", "b", "body", "br", "caption", "code", "data", "dd", "defs", "details", "div", "dl", "dt", "footer", "h1", "h2",
    "head", "header", "html", "li", "line", "main", "meta", "ol", "p", "path", "rect", "section", "small", "span",
    "strong", "summary", "svg", "table", "tbody", "td", "text", "th", "thead", "time", "title", "tr", "ul", "use",
}  # fmt: skip
_EMPTY: Final = {"br", "meta"}
_ATTRIBUTES: Final = {
    "aria-hidden", "aria-label", "charset", "class", "content", "d", "datetime", "height", "href", "http-equiv", "id",
    "lang", "name", "open", "role", "rx", "scope", "tabindex", "text-anchor", "value", "width", "x", "x1", "x2", "y",
    "y1", "y2",
}  # fmt: skip
_SHOWN_CHARACTERS: Final = 512
_FRAGMENT: Final = re.compile("#[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is markup already, made here alone."""

    text: str


Child: TypeAlias = "Markup | str | int | Iterable[Child] | None"


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return one element.

    Args:
        name: Its name.
        children: What stands in it: text, elements, or several of either; None is nothing.
        attributes: Its attributes; ``class_`` is ``class``, and ``_`` stands for ``-``.
            None and False leave one out.

    Raises:
        ValueError: A name is not of the list, or an address leads out of the page.
    """
    if name not in _TAGS:
        message = f"no element `{name}`"
        raise ValueError(message)
    shown = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _EMPTY:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{''.join(_texts(children))}</{name}>")


def stylesheet(css: str) -> Markup:
    """Return the page's own style sheet.

    Raises:
        ValueError: It would end the element that it stands in.
    """
    if "<" in css:
        message = "a style sheet has no `<`"
        raise ValueError(message)
    return Markup(f"<style>{css}</style>")


def page(*children: Child, lang: str) -> str:
    """Return a whole page."""
    return f"<!doctype html>\n{element('html', *children, lang=lang).text}\n"


def table(caption: str, heads: Sequence[str], rows: Sequence[Markup], *, numbers: int = 0) -> Markup:
    """Return a table that scrolls by itself where it does not fit.

    Args:
        caption: What it shows.
        heads: The names of its columns.
        rows: Its rows.
        numbers: How many of its last columns hold numbers.
    """
    first = len(heads) - numbers
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element(
                "thead",
                element(
                    "tr",
                    [
                        element("th", head, scope="col", class_="n" if place >= first else None)
                        for place, head in enumerate(heads)
                    ],
                ),
            ),
            element("tbody", rows),
        ),
        class_="wide",
        role="region",
        aria_label=caption,
        tabindex="0",
    )


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    if name not in _ATTRIBUTES:
        message = f"no attribute `{name}`"
        raise ValueError(message)
    if name == "href" and not _FRAGMENT.fullmatch(str(value)):
        message = f"no address out of the page, got `{value}`"
        raise ValueError(message)
    return f" {name}" if value is True else f' {name}="{escape(_shown(str(value)))}"'


def _texts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child.text
        elif isinstance(child, str | int):
            yield escape(_shown(str(child)))
        else:
            yield from _texts(child)


def _shown(text: str) -> str:
    return visible(text, _SHOWN_CHARACTERS)
