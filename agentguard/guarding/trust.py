"""Whose tokens a guard believes: its options, read as one verifier, and what is made of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.adapters.bearer import BearerVerifier, auth_settings
from agentguard.errors import ConfigurationError
from agentguard.identity.issuers import TrustedIssuer
from agentguard.identity.sources import STDIO_AUDIENCE
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.ended import run_of
from agentguard.lifecycle.local import ISSUER as LOCAL
from agentguard.lifecycle.local import UnsafeLocalIssuer, require_local_audience
from agentguard.state import State
from agentguard.steps.call import ACTING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.adapters.bearer import HttpAuth
    from agentguard.errors import Refusal
    from agentguard.lifecycle.store import Store
    from agentguard.limits import Limits


def read_verifier(
    issuer: str | TrustedIssuer | UnsafeLocalIssuer | None,
    audience: str | None,
    verifier: InvocationVerifier | None,
    *,
    state: object,
    limits: Limits,
    clock: Callable[[], float],
) -> InvocationVerifier:
    """Return the verifier that a guard was asked to have.

    Args:
        issuer: Whom to believe, in short.
        audience: The audience, beside *issuer*.
        verifier: Whom to believe, in full.
        state: What the guard keeps; the local issuer's runs are ended in its own store alone.
        limits: The bounds.
        clock: Gives unix seconds.

    Raises:
        ConfigurationError: With what to change.
    """
    if (issuer is None) == (verifier is None):
        message = "a guard wants one way to verify identities: pass issuer= and audience=, or verifier="
        raise ConfigurationError(message)
    given: object = issuer
    match given:
        case None if audience is None and isinstance(verifier, InvocationVerifier):
            return verifier
        case None:
            message = "verifier= wants an InvocationVerifier, which has the audience: leave out audience="
            raise ConfigurationError(message)
        case str():
            trusted, keys = TrustedIssuer(issuer=given), None
        case TrustedIssuer():
            trusted, keys = given, None
        case UnsafeLocalIssuer():
            require_local_audience(audience)
            _require_store(given, state)
            trusted, keys = given.trusted, {given.trusted.issuer: given.keys}
        case _:
            message = (
                f"issuer= wants a URL, a TrustedIssuer or UnsafeLocalIssuer(), got `{given!r}`: "
                "pass several issuers, or keys, in verifier="
            )
            raise ConfigurationError(message)
    return InvocationVerifier(trusted, audience=audience, keys=keys, limits=limits, clock=clock)


def authorization_server(verifier: InvocationVerifier, resource: str) -> str:
    """Return where a client is sent that has no token.

    Args:
        verifier: Whose tokens the guard believes.
        resource: The server's own address.

    Raises:
        ConfigurationError: The local issuer is trusted, and the server is not on this host.
    """
    first = next(iter(verifier.issuers))
    if LOCAL not in verifier.issuers:
        return first
    require_local_audience(resource)
    # Nobody gives out its tokens over HTTP. A client that looks for who does finds nothing,
    # and has not asked another host.
    return resource if first == LOCAL else first


def own_store(issuer: object) -> Store | None:
    """Return the store in which the local issuer's runs are ended; None for any other issuer."""
    return issuer.store if isinstance(issuer, UnsafeLocalIssuer) else None


def _require_store(local: UnsafeLocalIssuer, state: object) -> None:
    """Pass only if the guard sees when a run of the local issuer was ended."""
    # A folder gets the local issuer's own store; what is no state at all is refused later.
    if not isinstance(state, State) or local.has(state.store):
        return
    message = (
        f"a guard that trusts the local issuer wants its store `{local.path}`, where its runs are ended, "
        "got another one: pass state=FOLDER, which takes that store, or open_state(FOLDER, store=local.store)"
    )
    raise ConfigurationError(message)


def http_auth(verifier: InvocationVerifier, resource_url: str | None, refused: Callable[[Refusal], None]) -> HttpAuth:
    """Return what lets an `MCPServer` take the tokens that *verifier* verifies.

    Args:
        verifier: The guard's.
        resource_url: The server's own address, where the audience is not a URL.
        refused: Told of each token that is refused.

    Raises:
        ConfigurationError: If there is no audience, or it is not a URL.
    """
    audience = verifier.audience
    if audience is None:
        message = "http_auth() wants the audience of tokens over HTTP: pass Guard(audience=…)"
        raise ConfigurationError(message)
    if audience.startswith(STDIO_AUDIENCE):
        message = f"audience `{audience}` is that of a local process: pass the server's URL, stdio finds its own"
        raise ConfigurationError(message)
    resource = resource_url or audience
    return {
        "auth": auth_settings(authorization_server(verifier, resource), resource),
        "token_verifier": BearerVerifier(verifier, resource, refused),
    }


def named_run(verifier: InvocationVerifier, run_id: str, issuer: str | None) -> tuple[str, str]:
    """Return the issuer of a run as evidence names it, and its id there.

    Raises:
        ConfigurationError: If no such run can be one of a trusted issuer.
    """
    acting = ACTING.get()
    acted = [link for link in acting.chain if link.run_id == run_id] if acting is not None else []
    if acted and issuer in {None, acted[0].issuer}:
        # A test acts as this run right here; no issuer that is trusted has to know of it.
        return run_of(acted[0])
    return verifier.issuer_of(run_id, issuer)
