"""What to tell of a case that came out otherwise than expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.explanations.conditions import conditions_of
from agentguard.analysis.explanations.nearest import nearest
from agentguard.analysis.known import Known
from agentguard.errors import Refusal
from agentguard.model import Reason, printable
from agentguard.policy.deciding.trial import Question
from agentguard.policy.text.syntax import syntax_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.analysis.scenarios.cases import CaseResult
    from agentguard.analysis.supposed import Verdict
    from agentguard.policy.deciding.compiled import PolicySet

_WORDS: Final = {
    Reason.NO_PERMIT: "no permit matched",
    Reason.GRANT: "the grant of the run does not permit it",
    Reason.APPROVAL_REQUIRED: "a person has to approve it",
    Reason.APPROVAL_UNAVAILABLE: "that approval is not enough",
}
_EVER: Final = "no call of this tool by this identity could be allowed"
_SHOWN: Final = 200


def told(verdict: Verdict) -> str:
    """Return a verdict in one line: what it is, by which policies, and why."""
    by = f" by {', '.join(verdict.policy_ids)}" if verdict.policy_ids else ""
    if verdict.allowed:
        return f"allow{by}"
    why = "; ".join(verdict.errors) or (_EVER if verdict.early else _WORDS.get(verdict.reason, ""))
    return printable(f"deny, {verdict.reason}{by}{f': {why}' if why else ''}")


def failure(result: CaseResult, policies: PolicySet) -> tuple[tuple[str, str], ...]:
    """Return what to tell of a case that failed, as pairs of a word and a line.

    Args:
        result: What came of it.
        policies: The policies that it was judged by.

    Returns:
        What was ``wanted``, what was ``got``, and for each policy that was expected and did
        not match, or for the permit that came closest, the first condition that differs.
    """
    lines = [("wanted", str(result.wanted)), ("got", told(result.got))]
    if result.wanted.advice is not None and result.wanted.advice != result.got.advice:
        lines.append(("advice", "none" if result.got.advice is None else f"`{result.got.advice}`"))
    lines += (("nearest", near) for near in _near(result, policies))
    return tuple((word, printable(line)) for word, line in lines)


def _near(result: CaseResult, policies: PolicySet) -> Iterator[str]:
    if not result.requests:
        return
    expected = [id_ for id_ in result.wanted.policy_ids or () if id_ in policies.policies]
    lacking = [id_ for id_ in expected if id_ not in result.got.policy_ids]
    for id_ in lacking:
        yield from _differing(result, id_, policies)
    if not lacking and (near := nearest(result.requests, policies)) is not None:
        yield _line(near.policy.id, near.condition, near.values, wanted=near.wanted)


def _differing(result: CaseResult, id_: str, policies: PolicySet) -> Iterator[str]:
    """Yield the first condition of a policy that kept it from matching, or that it did match."""
    request, depth = result.requests[0], result.got.decisions[0].link
    question, known = Question(request, policies), Known(request, policies, depth)
    try:
        (conditions,) = conditions_of([policies.policies[id_].text], question, known)
    except Refusal:
        # What is missing is told already.
        return
    for condition in conditions:
        if not condition.met:
            yield _line(id_, condition.text, condition.values, wanted=condition.piece.wanted)
            return
    forbids = syntax_of(policies.policies[id_]).effect == "forbid" and result.got.reason is Reason.NO_PERMIT
    ever = "could ever match" if result.got.early else "matched"
    why = f"no permit {ever}: write `reason: no_permit`" if forbids else "is not what decides"
    yield f"{id_}   matches, and {why}"


def _line(id_: str, condition: str, values: Sequence[tuple[str, str]], *, wanted: bool) -> str:
    text = f"{condition[:_SHOWN]}…" if len(condition) > _SHOWN else condition
    # The last word of a path says enough: the condition stands beside it.
    said = ", ".join(f"{path.rpartition('.')[2]} is {value}" for path, value in values)
    return "   ".join(part for part in (id_, text if wanted else f"unless {text}", said) if part)
