"""The field's checklist for agents and their identities, answered from configuration and evidence.

Each answer is one line, good or not. What the records cannot tell is not guessed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from agentguard.analysis.finding import Severity
from agentguard.analysis.health.diagnosis import Area, bad, doubtful, good
from agentguard.analysis.health.habits import Day
from agentguard.analysis.health.surroundings import mount_of, writable
from agentguard.evidence.cursor import PATTERN, backlog
from agentguard.evidence.reading import evidence_folder
from agentguard.evidence.reporting.notable import LONG_SECONDS
from agentguard.evidence.words import count, span
from agentguard.model import Grade, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from agentguard.analysis.checking.check import Checked
    from agentguard.analysis.health.diagnosis import Diagnosis
    from agentguard.analysis.health.habits import Habits, RunSeen
    from agentguard.evidence.proof import Proof
    from agentguard.limits import Limits
    from agentguard.policy.files.source import PolicySource

# What an agent needs to come to its next call; past that, its authority waits for nobody.
_IDLE_SECONDS: Final = 900
# Fewer denials than that in a day are chance.
_FEW_DENIALS: Final = 10
_RISE: Final = 2
# A share of denials that nobody would look at.
_USUAL_SHARE: Final = 0.01
_MOST_NAMES: Final = 3
_MOST_AGENTS: Final = 8
# A forwarder delivers within seconds, or at the next start of a job.
_ON_ITS_WAY_SECONDS: Final = 3_600
_AHEAD_SECONDS: Final = 5
_EXPORTERS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


def of_habits(habits: Habits, *, now: float) -> Iterator[Diagnosis]:
    """Yield what the records tell of identities, of how runs end, and of denials.

    Args:
        habits: What they tell.
        now: Unix seconds.
    """
    if not habits.records:
        yield doubtful(
            Area.EVIDENCE, "no-evidence", "no record of that time, so nothing can be said of agents: see `--since`"
        )
        return
    yield from _identities(habits)
    yield from _ends(habits, now)
    yield from _denials(habits)


def _identities(habits: Habits) -> Iterator[Diagnosis]:
    yield from _by_agent(
        habits,
        concerns=lambda run: run.by_two,
        tell=bad,
        area=Area.IDENTITY,
        name="shared-principal",
        what="{runs} of {agent} came from two clients: give each flow a run of its own, `agentguard run`",
        otherwise="no run came from two clients",
    )
    grades = Counter[str]()
    for by_grade in habits.issuers.values():
        grades.update(by_grade)
    calls = sum(grades.values())
    for grade, tell, name, fix in (
        (Grade.SHARED, bad, "shared-identity", "nobody can tell who acted, so let the issuer name the run"),
        (Grade.TOKEN, doubtful, "weak-grade", "a token is known and no run, so map the claim that names one"),
    ):
        issuers = sorted(issuer for issuer, by_grade in habits.issuers.items() if by_grade[grade])
        if issuers:
            share = f"{grades[grade] / calls:.0%}" if grades[grade] * 100 >= calls else "fewer than 1%"
            what = f"{share} of {count(calls, 'call')} carry grade `{grade}` ({_listed(issuers)}): {fix}"
            yield tell(Area.IDENTITY, name, what)
        else:
            yield good(Area.IDENTITY, name, f"no call carries grade `{grade}`")


def _ends(habits: Habits, now: float) -> Iterator[Diagnosis]:
    yield from _by_agent(
        habits,
        concerns=lambda run: run.abandoned(now),
        tell=doubtful,
        area=Area.LIFECYCLE,
        name="abandoned-run",
        what="{runs} of {agent} never completed, as far as is on record: let it complete its run when the task is done",
        otherwise="every run that is over was ended by somebody",
    )
    yield from _by_agent(
        habits,
        concerns=lambda run: _is_idle(run, now),
        tell=doubtful,
        area=Area.LIFECYCLE,
        name="idle-authority",
        what="the authority of {runs} of {agent} outlived the task, with most of it after the last call: "
        "complete the run, or ask for less time",
        otherwise="no authority outlived its task by much",
    )
    longest = max((run.granted or 0.0 for run in habits.runs.values()), default=0.0)
    yield from _by_agent(
        habits,
        concerns=lambda run: (run.granted or 0.0) > LONG_SECONDS,
        tell=doubtful,
        area=Area.LIFECYCLE,
        name="long-authority",
        what=f"{{runs}} of {{agent}} got authority for more than {span(LONG_SECONDS)}: ask for what the task takes",
        otherwise=f"the longest authority is {span(longest)}",
    )
    yield from _by_agent(
        habits,
        concerns=lambda run: run.late > 0,
        tell=doubtful,
        area=Area.LIFECYCLE,
        name="used-after-end",
        what="{runs} of {agent} went on to call after their end, and were refused: look who still has the token",
        otherwise="nobody called after the end of a run",
    )


def _is_idle(run: RunSeen, now: float) -> bool:
    idle = run.idle(now)
    return idle is not None and idle > max(_IDLE_SECONDS, (run.granted or 0.0) / 2) and run.grade != Grade.SHARED


def _by_agent(
    habits: Habits,
    *,
    concerns: Callable[[RunSeen], bool],
    tell: Callable[[Area, str, str], Diagnosis],
    area: Area,
    name: str,
    what: str,
    otherwise: str,
) -> Iterator[Diagnosis]:
    """Yield one line an agent, of the first few, and one of all others; or that there is none."""
    found = Counter(run.agent for run in habits.runs.values() if concerns(run))
    shown = [(_named(agent), number) for agent, number in found.most_common(_MOST_AGENTS)]
    if others := len(found) - len(shown):
        shown.append((count(others, "other agent"), found.total() - sum(number for _, number in shown)))
    for agent, number in shown:
        yield tell(area, name, what.format(runs=count(number, "run"), agent=agent))
    if not found:
        yield good(area, name, otherwise)


def _denials(habits: Habits) -> Iterator[Diagnosis]:
    """Yield which agents are denied more of their calls in the last 24 hours than in the days before."""
    before: defaultdict[str, Day] = defaultdict(Day)
    today: dict[str, Day] = {}
    for (agent, ago), day in habits.days.items():
        if ago == 0:
            today[agent] = day
        else:
            before[agent].calls += day.calls
            before[agent].denied.update(day.denied)
    if not before or not today:
        # Nothing to compare is nothing to say.
        return
    risen = False
    for agent, day in sorted(today.items()):
        denied, earlier = day.denied.total(), before[agent]
        usual = earlier.denied.total() / earlier.calls if earlier.calls else 0.0
        if denied >= _FEW_DENIALS and denied / day.calls > _RISE * max(usual, _USUAL_SHARE):
            risen = True
            ((reason, _),) = day.denied.most_common(1)
            what = (
                f"{denied:,} of {count(day.calls, 'call')} of {_named(agent)} were denied in the last 24 h, "
                f"mostly `{reason}`, and {usual:.0%} in the days before: see `agentguard evidence show --effect deny`"
            )
            yield doubtful(Area.EVIDENCE, "denials-rising", what)
    if not risen:
        yield good(Area.EVIDENCE, "denials-rising", "denials are not rising")


def of_policies(folder: Path, checked: Checked, source: PolicySource, agents: Sequence[str]) -> Iterator[Diagnosis]:
    """Yield what a policy folder tells of itself.

    Args:
        folder: The folder.
        checked: What `agentguard check` found in it.
        source: What it holds.
        agents: The agents that were allowed to act; those that the folder knows are asked about anyway.
    """
    errors = [one for one in checked.findings if one.severity is Severity.ERROR]
    stale = [one for one in errors if one.name in {"no-schema", "stale-schema"}]
    broken = len(errors) - len(stale)
    if broken:
        what = f"`{folder}` has {count(broken, 'error')}: see `agentguard check {folder}`"
        yield bad(Area.POLICY, "broken-policies", what)
    else:
        yield good(Area.POLICY, "broken-policies", f"{count(len(checked.policies), 'policy', 'policies')}, no error")
    if stale:
        yield doubtful(Area.POLICY, "stale-schema", f"the schema {stale[0].what}")
    else:
        yield good(Area.POLICY, "stale-schema", "the schema is that of the folder")
    unowned = [policy.id for policy in checked.policies if policy.owner is None]
    if unowned:
        what = f"{count(len(unowned), 'policy', 'policies')} without an owner ({_listed(unowned)}): write @owner"
        yield doubtful(Area.POLICY, "unowned-policy", what)
    else:
        yield good(Area.POLICY, "unowned-policy", "every policy has an owner")
    unknown = [agent for agent in _agents(source, agents) if not _has_owner(agent, source)]
    if unknown:
        what = (
            f"{count(len(unknown), 'agent')} without an owner ({_listed(unknown)}): "
            "the owner of an agent is the @owner of the policies that name it or a group of it, so write one"
        )
        yield doubtful(Area.POLICY, "unowned-agent", what)
    else:
        yield good(Area.POLICY, "unowned-agent", "every agent has an owner")


def _agents(source: PolicySource, acted: Iterable[str]) -> list[str]:
    named = {literal.uid.id for policy in source.policies for literal in policy.literals if literal.uid.type == "Agent"}
    listed = {entity.uid.id for entity in source.entities if entity.uid.type == "Agent"}
    return sorted(named | listed | {*acted})


def _has_owner(agent: str, source: PolicySource) -> bool:
    """Return whether somebody answers for an agent: whoever owns a policy that names it, or what it is in."""
    above = {("Agent", agent)}
    while True:
        parents = {
            uid
            for entity in source.entities
            if (entity.uid.type, entity.uid.id) in above
            for uid in _parents(entity.json)
        }
        if parents <= above:
            break
        above |= parents
    return any(
        policy.owner is not None and (literal.uid.type, literal.uid.id) in above
        for policy in source.policies
        for literal in policy.literals
    )


def _parents(entity: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what an entity that was read is directly in."""
    parents = entity["parents"]
    for parent in parents if isinstance(parents, list) else ():
        uid = parent.get("__entity", parent)
        yield uid["type"], uid["id"]


