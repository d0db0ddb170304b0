"""Shipping the ledger: at least once, past kills, and never anything left out."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value

from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.cursor import Delivered, backlog, read_cursor
from agentguard.evidence.delivery import forward
from agentguard.evidence.delivery.forward import Forwarder
from agentguard.evidence.delivery.forwarded import ForwardedSpan
from agentguard.evidence.delivery.sender import UndeliveredError, open_sender, read_endpoint
from agentguard.evidence.ledger import Entry
from agentguard.evidence.prune import prune
from agentguard.model import canonical_json
from tests.evidence.chains import NOW, cut_behind, decision, ledger_in, next_entry, stopped_chain, tamper
from tests.evidence.receiver import Receiver, attributes_of, receiving, receiving_grpc
from tests.tokens import Clock

ENDPOINT = read_endpoint("http://collector:4318/v1/traces", environ={})


TOO_LARGE = UndeliveredError("too large", lasting=True, too_large=True)


@dataclass
class Away:
    """A sender whose receiver is in the same process, and fails when it is told to.

    Attributes:
        batches: What was taken.
        fails: What is wrong next; taken when there is nothing.
        objections: What there is against the next batches.
        most: How many spans a batch may have.
        closed: How often the connection was let go.
    """

    batches: list[list[ForwardedSpan]] = field(default_factory=list)
    fails: list[UndeliveredError] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)
    most: int = 10_000
    closed: int = 0

    def send(self, spans: Sequence[ForwardedSpan]) -> str:
        """Take a batch, or not."""
        if self.fails:
            raise self.fails.pop(0)
        if len(spans) > self.most:
            raise TOO_LARGE
        self.batches.append(list(spans))
        return self.objections.pop(0) if self.objections else ""

    def close(self) -> None:
        """Let go."""
        self.closed += 1

    def hashes(self) -> list[object]:
        """Return the records that were taken, by their hashes, in order."""
        return [span.attributes["agentguard.evidence.hash"] for batch in self.batches for span in batch]


def forwarder(folder: Path, away: Away, **options: object) -> Forwarder:
    """Return a forwarder whose pauses are as long as they can be."""
    return Forwarder(folder, ENDPOINT, away, chance=lambda: 1.0, **options)  # type: ignore[arg-type]


def ship(forwarder: Forwarder) -> float:
    """Ship until there is a pause, and return how long it is."""
    while not (pause := forwarder.step()):
        pass
    return pause


def kept(folder: Path) -> list[Entry]:
    """Return every record of a folder, chain by chain."""
    return [entry for path in chain_files(folder) for entry in read_chain(path)]


@pytest.fixture(params=[receiving, receiving_grpc], ids=["http", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """Give a real receiver of each protocol."""
    with request.param() as found:
        yield found


def test_every_record_arrives_as_one_span(receiver: Receiver, tmp_path: Path) -> None:
    """Once, in order, in batches that are bounded; and the folder still verifies."""
    stopped_chain(tmp_path, calls=300)
    endpoint = read_endpoint(receiver.url, environ={})
    shipping = Forwarder(tmp_path, endpoint, open_sender(endpoint, service="records"))

    assert ship(shipping) == 1.0
    shipping.close()

    entries = kept(tmp_path)
    assert [attributes_of(span)["agentguard.evidence.hash"] for span in receiver.spans] == [e.hash for e in entries]
    assert len({span.span_id for span in receiver.spans}) == len(entries) == shipping.delivered
    assert all(count <= 512 and size <= 1024 * 1024 for count, size in receiver.sizes)


def test_a_batch_is_bounded_by_its_bytes_too(receiver: Receiver, tmp_path: Path) -> None:
    """A record that is larger than that goes alone."""
    ledger = ledger_in(tmp_path)
    for size in (400_000, 400_000, 400_000, 2_000_000, 10):
        record = decision(1)
        record["attributes"] = {"agentguard.resource.id": "x" * size}
        ledger.append(record)
    ledger.close()
    endpoint = read_endpoint(receiver.url, environ={})
    shipping = Forwarder(tmp_path, endpoint, open_sender(endpoint, service="records"))
    ship(shipping)
    shipping.close()

    assert [count for count, _ in receiver.sizes] == [3, 1, 1, 3]
    assert max(size for count, size in receiver.sizes if count > 1) < 1024 * 1024


def test_a_ledger_that_is_written_is_shipped_as_it_grows(tmp_path: Path) -> None:
    """By the very process that writes it: its locks stay as they are."""
    ledger, away = ledger_in(tmp_path), Away()
    shipping = forwarder(tmp_path, away)
    for n in range(3):
        ledger.append(decision(n))
        assert ship(shipping) == 1.0
    ledger.close()
    ship(shipping)
    shipping.close()

    assert away.hashes() == [entry.hash for entry in kept(tmp_path)]


def test_a_chain_that_appears_later_is_shipped_too(tmp_path: Path) -> None:
    """Another process began it."""
    stopped_chain(tmp_path)
    away = Away()
    shipping = forwarder(tmp_path, away)
    ship(shipping)
    elsewhere = tmp_path / "elsewhere"
    later = stopped_chain(elsewhere)
    shutil.move(later, tmp_path / later.name)
    ship(shipping)
    shipping.close()

    assert sorted(map(str, away.hashes())) == sorted(entry.hash for entry in kept(tmp_path))
    assert away.closed == 1


def test_no_chain_waits_for_the_end_of_another(tmp_path: Path) -> None:
    """They take turns, batch by batch."""
    for calls in (300, 3):
        with_own = tmp_path / str(calls)
        path = stopped_chain(with_own, calls=calls)
        shutil.move(path, tmp_path / f"{calls:05}.db")
    away = Away()
    shipping = forwarder(tmp_path, away)
    for _ in range(3):
        shipping.step()
    shipping.close()

    small, large, *_ = (len(batch) for batch in away.batches)
    assert small < 20
    assert large == 512


def test_what_was_delivered_is_not_sent_again(tmp_path: Path) -> None:
    """A restart goes on from the cursor, which names the address; another address has another one."""
    stopped_chain(tmp_path)
    first, second = Away(), Away()
    shipping = forwarder(tmp_path, first)
    ship(shipping)
    shipping.close()
    shipping = forwarder(tmp_path, second)
    ship(shipping)
    shipping.close()
    cursor = json.loads(shipping.cursor.read_text())

    assert len(first.hashes()) == len(kept(tmp_path))
    assert second.batches == []
    assert cursor["endpoint"] == ENDPOINT.url
    (last,) = (Delivered(entry.seq, entry.hash) for entry in kept(tmp_path)[-1:])
    assert read_cursor(shipping.cursor) == {path.stem: last for path in chain_files(tmp_path)}
    assert shipping.cursor.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"delivered": 1}', '{"delivered": {"c": 7}}'),
        '{"delivered": {"c": ["x", "h"], "d": [-1, "h"], "e": [true, "h"], "f": [1, 1]}}',
    ],
)
def test_a_cursor_that_cannot_be_read_only_sends_again(text: str, tmp_path: Path) -> None:
    """With the same ids, so that nothing is stored twice."""
    stopped_chain(tmp_path)
    before, after = Away(), Away()
    shipping = forwarder(tmp_path, before)
    ship(shipping)
    shipping.close()
    shipping.cursor.write_text(text)
    shipping = forwarder(tmp_path, after)
    ship(shipping)
    shipping.close()

    assert after.batches == before.batches


def test_a_cursor_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery goes on; only a restart would send again."""
    ledger = ledger_in(tmp_path)
    shipping, away = forwarder(tmp_path, Away()), Away()
    shipping._sender = away
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("agentguard.evidence.cursor.replace", lambda *_: (_ for _ in ()).throw(full))
        for n in range(2):
            ledger.append(decision(n))
            ship(shipping)
    ledger.append(decision(2))
    ship(shipping)
    ledger.close()
    shipping.close()

    assert [r.message for r in caplog.records if "could not be written" in r.message] == [
        f"`{shipping.cursor}` could not be written, a restart sends again: No space left on device"
    ]
    assert [last.seq for last in read_cursor(shipping.cursor).values()] == [4]


