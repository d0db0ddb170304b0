"""The local issuer: its folder, its key, and what a guard asks before it trusts it."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard import (
    ConfigurationError,
    Guard,
    MemoryLedger,
    SQLiteStore,
    State,
    TrustedIssuer,
    UnsafeLocalIssuer,
    UnsafeMemoryState,
)
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import ISSUER, local_folder, local_issuer
from tests.world import World, http_client, served, write_policies

AUDIENCE = "http://127.0.0.1:8000/mcp"
ALL = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def local(tmp_path: Path) -> Iterator[UnsafeLocalIssuer]:
    """Give a local issuer in a folder of the test's own."""
    local = UnsafeLocalIssuer(tmp_path / "local")
    yield local
    local.store.close()


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_STATE_HOME": "/somewhere/state"}, Path("/somewhere/state/agentguard")),
        ({"XDG_STATE_HOME": "state"}, Path.home() / ".local/state/agentguard"),
        ({"XDG_STATE_HOME": ""}, Path.home() / ".local/state/agentguard"),
        ({}, Path.home() / ".local/state/agentguard"),
    ],
)
def test_folder_is_where_the_xdg_specification_says(environ: dict[str, str], folder: Path) -> None:
    """A path that is not absolute is ignored, since it would move with the working folder."""
    assert local_folder(environ) == folder


def test_folder_of_this_process_is_found_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides find the same folder without being told."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    trusted, issuer = UnsafeLocalIssuer(), local_issuer(audience=AUDIENCE)

    assert trusted.folder == tmp_path / "agentguard" == local_folder()
    assert isinstance(issuer.store, SQLiteStore)
    assert isinstance(trusted.store, SQLiteStore)
    assert issuer.store.path == trusted.store.path
    issuer.store.close()
    trusted.store.close()


