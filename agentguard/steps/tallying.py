"""What runs have done: what each call is judged by, and counted in.

A call is judged by what is known of its run here, and again if the store turns out to know
better: its own part is written only onto what it was judged by. So a limit holds however
many calls come at once, at however many servers. What a run does counts for every run that
it stems from, and what it carries they carry too, since they get its results.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from agentguard.errors import Refusal, raised
from agentguard.lifecycle.ended import run_of
from agentguard.lifecycle.tally import Change, Exchange, Tally
from agentguard.model import Reason
from agentguard.policy.conversion.values import units_of_json
from agentguard.policy.deciding.kept import Kept
from agentguard.request import run_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager

    from agentguard.lifecycle.store import Store
    from agentguard.lifecycle.tally import Run
    from agentguard.model import Invocation
    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.steps.call import Call

T = TypeVar("T")

_LOG: Final = logging.getLogger("agentguard")

# Of so many runs it is remembered what was last read: it is no more than a guess.
_REMEMBERED: Final = 10_000
# Somebody else changed it each time: it would take hundreds of servers at once.
_MOST_TRIES: Final = 1_000
_PATIENCE: Final = 3
_PAUSE_SECONDS: Final = 0.001
# How many calls wait for the store at once.
_THREADS: Final = 40
_BUSY: Final = "what the run has done changes all the time"


def origin_of(call: Call, invocation: Invocation) -> str:
    """Return from where a call of *invocation* comes, its OAuth client included; empty if that is not known."""
    return f"{call.origin} {invocation.client_id}" if call.origin else ""


def spent_by(tool: GuardedTool, context: Mapping[str, object]) -> dict[str, int]:
    """Return what a call declares to spend by its arguments and facts, in ten-thousandths, by total."""
    spent: dict[str, int] = {}
    for shape, values in ((tool.input, context.get("input")), (tool.facts, context.get("facts"))):
        if shape is None or not isinstance(values, dict):
            continue
        for member in shape.parts:
            if member.shape.spends and (value := values.get(member.name)) is not None:
                total, units = member.shape.spends, units_of_json(value)
                before = spent.get(total, 0)
                # An amount below zero is refused, and must not be made up for by another.
                spent[total] = min(before, units) if min(before, units) < 0 else before + units
    return spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """What the runs of a chain have done, as one call is judged by it.

    Attributes:
        invocation: Who calls.
        read: The tally of each link as it was read, root first.
        server: Where it calls.
        origin: From where it comes; empty if that is not known.
        now: When it is judged, unix seconds.
        tool: What is called, as tallies name it.
        spent: What the call declares to spend, in ten-thousandths, by total.
        within: How many of the calls that were counted are the one on whose behalf this is asked.
    """

    invocation: Invocation
    read: tuple[Tally, ...]
    server: str
    origin: str
    now: float
    tool: str = ""
    spent: Mapping[str, int] = field(default_factory=dict)
    within: int = 0

    @classmethod
    def of_a_new_run(cls, invocation: Invocation) -> Tallied:
        """Return what is said of a run that has done nothing, nor has any above it."""
        return cls(invocation=invocation, read=tuple(Tally() for _ in invocation.chain), server="", origin="", now=0)

    @property
    def bound(self) -> tuple[Tally, ...]:
        """The tallies once the run was used from where this call comes."""
        if not self.origin:
            return self.read
        return (*self.read[:-1], self.read[-1].used_from(self.server, self.origin))

    @property
    def newly_shared(self) -> bool:
        """Whether this call is the first that comes from elsewhere."""
        return self.bound[-1].shared and not self.read[-1].shared

    def rests_on(self, read: tuple[Tally, ...]) -> bool:
        """Return whether it was judged by *read*."""
        return all(ours.version == theirs.version for ours, theirs in zip(self.read, read, strict=True))

    def records(self, totals: Collection[str]) -> tuple[dict[str, object], ...]:
        """Return ``context.run`` for each link.

        Raises:
            Refusal: INVALID_ARGUMENT, if what the call declares to spend cannot be added.
        """
        found = []
        labels: frozenset[str] = frozenset()
        for tally in self.bound:
            spending = tally.spending(self.spent)
            record = run_record(spending, now=self.now, tool=self.tool, totals=totals, labels=labels)
            record["calls"] = max(0, spending.calls - self.within)
            found.append(record)
            labels |= tally.labels
        return tuple(found)

    def exchanges(self, change: Change) -> list[Exchange]:
        """Return what writes *change*, if nothing else was written since.

        Raises:
            Refusal: INVALID_ARGUMENT, as for `Tally.after`.
        """
        return [
            Exchange(
                run=run_of(link),
                before=read.version,
                after=bound.after(change, self.now),
                # A token of grade `token` may be followed by one that ends later.
                until=max(link.run_ends_at, link.ends_at),
            )
            for link, read, bound in zip(self.invocation.chain, self.read, self.bound, strict=True)
        ]


class Tallying:
    """Reads and writes tallies for one guard. Safe to share between threads and event loops.

    Args:
        store: Where they are kept.
        clock: Gives unix seconds.
        shared: Is told of a run that is used from elsewhere for the first time.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float], shared: Callable[[Invocation], object]) -> None:
        self._store = store
        self._clock = clock
        self._shared = shared
        # A store that says nothing of it may wait for a network.
        self._waits = bool(getattr(store, "waits", True))
        self._known: Kept[Run, Tally] = Kept(_REMEMBERED)
        self._lock = Lock()
        self._denials: Counter[tuple[Run, str, str]] = Counter()
        self._turns: RunVar[defaultdict[Run, list[anyio.Lock]]] = RunVar("agentguard_turns")
        self._threads: RunVar[anyio.CapacityLimiter] = RunVar("agentguard_tallying")

    async def known(self, invocation: Invocation) -> tuple[Tally, ...]:
        """Return what is known of the runs of a chain, root first: it may be out of date.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        found = []
        for link in invocation.chain:
            known = self._known.get(run_of(link))
            if known is None:
                return await self.fresh(invocation)
            found.append(known)
        return tuple(found)

    async def fresh(self, invocation: Invocation) -> tuple[Tally, ...]:
        """Return what the runs of a chain have done, as it is now.

        Raises:
            Refusal: STORE_UNAVAILABLE, also if the store knows less than it did.
        """
        return await self._waited(partial(self._read, invocation))

    def _read(self, invocation: Invocation) -> tuple[Tally, ...]:
        runs = [run_of(link) for link in invocation.chain]
        before = [self._known.get(run) for run in runs]
        found = self._store.tallies(*runs)
        for run, known, tally in zip(runs, before, found, strict=True):
            if known is not None and tally.version < known.version:
                # What it has forgotten would count as not done.
                raise Refusal(Reason.STORE_UNAVAILABLE, "the store has lost what a run has done: end the run")
            self._learn(run, tally)
        return found

    def _learn(self, run: Run, tally: Tally) -> None:
        known = self._known.get(run)
        if known is None or known.version < tally.version:
            self._known.put(run, tally)

    async def write(self, tallied: Tallied, change: Change) -> bool:
        """Write *change*, and return whether that was possible: else it has to be judged anew.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        return await self._waited(partial(self._put, tallied, change))

    def _put(self, tallied: Tallied, change: Change) -> bool:
        exchanges = tallied.exchanges(change)
        if not self._store.exchange(*exchanges):
            return False
        for exchange in exchanges:
            self._learn(exchange.run, exchange.after)
        if tallied.newly_shared:
            self._shared(tallied.invocation)
        return True

    def add(self, invocation: Invocation, change: Change, *, server: str = "", origin: str = "") -> None:
        """Write *change* whatever else was written meanwhile. It may wait for the store.

        Raises:
            Refusal: STORE_UNAVAILABLE; or INVALID_ARGUMENT, as for `Tally.after`.
        """
        for tries in range(_MOST_TRIES):
            read = self._read(invocation)
            now = self._clock()
            if self._put(Tallied(invocation=invocation, read=read, server=server, origin=origin, now=now), change):
                return
            if tries > _PATIENCE:
                time.sleep(_PAUSE_SECONDS)
        raise Refusal(Reason.STORE_UNAVAILABLE, _BUSY)

    async def denied(self, invocation: Invocation, *, server: str, origin: str) -> None:
        """Count a denial, also of a call that is cancelled. The denial stands whether or not it could be counted."""
        key = (run_of(invocation), server, origin)
        with self._lock:
            self._denials[key] += 1
        try:
            # Else whoever hangs up in time tries for nothing, and takes those along that are counted with it.
            with anyio.CancelScope(shield=True):
                async with self.turn(invocation):
                    # Those that came while this one waited are counted with it.
                    with self._lock:
                        denials = self._denials.pop(key, 0)
                    if denials == 0:
                        return
                    change = Change(denied=denials)
                    await self._waited(partial(self.add, invocation, change, server=server, origin=origin))
        except Exception as error:  # noqa: BLE001  it is denied in any case
            _LOG.error("a denial could not be counted for its run: %s", raised(error))

    async def give_back(self, invocation: Invocation, change: Change) -> None:
        """Take back what a call added that never began: nothing of its tool ran. If it cannot be, it stays counted."""
        try:
            with anyio.CancelScope(shield=True):
                await self._waited(partial(self.add, invocation, replace(change, back=True)))
        except Exception as error:  # noqa: BLE001  the call has failed in any case
            _LOG.error("a call that never began stays counted for its run: %s", raised(error))

    async def _waited(self, ask: Callable[[], T]) -> T:
        """Return what the store says, without keeping others waiting for it."""
        if not self._waits:
            return ask()
        try:
            threads = self._threads.get()
        except LookupError:
            # Their own: slow tools, which may have all the others, must keep no call from being judged.
            threads = anyio.CapacityLimiter(_THREADS)
            self._threads.set(threads)
        return await anyio.to_thread.run_sync(ask, limiter=threads)

    def turn(self, invocation: Invocation) -> AbstractAsyncContextManager[None]:
        """Let one call of a run at a time be counted where that means to wait: the others would only be in vain."""
        return self._one_by_one(invocation) if self._waits else nullcontext()

    @asynccontextmanager
    async def _one_by_one(self, invocation: Invocation) -> AsyncIterator[None]:
        try:
            turns = self._turns.get()
        except LookupError:
            turns = defaultdict(list)
            self._turns.set(turns)
        root = run_of(invocation.chain[0])
        lock = turns[root][0] if turns[root] else anyio.Lock()
        turns[root].append(lock)
        try:
            async with lock:
                yield
        finally:
            turns[root].pop()
            if not turns[root]:
                del turns[root]
