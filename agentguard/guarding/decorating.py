"""The decorators of a guard: `Guard.tool`, `Guard.resource`, `Guard.prompt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from agentguard.errors import ConfigurationError
from agentguard.guarding.guarded import GuardedFunction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine

    from agentguard.adapters.surface import Offer

P = ParamSpec("P")
R = TypeVar("R")


class Guarding(Protocol):
    """What a decorator gives for options: a decorator."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


@dataclass(frozen=True, slots=True)
class Decorator:
    """Guards functions of one kind: ``@guard.tool``, or with options ``@guard.tool(resource=…)``.

    Attributes:
        offer: What the functions are: tools, resources or prompts.
        functions: Where they are remembered.
        enter: Answers one call of one of them.
    """

    offer: Offer
    functions: list[GuardedFunction]
    enter: Callable[[GuardedFunction, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(
        self,
        function: None = None,
        /,
        *,
        resource: str | None = None,
        facts: Callable[..., object] | None = None,
        exclude: Collection[str] = (),
        record_inputs: Collection[str] = (),
        labels: Collection[str] = (),
        spends: Collection[str] = (),
    ) -> Guarding: ...

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        resource: str | None = None,
        facts: Callable[..., object] | None = None,
        exclude: Collection[str] = (),
        record_inputs: Collection[str] = (),
        labels: Collection[str] = (),
        spends: Collection[str] = (),
    ) -> Any:
        """Guard a function.

        Args:
            function: The function, async or plain (it then runs in a thread).
            resource: What a call acts on, for example ``"Record::{record_id}"``, or
                ``"Record::{record_ids[*]}"`` for each of several; the tool, resource or
                prompt itself if left out.
            facts: A pure function of some of the arguments, by name, that returns a
                TypedDict, dataclass or model: ``context.facts``.
            exclude: Arguments that policies do not see.
            record_inputs: Arguments whose values the evidence keeps, as they were judged. Of
                the others it keeps a digest of all of them together.
            labels: What the run carries from the moment on at which this may run, such as
                ``{"untrusted"}``: ``context.run.labels``.
            spends: The totals of the run that the function adds to by `Guard.spend`. What an
                argument or a fact adds, `Spend` says there.

        Raises:
            ConfigurationError: If the function cannot be guarded.
        """

        def guard(bare: Callable[..., Any]) -> Callable[..., Any]:
            for option, names in (
                ("exclude", exclude),
                ("record_inputs", record_inputs),
                ("labels", labels),
                ("spends", spends),
            ):
                if isinstance(names, str):
                    message = f"{option}= wants several names, got `{names}`: write {option}=(`{names}`,)"
                    raise ConfigurationError(message)
            guarded = GuardedFunction.wrap(
                bare,
                self.enter,
                offer=self.offer,
                resource=resource,
                facts=facts,
                exclude=frozenset(exclude),
                record_inputs=frozenset(record_inputs),
                labels=frozenset(labels),
                spends=frozenset(spends),
            )
            self.functions.append(guarded)
            return guarded.wrapper

        return guard if function is None else guard(function)
