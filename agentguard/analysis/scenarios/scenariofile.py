"""Read a file of scenarios, ``*.test.yaml``: which calls are supposed, and what is expected of them.

Each value has the type that the Cedar schema says, and each mistake its place. Whatever is
not understood is refused: a scenario that asks for something else than it says would
prove nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from agentguard.analysis.scenarios.casecall import Setting, approval_of, facts_of, input_of, label_of
from agentguard.analysis.scenarios.cases import Case, Expectation, Explained, Suite
from agentguard.analysis.scenarios.done import done_by
from agentguard.analysis.scenarios.fields import Fields, id_of, list_of, record_of, text_of
from agentguard.analysis.scenarios.parties import Identities, entity_of
from agentguard.analysis.scenarios.yamltext import MistakeError, Record, Text, mistake, read_yaml, shown
from agentguard.analysis.supposed import offered_as, ordered
from agentguard.analysis.supposedcall import SupposedCall
from agentguard.errors import ConfigurationError
from agentguard.model import Effect, EntityUid, Reason, printable
from agentguard.policy.problem import Problem, did_you_mean, refused
from agentguard.policy.schemas.schema import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentguard.analysis.scenarios.yamltext import Node
    from agentguard.analysis.supposedcall import Identity
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.files.written import Offered
    from agentguard.policy.schemas.types import CedarType

NAME: Final = "invalid-scenario"
"""What a mistake in such a file is called."""

FILE: Final = ("now", "environment", "transport", "time_zone", "identities", "entities", "scenarios", "survivors")
"""The keys of a file."""

EXPECTED: Final = ("expect", "by", "reason", "advice")
CASE: Final = (
    "name",
    "as",
    "call",
    "with",
    "facts",
    "entities",
    "run",
    "approved",
    "now",
    "environment",
    "transport",
    *EXPECTED,
)
"""The keys of a case, and of a scenario for all of its cases."""

SCENARIO: Final = (*CASE, "cases")
"""The keys of a scenario."""

EXPLAINED: Final = ("policy", "mutant", "because")
# What a supposed call can be denied for; the other reasons are those of a real one alone.
_REASONS: Final = {
    Effect.ALLOW: (Reason.PERMIT,),
    Effect.DENY: (
        Reason.POLICY,
        Reason.NO_PERMIT,
        Reason.GRANT,
        Reason.POLICY_ERROR,
        Reason.INVALID_ARGUMENT,
        Reason.MISSING_ENTITY,
        Reason.APPROVAL_REQUIRED,
        Reason.APPROVAL_UNAVAILABLE,
    ),
}
_GRANT: Final = re.compile(r"grant:[0-9]")

Entities: TypeAlias = "Mapping[EntityUid, Mapping[str, object]]"


def read_suite(workspace: Workspace, file: str, text: str) -> Suite:
    """Return the cases of a file.

    Args:
        workspace: The policies that they are about, and the types of all values.
        file: The file's name, relative to the policy folder.
        text: What it holds.

    Raises:
        PolicyError: Something is wrong; each mistake is told, with its place.
    """
    reader = _Reader(workspace, file)
    suite = Suite(file=file, text=text, cases=())
    try:
        fields = Fields(read_yaml(text), FILE, "a file of scenarios")
        suite = replace(suite, cases=reader.cases(fields), survivors=reader.survivors(fields))
    except MistakeError as error:
        reader.keep(error)
    if reader.problems:
        raise refused(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return suite


class _Reader:
    """What is read of one file, and what was found to be wrong with it."""

    def __init__(self, workspace: Workspace, file: str) -> None:
        self._workspace = workspace
        self._file = file
        self._identities = Identities({}, workspace)
        self._wrong: set[str] = set()
        self.problems: list[Problem] = []

    def keep(self, error: MistakeError) -> None:
        """Keep a mistake."""
        place = error.place
        self.problems.append(
            Problem(self._file, place.line, error.what, column=place.column, length=place.length, name=NAME)
        )

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Go on after a mistake: whoever mends it wants to know of the others too."""
        try:
            yield
        except MistakeError as error:
            self.keep(error)

    def cases(self, fields: Fields) -> tuple[Case, ...]:
        """Return all cases of the file, as far as it can be read."""
        setting = Setting().over(fields)
        self._read_identities(fields)
        entities = self._entities(fields)
        listed = list_of(fields.needed("scenarios", "[{ name: …, call: …, cases: […] }]"), "`scenarios`")
        if not listed.items:
            mistake("no scenario is here, so nothing would be tested: write one", listed.place)
        cases: list[Case] = []
        for node in listed.items:
            with self._going_on():
                cases += self._scenario(node, setting, entities)
        return tuple(cases)

    def survivors(self, fields: Fields) -> tuple[Explained, ...]:
        """Return the mutants that the file explains."""
        found: list[Explained] = []
        for node in list_of(fields.members["survivors"], "`survivors`").items if "survivors" in fields.members else ():
            with self._going_on():
                found.append(_explained(Fields(node, EXPLAINED, "an explanation")))
        return tuple(found)

    def _read_identities(self, fields: Fields) -> None:
        nodes = fields.record("identities").members
        self._identities = Identities(nodes, self._workspace)
        for name, node in nodes.items():
            self._wrong.add(name)
            with self._going_on():
                self._identities.read(node)
                self._wrong.remove(name)

    def _entities(self, fields: Fields) -> Entities:
        """Return the entities of a file, a scenario or a case."""
        found: dict[EntityUid, Mapping[str, object]] = {}
        if "entities" in fields.members:
            record = record_of(fields.members["entities"], "`entities`")
            for name, node in record.members.items():
                with self._going_on():
                    uid, entity = entity_of(name, node, record.keys[name], self._workspace)
                    if uid in found:
                        mistake(f"`{uid}` is described twice: keep one", record.keys[name])
                    found[uid] = entity
        return found

    def _scenario(self, node: Node, setting: Setting, entities: Entities) -> list[Case]:
        fields = Fields(node, SCENARIO, "a scenario")
        name = id_of(fields.needed("name", "what it shows"), "`name`")
        entities = {**entities, **self._entities(fields)}
        setting = setting.over(fields)
        if "cases" not in fields.members:
            # It is its own one case, which its tool does not tell from others.
            tool = {key: node for key, node in fields.members.items() if key == "call"}
            shared = Fields(Record(tool, {}, fields.place), CASE, "a scenario")
            own = {key: node for key, node in fields.members.items() if key not in {"name", "entities", "call"}}
            rows = [Fields(Record(own, {}, fields.place), CASE, "a scenario")]
        else:
            shared = fields
            listed = list_of(fields.members["cases"], "`cases`")
            if not listed.items:
                mistake("no case is here, so nothing would be tested: write one, or remove `cases`", listed.place)
            rows = []
            for item in listed.items:
                with self._going_on():
                    rows.append(Fields(item, CASE, "a case"))
        cases: list[Case] = []
        for row in rows:
            with self._going_on():
                cases += self._case(name, shared, row, setting.over(row), {**entities, **self._entities(row)})
        return _told_apart(cases)

    def _case(self, scenario: str, shared: Fields, row: Fields, setting: Setting, entities: Entities) -> list[Case]:
        """Return a row's case; none if it is a mistake elsewhere that keeps it from being read."""
        fields = _merged(shared, row)
        who = fields.needed("as", "one of the identities")
        if isinstance(who, Text) and who.text in self._wrong:
            return []
        identity = self._identities.called(who) if isinstance(who, Text) else self._identities.read(who)
        identity = self._with_done(identity, fields, setting)
        offered = self._offered(fields.needed("call", "one of the tools"), "`call`")
        context = cast("CedarType", self._workspace.types.actions[offered.tool.name].context).members
        call = SupposedCall(
            identity=identity,
            action=offered.tool.name,
            input=input_of(fields, offered, context),
            facts=facts_of(fields, offered, context),
            entities=tuple(entities.values()),
            approval=approval_of(fields, setting, self._workspace.limits),
            now=setting.now,
            environment=setting.environment,
            transport=setting.transport,
            time_zone=setting.time_zone,
        )
        if offered.tool.name == CREDENTIALS:
            # Nobody else wants one.
            self._offered(fields.record("with").members["tool"], "`tool`")
        called = who.text if isinstance(who, Text) else identity.agent
        case = Case(
            file=self._file,
            line=row.place.line,
            column=row.place.column,
            scenario=printable(scenario),
            label=label_of(row, called),
            identity=called,
            call=call,
            expected=self._expectation(fields),
        )
        return [case]

    def _with_done(self, identity: Identity, fields: Fields, setting: Setting) -> Identity:
        """Return who calls with what the case says of the run, which comes over what the identity says."""
        node = fields.members.get("run")
        if node is not None:
            called = fields.members.get("call")
            are_calls = not (isinstance(called, Text) and called.text == CREDENTIALS)
            totals = self._workspace.policies.totals
            identity = replace(identity, run=done_by(node, identity.run, totals, are_calls=are_calls))
        began = [link.run.started_at for link in (*identity.ancestors, identity) if link.run.started_at is not None]
        if began and max(began) > setting.now:
            mistake("the run's first call comes after this one: mend `started_at`", (node or fields).place)
        return identity

    def _offered(self, node: Node, where: str) -> Offered:
        try:
            return offered_as(self._workspace, text_of(node, where))
        except ConfigurationError as error:
            mistake(str(error), node.place)

    def _expectation(self, fields: Fields) -> Expectation:
        fields.needed("expect", "allow")
        effect = cast("Effect", fields.choice("expect", Effect))
        reason = fields.choice("reason", Reason)
        if reason is not None and reason not in _REASONS[effect]:
            what = f"`expect: {effect}` never has the reason `{reason}`: {did_you_mean(reason, _REASONS[effect])}"
            mistake(what, fields.members["reason"].place)
        ids = fields.texts("by")
        for node in ids or ():
            if node.text not in self._workspace.policies.policies and not _GRANT.fullmatch(node.text):
                fix = did_you_mean(node.text, self._workspace.policies.policies)
                mistake(f"no policy is called {shown(node.text)}: {fix}", node.place)
        return Expectation(
            effect=effect,
            policy_ids=None if ids is None else ordered(node.text for node in ids),
            reason=reason,
            advice=fields.text("advice"),
        )


