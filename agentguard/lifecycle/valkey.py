"""A store in Valkey, or Redis: the way past one machine.

A hash holds what was ended and a stream tells of it; each process reads the hash once and
follows the stream. A message that was missed shows in its number, and a connection that
broke may have been to a server that lost something: both have the hash read again. Valkey
must be told to keep what it is given (`appendonly yes`, `appendfsync always`,
`maxmemory-policy noeviction`); should it come back without it all the same, the processes
that know what was ended tell it.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Unpack
from urllib.parse import urlsplit

try:
    import redis
except ModuleNotFoundError:
    _HINT = "pip install 'agentguard[valkey]', or from a clone pip install -e 'path/to/agentguard[valkey]'"
    _MISSING = f"ValkeyStore wants the client of Valkey, got none: {_HINT}"
    raise ModuleNotFoundError(_MISSING, name="redis") from None
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle import scripts
from agentguard.lifecycle.ended import Ended, Ending, Kind, Revocation, ending
from agentguard.lifecycle.follower import Follower
from agentguard.lifecycle.mirror import Mirror
from agentguard.lifecycle.scripts import key
from agentguard.lifecycle.states import KEPT_SECONDS, RunRecord, RunState, ended_by, judged
from agentguard.lifecycle.unwritten import Unwritten
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agentguard.lifecycle.ended import Link
    from agentguard.lifecycle.tally import Exchange, Run, Tally
    from agentguard.model import Invocation

_LOG: Final = logging.getLogger("agentguard")
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss", "unix": "unix"}
_FAILURES: Final = (redis.RedisError, OSError, ValueError, TypeError, KeyError)
# Seconds between two writes of what guards counted or could not write; and where they may not write at all.
_SELDOM: Final = 1.0
_FORBIDDEN_SECONDS: Final = 600.0
_GRACE: Final = 300
_NEWS_ENTRIES: Final = 10_000


class ValkeyStore:
    """A store in Valkey, shared by any number of machines. Safe to share between threads.

    A server that cannot be reached is no mistake of the set-up: calls are denied until it can.

    Args:
        url: ``valkey://``, ``valkeys://`` (TLS), ``redis://``, ``rediss://`` or ``unix://``.
        clock: Gives unix seconds.
        monotonic: Gives seconds that never run backwards.
        limits: The leeway that a cutoff counts in, and how old an answer may be.
        block: Seconds that one look at the stream waits for news.
        wait: Seconds to wait for an answer of the server.

    Raises:
        ConfigurationError: The URL is none.
    """

    waits: Final = True

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        limits: Limits | None = None,
        block: float = 0.2,
        wait: float = 2.0,
    ) -> None:
        limits = limits or Limits()
        self._clock = clock
        self._monotonic = monotonic
        self._leeway = limits.leeway_seconds
        self._block = block
        self._mirror = Mirror(limit=limits.staleness_seconds, monotonic=monotonic)
        # Two: the stream is waited for on a connection of its own.
        self._client, self._stream = _client(url, wait), _client(url, wait + block)
        self._last: str | None = None
        self._number = 0
        self._followed = False
        self._unwritten = Unwritten(clock)
        self._write_at = monotonic() + _SELDOM
        self._only_reads = self._told = False
        self._closed = False
        place = urlsplit(url)
        # Never the whole URL: it may hold a password.
        self._name = f"store {place.hostname or place.path}"
        self._follower = Follower(self._follow, name=self._name, pause=0, retry=0.1, first=True)

    def _follow(self) -> None:
        """Wait for news once, and tell of it."""
        began = self._monotonic()
        try:
            if self._last is None:
                news = self._read_everything()
                began = max(began, self._read_at)
            else:
                news = self._read_news(self._last)
        except _FAILURES as error:
            # Whoever answers next may not know what this one knew.
            self._last = None
            self._stream.close()
            raise _unavailable(error) from error
        if self._last is not None:
            self._mirror.synced(began)
        self._mirror.forget(self._clock())
        if began >= self._write_at:
            self._write_late(began)
        self._mirror.tell(*news)

    def _read_everything(self) -> list[Ended]:
        """Read the hash, from a place in the stream that was there before."""
        self._read_at = self._monotonic()
        last = self._stream.xrevrange(key("news"), count=1)
        place, number = (last[0][0], int(last[0][1]["s"])) if last else ("0-0", 0)
        news: list[Ended] = []
        known: set[tuple[str, Kind, str]] = set()
        for field, row in self._stream.hscan_iter(key("ended"), count=1_000):
            cutoff, until, _, _ = json.loads(row)
            ended = _ended(field, cutoff)
            known.add(ended.key)
            if self._mirror.add(ended, _number(until)) and self._followed:
                news.append(ended)
        horizon = self._stream.zscore(key("horizons"), "ended")
        if horizon is not None:
            self._mirror.raise_horizon(horizon)
        if self._followed:
            self._unwritten.remind(self._mirror, known)
        self._followed = True
        self._last, self._number = place, number
        return news

    def _read_news(self, last: str) -> list[Ended]:
        answer = self._stream.xread({key("news"): last}, count=1_000, block=int(self._block * 1000))
        entries = answer[0][1] if answer else []
        news: list[Ended] = []
        for place, entry in entries:
            if int(entry["s"]) != self._number + 1:
                # Some were trimmed before they came here.
                self._last = None
                break
            self._last, self._number = place, self._number + 1
            ended = _ended(entry["f"], entry["c"])
            if self._mirror.add(ended, _number(entry["u"])):
                news.append(ended)
        return news

    def _write_late(self, now: float) -> None:
        """Write what could not be written and what guards counted, and let go of what is over."""
        self._write_at = now + _SELDOM
        lacking = False
        try:
            with self._unwritten.taken() as (ends, calls):
                lacking = bool(ends or calls)
                while ends:
                    self._end(*ends[0])
                    del ends[0]
                for run, (used_at, count) in tuple(calls.items()):
                    self._run(scripts.COUNT, json.dumps(run), used_at, count)
                    del calls[run]
                self._prune()
        except Refusal as refusal:
            self._only_reads = _forbidden(refusal.__cause__)
            if self._only_reads:
                # Each try would be a line in the log of the server's own.
                self._write_at = now + _FORBIDDEN_SECONDS
                # Whoever only asks has nothing to write, and misses nothing.
                if lacking and not self._told:
                    _LOG.warning("%s may only be read by this user: calls of runs are not counted here", self._name)
            self._told = self._only_reads and (self._told or lacking)
        else:
            self._only_reads = self._told = False

    def _prune(self) -> None:
        now = self._clock()
        self._run(scripts.PRUNE, now - _GRACE, now)

    def _end(self, ended: Ended, revocation: Revocation) -> None:
        self._prune()
        run = (ended.issuer, ended.name) if ended.kind is Kind.RUN else None
        at_once: tuple[str, ...] = ()
        # How one run ended is on record in the step that ends it, which waits for no record that can be read.
        with suppress(Exception):
            at_once = () if run is None else tuple(chain.from_iterable(self._settled(ended, revocation, run)))
        of = json.dumps(ended.key), _text(ended.cutoff), _text(revocation.until), repr(revocation.at), revocation.reason
        if self._run(scripts.END, *of, _NEWS_ENTRIES, *at_once) and not at_once:
            for settled in self._settled(ended, revocation, run):
                self._run(scripts.SETTLE, *settled)

    def _settled(self, ended: Ended, revocation: Revocation, run: tuple[str, str] | None) -> Iterator[tuple[str, str]]:
        for record in self._records(run):
            now = ended_by(record, ended, reason=revocation.reason, now=revocation.at)
            if now is not record:
                yield json.dumps((record.issuer, record.run_id)), json.dumps((now.state, now.ended_at, now.reason))

    def _run(self, script: str, *arguments: object) -> Any:
        self._refuse_closed()
        try:
            return self._client.eval(script, len(scripts.KEYS), *scripts.KEYS, *arguments)
        except _FAILURES as error:
            raise _unavailable(error) from error

    def _ask(self, command: str, *arguments: object) -> Any:
        self._refuse_closed()
        try:
            return self._client.execute_command(command, *arguments)
        except _FAILURES as error:
            raise _unavailable(error) from error

    def require_healthy(self) -> None:
        """Pass only if the stream was read recently enough.

        Raises:
            Refusal: `STORE_UNAVAILABLE`.
        """
        self._mirror.require_fresh()

    def ended(self, invocation: Invocation) -> bool:
        """Return whether this run, or any run that it stems from, was ended."""
        return self._mirror.ended(invocation)

    def revoke(self, *, issuer: str, run_id: str, reason: str = "", until: float | None = None) -> None:
        """End a run for good; see `Store.revoke`."""
        self.revoke_all(issuer=issuer, kind=Kind.RUN, name=run_id, reason=reason, until=until)

    def revoke_all(self, **what: Unpack[Ending]) -> None:
        """End every run of an agent, a user, a task or an issuer for good; see `Store.revoke_all`."""
        ended, revocation = ending(**what, leeway=self._leeway, now=self._clock())
        self._mirror.forget(revocation.at)
        self._mirror.end(ended, revocation, self._keep)

    def _keep(self, ended: Ended, revocation: Revocation) -> None:
        try:
            self._end(ended, revocation)
        except Refusal:
            self._unwritten.ended(ended, revocation)
            raise
        if self._only_reads:
            # Somebody granted it meanwhile.
            self._write_at = self._monotonic()

    def revocation(self, *, issuer: str, name: str, kind: Kind = Kind.RUN) -> Revocation | None:
        """Return how a run, or what *kind* says, was ended; see `Store.revocation`."""
        row = self._ask("HGET", key("ended"), json.dumps((issuer, kind, name)))
        if row is None:
            return None
        _, until, at, reason = json.loads(row)
        return Revocation(reason=reason, at=float(at), until=_number(until))

    def require_mintable(self, *chain: Link) -> None:
        """Pass only if a token for this chain of runs would not be refused at once.

        Raises:
            Refusal: `REVOKED`, or `STORE_UNAVAILABLE`.
        """
        self._mirror.require_mintable(*chain)

    def subscribe(self, callback: Callable[[Ended], None]) -> Callable[[], None]:
        """Call *callback* whenever something is ended, on the thread that learns of it."""
        return self._mirror.subscribe(callback)

    def spend(self, key: str, until: float) -> bool:
        """Use *key*, and return whether this was its first use, anywhere, and in time."""
        now = self._clock()
        if not now < until:
            return False
        seconds = scripts.seconds_until(until, now)
        return self._ask("SET", f"{scripts.TAG}:spent:{key}", "1", "NX", "EX", seconds) is not None

    def tallies(self, *runs: Run) -> tuple[Tally, ...]:
        """Return what these runs have done so far, as the server has it now; see `Store.tallies`."""
        rows = self._ask("MGET", *map(scripts.tally_key, runs))
        try:
            return tuple(map(scripts.tally_of, rows))
        except ValueError as error:
            raise _unavailable(error) from error

    def exchange(self, *exchanges: Exchange) -> bool:
        """Put tallies in the place of those that were read, all or none; see `Store.exchange`."""
        keys, arguments = scripts.exchanging(exchanges, token_hex(8), self._clock())
        return bool(self._ask("EVAL", scripts.EXCHANGE, len(keys), *keys, *arguments) == 1)

    def record_run(self, run: RunRecord) -> None:
        """Keep a run that is about to begin; see `Store.record_run`."""
        self._mirror.require_mintable(run)
        self._prune()
        field, record = json.dumps((run.issuer, run.run_id)), json.dumps(asdict(run))
        if not self._run(scripts.RECORD, field, record, repr(run.ends_at + KEPT_SECONDS)):
            raise Refusal(Reason.REVOKED, "a run of this id was recorded before")

    def used(self, invocation: Invocation) -> None:
        """Count a call of a run that is on record; the store's thread writes it."""
        self._unwritten.used(invocation)

    def runs(self) -> tuple[RunRecord, ...]:
        """Return every run on record, with its state, in the order in which they began."""

        def read() -> list[RunRecord]:
            return sorted(self._records(None), key=lambda run: run.issued_at)

        return judged(read, now=self._clock(), link_ended=self._mirror.link_ended)

    def _records(self, run: tuple[str, str] | None) -> Iterable[RunRecord]:
        if run is None:
            rows, settled, used, calls = (
                _pairs(self._ask("HGETALL", key(name))) for name in ("runs", "settled", "used", "calls")
            )
        else:
            field = json.dumps(run)
            row = self._ask("HGET", key("runs"), field)
            rows, settled, used, calls = ({} if row is None else {field: row}), {}, {}, {}
        for field, row in rows.items():
            given = json.loads(row)
            given |= {"ancestors": tuple(given["ancestors"]), "state": RunState(given["state"])}
            if field in settled:
                state, ended_at, reason = json.loads(settled[field])
                given |= {"state": RunState(state), "ended_at": ended_at, "reason": reason}
            if field in used:
                given |= {"used_at": float(used[field]), "calls": int(calls[field])}
            yield RunRecord(**given)

    def close(self) -> None:
        """Write what is left, and let go of the connections; afterwards the store is unavailable."""
        if not self._closed:
            self._follower.close()
            self._write_late(self._monotonic())
        self._closed = True
        self._mirror.close()
        self._client.close()
        self._stream.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Refusal(Reason.STORE_UNAVAILABLE, "the store was closed")


