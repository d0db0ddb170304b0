"""Asking a person elsewhere than at the caller's own client, and what is asked at all."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentguard import (
    Approval,
    ApprovalRequest,
    ConfigurationError,
    Entity,
    EntityUid,
    FixedKeys,
    HTTPApprover,
    InvocationVerifier,
    Limits,
    Reason,
    Refusal,
    State,
    TrustedIssuer,
)
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.steps.asking import channel_of
from agentguard.steps.call import Call, Denial
from agentguard.testing import acting_as, unsafe_invocation
from tests.approvals import ASKS, NO, Person, again, at, call, first, reasons, without_the_sdks_seal
from tests.world import AUDIENCE, ERAS, TYPES, Era, World, make_world, meta, text, write_policies

LEGACY: Era = "2025-11-25"
eras = pytest.mark.parametrize("era", ERAS)


class Desk:
    """An approver with a name for policies.

    Attributes:
        answer: What it returns, or raises.
        asked: What it was asked.
    """

    channel = "desk"

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[ApprovalRequest] = []

    async def __call__(self, request: ApprovalRequest) -> Approval | None:
        """Answer one question."""
        self.asked.append(request)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


CAROL = Approval(approver="carol")


@eras
async def test_approver_is_asked_in_place_of_the_client(era: Era, tmp_path: Path) -> None:
    """In both eras in the middle of the call; the caller's own client never hears of it."""
    desk, person = Desk(CAROL), Person(NO)
    world = make_world(tmp_path, policies=ASKS, approver=desk)

    result = await call(world, era, person)

    assert not result.is_error
    assert world.ran == ["export 5 csv"]
    assert person.seen == []
    (record,) = world.records()
    (request,) = desk.asked
    assert record["agentguard.approval.id"] == request.id
    assert record["agentguard.approval.channel"] == "desk"
    assert record["agentguard.approval.approver"] == "carol"


async def test_approver_is_told_the_whole_call(tmp_path: Path) -> None:
    """Who calls, for whom, what, on what, and what stops it."""
    desk = Desk(None)
    world = make_world(tmp_path, policies=ASKS, approver=desk, agent=None)

    with acting_as("reader", user="alice", task="t1", purpose="research"):
        result = await call(world, LEGACY, None)

    (request,) = desk.asked
    (record,) = world.records()
    assert request.prompt == "May it leave the house?"
    assert (request.server, request.action) == ("records", "export")
    assert request.resources == (EntityUid("Tool", "export"),)
    assert request.arguments == {"max_rows": 5, "fmt": "csv"}
    assert (request.agent, request.user, request.task, request.purpose) == ("reader", "alice", "t1", "research")
    assert (request.run, request.policy_ids) == (record["agentguard.run.id"], ("ask",))
    assert request.policy_version == record["agentguard.policy.version"]
    assert record["agentguard.decision.reason"] == "approval_declined"
    assert text(result).startswith("A person declined this call. Do not repeat this call unchanged.")


