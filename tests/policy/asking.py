"""Ask the real Cedar about one value."""

import json

import cedarpy

from agentguard.limits import Limits
from agentguard.policy.conversion.scalars import CedarJson
from agentguard.policy.conversion.values import shape_of, to_cedar

LIMITS = Limits()
ANYONE = {"type": "Anyone", "id": "a"}


def mapped(value: object, annotation: object) -> CedarJson:
    """Return what the mapping makes of *value*."""
    return to_cedar(value, shape_of(annotation, where="t.a"), LIMITS)


def cedar_says(condition: str, *values: CedarJson, types: str) -> bool:
    """Return whether *condition* holds of ``context.v0``, ``context.v1``…, each of *types*, checked by a schema."""
    members = ", ".join(f"v{place}: {types}" for place in range(len(values)))
    schema = (
        f'entity Anyone; action "a" appliesTo {{ principal: [Anyone], resource: [Anyone], context: {{ {members} }} }};'
    )
    request = {
        "principal": ANYONE,
        "action": {"type": "Action", "id": "a"},
        "resource": ANYONE,
        "context": json.dumps({f"v{place}": value for place, value in enumerate(values)}),
    }
    answer = cedarpy.is_authorized(
        request, f"permit (principal, action, resource) when {{ {condition} }};", "[]", cedarpy.Schema.from_str(schema)
    )
    assert answer.diagnostics.errors == []
    return answer.allowed


def cedar_says_of(condition: str, value: object, annotation: object) -> bool:
    """Return whether *condition* holds of the mapped *value*, as ``context.v0``."""
    return cedar_says(condition, mapped(value, annotation), types=shape_of(annotation, where="t.a").cedar)
