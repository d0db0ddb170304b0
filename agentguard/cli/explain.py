"""`agentguard explain`: why was this decided so, and what would have changed it?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.analysis.explanations.explain import explain as explained
from agentguard.analysis.explanations.onrecord import explain_record
from agentguard.analysis.history.impact import decisions
from agentguard.analysis.scenarios.called import Called, call_of
from agentguard.analysis.scenarios.suites import open_suites
from agentguard.analysis.supposed import suppose
from agentguard.approval import APPROVER, CLIENT
from agentguard.cli.explained import Drawing
from agentguard.cli.explained_json import explanation_json, record_json
from agentguard.cli.opening import FolderArgument, opened
from agentguard.cli.options import JsonOption, read_grant
from agentguard.cli.output import draw, result_json, say, terminal
from agentguard.cli.project import evidence_folders, policies_folder
from agentguard.cli.replaying import EvidenceOption
from agentguard.errors import ConfigurationError
from agentguard.evidence.reading import read_sources, sources
from agentguard.evidence.showing import Selection
from agentguard.evidence.verify import proven_chain
from agentguard.evidence.vocabulary import RecordKind
from agentguard.evidence.words import iso
from agentguard.model import Grade, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.analysis.history.replay import Setting
    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.analysis.workspace import Workspace
    from agentguard.evidence.kept import Kept
    from agentguard.evidence.proof import ProvenChain

_TOLD: Final = 5


def _said(name: str, metavar: str, what: str) -> object:
    return typer.Option(name, metavar=metavar, help=what, show_default=False, rich_help_panel="A supposed call")


def explain(
    first: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="A decision's id, or how it begins; left out for a supposed call."),
    ] = None,
    second: FolderArgument = None,
    *,
    evidence: EvidenceOption = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", metavar="FILE:LINE", help="Explain the case that stands there.")
    ] = None,
    call: Annotated[
        str | None, _said("--call", "TOOL", "Explain a call of this tool, which nobody has to make.")
    ] = None,
    given: Annotated[list[str] | None, _said("--with", "NAME=VALUE", "An argument of it; may be repeated.")] = None,
    agent: Annotated[str | None, _said("--agent", "NAME", "Who calls.")] = None,
    user: Annotated[str | None, _said("--user", "NAME", "On whose behalf.")] = None,
    task: Annotated[str | None, _said("--task", "NAME", "In which task.")] = None,
    purpose: Annotated[str | None, _said("--purpose", "TEXT", "What for.")] = None,
    scope: Annotated[list[str] | None, _said("--scope", "NAME", "A scope of the token; may be repeated.")] = None,
    grade: Annotated[Grade | None, _said("--grade", "GRADE", "How distinct it is: run, token, shared.")] = None,
    claim: Annotated[list[str] | None, _said("--claim", "NAME=VALUE", "A mapped claim; may be repeated.")] = None,
    run: Annotated[
        list[str] | None,
        _said("--run", "NAME=VALUE", "What the run has done before: calls=9, spent.payments=45; may be repeated."),
    ] = None,
    grant: Annotated[Path | None, _said("--grant", "FILE", "The Cedar text that bounds the run.")] = None,
    entity: Annotated[
        list[str] | None, _said("--entity", "TYPE::ID={…}", "An entity that a loader would know; may be repeated.")
    ] = None,
    fact: Annotated[
        list[str] | None, _said("--fact", "NAME=VALUE", "What the tool's facts add; may be repeated.")
    ] = None,
    approved: Annotated[bool, _said("--approved", "", "A person says yes when asked.")] = False,
    approver: Annotated[str | None, _said("--approver", "NAME", "Who that is.")] = None,
    now: Annotated[str | None, _said("--now", "TIME", "When: 2026-11-24T10:00:00Z; now, if left out.")] = None,
    time_zone: Annotated[
        str | None, _said("--time-zone", "ZONE", "Where context.local holds: Europe/Berlin; UTC, if left out.")
    ] = None,
    environment: Annotated[str | None, _said("--environment", "NAME", "Of which deployment.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a call was decided so: each policy, each condition with its value, and what would have changed it.

    For a decision in the evidence, by its id; for a case of a file of scenarios; or for a
    call that you describe. Every change that it names was tried on the policies.

    Exits with 0 whatever was decided, with 2 if it could not run.

    Example: `agentguard explain --call export_records --agent billing-agent`
    """
    described = {
        "--with": given,
        "--agent": agent,
        "--user": user,
        "--task": task,
        "--purpose": purpose,
        "--scope": scope,
        "--grade": grade,
        "--claim": claim,
        "--run": run,
        "--grant": grant,
        "--entity": entity,
        "--fact": fact,
        "--approved": approved,
        "--approver": approver,
        "--now": now,
        "--time-zone": time_zone,
        "--environment": environment,
    }
    stray = next((name for name, value in described.items() if value and call is None), None)
    if stray is not None:
        message = f"{stray} describes a call, got no --call: add --call TOOL, or leave it out"
        raise ConfigurationError(message)
    if call is None and scenario is None:
        if first is None or _is_folder(first):
            message = "`agentguard explain` wants a decision's id, --call or --scenario, got none: name one of them"
            raise ConfigurationError(message)
        folders = evidence_folders(evidence)
        record, place = _record(first, folders)
        chain = _verified(record, folders)
        _of_record(record, place, opened(policies_folder(second)), chain, as_json=as_json)
        return
    if second is not None or evidence or (call is not None and scenario is not None):
        message = "`agentguard explain` wants a decision's id, --call or --scenario, got several: leave out the others"
        raise ConfigurationError(message)
    workspace = opened(policies_folder(None if first is None else Path(first)))
    if scenario is not None:
        _of_call(_case_at(workspace, scenario), workspace, as_json=as_json)
        return
    if agent is None:
        message = "--call wants --agent, got none: say who calls"
        raise ConfigurationError(message)
    setting: dict[str, object] = {"now": now or iso(time.time())}
    setting |= {"environment": environment} if environment is not None else {}
    setting |= {"time_zone": time_zone} if time_zone is not None else {}
    if approved or approver is not None:
        # The client's own person is never named.
        setting["approved"] = {"channel": CLIENT} if approver is None else {"channel": APPROVER, "approver": approver}
    identity: dict[str, object] = {"agent": agent, "user": user, "task": task, "purpose": purpose}
    identity |= {"scopes": scope, "grade": None if grade is None else grade.value, "grant": read_grant(grant)}
    called = Called(
        action=str(call),
        identity={name: value for name, value in identity.items() if value is not None},
        claims=claim or (),
        done=run or (),
        given=given or (),
        facts=fact or (),
        entities=entity or (),
        setting=setting,
    )
    _of_call(call_of(called, workspace), workspace, as_json=as_json)


