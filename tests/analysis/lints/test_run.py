"""Each lint finds what it is for, and leaves alone what only looks like it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentguard.analysis.finding import Finding, Severity
from agentguard.analysis.lints.granting import _Wider
from agentguard.analysis.lints.lint import Read
from agentguard.analysis.lints.run import LINTS, lint
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.policy.files.written import Offered
from tests.analysis.folders import RECORDS, opened, read

EVERYTHING = "permit (principal, action, resource);"
EXPORT = 'action == Action::"export_records"'
Lint = Callable[..., list[str]]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a folder for the records server."""
    return opened(tmp_path_factory.mktemp("records"), f'@id("a") permit (principal, {EXPORT}, resource);')


def told(workspace: Workspace, policies: str, *names: str) -> list[str]:
    """Return what some lints say of policies, each with what it points at."""
    text = policies.strip()
    findings = lint(workspace.with_policies(read(text)))
    return [f"{pointed(text, finding)}: {finding.what}" for finding in findings if finding.name in names]


def pointed(text: str, finding: Finding) -> str:
    """Return what a finding's caret points at."""
    if not finding.line or not finding.column:
        return str(finding.line)
    return text.splitlines()[finding.line - 1][finding.column - 1 :][: finding.length]


def forbid(condition: str, head: str = EXPORT) -> str:
    """Return a forbid with one condition."""
    return f'@id("f") forbid (principal, {head}, resource) when {{ {condition} }};'


def names(workspace: Workspace, policies: str) -> set[str]:
    """Return the names of all warnings and errors, but for those that simple policies all have."""
    usual = {"missing-owner", "unreachable-tool", "unconditional-destructive"}
    return {finding.name for finding in lint(workspace.with_policies(read(policies)))} - usual


@pytest.mark.parametrize("name", ["records", "tau2/airline", "tau2/retail"])
def test_the_examples_are_clean(name: str) -> None:
    """A finding that is none would teach people to ignore the others."""
    folder = RECORDS.parent.parent / name / "policies"

    assert [finding for finding in lint(open_workspace(folder)) if finding.fails] == []


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (
            "context.input.max_rows > 500 && context.input.max_rows < 100",
            (
                "context.input.max_rows < 100: `context.input.max_rows < 100` never holds where "
                "`context.input.max_rows > 500` does"
            ),
        ),
        ("principal has nothing || 1 > 2", "principal has nothing || 1 > 2: "),
        ("1 > 2", "1 > 2: `1 > 2` never holds"),
        ("context.local.minute > 1439", "context.local.minute > 1439: `context.local.minute > 1439` never holds"),
        (
            "context.input.max_rows > 5 && context.input.max_rows != 6 && context.input.max_rows < 7",
            (
                "context.input.max_rows < 7: `context.input.max_rows < 7` never holds "
                "where all before it lets a call come this far"
            ),
        ),
    ],
)
def test_a_forbid_that_never_matches_is_an_error(condition: str, wanted: str, records: Workspace) -> None:
    """The caret stands under the condition that cannot be with those before it."""
    found = told(records, forbid(condition), "never-matching-forbid")

    if "nothing" in condition:
        assert found == []
    else:
        assert found == [f"{wanted}, so it forbids nothing: mend the condition, or delete the policy"]


def test_an_unless_that_always_holds_lifts_a_forbid_every_time(records: Workspace) -> None:
    """It is told so, since `never` would be about the clause and not about what is written."""
    text = f'@id("f") forbid (principal, {EXPORT}, resource) when {{ context has approval }} unless {{ 1 < 2 }};'
    other = f'@id("f") forbid (principal, {EXPORT}, resource) unless {{ context.input.max_rows >= 0 }}\n'
    other += "when { context.input.max_rows > 3 };"

    assert told(records, text, "never-matching-forbid") == [
        "1 < 2: `1 < 2` always holds, so it forbids nothing: mend the condition, or delete the policy"
    ]
    assert told(records, other, "never-matching-forbid") == [
        (
            "context.input.max_rows > 3: `context.input.max_rows > 3` never holds where `context.input.max_rows >= 0` "
            "does not, so it forbids nothing: mend the condition, or delete the policy"
        )
    ]


