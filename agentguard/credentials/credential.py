"""A credential for another system, as a tool gets it: a value that keeps its secret to itself.

What it protects from is the accident: a log line, a result, a trace, a cache, a copy. Code
that means to get at the secret calls `reveal`, and can be found by that name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeVar, final

from agentguard.errors import ConfigurationError, CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

BEARER: Final = "Bearer"
"""The type of a token that whoever holds it may use (RFC 6750)."""

NOT_A_TOKEN: Final = "N_A"  # noqa: S105  a type, not a secret
"""The type of what is no access token: a password, a set of keys (RFC 8693 section 2.2.1)."""

# RFC 6750 section 2.1: what may stand in the header, which a line break would end.
_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class _Outgoing(Protocol):
    """A request that is about to be sent, as `httpx2` and `requests` know it."""

    @property
    def headers(self) -> MutableMapping[str, str]: ...


_Request = TypeVar("_Request", bound=_Outgoing)


@final
class Credential:
    """A short-lived credential that was made for this run, and ends with it.

    It shows nothing when it is printed, compares by identity, and cannot be copied, pickled
    or serialised. As ``auth=`` of `httpx2` or `requests` it authorizes a request by itself.

    Attributes:
        name: What the guard's broker calls it.
        expires_at: When it ends, unix seconds.
        token_type: ``Bearer``, or ``N_A`` for what is no access token.
    """

    # The secret is held by a function: what walks the slots of a value that it does not know
    # finds nothing to show.
    __slots__ = ("_reveal", "expires_at", "name", "token_type")

    _reveal: Callable[[], str]
    name: str
    expires_at: float
    token_type: str

    def __init__(
        self,
        secret: str,
        *,
        name: str,
        expires_at: float,
        token_type: str = BEARER,
        problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        def reveal() -> str:
            why = problem()
            if why is not None:
                message = f"credential `{name}` {why}: ask for it in each call"
                raise CredentialError(message)
            return secret

        put = object.__setattr__
        put(self, "_reveal", reveal)
        put(self, "name", name)
        put(self, "expires_at", expires_at)
        put(self, "token_type", token_type)

    def reveal(self) -> str:
        """Return the secret itself: pass it on at once, and keep it nowhere.

        Raises:
            CredentialError: It was given back, or the tool of another run runs here.
        """
        return self._reveal()

    def authorization(self) -> dict[str, str]:
        """Return the header that carries it (RFC 6750 section 2.1).

        Raises:
            ConfigurationError: It is no bearer token.
            CredentialError: As `reveal` says.
        """
        # Not by a name of its own, which a traceback with local variables would show.
        if self.token_type.lower() != BEARER.lower() or _BEARER_TOKEN.fullmatch(self._reveal()) is None:
            message = f"credential `{self.name}` is no bearer token: pass what reveal() gives to whom it is for"
            raise ConfigurationError(message)
        return {"Authorization": f"{BEARER} {self._reveal()}"}

    def __call__(self, request: _Request) -> _Request:
        """Put the header on a request, for whoever takes it as ``auth=``."""
        request.headers.update(self.authorization())
        return request

    def __repr__(self) -> str:
        return f"<credential `{self.name}`>"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        message = "a credential cannot be changed"
        raise AttributeError(message)

    def __delattr__(self, name: str) -> NoReturn:
        message = "a credential cannot be changed"
        raise AttributeError(message)

    def __init_subclass__(cls) -> NoReturn:
        # A subclass has a `__dict__`, and whatever else it likes.
        message = "`Credential` wants no subclass"
        raise TypeError(message)

    def __copy__(self) -> NoReturn:
        _stay("copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        _stay("copied")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        _stay("pickled")

    def __getstate__(self) -> NoReturn:
        _stay("pickled")


def _stay(how: str) -> NoReturn:
    message = f"a credential cannot be {how}: it is for this call alone"
    raise TypeError(message)
