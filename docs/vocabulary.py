"""Write the tables of the vocabulary page from the code.

What policies can name, and of which type it is, comes from the schema that the guard makes;
what it means is said here. The rest of the page is written by hand, around the tables::

    .venv/bin/python docs/vocabulary.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.model import Decision, Effect, Reason
from agentguard.policy.schemas.fragments import VOCABULARY
from agentguard.policy.schemas.schema import ATTRIBUTES, CONTEXT, GROUPS, OwnType
from agentguard.policy.schemas.types import read_types
from agentguard.policy.text.annotated import ANNOTATIONS
from agentguard.steps.denial import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PAGE: Final = Path(__file__).parent / "pages" / "reference" / "vocabulary.md"

_END: Final = "<!-- as far as here -->"
_LISTED: Final = "`Group`, if {} are listed or loaded"
ABOVE_POLICIES: Final[Mapping[str, str]] = {
    "id": "its name, unique in the folder: letters, digits, `.`, `_`, `-` and `/`; each policy needs one",
    "advice": "what a caller reads whom the policy stops",
    "obligation": (
        '`"approval"` alone: a person can lift this forbid, which then ends with `unless { context has approval }`'
    ),
    "approval_prompt": "what [that person](../how-to/approvals.md) reads",
    "scopes": "what the policy [looks for in a token](../how-to/step-up.md), one blank between two",
    "owner": "who answers for the policy; reports and `agentguard check` name it",
    "silence_…": (
        "that one [finding of `check`](checks.md) does not count here, and why: "
        '`@silence_missing_owner("a demonstration")`'
    ),
}
IN_THE_SCHEMA: Final[Mapping[str, tuple[str, str]]] = {
    "server": ("the groups of actions", "the server's name"),
    "loaders": ("the groups of actions", "the entity types that have a loader"),
    "resource": ("an action", "what it acts on, as the decorator says it"),
    "unseen": ("an action", "the arguments that no policy sees"),
    "totals": ("an action", "the totals of the run that the tool adds to"),
    "labels": ("an action", "what a run carries once the tool was let run"),
    "unannotated": ("an action", "that the server gives no hint of what the tool does"),
    "one_of": ("a member of a record", "the values that there are"),
    "spends": ("a number among arguments or facts", "the total of the run that it adds to"),
}
TYPES: Final[Mapping[str, tuple[str, str, str]]] = {
    "Invocation": ("`Agent`, `Task`", "see below", "the run's id"),
    "Agent": (_LISTED.format("agents"), "", "as the token gives it"),
    "User": (_LISTED.format("users"), "", "as the token gives it"),
    "Task": (_LISTED.format("tasks"), "", "as the token gives it"),
    "Group": ("", "", "yours"),
    "Server": ("", "", "the server's name"),
    "Tool": ("`Server`", "", "the tool's name"),
    "Resource": ("`Server`", "", "the resource's name; only where one is under the decorator"),
    "Prompt": ("`Server`", "", "the prompt's name; only where one is under the decorator"),
}
PRINCIPAL: Final[Mapping[str, str]] = {
    "agent": "the workload that acts",
    "user?": "on whose behalf, when somebody's",
    "task?": "the task, when named",
    "purpose?": "the purpose, when named",
    "issuer": "the `iss` that vouches for it",
    "scopes": "the OAuth scopes",
    "grade": '`"run"`, `"token"` or `"shared"`',
    "issued_at": "when the run began",
    "ends_at": "the run's absolute end, which no renewal moves; of a foreign token, its own",
    "lifetime": "of the run, from its beginning to its absolute end",
    "delegation_depth": "the number of runs above it",
}
ACTION_GROUPS: Final[Mapping[str, str]] = {
    "tools/call": "every tool",
    "read-only": "`readOnlyHint` is true",
    "destructive": "not read-only, and `destructiveHint` is true or absent",
    "open-world": "`openWorldHint` is true or absent",
    "idempotent": "`idempotentHint` is true",
}
OF_A_TOOL: Final[Mapping[str, str]] = {
    "input": "the validated arguments, typed from the tool's signature",
    "facts": "what the tool's `facts=` function adds; only for a tool that has one",
}
CALL: Final[Mapping[str, str]] = {
    "now": "the server's clock",
    "local": "day of the week (1 is Monday) and minute of the day, in the guard's time zone: `Guard(time_zone=…)` "
    "or `wrap --time-zone`, and offline `time_zone` of scenarios or `explain --time-zone`",
    "environment": 'what the guard was made with; `"production"` by default',
    "transport": '`"http"` or `"stdio"`; a call in memory counts as `"stdio"`',
    "run": "what the run [has done before](#what-a-run-has-done) this call",
    "approval?": ("that a person [approved](../how-to/approvals.md) this call: where, who if that is known, and when"),
}
RUN: Final[Mapping[str, str]] = {
    "calls": "how many calls were let run, this one not counted",
    "calls_of_this_tool": "how many of them were of this tool, at this server",
    "denied": "how many were denied",
    "labels": 'what the run carries: `@guard.tool(labels={"untrusted"})`, or `guard.label("untrusted")` inside a tool',
    "spent": "each total that tools of the server declare, with what this call declares to spend: "
    '`amount: Annotated[Decimal, Spend("payments")]`, and what `guard.spend("payments", …)` added',
    "shared": "whether the run was used from elsewhere than where it was first used",
    "started_at": "when the first call of the run came; the time of this one if it is the first",
}
REASONS: Final[Mapping[str, str]] = {
    "permit": "allowed",
    "policy": "a forbid of the organisation matched",
    "no_permit": "no permit of the organisation matched",
    "grant": "the grant of a link does not permit it, or is not valid here",
    "policy_error": "a policy failed to evaluate",
    "missing_entity": "something that can be reached is not there",
    "unguarded": "nobody guards the tool, or it does not exist",
    "invalid_argument": "the arguments do not fit the schema, or have no exact counterpart",
    "unauthenticated": "there is no token, or it cannot be verified now",
    "invalid_token": "the token is not believed",
    "expired": "the token or its run is over",
    "revoked": "the run, or one above it, was ended",
    "approval_required": "a person is asked, and the client calls again with the answer",
    "approval_declined": "a person said no",
    "approval_invalid": "an approval came that is for another call, is over, was used before, or is none",
    "approval_unavailable": (
        "nobody could be asked, nobody answered in time, or the policy accepts no approval that can be had"
    ),
    "credential_unavailable": "the tool's credential could not be had from the broker",
    "credential_leak": "the result held a secret, so it was withheld",
    "evidence_unavailable": "the decision could not be recorded",
    "store_unavailable": "it is not known whether the run was ended",
    "internal_error": "something unexpected happened",
}


def vocabulary_page() -> str:
    """Return the page's Markdown: what stands there, with the tables as they are now."""
    text = PAGE.read_text("utf-8")
    for name, table in _TABLES.items():
        begins = f"<!-- made by docs/vocabulary.py: {name} -->\n"
        before, place, rest = text.partition(begins)
        _, end, after = rest.partition(_END)
        if not place or not end or begins in after:
            message = f"{PAGE}: the table `{name}` wants its place, once: put its two comments there"
            raise SystemExit(message)
        text = f"{before}{begins}\n{table()}\n\n{_END}{after}"
    return text


