"""Listens to everything that our code emits while a test runs, for tokens that some test minted.

Log records of every level, records of every ledger, what ended spans show, reports, and the
texts of our exceptions. What is searched for is a token's signature or claims, whole or
their start or end, and whatever a test registers by `register`.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from agentguard import errors
from agentguard.cli import evidence
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.spans import OpenSpan
from agentguard.lifecycle.signing import TokenSigner

# So much of a signature or of claims is searched for, at their start and their end.
_PART: Final = 32
_SEGMENT: Final = re.compile(rf"[A-Za-z0-9_-]{{{_PART},}}")
_MARK: Final = "leaks"

_emitted: list[tuple[str, str]] = []
_registered: list[str] = []
_parts: set[str] = set()


def minted(token: str) -> str:
    """Search for a token from now on, and return it."""
    for segment in token.split(".")[1:]:
        if len(segment) >= _PART:
            _parts.add(segment[:_PART])
            _parts.add(segment[-_PART:])
    return token


def register(secret: str) -> str:
    """Search for a secret until the end of the test, and return it."""
    _registered.append(secret)
    return secret


def leaked() -> list[str]:
    """Return what was emitted with a secret in it since this was last asked, and forget the rest."""
    emitted, _emitted[:] = _emitted[:], []
    return [f"{source}: {text}" for source, text in emitted if _holds(text)]


def forget() -> None:
    """Search no longer for what a test registered."""
    _registered.clear()


def _holds(text: str) -> bool:
    if any(secret in text for secret in _registered):
        return True
    return any(run[:_PART] in _parts or run[-_PART:] in _parts for run in _SEGMENT.findall(text))


def listen() -> None:
    """Begin to listen, once for each process."""
    log = logging.getLogger("agentguard")
    if hasattr(log, _MARK):
        return
    setattr(log, _MARK, True)
    handle = log.handle
    formatter = logging.Formatter()

    def heard(record: logging.LogRecord) -> None:
        _emitted.append(("log", formatter.format(record)))
        # Listening lets nothing through that the test's own level keeps back.
        if not log.manager.disable >= record.levelno >= 0 and record.levelno >= log.getEffectiveLevel():
            handle(record)

    log.isEnabledFor = lambda level: True  # type: ignore[method-assign]  # noqa: ARG005
    log.handle = heard  # type: ignore[method-assign]
    for ledger in (MemoryLedger, SQLiteLedger):
        _after(ledger, "append", lambda entry, _: ("record", entry.text))
    _after(OpenSpan, "end", lambda _, given: ("span", f"{given[0]._name} {given[1]}"))
    _after(evidence, "report_page", lambda page, _: ("report", page))
    _after(TokenSigner, "sign", lambda issued, _: ("", minted(issued.token)[:0]))
    for kind in (errors.ConfigurationError, errors.CredentialError, errors.Refusal, errors.OAuthError):
        _after(kind, "__init__", lambda _, given: ("error", f"{given[0]} {given[0].__dict__}"))


def _after(owner: Any, name: str, told: Callable[[Any, tuple[Any, ...]], tuple[str, str]]) -> None:
    """Listen to what a function returns, and to what it was given."""
    bare = getattr(owner, name)

    @functools.wraps(bare)
    def listening(*args: Any, **options: Any) -> Any:
        result = bare(*args, **options)
        _emitted.append(told(result, args))
        return result

    setattr(owner, name, listening)


def check() -> None:
    """Pass only if no secret got out since this was last asked.

    Raises:
        AssertionError: One did, with where.
    """
    found = leaked()
    assert not found, f"a secret got out: {found}"