def test_a_head_that_no_call_has_is_told(records: Workspace) -> None:
    """Cedar looks at types; that a tool is another one it does not know."""
    head = '@id("f") forbid (principal, action == Action::"search_records", resource == Tool::"export_records");'
    odd = '@id("f") forbid (principal, action in Action::"open-world", resource in Tool::"search_records");'

    assert told(records, head, "never-matching-forbid")[0].startswith(
        'resource == Tool::"export_records": no call has this head, so it forbids nothing'
    )
    assert told(records, odd, "never-matching-forbid")[0].startswith("resource in Tool::")


def test_a_condition_that_fails_for_each_tool_in_its_own_way_is_told(records: Workspace) -> None:
    """Each tool is ruled out by another condition; the caret stands at the last of them."""
    text = (
        '@id("f") forbid (principal, action in [Action::"export_records", Action::"search_records"], resource) '
        'when { action == Action::"search_records" || context has approval } '
        'when { action == Action::"export_records" } unless { context has approval };'
    )

    assert told(records, text, "never-matching-forbid") == [
        (
            "context has approval: `context has approval` always holds where all before it lets a call come this far, "
            "so it forbids nothing: mend the condition, or delete the policy"
        )
    ]


def test_a_permit_that_never_matches_is_a_warning(records: Workspace) -> None:
    """It protects nobody, and permits nothing."""
    text = f'@id("p") permit (principal, {EXPORT}, resource) when {{ principal in User::"alice" }};'

    assert told(records, text, "never-matching-permit") == [
        (
            'principal in User::"alice": `principal in User::"alice"` never holds, so it permits nothing: '
            "mend the condition, or delete the policy"
        )
    ]
    assert LINTS["never-matching-permit"].severity == "warning"


def test_what_servers_share_may_be_about_tools_of_others(records: Workspace) -> None:
    """A policy in `common/` that never matches here matches elsewhere."""
    (policy,) = read(forbid("context.input has path && 1 == 2"))
    here = lint(records.with_policies([policy]))
    shared = lint(records.with_policies([replace(policy, file="common/policies.cedar")]))

    assert {"has-nothing"} <= {finding.name for finding in here}
    assert not {"has-nothing", "never-matching-forbid"} & {finding.name for finding in shared}


CVS = '"cvs": `context.input.format` is "csv" or "json", never `cvs`: did you mean `csv`?'


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('context.input.format == "cvs"', CVS),
        ('"cvs" != context.input.format', CVS),
        (
            '["csv", "xml"].contains(context.input.format)',
            '"xml": `context.input.format` is "csv" or "json", never `xml`: there is `csv`, `json`',
        ),
        (
            'context.input.columns.contains("nmae")',
            ('"nmae": `context.input.columns` is "record_id" or "name" or "born" or "email" or "last_visit" …, '
            "never `nmae`: did you mean `name`?"),
        ),
        (
            'context.input.columns != ["born", "nmae"]',
            ('"nmae": `context.input.columns` is "record_id" or "name" or "born" or "email" or "last_visit" …, '
            "never `nmae`: did you mean `name`?"),
        ),
    ],
)  # fmt: skip
def test_a_value_that_an_argument_never_has_is_told(condition: str, wanted: str, records: Workspace) -> None:
    """In whichever way it is compared."""
    assert told(records, forbid(condition), "unknown-enum-value") == [wanted]
    assert "never-matching-forbid" not in names(records, forbid(condition))


@pytest.mark.parametrize(
    "condition",
    [
        'context.input.format == "csv"',
        'context.environment == "cvs"',
        'context.input.columns.containsAny(["name"])',
        'context.input.columns == ["name"]',
        "context.input.columns.contains(context.input.format)",
        "context.input.max_rows == 3",
    ],
)  # fmt: skip
def test_a_value_that_may_be_is_none_to_tell(condition: str, records: Workspace) -> None:
    """Only what is compared with one of few values is looked at."""
    assert told(records, forbid(condition), "unknown-enum-value") == []


