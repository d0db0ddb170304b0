"""Leases: one for each run and credential, used while they last, and given back once."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import anyio
import pytest

from agentguard.credentials import leases, returns
from agentguard.credentials.broker import IssuedCredential
from agentguard.credentials.containment import stops
from agentguard.credentials.credential import Credential
from agentguard.credentials.held import key_of
from agentguard.credentials.live import Place
from agentguard.credentials.worker import Waiter, Worker, _Loop
from agentguard.errors import CredentialError, Refusal
from agentguard.evidence.vocabulary import ATTRIBUTES
from agentguard.host import atend
from agentguard.lifecycle.store import Kind
from agentguard.model import Reason
from tests.credentials.lending import HOUR, START, Lending, lending, until

DOWN: Final = CredentialError("the server is down", retry=True)
OVER: Final = CredentialError("the lease is unknown")


def hurried(lent: Lending, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a broker that hangs not for long: what comes of waiting is the same."""
    monkeypatch.setattr(lent.leases, "_seconds", 0.05)
    monkeypatch.setattr(leases, "_PATIENCE_SECONDS", 0.05)


async def refused(lent: Lending, **request: Any) -> Refusal:
    """Return how a lease is refused."""
    with pytest.raises(Refusal) as caught:
        await lent.leases.lease(lent.request(**request))
    return caught.value


async def test_a_lease_serves_a_run_again_and_each_other_run_has_its_own() -> None:
    """Asked for once per run, user and credential; recorded with who, which and how long."""
    async with lending() as lent:
        first = await lent.leases.lease(lent.request())
        again = await lent.leases.lease(lent.request(tool="write"))

        assert (first.reveal(), again.reveal()) == (lent.office.secret(1),) * 2
        assert (first.name, first.expires_at, first.token_type) == ("crm", START + 300, "Bearer")
        assert lent.office.asked == [("issue", "crm")]

        others: list[dict[str, Any]] = [
            {"name": "mail"},
            {"invocation": lent.run("run-2")},
            {"invocation": lent.run(issuer="https://other.example")},
            {"invocation": lent.run(user="bob")},
        ]
        got = {(await lent.leases.lease(lent.request(**other))).reveal() for other in others}
        assert len(got) == 4 == len(lent.leases) - 1

        kept = lent.ledger
        attributes: Any = next(iter(kept)).record["attributes"]
        assert attributes["agentguard.run.id"] == "run-1"
        assert attributes["agentguard.agent.id"] == "clerk"
        assert attributes["agentguard.user.id"] == "alice"
        assert attributes["agentguard.task.id"] == "t-1"
        assert attributes["agentguard.credential.name"] == "crm"
        assert attributes["agentguard.credential.event"] == "issued"
        assert attributes["agentguard.credential.lease_id"] == "lease-1"
        assert attributes["agentguard.credential.expires_at"] == START + 300
        assert set(attributes) <= {row.name for row in ATTRIBUTES if "record" in row.on}


async def test_a_credential_ends_with_its_run_at_the_latest() -> None:
    """What the broker gives for longer is not handed out for longer, and not renewed in vain."""
    async with lending(life=2 * HOUR) as lent:
        credential = await lent.leases.lease(lent.request())
        assert credential.expires_at == START + HOUR

        lent.clock.pass_(HOUR - 1)
        assert (await lent.leases.lease(lent.request())).reveal() == credential.reveal()
        lent.clock.pass_(1)
        assert (await refused(lent)).reason is Reason.EXPIRED

        assert lent.office.count("issue") == 1
        assert lent.office.count("renew") == 0


async def test_a_run_that_another_token_makes_longer_keeps_its_lease() -> None:
    """Where the issuer says of no run how long it lasts, its latest token does."""
    async with lending(life=2 * HOUR) as lent:
        await lent.leases.lease(lent.request())
        longer = await lent.leases.lease(lent.request(until=START + HOUR + 100))
        lent.clock.pass_(HOUR + 50)
        assert longer.expires_at == START + HOUR + 100
        assert (await lent.leases.lease(lent.request(until=START + HOUR + 100))).reveal() == longer.reveal()
        lent.clock.pass_(51)
        await until(lambda: lent.office.released == [lent.office.secret(1)])


