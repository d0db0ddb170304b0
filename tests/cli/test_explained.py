"""Explanations as they are drawn."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console

from agentguard.analysis.explanations.explain import explain_requests
from agentguard.analysis.explanations.onrecord import explain_record
from agentguard.analysis.workspace import Workspace
from agentguard.cli.explained import Drawing
from agentguard.cli.explained_json import explanation_json, record_json
from agentguard.model import AccessRequest, Decision, Effect, Invocation, Reason
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import NOW, reads, record, searches

EVERYTHING = '@id("all") permit (principal, action, resource);'
LIMIT = """@id("limit") forbid (principal, action == Action::"search", resource)
when { context.input.rows > 500 };"""


def run(agent: str = "a", **facts: Any) -> Invocation:
    """Return a run that began at the time of the requests."""
    return unsafe_invocation(agent, at=NOW, run_id="r", **facts)


def drawn(requests: Sequence[AccessRequest], folder: Workspace, width: int = 80) -> list[str]:
    """Return the lines of an explanation."""
    found = explain_requests(requests, folder.policies, workspace=folder)
    assert explanation_json(found, "v")["effect"] == found.verdict.effect
    return _lines(Drawing(width).explanation(found, requests[0].action, requests[0].invocation))


def told(request: AccessRequest, folder: Workspace, decision: Decision | None = None, **options: Any) -> list[str]:
    """Return the lines of a decision's record."""
    written = kept(request, decision or decide(request, folder.policies), **options)
    found = explain_record(written, folder)
    assert record_json(found, "v")["same_version"] is found.same
    return _lines(Drawing(80).record(found))


def _lines(lines: Any) -> list[str]:
    stream = StringIO()
    console = Console(file=stream, width=200)
    for line in lines:
        console.print(line, soft_wrap=True)
    return stream.getvalue().splitlines()


def test_each_resource_has_its_own_answer() -> None:
    """With what was decided about it."""
    secret = """@id("secret") forbid (principal, action == Action::"read", resource is Record)
    when { resource.sensitivity == "secret" };"""
    lines = drawn(
        [reads(run(), record("r1")), reads(run(), record("r2", sensitivity="secret"), id_="r2")],
        workspace(EVERYTHING, secret),
    )

    assert lines[0] == "DENY  read  policy, by secret"
    assert 'allow on Record::"r1": permit, by all' in lines
    assert 'deny on Record::"r2": policy, by secret' in lines


def test_a_link_that_could_not_be_asked_says_why() -> None:
    """The others are told."""
    root = run("root", grant='permit (principal, action == Action::"gone", resource);')
    lines = drawn([searches(run(ancestors=(root,)))], workspace(EVERYTHING, LIMIT))

    at = lines.index("  link 1 of 2: root")
    assert lines[at + 1].startswith("    nothing could be asked: the grant names `gone`, which is no tool here")
    assert "  link 2 of 2: a" in lines
    assert "    permit all    matched" in lines


def test_no_policy_that_is_about_an_action_is_said() -> None:
    """Then no permit can be."""
    lines = drawn([searches(run())], workspace('@id("r") permit (principal, action == Action::"read", resource);'))

    assert "    no policy is about this action" in lines


def test_a_policy_that_failed_is_marked() -> None:
    """It decided, as an objection; every condition up to the failure is told."""
    broken = """@id("broken") permit (principal, action == Action::"search", resource)
    when { context.input.text == "x" && context.input.rows + 9223372036854775807 > 0 && context.input.rows > 2 };"""
    lines = drawn([searches(run())], workspace(EVERYTHING, broken))

    at = lines.index("    permit broken  FAILED  ← decided  a.cedar:2")
    assert lines[at + 1 : at + 5] == [
        "        integer overflow while attempting to add the values",
        '        context.input.text == "x"                       "x"',
        "        context.input.rows + 9223372036854775807 > 0",
        "            1 + 9223372036854775807 > 0",
    ]
    assert lines[at + 5].startswith("    permit all")


def test_long_conditions_are_wrapped_and_long_names_cut() -> None:
    """Nothing runs out of eighty columns but a name that has no blank."""
    texts = " || ".join(f'context.input.text == "value number {number}"' for number in range(6))
    policy = f"""@id("{"x" * 60}") permit (principal, action == Action::"search", resource) when {{ {texts} }};"""
    lines = drawn([searches(run())], workspace(policy))

    assert all(len(line) <= 100 for line in lines)
    assert sum("value number" in line for line in lines) >= 4


