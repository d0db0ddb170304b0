"""The smallest changes after which a denied call is allowed."""

from dataclasses import dataclass, replace
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Literal

import pytest

from agentguard.analysis.explanations.changes import Joined, Who
from agentguard.analysis.explanations.suggestions import suggestions
from agentguard.analysis.supposed import judge
from agentguard.model import AccessRequest, Invocation
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, NOW, READ, context, policy_set, reads, record, reference, searches, tool


@dataclass
class Box:
    """A record among the arguments."""

    size: int
    label: Literal["a", "b"] | None = None


LONGEST = 9_223_372_036_854_775_807
CALL = tool(
    "call",
    record_of(
        {
            "rows": Field(int),
            "other": Field(int),
            "form": Field(Literal["csv", "json"]),
            "name": Field(str),
            "note": Field(str, required=False),
            "price": Field(Decimal, required=False),
            "tags": Field(list[str]),
            "sure": Field(bool),
            "mail": Field(dict[str, str], required=False),
            "host": Field(IPv4Address, required=False),
            "box": Field(Box, required=False),
        },
        where="call",
    ),
)
GIVEN: dict[str, object] = {"rows": 1, "other": 1, "form": "csv", "name": "x", "tags": ["a"], "sure": True}


def policies(
    *texts: str, tools: tuple[GuardedTool, ...] = (READ, CALL), claims: dict[str, type] | None = None
) -> PolicySet:
    """Compile policies, each with an id."""
    return policy_set(*(f'@id("p{place}") {text}' for place, text in enumerate(texts)), tools=tools, claims=claims)


def calls(invocation: Invocation | None = None, **given_: object) -> AccessRequest:
    """Return a request for the tool of these tests."""
    request = searches(invocation or unsafe_invocation("a", run_id="r", at=NOW))
    return replace(
        request,
        action="call",
        resource=CALL.itself,
        context=context(**{name: value for name, value in {**GIVEN, **given_}.items() if value is not None}),
    )


def found(request: AccessRequest, *texts: str) -> list[str]:
    """Return what is suggested, each having been tried again."""
    compiled = policies(*texts)
    assert not judge([request], compiled).allowed
    made = suggestions([request], compiled)
    for one in made:
        assert judge(one.requests, compiled).allowed
    return [one.text for one in made]


def forbidden(condition: str, **given_: object) -> list[str]:
    """Return what is suggested where everything is permitted but for one condition."""
    forbid = f'forbid (principal, action == Action::"call", resource) when {{ {condition} }};'
    return found(calls(None, **given_), "permit (principal, action, resource);", forbid)


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("context.input.rows > 0", ["rows ≤ 0"]),
        ("context.input.rows < 5", ["rows ≥ 5"]),
        ("context.input.rows == 1", ["rows ≥ 2", "rows ≤ 0"]),
        ("context.input.rows != 7", ["rows == 7"]),
        ("context.input.rows < 5 || context.input.rows > 9", ["5 ≤ rows ≤ 9"]),
        ("!(context.input.rows == 3)", ["rows == 3"]),
        ("context.input.rows <= context.input.other", ["rows ≥ 2", "other ≤ 0"]),
        ("context.input.rows * 3 + 1 < 50", ["rows == 17"]),
        ("-context.input.rows > -5", ["rows == 5"]),
        (f"context.input.rows + {LONGEST} > 0", ["rows == -9223372036854775807"]),
        ('context.input.form == "csv"', ['form == "json"']),
        ('["csv"].contains(context.input.form)', ['form == "json"']),
        ('context.input.name == "x"', ['name other than "x", such as "other"']),
        ('context.input.name != "ok"', ['name == "ok"']),
        ('context.input.name like "x*"', ['not context.input.name like "x*", such as "other"']),
        ('!(context.input.name like "/srv/*.txt")', ['name == "/srv/.txt"', 'name == "/srv/x.txt"']),
        ("context.input.sure", ["sure == false"]),
        ("!(context.input has note)", ['context.input has note, such as "other"']),
        ('context.input.tags.contains("a")', ['tags without "a"']),
        ('!context.input.tags.contains("b")', ['tags with "b"']),
        ('!context.input.tags.containsAll(["b", "c"])', ['tags with "b", "c"']),
        ("!context.input.tags.isEmpty()", ['tags without "a"']),
        ('principal.grade == "run"', ['principal.grade == "token"', 'principal.grade == "shared"']),
        ('!principal.scopes.contains("big")', ['principal.scopes with "big"']),
        ('principal.lifetime > duration("10m")', ['principal.lifetime ≤ duration("10m")']),
        ('principal.issuer != "https://i"', ['principal.issuer == "https://i"']),
        ("!(principal has task)", ['principal has task, such as Task::"some-task"']),
        ("!(principal has purpose)", ['principal has purpose, such as "other"']),
        (
            'context.now < datetime("2030-01-01") || context.now > datetime("2030-12-31")',
            ['datetime("2030-01-01T00:00:00Z") ≤ context.now ≤ datetime("2030-12-31T00:00:00Z")'],
        ),
        ('context.environment == "production"', ['context.environment other than "production", such as "other"']),
        ("if context.input.sure then context.input.rows < 5 else true", ["rows == 5"]),
        ("if context.input.sure then true else false", ["sure == false"]),
        ('"abc" like "a*"', []),
        ("principal is Invocation", []),
    ],
)
def test_what_a_forbid_would_have_let_pass(condition: str, wanted: list[str]) -> None:
    """The nearest value of each that the condition looks at, as a range where that can be told."""
    assert forbidden(condition) == wanted


