"""Read whom an issuer serves: a TOML file of clients and of issuers that are trusted.

What the file says is checked where it is used, by `Client` and `TrustedIssuer`; this adds
where in the file it was said.
"""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentguard.cli.options import seconds
from agentguard.errors import ConfigurationError
from agentguard.identity.form import read_object
from agentguard.identity.issuers import TrustedIssuer
from agentguard.identity.keys import JWKS, FixedKeys
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.clients import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from agentguard.identity.keys import Keys

_Made = TypeVar("_Made")

_FILE_BYTES: Final = 1024 * 1024
_KEYS: Final = ("jwks", "jwks_uri")
_CLIENT: Final = (
    "client_id",
    *_KEYS,
    "audiences",
    "scopes",
    "longest",
    "longest_assertion",
    "may_exchange",
    "may_introspect",
)
_TYPES: Final[Mapping[object, type]] = {"string": str, "integer": int, "boolean": bool, "strings": frozenset}
_PRESETS: Final[Mapping[object, Callable[..., TrustedIssuer]]] = {
    "generic": TrustedIssuer.generic,
    "entra": TrustedIssuer.entra,
    "okta": TrustedIssuer.okta,
    "auth0": TrustedIssuer.auth0,
    "keycloak": TrustedIssuer.keycloak,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Whom an issuer serves.

    Attributes:
        clients: The registered clients.
        trusted: Verifies the tokens that begin runs; None where no issuer is trusted.
    """

    clients: tuple[Client, ...]
    trusted: InvocationVerifier | None


def read_registry(file: Path, *, issuer: str) -> Registry:
    """Read a file of clients.

    Args:
        file: The file; what it names is looked for beside it.
        issuer: The issuer that they are clients of.

    Raises:
        ConfigurationError: It cannot be read, or a name or a value in it will not do.
    """
    try:
        text = _read(file).decode()
        found = tomllib.loads(text)
    except ValueError as error:
        message = f"{file}: it wants to be TOML in UTF-8: {' '.join(str(error).split())}: mend it there"
        raise ConfigurationError(message) from None
    _check_names(found, ("client", "trusted"), str(file))
    clients = tuple(_client(table, file, place) for place, table in _tables(found, "client", file))
    if not clients:
        message = f"{file}: it wants at least one [[client]], got none: nobody could ask for a token"
        raise ConfigurationError(message)
    trusted = [_trusted(table, file, place) for place, table in _tables(found, "trusted", file)]
    if not trusted:
        return Registry(clients=clients, trusted=None)
    keys = {one.issuer: keys for one, keys in trusted if keys is not None}
    verifier = _checked(str(file), lambda: InvocationVerifier(*(one for one, _ in trusted), audience=issuer, keys=keys))
    return Registry(clients=clients, trusted=verifier)


def _tables(found: Mapping[str, Any], name: str, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    tables = found.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        message = f"{file}: {name} wants to be written [[{name}]], once for each: put two brackets"
        raise ConfigurationError(message)
    for number, table in enumerate(tables, 1):
        yield f"{file}: [[{name}]] {number}", table


def _client(table: dict[str, Any], file: Path, place: str) -> Client:
    _check_names(table, _CLIENT, place)
    if "client_id" not in table:
        message = f"{place}: `client_id` is missing: give the client a name"
        raise ConfigurationError(message)
    keys = _keys(table, file, place)
    if keys is None:
        message = f"{place}: it wants jwks or jwks_uri, got neither: say where the client's public keys are"
        raise ConfigurationError(message)
    options = {name: value for name, value in table.items() if name not in _KEYS}
    for name in ("longest", "longest_assertion"):
        if isinstance(options.get(name), str):
            options[name] = _checked(place, partial(seconds, options[name]))
    for name in ("audiences", "scopes"):
        _check_strings(options.get(name, []), name, place)
    return _checked(place, lambda: Client(keys=keys, **options))


def _trusted(table: dict[str, Any], file: Path, place: str) -> tuple[TrustedIssuer, Keys | None]:
    preset = table.get("preset", "generic")
    if not isinstance(preset, str) or preset not in _PRESETS:
        message = (
            f"{place}: `preset` wants one of {_listed(map(str, _PRESETS))}, got `{preset}`: name the make of issuer"
        )
        raise ConfigurationError(message)
    make = _PRESETS[preset]
    parameters = inspect.signature(make).parameters
    _check_names(table, ("preset", *_KEYS, *parameters), place)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in table:
            message = f"{place}: `{name}` is missing: preset {preset} wants it"
            raise ConfigurationError(message)
    options = {name: value for name, value in table.items() if name in parameters}
    if isinstance(options.get("max_lifetime"), str):
        options["max_lifetime"] = _checked(place, partial(seconds, options["max_lifetime"]))
    if "claims" in options:
        options["claims"] = _claims(options["claims"], place)
    return _checked(place, lambda: make(**options)), _keys(table, file, place)


def _claims(given: object, place: str) -> dict[str, type]:
    if not isinstance(given, dict) or any(not isinstance(kind, str) or kind not in _TYPES for kind in given.values()):
        message = f"{place}: `claims` wants {_listed(map(str, _TYPES))} by claim, got `{given}`: say what each holds"
        raise ConfigurationError(message)
    return {name: _TYPES[kind] for name, kind in given.items()}


def _keys(table: dict[str, Any], file: Path, place: str) -> Keys | None:
    given = [name for name in _KEYS if name in table]
    if not given:
        return None
    if len(given) > 1:
        message = f"{place}: it wants jwks or jwks_uri, got both: leave one out"
        raise ConfigurationError(message)
    value = table[given[0]]
    if not isinstance(value, str):
        message = f"{place}: `{given[0]}` wants text, got `{value}`: put it into quotes"
        raise ConfigurationError(message)
    if given[0] == "jwks_uri":
        return _checked(place, lambda: JWKS(url=value))
    path = file.parent / value
    try:
        jwks = read_object(_read(path))
    except (ValueError, RecursionError) as error:
        message = f"{place}: `{path}` wants to be a JWK set in JSON: {error}: export the client's public keys"
        raise ConfigurationError(message) from None
    return _checked(f"{place}: `{path}`", lambda: FixedKeys(jwks))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_FILE_BYTES + 1)
    except OSError as error:
        message = f"`{file}` cannot be read: {error.strerror or type(error).__name__}: name a file that can"
        raise ConfigurationError(message) from None
    if len(raw) > _FILE_BYTES:
        message = f"`{file}` has more than {_FILE_BYTES} bytes: name the right file"
        raise ConfigurationError(message)
    return raw


def _check_strings(value: object, name: str, place: str) -> None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        message = f"{place}: `{name}` wants a list of texts, got `{value}`: put it into brackets and quotes"
        raise ConfigurationError(message)


def _check_names(table: Mapping[str, Any], known: Collection[str], place: str) -> None:
    for name in table:
        if name not in known:
            close = get_close_matches(name, known, 1)
            fix = f"did you mean `{close[0]}`?" if close else f"it may have {_listed(known)}"
            message = f"{place}: there is no `{name}`: {fix}"
            raise ConfigurationError(message)


def _checked(place: str, make: Callable[[], _Made]) -> _Made:
    """Return what *make* makes; a mistake in it is told with its place."""
    try:
        return make()
    except ConfigurationError as error:
        message = f"{place}: {error}"
        raise ConfigurationError(message) from None


def _listed(names: Collection[str] | Iterator[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