def test_a_value_that_another_tool_takes_is_none_to_tell(records: Workspace) -> None:
    """A policy for several tools may name the values of each."""
    head = 'action in [Action::"export_records", Action::"search_records"]'
    condition = 'context.input has filters && context.input.filters.sensitivity == "{}"'

    assert told(records, forbid(condition.format("restricted"), head), "unknown-enum-value") == []
    assert len(told(records, forbid(condition.format("secret"), head), "unknown-enum-value")) == 1


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (
            "context.input has max_row && context.input.max_row > 5",
            (
                "context.input has max_row: `export_records` has no argument `max_row`, so this is never so: "
                "did you mean `max_rows`?"
            ),
        ),
        (
            "principal has users",
            "principal has users: `principal` has no attribute `users`, so this is never so: did you mean `user`?",
        ),
        (
            "context.input has filters.sensitivty",
            (
                "context.input has filters.sensitivty: `export_records` has no argument `filters.sensitivty`, "
                "so this is never so: did you mean `sensitivity`?"
            ),
        ),
    ],
)
def test_has_with_a_name_that_nothing_has_is_told(condition: str, wanted: str, records: Workspace) -> None:
    """Cedar takes any name there, so a slip of the pen would switch the policy off."""
    assert told(records, forbid(condition), "has-nothing") == [wanted]
    assert "never-matching-forbid" not in names(records, forbid(condition))


def test_has_is_fine_where_one_of_the_tools_has_it(records: Workspace) -> None:
    """That is what it is for. Of a tool that has not even the record, nothing is said."""
    both = 'action in [Action::"export_records", Action::"search_records"]'
    facts = "context has facts && context.facts has nothing"
    filters = "context.input has filters && context.input.filters has sensitivity"

    assert told(records, forbid("context.input has max_rows", "action"), "has-nothing") == []
    assert told(records, forbid("context.input has zebra", both), "has-nothing") == [
        (
            "context.input has zebra: no tool that this is for has an argument `zebra`, so this is never so: "
            "correct the name, or delete the condition"
        )
    ]
    assert told(records, forbid(filters), "has-nothing") == []
    assert len(told(records, forbid(facts, both), "has-nothing")) == 1


def test_an_action_equals_no_group(records: Workspace) -> None:
    """Whichever side it stands on."""
    assert told(records, forbid('action == Action::"open-world"', "action"), "equals-group") == [
        (
            'action == Action::"open-world": `open-world` is a group, which no action equals, so this never holds: '
            'write `action in Action::"open-world"`'
        )
    ]
    assert told(records, forbid('Action::"destructive" != action', "action"), "equals-group") == [
        (
            'Action::"destructive" != action: `destructive` is a group, which no action equals, so this always holds: '
            'write `!(action in Action::"destructive")`'
        )
    ]
    assert told(
        records, forbid('[Action::"read-only", Action::"read_record"].contains(action)', "action"), "equals-group"
    ) == [
        (
            '[Action::"read-only", Action::"read_record"].contains(action): `read-only` is a group, which no action '
            'equals, so `contains` never finds it: write `action in Action::"read-only"`'
        )
    ]
    assert told(records, forbid('[Action::"read_record"].contains(action)', "action"), "equals-group") == []
    assert told(records, forbid('action == Action::"export_records"', "action"), "equals-group") == []
    assert told(records, forbid('action == Action::"resources/read"', "action"), "equals-group") == []


def test_like_without_a_star_is_equality(records: Workspace) -> None:
    """Whoever writes `like` expects more."""
    assert told(records, forbid('context.input.format like "cs"'), "like-without-star") == [
        'context.input.format like "cs": this pattern has no `*`, and only `cs` itself is like it: write `*`, or `==`'
    ]
    assert told(records, forbid('context.input.format like "cs*"'), "like-without-star") == []


DELETES = '@id("p") permit (principal in Agent::"billing-agent", action == Action::"delete_record", resource){};'
WHATEVER = (
    "permit: `delete_record` can destroy, and this permits it whatever the call: "
    "add a `when`, or a forbid with `unless { context has approval }`"
)


