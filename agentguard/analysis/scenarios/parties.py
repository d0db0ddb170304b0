"""Who and what a file of scenarios supposes: its identities and its entities."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from agentguard.analysis.loaded import check_loadable
from agentguard.analysis.scenarios.done import done_by
from agentguard.analysis.scenarios.fields import Fields, id_of, record_of, typed, typed_members
from agentguard.analysis.scenarios.yamltext import Listed, Text, mistake, shown
from agentguard.analysis.supposedcall import ISSUER, LIFETIME, Identity
from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle.tally import Tally
from agentguard.model import EntityUid, Grade
from agentguard.policy.grants import check_grant
from agentguard.policy.problem import did_you_mean
from agentguard.policy.schemas.types import CedarType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.scenarios.yamltext import Node, Place
    from agentguard.analysis.workspace import Workspace
    from agentguard.model import Claim
    from agentguard.policy.conversion.scalars import CedarJson

IDENTITY: Final = (
    "agent",
    "user",
    "task",
    "purpose",
    "grade",
    "scopes",
    "claims",
    "issuer",
    "lifetime",
    "age",
    "grant",
    "run",
    "delegated_by",
)
"""The keys of an identity."""

_FRESH: Final = Tally()
PARENTS: Final = "in"
"""The key of an entity that is no attribute."""


class Identities:
    """The identities of one file, by name, each read when it is first wanted.

    Args:
        nodes: What the file has.
        workspace: What knows the claims, and whether a grant is valid.
    """

    def __init__(self, nodes: Mapping[str, Node], workspace: Workspace) -> None:
        self._nodes = nodes
        self._workspace = workspace
        self._read: dict[str, Identity] = {}

    def called(self, node: Text) -> Identity:
        """Return the identity that a text names.

        Raises:
            MistakeError: There is none, or something is wrong with it.
        """
        if node.text not in self._read:
            self._read[node.text] = self.read(self._named(node))
        return self._read[node.text]

    def read(self, node: Node) -> Identity:
        """Return the identity that a node describes, with all that delegated to it.

        Raises:
            MistakeError: Something is wrong with it.
        """
        most = self._workspace.limits.ancestors
        links = [_Link(node, self._workspace)]
        while (above := links[0].delegated_by) is not None:
            if len(links) > most:
                mistake(f"a run has at most {most} runs above it, and this one more: delegate less often", above.place)
            links.insert(0, _Link(self._named(above), self._workspace))
        done: list[Identity] = []
        for link in links:
            done.append(link.identity(tuple(done)))
        size = sum(len((link.grant or "").encode()) for link in done)
        if size > self._workspace.limits.grants_bytes:
            most = self._workspace.limits.grants_bytes
            mistake(f"the grants of a chain hold at most {most} bytes, these {size}: grant fewer things", node.place)
        _check_use(done[-1], self._workspace, node.place)
        return done[-1]

    def _named(self, node: Text) -> Node:
        if node.text not in self._nodes:
            mistake(f"no identity is called {shown(node.text)}: {did_you_mean(node.text, self._nodes)}", node.place)
        return self._nodes[node.text]


class _Link:
    """One identity, as it stands in the file."""

    def __init__(self, node: Node, workspace: Workspace) -> None:
        self._fields = Fields(node, IDENTITY, "an identity")
        self._workspace = workspace
        self.delegated_by: Text | None = None
        if self._fields.id("delegated_by") is not None:
            self.delegated_by = cast("Text", self._fields.members["delegated_by"])

    def identity(self, above: tuple[Identity, ...]) -> Identity:
        """Return it with all that delegated to it, root first."""
        fields = self._fields
        grade = fields.choice("grade", Grade) or Grade.RUN
        self._check_chain(grade, above)
        age = fields.seconds("age") or 0
        ends = min([link.lifetime - link.age for link in above], default=LIFETIME)
        lifetime = fields.seconds("lifetime")
        if lifetime is None:
            lifetime = age + min(ends, LIFETIME - age) if above else LIFETIME
        if not age < lifetime:
            mistake("the run is over before the call: make `lifetime` longer than `age`", fields.place)
        if above and lifetime - age > ends:
            mistake("the run ends after the one that it is delegated by: shorten its `lifetime`", fields.place)
        return Identity(
            agent=id_of(fields.needed("agent", "its-name"), "`agent`"),
            user=fields.id("user"),
            task=fields.id("task"),
            purpose=fields.id("purpose"),
            grade=grade,
            scopes=frozenset(map(_scope, fields.texts("scopes") or ())),
            claims=self._claims(),
            issuer=fields.id("issuer") or next((link.issuer for link in above), ISSUER),
            lifetime=lifetime,
            age=age,
            grant=self._grant(),
            run=self._done(),
            ancestors=above,
        )

    def _check_chain(self, grade: Grade, above: tuple[Identity, ...]) -> None:
        """Refuse what no token says: who mints runs, with a grant and what delegated them, mints nothing else."""
        fields = self._fields
        if above and not all(link.grade is Grade.RUN for link in above):
            mistake("only a run delegates: give the identity that this one is delegated by `grade: run`", fields.place)
        if grade is not Grade.RUN and (above or "grant" in fields.members):
            has = "is delegated" if above else "has a grant"
            mistake(f"what {has} is a run, got the grade `{grade}`: write `grade: run`", fields.members["grade"].place)
        issuer = fields.id("issuer")
        if above and issuer not in {None, above[0].issuer}:
            what = f"a run has the issuer of the one that it is delegated by, got {shown(str(issuer))}: remove `issuer`"
            mistake(what, fields.members["issuer"].place)

    def _claims(self) -> dict[str, Claim]:
        given = self._fields.record("claims")
        declared = self._workspace.types.entities["Invocation"].attributes.members
        members = {name: declared[name] for name in self._workspace.written.claims}
        place = self._fields.place
        found = typed_members(given, members, whose="a token", what="mapped claim", key="claims", place=place)
        return {
            name: self._strings(name, cast("list[str]", value))
            if isinstance(value, list)
            else cast("str | int | bool", value)
            for name, value in found.items()
        }

    def _strings(self, name: str, value: list[str]) -> frozenset[str]:
        if "" in value:
            place = self._fields.record("claims").members[name].place
            mistake(f"no token with an empty text in `{name}` is accepted: leave it out", place)
        return frozenset(value)

    def _done(self) -> Tally:
        node = self._fields.members.get("run")
        return _FRESH if node is None else done_by(node, _FRESH, self._workspace.policies.totals)

    def _grant(self) -> str | None:
        text = self._fields.text("grant")
        if text is not None:
            try:
                check_grant(text, self._workspace.limits)
            except ConfigurationError as error:
                mistake(str(error), self._fields.members["grant"].place)
        return text


def _scope(node: Text) -> str:
    if re.fullmatch(r"\S+", node.text) is None:
        what = f"a scope is a text without blanks, got {shown(node.text)}: write several as `[one, two]`"
        mistake(what, node.place)
    return node.text


def _check_use(identity: Identity, workspace: Workspace, place: Place) -> None:
    """Refuse an identity that no call could be made with: a grant that does not fit the server, for one."""
    try:
        for link in identity.invocation(0).chain:
            workspace.policies.link(link, workspace.policies.anything)
    except Refusal as refusal:
        mistake(f"nobody can call with this identity, since {refusal.detail}", place)


def entity_of(name: str, node: Node, place: Place, workspace: Workspace) -> tuple[EntityUid, dict[str, object]]:
    """Return an entity that is supposed to be known: its name, and all of it as Cedar JSON.

    Args:
        name: ``Record::r1``, or as Cedar writes it.
        node: Its attributes, and under ``in`` what it is in besides what acts on it.
        place: Where *name* stands.
        workspace: What knows its type.

    Raises:
        MistakeError: Something is wrong with it.
    """
    uid = uid_in(Text(name, place), workspace)
    entity: dict[str, object] = {"uid": uid.as_json(), "attrs": {}, "parents": []}
    try:
        check_loadable(workspace, [entity])
    except ConfigurationError as error:
        mistake(str(error), place)
    declared = workspace.types.entities[uid.type]
    given = record_of(node, shown(name))
    above = given.members.get(PARENTS)
    if above is not None:
        items = above.items if isinstance(above, Listed) else (above,)
        entity["parents"] = [_parent(item, declared.parents, workspace).as_json() for item in items]
    attributes = replace(given, members={key: value for key, value in given.members.items() if key != PARENTS})
    entity["attrs"] = typed_members(
        attributes, declared.attributes.members, whose=f"`{uid.type}`", what="attribute", key=name, place=place
    )
    return uid, entity


def _parent(node: Node, types: tuple[str, ...], workspace: Workspace) -> EntityUid:
    uid = uid_in(node, workspace)
    if uid.type not in types:
        mistake(f"it cannot be in a `{uid.type}`: {did_you_mean(uid.type, types)}", node.place)
    return uid


def uid_in(node: Node, workspace: Workspace) -> EntityUid:
    """Return the entity that a text names.

    Raises:
        MistakeError: It names none.
    """
    text = id_of(node, "an entity")
    types = [name for name in workspace.types.entities if text.startswith(f"{name}::")]
    if not types:
        word = text.rpartition("::")[0]
        mistake(f"{shown(text)} is of no entity type: {did_you_mean(word, workspace.types.entities)}", node.place)
    value: CedarJson = typed(node, CedarType(name=max(types, key=len), is_entity=True), "an entity")
    uid = cast("dict[str, dict[str, str]]", value)["__entity"]
    return EntityUid(uid["type"], uid["id"])
