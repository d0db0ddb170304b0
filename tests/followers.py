"""Stops the threads that tests leave behind: a store that nobody closed would look at its file to the end."""

from __future__ import annotations

import functools
from typing import Any

from agentguard.lifecycle.follower import Follower

_begun: list[Follower] = []


def listen() -> None:
    """Note each follower from now on."""
    begin = Follower.__init__

    @functools.wraps(begin)
    def noting(self: Follower, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        _begun.append(self)

    Follower.__init__ = noting  # type: ignore[method-assign]


def begin() -> None:
    """Leave alone what fixtures of wider scope have begun."""
    _begun.clear()


def stop() -> None:
    """End those that the test began, whether or not it closed its stores."""
    while _begun:
        _begun.pop().close()
