"""`agentguard unused`: what is permitted and not used, and a folder that permits no more."""

import json
import re
import shutil
from pathlib import Path

import pytest

from agentguard.analysis.history.tighter import Tighter, tighter_of
from agentguard.analysis.history.unused import Usage
from agentguard.analysis.workspace import open_workspace
from agentguard.cli import unused as module
from tests.analysis.kept import denied
from tests.analysis.ledgered import POLICIES, beside
from tests.cli.commands import Ran, agentguard
from tests.evidence.history import export_line

TIGHT = POLICIES.replace(
    'permit (principal in Agent::"shipper", action, resource);',
    'permit (principal in Agent::"shipper", action in [Action::"read", Action::"ship"], resource);',
)

PROPOSED = (
    "a tighter folder, without 1 permit and with 1 narrower permit, permits the same calls: write it with `--write NEW`"
)


def unused(in_use: Path, *options: str, folder: Path | None = None) -> Ran:
    """Run the command on the evidence."""
    return agentguard("unused", str(folder or in_use / "policies"), "--evidence", str(in_use / "state"), *options)


def copied(in_use: Path, tmp_path: Path, policies: str) -> Path:
    """Return a copy of the folder with other policies."""
    shutil.copytree(in_use / "policies", tmp_path / "work" / "policies")
    return beside(tmp_path / "work" / "policies", "other", policies)


