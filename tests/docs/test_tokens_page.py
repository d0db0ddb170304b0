"""The page on tokens says of each preset what the preset does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentguard import Grade, Reason, TrustedIssuer
from tests.docs.pages import ROOT, run_python
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
