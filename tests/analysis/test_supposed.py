"""A supposed call gets the very answer that the guard gives to the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import anyio
import pytest
from mcp import Client
from pydantic import BaseModel

from agentguard import Approval, ConfigurationError, Effect, Grade, Reason, Refusal
from agentguard.analysis.loaded import check_loadable
from agentguard.analysis.sizes import check_size
from agentguard.analysis.supposed import Verdict, decided, judge, offered_as, ordered, requests_of, suppose
from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace
from agentguard.lifecycle.tally import Tally
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, record_of, to_cedar
from agentguard.policy.schemas.types import CedarType, Member
from agentguard.request import run_record
from agentguard.steps.call import ACTING
from tests.analysis.clinic import NOW, RECORDS, make_clinic, written_clinic
from tests.approvals import NO, Person, at
from tests.steps.test_asking import Desk
from tests.world import World

ERA: Final = "2026-07-28"
READ: Final = {"type": "Tool", "id": "read"}
READS: Final = 'permit (principal, action == Action::"read", resource);'
IDENTITIES: Final = {
    "reader": Identity(agent="reader"),
    "reader-for-alice": Identity(agent="reader", user="alice", task="t1"),
    "reader-for-bob": Identity(agent="reader", user="bob"),
    "reader-for-nobody": Identity(agent="reader", user="nobody"),
    "exporter": Identity(agent="exporter", purpose="month close"),
    "exporter-shared": Identity(agent="exporter", purpose="month close", grade=Grade.SHARED),
    "granted": Identity(agent="reader", grant=READS),
    "granted-nothing-here": Identity(agent="reader", grant="permit (principal, action, resource) when { 1 > 2 };"),
    "granted-what-is-not": Identity(agent="reader", grant='permit (principal, action == Action::"fly", resource);'),
    "delegated": Identity(agent="reader", ancestors=(Identity(agent="reader", user="alice", grant=READS),)),
    "delegated-by-exporter": Identity(
        agent="reader", grant=READS, ancestors=(Identity(agent="exporter"), Identity(agent="reader"))
    ),
    "unlisted": Identity(agent="somebody"),
}
EXPORT: Final = {"max_rows": 5, "fmt": "csv", "columns": []}
CALLS: Final[list[tuple[str, dict[str, Any], dict[str, Any] | None]]] = [
    ("read", {"record_id": "r1"}, None),
    ("read", {"record_id": "r2"}, None),
    ("read", {"record_id": "r3"}, None),
    ("read", {"record_id": "r9"}, None),
    ("read", {"record_id": "nowhere"}, None),
    ("read", {"record_id": "r1", "note": {"text": "", "number": 1}}, None),
    ("read", {"record_id": "r9", "note": {"text": "", "number": 1}}, None),
    ("read_many", {"record_ids": ["r1", "r2", "r1"]}, None),
    ("read_many", {"record_ids": ["r1", "r9"]}, None),
    ("read_many", {"record_ids": ["r9", "nowhere"]}, None),
    ("read_many", {"record_ids": []}, None),
    ("export", EXPORT, {"names": 0}),
    ("export", {**EXPORT, "max_rows": 501}, {"names": 0}),
    ("export", {**EXPORT, "max_rows": 501, "columns": ["name", "name2"]}, {"names": 2}),
    ("wipe", {"record_id": "r1"}, None),
    ("wipe", {"record_id": "r2"}, None),
    ("wipe", {"record_id": "r9"}, None),
    ("wipe", {"record_id": "nowhere"}, None),
    ("open_file", {"path": "/etc/hosts"}, None),
]


def known() -> tuple[Mapping[str, object], ...]:
    """Return what the clinic's loaders know."""
    records: list[Mapping[str, object]] = [
        {
            "uid": {"type": "Record", "id": id_},
            "attrs": {
                "sensitivity": sensitivity,
                **({} if patient is None else {"patient": {"__entity": {"type": "Patient", "id": patient}}}),
            },
            "parents": [],
        }
        for id_, (sensitivity, patient) in RECORDS.items()
    ]
    ward = {"type": "Ward", "id": "w1"}
    return (*records, {"uid": {"type": "Patient", "id": "p2"}, "attrs": {}, "parents": [ward]})


def supposed(
    who: str | Identity, action: str, given: dict[str, Any], facts: dict[str, Any] | None = None, **more: Any
) -> SupposedCall:
    """Return a call that could have been made to the clinic."""
    identity = IDENTITIES[who] if isinstance(who, str) else who
    more = {"entities": known(), "now": NOW, "transport": "stdio", **more}
    return SupposedCall(identity=identity, action=action, input=given, facts=facts, **more)


