"""How a tool asks for a credential: as a parameter that nobody gives, or while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin

from agentguard.credentials.credential import Credential
from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    import inspect
    from collections.abc import Awaitable, Callable, Generator, Mapping


class Lending:
    """One credential of a guard, to be asked for; ask once for each use, since it ends.

    ``Annotated[Credential, guard.credential("crm")]`` is a parameter that is filled before the tool
    runs, and that no schema shows. ``await guard.credential("crm")`` is the same inside an async tool.
    """

    __slots__ = ("_obtain", "name")

    def __init__(self, name: str, obtain: Callable[[str], Awaitable[Credential]]) -> None:
        self.name = name
        self._obtain = obtain

    def __await__(self) -> Generator[Any, Any, Credential]:
        """Get it for the run on whose behalf the running tool was called.

        Raises:
            AccessDenied: If policies forbid it, or none can be had.
        """
        return self._obtain(self.name).__await__()

    def __repr__(self) -> str:
        return f"guard.credential({self.name!r})"


def lent(parameters: Mapping[str, inspect.Parameter], what: str) -> dict[str, Lending]:
    """Return the parameters that are credentials.

    Args:
        parameters: Those of a function, with their annotations evaluated.
        what: The function, for messages.

    Raises:
        ConfigurationError: If one is declared as something else, or a `Credential` is not said which.
    """
    found: dict[str, Lending] = {}
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        metadata = getattr(annotation, "__metadata__", ())
        asked = [item for item in metadata if isinstance(item, Lending)]
        inner = get_args(annotation)[0] if metadata else annotation
        # As a default it would be an argument, which a caller could give instead.
        by_default = isinstance(parameter.default, Lending)
        if not asked and not by_default and not _mentions(inner):
            continue
        unfit = parameter.default is not parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY
        if inner is not Credential or len(asked) != 1 or unfit:
            message = (
                f"{what}: a credential is a parameter without a default, and not before a `/`: "
                f'write `{name}: Annotated[Credential, guard.credential("…")]`'
            )
            raise ConfigurationError(message)
        found[name] = asked[0]
    return found


def _mentions(annotation: object) -> bool:
    """Return whether a type is `Credential`, or made of it."""
    if annotation is Credential:
        return True
    return get_origin(annotation) is not None and any(_mentions(part) for part in get_args(annotation))