def _above_policies() -> str:
    names = dict.fromkeys((*ANNOTATIONS, *ABOVE_POLICIES))
    return _table(("Annotation", "Says"), ((f'`@{name}("…")`', ABOVE_POLICIES[name]) for name in names))


def _in_the_schema() -> str:
    rows = ((f'`@{name}("…")`', *cells) for name, cells in IN_THE_SCHEMA.items())
    return _table(("Annotation", "Above", "Says"), rows)


def _types() -> str:
    known = VOCABULARY | {kind.value for kind in OwnType} | {"Invocation"}
    names = [*TYPES, *sorted(known - TYPES.keys())]
    rows = [(f"`{name}`", *TYPES[name]) for name in names]
    rows.append(
        ("yours", "`Tool`, `Resource`, `Prompt`: each that acts on it", "what you declare", "what the argument holds")
    )
    return _table(("Type", "Is in", "Attributes", "Id"), rows)


def _principal() -> str:
    rows = ((f"`{name}`", f"`{kind}`", PRINCIPAL[name]) for name, kind in ATTRIBUTES.items())
    return _table(("Attribute", "Type", "Says"), rows)


def _groups() -> str:
    names = [*ACTION_GROUPS, *sorted(GROUPS - ACTION_GROUPS.keys())]
    return _table(("Group", "Holds"), ((f'`Action::"{name}"`', ACTION_GROUPS[name]) for name in names))


def _context() -> str:
    rows = [(f"`{name}`", "record", says) for name, says in OF_A_TOOL.items()]
    rows += [(f"`{name}`", "record" if name == "run" else f"`{kind}`", CALL[name]) for name, kind in CONTEXT.items()]
    return _table(("Attribute", "Type", "Says"), rows)


def _run() -> str:
    return _table(("Member", "Type", "Says"), ((f"`{name}`", kind, RUN[name]) for name, kind in _run_types()))


def _run_types() -> Iterator[tuple[str, str]]:
    """Yield what a run has done, by the schema: each member with its type."""
    types = read_types(f"entity Call = {CONTEXT['run']};")
    for name, member in types.entities["Call"].attributes.members.items():
        yield name, "a record of `decimal`" if name == "spent" else f"`{member.type}`"


def _reasons() -> str:
    names = [*REASONS, *(reason.value for reason in Reason if reason.value not in REASONS)]
    rows = [(f"`{name}`", REASONS[name], *_told(Reason(name))) for name in names]
    return _table(("Recorded", "Because", "Told: `reason`, `retry`", "Told: the sentence"), rows)


def _told(reason: Reason) -> tuple[str, str]:
    """Return what a caller is told of a denial; nothing of an allow."""
    if reason is Reason.PERMIT:
        return "", ""
    answer = told(Decision(effect=Effect.DENY, reason=reason, id="X"))
    return f"`{answer.meta['reason']}`, `{answer.meta['retry']}`", answer.text.removesuffix(" Decision X.")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, ("---",) * len(head), *rows))
    return "\n".join(line.replace("|  |", "| |") for line in lines)


_TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "annotations of policies": _above_policies,
    "entity types": _types,
    "principal": _principal,
    "groups of actions": _groups,
    "context": _context,
    "run": _run,
    "annotations of the schema": _in_the_schema,
    "reasons": _reasons,
}

if __name__ == "__main__":
    PAGE.write_text(vocabulary_page(), "utf-8")
