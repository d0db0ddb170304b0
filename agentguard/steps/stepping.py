"""When a denial asks for a token with more scopes.

Whether a call would be allowed with more scopes is a question about a denial that stands
already. So whatever goes wrong here leaves the denial as it was.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agentguard.errors import raised
from agentguard.policy.deciding.scopes import scopes_ever_for, scopes_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from agentguard.model import AccessRequest, Decision, Invocation
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.steps.call import Call, Rule

_LOG: Final = logging.getLogger("agentguard")


async def with_scopes(
    denial: Decision,
    call: Call,
    rule: Rule,
    requests: Sequence[AccessRequest],
    policies: PolicySet,
    *,
    rest: Sequence[Callable[[], Awaitable[AccessRequest]]] = (),
) -> Decision:
    """Return a denial with every scope that the call needs, if its token's lack of some is all that stops it.

    Args:
        denial: What *requests* ended with.
        call: The request that it answers. What is denied inside a tool is the tool's affair.
        rule: What was called.
        requests: What was asked so far.
        policies: What decided.
        rest: Makes the requests for what the call acts on besides.
    """
    if call.depth > 1 or (call.rule is not None and rule is not call.rule):
        return denial
    try:
        scopes = scopes_for(denial, requests, policies)
        if scopes and rest:
            scopes = scopes_for(denial, [*requests, *[await ask() for ask in rest]], policies)
    except Exception as error:  # noqa: BLE001  the denial stands
        return _as_it_was(denial, error)
    return replace(denial, scopes=scopes)


def with_scopes_ever(
    denial: Decision,
    invocation: Invocation,
    action: str,
    policies: PolicySet,
    entities: Sequence[Mapping[str, object]],
) -> Decision:
    """Return a denial of every such call with every scope that some call needs, if it is for them alone."""
    try:
        return replace(denial, scopes=scopes_ever_for(denial, invocation, action, policies, entities))
    except Exception as error:  # noqa: BLE001  the denial stands
        return _as_it_was(denial, error)


def _as_it_was(denial: Decision, error: Exception) -> Decision:
    _LOG.info("it cannot be told whether more scopes would help, because %s", raised(error))
    return denial


def answer(call: Call | None, denial: Decision) -> None:
    """Tell the transport of a denial that answers a request."""
    if call is not None and call.step_up is not None:
        call.step_up.offer(denial)


def allowed(call: Call) -> None:
    """Tell the transport that something may run: from here on the answer is the tool's."""
    if call.step_up is not None:
        call.step_up.close()