def test_a_receiver_that_fails_is_tried_for_ever_with_longer_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a second, doubled up to thirty; told once for each thing that is wrong, and when it is over."""
    caplog.set_level(logging.WARNING, "agentguard")
    stopped_chain(tmp_path)
    away = Away()
    shipping = forwarder(tmp_path, away)
    away.fails = [UndeliveredError("refused") for _ in range(9)]
    pauses = [shipping.step() for _ in range(9)]
    assert shipping.failing == "refused"
    assert ship(shipping) == 1.0
    shipping.close()

    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert [record.message for record in caplog.records] == [
        f"evidence is not delivered to {ENDPOINT.url}, and kept until it is: refused",
        "evidence is delivered to collector:4318 again",
    ]
    assert away.hashes() == [entry.hash for entry in kept(tmp_path)]
    assert shipping.failing == ""


def test_what_somebody_has_to_mend_is_told_as_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is dropped, and it is tried at the slow pace."""
    stopped_chain(tmp_path)
    away = Away(fails=[UndeliveredError("HTTP status 401", lasting=True)] * 2)
    shipping = forwarder(tmp_path, away)

    assert [shipping.step(), shipping.step()] == [30.0, 30.0]
    ship(shipping)
    shipping.close()
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        f"evidence is not delivered to {ENDPOINT.url}, and kept until it is: HTTP status 401"
    ]
    assert away.hashes() == [entry.hash for entry in kept(tmp_path)]


