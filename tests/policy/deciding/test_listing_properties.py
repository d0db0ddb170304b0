"""What holds of every list, for policies, runs and arguments made at random."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.model import AccessRequest, EntityUid, Invocation
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide, never
from agentguard.policy.deciding.listing import possible
from agentguard.policy.deciding.reach import uid_of
from agentguard.testing import unsafe_invocation
from tests.policy.records import READ, SEARCH, context, policy_set, record, reference, tool, uid

PURGE = tool("purge", record_of({"rows": Field(int)}, where="purge"), "destructive")
WRITE = tool(
    "write", record_of({"id": Field(str), "rows": Field(int)}, where="write"), "destructive", resource="Record"
)
TOOLS = (READ, SEARCH, PURGE, WRITE)
ARGUMENTS: Final = {"read": ("id",), "search": ("text", "rows"), "purge": ("rows",), "write": ("id", "rows")}
LONGEST: Final = 9_223_372_036_854_775_807

PRINCIPALS = [
    "principal",
    "principal",
    "principal is Invocation",
    'principal in Agent::"a"',
    'principal in Agent::"b"',
    'principal == Invocation::"r1"',
    'principal is Invocation in Task::"t"',
    'principal in Group::"staff"',
]
ACTIONS = [
    "action",
    'action in Action::"read-only"',
    'action in Action::"destructive"',
    'action in Action::"tools/call"',
    'action in [Action::"open-world", Action::"read"]',
    'action in [Action::"purge", Action::"write"]',
]
ON_ANYTHING = [
    "true",
    "false",
    'principal.grade == "run"',
    'principal has purpose && principal.purpose == "billing"',
    'principal has user && principal.user in Group::"staff"',
    'principal has user && principal.user == User::"bob"',
    'principal.scopes.contains("write")',
    "principal.delegation_depth > 0",
    'context.environment == "production"',
    "context has approval",
    "principal.scopes.isEmpty() || context has approval",
    'User::"alice" in Group::"staff"',
    'action in Action::"destructive"',
    'action == Action::"search"',
    'action == Action::"read" && principal.scopes.contains("write")',
    'resource in Server::"records"',
    f'principal.scopes.contains("write") && principal.delegation_depth + {LONGEST} > 0',
]
ON_RECORDS = [
    'resource.sensitivity == "secret"',
    'resource.sensitivity == "secret" && principal.scopes.contains("write")',
    'resource has owner && resource.owner in Group::"staff"',
    "resource has owner && principal has user && resource.owner == principal.user",
    "resource has sealed && resource.sealed",
]
# Heads that name one tool or what it acts on, and what their conditions can ask then.
CLOSER = [
    ('action == Action::"search"', "resource", ["context.input.rows > 2", 'context.input.text like "*a*"', "true"]),
    ('action == Action::"search"', 'resource == Tool::"search"', [f"context.input.rows + {LONGEST} > 0", "true"]),
    ('action == Action::"purge"', 'resource in Server::"records"', ["context.input.rows > 2", "true"]),
    ("action", 'resource == Tool::"purge"', ["true", "context has approval"]),
    ('action in [Action::"read", Action::"write"]', "resource", ['context.input.id like "r*"', *ON_RECORDS]),
    ("action", "resource is Record", ON_RECORDS),
    ("action", 'resource in Tool::"read"', ["true", 'principal.scopes.contains("write")']),
    ('action == Action::"read"', 'resource == Record::"r1"', ["true", 'context.input.id like "r*"']),
    ('action == Action::"write"', 'resource is Record in Tool::"write"', ["context.input.rows > 2", *ON_RECORDS]),
]


ON_ARGUMENTS = [
    "context.input.rows > 2",
    'context.input.text like "*a*"',
    "context.input has price",
    "context has approval",
]


@st.composite
def policies(draw: st.DrawFn) -> str:
    """Return a policy without its id."""
    effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
    principal = draw(st.sampled_from(PRINCIPALS))
    if draw(st.booleans()):
        action, resource, conditions = draw(st.sampled_from(CLOSER))
    else:
        action, resource, conditions = draw(st.sampled_from(ACTIONS)), "resource", ON_ANYTHING
    written = "".join(
        f" {draw(st.sampled_from(['when', 'unless']))} {{ {draw(st.sampled_from(conditions))} }}"
        for _ in range(draw(st.integers(0, 2)))
    )
    return f"{effect} ({principal}, {action}, {resource}){written};"


@st.composite
def invocations(draw: st.DrawFn, *, depth: int = 0) -> Invocation:
    """Return a run, with up to *depth* ancestors."""
    ancestors = tuple(draw(invocations()) for _ in range(draw(st.integers(0, depth))))
    # Grants ask about nothing that only a loader knows.
    grants = st.lists(policies().filter(lambda text: "in Group" not in text), min_size=1, max_size=3)
    texts = draw(st.none() | grants)
    return unsafe_invocation(
        draw(st.sampled_from("ab")),
        run_id=draw(st.sampled_from(["r1", "r2"])),
        user=draw(st.sampled_from([None, "alice", "bob", "carol"])),
        task=draw(st.sampled_from([None, "t"])),
        purpose=draw(st.sampled_from([None, "billing"])),
        scopes=draw(st.frozensets(st.sampled_from(["read", "write"]))),
        # The second is not valid, and denies everything.
        grant=None if texts is None else draw(st.sampled_from([" ".join(texts), " ".join(texts), "permit"])),
        ancestors=ancestors,
    )


@dataclass(frozen=True)
class World:
    """Policies, a run, and what loaders know of it."""

    policies: tuple[str, ...]
    invocation: Invocation
    entities: tuple[dict[str, object], ...]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a world, in which a loader may know nothing."""
    texts = draw(st.lists(policies(), min_size=1, max_size=8))
    loaded: list[dict[str, object]] = []
    for agent in "ab":
        if draw(st.integers(0, 4)):
            above = draw(st.sampled_from([[], [uid("Group", "staff")]]))
            loaded.append({"uid": uid("Agent", agent), "attrs": {}, "parents": above})
    if draw(st.booleans()):
        loaded.append({"uid": uid("User", "carol"), "attrs": {}, "parents": [uid("Group", "staff")]})
    return World(
        tuple(f'@id("p{place}") {text}' for place, text in enumerate(texts)),
        draw(invocations(depth=2)),
        tuple(loaded),
    )


