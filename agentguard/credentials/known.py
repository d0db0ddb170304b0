"""Every secret that came from a broker, until it can be good no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import LIVE
from agentguard.lifecycle.ended import run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agentguard.credentials.held import Lease
    from agentguard.credentials.live import Place
    from agentguard.lifecycle.tally import Run
    from agentguard.model import Invocation


class Known:
    """The secrets of this process's leases: for as long as one is here, it is looked for in what goes out.

    Changed by one thread alone, asked by any.

    Args:
        leaked: Is told of a run, where its secret was found, and the secret's name, when that was in no call.
    """

    def __init__(self, leaked: Callable[[Invocation, Place, str], object] | None = None) -> None:
        self._leaked = leaked
        self._of: dict[Run, dict[str, tuple[Secret, float]]] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._of)

    def of(self, run: Run) -> tuple[str, ...]:
        """Return the secrets of one run."""
        return tuple(self._of.get(run, ()))

    def add(self, lease: Lease, until: float) -> None:
        """Know the secrets of a lease, until then at least, unix seconds.

        Raises:
            ValueError: They cannot be told apart from ordinary text.
        """
        invocation, leaked = lease.invocation, self._leaked
        told = None if leaked is None else lambda place, name: leaked(invocation, place, name)
        run = run_of(invocation)
        # Another one each time: whoever asks meanwhile has the one before.
        known = dict(self._of.get(run, {}))
        for text in lease.secrets:
            secret, before = known.get(text, (None, until))
            if secret is None:
                secret = Secret(lease.name, text)
                LIVE.add(secret, run=run, told=told)
            known[text] = (secret, max(until, before))
        self._of[run] = known

    def forget(self, now: float, held: Collection[str] = ()) -> None:
        """Forget what can be good no more, unless it is *held*: the clock may have been set forward."""
        for run, known in list(self._of.items()):
            good = {text: (secret, until) for text, (secret, until) in known.items() if now < until or text in held}
            if not good:
                del self._of[run]
            elif len(good) < len(known):
                self._of[run] = good
