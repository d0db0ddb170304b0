"""The local issuer is trusted where the code says so, on this host, and only where its ends are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard import ConfigurationError, Guard, Issuer, MemoryLedger, SQLiteStore, State, UnsafeLocalIssuer
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import ISSUER, local_issuer
from agentguard.lifecycle.store import MemoryStore
from agentguard.state import UnsafeMemoryState
from tests.world import make_world, meta, write_policies

ALL = '@id("all") permit (principal, action, resource);'
LOOPBACK = "http://127.0.0.1:8000/mcp"

ELSEWHERE = [
    "https://records.example/mcp",
    "http://records.example/mcp",
    "http://10.0.0.1/mcp",
    "http://0.0.0.0:8000/mcp",
    "http://localhost.evil.example/mcp",
    "http://127.0.0.1.evil.example/mcp",
    "http://127.0.0.1@evil.example/mcp",
    "http://[::ffff:10.0.0.1]/mcp",
    "http://[::1/mcp",
    "ftp://localhost/mcp",
    "file:///mcp",
    "localhost",
    "api://records",
    "urn:agentguard:stdio",
    "",
]
HERE = [LOOPBACK, "http://localhost/mcp", "https://localhost:8443/mcp", "http://[::1]:8000/mcp", "http://127.9.9.9/"]


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Return a folder of policies."""
    return write_policies(tmp_path / "policies", ALL, types=None)


@pytest.mark.parametrize("audience", ELSEWHERE)
def test_audience_that_is_not_on_this_host_is_refused(audience: str, policies: Path, tmp_path: Path) -> None:
    """By the guard that would believe it, and by the issuer that would sign it."""
    local = UnsafeLocalIssuer(tmp_path / "local")

    with pytest.raises(ConfigurationError, match="the local issuer is for stdio servers and URLs on loopback"):
        Guard(policies, issuer=local, audience=audience, state=state_of(local))
    with pytest.raises(ConfigurationError, match="the local issuer is for stdio servers and URLs on loopback"):
        local_issuer(tmp_path / "local", audience=audience)
    local.store.close()


@pytest.mark.parametrize("audience", [*HERE, None, stdio_audience("records")])
def test_audience_on_this_host_is_taken(audience: str | None, policies: Path, tmp_path: Path) -> None:
    """Loopback by name or number, and a process of one's own."""
    local = UnsafeLocalIssuer(tmp_path / "local")

    guard = Guard(policies, issuer=local, audience=audience, state=state_of(local))

    assert list(guard._verifier.issuers) == [ISSUER]
    local.store.close()


def test_server_that_others_reach_at_its_own_address_is_refused(policies: Path, tmp_path: Path) -> None:
    """A loopback audience behind a public address would vouch for calls from anywhere."""
    local = UnsafeLocalIssuer(tmp_path / "local")
    guard = Guard(policies, issuer=local, audience=LOOPBACK, state=state_of(local))

    with pytest.raises(ConfigurationError, match=r"got `https://records\.example/mcp`"):
        guard.http_auth(resource_url="https://records.example/mcp")
    assert guard.http_auth()["auth"].resource_server_url is not None
    local.store.close()


def state_of(local: UnsafeLocalIssuer) -> State:
    """Return state with the local issuer's own store."""
    return State(store=local.store, ledger=MemoryLedger(), key=bytes(32))


def states(folder: Path) -> dict[str, State]:
    """Return states with every store but the local issuer's."""
    key, ledger = bytes(32), MemoryLedger()
    return {
        "memory": UnsafeMemoryState(),
        "memory by hand": State(store=MemoryStore(clock=lambda: 0), ledger=ledger, key=key),
        "another file": State(store=SQLiteStore(folder / "other" / "store.db"), ledger=ledger, key=key),
    }


def test_guard_that_would_not_see_the_ends_of_local_runs_is_refused(policies: Path, tmp_path: Path) -> None:
    """A run that was revoked by a command would go on."""
    local = UnsafeLocalIssuer(tmp_path / "local")
    for name, state in states(tmp_path).items():
        with pytest.raises(ConfigurationError, match="pass state=") as refused:
            Guard(policies, issuer=local, audience=LOOPBACK, state=state)
        assert f"`{tmp_path}/local/store.db`" in str(refused.value), name
        state.store.close()
    local.store.close()


@pytest.mark.parametrize("state", [None, MemoryStore(clock=lambda: 0)])
def test_what_is_no_state_at_all_is_refused(state: Any, policies: Path, tmp_path: Path) -> None:
    """As by any guard."""
    local = UnsafeLocalIssuer(tmp_path / "local")

    with pytest.raises(ConfigurationError, match="pass state=FOLDER"):
        Guard(policies, issuer=local, audience=LOOPBACK, state=state)
    local.store.close()


def test_folder_takes_the_store_in_which_local_runs_are_ended(policies: Path, tmp_path: Path) -> None:
    """The evidence lies in the folder, and no second store does."""
    local = UnsafeLocalIssuer(tmp_path / "local")

    guard = Guard(policies, issuer=local, audience=LOOPBACK, state=tmp_path / "state")

    assert guard.state.store is local.store
    assert not (tmp_path / "state" / "store.db").exists()
    assert list((tmp_path / "state" / "evidence").glob("*.db"))
    guard.state.close()


def test_store_of_the_same_file_is_taken_whatever_it_is_called(policies: Path, tmp_path: Path) -> None:
    """A link to the folder leads to the same ends."""
    local = UnsafeLocalIssuer(tmp_path / "local")
    (tmp_path / "link").symlink_to(tmp_path / "local")
    store = SQLiteStore(tmp_path / "link" / "store.db")
    state = State(store=store, ledger=MemoryLedger(), key=bytes(32))

    assert Guard(policies, issuer=local, state=state).state is state
    store.close()
    local.store.close()


@pytest.mark.parametrize("given", [{}, {"AGENTGUARD_ISSUER": ISSUER, "AGENTGUARD_UNSAFE_LOCAL": "1"}])
async def test_environment_makes_no_guard_trust_the_local_issuer(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of the local issuer is refused by a guard that trusts another one, wherever the folder is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    issuer = local_issuer(audience=stdio_audience("records"))
    world = make_world(tmp_path / "policies", agent=None, attach=False)
    monkeypatch.setenv("AGENTGUARD_TOKEN", issuer.begin(agent="reader", tools=["read"]).token())
    world.guard.attach(world.server)

    async with Client(world.server) as client:
        answer = await client.call_tool("read", {"record_id": "r1"})

    assert meta(answer)["reason"] == "unauthenticated"
    assert world.ran == []
    assert issuer.store is not None
    issuer.store.close()


async def test_forger_of_the_local_name_is_refused(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name proves nothing without the key."""
    local = UnsafeLocalIssuer(tmp_path / "local")
    guard = Guard(policies, issuer=local, state=state_of(local))
    server = MCPServer("records")
    ran = []

    @server.tool()
    @guard.tool
    def read() -> None:
        ran.append("read")

    forger = Issuer(issuer=ISSUER, audience=stdio_audience("records"))
    monkeypatch.setenv("AGENTGUARD_TOKEN", forger.mint(agent="reader", grant="permit (principal, action, resource);"))
    guard.attach(server)

    async with Client(server) as client:
        answer = await client.call_tool("read", {})

    assert meta(answer)["reason"] == "unauthenticated"
    assert ran == []
    local.store.close()
