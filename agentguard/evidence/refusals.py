"""Refused tokens: a flood of them becomes a record a second, with their number."""

from __future__ import annotations

import logging
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Final

from agentguard.evidence.vocabulary import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.model import Reason

_LOG: Final = logging.getLogger("agentguard")


class Refusals:
    """The refused tokens that no record tells of yet. Safe to share between threads."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self._last = float("-inf")
        self._lock = Lock()

    def count(
        self, reason: Reason, now: float, keep: Callable[[RecordKind, dict[str, AttributeValue]], object]
    ) -> None:
        """Count one, and write what has gathered unless a record was written a second ago."""
        with self._lock:
            self._counts[reason] += 1
            if not now - self._last >= 1:
                return
            self._last = now
            counts, self._counts = self._counts, Counter()
        for counted, number in counts.items():
            try:
                keep(
                    RecordKind.REFUSED_TOKEN,
                    {"agentguard.decision.reason": counted.value, "agentguard.tokens.refused": number},
                )
            except Exception:  # noqa: BLE001  a bad token must not become the server's own error
                _LOG.error("%d refused tokens could not be recorded", number)
                with self._lock:
                    self._counts[counted] += number
