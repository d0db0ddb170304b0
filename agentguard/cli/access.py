"""`agentguard access`: who may do what."""

from __future__ import annotations

import difflib
import re
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.cells import cell_len
from rich.text import Text

from agentguard.analysis.proofs.access import NOBODY, Access, May, Who, access, agents_of, is_unlisted
from agentguard.cli.opening import FolderArgument, opened
from agentguard.cli.options import JsonOption
from agentguard.cli.output import draw, hint, result_json, say, terminal
from agentguard.cli.project import policies_folder
from agentguard.errors import ConfigurationError
from agentguard.model import EntityUid, printable
from agentguard.policy.files.folder import ENTITIES
from agentguard.policy.files.written import FILE
from agentguard.policy.problem import did_you_mean
from agentguard.policy.schemas.schema import OwnType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agentguard.analysis.proofs.access import Remaining
    from agentguard.analysis.workspace import Workspace

_STYLES: Final = {May.ALWAYS: "green", May.SOMETIMES: "yellow", May.NEVER: "dim"}
_ANY: Final = "any other agent"
_INDENT: Final = 6
_HANGING: Final = 4
_LEAST: Final = 24
_CLOSE: Final = 0.85
_SEVERAL: Final = 2
_EACH: Final = "each that is sometimes"
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|&&|\|\||[()\[\]{}]')
_OTHER: Final = EntityUid("Agent", NOBODY)