def of_access(folder: Path, *, user: int, groups: Collection[int], called: str) -> Diagnosis:
    """Return whether the user that runs the server can change its policies.

    Args:
        folder: The policy folder.
        user: The user's number.
        groups: The user's groups.
        called: How the user is called.
    """
    if user == 0:
        what = f"root runs the server, and can write to `{folder}` and to the evidence: run it as a user of its own"
        return bad(Area.POLICY, "writable-policies", what)
    found = next(writable(folder, user=user, groups=groups), None)
    if found is None:
        return good(Area.POLICY, "writable-policies", f"{called}, which runs the server, cannot write to `{folder}`")
    what = f"{called}, which runs the server, can write to `{found}`: chown and chmod it, or mount it read-only"
    return bad(Area.POLICY, "writable-policies", what)


def of_proof(proof: Proof | None) -> Iterator[Diagnosis]:
    """Yield whether the evidence holds; nothing if it is no folder, which alone can be verified."""
    if proof is None:
        return
    if proof.holds:
        what = f"{count(len(proof.chains), 'chain')} with {count(proof.records, 'record')} verified"
        yield good(Area.EVIDENCE, "broken-evidence", what)
    else:
        what = f"{count(len(proof.problems), 'problem')} with the evidence, first: {proof.problems[0]}"
        yield bad(Area.EVIDENCE, "broken-evidence", f"{printable(what)}: see `agentguard evidence verify`")


