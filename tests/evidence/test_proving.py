"""What is shown is verified: several folders at once, with the one export of their collector."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from mcp import Client

from agentguard.errors import ConfigurationError
from agentguard.evidence.chainfile import chain_files
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.heads import HeadKey
from agentguard.evidence.kept import Kept
from agentguard.evidence.proof import Proof
from agentguard.evidence.reading import read_sources
from agentguard.evidence.reporting.retell import story_of
from agentguard.evidence.verify import prove
from agentguard.state import open_state
from tests.evidence.history import NINE_THIRTY, History, an_hour, export_line, run_of
from tests.evidence.reporting.test_report import Page, page_of
from tests.world import make_world


def server(folder: Path, *, calls: int) -> tuple[Path, list[Kept]]:
    """Return the state folder of a server that decided some calls, and its records."""
    ledger = SQLiteLedger(folder / "evidence", clock=lambda: NINE_THIRTY)
    history = History(ledger=ledger, calls=calls)
    history.call(run_of("a", calls, NINE_THIRTY, 600), NINE_THIRTY, "read")
    ledger.close()
    return folder, history.kept


def exported(folder: Path, *records: Iterable[Kept]) -> Path:
    """Return the export of a collector that got the decisions of these servers."""
    path = folder / "export.jsonl"
    path.write_text("".join(export_line(one for one in each if one.kind == "decision") + "\n" for each in records))
    return path


def test_servers_are_verified_against_the_export_that_they_share(tmp_path: Path) -> None:
    """No server misses what another one delivered."""
    one, first = server(tmp_path / "one", calls=0)
    two, second = server(tmp_path / "two", calls=50)

    proof = prove([one, two], pytest.fail, against=exported(tmp_path, first, second))

    assert proof is not None
    assert (proof.holds, proof.problems, proof.against) == (True, (), str(tmp_path / "export.jsonl"))
    assert [chain.records for chain in proof.chains] == [
        len(list(read_sources([folder], pytest.fail))) for folder in (one, two)
    ]


def test_a_server_whose_folder_is_gone_is_missed_once(tmp_path: Path) -> None:
    """By whoever is left: the export tells of it."""
    one, first = server(tmp_path / "one", calls=0)
    two, second = server(tmp_path / "two", calls=50)
    gone, third = server(tmp_path / "gone", calls=90)
    (chain,) = chain_files(gone / "evidence")

    proof = prove([one, two], pytest.fail, against=exported(tmp_path, first, second, third))

    assert proof is not None
    assert not proof.holds
    assert proof.problems == (
        f"{one}: chain {chain.stem}: the whole chain is gone: 1 record was delivered, up to seq 2",
    )


def test_a_span_that_was_changed_is_found(tmp_path: Path) -> None:
    """Its place and its hash are as they were; what it says is not."""
    one, records = server(tmp_path / "one", calls=0)
    export = exported(tmp_path, records)
    (agent,) = {record.text("agentguard.agent.id") for record in records if record.kind == "decision"}
    export.write_text(export.read_text().replace(f'{{"stringValue": "{agent}"}}', '{"stringValue": "mallory"}'))

    proof = prove([one], pytest.fail, against=export)

    assert proof is not None
    assert [problem.partition(", ")[2] for problem in proof.problems] == [
        "seq 2: the record that was delivered says another `agentguard.agent.id` than here: one of the two was changed"
    ]


def test_how_much_was_compared_is_told(tmp_path: Path) -> None:
    """For each chain, and in words; an export of a part is not the whole."""
    one, first = server(tmp_path / "one", calls=0)
    two, _ = server(tmp_path / "two", calls=50)
    path = exported(tmp_path, first)

    alone, both = prove([one], pytest.fail, against=path), prove([one, two], pytest.fail, against=path)

    assert alone is not None
    assert both is not None
    assert (alone.chains[0].compared, alone.chains[0].compared_up_to) == (1, 2)
    assert [chain.compared for chain in both.chains] == [1, 0]
    assert alone.compared_words() == (
        f"compared with {path}: 1 of {alone.records} records, up to seq 2; {alone.records - 1} are not there"
    )
    assert both.compared_words().endswith(f": 1 of {both.records} records; {both.records - 1} are not there")
    assert Proof(holds=True, against="x").compared_words() == "compared with x: all 0 records"


def test_a_chain_in_two_folders_is_found(tmp_path: Path) -> None:
    """One of them is a copy, and may be the one that was cut."""
    one, _ = server(tmp_path / "one", calls=0)
    shutil.copytree(one, tmp_path / "two")
    (chain,) = chain_files(one / "evidence")

    proof = prove([one, tmp_path / "two"], pytest.fail)

    assert proof is not None
    assert not proof.holds
    end = proof.chains[0].last_seq
    assert proof.problems == (
        (
            f"chain {chain.stem}: it lies in `{one}`, where it ends at seq {end}, and in `{tmp_path / 'two'}`, "
            f"where it ends at seq {end}: one is a copy"
        ),
    )


def test_a_folder_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    """It is a slip of whoever typed."""
    with pytest.raises(ConfigurationError, match="nowhere` is not there: name the folder"):
        prove([tmp_path / "nowhere"], pytest.fail)


def test_what_is_no_folder_is_not_called_verified(tmp_path: Path) -> None:
    """It is named; with nothing else there is no verdict at all."""
    one, first = server(tmp_path / "one", calls=0)
    path = exported(tmp_path, first)

    beside = prove([one, one / "evidence", path], pytest.fail)

    assert beside is not None
    assert (beside.holds, beside.against, len(beside.chains)) == (True, "", 1)
    assert beside.unproved == (str(path),)
    assert prove([path], pytest.fail) is None


def test_another_key_than_the_servers_proves_nothing(tmp_path: Path) -> None:
    """A head that somebody else signed is none."""
    one, _ = server(tmp_path / "one", calls=0)
    (tmp_path / "other").mkdir(mode=0o700)
    key = tmp_path / "other" / "key.jwk"
    key.write_text(HeadKey.of(tmp_path / "other").public.text())

    proof = prove([one], pytest.fail, key=key)

    assert proof is not None
    assert not proof.holds
    assert not proof.chains[0].whole


def test_what_of_the_export_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Once, however many folders there are."""
    one, first = server(tmp_path / "one", calls=0)
    two, second = server(tmp_path / "two", calls=50)
    path = exported(tmp_path, first, second)
    path.write_text(path.read_text() + "{\n")
    told: list[str] = []

    prove([one, two], told.append, against=path)

    assert told == [f"{path}:3: is not JSON"]


