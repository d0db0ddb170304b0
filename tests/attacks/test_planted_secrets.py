"""Evidence is read by many: it must not hand out what it was made of.

Secrets are planted in all that a server, an issuer and the commands get to see, and all
that they emit is searched for them: plain, encoded, and as hashes that have no key.

What may appear by design, and is no secret here: the agent, the user, the task, the
purpose, the run and the ``jti`` of a token; the ids, the owners and the advice of
policies; the label of a policy set; names of tools, agents' action names and what a caller
writes for them, the JSON-RPC id, the session id; the ids of resources whose type is not
private; the class of an exception; the reason that somebody gave for ending a run. An
approval by a person is not asked for by the guard itself; a tool's own question is.
What a caller is told of an exception, and what the framework logs of it, is the framework's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from agentguard.credentials.live import Live
from agentguard.errors import Refusal
from agentguard.evidence import trail
from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.evidence.metrics import Metrics
from agentguard.evidence.record import decision_attributes
from agentguard.identity.sources import META_KEY, stdio_audience
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import MemoryStore
from agentguard.steps import denial as words
from tests import leaks
from tests.canaries import Canaries, canonical, joined
from tests.cli.commands import agentguard
from tests.evidence.exporting import metering, tracing
from tests.evidence.receiver import receiving
from tests.lifecycle.service import Service
from tests.planted import SHOWN, Planted, build, plant, token, write
from tests.tokens import make_jwks, sign
from tests.world import AUDIENCE, ISSUER, SERVER, meta, serving, text

ROOT: Final = Path(__file__).parents[2]
STDIO: Final = stdio_audience(SERVER)


class Heard(logging.Handler):
    """Keeps every record that our code logs, from any logger, as text and as what it was made of."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        if record.name.startswith("agentguard") or f"{os.sep}agentguard{os.sep}" in record.pathname:
            self.lines.append(self.format(record))
            self.lines.append(repr(record.__dict__))


@contextmanager
def listening() -> Iterator[list[str]]:
    """Listen to the whole log, down to what only a developer wants to see."""
    heard, root, ours = Heard(), logging.getLogger(), logging.getLogger("agentguard")
    before = root.level, ours.level
    root.addHandler(heard)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    try:
        yield heard.lines
    finally:
        root.removeHandler(heard)
        root.setLevel(before[0])
        ours.setLevel(before[1])


def names_of(place: str) -> dict[str, str]:
    """Return the names that may be shown, which prove that what is searched has something in it."""
    return {name: f"{place}-{name}-{os.urandom(4).hex()}" for name in SHOWN}


