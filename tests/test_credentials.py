"""Credentials in a guarded server: who gets one, who sees it, and when it ends."""

import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from mcp_types import CallToolResult

from agentguard import ConfigurationError, Credential, Guard, PolicyError, Spend, UnsafeMemoryState
from agentguard.credentials.leases import Leases
from agentguard.errors import CredentialError
from agentguard.policy.grants import grant_text
from tests.credentials.lending import Office, until
from tests.world import (
    ERAS,
    EVERYTHING,
    ISSUER,
    POLICIES,
    Era,
    World,
    connected,
    make_world,
    meta,
    text,
    write_policies,
)

ISSUE: Final = 'Action::"credentials/issue"'
CALLS: Final = POLICIES + '@id("calls") permit (principal, action in Action::"tools/call", resource);'
LENT: Final = f'{CALLS} @id("lends") permit (principal, action == {ISSUE}, resource == Credential::"crm");'
OF_TOOL: Final = (
    f'{CALLS} @id("lends") permit (principal, action == {ISSUE}, resource) '
    'when { context.input.credential == "crm" && context.input.tool == "injected" };'
)


def make(folder: Path, policies: str = LENT, **options: Any) -> tuple[World, Office]:
    """Return a server with two tools that want a credential, and its broker."""
    office = Office(time.time)

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def injected(name: str, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Look somebody up."""
            world.ran.append(f"injected {name} {crm.reveal()}")
            return f"{name} {crm!r}"

        @world.server.tool()
        @world.guard.tool
        async def asking(name: str) -> str:
            """Do the same once that is known to be needed."""
            world.ran.append("asking")
            crm = await world.guard.credential(name)
            world.ran.append(f"got {crm.reveal()}")
            return "done"

        @world.server.tool()
        @world.guard.tool
        def in_a_thread(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Use it in a thread."""
            world.ran.append(f"thread {crm.authorization()['Authorization'].removeprefix('Bearer ')}")
            return "done"

    return make_world(folder, policies=policies, extend=extend, broker=office, **options), office


def leases_of(world: World) -> Leases:
    """Return the leases of a guard."""
    lender = world.guard._gate.lender
    assert lender is not None
    return lender.leases


async def called(world: World, tool: str, era: Era = ERAS[-1], **arguments: Any) -> CallToolResult:
    """Call a tool in memory."""
    async with connected(world, "memory", era) as client:
        return await client.call_tool(tool, arguments)


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_gets_a_credential_that_no_caller_sees(tmp_path: Path, era: Era) -> None:
    """Neither in the schema nor in the answer; each has a decision of its own, and the lease a record."""
    world, office = make(tmp_path)
    async with connected(world, "memory", era) as client:
        listed = {tool.name: tool.input_schema["properties"] for tool in (await client.list_tools()).tools}
        answer = await client.call_tool("injected", {"name": "ann"})
        again = await client.call_tool("in_a_thread", {})

    assert set(listed["injected"]) == {"name"}
    assert listed["in_a_thread"] == {}
    assert text(answer) == "ann <credential `crm`>"
    assert not again.is_error
    assert world.ran == [f"injected ann {office.secret(1)}", f"thread {office.secret(1)}"]
    assert office.asked == [("issue", "crm")]

    request = office.requests[0]
    assert (request.server, request.tool) == ("records", "injected")
    assert request.until == request.invocation.run_ends_at
    assert request.token.count(".") == 2

    call, issue = world.records()[:2]
    assert (call["agentguard.action.id"], call["agentguard.policy.ids"]) == ("injected", ["calls", "grant:0"])
    assert (issue["agentguard.action.id"], issue["agentguard.policy.ids"]) == (
        "credentials/issue",
        ["lends", "grant:0"],
    )
    assert issue["agentguard.resource.id"] == "crm"
    kept = [entry.record.get("inputs") for entry in world.state.ledger if entry.record["kind"] == "decision"]  # type: ignore[attr-defined]
    assert kept[:2] == [None, {"credential": "crm", "tool": "injected"}]
    (lease,) = world.records("credential")
    assert lease["agentguard.credential.event"] == "issued"
    assert lease["agentguard.run.id"] == call["agentguard.run.id"]
    leases_of(world).close()


@pytest.mark.parametrize(
    ("policies", "grant"),
    [
        (CALLS, EVERYTHING),
        (f'{LENT} @id("none") forbid (principal, action == {ISSUE}, resource);', EVERYTHING),
        (LENT, 'permit (principal, action == Action::"injected", resource);'),
    ],
    ids=["no permit", "forbid", "grant"],
)
async def test_where_policies_or_the_grant_give_no_credential_the_tool_does_not_run(
    tmp_path: Path, policies: str, grant: str
) -> None:
    """Nobody asks the broker either, and what the caller learns is that it was denied."""
    world, office = make(tmp_path, policies, agent=None)
    async with connected(world, "http", ERAS[-1], grant=grant) as client:
        answer = await client.call_tool("injected", {"name": "ann"})

    assert (meta(answer)["reason"], meta(answer)["retry"]) == ("denied", "change")
    assert world.ran == []
    assert office.asked == []
    assert [record["agentguard.decision.effect"] for record in world.records()] == ["allow", "deny"]


async def test_policies_know_which_tool_wants_which_credential(tmp_path: Path) -> None:
    """One may be for one tool alone."""
    world, office = make(tmp_path, OF_TOOL)

    assert not (await called(world, "injected", name="ann")).is_error
    assert meta(await called(world, "asking", name="crm"))["reason"] == "denied"
    assert meta(await called(world, "in_a_thread"))["reason"] == "denied"

    assert world.ran == [f"injected ann {office.secret(1)}", "asking"]
    leases_of(world).close()


async def test_a_tool_may_ask_while_it_runs(tmp_path: Path) -> None:
    """It gets what the run has already."""
    world, office = make(tmp_path)

    await called(world, "injected", name="ann")
    assert text(await called(world, "asking", name="crm")) == "done"

    assert world.ran[1:] == ["asking", f"got {office.secret(1)}"]
    assert office.count("issue") == 1
    leases_of(world).close()


@pytest.mark.parametrize("tool", ["injected", "in_a_thread"])
async def test_where_the_broker_is_down_the_tool_does_not_run(tmp_path: Path, tool: str) -> None:
    """The caller learns that it may try again later, and nothing else."""
    world, office = make(tmp_path)
    office.answers["issue"] = [CredentialError("the server is down", retry=True), ValueError("with a passw0rd in it")]

    for _ in range(2):
        answer = await (called(world, tool, name="ann") if tool == "injected" else called(world, tool))
        assert (meta(answer)["reason"], meta(answer)["retry"]) == ("unavailable", "later")
        assert "down" not in text(answer)
        assert "passw0rd" not in text(answer)

    assert world.ran == []
    assert world.records("credential") == []
    assert not (await called(world, "in_a_thread")).is_error
    leases_of(world).close()


async def test_ending_the_run_gives_its_credential_back(tmp_path: Path) -> None:
    """Whoever ends it, and for whatever reason; the record says so."""
    world, office = make(tmp_path)
    await called(world, "injected", name="ann")

    run_id = world.records()[0]["agentguard.run.id"]
    world.guard.revoke(run_id, issuer=ISSUER, reason="completed")

    await until(
        lambda: [record["agentguard.credential.event"] for record in world.records("credential")][1:] == ["released"]
    )
    assert office.released == [office.secret(1)]
    assert meta(await called(world, "injected", name="ann"))["reason"] == "ended"
    assert len(world.ran) == 1
    leases_of(world).close()


async def test_a_run_that_is_ended_while_its_tool_waits_for_a_credential_gets_none(tmp_path: Path) -> None:
    """What comes afterwards is given back."""
    world, office = make(tmp_path)

    def ended() -> Any:
        made = office.made()
        world.guard.revoke(world.records()[0]["agentguard.run.id"], issuer=ISSUER)
        return made

    office.answers["issue"] = [ended]
    assert meta(await called(world, "injected", name="ann"))["reason"] == "ended"

    await until(lambda: office.released == [office.secret(1)])
    assert world.ran == []
    leases_of(world).close()


async def test_a_credential_that_a_tool_returns_is_stopped(tmp_path: Path) -> None:
    """The agent does not get it, and the record says that a tool wanted to hand it out."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def tells(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            return f"the secret is {crm.reveal()}"

    office = Office(time.time)
    world = make_world(tmp_path, policies=LENT, extend=extend, broker=office)
    answer = await called(world, "tells")

    assert answer.is_error
    assert office.secret(1) not in answer.model_dump_json()
    assert meta(answer)["reason"] == "denied"
    (leak,) = world.records("credential_leak")
    assert leak["agentguard.decision.id"] in {one["agentguard.decision.id"] for one in world.records()}
    leases_of(world).close()


def test_a_credential_that_nobody_gives_is_refused_at_start_up(tmp_path: Path) -> None:
    """With what to write instead."""
    write_policies(tmp_path / "policies")
    options: dict[str, Any] = {"issuer": ISSUER, "audience": "http://127.0.0.1/mcp", "state": UnsafeMemoryState()}
    without = Guard(tmp_path / "policies", **options)
    guard = Guard(tmp_path / "policies", broker=Office(time.time), **options)

    with pytest.raises(ConfigurationError, match="`crm`: give the guard a broker="):
        without.credential("crm")
    with pytest.raises(ConfigurationError, match="`crn`: did you mean `crm`"):
        guard.credential("crn")
    with pytest.raises(ConfigurationError, match="wants a CredentialBroker, got `str`"):
        Guard(tmp_path / "policies", broker="https://login.example", **options)  # type: ignore[arg-type]


def test_a_parameter_that_a_caller_could_fill_is_refused(tmp_path: Path) -> None:
    """What looks like a credential is one, or is refused when the server starts."""
    write_policies(tmp_path / "policies")
    options: dict[str, Any] = {"issuer": ISSUER, "audience": "http://127.0.0.1/mcp", "state": UnsafeMemoryState()}
    guard = Guard(tmp_path / "policies", broker=Office(time.time), **options)
    crm, mail = guard.credential("crm"), guard.credential("mail")
    assert repr(crm) == "guard.credential('crm')"

    async def default(crm: Credential = crm) -> None: ...  # type: ignore[assignment]
    async def anything(crm: Any = crm) -> None: ...
    async def optional(crm: Annotated[Credential | None, crm] = None) -> None: ...
    async def several(crm: list[Credential]) -> None: ...
    async def unsaid(crm: Credential) -> None: ...
    async def twice(crm: Annotated[Credential, crm, mail]) -> None: ...
    async def other(crm: Annotated[str, crm]) -> None: ...
    async def slash(crm: Annotated[Credential, crm], /) -> None: ...

    declared: list[Any] = [default, anything, optional, several, unsaid, twice, other, slash]
    for function in declared:
        with pytest.raises(ConfigurationError, match=r"write `crm: Annotated\[Credential, guard.credential\("):
            guard.tool(function)


async def test_a_credential_is_for_a_running_tool_alone(tmp_path: Path) -> None:
    """Outside of one there is no run that it could be for."""
    world, office = make(tmp_path)
    with pytest.raises(LookupError):
        await world.guard.credential("crm")
    assert office.asked == []


async def test_a_call_that_never_began_has_spent_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its credential could not be had, or was forbidden, so nothing was paid; the log says why."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(labels={"paid"})
        async def pay(
            amount: Annotated[Decimal, Spend("payments")], crm: Annotated[Credential, world.guard.credential("crm")]
        ) -> str:
            world.ran.append("pay")
            raise ValueError

    office = Office(time.time)
    policies = LENT + (
        '@id("budget") forbid (principal, action, resource) when '
        '{ context.run.spent.payments.greaterThan(decimal("10.0")) };'
    )
    world = make_world(tmp_path, policies=policies, extend=extend, broker=office)
    office.answers["issue"] = [CredentialError("the bank is closed"), CredentialError("the bank is closed")]
    for _ in range(2):
        assert meta(await called(world, "pay", amount="6"))["reason"] == "unavailable"
    assert world.ran == []
    assert "the bank is closed" in caplog.text
    kept = world.records("outcome")[-1]
    assert kept["agentguard.execution.outcome"] == "cancelled"
    assert kept["agentguard.execution.reason"] == "credential_unavailable"
    # What began counts, whatever became of it.
    assert (await called(world, "pay", amount="6")).is_error
    assert world.ran == ["pay"]
    assert meta(await called(world, "pay", amount="6"))["reason"] == "denied"
    state = world.records()[-1]
    assert state["agentguard.run_state.spent"] == ["payments=12.0000"]
    assert state["agentguard.run_state.calls"] == 1
    assert state["agentguard.run_state.labels"] == ["paid"]
    leases_of(world).close()


def test_policy_on_a_credential_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """A forbid with a slip of the pen would let the credential be had."""
    policies = f'{LENT}\n@id("no-crm") forbid (principal, action == {ISSUE}, resource == Credential::"crmm");'

    with pytest.raises(PolicyError, match=r"no credential is called `crmm`: did you mean `crm`\?"):
        make(tmp_path, policies=policies)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (None, None),
        ({"credentials/issue": {"credential": ["crm"], "tool": ["injected"]}}, None),
        ({"credentials/issue": {"credential": ["mail"]}}, "denied"),
        ({"credentials/issue": {"tool": ["asking"]}}, "denied"),
    ],
)
async def test_a_grant_of_tools_says_which_credentials_they_get(
    tmp_path: Path, arguments: Any, reason: str | None
) -> None:
    """By the action's name among them, and its arguments."""
    world, _ = make(tmp_path, agent=None)
    grant = grant_text(tools=["injected", "credentials/issue"], arguments=arguments)
    async with connected(world, "http", ERAS[-1], grant=grant) as client:
        answer = await client.call_tool("injected", {"name": "ann"})

    assert (meta(answer)["reason"] if answer.is_error else None) == reason
    leases_of(world).close()
