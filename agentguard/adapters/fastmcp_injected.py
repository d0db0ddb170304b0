"""The parameters of a function that FastMCP fills in, and not its caller.

FastMCP resolves them around the function that was registered, which is the guard's
wrapper: before any decision. So the wrapper does not show them, and has them resolved
itself when it is time.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastmcp.server.dependencies import (
    resolve_dependencies,
    transform_context_annotations,
    without_injected_parameters,
)

from agentguard.adapters.injected import signature_of
from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What FastMCP would inject into a function: its context, its sessions and ``Depends`` parameters.

    Attributes:
        names: The parameters' names.
        owned: The arguments that dependencies take from the caller, and the function does not.
    """

    names: frozenset[str]
    owned: tuple[inspect.Parameter, ...]
    _stand_in: Callable[..., object]

    @classmethod
    def of(cls, function: Callable[..., object]) -> Dependencies | None:
        """Find them in the function's signature; None if there are none.

        Raises:
            ConfigurationError: If FastMCP itself cannot make sense of them.
        """
        stand_in = _stand_in(function)
        declared = inspect.signature(stand_in).parameters
        try:
            shown = inspect.signature(without_injected_parameters(transform_context_annotations(stand_in))).parameters
        except (TypeError, ValueError) as error:
            message = f"`{stand_in.__name__}` has a dependency that FastMCP refuses, {error}: mend it"
            raise ConfigurationError(message) from error
        names = frozenset(declared) - frozenset(shown)
        owned = tuple(parameter for name, parameter in shown.items() if name not in declared)
        return cls(names, owned, stand_in) if names else None

    def resolved(self, given: Mapping[str, Any]) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Resolve them, and give them up again afterwards.

        Args:
            given: What the caller gave. An entry under the name of a dependency is ignored.
        """
        return resolve_dependencies(self._stand_in, dict(given))


def _stand_in(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function of the same signature, since FastMCP writes on those that it looks at."""

    def stand_in(**_: object) -> None: ...

    signature = signature_of(function)
    stand_in.__signature__ = signature  # type: ignore[attr-defined]
    stand_in.__annotations__ = {
        p.name: p.annotation for p in signature.parameters.values() if p.annotation is not p.empty
    }
    # What FastMCP says of a dependency that fails names the function.
    stand_in.__name__ = getattr(function, "__name__", type(function).__name__)
    return stand_in
