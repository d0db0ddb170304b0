"""A call that somebody describes in a few words, as a command line has them.

It is read as a file of scenarios is, so that both mean the same by the same words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.scenarios.yamltext import MistakeError, plain, read_yaml
from agentguard.analysis.supposed import offered_as
from agentguard.errors import ConfigurationError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.schemas.types import CedarType

_HERE: Final = "call"
_ZONE: Final = "time_zone"
_EXAMPLES: Final = {
    "--claim": "team=billing",
    "--with": "max_rows=501",
    "--run": "calls=10",
    "--fact": "total=12.50",
    "--entity": '\'Record::r1={"level": "normal"}\'',
}
_OF_TOTAL: Final = "spent."
_SPENT: Final = "spent.payments=45"
_OPTIONS: Final = {"with": "--with", "facts": "--fact", "claims": "--claim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A call in words, all of them as they were written.

    Attributes:
        action: What is called.
        identity: Who calls: the words of a scenario's identity, such as ``agent``.
        claims: ``name=value``, a mapped claim each.
        given: ``name=value``, an argument each.
        done: ``name=value``, each something that the run has done before.
        facts: ``name=value``, each what the tool's declared function adds.
        entities: ``Type::id={…}``, an entity each that a loader would know.
        setting: The words of a scenario that say when and where, and whether a person approved.
    """

    action: str
    identity: Mapping[str, object]
    claims: Sequence[str] = ()
    done: Sequence[str] = ()
    given: Sequence[str] = ()
    facts: Sequence[str] = ()
    entities: Sequence[str] = ()
    setting: Mapping[str, object] = field(default_factory=dict)


def call_of(called: Called, workspace: Workspace) -> SupposedCall:
    """Return the call that words describe.

    Raises:
        ConfigurationError: They describe none; the message has the fix.
    """
    offered = offered_as(workspace, called.action)
    context = workspace.types.actions[offered.tool.name].context
    members = {} if context is None else context.members
    inputs = members["input"].type if "input" in members else None
    facts = members["facts"].type if "facts" in members else None
    claims = _named(called.claims, "--claim", workspace.types.entities["Invocation"].attributes)
    done = _done(called.done, members["run"].type if "run" in members else None)
    scenario: dict[str, Any] = {
        "name": _HERE,
        "as": {**called.identity, **({"claims": claims} if claims else {})},
        "call": called.action,
        **({"run": done} if done else {}),
        "with": _named(called.given, "--with", inputs),
        "entities": {name: _parsed("--entity", text) for name, text in _pairs(called.entities, "--entity")},
        "expect": "allow",
        **{name: said for name, said in called.setting.items() if name != _ZONE},
    }
    # A file says of the zone once what holds for all of it.
    whole = {"scenarios": [scenario], **{name: said for name, said in called.setting.items() if name == _ZONE}}
    if called.facts:
        scenario["facts"] = _named(called.facts, "--fact", facts)
    try:
        suite = read_suite(workspace, _HERE, json.dumps(whole, ensure_ascii=False))
    except PolicyError as error:
        message = "\n".join(problem.what for problem in error.found)
        for word, option in _OPTIONS.items():
            message = message.replace(f"add it to `{word}`", f"add it with {option}")
        raise ConfigurationError(message) from None
    return suite.cases[0].call


def _done(pairs: Sequence[str], type_: CedarType | None) -> dict[str, object]:
    """Return what a run has done; what it has spent of one total can be said by itself: ``spent.payments=45``."""
    of_totals = [pair.removeprefix(_OF_TOTAL) for pair in pairs if pair.startswith(_OF_TOTAL)]
    done = _named([pair for pair in pairs if not pair.startswith(_OF_TOTAL)], "--run", type_)
    spent = done.get("spent", {})
    if not isinstance(spent, dict):
        message = f"--run says how much was spent of which total, got `spent={spent}`: write --run {_SPENT}"
        raise ConfigurationError(message)
    named = _named(of_totals, "--run", None)
    if twice := sorted(spent.keys() & named.keys()):
        message = f"--run says `spent.{twice[0]}` twice: leave one out"
        raise ConfigurationError(message)
    return {**done, "spent": {**spent, **named}} if named else done


def _named(pairs: Sequence[str], option: str, type_: CedarType | None) -> dict[str, object]:
    """Return values by name; one that is to be a set or a record is written as YAML writes it in a line."""
    found: dict[str, object] = {}
    for name, text in _pairs(pairs, option):
        member = None if type_ is None else type_.members.get(name)
        several = member is not None and (member.type.element is not None or member.type.name == "Record")
        found[name] = _parsed(option, text) if several else text
    return found


def _pairs(pairs: Sequence[str], option: str) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for pair in pairs:
        # An entity's id may have the sign in it, and its attributes begin with a brace.
        name, sign, text = pair.partition("={") if option == "--entity" else pair.partition("=")
        if not sign or not name:
            message = f"{option} wants a name and a value, got `{pair}`: write {option} {_EXAMPLES[option]}"
            raise ConfigurationError(message)
        if name in found:
            message = f"{option} says `{name}` twice: leave one out"
            raise ConfigurationError(message)
        found[name] = f"{{{text}" if option == "--entity" else text
    return list(found.items())


def _parsed(option: str, text: str) -> object:
    try:
        return cast("object", plain(read_yaml(text)))
    except MistakeError as error:
        message = f"{option} `{text[:60]}` cannot be read: {error.what}"
        raise ConfigurationError(message) from None
