"""A tool that is judged on the raw arguments of its caller: no function of it is within reach.

Its framework runs it, or another program does. What is judged is a copy of the JSON
values that came, and the tool gets that copy and nothing else.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentguard.errors import ConfigurationError, Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.jsonschema import arguments_of
from agentguard.policy.conversion.values import check_no_escapes
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.steps.call import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agentguard.adapters.surface import Registered

    T = TypeVar("T")

    Body = Callable[[dict[str, Any]], Awaitable[Any]]
    """The tool itself: runs it with these arguments."""

    Enter = Callable[["RawTool", object, Body], Awaitable[Any]]

_LONGEST_NAME: Final = 256
_SCALARS: Final = (str, int, float, bool, type(None))
_DEFAULT_LIMITS: Final = Limits()


class RawTool:
    """What a surface lets run in place of a tool that it has no function of.

    Attributes:
        rule: How it is judged.
        unseen: The arguments that policies do not see, each with the reason.
    """

    __slots__ = ("_enter", "rule", "unseen")

    def __init__(self, rule: Rule, unseen: Mapping[str, str], enter: Enter) -> None:
        self.rule = rule
        self.unseen = unseen
        self._enter = enter

    @classmethod
    def of(cls, registered: Registered, *, server: str, enter: Enter) -> RawTool:
        """Read how to judge a tool from its JSON Schema.

        Raises:
            ConfigurationError: If it cannot be named.
        """
        name = registered.name
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            message = f"tool `{name[:_LONGEST_NAME]!a}` wants a printable name of at most 256 characters: rename it"
            raise ConfigurationError(message)
        # Its code is out of reach, and so is its schema.
        arguments = arguments_of(registered.schema, where=name, lenient=True)
        unseen = tuple(arguments.unseen)
        tool = GuardedTool(name=name, server=server, input=arguments.shape, groups=registered.groups, unseen=unseen)
        return cls(Rule(tool=tool), arguments.unseen, enter)

    async def __call__(self, arguments: object, body: Body) -> Any:
        """Judge *arguments*, and await *body* with a copy of them if they may pass.

        Args:
            arguments: As the caller sent them; None for none.
            body: Runs the tool.

        Raises:
            AccessDenied: If it is denied, and is nested in another guarded call.
            Exception: Whatever *body* raises.
        """
        return await self._enter(self, {} if arguments is None else arguments, body)


def snapshot(arguments: object, limits: Limits = _DEFAULT_LIMITS) -> dict[str, Any]:
    """Return a copy of JSON values that nobody else can change.

    Raises:
        Refusal: INVALID_ARGUMENT, if they are not plain JSON, are nested too deep, or hold a
            key that Cedar reserves.
    """
    if type(arguments) is not dict:
        raise Refusal(Reason.INVALID_ARGUMENT, "the arguments are no JSON object")
    check_no_escapes(arguments, limits)
    return {_key(name): _copy(value) for name, value in arguments.items()}


def _copy(value: object) -> object:
    if type(value) is dict:
        return {_key(name): _copy(item) for name, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    if type(value) in _SCALARS and (type(value) is not float or isfinite(value)):
        return value
    # A subclass could show one value to the policy and another to the tool.
    raise Refusal(Reason.INVALID_ARGUMENT, f"a `{type(value).__name__}` among the arguments is no JSON value")


def _key(name: object) -> str:
    if type(name) is str:
        return name
    raise Refusal(Reason.INVALID_ARGUMENT, "a key among the arguments is no plain string")
