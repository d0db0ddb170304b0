"""What a condition looks at."""

import pytest

from agentguard.policy.deciding.looks import ENTITIES, ITSELF, Look, Looking, Looks
from agentguard.policy.schemas.types import read_types
from agentguard.policy.text.syntax import syntax_of_text

SCHEMA = """
entity Ward; entity Team in [Ward]; entity Group;
entity User in [Group] = { team: Team };
entity Agent in [Team]; entity Task; entity Tool in [Server]; entity Server;
entity Invocation in [Agent, Task] = { agent: Agent, user?: User, purpose?: String, issued_at: datetime };
entity Record in [Tool] = { level: Long, owner?: User } tags String;
action "read" appliesTo { principal: [Invocation], resource: [Record], context: {
  input: { rows: Long, note?: { text: String }, names: Set<String> }, now: datetime,
  approval?: { channel: String, approver?: User } } };
"""
TYPES = read_types(SCHEMA)
LOOKING = Looking(TYPES, TYPES.actions["read"], "Record")


def looks(condition: str) -> Looks:
    """Return what a condition looks at."""
    (clause,) = syntax_of_text(f"permit (principal, action, resource) when {{ {condition} }};").clauses
    return LOOKING.of(clause.body)


def at(condition: str) -> set[str]:
    """Return it in words: a `?` behind what only has to be there."""
    return {".".join(look.path) + "?" * look.presence for look in looks(condition).at}


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("true", set()),
        ("context.input.rows > 5", {"context.input.rows"}),
        ("context.input.note.text == context.input.names", {"context.input.note.text", "context.input.names"}),
        ("context.input has note", {"context.input.note?"}),
        ("context.input has note.text", {"context.input.note.text?"}),
        ("context has approval", {"context.approval?"}),
        ('context["input"]["rows"] == 1', {"context.input.rows"}),
        ("context.input == {}", {"context.input"}),
        ("context == context", {"context"}),
        ('principal == Invocation::"r"', {"principal.itself"}),
        ("principal has purpose", {"principal?", "principal.purpose?"}),
        ('principal.purpose == "x"', {"principal?", "principal.purpose"}),
        ('principal.user == User::"a"', {"principal?", "principal.user"}),
        ("principal.user.team == 1", {"principal?", "principal.user", "entities.User"}),
        ("principal.user has team", {"principal?", "principal.user", "entities.User"}),
        ("principal is Invocation", set()),
        ("principal.user is User", {"principal?", "principal.user"}),
        ('action == Action::"read"', set()),
        ('action in Action::"read"', set()),
        ('resource == Record::"r"', {"resource"}),
        ("resource is Record", set()),
        ("resource.level > 1", {"resource", "entities.Record"}),
        ("resource.owner.team == 1", {"resource", "entities.Record", "entities.User"}),
        ("resource has owner", {"resource", "entities.Record"}),
        ('resource.hasTag("a")', {"resource", "entities.Record"}),
        ('User::"a".team == 1', {"entities.User"}),
        ('Invocation::"r".purpose == "x"', {"entities"}),
    ],
)
def test_condition_looks_at_what_it_names(condition: str, found: set[str]) -> None:
    """Paths as far as they are records, and then the types of the entities that are looked into."""
    assert at(condition) == found


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (
            'principal in Agent::"a"',
            {"principal?", *(f"entities.{name}" for name in ("Agent", "Task", "Team", "Ward"))},
        ),
        (
            'principal in [Agent::"a", Task::"t"]',
            {"principal?", *(f"entities.{name}" for name in ("Agent", "Task", "Team", "Ward"))},
        ),
        (
            'principal is Invocation in Task::"t"',
            {"principal?", *(f"entities.{name}" for name in ("Agent", "Task", "Team", "Ward"))},
        ),
        (
            'principal in Invocation::"r"',
            {"principal.itself", *(f"entities.{name}" for name in ("Agent", "Task", "Team", "Ward"))},
        ),
        (
            "principal in [principal.agent]",
            {
                "principal.itself", "principal?", "principal.agent",
                *(f"entities.{name}" for name in ("Agent", "Task", "Team", "Ward")),
            },
        ),
        ('principal.user in Group::"g"', {"principal?", "principal.user", "entities.User", "entities.Group"}),
        ('resource in Tool::"t"', {"resource", "entities.Record", "entities.Tool", "entities.Server"}),
        (
            'resource is Record in Tool::"t"',
            {"resource", "entities.Record", "entities.Tool", "entities.Server"},
        ),
        ('Invocation::"r" in Agent::"a"', {"entities"}),
        ('Team::"t" in Ward::"w"', {"entities.Team", "entities.Ward"}),
        ('(if true then principal.user else User::"a") in Group::"g"', {"principal?", "principal.user", "entities"}),
        ("(if true then principal.user else principal.user).team == 1", {"principal?", "principal.user", "entities"}),
        ("context.input.rows in 5", {"context.input.rows", "entities"}),
        ('Nothing::"a".b == 1', {"entities.Nothing"}),
        ('context.nothing.at == 1 && context.nothing in Group::"g"', {"context.nothing", "entities"}),
    ],
)  # fmt: skip
def test_who_is_in_what_hangs_on_all_that_is_between(condition: str, found: set[str]) -> None:
    """Every type on the way up counts; where the type cannot be told, any type does."""
    assert at(condition) == found


