"""Whether one chain holds: each record follows the one before it, and heads were signed over them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from agentguard.evidence.chainfile import ChainReader, NotAChain
from agentguard.evidence.claim import is_claimed
from agentguard.evidence.heads import BadSignature, Occasion, OtherKey, head_file, read_beside, signed_head
from agentguard.evidence.ledger import FIRST_PREV_HASH, entry_hash
from agentguard.evidence.proof import ProvenChain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agentguard.evidence.heads import Head, PublicHeadKey
    from agentguard.evidence.ledger import Entry
    from agentguard.evidence.proof import Found

_AFTER_STOP: Final = "the chain goes on after a stop, and nobody signed that it is continued"


class ChainCheck:
    """One chain, read from its first record to its last.

    Args:
        path: Its file.
        public: The key that its heads should be signed with.
        found: Is told what is found.

    Attributes:
        id: The chain.
        begins_after: The last record that was pruned; 0 if none was.
    """

    def __init__(self, path: Path, public: PublicHeadKey, found: Found) -> None:
        self._path = path
        self.id = path.stem
        self._public = public
        self._found = found
        self._first: Entry | None = None
        self._last: Entry | None = None
        self._count = self._heads = 0
        self._head: Head | None = None
        self._head_text = ""
        self._since = 0
        self._beside: Head | None = None
        self._beside_text = ""
        self._other_keys: set[str] = set()
        self.begins_after = 0

    def _problem(self, seq: int, what: str) -> None:
        self._found.problem(self.id, seq, what)

    def _unsigned(self, seq: int, what: str, error: Exception) -> None:
        """Tell of what is not signed as it should be; of another key once: it may have signed all of them."""
        if isinstance(error, OtherKey):
            if error.key in self._other_keys:
                return
            self._other_keys.add(error.key)
        self._problem(seq, f"{what}: {error}")

    def entries(self) -> Iterable[Entry]:
        """Yield the records, and find what is wrong with them as a chain."""
        # Asked and read before the chain, which may go on meanwhile: it never ends before it.
        live = is_claimed(self._path)
        self._read_beside()
        try:
            with closing(ChainReader(self._path)) as reader:
                if reader.chain_id != self.id:
                    self._problem(0, f"the file holds chain `{reader.chain_id}`: files were swapped or renamed")
                begins_hash = self._read_stub(reader.stub())
                for entry in reader.entries():
                    self._see(entry, begins_hash)
                    yield entry
        except (NotAChain, OSError) as error:
            self._problem(0, f"it cannot be read to its end: {error}")
        self._end(live=live)

    def _read_stub(self, text: str | None) -> str:
        """Return the hash that the first record follows."""
        if text is None:
            return FIRST_PREV_HASH
        try:
            stub = self._public.stub(text)
        except BadSignature as error:
            self._unsigned(0, "the stub of what was pruned does not hold", error)
            return FIRST_PREV_HASH
        if stub.chain_id != self.id:
            self._problem(0, f"the stub of what was pruned is that of chain `{stub.chain_id}`")
            return FIRST_PREV_HASH
        self.begins_after = stub.seq
        self._found.note(self.id, stub.seq, "records up to here were pruned")
        return stub.hash

    def _read_beside(self) -> None:
        beside = head_file(self._path)
        try:
            self._beside_text = read_beside(self._path)
            self._beside = self._public.head(self._beside_text)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._beside_text = "-"
            self._unsigned(0, f"its last head, `{beside.name}`, does not hold", error)

    def _see(self, entry: Entry, begins_hash: str) -> None:
        before = self._last
        if before is None:
            self._first = entry
            wanted_seq, wanted_hash = self.begins_after + 1, begins_hash
            if entry.seq <= self.begins_after:
                # Pruning was broken off. What is left leads on to the record that the stub
                # names, or somebody else put it there.
                wanted_seq, wanted_hash = entry.seq, entry.prev_hash if entry.seq > 1 else FIRST_PREV_HASH
        else:
            wanted_seq, wanted_hash = before.seq + 1, before.hash
        if entry.seq != wanted_seq:
            gap = (
                f"seq {wanted_seq} is missing"
                if entry.seq == wanted_seq + 1
                else f"seq {wanted_seq} to {entry.seq - 1} are missing"
            )
            self._problem(entry.seq, f"{gap} before it")
        elif entry.prev_hash != wanted_hash:
            self._problem(entry.seq, "it does not follow the record before it")
        if entry.seq == self.begins_after and entry.hash != begins_hash:
            self._problem(entry.seq, "it is not the record that the stub names")
        try:
            whole = entry.hash == entry_hash(
                prev_hash=entry.prev_hash, chain_id=self.id, seq=entry.seq, text=entry.text
            )
        except UnicodeEncodeError:
            whole = False
        if not whole:
            self._problem(entry.seq, "the record is not what was hashed: it was changed, or is another's")
        self._last = entry
        self._count += 1
        self._see_head(entry)
        if self._beside is not None and entry.seq == self._beside.seq and entry.hash != self._beside.hash:
            self._problem(entry.seq, "it is not the record that the last head names")

    def _see_head(self, entry: Entry) -> None:
        signed = signed_head(entry)
        if signed is None:
            if self._count == 1 and not self.begins_after:
                self._problem(entry.seq, "the chain does not begin with a signed head")
            self._since += 1
            if self._head is not None and self._head.occasion is Occasion.STOP and self._since == 1:
                self._problem(entry.seq, _AFTER_STOP)
            if self._head is not None and self._since == self._head.every + 1:
                self._problem(entry.seq, f"more than {self._head.every} records follow the head before it")
            return
        self._heads += 1
        try:
            head = self._public.head(signed)
        except BadSignature as error:
            self._unsigned(entry.seq, "the head does not hold", error)
            return
        if (head.chain_id, head.seq, head.hash) != (self.id, entry.seq - 1, entry.prev_hash):
            self._problem(entry.seq, "the head names another record than the one before it")
        if head.occasion is Occasion.CONTINUE and (
            self._head is None or self._head.occasion is not Occasion.STOP or self._since
        ):
            first, last = entry.seq - self._since, entry.seq - 1
            places = "nothing was unsigned"
            if self._since:
                places = f"seq {first} was" if first == last else f"seq {first} to {last} were"
                places += " signed only afterwards"
            self._found.note(
                self.id,
                entry.seq,
                f"a process ended before it without a stop, as one does that is killed: {places}, "
                f"and records between seq {entry.seq - 1} and seq {entry.seq} may be missing",
            )
        elif self._head is not None and self._head.occasion is Occasion.STOP and head.occasion is not Occasion.CONTINUE:
            self._problem(entry.seq, _AFTER_STOP)
        self._head, self._head_text, self._since = head, signed, 0

    def _end(self, *, live: bool) -> None:
        last = self._last
        if last is None:
            self._problem(0, "it holds no records")
            return
        if not self._beside_text:
            if self._count > 1 or self.begins_after:
                self._problem(0, f"its last head, `{head_file(self._path).name}`, is gone")
        elif self._beside is not None:
            if self._beside.chain_id != self.id:
                self._problem(0, f"its last head is that of chain `{self._beside.chain_id}`")
            elif last.seq <= self._beside.seq:
                self._problem(
                    last.seq, f"the chain ends here, and a head of seq {self._beside.seq} was signed: its tail was cut"
                )
        stopped = self._head is not None and self._head.occasion is Occasion.STOP and not self._since
        # Where another key signed, nothing is known of where its heads are.
        if not stopped and not live and not self._other_keys:
            every = self._head.every if self._head else 0
            self._found.note(
                self.id,
                last.seq,
                f"it ends without a stop, as where its process was killed: up to {every} "
                "records behind the last head may be missing, and only a copy elsewhere would show it",
            )

    def proven(self, *, whole: bool, compared: tuple[int, int] | None) -> ProvenChain:
        """Return the chain as it was verified, and as it compared: how many records, up to which."""
        first, last = self._first, self._last
        return ProvenChain(
            chain_id=self.id,
            records=self._count,
            first_seq=first.seq if first else 0,
            last_seq=last.seq if last else 0,
            first_hash=first.hash if first else "",
            last_hash=last.hash if last else "",
            heads=self._heads,
            key=self._public.id,
            whole=whole,
            compared=None if compared is None else compared[0],
            compared_up_to=0 if compared is None else compared[1],
        )
