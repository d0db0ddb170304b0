"""What ``Guard(forward=…)`` asks for: ship this process's ledger, or leave that to another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from agentguard.errors import ConfigurationError
from agentguard.evidence.cursor import backlog
from agentguard.evidence.delivery.forward import Forwarder
from agentguard.evidence.delivery.sender import open_sender, read_endpoint
from agentguard.evidence.durable import SQLiteLedger
from agentguard.host.atend import call_at_end

if TYPE_CHECKING:
    from agentguard.evidence.delivery.sender import Endpoint

# Less than what those who end a process wait before they kill it.
_LAST_SECONDS: Final = 2.0


class Forwarding:
    """How the ledger of one guard leaves the host.

    Args:
        endpoint: Where it is shipped to from this process; None if another process does that.

    Raises:
        ConfigurationError: What speaks to the address is not installed.
    """

    def __init__(self, endpoint: Endpoint | None) -> None:
        self._endpoint = endpoint
        self._ledger: SQLiteLedger | None = None
        self._forwarder: Forwarder | None = None
        if endpoint is not None:
            # Asked now, so that what is missing is missed before a server starts.
            open_sender(endpoint, service="agentguard").close()

    def of(self, ledger: object) -> Self:
        """Say what is shipped.

        Raises:
            ConfigurationError: The ledger is not in a folder.
        """
        if not isinstance(ledger, SQLiteLedger):
            message = f"forward= wants a ledger in a folder, got `{type(ledger).__name__}`: pass state=FOLDER"
            raise ConfigurationError(message)
        self._ledger = ledger
        return self

    def start(self, *, service: str) -> None:
        """Ship from now on until the process ends.

        Args:
            service: Whose spans they are, where OTEL_SERVICE_NAME does not say.
        """
        if self._endpoint is not None and self._ledger is not None:
            sender = open_sender(self._endpoint, service=service)
            self._forwarder = Forwarder(self._ledger.folder, self._endpoint, sender)
            self._forwarder.start()
            call_at_end(self.stop)

    def stop(self) -> None:
        """Keep that this was a clean stop, and ship that too if it takes no longer than a moment."""
        if self._forwarder is not None and self._ledger is not None:
            self._ledger.close()
            self._forwarder.stop(_LAST_SECONDS)

    def backlog(self) -> float:
        """Return how many records are kept and not delivered."""
        if self._ledger is None:
            return 0
        cursor = None if self._forwarder is None else self._forwarder.cursor
        return backlog(self._ledger.folder, cursor)


def read_forwarding(given: object) -> Forwarding | None:
    """Return what a guard was asked for: an address, True for another process, False or None for nothing.

    Raises:
        ConfigurationError: It is none of these, or what speaks to the address is not installed.
    """
    if given is None or given is False:
        return None
    if given is not True and not (isinstance(given, str) and given):
        message = (
            f"forward= wants an endpoint such as http://collector:4318/v1/traces, or True where "
            f"`agentguard evidence forward` ships the ledger, got `{given!r}`: pass one of them"
        )
        raise ConfigurationError(message)
    return Forwarding(None if given is True else read_endpoint(str(given)))
