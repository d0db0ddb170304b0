"""`agentguard lock`: the manifest of a policy folder, written when all of it is there and valid."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from agentguard.cli import lock as locking
from agentguard.policy.files.folder import read_snapshot
from agentguard.policy.files.keeping import PolicyFolder, Refused
from agentguard.policy.files.source import read_folder
from tests.cli.commands import agentguard
from tests.policy.records import LIMITS
from tests.publishing import EVERYBODY, config_map, put

EXAMPLE = Path(__file__).parents[2] / "examples" / "records" / "policies"
SEVERAL = {
    "common/a.cedar": '@id("c") forbid (principal in Agent::"guest", action, resource);',
    "servers/files/a.cedar": EVERYBODY,
    "servers/records/a.cedar": EVERYBODY,
}


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the example's policies, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLE, tmp_path / "policies")
    (tmp_path / "policies" / "agentguard.lock").unlink(missing_ok=True)
    return tmp_path / "policies"


def test_lock_writes_what_makes_the_folder_whole(policies: Path) -> None:
    """With the version that the running guard will have, where the schema is written there."""
    there = PolicyFolder(policies, LIMITS)
    more = '@id("more") @owner("a") forbid (principal, action, resource) when { context.environment == "x" };'
    put(policies, {"99-more.cedar": more})
    assert there.look().refused is Refused.INCOMPLETE

    ran = agentguard("lock")

    assert (ran.status, ran.stderr) == (0, "")
    first, second = ran.stdout.splitlines()
    assert first == f"policies/agentguard.lock: {len(read_snapshot(policies).files)} files"
    assert second.startswith("policy version sha256:")
    assert there.look().is_new


def test_lock_tells_programs_too(policies: Path) -> None:
    """The files, and the versions by the server's part."""
    ran = agentguard("lock", "policies", "--json")

    assert ran.json["manifest"] == f"{policies}/agentguard.lock"
    assert ran.json["matches"] is True
    assert "10-permits.cedar" in ran.json["files"]
    assert set(ran.json["policy_versions"]) == {""}


def test_lock_needs_no_schema_of_the_server(tmp_path: Path) -> None:
    """Then it makes sure of what can be made sure of without."""
    ran = agentguard("lock", str(put(tmp_path / "own", {"a.cedar": EVERYBODY})))

    assert (ran.status, ran.stdout) == (0, f"{tmp_path}/own/agentguard.lock: 1 file\n")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("98-broken.cedar", "permit", "policies/98-broken.cedar:1:1 error[syntax]: the last policy has no end"),
        (
            "98-misfit.cedar",
            '@id("x") forbid (principal, action == Action::"read_recrod", resource);',
            "policies/98-misfit.cedar:1:39 error[unknown-action]: there is no action `read_recrod`",
        ),
        ("deep/98.cedar", EVERYBODY, "policies/deep/98.cedar error[misplaced-file]: is not read from here"),
    ],
)
def test_lock_does_not_lock_what_is_not_valid(policies: Path, name: str, text: str, told: str) -> None:
    """It says why, and leaves the manifest as it was."""
    put(policies, {name: text})

    ran = agentguard("lock", str(policies))

    assert (ran.status, ran.stdout) == (1, "")
    assert told in ran.stderr
    assert "agentguard: `policies` is not locked, for it is not valid: see `agentguard check policies`" in ran.stderr
    assert not (policies / "agentguard.lock").exists()


