"""What the log says of a denial: whose call it was, and what there was against it.

For whoever runs the server; the caller's own words are those of `denial`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.model import Reason, naming, printable

if TYPE_CHECKING:
    from agentguard.model import Decision, Invocation

# As long as the commands show it.
_SHORT: Final = 8

_WHY: Final = {
    Reason.GRANT: "the run's grant does not permit it",
    Reason.NO_PERMIT: "no policy permits it",
    Reason.EXPIRED: "the run's time is over",
    Reason.REVOKED: "the run was ended",
    Reason.EVIDENCE_UNAVAILABLE: "the evidence cannot be kept, an error in this log says why",
}

# Here a policy asks for a person and something else says why there is none: both are to be known.
_OF_BOTH: Final = frozenset({Reason.APPROVAL_DECLINED, Reason.APPROVAL_UNAVAILABLE})

# Reasons for which a decision says which link of the chain it was about.
_OF_A_LINK: Final = frozenset(
    {
        Reason.POLICY,
        Reason.NO_PERMIT,
        Reason.GRANT,
        Reason.POLICY_ERROR,
        Reason.APPROVAL_REQUIRED,
        Reason.APPROVAL_DECLINED,
        Reason.APPROVAL_UNAVAILABLE,
    }
)


def denied(decision: Decision, *, tool: str | None, invocation: Invocation | None) -> str:
    """Return the line for a denial, or for the question that a person is asked in its place.

    Args:
        decision: The denial, with its id.
        tool: The guarded tool that was called, if it was one.
        invocation: Who called, if that is known.
    """
    what = "a call" if tool is None else f"`{tool}`"
    whose = "" if invocation is None else f" to {_named(invocation)}"
    # Errors name policies and types, never a value; an entity that has to be listed is named, or by its digest.
    errors = "; ".join(naming(error, decision.missing) for error in decision.errors)
    policies = ", ".join(decision.policy_ids)
    both = "; ".join(filter(None, (policies, errors))) if decision.reason in _OF_BOTH else ""
    why = both or errors or policies or _WHY.get(decision.reason, "nothing more")
    above = ""
    if invocation is not None and decision.reason in _OF_A_LINK and decision.link < len(invocation.ancestors):
        above = f", for {_named(invocation.ancestors[decision.link])} above it"
    elif invocation is not None and decision.scopes:
        above = f"; its token lacks `{' '.join(sorted(set(decision.scopes) - invocation.scopes))}`"
    if decision.reason is Reason.APPROVAL_REQUIRED:
        # Nothing is denied yet: the next request brings the answer.
        whose = whose.replace(" to ", " of ", 1)
        return f"a person is asked about {what}{whose}, decision {decision.id}, {decision.reason}: {why}{above}"
    return f"denied {what}{whose}, decision {decision.id}, {decision.reason}: {why}{above}"


def _named(link: Invocation) -> str:
    run = link.run_id.removeprefix(link.prefix)[:_SHORT]
    return printable(f"agent `{link.agent}`, run `{link.prefix}{run}`")
