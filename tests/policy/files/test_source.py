import shutil
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError, PolicyError
from agentguard.limits import Limits
from agentguard.model import EntityUid
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.files.source import PolicySet, compile_policies, read_folder
from agentguard.policy.schemas.schema import GuardedTool
from tests.policy.records import ALL, ENTITIES, LIMITS, READ, SEARCH, TOOLS, TYPES, policy_set, problems, tool
from tests.world import write_policies

PATIENT = "entity Patient = { name: String };"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that is as it should be."""
    made = tmp_path / "policies"
    (made / "types").mkdir(parents=True)
    (made / "a.cedar").write_text(ALL)
    (made / "types" / "a.cedarschema").write_text(TYPES)
    (made / "cedarentities.json").write_text(ENTITIES)
    return made


def compiled(folder: Path, *, tools: tuple[GuardedTool, ...] = TOOLS, label: str | None = None) -> PolicySet:
    """Compile a folder for the tools of these tests."""
    source = read_folder(folder, LIMITS)
    return compile_policies(source, tools, loaders=frozenset({"Record"}), claims={}, limits=LIMITS, label=label)


def test_a_folder_becomes_a_policy_set(folder: Path) -> None:
    """With the policies by id, the entities, a version and a label."""
    policies = compiled(folder, label="quarter end")

    assert list(policies.policies) == ["all"]
    assert policies.static_uids == {EntityUid("User", "alice"), EntityUid("User", "bob")}
    assert policies.version.startswith("sha256:")
    assert len(policies.version) == 71
    assert policies.label == "quarter end"
    assert policies.activated_at is None


def test_the_source_keeps_where_it_came_from(folder: Path) -> None:
    """Every file that decides is part of it."""
    source = read_folder(folder, LIMITS)

    assert source.folder == str(folder)
    assert [name for name, _ in source.files] == ["a.cedar", "cedarentities.json", "types/a.cedarschema"]


def test_the_version_is_the_same_for_the_same_content(folder: Path, tmp_path: Path) -> None:
    """Wherever the folder is, and whatever else is in it."""
    version = compiled(folder).version
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("new")

    assert compiled(tmp_path / "copy").version == version
    assert compiled(folder, label="other").version == version


@pytest.mark.parametrize("change", ["policy", "name", "schema", "entities", "tool", "engine"])
def test_the_version_is_another_when_anything_that_decides_is(
    folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blank, a file's name, a type, an entity, a tool's argument, or Cedar itself."""
    version = compiled(folder).version
    tools: tuple[GuardedTool, ...] = TOOLS
    match change:
        case "policy":
            (folder / "a.cedar").write_text(ALL + " ")
        case "name":
            (folder / "a.cedar").rename(folder / "b.cedar")
        case "schema":
            (folder / "types" / "a.cedarschema").write_text(f"{TYPES}\n")
        case "entities":
            (folder / "cedarentities.json").write_text(f"{ENTITIES}\n")
        case "tool":
            tools = (READ, SEARCH, tool("more", record_of({"a": Field(int)}, where="more")))
        case "engine":
            monkeypatch.setattr("agentguard.policy.files.source.version", lambda name: f"{name} 99")

    assert compiled(folder, tools=tools).version != version


def test_bytes_that_move_from_one_file_to_another_make_another_version(folder: Path) -> None:
    """The digest does not read two sets of files as one."""
    (folder / "b.cedar").write_text("//b")
    one = compiled(folder).version
    (folder / "b.cedar").write_text("//")
    (folder / "a.cedar").write_text(f"{ALL}b")

    with pytest.raises(PolicyError):
        compiled(folder)
    (folder / "a.cedar").write_text(f"{ALL}//")
    (folder / "b.cedar").write_text("b")
    with pytest.raises(PolicyError):
        compiled(folder)
    (folder / "b.cedar").write_text("")
    assert compiled(folder).version != one


def test_a_folder_without_a_policy_is_refused(folder: Path) -> None:
    """A file of comments allows nothing and forbids nothing."""
    (folder / "a.cedar").write_text("// later")

    with pytest.raises(PolicyError, match=f"policy folder `{folder}` holds no policy, so nothing could be allowed"):
        read_folder(folder, LIMITS)


def test_everything_that_is_wrong_in_a_folder_is_told_at_once(folder: Path) -> None:
    """Policies, types and entities alike, in the order of files and lines."""
    (folder / "b.cedar").write_text(f"{ALL}\npermit (a);")
    (folder / "cedarentities.json").write_text("{}")
    (folder / "types" / "a.cedarschema").write_text('action "x";')

    with pytest.raises(PolicyError) as caught:
        read_folder(folder, LIMITS)

    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        "b.cedar:1",
        "b.cedar:2",
        "cedarentities.json:1",
        "types/a.cedarschema:1",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_a_loader_of_an_unknown_type_is_refused() -> None:
    """It would never be asked."""
    with pytest.raises(ConfigurationError, match="`Recrod`, which has a loader: did you mean `Record`"):
        policy_set(ALL, loaders=["Record", "Recrod"])


def test_types_that_cedar_cannot_join_are_refused_with_their_line() -> None:
    """They are read before Cedar reads them, which names no line."""
    types = f"{TYPES}\nentity Other = {{\n  a: Missing }};"

    assert problems(ALL, types=types) == ["types/a.cedarschema:3: there is no type `Missing`: declare it"]