@pytest.mark.parametrize(("life", "margin"), [(40, 20), (300, 30), (1_000, 100)])
async def test_a_lease_is_renewed_when_little_of_it_is_left(life: float, margin: float) -> None:
    """30 s, or a tenth of its life; and never before half of it is over."""
    async with lending(life=life) as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(life - margin - 1)
        await lent.leases.lease(lent.request())
        assert lent.office.count("renew") == 0

        lent.clock.pass_(1)
        renewed = await lent.leases.lease(lent.request())
        assert renewed.reveal() == lent.office.secret(2)
        assert renewed.expires_at == lent.clock.now + life
        assert lent.events() == ["issued", "renewed"]
        assert lent.leases.secrets_of(lent.run()) == (lent.office.secret(1), lent.office.secret(2))


async def test_a_renewal_under_the_same_lease_id_takes_its_place() -> None:
    """It is given back once, as one."""
    async with lending(lease_id="lease") as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(290)
        await lent.leases.lease(lent.request())
        assert len(lent.leases) == 1

        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.office.released == [lent.office.secret(2)])
        await until(lambda: not lent.leases)


async def test_a_renewal_may_be_the_same_secret_for_longer() -> None:
    """As where a lease is prolonged, and nothing else of it changes."""
    async with lending(lease_id="lease") as lent:
        first = await lent.leases.lease(lent.request())
        lent.clock.pass_(290)
        lent.office.answers["renew"] = [lambda: lent.office.made(secret=first.reveal())]
        again = await lent.leases.lease(lent.request())
        assert (again.reveal(), again.expires_at) == (first.reveal(), lent.clock.now + 300)

        lent.clock.pass_(200)
        await anyio.sleep(0.05)
        assert lent.leases.secrets_of(lent.run()) == (first.reveal(),)
        lent.leases.close()
        assert lent.office.released == [lent.office.secret(1)]


async def test_a_renewal_under_another_lease_id_leaves_two_to_give_back() -> None:
    """What was renewed may still be good when the run ends."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(290)
        await lent.leases.lease(lent.request())

        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: sorted(lent.office.released) == [lent.office.secret(1), lent.office.secret(2)])


@pytest.mark.parametrize(
    "answer",
    [OVER, NotImplementedError("s3cr3t of the broker"), "no credential", None],
    ids=["over", "bug", "str", "none"],
)
async def test_what_cannot_be_renewed_is_issued_anew(answer: Any) -> None:
    """A lease that the other system has forgotten ends no run."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(290)
        lent.office.answers["renew"] = [answer]

        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(2)
        assert lent.events() == ["issued", "issued"]


async def test_a_lease_that_nothing_renews_any_more_is_issued_anew_at_once() -> None:
    """Nobody asks to renew what was over long ago."""
    async with lending(pause=10) as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(331)
        await lent.leases.lease(lent.request())
        assert lent.office.asked == [("issue", "crm"), ("issue", "crm")]


async def test_a_lease_serves_on_while_the_broker_is_down_and_never_past_its_end() -> None:
    """The broker is asked again after a while; a tool gets nothing that is about to end."""
    async with lending() as lent:
        first = await lent.leases.lease(lent.request())
        lent.office.answers["renew"] = [DOWN] * 9

        lent.clock.pass_(280)
        assert (await lent.leases.lease(lent.request())).reveal() == first.reveal()
        assert (await lent.leases.lease(lent.request())).reveal() == first.reveal()
        assert lent.office.count("renew") == 1
        lent.clock.pass_(6)
        assert (await lent.leases.lease(lent.request())).reveal() == first.reveal()
        assert lent.office.count("renew") == 2

        lent.clock.pass_(9)  # 5 s are left
        refusal = await refused(lent)
        assert (refusal.reason, refusal.detail) == (
            Reason.CREDENTIAL_UNAVAILABLE,
            "credential `crm`: no credential: the server is down",
        )
        lent.clock.pass_(5)
        assert (await refused(lent)).reason is Reason.CREDENTIAL_UNAVAILABLE

        lent.office.answers.clear()
        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(2)


async def test_a_lease_that_serves_on_is_not_used_past_its_end_either() -> None:
    """That the broker was asked a moment ago makes nothing longer."""
    async with lending(life=8) as lent:
        await lent.leases.lease(lent.request())
        lent.office.answers["renew"] = [DOWN] * 9
        lent.clock.pass_(5)  # 3 s are left, and 2 are enough
        await lent.leases.lease(lent.request())
        lent.clock.pass_(2)
        assert (await refused(lent)).reason is Reason.CREDENTIAL_UNAVAILABLE


