"""`agentguard impact`: what other policies would have made of the calls on record."""

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentguard.analysis.history.impact import Change, Changed, Tally
from agentguard.cli import replaying
from agentguard.cli.impact import _changes
from tests.analysis.kept import denied
from tests.analysis.ledgered import POLICIES, beside
from tests.cli.commands import Ran, agentguard
from tests.evidence.history import export_line

LOWER = POLICIES.replace("> 500", "> 300")
NARROWER = POLICIES.replace("{ principal has user }", '{ principal has user && principal.user == User::"alice" }')
ASKS = POLICIES + (
    '@id("ask") @obligation("approval") forbid (principal, action == Action::"amend", resource) '
    "unless { context has approval };\n"
)
LOOSER = POLICIES.replace(
    "(principal, action, resource is Record)", '(principal in Agent::"x", action, resource is Record)'
)


@pytest.fixture
def new(in_use: Path, tmp_path: Path) -> Path:
    """Return a place for a copy of the policies, to be changed."""
    copy = tmp_path / "work"
    shutil.copytree(in_use / "policies", copy / "policies")
    return copy / "policies"


def impact(in_use: Path, other: Path, *options: str) -> Ran:
    """Run the command on the evidence."""
    return agentguard("impact", str(in_use / "policies"), str(other), "--evidence", str(in_use / "state"), *options)


def test_nothing_changes_under_the_same_policies(in_use: Path) -> None:
    """Not even what a digest hides: what decided is known."""
    ran = impact(in_use, in_use / "policies")

    assert ran.status == 0, ran.stdout
    assert re.fullmatch(
        r"12 decisions (on|from) .*: 12 would be as they were\n\n"
        r"nothing would change: OLD and NEW are the same\n",
        ran.stdout,
    )


def test_comment_changes_nothing(in_use: Path, new: Path) -> None:
    """The version is another one, and no decision is."""
    ran = impact(in_use, beside(new, "next", f"// Reviewed.\n{POLICIES}"))

    assert ran.status == 0
    assert ran.stdout.endswith("\n\nnothing would change\n")


def test_lower_limit_denies_what_is_known_to_be_over_it(in_use: Path, new: Path) -> None:
    """Of a tool that keeps the argument it is told, of the other one it is not, with what it would take."""
    ran = impact(in_use, beside(new, "next", LOWER))

    assert ran.status == 1
    assert [re.sub("[0-9A-Z]{26}", "…", line) for line in ran.stdout.splitlines()[1:]] == [
        "",
        "newly denied",
        "  agent    tool  by         calls  newest",
        "  shipper  ship  row-limit      1  …",
        "",
        "cannot be told",
        "  tool    because it is not on record  calls  newest",
        "  export  context.input.max_rows           2  …",
        '  export: `@guard.tool(record_inputs=("max_rows",))` would have told 2 of them',
        "  or have NEW judge in the shadow: `Guard(shadow=…)`, `wrap --shadow`",
        "",
        "1 newly denied, 2 cannot be told",
    ]


