"""`agentguard token`: a token on standard output, and a run on record."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from agentguard import FixedKeys, InvocationVerifier, Issuer, SQLiteStore, TrustedIssuer
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import ISSUER, local_issuer
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import Invocation
from tests.cli.commands import agentguard
from tests.lifecycle.stores import served

URL = "http://127.0.0.1:8000/mcp"
LEAST = ("token", "--agent", "reader", "--tool", "read", "--audience", URL)


class KeyFile:
    """A private key in a file, and its public half."""

    def __init__(self, folder: Path) -> None:
        local_issuer(folder / "key", store=MemoryStore(clock=time.time))
        self.file = folder / "key" / "issuer.pem"
        self.jwks = Issuer(issuer="https://issuer.example", key=self.file.read_text()).jwks()


async def verified(token: str, folder: Path, audience: str = URL) -> Invocation:
    """Return what a server on this host reads in a token."""
    keys = FixedKeys(local_issuer(folder, store=MemoryStore(clock=time.time)).jwks())
    return await InvocationVerifier(TrustedIssuer(issuer=ISSUER), audience=audience, keys={ISSUER: keys}).verify(token)


async def test_token_is_all_that_is_printed(folder: Path) -> None:
    """So that `$(agentguard token ...)` is a token; and a server accepts it."""
    ran = agentguard(*LEAST)

    invocation = await verified(ran.stdout.strip(), folder)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.count("\n") == 1
    assert invocation.agent == "reader"
    assert invocation.run_ends_at - invocation.issued_at == 300


async def test_token_says_all_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    """Who, for whom, on what, what for, and how far."""
    grant = tmp_path / "grant.cedar"
    grant.write_text("permit (principal, action, resource);")
    ran = agentguard(
        "token", "--agent", "reader", "--user", "alice", "--task", "t1", "--purpose", "monthly close",
        "--tool", "read", "--tool", "search", "--grant", str(grant), "--scope", "a", "--scope", "b",
        "--ends-in", "15m", "--server", "records",
    )  # fmt: skip

    invocation = await verified(ran.stdout.strip(), folder, stdio_audience("records"))
    assert (invocation.user, invocation.task, invocation.purpose) == ("alice", "t1", "monthly close")
    assert invocation.scopes == {"a", "b"}
    assert invocation.run_ends_at - invocation.issued_at == 900
    assert invocation.ends_at >= invocation.run_ends_at
    assert invocation.grant is not None
    assert 'Action::"search"' in invocation.grant


async def test_json_holds_the_token_and_its_run(folder: Path) -> None:
    """For a program that goes on to revoke it."""
    told = agentguard(*LEAST, "--user", "alice", "--json").json

    invocation = await verified(told.pop("token"), folder)
    assert told == {
        "run_id": invocation.run_id,
        "issuer": ISSUER,
        "audience": URL,
        "agent": "reader",
        "user": "alice",
        "task": None,
        "purpose": None,
        "issued_at": invocation.issued_at,
        "ends_at": invocation.run_ends_at,
    }


def test_person_at_a_terminal_is_told_how_to_end_it() -> None:
    """On standard error, so that the token stays alone."""
    ran = agentguard(*LEAST, terminal=True)

    assert ran.stdout.count("\n") == 1
    assert "over in 300 s: `agentguard revoke " in " ".join(ran.stderr.split())


def test_run_of_the_token_is_on_record(folder: Path) -> None:
    """`runs` and `revoke` find it."""
    told = agentguard(*LEAST, "--json").json

    (listed,) = agentguard("runs", "--json").json
    assert (listed["run_id"], listed["state"]) == (told["run_id"], "issued")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--audience", "https://records.example/mcp"), "the local issuer is for stdio servers and URLs on loopback"),
        (("--server", ""), "a server wants a name, got an empty one"),
        (("--server", "a", "--audience", URL), "wants --audience URL or --server NAME, got both: give one of them"),
        ((), "wants --audience URL or --server NAME, got neither: give one of them"),
        (("--server", "a", "--ends-in", "16m"), "--ends-in wants up to 15m, since nobody renews this token, got `16m`"),
        (("--server", "a", "--ends-in", "0"), "--ends-in wants up to 15m"),
        (("--server", "a", "--ends-in", "-5"), "a duration wants a number and s, m, h or d, got `-5`"),
        (("--server", "a", "--ends-in", "soon"), "a duration wants a number and s, m, h or d, got `soon`"),
        (("--server", "a", "--grant", "nowhere"), "--grant `nowhere` cannot be read: No such file or directory"),
        (("--server", "a", "--user", "reader"), "`user` wants somebody else than the agent"),
        (("--server", "a", "--issuer", "https://i.example"), "got --issuer alone: add --issuer-key"),
        (("--server", "a", "--issuer-key", "key.pem"), "got --issuer-key alone: add --issuer"),
        (("--server", "a", "--issuer", ISSUER, "--issuer-key", "key.pem"), "leave out --issuer-key"),
        (
            ("--server", "a", "--issuer", "https://i.example", "--issuer-key", "key.pem"),
            "want a store that its servers ask, got none",
        ),
        (
            ("--server", "a", "--issuer", "https://i.example", "--issuer-key", "key.pem", "--store", "s/store.db"),
            "--issuer-key `key.pem` cannot be read",
        ),
        (("--server", "a", "--store", "ftp://host"), "--store wants a file, or a URL such as valkey://host:6379"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_printed(arguments: tuple[str, ...], message: str) -> None:
    """One line, status 2, and no run."""
    ran = agentguard("token", "--agent", "reader", "--tool", "read", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert agentguard("runs", "--all", "--json").json == []


def test_run_without_anything_to_call_is_refused() -> None:
    """No tool and no grant is no run, in the words of the command."""
    ran = agentguard("token", "--agent", "reader", "--server", "records")

    assert ran.status == 2
    assert ran.stderr == "agentguard: a run wants --tool or --grant, got neither: say what it may call\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "it is not UTF-8 text"), (b"/" * 70_000, "wants a file of 65536 bytes at most")],
)
def test_grant_that_is_no_text_or_too_long_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """Before anything reads it as Cedar."""
    (tmp_path / "grant").write_bytes(content)

    ran = agentguard("token", "--agent", "reader", "--server", "records", "--grant", str(tmp_path / "grant"))

    assert ran.status == 2
    assert message in ran.stderr


async def test_token_of_another_issuer_is_signed_with_its_key(tmp_path: Path) -> None:
    """Production names its key and its store; nothing of it is in the local one."""
    made = KeyFile(tmp_path)
    store = str(tmp_path / "s" / "store.db")
    ran = agentguard(
        "token", "--agent", "reader", "--tool", "read", "--audience", "https://records.example/mcp",
        "--issuer", "https://issuer.example", "--issuer-key", str(made.file), "--store", store,
    )  # fmt: skip

    assert agentguard("runs", "--json").json == []
    verifier = InvocationVerifier(
        TrustedIssuer(issuer="https://issuer.example"),
        audience="https://records.example/mcp",
        keys={"https://issuer.example": FixedKeys(made.jwks)},
    )
    invocation = await verifier.verify(ran.stdout.strip())
    with closing(SQLiteStore(store)) as opened:
        assert [record.run_id for record in opened.runs()] == [invocation.run_id]


def test_commands_meet_in_valkey(tmp_path: Path) -> None:
    """A run that is begun on one machine is listed and ended on another."""
    with served(tmp_path) as server:
        url = server.connection_url.replace("redis://", "valkey://")
        told = agentguard(*LEAST, "--store", url, "--json").json
        (listed,) = agentguard("runs", "--store", url, "--json").json
        ended = agentguard("revoke", told["run_id"], "--store", url, "--json").json

    assert listed["run_id"] == told["run_id"]
    assert ended["ended"] == [told["run_id"]]
    assert ended["issuer"] == ISSUER


def test_valkey_without_its_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not installed with the rest."""
    monkeypatch.setitem(sys.modules, "agentguard.lifecycle.valkey", None)

    ran = agentguard("runs", "--store", "valkey://127.0.0.1:1")

    assert ran.status == 2
    assert "pip install 'agentguard[valkey]', or from a clone pip install -e 'path/to/agentguard[valkey]'" in ran.stderr


def test_valkey_that_is_down_is_a_refusal() -> None:
    """No token comes of it, in finite time."""
    ran = agentguard(*LEAST, "--store", "valkey://127.0.0.1:1")

    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr.startswith("agentguard: the store cannot be used")
