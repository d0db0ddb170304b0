"""An approval is for one call, at one time, of one run; whatever else comes of it runs nothing.

The client is the attacker here: it keeps states, changes calls, and answers for the person.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult, PaginatedRequestParams

from agentguard import AccessDenied, Approval, ApprovalRequest, Entity, Limits, Reason, Refusal, State
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.store import MemoryStore
from agentguard.testing import acting_as
from tests.approvals import ASKS, NO, YES, Person, again, at, call, first, reasons, without_the_sdks_seal
from tests.tokens import Clock
from tests.world import ERAS, SERVER, Era, World, make_world, meta

MODERN: Era = "2026-07-28"
LEGACY: Era = "2025-11-25"

eras = pytest.mark.parametrize("era", ERAS)


def refused(result: CallToolResult | InputRequiredResult, reason: str = "approval") -> bool:
    """Return whether a call was denied for *reason*."""
    assert isinstance(result, CallToolResult)
    return meta(result)["reason"] == reason


@eras
async def test_yes_runs_the_call_once(era: Era, tmp_path: Path) -> None:
    """What all the others are measured by: with a clear yes, the tool runs."""
    world = make_world(tmp_path, policies=ASKS)
    person = Person()

    result = await call(world, era, person)

    assert not result.is_error
    assert world.ran == ["export 5 csv"]
    assert len(person.seen) == 1


@eras
@pytest.mark.parametrize(
    "answer",
    [
        NO,
        ElicitResult(action="cancel"),
        ElicitResult(action="accept"),
        ElicitResult(action="accept", content={}),
        ElicitResult(action="accept", content={"approve": False}),
        ElicitResult(action="accept", content={"approve": "true"}),
        ElicitResult(action="accept", content={"approve": 1}),
        ElicitResult(action="decline", content={"approve": True}),
    ],
)
async def test_what_is_no_clear_yes_is_a_no(answer: ElicitResult, era: Era, tmp_path: Path) -> None:
    """A form that was sent off without the box ticked approves nothing."""
    world = make_world(tmp_path, policies=ASKS)

    result = await call(world, era, Person(answer))

    assert refused(result)
    assert meta(result)["retry"] == "change"
    assert world.ran == []
    assert reasons(world)[-1] == "approval_declined"
    assert world.records()[-1]["agentguard.policy.ids"] == ["ask"]


@eras
async def test_next_call_is_asked_about_anew(era: Era, tmp_path: Path) -> None:
    """An approval is for this call alone, however alike the next one is."""
    world = make_world(tmp_path, policies=ASKS)
    person = Person()

    async with at(world, era, person) as client:
        await client.call_tool("export", {"max_rows": 5})
        person.answer = NO
        result = await client.call_tool("export", {"max_rows": 5})

    assert refused(result)
    assert world.ran == ["export 5 csv"]
    assert len(person.seen) == 2


async def test_replayed_state_runs_nothing(tmp_path: Path) -> None:
    """A state and its yes are good for one use, whatever came of that."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)
        ran = await again(client, asked.request_state)
        replayed = await again(client, asked.request_state)

    assert not ran.is_error  # type: ignore[union-attr]
    assert refused(replayed)
    assert world.ran == ["export 5 csv"]
    assert reasons(world) == ["approval_required", "permit", "approval_invalid"]
    asked_id = world.records()[0]["agentguard.approval.id"]
    assert [record["agentguard.approval.id"] for record in world.records()] == [asked_id] * 3


async def test_no_is_not_followed_by_a_yes(tmp_path: Path) -> None:
    """A question has one answer: a client does not ask until it likes what it hears."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)
        no = await again(client, asked.request_state, NO)
        yes = await again(client, asked.request_state, YES)

    assert refused(no)
    assert refused(yes)
    assert world.ran == []
    assert reasons(world) == ["approval_required", "approval_declined", "approval_invalid"]


async def test_parallel_uses_run_once(tmp_path: Path) -> None:
    """Eight at once, one store: seven come second."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))
    results: list[Any] = []

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)

        async def use() -> None:
            results.append(await again(client, asked.request_state))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(use)

    assert world.ran == ["export 5 csv"]
    assert sum(result.is_error for result in results) == 7
    assert reasons(world).count("approval_invalid") == 7


async def test_two_calls_at_once_need_two_answers(tmp_path: Path) -> None:
    """In the older protocol each call waits for an answer of its own."""
    world = make_world(tmp_path, policies=ASKS)
    person = Person()
    answers = [YES, NO]
    person.meanwhile = lambda: setattr(person, "answer", answers.pop())
    results: list[Any] = []

    async with at(world, LEGACY, person) as client, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: _append(results, client.call_tool("export", {"max_rows": 5})))

    assert world.ran == ["export 5 csv"]
    assert sorted(result.is_error for result in results) == [False, True]