def test_what_is_unused_and_too_wide_is_told(in_use: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In eighty columns, with what to narrow to."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = unused(in_use)

    assert ran.status == 1
    lines = re.sub(r"[0-9]+ (s|min) ago", "now", ran.stdout).splitlines()
    assert re.fullmatch(r"12 decisions (on|from) .*: 7 allowed, 2 agents", lines[0])
    assert [re.sub(" {2,}", "  ", line) for line in lines[1:]] == [
        "",
        "permit  last allowed  calls  verdict",
        'reads  now  4  in use; purpose is always "care"',
        "ships  now  3  in use; amend, export, prompts/get, resources/read",
        "  never → narrow to read, ship",
        "idle  never  0  UNUSED → delete it, or write a scenario that says",
        "  why",
        "",
        "agent  may do, and its own runs never did",
        "shipper  amend, export, prompts/get, resources/read",
        "nobody  amend, export, prompts/get, read and 2 more",
        "",
        "grants are not on record; 3 runs used 2.0 tools on average, 3 at most",
        "",
        PROPOSED,
        "(tried on 7 kinds of call)",
    ]


def test_tighter_folder_is_whole_and_changes_nothing(in_use: Path, tmp_path: Path) -> None:
    """It opens, nothing that was allowed is denied, and only what was unused is gone."""
    new = tmp_path / "next"
    ran = unused(in_use, "--write", str(new))

    assert ran.status == 1
    assert f"wrote {new}: compare it with `diff -r`" in ran.stderr
    text = (new / "policies.cedar").read_text()
    date = text.partition("from ")[2][:10]
    assert text == TIGHT.replace(
        '@id("idle")\npermit (principal in Agent::"nobody", action, resource);',
        f"// idle: no call took it from {date} to {date}.",
    )
    assert open_workspace(new).stale == ()
    impact = agentguard("impact", str(in_use / "policies"), str(new), "--evidence", str(in_use / "state"))
    assert (impact.status, impact.stdout.splitlines()[-1]) == (0, "nothing would change")
    again = unused(in_use, folder=new)
    assert again.status == 0
    assert "12 of them by another version of the policies than this one, which decided none\n" in again.stdout
    assert "a tighter folder" not in again.stdout


def test_evidence_of_less_time_than_was_asked_about_is_told(in_use: Path) -> None:
    """What happens once a month need not be in a day's evidence; a time that it covers is not spoken of."""
    begins = unused(in_use, "--json").json["evidence_begins"]
    short = f"the evidence begins on {begins[:10]} {begins[11:16]}, (29|30) d after --since: what happens less often "

    assert re.search(f"^{short}need not be in it$", unused(in_use, "--since", "30d").stdout, re.MULTILINE)
    assert "--since:" not in unused(in_use, "--since", begins).stdout
    assert "--since:" not in unused(in_use).stdout


def test_json_stays(in_use: Path) -> None:
    """A program finds every permit with its place, its owner and all that used it."""
    found = unused(in_use, "--json").json
    reads, ships, idle = found["permits"]

    assert set(found) == {
        "agents", "allowed", "by_other_versions", "decisions", "evidence_begins", "first", "folder", "in_force_since",
        "last", "not_done", "permits", "policy_version", "runs", "tighter", "untold",
    }  # fmt: skip
    assert (reads["verdict"], ships["verdict"], idle["verdict"]) == ("in_use", "too_wide", "unused")
    assert (reads["file"], reads["line"], reads["owner"]) == ("policies.cedar", 1, "clinic@example.com")
    assert (reads["actions"], reads["agents"]) == ({"amend": 1, "export": 1, "read": 2}, {"reader": 4})
    assert (reads["purposes"], idle["last_allowed"], reads["delegated"]) == ({"care": 4}, None, 0)
    assert ships["never"] == ["amend", "export", "prompts/get", "resources/read"]
    assert found["agents"] == {"reader": {"amend": 1, "export": 1, "read": 2}, "shipper": {"read": 1, "ship": 2}}
    assert found["not_done"]["shipper"] == ["amend", "export", "prompts/get", "resources/read"]
    assert found["runs"] == {"runs": 3, "most_tools": 3, "tools_on_average": 2.0}
    assert found["tighter"] == {"removed": ["idle"], "narrowed": ["ships"], "kinds_tried": 7, "kinds_untold": 0}
    assert found["in_force_since"] == found["first"]


def test_folder_that_permits_what_is_used_is_good(in_use: Path, tmp_path: Path) -> None:
    """Nothing to do, nothing to propose."""
    idle = '@id("idle")\npermit (principal in Agent::"nobody", action, resource);'
    other = copied(in_use, tmp_path, TIGHT.replace(idle, ""))
    ran = unused(in_use, folder=other)

    assert ran.status == 0
    assert "a tighter folder" not in ran.stdout
    assert "a tighter folder, without 1 permit, permits" in unused(in_use, folder=beside(other, "idle", TIGHT)).stdout


def test_what_another_version_allowed_may_have_been_permitted_here(in_use: Path, tmp_path: Path) -> None:
    """By which permit cannot be told, so none of these is said to be unused."""
    other = copied(
        in_use,
        tmp_path,
        POLICIES.replace('@id("ships")', '@id("sends")').replace(
            'principal in Agent::"shipper", action, resource);',
            'principal in Agent::"shipper", action, resource) when { context.environment == "x" };',
        ),
    )
    ran = unused(in_use, folder=other)

    assert ran.status in {0, 1}
    assert "of which it cannot be told which permit they would take now" in ran.stdout
    assert "cannot be told: another version allowed what it may have permitted" in ran.stdout
    found = unused(in_use, "--json", folder=other).json
    assert "cannot_tell" in {permit["verdict"] for permit in found["permits"]}


def test_folder_for_several_servers_is_written_as_one(in_use: Path, tmp_path: Path) -> None:
    """What is for other servers too is told apart, left alone, and no finding."""
    part = tmp_path / "policies" / "servers" / "records"
    shutil.copytree(in_use / "policies", part)
    common = tmp_path / "policies" / "common"
    common.mkdir()
    (common / "all.cedar").write_text(
        '@id("all") permit (principal in Agent::"nobody", action in Action::"read-only", resource);'
    )
    idle = '@id("idle")\npermit (principal in Agent::"nobody", action, resource);'
    (part / "policies.cedar").write_text(TIGHT.replace(idle, ""))
    ran = unused(in_use, folder=part)
    assert ran.status == 0, ran.stdout
    assert "not used here; it is for other servers too" in ran.stdout

    (part / "policies.cedar").write_text(POLICIES)
    new = tmp_path / "next"
    assert unused(in_use, "--write", str(new), folder=part).status == 1
    assert open_workspace(new / "servers" / "records").policies.policies.keys() == {
        "all", "reads", "ships", "row-limit", "restricted",
    }  # fmt: skip


def test_many_tools_and_agents_are_not_all_listed() -> None:
    """The first few, and how many more."""
    assert module._some(("a", "b", "c", "d", "e", "f")) == "a, b, c, d and 2 more"
    table = module._idle({f"a{number}": ("t",) for number in range(18)} | {"none": ()})
    assert table is not None
    assert [str(cell) for cell in table.columns[0].cells][-2:] == ["a15", "and others"]


@pytest.mark.parametrize("taken", ["file", "folder", "link"])
def test_nothing_is_written_over(in_use: Path, tmp_path: Path, taken: str) -> None:
    """Neither policies that somebody wrote, nor whatever a link leads to."""
    new = tmp_path / "next"
    if taken == "file":
        new.write_text("mine")
    elif taken == "folder":
        new.mkdir()
        (new / "mine.cedar").write_text("mine")
    else:
        new.symlink_to(tmp_path / "elsewhere")
    ran = unused(in_use, "--write", str(new))

    assert ran.status == 2
    assert f"--write wants a new folder, and `{new}` is there" in ran.stderr
    assert ran.stdout == ""


def test_empty_folder_can_be_written_to(in_use: Path, tmp_path: Path) -> None:
    """Somebody made it for this."""
    (tmp_path / "next").mkdir()

    assert "wrote" in unused(in_use, "--write", str(tmp_path / "next")).stderr


def test_place_that_cannot_be_written_to_is_a_mistake(in_use: Path, tmp_path: Path) -> None:
    """One line, with what is wrong."""
    (tmp_path / "file").write_text("")
    below = unused(in_use, "--write", str(tmp_path / "file" / "next"))
    long = unused(in_use, "--write", str(tmp_path / ("x" * 300)))

    assert (below.status, "cannot be written, Not a directory" in below.stderr) == (2, True)
    assert (long.status, "cannot be looked into, File name too long" in long.stderr) == (2, True)


def test_no_evidence_is_no_result(in_use: Path) -> None:
    """That nothing was used would be the wrong thing to say."""
    ran = unused(in_use, "--until", "2020-01-01")

    assert ran.status == 2
    assert "the evidence holds no decision of that time" in ran.stderr


def test_folder_of_which_no_permit_was_used_has_no_tighter_one(in_use: Path, tmp_path: Path) -> None:
    """Without a permit it would be none; what is unused is told all the same."""
    only = copied(in_use, tmp_path, '@id("idle") permit (principal, action == Action::"prompts/get", resource);')
    new = tmp_path / "next"
    ran = unused(in_use, "--write", str(new), folder=only)

    assert ran.status == 1
    assert "no tighter folder can be proposed: no call took any permit" in ran.stderr
    assert not new.exists()


def test_evidence_without_an_allow_tells_of_no_run(in_use: Path, tmp_path: Path) -> None:
    """No run used anything."""
    export = tmp_path / "export.jsonl"
    export.write_text(f"{export_line([denied('no_permit')])}\n")
    ran = agentguard("unused", str(in_use / "policies"), "--evidence", str(export))

    assert ran.status == 1
    assert "grants are not on record" not in ran.stdout
    assert "1 decision on 2025-11-24: 0 allowed, 0 agents" in ran.stdout


def test_proposal_that_would_lose_a_call_is_not_made(
    in_use: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a mistake of ours."""

    def forgetful(usage: Usage) -> Tighter:
        usage.permits["reads"].calls = 0
        usage.permits["reads"].actions.clear()
        return tighter_of(usage)

    monkeypatch.setattr(module, "tighter_of", forgetful)
    ran = unused(in_use, "--write", str(tmp_path / "next"), "--json")

    assert "no tighter folder is proposed: it would deny decision" in ran.stderr
    assert ran.json["tighter"] is None
    assert not (tmp_path / "next").exists()
    assert json.dumps(ran.json)


def test_no_folder_is_proposed_from_evidence_that_cannot_all_be_read(in_use: Path, tmp_path: Path) -> None:
    """What took a permit may stand in the rest."""
    other = tmp_path / "other"
    other.write_text("no export\n")
    new = tmp_path / "next"
    ran = unused(in_use, "--evidence", str(other), "--write", str(new))

    assert ran.status == 1
    assert "no tighter folder is proposed: not all of the evidence could be read" in ran.stderr
    assert "a tighter folder" not in ran.stdout
    assert not new.exists()


def test_tighter_folder_has_all_else_that_lies_in_the_old_one(in_use: Path, tmp_path: Path) -> None:
    """Scenarios and notes, so that it can be tested and read; no link, no manifest, nothing of a tool."""
    old = tmp_path / "old"
    shutil.copytree(in_use / "policies", old)
    for name, text in {
        "scenarios/a.test.yaml": "scenarios: []\n",
        "README.md": "Ours.\n",
        ".vscode/settings.json": "{}",
        ".git/config": "secret",
    }.items():
        (old / name).parent.mkdir(exist_ok=True)
        (old / name).write_text(text)
    (old / "notes").symlink_to(tmp_path / "notes.md")
    with (old / "large.bin").open("wb") as large:
        large.truncate(32 * 1024 * 1024 + 1)
    new = tmp_path / "new"
    assert agentguard("lock", str(old)).status == 0

    ran = unused(in_use, "--write", str(new), folder=old)

    there = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}
    kept = {path.relative_to(in_use / "policies").as_posix() for path in (in_use / "policies").rglob("*.*")}
    assert there == kept | {"scenarios/a.test.yaml", "README.md", ".vscode/settings.json"}
    assert (new / "README.md").read_text() == "Ours.\n"
    assert "not copied, since it is a link, no file or too large: large.bin, notes" in ran.stderr


def test_a_folder_that_was_not_tried_on_all_calls_says_so() -> None:
    """Of those that cannot be told, nobody has seen that it permits them."""
    proposal = Tighter(files={}, workspace=None, removed=("a",), narrowed=(), allowed=2, untold=1, lost=())  # type: ignore[arg-type]  # it is not looked at

    assert module._proposed(proposal, written=True) == (
        "a tighter folder, without 1 permit, permits the same calls, as far as that can be told\n"
        "(tried on 3 kinds of call, 1 of which cannot be told)"
    )