def test_a_decision_of_a_delegated_run_is_told_as_far_as_it_is_on_record() -> None:
    """Who stood above is not."""
    lines = told(
        searches(run(ancestors=(unsafe_invocation("z", run_id="top"),)), rows=501), workspace(EVERYTHING, LIMIT)
    )

    assert "delegated by run top" in " ".join(lines)
    assert "    who delegated to this run, and with which grants, is not on record" in lines
    at = lines.index("  link 1 of 2: run top")
    assert lines[at + 2 : at + 4] == [
        "    forbid limit  matched  ← decided  a.cedar:2",
        "        context.input.rows > 500                        unknown > 500",
    ]
    assert lines[lines.index("  link 2 of 2: a") + 2 :][0] == "    permit all    matched"


def test_run_above_that_the_record_does_not_name_is_one_of_those_above() -> None:
    """It names the one that delegated to the run, and none above that."""
    top = unsafe_invocation("z", run_id="top")
    chain = (top, unsafe_invocation("y", run_id="middle", ancestors=(top,)))
    request = searches(run(ancestors=chain), rows=501)
    folder = workspace(EVERYTHING, LIMIT)

    assert "  link 1 of 3: a run above" in told(request, folder)
    found = record_json(explain_record(kept(request, decide(request, folder.policies)), folder), "v")
    assert found["link"] == 0
    links: Any = found["links"]
    assert [(link["place"], link["agent"]) for link in links] == [(0, None), (2, "a")]
    middle = replace(decide(request, folder.policies), link=1)
    assert "  link 2 of 3: run middle" in told(request, folder, middle)
    nameless = explain_record(kept(request, middle, more={"agentguard.run.parent": ""}), folder)
    assert "  link 2 of 3: a run above" in _lines(Drawing(80).record(nameless))


def test_a_decision_that_was_made_early_is_told_so() -> None:
    """And what it would hang on is named."""
    folder = workspace(EVERYTHING.replace("principal,", 'principal in Agent::"z",'), LIMIT)
    denial = Decision(effect=Effect.DENY, reason=Reason.NO_PERMIT, policy_version=folder.policies.version)
    lines = told(searches(run(), rows=501), folder, denial, early=True)

    assert "      no argument was looked at: whatever they are, every such call is denied" in lines
    assert "cannot tell without     context.input.rows" in lines
    assert "  grant  is not on record" in lines


def test_what_cannot_be_told_of_a_policy_is_shown_in_its_head_too() -> None:
    """Who delegated is not on record, so it is not known either for whom that policy is."""
    folder = workspace(LIMIT, '@id("for-z") forbid (principal in Agent::"z", action, resource);')
    denial = Decision(effect=Effect.DENY, reason=Reason.NO_PERMIT, policy_version=folder.policies.version)
    lines = told(searches(run(ancestors=(unsafe_invocation("z"),)), rows=1), folder, denial, early=True)

    at = lines.index("    forbid for-z  cannot tell")
    assert lines[at + 1].split(maxsplit=4) == ["principal", "in", 'Agent::"z"', "cannot", "tell: unknown"]


def test_a_grant_that_decided_is_told() -> None:
    """Though its text is not on record."""
    grant = 'permit (principal, action == Action::"read", resource);'
    folder = workspace(EVERYTHING)

    denied = told(searches(run(grant=grant)), folder)
    allowed = told(searches(run()), folder)

    assert "  grant  does not permit" in denied
    assert "  grant  permits" in allowed


def test_a_record_without_a_resource_or_a_version_is_told_without() -> None:
    """As of a call that nobody was known to make."""
    lines = told(
        searches(run()), workspace(EVERYTHING), Decision(effect=Effect.DENY, reason=Reason.REVOKED), early=True
    )

    assert lines[0] == "DENY  search  revoked"
    assert "under     no policies" in lines
    assert "      the run was revoked, so no policy was asked" in lines
    assert replace(searches(run())).action == "search"


def test_text_in_a_policy_does_not_steer_a_terminal() -> None:
    """Cedar takes any character in a text; a condition is shown, and so is what would be other."""
    steers = "\x1b]0;x\x07\u202e"
    folder = workspace(
        EVERYTHING,
        f"""@id("limit") forbid (principal, action == Action::"search", resource)
        when {{ context.input.text like "{steers}*" || context.input.rows > 5 }};""",
        f"""@id("other") forbid (principal, action == Action::"search", resource)
        when {{ context.input.text != "{steers}" && context.input.rows > 50 }};""",
    )
    lines = drawn([searches(run(), text="x", rows=51)], folder, width=200)

    assert not any(sign in line for sign in steers if not sign.isprintable() for line in lines)
    assert any("like" in line and "\N{REPLACEMENT CHARACTER}" in line for line in lines)
