"""A denial in the words of FastMCP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastmcp.exceptions import FastMCPError, ToolError
from mcp import MCPError
from mcp_types import INVALID_REQUEST, ErrorData

from agentguard.adapters.answers import ANSWERS
from agentguard.errors import AccessDenied

if TYPE_CHECKING:
    from mcp_types import CallToolResult

    from agentguard.model import Decision


class FastMCPDenial(ToolError, MCPError, AccessDenied):  # noqa: N818  it is one decision's answer
    """A denied call inside a tool.

    An `AccessDenied`; an error of FastMCP's own, since those alone come through its
    ``server.call_tool(…)`` as they were raised, whether it masks errors or not; and one of
    the protocol, which is all that `ErrorHandlingMiddleware` leaves as it is.
    """

    def __init__(self, decision: Decision) -> None:
        AccessDenied.__init__(self, decision)
        self.error = ErrorData(code=INVALID_REQUEST, message="access denied")
        # It is an answer, which FastMCP would log as a failure.
        self.log_level = logging.DEBUG


class NothingRan(FastMCPError):  # noqa: N818  a way out, and not an error
    """A guarded function would have run, and was not to."""

    def __init__(self) -> None:
        super().__init__("nothing ran", log_level=logging.DEBUG)


class FastMCPAnswers:
    """A denial as FastMCP gives it."""

    def denied(self, decision: Decision) -> CallToolResult:
        """Return a tool result that says it is an error."""
        # FastMCP hands the SDK's own on as it is, past the output schema of the tool.
        return ANSWERS.denied(decision)

    def denied_nested(self, decision: Decision) -> AccessDenied:
        """Return an exception that FastMCP hands through."""
        return FastMCPDenial(decision)
