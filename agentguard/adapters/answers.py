"""A denial in the words of the MCP SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, ErrorData, TextContent

from agentguard.errors import AccessDenied
from agentguard.steps.denial import META_KEY, told

if TYPE_CHECKING:
    from agentguard.model import Decision
    from agentguard.steps.call import Answers as CallAnswers


class NestedDenial(MCPError, AccessDenied):  # noqa: N818  it is one decision's answer
    """A denied call inside a tool.

    An `AccessDenied`; and an `MCPError`, since that alone comes through the SDK's own
    ``server.call_tool(…)`` as it was raised.
    """

    def __init__(self, decision: Decision) -> None:
        AccessDenied.__init__(self, decision)
        self.error = ErrorData(code=INVALID_PARAMS, message=str(self.args[0]))


class UnjudgedDenial(ToolError, AccessDenied):  # noqa: N818  it is one decision's answer
    """A denied call that no guard could judge.

    An `AccessDenied`; and a `ToolError`, which the SDK answers without a traceback in the log.
    """

    def __init__(self, decision: Decision) -> None:
        AccessDenied.__init__(self, decision)


class Answers:
    """A denial as the SDK's tools give it."""

    def denied(self, decision: Decision) -> CallToolResult:
        """Return a tool result that says it is an error."""
        words = told(decision)
        return CallToolResult(
            content=[TextContent(type="text", text=words.text)], is_error=True, _meta={META_KEY: words.meta}
        )

    def denied_nested(self, decision: Decision) -> AccessDenied:
        """Return an exception that the SDK hands through."""
        return NestedDenial(decision)


ANSWERS: Final = Answers()


class ErrorAnswers:
    """A denial of what has no result that could say so: an error, whatever a framework makes of it on its way.

    Args:
        answers: How the framework is told of a denial inside of it.

    Attributes:
        decision: The denial that answers the request, once there is one.
    """

    def __init__(self, answers: CallAnswers) -> None:
        self.decision: Decision | None = None
        self._answers = answers

    def denied(self, decision: Decision) -> NoReturn:
        """Leave the denial for the answer, and raise it on the way there."""
        self.decision = decision
        raise self._answers.denied_nested(decision)

    def denied_nested(self, decision: Decision) -> AccessDenied:
        """Return an exception that the framework hands through."""
        return self._answers.denied_nested(decision)


class Rehearsed(MCPError):  # noqa: N818  a way out, and not an error
    """A guarded function would have run, and was not to."""

    def __init__(self) -> None:
        super().__init__(code=INVALID_PARAMS, message="nothing ran")


def protocol_denial(decision: Decision) -> MCPError:
    """Return the error that answers a denied request which has no result of its own for that."""
    words = told(decision)
    return MCPError(code=INVALID_PARAMS, message=words.text, data={META_KEY: words.meta})
