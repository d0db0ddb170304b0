"""Whether this process only looks at a server, and keeps nothing of what that asks to be kept.

`agentguard schema` loads a server to ask what it offers. Whatever state the server opens
meanwhile is one in memory: no folder is made, no key, no chain of evidence.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

UNKEPT: Final[ContextVar[bool]] = ContextVar("agentguard_unkept", default=False)
"""Set around what loads a server to look at it."""
