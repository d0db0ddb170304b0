"""An explanation, drawn for a person: what decided, and every value that it rested on."""

from __future__ import annotations

import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.text import Text

from agentguard.analysis.explanations.changes import Value, Who
from agentguard.analysis.known import UNKNOWN
from agentguard.analysis.notation import entity_text
from agentguard.cli.output import duration
from agentguard.evidence.words import iso
from agentguard.model import Reason, naming, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

    from agentguard.analysis.explanations.conditions import Condition
    from agentguard.analysis.explanations.explain import Answered, Explanation, Found, LinkFound
    from agentguard.analysis.explanations.mended import Mended
    from agentguard.analysis.explanations.onrecord import OnRecord
    from agentguard.analysis.explanations.suggestions import Suggestion
    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.evidence.kept import Kept
    from agentguard.evidence.proof import ProvenChain
    from agentguard.model import Invocation

_WORD: Final = 24
_INDENT: Final = "  "
_POLICY: Final = 4
_CONDITION: Final = 8
_LEAST: Final = 24
_NAME: Final = 40
_VALUES: Final = 48
_GAP: Final = 2
_DIGEST: Final = 19
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
"""From the first day of the week on, whatever the language of the terminal is."""

_LEFT: Final = "← decided"
_COLOURS: Final = {"allow": "bold green", "deny": "bold red"}
# Past that, a zone may lead out of the calendar.
_LAST_DAY: Final = 253_402_214_400
_FACTS: Final = ("context", "facts")
_NOTHING_FOUND: Final = "nothing that is small enough to name: several things would have to be other than they are"
_INCOMPLETE: Final = "with all that loaders would know, given with --entity, more could be told"
# What no change of a call or of a policy mends.
_BY_POLICIES: Final = frozenset(
    (Reason.POLICY, Reason.NO_PERMIT, Reason.GRANT, Reason.POLICY_ERROR, Reason.APPROVAL_REQUIRED)
)


