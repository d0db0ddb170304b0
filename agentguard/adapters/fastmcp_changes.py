"""What comes and goes at a FastMCP server, and at the providers that it has.

FastMCP tells nobody of it, so its own methods are overheard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# How a server, or a provider of one, gets and loses something.
_METHODS: Final = ("add_provider", "add_transform", "_add_component", "_remove_component")


class Changes:
    """The changes of some servers.

    Attributes:
        changed: Called after each; somebody who wants to know puts it there.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._heard: list[object] = []

    def listen(self, owner: Any) -> None:
        """Listen to a server or provider, and to the providers that it has or gets."""
        if not any(one is owner for one in self._heard):
            self._heard.append(owner)
            for method in _METHODS:
                if hasattr(owner, method):
                    self._overhear(owner, method)
        # One in a namespace is inside another provider.
        for provider in (*getattr(owner, "providers", ()), getattr(owner, "_inner", None)):
            if provider is not None:
                self.listen(provider)

    def _overhear(self, owner: Any, method: str) -> None:
        bare = getattr(owner, method)

        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                return bare(*args, **kwargs)
            finally:
                self.listen(owner)
                self.changed()

        setattr(owner, method, called)
