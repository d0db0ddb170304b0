"""Judge one call of a tool with one argument, from its Python value to the decision."""

from pathlib import Path
from zoneinfo import ZoneInfo

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import AccessRequest, EntityUid, Reason
from agentguard.policy.conversion.values import Field, record_of, to_cedar
from agentguard.policy.deciding.engine import decide
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.request import base_context
from agentguard.testing import unsafe_invocation

NOW = 1_728_900_000


def outcome(folder: Path, value: object, annotation: object, *, forbid: str, limits: Limits | None = None) -> Reason:
    """Return why a call with the argument ``a`` comes out as it does.

    Everything is permitted but for one rule: *forbid* is its condition.
    """
    limits = limits or Limits()
    (folder / "a.cedar").write_text(
        '@id("all") permit (principal, action, resource);\n'
        f'@id("rule") forbid (principal, action, resource) when {{ {forbid} }};\n',
        "utf-8",
    )
    shape = record_of({"a": Field(annotation)}, where="pay")
    tool = GuardedTool(name="pay", server="s", input=shape, groups=frozenset({"tools/call"}))
    policies = compile_policies(read_folder(folder, limits), [tool], loaders=frozenset(), claims={}, limits=limits)
    try:
        judged = to_cedar({"a": value}, shape, limits)
    except Refusal as refusal:
        return refusal.reason
    request = AccessRequest(
        invocation=unsafe_invocation("agent"),
        action="pay",
        resource=EntityUid("Tool", "pay"),
        context={**base_context(NOW, ZoneInfo("UTC"), "production", "stdio"), "input": judged},
    )
    return decide(request, policies).reason
