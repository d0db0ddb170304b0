"""The store is away, busy or has forgotten at the very moment at which a call is counted: nothing runs uncounted."""

from __future__ import annotations

import logging
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import anyio.to_thread
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard import Guard, MemoryStore, Spend, State, enforce
from agentguard.errors import Refusal
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.tally import Change, Exchange, Tally
from agentguard.model import Invocation, Reason
from agentguard.steps import counting, tallying
from agentguard.testing import acting_as, unsafe_invocation
from tests.world import EVERYTHING, write_policies

POLICIES: Final = """
@id("all") permit (principal, action, resource);
@id("budget") forbid (principal, action, resource)
when { context.run.spent.payments.greaterThan(decimal("10.0")) };
"""


READ: Final = "pay this account"


class Failing(MemoryStore):
    """A store that fails when it is told to.

    Attributes:
        busy: How often somebody else comes between.
        lost: How often the answer is lost, and what was to be done is done.
        down: Whether it is away.
    """

    busy = lost = 0
    down = False

    def tallies(self, *runs: tuple[str, str]) -> tuple[Tally, ...]:
        """Return them, if it is not away."""
        if self.down:
            raise Refusal(Reason.STORE_UNAVAILABLE, "it is away")
        return super().tallies(*runs)

    def exchange(self, *exchanges: Exchange) -> bool:
        """Exchange them, unless it fails."""
        if self.down:
            raise Refusal(Reason.STORE_UNAVAILABLE, "it is away")
        if self.busy:
            self.busy -= 1
            return False
        done = super().exchange(*exchanges)
        if self.lost:
            self.lost -= 1
            raise Refusal(Reason.STORE_UNAVAILABLE, "the answer was lost")
        return done

    @property
    def last(self) -> Tally:
        """The tally of the one run that it has."""
        ((tally, _),) = self._tallies.values()
        return tally


class Served:
    """A guarded server on a failing store."""

    def __init__(self, folder: Path) -> None:
        write_policies(folder, POLICIES, types=None)
        self.store = store = Failing(clock=time.time)
        self.state = State(store=store, ledger=MemoryLedger(), key=b"k" * 32)
        self.guard = guard = Guard(
            folder, issuer="https://issuer.example", audience="https://x.example/mcp", state=self.state
        )
        self.server = MCPServer("payments")
        self.ran: list[str] = []
        self.amount: Any = 1
        self.another = Guard(
            folder, issuer="https://issuer.example", audience="https://y.example/mcp", state=self.state
        )

        @self.server.tool()
        @guard.tool(labels={"paid"})
        async def pay(amount: Annotated[Decimal, Spend("payments")]) -> str:
            self.ran.append(f"pay {amount}")
            return "paid"

        @self.server.tool()
        @guard.tool
        def read(*, swallow: bool, fail: bool) -> str:
            self.ran.append("read")
            store.down = True
            try:
                guard.label("untrusted")
            except Refusal:
                if not swallow:
                    raise
            finally:
                store.down = False
            if fail:
                raise ValueError(READ)
            return READ

        @self.server.tool()
        @guard.tool(spends={"tokens"})
        async def think(label: str, total: str) -> str:
            if label:
                guard.label(label)
            guard.spend(total, self.amount)
            return "thought"

        @self.server.tool()
        @guard.tool
        async def from_thread() -> None:
            await anyio.to_thread.run_sync(guard.label, "untrusted")

        @self.server.tool()
        @guard.tool
        async def ask_another() -> None:
            self.another.label("untrusted")

        guard.attach(self.server)

    async def call(self, tool: str, *above: Invocation, **arguments: Any) -> Any:
        """Call a tool, as one run."""
        async with Client(self.server) as client:
            with acting_as("agent", run_id="run-1", ancestors=above, grant=EVERYTHING):
                return await client.call_tool(tool, arguments)

    @property
    def reasons(self) -> list[Any]:
        """Why each call was decided as it was."""
        records = (entry.record for entry in self.state.ledger)  # type: ignore[attr-defined]
        return [one["attributes"]["agentguard.decision.reason"] for one in records if one["kind"] == "decision"]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """Return a server."""
    return Served(tmp_path)


async def test_call_whose_answer_was_lost_runs_never_and_counts(served: Served) -> None:
    """It may have been counted: that is safe. It is not tried again behind the caller's back."""
    served.store.lost = 1
    assert (await served.call("pay", amount="6")).is_error
    assert (await served.call("pay", amount="6")).is_error
    assert not (await served.call("pay", amount="4")).is_error
    assert served.ran == ["pay 4"]
    assert served.reasons == ["store_unavailable", "policy", "permit"]
    assert (served.store.last.calls, served.store.last.denied) == (2, 2)
    assert served.store.last.spent == {"payments": 100_000}


async def test_call_that_others_come_between_is_judged_until_it_counts_once(served: Served) -> None:
    """As often as it takes, with pauses."""
    served.store.busy = 7
    assert not (await served.call("pay", amount="6")).is_error
    served.store.busy = 7
    assert (await served.call("pay", amount="6")).is_error
    assert (served.store.last.calls, served.store.last.denied) == (1, 1)
    assert served.store.last.spent == {"payments": 60_000}


