"""Policy folders for the tests of lints: the types and tools of the records example, with other policies."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from agentguard.analysis.lints.run import lint
from agentguard.analysis.supposed import requests_of
from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.limits import Limits
from agentguard.model import AccessRequest
from agentguard.policy.deciding.compiled import Policy
from agentguard.policy.files.reader import read_policies

RECORDS: Final = Path(__file__).parent.parent.parent / "examples" / "records" / "policies"
NOW: Final = 1_795_514_400.0


def records_folder(folder: Path, policies: str) -> Path:
    """Write a folder for the records server with *policies* alone."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(RECORDS / "types", folder / "types", dirs_exist_ok=True)
    for name in ("agentguard.cedarschema", "cedarentities.json"):
        shutil.copy(RECORDS / name, folder / name)
    (folder / "policies.cedar").write_text(policies, "utf-8")
    return folder


def opened(folder: Path, policies: str) -> Workspace:
    """Open a folder for the records server with *policies* alone."""
    return open_workspace(records_folder(folder, policies))


def found(folder: Path, policies: str, *names: str) -> list[str]:
    """Return what some lints, or all, find: where, by which lint, and what."""
    return [
        f"{finding.line}:{finding.column}+{finding.length} {finding.severity}[{finding.name}] {finding.what}"
        for finding in lint(opened(folder, policies))
        if not names or finding.name in names
    ]


def read(text: str) -> list[Policy]:
    """Return the policies of a text that has no mistake in it."""
    policies, problems = read_policies("policies.cedar", text, Limits())
    assert problems == []
    return policies


def requests(workspace: Workspace, action: str, given: dict[str, Any], **identity: Any) -> Sequence[AccessRequest]:
    """Return the requests of one call."""
    resource = {"uid": {"type": "Record", "id": "r1"}, "attrs": {}, "parents": []}
    facts = given.pop("facts", None)
    call = SupposedCall(
        identity=Identity(**identity), action=action, input=given, facts=facts, entities=(resource,), now=NOW
    )
    return requests_of(workspace, call)