def texts(folder: Path) -> bytes:
    """Return the raw bytes of every file below a folder."""
    return joined(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


class Calls:
    """Makes every kind of call through one client, each with secrets of its own in its arguments."""

    def __init__(self, canaries: Canaries, place: str, client: Client, told: list[object], **extra: Any) -> None:
        self.canaries = canaries
        self.place = place
        self.client = client
        self.told = told
        self.extra = extra

    def secret(self, what: str) -> str:
        """Return a new secret of this transport."""
        return self.canaries.plant(f"{self.place}, {what}")

    async def call(self, tool: str, *, reason: str | None, **arguments: Any) -> Any:
        """Call a tool; where it is denied, keep what the caller is told, which is searched too."""
        # Whoever has a hash without a key can try arguments until one fits.
        digest = hashlib.sha256(canonical(arguments).encode()).hexdigest()
        self.canaries.planted[f"{self.place}, hash of the arguments of {tool}, {digest[:8]}"] = digest
        result = await self.client.call_tool(tool, arguments, **self.extra)
        if reason is not None:
            assert meta(result)["reason"] == reason, (tool, text(result))
            self.told.append(result.model_dump_json())
        return result

    def everything(self) -> dict[str, Any]:
        """Return all arguments of the tool that takes everything."""
        key, pin = self.secret("key of an argument"), self.canaries.pin(f"{self.place}, short argument")
        return {
            "record_id": self.secret("id of a private resource"),
            "text": self.secret("argument"),
            "details": {"inner": [self.secret("argument in a list"), pin], "by": {key: self.secret("value of a key")}},
            "hidden": self.secret("argument that policies do not see"),
        }

    async def all(self) -> None:
        """Be allowed, and denied in every way."""
        allowed = await self.call("allowed", reason=None, **self.everything())
        assert self.canaries.planted["result"] in text(allowed), text(allowed)
        await self.call("forbidden", reason="denied", text=self.secret("argument of a denied call"))
        number = self.canaries.take(f"{self.place}, number", f"8999999999999{ord(self.place[0]):03}123")
        await self.call("broken", reason="denied", number=int(number))
        await self.call("leveled", reason="denied", record_id=self.secret("private id of a policy's error"))
        for kind in ("raises", "wrong", "nobody"):
            secret = self.canaries.take(f"{self.place}, id that the loader {kind}", f"{kind} {os.urandom(8).hex()}")
            await self.call("allowed", reason="denied", **{**self.everything_else(kind), "record_id": secret})
        raising = self.canaries.take(f"{self.place}, argument of raising facts", f"raises {os.urandom(8).hex()}")
        await self.call("allowed", reason="invalid_argument", **{**self.everything_else("facts"), "text": raising})
        unfit = {"record_id": [self.secret("unfit argument")], self.secret("unknown argument"): 1}
        await self.call("allowed", reason="invalid_argument", **unfit)
        escape = {"__extn": {"fn": self.secret("escape of Cedar"), "arg": 1}}
        await self.call("forbidden", reason="invalid_argument", text=escape)
        await self.call("bare", reason="denied", text=self.secret("argument of what is not guarded"))
        await self.call("unknown", reason="denied", text=self.secret("argument of an unknown tool"))
        for tool in ("failing", "grouped"):
            failed = await self.call(tool, reason=None, text=self.secret(f"argument of {tool}"))
            assert failed.is_error

    def everything_else(self, what: str) -> dict[str, Any]:
        """Return fitting arguments for a call that is denied for another one."""
        secret = self.secret(f"argument beside {what}")
        return {"record_id": secret, "text": secret, "details": {"inner": [secret], "by": {}}, "hidden": secret}


def bearing(bearer: str, canaries: Canaries | None = None) -> dict[str, Any]:
    """Return the ``_meta`` of a request, with a token and perhaps more secrets."""
    more = (
        {} if canaries is None else {"test/secret": canaries.plant("_meta"), "baggage": f"k={canaries.word('baggage')}"}
    )
    return {META_KEY: bearer, **more}


async def drive_memory(world: Planted, canaries: Canaries, shown: dict[str, str], told: list[object]) -> None:
    """Make every call in memory, with tokens of ``_meta``; then end runs in every way."""
    good = token(canaries, "memory token", shown, STDIO)

    async def answer(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"word": canaries.plant("person's answer")})

    async with Client(world.server, mode="legacy", elicitation_callback=answer) as client:
        calls = Calls(canaries, "memory", client, told, meta=bearing(good, canaries))
        await calls.all()
        await calls.call("asking", reason=None, text=calls.secret("argument of a question"))
        await refused_in_memory(calls, canaries, shown)

        await endings(calls, world, shown)


async def endings(calls: Calls, world: Planted, shown: dict[str, str]) -> None:
    """Cancel a call, have the result of another withheld since its run is ended, and call once more."""
    world.entered.clear()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(wait_and_cancel, world, scope)
            await calls.call("patient", reason=None, text=calls.secret("cancelled argument"))
    assert scope.cancelled_caught

    async def withheld() -> None:
        await calls.call("stubborn", reason="ended", text=calls.secret("withheld argument"))

    world.entered.clear()
    world.leave.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(withheld)
        await anyio.to_thread.run_sync(world.entered.wait)
        world.guard.revoke(shown["run"], reason="over")
        world.leave.set()
    await calls.call("forbidden", reason="ended", text=calls.secret("argument of a revoked run"))


async def wait_and_cancel(world: Planted, scope: anyio.CancelScope) -> None:
    """Cancel a call once its tool has begun."""
    await anyio.to_thread.run_sync(world.entered.wait)
    scope.cancel()


