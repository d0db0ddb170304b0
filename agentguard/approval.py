"""A person's approval of one exact call: the question, the answer, and what binds the two.

Values alone. Who is asked, and for how long, is in `asking`; what a client carries from
one round of a call to the next is sealed in `adapters.elicitation`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from agentguard.model import EntityUid, canonical_json, printable
from agentguard.policy.conversion.values import datetime_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.model import AccessRequest

CLIENT: Final = "client"
"""The channel of whoever sits at the caller's own client."""

APPROVER: Final = "approver"
"""The channel of the guard's own approver, where that has no other name."""

CHANNEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""The name of a channel."""

# A person reads so much, and no more: what is longer is cut, and says so.
_VALUE_CHARACTERS: Final = 300
# A row of blanks, or of letters that look like them, would push what follows onto a line of its own.
_BLANKS: Final = re.compile("(?<= ) |[\u115f\u1160\u2800\u3164\uffa0]")
_LINES: Final = 30
# What stands for the call itself, by its type, and how the action's name begins then.
_ITSELF: Final = {"Tool": "", "Resource": "resources/read/", "Prompt": "prompts/get/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """One call that a person is asked about.

    Attributes:
        id: Of the question; evidence names the same. Asked twice, it is the same question.
        prompt: What the policies say to the person; empty if they say nothing.
        server: The server's name.
        action: The tool, or what else is called.
        resources: What it acts on.
        arguments: As they are judged, by name: strings, numbers, bools, lists and
            mappings. What the tool's decorator excludes is not among them.
        run: The run that calls.
        issuer: Who vouches for the run.
        agent: The agent that calls.
        user: On whose behalf, when somebody.
        task: For which task, when named.
        purpose: For which purpose, when named.
        unseen: The names of arguments that the tool takes and nobody is shown.
        policy_ids: The policies that the approval would lift.
        policy_version: The version of the policies.
        expires_at: Until when an answer counts, unix seconds.
    """

    id: str
    prompt: str
    server: str
    action: str
    resources: tuple[EntityUid, ...]
    arguments: Mapping[str, object]
    run: str
    issuer: str
    agent: str
    user: str | None = None
    task: str | None = None
    purpose: str | None = None
    unseen: tuple[str, ...] = ()
    policy_ids: tuple[str, ...] = ()
    policy_version: str = ""
    expires_at: float = 0.0

    @property
    def message(self) -> str:
        """The question as plain text: what the policies say, then the call, one fact a line.

        A line holds one value, cut where it is long and with nothing in it that could begin
        another line: what an agent puts into an argument must not read as a word of ours.
        """
        agent, whom = _shown(self.agent), "" if self.user is None else f" for {_shown(self.user)}"
        facts = [
            ("task", self.task),
            ("purpose", self.purpose),
            *((f"argument {name}", value) for name, value in self.arguments.items()),
            *(("acts on", str(uid)) for uid in self.resources if not self._is_itself(uid)),
        ]
        lines = [f"{_shown(name)}: {_shown(value)}" for name, value in facts if value is not None]
        if len(lines) > _LINES:
            lines[_LINES:] = [f"(and {len(lines) - _LINES} lines more)"]
        what = f"Agent {agent} wants to call {_shown(self.action)} on server {_shown(self.server)}{whom}."
        # Not among the lines that may be cut: what a person does not see, they have to know of.
        unseen = [f"Arguments that are not shown here: {_shown(', '.join(self.unseen))}"] if self.unseen else []
        return "\n".join([*([self.prompt] if self.prompt else []), what, *unseen, *lines])

    def _is_itself(self, uid: EntityUid) -> bool:
        """Whether an entity says no more than the action; a team may have a type of such a name to itself."""
        begins = _ITSELF.get(uid.type)
        return uid == EntityUid("Server", self.server) or (begins is not None and self.action == begins + uid.id)

    def as_json(self) -> dict[str, object]:
        """Return everything as JSON, the message included."""
        return {
            "id": self.id,
            "message": self.message,
            "prompt": self.prompt,
            "server": self.server,
            "action": self.action,
            "resources": [uid.as_json() for uid in self.resources],
            "arguments": dict(self.arguments),
            "run": self.run,
            "issuer": self.issuer,
            "agent": self.agent,
            "user": self.user,
            "task": self.task,
            "purpose": self.purpose,
            "unseen": list(self.unseen),
            "policy_ids": list(self.policy_ids),
            "policy_version": self.policy_version,
            "expires_at": self.expires_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's yes to one `ApprovalRequest`.

    Attributes:
        approver: The user who said it, as policies name users; None if that is not known.
    """

    approver: str | None = None