def test_types_that_cedar_cannot_join_are_refused_when_no_line_is_found() -> None:
    """The file is named all the same."""
    types = f"{TYPES}\ntype Loop = Set<Loop>;"

    (problem,) = problems(ALL, types=types)

    assert problem.startswith("types/a.cedarschema:2: ")


def test_types_that_cedar_alone_refuses_are_told_with_their_line() -> None:
    """A name that hides another one is Cedar's to refuse."""
    types = f"{TYPES}\nentity Other;\nnamespace A {{ entity Other; }}"

    (problem,) = problems(ALL, types=types)

    assert problem.startswith("types/a.cedarschema:2: definition of `A::Other` illegally shadows")


def test_types_that_no_two_readers_read_alike_are_refused() -> None:
    """Cedar takes the second of two members of one name, and a command for policies would take the first."""
    types = f"{TYPES}\nentity Other = {{ a: Long, a: String }};"

    assert problems(ALL, types=types) == [
        "types/a.cedarschema:2: `a` is declared twice in one record: remove one",
    ]


def test_version_is_that_of_the_part_that_a_server_has_alone(tmp_path: Path) -> None:
    """Where servers have nothing in common, a guard of the whole folder and a command for the part agree."""
    part = write_policies(tmp_path / "servers" / "records", ALL, types=TYPES)

    alone, whole = (read_folder(part, LIMITS), read_folder(tmp_path, LIMITS, "records"))

    versions = [
        compile_policies(source, TOOLS, loaders=frozenset({"Record"}), claims={}, limits=LIMITS).version
        for source in (alone, whole)
    ]
    assert versions[0] == versions[1]


def test_policies_past_a_bound_are_refused(folder: Path) -> None:
    """The bounds are the guard's, not Cedar's."""
    with pytest.raises(PolicyError, match="a policy holds at most 10 bytes"):
        read_folder(folder, Limits(policy_bytes=10))


def test_a_type_without_loader_and_entities_is_refused_where_it_is_declared() -> None:
    """Every call that reaches one would be denied."""
    (problem,) = problems(ALL, loaders=[])

    assert problem == (
        "types/a.cedarschema:1: `Record` has attributes or parents that nobody knows: "
        'register a loader, @guard.entity("Record"), or list its entities in cedarentities.json'
    )


def test_a_type_that_is_reached_through_another_is_refused() -> None:
    """An attribute of an attribute leads there too, and a group that is in groups."""
    types = f"{TYPES.replace('sealed', 'who?: Visit, sealed')} type Visit = {{ of: Patient }}; {PATIENT}"

    (problem,) = problems(ALL, types=types)

    assert problem.startswith("types/a.cedarschema:1: `Patient` has attributes")


def test_a_type_that_no_call_reaches_needs_nobody() -> None:
    """A fragment may be shared by servers."""
    assert "all" in policy_set(ALL, types=f"{TYPES} {PATIENT}").policies


def test_a_resource_that_is_only_in_its_tool_needs_no_loader() -> None:
    """The guard makes it whole."""
    assert "all" in policy_set(ALL, types="", loaders=[]).policies


def test_a_resource_that_is_only_in_its_tool_needs_a_loader_where_another_entity_refers_to_it() -> None:
    """The guard makes the one that is called on, and no other."""
    types = "entity Record in [Tool]; entity Agent = { record: Record };"

    found = problems(ALL, types=types, loaders=["Agent"])

    assert [problem.partition(" has")[0] for problem in found] == ["types/a.cedarschema:1: `Record`"]


def test_a_generated_type_that_nobody_knows_is_told_by_its_tool() -> None:
    """It is declared nowhere."""
    types = "entity Agent = { record: Shop::Record };"
    shop = GuardedTool(name="shop", server="s", input=record_of({}, where="shop"), resource_type="Shop::Record")

    (problem,) = problems(ALL, types=types, tools=[shop], loaders=["Agent"])

    assert problem.startswith("tool `shop`: `Shop::Record` has attributes or parents")


def test_a_generated_group_that_is_in_nothing_needs_nobody() -> None:
    """There is nothing to know of it."""
    types = f"{TYPES} entity Team; entity User in [Team];"

    assert "all" in policy_set(ALL, types=types, entities=ENTITIES.replace("Group", "Team")).policies


def test_a_type_with_a_loader_and_listed_entities_is_refused() -> None:
    """What is listed would win over a loader that knows better, without a word."""
    listed = '{ "uid": { "type": "Record", "id": "r9" }, "attrs": { "sensitivity": "normal" }, "parents": [] }'
    entities = f"{ENTITIES[:-1]},\n{listed},\n{listed.replace('r9', 'r8')}]"

    (found,) = problems(ALL, entities=entities)

    assert found.startswith("cedarentities.json:5: `Record` has a loader too, which would not be asked for `Record::")
    assert found.endswith(": remove its entities here, or the loader")
    assert policy_set(ALL, entities=entities, loaders=[]).static_uids > {EntityUid("Record", "r9")}


def test_who_acts_may_be_listed_by_name_beside_a_loader() -> None:
    """What a policy asks about has to be listed, and a loader knows all the others."""
    assert "all" in policy_set(ALL, loaders=["Record", "User"]).policies