class Drawing:
    """Lines for a terminal of some width."""

    def __init__(self, width: int) -> None:
        self._width = width

    def explanation(
        self, found: Explanation, action: str, invocation: Invocation, *, call: SupposedCall | None = None
    ) -> Iterator[Text]:
        """Yield the lines of a call that somebody supposed, and when that is, if the call is given."""
        verdict = found.verdict
        on = _on(found.answers[0]) if len(found.answers) == 1 else ""
        yield self._head(verdict.effect, f"{printable(action)}{on}", _because(verdict.reason, verdict.policy_ids))
        yield from self._meaning(found.meaning, early=verdict.early)
        if call is not None:
            yield self._pair("when", moment_in(call.now, call.time_zone))
        yield self._pair("who", _who(invocation))
        for answer in found.answers:
            if len(answer.links) == 1 and answer.links[0].refusal is not None and len(found.answers) == 1:
                # Its reason says it all.
                continue
            yield Text()
            if len(found.answers) > 1:
                decided = _because(answer.decision.reason, answer.decision.policy_ids)
                yield Text(f"{answer.decision.effect}{_on(answer)}: {decided}", style="bold")
            chain = len(answer.links)
            for place, link in enumerate(answer.links):
                yield from self._link(
                    link, f"link {place + 1} of {chain}: {link.invocation.agent}" if chain > 1 else ""
                )
        yield from self._ways(found.suggestions, found.mended, loose=found.loose)
        if not found.answers and verdict.early:
            yield Text()
            yield from self._wrapped(_INCOMPLETE, 0)
        elif not (verdict.allowed or found.suggestions or found.mended) and verdict.reason in _BY_POLICIES:
            yield Text()
            yield self._pair("would be allowed with", _NOTHING_FOUND)

    def record(self, found: OnRecord, chain: ProvenChain | None = None) -> Iterator[Text]:
        """Yield the lines of a decision that is on record, and what came of verifying the chain that it stands in."""
        record = found.record
        reason, effect = record.text("agentguard.decision.reason"), record.text("agentguard.decision.effect")
        on = _resource_of(record)
        head = f"{printable(record.text('agentguard.action.id'))}{f' on {on}' if on else ''}"
        yield self._head(effect, head, _because(reason, record.policy_ids))
        yield from self._meaning(found.meaning, early=found.early)
        zone = found.setting.time_zone
        yield self._pair(
            "when", _moment(record.at) if zone is None else moment_in(record.at, zone, "%Y-%m-%d %H:%M:%S")
        )
        yield self._pair("who", _who_of(record))
        yield self._pair("under", _version(record))
        if chain is not None and not chain.whole:
            what = "this evidence does not hold, so it may say what was not: see `agentguard evidence verify`"
            yield self._pair("beware", what, style="yellow")
        if not found.same:
            what = "the policies in the folder are others, and what follows is what they would make of it"
            yield self._pair("beware", what, style="yellow")
        if found.why:
            yield self._pair("but", found.why, style="yellow")
        if found.link is not None:
            yield Text()
            yield from self._links(found, found.link)
        yield from self._ways(found.suggestions, found.mended, loose=False)
        if found.unknown or _lacks_arguments(found):
            yield Text()
        if found.unknown:
            yield self._pair("cannot tell without", ", ".join(map(printable, found.unknown)))
        if _lacks_arguments(found):
            what = "the evidence keeps a digest of arguments: `record_inputs=` has it keep those that it names"
            yield self._pair("unknown", what)
        yield Text()
        yield self._pair("decision", printable(record.text("agentguard.decision.id")))
        verified = "" if chain is None or not chain.whole else f", chain verified up to seq {chain.last_seq:,}"
        yield self._pair("evidence", f"{printable(record.source)}{verified}")

    def _links(self, found: OnRecord, link: LinkFound) -> Iterator[Text]:
        """Yield what the run came to, below what the run above it came to where it is that which was denied."""
        chain = len(link.invocation.chain)
        if found.above is not None and found.place is not None:
            named = link.invocation.chain[found.place].run_id if found.place == chain - 2 else ""
            name = f"run {named}" if named and named == found.record.text("agentguard.run.parent") else "a run above"
            yield from self._link(found.above, f"link {found.place + 1} of {chain}: {name}")
        told = found.place is not None
        yield from self._link(link, f"link {chain} of {chain}: {link.invocation.agent}" if told else "", grants=found)

    def _head(self, effect: str, what: str, because: str) -> Text:
        return Text.assemble((effect.upper(), _COLOURS.get(effect, "bold")), f"  {what}", (f"  {because}", "dim"))

    def _meaning(self, meaning: str, *, early: bool) -> Iterator[Text]:
        if meaning:
            yield from self._wrapped(meaning, 6)
        if early:
            yield from self._wrapped("no argument was looked at: whatever they are, every such call is denied", 6)

    def _link(self, link: LinkFound, title: str, *, grants: OnRecord | None = None) -> Iterator[Text]:
        if title:
            yield Text(f"{_INDENT}{printable(title)}", style="bold")
        if link.refusal is not None:
            yield from self._wrapped(
                f"nothing could be asked: {naming(link.refusal.detail, link.refusal.missing)}", _POLICY
            )
            return
        yield Text(f"{_INDENT}organisation", style="bold")
        if not link.organisation:
            yield Text(f"{' ' * _POLICY}no policy is about this action")
        width = max((len(found.id) for found in link.organisation), default=0)
        for found in _in_order(link.organisation):
            yield from self._policy(found, printable(found.id).ljust(min(width, _NAME)))
        if grants is not None:
            told = {True: "permits", False: "does not permit", None: "is not on record"}[grants.grants]
            yield Text.assemble((f"{_INDENT}grant", "bold"), f"  {told}")
            if grants.delegated:
                yield Text(f"{' ' * _POLICY}who delegated to this run, and with which grants, is not on record")
        elif link.grant is not None:
            yield Text(f"{_INDENT}grant", style="bold")
            for found in _in_order(link.grant):
                yield from self._policy(found, printable(found.id))

    def _policy(self, found: Found, name: str) -> Iterator[Text]:
        told = {True: "matched", False: "did not match", None: "cannot tell"}[found.matched]
        told = "FAILED" if found.error else told
        line = Text.assemble(" " * _POLICY, "permit " if found.permit else "forbid ", (name, "bold"), f"  {told}")
        below = ""
        if found.decided:
            line.append(f"  {_LEFT}", style="bold yellow")
            place = "" if found.policy is None else printable(f"{found.policy.file}:{found.policy.line}")
            if line.cell_len + _GAP + len(place) <= self._width:
                line.append(f"  {place}" if place else "", style="dim")
            else:
                below = place
        yield line
        if below:
            yield from self._wrapped(below, _CONDITION, style="dim")
        if found.error:
            yield from self._wrapped(found.error, _CONDITION)
        shown = list(_shown(found))
        for condition in shown:
            yield from self._condition(condition)
        if found.matched is False and not shown:
            yield from self._wrapped("which of its conditions differs is not on record", _CONDITION)

    def _condition(self, condition: Condition) -> Iterator[Text]:
        # A text in a policy may hold what steers a terminal, as it is.
        text = printable(f"{'unless ' if condition.piece.place == 'unless' else ''}{condition.text}")
        value = f"cannot tell: {condition.shown}" if condition.unknown else condition.shown
        room = self._width - _CONDITION - _GAP
        if len(text) + len(value) + _GAP <= room:
            column = max(len(text) + _GAP, min(_VALUES, room - len(value)))
            yield Text.assemble(" " * _CONDITION, text.ljust(column), (value, "cyan"))
            return
        yield from self._wrapped(text, _CONDITION)
        yield from self._wrapped(value, _CONDITION + 2 * _GAP, style="cyan")

    def _ways(self, suggestions: Sequence[Suggestion], mended: Sequence[Mended], *, loose: bool) -> Iterator[Text]:
        """Yield what would have let it pass."""
        if suggestions or mended:
            yield Text()
        for suggestion in suggestions:
            yield self._pair("would be allowed with", suggestion.text)
        if loose and any(_is_argument(suggestion) for suggestion in suggestions):
            yield from self._wrapped("as long as context.facts, which is made of the arguments, stays as it is", _WORD)
        for one in mended:
            owner = f"   (owner: {printable(', '.join(one.owners))})" if one.owners else ""
            yield self._pair("would be allowed if", f"{one.text}{owner}")

    def _pair(self, word: str, text: str, *, style: str = "") -> Text:
        column = _WORD if len(word) > len("evidence") else len("evidence") + _GAP
        lines = textwrap.wrap(
            printable(text), max(self._width - column, _LEAST), break_long_words=False, break_on_hyphens=False
        ) or [""]
        rest = "".join(f"\n{' ' * column}{line}" for line in lines[1:])
        return Text.assemble((word.ljust(column), "dim"), (f"{lines[0]}{rest}", style))

    def _wrapped(self, text: str, indent: int, *, style: str = "") -> Iterator[Text]:
        width = max(self._width - indent, _LEAST)
        for line in textwrap.wrap(printable(text), width, break_long_words=False, break_on_hyphens=False):
            yield Text(f"{' ' * indent}{line}", style=style)


