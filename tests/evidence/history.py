"""An hour of a server's evidence for tests: invented, and written as the guard writes it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from agentguard.evidence.kept import Kept, kept_of
from agentguard.evidence.ledger import Entry, Ledger, MemoryLedger
from agentguard.evidence.record import call_attributes, decision_attributes, execution_attributes, record
from agentguard.evidence.vocabulary import AttributeValue, Outcome, RecordKind
from agentguard.model import Decision, Effect, EntityUid, Grade, Invocation, Reason
from agentguard.testing import unsafe_invocation

NINE_THIRTY: Final = 1_795_512_600
ISSUER: Final = "https://issuer.example"
QUARTER: Final = "sha256:9c1e" + "0" * 56 + "a04f"
RESTRICTED: Final = "sha256:41d7" + "1" * 56 + "b102"


@dataclass
class History:
    """Writes records into a ledger, at times of its own."""

    ledger: Ledger = field(default_factory=lambda: MemoryLedger(keep=1_000_000, chain_id="records-1"))
    version: str = QUARTER
    label: str | None = "2026-11-20 quarter end"
    activated_at: int = NINE_THIRTY - 4000
    entries: list[Entry] = field(default_factory=list)
    calls: int = 0

    def keep(self, kind: str, at: float, attributes: dict[str, AttributeValue], span: str = "") -> None:
        """Append one record."""
        trace = (f"{self.calls:032x}", span) if span else None
        written = record(RecordKind.START, attributes, at=at, trace=trace)
        self.entries.append(self.ledger.append({**written, "kind": kind}))

    def call(
        self,
        who: Invocation | None,
        at: float,
        tool: str,
        reason: Reason = Reason.PERMIT,
        *ids: str,
        outcome: Outcome | None = Outcome.COMPLETED,
        stopped_by: Reason | None = None,
        resource: EntityUid | None = None,
        seconds: float = 0.01,
    ) -> str:
        """Append a decision and, if it allows, its outcome; return the decision's id."""
        self.calls += 1
        name = hashlib.sha256(f"{self.calls}".encode()).hexdigest()[:26].upper()
        effect = Effect.ALLOW if reason is Reason.PERMIT else Effect.DENY
        call = call_attributes(method="tools/call", tool=tool, request_id=self.calls)
        decided = decision_attributes(
            decision=Decision(effect=effect, reason=reason, policy_ids=ids, policy_version=self.version, id=name),
            invocation=who,
            action=tool,
            resource=resource or EntityUid("Tool", tool),
            now=at,
            digest=f"hmac-sha256:{hashlib.sha256(repr((tool, resource)).encode()).hexdigest()}",
            policy_label=self.label,
            policy_activated_at=self.activated_at,
            call=call,
        )
        self.keep(RecordKind.DECISION, at, decided, f"{2 * self.calls:016x}")
        if effect is Effect.ALLOW and outcome is not None:
            ended = execution_attributes(
                decision_id=name, invocation=who, outcome=outcome, seconds=seconds, reason=stopped_by, call=call
            )
            self.keep(RecordKind.OUTCOME, at + seconds, ended, f"{2 * self.calls + 1:016x}")
        return name

    def state(self, who: Invocation, at: float, state: str, reason: str = "") -> None:
        """Append what a run is from now on."""
        decided = decision_attributes(
            decision=Decision(effect=Effect.ALLOW, reason=Reason.PERMIT),
            invocation=who,
            action="",
            resource=None,
            now=at,
        )
        life = ("run.", "agent.", "user.", "task.", "purpose", "invocation.", "delegation.", "authority.granted")
        found = {name: value for name, value in decided.items() if name.removeprefix("agentguard.").startswith(life)}
        found["agentguard.run.state"] = state
        if reason:
            found["agentguard.run.reason"] = reason
        self.keep(RecordKind.RUN, at, found)

    def policies(self, at: float, version: str, label: str | None) -> None:
        """Append that other policies came into force."""
        self.version, self.label, self.activated_at = version, label, int(at)
        found: dict[str, AttributeValue] = {
            "agentguard.policy.version": version,
            "agentguard.policy.activated_at": int(at),
        }
        if label is not None:
            found["agentguard.policy.label"] = label
        self.keep(RecordKind.POLICY, at, found)

    @property
    def kept(self) -> list[Kept]:
        """What was written, as it is read."""
        return [kept_of(entry) for entry in self.entries]


