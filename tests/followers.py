"""Closes the stores that tests leave open: each would look at its file to the end."""

from __future__ import annotations

import functools
from typing import Any

from agentguard.lifecycle.follower import Follower
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.valkey import ValkeyStore

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
    """End those that were begun since, with the stores that they are for."""
    while _begun:
        follower = _begun.pop()
        owner = getattr(follower._step, "__self__", None)
        follower.close()
        if isinstance(owner, SQLiteStore | ValkeyStore):
            owner.close()
