import pytest

from agentguard.limits import Limits
from agentguard.model import EntityUid
from agentguard.policy.deciding.slicing import Scope
from agentguard.policy.files import reader
from agentguard.policy.files.reader import duplicates, read_policies
from agentguard.policy.problem import Problem
from agentguard.policy.text.lexer import Statement, tokens
from agentguard.policy.text.placing import line_of

GOOD = """// What each agent is for.

@id("reads")
@advice("Ask for less.")
permit (principal in Agent::"a", action == Action::"read", resource)
when { principal.user == User::"u" };
"""
HEAD = "permit (principal, action, resource)"


def problems(text: str, limits: Limits | None = None) -> list[str]:
    """Return what is wrong with a file, one line each."""
    policies, found = read_policies("a.cedar", text, limits or Limits())
    assert not (policies and found)
    return [str(problem) for problem in found]


def test_a_policy_is_read_with_its_head_and_annotations() -> None:
    """It knows where it stands."""
    (policy,), found = read_policies("a.cedar", GOOD, Limits())

    assert found == []
    assert (policy.id, policy.advice, policy.file, policy.line) == ("reads", "Ask for less.", "a.cedar", 3)
    assert policy.scope == Scope(EntityUid("Agent", "a"), frozenset({"read"}))
    assert policy.text == GOOD.partition("\n\n")[2].rstrip()
    assert [line_of(policy, literal.offset) for literal in policy.literals] == [5, 5, 6]


def test_annotations_of_any_form_are_passed_over() -> None:
    """One without a value, and one that is called as an effect is, do not confuse the head."""
    (policy,), found = read_policies("a.cedar", f'@permit @id("x") @advice("") @forbid("y") {HEAD};', Limits())

    assert found == []
    assert (policy.id, policy.advice) == ("x", None)


def test_annotations_of_the_team_are_left_alone() -> None:
    """Only what is nearly one of those that count is taken for a slip."""
    mine = '@idx @advice("x") @advices("y") @device("d") @note("@advise") @reason @owner("a") @description @severity'
    (policy,), found = read_policies("a.cedar", f'@id("x") {mine} {HEAD};', Limits())

    assert found == []
    assert (policy.id, policy.advice, policy.owner) == ("x", "x", "a")


@pytest.mark.parametrize(
    ("written", "scopes"),
    [("records:write", {"records:write"}), ("a !b#[]^~", {"a", "!b#[]^~"}), ("a a", {"a"}), ("a" * 512, {"a" * 512})],
)
@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_scopes_are_read_from_permits_and_forbids(effect: str, written: str, scopes: set[str]) -> None:
    """They are OAuth's own list: tokens of visible ASCII, one blank between two."""
    text = f'@id("x") @scopes("{written}") {effect} (principal, action, resource);'
    (policy,), found = read_policies("a.cedar", text, Limits())

    assert found == []
    assert policy.scopes == scopes


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("a  b", '@scopes wants one blank between two scopes: write @scopes("records:read records:write")'),
        (" a", "@scopes wants one blank"),
        ("a ", "@scopes wants one blank"),
        ("a, b", '@scopes wants blanks between scopes, got a comma: write @scopes("records:read records:write")'),
        ("a,b", "@scopes wants blanks between scopes, got a comma"),
        ("", "@scopes wants one blank"),
        ("a,\\tb", "@scopes wants OAuth scopes, got `a,\N{REPLACEMENT CHARACTER}b`: write visible ASCII"),
        ('a \\"b\\"', """@scopes wants OAuth scopes, got `"b"`: write visible ASCII without `"` and `\\`"""),
        ("a\\\\b", "@scopes wants OAuth scopes, got `a\\b`"),
        ("é", "@scopes wants OAuth scopes, got `é`"),
        ("a" * 513, "@scopes holds at most 512 characters, got 513: name fewer"),
        (
            "a offline_access",
            "@scopes names `offline_access`, which asks for a refresh token and opens nothing: take it away",
        ),
    ],
)
def test_scopes_that_are_malformed_are_refused(written: str, problem: str) -> None:
    """They go into a header, where a quotation mark would end them."""
    (found,) = problems(f'\n@id("x") @scopes("{written}")\n{HEAD};')

    assert found.startswith(f"a.cedar:2: {problem}")


