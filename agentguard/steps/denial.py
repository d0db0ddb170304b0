"""What a caller is told of a denial: little, constant, and enough to act on.

The text depends on the recorded reason alone, but for the deciding policy's own
``@advice`` and the decision's id. So it tells nobody a policy's id, an attribute, or
whether a tool that they may not see exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.model import Reason

if TYPE_CHECKING:
    from agentguard.model import Decision

META_KEY: Final = "agentguard/decision"
"""Where a denied result carries `Told.meta`, under MCP's ``_meta``."""

_DO_NOT_REPEAT: Final = "Do not repeat this call unchanged."


@dataclass(frozen=True, slots=True)
class Told:
    """A denial in the caller's words.

    Attributes:
        text: For the model: one or two sentences and the decision's id.
        meta: For a program: ``{id, effect, reason, retry}``, all strings.
    """

    text: str
    meta: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One coarse kind of denial: its reason and retry on the wire, and its sentence."""

    reason: str
    retry: str
    sentence: str


_DENIED: Final = _Kind("denied", "change", f"Denied by policy. {_DO_NOT_REPEAT}")
_UNAUTHENTICATED: Final = _Kind(
    "unauthenticated", "new_run", "This call carries no identity that can be verified. Start a new run."
)
_APPROVAL: Final = _Kind("approval", "approval", "A person has to approve this call first.")
_UNAVAILABLE: Final = _Kind("unavailable", "later", "Cannot be decided right now. Try again in a minute.")

# `missing_entity`, `unguarded` and `policy_error` read like any other denial: that a
# record, a tool or a broken policy exists is not the caller's to learn.
_KINDS: Final = {
    Reason.POLICY: _DENIED,
    Reason.NO_PERMIT: _DENIED,
    Reason.GRANT: _DENIED,
    Reason.POLICY_ERROR: _DENIED,
    Reason.MISSING_ENTITY: _DENIED,
    Reason.UNGUARDED: _DENIED,
    Reason.UNAUTHENTICATED: _UNAUTHENTICATED,
    Reason.INVALID_TOKEN: _UNAUTHENTICATED,
    Reason.EXPIRED: _Kind("ended", "new_run", "This run's time is over. Start a new run."),
    Reason.REVOKED: _Kind("ended", "never", "This run was ended. Do not call again."),
    Reason.INVALID_ARGUMENT: _Kind(
        "invalid_argument",
        "change",
        "The arguments cannot be judged safely (see the tool's schema). Change them.",
    ),
    Reason.APPROVAL_REQUIRED: _APPROVAL,
    Reason.APPROVAL_DECLINED: _Kind("approval", "change", f"A person declined this call. {_DO_NOT_REPEAT}"),
    Reason.APPROVAL_INVALID: _Kind(
        "approval", "approval", "This approval does not hold, or not for this call. Call again to ask anew."
    ),
    Reason.APPROVAL_UNAVAILABLE: _APPROVAL,
    Reason.EVIDENCE_UNAVAILABLE: _UNAVAILABLE,
    Reason.STORE_UNAVAILABLE: _UNAVAILABLE,
    Reason.CREDENTIAL_UNAVAILABLE: _Kind(
        "unavailable", "later", "A credential that this tool needs cannot be had right now. Try again in a minute."
    ),
    Reason.CREDENTIAL_LEAK: _Kind(
        "denied", "never", "The result was withheld: it held a credential. Do not call this tool so again."
    ),
    Reason.INTERNAL_ERROR: _UNAVAILABLE,
}


def told(decision: Decision) -> Told:
    """Return what the caller learns of *decision*, a denial.

    Raises:
        KeyError: If *decision* is not a denial.
    """
    kind = _KINDS[decision.reason]
    sentence = kind.sentence
    if decision.advice and kind is _DENIED:
        sentence = f"Denied by policy: {decision.advice} {_DO_NOT_REPEAT}"
    elif decision.advice and kind is _APPROVAL:
        sentence = decision.advice
    return Told(
        text=f"{sentence} Decision {decision.id}.",
        meta={"id": decision.id, "effect": "deny", "reason": kind.reason, "retry": kind.retry},
    )
