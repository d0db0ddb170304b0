"""A lint is silenced where its policy says why; and what silences nothing is told."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from agentguard.analysis.lints.run import LINTS, lint
from agentguard.analysis.workspace import Workspace, open_workspace
from tests.analysis.folders import opened, read
from tests.policy.broken_folders import BROKEN, EXPECTED, lay_out

OVERFLOWS = "when { context.input.max_rows * 2 > 5 }"
DELETES = 'action == Action::"delete_record"'


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a folder for the records server."""
    return opened(tmp_path_factory.mktemp("records"), '@id("a") permit (principal, action, resource);')


def forbid(*notes: str, head: str = 'action == Action::"export_records"', clause: str = OVERFLOWS) -> str:
    """Return a forbid below annotations."""
    return f'@id("f") @owner("x") {" ".join(notes)} forbid (principal, {head}, resource) {clause};'


def told(workspace: Workspace, text: str) -> list[str]:
    """Return what is told but notes."""
    findings = lint(workspace.with_policies(read(text)))
    return [f"{finding.name}: {finding.what}" for finding in findings if finding.fails]


def test_a_reason_silences_a_finding(records: Workspace) -> None:
    """Of that lint, about that policy, and of no other."""
    (heard,) = told(records, forbid())
    twice = forbid('@silence_overflow("rows are few")') + forbid().replace('"f"', '"g"').replace("2", "3")

    assert heard.startswith("overflow: ")
    assert told(records, forbid('@silence_overflow("rows are few")')) == []
    assert len(told(records, twice)) == 1


@pytest.mark.parametrize("note", ["@silence_overflow", '@silence_overflow("")', '@silence_overflow("  ")'])
def test_a_silence_without_a_reason_silences_nothing(note: str, records: Workspace) -> None:
    """And says so."""
    heard = told(records, forbid(note))

    assert [line.partition(":")[0] for line in heard] == ["silence-without-reason", "overflow"]
    assert heard[0].endswith('@silence_overflow silences nothing without a reason: write @silence_overflow("why")')


@pytest.mark.parametrize(
    ("note", "fix"),
    [
        ('@silence_overflows("why")', "did you mean `silence_overflow`?"),
        ('@silence_unknown_action("why")', "did you mean"),
        ('@silence_stale_schema("why")', ""),
        ('@silence_useless_silence("why")', ""),
        ('@silence_("why")', ""),
    ],
)
def test_a_silence_of_what_is_no_lint_is_told(note: str, fix: str, records: Workspace) -> None:
    """What keeps the guard from loading a folder, and what is told of silences, cannot be silenced."""
    (heard,) = [line for line in told(records, forbid(note)) if line.startswith("unknown-silence")]

    assert f"{note.partition('(')[0]} silences no lint: " in heard
    assert fix in heard


def test_a_silence_with_nothing_to_silence_is_told(records: Workspace) -> None:
    """It would hide the next finding; but another server may have what a shared policy silences."""
    text = forbid('@silence_overflow("rows are few")', clause="when { context.input.max_rows > 5 }")
    (policy,) = read(text)

    assert told(records, text) == ["useless-silence: `overflow` has nothing to say here: take @silence_overflow away"]
    shared = records.with_policies([replace(policy, file="common/policies.cedar")])
    assert [finding.name for finding in lint(shared) if finding.fails] == []


def test_a_silence_counts_for_its_own_policy_alone(records: Workspace) -> None:
    """Whoever is fine with it here has not thought of what another policy makes of the same tools."""
    offers = [replace(offered, annotated=offered.tool.name != "delete_record") for offered in records.written.offers]
    unsaid = replace(records, written=replace(records.written, offers=tuple(offers)))
    note = '@silence_unannotated_tool("it is what it says")'
    head, clause = 'action in Action::"destructive"', "unless { principal has user }"
    asks = forbid(head=head, clause=clause).replace('"f"', '"h"', 1)
    fine = forbid(note, head=head, clause="when { 1 < context.local.minute }")
    names_it = forbid(note, head=DELETES, clause="when { principal has user }")

    assert told(unsaid, fine) == []
    assert [line.partition(":")[0] for line in told(unsaid, asks + fine)] == ["unannotated-tool"]
    assert [line.partition(":")[0] for line in told(unsaid, asks + names_it)] == ["unannotated-tool", "useless-silence"]


def test_a_silence_is_not_called_useless_where_its_lint_was_not_looked_for(records: Workspace) -> None:
    """Some say nothing where policies were left out for a mistake."""
    text = '@id("p") @owner("x") @silence_unconditional_destructive("why") permit (principal, action, resource);'
    part = lint(records.with_policies(read(text)), whole=False)

    assert part == []


@pytest.mark.parametrize("name", sorted(name for name, one in LINTS.items() if one.silenceable))
def test_every_lint_that_can_be_silenced_is(name: str, tmp_path: Path) -> None:
    """Above the policy that it is about; a silence that silenced nothing would be told."""
    lay_out(name, tmp_path)
    place = re.search(rf"policies\.cedar:(\d+):\d+ \w+\[{name}\]", (BROKEN / name / EXPECTED).read_text("utf-8"))
    assert place is not None
    file = tmp_path / "policies.cedar"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    above = max(at for at in range(int(place[1])) if lines[at].startswith("@id("))
    lines[above] = f'@{LINTS[name].annotation}("why") {lines[above]}'
    file.write_text("".join(lines), "utf-8")

    assert not {finding.name for finding in lint(open_workspace(tmp_path))} & {name, "useless-silence"}
