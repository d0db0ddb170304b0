"""What each kind of finding is called, and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.run import LINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSED: Final[Mapping[str, str]] = {
    "bad-entity": "An entity of cedarentities.json has another form than Cedar's JSON of entities, or an unsafe value.",
    "bad-id": "An @id holds 1 to 128 letters, digits, `.`, `_`, `-` and `/`, since it stands in records and reports.",
    "bad-literal": "The text in a `decimal`, `datetime`, `duration` or `ip` is none, so Cedar could never evaluate it.",
    "bad-obligation": "The one obligation is `approval`, of a forbid alone; anything else would be ignored.",
    "bad-prompt": "What a person is told who is asked has to be one short line that is shown as it stands.",
    "bad-schema": "Cedar refuses the schema that the types of the team and those of the tools make together.",
    "bad-scopes": "@scopes names OAuth scopes as RFC 6749 has them, one blank between two.",
    "changed-policy": "Formatting would have changed what a policy says, so the file stays as it is.",
    "duplicate-entity": "cedarentities.json lists an entity twice, so it would be open which of the two counts.",
    "duplicate-id": "Two policies have the same @id, so evidence that names it would not say which of them decided.",
    "duplicate-type": "Two files declare the same type or namespace, so it would be open which of them counts.",
    "empty-set": "Cedar cannot tell the type of an empty set.",
    "entity-cycle": "The entities of cedarentities.json cannot be loaded together, such as parents in a circle.",
    "impossible-comparison": "The comparison is never true, so the policy is quietly without effect.",
    "impossible-head": "No call can meet what the head demands of principal, action and resource together.",
    "impossible-value": "The attribute never has the value that it is compared with.",
    "invalid": "Cedar's validation refuses the policy.",
    "link-outside": "A link leads out of the policy folder, where somebody else could change what decides.",
    "lost-comment": "Formatting would have lost a comment, so the file stays as it is.",
    "misplaced-file": "The file looks as if it decided, and stands where nothing is read from.",
    "misspelled-annotation": "Cedar takes any annotation, so one that is mistyped is quietly without effect.",
    "missing-id": "A policy without @id cannot be named in evidence, scenarios and reports.",
    "no-folder": "The policy folder is not there, or cannot be read.",
    "no-policies": "The folder holds no policy, so nothing could be allowed.",
    "no-schema": "Without the schema of the server, nothing can be said about whether the policies fit it.",
    "not-a-literal": "A `decimal`, `datetime`, `duration` or `ip` is made from a text that stands in the policy alone.",
    "not-an-entity": "In a head, principal, action and resource are compared with entities, not with texts or names.",
    "not-utf8": "Cedar text is UTF-8; anything else could be read in two ways.",
    "obligation-without-unless": "The engine ignores no forbid, so one that a person can lift has to say so itself.",
    "optional-without-has": "An absent attribute makes the policy fail, and a policy that fails denies the call.",
    "past-limit": "The text is larger, deeper or longer than Cedar's parser is given.",
    "reserved-type": "The guard, or Cedar, makes this type or entity itself.",
    "syntax": "Cedar cannot read this.",
    "tag-without-has": "An absent tag makes the policy fail, and a policy that fails denies the call.",
    "template": "A template is never applied, so it would be quietly without effect.",
    "twice-sourced": "A listed entity is never asked of its loader, which may know better.",
    "type-mismatch": "The types do not fit together.",
    "undeclared-parent": "What a tool acts on is in that tool, and its type has to say so.",
    "unknown-action": "No tool has this name, and no group of actions.",
    "unknown-argument": "The tool has no argument of this name, so the policy could not be evaluated.",
    "unknown-attribute": "The type has no attribute of this name, so the policy could not be evaluated.",
    "unknown-context": "No call brings this along, so the policy could not be evaluated.",
    "unknown-entity": "Nobody knows this entity, and what is asked about it would be answered with a silent no.",
    "unknown-fact": "The tool declares no fact of this name, so the policy could not be evaluated.",
    "unknown-type": "There is no entity type of this name.",
    "unreadable-file": "A file that decides cannot be read.",
    "unseen-argument": "Policies do not see this argument, so what they say about it is quietly without effect.",
    "unsourced-type": "A call can reach entities of this type and nobody knows them, so every such call is denied.",
    "wrong-arguments": "The function takes another number of arguments.",
}
"""What keeps a policy folder from being used. The others are the lints."""


def help_of(name: str) -> str:
    """Return what a kind of finding means; its name if nothing more is known."""
    if name in LINTS:
        return f"{LINTS[name].why} {LINTS[name].fix}"
    return REFUSED.get(name) or f"{name.replace('-', ' ').capitalize()}."
