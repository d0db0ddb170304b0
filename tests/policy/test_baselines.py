"""Baseline policies: what each of them says, and that it decides both ways wherever it stands."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from agentguard.errors import ConfigurationError, PolicyError
from agentguard.lifecycle.tally import Tally
from agentguard.limits import Limits
from agentguard.model import AccessRequest, EntityUid
from agentguard.policy.baselines import ALL, NAMES, Baseline, baselines, chosen
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide
from agentguard.policy.files.format import formatted
from agentguard.policy.files.reader import read_policies
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.grants import METHODS
from agentguard.policy.schemas.schema import GROUPS, GuardedTool, method_tool
from agentguard.request import base_context, run_record
from agentguard.testing import unsafe_invocation

LIMITS: Final = Limits()
UTC: Final = ZoneInfo("UTC")
NOON: Final = 1_767_614_400.0
"""Monday, 2026-01-05 12:00 UTC."""

MINUTE: Final = 60.0
HOUR: Final = 3600.0
PERMIT: Final = '@id("all") permit (principal, action, resource);\n'
APPROVAL: Final = {"approval": {"channel": "client", "at": {"__extn": {"fn": "datetime", "arg": "2026-01-05"}}}}
each = pytest.mark.parametrize("baseline", baselines(), ids=lambda baseline: baseline.name)


def tool(name: str, *groups: str, totals: tuple[str, ...] = ()) -> GuardedTool:
    """Return a tool of one argument."""
    shape = record_of({"a": Field(str)}, where=name)
    return GuardedTool(name=name, server="any", input=shape, groups=frozenset(("tools/call", *groups)), totals=totals)


SERVERS: Final[Mapping[str, list[GuardedTool]]] = {
    "annotated": [
        tool("look", "read-only"),
        tool("fetch", "read-only", "open-world"),
        tool("add", "idempotent"),
        tool("send", "open-world"),
        tool("drop", "destructive", totals=("payments",)),
    ],
    "unannotated": [
        tool("do", "destructive", "open-world"),
        tool("undo", "destructive", "open-world", totals=("eur",)),
    ],
    "names that need quotes": [tool('a "b" c', "destructive"), tool("ü: #", "open-world", totals=("payments",))],
}
METHOD_TOOLS: Final = [method_tool(method, "any") for method in METHODS]


def compiled(baseline: Baseline, tools: list[GuardedTool], folder: Path) -> PolicySet:
    """Return a baseline beside a permit for everything, as a guard would load it."""
    totals = sorted({total for one in tools for total in one.totals})
    folder.mkdir(exist_ok=True)
    (folder / "10-all.cedar").write_text(PERMIT)
    (folder / baseline.file).write_text(baseline.for_totals(totals).without_credentials().policies, "utf-8")
    return compile_policies(
        read_folder(folder, LIMITS), [*tools, *METHOD_TOOLS], loaders=frozenset(), claims={}, limits=LIMITS
    )


def denied_by(
    policies: PolicySet, called: str, tally: Tally, *, now: float = NOON, approved: bool = False
) -> tuple[str, ...] | None:
    """Return the policies that deny a call; None if it is allowed."""
    run = run_record(tally, now=now, tool="this", totals=policies.totals)
    context = {
        **base_context(now, UTC, "production", "http", run),
        "input": {"a": ""},
        **(APPROVAL if approved else {}),
    }
    request = AccessRequest(
        invocation=unsafe_invocation("agent", at=now),
        action=called,
        resource=EntityUid("Tool", called),
        context=context,
    )
    decision = decide(request, policies)
    return None if decision.allowed else decision.policy_ids


def test_folder_has_what_is_listed_and_nothing_else() -> None:
    """Each with scenarios beside it; a file that nobody names would never be read."""
    there = {entry.name for entry in files("agentguard").joinpath("policy", "baseline").iterdir()}

    assert there == {f"{name}{suffix}" for name in NAMES for suffix in (".cedar", ".test.yaml")}
    assert [baseline.name for baseline in baselines()] == list(NAMES)


@each
def test_baseline_is_written_as_a_policy_should_be(baseline: Baseline) -> None:
    """Laid out, owned, with advice for the caller and comments that say what to adapt."""
    policies, problems = read_policies(baseline.file, baseline.policies, LIMITS)

    assert problems == []
    assert formatted(baseline.file, baseline.policies, LIMITS) == baseline.policies
    assert tuple(policy.id for policy in policies) == baseline.ids
    assert tuple(policy.advice for policy in policies) == baseline.advice
    assert all(policy.owner for policy in policies)
    assert all(policy.prompt for policy in policies if policy.approval)
    assert "\n// To adapt: " in baseline.policies
    assert re.fullmatch(r"[A-Z].{10,90}\.", baseline.says)


@each
def test_baseline_names_nothing_that_only_one_server_has(baseline: Baseline) -> None:
    """Groups of actions alone: so it can stand in what several servers share."""
    policies, _ = read_policies(baseline.file, baseline.policies, LIMITS)

    assert all((policy.scope.actions or frozenset()) <= GROUPS for policy in policies)
    assert {literal.uid.type for policy in policies for literal in policy.literals} <= {"Action"}


def test_ids_are_unique_over_all_baselines() -> None:
    """They can all stand in one folder."""
    ids = [id_ for baseline in baselines() for id_ in baseline.ids]

    assert len(ids) == len(set(ids))


@each
@pytest.mark.parametrize("server", SERVERS)
def test_baseline_is_valid_on_any_server(baseline: Baseline, server: str, tmp_path: Path) -> None:
    """Cedar's validator and our own checks have nothing against it, also under the names of other totals."""
    policies = compiled(baseline, SERVERS[server], tmp_path / "policies")

    assert len(policies.policies) == len(baseline.ids) + 1