def run_of(
    agent: str, number: int, at: float, lasts: int, *, parent: Invocation | None = None, **facts: Any
) -> Invocation:
    """Return a run that begins at a time."""
    name = hashlib.sha256(f"run {number}".encode()).hexdigest()[:32]
    ancestors = () if parent is None else parent.chain
    facts.setdefault("grade", Grade.RUN)
    return unsafe_invocation(
        agent,
        at=at,
        run_id=name,
        issuer=ISSUER,
        run_ends_at=int(at) + lasts,
        token_id=f"jti-{number}",
        ancestors=ancestors,
        **facts,
    )


def an_hour(history: History | None = None) -> History:
    """Return one hour: seven runs, each with something to see."""
    told = history or History()
    nine = NINE_THIRTY

    def at(minutes: float) -> float:
        return nine + 60 * minutes

    told.keep(RecordKind.START, at(0), {"agentguard.policy.version": QUARTER})
    billing = run_of("billing-agent", 1, at(4), 900, task="invoice-42", purpose="monthly close")
    mailer = run_of("mailer", 2, at(9), 180, parent=billing, task="invoice-42")
    support = run_of("support-agent", 3, at(15), 900, user="alice", task="ticket-7")
    claude = run_of("claude-code", 4, at(21), 900)
    second = run_of("billing-agent", 5, at(33), 900, task="invoice-43", purpose="monthly close")
    bob = run_of("support-agent", 6, at(38), 900, user="bob", task="ticket-9")
    batch = run_of("etl-batch", 7, at(6), 3120, grade=Grade.SHARED)
    live = run_of("report-writer", 8, at(52), 900, user="carol", task="board-pack")
    record_7, record_9 = EntityUid("Record", "r7"), EntityUid("Record", "r9")

    for run, begun in ((billing, 4), (mailer, 9), (support, 15), (claude, 21), (second, 33), (bob, 38), (live, 52)):
        told.state(run, at(begun), "issued")
    for minute in (4.6, 5.1, 7.2, 8.4, 11.5, 12.9):
        told.call(billing, at(minute), "read_record", Reason.PERMIT, "billing-reads", resource=record_7)
    told.call(billing, at(6), "export_records", Reason.POLICY, "export-row-limit")
    told.call(billing, at(9.8), "read_record", Reason.POLICY, "restricted-needs-a-person", resource=record_9)
    told.state(billing, at(13.2), "completed", "completed")
    told.call(mailer, at(9.5), "read_record", Reason.PERMIT, "billing-reads", "grant:1", resource=record_7)
    told.call(mailer, at(10.2), "export_records", Reason.GRANT, "grant:1")
    told.call(mailer, at(10.7), "read_record", Reason.PERMIT, "billing-reads", "grant:1", resource=record_7)
    told.state(mailer, at(11), "completed", "completed")
    for minute in (15.8, 17, 20.3):
        told.call(support, at(minute), "search_records", Reason.PERMIT, "support-works-on-records")
    told.call(support, at(18.4), "delete_record", Reason.POLICY, "destructive-needs-approval", resource=record_7)
    told.call(
        support,
        at(24.2),
        "update_record",
        Reason.PERMIT,
        "support-works-on-records",
        outcome=Outcome.WITHHELD,
        stopped_by=Reason.REVOKED,
        seconds=12,
    )
    told.call(
        support,
        at(22),
        "search_records",
        Reason.PERMIT,
        "support-works-on-records",
        outcome=Outcome.CANCELLED,
        stopped_by=Reason.REVOKED,
        seconds=144,
    )
    told.state(support, at(24.4), "revoked", "ticket withdrawn by carol")
    told.call(support, at(24.9), "read_record", Reason.REVOKED, resource=record_7)
    for minute in (22, 23.1):
        told.call(claude, at(minute), "read_record", Reason.PERMIT, "readers", resource=record_7)
    for second_ in range(4):
        told.call(
            claude, at(26.2) + 5 * second_, "read_record", Reason.POLICY, "restricted-needs-a-person", resource=record_9
        )
    told.call(claude, at(33), "search_records", Reason.PERMIT, "readers")
    told.state(claude, at(36), "expired")
    told.policies(at(29), RESTRICTED, "restricted records")
    for minute in (33.5, 35, 36.8, 40.6):
        told.call(second, at(minute), "read_record", Reason.PERMIT, "billing-reads", resource=record_7)
    told.call(
        second,
        at(39),
        "update_record",
        Reason.POLICY,
        "large-write-off",
        "restricted-needs-a-person",
        resource=record_9,
    )
    told.state(second, at(41.7), "completed", "completed")
    for minute in (38.7, 40, 44):
        told.call(bob, at(minute), "read_record", Reason.NO_PERMIT, resource=record_7)
    told.state(bob, at(45), "completed", "completed: ValueError")
    for minute in (8, 12, 16, 23, 28, 34, 39, 50, 55):
        told.call(batch, at(minute), "search_records", Reason.PERMIT, "batch-reads")
    told.call(batch, at(44), "export_records", Reason.POLICY, "export-row-limit")
    told.keep(
        RecordKind.POLICY,
        at(42),
        {
            "agentguard.policy.version": RESTRICTED,
            "agentguard.policy.refused": "20-guardrails.cedar:9: unknown argument",
        },
    )
    told.call(live, at(53), "search_records", Reason.PERMIT, "readers")
    told.call(live, at(57.5), "export_records", Reason.PERMIT, "readers", outcome=None)
    told.call(None, at(47), "tools/list", Reason.INVALID_TOKEN)
    told.keep(
        RecordKind.REFUSED_TOKEN,
        at(47.2),
        {"agentguard.decision.reason": "invalid_token", "agentguard.tokens.refused": 17},
    )
    return told


