"""One set of tests for three adapters: a guarded server behaves alike whichever framework it is written on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

from agentguard import Issuer
from tests.frameworks.built import NAMES, WAYS, Built, Name, Way, build, connect, memory_audience
from tests.world import AUDIENCE, ERAS, EVERYTHING, ISSUER, Era, meta, text

everywhere = [
    pytest.mark.parametrize("era", ERAS),
    pytest.mark.parametrize("way", WAYS),
    pytest.mark.parametrize("name", NAMES),
]


def each(test: Any) -> Any:
    """Run a test on each framework, in memory and over HTTP, in both protocol eras."""
    for mark in everywhere:
        test = mark(test)
    return test


@pytest.fixture
def built(name: Name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """Return the server, and put a token for calls in memory into the environment."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    token = issuer.mint(agent="reader", audience=memory_audience(), grant=EVERYTHING)
    monkeypatch.setenv("AGENTGUARD_TOKEN", token)
    return build(name, tmp_path, issuer=issuer)


@each
async def test_allowed_call_runs_once_on_the_values_that_were_judged(built: Built, way: Way, era: Era) -> None:
    """Structured results, coerced arguments and defaults come out as without a guard."""
    async with connect(built, way, era) as client:
        read = await client.call_tool("read", {"record_id": "r1"})
        export = await client.call_tool("export", {"max_rows": "500"})

    assert read.structured_content == {"record_id": "r1", "text": "secret of the patient"}
    assert text(export) == "500 rows"
    assert built.ran == ["read r1", "export 500 csv"]
    assert [one["agentguard.decision.effect"] for one in built.records()] == ["allow", "allow"]
    assert [one["agentguard.execution.outcome"] for one in built.records("outcome")] == ["completed", "completed"]


@each
async def test_denied_call_runs_nothing_and_reads_alike(built: Built, way: Way, era: Era) -> None:
    """A forbid, an entity that is missing, a tool without a permit, one without a decorator, one that is not there."""
    async with connect(built, way, era) as client:
        restricted = await client.call_tool("read", {"record_id": "r9"})
        missing = await client.call_tool("read", {"record_id": "nobody"})
        over = await client.call_tool("export", {"max_rows": 501})
        others = [await client.call_tool(name, {}) for name in ("hidden", "naked", "no_such_tool")]

    assert built.ran == []
    assert meta(restricted) | {"id": ""} == {"id": "", "effect": "deny", "reason": "denied", "retry": "change"}
    assert text(restricted) == (
        "Denied by policy: This record is restricted. Do not repeat this call unchanged. "
        f"Decision {meta(restricted)['id']}."
    )
    assert meta(missing)["reason"] == "denied"
    assert "At most 500 rows." in text(over)
    words = {text(one).replace(meta(one)["id"], "") for one in others}
    assert words == {"Denied by policy. Do not repeat this call unchanged. Decision ."}
    reasons = ["policy", "missing_entity", "policy", "no_permit", "unguarded", "unguarded"]
    assert [one["agentguard.decision.reason"] for one in built.records()] == reasons


@each
async def test_argument_that_does_not_fit_is_worded_constantly(built: Built, way: Way, era: Era) -> None:
    """Neither the value nor the schema comes back, and nothing runs."""
    async with connect(built, way, era) as client:
        wrong = await client.call_tool("export", {"max_rows": "a lot"})
        absent = await client.call_tool("read", {})

    for one in (wrong, absent):
        assert meta(one)["reason"] == "invalid_argument"
        assert "a lot" not in text(one)
        assert "record_id" not in text(one)
    assert built.ran == []
    # Whoever runs the server learns which one it was.
    assert [one["agentguard.decision.detail"] for one in built.records()] == [
        "`max_rows` wants a whole number, got a string",
        "`record_id` is missing",
    ]


@each
async def test_list_shows_what_some_argument_could_be_allowed_with(built: Built, way: Way, era: Era) -> None:
    """What is forbidden only for some arguments is shown; what has no permit or no decorator is not."""
    async with connect(built, way, era) as client:
        listed = await client.list_tools()

    assert [tool.name for tool in listed.tools] == ["read", "export", "nested", "slow", "fails", "pay"]


@each
async def test_call_inside_a_tool_is_judged_by_itself(built: Built, way: Way, era: Era) -> None:
    """The tool is allowed, what it calls is not: the outermost answer is the denial."""
    async with connect(built, way, era) as client:
        allowed = await client.call_tool("nested", {"record_id": "r1"})
        denied = await client.call_tool("nested", {"record_id": "r9"})

    assert not allowed.is_error
    assert built.ran == ["read r1", "nested r1"]
    assert meta(denied)["reason"] == "denied"
    actions = [(one["agentguard.action.id"], one["agentguard.decision.effect"]) for one in built.records()]
    assert actions == [("nested", "allow"), ("read", "allow"), ("nested", "allow"), ("read", "deny")]