async def _append(results: list[Any], result: Any) -> None:
    results.append(await result)


async def test_changed_arguments_run_nothing(tmp_path: Path) -> None:
    """Five rows were approved, not fifty."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)
        result = await again(client, asked.request_state, arguments={"max_rows": 50})

    assert refused(result)
    assert world.ran == []


async def test_changed_arguments_run_nothing_under_the_sdks_seal(tmp_path: Path) -> None:
    """The SDK seals the guard's state once more, and refuses in its own words."""
    world = make_world(tmp_path, policies=ASKS)

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)
        with pytest.raises(MCPError, match="requestState"):
            await again(client, asked.request_state, arguments={"max_rows": 50})

    assert world.ran == []


async def test_changed_argument_that_policies_do_not_see_runs_nothing(tmp_path: Path) -> None:
    """What the decorator excludes is part of the call that was approved all the same."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(exclude=("body",))
        async def send(to: str, body: str) -> None:
            world.ran.append(f"send {to} {body}")

    policies = ASKS.replace('"export"', '"send"', 1).partition('@id("cap")')[0]
    world = without_the_sdks_seal(make_world(tmp_path, policies=policies, extend=extend))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client, "send", arguments={"to": "bob", "body": "hello"})
        changed = await again(client, asked.request_state, tool="send", arguments={"to": "bob", "body": "secrets"})
        same = await again(client, asked.request_state, tool="send", arguments={"to": "bob", "body": "hello"})

    assert refused(changed)
    assert not same.is_error  # type: ignore[union-attr]
    assert world.ran == ["send bob hello"]


async def test_argument_that_changes_while_the_person_thinks_runs_nothing(tmp_path: Path) -> None:
    """The call waits with its own values; if somebody gets at them, they are not what was approved."""
    rows = [1]

    async def approver(request: ApprovalRequest) -> Approval:
        assert request.arguments == {"rows": [1]}
        rows.append(2)
        return Approval()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def export_rows(rows: list[int]) -> None:
            world.ran.append(f"export {rows}")

        functions["export_rows"] = export_rows

    functions: dict[str, Any] = {}
    policies = ASKS.replace('"export"', '"export_rows"', 1).partition('@id("cap")')[0]
    world = make_world(tmp_path, policies=policies, extend=extend, approver=approver)

    with acting_as("reader"), pytest.raises(AccessDenied):
        await functions["export_rows"](rows)

    assert world.ran == []
    assert reasons(world) == ["approval_invalid"]


async def test_state_of_another_tool_runs_nothing(tmp_path: Path) -> None:
    """Two tools with the same arguments: the yes was for one of them."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        def erase(max_rows: int) -> None:
            world.ran.append(f"erase {max_rows}")

    policies = ASKS.replace('action == Action::"export"', 'action in [Action::"export", Action::"erase"]', 1)
    world = without_the_sdks_seal(make_world(tmp_path, policies=policies, extend=extend))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)
        result = await again(client, asked.request_state, tool="erase")

    assert refused(result)
    assert world.ran == []


async def test_approval_of_another_run_runs_nothing(tmp_path: Path) -> None:
    """Another run of the same agent brings the state: over stdio the SDK tells no two callers apart."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS, identity="meta"))
    one, other = ({"agentguard/invocation": world.token("reader", audience=stdio_audience(SERVER))} for _ in range(2))

    async with at(world, MODERN, Person()) as client:
        await client.session.list_tools(params=PaginatedRequestParams.model_validate({"_meta": one}))
        asked = await first(client, meta=one)
        stolen = await again(client, asked.request_state, meta=other)
        own = await again(client, asked.request_state, meta=one)

    assert refused(stolen)
    assert not own.is_error  # type: ignore[union-attr]
    assert world.ran == ["export 5 csv"]


async def test_run_that_takes_over_while_the_person_thinks_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who calls is verified again after the answer; another run was not approved."""
    world = make_world(tmp_path, policies=ASKS, attach=False)
    file = tmp_path / "token"

    def write() -> None:
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(world.token("reader", audience=stdio_audience(SERVER)))

    write()
    monkeypatch.setenv("AGENTGUARD_TOKEN_FILE", str(file))
    world.guard.attach(world.server)

    result = await call(world, LEGACY, Person(meanwhile=write))

    assert refused(result, "unauthenticated")
    assert world.ran == []
    assert reasons(world) == ["unauthenticated"]


