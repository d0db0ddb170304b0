"""`Guard`: what a developer puts into an MCP server."""

from __future__ import annotations

import logging
import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio.to_thread

from agentguard.adapters.lowlevel import LowLevelSurface
from agentguard.adapters.surface import Offer
from agentguard.adapters.surfaces import surface_of
from agentguard.credentials.broker import names_of
from agentguard.credentials.lending import Lending
from agentguard.errors import ConfigurationError
from agentguard.evidence.delivery.forwarding import read_forwarding
from agentguard.evidence.metrics import Metrics
from agentguard.evidence.spans import Spans
from agentguard.guarding.attaching import Attaching, zone_of
from agentguard.guarding.decorating import Decorator
from agentguard.guarding.doing import Doing
from agentguard.guarding.gate import Gate
from agentguard.guarding.offering import COLLECTING
from agentguard.guarding.rulebook import Rulebook
from agentguard.guarding.trust import http_auth, named_run, own_store, read_verifier
from agentguard.identity.sources import EnvironmentSource
from agentguard.limits import Limits
from agentguard.live.reloading import Reload, open_reloading
from agentguard.policy.deciding.entities import Loaders
from agentguard.policy.files.several import part_for
from agentguard.policy.problem import did_you_mean
from agentguard.state import read_state
from agentguard.steps.asking import channel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mcp_types import CallToolResult, InputRequiredResult, Tool
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from agentguard.adapters.bearer import HttpAuth
    from agentguard.adapters.fastmcp_auth import AuthProvider
    from agentguard.adapters.surfaces import AnyServer
    from agentguard.approval import Approver
    from agentguard.credentials.broker import CredentialBroker
    from agentguard.enforce import Enforcer
    from agentguard.errors import Refusal
    from agentguard.evidence.trail import Trail
    from agentguard.guarding.guarded import GuardedFunction
    from agentguard.guarding.rulebook import Unguarded
    from agentguard.identity.issuers import TrustedIssuer
    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.lifecycle.local import UnsafeLocalIssuer
    from agentguard.state import State
    from agentguard.steps.call import Call

LoaderT = TypeVar("LoaderT", bound="Callable[[str], object]")

_LOG: Final = logging.getLogger("agentguard")


