"""A guarded server that is full of secrets, for any transport; it notes which of them arrived.

Run as a program it serves stdio, as a process of its own.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypedDict

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel

from agentguard import Entity, FixedKeys, Guard, InvocationVerifier, State, TrustedIssuer, current_invocation
from agentguard.state import open_state
from tests.canaries import Canaries
from tests.tokens import GRANT, KEY, make_claims, make_jwks, sign
from tests.world import AUDIENCE, ISSUER, SERVER

# What evidence is for is no secret: who acted, for whom, what for, in which run, and by which token.
SHOWN: Final = ("agent", "user", "task", "purpose", "run", "jti")

_POLICIES: Final = """
// {comment}
@id("all") @owner("dpo@example.com") @note("{annotation}")
permit (principal, action, resource);

@id("no") @advice("Not this one.")
forbid (principal, action == Action::"forbidden", resource)
when {{ context.input.text != "{literal}" }};

@id("sum")
forbid (principal, action == Action::"broken", resource)
when {{ context.input.number + 9000000000000000000 > 0 }};

@id("level")
forbid (principal, action == Action::"leveled", resource)
when {{ resource.level + 9000000000000000000 > 0 }};
"""
_TYPES: Final = "entity Record in [Tool] = { level: Long, text: String };"


class Details(BaseModel):
    """A nested argument."""

    inner: list[str]
    by: dict[str, str]


class Facts(TypedDict):
    """What policies know of a text besides."""

    made: str


class Answer(BaseModel):
    """What a person answers."""

    word: str


class ToolFailed(Exception):  # noqa: N818  its name is the outcome's
    """What a tool raises, with an attribute of its own."""

    def __init__(self, *told: str, kept: str) -> None:
        super().__init__(*told)
        self.kept = kept


@dataclass
class Planted:
    """The server, and what a test reaches it by."""

    guard: Guard
    server: MCPServer[Any]
    state: State
    canaries: Canaries
    folder: Path
    entered: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)


def plant(canaries: Canaries) -> None:
    """Plant what the server itself holds: the client plants what it sends."""
    for place in ("policy's comment", "policy's annotation", "policy's literal"):
        canaries.plant(place)
    for place in ("result", "result's metadata", "result's structure", "loaded text", "loader's exception"):
        canaries.plant(place)
    for place in ("loader's wrong answer", "facts", "facts' exception", "question to a person"):
        canaries.plant(place)
    for place in ("message", "second argument", "note", "attribute", "cause", "context", "group"):
        canaries.plant(f"exception's {place}")
    canaries.take("loaded number", "8999999999999991237")


def write(folder: Path, canaries: Canaries) -> Path:
    """Write the policies, and return their folder."""
    planted = {name: json.dumps(canaries.planted[f"policy's {name}"], ensure_ascii=False)[1:-1] for name in NAMES}
    (folder / "types").mkdir(parents=True, exist_ok=True)
    (folder / "policies.cedar").write_text(_POLICIES.format(**planted))
    (folder / "types" / "records.cedarschema").write_text(_TYPES)
    return folder


NAMES: Final = ("comment", "annotation", "literal")


def token(canaries: Canaries, place: str, shown: Mapping[str, str], audience: str, **changes: Any) -> str:
    """Return a token whose claims hold secrets, all of them planted at *place*."""
    now = int(time.time())
    claims = make_claims(
        aud=audience,
        iat=now,
        exp=now + 300,
        run_exp=now + 600,
        sub=shown["user"],
        client_id=shown["agent"],
        task=shown["task"],
        purp=shown["purpose"],
        run=shown["run"],
        jti=shown["jti"],
        scope=f"{canaries.word(f'{place}, scope')} read",
        groups=[canaries.plant(f"{place}, mapped claim")],
        email=canaries.plant(f"{place}, claim that is not mapped"),
        address={"street": [canaries.plant(f"{place}, nested claim")]},
        authorization_details=[{"type": "agentguard_grant", "cedar": _grant(canaries, f"{place}, grant")}],
    )
    return canaries.take_token(place, sign({**claims, **changes}))


def _grant(canaries: Canaries, place: str) -> str:
    comment, literal = canaries.plant(f"{place}'s comment"), canaries.plant(f"{place}'s literal")
    return f'// {comment}\n{GRANT}\nforbid (principal, action, resource) when {{ principal == Agent::"{literal}" }};'


def build(folder: Path, canaries: Canaries, *, identity: Any = "meta", jwks: Any = None, **options: Any) -> Planted:
    """Return the server, with its state in a folder."""
    state = open_state(folder / "state")
    verifier = InvocationVerifier(
        TrustedIssuer(issuer=ISSUER, claims={"groups": frozenset}),
        audience=AUDIENCE,
        keys={ISSUER: FixedKeys(jwks or make_jwks(KEY))},
    )
    guard = Guard(folder / "policies", verifier=verifier, state=state, **options)
    server = MCPServer(SERVER, **guard.http_auth())
    planted = Planted(guard, server, state, canaries, folder)

    _add_taking(planted)
    _add_failing(planted)
    _add_waiting(planted)
    guard.attach(server, identity=identity)
    return planted


def _add_taking(planted: Planted) -> None:
    """Add a tool that takes everything, and the loader and the facts of it."""
    guard, server, canaries, known = planted.guard, planted.server, planted.canaries, planted.canaries.planted

    @guard.entity("Record", private=True)
    async def record(record_id: str) -> Any:
        canaries.saw(record_id)
        if record_id.startswith("raises"):
            message = known["loader's exception"]
            raise LookupError(message) from ValueError(record_id)
        if record_id.startswith("wrong"):
            return known["loader's wrong answer"]
        if record_id.startswith("nobody"):
            return None
        return Entity({"level": int(known["loaded number"]), "text": known["loaded text"]})

    def facts(text: str) -> Facts:
        canaries.saw(text)
        if text.startswith("raises"):
            raise ValueError(known["facts' exception"], text)
        return {"made": known["facts"] + text}

    @server.tool()
    @guard.tool(resource="Record::{record_id}", facts=facts, exclude=["hidden"])
    async def allowed(record_id: str, text: str, details: Details, hidden: str, ctx: Context) -> CallToolResult:
        """Take everything, and give it back."""
        request = ctx.request_context.request
        canaries.saw(record_id, text, details.model_dump(), hidden, current_invocation().claims)
        canaries.saw(current_invocation().scopes, current_invocation().grant)
        canaries.saw(dict(getattr(request, "headers", {})), str(getattr(request, "url", "")))
        canaries.saw(dict(ctx.request_context.meta or {}))
        return CallToolResult(
            content=[TextContent(type="text", text=known["result"] + hidden)],
            structured_content={"result": known["result's structure"]},
            _meta={"test/secret": known["result's metadata"]},
        )


def _add_failing(planted: Planted) -> None:
    """Add tools that are denied, or raise."""
    guard, server, known = planted.guard, planted.server, planted.canaries.planted

    @server.tool()
    @guard.tool
    async def forbidden(text: str) -> str:
        """Be denied by a policy."""
        return text

    @server.tool()
    @guard.tool
    async def broken(number: int) -> str:
        """Be denied by a policy that fails on a number, which Cedar quotes."""
        return str(number)

    @server.tool()
    @guard.tool(resource="Record::{record_id}")
    async def leveled(record_id: str) -> str:
        """Be denied by a policy that fails on what was loaded."""
        return record_id

    @server.tool()
    @guard.tool
    async def failing(text: str) -> str:
        """Raise an exception with all that one can carry."""
        raise_all(known, text)

    @server.tool()
    @guard.tool
    async def grouped(text: str) -> str:
        """Raise several at once."""
        message = known["exception's group"]
        raise ExceptionGroup(message, [ValueError(text), ValueError(known["exception's message"])])


def _add_waiting(planted: Planted) -> None:
    """Add tools that wait, for their end or for a person; and one that nobody guards."""
    guard, server, canaries, known = planted.guard, planted.server, planted.canaries, planted.canaries.planted

    @server.tool()
    @guard.tool
    def stubborn(text: str) -> str:
        """Come to a result, however long it takes and whatever happens meanwhile."""
        planted.entered.set()
        planted.leave.wait(20)
        return known["result"] + text

    @server.tool()
    @guard.tool
    async def patient(text: str) -> None:
        """Wait until it is cancelled, and mind."""
        planted.entered.set()
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            error.add_note(known["exception's note"] + text)
            raise

    @server.tool()
    @guard.tool
    async def asking(text: str, ctx: Context) -> str:
        """Ask a person."""
        answer = await ctx.elicit(known["question to a person"], Answer)
        canaries.saw(answer.data.model_dump() if answer.action == "accept" else "", text)
        return text

    @server.tool()
    async def bare(text: str) -> str:
        """Be guarded by nothing."""
        return text


def raise_all(known: Mapping[str, str], text: str) -> NoReturn:
    """Raise an exception that holds a secret wherever one can.

    Raises:
        ToolFailed: Always.
    """
    try:
        raise KeyError(known["exception's context"], text)
    except KeyError:
        failed = ToolFailed(
            known["exception's message"], known["exception's second argument"], kept=known["exception's attribute"]
        )
        failed.add_note(known["exception's note"])
        failed.__cause__ = OSError(5, known["exception's cause"])
        raise failed  # noqa: B904  the cause is set, and the context is a secret too


if __name__ == "__main__":
    # Our records alone, all of them: what the framework logs of a tool's exception is not ours.
    logging.getLogger("agentguard").setLevel(logging.DEBUG)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger("agentguard").addHandler(handler)
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    logging.getLogger("mcp").propagate = False
    place = Path(sys.argv[1])
    given = json.loads((place / "planted.json").read_text())
    served = build(place, Canaries(given["planted"]), jwks=given["jwks"], identity="environment")
    served.server.run("stdio")
