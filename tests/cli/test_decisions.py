"""Each decision as a line on standard error."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from agentguard import Refusal
from agentguard.cli.decisions import Teller, TellingLedger
from agentguard.evidence.kept import Kept
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.evidence.record import record
from agentguard.evidence.vocabulary import AttributeValue, RecordKind
from agentguard.model import Reason

DECIDED: Mapping[str, AttributeValue] = {
    "agentguard.decision.id": "01M8A6",
    "agentguard.decision.effect": "deny",
    "agentguard.decision.reason": "policy",
    "agentguard.policy.ids": ("limit", "other"),
    "agentguard.action.id": "read",
    "agentguard.resource.type": "Record",
    "agentguard.resource.id": "r1",
    "agentguard.agent.id": "reader",
    "agentguard.run.id": "0123456789",
}


def told(kind: RecordKind, **changes: AttributeValue | None) -> list[str]:
    """Return what is said of a record, without the time of day; names are those of `DECIDED`, with _ for a dot."""
    attributes = {**DECIDED, **{f"agentguard.{name.replace('_', '.')}": value for name, value in changes.items()}}
    written = io.StringIO()
    console = Console(file=written, highlight=False, markup=False)
    teller = Teller(places={"limit": "policies/a.cedar:3"}, folder="policies", explain="look at ID", console=console)
    teller(
        Kept(
            kind=kind.value,
            time_unix_nano=1_800_000_000_000_000_000,
            attributes={name: value for name, value in attributes.items() if value is not None},
        )
    )
    # The time of day, or the arrow with its word, comes first.
    return [
        " ".join(line.split()).partition("why: " if "→" in line else " ")[2] for line in written.getvalue().splitlines()
    ]


def test_denial_names_the_policy_and_where_it_stands() -> None:
    """Of several, those that the folder has."""
    assert told(RecordKind.DECISION) == [
        "DENY read(r1) reader · run 01234567 limit",
        "look at 01M8A6 change it: policies/a.cedar:3",
    ]


@pytest.mark.parametrize(
    ("reason", "ids", "why", "change"),
    [
        (Reason.NO_PERMIT, None, "no_permit", "   change it: policies"),
        (Reason.GRANT, ("grant:0",), "grant", ""),
        (Reason.INVALID_TOKEN, None, "invalid_token", ""),
        (Reason.POLICY, ("elsewhere",), "policy", ""),
        (Reason.POLICY_ERROR, ("limit",), "limit", "   change it: policies/a.cedar:3"),
        (Reason.APPROVAL_DECLINED, ("limit",), "limit", "   change it: policies/a.cedar:3"),
    ],
)
def test_denial_leads_to_what_would_change_it(
    reason: Reason, ids: tuple[str, ...] | None, why: str, change: str
) -> None:
    """And to nothing, where no policy would."""
    lines = told(RecordKind.DECISION, decision_reason=reason.value, policy_ids=ids)

    assert lines == [f"DENY read(r1) reader · run 01234567 {why}", f"look at 01M8A6{' '.join(('', *change.split()))}"]


def test_argument_that_did_not_fit_is_told() -> None:
    """No policy decided, and the word alone would lead nowhere."""
    lines = told(
        RecordKind.DECISION,
        decision_reason="invalid_argument",
        decision_detail="`n` wants a string, got a number",
        policy_ids=None,
    )

    assert lines[0] == "DENY read(r1) reader · run 01234567 invalid_argument: `n` wants a string, got a number"


def test_question_is_no_denial_yet() -> None:
    """There is nothing to look up before it was answered."""
    assert told(RecordKind.DECISION, decision_reason="approval_required") == [
        "ASK read(r1) reader · run 01234567 limit"
    ]


@pytest.mark.parametrize("kind", ["Tool", "Server", None])
def test_tool_that_acts_on_nothing_else_is_its_name(kind: str | None) -> None:
    """And a call that nobody made has nobody's name."""
    lines = told(
        RecordKind.DECISION,
        decision_effect="allow",
        decision_reason="permit",
        resource_type=kind,
        agent_id=None,
    )

    assert lines == ["allow read limit, other"]


@pytest.mark.parametrize(("number", "why"), [(1, "expired"), (3, "3 of expired")])
def test_refused_tokens_are_told(number: int, why: str) -> None:
    """With their number, where it is more than one."""
    assert told(RecordKind.REFUSED_TOKEN, decision_reason="expired", tokens_refused=number, agent_id=None) == [
        f"DENY a token was refused {why}"
    ]


@pytest.mark.parametrize(
    ("outcome", "lines"), [("completed", []), ("withheld", ["withheld reader · run 01234567 revoked"])]
)
def test_outcome_is_told_where_it_is_not_as_decided(outcome: str, lines: list[str]) -> None:
    """A call that completes has been told of."""
    assert told(RecordKind.OUTCOME, execution_outcome=outcome, execution_reason="revoked") == lines


def test_everything_else_is_silent() -> None:
    """Heads, beginnings and runs are for the auditor."""
    assert told(RecordKind.HEAD) == told(RecordKind.RUN) == told(RecordKind.START) == []


def test_names_do_not_steer_the_terminal() -> None:
    """They are chosen by callers: neither escapes nor markup of theirs reach it."""
    (line, _) = told(RecordKind.DECISION, action_id="\x1b[31m[red]", resource_id="\n")

    assert line.startswith("DENY \N{REPLACEMENT CHARACTER}[31m[red](\N{REPLACEMENT CHARACTER})")


class _Settling(MemoryLedger):
    """A ledger in two steps."""

    settled_entries: list[Entry] = []  # noqa: RUF012  one test's
    closed = False

    async def settled(self, entry: Entry) -> None:
        self.settled_entries.append(entry)

    def close(self) -> None:
        self.closed = True


async def test_record_is_told_once_it_is_kept() -> None:
    """In the order of both, and the other ledger does all that it did."""
    kept = _Settling()
    heard: list[Kept] = []
    ledger = TellingLedger(kept, heard.append)

    entry = ledger.append(record(RecordKind.START, {}, at=1))
    await ledger.settled(entry)
    ledger.close()

    assert [one.seq for one in heard] == [1]
    assert list(ledger) == list(kept) == kept.settled_entries == [entry]
    assert kept.closed


def test_record_that_was_not_kept_is_not_told() -> None:
    """A line that nobody can look up would be a lie."""
    heard: list[Kept] = []

    with pytest.raises(Refusal):
        TellingLedger(MemoryLedger(), heard.append).append({"kind": object()})

    assert heard == []


def test_line_that_cannot_be_written_stops_no_call() -> None:
    """The record is kept, which is what counts."""

    def full(_: Any) -> None:
        raise OSError

    ledger = TellingLedger(MemoryLedger(), full)

    assert ledger.append(record(RecordKind.START, {}, at=1)).seq == 1
    assert ledger.append({"no": "record of ours"}).seq == 2