@pytest.mark.parametrize(
    "answer",
    [
        True,
        "yes",
        {"approver": "carol"},
        Approval(approver=""),
        Approval(approver="c" * 257),
        Approval(approver="\ud800"),
        Approval(approver=7),  # type: ignore[arg-type]
        OSError("the desk's password is wrong"),
        TimeoutError(),
        asyncio.CancelledError(),
    ],
)
async def test_what_is_no_approval_runs_nothing(answer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An approver that fails, or returns nonsense, has not approved."""
    desk = Desk(answer)
    world = make_world(tmp_path, policies=ASKS, approver=desk)

    result = await call(world, LEGACY, None)

    assert meta(result)["reason"] == "approval"
    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]
    assert "password" not in caplog.text


async def test_approver_that_hangs_runs_nothing(tmp_path: Path) -> None:
    """Nor does one that swallows its cancellation and says yes then."""
    limits = Limits()
    object.__setattr__(limits, "approval_seconds", 0.02)

    async def hangs(_: ApprovalRequest) -> Approval:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return Approval()
        raise AssertionError

    world = make_world(tmp_path, policies=ASKS, approver=hangs, limits=limits)

    with anyio.fail_after(20):
        result = await call(world, LEGACY, None)

    assert meta(result)["reason"] == "approval"
    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]


async def test_approver_that_is_cancelled_with_the_request_ends_it(tmp_path: Path) -> None:
    """A client that gives up takes its question along, and that a person was bothered stays on record."""
    asked = anyio.Event()

    async def waits(_: ApprovalRequest) -> Approval:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    world = make_world(tmp_path, policies=ASKS, approver=waits)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, world, LEGACY, None)
            await asked.wait()
            tasks.cancel_scope.cancel()

    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]
    assert "agentguard.approval.id" in world.records()[0]
    assert world.records("outcome") == []


FOUR_EYES = ASKS.replace(
    "unless { context has approval }",
    "unless { context has approval && context.approval has approver && principal has user"
    " && context.approval.approver != principal.user }",
)


@pytest.mark.parametrize(("user", "runs"), [("alice", True), ("carol", False)])
async def test_policy_can_ask_for_four_eyes(user: str, runs: bool, tmp_path: Path) -> None:
    """Who approves is a user that policies compare; what they do not accept is denied, and not asked again."""
    desk = Desk(CAROL)
    world = make_world(tmp_path, policies=FOUR_EYES, approver=desk, agent=None)

    with acting_as("reader", user=user):
        result = await call(world, LEGACY, None)

    assert result.is_error is not runs
    assert bool(world.ran) is runs
    assert len(desk.asked) == 1
    assert reasons(world) == ["permit" if runs else "approval_unavailable"]


@pytest.mark.parametrize(
    ("approver", "runs"),
    [("corp|carol", True), ("other|alice", True), ("corp|alice", False), ("alice", False), ("corp|", False),
     ("auth0|alice", False)],
)  # fmt: skip
async def test_four_eyes_hold_where_names_have_an_alias(approver: str, runs: bool, tmp_path: Path) -> None:
    """A desk that goes on saying `alice` when a second issuer is trusted does not let her approve her own calls."""
    desk = Desk(Approval(approver=approver))
    world = make_world(tmp_path, policies=FOUR_EYES, approver=desk, attach=False)
    trusted = [TrustedIssuer(issuer=f"https://{alias}.example", alias=alias) for alias in ("corp", "other")]
    keys = {one.issuer: FixedKeys(world.issuer.jwks()) for one in trusted}
    verifier = InvocationVerifier(*trusted, audience=AUDIENCE, keys=keys)
    world.guard._given = dataclasses.replace(world.guard._given, verifier=verifier)
    world.guard.attach(world.server, identity="meta")

    with acting_as("corp|reader", user="corp|alice", prefix="corp|"):
        result = await call(world, LEGACY, None)

    assert result.is_error is not runs
    assert bool(world.ran) is runs
    assert reasons(world) == ["permit" if runs else "approval_unavailable"]


LEADS = ASKS.replace(
    "unless { context has approval }",
    'unless { context has approval && context.approval has approver && context.approval.approver in Group::"leads" }',
)


@pytest.mark.parametrize(
    ("approver", "reason"), [("carol", "permit"), ("dave", "approval_unavailable"), ("eve", "missing_entity")]
)
async def test_approver_is_loaded_like_any_user(approver: str, reason: str, tmp_path: Path) -> None:
    """With a loader for users, their groups count; somebody whom nobody knows denies."""

    def extend(world: World) -> None:
        @world.guard.entity("User", private=True)
        async def user(user_id: str) -> Entity | None:
            if user_id == "eve":
                return None
            return Entity({}, [EntityUid("Group", "leads")] if user_id == "carol" else [])

    write_policies(tmp_path, entities=[{"uid": {"type": "Group", "id": "leads"}, "attrs": {}, "parents": []}])
    world = make_world(tmp_path, policies=LEADS, extend=extend, approver=Desk(Approval(approver=approver)), agent=None)

    with acting_as("reader", user="carol"):
        result = await call(world, LEGACY, None)

    assert result.is_error is (reason != "permit")
    assert reasons(world) == [reason]
    assert world.records()[0]["agentguard.approval.approver"].startswith("hmac-sha256:")


async def test_approver_who_is_what_the_call_acts_on_is_known_once(tmp_path: Path) -> None:
    """As the resource, a user is in the tool; as the approver too it is the same user."""

    def extend(world: World) -> None:
        @world.guard.entity("User")
        async def user(_: str) -> Entity:
            return Entity({}, [EntityUid("Group", "leads")])

        @world.server.tool()
        @world.guard.tool(resource="User::{user_id}")
        async def rename(user_id: str) -> str:
            world.ran.append(f"rename {user_id}")
            return "renamed"

    write_policies(tmp_path, entities=[{"uid": {"type": "Group", "id": "leads"}, "attrs": {}, "parents": []}])
    world = make_world(
        tmp_path,
        policies=LEADS.replace('"export"', '"rename"', 1).partition('@id("cap")')[0],
        extend=extend,
        approver=Desk(CAROL),
        types=f"{TYPES} entity User in [Tool, Group];",
    )

    result = await call(world, LEGACY, None, "rename", user_id="carol")

    assert not result.is_error
    assert world.ran == ["rename carol"]


async def test_every_resource_has_to_be_approved_and_a_hard_forbid_on_one_asks_nobody(tmp_path: Path) -> None:
    """A call on several is one question; what denies one of them for good comes before it."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{ids[*]}")
        async def purge(ids: list[str]) -> str:
            world.ran.append(f"purge {ids}")
            return "purged"

    policies = """
    @id("all") permit (principal, action, resource);
    @id("b") @obligation("approval") @approval_prompt("Really?")
    forbid (principal, action == Action::"purge", resource == Record::"r2") unless { context has approval };
    @id("a") @obligation("approval") @approval_prompt("Sure?")
    forbid (principal, action == Action::"purge", resource == Record::"r3") unless { context has approval };
    @id("never") forbid (principal, action, resource is Record) when { resource.sensitivity == "restricted" };
    """
    desk = Desk(Approval())
    world = make_world(tmp_path, policies=policies, extend=extend, approver=desk)

    free = await call(world, LEGACY, None, "purge", ids=["r1"])
    asked = await call(world, LEGACY, None, "purge", ids=["r1", "r2", "r3"])
    hard = await call(world, LEGACY, None, "purge", ids=["r2", "r9"])

    assert [free.is_error, asked.is_error, hard.is_error] == [False, False, True]
    assert world.ran == ["purge ['r1']", "purge ['r1', 'r2', 'r3']"]
    (request,) = desk.asked
    assert request.prompt == "Sure? Really?"
    assert request.policy_ids == ("a", "b")
    assert [uid.id for uid in request.resources] == ["r1", "r2", "r3"]
    assert reasons(world) == ["permit", "permit", "permit", "permit", "policy"]
    assert world.records()[-1]["agentguard.resource.id"] == "r9"
    assert ["agentguard.approval.id" in record for record in world.records()] == [False, True, True, True, False]


