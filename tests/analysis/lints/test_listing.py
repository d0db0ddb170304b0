"""What `cedarentities.json` says of groups, and policies ask otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentguard.analysis.finding import Finding, Severity
from agentguard.analysis.lints.run import lint
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.policy.files.folder import ENTITIES
from tests.analysis.folders import read, records_folder

HEAD = "(principal, action, resource)"
STAFF = 'Group::"staff"'
ASKED = f"principal has user && principal.user in {STAFF}"


def entity(type_: str, id_: str, *groups: str) -> dict[str, object]:
    """Return an entity in some groups."""
    parents = [{"type": "Group", "id": group} for group in groups]
    return {"uid": {"type": type_, "id": id_}, "attrs": {}, "parents": parents}


def listing(folder: Path, policies: str, *entities: dict[str, object]) -> Workspace:
    """Return a folder with these policies and entities."""
    listed = "[\n" + ",\n".join(json.dumps(one) for one in entities) + "\n]"
    (records_folder(folder, policies) / ENTITIES).write_text(listed, "utf-8")
    return open_workspace(folder)


def found(folder: Path, policies: str, name: str, *entities: dict[str, object]) -> list[Finding]:
    """Return what a lint says of policies and entities."""
    return [finding for finding in lint(listing(folder, policies, *entities)) if finding.name == name]


LISTED = (
    entity("Group", "staff"), entity("Group", "all"), entity("Group", "mixed"), entity("Group", "empty"),
    entity("User", "alice", "staff", "all"), entity("Agent", "a", "mixed"), entity("User", "bob", "mixed"),
)  # fmt: skip


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a folder in which groups are listed."""
    return listing(tmp_path_factory.mktemp("groups"), f'@id("p") permit {HEAD};', *LISTED)


@pytest.mark.parametrize(
    ("policy", "severity"),
    [
        (f"forbid {HEAD} when {{ principal in {STAFF} }};", "error"),
        (f"forbid {HEAD} when {{ principal.agent in {STAFF} }};", "error"),
        (f"forbid {HEAD} when {{ principal is Invocation in {STAFF} }};", "error"),
        (f"forbid (principal in {STAFF}, action, resource);", "error"),
        (f'forbid {HEAD} when {{ principal in [{STAFF}, Group::"all"] }};', "error"),
        (f'forbid {HEAD} when {{ principal in [{STAFF}, Group::"mixed"] }};', "warning"),
        (f"forbid {HEAD} when {{ principal in {STAFF} || principal has task }};", "warning"),
        (f"forbid {HEAD} unless {{ principal in {STAFF} }};", "warning"),
        (f"permit {HEAD} when {{ principal in {STAFF} }};", "warning"),
        (f"permit {HEAD} when {{ {ASKED} }};", ""),
        (f'forbid {HEAD} when {{ principal in Group::"mixed" }};', ""),
        (f'forbid {HEAD} when {{ principal in Group::"empty" }};', ""),
        (f'forbid {HEAD} when {{ principal in Agent::"a" }};', ""),
    ],
)
def test_run_is_never_in_a_group_of_users(policy: str, severity: str, groups: Workspace) -> None:
    """A forbid that asks for it forbids nothing."""
    findings = lint(groups.with_policies(read(f'@id("p") {policy}')))
    told = [finding for finding in findings if finding.name == "group-of-users"]

    assert [finding.severity for finding in told] == ([Severity(severity)] if severity else [])
    for finding in told:
        assert f"is never in it: {'leave' if policy.startswith('forbid (principal in') else 'write'} `" in finding.what
        assert ASKED in finding.what


def test_loader_may_know_of_agents_that_are_in_a_group(groups: Workspace) -> None:
    """Then nothing is proved."""
    policies = groups.with_policies(read(f'@id("p") forbid {HEAD} when {{ principal in {STAFF} }};'))
    loaded = replace(policies, written=replace(policies.written, loaders=frozenset({"Task"})))

    assert "group-of-users" in {finding.name for finding in lint(policies)}
    assert "group-of-users" not in {finding.name for finding in lint(loaded)}


def test_group_that_is_mistyped_is_told_where_no_group_is_listed(tmp_path: Path) -> None:
    """Nothing would be in the one that the policy asks about."""
    policy = '@id("p") forbid (principal in Group::"suspended", action, resource);'
    entities = (entity("Agent", "a", "suspendd"), entity("Agent", "b", "suspended"), entity("User", "c", "others"))

    first, second = found(tmp_path, policy, "unlisted-parent", *entities)

    assert (first.file, first.line, first.severity) == (ENTITIES, 2, Severity.WARNING)
    assert first.what == (
        '`Agent::"a"` is in `Group::"suspendd"`, which no policy asks about and cedarentities.json does not list: '
        "did you mean `suspended`?"
    )
    assert second.what.endswith("list it there, or take it out")


def test_group_that_a_call_names_is_not_told(tmp_path: Path) -> None:
    """No policy has to name it then."""
    policy = f'@id("p") forbid {HEAD} when {{ principal has user && principal.user in principal.user }};'

    assert found(tmp_path, policy, "unlisted-parent", entity("User", "c", "others")) == []


def test_where_groups_are_listed_nothing_is_left_to_tell(tmp_path: Path) -> None:
    """One that is not is refused."""
    assert found(tmp_path, f'@id("p") forbid {HEAD};', "unlisted-parent", *LISTED) == []