async def test_a_clock_that_is_set_back_makes_no_lease_longer() -> None:
    """Its life is measured by another clock too."""
    async with lending(pause=10) as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(299)
        lent.clock.now = START
        lent.office.answers["renew"] = [DOWN]
        assert (await refused(lent)).reason is Reason.CREDENTIAL_UNAVAILABLE


async def test_a_credential_that_ends_while_it_is_handed_over_is_not_handed_over() -> None:
    """The last look is at the very end of the way."""
    async with lending(life=2) as lent:

        def late() -> IssuedCredential:
            made = lent.office.made()
            lent.store.subscribe(lambda _: None)
            return made

        lent.office.answers["issue"] = [late]
        kept = lent.ledger.append

        def slowly(record: Any) -> Any:
            lent.clock.pass_(3)
            return kept(record)

        lent.ledger.append = slowly  # type: ignore[method-assign]
        refusal = await refused(lent)
        assert refusal.detail == "credential `crm`: it ended before it could be used"


async def test_fifty_calls_at_once_ask_the_broker_once() -> None:
    """And again once when the lease is to be renewed."""
    async with lending() as lent:
        got: list[Credential] = []

        async def call() -> None:
            got.append(await lent.leases.lease(lent.request()))

        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(call)
            lent.clock.pass_(290)

        assert [credential.reveal() for credential in got] == [lent.office.secret(1)] * 50 + [
            lent.office.secret(2)
        ] * 50
        assert lent.office.asked == [("issue", "crm"), ("renew", "lease-1")]


async def test_a_call_that_is_cancelled_takes_nobody_else_along() -> None:
    """Not even where it was the first, which the others wait for."""
    async with lending() as lent:
        lent.office.open.clear()
        got: list[Credential] = []

        async def call() -> None:
            got.append(await lent.leases.lease(lent.request()))

        async with anyio.create_task_group() as others:
            async with anyio.create_task_group() as first:
                first.start_soon(call)
                await until(lambda: lent.office.count("issue") == 1)
                others.start_soon(call)
                others.start_soon(call)
                await until(lambda: [len(waiting) for waiting in list(lent.leases._flights.values())] == [3])
                first.cancel_scope.cancel()
            lent.office.open.set()

        assert [credential.reveal() for credential in got] == [lent.office.secret(1)] * 2
        assert lent.office.count("issue") == 1


async def test_what_comes_when_nobody_waits_any_more_is_held_for_the_run() -> None:
    """Its event loop may even be gone."""
    async with lending() as lent:
        lent.office.open.clear()

        async def elsewhere() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lent.leases.lease, lent.request())
                await until(lambda: lent.office.count("issue") == 1)
                tasks.cancel_scope.cancel()

        await anyio.to_thread.run_sync(anyio.run, elsewhere)
        lent.office.open.set()
        await until(lambda: len(lent.leases) == 1)
        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(1)


async def test_a_failure_is_for_those_who_waited_for_it_alone() -> None:
    """Each of them is refused, in words of its own; the next one asks again."""
    async with lending() as lent:
        lent.office.open.clear()
        lent.office.answers["issue"] = [DOWN]
        refusals: list[Refusal] = []

        async def call() -> None:
            refusals.append(await refused(lent))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
            await until(lambda: [len(waiting) for waiting in list(lent.leases._flights.values())] == [3])
            lent.office.open.set()

        assert {refusal.reason for refusal in refusals} == {Reason.CREDENTIAL_UNAVAILABLE}
        assert len({id(refusal) for refusal in refusals}) == 3
        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(1)


