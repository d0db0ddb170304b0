"""Which policies judge now, and which judge a request that began under others.

A request is judged by one version from its first judgement to its last: what its preflight
left open is decided by the same policies. What a tool calls in turn is a call of its own,
and is judged by what is in force when it comes: the tool around it may run for hours. So
is a call that a person was asked about, when the answer comes: what was approved under
other policies is approved no more.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal, raised
from agentguard.evidence.record import UNCONFIRMED
from agentguard.evidence.vocabulary import RecordKind
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentguard.evidence.trail import Trail
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.steps.call import Call

_LOG: Final = logging.getLogger("agentguard")

_PREVIOUS: Final = "agentguard.policy.previous"


class InForce:
    """The policies of one guard.

    Attributes:
        policies: Those that judge what comes now.
        confirmed: Tells whether they are known to be those of the folder still, or have been
            lately enough; the guard sets it.
    """

    def __init__(self, policies: PolicySet, *, trail: Trail, clock: Callable[[], float]) -> None:
        self.policies = policies
        self.confirmed: Callable[[], bool] = lambda: True
        self._trail = trail
        self._clock = clock
        # Of one that is told each has a key, since event loops in several threads add and remove theirs.
        self._tells: dict[object, Callable[[], None]] = {}

    def adopt(self, policies: PolicySet) -> None:
        """Judge by *policies* from the next call on, from whichever thread this is.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE, if that cannot be kept; the old ones stay in force.
        """
        versions = {"agentguard.policy.version": policies.version, _PREVIOUS: self.policies.version}
        if policies.label is not None:
            versions["agentguard.policy.label"] = policies.label
        self._trail.keep(RecordKind.POLICY, versions)
        policies.activated_at = int(self._clock())
        self.policies = policies
        for tell in tuple(self._tells.values()):
            try:
                tell()
            except Exception as error:  # noqa: BLE001  they are in force, whoever could not be told
                _LOG.error("who waits for other policies could not be told of them: %s", raised(error))

    def tell(self, tell: Callable[[], None]) -> None:
        """Call *tell* whenever other policies are in force, from whichever thread that is."""
        self._tells[object()] = tell

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call *tell* likewise, within the block."""
        key = object()
        self._tells[key] = tell
        try:
            yield
        finally:
            del self._tells[key]

    def pinned(self, call: Call, tool: GuardedTool | None = None) -> PolicySet:
        """Return what judges a request, from now on until it is answered.

        Args:
            call: The request.
            tool: What is called, if it is to be judged now.

        Raises:
            Refusal: POLICY_ERROR, if nobody may be judged by them any more.
        """
        policies = call.policies
        # What a server came to offer in between, or says of itself since, the older ones do not know.
        if policies is None or (tool is not None and not policies.knows(tool)):
            policies = call.policies = self.policies
        self.confirmed_policies()
        return policies

    def confirmed_policies(self) -> PolicySet:
        """Return the policies that are in force.

        Raises:
            Refusal: POLICY_ERROR, if nobody may be judged by them any more.
        """
        policies = self.trusted
        if policies is None:
            raise Refusal(Reason.POLICY_ERROR, UNCONFIRMED)
        return policies

    @property
    def trusted(self) -> PolicySet | None:
        """The policies that are in force; None if nobody may be judged by them any more."""
        return self.policies if self.confirmed() else None
