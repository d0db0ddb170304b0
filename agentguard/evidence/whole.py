"""Whether a chain that was left may be continued: it must be as its last writer left it.

From the last signed head to the end alone, since what is before is long and does not
change what comes; `evidence.verify` reads all of it.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from agentguard.evidence.chainfile import ChainReader, NotAChain, follow
from agentguard.evidence.heads import head_file, read_beside, signed_head

if TYPE_CHECKING:
    from agentguard.evidence.chainfile import ChainWriter
    from agentguard.evidence.heads import PublicHeadKey
    from agentguard.evidence.ledger import Entry


def require_whole(writer: ChainWriter, public: PublicHeadKey) -> None:
    """Pass only if the chain goes on to its end from the last head that was signed.

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
