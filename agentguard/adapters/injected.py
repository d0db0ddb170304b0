"""The parameters of a tool that the SDK fills in, and not its caller."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import (
    build_resolver_plans,
    find_resolved_parameters,
    resolve_arguments,
    returns_input_required,
)
from mcp.server.mcpserver.utilities.context_injection import find_context_parameter
from mcp_types import InputRequiredResult

from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SYNTHETIC_CONTEXT: Final = "agentguard_context"
"""The parameter that asks the SDK for the `Context` that resolvers need."""


@dataclass(frozen=True, slots=True)
class Injected:
    """The parameters of a tool that its caller does not give.

    Attributes:
        context: The `Context` parameter, if there is one.
        resolved: The ``Resolve`` parameters. They are hidden from the SDK, which would
            run them before any decision, and filled after step 6.
    """

    context: str | None
    resolved: Mapping[str, Any]
    plans: Mapping[Any, Any]

    @classmethod
    def of(cls, function: Callable[..., object]) -> Injected:
        """Find them in the function's signature.

        Raises:
            ConfigurationError: If the tool asks its caller in two ways at once.
        """
        resolved = find_resolved_parameters(function)
        if resolved and returns_input_required(function):
            message = (
                f"tool `{function.__name__}` has Resolve parameters and returns InputRequiredResult: "
                "one call can ask its caller in one way, keep one of them"
            )
            raise ConfigurationError(message)
        context = find_context_parameter(function)
        names = set(inspect.signature(function).parameters) - {context} - set(resolved)
        return cls(context, resolved, build_resolver_plans(resolved, names))

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.resolved) | ({self.context} if self.context else frozenset())

    def visible(self, signature: inspect.Signature) -> inspect.Signature:
        """Return the signature to show to the SDK."""
        parameters = [p for p in signature.parameters.values() if p.name not in self.resolved]
        if self.resolved and self.context is None:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(SYNTHETIC_CONTEXT, kind, annotation=Context))
        return signature.replace(parameters=parameters)

    async def fill(self, given: dict[str, Any], arguments: Mapping[str, object]) -> InputRequiredResult | None:
        """Run the resolvers and add what they give to *given*; or return the question to ask.

        Raises:
            Exception: Whatever a resolver raises.
        """
        if not self.resolved:
            return None
        context = given.pop(SYNTHETIC_CONTEXT) if self.context is None else given[self.context]
        filled = await resolve_arguments(self.resolved, self.plans, arguments, context)
        if isinstance(filled, InputRequiredResult):
            return filled
        given.update(filled)
        return None
