"""Supposed calls beside real ones: every identity of the clinic, and every call."""

from __future__ import annotations

from pathlib import Path

from tests.analysis.clinic import written_clinic
from tests.analysis.test_supposed import CALLS, IDENTITIES, compare


async def test_every_supposed_call_comes_out_as_the_real_one(tmp_path: Path) -> None:
    """The same effect, reason and policies, for each identity and each call."""
    await compare(await written_clinic(tmp_path), [(who, call) for who in IDENTITIES for call in CALLS])
