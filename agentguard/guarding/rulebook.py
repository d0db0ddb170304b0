"""What a server offers, and how each of it is judged.

A rulebook begins with what the server has when the guard is attached, where every mistake
is refused. It learns again when something comes or goes, or when the policies do: they are
then compiled anew, whole, and a call is judged by one version of them from start to end.
What cannot be learned stays without a rule, and so is denied.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio

from agentguard.adapters.surface import Offer
from agentguard.errors import ConfigurationError, Refusal
from agentguard.guarding.guarded import GuardedFunction, find_guarded, unmappable
from agentguard.guarding.raw import RawTool
from agentguard.live.compiling import Compiling
from agentguard.model import Reason, printable
from agentguard.policy.schemas.offered import Offered, WrittenSchema
from agentguard.policy.schemas.schema import (
    CREDENTIALS,
    GROUPS,
    METHODS,
    OwnType,
    action_of,
    credential_tool,
    method_tool,
)
from agentguard.request import ResourceTemplate
from agentguard.steps.call import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from agentguard.adapters.surface import Registered, Surface
    from agentguard.guarding.raw import Enter
    from agentguard.live.compiling import Terms
    from agentguard.policy.files.source import PolicySet, PolicySource
    from agentguard.policy.schemas.schema import GuardedTool

Unguarded = Literal["deny", "guard"]
"""What becomes of a tool that has no decorator."""

_LOG: Final = logging.getLogger("agentguard")

# A program that renames its tools for ever must not make each change dearer than the one before.
_MOST_GONE: Final = 100
# Each compiles everything: how often what does not fit is looked for among what came at once.
_MOST_COMPILED: Final = 50


def _fix(function: Callable[..., Any] | None) -> str:
    """Return how a tool comes to be guarded, for messages."""
    if function is None:
        return 'attach with unguarded="guard", or put @guard.tool on a function of its name that the server calls'
    return "put @guard.tool below @server.tool()"


def _nobodys() -> None:
    """Stand for a function that no server runs."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """How one thing is judged, as long as the server runs this function for it."""

    function: Callable[..., Any] | None
    rule: Rule
    guarded: GuardedFunction | None = None

    def is_as(self, registered: Registered) -> bool:
        """Return whether the server still says the same of it: a function may come back as another tool."""
        tool = self.rule.tool
        named = tool.name == action_of(OwnType[registered.offer.name], registered.name)
        return named and (registered.offer is not Offer.TOOL or tool.groups == registered.groups)


class Rulebook:
    """The rules of one server.

    Attributes:
        surface: The server.
        methods: How what nobody guards is judged, by method, where policies can say so.
        credentials: How it is judged that a tool gets a credential; None where there are none.
        compiling: Compiles the policies for it.
    """

    def __init__(
        self,
        surface: Surface,
        terms: Terms,
        *,
        functions: list[GuardedFunction],
        enter: Callable[[GuardedFunction, tuple[Any, ...], dict[str, Any]], Awaitable[Any]],
        enter_raw: Enter,
        unguarded: Unguarded = "deny",
        credentials: Collection[str] = (),
    ) -> None:
        self.surface = surface
        self.compiling = Compiling(terms)
        self._functions = functions
        self._wrapped: list[GuardedFunction] = []
        self._enter = enter
        self._enter_raw = enter_raw
        self._unguarded = unguarded
        self._entries: dict[tuple[Offer, str], _Entry] = {}
        self._first: frozenset[tuple[Offer, str]] = frozenset()
        # How often something changed, and how much of that is learned: who comes in between waits.
        self._changes = self._learned = 0
        # The policies that something which is there did not fit: others may.
        self._unfit: PolicySource | None = None
        self._learning = anyio.Lock()
        self.methods: Mapping[str, Rule] = {method: Rule(tool=method_tool(method, surface.name)) for method in METHODS}
        template = ResourceTemplate(type="Credential", argument="credential")
        # Which credential it is, and for which tool, are names of the server's own, and no secrets.
        self.credentials: Rule | None = None
        if credentials:
            tool = credential_tool(surface.name, credentials)
            self.credentials = Rule(tool=tool, resource=template, record_inputs=("credential", "tool"))

    def begin(self) -> tuple[PolicySet, PolicySet | None]:
        """Learn what the server offers now; return what judges it, and what does in the shadow.

        Raises:
            ConfigurationError: If something is guarded, but not from where it should be.
            PolicyError: If the policies do not fit it.
        """
        entries = {
            (one.offer, one.key): entry for one in self.surface.registered() if (entry := self._settle(one)) is not None
        }
        policies = self.compiling.begin(self._tools(entries))
        self._entries, self._first = entries, frozenset(entries)
        self.surface.watch(self._change)
        return policies

    async def offered(self) -> WrittenSchema:
        """Return all that the server offers and policies are compiled with, whether or not they fit.

        Raises:
            ConfigurationError: If something is guarded, but not from where it should be.
        """
        found = {(one.offer, one.key): one for one in self.surface.registered()}
        # What is mounted or proxied comes after what is there at once, as a guard learns it.
        for one in await self.surface.discover():
            found.setdefault((one.offer, one.key), one)
        offers = [
            Offered(tool=entry.rule.tool, resource=entry.rule.resource, annotated=one.annotated)
            for one in found.values()
            if (entry := self._settle(one)) is not None
        ]
        offers += [Offered(tool=rule.tool, resource=rule.resource) for rule in self._own()]
        return WrittenSchema(
            server=self.surface.name,
            offers=tuple(offers),
            loaders=self.compiling.terms.loaders.types,
            claims=self.compiling.terms.claims,
        )

    async def refresh(self) -> None:
        """Learn what came since, if anything did, and what other policies may fit by now."""
        if self._is_learned(self._changes):
            return
        async with self._learning:
            # Before, so that what comes while we wait is not overlooked.
            changes = self._changes
            if self._is_learned(changes):
                return
            await self._learn_anew()
            # After, since whoever asked may have been cancelled: then the next one asks.
            self._learned = changes

    def _is_learned(self, changes: int) -> bool:
        unfit = self._unfit
        return self._learned == changes and (unfit is None or unfit is self.compiling.terms.source)

    async def _learn_anew(self) -> None:
        offered = await self.surface.discover()
        self._forget(offered)
        fresh: dict[tuple[Offer, str], _Entry] = {}
        for one in offered:
            known = self._entries.get((one.offer, one.key))
            if known is not None and known.function is one.function:
                if known.is_as(one):
                    continue
                # It is judged by what it says of itself now, or not at all.
                self._entries[one.offer, one.key] = replace(known, function=_nobodys)
                if known.guarded is not None:
                    known.guarded.rule = None
            try:
                entry = self._settle(one)
            except ConfigurationError as error:
                why = printable(f"`{one.key}` stays without a rule, every use of it is denied: {error}")
                _LOG.error("%s", why)
                continue
            if entry is not None:
                fresh[one.offer, one.key] = entry
        try:
            unfit = self._learn_most(fresh)
        finally:
            for key, entry in fresh.items():
                if entry.guarded is not None and self._entries.get(key) is not entry:
                    # It must not be judged by the rule of another of its name, and may be learned later.
                    entry.guarded.rule = None
        self._unfit = unfit

    def rule(self, offer: Offer, named: str) -> Rule | None:
        """Return the rule of what a caller names, if the server still runs the function that was guarded."""
        return self.rule_of(offer, self.surface.key(offer, named))

    def rule_of(self, offer: Offer, key: str) -> Rule | None:
        """Return the rule of what the server lists under *key*, if it still runs the function that was guarded."""
        entry = self._entries.get((offer, key))
        # By identity: the name alone is fooled by removing a tool and adding another.
        if entry is None or self.surface.running(offer, key) is not entry.function:
            return None
        return entry.rule

    def why_not(self, offer: Offer, key: str) -> Refusal:
        """Return why nothing is guarded under a name. The log alone tells the cases apart."""
        why = "nothing of this name is guarded"
        if self.surface.knows(offer, key):
            why = f"tool `{printable(key)}` is not guarded: {_fix(self.surface.running(offer, key))}"
        return Refusal(Reason.UNGUARDED, why)

    def _change(self) -> None:
        self._changes += 1

    def _forget(self, offered: list[Registered]) -> None:
        """Forget what came and went, but for the newest of it: a grant may name that still."""
        there = self._first.union((one.offer, one.key) for one in offered)
        gone = [key for key in self._entries if key not in there]
        for key in gone[:-_MOST_GONE]:
            entry = self._entries.pop(key)
            if entry.guarded is not None:
                # It may come back.
                entry.guarded.rule = None

    def _learn_most(self, fresh: Mapping[tuple[Offer, str], _Entry]) -> PolicySource | None:
        """Learn all at once; if that fails, halve it until what does not fit is alone, and return what it does not."""
        parts, compiled = [list(fresh)] if fresh else [], 0
        unfit = None
        while parts:
            keys = parts.pop()
            compiled += 1
            source = self.compiling.terms.source
            error = self._learn({key: fresh[key] for key in keys})
            if error is None:
                continue
            if len(keys) > 1 and compiled < _MOST_COMPILED:
                half = len(keys) // 2
                parts += [keys[half:], keys[:half]]
                continue
            unfit = source
            names = printable(", ".join(f"`{key}`" for _, key in keys))
            _LOG.error("%s stays without a rule, every use of it is denied: %s", names, error)
        return unfit

    def _learn(self, fresh: Mapping[tuple[Offer, str], _Entry]) -> Exception | None:
        """Learn *fresh*, or return why that cannot be."""
        entries = {**self._entries, **fresh}

        def taken() -> None:
            self._entries = entries

        return self.compiling.learn(self._tools(entries), taken)

    def _tools(self, entries: Mapping[tuple[Offer, str], _Entry]) -> list[GuardedTool]:
        return [entry.rule.tool for entry in entries.values()] + [rule.tool for rule in self._own()]

    def _own(self) -> list[Rule]:
        """Return how is judged what no function stands for."""
        return [*self.methods.values(), *(() if self.credentials is None else (self.credentials,))]

    def _settle(self, registered: Registered) -> _Entry | None:
        """Return how something is judged, or None if nothing guards it.

        Raises:
            ConfigurationError: If it is guarded, but not from where it should be.
        """
        if isinstance(registered.function, RawTool):
            # It is there from an attempt that failed, or it says something else of itself by now.
            known = _Entry(registered.function, registered.function.rule)
            return known if known.is_as(registered) else self._wrap_raw(registered)
        guarded = find_guarded(self._functions, registered)
        if guarded is None:
            guarded = next((one for one in self._wrapped if one.wrapper is registered.function), None)
        if guarded is not None:
            return _Entry(registered.function, guarded.settle(registered, self.surface.name), guarded)
        if self._unguarded == "guard" and registered.offer is Offer.TOOL:
            return self._wrap(registered)
        if registered.offer is Offer.TOOL:
            name, fix = printable(registered.key), _fix(registered.function)
            _LOG.warning("tool `%s` is not guarded, every call to it is denied: %s", name, fix)
        return None

    def _wrap(self, registered: Registered) -> _Entry | None:
        """Guard a tool whose code one cannot touch."""
        if registered.name in GROUPS or registered.name in METHODS or registered.name == CREDENTIALS:
            # Nobody here can rename it, and the server's other tools are none the worse for it.
            why = "it has the name of a group of actions, or of one of the guard's own"
            _LOG.warning("tool `%s` cannot be guarded, every call to it is denied: %s", registered.name, why)
            return None
        function = registered.function
        if function is None:
            return self._wrap_raw(registered)
        try:
            hidden = unmappable(function, where=registered.name)
            guarded = GuardedFunction.wrap(function, self._enter, resource=None, facts=None, exclude=frozenset(hidden))
            rule = guarded.settle(replace(registered, function=guarded.wrapper), self.surface.name)
        except ConfigurationError as error:
            why = printable(f"tool `{registered.key}` cannot be guarded, every call to it is denied: {error}")
            _LOG.warning("%s", why)
            return None
        for name in hidden:
            _LOG.warning("policies do not see argument `%s` of tool `%s`: %s", name, registered.key, hidden[name])
        # Apart from the decorated ones: one bare function may be several tools, which nobody has to mend.
        self._wrapped.append(guarded)
        self.surface.put(registered, guarded.wrapper)
        return _Entry(guarded.wrapper, rule, guarded)

    def _wrap_raw(self, registered: Registered) -> _Entry | None:
        """Guard a tool that has no function within reach."""
        try:
            tool = RawTool.of(registered, server=self.surface.name, enter=self._enter_raw)
        except ConfigurationError as error:
            _LOG.warning("a tool cannot be guarded, every call to it is denied: %s", error)
            return None
        for name, why in tool.unseen.items():
            _LOG.warning("policies do not see argument `%s` of tool `%s`: %s", ascii(name)[1:-1], registered.key, why)
        self.surface.put(registered, tool)
        return _Entry(tool, tool.rule)