async def refused_in_memory(calls: Calls, canaries: Canaries, shown: dict[str, str]) -> None:
    """Bring tokens that are refused."""
    now = int(time.time())
    changes: dict[str, dict[str, Any]] = {
        "expired token": {"iat": now - 900, "exp": now - 600, "run_exp": now - 500},
        "token for another server": {"aud": canaries.word("foreign audience")},
        "token of a stranger": {"iss": f"https://{canaries.word('foreign issuer')}.example"},
        "token of wrong form": {"exp": canaries.plant("time that is text")},
        "token with a broken grant": {
            "authorization_details": [{"type": "agentguard_grant", "cedar": canaries.plant("broken grant")}]
        },
    }
    bad = {place: token(canaries, place, shown, STDIO, **change) for place, change in changes.items()}
    body, _, signature = bad["token of wrong form"].rpartition(".")
    bad["changed signature"] = f"{body}.{canaries.take('forged signature', signature[::-1])}"
    bad["no token"] = canaries.word("text in place of a token")
    bad["unknown key"] = sign({}, header={"kid": canaries.word("key id"), canaries.word("header of a token"): 1})
    for place, bearer in bad.items():
        calls.extra = {"meta": bearing(bearer)}
        reason = "ended" if place == "expired token" else "unauthenticated"
        denied = "denied" if place == "token with a broken grant" else reason
        await calls.call("forbidden", reason=denied, text=calls.secret(f"argument with {place}"))
    calls.extra = {"meta": bearing(token(canaries, "memory token again", shown, STDIO))}


@asynccontextmanager
async def http_calls(
    world: Planted, canaries: Canaries, shown: dict[str, str], told: list[object]
) -> AsyncIterator[tuple[Calls, str]]:
    """Give a client over HTTP whose every header is a secret, and the server's address."""
    headers = {
        "Authorization": f"Bearer {token(canaries, 'HTTP token', shown, AUDIENCE)}",
        "X-Api-Key": canaries.word("header"),
        "Cookie": f"session={canaries.word('cookie')}",
        "User-Agent": canaries.word("user agent"),
        "Baggage": f"user={canaries.word('baggage of a request')}",
    }
    async with (
        serving(world.server) as url,
        httpx2.AsyncClient(headers=headers, params={"key": canaries.word("query")}, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode="2026-07-28") as client,
    ):
        yield Calls(canaries, "HTTP", client, told), url


async def refused_over_http(canaries: Canaries, shown: dict[str, str], url: str, told: list[object]) -> None:
    """Bring bearers that are refused, and what is none."""
    now = int(time.time())
    bearers = {
        "Basic": canaries.word("password of basic authentication"),
        "Bearer": canaries.word("bearer that is no token"),
        "bearer": token(canaries, "expired bearer", shown, AUDIENCE, iat=now - 900, exp=now - 600, run_exp=now - 500),
        "Bearer ": token(canaries, "bearer for another server", shown, "https://elsewhere.example/mcp"),
    }
    async with httpx2.AsyncClient(timeout=30) as http:
        for scheme, bearer in bearers.items():
            answer = await http.post(url, headers={"Authorization": f"{scheme} {bearer}"}, json={})
            assert answer.status_code == 401
            told.append(repr(answer.headers) + answer.text)


def shown_by_commands(state: Path, out: Path) -> dict[str, bytes]:
    """Return what the commands make of a state folder."""
    with receiving() as receiver:
        forwarded = agentguard("evidence", "forward", str(state), "--to", receiver.url, "--once")
        spans = joined(span.SerializeToString() for span in receiver.spans)
        rest = joined([receiver.resources, receiver.headers])
    assert forwarded.status == 0, forwarded.stderr
    page = out / "report.html"
    ran = {
        "show --json": agentguard("evidence", "show", str(state), "--json"),
        "show": agentguard("evidence", "show", str(state), terminal=True),
        "show --format ocsf": agentguard("evidence", "show", str(state), "--format", "ocsf"),
        "verify": agentguard("evidence", "verify", str(state), "--json"),
        "report": agentguard("evidence", "report", str(page), str(state), "--policies", str(out / "policies")),
        "runs --json": agentguard("runs", "--all", "--json", "--store", str(state / "store.db")),
    }
    for name, one in ran.items():
        assert one.status == 0, (name, one.stderr)
    written = {name: joined([one.stdout, one.stderr]) for name, one in ran.items()}
    return {**written, "report.html": page.read_bytes(), "forwarded spans": spans, "forwarded": rest}