def test_what_an_optional_argument_would_have_had_to_be() -> None:
    """It can also be left out, if it is there."""
    note = forbidden('context.input has note && context.input.note == "n"', note="n")
    price = forbidden(
        'context.input has price && context.input.price.greaterThan(decimal("1000.00"))',
        price={"__extn": {"fn": "decimal", "arg": "1000.01"}},
    )

    assert forbidden("context.input has note", note="n") == ["no note"]
    assert note == ["no note", 'note other than "n", such as "other"']
    assert price == ["no price", 'price ≤ decimal("1000.0")']
    assert forbidden("!(context.input has price)") == ["any price"]
    assert forbidden("!(context.input has mail)") == ["mail == []"]


def test_a_record_or_an_address_among_the_arguments() -> None:
    """A member of the one, and an address in a range or out of it."""
    box = {"size": 3}
    address = {"__extn": {"fn": "ip", "arg": "10.1.2.3"}}

    assert forbidden("context.input has box && context.input.box.size > 2", box=box) == [
        "no box",
        "context.input.box.size ≤ 2",
    ]
    assert forbidden("context.input has box && !(context.input.box has label)", box=box) == [
        "no box",
        'context.input.box.label == "a"',
        'context.input.box.label == "b"',
    ]
    assert forbidden('context.input has host && !context.input.host.isInRange(ip("192.168.0.0/16"))', host=address) == [
        "no host",
        'context.input.host.isInRange(ip("192.168.0.0/16")), such as ip("192.168.0.0")',
    ]
    assert forbidden('context.input has host && context.input.host != ip("192.168.0.1")', host=address) == [
        "no host",
        'host == ip("192.168.0.1")',
    ]


def test_a_number_has_an_end() -> None:
    """Past 64 bits there is none."""
    assert forbidden(f"context.input.rows < {LONGEST}") == [f"rows == {LONGEST}"]


def test_no_more_is_told_than_people_read() -> None:
    """Six ways are enough."""
    permits = [f'permit (principal in Agent::"a{number}", action, resource);' for number in range(9)]

    assert len(found(calls(run("b")), *permits)) == 6


def test_a_change_that_another_makes_needless_is_left_out() -> None:
    """What was done for the first forbid is not told if the second needs more of something else."""
    staff = """forbid (principal, action == Action::"call", resource) when { context.input.rows > 5 }
    unless { principal has user && principal.user in Group::"staff" };"""
    less = 'forbid (principal, action == Action::"call", resource) when { context.input.rows > 3 };'

    assert found(calls(run(), rows=9), PERMIT, staff, less) == ["rows ≤ 3"]


def test_a_set_that_has_to_be_another_is_told_by_what_comes_and_goes() -> None:
    """As a whole, or with nothing in it."""
    assert forbidden('context.input.tags != ["b", "c"]') == ['tags with "b", "c" and without "a"']
    assert forbidden('!context.input.tags.containsAny(["b", "c"])') == ['tags with "b"']
    assert forbidden('context.input.tags.isEmpty() && !context.input.tags.contains("z")', tags=[]) == ['tags with "z"']


PERMIT = """permit (principal in Agent::"billing-agent", action == Action::"call", resource)
when { principal has purpose && principal.purpose == "monthly close" };"""


