"""One guarded function: what its decorator was told, and how it is called.

The wrapper is what a framework registers. It shows the function's own signature, less
what is injected, so that schemas and validation are those of the bare function.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic.fields import FieldInfo

from agentguard.adapters.answers import ANSWERS
from agentguard.adapters.injected import SYNTHETIC_CONTEXT, Injected, signature_of
from agentguard.adapters.surface import Offer
from agentguard.errors import AccessDenied, ConfigurationError, UnmappableTypeError
from agentguard.guarding.spending import declared_totals
from agentguard.lifecycle.tally import is_label
from agentguard.policy.conversion.values import Field, Shape, is_total, record_of, shape_of
from agentguard.policy.schemas.schema import GuardedTool, OwnType, action_of
from agentguard.request import ResourceTemplate
from agentguard.steps.call import Call, Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from agentguard.adapters.surface import Registered
    from agentguard.model import Decision, Invocation


# How many decorators are looked through for a misplaced one.
_WRAPPERS = 32

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(slots=True, eq=False)
class GuardedFunction:
    """A function under the decorator.

    Attributes:
        function: The developer's own.
        offer: What its decorator guards: a tool, a resource or a prompt.
        resource: The template of what it acts on, as given.
        facts: The function that adds ``context.facts``, as given.
        exclude: The arguments that policies do not see.
        record_inputs: The arguments whose values the evidence keeps.
        labels: What a run carries once it was let run.
        spends: The totals that it adds to while it runs.
        injected: The parameters that no caller gives.
        signature: What the framework sees.
        wrapper: What the framework registers.
        rule: How it is judged; None until its server is attached.
        arguments: The names of its arguments, once attached.
    """

    function: Callable[..., Any]
    offer: Offer
    resource: str | None
    facts: Callable[..., object] | None
    exclude: frozenset[str]
    record_inputs: frozenset[str]
    labels: frozenset[str]
    spends: frozenset[str]
    injected: Injected
    signature: inspect.Signature
    wrapper: Callable[..., Any] = field(init=False)
    rule: Rule | None = None
    arguments: tuple[str, ...] = ()

    @classmethod
    def wrap(
        cls,
        function: Callable[..., Any],
        call: Callable[[GuardedFunction, tuple[Any, ...], dict[str, Any]], Awaitable[Any]],
        *,
        offer: Offer = Offer.TOOL,
        resource: str | None,
        facts: Callable[..., object] | None,
        exclude: frozenset[str],
        record_inputs: frozenset[str] = frozenset(),
        labels: frozenset[str] = frozenset(),
        spends: frozenset[str] = frozenset(),
    ) -> GuardedFunction:
        """Wrap *function* so that each call of it goes through *call*.

        Raises:
            ConfigurationError: If the function cannot be guarded.
        """
        if not inspect.isroutine(function):
            got = type(function).__qualname__
            message = f"@guard.{offer.word} wants a function, got `{got}`: decorate the function itself"
            raise ConfigurationError(message)
        what = f"{offer.word} `{function.__name__}`"
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            message = f"{what} is a generator, which would run after its outcome is known: return a list"
            raise ConfigurationError(message)
        try:
            signature = signature_of(function)
            annotations = inspect.get_annotations(function, eval_str=True)
        except (NameError, SyntaxError, TypeError) as error:
            message = f"{what}: its annotations cannot be resolved, {error}: define the types at module level"
            raise ConfigurationError(message) from error
        for parameter in signature.parameters.values():
            if parameter.name == SYNTHETIC_CONTEXT:
                message = f"{what} has an argument `{SYNTHETIC_CONTEXT}`, the guard's own name: rename it"
                raise ConfigurationError(message)
            if parameter.kind in _VARIADIC:
                message = f"{what} takes `{parameter}`: name its arguments, what has no name cannot be judged"
                raise ConfigurationError(message)
        injected = Injected.of(function)
        if injected.resolved and offer is not Offer.TOOL:
            message = (
                f"{what} has Resolve parameters, which only tools have: ask for a Context, and resolve in the function"
            )
            raise ConfigurationError(message)
        _check_names(labels, spends, what)
        visible = injected.visible(signature)
        guarded = cls(function, offer, resource, facts, exclude, record_inputs, labels, spends, injected, visible)

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await call(guarded, args, kwargs)

        # Evaluated: whoever reads a `__signature__` does not evaluate it again.
        wrapper.__signature__ = guarded.signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {
            **{p.name: p.annotation for p in guarded.signature.parameters.values() if p.annotation is not p.empty},
            **({"return": annotations["return"]} if "return" in annotations else {}),
        }
        guarded.wrapper = wrapper
        return guarded

    def settle(self, registered: Registered, server: str) -> Rule:
        """Learn under which name and hints the server has it, and how to judge it.

        Raises:
            ConfigurationError: If it is registered twice, or what the decorator was told
                does not fit the function.
        """
        kind, name = OwnType[registered.offer.name], registered.name
        what = f"{registered.offer.word} `{name}`"
        if self.rule is not None:
            message = (
                f"one guarded function is registered as `{self.rule.tool.itself.id}` and as `{name}`: "
                f"give each {registered.offer.word} a function of its own"
            )
            raise ConfigurationError(message)
        hidden = self.injected.names | {SYNTHETIC_CONTEXT}
        if inspect.ismethod(registered.function):
            hidden |= {next(iter(self.signature.parameters))}
        parameters = {p.name: p for p in self.signature.parameters.values() if p.name not in hidden}
        self.arguments = tuple(parameters)
        for parameter in parameters.values():
            if _alias(parameter):
                message = f"{what}: argument `{parameter.name}` has an alias: name it as the caller does"
                raise ConfigurationError(message)
        if unknown := sorted(self.exclude - parameters.keys()):
            message = f"{what} has no argument `{unknown[0]}`: mend exclude="
            raise ConfigurationError(message)
        self._check_recorded(parameters, what)
        fields = {
            p.name: Field(Any if p.annotation is p.empty else p.annotation)
            for p in parameters.values()
            if p.name not in self.exclude
        }
        shape = record_of(fields, where=name)
        resource = None
        if self.resource is not None:
            resource = ResourceTemplate.parse(self.resource)
            resource.check({p.name: p.annotation for p in parameters.values()}, where=what)
        facts, takes = self._facts(registered, parameters)
        declared = declared_totals(
            shape,
            facts,
            signature_of(self.function).parameters,
            exclude=self.exclude,
            injected=self.injected.names,
            what=what,
        )
        tool = GuardedTool(
            name=action_of(kind, name),
            server=server,
            input=shape,
            facts=facts,
            resource_type=None if resource is None else resource.type,
            groups=registered.groups if kind is OwnType.TOOL else frozenset({registered.offer.value}),
            kind=kind,
            unseen=tuple(sorted(self.exclude)),
            totals=tuple(sorted(self.spends | declared)),
            labels=self.labels,
        )
        self.rule = Rule(
            tool=tool,
            resource=resource,
            facts=self.facts,
            facts_arguments=takes,
            record_inputs=tuple(sorted(self.record_inputs)),
        )
        return self.rule

    def check_private(self, private: Collection[str]) -> None:
        """Refuse to keep in clear what is kept as a digest where it is an entity's id.

        Args:
            private: The entity types whose ids are.

        Raises:
            ConfigurationError: If an argument that is to be kept is such an id.
        """
        rule = self.rule
        if rule is None or rule.resource is None or rule.resource.type not in private:
            return
        if rule.resource.argument in rule.record_inputs:
            message = (
                f"{rule.tool.kind.word} `{rule.tool.itself.id}` keeps `{rule.resource.argument}`, the id of a "
                f"`{rule.resource.type}`, which is private: take it out of record_inputs="
            )
            raise ConfigurationError(message)

    def _check_recorded(self, arguments: Collection[str], what: str) -> None:
        if unknown := sorted(self.record_inputs.difference(arguments), key=str):
            message = f"{what} has no argument `{unknown[0]}`: mend record_inputs="
            raise ConfigurationError(message)
        if unseen := sorted(self.record_inputs & self.exclude):
            # What is kept is what was judged, and this is not.
            message = f"{what} keeps `{unseen[0]}` from policies: take it out of record_inputs= or of exclude="
            raise ConfigurationError(message)

    def _facts(
        self, registered: Registered, parameters: Mapping[str, inspect.Parameter]
    ) -> tuple[Shape | None, tuple[str, ...]]:
        if self.facts is None:
            return None, ()
        what = f"{registered.offer.word} `{registered.name}`"
        takes = tuple(inspect.signature(self.facts).parameters)
        if unknown := [argument for argument in takes if argument not in parameters]:
            message = f"{what} has no argument `{unknown[0]}`, which its facts take: name arguments that it has"
            raise ConfigurationError(message)
        returns = typing.get_type_hints(self.facts, include_extras=True).get("return")
        shape = None if returns is None else shape_of(returns, where=f"{registered.name} facts")
        if shape is None or not shape.cedar.startswith("{"):
            message = f"{what}: its facts want a record, got `{returns}`: declare a TypedDict or dataclass"
            raise ConfigurationError(message)
        return shape, takes

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, exactly as `run` will pass them.

        Raises:
            TypeError: If they do not fit the signature.
        """
        if not args and kwargs.keys() >= set(self.arguments):
            return {name: kwargs[name] for name in self.arguments}
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {name: bound.arguments[name] for name in self.arguments}

    async def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], arguments: Mapping[str, object]) -> Any:
        """Run the resolvers and the function itself, a plain function in a thread.

        An abandoned thread would keep its place past the limit, so a cancelled call
        waits for it; what it returns then is withheld.
        """
        first, given = self._by_name(args, kwargs)
        async with self.injected.filled(given, arguments) as question:
            if question is not None:
                return question
            result = await self._called(first, given)
        if isinstance(result, Iterator | AsyncIterator):
            # Its body would run after the outcome was recorded, and past the run's end.
            message = "a guarded tool returns values, not an iterator of them"
            raise TypeError(message)
        return result

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments by name where they can be: between them are places of what is injected."""
        if not args:
            return args, kwargs
        given = self.signature.bind(*args, **kwargs).arguments
        first = [p.name for p in self.signature.parameters.values() if p.kind is p.POSITIONAL_ONLY]
        return tuple(given.pop(name) for name in first if name in given), given

    async def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(*args, **kwargs)
        else:
            result = await anyio.to_thread.run_sync(functools.partial(self.function, *args, **kwargs))
        return await result if inspect.isawaitable(result) else result


def unmappable(function: Callable[..., object], *, where: str) -> dict[str, str]:
    """Return the arguments of *function* that Cedar cannot hold, each with the reason."""
    hidden: dict[str, str] = {}
    injected = Injected.of(function).names
    for name, parameter in signature_of(function).parameters.items():
        if name in injected:
            continue
        try:
            record_of(
                {name: Field(Any if parameter.annotation is parameter.empty else parameter.annotation)}, where=where
            )
        except UnmappableTypeError as error:
            hidden[name] = str(error)
    return hidden


def _alias(parameter: inspect.Parameter) -> bool:
    """Tell whether the caller sends an argument under another name than the function has."""
    stated = (parameter.default, *getattr(parameter.annotation, "__metadata__", ()))
    return any(isinstance(one, FieldInfo) and (one.alias or one.validation_alias) for one in stated)


def _check_names(labels: Collection[str], spends: Collection[str], what: str) -> None:
    for label in labels:
        check_label(label, what)
    if unfit := [name for name in spends if not is_total(name)]:
        message = f"{what} spends `{unfit[0]}`, which policies cannot write after a dot: name it like `payments`"
        raise ConfigurationError(message)


def check_label(label: object, what: str) -> None:
    """Pass if a run can carry *label*.

    Raises:
        ConfigurationError: If not.
    """
    if not is_label(label):
        message = f"{what} wants labels of 1 to 64 of `A-Za-z0-9_.:/-`, got `{label}`: name it like `untrusted`"
        raise ConfigurationError(message)


def find_guarded(functions: Sequence[GuardedFunction], registered: Registered) -> GuardedFunction | None:
    """Return the guarded function that *registered* runs, if it runs one.

    Raises:
        ConfigurationError: If the decorators are in the wrong order.
    """
    # By identity alone: `functools.wraps` copies every mark.
    wrappers = {id(guarded.wrapper): guarded for guarded in functions}
    function = getattr(registered.function, "__func__", registered.function)
    offer, what = registered.offer, f"{registered.offer.word} `{registered.name}`"
    if guarded := wrappers.get(id(function)):
        if guarded.offer is not offer:
            message = f"{what} has @guard.{guarded.offer.word} on it: write @guard.{offer.word}"
            raise ConfigurationError(message)
        return guarded
    if any(guarded.function is function for guarded in functions):
        message = f"{what} is not guarded: put @guard.{offer.word} below {offer.decorator}"
        raise ConfigurationError(message)
    inner = function
    for _ in range(_WRAPPERS):
        inner = getattr(inner, "__wrapped__", getattr(inner, "func", None))
        if id(inner) in wrappers:
            message = (
                f"{what} has another decorator above @guard.{offer.word}, which would run before the decision: "
                f"put @guard.{offer.word} directly below {offer.decorator}"
            )
            raise ConfigurationError(message)
    return None


class _Direct:
    """How a guarded function that a test calls directly tells of a denial."""

    def denied(self, decision: Decision) -> object:
        raise self.denied_nested(decision)

    def denied_nested(self, decision: Decision) -> AccessDenied:
        return ANSWERS.denied_nested(decision)


def direct_call(acting: Invocation) -> Call:
    """Return the request that stands for a test's direct call of a guarded function."""

    async def identify() -> Invocation:
        return acting

    return Call(identify=identify, answers=_Direct(), transport="stdio")