async def test_call_that_others_always_come_between_is_denied(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to it, and it is a denial."""
    monkeypatch.setattr(counting, "MOST_TRIES", 6)
    monkeypatch.setattr(tallying, "_MOST_TRIES", 6)
    served.store.busy = 1_000
    assert (await served.call("pay", amount="6")).is_error
    assert served.ran == []
    assert served.reasons == ["store_unavailable"]


async def test_call_that_takes_long_to_judge_is_not_judged_for_ever(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that calls cheaply at one server keeps another one judging one dear call."""
    monkeypatch.setattr(counting, "MOST_SECONDS", -1.0)
    served.store.busy = 1
    assert (await served.call("pay", amount="6")).is_error
    assert served.reasons == ["store_unavailable"]
    assert served.store.last.denied == 1


@pytest.mark.parametrize("delegated", [False, True])
async def test_store_that_has_forgotten_a_run_lets_it_do_nothing(served: Served, delegated: bool) -> None:
    """What it has forgotten would count as not done: of the run itself, or of one above it."""
    above = (unsafe_invocation("agent", run_id="parent", grant=EVERYTHING),) if delegated else ()
    assert not (await served.call("pay", *above, amount="6")).is_error
    served.store._tallies.pop((unsafe_invocation("agent").issuer, "parent" if above else "run-1"))
    assert (await served.call("pay", *above, amount="6")).is_error
    assert served.ran == ["pay 6"]
    assert served.reasons[1:] == ["store_unavailable"]


async def test_store_that_is_away_denies_and_so_does_one_that_comes_back(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """A denial stands though it could not be counted."""
    assert not (await served.call("pay", amount="6")).is_error
    served.store.down = True
    with caplog.at_level(logging.ERROR, "agentguard"):
        assert (await served.call("pay", amount="1")).is_error
    served.store.down = False
    assert "a denial could not be counted for its run" in caplog.text
    assert (await served.call("pay", amount="6")).is_error
    assert (served.store.last.calls, served.store.last.denied) == (1, 1)


@pytest.mark.parametrize(("swallow", "fail"), [(False, False), (True, False), (True, True)])
async def test_result_whose_label_could_not_be_kept_is_not_handed_out(
    swallow: bool,
    fail: bool,
    served: Served,
) -> None:
    """Nor is what the tool makes of it, where it goes on as if nothing had happened."""
    result = await served.call("read", swallow=swallow, fail=fail)
    assert result.is_error
    assert READ not in str(result)
    assert served.ran == ["read"]
    assert not (await served.call("pay", amount="1")).is_error


@pytest.mark.parametrize(("label", "total"), [(f"from:{READ}", "tokens"), ("", READ)])
async def test_words_of_a_stranger_that_are_no_name_are_not_told_to_the_agent(
    label: str, total: str, served: Served
) -> None:
    """They would reach it in the very error that says that the run could not be marked."""
    result = await served.call("think", label=label, total=total)
    assert result.is_error
    assert READ not in str(result)


class Odd(int):
    """A number that may say of itself what it likes."""


@pytest.mark.parametrize(
    "amount", [0.1 + 0.2, -1, Decimal("-0.0001"), Decimal("NaN"), float("inf"), True, Odd(1), "1", None, 2**63]
)
async def test_tool_that_spends_what_is_no_amount_fails(amount: Any, served: Served) -> None:
    """The total stays; and the largest amounts that there are do not come round to none."""
    served.amount = amount
    assert (await served.call("think", label="", total="tokens")).is_error
    assert "tokens" not in served.store.last.spent
    served.amount = Decimal("922337203685477.5807")
    assert not (await served.call("think", label="", total="tokens")).is_error
    served.amount = Decimal("0.0001")
    assert (await served.call("think", label="", total="tokens")).is_error
    assert served.store.last.spent["tokens"] == 2**63 - 1


async def test_guard_that_is_not_attached_marks_no_run(served: Served) -> None:
    """A tool that speaks to the wrong one fails."""
    assert (await served.call("ask_another")).is_error


async def test_async_tool_speaks_of_itself_from_a_thread(served: Served) -> None:
    """So that a store that is slow holds up nobody else."""
    assert not (await served.call("from_thread")).is_error
    assert served.store.last.labels == {"untrusted"}


async def test_call_that_is_judged_again_and_again_is_denied(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else comes between each time, it ends."""
    monkeypatch.setattr(enforce, "MOST_TRIES", 0)

    assert (await served.call("pay", amount="1")).is_error

    assert served.reasons == ["store_unavailable"]
    assert served.ran == []


async def test_call_that_never_began_stays_counted_where_that_cannot_be_taken_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It errs on the side of the limit."""
    store = Failing(clock=time.time)
    counts = tallying.Tallying(store, clock=time.time, shared=lambda _: None)
    invocation = unsafe_invocation("agent", run_id="run-1")
    counts.add(invocation, Change(calls=1, tool="x", spent={"payments": 60_000}))

    store.down = True
    await counts.give_back(invocation, Change(calls=1, tool="x", spent={"payments": 60_000}))
    store.down = False

    assert store.last.spent == {"payments": 60_000}
    assert "a call that never began stays counted" in caplog.text

    await counts.give_back(invocation, Change(calls=1, tool="x", spent={"payments": 60_000}))
    assert (store.last.calls, store.last.tools, store.last.spent) == (0, {}, {"payments": 0})
