"""The parameters of a tool that its framework fills in, and not its caller."""

from __future__ import annotations

import inspect
import sys
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
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

from agentguard.credentials.lending import lent
from agentguard.errors import ConfigurationError
from agentguard.steps.running import before_it_begins

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from agentguard.adapters.fastmcp_injected import Dependencies
    from agentguard.credentials.lending import Lending

SYNTHETIC_CONTEXT: Final = "agentguard_context"
"""The parameter that asks the SDK for the `Context` that resolvers need."""


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return a function's signature with its annotations evaluated.

    Raises:
        Exception: Whatever evaluating an annotation raises.
    """
    signature = inspect.signature(function, eval_str=True)
    if not any(isinstance(parameter.annotation, str) for parameter in signature.parameters.values()):
        return signature
    # FastMCP leaves a signature on functions that it has looked at, which nobody evaluates again.
    annotations = inspect.get_annotations(function, eval_str=True)
    parameters = signature.parameters.values()
    return signature.replace(
        parameters=[p.replace(annotation=annotations.get(p.name, p.annotation)) for p in parameters]
    )


@dataclass(frozen=True, slots=True)
class Injected:
    """The parameters of a tool that its caller does not give.

    Attributes:
        context: The `Context` parameter, if there is one.
        resolved: The ``Resolve`` parameters. They are hidden from the SDK, which would
            run them before any decision, and filled after step 6.
        dependencies: What FastMCP would fill in, hidden and filled likewise.
        credentials: The credentials that the guard gets, likewise, before all others.
    """

    context: str | None
    resolved: Mapping[str, Any]
    plans: Mapping[Any, Any]
    dependencies: Dependencies | None = None
    credentials: Mapping[str, Lending] = field(default_factory=dict)

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
        credentials = lent(signature_of(function).parameters, f"tool `{function.__name__}`")
        names = set(inspect.signature(function).parameters) - {context} - set(resolved) - set(credentials)
        plans = build_resolver_plans(resolved, names)
        return cls(context, resolved, plans, _dependencies_of(function), credentials)

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        names = frozenset(self.resolved).union(self.credentials, {self.context} if self.context else ())
        return names if self.dependencies is None else names | self.dependencies.names

    def visible(self, signature: inspect.Signature) -> inspect.Signature:
        """Return the signature to show to the framework."""
        hidden = frozenset(self.resolved).union(self.credentials)
        owned: tuple[inspect.Parameter, ...] = ()
        if self.dependencies is not None:
            hidden, owned = hidden | self.dependencies.names, self.dependencies.owned
        parameters = [p for p in signature.parameters.values() if p.name not in hidden]
        parameters += owned
        if self.resolved and self.context is None:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(SYNTHETIC_CONTEXT, kind, annotation=Context))
        return signature.replace(parameters=parameters)

    def filled(
        self, given: dict[str, Any], arguments: Mapping[str, object]
    ) -> AbstractAsyncContextManager[InputRequiredResult | None]:
        """Add to *given* what nobody gave, and hold it for as long as the function runs; or give the question to ask.

        Raises:
            Exception: Whatever a resolver or a dependency raises.
        """
        nothing = not self.credentials and not self.resolved and self.dependencies is None
        return nullcontext() if nothing else self._filling(given, arguments)

    @asynccontextmanager
    async def _filling(
        self, given: dict[str, Any], arguments: Mapping[str, object]
    ) -> AsyncGenerator[InputRequiredResult | None]:
        if self.credentials:
            with before_it_begins(self.credentials):
                for name, lending in self.credentials.items():
                    given[name] = await lending
        question = await self._resolve(given, arguments)
        if question is not None or self.dependencies is None:
            yield question
            return
        async with self.dependencies.resolved(given) as resolved:
            given.update(resolved)
            for owned in self.dependencies.owned:
                given.pop(owned.name, None)
            yield None

    async def _resolve(self, given: dict[str, Any], arguments: Mapping[str, object]) -> InputRequiredResult | None:
        """Run the SDK's resolvers and add what they give to *given*; or return the question to ask."""
        if not self.resolved:
            return None
        context = given.pop(SYNTHETIC_CONTEXT) if self.context is None else given[self.context]
        filled = await resolve_arguments(self.resolved, self.plans, arguments, context)
        if isinstance(filled, InputRequiredResult):
            return filled
        given.update(filled)
        return None


def _dependencies_of(function: Callable[..., object]) -> Dependencies | None:
    # A function of FastMCP's can be here only if somebody has imported it.
    if "fastmcp" not in sys.modules:
        return None
    from agentguard.adapters.fastmcp_injected import Dependencies  # noqa: PLC0415  an extra

    return Dependencies.of(function)
