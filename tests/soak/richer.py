"""Policies, calls and their records by chance, with all that policies can look at: tags, facts, loaders, time."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any, Final, Literal, NotRequired, TypedDict
from zoneinfo import ZoneInfo

from agentguard.analysis.supposed import _known_before
from agentguard.analysis.workspace import Workspace
from agentguard.errors import PolicyError, Refusal
from agentguard.evidence.kept import Kept
from agentguard.evidence.record import approval_attributes
from agentguard.model import AccessRequest, Decision, EntityUid, Grade, Invocation, Reason
from agentguard.policy.conversion.values import Field, record_of, shape_of
from agentguard.policy.deciding.engine import decide, never
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.request import ResourceTemplate, base_context
from agentguard.steps.judging import without_approval
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import NOW, reference, uid

LIFTABLE: Final = frozenset((Reason.APPROVAL_UNAVAILABLE, Reason.APPROVAL_REQUIRED, Reason.APPROVAL_DECLINED))
OTHER: Final = "sha256:other"
_UTC: Final = ZoneInfo("UTC")


class Filters(TypedDict):
    """A record within the arguments."""

    kind: NotRequired[str]
    least: NotRequired[int]


class Facts(TypedDict):
    """What the search tool's facts add."""

    size: int
    names: list[str]


def _tool(
    name: str, fields: dict[str, Field], *groups: str, resource: str | None = None, facts: Any = None
) -> GuardedTool:
    return GuardedTool(
        name=name,
        server="records",
        input=record_of(fields, where=name),
        facts=facts,
        resource_type=resource,
        groups=frozenset({"tools/call", *groups}),
    )


