"""What is proved is so: whatever is called impossible is held against Cedar on many requests."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agentguard.analysis.proofs.environments import Environment
from agentguard.analysis.proofs.reasoning import Reasoning, Terms, alternatives, comparison_of
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.limits import Limits
from agentguard.model import AccessRequest
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import write_schema
from agentguard.policy.text.arithmetic import LEAST, MOST
from agentguard.policy.text.syntax import syntax_of_text
from agentguard.policy.text.tree import Node
from tests.analysis.chances import HEAD, left_out, many_calls, unmatched
from tests.analysis.folders import opened, records_folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a folder for the records server."""
    return opened(tmp_path_factory.mktemp("records"), f'@id("a") {HEAD};')


@pytest.fixture(scope="module")
def calls(workspace: Workspace) -> Sequence[AccessRequest]:
    """Return many calls, close to what the conditions ask for."""
    return many_calls(workspace)


def test_what_is_said_never_to_match_matches_no_request(workspace: Workspace, calls: Sequence[AccessRequest]) -> None:
    """A proof is held against Cedar; and much of what matches nothing is proved."""
    matchless, proved = (
        sum(part) for part in zip(*(unmatched(seed, workspace, calls) for seed in range(3)), strict=True)
    )

    assert proved * 3 > matchless > 10


def test_a_permit_that_is_said_to_add_nothing_adds_nothing(
    workspace: Workspace, calls: Sequence[AccessRequest]
) -> None:
    """Without it, each call is decided as it was, whether it was shadowed or overruled."""
    assert sum(left_out(seed, workspace, calls[:20]) for seed in range(6)) > 6


def reasoning(workspace: Workspace, tool: str = "export_records") -> Reasoning:
    """Return what can be proved of one tool."""
    known = {one.name: one for one in workspace.written.tools}
    return Reasoning(Environment(known[tool], workspace.types), Terms())


def tree(text: str) -> Node:
    """Return the tree of a condition."""
    (clause,) = syntax_of_text(f"{HEAD} when {{ {text} }};").clauses
    return clause.body


NEVER = (
    "context.input.max_rows > 500 && context.input.max_rows < 100",
    "context.input.max_rows > 5 && context.input.max_rows < 7 && context.input.max_rows != 6",
    "context.input.max_rows > 9223372036854775807",
    "context.input.max_rows == 1 && context.input.max_rows == 2",
    "context.input.max_rows != context.input.max_rows",
    "context.input.max_rows < context.input.max_rows",
    (
        "context.facts.identifying_columns < context.input.max_rows"
        " && context.facts.identifying_columns >= context.input.max_rows"
    ),
    (
        "context.facts.identifying_columns == context.input.max_rows"
        " && context.input.max_rows != context.facts.identifying_columns"
    ),
    'context.input.format != "csv" && context.input.format != "json"',
    'context.input.format == "cvs"',
    '!["csv", "json"].contains(context.input.format)',
    'context.input.format like "x*"',
    'context.environment like "prod*" && context.environment == "test"',
    'context.environment like "prod" && context.environment like "pro*n"',
    '!(context.environment like "*")',
    'context.environment like "prod*" && context.environment like "test*"',
    'context.environment like "prod-eu*" && !(context.environment like "prod*")',
    '"abc" like "b*"',
    '["a", "b"].contains("c")',
    '[Tool::"read_record"].contains(resource)',
    '[Action::"open-world"].contains(action)',
    'resource.hasTag("reviewed")',
    'principal.user.hasTag("staff")',
    "context.local.minute == 1440",
    "context.local.weekday < 1",
    "principal.delegation_depth < 0",
    'principal.grade != "run" && principal.grade != "token" && principal.grade != "shared"',
    "context has approval && !(context has approval)",
    "context has nothing",
    "!(context has input)",
    "context.input has filters.nothing",
    'principal in User::"alice"',
    'principal in [User::"alice", Server::"records"]',
    'principal is Invocation in User::"alice"',
    "principal is Agent",
    'principal.agent == Agent::"a" && principal.agent == Agent::"b"',
    "resource == principal",
    'resource == Tool::"read_record"',
    'resource in Server::"other"',
    '!(resource in [Server::"other", Server::"records"])',
    'resource in Tool::"read_record"',
    'action == Action::"open-world"',
    'action in Action::"destructive"',
    '!(action in [Action::"open-world"])',
    'User::"a" == User::"b"',
    '!(User::"a" in [User::"a"])',
    '!(Action::"read_record" in [Action::"read_record"])',
    '!(action in Action::"export_records")',
    "1 > 2",
    "2 >= 3 || 3 == 4",
    "1 != 1",
    'decimal("1.5") == decimal("1.6")',
    'context.now < datetime("2026-01-01") && context.now > datetime("2026-01-01T01:00:00+0100")',
    'principal.lifetime < duration("1h") && principal.lifetime > duration("60m")',
    "context.input.columns.isEmpty() && !context.input.columns.isEmpty()",
    "(if context.input has filters then false else context.input has filters)",
    "true == false",
    '(principal.grade == "run") == true && (principal.grade == "run") != true',
)