@eras
async def test_other_policy_version_runs_nothing(era: Era, tmp_path: Path) -> None:
    """What was approved was approved under the policies that asked."""
    world = make_world(tmp_path, policies=ASKS)
    enforcer = world.guard._enforcer
    assert enforcer is not None

    def change() -> None:
        other = copy.copy(enforcer.in_force.policies)
        other.version = "sha256:other"
        enforcer.in_force.adopt(other)

    result = await call(world, era, Person(meanwhile=change))

    assert refused(result)
    assert world.ran == []
    assert reasons(world)[-1] == "approval_invalid"


@eras
@pytest.mark.parametrize(("seconds", "runs"), [(299, True), (300, False), (900, False)])
async def test_answer_that_comes_too_late_runs_nothing(era: Era, seconds: int, runs: bool, tmp_path: Path) -> None:
    """Five minutes, by the guard's own clock."""
    clock = Clock(1_785_607_200.0)
    state = State(store=MemoryStore(clock=clock), ledger=MemoryLedger(), key=bytes(32))
    world = make_world(tmp_path, policies=ASKS, clock=clock, state=state, agent=None)

    def wait() -> None:
        clock.now += seconds

    with acting_as("reader", at=clock.now):
        result = await call(world, era, Person(meanwhile=wait))

    assert result.is_error is not runs
    assert bool(world.ran) is runs
    if not runs:
        assert reasons(world)[-1] == "approval_invalid"


async def test_person_who_does_not_answer_runs_nothing(tmp_path: Path) -> None:
    """After the limit the call is denied, and whoever answers then is too late."""
    limits = Limits()
    object.__setattr__(limits, "approval_seconds", 0.05)
    world = make_world(tmp_path, policies=ASKS, limits=limits)

    with anyio.fail_after(20):
        result = await call(world, LEGACY, Person(meanwhile=anyio.sleep_forever))

    assert refused(result)
    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]


async def test_approval_that_nobody_asked_for_is_asked_for(tmp_path: Path) -> None:
    """A yes without a state is no answer to anything."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        results = [await again(client, state) for state in (None, "", "a state of the tool's own")]

    assert all(isinstance(result, InputRequiredResult) for result in results)
    assert world.ran == []
    assert reasons(world) == ["approval_required"] * 3


async def test_approval_that_nobody_asked_for_says_nothing_in_the_older_protocol(tmp_path: Path) -> None:
    """There a request carries no answers, however they are spelled."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))
    async with at(world, MODERN, Person()) as client:
        state = (await first(client)).request_state

    person = Person(NO)
    async with at(world, LEGACY, person) as client:
        result = await again(client, state)

    assert refused(result)
    assert len(person.seen) == 1
    assert world.ran == []


async def test_state_that_is_not_ours_runs_nothing(tmp_path: Path) -> None:
    """Made up, cut, changed, of the last start of the server: the same refusal for each."""
    world = without_the_sdks_seal(make_world(tmp_path / "one", policies=ASKS))
    other = without_the_sdks_seal(make_world(tmp_path / "other", policies=ASKS))
    async with at(other, MODERN, Person()) as client:
        foreign = (await first(client)).request_state
    assert foreign is not None

    async with at(world, MODERN, Person()) as client:
        state = (await first(client)).request_state
        assert state is not None
        middle = len(state) // 2
        changed = f"{state[:middle]}{'A' if state[middle] != 'A' else 'B'}{state[middle + 1 :]}"
        forged = [foreign, changed, state[:-4], f"{state}A", state[:40], "agentguard.", "agentguard.v1.AAAA"]
        results = [await again(client, one) for one in forged]

    assert all(refused(result) for result in results)
    assert world.ran == []
    assert reasons(world)[1:] == ["approval_invalid"] * len(forged)


async def test_state_of_another_server_with_the_same_key_runs_nothing(tmp_path: Path) -> None:
    """Two servers on one state folder read each other's states; what was approved names its server."""
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=MemoryLedger(), key=bytes(32))
    one = without_the_sdks_seal(make_world(tmp_path / "one", policies=ASKS, state=state, identity="meta"))
    two = without_the_sdks_seal(
        make_world(tmp_path / "two", policies=ASKS, state=state, identity="meta", issuer=one.issuer, attach=False)
    )
    two.server._lowlevel_server.name = "others"
    two.guard.attach(two.server, identity="meta")
    run = {"agentguard/invocation": one.token("reader", audience=stdio_audience(SERVER), run="r1")}
    there = {"agentguard/invocation": one.token("reader", audience=stdio_audience("others"), run="r1")}

    async with at(one, MODERN, Person()) as client:
        asked = await first(client, meta=run)
    async with at(two, MODERN, Person()) as client:
        result = await again(client, asked.request_state, meta=there)

    assert refused(result)
    assert two.ran == []