def test_everything_fits_a_narrow_terminal(in_use: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the ids of decisions, which are in the JSON."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = impact(in_use, beside(new, "next", LOWER))

    assert max(map(len, ran.stdout.splitlines())) <= 80
    assert "  shipper  ship  row-limit      1" in ran.stdout.splitlines()


def test_calls_that_look_the_same_are_one_row() -> None:
    """By what they were decided before is not shown where another policy denies them."""
    limited: Any = partial(
        Changed, Change.DENIED, "shipper", "ship", "permit", after="policy", after_ids=("limit",), within_grant=False
    )
    few, many = Tally(calls=1, example="01A", latest=2.0), Tally(calls=1_000, example="01B", latest=1.0)
    drawn = _changes([(limited(("ships",)), few), (limited(("ships", "all")), many)], newest=True)

    cells = [str(cell) for column in drawn.columns for cell in column.cells]
    assert cells == ["  shipper", "ship", "limit", "1,001", "01A"]


def test_permit_that_is_narrowed_denies_the_others(in_use: Path, new: Path) -> None:
    """What permitted before is named, where nothing does any more."""
    ran = impact(in_use, beside(new, "next", NARROWER), "--json")
    (change,) = ran.json["changes"]

    assert ran.status == 1
    assert (change["change"], change["agent"], change["tool"], change["decisions"]) == (
        "newly denied",
        "reader",
        "read",
        1,
    )
    assert change["before"] == {"reason": "permit", "policy_ids": ["reads"]}
    assert change["after"] == {"reason": "no_permit", "policy_ids": []}
    assert "no_permit, before: reads" in impact(in_use, beside(new, "text", NARROWER)).stdout


def test_call_that_a_person_would_be_asked_about_is_told_apart(in_use: Path, new: Path) -> None:
    """It need not be lost."""
    ran = impact(in_use, beside(new, "next", ASKS))

    assert ran.status == 1
    assert re.search(r"^newly needs a person\n  agent .*\n  reader  amend  ask +1 ", ran.stdout, re.MULTILINE)
    assert ran.stdout.endswith("1 newly needs a person\n")


def test_call_that_would_be_allowed_takes_its_grant_too(in_use: Path, new: Path) -> None:
    """That is not on record, so it is said."""
    ran = impact(in_use, beside(new, "next", LOOSER))

    assert ran.status == 1
    assert re.search(r"^newly allowed\n  agent .*\n  reader  read  reads, and its grant +1 ", ran.stdout, re.MULTILINE)


def test_other_reason_is_told_with_the_old_one(in_use: Path, new: Path) -> None:
    """A denial that nothing permitted, and that something forbids."""
    forbid = '@id("nobody") forbid (principal, action == Action::"amend", resource) unless { principal has user };\n'
    ran = impact(in_use, beside(new, "next", POLICIES + forbid))

    row = r"  reader  amend  nobody, not no_permit +1 "
    assert re.search(rf"^denied for another reason\n  agent .*\n{row}", ran.stdout, re.MULTILINE)


def test_json_stays(in_use: Path, new: Path) -> None:
    """A program finds every name in it, and which versions were compared."""
    found = impact(in_use, beside(new, "next", LOWER), "--json").json

    assert set(found) == {
        "as_before", "cannot_tell", "changed", "changes", "decisions", "first", "last", "new", "not_judged", "old",
        "policy_versions", "record_inputs", "told_by_shadow", "untold",
    }  # fmt: skip
    assert (found["decisions"], found["as_before"], found["changed"], found["cannot_tell"]) == (12, 9, 1, 2)
    assert found["old"]["decisions"] == 12
    assert found["old"]["policy_version"] != found["new"]["policy_version"]
    assert found["policy_versions"] == {found["old"]["policy_version"]: 12}
    assert found["record_inputs"] == [{"tool": "export", "arguments": ["max_rows"], "decisions": 2}]
    (untold,) = found["untold"]
    assert (untold["tool"], untold["unknown"], untold["arguments"], untold["why"]) == (
        "export", ["context.input.max_rows"], ["max_rows"], None,
    )  # fmt: skip


def test_evidence_of_another_version_is_counted(in_use: Path, new: Path) -> None:
    """What it says of its own policies says nothing of these; what can be told all the same is."""
    other = beside(new, "next", f"// Reviewed.\n{POLICIES}")
    ran = agentguard("impact", str(other), str(in_use / "policies"), "--evidence", str(in_use / "state"))

    assert "12 decisions by another version of the policies than that of OLD" in ran.stdout
    assert "it was decided under another version" in ran.stdout
    assert re.search(r"\n\nnothing that can be told would change, [0-9]+ cannot be told\n$", ran.stdout)
    assert ran.status == 1


def test_time_can_be_told(in_use: Path) -> None:
    """No decision of that time is no result: somebody meant another time."""
    assert impact(in_use, in_use / "policies", "--since", "1h").status == 0
    ran = impact(in_use, in_use / "policies", "--until", "2020-01-01")

    assert ran.status == 2
    assert "the evidence holds no decision of that time" in ran.stderr


def test_folders_can_be_those_of_the_project(in_use: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing has to be named, or the other folder alone."""
    home = new.parent
    beside(new, "next", LOWER)
    monkeypatch.chdir(home)
    (home / ".git").mkdir()
    assert "wants the folder of the other policies" in agentguard("impact").stderr
    (home / "agentguard.toml").write_text(f'policies = "policies"\nstate = "{in_use / "state"}"\n')
    assert agentguard("impact", "next").stdout.endswith("1 newly denied, 2 cannot be told\n")
    missing = agentguard("impact")
    assert missing.status == 2
    assert 'or write `next = "FOLDER"`' in missing.stderr
    with (home / "agentguard.toml").open("a") as file:
        file.write('next = "next"\n')
    assert agentguard("impact").status == 1


def test_folder_that_cannot_be_used_is_a_mistake(in_use: Path, new: Path) -> None:
    """One line, with the folder that is meant."""
    broken = beside(new, "broken", "permit (principal, action);")
    ran = impact(in_use, broken)
    assert (ran.status, str(broken) in ran.stderr) == (2, True)
    assert "Traceback" not in ran.stderr
    (new / "agentguard.cedarschema").unlink()
    assert "agentguard schema SERVER --write" in impact(in_use, new).stderr
    assert agentguard("impact", str(new), str(new), "--evidence", str(new / "none")).status == 2


def test_calls_that_no_policy_decided_are_told(in_use: Path, tmp_path: Path) -> None:
    """They would be as they were whatever the policies say."""
    export = tmp_path / "export.jsonl"
    export.write_text(f"{export_line([denied('expired')])}\n")
    ran = agentguard("impact", str(in_use / "policies"), str(in_use / "policies"), "--evidence", str(export))

    assert "1 decision that no policy can change: policies were not asked: expired" in ran.stdout
    assert ran.status == 0


def test_person_sees_how_far_it_is(in_use: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, and gone at the end."""
    monkeypatch.setattr(replaying, "_EVERY", 5)
    quiet = impact(in_use, in_use / "policies")
    monkeypatch.setattr(replaying, "on_terminal", lambda _stream: True)
    shown = impact(in_use, in_use / "policies")

    assert quiet.stderr == ""
    assert "\r5 records read …" in shown.stderr
    # No terminal is really there, so what would blank the line is taken out.
    assert shown.stderr.endswith("\r")
    assert shown.stdout == quiet.stdout
    monkeypatch.setattr(replaying, "_EVERY", 5_000)
    assert impact(in_use, in_use / "policies").stderr == ""