@pytest.mark.parametrize("clauses", ["", " when { true }", ' unless { principal in User::"alice" }', " when { 1 < 2 }"])
def test_a_destructive_action_without_a_condition_is_told(clauses: str, records: Workspace) -> None:
    """A condition that always holds is none."""
    assert told(records, DELETES.format(clauses), "unconditional-destructive") == [WHATEVER]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('action == Action::"delete_record"', [WHATEVER]),
        ('action in [Action::"read_record", Action::"delete_record"]', [WHATEVER]),
        ('principal in Agent::"billing-agent" && action == Action::"delete_record"', [WHATEVER]),
        ('principal is Invocation in Agent::"billing-agent" && action in Action::"destructive"', [WHATEVER]),
        ('action == Action::"delete_record" && principal has user', []),
        ('action == Action::"delete_record" && resource.sensitivity == "normal"', []),
        ('action in Action::"read-only" || principal has user', []),
    ],
)  # fmt: skip
def test_who_acts_and_what_is_done_is_no_condition(condition: str, wanted: list[str], records: Workspace) -> None:
    """Wherever it is written: in the head, or below."""
    text = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'

    assert told(records, text, "unconditional-destructive") == wanted


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ('forbid (principal, action in Action::"destructive", resource) when { context.local.minute > 5 };', []),
        ("forbid (principal, action, resource is Record) when { context.local.minute > 5 };", []),
        ('@obligation("approval") forbid (principal, action, resource) unless { context has approval };', []),
        ('forbid (principal in Agent::"billing-agent", action in Action::"destructive", resource);', []),
        ('forbid (principal in Agent::"support-agent", action in Action::"destructive", resource);', [WHATEVER]),
        ("forbid (principal, action, resource) when { context.local.minute > 5 };", [WHATEVER]),
        ('forbid (principal, action == Action::"read_record", resource);', [WHATEVER]),
        ('forbid (principal, action in Action::"destructive", resource) when { 1 == 2 };', [WHATEVER]),
    ],
)  # fmt: skip
def test_a_forbid_for_the_same_may_stand_in_the_way(other: str, wanted: list[str], records: Workspace) -> None:
    """Then somebody thought of it. A forbid for all tools, or for another agent, says nothing of that."""
    policies = DELETES.format("") + f'\n@id("f") {other}'

    assert told(records, policies, "unconditional-destructive") == wanted


def test_a_permit_for_everything_is_told_even_where_nothing_is_destructive(records: Workspace) -> None:
    """A tool that comes tomorrow is permitted too."""
    every = told(
        records,
        '@id("p") permit (principal, action in Action::"tools/call", resource is Tool);',
        "unconditional-destructive",
    )
    conditional = '@id("p") permit (principal, action, resource) when { principal has task };'

    assert every == [
        (
            "permit: this permits every tool, those that are still to come included, whatever the call: "
            "name the actions in the head, or add a `when`"
        )
    ]
    assert told(records, conditional, "unconditional-destructive") == []
    one = DELETES.format("").replace("resource)", 'resource == Record::"r1")')
    assert told(records, one, "unconditional-destructive") == []
    assert told(records, one.replace('== Record::"r1"', "is Record"), "unconditional-destructive") == [WHATEVER]


def test_a_tool_that_is_not_annotated_is_not_called_destructive(records: Workspace) -> None:
    """Nobody said that it is; that it is taken for it has a lint of its own."""
    offers = [replace(offered, annotated=offered.tool.name != "delete_record") for offered in records.written.offers]
    unsaid = replace(records, written=replace(records.written, offers=tuple(offers)))
    asks = '\n@id("f") forbid (principal, action in Action::"destructive", resource) when { 1 < context.local.minute };'

    assert told(unsaid, DELETES.format(""), "unconditional-destructive", "unannotated-tool") == []
    (found,) = told(unsaid, DELETES.format("") + asks, "unannotated-tool")
    assert found.endswith(
        "`delete_record` has no annotations, so this takes it for destructive and open-world, as MCP says: "
        "annotate it in the server"
    )


def shadow(*policies: tuple[str, str, str]) -> str:
    """Return permits, each from who may do what, and under which conditions."""
    return "\n".join(
        f'@id("p{place}") permit (principal{who}, {what}, resource){clauses};'
        for place, (who, what, clauses) in enumerate(policies)
    )


ANY = ("", EXPORT, "")
BILLING = (' in Agent::"billing-agent"', EXPORT, "")


def when(condition: str, clause: str = "when", action: str = EXPORT) -> tuple[str, str, str]:
    """Return a permit with one condition."""
    return ("", action, f" {clause} {{ {condition} }}")