async def test_forbid_that_matches_only_what_is_approved_is_told_after_the_answer(tmp_path: Path) -> None:
    """Who will say yes elsewhere is not known before, so the question goes out and the policy still decides."""
    policies = ASKS + (
        '@id("not-carol") forbid (principal, action == Action::"export", resource)'
        " when { context has approval && !(context.approval has approver) };"
    )
    desk = Desk(Approval())
    world = make_world(tmp_path, policies=policies, approver=desk)

    result = await call(world, LEGACY, None)

    assert meta(result)["reason"] == "denied"
    assert len(desk.asked) == 1
    assert world.records()[0]["agentguard.policy.ids"] == ["not-carol"]


async def test_client_is_not_asked_where_a_policy_forbids_what_it_approves(tmp_path: Path) -> None:
    """Of the client it is known before that nobody will be named."""
    policies = ASKS + (
        '@id("not-carol") forbid (principal, action == Action::"export", resource)'
        " when { context has approval && !(context.approval has approver) };"
    )
    person = Person()
    world = make_world(tmp_path, policies=policies)

    result = await call(world, LEGACY, person)

    assert meta(result)["reason"] == "denied"
    assert person.seen == []


@pytest.mark.parametrize("person", [None, Person(NO)])
async def test_caller_is_not_told_to_find_somebody_where_no_answer_would_help(
    person: Person | None, tmp_path: Path
) -> None:
    """Nothing permits the call, whatever a person says: with somebody to ask and without, that is the reason."""
    permit = '@id("all") permit (principal, action, resource)'
    world = make_world(tmp_path, policies=ASKS.replace(permit, f'{permit} when {{ principal.scopes.contains("x") }}'))

    result = await call(world, LEGACY, person)

    (record,) = world.records()
    assert record["agentguard.decision.reason"] == "no_permit"
    assert meta(result)["retry"] != "approval"
    assert person is None or person.seen == []