@eras
async def test_what_is_forbidden_for_good_is_not_asked_about(era: Era, tmp_path: Path) -> None:
    """No yes could help, so no person is bothered."""
    world = make_world(tmp_path, policies=ASKS)
    person = Person()

    result = await call(world, era, person, max_rows=501)

    assert refused(result, "denied")
    assert person.seen == []
    assert world.ran == []


@eras
async def test_run_that_is_ended_while_the_person_thinks_runs_nothing(era: Era, tmp_path: Path) -> None:
    """A revocation does not wait for an answer."""
    world = make_world(tmp_path, policies=ASKS, agent=None)
    with acting_as("reader") as invocation, anyio.fail_after(20):
        person = Person(meanwhile=lambda: world.state.store.revoke(issuer=invocation.issuer, run_id=invocation.run_id))
        result = await call(world, era, person)

    assert refused(result, "ended")
    assert world.ran == []
    assert reasons(world)[-1] == "revoked"


async def test_revocation_does_not_wait_for_the_person(tmp_path: Path) -> None:
    """Nobody ever answers, and the call is over as soon as its run is."""
    world = make_world(tmp_path, policies=ASKS, agent=None)
    with acting_as("reader") as invocation, anyio.fail_after(20):

        async def never() -> None:
            world.state.store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)
            await anyio.sleep_forever()

        result = await call(world, LEGACY, Person(meanwhile=never))

    assert refused(result, "ended")
    assert world.ran == []


@eras
async def test_resource_that_changed_meanwhile_runs_nothing(era: Era, tmp_path: Path) -> None:
    """A yes to a draft is none to what became of it."""
    sensitivity = ["normal"]

    def extend(world: World) -> None:
        @world.guard.entity("Letter")
        async def letter(_: str) -> Entity:
            return Entity({"sensitivity": sensitivity[0]})

        @world.server.tool()
        @world.guard.tool(resource="Letter::{letter}")
        async def send(letter: str) -> None:
            world.ran.append(f"send {letter}")

    policies = ASKS.replace('"export"', '"send"', 1).partition('@id("cap")')[0]
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "letters.cedarschema").write_text("entity Letter in [Tool] = { sensitivity: String };")
    world = make_world(tmp_path, policies=policies, extend=extend)
    person = Person(meanwhile=lambda: sensitivity.insert(0, "secret"))

    result = await call(world, era, person, "send", letter="l1")

    assert refused(result)
    assert world.ran == []
    assert reasons(world)[-1] == "approval_invalid"


@eras
@pytest.mark.parametrize(("answer", "reason"), [(YES, ("policy", "denied")), (NO, ("approval_declined", "approval"))])
async def test_call_that_is_forbidden_for_good_meanwhile_runs_nothing(
    answer: ElicitResult, reason: tuple[str, str], era: Era, tmp_path: Path
) -> None:
    """What denies it now is told, whatever was asked before; a no stays a no."""
    sensitivity = ["normal"]

    def extend(world: World) -> None:
        @world.guard.entity("Letter")
        async def letter(_: str) -> Entity:
            return Entity({"sensitivity": sensitivity[0]})

        @world.server.tool()
        @world.guard.tool(resource="Letter::{letter}")
        async def send(letter: str) -> None:
            world.ran.append(f"send {letter}")

    policies = ASKS.replace('"export"', '"send"', 1).partition('@id("cap")')[0]
    policies += (
        '@id("secret") forbid (principal, action, resource is Letter) when { resource.sensitivity == "secret" };'
    )
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "letters.cedarschema").write_text("entity Letter in [Tool] = { sensitivity: String };")
    world = make_world(tmp_path, policies=policies, extend=extend)
    person = Person(answer, meanwhile=lambda: sensitivity.insert(0, "secret"))

    result = await call(world, era, person, "send", letter="l1")

    assert refused(result, reason[1])
    assert world.ran == []
    assert reasons(world)[-1] == reason[0]


class Disk(MemoryLedger):
    """A ledger whose disk a test can fill."""

    full = False

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record*, while there is room."""
        if self.full:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "no space left")
        return super().append(record)


class Store(MemoryStore):
    """A store in which nothing can be spent any more."""

    answer: Any = None

    def spend(self, key: str, until: float) -> bool:
        """Fail, or answer with something that is no bool."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@eras