@pytest.mark.parametrize(
    ("policies", "wanted"),
    [
        ([ANY, BILLING], ["p1"]),
        ([BILLING, ANY], ["p0"]),
        ([BILLING, when('principal in Agent::"billing-agent"')], []),
        ([when("principal has task", action="action"), when("principal has task && principal has user")], ["p1"]),
        ([when("context.input.max_rows < 9"), when("context.input.max_rows < 5")], ["p1"]),
        ([when("context.input.max_rows < 5"), when("context.input.max_rows < 9")], ["p0"]),
        ([when("context has approval", "unless"), when("!(context has approval)")], ["p1"]),
        ([ANY, when("context.input.max_rows + 1 > 5")], []),
        ([ANY, when('context.now.offset(duration("1h")) > context.now')], []),
        ([when("context.input.max_rows + 1 > 5 || true"), ANY], ["p1"]),
        ([when("1 == 2"), ANY], []),
        ([when('resource in Server::"records"'), ANY], ["p1"]),
        ([("", 'action in Action::"open-world"', ""), ANY], ["p1"]),
        ([ANY, ANY], []),
        ([BILLING, (' in Agent::"support-agent"', EXPORT, "")], []),
        ([ANY, when("context has approval", action='action in [Action::"read_record", Action::"export_records"]')], []),
    ],
)
def test_a_permit_is_shadowed_where_that_can_be_proved(
    policies: list[tuple[str, str, str]], wanted: list[str], records: Workspace
) -> None:
    """By a wider one, or by an earlier one that is as wide."""
    findings = lint(records.with_policies(read(shadow(*policies))))

    assert [finding.policy for finding in findings if finding.name == "shadowed-permit"] == wanted


def test_a_shadow_names_what_casts_it(records: Workspace) -> None:
    """So that the two can be read side by side."""
    policies = shadow(ANY, BILLING)

    assert told(records, policies, "shadowed-permit") == [
        "permit: `p0` (policies.cedar:1) permits all that this permits: delete this one, or narrow the other"
    ]


HAS = "context has approval"
ASKS = f'@id("asks") @obligation("approval") forbid (principal, {EXPORT}, resource) unless {{ {HAS} }};'
READS = 'action == Action::"read_record"'


@pytest.mark.parametrize(
    ("policies", "wanted"),
    [
        (f'@id("a") forbid (principal, {EXPORT}, resource) unless {{ {HAS} }};', [HAS]),
        (f'@id("a") permit (principal, {EXPORT}, resource) when {{ {HAS} && principal has user }};', [HAS]),
        (f'@id("a") permit (principal, {EXPORT}, resource) when {{ {HAS}.channel }};', [f"{HAS}.channel"]),
        (f'@id("a") permit (principal, {READS}, resource) when {{ {HAS} }};\n{ASKS}', [HAS]),
        (f'@id("a") permit (principal, {EXPORT}, resource) when {{ {HAS} }};\n{ASKS}', []),
        (f'@id("a") permit (principal, action, resource) when {{ {HAS} }};\n{ASKS}', []),
        (f'@id("a") permit (principal, {EXPORT}, resource) when {{ principal has user }};', []),
    ],
)
def test_an_approval_that_nobody_is_asked_for_is_told(policies: str, wanted: list[str], records: Workspace) -> None:
    """Without its annotation a forbid asks nobody, and denies whatever the call."""
    found = told(records, policies, "unasked-approval")

    assert [spot.partition(": ")[0] for spot in found] == wanted
    assert all("write `@obligation" in spot for spot in found)


def test_what_servers_share_may_want_an_approval_that_others_ask_for(records: Workspace) -> None:
    """Here there may be no tool that is asked about."""
    text = f'@id("a") forbid (principal, action in Action::"destructive", resource) unless {{ {HAS} }};'
    policies = tuple(replace(policy, file="common/a.cedar") for policy in read(text))
    assert "unasked-approval" not in {finding.name for finding in lint(records.with_policies(policies))}


def test_what_servers_share_may_be_shadowed_here(records: Workspace) -> None:
    """On another server it may be the only permit."""
    first, second = read(shadow(ANY, BILLING))
    policies = [first, replace(second, file="common/policies.cedar")]

    assert "shadowed-permit" not in {finding.name for finding in lint(records.with_policies(policies))}


def test_a_permit_of_which_all_is_forbidden_is_told(records: Workspace) -> None:
    """It would be read as permitting something."""
    permit = f'@id("p") permit (principal, {EXPORT}, resource) when {{ context.input.max_rows > 600 }};\n'
    sums = f'@id("p") permit (principal, {EXPORT}, resource) when {{ context.input.max_rows + 1 > 600 }};\n'
    small = permit.replace("600", "400")

    assert told(records, permit + forbid("context.input.max_rows > 500"), "overruled-permit") == [
        "permit: `f` (policies.cedar:2) forbids all that this permits: narrow the forbid, or delete this one"
    ]
    assert told(records, small + forbid("context.input.max_rows > 500"), "overruled-permit") == []
    assert told(records, sums + forbid("context.local.minute >= 0"), "overruled-permit") == []


