"""In what a server's offer differs from the one that was written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from agentguard.policy.files.written import Offered, WrittenSchema

_ALWAYS: Final = "tools/call"


def changes(before: WrittenSchema, now: WrittenSchema) -> list[str]:
    """Return each thing that came, went or changed, in one line."""
    return list(_changes(before, now))


def _changes(before: WrittenSchema, now: WrittenSchema) -> Iterator[str]:
    old = {offered.tool.name: offered for offered in before.offers}
    new = {offered.tool.name: offered for offered in now.offers}
    if before.server != now.server:
        yield f"the server is called `{printable(now.server)}`, and was `{printable(before.server)}`"
    for name, offered in new.items():
        if name not in old:
            yield f"added {_called(offered)}"
        elif what := ", ".join(_differences(old[name], offered)):
            yield f"changed {_called(offered)}: {what}"
    for name, offered in old.items():
        if name not in new:
            yield f"removed {_called(offered)}"
    yield from _came_and_went("loader of", before.loaders, now.loaders)
    yield from _came_and_went("claim", before.claims.keys(), now.claims.keys())
    for claim, kind in now.claims.items():
        if before.claims.get(claim, kind) is not kind:
            yield f"changed claim `{printable(claim)}`: it is {kind.__name__}, and was {before.claims[claim].__name__}"
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield "the tools come in another order"


def _came_and_went(what: str, before: AbstractSet[str], now: AbstractSet[str]) -> Iterator[str]:
    yield from (f"added {what} `{printable(name)}`" for name in sorted(now - before))
    yield from (f"removed {what} `{printable(name)}`" for name in sorted(before - now))


def _called(offered: Offered) -> str:
    return f"{offered.tool.kind.word} `{printable(offered.tool.itself.id)}`"


def _differences(before: Offered, now: Offered) -> Iterator[str]:
    old, new = before.tool, now.tool
    were, are = ({part.name: part for part in tool.input.parts} for tool in (old, new))
    yield from (f"argument `{printable(name)}` is new" for name in are if name not in were)
    yield from (f"argument `{printable(name)}` is gone" for name in were if name not in are)
    for name, part in are.items():
        if name in were and (part.shape, part.optional) != (were[name].shape, were[name].optional):
            yield f"argument `{printable(name)}`"
    if old.facts != new.facts:
        yield "facts"
    if str(before.resource) != str(now.resource) or old.resource_type != new.resource_type:
        yield f"it acts on {acts_on(now)}, and did on {acts_on(before)}"
    if old.unseen != new.unseen:
        yield "what policies do not see of it"
    if old.groups != new.groups or before.annotated is not now.annotated:
        yield f"it is {what_it_is(now)}, and was {what_it_is(before)}"


def acts_on(offered: Offered) -> str:
    """Return what something acts on, in words."""
    if offered.resource is not None:
        return printable(str(offered.resource))
    return offered.tool.resource_type or "itself"


def what_it_is(offered: Offered) -> str:
    """Return what the server says that a tool does, in words; empty for what is no tool."""
    groups = offered.tool.groups
    if _ALWAYS not in groups:
        return ""
    if not offered.annotated:
        return "not annotated: destructive, open-world"
    return ", ".join(sorted(groups - {_ALWAYS})) or "an additive change"
