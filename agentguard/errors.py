"""Every exception that agentguard raises.

Two kinds. A *refusal* answers a caller: its text is constant, and what the caller
must not learn stays on attributes for the log and the evidence. A *mistake* answers
whoever set the server up: one specific line that ends with the fix.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agentguard.model import Decision, EntityUid, Reason
    from agentguard.policy.problem import Problem

_PLACE: Final = re.compile(r"[^\s:/][^\s:]*:[0-9]+: ")


class AgentGuardError(Exception):
    """Base of every exception that agentguard raises on purpose."""


class ConfigurationError(AgentGuardError):
    """Something was set up wrongly; the message says what to change."""


class PolicyError(ConfigurationError):
    """A policy folder was refused.

    Attributes:
        problems: One line each, ``file:line: what is wrong: the fix``.
        found: The same, with what each of them is called and where exactly it stands;
            files are relative to the folder.
    """

    def __init__(self, problems: Sequence[str], found: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.found = tuple(found)
        super().__init__("\n".join(self.problems))

    def within(self, folder: Path) -> PolicyError:
        """Return the same with the files' whole paths: hosts choose the working folder."""
        return PolicyError([f"{folder}/{p}" if _PLACE.match(p) else p for p in self.problems], self.found)


class UnmappableTypeError(ConfigurationError):
    """An argument's type has no exact counterpart in Cedar."""


class AccessDenied(AgentGuardError):  # noqa: N818  the field's own word for it
    """The call was refused.

    The message is constant because adapters pass it to the caller. What the
    caller must not learn stays on `decision`, for the evidence.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__("access denied")
        self.decision = decision


class Refusal(AgentGuardError):  # noqa: N818  a step's answer, which becomes a denial
    """A step of the guard could not be passed; it becomes a denial.

    Attributes:
        reason: The recorded reason, one of the closed list.
        detail: What happened, for the log alone; never sent to a caller.
        missing: The entity that is not there; its id stands here alone, since its type may be private.
    """

    def __init__(self, reason: Reason, detail: str = "", *, missing: EntityUid | None = None) -> None:
        super().__init__("refused")
        self.reason = reason
        self.detail = detail
        self.missing = missing
        # A traceback shows it to whoever runs the code; the text, which a framework may pass
        # to a caller, stays as it is.
        self.add_note(f"{reason}: {detail}" if detail else str(reason))


class CredentialError(AgentGuardError):
    """There is no credential to be had from the broker, or one could not be given back.

    Attributes:
        detail: What happened, for the log and the evidence; it holds no secret.
        retry: Whether the same may go well a little later.
    """

    def __init__(self, detail: str, *, retry: bool = False) -> None:
        super().__init__("no credential")
        self.detail = detail
        self.retry = retry
        # As of a `Refusal`: for whoever reads the traceback.
        self.add_note(detail)


def raised(error: BaseException) -> str:
    """Return what the log says of an exception: of a refusal why, of any other its class and where it was raised.

    Its text, or that of its cause, may hold an argument, a token or a password.
    """
    if isinstance(error, Refusal):
        return f"{error.reason}: {error.detail}" if error.detail else str(error.reason)
    if isinstance(error, CredentialError):
        return f"no credential: {error.detail}"
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "an unknown place"
    return f"{type(error).__qualname__} was raised at {where}"


class OAuthError(AgentGuardError):
    """A client's request of the issuer was refused.

    Attributes:
        error: The code, as the RFC of the endpoint words it.
        description: For the client's developer; it quotes no token.
    """

    def __init__(self, *, error: str, description: str) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