async def test_nothing_that_a_server_emits_holds_a_secret(tmp_path: Path) -> None:
    """In memory and over HTTP: spans, metrics, log, evidence, what is forwarded, reported, and told to callers."""
    canaries, told = Canaries(), list[object]()
    plant(canaries)
    write(tmp_path / "policies", canaries)
    in_memory, over_http = names_of("memory"), names_of("http")
    tracer, exporter = tracing()
    meter, reader = metering()
    with listening() as log:
        world = build(tmp_path, canaries, tracer_provider=tracer, meter_provider=meter)
        with anyio.fail_after(60):
            async with http_calls(world, canaries, over_http, told) as (calls, url):
                await calls.all()
                await endings(calls, world, over_http)
                await refused_over_http(canaries, over_http, url, told)
            await drive_memory(world, canaries, in_memory, told)
        records = joined(entry.text for entry in world.state.ledger)  # type: ignore[attr-defined]
        world.state.close()
        shown = shown_by_commands(tmp_path / "state", tmp_path)

    spans = exporter.get_finished_spans()
    measured = reader.get_metrics_data()
    assert measured is not None
    emitted = {
        **shown,
        "records": records,
        "files": texts(tmp_path / "state"),
        "spans": joined(span.to_json() for span in spans),
        "metrics": measured.to_json().encode(),
        "log": joined(log),
        "answers to callers": joined(told),
    }

    assert canaries.found(emitted) == []
    # All that was searched has something in it, and what leads to a tool did arrive there.
    everywhere = {"records", "files", "spans", "show --json", "show --format ocsf", "forwarded spans"}
    for name in (*in_memory.values(), *over_http.values()):
        missing = {source for source in everywhere if name.encode() not in emitted[source]}
        assert not missing, (name, missing)
    assert over_http["run"].encode() in emitted["report.html"]
    assert all(emitted.values())
    outcomes = {"completed", "failed", "cancelled", "withheld"}
    assert all(f'execution.outcome":"{outcome}'.encode() in records for outcome in outcomes)
    assert len(spans) > 50
    arrived = {"argument", "argument in a list", "key of an argument", "value of a key", "short argument"}
    arrived |= {"id of a private resource", "argument that policies do not see"}
    for place in arrived:
        assert {f"memory, {place}", f"HTTP, {place}"} <= canaries.reached, place
    for place in ("memory token", "HTTP token"):
        assert {f"{place}, mapped claim", f"{place}, scope", f"{place}, grant's comment"} <= canaries.reached
    assert {"header", "cookie", "query", "user agent", "_meta", "person's answer"} <= canaries.reached
    assert {"HTTP token, its signature", "memory token, its claims"} <= canaries.reached


