"""What a guard needs to know of a server, whichever framework made it.

A surface is one server as its framework shows it: what it offers, which function would
run, and the place where every message passes. The judging itself is in `adapters.mcp`,
once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from mcp.server.context import ServerMiddleware, ServerRequestContext

    from agentguard.steps.call import Answers

    Context = ServerRequestContext[Any, Any]


class Offer(StrEnum):
    """What a server offers, by the method that uses it."""

    TOOL = "tools/call"
    RESOURCE = "resources/read"
    PROMPT = "prompts/get"

    @property
    def word(self) -> str:
        """What messages call one."""
        return self.name.lower()

    @property
    def decorator(self) -> str:
        """The server's own decorator, for messages."""
        return f"@server.{self.word}({'…' if self is Offer.RESOURCE else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One thing that a server offers, as its framework knows it now.

    Attributes:
        offer: What it is.
        key: What a caller names it by: a tool's or a prompt's name, a resource's URI or
            the template of its URIs.
        name: What policies call it.
        function: What would run; None where only the framework can run it.
        groups: A tool's groups of actions.
        schema: The JSON Schema of its arguments, where there is no function to read them from.
        template: Whether its arguments come from the URI.
        annotated: Whether the server says of a tool what it does.
    """

    offer: Offer
    key: str
    name: str
    function: Callable[..., Any] | None
    groups: frozenset[str] = frozenset()
    schema: Mapping[str, Any] | None = None
    template: bool = False
    annotated: bool = True


class Check(Protocol):
    """Stops what nobody guards, wherever a call of it comes from."""

    async def __call__(self, offer: Offer, named: str | None, /, *, answered: bool = False) -> None:
        """Raise to stop it.

        Args:
            offer: What is called.
            named: What a caller names it by; None for what none has a name for.
            answered: Whether something else gave the answer in its place.

        Raises:
            AccessDenied: It is stopped.
        """


class Surface(Protocol):
    """One server, as its framework shows it."""

    @property
    def name(self) -> str:
        """The server's name."""

    @property
    def middleware(self) -> list[ServerMiddleware[Any]]:
        """Where every message passes, outermost first."""

    @property
    def answers(self) -> Answers:
        """How the framework is told of a denial."""

    def registered(self) -> list[Registered]:
        """Return all that the server offers now, as far as it can be told without waiting."""

    async def discover(self) -> list[Registered]:
        """Return all that the server offers now, what is mounted or proxied included."""

    def key(self, offer: Offer, named: str) -> str:
        """Return the key of what a caller names: of a URI, the template that the framework would take for it."""

    def running(self, offer: Offer, key: str) -> Callable[..., Any] | None:
        """Return the function that would run now: a name alone is fooled by removing and adding."""

    def knows(self, offer: Offer, key: str) -> bool:
        """Return whether the server has something of this key now."""

    def absent(self, offer: Offer, named: str) -> Exception:
        """Return what the framework raises for a resource or prompt that it does not have."""

    def put(self, registered: Registered, wrapper: Callable[..., Any]) -> None:
        """Let *wrapper* run in place of the function of *registered*.

        Where there is no function, it is a `RawTool`: it has the raw arguments, and what
        would run with them.
        """

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever something is added or removed from now on."""

    def stop_unguarded(self, check: Check) -> None:
        """Await *check* before anything of the server runs, from inside the process too; it raises to stop it."""

    def when_mounted(self, within: Callable[[Context], AbstractContextManager[None]]) -> None:
        """Enter *within* around what another server, which this one is mounted in, lets this one run."""

    def app_hook(self, wrap: Callable[[Any], Any]) -> None:
        """Let *wrap* have every ASGI application that the server makes from now on."""