def test_a_policy_that_repeats_another_is_told(records: Workspace) -> None:
    """Annotations, blanks and the order of two sides make no difference."""
    one = forbid("context.input.max_rows == 5")
    other = one.replace('@id("f")', '@id("g")\n@owner("x")').replace(
        "context.input.max_rows == 5", "5==context.input.max_rows"
    )

    assert told(records, f"{one}\n{other}", "duplicate-policy") == [
        "forbid: `f` (policies.cedar:1) says the same: delete one of the two"
    ]
    assert told(records, f"{one}\n{other.replace('forbid', 'permit')}", "duplicate-policy") == []


def test_forbid_that_a_person_can_lift_repeats_none_that_nobody_can(records: Workspace) -> None:
    """Without the one that nobody can lift, somebody could say yes."""
    one = f'@id("f") forbid (principal, {EXPORT}, resource) unless {{ context has approval }};'
    other = one.replace('@id("f")', '@id("g") @obligation("approval")')

    assert told(records, f"{one}\n{other}", "duplicate-policy") == []
    assert told(records, f"{other}\n{one}", "duplicate-policy") == []


EITHER = "context has approval then context.input.max_rows else 2"


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("context.input.max_rows + 1 > 5", ["context.input.max_rows + 1"]),
        ("5 < context.input.max_rows * 2", ["context.input.max_rows * 2"]),
        ("-context.input.max_rows < 5", ["-context.input.max_rows"]),
        ("context.input.max_rows - 1 > 5 || context.input.max_rows * 0 == 1", ["context.input.max_rows - 1"]),
        ("context.input.max_rows < 100 && context.input.max_rows + 1 > 5", []),
        ("context.input.max_rows < 100 && context.input.max_rows - 1 > 5", ["context.input.max_rows - 1"]),
        ("!(context.input.max_rows < 100) || context.input.max_rows + 1 > 5", []),
        ("if context.input.max_rows < 100 then context.input.max_rows + 1 > 5 else true", []),
        ("if context.input.max_rows < 9 then true else context.input.max_rows + 1 > 5", ["context.input.max_rows + 1"]),
        ("context.local.minute * 60 + 1 > 5", []),
        ("principal.lifetime.toSeconds() * 2 + principal.delegation_depth > 5", []),
        ("principal.lifetime.toMilliseconds() * 2 > 5", ["principal.lifetime.toMilliseconds() * 2"]),
        ("(if context has approval then 1 else 2) + 1 > 2", []),
        ("(if context has approval then context.input.max_rows else 2) + 1 > 2", [f"(if {EITHER}) + 1"]),
        ("[context.input.max_rows + 1].contains(5)", ["context.input.max_rows + 1"]),
        ("1 + 2 == 3", []),
        ("context.input.max_rows + 1 + 1 > 5", ["context.input.max_rows + 1"]),
        ("9223372036854775807 + 1 > 2", ["9223372036854775807 + 1"]),
        ("1 == 2 && context.input.max_rows + 1 > 5", []),
    ],
)  # fmt: skip
def test_arithmetic_that_can_overflow_is_told(condition: str, wanted: list[str], records: Workspace) -> None:
    """Unless what is asked before keeps it in bounds."""
    found = told(records, forbid(condition), "overflow")

    assert [line.partition(": ")[0] for line in found] == wanted