async def test_search_would_find_every_secret_wherever_it_got_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a server that gives everything away, by what it is allowed to say."""
    canaries, told = Canaries(), list[object]()
    plant(canaries)
    write(tmp_path / "policies", canaries)
    bearer = token(canaries, "token", names_of("control"), STDIO)
    now = ""
    decide: Any = decision_attributes
    measure = Metrics.decided

    def digest(secret: str) -> str:
        return hashlib.sha256(f"run of {secret}".encode()).hexdigest()[:32]

    def decided(**facts: Any) -> dict[str, Any]:
        return {**decide(**facts), "agentguard.purpose": now, "agentguard.run.id": digest(now)}

    def measured(self: Metrics, decision: Any, *, tool: str | None, seconds: float) -> None:
        measure(self, decision, tool=now, seconds=seconds)

    # Nothing is stopped on its way out: it is the search that is tried.
    monkeypatch.setattr(Live, "add", lambda *_, **__: None)
    monkeypatch.setattr(trail, "decision_attributes", decided)
    monkeypatch.setattr(trail, "denied", lambda *_, **__: now)
    monkeypatch.setattr(Metrics, "decided", measured)
    tracer, exporter = tracing()
    meter, reader = metering()
    with listening() as log:
        world = build(tmp_path, canaries, tracer_provider=tracer, meter_provider=meter)
        async with Client(world.server, mode="2026-07-28") as client:
            calls = Calls(canaries, "control", client, told, meta=bearing(bearer))
            # One for each run, since a page for people shows the purpose of each once, and cuts what is long.
            given_away = dict(canaries.planted)
            for secret in given_away.values():
                now = secret
                monkeypatch.setattr(words, "_DO_NOT_REPEAT", now)
                await calls.call("forbidden", reason="denied", text="x")
        records = joined(entry.text for entry in world.state.ledger)  # type: ignore[attr-defined]
        world.state.close()
    measurements = reader.get_metrics_data()
    assert measurements is not None
    emitted = {
        **shown_by_commands(tmp_path / "state", tmp_path),
        "records": records,
        "files": texts(tmp_path / "state"),
        "spans": joined(span.to_json() for span in exporter.get_finished_spans()),
        "metrics": measurements.to_json().encode(),
        "log": joined(log),
        "answers to callers": joined(told),
    }
    # Let out on purpose.
    assert len(leaks.leaked()) > 1

    # A table for people shows no purpose, and whether the evidence holds or a run lives is no matter of it.
    silent = {"show", "verify", "report", "runs --json", "forwarded"}
    for source, raw in emitted.items():
        assert canaries.places(raw) == (set() if source in silent else given_away.keys()), source


@pytest.mark.parametrize(
    "form",
    [
        str,
        json.dumps,
        ascii,
        quote,
        quote_plus,
        lambda text: quote(text, safe=""),
        lambda text: json.dumps(json.dumps({"a": text})),
        lambda text: text[:20],
        lambda text: text[-20:],
        lambda text: text.upper().lower(),
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(f"a{text}b".encode()).decode(),
        lambda text: base64.urlsafe_b64encode(f'{{"a":"{text}"}}'.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(f"ab{text}".encode()).decode().rstrip("="),
        lambda text: hashlib.sha256(text.encode()).hexdigest(),
        lambda text: hashlib.sha256(json.dumps(text).encode()).hexdigest(),
        lambda text: hashlib.sha256(json.dumps([text]).encode()).hexdigest(),
        lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    ],
)
def test_search_finds_a_secret_in_every_form(form: Callable[[str], str]) -> None:
    """As it is, encoded, cut, or as a hash without a key; and it finds nothing where there is nothing."""
    canaries = Canaries()
    for secret in (canaries.plant("text"), canaries.take("word", "zq" + "0123456789abcdef" * 2), canaries.pin("pin")):
        other = Canaries()
        other.take("it", secret)
        written = form(secret)
        # Half of a short one is not searched for.
        is_found = len(secret) > 28 or len(written) >= len(secret)
        assert bool(other.found({"a": f'..."{written}"...'.encode()})) is is_found
        assert other.found({"a": form(Canaries().plant("another")).encode()}) == []


def stdio_server(place: Path, token_file: Path) -> StdioServerParameters:
    """Return how to start the server in a process of its own."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "tests.planted", str(place)],
        env={**os.environ, "AGENTGUARD_TOKEN_FILE": str(token_file)},
        cwd=ROOT,
    )


async def revoke_once_it_runs(state: Path, run: str) -> None:
    """End a run from another process, once the evidence says that its tool was allowed."""
    (chain,) = chain_files(state / "evidence")
    while not any('"patient"' in entry.text for entry in read_chain(chain)):  # noqa: ASYNC110  it has no way to tell us
        await anyio.sleep(0.02)
    with closing(SQLiteStore(state / "store.db")) as store:
        store.revoke(issuer=ISSUER, run_id=run, reason="over")


