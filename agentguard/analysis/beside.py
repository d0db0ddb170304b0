"""What policies said in the shadow of a decision, where the evidence has a record of it.

They were put the very request, with all its arguments, so what such a record says is sure.
That there is none says nothing: judging in the shadow may have rested, or have begun later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.history.hindsight import Answer
from agentguard.evidence.vocabulary import RecordKind
from agentguard.model import Effect, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agentguard.evidence.kept import Kept

_EFFECTS: Final = frozenset(effect.value for effect in Effect)
_REASONS: Final = frozenset(reason.value for reason in Reason)
# It is recorded right after its decision, with what other calls record in between.
_MOST: Final = 10_000
_SAME: Final = ("agentguard.decision.effect", "agentguard.decision.reason", "agentguard.action.id")


class Beside:
    """Decisions of which it could not be told, until a record of the shadow tells it.

    Attributes:
        told: Of how many one has told it.
    """

    def __init__(self, version: str, settle: Callable[[Kept, Answer], None]) -> None:
        """Begin with none.

        Args:
            version: That of the policies that are asked about.
            settle: Is given each decision once, with what they say of it.
        """
        self.told = 0
        self._version = version
        self._settle = settle
        self._waiting: dict[tuple[str, str], tuple[Kept, Answer]] = {}

    def through(self, records: Iterable[Kept]) -> Iterator[Kept]:
        """Yield the records, and look at those of the shadow on the way."""
        for record in records:
            if record.kind == RecordKind.SHADOW:
                self._see(record)
            yield record

    def wait(self, record: Kept, answer: Answer) -> None:
        """Wait with a decision of which *answer* cannot tell."""
        key = _key(record)
        if key in self._waiting:
            # A decision has an id of its own: of two, nobody could say which is meant.
            self._settle(record, answer)
            return
        self._waiting[key] = record, answer
        if len(self._waiting) > _MOST:
            self._settle(*self._waiting.pop(next(iter(self._waiting))))

    def end(self) -> None:
        """Settle what nothing was said of."""
        for record, answer in self._waiting.values():
            self._settle(record, answer)
        self._waiting.clear()

    def _see(self, shadow: Kept) -> None:
        answer = self._answer(shadow)
        found = self._waiting.get(_key(shadow))
        if answer is not None and found is not None and all(found[0].text(n) == shadow.text(n) for n in _SAME):
            del self._waiting[_key(shadow)]
            self.told += 1
            self._settle(found[0], answer)

    def _answer(self, shadow: Kept) -> Answer | None:
        """Return what a record of the shadow says; None if it is of other policies, or does not tell either."""
        effect, reason = shadow.text("agentguard.shadow.effect"), shadow.text("agentguard.shadow.reason")
        if shadow.text("agentguard.shadow.policy.version") != self._version:
            return None
        if (
            effect not in _EFFECTS
            or reason not in _REASONS
            or (effect == Effect.ALLOW) is not (reason == Reason.PERMIT)
        ):
            return None
        ids = shadow.attributes.get("agentguard.shadow.policy.ids", ())
        return Answer(
            effect=Effect(effect),
            reason=Reason(reason),
            # Those of grants have a colon, and are of no folder.
            policy_ids=tuple(sorted(id_ for id_ in ids if ":" not in str(id_))) if isinstance(ids, tuple) else (),
        )


def _key(record: Kept) -> tuple[str, str]:
    return record.chain_id, record.text("agentguard.decision.id")