def test_bounds_of_an_earlier_clause_count(records: Workspace) -> None:
    """Cedar comes to clauses in their order, and stops at the first that does not hold."""
    head = f'@id("f") forbid (principal, {EXPORT}, resource)'
    first, then = "when { context.input.max_rows < 9 }", "unless { context.input.max_rows + 1 > 5 }"

    assert told(records, f"{head} {first} {then};", "overflow") == []
    assert told(records, f"{head} {then} {first};", "overflow") == [
        (
            "context.input.max_rows + 1: `context.input.max_rows + 1` can pass 64 bits, which fails the policy and "
            "denies the call: ask for the bounds of its arguments first, or compare without arithmetic"
        )
    ]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('principal in Agent::"billing-agent"', 'principal in Agent::"billing-agent"'),
        (
            'principal has task && principal.agent == Agent::"billing-agent"',
            'principal.agent == Agent::"billing-agent"',
        ),
        ('Agent::"billing-agent" == principal.agent', 'Agent::"billing-agent" == principal.agent'),
        ('principal in Group::"suspended"', 'principal in Group::"suspended"'),
        ('principal.agent in Agent::"billing-agent"', 'principal.agent in Agent::"billing-agent"'),
        ('principal in [Agent::"billing-agent"]', 'principal in [Agent::"billing-agent"]'),
        (
            'principal is Invocation in Agent::"billing-agent"',
            'principal is Invocation in Agent::"billing-agent"',
        ),
        ('!!(principal in Agent::"billing-agent")', '!!(principal in Agent::"billing-agent")'),
        ("principal is Invocation", ""),
        ('principal in [Agent::"billing-agent", Agent::"support-agent"]', ""),
        ('principal in Agent::"billing-agent" || principal has task', ""),
        ('!(principal in Agent::"billing-agent")', ""),
        ('principal.agent in Group::"suspended"', ""),
        ("principal.delegation_depth == 1", ""),
        ('principal in Server::"records"', ""),
    ],
)
def test_an_agent_in_a_condition_belongs_in_the_head(condition: str, wanted: str, records: Workspace) -> None:
    """Where the head can say it: not of several, not of all others."""
    found = told(records, forbid(condition), "agent-in-when")

    assert [line.partition(": ")[0] for line in found] == ([wanted] if wanted else [])


def test_an_agent_in_unless_stays_where_it_is(records: Workspace) -> None:
    """A head cannot say everybody but one."""
    text = f'@id("f") forbid (principal, {EXPORT}, resource) unless {{ principal in Agent::"billing-agent" }};'

    assert told(records, text, "agent-in-when") == []
    assert (
        told(
            records,
            text.replace("unless", "when").replace("(principal", '(principal in Agent::"billing-agent"'),
            "agent-in-when",
        )
        == []
    )


def test_advice_on_a_permit_reaches_nobody(records: Workspace) -> None:
    """It is a note: it does no harm either."""
    text = f'@id("p")\n@advice("Ask nicely.")\npermit (principal, {EXPORT}, resource);'

    assert told(records, text, "unheard-advice") == [
        (
            '@advice("Ask nicely."): @advice on a permit reaches nobody, since it is told to a caller that is denied: '
            "take it away"
        )
    ]
    assert LINTS["unheard-advice"].severity == "note"


def test_a_policy_without_an_owner_is_told(records: Workspace) -> None:
    """One finding for each."""
    text = (
        f'@id("p") @owner(" ") permit (principal, {EXPORT}, resource);\n'
        '@id("q") @owner("x") permit (principal, action, resource);'
    )

    assert told(records, text, "missing-owner") == [
        'permit: nobody answers for this policy: write @owner("team@example.com") above it'
    ]


def test_tools_that_no_permit_reaches_are_noted_together(records: Workspace) -> None:
    """Unless a forbid names them."""
    text = f'@id("p") permit (principal, {EXPORT}, resource);\n'
    text += '@id("f") forbid (principal, action == Action::"delete_record", resource);'

    assert told(records, text, "unreachable-tool") == [
        (
            "0: no permit reaches `read_record`, `search_records`, `update_record`: "
            "permit what somebody should use, or forbid it by name"
        )
    ]


def test_a_schema_that_is_not_what_would_be_written_is_an_error(records: Workspace) -> None:
    """Everything else is checked against it."""
    stale = replace(records, stale=("action `x` is in agentguard.cedarschema alone",))
    found = [finding for finding in lint(stale) if finding.name == "stale-schema"]

    assert [(finding.file, finding.line, finding.severity) for finding in found] == [
        ("agentguard.cedarschema", 0, "error")
    ]


def test_where_policies_were_left_out_nothing_is_said_of_what_is_missing(records: Workspace) -> None:
    """The permit, or the forbid, may be among them."""
    workspace = records.with_policies(read(DELETES.format("")))
    whole = {finding.name for finding in lint(workspace)}
    part = {finding.name for finding in lint(workspace, whole=False)}

    assert whole - part == {"unreachable-tool", "unconditional-destructive"}


