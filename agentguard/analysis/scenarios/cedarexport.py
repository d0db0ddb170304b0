"""Scenarios as what Cedar's own command reads: `cedar run-tests`, of Cedar 4.9 and later.

Cedar judges one principal by one set of policies. What the guard adds to that has no place
there: a chain of delegation, a grant beside the policies, an entity that no loader knows, a
policy that fails to evaluate and so denies. Such cases are left out, and counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.analysis.supposed import decided
from agentguard.model import EntityUid, Reason
from agentguard.policy.deciding.reach import parents_of, uid_of
from agentguard.policy.files.written import named_server, write_schema
from agentguard.request import principal_entities, principal_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.analysis.scenarios.cases import CaseResult
    from agentguard.analysis.workspace import Workspace
    from agentguard.model import AccessRequest

POLICIES: Final = "policies.cedar"
SCHEMA: Final = "schema.cedarschema"
TESTS: Final = "tests.json"

# What Cedar by itself comes to as well.
_CEDARS: Final = frozenset(
    (Reason.PERMIT, Reason.POLICY, Reason.NO_PERMIT, Reason.APPROVAL_REQUIRED, Reason.APPROVAL_UNAVAILABLE)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Files for Cedar's own command.

    Attributes:
        files: What each holds, by its name.
        tests: How many tests there are: one for each resource of a case.
        left_out: How many cases are not among them, by why.
    """

    files: Mapping[str, str]
    tests: int
    left_out: Mapping[str, int]


def export(workspace: Workspace, results: Iterable[CaseResult]) -> Export:
    """Return cases as tests of Cedar's own command, with the policies and the schema that they need."""
    tests: list[dict[str, object]] = []
    left_out: dict[str, int] = {}
    for result in results:
        why = _inexpressible(result)
        if why is not None:
            left_out[why] = left_out.get(why, 0) + 1
            continue
        tests += (_test(workspace, result, request) for request in decided(result.got, workspace.policies))
    texts = [policy.text.strip() for policy in workspace.source.policies]
    return Export(
        files={
            POLICIES: "\n\n".join(texts) + "\n",
            SCHEMA: write_schema(workspace.written, workspace.source, named=named_server(workspace.text)),
            TESTS: json.dumps(tests, indent=2) + "\n",
        },
        tests=len(tests),
        left_out=left_out,
    )


def _inexpressible(result: CaseResult) -> str | None:
    identity = result.case.call.identity
    if identity.ancestors:
        return "of a delegated run"
    if identity.grant is not None:
        return "of a run with a grant"
    if result.got.reason not in _CEDARS:
        return f"that the guard denies by itself, {result.got.reason}"
    if len(result.requests) > 1 and not result.wanted.allows:
        return "in which one of several resources denies the call"
    return None


def _test(workspace: Workspace, result: CaseResult, request: AccessRequest) -> dict[str, object]:
    several = f" on {request.resource}" if len(result.requests) > 1 else ""
    return {
        "name": f"{result.file}:{result.line} {result.name}{several}",
        "request": {
            "principal": str(principal_uid(request.invocation)),
            "action": str(EntityUid("Action", request.action)),
            "resource": str(request.resource),
            "context": request.context,
        },
        "entities": _entities(workspace, request),
        "decision": result.wanted.effect.value,
        "reason": list(result.wanted.policy_ids or ()),
        "num_errors": 0,
    }


def _entities(workspace: Workspace, request: AccessRequest) -> list[Mapping[str, object]]:
    """Return all that the guard knows: its own entities, those of the file, and those of the call."""
    action = workspace.policies.action(request.action)
    resource = (request.resource.type, request.resource.id)
    known = [entity.json for entity in workspace.source.entities]
    return [
        *principal_entities(request.invocation),
        *action.entities,
        *(_acted_on(entity, action.tool.itself) if uid_of(entity["uid"]) == resource else entity for entity in known),
        *request.entities,
    ]


def _acted_on(entity: Mapping[str, object], tool: EntityUid) -> Mapping[str, object]:
    """Return a known entity as it is when a call acts on it: in what acts on it."""
    above = [{"type": type_, "id": id_} for type_, id_ in sorted(parents_of(entity))]
    return {**entity, "parents": [*above, tool.as_json()]}
