"""`agentguard evidence`: verify, show, report, prune."""

from __future__ import annotations

import json
import re
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentguard import ConfigurationError
from agentguard.cli.evidence import newest
from agentguard.cli.evidence_table import table
from agentguard.cli.options import point_in_time
from agentguard.evidence.cursor import Cursor, Delivered
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.kept import Kept
from tests.cli.commands import Stream, agentguard
from tests.evidence.history import NINE_THIRTY, History, an_hour, export_line, many_runs
from tests.evidence.reporting.test_report import Page, figures

POLICIES = '@id("export-row-limit") @owner("dpo@example.com") forbid (principal, action, resource);'


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a state folder with an hour of evidence in it."""
    folder = tmp_path_factory.mktemp("server")
    ledger = SQLiteLedger(folder / "state" / "evidence", clock=lambda: NINE_THIRTY)
    history = an_hour(History(ledger=ledger))
    ledger.close()
    spans = (record for record in history.kept if record.kind in {"decision", "outcome"})
    (folder / "export.jsonl").write_text(export_line(spans) + "\n")
    return folder / "state"


def shown(*arguments: object) -> list[dict[str, Any]]:
    """Return the records that `show --json` gives."""
    ran = agentguard("evidence", "show", *map(str, arguments), "--json")
    assert ran.status == 0, ran.stderr
    rows: list[dict[str, Any]] = ran.json
    return rows


def test_evidence_that_holds_is_said_to_hold(state: Path) -> None:
    """Compared with what a collector has."""
    ran = agentguard("evidence", "verify", str(state), "--against", str(state.parent / "export.jsonl"))

    assert ran.status == 0, ran.stdout
    assert re.search(
        r"^the evidence holds: (\d+) records in 1 chain, 2 signed heads; compared with .*export.jsonl: "
        r"46 of \1 records, up to seq \d+; \d+ are not there$",
        ran.stdout,
        re.MULTILINE,
    )


def test_a_verification_for_programs(state: Path) -> None:
    """Every chain with its last hash, to be kept elsewhere."""
    ran = agentguard("evidence", "verify", str(state), "--json")
    against = agentguard("evidence", "verify", str(state), "--json", "--against", str(state.parent / "export.jsonl"))

    assert ran.status == 0
    assert (ran.json["chains"][0]["compared"], ran.json["chains"][0]["compared_up_to"]) == (None, None)
    assert (against.json["chains"][0]["compared"], against.json["chains"][0]["compared_up_to"]) == (46, 93)
    assert (ran.json["holds"], ran.json["problems"], ran.json["against"]) == (True, [], None)
    (chain,) = ran.json["chains"]
    assert (chain["whole"], len(chain["last_hash"])) == (True, 64)
    assert chain["records"] == chain["last_seq"] == len(shown(state))


def test_evidence_that_does_not_hold_ends_with_1_and_says_what_is_wrong(state: Path, tmp_path: Path) -> None:
    """Deleted: the chain; what is left tells of it."""
    ledger = SQLiteLedger(tmp_path / "evidence", clock=lambda: NINE_THIRTY)
    ledger.append({"kind": "start", "time_unix_nano": 5, "attributes": {}})
    ledger.close()
    (chain,) = (tmp_path / "evidence").glob("*.db")
    chain.unlink()

    ran = agentguard("evidence", "verify", str(tmp_path / "evidence"))

    assert ran.status == 1
    assert ran.stdout.startswith("wrong: ")
    assert "the evidence does not hold: 1 problem in 0 records in 0 chains" in ran.stdout


def test_notes_are_said_and_take_nothing_away(tmp_path: Path) -> None:
    """A process that was killed is nobody's fraud."""
    ledger = SQLiteLedger(tmp_path / "evidence", clock=lambda: NINE_THIRTY)
    for seconds in (100, 1):
        ledger.append({"kind": "start", "time_unix_nano": seconds * 10**9, "attributes": {}})
    ledger.close()

    ran = agentguard("evidence", "verify", str(tmp_path))

    assert ran.status == 0
    assert re.search("^note:  .*the clock is", ran.stdout, re.MULTILINE)


def test_only_a_folder_can_be_verified(state: Path) -> None:
    """An export says nothing about itself."""
    ran = agentguard("evidence", "verify", str(state.parent / "export.jsonl"))

    assert (ran.status, ran.stdout) == (2, "")
    assert "only a folder can be verified" in ran.stderr