def test_a_pause_differs_by_chance(tmp_path: Path) -> None:
    """Else all forwarders would come back to a receiver at once."""
    stopped_chain(tmp_path)
    chance = random.Random(1)  # noqa: S311  a pause
    away = Away(fails=[UndeliveredError("x") for _ in range(2)])
    shipping = Forwarder(tmp_path, ENDPOINT, away, chance=chance.random)
    pauses = [shipping.step(), shipping.step()]
    shipping.close()

    assert 0.25 <= pauses[0] < 0.5 <= pauses[1] < 1.0


def test_a_batch_that_is_too_large_is_sent_in_parts(tmp_path: Path) -> None:
    """Proxies in front of a receiver have bounds of their own."""
    stopped_chain(tmp_path, calls=100)
    away = Away(most=40)
    shipping = forwarder(tmp_path, away)
    ship(shipping)
    shipping.close()

    assert away.hashes() == [entry.hash for entry in kept(tmp_path)]


def test_one_record_that_is_too_large_holds_up_the_others(tmp_path: Path) -> None:
    """It is not left out: somebody has to mend the receiver."""
    stopped_chain(tmp_path)
    away = Away(most=0)
    shipping = forwarder(tmp_path, away)

    assert ship(shipping) == 30.0
    assert shipping.failing == "too large"
    shipping.close()


def test_what_a_receiver_has_against_a_batch_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the batch counts as delivered, as the specification says."""
    stopped_chain(tmp_path)
    away = Away(objections=["2 spans were rejected: too old"])
    shipping = forwarder(tmp_path, away)
    ship(shipping)
    shipping.close()

    assert [r.message for r in caplog.records] == [
        "collector:4318 has something against the evidence: 2 spans were rejected: too old"
    ]
    assert len(away.batches) == 1


def test_what_was_pruned_before_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With how many records that were; what remains is shipped."""
    clock = Clock(NOW)
    ledger = ledger_in(tmp_path, clock=clock, heads_every=4)
    for n in range(20):
        clock.now += 10
        ledger.append(decision(n, at=clock.now))
    ledger.close()
    (pruned,) = prune(tmp_path, older_than=clock.now - 100)
    away = Away()
    shipping = forwarder(tmp_path, away)
    ship(shipping)
    shipping.close()

    assert [r.message for r in caplog.records if "pruned" in r.message] == [
        f"{pruned.removed} records of chain `{pruned.chain_id}` were pruned before they could be delivered"
    ]
    assert away.hashes() == [entry.hash for entry in kept(tmp_path)]