@each
async def test_end_of_the_run_stops_a_call_in_flight(built: Built, way: Way, era: Era) -> None:
    """The call is cancelled, its answer is the end, and no further call is allowed."""
    answers: list[Any] = []
    async with connect(built, way, era) as client:

        async def call() -> None:
            answers.append(await client.call_tool("slow", {}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(10):
                await built.entered.wait()
            (decision,) = built.records()
            built.guard.revoke(decision["agentguard.run.id"])
        after = await client.call_tool("read", {"record_id": "r1"})

    assert [meta(one)["reason"] for one in (*answers, after)] == ["ended", "ended"]
    assert built.ran == ["slow"]
    (outcome,) = built.records("outcome")
    assert outcome["agentguard.execution.outcome"] == "cancelled"


@each
async def test_failure_of_a_tool_is_the_tools_own(built: Built, way: Way, era: Era) -> None:
    """It is no denial, and its text is in no record."""
    async with connect(built, way, era) as client:
        try:
            failed = await client.call_tool("fails", {"name": "x"})
        except MCPError:
            failed = None

    assert built.ran == ["fails x"]
    assert failed is None or (failed.is_error and "agentguard/decision" not in (failed.meta or {}))
    (outcome,) = built.records("outcome")
    assert outcome["agentguard.execution.outcome"] == "failed"
    assert "disk of the patient" not in str(built.records("outcome"))


@each
async def test_person_who_says_yes_lets_exactly_this_call_run(built: Built, way: Way, era: Era) -> None:
    """Asked before anything runs, through the caller's own client, in either era."""
    asked: list[str] = []

    async def person(_context: Any, params: Any) -> ElicitResult:
        asked.append(f"{params.message} {built.ran}")
        return ElicitResult(action="accept", content={"approve": True})

    async with connect(built, way, era, elicitation_callback=person) as client:
        paid = await client.call_tool("pay", {"cents": 500, "to": "alice"})

    assert text(paid) == "paid"
    assert built.ran == ["pay 500 alice"]
    (question,) = asked
    assert question.startswith("Pay this amount?")
    assert question.endswith("[]")
    allowed = built.records()[-1]
    assert allowed["agentguard.decision.effect"] == "allow"
    assert allowed["agentguard.approval.channel"] == "client"


@each
async def test_person_who_says_no_stops_it(built: Built, way: Way, era: Era) -> None:
    """Declined is denied."""

    async def person(_context: Any, _params: Any) -> ElicitResult:
        return ElicitResult(action="decline")

    async with connect(built, way, era, elicitation_callback=person) as client:
        declined = await client.call_tool("pay", {"cents": 500, "to": "alice"})

    assert meta(declined)["reason"] == "approval"
    assert built.ran == []
    assert built.records()[-1]["agentguard.decision.reason"] == "approval_declined"


@each
async def test_client_that_cannot_ask_a_person_is_denied(built: Built, way: Way, era: Era) -> None:
    """Without a way back nothing runs."""
    async with connect(built, way, era) as client:
        denied = await client.call_tool("pay", {"cents": 500, "to": "alice"})

    assert meta(denied)["reason"] == "approval"
    assert built.ran == []
    assert built.records()[-1]["agentguard.decision.reason"] == "approval_unavailable"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", NAMES)
async def test_run_without_a_permit_sees_nothing_and_may_nothing(name: Name, era: Era, tmp_path: Path) -> None:
    """Over HTTP, the identity is the bearer's."""
    built = build(name, tmp_path)
    async with connect(built, "http", era, token=built.token("stranger")) as client:
        listed = await client.list_tools()
        denied = await client.call_tool("read", {"record_id": "r1"})

    assert listed.tools == []
    assert meta(denied)["reason"] == "denied"
    assert built.ran == []


@pytest.mark.parametrize("name", NAMES)
async def test_token_of_another_server_is_refused(name: Name, tmp_path: Path) -> None:
    """Before any message is read."""
    built = build(name, tmp_path)
    with pytest.raises(Exception, match=r"401|Unauthorized|Session terminated|unhandled errors"):
        async with connect(built, "http", "2026-07-28", token=built.token(audience="http://127.0.0.1/other")):
            raise AssertionError

    assert built.ran == []
