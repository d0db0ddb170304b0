"""What holds of every decision, for policies and requests made at random."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.model import AccessRequest, Effect, EntityUid, Invocation, Reason
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide, may_ever
from agentguard.policy.files.reader import read_policies
from agentguard.policy.schemas.fragments import read_fragment
from agentguard.policy.schemas.schema import schema_texts
from agentguard.request import principal_entities, principal_uid
from agentguard.testing import unsafe_invocation
from tests.policy.records import (
    ENTITIES,
    LIMITS,
    TOOLS,
    TYPES,
    context,
    policy_set,
    record,
    reference,
    uid,
)

SCHEMA = schema_texts(
    TOOLS, [read_fragment("types/a.cedarschema", TYPES, LIMITS)], grouped=frozenset({"User"}), claims={}
)
FULL = cedarpy.Schema.from_str(SCHEMA.full)
STATIC = json.loads(ENTITIES)
SOLID = {name for name, entity in SCHEMA.entities.items() if not entity.bare}
LONGEST = 9_223_372_036_854_775_807

PRINCIPALS = [
    "principal",
    "principal is Invocation",
    *(f'principal in Agent::"{agent}"' for agent in "ab"),
    'principal == Invocation::"r1"',
    'principal is Invocation in Task::"t"',
]
ANY_CONDITION = [
    "true",
    'principal.grade == "run"',
    'principal has purpose && principal.purpose == "billing"',
    'principal has user && principal.user in Group::"staff"',
    'principal has user && principal.user == User::"bob"',
    'principal.scopes.contains("write")',
    "principal.delegation_depth > 0",
    'context.environment == "production"',
    "context has approval",
]
# Each action's scope, its resource's, and the conditions that fit both.
PLACES: list[tuple[str, str, list[str]]] = [
    ("action", "resource", ANY_CONDITION),
    ('action in Action::"read-only"', "resource", ANY_CONDITION),
    ('action in [Action::"open-world", Action::"read"]', "resource", ANY_CONDITION),
    (
        "action",
        "resource is Record",
        [
            'resource.sensitivity == "secret"',
            'resource has owner && resource.owner in Group::"staff"',
            "resource has owner && principal has user && resource.owner == principal.user",
            "resource has sealed && resource.sealed",
            'resource has price && resource.price.greaterThan(decimal("1.5"))',
        ],
    ),
    ('action == Action::"read"', 'resource == Record::"r1"', ['context.input.id like "r*"']),
    (
        'action == Action::"search"',
        "resource",
        [
            f"context.input.rows + {LONGEST} > 0",
            f"context.input.rows * {LONGEST} > 5",
            "context.input.rows > 2",
            'context.input.text like "*a*"',
        ],
    ),
]


@dataclass(frozen=True)
class World:
    """One question, and the policies that it is asked of."""

    policies: tuple[str, ...]
    request: AccessRequest


@st.composite
def policies(draw: st.DrawFn) -> str:
    """Return a policy without its id, valid for the tools of these tests."""
    effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
    principal = draw(st.sampled_from(PRINCIPALS))
    action, resource, conditions = draw(st.sampled_from(PLACES))
    kind = draw(st.sampled_from(["when", "unless"]))
    return f"{effect} ({principal}, {action}, {resource}) {kind} {{ {draw(st.sampled_from(conditions))} }};"


@st.composite
def invocations(draw: st.DrawFn, *, deep: bool) -> Invocation:
    """Return a run, with ancestors if *deep*."""
    ancestors = draw(st.just(()) if not deep else st.tuples() | st.tuples(invocations(deep=False)))
    grants = st.none() | st.lists(policies(), min_size=1, max_size=3).map(" ".join)
    return unsafe_invocation(
        draw(st.sampled_from("ab")),
        run_id=draw(st.sampled_from(["r1", "r2"])),
        user=draw(st.sampled_from([None, "alice", "bob", "carol"])),
        task=draw(st.sampled_from([None, "t"])),
        purpose=draw(st.sampled_from([None, "billing"])),
        scopes=draw(st.frozensets(st.sampled_from(["read", "write"]))),
        grant=draw(grants) if deep else None,
        ancestors=ancestors,
    )


@st.composite
def records(draw: st.DrawFn, *, id_: str = "r1") -> dict[str, object]:
    """Return a record, with references in the explicit form and in those that Cedar takes for it."""
    owner = draw(st.sampled_from(["alice", "bob", "carol"]))
    owners: list[object] = [reference("User", owner), uid("User", owner), ["User", owner]]
    attributes: dict[str, object] = {"sensitivity": draw(st.sampled_from(["normal", "secret"]))}
    if draw(st.booleans()):
        attributes["owner"] = draw(st.sampled_from(owners))
    if draw(st.booleans()):
        attributes["sealed"] = draw(st.booleans())
    if draw(st.booleans()):
        attributes["price"] = {"__extn": {"fn": "decimal", "arg": draw(st.sampled_from(["1.0", "2.0"]))}}
    return record(id_, **attributes)


CAROL: dict[str, object] = {"uid": uid("User", "carol"), "attrs": {}, "parents": [uid("Group", "staff")]}


@st.composite
def worlds(draw: st.DrawFn, *, deep: bool = False) -> World:
    """Return policies and a request, which may lack an entity."""
    texts = draw(st.lists(policies(), min_size=1, max_size=8))
    invocation = draw(invocations(deep=deep))
    entities: list[dict[str, object]] = [CAROL] if draw(st.booleans()) else []
    if draw(st.booleans()):
        entities += [draw(records())] if draw(st.integers(0, 5)) else []
        request = AccessRequest(
            invocation=invocation,
            action="read",
            resource=EntityUid("Record", "r1"),
            context=context(id=draw(st.sampled_from(["r1", "x"]))),
            entities=tuple(entities),
        )
    else:
        values = context(text=draw(st.sampled_from(["abc", "x"])), rows=draw(st.integers(-3, 3)))
        request = AccessRequest(
            invocation=invocation,
            action="search",
            resource=EntityUid("Tool", "search"),
            context=values,
            entities=tuple(entities),
        )
    return World(tuple(f'@id("p{place}") {text}' for place, text in enumerate(texts)), request)


@lru_cache(maxsize=4)
def compiled(texts: tuple[str, ...]) -> PolicySet:
    """Return the policies, compiled; hypothesis likes to repeat them."""
    return policy_set("\n".join(texts))


def plain_answer(link: Invocation, request: AccessRequest, text: str) -> cedarpy.AuthzResult:
    """Ask Cedar once: every policy, every entity, the whole schema, in text."""
    server = uid("Server", "records")
    tool = {"uid": uid("Tool", request.action), "attrs": {}, "parents": [server]}
    everything = [
        *STATIC,
        *principal_entities(link),
        {"uid": server, "attrs": {}, "parents": []},
        tool,
        *request.entities,
    ]
    return cedarpy.is_authorized(
        {
            "principal": principal_uid(link).as_json(),
            "action": uid("Action", request.action),
            "resource": request.resource.as_json(),
            "context": dict(request.context),
        },
        text,
        cedarpy.Entities.from_json_str(json.dumps(everything), FULL),
        FULL,
    )


def mentioned(value: object) -> Iterator[tuple[str, str]]:
    """Yield everything in Cedar JSON that looks like a reference to an entity of the schema."""
    if isinstance(value, dict):
        if {"type", "id"} <= value.keys():
            yield value["type"], value["id"]
        for item in value.values():
            yield from mentioned(item)
    elif isinstance(value, list):
        if len(value) == 2 and all(isinstance(item, str) for item in value):
            yield value[0], value[1]
        for item in value:
            yield from mentioned(item)


def nothing_is_missing(link: Invocation, request: AccessRequest) -> bool:
    """Whether every entity that is mentioned anywhere is there."""
    there: list[Mapping[str, object]] = [*STATIC, *principal_entities(link), *request.entities]
    present = {name for entity in there for name in mentioned([entity["uid"]])} | {("Tool", request.action)}
    needed = {name for entity in there for name in mentioned(dict(entity))} | {
        (request.resource.type, request.resource.id)
    }
    return all(name in present for name in needed if name[0] in SOLID)


def failed(errors: list[str]) -> list[str]:
    """Return which policies failed, by the place that Cedar gave them."""
    return sorted(f"p{match[1]}" for error in errors if (match := re.search(r"`policy([0-9]+)`", error)))


@settings(deadline=None, max_examples=200)
@given(worlds())
def test_the_slice_gives_what_one_call_with_everything_gives(world: World) -> None:
    """The decision, the ids and the failed policies are the same."""
    decision = decide(world.request, compiled(world.policies))
    if not nothing_is_missing(world.request.invocation, world.request):
        assert decision.reason is Reason.MISSING_ENTITY
        return

    plain = plain_answer(world.request.invocation, world.request, "\n".join(world.policies))

    assert decision.allowed is (plain.allowed and not plain.diagnostics.errors)
    ids = sorted(plain.diagnostics.id_annotations_by_reason.values())
    assert list(decision.policy_ids) == (ids if decision.allowed or not plain.allowed else [])
    assert sorted(re.findall(r"^policy `(p[0-9]+)`", "\n".join(decision.errors), re.MULTILINE)) == failed(
        plain.diagnostics.errors
    )


@settings(deadline=None, max_examples=200)
@given(worlds(deep=True))
def test_an_allow_is_an_allow_of_every_layer_of_every_link_without_error_or_gap(world: World) -> None:
    """Asked one by one, in text, each of the organisation and each grant permits, and the other way round."""
    decision = decide(world.request, compiled(world.policies))

    layers = []
    for link in world.request.invocation.chain:
        texts = ["\n".join(world.policies), *filter(None, (link.grant,))]
        answers = [plain_answer(link, world.request, text) for text in texts]
        whole = nothing_is_missing(link, world.request)
        layers += [answer.allowed and not answer.diagnostics.errors and whole for answer in answers]

    assert decision.allowed is all(layers)
    assert (decision.effect is Effect.ALLOW) is (decision.reason is Reason.PERMIT)


@settings(deadline=None, max_examples=300)
@given(worlds(deep=True))
def test_what_would_be_allowed_is_never_refused_before(world: World) -> None:
    """The test before the arguments are known is sound, with loaded entities and without."""
    policies = compiled(world.policies)
    invocation, action = world.request.invocation, world.request.action

    if decide(world.request, policies).allowed:
        carol = [entity for entity in world.request.entities if entity is CAROL]
        assert may_ever(invocation, action, policies)
        assert may_ever(invocation, action, policies, carol)
        assert may_ever(invocation, action, policies)


JSON = st.recursive(
    st.sampled_from(
        [
            "r1",
            "User",
            "carol",
            "unknown",
            "secret",
            1,
            True,
            None,
            1.5,
            *(uid("User", name) for name in ("bob", "carol")),
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["__entity", "__extn", "__expr", "fn", "arg", "args", "type", "id", "a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
GUARDED = policy_set(
    '@id("all") permit (principal, action, resource);',
    '@id("a") forbid (principal, action, resource is Record) when { resource.sensitivity like "s*" };',
    """@id("b") forbid (principal, action, resource is Record)
    unless { resource has owner && resource.owner in Group::"staff" };""",
    """@id("c") forbid (principal, action, resource is Record)
    when { resource has price && resource.price.lessThan(decimal("9.0")) };""",
)


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(["sensitivity", "owner", "price", "sealed"]), JSON), st.booleans())
def test_no_form_of_an_attribute_gets_past_a_forbid(attributes: dict[str, object], known: bool) -> None:
    """Whatever a loader returns, an allow means that the owner's groups, the price and the level were known."""
    loaded = {"uid": uid("Record", "r1"), "attrs": attributes, "parents": [uid("Tool", "read")]}
    request = AccessRequest(
        invocation=unsafe_invocation("a"),
        action="read",
        resource=EntityUid("Record", "r1"),
        context=context(id="r1"),
        entities=(loaded, CAROL) if known else (loaded,),
    )

    if decide(request, GUARDED).allowed:
        assert isinstance(attributes["sensitivity"], str)
        assert not attributes["sensitivity"].startswith("s")
        assert "price" not in attributes
        assert set(mentioned(attributes["owner"])) <= {("User", "alice"), ("User", "carol")}
        assert known or ("User", "carol") not in mentioned(attributes["owner"])


@settings(deadline=None, max_examples=300)
@given(JSON, JSON)
def test_no_form_of_an_argument_but_the_declared_one_is_decided_on(text: object, rows: object) -> None:
    """A string and a whole number, written as such, or a denial for the argument."""
    request = AccessRequest(
        invocation=unsafe_invocation("a"),
        action="search",
        resource=EntityUid("Tool", "search"),
        context=context(text=text, rows=rows),
    )

    decision = decide(request, GUARDED)

    assert decision.allowed is (type(text) is str and type(rows) is int)
    assert decision.reason in {Reason.PERMIT, Reason.INVALID_ARGUMENT}


def test_the_policies_of_these_tests_are_valid() -> None:
    """Else the properties would hold of nothing."""
    everything = [
        f'@id("p{place}-{number}") permit ({PRINCIPALS[place]}, {action}, {resource}) when {{ {condition} }};'
        for place in range(len(PRINCIPALS))
        for number, (action, resource, condition) in enumerate(
            (action, resource, condition) for action, resource, conditions in PLACES for condition in conditions
        )
    ]
    found, problems = read_policies("a.cedar", "\n".join(everything), LIMITS)

    assert problems == []
    assert len(compiled(tuple(everything)).policies) == len(found) == len(everything)