class Approver(Protocol):
    """Asks a person elsewhere than at the caller's own client, and waits for the answer.

    An attribute ``channel`` says how policies name it; without one, it is ``"approver"``.
    """

    async def __call__(self, request: ApprovalRequest, /) -> Approval | None:
        """Return the approval, or None if the person declines.

        Whatever is raised denies the call.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """An approval on its way to the call that it is for.

    Attributes:
        id: The question's.
        key: What is spent in the store, once.
        binding: What it is bound to, from `binding_of`.
        channel: Where it came from.
        at: When, unix seconds.
        expires_at: Until when it may be used, unix seconds.
        approver: The user who gave it, when known.
    """

    id: str
    key: str
    binding: str
    channel: str
    at: float
    expires_at: float
    approver: str | None = None

    @classmethod
    def supposed(cls, channel: str, at: float) -> Approved:
        """Return a yes of nobody in particular, to see whether one could help; it is bound to no call."""
        return cls(id="", key="", binding="", channel=channel, at=at, expires_at=at)

    @property
    def user(self) -> EntityUid | None:
        """The entity of whoever gave it."""
        return None if self.approver is None else EntityUid("User", self.approver)

    def as_context(self) -> dict[str, object]:
        """Return ``context.approval``."""
        context: dict[str, object] = {"channel": self.channel, "at": datetime_json(self.at)}
        if self.user is not None:
            context["approver"] = {"__entity": self.user.as_json()}
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """A person's no, on its way to the call that it is for.

    Attributes:
        id: The question's.
        key: What is spent in the store, once.
        channel: Where it came from.
        expires_at: Until when an answer counts, unix seconds.
    """

    id: str
    key: str
    channel: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question that goes out as the answer to a request; the next request brings the reply.

    Attributes:
        request: What is asked.
        binding: What a yes would be bound to.
    """

    request: ApprovalRequest
    binding: str


def binding_of(requests: Iterable[AccessRequest], *, server: str, forbids: Iterable[str], policy_version: str) -> str:
    """Return the digest of all that an approval is for.

    Two calls have the same one if they are of the same run and agent, for the same user, task
    and purpose, on the same tool, with the same judged arguments and facts, on the same
    resources in the same state, and stopped by the same forbids of the same version. The time,
    and the approval itself, are not in it.

    Args:
        requests: What was judged, one request for each resource, without an approval.
        server: The server's name.
        forbids: The ids of the policies that it lifts.
        policy_version: Of these policies.
    """
    parts = [
        {
            # Where an issuer's own claim names the run, several agents may be in it, for several users.
            "chain": [
                [link.issuer, link.run_id, link.agent, link.user, link.task, link.purpose]
                for link in request.invocation.chain
            ],
            "action": request.action,
            "resource": request.resource.as_json(),
            "input": _in_any_order(request.context.get("input")),
            "facts": _in_any_order(request.context.get("facts")),
            "entities": _in_any_order(list(request.entities)),
        }
        for request in requests
    ]
    whole = {"server": server, "requests": parts, "forbids": sorted(forbids), "policies": policy_version}
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()


def _in_any_order(value: object) -> object:
    """Return Cedar JSON with its sets in one order: a loader's has another one in each process."""
    if isinstance(value, dict):
        return {key: _in_any_order(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_in_any_order(item) for item in value), key=canonical_json)
    return value


def plain(value: object) -> object:
    """Return Cedar JSON as a person would write it: decimals, times and addresses as text."""
    if isinstance(value, dict):
        extension = value.get("__extn")
        if isinstance(extension, dict):
            return extension.get("arg")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _shown(value: object) -> str:
    text = _BLANKS.sub("␣", printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    if len(text) <= _VALUE_CHARACTERS:
        return text
    return f"{text[:_VALUE_CHARACTERS]}… ({len(text) - _VALUE_CHARACTERS} characters more)"