@pytest.mark.anyio
async def test_the_evidence_of_a_real_guard_is_read_verified_and_shown(tmp_path: Path) -> None:
    """From a call through a server to the page, with nothing made up in between."""
    state = open_state(tmp_path / "state")
    world = make_world(tmp_path / "policies", state=state)
    async with Client(world.server) as client:
        for record_id in ("r1", "r9", "r2"):
            await client.call_tool("read", {"record_id": record_id})
        await client.call_tool("export", {"max_rows": 501})
    state.close()

    proof = prove([tmp_path / "state"], pytest.fail)
    records = list(read_sources([tmp_path / "state"], pytest.fail))
    page = Page(page_of(records, proof, owners={"row-limit": "dpo@example.com"}))

    (run,) = story_of(records).runs
    assert [(call.effect, call.outcome) for call in run.calls] == [
        ("allow", "completed"),
        ("deny", ""),
        ("allow", "completed"),
        ("deny", ""),
    ]
    assert (page.data["allowed-calls"], page.data["denied-calls"]) == ("2", "2")
    for said in ("The evidence holds.", "restricted", "row-limit", "dpo@example.com", "1 start of a server"):
        assert said in page.text, said


def test_an_hour_of_real_records_holds(tmp_path: Path) -> None:
    """The hour of the other tests is one that a ledger can have kept."""
    ledger = SQLiteLedger(tmp_path / "evidence", clock=lambda: NINE_THIRTY)
    an_hour(History(ledger=ledger))
    ledger.close()

    proof = prove([tmp_path], pytest.fail)

    assert proof is not None
    assert proof.holds, proof.problems
