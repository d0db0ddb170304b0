"""What runs under an identity alone, and ends with its run."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import pytest

from agentguard.errors import Refusal
from agentguard.guarding.guarded import direct_call
from agentguard.lifecycle.calls import LiveCalls
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import Decision, Effect, Invocation, Reason
from agentguard.steps.attending import Attending
from agentguard.steps.call import Call, Denial
from agentguard.testing import unsafe_invocation


class Setting:
    """A store, and what `Attending` is told and tells."""

    def __init__(self) -> None:
        self.store = MemoryStore(clock=time.time)
        self.refused: list[tuple[str, Reason]] = []
        self.invocation = unsafe_invocation("reader", run_id="run-1")
        self.error: Exception | None = None
        self.live = LiveCalls(self.store)
        self.attend = Attending(self.live, self.alive, self.refuse)

    def alive(self, invocation: Invocation | None) -> float:
        """Return a time when the run still lives."""
        if self.error is not None:
            raise self.error
        assert invocation is not None
        if self.store.ended(invocation):
            raise Refusal(Reason.REVOKED)
        return invocation.ends_at - 60

    async def refuse(self, call: Call, method: str, refusal: Refusal) -> Decision:
        """Remember a denial."""
        self.refused.append((method, refusal.reason))
        return Decision(effect=Effect.DENY, reason=refusal.reason)

    def revoke(self) -> None:
        """End the run."""
        self.store.revoke(issuer=self.invocation.issuer, run_id="run-1", reason="test")

    @property
    def call(self) -> Call:
        """A request of the run."""
        return direct_call(self.invocation)


async def test_body_runs_for_a_run_that_lives() -> None:
    """And what it gives is given; nothing of it stays registered."""
    setting = Setting()

    async def body(_: Invocation) -> str:
        return "done"

    assert await setting.attend(setting.call, "m", body) == "done"
    assert setting.refused == []
    assert setting.live._calls == {}


async def test_error_of_the_body_is_its_own() -> None:
    """It is no denial."""
    setting = Setting()

    async def body(_: Invocation) -> None:
        message = "mine"
        raise ValueError(message)

    with pytest.raises(ValueError, match="mine"):
        await setting.attend(setting.call, "m", body)


@pytest.mark.parametrize("error", [Refusal(Reason.REVOKED), RuntimeError("store is gone")])
async def test_body_does_not_run_without_a_run_that_lives(error: Exception) -> None:
    """Whatever went wrong, it is denied and told."""
    setting = Setting()
    setting.error = error

    async def body(_: Invocation) -> None:
        raise AssertionError

    with pytest.raises(Denial):
        await setting.attend(setting.call, "m", body)

    assert setting.refused == [("m", error.reason if isinstance(error, Refusal) else Reason.INTERNAL_ERROR)]
    assert setting.live._calls == {}


async def test_end_of_the_run_cancels_the_body() -> None:
    """From wherever it was ended."""
    setting = Setting()

    async def body(_: Invocation) -> None:
        setting.revoke()
        await anyio.sleep_forever()

    with pytest.raises(Denial) as denied:
        await setting.attend(setting.call, "m", body)

    assert denied.value.decision.reason is Reason.REVOKED


async def test_body_that_swallows_its_cancellation_gives_nothing_out() -> None:
    """What it returns after the end is withheld."""
    setting = Setting()

    async def body(_: Invocation) -> str:
        setting.revoke()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        return "secret"

    with pytest.raises(Denial):
        await setting.attend(setting.call, "m", body)


async def test_body_that_outlives_a_store_gives_nothing_out() -> None:
    """Doubt at the end is a denial too."""
    setting = Setting()

    async def body(_: Invocation) -> str:
        setting.error = RuntimeError("store is gone")
        return "secret"

    with pytest.raises(Denial) as denied:
        await setting.attend(setting.call, "m", body)

    assert denied.value.decision.reason is Reason.INTERNAL_ERROR


async def test_scope_that_was_cancelled_without_an_end_on_record_reads_as_expired() -> None:
    """Its deadline passed while the clock of the wall stood still."""
    setting = Setting()

    async def body(_: Invocation) -> None:
        next(iter(setting.live._invocations)).cancel()
        await anyio.sleep_forever()

    with pytest.raises(Denial) as denied:
        await setting.attend(setting.call, "m", body)

    assert denied.value.decision.reason is Reason.EXPIRED