@pytest.mark.parametrize(
    ("condition", "fails"),
    [
        ("context.input.rows > 5", False),
        ("context.input.rows + 1 > 5", True),
        ("context.input.rows * 2 > 5 || -context.input.rows - 1 > 0", True),
        ('decimal("1.0").greaterThan(decimal("0.5"))', False),
        ("decimal(context.input.note.text) == 1", True),
        ('context.now.offset(duration("1d")) == context.now', True),
        ('context.now.durationSince(context.now) > duration("1h")', False),
        ('context.now.durationSince(datetime("2026-01-05")) > duration("1h")', False),
        ('context.now.offset(duration("1d")).durationSince(context.now) > duration("1h")', True),
        ('context.now.durationSince(datetime(context.input.note.text)) > duration("1h")', True),
        ('resource.getTag("a") == "x"', True),
        ('context.input.names.contains("x")', False),
    ],
)
def test_what_may_fail_is_known(condition: str, fails: bool) -> None:
    """A sum may be too large; a comparison of what the schema vouches for cannot fail."""
    assert looks(condition).may_err is fails


def test_action_without_a_context_has_none() -> None:
    """A mere group has no context to look at."""
    types = read_types(f'{SCHEMA} action "group";')

    assert Looking(types, types.actions["group"], "Record").of(
        syntax_of_text("permit (principal, action, resource) when { context.x };").clauses[0].body
    ).at == {Look(("context", "x"))}


@pytest.mark.parametrize(
    ("look", "unknown", "touched"),
    [
        (Look(("context", "input", "rows")), ("context", "input", "rows"), True),
        (Look(("context", "input", "rows")), ("context", "input"), True),
        (Look(("context", "input")), ("context", "input", "rows"), True),
        (Look(("context", "input", "rows")), ("context", "input", "row"), False),
        (Look(("context", "approval"), presence=True), ("context", "approval", "at"), False),
        (Look(("context", "approval"), presence=True), ("context", "approval"), True),
        (Look(("principal",), presence=True), ("principal",), True),
        (Look(("principal",), presence=True), ("principal", "scopes"), False),
        (Look(("principal", ITSELF)), ("principal", "scopes"), False),
        (Look((ENTITIES, "Record")), (ENTITIES, "Record"), True),
        (Look((ENTITIES, "Record")), (ENTITIES, "User"), False),
        (Look((ENTITIES,)), (ENTITIES, "User"), True),
        (Look(("context", "input", "*")), (ENTITIES, "*"), False),
    ],
)
def test_look_is_touched_from_above_and_from_below(look: Look, unknown: tuple[str, ...], touched: bool) -> None:
    """What lies above an unknown value holds it; that it is there at all does not hang on what lies in it."""
    assert look.touches(unknown) is touched
    assert bool(Looks(frozenset((look,)), may_err=False).touched(frozenset((unknown,)))) is touched