@pytest.mark.parametrize("text", NEVER)
def test_a_contradiction_is_found(text: str, workspace: Workspace) -> None:
    """Each kind of one that is understood."""
    assert reasoning(workspace).never([(tree(text), True)])


def test_a_tag_of_a_type_that_has_tags_may_be_there(tmp_path: Path) -> None:
    """Which tags an entity has, its loader says."""
    folder = records_folder(tmp_path, f'@id("a") {HEAD};')
    types = folder / "types" / "records.cedarschema"
    types.write_text(types.read_text("utf-8").replace("};", "} tags String;"), "utf-8")
    (folder / "agentguard.cedarschema").write_text(
        write_schema(open_workspace(folder).written, read_folder(folder, Limits()), named="SERVER"), "utf-8"
    )
    tagged = open_workspace(folder)

    assert not reasoning(tagged, "read_record").never([(tree('resource.hasTag("reviewed")'), True)])
    assert reasoning(tagged, "export_records").never([(tree('resource.hasTag("reviewed")'), True)])


MAYBE = (
    "context.input.max_rows > 5 && context.input.max_rows < 7",
    'context.input.format == "csv"',
    "context has approval",
    'principal in Agent::"a" && principal in Agent::"b"',
    'principal in Group::"g"',
    "context.input has filters",
    'resource == Tool::"export_records"',
    'Agent::"a" in Group::"b"',
    'Action::"read_record" in Action::"read-only"',
    '!(Action::"read_record" in Action::"read-only")',
    'Action::"read_record" in Action::"export_records"',
    'Action::"read_record" in action',
    'Action::"read_record" in Action::"read_record"',
    '["a", "b"].contains("b")',
    '[context.environment, "b"].contains("c")',
    "[true, false].contains(context has approval)",
    '["a", 1] == [1]',
    'context.environment like "a*" && context.environment like "*b"',
    'context.environment like "prod*" && context.environment like "prod-eu*"',
    'context.environment like "prod*" && !(context.environment like "prod-eu*")',
    'context.environment like "prod*" && !(context.environment like "prod")',
    '[Tool::"read_record", Tool::"export_records"].contains(resource)',
    '[Action::"open-world", Action::"export_records"].contains(action)',
    'context.nothing.hasTag("reviewed")',
    'decimal("nonsense") == decimal("1.0")',
    "context.input.max_rows + 1 > 5",
    'ip("10.0.0.1") == ip("10.0.0.2")',
    "(principal has user) == (principal has task)",
    "{a: 1}.a == 2",
    "(if true then principal else principal) is Agent",
    "context.nothing.at.all == 1",
    "context.nothing has at",
    'context.nothing in Agent::"a"',
    'context.input.format < "a"',
    "context.input.format == 5",
    "[1, 2].contains(context.input.format)",
    '"a" < "b"',
    'principal in Agent::"billing-agent" && 5 == context.input.format',
)