TOOLS: Final = (
    _tool("read", {"id": Field(str), "mode": Field(Literal["a", "b"], required=False)}, "read-only", resource="Doc"),
    _tool("open", {"id": Field(int), "rows": Field(int)}, "read-only", resource="Box"),
    _tool("many", {"ids": Field(list[str]), "rows": Field(int)}, resource="Doc"),
    _tool(
        "search",
        {
            "rows": Field(int),
            "text": Field(str),
            "cols": Field(list[str]),
            "on": Field(bool),
            "opt": Field(str, required=False),
            "f": Field(Filters, required=False),
            "amount": Field(Decimal, required=False),
            "since": Field(datetime, required=False),
            "host": Field(IPv4Address, required=False),
            "lasting": Field(timedelta, required=False),
        },
        "open-world",
        facts=shape_of(Facts, where="facts"),
    ),
)
TEMPLATES: Final = tuple(
    (name, ResourceTemplate.parse(text))
    for name, text in (("read", "Doc::{id}"), ("open", "Box::{id}"), ("many", "Doc::{ids[*]}"))
)
TYPES: Final = """
entity Team in [Group];
entity Doc in [Tool, Team] = {
  level: Long, owner: User, team?: Team, meta: { kind: String, tags?: Set<String> }, readers: Set<User>
} tags String;
entity Box in [Tool] = { open: Bool, doc?: Doc };
entity User in [Group, Team] = { clearance: Long, boss?: User };
entity Group = { strict: Bool };
"""
_LONGEST: Final = 2**63 - 1
_PRINCIPAL: Final = (
    'principal.grade == "run"', "principal has purpose", 'principal has purpose && principal.purpose like "b*l*"',
    'principal has user && principal.user in Group::"staff"', 'principal has user && principal.user == User::"bob"',
    'principal.scopes.contains("w")', 'principal.scopes.containsAny(["w", "r"])', "principal.delegation_depth > 0",
    'principal.issuer like "https*"', 'principal in Agent::"a"', 'principal in Group::"staff"',
    'principal.agent in Group::"staff"', 'principal has task && principal.task == Task::"t"',
    'principal.lifetime > duration("15m")', 'principal.ends_at.durationSince(context.now) < duration("10m")',
    "principal has user && principal.user has clearance && principal.user.clearance > 0",
    'principal has user && principal.user has boss && principal.user.boss == User::"alice"',
    'principal is Invocation in Task::"t"', 'principal == Invocation::"r1"', 'Group::"staff".strict',
    '[Agent::"a", Agent::"b"].contains(principal.agent)', 'principal has user && principal.user is User in Team::"t2"',
)  # fmt: skip
_CONTEXT: Final = (
    'context.environment == "production"', 'context.transport == "http"', "context.local.minute > 959",
    "context.local.weekday == 2", 'context.now.toTime() < duration("17h")', "context has approval", "true", "1 > 2",
    'context has approval && context.approval.channel == "client"',
    'context has approval && context.approval has approver && context.approval.approver in Group::"staff"',
    'context has approval && context.now.durationSince(context.approval.at) < duration("5m")',
)  # fmt: skip
_DOC: Final = (
    "resource.level > 1", f"resource.level + {_LONGEST} > 3", 'resource.owner == User::"alice"',
    "principal has user && resource.owner == principal.user", 'resource has team && resource.team in Group::"staff"',
    'resource in Team::"t1"', 'resource.meta.kind == "x"', "resource has meta.tags",
    'resource.meta has tags && resource.meta.tags.contains("p")', 'resource.hasTag("k") && resource.getTag("k") == "1"',
    'resource == Doc::"d1"', "principal has user && resource.readers.contains(principal.user)",
    "resource.owner has boss", "resource.owner.clearance > 0", 'resource is Doc in Team::"t1"',
)  # fmt: skip
_BOX: Final = (
    "resource.open", "resource has doc && resource.doc.level > 1", 'resource has doc && resource.doc in Team::"t1"',
    "context.input.id > 1", "context.input.rows * context.input.id > 4", 'resource == Box::"2"',
)  # fmt: skip
_SEARCH: Final = (
    "context.input.rows > 2", f"context.input.rows + {_LONGEST} > 0", 'context.input.text like "*a*"',
    'context.input has opt && context.input.opt == "z"', 'context.input.cols.containsAll(["n", "m"])',
    "context.input has f.kind", "context.input.on", "context.input == context.input",
    "context.input has f && context.input.f has least && context.input.f.least < context.input.rows",
    'context.input has amount && context.input.amount.lessThan(decimal("1.5"))',
    "context.input has since && context.input.since < context.now",
    'context.input has host && context.input.host.isInRange(ip("10.0.0.0/8"))',
    'context.input has lasting && context.input.lasting > duration("1h")', "context.facts.size > context.input.rows",
    'context.facts.names.contains("n")', "if context.input.on then context.input.rows > 1 else context.facts.size > 1",
    "{a: context.input.rows}.a > 2", "[context.input.rows, 2].contains(2)", 'resource in Server::"records"',
)  # fmt: skip
_PLACES: Final = (
    ('action == Action::"read"', "resource", (*_DOC, 'context.input.id like "d*"', "context.input has mode")),
    ('action == Action::"open"', "resource", _BOX),
    ('action == Action::"many"', "resource", (*_DOC, 'context.input.ids.contains("d1")', "context.input.rows > 2")),
    ('action == Action::"search"', "resource", _SEARCH),
    ('action in Action::"open-world"', "resource", _SEARCH),
    ("action", "resource", ()),
    ('action in [Action::"read-only", Action::"search"]', "resource", ()),
    ("action", "resource is Doc", _DOC),
    ('action in [Action::"read", Action::"many"]', 'resource in Team::"t1"', _DOC),
)
_HEADS: Final = (
    "principal", "principal", "principal is Invocation", 'principal in Agent::"a"', 'principal in Agent::"b"',
    'principal in Group::"staff"', 'principal is Invocation in Task::"t"', 'principal == Invocation::"r1"',
)  # fmt: skip
_YES: Final = ("", ' && context.approval.channel == "client"', " && context.approval has approver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A call that was decided, and its record.

    Attributes:
        request: The call, with the approval that let it pass if one did.
        decision: What was decided.
        record: What is kept of that.
        early: Whether it was denied before its arguments were looked at.
    """

    request: AccessRequest
    decision: Decision
    record: Kept
    early: bool


class Dice:
    """Everything by chance, from one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  a test's dice

    def some(self, many: Sequence[Any]) -> list[Any]:
        """Return some of many, in their order."""
        return [one for one in many if self.chance.random() < 1 / 2]

    def _condition(self, atoms: Sequence[str], size: int) -> str:
        if size == 0:
            return f"({self.chance.choice(atoms)})"
        one, two, three = (self._condition(atoms, self.chance.randrange(size)) for _ in range(3))
        return self.chance.choice(
            [f"({one} && {two})", f"({one} || {two})", f"!{one}", f"(if {one} then {two} else {three})"]
        )

    def policy(self, id_: str = "") -> str:
        """Return a policy, without an id if none is given."""
        action, resource, own = self.chance.choice(_PLACES)
        atoms = (*own, *own, *_PRINCIPAL, *_CONTEXT)
        clauses = " ".join(
            f"{self.chance.choice(['when', 'unless'])} {{ {self._condition(atoms, self.chance.choice([0, 0, 1, 2]))} }}"
            for _ in range(self.chance.choice([0, 1, 1, 2]))
        )
        effect = self.chance.choice(["permit", "permit", "permit", "forbid"])
        head = f"({self.chance.choice(_HEADS)}, {action}, {resource})"
        return f"{f'@id({json.dumps(id_)}) ' if id_ else ''}{effect} {head} {clauses};"

    def _ask(self, id_: str) -> str:
        action, resource, own = self.chance.choice(_PLACES)
        when = f"when {{ {self._condition((*own, *_PRINCIPAL), 0)} }}" if self.chance.random() < 1 / 2 else ""
        unless = f"unless {{ context has approval{self.chance.choice(_YES)} }}"
        return f'@id("{id_}") @obligation("approval") forbid (principal, {action}, {resource}) {when} {unless};'

    def policies(self) -> list[str]:
        """Return the policies of a folder."""
        texts = [self.policy(f"p{place}") for place in range(self.chance.randrange(1, 7))]
        texts += [self._ask(f"ask{place}") for place in range(self.chance.randrange(3))]
        return [*texts, '@id("all") permit (principal, action, resource);'][
            : None if self.chance.random() < 0.7 else -1
        ]

    def changed(self, texts: Sequence[str]) -> list[str]:
        """Return what somebody made of policies."""
        left = []
        for before in texts:
            kind = self.chance.choice(["keep", "keep", "keep", "remove", "narrow", "turn"])
            after = before
            if kind == "narrow":
                after = f"{before[:-1]} unless {{ {self._condition((*_PRINCIPAL, *_CONTEXT), 0)} }};"
            elif kind == "turn" and "@obligation" not in before:
                first, second = ("permit", "forbid") if ") permit (" in before else ("forbid", "permit")
                after = before.replace(f") {first} (", f") {second} (", 1)
            left += [] if kind == "remove" else [after]
        return [*left, *(self.policy(f"n{place}") for place in range(self.chance.randrange(0 if left else 1, 3)))]

    def entities(self, loaders: Sequence[str]) -> str:
        """Return what is listed."""
        listed = [
            {"uid": uid("Group", "staff"), "attrs": {"strict": self.chance.random() < 1 / 2}, "parents": []},
            {"uid": uid("Team", "t1"), "attrs": {}, "parents": [uid("Group", "staff")]},
            {"uid": uid("Team", "t2"), "attrs": {}, "parents": []},
        ]
        listed += [self._agent(name) for name in "ab" if "Agent" not in loaders]
        listed += [self._user(name) for name in ("alice", "bob") if "User" not in loaders]
        listed += [self._doc(name) for name in ("d1", "d2") if "Doc" not in loaders]
        return json.dumps(listed)

    def _agent(self, name: str) -> dict[str, Any]:
        return {"uid": uid("Agent", name), "attrs": {}, "parents": self.some([uid("Group", "staff")])}

    def _user(self, name: str) -> dict[str, Any]:
        attributes: dict[str, object] = {"clearance": self.chance.randrange(3)}
        attributes |= {"boss": reference("User", "alice")} if self.chance.random() < 1 / 3 else {}
        parents = self.some([uid("Group", "staff"), uid("Team", "t2")])
        return {"uid": uid("User", name), "attrs": attributes, "parents": parents}

    def _doc(self, name: str, tool: str | None = None) -> dict[str, Any]:
        meta = {"kind": self.chance.choice("xy"), **({"tags": self.some("pq")} if self.chance.random() < 1 / 2 else {})}
        attributes = {
            "level": self.chance.randrange(4),
            "owner": reference("User", self.chance.choice(["alice", "bob"])),
            "meta": meta,
            "readers": self.some([reference("User", "alice"), reference("User", "bob")]),
            **({"team": reference("Team", "t1")} if self.chance.random() < 1 / 2 else {}),
        }
        parents = [*([] if tool is None else [uid("Tool", tool)]), *self.some([uid("Team", "t1")])]
        tags = {name: self.chance.choice("12") for name in self.some("km")}
        return {"uid": uid("Doc", name), "attrs": attributes, "parents": parents, **({"tags": tags} if tags else {})}

    def invocation(self, links: int = 2) -> Invocation:
        """Return a run, which may be delegated and have a grant."""
        above: tuple[Invocation, ...] = ()
        if links and self.chance.random() < 0.4:
            top = self.invocation(links - 1)
            above = (*top.ancestors, top)
        began = NOW - self.chance.choice([10, 300])
        return unsafe_invocation(
            self.chance.choice("ab"),
            run_id=self.chance.choice(["r1", "r2"]),
            user=self.chance.choice([None, "alice", "bob", "carol"]),
            task=self.chance.choice([None, "t"]),
            purpose=self.chance.choice([None, "bill"]),
            scopes=frozenset(self.some("rw")),
            grade=self.chance.choice(list(Grade)),
            issuer=self.chance.choice(["https://i", "x"]),
            issued_at=began,
            run_ends_at=began + self.chance.choice([600, 900, 901]),
            grant=self.policy() if self.chance.random() < 0.2 else None,
            ancestors=above,
        )

    def call(self, folder: Workspace) -> AccessRequest:
        """Return a call, with what the loaders of a folder said; they may lack something."""
        loaders = folder.written.loaders
        action, facts = self.chance.choice(["read", "open", "many", "search", "search"]), None
        if action == "search":
            given, facts = self._arguments(), {"size": self.chance.randrange(4), "names": self.some("nm")}
            resource = EntityUid("Tool", "search")
        elif action == "open":
            given = {"id": self.chance.randrange(1, 4), "rows": self.chance.randrange(-2, 4)}
            resource = EntityUid("Box", str(given["id"]))
        else:
            names = self.chance.choice([["d1"], ["d2"], ["d2", "d1"]])
            resource = EntityUid("Doc", names[0])
            given = {"id": names[0]} if action == "read" else {"ids": names, "rows": self.chance.randrange(5)}
            given |= {"mode": "a"} if action == "read" and self.chance.random() < 1 / 2 else {}
        brought = [self._user(name) for name in ("alice", "bob", "carol") if "User" in loaders]
        brought += [self._agent(name) for name in "ab" if "Agent" in loaders]
        if resource.type == "Box":
            doc = {"doc": reference("Doc", "d1")} if self.chance.random() < 1 / 2 else {}
            attributes = {"open": self.chance.random() < 1 / 2, **doc}
            brought.append({"uid": resource.as_json(), "attrs": attributes, "parents": [uid("Tool", action)]})
            brought += [self._doc("d1")] if doc and "Doc" in loaders else []
        elif resource.type == "Doc" and "Doc" in loaders:
            brought.append(self._doc(resource.id, action))
        context = base_context(
            NOW + self.chance.choice([0, 0.5, 1.25, 3_600, 259_200]),
            _UTC,
            self.chance.choice(["production", "dev"]),
            self.chance.choice(["http", "stdio"]),
        )
        context |= {"input": given} | ({} if facts is None else {"facts": facts})
        lacking = self.chance.random() < 0.1
        return AccessRequest(
            invocation=self.invocation(),
            action=action,
            resource=resource,
            context=context,
            entities=tuple(self.some(brought) if lacking else brought),
        )

    def _arguments(self) -> dict[str, Any]:
        def call(function: str, *values: str) -> dict[str, Any]:
            return {"__extn": {"fn": function, "arg": self.chance.choice(values)}}

        given: dict[str, Any] = {
            "rows": self.chance.randrange(-1, 5),
            "text": self.chance.choice(["abc", "x"]),
            "cols": self.some("nmo"),
            "on": self.chance.random() < 1 / 2,
        }
        more = {
            "opt": self.chance.choice("zy"),
            "f": dict(self.some([("kind", "k"), ("least", 1)])),
            "amount": call("decimal", "1.0000", "2.0000"),
            "since": call("datetime", "2020-01-01T00:00:00.000Z", "2030-01-01T00:00:00.000Z"),
            "host": call("ip", "10.1.1.1", "192.0.2.1"),
            "lasting": call("duration", "1ms", "7200000ms"),
        }
        return given | dict(self.some(list(more.items())))

    def folder(self, texts: Sequence[str], listed: str, loaders: Sequence[str]) -> Workspace | None:
        """Return a folder, if the server takes its policies."""
        try:
            return workspace(
                *texts, entities=listed, loaders=tuple(loaders), tools=TOOLS, types=TYPES, templates=TEMPLATES
            )
        except PolicyError:
            return None

    def past(self, folder: Workspace, *, version: str | None = None) -> Past:
        """Return a call that a folder decided, and its record with some of its arguments."""
        request, early = self.call(folder), False
        decision, asked = decide(request, folder.policies), {}
        if decision.reason in LIFTABLE:
            lifted, approver = self._lifted(request)
            again = decide(lifted, folder.policies)
            if again.allowed:
                request, decision = lifted, again
                asked = approval_attributes("Q", "client", approver)
            else:
                decision = replace(decision, reason=self.chance.choice(sorted(LIFTABLE)))
        elif not decision.allowed and (denial := _early(request, folder)) is not None:
            decision, early = denial, True
        named = self.some(list(without_approval(request).context["input"]))  # type: ignore[call-overload]
        at = datetime.fromisoformat(request.context["now"]["__extn"]["arg"]).timestamp()  # type: ignore[index]
        record = kept(
            request,
            decision,
            inputs=named,
            at=at,
            early=early,
            transport=str(request.context["transport"]),
            more={**asked, **({} if version is None else {"agentguard.policy.version": version})},
        )
        return Past(request=request, decision=decision, record=record, early=early)

    def _lifted(self, request: AccessRequest) -> tuple[AccessRequest, str | None]:
        approver = self.chance.choice([None, "bob", "alice"])
        approval = {"channel": "client", "at": request.context["now"]}
        approval |= {} if approver is None else {"approver": reference("User", approver)}
        return replace(request, context={**request.context, "approval": approval}), approver


def _early(request: AccessRequest, folder: Workspace) -> Decision | None:
    try:
        known = _known_before(request, folder.policies)
        return never(request.invocation, request.action, folder.policies, known)
    except Refusal:
        return None
