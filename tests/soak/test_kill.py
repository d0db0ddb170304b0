"""An issuer's process is killed at any moment, and what it had said still holds."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentguard import FixedKeys, InvocationVerifier, TrustedIssuer
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import RunState
from tests.lifecycle.processes import other
from tests.soak.others import issue_for_ever
from tests.world import AUDIENCE, ISSUER

KILLS = 50


def new_key() -> str:
    """Return a private key that outlives a process."""
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


async def test_killed_issuer_brings_no_ended_run_back_and_loses_none_that_lives(tmp_path: Path) -> None:
    """Fifty times, while runs begin and end: every fact that was reported is in the file."""
    path, key = tmp_path / "state" / "store.db", new_key()
    chance = random.Random(3)  # noqa: S311  a moment, not a secret
    verifier = InvocationVerifier(
        TrustedIssuer(issuer=ISSUER),
        audience=AUDIENCE,
        keys={ISSUER: FixedKeys(Issuer(issuer=ISSUER, key=key).jwks())},
    )
    tokens: dict[str, str] = {}
    ending: set[str] = set()
    ended: set[str] = set()
    for kill in range(KILLS):
        with other(issue_for_ever, path, key, f"issuer-{kill}") as process:
            facts = process.hear(chance.randrange(1, 25))
            # Not in step with what it says.
            for _ in range(chance.randrange(20_000)):
                pass
            facts += process.kill()
        for fact, run, token in facts:
            if fact == "began":
                tokens[run] = token
            else:
                (ending if fact == "ending" else ended).add(run)

        # As a guard that starts now, and an issuer that is started again, find it.
        with closing(SQLiteStore(path)) as store:
            states = {run.run_id: run.state for run in store.runs()}
            for run, token in tokens.items():
                invocation = await verifier.verify(token)
                if run in ended:
                    assert store.ended(invocation), (kill, run)
                    assert states[run] is RunState.COMPLETED
                elif run not in ending:
                    assert not store.ended(invocation), (kill, run)
                    assert states[run] is RunState.ISSUED
                    store.require_mintable(invocation)
                else:
                    # Killed in the middle of it: either way, but not half.
                    assert store.ended(invocation) is (states[run] is RunState.COMPLETED)

    assert len(ended) > KILLS
    assert len(tokens) - len(ending) > KILLS
