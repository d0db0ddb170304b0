from __future__ import annotations

from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files.folder import read_files
from agentguard.policy.files.several import part_for
from agentguard.policy.files.source import read_folder
from tests.policy.records import LIMITS
from tests.publishing import put, unlisted

GROUPS = '@id("no-guests") forbid (principal in Agent::"guest", action in Action::"destructive", resource);'
READS = '@id("reads") permit (principal, action == Action::"read", resource);'
WRITES = '@id("writes") permit (principal, action == Action::"write", resource);'
THERE = "servers/files, servers/records"
FIX = "add it, or name the server as its folder"
MOVE = "which other servers do not have: move it to servers/NAME/, or name a group of actions"
FILES = {
    "common/10-groups.cedar": GROUPS,
    "common/types/people.cedarschema": "entity Group; entity User in [Group];",
    "common/cedarentities.json": '[{"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []}]',
    "servers/records/reads.cedar": READS,
    "servers/records/agentguard.cedarschema": "not read",
    "servers/records/next/reads.cedar": "not read",
    "servers/files/writes.cedar": WRITES,
    "servers/files/cedarentities.json": '[{"uid": {"type": "User", "id": "bob"}, "attrs": {}, "parents": []}]',
    "common/next/groups.cedar": "not read",
    "next/common/groups.cedar": "not read",
    "README.md": "not read",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for two servers."""
    return put(tmp_path / "policies", FILES)


def problems(folder: Path, server: str | None = "records") -> list[str]:
    """Return why a folder is refused for a server."""
    with pytest.raises(PolicyError) as caught:
        read_folder(folder, LIMITS, server)
    return list(caught.value.problems)


def test_server_has_what_is_common_and_its_own(folder: Path) -> None:
    """In the order of names, so that the version is over both."""
    records = read_folder(folder, LIMITS, "records")
    files = read_folder(folder, LIMITS, "files")

    common = ["common/10-groups.cedar", "common/cedarentities.json", "common/types/people.cedarschema"]
    assert [name for name, _ in records.files] == [*common, "servers/records/reads.cedar"]
    assert [policy.id for policy in records.policies] == ["no-guests", "reads"]
    assert [policy.id for policy in files.policies] == ["no-guests", "writes"]
    assert [(entity.uid.id, entity.file) for entity in files.entities] == [
        ("staff", "common/cedarentities.json"),
        ("bob", "servers/files/cedarentities.json"),
    ]


def test_part_of_one_server_leads_to_the_whole(folder: Path) -> None:
    """So whoever is given that part alone reads the same, with the same version."""
    assert read_folder(folder / "servers" / "records", LIMITS) == read_folder(folder, LIMITS, "records")
    assert read_files(folder / "servers" / "records", "files") == read_files(folder, "records")


def test_folder_that_is_below_another_of_that_name_is_its_own(tmp_path: Path) -> None:
    """Without anything in common there is nothing above it to read."""
    folder = put(tmp_path / "servers" / "records", {"a.cedar": READS})

    assert list(read_files(folder)) == ["a.cedar"]


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (None, f"holds the policies of several servers: name the folder of one, {THERE}"),
        ("record", f"has no servers/record for server `record`: {FIX}, did you mean `records`?"),
        ("mail", f"has no servers/mail for server `mail`: {FIX}, there is `files`, `records`"),
        ("../x", f"has no folder for server `../x`, and none can have that name: pass {THERE}"),
        ("", f"has no folder for server ``, and none can have that name: pass {THERE}"),
        ("\x1b[2J", f"has no servers/\ufffd[2J for server `\ufffd[2J`: {FIX}, there is `files`, `records`"),
    ],
)
def test_server_without_a_part_is_refused_with_those_that_there_are(
    folder: Path, server: str | None, told: str
) -> None:
    """It would have what is common alone, which permits nothing that it has."""
    assert problems(folder, server) == [f"policy folder `{folder}` {told}"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "common/tool.cedar",
            READS.replace("reads", "r"),
            f'common/tool.cedar:1: names `Action::"read"`, {MOVE}',
        ),
        (
            "common/tool.cedar",
            '\n@id("t") permit (principal, action, resource == Tool::"read");',
            f'common/tool.cedar:2: names `Tool::"read"`, {MOVE}',
        ),
        (
            "common/twice.cedar",
            READS.replace('action == Action::"read"', "action"),
            '@id("reads") is taken by common/twice.cedar:1: rename one of the two',
        ),
        (
            "servers/records/cedarentities.json",
            '[{"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []}]',
            'json:1: `Group::"staff"` is there twice, first in common/cedarentities.json:1: keep one',
        ),
        ("top.cedar", WRITES, "is for several servers, so move it to common/ or servers/NAME/"),
        ("servers/stray.cedar", WRITES, "is for several servers, so move it to common/ or servers/NAME/"),
        ("servers/records/deep/a.cedar", WRITES, "is not read from here: move it to the top"),
        ("common/a.cedarschema", "entity A;", "is not read from here: move it to `types/`"),
    ],
)
def test_what_is_out_of_place_in_it_is_refused(folder: Path, name: str, text: str, told: str) -> None:
    """With where it belongs."""
    put(folder, {name: text})

    (found,) = problems(folder)

    assert told in found


def test_groups_and_methods_are_what_all_servers_have(folder: Path) -> None:
    """So common policies may name them, one or several."""
    named = 'action in [Action::"read-only", Action::"tools/call", Action::"resources/read"]'
    put(folder, {"common/more.cedar": f'@id("more") forbid (principal in Agent::"guest", {named}, resource);'})

    assert [policy.id for policy in read_folder(folder, LIMITS, "files").policies] == ["no-guests", "more", "writes"]


def test_what_is_wrong_with_another_server_is_that_servers_affair(folder: Path) -> None:
    """One team's slip does not stop the servers of all."""
    put(folder, {"servers/files/broken.cedar": "permit", "servers/files/no/x.cedar": READS})

    assert [policy.id for policy in read_folder(folder, LIMITS, "records").policies] == ["no-guests", "reads"]
    assert len(problems(folder, "files")) == 2


@pytest.mark.parametrize("name", ["common", "common/types", "servers", "servers/records"])
def test_part_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(name: str) -> None:
    """What is forbidden to everybody may be in there."""
    with unlisted(FILES, name) as folder:
        assert f"{name}/: cannot be listed: let whoever runs the server read this folder" in problems(folder)


@pytest.mark.parametrize("name", ["servers/files", "servers/records/next", "next"])
def test_what_is_not_read_for_a_server_may_be_closed_to_it(name: str) -> None:
    """Each may run as a user who sees its own part alone."""
    with unlisted(FILES, name) as folder:
        assert [policy.id for policy in read_folder(folder, LIMITS, "records").policies] == ["no-guests", "reads"]


def test_server_that_has_types_alone_has_no_policies(tmp_path: Path) -> None:
    """Nothing could be allowed there."""
    folder = put(
        tmp_path / "policies",
        {"servers/a/types/a.cedarschema": "entity A;", "servers/b/b.cedar": WRITES, "common/README.md": ""},
    )

    (told,) = problems(folder, "a")
    assert told == f"policy folder `{folder}` holds no .cedar file, so nothing could be allowed: add one"


def test_part_for_a_server_is_where_its_schema_is_written(folder: Path, tmp_path: Path) -> None:
    """Of a folder for one server, that is the folder."""
    assert part_for(folder, "records") == folder / "servers" / "records"
    assert part_for(tmp_path, "records") == tmp_path
