"""Why the guard refuses to load what it refuses, by the name of each kind of mistake.

What to do about it stands in each message. None of these can be silenced: a guard that has
found one does not start.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # The text of a policy.
        "syntax": "Cedar cannot read it. The place is that of the token at fault, which Cedar does not say itself.",
        "past-limit": "Cedar's parser recurses, so that text that is nested too deep would end the whole server.",
        "template": "A template applies to nobody until it is linked, and nothing here links one.",
        "not-an-entity": 'A head compares with entities, `Agent::"billing"`, and a bare name or text is none.',
        # Annotations.
        "missing-id": "Evidence, denials and scenarios name policies by their `@id`.",
        "bad-id": "An `@id` is written into evidence, metrics and file names.",
        "duplicate-id": "Two policies with one name could not be told apart in the evidence, and Cedar does not look.",
        "misspelled-annotation": "Cedar takes any annotation, so one that is mistyped would be quietly without effect.",
        "bad-obligation": "An obligation that nobody knows would be met by nobody.",
        "obligation-without-unless": "The guard never ignores a forbid, so one that a person can lift has to say so.",
        "bad-prompt": "A person decides by this sentence, and no argument may change its sense.",
        "bad-scopes": "A client is told to come back with exactly these scopes.",
        # A policy against what the server offers.
        "unknown-action": "No tool and no group has that name, so the policy would apply to nothing.",
        "unknown-argument": "A tool that the policy is for does not have the argument, so the policy would fail there.",
        "unknown-attribute": "Nothing of that type has the attribute, so the policy would fail.",
        "unknown-context": "No call knows that, so the policy would fail.",
        "unknown-fact": "The tool's declared function adds no such fact, so the policy would fail.",
        "unknown-type": "There is no entity of that type, so the policy would apply to nothing.",
        "optional-without-has": "Where the attribute is absent, the policy would fail, and the call be denied.",
        "tag-without-has": "Where the tag is absent, the policy would fail, and the call be denied.",
        "type-mismatch": "Values of two types are never equal, and cannot be compared otherwise.",
        "empty-set": "Cedar cannot tell what type an empty set has; `.isEmpty()` asks whether one is.",
        "not-a-literal": "What is computed from an argument could fail at the call; arguments come typed already.",
        "bad-literal": "The text is no value of that type, so the policy would always fail.",
        "wrong-arguments": "The function takes another number of arguments.",
        "invalid": "Cedar found that the policy does not fit the schema.",
        # Policies that would be quietly without effect.
        "impossible-head": "No call has such a principal, action and resource at once.",
        "impossible-comparison": "No call has such a principal or resource. A forbid would be quietly without effect.",
        "impossible-value": "The guard itself fills this in, and never with that value.",
        "unseen-argument": "The argument never reaches a policy, so a condition on it would say nothing.",
        "unknown-entity": "Cedar answers a question about an entity that it does not have with a silent no.",
        # Types and entities.
        "bad-schema": "Cedar cannot read the team's types together with what the server offers.",
        "duplicate-type": "Two declarations of one type could contradict each other.",
        "reserved-type": "The guard makes these entities itself, from the call.",
        "undeclared-parent": 'What a tool acts on is in that tool, so that `resource in Tool::"…"` can ask for it.',
        "unsourced-type": "A call that reaches an entity that nobody knows is denied.",
        "twice-sourced": "A loader that knows better, such as that a record is secret by now, would not be asked.",
        "bad-entity": "What is not exactly an entity could be read in more than one way.",
        "duplicate-entity": "Two entities with one name could contradict each other.",
        "entity-cycle": "Something would be in itself.",
        # The folder.
        "no-folder": "Without policies nothing could be allowed.",
        "no-policies": "Without policies nothing could be allowed.",
        "no-schema": "Without it nothing says what the server offers. The guard itself does not need it.",
        "invalid-schema": "The file is not as `agentguard schema` writes it. The guard itself does not read it.",
        "misplaced-file": "It looks as if it decided, and would not be read.",
        "link-outside": "What lies outside of the folder can be changed by others than the folder.",
        "unreadable-file": "A policy that cannot be read could be the one that forbids.",
        "not-utf8": "Names in another encoding would be other names.",
        "no-such-server": "In a folder for several servers, each has its own part.",
        "tool-in-common": "What all servers share has to be true of each of them.",
    }
)
"""For each name of a `Problem`, why it is one."""