def run(agent: str = "billing-agent", **facts: object) -> Invocation:
    """Return a run at the time of these tests."""
    facts.setdefault("purpose", "monthly close")
    return unsafe_invocation(agent, at=NOW, run_id="r", **facts)  # type: ignore[arg-type]


def test_what_a_permit_wants_is_suggested() -> None:
    """One change where one is enough, and together what it takes; the nearest permit first."""
    assert found(calls(run(purpose="month close")), PERMIT) == ['principal.purpose == "monthly close"']
    assert found(calls(run(purpose=None)), PERMIT) == ['principal.purpose == "monthly close"']
    assert found(calls(run("nobody", purpose=None)), PERMIT) == [
        'principal.agent == Agent::"billing-agent" and principal.purpose == "monthly close"'
    ]
    task = 'permit (principal in Task::"t", action, resource);'
    assert found(calls(run()), task) == ['principal.task == Task::"t"']


def test_what_a_permit_wants_and_a_forbid_does_not_are_suggested_together() -> None:
    """As few changes as it takes, and what the caller can do before what others have to."""
    limit = """forbid (principal, action == Action::"call", resource) when { context.input.rows > 500 }
    unless { principal has user && principal.user in Group::"staff" };"""

    assert found(calls(run(), rows=501), PERMIT, limit) == [
        "rows ≤ 500",
        'principal.user in Group::"staff", such as User::"alice"',
    ]
    assert found(calls(run(purpose="x"), rows=501), PERMIT, limit) == [
        'rows ≤ 500 and principal.purpose == "monthly close"',
        'principal.user in Group::"staff", such as User::"alice" and principal.purpose == "monthly close"',
    ]


def test_an_entity_that_nobody_lists_could_be_in_a_group() -> None:
    """One that is listed stays as it is there; somebody who is in the group could call instead."""
    staff = """permit (principal, action == Action::"call", resource)
    when { principal has user && principal.user in Group::"staff" };"""

    carol = {"uid": {"type": "User", "id": "carol"}, "attrs": {}, "parents": []}
    assert found(replace(calls(run(user="carol")), entities=(carol,)), staff) == [
        'principal.user in Group::"staff", such as User::"alice"',
        'User::"carol" in Group::"staff"',
    ]
    assert found(calls(run(user="bob")), staff) == ['principal.user in Group::"staff", such as User::"alice"']
    assert found(calls(run(user="bob")), 'permit (principal in Agent::"z", action, resource);') == [
        'principal.agent == Agent::"z"'
    ]


def test_an_entity_that_the_request_does_not_have_is_added_with_its_group() -> None:
    """All that is known of it is that it is in there."""
    joined = Joined(entity=("User", "dave"), group=("Group", "staff"), path=("principal", "user"))

    changed = joined.apply(calls(run(user="dave")))

    assert changed is not None
    assert changed.entities[-1] == {
        "uid": {"type": "User", "id": "dave"},
        "attrs": {},
        "parents": [{"type": "Group", "id": "staff"}],
    }


def test_a_group_of_agents() -> None:
    """An agent can be in one too, where somebody says so."""
    entities = """[{ "uid": { "type": "Agent", "id": "good" }, "attrs": {},
      "parents": [{ "type": "Group", "id": "trusted" }] }]"""
    compiled = policy_set(
        '@id("a") permit (principal in Group::"trusted", action == Action::"search", resource);', entities=entities
    )

    other = {"uid": {"type": "Agent", "id": "other"}, "attrs": {}, "parents": []}
    request = replace(searches(run("other")), entities=(other,))

    assert [one.text for one in suggestions([request], compiled)] == [
        'principal in Group::"trusted", such as Agent::"good"',
        'Agent::"other" in Group::"trusted"',
    ]


def test_a_person_is_asked_for_what_a_person_can_lift_alone() -> None:
    """By the way that policies name; an approval lifts nothing else."""
    lift = """@obligation("approval") forbid (principal, action == Action::"call", resource)
    unless { context has approval && context.approval.channel == "desk" };"""
    approver = """@obligation("approval") forbid (principal, action == Action::"call", resource)
    unless { context has approval && context.approval has approver && context.approval.approver in Group::"staff" };"""
    other = 'forbid (principal, action == Action::"call", resource) unless { context has approval };'

    assert found(calls(run()), PERMIT, lift) == ["a person's approval"]
    (whole,) = found(calls(run()), PERMIT, approver)
    assert whole == ('a person\'s approval and context.approval.approver in Group::"staff", such as User::"alice"')
    assert found(calls(run()), PERMIT, other) == []


