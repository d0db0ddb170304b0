"""Cedar schema text for people: one member on a line, and on one line what fits there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from agentguard.policy.text.annotations import CHOICE, joined

if TYPE_CHECKING:
    from agentguard.policy.schemas.types import CedarType, Member

WIDTH: Final = 100
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What Cedar takes as a name only in quotes.
_WORDS: Final = frozenset(("in", "is", "has", "like", "if", "then", "else", "true", "false"))
_INDENT: Final = "  "
_LONGEST: Final = 64


def literal(text: str) -> str:
    """Return *text* as a string of Cedar's, readable where it can be."""
    escaped = (c if c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in text)
    return f'"{"".join(escaped)}"'


def label(name: str) -> str:
    """Return the name of a member, in quotes where it has to be."""
    return name if _NAME.fullmatch(name) and name not in _WORDS else literal(name)


def identifier(text: str, ending: str, taken: set[str]) -> str:
    """Return a name for a type that is not *taken*, which it is from then on."""
    base = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in text[:_LONGEST])
    base = f"_{base}" if base[:1].isdigit() else base
    name, number = f"{base}{ending}", 1
    while name in taken:
        number += 1
        name = f"{base}{ending}{number}"
    taken.add(name)
    return name


def type_text(type_: CedarType, before: str, after: str) -> str:
    """Return a type, with what stands before and after it on its line.

    Args:
        type_: The type. A common type is one of its name.
        before: What its first line begins with, indentation included.
        after: What its last line ends with.
    """
    return "\n".join(_lines(type_, before, after))


def _lines(type_: CedarType, before: str, after: str) -> list[str]:
    flat = f"{before}{_flat(type_)}{after}"
    if len(flat) <= WIDTH:
        return [flat]
    if type_.element is not None:
        return _lines(type_.element, f"{before}Set<", f">{after}")
    if not type_.members:
        return [flat]
    indent = before[: len(before) - len(before.lstrip())]
    inner = [line for name in type_.members for line in _member_lines(name, type_.members[name], indent + _INDENT)]
    return [f"{before}{{", *inner, f"{indent}}}{after}"]


def _member_lines(name: str, member: Member, indent: str) -> list[str]:
    said, head = _annotations(member.type), _head(name, member)
    if said and len(f"{indent}{said} {head}{_flat(member.type)},") > WIDTH:
        return [f"{indent}{said}", *_lines(member.type, f"{indent}{head}", ",")]
    return _lines(member.type, f"{indent}{said}{' ' if said else ''}{head}", ",")


def _head(name: str, member: Member) -> str:
    return f"{label(name)}{'' if member.required else '?'}: "


def _flat(type_: CedarType) -> str:
    if type_.element is not None:
        return f"Set<{_flat(type_.element)}>"
    if type_.name != "Record":
        return type_.name
    members = (
        f"{_annotations(member.type)} {_head(name, member)}{_flat(member.type)}".lstrip()
        for name, member in type_.members.items()
    )
    return f"{{ {', '.join(members)} }}" if type_.members else "{}"


def _annotations(type_: CedarType) -> str:
    """Return what lists the values of a member, or of what its sets hold, and says which total it adds to."""
    spends = f"@spends({literal(type_.spends)})" if type_.spends else ""
    while type_.element is not None:
        type_ = type_.element
    one_of = f"@one_of({literal(joined(type_.one_of, CHOICE))})" if type_.one_of else ""
    return f"{one_of} {spends}".strip()
