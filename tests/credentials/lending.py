"""A broker of this process that does what a test tells it, and the leases that it gives."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from agentguard.credentials.broker import CredentialRequest, IssuedCredential
from agentguard.credentials.leases import Leases
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.record import record
from agentguard.lifecycle.store import MemoryStore
from agentguard.limits import Limits
from agentguard.model import Invocation
from agentguard.testing import unsafe_invocation
from tests import leaks

START: Final = 1_000_000.0
HOUR: Final = 3_600
# So many secrets of an office are looked for in all that is emitted: each takes a while.
_REGISTERED: Final = 10
# Nothing takes so many seconds, unless it never comes.
_LONGEST: Final = 20


@dataclass
class Clock:
    """The time, which a test sets; it goes on by itself for nobody."""

    now: float = START
    tick: float = 0.0

    def __call__(self) -> float:
        """Return unix seconds."""
        return self.now

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self.tick

    def pass_(self, seconds: float) -> None:
        """Let time pass, by every clock."""
        self.now += seconds
        self.tick += seconds


@dataclass
class Office:
    """A broker. What is put into `answers` comes once each, in place of what it would do."""

    clock: Callable[[], float]
    life: float = 300.0
    lease_id: str | None = None
    renewal: str | None = None
    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    requests: list[CredentialRequest] = field(default_factory=list)
    slow: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    names: tuple[str, ...] = ("crm", "mail")

    def __post_init__(self) -> None:
        self._count = itertools.count(1)
        # No two tests have one secret: it is looked for in the whole process.
        self._mark = uuid.uuid4().hex
        self.open = threading.Event()
        self.open.set()

    def secret(self, number: int) -> str:
        """Return the secret that it gives as that one, from 1."""
        return f"s3cr3t-{number:04d}-{self._mark}"

    def made(self, **other: Any) -> IssuedCredential:
        """Return what it gives next."""
        number = next(self._count)
        if number <= _REGISTERED:
            leaks.register(self.secret(number))
        given: dict[str, Any] = {
            "secret": self.secret(number),
            "expires_at": self.clock() + self.life,
            "lease_id": self.lease_id or f"lease-{number}",
            "renewal": None if self.renewal is None else leaks.register(f"{self.renewal}-{number:04d}-{self._mark}"),
        }
        return IssuedCredential(**{**given, **other})

    async def issue(self, request: CredentialRequest, /) -> Any:
        """Give one."""
        self.requests.append(request)
        return await self._does("issue", request.name)

    async def renew(self, issued: IssuedCredential, request: CredentialRequest, /) -> Any:
        """Give the next one."""
        self.requests.append(request)
        return await self._does("renew", issued.lease_id)

    async def release(self, issued: IssuedCredential, name: str, /) -> None:
        """Take one back."""
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self._does("release", issued.lease_id)
        finally:
            self.at_once -= 1
        self.released.append(issued.secret)

    async def _does(self, what: str, about: str) -> Any:
        self.asked.append((what, about))
        if self.slow:
            await anyio.sleep(self.slow)
        while not self.open.is_set():  # noqa: ASYNC110  another thread sets it
            await anyio.sleep(0.001)
        answers = self.answers.get(what)
        answer = answers.pop(0) if answers else None if what == "release" else self.made
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer

    def count(self, what: str) -> int:
        """Return how often it was asked for that."""
        return sum(asked == what for asked, _ in self.asked)


class Store(MemoryStore):
    """A real store, which may not be able to tell, or do something first."""

    unknown: tuple[Exception, ...] = ()
    when_asked: Callable[[], object] | None = None

    def ended(self, invocation: Invocation) -> bool:
        """Return whether a run was ended."""
        if self.when_asked is not None:
            self.when_asked()
        if self.unknown:
            error, *rest = self.unknown
            self.unknown = tuple(rest)
            raise error
        return super().ended(invocation)


@dataclass
class Lending:
    """Leases, and everything around them within a test's reach."""

    clock: Clock
    office: Office
    store: Store
    ledger: MemoryLedger
    leases: Leases
    unkept: Exception | None = None

    def request(self, invocation: Invocation | None = None, name: str = "crm", **other: Any) -> CredentialRequest:
        """Return a request of a run, by default always the same."""
        invocation = invocation or self.run()
        given = {"token": "t", "server": "records", "tool": "read", "until": float(invocation.run_ends_at)}
        return CredentialRequest(name=name, invocation=invocation, **{**given, **other})

    def run(self, run_id: str = "run-1", **facts: Any) -> Invocation:
        """Return a run."""
        given = {"issuer": "https://issuer.example", "run_id": run_id, "user": "alice", "task": "t-1"}
        return unsafe_invocation("clerk", at=START, **{**given, **facts})

    def events(self, attribute: str = "agentguard.credential.event") -> list[Any]:
        """Return what was recorded of credentials, oldest first."""
        return [entry.record["attributes"][attribute] for entry in self.ledger if entry.record["kind"] == "credential"]


@asynccontextmanager
async def lending(
    closing: float = 20.0, pause: float = 0.01, leaked: Any = None, broker_seconds: int = 10, **office: Any
) -> AsyncIterator[Lending]:
    """Give leases of an `Office`, and close them afterwards; no thread of theirs is left."""
    clock = Clock()
    ledger = MemoryLedger()
    store = Store(clock=clock)

    def keep(kind: Any, attributes: Any, /) -> object:
        if lent.unkept is not None:
            raise lent.unkept
        return ledger.append(record(kind, attributes, at=clock()))

    broker = Office(clock, **office)
    leases = Leases(
        broker,
        store=store,
        keep=keep,
        clock=clock,
        limits=Limits(broker_seconds=broker_seconds),
        leaked=leaked,
        monotonic=clock.monotonic,
        closing=closing,
        pause=pause,
    )
    lent = Lending(clock, broker, store, ledger, leases)
    try:
        yield lent
    finally:
        broker.open.set()
        leases.close()
        # One that was closed while its broker hung ends as soon as that is over.
        assert leases._worker.join(_LONGEST)


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as something is so that another thread brings about."""
    with anyio.fail_after(_LONGEST):
        while not condition():  # noqa: ASYNC110  another thread brings it about
            await anyio.sleep(0.001)