def test_an_attribute_of_what_is_acted_on() -> None:
    """Of an entity that came with the call; what is compared with it can change instead."""
    texts = (
        "permit (principal, action, resource);",
        """forbid (principal, action == Action::"read", resource is Record)
        unless { resource has owner && principal has user && resource.owner == principal.user };""",
    )
    owned = record("r1", owner=reference("User", "alice"))

    assert found(reads(run(user="bob"), owned), *texts) == [
        'principal.user == User::"alice"',
        'resource.owner == User::"bob"',
    ]
    assert found(reads(run(user="bob"), record("r1")), *texts) == ['resource.owner == User::"bob"']
    assert found(reads(run(), owned), *texts) == ['principal.user == User::"alice"']
    secret = 'forbid (principal, action == Action::"read", resource is Record) when { resource.sensitivity == "s" };'
    assert found(reads(run(), record("r1", sensitivity="s")), texts[0], secret) == [
        'resource.sensitivity other than "s", such as "other"'
    ]


def test_what_is_acted_on_stays_the_same() -> None:
    """Another id would need another entity, of which nothing is known."""
    texts = (
        "permit (principal, action, resource);",
        """forbid (principal, action == Action::"read", resource)
        when { resource == Record::"r1" && context.input.id == "r1" };""",
    )

    assert suggestions([reads(run())], policies(*texts), fixed=frozenset({"id"})) == ()


def test_a_listed_entity_is_not_changed() -> None:
    """What stands in the file is not the call's to change."""
    entities = '[{"uid": {"type": "Record", "id": "r7"}, "attrs": {"sensitivity": "secret"}, "parents": []}]'
    compiled = policy_set(
        ALL,
        """@id("s") forbid (principal, action == Action::"read", resource is Record)
        when { resource.sensitivity == "secret" };""",
        entities=entities,
        loaders=(),
    )

    assert suggestions([replace(reads(run(), id_="r7"), entities=())], compiled) == ()


def test_each_link_of_a_chain_is_repaired() -> None:
    """Its identity, or its grant."""
    everything = "permit (principal, action, resource);"
    root = run("root", grant=everything, purpose="x")
    child = run("billing-agent", grant=everything, ancestors=(root,))
    agents = """forbid (principal, action == Action::"call", resource)
    when { principal has purpose && principal.purpose == "x" };"""
    deep = 'forbid (principal, action == Action::"call", resource) when { principal.delegation_depth > 0 };'

    assert found(calls(child), everything, agents) == [
        "no principal.purpose",
        'principal.purpose other than "x", such as "other"',
    ]
    assert found(calls(run(ancestors=(run("root"),))), everything, deep) == ["principal.delegation_depth == 0"]
    # What repairs the root is not needed where there is none any more.
    rooted = 'forbid (principal in Agent::"root", action == Action::"call", resource);'
    assert found(calls(run(ancestors=(run("root"),))), everything, rooted, deep) == ["principal.delegation_depth == 0"]


def test_a_grant_could_permit_more_or_the_call_ask_for_less() -> None:
    """A grant names what the run may do."""
    few = """permit (principal, action == Action::"call", resource) when { context.input.rows < 3 };"""
    none = """permit (principal, action == Action::"read", resource);"""
    child = run(grant=few, ancestors=(run("root", grant=none),))

    assert found(calls(run(grant=few), rows=9), PERMIT) == ["rows ≤ 2", "a grant for billing-agent that permits call"]
    assert found(calls(run(grant=none)), PERMIT) == ["a grant for billing-agent that permits call"]
    assert found(calls(child, rows=9), "permit (principal, action, resource);") == [
        "a grant for root that permits call and rows ≤ 2",
        "a grant for root that permits call and a grant for billing-agent that permits call",
    ]
    forbids = 'permit (principal, action, resource); forbid (principal, action == Action::"call", resource);'
    assert found(calls(run(grant=forbids)), PERMIT) == []


def test_several_resources_are_repaired_together() -> None:
    """Each of them has to be allowed."""
    texts = (
        "permit (principal, action, resource);",
        """forbid (principal, action == Action::"read", resource is Record)
        when { resource has sealed && resource.sealed };""",
    )
    requests = [
        reads(run(), record("r1", sealed=True)),
        reads(run(), record("r2", sealed=True), id_="r2"),
    ]

    (both,) = suggestions(requests, policies(*texts))
    assert len(both.changes) == 2
    assert judge(both.requests, policies(*texts)).allowed