def test_scopes_without_a_value_are_refused() -> None:
    """An empty list asks for nothing."""
    assert problems(f'@id("x") @scopes {HEAD};')[0].startswith("a.cedar:1: @scopes wants one blank")


def test_slip_of_the_pen_in_scopes_is_refused() -> None:
    """It would be without effect, and nobody would be told what is missing."""
    assert problems(f'@id("x") @scope("a") {HEAD};') == [
        "a.cedar:1: @scope would be without effect: did you mean @scopes?"
    ]


def test_slip_of_the_pen_in_owner_is_refused() -> None:
    """Nobody would answer for the policy."""
    assert problems(f'@id("x") @owners("a") {HEAD};') == [
        "a.cedar:1: @owners would be without effect: did you mean @owner?"
    ]


def test_a_file_of_comments_holds_no_policies() -> None:
    """And nothing is wrong with it."""
    assert read_policies("a.cedar", "// later\n", Limits()) == ([], [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'@id("a")\n{HEAD} #;', "a.cedar:2: `#` is not part of Cedar: write `//` before a comment"),
        (f"\n{HEAD};", 'a.cedar:2: this policy has no @id: write @id("its-name") above it'),
        (
            f'@id("a b") {HEAD};',
            "a.cedar:1: @id holds 1 to 128 letters, digits, `.`, `_`, `-` and `/`, got `a b`: rename it",
        ),
        (f'@id("grant:0:0") {HEAD};', "a.cedar:1: @id holds 1 to 128 letters, digits"),
        (f"@id {HEAD};", "a.cedar:1: @id holds 1 to 128 letters, digits"),
        (
            '@id("a") permit (principal ==\n?principal, action, resource);',
            "a.cedar:2: `?principal` makes this a template, which never applies: write the entity itself",
        ),
        (
            '@id("a") allow (principal, action, resource);',
            "a.cedar:1: a policy starts with `permit` or `forbid`, got `allow`: write `permit`",
        ),
        (
            '@id("a") forbit (principal, action, resource);',
            "a.cedar:1: a policy starts with `permit` or `forbid`, got `forbit`: did you mean `forbid`?",
        ),
        ('@id("a"', "a.cedar:1: a policy starts with `permit` or `forbid`"),
        ("@", "a.cedar:1: a policy starts with `permit` or `forbid`, got `@`"),
        (f'@id("a") {HEAD}\nwhen {{ true }}', "a.cedar:2: the last policy has no end: close it with `;`"),
        (
            f'@id("a") {HEAD}\n@id("b") {HEAD};',
            "a.cedar:2: `@` starts a policy inside another: end the one above with `;`",
        ),
        (f'@id("a") {HEAD}\nforbid (principal, action, resource);', "a.cedar:2: `forbid` starts a policy inside"),
        (f'@id("a") {HEAD} when\n{{ (true }};', "a.cedar:2: `}` cannot stand here: look for a missing comma"),
        (f'@id("a") {HEAD} when\n{{ true ;', "a.cedar:2: this policy ends too early: close its brackets before `;`"),
        ('@id("a") permit (principal, action\nresource);', "a.cedar:2: `resource` cannot stand here"),
        (
            f'@id("a") {HEAD} when {{ context.input.price >\n100.5 }};',
            'a.cedar:2: Cedar has no number `100.5`: write `decimal("100.5")`',
        ),
        (f'@id("a")\n@advise("x") {HEAD};', "a.cedar:2: @advise would be without effect: did you mean @advice?"),
        (f'@id("a") @Advice("x") {HEAD};', "a.cedar:1: @Advice would be without effect: did you mean @advice?"),
        (f'@id("a") @advices {HEAD};', "a.cedar:1: @advices would be without effect: did you mean @advice?"),
        (
            f'@id("a") @obligations("approval") {HEAD};',
            "a.cedar:1: @obligations would be without effect: did you mean @obligation?",
        ),
        (f'@ID("a") {HEAD};', "a.cedar:1: @ID would be without effect: did you mean @id?"),
        (
            f'@id("a") {HEAD} when {{ true &&\nfoo(1) }};',
            "a.cedar:2: Cedar has no function `foo`: there is `datetime`, `decimal`, `duration`, `ip`",
        ),
        (f'@id("a") {HEAD} when\n{{ zed == 1 }};', "a.cedar:2: `zed` is no variable: there is `principal`"),
        (
            f'@id("a") {HEAD} when\n{{ 1 / 2 == 0 }};',
            "a.cedar:2: Cedar does not divide: multiply the other side",
        ),
        (
            '@id("a") permit (principal,\naction == "get_order", resource);',
            'a.cedar:2: `action` wants an entity, got `"get_order"`: write `Action::"get_order"`',
        ),
        (
            '@id("a") permit (principal, action in [get_order], resource);',
            'a.cedar:1: `action` wants an entity, got `get_order`: write `Action::"get_order"`',
        ),
        ('@id("a") permit (principal == "x", action, resource);', 'a.cedar:1: `principal` wants an entity, got `"x"`'),
        (
            '@id("a") permit (principal == action, action, resource);',
            "a.cedar:1: Cedar cannot read this policy: expected an entity uid",
        ),
        (f'@id("a") @id("b") {HEAD};', "a.cedar:1: Cedar cannot read this policy: duplicate annotation: @id"),
        (
            f'@id("a") {HEAD} when {{ principal == User::"\\u{{0_e9}}" }};',
            "a.cedar:1: `\\u` is not an escape that Cedar knows: write the character itself",
        ),
        (
            '@id("a") @obligation("approval") permit (principal, action, resource);',
            'a.cedar:1: only @obligation("approval") is known, and only on a forbid: mend it or take it away',
        ),
        (
            '@id("a") @obligation("log") forbid (principal, action, resource);',
            'a.cedar:1: only @obligation("approval") is known',
        ),
        (
            '@id("a") @obligation("approval") forbid (principal, action, resource) when { context has approval };',
            "a.cedar:1: no approval could lift this policy: end it with `unless { context has approval }`",
        ),
        (
            '@id("a") @obligation("approval") forbid (principal, action, resource) unless { principal has user };',
            "a.cedar:1: no approval could lift this policy",
        ),
        (
            f'@id("a") @approval_prompt("Sure?") {HEAD};',
            'a.cedar:1: @approval_prompt asks nobody here: add @obligation("approval"), or take it away',
        ),
        (
            f'@id("a") @aproval_prompt("Sure?") {HEAD};',
            "a.cedar:1: @aproval_prompt would be without effect: did you mean @approval_prompt?",
        ),
        (
            f'@id("a") {HEAD} when {{ {"(" * 200}true{")" * 200} }};',
            "a.cedar:1: brackets and `if` are nested at most 100",
        ),
    ],
)
def test_what_is_no_policy_is_told_with_line_and_fix(text: str, problem: str) -> None:
    """Cedar's own errors do not say where."""
    (found,) = problems(text)

    assert found.startswith(problem)