async def test_approval_that_cannot_be_recorded_runs_nothing(era: Era, tmp_path: Path) -> None:
    """No evidence, no action, whatever a person said."""
    disk = Disk()
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=disk, key=bytes(32))
    world = make_world(tmp_path, policies=ASKS, state=state)

    result = await call(world, era, Person(meanwhile=lambda: setattr(disk, "full", True)))

    assert refused(result, "unavailable")
    assert world.ran == []


async def test_question_that_cannot_be_recorded_is_not_asked(tmp_path: Path) -> None:
    """Also a question is a decision, and needs its record."""
    disk = Disk()
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=disk, key=bytes(32))
    world = make_world(tmp_path, policies=ASKS, state=state)
    disk.full = True
    person = Person()

    result = await call(world, MODERN, person)

    assert refused(result, "unavailable")
    assert person.seen == []


@eras
@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Refusal(Reason.STORE_UNAVAILABLE), "unavailable"), (OSError("down"), "unavailable"), (False, "approval"),
     ("yes", "approval"), (None, "approval")],
)  # fmt: skip
async def test_approval_that_cannot_be_spent_runs_nothing(
    answer: object, reason: str, era: Era, tmp_path: Path
) -> None:
    """A store that is down, or answers with anything but a plain yes."""
    store = Store(clock=lambda: 0.0)
    store.answer = answer
    state = State(store=store, ledger=MemoryLedger(), key=bytes(32))
    world = make_world(tmp_path, policies=ASKS, state=state)

    result = await call(world, era, Person())

    assert refused(result, reason)
    assert world.ran == []


@eras
async def test_approval_that_a_policy_does_not_accept_runs_nothing_and_asks_nobody(era: Era, tmp_path: Path) -> None:
    """Who insists on another channel than the caller's own client is not asked there."""
    insists = ASKS.replace(
        "unless { context has approval }", 'unless { context has approval && context.approval.channel == "url" }'
    )
    world = make_world(tmp_path, policies=insists)
    person = Person()

    result = await call(world, era, person)

    assert refused(result)
    assert person.seen == []
    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]


@eras
async def test_call_that_no_policy_permits_is_not_asked_about(era: Era, tmp_path: Path) -> None:
    """A forbid that a person could lift hides that nothing permits the call; it is found out before."""
    policies = ASKS.replace(
        "permit (principal, action, resource);", "permit (principal, action, resource) when { context.input has none };"
    ).replace("context.input has none", "context.input.max_rows < 3")
    policies = policies.replace(
        "(principal, action, resource) when", '(principal, action == Action::"export", resource) when'
    )
    world = make_world(tmp_path, policies=policies)
    person = Person()

    result = await call(world, era, person)

    assert refused(result, "denied")
    assert person.seen == []
    assert reasons(world) == ["no_permit"]


@eras
async def test_client_that_cannot_ask_anybody_runs_nothing(era: Era, tmp_path: Path) -> None:
    """Without the capability there is nobody."""
    world = make_world(tmp_path, policies=ASKS)

    result = await call(world, era, None)

    assert refused(result)
    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]


@eras
async def test_approval_is_of_the_call_and_not_of_what_it_calls(era: Era, tmp_path: Path) -> None:
    """A tool that calls another: in the middle of a call a person can be asked, between two requests not."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def outer() -> str:
            world.ran.append("outer")
            await world.server.call_tool("export", {"max_rows": 5})
            return "done"

    world = make_world(tmp_path, policies=ASKS, extend=extend)
    person = Person()

    result = await call(world, era, person, "outer")

    assert result.is_error is (era == MODERN)
    assert world.ran == (["outer"] if era == MODERN else ["outer", "export 5 csv"])
    assert len(person.seen) == (0 if era == MODERN else 1)


@eras
async def test_what_an_approved_tool_calls_is_judged_for_itself(era: Era, tmp_path: Path) -> None:
    """The approval is no objection to what needs none, and lifts nothing below the call."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def outer() -> str:
            await world.server.call_tool("read", {"record_id": "r1"})
            with pytest.raises(AccessDenied):
                await world.server.call_tool("export", {"max_rows": 5})
            world.ran.append("outer")
            return "done"

    policies = ASKS.replace('action == Action::"export"', 'action in [Action::"export", Action::"outer"]', 1)
    world = make_world(tmp_path, policies=policies, extend=extend)
    person = Person()
    answers = [NO, YES]
    person.meanwhile = lambda: setattr(person, "answer", answers.pop())

    result = await call(world, era, person, "outer")

    assert not result.is_error
    assert world.ran == ["read r1", "outer"]
