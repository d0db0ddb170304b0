"""Who may write a chain: the one process that holds its lock, if the chain is as it was left.

The lock is on a file beside the chain's, not on the chain's own: SQLite has its locks
there, and closing such a file lets go of all of a process's locks on it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from agentguard.evidence.chainfile import ChainReader, NotAChain, follow
from agentguard.evidence.heads import head_file, read_beside, signed_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentguard.evidence.chainfile import ChainWriter
    from agentguard.evidence.heads import PublicHeadKey
    from agentguard.evidence.ledger import Entry

# What pruning and verifying take turns by: it is in every folder, and lies there for good.
_TURN: Final = "head.jwk"


def _beside(path: Path) -> Path:
    return path.with_suffix(".lock")


class Claim:
    """A chain that is ours to write."""

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file: int | None = file

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Claim the chain in a file; None if another process, or another ledger here, has it.

        Raises:
            OSError: There can be no lock.
        """
        # Through no link: a lock elsewhere is not this chain's.
        file = os.open(_beside(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        return cls(file)

    def release(self) -> None:
        """Let go of it. In a fork's child this leaves the parent's hold as it is."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def is_claimed(path: Path) -> bool:
    """Return whether a living process writes the chain in a file; reads, and leaves nothing behind."""
    try:
        file = os.open(_beside(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


@contextmanager
def unpruned(folder: Path, *, but_by_us: bool = False) -> Iterator[None]:
    """Keep a folder from being pruned meanwhile, since what goes while it is read looks as if it were missing.

    Args:
        folder: The folder of the chains.
        but_by_us: Whether to prune it: then nobody verifies it meanwhile.
    """
    try:
        file = os.open(folder / _TURN, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # A copy, mostly: whoever verifies it brings the key along.
        yield
        return
    try:
        # Where there are no locks, nobody prunes beside anybody.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX if but_by_us else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


def require_whole(writer: ChainWriter, public: PublicHeadKey) -> None:
    """Pass only if the chain goes on to its end from the last head that was signed.

    From there alone, since what is before is long and does not change what comes;
    `evidence.verify` reads all of it.

    Raises:
        BadSignature: It was signed with another key.
        NotAChain: It does not.
    """
    beside = head_file(writer.path)
    with closing(ChainReader(writer.path)) as reader:
        if not beside.exists():
            # Its writer was killed between the file and its head.
            first = next(reader.entries())
            signed = signed_head(first) if first == writer.tail else None
            if signed is None:
                message = "its last head is gone"
                raise NotAChain(message)
            public.head(signed)
            return
        signed = read_beside(writer.path)
        head = public.head(signed)
        tail: Entry | None = None
        for entry in reader.entries(after=max(head.seq - 1, 0)):
            if tail is None and head.seq and (entry.seq, entry.hash) != (head.seq, head.hash):
                break
            if tail is not None and entry != follow(tail, writer.chain_id, entry.text):
                break
            if entry.seq == head.seq + 1 and signed_head(entry) != signed:
                break
            tail = entry
        if tail != writer.tail or not tail.seq > head.seq or head.chain_id != writer.chain_id:
            message = "it does not go on from its last head to its end"
            raise NotAChain(message)