async def test_nothing_that_a_server_over_stdio_emits_holds_a_secret(tmp_path: Path) -> None:
    """What it writes to standard error, its files, and what it tells its callers."""
    canaries, told, shown = Canaries(), list[object](), names_of("stdio")
    plant(canaries)
    write(tmp_path / "policies", canaries)
    (tmp_path / "planted.json").write_text(json.dumps({"planted": canaries.planted, "jwks": make_jwks()}))
    errors, token_file = tmp_path / "stderr", tmp_path / "token"
    token_file.touch(0o600)
    good = token(canaries, "token file", shown, STDIO)
    token_file.write_text(good)
    with errors.open("w") as log, anyio.fail_after(60):
        transport = stdio_client(stdio_server(tmp_path, token_file), errlog=log)
        async with Client(transport, mode="2026-07-28") as client:
            calls = Calls(canaries, "stdio", client, told)
            await calls.all()
            refused: dict[str, dict[str, Any]] = {
                "expired": {"iat": 1, "exp": 2, "run_exp": 3},
                "misdirected": {"aud": "https://elsewhere.example"},
            }
            for place, change in refused.items():
                token_file.write_text(token(canaries, f"{place} token in a file", shown, STDIO, **change))
                expected = "ended" if place == "expired" else "unauthenticated"
                await calls.call("forbidden", reason=expected, text=calls.secret(f"argument of {place}"))
            token_file.write_text(canaries.word("text in a token's file"))
            await calls.call("forbidden", reason="unauthenticated", text=calls.secret("argument without token"))
            token_file.write_text(good)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(revoke_once_it_runs, tmp_path / "state", shown["run"])
                await calls.call("patient", reason="ended", text=calls.secret("argument of a run that is ended"))
            await calls.call("forbidden", reason="ended", text=calls.secret("argument of an ended run"))

    emitted = {
        **shown_by_commands(tmp_path / "state", tmp_path),
        "files": texts(tmp_path / "state"),
        "stderr": errors.read_bytes(),
        "answers to callers": joined(told),
    }
    assert canaries.found(emitted) == []
    for name in shown.values():
        assert all(name.encode() in emitted[source] for source in ("files", "show --json", "forwarded spans")), name
    assert shown["agent"].encode() in emitted["stderr"]
    assert b"DEBUG" in emitted["stderr"] or b"INFO denied" in emitted["stderr"]


class Leaky:
    """A store that fails with a secret in its exception, whose cause is another one."""

    def __init__(self, canaries: Canaries) -> None:
        self.store = MemoryStore(clock=time.time)
        self.canaries = canaries
        self.fails = False
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self.fails:
                self.failed += 1
                message = self.canaries.planted["store's exception"]
                raise RuntimeError(message, args, options) from OSError(5, self.canaries.planted["store's cause"])
            return getattr(self.store, name)(*args, **options)

        return call


@pytest.fixture
def leaky() -> Leaky:
    """Return a store that is well so far, and the secrets that it will tell."""
    canaries = Canaries()
    for place in ("store's exception", "store's cause", "block's exception", "block's cause"):
        canaries.plant(place)
    return Leaky(canaries)


async def test_log_of_a_run_that_cannot_be_ended_holds_no_secret(leaky: Leaky) -> None:
    """Neither what the block raised nor what the store did."""
    known = leaky.canaries.planted
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=leaky)
    with listening() as log, pytest.raises(ValueError, match="Zq") as left:  # noqa: PT012  the block is what fails
        async with issuer.run(agent="reader", tools=["read"]) as run:
            leaky.fails = True
            raise ValueError(known["block's exception"]) from KeyError(known["block's cause"])

    assert left.value.__notes__ == [f"the end of run `{run.id}` could not be kept: RuntimeError"]
    assert f"the end of run `{run.id}` could not be kept: RuntimeError was raised at " in joined(log).decode()
    assert leaky.canaries.found({"log": joined(log)}) == []


async def test_log_of_a_run_that_cannot_begin_holds_no_secret(leaky: Leaky) -> None:
    """Its evidence fails, and so does the store that is to end it."""
    known = leaky.canaries.planted

    class Failing(MemoryLedger):
        def append(self, record: Mapping[str, object]) -> Entry:
            leaky.fails = True
            raise ValueError(known["block's exception"]) from KeyError(known["block's cause"])

    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=leaky, ledger=Failing())
    with listening() as log, pytest.raises(Refusal):
        async with issuer.run(agent="reader", tools=["read"]):
            pass

    assert "could not be ended in the store: RuntimeError was raised at " in joined(log).decode()
    assert leaky.canaries.found({"log": joined(log)}) == []


async def test_log_of_the_issuers_application_holds_no_secret(leaky: Leaky) -> None:
    """Not even where a request fails in a way that nobody thought of."""
    leaky.fails = True
    service = Service(store=leaky)
    with listening() as log:
        answer = await service.exchange()

    assert (answer.status_code, leaky.failed > 0) == (500, True)
    assert "/token stopped, because RuntimeError was raised at " in joined(log).decode()
    assert leaky.canaries.found({"log": joined(log), "answer": answer.content}) == []