def test_key_is_made_once_for_this_user_alone(local: UnsafeLocalIssuer) -> None:
    """Everybody who comes later gets the same, and nothing else is left in the folder."""
    again = local_issuer(local.folder, store=local.store)

    assert again.jwks() == local_issuer(local.folder, store=local.store).jwks()
    assert stat.S_IMODE(local.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((local.folder / "issuer.pem").stat().st_mode) == 0o600
    assert {path.name for path in local.folder.iterdir()} <= {"issuer.pem", "store.db", "store.db-shm", "store.db-wal"}


def test_trust_is_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The weaker choice is in the log, with the file that it hangs on."""
    with caplog.at_level(logging.WARNING, "agentguard"):
        local = UnsafeLocalIssuer(str(tmp_path / "local"))

    assert caplog.messages == [
        f"the local issuer is trusted: whoever can read `{tmp_path}/local/issuer.pem` can be any agent"
    ]
    local.store.close()


def guard(folder: Path, local: UnsafeLocalIssuer, audience: str | None = AUDIENCE) -> Guard:
    """Return a guard that trusts the local issuer."""
    state = State(store=local.store, ledger=MemoryLedger(), key=bytes(32))
    return Guard(write_policies(folder / "policies", ALL, types=None), issuer=local, audience=audience, state=state)


def make_server(guard: Guard, **options: object) -> MCPServer:
    """Return a server with one tool under *guard*."""
    server = MCPServer("records", **options)  # type: ignore[arg-type]

    @server.tool()
    @guard.tool
    def read() -> str:
        """Read."""
        return "read"

    guard.attach(server)
    return server


async def test_stdio_server_acts_as_a_run_of_the_local_issuer(
    tmp_path: Path, local: UnsafeLocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs end where the guard sees it: in the folder's store, which another process opened too."""
    issuer = local_issuer(local.folder, audience=stdio_audience("records"))
    assert issuer.store is not None
    async with issuer.run(agent="reader", tools=["read"]) as run:
        monkeypatch.setenv("AGENTGUARD_TOKEN", run.token())
        server = make_server(guard(tmp_path, local, audience=None))
        async with Client(server) as client:
            allowed = await client.call_tool("read", {})
            run.end()
            assert isinstance(local.store, SQLiteStore)
            local.store.sync()
            denied = await client.call_tool("read", {})

    assert not allowed.is_error
    assert denied.is_error
    issuer.store.close()


async def test_http_server_on_loopback_takes_a_token_of_the_local_issuer(
    tmp_path: Path, local: UnsafeLocalIssuer
) -> None:
    """`http_auth` needs no URL of an authorization server: there is none."""
    issuer = local_issuer(local.folder, audience=AUDIENCE, store=local.store)
    guarded = guard(tmp_path, local)
    server = make_server(guarded, **guarded.http_auth())
    world = World(guarded, server, guarded.state, None, issuer, tmp_path)  # type: ignore[arg-type]  # it has no spans

    async with (
        issuer.run(agent="reader", tools=["read"]) as run,
        served(world) as url,
        http_client(url, run.token()) as client,
    ):
        allowed = await client.call_tool("read", {})

    assert not allowed.is_error
    assert server.settings.auth is not None
    assert str(server.settings.auth.issuer_url) == AUDIENCE


async def test_program_begins_runs_with_the_local_issuer_in_code(
    tmp_path: Path, local: UnsafeLocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same key and the same store, so a guard elsewhere takes its tokens and sees the end."""
    trusting = UnsafeLocalIssuer(local.folder)
    issuer = local.issuer(audience=stdio_audience("records"))

    async with issuer.run(agent="reader", tools=["read"]) as run, run.delegate(agent="helper", tools=["read"]) as child:
        monkeypatch.setenv("AGENTGUARD_TOKEN", child.token())
        server = make_server(guard(tmp_path, trusting, audience=None))
        async with Client(server) as client:
            allowed = await client.call_tool("read", {})
            run.end()
            assert isinstance(trusting.store, SQLiteStore)
            trusting.store.sync()
            denied = await client.call_tool("read", {})

    assert issuer.store is local.store
    assert not allowed.is_error
    assert denied.is_error
    trusting.store.close()


def test_program_begins_no_runs_for_a_server_elsewhere(local: UnsafeLocalIssuer) -> None:
    """No other host can ask the store, nor tell this key from another user's."""
    with pytest.raises(ConfigurationError, match="is for stdio servers and URLs on loopback"):
        local.issuer(audience="https://records.example/mcp")


def test_guard_takes_an_issuer_as_url_or_in_full(tmp_path: Path) -> None:
    """The short form and its longer one trust the same tokens."""
    policies = write_policies(tmp_path, ALL, types=None)
    for issuer in ("https://issuer.example", TrustedIssuer(issuer="https://issuer.example")):
        made = Guard(policies, issuer=issuer, audience="https://records.example/mcp", state=UnsafeMemoryState())

        assert made._verifier.issuers["https://issuer.example"] == TrustedIssuer(issuer="https://issuer.example")


def test_guard_takes_nothing_else_as_an_issuer(tmp_path: Path) -> None:
    """The class instead of an object of it, or a list of issuers, is no issuer."""
    policies = write_policies(tmp_path, ALL, types=None)
    for given in (UnsafeLocalIssuer, [TrustedIssuer(issuer="https://issuer.example")], 5):
        with pytest.raises(ConfigurationError, match=r"issuer= wants a URL, a TrustedIssuer or UnsafeLocalIssuer\(\)"):
            Guard(policies, issuer=given)  # type: ignore[arg-type]


def test_name_of_the_local_issuer_is_not_enough(tmp_path: Path) -> None:
    """Its keys are nowhere to be fetched, so a guard that names it as text is refused."""
    policies = write_policies(tmp_path, ALL, types=None)

    with pytest.raises(ConfigurationError, match="wants an https URL"):
        Guard(policies, issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("home", ["here", None])
def test_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """A folder that depends on where a program was started would be another's in no time."""

    def find() -> Path:
        if home is None:
            message = "Could not determine home directory."
            raise RuntimeError(message)
        return Path(home)

    monkeypatch.setattr(Path, "home", find)

    with pytest.raises(ConfigurationError, match="wants a home, got none: set XDG_STATE_HOME or HOME"):
        local_folder({})
    assert local_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/agentguard")
