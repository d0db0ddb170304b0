"""Read what a token endpoint answers, and believe no more of it than was asked for.

RFC 6749 section 5 and RFC 8693 section 2.2, bytes in and values out. Conditions are stated
as what is accepted; everything else is refused. What is said of a refusal quotes nothing
that came in: a server may repeat what it was sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from agentguard.credentials.broker import SECRET_CHARACTERS
from agentguard.errors import CredentialError
from agentguard.identity.form import read_object

if TYPE_CHECKING:
    from collections.abc import Collection

TYPE: Final = "urn:ietf:params:oauth:token-type:"
"""What the names of tokens' types begin with (RFC 8693 section 3)."""

ACCESS_TOKEN: Final = f"{TYPE}access_token"

_TYPES: Final = frozenset({ACCESS_TOKEN, f"{TYPE}jwt"})
OK: Final = 200
FAILING: Final = 500
"""The least status of a server that has trouble."""

_TOO_MANY: Final = 429
_FAR: Final = 1_000_000_000
# RFC 6749 appendix A: what a token may be written with. A bearer token is narrower still.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_PASSING: Final = frozenset({"temporarily_unavailable", "server_error"})
_CODES: Final = _PASSING | {
    "access_denied",
    "consent_required",
    "interaction_required",
    "invalid_client",
    "invalid_client_metadata",
    "invalid_dpop_proof",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "invalid_token",
    "login_required",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_token_type",
    "use_dpop_nonce",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What an endpoint answered that gave a token, of which nothing else has been believed yet.

    Attributes:
        access_token: The token.
        refresh_token: What gets the next one, if it came and could be sent.
        members: All that was said.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    members: dict[str, object] = field(repr=False)


def check_status(status: int, body: bytes) -> None:
    """Pass only where a request was granted.

    Raises:
        CredentialError: It was not; worth repeating where the server says that it has trouble.
    """
    if status == OK:
        return
    code = _code(body)
    passing = status >= FAILING or status == _TOO_MANY or code in _PASSING
    _refuse(f"answered {status}, `{code}`" if code else f"answered {status}", retry=passing)


def _code(body: bytes) -> str:
    """Return the error's code where it is one that we know: any other text may be ours, repeated."""
    try:
        code = read_object(body).get("error")
    except (ValueError, RecursionError):
        return ""
    return code if isinstance(code, str) and code in _CODES else ""


def read_answer(body: bytes) -> Answer:
    """Read the tokens of an answer: what came may have to be given back, whatever else is wrong with it.

    Raises:
        CredentialError: There is none.
    """
    try:
        members = read_object(body)
    except (ValueError, RecursionError):
        members = {}
    if not members:
        _refuse("answered with something else than one small JSON object")
    token, refresh = members.get("access_token"), members.get("refresh_token")
    if type(token) is not str or len(token) not in SECRET_CHARACTERS or _TOKEN.fullmatch(token) is None:
        _refuse("answered with no `access_token` that a request could carry")
    if type(refresh) is not str or len(refresh) not in SECRET_CHARACTERS or _PRINTABLE.fullmatch(refresh) is None:
        refresh = None
    return Answer(access_token=token, refresh_token=refresh, members=members)


def check_answer(answer: Answer, *, scopes: Collection[str], longest: int, exchanged: bool) -> int:
    """Pass only what was asked for, and return how long it is good, seconds.

    Args:
        answer: What came.
        scopes: Those that were asked for; none leaves them to the server.
        longest: The longest that a token may be good, seconds.
        exchanged: Whether it answers an exchange, which names the type that it issued.

    Raises:
        CredentialError: It is something else.
    """
    members = answer.members
    if answer.refresh_token != members.get("refresh_token"):
        _refuse("answered with a `refresh_token` that is no text")
    kind = members.get("token_type")
    # RFC 6749 section 7.1: a client must not use a token whose type it does not understand.
    # One that is bound to a key (DPoP) would be refused as a plain bearer token.
    if not isinstance(kind, str) or kind.lower() != "bearer":
        _refuse("answered with a `token_type` that is not Bearer")
    if exchanged and members.get("issued_token_type") not in _TYPES:
        _refuse("answered without an `issued_token_type` that is an access token's")
    seconds = members.get("expires_in")
    if type(seconds) is not int or not 0 < seconds <= _FAR:
        _refuse("answered without `expires_in`, the seconds that the token is good")
    if not seconds <= longest:
        _refuse(f"answered with a token of {seconds} s, where at most {longest} s are accepted")
    granted = members.get("scope", "")
    if type(granted) is not str:
        _refuse("answered with a `scope` that is no text")
    # RFC 8693 section 2.2.1 lets it differ. Less may be enough; more is what nobody decided on.
    if scopes and not frozenset(granted.split()) <= frozenset(scopes):
        _refuse("answered with a `scope` that is wider than what was asked for")
    return seconds


def _refuse(what: str, *, retry: bool = False) -> NoReturn:
    message = f"the authorization server {what}"
    raise CredentialError(message, retry=retry)
