from __future__ import annotations

import os
import time
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client, MCPError

from agentguard.adapters import client as adapter
from agentguard.adapters.client import InheritedRun, carry, inherited_run
from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import Reason
from agentguard.state import State, UnsafeMemoryState
from tests.tokens import Clock
from tests.world import AUDIENCE, ERAS, ISSUER, Era, World, make_world, meta, served, text

TOOLS = ["read", "export"]


def present() -> Clock:
    """Return a clock that stands at this second: over HTTP the SDK looks at the system's, too."""
    return Clock(int(time.time()))


def make(folder: Path, clock: Clock) -> World:
    """Return a guarded server and an issuer that share a store and a clock."""
    state = State(store=MemoryStore(clock=clock), ledger=MemoryLedger(), key=bytes(32))
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=state.store, clock=clock)
    return make_world(folder, issuer=issuer, state=state, clock=clock, agent=None)


def mode(era: Era) -> str:
    """Return how a client asks for an era."""
    return "legacy" if era == "2025-11-25" else era


@pytest.mark.parametrize("era", ERAS)
async def test_client_acts_as_its_run_past_the_renewal_of_its_token(era: Era, tmp_path: Path) -> None:
    """One session, several tokens, one principal, until the run's own end."""
    clock = present()
    world = make(tmp_path, clock)

    async with (
        served(world) as url,
        world.issuer.run(agent="reader", tools=TOOLS, ends_in=1000) as run,
        Client(run.http(url), mode=mode(era)) as client,
    ):
        for later in (0, 250, 500, 900):
            clock.now = run.facts.began + later
            answer = await client.call_tool("read", {"record_id": "r1"})
            assert not answer.is_error
        clock.now = run.facts.ends_at
        with pytest.raises(MCPError, match="the run is over"):
            await client.call_tool("read", {"record_id": "r1"})

    decided = [record for record in world.records() if record["agentguard.decision.reason"] == "permit"]
    assert len({record["agentguard.invocation.id"] for record in decided}) == 4
    assert {record["agentguard.run.id"] for record in decided} == {run.id}
    assert {record["agentguard.run.ends_at"] for record in decided} == {run.facts.ends_at}


@pytest.mark.parametrize("era", ERAS)
async def test_client_of_a_run_that_was_ended_is_told_so_and_sends_nothing(era: Era, tmp_path: Path) -> None:
    """The arguments of a call that would be refused anyway do not leave the process."""
    world = make(tmp_path, present())

    async with (
        served(world) as url,
        world.issuer.run(agent="reader", tools=TOOLS) as run,
        Client(run.http(url), mode=mode(era)) as client,
    ):
        await client.call_tool("read", {"record_id": "r1"})
        seen = len(world.records())
        run.end()
        with pytest.raises(MCPError, match="the run is over"):
            await client.call_tool("read", {"record_id": "r1"})

    assert len(world.records()) == seen


async def test_token_that_was_kept_is_refused_after_the_run(tmp_path: Path) -> None:
    """Leaving the block ends what was copied out of it."""
    world = make(tmp_path, present())

    async with served(world) as url:
        async with world.issuer.run(agent="reader", tools=TOOLS) as run:
            kept = run.token()
        async with Client(carry(url, lambda: kept), mode="2026-07-28") as client:
            answer = await client.call_tool("read", {"record_id": "r1"})

    assert meta(answer)["reason"] == "ended"
    assert world.ran == []


async def test_child_may_do_less_over_the_wire(tmp_path: Path) -> None:
    """Its grant and its parent's both bind, on the server."""
    world = make(tmp_path, present())

    async with (
        served(world) as url,
        world.issuer.run(agent="reader", tools=["read"]) as parent,
        parent.delegate(agent="reader", grant="permit (principal, action, resource);") as child,
        Client(child.http(url), mode="2026-07-28") as client,
    ):
        allowed = await client.call_tool("read", {"record_id": "r1"})
        denied = await client.call_tool("export", {})

    assert not allowed.is_error
    assert "Denied by policy" in text(denied)
    assert world.ran == ["read r1"]