def _client(url: str, seconds: float) -> Any:
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in _SCHEMES:
        message = f"`url` wants one of {', '.join(sorted(_SCHEMES))}, got `{scheme}`: write valkey://host:6379"
        raise ConfigurationError(message)
    try:
        return redis.Redis.from_url(
            f"{_SCHEMES[scheme]}://{rest}",
            protocol=2,
            decode_responses=True,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            # Twice at once, since a connection from before a restart is dead; then it is down.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        # Its text may quote a part of a password, such as what comes before a slash in it.
        message = "`url` cannot be read: write valkey://host:6379/0"
        raise ConfigurationError(message) from None


def _ended(field: str, cutoff: str) -> Ended:
    issuer, kind, name = json.loads(field)
    return Ended(issuer=issuer, kind=Kind(kind), name=name, cutoff=_number(cutoff))


def _text(moment: float | None) -> str:
    return "" if moment is None else repr(float(moment))


def _number(text: str) -> float | None:
    return None if text == "" else float(text)


def _pairs(answer: Any) -> dict[str, str]:
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


def _forbidden(error: BaseException | None) -> bool:
    """Tell whether the server refused because of who asked: at once, or inside of a script."""
    return isinstance(error, redis.exceptions.NoPermissionError) or "ACL failure in script" in str(error)


def _unavailable(error: Exception) -> Refusal:
    return Refusal(Reason.STORE_UNAVAILABLE, f"{type(error).__name__}: {error}")