def _explained(fields: Fields) -> Explained:
    policy, mutant, because = (
        id_of(fields.needed(key, example), f"`{key}`")
        for key, example in (("policy", "its id"), ("mutant", "what was changed"), ("because", "why nobody could tell"))
    )
    place = fields.place
    return Explained(policy=policy, mutant=mutant, because=because, line=place.line, column=place.column)


def _merged(shared: Fields, row: Fields) -> Fields:
    """Return a row over what its scenario says for all of them."""
    # What is expected belongs together: of another effect, the scenario's policies and reason are not meant.
    own = EXPECTED if "expect" in row.members else ()
    members = {key: node for key, node in shared.members.items() if key not in {"name", "cases", "entities", *own}}
    members |= row.members
    for key in ("with", "facts", "run"):
        if key in shared.members and key in row.members:
            both, own_ones = shared.record(key), row.record(key)
            keys = {**both.keys, **own_ones.keys}
            members[key] = Record({**both.members, **own_ones.members}, keys, own_ones.place)
    return Fields(Record(members, {}, row.place), CASE, "a case")


def _told_apart(cases: Sequence[Case]) -> list[Case]:
    """Return cases of which no two have the same label: each is looked for by its name."""
    seen: Counter[str] = Counter()
    named = []
    for case in cases:
        seen[case.label] += 1
        again = seen[case.label]
        named.append(case if again == 1 else replace(case, label=f"{case.label} (again, {again})"))
    return named