@st.composite
def calls(draw: st.DrawFn, world: World, name: str) -> AccessRequest:
    """Return one call of a tool, with whatever arguments and on whatever resource."""
    called = next(tool for tool in TOOLS if tool.name == name)
    values: dict[str, object] = {
        "id": draw(st.sampled_from(["r1", "x"])),
        "text": draw(st.sampled_from(["abc", "x"])),
        "rows": draw(st.integers(-3, 3)),
    }
    arguments = context(**{argument: values[argument] for argument in ARGUMENTS[name]})
    if draw(st.booleans()):
        arguments["approval"] = {"channel": "client", "at": {"__extn": {"fn": "datetime", "arg": "2025-01-01"}}}
    entities: tuple[dict[str, object], ...] = world.entities
    resource = EntityUid("Tool", name)
    if called.resource_type is not None:
        resource = EntityUid("Record", draw(st.sampled_from(["r1", "r2"])))
        attributes: dict[str, object] = {"sensitivity": draw(st.sampled_from(["normal", "secret"]))}
        if draw(st.booleans()):
            attributes["owner"] = reference("User", draw(st.sampled_from(["alice", "bob"])))
        if draw(st.booleans()):
            attributes["sealed"] = draw(st.booleans())
        entities += ({**record(resource.id, **attributes), "parents": [uid("Tool", name)]},)
    return AccessRequest(
        invocation=world.invocation, action=name, resource=resource, context=arguments, entities=entities
    )


@lru_cache(maxsize=4)
def compiled(texts: tuple[str, ...]) -> PolicySet:
    """Return the policies, compiled; hypothesis likes to repeat them."""
    return policy_set("\n".join(texts), tools=TOOLS, loaders=("Record", "User", "Agent"))


def check_that_hidden_is_denied(world: World, data: st.DataObject) -> None:
    """Try calls of everything that is not shown."""
    known = compiled(world.policies)
    shown = possible(world.invocation, known, world.entities)

    for name in ARGUMENTS.keys() - shown:
        for request in data.draw(st.lists(calls(world, name), min_size=3, max_size=6)):
            assert not decide(request, known).allowed


def check_that_one_answer_fits(world: World) -> None:
    """Compare what is shown with what is let pass for each tool by itself."""
    known = compiled(world.policies)
    shown = possible(world.invocation, known, world.entities)

    alone = {name for name in ARGUMENTS if never(world.invocation, name, known, world.entities) is None}

    assert shown <= alone
    assert shown == alone or not nothing_is_missing(world)


def nothing_is_missing(world: World) -> bool:
    """Whether every agent and user of the chain is known or was loaded."""
    there = {("User", "alice"), ("User", "bob"), *(uid_of(entity["uid"]) for entity in world.entities)}
    agents = {("Agent", link.agent) for link in world.invocation.chain}
    users = {("User", link.user) for link in world.invocation.chain if link.user is not None}
    return agents | users <= there


@settings(deadline=None, max_examples=60)
@given(worlds(), st.data())
def test_what_is_not_shown_is_denied_for_every_argument_tried(world: World, data: st.DataObject) -> None:
    """By the organisation's policies or any grant, of any link; with what loaders know, or without."""
    check_that_hidden_is_denied(world, data)


@settings(deadline=None, max_examples=60)
@given(worlds())
def test_what_is_shown_is_what_the_preflight_lets_pass(world: World) -> None:
    """All tools at once, or each of them alone, which gives up where something is missing: one answer."""
    check_that_one_answer_fits(world)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_nothing_is_hidden_only_because_its_policy_looks_at_arguments(data: st.DataObject) -> None:
    """Where one condition on the arguments is all that stands in the way, the tool is shown, as it is without."""
    effect, condition = data.draw(st.sampled_from(["permit", "forbid"])), data.draw(st.sampled_from(ON_ARGUMENTS))
    kind = data.draw(st.sampled_from(["when", "unless"]))
    texts = [f'{effect} (principal, action == Action::"search", resource) {kind} {{ {condition} }};']
    if effect == "forbid":
        texts.append("permit (principal, action, resource);")
    run = data.draw(invocations())
    bare = possible(run, compiled(('@id("p0") permit (principal, action, resource);',)))

    shown = possible(run, compiled(tuple(f'@id("p{place}") {text}' for place, text in enumerate(texts))))

    assert ("search" in shown) is ("search" in bare)


def test_the_policies_of_these_tests_are_valid() -> None:
    """Else the properties would hold of nothing."""
    heads = [(principal, action, "resource", ON_ANYTHING) for principal in PRINCIPALS for action in ACTIONS]
    heads += [("principal", *closer) for closer in CLOSER]
    texts = [
        f"permit ({principal}, {action}, {resource}) when {{ {condition} }};"
        for principal, action, resource, conditions in heads
        for condition in conditions
    ]

    policies = compiled(tuple(f'@id("p{place}") {text}' for place, text in enumerate(texts)))

    assert len(policies.policies) == len(texts)