def told(verdict: Verdict) -> tuple[str, str, tuple[str, ...]]:
    """Return what evidence would have of a verdict."""
    return verdict.effect.value, verdict.reason.value, verdict.policy_ids


@contextmanager
def acting(identity: Identity) -> Iterator[None]:
    """Act as an identity, to the very invocation."""
    before = ACTING.set(identity.invocation(NOW))
    try:
        yield
    finally:
        ACTING.reset(before)


async def really(client: Client, world: World, call: SupposedCall) -> tuple[str, str, tuple[str, ...]]:
    """Make a supposed call, and return what evidence has of it, over all of its resources."""
    before = len(world.records())
    with acting(call.identity):
        await client.call_tool(call.action, dict(call.input))
    records = world.records()[before:]
    ids = {id_ for record in records for id_ in record.get("agentguard.policy.ids", ())}
    effect, reason = records[0]["agentguard.decision.effect"], records[0]["agentguard.decision.reason"]
    return effect, reason, ordered(ids)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the clinic, written down."""
    return anyio.run(written_clinic, tmp_path_factory.mktemp("clinic"))


async def test_supposed_call_comes_out_as_the_real_one(workspace: Workspace) -> None:
    """The same effect, reason and policies, by the same version; the soak tests compare all pairs."""
    pairs = [(who, call) for place, who in enumerate(IDENTITIES) for call in CALLS[place % 4 :: 4]]

    await compare(workspace, pairs)


async def test_person_is_not_supposed_to_help_where_nothing_permits_the_call(workspace: Workspace) -> None:
    """As the guard finds before it asks: a yes would leave the call without a permit."""
    assert suppose(workspace, supposed("reader", "wipe", {"record_id": "r1"})).reason is Reason.APPROVAL_REQUIRED
    assert suppose(workspace, supposed("reader", "wipe", {"record_id": "r2"})).reason is Reason.NO_PERMIT
    await compare(workspace, [("reader", ("wipe", {"record_id": "r2"}, None))])


async def compare(workspace: Workspace, pairs: Sequence[tuple[str, Any]]) -> None:
    """Compare supposed calls with real ones, in which a person is asked and says no."""
    world = make_clinic(workspace.folder)
    async with at(world, ERA, Person(NO)) as client:
        for who, (action, given, facts) in pairs:
            call = supposed(who, action, given, facts)
            real = await really(client, world, call)
            # What is supposed is that nobody was asked yet.
            if real[1] == "approval_declined":
                real = (real[0], "approval_required", real[2])

            assert told(suppose(workspace, call)) == real, (who, action, given)
    (version,) = {record["agentguard.policy.version"] for record in world.records()}

    assert version == workspace.policies.version


@pytest.mark.parametrize("approver", ["alice", "nobody", None])
async def test_approval_counts_where_the_guard_would_have_asked(workspace: Workspace, approver: str | None) -> None:
    """And for nothing that is denied anyway; a name that nobody knows is an entity that is not there."""
    desk = Desk(Approval(approver=approver))
    world = make_clinic(workspace.folder, approver=desk)
    approval: dict[str, Any] = {
        "channel": "desk",
        "at": {"__extn": {"fn": "datetime", "arg": "2040-01-10T10:00:00.000Z"}},
    }
    if approver is not None:
        approval["approver"] = {"__entity": {"type": "User", "id": approver}}
    async with at(world, ERA, None) as client:
        for who in ("reader", "exporter", "delegated"):
            for action, given, facts in CALLS[-5:]:
                call = supposed(who, action, given, facts, approval=approval)

                assert told(suppose(workspace, call)) == await really(client, world, call), (who, action, given)


async def test_approver_that_a_loader_knows_comes_with_the_approval(tmp_path: Path) -> None:
    """It is loaded once more for that, as is all that it is in."""
    workspace = await written_clinic(tmp_path)
    loads_users = replace(
        workspace, written=replace(workspace.written, loaders=frozenset({"Record", "Patient", "User"}))
    )
    dora = {"uid": {"type": "User", "id": "dora"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]}
    approval = {
        "channel": "desk",
        "at": {"__extn": {"fn": "datetime", "arg": "2040-01-10T10:00:00.000Z"}},
        "approver": {"__entity": {"type": "User", "id": "dora"}},
    }
    call = supposed("reader", "wipe", {"record_id": "r1"}, approval=approval, entities=(*known(), dora))

    assert suppose(loads_users, call).allowed
    assert dora["uid"] in [entity["uid"] for entity in requests_of(loads_users, call)[0].entities]
    with pytest.raises(Refusal) as refused:
        requests_of(loads_users, replace(call, entities=known()))
    assert refused.value.reason is Reason.MISSING_ENTITY
    own = replace(call, identity=Identity(agent="reader", user="dora"))
    assert [entity["uid"] for entity in requests_of(loads_users, own)[0].entities].count(dora["uid"]) == 1


async def test_context_is_that_of_the_guard(workspace: Workspace) -> None:
    """Time, zone, environment and transport are what is supposed; arguments that no policy sees stay out."""
    call = supposed("reader", "open_file", {"path": "/a"}, environment="staging", transport="http")
    (request,) = requests_of(workspace, replace(call, time_zone=ZoneInfo("Asia/Tokyo")))

    assert request.context == {
        "now": {"__extn": {"fn": "datetime", "arg": "2040-01-10T10:00:00.000Z"}},
        "local": {"weekday": 2, "minute": 19 * 60},
        "environment": "staging",
        "transport": "http",
        "run": run_record(Tally(), now=NOW),
        "input": {},
    }
    assert str(request.resource) == 'File::"/a"'


def test_identity_becomes_an_invocation_with_its_whole_chain() -> None:
    """Each link has those above it, and a run of its own; all that a token says is there."""
    root = Identity(agent="a", user="u", task="t", purpose="p", scopes=frozenset({"s"}), claims={"level": 3}, age=60)
    leaf = Identity(agent="b", issuer="https://issuer.example", lifetime=300, grant=READS, ancestors=(root,))

    invocation = leaf.invocation(NOW + 0.5)

    (above,) = invocation.ancestors
    assert (above.agent, above.user, above.task, above.purpose) == ("a", "u", "t", "p")
    assert (above.scopes, above.claims, above.issued_at) == (frozenset({"s"}), {"level": 3}, NOW - 60)
    assert (above.lifetime, above.delegation_depth, above.ancestors) == (900, 0, ())
    assert (invocation.issuer, invocation.grant, invocation.lifetime) == ("https://issuer.example", READS, 300)
    assert invocation.delegation_depth == 1
    assert above.run_id != invocation.run_id


def test_entity_that_acts_can_be_supposed(workspace: Workspace) -> None:
    """As if the file of entities listed it: so a suspended agent can be tried without one."""
    intruder = {"uid": {"type": "Agent", "id": "x"}, "attrs": {}, "parents": [{"type": "Group", "id": "suspended"}]}
    call = supposed(Identity(agent="x"), "read", {"record_id": "r1"}, entities=(*known(), intruder))

    verdict = suppose(workspace, call)

    assert told(verdict) == ("deny", "policy", ("suspended",))
    assert verdict.early


def test_known_entity_cannot_be_supposed_otherwise(workspace: Workspace) -> None:
    """The guard would never ask for it, so the answer would be another one."""
    alice = {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": []}

    with pytest.raises(ConfigurationError, match=r"`User::\"alice\"` is in `cedarentities.json`"):
        requests_of(workspace, supposed("reader", "read", {"record_id": "r1"}, entities=(alice,)))
    check_loadable(workspace, known())


def test_unknown_tool_is_a_mistake(workspace: Workspace) -> None:
    """It is told which one was meant, and no denial passes for an answer."""
    with pytest.raises(ConfigurationError, match=r"no tool is called `raed`: did you mean `read`\?"):
        suppose(workspace, supposed("reader", "raed", {}))
    assert offered_as(workspace, "read").tool.name == "read"


def test_verdict_says_what_the_caller_hears(workspace: Workspace) -> None:
    """A policy's advice, unless every such call is denied: then the guard gives away nothing."""
    restricted = suppose(workspace, supposed("reader", "read", {"record_id": "r9"}))
    shared = suppose(workspace, supposed("exporter-shared", "export", EXPORT, {"names": 0}))
    missing = suppose(workspace, supposed("reader", "read", {"record_id": "nowhere"}))

    assert (restricted.advice, restricted.errors, restricted.early) == ("This record is restricted.", (), False)
    assert (shared.advice, shared.early, shared.allowed) == (None, True, False)
    assert missing.errors == ('no entity `Record::"nowhere"` is given, which a loader would have to know',)


