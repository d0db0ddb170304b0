"""Authorization for AI agents' tool calls: Cedar policies, one identity for each run, evidence."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentguard.public import *  # noqa: F403
else:
    # Its names are imported when the first is asked for: what reads policies needs no MCP server.

    def __getattr__(name: str) -> object:
        if name.startswith("_") and name != "__all__":
            message = f"module `{__name__}` has no attribute `{name}`"
            raise AttributeError(message)
        return getattr(import_module(f"{__name__}.public"), name)

    def __dir__() -> list[str]:
        return [*__getattr__("__all__")]
