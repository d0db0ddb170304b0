"""Whether a yes that comes by a known way could lift what denies a call, before anybody is asked.

Where the answer will come from is known before; who gives it, and when, is not. Nothing runs
on the answer: the call is judged again once there is one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

import cedarpy

from agentguard.policy.deciding.engine import spelled
from agentguard.policy.deciding.given import Given
from agentguard.policy.deciding.reach import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.model import AccessRequest
    from agentguard.policy.deciding.compiled import PolicySet

# No more than somebody: where it makes a difference who it is, it is not looked at.
_SOMEBODY: Final = {"__entity": {"type": "User", "id": "?"}}
_APPROVER: Final = "approval.approver"
# How a residual names what of the approval it depends on. Where a policy has a text like it, a person is asked.
_OPEN: Final = '"approval.'


def might_lift(request: AccessRequest, policies: PolicySet) -> bool:
    """Tell whether the approval in *request* could be enough, whoever gives it and whenever.

    Sound in one direction: what `decide` would allow with one is never refused here.

    Args:
        request: A request that `decide` could judge, with ``context.approval`` from nobody in particular.
        policies: The compiled policies.

    Raises:
        Refusal: If it cannot be judged.
    """
    context = request.context
    approval = cast("dict[str, object]", context["approval"])
    # Whether anybody is named can be asked too, so a yes without a name is another case.
    answers = (context, {**context, "approval": {**approval, "approver": _SOMEBODY}})
    return any(_might_lift(request, answer, policies) for answer in answers)


def _might_lift(request: AccessRequest, context: Mapping[str, object], policies: PolicySet) -> bool:
    """Tell it of one answer: of every link of the chain, for each has to allow the call."""
    action, resource = policies.action(request.action), request.resource
    uid = resource.type, resource.id
    given = Given(request.entities, policies)
    for depth, invocation in enumerate(request.invocation.chain):
        own = request.of_link(depth, context)
        whole, part = json_text(own), json_text(_partial(own))
        link = policies.link(invocation, action)
        entities = given.around(link, action, {uid}, uid)
        handle = policies.slice(link, action, given.closure(link)).handle
        named = {"principal": link.principal, "action": action.uid, "resource": resource.as_json()}
        written = {name: spelled(one) for name, one in named.items()}
        asked = cedarpy.is_authorized_partial({**written, "context": part}, handle, entities)
        if asked.decision is cedarpy.Decision.Deny:
            return False
        # A forbid that is open for its other values alone says the same of every answer, so of this one.
        said = cedarpy.is_authorized({**named, "context": whole}, handle, entities, action.schema)
        forbids = said.diagnostics.reasons if said.decision is cedarpy.Decision.Deny else []
        if any(_OPEN not in json.dumps(asked.residuals[forbid]) for forbid in forbids):
            return False
    return True


def _partial(value: object, path: str = "") -> object:
    """Return Cedar JSON in which partial evaluation can look for the channel.

    It looks into no record that has a call of a function in it, such as that which makes a
    time or a decimal; so these are unknown to it, each by its path, and who approves is too.
    """
    if isinstance(value, dict):
        if "__extn" in value or path == _APPROVER:
            return {"__extn": {"fn": "unknown", "arg": path}}
        return {key: _partial(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list):
        return [_partial(item, f"{path}.{place}") for place, item in enumerate(value)]
    return value