def test_lock_without_a_folder_says_which_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a mistake, and no finding."""
    monkeypatch.chdir(tmp_path)

    for arguments in (("lock",), ("lock", "absent"), ("lock", "--check", "absent")):
        ran = agentguard(*arguments)
        assert ran.status == 2
        assert ran.stderr.startswith("agentguard: ")


def test_check_exits_with_1_unless_the_manifest_matches(policies: Path) -> None:
    """So that nobody commits a change without it."""
    before = agentguard("lock", "--check")
    agentguard("lock")
    good = agentguard("lock", "--check")
    put(policies, {"99-more.cedar": EVERYBODY})
    stale = agentguard("lock", "--check")
    put(policies, {"deep/98.cedar": EVERYBODY})
    wrong = agentguard("lock", "--check")

    assert [ran.status for ran in (before, good, stale, wrong)] == [1, 0, 1, 1]
    assert good.stdout == "policies/agentguard.lock matches\n"
    assert "agentguard.lock is not there: run `agentguard lock policies`" in before.stderr
    assert "agentguard.lock does not match: `99-more.cedar` is not in it" in stale.stderr
    assert "policies/deep/98.cedar error[misplaced-file]: is not read from here" in wrong.stderr
    assert json.loads(agentguard("lock", "--check", "--json").stdout)["matches"] is False


def test_folder_for_several_servers_has_one_manifest_at_its_top(tmp_path: Path) -> None:
    """From whichever part it is asked for; each part has to be valid."""
    folder = put(tmp_path / "policies", SEVERAL)
    ran = agentguard("lock", str(folder / "servers" / "records"))
    assert (ran.status, ran.stdout) == (0, f"{folder}/agentguard.lock: 3 files\n")

    put(folder, {"servers/files/a.cedar": "permit"})
    ran = agentguard("lock", str(folder))

    assert ran.status == 1
    assert f"{folder}/servers/files/a.cedar:1:1 error[syntax]: " in ran.stderr
    assert ran.stderr.endswith(f"see `agentguard check {folder}/servers/files`\n")


def test_version_of_each_server_is_told(policies: Path) -> None:
    """Of those whose schema is written there, and a schema that is stale is told as such."""
    folder = policies.with_name("many")
    (folder / "common").mkdir(parents=True)
    shutil.copytree(policies, folder / "servers" / "records")
    put(folder, {"servers/files/a.cedar": EVERYBODY})
    ran = agentguard("lock", str(folder))
    assert ran.status == 0, ran.stderr
    (line,) = ran.stdout.splitlines()[1:]
    assert line.endswith(" of records")

    put(folder, {"common/types/more.cedarschema": "entity More;"})
    ran = agentguard("lock", str(folder))

    assert f"{folder}/servers/records/agentguard.cedarschema is not as it would be written now" in ran.stderr


def test_config_map_is_not_locked(tmp_path: Path) -> None:
    """It is swapped as a whole, and nobody may write there."""
    config_map(tmp_path / "mounted", {"a.cedar": EVERYBODY}, name="1")

    ran = agentguard("lock", str(tmp_path / "mounted"))

    assert ran.status == 2
    assert "is a ConfigMap, which arrives whole: lock what it is made from" in ran.stderr


def test_folder_that_is_changed_while_it_is_checked_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest would list what nobody checked."""
    folder = put(tmp_path / "own", {"a.cedar": EVERYBODY})

    def changing(*arguments: object) -> object:
        found = read_folder(*arguments)  # type: ignore[arg-type]
        put(folder, {"b.cedar": "permit"})
        return found

    monkeypatch.setattr(locking, "read_folder", changing)
    ran = agentguard("lock", str(folder))

    assert ran.status == 2
    assert "was changed while it was checked: run `agentguard lock` again" in ran.stderr
    assert not (folder / "agentguard.lock").exists()


def test_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """In one line, with what to do."""
    folder = put(tmp_path / "own", {"a.cedar": EVERYBODY})
    os.mkdir(folder / "agentguard.lock")  # noqa: PTH102  in the place of the file

    ran = agentguard("lock", str(folder))

    assert ran.status in {1, 2}
    assert "agentguard.lock" in ran.stderr


def test_folder_that_is_read_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left beside it."""
    folder = put(tmp_path / "own", {"a.cedar": EVERYBODY})

    def fails(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(locking, "write_manifest", fails)
    ran = agentguard("lock", str(folder))

    assert ran.status == 2
    assert f"`{folder}` cannot be written to: Read-only file system" in ran.stderr


def test_lock_does_not_lock_what_check_finds_an_error_in(policies: Path) -> None:
    """A forbid that forbids nothing would be locked in as if it protected."""
    vain = '@id("vain") @owner("a") forbid (principal, action == Action::"search_records", resource) when { 1 > 2 };'
    put(policies, {"98-vain.cedar": vain})

    ran = agentguard("lock")

    assert (ran.status, ran.stdout) == (1, "")
    assert "policies/98-vain.cedar:1:97 error[never-matching-forbid]: `1 > 2` never holds" in ran.stderr
    assert "agentguard: `policies` is not locked, for it is not valid: see `agentguard check policies`" in ran.stderr
    assert not (policies / "agentguard.lock").exists()


def test_lock_mentions_warnings(policies: Path) -> None:
    """They keep nothing from being locked."""
    put(
        policies,
        {"98-note.cedar": '@id("note") forbid (principal, action, resource) when { context.environment == "x" };'},
    )

    ran = agentguard("lock")

    assert ran.status == 0
    assert ran.stderr == "agentguard: check finds 1 warning: run `agentguard check policies`\n"