@pytest.mark.parametrize("more", ["", " && context.approval has approver"])
@pytest.mark.parametrize("approver", ["desk", "callable", "http"])
async def test_nobody_is_asked_whose_channel_no_policy_accepts(
    approver: str, more: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the answer will come from is known before, whoever gives it; and the log says that of it."""
    caplog.set_level("INFO", "agentguard")
    asked: list[object] = []

    async def ask(request: ApprovalRequest) -> Approval:
        asked.append(request)
        return CAROL

    class Posts(HTTPApprover):
        async def _post(self, client: Any, body: bytes) -> Any:
            asked.append(body)
            raise AssertionError

    # A reader of logs would look for the desk; a policy wants the other one.
    channels: dict[str, tuple[Any, str]] = {
        "desk": (Desk(CAROL), "desk"),
        "callable": (ask, "approver"),
        "http": (Posts("https://desk.example/", bearer="a-secret-of-the-desk"), "url"),
    }
    chosen, channel = channels[approver]
    insists = f'unless {{ context has approval && context.approval.channel == "board"{more} }}'
    world = make_world(tmp_path, policies=ASKS.replace("unless { context has approval }", insists), approver=chosen)

    result = await call(world, LEGACY, None)

    why = f"nobody was asked: these policies accept no yes that comes by channel `{channel}`"
    assert meta(result)["reason"] == "approval"
    assert asked == getattr(chosen, "asked", []) == []
    assert world.ran == []
    (record,) = world.records()
    assert "agentguard.approval.id" not in record
    assert f", approval_unavailable: ask; {why}" in caplog.text


@pytest.mark.parametrize(
    ("condition", "runs", "asked"),
    [
        ('context.approval.channel == "desk"', True, 1),
        ("context.approval has approver", True, 1),
        ("!(context.approval has approver)", False, 1),
        ('context.approval has approver && context.approval.approver == User::"dave"', False, 1),
        ('context.approval has approver && context.approval.approver.id == "carol"', True, 1),
        ('context.approval.at > datetime("2100-01-01")', False, 1),
        ('context.approval.at > datetime("2000-01-01") && context.approval has approver', True, 1),
        ('context.approval.channel == "board" || context.approval has approver', True, 1),
        ('context.approval.channel == "client"', False, 0),
        ('context.approval.channel like "b*" && context.approval.at > datetime("2100-01-01")', False, 0),
        ('context.approval.channel == "board" && context.approval has approver', False, 0),
    ],
)  # fmt: skip
async def test_somebody_is_asked_where_it_may_depend_on_who_answers(
    condition: str, runs: bool, asked: int, tmp_path: Path
) -> None:
    """Who says yes, and when, is known of no approver before: only what no answer could change asks nobody."""
    desk = Desk(CAROL)
    world = make_world(
        tmp_path,
        policies=ASKS.replace("unless { context has approval }", f"unless {{ context has approval && ({condition}) }}"),
        approver=desk,
        types=f"{TYPES} entity User = {{ id: String }};" if "approver.id" in condition else TYPES,
        extend=with_ids if "approver.id" in condition else None,
    )

    result = await call(world, LEGACY, None)

    assert result.is_error is not runs
    assert len(desk.asked) == asked


def with_ids(world: World) -> None:
    """Let policies read a user's id."""

    @world.guard.entity("User")
    async def user(user_id: str) -> Entity:
        return Entity({"id": user_id})


async def test_forbid_that_matches_any_answer_asks_nobody(tmp_path: Path) -> None:
    """One that no person can lift, and that looks at the channel alone, is known before too."""
    policies = ASKS + (
        '@id("not-there") forbid (principal, action == Action::"export", resource)'
        ' when { context has approval && context.approval.channel == "desk" };'
    )
    desk = Desk(CAROL)
    world = make_world(tmp_path, policies=policies, approver=desk)

    result = await call(world, LEGACY, None)

    assert meta(result)["reason"] == "denied"
    assert desk.asked == []
    assert world.records()[0]["agentguard.policy.ids"] == ["not-there"]


async def test_run_above_that_accepts_no_answer_asks_nobody(tmp_path: Path) -> None:
    """Each link of the chain has to accept the yes."""
    policies = ASKS.replace("forbid (principal", 'forbid (principal in Agent::"planner"', 1).replace(
        "unless { context has approval }", 'unless { context has approval && context.approval.channel == "board" }'
    )
    desk = Desk(CAROL)
    world = make_world(tmp_path, policies=policies, approver=desk, agent=None)
    parent = unsafe_invocation("planner")

    with acting_as("reader", ancestors=(parent,)):
        result = await call(world, LEGACY, None)
    with acting_as("reader"):
        alone = await call(world, LEGACY, None)

    assert [result.is_error, alone.is_error] == [True, False]
    assert desk.asked == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Refusal(Reason.INTERNAL_ERROR, "the desk is closed"), "the desk is closed"),
        (Refusal(Reason.STORE_UNAVAILABLE), "Refusal was raised"),
        (OSError("the closed desk's password"), "OSError was raised"),
    ],
)
async def test_approver_that_refuses_says_why(
    answer: Exception, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and on record, and never under another reason than that nobody could be asked."""
    caplog.set_level("INFO", "agentguard")
    world = make_world(tmp_path, policies=ASKS, approver=Desk(answer))

    result = await call(world, LEGACY, None)

    assert reasons(world) == ["approval_unavailable"]
    assert f", approval_unavailable: ask; nobody could be asked, because {why}" in caplog.text
    assert world.records()[0]["agentguard.decision.detail"] == f"nobody could be asked, because {why}"
    assert "could not be asked, because " in caplog.text
    assert "password" not in caplog.text
    assert "closed" not in str(result)


async def test_what_only_rehearses_asks_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing runs whatever is decided, a person has nothing to approve."""
    caplog.set_level("INFO", "agentguard")
    desk = Desk(Approval())
    world = make_world(tmp_path, policies=ASKS, approver=desk)
    tool = world.guard._functions[1]
    assert tool.rule is not None
    assert world.guard._enforcer is not None

    with acting_as("reader") as invocation:

        async def identify() -> Any:
            return invocation

        rehearsal = Call(identify=identify, answers=None, transport="stdio", depth=1, rehearse=True)  # type: ignore[arg-type]
        with pytest.raises(Denial):
            await world.guard._enforcer.enforce(
                rehearsal, tool.rule, {"max_rows": 1, "fmt": "csv"}, anyio.lowlevel.checkpoint
            )

    assert desk.asked == []
    assert ", approval_unavailable: ask; nothing would run, so nobody is asked" in caplog.text


async def test_clients_word_counts_for_nothing_where_another_channel_is_to_be_asked(tmp_path: Path) -> None:
    """A state from the time when the client was asked is of no use once it is not."""
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=MemoryLedger(), key=bytes(32))
    before = without_the_sdks_seal(make_world(tmp_path / "a", policies=ASKS, state=state, agent=None))
    desk = Desk(None)
    after = without_the_sdks_seal(make_world(tmp_path / "b", policies=ASKS, state=state, agent=None, approver=desk))

    with acting_as("reader"):
        async with at(before, "2026-07-28", Person()) as client:
            asked = await first(client)
        async with at(after, "2026-07-28", Person()) as client:
            result = await again(client, asked.request_state)

    assert result.is_error  # type: ignore[union-attr]
    assert after.ran == []
    assert desk.asked == []
    assert reasons(after)[-1] == "approval_invalid"


