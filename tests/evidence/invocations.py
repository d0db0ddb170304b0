"""Invocations for tests of the evidence, built past verification."""

from agentguard.model import VERIFIED, Grade, Invocation


def bare(*, run_id: str = "run-1", issuer: str = "https://issuer.example") -> Invocation:
    """Return an invocation with nothing but what every one has."""
    return Invocation(
        run_id=run_id,
        issuer=issuer,
        agent="billing-agent",
        grade=Grade.TOKEN,
        issued_at=1_000,
        ends_at=1_290.0,
        run_ends_at=1_300,
        seal=VERIFIED,
    )


def complete() -> Invocation:
    """Return an invocation with everything that evidence can show."""
    return Invocation(
        run_id="run-2",
        issuer="https://issuer.example",
        agent="mailer",
        grade=Grade.RUN,
        issued_at=1_000,
        ends_at=1_290.0,
        run_ends_at=1_300,
        token_id="jti-2",
        client_id="mailer",
        subject="alice",
        user="alice",
        task="invoice-42",
        purpose="monthly close",
        scopes=frozenset({"records"}),
        claims={"cost_center": "unmapped nowhere"},
        grant="permit (principal, action, resource);",
        ancestors=(bare(run_id="run-0"), bare(run_id="run-1")),
        seal=VERIFIED,
    )
