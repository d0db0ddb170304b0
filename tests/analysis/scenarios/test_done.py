"""What a run has done before a supposed call: policies see it as the guard would tell it to them."""

import re
from pathlib import Path
from typing import Any, Final

import pytest

from agentguard import PolicyError, Reason
from agentguard.analysis.scenarios.cases import Case
from agentguard.analysis.scenarios.coverage import survivors
from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.supposed import requests_of, suppose
from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace
from agentguard.lifecycle.tally import Tally
from tests.analysis.clinic import NOW
from tests.analysis.spending import decimal, spending

ROOT: Final = Path(__file__).parent.parent.parent.parent
HEAD: Final = """\
now: 2040-01-10T10:00:00Z
identities:
  clerk: { agent: clerk }
  busy: { agent: clerk, run: { calls: 4, denied: 1, labels: read, spent: { payments: 400 } } }
  child: { agent: helper, delegated_by: boss }
  boss:
    agent: clerk
    grant: "permit (principal, action, resource);"
    run: { calls: 9, labels: [seen], spent: { payments: 490 }, started_at: 2040-01-10T09:00:00Z }
scenarios:
"""
FRESH: Final = {
    "calls": 0,
    "calls_of_this_tool": 0,
    "denied": 0,
    "labels": [],
    "shared": False,
    "started_at": {"__extn": {"fn": "datetime", "arg": "2040-01-10T10:00:00.000Z"}},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the server that pays."""
    return spending(tmp_path_factory.mktemp("inbox"))


def cases(workspace: Workspace, scenarios: str) -> tuple[Case, ...]:
    """Return the cases of a file."""
    return read_suite(workspace, "a.test.yaml", HEAD + scenarios).cases


def seen(workspace: Workspace, words: str) -> list[dict[str, Any]]:
    """Return ``context.run`` of each link of one call."""
    (case,) = cases(workspace, f"  - {{ name: n, {words}, expect: allow }}\n")
    (request,) = requests_of(workspace, case.call)
    return [dict(request.of_link(depth)["run"]) for depth in range(len(request.invocation.chain))]  # type: ignore[call-overload]


PAY: Final = "call: pay, with: { account: a, amount: 12.50 }"


def test_run_has_done_nothing_unless_somebody_says_so(workspace: Workspace) -> None:
    """What the call itself spends counts all the same."""
    spent = {"paper": decimal("0.0000"), "payments": decimal("12.5000")}

    assert seen(workspace, f"as: clerk, {PAY}") == [{**FRESH, "spent": spent}]


def test_case_says_what_the_run_has_done_over_its_identity(workspace: Workspace) -> None:
    """Key by key; calls of the tool are calls."""
    (found,) = seen(
        workspace,
        "as: busy, call: pay, with: { account: a, amount: 1, fee: 0.25 }, "
        "run: { calls_of_this_tool: 6, shared: true, spent: { paper: 3 }, started_at: 2040-01-10T09:59:00Z }",
    )

    assert found == {
        "calls": 6,
        "calls_of_this_tool": 6,
        "denied": 1,
        "labels": ["read"],
        "shared": True,
        "spent": {"paper": decimal("3.0000"), "payments": decimal("401.2500")},
        "started_at": {"__extn": {"fn": "datetime", "arg": "2040-01-10T09:59:00.000Z"}},
    }


def test_what_a_child_does_counts_above_it_and_labels_below(workspace: Workspace) -> None:
    """Each link is judged by its own run."""
    boss, child = seen(workspace, f"as: child, {PAY}, run: {{ calls: 2, labels: [own], spent: {{ payments: 5 }} }}")

    assert (boss["calls"], child["calls"]) == (9, 2)
    assert (boss["labels"], child["labels"]) == (["own", "seen"], ["own", "seen"])
    assert (boss["spent"]["payments"], child["spent"]["payments"]) == (decimal("502.5000"), decimal("17.5000"))
    assert boss["started_at"]["__extn"]["arg"] == "2040-01-10T09:00:00.000Z"
    assert child["started_at"] == FRESH["started_at"]


def test_parent_has_done_at_least_what_its_child_did(workspace: Workspace) -> None:
    """It is not said again."""
    boss, child = seen(
        workspace,
        f"as: child, {PAY}, run: {{ calls: 20, calls_of_this_tool: 3, denied: 2, spent: {{ payments: 495 }} }}",
    )

    assert (boss["calls"], boss["calls_of_this_tool"], boss["denied"]) == (20, 3, 2)
    assert boss["spent"] == child["spent"]


def test_policies_judge_by_it(workspace: Workspace) -> None:
    """With the ids that decide, and a label that tells a case from the others."""
    found = cases(
        workspace,
        """\
  - name: what it has done
    as: clerk
    call: pay
    with: { account: a, amount: 12.50 }
    run: { calls: 9 }
    cases:
      - { expect: allow, by: works }
      - { run: { calls: 10 }, expect: deny, by: cap, advice: At most 10 calls a run. }
      - { run: { spent: { payments: 487.50 } }, expect: allow }
      - { run: { spent: { payments: 487.51 } }, expect: deny, by: budget }
      - { run: { labels: untrusted }, expect: deny, by: untrusted }
      - { run: { shared: true }, expect: deny, by: one-holder }
      - { as: child, expect: deny, by: budget }
      - { with: { amount: -1 }, expect: deny, reason: invalid_argument }
""",
    )

    assert [case.expected.met_by(suppose(workspace, case.call)) for case in found] == [True] * len(found)
    assert [case.label for case in found[1:4]] == [
        "clerk, calls=10",
        "clerk, payments=487.50",
        "clerk, payments=487.51",
    ]


@pytest.mark.parametrize(("calls", "moved"), [("9", []), ("8", ["`10` became `9` in `context.run.calls >= 10`"])])
def test_limit_that_is_moved_by_one_is_noticed_at_its_edge(tmp_path: Path, calls: str, moved: list[str]) -> None:
    """Two cases, one on either side, are enough; a call further and nobody could tell."""
    workspace = spending(
        tmp_path,
        '@id("works") permit (principal, action == Action::"pay", resource);\n'
        '@id("cap") forbid (principal, action == Action::"pay", resource) when { context.run.calls >= 10 };\n',
    )
    suite = read_suite(
        workspace,
        "a.test.yaml",
        HEAD
        + f"""\
  - name: at most ten
    as: clerk
    call: pay
    with: {{ account: a, amount: 1 }}
    cases:
      - {{ run: {{ calls: {calls} }}, expect: allow }}
      - {{ run: {{ calls: 10 }}, expect: deny, by: cap }}
""",
    )

    found = [mutant.what for mutant in survivors(workspace, [suite]).survivors]

    assert [what for what in found if "context.run" in what] == moved


@pytest.mark.parametrize(
    ("action", "own", "above", "allowed"),
    [
        ("print", 64, 0, True),
        ("print", 65, 0, False),
        ("print", 60, 4, True),
        ("print", 60, 5, False),
        ("read_mail", 63, 0, True),
        ("read_mail", 64, 0, False),
    ],
)
def test_run_carries_no_more_labels_than_a_run_may(
    workspace: Workspace, action: str, own: int, above: int, *, allowed: bool
) -> None:
    """What the tool adds counts too, and in a run what those below it carry: the guard denies what it cannot count."""
    leaf, root = (
        Tally(labels=frozenset(f"{name}{n}" for n in range(most))) for name, most in (("a", own), ("b", above))
    )
    who = Identity(agent="clerk", run=leaf, ancestors=(Identity(agent="clerk", run=root),))
    given: dict[str, Any] = {"print": {"pages": 1}, "read_mail": {"count": 1}}[action]
    verdict = suppose(workspace, SupposedCall(identity=who, action=action, input=given, now=NOW))

    assert verdict.allowed is allowed
    assert allowed or (verdict.reason, verdict.errors) == (
        Reason.INVALID_ARGUMENT,
        ("a run carries at most 64 labels",),
    )


MISTAKES: Final = [
    ("run: 3", "3", "`run` wants a mapping, got `3`: write `key: value`"),
    ("run: { labls: [a] }", "labls", "`run` has no key `labls`: did you mean `labels`?"),
    ("run: { calls: -1 }", "-1", "`calls` counts from 0 on, got -1: write 0 or more"),
    ("run: { calls: many }", "many", "`calls` wants"),
    (
        "run: { calls: 2, calls_of_this_tool: 3 }",
        "2",
        "3 calls of the tool are more than 2 of any: make `calls` at least 3",
    ),
    ("run: { spent: { payment: 3 } }", "payment", "no tool adds to a total `payment`: did you mean `payments`?"),
    ("run: { spent: { payments: -3 } }", "-3", "what was spent of `payments` is not negative: write 0.00 or more"),
    ("run: { labels: ['', a] }", "''", "a label wants 1 to 256 characters, got 0: shorten it"),
    (
        "run: { labels: 'mail, untrusted' }",
        "'mail, untrusted'",
        "no run carries the label `mail, untrusted`: write 1 to 64 of `A-Za-z0-9_.:/-`, and several as `[one, two]`",
    ),
    (
        "run: { started_at: 2040-01-10T10:00:01Z }",
        "{ started_at",
        "the run's first call comes after this one: mend `started_at`",
    ),
]


@pytest.mark.parametrize(("words", "at", "what"), MISTAKES)
def test_mistake_is_told_with_its_place_and_the_fix(workspace: Workspace, words: str, at: str, what: str) -> None:
    """As everywhere in such a file."""
    line = f"  - {{ name: n, as: clerk, {PAY}, {words}, expect: allow }}\n"
    with pytest.raises(PolicyError) as refused:
        cases(workspace, line)

    (found,) = refused.value.found
    assert found.what.startswith(what)
    assert line[found.column - 1 :].startswith(at)


def test_server_without_totals_says_how_to_have_one(tmp_path: Path) -> None:
    """Nothing is to be named there."""
    workspace = spending(tmp_path)
    workspace.policies.totals = ()

    with pytest.raises(PolicyError, match="no tool adds to a total `a`: declare one, with `Spend` or spends="):
        cases(workspace, f"  - {{ name: n, as: clerk, {PAY}, run: {{ spent: {{ a: 1 }} }}, expect: allow }}\n")


def test_example_of_the_page_is_as_it_says(workspace: Workspace) -> None:
    """What is spent by the call itself is added, and not said again."""
    page = (ROOT / "docs" / "pages" / "reference" / "scenarios.md").read_text("utf-8")
    (block,) = re.findall(r"\n## What the run has done\n.*?```yaml\nscenarios:\n(.*?)```", page, re.DOTALL)
    found = cases(workspace, block)

    assert len(found) == 3
    assert [case.expected.met_by(suppose(workspace, case.call)) for case in found] == [True] * 3


@pytest.mark.parametrize("moment", ["09:59:59.999", "09:59:59.001", "10:00:00.000", "09:00:00.573", "09:00:00.294"])
def test_moment_is_the_one_that_is_said(workspace: Workspace, moment: str) -> None:
    """To the millisecond, though no float holds one exactly: a limit on time may turn on it."""
    said = f"2040-01-10T{moment}Z"
    (found,) = seen(workspace, f"as: clerk, {PAY}, run: {{ started_at: '{said}' }}")
    (case,) = cases(workspace, f"  - {{ name: n, as: clerk, {PAY}, now: '{said}', expect: allow }}\n")
    (request,) = requests_of(workspace, case.call)

    assert found["started_at"] == request.context["now"] == {"__extn": {"fn": "datetime", "arg": said}}


def test_credential_is_for_a_tool_that_there_is(workspace: Workspace) -> None:
    """A case about one that nobody serves would say nothing of any call."""
    wanted = "call: credentials/issue, with: { credential: crm, tool: raed_mail }"
    with pytest.raises(PolicyError, match="no tool is called `raed_mail`: did you mean `read_mail`"):
        cases(workspace, f"  - {{ name: n, as: clerk, {wanted}, expect: deny }}\n")


def test_credentials_that_tools_got_are_no_calls(workspace: Workspace) -> None:
    """One call may want several, and counts once."""
    words = "as: busy, call: credentials/issue, with: { credential: crm, tool: pay }, run: { calls_of_this_tool: 9 "
    (own,) = seen(workspace, words + "}")
    (said,) = seen(workspace, words + ", calls: 1 }")

    assert (own["calls"], own["calls_of_this_tool"]) == (4, 9)
    assert (said["calls"], said["calls_of_this_tool"]) == (1, 9)