def test_a_finding_of_a_long_condition_stays_readable(records: Workspace) -> None:
    """The caret stays on the first line, and what would steer a terminal is no part of it."""
    many = " ||\n".join(["context.input.max_rows + 1 > 5"] * 3)
    long = " || ".join([f'context.input.format == "\u202e{"x" * 400}"'])
    findings = lint(records.with_policies(read(forbid(f"!({many}) && {long}"))))

    assert all(len(finding.what) <= 400 and "\u202e" not in finding.what for finding in findings)
    assert {finding.line for finding in findings if finding.name == "overflow"} == {1, 2, 3}


def test_every_lint_says_what_the_reference_needs() -> None:
    """A name, a reason, a fix; and all but those that are looked for among silences look for something."""
    for name, one in LINTS.items():
        assert name == one.name
        assert one.why.endswith(".")
        assert one.fix.endswith(".")
        assert one.find is not None or not one.silenceable
    assert LINTS["missing-owner"].annotation == "silence_missing_owner"


def test_policies_are_held_against_each_other_for_a_bounded_time(records: Workspace) -> None:
    """A folder of thousands is done in seconds, and may then have a shadow that is not told."""
    looked = Read.of(records.with_policies(read(shadow(ANY, BILLING))))
    first, second = looked.permits
    wider = _Wider.of(looked.permits)

    assert list(wider.than(second)) == [first]
    assert wider.left < _Wider.of(()).left
    assert list(_Wider(wider.by_principal, left=0).than(second)) == []


def test_an_offer_without_annotations_is_fine_where_no_policy_asks(records: Workspace) -> None:
    """Policies that name each tool do not depend on what a server says of them."""
    offers = tuple(replace(offered, annotated=False) for offered in records.written.offers)
    unsaid = replace(records, written=replace(records.written, offers=offers))

    assert isinstance(offers[0], Offered)
    assert told(unsaid, forbid("context has approval"), "unannotated-tool") == []
    (found,) = told(unsaid, forbid("context has approval", 'action in Action::"read-only"'), "unannotated-tool")
    assert "and 4 more have no annotations, so this takes them for destructive" in found
    (found,) = told(unsaid, forbid('action in Action::"open-world"'), "unannotated-tool")
    assert found.endswith("annotate them in the server")


def test_the_folder_of_the_example_is_found(tmp_path: Path) -> None:
    """What the other tests stand on."""
    assert opened(tmp_path, f'@id("a") permit (principal, {EXPORT}, resource);').stale == ()


@pytest.mark.parametrize(
    ("condition", "severity"),
    [
        ('context.input.format == "cvs"', Severity.ERROR),
        ('context.input.format == "cvs" || context.input.max_rows > 5', Severity.WARNING),
        ("context.input has max_row", Severity.ERROR),
        ("context.input has max_row || context.input.max_rows > 5", Severity.ERROR),
        ('action == Action::"destructive"', Severity.ERROR),
        ('action != Action::"destructive"', Severity.WARNING),
    ],
)
def test_a_forbid_that_a_mistyped_word_keeps_from_matching_is_an_error(
    condition: str, severity: Severity, records: Workspace
) -> None:
    """It protects nothing, and looks as if it did."""
    names = {"unknown-enum-value", "has-nothing", "equals-group"}
    findings = lint(records.with_policies(read(forbid(condition))))
    permit = lint(records.with_policies(read(forbid(condition).replace("forbid", "permit"))))

    assert [finding.severity for finding in findings if finding.name in names] == [severity]
    assert [finding.severity for finding in permit if finding.name in names] == [Severity.WARNING]


@pytest.mark.parametrize("method", ["containsAll", "containsAny"])
def test_value_that_no_member_of_a_set_has_is_told(method: str, records: Workspace) -> None:
    """As of one that is compared."""
    left = forbid(f'context.input.columns.{method}(["name", "nam"])')
    right = forbid(f'["name", "nam"].{method}(context.input.columns)')
    neither = forbid(f"context.input.columns.{method}(context.input.columns)")

    for asked in (left, right):
        (found,) = told(records, asked, "unknown-enum-value")
        assert found.startswith('"nam": `context.input.columns` is "record_id" or')
        assert found.endswith("never `nam`: did you mean `name`?")
    assert told(records, neither, "unknown-enum-value") == []
