"""The page on tokens says of each preset what the preset does."""

from __future__ import annotations

import re
import shlex
import time
from contextlib import closing
from pathlib import Path

import pytest

from agentguard import Grade, Reason, SQLiteStore, TrustedIssuer
from agentguard.testing import unsafe_invocation
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python
from tests.docs.test_pages import TOKENS_PAGE, rows
from tests.identity.goldens import GOLDENS
from tests.tokens import make_foreign_claims, refusal_of, sign, verified


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, TrustedIssuer]:
    """Return what the page makes, by name."""
    monkeypatch.chdir(tmp_path)
    names = run_python(TOKENS_PAGE, tmp_path)
    return {name: value for name, value in names.items() if isinstance(value, TrustedIssuer)}


def test_table_of_presets_is_what_they_do(presets: dict[str, TrustedIssuer]) -> None:
    """Each row's claims, lifetime and grade."""
    found = rows(TOKENS_PAGE, "Presets")

    assert [row[0].strip("`") for row in found] == ["entra", "okta", "auth0", "keycloak", "generic"]
    for preset, agent, user, nobody, token_id, lifetime, grade in found:
        trusted = presets[preset.strip("`")]
        assert agent.split("`")[1] in trusted.dialect.client_claims
        assert user == f"`{trusted.dialect.user_claim}`"
        assert set(trusted.dialect.nobody) - {"idtyp"} <= set(re.findall(r"`([a-z_]+)`", nobody))
        assert int(lifetime) == trusted.max_lifetime
        assert grade == f"`{Grade.TOKEN}`"
        plain = [
            one for one in GOLDENS.values() if one.name.startswith(preset.strip("`")) and not one.trusted.run_claim
        ]
        assert all(one.earns["grade"] == "token" for one in plain)
        assert all(one.claims[token_id.strip("`")] == one.earns["run_id"] for one in plain)


def test_commands_of_the_page_end_what_another_issuer_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token by its `jti`, and those of a user that are out, in the store that a guard asks."""
    monkeypatch.chdir(tmp_path)
    issuer = TrustedIssuer.keycloak(url="https://sso.example.com", realm="company").issuer
    (shown,) = (block.text for block in blocks(TOKENS_PAGE, "sh"))
    one, many = (shlex.split(line)[1:] for line in shown.splitlines())
    now = time.time()
    with closing(SQLiteStore("runs.db")) as store:
        token = unsafe_invocation("bot", issuer=issuer, run_id=one[1], grade=Grade.TOKEN)
        users = unsafe_invocation("bot", issuer=issuer, user=many[2], grade=Grade.TOKEN)
        later = unsafe_invocation("bot", issuer=issuer, user=many[2], grade=Grade.TOKEN, at=now + 120)

        assert agentguard(*one).status == 0
        store.sync()
        assert [store.ended(each) for each in (token, users, later)] == [True, False, False]
        assert agentguard(*many).status == 0
        store.sync()
        assert [store.ended(each) for each in (token, users, later)] == [True, True, False]


def test_dialect_that_the_page_shows_reads_the_tokens_that_it_describes(presets: dict[str, TrustedIssuer]) -> None:
    """One for nobody, one for a person, and an ID token."""
    other = presets["other"]
    header = {"typ": "JWT"}

    def token(**claims: object) -> str:
        usual = {"iss": other.issuer, "token_use": "access", "app": "a-1", "sub": "a-1"}
        own = make_foreign_claims(**{**usual, **claims})
        del own["client_id"]
        return sign(own, header=header)

    trusted = TrustedIssuer(
        issuer=other.issuer, mints_runs=False, types=other.types, max_lifetime=3_600, dialect=other.dialect
    )
    assert verified(token(), trusted=trusted).user is None
    assert verified(token(sub="x", person="p-1"), trusted=trusted).user == "p-1"
    assert refusal_of(token(token_use="id"), trusted=trusted) is Reason.INVALID_TOKEN
    assert refusal_of(token(nonce="n-1"), trusted=trusted) is Reason.INVALID_TOKEN


def test_changes_of_presets_that_the_page_writes_out_are_code(presets: dict[str, TrustedIssuer]) -> None:
    """What stands between the lines is as good as a block."""
    import dataclasses

    text = (ROOT / TOKENS_PAGE).read_text("utf-8")
    shown = re.findall(r"`(dataclasses\.replace\(.+?\))`", text)

    assert len(shown) == 3
    for code in shown:
        assert isinstance(eval(code, {**presets, "dataclasses": dataclasses}), TrustedIssuer)  # noqa: S307  our own page