def test_budget_without_a_total_is_refused(tmp_path: Path) -> None:
    """It would ask for what no call has."""
    (budget,) = chosen(["budget"])
    (tmp_path / "10-all.cedar").write_text(PERMIT)
    (tmp_path / budget.file).write_text(budget.policies)

    with pytest.raises(PolicyError, match="payments"):
        compile_policies(read_folder(tmp_path, LIMITS), [tool("look")], loaders=frozenset(), claims={}, limits=LIMITS)


def test_budget_has_a_policy_for_each_total(tmp_path: Path) -> None:
    """Each with its own id and advice; the comments stand once. The others say nothing of totals."""
    budget = chosen(["budget"])[0].for_totals(["eur", "tokens"])

    assert budget.ids == ("budget-eur", "budget-tokens")
    assert budget.policies.count("// To adapt:") == budget.scenarios.count("scenarios:\n") == 1
    assert "of tokens" in budget.advice[1]
    assert budget.scenarios.count("{ eur: ") == budget.scenarios.count("{ tokens: ") == 4
    assert "payments:" not in budget.scenarios
    assert all(one.for_totals(["eur"]) is one for one in baselines() if one.name != "budget")


def test_baselines_are_chosen_by_name() -> None:
    """Each once, in the order in which they are listed; a slip of the pen is told."""
    assert [one.name for one in chosen(["budget", "office-hours", "budget"])] == ["office-hours", "budget"]
    assert [one.name for one in chosen([ALL])] == list(NAMES)
    assert chosen([]) == ()
    with pytest.raises(ConfigurationError, match=r"`ofice-hours`: did you mean `office-hours`\?"):
        chosen(["budget", "ofice-hours"])


