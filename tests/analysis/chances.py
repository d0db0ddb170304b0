"""Conditions, policies and calls by chance, close to each other, so that many contradict."""

import random
from collections.abc import Sequence
from typing import Final

from agentguard.analysis.lints.lint import Read
from agentguard.analysis.lints.run import lint
from agentguard.analysis.workspace import Workspace
from agentguard.model import AccessRequest, Grade
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.trial import matching
from agentguard.policy.text.arithmetic import MOST
from tests.analysis.folders import read, requests

HEAD: Final = 'permit (principal, action == Action::"export_records", resource)'
# Pairs that stand close to each other, so that many conditions contradict.
ATOMS: Final = (
    "context.input.max_rows > 5", "context.input.max_rows < 7", "context.input.max_rows == 6",
    "6 != context.input.max_rows", "5 >= context.input.max_rows", "context.input.max_rows <= 4 + 1",
    "context.input.max_rows * 2 > 9", "context.input.max_rows == context.facts.identifying_columns",
    "context.facts.identifying_columns > context.input.max_rows", "-context.input.max_rows < -6",
    'context.input.format == "csv"', '"json" != context.input.format', 'context.input.format like "c*v"',
    'context.input.format like "csv"', '["csv", "json"].contains(context.input.format)',
    '["csv"].contains(context.input.format)', 'context.input.columns.contains("name")', "context.input has filters",
    'context.input has filters.sensitivity && context.input.filters.sensitivity == "normal"',
    ("(context.input has filters && context.input.filters has owes_at_least && "
    'context.input.filters.owes_at_least.lessThan(decimal("1.50")))'),
    ("(context.input has filters && context.input.filters has owes_at_least && "
    'context.input.filters.owes_at_least.greaterThanOrEqual(decimal("1.5")))'),
    'principal.grade == "run"', 'principal.grade != "token"', '["run", "token"].contains(principal.grade)',
    'principal in Agent::"billing-agent"', 'principal.agent == Agent::"billing-agent"', 'principal in User::"alice"',
    'principal.agent in Group::"suspended"', "principal is Invocation", 'principal is Invocation in Task::"t"',
    "resource is Record", 'resource == Tool::"export_records"', 'resource in Server::"records"',
    'action == Action::"export_records"', 'action in [Action::"read-only", Action::"open-world"]',
    "context.local.minute >= 0", "context.local.weekday == 8", "principal.delegation_depth < 1",
    "resource == principal",
    'context.now < datetime("2026-11-24T11:00:00+0100")', 'context.now >= datetime("2026-11-24T10:00:00Z")',
    'principal.lifetime > duration("15m")', 'principal.lifetime <= duration("900s")', "context has approval", "true",
    'principal has user && principal.user == User::"alice"', 'principal has user && principal.user != User::"bob"',
    'principal has purpose && principal.purpose like "month*"', '(principal.grade == "run") == true', "1 == 2",
    "(if context.input.max_rows > 5 then context.input has filters else principal has user)",
)  # fmt: skip


def condition(chance: random.Random, size: int) -> str:
    """Return a random condition."""
    if size == 0:
        return f"({chance.choice(ATOMS)})"
    left, right = condition(chance, chance.randrange(size)), condition(chance, chance.randrange(size))
    return chance.choice(
        [f"({left} && {right})", f"({left} && {right})", f"({left} || {right})", f"!{left}",
         f"(if {left} then {right} else {chance.choice(ATOMS)})"]
    )  # fmt: skip


def policy(chance: random.Random, id_: int, effect: str = "permit") -> str:
    """Return a random policy."""
    principal = chance.choice(["principal", "principal", 'principal in Agent::"billing-agent"'])
    action = chance.choice(['action == Action::"export_records"', 'action in Action::"open-world"'])
    clauses = "".join(
        f" {chance.choice(['when', 'when', 'unless'])} {{ {condition(chance, chance.randrange(3))} }}"
        for _ in range(chance.randrange(4))
    )
    return f'@id("p{id_}") {effect} ({principal}, {action}, resource){clauses};'


def many_calls(workspace: Workspace) -> Sequence[AccessRequest]:
    """Return many calls, close to what the atoms ask for."""
    chance = random.Random(7)  # noqa: S311  a test's dice
    found: list[AccessRequest] = []
    for place in range(40):
        sensitivity, owes = chance.choice(["normal", "restricted"]), chance.choice(["1.4999", "1.5000", "2.0000"])
        filters = {"sensitivity": sensitivity, "owes_at_least": {"__extn": {"fn": "decimal", "arg": owes}}}
        given = {
            "max_rows": chance.choice([4, 5, 6, 6, 7, 2, MOST]),
            "format": chance.choice(["csv", "json"]),
            "columns": chance.choice([["name"], ["born"]]),
            "facts": {"identifying_columns": chance.choice([1, 6])},
            **chance.choice([{}, {"filters": filters}, {"filters": filters}]),
        }
        found += requests(
            workspace,
            "export_records",
            given,
            agent=chance.choice(["billing-agent", "support-agent", "intake-agent"]),
            user=chance.choice([None, "alice", "bob"]),
            purpose=chance.choice([None, "monthly close"]),
            grade=chance.choice(list(Grade)),
            lifetime=chance.choice([900, 901]),
            task=chance.choice([None, "t"]) if place else "t",
        )
    return found


def unmatched(seed: int, workspace: Workspace, calls: Sequence[AccessRequest], size: int = 40) -> tuple[int, int]:
    """Hold what is proved never to match against Cedar; return how many matched nothing, and how many were proved."""
    chance = random.Random(seed)  # noqa: S311  the same
    tried = workspace.with_policies(read("\n".join(policy(chance, place) for place in range(size))))
    answers = [matching(call, tried.policies)[0] for call in calls]
    matched = {id_ for answer in answers for id_, holds in answer.items() if holds}
    never = {reading.policy.id for reading in Read.of(tried).readings if not reading.ways}

    assert never.isdisjoint(matched), (seed, never & matched)
    return size - len(matched), len(never)


def left_out(seed: int, workspace: Workspace, calls: Sequence[AccessRequest]) -> int:
    """Leave out each permit that is said to add nothing, and hold what is decided against what was; return how many."""
    chance = random.Random(seed)  # noqa: S311  the same
    effects = ["permit"] * 7 + ["forbid"]
    policies = read("\n".join(policy(chance, place, effect) for place, effect in enumerate(effects)))
    tried = workspace.with_policies(policies)
    names = {"shadowed-permit", "overruled-permit"}
    found = {finding.policy for finding in lint(tried) if finding.name in names}
    for id_ in found:
        without = workspace.with_policies([policy for policy in policies if policy.id != id_])
        for call in calls:
            before, after = decide(call, tried.policies), decide(call, without.policies)
            assert (before.effect, before.reason) == (after.effect, after.reason), (seed, id_)
    return len(found)