def access_command(
    folder: FolderArgument = None,
    *,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="The agent that acts.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="On whose behalf it acts.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="What is called; else everything.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell who may do what: always, never, or sometimes, with the condition that is left.

    What is not given is unknown: with --tool alone, each agent that the folder knows is asked
    about. Always and never are proved from the policies, whatever the arguments, the record
    and everything else may be. A run's own grant, and whoever delegated to it, can only take away.

    Exits with 0 whatever the answer is, with 2 if it could not run.

    Example: `agentguard access policies --agent billing-agent`
    """
    if agent is None and user is None and tool is None:
        message = "`agentguard access` wants to know about whom or what, got nothing: add --agent, --user or --tool"
        raise ConfigurationError(message)
    workspace = opened(policies_folder(folder))
    if agent is not None and EntityUid("Agent", agent) not in (known := agents_of(workspace)):
        listed = any(uid.type == "Agent" for uid in workspace.policies.static_uids)
        fix = _close(agent, known) or (f"list it in {ENTITIES}" if listed else "name it in a permit")
        say(f"agentguard: no policy and no entity names agent `{agent}`: {fix}")
    if user is not None and is_unlisted(workspace, EntityUid("User", user)):
        users = [uid for uid in workspace.policies.static_uids if uid.type == "User"]
        say(f"agentguard: no entity names user `{user}`: {_close(user, users) or f'list it in {ENTITIES}'}")
    found = list(_asked(workspace, agent=agent, user=user, tool=tool))
    if as_json:
        result_json(
            {
                "folder": str(workspace.folder),
                "policy_version": workspace.policies.version,
                "access": [_described(workspace, one) for one in found],
            }
        )
        return
    by_agent = agent is None and tool is not None
    hint(_question(agent=agent, user=user, tool=tool))
    _show(found, by_agent=by_agent)
    if any(one.may is May.SOMETIMES for one in found):
        hint("sometimes: allowed where what is left of a permit holds, and what is left of no forbid does")
    hint("a run may do less: its own grant, and whoever delegated to it, take away and never add")
    if kinds := sorted({name.lower() for one in found if one.may is not May.NEVER for name in one.listed}):
        hint(f"any {' or '.join(kinds)} that {ENTITIES} does not list may do nothing")


def _close(name: str, known: Iterable[EntityUid]) -> str:
    """Return the question after a name that is close; most end alike, and a new one is none of the others."""
    names = {one.id.casefold(): one.id for one in known}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=_CLOSE)
    return f"did you mean `{names[close[0]]}`?" if close else ""


def _asked(workspace: Workspace, *, agent: str | None, user: str | None, tool: str | None) -> Iterator[Access]:
    on_behalf = None if user is None else EntityUid("User", user)
    agents: Sequence[EntityUid | None] = (None if agent is None else EntityUid("Agent", agent),)
    if agent is None and tool is not None:
        agents = (*agents_of(workspace), _OTHER)
    for action in _actions(workspace, tool):
        for one in agents:
            found = access(workspace, action, Who(agent=one, user=on_behalf))
            # What nobody guards is there at every server, and of interest where somebody may use it.
            if tool is not None or found.may is not May.NEVER or _kind(workspace, action) is not OwnType.SERVER:
                yield found


def _question(*, agent: str | None, user: str | None, tool: str | None) -> str:
    """Return what was asked, for whoever reads the answer."""
    who = f"agent `{agent}`" if agent is not None else "whoever acts" if tool is None else "each agent"
    behalf = "" if user is None else f" on behalf of user `{user}`"
    return f"what {who} may do{behalf}" if tool is None else f"whether {who} may call `{tool}`{behalf}"


def _actions(workspace: Workspace, tool: str | None) -> list[str]:
    known = [offered.tool.name for offered in workspace.written.offers]
    if tool is None:
        return known
    if tool not in known:
        message = f"{FILE} has no `{printable(tool)}`: {did_you_mean(tool, known)}"
        raise ConfigurationError(message)
    return [tool]


def _kind(workspace: Workspace, action: str) -> OwnType:
    return workspace.policies.action(action).tool.kind


def _show(found: Sequence[Access], *, by_agent: bool) -> None:
    names = [printable(_name(one, by_agent=by_agent)) for one in found]
    width = max(map(len, names), default=0) + 2
    shared = _shared([one for one in found if one.may is May.SOMETIMES])
    lines = []
    for name, one in zip(names, found, strict=True):
        may = (f"{one.may:<11}", _STYLES[one.may])
        why = "" if shared is not None and shared.why == one.why else one.why
        lines.append(Text.assemble((name.ljust(width), "bold"), may, printable(why)))
        if one.may is May.SOMETIMES:
            known = () if shared is None else [_key(forbid) for forbid in shared.forbids]
            lines += _remaining("permit", one.permits)
            lines += _remaining("forbid", [forbid for forbid in one.forbids if _key(forbid) not in known])
    if shared is not None:
        lines.append(Text.assemble((_EACH.ljust(width), "bold"), f"  {printable(shared.why)}" * bool(shared.why)))
        lines += _remaining("forbid", shared.forbids)
    draw(*lines)


def _shared(sometimes: Sequence[Access]) -> Access | None:
    """Return what holds for several answers alike, and is told once: forbids, and what could end each of them."""
    if len(sometimes) < _SEVERAL:
        return None
    first, *others = sometimes
    forbids = [{_key(forbid) for forbid in one.forbids} for one in others]
    common = tuple(forbid for forbid in first.forbids if all(_key(forbid) in known for known in forbids))
    why = first.why if all(one.why == first.why for one in others) else ""
    return replace(first, forbids=common, why=why) if common else None


def _key(remaining: Remaining) -> tuple[str, str]:
    return remaining.policy.id, remaining.when


def _remaining(word: str, policies: Iterable[Remaining]) -> Iterator[Text]:
    """Yield policies that bear on calls, each with what is left of its condition."""
    for policy in policies:
        yield Text(f"  {word} {_where(policy)}", style="cyan")
        if policy.when != "true":
            yield from (Text(f"      {line}") for line in _lines(printable(policy.when)))


def _lines(condition: str) -> Iterator[str]:
    """Yield a condition whole, or in its parts if a terminal is too narrow for it, and those folded if it still is."""
    console = terminal()
    start = depth = 0
    if console.is_terminal and cell_len(condition) > console.width - _INDENT:
        for found in _TOKENS.finditer(condition):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(found[0], 0)
            if depth == 0 and found[0] in {"&&", "||"}:
                yield from _folded(condition[start : found.start()].rstrip(), console.width - _INDENT)
                start = found.start()
        yield from _folded(condition[start:], console.width - _INDENT)
    else:
        yield condition


def _folded(part: str, width: int) -> Iterator[str]:
    # Text within quotes is broken at blanks too: it is to be read here, and copied from the policy or the JSON.
    yield from textwrap.wrap(
        part,
        max(width, _LEAST),
        subsequent_indent=" " * _HANGING,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _name(one: Access, *, by_agent: bool) -> str:
    if not by_agent or one.who.agent is None:
        return one.action
    return _ANY if one.who.agent == _OTHER else one.who.agent.id


def _where(remaining: Remaining) -> str:
    policy = remaining.policy
    lifted = ", which a person can lift" if policy.approval else ""
    return printable(f"{policy.id}{lifted}")


def _described(workspace: Workspace, one: Access) -> dict[str, object]:
    other = one.who.agent == _OTHER
    return {
        "agent": None if one.who.agent is None or other else one.who.agent.id,
        "any_other_agent": other,
        "user": None if one.who.user is None else one.who.user.id,
        "action": one.action,
        "kind": _kind(workspace, one.action).word,
        "may": one.may.value,
        "why": one.why,
        "condition": one.condition,
        "permits": [_remaining_json(remaining) for remaining in one.permits],
        "forbids": [_remaining_json(remaining) for remaining in one.forbids],
        "listed": [name.lower() for name in one.listed],
    }


def _remaining_json(remaining: Remaining) -> dict[str, object]:
    policy = remaining.policy
    return {
        "id": policy.id,
        "file": policy.file,
        "line": policy.line,
        "owner": policy.owner,
        "approval": policy.approval,
        "when": remaining.when,
    }
