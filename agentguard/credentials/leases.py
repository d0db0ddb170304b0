"""The credentials that runs have from a broker: one for each run and name, while both last.

A lease is used again as long as enough of it is left, renewed after that, and given back
when its run ends: by revocation, by completion, at its absolute end, or because the
process does. Whatever the broker is asked, it is asked in one event loop in a thread of
its own, whoever waits for the answer. So a call that is cancelled takes nobody's
credential along, a broker that hangs holds up no server, and a credential that comes when
nobody may have it any more is given back.

No evidence, no credential: one whose record cannot be kept is given back, and used by
nobody. It is used by nobody past its own end, or its run's.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from agentguard.credentials.asked import FailedError, asked
from agentguard.credentials.broker import IssuedCredential
from agentguard.credentials.held import Event, Lease, key_of
from agentguard.credentials.holding import Holding
from agentguard.credentials.known import Known
from agentguard.credentials.returns import Returns
from agentguard.credentials.worker import Waiter, Worker
from agentguard.errors import Refusal, raised
from agentguard.evidence.vocabulary import RecordKind
from agentguard.host.atend import call_at_end
from agentguard.lifecycle.ended import run_of
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.credentials.broker import CredentialBroker, CredentialRequest
    from agentguard.credentials.credential import Credential
    from agentguard.credentials.held import Key
    from agentguard.credentials.live import Place
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.lifecycle.ended import Ended
    from agentguard.lifecycle.store import Store
    from agentguard.limits import Limits
    from agentguard.model import Invocation

_LOG: Final = logging.getLogger("agentguard")

# How much longer than the broker may take somebody waits for what comes of it.
_PATIENCE_SECONDS: Final = 1.0
# How much longer than it is given the thread may take to end.
_GRACE_SECONDS: Final = 0.5
# How long one that could not be renewed serves on before that is tried again.
_AGAIN_SECONDS: Final = 5.0
_GLANCE: Final = 0.01


class Keep(Protocol):
    """Who keeps a record."""

    def __call__(self, kind: RecordKind, attributes: Mapping[str, AttributeValue], /) -> object:
        """Keep it.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """


class Leases:
    """The leases of one guard. Safe to share between threads, and to take through a fork.

    They are given back when the process ends, if that ends by itself or with SIGTERM. What a
    fork's parent holds stays the parent's.

    Args:
        broker: Gives credentials.
        store: Tells of what was ended.
        keep: Keeps a record.
        clock: Gives unix seconds.
        limits: How long the broker may take.
        leaked: Is told of a run, where a secret of it was found outside of any call, and that secret's name.
        monotonic: Gives seconds that never run backwards.
        closing: For how many seconds `close` waits for the broker; less than what those who end a process wait.
        pause: Seconds between two looks for what is over by time.
    """

    def __init__(
        self,
        broker: CredentialBroker,
        *,
        store: Store,
        keep: Keep,
        clock: Callable[[], float],
        limits: Limits,
        leaked: Callable[[Invocation, Place, str], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        closing: float = 2.0,
        pause: float = 1.0,
    ) -> None:
        self._broker = broker
        self._store = store
        self._keep = keep
        self._clock = clock
        self._monotonic = monotonic
        self._seconds = limits.broker_seconds
        self._skew = limits.leeway_seconds
        self._closing = closing
        self._pause = pause
        self._closed = False
        self._known = Known(leaked)
        self._worker = Worker("credentials")
        self._reset()
        self._unsubscribe = store.subscribe(self._tell)
        call_at_end(self.close)
        _EVERY.add(self)

    def _reset(self) -> None:
        """Begin without a lease, as the constructor does, and a fork's child."""
        self._flights: dict[Key, list[Waiter[Lease | Refusal]]] = {}
        returns = Returns(
            self._broker, worker=self._worker, record=self._record, clock=self._clock, seconds=self._seconds
        )
        self._holding = Holding(
            returns,
            worker=self._worker,
            clock=self._clock,
            monotonic=self._monotonic,
            pause=self._pause,
            skew=self._skew,
            known=self._known,
        )

    def __len__(self) -> int:
        """Return how many leases are held, or still to be given back."""
        return len(self._holding.held) + len(self._holding.returns)

    async def lease(self, request: CredentialRequest) -> Credential:
        """Return a credential for a run, which is good at this moment.

        Raises:
            Refusal: CREDENTIAL_UNAVAILABLE; EXPIRED or REVOKED, if the run is over; STORE_UNAVAILABLE, if that cannot
                be told; or EVIDENCE_UNAVAILABLE.
        """
        key = key_of(request)
        lease = self._holding.current.get(key)
        # Asked after the look: what is ended by then is handed to nobody.
        self._require_alive(request)
        if lease is None or not self._is_fresh(lease, request):
            lease = await self._awaited(key, request, lease)
            self._require_alive(request)
        if not lease.left(self._clock(), self._monotonic()) > 0:
            raise _unavailable(request, "it ended before it could be used")
        return lease.credential(request.until)

    def secrets_of(self, invocation: Invocation) -> tuple[str, ...]:
        """Return every secret that came for a run and may still be good."""
        return self._known.of(run_of(invocation))

    def close(self) -> None:
        """Give everything back, for some seconds at most; afterwards no credential is to be had."""
        if self._closed:
            return
        self._closed = True
        self._unsubscribe()
        if not self._worker.begun:
            return
        self._worker.start(self._wind_up)
        if not self._worker.join(self._closing + _GRACE_SECONDS):
            _LOG.error("the broker of credentials hangs: what it gave is not released")
            self._holding.release_all()
        self._holding.returns.abandon()

    def forked(self) -> None:
        """Leave the leases to the parent; the next one is the child's own."""
        self._worker.forked()
        self._reset()
        if not self._closed:
            call_at_end(self.close)

    def _require_alive(self, request: CredentialRequest) -> None:
        """Pass only if a credential may be handed out.

        Raises:
            Refusal: As `lease` says.
        """
        if self._closed:
            raise _unavailable(request, "the process is about to end")
        if not self._clock() < request.until:
            raise Refusal(Reason.EXPIRED)
        if self._store.ended(request.invocation):
            raise Refusal(Reason.REVOKED)

    def _is_fresh(self, lease: Lease, request: CredentialRequest) -> bool:
        # Another token of the run may have put off its end.
        lease.until = max(lease.until, request.until)
        return lease.is_fresh(self._clock(), self._monotonic())

    async def _awaited(self, key: Key, request: CredentialRequest, held: Lease | None) -> Lease:
        """Return what the one flight of *key* brings, or what is held if that takes too long.

        Raises:
            Refusal: There is none.
        """
        waiter = Waiter[Lease | Refusal]()
        try:
            self._worker.start(partial(self._join, key, request, waiter))
            if self._closed:
                # Closed just now, and maybe before there was a thread.
                self._worker.start(self._wind_up)
        except RuntimeError as error:
            raise _unavailable(request, raised(error)) from None
        # What cannot be renewed is issued anew.
        operations = 1 if held is None else 2
        return self._brought(await waiter.get(operations * self._seconds + _PATIENCE_SECONDS), request, held)

    def _brought(self, result: Lease | Refusal | None, request: CredentialRequest, held: Lease | None) -> Lease:
        if result is None:
            result = self._serving(held) or _unavailable(request, "the broker hangs")
        if isinstance(result, Refusal):
            # What ended the run meanwhile says more.
            self._require_alive(request)
            # Each waiter raises one of its own: a traceback belongs to one task.
            raise Refusal(result.reason, result.detail)
        return result

    def _serving(self, held: Lease | None) -> Lease | None:
        """Return what is held, if it serves on until it can be renewed."""
        if held is None or held not in self._holding.held or not held.serves(self._clock(), self._monotonic()):
            return None
        return held

    def _tell(self, ended: Ended) -> None:
        # May be called from any event loop: nothing here waits. What comes a moment later
        # asks the store itself.
        if self._holding.held:
            self._worker.start(partial(self._holding.end, ended))

    # From here on, in the worker's thread: what one step does between two waits is done at once.

    async def _join(self, key: Key, request: CredentialRequest, waiter: Waiter[Lease | Refusal]) -> None:
        """Wait for the flight of *key*, or be it."""
        waiting = self._flights.get(key)
        if waiting is not None:
            waiting.append(waiter)
            return
        self._flights[key] = waiting = [waiter]
        result: Lease | Refusal = _unavailable(request, "the process is about to end")
        try:
            result = await self._obtain(key, request)
        except Refusal as refusal:
            result = refusal
        except Exception as error:  # noqa: BLE001  whatever went wrong, there is no credential
            result = _unavailable(request, raised(error))
        finally:
            del self._flights[key]
            for one in waiting:
                one.put(result)

    async def _obtain(self, key: Key, request: CredentialRequest) -> Lease:
        # It may have ended on the way here: then the broker is not asked in vain.
        self._require_alive(request)
        held = self._holding.current.get(key)
        if held is not None and self._is_fresh(held, request):
            return held
        try:
            return await self._renewed(request, held)
        except FailedError as failed:
            serving = self._serving(held)
            if serving is None:
                raise _unavailable(request, failed.detail) from None
            _LOG.warning("credential `%s` serves on, since there is no other: %s", request.name, failed.detail)
            serving.again = self._monotonic() + _AGAIN_SECONDS
            return serving

    async def _renewed(self, request: CredentialRequest, held: Lease | None) -> Lease:
        if held is not None and not held.is_spent(self._clock(), self._monotonic()):
            previous = held.issued
            try:
                issued = await asked(lambda: self._broker.renew(previous, request), self._seconds)
                return self._take(Event.RENEWED, request, issued, held)
            except FailedError as failed:
                if failed.retry:
                    raise
                _LOG.info("credential `%s` is not renewed but issued anew: %s", request.name, failed.detail)
        issued = await asked(lambda: self._broker.issue(request), self._seconds)
        return self._take(Event.ISSUED, request, issued, held)

    def _take(self, event: Event, request: CredentialRequest, issued: object, held: Lease | None) -> Lease:
        """Hold what the broker gave, if it may be used, and put it on record; else give it back.

        Raises:
            FailedError: It is nothing that could be used.
            Refusal: As `lease` says.
        """
        if not isinstance(issued, IssuedCredential):
            raise FailedError(detail=f"the broker gave a `{type(issued).__name__}`, no IssuedCredential", retry=False)
        lease = Lease(
            key=key_of(request),
            name=request.name,
            invocation=request.invocation,
            issued=issued,
            until=request.until,
            got_at=self._clock(),
            since=self._monotonic(),
        )
        problem = None if lease.life > 0 else "a credential that is over"
        try:
            self._holding.add(lease)
        except ValueError:
            problem = "a secret that cannot be kept out of anything: it is too short, or of too few characters"
        if problem is not None:
            self._holding.release(lease)
            raise FailedError(detail=f"the broker gave {problem}", retry=False)
        if held is not None and held.issued.lease_id == issued.lease_id:
            # What ends the new one ends this one.
            held.heir = lease
            self._holding.drop(held)
        try:
            self._record(event, lease)
        except Exception as error:  # noqa: BLE001  whatever went wrong, it is not on record
            self._holding.release(lease)
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, raised(error)) from None
        if held is not None:
            held.superseded = True
        self._holding.current[lease.key] = lease
        try:
            self._require_alive(request)
        except Refusal as refusal:
            # Where the store cannot tell, the run may live: it is told as soon as it is known.
            if refusal.reason is not Reason.STORE_UNAVAILABLE:
                self._holding.release(lease)
            raise
        return lease

    def _record(self, event: Event, lease: Lease) -> None:
        self._keep(RecordKind.CREDENTIAL, lease.attributes(event))

    async def _wind_up(self) -> None:
        """Give everything back, also what is only just coming, and end the thread."""
        self._holding.returns.hurry()
        self._holding.release_all()
        with anyio.move_on_after(self._closing):
            while self._flights or self._holding.returns:  # noqa: ASYNC110  nobody else waits for both
                await anyio.sleep(_GLANCE)
        self._worker.finish()


def _unavailable(request: CredentialRequest, detail: str) -> Refusal:
    return Refusal(Reason.CREDENTIAL_UNAVAILABLE, f"credential `{request.name}`: {detail}")


_EVERY: Final[weakref.WeakSet[Leases]] = weakref.WeakSet()


def _after_fork() -> None:
    for leases in tuple(_EVERY):
        leases.forked()


os.register_at_fork(after_in_child=_after_fork)
