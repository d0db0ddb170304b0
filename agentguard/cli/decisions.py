"""Each decision as a line on standard error, for whoever develops a server.

A line says what the evidence says, and no more: names and ids, never a value of an
argument. It is read from the record, once that is kept.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from agentguard.evidence.kept import UnfitRecordError, kept_of
from agentguard.evidence.showing import by
from agentguard.evidence.vocabulary import Outcome, RecordKind
from agentguard.model import Effect, Reason, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agentguard.evidence.kept import Kept
    from agentguard.evidence.ledger import Entry

_LOG: Final = logging.getLogger("agentguard")

_SHORT: Final = 8
_INDENT: Final = " " * 10
_STYLES: Final = {"allow": "green", "ASK": "yellow", "DENY": "red"}
# What came out as it should says nothing that its decision did not say.
_OUTCOMES: Final = frozenset({Outcome.FAILED, Outcome.CANCELLED, Outcome.WITHHELD})
_OF_POLICIES: Final = frozenset({Reason.POLICY, Reason.APPROVAL_UNAVAILABLE, Reason.APPROVAL_DECLINED})


class TellingLedger:
    """A ledger that tells of each record once another ledger has kept it.

    Args:
        ledger: The one that keeps them.
        tell: Is told.
    """

    def __init__(self, ledger: Any, tell: Callable[[Kept], None]) -> None:
        self._ledger = ledger
        self._tell = tell

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record*, and tell of it.

        Raises:
            Refusal: It could not be kept.
        """
        entry: Entry = self._ledger.append(record)
        try:
            self._tell(kept_of(entry))
        except (OSError, UnfitRecordError) as error:
            # It is kept, which is what counts; only nobody reads of it here.
            _LOG.debug("a record could not be shown: %s", error)
        return entry

    async def settled(self, entry: Entry) -> None:
        """Wait as the other ledger does."""
        await self._ledger.settled(entry)

    def close(self) -> None:
        """Close the other ledger."""
        self._ledger.close()

    def __iter__(self) -> Iterator[Entry]:
        """Return what the other ledger holds."""
        return iter(self._ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Writes a line for each decision.

    Attributes:
        places: Where each policy stands, ``file:line``, by its id.
        folder: The folder of policies, as it is shown.
        explain: The command that says why, with `ID` where the decision's id is to stand.
        console: Where to.
    """

    places: Mapping[str, str]
    folder: str
    explain: str
    console: Console

    def __call__(self, record: Kept) -> None:
        """Tell of a record."""
        for line in self.lines(record):
            self.console.print(line, soft_wrap=True)

    def lines(self, record: Kept) -> list[Text]:
        """Return what there is to say of a record: nothing of most."""
        if record.kind == RecordKind.DECISION:
            return self._decision(record)
        if record.kind == RecordKind.REFUSED_TOKEN:
            return [_line(record, "DENY", "a token was refused", "", by(record).removeprefix("1 of "))]
        if record.kind == RecordKind.OUTCOME and record.text("agentguard.execution.outcome") in _OUTCOMES:
            outcome = record.text("agentguard.execution.outcome")
            return [_line(record, outcome, record.text("gen_ai.tool.name"), _who(record), by(record))]
        return []

    def _decision(self, record: Kept) -> list[Text]:
        reason = record.text("agentguard.decision.reason")
        if record.text("agentguard.decision.effect") == Effect.ALLOW:
            return [_line(record, "allow", _what(record), _who(record), by(record))]
        asked = reason == "approval_required"
        named = ", ".join(id_ for id_ in record.policy_ids if id_ in self.places) or reason
        if detail := record.text("agentguard.decision.detail"):
            named += f": {detail}"
        lines = [_line(record, "ASK" if asked else "DENY", _what(record), _who(record), named)]
        hints = [f"why: {self.explain.replace('ID', record.text('agentguard.decision.id'), 1)}"]
        if (place := self._change(record, reason)) and not asked:
            hints.append(f"change it: {place}")
        return [*lines, *([] if asked else [Text(f"{_INDENT}→ {'   '.join(hints)}", style="dim")])]

    def _change(self, record: Kept, reason: str) -> str:
        """Return where to change what decided; nothing where that is no policy."""
        if reason == Reason.NO_PERMIT:
            return self.folder
        places = [self.places[id_] for id_ in record.policy_ids if id_ in self.places]
        return places[0] if places and reason in _OF_POLICIES | {Reason.POLICY_ERROR} else ""


def on_stderr() -> Console:
    """Return standard error, in colour if it is a terminal."""
    return Console(file=sys.stderr, highlight=False, markup=False)


def _line(record: Kept, verdict: str, what: str, who: str, why: str) -> Text:
    moment = datetime.fromtimestamp(record.at).astimezone().strftime("%H:%M:%S")
    return Text.assemble(
        f"{moment}  ",
        (f"{verdict:<6} ", _STYLES.get(verdict, "yellow")),
        f"{printable(what):<24}  ",
        (f"{printable(who):<30}  ", "dim"),
        printable(why),
    )


def _what(record: Kept) -> str:
    """Return what was asked for; with the id of what it acts on, where that is not the tool itself."""
    action = record.text("agentguard.action.id")
    own = record.text("agentguard.resource.type") in {"", "Tool", "Server"}
    return action if own else f"{action}({record.text('agentguard.resource.id')})"


def _who(record: Kept) -> str:
    agent, run = record.text("agentguard.agent.id"), record.text("agentguard.run.id")
    return f"{agent} · run {run[:_SHORT]}" if agent else ""
