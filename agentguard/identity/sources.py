"""Where a call's token comes from when it does not come over HTTP."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.form import peek
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

TOKEN_VARIABLE: Final = "AGENTGUARD_TOKEN"  # noqa: S105  the variable's name
TOKEN_FILE_VARIABLE: Final = "AGENTGUARD_TOKEN_FILE"  # noqa: S105  the variable's name
META_KEY: Final = "agentguard/invocation"
STDIO_AUDIENCE: Final = "urn:agentguard:stdio:"

_DEFAULT_LIMITS: Final = Limits()
_RENEWAL_SECONDS: Final = 30
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

# What `os.stat` says of a file; it changes whenever the file's content, owner or mode does.
_Mark = tuple[int, int, int, int, int]


class EnvironmentSource:
    """The token that whoever started this process left in its environment."""

    __slots__ = ("_limits", "_mark", "_path", "_renew_at", "_token")

    def __init__(self, *, path: Path | None, token: str | None, limits: Limits) -> None:
        self._path = path
        self._token = token
        self._limits = limits
        self._mark: _Mark | None = None
        self._renew_at = 0

    @classmethod
    def take(cls, environ: MutableMapping[str, str], *, limits: Limits = _DEFAULT_LIMITS) -> EnvironmentSource:
        """Take the token, or the name of its file, out of an environment.

        Neither is left there: the tools, and the processes that they start, have no
        business with it.

        Args:
            environ: The environment; `os.environ` as a rule.
            limits: The bounds.
        """
        file, token = environ.pop(TOKEN_FILE_VARIABLE, None), environ.pop(TOKEN_VARIABLE, None)
        return cls(path=Path(file) if file else None, token=token, limits=limits)

    def token(self, now: float) -> str:
        """Return the token, read again from its file when that changed or the token nears its end.

        Args:
            now: Unix seconds.

        Raises:
            Refusal: There is none, or its file is not a private one.
        """
        if self._path is None:
            return self._token or _refuse("the environment holds no token: start this with `agentguard run … --`")
        try:
            found = os.stat(self._path, follow_symlinks=False)  # noqa: PTH116  once a call, without a Path's cost
            if self._token is None or _mark(found) != self._mark or not now < self._renew_at:
                self._token = self._read(self._path)
        except Refusal:
            raise
        # No file, no rights, no such system call here: no token.
        except Exception as error:  # noqa: BLE001
            _refuse(f"the token's file cannot be read: {type(error).__name__}")
        return self._token

    def _read(self, path: Path) -> str:
        self._token = None
        # Neither through a link nor from a pipe, which would wait for a writer.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as opened:  # noqa: PTH123  the descriptor is what is checked
            # The open file is checked, not its name, which could lead elsewhere by now.
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS or found.st_uid != os.geteuid():
                _refuse("the token's file wants to be a regular one, ours, with mode 0600")
            text = opened.read(self._limits.token_bytes + 2).decode("ascii").strip()
        self._renew_at = peek(text, self._limits).expires_at - _RENEWAL_SECONDS
        self._mark = _mark(found)
        return text


def meta_token(meta: Mapping[str, object] | None) -> str:
    """Return the token of a request's ``_meta``.

    Raises:
        Refusal: It holds none.
    """
    token = (meta or {}).get(META_KEY)
    if not isinstance(token, str) or not token:
        _refuse(f"`_meta` holds no `{META_KEY}`")
    return token


def stdio_audience(server_name: str) -> str:
    """Return the audience of tokens for a server that speaks stdio.

    Raises:
        ConfigurationError: The server has no name.
    """
    if not server_name:
        message = "a server wants a name, got an empty one: it is part of the audience of its tokens"
        raise ConfigurationError(message)
    return STDIO_AUDIENCE + server_name


def _mark(found: os.stat_result) -> _Mark:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _refuse(detail: str) -> NoReturn:
    raise Refusal(Reason.UNAUTHENTICATED, detail)
