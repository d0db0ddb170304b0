"""A server of records, and invocations that call its tools, for tests of policies."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from agentguard.errors import PolicyError
from agentguard.limits import Limits
from agentguard.model import AccessRequest, EntityUid, Invocation
from agentguard.policy.conversion.values import Field, Shape, record_of
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.files.entityfile import read_entities
from agentguard.policy.files.reader import read_policies
from agentguard.policy.files.source import PolicySource, compile_policies
from agentguard.policy.schemas.fragments import read_fragment
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.request import base_context
from agentguard.testing import unsafe_invocation

LIMITS = Limits()
NOW = 1_764_000_000
TYPES = "entity Record in [Tool] = { sensitivity: String, owner?: User, sealed?: Bool, price?: decimal };"
ENTITIES = """[
  { "uid": { "type": "User", "id": "alice" }, "attrs": {}, "parents": [{ "type": "Group", "id": "staff" }] },
  { "uid": { "type": "User", "id": "bob" }, "attrs": {}, "parents": [] }
]"""
ALL = '@id("all") permit (principal, action, resource);'


def tool(name: str, shape: Shape, *groups: str, resource: str | None = None) -> GuardedTool:
    """Return a guarded tool in the given groups."""
    return GuardedTool(
        name=name, server="records", input=shape, resource_type=resource, groups=frozenset({"tools/call", *groups})
    )


READ = tool("read", record_of({"id": Field(str)}, where="read"), "read-only", resource="Record")
SEARCH = tool(
    "search",
    record_of({"text": Field(str), "rows": Field(int), "price": Field(Decimal, required=False)}, where="search"),
    "read-only",
    "open-world",
)
TOOLS = (READ, SEARCH)


def policy_set(
    *policies: str,
    tools: Sequence[GuardedTool] = TOOLS,
    types: str = TYPES,
    entities: str = ENTITIES,
    loaders: Iterable[str] = ("Record",),
    claims: Mapping[str, type] | None = None,
    limits: Limits = LIMITS,
) -> PolicySet:
    """Compile policies, without a folder."""
    text = "\n".join(policies)
    read, problems = read_policies("a.cedar", text, limits)
    known, more = read_entities("cedarentities.json", entities)
    assert problems + more == []
    source = PolicySource(
        folder="/policies",
        files=(("a.cedar", text), ("cedarentities.json", entities), ("types/a.cedarschema", types)),
        policies=tuple(read),
        fragments=(read_fragment("types/a.cedarschema", types, limits),),
        entities=tuple(known),
    )
    return compile_policies(source, tools, loaders=frozenset(loaders), claims=claims or {}, limits=limits)


def problems(*policies: str, **setting: object) -> list[str]:
    """Return why policies are refused, one line each."""
    with pytest.raises(PolicyError) as caught:
        policy_set(*policies, **setting)  # type: ignore[arg-type]
    return list(caught.value.problems)


def forbid(condition: str, head: str = "principal, action, resource") -> str:
    """Return a policy on two lines."""
    return f'@id("a") forbid ({head})\nwhen {{ {condition} }};'


def record(id_: str = "r1", **attributes: object) -> dict[str, object]:
    """Return a record as a loader gives it."""
    attributes.setdefault("sensitivity", "normal")
    return {"uid": uid("Record", id_), "attrs": attributes, "parents": [uid("Tool", "read")]}


def uid(type_: str, id_: str) -> dict[str, str]:
    """Return the structured form of an entity's name."""
    return {"type": type_, "id": id_}


def reference(type_: str, id_: str) -> dict[str, object]:
    """Return the explicit form of a reference."""
    return {"__entity": uid(type_, id_)}


def context(**values: object) -> dict[str, object]:
    """Return a call's context with these arguments."""
    return {**base_context(NOW, ZoneInfo("UTC"), "production", "stdio"), "input": values}


def reads(invocation: Invocation | None = None, *entities: Mapping[str, object], id_: str = "r1") -> AccessRequest:
    """Return a request to read a record, which is loaded if nothing else is said."""
    return AccessRequest(
        invocation=invocation or unsafe_invocation("reader"),
        action="read",
        resource=EntityUid("Record", id_),
        context=context(id=id_),
        entities=entities or (record(id_),),
    )


def searches(invocation: Invocation | None = None, *, text: object = "x", rows: object = 1) -> AccessRequest:
    """Return a request to search, which acts on the tool itself."""
    return AccessRequest(
        invocation=invocation or unsafe_invocation("reader"),
        action="search",
        resource=EntityUid("Tool", "search"),
        context=context(text=text, rows=rows),
    )