class Guard(Doing):
    """Judges each tool call of one server by Cedar policies, for the run that makes it.

    The short form names the issuer; its keys are found through its metadata:

        guard = Guard(HERE / "policies", issuer="https://issuer.example",
                      audience="https://records.example/mcp", state=HERE / "state")

    Attributes:
        state: The store and the ledger, for ending runs and reading evidence.
    """

    def __init__(
        self,
        policies: str | os.PathLike[str],
        *,
        issuer: str | TrustedIssuer | UnsafeLocalIssuer | None = None,
        audience: str | None = None,
        verifier: InvocationVerifier | None = None,
        state: State | str | os.PathLike[str] | None = None,
        environment: str = "production",
        time_zone: str = "UTC",
        label: str | None = None,
        approver: Approver | None = None,
        broker: CredentialBroker | None = None,
        forward: str | bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        clock: Callable[[], float] = time.time,
        watch: bool = False,
        shadow: str | os.PathLike[str] | None = None,
        max_policy_age: float | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Set up a guard.

        Args:
            policies: The folder of ``.cedar`` files.
            issuer: Whose tokens to believe: the short form of *verifier*. A URL, whose keys are
                found through its metadata, or a `TrustedIssuer`; or `UnsafeLocalIssuer()`.
            audience: What a token over HTTP must be for: this server's canonical URI.
            verifier: Whose tokens to believe, in full.
            state: Where the ends of runs and the evidence are kept: a folder, made if it is
                not there, or a `State`.
            environment: ``context.environment``.
            time_zone: The IANA name of the zone of ``context.local``.
            label: A name for people, beside the policies' version.
            approver: Who is asked about a call that a person has to approve, in place of whoever
                sits at the caller's own client: an async callable, or an `HTTPApprover`.
            broker: What gives tools their credentials for other systems, such as a `TokenExchangeBroker`.
            forward: Where this process ships its evidence as spans: an OTLP endpoint such as
                ``http://collector:4318/v1/traces`` or ``grpc://collector:4317``; True where
                ``agentguard evidence forward`` does it. The guard's spans come from there alone.
            tracer_provider: For spans; None for the process's own.
            meter_provider: For metrics; None for the process's own.
            clock: Gives unix seconds.
            watch: Whether changes of the folder go live by themselves, once they arrived whole.
            shadow: A folder of other policies. They decide nothing: where they would have decided
                otherwise, the evidence says so.
            max_policy_age: For how many seconds the policies in force may judge without being known
                to be those of the folder; from then on every call is denied. None for ever.
            limits: The bounds.

        Raises:
            ConfigurationError: With what to change.
            PolicyError: If a folder cannot be read, holds no policies, or is not what its manifest says.
        """
        self._limits = limits or Limits()
        self._verifier = read_verifier(issuer, audience, verifier, state=state, limits=self._limits, clock=clock)
        zone = zone_of(time_zone)
        self._folder = Path(policies).absolute()
        collected = COLLECTING.get()
        self._reloading = open_reloading(
            self._folder,
            None if shadow is None else Path(shadow).absolute(),
            watch=watch,
            max_age=max_policy_age,
            label=label,
            clock=clock,
            limits=self._limits,
            read=None if collected is None else collected.source,
        )
        channel_of(approver)
        self._credentials = frozenset[str]() if broker is None else names_of(broker)
        self._loaders = Loaders(self._limits)
        self._private: set[str] = set()
        forwarding = read_forwarding(forward)
        backlog = None if forwarding is None else forwarding.backlog
        self._call: ContextVar[Call | None] = ContextVar("agentguard_call", default=None)
        self._given = Attaching(
            verifier=self._verifier,
            loaders=self._loaders,
            limits=self._limits,
            environment=environment,
            zone=zone,
            approver=approver,
            broker=broker,
            spans=Spans(tracer_provider, forwarded=forwarding is not None),
            metrics=Metrics(meter_provider, backlog=backlog, policy_age=self._reloading.age_known),
            clock=clock,
            call=self._call,
        )
        self._functions: list[GuardedFunction] = []
        self._trail: Trail | None = None
        self._gate = Gate(self._call)
        self._enforcer: Enforcer | None = None
        # Last, so that nothing is left open by a guard that could not be made.
        self.state = read_state(state, store=own_store(issuer)) if collected is None else collected.state()
        self._forwarding = None if forwarding is None or collected else forwarding.of(self.state.ledger)

    def http_auth(self, *, resource_url: str | None = None) -> HttpAuth:
        """Return the keyword arguments that let an `MCPServer` take bearer tokens.

        Args:
            resource_url: The server's own address, where the audience is not a URL.

        Raises:
            ConfigurationError: If the guard has no audience, or it is not a URL.
        """
        return http_auth(self._verifier, resource_url, self._refused_token)

    def auth(self, *, resource_url: str | None = None) -> AuthProvider:
        """Return what lets a `FastMCP` server take bearer tokens: ``FastMCP("records", auth=guard.auth())``.

        Args:
            resource_url: The server's own address, where the audience is not a URL.

        Raises:
            ConfigurationError: If the guard has no audience, it is not a URL, or FastMCP is not installed.
        """
        try:
            from agentguard.adapters.fastmcp_auth import auth_provider  # noqa: PLC0415  an extra
        except ImportError:
            message = "auth() is for FastMCP 4, which is not installed: install agentguard[fastmcp]"
            raise ConfigurationError(message) from None
        return auth_provider(**self.http_auth(resource_url=resource_url))

    @property
    def tool(self) -> Decorator:
        """Guard a tool, directly below ``@server.tool()``; its [options][agentguard.guarding.decorating.Decorator].

        The action has the tool's name. Without ``resource=``, a call acts on ``Tool::"name"``.
        """
        return Decorator(Offer.TOOL, self._functions, self._gate.enter)

    @property
    def resource(self) -> Decorator:
        """Guard a resource or a template. Put it directly below ``@server.resource(…)``; options as for `tool`.

        The action is ``resources/read/`` with its name. Without ``resource=``, ``Resource::"name"`` is read.
        """
        return Decorator(Offer.RESOURCE, self._functions, self._gate.enter)

    @property
    def prompt(self) -> Decorator:
        """Guard a prompt. Put it directly below ``@server.prompt()``; options as for `tool`.

        The action is ``prompts/get/`` with its name. Without ``resource=``, ``Prompt::"name"`` is got.
        """
        return Decorator(Offer.PROMPT, self._functions, self._gate.enter)

    def credential(self, name: str) -> Lending:
        """Ask for a credential that the guard's broker gives, short-lived and for this run alone.

        ``crm: Annotated[Credential, guard.credential("crm")]`` is a parameter of a tool that no caller
        sees or gives; ``await guard.credential("crm")`` is the same inside an async tool. Policies decide:
        the action is ``credentials/issue``, on ``Credential::"crm"``.

        Args:
            name: One of the broker's.

        Raises:
            ConfigurationError: If the guard has no broker, or it does not give that.
        """
        if name not in self._credentials:
            known = did_you_mean(name, self._credentials) if self._credentials else "give the guard a broker="
            message = f"there is no credential `{name}`: {known}"
            raise ConfigurationError(message)
        return Lending(name, self._gate.credential)

    def entity(self, entity_type: str, *, private: bool = False) -> Callable[[LoaderT], LoaderT]:
        """Register the loader of an entity type: from an id to an `Entity`.

        Args:
            entity_type: The Cedar type, for example ``"Record"``.
            private: Whether evidence keeps keyed digests in place of its ids.

        Raises:
            ConfigurationError: If the type has a loader already.
        """

        def register(loader: LoaderT) -> LoaderT:
            if self._enforcer is not None:
                message = f"the loader of `{entity_type}` comes too late: register it before guard.attach(server)"
                raise ConfigurationError(message)
            self._loaders.register(entity_type, loader)
            if private:
                self._private.add(entity_type)
            return loader

        return register

    def revoke(self, run_id: str, *, issuer: str | None = None, reason: str = "") -> None:
        """End a run for good: its calls in flight stop, and so do those of the runs below it.

        Args:
            run_id: The run, as evidence names it: with its issuer's alias in front, where
                several are trusted.
            issuer: Who issued it, if that is to be made sure of.
            reason: Why, for whoever asks later.

        Raises:
            ConfigurationError: If no such run can be one of a trusted issuer.
        """
        whose, own_id = named_run(self._verifier, run_id, issuer)
        self.state.store.revoke(issuer=whose, run_id=own_id, reason=reason)

    def attach(
        self,
        server: AnyServer,
        *,
        tools: Iterable[Tool] | None = None,
        identity: Literal["environment", "meta"] = "environment",
        unguarded: Unguarded = "deny",
    ) -> None:
        """Begin to guard *server*. Call it after the last tool.

        Args:
            server: An `MCPServer`, a low-level `Server` or a `FastMCP`.
            tools: What a low-level server's ``on_list_tools`` lists: it keeps no list itself.
            identity: Where a call that did not come over HTTP has its token:
                ``"environment"`` (AGENTGUARD_TOKEN_FILE, else AGENTGUARD_TOKEN) or ``"meta"``.
            unguarded: What becomes of a tool without a decorator: ``"deny"``, or ``"guard"``,
                which judges it as ``Tool::"name"``, for servers whose code one cannot touch.

        Raises:
            ConfigurationError: With what to change.
            PolicyError: If the policies do not fit the server's tools.
        """
        if self._enforcer is not None:
            message = "this guard is attached already: give each server a guard of its own"
            raise ConfigurationError(message)
        surface = surface_of(server, tools=tools, wrappers=self._wrappers)
        self._gate.lowlevel = surface if isinstance(surface, LowLevelSurface) else None
        for option, value, known in (
            ("identity", identity, ("environment", "meta")),
            ("unguarded", unguarded, ("deny", "guard")),
        ):
            if value not in known:
                message = f"{option}= wants {' or '.join(f'`{one}`' for one in known)}, got `{value}`: choose one"
                raise ConfigurationError(message)
        # Taken in any case: the tools, and what they start, have no business with a token.
        environment = EnvironmentSource.take(os.environ, limits=self._limits)
        terms = self._reloading.terms_for(surface.name, loaders=self._loaders, claims=self._verifier.claims)
        book = Rulebook(
            surface,
            terms,
            functions=self._functions,
            enter=self._gate.enter,
            enter_raw=self._gate.enter_raw,
            unguarded=unguarded,
            credentials=self._credentials,
        )
        if (collected := COLLECTING.get()) is not None:
            collected.guarded.append((server, book, part_for(self._folder, surface.name)))
            return
        policies, shadow = book.begin()
        for guarded in self._functions:
            guarded.check_private(self._private)
        policies.activated_at = int(self._given.clock())
        self._trail = trail = self._given.trail(self.state, frozenset(self._private))
        self._enforcer = enforcer = self._given.enforcer(self.state, trail, surface.name, policies, shadow)
        self._reloading.begin(book.compiling, enforcer.in_force, enforcer.shadow, trail)
        if self._forwarding is not None:
            self._forwarding.start(service=surface.name)
        source = environment if identity == "environment" else None
        self._given.install(self._gate, book, enforcer, self.state, source)

    async def reload(self) -> Reload:
        """Look at the policy folder, and take what arrived there whole and is valid, without a restart.

        Calls go on meanwhile. What is taken judges from the next call on; what is not leaves the
        policies in force as they are.

        Raises:
            ConfigurationError: If the guard is not attached.
        """
        return await anyio.to_thread.run_sync(self._reloading.check)

    def reload_on_sighup(self) -> None:
        """Look at the policy folder whenever the process gets SIGHUP; a handler that was there is called too.

        Raises:
            ConfigurationError: If this is not the main thread, which alone may take a signal.
        """
        self._reloading.on_sighup()

    def stop_watching(self) -> None:
        """Look at the policy folder no more, unless `reload` asks for it."""
        self._reloading.stop()

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None) -> CallToolResult | InputRequiredResult:
        """Call the guarded function of a tool, in the ``on_call_tool`` of a low-level server.

        Args:
            name: The tool, which is the function's name.
            arguments: As the caller sent them; they are read as an `MCPServer` reads them.

        Raises:
            AccessDenied: If it is denied inside another guarded call, or outside of any request.
            MCPError: As the function raised it.
        """
        return await self._gate.call(name, arguments)

    def _wrappers(self) -> list[Callable[..., Any]]:
        """Return what runs in place of the decorated functions of tools."""
        return [guarded.wrapper for guarded in self._functions if guarded.offer is Offer.TOOL]

    def _refused_token(self, refusal: Refusal) -> None:
        """Keep the evidence of a token that was refused."""
        _LOG.info("refused a token, %s: %s", refusal.reason, refusal.detail)
        if self._trail is not None:
            self._trail.refused_token(refusal.reason)
