"""One policy folder for several servers: what they share in ``common/``, and the rest in ``servers/NAME/``.

The guard of a server reads both. What they share has to be true of each of them, so it
names groups: entities, and policies about groups of actions. A tool's name is one
server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.model import printable
from agentguard.policy.files.manifest import MANIFEST
from agentguard.policy.grants import GROUPS, METHODS
from agentguard.policy.problem import Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from agentguard.policy.deciding.compiled import Policy

COMMON: Final = "common"
SERVERS: Final = "servers"
NO_SUCH_SERVER: Final = "no-such-server"
"""What the problem is called of whoever names none of its servers."""

# Each stands for something of one server.
_OF_ONE: Final = frozenset(("Tool", "Resource", "Prompt"))
_SHARED: Final = GROUPS | METHODS.keys()


def split(name: str) -> tuple[str, str]:
    """Return the part of the folder that a file belongs to, and its name there; an empty part is the top."""
    first, _, rest = name.partition("/")
    if first == COMMON and rest:
        return COMMON, rest
    server, slash, own = rest.partition("/")
    return (f"{SERVERS}/{server}", own) if first == SERVERS and slash else ("", name)


def is_for_several(names: Iterable[str]) -> bool:
    """Return whether files of these names are for several servers."""
    return any(split(name)[0].startswith(f"{SERVERS}/") for name in names)


def servers_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the servers that files of these names are for, sorted."""
    parts = {split(name)[0] for name in names} - {"", COMMON}
    return tuple(sorted(part.removeprefix(f"{SERVERS}/") for part in parts))


def home_of(folder: Path) -> tuple[Path, str | None]:
    """Return the folder to read for *folder*, an absolute path, and the server if it is one server's part of it."""
    top = folder.parent.parent
    # A manifest at the top is one of all of it, and says so if what is common is not there.
    if folder.parent.name == SERVERS and ((top / COMMON).is_dir() or (top / MANIFEST).exists()):
        return top, folder.name
    return folder, None


def shown_from(folder: Path) -> Path:
    """Return the folder that the files of *folder* are named from: its home, or itself just as it was given."""
    home, server = home_of(folder.absolute())
    return folder if server is None else home


def from_home(folder: Path, name: str) -> str:
    """Return how a file that was read for *folder* is called from its home, what is written into its part included."""
    _, server = home_of(folder.absolute())
    return name if server is None or not name or split(name)[0] else f"{SERVERS}/{server}/{name}"


def part_for(folder: Path, server: str) -> Path:
    """Return the part of *folder* that is one server's: all of it, unless it is for several."""
    return folder / SERVERS / server if (folder / SERVERS).is_dir() else folder


def part_there(folder: Path, server: str) -> Path:
    """Return the part of *folder* that is one server's, as `part_for` does, if it is there.

    Raises:
        ConfigurationError: It is not; the message has the fix.
    """
    part = part_for(folder, server)
    is_name = "/" not in server and server not in {"", ".", ".."}
    if part != folder and not (is_name and part.is_dir()):
        message = (
            f"policy folder `{folder}` is for several servers, and has no {SERVERS}/{printable(server)} for this one: "
            "create it first"
        )
        raise ConfigurationError(message)
    return part


def files_for(files: Mapping[str, str], server: str | None) -> dict[str, str]:
    """Return those files of a folder for several servers that decide for one: what is common, and its own.

    Raises:
        LookupError: With why there are none.
    """
    known = servers_of(files)
    if server not in known:
        shown = ", ".join(f"{SERVERS}/{name}" for name in known)
        if server is None:
            message = f"holds the policies of several servers: name the folder of one, {shown}"
        elif "/" in server or server in {"", ".", ".."}:
            message = f"has no folder for server `{printable(server)}`, and none can have that name: pass {shown}"
        else:
            named = printable(server)
            message = f"has no {SERVERS}/{named} for server `{named}`: add it, or {_as_named(server, known)}"
        raise LookupError(message)
    return {name: text for name, text in files.items() if split(name)[0] in {COMMON, f"{SERVERS}/{server}"}}


def _as_named(server: str, known: tuple[str, ...]) -> str:
    fix = did_you_mean(server, known)
    return f"name the server as its folder, {fix}"


def of_one_server(policies: Iterable[Policy]) -> list[Problem]:
    """Return a problem for every policy of the common part that names what only one server has."""
    problems = []
    for policy in policies:
        if split(policy.file)[0] != COMMON:
            continue
        tools = sorted((policy.scope.actions or frozenset()) - _SHARED)
        things = [literal.uid for literal in policy.literals if literal.uid.type in _OF_ONE]
        if tools or things:
            named = f'Action::"{tools[0]}"' if tools else str(things[0])
            what = (
                f"names `{printable(named)}`, which other servers do not have: "
                f"move it to {SERVERS}/NAME/, or name a group of actions"
            )
            problems.append(Problem(policy.file, policy.line, what, name="tool-in-common"))
    return problems
