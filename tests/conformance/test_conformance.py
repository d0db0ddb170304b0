"""A guard that permits everything changes nothing that the conformance suite can see."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from fastmcp.server.event_store import EventStore

from agentguard import Guard, Issuer, MemoryStore, State
from agentguard.evidence.ledger import MemoryLedger
from tests.conformance.conftest import Scores
from tests.conformance.events import Events
from tests.conformance.everything import everything, lowlevel
from tests.conformance.fast import fast
from tests.conformance.suite import Score, install, listed, score, served
from tests.world import AUDIENCE, ERAS, EVERYTHING, ISSUER, Era, make_guard, write_policies

PERMIT_ALL: Final = f'@id("all") {EVERYTHING}'

# What this version of the suite has for a server, so that a run of less than that is noticed.
SCENARIOS: Final[dict[Era, int]] = {"2025-11-25": 33, "2026-07-28": 40}
SUCCESSES: Final[dict[Era, int]] = {"2025-11-25": 84, "2026-07-28": 152}

# What no client may send, the suite does: methods that are not of this version, and an answer that is none.
DENIED: Final[dict[Era, set[tuple[str, str]]]] = {
    "2025-11-25": set(),
    "2026-07-28": {
        ("resources/subscribe", "unguarded"),
        ("resources/unsubscribe", "unguarded"),
        ("unknown/method", "unguarded"),
        ("test_input_required_result_elicitation", "invalid_argument"),
    },
}

Build = Callable[[Guard | None], Awaitable[Any]]


async def mcpserver(guard: Guard | None, *, unmodified: bool = False) -> Any:
    """Return the application of an `MCPServer`."""
    return everything(guard, unmodified=unmodified).streamable_http_app(event_store=Events(), retry_interval=100)


async def fastmcp(guard: Guard | None, *, unmodified: bool = False) -> Any:
    """Return the application of a FastMCP server."""
    server = fast(guard, unmodified=unmodified)
    return server.http_app(event_store=EventStore(), retry_interval=100, host_origin_protection=True)


async def low(guard: Guard | None, *, unmodified: bool = False) -> Any:
    """Return the application of a low-level server."""
    auth: dict[str, Any] = {} if guard is None else {**guard.http_auth()}
    server = await lowlevel(guard, unmodified=unmodified)
    return server.streamable_http_app(event_store=Events(), retry_interval=100, **auth)


# What is guarded, and what it scores as: its own code bare, whatever the guard found it by.
SERVERS: Final[dict[str, tuple[Build, Build]]] = {
    "MCPServer": (mcpserver, mcpserver),
    "FastMCP": (fastmcp, fastmcp),
    "Server": (low, low),
    "MCPServer, unmodified": (partial(mcpserver, unmodified=True), mcpserver),
    "FastMCP, unmodified": (partial(fastmcp, unmodified=True), fastmcp),
    "Server, unmodified": (partial(low, unmodified=True), low),
}

# FastMCP has no `subscriptions/listen`, so the suite skips what would come on it.
SKIPPED: Final[dict[tuple[Build, Era], int]] = {(fastmcp, "2026-07-28"): 5}

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


@pytest.fixture(scope="session")
def program() -> Path:
    """Return the suite's program."""
    return install()


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guard, the token of a run, and what the guard decides."""

    guard: Guard
    token: str
    ledger: MemoryLedger

    def decided(self, effect: str) -> list[tuple[str, str]]:
        """Return the tool and the reason of each decision of one effect, oldest first."""
        kept = [entry.record["attributes"] for entry in self.ledger if entry.record["kind"] == "decision"]
        return [
            (one.get("gen_ai.tool.name", one["mcp.method.name"]), one["agentguard.decision.reason"])
            for one in kept
            if one["agentguard.decision.effect"] == effect
        ]


def guarding(folder: Path, policies: str) -> Guarded:
    """Return a guard, and the token of a run that may do whatever the policies permit."""
    issuer, ledger = Issuer(issuer=ISSUER, audience=AUDIENCE), MemoryLedger()
    state = State(store=MemoryStore(clock=time.time), ledger=ledger, key=bytes(32))
    guard, _ = make_guard(write_policies(folder, policies, types=None), issuer, state=state)
    return Guarded(guard, issuer.mint(agent="conformance", grant=EVERYTHING), ledger)


async def scored(program: Path, build: Build, guarded: Guarded | None, era: Era, folder: Path) -> Score:
    """Serve a server of every feature, and let the suite look at it."""
    guard, token = (None, None) if guarded is None else (guarded.guard, guarded.token)
    async with served(await build(guard), token) as url:
        return await score(program, url, era, folder)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("server", SERVERS)
async def test_guarded_server_scores_as_the_bare_one(
    program: Path,
    tmp_path: Path,
    scores: Scores,
    server: str,
    era: Era,
) -> None:
    """Check by check, the suite finds under a guard what it finds without one."""
    permitting = guarding(tmp_path / "policies", PERMIT_ALL)
    build, build_bare = SERVERS[server]
    skipped = SKIPPED.get((build_bare, era), 0)

    if (build_bare, era) not in scores.bare:
        scores.bare[build_bare, era] = await scored(program, build_bare, None, era, tmp_path / "bare")
        scores.tell(f"{server}, bare", era, scores.bare[build_bare, era])
    bare = scores.bare[build_bare, era]
    guarded = await scored(program, build, permitting, era, tmp_path / "guarded")
    scores.tell(f"{server}, guarded", era, guarded)

    assert bare.checks.keys() == listed(program, "--server", "--spec-version", era)
    assert bare.checks.keys() >= listed(program, "--requirements", era)
    assert len(bare.checks) == SCENARIOS[era]
    assert bare.complaints == ()
    assert (bare.count("SUCCESS"), bare.count("SKIPPED")) == (SUCCESSES[era] - skipped, skipped)
    assert guarded.complaints == ()
    assert guarded.checks == bare.checks
    # The suite takes many a denial for an answer, so the evidence says that there was none.
    assert set(permitting.decided("deny")) == DENIED[era]
    assert len(permitting.decided("allow")) > SCENARIOS[era] / 2


async def test_suite_sees_a_guard_that_denies(program: Path, tmp_path: Path) -> None:
    """Equal scores mean something: under a policy that forbids one tool, that tool's scenario fails."""
    policies = PERMIT_ALL + '@id("no") forbid (principal, action == Action::"test_image_content", resource);'
    forbidding = guarding(tmp_path / "policies", policies)

    guarded = await scored(program, mcpserver, forbidding, "2026-07-28", tmp_path / "guarded")

    assert any(complaint.startswith("tools-call-image: FAILURE") for complaint in guarded.complaints)
    assert ("test_image_content", "policy") in forbidding.decided("deny")
