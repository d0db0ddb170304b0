"""Decisions on record, and the folders that they were made by, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from agentguard.analysis.workspace import Workspace
from agentguard.evidence.kept import Kept, kept_of
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.record import (
    arguments_digest,
    arrival_attributes,
    decision_attributes,
    record,
)
from agentguard.evidence.runstate import link_attributes, run_state_attributes
from agentguard.evidence.vocabulary import AttributeValue, RecordKind
from agentguard.model import AccessRequest, Decision
from agentguard.policy.files.entityfile import read_entities
from agentguard.policy.files.reader import read_policies
from agentguard.policy.files.source import PolicySource, compile_policies
from agentguard.policy.files.written import Offered, WrittenSchema, write_schema
from agentguard.policy.schemas.fragments import read_fragment
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.policy.schemas.types import read_types
from agentguard.request import ResourceTemplate
from tests.policy.records import ENTITIES, LIMITS, NOW, TOOLS, TYPES

KEY = b"k" * 32
READS = ResourceTemplate.parse("Record::{id}")


@lru_cache(maxsize=256)
def workspace(
    *policies: str,
    entities: str = ENTITIES,
    loaders: tuple[str, ...] = ("Record",),
    tools: tuple[GuardedTool, ...] = TOOLS,
    types: str = TYPES,
    folder: str = "/policies",
    templates: tuple[tuple[str, ResourceTemplate], ...] = (),
) -> Workspace:
    """Return a folder of policies for the tools of these tests, as if it had been opened."""
    text = "\n".join(policies)
    read, problems = read_policies("a.cedar", text, LIMITS)
    known, more = read_entities("cedarentities.json", entities)
    assert problems + more == []
    source = PolicySource(
        folder=folder,
        files=(("a.cedar", text), ("cedarentities.json", entities), ("types/a.cedarschema", types)),
        policies=tuple(read),
        fragments=(read_fragment("types/a.cedarschema", types, LIMITS),),
        entities=tuple(known),
    )
    named = dict(templates)
    offers = tuple(
        Offered(tool=tool, resource=None if tool.resource_type is None else named.get(tool.name, READS))
        for tool in tools
    )
    written = WrittenSchema(server="records", offers=offers, loaders=frozenset(loaders), claims={})
    schema = write_schema(written, source)
    return Workspace(
        folder=Path(folder),
        source=source,
        written=written,
        text=schema,
        types=read_types(schema),
        policies=compile_policies(source, written.tools, loaders=written.loaders, claims={}, limits=LIMITS),
        limits=LIMITS,
    )


def kept(
    request: AccessRequest,
    decision: Decision,
    *,
    inputs: Iterable[str] = (),
    transport: str | None = "http",
    at: float = NOW,
    early: bool = False,
    more: dict[str, AttributeValue] | None = None,
) -> Kept:
    """Return the record of a decision, as a guard keeps it and a reader reads it."""
    judged = request.context["input"]
    assert isinstance(judged, dict)
    named = Decision(
        effect=decision.effect,
        reason=decision.reason,
        policy_ids=decision.policy_ids,
        policy_version=decision.policy_version,
        errors=decision.errors,
        link=decision.link,
        id="D1",
    )
    attributes = decision_attributes(
        decision=named,
        invocation=request.invocation,
        action=request.action,
        resource=None if early else request.resource,
        now=at,
        digest=None if early else arguments_digest(KEY, judged),
        call={
            **({} if transport is None or early else arrival_attributes(transport, at)),
            **({} if early else run_state_attributes(request.context.get("run"), request.runs[:-1])),
            **link_attributes(named, request.invocation),
            **(more or {}),
        },
    )
    ledger = MemoryLedger()
    names = tuple(inputs)
    ledger.append(
        record(
            RecordKind.DECISION,
            attributes,
            at=at,
            inputs=None if early or not names else {name: judged.get(name) for name in names},
        )
    )
    (entry,) = ledger
    assert json.loads(entry.text)
    return kept_of(entry)


def denied(reason: str) -> Kept:
    """Return the record of a denial about which little else is known."""
    return Kept(
        kind="decision",
        time_unix_nano=NOW * 10**9,
        attributes={
            "agentguard.decision.id": "D1",
            "agentguard.decision.effect": "deny",
            "agentguard.decision.reason": reason,
            "agentguard.action.id": "read",
        },
        trace_id="1" * 32,
        span_id="2" * 16,
    )
