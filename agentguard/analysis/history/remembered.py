"""Answers of hindsight, each found once: a run makes many calls that are alike to every policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.history.hindsight import Answer, MisfitError
from agentguard.analysis.history.recorded import may_act_on_others
from agentguard.model import canonical_json
from agentguard.policy.deciding.looks import ITSELF

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from agentguard.analysis.history.hindsight import Hindsight
    from agentguard.analysis.history.replay import Replayed
    from agentguard.model import EntityUid
    from agentguard.policy.deciding.looks import Path

# Each weighs a few hundred bytes.
_KEPT: Final = 100_000
# What is another for nearly every call or run, so it counts only where a policy looks at it.
_RUN: Final = frozenset((("principal", "issued_at"), ("principal", "ends_at")))
# Of these, one member is another for nearly every call too.
_RECORDS: Final = frozenset(("input", "run"))


class Remembered:
    """Asks about each call that differs from the others in something that a policy looks at.

    Attributes:
        examples: One of each kind of call, as many as are to be kept.
    """

    def __init__(self, hindsight: Hindsight, *, keep: int = 0) -> None:
        """Begin without an answer, to keep so many examples."""
        self.examples: list[Replayed] = []
        self._keep = keep
        self._hindsight = hindsight
        self._answers: dict[Hashable, Answer] = {}
        self._permits: dict[Hashable, frozenset[str]] = {}
        self._looks: dict[str, frozenset[Path]] = {}

    def answer(self, replayed: Replayed) -> Answer:
        """Return what the new policies say of a call; a record that does not fit the old ones has no answer."""
        key = self._key(replayed)
        found = self._answers.get(key)
        if found is None:
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            try:
                found = self._hindsight.answer(replayed)
            except MisfitError as error:
                found = Answer(why=str(error))
            self._answers[key] = found
            if len(self.examples) < self._keep:
                self.examples.append(replayed)
        return found

    def could_permit(self, replayed: Replayed) -> frozenset[str]:
        """Return the ids of the new permits that a call can have matched."""
        key = self._key(replayed)
        found = self._permits.get(key)
        if found is None:
            if len(self._permits) >= _KEPT:
                self._permits.clear()
            found = self._permits[key] = self._hindsight.could_permit(replayed)
        return found

    def _key(self, replayed: Replayed) -> Hashable:
        """Return all that an answer depends on."""
        record, request = replayed.record, replayed.request
        looks = self._looks.get(request.action)
        if looks is None:
            looks = self._looks[request.action] = self._hindsight.looks(request.action)
        run = request.invocation
        # Delegated runs are known in part, so a name of one may count.
        itself = ("principal", ITSELF) in looks or bool(run.ancestors)
        return (
            request.action,
            str(request.resource) if self._is_looked_up(request.resource, looks) else "",
            record.text("agentguard.policy.version") == self._hindsight.old.policies.version,
            record.text("agentguard.decision.effect"),
            record.text("agentguard.decision.reason"),
            record.policy_ids,
            replayed.early,
            may_act_on_others(replayed, self._hindsight.old),
            replayed.paths,
            replayed.link,
            replayed.above,
            (run.agent, run.user, run.task, run.purpose, run.issuer, run.grade, run.lifetime, len(run.ancestors)),
            run.run_id if itself else "",
            run.run_ends_at if looks & _RUN else 0,
            canonical_json(_looked_at(request.context, looks)),
            canonical_json([_looked_at({"run": run}, looks) for run in request.runs]),
        )

    def _is_looked_up(self, resource: EntityUid, looks: frozenset[Path]) -> bool:
        """Return whether it counts which entity is acted on: of one that is loaded, nothing else is known."""
        return ("resource",) in looks or resource.type not in self._hindsight.old.written.loaders


def _looked_at(context: Mapping[str, object], looks: frozenset[Path]) -> dict[str, object]:
    """Return the context without the arguments, the times and what the run has done that no policy looks at."""
    seen = {path[1] for path in looks if path[0] == "context" and len(path) > 1}
    if any(path == ("context",) for path in looks):
        return dict(context)
    found: dict[str, object] = {}
    for name, value in context.items():
        if name in _RECORDS and isinstance(value, dict):
            record = ("context", name)
            members = {path[2] for path in looks if path[:2] == record and len(path) > len(record)}
            whole = record in looks
            found[name] = {key: item for key, item in value.items() if whole or key in members}
        elif name in seen:
            found[name] = value
    return found