@pytest.mark.parametrize("text", MAYBE)
def test_what_is_not_understood_is_not_called_impossible(text: str, workspace: Workspace) -> None:
    """Nor what is possible."""
    assert not reasoning(workspace).never([(tree(text), True)])


def test_what_a_tool_acts_on_is_known_as_far_as_the_guard_makes_it(workspace: Workspace) -> None:
    """A record may be in whatever its loader says; a tool is in its server."""
    reads = reasoning(workspace, "read_record")

    assert not reads.never([(tree('resource in Tool::"read_record"'), True)])
    assert not reads.never([(tree('resource in Tool::"read_record"'), False)])
    assert reads.never([(tree('resource in Task::"t"'), True)])
    assert reads.never([(tree("resource has sensitivity"), False)])
    assert reads.never([(tree("resource is Record"), False)])


def test_too_many_alternatives_prove_nothing(workspace: Workspace) -> None:
    """What is left out could only have ruled more out."""
    many = " && ".join(f"(context.input.max_rows == {2 * n} || context.input has filters)" for n in range(9))
    wide = " || ".join(f"context.input.max_rows == {n}" for n in range(80))

    assert not reasoning(workspace).never([(tree(many), True), (tree("context.input.max_rows == 1"), True)])
    assert len(alternatives((tree(many), True))) <= 64
    assert alternatives((tree(wide), True)) == ((),)
    assert not reasoning(workspace).never([(tree(wide), True), (tree("context.input.max_rows == 99"), True)])
    both = [(tree(wide.replace("80", "8")[:400].rpartition(" || ")[0]), True)] * 9
    assert not reasoning(workspace).never(both)


def test_a_span_holds_where_its_facts_do(workspace: Workspace) -> None:
    """Bounds come from conditions, from choices and from what the guard fills in."""
    rows = tree("context.input.max_rows")
    proof = reasoning(workspace)

    def span(node: Node, *facts: str) -> tuple[int, int]:
        return proof.span(node, proof.open([(tree(fact), True) for fact in facts]))

    assert span(rows) == (LEAST, MOST)
    assert span(rows, "context.input.max_rows > 5 && context.input.max_rows <= 9") == (6, 9)
    assert span(rows, "[3, 5].contains(context.input.max_rows)") == (3, 5)
    assert span(rows, "context.input.max_rows == 3 || context.input.max_rows == 7") == (3, 7)
    assert span(tree("context.local.minute")) == (0, 1439)
    assert proof.open([(tree("1 == 2"), True)]) == ()


def test_two_sides_with_too_many_ways_are_not_held_against_each_other(workspace: Workspace) -> None:
    """Nothing is proved then."""
    proof = reasoning(workspace)
    some = alternatives((tree(" || ".join(f"context.input.max_rows == {n}" for n in range(9))), True))
    other = alternatives((tree("context.input.max_rows > 99"), True))

    assert proof.never_both(some, other)
    assert not proof.never_both(some, other * 9)


def test_numbers_are_the_same_for_what_is_the_same() -> None:
    """Blanks, brackets, the order of a set and the spelling of a number make no difference."""
    number = Terms()

    assert number(tree("(context . input).a")) == number(tree('context["input"]["a"]'))
    assert number(tree("[1, 2, 2]")) == number(tree("[2, 1]"))
    assert number(tree('decimal("1.0")')) == number(tree('decimal("1.00")'))
    assert number(tree("a == 1".replace("a", "context"))) == number(tree("1 == context"))
    assert number(tree("true")) != number(tree("1"))
    assert number(tree("context.a && context.b")) != number(tree("context.b && context.a"))


def test_a_comparison_is_read_from_operators_and_methods() -> None:
    """Decimals are compared by name."""
    by_name = comparison_of(tree('context.input.a.lessThan(decimal("1.0"))'))

    assert by_name is not None
    assert by_name[1] == "<"
    assert comparison_of(tree("context has a")) is None