def test_too_many_entities_are_denied(workspace: Workspace) -> None:
    """The bound of a call holds for a supposed one."""
    small = replace(workspace, limits=Limits(entities_per_request=1))

    verdict = suppose(small, supposed("reader", "read", {"record_id": "r2"}))

    assert told(verdict) == ("deny", "missing_entity", ())


def test_resource_may_be_given_with_what_acts_on_it(workspace: Workspace) -> None:
    """Whoever writes an entity as the guard has it does not put it into the tool twice."""
    record = {"uid": {"type": "Record", "id": "r1"}, "attrs": {"sensitivity": "normal"}, "parents": [READ]}

    (request,) = requests_of(workspace, supposed("reader", "read", {"record_id": "r1"}, entities=(record,)))

    assert request.entities == (record,)


def test_policies_that_do_not_know_the_action_deny(workspace: Workspace) -> None:
    """As those of another server would."""
    requests = requests_of(workspace, supposed("reader", "read", {"record_id": "r1"}))
    elsewhere = [replace(request, action="fly") for request in requests]

    assert told(judge(elsewhere, workspace.policies)) == ("deny", "unguarded", ())
    assert judge(requests, workspace.policies).effect is Effect.ALLOW


async def test_arguments_past_the_bounds_are_denied_as_they_really_are(workspace: Workspace) -> None:
    """A text, or all of them together, that the guard takes no policy's word for."""
    world = make_clinic(workspace.folder)
    bounds = [("x" * 65_536, "permit"), ("x" * 65_537, "invalid_argument"), ("é" * 32_769, "invalid_argument")]
    async with at(world, ERA, None) as client:
        for text, reason in bounds:
            call = supposed("reader", "read", {"record_id": "r1", "note": {"text": text}})

            assert told(suppose(workspace, call)) == await really(client, world, call)
            assert suppose(workspace, call).reason == reason