OWNERS: Final = {
    "restricted-needs-a-person": "data-protection@example.com",
    "export-row-limit": "data-protection@example.com",
    "large-write-off": "billing-team@example.com",
    "destructive-needs-approval": "data-protection@example.com",
}


def many_runs(number: int, seed: int = 1) -> Iterator[Kept]:
    """Yield the records of a busy day: so many runs of ten agents."""
    dice = random.Random(seed)  # noqa: S311  a made-up day
    told = History(ledger=MemoryLedger(keep=10_000_000, chain_id="busy"))
    for place in range(number):
        at = NINE_THIRTY + dice.random() * 40_000
        run = run_of(f"agent-{place % 10}", place, at, 900, task=f"task-{place}", user=f"user-{place % 7}")
        told.state(run, at, "issued")
        for _ in range(dice.randrange(12)):
            allowed = dice.random() < 0.8
            told.call(
                run,
                at + dice.random() * 600,
                f"tool_{dice.randrange(6)}",
                Reason.PERMIT if allowed else Reason.POLICY,
                "reads" if allowed else f"limit-{dice.randrange(5)}",
            )
        told.state(run, at + 600, dice.choice(("completed", "completed", "revoked", "expired")))
    yield from told.kept


def export_line(records: Iterable[Kept]) -> str:
    """Return records as one line of a collector's file exporter."""
    names = {"decision": "agentguard.authorize", "outcome": "agentguard.execute", "run": "agentguard.run"}
    spans = []
    for kept in records:
        attributes: dict[str, AttributeValue] = dict(kept.attributes)
        if kept.kind == "decision":
            attributes |= {
                "agentguard.evidence.chain_id": kept.chain_id,
                "agentguard.evidence.seq": kept.seq,
                "agentguard.evidence.hash": kept.hash,
                "agentguard.evidence.prev_hash": kept.prev_hash,
            }
        spans.append(
            {
                "traceId": kept.trace_id,
                "spanId": kept.span_id,
                "name": f"{names[kept.kind]} {kept.text('gen_ai.tool.name')}",
                "startTimeUnixNano": str(kept.time_unix_nano - 200_000),
                "endTimeUnixNano": str(kept.time_unix_nano),
                "attributes": [{"key": name, "value": any_value(value)} for name, value in attributes.items()],
            }
        )
    return json.dumps(
        {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "agentguard"}, "spans": spans}]}]}
    )


def any_value(value: AttributeValue) -> dict[str, object]:
    """Return a value as OTLP's JSON has it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [{"stringValue": one} for one in value]}}
