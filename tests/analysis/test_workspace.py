"""A policy folder with its written schema, opened without the server."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from agentguard.analysis.workspace import open_workspace
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.files.reader import read_policies
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.files.written import FILE, Offered, WrittenSchema, write_schema
from agentguard.policy.schemas.schema import METHODS, GuardedTool, method_tool
from agentguard.policy.schemas.types import CedarType
from agentguard.request import ResourceTemplate
from tests.world import POLICIES, TYPES, write_policies

LIMITS: Final = Limits()
EXPORT: Final = Offered(
    tool=GuardedTool(
        name="export",
        server="records",
        input=record_of({"max_rows": Field(int)}, where="export"),
        groups=frozenset({"tools/call"}),
    )
)
READ: Final = Offered(
    tool=GuardedTool(
        name="read",
        server="records",
        input=record_of({"record_id": Field(str)}, where="read"),
        resource_type="Record",
        groups=frozenset({"tools/call", "read-only"}),
    ),
    resource=ResourceTemplate("Record", "record_id"),
)
WRITTEN: Final = WrittenSchema(
    server="records",
    offers=(READ, EXPORT, *(Offered(tool=method_tool(method, "records")) for method in METHODS)),
    loaders=frozenset({"Record"}),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a policy folder with its written schema."""
    return written_into(write_policies(tmp_path / "policies", POLICIES, types=TYPES))


def written_into(folder: Path, written: WrittenSchema = WRITTEN) -> Path:
    """Write the schema into a folder, and return it."""
    (folder / FILE).write_text(write_schema(written, read_folder(folder, LIMITS)))
    return folder


def test_folder_is_compiled_as_the_guard_compiles_it(folder: Path) -> None:
    """The version is the one that evidence has, and the file itself has no part in it."""
    (folder / FILE).rename(folder.parent / FILE)
    version = compile_policies(
        read_folder(folder, LIMITS), WRITTEN.tools, loaders=WRITTEN.loaders, claims={}, limits=LIMITS
    ).version
    (folder.parent / FILE).rename(folder / FILE)

    opened = open_workspace(folder)

    assert opened.policies.version == version
    assert (opened.folder, opened.source.folder, opened.limits) == (folder, str(folder), LIMITS)
    assert (opened.written, opened.stale) == (WRITTEN, ())
    assert opened.text == (folder / FILE).read_text()
    assert opened.types.entities["Record"].attributes.members["sensitivity"].type == CedarType(name="String")
    assert opened.types.actions["read"].resources == ("Record",)


def test_same_folder_has_other_policies(folder: Path) -> None:
    """They are checked against the same server."""
    opened = open_workspace(folder)
    (other,), _ = read_policies("a.cedar", '@id("a") permit (principal, action == Action::"export", resource);', LIMITS)
    (wrong,), _ = read_policies("a.cedar", '@id("a") permit (principal, action == Action::"exprot", resource);', LIMITS)

    assert list(opened.with_policies([other]).policies.policies) == ["a"]
    assert list(opened.policies.policies) == ["reads", "restricted", "exports", "row-limit"]
    with pytest.raises(PolicyError, match="there is no action `exprot`: did you mean `export`"):
        opened.with_policies([wrong])


def test_folder_without_a_written_schema_says_how_to_write_it(tmp_path: Path) -> None:
    """There is nothing to check policies against."""
    folder = write_policies(tmp_path / "policies")

    with pytest.raises(ConfigurationError) as refused:
        open_workspace(folder)

    assert str(refused.value) == (
        f"policy folder `{folder}` has no agentguard.cedarschema, which says what the server offers: "
        f"write it with `agentguard schema SERVER --write {folder}`"
    )


def test_what_is_wrong_with_the_folder_is_told_first(tmp_path: Path) -> None:
    """A folder that is not there is not one without a schema."""
    with pytest.raises(PolicyError, match="does not exist: create it"):
        open_workspace(tmp_path / "policies")


def test_schema_that_was_edited_is_refused(folder: Path) -> None:
    """Where it is wrong is told."""
    (folder / FILE).write_text("entity A\n")

    with pytest.raises(PolicyError) as refused:
        open_workspace(folder)

    assert refused.value.problems == ("agentguard.cedarschema:2: wants `;`, got the end of the file: mend it",)


def elsewhere(path: Path) -> None:
    """Make a link out of the folder."""
    path.symlink_to("/etc/passwd")


def bytes_of_no_text(path: Path) -> None:
    """Write what is no UTF-8."""
    path.write_bytes(b"\n\xff")


def itself(path: Path) -> None:
    """Make a link that leads back."""
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (elsewhere, "is a link out of the policy folder"),
        (os.mkfifo, "is no regular file: put a file here"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (bytes_of_no_text, "agentguard.cedarschema:2: is not UTF-8"),
        (itself, "cannot be read: "),
    ],
)
def test_schema_that_cannot_be_read_is_told(folder: Path, make: Callable[[Path], object], message: str) -> None:
    """Nothing outside of the folder is read, and nothing is waited for."""
    (folder / FILE).unlink()
    make(folder / FILE)

    with pytest.raises(PolicyError, match=message):
        open_workspace(folder)


def test_file_that_lies_behind_a_link_inside_is_read(folder: Path) -> None:
    """As a Kubernetes ConfigMap has it."""
    (folder / "..data").mkdir()
    (folder / FILE).rename(folder / "..data" / FILE)
    (folder / FILE).symlink_to(f"..data/{FILE}")

    assert open_workspace(folder).stale == ()


def test_comments_blanks_and_line_ends_make_no_schema_stale(folder: Path) -> None:
    """An editor may have formatted it."""
    text = (folder / FILE).read_text()
    (folder / FILE).write_bytes(text.replace("\n", "\r\n").replace("datetime,", "datetime  ,").encode() + b"// end")

    opened = open_workspace(folder)

    assert opened.stale == ()
    assert opened.text != text


def test_change_of_the_types_of_the_team_makes_it_stale(folder: Path) -> None:
    """Their text is in the file, which an editor believes."""
    types = folder / "types" / "records.cedarschema"
    types.write_text(
        types.read_text().replace("sensitivity: String", "sensitivity: String, extra?: Long") + "entity X;"
    )

    assert open_workspace(folder).stale == (
        "entity type `Record` is not in agentguard.cedarschema as it is now",
        "entity type `X` is not in agentguard.cedarschema",
    )


def test_first_user_in_a_group_makes_it_stale(folder: Path) -> None:
    """As soon as entities say so, users can be in groups."""
    entities = [{"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": []}]
    (folder / "cedarentities.json").write_text(json.dumps(entities))

    assert open_workspace(folder).stale == (
        "entity type `User` is not in agentguard.cedarschema as it is now",
        "entity type `Group` is not in agentguard.cedarschema",
    )


def test_what_no_guard_would_write_makes_it_stale(folder: Path) -> None:
    """An action that knows more than a call brings, and a type that nobody has."""
    text = (folder / FILE).read_text()
    text = text.replace("transport: String,", "transport: String, more: Long,", 1)
    (folder / FILE).write_text(text.replace("entity Server;", "entity Server; entity Y;"))

    assert open_workspace(folder).stale == (
        "entity type `Y` is in agentguard.cedarschema alone",
        "action `read` is not in agentguard.cedarschema as it is now",
    )