def test_sizes_are_counted_as_the_guard_counts_them() -> None:
    """To the byte: what passes one limit there passes it here, and one less is too little in both."""

    class Deep(BaseModel):
        name: str
        more: int | None = None

    shape = record_of(
        {
            "deep": Field(list[Deep]),
            "cost": Field(Decimal),
            "yes": Field(bool),
            "left_out": Field(int, required=False),
        },
        where="t",
    )
    text = CedarType(name="String")
    deep = {"name": Member(type=text), "more": Member(type=CedarType(name="Long"), required=False)}
    type_ = CedarType(
        name="Record",
        members={
            "deep": Member(type=CedarType(name="Set", element=CedarType(name="Record", members=deep))),
            "cost": Member(type=CedarType(name="decimal")),
            "yes": Member(type=CedarType(name="Bool")),
            "left_out": Member(type=CedarType(name="Long"), required=False),
        },
    )
    given = {"deep": [Deep(name="é"), Deep(name="b", more=1)], "cost": Decimal("1.5"), "yes": True}
    value = to_cedar(given, shape, Limits())

    def passes(size: int) -> bool:
        with suppress(Refusal):
            return bool(to_cedar(given, shape, Limits(arguments_bytes=size)))
        return False

    least = next(filter(passes, range(1, 2_000)))

    check_size(value, type_, Limits(arguments_bytes=least))
    with pytest.raises(Refusal, match="larger than the limit"):
        check_size(value, type_, Limits(arguments_bytes=least - 1))


async def test_approver_whom_nobody_knows_matters_where_somebody_is_asked(tmp_path: Path) -> None:
    """A call that needs no approval is allowed or denied as ever: who would approve is not looked up."""
    workspace = await written_clinic(tmp_path)
    loads_users = replace(
        workspace, written=replace(workspace.written, loaders=frozenset({"Record", "Patient", "User"}))
    )
    approval = {
        "channel": "desk",
        "at": {"__extn": {"fn": "datetime", "arg": "2040-01-10T10:00:00.000Z"}},
        "approver": {"__entity": {"type": "User", "id": "nobody"}},
    }

    def reason(action: str, record: str) -> str:
        call = supposed("reader", action, {"record_id": record}, approval=approval)
        return suppose(loads_users, call).reason

    assert reason("read", "r1") == "permit"
    assert reason("wipe", "r9") == "policy"
    assert reason("wipe", "r1") == "missing_entity"
    assert reason("wipe", "nowhere") == "missing_entity"


def test_what_decided_is_what_the_guard_came_to(workspace: Workspace) -> None:
    """With an approval only where one was asked for, and up to the first resource that is denied for good."""
    approval = {"channel": "client", "at": {"__extn": {"fn": "datetime", "arg": "2040-01-10T10:00:00.000Z"}}}

    def came_to(action: str, given: dict[str, Any], who: str = "reader") -> list[tuple[str, bool]]:
        verdict = suppose(workspace, supposed(who, action, given, approval=approval))
        return [(one.resource.id, "approval" in one.context) for one in decided(verdict, workspace.policies)]

    assert came_to("wipe", {"record_id": "r1"}) == [("r1", True)]
    assert came_to("wipe", {"record_id": "r9"}) == [("r9", False)]
    assert came_to("read_many", {"record_ids": ["r1", "r2"]}) == [("r1", False), ("r2", False)]
    assert came_to("read_many", {"record_ids": ["r1", "r9", "r2"]}) == [("r1", False), ("r9", False)]
    assert came_to("read", {"record_id": "r1"}, "exporter") == [("r1", False)]
    assert came_to("read", {"record_id": "nowhere"}) == []