@pytest.mark.parametrize("ends", ["run", "parent"])
async def test_end_of_a_run_stops_its_call_in_flight(ends: str, tmp_path: Path) -> None:
    """Over HTTP, in the middle of the tool; and with a run, what it delegated."""
    entered = anyio.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def patient() -> str:
            entered.set()
            await anyio.sleep_forever()
            return "secret"

    state = UnsafeMemoryState()
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=state.store)
    policies = '@id("all") permit (principal, action, resource);'
    world = make_world(tmp_path, policies=policies, issuer=issuer, state=state, agent=None, extend=extend)
    told = []

    with anyio.fail_after(20):
        async with (
            served(world) as url,
            issuer.run(agent="reader", tools=["patient"]) as parent,
            parent.delegate(agent="helper", tools=["patient"]) as child,
            Client(child.http(url), mode="2026-07-28") as client,
            anyio.create_task_group() as tasks,
        ):

            async def call() -> None:
                told.append(await client.call_tool("patient", {}))

            tasks.start_soon(call)
            await entered.wait()
            await anyio.to_thread.run_sync((child if ends == "run" else parent).end)

    assert meta(told[0])["reason"] == "ended"
    (outcome,) = world.records("outcome")
    assert outcome["agentguard.execution.outcome"] == "cancelled"


class Network(httpx2.AsyncBaseTransport):
    """Answers everything, and keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[httpx2.Request] = []
        self.closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        self.sent.append(request)
        return httpx2.Response(200)

    async def aclose(self) -> None:
        """Close."""
        self.closed = True


@pytest.mark.parametrize(
    ("url", "carried"),
    [
        ("https://records.example/mcp", True),
        ("https://records.example:443/other", True),
        ("https://records.example:444/mcp", False),
        ("http://records.example/mcp", False),
        ("https://evil.example/mcp", False),
    ],
)
async def test_token_goes_to_its_own_origin_alone(url: str, carried: bool) -> None:
    """Wherever a redirect leads."""
    network = Network()
    bearer = adapter._Bearer(httpx2.URL("https://records.example/mcp"), lambda: "t", network)

    async with httpx2.AsyncClient(transport=bearer) as http:
        await http.get(url)

    (sent,) = network.sent
    assert sent.headers.get("Authorization") == ("Bearer t" if carried else None)
    assert network.closed


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.EXPIRED, "the run is over"),
        (Reason.REVOKED, "the run is over"),
        (Reason.STORE_UNAVAILABLE, "the run's token cannot be renewed now"),
    ],
)
async def test_request_without_a_token_is_answered_here(reason: Reason, message: str) -> None:
    """As a refusal, and not as a failure that takes the session down."""

    def refuse() -> str:
        raise Refusal(reason, "a detail that stays")

    network = Network()
    bearer = adapter._Bearer(httpx2.URL("https://records.example/mcp"), refuse, network)

    async with httpx2.AsyncClient(transport=bearer) as http:
        answer = await http.post("https://records.example/mcp")

    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == message
    assert "detail" not in answer.text
    assert network.sent == []


@pytest.mark.parametrize(
    "url",
    ["http://records.example/mcp", "http://10.0.0.1/mcp", "ftp://localhost/mcp", "records.example", "", "http://[::1"],
)
def test_url_that_would_show_the_token_to_the_network_is_refused(url: str) -> None:
    """Https, or this machine."""
    with pytest.raises(ConfigurationError) as refused:
        carry(url, lambda: "t")

    assert str(refused.value) == (
        f"a run's token goes to https, or to http on loopback, got `{url}`: give the server's https URL"
    )


@pytest.mark.parametrize(
    "url", ["https://records.example/mcp", "http://localhost:1/mcp", "http://127.0.0.1/mcp", "http://[::1]:8000/mcp"]
)
def test_url_that_keeps_the_token_private_is_taken(url: str) -> None:
    """Nothing is opened yet."""
    assert hasattr(carry(url, lambda: "t"), "__aenter__")


async def test_inherited_run_acts_past_renewals_and_ends_where_it_was_begun(tmp_path: Path) -> None:
    """An agent that was started with a run's environment needs nothing else, for as many sessions as it likes."""
    clock = present()
    world = make(tmp_path, clock)

    async with served(world) as url, world.issuer.run(agent="reader", tools=TOOLS, ends_in=1000) as run:
        environ = {**run.environment(), "PATH": "/bin"}
        inherited = inherited_run(environ, clock=clock)
        for later in (0, 250, 500):
            clock.now = run.facts.began + later
            refresh(run)
            async with Client(inherited.http(url)) as client:
                answer = await client.call_tool("read", {"record_id": "r1"})
            assert not answer.is_error
        async with Client(inherited.http(url)) as client:
            await anyio.to_thread.run_sync(run.end)
            seen = len(world.records())
            with pytest.raises(MCPError, match="the run is over"):
                await client.call_tool("read", {"record_id": "r1"})

    assert environ == {"PATH": "/bin"}
    assert len(world.records()) == seen
    assert {record["agentguard.run.id"] for record in world.records()} == {run.id}


