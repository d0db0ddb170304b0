"""Lists that show what the caller might be allowed with some argument.

What the framework lists is taken as it comes, page by page, and what the caller can never
use is left out: a call of that is answered as if there were no such thing. So is a tool
that nobody guards. What is left is for this caller alone, so no cache may share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_types import CacheableResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from agentguard.adapters.answers import protocol_denial
from agentguard.adapters.surface import Offer
from agentguard.steps.call import Denial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server.context import CallNext, HandlerResult

    from agentguard.adapters.changes import Changes
    from agentguard.adapters.mcp import Handler
    from agentguard.adapters.surface import Context
    from agentguard.enforce import Enforcer
    from agentguard.guarding.rulebook import Rulebook
    from agentguard.model import Invocation
    from agentguard.steps.call import Call


class _List(NamedTuple):
    """One method that lists: what, under which name in its result, and how each of it is named."""

    offer: Offer
    entries: str
    key: str


LISTS: Final[Mapping[str, _List]] = {
    "tools/list": _List(Offer.TOOL, "tools", "name"),
    "resources/list": _List(Offer.RESOURCE, "resources", "uri"),
    "resources/templates/list": _List(Offer.RESOURCE, "resourceTemplates", "uriTemplate"),
    "prompts/list": _List(Offer.PROMPT, "prompts", "name"),
}


class Listing:
    """How the methods that list are answered.

    Attributes:
        handlers: The handler of each, by the method.
    """

    def __init__(
        self, book: Rulebook, enforcer: Enforcer, changes: Changes, is_nobodys: Callable[[Context], bool]
    ) -> None:
        """Set it up.

        Args:
            book: How each entry is judged.
            enforcer: Who judges.
            changes: Who is told when a list changes.
            is_nobodys: Tells whether a message was to name a run, and names none.
        """
        self._is_nobodys = is_nobodys
        self._book = book
        self._enforcer = enforcer
        self._changes = changes
        self.handlers: Mapping[str, Handler] = dict.fromkeys(LISTS, self._list)

    async def _list(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        if self._is_nobodys(ctx):
            # Clients list by themselves, to learn the form of a result, and name nobody when
            # they do: an error would take the place of that result. Nobody may use nothing.
            return self._shown(ctx, wire(await call_next(ctx)), frozenset())

        async def shown(invocation: Invocation) -> dict[str, Any]:
            # Before it is made: what changes meanwhile is to be told too.
            self._changes.listed(ctx, invocation)
            listed = wire(await call_next(ctx))
            # What is proxied may have shown only now what it has.
            await self._book.refresh()
            return self._shown(ctx, listed, await self._enforcer.preview(call, ctx.method))

        # What the handler calls in turn is nested in it.
        call.depth += 1
        try:
            return await self._enforcer.attend(call, ctx.method, shown)
        except Denial as denial:
            raise protocol_denial(denial.decision) from None

    def _shown(self, ctx: Context, listed: dict[str, Any], actions: frozenset[str]) -> dict[str, Any]:
        offer, entries, key = LISTS[ctx.method]
        found = listed.get(entries)
        listed[entries] = [
            entry
            for entry in (found if isinstance(found, list) else [])
            if isinstance(entry, dict) and self._may(offer, entry.get(key), actions)
        ]
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            # Who asks next may be somebody else.
            listed["cacheScope"] = "private"
        return listed

    def _may(self, offer: Offer, named: object, actions: frozenset[str]) -> bool:
        """Return whether the caller might be allowed one entry; one without a proper name is nothing."""
        if not isinstance(named, str):
            return False
        # By its key: a list has the newest version of each, whichever the message asks for.
        rule = self._book.rule_of(offer, named) or self._book.methods.get(offer)
        return rule is not None and rule.tool.name in actions


def wire(result: HandlerResult) -> dict[str, Any]:
    """Return a result as it goes to the client, a copy."""
    if isinstance(result, BaseModel):
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dict(result or {})


def is_kept(result: HandlerResult) -> bool:
    """Return whether a cache may keep a result."""
    return isinstance(result, CacheableResult) or (
        isinstance(result, dict) and ("cacheScope" in result or "ttlMs" in result)
    )


def unshared(result: HandlerResult, seconds: float) -> dict[str, Any]:
    """Return a result that no cache may give to another caller, nor to anybody when the run is over.

    Args:
        result: What the server's author wished.
        seconds: How much longer the caller has its authority.
    """
    own = wire(result)
    wished, left = own.get("ttlMs"), max(0, int(seconds * 1_000))
    return {**own, "cacheScope": "private", "ttlMs": min(wished, left) if type(wished) is int else 0}