def _of_call(call: SupposedCall, workspace: Workspace, *, as_json: bool) -> None:
    found = explained(suppose(workspace, call), workspace.policies, workspace=workspace)
    if as_json:
        result_json(explanation_json(found, workspace.policies.version, call=call))
    else:
        draw(*Drawing(terminal().width).explanation(found, call.action, call.identity.invocation(call.now), call=call))


def _of_record(
    record: Kept, setting: Setting, workspace: Workspace, chain: ProvenChain | None, *, as_json: bool
) -> None:
    found = explain_record(record, workspace, setting=setting)
    if as_json:
        result_json(record_json(found, workspace.policies.version, chain))
    else:
        draw(*Drawing(terminal().width).record(found, chain))


def _verified(record: Kept, folders: Sequence[Path]) -> ProvenChain | None:
    """Return the chain in which a record stands, verified; None of a record that was read elsewhere, or has no key."""
    files = {path.stem: path for path in sources(folders)[0]}
    try:
        return proven_chain(files[record.chain_id])
    except (KeyError, ConfigurationError):
        return None


def _case_at(workspace: Workspace, place: str) -> SupposedCall:
    """Return the call of the case that stands at, or last before, a line of a file of scenarios.

    Raises:
        ConfigurationError: There is none.
    """
    file, _, number = place.rpartition(":")
    if not file or not number.isascii() or not number.isdigit():
        message = f"--scenario wants a file and a line, got `{printable(place)}`: write scenarios/records.test.yaml:33"
        raise ConfigurationError(message)
    # As a person names it from here, or as it is named in the folder.
    path = Path(file) if Path(file).exists() else workspace.folder / file
    (suite,) = open_suites(workspace, [path.absolute()])
    before = [case for case in suite.cases if case.line <= int(number)]
    if not before:
        message = f"no case stands at, or before, line {number} of `{printable(file)}`: name a line of one"
        raise ConfigurationError(message)
    return max(before, key=lambda case: case.line).call


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:
        # No name of a file is so long.
        return False


def _record(id_: str, folders: Sequence[Path]) -> tuple[Kept, Setting]:
    """Return the decision whose id begins so, and how its guard was set up.

    Raises:
        ConfigurationError: There is none, or several.
    """
    told: list[str] = []
    selection = Selection(decisions=(id_,), kinds=frozenset((RecordKind.DECISION.value,)))
    kept = decisions(read_sources(folders, told.append), since=None, until=None)
    taken = sorted(((one, place) for one, place in kept if selection.takes(one)), key=lambda one: one[0].time_unix_nano)
    found = {one[0].text("agentguard.decision.id"): one for one in taken}
    for line in told[:_TOLD]:
        say(f"agentguard: {line}")
    if len(found) == 1:
        if len({one.hash for one, _ in taken}) > 1:
            places = ", ".join(one.source for one, _ in taken[-_TOLD:])
            say(f"agentguard: `{printable(id_)}` stands there more than once, and the newest is explained: {places}")
        return next(iter(found.values()))
    where = ", ".join(f"`{folder}`" for folder in folders)
    if not found:
        message = (
            f"no decision has an id that begins with `{printable(id_)}` in {where}: name other evidence with --evidence"
        )
        raise ConfigurationError(message)
    some = ", ".join(sorted(map(printable, found))[:_TOLD])
    message = f"{len(found)} decisions have ids that begin with `{printable(id_)}`, such as {some}: write more of it"
    raise ConfigurationError(message)
