"""Runs that are followed by a test: its clock, its store, its ledger, and no thread unless it asks for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext

from agentguard.errors import Refusal
from agentguard.evidence import runs
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.evidence.record import SpanOf, record
from agentguard.evidence.runs import LiveRuns
from agentguard.evidence.spans import Spans
from agentguard.evidence.vocabulary import AttributeValue, RecordKind
from agentguard.lifecycle.store import MemoryStore
from agentguard.limits import Limits
from agentguard.model import Invocation, Reason
from agentguard.testing import unsafe_invocation
from tests.evidence.exporting import tracing
from tests.tokens import ISSUER, NOW, Clock


class Disk(MemoryLedger):
    """A ledger whose disk a test can take away."""

    full = False
    error: Exception = Refusal(Reason.EVIDENCE_UNAVAILABLE, "no space left")

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record*, while there is room."""
        if self.full:
            raise self.error
        return super().append(record)


class Asked(MemoryStore):
    """A store whose answers on reasons a test can take away."""

    down = False

    def revocation(self, **of: Any) -> Any:
        """Answer, while it is up."""
        if self.down:
            raise Refusal(Reason.STORE_UNAVAILABLE, "gone")
        return super().revocation(**of)


class StillThread:
    """A thread that never begins: the test settles itself."""

    started = 0

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        """Count."""
        StillThread.started += 1


@contextmanager
def still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no thread follow runs."""
    with monkeypatch.context() as patch:
        patch.setattr(runs, "Thread", StillThread)
        yield


class Following:
    """Runs that are followed as a guard does, or as an issuer."""

    def __init__(self, *, most: int = 100, spans: bool = True, store: MemoryStore | None = None) -> None:
        self.clock = Clock()
        self.store = Asked(clock=self.clock) if store is None else store
        self.disk = Disk()
        provider, self.exporter = tracing()
        self.runs = LiveRuns(
            store=self.store,
            keep=self._keep,
            clock=self.clock,
            limits=Limits(followed_runs=most),
            spans=Spans(provider) if spans else None,
        )

    def _keep(
        self, attributes: Mapping[str, AttributeValue], *, at: float, trace: SpanOf | tuple[str, str] | None = None
    ) -> None:
        self.disk.append(record(RecordKind.RUN, attributes, at=at, trace=trace))

    def use(self, invocation: Invocation, decision: SpanContext = INVALID_SPAN_CONTEXT) -> None:
        """Let a call run."""
        self.runs.used(invocation, decision)

    def settled(self) -> list[tuple[str, str, str]]:
        """Settle, and return the run, the state and the reason of every record."""
        self.runs.settle()
        return [
            (
                entry["attributes"]["agentguard.run.id"],
                entry["attributes"]["agentguard.run.state"],
                entry["attributes"].get("agentguard.run.reason", ""),
            )
            for entry in self.records()
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return every record."""
        return [entry.record for entry in self.disk]


def run(run_id: str, *ancestors: Invocation, seconds: int = 300, **facts: Any) -> Invocation:
    """Return a run that begins now."""
    given = {"issuer": ISSUER, "issued_at": NOW, "run_ends_at": NOW + seconds, **facts}
    return unsafe_invocation(given.pop("agent", "reader"), run_id=run_id, ancestors=ancestors, **given)