@pytest.mark.parametrize("cut", [3, 12], ids=["shorter", "as long, with others"])
def test_a_chain_that_lost_its_end_is_sent_anew(cut: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a loss of power it goes on from an earlier place: what comes then is new, and not yet delivered."""
    path = stopped_chain(tmp_path, calls=4, heads_every=100)
    before, after = Away(), Away()
    shipping = forwarder(tmp_path, before)
    ship(shipping)
    shipping.close()
    cut_behind(path, 3)
    for n in range(cut - 3):
        follower = next_entry(kept(tmp_path)[-1], canonical_json(decision(100 + n)))
        tamper(
            path,
            f"INSERT INTO entries VALUES {(follower.seq, follower.hash, follower.prev_hash, follower.text)!r}",  # noqa: S608  ours
        )
    shipping = forwarder(tmp_path, after)
    ship(shipping)
    shipping.close()

    assert after.hashes() == [entry.hash for entry in kept(tmp_path)]
    assert len(set(before.hashes()) & set(after.hashes())) == 3
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        f"chain `{path.stem}` is not what was delivered up to seq {len(before.hashes())}: it is sent anew"
    ]


def test_a_chain_whose_delivered_part_was_pruned_goes_on_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is missing then."""
    clock = Clock(NOW)
    ledger = ledger_in(tmp_path, clock=clock, heads_every=4)
    away = Away()
    shipping = forwarder(tmp_path, away)
    for n in range(20):
        clock.now += 10
        ledger.append(decision(n, at=clock.now))
        if n == 5:
            ship(shipping)
    ledger.close()
    delivered = away.hashes()
    (pruned,) = prune(tmp_path, older_than=clock.now - 100)
    ship(shipping)
    shipping.close()

    assert pruned.begins_after > len(delivered)
    assert away.hashes() == delivered + [entry.hash for entry in kept(tmp_path)]
    gone = pruned.begins_after - len(delivered)
    assert [r.message for r in caplog.records if "pruned before" in r.message] == [
        f"{gone} records of chain `{pruned.chain_id}` were pruned before they could be delivered"
    ]


def test_a_chain_that_cannot_be_read_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and shipped when it can be read again."""
    path = stopped_chain(tmp_path)
    broken = tmp_path / "0.db"
    broken.write_bytes(b"no chain")
    away = Away()
    shipping = forwarder(tmp_path, away)
    ship(shipping)
    broken.write_bytes(b"still no chain")
    ship(shipping)
    assert len([r for r in caplog.records if "cannot be forwarded to its end" in r.message]) == 1
    broken.unlink()
    shutil.copy(path, broken)
    ship(shipping)
    shipping.close()

    assert len(away.batches) == 2


def test_of_two_on_one_folder_one_ships(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other one waits until it can take over, and goes on where the first one was."""
    caplog.set_level(logging.INFO, "agentguard")
    ledger = ledger_in(tmp_path)
    one, two = Away(), Away()
    first, second = forwarder(tmp_path, one), forwarder(tmp_path, two)
    ship(first)
    ledger.append(decision(1))
    assert [ship(second), ship(second)] == [1.0, 1.0]
    assert (first.ships, second.ships, two.batches) == (True, False, [])
    first.close()
    ship(second)
    second.close()
    ledger.close()

    assert len([r for r in caplog.records if "forwarded by another process" in r.message]) == 1
    assert [len(batch) for batch in one.batches + two.batches] == [1, 1]


def test_two_addresses_are_shipped_to_side_by_side(tmp_path: Path) -> None:
    """Each has its own lock and cursor."""
    stopped_chain(tmp_path)
    one, two = Away(), Away()
    first = forwarder(tmp_path, one)
    second = Forwarder(tmp_path, read_endpoint("grpc://collector:4317", environ={}), two)
    ship(first)
    ship(second)
    first.close()
    second.close()

    assert one.batches == two.batches != []


def test_the_backlog_is_what_is_kept_and_not_delivered(tmp_path: Path) -> None:
    """To one address, or to any; what was pruned is kept no more, and what cannot be read has no number."""
    stopped_chain(tmp_path, calls=2)
    (tmp_path / "0.db").write_bytes(b"no chain")
    away = Away(fails=[UndeliveredError("x")])
    shipping = forwarder(tmp_path, away)
    entries = len(kept(tmp_path / "none") + [e for p in chain_files(tmp_path)[1:] for e in read_chain(p)])

    assert backlog(tmp_path) == backlog(tmp_path, shipping.cursor) == entries
    ship(shipping)
    ship(shipping)
    shipping.close()
    assert backlog(tmp_path) == backlog(tmp_path, shipping.cursor) == 0
    assert backlog(tmp_path, tmp_path / "forward-other.json") == entries
    tamper(chain_files(tmp_path)[1], "DELETE FROM entries WHERE seq < 4")
    assert backlog(tmp_path, tmp_path / "forward-other.json") == entries - 3


def test_a_thread_ships_until_it_is_stopped(receiver: Receiver, tmp_path: Path) -> None:
    """And ships what was written last before it ends."""
    endpoint = read_endpoint(receiver.url, environ={})
    shipping = Forwarder(tmp_path, endpoint, open_sender(endpoint, service="records"), pause=0.01)
    ledger = ledger_in(tmp_path)
    shipping.start()
    ledger.append(decision(1))
    receiver.wait_for(lambda: len(receiver.spans) == 2)
    ledger.append(decision(2))
    ledger.close()
    shipping.stop(10)

    assert len(receiver.spans) == len(kept(tmp_path)) == 5
    assert not shipping.ships


def test_a_thread_outlives_what_goes_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be listed now can be later."""
    stopped_chain(tmp_path)
    away = Away()
    shipping = forwarder(tmp_path, away)
    monkeypatch.setattr("agentguard.evidence.delivery.forward._FIRST_PAUSE", 0.001)
    real = chain_files
    broken = [True]

    def list_chains(folder: Path) -> tuple[Path, ...]:
        if broken:
            broken.pop()
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr("agentguard.evidence.delivery.forward.chain_files", list_chains)
    shipping._over.set()
    shipping.run()
    assert away.batches == []
    assert "kept until it is: Permission denied" in caplog.text

    shipping._until = float("inf")
    shipping.run()
    assert away.hashes() == [entry.hash for entry in kept(tmp_path)]


def test_shipping_is_not_traced_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each delivery would be a span, and that one's delivery another."""
    stopped_chain(tmp_path)
    away, seen = Away(), []

    def send(_: Sequence[ForwardedSpan]) -> str:
        seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        return ""

    monkeypatch.setattr(away, "send", send)
    shipping = forwarder(tmp_path, away)
    shipping.stop(5)
    shipping.run()

    assert seen == [True]
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


def test_stopping_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    """What is left then is shipped by the next process."""
    stopped_chain(tmp_path, calls=600)
    away = Away()
    clock = Clock(0)
    shipping = forwarder(tmp_path, away, monotonic=clock)
    shipping.stop(5)
    clock.now = 5
    shipping.run()

    assert [len(batch) for batch in away.batches] == [512]
    assert (shipping.ships, away.closed) == (False, 1)


def test_a_forked_child_leaves_the_shipping_to_its_parent(tmp_path: Path) -> None:
    """And does not hold on to the lock when the parent is gone."""
    stopped_chain(tmp_path)
    shipping, other = forwarder(tmp_path, Away()), forwarder(tmp_path, Away())
    ship(shipping)
    forwarder(tmp_path, Away()).close()
    waits, goes_on = os.pipe()
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(goes_on)
        os.write(tells, b"x")
        os.read(waits, 1)
        os._exit(int(shipping.ships))
    os.read(told, 1)
    shipping.close()
    assert other.step() == 1.0
    ships = other.ships
    other.close()
    for end in (goes_on, waits, told, tells):
        os.close(end)

    assert ships
    assert os.waitpid(child, 0)[1] == 0


def test_what_a_child_does_after_a_fork_lets_go_of_every_lock(tmp_path: Path) -> None:
    """The same in this process, where a test can look at it."""
    stopped_chain(tmp_path)
    shipping, idle = forwarder(tmp_path, Away()), forwarder(tmp_path, Away())
    ship(shipping)

    forward._after_fork()

    assert (shipping.ships, idle.ships) == (False, False)