@pytest.mark.parametrize(
    "error",
    [
        DOWN,
        ValueError("with a passw0rd in it"),
        Refusal(Reason.INTERNAL_ERROR),
        asyncio.CancelledError("with a passw0rd in it"),
        SystemExit("with a passw0rd in it"),
        KeyboardInterrupt(),
        TimeoutError("with a passw0rd in it"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_broker_raises_is_a_refusal_without_its_text(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """And ends nothing but this one request."""
    async with lending() as lent:
        lent.office.answers["issue"] = [error]
        refusal = await refused(lent)
        assert refusal.reason is Reason.CREDENTIAL_UNAVAILABLE
        assert "passw0rd" not in f"{refusal.detail}{refusal.__notes__}{caplog.text}"
        assert refusal.__context__ is refusal.__cause__ is None
        await lent.leases.lease(lent.request())


async def test_a_broker_that_is_slow_is_not_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does that last: the next one asks again. Who has a lease that serves uses it."""
    async with lending() as lent:
        first = await lent.leases.lease(lent.request())
        monkeypatch.setattr(lent.leases, "_seconds", 0.1)
        # How long the thread may take to say so is another matter.
        monkeypatch.setattr(leases, "_PATIENCE_SECONDS", 20)
        lent.clock.pass_(280)
        lent.office.slow = 30.0
        results: list[object] = []

        async def other() -> None:
            results.append((await refused(lent, invocation=lent.run("run-2"))).detail)

        async def same() -> None:
            results.append((await lent.leases.lease(lent.request())).reveal())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            tasks.start_soon(same)

        assert set(map(str, results)) == {"credential `crm`: the broker did not answer in 0.1 s", first.reveal()}
        assert "serves on" in caplog.text
        lent.office.slow = 0
        await lent.leases.lease(lent.request(invocation=lent.run("run-2")))


@pytest.mark.parametrize("what", ["not one", "over", "short"])
async def test_what_a_broker_must_not_give_is_refused(what: str) -> None:
    """It is given back, where it is anything at all."""
    async with lending() as lent:
        match what:
            case "not one":
                lent.office.answers["issue"] = ["s3cr3t-0001-abcdefghij"]
            case "over":
                lent.office.answers["issue"] = [lambda: lent.office.made(expires_at=START)]
            case _:
                lent.office.answers["issue"] = [lambda: lent.office.made(secret="password" * 4)]
        refusal = await refused(lent)
        assert refusal.reason is Reason.CREDENTIAL_UNAVAILABLE
        assert "the broker gave a" in refusal.detail

        given_back = [] if what == "not one" else ["released"]
        await until(lambda: lent.events() == given_back)
        assert len(lent.office.released) == len(given_back)
        assert not lent.leases


async def test_a_run_that_is_ended_while_the_broker_is_asked_gets_nothing() -> None:
    """What came is given back at once, and the record has both."""
    async with lending() as lent:
        lent.office.open.clear()

        async def end() -> None:
            await until(lambda: lent.office.count("issue") == 1)
            lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
            lent.office.open.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            refusal = await refused(lent)

        assert refusal.reason is Reason.REVOKED
        await until(lambda: lent.events() == ["issued", "released"])
        assert lent.office.released == [lent.office.secret(1)]
        assert (await refused(lent)).reason is Reason.REVOKED
        assert lent.office.count("issue") == 1


@pytest.mark.parametrize("down", [True, False])
async def test_a_run_that_is_ended_while_its_lease_is_renewed_gets_nothing(*, down: bool) -> None:
    """Neither what came, nor what it had, which serves no more."""
    async with lending(lease_id="lease") as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(280)
        lent.office.open.clear()
        lent.office.answers["renew"] = [DOWN] if down else []

        async def end() -> None:
            await until(lambda: lent.office.count("renew") == 1)
            lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
            await until(lambda: lent.office.count("release") == 1)
            lent.office.open.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            assert (await refused(lent)).reason is Reason.REVOKED
        given_back = [lent.office.secret(number) for number in range(1, 2 if down else 3)]
        await until(lambda: sorted(lent.office.released) == given_back)
        await until(lambda: not lent.leases)


async def test_no_evidence_no_credential() -> None:
    """One that is not on record is used by nobody, and given back."""
    async with lending() as lent:
        for error in (Refusal(Reason.EVIDENCE_UNAVAILABLE, "the disk is full"), ValueError("full")):
            lent.unkept = error
            assert (await refused(lent)).reason is Reason.EVIDENCE_UNAVAILABLE
        await until(lambda: lent.office.released == [lent.office.secret(1), lent.office.secret(2)])
        await until(lambda: not lent.leases)

        lent.unkept = None
        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(3)


async def test_a_renewal_that_is_not_on_record_leaves_what_is() -> None:
    """The lease before it was recorded, and is still held; it is not handed out as if nothing were."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(280)
        lent.unkept = ValueError()
        assert (await refused(lent)).reason is Reason.EVIDENCE_UNAVAILABLE
        await until(lambda: lent.office.released == [lent.office.secret(2)])
        await until(lambda: len(lent.leases) == 1)

        lent.unkept = None
        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(3)


@pytest.mark.parametrize("error", [Refusal(Reason.STORE_UNAVAILABLE, "away"), ValueError("broken")])
async def test_where_the_store_cannot_tell_nobody_gets_a_credential(error: Exception) -> None:
    """A run that may live keeps what came for it meanwhile."""
    async with lending() as lent:

        def away() -> IssuedCredential:
            lent.store.unknown = (error,)
            return lent.office.made()

        lent.office.answers["issue"] = [away]
        expected = error.reason if isinstance(error, Refusal) else Reason.CREDENTIAL_UNAVAILABLE
        assert (await refused(lent)).reason is expected
        assert (await lent.leases.lease(lent.request())).reveal() == lent.office.secret(1)
        assert lent.office.released == []


ENDINGS: Final[dict[str, dict[str, Any]]] = {
    "run": {"kind": Kind.RUN, "name": "child"},
    "ancestor": {"kind": Kind.RUN, "name": "parent"},
    "agent": {"kind": Kind.AGENT, "name": "clerk"},
    "user": {"kind": Kind.USER, "name": "carol"},
    "task": {"kind": Kind.TASK, "name": "t-9"},
    "issuer": {"kind": Kind.ISSUER},
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_whatever_ends_a_run_gives_its_leases_back(ending: str) -> None:
    """By itself or from above; and those of other runs stay."""
    async with lending() as lent:
        issuer = "https://corp.example"
        parent = lent.run("corp|parent", issuer=issuer, prefix="corp|", user="corp|carol")
        boss = lent.run("corp|parent", issuer=issuer, prefix="corp|", user="corp|carol", task="corp|t-9")
        child = lent.run(
            "corp|child", issuer=issuer, prefix="corp|", user="corp|carol", task="corp|t-9", ancestors=(boss, parent)
        )
        other = await lent.leases.lease(lent.request())
        mine = await lent.leases.lease(lent.request(invocation=child))
        secret = mine.reveal()
        lent.store.revoke_all(issuer=issuer, reason="completed", **ENDINGS[ending])

        await until(lambda: lent.office.released == [secret])
        await until(lambda: lent.events()[2:] == ["released"])
        assert (await lent.leases.lease(lent.request())).reveal() == other.reveal()


async def test_a_lease_is_given_back_at_the_runs_absolute_end() -> None:
    """Nobody has to end a run whose time is over."""
    async with lending(life=2 * HOUR) as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(HOUR - 1)
        await anyio.sleep(0.05)
        assert lent.office.released == []
        lent.clock.pass_(1)
        await until(lambda: lent.office.released == [lent.office.secret(1)])
        await until(lambda: lent.events() == ["issued", "released"])


async def test_what_ended_by_itself_is_not_given_back() -> None:
    """There is nothing to give: it is forgotten, and so is its secret."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        assert lent.leases.secrets_of(lent.run()) == (lent.office.secret(1),)
        lent.clock.pass_(329)
        await anyio.sleep(0.05)
        assert len(lent.leases) == 1
        lent.clock.pass_(1)
        await until(lambda: not lent.leases and not lent.leases.secrets_of(lent.run()))

        assert lent.office.released == []
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        assert lent.events() == ["issued"]


async def test_what_renews_a_lease_is_given_back_although_the_rest_is_over() -> None:
    """A refresh token is good for longer, and is as secret."""
    async with lending(renewal="refresh") as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(400)
        await anyio.sleep(0.05)
        assert len(lent.leases) == 1
        secret, renewal = lent.leases.secrets_of(lent.run())
        assert secret == lent.office.secret(1)
        assert renewal.startswith("refresh-0001-")

        await lent.leases.lease(lent.request())
        assert lent.office.count("renew") == 1
        # What another one came in place of goes at once: nothing renews it any more.
        await until(lambda: lent.office.released == [lent.office.secret(1)])
        lent.clock.pass_(HOUR)
        await until(lambda: lent.office.released[1:] == [lent.office.secret(2)])


async def test_secrets_are_known_by_their_run_until_they_can_be_good_no_more() -> None:
    """One run's may end while another's last."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.clock.pass_(100)
        await lent.leases.lease(lent.request(name="mail"))
        await lent.leases.lease(lent.request(invocation=lent.run("run-2")))
        assert lent.leases.secrets_of(lent.run()) == (lent.office.secret(1), lent.office.secret(2))
        lent.clock.pass_(235)
        await until(lambda: lent.leases.secrets_of(lent.run()) == (lent.office.secret(2),))
        assert lent.leases.secrets_of(lent.run("run-2")) == (lent.office.secret(3),)


async def test_giving_back_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while that grows; and on record once it is done."""
    monkeypatch.setattr(returns, "_FIRST_PAUSE", 0.05)
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.office.answers["release"] = [DOWN]
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.events() == ["issued", "released"])
        assert lent.office.count("release") == 2


async def test_what_cannot_be_given_back_is_on_record(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has to know that it is good for longer than its run."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.office.answers["release"] = [OVER]
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.events() == ["issued", "release_failed"])
        assert "credential `crm` is not released: no credential: the lease is unknown" in caplog.text
        assert not lent.leases


async def test_that_it_was_given_back_may_not_be_recordable(caplog: pytest.LogCaptureFixture) -> None:
    """It is given back all the same, and once."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        lent.unkept = Refusal(Reason.EVIDENCE_UNAVAILABLE, "full")
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: "released could not be recorded: evidence_unavailable: full" in caplog.text)
        assert not lent.leases
        assert lent.office.count("release") == 1


async def test_many_are_given_back_at_the_same_time_but_not_all() -> None:
    """A broker is not run over by the end of a user's runs."""
    async with lending(broker_seconds=60) as lent:
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(lent.leases.lease, lent.request(invocation=lent.run(f"run-{number}")))
        lent.office.slow = 0.001
        lent.store.revoke_all(issuer="https://issuer.example", kind=Kind.USER, name="alice")
        await until(lambda: len(lent.office.released) >= 40)
        await until(lambda: not lent.leases)
        assert len(set(lent.office.released)) == len(lent.office.released) == 40
        assert 1 < lent.office.most_at_once <= 16


async def test_closing_gives_everything_back() -> None:
    """Once, whatever else ends at the same time; afterwards no credential is to be had."""
    async with lending() as lent:
        for number in range(3):
            await lent.leases.lease(lent.request(invocation=lent.run(f"run-{number}")))
        lent.store.revoke(issuer="https://issuer.example", run_id="run-0")
        lent.leases.close()
        lent.leases.close()

        assert len(lent.office.released) == len(set(lent.office.released)) == 3
        assert sorted(lent.events()) == ["issued"] * 3 + ["released"] * 3
        refusal = await refused(lent)
        assert refusal.reason is Reason.CREDENTIAL_UNAVAILABLE
        assert "about to end" in refusal.detail
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")


async def test_closing_what_never_gave_anything_starts_no_thread() -> None:
    """There is nothing to end."""
    async with lending() as lent:
        lent.leases.close()
        assert not lent.leases._worker.begun


async def test_closing_tries_again_at_once_and_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to wait for a while, and what was not tried yet."""
    monkeypatch.setattr(returns, "_FIRST_PAUSE", 3_600)
    monkeypatch.setattr(returns, "_LONGEST_PAUSE", 3_600)
    monkeypatch.setattr(returns, "_HURRIED_PAUSE", 0.01)
    async with lending(life=2 * HOUR) as lent:
        await lent.leases.lease(lent.request())
        await lent.leases.lease(lent.request(invocation=lent.run("run-2")))
        lent.office.answers["release"] = [DOWN] * 7
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.office.count("release") == 1)
        lent.leases.close()

        assert lent.office.count("release") == 9
        assert lent.events()[2:] == ["released"] * 2


async def test_closing_waits_for_no_broker_for_long(caplog: pytest.LogCaptureFixture) -> None:
    """What is not given back by then is on record, whether it was tried before or not."""
    async with lending(closing=0.05) as lent:
        await lent.leases.lease(lent.request())
        await lent.leases.lease(lent.request(invocation=lent.run("run-2")))
        lent.office.answers["release"] = [DOWN] * 1_000
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.office.count("release") >= 1)
        lent.leases.close()

        assert lent.events()[2:] == ["release_failed"] * 2
        assert "2 credentials are not released" in caplog.text


async def test_what_comes_while_the_process_ends_is_given_back() -> None:
    """Whoever waits for it is refused."""
    async with lending() as lent:
        lent.office.open.clear()
        closing = threading.Thread(target=lent.leases.close)

        async def close() -> None:
            await until(lambda: lent.office.count("issue") == 1)
            closing.start()
            await until(lambda: lent.leases._closed)
            lent.office.open.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            refusal = await refused(lent)
        closing.join()
        assert "about to end" in refusal.detail
        assert lent.office.released == [lent.office.secret(1)]


async def test_whoever_waits_for_a_broker_that_hangs_is_refused_when_the_process_ends() -> None:
    """The thread is ended under it."""
    async with lending(closing=0.05) as lent:
        lent.office.open.clear()

        async def close() -> None:
            await until(lambda: lent.office.count("issue") == 1)
            await anyio.to_thread.run_sync(lent.leases.close)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            refusal = await refused(lent)
        assert "about to end" in refusal.detail


async def test_a_thread_that_begins_when_all_is_closed_ends_by_itself() -> None:
    """Whoever asked in that moment is refused."""
    async with lending() as lent:
        lent.store.when_asked = lent.leases.close
        assert "about to end" in (await refused(lent)).detail
        assert lent.leases._worker.join(5)


async def test_a_broker_that_holds_its_thread_up_holds_up_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is refused after a while."""
    async with lending() as lent:
        go = threading.Event()
        lent.office.answers["issue"] = [go.wait]
        hurried(lent, monkeypatch)
        refusal = await refused(lent)
        assert refusal.detail == "credential `crm`: the broker hangs"
        go.set()


async def test_a_broker_that_holds_its_thread_up_holds_up_no_end(caplog: pytest.LogCaptureFixture) -> None:
    """That nothing is given back is on record, once, whatever comes of it later."""
    async with lending(closing=0.05) as lent:
        await lent.leases.lease(lent.request())
        await lent.leases.lease(lent.request(invocation=lent.run("run-2")))
        go = threading.Event()
        lent.office.answers["release"] = [go.wait]
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.office.count("release") == 1)

        lent.leases.close()
        assert lent.events()[2:] == ["release_failed"] * 2
        assert "hangs: what it gave is not released" in caplog.text
        go.set()
        assert lent.leases._worker.join(20)
        assert lent.events()[2:] == ["release_failed"] * 2


async def test_a_lease_that_two_threads_take_out_is_taken_out_by_one() -> None:
    """Whoever closes while the broker hangs, and the thread that goes on just then."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        held = lent.leases._holding.held
        (lease,) = held
        others: list[bool] = []

        class Meanwhile(dict[Any, Any]):
            """What is held, which the other one comes to first."""

            def pop(self, *what: Any) -> Any:
                if not others:
                    others.append(False)
                    others[0] = held.remove(lease)
                return super().pop(*what)

        held._every = Meanwhile(held._every)
        assert not held.remove(lease)
        assert others == [True]
        assert (len(held), held._below) == (0, {})


async def test_a_lease_serves_while_the_broker_holds_its_thread_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has one that is good for a while need not wait for another for ever."""
    async with lending() as lent:
        first = await lent.leases.lease(lent.request())
        lent.clock.pass_(280)
        go = threading.Event()
        lent.office.answers["renew"] = [go.wait]
        hurried(lent, monkeypatch)
        assert (await lent.leases.lease(lent.request())).reveal() == first.reveal()
        go.set()


async def test_where_no_thread_can_be_had_there_is_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the interpreter ends."""

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    async with lending() as lent:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            assert (await refused(lent)).reason is Reason.CREDENTIAL_UNAVAILABLE
        await lent.leases.lease(lent.request(invocation=lent.run("run-2")))
        # What was refused is not asked for once there is one.
        assert [request.invocation.run_id for request in lent.office.requests] == ["run-2"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_forks_child_leaves_the_leases_to_its_parent() -> None:
    """It has none of them, gives none back, and gets its own."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                secret, none = lent.leases.secrets_of(lent.run()), len(lent.leases)
                lent.store.revoke(issuer="https://issuer.example", run_id="run-9")
                own = asyncio.new_event_loop()
                other = lent.request(invocation=lent.run("run-2"))
                thread = threading.Thread(target=lambda: own.run_until_complete(lent.leases.lease(other)), daemon=True)
                thread.start()
                thread.join(5)
                lent.leases.close()
                fine = (secret, none, lent.office.released) == (
                    (lent.office.secret(1),), 0, [lent.office.secret(2)]
                )  # fmt: skip
                status = 0 if fine else 2
            finally:
                os._exit(status)
        _, ended = await anyio.to_thread.run_sync(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(ended) == 0

        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.office.released == [lent.office.secret(1)])


async def test_a_forks_child_is_closed_at_its_own_end_unless_it_was_closed_already() -> None:
    """What the system calls in a child, called here."""
    async with lending() as lent, lending() as other:
        other.leases.close()
        before = len(atend._CALLS)
        leases._after_fork()
        assert atend._CALLS[before:].count(lent.leases.close) == 1
        assert other.leases.close not in atend._CALLS[before:]
        await lent.leases.lease(lent.request())
        assert (await refused(other)).reason is Reason.CREDENTIAL_UNAVAILABLE


async def test_a_call_that_comes_after_a_flight_gets_what_it_brought() -> None:
    """It looked before that was there, and came to the thread when it was over."""
    async with lending() as lent:
        await lent.leases.lease(lent.request())
        waiter: Waiter[Any] = Waiter()
        request = lent.request()
        lent.leases._worker.start(partial(lent.leases._join, key_of(request), request, waiter))
        lease: Any = await waiter.get(5)
        assert lease.issued.secret == lent.office.secret(1)
        assert lent.office.count("issue") == 1


async def test_two_threads_that_begin_a_worker_begin_one() -> None:
    """The second finds that the first was there before it."""
    worker = Worker("test")
    done: list[str] = []

    async def first() -> None:
        done.append("first")

    async def second() -> None:
        done.append("second")
        worker.finish()

    class Meanwhile:
        """The lock, for which one waits while the other holds it."""

        def __enter__(self) -> None:
            worker._beginning = threading.Lock()
            worker.start(first)

        def __exit__(self, *_: object) -> None: ...

    lock: Any = Meanwhile()
    worker._beginning = lock
    worker.start(second)
    assert worker.join(5)
    assert sorted(done) == ["first", "second"]


async def test_a_worker_outlives_what_fails_in_it(caplog: pytest.LogCaptureFixture) -> None:
    """It says where, and goes on."""
    worker = Worker("test")
    worker.finish()
    assert worker.join(0)
    done = threading.Event()

    async def fails() -> None:
        message = "with a passw0rd in it"
        raise ValueError(message)

    async def last() -> None:
        worker.finish()
        done.set()

    worker.start(fails)
    worker.start(last)
    assert worker.join(5)
    worker.start(fails)
    assert done.is_set()
    assert "ValueError was raised at" in caplog.text
    assert "passw0rd" not in caplog.text


async def test_a_host_is_found_while_the_process_ends() -> None:
    """When the threads that look for one are gone, whoever closes waits for it."""

    async def look(*, ending: bool) -> object:
        if ending:
            executor = ThreadPoolExecutor()
            executor.shutdown()
            asyncio.get_running_loop().set_default_executor(executor)
        return await anyio.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    def looked(*, ending: bool) -> object:
        return anyio.run(partial(look, ending=ending), backend_options={"loop_factory": _Loop})

    before = await anyio.to_thread.run_sync(partial(looked, ending=False))
    assert before
    assert await anyio.to_thread.run_sync(partial(looked, ending=True)) == before


async def test_a_secret_is_looked_for_while_it_may_be_good_and_whoever_finds_it_is_told() -> None:
    """Also what has to be kept out of no call's result: a log line of a thread that a tool left behind."""
    told: list[tuple[str, Place, str]] = []
    async with lending(leaked=lambda run, place, name: told.append((run.run_id, place, name))) as lent:
        credential = await lent.leases.lease(lent.request())
        assert not stops("nothing", Place.LOG)
        assert stops(f"got {credential.reveal()}", Place.LOG)
        assert told == [("run-1", Place.LOG, "crm")]
        with pytest.raises(Refusal):
            await lent.leases.lease(lent.request(name="mail", until=START))

        del credential
        lent.clock.pass_(331)
        await until(lambda: not stops(f"got {lent.office.secret(1)}", Place.LOG))