def test_records_for_programs_are_whole(state: Path) -> None:
    """All of them, in the order of time, on a line each."""
    ran = agentguard("evidence", "show", str(state), "--json")

    assert len(ran.stdout.splitlines()) == len(ran.json) + 2
    assert [row["time_unix_nano"] for row in ran.json] == sorted(row["time_unix_nano"] for row in ran.json)


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (["--agent", "mailer", "--agent", "etl-batch", "--kind", "decision"], 13),
        (["--user", "alice", "--kind", "decision"], 7),
        (["--task", "ticket-9", "--kind", "decision"], 3),
        (["--run", "7279f168", "--kind", "decision"], 7),
        (["--tool", "delete_record"], 1),
        (["--effect", "deny"], 15),
        (["--reason", "no_permit"], 3),
        (["--policy", "large-write-off"], 1),
        (["--policy-version", "41d7", "--effect", "deny"], 6),
        (["--since", "2026-11-24T09:31", "--until", "2026-11-24T09:34:01"], 1),
        (["--limit", "5"], 5),
        (["--agent", "nobody"], 0),
    ],
)
def test_records_are_selected(state: Path, options: list[str], number: int) -> None:
    """By whatever is asked for."""
    assert len(shown(state, *options)) == number


def test_the_newest_are_taken(state: Path) -> None:
    """And shown last."""
    assert shown(state, "--effect", "deny", "--limit", "2") == shown(state, "--effect", "deny")[-2:]


def test_a_chain_and_its_export_are_counted_once(state: Path) -> None:
    """The figures are of calls."""
    assert len(shown(state, state.parent / "export.jsonl")) == len(shown(state))


def test_what_cannot_be_read_is_told_and_ends_with_1(state: Path, tmp_path: Path) -> None:
    """The rest is shown; what fails in one way is one line, and past twenty, their number is told."""
    (tmp_path / "x.jsonl").write_text("{\n" * 25)
    many = [tmp_path / f"{n}.jsonl" for n in range(25)]
    for path in many:
        path.write_text("{\n")

    ran = agentguard("evidence", "show", str(tmp_path / "x.jsonl"), str(state), "--json")

    assert ran.status == 1
    assert len(ran.json) == len(shown(state))
    assert f"agentguard: {tmp_path / 'x.jsonl'}:1: is not JSON" in ran.stderr
    assert "x.jsonl:1: is not JSON, and 24 more like it" in ran.stderr

    assert "and 5 more that could not be read" in agentguard("evidence", "show", *map(str, many)).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "decisions"), "--kind wants decision, outcome, "),
        (("--reason", "x\x1b"), "got `x\N{REPLACEMENT CHARACTER}`: name one of them"),
        (("--format", "ocsf", "--json"), "--json and --format ocsf are two forms, got both: leave one out"),
    ],
)
def test_what_nothing_can_match_is_refused(state: Path, options: tuple[str, ...], message: str) -> None:
    """A slip would look as if there were none."""
    ran = agentguard("evidence", "show", str(state), *options)

    assert (ran.status, ran.stdout) == (2, "")
    assert message in ran.stderr


@pytest.mark.parametrize("key", [False, True])
def test_a_folder_that_lost_its_chain_is_shown_as_such(tmp_path: Path, key: bool) -> None:
    """With its last head or with the key alone: the page is written, and says so; so does the list."""
    ledger = SQLiteLedger(tmp_path / "state" / "evidence", clock=lambda: NINE_THIRTY)
    ledger.close()
    for path in (tmp_path / "state" / "evidence").glob("*"):
        if path.suffix == ".db" or (key and path.suffix == ".head"):
            path.unlink()
    (tmp_path / "export.jsonl").write_text(
        export_line([one for one in an_hour().kept if one.kind == "decision"][:1]) + "\n"
    )
    out = tmp_path / "report.html"

    ran = agentguard(
        "evidence", "report", str(out), str(tmp_path / "state"), "--against", str(tmp_path / "export.jsonl")
    )
    listed = agentguard("evidence", "show", str(tmp_path / "state"))

    assert (ran.status, listed.status) == (1, 1)
    assert "The evidence does not hold." in Page(out.read_text("utf-8")).text
    assert "holds no chain any more" in listed.stderr


