"""Load a policy folder, and compile it for the tools of one server.

Two steps, since a folder can be read before the server's tools are known. Each collects
everything that is wrong and refuses once, with one line for each: file, line, what is
wrong, and the fix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from agentguard.errors import ConfigurationError, PolicyError
from agentguard.policy.deciding.compiled import Policy, PolicySet, schema_of_text
from agentguard.policy.faults.checks import invalid_policies, invalid_schema, invalid_types
from agentguard.policy.faults.vain import (
    impossible_values,
    possible_groups,
    unknown_entities,
    unlisted_entities,
    unseen_arguments,
    vain_comparisons,
)
from agentguard.policy.files.entityfile import StaticEntity, listed_twice, read_entities, unfit_entities
from agentguard.policy.files.folder import ENTITIES, NO_POLICIES, SCHEMA_SUFFIX, read_snapshot
from agentguard.policy.files.reader import duplicates, read_policies
from agentguard.policy.files.several import COMMON, of_one_server, split
from agentguard.policy.problem import Problem, did_you_mean, refused
from agentguard.policy.schemas.declarations import plain_attributes, read_declarations
from agentguard.policy.schemas.fragments import Fragment, read_fragment
from agentguard.policy.schemas.reachable import twice_sourced, unsourced_types
from agentguard.policy.schemas.schema import SchemaTexts, schema_texts
from agentguard.policy.schemas.types import read_types
from agentguard.policy.text.lexer import LexError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agentguard.limits import Limits
    from agentguard.policy.files.folder import Snapshot
    from agentguard.policy.schemas.schema import GuardedTool

__all__ = ["Policy", "PolicySet", "PolicySource", "compile_policies", "read_folder", "survey_folder"]

# Whose entities may be in a group, as soon as somebody says so.
_GROUPABLE = frozenset(("Agent", "User", "Task"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """A policy folder as it was read, once, in one piece.

    Attributes:
        folder: Its absolute path.
        files: The text of every file that decides, by name, sorted.
        policies: The policies, in the order of files and lines.
        fragments: The team's own types.
        entities: The entities of ``cedarentities.json``.
    """

    folder: str
    files: tuple[tuple[str, str], ...]
    policies: tuple[Policy, ...]
    fragments: tuple[Fragment, ...]
    entities: tuple[StaticEntity, ...]


def read_folder(folder: Path, limits: Limits, server: str | None = None) -> PolicySource:
    """Read a policy folder: ``*.cedar``, ``types/*.cedarschema``, ``cedarentities.json``.

    Args:
        folder: The folder; where it is for several servers, that or the part of one.
        limits: The bounds.
        server: The server, where the folder is for several.

    Raises:
        PolicyError: If it cannot be read, is empty, or holds text that is no policy.
    """
    source, problems = survey_folder(folder, limits, server)
    if problems:
        raise refused(problems)
    return source


def survey_folder(folder: Path, limits: Limits, server: str | None = None) -> tuple[PolicySource, list[Problem]]:
    """Read what can be read of a policy folder; return it, and what is wrong with the rest.

    Raises:
        PolicyError: If the folder itself cannot be read.
    """
    return survey_snapshot(read_snapshot(folder), limits, server)


def survey_snapshot(
    snapshot: Snapshot, limits: Limits, server: str | None = None
) -> tuple[PolicySource, list[Problem]]:
    """Return what was read of a policy folder, as policies, and what is wrong with the rest.

    Args:
        snapshot: What was read.
        limits: The bounds.
        server: The server, where the folder is for several.
    """
    files, problems = snapshot.part(server)
    policies: list[Policy] = []
    fragments: list[Fragment] = []
    entities: list[StaticEntity] = []
    for name, text in files.items():
        if name.rpartition("/")[2] == ENTITIES:
            read, found = read_entities(name, text)
            entities += read
            problems += found
        elif name.lower().endswith(SCHEMA_SUFFIX):
            try:
                fragments.append(read_fragment(name, text, limits))
            except PolicyError as error:
                problems += error.found
        else:
            statements, found = read_policies(name, text, limits)
            policies += statements
            problems += found
    problems += [*duplicates(policies), *of_one_server(policies), *listed_twice(entities)]
    if not (problems or policies):
        what = f"policy folder `{snapshot.folder}` holds no policy, so nothing could be allowed: write a permit"
        problems.append(Problem("", 0, what, name=NO_POLICIES))
    source = PolicySource(
        folder=str(snapshot.folder),
        files=tuple(files.items()),
        policies=tuple(policies),
        fragments=tuple(fragments),
        entities=tuple(entities),
    )
    return source, sorted(problems)


def compile_policies(
    source: PolicySource,
    tools: Sequence[GuardedTool],
    *,
    loaders: frozenset[str],
    claims: Mapping[str, type],
    limits: Limits,
    label: str | None = None,
) -> PolicySet:
    """Check *source* against the tools of a server, and make it ready to decide.

    Args:
        source: What `read_folder` gave.
        tools: All that can be called there.
        loaders: The entity types that have a loader.
        claims: The claims that become attributes of an invocation, with their types.
        limits: The bounds.
        label: What people call this version.

    Raises:
        PolicyError: If the policies do not fit the tools, one line for each problem.
        ConfigurationError: If the tools or claims themselves cannot be.
    """
    sourced = loaders | {entity.uid.type for entity in source.entities}
    schema = schema_of(source, tools, loaders=loaders, claims=claims, limits=limits)
    if taken := loaders & schema.ours:
        message = f"entity type `{min(taken)}` is made by the guard: give the loader a type of yours"
        raise ConfigurationError(message)
    if unknown := loaders - schema.entities.keys():
        name = min(unknown)
        message = (
            f"no tool and no type has to do with `{name}`, which has a loader: {did_you_mean(name, schema.entities)}"
        )
        raise ConfigurationError(message)
    try:
        full = schema_of_text(schema.full)
    except ValueError as error:
        raise refused([invalid_schema(source.fragments, str(error))]) from None
    declared = read_declarations(schema.types)
    plain = plain_attributes(declared, frozenset(schema.entities))
    solid = frozenset(name for name, entity in schema.entities.items() if not entity.bare)
    attributes = {name: declared[name].attributes.keys() for name in schema.entities}
    tagged = frozenset(name for name, entity in schema.entities.items() if entity.tags)
    groups = possible_groups(source.entities, plain, declared, schema.entities, loaders)
    unseen = unseen_arguments(source.policies, tools)
    hidden = {(problem.file, problem.line, problem.column) for problem in unseen}
    invalid = invalid_policies(source.policies, full, tools, attributes, tagged)
    problems = [
        # An argument that policies do not see is there all the same.
        *(problem for problem in invalid if (problem.file, problem.line, problem.column) not in hidden),
        *vain_comparisons(source.policies, tools),
        *unknown_entities(source.policies, source.entities, solid, ENTITIES),
        *unlisted_entities(
            source.policies, source.entities, solid=solid, groups=groups, loaders=loaders, file=ENTITIES
        ),
        *impossible_values(source.policies),
        *unseen,
        *unfit_entities(ENTITIES, source.entities, schema, plain),
        *unsourced_types(schema, declared, source.fragments, tools, sourced),
        *twice_sourced(source.entities, loaders, ENTITIES),
    ]
    if problems:
        raise refused(sorted(problems))
    return PolicySet(
        version=_version(source, schema),
        policies=source.policies,
        tools=tools,
        schema=schema,
        plain=plain,
        entities=[entity.json for entity in source.entities],
        limits=limits,
        label=label,
    )


def schema_of(
    source: PolicySource,
    tools: Sequence[GuardedTool],
    *,
    loaders: frozenset[str],
    claims: Mapping[str, type],
    limits: Limits,
) -> SchemaTexts:
    """Return the schema that *source* is checked against; arguments and errors as for `compile_policies`."""
    sourced = loaders | {entity.uid.type for entity in source.entities}
    texts = schema_texts(tools, source.fragments, grouped=_GROUPABLE & sourced, claims=claims)
    try:
        # Before Cedar sees it: types that name each other twice would keep it busy for ever.
        read_types(texts.types, limits)
    except LexError as error:
        raise refused([invalid_types(source.fragments, error)]) from None
    return texts


def _version(source: PolicySource, schema: SchemaTexts) -> str:
    """Return the digest of everything that decides.

    Lengths stand between the parts, so that no two sets of files read the same.
    """
    digest = hashlib.sha256()
    engine = ("cedarpy", version("cedarpy"))
    files = source.files
    if not any(split(name)[0] == COMMON for name, _ in files):
        # One server's part alone is the same folder, whether it is read by itself or from above.
        files = tuple((split(name)[1], content) for name, content in files)
    for name, content in (*files, ("", schema.full), engine):
        for part in (name, content):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
    return f"sha256:{digest.hexdigest()}"