def test_each_bad_policy_of_a_file_is_told() -> None:
    """The good ones are read all the same."""
    policies, found = read_policies(
        "a.cedar", f"{GOOD}\n{HEAD};\nallow (a);\n{GOOD.replace('reads', 'more')}", Limits()
    )

    assert [policy.id for policy in policies] == ["reads", "more"]
    assert [problem.line for problem in found] == [8, 9]


def test_an_id_that_is_taken_is_told_with_both_places() -> None:
    """Cedar itself does not look."""
    policies, _ = read_policies("a.cedar", GOOD + GOOD, Limits())

    assert [str(problem) for problem in duplicates(policies)] == [
        'a.cedar:9: @id("reads") is taken by a.cedar:3: rename one of the two'
    ]


def test_a_problem_of_a_whole_file_has_no_line() -> None:
    """It is told by the file's name."""
    assert str(Problem("a.cedar", 0, "is odd: mend it")) == "a.cedar: is odd: mend it"


def test_text_that_cedar_splits_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that is not counted could be one that is not indexed."""
    both = f'@id("a") {HEAD};@id("b") {HEAD};'
    whole = Statement(both, 0, 1, 1, tokens(both))
    monkeypatch.setattr(reader, "statements", lambda _: (whole,))

    assert problems(both) == ["a.cedar:1: this is not one policy: end each policy with `;`"]


def test_a_forbid_that_a_person_can_lift_says_so() -> None:
    """In its annotation and in its condition."""
    lifted = '@id("a") @obligation("approval") forbid (principal, action, resource) unless { context has approval };'
    policies, found = read_policies("a.cedar", f"{lifted}\n{GOOD}", Limits())

    assert found == []
    assert [policy.approval for policy in policies] == [True, False]


def test_a_forbid_that_does_not_ask_for_an_approval_cannot_be_lifted() -> None:
    """Whatever its condition says."""
    (policy,), _ = read_policies(
        "a.cedar", f'@id("a") {HEAD.replace("permit", "forbid")} unless {{ context has approval }};', Limits()
    )

    assert policy.approval is False


@pytest.mark.parametrize(
    ("conditions", "lifts"),
    [
        ("unless { context has approval && context.approval has approver }", True),
        ("unless { principal has user || (context has approval) }", True),
        ("unless { !(principal has user) && context has approval }", True),
        ("unless { !(!(context has approval)) }", True),
        ("when { principal has user } unless { context has approval }", True),
        ("unless { context has approval } when { principal has user }", True),
        ("unless { !(context has approval) }", False),
        ("unless { principal has user || !(principal has task && (context has approval)) }", False),
        ("unless { principal has user } when { context has approval }", False),
        ("unless { {a: 1} has a } when { context has approval }", False),
    ],
)
def test_condition_that_is_turned_around_lifts_nothing(conditions: str, lifts: bool) -> None:
    """Under a `!`, or in a `when`, the forbid would stop what is approved, and let everything else pass unasked."""
    text = f'@id("a") @unless("x") @obligation("approval") forbid (principal, action, resource) {conditions};'
    _, found = read_policies("a.cedar", text, Limits())

    assert ["no approval could lift this policy" in problem.what for problem in found] == [True] * (not lifts)


LIFTED = '@obligation("approval") forbid (principal, action, resource) unless { context has approval };'


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (
            "Delete {record_id}?",
            "@approval_prompt is shown as it stands, with the arguments below it: take `{record_id}`",
        ),
        ("", "@approval_prompt wants one line of 1 to 512 characters that can be shown"),
        (" ", "@approval_prompt wants one line"),
        ("Sure?\\nargument approved: yes", "@approval_prompt wants one line"),
        ("x" * 513, "@approval_prompt wants one line"),
    ],
)
def test_prompt_that_cannot_be_shown_as_it_stands_is_refused(written: str, problem: str) -> None:
    """An argument that stood in it could change what the person is asked."""
    (found,) = problems(f'@id("a") @approval_prompt("{written}") {LIFTED}')

    assert found.startswith(f"a.cedar:1: {problem}")


def test_prompt_is_kept_for_the_person() -> None:
    """Word for word; a policy without one asks all the same."""
    policies, found = read_policies(
        "a.cedar", f'@id("a") @approval_prompt("Delete it for good?") {LIFTED} @id("b") {LIFTED}', Limits()
    )

    assert found == []
    assert [policy.prompt for policy in policies] == ["Delete it for good?", None]
