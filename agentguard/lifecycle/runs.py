"""One run of one agent, from its first token to its end, on the side of whoever began it.

A run never gets longer: its tokens are renewed, its end stands. It is over for good as
soon as it was ended, by anybody, or its time has passed, whatever the clock says later.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, Refusal, raised
from agentguard.identity.sources import TOKEN_FILE_VARIABLE
from agentguard.lifecycle.delegation import check_child, read_bounds, read_scopes
from agentguard.lifecycle.facts import as_ancestor, as_record, whole_seconds
from agentguard.lifecycle.lasting import GIVEN_UP, lasting
from agentguard.lifecycle.states import COMPLETED, RunState
from agentguard.lifecycle.tokenfile import TokenFile
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from agentguard.adapters.client import Transport
    from agentguard.evidence.runs import LiveRuns
    from agentguard.lifecycle.delegation import Arguments, Bounds
    from agentguard.lifecycle.facts import Facts, Issued, Signer
    from agentguard.lifecycle.store import Store
    from agentguard.model import Claim, Invocation

_LOG: Final = logging.getLogger("agentguard")
_LEEWAY: Final = Limits().leeway_seconds

# Before a child process looks for a new token itself, 30 s before the end of the old one.
_RENEWAL_SECONDS: Final = 60


class Run:
    """One run of one agent for one task, which its issuer keeps alive.

    Made by `Issuer.run` and `Run.delegate`, which end it, or by `Issuer.begin`, where
    ending it is up to the caller. Safe to share between threads.

    Attributes:
        facts: What stays the same in all its tokens.
    """

    __slots__ = (
        "_below",
        "_bounds",
        "_clock",
        "_file",
        "_issued",
        "_lives",
        "_lock",
        "_on_end",
        "_over",
        "_sign",
        "_store",
        "facts",
    )

    def __init__(
        self,
        facts: Facts,
        bounds: Bounds,
        *,
        sign: Signer,
        store: Store,
        clock: Callable[[], float],
        on_end: Callable[[], object] = bool,
        issued: Issued | None = None,
        lives: LiveRuns | None = None,
    ) -> None:
        """Begin a run: its first token is signed, or nothing is left of it.

        Args:
            facts: What stays the same in all its tokens.
            bounds: What it may call.
            sign: Signs its tokens.
            store: Where its end is told.
            clock: Gives unix seconds.
            on_end: Called when it gives out no more tokens.
            issued: A token of it, if it has begun already.
            lives: Keeps the evidence of it; None if nobody does.
        """
        self.facts = facts
        self._bounds = bounds
        self._sign = sign
        self._store = store
        self._clock = clock
        self._lives = lives
        self._on_end = on_end
        self._below: dict[str, Run] = {}
        self._file: TokenFile | None = None
        self._over: Reason | None = None
        self._lock = RLock()
        self._issued = issued or sign(facts, now=facts.began)
        # On record before anybody has a token; a token that got no further is forgotten here.
        if issued is None:
            store.record_run(as_record(self._issued.invocation, audience=facts.audience))
        if lives is not None and issued is None:
            self._record_beginning(lives)
        elif lives is not None:
            lives.follow(self._issued.invocation)

    def _record_beginning(self, lives: LiveRuns) -> None:
        """Keep that the run was issued, or end it: without evidence nobody gets a token.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """
        try:
            lives.begin(self.invocation, RunState.ISSUED)
        except BaseException:
            try:
                self.end(GIVEN_UP)
            except Exception as error:  # noqa: BLE001  why it cannot begin is the one to see
                # Nobody has a token of it, and the store goes on trying.
                _LOG.error("run `%s` could not be ended in the store: %s", self.id, raised(error))
            raise

    @property
    def id(self) -> str:
        """The run's id, the same in all its tokens."""
        return self.facts.run_id

    @property
    def invocation(self) -> Invocation:
        """The identity that its present token proves."""
        return self._issued.invocation

    @property
    def issued(self) -> Issued:
        """Its present token, as it was signed: nobody is asked whether it is still good."""
        return self._issued

    @property
    def live(self) -> bool:
        """Whether it is not over; a store that does not know raises `Refusal`, `STORE_UNAVAILABLE`."""
        with self._lock:
            over = self._over is not None or not self._clock() < self.facts.ends_at
            return not over and not self._store.ended(self._issued.invocation)

    def token(self) -> str:
        """Return a token of the run that is valid for a while; do not keep it.

        Raises:
            Refusal: `REVOKED` or `EXPIRED`, once the run is over; `STORE_UNAVAILABLE`,
                if the store does not know whether it is.
        """
        with self._lock:
            now = self._require_alive()
            due = self._issued.expires_at - min(_RENEWAL_SECONDS, self.facts.token_lifetime // 3)
            last = self._issued.expires_at == self.facts.ends_at
            return self._issued.token if now < due or last else self._renew(now)

    def renew(self) -> str:
        """Return a new token of the run, though the present one may still be good.

        Raises:
            Refusal: As for `token`.
        """
        with self._lock:
            return self._renew(self._require_alive())

    def _renew(self, now: float) -> str:
        # A clock that was set back must not make a token older than its run.
        self._issued = self._sign(self.facts, now=max(int(now), self.facts.began))
        return self._issued.token

    def _require_alive(self) -> float:
        """Return the time, if it is one at which the run lives; else it is over for good."""
        now = self._clock()
        if self._over is None and not now < self.facts.ends_at:
            self._over = Reason.EXPIRED
        if self._over is None and self._store.ended(self._issued.invocation):
            self._over = Reason.REVOKED
        if self._over is not None:
            raise Refusal(self._over, f"run `{self.id}` is over")
        return now

    def http(self, url: str) -> Transport:
        """Return a transport for `mcp.Client` that acts as this run, whose token it renews.

        Args:
            url: The server's streamable HTTP endpoint, https or on loopback.

        Raises:
            ConfigurationError: The URL would show the token to the network.
        """
        from agentguard.adapters.client import carry  # noqa: PLC0415  who mints tokens need not speak MCP

        return carry(url, self.token)

    def environment(self, *, folder: Path | None = None) -> dict[str, str]:
        """Return what a child process has to have in its environment to act as this run.

        It names a file with the token, mode 0600, which is renewed while the run lives
        and taken away at its end. A server that speaks stdio wants a run whose audience
        is `stdio_audience` of its name.

        Args:
            folder: The folder to make for the file, under a name that nobody can guess;
                one among the temporary files if left out.

        Raises:
            Refusal: As for `token`.
            OSError: The file could not be written.
        """
        with self._lock:
            self._require_alive()
            if self._file is None:
                self._file = TokenFile(self.token, folder=folder)
            return {TOKEN_FILE_VARIABLE: str(self._file.path)}

    def delegate(
        self,
        *,
        agent: str,
        tools: Sequence[str] | None = None,
        arguments: Arguments | None = None,
        grant: str | None = None,
        ends_in: int | None = None,
        scopes: Iterable[str] = (),
        audience: str | None = None,
        claims: Mapping[str, Claim] | None = None,
    ) -> AbstractAsyncContextManager[Run]:
        """Hand on some of what this run may do, for the time of an ``async with`` block.

        The child acts for the same user in the same task. A server judges it and every
        run above it, so it may do what all of them may. It ends with this run.

        Args:
            agent: Who gets it.
            tools: The tools that it may call.
            arguments: For a tool, the values that an argument may have.
            grant: Cedar text instead, or, beside *tools*, as well.
            ends_in: Seconds to its end; if left out, it ends with this run.
            scopes: OAuth scopes, of those that this run has.
            audience: This run's, if given.
            claims: Further claims, the child's own.

        Raises:
            ConfigurationError: It asks for more than this run has; the message says what
                is too much.
            Refusal: This run is over.
        """
        return lasting(
            lambda: self.begin_child(
                agent=agent,
                tools=tools,
                arguments=arguments,
                grant=grant,
                ends_in=ends_in,
                scopes=scopes,
                audience=audience,
                claims=claims,
            )
        )

    def begin_child(
        self,
        *,
        agent: str,
        tools: Sequence[str] | None = None,
        arguments: Arguments | None = None,
        grant: str | None = None,
        ends_in: int | None = None,
        scopes: Iterable[str] = (),
        audience: str | None = None,
        claims: Mapping[str, Claim] | None = None,
        client: str | None = None,
    ) -> Run:
        """Hand on as `delegate` does; whoever begins it so calls `Run.end`.

        *client* is the OAuth client that holds its tokens, where that is not the agent.
        """
        bounds = read_bounds(tools=tools, arguments=arguments, grant=grant)
        wanted = read_scopes(scopes)
        if audience not in {None, self.facts.audience}:
            message = (
                f"a child is for its parent's server; wants audience `{self.facts.audience}`, got `{audience}`: "
                "begin a run of its own for another server"
            )
            raise ConfigurationError(message)
        with self._lock:
            began = max(int(self._require_alive()), self.facts.began)
            left = self.facts.ends_at - began
            seconds = left if ends_in is None else whole_seconds("ends_in", ends_in)
            check_child(self.invocation, self._bounds, bounds, wanted, (seconds, left))
            facts = replace(
                self.facts,
                run_id=uuid.uuid4().hex,
                agent=agent,
                client=client,
                grant=bounds.text,
                began=began,
                ends_at=began + seconds,
                scopes=wanted,
                claims=dict(claims or {}),
                # Those above are taken over as they are: this run's server may not know all their claims.
                ancestors=(*self.facts.ancestors, as_ancestor(self.invocation)),
            )
            forget = partial(self._below.pop, facts.run_id, None)
            child = Run(
                facts, bounds, sign=self._sign, store=self._store, clock=self._clock, on_end=forget, lives=self._lives
            )
            self._below[child.id] = child
        return child

    def end(self, reason: str = COMPLETED) -> None:
        """End the run, and every run that stems from it, everywhere and for good.

        Its calls in flight are stopped. Ending it again changes nothing.

        Args:
            reason: Why, for the evidence; ``completed: ...`` when it ended by itself.

        Raises:
            Refusal: `STORE_UNAVAILABLE`, if the store could not keep it. The run gets no
                tokens all the same; elsewhere its present one may be used until it expires.
                `EVIDENCE_UNAVAILABLE`, if the evidence could not be kept: the run is over
                everywhere, and its end is recorded as soon as it can be.
        """
        self.stop()
        until = float(self.facts.ends_at + _LEEWAY)
        evidence = nullcontext() if self._lives is None else self._lives.ending(self.invocation, reason)
        with evidence:
            self._store.revoke(issuer=self.invocation.issuer, run_id=self.id, reason=reason, until=until)

    def stop(self) -> None:
        """Give out no more tokens, here and below, and take their files away; the store is not told."""
        with self._lock:
            self._over = self._over or Reason.REVOKED
            below, file = tuple(self._below.values()), self._file
        for child in below:
            child.stop()
        if file is not None:
            file.remove()
        self._on_end()