def _on(answer: Answered) -> str:
    resource = answer.request.resource
    return f" on {entity_text(resource.type, resource.id)}"


def _because(reason: str, ids: Sequence[str]) -> str:
    by = f", by {', '.join(ids)}" if ids else ""
    return printable(f"{reason}{by}")


def _who(invocation: Invocation) -> str:
    chain = invocation.chain
    above = f"delegated by {' ← '.join(link.agent for link in reversed(chain[:-1]))}" if chain[1:] else "not delegated"
    return printable(
        f"{_identity(invocation.agent, invocation.user, invocation.task, invocation.purpose)}; "
        f"grade {invocation.grade}, lifetime {duration(invocation.lifetime)}, {above}"
    )


def _identity(agent: str, user: str | None, task: str | None, purpose: str | None) -> str:
    parts = [agent or "nobody known", f"for {user or 'nobody'}"]
    parts += [f"task {task}"] if task else []
    parts += [f'purpose "{purpose}"'] if purpose else []
    return ", ".join(parts)


def _who_of(record: Kept) -> str:
    text = record.text
    who = _identity(
        text("agentguard.agent.id"), text("agentguard.user.id"), text("agentguard.task.id"), text("agentguard.purpose")
    )
    if not (run := text("agentguard.run.id")):
        return printable(who)
    left = record.number("agentguard.authority.remaining")
    depth = int(record.number("agentguard.delegation.depth") or 0)
    parts = [f"run {run}", f"grade {text('agentguard.invocation.grade')}"]
    parts += [] if left is None else [f"{duration(left)} left"]
    parts.append(f"delegated by run {text('agentguard.run.parent')}" if depth else "not delegated")
    return printable(f"{who}; {', '.join(parts)}")


