"""What a new policy folder begins with: policies that fit the server, and scenarios that pass.

Texts alone; `agentguard init` writes them. Everything in them is somebody's to change, so they
say what they do and why, and name one agent that stands for the first real one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.analysis.scenarios.samples import SampleCall, flow, sample_call, sample_entities
from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.scenarios.suites import run
from agentguard.errors import PolicyError
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, quoted, record_of
from agentguard.policy.files.folder import ENTITIES
from agentguard.policy.files.format import formatted
from agentguard.policy.schemas.offered import Offered, WrittenSchema
from agentguard.policy.schemas.schema import CREDENTIALS, GuardedTool, OwnType, credentials_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.analysis.workspace import Workspace

_LIMITS: Final = Limits()

PERMITS: Final = "10-permits.cedar"
GUARDRAILS: Final = "20-guardrails.cedar"
OBSERVED: Final = "10-observe.cedar"
SCENARIOS: Final = "scenarios/first.test.yaml"
APPROVAL: Final = "destructive-needs-approval"
"""The id of the policy that has a person asked; a baseline has it too."""
NEXT: Final = "next"
"""Where policies stand that are not in force yet."""

_ID: Final = re.compile(r"[A-Za-z0-9._/-]{1,128}")
# More than that, and nobody would read the list.
_LISTED: Final = 60

_OBSERVE: Final = """\
// Everything is permitted while you look, and each decision is kept. What the policies in next/
// would decide stands beside it in the evidence, and stops nothing.
//
// When next/ says what you mean, move its files here, and take this one away.
@id("observe-everything")
@owner("security@example.com")
@silence_unconditional_destructive("nothing is stopped while next/ is tried, and this goes when that comes")
permit (principal, action, resource);
"""

_READS: Final = """\
// What each agent is for. What no policy permits is denied.
//
// An agent is called as its token calls it. Every policy has an @id, by which decisions and the
// evidence name it, and an @owner, who answers for it.
//
// {why}
@id("reads")
@owner("security@example.com")
{silence}permit (
  principal in Agent::"example-agent",
  action in {group},
  resource
);
"""

_CHANGES: Final = """\

// What may change something is done for a user, and by the tools that are named here{later}
@id("changes-for-a-user")
@owner("security@example.com")
permit (
  principal in Agent::"example-agent",
  action{actions},
  resource
)
when {{ principal has user }};
"""

_CREDENTIALS: Final = """\

// A tool that reaches another system gets a credential for it by this, short-lived and for this
// run alone. To give it to some tools only, add `when { context.input.tool == "…" }`.
"""

_ISSUES: Final = """\
@id({id})
@owner("security@example.com")
permit (
  principal in Agent::"example-agent",
  action == Action::"credentials/issue",
  resource == Credential::{credential}
);
"""

_SILENCE: Final = '@silence_unannotated_tool("{}")\n'
_READS_SAID: Final = _SILENCE.format("a tool is read with once the server says that it only reads")
_ASKS_UNSAID: Final = _SILENCE.format("a person is asked about tools of which the server does not say what they do")

_STOPS: Final = """\
// What no agent may do, whoever asked: one forbid outweighs every permit.
//
// Arguments stand in `context.input`, with the types that agentguard.cedarschema gives them:
//
//   forbid (principal, action == Action::"export_records", resource)
//   when { context.input.max_rows > 500 };
//
// An agent is stopped by being put into this group, in cedarentities.json. All agents that may
// call stand there: as soon as one is listed, a call of another one is denied.
@id("suspended-agents-stop")
@owner("security@example.com")
forbid (
  principal in Group::"suspended",
  action,
  resource
);
"""

_ASKS: Final = """\

// A person is asked about exactly this call, and a yes holds once. A tool counts as destructive
// unless the server says otherwise of it.
@id("destructive-needs-approval")
@owner("security@example.com")
@obligation("approval")
@advice("A person has to approve this call.")
{silence}forbid (principal, action in Action::"destructive", resource)
unless {{ context has approval }};
"""

_IDENTITIES: Final = """\
# Which calls are allowed and which are not: `agentguard test` judges each as the server would.
# Values take their type from agentguard.cedarschema; `by` names the policies that decide.

identities:
  example: { agent: example-agent, task: first-task }
  for-alice: { agent: example-agent, user: alice, task: first-task }
  other: { agent: other-agent, user: alice, task: first-task }
  suspended: { agent: suspended-agent, user: alice, task: first-task }
"""


# Who that is, as loaders are asked about it.
_AGENTS: Final = ("example-agent", "other-agent", "suspended-agent")
_STOPPED: Final = "Agent::suspended-agent"
_WHO: Final = (*(("Agent", name) for name in _AGENTS), ("User", "alice"), ("Task", "first-task"))


def stand_in() -> WrittenSchema:
    """Return a server of three tools, for a folder whose own server is not known yet."""
    return WrittenSchema(
        server="example",
        offers=tuple(
            Offered(
                tool=GuardedTool(
                    name=name,
                    server="example",
                    input=record_of({argument: Field(str)}, where=name),
                    groups=frozenset(("tools/call", *groups)),
                )
            )
            for name, argument, *groups in (
                ("read_note", "note_id", "read-only"),
                ("add_note", "text"),
                ("delete_note", "note_id", "destructive"),
            )
        ),
    )


@dataclass(frozen=True, slots=True)
class Kinds:
    """The tools of a server by what they may do."""

    reads: tuple[Offered, ...]
    changes: tuple[Offered, ...]
    destructive: tuple[Offered, ...]

    @classmethod
    def of(cls, written: WrittenSchema) -> Kinds:
        """Sort the tools of a server."""
        tools = [offered for offered in written.offers if offered.tool.kind is OwnType.TOOL]
        reads = [offered for offered in tools if "read-only" in offered.tool.groups]
        destructive = [offered for offered in tools if "destructive" in offered.tool.groups]
        changes = [offered for offered in tools if offered not in reads and offered not in destructive]
        return cls(tuple(reads), tuple(changes), tuple(destructive))

    @property
    def writing(self) -> tuple[Offered, ...]:
        """Those that may change something."""
        return (*self.changes, *self.destructive)


def policy_files(written: WrittenSchema, *, asks: bool = True) -> dict[str, str]:
    """Return the policies and entities that a folder for this server begins with, by name.

    Args:
        written: What the server offers.
        asks: Whether they have a person asked; else another file does.
    """
    kinds = Kinds.of(written)
    group, why = ("read-only", "Reading is free for this agent; others get nothing until a permit names them.")
    if not kinds.reads:
        group = "resources/read"
        why = "No tool says of itself that it only reads, so this is for resources; name tools as below."
    unsaid = not all(offered.annotated for offered in kinds.writing)
    silence = _READS_SAID if unsaid and kinds.reads else ""
    permits = _READS.format(why=why, group=f'Action::"{group}"', silence=silence)
    if kinds.writing:
        permits += _changes(kinds.writing)
    if lent := _credentials(written):
        permits += _CREDENTIALS
        permits += "\n".join(_ISSUES.format(id=quoted(id_), credential=quoted(name)) for name, id_ in lent.items())
    asked = _ASKS.format(silence=_ASKS_UNSAID if unsaid else "") if kinds.destructive and asks else ""
    rules = {PERMITS: permits, GUARDRAILS: _STOPS + asked}
    return {**{name: formatted(name, text, _LIMITS) for name, text in rules.items()}, ENTITIES: _entities(written)}


def _credentials(written: WrittenSchema) -> dict[str, str]:
    """Return the credentials that the server's broker gives, each with the id of the permit that names it."""
    names = next((credentials_of(one.tool) for one in written.offers if one.tool.name == CREDENTIALS), ())
    # Not every name can be part of an id.
    return {
        name: id_ if _ID.fullmatch(id_ := f"credential-{name}") else f"credential/{number}"
        for number, name in enumerate(names, 1)
    }


def observing_files() -> dict[str, str]:
    """Return the policies that permit everything, by name."""
    return {OBSERVED: _OBSERVE}


def _changes(writing: Sequence[Offered]) -> str:
    """Return the permit for tools that may change something."""
    names = [quoted(offered.tool.name) for offered in writing]
    later = ": one that\n// the server gets later is not among them."
    actions = " in [\n" + ",\n".join(f"    Action::{name}" for name in names) + "\n  ]"
    if len(names) > _LISTED:
        later, actions = (
            ". These\n// are too many for a list: write several policies, each for the tools of one purpose.",
            ' in Action::"tools/call"',
        )
    elif len(names) == 1:
        actions = f" == Action::{names[0]}"
    return _CHANGES.format(later=later, actions=actions)


def _entities(written: WrittenSchema) -> str:
    listed = [_entity("Group", "suspended")]
    if "Agent" not in written.loaders:
        listed += [_entity("Agent", name, *["suspended"] * (name == "suspended-agent")) for name in _AGENTS]
    return "[\n" + ",\n".join(f"  {json.dumps(entity)}" for entity in listed) + "\n]\n"


def _entity(type_: str, id_: str, *groups: str) -> dict[str, object]:
    parents = [{"type": "Group", "id": group} for group in groups]
    return {"uid": {"type": type_, "id": id_}, "attrs": {}, "parents": parents}


class _Row(NamedTuple):
    """One case of the first scenarios: who makes which call, and what comes of it."""

    scenario: str
    call: SampleCall
    who: str
    expected: str
    approved: bool = False

    @property
    def text(self) -> str:
        parts = [f"call: {flow(self.call.action)}", f"as: {self.who}"]
        parts += [f"with: {flow(dict(self.call.input))}"] * bool(self.call.input)
        parts += [f"facts: {flow(dict(self.call.facts or {}))}"] * bool(self.call.facts)
        parts += ["approved: { channel: client }"] * self.approved
        return f"      - {{ {', '.join(parts)}, {self.expected} }}"


_ALLOWED: Final = "expect: allow, by: [{}]"
_NOT_PERMITTED: Final = "expect: deny, reason: no_permit"


def scenarios_of(workspace: Workspace) -> str:
    """Return the file of scenarios for what `policy_files` gave: each of its cases passes.

    What cannot be called with sample values has no case; it is empty if nothing can.
    """
    observed = OBSERVED in dict(workspace.source.files)
    rows = [*(_observed(workspace) if observed else _guarded(workspace))]
    if not _pass(rows, workspace):
        rows = [row for row in rows if _pass([row], workspace)]
    return _file(rows, workspace) if rows else ""


def _observed(workspace: Workspace) -> Iterator[_Row]:
    for offered in workspace.written.offers[:1]:
        call = sample_call(offered, workspace)
        yield _Row("nothing is stopped yet", call, "other", _ALLOWED.format("observe-everything"))


def _guarded(workspace: Workspace) -> Iterator[_Row]:
    kinds = Kinds.of(workspace.written)
    by_name = {offered.tool.name: offered for offered in workspace.written.offers}
    reading = kinds.reads or tuple(filter(None, (by_name.get("resources/read"),)))
    for offered in reading[:1]:
        call, scenario = sample_call(offered, workspace), "the agent reads, and nobody else does"
        yield _Row(scenario, call, "example", _ALLOWED.format("reads"))
        yield _Row(scenario, call, "for-alice", _ALLOWED.format("reads"))
        yield _Row(scenario, call, "other", _NOT_PERMITTED)
        yield _Row(scenario, call, "suspended", "expect: deny, by: [suspended-agents-stop]")
    for offered in kinds.writing:
        call, scenario = sample_call(offered, workspace), "what may change something is done for a user"
        approved = offered in kinds.destructive
        yield _Row(scenario, call, "for-alice", _ALLOWED.format("changes-for-a-user"), approved)
        if offered is kinds.writing[0]:
            yield _Row(scenario, call, "example", _NOT_PERMITTED)
            yield _Row(scenario, call, "other", _NOT_PERMITTED)
    for offered in kinds.destructive[:1]:
        call, scenario = sample_call(offered, workspace), "a person approves what cannot be undone"
        expected = "expect: deny, reason: approval_required, by: [destructive-needs-approval]"
        yield _Row(scenario, call, "for-alice", expected)
    for name, id_ in _credentials(workspace.written).items():
        sample, scenario = sample_call(by_name[CREDENTIALS], workspace), "tools get credentials for this agent alone"
        call = replace(sample, input={**sample.input, "credential": name})
        yield _Row(scenario, call, "example", _ALLOWED.format(id_))
        yield _Row(scenario, call, "other", _NOT_PERMITTED)
    if "prompts/get" in by_name:
        call = sample_call(by_name["prompts/get"], workspace)
        yield _Row("what no policy is about is denied", call, "for-alice", _NOT_PERMITTED)


def _pass(rows: Sequence[_Row], workspace: Workspace) -> bool:
    try:
        suite = read_suite(workspace, SCENARIOS, _file(rows, workspace))
    except PolicyError:
        return False
    return all(result.passed for result in run(workspace, suite))


def _file(rows: Sequence[_Row], workspace: Workspace) -> str:
    entities = sample_entities(_WHO, workspace)
    if isinstance(stopped := entities.get(_STOPPED), dict):
        entities[_STOPPED] = {**stopped, "in": "Group::suspended"}
    entities |= {name: value for row in rows for name, value in row.call.entities.items()}
    lines = [_IDENTITIES]
    if entities:
        lines += ["# What the server's loaders would say of who calls, and of what is acted on.", "entities:"]
        lines += [f"  {name}: {flow(value)}" for name, value in entities.items()] + [""]
    lines.append("scenarios:")
    for name in dict.fromkeys(row.scenario for row in rows):
        lines += [f"  - name: {name}", "    cases:", *(row.text for row in rows if row.scenario == name), ""]
    return "\n".join(lines).rstrip("\n") + "\n"
