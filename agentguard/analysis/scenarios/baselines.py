"""Put baseline policies into a policy folder, with scenarios that name the server's own tools.

The scenarios that come with a baseline say which kind of tool is called. A tool of that kind
is put in for which the case comes out as it says, or else as near to that as the folder's
other policies let it: what a case shows of the baseline itself is never changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.analysis.scenarios.edits import edits_of
from agentguard.analysis.scenarios.samples import SampleCall, flow, sample_call, sample_entities
from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.scenarios.suites import open_suites, run_case
from agentguard.analysis.supposed import suppose
from agentguard.analysis.supposedcall import Identity
from agentguard.analysis.workspace import workspace_of
from agentguard.errors import PolicyError
from agentguard.model import Reason
from agentguard.policy.files.format import formatted
from agentguard.policy.files.reader import read_policies
from agentguard.policy.files.several import from_home
from agentguard.policy.schemas.schema import CREDENTIALS, OwnType, totals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from agentguard.analysis.scenarios.cases import Case, CaseResult
    from agentguard.analysis.scenarios.samples import Sample
    from agentguard.analysis.supposed import Verdict
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.baselines import Baseline
    from agentguard.policy.conversion.values import Shape
    from agentguard.policy.schemas.offered import Offered

_CREDENTIAL: Final = "credential"
_HELD: Final = frozenset(("open-world", "destructive"))
_KINDS: Final[Mapping[str, Callable[[frozenset[str]], bool]]] = {
    "any": lambda _groups: True,
    _CREDENTIAL: lambda _groups: True,
    "open-world": lambda groups: "open-world" in groups,
    "destructive": lambda groups: "destructive" in groups,
    "undestructive": lambda groups: "destructive" not in groups,
    "neither": lambda groups: not groups & _HELD,
    "spending": lambda _groups: True,
}
# What shows that a policy is about some actions alone.
_BESIDE: Final = frozenset((_CREDENTIAL, "undestructive", "neither"))
# A call that spends 1 itself, of the total that the case is about.
_SPENDING: Final = "spending"
_TOTAL: Final = re.compile(r"spent: \{ ([^:]+): ")
_CASE: Final = re.compile(r"      - \{ call: <(?P<kind>[a-z-]+)>(?P<given>.*?), (?P<expected>expect: .*) \}")
_NAME: Final = "\n  - name: "
_SCENARIOS: Final = "scenarios:"
_NO_TOTAL: Final = "no tool adds to a total, with `Spend(…)` or `spends=`"
_BECAUSE: Final = "nothing else is permitted to this caller, so no other call comes as far as this policy"
# Of those that would do, some are tried; the server may have hundreds.
_MOST_CALLS: Final = 8
_MOST_AGENTS: Final = 8
_MOST_USERS: Final = 4
_MOST_SUPPOSED: Final = 16
_CALLER: Final = "caller"
_TYPES: Final = ("Agent", "User", "Task")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Baselines as they stand in one policy folder.

    Attributes:
        files: Texts, by names relative to the folder.
        unfit: Why some cannot stand there, by name.
        untested: The names of those of which no scenario shows all that they stop.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    untested: tuple[str, ...] = ()


def fit(workspace: Workspace, baselines: Iterable[Baseline], folder: Path) -> Fitted:
    """Return what to write of baselines into a policy folder; nothing is written here.

    Args:
        workspace: The folder, as it is.
        baselines: Which ones.
        folder: The same folder, or the part of it that is one server's.
    """
    totals = totals_of(workspace.written.tools)
    files: dict[str, str] = {}
    unfit: dict[str, str] = {}
    there: list[Baseline] = []
    for one in baselines:
        if one.is_of_totals and not totals:
            unfit[one.name] = _NO_TOTAL
            continue
        baseline = one.for_totals(totals)
        if not any(offered.tool.name == CREDENTIALS for offered in workspace.written.offers):
            baseline = baseline.without_credentials()
        file, text = from_home(folder, baseline.file), formatted(baseline.file, baseline.policies, workspace.limits)
        if (other := _elsewhere(workspace, baseline.ids, file)) is not None:
            unfit[one.name] = other
            continue
        try:
            workspace = _with_file(workspace, file, text)
        except PolicyError as error:
            unfit[one.name] = error.found[0].what.partition(": ")[0]
            continue
        files[baseline.file] = text
        there.append(baseline)
    if not there:
        return Fitted(unfit=unfit)
    writer = _Writer(workspace)
    untested = []
    for baseline in there:
        suite, whole = writer.suite(baseline)
        if suite:
            files[baseline.suite] = suite
        if not whole:
            untested.append(baseline.name)
    return Fitted(files=files, unfit=unfit, untested=tuple(untested))


def _elsewhere(workspace: Workspace, ids: Sequence[str], file: str) -> str | None:
    """Return why policies of these ids cannot stand in *file*, if some stand elsewhere."""
    for policy in workspace.source.policies:
        if policy.id in ids and policy.file != file:
            return f"policy `{policy.id}` is in {policy.file}:{policy.line} already"
    return None


def _with_file(workspace: Workspace, file: str, text: str) -> Workspace:
    """Return a folder with one file more, or with another text of it.

    Raises:
        PolicyError: Its policies do not fit the server.
    """
    read, _ = read_policies(file, text, workspace.limits)
    source = workspace.source
    policies = (*(policy for policy in source.policies if policy.file != file), *read)
    files = tuple(sorted({**dict(source.files), file: text}.items()))
    changed = replace(source, files=files, policies=policies)
    return workspace_of(changed, workspace.written, workspace.text, workspace.limits)


class _Written(NamedTuple):
    """A case as it is written down.

    Attributes:
        caller: Who calls, by the name in the file.
        call: What is called.
        line: Its line.
        fired: Which of the baseline's policies it sees fire.
    """

    caller: str
    call: SampleCall
    line: str
    fired: set[str]


class _Writer:
    """Writes scenarios for one folder."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        offers = workspace.written.offers
        self._samples = {offered.tool.name: sample_call(offered, workspace) for offered in offers}
        self._who = {flow(_said(one)): one for one in (*self._supposed(), *self._made())}
        self._callers = {_CALLER if place == 0 else f"{_CALLER}-{place + 1}": one for place, one in self._ranked()}

    def suite(self, baseline: Baseline) -> tuple[str, bool]:
        """Return a baseline's file of scenarios, empty if there can be none, and whether it shows all that it stops."""
        head, _, listed = baseline.scenarios.partition(_SCENARIOS)
        scenarios: list[str] = []
        written: list[_Written] = []
        lacking: set[str] = set()
        for scenario in listed.split(_NAME)[1:]:
            lines: list[str] = []
            count = len(written)
            for line in scenario.rstrip("\n").split("\n"):
                if (case := _CASE.fullmatch(line)) is None:
                    lines.append(line)
                elif (found := self._case(case, {*baseline.ids}, exact=baseline.is_of_totals)) is not None:
                    # One tool may be of several kinds, and the case is there already.
                    if found.line not in lines:
                        lines.append(found.line)
                        written.append(found)
                elif case["kind"] != _SPENDING and any(self._calls(case["kind"])):
                    lacking.add(case["kind"])
            if len(written) > count:
                scenarios.append(_NAME.lstrip("\n") + "\n".join(lines))
        if not scenarios:
            return "", False
        explained = self._explained(baseline) if lacking & _BESIDE else []
        known = self._known({one.caller for one in written}, [one.call for one in written])
        fired = {id_ for one in written for id_ in one.fired}
        text = f"{head}{known}{_SCENARIOS}\n" + "\n\n".join([*scenarios, *explained]) + "\n"
        return text, {*baseline.ids} <= fired and lacking <= _BESIDE

    def _explained(self, baseline: Baseline) -> list[str]:
        """Return why nothing notices a baseline's policy that is about all actions: no other can be seen to go on."""
        lines = ["survivors:"]
        for policy in self._workspace.source.policies:
            for edit in edits_of(policy.text) if policy.id in baseline.ids else ():
                if edit.what.endswith(" became `action`"):
                    row = {"policy": policy.id, "mutant": edit.what, "because": _BECAUSE}
                    lines.append(f"  - {flow(dict(row))}")
        return ["\n".join(lines)]

    def _case(self, case: re.Match[str], own: set[str], *, exact: bool) -> _Written | None:
        """Return a case with a tool of the server's, and somebody who gets as far as the baseline with it.

        Args:
            case: The case, of a kind of tools.
            own: The ids of the baseline's policies.
            exact: Whether what the case says of the run's totals has to be all that is spent.
        """
        nearest = None
        for caller in self._callers:
            for call in self._spending(case) if exact else self._calls(case["kind"]):
                who = "" if caller == _CALLER else caller
                line = _line(call, case["given"], case["expected"], who)
                result = self._judged(line, call, self._callers)
                # Where something is missing, nothing is shown of any policy.
                if result is None or result.got.early or result.got.reason is Reason.MISSING_ENTITY:
                    continue
                fired = own & {*result.got.policy_ids}
                if result.passed:
                    return _Written(caller, call, line, fired)
                # What is shown of the baseline has to be the same; others may have a say beside it.
                if nearest is None and fired == own & {*(result.wanted.policy_ids or ())}:
                    nearest = _Written(caller, call, _line(call, case["given"], _expected(result.got), who), fired)
        return nearest

    def _calls(self, kind: str) -> Iterator[SampleCall]:
        """Yield calls of a kind, of tools first, and of what other policies of this sort hold last."""
        is_one = _KINDS[kind]
        offers = [offered for offered in self._workspace.written.offers if is_one(offered.tool.groups)]
        if kind == _CREDENTIAL:
            offers = [offered for offered in offers if offered.tool.name == CREDENTIALS]
        for offered in sorted(offers, key=_last)[:_MOST_CALLS]:
            yield self._samples[offered.tool.name]

    def _spending(self, case: re.Match[str]) -> Iterator[SampleCall]:
        """Yield calls of a kind that add nothing to the totals by themselves; those that are to spend, add 1 to one."""
        total = _TOTAL.search(case["given"]) if case["kind"] == _SPENDING else None
        for call in self._calls(case["kind"]):
            tool = self._workspace.policies.action(call.action).tool
            input_, facts = _free(call.input, tool.input), _free(call.facts or {}, tool.facts)
            if total is not None and not (_pay(input_, tool.input, total[1]) or _pay(facts, tool.facts, total[1])):
                continue
            yield replace(call, input=input_, facts=None if call.facts is None else facts)

    def _judged(self, line: str, call: SampleCall, callers: Mapping[str, str]) -> CaseResult | None:
        """Return what comes of a case; None if it cannot be said."""
        case = self._read(line, call, callers)
        return None if case is None else run_case(self._workspace, case)

    def _read(self, line: str, call: SampleCall, callers: Mapping[str, str]) -> Case | None:
        known = _known(callers, [call], self._loaded(self._who))
        text = f"{known}{_SCENARIOS}\n  - name: one\n    as: {_CALLER}\n    cases:\n{line}\n"
        try:
            return read_suite(self._workspace, "one.test.yaml", text).cases[0]
        except PolicyError:
            return None

    def _known(self, names: set[str], calls: Iterable[SampleCall]) -> str:
        # The scenarios name the first one, whoever it is that gets anywhere.
        callers = {name: one for name, one in self._callers.items() if name in {_CALLER, *names}}
        return _known(callers, calls, self._loaded(callers.values()))

    def _loaded(self, callers: Iterable[str]) -> dict[str, Sample]:
        """Return what loaders would say of callers, by name."""
        who = [self._who[caller] for caller in callers]
        named = [pair for one in who for pair in zip(_TYPES, (one.agent, one.user, one.task), strict=True)]
        return sample_entities([(type_, id_) for type_, id_ in named if id_ is not None], self._workspace)

    def _ranked(self) -> Iterator[tuple[int, str]]:
        """Yield some who can call, numbered: first who is allowed the most, then who is allowed anything else."""
        allowed = self._allowed()
        first, *others = sorted(allowed, key=lambda caller: len(allowed[caller]), reverse=True)
        yield 0, first
        seen, number = {*allowed[first]}, 0
        for caller in others:
            if not allowed[caller] <= seen:
                seen |= allowed[caller]
                number += 1
                yield number, caller

    def _allowed(self) -> dict[str, set[str]]:
        """Return for each who could call what is allowed, if a person approves it."""
        anybody = {_CALLER: next(iter(self._who))}
        lines = [(call, _line(call, ", approved: { channel: client }", "expect: allow")) for call in self._calls("any")]
        # Each is read once, and judged for everybody.
        calls = [case.call for call, line in lines if (case := self._read(line, call, anybody)) is not None]
        return {
            caller: {
                call.action for call in calls if suppose(self._workspace, replace(call, identity=identity)).allowed
            }
            for caller, identity in self._who.items()
        }

    def _made(self) -> Iterator[Identity]:
        """Yield agents and users that the folder's policies or entities name, in pairs."""
        # One that has a user is let do more, as a rule.
        users = [*[*self._named("User"), "alice"][:_MOST_USERS], None]
        for agent in [*self._named("Agent"), "example-agent"][:_MOST_AGENTS]:
            yield from (Identity(agent=agent, user=user) for user in users)

    def _supposed(self) -> list[Identity]:
        """Return who calls in the scenarios that are there, as far as a line can say it."""
        try:
            suites = open_suites(self._workspace)
        except PolicyError:
            return []
        called = (case.call.identity for suite in suites for case in suite.cases)
        simple = {
            flow(_said(one)): Identity(
                agent=one.agent, user=one.user, task=one.task, purpose=one.purpose, scopes=one.scopes
            )
            for one in called
        }
        return [*simple.values()][:_MOST_SUPPOSED]

    def _named(self, type_: str) -> Iterator[str]:
        """Yield those of a type that permits name, and then those that are listed."""
        source = self._workspace.source
        named = [literal.uid for policy in source.policies if policy.part.permit for literal in policy.literals]
        listed = [entity.uid for entity in source.entities]
        yield from dict.fromkeys(uid.id for uid in (*named, *listed) if uid.type == type_)


