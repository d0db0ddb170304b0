"""A policy folder with the schema that was written into it: all that there is to know without the server.

It is compiled as the guard compiles it, so its version is the one that the running guard
puts into the evidence, as long as the server still offers what the file says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.files.folder import read_written
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.files.written import FILE, read_schema, write_schema
from agentguard.policy.schemas.types import read_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentguard.policy.deciding.compiled import Policy, PolicySet
    from agentguard.policy.files.source import PolicySource
    from agentguard.policy.files.written import WrittenSchema
    from agentguard.policy.schemas.types import ActionDecl, EntityDecl, SchemaTypes

_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A policy folder and what its server offers.

    Attributes:
        folder: Its absolute path.
        source: What it holds.
        written: What the server offers, as it was written down.
        text: The text of that file.
        types: All types that policies can name.
        policies: The policies, ready to decide.
        limits: The bounds.
        stale: In what the written schema differs from what would be written of the same
            server for the folder as it is now; empty if it fits.
    """

    folder: Path
    source: PolicySource
    written: WrittenSchema
    text: str
    types: SchemaTypes
    policies: PolicySet
    limits: Limits
    stale: tuple[str, ...] = ()

    def with_policies(self, policies: Sequence[Policy]) -> Workspace:
        """Return the same with other policies. Their version stays that of the folder.

        Raises:
            PolicyError: If they do not fit the server.
        """
        source = replace(self.source, policies=tuple(policies))
        return replace(self, source=source, policies=_compiled(source, self.written, self.limits))


def open_workspace(folder: Path, *, limits: Limits = _LIMITS) -> Workspace:
    """Read a policy folder and the schema in it.

    Raises:
        PolicyError: If one of its files is wrong, or the policies do not fit the server.
        ConfigurationError: If no schema was written into it.
    """
    absolute = folder.absolute()
    source = read_folder(absolute, limits)
    text = read_written(absolute)
    if text is None:
        message = (
            f"policy folder `{absolute}` has no {FILE}, which says what the server offers: "
            f"write it with `agentguard schema SERVER --write {folder}`"
        )
        raise ConfigurationError(message)
    return workspace_of(source, read_schema(text, limits), text, limits)


def workspace_of(source: PolicySource, written: WrittenSchema, text: str, limits: Limits) -> Workspace:
    """Compile a policy folder that was read, with the schema of a server.

    Args:
        source: The folder.
        written: What the server offers.
        text: The text of the folder's file that says so.
        limits: The bounds.

    Raises:
        PolicyError: If the policies do not fit the server.
    """
    policies = _compiled(source, written, limits)
    now = write_schema(written, source, limits)
    # The text that is read is bounded; that of the folder's own types was when it was compiled.
    types = read_types(now, limits)
    return Workspace(
        folder=Path(source.folder),
        source=source,
        written=written,
        text=text,
        types=types,
        policies=policies,
        limits=limits,
        stale=() if text == now else tuple(_differences(read_types(text, limits), types)),
    )


def _compiled(source: PolicySource, written: WrittenSchema, limits: Limits) -> PolicySet:
    return compile_policies(source, written.tools, loaders=written.loaders, claims=written.claims, limits=limits)


def _differences(before: SchemaTypes, now: SchemaTypes) -> Iterator[str]:
    """Yield what is not in the file as it would be written. Lines and comments make no difference."""
    yield from _differing("entity type", _plain(before.entities), _plain(now.entities))
    yield from _differing("action", _plain(before.actions), _plain(now.actions))


def _plain(declared: Mapping[str, EntityDecl | ActionDecl]) -> dict[str, EntityDecl | ActionDecl]:
    return {name: replace(one, line=0) for name, one in declared.items()}


def _differing(what: str, before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for name in [*before, *(name for name in now if name not in before)]:
        shown = f"{what} `{printable(name)}`"
        if name not in now:
            yield f"{shown} is in {FILE} alone"
        elif name not in before:
            yield f"{shown} is not in {FILE}"
        elif before[name] != now[name]:
            yield f"{shown} is not in {FILE} as it is now"
