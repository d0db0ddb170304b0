"""`agentguard dev --watch` and `agentguard wrap --watch`: policies that go live while a server is served."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from mcp import Client

from agentguard import ConfigurationError, Limits, PolicyError, Reload
from agentguard.cli.saving import Saving
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import local_issuer
from agentguard.policy.files.source import PolicySource
from tests.cli.commands import Ran, agentguard
from tests.cli.serving import RECORDS, on_stdio, written
from tests.publishing import EVERYBODY, lock, move, put

NONE = '@id("none") permit (principal in Agent::"nobody", action, resource);'
LOCK = "agentguard.lock"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that holds a server, and forget what was loaded from it."""
    here = put(tmp_path / "here", {"server_of_saving.py": RECORDS, "policies/own.cedar": EVERYBODY})
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    yield here
    sys.modules.pop("server_of_saving", None)


def save(place: Path, text: str) -> None:
    """Save the policies whole, as an editor does: half of them would be told of as what they are."""
    put(place, {"new.cedar": text}).joinpath("new.cedar").replace(place / "policies" / "own.cedar")


async def until(client: Client, *, may: bool) -> None:
    """Read until it is decided so."""
    with anyio.fail_after(20):
        while (await client.call_tool("read_record", {"record_id": "r1"})).is_error is may:
            await anyio.lowlevel.checkpoint()


async def until_told(words: str) -> None:
    """Wait until the command has written something."""
    with anyio.move_on_after(20):
        while words not in written():
            await anyio.lowlevel.checkpoint()
    assert words in written(), written()


def dev(session: object, *arguments: str) -> Ran:
    """Serve over stdio, and take what is saved."""
    return on_stdio(session, "2026-07-28", "dev", "server_of_saving.py", "--stdio", "--watch", *arguments)  # type: ignore[arg-type]


def test_what_is_saved_decides_as_soon_as_it_can_be_read(place: Path) -> None:
    """What cannot is told with where, and those before still decide."""

    async def session(client: Client) -> None:
        await until(client, may=True)
        save(place, "permit")
        await until_told("what you saved is not taken, and those before still decide")
        await until(client, may=True)
        save(place, NONE)
        await until(client, may=False)
        await until_told("the policies that you saved decide from now on")

    ran = dev(session)

    assert ran.status == 0
    assert f"{place}/policies/own.cedar:1: the last policy has no end" in ran.stderr
    assert "start `agentguard dev` again" not in ran.stderr
    assert [file.name for file in (place / "policies").iterdir()] == ["own.cedar"]


def test_what_does_not_fit_the_server_is_told_and_not_taken(place: Path) -> None:
    """It can be read, and is locked; the guard says what is wrong with it."""

    async def session(client: Client) -> None:
        await until(client, may=True)
        save(place, NONE.replace("action,", 'action == Action::"read_recrod",'))
        await until_told("what you saved is not taken, and those before still decide: ")
        await until(client, may=True)
        save(place, EVERYBODY)
        await until_told("agentguard: the folder holds again what has decided all the time")

    ran = dev(session)

    (told,) = [line for line in ran.stderr.splitlines() if "is not taken" in line]
    assert "did you mean `read_record`?" in told
    assert "are not taken" not in ran.stderr
    assert "decide from now on" not in ran.stderr


def test_several_mistakes_are_one_line(place: Path) -> None:
    """It says the first, and how many more there are."""

    async def session(client: Client) -> None:
        await until(client, may=True)
        put(place / "policies", {"b.cedar": "permit"})
        save(place, f"{EVERYBODY}\npermit (principal action, resource);")
        # Whoever looks between the two sees the first one alone.
        await until_told(" (and 1 more)")

    told = [line for line in dev(session).stderr.splitlines() if "is not taken" in line]

    assert told[-1].endswith(" (and 1 more)")


def test_folder_that_was_locked_stays_so(place: Path) -> None:
    """With the manifest of what was saved; a stale one is no trouble where everything that is saved counts."""
    lock(place / "policies")
    put(place / "policies", {"own.cedar": f"// saved before\n{EVERYBODY}"})

    async def session(client: Client) -> None:
        await until(client, may=True)

    assert dev(session).status == 0
    assert agentguard("lock", "--check").status == 0


def test_folder_that_was_not_locked_is_not_left_so(place: Path) -> None:
    """The manifest is there for as long as somebody takes what is saved."""
    saving = Saving(place / "policies", Limits(), lambda _: None)
    with saving.locked():
        assert (place / "policies" / LOCK).exists()
    assert not (place / "policies" / LOCK).exists()


async def test_taking_ends_with_what_is_served(place: Path) -> None:
    """Nothing watches any more."""
    taken: list[PolicySource] = []
    saving = Saving(place / "policies", Limits(), taken.append)
    came = [anyio.Event(), anyio.Event()]

    async def reload() -> Reload:
        first = not came[0].is_set()
        came[0 if first else 1].set()
        return Reload(version="", loaded=not first)

    with saving.locked(), anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(saving.take, reload)
            for number, event in enumerate(came):
                save(place, f"// {number}\n{EVERYBODY}")
                await event.wait()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    assert len(taken) == 1


def test_folder_that_cannot_be_locked_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is served."""
    saving = Saving(place / "policies", Limits(), lambda _: None)
    (place / "policies" / LOCK).mkdir()
    with pytest.raises(PolicyError, match=r"agentguard\.lock: "), saving.locked():
        raise AssertionError

    (place / "policies" / LOCK).rmdir()

    def fails(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("agentguard.cli.saving.write_manifest", fails)
    with pytest.raises(ConfigurationError, match="cannot be written to: Read-only file system"), saving.locked():
        raise AssertionError


def test_wrap_watches_where_it_is_asked_to(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock, what is put into the folder's place; the shadow is asked beside it."""
    issued = local_issuer()
    token = issued.mint(
        agent="reader", audience=stdio_audience("records"), grant="permit (principal, action, resource);"
    )
    monkeypatch.setenv("AGENTGUARD_TOKEN", token)
    put(place / "next", {"own.cedar": NONE})

    async def session(client: Client) -> None:
        await until(client, may=True)
        move(place / "policies", {"own.cedar": NONE})
        await until(client, may=False)

    arguments = ("--policies", "policies", "--watch", "--shadow", "next")
    ran = on_stdio(session, "2026-07-28", "wrap", "server_of_saving.py", *arguments)

    assert ran.status == 0, ran.stderr
    shown = agentguard("evidence", "show", str(place.parent / "agentguard" / "servers" / "records"), "--kind", "shadow")
    assert "deny: no_permit, not allow" in shown.stdout