def test_a_mapped_claim_could_say_something_else() -> None:
    """Of each type that there is."""
    compiled = policies(
        """permit (principal, action == Action::"call", resource)
        when { principal has level && principal.level >= 3 }
        unless { !(principal has teams && principal.teams.contains("red")) };""",
        'forbid (principal, action == Action::"call", resource) when { principal has intern && principal.intern };',
        claims={"level": int, "teams": frozenset, "intern": bool},
    )
    invocation = run(claims={"level": 3, "teams": frozenset({"red"}), "intern": True})
    low = run(claims={"level": 1, "teams": frozenset({"red"})})

    assert [one.text for one in suggestions([calls(invocation)], compiled)] == [
        "no principal.intern",
        "principal.intern == false",
    ]
    assert [one.text for one in suggestions([calls(low)], compiled)] == ["principal.level ≥ 3"]


def test_times_of_a_run_are_whole_seconds() -> None:
    """As tokens have them, and it begins before it ends."""
    early = forbidden_run('principal.issued_at > datetime("2020-01-01")')
    late = forbidden_run('principal.ends_at < datetime("2100-01-01T00:00:00.500Z")')

    assert early == ['principal.issued_at ≤ datetime("2020-01-01T00:00:00Z")']
    assert late == ['principal.ends_at ≥ datetime("2100-01-01T00:00:01Z")']
    assert forbidden_run('principal.lifetime < duration("-5s")') == []


def forbidden_run(condition: str) -> list[str]:
    """Return what is suggested of a run."""
    compiled = policies(
        "permit (principal, action, resource);",
        f'forbid (principal, action == Action::"call", resource) when {{ {condition} }};',
    )
    return [one.text for one in suggestions([calls(run())], compiled)]


def test_nothing_is_suggested_for_what_no_policy_decided() -> None:
    """An argument of another type, a tool that is none, an entity that is missing; or an allow."""
    compiled = policies("permit (principal, action, resource);")

    assert suggestions([calls(run(), rows="1")], compiled) == ()
    assert suggestions([replace(calls(run()), action="other")], compiled) == ()
    assert suggestions([reads(run(), record("r2"))], compiled) == ()
    assert suggestions([calls(run())], compiled) == ()
    assert suggestions([], compiled) == ()
    assert suggestions([calls(run())], policies('permit (principal, action == Action::"read", resource);')) == ()


def test_a_search_ends() -> None:
    """However many conditions there are, and however they contradict each other."""
    many = [
        f'forbid (principal, action == Action::"call", resource) when {{ context.input.rows == {number} }};'
        for number in range(40)
    ]
    contrary = [
        'forbid (principal, action == Action::"call", resource) when { context.input.rows >= 0 };',
        'forbid (principal, action == Action::"call", resource) when { context.input.rows <= 0 };',
    ]

    assert found(calls(run()), PERMIT, *many) == ["rows ≤ -1"]
    assert found(calls(run()), PERMIT, *contrary) == []


def test_a_search_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then is told."""
    monkeypatch.setattr("agentguard.analysis.explanations.suggestions._TRIED", 1)

    assert forbidden("context.input.rows == 1") == ["rows ≥ 2"]
    assert forbidden("context.input.rows == 1 || context.input.rows == 2") == []


def test_a_policy_that_fails_can_be_kept_from_it() -> None:
    """What comes after the condition that failed was not looked at."""
    assert forbidden(f"context.input.rows + {LONGEST} > 5 && context.input.sure") == [f"rows == {5 - LONGEST}"]


def test_a_chain_with_a_grant_that_is_not_valid_is_past_repair() -> None:
    """Its other links could be asked, and say nothing."""
    root = run("root", grant='permit (principal, action == Action::"gone", resource);')

    assert suggestions([calls(run(purpose="x", ancestors=(root,)))], policies(PERMIT)) == ()


def test_who_can_make_a_change_is_told() -> None:
    """The caller first."""
    compiled = policies(
        "permit (principal, action, resource);",
        """@obligation("approval") forbid (principal, action == Action::"call", resource)
        when { context.input.rows > 5 && context.environment == "production" && principal.grade == "run"
          && context.local.minute > 0 }
        unless { context has approval };""",
    )
    made = suggestions([calls(run(), rows=6)], compiled)

    assert [one.who for one in made] == sorted(one.who for one in made)
    assert {one.who for one in made} == {Who.CALLER, Who.IDENTITY, Who.APPROVER, Who.CLOCK, Who.DEPLOYMENT}