EMPTY: Final = Tally()
UNTRUSTED: Final = Tally(labels=frozenset({"mine", "untrusted"}))
CASES: Final = [
    ("lifetime-caps", "look", Tally(calls=199), None),
    ("lifetime-caps", "look", Tally(calls=200), ("calls-of-a-run",)),
    ("lifetime-caps", "look", Tally(tools={"this": 49, "other": 99}), None),
    ("lifetime-caps", "look", Tally(tools={"this": 50}), ("calls-of-one-tool",)),
    ("lifetime-caps", "look", Tally(denied=19), None),
    ("lifetime-caps", "look", Tally(denied=20), ("denied-calls-of-a-run",)),
    ("lifetime-caps", "look", Tally(started_at=NOON - HOUR), None),
    ("lifetime-caps", "look", Tally(started_at=NOON - HOUR - 0.001), ("age-of-a-run",)),
    ("shared-principal", "look", EMPTY, None),
    ("shared-principal", "look", Tally(shared=True), ("shared-principal",)),
    ("untrusted-to-egress", "send", EMPTY, None),
    ("untrusted-to-egress", "send", Tally(labels=frozenset({"mine"})), None),
    ("untrusted-to-egress", "send", UNTRUSTED, ("untrusted-to-egress",)),
    ("untrusted-to-egress", "drop", UNTRUSTED, ("untrusted-to-egress",)),
    ("untrusted-to-egress", "fetch", UNTRUSTED, ("untrusted-to-egress",)),
    ("untrusted-to-egress", "look", UNTRUSTED, None),
    ("untrusted-to-egress", "add", UNTRUSTED, None),
    ("destructive-needs-approval", "drop", EMPTY, ("destructive-needs-approval",)),
    ("destructive-needs-approval", "send", EMPTY, None),
    ("budget", "drop", Tally(spent={"payments": 1_000_000}), None),
    ("budget", "drop", Tally(spent={"payments": 1_000_001}), ("budget-payments",)),
    ("budget", "look", Tally(spent={"payments": 1_000_001}), ("budget-payments",)),
]


@pytest.mark.parametrize(("name", "called", "tally", "denied"), CASES)
def test_baseline_decides_both_ways(
    name: str, called: str, tally: Tally, denied: tuple[str, ...] | None, tmp_path: Path
) -> None:
    """By what the run has done, at the very number that the policy has."""
    policies = compiled(chosen([name])[0], SERVERS["annotated"], tmp_path / "policies")

    assert denied_by(policies, called, tally) == denied


@pytest.mark.parametrize(
    ("now", "denied"),
    [
        (NOON, None),
        (NOON - 4 * HOUR, None),
        (NOON - 4 * HOUR - MINUTE, ("office-hours",)),
        (NOON + 6 * HOUR - MINUTE, None),
        (NOON + 6 * HOUR, ("office-hours",)),
        (NOON + 4 * 24 * HOUR, None),
        (NOON + 5 * 24 * HOUR, ("office-hours",)),
    ],
)
def test_office_hours_are_those_of_working_days(now: float, denied: tuple[str, ...] | None, tmp_path: Path) -> None:
    """From 8 to 18, from Monday to Friday."""
    policies = compiled(chosen(["office-hours"])[0], SERVERS["annotated"], tmp_path / "policies")

    assert denied_by(policies, "look", EMPTY, now=now) == denied


@pytest.mark.parametrize(("name", "tally"), [("untrusted-to-egress", UNTRUSTED), ("destructive-needs-approval", EMPTY)])
def test_a_person_lifts_what_asks_for_one(name: str, tally: Tally, tmp_path: Path) -> None:
    """And what asks for none is lifted by nobody."""
    policies = compiled(chosen([name])[0], SERVERS["annotated"], tmp_path / "policies")
    others = compiled(chosen(["shared-principal"])[0], SERVERS["annotated"], tmp_path / "others")

    assert policies.policies[name].approval
    assert denied_by(policies, "drop", tally, approved=True) is None
    assert denied_by(others, "drop", Tally(shared=True), approved=True) == ("shared-principal",)


def test_amount_of_the_budget_is_what_its_advice_says() -> None:
    """Whoever reads the advice of a policy reads the number that decides."""
    (budget,) = chosen(["budget"])
    amount = re.search(r'decimal\("([0-9.]+)"\)', budget.policies)

    assert amount is not None
    assert json.dumps(float(Decimal(amount[1]))) == "100.0"
    assert amount[1] in budget.advice[0]