def _said(who: Identity) -> dict[str, Sample]:
    """Return who calls, as a file says it."""
    said = {"agent": who.agent, "user": who.user, "task": who.task, "purpose": who.purpose}
    scopes: dict[str, Sample] = {"scopes": [*sorted(who.scopes)]} if who.scopes else {}
    return {name: value for name, value in said.items() if value is not None} | scopes


def _known(callers: Mapping[str, str], calls: Iterable[SampleCall], loaded: Mapping[str, Sample]) -> str:
    """Return what stands above scenarios: who calls, and what loaders would say."""
    entities = {**loaded} | {name: value for call in calls for name, value in call.entities.items()}
    lines = ["identities:", *(f"  {name}: {one}" for name, one in callers.items()), ""]
    if entities:
        lines += ["entities:", *(f"  {name}: {flow(value)}" for name, value in entities.items()), ""]
    return "\n".join(lines) + "\n"


def _free(values: Mapping[str, Sample], shape: Shape | None) -> dict[str, Sample]:
    spent = {part.name for part in shape.parts if part.shape.spends} if shape is not None else set[str]()
    return {name: "0" if name in spent else value for name, value in values.items()}


def _pay(values: dict[str, Sample], shape: Shape | None, total: str) -> bool:
    """Put 1 where it adds to a total, and return whether there is such a place."""
    for part in shape.parts if shape is not None else ():
        if part.shape.spends == total and part.name in values:
            values[part.name] = "1"
            return True
    return False


def _last(offered: Offered) -> tuple[bool, bool, int]:
    """Return what to sort by: a call that spends something itself is at no exact amount."""
    tool = offered.tool
    return tool.kind is not OwnType.TOOL, bool(tool.totals), len(tool.groups & _HELD)


def _line(call: SampleCall, given: str, expected: str, caller: str = "") -> str:
    parts = [f"as: {caller}"] * bool(caller)
    parts.append(f"call: {flow(call.action)}")
    parts += [f"with: {flow(dict(call.input))}"] * bool(call.input)
    parts += [f"facts: {flow(dict(call.facts or {}))}"] * bool(call.facts)
    return f"      - {{ {', '.join(parts)}{given}, {expected} }}"


def _expected(got: Verdict) -> str:
    """Return what to expect where a denial is what comes."""
    by = f"by: {flow(list(got.policy_ids))}"
    if got.reason is Reason.POLICY:
        return f"expect: deny, {by}"
    return f"expect: deny, reason: {got.reason}" + f", {by}" * bool(got.policy_ids)