def refresh(run: Run) -> None:
    """Write the present token, as the file's own thread does every second."""
    assert run._file is not None
    run._file.refresh()


def taken(environ: dict[str, str], clock: Clock) -> InheritedRun:
    """Take a run out of an environment."""
    return inherited_run(environ, clock=clock)


def refused(run: InheritedRun) -> Reason:
    """Return why there is no token."""
    with pytest.raises(Refusal) as refusal:
        run.token()
    return refusal.value.reason


def test_token_in_the_environment_serves_until_it_expires(tmp_path: Path) -> None:
    """Nobody renews it, so then the run is over for whoever has it."""
    clock = present()
    token = make(tmp_path, clock).token("reader")
    run = taken({"AGENTGUARD_TOKEN": token}, clock)

    assert run.token() == token
    clock.now += 299.5
    assert run.token() == token
    clock.now += 0.5
    assert refused(run) is Reason.EXPIRED


def test_token_file_that_is_not_renewed_is_no_end_of_the_run(tmp_path: Path) -> None:
    """Its keeper may come back; until then nothing is sent. Its being taken away is the end."""
    clock = present()
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(make(tmp_path / "world", clock).token("reader"))
    run = taken({"AGENTGUARD_TOKEN_FILE": str(file)}, clock)

    assert run.token() == file.read_text()
    clock.now += 300
    assert refused(run) is Reason.UNAUTHENTICATED
    file.unlink()
    assert refused(run) is Reason.REVOKED


def test_token_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    """As on a server: a token that leaked is not the run's alone."""
    clock = present()
    file = tmp_path / "token"
    file.write_text(make(tmp_path / "world", clock).token("reader"))
    file.chmod(0o644)

    assert refused(taken({"AGENTGUARD_TOKEN_FILE": str(file)}, clock)) is Reason.UNAUTHENTICATED


def test_text_that_is_no_token_is_not_sent() -> None:
    """Whatever somebody left in the variable."""
    assert refused(taken({"AGENTGUARD_TOKEN": "secret of another kind"}, present())) is Reason.INVALID_TOKEN


@pytest.mark.parametrize("environ", [{}, {"AGENTGUARD_TOKEN": ""}, {"AGENTGUARD_TOKEN_FILE": ""}])
def test_environment_without_a_run_is_refused(environ: dict[str, str]) -> None:
    """At the start, and not with the first call."""
    with pytest.raises(
        ConfigurationError, match=r"the environment holds no run: .* start this program with `agentguard"
    ):
        inherited_run(environ)


def test_run_is_taken_out_of_this_process_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent starts does not act as it, and a second taker is told."""
    monkeypatch.setenv("AGENTGUARD_TOKEN", "x")
    monkeypatch.setenv("AGENTGUARD_TOKEN_FILE", "/nowhere/token")

    inherited_run()

    assert not {"AGENTGUARD_TOKEN", "AGENTGUARD_TOKEN_FILE"} & set(os.environ)
    with pytest.raises(ConfigurationError, match="take the run out once"):
        inherited_run()


def test_inherited_run_is_not_shown_to_the_network() -> None:
    """The same rule as for a run of one's own."""
    run = taken({"AGENTGUARD_TOKEN": "x"}, present())

    with pytest.raises(ConfigurationError, match="https, or to http on loopback"):
        run.http("http://records.example/mcp")