def of_volume(folder: Path, mounts: str, *, now: float) -> Iterator[Diagnosis]:
    """Yield whether the evidence outlives the process, its pod and its host.

    Args:
        folder: A state folder, or the evidence in it.
        mounts: The table of what is mounted; empty where there is none.
        now: Unix seconds.
    """
    mount = mount_of(folder.resolve(), mounts)
    if mount is None:
        return
    if not mount.passing:
        yield good(Area.EVIDENCE, "evidence-not-lasting", f"`{folder}` is on {printable(mount.type)}, which lasts")
    elif _is_forwarded(folder, now):
        what = f"`{folder}` is on {mount.passing}, and is forwarded"
        yield good(Area.EVIDENCE, "evidence-not-lasting", what)
    else:
        what = f"`{folder}` is on {mount.passing}: put it on a volume, or `agentguard evidence forward` it"
        yield bad(Area.EVIDENCE, "evidence-not-lasting", what)


def _is_forwarded(folder: Path, now: float) -> bool:
    """Return whether all records were delivered somewhere, or some of them of late, so that the rest is on its way."""
    evidence = evidence_folder(folder)
    ages = [now - cursor.stat().st_mtime for cursor in evidence.glob(PATTERN)]
    return bool(ages) and (min(ages) < _ON_ITS_WAY_SECONDS or backlog(evidence) == 0)


def of_exporter(folders: Iterable[Path], environment: Mapping[str, str], *, now: float) -> Diagnosis:
    """Return whether what happens shows anywhere else, as far as this environment and the folders tell.

    Args:
        folders: State folders, or the evidence in them.
        environment: The variables of the environment.
        now: Unix seconds.
    """
    if any(_is_forwarded(folder, now) for folder in folders):
        return good(Area.EVIDENCE, "no-exporter", "the evidence is forwarded")
    for name in _EXPORTERS:
        if environment.get(name, "none") not in {"", "none"}:
            return good(Area.EVIDENCE, "no-exporter", f"spans go where `{name}` says")
    what = (
        "no exporter is set up here, and no evidence is forwarded, so nobody sees what happens: "
        "start the server under `opentelemetry-instrument`, or `agentguard evidence forward`"
    )
    return doubtful(Area.EVIDENCE, "no-exporter", what)


def of_clock(issuer: str, apart: float | None, limits: Limits) -> Diagnosis:
    """Return whether this clock and an issuer's agree.

    Args:
        issuer: The issuer.
        apart: By how many seconds this clock is ahead; None if the issuer does not tell.
        limits: What is allowed for.
    """
    shown = printable(issuer)
    if apart is None:
        return doubtful(Area.ENVIRONMENT, "clock-apart", f"{shown} does not tell the time: compare the clocks yourself")
    off = abs(apart)
    if off < _AHEAD_SECONDS:
        return good(Area.ENVIRONMENT, "clock-apart", f"this clock is within {_AHEAD_SECONDS} s of that of {shown}")
    tell = doubtful if off <= limits.leeway_seconds else bad
    direction = "ahead of" if apart > 0 else "behind"
    what = f"this clock is {span(off)} {direction} that of {shown}, and tokens live by both: set it by NTP"
    return tell(Area.ENVIRONMENT, "clock-apart", what)


def _named(agent: str) -> str:
    return printable(agent) or "an agent without a name"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown
