"""What gives credentials for other systems: the protocol, and the values that pass through it.

A broker knows nothing of policies, and whoever asks it has been allowed to. It keeps
nothing either: what was issued is kept, renewed in time and released by `credentials.leases`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from agentguard.credentials.credential import BEARER
from agentguard.credentials.leaks import SHORTEST, Secret, find
from agentguard.errors import ConfigurationError, CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.model import Invocation

NAME_CHARACTERS: Final = 256
"""The longest name of a credential, and the longest lease id."""

SECRET_CHARACTERS: Final = range(SHORTEST, 16 * 1024 + 1)
"""How long a secret may be: a shorter one can be guessed, and is found by accident in any text."""

# A later end is no moment, and no record could hold it.
_YEAR_10000: Final = 253_402_300_800


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CredentialRequest:
    """Who wants which credential, and for how long at most.

    Attributes:
        name: The credential.
        invocation: The run that it is for.
        token: The text of the run's own token, which was verified for this call.
        server: The server's name.
        tool: The tool that wants it.
        until: The run's absolute end, unix seconds: nothing is used past it.
    """

    name: str
    invocation: Invocation
    token: str = field(repr=False)
    server: str
    tool: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IssuedCredential:
    """What a broker gave.

    Attributes:
        secret: The credential itself.
        expires_at: When it ends by itself, unix seconds; before the year 10000. It may be later than
            the run's end, at which it is released.
        lease_id: What names it in records and in the other system's log. It tells nothing of
            the secret.
        token_type: ``Bearer``, or ``N_A`` for what is no access token.
        renewal: What renews it, where that is another secret (a refresh token).
        parts: What is secret by itself where `secret` is made of several things: the password
            beside a name. Each is kept out of what goes out, as `secret` is.

    Raises:
        CredentialError: It is not what a broker may give.
    """

    secret: str = field(repr=False)
    expires_at: float
    lease_id: str
    token_type: str = BEARER
    renewal: str | None = field(default=None, repr=False)
    parts: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for problem in self._problems():
            message = f"the broker gave {problem}"
            raise CredentialError(message)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that nobody else may see."""
        return (self.secret, *self.parts) if self.renewal is None else (self.secret, *self.parts, self.renewal)

    def _problems(self) -> Iterator[str]:
        held = self.secrets
        if not all(type(one) is str and len(one) in SECRET_CHARACTERS for one in held):
            yield f"a secret that is no string of {SECRET_CHARACTERS[0]} to {SECRET_CHARACTERS[-1]} characters"
        if type(self.expires_at) not in {int, float} or not 0 < self.expires_at < _YEAR_10000:
            yield "no end of the credential, in unix seconds"
        if not _is_name(self.lease_id):
            yield f"a lease id that is no printable text of 1 to {NAME_CHARACTERS} characters"
        # It goes into records, and to whoever reads them.
        if any(_tells(self.lease_id, one) for one in held):
            yield "a lease id that holds the secret"
        if not _is_name(self.token_type):
            yield "no type of the credential"


class CredentialBroker(Protocol):
    """Gives short-lived credentials for other systems, and takes them back.

    Its methods are coroutines that may run in several event loops, each at most once at a
    time for one lease. What they raise is a `CredentialError`; anything else counts as one
    that is not worth repeating, but for `release`, which is repeated until *issued* ends.
    """

    @property
    def names(self) -> Collection[str]:
        """The credentials that it gives, known when the server starts."""

    async def issue(self, request: CredentialRequest, /) -> IssuedCredential:
        """Get a credential for a run.

        Raises:
            CredentialError: There is none to be had.
        """

    async def renew(self, issued: IssuedCredential, request: CredentialRequest, /) -> IssuedCredential:
        """Get the next one for the same run, before *issued* ends.

        Where the other system cannot prolong what it gave, this is `issue`. What comes back
        under the same `lease_id` takes the place of *issued*, which is not released then;
        under another one, *issued* is released by itself once nothing uses it.

        Raises:
            CredentialError: There is none to be had; *issued* serves on to its own end.
        """

    async def release(self, issued: IssuedCredential, name: str, /) -> None:
        """Give one back: from then on nobody can use it.

        Args:
            issued: The credential; it may have ended.
            name: Which it is.

        Raises:
            CredentialError: It may still be good, until its end.
        """


def names_of(broker: CredentialBroker) -> frozenset[str]:
    """Return the credentials that a broker gives.

    Raises:
        ConfigurationError: It is no broker, or gives none that a policy could name.
    """
    for method in ("issue", "renew", "release"):
        if not inspect.iscoroutinefunction(getattr(broker, method, None)):
            message = f"`broker` wants a CredentialBroker, got `{type(broker).__name__}`: write `async def {method}`"
            raise ConfigurationError(message)
    given = getattr(broker, "names", None)
    if isinstance(given, str) or not isinstance(given, Collection) or not given:
        message = f"`broker` wants `names`, the credentials that it gives, got `{given!r}`: list them"
        raise ConfigurationError(message)
    for name in given:
        if not _is_name(name):
            message = f"`broker` wants names of 1 to {NAME_CHARACTERS} printable characters, got `{name!r}`: change it"
            raise ConfigurationError(message)
    return frozenset(given)


def _tells(text: str, secret: str) -> bool:
    try:
        return find(text, (Secret("secret", secret),)) is not None
    except ValueError:
        # It cannot be told apart from ordinary text, and whoever holds it refuses it.
        return secret in text


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= NAME_CHARACTERS and value.isprintable()