def test_decisions_as_ocsf_lines(state: Path) -> None:
    """One event a line; the newest of them, if asked for."""
    ran = agentguard("evidence", "show", str(state), "--format", "ocsf")
    few = agentguard("evidence", "show", str(state), "--format", "ocsf", "--limit", "3")

    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (len(events), {event["class_uid"] for event in events}) == (46, {6003})
    assert few.stdout.splitlines() == ran.stdout.splitlines()[-3:]


def drawn(records: list[Kept], width: int) -> list[str]:
    """Return the lines of a table."""
    stream = Stream()
    Console(file=stream, width=width).print(table(records, width=width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_table_fits_80_columns() -> None:
    """Time, what, tool, agent, by what, and enough of the run to ask for it."""
    lines = drawn(newest((record for record in an_hour().kept if record.kind == "decision"), 5), 80)

    assert lines == [
        "UTC       what   tool            agent          by             run",
        "24 Nov",
        "10:17:00  deny   tools/list                     invalid_token",
        "10:20:00  allow  search_records  etl-batch      batch-reads    04ee2979",
        "10:23:00  allow  search_records  report-writer  readers        06f88360",
        "10:25:00  allow  search_records  etl-batch      batch-reads    04ee2979",
        "10:27:30  allow  export_records  report-writer  readers        06f88360",
    ]
    assert max(map(len, lines)) <= 80


def test_a_wide_table_says_for_whom_and_under_which_policies() -> None:
    """Where there is room."""
    lines = drawn([record for record in an_hour().kept if record.text("agentguard.user.id") == "bob"], 140)

    assert lines[0].split() == ["UTC", "what", "tool", "agent", "user", "task", "by", "policies", "run"]
    assert any(
        line.split()[1:]
        == ["deny", "read_record", "support-agent", "bob", "ticket-9", "no_permit", "41d71111", "2e604607"]
        for line in lines
    )


def test_names_have_all_the_room_that_there_is() -> None:
    """A column without anything in it is left out, and what is cut is what is longest."""
    tool, policy, agent = (
        "export_all_records_of_the_clinic",
        "exports-need-a-second-person-of-the-ward",
        "billing-agent",
    )
    record = Kept(
        kind="decision",
        time_unix_nano=0,
        attributes={
            "gen_ai.tool.name": tool,
            "agentguard.agent.id": agent,
            "agentguard.decision.effect": "deny",
            "agentguard.decision.reason": "policy",
            "agentguard.policy.ids": (policy,),
        },
    )

    roomy, narrow = drawn([record], 140), drawn([record], 80)

    assert roomy[0].split() == ["UTC", "what", "tool", "agent", "by", "policies", "run"]
    assert roomy[2].split() == ["00:00:00", "deny", tool, agent, policy]
    assert agent in narrow[2]
    assert narrow[2].count("\N{HORIZONTAL ELLIPSIS}") == 2
    assert max(map(len, narrow)) <= 80


def test_what_is_no_tool_is_shown_by_its_action() -> None:
    """A resource that was read, and what became of it."""
    read = {"mcp.method.name": "resources/read"}
    decided = {**read, "agentguard.action.id": "resources/read/notes", "agentguard.decision.effect": "allow"}
    ended = {**read, "agentguard.execution.outcome": "failed"}
    records = [
        Kept(kind=kind, time_unix_nano=0, attributes=attributes)
        for kind, attributes in (("decision", decided), ("outcome", ended), ("head", {}))
    ]

    lines = drawn(records, 200)

    assert [line.split()[1:3] for line in lines[2:]] == [
        ["allow", "resources/read/notes"],
        ["failed", "resources/read"],
        ["head"],
    ]


def test_a_decision_that_is_asked_for_is_told_whole(state: Path) -> None:
    """With its policies, whatever the reason is, and nothing of the kind where a list is asked for."""
    (row,) = shown(state, "--tool", "delete_record", "--kind", "decision")

    one = agentguard(
        "evidence",
        "show",
        str(state),
        "--decision",
        row["decision_id"],
    )
    several = agentguard("evidence", "show", str(state), "--tool", "delete_record")

    assert one.stdout.splitlines()[-1] == f"{row['decision_id']}: policy, by destructive-needs-approval"
    assert row["decision_id"] not in several.stdout
    # What became of it stands in the table, and is no decision.
    (withheld,) = (row for row in shown(state, "--kind", "outcome") if row["outcome"] == "withheld")
    both = agentguard("evidence", "show", str(state), "--decision", withheld["decision_id"]).stdout
    assert (both.count("withheld"), both.count(withheld["decision_id"])) == (1, 1)


def test_long_and_hostile_names_neither_wrap_nor_steer() -> None:
    """Whoever calls chooses them."""
    attributes = dict.fromkeys(("gen_ai.tool.name", "agentguard.agent.id", "agentguard.run.id"), "\x1b[2J" + "x" * 300)
    lines = drawn([Kept(kind="decision", time_unix_nano=0, attributes=attributes)], 80)

    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_a_person_is_told_what_the_table_leaves_out(state: Path) -> None:
    """And nothing is said where a program reads."""
    person = agentguard("evidence", "show", str(state), "--limit", "3", terminal=True)
    program = agentguard("evidence", "show", str(state), "--limit", "3")

    assert re.search(r"and \d+ older records: --limit shows more", person.stderr)
    assert re.search(r"and \d+ records that say only that all goes on: --json shows them", person.stderr)
    assert "\x1b[" in person.stdout
    assert "all goes on" not in agentguard("evidence", "show", str(state), "--effect", "deny", terminal=True).stderr
    assert (program.stderr, "\x1b[" in program.stdout) == ("", False)


def test_nothing_found_is_said(state: Path, tmp_path: Path) -> None:
    """Only quiet records found is another thing, and whoever asks for them by kind gets them."""
    quiet_folder = tmp_path / "evidence"
    none = agentguard("evidence", "show", str(state), "--agent", "nobody", terminal=True)
    with closing(SQLiteLedger(quiet_folder, clock=lambda: NINE_THIRTY)):
        quiet = agentguard("evidence", "show", str(quiet_folder))
    heads = agentguard("evidence", "show", str(state), "--kind", "head")

    assert (none.status, none.stdout, none.stderr) == (0, "", "no record matches\n")
    assert (quiet.stdout, quiet.status) == ("", 0)
    assert "and 1 record that say only" in quiet.stderr
    assert len(heads.stdout.splitlines()) == 4


def test_a_report_is_written_with_what_the_rows_say(state: Path, tmp_path: Path) -> None:
    """The figures on the page are those of `show --json`, and the owners those of the policies."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.cedar").write_text(POLICIES)
    out = tmp_path / "report.html"

    ran = agentguard("evidence", "report", str(out), str(state), "--policies", str(tmp_path / "policies"))

    assert ran.status == 0, ran.stderr
    assert re.fullmatch(
        f"wrote {re.escape(str(out))}: 8 runs, the evidence holds: [0-9]+ records in 1 chain, 2 signed heads\n",
        ran.stderr,
    )
    page = Page(out.read_text("utf-8"))
    assert page.data == figures(shown(state))
    assert "The evidence holds." in page.text
    assert "dpo@example.com" in page.text
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_report_of_a_part_is_of_that_part(state: Path, tmp_path: Path) -> None:
    """With what became of its calls; the verdict is of the whole chain all the same."""
    out = tmp_path / "report.html"
    part = ("--since", "2026-11-24T09:40", "--until", "2026-11-24T10:00")

    assert agentguard("evidence", "report", str(out), str(state), *part).status == 0

    page, rows = Page(out.read_text("utf-8")), shown(state, *part)
    assert {name: page.data[name] for name in ("allowed-calls", "denied-calls")} == {
        name: figures(rows)[name] for name in ("allowed-calls", "denied-calls")
    }
    assert page.data["withheld-results"] == "1"
    assert "no outcome" not in page.text
    assert "The evidence holds." in page.text


def test_a_report_of_more_than_the_chains_is_not_called_whole(state: Path, tmp_path: Path) -> None:
    """Nobody verified the rest."""
    out = tmp_path / "report.html"

    ran = agentguard("evidence", "report", str(out), str(state), str(state.parent / "export.jsonl"))

    assert ran.status == 1
    assert "Verified in part." in Page(out.read_text("utf-8")).text


def test_a_report_of_an_export_is_written_and_not_called_whole(state: Path, tmp_path: Path) -> None:
    """Its status says that nothing was proved."""
    out = tmp_path / "report.html"

    ran = agentguard("evidence", "report", str(out), str(state.parent / "export.jsonl"))

    assert ran.status == 1
    assert "not verified: only a folder can be" in ran.stderr
    assert "Not verified." in Page(out.read_text("utf-8")).text


@pytest.mark.parametrize("name", ["state", "report.htm", "folder.html"])
def test_a_page_is_not_written_over_what_is_none(state: Path, tmp_path: Path, name: str) -> None:
    """Whoever swaps the arguments keeps what they have."""
    (tmp_path / "folder.html").mkdir()

    ran = agentguard("evidence", "report", str(tmp_path / name), str(state))

    assert ran.status == 2
    assert "the page wants a name that ends in .html" in ran.stderr


def test_a_page_that_cannot_be_written_is_said(state: Path, tmp_path: Path) -> None:
    """With why."""
    ran = agentguard("evidence", "report", str(tmp_path / "nowhere" / "report.html"), str(state))

    assert ran.status == 2
    assert "cannot be written: No such file or directory" in ran.stderr


def test_what_is_old_is_removed_and_the_rest_verifies(tmp_path: Path) -> None:
    """And nothing is, where nothing is old."""
    ledger = SQLiteLedger(tmp_path / "evidence", clock=lambda: NINE_THIRTY, heads_every=50)
    for record in many_runs(20):
        ledger.append({"kind": record.kind, "time_unix_nano": 5 * 10**17, "attributes": dict(record.attributes)})
    ledger.close()

    none = agentguard("evidence", "prune", str(tmp_path), "--older-than", "20000d", terminal=True)
    some = agentguard("evidence", "prune", str(tmp_path), "--older-than", "1d")

    assert (none.status, none.stdout) == (0, "")
    assert "nothing is older than 20000d" in " ".join(none.stderr.split())
    assert re.search(r"[0-9]+ records removed, up to seq [0-9]+", some.stdout), some.stderr
    assert agentguard("evidence", "verify", str(tmp_path)).stdout.count("were pruned") == 1


def test_a_chain_that_is_not_whole_keeps_no_other_one(tmp_path: Path) -> None:
    """It is named, and the status tells."""
    ledger = SQLiteLedger(tmp_path / "evidence", clock=lambda: NINE_THIRTY, heads_every=50)
    for record in many_runs(20):
        ledger.append({"kind": record.kind, "time_unix_nano": 5 * 10**17, "attributes": dict(record.attributes)})
    good = ledger.path
    other = SQLiteLedger(tmp_path / "evidence", clock=lambda: NINE_THIRTY)
    bad = other.path
    assert good is not None
    assert bad is not None
    ledger.close()
    other.close()
    bad.with_suffix(".head").write_text("x")
    cursor = Cursor(tmp_path / "evidence", "forward-x", "http://collector:4318/v1/traces")
    cursor.advance(good.stem, Delivered(7, "0" * 64), [good.stem])

    ran = agentguard("evidence", "prune", str(tmp_path), "--older-than", "1d")

    assert ran.status == 1
    assert re.fullmatch(rf"{good.stem}: (\d+) records removed, \d+ of them not delivered, up to seq \1\n", ran.stdout)
    assert f"{bad}` cannot be pruned" in ran.stderr


def test_an_age_of_nothing_removes_nothing(state: Path) -> None:
    """A slip would cost all the evidence."""
    ran = agentguard("evidence", "prune", str(state), "--older-than", "0d")

    assert ran.status == 2
    assert "--older-than wants an age, got `0d`" in ran.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", NINE_THIRTY - 7200),
        ("1d", NINE_THIRTY - 86_400),
        ("2026-11-24T09:30", NINE_THIRTY),
        ("2026-11-24 10:30+01:00", NINE_THIRTY),
        ("2026-11-24", int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())),
    ],
)
def test_a_time_is_a_date_or_how_long_ago(text: str, seconds: int) -> None:
    """UTC where no zone is named."""
    assert point_in_time(text, now=NINE_THIRTY) == seconds


@pytest.mark.parametrize("text", ["yesterday", "", "2h30m", "5", "99999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With how to write one."""
    with pytest.raises(ConfigurationError, match="a time wants 2026-11-24T09:30"):
        point_in_time(text, now=NINE_THIRTY)


def test_the_newest_records_in_the_order_of_time() -> None:
    """All of them, or so many."""
    records = an_hour().kept

    assert newest(reversed(records), None) == sorted(
        records, key=lambda record: (record.time_unix_nano, record.chain_id, record.seq)
    )
    assert newest(records, 3) == newest(records, None)[-3:]