def _resource_of(record: Kept) -> str:
    type_, id_ = record.text("agentguard.resource.type"), record.text("agentguard.resource.id")
    return entity_text(type_, id_) if type_ else ""


def _version(record: Kept) -> str:
    version, label = record.text("agentguard.policy.version"), record.text("agentguard.policy.label")
    since = record.number("agentguard.policy.activated_at")
    parts = [f"policies {version[:_DIGEST]}…" if version else "no policies", f'"{label}"' if label else ""]
    parts.append("" if since is None else f"in force since {_moment(since)}")
    return printable(", ".join(part for part in parts if part))


def moment_in(seconds: float, zone: ZoneInfo, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a moment as the clocks of a zone show it, with the day of the week: ``context.local`` is made of that."""
    local = local_time(seconds, zone)
    return f"{local.strftime(form)} {zone.key}, {WEEKDAYS[local.weekday()]}"


def local_time(seconds: float, zone: ZoneInfo) -> datetime:
    """Return a moment as the clocks of a zone show it, as far as the calendar goes."""
    return datetime.fromtimestamp(min(seconds, _LAST_DAY), zone)


def _moment(seconds: float) -> str:
    return f"{iso(seconds)[:19].replace('T', ' ')} UTC"


def _in_order(found: Iterable[Found]) -> list[Found]:
    """Return policies with what matters first: what decided, what failed, what matched, and then the others."""

    def place(one: Found) -> int:
        if one.decided or one.error:
            return 0
        return {True: 1, None: 2, False: 3}[one.matched]

    return sorted(found, key=place)


def _shown(found: Found) -> Iterator[Condition]:
    """Yield the conditions to show: all of a policy that matched or that is open, else the first that differs."""
    for condition in found.conditions:
        if found.matched is False:
            if not condition.met and not condition.unknown:
                yield condition
                return
        elif condition.looked_at and (condition.unknown or condition.piece.place in {"when", "unless"}):
            yield condition


def _lacks_arguments(found: OnRecord) -> bool:
    """Return whether a policy looks at an argument that is not on record."""
    policies = (one for link in (found.above, found.link) if link is not None for one in link.organisation)
    values = (value for one in policies for condition in one.conditions for value in condition.values)
    return any(path.startswith("context.input") and value == repr(UNKNOWN) for path, value in values)


def _is_argument(suggestion: Suggestion) -> bool:
    """Return whether a suggestion is about arguments, and leaves to chance what is made of them."""
    paths = {change.path[:2] for change in suggestion.changes if isinstance(change, Value) and change.who is Who.CALLER}
    return bool(paths) and _FACTS not in paths