async def plain(_: ApprovalRequest) -> Approval | None:
    """Decline."""


class Sync:
    """What cannot be awaited."""

    def __call__(self, _: ApprovalRequest) -> None:
        """Decline."""


class Named:
    """An approver with another channel."""

    def __init__(self, channel: object) -> None:
        self.channel = channel

    async def __call__(self, _: ApprovalRequest) -> None:
        """Decline."""

    async def method(self, _: ApprovalRequest) -> None:
        """Decline."""


@pytest.mark.parametrize(
    ("approver", "channel"),
    [(None, "client"), (plain, "approver"), (Named("url").method, "approver"), (Desk(None), "desk")],
)
def test_channel_has_a_name_for_policies(approver: object, channel: str) -> None:
    """The client's, a plain function's, and what an approver calls its own."""
    assert channel_of(approver) == channel


@pytest.mark.parametrize("approver", [Sync(), lambda _: None, "https://desk.example", Desk, 7, object()])
def test_approver_that_cannot_be_awaited_is_refused(approver: Any, tmp_path: Path) -> None:
    """When the guard is made, and not when the first person should have been asked."""
    with pytest.raises(ConfigurationError, match="approver= wants an async callable, got `"):
        make_world(tmp_path, policies=ASKS, approver=approver)


@pytest.mark.parametrize("channel", ["client", "", "Desk", "a b", "x" * 33, None, 7])
def test_approver_does_not_pass_for_the_client(channel: object, tmp_path: Path) -> None:
    """Nor has it a name that no policy could tell from another."""
    with pytest.raises(ConfigurationError, match="the `channel` of an approver wants"):
        make_world(tmp_path, policies=ASKS, approver=Named(channel))


def test_partial_of_an_approver_is_one() -> None:
    """What wraps an async function without hiding it."""

    async def ask(_: str, __: ApprovalRequest) -> Approval | None:
        return None

    assert channel_of(functools.partial(ask, "desk")) == "approver"
